"""The data packages: what they contain, against facts from elsewhere.

The set-up installs the packages; without them these tests skip. Where ../shared/data (or TWIN_DATA) exists,
series are also compared with independent collections.
"""

from __future__ import annotations

import importlib.metadata
import os
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from twin.scenario.bdew import german_holidays
from twin.scenario.datasets import DATASETS
from twin.scenario.errors import ScenarioError
from twin.scenario.profiles import Profile, load_profile
from twin.scenario.schema import ProfileSpec

DAY = 86_400.0
DATA = Path(os.environ.get("TWIN_DATA") or Path(__file__).resolve().parents[3] / "../shared/data")


def _installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


pytestmark = pytest.mark.skipif(
    not all(_installed(name) for name in ("ev2gym", "emobpy", "demandlib")),
    reason="the data packages ev2gym, emobpy, demandlib are not installed (make setup)",
)


def package(name: str, start: datetime, duration_s: float, whole: bool = False, **kwargs: Any) -> Profile:
    row = DATASETS[name]
    dimension = row.scale_dimension if row.scale_key == "peak" else row.dimension
    kwargs = {"hold": "step", "column": row.columns[0], **kwargs}
    return load_profile(
        ProfileSpec(package=name, dimension=dimension, **kwargs), start, duration_s, Path(), whole=whole
    )


def shared(path: str) -> Path:
    if not (DATA / path).exists():
        pytest.skip(f"{path} is not here: put it into ../shared/data, or set TWIN_DATA")
    return DATA / path


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_dataset_reads_for_a_day(name: str) -> None:
    p = package(name, datetime(2016, 6, 6), 1000.0 if DATASETS[name].seconds else DAY, align="date")
    assert np.all(np.isfinite(p.value))
    assert np.all(np.diff(p.time_s) > 0.0)


def test_prices_are_complete_and_known_values_are_where_they_belong() -> None:
    p = package("ev2gym/day_ahead_nl", datetime(2015, 1, 1), 3660 * DAY)
    # Ten years by the hour, less the two hours the file lacks.
    assert p.time_s.size == 3660 * 24 - 2
    euro_per_mwh = p.value * 3.6e9
    assert euro_per_mwh[0] == pytest.approx(34.94)
    # The extremes were in the news: 873 EUR/MWh on 2024-12-12, -500 EUR/MWh on 2023-07-02.
    top = datetime(2015, 1, 1) + pd.Timedelta(seconds=float(p.time_s[euro_per_mwh.argmax()]))
    low = datetime(2015, 1, 1) + pd.Timedelta(seconds=float(p.time_s[euro_per_mwh.argmin()]))
    assert (top.date(), round(euro_per_mwh.max(), 2)) == (date(2024, 12, 12), 872.96)
    assert (low.date(), round(euro_per_mwh.min(), 2)) == (date(2023, 7, 2), -500.0)


def test_prices_move_with_the_neighbours_market_at_the_same_hour() -> None:
    german = pd.read_csv(shared("prices/de_day_ahead_2020_1h.csv"))
    stamps = pd.to_datetime(german.time_utc).dt.tz_localize(None)
    t = (stamps - pd.Timestamp("2020-01-01")).dt.total_seconds().to_numpy()
    p = package("ev2gym/day_ahead_nl", datetime(2020, 1, 1), float(t[-1]) + 7200.0)
    at = {lag: np.corrcoef(p.at(t + lag * 3600.0), german.price_eur_mwh)[0, 1] for lag in (-1, 0, 1)}
    # The clock is right: coupled markets agree best without a shift (0.88, against 0.83 an hour off).
    assert at[0] > 0.87
    assert at[0] > max(at[-1], at[1]) + 0.04


def test_photovoltaics_peak_at_noon_and_yield_what_dutch_roofs_yield() -> None:
    p = package("ev2gym/pv_nl", datetime(2019, 1, 1), 365 * DAY, scale=1.0)
    hours = p.value[: 365 * 24].reshape(365, 24)
    assert 1000.0 < hours.sum() < 1300.0  # kWh per kWp; 875 to 1100 is common for all roofs
    # Solar noon at 5 degrees east is about 11:40 UTC.
    assert hours.mean(axis=0).argmax() == 11
    assert p.value.max() <= 1.0
    assert hours[150:210].sum() > 4.0 * hours[:30].sum()


def test_homes_are_in_kilowatts() -> None:
    total = package("ev2gym/residential_loads", datetime(2022, 1, 1), 365 * DAY, column="all")
    annual = []
    for name in DATASETS["ev2gym/residential_loads"].columns:
        p = package("ev2gym/residential_loads", datetime(2022, 1, 1), 365 * DAY, column=name)
        annual.append(p.mean(0.0, 365 * DAY) * 8760 / 1e6)
    # MWh a year; Texas homes average 13 to 14 (EIA Residential Energy Consumption Survey).
    assert min(annual) > 6.0
    assert max(annual) < 20.0
    assert np.mean(annual) == pytest.approx(11.8, abs=0.5)
    assert sum(annual) == pytest.approx(total.mean(0.0, 365 * DAY) * 8760 / 1e6, rel=1e-9)


def test_air_temperature_is_german_and_kelvin() -> None:
    p = package("emobpy/temperature_de", datetime(2016, 1, 1), 366 * DAY, hold="linear")
    # Mean of Germany 2016: 9.5 degC (Deutscher Wetterdienst); ERA5's grid is a little warmer.
    assert p.mean(0.0, 366 * DAY) - 273.15 == pytest.approx(9.5, abs=0.6)
    hottest = datetime(2016, 1, 1) + pd.Timedelta(seconds=float(p.time_s[p.value.argmax()]))
    assert hottest.month in (6, 7, 8)
    assert 12 <= hottest.hour <= 17


def test_driving_cycles_have_the_official_lengths() -> None:
    # UN GTR 15 class 3b 23 266 m in 1800 s; US EPA: city 7.45 mi, highway 10.26 mi.
    for column, metres, seconds, tolerance in (
        ("WLTC_3b_full", 23_266.0, 1800, 4.0),
        ("EPA_city", 7.45 * 1609.344, 1372, 10.0),
        ("EPA_highway", 10.26 * 1609.344, 765, 10.0),
    ):
        p = package(
            "emobpy/driving_cycles", datetime(2016, 1, 1), 1.0, whole=True, column=column, hold="linear"
        )
        assert p.time_s[-1] == seconds
        assert p.integral(float(seconds)) == pytest.approx(metres, abs=tolerance)


def test_wltc_against_another_collection() -> None:
    cycles = pd.read_csv(shared("drive/drive_cycles_speed_1s.csv"))
    other = cycles[cycles.cycle == "WLTC_class3b"].speed_mps.to_numpy()
    ours = package(
        "emobpy/driving_cycles", datetime(2016, 1, 1), 1.0, whole=True, column="WLTC_3b_full", hold="linear"
    ).value
    differs = np.flatnonzero(np.abs(other - ours) > 0.06 / 3.6)
    # A known fault of the package (datasets.py): one stretch of the phase "high".
    assert (differs.min(), differs.max(), differs.size) == (1154, 1305, 152)
    assert 3.6 * np.max(np.abs(other - ours)) == pytest.approx(16.6, abs=0.1)


@pytest.mark.parametrize("letter", "ghlps")
@pytest.mark.parametrize("of", [2023, 2024])
def test_standard_profiles_use_the_annual_energy(letter: str, of: int) -> None:
    days = 366 if of == 2024 else 365
    p = package(f"demandlib/{letter}25", datetime(of, 1, 1), days * DAY, scale=800 * 3.6e9)
    used = p.mean(0.0, days * DAY) * days * DAY
    # BDEW scales to a typical year; another calendar leaves a few per mille (and a leap day 1/365).
    assert used / (800 * 3.6e9) == pytest.approx(days / 365, abs=0.004)


def test_business_profile_rows_are_the_published_ones() -> None:
    # First cells of BDEW's G25 table, January: Saturday, holiday, workday; kWh per quarter-hour and GWh/a.
    for month, day, kwh in ((1, 6, 15.045), (12, 31, 14.658), (1, 2, 14.832)):
        # Midnight in Germany is 23:00 UTC of the day before.
        start = datetime(2022 if month == 12 else 2023, month, day, 23)
        p = package("demandlib/g25", start, 900.0, scale=3.6e12)
        assert p.at(0.0) * 900.0 / 3.6e6 == pytest.approx(kwh)


def test_hours_are_legal_time_in_winter_and_summer() -> None:
    file = next(f for f in importlib.metadata.files("demandlib") or [] if str(f).endswith("/g25.csv"))
    row = next(r for r in file.read_text(encoding="utf-8").splitlines() if r.startswith("06:00-06:15,"))
    cells = [float(cell) for cell in row.split(",")[1:]]
    # Workdays: third of the three columns of a month. 06:00 is 05:00 UTC in January, 04:00 UTC in June.
    for month, utc in ((1, 5), (6, 4)):
        p = package(
            "demandlib/g25", datetime(2023, month, 14 if month == 6 else 11, utc), 900.0, scale=3.6e12
        )
        assert p.at(0.0) * 900.0 / 3.6e6 == pytest.approx(cells[3 * (month - 1) + 2])


def test_holidays_of_known_years() -> None:
    assert set(german_holidays(2024)) == {
        date(2024, *d)
        for d in ((1, 1), (3, 29), (4, 1), (5, 1), (5, 9), (5, 20), (10, 3), (12, 25), (12, 26))
    }
    easter_monday = {2016: (3, 28), 2019: (4, 22), 2025: (4, 21), 2038: (4, 26)}
    for of, day in easter_monday.items():
        assert date(of, *day) in german_holidays(of)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    from twin.scenario import packages

    packages._table.cache_clear()
    monkeypatch.setattr(importlib.metadata, "files", gone)
    with pytest.raises(ScenarioError) as caught:
        package("ev2gym/pv_nl", datetime(2016, 6, 6), DAY)
    problem = caught.value.problems[0]
    assert problem.message == "ev2gym/pv_nl is not installed"
    assert problem.expected == "the data package ev2gym 2.0.0 (pip install --no-deps)"
