"""Reads the telemetry frames of the firmware (layout in firmware/app/telemetry.c).

    >>> from bms_emulator.telemetry_decode import Receiver
    >>> receiver = Receiver()
    >>> for frame in frames:                     # doctest: +SKIP
    ...     receiver.feed(frame)
    >>> receiver.state.cell_voltage_100uV        # doctest: +SKIP

Frames may be lost, doubled, late or damaged. Every state frame refers to one key frame; with that key it
is complete in itself. A frame whose key is unknown is counted and put aside until the key comes (it may be
late). What `state` shows is the newest snapshot that could be read; its channels are within the deadbands
of what was measured at any time up to the next frame the sender made, and `missing` tells how many frames
of the sequence never came, i.e. whether something newer may have been lost.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY, DELTA, EVENT, SNAPSHOT = range(4)
CELL_INVALID, TEMPERATURE_INVALID = 65535, -32768
_HEAD = struct.Struct("<BBHIIQ")
_MAGIC, _FORMAT = 0xB7, 1
_WAITING_MAX = 64
# One row of an event window: bms_trace_row_t in the order of telemetry.c.
EVENT_FIELDS = (
    *("uptime_ms", "current_mA", "pack_mV", "fault_bits", "rate_mK_per_s", "mean_100uV", "min_100uV"),
    *("max_100uV", "hottest_ddegC", "pressure_daPa", "gas_ppm", "insulation_kohm", "min_group", "step"),
    *("command", "cooling_percent", "runaway"),
)


class TelemetryError(ValueError):
    """A frame that cannot be read; `reason` is one of SHORT, MAGIC, FORMAT, CHECKSUM, KIND, RELEASE, BODY."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


@dataclass(frozen=True)
class State:
    """One snapshot. Ages in s of voltages, temperatures and current when it was taken."""

    sequence: int
    key_sequence: int
    uptime_ms: int
    step: int
    command: int
    cooling_percent: int
    runaway: int
    age_s: tuple[float, float, float]
    soc_known: bool
    current_mA: int
    pack_mV: int
    insulation_kohm: int
    pressure_daPa: int
    gas_ppm: int
    soc_ppm: int
    sigma_ppm: int
    safety_ppm: int
    fault_active: int
    fault_latched: int
    cell_voltage_100uV: NDArray[np.int64] = field(repr=False)
    cell_temperature_ddegC: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True)
class Snapshot:
    """A rested pack at 1 mV; bled charge per group since start."""

    sequence: int
    uptime_ms: int
    soc_ppm: int
    cell_mV: NDArray[np.int64]
    bled_mAs: NDArray[np.int64]
    cell_temperature_ddegC: NDArray[np.int64]


@dataclass(frozen=True)
class _Key:
    sequence: int
    release: int
    schema: int
    mean_100uV: int
    mean_ddegC: int
    active: int
    latched: int
    cells: NDArray[np.int64]
    sensors: NDArray[np.int64]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def whole(self, size: int) -> int:
        if self._at + size > len(self._data):
            raise TelemetryError("BODY", "the frame ends in the middle of a field")
        value = int.from_bytes(self._data[self._at : self._at + size], "little")
        self._at += size
        return value

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.whole(1)
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise TelemetryError("BODY", "an integer without an end")

    def signed(self) -> int:
        return _unzigzag(self.varint())

    def end(self) -> None:
        if self._at != len(self._data):
            raise TelemetryError("BODY", f"{len(self._data) - self._at} bytes too many")


def _unzigzag(code: int) -> int:
    return -(code >> 1) - 1 if code & 1 else code >> 1


def _value(code: int, mean: int, invalid: int) -> int:
    return invalid if code == 0 else mean + _unzigzag(code - 1)


def _lifted(held: NDArray[np.int64], by: int, invalid: int, low: int, high: int) -> NDArray[np.int64]:
    """As shifted_cell and shifted_sensor of telemetry.c."""
    moved = np.clip(held + by, low, high)
    return np.where(held == invalid, invalid, moved)


def open_frame(frame: bytes) -> tuple[int, int, int, int, bytes]:
    """Kind, sequence, key sequence, uptime in ms and body of a frame whose checksum is right."""
    if len(frame) < _HEAD.size + 4:
        raise TelemetryError("SHORT", f"{len(frame)} bytes, {_HEAD.size + 4} at least")
    magic, kind, version, sequence, key, uptime_ms = _HEAD.unpack_from(frame)
    if magic != _MAGIC:
        raise TelemetryError("MAGIC", f"starts with {magic:#04x}, not {_MAGIC:#04x}")
    if version != _FORMAT:
        raise TelemetryError("FORMAT", f"format {version}, this reader knows {_FORMAT}")
    if zlib.crc32(frame[:-4]) != int.from_bytes(frame[-4:], "little"):
        raise TelemetryError("CHECKSUM", "the frame is damaged")
    if kind not in (KEY, DELTA, EVENT, SNAPSHOT):
        raise TelemetryError("KIND", f"kind {kind}")
    return kind, sequence, key, uptime_ms, frame[_HEAD.size : -4]


class Receiver:
    """What one sender's frames add up to.

    Parameters
    ----------
    releases : releases whose frames are accepted (as `release_code`); None accepts every one

    Attributes
    ----------
    state : newest snapshot read so far, None before the first
    snapshots : rested snapshots by sequence
    events : rows at full rate, (n,) structured with EVENT_FIELDS, sorted by time by `event_rows`
    without_key : frames that wait for their key, or waited in vain
    """

    def __init__(self, releases: set[int] | None = None) -> None:
        self._releases = releases
        self._keys: dict[int, _Key] = {}
        self._waiting: dict[int, tuple[int, int, bytes]] = {}
        self._seen: set[int] = set()
        self._rows: dict[int, list[list[int]]] = {}
        self.state: State | None = None
        self.states: dict[int, State] = {}
        self.snapshots: dict[int, Snapshot] = {}
        self.duplicates = 0
        self.without_key = 0

    @property
    def missing(self) -> int:
        """Frames between the first and the newest sequence seen that never came."""
        return max(self._seen) - min(self._seen) + 1 - len(self._seen) if self._seen else 0

    def feed(self, frame: bytes) -> State | Snapshot | None:
        """Take one frame; what it showed, or None for events, doubles and frames without their key.

        Raises
        ------
        TelemetryError when it cannot be read; nothing has changed then
        """
        kind, sequence, key, uptime_ms, body = open_frame(frame)
        if sequence in self._seen:
            self.duplicates += 1
            return None
        result: State | Snapshot | None = None
        if kind == KEY:
            result = self._read_key(sequence, uptime_ms, body)
        elif kind == DELTA:
            if key in self._keys:
                result = self._read_delta(self._keys[key], sequence, uptime_ms, body)
            else:
                self.without_key += 1
                self._waiting[sequence] = (key, uptime_ms, body)
                for old in sorted(self._waiting)[:-_WAITING_MAX]:
                    del self._waiting[old]
        elif kind == EVENT:
            self._rows[sequence] = _event_rows(body)
        else:
            result = self.snapshots[sequence] = _snapshot(sequence, uptime_ms, body)
        self._seen.add(sequence)
        if kind == KEY:
            self._release_waiting(sequence)
        return result

    def event_rows(self) -> NDArray[np.void]:
        """(n,) rows at full rate in the order of time, one field for each of EVENT_FIELDS."""
        rows = [tuple(row) for sequence in sorted(self._rows) for row in self._rows[sequence]]
        return np.array(rows, dtype=[(name, "<i8") for name in EVENT_FIELDS])

    def _release_waiting(self, key: int) -> None:
        for sequence in [s for s, (wanted, _, _) in self._waiting.items() if wanted == key]:
            _, uptime_ms, body = self._waiting.pop(sequence)
            self.without_key -= 1
            self._read_delta(self._keys[key], sequence, uptime_ms, body)

    def _keep(self, state: State) -> State:
        self.states[state.sequence] = state
        if self.state is None or state.sequence > self.state.sequence:
            self.state = state
        return state

    def _read_key(self, sequence: int, uptime_ms: int, body: bytes) -> State:
        r = _Reader(body)
        common, mean_100uV, mean_ddegC, faults = _common(r)
        if faults is None:
            raise TelemetryError("BODY", "a key frame without its faults")
        release, schema = r.whole(4), r.whole(2)
        if self._releases is not None and release not in self._releases:
            raise TelemetryError("RELEASE", f"firmware {release_name(release)} is not one of those expected")
        n_cells, n_sensors = r.whole(2), r.whole(1)
        cells = np.array(
            [_value(r.varint(), mean_100uV, CELL_INVALID) for _ in range(n_cells)], dtype=np.int64
        )
        sensors = np.array(
            [_value(r.varint(), mean_ddegC, TEMPERATURE_INVALID) for _ in range(n_sensors)], dtype=np.int64
        )
        r.end()
        self._keys[sequence] = _Key(
            sequence, release, schema, mean_100uV, mean_ddegC, *faults, cells, sensors
        )
        for old in sorted(self._keys)[:-4]:
            del self._keys[old]
        row: list[Any] = [sequence, sequence, uptime_ms, *common, *faults, cells, sensors]
        return self._keep(State(*row))

    def _read_delta(self, key: _Key, sequence: int, uptime_ms: int, body: bytes) -> State:
        r = _Reader(body)
        common, mean_100uV, mean_ddegC, faults = _common(r)
        cells = _lifted(key.cells, mean_100uV - key.mean_100uV, CELL_INVALID, 0, CELL_INVALID - 1)
        _overwrite(r, cells, mean_100uV, CELL_INVALID)
        warm = mean_ddegC - key.mean_ddegC
        sensors = _lifted(key.sensors, warm, TEMPERATURE_INVALID, TEMPERATURE_INVALID + 1, 32767)
        _overwrite(r, sensors, mean_ddegC, TEMPERATURE_INVALID)
        r.end()
        active_latched = faults or (key.active, key.latched)
        row: list[Any] = [sequence, key.sequence, uptime_ms, *common, *active_latched, cells, sensors]
        return self._keep(State(*row))


def _overwrite(r: _Reader, channels: NDArray[np.int64], mean: int, invalid: int) -> None:
    at = 0
    for _ in range(r.varint()):
        at += r.varint()
        if at >= channels.size:
            raise TelemetryError("BODY", f"channel {at} of {channels.size}")
        channels[at] = _value(r.varint(), mean, invalid)


def _common(r: _Reader) -> tuple[tuple[Any, ...], int, int, tuple[int, int] | None]:
    """The fields of State from step to safety_ppm, both means, and the faults if the frame has them."""
    step, command, cooling, runaway = (r.whole(1) for _ in range(4))
    ages = tuple(r.whole(1) / 10 for _ in range(3))
    known = bool(r.whole(1))
    current, pack, mean_100uV, mean_ddegC = r.signed(), r.varint(), r.varint(), r.signed()
    insulation, pressure, gas = (r.whole(2) for _ in range(3))
    soc, sigma, safety = r.varint(), r.varint(), r.varint()
    faults = (r.whole(8), r.whole(8)) if r.whole(1) else None
    state = (step, command, cooling, runaway, ages, known, current, pack, insulation, pressure, gas)
    return (*state, soc, sigma, safety), mean_100uV, mean_ddegC, faults


def _event_rows(body: bytes) -> list[list[int]]:
    r = _Reader(body)
    r.varint()  # rows lost so far
    row, rows = [0] * len(EVENT_FIELDS), []
    for _ in range(r.whole(1)):
        row = [value + r.signed() for value in row]
        rows.append(row)
    r.end()
    return rows


def _snapshot(sequence: int, uptime_ms: int, body: bytes) -> Snapshot:
    r = _Reader(body)
    soc, mean = r.varint(), r.varint()
    n = r.whole(2)
    cells = [_value(r.varint(), mean, CELL_INVALID) for _ in range(n)]
    bled = [r.varint() for _ in range(n)]
    sensors = [_value(r.varint(), 0, TEMPERATURE_INVALID) for _ in range(r.whole(1))]
    r.end()
    arrays = (np.array(x, dtype=np.int64) for x in (cells, bled, sensors))
    return Snapshot(sequence, uptime_ms, soc, *arrays)


def release_code(version: str) -> int:
    """`1.2.0` as the firmware states it: major << 16 | minor << 8 | patch."""
    major, minor, patch = (int(part) for part in version.split("."))
    return major << 16 | minor << 8 | patch


def release_name(code: int) -> str:
    return f"{code >> 16}.{code >> 8 & 255}.{code & 255}"
