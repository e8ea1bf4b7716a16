"""Everything of a circuit at one temperature by least squares: open circuit, resistances, hysteresis.

Like `fit_circuit`, which it extends: with the time constants and the rate of hysteresis given, the voltage
is linear in all the rest,

    V = U(soc) + k M(soc) h - R0(soc) I - v1 - v2

so the resistances at the knots, the open circuit at its knots (when it is not known) and the factor k on a
measured shape of hysteresis come out of one bounded linear problem, and only the time constants and the rate
are searched. The open circuit is made of steps that cannot be negative, which keeps it growing; points of it
that were measured at rest can be given beside the runs.

Current in A, positive on discharge, held over the interval before its sample; soc 0…1; each run starts at
rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import lsq_linear, minimize

from pack_models.cells.fit import SMALLEST_RESISTANCE_OHM, _filtered, _hats
from pack_models.cells.measured import Measured

FloatArray = NDArray[np.float64]
RATE_BOUNDS = (2.0, 400.0)  # approach to a branch per full charge
POINT_WEIGHT = 30.0  # a rested voltage counts like so many samples of a run


@dataclass(frozen=True, eq=False)
class Known:
    """What is known beforehand.

    ocv_soc, ocv_V : open circuit; with `fixed` it is taken as it is, else as rested points to stay close to
    hysteresis_V : (n,) over ocv_soc, half the gap between the branches, or None for a cell without
    """

    ocv_soc: FloatArray
    ocv_V: FloatArray
    fixed: bool = True
    hysteresis_V: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class CellFit:
    """Result at one temperature; ocv_V over ocv_soc, resistances (n_knots,), what is left in V."""

    ocv_soc: FloatArray
    ocv_V: FloatArray
    resistance0_ohm: FloatArray
    resistance1_ohm: FloatArray
    resistance2_ohm: FloatArray
    time_constant1_s: float
    time_constant2_s: float
    hysteresis_factor: float
    hysteresis_rate: float
    rmse_V: float
    rmse_of_run_V: dict[str, float]
    soc_range: tuple[float, float]
    current_range_A: tuple[float, float]


@njit(cache=True)
def hysteresis_path(current_A: FloatArray, dt_s: FloatArray, rate: float, capacity_As: float) -> FloatArray:
    """(n,) of the one-state model from 0, -1 on the discharge branch."""
    out = np.empty(current_A.size)
    h = 0.0
    for k in range(current_A.size):
        sign = 1.0 if current_A[k] < 0.0 else -1.0
        h = sign + (h - sign) * np.exp(-rate * abs(current_A[k]) / capacity_As * dt_s[k])
        out[k] = h
    return out


def _bend(knots: FloatArray) -> FloatArray:
    """(n - 2, n) second differences, scaled so that uneven knots count alike."""
    n = knots.size
    rows = np.zeros((max(n - 2, 0), n))
    for k in range(n - 2):
        left, right = knots[k + 1] - knots[k], knots[k + 2] - knots[k + 1]
        rows[k, k : k + 3] = [right / (left + right), -1.0, left / (left + right)]
    return rows


def fit_cell(
    runs: Sequence[Measured],
    weights: Sequence[FloatArray],
    knots: FloatArray,
    ocv_knots: FloatArray,
    capacity_Ah: float,
    known: Known | None = None,
    bounds_s: tuple[tuple[float, float], tuple[float, float]] = ((3.0, 60.0), (120.0, 1500.0)),
    smoothing: float = 0.02,
    ocv_smoothing: float = 0.1,
    thinning: int = 1,
) -> CellFit:
    """The circuit that explains the runs best; all at one temperature.

    Parameters
    ----------
    runs : with their state of charge
    weights : (n,) per run; 0 for samples that do not count
    knots, ocv_knots : states of charge of the tables
    smoothing, ocv_smoothing : penalty on second differences of resistances (relative), open circuit
    thinning : use every n-th sample in the least squares (all of them drive the filters)
    """
    capacity_As = 3600.0 * capacity_Ah
    free_ocv = known is None or not known.fixed
    n, n_ocv = knots.size, ocv_knots.size if free_ocv else 0
    steps = [np.concatenate([[0.0], np.diff(run.time_s)]) for run in runs]
    drives = [_hats(run.soc, knots) * run.current_A[:, None] for run in runs]
    shape = None if known is None or known.hysteresis_V is None else known
    target = np.concatenate([_given(run, known) * weight for run, weight in zip(runs, weights, strict=True)])
    scale_A = float(np.sqrt(np.mean(np.concatenate([run.current_A for run in runs]) ** 2)))
    size = np.sqrt(sum(run.time_s[::thinning].size for run in runs))
    # columns: steps of the open circuit, R0, R1, R2, factor of the hysteresis
    staircase = np.tril(np.ones((n_ocv, n_ocv)))
    columns = n_ocv + 3 * n + (1 if shape is not None else 0)
    penalty = np.zeros((3 * max(n - 2, 0) + max(n_ocv - 2, 0), columns))
    bend = _bend(knots) * smoothing * scale_A * size
    for c in range(3):
        penalty[c * bend.shape[0] : (c + 1) * bend.shape[0], n_ocv + c * n : n_ocv + (c + 1) * n] = bend
    if free_ocv and n_ocv > 2:
        penalty[3 * bend.shape[0] :, :n_ocv] = _bend(ocv_knots) @ staircase * ocv_smoothing * size
    points = np.zeros((0, columns))
    points_V = np.zeros(0)
    if free_ocv and known is not None:
        points = np.zeros((known.ocv_soc.size, columns))
        points[:, :n_ocv] = _hats(known.ocv_soc, ocv_knots) @ staircase * POINT_WEIGHT
        points_V = known.ocv_V * POINT_WEIGHT
    low = np.full(columns, SMALLEST_RESISTANCE_OHM)
    low[:n_ocv] = 1e-4
    high = np.full(columns, np.inf)
    if shape is not None:
        low[-1], high[-1] = 0.2, 2.0

    def assemble(parameters: FloatArray) -> list[FloatArray]:
        tau1, tau2 = float(np.exp(parameters[0])), float(np.exp(parameters[1]))
        blocks = []
        for run, drive, dt_s, weight in zip(runs, drives, steps, weights, strict=True):
            parts = []
            if free_ocv:
                parts.append(_hats(run.soc, ocv_knots) @ staircase)
            parts += [-drive, -_filtered(drive, dt_s, tau1), -_filtered(drive, dt_s, tau2)]
            if shape is not None and shape.hysteresis_V is not None:
                h = hysteresis_path(run.current_A, dt_s, float(np.exp(parameters[2])), capacity_As)
                parts.append((np.interp(run.soc, shape.ocv_soc, shape.hysteresis_V) * h)[:, None])
            blocks.append(np.hstack(parts) * weight[:, None])
        return blocks

    def solve(parameters: FloatArray) -> tuple[FloatArray, float, list[FloatArray]]:
        blocks = assemble(parameters)
        rows = np.vstack([block[::thinning] for block in blocks])
        wanted = np.concatenate(
            [part[::thinning] for part in np.split(target, np.cumsum([len(block) for block in blocks])[:-1])]
        )
        q, r = np.linalg.qr(np.vstack([rows, points, penalty]))
        right = q.T @ np.concatenate([wanted, points_V, np.zeros(penalty.shape[0])])
        found = lsq_linear(r, right, bounds=(low, high), tol=1e-10).x
        residual = rows @ found - wanted
        counted = max(float(np.count_nonzero(np.any(rows != 0.0, axis=1))), 1.0)
        return found, float(np.sqrt(np.sum(residual**2) / counted)), blocks

    box = [np.log(bounds_s[0]), np.log(bounds_s[1])]
    start = [0.5 * (b[0] + b[1]) for b in box]
    if shape is not None:
        box.append(np.log(RATE_BOUNDS))
        start.append(np.log(30.0))
    limits = np.array(box)

    def cost(parameters: FloatArray) -> float:
        return solve(np.clip(parameters, limits[:, 0], limits[:, 1]))[1]

    best = minimize(cost, np.array(start), method="Nelder-Mead", options={"xatol": 0.03, "fatol": 1e-5})
    parameters = np.clip(best.x, limits[:, 0], limits[:, 1])
    found, rmse_V, blocks = solve(parameters)
    of_run = {}
    for run, block, part in zip(
        runs, blocks, np.split(target, np.cumsum([len(block) for block in blocks])[:-1]), strict=True
    ):
        counted = np.any(block != 0.0, axis=1)
        of_run[run.name] = float(np.sqrt(np.mean((block @ found - part)[counted] ** 2)))
    moved = np.concatenate([run.soc[w > 0] for run, w in zip(runs, weights, strict=True)])
    amps = np.concatenate([run.current_A[w > 0] for run, w in zip(runs, weights, strict=True)])
    if free_ocv:
        ocv_soc, ocv_V = ocv_knots, staircase @ found[:n_ocv]
    else:
        assert known is not None
        ocv_soc, ocv_V = known.ocv_soc, known.ocv_V
    return CellFit(
        ocv_soc=ocv_soc,
        ocv_V=ocv_V,
        resistance0_ohm=found[n_ocv : n_ocv + n],
        resistance1_ohm=found[n_ocv + n : n_ocv + 2 * n],
        resistance2_ohm=found[n_ocv + 2 * n : n_ocv + 3 * n],
        time_constant1_s=float(np.exp(parameters[0])),
        time_constant2_s=float(np.exp(parameters[1])),
        hysteresis_factor=float(found[-1]) if shape is not None else 0.0,
        hysteresis_rate=float(np.exp(parameters[2])) if shape is not None else 0.0,
        rmse_V=rmse_V,
        rmse_of_run_V=of_run,
        soc_range=(float(moved.min()), float(moved.max())),
        current_range_A=(float(amps.min()), float(amps.max())),
    )


def _given(run: Measured, known: Known | None) -> FloatArray:
    """What is left to explain: the voltage, less the open circuit where that is known."""
    if known is None or not known.fixed:
        return run.voltage_V
    return run.voltage_V - np.interp(run.soc, known.ocv_soc, known.ocv_V)
