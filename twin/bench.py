"""How fast whole runs of the twin are on this machine: the first part of `make bench`.

CPU time of one process, medians of several rounds after the kernels are compiled; nothing here is a test.
`make bench` goes on with the engines: cells beside PyBaMM's own `Simulation.step`, firmware, emulator.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import tempfile
import time
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


FLEETS = (
    # design, racks, rate of the firmware, simulated seconds
    ("tower_112s4p", 2, "full", 1200),
    ("tower_112s4p", 2, "plant", 1200),
    ("tower_112s4p", 24, "plant", 600),
    ("ev_96s46p", 10, "plant", 600),
    ("lfp280_1p240s", 40, "plant", 600),
)


def plant(design: str, racks: int, rate: str, duration_s: int) -> tuple[float, int]:
    """Cell-steps per CPU second with electrics, thermal, sensors, BMS and telemetry; and the cells."""
    from twin.assemble import assemble, known
    from twin.scenario.load import loads
    from twin.telemetry.sink import RunWriter

    text = FLEET.format(duration=f"{duration_s} s", rate=rate, racks=racks, design=design)
    rates, n_cells = [], 0
    for _ in range(ROUNDS):
        world = assemble(loads(text, known(), label="bench.yaml"), Path())
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            with RunWriter(out, packs=world.packs, code_names=world.code_names) as writer:
                start = time.process_time()
                world.run(writer)
                writer.finish_tables()
                seconds = time.process_time() - start
        counts = world.step_counts()
        n_cells = counts["cells"]
        rates.append(counts["cell_steps"] / seconds)
    return statistics.median(rates), n_cells


def demo_day(scenario: Path) -> tuple[float, float]:
    """Wall seconds for one simulated day of the demo with analysis and report, and the peak memory in MiB."""
    from twin.run import run_scenario

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = run_scenario(scenario, Path(folder) / "run")
        wall_s = time.perf_counter() - start
    peak_MiB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    return wall_s / (result.manifest.duration_s / 86_400.0), peak_MiB


def main() -> None:
    """Print the table; the benches of the engines follow in `make bench`."""
    console = Console()
    console.print(
        f"machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    )
    table = Table(title="twin: CPU time of one core, medians of whole runs", title_justify="left")
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_column("unit")
    for design, racks, rate, seconds in FLEETS:
        speed, cells = plant(design, racks, rate, seconds)
        table.add_row(
            f"{racks} x {design} ({cells} cells), BMS at {rate} rate", f"{speed:.3g}", "cell-steps/s"
        )
    wall_s, peak_MiB = demo_day(Path("scenarios/first_light.yaml"))
    table.add_row("demo with analysis and report, wall time", f"{wall_s:.0f}", "s per simulated day")
    table.add_row("peak memory", f"{peak_MiB:.0f}", "MiB")
    console.print(table)


if __name__ == "__main__":
    main()
