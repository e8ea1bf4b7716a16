"""Sensor faults: a bias, a reading that is stuck, a channel that falls silent."""

from __future__ import annotations

from dataclasses import dataclass

from twin.scenario.fields import integer, quantity, word
from twin.scenario.fields import target as target_field
from twin.scenario.schema import PackFacts
from twin.world.faults.base import FaultNote, FaultTarget
from twin.world.sensors import KINDS


@dataclass(frozen=True, kw_only=True)
class _SensorFault:
    at_s: float = quantity("time", "when it begins", key="at", minimum=0.0)
    until_s: float | None = quantity("time", "when it ends", key="until", default=None)
    target: str = target_field("the pack", level="pack")
    sensor: str = word("kind of sensor", names=KINDS)
    channel: int = integer("which of the pack's sensors of this kind, from 1", default=1, minimum=1)

    def mistakes_at(self, pack: PackFacts) -> list[tuple[str, str]]:
        """Called by the loader with the facts of the target."""
        there = {"voltage": pack.n_groups, "temperature": pack.n_temperature_sensors}.get(self.sensor, 1)
        if self.channel > there:
            return [("channel", f"there is no {self.sensor} sensor {self.channel}; the pack has {there}")]
        return []

    def _channel(self, target: FaultTarget) -> int:
        return target.shard.sensors.channels(self.sensor, target.packs.start).start + self.channel - 1

    def _note(self, value: float, unit: str, what: str) -> FaultNote:
        return FaultNote(value, unit, f"{self.sensor} sensor {self.channel} {what}")


@dataclass(frozen=True, kw_only=True)
class SensorBias(_SensorFault):
    """A reading off by a constant: give the bias that goes with the kind of sensor."""

    bias_V: float = quantity("voltage", "bias of a voltage sensor", key="bias_voltage", default=0.0)
    bias_K: float = quantity(
        "temperature_difference", "bias of a temperature sensor", key="bias_temperature", default=0.0
    )
    bias_A: float = quantity("current", "bias of a current sensor", key="bias_current", default=0.0)
    bias_Pa: float = quantity("pressure", "bias of a pressure sensor", key="bias_pressure", default=0.0)
    bias_gas: float = quantity("fraction", "bias of a gas sensor", key="bias_gas", default=0.0)
    bias_ohm: float = quantity(
        "resistance", "bias of an insulation monitor", key="bias_insulation", default=0.0
    )

    def _bias(self) -> tuple[float, str]:
        others = {
            "temperature": (self.bias_K, "K"),
            "current": (self.bias_A, "A"),
            "pressure": (self.bias_Pa, "Pa"),
            "gas": (self.bias_gas, "1"),
            "insulation": (self.bias_ohm, "ohm"),
        }
        return others.get(self.sensor, (self.bias_V, "V"))

    def apply(self, target: FaultTarget) -> FaultNote:
        bias, unit = self._bias()
        target.shard.sensors.set_bias(self._channel(target), bias)
        return self._note(bias, unit, f"reads {bias:+g} {unit} too much")

    def clear(self, target: FaultTarget) -> FaultNote:
        target.shard.sensors.set_bias(self._channel(target), 0.0)
        return self._note(0.0, self._bias()[1], "is right again")


@dataclass(frozen=True, kw_only=True)
class SensorStuck(_SensorFault):
    """A reading that stays at its last value."""

    def apply(self, target: FaultTarget) -> FaultNote:
        channel = self._channel(target)
        target.shard.sensors.set_stuck(channel, True)
        return self._note(float(target.shard.sensors.value[channel]), "", "is stuck")

    def clear(self, target: FaultTarget) -> FaultNote:
        target.shard.sensors.set_stuck(self._channel(target), False)
        return self._note(0.0, "", "moves again")


@dataclass(frozen=True, kw_only=True)
class SensorDropout(_SensorFault):
    """A channel that falls silent."""

    def apply(self, target: FaultTarget) -> FaultNote:
        target.shard.sensors.set_silent(self._channel(target), True)
        return self._note(0.0, "", "is silent")

    def clear(self, target: FaultTarget) -> FaultNote:
        target.shard.sensors.set_silent(self._channel(target), False)
        return self._note(0.0, "", "speaks again")
