"""Published ageing laws as rates that add up, compiled per cell.

Every law here is a power of a running variable x (time, full equivalent cycles, charge passed):
y = k x^p under constant conditions, with k a function of the conditions. Under changing conditions the
usual continuation (find the virtual x at which the present k gives the present y, go on from there) is

    d(y^(1/p)) = k^(1/p) dx,

exactly and in any order of events. So a cell carries the sums A = sum k^(1/p) dx and y = A^p. Neither
the length of a step nor the place where a run is split enters.

Two laws (those of NREL's BLAST-Lite) were fitted with k averaged over the day, and with the current rate
averaged over cycles including their rests: (mean k)^(1/p) is not the mean of k^(1/p), and k of the
Kokam cell varies a hundredfold with charge. They are run as they were fitted: `daily_mean`,
`with_rest`; and their full equivalent cycles are those of the new cell's capacity, where the other laws
count in the present one: `nominal_cycles`.

A form is a number (its branch below), the keys of its catalogue entry in the order of the parameter
vector, and the four powers. Kelvin, seconds, fractions 0…1, rates in 1/h.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

GAS_CONSTANT = 8.3144598  # as in the sources of the parameters
DAY_S = 86400.0
NAUMANN, SCHMALSTIEG, KOKAM, LARGE_LFP = range(4)


@dataclass(frozen=True)
class Form:
    """One law: its branch in the compiled rates, its parameters in order, its powers.

    `powers` are those of calendar capacity, calendar resistance, cycle capacity, cycle resistance: a
    number, or the key of the parameter that holds it. `has_resistance` says whether the law covers it.
    `daily_mean`: `calendar_rates` gives k in units of days, to be averaged over a day before the power;
    otherwise k^(1/p) per second. `with_rest`: the current rate of a cycle is over all its time.
    `nominal_cycles`: a full equivalent cycle is one of the capacity of the new cell, not the present one.
    """

    code: int
    keys: tuple[str, ...]
    powers: tuple[float | str, float | str, float | str, float | str]
    has_resistance: bool = True
    has_ocv: bool = False
    daily_mean: bool = False
    with_rest: bool = False
    nominal_cycles: bool = False


def _terms(*stems: str) -> tuple[str, ...]:
    return tuple(f"{stem}_{letter}" for stem in stems for letter in "abcd")


FORMS = {
    "naumann": Form(
        NAUMANN,
        (
            *(
                f"calendar_{what}_{part}"
                for what in ("capacity", "resistance")
                for part in ("k", "Ea_J_per_mol", "c", "d")
            ),
            *_terms("cycle_capacity", "cycle_resistance"),
            "reference_temperature_K",
        ),
        (0.5, 1.0, 0.5, 1.0),
    ),
    "schmalstieg": Form(
        SCHMALSTIEG,
        (
            *(f"calendar_{what}_{part}" for what in ("capacity", "resistance") for part in ("a", "b", "c_K")),
            *(
                f"cycle_{what}_{part}"
                for what in ("capacity", "resistance")
                for part in ("a", "b_V", "c", "d")
            ),
            "cycle_resistance_floor",
            "capacity_Ah",
        ),
        (0.75, 0.75, 0.5, 1.0),
        has_ocv=True,
    ),
    "kokam": Form(
        KOKAM,
        (
            "lithium_time_k",
            "lithium_time_a",
            "lithium_time_b",
            "lithium_time_power",
            "lithium_cycle_k",
            "lithium_cycle_a",
            "lithium_cycle_b",
            "lithium_cycle_power",
            "film_time_factor",
            "film_time_power",
            "film_cycle_factor",
            "film_cycle_power",
            "material_half",
            "material_b",
            "material_power",
            "material_start",
            "material_headroom",
            "electrode_a",
            "electrode_b",
        ),
        ("lithium_time_power", "film_time_power", "lithium_cycle_power", "film_cycle_power"),
        daily_mean=True,
        nominal_cycles=True,
    ),
    "large_lfp": Form(
        LARGE_LFP,
        (
            "calendar_k",
            "calendar_a",
            "calendar_b",
            "calendar_power",
            "cycle_a",
            "cycle_b",
            "cycle_c",
            "cycle_d",
            "cycle_e",
            "cycle_power",
        ),
        ("calendar_power", 1.0, "cycle_power", 1.0),
        has_resistance=False,
        daily_mean=True,
        with_rest=True,
        nominal_cycles=True,
    ),
}


@njit(cache=True, error_model="numpy")
def graphite_V(soc: float) -> float:
    """Potential of graphite against lithium at rest.

    Safari and Delacourt, J. Electrochem. Soc. 158 (2011) A562, with the stoichiometry of Schimpe et al.,
    J. Electrochem. Soc. 165 (2018) A181 (0.0085 when empty, 0.78 when full), whatever the cell: the
    fits that use it were made with this very function.
    """
    x = 0.0085 + soc * (0.78 - 0.0085)
    return (
        0.6379
        + 0.5416 * math.exp(-305.5309 * x)
        - 0.044 * math.tanh((x - 0.1958) / 0.1088)
        - 0.1978 * math.tanh((x - 1.0571) / 0.0854)
        - 0.6875 * math.tanh((x + 0.0117) / 0.0529)
        - 0.0175 * math.tanh((x - 0.5692) / 0.0875)
    )


@njit(cache=True, error_model="numpy")
def _ocv(curve: FloatArray, soc: float) -> tuple[float, float]:
    """Open circuit at soc, and the integral of its square from 0 to soc, of a piecewise linear curve.

    curve : (n, 3) soc, voltage, integral of voltage^2 up to this knot
    """
    s = min(max(soc, 0.0), 1.0)
    k = 0
    while k < curve.shape[0] - 2 and curve[k + 1, 0] < s:
        k += 1
    width = curve[k + 1, 0] - curve[k, 0]
    low = curve[k, 1]
    here = low + (curve[k + 1, 1] - low) * (s - curve[k, 0]) / width
    return here, curve[k, 2] + (s - curve[k, 0]) * (low * low + low * here + here * here) / 3.0


@njit(cache=True, error_model="numpy")
def calendar_rates(
    code: int, p: FloatArray, curve: FloatArray, temperature_K: float, soc: float
) -> tuple[float, float]:
    """Calendar rates, (capacity, resistance): k^(1/p) per second, or k in days for forms of a daily mean."""
    T = temperature_K
    if code == NAUMANN:
        x = soc - 0.5
        hotter = (1.0 / p[16] - 1.0 / T) / GAS_CONSTANT
        k_capacity = p[0] * (p[2] * x * x * x + p[3])
        k_resistance = p[4] * math.exp(p[5] * hotter) * (p[6] * x * x + p[7])
        return k_capacity * k_capacity * math.exp(2.0 * p[1] * hotter), max(k_resistance, 0.0)
    if code == SCHMALSTIEG:
        V, _ = _ocv(curve, soc)
        # Below 3.1 V the straight line in the voltage turns negative: no ageing is what is left of it.
        k_capacity = max(p[0] * V + p[1], 0.0) * 1e6 * math.exp(-p[2] / T)
        k_resistance = max(p[3] * V + p[4], 0.0) * 1e5 * math.exp(-p[5] / T)
        return k_capacity ** (4.0 / 3.0) / DAY_S, k_resistance ** (4.0 / 3.0) / DAY_S
    if code == KOKAM:
        k = p[0] * math.exp((p[1] + p[2] * graphite_V(soc) / 0.123) * 308.15 / T)
        return k, p[8] * k
    return p[0] * math.exp((p[1] + p[2] * graphite_V(soc)) / T), 0.0


@njit(cache=True, error_model="numpy")
def cycle_rates(
    code: int,
    p: FloatArray,
    curve: FloatArray,
    temperature_K: float,
    low: float,
    high: float,
    rate_per_h: float,
) -> tuple[float, float, float]:
    """k^(1/p) per full equivalent cycle between two states of charge: (capacity, resistance, material)."""
    T, depth, C = temperature_K, high - low, rate_per_h
    if code == NAUMANN:
        x, y = depth - 0.6, depth - 0.5
        k_capacity = 0.01 * (p[8] * C + p[9]) * (p[10] * x * x * x + p[11])
        k_resistance = 0.01 * (p[12] * C + p[13]) * (p[14] * y * y * y + p[15])
        return k_capacity * k_capacity, max(k_resistance, 0.0), 0.0
    if code == SCHMALSTIEG:
        _, square_low = _ocv(curve, low)
        _, square_high = _ocv(curve, high)
        V = math.sqrt((square_high - square_low) / depth)
        k_capacity = p[6] * (V - p[7]) ** 2 + p[8] + p[9] * depth
        k_resistance = max(p[10] * (V - p[11]) ** 2 + p[12] + p[13] * depth, p[14])
        passed_Ah = 2.0 * p[15]
        return k_capacity * k_capacity * passed_Ah, k_resistance * passed_Ah, 0.0
    if code == KOKAM:
        T_n = T / 308.15
        log_k = math.log(p[4]) + p[5] / T_n + p[6] * math.exp(depth * depth)
        log_film = math.log(p[10]) + log_k
        half = p[12] + p[13] * (T - 273.15 - 55.0) * depth * 0.5 * (low + high) / 0.6
        # The straight line for the half-life was fitted above 0 degC; far below it would cross zero.
        return math.exp(log_k / p[7]), math.exp(log_film / p[11]), 1.0 / max(half, 0.05 * p[12])
    k = (p[4] + p[5] * depth + p[6] * C) * (math.exp(p[7] / T) + math.exp(-p[8] / T))
    return k ** (1.0 / p[9]), 0.0, 0.0
