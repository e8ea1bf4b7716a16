"""The BMS rung `native`: the C firmware compiled for this host, many instances advanced by one C call.

All values are the firmware's integers with units in the names (100uV, mA, ddegC = 0.1 degC, ms, ppm); current
is positive on discharge. Names of states, diagnoses and bits come from `firmware/include/bms_ids.h`.

    >>> from bms_emulator.native import NativeBms
    >>> bms = NativeBms([{"n_groups": 14, "n_temps": 4, "capacity_mAh": 10_000}])
    >>> frame = bms.frames()                     # one record per BMS, every channel marked invalid
    >>> frame["cell_voltage_100uV"][:, :14] = 37_000
    >>> frame["cell_temperature_ddegC"][:, :4] = 250
    >>> frame["pack_voltage_mV"], frame["link_voltage_mV"], frame["pack_current_mA"] = 51_800, 0, 0
    >>> bms.connect(frame)                       # closes against ideal contactors
    array([ True])
    >>> frame["sample_counter"] += 1             # a new sample of a plant that steps by 1 s
    >>> frame["sample_period_ticks"] = 100
    >>> out = bms.step(frame, n_ticks=100)       # 100 ticks of 10 ms in one call
    >>> bms.state_names[out["state"][0]]
    'RUN'

Two rates with the same meaning of every timer: `step(frame, n_ticks=dt_ms // 10)` runs the firmware as on the
target, `step(frame, n_ticks=1, tick_ms=dt_ms)` is one decision per plant step for planning runs.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import statistics
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bms_emulator.firmware.interface import constants, load, names
from bms_emulator.firmware.parameters import ParameterError, check_params, make_params

__all__ = ["NativeBms", "ParameterError", "bench_native", "contactor_bit", "make_params", "request_bit"]

TICK_MS_MAX = 3_600_000
TICK_MS_DEFAULT = 10
_MAGIC = b"BMSCTX01"
_HEADER = struct.Struct("<8s64sII32s")
# bms_sink_t of app/bms.h
_SINK = np.dtype(
    [("bytes", "u8"), ("capacity", "u4"), ("used", "u4"), ("frames", "u4"), ("dropped", "u4")], align=True
)
# bms_record_t of app/slow.h
RECORD = np.dtype(
    [
        *(("sequence", "<u4"), ("uptime_s", "<u4"), ("kind", "u1"), ("id", "u1"), ("step", "u1")),
        *(("command", "u1"), ("a", "<i4"), ("b", "<i4"), ("min_100uV", "<u2"), ("max_100uV", "<u2")),
        *(("hottest_ddegC", "<i2"), ("soc_permille", "<u2"), ("crc", "<u4")),
    ]
)


@functools.cache
def request_bit(name: str) -> int:
    """Mask of one bit of `request`: CLOSE, RESET_FAULT or SERVICE_RESET."""
    return 1 << names("REQUEST").index(name)


@functools.cache
def contactor_bit(name: str) -> int:
    """Mask of one bit of command and feedback: MAIN_PLUS, MAIN_MINUS or PRECHARGE."""
    return 1 << names("CONTACTOR").index(name)


class NativeBms:
    """n battery management systems in one contiguous block of contexts.

    Parameters
    ----------
    params : (n,) of param_dtype, or one mapping per BMS (see firmware/parameters.py)
    variant : build of the firmware, `release` unless a test compares builds
    telemetry_bytes : room per BMS for the frames of the telemetry between two calls of `telemetry`; without
        it they are made but not kept, which changes nothing else
    release : one of firmware/releases, e.g. `1.1.0` or `blind_l1`; the newest good one by default

    Attributes
    ----------
    outputs : (n,) of output_dtype as of the last step; overwritten in place
    param_dtype, input_dtype, output_dtype : records of the C structs
    state_names, step_names, fault_names, limit_names, ... : tuples, position = value or bit
    """

    def __init__(
        self,
        params: NDArray[np.void] | Sequence[Mapping[str, Any]],
        variant: str = "release",
        telemetry_bytes: int = 0,
        release: str | None = None,
    ) -> None:
        self._firmware = load(variant, release)
        self.param_dtype = self._firmware.param_dtype
        self.input_dtype = self._firmware.input_dtype
        self.output_dtype = self._firmware.output_dtype
        self.state_names = names("STATE")
        self.step_names = names("STEP")
        self.fault_names = names("DIAG")
        self.limit_names = names("LIMIT")
        self.level_names = names("LEVEL")
        if isinstance(params, np.ndarray):
            check_params(params, self._firmware)
            self.params = np.array(params, order="C")
        else:
            self.params = make_params(params, self._firmware)
        self.params.flags.writeable = False
        self.n = len(self.params)
        if self.n == 0:
            raise ValueError("a NativeBms needs at least one parameter set")
        # uint64 so that every context is aligned to the largest member.
        words = self._firmware.context_size // 8
        self._contexts = np.zeros((self.n, words), dtype=np.uint64)
        self.outputs = np.zeros(self.n, dtype=self.output_dtype)
        self._buffers = np.zeros((self.n, telemetry_bytes), dtype=np.uint8)
        self._sinks = np.zeros(self.n, dtype=_SINK)
        self._sinks["bytes"] = self._buffers.ctypes.data + np.arange(self.n) * telemetry_bytes
        self._sinks["capacity"] = telemetry_bytes
        self._sink_address = self._sinks.ctypes.data if telemetry_bytes else None
        self.reset()

    def frames(self) -> NDArray[np.void]:
        """(n,) input records: every channel marked as not measured, sample 0, period of one tick."""
        frames = np.zeros(self.n, dtype=self.input_dtype)
        constant = constants()
        frames["cell_voltage_100uV"] = constant["CELL_VOLTAGE_INVALID"]
        frames["cell_temperature_ddegC"] = constant["TEMPERATURE_INVALID"]
        frames["pack_current_mA"] = constant["CURRENT_INVALID"]
        frames["pack_current_redundant_mA"] = constant["CURRENT_INVALID"]
        frames["pack_voltage_mV"] = constant["VOLTAGE_INVALID"]
        frames["link_voltage_mV"] = constant["VOLTAGE_INVALID"]
        for sensor in ("insulation_kohm", "pressure_daPa", "gas_ppm"):
            frames[sensor] = constant["SENSOR_INVALID"]
        frames["sample_period_ticks"] = 1
        return frames

    def step(self, inputs: NDArray[np.void], n_ticks: int = 1, tick_ms: int = 10) -> NDArray[np.void]:
        """Run n_ticks of tick_ms with the inputs held constant.

        Parameters
        ----------
        inputs : (n,) of input_dtype. A frame is taken over when its sample_counter differs from the one
            before; it is stale once it is older than sample_period_ticks. `request` is read in every tick.
        n_ticks : ticks to run
        tick_ms : duration of a tick; 10 as on the target, or the plant step in planning runs (1…3 600 000)

        Returns
        -------
        outputs : (n,) of output_dtype; the same array at every call
        """
        self._check(inputs, (self.n,), n_ticks, tick_ms)
        self._firmware.c.bms_host_step(
            self._contexts.ctypes.data,
            inputs.ctypes.data,
            self.outputs.ctypes.data,
            self.n,
            n_ticks,
            tick_ms,
            self._sink_address,
        )
        return self.outputs

    def play(self, recording: NDArray[np.void], n_ticks: int = 1, tick_ms: int = 10) -> NDArray[np.void]:
        """Run through a recording in one call: each frame for n_ticks, as `step` would frame by frame.

        Parameters
        ----------
        recording : (n_frames, n) of input_dtype

        Returns
        -------
        outputs : (n,) of output_dtype after the last frame; the same array as that of `step`
        """
        self._check(recording, (len(recording), self.n), n_ticks, tick_ms)
        self._firmware.c.bms_host_play(
            self._contexts.ctypes.data,
            recording.ctypes.data,
            self.outputs.ctypes.data,
            self.n,
            len(recording),
            n_ticks,
            tick_ms,
            self._sink_address,
        )
        return self.outputs

    def telemetry(self) -> list[list[bytes]]:
        """Frames of each BMS since the last call, oldest first (see telemetry_decode.py).

        What did not fit into telemetry_bytes is missing, and the frames' sequence shows it.
        """
        frames: list[list[bytes]] = []
        for i in range(self.n):
            raw, at, found = self._buffers[i, : self._sinks["used"][i]].tobytes(), 0, []
            while at < len(raw):
                size = int.from_bytes(raw[at : at + 2], "little")
                found.append(raw[at + 2 : at + 2 + size])
                at += 2 + size
            frames.append(found)
        self._sinks["used"] = 0
        return frames

    def records(self, i: int) -> NDArray[np.void]:
        """Lines of the black box of one BMS that are still in its queue (16), oldest first."""
        context = self._contexts[range(self.n)[i]].ctypes.data
        line, found = np.zeros(1, dtype=RECORD), []
        made = self._firmware.c.bms_host_records(context)
        for index in range(max(0, made - 16), made):
            if self._firmware.c.bms_host_record(context, index, line.ctypes.data):
                found.append(line.copy())
        return np.concatenate(found) if found else np.zeros(0, dtype=RECORD)

    def replace_params(self, i: int, params: NDArray[np.void]) -> str:
        """Give a running BMS another set, (1,) of param_dtype; the reason, `OK` when it was taken over."""
        record = np.ascontiguousarray(params, dtype=self.param_dtype).reshape(1)
        context = self._contexts[range(self.n)[i]].ctypes.data
        reason = names("PARAM_REASON")[self._firmware.c.bms_host_replace(context, record.ctypes.data)]
        if reason == "OK":
            self.params = _params_of(self._contexts, self.param_dtype)
        return reason

    def sleep(self, i: int, duration_ms: int) -> None:
        """Time that one parked BMS spends asleep: clocks go on, nothing is measured."""
        if not 0 <= duration_ms <= TICK_MS_MAX:
            raise ValueError(f"duration_ms = {duration_ms}: expected 0…{TICK_MS_MAX}")
        self._firmware.c.bms_host_slept(self._contexts[range(self.n)[i]].ctypes.data, duration_ms)

    def _check(self, inputs: NDArray[np.void], shape: tuple[int, ...], n_ticks: int, tick_ms: int) -> None:
        if inputs.dtype != self.input_dtype or inputs.shape != shape or not inputs.flags.c_contiguous:
            raise TypeError(f"inputs must be a contiguous array of input_dtype and shape {shape}")
        if not 0 <= n_ticks < 2**32:
            raise ValueError(f"n_ticks = {n_ticks}: expected 0…{2**32 - 1}")
        if not 1 <= tick_ms <= TICK_MS_MAX:
            raise ValueError(f"tick_ms = {tick_ms}: expected 1…{TICK_MS_MAX}")

    def connect(
        self, inputs: NDArray[np.void], tick_ms: int = 100, max_ticks: int = 100
    ) -> NDArray[np.bool_]:
        """Run the closing sequence against ideal contactors, for runs that begin connected.

        The frames' measurements stay as they are but for what an ideal plant would show: feedback equals
        command and the link follows the pack. sample_counter, contactor_feedback, link_voltage_mV and request
        are changed in place and left as the last tick saw them. Ends when every BMS runs, or after max_ticks.

        Returns
        -------
        running : (n,) True where the state is RUN
        """
        run = self.state_names.index("RUN")
        inputs["request"] |= request_bit("CLOSE")
        charging = contactor_bit("MAIN_PLUS") | contactor_bit("PRECHARGE")
        for _ in range(max_ticks):
            command = self.outputs["contactor_command"]
            inputs["contactor_feedback"] = command
            inputs["link_voltage_mV"] = np.where(command & charging, inputs["pack_voltage_mV"], 0)
            inputs["sample_counter"] += np.uint16(1)
            self.step(inputs, 1, tick_ms)
            if np.all(self.outputs["state"] == run):
                break
        running: NDArray[np.bool_] = self.outputs["state"] == run
        return running

    def reset(self, i: int | None = None) -> None:
        """Power-on reset of one BMS, or of all: uptime 0, contactors open, nothing remembered."""
        for k in range(self.n) if i is None else [range(self.n)[i]]:
            self._firmware.c.bms_host_init(
                self._contexts[k].ctypes.data, self.params.ctypes.data + k * self.params.itemsize
            )
            self.outputs[k] = np.zeros((), dtype=self.output_dtype)
        self.step(self.frames(), 0)

    def set_soc(self, i: int, soc_ppm: int) -> None:
        """Set the counted state of charge of one BMS, e.g. to what was stored before power-down."""
        if not 0 <= soc_ppm <= 1_000_000:
            raise ValueError(f"soc_ppm = {soc_ppm}: expected 0…1000000")
        self._firmware.c.bms_host_set_soc(self._contexts[range(self.n)[i]].ctypes.data, soc_ppm)
        self.step(self.frames(), 0)

    def snapshot(self) -> bytes:
        """Everything the instances remember; bit-exact input of `restore`."""
        body = self._contexts.tobytes()
        build = self._firmware.build.encode()
        digest = hashlib.sha256(body).digest()
        return _HEADER.pack(_MAGIC, build, self.n, self._firmware.context_size, digest) + body

    def restore(self, snapshot: bytes) -> None:
        """Continue from a snapshot of the same number of instances and the same firmware build.

        Raises
        ------
        ValueError when the bytes are not such a snapshot; the instances are unchanged then
        """
        if len(snapshot) < _HEADER.size or not snapshot.startswith(_MAGIC):
            raise ValueError("not a snapshot of a NativeBms")
        _, build, n, context_size, digest = _HEADER.unpack_from(snapshot)
        body = snapshot[_HEADER.size :]
        if build.rstrip(b"\0").decode(errors="replace") != self._firmware.build:
            raise ValueError("the snapshot was taken with another build of the firmware")
        if n != self.n or context_size != self._firmware.context_size or len(body) != n * context_size:
            raise ValueError(f"the snapshot holds {n} BMSs in {len(body)} bytes, {self.n} expected")
        if hashlib.sha256(body).digest() != digest:
            raise ValueError("the snapshot is damaged (checksum)")
        contexts = np.frombuffer(body, dtype=np.uint64).reshape(self._contexts.shape)
        for i in range(n):
            if not self._firmware.c.bms_host_sane(contexts[i].ctypes.data):
                raise ValueError(f"the snapshot is damaged (BMS {i})")
        self._contexts[:] = contexts
        self.params = _params_of(self._contexts, self.param_dtype)
        self.step(self.frames(), 0)

    def state_hash(self) -> str:
        """SHA-256 over all contexts: equal exactly when the instances are in the same state."""
        return hashlib.sha256(self._contexts.tobytes()).hexdigest()

    def balancing(self) -> NDArray[np.bool_]:
        """(n, MAX_GROUPS) True where a group is being bled."""
        bits = np.unpackbits(self.outputs["balancing_mask"], axis=1, bitorder="little")
        return bits.astype(np.bool_)

    def faults(self, i: int) -> tuple[str, ...]:
        """Names of the latched faults of one BMS."""
        mask = int(self.outputs["fault_latched"][i])
        return tuple(name for bit, name in enumerate(self.fault_names) if mask >> bit & 1)


def read_outputs(context: bytes, like: NativeBms) -> NDArray[np.void]:
    """Outputs of a context that stands elsewhere, as (1,) of output_dtype: the emulated controller's RAM.

    `like` : an instance of the same release; it is not changed.
    """
    firmware = like._firmware
    if len(context) != firmware.context_size:
        raise ValueError(f"a context has {firmware.context_size} bytes, not {len(context)}")
    copy = np.frombuffer(context, dtype=np.uint64).copy()
    out = np.zeros(1, dtype=like.output_dtype)
    silent = like.frames()
    firmware.c.bms_host_step(
        copy.ctypes.data, silent.ctypes.data, out.ctypes.data, 1, 0, TICK_MS_DEFAULT, None
    )
    return out


def _params_of(contexts: NDArray[np.uint64], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """The parameter sets stand at the beginning of the contexts."""
    raw = np.ascontiguousarray(contexts.view(np.uint8)[:, : dtype.itemsize])
    params = raw.view(dtype)[:, 0].copy()
    params.flags.writeable = False
    return params


def bench_native(n: int = 8, n_groups: int = 112, n_frames: int = 200, repeats: int = 5) -> dict[str, float]:
    """Ticks per second of CPU time on one core, summed over the instances; medians.

    Returns
    -------
    held_1s, held_100ms, every_tick : a new sample every 100, 10 and 1 ticks of 10 ms, played as a recording
    """
    rng = np.random.default_rng(1)
    bms = NativeBms([{"n_groups": n_groups, "n_temps": 28, "capacity_mAh": 20_000}] * n)
    frames = bms.frames()
    frames["cell_temperature_ddegC"][:, :28] = 250
    frames["pack_current_mA"] = 0
    frames["cell_voltage_100uV"][:, :n_groups] = 37_000
    frames["pack_voltage_mV"] = 3_700 * n_groups
    bms.connect(frames)
    frames["contactor_feedback"] = bms.outputs["contactor_command"]
    recording = np.repeat(frames[None, :], n_frames, axis=0)
    voltages = rng.integers(36_900, 37_100, size=(n_frames, n, n_groups))
    recording["cell_voltage_100uV"][:, :, :n_groups] = voltages
    recording["pack_current_mA"] = np.where(np.arange(n_frames) % 2, 5_000, -5_000)[:, None]
    step_number = np.arange(1, n_frames + 1, dtype=np.uint16)[:, None]
    result = {}
    for label, n_ticks in (("held_1s", 100), ("held_100ms", 10), ("every_tick", 1)):
        recording["sample_period_ticks"] = n_ticks
        rates = []
        for _ in range(repeats):
            recording["sample_counter"] = frames["sample_counter"] + step_number
            frames["sample_counter"] += np.uint16(n_frames)
            start_s = time.process_time()
            bms.play(recording, n_ticks)
            rates.append(n * n_frames * n_ticks / (time.process_time() - start_s))
        result[label] = statistics.median(rates)
    if not np.all(bms.outputs["state"] == bms.state_names.index("RUN")):
        raise RuntimeError(f"the bench did not stay connected: {bms.faults(0)}")
    return result


if __name__ == "__main__":
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores")
    for label, rate in bench_native().items():
        print(f"{label:12s} {rate / 1e6:8.2f} M ticks/s per core (112 groups)")
