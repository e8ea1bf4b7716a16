"""What a detector is.

The parameters of a detector are a frozen dataclass whose fields carry key, dimension, range and meaning
(`twin.scenario.fields`), so a scenario can set them and `twin list` can explain them. `start(info)` makes
one object with state for one pack; `update(frame)` feeds it. The same object serves a run folder read
afterwards and the loop of a running simulation. It sees the data sheet and measured rows, never truth.

A new detector is a module in this folder and a row of `DETECTORS` in `__init__.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from twin.telemetry.frame import Frame, PackInfo

WARNING = "warning"
ALARM = "alarm"

# Kinds of fault (as in the table of events) that make one series group drift from the others. An outlier
# cell that was there from the start is its group's normal, so it is not among them.
VOLTAGE_FAULTS = ("internal_short",)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One thing a detector says, once, when it begins (and again when it grows from warning to alarm)."""

    t_s: float
    site: str
    rack: str
    pack: str
    group: int | None  # series group, counting from 1; None when it concerns the pack
    detector: str
    severity: str
    score: float
    threshold: float
    unit: str
    text: str


class Detector(Protocol):
    """State of one detector for one pack."""

    def update(self, frame: Frame) -> Alert | None:
        """Take one measured row; rows come in time order."""


class DetectorParams(Protocol):
    """What a scenario chooses: parameters that can start a detector for any pack."""

    @property
    def word(self) -> str:
        """Name in the scenario and in the table of alerts."""

    @property
    def detects(self) -> tuple[str, ...]:
        """Kinds of fault it claims to find; scoring holds it to them and to no others."""

    def start(self, info: PackInfo) -> Detector:
        """A fresh detector for this pack."""


def alert(
    frame: Frame,
    detector: str,
    severity: str,
    *,
    score: float,
    threshold: float,
    unit: str,
    text: str,
    group: int | None = None,
) -> Alert:
    """An alert at the place and time of a frame."""
    return Alert(
        t_s=frame.t_s,
        site=frame.site,
        rack=frame.rack,
        pack=frame.pack,
        group=group,
        detector=detector,
        severity=severity,
        score=score,
        threshold=threshold,
        unit=unit,
        text=text,
    )
