"""Telemetry: decode(encode(x)) stays within the deadbands, whatever the network does to the frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms_emulator.firmware.interface import constants
from bms_emulator.native import NativeBms
from bms_emulator.telemetry_decode import (
    EVENT_FIELDS,
    Receiver,
    Snapshot,
    TelemetryError,
    open_frame,
    release_code,
    release_name,
)
from tests.unit.bms_emulator.fw_rig import DESIGN, Rig

INVALID_V = constants()["CELL_VOLTAGE_INVALID"]
INVALID_T = constants()["TEMPERATURE_INVALID"]
GROUPS, SENSORS = 14, 4
CELL_BAND, TEMPERATURE_BAND = 10, 5


def drive(seed, steps=90, busy=0.4, **params):
    """Frames of a wandering pack and what was measured at each snapshot, by uptime in ms."""
    rng = np.random.default_rng(seed)
    bms = NativeBms(
        [DESIGN | {"telemetry_silence_s": 20, "telemetry_key_s": 30} | params], telemetry_bytes=1 << 20
    )
    frame = bms.frames()
    cells = rng.integers(36_000, 38_000, GROUPS).astype(float)
    temperatures = rng.integers(200, 300, SENSORS).astype(float)
    frame["pack_current_mA"] = 0
    frame["sample_period_ticks"] = 100
    truth = {}
    for k in range(steps):
        if rng.random() < busy:
            cells += rng.normal(0, 30) + rng.normal(0, rng.choice([0.5, 5, 50]), GROUPS)
            temperatures += rng.normal(0, 2, SENSORS)
            frame["pack_current_mA"] = int(rng.normal(0, 3_000))
            frame["pressure_daPa"], frame["gas_ppm"] = rng.integers(0, 20), rng.integers(0, 50)
        frame["cell_voltage_100uV"][0, :GROUPS] = np.clip(cells, 0, 60_000)
        frame["cell_temperature_ddegC"][0, :SENSORS] = temperatures
        lost = rng.random(GROUPS) < 0.01
        frame["cell_voltage_100uV"][0, :GROUPS][lost] = INVALID_V
        if rng.random() < 0.02:
            frame["cell_temperature_ddegC"][0, rng.integers(SENSORS)] = INVALID_T
        frame["pack_voltage_mV"] = int(cells.sum() / 10)
        frame["sample_counter"] += np.uint16(1)
        truth[50 + 1000 * k] = frame.copy()  # the fifth of a hundred ticks hands over
        bms.step(frame, 100)
    return bms.telemetry()[0], truth


def assert_within_bands(state, frame):
    for held, seen, invalid, band in (
        (state.cell_voltage_100uV, frame["cell_voltage_100uV"][0, :GROUPS], INVALID_V, CELL_BAND),
        (
            state.cell_temperature_ddegC,
            frame["cell_temperature_ddegC"][0, :SENSORS],
            INVALID_T,
            TEMPERATURE_BAND,
        ),
    ):
        seen = seen.astype(np.int64)
        assert np.array_equal(held == invalid, seen == invalid)
        assert np.abs(np.where(seen == invalid, 0, held - seen)).max() <= band


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_snapshot_is_within_the_deadbands(seed):
    """Also those for which no frame was sent: then the frame before still tells the truth."""
    frames, truth = drive(seed)
    receiver = Receiver()
    for frame in frames:
        receiver.feed(frame)
    assert receiver.missing == 0
    assert receiver.without_key == 0
    by_time = {state.uptime_ms: state for state in receiver.states.values()}
    state = None
    for uptime_ms, seen in truth.items():
        state = by_time.get(uptime_ms, state)
        assert_within_bands(state, seen)
        assert abs(state.current_mA - int(seen["pack_current_mA"][0])) <= 100
        if state.uptime_ms == uptime_ms:
            assert state.current_mA == seen["pack_current_mA"][0]
            assert state.pack_mV == seen["pack_voltage_mV"][0]
            assert state.pressure_daPa == seen["pressure_daPa"][0]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), loss=st.floats(0, 0.6), network=st.integers(0, 2**32 - 1))
def test_loss_reorder_and_duplicates(seed, loss, network):
    data = np.random.default_rng(network)
    frames, truth = drive(seed)
    kept = [frame for frame in frames if data.random() >= loss]
    kept += [frame for frame in kept if data.random() < 0.2]
    # late by up to some places
    order = sorted(range(len(kept)), key=lambda i: i + data.random() * 6)
    receiver = Receiver()
    for i in order:
        receiver.feed(kept[i])
    sequences = {open_frame(frame)[1] for frame in kept}
    if sequences:
        assert receiver.missing == max(sequences) - min(sequences) + 1 - len(sequences)
    for state in receiver.states.values():
        assert_within_bands(state, truth[state.uptime_ms])
    # Every state frame whose key came is read.
    keys = {open_frame(f)[1] for f in kept if open_frame(f)[0] == 0}
    readable = {open_frame(f)[1] for f in kept if open_frame(f)[0] in (0, 1) and open_frame(f)[2] in keys}
    assert len(readable) - len(receiver.states) <= max(0, len(keys) - 4) * 30
    if len(keys) <= 4:
        assert set(receiver.states) == readable


@given(seed=st.integers(0, 50), at=st.floats(0, 1), flip=st.integers(1, 255))
def test_a_damaged_frame_is_refused_and_changes_nothing(seed, at, flip):
    frames, _ = drive(seed % 3, steps=5)
    receiver = Receiver()
    receiver.feed(frames[0])
    before = receiver.state
    broken = bytearray(frames[1 % len(frames)])
    broken[int(at * (len(broken) - 1))] ^= flip
    with pytest.raises(TelemetryError) as caught:
        receiver.feed(bytes(broken))
    assert caught.value.reason in {"MAGIC", "FORMAT", "CHECKSUM"}
    assert receiver.state is before


@given(st.binary(max_size=200))
def test_garbage_is_refused_with_a_reason(data):
    with pytest.raises(TelemetryError) as caught:
        Receiver().feed(data)
    assert caught.value.reason in {"SHORT", "MAGIC", "FORMAT", "CHECKSUM", "KIND"}


def test_unknown_firmware_lineage_is_refused():
    frames, _ = drive(0, steps=2)
    running = int.from_bytes(NativeBms([DESIGN]).outputs["release"].tobytes(), "little")
    assert release_code(release_name(running)) == running
    Receiver({running}).feed(frames[0])
    with pytest.raises(TelemetryError, match="RELEASE"):
        Receiver({release_code("9.9.9")}).feed(frames[0])


def test_rest_costs_one_small_frame_a_minute_and_activity_more():
    quiet, _ = drive(1, steps=600, busy=0.0, telemetry_silence_s=60, telemetry_key_s=3_600)
    busy, _ = drive(1, steps=600, busy=1.0)
    # a lost channel of this script is an event of its own
    calm = [frame for frame in quiet if open_frame(frame)[0] == 1]
    assert min(map(len, calm)) < 70
    assert sum(map(len, quiet)) < sum(map(len, busy))


def test_fault_opens_a_window_at_full_rate():
    rig = Rig()
    bms = NativeBms([DESIGN], telemetry_bytes=1 << 18)
    rig.bms = bms
    rig.close()
    rig.tick(2_000)
    bms.telemetry()
    rig.frame["pack_current_mA"] = 60_000
    found_ms = None
    for _ in range(300):
        rig.tick()
        if rig.faults and found_ms is None:
            found_ms = int(rig.out["uptime_ms"])
    receiver = Receiver()
    for frame in bms.telemetry()[0]:
        if open_frame(frame)[0] == 2:
            receiver.feed(frame)
    rows = receiver.event_rows()
    assert set(np.diff(rows["uptime_ms"])) == {10}, "every tick, none missing"
    before = rows[rows["uptime_ms"] < found_ms]
    assert len(before) >= 9, "the window begins before the fault"
    change = rows[rows["uptime_ms"] == found_ms]
    assert change["fault_bits"] != 0
    assert change["command"] & 1 == 0
    assert rows["current_mA"].max() == 60_000
    assert rows.dtype.names == EVENT_FIELDS


def test_rested_snapshot_once_a_day_at_one_millivolt():
    bms = NativeBms([DESIGN | {"soc_rest_ms": 60_000}], telemetry_bytes=1 << 18)
    frame = bms.frames()
    cells = 37_000 + np.arange(GROUPS) * 7
    frame["cell_voltage_100uV"][0, :GROUPS] = cells
    frame["cell_temperature_ddegC"][0, :SENSORS] = 250
    frame["pack_current_mA"], frame["sample_period_ticks"] = 0, 100
    taken = []
    for _ in range(3 * 24 * 60):
        frame["sample_counter"] += np.uint16(1)
        bms.step(frame, 1, 60_000)
        receiver = Receiver()
        for raw in bms.telemetry()[0]:
            if open_frame(raw)[0] == 3:
                taken.append((receiver.feed(raw), len(raw)))
    assert len(taken) == 3
    snapshot, size = taken[0]
    assert isinstance(snapshot, Snapshot)
    assert np.array_equal(snapshot.cell_mV, (cells + 5) // 10)
    assert size < 80
    assert np.diff([s.uptime_ms for s, _ in taken]).tolist() == [86_400_000] * 2


def test_sink_changes_nothing_in_the_firmware():
    quiet, kept = NativeBms([DESIGN] * 2), NativeBms([DESIGN] * 2, telemetry_bytes=64)
    frame = quiet.frames()
    frame["pack_current_mA"] = 0
    for k in range(20):
        frame["cell_voltage_100uV"][:, :GROUPS] = 37_000 + 100 * k
        frame["sample_counter"] += np.uint16(1)
        quiet.step(frame, 100)
        kept.step(frame, 100)
    assert quiet.state_hash() == kept.state_hash(), "a full or missing sink is no state"
