"""PyBaMM cells behind the port of the bank: spm, spme or dfn advanced by PyBaMM's own solver.

For audits and comparisons: each cell is PyBaMM's discretised model, advanced by IDAKLU (`pybamm_engine`);
costs about 0.3 ms (spm), 1 ms (spme), 8 ms (dfn) per cell and solve. The rungs for daily use are the compiled
models of `compiled_cell`. Entropic heat is left out: the parameter sets used here carry none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pack_models.catalogue.design import CellDesign, PackDesign
from pack_models.cells import bank as checks
from pack_models.cells.bank import BoolArray, FloatArray
from pack_models.cells.ecm_step import slopes
from pack_models.cells.physical_bank import PhysicalBank, StepError
from pack_models.cells.pybamm_engine import MODELS, SolverError, shared_engine
from pack_models.cells.tables import StepTableMaker, cell_tables
from pack_models.layout import Layout


class _Solver:
    """`PybammCells` as a `CellEngine`; forecasts with the slopes of the circuit, times what was learnt."""

    voltage_tolerance_V = 1e-5

    def __init__(self, design: CellDesign, parameter_set: str, model: str, soc: FloatArray) -> None:
        self._cells = shared_engine(parameter_set, model)
        self.capacity_C = np.full(soc.size, self._cells.lithium_capacity_C)
        self._tables = cell_tables(design)._replace(has_entropy=False, hysteresis_rate=0.0)
        self._step_tables = StepTableMaker(design)
        self._y = self._cells.initial_state(soc)
        self._tried = self._y.copy()
        self._first_V, self._end_V, self._level = np.zeros(soc.size), np.zeros(soc.size), np.zeros(soc.size)
        self._slope_scale = np.ones(soc.size)
        self._circuit_ohm = np.ones(soc.size)
        self._per_charge = 1.0 / self.capacity_C
        self._none = np.ones(soc.size)

    def look(self, current_A: FloatArray, temperature_K: FloatArray) -> tuple[FloatArray, FloatArray]:
        return self._cells.observe(self._y, current_A, temperature_K)

    def try_step(
        self, current_A: FloatArray, temperature_K: FloatArray, dt_s: float, changed: BoolArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        cells = np.flatnonzero(changed)
        try:
            self._tried[cells], path = self._cells.advance(
                self._y[cells], current_A[cells], temperature_K[cells], np.array([dt_s])
            )
        except SolverError as failure:
            raise StepError(int(cells[failure.cell]), failure.reason) from None
        self._first_V[cells], self._end_V[cells] = path.voltage_V[0], path.voltage_V[-1]
        self._level[cells] = path.soc[-1]
        return self._first_V.copy(), self._end_V.copy(), self._level.copy()

    def take(self) -> None:
        self._y[...] = self._tried

    def forecast(
        self,
        soc: FloatArray,
        current_A: FloatArray,
        last_V: FloatArray,
        temperature_K: FloatArray,
        dt_s: float,
    ) -> tuple[FloatArray, FloatArray]:
        """From the last voltage and the circuit's slope: good to some 10 mV for steps of a minute."""
        slope_ohm, drift_ohm = slopes(
            self._tables, self._step_tables(dt_s), soc, current_A, self._per_charge, self._none, temperature_K
        )
        self._circuit_ohm = slope_ohm.copy()
        slope_ohm = slope_ohm * self._slope_scale
        return last_V + (slope_ohm - drift_ohm) * current_A, slope_ohm

    def learn(self, r_ohm: FloatArray, dt_s: float) -> None:
        self._slope_scale[:] = np.clip(r_ohm / self._circuit_ohm, 0.3, 3.0)

    def state(self) -> dict[str, NDArray]:
        return {"y": self._y, "slope_scale": self._slope_scale}


class PybammBank(PhysicalBank):
    """Cells of PyBaMM's own solver; parameters as in `EcmBank`, and `model`: "spm", "spme" or "dfn"."""

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
        model: str = "dfn",
    ) -> None:
        if model not in MODELS:
            raise ValueError(f"no PyBaMM cell model {model!r}; expected one of {', '.join(MODELS)}")
        if design.pybamm is None:
            raise ValueError(
                f"cell {design.name} has no PyBaMM parameter set, so there is no {model} of it; choose ecm"
            )
        n, self.model = layout.n_cells, model
        start_soc = checks.per_item("soc", soc, n, "cell", -1e-12, 1.0 + 1e-12)
        super().__init__(
            _Solver(design, design.pybamm, model, np.clip(start_soc, 0.0, 1.0)),
            design,
            cell_tables(design)._replace(has_entropy=False, hysteresis_rate=0.0),
            layout,
            checks.per_item("capacity_factor", capacity_factor, n, "cell", 0.0),
            checks.per_item("resistance_factor", resistance_factor, n, "cell", 0.0),
            checks.per_item("temperature_K", temperature_K, n, "cell", 0.0),
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
        model: str = "dfn",
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
