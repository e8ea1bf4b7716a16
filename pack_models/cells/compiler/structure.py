"""What kind of differential equation each part of a model is, so that each part gets the step it needs.

- *modal*: dy/dt = s(θ) A y + C g(θ) with a constant tridiagonal A, where θ are inputs and the other states:
  diffusion with a diffusivity that does not depend on the concentration. A = V diag(λ) V⁻¹ with real λ <= 0
  (finite volumes make A similar to a symmetric matrix), so in the coordinates z = V⁻¹ y every mode advances
  by an exponential, exactly while s and g hold.
- *banded*: any other vector whose own Jacobian is tridiagonal: diffusion with D(c), or with a source that
  depends on the concentration (side reactions). Linearly implicit.
- *single*: states of one number (temperature, film thickness, hysteresis). Explicit where slow, linearly
  implicit with their own slope where fast.

States that neither an output nor another state needs (discharge capacity …) are dropped. Linearity and
proportionality are read from the graph and then confirmed in numbers on a sample of states and inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pack_models.cells.compiler.graph import Node
from pack_models.cells.compiler.source import AMBIENT, VOLTAGE, Discretised, ModelError

FloatArray = NDArray[np.float64]

SAMPLES = 6
EXPLICIT_BELOW_PER_S = 1e-3  # slower single states need no implicit step, up to steps of several minutes
ELECTROLYTE_V = 0.1  # what a relative error of the whole electrolyte is worth
WEIGHTS = (0.2, 20.0)
DROPPED_SHARE = 1e-3  # part of a row of the Jacobian that may lie outside the band, if it is fast at all


@dataclass(frozen=True, eq=False)
class Modal:
    """A linear block in its modal coordinates.

    rate : (n,) λ, 1/s at scale 1, 0 for the conserved mode · vectors : (n, n) V · inverse : (n, n) V⁻¹ ·
    scale : node of s · drivers : nodes of g · shares : (n, n_drivers) V⁻¹ C
    """

    name: str
    states: slice
    rate: FloatArray
    vectors: FloatArray
    inverse: FloatArray
    scale: Node
    drivers: list[Node]
    shares: FloatArray


@dataclass(frozen=True, eq=False)
class Banded:
    """A nonlinear block.

    rhs : n nodes · low, mid, high : n nodes each, the bands of its Jacobian · typical : size of its states ·
    weight : how much closer than the electrolyte of an ordinary cell it must be followed for the same error
    of the voltage
    """

    name: str
    states: slice
    rhs: list[Node]
    low: list[Node]
    mid: list[Node]
    high: list[Node]
    typical: float
    weight: float


@dataclass(frozen=True, eq=False)
class Single:
    """A state of one number; slope None means explicit."""

    name: str
    state: int
    rhs: Node
    slope: Node | None
    typical: float


@dataclass(frozen=True, eq=False)
class Linear:
    """An output that is a fixed sum over the states: value = constant + weights · y."""

    constant: float
    weights: FloatArray


@dataclass(frozen=True, eq=False)
class Structure:
    model: Discretised
    modal: list[Modal]
    banded: list[Banded]
    single: list[Single]
    linear_outputs: dict[str, Linear]
    sample_y: FloatArray = field(repr=False)
    sample_p: FloatArray = field(repr=False)

    @property
    def exact(self) -> bool:
        """Whether a step of any length is exact: all blocks modal, none driven by a state."""
        graph = self.model.graph
        driven = [node for block in self.modal for node in (block.scale, *block.drivers)]
        return not self.banded and not self.single and not any(graph.states_of(node) for node in driven)

    def summary(self) -> dict[str, str]:
        """What was found, block by block."""
        return (
            {b.name: f"linear, {b.rate.size} exact modes, {b.shares.shape[1]} drivers" for b in self.modal}
            | {b.name: f"nonlinear, {len(b.rhs)} nodes, linearly implicit" for b in self.banded}
            | {
                b.name: "single, " + ("explicit" if b.slope is None else "linearly implicit")
                for b in self.single
            }
        )


def _samples(model: Discretised) -> tuple[FloatArray, FloatArray]:
    """States and inputs to confirm on: spread in charge, temperature and current, not at rest."""
    draw = np.random.default_rng(20)
    p = np.repeat(model.defaults[:, None], SAMPLES, axis=1)
    p[0] = model.window.nominal_Ah * draw.uniform(-1.0, 1.0, SAMPLES)
    p[1] = model.window.reference_K + np.linspace(-15.0, 20.0, SAMPLES)
    p[2] = p[1]
    x, y = model.window.stoichiometry(np.linspace(0.2, 0.85, SAMPLES))
    p[3], p[4] = x * model.maximum_mol_per_m3[0], y * model.maximum_mol_per_m3[1]
    p[5:] *= draw.uniform(0.9, 1.1, p[5:].shape)
    states = model.graph.evaluate(model.initial, np.zeros((len(model.rhs), SAMPLES)), p)
    return states * (1.0 + 0.01 * draw.uniform(-1.0, 1.0, states.shape)), p


def _live_states(model: Discretised) -> set[int]:
    """States an output needs, directly or through other states."""
    graph = model.graph
    live: set[int] = set()
    queue = [k for node in model.outputs.values() for k in graph.states_of(node)]
    while queue:
        k = queue.pop()
        if k not in live:
            live.add(k)
            queue.extend(graph.states_of(model.rhs[k]) - live)
    return live


def _symmetric_modes(matrix: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """(λ, V, V⁻¹) of a tridiagonal matrix that a diagonal scaling makes symmetric, else None."""
    from scipy.linalg import eigh_tridiagonal

    upper, lower = np.diag(matrix, 1), np.diag(matrix, -1)
    if not (upper * lower > 0.0).all():
        return None
    scaling = np.exp(np.concatenate([[0.0], np.cumsum(0.5 * np.log(lower / upper))]))
    rate, q = eigh_tridiagonal(np.diag(matrix).copy(), np.sign(upper) * np.sqrt(upper * lower))
    order = np.argsort(-rate)
    rate, q = rate[order], q[:, order]
    rate = np.where(np.abs(rate) < 1e-10 * np.abs(rate).max(), 0.0, rate)
    if (rate > 0.0).any():
        return None
    return np.asarray(rate, dtype=float), scaling[:, None] * q, q.T / scaling


def _check_tridiagonal(values: FloatArray, name: str) -> None:
    """What lies outside the three bands must be zero, or too small to matter for the stability."""
    n = values.shape[0]
    outside = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) > 1
    dropped = (np.abs(values) * outside[..., None]).sum(axis=1)
    own = np.abs(np.einsum("iik->ik", values))
    if (dropped > np.maximum(DROPPED_SHARE * own, EXPLICIT_BELOW_PER_S)).any():
        raise ModelError(
            f"{name}: its discretisation is not tridiagonal, so the compiler has no implicit step for it; "
            "use finite volumes (PyBaMM's default), or the rung spme_pybamm"
        )


def _modal(
    model: Discretised,
    name: str,
    states: slice,
    dense: list[list[Node]],
    values: FloatArray,
    y: FloatArray,
    p: FloatArray,
) -> Modal | None:
    """The block as modes, or None where it is not linear or its operator changes shape."""
    graph, n = model.graph, states.stop - states.start
    own = frozenset(range(states.start, states.stop))
    if any(graph.states_of(node) & own for row in dense for node in row):
        return None
    reference = values[:, :, 0]
    at = np.unravel_index(int(np.argmax(np.abs(reference))), reference.shape)
    ratio = values[at[0], at[1], :] / reference[at]
    if not np.allclose(values, reference[:, :, None] * ratio, rtol=1e-10, atol=1e-13 * abs(reference[at])):
        return None
    modes = _symmetric_modes(reference)
    if modes is None:
        return None
    rate, vectors, inverse = modes
    zero = graph.const(0.0)
    here = [graph.state(k) for k in range(states.start, states.stop)]
    rest = graph.substitute(model.rhs[states], dict.fromkeys(here, zero))
    # Different rows are often the same driver times a number: find the few that span them all.
    nodes = [node for node in dict.fromkeys(rest) if node != zero]
    drivers: list[Node] = []
    shares = np.zeros((n, 0))
    if nodes:
        draw = np.random.default_rng(21)
        many_y = np.repeat(y, 5, axis=1) * (1.0 + 0.02 * draw.uniform(-1.0, 1.0, (y.shape[0], 5 * SAMPLES)))
        many_p = np.repeat(p, 5, axis=1)
        many_p[0] *= draw.uniform(-1.0, 1.0, 5 * SAMPLES)
        table = graph.evaluate(rest, many_y, many_p)
        size = np.abs(table).max()
        left = table.copy()
        chosen: list[int] = []
        while np.abs(left).max() > 1e-12 * size and len(chosen) < n:
            chosen.append(int(np.argmax((left**2).sum(axis=1))))
            basis = table[chosen]
            weights = np.linalg.lstsq(basis.T, table.T, rcond=None)[0].T
            left = table - weights @ basis
        weights[np.abs(weights) < 1e-13] = 0.0
        drivers, shares = [rest[k] for k in chosen], inverse @ weights
    entry = dense[at[0]][at[1]]
    scale = graph.apply("mul", entry, graph.const(1.0 / float(reference[at])))
    if graph.is_const(entry):
        scale = graph.const(1.0)
    return Modal(name, states, rate, vectors, inverse, scale, drivers, shares)


def analyse(model: Discretised) -> Structure:
    """Sort the states of a model into blocks."""
    graph = model.graph
    y, p = _samples(model)
    live = _live_states(model)
    modal: list[Modal] = []
    banded: list[Banded] = []
    single: list[Single] = []
    covered: set[int] = set()
    for name, states in model.blocks:
        members = range(states.start, states.stop)
        covered |= set(members)
        if not live & set(members):
            continue
        dense = model.jacobian(states, states) if len(members) > 1 else []
        typical = float(np.abs(y[states]).max())
        if not dense:
            single.append(_single(model, name, states.start, typical, y, p))
            continue
        n = len(members)
        values = graph.evaluate([node for row in dense for node in row], y, p).reshape(n, n, -1)
        if not np.isfinite(values).all():
            raise ModelError(f"{model.label}: the Jacobian of {name} is not finite at ordinary states")
        _check_tridiagonal(values, f"{model.label}: {name}")
        linear = _modal(model, name, states, dense, values, y, p)
        if linear is not None:
            modal.append(linear)
            continue
        zero = graph.const(0.0)
        banded.append(
            Banded(
                name,
                states,
                model.rhs[states],
                [zero] + [dense[k][k - 1] for k in range(1, n)],
                [dense[k][k] for k in range(n)],
                [dense[k][k + 1] for k in range(n - 1)] + [zero],
                typical,
                _weight(model, states, y, p),
            )
        )
    if live - covered:
        raise ModelError(f"{model.label}: states {sorted(live - covered)} belong to no variable")
    return Structure(model, modal, banded, single, _linear_outputs(model, y, p), y, p)


def _weight(model: Discretised, states: slice, y: FloatArray, p: FloatArray) -> float:
    """Volts by which relative errors of a block move the voltage, over those of an electrolyte."""
    voltage = model.outputs[VOLTAGE]
    base = model.graph.evaluate([voltage], y, p)[0]
    moved = np.zeros_like(base)
    for state in range(states.start, states.stop):
        other = y.copy()
        other[state] *= 1.0 + 1e-6
        moved += np.abs(model.graph.evaluate([voltage], other, p)[0] - base) * 1e6
    return float(np.clip(moved.max() / ELECTROLYTE_V, *WEIGHTS))


def _single(
    model: Discretised, name: str, state: int, typical: float, y: FloatArray, p: FloatArray
) -> Single:
    rhs = model.rhs[state]
    slope = None
    if state in model.graph.states_of(rhs):
        change = np.zeros_like(y)
        change[state] = np.maximum(np.abs(y[state]), 1e-3) * 1e-5
        above, below = (model.graph.evaluate([rhs], y + sign * change, p)[0] for sign in (1.0, -1.0))
        stiffness = np.abs((above - below) / (2.0 * change[state])).max()
        if not stiffness < EXPLICIT_BELOW_PER_S:
            slope = model.jacobian(slice(state, state + 1), slice(state, state + 1))[0][0]
    return Single(name, state, rhs, slope, typical)


def _linear_outputs(model: Discretised, y: FloatArray, p: FloatArray) -> dict[str, Linear]:
    """Outputs that are a fixed weighted sum of many states (lithium content): cheap in modal coordinates."""
    found = {}
    draw = np.random.default_rng(22)
    for name, node in model.outputs.items():
        states = sorted(model.graph.states_of(node))
        if len(states) < 8 or model.graph.inputs_of(node) - {model.input_names.index(AMBIENT)}:
            continue
        base = y[:, :1]
        steps = np.repeat(base, len(states), axis=1)
        size = np.maximum(np.abs(base[states, 0]), 1.0)
        steps[states, range(len(states))] += size
        inputs = np.repeat(p[:, :1], len(states), axis=1)
        start = model.graph.evaluate([node], base, p[:, :1])[0, 0]
        slopes = (model.graph.evaluate([node], steps, inputs)[0] - start) / size
        weights = np.zeros(y.shape[0])
        weights[states] = slopes
        constant = float(start - weights @ base[:, 0])
        trial_p = p.copy()
        trial = y * (1.0 + 0.1 * draw.uniform(-1.0, 1.0, y.shape))
        told = model.graph.evaluate([node], trial, trial_p)[0]
        guess = constant + weights @ trial
        if np.allclose(told, guess, rtol=1e-12, atol=1e-13 * np.abs(told).max()):
            found[name] = Linear(0.0 if abs(constant) < 1e-13 * abs(start) else constant, weights)
    return found
