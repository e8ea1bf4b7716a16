"""Time stepping shared by the network and the finite elements.

Strang splitting: half a step of reactions and radiation at every node (kernel.c), a whole step of
conduction with boundaries and heaters (TR-BDF2 or backward Euler), half a step of reactions. The step lies
on a ladder of powers of two below the largest one, so that few matrices are ever needed; it is halved and
repeated when reactions or conduction change a node too much. What crosses each boundary is added up from
the very fluxes of the scheme, so the energy balance closes to the accuracy of the linear solver.

numpy only: the dolfinx process runs this loop too. Time s, temperature K, energy J.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from .errors import SolverError
from .kernel import MAX_REACTIONS
from .problem import Problem

GAMMA = 2.0 - math.sqrt(2.0)


class Conduction(Protocol):
    """What a discretisation provides: (diagonal + K) solves and K products on local nodes; K's own
    diagonal.
    """

    diagonal_W_K: np.ndarray

    def apply(self, temperature_K: np.ndarray) -> np.ndarray:
        """K T, W."""

    def solve(self, diagonal_W_K: np.ndarray, key: Any, rhs_W: np.ndarray, guess_K: np.ndarray) -> np.ndarray:
        """Solve (diag + K) T = rhs; `key` names the diagonal, for reuse of a factor."""

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum over all MPI ranks."""

    def largest(self, values: np.ndarray) -> np.ndarray:
        """Element-wise maximum over all MPI ranks."""


@dataclass(frozen=True)
class StepRules:
    """How time is stepped.

    Parameters
    ----------
    scheme : "trbdf2" (second order) or "be" (backward Euler)
    largest_s, smallest_s : of the step
    reaction_K : a node may be heated this much by reactions in half a step before the step is halved
    conduction_K : the estimated error of a conduction step at any node (trbdf2), or the change of a node (be)
    substep_K : temperature change per sub-step of the kinetics
    adaptive : False keeps largest_s whatever happens
    """

    scheme: str = "trbdf2"
    largest_s: float = 1.0
    smallest_s: float = 1e-4
    reaction_K: float = 40.0
    conduction_K: float = 10.0
    substep_K: float = 3.0
    adaptive: bool = True


@dataclass
class Ledger:
    """Energy since the start, J: by boundary group, radiation, reactions, triggers, session heat."""

    boundary: np.ndarray
    triggers: np.ndarray
    session: float = 0.0


@dataclass
class Timing:
    """Seconds of wall time by activity, and counts."""

    kinetics_s: float = 0.0
    solve_s: float = 0.0
    other_s: float = 0.0
    steps: int = 0
    rejected: int = 0
    solves: int = 0


@dataclass
class Trace:
    """One row per accepted step: time, cell mean and maximum temperature, cell mean extents."""

    time_s: list[float] = field(default_factory=list)
    mean_K: list[np.ndarray] = field(default_factory=list)
    max_K: list[np.ndarray] = field(default_factory=list)
    extent: list[np.ndarray] = field(default_factory=list)
    probe_K: list[np.ndarray] = field(default_factory=list)


class March:
    """State of a run and how it advances.

    Parameters
    ----------
    problem : node arrays (of this rank)
    conduction : the discretisation
    rules : stepping rules
    """

    def __init__(self, problem: Problem, conduction: Conduction, rules: StepRules) -> None:
        self.problem, self.conduction, self.rules = problem, conduction, rules
        self.temperature_K = problem.initial_K.copy()
        self.time_s = 0.0
        self.level = 0
        self.ledger = Ledger(np.zeros(len(problem.ambient_K)), np.zeros(len(problem.triggers)))
        self.timing = Timing()
        self.cell_heat_W = np.zeros(problem.n_cells)
        self._calm = 0
        r = problem.reactor
        self._order = np.argsort(r.site_cell, kind="stable")
        counts = np.bincount(r.site_cell, minlength=problem.n_cells)
        self._present = np.flatnonzero(counts)
        self._first = np.concatenate([[0], np.cumsum(counts)])[:-1][self._present]
        self._volume = self._total(np.bincount(r.site_cell, r.site_volume_m3, problem.n_cells))
        self._film_W_K = problem.conductance_W_K.sum(axis=1)
        self._cell_share = r.site_volume_m3 / self._volume[r.site_cell] if r.site_cell.size else np.zeros(0)
        self._initial_J = float(self._total(np.array([(problem.capacity_J_K * problem.initial_K).sum()]))[0])

    def _total(self, values: np.ndarray) -> np.ndarray:
        return self.conduction.total(values)

    # ---- what a run reports --------------------------------------------------------------------

    def cell_mean_K(self) -> np.ndarray:
        """(n_cells,) volume-mean temperature."""
        p = self.problem
        local = np.bincount(
            p.reactor.site_cell, self._cell_share * self.temperature_K[p.site_node], p.n_cells
        )
        return self._total(local)

    def cell_max_K(self) -> np.ndarray:
        """(n_cells,) hottest node."""
        p = self.problem
        out = np.zeros(p.n_cells)
        if self._present.size:
            out[self._present] = np.maximum.reduceat(
                self.temperature_K[p.site_node][self._order], self._first
            )
        return self.conduction.largest(out)

    def cell_extent(self) -> np.ndarray:
        """(n_cells, MAX_REACTIONS) mean extent of every reaction since the start."""
        local = self.problem.reactor.extent_m3[: self.problem.n_cells]
        if self.problem.n_cells == 0:
            return np.zeros((0, MAX_REACTIONS))
        return np.asarray(self._total(local) / self._volume[:, None])

    def energy(self) -> dict[str, float]:
        """Energy split since the start, J, and the relative imbalance."""
        p, r = self.problem, self.problem.reactor
        heat = r.tables.heat_J_m3[r.cell_set] if p.n_cells else np.zeros((1, MAX_REACTIONS))
        local = np.array(
            [
                float((p.capacity_J_K * self.temperature_K).sum()),
                float((heat * r.extent_m3[: max(p.n_cells, 1)]).sum()),
                float(r.radiated_J[0]),
            ]
        )
        stored, reactions, radiation = (float(v) for v in self._total(local))
        stored -= self._initial_J
        lost = float(self.ledger.boundary.sum()) + radiation
        abuse = float(self.ledger.triggers.sum()) + self.ledger.session
        result = {"stored": stored, "reactions": reactions, "radiation": radiation, "abuse": abuse}
        for name, value in zip(p.group_names, self.ledger.boundary, strict=True):
            result[f"boundary_{name}"] = result.get(f"boundary_{name}", 0.0) + float(value)
        turnover = max(abs(reactions) + abs(abuse) + abs(min(lost, 0.0)), abs(stored), 1e-30)
        result["imbalance"] = abs(stored + lost - reactions - abuse) / turnover
        return result

    # ---- time ----------------------------------------------------------------------------------

    def _diagonal(self, dt_s: float) -> tuple[np.ndarray, Any]:
        p = self.problem
        factor = 2.0 / (GAMMA * dt_s) if self.rules.scheme == "trbdf2" else 1.0 / dt_s
        diagonal = factor * p.capacity_J_K
        if p.scale.size:
            diagonal = diagonal + p.scale @ p.conductance_W_K
        return diagonal, (round(dt_s, 12), p.scale.tobytes())

    def _sources(self, dt_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Power at every node, W, and of every trigger, W (means over the step)."""
        p = self.problem
        power = np.zeros(len(p.triggers))
        for i, t in enumerate(p.triggers):
            overlap = min(self.time_s + dt_s, t.until_s) - max(self.time_s, t.from_s)
            if overlap <= 0.0:
                continue
            energy = t.power_W * overlap
            if t.energy_J is not None:
                energy = min(energy, t.energy_J - self.ledger.triggers[i])
            power[i] = max(energy, 0.0) / dt_s
        nodal = power @ p.trigger_weight if power.any() else np.zeros_like(self.temperature_K)
        if self.cell_heat_W.any():
            r = p.reactor
            nodal = nodal + np.bincount(
                p.site_node, self.cell_heat_W[r.site_cell] * self._cell_share, self.temperature_K.size
            )
        return nodal, power

    def _conduct(self, dt_s: float) -> float:
        """One conduction step in place; returns its error estimate, K."""
        p, start = self.problem, self.temperature_K
        nodal, power = self._sources(dt_s)
        fixed = nodal + (p.scale * p.ambient_K) @ p.conductance_W_K
        diagonal, key = self._diagonal(dt_s)
        tic = time.perf_counter()

        def outflow(t: np.ndarray) -> np.ndarray:
            return np.asarray(p.scale * (p.conductance_W_K @ t - self._film_W_K * p.ambient_K))

        if self.rules.scheme == "be":
            end = self.conduction.solve(diagonal, key, p.capacity_J_K / dt_s * start + fixed, start)
            self.timing.solves += 1
            out = outflow(end) * dt_s
            error = float(np.abs(end - start).max(initial=0.0))
        else:
            a = 2.0 / (GAMMA * dt_s) * p.capacity_J_K
            loss = p.scale @ p.conductance_W_K
            first = fixed - self.conduction.apply(start) - loss * start  # net power at the start
            middle = self.conduction.solve(diagonal, key, a * start + first + fixed, start)
            weight = GAMMA * (2.0 - GAMMA)
            carried = (middle - (1.0 - GAMMA) ** 2 * start) / weight
            end = self.conduction.solve(diagonal, key, a * carried + fixed, middle)
            self.timing.solves += 2
            c = p.capacity_J_K
            net0, net2 = first / c, 2.0 / (GAMMA * dt_s) * (end - carried)
            net1 = 2.0 / (GAMMA * dt_s) * (middle - start) - net0
            kappa = (-3.0 * GAMMA**2 + 4.0 * GAMMA - 2.0) / (12.0 * (2.0 - GAMMA))
            estimate = (
                2.0 * kappa * dt_s * (net0 / GAMMA - net1 / (GAMMA * (1.0 - GAMMA)) + net2 / (1.0 - GAMMA))
            )
            # Damped where a node follows its surroundings faster than the step (air, thin joints): there the
            # raw estimate measures stiffness, not error. The full filter would be another solve.
            stiffness = (self.conduction.diagonal_W_K + loss) / c
            error = float((np.abs(estimate) / (1.0 + 0.5 * GAMMA * dt_s * stiffness)).max(initial=0.0))
            w, d = math.sqrt(2.0) / 4.0, 0.5 * GAMMA
            out = dt_s * outflow(
                w * (start + middle) + d * end
            )  # the scheme's own mean: its weights add up to 1
        self.timing.solve_s += time.perf_counter() - tic
        self.temperature_K = end
        self.ledger.boundary = self.ledger.boundary + self._total(out)
        self.ledger.triggers = self.ledger.triggers + power * dt_s
        self.ledger.session += float(self.cell_heat_W.sum()) * dt_s
        return float(self.conduction.largest(np.array([error]))[0])

    def _react(self, dt_s: float) -> float:
        tic = time.perf_counter()
        rise = self.problem.reactor.react(self.temperature_K, dt_s, self.rules.substep_K)
        self.timing.kinetics_s += time.perf_counter() - tic
        return float(self.conduction.largest(np.array([rise]))[0])

    def snapshot(self) -> tuple[Any, ...]:
        """Everything that changes in time."""
        r, g = self.problem.reactor, self.ledger
        return (
            self.temperature_K.copy(),
            r.species.copy(),
            r.extent_m3.copy(),
            r.radiated_J.copy(),
            g.boundary.copy(),
            g.triggers.copy(),
            g.session,
            self.time_s,
            self.level,
            self._calm,
        )

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Back to a snapshot; the arrays of the reactor keep their place (the kernel holds no pointers)."""
        r, g = self.problem.reactor, self.ledger
        self.temperature_K = saved[0].copy()
        r.species[:], r.extent_m3[:], r.radiated_J[:] = saved[1], saved[2], saved[3]
        g.boundary, g.triggers, g.session = saved[4].copy(), saved[5].copy(), saved[6]
        self.time_s, self.level, self._calm = saved[7], saved[8], saved[9]

    def step(self, dt_s: float) -> float:
        """One step of the splitting; returns how much it exceeds the rules (1 is the limit)."""
        rise = self._react(0.5 * dt_s)
        error = self._conduct(dt_s)
        rise = max(rise, self._react(0.5 * dt_s))
        self.time_s += dt_s
        if not np.isfinite(self.temperature_K).all():
            raise SolverError(
                f"temperature is not finite at {self.time_s:g} s; choose a smaller run.step.largest_s"
            )
        limit = self.rules.conduction_K if self.rules.scheme == "trbdf2" else 5.0 * self.rules.conduction_K
        return max(rise / self.rules.reaction_K, error / limit)

    def advance(self, until_s: float, on_step: Callable[[], bool] | None = None) -> bool:
        """Step to `until_s` exactly, halving and doubling the step by the rules.

        `on_step` is called after every accepted step; when it returns True the march ends there and so does
        this function, with True.
        """
        rules = self.rules
        while self.time_s < until_s - 1e-9 * max(1.0, until_s):
            dt = max(rules.largest_s * 0.5**self.level, rules.smallest_s)
            left = until_s - self.time_s
            if dt >= left * (1 - 1e-12):
                dt = left
            elif dt > 0.5 * left:
                dt = 0.5 * left  # two equal steps rather than one full and one sliver
            saved = self.snapshot() if rules.adaptive else None
            over = self.step(dt)
            if saved is not None and over > 2.0 and dt > rules.smallest_s:
                level = self.level
                self.restore(saved)
                self.level = max(level, math.ceil(math.log2(rules.largest_s / dt))) + (2 if over > 8.0 else 1)
                self._calm = 0
                self.timing.rejected += 1
                continue
            self.timing.steps += 1
            if rules.adaptive:
                if over > 1.0:
                    self.level, self._calm = self.level + 1, 0
                elif over < 0.35 and self.level > 0:
                    self._calm += 1
                    if self._calm >= 3:
                        self.level, self._calm = self.level - 1, 0
                else:
                    self._calm = 0
                self.level = min(self.level, max(0, math.ceil(math.log2(rules.largest_s / rules.smallest_s))))
            if on_step is not None and on_step():
                return True
        return False


def stops(problem: Problem, until_s: float, outputs_s: list[float]) -> list[float]:
    """Times the stepping must hit: ends of triggers, outputs and the end of the run."""
    times = {until_s, *outputs_s}
    for t in problem.triggers:
        times |= {t.from_s, t.until_s}
    return sorted(s for s in times if 0.0 < s <= until_s)
