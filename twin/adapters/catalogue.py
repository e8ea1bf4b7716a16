"""The catalogue of pack_models, as data sheets the rest of twin reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class PackSheet:
    """Data sheet of a pack design. Groups count from 1; currents are continuous limits, positive."""

    name: str
    about: str
    n_series: int
    n_parallel: int
    capacity_Ah: float
    energy_J: float
    nominal_voltage_V: float
    voltage_min_V: float  # per cell
    voltage_max_V: float
    temperature_min_K: float
    temperature_max_K: float
    charge_limit_A: float
    discharge_limit_A: float
    balancing_resistance_ohm: float
    sensor_group: tuple[int, ...]
    precharge_time_constant_s: float
    capacity_spread: float
    resistance_spread: float
    soc_spread: float
    ocv_soc: tuple[float, ...]
    ocv_V: tuple[float, ...]
    cell: str
    cell_mass_kg: float
    cell_heat_capacity_J_per_K: float
    busbar_resistance_ohm: float
    abuse: bool = False  # whether the catalogue knows how its modules run away

    @property
    def power_W(self) -> float:
        """What a converter for this pack is rated at: the larger continuous limit at nominal voltage."""
        return self.nominal_voltage_V * max(self.charge_limit_A, self.discharge_limit_A)


OCV_POINTS = 101


@lru_cache(maxsize=1)
def pack_sheets() -> dict[str, PackSheet]:
    """All pack designs by name."""
    from pack_models.catalogue import pack, pack_names

    sheets = {}
    for name in pack_names():
        design = pack(name)
        soc = np.linspace(0.0, 1.0, OCV_POINTS)
        ocv_V = np.interp(soc, design.cell.ocv_soc, design.cell.ocv_V)
        sheets[name] = PackSheet(
            name=name,
            about=design.about,
            n_series=design.n_series,
            n_parallel=design.n_parallel,
            capacity_Ah=design.capacity_Ah,
            energy_J=design.energy_J,
            nominal_voltage_V=design.nominal_voltage_V,
            voltage_min_V=design.voltage_min_V,
            voltage_max_V=design.voltage_max_V,
            temperature_min_K=design.temperature_min_K,
            temperature_max_K=design.temperature_max_K,
            charge_limit_A=design.charge_current_max_A,
            discharge_limit_A=design.discharge_current_max_A,
            balancing_resistance_ohm=design.balancing_resistance_ohm,
            sensor_group=tuple(group + 1 for group in design.sensor_groups),
            precharge_time_constant_s=design.precharge_resistance_ohm * design.link_capacitance_F,
            capacity_spread=design.capacity_spread,
            resistance_spread=design.resistance_spread,
            soc_spread=design.soc_spread,
            ocv_soc=tuple(soc.tolist()),
            ocv_V=tuple(ocv_V.tolist()),
            cell=design.cell.name,
            cell_mass_kg=design.cell.mass_kg,
            cell_heat_capacity_J_per_K=design.cell.heat_capacity_J_per_K,
            busbar_resistance_ohm=design.busbar_resistance_ohm,
            abuse=design.abuse is not None,
        )
    return sheets
