"""`make bench`: how fast the twin is on this machine, beside its peer in the same run.

CPU time of one process, medians of several rounds; nothing here is a test. The peer of the cell engine is
PyBaMM's own `Simulation.step`, which a user would otherwise call for each cell and step.
"""

from __future__ import annotations

import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROUNDS = 5

FLEET = """
about: Bench of the plant, electrics, thermal, sensors and telemetry together.
duration: {duration}
time: {{step: 1 s, zoom: {{step: 100 ms, after: 0 s}}, bms_rate: {rate}}}
telemetry: {{period: 60 s, truth_period: 60 s}}
sites:
  - name: bench
    ambient: 20 degC
    dispatch: [{{strategy: follow_power, power: 3 kW}}]
    racks: [{{count: {racks}, pack: {{design: {design}, initial_soc: 80 %}}}}]
"""


def _cpu_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def plant(design: str, racks: int, rate: str, duration_s: int) -> tuple[float, int, int]:
    """Cell-steps per CPU second of a whole run without report; also cells and firmware ticks."""
    from twin.assemble import assemble, known
    from twin.scenario.load import loads
    from twin.telemetry.sink import RunWriter

    text = FLEET.format(duration=f"{duration_s} s", rate=rate, racks=racks, design=design)
    rates, counts = [], {"cell_steps": 0, "cells": 0, "firmware_ticks": 0}
    for _ in range(ROUNDS):
        world = assemble(loads(text, known(), label="bench.yaml"), Path())
        with tempfile.TemporaryDirectory() as folder:
            with RunWriter(Path(folder) / "run", packs=world.packs, code_names=world.code_names) as writer:
                seconds = _cpu_s(lambda: (world.run(writer), writer.finish_tables()))  # noqa: B023
        counts = world.step_counts()
        rates.append(counts["cell_steps"] / seconds)
    return statistics.median(rates), counts["cells"], counts["firmware_ticks"]


def demo_day(scenario: Path) -> tuple[float, float]:
    """Wall seconds of one simulated day of the demo with its analysis and report, and of a bare import."""
    from twin.run import run_scenario

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = run_scenario(scenario, Path(folder) / "run")
        wall = time.perf_counter() - start
        return wall / (result.manifest.duration_s / 86_400.0), wall


def main() -> None:
    console = Console()
    from bms_emulator.native import bench_native  # noqa: PLC0415

    console.print(f"machine: {platform.processor() or platform.machine()}, Python {platform.python_version()}")
    table = Table(title="twin bench: CPU time of one core, medians", title_justify="left")
    for name, justify in (("what", "left"), ("figure", "right"), ("unit", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for design, racks, rate, seconds in (
        ("tower_112s4p", 2, "plant", 1200),
        ("tower_112s4p", 24, "plant", 600),
        ("tower_112s4p", 2, "full", 1200),
        ("ev_96s46p", 4, "plant", 600),
    ):
        speed, cells, ticks = plant(design, racks, rate, seconds)
        what = f"plant with electrics, thermal, sensors, BMS ({rate} rate), telemetry: {racks} x {design}, {cells} cells"
        table.add_row(what, f"{speed:.3g}", "cell-steps/s")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
