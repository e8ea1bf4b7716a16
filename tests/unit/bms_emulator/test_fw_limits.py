"""Three-level limits: each trips one step beyond its threshold after exactly its hold time, and clears so."""

from __future__ import annotations

import pytest

from bms_emulator.firmware.interface import names
from tests.unit.bms_emulator.fw_rig import Rig

LIMITS = names("LIMIT")
LEVELS = names("LEVEL")
ABOVE = {name: "UNDER" not in name and name != "INSULATION_LOW" for name in LIMITS}


def set_signal(rig: Rig, limit: str, value: int) -> None:
    frame = rig.frame
    frame["pack_current_mA"] = -2_000 if limit.endswith("_CHARGE") else 0
    if limit in {"CELL_OVERVOLTAGE", "CELL_UNDERVOLTAGE"}:
        frame["cell_voltage_100uV"][0, 5] = value
    elif limit.startswith(("OVERTEMPERATURE", "UNDERTEMPERATURE")):
        frame["cell_temperature_ddegC"][0, 2] = value
    elif limit == "OVERCURRENT_DISCHARGE":
        frame["pack_current_mA"] = value
    elif limit == "OVERCURRENT_CHARGE":
        frame["pack_current_mA"] = -value
    elif limit.startswith("PACK"):
        frame["pack_voltage_mV"] = value
    elif limit == "CELL_VOLTAGE_SPREAD":
        frame["cell_voltage_100uV"][0, 5] = 37_000 - value
    elif limit == "CELL_TEMPERATURE_SPREAD":
        frame["cell_temperature_ddegC"][0, 2] = 250 + value
    elif limit in {"INSULATION_LOW", "PRESSURE_HIGH", "GAS_HIGH"}:
        names_of = {
            "INSULATION_LOW": "insulation_kohm",
            "PRESSURE_HIGH": "pressure_daPa",
            "GAS_HIGH": "gas_ppm",
        }
        frame[names_of[limit]] = value
    else:
        raise AssertionError(f"a test is missing for {limit}")


def is_active(rig: Rig, limit: str, level: str) -> bool:
    return bool(int(rig.out[f"{level.lower()}_active"]) >> LIMITS.index(limit) & 1)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("limit", LIMITS)
def test_trips_and_clears_after_exactly_its_hold_time(limit, level):
    rig = Rig()
    i, k = LIMITS.index(limit), LEVELS.index(level)
    trip, clear, hold_ms = (int(rig.bms.params[f"limit_{x}"][0, i, k]) for x in ("trip", "clear", "hold_ms"))
    outwards = 1 if ABOVE[limit] else -1
    hold_ticks = max(1, hold_ms // 10)
    rig.tick(5)

    set_signal(rig, limit, trip)
    rig.tick(hold_ticks + 5)
    assert not is_active(rig, limit, level), "the threshold itself is still allowed"

    set_signal(rig, limit, trip + outwards)
    rig.tick(hold_ticks - 1)
    assert not is_active(rig, limit, level)
    set_signal(rig, limit, trip)
    rig.tick()
    set_signal(rig, limit, trip + outwards)
    rig.tick(hold_ticks - 1)
    assert not is_active(rig, limit, level), "an interruption starts the hold time anew"
    rig.tick()
    assert is_active(rig, limit, level)
    if level == "MSL":
        assert limit in rig.faults
        assert rig.out["first_fault_ms"] <= rig.out["uptime_ms"]

    set_signal(rig, limit, clear + outwards)
    rig.tick(hold_ticks + 5)
    assert is_active(rig, limit, level), "between trip and clear nothing changes"
    set_signal(rig, limit, clear)
    rig.tick(hold_ticks - 1)
    assert is_active(rig, limit, level)
    rig.tick()
    assert not is_active(rig, limit, level)


def test_msl_latches_opens_after_its_delay_and_needs_reset_and_a_new_request():
    rig = Rig(opening_timeout_ms=60_000)
    rig.close()
    rig.frame["pack_current_mA"] = 8_000  # above opening_current_mA, so the delay counts
    rig.tick(100)
    rig.frame["cell_voltage_100uV"][0, 3] = 24_999
    hold_ticks, delay_ticks = 20, 10
    assert rig.ticks_until(lambda: rig.faults) == hold_ticks
    assert rig.bms.fault_names[rig.out["first_fault"]] == "CELL_UNDERVOLTAGE"
    assert rig.out["first_fault_ms"] == rig.out["uptime_ms"]
    assert rig.state == "OPENING"
    assert rig.out["charge_limit_mA"] == 0
    assert rig.out["discharge_limit_mA"] == 0
    latched_ms = rig.out["uptime_ms"]
    assert rig.ticks_until(lambda: rig.step_name == "OPEN_PLUS") == delay_ticks
    assert rig.out["contactor_change_ms"] - latched_ms == 100
    assert rig.out["openings_under_load"] == 1
    rig.frame["pack_current_mA"] = 0
    rig.ticks_until(lambda: rig.state == "ERROR")
    assert rig.out["contactor_command"] == 0

    rig.request("CLOSE", "RESET_FAULT")
    rig.tick(2)
    assert rig.faults == ("CELL_UNDERVOLTAGE",), "the cause is still there"
    rig.cells(37_000)
    rig.tick(100)
    assert rig.faults == ("CELL_UNDERVOLTAGE",), "the reset acts by its edge, not by its level"
    rig.request("CLOSE")
    rig.tick()
    rig.request("CLOSE", "RESET_FAULT")
    rig.tick(3)
    assert rig.faults == ()
    assert rig.state == "STANDBY", "closing takes a new request"
    rig.request()
    rig.tick()
    rig.close()


def test_a_trickle_is_rest_not_charging():
    """Limits for charging count from beyond rest_current_mA = 50 on."""
    rig = Rig()
    rig.frame["cell_temperature_ddegC"][0, 0] = 460
    rig.frame["pack_current_mA"] = -50
    rig.tick(200)
    assert not is_active(rig, "OVERTEMPERATURE_CHARGE", "MOL")
    rig.frame["pack_current_mA"] = -51
    rig.tick(200)
    assert is_active(rig, "OVERTEMPERATURE_CHARGE", "MOL")


def test_overcurrent_has_no_delay_and_opens_in_the_tick_that_finds_it():
    rig = Rig()
    rig.close()
    rig.frame["pack_current_mA"] = (
        int(rig.bms.params["limit_trip"][0, LIMITS.index("OVERCURRENT_DISCHARGE"), 2]) + 1
    )
    assert rig.ticks_until(lambda: rig.faults) == 10
    assert rig.out["contactor_command"] & 1 == 0


def test_rsl_derates_only_its_own_direction():
    rig = Rig(**{"ramp_zero.CHARGE_BY_HEAT": 900, "ramp_full.CHARGE_BY_HEAT": 800})
    rig.close()
    rig.tick(1500)
    free = rig.out
    assert free["charge_limit_mA"] == 10_000
    assert free["discharge_limit_mA"] == 20_000
    rig.frame["pack_current_mA"] = -2_000
    rig.frame["cell_temperature_ddegC"][0, :4] = 501  # beyond RSL for charging, inside for discharging
    rig.tick(300)
    assert rig.out["rsl_active"] == 1 << LIMITS.index("OVERTEMPERATURE_CHARGE")
    assert rig.out["charge_limit_mA"] == 5_000
    assert rig.out["discharge_limit_mA"] > 10_000


@pytest.mark.parametrize("tick_ms", [20, 50, 100, 200])
def test_hold_times_count_milliseconds_not_ticks(tick_ms):
    rig = Rig()
    rig.tick(3, tick_ms)
    start_ms = int(rig.out["uptime_ms"])
    rig.frame["cell_voltage_100uV"][0, 0] = 42_501
    while not rig.faults:
        rig.tick(1, tick_ms)
    assert int(rig.out["first_fault_ms"]) - start_ms == 200
