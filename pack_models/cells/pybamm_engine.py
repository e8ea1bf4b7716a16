"""PyBaMM's own discretised cell model and solver, driven for many cells at once.

A model (SPM, SPMe or DFN; isothermal at a temperature given from outside) is built once with current,
temperature and initial concentrations as inputs; IDAKLU then advances all cells from their own states in
one call. The batch call is not part of PyBaMM's public interface (`IDAKLUSolver._setup`), which is why
the version is pinned; going through `Simulation.step` cell by cell gives the same numbers and costs
two to four times more.

Current in A, positive on discharge (as in PyBaMM).

    cells = PybammCells("Chen2020", "spme")
    y = cells.initial_state(np.array([0.8, 0.9]))
    y, path = cells.advance(y, current_A, temperature_K, np.array([60.0]))
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

FloatArray = NDArray[np.float64]

MODELS = {"spm": "SPM", "spme": "SPMe", "dfn": "DFN"}
FARADAY_C_PER_MOL = 96485.33212
# Runs may pass the cell's own limits, which the bank reports; beyond these a surface is empty or full.
LOWEST_CUT_OFF_V, HIGHEST_CUT_OFF_V = 0.0, 6.0


def load_pybamm() -> Any:
    """PyBaMM with telemetry off, or what to do when it is missing."""
    os.environ.setdefault("PYBAMM_DISABLE_TELEMETRY", "true")
    try:
        import pybamm
    except ImportError as missing:
        raise ImportError("cell models spm, spme and dfn need pybamm; install it, or choose ecm") from missing
    return pybamm


@dataclass(frozen=True, eq=False)
class CellWindow:
    """Stoichiometries of a parameter set at its cut-off voltages, and the charge between."""

    negative_empty: float
    negative_full: float
    positive_empty: float
    positive_full: float
    capacity_Ah: float


@lru_cache(maxsize=8)
def cell_window(parameter_set: str) -> CellWindow:
    """The window of a PyBaMM parameter set between its cut-off voltages at its reference temperature."""
    pybamm = load_pybamm()
    values = pybamm.ParameterValues(parameter_set)
    empty_n, full_n, full_p, empty_p = pybamm.lithium_ion.get_min_max_stoichiometries(values)
    parameters = pybamm.LithiumIonParameters()
    capacity = float(values.evaluate(parameters.n.prim.Q_init)) * (full_n - empty_n)
    return CellWindow(float(empty_n), float(full_n), float(empty_p), float(full_p), float(capacity))


@lru_cache(maxsize=8)
def aged_window(parameter_set: str, soh: float) -> CellWindow:
    """The window after so much cyclable lithium is lost that the capacity is soh of the fresh one."""
    pybamm = load_pybamm()
    values, parameters = pybamm.ParameterValues(parameter_set), pybamm.LithiumIonParameters()
    fresh_Ah = cell_window(parameter_set).capacity_Ah
    solver = pybamm.lithium_ion.ElectrodeSOHSolver(values, parameters)
    given = {
        "Q_n": float(values.evaluate(parameters.n.Q_init)),
        "Q_p": float(values.evaluate(parameters.p.Q_init)),
    }
    lithium_Ah = float(values.evaluate(parameters.Q_Li_particles_init))

    def window(left: float) -> CellWindow:
        found = solver.solve({**given, "Q_Li": left * lithium_Ah})
        return CellWindow(*(float(found[name]) for name in ("x_0", "x_100", "y_0", "y_100", "Q")))

    left = brentq(lambda left: window(left).capacity_Ah - soh * fresh_Ah, soh - 0.1, 1.0, xtol=1e-6)
    return window(left)


def open_circuit(parameter_set: str, soc: FloatArray, temperature_K: float, soh: float = 1.0) -> FloatArray:
    """Equilibrium voltage (V) over soc 0…1 from the half-cell potentials of a parameter set.

    soh : capacity left over the fresh one, lost as cyclable lithium; soc counts in what is left
    """
    pybamm = load_pybamm()
    values = pybamm.ParameterValues(parameter_set)
    window = cell_window(parameter_set) if soh == 1.0 else aged_window(parameter_set, soh)
    parameters = pybamm.LithiumIonParameters()
    x = window.negative_empty + soc * (window.negative_full - window.negative_empty)
    y = window.positive_empty + soc * (window.positive_full - window.positive_empty)
    T = pybamm.Scalar(temperature_K)
    difference = parameters.p.prim.U(pybamm.Vector(y), T) - parameters.n.prim.U(pybamm.Vector(x), T)
    return np.asarray(values.process_symbol(difference).evaluate()).ravel().astype(float)


@dataclass(frozen=True, eq=False)
class Path:
    """What was observed: (n_times, n_cells), at 0+ (current flowing) and at the times asked for."""

    time_s: FloatArray
    voltage_V: FloatArray
    soc: FloatArray


class PybammCells:
    """A discretised PyBaMM model that advances any number of cells from their own states.

    Parameters
    ----------
    parameter_set : a name PyBaMM knows, such as "Chen2020"
    model : "spm", "spme" or "dfn"
    rtol, atol : tolerances of IDAKLU
    """

    def __init__(self, parameter_set: str, model: str, rtol: float = 1e-6, atol: float = 1e-8) -> None:
        if model not in MODELS:
            raise ValueError(f"no PyBaMM model {model!r}; expected one of {', '.join(MODELS)}")
        pybamm = load_pybamm()
        import casadi

        self.parameter_set, self.model, self.window = parameter_set, model, cell_window(parameter_set)
        values = pybamm.ParameterValues(parameter_set)
        maximum = [
            float(values[f"Maximum concentration in {side} electrode [mol.m-3]"])
            for side in ("negative", "positive")
        ]
        self._maximum_mol_per_m3 = maximum
        names = [
            "Current function [A]",
            "Ambient temperature [K]",
            "Initial temperature [K]",
            "Initial concentration in negative electrode [mol.m-3]",
            "Initial concentration in positive electrode [mol.m-3]",
        ]
        values.update(dict.fromkeys(names, "[input]"))
        values.update(
            {
                "Lower voltage cut-off [V]": LOWEST_CUT_OFF_V,
                "Upper voltage cut-off [V]": HIGHEST_CUT_OFF_V,
            }
        )
        built = getattr(pybamm.lithium_ion, MODELS[model])()
        built.events = []
        solver = pybamm.IDAKLUSolver(rtol=rtol, atol=atol)
        simulation = pybamm.Simulation(built, parameter_values=values, solver=solver)
        first = dict(zip(names, [0.0, 298.15, 298.15, *self._initial_concentrations(0.5)], strict=True))
        simulation.build(inputs=first)
        self._built = simulation.built_model
        simulation.solver.set_up(self._built, [first], np.array([0.0, 1.0]))
        self._solver = simulation.solver._setup["solver"]
        self._names = names
        self.n_states = int(self._built.len_rhs_and_alg)
        t = casadi.MX.sym("t")
        y = casadi.MX.sym("y", self.n_states)
        p = {name: casadi.MX.sym(f"p{k}") for k, name in enumerate(names)}
        seen = [
            self._built.get_processed_variable(name).to_casadi(t, y, inputs=p)
            for name in ("Terminal voltage [V]", "Total lithium in negative electrode [mol]")
        ]
        self._observe = casadi.Function("observe", [y, casadi.vertcat(*p.values())], seen)
        self._observe_many: dict[int, Any] = {}
        # Lithium in the negative electrode at empty and full is what soc 0 and 1 mean here.
        ends = np.stack([self._one_initial_state(soc) for soc in (0.0, 1.0)])
        _, self._lithium_mol = self._observed(ends, np.zeros(2), np.full(2, 298.15))

    def _initial_concentrations(self, soc: float) -> tuple[float, float]:
        w = self.window
        x = w.negative_empty + soc * (w.negative_full - w.negative_empty)
        y = w.positive_empty + soc * (w.positive_full - w.positive_empty)
        return x * self._maximum_mol_per_m3[0], y * self._maximum_mol_per_m3[1]

    def _one_initial_state(self, soc: float) -> FloatArray:
        inputs = dict(
            zip(self._names, [0.0, 298.15, 298.15, *self._initial_concentrations(soc)], strict=True)
        )
        state = self._built.concatenated_initial_conditions.evaluate(0, inputs=inputs)
        return np.concatenate([np.asarray(state, dtype=float).ravel(), self._initial_concentrations(soc)])

    def initial_state(self, soc: FloatArray) -> FloatArray:
        """(n_cells, n_states + 2) at rest at the given states of charge, 0…1.

        The last two columns are the initial concentrations: the model measures its potentials from the
        open circuit there, so they belong to the state and never change.
        """
        return np.stack([self._one_initial_state(float(value)) for value in np.atleast_1d(soc)])

    def _inputs(self, y: FloatArray, current_A: FloatArray, temperature_K: FloatArray) -> FloatArray:
        return np.column_stack([current_A, temperature_K, temperature_K, y[:, self.n_states :]])

    def _observed(
        self, y: FloatArray, current_A: FloatArray, temperature_K: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        n = y.shape[0]
        if n not in self._observe_many:
            self._observe_many[n] = self._observe.map(n)
        inputs = self._inputs(y, current_A, temperature_K)
        voltage_V, lithium_mol = self._observe_many[n](y[:, : self.n_states].T, inputs.T)
        return np.array(voltage_V).ravel(), np.array(lithium_mol).ravel()

    def observe(
        self, y: FloatArray, current_A: FloatArray, temperature_K: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Voltage (V) and state of charge of each cell in its state under a current; both (n_cells,)."""
        voltage_V, lithium_mol = self._observed(y, current_A, temperature_K)
        empty, full = self._lithium_mol
        return voltage_V, (lithium_mol - empty) / (full - empty)

    @property
    def lithium_capacity_C(self) -> float:
        """Charge between soc 0 and 1 by the lithium the discretised model holds."""
        empty, full = self._lithium_mol
        return float((full - empty) * FARADAY_C_PER_MOL)

    def advance(
        self, y: FloatArray, current_A: FloatArray, temperature_K: FloatArray, times_s: FloatArray
    ) -> tuple[FloatArray, Path]:
        """Hold current and temperature of each cell from now to times_s[-1].

        Returns
        -------
        y : (n_cells, n_states + 2) at times_s[-1]
        path : voltage and state of charge at 0+ and at times_s
        """
        times = np.concatenate([[0.0], times_s])
        n, n_states = y.shape[0], self.n_states
        try:
            solutions = self._solver.solve(
                np.array([0.0, times_s[-1]]),
                times,
                np.ascontiguousarray(y[:, :n_states]),
                np.zeros((n, n_states)),
                self._inputs(y, current_A, temperature_K),
                logger=None,
                pbar=np.empty((0, 0)),
            )
        except ValueError as failure:  # "input set 3: ..."
            number = re.search(r"input set (\d+)", str(failure))
            cell = int(number.group(1)) if number else 0
            raise SolverError(cell, current_A[cell], temperature_K[cell], times_s[-1]) from None
        states = np.empty((times.size, n, y.shape[1]))
        states[:, :, n_states:] = y[:, n_states:]
        for cell, solution in enumerate(solutions):
            if solution.flag < 0 or solution.t.size != times.size:
                raise SolverError(cell, current_A[cell], temperature_K[cell], times_s[-1])
            states[:, cell, :n_states] = np.asarray(solution.y).reshape(times.size, n_states)
        repeat = times.size
        voltage_V, soc = self.observe(
            states.reshape(repeat * n, -1), np.tile(current_A, repeat), np.tile(temperature_K, repeat)
        )
        voltage_V = voltage_V.reshape(repeat, n)
        # Without events spm and spme go on past an empty surface and say thousands of volts.
        lost = ~((voltage_V > LOWEST_CUT_OFF_V) & (voltage_V < HIGHEST_CUT_OFF_V)).all(axis=0)
        if lost.any():
            cell = int(np.argmax(lost))
            raise SolverError(cell, current_A[cell], temperature_K[cell], times_s[-1])
        return states[-1].copy(), Path(times, voltage_V, soc.reshape(repeat, n))


class SolverError(RuntimeError):
    """PyBaMM could not finish a step of one cell: as a rule its particles ran empty or full."""

    def __init__(self, cell: int, current_A: float, temperature_K: float, dt_s: float) -> None:
        self.cell = cell
        self.reason = (
            f"PyBaMM could not follow {dt_s:g} s at {current_A:.4g} A and {temperature_K:.2f} K; as a rule a "
            "particle surface ran empty or full: lower the current, stay inside the window, or choose ecm"
        )
        super().__init__(f"cell {cell}: {self.reason}")


@lru_cache(maxsize=4)
def shared_engine(parameter_set: str, model: str) -> PybammCells:
    """One built model per parameter set and kind; it holds no state, so everybody may use it."""
    return PybammCells(parameter_set, model)


@dataclass(frozen=True, eq=False)
class Run:
    """A profile as far as the model could follow it, all (n,); current held over the interval before."""

    time_s: FloatArray
    current_A: FloatArray
    voltage_V: FloatArray
    soc: FloatArray


def run_profile(
    parameter_set: str,
    model: str,
    temperature_K: float,
    soc: float,
    time_s: FloatArray,
    current_A: FloatArray,
) -> Run:
    """One cell under current_A[k] held from time_s[k - 1] to time_s[k], from rest at `soc`.

    Sample 0 is the cell at rest. Ends early, without error, where the model cannot go on: the caller
    sees it from the length.
    """
    engine = shared_engine(parameter_set, model)
    y = engine.initial_state(np.array([soc]))
    T = np.array([temperature_K])
    voltage_V, level = np.empty(time_s.size), np.empty(time_s.size)
    at_rest_V, at_soc = engine.observe(y, np.zeros(1), T)
    voltage_V[0], level[0] = at_rest_V[0], at_soc[0]
    edges = np.flatnonzero(np.diff(current_A[1:]) != 0.0) + 1
    bounds = [0, *edges.tolist(), time_s.size - 1]
    reached = 1
    for a, b in pairwise(bounds):
        try:
            y, path = engine.advance(y, current_A[b : b + 1], T, time_s[a + 1 : b + 1] - time_s[a])
        except SolverError:
            break
        voltage_V[a + 1 : b + 1] = path.voltage_V[1:, 0]
        level[a + 1 : b + 1] = path.soc[1:, 0]
        reached = b + 1
    return Run(time_s[:reached], current_A[:reached], voltage_V[:reached], level[:reached])
