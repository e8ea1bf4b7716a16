"""Simulated time: SimPy on integer microseconds, multi-rate steps, zoom windows.

The plant steps on a regular grid (`time.step`). An event (fault, trip, activation) opens a zoom window
with finer steps; when it closes, the next step ends on the regular grid again. Knots are instants that
a step must not straddle, such as the time of a fault. Every step is a whole number of firmware ticks.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import simpy

TICK_US = 10_000  # the firmware's real-time period
SECOND_US = 1_000_000


def to_us(seconds: float) -> int:
    """Microseconds on the firmware's tick grid; a time between two ticks counts as the later one."""
    return -(-round(seconds * SECOND_US) // TICK_US) * TICK_US


@dataclass
class ZoomWindow:
    start_us: int
    end_us: int
    reasons: list[str]


class Clock:
    """The SimPy environment and the step plan."""

    def __init__(self, step_s: float, zoom_step_s: float, zoom_after_s: float, duration_s: float) -> None:
        self.env = simpy.Environment(initial_time=0)
        self.step_us = to_us(step_s)
        self.zoom_step_us = min(to_us(zoom_step_s), self.step_us)
        self.zoom_after_us = to_us(zoom_after_s)
        self.end_us = to_us(duration_s)
        self.windows: list[ZoomWindow] = []
        self._knots: list[int] = []

    @property
    def now_us(self) -> int:
        return int(self.env.now)

    @property
    def now_s(self) -> float:
        return self.env.now / SECOND_US

    def add_knot(self, at_us: int) -> None:
        """No step crosses this instant."""
        if at_us not in self._knots:
            self._knots.append(at_us)
            self._knots.sort()

    def zoom(self, reason: str, at_least_s: float = 0.0) -> None:
        """Open a zoom window now, or extend the open one; at_least_s lengthens a short `zoom.after`."""
        length_us = max(self.zoom_after_us, to_us(at_least_s))
        if self.zoom_step_us >= self.step_us or length_us == 0:
            return
        now, end = self.now_us, min(self.now_us + length_us, self.end_us)
        last = self.windows[-1] if self.windows else None
        if last is not None and now <= last.end_us:
            last.end_us = max(last.end_us, end)
            if reason not in last.reasons:
                last.reasons.append(reason)
        else:
            self.windows.append(ZoomWindow(now, end, [reason]))

    @property
    def zooming(self) -> bool:
        return bool(self.windows) and self.now_us < self.windows[-1].end_us

    def next_step_us(self) -> int:
        """Length of the step that starts now."""
        now = self.now_us
        grid = self.zoom_step_us if self.zooming else self.step_us
        end = now - now % grid + grid
        if self.zooming:  # also stay on the regular grid, whose instants carry the telemetry
            end = min(end, now - now % self.step_us + self.step_us)
        knot = bisect_right(self._knots, now)
        if knot < len(self._knots):
            end = min(end, self._knots[knot])
        return min(end, self.end_us) - now
