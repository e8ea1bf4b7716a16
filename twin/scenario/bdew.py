"""Standard load profiles of BDEW (revision 2025) for any date.

A table holds kWh per quarter of an hour for a consumer of 1 GWh a year, by month and kind of day (Saturday,
Sunday and holiday, workday). The households' profiles are also scaled over the year by a polynomial. Dates
are taken in legal time; holidays are those of all German states.
"""

from __future__ import annotations

import functools
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from twin.scenario.datasets import Dataset
from twin.scenario.schema import ProfileSpec
from twin.scenario.series import US_PER_S, DataError, Floats, Message, Series


def read_bdew(row: Dataset, path: Path, spec: ProfileSpec) -> Series:
    """A profile that exists for every date: `by_calendar` makes the stretch that is asked for."""
    table = _table(row, path)
    dynamic = row.columns[0] in ("h25", "p25", "s25")

    def stretch(first_us: int, last_us: int) -> Series:
        quarter = 900 * US_PER_S
        begin = first_us - first_us % quarter
        time = np.arange(begin, last_us + quarter, quarter, dtype=np.int64)
        # 15-minute means per month and kind of day, in legal time (CET, in summer CEST).
        local = pd.DatetimeIndex(time.astype("datetime64[us]"), tz="UTC").tz_convert(row.clock)
        day_kind = np.where(local.day_of_week == 6, 1, np.where(local.day_of_week == 5, 0, 2))
        free = {
            d for y in range(int(local.year.min()), int(local.year.max()) + 1) for d in german_holidays(y)
        }
        if free:
            holiday = np.isin(local.strftime("%Y-%m-%d").to_numpy(), [d.isoformat() for d in sorted(free)])
            day_kind = np.where(holiday, 1, day_kind)
        quarter_of_day = np.asarray(local.hour * 4 + local.minute // 15)
        kwh = table[np.asarray(local.month) - 1, day_kind, quarter_of_day]
        if dynamic:
            kwh = kwh * _dynamisation(np.asarray(local.day_of_year, dtype=np.float64))
        # kWh per quarter of an hour, of 1 GWh a year → W of the annual energy in spec.scale (J).
        value = kwh / 1e6 / 900.0 * spec.scale + spec.offset
        return Series(time, value, True, quarter, row.name)

    empty = np.zeros(0, dtype=np.int64)
    return Series(empty, np.zeros(0), True, 900 * US_PER_S, row.name, by_calendar=stretch)


@functools.cache
def _table(row: Dataset, path: Path) -> Floats:
    """(12 months, 3 kinds of day: Saturday, Sunday and holiday, workday, 96 quarters) in kWh per GWh/a."""
    try:
        frame = pd.read_csv(path, header=None, skiprows=2, index_col=0)
        kinds = pd.read_csv(path, header=None, skiprows=1, nrows=1).iloc[0, 1:].tolist()
        numbers = frame.to_numpy(dtype=np.float64)
    except (OSError, ValueError) as error:
        raise DataError(Message(f"{row.file} cannot be read ({error})", row.needs)) from None
    if numbers.shape != (96, 36) or [str(k).strip() for k in kinds] != ["SA", "FT", "WT"] * 12:
        raise DataError(Message(f"{row.file} is not a table of 96 x (12 months x SA, FT, WT)", row.needs))
    return np.ascontiguousarray(numbers.reshape(96, 12, 3).transpose(1, 2, 0))


def _dynamisation(day: Floats) -> Floats:
    """Seasonal factor of the household profiles over the day of the year; BDEW (2025), polynomial."""
    return np.asarray(-3.92e-10 * day**4 + 3.20e-7 * day**3 - 7.02e-5 * day**2 + 2.1e-3 * day + 1.24)


def german_holidays(year: int) -> list[date]:
    """Public holidays of all federal states."""
    easter = _easter(year)
    moving = [easter + timedelta(days=k) for k in (-2, 1, 39, 50)]
    return [date(year, m, d) for m, d in ((1, 1), (5, 1), (10, 3), (12, 25), (12, 26))] + moving


def _easter(year: int) -> date:
    """Gregorian computus (Meeus, Jones, Butcher)."""
    a, b, c = year % 19, year // 100, year % 100
    d, e = divmod(b, 4)
    f = (b + 8) // 25
    g = (b - f + 1) // 3
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)
