"""Detectors over a run: fed from the folder afterwards, or frame by frame in the loop.

    >>> watch = Watch([VoltageSpread()], run.packs)                              # doctest: +SKIP
    >>> for frame in run.frames():
    ...     alerts += watch.update(frame)

`Watch` is the observer for a running simulation; `analyse` is the same `Watch` fed from disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from twin.analytics.detectors.base import Alert, Detector, DetectorParams
from twin.telemetry.frame import Frame, PackInfo
from twin.telemetry.reader import RunFolder
from twin.telemetry.schema import TABLES

_COLUMNS = [entry.name for entry in TABLES["alerts"]]


class Watch:
    """One detector of each kind for each pack."""

    def __init__(self, detectors: Sequence[DetectorParams], packs: Iterable[PackInfo]) -> None:
        """ValueError when a detector is listed twice or cannot work on one of the packs."""
        words = [detector.word for detector in detectors]
        for word in words:
            if words.count(word) > 1:
                raise ValueError(f"detector {word} is listed twice; its alerts could not be told apart")
        self._states: dict[tuple[str, str, str], list[Detector]] = {
            (info.site, info.rack, info.pack): [detector.start(info) for detector in detectors]
            for info in packs
        }

    def update(self, frame: Frame) -> list[Alert]:
        """What the detectors say to this row; mostly nothing."""
        said = [state.update(frame) for state in self._states[(frame.site, frame.rack, frame.pack)]]
        return [alert for alert in said if alert is not None]


def analyse(run: RunFolder, detectors: Sequence[DetectorParams]) -> pd.DataFrame:
    """Alerts of all detectors over all packs of a run, in the columns of the table `alerts`."""
    watch = Watch(detectors, run.packs)
    alerts: list[Alert] = []
    if detectors:
        for frame in run.frames():
            alerts += watch.update(frame)
    return to_frame(alerts)


def to_frame(alerts: Sequence[Alert]) -> pd.DataFrame:
    """Alerts as rows of the table, ordered by time, place and detector."""
    rows: list[dict[str, Any]] = [
        {
            **{name: getattr(alert, name) for name in _COLUMNS if name != "t_us"},
            "t_us": round(alert.t_s * 1e6),
        }
        for alert in alerts
    ]
    rows.sort(key=lambda row: (row["t_us"], row["site"], row["rack"], row["pack"], row["detector"]))
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    frame["group"] = frame["group"].astype("Int32")
    return frame


def to_rows(alerts: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for `RunWriter.alerts` and `replace_alerts`."""
    return [
        {str(name): None if name == "group" and pd.isna(value) else value for name, value in row.items()}
        for row in alerts.to_dict("records")
    ]
