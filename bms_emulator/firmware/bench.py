"""Cycles of the firmware's tasks on the controller, latency of L1, sizes, and how fast both rungs run it.

    python -m bms_emulator.firmware.bench [--out results/firmware/cycles.csv]

Cycles and latencies are exact figures of the emulator at 50 MHz and the same on every machine; the speeds are
of this one (CPU time, one core). A new sample comes in every tick; after the pack is connected one sensor
rises by 10 K/s until L1 opens the contactors.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

from bms_emulator.board import BmsBoard
from bms_emulator.firmware.equality import Pair
from bms_emulator.firmware.releases import load_release, release_names
from bms_emulator.firmware.target import build_program
from bms_emulator.native import contactor_bit

PACKS = ((14, 4), (112, 28), (256, 64))
CONNECT_TICKS, PHASES = 150, 5


def runaway(n: int, m: int, phase: int = 0) -> tuple[BmsBoard, float]:
    """Board after L1 has acted, and ms from the sample to the contactor (waiting for the tick included).

    `phase` : extra ticks before the heating, so that L1 acts at different places of the schedule
    """
    pair = Pair.build({"n_groups": n, "n_temps": m, "capacity_mAh": 20_000})
    frame = pair.native.frames()
    frame["cell_voltage_100uV"][0, :n] = 37_000
    frame["cell_temperature_ddegC"][0, :m] = 250
    frame["pack_voltage_mV"], frame["pack_current_mA"], frame["request"] = 3_700 * n, 0, 1
    for k in range(CONNECT_TICKS + phase + 1_000):
        frame["cell_voltage_100uV"][0, k % n] = 37_000 + k % 50
        frame["cell_temperature_ddegC"][0, 0] = 250 + max(0, k - CONNECT_TICKS - phase)
        pair.step(frame, 1)
        closed = pair.board.contactors & contactor_bit("MAIN_PLUS")
        if k > CONNECT_TICKS and not closed:
            break
    board = pair.board
    clock = board.machine.board.clock_Hz
    at = board.contactors_changed_at
    return board, (at - board.sampled_at) / clock * 1e3


def table() -> list[tuple[str, str, str]]:
    rows = [("what", "case", "value")]
    for n, m in PACKS:
        case = f"{n} groups, {m} sensors"
        start_s = time.process_time()
        board, sample_ms = runaway(n, m)
        ratio = board.time_s / (time.process_time() - start_s)
        worst = max(sample_ms, *(runaway(n, m, phase)[1] for phase in range(1, PHASES)))
        stats = board.stats()
        if stats is None:
            raise RuntimeError("the firmware is not running")
        clock = board.machine.board.clock_Hz
        for name, row in stats.task.items():
            rows.append(
                (f"cycles of {name}, min / mean / max", case, f"{row.min} / {row.mean:.0f} / {row.max}")
            )
        rows.append(("CPU load of rt", case, f"{stats.task['rt'].mean / (0.01 * clock):.1%}"))
        rows.append(("CPU load of slow", case, f"{stats.task['slow'].mean / clock:.1%}"))
        rows.append(("longest tick, ms", case, f"{stats.task['rt'].max / clock * 1e3:.2f}"))
        rows.append(("L1: sample to contactor, worst of 5, ms", case, f"{worst:.2f}"))
        rows.append(("late ticks", case, str(stats.overruns)))
        rows.append(("emulated, real time over CPU time", case, f"{ratio:.0f}"))
    for name in release_names():
        program = build_program("app", load_release(name).flags)
        sizes = f"{program.flash_bytes} / {program.ram_bytes} / {program.stack_bytes}"
        rows.append(("bytes of flash / RAM / worst stack", name, sizes))
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bms_emulator.firmware.bench", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    rows = table()
    for row in rows[1:]:
        print("{:42s} {:24s} {}".format(*row))
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        with chosen.out.open("w", newline="", encoding="utf-8") as file:
            # Speeds of this machine do not belong into a table that is compared.
            kept = [row for row in rows if not row[0].startswith("emulated")]
            csv.writer(file, lineterminator="\n").writerows(kept)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
