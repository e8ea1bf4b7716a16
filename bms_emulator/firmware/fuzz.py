"""Garbage for the firmware: parameter sets and measured frames that nobody should have sent.

    python -m bms_emulator.firmware.fuzz --count 100000 --out results/firmware/fuzz.csv

A BMS runs connected while set after set is offered to it. Each must be refused with a stable reason (or be as
good as what it was made from), the parameters in use must stay byte for byte, and protection must go on: a
tick per set, and every thousandth time a real over-current that has to open the contactors in time.
"""

from __future__ import annotations

import argparse
import csv
import struct
from collections import Counter
from pathlib import Path

import numpy as np

from bms_emulator.firmware.interface import names
from bms_emulator.firmware.parameters import make_params
from bms_emulator.firmware.paramset import pack_set, read_set
from bms_emulator.native import NativeBms, contactor_bit, request_bit

DESIGN = {"n_groups": 14, "n_temps": 4, "capacity_mAh": 10_000}
OVERCURRENT_mA, TRIP_TICKS = 60_000, 10
KINDS = (
    "noise",
    "bits",
    "cut",
    "longer",
    "row swapped",
    "row lost",
    "row twice",
    "id",
    "type",
    "nan",
    "range",
)


class PromiseBrokenError(AssertionError):
    """The firmware accepted, lost or missed something that it must not."""


def spoil(body: bytes, rng: np.random.Generator, kind: str) -> bytes:
    """One garbage set of a kind, from a good body."""
    raw = bytearray(body)
    n = (len(body) - 12) // 8
    at = 12 + 8 * int(rng.integers(n))
    other = 12 + 8 * int(rng.integers(n))
    if kind == "noise":
        return rng.bytes(int(rng.integers(0, 2 * len(body))))
    if kind == "bits":
        for _ in range(int(rng.integers(1, 9))):
            raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        return bytes(raw[: int(rng.integers(len(raw)))])
    elif kind == "longer":
        return bytes(raw) + rng.bytes(int(rng.integers(1, 64)))
    elif kind == "row swapped":
        raw[at : at + 8], raw[other : other + 8] = raw[other : other + 8], raw[at : at + 8]
    elif kind == "row lost":
        del raw[at : at + 8]
        struct.pack_into("<H", raw, 6, n - 1)
    elif kind == "row twice":
        raw[at:at] = raw[at : at + 8]
        struct.pack_into("<H", raw, 6, n + 1)
    elif kind == "id":
        struct.pack_into("<H", raw, at, int(rng.integers(65536)))
    elif kind == "type":
        raw[at + 2] = int(rng.integers(256))
    elif kind == "nan":
        at = 12 + 8 * int(rng.integers(n - 200, n))
        word = rng.choice([0x7FC00000, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFFFFFFF])
        struct.pack_into("<I", raw, at + 4, int(word))
    else:
        struct.pack_into("<i", raw, at + 4, int(rng.integers(-(2**31), 2**31)))
    return bytes(raw)


def _frame(bms: NativeBms) -> np.ndarray:
    frame = bms.frames()
    frame["cell_voltage_100uV"][:, :14] = 37_000
    frame["cell_temperature_ddegC"][:, :4] = 250
    frame["pack_voltage_mV"], frame["pack_current_mA"] = 51_800, 0
    return frame


def _tick(bms: NativeBms, frame: np.ndarray, ticks: int = 1) -> None:
    for _ in range(ticks):
        command = bms.outputs["contactor_command"]
        frame["contactor_feedback"] = command
        frame["link_voltage_mV"] = np.where(command & 5, 51_800, 0)
        frame["sample_counter"] += np.uint16(1)
        bms.step(frame)


def fuzz_sets(count: int, seed: int = 1) -> Counter[tuple[str, str]]:
    """(kind of garbage, reason) of `count` sets; raises PromiseBrokenError."""
    rng = np.random.default_rng(seed)
    body = pack_set(make_params([DESIGN])[0], counter=5)
    bms = NativeBms([DESIGN])
    frame = _frame(bms)
    bms.connect(frame)
    in_use = bms.params.tobytes()
    run = bms.state_names.index("RUN")
    told: Counter[tuple[str, str]] = Counter()
    for k in range(count):
        kind = KINDS[k % len(KINDS)]
        garbage = spoil(body, rng, kind)
        reason, params = read_set(garbage, counter_least=5)
        told[kind, reason] += 1
        if reason == "OK":
            # Then it is a set like any other: what it says passes the check, and it was not cut or padded.
            make_and_check = NativeBms(params)
            del make_and_check
            if len(garbage) != len(body):
                raise PromiseBrokenError(f"set {k} ({kind}): {len(garbage)} bytes accepted")
        _tick(bms, frame)
        if bms.outputs["state"][0] != run or bms.params.tobytes() != in_use:
            raise PromiseBrokenError(f"set {k} ({kind}): protection stopped, or its parameters changed")
        if k % 1000 == 999:
            _prove_protection(bms, frame)
    return told


def _prove_protection(bms: NativeBms, frame: np.ndarray) -> None:
    frame["pack_current_mA"] = OVERCURRENT_mA
    _tick(bms, frame, TRIP_TICKS)
    if bms.outputs["contactor_command"][0] & contactor_bit("MAIN_PLUS"):
        raise PromiseBrokenError("an over-current did not open the contactors")
    frame["pack_current_mA"] = 0
    _tick(bms, frame, 100)
    frame["request"] = request_bit("RESET_FAULT")
    _tick(bms, frame, 2)
    frame["request"] = 0
    _tick(bms, frame, 2)
    bms.connect(frame)


def fuzz_frames(count: int, seed: int = 2, n: int = 50) -> Counter[str]:
    """States visited by `count` frames of random bytes over n instances; raises PromiseBrokenError."""
    rng = np.random.default_rng(seed)
    bms = NativeBms([DESIGN | {"n_groups": 1 + 5 * i, "n_temps": 1 + i} for i in range(n)])
    frames = bms.frames()
    told: Counter[str] = Counter()
    for _ in range(count // n):
        frames[:] = np.frombuffer(rng.bytes(frames.nbytes), dtype=frames.dtype)
        before = bms.outputs["uptime_ms"].copy()
        out = bms.step(frames, int(rng.integers(1, 4)), int(rng.choice([10, 1_000, 3_600_000])))
        closed = (out["contactor_command"] != 0) & (out["fault_latched"] != 0)
        opening = np.isin(out["state"], [bms.state_names.index("OPENING")])
        if np.any(closed & ~opening) or np.any(out["uptime_ms"] <= before):
            raise PromiseBrokenError("closed contactors with a latched fault, or a clock that stands")
        if np.any(out["soc_estimate_ppm"] > 1_100_000) or np.any(out["safety_ppm"] > 1_000_000):
            raise PromiseBrokenError("an estimate outside of its range")
        told.update(bms.state_names[s] for s in out["state"])
    return told


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bms_emulator.firmware.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="table of what was refused why")
    chosen = parser.parse_args(arguments)
    sets, frames = fuzz_sets(chosen.count), fuzz_frames(chosen.count)
    rows = [("set", kind, reason, number) for (kind, reason), number in sorted(sets.items())]
    rows += [("frame", "noise", state, number) for state, number in sorted(frames.items())]
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        with chosen.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("what", "kind", "outcome", "count"), *rows])
    for row in rows:
        print("{:6s} {:12s} {:20s} {:8d}".format(*row))
    known = set(names("PARAM_REASON"))
    return 0 if {reason for _, reason in sets} <= known else 1


if __name__ == "__main__":
    raise SystemExit(main())
