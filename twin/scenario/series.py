"""What every reader of data hands on: a `Series`, or a `DataError` that says file and row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.units import factor
from twin.units import offset as unit_offset

US_PER_S = 1_000_000

Instants = NDArray[np.int64]  # microseconds since 1970-01-01 UTC
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Message:
    text: str
    expected: str = ""
    guess: str | None = None


class DataError(Exception):
    """Data that cannot be used; `messages` say why."""

    def __init__(self, *messages: Message) -> None:
        super().__init__(*(m.text for m in messages))
        self.messages = messages


@dataclass(frozen=True)
class Series:
    """One time series. `time` is (n,) strictly ascending microseconds: since 1970 UTC where `dated`, since
    the beginning otherwise; `value` (n,) SI; `step_us` the usual distance of rows; `name` for messages."""

    time: Instants
    value: Floats
    dated: bool
    step_us: int
    name: str
    by_calendar: Callable[[int, int], Series] | None = None  # (first, last instant) → rows, for any date


def to_si(raw: Floats, unit: str, dimension: str) -> Floats:
    """Stored numbers → SI (absolute temperatures included)."""
    return raw * factor(unit, dimension) + unit_offset(unit, dimension)
