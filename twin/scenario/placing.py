"""Laying a series onto the scenario's time axis: by date, by the very date, or from its first row.

Calendar years differ in length. Data of another year are moved month by month and day by day: 29 February
is dropped, or repeats the 28th, so that 1 March stays 1 March (35 040 and 35 136 quarter-hours both fit).
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from twin.scenario.schema import ProfileSpec
from twin.scenario.series import US_PER_S, DataError, Floats, Instants, Message, Series
from twin.units import format_quantity

DAY_US = 86_400 * US_PER_S


def place(
    series: Series, spec: ProfileSpec, start: datetime, duration_s: float, *, whole: bool = False
) -> tuple[Floats, Floats]:
    """time_s from the scenario's start and SI values that cover 0 … duration_s."""
    start_us = _instant(start)
    end_us = start_us + round(duration_s * US_PER_S)
    if series.by_calendar is not None:
        made = series.by_calendar(start_us, end_us)
        return _cut(made.time - start_us, made.value, end_us - start_us)
    if whole:
        return (series.time - series.time[0]) / US_PER_S, series.value
    # Seconds count from the first row, or (exact) from the start of the scenario.
    if not series.dated:
        time = series.time if spec.align == "exact" else series.time - series.time[0]
        value = series.value
    elif spec.align == "start":
        time, value = series.time - series.time[0], series.value
    elif spec.align == "exact" or spec.repeat or _covers(series, start_us, end_us):
        time, value = series.time - start_us, series.value
    else:
        time, value = _by_date(series, start, start_us, end_us)
        time = time - start_us
    length_us = end_us - start_us
    if spec.repeat:
        time, value = _repeat(time, value, series.step_us, length_us)
    _must_cover(series, spec, time, start_us, length_us)
    return _cut(time, value, length_us)


def _instant(moment: datetime) -> int:
    return int(np.datetime64(moment, "us").astype(np.int64))


def _covers(series: Series, start_us: int, end_us: int) -> bool:
    return bool(series.time[0] <= start_us and series.time[-1] + series.step_us >= end_us)


def _cut(time: Instants, value: Floats, length_us: int) -> tuple[Floats, Floats]:
    """The rows needed for 0 … length, one beyond on each side, in seconds."""
    first = max(0, int(np.searchsorted(time, 0, side="right")) - 1)
    last = min(time.size, int(np.searchsorted(time, length_us, side="left")) + 1)
    return time[first:last] / US_PER_S, value[first:last]


def _repeat(time: Instants, value: Floats, step_us: int, length_us: int) -> tuple[Instants, Floats]:
    """Copies end to end, before and after, until 0 … length is covered."""
    period = int(time[-1] - time[0]) + max(step_us, 1)
    low = -(-int(time[0]) // period) if time[0] > 0 else 0
    high = max(0, -(-(length_us - int(time[-1])) // period))
    # From the copy that contains t = 0 on.
    low = -low if low else (-int(time[0])) // period
    shifts = np.arange(low, max(high, low) + 1, dtype=np.int64) * period
    return (shifts[:, None] + time[None, :]).ravel(), np.tile(value, shifts.size)


def _must_cover(series: Series, spec: ProfileSpec, time: Instants, start_us: int, length_us: int) -> None:
    """The last row holds for one more step; beyond that the data are too short."""
    if time.size and time[0] <= 0 and time[-1] + series.step_us >= length_us:
        return
    if time.size == 0 or time[0] > length_us or time[-1] + series.step_us < 0:
        text = f"{series.name}: nothing at the time of the run, {_date(start_us)} and {_long(length_us)} on"
    elif time[0] > 0:
        text = f"{series.name}: begins {_long(int(time[0]))} after the start of the run"
    else:
        covered = int(time[-1]) + series.step_us
        text = f"{series.name}: ends after {_long(covered)}, the run takes {_long(length_us)}"
    if series.dated:
        first, last = int(series.time[0]), int(series.time[-1]) + series.step_us
        text += f" (data from {_date(first)} to {_date(last)} UTC)"
    ways = ["a shorter duration", "repeat: true"]
    if series.dated and spec.align != "start":
        ways.insert(1, "another start")
        ways.append("align: start")
    raise DataError(Message(text, ", ".join(ways[:-1]) + " or " + ways[-1]))


def _long(micros: int) -> str:
    return format_quantity(float(round(micros / US_PER_S)), "time")


def _date(micros: int) -> str:
    return str(np.datetime64(micros, "us").astype("datetime64[m]")).replace("T", " ")


# -- other years ----------------------------------------------------------------------------------------


def _by_date(series: Series, start: datetime, start_us: int, end_us: int) -> tuple[Instants, Floats]:
    """The data moved to the scenario's years."""
    years = series.time.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64) + 1970
    full = [int(y) for y in np.unique(years) if _is_full(series, int(y))]
    last_year = int(np.datetime64(end_us, "us").astype("datetime64[Y]").astype(np.int64)) + 1970
    if full:
        # The nearest complete year stands for every year of the run.
        base = min(full, key=lambda y: (abs(y - start.year), -y))
        rows = years == base
        parts = [
            _move(series.time[rows], series.value[rows], base, y)
            for y in range(start.year - 1, last_year + 1)
        ]
        return np.concatenate([t for t, _ in parts]), np.concatenate([v for _, v in parts])
    # Less than a year of data: shift them as a piece, to the start's year or the one before.
    for shift in (start.year - int(years[0]), start.year - int(years[0]) - 1):
        moved = [
            _move(series.time[years == y], series.value[years == y], int(y), int(y) + shift)
            for y in np.unique(years)
        ]
        time = np.concatenate([t for t, _ in moved])
        value = np.concatenate([v for _, v in moved])
        if time[0] <= start_us <= time[-1] + series.step_us:
            return time, value
    return series.time, series.value


def _is_full(series: Series, year: int) -> bool:
    first = int(np.datetime64(f"{year}-01-01", "us").astype(np.int64))
    last = int(np.datetime64(f"{year + 1}-01-01", "us").astype(np.int64))
    inside = series.time[(series.time >= first) & (series.time < last)]
    return bool(
        inside.size
        and inside[0] - first < max(series.step_us, 1)
        and last - inside[-1] <= max(series.step_us, 1)
    )


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _first_of(year: int, month: int) -> int:
    return int(np.datetime64(f"{year:04d}-{month:02d}-01", "us").astype(np.int64))


def _move(time: Instants, value: Floats, old: int, new: int) -> tuple[Instants, Floats]:
    """Rows of one calendar year moved to another, same month, day and hour."""
    march_old = _first_of(old, 3)
    early = _first_of(new, 1) - _first_of(old, 1)
    late = _first_of(new, 3) - march_old
    before: NDArray[np.bool_] = time < march_old
    moved = np.where(before, time + early, time + late)
    if _leap(old) and not _leap(new):
        keep = ~(before & (time >= march_old - DAY_US))
        return moved[keep], value[keep]
    if _leap(new) and not _leap(old):
        last_day = before & (time >= march_old - DAY_US)
        moved = np.concatenate([moved, moved[last_day] + DAY_US])
        value = np.concatenate([value, value[last_day]])
        order = np.argsort(moved, kind="stable")
        return moved[order], value[order]
    return moved, value
