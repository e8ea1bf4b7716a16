"""Lumped thermal network of packs: one node per cell, coolant mixed in a module or streaming along a plate.

A cell of heat capacity C conducts to its neighbours in the module (another conductance in series direction
than in parallel), to the coolant of the module and to the ambient; the first and last group of a module lose
more through its end plates. What the coolant is depends on the design:

- *mixed*: one node per module (the air between cells, plate and fluid in one) takes up the heat of its cells
  and gives it to a stream that enters at the supply temperature;
- *streaming* (designs with `plate_W_per_K`): every group stands on its piece of a cold plate, which conducts
  to the next piece and to the fluid below; the fluid passes the groups in their order and warms on the way.

The supply is outside air, or a set-point held by a chiller and a heater, whose electric power counts as
auxiliary. `cooling` 0…1 moves film conductance and flow between their idle and full values; fan or pump
power goes with its cube (affinity law). Heat in W, positive into the cell; conductances in W/K, those of
cells, plate and film per cell, capacities of plate and coolant and the flow per module.

    C dT/dt   = q + series and parallel neighbours + k_plate (P - T) + k_ambient (T_ambient - T)
    C_p dP/dt = sum k_plate (T - P) + k_next (P_before + P_after - 2 P) + k_film (F - P)
    C_f dF/dt = k_film (P - F) + flow (F_before - F)

    thermal = LumpedThermal.from_pack(pack("bus_14s2p"), n_packs=4, temperature_K=298.15)
    thermal.step(bank.heat_W, ambient_K=np.full(4, 303.15), cooling=np.full(4, 0.5), dt_s=1.0)

Implicit in time (first order), so any step is stable: all flows are those at the end of the step, and what
leaves one node enters another to rounding. The compiled step is `lumped_step.c`.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pack_models.catalogue.design import PackDesign, ThermalDesign
from pack_models.cells.bank import check_step_s, per_item, restore
from pack_models.compiled import load, structure
from pack_models.layout import Layout

FloatArray = NDArray[np.float64]


SOURCE = Path(__file__).with_name("lumped_step.c")
LANES = 8  # modules that go through the compiled step together

_POINTER, _INTEGER, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class Network(ctypes.Structure):
    """Offsets, conductances and capacities, as in `lumped_step.c`."""

    _fields_ = [
        *((name, _POINTER) for name in ("pack_module_start", "module_group_start", "modes", "decay")),
        *((name, _INTEGER) for name in ("n_packs", "n_parallel", "stream")),
        *((name, _REAL) for name in ("cell_J_per_K", "series", "coolant", "coolant_idle", "ambient")),
        *((name, _REAL) for name in ("module_end", "coolant_J_per_K", "flow", "flow_idle", "supply_K")),
        *((name, _REAL) for name in ("fan_W", "cooling_cop", "heating_cop")),
        *((name, _REAL) for name in ("plate", "plate_J_per_K", "plate_series")),
    ]


class Nodes(ctypes.Structure):
    """State, results and work space, as in `lumped_step.c`."""

    _fields_ = [
        (name, _POINTER)
        for name in ("temperature_K", "coolant_K", "plate_K", "auxiliary_W", "ledger", "work", "active")
    ]


def library() -> Any:
    """The compiled function, with its argument types."""
    compiled = load(SOURCE)
    step = compiled.lumped_step
    step.restype = None
    step.argtypes = [_POINTER, _POINTER, _INTEGER, _INTEGER, _POINTER, _POINTER, _POINTER, _REAL]
    return compiled


def path_modes(n: int) -> tuple[FloatArray, FloatArray]:
    """Orthonormal modes (columns) and eigenvalues of a chain of n nodes with unit conductances."""
    number, place = np.arange(n), np.arange(n) + 0.5
    modes = np.cos(np.pi * np.outer(place, number) / n) * np.sqrt(2.0 / n)
    modes[:, 0] = np.sqrt(1.0 / n)
    return modes, 2.0 - 2.0 * np.cos(np.pi * number / n)


class LumpedThermal:
    """Thermal network of packs of one thermal design.

    Parameters
    ----------
    design : heat paths
    cell_heat_capacity_J_per_K : of one cell
    layout : wiring; all packs must have the same number of cells in parallel
    temperature_K : (n_cells,) or one number at the start; the coolant starts at the mean of its module

    Attributes
    ----------
    temperature_K : (n_cells,)
    coolant_K : (n_modules,) mixed, or (n_groups,) streaming
    plate_K : (n_groups,) streaming, or empty
    auxiliary_W : (n_packs,) in the last step
    to_ambient_J : (n_packs,) since the start
    """

    def __init__(
        self,
        design: ThermalDesign,
        cell_heat_capacity_J_per_K: float,
        layout: Layout,
        temperature_K: ArrayLike,
    ) -> None:
        if (layout.n_parallel != layout.n_parallel[0]).any():
            raise ValueError("all packs of a thermal network must have the same number of cells in parallel")
        self.design, self.layout = design, layout
        n_parallel = int(layout.n_parallel[0])
        modes, eigenvalue = path_modes(n_parallel)
        if not cell_heat_capacity_J_per_K > 0.0 or not design.coolant_heat_capacity_J_per_K > 0.0:
            raise ValueError("heat capacities of cell and coolant must be more than 0")
        self.streaming = design.plate_W_per_K is not None
        self._cell_J_per_K = float(cell_heat_capacity_J_per_K)
        self._net = structure(
            Network,
            pack_module_start=layout.pack_module_start,
            module_group_start=layout.module_group_start,
            modes=np.ascontiguousarray(modes),
            decay=design.parallel_neighbour_W_per_K * eigenvalue,
            n_packs=layout.n_packs,
            n_parallel=n_parallel,
            stream=int(self.streaming),
            cell_J_per_K=self._cell_J_per_K,
            series=design.series_neighbour_W_per_K,
            coolant=design.coolant_W_per_K,
            coolant_idle=design.coolant_idle_W_per_K,
            ambient=design.ambient_W_per_K,
            module_end=design.module_end_W_per_K,
            coolant_J_per_K=design.coolant_heat_capacity_J_per_K,
            flow=design.coolant_flow_W_per_K,
            flow_idle=design.coolant_flow_idle_W_per_K,
            supply_K=np.nan if design.supply_temperature_K is None else design.supply_temperature_K,
            fan_W=design.fan_power_W,
            cooling_cop=design.cooling_cop,
            heating_cop=design.heating_cop,
            plate=design.plate_W_per_K or 0.0,
            plate_J_per_K=design.plate_heat_capacity_J_per_K,
            plate_series=design.plate_neighbour_W_per_K,
        )
        self.temperature_K = per_item("temperature_K", temperature_K, layout.n_cells, "cell", 0.0)
        starts, n_groups = layout.group_cell_start[:-1], np.diff(layout.module_group_start)
        group_K = np.add.reduceat(self.temperature_K, starts) / n_parallel
        module_K = np.add.reduceat(group_K, layout.module_group_start[:-1]) / n_groups
        self.coolant_K = np.repeat(module_K, n_groups) if self.streaming else module_K
        self.plate_K = self.coolant_K.copy() if self.streaming else np.zeros(0)
        self.auxiliary_W = np.zeros(layout.n_packs)
        self._ledger = np.zeros((layout.n_packs, 4))
        self._active = np.ones(n_groups.size, dtype=np.bool_)
        self._left_J = np.zeros(n_groups.size)
        self.to_ambient_J = self._ledger[:, 1]
        self._temperature_from_K, self._coolant_from_K = self.temperature_K.copy(), self.coolant_K.copy()
        self._plate_from_K = self.plate_K.copy()
        longest = int(n_groups.max())
        # Lanes of modes, their eliminations, and what the coolant adds; aligned to a cache line.
        raw = np.zeros(LANES * longest * (2 * n_parallel + 9) + 8)
        shift = (-raw.ctypes.data // 8) % 8
        self._nodes = structure(
            Nodes,
            temperature_K=self.temperature_K,
            coolant_K=self.coolant_K,
            plate_K=self.plate_K,
            auxiliary_W=self.auxiliary_W,
            ledger=self._ledger,
            work=raw[shift : shift + raw.size - 8],
            active=self._active,
        )
        self._library = library()
        self._net_at, self._nodes_at = ctypes.addressof(self._net), ctypes.addressof(self._nodes)

    @classmethod
    def from_pack(cls, pack: PackDesign, n_packs: int, temperature_K: ArrayLike) -> LumpedThermal:
        """The network of `n_packs` packs of one catalogue design."""
        layout = Layout.uniform(n_packs, pack.n_series, pack.n_parallel, pack.groups_per_module)
        return cls(pack.thermal, pack.cell.heat_capacity_J_per_K, layout, temperature_K)

    def step(self, heat_W: FloatArray, ambient_K: FloatArray, cooling: FloatArray, dt_s: float) -> None:
        """Advance by dt_s with heat, ambient and cooling held.

        Parameters
        ----------
        heat_W : (n_cells,) positive into the cell
        ambient_K : (n_packs,)
        cooling : (n_packs,) 0…1
        """
        check_step_s(dt_s)
        heat_W = np.ascontiguousarray(heat_W, dtype=float)
        if heat_W.shape != self.temperature_K.shape:
            raise ValueError(f"heat_W has shape {heat_W.shape}; expected {self.temperature_K.shape}")
        if not np.isfinite(heat_W.sum()):
            bad = int(np.argmax(~np.isfinite(heat_W)))
            where = f"cell {bad} ({self.layout.cell_name(bad)})"
            raise ValueError(f"heat of {where} is {heat_W[bad]:g} W; expected a finite number")
        n_packs = self.layout.n_packs
        ambient_K = np.ascontiguousarray(np.broadcast_to(np.asarray(ambient_K, dtype=float), (n_packs,)))
        cooling = np.ascontiguousarray(np.broadcast_to(np.asarray(cooling, dtype=float), (n_packs,)))
        for name, value, low, high in (
            ("ambient_K", ambient_K, 100.0, 3000.0),
            ("cooling", cooling, 0.0, 1.0),
        ):
            wrong = ~((value >= low) & (value <= high))  # NaN is neither
            if wrong.any():
                bad = int(np.flatnonzero(wrong)[0])
                raise ValueError(f"{name} of pack {bad} is {value[bad]:g}; expected {low:g} to {high:g}")
        self._library.lumped_step(
            self._net_at,
            self._nodes_at,
            0,
            n_packs,
            heat_W.ctypes.data,
            ambient_K.ctypes.data,
            cooling.ctypes.data,
            float(dt_s),
        )

    def addresses(self) -> tuple[int, int]:
        """Where network and nodes stand, for compiled code that advances them; valid while this lives."""
        return self._net_at, self._nodes_at

    def release(self, first_cell: int) -> None:
        """Leave the module that begins with this cell to another model.

        Its cells and coolant keep their temperatures here unless somebody writes them; what they had stored
        until now stays in the books.
        """
        starts = self.layout.group_cell_start[self.layout.module_group_start[:-1]]
        found = np.flatnonzero(starts == first_cell)
        if found.size != 1 or not self._active[found[0]]:
            raise ValueError(f"no module of this network begins with cell {first_cell}")
        module = int(found[0])
        self._left_J[module] = self._stored_J()[module]
        self._active[module] = False

    def _stored_J(self) -> FloatArray:
        """(n_modules,) since the start, from the temperatures."""
        layout, design = self.layout, self.design
        groups = layout.module_group_start[:-1]
        starts = layout.group_cell_start[groups]
        stored_J = self._cell_J_per_K * np.add.reduceat(self.temperature_K - self._temperature_from_K, starts)
        if self.streaming:
            per_group = 1.0 / np.diff(layout.module_group_start)[layout.group_module]
            for node_K, from_K, capacity in (
                (self.coolant_K, self._coolant_from_K, design.coolant_heat_capacity_J_per_K),
                (self.plate_K, self._plate_from_K, design.plate_heat_capacity_J_per_K),
            ):
                stored_J += np.add.reduceat(capacity * per_group * (node_K - from_K), groups)
        else:
            stored_J += design.coolant_heat_capacity_J_per_K * (self.coolant_K - self._coolant_from_K)
        return np.asarray(stored_J)

    def balances(self) -> dict[str, FloatArray]:
        """Cumulative ledgers per pack in J, (n_packs,) each.

        energy_heat_in_J = energy_to_ambient_J + energy_to_coolant_J + energy_stored_J + residual, the
        stored part from the temperatures alone. energy_auxiliary_J is electric and not part of the sum.
        """
        per_module_J = np.where(self._active, self._stored_J(), self._left_J)
        stored_J = np.add.reduceat(per_module_J, self.layout.pack_module_start[:-1])
        heat_J, ambient_J, coolant_J, auxiliary_J = (column.copy() for column in self._ledger.T)
        return {
            "energy_heat_in_J": heat_J,
            "energy_to_ambient_J": ambient_J,
            "energy_to_coolant_J": coolant_J,
            "energy_stored_J": stored_J,
            "energy_auxiliary_J": auxiliary_J,
            "energy_residual_J": heat_J - ambient_J - coolant_J - stored_J,
        }

    def _state(self) -> dict[str, NDArray]:
        return {
            "temperature_K": self.temperature_K,
            "coolant_K": self.coolant_K,
            "plate_K": self.plate_K,
            "auxiliary_W": self.auxiliary_W,
            "ledger": self._ledger,
            "temperature_from_K": self._temperature_from_K,
            "coolant_from_K": self._coolant_from_K,
            "plate_from_K": self._plate_from_K,
            "active": self._active,
            "left_J": self._left_J,
        }

    def get_state(self) -> dict[str, NDArray]:
        """Everything a run needs to go on, as copies."""
        return {name: array.copy() for name, array in self._state().items()}

    def set_state(self, state: dict[str, NDArray]) -> None:
        """Go on from a saved state, bit for bit."""
        restore(self._state(), state, "LumpedThermal")
