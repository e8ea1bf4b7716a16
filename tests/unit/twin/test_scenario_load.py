"""The loader on good scenarios: SI values, defaults, layers (include, anchors, --set), targets."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from known import KNOWN, FcrDroop, InternalShort, SelfConsumption, SensorStuck, VoltageSpread

from twin.scenario.errors import ScenarioError
from twin.scenario.load import load, loads
from twin.scenario.schema import Scenario

FULL = """
about: New charge limits reach a bus depot in a hot week.
seed: 7
start: 2016-07-01 06:00+02:00
duration: 7 d
time: {step: 2 s, zoom: {step: 0.5 s}}
telemetry: {period: 10 s, truth_period: 2 min}
sites:
  - name: depot
    ambient: {package: emobpy/temperature_de, offset: 6 K}
    load: {package: ev2gym/residential_loads, column: home_01+home_02, scale: 3}
    pv: {package: ev2gym/pv_nl, peak: 50 kW}
    price: {file: prices.csv, column: price, unit: EUR/MWh, align: exact}
    frequency: {synthetic: grid_frequency, std: 25 mHz}
    converter: {power: 60 kW}
    dispatch: [self_consumption, {strategy: fcr_droop, power: 5 kW, symmetric: false}]
    racks:
      - {name: old, count: 2, pack: {design: container_20s}}
      - {name: new, count: 3, packs_per_rack: 4, pack: {design: bus_14s, spread: {capacity: 2 %}}}
  - name: home
    ambient: 20 degC
    racks: {pack: {design: bus_14s, initial_temperature: 18 degC}}
faults:
  - {at: 3 d 04:12:07, target: depot/new-2/pack-3/cell-9, kind: internal_short, resistance: 40 ohm}
  - {kind: sensor_stuck, at: 1 d, target: home/rack-1/pack-1/temperature-4}
analytics: [voltage_spread, {detector: voltage_spread, threshold: 50 mV}]
expect:
  - {metric: warning_before_venting, at_least: 20 min}
  - {metric: energy_balance, at_most: 1e-9}
"""


def scenario(text: str = FULL, *overrides: str, seed: int | None = None) -> Scenario:
    return loads(text, KNOWN, overrides, seed, label="full.yaml")


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        scenario(text, *overrides)
    return [f"{p.file}:{p.line}:{p.column} {p.path}: {p.message}" for p in caught.value.problems]


def test_everything_is_si_and_typed() -> None:
    s = scenario()
    depot, home = s.sites
    assert (s.name, s.seed, s.duration_s) == ("full", 7, 604_800.0)
    assert s.start == datetime(2016, 7, 1, 4, 0)  # converted to UTC
    assert (s.time.step_s, s.time.zoom.step_s, s.time.zoom.after_s) == (2.0, 0.5, 60.0)
    assert depot.dispatch == (SelfConsumption(), FcrDroop(power_W=5000.0, symmetric=False))
    assert depot.converter.power_W == 60_000.0
    assert home.racks[0].pack.initial_temperature_K == 291.15
    assert depot.racks[1].pack.spread.capacity == 0.02
    assert depot.racks[1].pack.spread.resistance is None
    assert home.dispatch == ()
    assert home.load is None
    assert s.faults == (
        InternalShort(at_s=274_327.0, target="depot/new-2/pack-3/cell-9", resistance_ohm=40.0),
        SensorStuck(at_s=86_400.0, target="home/rack-1/pack-1/temperature-4"),
    )
    assert s.analytics == (VoltageSpread(), VoltageSpread(threshold_V=0.05))
    assert s.expect[0].at_least == 1200.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        s.seed = 3  # type: ignore[misc]


def test_profiles_carry_their_source() -> None:
    depot = scenario().sites[0]
    assert depot.ambient.package == "emobpy/temperature_de"
    assert (depot.ambient.offset, depot.ambient.hold) == (6.0, "linear")
    assert depot.load is not None
    assert (depot.load.column, depot.load.scale) == ("home_01 + home_02", 3.0)
    assert depot.pv is not None
    assert depot.pv.scale == 50_000.0
    assert depot.price is not None
    assert (depot.price.file, depot.price.unit, depot.price.align) == ("prices.csv", "EUR/MWh", "exact")
    assert depot.price.where == "full.yaml:13:19"
    assert depot.frequency is not None
    assert dict(depot.frequency.params)["std_Hz"] == 0.025
    assert dict(depot.frequency.params)["nominal_Hz"] == 50.0


def test_words_are_text_whatever_yaml_11_thinks_of_them() -> None:
    text = """
about: no
duration: 04:12:08
sites: {name: "on", ambient: 0o17 degC, racks: {name: y, pack: {design: bus_14s}}}
"""
    assert problems(text) == ["full.yaml:4:30 sites[0].ambient: no unit 'o17 degC' of temperature"]
    s = scenario(text.replace("0o17", "017"))
    assert (s.about, s.duration_s, s.sites[0].name) == ("no", 15_128.0, "on")
    assert s.sites[0].ambient.constant == 290.15


def test_anchors_and_merge_keys() -> None:
    text = """
about: anchors
duration: 1 d
sites:
  - name: a
    ambient: &air 20 degC
    racks:
      - &old {name: old, count: 2, pack: &pack {design: bus_14s}}
      - {<<: *old, name: new, pack: {<<: *pack, initial_soc: 80 %}}
  - {name: b, ambient: *air, racks: [*old]}
"""
    a, b = scenario(text).sites
    assert (a.racks[1].name, a.racks[1].count) == ("new", 2)
    assert (a.racks[1].pack.design, a.racks[1].pack.initial_soc) == ("bus_14s", 0.8)
    assert b.racks == (a.racks[0],)
    assert b.ambient == a.ambient


def test_include_lies_beneath_and_paths_follow_the_file_that_says_them(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "site.yaml").write_text(
        "sites:\n  - name: depot\n    ambient: {file: air.csv, column: t, unit: degC}\n"
        "    racks: {pack: {design: bus_14s}}\nseed: 3\ntime: {step: 2 s}\n"
    )
    (tmp_path / "week.yaml").write_text("include: base.yaml\nduration: 7 d\nseed: 4\n")
    (tmp_path / "base.yaml").write_text(
        "include: shared/site.yaml\nabout: base\nduration: 1 d\ntime: {bms_rate: plant}\n"
    )
    s = load(tmp_path / "week.yaml", KNOWN)
    assert (s.name, s.about, s.duration_s, s.seed) == ("week", "base", 604_800.0, 4)
    assert (s.time.step_s, s.time.bms_rate) == (2.0, "plant")
    assert s.sites[0].ambient.file == str(Path("shared/air.csv"))


def test_set_changes_one_value_and_adds_what_is_a_default() -> None:
    s = scenario(
        FULL,
        "sites.0.racks.0.count=4",
        "sites[depot].racks[new].pack.initial_soc=60%",
        "telemetry.period=20s",
        "sites[home].converter.power=9 kW",
        "faults[0].at=3h",
        "analytics[0].threshold=20mV",
        "sites[depot].dispatch[self_consumption].reserve=20 %",
        "sites[depot].ambient=31 degC",
        "sites[depot].pv.peak=70 kW",
        "sites[depot].frequency.std=30 mHz",
        "expect=[{metric: detected, equals: 1}]",
        seed=11,
    )
    depot, home = s.sites
    assert [g.count for g in depot.racks] == [4, 3]
    assert depot.racks[1].pack.initial_soc == 0.6
    assert depot.racks[1].pack.spread.capacity == 0.02  # the rest stays
    assert (s.telemetry.period_s, s.telemetry.truth_period_s) == (20.0, 120.0)
    assert home.converter.power_W == 9000.0
    assert s.faults[0].at_s == 10_800.0
    assert s.analytics[0] == VoltageSpread(threshold_V=0.02)
    assert depot.dispatch[0] == SelfConsumption(reserve=0.2)
    assert depot.ambient.constant == 304.15
    assert depot.ambient.where == "--set:8:22"
    assert depot.pv is not None
    assert depot.pv.scale == 70_000.0
    assert depot.frequency is not None
    assert dict(depot.frequency.params)["std_Hz"] == 0.03
    assert [e.equals for e in s.expect] == [1.0]
    assert s.seed == 11


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("duration", "--set:1:1 : no '='"),
        ("=3", "--set:1:1 : no path before '='"),
        ("durration=3 d", "--set:1:1 : no key 'durration' here"),
        ("duration.x=3 d", "--set:1:10 duration: 'x' below a single value"),
        ("sites[2].name=x", "--set:1:6 sites: no item 2 in sites"),
        ("sites[dpot].name=x", "--set:1:6 sites: no name 'dpot' in sites"),
        (
            "analytics[voltage_spread].threshold=1 V",
            "--set:1:10 analytics: 2 items are called 'voltage_spread'",
        ),
        ("sites[home].racks[rack].pack.desing=x", "--set:1:30 sites[1].racks[0].pack: no key 'desing' here"),
        ("sites[depot].pv.pek=3 kW", "--set:1:17 sites[0].pv: no key 'pek' here"),
        ("sites[home].dispatch[0]=x", "--set:1:21 sites[1].dispatch: '0' of an empty list"),
        ("a..b=3", "--set:1:3 a..b: not a path"),
        ("duration=3 kW", "--set:1:10 duration: 'kW' is a unit of power, not of time"),
        ("duration=", "--set:1:10 duration: nothing given"),
        ("faults=[1", "--set:1:8 : not YAML: a list that is not closed"),
        ("faults[0].kind=fire", "--set:1:16 faults[0].kind: no fault named 'fire'"),
    ],
)
def test_set_that_leads_nowhere(override: str, said: str) -> None:
    assert said in problems(FULL, override)


def test_set_errors_show_the_word_and_a_guess() -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(FULL, "seed=3", "telemetry.perod=5 s")
    assert str(caught.value) == (
        "--set:2:11: telemetry: no key 'perod' here\n"
        "     2 | telemetry.perod=5 s\n"
        "       |           ^^^^^\n"
        "  expected one of period, truth_period\n"
        "  did you mean 'period'?\n\n"
        "1 problem in full.yaml; nothing was run."
    )


def test_problems_come_in_the_order_of_the_file_then_the_command_line() -> None:
    lines = problems(FULL.replace("7 d", "7 W").replace("20 min", "20 V"), "seed=x")
    assert [line.split()[0] for line in lines] == ["full.yaml:5:11", "full.yaml:28:48", "--set:1:6"]


def test_names_with_dashes_are_told_apart() -> None:
    text = FULL.replace("name: old", "name: new-1").replace("depot/new-2/", "depot/new-1-2/pack-1/")
    assert problems(text.replace("pack-1/pack-3/cell-9", "pack-1/cell-21")) == [
        "full.yaml:24:32 faults[0].target: no 'cell-21' in depot/new-1-2/pack-1 (container_20s)"
    ]


def test_unreadable_files(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "nothing.yaml", "no such file"),
        (Path("/dev/null"), "is not a regular file"),
        (tmp_path / "big.yaml", "is larger than 1000 kB"),
        (tmp_path / ("x" * 300), "cannot be read (File name too long)"),
        (tmp_path / "a\0b", "no such file"),
    ):
        if path.name == "big.yaml":
            path.write_text("# " + "x" * 1_000_001)
        with pytest.raises(ScenarioError) as caught:
            load(path, KNOWN)
        assert caught.value.problems[0].message == said
        assert caught.value.exit_code == 2


def test_the_loader_starts_without_pandas() -> None:
    code = (
        "import sys, twin.scenario.load, twin.scenario.profiles;"
        "print(sorted({'pandas', 'pyarrow', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_errors_travel_between_processes() -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(FULL.replace("7 d", "7 W"))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.problems) == (str(caught.value), caught.value.problems)
