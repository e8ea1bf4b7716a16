"""The two things a detector is handed: the pack's data sheet and one measured row.

Observers in the loop and readers of a run folder make the same objects, so the same detector code
serves both. Nothing of the hidden state of the plant is in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twin.telemetry.schema import TABLES


@dataclass(frozen=True, kw_only=True)
class PackInfo:
    """Data sheet of one pack: a row of the table `packs` (units and meanings in schema.py)."""

    site: str
    rack: str
    pack: str
    design: str
    n_series: int
    n_parallel: int
    n_sensors: int
    capacity_Ah: float
    voltage_min_V: float
    voltage_max_V: float
    temperature_min_K: float
    temperature_max_K: float
    current_charge_max_A: float
    current_discharge_max_A: float
    balancing_resistance_ohm: float = float("nan")
    sensor_group: tuple[int, ...] = ()
    ocv_soc: tuple[float, ...] = ()
    ocv_V: tuple[float, ...] = ()
    risk_table: str = ""  # learnt propagation risk of its modules; empty for none

    @property
    def path(self) -> str:
        """`site/rack/pack`, as in the targets of a scenario."""
        return f"{self.site}/{self.rack}/{self.pack}"

    def group_of_cell(self, cell: int) -> int:
        """Series group of a cell; both count from 1, cells group by group."""
        return (cell - 1) // self.n_parallel + 1


@dataclass(slots=True)
class Frame:
    """One measured row of one pack. Arrays may be views into a larger buffer: copy what you keep.

    group_voltage_V : (n_series,) ; temperature_K : (n_sensors,) ; balancing : (n_series,) bool
    """

    t_s: float
    site: str
    rack: str
    pack: str
    current_A: float
    pack_voltage_V: float
    group_voltage_V: NDArray[np.float64]
    temperature_K: NDArray[np.float64]
    soc_bms: float
    bms_state: int
    level: int
    fault_mask: int
    contactors: int
    balancing: NDArray[np.bool_]
    sample_age_s: float
    power_W: float
    pressure_Pa: float = float("nan")
    gas_fraction: float = float("nan")
    insulation_ohm: float = float("nan")
    cooling: float = float("nan")


def block_frames(t_us: int, packs: Sequence[PackInfo], columns: Mapping[str, ArrayLike]) -> Iterator[Frame]:
    """Frames of all packs from what is given to `RunWriter.measured.append_block`, for observers in the loop.

    Numbers are rounded as the table stores them (float32), so a detector in the loop sees the very
    values it would see when the run folder is analysed afterwards.
    """
    starts = {
        "group": np.cumsum([0, *(info.n_series for info in packs)]),
        "sensor": np.cumsum([0, *(info.n_sensors for info in packs)]),
    }
    values: dict[str, NDArray[Any]] = {}
    for entry in TABLES["measured"]:
        if entry.name in ("t_us", "rack", "pack"):
            continue
        length = int(starts[entry.per][-1]) if entry.per else len(packs)
        given = columns.get(entry.name, entry.nothing)
        array = np.broadcast_to(np.asarray(given).astype(entry.numpy).reshape(-1), (length,))
        values[entry.name] = array.astype(np.float64) if entry.dtype == "float32" else array
    for p, info in enumerate(packs):
        groups = slice(starts["group"][p], starts["group"][p + 1])
        yield Frame(
            t_s=t_us * 1e-6,
            site=info.site,
            rack=info.rack,
            pack=info.pack,
            current_A=float(values["current_A"][p]),
            pack_voltage_V=float(values["pack_voltage_V"][p]),
            group_voltage_V=values["group_voltage_V"][groups],
            temperature_K=values["temperature_K"][starts["sensor"][p] : starts["sensor"][p + 1]],
            soc_bms=float(values["soc_bms"][p]),
            bms_state=int(values["bms_state"][p]),
            level=int(values["level"][p]),
            fault_mask=int(values["fault_mask"][p]),
            contactors=int(values["contactors"][p]),
            balancing=values["balancing"][groups],
            sample_age_s=float(values["sample_age_s"][p]),
            power_W=float(values["power_W"][p]),
            pressure_Pa=float(values["pressure_Pa"][p]),
            gas_fraction=float(values["gas_fraction"][p]),
            insulation_ohm=float(values["insulation_ohm"][p]),
            cooling=float(values["cooling"][p]),
        )
