"""The housing's sensors: fitted or silent, noisy, slow where they are slow, within their range."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from twin.scenario.schema import Sensors
from twin.world.rng import Streams
from twin.world.sensors import HousingTruth, SensorBank, SensorPlan

QUIET = {
    "pressure_noise_Pa": 0.0,
    "pressure_offset_Pa": 0.0,
    "gas_noise": 0.0,
    "gas_offset": 0.0,
    "insulation_noise": 0.0,
}


def bank(*packs: Sensors) -> SensorBank:
    n = len(packs)
    wiring = SimpleNamespace(n_packs=n, pack_group_start=np.arange(n + 1))
    plan = SensorPlan(cell=np.arange(n), pack_start=np.arange(n + 1))
    return SensorBank(wiring, plan, [(f"s/r/pack-{k}", one) for k, one in enumerate(packs)], Streams(3))


def read(sensors: SensorBank, pressure_Pa=0.0, gas=0.0, insulation_ohm=1e6, dt_s=0.1):
    n = sensors.plan.cell.size
    truth = HousingTruth(np.full(n, pressure_Pa), np.full(n, gas), np.full(n, insulation_ohm))
    room = np.full(n, 298.15)
    return sensors.read(np.full(n, 3.7), room, np.zeros(n), np.full(n, 3.7), np.zeros(n), truth, dt_s)


def test_a_sensor_that_is_not_fitted_is_silent_and_disturbs_nobody():
    with_gas, without = Sensors(gas=True, pressure=True), Sensors()
    frame = read(bank(with_gas, without), pressure_Pa=500.0, gas=1e-3)
    assert np.isfinite(frame.pressure_Pa[0])
    assert np.isnan(frame.insulation_ohm).all()
    assert np.isnan([frame.pressure_Pa[1], frame.gas_fraction[1]]).all()
    plain = read(bank(without, without))
    np.testing.assert_array_equal(frame.group_voltage_V, plain.group_voltage_V)


def test_the_gas_sensor_is_first_order_and_ends_at_its_range():
    sensors = bank(Sensors(gas=True, gas_response_s=5.0, gas_range=0.02, **QUIET))
    for _ in range(50):
        frame = read(sensors, gas=0.01)
    assert frame.gas_fraction[0] == pytest.approx(0.01 * (1.0 - np.exp(-1.0)), rel=1e-12)
    for _ in range(1000):
        frame = read(sensors, gas=0.3)
    assert frame.gas_fraction[0] == 0.02


def test_a_gas_sensor_without_delay_follows_at_once():
    sensors = bank(Sensors(gas=True, gas_response_s=0.0, **QUIET))
    assert read(sensors, gas=0.01).gas_fraction[0] == 0.01


def test_pressure_and_insulation_are_read_with_their_errors():
    exact = read(bank(Sensors(pressure=True, insulation=True, **QUIET)), 3e3, 0.0, 5e5)
    assert (exact.pressure_Pa[0], exact.insulation_ohm[0]) == (3e3, 5e5)
    noisy = bank(*[Sensors(pressure=True, insulation=True, insulation_noise=0.1)] * 400)
    frame = read(noisy, pressure_Pa=3e3, insulation_ohm=1e6)
    assert np.std(frame.pressure_Pa) == pytest.approx(np.hypot(20.0, 50.0), rel=0.15)
    assert np.std(frame.insulation_ohm) == pytest.approx(1e5, rel=0.15)
    assert read(noisy, pressure_Pa=1e9).pressure_Pa.max() == 100e3
    assert frame.gas_fraction.size == 400


def test_sensor_faults_reach_the_housing_too():
    sensors = bank(Sensors(pressure=True, **QUIET))
    channel = sensors.channels("pressure", 0).start
    sensors.set_bias(channel, 40.0)
    assert read(sensors, pressure_Pa=100.0).pressure_Pa[0] == 140.0
    sensors.set_silent(channel, True)
    assert np.isnan(read(sensors, pressure_Pa=100.0).pressure_Pa[0])
