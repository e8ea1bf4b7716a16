"""Rainflow counting of charge as a stream: cycles are counted when they close, the rest stays as state.

ASTM E1049-85, 5.4.4: of the last three reversals, the older range closes as a full cycle once the newer
is as large; a range that contains the start of the history counts as half a cycle. What has not closed
(the residue) counts as half cycles whenever the count is read, on a copy. So the count at
any moment is that of the standard on the history so far, and memory is bounded: the residue shrinks
from both ends and seldom holds more than a handful of reversals. If it outgrows `depth`, its oldest
range is counted as the half cycle it would have become.

A reversal counts once the charge has come back by more than `threshold` from the extremum; smaller
wiggles pass as part of the swing. Beside its charge each reversal carries the time the cell was in
motion since the one before and the mean temperature of that time, so that a closed cycle knows its
current rate; when an inner cycle is taken out, the outer swing keeps the time that is its own.

The state of one cell is a row (MOTION…) and a residue (depth, 3): charge, moving seconds, moving mean
temperature; counts[c] of it are in use. Closed cycles are handed to the caller through `closed` rows:
low, high, weight (1 or 0.5), rate in 1/h, temperature.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Row of a cell: charge at the last step, last reversal (a copy: most steps then leave the residue alone),
# extremum since, moving time and its integral of temperature up to that extremum and after it.
LAST, REVERSAL, EXTREME, SECONDS, KELVIN_SECONDS, SECONDS_AFTER, KELVIN_SECONDS_AFTER = range(7)
ROW = 7
SOC, MOVING_S, MEAN_K = range(3)
LOW, HIGH, WEIGHT, RATE, TEMPERATURE = range(5)
# Slower than this counts as rest for the mean current rate (self-discharge, balancing).
REST_PER_H = 1e-3


@njit(cache=True, error_model="numpy", forceinline=True)
def write_range(
    closed: FloatArray,
    at: int,
    soc_a: float,
    soc_b: float,
    weight: float,
    moving_s: float,
    temperature_K: float,
) -> None:
    """One closed range into row `at`."""
    depth = abs(soc_b - soc_a)
    closed[at, LOW] = min(soc_a, soc_b)
    closed[at, HIGH] = max(soc_a, soc_b)
    closed[at, WEIGHT] = weight
    closed[at, RATE] = depth * 3600.0 / moving_s if moving_s > 0.0 else 0.0
    closed[at, TEMPERATURE] = temperature_K


@njit(cache=True, error_model="numpy")
def push(
    residue: FloatArray, used: int, soc: float, moving_s: float, temperature_K: float, closed: FloatArray
) -> tuple[int, int]:
    """Add a reversal to a residue; returns (reversals in use, rows of `closed` written)."""
    n_closed = 0
    if used == residue.shape[0]:
        write_range(
            closed, n_closed, residue[0, SOC], residue[1, SOC], 0.5, residue[1, MOVING_S], residue[1, MEAN_K]
        )
        n_closed += 1
        residue[: used - 1] = residue[1:used].copy()
        used -= 1
    residue[used, SOC], residue[used, MOVING_S], residue[used, MEAN_K] = soc, moving_s, temperature_K
    used += 1
    while used >= 3:
        newer = abs(residue[used - 1, SOC] - residue[used - 2, SOC])
        older = abs(residue[used - 2, SOC] - residue[used - 3, SOC])
        if newer < older:
            break
        a, b = residue[used - 3, SOC], residue[used - 2, SOC]
        weight = 0.5 if used == 3 else 1.0
        write_range(closed, n_closed, a, b, weight, residue[used - 2, MOVING_S], residue[used - 2, MEAN_K])
        n_closed += 1
        if used == 3:
            residue[0] = residue[1].copy()
            residue[1] = residue[2].copy()
            used = 2
        else:
            # The newer swing spends `older` of itself on closing the inner cycle; the rest prolongs the
            # swing before it.
            own_s = residue[used - 1, MOVING_S] * (1.0 - older / newer)
            before_s = residue[used - 3, MOVING_S]
            total_s = own_s + before_s
            if total_s > 0.0:
                residue[used - 3, MEAN_K] = (
                    residue[used - 1, MEAN_K] * own_s + residue[used - 3, MEAN_K] * before_s
                ) / total_s
            residue[used - 3, SOC] = residue[used - 1, SOC]
            residue[used - 3, MOVING_S] = total_s
            used -= 2
    return used, n_closed


@njit(cache=True, error_model="numpy", forceinline=True)
def follow(
    row: FloatArray, soc: float, temperature_K: float, dt_s: float, threshold: float, rest_per_h: float
) -> bool:
    """One step of a cell's charge; True once the extremum before it is a reversal (see `turn`).

    Slower than rest_per_h is rest, whose time does not count for the current rate of a cycle.
    """
    change = soc - row[LAST]
    row[LAST] = soc
    if abs(change) * 3600.0 >= rest_per_h * dt_s:
        row[SECONDS_AFTER] += dt_s
        row[KELVIN_SECONDS_AFTER] += temperature_K * dt_s
    direction = row[EXTREME] - row[REVERSAL]
    back = row[EXTREME] - soc if direction > 0.0 else soc - row[EXTREME]
    if direction == 0.0 or back < 0.0:
        row[EXTREME] = soc
        row[SECONDS] += row[SECONDS_AFTER]
        row[KELVIN_SECONDS] += row[KELVIN_SECONDS_AFTER]
        row[SECONDS_AFTER] = 0.0
        row[KELVIN_SECONDS_AFTER] = 0.0
        return False
    return back > threshold


@njit(cache=True, error_model="numpy")
def turn(
    row: FloatArray, residue: FloatArray, used: int, temperature_K: float, closed: FloatArray
) -> tuple[int, int]:
    """Make the extremum of a cell a reversal; returns (reversals in use, rows of `closed` written)."""
    seconds = row[SECONDS]
    mean_K = row[KELVIN_SECONDS] / seconds if seconds > 0.0 else temperature_K
    used, n_closed = push(residue, used, row[EXTREME], seconds, mean_K, closed)
    row[REVERSAL], row[EXTREME] = row[EXTREME], row[LAST]
    row[SECONDS], row[KELVIN_SECONDS] = row[SECONDS_AFTER], row[KELVIN_SECONDS_AFTER]
    row[SECONDS_AFTER] = 0.0
    row[KELVIN_SECONDS_AFTER] = 0.0
    return used, n_closed


@njit(cache=True, error_model="numpy")
def finish(row: FloatArray, residue: FloatArray, used: int, temperature_K: float, closed: FloatArray) -> int:
    """What the count would add if the history ended here, into `closed`; returns the number of rows.

    Consumes row and residue: hand in copies. `closed` needs twice as many rows as the residue.
    """
    n = 0
    if row[EXTREME] != row[REVERSAL]:
        used, n = turn(row, residue, used, temperature_K, closed)
    for k in range(1, used):
        a, b = residue[k - 1, SOC], residue[k, SOC]
        write_range(closed, n, a, b, 0.5, residue[k, MOVING_S], residue[k, MEAN_K])
        n += 1
    return n


def count(soc: FloatArray, dt_s: float = 1.0, threshold: float = 0.0) -> FloatArray:
    """Rainflow count of one series, closed cycles first, then the residue.

    Parameters
    ----------
    soc : (n,) the series, sampled every dt_s
    threshold : wiggles up to this size are no reversals

    Returns
    -------
    (n_ranges, 5) low, high, weight, rate in 1/h, mean temperature (here 0)
    """
    depth = len(soc) + 1
    row, residue, closed = np.zeros(ROW), np.zeros((depth, 3)), np.zeros((2 * depth, 5))
    row[LAST] = row[REVERSAL] = row[EXTREME] = residue[0, SOC] = soc[0]
    used, found = 1, list[FloatArray]()
    for value in soc[1:]:
        if follow(row, float(value), 0.0, dt_s, threshold, REST_PER_H):
            used, n_closed = turn(row, residue, used, 0.0, closed)
            found.append(closed[:n_closed].copy())
    n_open = finish(row, residue, used, 0.0, closed)
    return np.concatenate([*found, closed[:n_open]])
