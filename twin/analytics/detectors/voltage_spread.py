"""A series group whose voltage leaves the others in a way that load and charge do not explain.

Every group differs from its neighbours a little, and lawfully: its channel has an offset, its cells
have another resistance, another state of charge and another capacity. With the open-circuit curve U of
the data sheet the voltage of group g is

    V_g = U(soc + d_g) + offset_g - R_g·I - R1_g·I_1 - R2_g·I_2,    d_g = x_g + k_g·(soc - soc_0) - u_g

where I_1, I_2 are the current through low-passes of one and fifteen minutes (polarisation), x the
difference of state of charge, k that of capacity, and u_g the charge that its bleed resistor took (known
from its flags, so balancing neither raises nor hides an alert). Of each of these only the difference to
the pack's median group shows, and all are learnt by regularised least squares with a long memory; the
groups share the regressors, hence one small matrix. Where the pack stands on the curve is learnt beside
it, as the bias of the BMS's estimate together with the common resistance. What is common to all groups
is the value that makes the median of the residuals zero: one bad group cannot move it.

What remains is smoothed and compared with a threshold in volts. An internal short drains its group a
little every hour, which none of the terms can imitate: the residual grows until the threshold.

An alert needs all of: warm-up over; |residual| above `threshold`; far outside the spread of the other
groups' residuals (`outlier` times their robust sigma); more than could be explained by coefficients not
yet known well (a new range of charge or current) or by the curve where it bends; all this for `hold`. A
group whose residual passes half the threshold is learnt from at a tenth of the weight, so that a fault
does not become its normal. A group is not reported again before it was calm for a day, except when a
warning grows to an alarm.

Blind to: what happens to all groups alike; drains so slow that the memory learns them (threshold per
memory: 3 mV in 7 days); the flat part of an LFP curve, where the voltage says little of the charge. A
short that exists from the first minute is found later, because the warm-up takes part of it for normal.
A channel that jumps (sensor fault) is reported too: from voltages alone it is not another thing.

The defaults suit a stationary pack whose channels are sampled together (0.5 mV). In a vehicle, where 88
channels are sampled one after the other while the current moves, `threshold: 10 mV, noise: 2 mV,
load_error: 50 mV` is the setting of the test on two real cars (tests/unit/twin/test_analytics_field.py).

Ideas: deviations from the mean cell and recursive least squares, Feng, Weng, Ouyang, Sun, Applied Energy
161 (2016) 168; forgetting towards a prior, Kulhavý and Zarrop, Int. J. Control 58 (1993) 905.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from twin.analytics.detectors.base import ALARM, VOLTAGE_FAULTS, WARNING, Alert, alert
from twin.scenario.fields import quantity
from twin.telemetry.frame import Frame, PackInfo

# Prior spread of the coefficients: what a healthy pack may show before anything was learnt.
_PRIOR_OFFSET_V = 3e-3
_PRIOR_RESISTANCE = 0.1  # of a group's typical resistance, guessed as a 150 mV drop at 1 C
_DROP_AT_1C_V = 0.15
_PRIOR_SOC = 0.02
_PRIOR_CAPACITY = 0.01
_POLARISATION_S = (60.0, 900.0)

# The pack's place on its open-circuit curve.
_PRIOR_BIAS = 0.05  # of the BMS's state of charge
_BIAS_MEMORY_S = 12 * 3600.0  # counting drifts
_COMMON_ERROR_V = 5e-3  # of the curve: hysteresis, temperature
_SOC_ERROR = 0.01  # of that place, once found
_SLOPE_ERROR = 0.05  # of the curve's slope
_TYPICAL_SOC = 0.005  # difference of state of charge between groups
_DOUBTS = 3.0  # sigmas of these errors that a residual must clear
_CONFIDENCE = 5.0  # sigmas of the coefficients that it must clear

_BOUND = 4.0  # prior sigmas that a coefficient may reach
_CORRELATION_S = 900.0  # what the model gets wrong now, it still gets wrong a little later

_SOC_JUMP = 0.015  # more than the current explains, and more than a counter in whole percent
_HELD_S = 600.0  # longer than this between rows, the current in between is not known

_SUSPECT_SHARE = 0.1
_REARM_S = 86400.0
_FLAT_SLOPE_V = 0.8  # per unit of soc, for a pack whose data sheet has no open-circuit curve
_MIN_GROUPS = 4


@dataclass(frozen=True, kw_only=True)
class VoltageSpread:
    """Deviation of each series group from the pack, compensated for resistance, charge and balancing."""

    word: ClassVar[str] = "voltage_spread"
    detects: ClassVar[tuple[str, ...]] = VOLTAGE_FAULTS
    threshold_V: float = quantity(
        "voltage", "residual that gives a warning", key="threshold", default=3e-3, above=0.0
    )
    alarm_V: float = quantity(
        "voltage", "residual that gives an alarm", key="alarm", default=10e-3, above=0.0
    )
    hold_s: float = quantity("time", "how long it must last", key="hold", default=1200.0, minimum=0.0)
    warm_up_s: float = quantity(
        "time", "observed time before the first alert", key="warm_up", default=7200.0, minimum=0.0
    )
    memory_s: float = quantity(
        "time", "how long a group's normal is remembered", key="memory", default=7 * 86400.0, above=0.0
    )
    smoothing_s: float = quantity(
        "time", "time constant of the residual", key="smoothing", default=900.0, above=0.0
    )
    window_s: float = quantity(
        "time", "rows are averaged over this before use", key="window", default=60.0, minimum=0.0
    )
    noise_V: float = quantity(
        "voltage", "what a window's mean may be off at rest, 1 sigma", key="noise", default=0.5e-3, above=0.0
    )
    load_error_V: float = quantity(
        "voltage",
        "what it may be off further at 1 C, 1 sigma: weighs loaded windows down",
        key="load_error",
        default=5e-3,
        minimum=0.0,
    )
    outlier: float = quantity(
        "fraction",
        "distance from the other groups in their robust sigmas",
        key="outlier",
        default=6.0,
        minimum=0.0,
    )
    max_age_s: float = quantity(
        "time", "rows with older samples are left out", key="max_age", default=30.0, minimum=0.0
    )

    def start(self, info: PackInfo) -> VoltageSpreadState:
        """A fresh detector for this pack; ValueError when it has too few groups to compare."""
        if info.n_series < _MIN_GROUPS:
            raise ValueError(
                f"{self.word} compares series groups and needs at least {_MIN_GROUPS}; "
                f"{info.path} has {info.n_series}"
            )
        return VoltageSpreadState(self, info)


class VoltageSpreadState:
    """What was learnt of each group of one pack. Arrays are (n_series,) or (n_terms, n_series)."""

    def __init__(self, params: VoltageSpread, info: PackInfo) -> None:
        self.params = params
        n = info.n_series
        self._capacity_C = info.capacity_Ah * 3600.0
        self._bleed_S = 1.0 / info.balancing_resistance_ohm if info.balancing_resistance_ohm > 0 else 0.0
        self._curve = _Curve(info)
        drop_ohm = _DROP_AT_1C_V / info.capacity_Ah  # of a group, order of magnitude
        self._common_ohm = np.full(3, drop_ohm / 3.0)  # where learning begins
        self._common = _Regression([*(drop_ohm / 3.0 for _ in range(3)), _PRIOR_BIAS], 1, _BIAS_MEMORY_S)
        self._groups = _Regression(
            [_PRIOR_OFFSET_V, *[_PRIOR_RESISTANCE * drop_ohm] * 3, _PRIOR_SOC, _PRIOR_CAPACITY],
            n,
            params.memory_s,
        )
        # filters
        self._last_s = math.nan
        self._current_A = np.zeros(1 + len(_POLARISATION_S))  # now, and through the low-passes
        self._bled = np.zeros(n)  # share of the capacity taken by the bleed resistor
        self._soc_0 = math.nan
        self._soc_shift = 0.0
        self._soc_last = self._soc_last_s = self._last_A = math.nan
        self._window = _Window(n)
        # the decision
        self.observed_s = 0.0
        self.residual_V = np.zeros(n)
        self._doubt_V2 = np.zeros(n)  # variance of the residual from not knowing the curve
        self._weight = 0.0
        self._since_s = {WARNING: np.full(n, math.inf), ALARM: np.full(n, math.inf)}
        self._said = np.zeros(n, dtype=np.int8)  # 0 nothing, 1 warning, 2 alarm
        self._calm_s = np.full(n, -math.inf)  # when the residual was last above half the threshold

    def update(self, frame: Frame) -> Alert | None:
        """Take one measured row."""
        volts, window = frame.group_voltage_V, self._window
        self._follow(frame)
        usable = (
            math.isfinite(frame.current_A)
            and math.isfinite(frame.soc_bms)
            and not frame.sample_age_s > self.params.max_age_s
            and int(np.isfinite(volts).sum()) > volts.size // 2
        )
        if not usable:
            return None
        said = None
        if window.count and frame.t_s - window.start_s >= self.params.window_s:
            said = self._close_window(frame)
            window = self._window
        if window.count == 0:
            window.start_s = frame.t_s
        soc = self._steady_soc(frame)
        window.count += 1
        window.volts += volts  # a silent channel is NaN and stays so for this window
        window.current_A += self._current_A
        window.load_A += abs(frame.current_A)
        window.soc += soc
        return said

    def _steady_soc(self, frame: Frame) -> float:
        """The BMS's state of charge without the jumps by which it corrects itself."""
        moved = frame.soc_bms - self._soc_last
        flowed = -self._last_A * (frame.t_s - self._soc_last_s) / self._capacity_C
        if abs(moved - flowed) > _SOC_JUMP and frame.t_s - self._soc_last_s < _HELD_S:
            self._soc_shift -= moved - flowed
        self._soc_last, self._soc_last_s, self._last_A = frame.soc_bms, frame.t_s, frame.current_A
        soc = frame.soc_bms + self._soc_shift
        if not math.isfinite(self._soc_0):
            self._soc_0 = soc
        return soc

    def _follow(self, frame: Frame) -> None:
        """Bring polarisation and bled charge to the time of this row; inputs are held between rows."""
        gap_s = frame.t_s - self._last_s if math.isfinite(self._last_s) else 0.0
        self._last_s = frame.t_s
        current = self._current_A
        for k, tau_s in enumerate(_POLARISATION_S, start=1):
            current[k] += (current[0] - current[k]) * -math.expm1(-gap_s / tau_s)
        if math.isfinite(frame.current_A):
            current[0] = frame.current_A
        if self._bleed_S and frame.balancing.any():
            volts = np.where(np.isfinite(frame.group_voltage_V), frame.group_voltage_V, 0.0)
            self._bled += frame.balancing * volts * (self._bleed_S * gap_s / self._capacity_C)
            self._bled -= _middle(self._bled)  # only differences show

    def _close_window(self, frame: Frame) -> Alert | None:
        """Learn from the window's means, update the residual, decide."""
        params, window = self.params, self._window
        self._window = _Window(window.volts.size)
        volts, current_A = window.volts / window.count, window.current_A / window.count
        silent = ~np.isfinite(volts)
        if 2 * int(silent.sum()) >= volts.size:  # most channels silent at some time in it
            return None
        elapsed_s = min(frame.t_s - window.start_s, params.smoothing_s)  # a parked gap is one look, not many
        load = window.load_A / window.count / (self._capacity_C / 3600.0)  # C-rate
        soc_bms = window.soc / window.count
        load_V = params.load_error_V * load
        soc = self._align(_middle(volts), soc_bms, current_A, load_V, elapsed_s)

        # What is known of each group: the curve at its own charge, the rest linear.
        slope_V, bend_V = self._curve.slope(soc), self._curve.bend(soc)
        theta = self._groups.theta
        apart = theta[4] + theta[5] * (soc_bms - self._soc_0) - self._bled
        known_V = self._curve.volts(soc + apart) + theta[0] - current_A @ theta[1:4]
        error = volts - known_V
        error -= _middle(error)
        error[silent] = 0.0

        # Residual: mean with exponential memory, loaded and doubtful windows weighing less.
        curve_error = _SOC_ERROR * abs(bend_V) + _SLOPE_ERROR * slope_V  # volts per unit of soc apart
        spread_soc = max(_TYPICAL_SOC, 1.4826 * _middle(np.abs(apart)))
        variance = params.noise_V**2 + load_V**2 + (curve_error * spread_soc) ** 2
        weight = elapsed_s * params.noise_V**2 / variance
        self._weight = math.exp(-elapsed_s / params.smoothing_s) * self._weight + weight
        doubt_V = curve_error * np.maximum(np.abs(apart), _TYPICAL_SOC)
        self.residual_V += (error - self.residual_V) * (weight / self._weight)
        self._doubt_V2 += (doubt_V**2 - self._doubt_V2) * (weight / self._weight)
        self.observed_s += elapsed_s

        terms = np.array([1.0, *(-current_A), slope_V, slope_V * (soc_bms - self._soc_0)])
        warm = self.observed_s > params.warm_up_s
        said = self._decide(frame, terms) if warm else None
        # A group under suspicion learns little, so that it keeps its normal and yet is not stuck with it.
        suspect = warm & (np.abs(self.residual_V) > 0.5 * params.threshold_V)
        share = np.where(silent, 0.0, np.where(suspect, _SUSPECT_SHARE, 1.0))
        self._groups.learn(terms, error, variance, elapsed_s, share)
        return said

    def _align(
        self, middle_V: float, soc_bms: float, current_A: NDArray[np.float64], load_V: float, elapsed_s: float
    ) -> float:
        """State of charge at which the pack stands on its open-circuit curve, by its own voltage.

        The BMS's estimate may be a few percent off, which is nothing for the capacity term but matters
        where the curve bends. Its bias is learnt together with the pack's common resistance.
        """
        if not self._curve.known:
            return soc_bms
        *ohm, bias = self._common.theta[:, 0]
        soc = soc_bms + bias
        slope_V = self._curve.slope(soc)
        error = middle_V - self._curve.volts(soc) + float(current_A @ (self._common_ohm + ohm))
        variance = _COMMON_ERROR_V**2 + load_V**2
        terms = np.array([*(-current_A), slope_V])
        self._common.learn(terms, np.array([error]), variance, elapsed_s, 1.0)
        return soc_bms + float(self._common.theta[3, 0])

    def _decide(self, frame: Frame, terms: NDArray[np.float64]) -> Alert | None:
        params = self.params
        size = np.abs(self.residual_V)
        sigma = max(1.4826 * _middle(size), 0.2 * params.noise_V)  # the median residual is zero
        unknown_V = _CONFIDENCE * self._groups.sigma(terms)
        doubt_V = np.maximum(_DOUBTS * np.sqrt(self._doubt_V2), unknown_V)
        credible = (size > params.outlier * sigma) & (size > doubt_V)
        for rank, severity, threshold in ((2, ALARM, params.alarm_V), (1, WARNING, params.threshold_V)):
            over = credible & (size > threshold)
            since = self._since_s[severity]
            since[~over] = math.inf
            since[over] = np.minimum(since[over], frame.t_s)
            ready = over & (frame.t_s - since >= params.hold_s) & (self._said < rank)
            if ready.any():
                group = int(np.argmax(np.where(ready, size, 0.0)))
                self._said[group] = rank
                return self._alert(frame, severity, threshold, group)
        self._calm_s = np.where(size < 0.5 * params.threshold_V, self._calm_s, frame.t_s)
        self._said[frame.t_s - self._calm_s >= _REARM_S] = 0
        return None

    def _alert(self, frame: Frame, severity: str, threshold_V: float, group: int) -> Alert:
        residual = float(self.residual_V[group])
        side = "below" if residual < 0 else "above"
        return alert(
            frame,
            self.params.word,
            severity,
            score=abs(residual) * 1e3,
            threshold=threshold_V * 1e3,
            unit="mV",
            group=group + 1,
            text=f"group {group + 1} is {abs(residual) * 1e3:.1f} mV {side} what load and charge explain",
        )


def _middle(values: NDArray[np.float64]) -> float:
    """Median of the numbers among the values; numpy's own costs ten times as much for a hundred of them."""
    ordered = np.sort(values)  # NaN last
    count = values.size - int(np.isnan(values).sum())
    return 0.5 * float(ordered[(count - 1) // 2] + ordered[count // 2])


class _Window:
    """Sums over the rows of one averaging window."""

    def __init__(self, n_groups: int) -> None:
        self.start_s = math.nan
        self.count = 0
        self.volts = np.zeros(n_groups)
        self.current_A = np.zeros(1 + len(_POLARISATION_S))
        self.load_A = 0.0
        self.soc = 0.0


class _Regression:
    """Recursive least squares in information form, forgetting towards its prior and never below it.

    One matrix serves all columns of `theta` (n_terms, n): they see the same regressors. Starts at zero
    with the given sigmas and stays within a few of them: what is beyond is not lawful, and shows.
    """

    def __init__(self, sigmas: Sequence[float], n: int, memory_s: float) -> None:
        self._prior = np.diag(np.array(sigmas) ** -2.0)
        self._bound = _BOUND * np.array(sigmas)[:, None]
        self._information = self._prior.copy()
        self._memory_s = memory_s
        self.theta = np.zeros((len(sigmas), n))

    def learn(
        self,
        terms: NDArray[np.float64],
        error: NDArray[np.float64],
        variance: float,
        elapsed_s: float,
        share: NDArray[np.float64] | float,
    ) -> None:
        """Take one observation: `error` (n,) is what theta does not explain, `share` how far to follow."""
        variance *= max(_CORRELATION_S / elapsed_s, 1.0)
        fade = math.exp(-elapsed_s / self._memory_s)
        target = fade * (self._information @ self.theta)
        target += np.outer(terms / variance, terms @ self.theta + error)
        self._information = fade * self._information + (1.0 - fade) * self._prior
        self._information += np.outer(terms, terms) / variance
        self.theta += share * (np.linalg.solve(self._information, target) - self.theta)
        np.clip(self.theta, -self._bound, self._bound, out=self.theta)

    def sigma(self, terms: NDArray[np.float64]) -> float:
        """Of what theta predicts for these regressors."""
        return math.sqrt(float(terms @ np.linalg.solve(self._information, terms)))


class _Curve:
    """Open-circuit voltage over state of charge, going on straight beyond 0…1."""

    def __init__(self, info: PackInfo) -> None:
        self.known = len(info.ocv_soc) >= 2
        soc = np.array(info.ocv_soc if self.known else (0.0, 1.0))
        volts = np.array(info.ocv_V if self.known else (0.0, _FLAT_SLOPE_V))
        first, last = np.diff(volts[:2]) / np.diff(soc[:2]), np.diff(volts[-2:]) / np.diff(soc[-2:])
        self._soc = np.concatenate([[soc[0] - 1.0], soc, [soc[-1] + 1.0]])
        self._volts = np.concatenate([volts[0] - first, volts, volts[-1] + last])

    def volts(self, soc: Any) -> Any:
        """In V; any shape."""
        return np.interp(soc, self._soc, self._volts)

    def slope(self, soc: float) -> float:
        """dOCV/dsoc in V over 2 %, which is as well as the place is known."""
        low, high = self.volts(np.array([soc - 0.01, soc + 0.01]))
        return float(high - low) / 0.02

    def bend(self, soc: float) -> float:
        """Change of the slope per unit of soc, in V, over 4 %."""
        return (self.slope(soc + 0.02) - self.slope(soc - 0.02)) / 0.04
