"""Estimators of the state of charge against what they must be by construction."""

import dataclasses

import numpy as np
import pytest

from twin.adapters.estimators import filter_tables
from twin.analytics import soc as filters
from twin.analytics.soc import DEFAULT, FilterModel, Start

KELVIN = 298.15
LINEAR = FilterModel(
    capacity_Ah=2.0,
    ocv_soc=np.array([0.0, 0.5, 1.0]),
    ocv_V=np.array([3.0, 3.5, 4.0]),
    hysteresis_V=np.zeros(2),
    entropic_V_per_K=np.zeros(2),
    hysteresis_rate=0.0,
    reference_K=KELVIN,
    table_soc=np.array([0.0, 1.0]),
    table_temperature_K=np.array([250.0, 330.0]),
    resistance0_ohm=np.full((2, 2), 0.02),
    resistance1_ohm=np.full((2, 2), 0.015),
    resistance2_ohm=np.full((2, 2), 0.01),
    time_constant1_s=np.full(2, 20.0),
    time_constant2_s=np.full(2, 400.0),
    model_sigma_V=np.full(2, 0.008),
)
# Without the scale of the resistances the model is linear; with an open gate the filter is Kalman's.
LINEAR_SETTINGS = DEFAULT._replace(scale_sigma=0.0, gate=1e9, systematic_share=0.0)


def drive(model: FilterModel, seed: int, n: int = 3000, offset_A: float = 0.0, soc: float = 1.0):
    """Time, voltage, current, temperature of the model on a random drive, and its state of charge."""
    rng = np.random.default_rng(seed)
    time_s = np.cumsum(rng.choice([0.5, 1.0, 2.0], n)) - 0.5
    current_A = np.repeat(rng.normal(0.6, 1.5, n // 20), 20) * model.capacity_Ah
    charge = soc - np.concatenate([[0.0], np.cumsum(np.diff(time_s) * current_A[1:])]) / (
        3600.0 * model.capacity_Ah
    )
    v1 = v2 = 0.0
    voltage_V = np.empty(n)
    for k in range(n):
        dt_s = time_s[k] - time_s[k - 1] if k else 0.0
        a1, a2 = np.exp(-dt_s / 20.0), np.exp(-dt_s / 400.0)
        v1 = a1 * v1 + 0.015 * (1 - a1) * current_A[k]
        v2 = a2 * v2 + 0.01 * (1 - a2) * current_A[k]
        voltage_V[k] = 3.0 + charge[k] - v1 - v2 - 0.02 * current_A[k]
    voltage_V += rng.normal(0.0, 0.003, n)
    return (time_s, voltage_V, current_A + offset_A, np.full(n, KELVIN)), charge


def slow_error(rng, time_s):
    """A model error as the filter imagines it: first-order Gauss-Markov."""
    error = np.empty(time_s.size)
    sigma_V, last = 0.6 * 0.008, rng.normal()
    for k, dt_s in enumerate(np.diff(time_s, prepend=time_s[0])):
        a = np.exp(-dt_s / 300.0)
        last = a * last + np.sqrt(1 - a * a) * rng.normal()
        error[k] = sigma_V * last
    return error


def textbook(inputs, start: Start):
    """The Kalman filter of the linear model in matrices, (I - K H) P (I - K H)' + K R K'."""
    s, m = LINEAR_SETTINGS, LINEAR
    x, cov = filters.initial(m, s, start, float(inputs[2][0]), KELVIN)
    h = np.array([1.0, 0.0, -1.0, -1.0, 0.0, 1.0, 0.0])
    charge_As = 3600.0 * m.capacity_Ah
    soc, sigma = [], []
    for k, (t, volt, amps, _) in enumerate(zip(*inputs, strict=True)):
        dt = t - inputs[0][k - 1] if k else 0.0
        if dt:
            a = np.exp(-dt / np.array([20.0, 400.0, s.offset_s, s.slow_s, s.scale_s]))
            f = np.diag([1.0, a[2], a[0], a[1], 1.0, a[3], a[4]])
            f[0, 1] = dt / 3600.0
            drift = np.array(
                [-amps * dt / charge_As, 0, 0.015 * (1 - a[0]) * amps, 0.01 * (1 - a[1]) * amps, 0, 0, 0]
            )
            x = f @ x + drift
            q = np.array(
                [
                    s.capacity_sigma * amps * dt / charge_As,
                    s.offset_sigma * np.sqrt(1 - a[2] ** 2),
                    s.resistance_sigma * 0.015 * (1 - a[0]) * amps,
                    s.resistance_sigma * 0.01 * (1 - a[1]) * amps,
                    0.0,
                    s.slow_share * 0.008 * np.sqrt(1 - a[3] ** 2),
                    0.0,
                ]
            )
            cov = f @ cov @ f.T + np.diag(q**2)
        before = inputs[2][k - 1] if k else amps
        r = (
            s.voltage_sigma_V**2
            + (1 - s.slow_share**2) * 0.008**2 * (1 + 2 * s.fast_s / (dt or 1.0))
            + (s.resistance_sigma * 0.02) ** 2 * (amps**2 + (amps - before) ** 2)
        )
        gain = cov @ h / (h @ cov @ h + r)
        x = x + gain * (volt - 3.0 - h @ x + 0.02 * amps)
        keep = np.eye(7) - np.outer(gain, h)
        cov = keep @ cov @ keep.T + r * np.outer(gain, gain)
        soc.append(x[0])
        sigma.append(np.sqrt(cov[0, 0]))
    return np.array(soc), np.array(sigma)


@pytest.mark.parametrize("estimator", ["ekf", "ukf"])
def test_on_a_linear_model_all_filters_are_the_kalman_filter(estimator):
    # Away from empty and full, where the unscented filter holds its points inside the tables.
    inputs, _ = drive(LINEAR, seed=3, soc=0.75)
    start = Start(0.65, 0.1)
    soc, sigma = textbook(inputs, start)
    inside = (soc > 0.01) & (soc < 0.99)  # what is reported ends at 0 and 1
    found = filters.ESTIMATORS[estimator](LINEAR, *inputs, start, LINEAR_SETTINGS)
    assert np.max(np.abs(found.soc - soc)[inside]) < 1e-9
    assert np.max(np.abs(found.sigma / sigma - 1.0)) < 1e-6


@pytest.mark.parametrize("estimator", ["ekf", "ukf"])
def test_sigma_covers_what_it_promises_under_a_wrong_start_and_an_offset(estimator):
    inside = []
    for seed in range(12):
        rng = np.random.default_rng(100 + seed)
        inputs, charge = drive(LINEAR, seed, offset_A=rng.normal(0.0, 0.02))
        inputs[1][:] += slow_error(rng, inputs[0])
        start = Start(float(np.clip(1.0 + rng.normal(0.0, 0.1), 0.0, 1.0)), 0.1)
        found = filters.ESTIMATORS[estimator](LINEAR, *inputs, start, DEFAULT)
        inside.append(np.abs(found.soc - charge)[::50] < 2.0 * found.sigma[::50])
    assert np.mean(inside) > 0.9


def test_a_filter_that_was_told_a_wrong_start_with_confidence_comes_back():
    inputs, charge = drive(LINEAR, seed=5)
    found = filters.ekf(LINEAR, *inputs, Start(0.7, 0.005))
    assert abs(found.soc[0] - charge[0]) > 0.2
    late = np.abs(found.soc - charge)
    assert np.max(late[1200:]) < 0.05
    assert np.max(late[2400:]) < 0.02


def test_counting_is_the_integral_and_its_sigma_grows_with_time():
    time_s = np.array([0.0, 10.0, 1000.0, 3600.0])
    current_A = np.array([5.0, 1.0, 1.0, 0.5])
    flat = np.full(4, 3.5)
    found = filters.counting(LINEAR, time_s, flat, current_A, flat + KELVIN, Start(0.8, 0.02))
    expected = 0.8 - np.array([0.0, 10.0, 1000.0, 1000.0 + 1300.0]) / 7200.0
    np.testing.assert_allclose(found.soc, expected, rtol=0, atol=1e-12)
    assert found.sigma[0] == 0.02
    assert np.all(np.diff(found.sigma) > 0.0)


@pytest.mark.parametrize("cell", ["lghg2_measured", "lgm50_chen2020"])
def test_gaps_and_uneven_sampling_do_not_disturb(cell):
    """One sample in ten, at the ends of the steps of the current."""
    model = FilterModel(**filter_tables(cell))
    model = dataclasses.replace(
        LINEAR,
        ocv_soc=model.ocv_soc,
        ocv_V=model.ocv_V,
        hysteresis_V=0 * model.ocv_V,
        entropic_V_per_K=0 * model.ocv_V,
    )
    inputs, _ = drive(LINEAR, seed=8)
    charge = 1.0 - np.concatenate([[0.0], np.cumsum(np.diff(inputs[0]) * inputs[2][1:])]) / 7200.0
    voltage_V = inputs[1] - 3.0 - charge + np.interp(charge, model.ocv_soc, model.ocv_V)
    kept = np.unique(np.concatenate([np.arange(0, 3000, 20), np.arange(19, 3000, 20)]))
    thin = filters.ekf(
        model, inputs[0][kept], voltage_V[kept], inputs[2][kept], inputs[3][kept], Start(0.95, 0.1)
    )
    inside = charge[kept] > 0.05
    assert np.max(np.abs(thin.soc - charge[kept])[inside][20:]) < 0.03
