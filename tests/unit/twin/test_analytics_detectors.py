"""Detectors on packs with known faults, and on healthy ones."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.twin import fake_run
from twin.analytics.detectors import DETECTORS
from twin.analytics.detectors.base import Alert
from twin.analytics.detectors.max_min_spread import MaxMinSpread
from twin.analytics.detectors.voltage_spread import VoltageSpread
from twin.analytics.run import Watch, analyse, to_frame, to_rows
from twin.telemetry.frame import Frame

HOUR = 3600.0


@dataclass
class Trial:
    """A pack of the stand-in plant, watched by one detector."""

    n_series: int = 112
    seed: int = 0
    hours: float = 12.0
    period_s: float = 30.0
    short_at_s: float = np.inf
    short_ohm: float = 40.0
    group: int = 17  # from 1
    soc_sigma: float = 0.0025
    balancing: bool = True
    silent: int | None = None  # a channel that says nothing

    def run(self, params: VoltageSpread | MaxMinSpread) -> list[Alert]:
        rng = np.random.default_rng(self.seed)
        plant = fake_run.Plant(1, self.n_series, rng, soc_sigma=self.soc_sigma, balancing=self.balancing)
        state = params.start(fake_run.pack_info(n_series=self.n_series))
        t = np.arange(0.0, self.hours * HOUR, self.period_s)
        wish = fake_run.day_current(t, rng)
        said = []
        for t_s, wish_A in zip(t.tolist(), wish.tolist(), strict=True):
            if t_s >= self.short_at_s:
                plant.short_ohm[0, self.group - 1] = self.short_ohm
            current = float(plant.step(np.array([wish_A]), 298.15, self.period_s)[0])
            volts = plant.measure()[0]
            if self.silent is not None:
                volts[self.silent - 1] = np.nan
            frame = row(t_s, volts, current=current + 0.02 * rng.normal(), soc=float(plant.soc_bms[0]))
            frame.balancing = plant.bleed[0]
            alert = state.update(frame)
            if alert is not None:
                said.append(alert)
        return said


def row(t_s: float, volts: np.ndarray, *, current: float = 0.0, soc: float = 0.5) -> Frame:
    return Frame(
        t_s=t_s, site="depot", rack="rack-1", pack="pack-1", current_A=current, pack_voltage_V=400.0,
        group_voltage_V=volts, temperature_K=np.full(4, 298.15), soc_bms=soc, bms_state=3, level=0,
        fault_mask=0, contactors=1, balancing=np.zeros(volts.size, dtype=bool), sample_age_s=0.0, power_W=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("word", sorted(DETECTORS))
def test_every_detector_can_be_chosen_and_explained(word: str) -> None:
    params = DETECTORS[word]()
    assert params.word == word
    assert (DETECTORS[word].__doc__ or "").strip()
    assert params.detects
    for entry in fields(params):
        assert entry.metadata["about"]
        if entry.metadata["type"] == "quantity":
            assert entry.metadata["key"]
            assert entry.metadata["dimension"]
    with pytest.raises(AttributeError):
        params.hold_s = 0.0  # frozen: a scenario's choice does not change under way


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_short_of_40_ohm_is_named_within_hours_and_nothing_else(seed: int) -> None:
    said = Trial(seed=seed, short_at_s=4 * HOUR, group=10 * seed).run(VoltageSpread())
    assert {alert.group for alert in said} == {10 * seed}
    assert said[0].severity == "warning"
    assert 0.0 < said[0].t_s - 4 * HOUR < 6 * HOUR  # 0.46 %/h, about 3 mV/h at this state of charge
    assert "below" in said[0].text
    assert said[0].score > said[0].threshold == 3.0


def test_a_short_is_found_although_balancing_hides_it() -> None:
    """All other groups are bled at the rate of the short, so the voltages themselves stay together."""
    trial = Trial(seed=5, short_at_s=4 * HOUR, hours=14.0)
    said = trial.run(VoltageSpread())
    assert said
    assert said[0].group == trial.group
    assert not trial.run(MaxMinSpread())


def test_balancing_alone_raises_nothing() -> None:
    assert Trial(seed=6, n_series=28, soc_sigma=0.012, hours=30.0, period_s=60.0).run(VoltageSpread()) == []


@pytest.mark.parametrize("n_series", [4, 96])
def test_healthy_packs_are_left_in_peace(n_series: int) -> None:
    for seed in (11, 12):
        trial = Trial(seed=seed, n_series=n_series, hours=36.0, period_s=60.0)
        assert trial.run(VoltageSpread()) == []


def test_nothing_is_said_during_the_warm_up() -> None:
    params = VoltageSpread(warm_up_s=3 * HOUR)
    said = Trial(seed=3, n_series=14, short_at_s=0.0, short_ohm=3.0, group=2, hours=8.0).run(params)
    assert said
    assert min(alert.t_s for alert in said) > 3 * HOUR
    assert {alert.group for alert in said} == {2}


def test_a_silent_channel_is_no_deviation() -> None:
    trial = Trial(seed=4, n_series=14, hours=8.0, silent=5)
    assert trial.run(VoltageSpread()) == []
    trial = replace(trial, short_at_s=3 * HOUR, short_ohm=10.0, group=2)
    assert {alert.group for alert in trial.run(VoltageSpread())} == {2}
    state = VoltageSpread().start(fake_run.pack_info(n_series=14))
    for k in range(600):
        assert state.update(row(10.0 * k, np.full(14, np.nan))) is None
    assert state.observed_s == 0.0


def test_old_samples_are_not_looked_at() -> None:
    state = VoltageSpread().start(fake_run.pack_info(n_series=14))
    for k in range(600):
        frame = row(10.0 * k, np.full(14, 3.7))
        frame.sample_age_s = 31.0
        assert state.update(frame) is None
    assert state.observed_s == 0.0


def test_it_says_so_when_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match=r"needs at least 4; depot/rack-1/pack-1 has 3"):
        VoltageSpread().start(fake_run.pack_info(n_series=3))
    with pytest.raises(ValueError, match="listed twice"):
        Watch([VoltageSpread(), VoltageSpread(threshold_V=0.01)], [fake_run.pack_info()])


def test_max_min_spread_holds_and_speaks_once() -> None:
    state = MaxMinSpread(threshold_V=0.05, alarm_V=0.1, hold_s=60.0).start(fake_run.pack_info(n_series=4))
    volts = np.array([3.7, 3.7, 3.7, 3.7])
    low = np.array([3.7, 3.64, 3.7, 3.7])
    lower = np.array([3.7, 3.55, np.nan, 3.7])
    said = []
    plan = [
        (0, low),
        (30, low),
        (40, volts),
        (50, low),
        (100, low),
        (110, low),
        (200, low),
        (300, lower),
        (361, lower),
    ]
    for t_s, value in plan:
        alert = state.update(row(float(t_s), value))
        if alert is not None:
            said.append((alert.t_s, alert.severity, alert.group, round(alert.score, 3)))
    assert said == [(110.0, "warning", 2, 60.0), (361.0, "alarm", 2, 150.0)]


def test_the_same_alerts_in_the_loop_and_from_the_disk(tmp_path: Path) -> None:
    run = fake_run.record(tmp_path / "x", hours=11.0, period_s=30.0, short=(1, 4, 4.0, 20.0))
    detectors = [VoltageSpread(), MaxMinSpread(threshold_V=8e-3)]
    table = analyse(run, detectors)
    assert set(table["detector"]) == {"voltage_spread", "max_min_spread"}
    watch = Watch(detectors, run.packs)
    alerts = [alert for frame in run.frames() for alert in watch.update(frame)]
    assert to_rows(to_frame(alerts)) == to_rows(table)
    assert table["t_us"].is_monotonic_increasing
    assert table["t_us"].mod(30_000_000).eq(0).all()
