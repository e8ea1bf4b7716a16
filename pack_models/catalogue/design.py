"""What the catalogue says about a cell and a pack: frozen facts in SI (and Ah), arrays read-only.

Current is positive on discharge. A state of charge of 0 and 1 is the open circuit at the lower and the
upper voltage of the cell, at the reference temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CellDesign:
    """One kind of cell: limits, heat capacity and the tables of its equivalent circuit.

    `resistance*_ohm` are (n_temperatures, n_socs) over `table_temperature_K` and `table_soc`,
    `time_constant*_s` (n_temperatures,); the curves over `ocv_soc` are (n_ocv,). Time constants do not
    depend on the state of charge: identification is then linear in the resistances. `aged_soh` (n_aged,)
    are capacities of aged cells over that of the fresh one, evenly spaced down from 1; `aged_ocv_V` (n_aged,
    n_ocv) are their open circuits and `aged_resistance_shape` (n_aged, n_socs) is what their resistance at a
    state of charge grew, over the growth of its mean; all three are empty where only capacity and
    resistance are known to change. `pybamm` names the parameter set the physical rungs (spm, spme, dfn) use,
    None where there is none.
    """

    name: str
    about: str
    chemistry: str
    form: str
    capacity_Ah: float
    voltage_min_V: float
    voltage_max_V: float
    temperature_min_K: float
    temperature_max_K: float
    charge_current_max_A: float
    discharge_current_max_A: float
    mass_kg: float
    heat_capacity_J_per_K: float
    reference_temperature_K: float
    ocv_soc: FloatArray
    ocv_V: FloatArray
    entropic_V_per_K: FloatArray
    hysteresis_V: FloatArray
    hysteresis_rate: float
    table_soc: FloatArray
    table_temperature_K: FloatArray
    resistance0_ohm: FloatArray
    resistance1_ohm: FloatArray
    time_constant1_s: FloatArray
    resistance2_ohm: FloatArray
    time_constant2_s: FloatArray
    aged_soh: FloatArray
    aged_ocv_V: FloatArray
    aged_resistance_shape: FloatArray
    pybamm: str | None
    fit: dict[str, float]
    sources: dict[str, str]

    @property
    def has_entropy(self) -> bool:
        """Whether the open-circuit voltage moves with temperature."""
        return bool(np.any(self.entropic_V_per_K != 0.0))

    @property
    def has_hysteresis(self) -> bool:
        """Whether charge and discharge rest at different voltages."""
        return bool(np.any(self.hysteresis_V != 0.0))


@dataclass(frozen=True)
class ThermalDesign:
    """Heat paths of one cell and its module; conductances in W/K, see `pack_models.thermal.lumped`."""

    series_neighbour_W_per_K: float
    parallel_neighbour_W_per_K: float
    coolant_W_per_K: float
    coolant_idle_W_per_K: float
    ambient_W_per_K: float
    module_end_W_per_K: float
    coolant_heat_capacity_J_per_K: float
    coolant_flow_W_per_K: float
    coolant_flow_idle_W_per_K: float
    supply_temperature_K: float | None
    fan_power_W: float
    cooling_cop: float
    heating_cop: float
    plate_W_per_K: float | None = None  # None: no plate, one coolant node per module
    plate_heat_capacity_J_per_K: float = 0.0
    plate_neighbour_W_per_K: float = 0.0


# Components of vent gas: molar mass in kg/mol, and whether they burn.
GASES = {
    "hydrogen": (2.016e-3, True),
    "carbon_dioxide": (44.01e-3, False),
    "carbon_monoxide": (28.01e-3, True),
    "methane": (16.04e-3, True),
    "ethylene": (28.05e-3, True),
    "ethane": (30.07e-3, True),
}


@dataclass(frozen=True)
class AbuseDesign:
    """What a pack has to say about abuse: its module as a case of `propagation`, its housing, its gas.

    Parameters
    ----------
    case : name of a propagation case whose cells are those of one module, in the order of the wiring
    housing_* : free gas volume, relief vent (area, over-pressure that opens it), breather that never closes
    gas_temperature_K : of the gas that leaves a cell
    composition : its components (names of `GASES`) by volume, adding up to 1
    ejected_fraction : of a cell's mass gone after its runaway, gas included
    collapsed_cell_ohm : what is left of a cell whose separator has failed, between its terminals
    insulation_after_venting_ohm : of the pack, with soot and electrolyte on its insulators
    """

    case: str
    housing_volume_m3: float
    housing_vent_m2: float
    housing_vent_opens_Pa: float
    housing_breather_m2: float
    gas_temperature_K: float
    ejected_fraction: float
    collapsed_cell_ohm: float
    insulation_after_venting_ohm: float
    composition: dict[str, float]

    @property
    def gas_combustible(self) -> float:
        """Share of the gas that a sensor of combustible gas sees, by volume."""
        return sum(share for name, share in self.composition.items() if GASES[name][1])

    @property
    def gas_kg_per_mol(self) -> float:
        """Mean molar mass of the gas."""
        return sum(share * GASES[name][0] for name, share in self.composition.items())


@dataclass(frozen=True, eq=False)
class PackDesign:
    """One kind of pack: how many cells of which kind, how they are wired, cooled, measured and limited."""

    name: str
    about: str
    cell: CellDesign
    n_modules: int
    groups_per_module: int
    n_parallel: int
    busbar_resistance_ohm: float
    balancing_resistance_ohm: float
    capacity_spread: float
    resistance_spread: float
    soc_spread: float
    charge_current_max_A: float
    discharge_current_max_A: float
    voltage_min_V: float
    voltage_max_V: float
    temperature_min_K: float
    temperature_max_K: float
    sensor_every_groups: int
    precharge_resistance_ohm: float
    link_capacitance_F: float
    thermal: ThermalDesign
    abuse: AbuseDesign | None
    sources: dict[str, str]

    @property
    def n_series(self) -> int:
        """Groups in series."""
        return self.n_modules * self.groups_per_module

    @property
    def n_cells(self) -> int:
        """Cells of the pack."""
        return self.n_series * self.n_parallel

    @property
    def capacity_Ah(self) -> float:
        """Nominal capacity of the string."""
        return self.n_parallel * self.cell.capacity_Ah

    @property
    def nominal_voltage_V(self) -> float:
        """Mean open-circuit voltage between empty and full."""
        ocv_V = np.trapezoid(self.cell.ocv_V, self.cell.ocv_soc)
        return float(self.n_series * ocv_V)

    @property
    def energy_J(self) -> float:
        """Nominal energy: open circuit, from full to empty."""
        return self.nominal_voltage_V * self.capacity_Ah * 3600.0

    @property
    def sensor_groups(self) -> tuple[int, ...]:
        """Groups (from 0) whose first cell carries a temperature sensor."""
        return tuple(range(0, self.n_series, self.sensor_every_groups))
