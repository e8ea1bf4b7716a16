"""Temperatures of all cells of a shard: one node per cell, one coolant node per module.

A cell of heat capacity C conducts to its neighbours in the module, to the coolant node of the module and
to the ambient; the first and last group of a module lose more through its end plates. The coolant node
(plate and fluid, or the air between cells) takes up the heat of its cells and gives it to a stream that
enters at the supply temperature: outside air, or a set-point held by a chiller and a heater, whose
electric power counts as auxiliary.

`cooling` 0…1 moves the film conductance and the flow between their idle and full values; fan or pump
power goes with its cube (affinity law). Heat in W, positive into the cell; conductances in W/K.

    thermal = LumpedThermal.from_pack(pack("bus_14s2p"), n_packs=4, temperature_K=298.15)
    thermal.step(bank.heat_W, ambient_K=np.full(4, 303.15), cooling=np.full(4, 0.5), dt_s=1.0)

Implicit in time (first order), so any step is stable; see `pack_models.thermal.lumped_kernel`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pack_models.catalogue.design import PackDesign, ThermalDesign
from pack_models.cells.bank import check_step_s, per_item, restore
from pack_models.layout import Layout
from pack_models.thermal import lumped_kernel as kernel

FloatArray = NDArray[np.float64]


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
    temperature_K : (n_cells,) · coolant_K : (n_modules,) · auxiliary_W : (n_packs,) in the last step
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
        self._net = kernel.Network(
            pack_module_start=layout.pack_module_start,
            module_group_start=layout.module_group_start,
            group_cell_start=layout.group_cell_start,
            modes=modes,
            decay=design.parallel_neighbour_W_per_K * eigenvalue,
            cell_J_per_K=float(cell_heat_capacity_J_per_K),
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
        )
        if not cell_heat_capacity_J_per_K > 0.0 or not design.coolant_heat_capacity_J_per_K > 0.0:
            raise ValueError("heat capacities of cell and coolant must be more than 0")
        self.temperature_K = per_item("temperature_K", temperature_K, layout.n_cells, "cell", 0.0)
        per_module = np.diff(layout.module_group_start) * n_parallel
        starts = layout.group_cell_start[layout.module_group_start[:-1]]
        self.coolant_K = np.add.reduceat(self.temperature_K, starts) / per_module
        self.auxiliary_W = np.zeros(layout.n_packs)
        self._ledger = np.zeros((layout.n_packs, kernel.LEDGER_COLUMNS))
        self._temperature_from_K, self._coolant_from_K = self.temperature_K.copy(), self.coolant_K.copy()
        longest = int(np.diff(layout.module_group_start).max())
        self._work, self._chain = np.zeros((2, longest, n_parallel)), np.zeros((2, longest))

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
        kernel.step_kernel(
            self._net,
            self.temperature_K,
            self.coolant_K,
            self.auxiliary_W,
            self._ledger,
            heat_W,
            ambient_K,
            cooling,
            float(dt_s),
            self._work,
            self._chain,
        )

    def balances(self) -> dict[str, FloatArray]:
        """Cumulative ledgers per pack in J, (n_packs,) each.

        energy_heat_in_J = energy_to_ambient_J + energy_to_coolant_J + energy_stored_J + residual, the
        stored part from the temperatures alone. energy_auxiliary_J is electric and not part of the sum.
        """
        layout, net = self.layout, self._net
        cells = np.add.reduceat(self.temperature_K - self._temperature_from_K, layout.pack_cell_start[:-1])
        fluid = np.add.reduceat(self.coolant_K - self._coolant_from_K, layout.pack_module_start[:-1])
        stored_J = net.cell_J_per_K * cells + net.coolant_J_per_K * fluid
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
            "auxiliary_W": self.auxiliary_W,
            "ledger": self._ledger,
            "temperature_from_K": self._temperature_from_K,
            "coolant_from_K": self._coolant_from_K,
        }

    def get_state(self) -> dict[str, NDArray]:
        """Everything a run needs to go on, as copies."""
        return {name: array.copy() for name, array in self._state().items()}

    def set_state(self, state: dict[str, NDArray]) -> None:
        """Go on from a saved state, bit for bit."""
        restore(self._state(), state, "LumpedThermal")
