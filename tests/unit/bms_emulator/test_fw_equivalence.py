"""The same firmware however it is driven: held or tick by tick, alone or among many, event-driven or naive,
interrupted by a snapshot; and whatever bytes it is fed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms_emulator.firmware.build import VARIANTS, compile_c
from bms_emulator.firmware.interface import constants
from bms_emulator.native import NativeBms, bench_native, request_bit
from tests.unit.bms_emulator.fw_rig import DESIGN

REPOSITORY = Path(__file__).resolve().parents[3]


def lively_frames(rng, bms, frames):
    """Change frames of all instances the way a plant with many troubles would; contactors mostly obey."""
    n, groups, temps = bms.n, int(bms.params["n_groups"].max()), int(bms.params["n_temps"].max())
    frames["sample_counter"] += rng.choice([1, 1, 1, 1, 1, 0, 2], n).astype(np.uint16)
    base = rng.choice([24_950, 28_000, 33_300, 37_000, 37_000, 37_000, 41_900, 42_480], n)
    spread = rng.choice([10, 60, 400], n)
    cells = base[:, None] + rng.integers(0, spread[:, None], (n, groups))
    lost = rng.random((n, groups)) < 0.0005
    frames["cell_voltage_100uV"][:, :groups] = np.where(lost, constants()["CELL_VOLTAGE_INVALID"], cells)
    warm = rng.choice([-100, 100, 250, 250, 250, 420, 560], n)
    # Temperatures that jump in every frame would be a runaway, and end the script.
    jumps = (rng.random(n) < 0.03) | (
        frames["cell_temperature_ddegC"][:, 0] == constants()["TEMPERATURE_INVALID"]
    )
    level = np.where(jumps, warm, np.clip(frames["cell_temperature_ddegC"][:, 0] // 30 * 30, -100, 560))
    frames["cell_temperature_ddegC"][:, :temps] = level[:, None] + rng.integers(0, 6, (n, temps))
    frames["pressure_daPa"] = np.where(rng.random(n) < 0.005, 2_100, rng.integers(0, 20, n))
    frames["gas_ppm"] = rng.integers(0, 60, n)
    frames["insulation_kohm"] = rng.choice([20, 900, 5_000], n, p=[0.02, 0.08, 0.9])
    for source in ("voltage_sample", "temperature_sample", "current_sample"):
        frames[source] += (rng.random(n) < 0.9).astype(np.uint8)
    current = rng.choice([0, 0, 0, 30, 900, -3_000, 9_000, 27_000], n)
    frames["pack_current_mA"] = np.where(rng.random(n) < 0.01, constants()["CURRENT_INVALID"], current)
    fitted = np.arange(groups) < bms.params["n_groups"][:, None]
    pack = (cells * fitted).sum(axis=1) // 10
    frames["pack_voltage_mV"] = np.where(rng.random(n) < 0.02, pack + 3_000, pack)
    command = bms.outputs["contactor_command"]
    flips = np.where(rng.random(n) < 0.02, rng.integers(0, 8, n), 0)
    frames["contactor_feedback"] = command ^ flips
    frames["link_voltage_mV"] = np.where(command & 5, pack, 0)
    wanted = np.where(rng.random(n) < 0.9, request_bit("CLOSE"), 0)
    resets = np.where(rng.random(n) < 0.3, rng.choice([2, 4], n), 0)
    frames["request"] = wanted | resets
    frames["condition"] = np.where(rng.random(n) < 0.01, rng.integers(0, 4, n), 0)


# Short rests and pauses, so that a short script reaches every branch.
QUICK = {"balancing_rest_ms": 500, "soc_rest_ms": 2_000, "precharge_pause_ms": 300, "stuck_samples": 2}


def equal_outputs(a, b):
    return a.outputs.tobytes() == b.outputs.tobytes()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_held_equals_tick_by_tick_equals_naive(seed):
    rng = np.random.default_rng(seed)
    designs = [DESIGN | QUICK, DESIGN | QUICK | {"n_groups": 113, "n_temps": 64, "capacity_mAh": 900}]
    fleet = [[DESIGN | QUICK] * 3, [designs[1]] * 3][seed % 2]
    held, single, naive = NativeBms(fleet), NativeBms(fleet), NativeBms(fleet, "naive")
    frames = held.frames()
    for _ in range(60):
        lively_frames(rng, held, frames)
        n_ticks = int(rng.choice([1, 2, 10, 100]))
        tick_ms = int(rng.choice([10, 10, 10, 1_000]))
        frames["sample_period_ticks"] = n_ticks
        held.step(frames, n_ticks, tick_ms)
        naive.step(frames, n_ticks, tick_ms)
        for _ in range(n_ticks):
            single.step(frames, 1, tick_ms)
        assert equal_outputs(held, single)
        assert equal_outputs(held, naive)
        assert held.state_hash() == single.state_hash() == naive.state_hash()


def test_the_script_above_visits_the_firmware():
    """States, steps and most diagnoses occur in it; otherwise the equality would prove little."""
    states, faults, balanced = set(), 0, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        bms = NativeBms([DESIGN | QUICK] * 3)
        frames = bms.frames()
        for _ in range(60):
            lively_frames(rng, bms, frames)
            frames["sample_period_ticks"] = n_ticks = int(rng.choice([1, 2, 10, 100]))
            bms.step(frames, n_ticks)
            states |= set(bms.outputs["state"].tolist())
            faults |= int(np.bitwise_or.reduce(bms.outputs["fault_active"]))
            balanced += int(bms.balancing().sum())
    assert {bms.state_names[state] for state in states} >= {"STANDBY", "PRECHARGE", "RUN", "ERROR"}
    assert faults.bit_count() >= 15
    assert balanced > 0


def test_recording_played_in_one_call_equals_frame_by_frame():
    """Without a call in between, so what balancing bled at old voltages is booked by the firmware itself."""
    rng = np.random.default_rng(8)
    stepped, played = NativeBms([DESIGN | QUICK] * 3), NativeBms([DESIGN | QUICK] * 3)
    frames = stepped.frames()
    frames["sample_period_ticks"] = 5
    recording = np.zeros((400, 3), dtype=stepped.input_dtype)
    for t in range(400):
        lively_frames(rng, stepped, frames)
        recording[t] = frames
        stepped.step(frames, 5)
    played.play(recording, 5)
    assert stepped.outputs["balancing_charge_mAs"].any()
    assert equal_outputs(stepped, played)
    assert stepped.state_hash() == played.state_hash()


def test_many_equal_one():
    rng = np.random.default_rng(5)
    fleet = [DESIGN | QUICK | {"n_groups": 5 + i, "capacity_mAh": 1_000 * (i + 1)} for i in range(9)]
    many = NativeBms(fleet)
    alone = [NativeBms([design]) for design in fleet]
    frames = many.frames()
    for _ in range(80):
        lively_frames(rng, many, frames)
        n_ticks = int(rng.integers(1, 30))
        many.step(frames, n_ticks)
        for i, bms in enumerate(alone):
            bms.step(frames[i : i + 1].copy(), n_ticks)
            assert bms.outputs[0].tobytes() == many.outputs[i].tobytes()


def test_snapshot_and_restore_are_bit_exact():
    rng = np.random.default_rng(6)
    bms = NativeBms([DESIGN | QUICK] * 4)
    frames = bms.frames()

    def run(steps):
        for _ in range(steps):
            lively_frames(rng, bms, frames)
            bms.step(frames, 7)

    run(50)
    saved, saved_frames, saved_rng, outputs = (
        bms.snapshot(),
        frames.copy(),
        rng.bit_generator.state,
        bms.outputs.copy(),
    )
    run(50)
    straight, last = bms.state_hash(), bms.outputs.copy()
    bms.restore(saved)
    assert bms.outputs.tobytes() == outputs.tobytes()
    frames[:] = saved_frames
    rng.bit_generator.state = saved_rng
    run(50)
    assert bms.state_hash() == straight
    assert bms.outputs.tobytes() == last.tobytes()
    elsewhere = NativeBms([DESIGN | {"capacity_mAh": 77_000}] * 4)
    elsewhere.restore(bms.snapshot())
    assert elsewhere.state_hash() == straight
    assert elsewhere.params.tobytes() == bms.params.tobytes(), "parameters belong to the state"
    elsewhere.reset(2)
    assert elsewhere.outputs["uptime_ms"].tolist()[1:3] == [int(last["uptime_ms"][1]), 0]


def test_damaged_or_foreign_snapshots_are_refused():
    bms = NativeBms([DESIGN] * 2)
    bms.step(bms.frames(), 5)
    good = bms.snapshot()
    state = bms.state_hash()
    flipped = bytearray(good)
    flipped[-100] ^= 1
    for bad, word in [
        (b"", "not a snapshot"),
        (b"x" * 500, "not a snapshot"),
        (good[:-8], "expected"),
        (bytes(flipped), "checksum"),
        (NativeBms([DESIGN]).snapshot(), "expected"),
        (NativeBms([DESIGN] * 2, "naive").snapshot(), "another build"),
    ]:
        with pytest.raises(ValueError, match=word):
            bms.restore(bad)
        assert bms.state_hash() == state


def test_reset_is_a_power_on():
    bms = NativeBms([DESIGN] * 2)
    fresh = bms.state_hash()
    frames = bms.frames()
    bms.step(frames, 200)
    assert bms.state_hash() != fresh
    bms.reset()
    assert bms.state_hash() == fresh
    assert bms.outputs["uptime_ms"].tolist() == [0, 0]


def test_wrong_arguments_are_refused():
    bms = NativeBms([DESIGN] * 2)
    frames = bms.frames()
    with pytest.raises(TypeError, match="shape"):
        bms.step(frames[:1])
    with pytest.raises(TypeError, match="input_dtype"):
        bms.step(np.zeros(2))
    with pytest.raises(TypeError, match="contiguous"):
        bms.step(np.repeat(frames, 2)[::2])
    with pytest.raises(ValueError, match="tick_ms"):
        bms.step(frames, 1, 0)
    with pytest.raises(ValueError, match="n_ticks"):
        bms.step(frames, -1)
    with pytest.raises(ValueError, match="soc_ppm"):
        bms.set_soc(0, 1_000_001)
    with pytest.raises(IndexError):
        bms.reset(2)
    with pytest.raises(ValueError, match="at least one"):
        NativeBms([])


# ---- garbage -------------------------------------------------------------------------------------


def fuzz(variant, frames_total=100_000, n=50):
    """Random bytes, and plausible frames with random damage: the outputs keep their promises."""
    rng = np.random.default_rng(20)
    designs = [DESIGN | QUICK | {"n_groups": 1 + 5 * i, "n_temps": 1 + i} for i in range(n)]
    bms = NativeBms(designs, variant)
    frames = bms.frames()
    size = frames.dtype.itemsize
    capacity_mAs = bms.params["capacity_mAh"].astype(np.uint64) * 3600
    known_faults = np.uint64(2 ** len(bms.fault_names) - 1)
    visited = set()
    for call in range(frames_total // n):
        garbage = call % 500 < 250
        if garbage:
            frames[:] = np.frombuffer(rng.bytes(size * n), dtype=frames.dtype)
        else:
            if call % 500 == 250:
                frames[:] = bms.frames()
                frames["sample_period_ticks"] = 3
            lively_frames(rng, bms, frames)
            damage = rng.integers(0, size, n)
            hit = rng.random(n) < 0.05
            raw = frames.view(np.uint8).reshape(n, size)
            raw[hit, damage[hit]] ^= rng.integers(0, 256, int(hit.sum()), dtype=np.uint8)
        tick_ms = int(rng.choice([10, 1_000, 3_600_000]) if garbage else rng.choice([10, 10, 10, 10, 500]))
        out = bms.step(frames, int(rng.integers(1, 4)), tick_ms)
        assert (out["state"] < len(bms.state_names)).all()
        assert (out["step"] < len(bms.step_names)).all()
        assert (out["contactor_command"] < 8).all()
        assert (out["charge_limit_mA"] >= 0).all()
        assert (out["discharge_limit_mA"] >= 0).all()
        assert (out["soc_ppm"] <= 1_000_000).all()
        assert (out["remaining_charge_mAs"] <= capacity_mAs).all()
        assert (out["cooling_percent"] <= 100).all()
        assert not (out["fault_latched"] & ~known_faults).any()
        assert not (out["fault_active"] & ~known_faults).any()
        opened = np.isin(out["state"], [bms.state_names.index(s) for s in ("OFF", "STANDBY", "ERROR")])
        assert (out["contactor_command"][opened] == 0).all()
        latched = out["fault_latched"] != 0
        assert (out["state"][latched] != bms.state_names.index("RUN")).all()
        visited |= set(out["state"].tolist())
    return {bms.state_names[state] for state in visited}


def test_garbage_frames_never_break_a_promise():
    assert fuzz("release") >= {"STANDBY", "PRECHARGE", "RUN", "ERROR"}


UNDEFINED = """
#include <stdint.h>
__attribute__((visibility("default"))) int32_t overflow(int32_t a) { return a + 1; }
"""


def test_fuzz_under_the_undefined_behaviour_sanitizer(tmp_path):
    """In a process of its own: the sanitizer build stops at the first undefined operation."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    code = (
        "from tests.unit.bms_emulator.test_fw_equivalence import fuzz; "
        "assert 'RUN' in fuzz('ubsan', 40_000); print('clean')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "clean\n"), done.stderr
    # The net has to hold: the same flags must stop a known overflow.
    (tmp_path / "undefined.c").write_text(UNDEFINED)
    compile_c(["-O2", "-shared", "-fPIC", *VARIANTS["ubsan"], "undefined.c", "-o", "undefined.so"], tmp_path)
    code = "import ctypes; ctypes.CDLL('./undefined.so').overflow(2**31 - 1)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode < 0


def test_firmware_keeps_inside_its_contexts():
    """The bytes around the block of contexts stay as they were."""
    bms = NativeBms([DESIGN | {"n_groups": 256, "n_temps": 64}] * 2)
    words = bms._contexts.shape[1]
    guarded = np.full((4, words), 0xA5A5A5A5A5A5A5A5, dtype=np.uint64)
    guarded[1:3] = bms._contexts
    bms._contexts = guarded[1:3]
    frames = bms.frames()
    rng = np.random.default_rng(3)
    for _ in range(300):
        lively_frames(rng, bms, frames)
        bms.step(frames, 3)
    assert (guarded[[0, 3]] == 0xA5A5A5A5A5A5A5A5).all()


def test_bench_measures_a_pack_that_stays_connected():
    """Ten million ticks per second are usual for held samples; far less still shows that holding pays."""
    rates = bench_native(n=2, n_frames=50, repeats=3)
    assert rates["held_1s"] > 250_000
    assert rates["held_1s"] > 2 * rates["every_tick"]
