"""Dense uniform tables of a cell, made once from its catalogue entry: a look-up is an index and a line.

Open circuit, entropic coefficient and hysteresis are piecewise linear over state of charge in steps of
1/1000, with their exact running integrals: the energy a cell has given is then a difference of table
values, which is what lets the ledgers close to rounding. Outside 0…1 the curves go on as straight lines:
the open circuit falls by 25 V per unit of charge below empty and rises by at least 10 V per unit above
full (assumption: steep enough that an over-discharged cell reaches 0 V some 10 % below empty, an
overcharged one 4.7 V 5 % above full); the others stay constant.

Where the catalogue has curves of aged cells, open circuit and resistances also depend, linearly between
layers, on the state of health; how much the resistance grows as a whole is the cell's own factor, a layer
says how the growth is spread over the state of charge.

Resistances are bilinear over state of charge (steps of 2 %) and temperature (steps of 5 K), time constants
linear over temperature. Between and beyond the identified temperatures they follow Arrhenius lines, ln(x)
over 1/T; beyond the grid (-30…70 degC) they stay at its edge. The decay of the branches over one step,
exp(-dt / tau), is tabulated over temperature for each step length in use (`step_tables`): that saves two
exponentials and two divisions per cell and step, and differs from the exponential at the interpolated
temperature by less than 1e-3 between knots.
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

# Columns of CellTables.curve
OPEN, ENTROPIC, OPEN_INTEGRAL, ENTROPIC_INTEGRAL = range(4)


class CellTables(NamedTuple):
    """Tables of one cell design, in the form the kernels want.

    curve : (layers, n, 4) over soc = -MARGIN + i / POINTS_PER_SOC: open circuit (V), entropic coefficient
        (V/K), and their integrals over soc from the first point; layer 0 is the fresh cell, the last the
        oldest of the catalogue, evenly spaced in state of health
    hysteresis_V : (n,) half the distance between the branches
    hysteresis_rate : of the approach to a branch, per full charge; 0 for cells without
    """

    curve: FloatArray
    hysteresis_V: FloatArray
    hysteresis_rate: float
    reference_K: float
    has_entropy: bool
    layers: int


class StepTables(NamedTuple):
    """What a step of one length needs.

    ohm : (layers, n_soc, n_temperature, 4) R0 + R1 + R2, R1, R2, padding
    decay : (n_temperature, 4) exp(-dt/tau) of both branches, and the mean over the step of a branch that
        decays from one, (1 - exp(-dt/tau)) tau / dt
    """

    dt_s: float
    ohm: FloatArray
    decay: FloatArray


def _running_integral(curve: FloatArray) -> FloatArray:
    piece = 0.5 * (curve[1:] + curve[:-1]) / POINTS_PER_SOC
    return np.concatenate([[0.0], np.cumsum(piece)])


def _widened(design: CellDesign, values: FloatArray) -> FloatArray:
    """A curve of the catalogue on the dense grid, constant outside 0…1."""
    n = round((1.0 + 2.0 * MARGIN) * POINTS_PER_SOC) + 1
    soc = (np.arange(n) - round(MARGIN * POINTS_PER_SOC)) / POINTS_PER_SOC
    return np.asarray(np.interp(soc, design.ocv_soc, values), dtype=float)


def arrhenius(table_K: FloatArray, values: FloatArray, temperature_K: FloatArray) -> FloatArray:
    """Positive values (n_table, ...) at table_K → (n, ...) at temperature_K: ln(value) linear in 1/T.

    The first and last pair of the table also serve what lies beyond; a single row serves everything.
    """
    log_values = np.log(values)
    if table_K.size == 1:
        return np.asarray(np.exp(np.repeat(log_values, temperature_K.size, axis=0)))
    # The table runs from cold to warm, so `at` falls.
    at, x = 1.0 / table_K, 1.0 / temperature_K
    pair = np.clip(np.searchsorted(-at, -x) - 1, 0, at.size - 2)
    share = ((x - at[pair]) / (at[pair + 1] - at[pair])).reshape((-1,) + (1,) * (values.ndim - 1))
    return np.asarray(np.exp(log_values[pair] * (1.0 - share) + log_values[pair + 1] * share))


def _over_temperature(design: CellDesign, values: FloatArray) -> FloatArray:
    """(n_temperature, ...) of the catalogue → the same over the dense temperatures, on Arrhenius lines."""
    dense_K = TEMPERATURE_FIRST_K + TEMPERATURE_STEP_K * np.arange(TEMPERATURE_POINTS, dtype=np.float64)
    return arrhenius(design.table_temperature_K, values, dense_K)


def _resistance(design: CellDesign, values: FloatArray) -> FloatArray:
    """(n_temperature, n_soc) of the catalogue → (n_soc, n_temperature) on the dense grid."""
    soc = np.linspace(0.0, 1.0, RESISTANCE_SOC_POINTS)
    rows = np.stack([np.interp(soc, design.table_soc, row) for row in values])
    return _over_temperature(design, rows).T


def _open_circuit(design: CellDesign, ocv_V: FloatArray) -> FloatArray:
    """(n,) an open circuit on the dense grid: never quite flat inside, steep lines outside."""
    open_V = _widened(design, ocv_V)
    first, last = round(MARGIN * POINTS_PER_SOC), open_V.size - 1 - round(MARGIN * POINTS_PER_SOC)
    inside = np.maximum(np.diff(open_V[first : last + 1]), SMALLEST_SLOPE_V / POINTS_PER_SOC)
    open_V[first : last + 1] = open_V[first] + np.concatenate([[0.0], np.cumsum(inside)])
    slope_full = max(SLOPE_ABOVE_FULL_V, inside[-1] * POINTS_PER_SOC)
    beyond = np.arange(1, first + 1) / POINTS_PER_SOC
    open_V[:first] = open_V[first] - SLOPE_BELOW_EMPTY_V * beyond[::-1]
    open_V[last + 1 :] = open_V[last] + slope_full * beyond
    return open_V


def cell_tables(design: CellDesign) -> CellTables:
    """The dense curves of a cell design."""
    entropic = _widened(design, design.entropic_V_per_K)
    layers = []
    for ocv_V in (design.ocv_V, *design.aged_ocv_V):
        open_V = _open_circuit(design, ocv_V)
        columns = [open_V, entropic, _running_integral(open_V), _running_integral(entropic)]
        layers.append(np.stack(columns, axis=1))
    return CellTables(
        curve=np.ascontiguousarray(np.stack(layers)),
        hysteresis_V=_widened(design, design.hysteresis_V),
        hysteresis_rate=float(design.hysteresis_rate) if design.has_hysteresis else 0.0,
        reference_K=float(design.reference_temperature_K),
        has_entropy=design.has_entropy,
        layers=len(layers),
    )


class StepTableMaker:
    """Makes the tables of a step length on request and keeps the last few."""

    KEPT = 16

    def __init__(self, design: CellDesign) -> None:
        r0, r1, r2 = (
            _resistance(design, table)
            for table in (design.resistance0_ohm, design.resistance1_ohm, design.resistance2_ohm)
        )
        fresh = np.stack([r0 + r1 + r2, r1, r2, np.zeros_like(r0)], axis=-1)
        soc = np.linspace(0.0, 1.0, RESISTANCE_SOC_POINTS)
        shapes = [np.interp(soc, design.table_soc, shape) for shape in design.aged_resistance_shape]
        layers = [fresh, *(fresh * shape[:, None, None] for shape in shapes)]
        self._ohm = np.ascontiguousarray(np.stack(layers))
        self._rate1_Hz = 1.0 / _over_temperature(design, design.time_constant1_s)
        self._rate2_Hz = 1.0 / _over_temperature(design, design.time_constant2_s)
        self._made: dict[float, StepTables] = {}

    def __call__(self, dt_s: float) -> StepTables:
        """The tables of a step of dt_s."""
        found = self._made.get(dt_s)
        if found is None:
            x1, x2 = dt_s * self._rate1_Hz, dt_s * self._rate2_Hz
            decay = [np.exp(-x1), np.exp(-x2), -np.expm1(-x1) / x1, -np.expm1(-x2) / x2]
            found = StepTables(dt_s, self._ohm, np.ascontiguousarray(np.stack(decay, axis=1)))
            if len(self._made) >= self.KEPT:
                self._made.pop(next(iter(self._made)))
            self._made[dt_s] = found
        return found
