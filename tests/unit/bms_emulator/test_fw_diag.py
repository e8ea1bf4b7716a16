"""Plausibility: what a broken sensor, wire, sampler or load looks like, and what the firmware does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bms_emulator.firmware.interface import constants, diag_severity, names
from tests.unit.bms_emulator.fw_rig import Rig

INVALID_V = constants()["CELL_VOLTAGE_INVALID"]
INVALID_T = constants()["TEMPERATURE_INVALID"]
INVALID_I = constants()["CURRENT_INVALID"]
INVALID_U = constants()["VOLTAGE_INVALID"]


def cell(rig, value):
    rig.frame["cell_voltage_100uV"][0, 4] = value


def sensor(rig, value, which=slice(0, 1)):
    rig.frame["cell_temperature_ddegC"][0, which] = value


def field(name, value):
    return lambda rig: rig.frame.__setitem__(name, value)


# What is done to a healthy running pack -> diagnosis, ticks until it is active.
CASES = {
    "open wire": (lambda rig: cell(rig, INVALID_V), "CELL_VOLTAGE_MISSING", 10),
    "open wire for long": (lambda rig: cell(rig, INVALID_V), "CELL_VOLTAGE_LOST", 100),
    "cell beyond the sensor": (lambda rig: cell(rig, 60_001), "CELL_VOLTAGE_IMPLAUSIBLE", 10),
    "cell far below empty": (lambda rig: cell(rig, 14_999), "DEEP_DISCHARGE", 100),
    "sensor gone": (lambda rig: sensor(rig, INVALID_T), "TEMPERATURE_MISSING", 50),
    "sensor shorted": (lambda rig: sensor(rig, 12_001), "TEMPERATURE_IMPLAUSIBLE", 50),
    "two sensors gone": (lambda rig: sensor(rig, INVALID_T, slice(0, 2)), "TEMPERATURE_LOST", 500),
    "current sensor gone": (field("pack_current_mA", INVALID_I), "CURRENT_LOST", 20),
    "current beyond the sensor": (field("pack_current_mA", 80_001), "CURRENT_LOST", 20),
    "pack voltage gone": (field("pack_voltage_mV", INVALID_U), "PACK_VOLTAGE_LOST", 50),
    "cells and pack disagree": (field("pack_voltage_mV", 51_800 + 2_001), "CELL_SUM_MISMATCH", 200),
    "currents disagree": (field("pack_current_redundant_mA", 1_001), "CURRENT_REDUNDANCY", 100),
}


@pytest.mark.parametrize("case", CASES)
def test_fault_is_found_after_its_set_time(case):
    act, diagnosis, ticks = CASES[case]
    rig = Rig()
    rig.close()
    rig.tick(50)
    assert rig.active == set()
    act(rig)
    assert rig.ticks_until(lambda: diagnosis in rig.active) == ticks
    fatal = diag_severity()[diagnosis] in {"FATAL", "SERVICE"}
    assert (diagnosis in rig.faults) == fatal
    if fatal:
        rig.ticks_until(lambda: rig.state == "ERROR")
    else:
        assert rig.state in {"RUN", "OPENING"}


@pytest.mark.parametrize("case", ["cells and pack disagree", "currents disagree"])
def test_disagreement_at_the_tolerance_is_allowed(case):
    rig = Rig()
    rig.close()
    tolerated = {"cells and pack disagree": ("pack_voltage_mV", 53_800), "currents disagree":
                 ("pack_current_redundant_mA", -1_000)}  # fmt: skip
    name, value = tolerated[case]
    rig.frame[name] = value
    rig.tick(300)
    assert rig.active == set()


def test_a_missing_channel_does_not_disturb_the_extremes():
    rig = Rig()
    rig.cells(np.arange(14) + 37_000)
    cell(rig, INVALID_V)
    sensor(rig, INVALID_T, slice(2, 3))
    out = rig.tick()
    assert (out["cell_voltage_min_100uV"], out["cell_voltage_min_index"]) == (37_000, 0)
    assert (out["cell_voltage_max_100uV"], out["cell_voltage_max_index"]) == (37_013, 13)
    assert out["cell_temperature_min_ddegC"] == 250


def test_no_channel_left_is_reported_as_invalid_and_offers_nothing():
    rig = Rig()
    rig.close()
    rig.tick(300)
    rig.frame["cell_voltage_100uV"] = INVALID_V
    rig.frame["cell_temperature_ddegC"] = INVALID_T
    before = rig.out
    out = rig.tick()
    for limit in ("charge_limit_mA", "discharge_limit_mA"):
        assert out[limit] < before[limit], "falls from the first blind sample on"
    out = rig.tick(100)
    assert out["cell_voltage_max_100uV"] == INVALID_V
    assert out["cell_temperature_max_ddegC"] == INVALID_T
    assert out["charge_limit_mA"] == out["discharge_limit_mA"] == 0
    assert out["cooling_percent"] == 100


def test_set_counter_goes_down_as_it_goes_up():
    """What is there half of the time never becomes active, what is there more often does."""
    for on, off, found in ((1, 1, False), (2, 1, True)):
        rig = Rig()
        rig.tick(10)
        for _ in range(60):
            rig.frame["pack_current_mA"] = INVALID_I
            rig.tick(on)
            rig.frame["pack_current_mA"] = 0
            rig.tick(off)
        assert ("CURRENT_LOST" in rig.faults) == found


def test_stale_sample():
    rig = Rig()
    rig.close()
    rig.frame["sample_period_ticks"] = 10
    rig.tick()
    rig.bms.step(rig.frame, 9)
    assert rig.active == set(), "held for its period"
    rig.bms.step(rig.frame, 19)
    assert rig.faults == ()
    rig.bms.step(rig.frame, 1)
    assert rig.faults == ("SAMPLE_STALE",)
    assert rig.out["first_fault_ms"] == rig.out["uptime_ms"]
    rig.tick(21)
    rig.request("RESET_FAULT")
    rig.tick()
    assert rig.faults == ()


def test_garbage_period_does_not_switch_staleness_off():
    rig = Rig()
    rig.frame["sample_period_ticks"] = 2**32 - 1
    rig.tick()
    rig.bms.step(rig.frame, 360_000 + 20)
    assert rig.faults == ("SAMPLE_STALE",)


def test_lost_sample_is_a_warning():
    rig = Rig()
    rig.tick(3)
    rig.frame["sample_counter"] += np.uint16(1)
    rig.tick()
    assert rig.active == {"SAMPLE_LOST"}
    rig.tick()
    assert rig.active == set()
    rig.frame["sample_counter"] = 65_534
    rig.tick(4)  # wraps
    assert rig.active == set()


def test_stuck_channel_is_found_once_the_others_have_moved():
    rig = Rig()
    rig.close()
    voltages = np.full(14, 37_000)
    for k in range(200):
        voltages -= 2  # all sink by 0.2 mV per sample
        voltages[6] = 37_000
        rig.cells(voltages)
        rig.tick()
        # the mean without the extremes has moved by 0.2 mV per sample since the channel last changed
        assert ("CELL_VOLTAGE_STUCK" in rig.active) == (2 * (k + 1) > 300), k
    voltages[6] -= 1
    rig.cells(voltages)
    rig.tick()
    assert rig.active == set()


def test_a_jump_alone_makes_nobody_stuck():
    """A channel may by chance read the same after the others jumped; five samples in a row it does not."""
    rig = Rig()
    rig.tick(3)
    for k in range(1, 10):
        voltages = np.full(14, 36_000 + 3 * k)
        voltages[6] = 37_000
        rig.cells(voltages)
        if k == 1:
            rig.frame["cell_voltage_100uV"][0, 6] = 37_001
        rig.tick()
        if k == 1:
            # from here on channel 6 repeats 37 000 while the mean has moved since it last changed
            voltages[:6] -= 800
            rig.cells(voltages)
            rig.tick()
        assert ("CELL_VOLTAGE_STUCK" in rig.active) == (k >= 6), k


@pytest.mark.parametrize("outlier", [INVALID_V, 60_500, 31_000, 0])
def test_one_bad_channel_does_not_make_the_resting_others_stuck(outlier):
    rig = Rig()
    rig.tick(10)
    cell(rig, outlier)
    rig.frame["cell_voltage_100uV"][0, 9] += 1  # changes just when the mean is disturbed
    rig.tick(10)
    assert "CELL_VOLTAGE_STUCK" not in rig.active
    cell(rig, 37_000)
    rig.tick(10)
    assert "CELL_VOLTAGE_STUCK" not in rig.active


def test_several_outliers_accuse_nobody_at_rest():
    rig = Rig()
    rig.tick(10)
    rig.frame["cell_voltage_100uV"][0, 2:5] = 31_000  # moves even the trimmed mean by 0.1 V
    rig.tick(20)
    assert "CELL_VOLTAGE_STUCK" not in rig.active


def test_stuck_temperature_sensor():
    rig = Rig()
    for k in range(40):
        sensor(rig, 250 + 5 * k, slice(1, 4))
        rig.tick()
        assert ("TEMPERATURE_STUCK" in rig.active) == (5 * k > 100), k


def test_link_voltage_gone():
    rig = Rig()
    rig.tick()
    for k in range(1, 60):
        rig.frame["link_voltage_mV"] = INVALID_U
        rig.frame["sample_counter"] += np.uint16(1)
        rig.bms.step(rig.frame)
        assert ("LINK_VOLTAGE_LOST" in rig.active) == (k >= 50)


def test_rest_is_not_stuck():
    rig = Rig()
    rig.tick(3_000)
    assert rig.active == set()


def test_load_that_ignores_its_limit():
    rig = Rig()
    rig.close()
    rig.tick(1_500)
    limit_mA = int(rig.out["discharge_limit_mA"])
    rig.frame["pack_current_mA"] = limit_mA + 500
    rig.tick(200)
    assert "CURRENT_LIMIT_IGNORED" not in rig.active, "within tolerance"
    rig.frame["pack_current_mA"] = limit_mA + 501
    assert rig.ticks_until(lambda: "CURRENT_LIMIT_IGNORED" in rig.active) == 100
    assert rig.state == "RUN"


def test_link_voltage_that_does_not_follow_the_pack():
    rig = Rig(link_tolerance_mV=1_000)
    rig.close()
    rig.bms.step(rig.frame)
    rig.frame["link_voltage_mV"] = 50_000
    for _ in range(99):
        rig.frame["sample_counter"] += np.uint16(1)
        rig.bms.step(rig.frame)
    assert rig.faults == ()
    rig.frame["sample_counter"] += np.uint16(1)
    rig.bms.step(rig.frame)
    assert rig.faults == ("LINK_MISMATCH",)


def test_current_with_open_contactors():
    rig = Rig()
    rig.tick(5)
    rig.frame["pack_current_mA"] = 501
    rig.tick(99)
    assert "CURRENT_WHILE_OPEN" not in rig.active
    rig.tick()
    assert "CURRENT_WHILE_OPEN" in rig.active


def test_deep_discharge_takes_a_service_reset():
    rig = Rig()
    rig.cells(14_000)
    rig.tick(200)
    assert "DEEP_DISCHARGE" in rig.faults
    rig.cells(37_000)
    rig.tick(200)
    rig.request("RESET_FAULT")
    rig.tick(2)
    assert rig.faults == ("DEEP_DISCHARGE",)
    rig.request("SERVICE_RESET")
    rig.tick(2)
    assert rig.faults == ()


def test_every_diagnosis_has_a_test_here_or_next_door():
    """A new row of the table must be exercised by name somewhere in these files."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_fw_*.py"))
    tested_by_table = set(names("LIMIT"))
    missing = [name for name in names("DIAG") if name not in tested_by_table and f'"{name}"' not in text]
    assert missing == []
