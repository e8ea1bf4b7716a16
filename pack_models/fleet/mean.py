"""The planning rung `mean`: a rack is one mean cell with the spread of its cells, some hundred times faster.

    fleet = MeanFleet(pack("lfp280_1p240s"), n_packs=1000)
    day = fleet.run(request_W, outside_K, dt_s=60.0)            # (n_steps, n_packs) both

Another fidelity than `FleetEngine`, by choice and by name, never by itself. What is kept: circuit with
hysteresis, converter with its map, limits, coolant, container air with HVAC, ageing, books of power. What is
reduced, and how:

- the cells of a rack are one cell at the mean; the weakest is z standard deviations away, z the expected
  extreme of so many normal draws. It stands lower by the slope of the open circuit times its lag in charge
  (spread at the start, and what cells of other capacity part on the way) and by its resistance: that margin
  narrows the voltage limits;
- the plate is one node with its fluid, the outlet as much warmer than the middle of the stream as the middle
  is than the inlet; the hottest cell is warmer than the mean by that;
- a rack breathes its own share of a container; one rack per converter;
- ageing changes capacity and resistance, the open circuit stays that of the fresh cell; the law sees charge
  and temperature every `ageing_every_s`, not every step, and all cells age at one pace.

How far this is from all cells is measured in `tests/unit/pack_models/test_fleet_mean.py`.
"""

from __future__ import annotations

import ctypes
import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from pack_models.ageing import AgeingBank
from pack_models.catalogue.design import CellDesign, PackDesign
from pack_models.cells.bank import check_step_s
from pack_models.cells.ecm import EcmBank
from pack_models.compiled import load, structure
from pack_models.fleet.engine import check_series, converter_structure, plain_structure
from pack_models.fleet.plant import Container, Converter, Limits
from pack_models.layout import Layout

FloatArray = NDArray[np.float64]

SOURCE = Path(__file__).with_name("mean_run.c")
COLUMNS = (
    *("charged_J", "discharged_J", "requested_J", "ac_charged_J", "ac_discharged_J", "converter_loss_J"),
    *("unserved_J", "cell_heat_J", "auxiliary_J", "hvac_electric_J"),
    *("limited_current_s", "limited_voltage_s", "limited_charge_s", "limited_temperature_s"),
    *("soc_low", "soc_high", "temperature_low_K", "temperature_high_K", "voltage_low_V", "voltage_high_V"),
)

_POINTER, _INTEGER, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class _Rack(ctypes.Structure):
    _fields_ = [
        *((name, _REAL) for name in ("n_series", "n_parallel", "busbar_ohm")),
        *((name, _REAL) for name in ("sigma_resistance", "sigma_capacity", "z")),
        *((name, _REAL) for name in ("cell_J_per_K", "coolant_J_per_K", "plate", "film", "film_idle")),
        *((name, _REAL) for name in ("flow", "flow_idle", "outlet", "ambient")),
        *((name, _REAL) for name in ("supply_K", "fan_W", "cooling_cop", "heating_cop")),
        ("racks_per_container", _REAL),
        ("stream", _INTEGER),
    ]


class _Means(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("kelvin", "coolant_K", "air_K", "volts", "balance_soc", "sigma_soc")),
        *((name, _POINTER) for name in ("soc_out", "kelvin_out", "sums")),
        *((name, _INTEGER) for name in ("n_racks", "every")),
    ]


def _without_aged_curves(cell: CellDesign) -> CellDesign:
    """The cell with the open circuit of a fresh one at any age."""
    return dataclasses.replace(
        cell,
        aged_soh=np.zeros(0),
        aged_ocv_V=np.zeros((0, cell.ocv_soc.size)),
        aged_resistance_shape=np.zeros((0, cell.table_soc.size)),
    )


class MeanFleet:
    """Racks of one design, each a mean cell; parameters as for `FleetEngine`.

    packs_per_container : racks that share the figures of `container`
    ageing_every_s : how often the ageing law sees charge and temperature
    """

    def __init__(
        self,
        design: PackDesign,
        n_packs: int,
        packs_per_container: int = 1,
        converter: Converter | None = None,
        limits: Limits | None = None,
        container: Container | None = None,
        ageing: str | None = "naumann_lfp",
        soc: float = 0.5,
        temperature_K: float = 298.15,
        ageing_every_s: float = 900.0,
    ) -> None:
        self.design = design
        self.n_packs = self.n_converters = self.n_containers = n_packs
        self.cells = EcmBank(
            _without_aged_curves(design.cell),
            Layout.uniform(n_packs, 1, 1, 1),
            soc,
            temperature_K=temperature_K,
        )
        rated_W = design.nominal_voltage_V * max(design.charge_current_max_A, design.discharge_current_max_A)
        self.converter = converter or Converter(rated_W)
        self.limits, self.container = limits or Limits.of(design), container or Container()
        self.temperature_K, self.coolant_K = np.full((2, n_packs), temperature_K)
        self.air_K = np.full(n_packs, temperature_K)
        self._volts = self.cells.group_voltage_V.copy()
        self._balance_soc = np.full(n_packs, soc)
        self._sigma_soc = np.full(n_packs, design.soc_spread)
        self._sums = np.zeros((len(COLUMNS), n_packs))
        self._every_s = ageing_every_s
        self.ageing = (
            None
            if ageing is None
            else AgeingBank.from_model(ageing, n_packs, self.cells.soc.copy(), refresh_every_s=1e12)
        )
        self.time_s = 0.0
        self._structures = (
            converter_structure(self.converter, n_packs, np.arange(2), np.arange(2)),
            *plain_structure(self.limits, self.container),
            self._rack(packs_per_container),
        )
        self._run = load(SOURCE).mean_run
        self._run.restype = None
        self._run.argtypes = [*[_POINTER] * 7, _INTEGER, _POINTER, _POINTER, _POINTER]

    def _rack(self, packs_per_container: int) -> _Rack:
        pack, heat = self.design, self.design.thermal
        groups = pack.groups_per_module
        per_module = groups * pack.n_parallel
        streaming = heat.plate_W_per_K is not None
        made: _Rack = structure(
            _Rack,
            n_series=pack.n_series,
            n_parallel=pack.n_parallel,
            busbar_ohm=pack.busbar_resistance_ohm,
            sigma_resistance=pack.resistance_spread / np.sqrt(pack.n_parallel),
            sigma_capacity=pack.capacity_spread / np.sqrt(pack.n_parallel),
            z=float(ndtri(1.0 - 0.56 / pack.n_series)),  # mean of the largest of n normal draws (Blom)
            cell_J_per_K=pack.cell.heat_capacity_J_per_K,
            coolant_J_per_K=(heat.coolant_heat_capacity_J_per_K + heat.plate_heat_capacity_J_per_K)
            / per_module,
            plate=heat.plate_W_per_K or 0.0,
            film=heat.coolant_W_per_K,
            film_idle=heat.coolant_idle_W_per_K,
            flow=heat.coolant_flow_W_per_K / per_module,
            flow_idle=heat.coolant_flow_idle_W_per_K / per_module,
            outlet=2.0 if streaming else 1.0,
            ambient=heat.ambient_W_per_K + 2.0 * heat.module_end_W_per_K / groups,
            supply_K=heat.supply_temperature_K or 0.0,
            fan_W=heat.fan_power_W,
            cooling_cop=heat.cooling_cop,
            heating_cop=heat.heating_cop,
            racks_per_container=packs_per_container,
            stream=int(streaming),
        )
        return made

    def run(self, request_W: FloatArray, outside_K: FloatArray, dt_s: float) -> dict[str, FloatArray]:
        """Advance by n_steps of dt_s, age, and return (n_packs,) sums and extremes by name.

        request_W, outside_K : (n_steps, n_packs) AC power asked, positive on discharge; air outside. A call
        must be a whole number of looks of the ageing law.
        """
        check_step_s(dt_s)
        request_W, outside_K = check_series(
            request_W, outside_K, self.n_packs, self.n_packs, self.time_s, dt_s
        )
        n_steps, every = request_W.shape[0], max(1, round(self._every_s / dt_s))
        if self.ageing is not None and n_steps % every:
            raise ValueError(
                f"{n_steps} steps are no multiple of the {every} steps between two looks of ageing"
            )
        self._sums[:] = 0.0
        for k, name in enumerate(COLUMNS):
            if "_low" in name or "_high" in name:
                self._sums[k] = np.inf if "_low" in name else -np.inf
        looks = np.empty((2, n_steps // every, self.n_packs)) if self.ageing is not None else None
        means = structure(
            _Means,
            kelvin=self.temperature_K,
            coolant_K=self.coolant_K,
            air_K=self.air_K,
            volts=self._volts,
            balance_soc=self._balance_soc,
            sigma_soc=self._sigma_soc,
            soc_out=None if looks is None else looks[0],
            kelvin_out=None if looks is None else looks[1],
            sums=self._sums,
            n_racks=self.n_packs,
            every=every,
        )
        tables, _, cells, _ = self.cells.addresses(dt_s)
        converters, limits, container, rack = map(ctypes.addressof, self._structures)
        self._run(
            *(tables, cells, converters, limits, container, rack, ctypes.addressof(means)),
            *(n_steps, request_W.ctypes.data, outside_K.ctypes.data, self.cells.scratch_address),
        )
        self.time_s += n_steps * dt_s
        rows = {name: self._sums[k].copy() for k, name in enumerate(COLUMNS)}
        rows |= {"soc": self.cells.soc.copy(), "temperature_K": self.temperature_K.copy()}
        return rows | self._age(looks, every * dt_s)

    def _age(self, looks: FloatArray | None, every_s: float) -> dict[str, FloatArray]:
        """What ageing says of the racks, given to their cells."""
        bank = self.ageing
        if bank is None or looks is None:
            ones = np.ones(self.n_packs)
            return {"soh_capacity": ones, "soh_resistance": ones.copy(), "cycles": 0.0 * ones}
        for soc, kelvin in zip(*looks, strict=True):
            bank.accumulate(soc, kelvin, every_s)
        bank.refresh()
        self.cells.set_health(bank.capacity_factor, bank.resistance_factor)
        return {
            "soh_capacity": bank.capacity_factor.copy(),
            "soh_resistance": bank.resistance_factor.copy(),
            "cycles": bank.cycles.copy(),
        }
