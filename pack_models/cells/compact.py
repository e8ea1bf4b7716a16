"""A cell's tables on the small grids that filters and controllers carry.

The catalogue gives open circuits at some 130 states of charge and resistances at the temperatures that
were measured. A filter on a controller interpolates linearly on fixed small grids; this puts one on the
other: curves by interpolation, what depends on temperature along Arrhenius lines, as `EcmBank` has it.

    from pack_models.catalogue import cell
    compact_tables(cell("lghg2_measured")).resistance0_ohm.shape      # (7, 13)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pack_models.catalogue.design import CellDesign
from pack_models.cells.tables import arrhenius

FloatArray = NDArray[np.float64]

# Dense near empty and full, where the open circuit bends.
OCV_SOC = np.concatenate(
    [
        [0.0, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.175],
        np.round(np.arange(0.2, 0.901, 0.025), 3),
        [0.92, 0.94, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 1.0],
    ]
)
TABLE_SOC = np.array([0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
TABLE_TEMPERATURE_K = np.array([-20.0, -10.0, 0.0, 10.0, 25.0, 40.0, 55.0]) + 273.15
# Of a cell whose identification states no residual: what a careful fit of a drive cycle leaves.
RESIDUAL_V = 0.012
SMALLEST_RESIDUAL_V = 0.008
OUTSIDE_FACTOR = 2.0  # how far a figure may leave the identified ones at temperatures outside


@dataclass(frozen=True, eq=False)
class CompactTables:
    """Open circuit over OCV_SOC; hysteresis and entropic coefficient over TABLE_SOC; resistances
    (temperature, soc); the rest over TABLE_TEMPERATURE_K.

    residual_V is what the identification left unexplained, root mean square.
    """

    ocv_V: FloatArray
    hysteresis_V: FloatArray
    entropic_V_per_K: FloatArray
    resistance0_ohm: FloatArray
    resistance1_ohm: FloatArray
    resistance2_ohm: FloatArray
    time_constant1_s: FloatArray
    time_constant2_s: FloatArray
    residual_V: FloatArray


def residual_V(design: CellDesign) -> FloatArray:
    """(n_temperatures,) residual of the identification at each temperature of the cell's table.

    Never below SMALLEST_RESIDUAL_V: a fit of gentle pulses leaves 2 mV and says nothing about a hard load.
    """
    found = [
        1e-3 * design.fit.get(f"rmse_{kelvin - 273.15:.0f}degC_mV", 1e3 * RESIDUAL_V)
        for kelvin in design.table_temperature_K
    ]
    return np.maximum(found, SMALLEST_RESIDUAL_V)


def compact_tables(design: CellDesign) -> CompactTables:
    """The tables of a cell design on the small grids."""

    def curve(values: FloatArray, soc: FloatArray) -> FloatArray:
        return np.asarray(np.interp(soc, design.ocv_soc, values), dtype=float)

    def over_temperature(values: FloatArray) -> FloatArray:
        # An Arrhenius line through two neighbouring temperatures may lead anywhere soon: bounded outside.
        found = arrhenius(design.table_temperature_K, values, TABLE_TEMPERATURE_K)
        low, high = values.min(axis=0) / OUTSIDE_FACTOR, values.max(axis=0) * OUTSIDE_FACTOR
        return np.asarray(np.clip(found, low, high))

    def resistance(values: FloatArray) -> FloatArray:
        rows = np.stack([np.interp(TABLE_SOC, design.table_soc, row) for row in values])
        return over_temperature(rows)

    return CompactTables(
        ocv_V=curve(design.ocv_V, OCV_SOC),
        hysteresis_V=curve(design.hysteresis_V, TABLE_SOC),
        entropic_V_per_K=curve(design.entropic_V_per_K, TABLE_SOC),
        resistance0_ohm=resistance(design.resistance0_ohm),
        resistance1_ohm=resistance(design.resistance1_ohm),
        resistance2_ohm=resistance(design.resistance2_ohm),
        time_constant1_s=over_temperature(design.time_constant1_s),
        time_constant2_s=over_temperature(design.time_constant2_s),
        residual_V=over_temperature(residual_V(design)),
    )
