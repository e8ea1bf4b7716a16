"""What twin asks of its engines: one Protocol per ladder of fidelity, in arrays and seconds.

Current and power are positive on discharge, heat is positive into the cell. Arrays run over all packs
(n_packs,), series groups (n_groups,) or cells (n_cells,) of a shard: pack by pack, within a pack group
by group, within a group cell by cell. A group is the cells in parallel at one place of the series string.

The adapters make the engines of `pack_models`, `bms_emulator` and `ota` fit these; the world holds
nothing else. `tests/ports/` runs the same promises against every rung.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class Wiring(Protocol):
    """Who belongs to whom, as offsets: pack p owns the groups from pack_group_start[p] to before [p + 1]."""

    n_packs: int
    n_groups: int
    n_cells: int
    pack_group_start: IntArray
    group_cell_start: IntArray
    pack_cell_start: IntArray


class CellBank(Protocol):
    """Cells and their electrical wiring: all packs of a shard advance in one call."""

    layout: Any
    soc: FloatArray  # (n_cells,) 0…1
    cell_current_A: FloatArray  # (n_cells,)
    group_voltage_V: FloatArray  # (n_groups,) at the end of the last step
    pack_voltage_V: FloatArray  # (n_packs,) at the end of the last step, at the pack's terminals
    pack_power_W: FloatArray  # (n_packs,) mean over the last step, at the terminals
    heat_W: FloatArray  # (n_cells,) mean over the last step
    outside_steps: IntArray  # (n_packs, 4) cell-steps below 0, above 1, colder, hotter than identified

    def thevenin(self, temperature_K: FloatArray, dt_s: float) -> tuple[FloatArray, FloatArray]:
        """(emf_V, resistance_ohm) of each pack at the end of a step of dt_s: V = emf - resistance * I."""

    def step(
        self, pack_current_A: FloatArray, temperature_K: FloatArray, dt_s: float, balancing: BoolArray
    ) -> None:
        """Advance by dt_s with the pack currents held."""

    def set_internal_short(self, cell: int, resistance_ohm: float) -> None:
        """Put a resistor across one cell; infinity takes it away."""

    def set_open_fuse(self, cell: int, is_open: bool) -> None:
        """Open (or replace) the fuse between one cell and its group."""

    def scale_cell(self, cell: int, capacity_factor: float = 1.0, resistance_factor: float = 1.0) -> None:
        """Make one cell an outlier, on top of what it already is."""

    def set_health(self, capacity: FloatArray, resistance: FloatArray) -> None:
        """Age all cells, on top of their spread: (n_cells,) what is left, what it has grown to."""

    def balances(self) -> dict[str, FloatArray]:
        """Cumulative energy and charge ledgers per pack, in J and C, with their residuals."""


class Ageing(Protocol):
    """What time and use have taken from all cells of a shard."""

    capacity_factor: FloatArray  # (n_cells,) what is left of the capacity, 1 = new
    resistance_factor: FloatArray  # (n_cells,) what the resistance has grown to, 1 = new

    def accumulate(self, soc: FloatArray, temperature_K: FloatArray, dt_s: float) -> bool:
        """Age by a step of dt_s that ended at soc; True when it has brought the factors up to date."""

    def refresh(self) -> None:
        """Bring the factors up to date."""

    def outside(self) -> dict[str, FloatArray]:
        """Time and cycles each cell has spent beyond the conditions the model was made from."""


class PackThermal(Protocol):
    """Temperatures of all cells of a shard."""

    temperature_K: FloatArray  # (n_cells,)
    auxiliary_W: FloatArray  # (n_packs,) electric power of fans, pumps and chillers in the last step
    to_ambient_J: FloatArray  # (n_packs,) heat given to the air around the packs since the start

    def step(self, heat_W: FloatArray, ambient_K: FloatArray, cooling: FloatArray, dt_s: float) -> None:
        """Advance by dt_s; ambient_K and cooling (0…1) are per pack."""

    def release(self, first_cell: int) -> None:
        """Leave the module that begins with this cell to another model, which writes its temperatures."""

    def balances(self) -> dict[str, FloatArray]:
        """Cumulative heat ledgers per pack in J, with their residuals."""


@dataclass(frozen=True)
class AbuseEvent:
    """Something that happened to a cell (of the shard) in the last step."""

    cell: int
    kind: str  # abuse_onset, voltage_collapse, venting, thermal_runaway, propagation, contained, spread_ended
    severity: str
    value: float
    unit: str
    text: str


class Propagation(Protocol):
    """Modules of a shard that are past their onset: from then on their temperatures are this model's."""

    onset_K: float
    owned: BoolArray  # (n_cells,) of modules that were handed over
    temperature_K: FloatArray  # (n_cells,) mean of each cell, where owned
    state_of_safety: FloatArray  # (n_cells,) 1 healthy, 0 imminent runaway
    collapsed: BoolArray  # (n_cells,) the separator has failed
    runaway: BoolArray  # (n_cells,)
    collapsed_ohm: float  # what is left between the terminals of a collapsed cell
    mass_lost_kg: FloatArray  # (n_cells,) gas and ejected matter
    pressure_Pa: FloatArray  # (n_packs,) in the housing, above that of the surroundings
    gas_fraction: FloatArray  # (n_packs,) combustible gas in the housing, 0…1
    insulation_ohm: FloatArray  # (n_packs,) infinite where nothing has vented
    events: list[AbuseEvent]  # of the last step
    opened: list[range]  # cells of the modules that were handed over at the end of the last step

    def step(
        self,
        heat_W: FloatArray,
        soc: FloatArray,
        temperature_K: FloatArray,
        ambient_K: FloatArray,
        cooling: FloatArray,
        dt_s: float,
    ) -> None:
        """Advance by dt_s with the heat and charge of the cells and the cooling that works, 0…1 per pack.

        temperature_K is what the thermal model has at the end of the step; modules found beyond the onset are
        handed over there and step from the next call on.
        """

    def balances(self) -> dict[str, FloatArray]:
        """Cumulative ledgers per pack: heat_in + reactions + short = lost + stored + pending + residual (J).

        energy_written_off_J is the electric energy of collapsed cells, which `energy_short_J` releases in
        part; gas_released_mol = gas_escaped_mol + gas in the housing + gas_residual_mol.
        """

    def close(self) -> None:
        """End what runs beside this process."""


@dataclass(frozen=True)
class MeasuredFrame:
    """What the sensors of all packs of a shard say at one instant; NaN: silent or not fitted."""

    group_voltage_V: FloatArray  # (n_groups,)
    temperature_K: FloatArray  # (n_sensors,) of all packs, pack by pack
    current_A: FloatArray  # (n_packs,)
    pack_voltage_V: FloatArray  # (n_packs,)
    link_voltage_V: FloatArray  # (n_packs,) on the converter's side of the contactors
    pressure_Pa: FloatArray  # (n_packs,) in the pack's housing, above that of the surroundings
    gas_fraction: FloatArray  # (n_packs,) combustible gas in the housing, 0…1 by volume
    insulation_ohm: FloatArray  # (n_packs,) between the high-voltage side and the housing
    main_contacts: NDArray[np.int8]  # (n_packs,) auxiliary contacts: 1 closed, -1 open, 0 as commanded


@dataclass
class BmsCommands:
    """What the BMS of each pack wants; acts on the plant from the next step on. Overwritten in place."""

    main_closed: BoolArray  # (n_packs,) both main contactors
    precharge_closed: BoolArray  # (n_packs,)
    charge_limit_A: FloatArray  # (n_packs,) >= 0
    discharge_limit_A: FloatArray  # (n_packs,) >= 0
    balancing: BoolArray  # (n_groups,)
    cooling: FloatArray  # (n_packs,) 0…1
    soc: FloatArray  # (n_packs,) the BMS's own estimate, 0…1
    state: NDArray[np.int8]  # (n_packs,) code of `Bms.state_names`
    level: NDArray[np.int8]  # (n_packs,) 0 fine, 1 operating, 2 recommended, 3 safety limit exceeded
    fault_mask: NDArray[np.uint64]  # (n_packs,) one bit per row of `Bms.fault_names`, latched
    tripped: BoolArray  # (n_packs,) contactors opened by a protection
    # What the slow part of the firmware says; NaN (n_packs,) where this release says nothing, or not yet.
    soc_sigma: FloatArray  # one standard deviation of soc
    soc_min: FloatArray  # of the emptiest group
    soc_max: FloatArray  # of the fullest group
    soh_capacity: FloatArray  # capacity over that of the parameter set
    soh_resistance: FloatArray  # resistance over that of the parameter set
    power_discharge_10s_W: FloatArray  # that can be promised for so long
    power_discharge_60s_W: FloatArray
    power_charge_10s_W: FloatArray  # magnitude
    power_charge_60s_W: FloatArray
    safety: FloatArray  # State of Safety, 1 healthy, 0 imminent runaway


class Modem(Protocol):
    """The modem mailboxes of a shard's controllers: whole frames, in order, one box per pack."""

    def send(self, pack: int, frame: bytes) -> None:
        """Into the box; the firmware reads it in its next step."""

    def receive(self, pack: int) -> list[bytes]:
        """What the firmware has sent since the last call."""


class Bms(Protocol):
    """Battery management of all packs of a shard."""

    commands: BmsCommands
    modem: Modem | None  # None: this rung takes no updates
    releases: list[str]  # (n_packs) firmware release each runs; changes with an update
    state_names: tuple[str, ...]
    fault_names: tuple[str, ...]
    ticks: int  # firmware ticks run so far, over all packs

    def request(self, closed: BoolArray) -> None:
        """Ask each pack to connect (True) or disconnect from the next step on."""

    def step(self, frame: MeasuredFrame, dt_us: int) -> BmsCommands:
        """Run the firmware over a step of dt_us with this frame as its latest sample."""

    def figures(self) -> dict[str, float]:
        """What the controllers measured about themselves: cycles, load, lateness. Empty where they cannot."""


@dataclass(frozen=True)
class UpdateNews:
    """Something an update has come to, for the event table. `pack` is the index within its shard."""

    shard: int
    pack: int
    kind: str  # ordered, download, transfer, staged, waiting, activating, probation, then the outcome
    severity: str
    value: float
    unit: str
    text: str


class UpdateChain(Protocol):
    """Signing, server, broker and one gateway agent for each pack, on simulated time."""

    def order(
        self, packs: list[tuple[int, int]], image: str | None, parameters: dict[str, int], now_s: float
    ) -> list[UpdateNews]:
        """Sign and publish a set for these (shard, pack)."""

    def exchange(self, now_s: float) -> list[UpdateNews]:
        """Let gateways and server talk until nothing is under way that is due by now_s."""

    def set_broker(self, running: bool) -> None:
        """Kill the broker, or start it again."""

    @property
    def busy(self) -> bool:
        """Whether any update is under way."""

    def waits_for_contactors(self) -> list[tuple[int, int]]:
        """(shard, pack) whose update is staged and defers because the pack is connected."""

    def under_way(self, shard: int, pack: int) -> bool:
        """Whether this pack has an update that is not finished."""

    def traffic(self) -> dict[str, float]:
        """Messages and bytes on the air so far, and what full images would have cost."""

    def close(self) -> None:
        """End every process and socket that was started."""
