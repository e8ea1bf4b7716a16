"""Dense uniform tables of a cell, made once from its catalogue entry so that a look-up is an index and a line.

Open circuit, entropic coefficient and hysteresis are piecewise linear over state of charge in steps of
1/1000, with their exact running integrals: the energy a cell has given is then a difference of table
values, which is what lets the ledgers close to rounding. Outside 0…1 the curves go on as straight lines:
the open circuit falls by 25 V per unit of charge below empty and rises by at least 10 V per unit above
full (assumption: steep enough that an over-discharged cell reaches 0 V some 10 % below empty, an
overcharged one 4.7 V 5 % above full); the others stay constant.

Resistances and rates are bilinear over state of charge (steps of 2 %) and temperature (steps of 5 K).
Between and beyond the identified temperatures they follow Arrhenius lines, ln(x) over 1/T; beyond the
grid (-30…70 degC) they stay at its edge.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pack_models.catalogue.design import CellDesign

FloatArray = NDArray[np.float64]

MARGIN = 0.2  # state of charge covered beyond 0 and 1; the last piece goes on outside
POINTS_PER_SOC = 1000.0
SLOPE_BELOW_EMPTY_V = 25.0
SLOPE_ABOVE_FULL_V = 10.0
SMALLEST_SLOPE_V = 1e-3  # keeps the open circuit monotone on flat plateaus
RESISTANCE_SOC_POINTS = 51
TEMPERATURE_FIRST_K = 243.15
TEMPERATURE_STEP_K = 5.0
TEMPERATURE_POINTS = 21
R0, R1, RATE1, R2, RATE2 = range(5)


class CellTables(NamedTuple):
    """Tables of one cell design, in the form the kernels want.

    ocv_V, entropic_V_per_K, hysteresis_V : (n,) over soc = -MARGIN + i / POINTS_PER_SOC
    ocv_integral_V, entropic_integral_V_per_K : (n,) integral over soc from the first point
    parameter : (n_soc, n_temperature, 5) R0, R1, 1/tau1, R2, 1/tau2 in ohm and 1/s
    """

    ocv_V: FloatArray
    ocv_integral_V: FloatArray
    entropic_V_per_K: FloatArray
    entropic_integral_V_per_K: FloatArray
    hysteresis_V: FloatArray
    hysteresis_rate: float
    parameter: FloatArray
    reference_K: float
    has_entropy: bool
    has_hysteresis: bool


def _running_integral(curve: FloatArray) -> FloatArray:
    piece = 0.5 * (curve[1:] + curve[:-1]) / POINTS_PER_SOC
    return np.concatenate([[0.0], np.cumsum(piece)])


def _widened(design: CellDesign, values: FloatArray) -> FloatArray:
    """A curve of the catalogue on the dense grid, constant outside 0…1."""
    n = round((1.0 + 2.0 * MARGIN) * POINTS_PER_SOC) + 1
    soc = (np.arange(n) - round(MARGIN * POINTS_PER_SOC)) / POINTS_PER_SOC
    return np.interp(soc, design.ocv_soc, values)


def _arrhenius(design: CellDesign, values: FloatArray) -> FloatArray:
    """(n_temperature, n_soc) of the catalogue → (n_soc, n_temperature) on the dense grid."""
    soc = np.linspace(0.0, 1.0, RESISTANCE_SOC_POINTS)
    temperature_K = TEMPERATURE_FIRST_K + TEMPERATURE_STEP_K * np.arange(TEMPERATURE_POINTS)
    log_values = np.log(np.stack([np.interp(soc, design.table_soc, row) for row in values]))
    at = 1.0 / design.table_temperature_K
    if at.size == 1:
        return np.exp(np.repeat(log_values.T, TEMPERATURE_POINTS, axis=1))
    # The table runs from cold to warm, so `at` falls; the last pair also serves what lies beyond.
    x = 1.0 / temperature_K
    pair = np.clip(np.searchsorted(-at, -x) - 1, 0, at.size - 2)
    share = (x - at[pair]) / (at[pair + 1] - at[pair])
    return np.exp(log_values[pair].T * (1.0 - share) + log_values[pair + 1].T * share)


def cell_tables(design: CellDesign) -> CellTables:
    """The dense tables of a cell design."""
    ocv_V = _widened(design, design.ocv_V)
    first, last = round(MARGIN * POINTS_PER_SOC), ocv_V.size - 1 - round(MARGIN * POINTS_PER_SOC)
    inside = np.maximum(np.diff(ocv_V[first : last + 1]), SMALLEST_SLOPE_V / POINTS_PER_SOC)
    ocv_V[first : last + 1] = ocv_V[first] + np.concatenate([[0.0], np.cumsum(inside)])
    slope_full = max(SLOPE_ABOVE_FULL_V, inside[-1] * POINTS_PER_SOC)
    beyond = np.arange(1, first + 1) / POINTS_PER_SOC
    ocv_V[:first] = ocv_V[first] - SLOPE_BELOW_EMPTY_V * beyond[::-1]
    ocv_V[last + 1 :] = ocv_V[last] + slope_full * beyond
    entropic = _widened(design, design.entropic_V_per_K)
    parameter = np.stack(
        [
            _arrhenius(design, design.resistance0_ohm),
            _arrhenius(design, design.resistance1_ohm),
            _arrhenius(design, 1.0 / design.time_constant1_s),
            _arrhenius(design, design.resistance2_ohm),
            _arrhenius(design, 1.0 / design.time_constant2_s),
        ],
        axis=-1,
    )
    return CellTables(
        ocv_V=ocv_V,
        ocv_integral_V=_running_integral(ocv_V),
        entropic_V_per_K=entropic,
        entropic_integral_V_per_K=_running_integral(entropic),
        hysteresis_V=_widened(design, design.hysteresis_V),
        hysteresis_rate=float(design.hysteresis_rate),
        parameter=np.ascontiguousarray(parameter),
        reference_K=float(design.reference_temperature_K),
        has_entropy=design.has_entropy,
        has_hysteresis=design.has_hysteresis,
    )
