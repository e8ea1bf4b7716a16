"""The planning engine: a fleet of racks advanced by days in one compiled call, every cell of it.

    from pack_models.catalogue import pack
    from pack_models.fleet import FleetEngine

    fleet = FleetEngine(pack("lfp280_1p240s"), n_packs=24, packs_per_container=12, seed=1)
    day = fleet.run(request_W, outside_K, dt_s=60.0)       # (n_steps, n_converters), (n_steps, n_containers)
    day["soc_high"], day["limited_voltage_s"], fleet.balances()["energy_residual_J"]

Nothing is averaged: the cells, their electrics and temperatures are those of `EcmBank` and
`LumpedThermal`, stepped in the same order with the same compiled functions. Around them, for each step:

1. each pack's end-of-step model V = emf - R I around the current the power asks of its last voltage;
2. the bus of a converter with its packs in parallel, and the bounds of every pack: current limits faded by
   temperature, the current at which the first group meets a voltage limit at the end of the step, the
   current that would leave the permitted charge. A step that meets a bound is shortened in current, not in
   time, and counted with its cause: nothing is ever pushed through a limit, nothing is NaN;
3. cells, temperatures (cooling follows the warmest cell), the air of the container with its HVAC.

What firmware would do is reduced to these bounds (no estimators, no latched faults): studies that need the
real battery management step the world (`twin`). Cells age by modules: the mean charge and temperature of
each module, every step, drive its ageing law; once a day what is left of capacity and grown in resistance
is given to its cells, each with a pace of its own.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pack_models.ageing import AgeingBank
from pack_models.catalogue.design import PackDesign
from pack_models.cells.bank import check_step_s
from pack_models.cells.ecm import EcmBank
from pack_models.cells.ecm_step import SCRATCH_COLUMNS, SCRATCH_STRIDE
from pack_models.compiled import load, structure
from pack_models.fleet.plant import Container, Converter, Limits
from pack_models.layout import Layout
from pack_models.thermal.lumped import LumpedThermal

FloatArray = NDArray[np.float64]

SOURCE = Path(__file__).with_name("fleet_run.c")
BLOCK = 128  # cells of a block, as in ecm_step.c

_POINTER, _INTEGER, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double

PACK_COLUMNS = (
    *("charged_J", "discharged_J", "auxiliary_J"),
    *("limited_current_s", "limited_voltage_s", "limited_charge_s", "limited_temperature_s"),
    *("soc_low", "soc_high", "temperature_low_K", "temperature_high_K", "voltage_low_V", "voltage_high_V"),
)
CONVERTER_COLUMNS = ("requested_J", "ac_charged_J", "ac_discharged_J", "converter_loss_J", "unserved_J")
CONTAINER_COLUMNS = (
    *("hvac_cooled_J", "hvac_heated_J", "hvac_electric_J", "container_heat_in_J", "container_wall_J"),
    *("air_low_K", "air_high_K"),
)


class _Converters(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("container_converter_start", "converter_pack_start")),
        *((name, _POINTER) for name in ("rated_W", "loss")),
        *((name, _REAL) for name in ("volt_first_V", "volt_step_V", "standby")),
        *((name, _INTEGER) for name in ("n_volts", "n_powers", "n_containers")),
    ]


class _Limits(ctypes.Structure):
    _fields_ = [(name, _REAL) for name in Limits.__dataclass_fields__]


class _Container(ctypes.Structure):
    _fields_ = [(name, _REAL) for name in Container.__dataclass_fields__]


class _Work(ctypes.Structure):
    _fields_ = [
        (name, _POINTER)
        for name in (
            *("air_K", "pack_current_A", "cooling", "ambient_K", "emf_V", "resistance_ohm"),
            *("low_A", "high_A", "guess_A", "coldest_K", "hottest_K", "cause", "scratch"),
        )
    ]


class _Totals(ctypes.Structure):
    _fields_ = [(name, _POINTER) for name in ("packs", "converters", "containers", "soc", "kelvin")]


def _starts(n: int, size: int, what: str) -> NDArray[np.int64]:
    if size < 1 or n % size:
        raise ValueError(f"{what} is {size}; expected a divisor of {n}")
    return np.arange(0, n + 1, size, dtype=np.int64)


def converter_structure(
    converter: Converter, n_converters: int, pack_start: NDArray[np.int64], box_start: NDArray[np.int64]
) -> _Converters:
    """Converters for the compiled runs."""
    volts = np.asarray(converter.voltage_V, dtype=float)
    loss = np.ascontiguousarray(converter.loss, dtype=float)
    made: _Converters = structure(
        _Converters,
        container_converter_start=box_start,
        converter_pack_start=pack_start,
        rated_W=np.full(n_converters, float(converter.rated_W)),
        loss=loss,
        volt_first_V=float(volts[0]),
        volt_step_V=float(volts[1] - volts[0]) if volts.size > 1 else 1.0,
        standby=converter.standby,
        n_volts=loss.shape[0],
        n_powers=loss.shape[1],
        n_containers=box_start.size - 1,
    )
    return made


def plain_structure(limits: Limits, container: Container) -> tuple[_Limits, _Container]:
    """Limits and container for the compiled runs."""
    return structure(_Limits, **vars(limits)), structure(_Container, **vars(container))


def check_series(
    request_W: FloatArray, outside_K: FloatArray, n_powers: int, n_outside: int, time_s: float, dt_s: float
) -> tuple[FloatArray, FloatArray]:
    """Both series with one column each for what they drive, every value finite and within reason."""
    request_W = np.ascontiguousarray(request_W, dtype=float)
    outside_K = np.ascontiguousarray(outside_K, dtype=float)
    n_steps = request_W.shape[0]
    for name, given, columns, low, high in (
        ("request_W", request_W, n_powers, -1e12, 1e12),
        ("outside_K", outside_K, n_outside, 150.0, 400.0),
    ):
        if given.shape != (n_steps, columns):
            raise ValueError(f"{name} has shape {given.shape}; expected (n_steps, {columns})")
        wrong = ~((given >= low) & (given <= high))  # NaN is neither
        if wrong.any():
            step, column = (int(k) for k in np.argwhere(wrong)[0])
            raise ValueError(
                f"{name} of column {column} at step {step} ({time_s + step * dt_s:g} s) is "
                f"{given[step, column]:g}; expected {low:g} to {high:g}"
            )
    return request_W, outside_K


class FleetEngine:
    """Packs of one design behind converters in containers.

    Parameters
    ----------
    design : the pack; a rack is a pack
    n_packs : of the fleet
    packs_per_converter, packs_per_container : how they stand together; a container holds whole converters
    converter, limits, container : what stands around them; by default as rated for the design
    ageing : model of `pack_models.ageing`, None for cells that stay new
    soc, temperature_K : at the start
    pace_spread : standard deviation of how fast a cell ages
    seed : of the spread of the cells
    """

    def __init__(
        self,
        design: PackDesign,
        n_packs: int,
        packs_per_converter: int = 1,
        packs_per_container: int = 1,
        converter: Converter | None = None,
        limits: Limits | None = None,
        container: Container | None = None,
        ageing: str | None = "naumann_lfp",
        soc: float = 0.5,
        temperature_K: float = 298.15,
        pace_spread: float = 0.03,
        seed: int = 0,
    ) -> None:
        self.design = design
        self.n_packs = n_packs
        self.layout = Layout.uniform(n_packs, design.n_series, design.n_parallel, design.groups_per_module)
        draw = np.random.default_rng(seed)
        n = self.layout.n_cells

        def spread(sigma: float) -> FloatArray:
            return np.clip(draw.standard_normal(n), -3.5, 3.5) * sigma

        self.cells = EcmBank(
            design.cell,
            self.layout,
            np.clip(soc + spread(design.soc_spread), 0.0, 1.0),
            1.0 + spread(design.capacity_spread),
            1.0 + spread(design.resistance_spread),
            temperature_K,
            design.busbar_resistance_ohm,
            design.balancing_resistance_ohm,
        )
        self.thermal = LumpedThermal(
            design.thermal, design.cell.heat_capacity_J_per_K, self.layout, temperature_K
        )
        self._pace = (1.0 + spread(pace_spread)).astype(np.float32)
        rated_W = design.nominal_voltage_V * max(design.charge_current_max_A, design.discharge_current_max_A)
        self.converter = converter or Converter(rated_W * packs_per_converter)
        self.limits = limits or Limits.of(design)
        self.container = container or Container()
        pack_start = _starts(n_packs, packs_per_converter, "packs_per_converter")
        if packs_per_container % packs_per_converter:
            raise ValueError(
                f"packs_per_container is {packs_per_container}; expected a multiple of {packs_per_converter}"
            )
        box_start = _starts(n_packs, packs_per_container, "packs_per_container") // packs_per_converter
        self.n_converters, self.n_containers = pack_start.size - 1, box_start.size - 1
        self.air_K = np.full(self.n_containers, temperature_K)
        self._converter_of_pack = np.repeat(np.arange(self.n_converters), packs_per_converter)
        self._container_of_pack = np.repeat(np.arange(self.n_containers), packs_per_container)
        self._packs = np.zeros((n_packs, len(PACK_COLUMNS)))
        self._converters = np.zeros((self.n_converters, len(CONVERTER_COLUMNS)))
        self._containers = np.zeros((self.n_containers, len(CONTAINER_COLUMNS)))
        self.time_s = 0.0
        self.ageing = self._ageing(ageing)
        self._module_of_cell_start = self.layout.group_cell_start[self.layout.module_group_start]
        self._build(pack_start, box_start)

    def _ageing(self, name: str | None) -> AgeingBank | None:
        if name is None:
            return None
        return AgeingBank.from_model(
            name, self.layout.n_modules, self._module_mean(self.cells.soc), refresh_every_s=1e12
        )

    def _module_mean(self, per_cell: FloatArray) -> FloatArray:
        starts = self.layout.group_cell_start[self.layout.module_group_start]
        return np.asarray(np.add.reduceat(per_cell, starts[:-1]) / np.diff(starts))

    def _build(self, pack_start: NDArray[np.int64], box_start: NDArray[np.int64]) -> None:
        """Addresses for the compiled run."""
        n_packs = self.layout.n_packs
        per_block = 1 if self.design.n_parallel >= BLOCK else BLOCK // self.design.n_parallel
        blocks = -(-self.design.n_series // per_block) * int(pack_start[1])
        raw = np.zeros(blocks * SCRATCH_COLUMNS * SCRATCH_STRIDE + 8)
        shift = (-raw.ctypes.data // 8) % 8
        self._structures = (
            converter_structure(self.converter, self.n_converters, pack_start, box_start),
            *plain_structure(self.limits, self.container),
            structure(
                _Work,
                air_K=self.air_K,
                pack_current_A=self.cells.pack_current_A,
                cooling=np.zeros(n_packs),
                ambient_K=np.zeros(n_packs),
                emf_V=np.zeros(n_packs),
                resistance_ohm=np.zeros(n_packs),
                low_A=np.zeros(n_packs),
                high_A=np.zeros(n_packs),
                guess_A=np.zeros(n_packs),
                coldest_K=np.zeros(n_packs),
                hottest_K=np.zeros(n_packs),
                cause=np.zeros(n_packs, dtype=np.int64),
                scratch=raw[shift : shift + raw.size - 8],
            ),
        )
        self._run = load(SOURCE).fleet_run
        self._run.restype = None
        self._run.argtypes = [*[_POINTER] * 11, _INTEGER, _POINTER, _POINTER]

    def run(self, request_W: FloatArray, outside_K: FloatArray, dt_s: float) -> dict[str, FloatArray]:
        """Advance by n_steps of dt_s, age, and return what happened.

        Parameters
        ----------
        request_W : (n_steps, n_converters) AC power asked, positive on discharge
        outside_K : (n_steps, n_containers)
        dt_s : 1 s to 15 min

        Returns
        -------
        (n_packs,) sums and extremes over the call by name: PACK_COLUMNS, CONVERTER_COLUMNS and
        CONTAINER_COLUMNS (those of a converter or container repeated for each of its packs), and at the end
        soc, temperature_K (means), soh_capacity, soh_resistance (means), cycles, hours_outside
        """
        check_step_s(dt_s)
        request_W, outside_K = check_series(
            request_W, outside_K, self.n_converters, self.n_containers, self.time_s, dt_s
        )
        n_steps = request_W.shape[0]
        self._empty_sums()
        n_modules = self.layout.n_modules if self.ageing else 0
        soc, kelvin = np.empty((n_steps, n_modules)), np.empty((n_steps, n_modules))
        totals = structure(
            _Totals,
            packs=self._packs,
            converters=self._converters,
            containers=self._containers,
            soc=soc if self.ageing else None,
            kelvin=kelvin if self.ageing else None,
        )
        converters, limits, container, work = map(ctypes.addressof, self._structures)
        self._run(
            *self.cells.addresses(dt_s),
            *self.thermal.addresses(),
            converters,
            limits,
            container,
            work,
            ctypes.addressof(totals),
            n_steps,
            request_W.ctypes.data,
            outside_K.ctypes.data,
        )
        self.time_s += n_steps * dt_s
        if self.ageing is not None:
            for k in range(n_steps):
                self.ageing.accumulate(soc[k], kelvin[k], dt_s)
            self._age()
        return self._rows()

    def _empty_sums(self) -> None:
        for table in (self._packs, self._converters, self._containers):
            table[:] = 0.0
        for table, columns in ((self._packs, PACK_COLUMNS), (self._containers, CONTAINER_COLUMNS)):
            for k, name in enumerate(columns):
                if "_low" in name:
                    table[:, k] = np.inf
                elif "_high" in name:
                    table[:, k] = -np.inf

    def _age(self) -> None:
        """What the modules lost, given to their cells at each cell's pace."""
        bank = self.ageing
        assert bank is not None
        bank.refresh()
        per_module = np.diff(self._module_of_cell_start)
        lost = np.repeat(1.0 - bank.capacity_factor, per_module) * self._pace
        grown = np.repeat(bank.resistance_factor - 1.0, per_module) * self._pace
        self.cells.set_health(np.maximum(1.0 - lost, 0.01), 1.0 + grown)

    def _rows(self) -> dict[str, FloatArray]:
        layout = self.layout
        rows = {name: self._packs[:, k].copy() for k, name in enumerate(PACK_COLUMNS)}
        for k, name in enumerate(CONVERTER_COLUMNS):
            rows[name] = self._converters[self._converter_of_pack, k]
        for k, name in enumerate(CONTAINER_COLUMNS):
            rows[name] = self._containers[self._container_of_pack, k]
        count = np.diff(layout.pack_cell_start)
        for name, values in (("soc", self.cells.soc), ("temperature_K", self.thermal.temperature_K)):
            rows[name] = np.add.reduceat(values, layout.pack_cell_start[:-1]) / count
        n_packs, modules = layout.n_packs, layout.pack_module_start
        if self.ageing is None:
            rows |= {"soh_capacity": np.ones(n_packs), "soh_resistance": np.ones(n_packs)}
            rows |= {"cycles": np.zeros(n_packs), "hours_outside": np.zeros(n_packs)}
            return rows
        bank, per_pack = self.ageing, np.diff(modules)
        for name, values in (
            ("soh_capacity", bank.capacity_factor),
            ("soh_resistance", bank.resistance_factor),
            ("cycles", bank.cycles),
        ):
            rows[name] = np.add.reduceat(values, modules[:-1]) / per_pack
        outside = bank.outside()
        hours = outside["colder_h"] + outside["hotter_h"]
        rows["hours_outside"] = np.maximum.reduceat(hours, modules[:-1])
        return rows

    def bytes_per_cell(self) -> float:
        """Memory of all state, per cell."""
        held = [*self.cells._state().values(), *self.thermal._state().values(), self._pace]
        total = sum(array.nbytes for array in held)
        if self.ageing is not None:
            total += self.ageing.bytes_per_cell * self.ageing.n_cells
        return float(total / self.layout.n_cells)

    def balances(self) -> dict[str, FloatArray]:
        """Ledgers of cells and temperatures since the start, per pack; see those classes."""
        cells, thermal = self.cells.balances(), self.thermal.balances()
        return {**cells, **{f"thermal_{name}": values for name, values in thermal.items()}}

    def get_state(self) -> dict[str, Any]:
        """Everything a run needs to go on, as copies."""
        return {
            "cells": self.cells.get_state(),
            "thermal": self.thermal.get_state(),
            "ageing": None if self.ageing is None else self.ageing.get_state(),
            "air_K": self.air_K.copy(),
            "time_s": self.time_s,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, bit for bit."""
        self.cells.set_state(state["cells"])
        self.thermal.set_state(state["thermal"])
        if self.ageing is not None:
            self.ageing.set_state(state["ageing"])
        self.air_K[:] = state["air_K"]
        self.time_s = float(state["time_s"])
