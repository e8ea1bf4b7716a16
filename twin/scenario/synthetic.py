"""Declared random processes for `synthetic:` profiles: what they are, from whom, and their parameters.

A process is a frozen dataclass of quantities (fields.py), so its parameters are checked, documented and
listed like everything else in a scenario:

    frequency: {synthetic: grid_frequency, std: 20 mHz}

Every random number comes from the generator handed in; the same generator state gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from twin.scenario.fields import quantity

Floats = NDArray[np.float64]

# How strongly each full hour (local time of the Central European zone) pulls the frequency, and which way:
# schedules step at the hour while load ramps. While load rises (morning) the step comes early, generation
# exceeds load and the frequency jumps up; while load falls (evening) it jumps down, most at 22:00 to 24:00.
# Signs after Weissbach and Welfonder, "High frequency deviations within the European power system: origins
# and proposals for improvement", IEEE PSCE 2009, and ENTSO-E, "Deterministic frequency deviations: root
# causes and proposals for potential solutions" (2012). The relative sizes are ours, rounded, of zero mean.
HOUR_WEIGHT = np.array(
    (
        *(-0.6, -0.5, -0.3, 0.0, 0.3, 0.7, 1.0, 0.8, 0.5, 0.3, 0.3, 0.3),
        *(0.2, -0.2, -0.2, 0.2, 0.5, 0.6, 0.2, -0.3, -0.6, -0.8, -1.3, -1.1),
    )
)
HOUR_WEIGHT -= HOUR_WEIGHT.mean()

_BLOCK = 4096  # samples advanced at once; bounded again by the correlation time, see _ornstein_uhlenbeck


@dataclass(frozen=True, kw_only=True)
class GridFrequency:
    """Frequency of a large synchronous area: Ornstein–Uhlenbeck noise plus deviations at the full hour.

    Structure and time constants after Rydin Gorjão et al., "Data-driven model of the power-grid frequency
    dynamics", IEEE Access 8 (2020) 43082: primary control pulls back with c1 = 0.0083 1/s (correlation time
    120 s), a step of scheduled power at the hour rises with c1 and is worked off by secondary control with
    c2/c1 = 0.0036 1/s (277 s). Total standard deviation 20 mHz: continental Europe 2015–2020, e.g. Schäfer
    et al., Nature Energy 3 (2018) 119. Not modelled: heavy tails from outages, 15-minute steps, seasons.
    """

    nominal_Hz: float = quantity("frequency", "nominal frequency", key="nominal", default=50.0, above=0.0)
    std_Hz: float = quantity(
        "frequency", "standard deviation of the whole signal", key="std", default=0.020, minimum=0.0
    )
    correlation_time_s: float = quantity(
        "time",
        "correlation time of the noise (1/c1)",
        key="correlation_time",
        default=120.0,
        minimum=1.0,
        maximum=86400.0,
    )
    hourly_peak_Hz: float = quantity(
        "frequency",
        "mean absolute peak of the deviation at the full hour",
        key="hourly_peak",
        default=0.025,
        minimum=0.0,
    )
    recovery_time_s: float = quantity(
        "time",
        "time constant of secondary control (c1/c2)",
        key="recovery_time",
        default=277.0,
        minimum=2.0,
        maximum=3600.0,
    )
    step_s: float = quantity("time", "grid of the series", key="step", default=1.0, minimum=0.1, maximum=60.0)

    def mistakes(self) -> list[tuple[str, str]]:
        """Combinations that cannot be: (key, message)."""
        if self.recovery_time_s == self.correlation_time_s:
            return [("recovery_time", "equals correlation_time; the response to a step needs two rates")]
        hourly = _hourly_variance(self)
        if hourly > self.std_Hz**2:
            least = 1000.0 * np.sqrt(hourly)
            return [("std", f"is below what the hourly deviations alone make ({least:.1f} mHz)")]
        return []

    def series(self, rng: np.random.Generator, duration_s: float, start: datetime) -> tuple[Floats, Floats]:
        """time_s and frequency in Hz on the grid 0, step, … ≥ duration, (n,) each."""
        n = int(np.ceil(duration_s / self.step_s - 1e-9)) + 1
        time_s = np.arange(n, dtype=np.float64) * self.step_s
        noise_std_Hz = np.sqrt(self.std_Hz**2 - _hourly_variance(self))
        value = _ornstein_uhlenbeck(rng, n, self.step_s / self.correlation_time_s) * noise_std_Hz
        value += self._hourly(rng, time_s, start)
        value += self.nominal_Hz
        return time_s, value

    def _hourly(self, rng: np.random.Generator, time_s: Floats, start: datetime) -> Floats:
        """Sum of the responses to the steps at each full hour, from 3 hours before the start."""
        into_hour_s = start.minute * 60 + start.second + start.microsecond * 1e-6
        hours = int(np.ceil((time_s[-1] + into_hour_s) / 3600.0)) + 4
        jitter = rng.standard_normal(hours)
        value = np.zeros_like(time_s)
        scale = self.hourly_peak_Hz / _mean_size()
        for k in range(hours):
            step_at_s = (k - 3) * 3600.0 - into_hour_s
            # Calendar times are UTC; the weights belong to CET, an hour ahead.
            weight = HOUR_WEIGHT[(start.hour + k - 3 + 1) % 24] + _JITTER * jitter[k]
            first = int(np.searchsorted(time_s, step_at_s))
            last = int(np.searchsorted(time_s, step_at_s + 3 * 3600.0))
            if first < last:
                value[first:last] += scale * weight * _response(self, time_s[first:last] - step_at_s)
        return value


PROCESSES: dict[str, type] = {"grid_frequency": GridFrequency}

_JITTER = 0.5  # day-to-day scatter of an hour's step, in units of HOUR_WEIGHT (ours)


def _mean_size() -> float:
    """Mean of |weight + jitter| over the day and the scatter (mean of a folded normal)."""
    w, s = HOUR_WEIGHT, _JITTER
    phi = np.exp(-0.5 * (w / s) ** 2) * s * np.sqrt(2.0 / np.pi)
    return float(np.mean(phi + np.abs(w) * _erf(np.abs(w) / (s * np.sqrt(2.0)))))


def _erf(x: Floats) -> Floats:
    """Error function; Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7."""
    t = 1.0 / (1.0 + 0.3275911 * x)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.asarray(1.0 - poly * np.exp(-x * x))


def _response(p: GridFrequency, t_s: Floats) -> Floats:
    """Deviation after a step of power at t = 0, scaled to a peak of 1."""
    fast, slow = p.correlation_time_s, p.recovery_time_s
    peak_at = np.log(slow / fast) * fast * slow / (slow - fast)
    peak = np.exp(-peak_at / slow) - np.exp(-peak_at / fast)
    return np.asarray((np.exp(-t_s / slow) - np.exp(-t_s / fast)) / peak)


def _hourly_variance(p: GridFrequency) -> float:
    """Variance over time of the hourly part; the tails of neighbouring hours barely overlap and are
    counted with their mean product.

    Hz^2. One day of the mean pattern on a 10 s grid; jitter adds its own share, independent between hours.
    """
    if p.hourly_peak_Hz == 0.0:
        return 0.0
    t_s = np.arange(0.0, 3 * 3600.0, 10.0)
    shape = _response(p, t_s)
    scale = p.hourly_peak_Hz / _mean_size()
    day = np.zeros(8640)
    for hour in range(24):
        day[(np.arange(t_s.size) + hour * 360) % 8640] += HOUR_WEIGHT[hour] * shape
    jitter = _JITTER**2 * float(np.sum(shape**2)) / 360.0
    return float(scale**2 * (np.mean(day**2) + jitter))


def _ornstein_uhlenbeck(rng: np.random.Generator, n: int, ratio: float) -> Floats:
    """Unit-variance stationary AR(1) with correlation exp(-ratio) per sample, exact in distribution.

    x[k] = a x[k-1] + sqrt(1 - a^2) w[k], solved a block at a time as a^k (x0 + cumsum(w a^-k)); the block is
    short enough that a^-k stays below e^20, which costs no accuracy that a random signal would show.
    """
    a = np.exp(-ratio)
    block = int(max(1, min(_BLOCK, 20.0 / ratio)))
    x = rng.standard_normal(n)
    x[1:] *= np.sqrt(1.0 - a * a)
    growth = np.exp(ratio * np.arange(1, block + 1))
    last = x[0]
    for k in range(1, n, block):
        part = x[k : k + block]
        g = growth[: part.size]
        part[:] = (last + np.cumsum(part * g)) / g
        last = part[-1]
    return x
