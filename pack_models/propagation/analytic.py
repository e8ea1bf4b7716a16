"""Closed forms and series that the models are checked against: conduction, radiation, thermal explosion.

Carslaw and Jaeger, "Conduction of Heat in Solids"; Semenov and Frank-Kamenetskii criticality with the exact
Arrhenius exponent. SI, temperatures in K, gas constant 8.314 as in the kinetic sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, minimize_scalar
from scipy.special import erfc, erfcx

GAS_CONSTANT = 8.314
STEFAN_BOLTZMANN = 5.670374419e-8


def two_half_spaces(
    x_m: np.ndarray,
    time_s: float,
    left: tuple[float, float, float],
    right: tuple[float, float, float],
    resistance: float = 0.0,
) -> np.ndarray:
    """Two half-spaces (k, rho cp, start temperature) joined at x = 0 at time 0, with a contact resistance
    m2K/W.
    """
    out = np.empty(len(x_m))
    effusivity = [np.sqrt(m[0] * m[1]) for m in (left, right)]
    for i, x in enumerate(x_m):
        own, other = (0, 1) if x < 0 else (1, 0)
        k, rho_cp, start = (left, right)[own]
        diffusivity = k / rho_cp
        u = abs(x) / (2.0 * np.sqrt(diffusivity * time_s))
        f = erfc(u)
        if resistance > 0:
            h = (1.0 + effusivity[own] / effusivity[other]) / (resistance * k)
            f -= np.exp(-u * u) * erfcx(u + h * np.sqrt(diffusivity * time_s))
        out[i] = start + ((left, right)[other][2] - start) * effusivity[other] / sum(effusivity) * f
    return out


def slab_decay(position: np.ndarray, fourier: float, biot: float, terms: int = 200) -> np.ndarray:
    """(T - ambient)/(start - ambient) in a slab -1 <= position <= 1 with equal films on both faces."""
    roots = np.array(
        [
            brentq(lambda z: z * np.sin(z) - biot * np.cos(z), n * np.pi + 1e-12, (n + 0.5) * np.pi - 1e-12)
            for n in range(terms)
        ]
    )
    weights = 4.0 * np.sin(roots) / (2.0 * roots + np.sin(2.0 * roots))
    terms_ = weights * np.exp(-(roots**2) * fourier) * np.cos(np.outer(np.atleast_1d(position), roots))
    return np.asarray(terms_.sum(axis=1))


def box_decay(
    point_m: Sequence[float],
    time_s: float,
    size_m: Sequence[float],
    k_W_mK: Sequence[float],
    rho_cp: float,
    h: float,
) -> float:
    """Product solution of an anisotropic box with the same film on all six faces."""
    theta = 1.0
    for p, size, k in zip(point_m, size_m, k_W_mK, strict=True):
        half = 0.5 * size
        theta *= float(slab_decay(np.array([p / half - 1.0]), k / rho_cp * time_s / half**2, h * half / k)[0])
    return theta


def eigenmode_rate(
    size_m: Sequence[float], k_W_mK: Sequence[float], rho_cp: float, mode: Sequence[int]
) -> float:
    """Decay rate 1/s of a cosine mode in an adiabatic anisotropic box."""
    return float(
        sum(k * (n * np.pi / size) ** 2 for k, n, size in zip(k_W_mK, mode, size_m, strict=True)) / rho_cp
    )


def semenov_critical_K(activation_J_mol: float, source_W_m3: float, loss_W_m3K: float) -> tuple[float, float]:
    """(ambient, body) temperature at tangency of source exp(-E/RT) and a linear loss."""

    def slope(temperature: float) -> float:
        e = activation_J_mol / (GAS_CONSTANT * temperature)
        return float(source_W_m3 * np.exp(-e) * e / temperature - loss_W_m3K)

    scan = np.linspace(300.0, 0.4995 * activation_J_mol / GAS_CONSTANT, 100_000)
    above = int(np.argmax(np.array([slope(t) for t in scan[::100]]) > 0)) * 100
    body = float(brentq(slope, scan[max(above - 100, 0)], scan[above], xtol=1e-11))
    return body - source_W_m3 * float(np.exp(-activation_J_mol / (GAS_CONSTANT * body))) / loss_W_m3K, body


def frank_kamenetskii_critical_K(
    activation_J_mol: float, source_W_m3: float, k_W_mK: float, radius_m: float, geometry: int
) -> tuple[float, float]:
    """(wall, centre) temperature at criticality of a slab, cylinder or sphere (geometry 0, 1, 2) with a
    fixed wall.
    """

    def wall(centre: float) -> float:
        def slope(x: float, y: np.ndarray) -> list[float]:
            q = source_W_m3 * np.exp(-activation_J_mol / (GAS_CONSTANT * max(float(y[0]), 50.0))) / k_W_mK
            return [float(y[1]), -q / (1 + geometry) if x < 1e-12 else -q - geometry * float(y[1]) / x]

        return float(
            solve_ivp(slope, (0.0, radius_m), [centre, 0.0], method="LSODA", rtol=1e-10, atol=1e-8).y[0, -1]
        )

    centres = np.arange(320.0, 900.0, 4.0)
    walls = np.array([wall(c) for c in centres])
    peak = next(i for i in range(1, walls.size - 1) if walls[i] >= walls[i - 1] and walls[i] > walls[i + 1])
    best = minimize_scalar(
        lambda c: -wall(c),
        bounds=(centres[peak - 1], centres[peak + 1]),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return -float(best.fun), float(best.x)


def radiation_time_s(
    start_K: float, end_K: float, capacity_J_K: float, emissivity_area_m2: float, ambient_K: float
) -> float:
    """Time a lumped body takes to cool from start to end by radiation alone."""

    def f(t: float) -> float:
        return float(np.log((t + ambient_K) / (t - ambient_K)) + 2.0 * np.arctan(t / ambient_K))

    return (
        capacity_J_K / (4.0 * emissivity_area_m2 * STEFAN_BOLTZMANN * ambient_K**3) * (f(end_K) - f(start_K))
    )
