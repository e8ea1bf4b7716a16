"""Small compiled helpers of the equivalent-circuit bank: what is read from the dense tables, and the ledger.

The step itself is in `pack_models.cells.ecm_step`. No fast-math, no parallel loops: the same input gives
the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pack_models.cells.tables import (
    ENTROPIC,
    ENTROPIC_INTEGRAL,
    MARGIN,
    OPEN,
    OPEN_INTEGRAL,
    POINTS_PER_SOC,
    CellTables,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MARGIN_POINTS = MARGIN * POINTS_PER_SOC
LAST_PIECE = float(round(POINTS_PER_SOC + 2.0 * MARGIN_POINTS) - 1)

# Columns of the ledger, per pack: J, then C summed over the series groups.
E_TERMINAL, E_HEAT, E_ENTROPIC, E_SHORT, E_BALANCING, E_BUSBAR, E_THROUGHPUT = range(7)
C_TERMINAL, C_SHORT, C_BALANCING, C_THROUGHPUT = range(7, 11)
LEDGER_COLUMNS = 11

# Columns of the window counter, per pack, in cell-steps.
SOC_LOW, SOC_HIGH, COLD, HOT = range(4)


@njit(cache=True, error_model="numpy", forceinline=True)
def _piece(place: float) -> int:
    """Index of the linear piece of the dense curves at a place counted in table points."""
    return int(min(max(place, 0.0), LAST_PIECE))


@njit(cache=True, error_model="numpy", forceinline=True)
def _value(curve: FloatArray, column: int, place: float) -> float:
    """A dense curve at a place counted in table points."""
    k = _piece(place)
    low = curve[k, column]
    return low + (place - k) * (curve[k + 1, column] - low)  # type: ignore[no-any-return]


@njit(cache=True, error_model="numpy", forceinline=True)
def _area(curve: FloatArray, column: int, running: int, k_a: int, a: float, k_b: int, b: float) -> float:
    """Integral of a dense curve, in table points, from a beyond knot k_a to b beyond a later knot k_b."""
    f_a = curve[k_a, column] + a * (curve[k_a + 1, column] - curve[k_a, column])
    f_b = curve[k_b, column] + b * (curve[k_b + 1, column] - curve[k_b, column])
    return (  # type: ignore[no-any-return]
        0.5 * (f_a + curve[k_a + 1, column]) * (1.0 - a)
        + (curve[k_b, running] - curve[k_a + 1, running]) * POINTS_PER_SOC
        + 0.5 * (curve[k_b, column] + f_b) * b
    )


@njit(cache=True, error_model="numpy", forceinline=True)
def _means(curve: FloatArray, has_entropy: bool, soc_a: float, soc_b: float) -> tuple[float, float]:
    """Means of open circuit and entropic coefficient between two states of charge, exact for any way."""
    low = min(soc_a, soc_b) * POINTS_PER_SOC + MARGIN_POINTS
    high = max(soc_a, soc_b) * POINTS_PER_SOC + MARGIN_POINTS
    k_a, k_b = _piece(low), _piece(high)
    a, b = low - k_a, high - k_b
    entropic = 0.0
    if k_a == k_b:  # one straight line: its value in the middle
        x = 0.5 * (a + b)
        open_V = curve[k_a, OPEN] + x * (curve[k_a + 1, OPEN] - curve[k_a, OPEN])
        if has_entropy:
            entropic = curve[k_a, ENTROPIC] + x * (curve[k_a + 1, ENTROPIC] - curve[k_a, ENTROPIC])
        return open_V, entropic
    share = 1.0 / (high - low)
    open_V = _area(curve, OPEN, OPEN_INTEGRAL, k_a, a, k_b, b) * share
    if has_entropy:
        entropic = _area(curve, ENTROPIC, ENTROPIC_INTEGRAL, k_a, a, k_b, b) * share
    return open_V, entropic


@njit(cache=True, error_model="numpy", forceinline=True)
def _stored(curve: FloatArray, column: int, running: int, soc: float) -> float:
    """Running integral of a dense curve up to soc, from the table's first point."""
    place = soc * POINTS_PER_SOC + MARGIN_POINTS
    k = _piece(place)
    x = place - k
    f = curve[k, column] + x * (curve[k + 1, column] - curve[k, column])
    return curve[k, running] + 0.5 * (curve[k, column] + f) * x / POINTS_PER_SOC  # type: ignore[no-any-return]


@njit(cache=True, error_model="numpy", forceinline=True)
def _layer(layers: int, wear: float) -> tuple[int, float]:
    """Layer of the tables below a wear of 0…1, and the way from it to the next."""
    place = min(max(wear * (layers - 1), 0.0), layers - 1 - 1e-9)
    return int(place), place - int(place)


@njit(cache=True, error_model="numpy")
def stored_kernel(
    tables: CellTables,
    cell_pack: IntArray,
    soc: FloatArray,
    per_charge: FloatArray,
    wear: FloatArray,
    soc_from: FloatArray,
    energy_J: FloatArray,
    charge_C: FloatArray,
) -> None:
    """Add, per pack, the enthalpy and charge given since soc_from, from the states of the cells alone.

    The enthalpy of a cell at rest is the integral of U - T dU/dT, which does not depend on T when U is
    linear in T: terminals, heat and entropic exchange all come out of it.
    """
    fresh = tables.curve[0]
    for c in range(soc.size):
        full_C = 1.0 / per_charge[c]
        given = _stored(fresh, OPEN, OPEN_INTEGRAL, soc_from[c])
        given -= _stored(fresh, OPEN, OPEN_INTEGRAL, soc[c])
        if tables.layers > 1:
            k, x = _layer(tables.layers, wear[c])
            low, high = tables.curve[k], tables.curve[k + 1]
            given = _stored(low, OPEN, OPEN_INTEGRAL, soc_from[c]) - _stored(low, OPEN, OPEN_INTEGRAL, soc[c])
            above = _stored(high, OPEN, OPEN_INTEGRAL, soc_from[c])
            above -= _stored(high, OPEN, OPEN_INTEGRAL, soc[c])
            given += x * (above - given)
        if tables.has_entropy:
            entropic = _stored(fresh, ENTROPIC, ENTROPIC_INTEGRAL, soc_from[c])
            entropic -= _stored(fresh, ENTROPIC, ENTROPIC_INTEGRAL, soc[c])
            given -= tables.reference_K * entropic
        energy_J[cell_pack[c]] += full_C * given
        charge_C[cell_pack[c]] += full_C * (soc_from[c] - soc[c])


@njit(cache=True, error_model="numpy")
def open_kernel(
    tables: CellTables, soc: FloatArray, wear: FloatArray, temperature_K: FloatArray, open_V: FloatArray
) -> None:
    """Open circuit of each cell at its state of charge, wear and temperature, without hysteresis."""
    for c in range(soc.size):
        place = soc[c] * POINTS_PER_SOC + MARGIN_POINTS
        open_V[c] = _value(tables.curve[0], OPEN, place)
        if tables.layers > 1:
            k, x = _layer(tables.layers, wear[c])
            low = _value(tables.curve[k], OPEN, place)
            open_V[c] = low + x * (_value(tables.curve[k + 1], OPEN, place) - low)
        if tables.has_entropy:
            open_V[c] += (temperature_K[c] - tables.reference_K) * _value(tables.curve[0], ENTROPIC, place)


@njit(cache=True, error_model="numpy")
def mean_open_kernel(
    tables: CellTables, soc_a: FloatArray, soc_b: FloatArray, open_V: FloatArray, entropic_V_per_K: FloatArray
) -> None:
    """Means of open circuit (at the reference temperature) and entropic coefficient of each fresh cell
    between two states of charge."""
    for c in range(soc_a.size):
        open_V[c], entropic_V_per_K[c] = _means(tables.curve[0], tables.has_entropy, soc_a[c], soc_b[c])
