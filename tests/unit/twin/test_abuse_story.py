"""Stories of runaways from an event table: words, times, verdicts."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from twin.analytics.abuse import abuse_metrics, abuse_stories
from twin.telemetry.frame import PackInfo


def info(rack: str) -> PackInfo:
    return PackInfo(
        site="s", rack=rack, pack="pack-1", design="d", n_series=12, n_parallel=1, n_sensors=0,
        capacity_Ah=50.0, voltage_min_V=2.8, voltage_max_V=4.2,
        temperature_min_K=253.0, temperature_max_K=328.0,
        current_charge_max_A=35.0, current_discharge_max_A=75.0,
    )  # fmt: skip


def run_of(rows: list[tuple]) -> SimpleNamespace:
    """A run folder with these events: (t_s, rack, cell, source, kind, severity, text)."""
    names = ["t_us", "rack", "cell", "source", "kind", "severity", "text"]
    table = pd.DataFrame(rows, columns=names)
    table["t_us"] = (table["t_us"] * 1e6).astype("int64")
    table["site"] = "s"
    table["pack"] = ["" if kind == "cooling_failure" else "pack-1" for kind in table["kind"]]
    return SimpleNamespace(
        events=lambda: table,
        packs=(info("a-1"), info("b-1"), info("c-1")),
        manifest=SimpleNamespace(duration_s=1000.0),
        has=lambda name: False,
    )


ROWS = [
    (10, "a-1", 5, "fault", "internal_short", "warning", "short"),
    (50, "a-1", -1, "bms", "fault", "warning", "RUNAWAY_EARLY"),
    (51, "a-1", -1, "bms", "trip", "alarm", "opens"),
    (80, "a-1", 5, "plant", "abuse_onset", "warning", "x"),
    (90, "a-1", -1, "bms", "fault", "warning", "RUNAWAY"),
    (95, "a-1", 5, "plant", "venting", "alarm", "x"),
    (100, "a-1", 5, "plant", "thermal_runaway", "alarm", "x"),
    (400, "a-1", 5, "plant", "contained", "info", "x"),
    (0, "b-1", -1, "fault", "cooling_failure", "warning", "x"),
    (20, "b-1", 5, "fault", "internal_short", "warning", "short"),
    (80, "b-1", 5, "plant", "abuse_onset", "warning", "x"),
    (85, "b-1", -1, "bms", "trip", "alarm", "opens"),
    (100, "b-1", 5, "plant", "thermal_runaway", "alarm", "x"),
    (180, "b-1", 6, "plant", "thermal_runaway", "alarm", "x"),
    (180, "b-1", 6, "plant", "propagation", "alarm", "x"),
    (300, "b-1", 4, "plant", "thermal_runaway", "alarm", "x"),
    (30, "c-1", 1, "fault", "internal_short", "warning", "short"),
]


def test_stories_and_verdicts():
    a, b = abuse_stories(run_of(ROWS))
    assert (a.path, b.path) == ("s/a-1/pack-1", "s/b-1/pack-1"), "the third never got hot"
    assert (a.contained, b.contained) == (True, False)
    assert (a.next_cell_s, b.next_cell_s) == (None, 80.0)
    assert a.first_s == {
        "trigger": 10.0, "warning": 50.0, "trip": 51.0, "abuse_onset": 80.0, "confirmed": 90.0,
        "venting": 95.0, "thermal_runaway": 100.0,
    }  # fmt: skip
    assert [cell for cell, _ in b.burnt] == [5, 6, 4]
    assert (a.settled_s, b.settled_s) == (400.0, None)
    assert (a.cooling_failed, b.cooling_failed) == (False, True)
    assert b.within(90.0)
    assert not a.within(300.0)


def test_metrics_take_the_worst_pack():
    found = abuse_metrics(run_of(ROWS))
    assert found["packs_run_away"] == 2.0
    assert found["packs_contained"] == 1.0
    assert found["cells_run_away"] == 4.0
    assert found["next_cell_time_min"] == 80.0
    assert found["packs_spread_within_90_s"] == found["packs_spread_within_300_s"] == 1.0
    assert found["trip_before_runaway"] == pytest.approx(15.0)
    assert math.isnan(found["warning_before_runaway"]), "the second pack was never warned of"


def test_without_a_runaway_there_is_nothing_to_say():
    assert abuse_metrics(run_of(ROWS[-1:])) == {}
    assert abuse_metrics(run_of(ROWS[:4])) == {}
