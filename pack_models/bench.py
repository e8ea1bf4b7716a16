"""Speed of the cell banks: cell-steps per second and core, side by side with PyBaMM's own stepping.

    python -m pack_models.bench

CPU time of this process (other processes on the machine still share its caches and cores), median of the
repeats, kernels warm. One step of the circuit is: forecast (`thevenin`), cells with their electrics, and
temperatures, as the world steps them; telemetry is not included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from pack_models.catalogue import cell, pack
from pack_models.cells.ecm import EcmBank
from pack_models.cells.ladder import LadderBank
from pack_models.fleet.bench import report as planning
from pack_models.thermal.lumped import LumpedThermal


def _median_s(work: Callable[[], None], repeats: int) -> float:
    """Median CPU time of a call, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times))


def ladder_step_s(repeats: int = 30) -> tuple[float, int]:
    """CPU time of a 10 s step of 16p2s cells between rails, liionpack's example, and its linear solutions."""
    bank = LadderBank(cell("lgm50_chen2020"), 2, 16, 0.8, rail_ohm=1e-4, contact_ohm=1e-2)
    temperature_K = np.full(32, 298.15)
    return _median_s(lambda: bank.step(20.0, temperature_K, 10.0), repeats), bank.rounds


def circuit_speed(
    n_cells: int, dt_s: float, design: str = "tower_112s4p", repeats: int = 15
) -> dict[str, float]:
    """Nanoseconds per cell of each part of a step, and cell-steps per second without and with forecast."""
    sheet = pack(design)
    n_packs = max(1, round(n_cells / sheet.n_cells))
    n = n_packs * sheet.n_cells
    draw = np.random.default_rng(7)
    bank = EcmBank.from_pack(
        sheet,
        n_packs,
        np.clip(draw.normal(0.6, sheet.soc_spread, n), 0.0, 1.0),
        draw.normal(1.0, sheet.capacity_spread, n),
        draw.normal(1.0, sheet.resistance_spread, n),
    )
    thermal = LumpedThermal.from_pack(sheet, n_packs, 298.15)
    ambient_K, cooling = np.full(n_packs, 298.15), np.full(n_packs, 0.5)
    currents = sheet.capacity_Ah * draw.uniform(-0.5, 0.5, (64, n_packs))
    calls = max(1, 20_000 // n)  # long enough for the resolution of the clock
    number = iter(range(10**9))
    parts: dict[str, Callable[[], object]] = {
        "thevenin": lambda: bank.thevenin(thermal.temperature_K, dt_s),
        "cells": lambda: bank.step(currents[next(number) % 64], thermal.temperature_K, dt_s),
        "thermal": lambda: thermal.step(bank.heat_W, ambient_K, cooling, dt_s),
    }
    samples: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats + 1):
        for name, part in parts.items():
            start = time.process_time()
            for _ in range(calls):
                part()
            samples[name].append((time.process_time() - start) / calls / n)
    spent = {name: float(np.median(seconds[1:])) for name, seconds in samples.items()}
    return {
        "cells": float(n),
        **{f"{name}_ns": 1e9 * seconds for name, seconds in spent.items()},
        "cell_steps_per_s": 1.0 / (spent["cells"] + spent["thermal"]),
        "cell_steps_per_s_with_forecast": 1.0 / sum(spent.values()),
    }


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m pack_models.bench", description=__doc__)
    parser.add_argument("--no-pybamm", action="store_true", help="circuits only")
    options = parser.parse_args(arguments)
    best = 0.0
    print(f"{'circuit, per core':16} cells    dt  cells  therm. forecast  cell-steps/s  with forecast")
    for n_cells in (1_000, 10_000, 100_000):
        for dt_s in (1.0, 60.0):
            speed = circuit_speed(n_cells, dt_s)
            best = max(best, speed["cell_steps_per_s"])
            print(
                f"  tower_112s4p {speed['cells']:8,.0f} {dt_s:4.0f}s {speed['cells_ns']:6.0f} "
                f"{speed['thermal_ns']:6.0f} {speed['thevenin_ns']:6.0f} ns "
                f"{speed['cell_steps_per_s']:12.2e} {speed['cell_steps_per_s_with_forecast']:14.2e}"
            )
    ladder_s, rounds = ladder_step_s()
    print(
        f"16p2s between rails: {1e3 * ladder_s:.2f} ms a step of {rounds} solutions "
        "(liionpack 0.4.0 on this kind of machine: 28.9 ms, measured apart, with SPM cells)"
    )
    planning()
    if options.no_pybamm:
        return
    from pack_models.cells.compiler import bench as compiled_models

    compiled_models.report()


if __name__ == "__main__":
    main()
