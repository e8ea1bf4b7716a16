"""From the world's arrays to rows of telemetry.

`measured` and `meter` take what sensors, BMS and meters said; `truth` takes the hidden state. Every row
of an instant is appended as arrays, one call per table and shard.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from twin.ports import FloatArray, IntArray
from twin.telemetry.sink import RunWriter
from twin.world.pack import PackShard
from twin.world.site import METERS, SiteControl

VOLTAGE_STEPS_PER_V = 1e4  # the BMS reports group voltages in steps of 0.1 mV


@dataclass(frozen=True)
class Event:
    """One row of the event table. Empty strings and -1 where a level does not apply."""

    t_us: int
    site: str
    rack: str
    pack: str
    cell: int
    source: str
    kind: str
    severity: str  # info, warning, alarm
    value: float
    unit: str
    text: str


def _per(values: FloatArray, starts: IntArray, reduce: np.ufunc) -> FloatArray:
    """Reduce cells (or groups) to their owners; starts (n + 1,)."""
    reduced: FloatArray = reduce.reduceat(values, starts[:-1])
    return reduced


class Recorder:
    """Writes what the world has to say into a run folder."""

    def __init__(
        self,
        writer: RunWriter,
        shards: tuple[PackShard, ...],
        sites: tuple[SiteControl, ...],
        firmware: tuple[str, ...] = (),
    ) -> None:
        self.writer = writer
        self.sites = sites
        self._codes = {name: code for code, name in enumerate(firmware)}
        self._firmware: dict[int, tuple[list[str], IntArray]] = {}
        starts = np.concatenate([[0], np.cumsum([len(shard.paths) for shard in shards])])
        self._rows = {id(shard): slice(int(starts[i]), int(starts[i + 1])) for i, shard in enumerate(shards)}

    def measured(self, t_us: int, shard: PackShard) -> None:
        frame, commands = shard.sensors.frame, shard.bms.commands
        self.writer.measured.append_block(
            t_us,
            self._rows[id(shard)],
            {
                "current_A": frame.current_A,
                "pack_voltage_V": frame.pack_voltage_V,
                "link_voltage_V": frame.link_voltage_V,
                "group_voltage_V": np.round(frame.group_voltage_V * VOLTAGE_STEPS_PER_V)
                / VOLTAGE_STEPS_PER_V,
                "temperature_K": frame.temperature_K,
                "soc_bms": commands.soc,
                "soc_sigma_bms": commands.soc_sigma,
                "soc_min_bms": commands.soc_min,
                "soc_max_bms": commands.soc_max,
                "soh_capacity_bms": commands.soh_capacity,
                "soh_resistance_bms": commands.soh_resistance,
                "power_discharge_10s_W": commands.power_discharge_10s_W,
                "power_discharge_60s_W": commands.power_discharge_60s_W,
                "power_charge_10s_W": commands.power_charge_10s_W,
                "power_charge_60s_W": commands.power_charge_60s_W,
                "safety_bms": commands.safety,
                "current_limit_charge_A": commands.charge_limit_A,
                "current_limit_discharge_A": commands.discharge_limit_A,
                "bms_state": commands.state,
                "level": commands.level,
                "fault_mask": commands.fault_mask,
                "contactors": commands.main_closed + 2 * commands.precharge_closed,
                "firmware": self._running(shard),
                "balancing": commands.balancing,
                "cooling": commands.cooling,
                "sample_age_s": 0.0,
                "power_W": frame.current_A * frame.pack_voltage_V,
                "pressure_Pa": frame.pressure_Pa,
                "gas_fraction": frame.gas_fraction,
                "insulation_ohm": frame.insulation_ohm,
            },
        )

    def _running(self, shard: PackShard) -> IntArray:
        """(n_packs,) code of the release that each pack runs; made anew only when one has changed."""
        releases = shard.bms.releases
        known = self._firmware.get(id(shard))
        if known is None or known[0] != releases:
            codes = np.array([self._codes.get(name, -1) for name in releases])
            known = self._firmware[id(shard)] = (list(releases), codes)
        return known[1]

    def truth(self, t_us: int, shard: PackShard) -> None:
        cells, layout = shard.cells, shard.cells.layout
        soc, temperature_K = cells.soc, shard.thermal.temperature_K
        pack_cells, groups, pack_groups = (
            layout.pack_cell_start,
            layout.group_cell_start,
            layout.pack_group_start,
        )
        count = np.diff(pack_cells)
        per_group = np.diff(groups)
        voltage_V = cells.group_voltage_V
        group_of_cell = np.repeat(np.arange(per_group.size), per_group)
        short_A = voltage_V[group_of_cell] / shard.short_ohm
        spans = list(itertools.pairwise(pack_cells))
        health = {}
        if shard.ageing is not None:
            left, grown = shard.ageing.capacity_factor, shard.ageing.resistance_factor
            health = {
                "soh_capacity": _per(left, pack_cells, np.add) / count,
                "soh_capacity_min": _per(left, pack_cells, np.minimum),
                "soh_resistance": _per(grown, pack_cells, np.add) / count,
            }
        self.writer.truth.append_block(
            t_us,
            self._rows[id(shard)],
            {
                "soc_mean": _per(soc, pack_cells, np.add) / count,
                "soc_min": _per(soc, pack_cells, np.minimum),
                "soc_max": _per(soc, pack_cells, np.maximum),
                "soc": _per(soc, groups, np.add) / per_group,
                "temperature_mean_K": _per(temperature_K, pack_cells, np.add) / count,
                "temperature_min_K": _per(temperature_K, pack_cells, np.minimum),
                "temperature_max_K": _per(temperature_K, pack_cells, np.maximum),
                "temperature_group_K": _per(temperature_K, groups, np.add) / per_group,
                "voltage_min_V": _per(voltage_V, pack_groups, np.minimum),
                "voltage_max_V": _per(voltage_V, pack_groups, np.maximum),
                "current_A": shard.pack_current_A,
                "heat_W": _per(cells.heat_W, pack_cells, np.add),
                "short_current_A": _per(short_A, pack_cells, np.add),
                "weakest_cell": [int(np.argmin(soc[a:b])) + 1 for a, b in spans],
                "hottest_cell": [int(np.argmax(temperature_K[a:b])) + 1 for a, b in spans],
                **health,
                **self._abuse(shard),
            },
        )

    @staticmethod
    def _abuse(shard: PackShard) -> dict[str, Any]:
        """Columns about abuse and the housing."""
        housing, abuse = shard.housing, shard.abuse
        columns: dict[str, Any] = {
            "pressure_Pa": housing.pressure_Pa,
            "gas_fraction": housing.gas_fraction,
            "insulation_ohm": housing.insulation_ohm,
        }
        if abuse is not None:
            starts = shard.cells.layout.pack_cell_start
            columns["state_of_safety_min"] = _per(abuse.state_of_safety, starts, np.minimum)
            columns["mass_lost_kg"] = _per(abuse.mass_lost_kg, starts, np.add)
            columns["cells_burnt"] = _per(abuse.runaway.astype(float), starts, np.add)
        return columns

    def meter(self, t_us: int) -> None:
        """Means since the last row."""
        means = np.array([site.meter.take() for site in self.sites])
        columns = {name: means[:, i] for i, name in enumerate(METERS)}
        columns["frequency_Hz"] = np.array([site.view.frequency_Hz for site in self.sites])
        columns["ambient_K"] = np.array([site.ambient_K for site in self.sites])
        self.writer.meter.append_block(t_us, None, columns)

    def event(self, event: Event) -> None:
        self.writer.event(
            t_us=event.t_us,
            source=event.source,
            kind=event.kind,
            severity=event.severity,
            text=event.text,
            site=event.site,
            rack=event.rack,
            pack=event.pack,
            cell=event.cell if event.cell >= 0 else None,
            value=event.value,
            unit=event.unit,
        )
