"""Analogue front end: volts become codes in its result memory, with the errors of real channels.

Cell voltages have 16 bits of 0.1 mV. A channel without a measurement carries the codes 65535 (voltage),
-32768 (temperature), -2147483647 (current) or 4294967295 (voltage of the pack). The part from the first cell
to REQUEST has the layout of the firmware's input frame, so a frame measured elsewhere goes in byte by byte.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .chip import Chip

FloatArray = NDArray[np.float64]

NAME = "afe"
CELLS, TEMPERATURES = 256, 64
# (name, offset, access, meaning); the first element of an array stands for all of it
REGISTERS = (
    ("CELL", 0x000, "r", "256 cell voltages, 16 bits each, 100 uV"),
    ("TEMPERATURE", 0x200, "r", "64 temperatures, 16 bits each, signed, 0.1 degC"),
    ("CURRENT", 0x280, "r", "pack current, signed, mA, positive on discharge"),
    ("CURRENT_REDUNDANT", 0x284, "r", "second sensor"),
    ("PACK_VOLTAGE", 0x288, "r", "mV"),
    ("LINK_VOLTAGE", 0x28C, "r", "mV behind the contactors"),
    ("PERIOD", 0x290, "r", "10 ms ticks for which a sample is fresh"),
    ("SEQUENCE", 0x294, "r", "bits 0-15: counts the samples; 16-23 contactor feedback; 24-31 condition bits"),
    ("REQUEST", 0x298, "r", "bits 0-7: request bits of the energy management system"),
    ("INSULATION", 0x2A0, "r", "insulation resistance, kOhm"),
    ("PRESSURE", 0x2A4, "r", "pressure in the housing above that outside, Pa"),
    ("GAS", 0x2A8, "r", "combustible gas, ppm"),
)
SIZE = 0x2AC
NO_VOLTAGE, NO_TEMPERATURE, NO_CURRENT, NO_PACK = 0xFFFF, -0x8000, -0x7FFFFFFF, 0xFFFFFFFF


@dataclass(frozen=True)
class Errors:
    """Spread of the channels (standard deviations; all 0: an ideal front end).

    Each channel has its own fixed offset, drawn once from the seed; noise is drawn for each sample.
    """

    seed: int = 0
    cell_offset_V: float = 0.0
    cell_noise_V: float = 0.0
    temperature_offset_K: float = 0.0
    temperature_noise_K: float = 0.0
    current_gain: float = 0.0  # relative
    current_offset_A: float = 0.0
    current_drift_A_per_h: float = 0.0
    current_noise_A: float = 0.0
    pack_gain: float = 0.0


@dataclass(frozen=True)
class Truth:
    """What is there to measure, SI; (n_cells,), (n_sensors,). NaN is a channel that is not fitted."""

    cell_V: FloatArray
    temperature_K: FloatArray
    current_A: float
    pack_V: float
    link_V: float
    insulation_ohm: float = 1e7
    pressure_Pa: float = 0.0
    gas_ppm: float = 0.0


class Afe:
    """From volts to codes, with errors and injected faults; writes finished samples to the result memory.

    stuck : offset in the result memory -> bytes that stand there whatever is measured
    garbage : so many of the next samples are noise
    lost : so many of the next samples never arrive
    """

    def __init__(self, chip: Chip, base: int, errors: Errors) -> None:
        self._chip, self._base, self.errors = chip, base, errors
        chance = np.random.default_rng([errors.seed, 1])
        self._cell_offset_V = errors.cell_offset_V * chance.standard_normal(CELLS)
        self._temperature_offset_K = errors.temperature_offset_K * chance.standard_normal(TEMPERATURES)
        # gain and offset of the two current sensors, gain of the two voltages of the pack
        self._current = chance.standard_normal((2, 3))
        self._pack_gain = errors.pack_gain * chance.standard_normal(2)
        self.samples = 0
        self.stuck: dict[int, bytes] = {}
        self.garbage = 0
        self.lost = 0

    def convert(self, truth: Truth, period_ticks: int, time_s: float) -> bytes:
        """One sample as the result memory holds it, with counter, feedback and request still 0."""
        e = self.errors
        chance = np.random.default_rng([e.seed, 2, self.samples])
        n, m = truth.cell_V.size, truth.temperature_K.size
        cell_V = truth.cell_V + self._cell_offset_V[:n] + e.cell_noise_V * chance.standard_normal(n)
        temperature_K = truth.temperature_K + self._temperature_offset_K[:m]
        temperature_K = temperature_K + e.temperature_noise_K * chance.standard_normal(m)
        currents = []
        for gain, offset, drift in self._current:
            reading = truth.current_A * (1 + e.current_gain * gain) + e.current_offset_A * offset
            reading += e.current_drift_A_per_h * drift * time_s / 3600
            currents.append(reading + e.current_noise_A * float(chance.standard_normal()))
        block = bytearray(SIZE)
        block[0 : 2 * CELLS] = _codes(cell_V, 1e4, 0, NO_VOLTAGE - 1, NO_VOLTAGE, CELLS, "<u2")
        block[0x200:0x280] = _codes(
            temperature_K - 273.15, 10, -32767, 32767, NO_TEMPERATURE, TEMPERATURES, "<i2"
        )
        pack_V, link_V = truth.pack_V * (1 + self._pack_gain[0]), truth.link_V * (1 + self._pack_gain[1])
        struct.pack_into(
            "<iiIII",
            block,
            0x280,
            _code(currents[0], 1e3, -0x7FFFFFFE, 0x7FFFFFFF, NO_CURRENT),
            _code(currents[1], 1e3, -0x7FFFFFFE, 0x7FFFFFFF, NO_CURRENT),
            _code(pack_V, 1e3, 0, NO_PACK - 1, NO_PACK),
            _code(link_V, 1e3, 0, NO_PACK - 1, NO_PACK),
            period_ticks,
        )
        struct.pack_into(
            "<III",
            block,
            0x2A0,
            _code(truth.insulation_ohm, 1e-3, 0, NO_PACK - 1, NO_PACK),
            _code(truth.pressure_Pa, 1.0, 0, NO_PACK - 1, NO_PACK),
            _code(truth.gas_ppm, 1.0, 0, NO_PACK - 1, NO_PACK),
        )
        return bytes(block)

    def clear(self) -> None:
        """Nothing measured yet: every channel without a measurement, counter 0."""
        nothing = np.full(0, np.nan)
        silent = Truth(nothing, nothing, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)
        self._chip.write_memory(self._base, self.convert(silent, 1, 0.0))

    def deliver(self, block: bytes) -> bool:
        """Put a finished sample (from the first cell on) into the result memory; False if it is lost.

        The bytes change between two instructions, as the double buffer of a real front end does it.
        """
        self.samples += 1
        if self.lost:
            self.lost -= 1
            return False
        data = bytearray(block)
        if self.garbage:
            self.garbage -= 1
            noise = np.random.default_rng([self.errors.seed, 3, self.samples])
            data[:0x294] = noise.bytes(0x294)
        for at, kept in self.stuck.items():
            data[at : at + len(kept)] = kept
        self._chip.write_memory(self._base, bytes(data))
        return True


def _code(value: float, scale: float, low: int, high: int, missing: int) -> int:
    return missing if math.isnan(value) else int(min(max(np.rint(value * scale), low), high))


def _codes(value: FloatArray, scale: float, low: int, high: int, missing: int, n: int, dtype: str) -> bytes:
    """(n,) codes of that type; channels beyond the end of `value`, and NaN, have none."""
    codes = np.full(n, missing, dtype=dtype)
    known = ~np.isnan(value)
    codes[: value.size][known] = np.clip(np.rint(value[known] * scale), low, high).astype(dtype)
    return codes.tobytes()
