"""How sure is an interval: many network runs over what nobody knows well, with bands and probabilities.

    study = run_study(load_case("pack3x4"), samples=200, seed=1)
    study.summary()["first_interval_s"], study.summary()["probability"]["next_cell_within_300_s"]

Latin hypercube over activation energies, heat, short energy, contact resistance, films and the rate
ceiling. Samples run on a pool of processes; same seed, same numbers. `python -m
pack_models.propagation.uncertainty CASE` prints them.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm, qmc

from .case import STEPS, Case, load_case, parse_case
from .databank import inverse_cdf
from .errors import CaseError, PropagationError
from .events import first_crossing
from .march import StepRules, stops
from .run import network_march

# Coarse enough for two minutes of 200 samples, fine enough to see jumps from row to row; its bias is in the
# README.
MESH = (6, 7, 6)
RULES = STEPS["network"]
# 5-95 % of a lognormal variable lies within a factor 2.
_FACTOR_TWO = float(np.log(2.0) / norm.ppf(0.95))


@dataclass(frozen=True)
class Variable:
    """One uncertain input: how a probability becomes a value, and why this spread."""

    name: str
    kind: str
    centre: float
    spread: float
    why: str

    def value(self, probability: np.ndarray) -> np.ndarray:
        """Inverse distribution function."""
        if self.kind == "databank":
            return inverse_cdf("relative_heat", probability)
        z = norm.ppf(np.clip(probability, 1e-6, 1 - 1e-6))
        if self.kind == "normal":
            return np.asarray(np.maximum(self.centre * (1.0 + self.spread * z), 0.05 * self.centre))
        return np.asarray(self.centre * np.exp(self.spread * z))


VARIABLES = (
    Variable("E_sei", "normal", 1.0, 0.01, "activation energies of one DSC study scatter by about 1 %"),
    Variable(
        "E_anode",
        "normal",
        1.0,
        0.01,
        "same; the most sensitive one: +-1 % moves adiabatic time by x0.76/x1.31",
    ),
    Variable("E_cathode", "normal", 1.0, 0.01, "same"),
    Variable(
        "heat",
        "databank",
        1.0,
        0.0,
        "heat of equal cells in the NREL/NASA failure databank over its type's median",
    ),
    Variable("short", "normal", 1.0, 0.2, "share of the electric energy released inside: +-20 %"),
    Variable(
        "contact_m2K_W",
        "lognormal",
        2e-4,
        _FACTOR_TWO,
        "dry cell-to-pad joints, 1e-4 to 4e-4 m2K/W (assumption)",
    ),
    Variable(
        "film", "lognormal", 1.0, _FACTOR_TWO, "heat transfer coefficients within a factor 2 (assumption)"
    ),
    Variable(
        "ceiling", "lognormal", 1.0, _FACTOR_TWO, "a real cell burns 5-20 s: rate ceiling within a factor 2"
    ),
)


def draw(samples: int, seed: int) -> dict[str, np.ndarray]:
    """(samples,) values of every variable."""
    unit = qmc.LatinHypercube(len(VARIABLES), rng=np.random.default_rng(seed)).random(samples)
    return {v.name: v.value(unit[:, i]) for i, v in enumerate(VARIABLES)}


def perturbed(data: Mapping[str, Any], values: Mapping[str, float]) -> dict[str, Any]:
    """Case data with one sample's values put in."""
    out: dict[str, Any] = copy.deepcopy(dict(data))
    cell = out.get("cell")
    if not isinstance(cell, dict):
        raise CaseError("uncertainty", ["cell: missing; the study varies what the cells are made of"])
    scale = cell.setdefault("scale", {})
    pathways = scale.setdefault("E_by_pathway", {})
    for pathway in ("sei", "anode", "cathode"):
        pathways[pathway] = pathways.get(pathway, 1.0) * values[f"E_{pathway}"]
    scale["heat"] = scale.get("heat", 1.0) * values["heat"]
    if "short" in cell:
        cell["short"]["energy_J_m3"] = float(cell["short"]["energy_J_m3"]) * values["short"]
    if "rate_ceiling_1_s" in cell:
        cell["rate_ceiling_1_s"] = float(cell["rate_ceiling_1_s"]) * values["ceiling"]
    for side in (out.get("boundaries") or {}).values():
        if "h_W_m2K" in side:
            side["h_W_m2K"] = float(side["h_W_m2K"]) * values["film"]
    # The residual shift keeps the energy balance exact, so the study can afford a loose solver.
    out.setdefault("run", {})["cg_rtol"] = 1e-4
    geometry = out["geometry"]
    if geometry["kind"] == "pack":
        contact = geometry["cells"].setdefault("contact_m2K_W", {})
        contact["x"] = contact.get("x", 0.0) + values["contact_m2K_W"]
    return out


def runaway_times(
    data: Mapping[str, Any], mesh: Sequence[int], rules: StepRules, until_s: float
) -> list[float | None]:
    """Runaway time of every cell of one sample; ends early when all have burnt or all is cold again."""
    case = parse_case(data, "sample", "sample")
    _, problem, march = network_march(case, mesh=mesh, rules=rules)
    times, means = [0.0], [march.cell_mean_K()]

    ends = [t.until_s for t in case.triggers if np.isfinite(t.until_s)]
    last_trigger = max(ends, default=0.0)
    limit = case.limits.runaway_K
    quiet = float(problem.reactor.tables.quiet_K.min()) + 30.0

    def record() -> bool:
        times.append(march.time_s)
        means.append(march.cell_mean_K())
        burnt = np.max(means, axis=0) >= limit if len(means) % 20 == 0 else np.zeros(1, dtype=bool)
        cold = march.time_s > last_trigger + 60.0 and float(march.temperature_K.max()) < quiet
        return cold or (burnt.size == case.n_cells and bool(burnt.all()))

    for mark in stops(problem, until_s, []):
        if march.advance(mark, record):
            break
    table = np.array(means)
    return [first_crossing(np.array(times), table[:, i], limit) for i in range(case.n_cells)]


def _job(job: tuple[dict[str, Any], tuple[int, ...], StepRules, float]) -> list[float | None]:
    return runaway_times(*job)


def run_many(
    jobs: Sequence[tuple[dict[str, Any], tuple[int, ...], StepRules, float]], workers: int | None = None
) -> list[list[float | None]]:
    """Runaway times of many cases, in order, on `workers` processes (as many as there are processors)."""
    count = workers or len(os.sched_getaffinity(0))
    if count == 1 or len(jobs) < 4:
        return [_job(j) for j in jobs]
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_job, jobs, chunksize=max(1, len(jobs) // (8 * count))))


def _cpu_s() -> float:
    """CPU seconds of this process and of those it has waited for."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a probability."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.96, successes / n
    middle, width = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, float((middle - width) / (1 + z * z / n))), min(
        1.0, float((middle + width) / (1 + z * z / n))
    )


@dataclass(frozen=True)
class Study:
    """Samples and outcomes.

    Parameters
    ----------
    values : variable -> (samples,)
    runaway_s : (samples, n_cells), NaN for never
    triggered : cells that are driven to runaway from outside
    time_scale : factor that the network's times are multiplied by, from a finite-element run of the
        nominal case
    """

    case: Case
    values: dict[str, np.ndarray]
    runaway_s: np.ndarray
    triggered: tuple[int, ...]
    until_s: float
    seed: int
    time_scale: float
    wall_s: float
    cpu_s: float

    def intervals(self) -> dict[str, np.ndarray]:
        """(samples,) seconds since the first runaway: to the next cell, to the whole pack; NaN for never."""
        first = np.nanmin(
            np.where(np.isnan(self.runaway_s).all(axis=1, keepdims=True), np.inf, self.runaway_s), axis=1
        )
        rest = [i for i in range(self.runaway_s.shape[1]) if i not in self.triggered]
        others = self.runaway_s[:, rest]
        none = np.isnan(others).all(axis=1)
        next_s = np.where(none, np.nan, np.min(np.where(np.isnan(others), np.inf, others), axis=1)) - first
        whole = np.max(self.runaway_s, axis=1) - first
        return {"first_interval_s": next_s * self.time_scale, "whole_pack_s": whole * self.time_scale}

    def summary(self) -> dict[str, Any]:
        """Bands, probabilities with 95 % intervals, and rank correlations of the first interval."""
        intervals = self.intervals()
        n = self.runaway_s.shape[0]
        out: dict[str, Any] = {
            "samples": n,
            "seed": self.seed,
            "until_s": self.until_s,
            "time_scale": self.time_scale,
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "triggered_burnt": int(np.isfinite(self.runaway_s[:, list(self.triggered)]).all(axis=1).sum()),
        }
        for name, values in intervals.items():
            known = values[np.isfinite(values)]
            out[name] = (
                {
                    "happened": int(known.size),
                    **{f"p{q}": float(np.percentile(known, q)) for q in (5, 50, 95)},
                }
                if known.size
                else {"happened": 0}
            )
        first = intervals["first_interval_s"]
        events = {
            "contained": np.isnan(first),
            "next_cell_within_90_s": first < 90.0,
            "next_cell_within_300_s": first < 300.0,
            "whole_pack_burns": np.isfinite(intervals["whole_pack_s"]),
        }
        out["probability"] = {
            k: {"p": float(v.mean()), "interval_95": list(wilson(int(v.sum()), n))} for k, v in events.items()
        }
        happened = np.isfinite(first)
        if happened.sum() > 10:
            rank = np.argsort(np.argsort(first[happened]))
            out["rank_correlation_first_interval"] = {
                k: float(np.corrcoef(np.argsort(np.argsort(v[happened])), rank)[0, 1])
                for k, v in self.values.items()
            }
        out["variables"] = {v.name: v.why for v in VARIABLES}
        return out


def run_study(
    case: Case,
    samples: int = 200,
    seed: int = 1,
    mesh: Sequence[int] = MESH,
    rules: StepRules = RULES,
    until_s: float | None = None,
    workers: int | None = None,
    time_scale: float = 1.0,
) -> Study:
    """Run the samples.

    Parameters
    ----------
    until_s : end of every sample; the case's own when None
    time_scale : see Study
    """
    if samples < 2:
        raise PropagationError(f"samples: {samples} is out of range; expected at least 2")
    tic, spent = time.perf_counter(), _cpu_s()
    values = draw(samples, seed)
    end = until_s or case.run.until_s
    jobs = [
        (
            perturbed(case.data, {k: float(v[i]) for k, v in values.items()}),
            tuple(int(m) for m in mesh),
            rules,
            end,
        )
        for i in range(samples)
    ]
    found = run_many(jobs, workers)
    table = np.array([[np.nan if t is None else t for t in row] for row in found])
    triggered = tuple(sorted({t.cell for t in case.triggers if t.cell >= 0}))
    return Study(
        case, values, table, triggered, end, seed, time_scale, time.perf_counter() - tic, _cpu_s() - spent
    )


def plot(study: Study, path: Path) -> None:
    """Distribution of the first interval and of the whole pack, and what drives them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    intervals, summary = study.intervals(), study.summary()
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    for axis, (name, title) in zip(
        axes,
        (("first_interval_s", "first cell to next cell"), ("whole_pack_s", "first cell to whole pack")),
        strict=False,
    ):
        known = np.sort(intervals[name][np.isfinite(intervals[name])])
        axis.step(known, np.arange(1, known.size + 1) / study.runaway_s.shape[0], where="post")
        if known.size:
            axis.axvspan(*np.percentile(known, [5, 95]), color="0.9", label="5-95 % of those that spread")
            axis.legend(fontsize=8)
        axis.set(xlabel=f"{title} / s", ylabel="share of samples so far", ylim=(0, 1))
        for limit in (90, 300):
            axis.axvline(limit, color="C3", lw=1, ls=":")
    drivers = summary.get("rank_correlation_first_interval", {})
    axes[2].barh(list(drivers), list(drivers.values()), color="C0")
    axes[2].set(xlabel="rank correlation with the first interval", xlim=(-1, 1))
    p = summary["probability"]
    figure.suptitle(
        f"{study.case.name}, {summary['samples']} network samples: P(contained) {p['contained']['p']:.2f}, "
        f"P(< 90 s) {p['next_cell_within_90_s']['p']:.2f}, P(< 300 s) {p['next_cell_within_300_s']['p']:.2f} "
        f"within {study.until_s:g} s in this model"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="propagation.uncertainty")
    parser.add_argument("case")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--until", type=float)
    parser.add_argument(
        "--time-scale",
        type=float,
        default=1.0,
        help="finite-element time over network time of the nominal case",
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    try:
        case = load_case(options.case)
        study = run_study(
            case, options.samples, options.seed, until_s=options.until, time_scale=options.time_scale
        )
    except PropagationError as error:
        print(error, file=sys.stderr)
        return 2
    summary = study.summary()
    print(json.dumps(summary, indent=1))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"uncertainty_{case.name}.json").write_text(
            json.dumps(summary, indent=1) + "\n", encoding="utf-8"
        )
        plot(study, options.out / f"uncertainty_{case.name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
