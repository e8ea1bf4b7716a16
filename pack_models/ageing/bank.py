"""Cells that age: sums of rates per cell, read out as factors of capacity and resistance.

At every step a cell follows its charge (rainflow, see rainflow.py) and adds to a window of mean charge
and temperature. The window is closed, and the calendar rate evaluated, when it is `WINDOW_S` long or the
conditions have moved (charge by 0.04, temperature by 1 K): quick changes cost an exponential each, rest
costs one every ten minutes, and how long the steps are does not matter as long as they follow the
conditions. Constant conditions are exact for any step.

State of charge counts in the cell's present capacity, as in the models' sources, so depth of cycles does
too. Factors: capacity = min(1 - calendar - cycle, remaining active material),
resistance = max(1 + calendar + cycle, that of the electrode); what is lost is lost: factors are monotone.
Laws with a daily mean (see forms.py) count calendar ageing by whole days.

The cost of `accumulate` is some 20 to 50 ns per cell-step (`python -m pack_models.ageing bench`); a fleet
that steps in larger pieces calls it once per piece with the charge at its end and the mean temperature.
Memory is `bytes_per_cell`, mostly the residue: 24 B per reversal kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pack_models.ageing import rainflow
from pack_models.ageing.forms import DAY_S, FloatArray, calendar_rates, cycle_rates
from pack_models.ageing.parameters import AgeingModel, ageing_model
from pack_models.cells.bank import check_step_s, per_item, restore

WINDOW_S = 600.0
WINDOW_SOC = 0.02  # from the window's mean, so 0.04 from end to end
WINDOW_K = 0.5
# A swing shorter than this is sensor-like jitter of a controller, not a cycle; it rides on the larger swing.
REVERSAL_THRESHOLD = 5e-4
LEAST_CAPACITY = 0.01  # where a law says less than nothing is left

# Row of a cell: rainflow's part, then the window, then the sums.
WINDOW_T = rainflow.ROW  # s
WINDOW_SOC_S = WINDOW_T + 1
WINDOW_K_S = WINDOW_T + 2
CALENDAR_CAPACITY = WINDOW_T + 3
CALENDAR_RESISTANCE = WINDOW_T + 4
CYCLE_CAPACITY = WINDOW_T + 5
CYCLE_RESISTANCE = WINDOW_T + 6
MATERIAL = WINDOW_T + 7
CYCLES = WINDOW_T + 8  # full equivalent cycles, closed
DAY_CAPACITY = WINDOW_T + 9  # integrals of the calendar rates over the open day
DAY_RESISTANCE = WINDOW_T + 10
ROW = WINDOW_T + 11

OUTSIDE_COLD_H, OUTSIDE_HOT_H, OUTSIDE_DEPTH, OUTSIDE_RATE = range(4)
OUTSIDE = ("colder_h", "hotter_h", "depth_cycles", "rate_cycles")


@dataclass(frozen=True)
class Knee:
    """Onset of fast fade by lost active material, for models without one of their own (off by default).

    Remaining material = headroom + 2 / (1 + exp(x^power)), x = full equivalent cycles / half_cycles;
    capacity is the smaller of this and what lithium allows. The form is that of Smith et al., American
    Control Conference (2017); where plating or particle cracking sets in is the user's declaration, no
    source covers the other cells. The remaining material is 1 - headroom at about
    half_cycles (4 headroom)^(1/power).
    """

    half_cycles: float
    power: float = 10.0
    headroom: float = 0.01

    def __post_init__(self) -> None:
        for name in ("half_cycles", "power", "headroom"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0.0):
                raise ValueError(f"knee: {name} is {value!r}; expected a positive number")


@njit(cache=True, error_model="numpy")
def _add_ranges(
    row: FloatArray,
    outside: FloatArray,
    ranges: FloatArray,
    n: int,
    code: int,
    p: FloatArray,
    curve: FloatArray,
    valid: FloatArray,
    knee_per_cycle: float,
    capacity_now: float,
) -> None:
    """Damage of counted ranges onto the sums of a cell.

    capacity_now : what a full swing of charge is in full equivalent cycles' capacity (see nominal_cycles)
    valid : cold, hot, least depth, most depth, rate
    """
    for k in range(n):
        low, high = ranges[k, rainflow.LOW], ranges[k, rainflow.HIGH]
        depth, C = high - low, ranges[k, rainflow.RATE]
        cycles = ranges[k, rainflow.WEIGHT] * depth * capacity_now
        capacity, resistance, material = cycle_rates(
            code, p, curve, ranges[k, rainflow.TEMPERATURE], low, high, C
        )
        row[CYCLE_CAPACITY] += capacity * cycles
        row[CYCLE_RESISTANCE] += resistance * cycles
        row[MATERIAL] += (material + knee_per_cycle) * cycles
        row[CYCLES] += cycles
        if depth < valid[2] or depth > valid[3]:
            outside[OUTSIDE_DEPTH] += cycles
        if valid[4] < C:
            outside[OUTSIDE_RATE] += cycles


@njit(cache=True, error_model="numpy")
def _close_window(
    row: FloatArray, outside: FloatArray, code: int, p: FloatArray, curve: FloatArray, valid: FloatArray
) -> None:
    """Calendar rates of the time in a cell's window onto its day; empties the window."""
    span = row[WINDOW_T]
    mean_K = row[WINDOW_K_S] / span
    capacity, resistance = calendar_rates(code, p, curve, mean_K, row[WINDOW_SOC_S] / span)
    row[DAY_CAPACITY] += capacity * span
    row[DAY_RESISTANCE] += resistance * span
    if mean_K < valid[0]:
        outside[OUTSIDE_COLD_H] += span / 3600.0
    elif mean_K > valid[1]:
        outside[OUTSIDE_HOT_H] += span / 3600.0
    row[WINDOW_T] = 0.0
    row[WINDOW_SOC_S] = 0.0
    row[WINDOW_K_S] = 0.0


@njit(cache=True, error_model="numpy")
def _close_day(row: FloatArray, day_s: float, daily_mean: bool, powers: FloatArray) -> None:
    """The open day, day_s long so far, onto a cell's calendar sums; empties the day."""
    for k in range(2):
        total = row[DAY_CAPACITY + k]
        if daily_mean:
            total = (total / day_s) ** (1.0 / powers[k]) * day_s / DAY_S
        row[CALENDAR_CAPACITY + k] += total
        row[DAY_CAPACITY + k] = 0.0


@njit(cache=True, error_model="numpy", nogil=True)
def _close_days(
    rows: FloatArray,
    outside: FloatArray,
    day_s: float,
    daily_mean: bool,
    powers: FloatArray,
    code: int,
    p: FloatArray,
    curve: FloatArray,
    valid: FloatArray,
) -> None:
    """Windows and days of all cells onto their calendar sums."""
    for c in range(rows.shape[0]):
        if rows[c, WINDOW_T] > 0.0:
            _close_window(rows[c], outside[c], code, p, curve, valid)
        _close_day(rows[c], day_s, daily_mean, powers)


@njit(cache=True, error_model="numpy", nogil=True)
def _accumulate(
    rows: FloatArray,
    residues: FloatArray,
    used: NDArray[np.int8],
    outside: FloatArray,
    closed: FloatArray,
    soc: FloatArray,
    temperature_K: FloatArray,
    dt_s: float,
    threshold: float,
    rest_per_h: float,
    capacity_factor: FloatArray,
    nominal_cycles: bool,
    code: int,
    p: FloatArray,
    curve: FloatArray,
    valid: FloatArray,
    knee_per_cycle: float,
) -> int:
    """One step of all cells; returns the first cell whose input is not usable, -1 when all are."""
    for c in range(rows.shape[0]):
        s, T = soc[c], temperature_K[c]
        if not (-0.5 < s < 1.5 and 150.0 < T < 1000.0):  # NaN fails all of them
            return c
        row = rows[c]
        middle = 0.5 * (row[rainflow.LAST] + s)
        row[WINDOW_T] += dt_s
        row[WINDOW_SOC_S] += middle * dt_s
        row[WINDOW_K_S] += T * dt_s
        span = row[WINDOW_T]
        if (
            span >= WINDOW_S
            or abs(s * span - row[WINDOW_SOC_S]) > WINDOW_SOC * span
            or abs(T * span - row[WINDOW_K_S]) > WINDOW_K * span
        ):
            _close_window(row, outside[c], code, p, curve, valid)
        if rainflow.follow(row, s, T, dt_s, threshold, rest_per_h):
            in_use, n = rainflow.turn(row, residues[c], used[c], T, closed)
            used[c] = in_use
            now = capacity_factor[c] if nominal_cycles else 1.0
            _add_ranges(row, outside[c], closed, n, code, p, curve, valid, knee_per_cycle, now)
    return -1


@njit(cache=True, error_model="numpy", nogil=True)
def _read(
    rows: FloatArray,
    residues: FloatArray,
    used: NDArray[np.int8],
    closed: FloatArray,
    code: int,
    p: FloatArray,
    curve: FloatArray,
    valid: FloatArray,
    powers: FloatArray,
    daily_mean: bool,
    nominal_cycles: bool,
    material: FloatArray,
    knee_per_cycle: float,
    pace: FloatArray,
    capacity_factor: FloatArray,
    resistance_factor: FloatArray,
    parts: FloatArray,
    cycles: FloatArray,
) -> None:
    """Factors of all cells now: closed cycles, the residue as half cycles, the open window."""
    scratch, residue, ignored = np.empty(ROW), np.empty(residues.shape[1:]), np.zeros(4)
    for c in range(rows.shape[0]):
        scratch[:] = rows[c]
        span = scratch[WINDOW_T]
        mean_K = scratch[WINDOW_K_S] / span if span > 0.0 else 298.15
        residue[:] = residues[c]
        n = rainflow.finish(scratch, residue, used[c], mean_K, closed)
        now = capacity_factor[c] if nominal_cycles else 1.0
        _add_ranges(scratch, ignored, closed, n, code, p, curve, valid, knee_per_cycle, now)
        if not daily_mean:  # a mean over part of a day would go up and down with its hours
            if span > 0.0:
                _close_window(scratch, ignored, code, p, curve, valid)
            _close_day(scratch, DAY_S, daily_mean, powers)
        for k in range(4):
            parts[c, k] = pace[c] * scratch[CALENDAR_CAPACITY + k] ** powers[k]
        x = (pace[c] * (scratch[MATERIAL] - material[3]) + material[3]) ** material[0]
        remaining = 1.0 + material[1] - math.tanh(0.5 * x)
        parts[c, 4] = remaining
        capacity = max(min(1.0 - parts[c, 0] - parts[c, 2], remaining), LEAST_CAPACITY)
        resistance = 1.0 + parts[c, 1] + parts[c, 3]
        if material[2] > 0.0:
            resistance = max(resistance, 1.0 - material[2] + material[2] / max(remaining, LEAST_CAPACITY))
        capacity_factor[c] = min(capacity_factor[c], capacity)
        resistance_factor[c] = max(resistance_factor[c], resistance)
        cycles[c] = scratch[CYCLES]


class AgeingBank:
    """N cells of one ageing model.

    Parameters
    ----------
    model : the law and its parameters
    soc : (n_cells,) state of charge at the start
    pace : one number or (n_cells,), factor on every loss and growth: cell-to-cell spread of ageing
    knee : onset of fast fade for models without one (see Knee)
    depth : reversals kept per cell, at least 3
    threshold : swings up to this do not count as cycles
    refresh_every_s : `accumulate` refreshes the factors by itself after this much time

    Attributes
    ----------
    capacity_factor, resistance_factor : (n_cells,) as of the last `refresh`; 1 = new
    cycles : (n_cells,) full equivalent cycles, as of the last `refresh`
    parts : (n_cells, 5) calendar and cycle loss of capacity in columns 0 and 2, growth of resistance in 1
        and 3, remaining active material in 4
    """

    def __init__(
        self,
        model: AgeingModel,
        soc: FloatArray,
        pace: ArrayLike = 1.0,
        knee: Knee | None = None,
        depth: int = 10,
        threshold: float = REVERSAL_THRESHOLD,
        refresh_every_s: float = 86400.0,
    ) -> None:
        soc = np.ascontiguousarray(soc, dtype=float)
        if soc.ndim != 1 or not ((soc > -0.5) & (soc < 1.5)).all():
            raise ValueError("soc must be one number per cell, around 0…1")
        if not 3 <= depth <= 120:
            raise ValueError(f"depth is {depth}; expected 3 to 120 reversals")
        if not 0.0 <= threshold < 0.5:
            raise ValueError(f"threshold is {threshold!r}; expected 0 to 0.5 of the charge")
        check_step_s(refresh_every_s)
        if knee is not None and model.has_knee:
            raise ValueError(f"{model.name} has a knee of its own; leave `knee` out")
        n = soc.size
        self.model = model
        self.capacity_factor = np.ones(n)
        self.resistance_factor = np.ones(n)
        self.cycles = np.zeros(n)
        self.parts = np.zeros((n, 5))
        self._pace = per_item("pace", pace, n, "cell", 0.0)
        self._threshold, self._refresh_every_s = threshold, refresh_every_s
        self._rows = np.zeros((n, ROW))
        for column in (rainflow.LAST, rainflow.REVERSAL, rainflow.EXTREME):
            self._rows[:, column] = soc
        self._residues = np.zeros((n, depth, 3))
        self._residues[:, 0, rainflow.SOC] = soc
        self._used = np.ones(n, dtype=np.int8)
        self._outside = np.zeros((n, 4))
        self._clock_s = np.zeros(2)  # since the last refresh, in the open day
        self._closed = np.zeros((2 * depth, 5))
        valid = model.valid
        self._valid = np.array([*valid.temperature_K, *valid.depth, valid.rate_max_per_h])
        # Power and headroom of the material's sigmoid, the electrode's share in resistance, x at the start.
        self._knee_per_cycle = 0.0
        if model.has_knee:
            start = model.number("material_start")
            power = model.number("material_power")
            begin = math.log((1.0 + start) / (1.0 - start)) ** (1.0 / power)
            self._material = np.array(
                [power, model.number("material_headroom"), model.number("electrode_b"), begin]
            )
            self._rows[:, MATERIAL] = begin
        elif knee is not None:
            self._material = np.array([knee.power, knee.headroom, 0.0, 0.0])
            self._knee_per_cycle = 1.0 / knee.half_cycles
        else:
            self._material = np.array([1.0, 0.0, 0.0, 0.0])
        self._law = (model.form.code, model.parameters, model.curve, self._valid)
        self.refresh()

    @classmethod
    def from_model(cls, name: str, n_cells: int, soc: ArrayLike = 0.5, **options: Any) -> AgeingBank:
        """A bank of the catalogue's model `name`; options as for the class."""
        start = np.array(np.broadcast_to(np.asarray(soc, dtype=float), (n_cells,)))
        return cls(ageing_model(name), start, **options)

    @property
    def n_cells(self) -> int:
        """Cells of the bank."""
        return self.capacity_factor.size

    @property
    def bytes_per_cell(self) -> int:
        """Memory of one cell, everything counted."""
        return sum(array.nbytes for array in self._arrays().values()) // self.n_cells

    def accumulate(self, soc: FloatArray, temperature_K: FloatArray, dt_s: float) -> bool:
        """Age all cells by one step of dt_s; True when the factors have been refreshed by it.

        Parameters
        ----------
        soc : (n_cells,) at the end of the step; it is taken to have moved straight since the last step
        temperature_K : (n_cells,) mean over the step
        """
        check_step_s(dt_s)
        if soc.shape != (self.n_cells,) or temperature_K.shape != (self.n_cells,):
            raise ValueError(
                f"soc has shape {soc.shape}, temperature_K {temperature_K.shape}; expected ({self.n_cells},)"
            )
        bad = _accumulate(
            self._rows,
            self._residues,
            self._used,
            self._outside,
            self._closed,
            soc,
            temperature_K,
            dt_s,
            self._threshold,
            0.0 if self.model.form.with_rest else rainflow.REST_PER_H,
            self.capacity_factor,
            self.model.form.nominal_cycles,
            *self._law,
            self._knee_per_cycle,
        )
        if bad >= 0:
            raise ValueError(
                f"cell {bad} at state of charge {soc[bad]:g} and {temperature_K[bad]:g} K; "
                "ageing expects -0.5 to 1.5 and 150 to 1000 K"
            )
        self._clock_s += dt_s
        if self._clock_s[1] >= DAY_S:
            form, powers = self.model.form, self.model.powers
            _close_days(self._rows, self._outside, self._clock_s[1], form.daily_mean, powers, *self._law)
            self._clock_s[1] = 0.0
        due = bool(self._clock_s[0] >= self._refresh_every_s)
        if due:
            self.refresh()
        return due

    def refresh(self) -> None:
        """Bring the factors, parts and cycles up to date."""
        code, parameters, curve, valid = self._law
        _read(
            self._rows,
            self._residues,
            self._used,
            self._closed,
            code,
            parameters,
            curve,
            valid,
            self.model.powers,
            self.model.form.daily_mean,
            self.model.form.nominal_cycles,
            self._material,
            self._knee_per_cycle,
            self._pace,
            self.capacity_factor,
            self.resistance_factor,
            self.parts,
            self.cycles,
        )
        self._clock_s[0] = 0.0

    def outside(self) -> dict[str, FloatArray]:
        """(n_cells,) each: hours colder and hotter, cycles shallower or deeper and faster than measured."""
        return {name: self._outside[:, k].copy() for k, name in enumerate(OUTSIDE)}

    def _arrays(self) -> dict[str, NDArray]:
        return {
            "rows": self._rows,
            "residues": self._residues,
            "used": self._used,
            "outside": self._outside,
            "clock_s": self._clock_s,
            "pace": self._pace,
            "capacity_factor": self.capacity_factor,
            "resistance_factor": self.resistance_factor,
            "cycles": self.cycles,
            "parts": self.parts,
        }

    def get_state(self) -> dict[str, NDArray]:
        """Everything that changes, as a copy: a bank of the same model goes on from it bit for bit."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def set_state(self, state: dict[str, NDArray]) -> None:
        """Go on from a saved state."""
        restore(self._arrays(), state, f"an ageing bank of {self.model.name}")
