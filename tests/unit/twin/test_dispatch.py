"""Dispatch strategies: what each asks for, and how a site adds them up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.scenario.profiles import Profile
from twin.world.dispatch import STRATEGIES
from twin.world.dispatch.arbitrage import Arbitrage
from twin.world.dispatch.base import SiteFacts, SiteView
from twin.world.dispatch.fcr_droop import FcrDroop
from twin.world.dispatch.follow import FollowPower, FollowSoc
from twin.world.dispatch.peak_shaving import PeakShaving
from twin.world.dispatch.self_consumption import SelfConsumption
from twin.world.dispatch.vehicle import Charge, Drive

FACTS = SiteFacts(power_W=20e3, energy_J=20e3 * 3600, duration_s=86400.0)


def view(**values):
    return SiteView(can_discharge_W=20e3, can_charge_W=20e3, **values)


def test_every_strategy_says_what_it_needs_and_what_it_is():
    for cls in STRATEGIES.values():
        assert isinstance(cls.needs, tuple)
        assert cls.__doc__


def test_self_consumption_zeroes_the_meter_between_its_bounds():
    rule = SelfConsumption().start(FACTS)
    assert rule.power_W(view(load_W=5e3, pv_W=2e3, soc=0.5)) == 3e3
    assert rule.power_W(view(load_W=1e3, pv_W=4e3, soc=0.5)) == -3e3
    assert rule.power_W(view(load_W=5e3, soc=0.1)) == 0.0
    assert rule.power_W(view(pv_W=5e3, soc=0.95)) == 0.0
    assert rule.power_W(view(load_W=5e3, soc=0.11)) == pytest.approx(2.5e3)  # half way up the taper


@given(st.floats(0, 60e3), st.floats(0, 60e3), st.floats(0, 1))
def test_peak_shaving_keeps_the_import_below_its_limit(load, pv, soc):
    rule = PeakShaving(limit_W=10e3, reserve_soc=0.3, refill_limit_W=8e3).start(FACTS)
    power = rule.power_W(view(load_W=load, pv_W=pv, soc=soc))
    assert load - pv - power <= 10e3 + 1e-6
    if soc >= 0.3 and load - pv <= 10e3:
        assert power == 0.0


def test_a_strategy_sees_what_those_before_it_ask_for():
    peak, own = PeakShaving(limit_W=10e3).start(FACTS), SelfConsumption().start(FACTS)
    seen = view(load_W=15e3, pv_W=1e3, soc=0.5)
    seen.asked_W = peak.power_W(seen)
    assert seen.asked_W == 4e3
    assert seen.asked_W + own.power_W(seen) == 14e3  # together the residual, not more


@pytest.mark.parametrize(
    ("deviation_mHz", "share"),
    [(0, 0), (10, 0), (-10, 0), (100, -0.5), (-100, 0.5), (-200, 1), (-500, 1), (350, -1)],
)
def test_fcr_droop(deviation_mHz, share):
    rule = FcrDroop(offered_W=4e3).start(FACTS)
    assert rule.power_W(view(frequency_Hz=50 + deviation_mHz * 1e-3, soc=0.5)) == pytest.approx(share * 4e3)
    assert rule.reserve_W() == 4e3


def test_fcr_brings_the_charge_back_but_never_exceeds_the_offer():
    rule = FcrDroop(offered_W=4e3).start(FACTS)
    assert rule.power_W(view(frequency_Hz=50.0, soc=0.2)) == pytest.approx(-400)
    assert rule.power_W(view(frequency_Hz=50.0, soc=0.9)) == pytest.approx(400)
    assert rule.power_W(view(frequency_Hz=49.5, soc=0.9)) == 4e3


def test_arbitrage_trades_only_when_the_spread_pays():
    time_s = np.arange(24) * 3600.0
    price = np.full(24, 50.0)
    price[3], price[18] = 10.0, 100.0
    rule = Arbitrage(power_limit_W=5e3, share=0.04).start(
        SiteFacts(power_W=2e4, energy_J=7e7, duration_s=86400.0, price=Profile(time_s, price, "step"))
    )
    wanted = [rule.power_W(view(t_s=t, price_per_J=p, soc=0.5)) for t, p in zip(time_s, price, strict=True)]
    assert wanted[3] == -5e3
    assert wanted[18] == 5e3
    assert sum(w != 0 for w in wanted) == 2
    flat = Arbitrage(power_limit_W=5e3).start(
        SiteFacts(
            power_W=2e4, energy_J=7e7, duration_s=86400.0, price=Profile(time_s, np.full(24, 50.0), "step")
        )
    )
    assert flat.power_W(view(t_s=0.0, price_per_J=50.0, soc=0.5)) == 0.0


def test_following_a_power_and_a_state_of_charge():
    ramp = Profile(np.array([0.0, 3600.0]), np.array([0.2, 0.8]), "linear")
    assert FollowPower(power=ramp).start(FACTS).power_W(view(t_s=1800.0)) == pytest.approx(0.5)
    follow = FollowSoc(soc=ramp, horizon_s=900.0).start(FACTS)
    wanted = follow.power_W(view(t_s=900.0, soc=0.3))  # 0.5 is due in 900 s
    assert wanted == pytest.approx(-(0.5 - 0.3) * FACTS.energy_J / 900.0)


def test_drive_energy_matches_the_closed_form():
    """Constant 20 m/s: rolling plus drag, through the driveline; standing still: auxiliaries only."""
    steady = Profile(np.array([0.0, 100.0]), np.array([20.0, 20.0]), "linear")
    car = {"mass_kg": 1500.0, "drag_area_m2": 0.6, "rolling": 0.01, "efficiency": 0.9, "auxiliary_W": 300.0}
    rule = Drive(at_s=50.0, cycle=steady, times=2, **car).start(FACTS)
    expected = 20 * (1500 * 9.80665 * 0.01 + 0.5 * 1.204 * 0.6 * 400) / 0.9 + 300
    assert rule.power_W(view(t_s=60.0)) == pytest.approx(expected)
    assert rule.power_W(view(t_s=49.0)) == 0.0
    assert rule.power_W(view(t_s=260.0)) == 0.0  # after the second round


def test_braking_recovers_energy():
    stop = Profile(np.array([0.0, 10.0]), np.array([20.0, 0.0]), "linear")
    rule = Drive(at_s=0.0, cycle=stop, mass_kg=1500.0, auxiliary_W=0.0).start(FACTS)
    assert rule.power_W(view(t_s=1.0, dt_s=1.0)) < -20e3


def test_charging_stops_at_its_target_and_stays_stopped():
    rule = Charge(at_s=100.0, charger_W=11e3, until_soc=0.8).start(FACTS)
    assert rule.power_W(view(t_s=99.0, soc=0.5)) == 0.0
    assert rule.power_W(view(t_s=100.0, soc=0.5)) == -11e3
    assert rule.power_W(view(t_s=200.0, soc=0.8)) == 0.0
    assert rule.power_W(view(t_s=300.0, soc=0.79)) == 0.0
