"""Runs a case with one of the three models and returns traces, fields, energies and facts.

result = run_case(load_case("pack3x4"), "network")
result.summary["order"], result.summary["first_interval_s"]
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case
from .errors import CaseError, SolverError
from .events import Traces, summarise
from .fem import FemRun
from .fields import Field, vertex_field, volume_field
from .grid import Grid
from .kernel import MAX_REACTIONS
from .lumped import Body, integrate
from .march import March, StepRules, Trace, stops
from .network import NetworkConduction
from .problem import Problem, build

# A mean-temperature cell is "resolved" along an axis when a volume is no wider than this many front
# thicknesses.
_FRONTS_PER_VOLUME = 2.5


@dataclass(frozen=True)
class Result:
    """Outcome of a run.

    Parameters
    ----------
    model : that ran; traces, summary : see events
    fields : temperature at `case.run.maps_s`
    energies : energy split at the same times, J
    facts : sizes, versions, timing
    """

    case: Case
    model: str
    traces: Traces
    summary: dict[str, Any]
    fields: tuple[Field, ...]
    energies: tuple[tuple[float, dict[str, float]], ...]
    facts: dict[str, Any]


def map_times(case: Case) -> list[float]:
    """Times of the temperature maps."""
    return list(case.run.maps_s) or [case.run.until_s * f for f in (0.25, 0.5, 0.75, 1.0)]


def check_model(case: Case, model: str) -> None:
    """CaseError when a model cannot run a case."""
    if (model == "lumped") != (case.lumped is not None):
        other = "network or fem" if model == "lumped" else "lumped"
        raise CaseError(
            case.name, [f"model: {model!r} does not fit geometry.kind {case.kind!r}; choose {other}"]
        )


def run_case(
    case: Case,
    model: str | None = None,
    refine: Sequence[int] = (1, 1, 1),
    mesh: Sequence[int] | None = None,
    rules: StepRules | None = None,
    ranks: int = 1,
    field_file: Path | None = None,
) -> Result:
    """Run a case to its end.

    Parameters
    ----------
    model : lumped, network or fem; the case's own when None. There is no silent change from one to another.
    refine, mesh, rules : replace the case's mesh and stepping
    ranks : MPI processes of the finite elements
    field_file : XDMF (or .bp) file for the fields of the finite elements
    """
    model = model or case.model
    check_model(case, model)
    if model == "lumped":
        return _run_lumped(case)
    if model == "fem":
        return _run_fem(case, refine, mesh, rules, ranks, field_file)
    return _run_network(case, refine, mesh, rules)


def resolution_warning(case: Case, grid: Grid) -> str | None:
    """What a mesh cannot see: axes along which a volume is too wide for the reaction front.

    The front under a rate ceiling is about sqrt(diffusivity/kmax) thick; with bare Arrhenius rates it is
    thinner than any mesh and no propagation time is independent of it.
    """
    reacting = [u for u in (case.sets[s] for s in set(case.cell_set.tolist())) if u.kinetics.reactions]
    if not reacting or case.layout is None:
        return None
    if case.rate_ceiling_1_s() is None:
        limited = all(
            x.ceiling_1_s is not None or x.diffusion is not None or x.form == "source"
            for u in reacting
            for x in u.kinetics.reactions
        )
        return (
            None
            if limited
            else "no rate ceiling: propagation times depend on the mesh; set cell.rate_ceiling_1_s"
        )
    axes = []
    for axis, name in enumerate("xyz"):
        widths = np.diff(grid.lines[axis])
        inside = (grid.cell >= 0).any(axis=tuple(a for a in range(3) if a != axis))
        arranged = (
            case.layout.grid_arrangement[axis] if case.kind == "pack" else case.n_cells if axis == 0 else 1
        )
        front = case.front_thickness_m(axis) or np.inf
        if inside.any() and widths[inside].max() > _FRONTS_PER_VOLUME * front and (arranged > 1 or axis == 0):
            axes.append(
                f"{name} ({1e3 * widths[inside].max():.1f} mm wide volumes, front {1e3 * front:.1f} mm)"
            )
    if not axes:
        return None
    return (
        f"this mesh cannot see propagation along {', '.join(axes)}; "
        "times of cells reached that way are too late or missing"
    )


def _correction(case: Case, grid: Grid) -> list[float] | None:
    """Factors on the cells' conductivity along x, y, z that the network's front correction applied."""
    if case.layout is None or not (grid.cell >= 0).any():
        return None
    index = int(grid.material[grid.cell >= 0][0])
    return (grid.k_W_mK[index] / np.array(case.layout.materials["cell"].k_W_mK)).tolist()


def _result(
    case: Case,
    model: str,
    trace: Trace,
    energy: dict[str, float],
    fields: list[Field],
    energies: list[tuple[float, dict[str, float]]],
    facts: dict[str, Any],
) -> Result:
    extent = np.array(trace.extent)
    traces = Traces(np.array(trace.time_s), np.array(trace.mean_K), np.array(trace.max_K), extent)
    summary = {"about": case.about, "model": model, **facts, **summarise(case, traces, energy)}
    return Result(case, model, traces, summary, tuple(fields), tuple(energies), facts)


def cooling_scale(case: Case, problem_cooled: np.ndarray, time_s: float) -> np.ndarray:
    """Factor on every boundary group at a time, from the case's cooling schedule."""
    level = 1.0
    for start, value in case.run.cooling:
        if time_s >= start - 1e-9:
            level = value
    return np.where(problem_cooled, level, 1.0)


def network_march(
    case: Case,
    refine: Sequence[int] = (1, 1, 1),
    mesh: Sequence[int] | None = None,
    rules: StepRules | None = None,
) -> tuple[Grid, Problem, March]:
    """Grid, node arrays and marching state of a network."""
    grid = case.grid("network", refine, mesh)
    problem = build(
        grid, case.tables(), case.cell_set, list(case.boundaries), list(case.triggers), vertices=False
    )
    return (
        grid,
        problem,
        March(problem, NetworkConduction(grid, case.run.cg_rtol), rules or case.run.steps["network"]),
    )


def _run_network(
    case: Case, refine: Sequence[int], mesh: Sequence[int] | None, rules: StepRules | None
) -> Result:
    wall, cpu = time.perf_counter(), time.process_time()
    grid, problem, march = network_march(case, refine, mesh, rules)
    trace = Trace([0.0], [march.cell_mean_K()], [march.cell_max_K()], [march.cell_extent()])
    stop = case.run.stop_above_K

    def record() -> bool:
        trace.time_s.append(march.time_s)
        trace.mean_K.append(march.cell_mean_K())
        trace.max_K.append(march.cell_max_K())
        trace.extent.append(march.cell_extent())
        return stop is not None and float(trace.max_K[-1].max(initial=0.0)) > stop

    maps, fields, energies, stopped = map_times(case), [], [], False
    marks = sorted(
        {
            *stops(problem, case.run.until_s, maps),
            *(t for t, _ in case.run.cooling if 0 < t < case.run.until_s),
        }
    )
    try:
        for mark in marks:
            problem.scale[:] = cooling_scale(case, problem.cooled, march.time_s)
            stopped = march.advance(mark, record)
            if stopped:
                break
            if any(abs(mark - m) < 1e-9 for m in maps):
                fields.append(volume_field(mark, grid, march.temperature_K, case.boundaries))
                energies.append((mark, march.energy()))
    except SolverError as error:
        raise SolverError(f"{case.name}, network: {error}") from error
    t = march.timing
    facts = {
        "nodes": int(np.prod(grid.shape)),
        "mesh": list(grid.shape),
        "stopped_early": stopped,
        "warning": resolution_warning(case, grid),
        "front_correction": _correction(case, grid),
        "timing": {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "kinetics_s": t.kinetics_s,
            "solve_s": t.solve_s,
            "steps": t.steps,
            "rejected": t.rejected,
            "solves": t.solves,
        },
    }
    return _result(case, "network", trace, march.energy(), fields, energies, facts)


def _run_fem(
    case: Case,
    refine: Sequence[int],
    mesh: Sequence[int] | None,
    rules: StepRules | None,
    ranks: int,
    field_file: Path | None,
) -> Result:
    wall = time.perf_counter()
    with FemRun(case, ranks, refine, mesh, rules) as run:
        grid = run.grid
        first = run.call({"do": "advance", "until_s": 0.0, "record": False})[1]
        trace = Trace(*(list(first[k]) for k in ("time_s", "mean_K", "max_K", "extent")))
        maps, fields, energies = map_times(case), [], []
        ends = {e for t in case.triggers for e in (t.from_s, t.until_s)} | {t for t, _ in case.run.cooling}
        marks = sorted(s for s in {*maps, *ends, case.run.until_s} if 0.0 < s <= case.run.until_s)
        cooled = np.array([b.cooled for b in case.boundaries], dtype=bool)
        reply: dict[str, Any] = {}
        now = 0.0
        for mark in marks:
            reply, arrays = run.advance(
                mark, scale=cooling_scale(case, cooled, now), stop_above_K=case.run.stop_above_K
            )
            now = float(reply["time_s"])
            for name in ("time_s", "mean_K", "max_K", "extent"):
                getattr(trace, name).extend(list(arrays[name]))
            if reply["stopped"]:
                break
            if any(abs(mark - m) < 1e-9 for m in maps):
                fields.append(vertex_field(mark, grid, run.field_K()))
                energies.append((mark, reply["energy"]))
                if field_file is not None:
                    run.write(field_file)
        facts = {
            "nodes": run.facts["nodes"],
            "mesh": list(grid.shape),
            "dolfinx": run.facts["dolfinx"],
            "petsc": run.facts["petsc"],
            "ranks": run.facts["ranks"],
            "stopped_early": bool(reply["stopped"]),
            "warning": resolution_warning(case, grid),
            "timing": {**reply["timing"], "setup_s": run.facts["setup_s"]},
        }
    facts["timing"]["wall_s"] = time.perf_counter() - wall
    return _result(case, "fem", trace, reply["energy"], fields, energies, facts)


def _run_lumped(case: Case) -> Result:
    wall, cpu = time.perf_counter(), time.process_time()
    g, use = case.lumped, case.sets[0]
    assert g is not None
    surface = next(iter(case.boundaries), None)
    breaks = tuple(sorted({e for t in case.triggers for e in (t.from_s, t.until_s) if np.isfinite(e)}))

    def heater(time_s: float) -> float:
        power = 0.0
        for t in case.triggers:
            end = min(t.until_s, t.from_s + t.energy_J / t.power_W) if t.energy_J is not None else t.until_s
            power += t.power_W if t.from_s <= time_s < end else 0.0
        return power

    limited = tuple(t.from_s + t.energy_J / t.power_W for t in case.triggers if t.energy_J is not None)
    body = Body(
        use,
        g.volume_m3,
        use.density_kg_m3 * case.cp_J_kgK * g.inertia,
        g.area_m2,
        surface.h_W_m2K if surface else 0.0,
        surface.emissivity if surface else 0.0,
        surface.ambient_K if surface else case.initial_K,
        heater if case.triggers else None,
        g.ramp_K_s,
        breaks + limited,
    )
    run = integrate(body, case.initial_K, case.run.until_s, stop_K=case.run.stop_above_K)
    time_s, temperature = run.time_s, run.temperature_K
    extent = np.zeros((time_s.size, 1, MAX_REACTIONS))
    extent[:, 0, : run.extent.shape[1]] = run.extent
    traces = Traces(time_s, temperature[:, None], temperature[:, None], extent)
    # A threshold restarts the integration at the same instant; events need increasing times.
    keep = np.concatenate([[True], np.diff(time_s) > 0])
    traces = Traces(time_s[keep], traces.mean_K[keep], traces.max_K[keep], extent[keep])
    rate_s, rate_K, rate = run.max_rate
    facts = {
        "nodes": 1,
        "mesh": [1, 1, 1],
        "stopped_early": False,
        "warning": None,
        "max_rate_s": rate_s,
        "max_rate_at_K": rate_K,
        "max_rate_K_s": rate,
        "timing": {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu},
    }
    summary = {"about": case.about, "model": "lumped", **facts, **summarise(case, traces, run.energy_J)}
    return Result(case, "lumped", traces, summary, (), ((float(time_s[-1]), run.energy_J),), facts)


def refinement_change(case: Case, model: str, base: Result, ranks: int = 1) -> dict[str, Any]:
    """Run again on a finer mesh with half the step; relative change of the first interval and of every
    runaway time.
    """
    if model == "lumped":
        return {}
    step = case.run.steps[model]
    finer = run_case(case, model, case.run.refine, None, replace(step, largest_s=0.5 * step.largest_s), ranks)
    first = [c["runaway_s"] for c in base.summary["cells"]]
    second = [c["runaway_s"] for c in finer.summary["cells"]]
    start_a = min((t for t in first if t is not None), default=None)
    start_b = min((t for t in second if t is not None), default=None)
    changes = (
        [
            None
            if a is None or b is None or a == start_a
            else ((b - start_b) - (a - start_a)) / (a - start_a)
            for a, b in zip(first, second, strict=True)
        ]
        if start_a is not None and start_b is not None
        else []
    )
    a, b = base.summary["first_interval_s"], finer.summary["first_interval_s"]
    return {
        "mesh": finer.facts["mesh"],
        "nodes": finer.facts["nodes"],
        "refine": list(case.run.refine),
        "step": "halved",
        "runaway_s": second,
        "first_interval_change": None if not a or not b else (b - a) / a,
        "change_since_first_cell": changes,
        "cpu_s": finer.facts["timing"]["cpu_s"],
    }
