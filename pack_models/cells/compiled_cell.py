"""Rungs `spm` and `spme`: PyBaMM's single-particle models, compiled, behind the port of the bank.

The equations, mesh and parameters are PyBaMM's; `compiler` turns them into a kernel that advances all cells
in one call, microvolts from IDAKLU at a thousandth of its cost. Wiring, sharing, shorts and ledgers are those
of `physical_bank`.

    bank = CompiledBank.from_pack(pack("bus_14s2p"), n_packs=4, soc=0.8, model="spme")
    bank = CompiledBank.from_model(compiled(bpx_file("cell.json", "spme")), layout, soc=0.8)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pack_models.catalogue.design import CellDesign, PackDesign
from pack_models.cells import bank as checks
from pack_models.cells.bank import BoolArray, FloatArray
from pack_models.cells.compiler.compiled import CompiledModel, compiled_set
from pack_models.cells.compiler.engine import CompiledCells
from pack_models.cells.compiler.source import MODELS, VOLTAGE
from pack_models.cells.physical_bank import PhysicalBank, StepError
from pack_models.cells.tables import CellTables, cell_tables
from pack_models.layout import Layout

PROBE_SHARE = 0.05  # of the capacity per hour: current by which a probe for the slope differs
SMALLEST_OHM = 1e-6
# Identified range of temperatures where a parameter set states none: that of its Arrhenius terms, as a rule.
ASSUMED_RANGE_K = (253.15, 333.15)
EMPTY = np.zeros(0)


class _Kernel:
    """`CompiledCells` as a `CellEngine`: forecasts are steps tried with the currents of the last one."""

    def __init__(
        self,
        model: CompiledModel,
        soc: FloatArray,
        temperature_K: FloatArray,
        inputs: Mapping[str, ArrayLike],
    ) -> None:
        self._cells = CompiledCells(model, soc, temperature_K, inputs=inputs)
        self.capacity_C = self._cells.capacity_C
        self.voltage_tolerance_V = 1e-7 if model.exact else 1e-5
        self._slope_ohm, self._slope_dt_s = np.zeros(soc.size), np.zeros(1)
        self._dt_s = 0.0
        self._known: tuple[float, FloatArray, FloatArray, FloatArray] | None = None

    def look(self, current_A: FloatArray, temperature_K: FloatArray) -> tuple[FloatArray, FloatArray]:
        self._cells.look(current_A, temperature_K)
        return self._cells.voltage_V, self._cells.soc

    def try_step(
        self, current_A: FloatArray, temperature_K: FloatArray, dt_s: float, changed: BoolArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        # All cells at once cost less than sorting out those that changed, and give the same numbers.
        self._cells.try_step(current_A, temperature_K, dt_s)
        failure = self._cells.failure(dt_s)
        if failure is not None:
            raise StepError(failure.cell, failure.reason)
        self._dt_s = dt_s
        return self._cells.output(VOLTAGE, at_start=True), self._cells.voltage_V, self._cells.soc

    def take(self) -> None:
        self._cells.take(self._dt_s)
        self._known = None

    def forecast(
        self,
        soc: FloatArray,
        current_A: FloatArray,
        last_V: FloatArray,
        temperature_K: FloatArray,
        dt_s: float,
    ) -> tuple[FloatArray, FloatArray]:
        known = self._known
        if (
            known is not None
            and known[0] == dt_s
            and np.array_equal(known[1], temperature_K)
            and np.array_equal(known[2], current_A)
        ):
            end_V = known[3]
        else:
            end_V = self._end_V(current_A, last_V, temperature_K, dt_s)
            self._known = (dt_s, temperature_K.copy(), current_A.copy(), end_V)
        if self._slope_dt_s[0] != dt_s:
            # Towards the middle of the window, where there is room.
            probe_A = PROBE_SHARE * self.capacity_C / 3600.0 * np.where(soc > 0.5, 1.0, -1.0)
            other_V = self._end_V(current_A + probe_A, last_V, temperature_K, dt_s)
            slope_ohm = (end_V - other_V) / probe_A
            fallback = np.where(self._slope_ohm > 0.0, self._slope_ohm, 1e-2)
            self._slope_ohm[:] = np.where(slope_ohm > SMALLEST_OHM, slope_ohm, fallback)
            self._slope_dt_s[0] = dt_s
        return end_V + self._slope_ohm * current_A, self._slope_ohm.copy()

    def _end_V(
        self, current_A: FloatArray, last_V: FloatArray, temperature_K: FloatArray, dt_s: float
    ) -> FloatArray:
        """Voltage at the end of a step; of cells that could not follow it, that of the last one."""
        self._cells.try_step(current_A, temperature_K, dt_s)
        if self._cells.failure(dt_s) is None:
            return self._cells.voltage_V
        end_V = self._cells.voltage_V
        usable = np.isfinite(end_V) & (np.abs(end_V - last_V) < 1.0)
        return np.where(usable, end_V, last_V)

    def learn(self, r_ohm: FloatArray, dt_s: float) -> None:
        self._slope_ohm[:] = np.maximum(r_ohm, SMALLEST_OHM)
        self._slope_dt_s[0] = dt_s

    def state(self) -> dict[str, NDArray]:
        self._known = None  # the caller may write into what we hand out
        own = self._cells.state_arrays()
        del own["inputs"]  # given anew with every step
        return {**own, "slope_ohm": self._slope_ohm, "slope_dt_s": self._slope_dt_s}


def open_circuit(model: CompiledModel, soc: FloatArray, temperature_K: float) -> FloatArray:
    """(n,) terminal voltage of the model at rest."""
    return CompiledCells(model, soc, temperature_K).voltage_V


def with_open_circuit(design: CellDesign, model: CompiledModel) -> CellDesign:
    """The design with open circuit and entropic coefficient of the model instead of those identified."""
    soc = np.linspace(0.0, 1.0, 1001)
    at_K = model.window.reference_K
    slope = (open_circuit(model, soc, at_K + 5.0) - open_circuit(model, soc, at_K - 5.0)) / 10.0
    slope[np.abs(slope) < 1e-12] = 0.0
    return dataclasses.replace(
        design,
        reference_temperature_K=at_K,
        ocv_soc=soc,
        ocv_V=open_circuit(model, soc, at_K),
        entropic_V_per_K=slope,
        hysteresis_V=np.zeros_like(soc),
        hysteresis_rate=0.0,
        aged_soh=EMPTY,
        aged_ocv_V=np.zeros((0, soc.size)),
    )


def design_of(model: CompiledModel) -> CellDesign:
    """What a bank needs to know of a cell that has no catalogue entry, from its model alone.

    Its resistances are those of a C/10 discharge from half charge, at once and after ten minutes. Mass, heat
    capacity and form are not in a model; they are NaN and empty.
    """
    window, nan = model.window, float("nan")
    one = CompiledCells(model, 0.5)
    amps = 0.1 * window.nominal_Ah
    rest_V = float(one.voltage_V[0])
    one.step(amps, window.reference_K, 600.0)
    at_once = (rest_V - float(one.output(VOLTAGE, at_start=True)[0])) / amps
    settled = (float(open_circuit(model, one.soc, window.reference_K)[0]) - float(one.voltage_V[0])) / amps
    flat = np.ones((2, 2))
    return with_open_circuit(
        CellDesign(
            name=model.label,
            about=f"{model.label}, {model.model} compiled from PyBaMM",
            chemistry="",
            form="",
            capacity_Ah=window.nominal_Ah,
            voltage_min_V=window.lower_V,
            voltage_max_V=window.upper_V,
            temperature_min_K=ASSUMED_RANGE_K[0],
            temperature_max_K=ASSUMED_RANGE_K[1],
            charge_current_max_A=nan,
            discharge_current_max_A=nan,
            mass_kg=nan,
            heat_capacity_J_per_K=nan,
            reference_temperature_K=window.reference_K,
            ocv_soc=EMPTY,
            ocv_V=EMPTY,
            entropic_V_per_K=EMPTY,
            hysteresis_V=EMPTY,
            hysteresis_rate=0.0,
            table_soc=np.array([0.0, 1.0]),
            table_temperature_K=np.array(ASSUMED_RANGE_K),
            resistance0_ohm=at_once * flat,
            resistance1_ohm=max(settled - at_once, SMALLEST_OHM) * flat,
            time_constant1_s=np.full(2, 60.0),
            resistance2_ohm=SMALLEST_OHM * flat,
            time_constant2_s=np.full(2, 600.0),
            aged_soh=EMPTY,
            aged_ocv_V=np.zeros((0, 0)),
            aged_resistance_shape=np.zeros((0, 0)),
            pybamm=None,
            fit={},
            sources={},
        ),
        model,
    )


class CompiledBank(PhysicalBank):
    """Cells of a compiled PyBaMM model; parameters as in `EcmBank`, `model`: "spm", "spme" or a compiled
    isothermal model, and `inputs` of that by name."""

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
        model: str | CompiledModel = "spme",
        inputs: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        if isinstance(model, str):
            if model not in MODELS:
                raise ValueError(f"no compiled cell model {model!r}; expected one of {', '.join(MODELS)}")
            if design.pybamm is None:
                raise ValueError(
                    f"cell {design.name} has no PyBaMM parameter set, so there is no {model} of it; "
                    "choose ecm"
                )
            model = compiled_set(design.pybamm, model)
        n, self.model = layout.n_cells, model.model
        start_soc = checks.per_item("soc", soc, n, "cell", -1e-12, 1.0 + 1e-12)
        start_K = checks.per_item("temperature_K", temperature_K, n, "cell", 0.0)
        super().__init__(
            _Kernel(model, np.clip(start_soc, 0.0, 1.0), start_K, inputs or {}),
            design,
            _tables(design, model),
            layout,
            checks.per_item("capacity_factor", capacity_factor, n, "cell", 0.0),
            checks.per_item("resistance_factor", resistance_factor, n, "cell", 0.0),
            start_K,
            busbar_resistance_ohm,
            balancing_resistance_ohm,
        )

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
    ) -> Self:
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

    @classmethod
    def from_model(
        cls,
        model: CompiledModel,
        layout: Layout,
        soc: ArrayLike,
        inputs: Mapping[str, ArrayLike] | None = None,
        **others: ArrayLike,
    ) -> Self:
        """The bank of any compiled isothermal model, such as a BPX file.

        inputs : (n_cells,) or one number for each parameter the model was compiled to take per cell;
        others : as in `__init__`
        """
        return cls(design_of(model), layout, soc, model=model, inputs=inputs, **others)


def _tables(design: CellDesign, model: CompiledModel) -> CellTables:
    """Open circuit and entropic coefficient of the model itself, so that the ledger counts what it does."""
    return cell_tables(with_open_circuit(design, model))
