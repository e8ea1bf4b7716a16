"""Speed of the planning engines, end to end: power, cells, electrics, temperatures, HVAC, ageing, Parquet.

    python -m pack_models.fleet.bench

CPU time of one core, median of simulated days of 60 s steps with a noisy duty of two cycles a day. A *rack*
is 416 cells of 280 Ah in series, one per group (372 kWh), on eight cold-plate modules; it counts 416
cell-steps a step with all cells and one with rung `mean`. The real-time figure has 1 s steps.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pack_models.catalogue import pack
from pack_models.catalogue.design import PackDesign
from pack_models.fleet.daily import DailyTable
from pack_models.fleet.engine import FleetEngine
from pack_models.fleet.mean import MeanFleet

FloatArray = NDArray[np.float64]
YEAR_S = 365.25 * 86400.0


def rack() -> PackDesign:
    """1p416s of the catalogue's LFP cell: eight modules of 52."""
    return dataclasses.replace(pack("lfp280_1p240s"), n_modules=8, groups_per_module=52)


def duty(n: int, rated_W: float, n_steps: int, dt_s: float, seed: int = 0) -> FloatArray:
    """(n_steps, n) AC power: two cycles a day at six to eight tenths of the rating, control noise on top."""
    draw = np.random.default_rng(seed)
    hour = np.arange(n_steps) * dt_s / 3600.0 % 24.0
    times = [hour < 1, hour < 3.5, hour < 7, hour < 9.3, hour < 12, hour < 14.3, hour < 18, hour < 20.3]
    level = np.select(times, [0, -0.7, 0, 0.7, 0, -0.7, 0, 0.7], 0.0)[:, None]
    return rated_W * (level * draw.uniform(0.9, 1.1, n) + 0.03 * draw.standard_normal((n_steps, n)))


def speed(fleet: FleetEngine | MeanFleet, n_steps: int, dt_s: float, days: int = 5) -> dict[str, float]:
    """CPU seconds per step and pack, median of `days` calls of n_steps each, with the daily row on disk."""
    n = fleet.n_packs
    outside_K = np.full((n_steps, fleet.n_containers), 293.0)
    spent, written = [], []
    with tempfile.TemporaryDirectory() as folder, DailyTable(Path(folder) / "days.parquet", n) as table:
        for day in range(days + 1):
            request_W = duty(n, fleet.converter.rated_W, n_steps, dt_s, day)
            begin = time.process_time()
            rows = fleet.run(request_W, outside_K, dt_s)
            middle = time.process_time()
            table.add(day, rows)
            written.append(time.process_time() - middle)
            spent.append(time.process_time() - begin)
    per = n * n_steps
    return {"total_s": float(np.median(spent[1:])) / per, "parquet_s": float(np.median(written[1:])) / per}


def report() -> None:
    """Print the table."""
    design = rack()
    cells = design.n_cells
    print(
        "planning engines, per core, 60 s steps, daily Parquet      ns/cell-step  cell-steps/s  rack-years/s"
    )
    for ageing in (None, "naumann_lfp"):
        fleet = FleetEngine(design, 24, packs_per_container=6, ageing=ageing)
        found = speed(fleet, 1440, 60.0)
        name = "all cells, 24 racks, " + ("with ageing" if ageing else "cells stay new")
        print(
            f"  {name:52} {1e9 * found['total_s'] / cells:9.1f} {cells / found['total_s']:16.2e}"
            f" {60.0 / YEAR_S / found['total_s']:10.3f}"
        )
        memory = fleet.bytes_per_cell()
        print(
            f"      of it Parquet {1e9 * found['parquet_s'] / cells:.2f} ns; {memory:.0f} B of state per cell"
        )
    for n in (1, 240):
        fleet = FleetEngine(design, n, packs_per_container=1 if n == 1 else 6)
        found = speed(fleet, 600, 1.0, 3)
        print(
            f"  all cells, {n} racks of {cells}, 1 s steps{'':21} {1e9 * found['total_s'] / cells:9.1f} "
            f"{cells / found['total_s']:15.2e}   {1.0 / (found['total_s'] * n):7.0f} x real time"
        )
    for n in (100, 1000):
        found = speed(MeanFleet(design, n), 1440, 60.0)
        print(
            f"  rung mean, {n} racks{'':36} {1e9 * found['total_s']:9.1f} {1.0 / found['total_s']:16.2e}"
            f" {60.0 / YEAR_S / found['total_s']:10.1f}"
        )


if __name__ == "__main__":
    report()
