"""The same firmware on this host and on the emulated controller over the same frames: are the bits the same?

    python -m bms_emulator.firmware.equality --hours 24 --out results/firmware/native_equals_emulated.csv

Both get one frame per second (or per tick); after each second all outputs are compared, and every telemetry
frame byte by byte. The frames are a measured drive of an LG HG2 cell (`lg_hg2_drive_1hz` of the data folder;
1 Hz, with its temperature) as a pack of 14 groups with an offset each, or with `--synthetic` a made-up drive
that also visits faults. A long run may be cut: `--state FILE` is read at the start if it is there, and
written at the end.
"""

from __future__ import annotations

import argparse
import csv
import os
import pickle
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bms_emulator.board import BmsBoard, TaskCycles
from bms_emulator.firmware.package import Identity, development_key, package
from bms_emulator.firmware.parameters import make_params
from bms_emulator.firmware.paramset import pack_set, schema
from bms_emulator.firmware.releases import load_release
from bms_emulator.firmware.target import build_program
from bms_emulator.native import NativeBms, contactor_bit, read_outputs, request_bit

DESIGN = {"n_groups": 14, "n_temps": 4, "capacity_mAh": 2_778, "current_max_discharge_mA": 25_000}
MAGIC_TELEMETRY = 0xB7
ZERO_C_DDEG = 10.0
CHARGING = contactor_bit("MAIN_PLUS") | contactor_bit("PRECHARGE")


@dataclass
class Pair:
    """One BMS twice: native, and on the board, with the parameters delivered as a signed set."""

    native: NativeBms
    board: BmsBoard
    seconds: int = 0
    different: list[str] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    taken: int = 0

    @staticmethod
    def build(design: dict[str, Any], release: str | None = None, engine: str = "interp") -> Pair:
        params = make_params([design])
        key, identity = development_key(), Identity()
        version = schema()["version"]
        flags = load_release(release).flags if release else ()
        app, rom = build_program("app", flags), build_program("rom")
        board = BmsBoard(engine)
        board.manufacture(
            rom,
            package(app.body, (1, 0, 0, 0), key, identity, schema=version),
            package(pack_set(params[0], 1), (1, 0, 0, 0), key, identity, schema=version, bootable=False),
        )
        board.power_on()
        board.run(0.5)
        return Pair(NativeBms(params, telemetry_bytes=1 << 20, release=release), board)

    def step(self, frame: NDArray[np.void], ticks: int) -> None:
        """One frame for `ticks` ticks on both; contactors are ideal, commands act from the next frame on."""
        command = int(self.native.outputs["contactor_command"][0])
        frame["contactor_feedback"] = command
        frame["link_voltage_mV"] = frame["pack_voltage_mV"] if command & CHARGING else 0
        frame["sample_period_ticks"] = ticks
        frame["sample_counter"] += np.uint16(1)
        self.native.step(frame, ticks)
        self.board.put_inputs(frame[0])
        self.board.run(0.01 * ticks)

    def compare(self, where: str) -> None:
        """All outputs as they stand, and the telemetry that has been sent since the last time."""
        mine = self.native.outputs[0]
        theirs = read_outputs(self.board.context, self.native)[0]
        names = mine.dtype.names or ()
        self.different += [f"{where}: {n}" for n in names if mine[n].tobytes() != theirs[n].tobytes()]
        self.frames += self.native.telemetry()[0]
        sent = [f for f in self.board.mailbox.sent if f and f[0] == MAGIC_TELEMETRY]
        self.board.mailbox.sent.clear()
        for received in sent:
            if self.taken >= len(self.frames) or received != self.frames[self.taken]:
                self.different.append(f"{where}: telemetry frame {self.taken}")
            self.taken += 1

    def cycles(self) -> dict[str, TaskCycles]:
        stats = self.board.stats()
        return stats.task if stats else {}


def synthetic(seed: int, bms: NativeBms) -> Iterator[NDArray[np.void]]:
    """A drive with rests, charging, heat, a lost wire, a cold morning, gas, and at last a runaway."""
    rng = np.random.default_rng(seed)
    n, m = int(bms.params["n_groups"][0]), int(bms.params["n_temps"][0])
    frame = bms.frames()
    cells = 36_500 + rng.integers(-80, 80, n)
    warm, k = 250.0, 0
    while True:
        phase = k // 20 % 6
        current = (0, 1_500, -900, 3_000, 0, 700)[phase] + int(rng.integers(-20, 20))
        warm += 0.3 * (phase == 3) - 0.1 * (phase == 0)
        frame["cell_voltage_100uV"][0, :n] = cells - current // 12 + rng.integers(-3, 4, n)
        frame["cell_temperature_ddegC"][0, :m] = np.round(warm + rng.normal(0, 0.7, m))
        frame["pack_current_mA"], frame["pack_current_redundant_mA"] = current, current + 5
        if k % 97 == 50:
            frame["cell_voltage_100uV"][0, int(rng.integers(n))] = 65535
        usable = frame["cell_voltage_100uV"][0, :n].astype(np.int64)
        frame["pack_voltage_mV"] = int(np.where(usable == 65535, 36_500, usable).sum()) // 10
        frame["insulation_kohm"], frame["pressure_daPa"] = 3_000 + k % 7, int(rng.integers(0, 4))
        frame["gas_ppm"] = 20
        if k >= 110:
            frame["cell_temperature_ddegC"][0, 1] = min(250 + 30 * (k - 110), 2_000)
            frame["pressure_daPa"] = 80 if k > 120 else 0
        frame["request"] = request_bit("CLOSE")
        k += 1
        yield frame


def measured(folder: Path, bms: NativeBms) -> Iterator[NDArray[np.void]]:
    """The drives of the data set one after the other at 1 Hz; a reset and a new request between two."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(folder / "lg_hg2_drive_1hz.parquet").to_pandas()
    drives = table[table["profile"] != "Cap_1C"].groupby(["T_amb", "profile"], observed=True)
    order = sorted(drives.groups, key=lambda key: (abs(key[0] - 25), str(key[1])))
    n, m = int(bms.params["n_groups"][0]), int(bms.params["n_temps"][0])
    offsets = np.random.default_rng(7).integers(-60, 60, n)
    frame = bms.frames()
    frame["insulation_kohm"], frame["pressure_daPa"], frame["gas_ppm"] = 5_000, 0, 0
    while True:
        for key in order:
            drive = drives.get_group(key)
            # The tester counts charge from 0 = full downwards, so discharge is negative there.
            sign = -1 if drive["Ah"].iloc[-1] < 0 else 1
            rows = drive[["V", "I", "T_C"]].to_numpy()
            for k, (volt, ampere, celsius) in enumerate(rows):
                frame["cell_voltage_100uV"][0, :n] = round(volt * 1e4) + offsets
                frame["pack_voltage_mV"] = (
                    int(frame["cell_voltage_100uV"][0, :n].astype(np.int64).sum()) // 10
                )
                frame["pack_current_mA"] = round(sign * ampere * 1e3)
                frame["cell_temperature_ddegC"][0, :m] = round(celsius * ZERO_C_DDEG) + np.arange(m)
                resets = request_bit("RESET_FAULT") | request_bit("SERVICE_RESET")
                frame["request"] = resets * (k == 2) | request_bit("CLOSE") * (k > 5)
                yield frame


def run(pair: Pair, frames: Iterator[NDArray[np.void]], seconds: int, ticks: int = 100) -> None:
    """`seconds` of both, compared after each."""
    for _ in range(seconds):
        for _ in range(100 // ticks):
            pair.step(next(frames), ticks)
        pair.seconds += 1
        pair.compare(f"second {pair.seconds}")


def report(pair: Pair, source: str) -> list[tuple[str, str]]:
    rows = [
        ("frames of", source),
        ("seconds compared", str(pair.seconds)),
        ("telemetry frames compared", str(pair.taken)),
        ("telemetry bytes", str(sum(map(len, pair.frames)))),
        ("differences", str(len(pair.different))),
        ("state at the end", pair.native.state_names[pair.native.outputs["state"][0]]),
    ]
    clock = 0.01 * pair.board.machine.board.clock_Hz
    for name, row in pair.cycles().items():
        rows.append((f"cycles of {name}, min / mean / max", f"{row.min} / {row.mean:.0f} / {row.max}"))
        if name == "rt":
            rows.append(("CPU load of rt", f"{row.mean / clock:.2%}"))
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bms_emulator.firmware.equality", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--engine", default="blocks", choices=("blocks", "interp"), help="of the emulator")
    parser.add_argument("--release", help="one of firmware/releases")
    parser.add_argument("--state", type=Path, help="file to go on from, and to leave the state in")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    folder = Path(os.environ.get("TWIN_DATA", "../shared/data")) / "battery"
    if not chosen.synthetic and not (folder / "lg_hg2_drive_1hz.parquet").exists():
        print(f"no measured drive in {folder}; set TWIN_DATA, or choose --synthetic", file=sys.stderr)
        return 2
    pair = Pair.build(DESIGN, chosen.release, chosen.engine)
    frames = synthetic(1, pair.native) if chosen.synthetic else measured(folder, pair.native)
    before = 0
    if chosen.state and chosen.state.exists():
        kept = pickle.loads(chosen.state.read_bytes())
        pair.native.restore(kept["native"])
        pair.board.restore(kept["board"])
        pair.seconds = before = kept["seconds"]
        pair.taken, pair.frames, pair.different = kept["taken"], kept["frames"], kept["different"]
        for frame in islice(frames, pair.seconds):  # counters stand where they stood
            frame["sample_counter"] += np.uint16(1)
    start_s = time.process_time()
    run(pair, frames, round(chosen.hours * 3600) - before)
    used_s = time.process_time() - start_s
    if chosen.state:
        kept = {"native": pair.native.snapshot(), "board": pair.board.snapshot(), "seconds": pair.seconds}
        kept |= {"taken": pair.taken, "frames": pair.frames, "different": pair.different}
        chosen.state.write_bytes(pickle.dumps(kept))
    rows = report(pair, "synthetic" if chosen.synthetic else "lg_hg2_drive_1hz")
    rows.append(("real time over CPU time, last part", f"{(pair.seconds - before) / max(used_s, 1e-9):.0f}"))
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        with chosen.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("what", "value"), *rows])
    for name, value in rows:
        print(f"{name:40s} {value}")
    for line in pair.different[:10]:
        print(line, file=sys.stderr)
    return 1 if pair.different else 0


if __name__ == "__main__":
    raise SystemExit(main())
