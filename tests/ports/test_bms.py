"""Promises every rung of the BMS ladder keeps (twin/ports.py: Bms)."""

from __future__ import annotations

import numpy as np
import pytest

from twin.adapters.bms import RUNGS, Fitting
from twin.adapters.catalogue import pack_sheets
from twin.ports import MeasuredFrame

SHEET = pack_sheets()["bus_14s2p"]
N_PACKS = 3
STEP_US = 100_000


@pytest.fixture(params=RUNGS)
def bms(request):
    return RUNGS[request.param].build(SHEET, N_PACKS, Fitting())


def frame(volts=3.7, kelvin=298.15, amps=0.0, link=None, pressure=np.nan, gas=np.nan, insulation=np.nan):
    pack = SHEET.n_series * volts
    return MeasuredFrame(
        group_voltage_V=np.full(N_PACKS * SHEET.n_series, volts),
        temperature_K=np.full(N_PACKS * len(SHEET.sensor_group), kelvin),
        current_A=np.full(N_PACKS, amps),
        pack_voltage_V=np.full(N_PACKS, pack),
        link_voltage_V=np.full(N_PACKS, pack) if link is None else np.full(N_PACKS, link),
        pressure_Pa=np.full(N_PACKS, pressure),
        gas_fraction=np.full(N_PACKS, gas),
        insulation_ohm=np.full(N_PACKS, insulation),
        main_contacts=np.zeros(N_PACKS, dtype=np.int8),
    )


def connect(bms, steps=100):
    """Close against a link that follows the commands, as the plant would show it."""
    bms.request(np.ones(N_PACKS, dtype=bool))
    link = 0.0
    for _ in range(steps):
        commands = bms.step(frame(link=link), STEP_US)
        if np.any(commands.main_closed | commands.precharge_closed):
            link = SHEET.n_series * 3.7
    return commands


def test_begins_open_and_closes_through_precharge(bms):
    assert not bms.commands.main_closed.any()
    bms.request(np.ones(N_PACKS, dtype=bool))
    seen = []
    link = 0.0
    for _ in range(60):
        commands = bms.step(frame(link=link), STEP_US)
        seen.append((bool(commands.precharge_closed[0]), bool(commands.main_closed[0])))
        if commands.precharge_closed[0] or commands.main_closed[0]:
            link = SHEET.n_series * 3.7
    assert (True, False) in seen[: seen.index((False, True))], "main contactors only after precharge"
    assert seen[-1] == (False, True)


def test_stays_open_when_the_link_does_not_charge(bms):
    bms.request(np.ones(N_PACKS, dtype=bool))
    for _ in range(600):
        commands = bms.step(frame(link=0.0), STEP_US)
        assert not commands.main_closed.any()
    assert commands.tripped.all()


def test_limits_open_up_after_closing_and_never_pass_the_data_sheet(bms):
    commands = connect(bms)
    assert np.all(commands.discharge_limit_A == SHEET.discharge_limit_A)
    assert np.all((commands.charge_limit_A > 0) & (commands.charge_limit_A <= SHEET.charge_limit_A))


@pytest.mark.parametrize("change", [{"volts": 4.35}, {"volts": 2.3}, {"kelvin": 340.0}])
def test_a_safety_limit_opens_the_contactors_and_latches(bms, change):
    connect(bms)
    for _ in range(50):
        commands = bms.step(frame(**change), STEP_US)
    assert commands.tripped.all()
    assert not commands.main_closed.any()
    assert np.all(commands.discharge_limit_A == 0)
    assert np.all(commands.charge_limit_A == 0)
    assert np.all(commands.level == 3)
    assert np.all(commands.fault_mask > 0)
    for _ in range(50):
        commands = bms.step(frame(), STEP_US)  # all is well again
    assert commands.tripped.all(), "latched until reset"


@pytest.mark.parametrize("change", [{"pressure": 3e4}, {"gas": 0.03}, {"insulation": 1e3}])
def test_the_housing_is_watched_too(bms, change):
    connect(bms)
    for _ in range(100):
        commands = bms.step(frame(pressure=0.0, gas=0.0, insulation=20e6), STEP_US)
    assert not commands.tripped.any()
    for _ in range(100):
        commands = bms.step(frame(**({"pressure": 0.0, "gas": 0.0, "insulation": 20e6} | change)), STEP_US)
    assert np.all(commands.fault_mask > 0)


def test_silent_channels_are_noticed(bms):
    connect(bms)
    broken = frame()
    broken.group_voltage_V[5] = np.nan
    for _ in range(50):
        commands = bms.step(broken, STEP_US)
    assert commands.fault_mask[0] > 0
    assert list(commands.fault_mask[1:]) == [0, 0], "only the pack it concerns"


def test_counts_charge_positive_on_discharge(bms):
    """With the voltage a cell shows meanwhile: an estimator that looks at it has no reason to object."""
    connect(bms)
    before = bms.commands.soc.copy()
    soc = np.interp(3.7, SHEET.ocv_V, SHEET.ocv_soc)
    for k in range(600):
        soc -= 5.0 * 0.1 / 3600 / SHEET.capacity_Ah
        drop_V = 5.0 * (0.0117 + 0.0075 * -np.expm1(-0.1 * k / 31) + 0.005 * -np.expm1(-0.1 * k / 250))
        volts = float(np.interp(soc, SHEET.ocv_soc, SHEET.ocv_V)) - drop_V
        commands = bms.step(frame(volts=volts, amps=5.0), STEP_US)
    assert before - commands.soc == pytest.approx(5.0 * 60 / 3600 / SHEET.capacity_Ah, abs=1.5e-3)


def test_says_how_sure_it_is_and_what_it_can_give(bms):
    connect(bms)
    for _ in range(50):
        commands = bms.step(frame(), STEP_US)
    assert np.all((commands.soc_sigma > 0.001) & (commands.soc_sigma < 0.1))
    assert np.all((commands.soc_min <= commands.soc + 1e-5) & (commands.soc <= commands.soc_max + 1e-5))
    nominal_W = SHEET.nominal_voltage_V * SHEET.discharge_limit_A
    assert np.all(commands.power_discharge_60s_W <= commands.power_discharge_10s_W)
    assert np.all(
        (commands.power_discharge_10s_W > 0.5 * nominal_W)
        & (commands.power_discharge_10s_W < 1.2 * nominal_W)
    )
    assert np.all(commands.power_charge_10s_W > 0.0)
    assert np.all(commands.safety > 0.99)


def test_asks_for_cooling_when_hot(bms):
    connect(bms)
    assert np.all(bms.commands.cooling == 0)
    for _ in range(50):
        commands = bms.step(frame(kelvin=273.15 + 38), STEP_US)
    assert np.all((commands.cooling > 0.3) & (commands.cooling <= 1.0))


def test_opens_when_asked(bms):
    connect(bms)
    bms.request(np.zeros(N_PACKS, dtype=bool))
    for _ in range(20):
        commands = bms.step(frame(), STEP_US)
    assert not commands.main_closed.any()
    assert not commands.tripped.any()


@pytest.mark.parametrize("rung", ["native"])  # the emulated controller has no other rate than its own
def test_both_rates_come_to_the_same_decisions(rung):
    """`plant` rate is one decision per step: the same limits, trips and charge, within a step."""
    full, plant = (RUNGS[rung].build(SHEET, N_PACKS, Fitting(rate)) for rate in ("full", "plant"))
    for one in (full, plant):
        connect(one)
        for _ in range(120):
            one.step(frame(amps=4.0), 1_000_000)
    assert plant.commands.soc == pytest.approx(full.commands.soc, abs=5e-4)
    assert plant.commands.discharge_limit_A == pytest.approx(full.commands.discharge_limit_A)
    for one in (full, plant):
        for _ in range(5):
            one.step(frame(volts=4.35), 1_000_000)
    assert full.commands.tripped.all()
    assert plant.commands.tripped.all()
    assert plant.ticks < full.ticks


def test_the_housing_sensors_reach_the_firmware(bms):
    """A lost insulation is a fault of its own pack; housings without anything wrong are none."""
    connect(bms)
    bad, good = frame(), frame()
    bad.insulation_ohm[0], good.insulation_ohm[:] = 1e3, 5e6
    good.pressure_Pa[:], good.gas_fraction[:] = 0.0, 0.0
    for _ in range(300):
        bms.step(good, STEP_US)
    assert list(bms.commands.fault_mask) == [0] * N_PACKS
    for _ in range(300):
        commands = bms.step(bad, STEP_US)
    faults = [bms.fault_names[b] for b in range(64) if int(commands.fault_mask[0]) >> b & 1]
    assert any("INSULATION" in name for name in faults)
    assert list(commands.fault_mask[1:]) == [0, 0]
