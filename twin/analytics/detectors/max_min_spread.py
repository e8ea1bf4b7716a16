"""The trivial baseline: alert when the highest and the lowest group voltage are too far apart.

What a data-sheet BMS does. It compensates nothing, so its threshold must clear the ordinary spread of
resistance under load and of state of charge; every other detector is scored against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twin.analytics.detectors.base import ALARM, VOLTAGE_FAULTS, WARNING, Alert, alert
from twin.scenario.fields import quantity
from twin.telemetry.frame import Frame, PackInfo


@dataclass(frozen=True, kw_only=True)
class MaxMinSpread:
    """Fixed threshold on the difference between the highest and the lowest series-group voltage."""

    word: ClassVar[str] = "max_min_spread"
    detects: ClassVar[tuple[str, ...]] = VOLTAGE_FAULTS
    threshold_V: float = quantity(
        "voltage", "difference that gives a warning", key="threshold", default=50e-3, above=0.0
    )
    alarm_V: float = quantity(
        "voltage", "difference that gives an alarm", key="alarm", default=150e-3, above=0.0
    )
    hold_s: float = quantity("time", "how long it must last", key="hold", default=60.0, minimum=0.0)

    def start(self, info: PackInfo) -> MaxMinSpreadState:
        """A fresh detector for this pack."""
        return MaxMinSpreadState(self, info)


class MaxMinSpreadState:
    """Time above each threshold, and what was already said."""

    def __init__(self, params: MaxMinSpread, info: PackInfo) -> None:
        self._params = params
        self._info = info
        self._since_s: dict[str, float] = {}
        self._said = ""

    def update(self, frame: Frame) -> Alert | None:
        """Take one measured row."""
        volts = frame.group_voltage_V
        known = np.isfinite(volts)
        if not known.any():
            return None
        spread = float(
            np.max(volts, where=known, initial=-np.inf) - np.min(volts, where=known, initial=np.inf)
        )
        for severity, threshold in ((ALARM, self._params.alarm_V), (WARNING, self._params.threshold_V)):
            if spread < threshold:
                self._since_s.pop(severity, None)
                continue
            since = self._since_s.setdefault(severity, frame.t_s)
            if frame.t_s - since >= self._params.hold_s and self._said not in (ALARM, severity):
                self._said = severity
                group = int(np.nanargmax(np.abs(volts - np.nanmedian(volts)))) + 1  # farthest from the middle
                return alert(
                    frame,
                    self._params.word,
                    severity,
                    score=spread * 1e3,
                    threshold=threshold * 1e3,
                    unit="mV",
                    group=group,
                    text=f"group {group}: highest and lowest voltage differ by {spread * 1e3:.1f} mV",
                )
        if spread < 0.8 * self._params.threshold_V:
            self._said = ""
        return None
