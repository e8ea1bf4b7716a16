"""Signed parameter sets inside the firmware: read exactly, refused with a reason, never half taken over."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from bms_emulator.firmware.fuzz import KINDS, fuzz_frames, fuzz_sets
from bms_emulator.firmware.interface import names
from bms_emulator.firmware.parameters import ParameterError, make_params
from bms_emulator.firmware.paramset import pack_set, read_set, schema
from bms_emulator.native import NativeBms
from tests.unit.bms_emulator.fw_rig import DESIGN, Rig

PARAMS = make_params([DESIGN])
BODY = pack_set(PARAMS[0], counter=5)
ROWS = {row["name"]: row for row in schema()["parameters"]}


def changed(name: str, value: float) -> bytes:
    raw = bytearray(BODY)
    position = [row["name"] for row in schema()["parameters"]].index(name)
    kind = "<f" if ROWS[name]["type"] == "f32" else "<i"
    struct.pack_into(kind, raw, 12 + 8 * position + 4, value)
    return bytes(raw)


def test_what_was_packed_is_read():
    reason, params = read_set(BODY, counter_least=5)
    assert reason == "OK"
    assert params.tobytes() == PARAMS.tobytes()
    assert len(ROWS) == (len(BODY) - 12) // 8
    assert len(ROWS) <= 1024, "as ota/limits.py allows"


REFUSED = {
    "empty": (b"", "SET_TRUNCATED"),
    "half a head": (BODY[:11], "SET_TRUNCATED"),
    "not a set": (b"XXXX" + BODY[4:], "SET_FORMAT"),
    "another schema": (BODY[:4] + b"\x63\x00" + BODY[6:], "SET_SCHEMA"),
    "cut": (BODY[:-8], "SET_LENGTH"),
    "longer": (BODY + b"\0" * 8, "SET_LENGTH"),
    "row left out": (
        BODY[:4] + struct.pack("<HHI", 2, len(ROWS) - 1, 5) + BODY[12:100] + BODY[108:],
        "SET_SCHEMA",
    ),
    "rows in the wrong order": (BODY[:12] + BODY[20:28] + BODY[12:20] + BODY[28:], "SET_SCHEMA"),
    "row again": (BODY[:20] + BODY[12:20] + BODY[28:], "SET_ORDER"),
    "type of a row": (BODY[:14] + b"\x03" + BODY[15:], "SET_SCHEMA"),
    "unknown type": (BODY[:14] + b"\x09" + BODY[15:], "SET_FORMAT"),
    "reserved byte": (BODY[:15] + b"\x01" + BODY[16:], "SET_FORMAT"),
    "whole number out of range": (changed("n_groups", 257), "OUT_OF_RANGE"),
    "float out of range": (changed("abuse_scale", 11.0), "OUT_OF_RANGE"),
    "nan": (changed("abuse_scale", float("nan")), "NOT_FINITE"),
    "infinite": (changed("est_gate", float("inf")), "NOT_FINITE"),
    "pair": (changed("balancing_stop_100uV", 60), "PAIR_ORDER"),
    "level order": (changed("limit_trip.CELL_OVERVOLTAGE.MSL", 42_000), "LEVEL_ORDER"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_reasons_are_stable(case):
    body, reason = REFUSED[case]
    assert read_set(body)[0] == reason


def test_replayed_set_is_refused():
    assert read_set(BODY, counter_least=6)[0] == "SET_COUNTER"
    assert read_set(BODY, counter_least=5)[0] == "OK", "the set in use may be read again at every boot"


@pytest.mark.parametrize("name", [n for n, row in ROWS.items() if row["type"] == "f32" and "." not in n])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "low", "high"])
def test_every_float_is_judged(name, value):
    row = ROWS[name]
    if value == "low":
        value = np.nextafter(np.float32(row["minimum"]), np.float32(-np.inf))
    elif value == "high":
        value = np.nextafter(np.float32(row["maximum"]), np.float32(np.inf))
    assert read_set(changed(name, float(value)))[0] in {"NOT_FINITE", "OUT_OF_RANGE"}
    with pytest.raises(ParameterError, match=rf"{name} = .* refused"):
        make_params([DESIGN | {name: float(value)}])


def test_running_pack_takes_over_a_set_between_two_ticks():
    rig = Rig()
    rig.close()
    rig.tick(100)
    tighter = make_params(
        [DESIGN | {"limit_trip.CELL_OVERVOLTAGE.MSL": 42_250, "limit_trip.CELL_OVERVOLTAGE.RSL": 42_100}]
    )
    assert rig.bms.replace_params(0, tighter) == "OK"
    rig.cells(42_300)
    assert rig.ticks_until(lambda: "CELL_OVERVOLTAGE" in rig.faults) == 20
    other_pack = make_params([DESIGN | {"n_groups": 15}])
    bad = tighter.copy()
    bad["capacity_mAh"] = 0
    for params, reason in ((other_pack, "SET_DESIGN"), (bad, "OUT_OF_RANGE")):
        before = rig.bms.state_hash()
        assert rig.bms.replace_params(0, params) == reason
        assert rig.bms.state_hash() == before, "nothing has changed"


def test_new_capacity_keeps_the_state_of_charge():
    bms = NativeBms([DESIGN])
    bms.set_soc(0, 400_000)
    assert bms.replace_params(0, make_params([DESIGN | {"capacity_mAh": 9_000}])) == "OK"
    bms.step(bms.frames(), 0)
    assert bms.outputs["soc_ppm"][0] == 400_000


def test_garbage_sets_are_refused_while_protection_goes_on():
    """A sample; `python -m bms_emulator.firmware.fuzz` does 10^5 of each."""
    told = fuzz_sets(2_200)
    assert {kind for kind, _ in told} == set(KINDS)
    reasons = {reason for _, reason in told}
    assert reasons <= set(names("PARAM_REASON"))
    assert reasons >= {"SET_FORMAT", "SET_LENGTH", "SET_SCHEMA", "SET_ORDER", "NOT_FINITE",
                       "OUT_OF_RANGE"}  # fmt: skip
    for kind in ("noise", "cut", "longer", "row lost", "row twice"):
        assert told[kind, "OK"] == 0
    assert fuzz_frames(2_000)["OFF"] < 2_000
