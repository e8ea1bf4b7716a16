"""Which cells are next: estimates the state of every group from measured rows, reads the learnt risk table.

Three things are estimated from `measured` alone. *Temperature*: of a group with a sensor, what it says; of
another, the median of the sensors plus the heat an internal short has set free in the last minutes over its
heat capacity (adiabatic: an upper bound). *Internal short*: the charge a group has lost against the median
of the others, from the open-circuit curve of the data sheet; its rate is the short's current. *State of
Safety*: the temperature term of DESIGN.md section 8, between onset and where runaway is inevitable, now and
as far ahead as the last minute's rate carries.

A group whose State of Safety is or will be below one half gives a warning, one that has gone (its voltage has
collapsed against the median, or its sensor is beyond the inevitable) an alarm; each with the groups that
follow, when, and how likely: P(this one goes) times the table's P(next | this one). The table knows one cell
that goes in a healthy module; for a second one, what is already hot makes it sooner than said. Cooling is
what the BMS commands; that it arrives is taken on trust unless `trust_cooling` is false.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from twin.analytics.detectors.base import ALARM, VOLTAGE_FAULTS, WARNING, Alert, alert
from twin.analytics.risk_table import Prospect, RiskTable, load_risk_table
from twin.scenario.fields import flag, quantity
from twin.telemetry.frame import Frame, PackInfo

NAMED = 3  # groups a sentence speaks of
RATE_S = 60.0  # over which the rate of temperature is taken
AT_MOST = 0.95  # of the chance of a group that is still below the inevitable


@dataclass(frozen=True)
class Forecast:
    """What was said about a pack at one instant; groups count from 1.

    Parameters
    ----------
    group : that goes, or has gone; probability : that it goes (1: it has gone)
    prospects : of the other groups, given that it goes; times since it went
    """

    t_s: float
    group: int
    probability: float
    prospects: tuple[Prospect, ...]
    horizon_s: float


@dataclass(frozen=True, kw_only=True)
class PropagationRisk:
    """Which cells run away next, when, how likely, from a learnt table; needs `risk_table` of the racks."""

    word: ClassVar[str] = "propagation_risk"
    detects: ClassVar[tuple[str, ...]] = VOLTAGE_FAULTS
    onset_K: float = quantity(
        "temperature",
        "where safety begins to fall",
        key="onset",
        default=363.15,
        minimum=320.0,
        maximum=450.0,
    )
    inevitable_K: float = quantity(
        "temperature",
        "where runaway is inevitable",
        key="inevitable",
        default=483.15,
        minimum=330.0,
        maximum=600.0,
    )
    collapse: float = quantity(
        "fraction",
        "of the median voltage that a collapsed group has lost (GB 38031-2025: 25 %)",
        key="collapse",
        default=0.25,
        minimum=0.05,
        maximum=0.9,
    )
    heat_capacity_J_per_K: float = quantity(
        "heat_capacity",
        "of a group, for those without a sensor",
        key="heat_capacity",
        default=800.0,
        above=0.0,
    )
    ahead_s: float = quantity(
        "time", "for which the present rate is taken to last", key="ahead", default=120.0, minimum=0.0
    )
    window_s: float = quantity(
        "time", "over which the heat of a short counts", key="window", default=600.0, above=0.0
    )
    trust_cooling: bool = flag("take commanded cooling for cooling", default=True)

    def mistakes(self) -> list[tuple[str, str]]:
        """Called by the loader when every field is well-formed."""
        if self.inevitable_K <= self.onset_K:
            return [("inevitable", "must be above onset")]
        return []

    def start(self, info: PackInfo) -> PropagationRiskState:
        """A fresh detector for this pack; ValueError when it has no table, or one of another module."""
        if not info.risk_table:
            raise ValueError(
                f"{self.word} needs a learnt table for {info.path}: propagation: {{risk_table: …}}"
            )
        table = load_risk_table(info.risk_table)
        n_cells = info.n_series * info.n_parallel
        if n_cells % table.n_cells or table.n_cells % info.n_parallel:
            raise ValueError(
                f"{self.word}: table {table.name} is of modules of {table.n_cells} cells; "
                f"{info.path} has {n_cells} cells in groups of {info.n_parallel}"
            )
        return PropagationRiskState(self, info, table)


class PropagationRiskState:
    """Estimates for one pack, and what was already said.

    Attributes
    ----------
    forecasts : everything said so far, for scoring
    """

    def __init__(self, params: PropagationRisk, info: PackInfo, table: RiskTable) -> None:
        self._params, self._info, self._table = params, info, table
        n = info.n_series
        self._sensor = np.array(info.sensor_group, dtype=int) - 1
        self._ocv_V, self._ocv_soc = np.array(info.ocv_V), np.array(info.ocv_soc)
        self._lost: deque[tuple[float, NDArray[np.float64]]] = deque()
        self._kelvin: deque[tuple[float, NDArray[np.float64]]] = deque()
        self._warned, self._gone = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        self._waiting: deque[tuple[int, float]] = deque()
        self._soc = np.nan
        self.forecasts: list[Forecast] = []

    def update(self, frame: Frame) -> Alert | None:
        """Take one measured row; several groups at once are spoken of in the rows that follow."""
        volts = frame.group_voltage_V
        known = np.isfinite(volts)
        if not known.any():
            return None
        living = known & ~self._gone
        middle_V = float(np.median(volts[living])) if living.any() else 0.0
        if middle_V < 0.5 * self._info.voltage_min_V:
            return None  # nothing of the pack is left to compare with
        collapsed = living & (volts < (1.0 - self._params.collapse) * middle_V)
        if not (self._gone | collapsed).any():
            self._soc = frame.soc_bms  # a pack with dead cells counts itself empty
        kelvin, short_ohm = self._estimate(frame, volts, living & ~collapsed, middle_V)
        p = self._params
        span_K = p.inevitable_K - p.onset_K
        unsafe = np.clip((kelvin - p.onset_K) / span_K, 0.0, 1.0)
        gone = (collapsed | (unsafe >= 1.0)) & ~self._gone
        coming_K = kelvin + np.maximum(self._rate(frame.t_s, kelvin), 0.0) * p.ahead_s
        coming = np.clip((coming_K - p.onset_K) / span_K, 0.0, AT_MOST)
        chance = np.maximum(unsafe, coming)
        likely = (chance >= 0.5) & ~self._warned & ~self._gone & ~gone
        for g in np.flatnonzero(gone):
            self._waiting.append((int(g), 1.0))
        for g in np.flatnonzero(likely):
            self._waiting.append((int(g), float(chance[g])))
        self._gone |= gone
        self._warned |= likely | gone
        if not self._waiting:
            return None
        group, sure = self._waiting.popleft()
        return self._say(frame, group, sure, float(kelvin[group]), float(short_ohm[group]))

    def _rate(self, t_s: float, kelvin: NDArray[np.float64]) -> NDArray[np.float64]:
        """K/s of every group over the last minute; 0 as long as there is less than a third of one."""
        self._kelvin.append((t_s, kelvin))
        while t_s - self._kelvin[0][0] > RATE_S:
            self._kelvin.popleft()
        begun_s, begun_K = self._kelvin[0]
        if t_s - begun_s < RATE_S / 3.0:
            return np.zeros_like(kelvin)
        return np.asarray((kelvin - begun_K) / (t_s - begun_s))

    def _estimate(
        self, frame: Frame, volts: NDArray[np.float64], alive: NDArray[np.bool_], middle_V: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Temperature (K) and internal short (ohm, infinite for none) of every group."""
        p, info = self._params, self._info
        charge = np.interp(volts, self._ocv_V, self._ocv_soc)
        middle = float(np.interp(middle_V, self._ocv_V, self._ocv_soc))
        lost_J = np.where(alive, (middle - charge) * info.capacity_Ah * 3600.0 * middle_V, np.nan)
        self._lost.append((frame.t_s, lost_J))
        while frame.t_s - self._lost[0][0] > p.window_s:
            self._lost.popleft()
        begun_s, begun_J = self._lost[0]
        heat_J = np.nan_to_num(np.clip(lost_J - begun_J, 0.0, None))
        seconds = frame.t_s - begun_s
        with np.errstate(divide="ignore", invalid="ignore"):
            watts = heat_J / seconds if seconds > 0.0 else np.zeros_like(heat_J)
            short_ohm = np.where(watts > 1.0, middle_V**2 / watts, np.inf)
        sensed = np.isfinite(frame.temperature_K)
        usual_K = float(np.median(frame.temperature_K[sensed])) if sensed.any() else 298.15
        kelvin = usual_K + heat_J / p.heat_capacity_J_per_K
        kelvin[self._sensor[sensed]] = frame.temperature_K[sensed]
        return kelvin, short_ohm

    def _say(self, frame: Frame, group: int, chance: float, kelvin: float, short_ohm: float) -> Alert:
        prospects = self._after(group, frame)
        gone = chance >= 1.0
        self.forecasts.append(Forecast(frame.t_s, group + 1, chance, prospects, self._table.horizon_s))
        state = f"group {group + 1} has gone" if gone else f"group {group + 1} may go, {chance:.0%}"
        if np.isfinite(kelvin):
            state += f" (estimated {kelvin - 273.15:.0f} °C"
            state += f", short {short_ohm:.3g} ohm)" if np.isfinite(short_ohm) else ")"
        ahead = [p for p in prospects if not self._gone[p.cell]]
        following = "; ".join(
            f"group {p.cell + 1} {chance * p.probability:.0%} after {p.after_s[1]:.0f} s "
            f"({p.after_s[0]:.0f} to {p.after_s[2]:.0f})"
            for p in ahead[:NAMED]
        )
        spread = chance * max((p.probability for p in ahead), default=0.0)
        return alert(
            frame,
            self._params.word,
            ALARM if gone else WARNING,
            score=spread,
            threshold=0.5,
            unit="1",
            group=group + 1,
            text=f"{state}; next: {following or 'none within the horizon of the table'}",
        )

    def _after(self, group: int, frame: Frame) -> tuple[Prospect, ...]:
        """Prospects of the other groups of the module, `cell` being the group from 0."""
        n_parallel, n_cells = self._info.n_parallel, self._table.n_cells
        first = group * n_parallel
        offset = first // n_cells * n_cells
        cooling = frame.cooling if self._params.trust_cooling and np.isfinite(frame.cooling) else 0.0
        soc = self._soc if np.isfinite(self._soc) else 1.0
        best: dict[int, Prospect] = {}
        for found in self._table.after(first - offset, soc, cooling):
            other = (offset + found.cell) // n_parallel
            before = best.get(other)
            if other != group and (before is None or found.probability > before.probability):
                best[other] = Prospect(other, found.probability, found.after_s)
        return tuple(sorted(best.values(), key=lambda p: (-p.probability, p.after_s[1], p.cell)))
