"""Profiles: the value object, files with every defect, placing on the calendar, the synthetic process."""

from __future__ import annotations

import itertools
import math
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from known import KNOWN

from twin.scenario.errors import ScenarioError
from twin.scenario.load import load, loads
from twin.scenario.profiles import (
    Profile,
    check_profiles,
    constant,
    load_profile,
    profile_fields,
    profile_names,
    synthesise,
)
from twin.scenario.schema import ProfileSpec
from twin.scenario.synthetic import HOUR_WEIGHT, GridFrequency, _erf, _ornstein_uhlenbeck

START = datetime(2016, 6, 6)
DAY = 86_400.0


def spec(**kwargs: Any) -> ProfileSpec:
    return ProfileSpec(**{"dimension": "power", "hold": "step", "unit": "kW", **kwargs})


def said(function: Any, *args: Any, **kwargs: Any) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        function(*args, **kwargs)
    return [p.message for p in caught.value.problems]


# -- the value object -----------------------------------------------------------------------------------


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    n = draw(st.integers(1, 12))
    steps = draw(st.lists(st.sampled_from([1.0, 1.0, 0.5, 7.0, 900.0]), min_size=n - 1, max_size=n - 1))
    first = draw(st.sampled_from([0.0, -3.0, 5.0]))
    values = draw(st.lists(st.floats(-1e6, 1e6), min_size=n, max_size=n))
    time_s = first + np.concatenate(([0.0], np.cumsum(steps)))
    return Profile(time_s, np.array(values), draw(st.sampled_from(["step", "linear"])))


@given(profiles(), st.floats(-20.0, 12_000.0))
def test_at_agrees_with_the_definition(profile: Profile, t: float) -> None:
    time_s, value = profile.time_s, profile.value
    if profile.hold == "linear":
        expected = np.interp(t, time_s, value)
    else:
        inside = np.flatnonzero(time_s <= t)
        expected = value[inside[-1]] if inside.size else value[0]
    assert profile.at(t) == pytest.approx(expected, rel=1e-12, abs=1e-9)
    assert profile.at(np.array([t, t]))[1] == pytest.approx(expected, rel=1e-12, abs=1e-9)


@given(profiles(), st.floats(-10.0, 3000.0), st.floats(0.0, 3000.0))
@settings(max_examples=60)
def test_mean_is_the_mean_of_at(profile: Profile, t0: float, width: float) -> None:
    # Between breakpoints the value is linear or constant, so the trapezoid of its ends is exact.
    cuts = np.unique(np.concatenate(([t0, t0 + width], profile.time_s)))
    cuts = cuts[(cuts >= t0) & (cuts <= t0 + width)]
    if width < 1e-3:
        return
    area = 0.0
    for a, b in itertools.pairwise(cuts):
        middle = 0.5 * (a + b)
        area += float(profile.at(middle)) * (b - a)
    assert profile.mean(t0, t0 + width) == pytest.approx(area / width, rel=1e-9, abs=1e-6)


def test_means_over_steps_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(1)
    for hold in ("step", "linear"):
        profile = Profile(np.arange(97) * 900.0, rng.normal(size=97), hold)
        parts = sum(profile.mean(k * 7.0, (k + 1) * 7.0) * 7.0 for k in range(12_000))
        assert parts == pytest.approx(profile.integral(84_000.0), rel=1e-12)


@pytest.mark.parametrize("step", [0.1, 1.0, 900.0, 1 / 3])
def test_grid_points_belong_to_their_own_value(step: float) -> None:
    # Division by a step that is no binary fraction must not land one row early.
    time_s = np.arange(5000) * step
    profile = Profile(time_s, np.arange(5000.0), "step")
    assert [profile.at(float(t)) for t in time_s] == list(range(5000))


def test_profile_refuses_nonsense_and_cannot_be_changed() -> None:
    for time_s, value, hold in (
        ([0.0, 0.0], [1.0, 2.0], "step"),
        ([], [], "step"),
        ([0.0], [1.0, 2.0], "step"),
        ([0.0], [1.0], "cubic"),
    ):
        with pytest.raises(ValueError, match="profile"):
            Profile(np.array(time_s), np.array(value), hold)
    with pytest.raises(ValueError, match="read-only"):
        constant(3.0).value[0] = 4.0
    assert constant(3.0).at(1e9) == 3.0
    assert constant(3.0).mean(-5.0, 1e9) == 3.0


def test_digest_sees_every_number() -> None:
    a = Profile(np.arange(3.0), np.array([1.0, 2.0, 3.0]), "step")
    b = Profile(np.arange(3.0), np.array([1.0, 2.0, 3.0 + 1e-15 * 4]), "step")
    assert a.digest() == Profile(np.arange(3.0), np.array([1.0, 2.0, 3.0]), "step").digest()
    assert a.digest() != b.digest()
    assert a.digest() != Profile(a.time_s, a.value, "linear").digest()


# -- a user's own file ----------------------------------------------------------------------------------


def table(rows: int = 24, start: datetime = START, step: timedelta = timedelta(hours=1)) -> pd.DataFrame:
    times = pd.date_range(start, periods=rows, freq=step)
    return pd.DataFrame({"time": times, "load_kw": np.arange(rows) + 10.0, "pv_kw": np.arange(rows) * 2.0})


def read(folder: Path, frame: pd.DataFrame, duration_s: float = DAY, **kwargs: Any) -> Profile:
    frame.to_csv(folder / "data.csv", index=False)
    return load_profile(spec(file="data.csv", **kwargs), START, duration_s, folder)


def test_csv_columns_units_scale_offset_and_sums(tmp_path: Path) -> None:
    p = read(tmp_path, table(), column="load_kw", scale=2.0, offset=500.0)
    assert list(p.value[:2]) == [20_500.0, 22_500.0]
    assert (p.time_s[0], p.time_s[-1], p.time_s.size) == (0.0, 82_800.0, 24)
    p = read(tmp_path, table(), column="load_kw + pv_kw")
    assert p.at(3600.0) == 13_000.0
    p = read(tmp_path, table().drop(columns="pv_kw"), unit="MW")
    assert p.at(0.0) == 10e6


def test_unit_from_the_header_and_peak(tmp_path: Path) -> None:
    frame = table().rename(columns={"load_kw": "load [MW]"})
    assert read(tmp_path, frame, column="load [MW]", unit=None).at(0.0) == 10e6
    assert read(tmp_path, table(), column="pv_kw", unit="%", scale=3000.0).at(3600.0) == 60.0
    temperatures = ProfileSpec(
        dimension="temperature", hold="linear", file="data.csv", column="load_kw", unit="degC"
    )
    assert load_profile(temperatures, START, DAY, tmp_path).at(1800.0) == pytest.approx(273.15 + 10.5)


def test_semicolons_with_decimal_commas_and_blank_last_lines(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(
        "\ufefftime;load\n2016-06-06 00:00;1,5\n2016-06-06 12:00;2,5\n\n\n", encoding="utf-8"
    )
    p = load_profile(spec(file="data.csv"), START, DAY, tmp_path)
    assert list(p.value) == [1500.0, 2500.0]


def test_offsets_are_converted_to_utc(tmp_path: Path) -> None:
    # The autumn night of 2016 in Germany: 02:30 happens twice, and with offsets both are kept apart.
    (tmp_path / "data.csv").write_text(
        "time,load\n2016-10-30T02:00+02:00,1\n2016-10-30T02:30+02:00,2\n"
        "2016-10-30T02:00+01:00,3\n2016-10-30T02:30+01:00,4\n"
    )
    p = load_profile(spec(file="data.csv"), datetime(2016, 10, 30), 7200.0, tmp_path)
    assert list(p.time_s) == [0.0, 1800.0, 3600.0, 5400.0]
    text = (tmp_path / "data.csv").read_text().replace("+02:00", "").replace("+01:00", "")
    (tmp_path / "data.csv").write_text(text)
    messages = said(load_profile, spec(file="data.csv"), datetime(2016, 10, 30, 2), 7200.0, tmp_path)
    assert messages == ["data.csv row 4: earlier than the row above"]


def test_seconds_instead_of_dates(tmp_path: Path) -> None:
    frame = pd.DataFrame({"t_s": [100, 101, 102, 103], "load_kw": [1.0, 2.0, 3.0, 4.0]})
    assert list(read(tmp_path, frame, 4.0).value) == [1000.0, 2000.0, 3000.0, 4000.0]
    frame["t_s"] -= 100
    assert read(tmp_path, frame, 3.0, align="exact").at(2.5) == 3000.0
    assert said(read, tmp_path, frame, 10.0) == ["data.csv: ends after 4 s, the run takes 10 s"]
    assert read(tmp_path, frame, 10.0, repeat=True).at(9.0) == 2000.0


def test_parquet_with_dates_time_zones_and_index(tmp_path: Path) -> None:
    frame = table()
    frame.to_parquet(tmp_path / "a.parquet")
    frame.set_index("time").to_parquet(tmp_path / "b.parquet")
    shifted = frame.assign(time=frame.time.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"))
    shifted.to_parquet(tmp_path / "c.parquet")
    for name in ("a", "b", "c"):
        p = load_profile(spec(file=f"{name}.parquet", column="load_kw"), START, DAY, tmp_path)
        assert list(p.value[:2]) == [10_000.0, 11_000.0]
        assert p.time_s[0] == 0.0


def test_broken_parquet_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    (message,) = said(load_profile, spec(file="a.parquet"), START, DAY, tmp_path)
    assert message.startswith("a.parquet: is not a readable Parquet file (")


def test_parquet_rows_count_from_one(tmp_path: Path) -> None:
    frame = table()
    frame.loc[4, "load_kw"] = np.nan
    frame.to_parquet(tmp_path / "a.parquet")
    assert said(load_profile, spec(file="a.parquet", column="load_kw"), START, DAY, tmp_path) == [
        "a.parquet row 5: load_kw is empty or NaN"
    ]


def test_gaps_are_errors_lines_or_held(tmp_path: Path) -> None:
    frame = table().drop(index=[5, 6])
    (message,) = said(read, tmp_path, frame, column="load_kw")
    assert message == "data.csv row 7: 10800 s after the row above, the usual step is 3600 s"
    assert read(tmp_path, frame, column="load_kw", gaps="interpolate").at(5 * 3600.0) == 15_000.0
    assert read(tmp_path, frame, column="load_kw", gaps="hold").at(6 * 3600.0) == 14_000.0
    holes = table()
    holes.loc[[5, 6], "load_kw"] = np.nan
    assert read(tmp_path, holes, column="load_kw", gaps="interpolate").at(6 * 3600.0) == 16_000.0


def test_not_text_and_infinite(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"time,load\n2016-06-06,\xff\xfe\n")
    assert said(load_profile, spec(file="data.csv"), START, DAY, tmp_path) == ["data.csv: is not UTF-8 text"]
    (tmp_path / "data.csv").write_text("time,load\n2016-06-06 00:00,1\n2016-06-06 01:00,inf\n")
    assert said(load_profile, spec(file="data.csv"), START, DAY, tmp_path) == [
        "data.csv row 3: load is 'inf', no number"
    ]


@given(st.binary(max_size=120))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_bytes_as_csv(data: bytes) -> None:
    path = Path(FOLDER.name) / "data.csv"
    for head in (b"", b"time,load\n2016-06-06,1\n"):
        path.write_bytes(head + data)
        try:
            load_profile(spec(file="data.csv"), START, 3600.0, path.parent)
        except ScenarioError:
            continue


# -- the calendar ---------------------------------------------------------------------------------------


def year(of: int, step_s: float = 900.0) -> pd.DataFrame:
    """A full year in which each row says its own month, day and hour."""
    begin, end = datetime(of, 1, 1), datetime(of + 1, 1, 1)
    times = pd.date_range(begin, end, freq=f"{int(step_s)}s", inclusive="left")
    return pd.DataFrame({"time": times, "load_kw": times.month * 1e4 + times.day * 100.0 + times.hour})


def month_day_hour(profile: Profile, at: datetime, start: datetime) -> tuple[int, int, int]:
    code = round(float(profile.at((at - start).total_seconds())) / 1000.0)
    return code // 10_000, code // 100 % 100, code % 100


@pytest.mark.parametrize(("data_year", "rows"), [(2015, 35_040), (2016, 35_136)])
@pytest.mark.parametrize("run_year", [2016, 2019, 2020, 2023])
def test_another_year_keeps_month_day_and_hour(
    tmp_path: Path, data_year: int, rows: int, run_year: int
) -> None:
    frame = year(data_year)
    assert len(frame) == rows
    frame.to_parquet(tmp_path / "year.parquet")
    start = datetime(run_year, 2, 25)
    p = load_profile(spec(file="year.parquet", column="load_kw"), start, 320 * DAY, tmp_path)
    assert np.all(np.diff(p.time_s) == 900.0)
    for day in range(0, 320):
        at = start + timedelta(days=day, hours=day % 24)
        found = month_day_hour(p, at, start)
        if (at.month, at.day) == (2, 29) and data_year == 2015:
            assert found == (2, 28, at.hour)  # the day before stands in
        else:
            assert found == (at.month, at.day, at.hour)


def test_new_year_wraps_round(tmp_path: Path) -> None:
    year(2019).to_parquet(tmp_path / "year.parquet")
    start = datetime(2023, 12, 30)
    p = load_profile(spec(file="year.parquet", column="load_kw"), start, 4 * DAY, tmp_path)
    assert month_day_hour(p, datetime(2023, 12, 31, 23), start) == (12, 31, 23)
    assert month_day_hour(p, datetime(2024, 1, 1, 5), start) == (1, 1, 5)


def test_exact_start_and_short_data(tmp_path: Path) -> None:
    frame = table(48)
    frame.to_csv(tmp_path / "data.csv", index=False)
    one = spec(file="data.csv", column="load_kw")
    assert load_profile(one, datetime(2016, 6, 7), DAY, tmp_path).at(0.0) == 34_000.0
    assert load_profile(one, datetime(2019, 6, 7), DAY, tmp_path).at(0.0) == 34_000.0  # same day, other year
    for align, start, message in (
        ("exact", datetime(2019, 6, 6), "nothing at the time of the run, 2019-06-06 00:00 and 1 d on"),
        ("date", datetime(2019, 6, 5, 12), "nothing at the time of the run"),
        ("date", datetime(2016, 6, 5, 12), "begins 12 h after the start of the run"),
        ("date", datetime(2016, 6, 7, 6), "ends after 18 h, the run takes 1 d"),
    ):
        (text,) = said(
            load_profile, spec(file="data.csv", column="load_kw", align=align), start, DAY, tmp_path
        )
        assert message in text or (message.startswith("nothing") and "begins" in text)
    from_start = spec(file="data.csv", column="load_kw", align="start")
    assert load_profile(from_start, datetime(2030, 1, 1), DAY, tmp_path).at(3600.0) == 11_000.0


@pytest.mark.parametrize("days", [-5, 0, 3, 400])
def test_repeat_in_both_directions(tmp_path: Path, days: int) -> None:
    table().to_csv(tmp_path / "data.csv", index=False)
    repeating = spec(file="data.csv", column="load_kw", repeat=True, align="exact")
    start = START + timedelta(days=days, hours=2)
    p = load_profile(repeating, start, 3 * DAY, tmp_path)
    assert p.time_s[0] <= 0.0
    assert p.time_s[-1] >= 3 * DAY - 3600.0
    assert [p.at(h * 3600.0) for h in (0, 1, 22, 24, 70)] == [
        12_000.0,
        13_000.0,
        10_000.0,
        12_000.0,
        10_000.0,
    ]


def test_whole_data_are_taken_as_they_are(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "data.csv", index=False)
    p = load_profile(spec(file="data.csv", column="load_kw"), datetime(2030, 1, 1), 1.0, tmp_path, whole=True)
    assert (p.time_s[0], p.time_s[-1]) == (0.0, 82_800.0)


# -- a scenario's profiles ------------------------------------------------------------------------------


def test_check_profiles_names_file_row_path_and_place(tmp_path: Path) -> None:
    frame = table()
    frame.loc[3, "load_kw"] = np.nan
    frame.to_csv(tmp_path / "load.csv", index=False)
    (tmp_path / "s.yaml").write_text(
        "about: x\nduration: 1 d\nsites:\n  - name: a\n    ambient: {file: air.csv}\n"
        "    load: {file: load.csv, column: load_kw, unit: kW}\n    racks: {pack: {design: bus_14s}}\n"
        "    dispatch: [{strategy: drive, at: 1 h, "
        "cycle: {package: emobpy/driving_cycles, column: EPA_city}}]\n"
    )
    scenario = load(tmp_path / "s.yaml", KNOWN)
    assert [path for path, *_ in profile_fields(scenario)] == [
        "sites[0].ambient",
        "sites[0].load",
        "sites[0].dispatch[0].cycle",
    ]
    with pytest.raises(ScenarioError) as caught:
        check_profiles(scenario, tmp_path)
    assert [(p.line, p.column, p.path, p.message) for p in caught.value.problems] == [
        (5, 21, "sites[0].ambient", "air.csv: no such file"),
        (6, 18, "sites[0].load", "load.csv row 5: load_kw is empty or NaN"),
    ]


def test_a_profile_from_set_is_named_without_an_excerpt(tmp_path: Path) -> None:
    text = "about: x\nduration: 1 d\nsites: {name: a, ambient: 20 degC, racks: {pack: {design: bus_14s}}}\n"
    scenario = loads(text, KNOWN, ["sites[0].ambient={file: t.csv}"])
    with pytest.raises(ScenarioError) as caught:
        check_profiles(scenario, tmp_path)
    assert str(caught.value).startswith("--set: sites[0].ambient: t.csv: no such file")


def test_names_for_the_list_command() -> None:
    names = profile_names()
    assert "Pecan Street" in names["ev2gym/residential_loads"]
    assert "Ornstein" in names["synthetic: grid_frequency"]


# -- grid frequency -------------------------------------------------------------------------------------


def frequency(days: float = 60.0, seed: int = 3, **params: float) -> Profile:
    process = GridFrequency(**params)
    one = ProfileSpec(
        dimension="frequency",
        hold="step",
        synthetic="grid_frequency",
        params=tuple(sorted((k, float(v)) for k, v in vars(process).items())),
    )
    return synthesise(one, np.random.default_rng(seed), days * DAY, datetime(2016, 6, 6))


def test_grid_frequency_has_the_published_statistics() -> None:
    deviation = frequency(days=40).value - 50.0
    # Continental Europe: 20 mHz; time outside ±50 mHz below the 15 000 min a year (2.9 %) that Regulation
    # (EU) 2017/1485, Annex III sets as the target, and above that of a Gaussian (1.2 %).
    assert deviation.std() == pytest.approx(0.020, rel=0.03)
    assert abs(deviation.mean()) < 0.001
    assert 0.012 < np.mean(np.abs(deviation) > 0.050) < 0.029
    # 120 s correlation of the noise shows in increments, where the slow hourly part cancels.
    increments = np.diff(deviation)
    ou_std = math.sqrt(np.mean(increments**2) / (2.0 * (1.0 - math.exp(-1 / 120.0))))
    assert 0.016 < ou_std < 0.019


def test_the_full_hour_pulls_and_recovers() -> None:
    deviation = frequency(days=60).value[:-1] - 50.0
    by_hour = deviation.reshape(60, 24, 3600).mean(axis=0)
    # Hours of the table are CET, the series starts at midnight UTC.
    weights = np.roll(HOUR_WEIGHT, -1)
    peak = by_hour[:, 120:260].mean(axis=1)
    assert np.corrcoef(weights, peak)[0, 1] > 0.97
    strong = np.abs(weights) > 0.6
    rest = by_hour[:, 1500:2400].mean(axis=1)
    assert np.abs(rest[strong]).mean() < 0.15 * np.abs(peak[strong]).mean()


def test_the_start_shifts_the_hours_not_the_noise() -> None:
    process = GridFrequency()
    rng = [np.random.default_rng(5) for _ in range(2)]
    _, a = process.series(rng[0], 7200.0, datetime(2016, 6, 6, 20, 0))
    _, b = process.series(rng[1], 7200.0, datetime(2016, 6, 6, 20, 30))
    assert not np.array_equal(a, b)
    assert np.array_equal(frequency(0.01).value, frequency(0.01).value)
    assert not np.array_equal(frequency(0.01).value, frequency(0.01, seed=4).value)


def test_without_hourly_part_it_is_the_plain_process() -> None:
    deviation = frequency(days=30, hourly_peak_Hz=0.0, std_Hz=0.015).value - 50.0
    assert deviation.std() == pytest.approx(0.015, rel=0.03)
    lag = 120
    correlation = np.mean(deviation[:-lag] * deviation[lag:]) / deviation.var()
    assert correlation == pytest.approx(math.exp(-1.0), abs=0.03)


def test_blockwise_solution_equals_the_recursion() -> None:
    for ratio in (1 / 120, 0.3, 5.0, 30.0):
        x = _ornstein_uhlenbeck(np.random.default_rng(9), 10_000, ratio)
        w = np.random.default_rng(9).standard_normal(10_000)
        a = math.exp(-ratio)
        y = w.copy()
        for k in range(1, y.size):
            y[k] = a * y[k - 1] + math.sqrt(1.0 - a * a) * w[k]
        assert np.max(np.abs(x - y)) < 1e-9


def test_error_function_is_as_good_as_it_says() -> None:
    x = np.linspace(0.0, 4.0, 400)
    assert np.max(np.abs(_erf(x) - [math.erf(v) for v in x])) < 1.5e-7


def test_series_covers_the_run() -> None:
    p = frequency(days=0.0001)
    assert p.time_s[-1] >= 8.64
    assert p.time_s[1] - p.time_s[0] == 1.0


def _folder() -> Any:
    import tempfile

    return tempfile.TemporaryDirectory()


FOLDER = _folder()
