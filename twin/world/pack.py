"""All packs of one kind: the plant, its sensors and its BMS, and the one order in which they step.

A shard holds every pack of the scenario that shares a design and rungs of fidelity, as struct of
arrays. Packs of a rack lie side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from twin.ports import Ageing, Bms, BoolArray, CellBank, FloatArray, IntArray, PackThermal, Propagation
from twin.world.rack import LinkVoltages, loss_terms, settle_racks, split_power
from twin.world.sensors import HousingTruth, SensorBank

COLLAPSED_RESISTANCE = (
    1e4  # factor on a collapsed cell's own resistance: its emf no longer reaches its terminals
)
AS_COMMANDED, WELDED, STUCK_OPEN = 0, 1, -1  # main contactors of a pack
HEALTHY_INSULATION_OHM = 20e6  # far above the 100 to 500 ohm/V that standards ask for


@dataclass(frozen=True)
class PackPath:
    """Where a pack stands: `depot/rack-2/pack-1`."""

    site: str
    rack: str
    pack: str

    def __str__(self) -> str:
        return f"{self.site}/{self.rack}/{self.pack}"


@dataclass(frozen=True)
class RackPlan:
    """Racks of a shard: rack_pack_start (n_racks + 1,), site_of_rack (n_racks,), converter figures."""

    pack_start: IntArray
    site: IntArray
    converter_power_W: FloatArray
    # (n_racks, n_rows, 4): DC voltage, no_load, proportional, quadratic; voltages grow or repeat the last
    converter_map: FloatArray

    def converter_loss(self, pack_voltage_V: FloatArray) -> FloatArray:
        """(n_racks, 3) the three terms at the voltage of each rack's first pack."""
        return loss_terms(self.converter_map, pack_voltage_V[self.pack_start[:-1]])


@dataclass
class PackShard:
    """Packs that step together. Arrays over packs unless said otherwise."""

    paths: tuple[PackPath, ...]
    design: str
    cells: CellBank
    thermal: PackThermal
    sensors: SensorBank
    bms: Bms
    racks: RackPlan
    link: LinkVoltages
    nominal_energy_J: FloatArray
    cooling_works: FloatArray  # 0…1, cut by a cooling failure
    short_ohm: FloatArray  # (n_cells,) internal shorts, what is left of a collapsed cell; inf = none
    ageing: Ageing | None = None  # None: cells stay as they are
    abuse: Propagation | None = None  # modules beyond their onset
    housing: HousingTruth = field(init=False)
    rack_of_pack: IntArray = field(init=False)
    pack_current_A: FloatArray = field(init=False)
    connected: BoolArray = field(init=False)
    wanted_closed: BoolArray = field(init=False)  # what the operator asks of each BMS
    rack_request_W: FloatArray = field(init=False)  # (n_racks,) AC, set by the sites
    rack_dc_W: FloatArray = field(init=False)
    rack_ac_W: FloatArray = field(init=False)
    rack_can_discharge_W: FloatArray = field(init=False)
    rack_can_charge_W: FloatArray = field(init=False)
    energy_dc_J: FloatArray = field(init=False)  # (n_racks,) cumulative
    energy_ac_J: FloatArray = field(init=False)
    energy_converter_loss_J: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        n_packs, n_racks = len(self.paths), self.racks.pack_start.size - 1
        self.rack_of_pack = np.repeat(np.arange(n_racks), np.diff(self.racks.pack_start))
        self.pack_current_A = np.zeros(n_packs)
        self.housing = HousingTruth(
            np.zeros(n_packs), np.zeros(n_packs), np.full(n_packs, HEALTHY_INSULATION_OHM)
        )
        self.connected = np.zeros(n_packs, dtype=bool)
        for name in (
            "rack_request_W",
            "rack_dc_W",
            "rack_ac_W",
            "rack_can_discharge_W",
            "rack_can_charge_W",
            "energy_dc_J",
            "energy_ac_J",
            "energy_converter_loss_J",
        ):
            setattr(self, name, np.zeros(n_racks))
        self.want(np.ones(n_packs, dtype=bool))
        if self.ageing is not None:
            self.ageing.refresh()
            self.cells.set_health(self.ageing.capacity_factor, self.ageing.resistance_factor)

    @property
    def contactors(self) -> NDArray[np.int8]:
        """(n_packs,) AS_COMMANDED, WELDED or STUCK_OPEN: what the auxiliary contacts tell the BMS."""
        return self.sensors.frame.main_contacts

    def _main_closed(self, commanded: BoolArray) -> BoolArray:
        """Which packs are on their link, given what the BMSs command."""
        closed: BoolArray = (commanded | (self.contactors == WELDED)) & (self.contactors != STUCK_OPEN)
        return closed

    def want(self, closed: BoolArray) -> None:
        """Ask the BMS of each pack to connect (True) or to open, from the next step on."""
        self.wanted_closed = closed
        self.bms.request(closed)

    def step(self, dt_us: int, ambient_K: FloatArray) -> None:
        """One plant step of dt_us; ambient_K per pack. This order is the co-simulation contract."""
        dt_s = dt_us * 1e-6
        commands = self.bms.commands
        self.connected[:] = self._main_closed(commands.main_closed)
        # 1. The request, limited by what the BMS allowed at the last step.
        temperature_K = self.thermal.temperature_K
        converter_loss = self.racks.converter_loss(self.cells.pack_voltage_V)
        emf_V, resistance_ohm = self.cells.thevenin(temperature_K, dt_s)
        split_power(
            self.rack_request_W,
            self.racks.converter_power_W,
            converter_loss,
            self.racks.pack_start,
            emf_V,
            resistance_ohm,
            self.connected,
            commands.discharge_limit_A,
            commands.charge_limit_A,
            self.pack_current_A,
        )
        # 2. Cells and their wiring.
        self.cells.step(self.pack_current_A, temperature_K, dt_s, commands.balancing)
        # 3. Temperatures.
        cooling = commands.cooling * self.cooling_works
        self.thermal.step(self.cells.heat_W, ambient_K, cooling, dt_s)
        if self.abuse is not None:
            self._abuse(self.abuse, ambient_K, cooling, dt_s)
        if self.ageing is not None and self.ageing.accumulate(
            self.cells.soc, self.thermal.temperature_K, dt_s
        ):
            self.cells.set_health(self.ageing.capacity_factor, self.ageing.resistance_factor)
        # 4. Truth becomes measured.
        link_V = self.link.step(
            self.rack_of_pack, self.cells.pack_voltage_V, self.connected, commands.precharge_closed, dt_s
        )
        frame = self.sensors.read(
            self.cells.group_voltage_V,
            self.thermal.temperature_K,
            self.pack_current_A,
            self.cells.pack_voltage_V,
            link_V,
            self.housing,
            dt_s,
        )
        # 5. The BMS; its commands act from the next step on.
        commands = self.bms.step(frame, dt_us)
        settle_racks(
            self.racks.converter_power_W,
            converter_loss,
            self.racks.pack_start,
            self.connected,
            self._main_closed(commands.main_closed),
            self.cells.pack_voltage_V,
            self.cells.pack_power_W,
            commands.discharge_limit_A,
            commands.charge_limit_A,
            self.rack_dc_W,
            self.rack_ac_W,
            self.rack_can_discharge_W,
            self.rack_can_charge_W,
        )
        self.energy_dc_J += self.rack_dc_W * dt_s
        self.energy_ac_J += self.rack_ac_W * dt_s
        self.energy_converter_loss_J += (self.rack_dc_W - self.rack_ac_W) * dt_s

    def _abuse(self, abuse: Propagation, ambient_K: FloatArray, cooling: FloatArray, dt_s: float) -> None:
        """Modules beyond their onset: their temperatures, their dead cells, the gas in the housing."""
        temperature_K = self.thermal.temperature_K
        abuse.step(self.cells.heat_W, self.cells.soc, temperature_K, ambient_K, cooling, dt_s)
        for cells in abuse.opened:
            self.thermal.release(cells.start)
        np.copyto(temperature_K, abuse.temperature_K, where=abuse.owned)
        for event in abuse.events:
            if event.kind == "voltage_collapse":
                self.cells.scale_cell(event.cell, resistance_factor=COLLAPSED_RESISTANCE)
                self.cells.set_internal_short(event.cell, abuse.collapsed_ohm)
                self.short_ohm[event.cell] = abuse.collapsed_ohm
        housing = self.housing
        housing.pressure_Pa[:], housing.gas_fraction[:] = abuse.pressure_Pa, abuse.gas_fraction
        np.minimum(housing.insulation_ohm, abuse.insulation_ohm, out=housing.insulation_ohm)
