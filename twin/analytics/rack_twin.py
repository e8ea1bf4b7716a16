"""The twin of one pack, from what its sensors said: capacity, resistance, charge, heat paths, life.

    twin = identify(info, model, telemetry)          # raises NotInformative when the data cannot tell
    twin.capacity, twin.resistance, twin.soc         # (n_groups,) each with its sigma
    twin.voltage(start, current_A, temperature_K, dt_s)
    remaining_life(twin.capacity_left, loss_curve, stream)

Only `measured` and the data sheet enter. Each series group has an extended Kalman filter of nine states

    soc, v1, v2, h    charge, branch voltages, hysteresis of the catalogue's circuit
    ln_q, ln_r        logarithms of capacity and of all resistances over those of the catalogue: constants
    offset_V, offset_A errors of the group's voltage channel and of the current sensor: constants
    error             what the circuit does not explain, first-order Gauss-Markov

run twice, the second time from the constants the first has found (with the prior's sigma again, which is
many times that of the result, so that nothing is counted twice that matters): then every slope is taken at
the right place. The level of `error` is not assumed but chosen by the likelihood of the innovations. Where
the catalogue has open circuits of aged cells, the one of the capacity found is used.
Telemetry samples the current every few seconds; what flowed between samples is known only as well as two
neighbours agree, and enters as noise of the charge. The sigma of a result is that of the filter, plus what no
filter can see: the gain of the current sensor (for the capacity) and the temperature a cell may have beside
its sensor (for the resistance); and it is widened where thirds of the rows disagree by more than they may.

Heat paths: mean temperature of the sensors against C dT/dt = heat - G (T - ambient) - u G' (T - coolant), u
the cooling command; least squares by IPOPT over a trajectory built with CasADi. Sigma: leaving out one fifth
of the time after the other, the offset of the sensors, and what one body for a pack and its coolant is worth.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from twin.analytics.soc import N_CIRCUIT, FilterModel, _circuit, _curve, _Tables, _tables, soc_of_voltage
from twin.telemetry.frame import PackInfo

FloatArray = NDArray[np.float64]

V1, V2 = 1, 2
H, LN_Q, LN_R, OFFSET_V, OFFSET_A, ERROR = range(3, 9)
N = 9
ERROR_S = 600.0
ERROR_LEVELS_V = (1e-4, 3e-4, 6e-4, 1e-3, 1.8e-3, 3e-3, 6e-3, 1e-2, 2e-2, 4e-2)
# Near empty a circuit is poor and the cells of a group part: there a voltage counts for less.
NEAR_EMPTY, NEAR_EMPTY_V = 0.12, 0.05
PRIOR_LN_Q, PRIOR_LN_R, PRIOR_SOC = 0.2, 0.7, 0.15
# Cells in parallel that differ in resistance part in charge under load; a group then shows a capacity and a
# charge that are not quite the sums. Relative error per square of the cells' spread in resistance: 1 sigma of
# what two cells 23 % either side of their mean do (2 %), and what is left with like cells.
UNLIKE_CELLS, LIKE_CELLS = 0.4, 5e-4
BESIDE_SENSOR_K = 0.7  # a cell against the sensor nearest to it, 1 sigma
WALK_LN_Q = 1e-3 / 86400.0**0.5  # a cell fades while it is watched: 0.1 % in a day, 0.5 % in a month
AGED_ROUNDS = 8
TELLING = 0.08  # sigma below which a third of the rows has a say
LEAST_ROWS = 200
LEAST_STEPS, STEP_C = 40, 0.1  # changes of the current that show a resistance
INFORMATIVE_LN_Q, INFORMATIVE_LN_R = 0.05, 0.15  # a sigma beyond these is no identification


class NotInformative(ValueError):  # noqa: N818 - reads as what it says
    """The data cannot tell what was asked; the message says what is missing."""

    exit_code = 2


@dataclass(frozen=True)
class SensorSheet:
    """Errors of the sensors as their data sheet has them, 1 sigma."""

    voltage_noise_V: float = 0.5e-3
    voltage_offset_V: float = 0.5e-3
    current_offset_A: float = 0.01
    current_gain: float = 1e-3


@dataclass(frozen=True, eq=False)
class Telemetry:
    """Rows of one pack; current positive on discharge.

    time_s, current_A, ambient_K, cooling: (n,); group_voltage_V, balancing: (n, n_groups);
    temperature_K: (n, n_sensors). supply_K: what the coolant enters at, by
    the data sheet; None for outside air.
    """

    time_s: FloatArray
    current_A: FloatArray
    group_voltage_V: FloatArray
    temperature_K: FloatArray
    balancing: NDArray[np.bool_]
    ambient_K: FloatArray
    cooling: FloatArray
    supply_K: float | None = None

    def part(self, rows: slice) -> Telemetry:
        """Some of the rows."""
        names = [name for name in self.__dataclass_fields__ if name != "supply_K"]
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    @property
    def coolant_K(self) -> FloatArray:
        """(n,) what the coolant enters at."""
        return self.ambient_K if self.supply_K is None else np.full(self.time_s.size, self.supply_K)


@dataclass(frozen=True, eq=False)
class Value:
    """Numbers and their sigma, of one shape."""

    value: FloatArray
    sigma: FloatArray
    own: FloatArray  # relative part of sigma that is not shared with the other groups


@dataclass(frozen=True)
class HeatPaths:
    """Heat capacity of the cells and conductance to the ambient of a pack, with sigma."""

    capacity_J_per_K: float
    capacity_sigma: float
    conductance_W_per_K: float  # without cooling
    conductance_sigma: float
    cooled_W_per_K: (
        float  # to the coolant, per unit of the cooling command around `cooled_at`; NaN when unmoved
    )
    cooled_sigma: float
    cooled_at: float  # mean command while cooling ran, 0…1
    residual_K: float
    start_K: float


@dataclass(frozen=True, eq=False)
class RackTwin:
    """What is known of one pack after its telemetry.

    capacity : (n_groups,) over the catalogue's, 1 = nominal; resistance : likewise; soc : at the last row
    level_V : of the circuit's unexplained error; residual_V : (n_groups,) rms of the innovations
    """

    info: PackInfo
    model: FilterModel
    capacity: Value
    resistance: Value
    soc: Value
    state: FloatArray  # (n_groups, N) at the last row
    level_V: float
    residual_V: FloatArray
    heat: HeatPaths | None
    soc_track: FloatArray = field(repr=False)  # (n,) mean of the groups
    tables: _Tables = field(repr=False)

    @property
    def capacity_left(self) -> tuple[float, float]:
        """Mean of the groups and its sigma, that of one group: the current sensor is common to all."""
        return float(self.capacity.value.mean()), float(np.median(self.capacity.sigma))

    def spread(self, of: Value) -> tuple[float, float]:
        """Cell-to-cell spread behind a value (relative) and its sigma, errors of estimation taken off."""
        n, cells = of.value.size, np.sqrt(self.info.n_parallel)
        if n < 3:
            raise NotInformative(f"{self.info.path}: {n} groups have no spread to speak of")
        seen = float(np.log(of.value).var(ddof=1))
        spread = np.sqrt(max(seen - float(np.mean(of.own**2)), 0.0))
        error = seen * np.sqrt(2.0 / (n - 1))  # of the variance
        return float(spread * cells), float(cells * error / (2.0 * max(spread, np.sqrt(error))))

    def voltage(
        self, state: FloatArray, current_A: FloatArray, temperature_K: FloatArray, dt_s: float
    ) -> tuple[FloatArray, FloatArray]:
        """What the groups will show: ((n, n_groups) voltage, (n, n_groups) state of charge).

        state : (n_groups, N) to begin from, e.g. `self.state`; current_A, temperature_K : (n,) every dt_s
        """
        volts = np.empty((current_A.size, self.info.n_series))
        soc = np.empty_like(volts)
        per_cell = current_A / self.info.n_parallel
        for g in range(self.info.n_series):
            _simulate(self.tables, state[g].copy(), per_cell, temperature_K, dt_s, volts[:, g], soc[:, g])
        return volts, soc

    def temperature(
        self,
        start_K: float,
        heat_W: FloatArray,
        ambient_K: FloatArray,
        coolant_K: FloatArray,
        cooling: FloatArray,
        dt_s: float,
    ) -> FloatArray:
        """(n,) mean temperature of the pack under a heat (W) it makes, every dt_s."""
        if self.heat is None:
            raise NotInformative(f"{self.info.path}: its heat paths were not identified")
        more = self.heat.cooled_W_per_K if np.isfinite(self.heat.cooled_W_per_K) else 0.0
        out, T = np.empty(heat_W.size), start_K
        for k in range(heat_W.size):
            idle, cooled = self.heat.conductance_W_per_K, more * cooling[k]
            G = idle + cooled
            decay = np.exp(-G * dt_s / self.heat.capacity_J_per_K)
            settled = (heat_W[k] + idle * ambient_K[k] + cooled * coolant_K[k]) / G
            T = settled + (T - settled) * decay
            out[k] = T
        return out


# ---- the filter ----------------------------------------------------------------------------------


@njit(cache=True)
def _predict(
    t: _Tables,
    x: FloatArray,
    cov: FloatArray,
    A: float,
    before_A: float,
    T: float,
    dt_s: float,
    level_V: float,
) -> None:
    """States and covariance one interval later, in place; A the current at its end, before_A at its start."""
    p, F = np.empty(N_CIRCUIT), np.eye(N)
    _circuit(t, x[0], T, p)
    Q = t.capacity_As * np.exp(x[LN_Q])
    # Neighbouring samples: the mean of both is what flowed, half their difference how well that is known.
    mean_A, unsure_A = 0.5 * (A + before_A), 0.5 * abs(A - before_A)
    flow = (mean_A - x[OFFSET_A]) * dt_s / Q
    a1, a2 = np.exp(-dt_s / p[3]), np.exp(-dt_s / p[4])
    sign = 1.0 if mean_A < 0.0 else -1.0
    stay = np.exp(-t.hysteresis_rate * abs(flow))
    fade = np.exp(-dt_s / ERROR_S)
    F[0, LN_Q] = flow
    F[0, OFFSET_A] = dt_s / Q
    F[V1, V1], F[V2, V2] = a1, a2
    F[V1, 0], F[V2, 0] = p[7] * (1.0 - a1) * mean_A, p[8] * (1.0 - a2) * mean_A
    F[H, H] = stay
    F[ERROR, ERROR] = fade
    x[0] -= flow
    x[V1] = a1 * x[V1] + p[1] * (1.0 - a1) * mean_A
    x[V2] = a2 * x[V2] + p[2] * (1.0 - a2) * mean_A
    x[H] = sign + (x[H] - sign) * stay
    x[ERROR] *= fade
    cov[:] = F @ cov @ F.T
    g = np.zeros(N)
    g[0] = -dt_s / Q * unsure_A
    g[V1], g[V2] = p[1] * (1.0 - a1) * unsure_A, p[2] * (1.0 - a2) * unsure_A
    for i in range(3):
        for j in range(3):
            cov[i, j] += g[i] * g[j]
    cov[H, H] += 0.04 * (1.0 - stay * stay)
    cov[LN_Q, LN_Q] += WALK_LN_Q * WALK_LN_Q * dt_s
    cov[ERROR, ERROR] += level_V * level_V * (1.0 - fade * fade)


@njit(cache=True)
def _expected(t: _Tables, x: FloatArray, A: float, T: float, slope: FloatArray) -> float:
    """Voltage the states say, and its derivatives by them."""
    p = np.empty(N_CIRCUIT)
    _circuit(t, x[0], T, p)
    ocv_V, rise = _curve(t, x[0])
    grown = np.exp(x[LN_R])
    drop = x[V1] + x[V2] + p[0] * A
    slope[:] = 0.0
    slope[0] = max(rise, 1e-3) - grown * p[6] * A
    slope[V1] = slope[V2] = -grown
    slope[H] = p[9]
    slope[LN_R] = -grown * drop
    slope[OFFSET_V] = 1.0
    slope[OFFSET_A] = grown * p[0]
    slope[ERROR] = 1.0
    open_V = ocv_V + p[10] * (T - t.reference_K) + p[9] * x[H]
    return open_V - grown * (drop - p[0] * x[OFFSET_A]) + x[OFFSET_V] + x[ERROR]  # type: ignore[no-any-return]


@njit(cache=True)
def _run(
    t: _Tables,
    time_s: FloatArray,
    volt: FloatArray,
    current_A: FloatArray,
    kelvin: FloatArray,
    noise_V: float,
    level_V: float,
    x: FloatArray,
    cov: FloatArray,
    soc: FloatArray,
) -> tuple[float, float]:
    """The filter over all rows, x and cov in place; (log likelihood, mean square of the innovations)."""
    slope, likelihood, square = np.empty(N), 0.0, 0.0
    for k in range(time_s.size):
        A, T = current_A[k], kelvin[k]
        if k > 0:
            _predict(t, x, cov, A, current_A[k - 1], T, time_s[k] - time_s[k - 1], level_V)
        if np.isfinite(volt[k]):
            innovation = volt[k] - _expected(t, x, A, T, slope)
            cross = cov @ slope
            poor_V = NEAR_EMPTY_V * max(0.0, 1.0 - x[0] / NEAR_EMPTY)
            variance = float(slope @ cross) + noise_V * noise_V + poor_V * poor_V
            used = max(variance, innovation * innovation / 16.0)  # beyond 4 sigma it is believed in part
            gain = cross / used
            x += gain * innovation
            cov -= np.outer(gain, cross) + np.outer(cross, gain) - variance * np.outer(gain, gain)
            x[H] = min(max(x[H], -1.0), 1.0)
            x[0] = min(max(x[0], -0.05), 1.05)
            likelihood -= 0.5 * (np.log(variance) + innovation * innovation / variance)
            square += innovation * innovation
        soc[k] = x[0]
    return likelihood, square / time_s.size


@njit(cache=True)
def _simulate(
    t: _Tables,
    x: FloatArray,
    current_A: FloatArray,
    kelvin: FloatArray,
    dt_s: float,
    volt: FloatArray,
    soc: FloatArray,
) -> None:
    """Voltage and charge ahead, without the errors of the sensors."""
    slope, cov = np.empty(N), np.zeros((N, N))
    x[OFFSET_V] = x[OFFSET_A] = x[ERROR] = 0.0
    before_A = current_A[0]
    for k in range(current_A.size):
        _predict(t, x, cov, current_A[k], before_A, kelvin[k], dt_s, 0.0)
        volt[k] = _expected(t, x, current_A[k], kelvin[k], slope)
        soc[k] = x[0]
        before_A = current_A[k]


def _begin(
    model: FilterModel,
    sheet: SensorSheet,
    volt: float,
    cell_A: float,
    kelvin: float,
    n_parallel: int,
    constants: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """States and covariance before the first row; constants (4,) ln_q, ln_r, offset_V, offset_A."""
    p = np.empty(N_CIRCUIT)
    _circuit(_tables(model), 0.5, kelvin, p)
    x = np.zeros(N)
    x[LN_Q : OFFSET_A + 1] = constants
    x[0] = soc_of_voltage(model, volt + p[0] * np.exp(constants[1]) * cell_A)
    sigma = np.zeros(N)
    sigma[0], sigma[LN_Q], sigma[LN_R] = PRIOR_SOC, PRIOR_LN_Q, PRIOR_LN_R
    sigma[V1] = 0.003 + p[1] * abs(cell_A)
    sigma[V2] = 0.01 + p[2] * abs(cell_A)
    sigma[H] = 0.577 if model.hysteresis_V.any() else 0.0
    sigma[OFFSET_V], sigma[OFFSET_A] = sheet.voltage_offset_V, sheet.current_offset_A / n_parallel
    return x, np.diag(sigma**2)


def group_temperature(info: PackInfo, temperature_K: FloatArray) -> FloatArray:
    """(n, n_groups) from the sensors: straight between the groups they sit at, gaps filled by the others."""
    at = np.array(info.sensor_group, dtype=float)
    known = np.where(np.isfinite(temperature_K), temperature_K, np.nanmedian(temperature_K, axis=1)[:, None])
    order = np.argsort(at)
    groups = np.arange(1, info.n_series + 1)
    place = np.clip(np.searchsorted(at[order], groups), 1, max(at.size - 1, 1))
    if at.size == 1:
        return np.repeat(known, info.n_series, axis=1)
    low, high = at[order][place - 1], at[order][place]
    share = np.clip((groups - low) / (high - low), 0.0, 1.0)
    return known[:, order][:, place - 1] * (1.0 - share) + known[:, order][:, place] * share


@dataclass(frozen=True, eq=False)
class AgedCurves:
    """Open circuits of aged cells: capacity left (k,), falling; ocv_V (k, n) on the fresh cell's grid."""

    capacity: FloatArray
    ocv_V: FloatArray

    def at(self, model: FilterModel, capacity: float) -> FilterModel:
        """The cell at a capacity over nominal, between the layers."""
        layers = np.concatenate([[1.0], self.capacity])[::-1]
        curves = np.concatenate([model.ocv_V[None], self.ocv_V])[::-1]
        place = float(np.clip(capacity, layers[0], layers[-1]))
        k = int(np.clip(np.searchsorted(layers, place) - 1, 0, layers.size - 2))
        share = (place - layers[k]) / (layers[k + 1] - layers[k])
        return replace(model, ocv_V=curves[k] * (1.0 - share) + curves[k + 1] * share)


def identify(
    info: PackInfo,
    model: FilterModel,
    rows: Telemetry,
    sheet: SensorSheet | None = None,
    with_heat: bool = True,
    aged: AgedCurves | None = None,
) -> RackTwin:
    """Fit the twin of a pack; NotInformative when its rows cannot tell capacity or resistance.

    `aged`: the open circuit goes with the capacity that is found, mean of the pack; found by iteration.
    """
    sheet = sheet or SensorSheet()
    _check(info, rows)
    fresh, n_parallel = model, info.n_parallel
    kelvin = group_temperature(info, rows.temperature_K)
    bleed = rows.balancing * np.nan_to_num(rows.group_voltage_V) / info.balancing_resistance_ohm
    bleed = np.nan_to_num(bleed)
    cell_A = (rows.current_A[:, None] + bleed) / n_parallel
    n_groups = info.n_series
    noise_V = np.hypot(sheet.voltage_noise_V, 0.3e-4)  # the table rounds to 0.1 mV

    def run(
        g: int, level_V: float, constants: FloatArray, part: slice = slice(None)
    ) -> tuple[FloatArray, FloatArray, FloatArray, float, float]:
        volt = np.ascontiguousarray(rows.group_voltage_V[part, g])
        amps, warm = np.ascontiguousarray(cell_A[part, g]), np.ascontiguousarray(kelvin[part, g])
        first = int(np.flatnonzero(np.isfinite(volt))[0])
        tables = _tables(model)
        x, cov = _begin(
            model,
            sheet,
            float(volt[first]),
            float(amps[first]),
            float(warm[first]),
            n_parallel,
            constants,
        )
        track = np.empty(volt.size)
        likelihood, square = _run(
            tables,
            np.ascontiguousarray(rows.time_s[part]),
            volt,
            amps,
            warm,
            noise_V,
            level_V,
            x,
            cov,
            track,
        )
        return x, cov, track, likelihood, square

    sample = np.unique(np.linspace(0, n_groups - 1, 6).round().astype(int))
    zero = np.zeros(4)
    seen, level_V = 1.0, ERROR_LEVELS_V[-4]
    for _ in range(AGED_ROUNDS if aged is not None else 0):
        assert aged is not None
        model = aged.at(fresh, seen)
        before, seen = seen, float(np.exp(np.mean([run(int(g), level_V, zero)[0][LN_Q] for g in sample])))
        if abs(seen - before) < 5e-4:
            break
    scores = [sum(run(int(g), level, zero)[3] for g in sample) for level in ERROR_LEVELS_V]
    level_V = ERROR_LEVELS_V[int(np.argmax(scores))]
    tables = _tables(model)

    state, sigma = np.empty((n_groups, N)), np.empty((n_groups, N))
    residual, track = np.empty(n_groups), np.zeros(rows.time_s.size)
    for g in range(n_groups):
        first = run(g, level_V, zero)[0]
        constants = np.array([first[LN_Q], first[LN_R], 0.0, 0.0])
        x, cov, soc, _, square = run(g, level_V, constants)
        state[g], sigma[g], residual[g] = x, np.sqrt(np.diag(cov)), np.sqrt(square)
        track += soc / n_groups
    wider = _disagreement(run, level_V, state, sample)
    sigma[:, [0, LN_Q, LN_R]] *= wider[[0, 0, 1]]
    parted = 0.0
    if n_parallel > 1:
        cells = float(np.std(state[:, LN_R], ddof=1)) * np.sqrt(n_parallel) if n_groups > 1 else 0.0
        parted = np.hypot(LIKE_CELLS, UNLIKE_CELLS * cells**2)
    sigma[:, 0] = np.hypot(sigma[:, 0], parted)
    ln_q = np.hypot(np.hypot(sigma[:, LN_Q], parted), sheet.current_gain)
    by_kelvin = _resistance_slope(tables, float(np.median(track)), float(np.nanmedian(kelvin)))
    ln_r = np.hypot(sigma[:, LN_R], abs(by_kelvin) * BESIDE_SENSOR_K)
    _check_informative(
        info, model, rows, track, float(np.median(ln_q)), float(np.median(ln_r)), float(wider[0])
    )
    capacity, resistance = np.exp(state[:, LN_Q]), np.exp(state[:, LN_R])
    twin = RackTwin(
        info=info,
        model=model,
        capacity=Value(capacity, capacity * ln_q, sigma[:, LN_Q]),
        resistance=Value(resistance, resistance * ln_r, sigma[:, LN_R]),
        soc=Value(np.clip(state[:, 0], 0.0, 1.0), sigma[:, 0], sigma[:, 0]),
        state=state,
        level_V=level_V,
        residual_V=residual,
        heat=_heat_paths(info, tables, rows, kelvin, track) if with_heat else None,
        soc_track=track,
        tables=tables,
    )
    return twin


def _disagreement(run: Any, level_V: float, state: FloatArray, sample: NDArray[np.intp]) -> FloatArray:
    """(2,) how many times its sigma the filter is off for capacity and resistance, at least 1.

    Each third of the rows alone, with the same prior, must agree with the others within their sigmas. Where
    it does not (a flat open circuit with hysteresis: the filter's straight lines are short there), it is by
    so much too sure of the whole as well.
    """
    n, pulls = int(run(int(sample[0]), level_V, np.zeros(4))[2].size), list[FloatArray]()
    for g in sample:
        constants = np.array([state[g, LN_Q], state[g, LN_R], 0.0, 0.0])
        parts = [run(int(g), level_V, constants, slice(k * n // 3, (k + 1) * n // 3)) for k in range(3)]
        values = np.array([x[[LN_Q, LN_R]] for x, *_ in parts])
        variances = np.array([np.diag(cov)[[LN_Q, LN_R]] for _, cov, *_ in parts])
        # A third spent at rest tells nothing but its prior, with sigmas that mean as little.
        weight = np.where(variances < TELLING**2, 1.0 / variances, 0.0)
        mean = (values * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
        telling = np.maximum((weight > 0.0).sum(axis=0) - 1, 1)
        pulls.append(((values - mean) ** 2 * weight).sum(axis=0) / telling)
    return np.maximum(np.sqrt(np.mean(pulls, axis=0)), 1.0)


def _resistance_slope(t: _Tables, soc: float, kelvin: float) -> float:
    """Relative change of the whole resistance per kelvin."""
    total = []
    for T in (kelvin - 2.0, kelvin + 2.0):
        p = np.empty(N_CIRCUIT)
        _circuit(t, soc, T, p)
        total.append(p[0] + p[1] + p[2])
    return float(np.log(total[1] / total[0]) / 4.0)


def _check(info: PackInfo, rows: Telemetry) -> None:
    n = rows.time_s.size
    if n < LEAST_ROWS:
        raise NotInformative(f"{info.path}: {n} rows of telemetry; at least {LEAST_ROWS} are needed")
    silent = np.flatnonzero(np.isfinite(rows.group_voltage_V).sum(axis=0) < LEAST_ROWS)
    if silent.size:
        raise NotInformative(
            f"{info.path}: group {silent[0] + 1} has fewer than {LEAST_ROWS} voltages "
            f"({silent.size} such group(s))"
        )
    if not np.isfinite(rows.temperature_K).any(axis=1).all():
        raise NotInformative(f"{info.path}: rows without any temperature")
    if not np.isfinite(rows.current_A).all():
        raise NotInformative(f"{info.path}: rows without a current")


def _check_informative(
    info: PackInfo,
    model: FilterModel,
    rows: Telemetry,
    track: FloatArray,
    ln_q: float,
    ln_r: float,
    wider: float,
) -> None:
    """Whether capacity and resistance have been found, rather than the prior handed back."""
    span = 100.0 * float(np.ptp(track))
    steps = int((np.abs(np.diff(rows.current_A)) > STEP_C * model.capacity_Ah * info.n_parallel).sum())
    peak_C = float(np.abs(rows.current_A).max()) / (model.capacity_Ah * info.n_parallel)
    if ln_q > INFORMATIVE_LN_Q and wider > 2.0:
        raise NotInformative(
            f"{info.path}: the capacity stays open ({100 * ln_q:.0f} % sigma): thirds of the rows "
            f"disagree by {wider:.0f} times what they should; more rows, "
            "or a cell whose model fits better, are needed"
        )
    if ln_q > INFORMATIVE_LN_Q:
        raise NotInformative(
            f"{info.path}: the capacity stays open ({100 * ln_q:.0f} % sigma, "
            f"at most {100 * INFORMATIVE_LN_Q:.0f} %): "
            f"the charge moved over {span:.1f} % only; rows with a swing of some 30 % and pauses are needed"
        )
    if steps < LEAST_STEPS:
        raise NotInformative(
            f"{info.path}: the resistance stays open: the current changed by more than {STEP_C:g}C only "
            f"{steps} times; at least {LEAST_STEPS} such steps are needed"
        )
    if ln_r > INFORMATIVE_LN_R:
        raise NotInformative(
            f"{info.path}: the resistance stays open ({100 * ln_r:.0f} % sigma, "
            f"at most {100 * INFORMATIVE_LN_R:.0f} %): "
            f"the current reached {peak_C:.2f}C only; rows with steps of some 0.3C are needed"
        )


# ---- heat ----------------------------------------------------------------------------------------

HEAT_ROWS = 400
HEAT_BLOCKS = 5  # delete-a-block jackknife: what one lumped body leaves out differs from day to day
HEAT_STRUCTURE = 0.08  # relative, 1 sigma: a pack and its coolant as one body, as found on simulated packs
SENSOR_OFFSET_K = 0.3


def _heat_paths(
    info: PackInfo, t: _Tables, rows: Telemetry, kelvin: FloatArray, track: FloatArray
) -> HeatPaths | None:
    """Heat capacity and conductances of a pack; None when its temperature tells nothing about them."""
    stride = max(1, rows.time_s.size // HEAT_ROWS)
    n = rows.time_s.size // stride

    def means(values: FloatArray) -> FloatArray:
        return np.asarray(values[: n * stride].reshape(n, stride).mean(axis=1))

    heat = means(pack_heat(t, rows, kelvin, track))
    ambient, coolant, cooling = means(rows.ambient_K), means(rows.coolant_K), means(rows.cooling)
    seen = means(np.nanmean(rows.temperature_K, axis=1))
    dt_s = stride * float(np.median(np.diff(rows.time_s)))
    if np.ptp(seen - ambient) < 0.5 or not np.isfinite(ambient).all():
        return None
    moved = bool(np.ptp(cooling) > 0.02)
    fit = _HeatFit(n, dt_s, moved, 1000.0 * 0.07 * info.n_series * info.n_parallel)
    inputs = (seen, heat, ambient, coolant, cooling)
    whole = np.ones(n)
    x, residual = fit(*inputs, whole)
    offset = SENSOR_OFFSET_K / np.sqrt(rows.temperature_K.shape[1])
    if x is None:
        return None
    shifted, _ = fit(seen + offset, *inputs[1:], whole, x)
    found = []
    for block in np.array_split(np.arange(n), HEAT_BLOCKS):
        weight = whole.copy()
        weight[block] = 0.0
        without, _ = fit(*inputs, weight, x)
        if without is not None:
            found.append(without)
    if shifted is None or len(found) < HEAT_BLOCKS:
        return None
    spread = np.array(found) - np.mean(found, axis=0)
    variance = (HEAT_BLOCKS - 1) / HEAT_BLOCKS * (spread**2).sum(axis=0) + (shifted - x) ** 2
    sigma = np.sqrt(variance + HEAT_STRUCTURE**2)
    C, G0 = float(np.exp(x[0])), float(np.exp(x[1]))
    more = float(np.exp(x[3])) if moved else float("nan")
    return HeatPaths(
        capacity_J_per_K=C,
        capacity_sigma=C * float(sigma[0]),
        conductance_W_per_K=G0,
        conductance_sigma=G0 * float(sigma[1]),
        cooled_W_per_K=more,
        cooled_sigma=more * float(sigma[3]) if moved else float("nan"),
        cooled_at=float(cooling[cooling > 0.02].mean()) if moved else float("nan"),
        residual_K=residual,
        start_K=float(x[2]),
    )


class _HeatFit:
    """Least squares of the trajectory of one body, built once: unknown ln C, ln G, start, ln G of cooling."""

    def __init__(self, n: int, dt_s: float, moved: bool, guess_J_per_K: float) -> None:
        import casadi as ca

        self.n, self.moved, self.guess = n, moved, guess_J_per_K
        T, q, ambient, coolant, u = (ca.SX.sym(name) for name in ("T", "q", "ambient", "coolant", "u"))
        x = ca.SX.sym("x", 4 if moved else 3)
        G, more = ca.exp(x[1]), ca.exp(x[3]) * u if moved else ca.SX(0.0)
        settled = (q + G * ambient + more * coolant) / (G + more)
        step = settled + (T - settled) * ca.exp(-(G + more) * dt_s / ca.exp(x[0]))
        path = ca.Function("step", [T, q, ambient, coolant, u, x], [step]).mapaccum("path", n)
        unknown = ca.MX.sym("unknown", x.numel())
        given = ca.MX.sym("given", 6, n)  # seen, heat, ambient, coolant, cooling, weight
        track = path(unknown[2], given[1, :], given[2, :], given[3, :], given[4, :], ca.repmat(unknown, 1, n))
        miss = track - given[0, :]
        cost = ca.dot(given[5, :], miss * miss)
        self._rms = ca.Function("rms", [unknown, given], [ca.sqrt(ca.sumsqr(miss) / n)])
        options: Any = {"ipopt.print_level": 0, "print_time": False, "ipopt.sb": "yes", "ipopt.max_iter": 100}
        problem: Any = {"x": unknown, "p": ca.vec(given), "f": cost}
        self._solver = ca.nlpsol("heat", "ipopt", problem, options)

    def __call__(
        self,
        seen: FloatArray,
        heat: FloatArray,
        ambient: FloatArray,
        coolant: FloatArray,
        cooling: FloatArray,
        weight: FloatArray,
        begin: FloatArray | None = None,
    ) -> tuple[FloatArray | None, float]:
        """(unknowns, rms of the residual in K); None when IPOPT does not get there."""
        given = np.stack([seen, heat, ambient, coolant, cooling, weight])
        ln_C = np.log(self.guess)
        ln_G = ln_C - np.log(7200.0)
        guess = [ln_C, ln_G, float(seen[0])] + [ln_G] * self.moved
        low = [ln_C - 5.0, ln_G - 7.0, float(seen[0]) - 20.0] + [ln_G - 7.0] * self.moved
        high = [ln_C + 5.0, ln_G + 7.0, float(seen[0]) + 20.0] + [ln_G + 7.0] * self.moved
        found = self._solver(
            x0=guess if begin is None else begin, lbx=low, ubx=high, p=given.ravel(order="F")
        )
        if not self._solver.stats()["success"]:
            return None, float("nan")
        return np.array(found["x"]).ravel(), float(self._rms(found["x"], given))


def pack_heat(t: _Tables, rows: Telemetry, kelvin: FloatArray, track: FloatArray) -> FloatArray:
    """(n,) heat of all cells: current times overvoltage, less what entropy takes (Bernardi et al. 1985)."""
    out, p = np.empty(rows.time_s.size), np.empty(N_CIRCUIT)
    for k in range(rows.time_s.size):
        T = float(kelvin[k].mean())
        _circuit(t, track[k], T, p)
        open_V, _ = _curve(t, track[k])
        open_V += p[10] * (T - t.reference_K)
        over_V = open_V * kelvin.shape[1] - np.nansum(rows.group_voltage_V[k])
        out[k] = rows.current_A[k] * (over_V - T * p[10] * kelvin.shape[1])
    return out


# ---- life ----------------------------------------------------------------------------------------

PACE_SIGMA = 0.3  # a product against the tested cell whose law is used: declared, not measured


@dataclass(frozen=True)
class Life:
    """Years until the end of life under the duty seen: 5, 50 and 95 percentiles; inf beyond the curve."""

    end: float  # capacity at the end of life
    low_a: float
    median_a: float
    high_a: float


def remaining_life(
    left: tuple[float, float],
    years: FloatArray,
    loss: FloatArray,
    stream: np.random.Generator,
    end: float = 0.8,
    pace_sigma: float = PACE_SIGMA,
    n: int = 4000,
) -> Life:
    """Remaining life of a cell that has `left` (value, sigma) of its capacity.

    years, loss : (m,) the ageing law on the duty seen, from new; both grow. The law goes on from the virtual
    time at which it gives the loss of today; its pace is uncertain by `pace_sigma` (lognormal).
    """
    pace = np.exp(pace_sigma * stream.standard_normal(n))
    today = np.maximum(1.0 - (left[0] + left[1] * stream.standard_normal(n)), 0.0)
    rise = loss + 1e-12 * np.arange(loss.size)

    def when(level: FloatArray) -> FloatArray:
        return np.interp(level / pace, rise, years, right=np.inf)

    finish, now = when(np.full(n, 1.0 - end)), when(today)
    remaining = np.where(
        np.isinf(finish), np.inf, np.maximum(finish - np.where(np.isinf(now), 0.0, now), 0.0)
    )
    remaining[today >= 1.0 - end] = 0.0
    low, median, high = np.quantile(remaining, [0.05, 0.5, 0.95], method="nearest")
    return Life(end, float(low), float(median), float(high))
