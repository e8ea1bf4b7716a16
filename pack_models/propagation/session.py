"""A pack in abuse, advanced step by step by somebody else's clock: the door for a digital twin.

    with open_session(load_case("pack3x4"), model="network", start_K=temperatures) as session:
        out = session.step(dt_s=1.0, heat_W=heat, ambient_K=298.15, cooling=1.0)
        out.temperature_mean_K, out.voltage_collapsed, out.gas_mol

`network` and `fem` are as in `run`; `lumped` is the network with one node per cell (it cannot see a front
inside a cell and says so). Heat is positive into a cell. The case's own triggers stay active, on the
session's time.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .case import Case, parse_case
from .errors import CaseError, PropagationError
from .events import ATMOSPHERE_PA, GAS_CONSTANT, SHORTED
from .fem import FemRun
from .kinetics import PATHWAYS, pathways
from .march import March, StepRules
from .problem import vertex_index
from .run import network_march, resolution_warning

SessionModel = Literal["network", "fem", "lumped"]


@dataclass(frozen=True)
class Step:
    """State of the pack after a step.

    Parameters
    ----------
    time_s : since the session was opened
    temperature_mean_K, temperature_max_K : (n_cells,)
    conversion : (n_cells, len(PATHWAYS)) since the start, 0...1
    state_of_safety : (n_cells,) 1 healthy, 0 imminent runaway
    pressure_Pa : (n_cells,) inside a cell; the surroundings' once it has vented
    vented : (n_cells,) latched
    gas_mol : (n_cells,) released from a vented cell since the session was opened
    voltage_collapsed : (n_cells,) latched: the short inside is burning or, where a set has none, the
        separator has failed somewhere in the cell
    runaway : (n_cells,) latched: mean temperature has passed the case's limit
    reaction_heat_W : (n_cells,) mean over the step
    energy_J : energy split since the start, with its relative imbalance
    """

    time_s: float
    temperature_mean_K: np.ndarray
    temperature_max_K: np.ndarray
    conversion: np.ndarray
    state_of_safety: np.ndarray
    pressure_Pa: np.ndarray
    vented: np.ndarray
    gas_mol: np.ndarray
    voltage_collapsed: np.ndarray
    runaway: np.ndarray
    reaction_heat_W: np.ndarray
    energy_J: dict[str, float]


class Session:
    """An open pack; make it with `open_session`."""

    def __init__(
        self, case: Case, model: SessionModel, start_K: np.ndarray | None, rules: StepRules | None
    ) -> None:
        if case.layout is None:
            raise CaseError(
                case.name, ["geometry.kind: a session needs a stack or a pack, not a lumped body"]
            )
        self.case, self.model = case, model
        self.time_s = 0.0
        n = case.n_cells
        start = None if start_K is None else np.asarray(start_K, dtype=float)
        if start is not None and (
            start.shape != (n,) or not np.isfinite(start).all() or (start < 150).any() or (start > 3000).any()
        ):
            raise CaseError(
                case.name, [f"start_K: expected {n} temperatures between 150 and 3000 K, one per cell"]
            )
        self._march: March | None = None
        self._fem: FemRun | None = None
        mesh = (1, 1, 1) if model == "lumped" else None
        grid = case.grid("fem" if model == "fem" else "network", mesh=mesh)
        self.warning = resolution_warning(case, grid)
        volume = grid.volume_m3()
        self.cell_volume_m3 = np.array([volume[grid.cell == i].sum() for i in range(n)])
        if model == "fem":
            lattice = None
            if start is not None:
                lattice = self._vertex_start(grid, start)
            self._fem = FemRun(case, rules=rules, lattice_K=lattice)
        else:
            _, problem, self._march = network_march(case, mesh=mesh, rules=rules)
            if start is not None:
                values = np.where(
                    grid.cell >= 0, start[np.maximum(grid.cell, 0)], _between(grid.initial_K, start)
                ).ravel()
                problem.initial_K = values
                self._march = March(problem, self._march.conduction, self._march.rules)
        self._meaning = _Meaning.of(case)
        self._extent = np.zeros_like(self._meaning.heat_J_m3)
        self._vented, self._collapsed, self._runaway = (np.zeros(n, dtype=bool) for _ in range(3))
        self._ambient = np.array([b.ambient_K for b in case.boundaries])
        self._follows = np.array([b.follows_ambient for b in case.boundaries], dtype=bool)
        self._cooled = np.array([b.cooled for b in case.boundaries], dtype=bool)

    @staticmethod
    def _vertex_start(grid: Any, start: np.ndarray) -> np.ndarray:
        """Start temperature at vertices: mean of the volumes around, weighted by heat capacity."""
        weight = grid.volume_m3() * grid.rho_cp_J_m3K[grid.material]
        values = np.where(grid.cell >= 0, start[np.maximum(grid.cell, 0)], _between(grid.initial_K, start))
        total, heat = np.zeros(grid.n_vertices), np.zeros(grid.n_vertices)
        index = np.indices(grid.shape).reshape(3, -1)
        for corner in np.ndindex(2, 2, 2):
            node = vertex_index(grid.shape, *(index[a] + corner[a] for a in range(3)))
            total += np.bincount(node, weight.ravel(), grid.n_vertices)
            heat += np.bincount(node, (weight * values).ravel(), grid.n_vertices)
        return np.asarray((heat / total).reshape([m + 1 for m in grid.shape]))

    # ---- stepping ------------------------------------------------------------------------------

    def step(
        self,
        dt_s: float,
        heat_W: np.ndarray | None = None,
        ambient_K: float | None = None,
        cooling: float = 1.0,
    ) -> Step:
        """Advance by dt.

        Parameters
        ----------
        heat_W : (n_cells,) heat put evenly into each cell during the step, from currents and shorts;
            zero when None
        ambient_K : of every boundary that follows the ambient; unchanged when None
        cooling : 0...1, scales the films of boundaries marked `cooled`
        """
        n = self.case.n_cells
        heat = np.zeros(n) if heat_W is None else np.asarray(heat_W, dtype=float)
        if not dt_s > 0:
            raise PropagationError(f"dt_s: {dt_s!r} is out of range; expected more than 0")
        if heat.shape != (n,) or not np.isfinite(heat).all():
            raise PropagationError(f"heat_W: expected {n} finite numbers, one per cell")
        if not 0.0 <= cooling <= 1.0:
            raise PropagationError(f"cooling: {cooling!r} is out of range; expected between 0 and 1")
        if ambient_K is not None:
            if not 150.0 <= ambient_K <= 3000.0:
                raise PropagationError(
                    f"ambient_K: {ambient_K!r} is out of range; expected between 150 and 3000"
                )
            self._ambient = np.where(self._follows, ambient_K, self._ambient)
        scale = np.where(self._cooled, cooling, 1.0)
        end = self.time_s + dt_s
        if self._fem is not None:
            marks = [*self._trigger_marks(end), end]
            for mark in marks:
                reply, arrays = self._fem.advance(
                    mark, scale=scale, ambient_K=self._ambient, cell_heat_W=heat, record=False
                )
            mean, peak, extent = arrays["mean_K"][-1], arrays["max_K"][-1], arrays["extent"][-1]
            energy = dict(reply["energy"])
        else:
            march = self._march
            assert march is not None
            p = march.problem
            p.scale[:], p.ambient_K[:] = scale, self._ambient
            p.reactor.face_ambient_K[:] = p.ambient_K[p.face_group]
            march.cell_heat_W[:] = heat
            for mark in [*self._trigger_marks(end), end]:
                march.advance(mark)
            mean, peak, extent, energy = (
                march.cell_mean_K(),
                march.cell_max_K(),
                march.cell_extent(),
                march.energy(),
            )
        self.time_s = end
        return self._describe(dt_s, np.asarray(mean), np.asarray(peak), np.asarray(extent), energy)

    def _trigger_marks(self, end: float) -> list[float]:
        edges = {e for t in self.case.triggers for e in (t.from_s, t.until_s)}
        return sorted(e for e in edges if self.time_s < e < end)

    def _describe(
        self, dt_s: float, mean: np.ndarray, peak: np.ndarray, extent: np.ndarray, energy: dict[str, float]
    ) -> Step:
        m = self._meaning
        alpha = np.clip(extent * m.per_extent, 0.0, 1.0)
        conversion = np.einsum("nr,nrp->np", alpha, m.pathway_share)
        over = np.maximum(0.0, mean - m.onset_K) / m.onset_to_inevitable_K
        sos = np.clip(1.0 - (alpha * m.safety_weight).sum(axis=1) - m.temperature_weight * over, 0.0, 1.0)
        made = m.gas_mol_m3 * (conversion * m.gas_share).sum(axis=1)
        inside = ATMOSPHERE_PA * mean / self.case.initial_K + made * GAS_CONSTANT * mean / m.headspace
        self._vented |= (m.gas_mol_m3 > 0) & (inside >= m.vent_opens_Pa)
        pressure = np.where(self._vented, ATMOSPHERE_PA, inside)
        gas = np.where(self._vented, made * self.cell_volume_m3, 0.0)
        # Voltage and electric energy go together: at the short's own start where the set has one.
        shorted = conversion[:, PATHWAYS.index("short")] > SHORTED
        self._collapsed |= m.reacts & np.where(m.has_short, shorted, peak >= m.collapse_K)
        released_J_m3 = ((extent - self._extent) * m.heat_J_m3).sum(axis=1)
        heat = released_J_m3 * self.cell_volume_m3 / dt_s
        self._runaway |= mean >= self.case.limits.runaway_K
        self._extent = extent.copy()
        return Step(
            self.time_s,
            mean.copy(),
            peak.copy(),
            conversion,
            sos,
            pressure,
            self._vented.copy(),
            gas,
            self._collapsed.copy(),
            self._runaway.copy(),
            heat,
            energy,
        )

    # ---- state ---------------------------------------------------------------------------------

    @property
    def state(self) -> Mapping[str, Any]:
        """Everything needed to go on from here later; numpy arrays and numbers, safe to pickle."""
        if self._march is None:
            raise PropagationError(
                "state: the fem model keeps its fields in its own process; use network to save and restore"
            )
        return {
            "model": self.model,
            "march": self._march.snapshot(),
            "time_s": self.time_s,
            "extent": self._extent.copy(),
            "flags": (self._vented.copy(), self._collapsed.copy(), self._runaway.copy()),
            "ambient_K": self._ambient.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state of this case and model."""
        if self._march is None or state["model"] != self.model:
            raise PropagationError(
                f"restore: a state of model {state['model']!r} does not fit a session of model {self.model!r}"
            )
        self._march.restore(state["march"])
        self.time_s, self._extent, self._ambient = (
            state["time_s"],
            state["extent"].copy(),
            state["ambient_K"].copy(),
        )
        self._vented, self._collapsed, self._runaway = (f.copy() for f in state["flags"])

    def close(self) -> None:
        """End the process of the finite elements, if there is one."""
        if self._fem is not None:
            self._fem.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class _Meaning:
    """What the extents of every cell mean, as arrays: (n_cells, reactions) or (n_cells,).

    Parameters
    ----------
    per_extent : one over the largest extent; pathway_share : (n_cells, reactions, pathways) by heat
    """

    per_extent: np.ndarray
    pathway_share: np.ndarray
    safety_weight: np.ndarray
    heat_J_m3: np.ndarray
    gas_share: np.ndarray
    gas_mol_m3: np.ndarray
    headspace: np.ndarray
    vent_opens_Pa: np.ndarray
    onset_K: np.ndarray
    onset_to_inevitable_K: np.ndarray
    temperature_weight: np.ndarray
    collapse_K: np.ndarray
    reacts: np.ndarray
    has_short: np.ndarray

    @classmethod
    def of(cls, case: Case) -> _Meaning:
        """From the kinetic sets of a case's cells."""
        n, heat = case.n_cells, case.tables().heat_J_m3[case.cell_set]
        width, count = heat.shape[1], len(PATHWAYS)
        per_extent, weight = np.zeros((n, width)), np.zeros((n, width))
        share, gas_share = np.zeros((n, width, count)), np.zeros((n, count))
        reacts, has_short = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        for i, use in enumerate(case.sets[s] for s in case.cell_set):
            paths = pathways(use)
            m = len(paths.reaction)
            reacts[i], has_short[i] = m > 0, "short" in paths.pathway
            per_extent[i, :m] = np.where(
                paths.extent_end > 0, 1.0 / np.where(paths.extent_end > 0, paths.extent_end, 1.0), 0.0
            )
            weight[i, :m] = paths.weight
            for k, one in enumerate(np.eye(m)):
                for name, value in paths.by_pathway(one).items():
                    share[i, k, PATHWAYS.index(name)] = value
            for name, value in use.kinetics.gas.shares.items():
                gas_share[i, PATHWAYS.index(name)] = value
        kinds = [case.sets[s].kinetics for s in case.cell_set]
        return cls(
            per_extent,
            share,
            weight,
            heat,
            gas_share,
            np.array([k.gas.mol_per_m3 for k in kinds]),
            np.array([k.gas.headspace_fraction for k in kinds]),
            np.array([k.gas.vent_opens_Pa for k in kinds]),
            np.array([k.safety.onset_K for k in kinds]),
            np.array([k.safety.inevitable_K - k.safety.onset_K for k in kinds]),
            np.where(reacts, [k.safety.weight for k in kinds], 0.0),
            np.array([k.safety.separator_collapse_K for k in kinds]),
            reacts,
            has_short,
        )


def _between(initial_K: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Start temperature of what lies between the cells: their mean."""
    return np.full_like(initial_K, float(start.mean()))


def open_session(
    case: Case,
    model: SessionModel = "network",
    start_K: np.ndarray | None = None,
    soc: np.ndarray | None = None,
    rules: StepRules | None = None,
) -> Session:
    """Open a pack for stepping.

    Parameters
    ----------
    case : with a pack or stack; its mesh and kinetics
    model : network, fem or lumped (one node per cell)
    start_K : (n_cells,) temperatures at the start; the case's own when None. What lies between the
        cells starts at
        their mean.
    soc : (n_cells,) states of charge in place of the case's
    """
    if model not in ("network", "fem", "lumped"):
        raise CaseError(case.name, [f"model: {model!r}; expected one of network, fem, lumped"])
    if soc is not None:
        values = np.asarray(soc, dtype=float)
        if values.shape != (case.n_cells,) or not ((values >= 0) & (values <= 1)).all():
            raise CaseError(case.name, [f"soc: expected {case.n_cells} numbers between 0 and 1"])
        data = copy.deepcopy(dict(case.data))
        cells = {int(k): dict(v) for k, v in (data.get("cells") or {}).items()}
        for i, value in enumerate(values):
            cells[i] = {**cells.get(i, {}), "soc": float(value)}
        data["cells"] = cells
        case = parse_case(data, case.name, case.name)
    return Session(case, model, start_K, rules)
