"""PyBaMM cells behind the port of the bank: spm, spme or dfn for all cells of a (small) rack.

Each cell is PyBaMM's own discretised model, advanced by PyBaMM's own solver (`pybamm_engine`); wiring,
parallel sharing, shorts and ledgers are the same as in `pack_models.cells.ecm`. Costs about 0.3 ms
(spm), 1 ms (spme), 8 ms (dfn) per cell and solve; groups in parallel or with a short need two or three
solves a step.

How individual cells are made from one parameter set:
- capacity factor f: all electrode areas times f, that is the model sees I / f. This divides its
  resistance by f too; the difference is given back as a series resistance, so that the factor changes
  the capacity alone, as it does in `ecm`;
- resistance factor: a series resistance of (factor - 1) times the steady resistance of the design at
  half charge and reference temperature (from the circuit tables of the catalogue).

Temperature is that of the thermal model, equal throughout a cell. Entropic heat is left out: the
parameter sets used here carry none. The heat of a cell is I (U - V) with U the open circuit at its mean
state of charge, which comes from the lithium the discretised negative electrode holds; so the charge
residual measures how well PyBaMM's solver kept it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pack_models.catalogue.design import CellDesign, PackDesign
from pack_models.cells import bank as checks
from pack_models.cells import ecm_kernel as kernel
from pack_models.cells.bank import BoolArray, FloatArray, OutOfWindow
from pack_models.cells.ecm_step import slopes
from pack_models.cells.pybamm_engine import MODELS, SolverError, shared_engine
from pack_models.cells.tables import StepTableMaker, cell_tables
from pack_models.layout import Layout

VOLTAGE_TOLERANCE_V = 1e-5  # parallel cells agree this well at the end of a step
ROUNDS = 12


class PybammBank:
    """All cells of the packs, one PyBaMM model each; attributes and signs as in `EcmBank`.

    Parameters are those of `EcmBank`, and `model`: "spm", "spme" or "dfn".
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
        model: str = "spme",
    ) -> None:
        if model not in MODELS:
            raise ValueError(f"no PyBaMM cell model {model!r}; expected one of {', '.join(MODELS)}")
        if design.pybamm is None:
            raise ValueError(
                f"cell {design.name} has no PyBaMM parameter set, so there is no {model} of it; choose ecm"
            )
        n, groups, packs = layout.n_cells, layout.n_groups, layout.n_packs
        self.design, self.layout, self.model = design, layout, model
        self._engine = shared_engine(design.pybamm, model)
        # The circuit tables predict slopes and give the open circuit; entropy is off (see above).
        self._tables = cell_tables(design)._replace(has_entropy=False, hysteresis_rate=0.0)
        self._step_tables = StepTableMaker(design)
        self._capacity_factor = checks.per_item("capacity_factor", capacity_factor, n, "cell", 0.0)
        self._resistance_factor = checks.per_item("resistance_factor", resistance_factor, n, "cell", 0.0)
        start_soc = checks.per_item("soc", soc, n, "cell", -1e-12, 1.0 + 1e-12)
        start_K = checks.per_item("temperature_K", temperature_K, n, "cell", 0.0)
        self._busbar_ohm = checks.per_item(
            "busbar_resistance_ohm", busbar_resistance_ohm, groups, "group", -1e-300
        )
        self._balancing_S = 1.0 / checks.per_item(
            "balancing_resistance_ohm", balancing_resistance_ohm, groups, "group", 0.0
        )
        middle = np.interp(
            design.reference_temperature_K, design.table_temperature_K, range(design.table_temperature_K.size)
        )
        at = int(round(float(middle)))
        self._steady_ohm = float(
            sum(
                np.interp(0.5, design.table_soc, table[at])
                for table in (design.resistance0_ohm, design.resistance1_ohm, design.resistance2_ohm)
            )
        )
        self._y = self._engine.initial_state(np.clip(start_soc, 0.0, 1.0))
        self._short_S = np.zeros(n)
        self._last_V = np.zeros(n)
        self._slope_scale = np.ones(n)  # learnt slope of each model over that of the circuit
        self._pack_current_A = np.zeros(packs)
        self._ledger = np.zeros((packs, kernel.LEDGER_COLUMNS))
        self._given_J, self._given_C = np.zeros(packs), np.zeros(packs)
        self.soc, self.cell_current_A, self.heat_W = np.zeros(n), np.zeros(n), np.zeros(n)
        self.group_voltage_V, self.pack_voltage_V = np.zeros(groups), np.zeros(packs)
        self.pack_power_W = np.zeros(packs)
        self.outside_steps = np.zeros((packs, 4), dtype=np.int64)
        voltage_V, level = self._engine.observe(self._y, np.zeros(n), start_K)
        self.soc[:], self._last_V[:] = level, voltage_V
        self._soc_from = self.soc.copy()
        self._group_start, self._per_group = layout.group_cell_start[:-1], np.diff(layout.group_cell_start)
        self.group_voltage_V[:] = self._over_groups(self._last_V) / self._per_group
        self.pack_voltage_V[:] = self._over_packs(self.group_voltage_V)

    @classmethod
    def from_pack(
        cls,
        pack: PackDesign,
        n_packs: int,
        soc: ArrayLike,
        capacity_factor: ArrayLike = 1.0,
        resistance_factor: ArrayLike = 1.0,
        temperature_K: ArrayLike = 298.15,
        model: str = "spme",
    ) -> PybammBank:
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
            model,
        )

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
        return (self._resistance_factor - 1.0 / self._capacity_factor) * self._steady_ohm

    @property
    def capacity_Ah(self) -> FloatArray:
        """(n_cells,) what each full cell holds."""
        return self._capacity_factor * self._engine.lithium_capacity_C / 3600.0

    @property
    def resistance_factor(self) -> FloatArray:
        """(n_cells,) resistance of each cell over that of the design."""
        return self._resistance_factor.copy()

    # ---- electrics -------------------------------------------------------------------------------

    def _forecast(self, temperature_K: FloatArray, dt_s: float) -> tuple[FloatArray, FloatArray]:
        """(e_V, r_ohm) per cell: V = e - r I at the end, from the last voltage and the circuit's slope."""
        slope_ohm, drift_ohm = slopes(
            self._tables,
            self._step_tables(float(dt_s)),
            self.soc,
            self.cell_current_A,
            1.0 / (3600.0 * self.capacity_Ah),
            self._resistance_factor,
            temperature_K,
        )
        slope_ohm *= self._slope_scale
        return self._last_V + (slope_ohm - drift_ohm) * self.cell_current_A, slope_ohm

    def thevenin(
        self, temperature_K: FloatArray, dt_s: float, around_current_A: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Affine model of each pack at the end of a step of dt_s, V = emf - resistance * I.

        A forecast from the last voltage with the slope of the circuit model, not a solve: good to some
        10 mV per cell for steps of a minute. `around_current_A` is accepted as in `EcmBank` and not needed.
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

        Raises RuntimeError, with cell, current and temperature, where PyBaMM cannot go on; the bank then
        still stands at the start of the step.
        """
        checks.check_step_s(dt_s)
        pack_A = checks.check_current(pack_current_A, self.layout)
        temperature_K = checks.check_temperature(temperature_K, self.layout)
        on = checks.check_balancing(balancing, self.layout)
        layout = self.layout
        group_A = pack_A[layout.group_pack]
        bleed_S = np.where(on, self._balancing_S, 0.0)
        shunt_S = self._over_groups(self._short_S) + bleed_S
        e_V, r_ohm = self._forecast(temperature_K, dt_s)
        circuit_ohm = r_ohm / self._slope_scale
        single = (self._per_group == 1) & (shunt_S == 0.0)
        current_A, first_V, end_V = np.zeros(self.soc.size), np.zeros(self.soc.size), np.zeros(self.soc.size)
        level, y = self.soc.copy(), self._y.copy()
        open_groups = np.ones(layout.n_groups, dtype=bool)
        group_V = np.zeros(layout.n_groups)
        for _ in range(ROUNDS):
            # Currents from the affine model: Kirchhoff's law holds to rounding in every round.
            share_V = (self._over_groups(e_V / r_ohm) - group_A) / (self._over_groups(1.0 / r_ohm) + shunt_S)
            wanted_A = (e_V - share_V[layout.cell_group]) / r_ohm
            wanted_A = np.where(single[layout.cell_group], group_A[layout.cell_group], wanted_A)
            cells = np.flatnonzero(open_groups[layout.cell_group])
            before_A, before_V = current_A[cells], end_V[cells]
            current_A[cells] = wanted_A[cells]
            group_V[open_groups] = share_V[open_groups]
            try:
                y[cells], path = self._engine.advance(
                    self._y[cells],
                    current_A[cells] / self._capacity_factor[cells],
                    temperature_K[cells],
                    np.array([dt_s]),
                )
            except SolverError as failure:
                cell = int(cells[failure.cell])
                where = f"cell {cell} ({layout.cell_name(cell)}) at soc {self.soc[cell]:.4f}"
                raise RuntimeError(f"{where}: {failure.reason}") from None
            drop_V = self._series_ohm[cells] * current_A[cells]
            first_V[cells] = path.voltage_V[0] - drop_V
            end_V[cells] = path.voltage_V[-1] - drop_V
            level[cells] = path.soc[-1]
            # Secant slopes where two clearly different currents were tried.
            moved_A = current_A[cells] - before_A
            learned = (np.abs(moved_A) > 1e-3) & (before_V != 0.0)
            slope = np.where(learned, (before_V - end_V[cells]) / np.where(learned, moved_A, 1.0), 0.0)
            trusted = learned & (slope > 0.2 * r_ohm[cells]) & (slope < 5.0 * r_ohm[cells])
            r_ohm[cells] = np.where(trusted, slope, r_ohm[cells])
            e_V[cells] = end_V[cells] + r_ohm[cells] * current_A[cells]
            group_V[single] = end_V[self._group_start[single]]
            mismatch_V = np.maximum.reduceat(np.abs(end_V - group_V[layout.cell_group]), self._group_start)
            open_groups &= mismatch_V > VOLTAGE_TOLERANCE_V
            if not open_groups.any():
                break
        else:
            worst = int(np.argmax(mismatch_V))
            raise RuntimeError(
                f"pack {layout.group_pack[worst]} group {worst}: parallel cells still differ by "
                f"{mismatch_V[worst]:.2g} V after {ROUNDS} rounds; take a shorter step than {dt_s:g} s"
            )
        self._slope_scale[:] = np.clip(r_ohm / circuit_ohm, 0.3, 3.0)
        self._account(y, level, current_A, first_V, end_V, group_V, bleed_S, pack_A, float(dt_s))
        valid_K = self.design.table_temperature_K
        for column, outside in (
            (kernel.SOC_LOW, self.soc < 0.0),
            (kernel.SOC_HIGH, self.soc > 1.0),
            (kernel.COLD, temperature_K < valid_K[0]),
            (kernel.HOT, temperature_K > valid_K[-1]),
        ):
            self.outside_steps[:, column] += np.add.reduceat(
                outside.astype(np.int64), layout.pack_cell_start[:-1]
            )

    def _account(
        self,
        y: FloatArray,
        level: FloatArray,
        current_A: FloatArray,
        first_V: FloatArray,
        end_V: FloatArray,
        group_V: FloatArray,
        bleed_S: FloatArray,
        pack_A: FloatArray,
        dt_s: float,
    ) -> None:
        """Take over the end of the step, its heat and its entries in the ledgers."""
        layout = self.layout
        open_V = np.empty(self.soc.size)
        kernel.mean_open_kernel(self._tables, self.soc, level, open_V)
        mean_V = self._over_groups(0.5 * (first_V + end_V)) / self._per_group
        cell_mean_V = mean_V[layout.cell_group]
        own_W = current_A * (open_V - cell_mean_V)
        leak_A = self._short_S * group_V[layout.cell_group]
        self.heat_W[:] = own_W + leak_A * cell_mean_V
        self._y, self.soc[:], self.cell_current_A[:], self._last_V[:] = y, level, current_A, end_V
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
        for column, rate in columns.items():
            self._ledger[:, column] += rate * dt_s

    # ---- individual cells ------------------------------------------------------------------------

    def set_internal_short(self, cell: int, resistance_ohm: float) -> None:
        """Put a resistor across one cell; infinity takes it away."""
        checks.check_short(cell, self.layout, resistance_ohm)
        self._short_S[cell] = 1.0 / resistance_ohm

    def scale_cell(self, cell: int, capacity_factor: float = 1.0, resistance_factor: float = 1.0) -> None:
        """Multiply capacity and resistance of one cell; its state of charge stays as it is."""
        checks.check_factors(
            cell, self.layout, capacity_factor=capacity_factor, resistance_factor=resistance_factor
        )
        self._given_J, self._given_C = self._given()  # settle with the old capacity
        self._soc_from[:] = self.soc
        self._capacity_factor[cell] *= capacity_factor
        self._resistance_factor[cell] *= resistance_factor

    # ---- ledgers and state -----------------------------------------------------------------------

    def _given(self) -> tuple[FloatArray, FloatArray]:
        energy_J, charge_C = self._given_J.copy(), self._given_C.copy()
        kernel.stored_kernel(
            self._tables,
            self.layout.cell_pack,
            self.soc,
            1.0 / (3600.0 * self.capacity_Ah),
            np.zeros(self.soc.size),
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
            "y": self._y,
            "soc": self.soc,
            "cell_current_A": self.cell_current_A,
            "heat_W": self.heat_W,
            "last_V": self._last_V,
            "slope_scale": self._slope_scale,
            "group_voltage_V": self.group_voltage_V,
            "pack_voltage_V": self.pack_voltage_V,
            "pack_power_W": self.pack_power_W,
            "pack_current_A": self._pack_current_A,
            "capacity_factor": self._capacity_factor,
            "resistance_factor": self._resistance_factor,
            "short_S": self._short_S,
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
        checks.restore(self._state(), state, "PybammBank")
