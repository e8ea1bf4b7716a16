"""What all banks of physical cells share: wiring, parallel sharing, shorts, fuses, ledgers, state.

The model of a single cell, compiled (`compiled_cell`) or PyBaMM's own solver (`pybamm_cell`), sits behind
`CellEngine`: try a step with given currents, look at the voltages, take it over. Groups in parallel or with a
short try two or three times a step, until the voltages at its end agree.

How individual cells are made from one parameter set:
- capacity factor f: all electrode areas times f, that is the model sees I / f. This divides its
  resistance by f too; the difference is given back as a series resistance, so that the factor changes
  the capacity alone, as it does in `ecm`;
- resistance factor: a series resistance of (factor - 1) times the steady resistance of the design at
  half charge and reference temperature (from the circuit tables of the catalogue).

Temperature is that of the thermal model, equal throughout a cell. The heat of a cell is I (U - V) with the
open circuit U at its mean state of charge, which comes from the lithium the discretised negative electrode
holds, so the charge residual measures how well the model kept it; and - I T dU/dT where the parameter set
has an entropic coefficient (Bernardi et al., J. Electrochem. Soc. 132 (1985) 5).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pack_models.catalogue.design import CellDesign
from pack_models.cells import bank as checks
from pack_models.cells import ecm_kernel as kernel
from pack_models.cells.bank import BoolArray, FloatArray, OutOfWindow
from pack_models.cells.tables import CellTables
from pack_models.layout import Layout

ROUNDS = 12
SECANT_FROM = 20.0  # tolerances
OPEN_FUSE_OHM = 1e9  # what insulation leaves of a connection, as in `ecm`


class StepError(RuntimeError):
    """A cell cannot follow the step; `cell` and `reason` say which and why."""

    def __init__(self, cell: int, reason: str) -> None:
        self.cell, self.reason = cell, reason
        super().__init__(f"cell {cell}: {reason}")


class CellEngine(Protocol):
    """Cells without wiring; arrays are (n_cells,)."""

    capacity_C: FloatArray  # charge between soc 0 and 1 of each cell with capacity factor 1
    voltage_tolerance_V: float  # parallel cells agree this well at the end of a step

    def look(self, current_A: FloatArray, temperature_K: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Voltage and state of charge in the present state under a current."""

    def try_step(
        self, current_A: FloatArray, temperature_K: FloatArray, dt_s: float, changed: BoolArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Voltage at 0+ and at the end, and state of charge at the end, of a step that is not taken.

        `changed` cells have another current than at the last try of this step; raises StepError.
        """

    def take(self) -> None:
        """Go on from the end of the step tried last."""

    def forecast(
        self,
        soc: FloatArray,
        current_A: FloatArray,
        last_V: FloatArray,
        temperature_K: FloatArray,
        dt_s: float,
    ) -> tuple[FloatArray, FloatArray]:
        """(e_V, r_ohm): about what the voltage at the end of a step will be, e - r I, model alone.

        current_A is what each model carried in the last step, last_V its voltage at the end of it.
        """

    def learn(self, r_ohm: FloatArray, dt_s: float) -> None:
        """Slopes the sharing has found, for the next forecast."""

    def state(self) -> dict[str, NDArray]:
        """Arrays that are the state, to be copied and overwritten."""


class PhysicalBank:
    """All cells of the packs; attributes and signs as in `EcmBank`.

    Parameters
    ----------
    engine : the cells, at rest at their states of charge
    tables : open circuit and entropic coefficient over state of charge
    others : as in `EcmBank`
    """

    def __init__(
        self,
        engine: CellEngine,
        design: CellDesign,
        tables: CellTables,
        layout: Layout,
        capacity_factor: FloatArray,
        resistance_factor: FloatArray,
        temperature_K: FloatArray,
        busbar_resistance_ohm: ArrayLike,
        balancing_resistance_ohm: ArrayLike,
    ) -> None:
        n, groups, packs = layout.n_cells, layout.n_groups, layout.n_packs
        self.design, self.layout = design, layout
        self._engine, self._tables = engine, tables
        self._capacity_factor, self._resistance_factor = capacity_factor, resistance_factor
        self._fresh_capacity, self._fresh_resistance = capacity_factor.copy(), resistance_factor.copy()
        self._busbar_ohm = checks.per_item(
            "busbar_resistance_ohm", busbar_resistance_ohm, groups, "group", -1e-300
        )
        self._balancing_S = 1.0 / checks.per_item(
            "balancing_resistance_ohm", balancing_resistance_ohm, groups, "group", 0.0
        )
        self._steady_ohm = steady_resistance_ohm(design)
        self._short_S, self._link_ohm, self._no_wear = np.zeros(n), np.zeros(n), np.zeros(n)
        self._last_V = np.zeros(n)  # of each model, without what stands in series with it
        self._pack_current_A = np.zeros(packs)
        self._ledger = np.zeros((packs, kernel.LEDGER_COLUMNS))
        self._given_J, self._given_C = np.zeros(packs), np.zeros(packs)
        self.soc, self.cell_current_A, self.heat_W = np.zeros(n), np.zeros(n), np.zeros(n)
        self.group_voltage_V, self.pack_voltage_V = np.zeros(groups), np.zeros(packs)
        self.pack_power_W = np.zeros(packs)
        self.outside_steps = np.zeros((packs, 4), dtype=np.int64)
        voltage_V, level = engine.look(np.zeros(n), temperature_K)
        self.soc[:], self._last_V[:] = level, voltage_V
        self._soc_from = self.soc.copy()
        self._group_start, self._per_group = layout.group_cell_start[:-1], np.diff(layout.group_cell_start)
        self.group_voltage_V[:] = self._over_groups(self._last_V) / self._per_group
        self.pack_voltage_V[:] = self._over_packs(self.group_voltage_V)

    # ---- small sums ------------------------------------------------------------------------------

    def _over_groups(self, per_cell: FloatArray) -> FloatArray:
        total: FloatArray = np.add.reduceat(per_cell, self._group_start)
        return total

    def _over_packs(self, per_group: FloatArray) -> FloatArray:
        total: FloatArray = np.add.reduceat(per_group, self.layout.pack_group_start[:-1])
        return total

    @property
    def _series_ohm(self) -> FloatArray:
        """(n_cells,) resistance in series with each model: what the factors ask beyond the scaled area."""
        return (self._resistance_factor - 1.0 / self._capacity_factor) * self._steady_ohm + self._link_ohm

    @property
    def capacity_Ah(self) -> FloatArray:
        """(n_cells,) what each full cell holds."""
        return self._capacity_factor * self._engine.capacity_C / 3600.0

    @property
    def resistance_factor(self) -> FloatArray:
        """(n_cells,) resistance of each cell over that of the design."""
        return self._resistance_factor.copy()

    # ---- electrics -------------------------------------------------------------------------------

    def _forecast(self, temperature_K: FloatArray, dt_s: float) -> tuple[FloatArray, FloatArray]:
        """(e_V, r_ohm) per cell with what stands in series: V = e - r I at the end of a step."""
        e_V, r_ohm = self._engine.forecast(
            self.soc, self.cell_current_A / self._capacity_factor, self._last_V, temperature_K, dt_s
        )
        return e_V, r_ohm / self._capacity_factor + self._series_ohm

    def thevenin(
        self, temperature_K: FloatArray, dt_s: float, around_current_A: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Affine model of each pack at the end of a step of dt_s, V = emf - resistance * I.

        A forecast around the currents of the last step. `around_current_A` is accepted as in `EcmBank` and
        not needed.
        """
        checks.check_step_s(dt_s)
        temperature_K = checks.check_temperature(temperature_K, self.layout)
        if around_current_A is not None:
            checks.check_current(around_current_A, self.layout)
        e_V, r_ohm = self._forecast(temperature_K, dt_s)
        conductance = self._over_groups(1.0 / r_ohm + self._short_S)
        emf_V = self._over_packs(self._over_groups(e_V / r_ohm) / conductance)
        return emf_V, self._over_packs(1.0 / conductance + self._busbar_ohm)

    def step(
        self,
        pack_current_A: FloatArray,
        temperature_K: FloatArray,
        dt_s: float,
        balancing: BoolArray | None = None,
    ) -> None:
        """Advance by dt_s with the pack currents and temperatures held; arguments as in `EcmBank.step`.

        Raises RuntimeError, with cell, time, value and window, where the model cannot go on; the bank then
        still stands at the start of the step.
        """
        checks.check_step_s(dt_s)
        pack_A = checks.check_current(pack_current_A, self.layout)
        temperature_K = checks.check_temperature(temperature_K, self.layout)
        on = checks.check_balancing(balancing, self.layout)
        layout, cell_group, dt_s = self.layout, self.layout.cell_group, float(dt_s)
        group_A = pack_A[layout.group_pack]
        bleed_S = np.where(on, self._balancing_S, 0.0)
        shunt_S = self._over_groups(self._short_S) + bleed_S
        series_ohm = self._series_ohm
        single = (self._per_group == 1) & (shunt_S == 0.0)
        alone = single[cell_group]
        current_A, group_V = group_A[cell_group].copy(), np.zeros(layout.n_groups)
        changed = np.ones(self.soc.size, dtype=bool)
        e_V = r_ohm = np.zeros(0)
        if not single.all():
            e_V, r_ohm = self._forecast(temperature_K, dt_s)
        before_A = before_V = np.zeros(0)
        for tried in range(ROUNDS):
            if not single.all():
                # Currents from the affine model: Kirchhoff's law holds to rounding in every round.
                share_V = (self._over_groups(e_V / r_ohm) - group_A) / (
                    self._over_groups(1.0 / r_ohm) + shunt_S
                )
                wanted_A = (e_V - share_V[cell_group]) / r_ohm
                current_A = np.where(alone | ~changed, current_A, wanted_A)
                group_V = np.where(self._over_groups(changed) > 0, share_V, group_V)
            try:
                first_V, model_V, level = self._engine.try_step(
                    current_A / self._capacity_factor, temperature_K, dt_s, changed
                )
            except StepError as failure:
                cell = failure.cell
                where = f"cell {cell} ({layout.cell_name(cell)}) at soc {self.soc[cell]:.4f}"
                raise RuntimeError(f"{where}: {failure.reason}") from None
            end_V = model_V - series_ohm * current_A
            group_V = np.where(single, end_V[self._group_start], group_V)
            if single.all():
                break
            if tried:
                # Secant slopes where two clearly different currents were tried: a voltage with step size
                # control is a smooth function of the current only down to its tolerance.
                moved_A = current_A - before_A
                learned = changed & (np.abs(moved_A) * r_ohm > SECANT_FROM * self._engine.voltage_tolerance_V)
                slope = np.where(learned, (before_V - end_V) / np.where(learned, moved_A, 1.0), 0.0)
                trusted = learned & (slope > 0.2 * r_ohm) & (slope < 5.0 * r_ohm)
                r_ohm = np.where(trusted, slope, r_ohm)
            e_V = end_V + r_ohm * current_A
            before_A, before_V = current_A, end_V
            mismatch_V = np.maximum.reduceat(np.abs(end_V - group_V[cell_group]), self._group_start)
            open_groups = ~single & (mismatch_V > self._engine.voltage_tolerance_V)
            if not open_groups.any():
                break
            changed = open_groups[cell_group]
        else:
            worst = int(np.argmax(mismatch_V))
            raise RuntimeError(
                f"pack {layout.group_pack[worst]} group {worst}: parallel cells still differ by "
                f"{mismatch_V[worst]:.2g} V after {ROUNDS} rounds; take a shorter step than {dt_s:g} s"
            )
        if r_ohm.size:
            self._engine.learn((r_ohm - series_ohm) * self._capacity_factor, dt_s)
        first_V = first_V - series_ohm * current_A
        self._engine.take()
        self._last_V[:] = model_V
        self._account(level, current_A, first_V, end_V, group_V, bleed_S, pack_A, temperature_K, dt_s)
        valid_K = self.design.table_temperature_K
        for column, outside in (
            (kernel.SOC_LOW, self.soc < 0.0),
            (kernel.SOC_HIGH, self.soc > 1.0),
            (kernel.COLD, temperature_K < valid_K[0]),
            (kernel.HOT, temperature_K > valid_K[-1]),
        ):
            if outside.any():
                self.outside_steps[:, column] += np.add.reduceat(
                    outside.astype(np.int64), layout.pack_cell_start[:-1]
                )

    def _account(
        self,
        level: FloatArray,
        current_A: FloatArray,
        first_V: FloatArray,
        end_V: FloatArray,
        group_V: FloatArray,
        bleed_S: FloatArray,
        pack_A: FloatArray,
        temperature_K: FloatArray,
        dt_s: float,
    ) -> None:
        """Take over the end of the step, its heat and its entries in the ledgers."""
        layout, cell_group = self.layout, self.layout.cell_group
        open_V, entropic = np.empty(self.soc.size), np.zeros(self.soc.size)
        kernel.mean_open_kernel(self._tables, self.soc, level, open_V, entropic)
        mean_V = self._over_groups(0.5 * (first_V + end_V)) / self._per_group
        cell_mean_V = mean_V[cell_group]
        # What the enthalpy U - T dU/dT gives beyond the terminals is heat.
        own_W = current_A * (open_V - self._tables.reference_K * entropic - cell_mean_V)
        leak_A = self._short_S * group_V[cell_group]
        self.heat_W[:] = own_W + leak_A * cell_mean_V
        self.soc[:], self.cell_current_A[:] = level, current_A
        self._pack_current_A[:] = pack_A
        group_A = pack_A[layout.group_pack]
        self.group_voltage_V[:] = group_V
        self.pack_voltage_V[:] = self._over_packs(group_V - group_A * self._busbar_ohm)
        self.pack_power_W[:] = pack_A * self._over_packs(mean_V - group_A * self._busbar_ohm)
        leak_group_A = self._over_groups(leak_A)
        columns = {
            kernel.E_TERMINAL: self.pack_power_W,
            kernel.E_HEAT: self._over_packs(self._over_groups(own_W)),
            kernel.E_SHORT: self._over_packs(mean_V * leak_group_A),
            kernel.E_BALANCING: self._over_packs(mean_V * group_V * bleed_S),
            kernel.E_BUSBAR: self._over_packs(group_A**2 * self._busbar_ohm),
            kernel.E_THROUGHPUT: self._over_packs(self._over_groups(np.abs(current_A * cell_mean_V))),
            kernel.C_TERMINAL: self._over_packs(group_A),
            kernel.C_SHORT: self._over_packs(leak_group_A),
            kernel.C_BALANCING: self._over_packs(group_V * bleed_S),
            kernel.C_THROUGHPUT: self._over_packs(self._over_groups(np.abs(current_A))),
        }
        if self._tables.has_entropy:
            columns[kernel.E_ENTROPIC] = self._over_packs(
                self._over_groups(-current_A * temperature_K * entropic)
            )
        for column, rate in columns.items():
            self._ledger[:, column] += rate * dt_s

    # ---- individual cells ------------------------------------------------------------------------

    def set_internal_short(self, cell: int, resistance_ohm: float) -> None:
        """Put a resistor across one cell; infinity takes it away."""
        checks.check_short(cell, self.layout, resistance_ohm)
        self._short_S[cell] = 1.0 / resistance_ohm

    def set_open_fuse(self, cell: int, is_open: bool) -> None:
        """Open (or replace) the fuse between one cell and its group."""
        checks.check_cell(cell, self.layout)
        self._link_ohm[cell] = OPEN_FUSE_OHM if is_open else 0.0

    def _settle(self) -> None:
        """Close the ledger so far, which counts with the capacities up to now."""
        self._given_J, self._given_C = self._given()
        self._soc_from[:] = self.soc

    def scale_cell(self, cell: int, capacity_factor: float = 1.0, resistance_factor: float = 1.0) -> None:
        """Multiply capacity and resistance of one cell; its state of charge stays as it is."""
        checks.check_factors(
            cell, self.layout, capacity_factor=capacity_factor, resistance_factor=resistance_factor
        )
        self._settle()
        for array in (self._capacity_factor, self._fresh_capacity):
            array[cell] *= capacity_factor
        for array in (self._resistance_factor, self._fresh_resistance):
            array[cell] *= resistance_factor

    def set_health(self, capacity: ArrayLike, resistance: ArrayLike) -> None:
        """Age all cells, on top of their spread; arguments as in `EcmBank.set_health`."""
        n = self.soc.size
        self._settle()
        self._capacity_factor[:] = self._fresh_capacity * checks.per_item(
            "capacity", capacity, n, "cell", 0.0
        )
        self._resistance_factor[:] = self._fresh_resistance * checks.per_item(
            "resistance", resistance, n, "cell", 0.0
        )

    # ---- ledgers and state -----------------------------------------------------------------------

    def _given(self) -> tuple[FloatArray, FloatArray]:
        energy_J, charge_C = self._given_J.copy(), self._given_C.copy()
        kernel.stored_kernel(
            self._tables,
            self.layout.cell_pack,
            self.soc,
            1.0 / (3600.0 * self.capacity_Ah),
            self._no_wear,
            self._soc_from,
            energy_J,
            charge_C,
        )
        return energy_J, charge_C

    def balances(self) -> dict[str, FloatArray]:
        """Cumulative ledgers per pack; keys and meaning as in `EcmBank.balances`."""
        return checks.ledger_table(self._ledger, *self._given(), self.layout.n_series)

    def window_report(self, temperature_K: FloatArray | None = None) -> list[OutOfWindow]:
        """Cells that stand outside 0…1, their voltage limits or (if given) the identified temperatures."""
        return checks.window_report(self.design, self.layout, self.soc, self.group_voltage_V, temperature_K)

    def _state(self) -> dict[str, NDArray]:
        return {
            **{f"engine_{name}": array for name, array in self._engine.state().items()},
            "soc": self.soc,
            "cell_current_A": self.cell_current_A,
            "heat_W": self.heat_W,
            "last_V": self._last_V,
            "group_voltage_V": self.group_voltage_V,
            "pack_voltage_V": self.pack_voltage_V,
            "pack_power_W": self.pack_power_W,
            "pack_current_A": self._pack_current_A,
            "capacity_factor": self._capacity_factor,
            "resistance_factor": self._resistance_factor,
            "fresh_capacity": self._fresh_capacity,
            "fresh_resistance": self._fresh_resistance,
            "short_S": self._short_S,
            "link_ohm": self._link_ohm,
            "ledger": self._ledger,
            "outside": self.outside_steps,
            "soc_from": self._soc_from,
            "given_J": self._given_J,
            "given_C": self._given_C,
        }

    def get_state(self) -> dict[str, NDArray]:
        """Everything a run needs to go on, as copies."""
        return {name: array.copy() for name, array in self._state().items()}

    def set_state(self, state: dict[str, NDArray]) -> None:
        """Go on from a saved state, bit for bit."""
        checks.restore(self._state(), state, type(self).__name__)


def steady_resistance_ohm(design: CellDesign) -> float:
    """Resistance of the design at half charge and about its reference temperature, after all transients."""
    at = int(np.argmin(np.abs(design.table_temperature_K - design.reference_temperature_K)))
    tables = (design.resistance0_ohm, design.resistance1_ohm, design.resistance2_ohm)
    return float(sum(np.interp(0.5, design.table_soc, table[at]) for table in tables))
