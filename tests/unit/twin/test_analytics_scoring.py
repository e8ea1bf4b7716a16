"""Scores of hand-made alerts against hand-made faults, and intervals against published tables."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.unit.twin import fake_run
from twin.analytics.detectors.base import Alert
from twin.analytics.detectors.max_min_spread import MaxMinSpread
from twin.analytics.detectors.voltage_spread import VoltageSpread
from twin.analytics.evaluate import evaluate
from twin.analytics.run import to_frame
from twin.analytics.scoring import (
    YEAR_S,
    detection_metrics,
    faults_of,
    poisson_interval,
    score,
    score_together,
    share_interval,
)
from twin.telemetry.manifest import Manifest
from twin.telemetry.reader import RunFolder
from twin.telemetry.sink import RunWriter

HOURS = 100


def silent_run(out: Path, events: list[dict[str, object]], short_A: float = 0.1) -> RunFolder:
    """Four packs in two racks, one row an hour, nothing but the clock and these events."""
    infos = [
        fake_run.pack_info(rack=f"rack-{1 + k // 2}", pack=f"pack-{1 + k % 2}", n_series=4) for k in range(4)
    ]
    zero = np.zeros(4)
    with RunWriter(out, packs=infos) as writer:
        for event in events:
            writer.event(**{"text": "", "site": "depot", "severity": "warning", **event})  # type: ignore[arg-type]
        for k in range(HOURS + 1):
            t_us = k * 3_600_000_000
            writer.measured.append_block(
                t_us,
                None,
                {
                    "current_A": zero, "pack_voltage_V": 14.8, "group_voltage_V": np.full(16, 3.7),
                    "temperature_K": np.full(4, 298.15), "soc_bms": 0.5, "current_limit_charge_A": 1.0,
                    "current_limit_discharge_A": 1.0, "bms_state": 3, "level": 0, "fault_mask": 0,
                    "contactors": 1, "power_W": zero,
                },
            )  # fmt: skip
            writer.truth.append_block(
                t_us,
                None,
                {
                    "soc_mean": 0.5, "soc_min": 0.4, "soc_max": 0.6, "soc": np.full(16, 0.5),
                    "temperature_mean_K": 298.0, "temperature_min_K": 297.0, "temperature_max_K": 300.0,
                    "voltage_min_V": 3.6, "voltage_max_V": 3.8, "current_A": 0.0, "heat_W": 0.0,
                    "short_current_A": short_A, "weakest_cell": 1, "hottest_cell": 1,
                },
            )  # fmt: skip
        return writer.complete(Manifest(scenario="x"))


def short(hour: float, rack: int, pack: int, cell: int) -> dict[str, object]:
    return {
        "t_us": int(hour * 3.6e9), "source": "fault", "kind": "internal_short", "rack": f"rack-{rack}",
        "pack": f"pack-{pack}", "cell": cell, "value": 40.0, "unit": "ohm",
    }  # fmt: skip


def alert(hour: float, rack: int, pack: int, group: int | None, detector: str = "voltage_spread") -> Alert:
    return Alert(
        t_s=hour * 3600.0, site="depot", rack=f"rack-{rack}", pack=f"pack-{pack}", group=group,
        detector=detector, severity="warning", score=1.0, threshold=1.0, unit="mV", text="",
    )  # fmt: skip


def test_true_false_beside_missed(tmp_path: Path) -> None:
    cooling = {"t_us": int(50 * 3.6e9), "source": "fault", "kind": "cooling_failure", "rack": "rack-2"}
    healed = {**short(30, 1, 1, 6), "severity": "info"}
    venting = {
        "t_us": int(40 * 3.6e9),
        "source": "plant",
        "kind": "venting",
        "rack": "rack-1",
        "pack": "pack-1",
    }
    run = silent_run(tmp_path / "x", [short(10, 1, 1, 6), short(20, 1, 2, 1), cooling, healed, venting])
    faults = faults_of(run)
    assert [(f.kind, f.group) for f in faults] == [
        ("internal_short", 2), ("internal_short", 1), ("cooling_failure", None),
    ]  # fmt: skip
    alerts = to_frame(
        [
            alert(9, 1, 1, 2),  # before the fault: false
            alert(12, 1, 1, 2),  # true, 2 h
            alert(13, 1, 1, 2),  # true again, not earlier
            alert(14, 1, 1, 3),  # the wrong group: false
            alert(15, 2, 1, 1),  # a healthy pack: false
            alert(60, 2, 1, 1),  # its rack has lost its cooling: beside
            alert(16, 1, 1, None, "max_min_spread"),  # the pack as a whole: true, 6 h
            alert(26, 1, 2, 1, "max_min_spread"),  # true, 6 h
        ]
    )
    spread, trivial = score(run, alerts, [VoltageSpread(), MaxMinSpread()], faults=faults)
    assert (spread.faults, spread.detected, spread.missed, spread.undetectable) == (2, 1, 1, 0)
    assert (spread.alerts, spread.false_alarms, spread.beside) == (6, 3, 1)
    assert spread.delay_median_s == spread.delay_max_s == 2 * 3600.0
    assert spread.lead_min_s == 28 * 3600.0
    assert spread.detection_rate == 0.5
    exposure_s = (4 * 100 - 90 - 80) * 3600.0
    assert spread.pack_years == pytest.approx(exposure_s / YEAR_S)
    assert spread.false_alarms_per_pack_year == pytest.approx(3 / (exposure_s / YEAR_S))
    assert (spread.packs, spread.faulty_packs) == (4, 2)
    assert (trivial.detected, trivial.missed, trivial.false_alarms) == (2, 0, 0)

    both = score_together(run, alerts, [VoltageSpread(), MaxMinSpread()], faults=faults)
    metrics = detection_metrics(both, alerts)
    assert metrics["detected_faults"] == 2.0
    assert metrics["detection_delay"] == 6 * 3600.0  # of the fault that was found last
    assert metrics["warning_before_venting"] == 28 * 3600.0
    assert metrics["false_alarms"] == 3.0


def test_a_short_too_weak_to_see_is_no_miss_of_the_detector(tmp_path: Path) -> None:
    # 20 uA for 90 h drain 0.009 % of 20 Ah: a tenth of a millivolt.
    run = silent_run(tmp_path / "x", [short(10, 1, 1, 6)], short_A=20e-6)
    (fault,) = faults_of(run)
    assert fault.effect_V == pytest.approx(0.9e-4, rel=0.3)
    (spread,) = score(run, to_frame([]), [VoltageSpread()], faults=[fault])
    assert (spread.faults, spread.detected, spread.missed, spread.undetectable) == (1, 0, 0, 1)
    together = score_together(run, to_frame([]), [VoltageSpread()], faults=[fault])
    assert detection_metrics(together, to_frame([]))["missed_faults"] == 1.0  # the operator is not comforted


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(0, 0.0, 3.6889), (1, 0.0253, 5.5716), (5, 1.6235, 11.6683), (10, 4.7954, 18.3904)],
)
def test_poisson_interval_is_garwoods(count: int, low: float, high: float) -> None:
    """Values of the published table (Garwood 1936; e.g. Ulm, Am. J. Epidemiol. 131 (1990) 373)."""
    assert poisson_interval(count) == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize(
    ("hits", "tries", "low", "high"),
    [(0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0), (1, 20, 0.0013, 0.2487)],
)
def test_share_interval_is_clopper_pearsons(hits: int, tries: int, low: float, high: float) -> None:
    assert share_interval(hits, tries) == pytest.approx((low, high), abs=5e-4)


def test_without_faults_or_detectors(tmp_path: Path) -> None:
    run = silent_run(tmp_path / "x", [])
    (spread,) = score(run, to_frame([]), [VoltageSpread()], faults=[])
    assert math.isnan(spread.detection_rate)
    assert spread.false_alarms_high == pytest.approx(3.6889 / spread.pack_years, rel=1e-3)
    assert detection_metrics(None, to_frame([])) == {"alerts": 0.0}


def test_evaluate_scores_the_baseline_beside_the_chosen_detectors(tmp_path: Path) -> None:
    run = fake_run.record(tmp_path / "x", hours=12.0, period_s=30.0, short=(1, 4, 4.0, 20.0))
    result = evaluate(run, [VoltageSpread()])
    assert [(s.detector, s.baseline) for s in result.scores] == [
        ("voltage_spread", False),
        ("max_min_spread", True),
    ]
    assert result.scores[0].detected == 1
    assert set(result.alerts["detector"]) == {"voltage_spread"}
    assert 0.0 < result.metrics["detection_delay"] < 6 * 3600.0
    assert result.metrics["missed_faults"] == 0.0
    assert result.ok
