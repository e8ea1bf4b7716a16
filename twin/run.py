"""One scenario from YAML to report: the whole story on one screen. The CLI, sweeps and tests call this.

scenario → world → run folder (tables) → alerts, scores, metrics → manifest → report
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twin.scenario.load import load
from twin.scenario.profiles import check_profiles
from twin.scenario.resolved import resolved, scenario_hash
from twin.scenario.schema import Scenario
from twin.telemetry.manifest import Manifest, git_commit, package_versions
from twin.telemetry.sink import RunWriter

Progress = Callable[[float, str], None]

PACKAGES = (
    "battery-twin",
    "casadi",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "pybamm",
    "scipy",
    "simpy",
    "ziglang",
)


class RunInputError(ValueError):
    """Input that is well-formed but cannot be run; nothing was written."""

    exit_code = 2


@dataclass(frozen=True)
class RunResult:
    """Where the run lies and what it found."""

    folder: Path
    report: Path | None
    manifest: Manifest

    @property
    def expectations_met(self) -> bool:
        return all(claim.met for claim in self.manifest.expectations)


def load_scenario(path: Path, overrides: Sequence[str] = (), seed: int | None = None) -> Scenario:
    """Read and check a scenario and every profile it names; raises ScenarioError with all problems."""
    from twin.assemble import known

    scenario = load(path, known(), overrides=overrides, seed=seed)
    check_profiles(scenario, path.parent)
    return scenario


def run_scenario(
    path: Path,
    out: Path,
    *,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    overwrite: bool = False,
    with_report: bool = True,
    progress: Progress | None = None,
) -> RunResult:
    """Simulate, analyse and report one scenario; nothing is written when the input is wrong."""
    from twin.analytics.evaluate import evaluate
    from twin.analytics.metrics import summary
    from twin.analytics.run import Watch, to_rows
    from twin.assemble import assemble, known
    from twin.world.plant import format_time

    clock = time.perf_counter
    marks = [clock()]
    scenario = load_scenario(path, overrides, seed)
    world = assemble(scenario, path.parent)
    end_us = world.clock.end_us
    with contextlib.ExitStack() as open_things:
        open_things.callback(world.close)
        try:
            Watch(scenario.analytics, world.packs)  # a detector that cannot work on a pack says so now
        except ValueError as error:
            raise RunInputError(f"{path}: analytics: {error}") from None
        marks.append(clock())
        writer = open_things.enter_context(
            RunWriter(
                out,
                packs=world.packs,
                sites=[site.name for site in world.sites],
                overwrite=overwrite,
                code_names=world.code_names,
            )
        )
        tell = None if progress is None else (lambda now: progress(now / end_us, format_time(now)))
        world.run(writer, tell)
        marks.append(clock())
        tables = writer.finish_tables()
        manifest = Manifest(
            scenario=scenario.name,
            about=scenario.about,
            scenario_hash=scenario_hash(scenario, known()),
            seed=scenario.seed,
            start=scenario.start.isoformat(),
            duration_s=scenario.duration_s,
            resolved=resolved(scenario, known()),
            version=package_versions(("battery-twin",)).get("battery-twin", ""),
            commit=git_commit(Path(__file__).parent),
            packages=package_versions(PACKAGES),
            fidelity=world.fidelity,
            profiles=world.profiles,
            steps=world.step_counts(),
            zoom_windows=[vars(window) for window in world.clock.windows],
            balances=world.balances(),
            firmware=world.figures(),
        )
        outcome = evaluate(tables, scenario.analytics, scenario.expect, manifest.balances, manifest.firmware)
        writer.alerts(to_rows(outcome.alerts))
        manifest.summary = summary(outcome.metrics)
        manifest.scores = [score.as_row() for score in outcome.scores]
        manifest.expectations = outcome.expectations
        marks.append(clock())
        names = ("prepare_s", "simulate_s", "analyse_s")
        manifest.timings = {
            name: round(b - a, 3) for name, a, b in zip(names, marks, marks[1:], strict=False)
        }
        finished = writer.complete(manifest)
    return RunResult(out, _report(out) if with_report else None, finished.manifest)


def check_scenario(path: Path, overrides: Sequence[str] = (), seed: int | None = None) -> dict[str, Any]:
    """The scenario with every default visible, in operator's units."""
    from twin.assemble import known

    return resolved(load_scenario(path, overrides, seed), known())


def report_again(folder: Path) -> RunResult:
    """Alerts, scores, metrics and report of a finished run, made again from its tables."""
    import yaml

    from twin.analytics.evaluate import evaluate
    from twin.analytics.metrics import summary
    from twin.analytics.run import to_rows
    from twin.assemble import known
    from twin.scenario.load import loads
    from twin.telemetry.reader import RunFolder
    from twin.telemetry.sink import replace_alerts

    run = RunFolder(folder)
    text = yaml.safe_dump(run.manifest.resolved, sort_keys=False)
    scenario = loads(text, known(), label=f"{run.manifest.scenario}.yaml")
    outcome = evaluate(run, scenario.analytics, scenario.expect)
    changes = {
        "summary": summary(outcome.metrics),
        "scores": [score.as_row() for score in outcome.scores],
        "expectations": outcome.expectations,
    }
    run = replace_alerts(run, to_rows(outcome.alerts), changes)
    return RunResult(folder, _report(folder), run.manifest)


def names() -> dict[str, dict[str, str]]:
    """Every word a scenario may use, by kind, with its meaning."""
    from twin.assemble import vocabulary

    return vocabulary()


def scenario_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a scenario."""
    from twin.assemble import known
    from twin.scenario.json_schema import json_schema

    return json_schema(known())


def _report(folder: Path) -> Path:
    from twin.report.html import build_report

    return build_report(folder)
