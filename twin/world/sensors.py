"""Truth becomes measured here, and nowhere else.

All channels of all packs of a shard lie in one flat array: group voltages, temperatures, pack current,
pack voltage, link voltage, and those of the housing: pressure, gas, insulation. A channel adds its gain
and offset (drawn once), white noise (counter-based, see rng.py) and whatever a sensor fault does to it:
bias, stuck at its last value, silent (NaN). A channel that is not fitted is NaN for ever. The gas sensor
is slow (first order); pressure and gas end at their range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twin.ports import FloatArray, IntArray, MeasuredFrame, Wiring
from twin.scenario.schema import Sensors
from twin.world.rng import Streams, add_noise

# The order is that of the random draws: new kinds go to the end.
KINDS = (
    "voltage",
    "temperature",
    "current",
    "pack_voltage",
    "link_voltage",
    "pressure",
    "gas",
    "insulation",
)


@dataclass(frozen=True)
class HousingTruth:
    """What is so in the housing of each pack, (n_packs,) each; units as in `ports.MeasuredFrame`."""

    pressure_Pa: FloatArray
    gas_fraction: FloatArray
    insulation_ohm: FloatArray


@dataclass(frozen=True)
class SensorPlan:
    """Which cell each temperature sensor sits on: cell (n_sensors,) and pack_start (n_packs + 1,)."""

    cell: IntArray
    pack_start: IntArray


class SensorBank:
    """The sensors of all packs of a shard."""

    def __init__(
        self, wiring: Wiring, plan: SensorPlan, packs: list[tuple[str, Sensors]], streams: Streams
    ) -> None:
        """`packs` gives each pack's path (names its random stream) and sensor errors."""
        self.plan = plan
        counts = {
            **{kind: np.ones(wiring.n_packs, dtype=np.int64) for kind in KINDS},
            "voltage": np.diff(wiring.pack_group_start),
            "temperature": np.diff(plan.pack_start),
        }
        sizes = [int(counts[kind].sum()) for kind in KINDS]
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        self.slices = {kind: slice(int(bounds[i]), int(bounds[i + 1])) for i, kind in enumerate(KINDS)}
        self.pack_start = {
            kind: np.concatenate([[0], np.cumsum(counts[kind])]).astype(np.int64) for kind in KINDS
        }
        n = int(bounds[-1])
        self.value = np.zeros(n)
        self.gain, self.offset, self.sigma = np.ones(n), np.zeros(n), np.zeros(n)
        self.key, self.channel = np.zeros(n, dtype=np.uint64), np.zeros(n, dtype=np.int64)
        self.bias, self.stuck_at = np.zeros(n), np.full(n, np.nan)
        self.silent = np.zeros(n, dtype=bool)
        self.high = np.full(n, np.inf)
        fitted = np.ones(n, dtype=bool)
        self._faulty = False
        self._sample = 0
        self._gas = np.zeros(wiring.n_packs)
        self._gas_response_s = np.array([errors.gas_response_s for _, errors in packs])
        for p, (path, errors) in enumerate(packs):
            draw = streams.generator(f"site/{path}/sensors")
            key = streams.key(f"site/{path}/sensor-noise")
            sigma = {
                "voltage": (errors.voltage_offset_V, errors.voltage_noise_V),
                "temperature": (errors.temperature_offset_K, errors.temperature_noise_K),
                "current": (errors.current_offset_A, errors.current_noise_A),
                # The pack and link dividers are as good per volt as 100 cell channels in series.
                "pack_voltage": (10 * errors.voltage_offset_V, 10 * errors.voltage_noise_V),
                "link_voltage": (10 * errors.voltage_offset_V, 10 * errors.voltage_noise_V),
                "pressure": (errors.pressure_offset_Pa, errors.pressure_noise_Pa),
                "gas": (errors.gas_offset, errors.gas_noise),
                "insulation": (0.0, 0.0),
            }
            for number, kind in enumerate(KINDS):
                at = self.channels(kind, p)
                size = at.stop - at.start
                self.offset[at] = draw.normal(0.0, 1.0, size) * sigma[kind][0]
                self.sigma[at] = sigma[kind][1]
                self.key[at] = key
                self.channel[at] = number * 1_000_000 + np.arange(size)
                if kind == "current":
                    self.gain[at] = 1.0 + draw.normal(0.0, 1.0, size) * errors.current_gain
                if kind in ("pressure", "gas", "insulation"):
                    fitted[at] = getattr(errors, kind)
                    self.sigma[at] *= fitted[at]
            self.high[self.channels("pressure", p)] = errors.pressure_range_Pa
            self.high[self.channels("gas", p)] = errors.gas_range
        self._insulation_noise = np.array([errors.insulation_noise for _, errors in packs])
        self._missing = np.flatnonzero(~fitted)
        self._housing = bool(fitted[self.slices["pressure"].start :].any())
        self.frame = MeasuredFrame(
            **{name: self.value[self.slices[kind]] for name, kind in _FRAME.items()},
            main_contacts=np.zeros(wiring.n_packs, dtype=np.int8),
        )

    def channels(self, kind: str, pack: int) -> slice:
        """Where the channels of this kind of this pack lie in the flat arrays."""
        base, start = self.slices[kind].start, self.pack_start[kind]
        return slice(base + int(start[pack]), base + int(start[pack + 1]))

    def read(
        self,
        group_voltage_V: FloatArray,
        temperature_K: FloatArray,
        pack_current_A: FloatArray,
        pack_voltage_V: FloatArray,
        link_voltage_V: FloatArray,
        housing: HousingTruth,
        dt_s: float,
    ) -> MeasuredFrame:
        """One sample of every channel, dt_s after the last; the frame is overwritten by the next."""
        value = self.value
        value[self.slices["voltage"]] = group_voltage_V
        np.take(temperature_K, self.plan.cell, out=value[self.slices["temperature"]])
        value[self.slices["current"]] = pack_current_A
        value[self.slices["pack_voltage"]] = pack_voltage_V
        value[self.slices["link_voltage"]] = link_voltage_V
        if self._housing:
            self._read_housing(housing, dt_s)
        value *= self.gain
        value += self.offset
        add_noise(value, self.key, self.channel, self.sigma, self._sample)
        self._sample += 1
        if self._housing:
            np.clip(value, -self.high, self.high, out=value)
            gas = value[self.slices["gas"]]
            np.maximum(gas, 0.0, out=gas)
        if self._faulty:
            value += self.bias
            stuck = ~np.isnan(self.stuck_at)
            value[stuck] = self.stuck_at[stuck]
            value[self.silent] = np.nan
        value[self._missing] = np.nan
        return self.frame

    def _read_housing(self, housing: HousingTruth, dt_s: float) -> None:
        """The housing's channels; the noise of an insulation monitor goes with what it reads."""
        with np.errstate(divide="ignore"):
            self._gas += (housing.gas_fraction - self._gas) * -np.expm1(-dt_s / self._gas_response_s)
        self.value[self.slices["pressure"]] = housing.pressure_Pa
        self.value[self.slices["gas"]] = self._gas
        at = self.slices["insulation"]
        self.value[at] = housing.insulation_ohm
        self.sigma[at] = self._insulation_noise * housing.insulation_ohm

    # ---- faults: each takes flat channel numbers ------------------------------------------------

    def set_bias(self, channel: int, bias: float) -> None:
        self.bias[channel] = bias
        self._faulty = True

    def set_stuck(self, channel: int, stuck: bool) -> None:
        """Hold the last value from now on."""
        self.stuck_at[channel] = self.value[channel] if stuck else np.nan
        self._faulty = True

    def set_silent(self, channel: int, silent: bool) -> None:
        self.silent[channel] = silent
        self._faulty = True


_FRAME = {
    "group_voltage_V": "voltage",
    "temperature_K": "temperature",
    "current_A": "current",
    "pack_voltage_V": "pack_voltage",
    "link_voltage_V": "link_voltage",
    "pressure_Pa": "pressure",
    "gas_fraction": "gas",
    "insulation_ohm": "insulation",
}
