"""State of charge from voltage, current and temperature: counting, extended and unscented Kalman filter.

One circuit model under all of them: open circuit with entropic term, one-state hysteresis, two branches,
resistances over state of charge and temperature. The filters carry seven states

    soc     state of charge, 0…1
    offset  error of the current sensor, as a fraction of 1C; a slow random walk
    v1, v2  voltages of the branches (V)
    h       hysteresis, -1 on the discharge branch, +1 on the charge branch
    error   slow error of the model's voltage (V), first-order Gauss-Markov
    scale   slow relative error of all resistances: age, core warmer than skin, charge transfer

The last one is what keeps the covariance honest: a circuit is wrong by some 5 to 30 mV in a way that lasts
minutes, and a filter that takes it for white noise believes in fractions of a percent after a few minutes
and then holds on to a wrong state of charge. Its spread comes from the identification (residual at each
temperature), the part that lasts seconds enters the measurement noise, scaled so that the result does not
depend on the sampling rate. An innovation beyond `gate` sigma is believed only in part; when that
persists, the filter admits it and widens the state of charge.

`firmware` of `twin estimate soc` is the same extended filter in C and float32 (app/ekf.c); the tests hold
the two together sample by sample. Joseph form (for any gain): Bucy and Joseph, Filtering for stochastic
processes (1968); the unscented filter is the cubature filter of Arasaratnam and Haykin, IEEE Trans. Autom.
Control 54 (2009) 1254: equal positive weights, so that no covariance is ever lost to a negative one.

Current positive on discharge, held over the interval before its sample; temperatures in kelvin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SOC, OFFSET, V1, V2, HYST, ERROR, SCALE = range(7)
N_STATES = 7
N_CIRCUIT = 11  # figures of _circuit
SLOPE_FLOOR_V = 0.01  # per unit of charge: a table that is flat by rounding still says which way is up
SOC_MARGIN = 0.05  # how far the state may run beyond empty and full
WATCH_S = 60.0  # memory of the watch on innovations
ADMITTED = 0.05  # what the sigma of the state of charge grows to at least when that watch speaks
SIGMA_MAX = 0.4
SCALE_MIN = -0.8
# Largest magnitude of each state, and largest sigma
STATE_MAX = np.array([1.0 + SOC_MARGIN, 0.2, 2.0, 2.0, 1.0, 0.5, 2.0])
LARGEST_SIGMA = np.array([SIGMA_MAX, 0.1, 1.0, 1.0, 1.0, 0.5, 1.0])
WIDE = 0.1  # charge over which an error of the open circuit keeps its sign
UNKNOWN_SIGMA = 0.3  # of a start nobody has stated
RELAXING1_V, RELAXING2_V = 0.003, 0.01  # what the branches may hold before the first sample


@dataclass(frozen=True, eq=False)
class FilterModel:
    """A cell as the filters see it; see `twin.adapters.estimators` for where it comes from.

    ocv_soc, ocv_V : (n,)
    table_soc, hysteresis_V, entropic_V_per_K : (m,) hysteresis_V is half the gap between the branches
    table_temperature_K : (k,), resistance*_ohm : (k, m)
    time_constant*_s, model_sigma_V : (k,) the latter is the residual of the identification
    """

    capacity_Ah: float
    ocv_soc: FloatArray
    ocv_V: FloatArray
    hysteresis_V: FloatArray
    entropic_V_per_K: FloatArray
    hysteresis_rate: float
    reference_K: float
    table_soc: FloatArray
    table_temperature_K: FloatArray
    resistance0_ohm: FloatArray
    resistance1_ohm: FloatArray
    resistance2_ohm: FloatArray
    time_constant1_s: FloatArray
    time_constant2_s: FloatArray
    model_sigma_V: FloatArray


class FilterSettings(NamedTuple):
    """What the filters believe about sensors and model; every sigma is one standard deviation.

    offset_sigma : of the current sensor, fraction of 1C; offset_s : time over which it forgets
    capacity_sigma : relative; resistance_sigma : relative, of all three
    voltage_sigma_V : of the voltage sensor
    slow_share : of the model error's sigma that is slow; slow_s, fast_s : how long the two parts last
    hysteresis_sigma : of the one-state hysteresis model
    scale_sigma, scale_s : of the common relative error of the resistances, and how long it lasts
    gate : in sigmas of the innovation
    systematic_share : of the model error's sigma that does not average out at all (an open circuit that is
        off at this charge); it enters the sigma that is reported, not the gain
    """

    offset_sigma: float = 0.01
    offset_s: float = 360_000.0
    capacity_sigma: float = 0.01
    resistance_sigma: float = 0.10
    voltage_sigma_V: float = 0.001
    slow_share: float = 0.6
    slow_s: float = 300.0
    fast_s: float = 30.0
    hysteresis_sigma: float = 0.3
    scale_sigma: float = 0.15
    scale_s: float = 300.0
    gate: float = 3.0
    systematic_share: float = 0.5


DEFAULT = FilterSettings()


class Start(NamedTuple):
    """Where an estimate begins: state of charge and its sigma."""

    soc: float
    sigma: float


class _Tables(NamedTuple):
    capacity_As: float
    soc: FloatArray
    curve: FloatArray  # (n, 2) open circuit, its smoothed slope
    hysteresis_rate: float
    reference_K: float
    table_soc: FloatArray
    table_K: FloatArray
    over_soc: FloatArray  # (m, 2) hysteresis, entropic coefficient
    ohm: FloatArray  # (k, m, 3)
    over_K: FloatArray  # (k, 3) time constants 1 and 2, sigma of the model


def node_slopes(soc: FloatArray, ocv_V: FloatArray) -> FloatArray:
    """(n,) slope of the open circuit at each node: the mean of both sides, weighted as a parabola is.

    A filter that takes the slope of the piece it stands on sees it jump from piece to piece; interpolated
    between nodes it does not.
    """
    piece = np.diff(ocv_V) / np.diff(soc)
    left, right = np.diff(soc)[:-1], np.diff(soc)[1:]
    inner = (piece[:-1] * right + piece[1:] * left) / (left + right)
    return np.concatenate([piece[:1], inner, piece[-1:]])


def _tables(model: FilterModel) -> _Tables:
    curve = np.stack([model.ocv_V, node_slopes(model.ocv_soc, model.ocv_V)], axis=1)
    over_soc = np.stack([model.hysteresis_V, model.entropic_V_per_K], axis=1)
    ohm = np.stack([model.resistance0_ohm, model.resistance1_ohm, model.resistance2_ohm], axis=-1)
    over_K = np.stack([model.time_constant1_s, model.time_constant2_s, model.model_sigma_V], axis=-1)
    return _Tables(
        capacity_As=3600.0 * model.capacity_Ah,
        soc=np.ascontiguousarray(model.ocv_soc),
        curve=np.ascontiguousarray(curve),
        hysteresis_rate=model.hysteresis_rate,
        reference_K=model.reference_K,
        table_soc=np.ascontiguousarray(model.table_soc),
        table_K=np.ascontiguousarray(model.table_temperature_K),
        over_soc=np.ascontiguousarray(over_soc),
        ohm=np.ascontiguousarray(ohm),
        over_K=np.ascontiguousarray(over_K),
    )


# ---- the model -----------------------------------------------------------------------------------


@njit(cache=True)
def _place(grid: FloatArray, x: float) -> tuple[int, float]:
    """Interval of a growing grid and the place in it, 0…1 inside and beyond that outside."""
    left = 0
    while left < grid.size - 2 and grid[left + 1] <= x:
        left += 1
    return left, (x - grid[left]) / (grid[left + 1] - grid[left])


@njit(cache=True)
def _curve(t: _Tables, soc: float) -> tuple[float, float]:
    """Open circuit (goes on as a line outside 0…1) and its slope."""
    left, share = _place(t.soc, soc)
    a, b = t.curve[left], t.curve[left + 1]
    inside = min(max(share, 0.0), 1.0)
    return a[0] + share * (b[0] - a[0]), a[1] + inside * (b[1] - a[1])


@njit(cache=True)
def _circuit(t: _Tables, soc: float, temperature_K: float, out: FloatArray) -> None:
    """What the model is at a state of charge and a temperature, constant outside the tables; (N_CIRCUIT,).

    R0, R1, R2, tau1, tau2, sigma, slopes of R0, R1, R2 over state of charge, hysteresis, entropic coefficient
    """
    i, x = _place(t.table_soc, soc)
    k, y = _place(t.table_K, temperature_K)
    x, y = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
    for c in range(3):
        cold = t.ohm[k, i + 1, c] - t.ohm[k, i, c]
        warm = t.ohm[k + 1, i + 1, c] - t.ohm[k + 1, i, c]
        out[6 + c] = (cold + y * (warm - cold)) / (t.table_soc[i + 1] - t.table_soc[i])
        cold = t.ohm[k, i, c] + x * cold
        warm = t.ohm[k + 1, i, c] + x * warm
        out[c] = cold + y * (warm - cold)
        out[3 + c] = t.over_K[k, c] + y * (t.over_K[k + 1, c] - t.over_K[k, c])
    out[9] = t.over_soc[i, 0] + x * (t.over_soc[i + 1, 0] - t.over_soc[i, 0])
    out[10] = t.over_soc[i, 1] + x * (t.over_soc[i + 1, 1] - t.over_soc[i, 1])


@njit(cache=True)
def _advance(
    t: _Tables, s: FilterSettings, x: FloatArray, current_A: float, dt_s: float, p: FloatArray
) -> None:
    """The states one step later, in place; p as of _circuit."""
    flow = current_A / t.capacity_As - x[OFFSET] / 3600.0
    a1, a2 = np.exp(-dt_s / p[3]), np.exp(-dt_s / p[4])
    x[SOC] -= flow * dt_s
    x[OFFSET] *= np.exp(-dt_s / s.offset_s)
    x[V1] = a1 * x[V1] + p[1] * (1.0 - a1) * current_A
    x[V2] = a2 * x[V2] + p[2] * (1.0 - a2) * current_A
    sign = 1.0 if current_A < 0.0 else -1.0
    x[HYST] = sign + (x[HYST] - sign) * np.exp(-t.hysteresis_rate * abs(current_A) / t.capacity_As * dt_s)
    x[ERROR] *= np.exp(-dt_s / s.slow_s)
    x[SCALE] *= np.exp(-dt_s / s.scale_s)


@njit(cache=True)
def _voltage(t: _Tables, x: FloatArray, current_A: float, temperature_K: float, p: FloatArray) -> float:
    ocv_V, _ = _curve(t, x[SOC])
    open_V = ocv_V + p[10] * (temperature_K - t.reference_K) + p[9] * x[HYST]
    return open_V + x[ERROR] - (1.0 + x[SCALE]) * (x[V1] + x[V2] + p[0] * current_A)


@njit(cache=True)
def _process_noise(
    t: _Tables, s: FilterSettings, current_A: float, dt_s: float, p: FloatArray, q: FloatArray
) -> None:
    """Variance added to each state in a step."""
    moved = abs(current_A) / t.capacity_As * dt_s
    a1, a2 = np.exp(-dt_s / p[3]), np.exp(-dt_s / p[4])
    stay = np.exp(-t.hysteresis_rate * moved)
    q[SOC] = (s.capacity_sigma * moved) ** 2
    q[OFFSET] = s.offset_sigma**2 * (1.0 - np.exp(-2.0 * dt_s / s.offset_s))
    q[V1] = (s.resistance_sigma * p[1] * (1.0 - a1) * current_A) ** 2
    q[V2] = (s.resistance_sigma * p[2] * (1.0 - a2) * current_A) ** 2
    q[HYST] = s.hysteresis_sigma**2 * (1.0 - stay * stay)
    q[SCALE] = s.scale_sigma**2 * (1.0 - np.exp(-2.0 * dt_s / s.scale_s))
    q[ERROR] = (s.slow_share * p[5]) ** 2 * (1.0 - np.exp(-2.0 * dt_s / s.slow_s))


@njit(cache=True)
def _lasting(s: FilterSettings, current_A: float, p: FloatArray) -> float:
    """Variance of what the model leaves unexplained for some seconds: fast error and resistance."""
    drop = s.resistance_sigma * p[0] * current_A
    return (1.0 - s.slow_share * s.slow_share) * p[5] * p[5] + drop * drop


@njit(cache=True)
def _voltage_noise(s: FilterSettings, current_A: float, before_A: float, dt_s: float, p: FloatArray) -> float:
    """Variance of one voltage sample against the model: sensor, fast error, resistance, a moving current.

    An error that lasts fast_s is the same in all samples of that time: taken as white, its variance grows by
    their number.
    """
    fast = (1.0 - s.slow_share * s.slow_share) * p[5] * p[5] * 2.0 * s.fast_s / max(dt_s, 1e-3)
    jump = s.resistance_sigma * p[0] * (current_A - before_A)
    return s.voltage_sigma_V**2 + _lasting(s, current_A, p) + fast + jump * jump


# ---- the filters ---------------------------------------------------------------------------------


@njit(cache=True)
def _tempered(s: FilterSettings, innovation: float, variance: float) -> float:
    """Variance of the innovation to use for the gain: what lies beyond the gate counts in part."""
    inside = innovation * innovation <= s.gate * s.gate * variance
    return variance if inside else innovation * innovation / (s.gate * s.gate)


@njit(cache=True)
def _watch(
    s: FilterSettings, innovation: float, variance: float, dt_s: float, mean: FloatArray, cov: FloatArray
) -> None:
    """Innovations that stay beyond the gate on average mean a wrong state of charge: widen it.

    variance : of the mean innovation, of states and what the model leaves unexplained for some seconds
    """
    mean[0] += min(1.0, dt_s / WATCH_S) * (innovation - mean[0])
    if mean[0] * mean[0] > s.gate * s.gate * variance:
        cov[SOC, SOC] = min(cov[SOC, SOC] + ADMITTED**2, SIGMA_MAX**2)
        mean[0] = 0.0


@njit(cache=True)
def _correct(
    x: FloatArray, cov: FloatArray, gain: FloatArray, cross: FloatArray, variance: float, innovation: float
) -> None:
    """State and covariance for any gain, cross = covariance of state and innovation (Joseph form)."""
    for i in range(N_STATES):
        x[i] += gain[i] * innovation
    for i in range(N_STATES):
        for j in range(i, N_STATES):
            value = cov[i, j] - gain[i] * cross[j] - cross[i] * gain[j] + gain[i] * variance * gain[j]
            cov[i, j] = value
            cov[j, i] = value


@njit(cache=True)
def _shear(cov: FloatArray, to: int, source: int, factor: float) -> None:
    """Covariance after state `to` has gained factor times state `source`."""
    for j in range(N_STATES):
        cov[to, j] += factor * cov[source, j]
    for j in range(N_STATES):
        cov[j, to] += factor * cov[j, source]


@njit(cache=True)
def _predict_ekf(
    t: _Tables, s: FilterSettings, x: FloatArray, cov: FloatArray, amps: float, kelvin: float, dt_s: float
) -> None:
    p, q, decay = np.empty(N_CIRCUIT), np.empty(N_STATES), np.empty(N_STATES)
    _circuit(t, x[SOC], kelvin, p)
    _process_noise(t, s, amps, dt_s, p, q)
    _advance(t, s, x, amps, dt_s, p)
    decay[SOC] = 1.0
    decay[OFFSET] = np.exp(-dt_s / s.offset_s)
    decay[V1], decay[V2] = np.exp(-dt_s / p[3]), np.exp(-dt_s / p[4])
    decay[HYST] = np.exp(-t.hysteresis_rate * abs(amps) / t.capacity_As * dt_s)
    decay[ERROR], decay[SCALE] = np.exp(-dt_s / s.slow_s), np.exp(-dt_s / s.scale_s)
    for i in range(N_STATES):
        for j in range(N_STATES):
            cov[i, j] *= decay[i] * decay[j]
    # What a state takes from another: the branches from the charge through their resistance, then the
    # charge from the offset.
    _shear(cov, V1, SOC, p[7] * (1.0 - decay[V1]) * amps)
    _shear(cov, V2, SOC, p[8] * (1.0 - decay[V2]) * amps)
    _shear(cov, SOC, OFFSET, dt_s / 3600.0 / decay[OFFSET])
    for i in range(N_STATES):
        cov[i, i] += q[i]


@njit(cache=True)
def _look_ekf(
    t: _Tables,
    x: FloatArray,
    cov: FloatArray,
    amps: float,
    kelvin: float,
    p: FloatArray,
    cross: FloatArray,
) -> tuple[float, float]:
    """Expected voltage and its variance from the states; cross = their covariance with it."""
    slope = np.empty(N_STATES)
    _, ocv_slope = _curve(t, x[SOC])
    scale = 1.0 + x[SCALE]
    # A resistance that falls with charge can hide what the open circuit says: its slope belongs in here.
    slope[SOC] = max(ocv_slope, SLOPE_FLOOR_V) - scale * p[6] * amps
    slope[OFFSET], slope[V1], slope[V2], slope[HYST] = 0.0, -scale, -scale, p[9]
    slope[ERROR], slope[SCALE] = 1.0, -(x[V1] + x[V2] + p[0] * amps)
    variance = 0.0
    for i in range(N_STATES):
        cross[i] = 0.0
        for j in range(N_STATES):
            cross[i] += cov[i, j] * slope[j]
    for i in range(N_STATES):
        variance += slope[i] * cross[i]
    return _voltage(t, x, amps, kelvin, p), variance


@njit(cache=True)
def _points(x: FloatArray, cov: FloatArray, points: FloatArray) -> None:
    """The 2 n points x ± sqrt(n) column of the square root of the covariance; (2 n, n).

    Their charge is held near 0…1: beyond the tables a point tells nothing about the cell.
    """
    root = np.zeros((N_STATES, N_STATES))
    for j in range(N_STATES):
        pivot = cov[j, j]
        for k in range(j):
            pivot -= root[j, k] * root[j, k]
        if pivot <= 0.0:  # a state without uncertainty (no hysteresis): its column is zero
            continue
        root[j, j] = np.sqrt(pivot)
        for i in range(j + 1, N_STATES):
            value = cov[i, j]
            for k in range(j):
                value -= root[i, k] * root[j, k]
            root[i, j] = value / root[j, j]
    spread = np.sqrt(float(N_STATES))
    for j in range(N_STATES):
        for i in range(N_STATES):
            points[j, i] = x[i] + spread * root[i, j]
            points[N_STATES + j, i] = x[i] - spread * root[i, j]
    for k in range(2 * N_STATES):
        points[k, SOC] = min(max(points[k, SOC], -SOC_MARGIN), 1.0 + SOC_MARGIN)


@njit(cache=True)
def _predict_ukf(
    t: _Tables, s: FilterSettings, x: FloatArray, cov: FloatArray, amps: float, kelvin: float, dt_s: float
) -> None:
    n = 2 * N_STATES
    points, p, q = np.empty((n, N_STATES)), np.empty(N_CIRCUIT), np.empty(N_STATES)
    _circuit(t, x[SOC], kelvin, p)
    _process_noise(t, s, amps, dt_s, p, q)
    _points(x, cov, points)
    for k in range(n):
        _circuit(t, points[k, SOC], kelvin, p)
        _advance(t, s, points[k], amps, dt_s, p)
    for i in range(N_STATES):
        x[i] = np.mean(points[:, i])
    for i in range(N_STATES):
        for j in range(N_STATES):
            cov[i, j] = np.mean((points[:, i] - x[i]) * (points[:, j] - x[j]))
        cov[i, i] += q[i]


@njit(cache=True)
def _look_ukf(
    t: _Tables, x: FloatArray, cov: FloatArray, amps: float, kelvin: float, cross: FloatArray
) -> tuple[float, float]:
    n = 2 * N_STATES
    points, p, seen = np.empty((n, N_STATES)), np.empty(N_CIRCUIT), np.empty(n)
    _points(x, cov, points)
    for k in range(n):
        _circuit(t, points[k, SOC], kelvin, p)
        seen[k] = _voltage(t, points[k], amps, kelvin, p)
    expected = float(np.mean(seen))
    for i in range(N_STATES):
        cross[i] = np.mean((points[:, i] - x[i]) * (seen - expected))
    return expected, float(np.mean((seen - expected) ** 2))


@njit(cache=True)
def _bound(x: FloatArray, cov: FloatArray) -> None:
    """Hold states and covariance inside what a cell can be; row and column shrink together."""
    for i in range(N_STATES):
        low = -SOC_MARGIN if i == SOC else SCALE_MIN if i == SCALE else -STATE_MAX[i]
        x[i] = min(max(x[i], low), STATE_MAX[i])
        if cov[i, i] > LARGEST_SIGMA[i] ** 2:
            factor = LARGEST_SIGMA[i] / np.sqrt(cov[i, i])
            cov[i, :] *= factor
            cov[:, i] *= factor


@njit(cache=True)
def _systematic(t: _Tables, s: FilterSettings, soc: float, sigma_V: float) -> float:
    """What an open circuit that is off by a share of the model's error does to the state of charge."""
    low, high = min(max(soc - WIDE, 0.0), 1.0 - 2.0 * WIDE), min(max(soc + WIDE, 2.0 * WIDE), 1.0)
    rise_V = _curve(t, high)[0] - _curve(t, low)[0]
    return s.systematic_share * sigma_V * (high - low) / max(rise_V, WIDE * SLOPE_FLOOR_V)


@njit(cache=True)
def _filter(
    unscented: bool,
    t: _Tables,
    s: FilterSettings,
    time_s: FloatArray,
    voltage_V: FloatArray,
    current_A: FloatArray,
    temperature_K: FloatArray,
    x: FloatArray,
    cov: FloatArray,
    state: FloatArray,
    sigma: FloatArray,
) -> None:
    """Run over a recording: state (n, N_STATES) and the sigma of the charge to report (n,)."""
    p, cross, gain, mean = np.empty(N_CIRCUIT), np.empty(N_STATES), np.empty(N_STATES), np.zeros(1)
    for n in range(time_s.size):
        dt_s = time_s[n] - time_s[n - 1] if n > 0 else 0.0
        amps, kelvin = current_A[n], temperature_K[n]
        before_A = current_A[n - 1] if n > 0 else amps
        if dt_s > 0.0:
            if unscented:
                _predict_ukf(t, s, x, cov, amps, kelvin, dt_s)
            else:
                _predict_ekf(t, s, x, cov, amps, kelvin, dt_s)
        _bound(x, cov)
        _circuit(t, x[SOC], kelvin, p)
        if unscented:
            expected, variance = _look_ukf(t, x, cov, amps, kelvin, cross)
        else:
            expected, variance = _look_ekf(t, x, cov, amps, kelvin, p, cross)
        innovation = voltage_V[n] - expected
        lasting = variance + _lasting(s, amps, p)
        variance += _voltage_noise(s, amps, before_A, dt_s if dt_s > 0.0 else 1.0, p)
        used = _tempered(s, innovation, variance)
        for i in range(N_STATES):
            gain[i] = cross[i] / used
        _correct(x, cov, gain, cross, used, innovation)
        _watch(s, innovation, lasting, dt_s, mean, cov)
        _bound(x, cov)
        state[n] = x
        sigma[n] = np.sqrt(max(cov[SOC, SOC], 0.0) + _systematic(t, s, x[SOC], p[5]) ** 2)


# ---- the door ------------------------------------------------------------------------------------


class Estimate(NamedTuple):
    """State of charge 0…1 and its sigma, (n,) each."""

    soc: FloatArray
    sigma: FloatArray


def soc_of_voltage(model: FilterModel, voltage_V: float) -> float:
    """State of charge at which the mean open circuit has this voltage, 0…1."""
    ocv_V = model.ocv_V + 1e-9 * model.ocv_soc  # a flat piece still grows
    return float(np.interp(voltage_V, ocv_V, model.ocv_soc))


def start_of(model: FilterModel, voltage_V: float, current_A: float, temperature_K: float) -> Start:
    """Where to begin when nobody says: what the first voltage suggests, with little trust in it."""
    p = np.empty(N_CIRCUIT)
    _circuit(_tables(model), 0.5, temperature_K, p)
    return Start(soc_of_voltage(model, voltage_V + p[0] * current_A), UNKNOWN_SIGMA)


def initial(
    model: FilterModel, settings: FilterSettings, start: Start, current_A: float, temperature_K: float
) -> tuple[FloatArray, FloatArray]:
    """States and covariance before the first sample; how long its current has flowed is not known."""
    p = np.empty(N_CIRCUIT)
    _circuit(_tables(model), start.soc, temperature_K, p)
    x = np.zeros(N_STATES)
    x[SOC] = start.soc
    sigma = np.zeros(N_STATES)
    sigma[SOC], sigma[OFFSET], sigma[SCALE] = start.sigma, settings.offset_sigma, settings.scale_sigma
    sigma[V1] = np.hypot(RELAXING1_V, 0.5 * p[1] * current_A)
    sigma[V2] = np.hypot(RELAXING2_V, 0.5 * p[2] * current_A)
    # Anywhere between the branches: the spread of a uniform law.
    sigma[HYST] = 3.0**-0.5 if model.hysteresis_V.any() else 0.0
    sigma[ERROR] = settings.slow_share * p[5]
    return x, np.diag(sigma**2)


def _filtered(
    unscented: bool,
    model: FilterModel,
    time_s: FloatArray,
    voltage_V: FloatArray,
    current_A: FloatArray,
    temperature_K: FloatArray,
    start: Start,
    settings: FilterSettings,
) -> Estimate:
    x, cov = initial(model, settings, start, float(current_A[0]), float(temperature_K[0]))
    state, sigma = np.empty((time_s.size, N_STATES)), np.empty(time_s.size)
    inputs = (time_s, voltage_V, current_A, temperature_K)
    _filter(unscented, _tables(model), settings, *inputs, x, cov, state, sigma)
    return Estimate(np.clip(state[:, SOC], 0.0, 1.0), sigma)


def ekf(
    model: FilterModel,
    time_s: FloatArray,
    voltage_V: FloatArray,
    current_A: FloatArray,
    temperature_K: FloatArray,
    start: Start,
    settings: FilterSettings = DEFAULT,
) -> Estimate:
    """Extended Kalman filter over a recording; arrays (n,), time growing, current positive on discharge."""
    return _filtered(False, model, time_s, voltage_V, current_A, temperature_K, start, settings)


def ukf(
    model: FilterModel,
    time_s: FloatArray,
    voltage_V: FloatArray,
    current_A: FloatArray,
    temperature_K: FloatArray,
    start: Start,
    settings: FilterSettings = DEFAULT,
) -> Estimate:
    """Unscented (cubature) Kalman filter of the same model; arguments as for `ekf`."""
    return _filtered(True, model, time_s, voltage_V, current_A, temperature_K, start, settings)


def counting(
    model: FilterModel,
    time_s: FloatArray,
    voltage_V: FloatArray,
    current_A: FloatArray,
    temperature_K: FloatArray,
    start: Start,
    settings: FilterSettings = DEFAULT,
) -> Estimate:
    """Integral of the current from the start; the voltage is not looked at.

    The sigma grows with a constant offset of the sensor and with the charge moved.
    """
    moved = np.concatenate([[0.0], np.cumsum(np.diff(time_s) * current_A[1:])]) / (3600.0 * model.capacity_Ah)
    hours = (time_s - time_s[0]) / 3600.0
    sigma = np.sqrt(
        start.sigma**2 + (settings.offset_sigma * hours) ** 2 + (settings.capacity_sigma * moved) ** 2
    )
    return Estimate(np.clip(start.soc - moved, 0.0, 1.0), sigma)


class Estimator(Protocol):
    """What every estimator of the state of charge is called like."""

    def __call__(
        self,
        model: FilterModel,
        time_s: FloatArray,
        voltage_V: FloatArray,
        current_A: FloatArray,
        temperature_K: FloatArray,
        start: Start,
        settings: FilterSettings = DEFAULT,
    ) -> Estimate:
        """State of charge over a recording."""


ESTIMATORS: dict[str, Estimator] = {"counting": counting, "ekf": ekf, "ukf": ukf}
