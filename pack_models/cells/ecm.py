"""Equivalent-circuit cells of all packs of a shard, stepped in one compiled call.

Two RC branches, one-state hysteresis, open circuit and entropic coefficient over state of charge,
resistances and time constants over state of charge and temperature, both also over state of health where
the catalogue has aged curves, individual capacity and resistance of each cell, parallel cells sharing the
current of their group, busbars, passive balancing, internal shorts and opened fuses. The equations stand
in `pack_models.cells.ecm_step`.

    from pack_models.catalogue import pack
    from pack_models.cells.ecm import EcmBank

    bank = EcmBank.from_pack(pack("bus_14s2p"), n_packs=4, soc=0.8)
    bank.step(np.full(4, 5.0), np.full(bank.layout.n_cells, 298.15), dt_s=1.0)
    bank.pack_voltage_V, bank.balances()["energy_residual_J"]

An internal short bridges the terminals of its cell (the way through foils and tabs is not modelled), so
in a parallel group the neighbours feed it too; its heat stays in the cell that has it. The heat of
busbars and balancing resistors goes to neither cell.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pack_models.catalogue.design import CellDesign, PackDesign
from pack_models.cells import bank as checks
from pack_models.cells import ecm_kernel as kernel
from pack_models.cells import ecm_step as compiled
from pack_models.cells.bank import BoolArray, FloatArray, OutOfWindow
from pack_models.cells.tables import StepTableMaker, cell_tables
from pack_models.compiled import structure
from pack_models.layout import Layout

IntArray = NDArray[np.int64]

OPEN_FUSE_OHM = 1e9  # what insulation leaves of a connection


class EcmBank:
    """All cells of all packs of a shard, one cell design.

    Parameters
    ----------
    design : the cell
    layout : wiring of the packs
    soc : (n_cells,) or one number, 0…1
    capacity_factor, resistance_factor : (n_cells,) or one number, 1 = the design's cell
    temperature_K : (n_cells,) or one number, for the voltages before the first step
    busbar_resistance_ohm : (n_groups,) or one number, in series with each group
    balancing_resistance_ohm : (n_groups,) or one number, across a group while it is balanced

    Attributes
    ----------
    soc, cell_current_A, heat_W : (n_cells,) at the end of, held in, and mean over the last step. The
        current is the one through the cell, what its short takes included.
    group_voltage_V, pack_voltage_V : (n_groups,), (n_packs,) at the end of the last step; a group
        without, a pack with its busbars
    pack_current_A : (n_packs,) held in the last step
    pack_power_W : (n_packs,) mean power at the terminals over the last step. It is what the ledgers
        count; current times end voltage differs from it by half the change of voltage in the step.
    outside_steps : (n_packs, 4) cell-steps that ended below 0, above 1, or ran colder, hotter than the
        identified temperatures
    """

    def __init__(
        self,
        design: CellDesign,
        layout: Layout,
        soc: ArrayLike,
        capacity_factor: ArrayLike = 1.0,
        resistance_factor: ArrayLike = 1.0,
        temperature_K: ArrayLike = 298.15,
        busbar_resistance_ohm: ArrayLike = 0.0,
        balancing_resistance_ohm: ArrayLike = 33.0,
    ) -> None:
        n = layout.n_cells
        if layout.n_parallel.max() > compiled.LARGEST_GROUP:
            raise ValueError(
                f"{layout.n_parallel.max()} cells in parallel; expected at most {compiled.LARGEST_GROUP}"
            )
        self.design, self.layout = design, layout
        self._tables = cell_tables(design)
        self._step_tables = StepTableMaker(design)
        factor = checks.per_item("capacity_factor", capacity_factor, n, "cell", 0.0)
        self._fresh_C = 3600.0 * design.capacity_Ah * factor
        self._fresh_resistance = checks.per_item("resistance_factor", resistance_factor, n, "cell", 0.0)
        self._cell_pack = layout.cell_pack
        self._cells: dict[str, FloatArray] = {
            "soc": checks.per_item("soc", soc, n, "cell", -1e-12, 1.0 + 1e-12),
            "v1_V": np.zeros(n),
            "v2_V": np.zeros(n),
            "hysteresis": np.zeros(n),
            "current_A": np.zeros(n),
            "heat_W": np.zeros(n),
            "per_charge": 1.0 / self._fresh_C,
            "resistance_factor": self._fresh_resistance.copy(),
            "wear": np.zeros(n),
            "short_S": np.zeros(n),
            "link_ohm": np.zeros(n),
        }
        self._special = np.zeros(layout.n_packs, dtype=np.uint8)
        balancing = checks.per_item(
            "balancing_resistance_ohm", balancing_resistance_ohm, layout.n_groups, "group", 0.0
        )
        self._packs: dict[str, Any] = {
            "group_voltage_V": np.zeros(layout.n_groups),
            "pack_voltage_V": np.zeros(layout.n_packs),
            "pack_power_W": np.zeros(layout.n_packs),
            "ledger": np.zeros((layout.n_packs, kernel.LEDGER_COLUMNS)),
            "outside": np.zeros((layout.n_packs, 4), dtype=np.int64),
        }
        self.pack_current_A = np.zeros(layout.n_packs)
        self._soc_from = self._cells["soc"].copy()
        self._given_J, self._given_C = np.zeros(layout.n_packs), np.zeros(layout.n_packs)
        self._emf_V, self._resistance_ohm = np.zeros(layout.n_packs), np.zeros(layout.n_packs)
        self._no_balancing = np.zeros(layout.n_groups, dtype=np.bool_)
        # The compiled step reads and writes these arrays through their addresses.
        self._library, self._work = compiled.library(), compiled.scratch()
        self._structures = (
            structure(
                compiled.Wires,
                pack_group_start=layout.pack_group_start,
                group_cell_start=layout.group_cell_start,
                busbar_ohm=checks.per_item(
                    "busbar_resistance_ohm", busbar_resistance_ohm, layout.n_groups, "group", -1e-300
                ),
                balancing_S=1.0 / balancing,
                n_packs=layout.n_packs,
            ),
            structure(compiled.Cells, **self._cells, special=self._special),
            structure(compiled.Packs, **self._packs),
        )
        self._wires_at, self._cells_at, self._packs_at = map(ctypes.addressof, self._structures)
        self._steps: dict[float, Any] = {}
        self._layers = 1  # of the tables that are read: all of them as soon as a cell has aged
        self.soc, self.cell_current_A, self.heat_W = (
            self._cells["soc"],
            self._cells["current_A"],
            self._cells["heat_W"],
        )
        self.group_voltage_V = self._packs["group_voltage_V"]
        self.pack_voltage_V, self.pack_power_W = self._packs["pack_voltage_V"], self._packs["pack_power_W"]
        self.outside_steps = self._packs["outside"]
        self._open_circuit(checks.per_item("temperature_K", temperature_K, n, "cell", 0.0))

    def _step_at(self, dt_s: float) -> int:
        """Address of the tables of a step of dt_s."""
        found = self._steps.get(dt_s)
        if found is None:
            checks.check_step_s(dt_s)
            valid_K = self.design.table_temperature_K
            found = compiled.step_structure(
                self._tables, self._step_tables(dt_s), float(valid_K[0]), float(valid_K[-1])
            )
            found.layers = self._layers
            if len(self._steps) >= StepTableMaker.KEPT:
                self._steps.pop(next(iter(self._steps)))
            self._steps[dt_s] = found
        return ctypes.addressof(found)

    @classmethod
    def from_pack(
        cls,
        pack: PackDesign,
        n_packs: int,
        soc: ArrayLike,
        capacity_factor: ArrayLike = 1.0,
        resistance_factor: ArrayLike = 1.0,
        temperature_K: ArrayLike = 298.15,
    ) -> EcmBank:
        """The bank of `n_packs` packs of one catalogue design."""
        layout = Layout.uniform(n_packs, pack.n_series, pack.n_parallel, pack.groups_per_module)
        return cls(
            pack.cell,
            layout,
            soc,
            capacity_factor,
            resistance_factor,
            temperature_K,
            pack.busbar_resistance_ohm,
            pack.balancing_resistance_ohm,
        )

    def _open_circuit(self, temperature_K: FloatArray) -> None:
        """Voltages of the packs before anything has flowed: the mean open circuit of each group."""
        open_V = self.open_circuit_V(temperature_K)
        starts = self.layout.group_cell_start
        self.group_voltage_V[:] = np.add.reduceat(open_V, starts[:-1]) / np.diff(starts)
        self.pack_voltage_V[:] = np.add.reduceat(self.group_voltage_V, self.layout.pack_group_start[:-1])

    def open_circuit_V(self, temperature_K: FloatArray) -> FloatArray:
        """(n_cells,) open-circuit voltage at the present state of charge, without hysteresis."""
        temperature_K = checks.check_temperature(temperature_K, self.layout)
        open_V = np.empty(self.soc.size)
        kernel.open_kernel(self._tables, self.soc, self._cells["wear"], temperature_K, open_V)
        return open_V

    def thevenin(
        self, temperature_K: FloatArray, dt_s: float, around_current_A: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Affine model of each pack at the end of a step of dt_s: V = emf - resistance * I.

        Balancing is left out (it draws some 0.1 A), busbars and shorts are in. The model is the tangent
        at `around_current_A` (n_packs,), by default the current of the last step: exact up to the
        curvature of the open circuit between there and the current that flows.

        Returns
        -------
        emf_V, resistance_ohm : (n_packs,), overwritten by the next call
        """
        step_at = self._step_at(float(dt_s))
        temperature_K = checks.check_temperature(temperature_K, self.layout)
        around_A = self.pack_current_A
        if around_current_A is not None:
            around_A = checks.check_current(around_current_A, self.layout)
        self._library.ecm_thevenin(
            step_at,
            self._wires_at,
            self._cells_at,
            around_A.ctypes.data,
            temperature_K.ctypes.data,
            self._work.ctypes.data,
            self._emf_V.ctypes.data,
            self._resistance_ohm.ctypes.data,
        )
        return self._emf_V, self._resistance_ohm

    def step(
        self,
        pack_current_A: FloatArray,
        temperature_K: FloatArray,
        dt_s: float,
        balancing: BoolArray | None = None,
    ) -> None:
        """Advance by dt_s with the pack currents and temperatures held.

        Parameters
        ----------
        pack_current_A : (n_packs,) positive on discharge
        temperature_K : (n_cells,)
        dt_s : 10 ms to 15 min are sensible; any positive step is stable
        balancing : (n_groups,) bleed resistor on; None is all off
        """
        step_at = self._step_at(float(dt_s))
        current_A = checks.check_current(pack_current_A, self.layout)
        temperature_K = checks.check_temperature(temperature_K, self.layout)
        on = self._no_balancing if balancing is None else checks.check_balancing(balancing, self.layout)
        self._library.ecm_step(
            step_at,
            self._wires_at,
            self._cells_at,
            self._packs_at,
            current_A.ctypes.data,
            temperature_K.ctypes.data,
            on.ctypes.data,
            self._work.ctypes.data,
        )
        self.pack_current_A[:] = current_A

    def addresses(self, dt_s: float) -> tuple[int, int, int, int]:
        """Where the tables of a step of dt_s, the wiring, the cells and the results stand, for compiled code
        that advances this bank (see `pack_models.fleet`); valid while the bank lives."""
        return self._step_at(float(dt_s)), self._wires_at, self._cells_at, self._packs_at

    @property
    def scratch_address(self) -> int:
        """Where the work space of a block stands."""
        return int(self._work.ctypes.data)

    # ---- individual cells ------------------------------------------------------------------------

    def _mark_special(self, cell: int) -> None:
        """Whether a cell of the pack needs the way with shorts and links."""
        p = int(self._cell_pack[cell])
        mine = slice(int(self.layout.pack_cell_start[p]), int(self.layout.pack_cell_start[p + 1]))
        odd = (self._cells["short_S"][mine] != 0.0) | (self._cells["link_ohm"][mine] != 0.0)
        self._special[p] = odd.any()

    def set_internal_short(self, cell: int, resistance_ohm: float) -> None:
        """Put a resistor across one cell; infinity takes it away."""
        checks.check_short(cell, self.layout, resistance_ohm)
        self._cells["short_S"][cell] = 1.0 / resistance_ohm
        self._mark_special(cell)

    def set_open_fuse(self, cell: int, is_open: bool) -> None:
        """Open (or replace) the fuse between one cell and its group."""
        checks.check_cell(cell, self.layout)
        self._cells["link_ohm"][cell] = OPEN_FUSE_OHM if is_open else 0.0
        self._mark_special(cell)

    def _settle(self) -> None:
        """Close the ledger so far, which counts with the capacities and curves up to now."""
        self._given_J, self._given_C = self._given()
        self._soc_from[:] = self.soc

    def scale_cell(self, cell: int, capacity_factor: float = 1.0, resistance_factor: float = 1.0) -> None:
        """Multiply capacity and resistance of one cell; its state of charge stays as it is."""
        checks.check_factors(
            cell, self.layout, capacity_factor=capacity_factor, resistance_factor=resistance_factor
        )
        self._settle()
        self._fresh_C[cell] *= capacity_factor
        self._fresh_resistance[cell] *= resistance_factor
        self._cells["per_charge"][cell] /= capacity_factor
        self._cells["resistance_factor"][cell] *= resistance_factor

    def set_health(self, capacity: ArrayLike, resistance: ArrayLike) -> None:
        """Age all cells, on top of their spread; states of charge stay as they are.

        capacity, resistance : (n_cells,) or one number, what is left and what it has grown to; 1 = fresh
        """
        capacity = checks.per_item("capacity", capacity, self.soc.size, "cell", 0.0)
        resistance = checks.per_item("resistance", resistance, self.soc.size, "cell", 0.0)
        self._settle()
        np.divide(1.0, self._fresh_C * capacity, out=self._cells["per_charge"])
        np.multiply(self._fresh_resistance, resistance, out=self._cells["resistance_factor"])
        if self.design.aged_soh.size:
            lost = (1.0 - capacity) / (1.0 - self.design.aged_soh[-1])
            np.clip(lost, 0.0, 1.0, out=self._cells["wear"])
            self._read_layers()

    def _read_layers(self) -> None:
        """Fresh cells need the first layer only, which is as exact and cheaper."""
        layers = self._tables.layers if self._cells["wear"].any() else 1
        if layers != self._layers:
            self._layers = layers
            self._steps.clear()

    @property
    def capacity_Ah(self) -> FloatArray:
        """(n_cells,) what each full cell holds."""
        return np.asarray(1.0 / (3600.0 * self._cells["per_charge"]))

    @property
    def resistance_factor(self) -> FloatArray:
        """(n_cells,) resistance of each cell over that of the design."""
        return self._cells["resistance_factor"].copy()

    def _given(self) -> tuple[FloatArray, FloatArray]:
        """Enthalpy (J) and charge (C, over all groups) the cells of each pack have given so far."""
        energy_J, charge_C = self._given_J.copy(), self._given_C.copy()
        kernel.stored_kernel(
            self._tables,
            self._cell_pack,
            self.soc,
            self._cells["per_charge"],
            self._cells["wear"],
            self._soc_from,
            energy_J,
            charge_C,
        )
        return energy_J, charge_C

    def balances(self) -> dict[str, FloatArray]:
        """Cumulative ledgers per pack, (n_packs,) each, discharge positive.

        energy_chemical_J (decrease of stored enthalpy, from the states of the cells) equals
        energy_terminal_J + energy_cell_heat_J + energy_short_J + energy_balancing_J + energy_busbar_J
        (from what flowed); energy_entropic_J is the reversible part of the cell heat. Charges are per
        series group (mean over the groups), so that charge_terminal_C is the time integral of the
        current: charge_stored_C = charge_terminal_C + charge_short_C + charge_balancing_C. The
        residuals are the differences; the throughputs are the scale to judge them by.
        """
        return checks.ledger_table(self._packs["ledger"], *self._given(), self.layout.n_series)

    def window_report(self, temperature_K: FloatArray | None = None) -> list[OutOfWindow]:
        """Cells that stand outside 0…1, their voltage limits or (if given) the identified temperatures."""
        return checks.window_report(self.design, self.layout, self.soc, self.group_voltage_V, temperature_K)

    def _state(self) -> dict[str, NDArray]:
        return {
            **self._cells,
            **self._packs,
            "special": self._special,
            "fresh_C": self._fresh_C,
            "fresh_resistance": self._fresh_resistance,
            "pack_current_A": self.pack_current_A,
            "soc_from": self._soc_from,
            "given_J": self._given_J,
            "given_C": self._given_C,
        }

    def get_state(self) -> dict[str, NDArray]:
        """Everything a run needs to go on, as copies."""
        return {name: array.copy() for name, array in self._state().items()}

    def set_state(self, state: dict[str, NDArray]) -> None:
        """Go on from a saved state, bit for bit."""
        checks.restore(self._state(), state, "EcmBank")
        self._read_layers()
