"""State of charge, balancing, current limits, cooling against the same arithmetic in Python."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms_emulator.firmware.interface import names
from tests.unit.bms_emulator.fw_rig import Rig

CAPACITY_MAMS = 10_000 * 3_600_000


# ---- counting ------------------------------------------------------------------------------------


@given(
    start_ppm=st.integers(0, 1_000_000),
    steps=st.lists(
        st.tuples(
            st.integers(-80_000, 80_000), st.sampled_from([10, 20, 1_000, 60_000, 900_000]), st.integers(1, 7)
        ),
        min_size=1,
        max_size=30,
    ),
)
def test_counting_is_exact(start_ppm, steps):
    rig = Rig(soc_rest_ms=360_000_000)
    rig.tick(1)
    rig.bms.set_soc(0, start_ppm)
    charge = CAPACITY_MAMS * start_ppm // 1_000_000
    charged = discharged = 0
    for current_mA, tick_ms, ticks in steps:
        rig.frame["pack_current_mA"] = current_mA
        rig.frame["sample_counter"] += np.uint16(1)
        rig.bms.step(rig.frame, ticks, tick_ms)
        for _ in range(ticks):
            charge = min(max(charge - current_mA * tick_ms, 0), CAPACITY_MAMS)
        charged += max(-current_mA, 0) * tick_ms * ticks
        discharged += max(current_mA, 0) * tick_ms * ticks
        out = rig.out
        assert out["remaining_charge_mAs"] == charge // 1000
        assert out["soc_ppm"] == charge * 1_000_000 // CAPACITY_MAMS
        assert out["charged_mAs"] == charged // 1000
        assert out["discharged_mAs"] == discharged // 1000


def ocv_soc_ppm(rig, voltage_100uV):
    n = int(rig.bms.params["ocv_n"][0])
    soc = rig.bms.params["ocv_soc_permille"][0, :n]
    volts = rig.bms.params["ocv_100uV"][0, :n]
    return float(np.interp(voltage_100uV, volts, soc * 1000.0))


@pytest.mark.parametrize("voltage", [24_000, 25_000, 30_000, 35_300, 37_509, 41_999, 42_000, 43_000])
def test_starts_from_the_open_circuit_voltage(voltage):
    rig = Rig()
    rig.cells(voltage)
    out = rig.tick()
    assert abs(int(out["soc_ppm"]) - ocv_soc_ppm(rig, voltage)) <= 1
    assert out["soc_calibrations"] == 1
    assert out["soc_known"] == 0, "one sample is not a rest"


def test_rest_corrects_the_count_and_a_load_does_not():
    rig = Rig(soc_rest_ms=60_000)
    rig.tick()
    rig.bms.set_soc(0, 900_000)
    rig.frame["pack_current_mA"] = 51  # above rest_current_mA = 50
    rig.tick(200, 1_000)
    assert abs(int(rig.out["soc_ppm"]) - 900_000) < 1_000
    rig.frame["pack_current_mA"] = 50
    rig.tick(59, 1_000)
    assert rig.out["soc_known"] == 0
    rig.tick(1, 1_000)
    assert rig.out["soc_known"] == 1
    assert abs(int(rig.out["soc_ppm"]) - ocv_soc_ppm(rig, 37_000)) < 10
    rig.tick(59, 1_000)
    assert rig.out["soc_calibrations"] == 2
    rig.tick(1, 1_000)
    assert rig.out["soc_calibrations"] == 3, "looked at again after as long"


def test_flat_curve_leaves_the_counter_alone():
    soc = [0, 100, 200, 800, 900, 1000]
    lfp = {
        "cell_min_100uV": 25_000,
        "cell_max_100uV": 36_500,
        "ocv_soc_permille": soc,
        "ocv_100uV": [26_000, 32_000, 32_700, 33_100, 33_400, 36_000],
    }
    rig = Rig(soc_rest_ms=60_000, **lfp)
    rig.cells(32_900)  # plateau: 0.067 mV per permille
    rig.tick()
    assert abs(int(rig.out["soc_ppm"]) - 500_000) < 10
    rig.bms.set_soc(0, 700_000)
    rig.tick(200, 1_000)
    assert rig.out["soc_ppm"] == 700_000
    assert rig.out["soc_known"] == 0
    rig.cells(34_700)
    rig.tick(61, 1_000)
    assert abs(int(rig.out["soc_ppm"]) - 950_000) < 10
    assert rig.out["soc_known"] == 1


# ---- balancing -----------------------------------------------------------------------------------


def balanced(rig):
    return {int(group) for group in np.flatnonzero(rig.bms.balancing()[0])}


def test_balancing_starts_above_start_and_stops_at_stop():
    rig = Rig(balancing_rest_ms=1_000)
    voltages = np.full(14, 37_000)
    voltages[[2, 9]] = 37_050, 37_051
    rig.cells(voltages)
    rig.tick(99)
    assert balanced(rig) == set(), "rest has to last"
    rig.tick(5)
    assert balanced(rig) == {9}, "start means more than start"
    voltages[9] = 37_021
    rig.cells(voltages)
    rig.tick()
    assert balanced(rig) == {9}
    voltages[9] = 37_020
    rig.cells(voltages)
    rig.tick()
    assert balanced(rig) == set()
    voltages[9] = 37_040
    rig.cells(voltages)
    rig.tick()
    assert balanced(rig) == set(), "between stop and start it stays off"


def test_balancing_is_off_under_load_when_low_hot_or_blind():
    def rig_with(**changes):
        rig = Rig(balancing_rest_ms=0)
        voltages = np.full(14, changes.get("low", 37_000))
        voltages[0] += 200
        rig.cells(voltages)
        for name, value in changes.items():
            if name != "low":
                rig.frame[name][0] = value
        rig.tick(5)
        return balanced(rig)

    hot = np.full(64, 501)
    assert rig_with() == {0}
    assert rig_with(pack_current_mA=-3_000) == {0}, "charging"
    assert rig_with(pack_current_mA=51) == set()
    assert rig_with(low=33_299) == set(), "below balancing_min"
    assert rig_with(low=33_300) == {0}
    assert rig_with(cell_temperature_ddegC=hot) == set()
    rig = Rig(balancing_rest_ms=0)
    rig.frame["cell_voltage_100uV"][0, 0] = 37_200
    rig.frame["cell_voltage_100uV"][0, 5] = 65_535
    rig.tick(5)
    assert balanced(rig) == set()


@given(seed=st.integers(0, 2**32 - 1))
def test_bled_charge_is_booked_exactly(seed):
    rng = np.random.default_rng(seed)
    rig = Rig(balancing_rest_ms=0, balancing_resistance_mohm=int(rng.integers(5_000, 90_000)))
    resistance = int(rig.bms.params["balancing_resistance_mohm"][0])
    rig.tick()
    bled_Vms = [Fraction(0)] * 14
    for _ in range(20):
        voltages = rng.integers(37_000, 37_120, 14)
        rig.cells(voltages)
        rig.frame["sample_counter"] += np.uint16(1)
        tick_ms = int(rng.choice([10, 10, 1_000, 60_000]))
        rig.frame["sample_period_ticks"] = ticks = int(rng.integers(1, 50))
        rig.bms.step(rig.frame, ticks, tick_ms)
        for group in balanced(rig):
            bled_Vms[group] += Fraction(int(voltages[group]), 10_000) * tick_ms * ticks
        expected = [int(Vms / Fraction(resistance, 1_000)) for Vms in bled_Vms]
        assert rig.out["balancing_charge_mAs"][:14].tolist() == expected
    assert any(bled_Vms)


# ---- current limits ------------------------------------------------------------------------------


def settled_limits(rig):
    rig.tick(2_000)
    return int(rig.out["charge_limit_mA"]), int(rig.out["discharge_limit_mA"])


def ramp(value, zero, full):
    return int(np.clip((value - zero) / (full - zero), 0, 1) * 65536) / 65536


@pytest.mark.parametrize("voltage", [26_701, 27_000, 28_000, 29_000, 37_000, 41_200, 41_500, 41_900, 42_000])
def test_limits_follow_the_voltage_ramps(voltage):
    rig = Rig()
    rig.close()
    rig.bms.set_soc(0, 500_000)
    rig.cells(voltage)
    charge, discharge = settled_limits(rig)
    assert charge == int(10_000 * ramp(voltage, 42_000, 41_200))
    assert discharge == int(20_000 * ramp(voltage, 26_000, 29_000))


@pytest.mark.parametrize("ddegC", [-180, -100, -1, 0, 75, 150, 300, 400, 450, 500, 520, 569])
def test_limits_follow_the_temperature_ramps(ddegC):
    rig = Rig()
    rig.close()
    rig.frame["cell_temperature_ddegC"][0, :4] = ddegC
    rsl = [0.5 if int(rig.tick(300)["rsl_active"]) & mask else 1.0 for mask in (rsl_mask(1), rsl_mask(2))]
    charge, discharge = settled_limits(rig)
    assert charge == pytest.approx(10_000 * min(ramp(ddegC, 0, 150), ramp(ddegC, 500, 400)) * rsl[0], abs=1)
    assert discharge == pytest.approx(
        20_000 * min(ramp(ddegC, -200, 0), ramp(ddegC, 570, 470)) * rsl[1], abs=1
    )


def rsl_mask(direction_bit):
    """Limits whose RSL reduces this direction (bit 0 charge, bit 1 discharge), by their names."""
    ends = {1: ("_CHARGE", "OVERVOLTAGE", "SPREAD"), 2: ("_DISCHARGE", "UNDERVOLTAGE", "SPREAD")}[
        direction_bit
    ]
    return sum(1 << i for i, name in enumerate(names("LIMIT")) if name.endswith(ends))


@pytest.mark.parametrize(
    ("soc_ppm", "charge", "discharge"),
    [
        (0, 10_000, 0),
        (15_000, 10_000, 10_000),
        (30_000, 10_000, 20_000),
        (990_000, 5_000, 20_000),
        (1_000_000, 0, 20_000),
    ],
)
def test_limits_follow_the_soc_ramps(soc_ppm, charge, discharge):
    rig = Rig()
    rig.close()
    rig.bms.set_soc(0, soc_ppm)
    assert settled_limits(rig) == (charge, discharge)


@pytest.mark.parametrize("tick_ms", [10, 50, 1_000])
def test_limits_rise_and_fall_no_faster_than_their_slew(tick_ms):
    rig = Rig(slew_up_mA_per_s=1_234, slew_down_mA_per_s=4_321)
    rig.close()
    rig.tick(1, tick_ms)
    before = int(rig.out["discharge_limit_mA"])
    rig.tick(2_000 // tick_ms, tick_ms)
    assert int(rig.out["discharge_limit_mA"]) - before == pytest.approx(2 * 1_234, abs=1)
    for _ in range(3_000_000 // 1_234 // tick_ms + 20):
        before = int(rig.out["discharge_limit_mA"])
        rig.tick(1, tick_ms)
        assert int(rig.out["discharge_limit_mA"]) - before <= 1_234 * tick_ms // 1000 + 1
    rig.tick(100, 1_000)
    assert rig.out["discharge_limit_mA"] == 20_000
    rig.bms.set_soc(0, 0)
    rig.tick(2_000 // tick_ms, tick_ms)
    assert rig.out["discharge_limit_mA"] == 20_000 - 2 * 4_321


# ---- cooling -------------------------------------------------------------------------------------


def test_cooling_has_hysteresis_and_grows_to_full():
    rig = Rig()
    percent = {}
    for ddegC in [269, 271, 299, 300, 350, 400, 450, 299, 271, 270, 299]:
        rig.frame["cell_temperature_ddegC"][0, 1] = ddegC
        percent.setdefault(ddegC, []).append(int(rig.tick()["cooling_percent"]))
    assert percent == {269: [0], 271: [0, 20], 299: [0, 20, 0], 300: [20], 350: [60], 400: [100], 450: [100],
                       270: [0]}  # fmt: skip
