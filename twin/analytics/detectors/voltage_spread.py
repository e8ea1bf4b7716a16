"""A series group whose voltage leaves the others in a way that load and charge do not explain.

Every group differs from its neighbours a little, and lawfully: its channel has an offset, its cells
have another resistance, another state of charge and another capacity. All of these are linear in
things the BMS measures, so they can be learnt for each group and taken away:

    V_g - V_common = offset - r·I - r_1·I_1 - r_2·I_2 + x·s(soc) + k·s(soc)·(soc - soc_0) - s(soc)·u_g

I_1, I_2 are the current through low-passes of one and fifteen minutes (polarisation), s = dOCV/dsoc of
the data sheet, x the difference of state of charge, k of capacity, and u_g what the bleed resistor has
taken out (known from its flags, so balancing neither raises nor hides an alert). The coefficients are
learnt by regularised least squares with a long memory; all groups share the regressors, hence one small
matrix. V_common is the value that makes the median of the residuals zero: one bad group cannot move it.

What remains is smoothed and compared with a threshold in volts. An internal short drains its group a
little every hour, which none of the terms can imitate: the residual grows until the threshold.

An alert needs all of: warm-up over; |residual| above `threshold`; far outside the spread of the other
groups' residuals (`outlier` times their robust sigma); more than the coefficients not yet known well
(a new range of charge or current) could explain; all this for `hold`. A group whose residual passes half
the threshold is learnt from at a tenth of the weight, so that a fault does not become its normal. A group
is not reported again before it was calm for a day, except when a warning grows to an alarm.

Blind to: what happens to all groups alike; drains so slow that the memory learns them (threshold per
memory: 3 mV in 7 days); the flat part of an LFP curve, where s is near zero. A short that exists from
the first minute is found later, because the warm-up takes part of it for normal.
A channel that jumps (sensor fault) is reported too: from voltages alone it is not another thing.

The defaults suit a stationary pack whose channels are sampled together (0.5 mV). In a vehicle, where 88
channels are sampled one after the other while the current moves, `threshold: 10 mV, noise: 2 mV,
load_error: 50 mV` is the setting of the test on two real cars (tests/unit/twin/test_analytics_field.py).

Ideas: deviations from the mean cell and recursive least squares, Feng, Weng, Ouyang, Sun, Applied Energy
161 (2016) 168; forgetting towards a prior, Kulhavý and Zarrop, Int. J. Control 58 (1993) 905.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

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
_SLOPE_ERROR = 0.1  # of dOCV/dsoc, and the difference of soc that it is multiplied with
_TYPICAL_SOC = 0.01
_SOC_BIAS_S = 7200.0
_SUSPECT_SHARE = 0.1
_REARM_S = 86400.0
_FLAT_SLOPE_V = 0.8  # per unit of soc, for a pack whose data sheet has no open-circuit curve
_MIN_GROUPS = 4
_CONFIDENCE = 5.0  # sigmas of the coefficients that a residual must clear


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
        resistance = _DROP_AT_1C_V / info.capacity_Ah  # of a group, order of magnitude
        prior = np.array(
            [_PRIOR_OFFSET_V, *[_PRIOR_RESISTANCE * resistance] * 3, _PRIOR_SOC, _PRIOR_CAPACITY]
        )
        self._prior = np.diag(prior**-2.0)
        self._information = self._prior.copy()
        self._theta = np.zeros((prior.size, n))
        self._slope_soc, self._slope_V = _slope(info)
        self._ocv_soc, self._ocv_V = np.array(info.ocv_soc), np.array(info.ocv_V)
        self._soc_bias = 0.0
        self._soc_bias_weight = 0.0
        # filters
        self._last_s = math.nan
        self._current_last_A = 0.0
        self._polarisation_A = np.zeros(len(_POLARISATION_S))
        self._bled = np.zeros(n)  # share of the capacity taken by the bleed resistor
        self._soc_0 = math.nan
        self._window = _Window(prior.size, n)
        # the decision
        self.observed_s = 0.0
        self.residual_V = np.zeros(n)
        self._weight = 0.0
        self._doubt_V2 = 0.0  # variance of the residual from not knowing the slope
        self._since_s = {WARNING: np.full(n, math.inf), ALARM: np.full(n, math.inf)}
        self._said = np.zeros(n, dtype=np.int8)  # 0 nothing, 1 warning, 2 alarm
        self._calm_s = np.full(n, -math.inf)  # when the residual was last above half the threshold

    def update(self, frame: Frame) -> Alert | None:
        """Take one measured row."""
        volts = frame.group_voltage_V
        gap_s = frame.t_s - self._last_s if math.isfinite(self._last_s) else 0.0
        self._follow(frame, gap_s)
        usable = (
            math.isfinite(frame.current_A)
            and math.isfinite(frame.soc_bms)
            and not frame.sample_age_s > self.params.max_age_s
            and int(np.isfinite(volts).sum()) > volts.size // 2
        )
        if not usable:
            return None
        said = None
        if self._window.count and frame.t_s - self._window.start_s >= self.params.window_s:
            said = self._close_window(frame)
        window = self._window
        if not math.isfinite(self._soc_0):
            self._soc_0 = frame.soc_bms
        slope = float(np.interp(frame.soc_bms + self._soc_bias, self._slope_soc, self._slope_V))
        if window.count == 0:
            window.start_s = frame.t_s
        window.count += 1
        window.volts += volts  # a silent channel is NaN and stays so for this window
        window.bled_V += slope * self._bled
        window.terms += (
            1.0,
            -frame.current_A,
            *(-self._polarisation_A),
            slope,
            slope * (frame.soc_bms - self._soc_0),
        )
        window.load_A += abs(frame.current_A)
        window.soc += frame.soc_bms
        return said

    def _follow(self, frame: Frame, gap_s: float) -> None:
        """Bring polarisation and bled charge to the time of this row; inputs are held between rows."""
        self._last_s = frame.t_s
        for k, tau_s in enumerate(_POLARISATION_S):
            self._polarisation_A[k] += (self._current_last_A - self._polarisation_A[k]) * -math.expm1(
                -gap_s / tau_s
            )
        if math.isfinite(frame.current_A):
            self._current_last_A = frame.current_A
        if self._bleed_S and frame.balancing.any():
            volts = np.where(np.isfinite(frame.group_voltage_V), frame.group_voltage_V, 0.0)
            self._bled += frame.balancing * volts * (self._bleed_S * gap_s / self._capacity_C)
            self._bled -= np.median(self._bled)  # only differences show

    def _close_window(self, frame: Frame) -> Alert | None:
        """Learn from the window's means, update the residual, decide."""
        params, n = self.params, self._window.count
        window, self._window = self._window, _Window(self._prior.shape[0], self._window.volts.size)
        volts, terms = window.volts / n, window.terms / n
        if 2 * int(np.isfinite(volts).sum()) <= volts.size:  # most channels silent at some time in it
            return None
        elapsed_s = min(frame.t_s - window.start_s, params.smoothing_s)  # a parked gap is one look, not many
        load = window.load_A / n / (self._capacity_C / 3600.0)  # C-rate
        doubt_V = _SLOPE_ERROR * _TYPICAL_SOC * terms[4]
        variance = params.noise_V**2 + (params.load_error_V * load) ** 2 + doubt_V**2
        weight = elapsed_s * params.noise_V**2 / variance
        self._align_soc(float(np.nanmedian(volts)), window.soc / n, weight)
        volts += window.bled_V / n

        error = volts - terms @ self._theta
        silent = ~np.isfinite(error)
        error -= np.nanmedian(error)
        error[silent] = 0.0

        # Residual: mean with exponential memory, loaded windows weighing less.
        keep = math.exp(-elapsed_s / params.smoothing_s)
        self._weight = keep * self._weight + weight
        self.residual_V += (error - self.residual_V) * (weight / self._weight)
        self._doubt_V2 += (doubt_V**2 - self._doubt_V2) * (weight / self._weight)
        self.observed_s += elapsed_s

        said = self._decide(frame, terms) if self.observed_s > params.warm_up_s else None

        # Learn: information form of recursive least squares, forgetting towards the prior, never below it.
        # A group under suspicion learns little, so that it keeps its normal and yet is not stuck with it.
        suspect = (np.abs(self.residual_V) > 0.5 * params.threshold_V) & (self.observed_s > params.warm_up_s)
        share = np.where(silent, 0.0, np.where(suspect, _SUSPECT_SHARE, 1.0))
        fade = math.exp(-elapsed_s / params.memory_s)
        information = fade * self._information + (1.0 - fade) * self._prior
        gain = np.outer(terms, terms) / variance
        target = fade * (self._information @ self._theta) + np.outer(
            terms / variance, terms @ self._theta + error
        )
        self._information = information + gain
        learnt = np.linalg.solve(self._information, target)
        self._theta += share * (learnt - self._theta)
        return said

    def _align_soc(self, middle_V: float, soc_bms: float, weight: float) -> None:
        """Where on the open-circuit curve the pack is, by its own voltage: the slope depends on it.

        The BMS's estimate may be a few percent off, which is nothing for the capacity term but matters
        where the slope changes. The offset between both is averaged over hours of light load.
        """
        if self._ocv_soc.size >= 2:
            seen = float(np.interp(middle_V, self._ocv_V, self._ocv_soc)) - soc_bms
            self._soc_bias_weight = min(self._soc_bias_weight, _SOC_BIAS_S) + weight
            self._soc_bias += (seen - self._soc_bias) * (weight / self._soc_bias_weight)

    def _decide(self, frame: Frame, terms: NDArray[np.float64]) -> Alert | None:
        params = self.params
        size = np.abs(self.residual_V)
        sigma = max(1.4826 * float(np.median(size)), 0.2 * params.noise_V)  # the median residual is zero
        unknown = math.sqrt(float(terms @ np.linalg.solve(self._information, terms)))
        doubt = max(_CONFIDENCE * unknown, 3.0 * math.sqrt(self._doubt_V2))
        credible = (size > params.outlier * sigma) & (size > doubt)
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


class _Window:
    """Sums over the rows of one averaging window."""

    def __init__(self, n_terms: int, n_groups: int) -> None:
        self.start_s = math.nan
        self.count = 0
        self.volts = np.zeros(n_groups)
        self.bled_V = np.zeros(n_groups)
        self.terms = np.zeros(n_terms)
        self.load_A = 0.0
        self.soc = 0.0


def _slope(info: PackInfo) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """dOCV/dsoc in V on a grid of soc, smoothed over 4 %: the BMS does not know its soc better."""
    if len(info.ocv_soc) < 2:
        return np.array([0.0, 1.0]), np.full(2, _FLAT_SLOPE_V)
    soc = np.linspace(0.0, 1.0, 101)
    ahead, behind = np.minimum(soc + 0.02, 1.0), np.maximum(soc - 0.02, 0.0)
    volts_ahead = np.interp(ahead, info.ocv_soc, info.ocv_V)
    volts_behind = np.interp(behind, info.ocv_soc, info.ocv_V)
    return soc, (volts_ahead - volts_behind) / (ahead - behind)
