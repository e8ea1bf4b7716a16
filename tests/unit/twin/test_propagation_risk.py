"""The observer of the propagation risk: what it concludes from measured rows alone, and how it is scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pack_models.propagation.risk import load_table
from twin.analytics.detectors.propagation_risk import PropagationRisk
from twin.analytics.risk_table import load_risk_table, risk_table_names
from twin.telemetry.frame import Frame, PackInfo

OCV_SOC = tuple(np.linspace(0.0, 1.0, 11))
OCV_V = tuple(np.linspace(3.0, 4.1, 11))
INFO = PackInfo(
    site="s", rack="r", pack="p", design="module", n_series=12, n_parallel=1, n_sensors=6, capacity_Ah=50.0,
    voltage_min_V=2.8, voltage_max_V=4.18, temperature_min_K=253.15, temperature_max_K=328.15,
    current_charge_max_A=35.0, current_discharge_max_A=75.0, sensor_group=(1, 3, 5, 7, 9, 11),
    ocv_soc=OCV_SOC, ocv_V=OCV_V, risk_table="pack3x4",
)  # fmt: skip


def frame(t_s=0.0, volts=None, kelvin=None, cooling=1.0, soc=0.9) -> Frame:
    group_V = np.full(12, 3.99)
    for group, value in (volts or {}).items():
        group_V[group - 1] = value
    sensors = np.full(6, 298.15)
    for group, value in (kelvin or {}).items():
        sensors[INFO.sensor_group.index(group)] = value
    return Frame(
        t_s=t_s, site="s", rack="r", pack="p", current_A=0.0, pack_voltage_V=float(group_V.sum()),
        group_voltage_V=group_V, temperature_K=sensors, soc_bms=soc, bms_state=3, level=0, fault_mask=0,
        contactors=1, balancing=np.zeros(12, dtype=bool), sample_age_s=0.0, power_W=0.0, cooling=cooling,
    )  # fmt: skip


@pytest.mark.parametrize("name", risk_table_names())
def test_both_readers_of_a_table_agree(name):
    """twin reads the data, not the engine; what it interpolates must be the same."""
    here, there = load_risk_table(name), load_table(name)
    for cell, soc, cooling in ((0, 1.0, 1.0), (5, 0.6, 0.3), (11, 0.2, 2.0)):
        ours = here.after(cell, soc, cooling)
        theirs = [r for r in there.predict(cell, soc, cooling) if np.isfinite(r.after_s[1])]
        assert [(p.cell, p.probability) for p in ours] == [(r.cell, r.probability) for r in theirs]
        np.testing.assert_allclose([p.after_s for p in ours], [r.after_s for r in theirs])


def test_a_healthy_pack_is_left_alone():
    state = PropagationRisk().start(INFO)
    rng = np.random.default_rng(2)
    for k in range(200):
        volts = {g: 3.99 + 2e-3 * rng.normal() for g in range(1, 13)}
        assert state.update(frame(10.0 * k, volts)) is None
    assert state.forecasts == []


def test_a_collapsed_group_has_gone_and_its_neighbours_are_next():
    state = PropagationRisk().start(INFO)
    assert state.update(frame(0.0)) is None
    said = state.update(frame(1.0, {6: 0.1}))
    assert (said.severity, said.group) == ("alarm", 6)
    (forecast,) = state.forecasts
    assert (forecast.group, forecast.probability) == (6, 1.0)
    expected = load_risk_table("pack3x4").after(5, 0.9, 1.0)
    assert [p.cell for p in forecast.prospects] == [p.cell for p in expected]
    nearest = min(forecast.prospects, key=lambda p: p.after_s[1])
    assert nearest.cell + 1 in (5, 7)
    assert said.score == pytest.approx(max(p.probability for p in expected))
    assert f"group {expected[0].cell + 1} " in said.text
    assert state.update(frame(2.0, {6: 0.1})) is None, "said once"


def test_the_charge_before_the_first_loss_counts():
    """A BMS with dead cells reports an empty pack; the cells that are left are as full as they were."""
    state = PropagationRisk().start(INFO)
    state.update(frame(0.0, soc=0.9))
    state.update(frame(1.0, {6: 0.1}, soc=0.0))
    state.update(frame(2.0, {6: 0.1, 7: 0.1}, soc=0.0))
    expected = load_risk_table("pack3x4").after(6, 0.9, 1.0)
    assert [p.probability for p in state.forecasts[1].prospects] == [p.probability for p in expected]


def test_a_hot_sensor_warns_first_then_alarms():
    state = PropagationRisk().start(INFO)
    assert state.update(frame(0.0, kelvin={5: 380.0})) is None
    warning = state.update(frame(1.0, kelvin={5: 430.0}))
    assert (warning.severity, warning.group) == ("warning", 5)
    assert state.forecasts[0].probability == pytest.approx((430.0 - 363.15) / 120.0)
    alarm = state.update(frame(2.0, kelvin={5: 490.0}))
    assert (alarm.severity, alarm.group) == ("alarm", 5)


def test_a_rate_that_leads_there_warns_earlier():
    """0.5 K/s: two minutes ahead are 60 K, so the warning comes at 363.15 + 60 - 60 K."""
    state = PropagationRisk().start(INFO)
    said = [(k, state.update(frame(2.0 * k, kelvin={7: 300.0 + 1.0 * k}))) for k in range(80)]
    (first, warning), *_ = [(k, a) for k, a in said if a is not None]
    assert (warning.severity, warning.group) == ("warning", 7)
    assert 300.0 + first == pytest.approx(363.15, abs=1.5)


def test_a_short_without_a_sensor_is_seen_in_the_charge_it_eats():
    """One kilowatt in a group of 800 J/K: 0.25 of 50 Ah are 180 kJ and 225 K, adiabatically."""
    state = PropagationRisk().start(INFO)
    alerts = []
    for k in range(181):
        lost = 1000.0 * k / (50.0 * 3600.0 * 3.99)
        alerts.append(state.update(frame(float(k), {6: 3.99 - 1.1 * lost})))
    said = [a for a in alerts if a is not None]
    assert [a.severity for a in said] == ["warning", "alarm"]
    assert said[0].group == 6
    # 1 kW into 800 J/K are 1.25 K/s: two minutes of that pass the half way as soon as there is a rate.
    assert alerts.index(said[0]) == pytest.approx(20, abs=3)
    assert "short 0.0159 ohm" in said[0].text


def test_cooling_is_taken_on_trust_or_not():
    table = load_risk_table("pack3x4")
    chances = {}
    for trust in (True, False):
        state = PropagationRisk(trust_cooling=trust).start(INFO)
        state.update(frame(0.0, soc=0.5))
        state.update(frame(1.0, {1: 0.1}, soc=0.5))
        chances[trust] = [p.probability for p in state.forecasts[0].prospects]
    assert chances[True] == [p.probability for p in table.after(0, 0.5, 1.0)]
    assert chances[False] == [p.probability for p in table.after(0, 0.5, 0.0)]
    assert chances[True] != chances[False]


def test_a_pack_without_a_fitting_table_is_refused():
    with pytest.raises(ValueError, match=r"needs a learnt table for s/r/p: propagation: \{risk_table"):
        PropagationRisk().start(replace(INFO, risk_table=""))
    with pytest.raises(ValueError, match="modules of 12 cells; s/r/p has 13 cells"):
        PropagationRisk().start(replace(INFO, n_series=13))
    with pytest.raises(ValueError, match="no risk table named 'pack9'; expected one of"):
        PropagationRisk().start(replace(INFO, risk_table="pack9"))
    assert PropagationRisk(onset_K=400.0, inevitable_K=390.0).mistakes()[0][0] == "inevitable"
