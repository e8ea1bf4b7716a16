"""Many cells of one compiled model, advanced together.

State, inputs and outputs lie in memory as (n_vectors, rows, 8): eight cells side by side, so that a step
reads and writes each number once. Currents are positive on discharge.

    cells = CompiledCells(compiled(parameter_set("Chen2020", "spme")), soc=np.full(1000, 0.8))
    for k in range(3600):
        cells.step(current_A[k], temperature_K, dt_s=1.0)
        cells.voltage_V, cells.soc
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pack_models.cells.bank import restore
from pack_models.cells.compiler.compiled import WIDTH, CompiledModel
from pack_models.cells.compiler.emit import TOLERANCE
from pack_models.cells.compiler.source import (
    AMBIENT,
    CURRENT,
    INITIAL_CONCENTRATION,
    INITIAL_TEMPERATURE,
    LITHIUM,
    SURFACES,
    TEMPERATURE,
    VOLTAGE,
)
from pack_models.cells.pybamm_engine import FARADAY_C_PER_MOL, HIGHEST_CUT_OFF_V, LOWEST_CUT_OFF_V

FloatArray = NDArray[np.float64]

EVENT_WITHIN_S = 1e-3  # a limit inside a step is found this closely


class CellStepError(RuntimeError):
    """A cell cannot follow: a particle surface ran empty or full, or the voltage left all sense.

    `cell`, `time_s` (end of the step, since the cells were made), `quantity`, `value`, `low`, `high`
    """

    def __init__(
        self, cell: int, time_s: float, quantity: str, value: float, low: float, high: float, step: str
    ) -> None:
        self.cell, self.time_s, self.quantity = cell, time_s, quantity
        self.value, self.low, self.high = value, low, high
        self.reason = (
            f"{quantity} would be {value:.5g} at {time_s:g} s, outside {low:g} to {high:g}, after {step}; "
            "lower the current, stay inside the window, or choose ecm"
        )
        super().__init__(f"cell {cell}: {self.reason}")


@dataclass(frozen=True)
class Event:
    """A voltage limit reached inside a step, which was cut there."""

    cell: int
    time_s: float
    voltage_V: float
    low_V: float
    high_V: float

    def __str__(self) -> str:
        return (
            f"cell {self.cell} at {self.time_s:.3f} s: {self.voltage_V:.4f} V reached the window "
            f"{self.low_V:g} to {self.high_V:g} V"
        )


def _aligned(shape: tuple[int, ...]) -> FloatArray:
    """Zeros at a 64-byte address, as the kernel's vectors need."""
    size = int(np.prod(shape))
    raw = np.zeros(size + 8)
    at = (-raw.ctypes.data // 8) % 8
    return raw[at : at + size].reshape(shape)


def _per_cell(name: str, value: ArrayLike, n: int) -> FloatArray:
    """(n,) finite numbers, or an error that names the first cell without one."""
    full = np.broadcast_to(np.asarray(value, dtype=float), (n,))
    if not np.isfinite(full).all():
        cell = int(np.flatnonzero(~np.isfinite(full))[0])
        raise ValueError(f"{name} of cell {cell} is {full[cell]}; expected a finite number")
    return full


class CompiledCells:
    """N independent cells.

    Parameters
    ----------
    model : what they are
    soc : (n,) state of charge at rest, 0…1 (its size says how many cells there are)
    temperature_K : (n,) or one; of the surroundings and, in models with a thermal state, of the cell
    tolerance : of the step size control where a step is not exact; see the README for the errors left
    inputs : further inputs by name, one number or (n,) each
    """

    def __init__(
        self,
        model: CompiledModel,
        soc: ArrayLike,
        temperature_K: ArrayLike | None = None,
        tolerance: float = TOLERANCE,
        inputs: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        soc = np.atleast_1d(np.asarray(soc, dtype=float))
        n = soc.size
        self.model, self.n, self.tolerance = model, n, float(tolerance)
        self._blocks = -(-n // WIDTH)
        self._inputs = _aligned((self._blocks, len(model.input_names), WIDTH))
        self._inputs[:] = model.defaults[:, None]
        self._state, self._trial = (_aligned((self._blocks, model.n_rows, WIDTH)) for _ in range(2))
        self._first, self._last = (_aligned((self._blocks, len(model.output_names), WIDTH)) for _ in range(2))
        self._row = {name: k for k, name in enumerate(model.output_names)}
        self._input_row = {name: k for k, name in enumerate(model.input_names)}
        self._clock_s = np.zeros(1)
        self.rounds = 0  # inner steps of all vectors so far: 1 a step at best
        at_K = model.window.reference_K if temperature_K is None else temperature_K
        self.set_input(AMBIENT, at_K)
        self.set_input(INITIAL_TEMPERATURE, at_K)
        for name, value in (inputs or {}).items():
            self.set_input(name, value)
        # Cells of different size hold different amounts.
        self._empty_mol, self._full_mol = self._lithium_at(0.0), self._lithium_at(1.0)
        self.rest(soc)

    # ---- memory ----------------------------------------------------------------------------------

    def _spread(self, value: ArrayLike) -> FloatArray:
        """(n,) → (n_vectors, 8); the lanes beyond the last cell repeat it."""
        full = np.broadcast_to(np.asarray(value, dtype=float), (self.n,))
        spare = self._blocks * WIDTH - self.n
        return (np.concatenate([full, np.repeat(full[-1:], spare)]) if spare else full).reshape(-1, WIDTH)

    def _row_of(self, block: FloatArray, row: int) -> FloatArray:
        return block[:, row, :].flatten()[: self.n]  # a copy always: the next step writes over the block

    def set_input(self, name: str, value: ArrayLike) -> None:
        """Give every cell its value of an input."""
        if name not in self._input_row:
            raise ValueError(
                f"{self.model.label} was compiled without the input {name!r}; it has "
                f"{', '.join(self._input_row)}"
            )
        self._inputs[:, self._input_row[name], :] = self._spread(_per_cell(name, value, self.n))

    def rest(self, soc: ArrayLike) -> None:
        """Put all cells at rest at these states of charge; time starts anew."""
        soc = _per_cell("soc", soc, self.n)
        if (soc < -1e-12).any() or (soc > 1.0 + 1e-12).any():
            cell = int(np.flatnonzero((soc < -1e-12) | (soc > 1.0 + 1e-12))[0])
            raise ValueError(f"soc of cell {cell} is {soc[cell]:g}; expected 0 to 1")
        for name, x, top in zip(
            INITIAL_CONCENTRATION,
            self.model.window.stoichiometry(np.clip(soc, 0.0, 1.0)),
            self.model.maximum_mol_per_m3,
            strict=True,
        ):
            self.set_input(name, x * top)
        self._rest_at_inputs()

    def _rest_at_inputs(self) -> None:
        p = self._inputs.transpose(1, 0, 2).reshape(len(self._input_row), -1)
        # Summed input by input: a matrix product would round differently with the number of cells.
        rows = np.repeat((self.model.to_rows @ self.model.start)[:, None], p.shape[1], axis=1)
        for column, value in zip((self.model.to_rows @ self.model.start_per_input).T, p, strict=True):
            if column.any():
                rows += column[:, None] * value
        if not self.model.exact:
            rows[-1] = 1.0  # step length to try first
        self._state[:] = rows.reshape(-1, self._blocks, WIDTH).transpose(1, 0, 2)
        self._clock_s[0] = 0.0
        self.set_input(CURRENT, 0.0)
        self._look()

    def _lithium_at(self, soc: float) -> FloatArray:
        """(n,) lithium (mol) in the negative electrode of each cell at rest at a state of charge."""
        self.rest(soc)
        return self.output(LITHIUM)

    def _look(self) -> None:
        self.model.library.look(
            self._blocks, self._inputs.ctypes.data, self._state.ctypes.data, self._last.ctypes.data
        )

    def look(self, current_A: ArrayLike, temperature_K: ArrayLike) -> None:
        """Outputs in the present state under a current and temperature, without a step."""
        self.set_input(CURRENT, current_A)
        self.set_input(AMBIENT, temperature_K)
        self._look()

    # ---- results ---------------------------------------------------------------------------------

    @property
    def time_s(self) -> float:
        """Time since the cells were at rest."""
        return float(self._clock_s[0])

    def output(self, name: str, at_start: bool = False) -> FloatArray:
        """(n,) an output at the end of the last step, or at its start just after the current changed."""
        return self._row_of(self._first if at_start else self._last, self._row[name])

    @property
    def voltage_V(self) -> FloatArray:
        """(n,) terminal voltage."""
        return self.output(VOLTAGE)

    @property
    def soc(self) -> FloatArray:
        """(n,) state of charge by the lithium in the negative electrode."""
        return (self.output(LITHIUM) - self._empty_mol) / (self._full_mol - self._empty_mol)

    @property
    def temperature_K(self) -> FloatArray:
        """(n,) of the cell: that given, or the model's own state."""
        return self.output(TEMPERATURE)

    @property
    def capacity_C(self) -> FloatArray:
        """(n,) charge between soc 0 and 1."""
        return np.asarray((self._full_mol - self._empty_mol) * FARADAY_C_PER_MOL)

    @property
    def states(self) -> FloatArray:
        """(n, n_states) the states of PyBaMM's discretised model, in its order; dropped ones are 0."""
        rows = self._state.transpose(1, 0, 2).reshape(self.model.n_rows, -1)[:, : self.n]
        return (self.model.to_states @ rows).T

    # ---- stepping --------------------------------------------------------------------------------

    def try_step(self, current_A: ArrayLike, temperature_K: ArrayLike, dt_s: float) -> None:
        """A step without taking it over: outputs are those at its start and end, the state stays."""
        if not (np.isfinite(dt_s) and dt_s > 0.0):
            raise ValueError(f"dt_s is {dt_s!r}; expected a positive number of seconds")
        self.set_input(CURRENT, current_A)
        self.set_input(AMBIENT, temperature_K)
        self.rounds += self._advance(dt_s, True)

    def _advance(self, dt_s: float, both: bool) -> int:
        return int(
            self.model.library.advance(
                self._blocks,
                float(dt_s),
                self.tolerance,
                self._inputs.ctypes.data,
                self._state.ctypes.data,
                self._trial.ctypes.data,
                self._first.ctypes.data if both else None,
                self._last.ctypes.data,
            )
        )

    def failure(self, dt_s: float) -> CellStepError | None:
        """The first cell whose tried step left what the model can describe."""
        for name, low, high in (
            (SURFACES[0], 0.0, 1.0),
            (SURFACES[1], 0.0, 1.0),
            (VOLTAGE, LOWEST_CUT_OFF_V, HIGHEST_CUT_OFF_V),
        ):
            value = self._last[:, self._row[name], :]
            if not (value.min() > low and value.max() < high):  # not a number fails both
                value = self.output(name)
                lost = np.flatnonzero(~((value > low) & (value < high)))
                cell = int(lost[0])
                amps = self._row_of(self._inputs, self._input_row[CURRENT])[cell]
                kelvin = self._row_of(self._inputs, self._input_row[AMBIENT])[cell]
                return CellStepError(
                    cell,
                    self.time_s + dt_s,
                    name,
                    float(value[cell]),
                    low,
                    high,
                    f"{dt_s:g} s at {amps:.4g} A and {kelvin:.2f} K",
                )
        return None

    def take(self, dt_s: float) -> None:
        """Take over the step that was tried last."""
        self._state, self._trial = self._trial, self._state
        self._clock_s[0] += dt_s

    def step(self, current_A: ArrayLike, temperature_K: ArrayLike, dt_s: float) -> None:
        """Advance all cells by dt_s with their currents and temperatures held.

        Raises CellStepError, with the cells still at the start of the step, where one cannot follow.
        """
        self.try_step(current_A, temperature_K, dt_s)
        failure = self.failure(dt_s)
        if failure is not None:
            self._look()
            raise failure
        self.take(dt_s)

    def step_to_limit(
        self,
        current_A: ArrayLike,
        temperature_K: ArrayLike,
        dt_s: float,
        low_V: float | None = None,
        high_V: float | None = None,
    ) -> tuple[float, Event | None]:
        """Advance by dt_s, or to where the first cell reaches a voltage limit (that of the parameter set).

        A cell that discharges is held against the lower limit, one that charges against the upper.

        Returns
        -------
        taken_s, event : the time advanced (at most dt_s) and what stopped it, if anything did
        """
        low = self.model.window.lower_V if low_V is None else low_V
        high = self.model.window.upper_V if high_V is None else high_V
        current = _per_cell(CURRENT, current_A, self.n)

        def crossing() -> NDArray[np.bool_]:
            volts = self.voltage_V
            with np.errstate(invalid="ignore"):
                inside = ~((current > 0.0) & ~(volts > low)) & ~((current < 0.0) & ~(volts < high))
            return ~inside | ~np.isfinite(volts)

        self.try_step(current, temperature_K, dt_s)
        if not crossing().any() and self.failure(dt_s) is None:
            self.take(dt_s)
            return dt_s, None
        inside_s, outside_s = 0.0, float(dt_s)
        cell = int(np.argmax(crossing())) if crossing().any() else self.failure(dt_s).cell  # type: ignore[union-attr]
        while outside_s - inside_s > EVENT_WITHIN_S:
            middle_s = 0.5 * (inside_s + outside_s)
            self.try_step(current, temperature_K, middle_s)
            beyond = crossing()
            if beyond.any() or self.failure(middle_s) is not None:
                outside_s, cell = middle_s, int(np.argmax(beyond)) if beyond.any() else cell
            else:
                inside_s = middle_s
        if inside_s > 0.0:
            self.try_step(current, temperature_K, inside_s)
            self.take(inside_s)
        else:
            self._look()
        return inside_s, Event(cell, self.time_s, float(self.voltage_V[cell]), low, high)

    # ---- state -----------------------------------------------------------------------------------

    def state_arrays(self) -> dict[str, NDArray]:
        """What the cells need to go on, as the arrays themselves; valid until the next step."""
        return {"rows": self._state, "inputs": self._inputs, "clock_s": self._clock_s}

    def get_state(self) -> dict[str, NDArray]:
        """Everything the cells need to go on, as copies."""
        return {name: array.copy() for name, array in self.state_arrays().items()}

    def set_state(self, state: dict[str, NDArray]) -> None:
        """Go on from a saved state, bit for bit."""
        restore(self.state_arrays(), state, f"{self.n} cells of {self.model.label}")
        self._look()
