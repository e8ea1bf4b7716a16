"""Least squares for a two-branch circuit over state of charge at one temperature.

With both time constants given, the voltage drop is linear in the resistances at the knots of the table:
the branch voltage is the sum over knots of R_k times the first-order filter of hat_k(soc) I. So each
trial of the two time constants is one non-negative linear least-squares problem, and only the two are
searched. A weak second-difference penalty ties knots the data do not excite to their neighbours.

Current in A, positive on discharge, held over the interval before its sample; soc 0…1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import lsq_linear, minimize

FloatArray = NDArray[np.float64]
SMALLEST_RESISTANCE_OHM = 1e-5


@dataclass(frozen=True, eq=False)
class CircuitFit:
    """Resistances (n_knots,) in ohm, the two time constants in s, and the RMS residual in V."""

    resistance0_ohm: FloatArray
    resistance1_ohm: FloatArray
    resistance2_ohm: FloatArray
    time_constant1_s: float
    time_constant2_s: float
    rmse_V: float


@dataclass(frozen=True, eq=False)
class Record:
    """One run to fit: end-of-interval samples, all (n,), and which of them count."""

    dt_s: FloatArray
    current_A: FloatArray
    soc: FloatArray
    drop_V: FloatArray
    weight: FloatArray


@njit(cache=True)
def _filtered(drive: FloatArray, dt_s: FloatArray, tau_s: float) -> FloatArray:
    """Response of v' = (drive - v) / tau, drive held over each interval; (n, k)."""
    out = np.empty_like(drive)
    state = np.zeros(drive.shape[1])
    for i in range(drive.shape[0]):
        a = np.exp(-dt_s[i] / tau_s)
        for k in range(drive.shape[1]):
            state[k] = a * state[k] + (1.0 - a) * drive[i, k]
            out[i, k] = state[k]
    return out


def _hats(soc: FloatArray, knots: FloatArray) -> FloatArray:
    """(n, n_knots) weights of linear interpolation, constant beyond the ends."""
    return np.stack([np.interp(soc, knots, unit) for unit in np.eye(knots.size)], axis=1)


def fit_circuit(
    records: list[Record],
    knots: FloatArray,
    time_constants_s: tuple[float, float] = (15.0, 300.0),
    bounds_s: tuple[tuple[float, float], tuple[float, float]] = ((2.0, 80.0), (80.0, 3000.0)),
    smoothing: float = 0.02,
    thinning: int = 1,
) -> CircuitFit:
    """Resistances over soc and two time constants that explain the voltage drops best.

    Parameters
    ----------
    records : runs at one temperature
    knots : (n_knots,) states of charge of the table
    smoothing : penalty on second differences of the resistances, relative to their fit
    thinning : use every n-th sample in the least squares (all of them drive the filters)
    """
    n = knots.size
    drives = []
    for record in records:
        middle = record.soc + 0.5 * np.diff(record.soc, prepend=record.soc[:1]) * -1.0
        drives.append(_hats(middle, knots) * record.current_A[:, None])
    target = np.concatenate([(record.drop_V * record.weight)[::thinning] for record in records])
    scale = float(np.sqrt(np.mean(np.concatenate([drive.sum(axis=1) for drive in drives]) ** 2)))
    bend = np.zeros((n - 2, n))
    for k in range(n - 2):
        left, right = knots[k + 1] - knots[k], knots[k + 2] - knots[k + 1]
        bend[k, k : k + 3] = [right / (left + right), -1.0, left / (left + right)]
    penalty = np.kron(np.eye(3), bend) * smoothing * scale * np.sqrt(target.size)

    def solve(log_tau: FloatArray) -> tuple[FloatArray, float]:
        blocks = []
        for record, drive in zip(records, drives, strict=True):
            one = _filtered(drive, record.dt_s, float(np.exp(log_tau[0])))
            two = _filtered(drive, record.dt_s, float(np.exp(log_tau[1])))
            block = np.hstack([drive, one, two]) * record.weight[:, None]
            blocks.append(block[::thinning])
        rows = np.vstack(blocks)
        # Normal equations would square the condition number; QR keeps it and shrinks the problem.
        q, r = np.linalg.qr(np.vstack([rows, penalty]))
        right = q.T @ np.concatenate([target, np.zeros(penalty.shape[0])])
        found = lsq_linear(r, right, bounds=(SMALLEST_RESISTANCE_OHM, np.inf), tol=1e-12).x
        residual = rows @ found - target
        return found, float(np.sqrt(np.mean(residual**2)))

    box = np.log(np.array(bounds_s))

    def cost(log_tau: FloatArray) -> float:
        return solve(np.clip(log_tau, box[:, 0], box[:, 1]))[1]

    best = minimize(
        cost, np.log(time_constants_s), method="Nelder-Mead", options={"xatol": 0.01, "fatol": 1e-6}
    )
    log_tau = np.clip(best.x, box[:, 0], box[:, 1])
    found, rmse_V = solve(log_tau)
    tau = np.exp(log_tau)
    return CircuitFit(found[:n], found[n : 2 * n], found[2 * n :], float(tau[0]), float(tau[1]), rmse_V)
