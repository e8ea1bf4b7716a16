"""State of health and the groups' deviations, on cells that are known because the test makes them."""

import numpy as np
import pytest

from bms_emulator.firmware.estimators import EstimatorError, NativeEstimator, default_parameters, rows

KELVIN, CAPACITY_AH = 298.15, 5.0
PARAMS = default_parameters(CAPACITY_AH)
OCV_V = np.asarray(PARAMS["est_ocv_V"], dtype=float)
# The grid of the open circuit, told by a filter that sees each of its voltages at rest.
GRID = np.array(
    [
        NativeEstimator(PARAMS, 0.5, 0.4, CAPACITY_AH).play([[5.0, 0.0, 0.0, v, KELVIN]] * 400)["soc"][-1]
        for v in OCV_V
    ]
)


def aged_cell(current_A, dt_s, soc, capacity=0.85, resistance=1.3):
    """Voltages of the default circuit with less capacity and more resistance, and its state of charge."""
    r0, r1, r2 = (
        np.asarray(PARAMS[f"est_resistance{k}_ohm"], dtype=float).reshape(7, 13)[4, 6] * resistance
        for k in (0, 1, 2)
    )
    v1 = v2 = 0.0
    volts, charge = [], []
    for amps, dt in zip(current_A, dt_s, strict=True):
        soc -= amps * dt / (3600.0 * CAPACITY_AH * capacity)
        a1, a2 = np.exp(-dt / 30.0), np.exp(-dt / 250.0)
        v1, v2 = a1 * v1 + r1 * (1 - a1) * amps, a2 * v2 + r2 * (1 - a2) * amps
        volts.append(np.interp(soc, GRID, OCV_V) - v1 - v2 - r0 * amps)
        charge.append(soc)
    return np.array(volts), np.array(charge)


def run(estimator, current_A, dt_s, volts):
    frames = np.stack([dt_s, current_A, current_A, volts, np.full(dt_s.size, KELVIN)], axis=1)
    return estimator.play(frames)


def test_capacity_between_two_rests_within_its_sigma():
    """Two hours of rest, a discharge by 60 %, two hours of rest: three times over."""
    rest, discharge, charge = np.zeros(720), np.full(600, 1.53), np.full(600, -1.53)
    current_A = np.concatenate([rest, discharge, rest, charge, rest, discharge, rest])
    dt_s = np.full(current_A.size, 10.0)
    volts, _ = aged_cell(current_A, dt_s, 0.9)
    estimator = NativeEstimator(PARAMS, 0.9, 0.02, CAPACITY_AH)
    assert estimator.state["capacity_ratio"] == 1.0
    run(estimator, current_A, dt_s, volts)
    ratio, sigma = estimator.state["capacity_ratio"], estimator.state["capacity_sigma"]
    assert ratio == pytest.approx(0.85, abs=0.03)
    assert 0.005 < sigma < 0.05
    assert abs(ratio - 0.85) < 2.5 * sigma


def test_resistance_from_steps_of_the_current_within_its_sigma():
    rng = np.random.default_rng(3)
    current_A = np.repeat(rng.choice([-4.0, 0.0, 3.0, 7.0], 120), 15)
    dt_s = np.ones(current_A.size)
    volts, _ = aged_cell(current_A, dt_s, 0.8, capacity=1.0)
    estimator = NativeEstimator(PARAMS, 0.8, 0.05, CAPACITY_AH)
    run(estimator, current_A, dt_s, volts + rng.normal(0.0, 0.001, volts.size))
    ratio, sigma = estimator.state["resistance_ratio"], estimator.state["resistance_sigma"]
    assert ratio == pytest.approx(1.3, abs=0.06)
    assert abs(ratio - 1.3) < 3.0 * sigma + 0.02


def test_without_rest_or_steps_nothing_is_claimed():
    estimator = NativeEstimator(PARAMS, 0.8, 0.05, CAPACITY_AH)
    run(estimator, np.full(100, 0.5), np.ones(100), np.full(100, 3.95))
    state = estimator.state
    assert (state["capacity_ratio"], state["resistance_ratio"]) == (1.0, 1.0)
    assert state["anchor_sigma"] == 0.0
    assert state["step_n"] == 0.0


def groups(n_steps, deviation, bled_As=None):
    """Run ten groups at rest in the steep part; returns the estimator."""
    estimator = NativeEstimator(PARAMS, 0.6, 0.05, CAPACITY_AH)
    charge = 0.6 + deviation
    bled = np.zeros(deviation.size, dtype=np.uint32)
    for k in range(n_steps):
        if bled_As is not None:
            bled = np.round(1e3 * bled_As * (k + 1) / n_steps).astype(np.uint32)
        now = charge - bled * 1e-3 / (3600.0 * CAPACITY_AH)
        volts = np.interp(now, GRID, OCV_V)
        cells = np.round(1e4 * volts).astype(np.uint16)
        mean_V = float(np.mean(volts))
        estimator.step([10.0 if k else 0.0, 0.0, 0.0, mean_V, KELVIN], cells, bled)
    return estimator


def test_each_group_is_found_by_its_deviation_from_the_mean():
    deviation = np.linspace(-0.04, 0.04, 10)
    state = groups(1500, deviation).state
    assert np.max(np.abs(state["delta"] - deviation)) < 0.006
    assert state["delta_min"] == pytest.approx(-0.04, abs=0.006)
    assert state["delta_max"] == pytest.approx(0.04, abs=0.006)


def test_what_balancing_takes_is_booked_at_once():
    """A group bled by 2 % of its charge stands 2 % lower, whatever its voltage has had time to say."""
    bled_As = np.zeros(10)
    bled_As[3] = 0.02 * 3600.0 * CAPACITY_AH
    delta = groups(20, np.zeros(10), bled_As).state["delta"]
    assert delta[3] - np.mean(np.delete(delta, 3)) == pytest.approx(-0.02, abs=0.001)


def test_a_dead_channel_moves_no_other_group():
    estimator = NativeEstimator(PARAMS, 0.6, 0.05, CAPACITY_AH)
    cells = np.full(6, round(1e4 * float(np.interp(0.6, GRID, OCV_V))), dtype=np.uint16)
    cells[2] = 65535
    for _ in range(200):
        estimator.step([10.0, 0.0, 0.0, cells[0] * 1e-4, KELVIN], cells)
    assert np.max(np.abs(estimator.state["delta"])) < 1e-3


def test_a_missing_voltage_leaves_the_count_alone():
    estimator = NativeEstimator(PARAMS, 0.5, 0.01, CAPACITY_AH)
    out = estimator.play([[0.0, 2.5, 2.5, 0.0, KELVIN]] + [[1.0, 2.5, 2.5, 0.0, KELVIN]] * 3600)
    assert out["soc"][-1] == pytest.approx(0.0, abs=1e-5)
    assert out["soc_sigma"][-1] > out["soc_sigma"][0]


def test_a_small_current_is_counted_exactly():
    """0.2 mA in steps of a second is less than half an ulp of the charge; a day of it is 0.1 %."""
    estimator = NativeEstimator(PARAMS, 0.9, 1e-4, CAPACITY_AH)
    out = estimator.play([[0.0, 0.0, 0.0, 0.0, KELVIN]] + [[1.0, 2e-4, 2e-4, 0.0, KELVIN]] * 86_400)
    assert 0.9 - out["soc"][-1] == pytest.approx(2e-4 * 24.0 / CAPACITY_AH, rel=0.01)


@pytest.mark.parametrize("name", list(rows()))
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e9])
def test_parameters_out_of_range_are_refused_by_name(name, value):
    count = rows()[name][0]
    values = np.atleast_1d(np.array(PARAMS[name], dtype=float))
    values[count // 2] = value
    with pytest.raises(EstimatorError, match=name):
        default_parameters(CAPACITY_AH, {name: values})


def test_an_open_circuit_that_falls_is_refused():
    falling = OCV_V.copy()
    falling[20] = falling[19]
    with pytest.raises(EstimatorError, match=r"est_ocv_V\[20\] does not rise"):
        default_parameters(CAPACITY_AH, {"est_ocv_V": falling})


def whole(state):
    """Every figure of the context a number, the covariance one with variances."""
    figures = [np.asarray(state[name], dtype=float) for name in state if name not in ("bled_mAs", "power")]
    numbers = all(np.isfinite(figure).all() for figure in figures)
    return numbers and (np.diag(state["cov"]) >= 0.0).all() and (np.abs(state["delta"]) <= 1.0).all()


def garbage(seed, n):
    """Frames no pack has ever shown: hours between samples, 50 kA, 0 to 6.5 V, 150 to 500 K."""
    rng = np.random.default_rng(seed)
    dt_s = 10 ** rng.uniform(-2, 4, n) * (rng.random(n) > 0.02)
    amps = rng.normal(0, 1, n) * 10 ** rng.uniform(-3, 4.7, n)
    volts = rng.uniform(0, 6.5, n) * (rng.random(n) > 0.1)
    frames = np.stack([dt_s, amps, amps * rng.uniform(0.5, 1.5, n), volts, rng.uniform(150, 500, n)], axis=1)
    return (
        frames,
        rng.integers(0, 65536, (n, 112)).astype(np.uint16),
        rng.integers(0, 2**32, (n, 112), dtype=np.uint32),
    )


@pytest.mark.parametrize("seed", range(12))
def test_garbage_leaves_numbers_behind(seed):
    rng = np.random.default_rng(seed)
    changes = {"est_hysteresis_V": rng.random(13) * 0.1, "est_hysteresis_rate": 10 ** rng.uniform(0, 4)}
    if seed % 3 == 0:
        changes |= {"est_fast_s": 0.0, "est_voltage_sigma_V": 1e-5, "est_slow_share": float(seed % 2)}
    estimator = NativeEstimator(default_parameters(5.0, changes), rng.random(), 0.1, 10 ** rng.uniform(-1, 3))
    for frame, cells, bled in zip(*garbage(seed, 200), strict=True):
        estimator.step(frame, cells, bled)
    state = estimator.state
    assert whole(state)
    assert 0.0 <= state["soc_sigma"] < 2.0
    assert -0.05 <= state["x"][0] <= 1.05


def test_a_flipped_bit_is_survived():
    """Any bit of the filter's own memory: two hours of rest later it knows the charge again."""
    rng = np.random.default_rng(1)
    volts = float(np.interp(0.6, GRID, OCV_V))
    frames = [[10.0, 0.0, 0.0, volts, KELVIN]] * 720
    for _ in range(60):
        estimator = NativeEstimator(PARAMS, 0.6, 0.05, CAPACITY_AH)
        estimator.play(frames[:10])
        word = int(rng.integers(0, 58))  # states, covariance, sums of the filter
        estimator.context.view(np.uint32)[word] ^= np.uint32(1 << int(rng.integers(0, 32)))
        out = estimator.play(frames)
        assert whole(estimator.state), word
        assert abs(out["soc"][-1] - 0.6) < max(0.02, 3.0 * float(out["soc_sigma"][-1])), word
