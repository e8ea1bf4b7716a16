"""The firmware's estimators held to their specification: the filter in Python, cells of pack_models."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from bms_emulator.firmware.estimators import NativeEstimator, default_parameters, rows
from pack_models.catalogue import cell
from pack_models.cells import compact
from pack_models.cells.ecm import EcmBank
from pack_models.layout import Layout
from twin.adapters.estimators import estimator_parameters, filter_tables
from twin.analytics import soc as filters
from twin.analytics.soc import DEFAULT, FilterModel, Start
from twin.estimate import firmware

ONE = Layout.uniform(1, 1, 1, 1)


def drive(name: str, kelvin: float, soc: float, seed: int, n: int = 4000):
    """Time, voltage, current, temperature of a catalogue cell on a random drive, and its state of charge."""
    rng = np.random.default_rng(seed)
    design = cell(name)
    bank = EcmBank(design, ONE, soc, temperature_K=kelvin)
    dt_s = rng.choice([1.0, 1.0, 1.0, 5.0], n)
    current_A = np.repeat(rng.normal(0.15, 0.8, n // 20), 20) * design.capacity_Ah
    current_A[(np.arange(n) // 500) % 3 == 2] = 0.0
    volts, charge = np.empty(n), np.empty(n)
    for k in range(n):
        bank.step(current_A[k : k + 1], np.array([kelvin]), float(dt_s[k]))
        volts[k], charge[k] = bank.pack_voltage_V[0], bank.soc[0]
    volts = np.round(volts + rng.normal(0.0, 0.001, n), 4)
    return (np.cumsum(dt_s), volts, current_A, np.full(n, kelvin)), charge


# Largest differences seen are a third of these.
SOC_BOUND, SIGMA_BOUND = 3e-4, 2e-4


@pytest.mark.parametrize(
    ("name", "kelvin", "seed"),
    [
        ("lghg2_measured", 298.15, 1),
        ("lghg2_measured", 266.0, 2),
        ("lgm50_chen2020", 308.0, 3),
        ("lfp_1p2_measured", 298.15, 4),
    ],
)
def test_c_in_float32_is_python_in_float64_sample_by_sample(name, kelvin, seed):
    inputs, _ = drive(name, kelvin, 0.75, seed)
    model = FilterModel(**filter_tables(name))
    python = filters.ekf(model, *inputs, Start(0.65, 0.1))
    c = firmware(model, *inputs, Start(0.65, 0.1))
    assert np.max(np.abs(c.soc - python.soc)) < SOC_BOUND
    assert np.max(np.abs(c.sigma - python.sigma)) < SIGMA_BOUND


@pytest.mark.parametrize("estimator", ["ekf", "ukf", "firmware"])
@pytest.mark.parametrize(("name", "kelvin"), [("lghg2_measured", 298.15), ("lgm50_chen2020", 278.15)])
def test_finds_the_charge_of_a_simulated_cell(name, kelvin, estimator):
    """From 10 points off and with a sensor that reads 1 % of 1C too much; the model is right here."""
    (time_s, volts, current_A, kelvins), charge = drive(name, kelvin, 0.9, seed=7)
    offset_A = 0.01 * cell(name).capacity_Ah
    known = {**filters.ESTIMATORS, "firmware": firmware}
    model = FilterModel(**filter_tables(name))
    found = known[estimator](model, time_s, volts, current_A + offset_A, kelvins, Start(0.8, 0.1))
    late = time_s > 600.0
    # The far points of the unscented filter reach over the bend near full: it takes longer to come back.
    bound = 0.012 if estimator == "ukf" else 0.006
    assert np.sqrt(np.mean((found.soc - charge)[late] ** 2)) < bound
    assert np.mean(np.abs(found.soc - charge)[late] < 2.0 * found.sigma[late]) > 0.85


def test_settings_and_grids_are_the_same_on_both_sides():
    """Defaults in app/ekf.c against FilterSettings; the size of the tables against compact.py."""
    record = default_parameters(5.0)
    for name, value in DEFAULT._asdict().items():
        assert float(record[f"est_{name}"]) == pytest.approx(value, rel=1e-6), name
    n_soc, n_kelvin = compact.TABLE_SOC.size, compact.TABLE_TEMPERATURE_K.size
    assert rows()["est_ocv_V"][0] == compact.OCV_SOC.size
    assert rows()["est_resistance0_ohm"][0] == n_soc * n_kelvin
    # That the grid points themselves agree, the filters above show.


@functools.cache
def _sheet(name: str):
    return estimator_parameters(filter_tables(name))


def constant_power(bank: EcmBank, power_W: float, horizon_s: float, kelvin: float, limits) -> bool:
    """Whether the full model holds a power, discharge positive, inside the limits; steps of half a second."""
    at = np.array([kelvin])
    for _ in range(int(horizon_s / 0.5)):
        emf_V, ohm = (float(x[0]) for x in bank.thevenin(at, 0.5))
        root = emf_V * emf_V - 4.0 * ohm * power_W
        if root <= 0.0:
            return False
        amps = (emf_V - np.sqrt(root)) / (2.0 * ohm)
        bank.step(np.array([amps]), at, 0.5)
        volts = float(bank.pack_voltage_V[0])
        if power_W > 0.0 and (
            volts < limits["voltage_min_V"] or amps > limits["discharge_A"] or bank.soc[0] < 0.0
        ):
            return False
        if power_W < 0.0 and (
            volts > limits["voltage_max_V"] or -amps > limits["charge_A"] or bank.soc[0] > 1.0
        ):
            return False
    return True


@pytest.mark.parametrize("name", ["lgm50_chen2020", "lghg2_measured"])
@pytest.mark.parametrize(("kelvin", "soc"), [(266.0, 0.25), (283.15, 0.6), (298.15, 0.12), (313.15, 0.9)])
def test_power_is_that_of_bisection_on_the_full_model(name, kelvin, soc):
    """Within 3 %, never more than 1 % too much; after ten minutes of discharge, so not from rest."""
    design = cell(name)
    one_c = design.capacity_Ah
    limits = {
        "voltage_min_V": design.voltage_min_V + 0.15,
        "voltage_max_V": design.voltage_max_V,
        "discharge_A": 4.0 * one_c,
        "charge_A": 1.5 * one_c,
        "temperature_max_K": 350.0,
        "heat_J_per_K": design.heat_capacity_J_per_K,
        "temperature_K": kelvin,
        "n_groups": 1.0,
    }
    bank = EcmBank(design, ONE, soc + 0.03, temperature_K=kelvin)
    estimator = NativeEstimator(default_parameters(one_c, _sheet(name)), soc + 0.03, 1e-4, one_c)
    frames = [[0.0, 0.0, 0.0, 0.0, kelvin]] + [[1.0, 0.18 * one_c, 0.18 * one_c, 0.0, kelvin]] * 600
    estimator.play(frames)
    for _ in range(600):
        bank.step(np.array([0.18 * one_c]), np.array([kelvin]), 1.0)
    state = bank.get_state()
    for word, (promised_W, _) in estimator.power(limits).items():
        sign = 1.0 if word.startswith("discharge") else -1.0
        horizon_s = 10.0 if word.endswith("10s") else 60.0
        low, high = 0.0, limits["voltage_max_V"] * limits["discharge_A" if sign > 0 else "charge_A"]
        for _ in range(11):
            middle = 0.5 * (low + high)
            bank.set_state(state)
            held = constant_power(bank, sign * middle, horizon_s, kelvin, limits)
            low, high = (middle, high) if held else (low, middle)
        assert promised_W < 1.01 * low + 0.02, word
        assert promised_W > 0.97 * low - 0.02, word
