"""Ageing laws beside PyBaMM's physics and beside measured cells: `python -m pack_models.ageing`.

    python -m pack_models.ageing physics --out results/ageing            # about 3 min
    python -m pack_models.ageing bench
    python -m pack_models.ageing measured --data ../shared/data/battery --out results/ageing

`physics` cycles the representative PyBaMM cell (see pybamm_cell.py) and every law through the same days.
`measured` puts the laws beside cells nobody fitted them to: the point is to see how far a law of the same
chemistry is off for another product.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pack_models.ageing.bank import AgeingBank
from pack_models.ageing.forms import FloatArray
from pack_models.ageing.parameters import ageing_names

CELSIUS_K = 273.15
PHYSICS_DAYS = 60
STEP_S = 1800.0


def daily(low: float, high: float) -> FloatArray:
    """(48,) charge at the end of each half hour: up in 6 h, rest 6 h, down in 6 h, rest 6 h."""
    hour = np.arange(1, 49) / 2.0
    return np.asarray(np.interp(hour, [0.0, 6.0, 12.0, 18.0, 24.0], [low, high, high, low, low]))


def physics(out: Path, days: int = PHYSICS_DAYS) -> Path:
    """Capacity by day of the PyBaMM cell and of the laws, one full swing of 0.8 a day at 25 and 40 degC."""
    from pack_models.ageing.pybamm_cell import PybammAgeing

    rows: list[dict[str, Any]] = []
    duty = daily(0.1, 0.9)
    for celsius in (25.0, 40.0):
        start, kelvin = np.array([duty[-1]]), np.array([celsius + CELSIUS_K])
        cells: dict[str, Any] = {
            name: AgeingBank.from_model(name, 1, soc=duty[-1]) for name in ageing_names()
        }
        cells["pybamm_okane2022"] = PybammAgeing(start)
        for day in range(1, days + 1):
            for soc in duty:
                for cell in cells.values():
                    cell.accumulate(np.array([soc]), kelvin, STEP_S)
            for name, cell in cells.items():
                cell.refresh()
                rows.append(
                    {
                        "temperature_C": celsius,
                        "day": day,
                        "model": name,
                        "capacity": f"{cell.capacity_factor[0]:.6f}",
                        "resistance": f"{cell.resistance_factor[0]:.6f}",
                    }
                )
    path = _write(out / "physics.csv", rows)
    _physics_picture(out / "physics.png", rows)
    return path


def _physics_picture(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, celsius in zip(figure.subplots(1, 2, sharey=True), (25.0, 40.0), strict=True):
        for name in dict.fromkeys(row["model"] for row in rows):
            mine = [row for row in rows if row["model"] == name and row["temperature_C"] == celsius]
            style = {"lw": 2.0, "color": "k"} if name.startswith("pybamm") else {"lw": 1.0}
            axes.plot([r["day"] for r in mine], [float(r["capacity"]) for r in mine], label=name, **style)
        axes.set(title=f"10 to 90 % and back once a day, {celsius:.0f} degC", xlabel="days")
    figure.axes[0].set_ylabel("capacity over new")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def cycle_loss(
    law: str, cycles: int, charge_h: float, discharge_h: float, rest_h: float, celsius: float
) -> float:
    """Loss of a law after full cycles (0 to 1) at constant temperature."""
    bank = AgeingBank.from_model(law, 1, soc=0.0, refresh_every_s=1e12)
    kelvin = np.array([celsius + CELSIUS_K])
    for _ in range(cycles):
        for target, hours in ((1.0, charge_h), (0.0, discharge_h)):
            start = float(1.0 - target)
            for soc in np.linspace(start, target, 7)[1:]:
                bank.accumulate(np.array([soc]), kelvin, hours * 600.0)
        bank.accumulate(np.array([0.0]), kelvin, rest_h * 3600.0)
    bank.refresh()
    return float(1.0 - bank.capacity_factor[0])


def measured(data: Path, out: Path) -> Path:
    """Measured losses beside the laws; every row is outside what its law was fitted to, and says how."""
    import pandas as pd

    rows: list[dict[str, Any]] = []

    def add(cell: str, law: str, cycles: int, seen: float, said: float, note: str) -> None:
        rows.append(
            {
                "cell": cell,
                "law": law,
                "cycles": cycles,
                "loss_measured": f"{seen:.4f}",
                "loss_said": f"{said:.4f}",
                "said_over_measured": f"{said / seen:.2f}",
                "note": note,
            }
        )

    nasa = pd.read_parquet(data / "nasa_pcoe_capacity.parquet")
    for cell in ("B0005", "B0006", "B0007"):
        capacity = nasa[nasa["cell"] == cell].sort_values("idx")["capacity_ah"].to_numpy(dtype=float)
        hours = (1.0, 1.0, 4.0)
        said = cycle_loss("schmalstieg_nmc", capacity.size - 1, *hours, 24.0)
        seen = 1.0 - float(np.median(capacity[-5:]) / np.median(capacity[:5]))
        add(
            cell,
            "schmalstieg_nmc",
            capacity.size - 1,
            seen,
            said,
            "NASA 18650 2 Ah at 24 degC, other chemistry",
        )
    calce = pd.read_parquet(data / "calce_cs2_capacity.parquet")
    for cell in ("CS2_35", "CS2_36"):
        capacity = calce[calce["cell"] == cell].sort_values("cycle")["capacity"].to_numpy(dtype=float)
        for cycles in (200, 500):
            said = cycle_loss("schmalstieg_nmc", cycles, 2.5, 1.0, 0.1, 24.0)
            seen = 1.0 - float(np.median(capacity[cycles - 5 : cycles + 5]) / np.median(capacity[:10]))
            add(cell, "schmalstieg_nmc", cycles, seen, said, "CALCE 1.1 Ah LCO; 0.5C, 1C; before its knee")
    life = pd.read_csv(data / "severson_lfp_life_train.csv")["cycle_life"].to_numpy(dtype=float)
    for share, cycles in zip((10, 50, 90), np.quantile(life, (0.1, 0.5, 0.9)), strict=True):
        said = cycle_loss("naumann_lfp", round(cycles), 0.2, 0.25, 0.1, 30.0)
        note = f"A123 1.1 Ah LFP, {share} % of 41 cells; 80 % in 10 min, discharge 4C: beyond the law's 1C"
        add("severson", "naumann_lfp", round(cycles), 0.2, said, note)
    path = _write(out / "measured.csv", rows)
    return path


def bench(n_cells: int = 50_000, steps: int = 120) -> list[str]:
    """CPU time of the laws per cell-step of 60 s, on swings of 0.8 in four hours, at rest, and of reading."""
    import time

    phase = np.linspace(0.0, 1.0, n_cells)
    swings = [0.5 + 0.4 * np.sin(2 * np.pi * (k / 240.0 + phase)) for k in range(steps)]
    kelvin = np.full(n_cells, 300.0)
    lines = [f"{'law':18}{'moving':>9}{'rest':>9}{'refresh':>9}  ns per cell; {n_cells} cells"]
    for name in ageing_names():
        bank = AgeingBank.from_model(name, n_cells, soc=swings[0], refresh_every_s=1e12)
        bank.accumulate(swings[0], kelvin, 60.0)  # compiles
        marks = [time.process_time()]
        for soc in swings:
            bank.accumulate(soc, kelvin, 60.0)
        marks.append(time.process_time())
        for _ in range(steps):
            bank.accumulate(swings[-1], kelvin, 60.0)
        marks.append(time.process_time())
        bank.refresh()
        marks.append(time.process_time())
        moving, rest, refresh = np.diff(marks) * 1e9 / n_cells / np.array([steps, steps, 1])
        lines.append(f"{name:18}{moving:9.1f}{rest:9.1f}{refresh:9.1f}  {bank.bytes_per_cell} B per cell")
    return lines


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return path


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pack_models.ageing", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("physics", "measured", "bench"))
    parser.add_argument("--out", type=Path, default=Path("results/ageing"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/battery"))
    parser.add_argument("--days", type=int, default=PHYSICS_DAYS, help="of `physics`")
    arguments = parser.parse_args(words)
    if arguments.what == "bench":
        print("\n".join(bench()))
        return 0
    if arguments.what == "physics":
        if arguments.days < 1:
            parser.error(f"--days {arguments.days}: expected at least 1")
        print(physics(arguments.out, arguments.days))
        return 0
    if not (arguments.data / "nasa_pcoe_capacity.parquet").is_file():
        parser.error(f"--data {arguments.data}: has no nasa_pcoe_capacity.parquet")
    print(measured(arguments.data, arguments.out))
    return 0
