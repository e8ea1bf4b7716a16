"""A small stand-in for the plant: enough physics to give detectors and reports something real to chew on.

Series groups with an open-circuit curve, ohmic and two RC terms, spread of capacity, resistance and
state of charge, channel offsets and noise, passive balancing and an internal short on one cell. It
shares no code with the detectors: they see what `measured` holds and nothing else.

    python -m tests.unit.twin.fake_run OUT      writes a two-rack run of one day into OUT
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.interpolate import PchipInterpolator

from twin.telemetry.frame import PackInfo
from twin.telemetry.manifest import Expectation, Manifest
from twin.telemetry.reader import RunFolder
from twin.telemetry.sink import RunWriter

# Shape of a graphite–NMC cell; round figures, not a product.
_KNOT_SOC = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
_KNOT_V = np.array([2.70, 3.00, 3.20, 3.35, 3.50, 3.58, 3.64, 3.70, 3.80, 3.91, 4.00, 4.08, 4.19])
OCV_SOC = np.linspace(0.0, 1.0, 101)
OCV_V = PchipInterpolator(_KNOT_SOC, _KNOT_V)(OCV_SOC)


def pack_info(
    site: str = "depot", rack: str = "rack-1", pack: str = "pack-1", n_series: int = 14
) -> PackInfo:
    n_sensors = max(n_series // 4, 1)
    return PackInfo(
        site=site,
        rack=rack,
        pack=pack,
        design=f"fake_{n_series}s4p",
        n_series=n_series,
        n_parallel=4,
        n_sensors=n_sensors,
        capacity_Ah=20.0,
        voltage_min_V=2.5,
        voltage_max_V=4.2,
        temperature_min_K=253.15,
        temperature_max_K=333.15,
        current_charge_max_A=20.0,
        current_discharge_max_A=30.0,
        balancing_resistance_ohm=40.0,
        sensor_group=tuple(4 * k + 1 for k in range(n_sensors)),
        ocv_soc=tuple(OCV_SOC.tolist()),
        ocv_V=tuple(OCV_V.tolist()),
    )


@dataclass
class Plant:
    """All groups of all packs; arrays are (n_packs, n_series)."""

    n_packs: int
    n_series: int
    rng: np.random.Generator
    initial_soc: float = 0.5
    soc_sigma: float = 0.0025  # 0.5 % per cell, four in parallel
    capacity_sigma: float = 0.005
    resistance_sigma: float = 0.02
    offset_V: float = 0.5e-3
    noise_V: float = 0.5e-3
    balancing: bool = True

    def __post_init__(self) -> None:
        shape = (self.n_packs, self.n_series)
        normal = self.rng.normal
        self.capacity_C = 20.0 * 3600 * (1 + self.capacity_sigma * normal(size=shape))
        self.resistance = 6e-3 * (1 + self.resistance_sigma * normal(size=shape))
        self.soc = self.initial_soc + self.soc_sigma * normal(size=shape)
        self.offset = self.offset_V * normal(size=shape)
        self.v_rc = np.zeros((2, *shape))
        self.short_ohm = np.full(shape, np.inf)
        self.bleed = np.zeros(shape, dtype=bool)
        self.temperature = np.full(shape, 298.15)
        self.soc_bms = self.soc.mean(axis=1) + 0.01 * normal(size=self.n_packs)
        self.short_A = np.zeros(shape)
        self.group_V = self._ocv()

    def _ocv(self) -> np.ndarray:
        return np.interp(self.soc, OCV_SOC, OCV_V)

    def step(self, wish_A: np.ndarray, ambient_K: float, dt_s: float) -> np.ndarray:
        """Advance; returns the pack current after the limits near empty and full."""
        full, empty = self.group_V.max(axis=1) > 4.12, self.group_V.min(axis=1) < 3.3
        current_A = np.where((full & (wish_A < 0)) | (empty & (wish_A > 0)), 0.0, wish_A)
        current = current_A[:, None]
        self.short_A = self.group_V / self.short_ohm
        through = current + self.short_A + self.bleed * self.group_V / 40.0
        self.soc = self.soc - through * dt_s / self.capacity_C
        for k, (share, tau) in enumerate(((0.4, 40.0), (0.5, 700.0))):
            target = share * self.resistance * current
            self.v_rc[k] = target + (self.v_rc[k] - target) * np.exp(-dt_s / tau)
        self.group_V = self._ocv() - self.resistance * current - self.v_rc.sum(axis=0)
        heat = current**2 * self.resistance * 1.5 + self.short_A**2 * np.where(
            np.isfinite(self.short_ohm), self.short_ohm, 0.0
        )
        rate = np.exp(-dt_s / 4000.0)
        target_K = ambient_K + 1.3 * heat
        self.temperature = target_K + (self.temperature - target_K) * rate
        self.soc_bms = self.soc_bms - 1.001 * current_A * dt_s / (20.0 * 3600)
        return current_A

    def measure(self) -> np.ndarray:
        noise = self.noise_V * self.rng.normal(size=self.group_V.shape)
        volts = np.round(self.group_V + self.offset + noise, 4)
        if self.balancing:  # towards the lowest, above 3.6 V, with 3 mV of hysteresis
            above = volts - volts.min(axis=1, keepdims=True)
            self.bleed = (volts > 3.6) & (above > np.where(self.bleed, 2e-3, 5e-3))
        return volts


def day_current(t_s: np.ndarray, rng: np.random.Generator, capacity_Ah: float = 20.0) -> np.ndarray:
    """Pack current over days: midday charge, evening discharge, a rest at night, ripple all along."""
    hour = (t_s / 3600.0) % 24
    current = np.where((hour > 9) & (hour < 14), -0.12, 0.0) + np.where((hour > 17) & (hour < 22), 0.11, 0.0)
    dt = float(t_s[1] - t_s[0])
    ripple = np.zeros(t_s.size)
    for i in range(1, t_s.size):  # an Ornstein–Uhlenbeck process of five minutes
        ripple[i] = ripple[i - 1] * (1 - dt / 300) + 0.05 * np.sqrt(2 * dt / 300) * rng.normal()
    return capacity_Ah * (current + ripple * ((hour > 5) & (hour < 23)))


def record(
    out: Path,
    *,
    racks: int = 2,
    n_series: int = 14,
    hours: float = 24.0,
    period_s: float = 10.0,
    short: tuple[int, int, float, float] | None = (1, 9, 6.0, 40.0),
    silent: int | None = None,
    seed: int = 1,
    overwrite: bool = False,
    complete: bool = True,
) -> RunFolder:
    """Write a run; `short` is (pack index, group from 0, hour, ohm), `silent` a group that is not heard."""
    rng = np.random.default_rng(seed)
    infos = [pack_info(rack=f"rack-{k + 1}", n_series=n_series) for k in range(racks)]
    plant = Plant(racks, n_series, rng)
    t = np.arange(0, int(hours * 3600 / period_s) + 1) * period_s
    wish = day_current(t, rng)
    hour = t / 3600
    load = 9e3 + 4e3 * np.exp(-((hour % 24 - 19.5) ** 2) / 4) + 3e3 * np.exp(-((hour % 24 - 8) ** 2) / 3)
    load = load * (1 + 0.05 * rng.normal(size=t.size))
    pv = 14e3 * np.clip(np.sin((hour % 24 - 6) / 12 * np.pi), 0, None) ** 1.5
    price = (0.22 + 0.12 * np.sin((hour - 14) / 24 * 4 * np.pi)) / 3.6e6
    frequency = 50 + 0.02 * rng.normal(size=t.size)
    ambient = 298.15 + 6 * np.sin((hour - 9) / 24 * 2 * np.pi)
    names = {
        "bms_state": {0: "off", 1: "standby", 2: "precharge", 3: "run", 4: "error"},
        "contactors": {0: "main"},
    }
    charged_ac = discharged_ac = charged = discharged = heat_J = short_J = bleed_J = loss_J = aux_J = 0.0
    writer = RunWriter(out, packs=infos, code_names=names, overwrite=overwrite)
    with writer:
        writer.event(t_us=0, source="operator", kind="start", severity="info", text="site starts")
        for i in range(t.size):
            t_us = int(t[i] * 1e6)
            if short is not None and abs(t[i] - short[2] * 3600) < period_s / 2:
                plant.short_ohm[short[0], short[1]] = short[3]
                writer.event(
                    t_us=t_us,
                    source="fault",
                    kind="internal_short",
                    severity="alarm",
                    site="depot",
                    rack=infos[short[0]].rack,
                    pack="pack-1",
                    cell=short[1] * 4 + 2,
                    value=short[3],
                    unit="ohm",
                    text=f"internal short of {short[3]:g} ohm begins",
                )
                writer.event(
                    t_us=t_us,
                    source="zoom",
                    kind="window",
                    severity="info",
                    value=60.0,
                    unit="s",
                    text="finer steps around the fault",
                )
            if abs(t[i] - 15.2 * 3600) < period_s / 2:
                writer.event(
                    t_us=t_us,
                    source="bms",
                    kind="derating",
                    severity="warning",
                    site="depot",
                    rack="rack-1",
                    pack="pack-1",
                    text="charge limit lowered near full",
                )
            current = plant.step(np.full(racks, wish[i]), float(ambient[i]), period_s)
            volts = plant.measure()
            pack_V = volts.sum(axis=1)
            if silent is not None:
                volts[:, silent] = np.nan
            sensors = np.array(infos[0].sensor_group) - 1
            kelvin = plant.temperature[:, sensors] + 0.1 * rng.normal(size=(racks, sensors.size))
            power = current * pack_V
            writer.measured.append_block(
                t_us,
                None,
                {
                    "current_A": current + 0.02 * rng.normal(size=racks),
                    "pack_voltage_V": pack_V,
                    "link_voltage_V": pack_V,
                    "group_voltage_V": volts,
                    "temperature_K": kelvin,
                    "soc_bms": plant.soc_bms,
                    "current_limit_charge_A": np.where(plant.soc_bms > 0.9, 8.0, 20.0),
                    "current_limit_discharge_A": 30.0,
                    "bms_state": 3,
                    "level": 0,
                    "fault_mask": 0,
                    "contactors": 1,
                    "balancing": plant.bleed,
                    "cooling": 0.0,
                    "sample_age_s": 0.0,
                    "power_W": power,
                },
            )
            dc = float(power.sum())
            loss = 4.0 * racks + 0.008 * abs(dc) + 4e-6 * dc**2 / racks
            ac, aux = dc - loss, 30.0
            asked = ac * 1.02 if wish[i] > 2.5 else ac
            writer.meter.append_block(
                t_us,
                None,
                {
                    "power_requested_W": asked,
                    "power_served_W": ac,
                    "power_dc_W": dc,
                    "converter_loss_W": loss,
                    "auxiliary_W": aux,
                    "load_W": load[i],
                    "pv_W": pv[i],
                    "grid_import_W": load[i] - pv[i] - ac + aux,
                    "price_per_J": price[i],
                    "frequency_Hz": frequency[i],
                    "ambient_K": ambient[i],
                },
            )
            charged += max(-dc, 0) * period_s
            discharged += max(dc, 0) * period_s
            charged_ac += max(-ac, 0) * period_s
            discharged_ac += max(ac, 0) * period_s
            heat_J += float((current[:, None] ** 2 * plant.resistance * 1.9).sum()) * period_s
            short_J += float((plant.short_A * plant.group_V).sum()) * period_s
            bleed_J += float((plant.bleed * plant.group_V**2 / 40).sum()) * period_s
            loss_J += loss * period_s
            aux_J += aux * period_s
            if i % 6 == 0:
                emptiest = plant.soc.argmin(axis=1)
                writer.truth.append_block(
                    t_us,
                    None,
                    {
                        "soc_mean": plant.soc.mean(axis=1),
                        "soc_min": plant.soc.min(axis=1),
                        "soc_max": plant.soc.max(axis=1),
                        "soc": plant.soc,
                        "temperature_mean_K": plant.temperature.mean(axis=1),
                        "temperature_min_K": plant.temperature.min(axis=1),
                        "temperature_max_K": plant.temperature.max(axis=1),
                        "voltage_min_V": plant.group_V.min(axis=1),
                        "voltage_max_V": plant.group_V.max(axis=1),
                        "current_A": current,
                        "heat_W": (current[:, None] ** 2 * plant.resistance).sum(axis=1),
                        "short_current_A": plant.short_A.sum(axis=1),
                        "weakest_cell": emptiest * 4 + 1,
                        "hottest_cell": plant.temperature.argmax(axis=1) * 4 + 1,
                    },
                )
        manifest = Manifest(
            scenario="fake_day",
            about="A made-up day at a depot; one cell of rack-2 has an internal short from the morning on.",
            scenario_hash="0" * 64,
            seed=seed,
            start="2016-06-06T00:00:00",
            duration_s=float(t[-1]),
            version="0.1.0",
            fidelity={"cell": "ecm", "thermal": "lumped", "bms": "native"},
            steps={"plant": t.size, "zoom": 0},
            balances={
                "all": {
                    "energy_charged_J": charged_ac,
                    "energy_discharged_J": discharged_ac,
                    "energy_chemical_J": discharged - charged + heat_J + short_J + bleed_J,
                    "energy_cell_heat_J": heat_J,
                    "energy_short_J": short_J,
                    "energy_balancing_J": bleed_J,
                    "energy_converter_J": loss_J,
                    "energy_auxiliary_J": aux_J,
                    "energy_residual": 3e-12,
                    "charge_residual": 1e-13,
                }
            },
            expectations=[],
            timings={"wall_s": {"run": 1.0}},
        )
        writer.finish_tables()
        if not complete:
            return RunFolder.draft(writer.partial, manifest)
        return writer.complete(manifest)


def expectation(metric: str, value: float, at_most: float) -> Expectation:
    return Expectation(
        metric=metric, relation="at_most", wanted=at_most, value=value, dimension="time", met=value <= at_most
    )


if __name__ == "__main__":
    print(record(Path(sys.argv[1]), overwrite=True).path)
