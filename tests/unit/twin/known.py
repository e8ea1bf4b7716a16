"""A small world of names for the loader's tests: packs, strategies, faults, detectors, metrics.

Not the real registries: these cover every kind of field and every rule once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from twin.scenario.fields import flag, integer, profile, quantity, target, word
from twin.scenario.schema import Known, PackFacts


@dataclass(frozen=True, kw_only=True)
class SelfConsumption:
    needs: ClassVar[tuple[str, ...]] = ("load", "pv")
    reserve: float = quantity("fraction", "SOC kept", key="reserve", default=0.1, minimum=0.0, maximum=1.0)


@dataclass(frozen=True, kw_only=True)
class FcrDroop:
    needs: ClassVar[tuple[str, ...]] = ("frequency",)
    power_W: float = quantity("power", "prequalified power", key="power", above=0.0)
    deadband_Hz: float = quantity("frequency", "insensitivity", key="deadband", default=0.01, minimum=0.0)
    symmetric: bool = flag("both directions", default=True)


@dataclass(frozen=True, kw_only=True)
class Drive:
    needs: ClassVar[tuple[str, ...]] = ()
    at_s: float = quantity("time", "departure", key="at", minimum=0.0)
    cycle: Any = profile("speed", dimension="speed", hold="linear", whole=True)
    mass_kg: float = quantity("mass", "vehicle", key="mass", default=1900.0, above=0.0)


@dataclass(frozen=True, kw_only=True)
class InternalShort:
    at_s: float = quantity("time", "when it begins", key="at")
    until_s: float | None = quantity("time", "when it heals", key="until", default=None)
    target: str = target("the cell", level="cell")
    resistance_ohm: float = quantity("resistance", "of the short", key="resistance", above=0.0, maximum=1e6)


@dataclass(frozen=True, kw_only=True)
class SensorStuck:
    at_s: float = quantity("time", "when it begins", key="at", minimum=0.0)
    target: str = target("the sensor", level="group|temperature")


@dataclass(frozen=True, kw_only=True)
class SensorBias:
    at_s: float = quantity("time", "when it begins", key="at", minimum=0.0)
    target: str = target("the pack", level="pack")
    sensor: str = word("kind of sensor", names=("voltage", "temperature"))
    channel: int = integer("which sensor, from 1", default=1, minimum=1)
    bias_K: float = quantity("temperature_difference", "bias", key="bias_temperature", default=0.0)

    def mistakes(self) -> list[tuple[str, str]]:
        if self.sensor == "voltage" and self.bias_K:
            return [("bias_temperature", "a voltage sensor has no temperature bias")]
        return []

    def mistakes_at(self, pack: PackFacts) -> list[tuple[str, str]]:
        most = pack.n_groups if self.sensor == "voltage" else pack.n_temperature_sensors
        if self.channel > most:
            return [("channel", f"the pack has {most} {self.sensor} sensors")]
        return []


@dataclass(frozen=True, kw_only=True)
class CoolingFailure:
    at_s: float = quantity("time", "when it begins", key="at", minimum=0.0)
    target: str = target("the rack", level="rack")


@dataclass(frozen=True, kw_only=True)
class VoltageSpread:
    threshold_V: float = quantity("voltage", "alarm level", key="threshold", default=0.03, above=0.0)
    hold_s: float = quantity("time", "persistence", key="hold", default=600.0, minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class Trend:
    window_s: float = quantity("time", "window", key="window", above=0.0)


KNOWN = Known(
    packs={
        "bus_14s": PackFacts(n_cells=28, n_groups=14, n_temperature_sensors=4),
        "container_20s": PackFacts(n_cells=20, n_groups=20, n_temperature_sensors=6),
        "ev_96s": PackFacts(n_cells=96, n_groups=96, n_temperature_sensors=12),
    },
    cell_models=("ecm", "spme"),
    thermal_models=("lumped",),
    ageing_models={"none": False, "semi_empirical": True},
    ageing_parameters={"naumann_lfp": False, "kokam_nmc": True},
    bms_models=("native",),
    propagation_models=("none", "network", "fem"),
    barriers=("case", "aerogel"),
    risk_tables=("none", "pack3x4"),
    brokers=("mosquitto", "memory"),
    images=("1.0.0", "1.1.0", "1.2.0"),
    parameters=("capacity_mAh", "soc_rest_ms"),
    dispatch={"self_consumption": SelfConsumption, "fcr_droop": FcrDroop, "drive": Drive},
    faults={
        "internal_short": InternalShort,
        "sensor_stuck": SensorStuck,
        "sensor_bias": SensorBias,
        "cooling_failure": CoolingFailure,
    },
    detectors={"voltage_spread": VoltageSpread, "trend": Trend},
    metrics={
        "warning_before_venting": "time",
        "detected": "count",
        "energy_balance": "fraction",
        "cell_temperature_max": "temperature",
        "energy_served": "energy",
    },
)
