"""Closing and opening sequences against contactors that work, stick, weld or answer late."""

from __future__ import annotations

import numpy as np
import pytest

from bms_emulator.native import NativeBms, request_bit
from tests.unit.bms_emulator.fw_rig import DESIGN, MINUS, PLUS, PRECHARGE, Rig


def test_closing_sequence_step_by_step():
    rig = Rig()
    rig.tick()
    assert rig.state == "STANDBY"
    rig.request("CLOSE")
    seen = []
    for _ in range(60):
        rig.tick()
        seen.append((rig.step_name, int(rig.out["contactor_command"])))
        if rig.state == "RUN":
            break
    order = list(dict.fromkeys(seen))
    assert order == [
        ("CLOSE_MINUS", MINUS),
        ("CLOSE_PRECHARGE", MINUS | PRECHARGE),
        ("CLOSE_PLUS", MINUS | PRECHARGE | PLUS),
        ("RELEASE_PRECHARGE", MINUS | PLUS),
        ("RUN", MINUS | PLUS),
    ]
    precharge_ms = 10 * sum(name == "CLOSE_PRECHARGE" for name, _ in seen)
    assert precharge_ms >= 100, "minimum precharge time"
    assert rig.faults == ()


def test_plus_is_never_closed_onto_an_uncharged_link():
    rig = Rig()
    rig.precharge_per_tick = 0.0
    rig.request("CLOSE")
    commands = []
    rig.ticks_until(lambda: commands.append(int(rig.out["contactor_command"])) or rig.state == "ERROR")
    assert not any(command & PLUS for command in commands)
    assert "PRECHARGE_FAILED" in rig.faults


def test_precharge_gives_up_after_its_tries_and_timeouts():
    rig = Rig(precharge_tries=2, precharge_timeout_ms=500, precharge_pause_ms=1_000)
    rig.precharge_per_tick = 0.001
    rig.tick()
    rig.request("CLOSE")
    tries = []
    before = ""
    start_ms = int(rig.out["uptime_ms"])
    while rig.state != "ERROR":
        rig.tick()
        if rig.step_name == "CLOSE_PRECHARGE" and before != "CLOSE_PRECHARGE":
            tries.append(int(rig.out["uptime_ms"]))
        before = rig.step_name
        assert rig.out["uptime_ms"] < start_ms + 10_000
    assert len(tries) == 2
    # timeout, pause, minus again, precharge again
    assert 500 + 1_000 < tries[1] - tries[0] <= 500 + 1_000 + 30
    assert rig.faults == ("PRECHARGE_FAILED",)
    rig.request("RESET_FAULT")
    rig.tick(2)
    assert rig.state == "STANDBY"
    rig.precharge_per_tick = 0.5
    rig.close()


def test_precharge_needs_the_charging_current_to_be_gone():
    rig = Rig(precharge_timeout_ms=400)
    rig.tick()
    rig.request("CLOSE")
    rig.frame["pack_current_mA"] = 600  # above precharge_current_mA = 500: something drains the link
    rig.ticks_until(lambda: rig.step_name == "CLOSE_PRECHARGE")
    assert rig.ticks_until(lambda: rig.step_name != "CLOSE_PRECHARGE") == 40
    assert rig.step_name == "RETRY_PAUSE"


@pytest.mark.parametrize(
    ("bit", "fault"),
    [(PLUS, "MAIN_PLUS_STUCK_OPEN"), (MINUS, "MAIN_MINUS_STUCK_OPEN"), (PRECHARGE, "PRECHARGE_STUCK_OPEN")],
)
def test_contactor_that_does_not_close(bit, fault):
    rig = Rig()
    rig.stuck_open = bit
    rig.tick()
    rig.request("CLOSE")
    rig.ticks_until(lambda: rig.state == "ERROR")
    assert fault in rig.faults
    assert rig.out["contactor_command"] == 0


@pytest.mark.parametrize(
    ("bit", "fault"),
    [(PLUS, "MAIN_PLUS_WELDED"), (MINUS, "MAIN_MINUS_WELDED"), (PRECHARGE, "PRECHARGE_WELDED")],
)
def test_welded_contactor_is_found_when_it_should_be_open(bit, fault):
    rig = Rig()
    if bit != PRECHARGE:
        rig.close()
    rig.welded = bit
    if bit == PRECHARGE:
        rig.request("CLOSE")
    else:
        rig.tick(10)
        assert rig.faults == (), "closed on command and welded look the same"
        rig.request()
    rig.ticks_until(lambda: rig.faults)
    assert rig.faults[0] == fault
    rig.ticks_until(lambda: rig.state == "ERROR")
    rig.request("RESET_FAULT")
    rig.tick(5)
    assert fault in rig.faults, "a weld does not go away by reset"


def test_opening_waits_for_the_current_but_not_for_ever():
    rig = Rig()
    rig.close()
    rig.frame["pack_current_mA"] = 8_000
    rig.tick(10)
    rig.request()
    rig.tick(10)
    assert rig.step_name == "OPEN_WAIT"
    rig.frame["pack_current_mA"] = 900
    rig.tick()
    assert rig.step_name == "OPEN_PLUS"
    assert rig.out["openings_under_load"] == 0
    rig.ticks_until(lambda: rig.state == "STANDBY")
    rig.frame["pack_current_mA"] = 0
    rig.close()
    rig.frame["pack_current_mA"] = 8_000
    rig.request()
    assert rig.ticks_until(lambda: rig.step_name == "OPEN_PLUS") == 1 + 50, "opening_timeout_ms"
    assert rig.out["openings_under_load"] == 1


def test_withdrawn_request_ends_the_closing_sequence():
    rig = Rig()
    rig.precharge_per_tick = 0.01
    rig.tick()
    rig.request("CLOSE")
    rig.ticks_until(lambda: rig.step_name == "CLOSE_PRECHARGE")
    rig.request()
    rig.ticks_until(lambda: rig.state == "STANDBY", 10)
    assert rig.out["contactor_command"] == 0
    assert rig.faults == ()


def test_emergency_stop_opens_in_the_same_tick_and_interlock_after_its_set_time():
    rig = Rig()
    rig.close()
    rig.frame["condition"] = 2
    rig.tick()
    assert rig.faults == ("EMERGENCY_STOP",)
    assert not rig.out["contactor_command"] & PLUS
    rig = Rig()
    rig.close()
    rig.frame["condition"] = 1
    assert rig.ticks_until(lambda: "INTERLOCK_OPEN" in rig.faults) == 2


@pytest.mark.parametrize("plant_step_ms", [100, 1_000, 60_000])
@pytest.mark.parametrize("full_rate", [True, False])
def test_closes_at_every_plant_step_and_rate(plant_step_ms, full_rate):
    """Commands act from the next plant step on, so each step of the sequence costs one plant step.

    Held frames must not be taken for contactors that do not answer.
    """
    bms = NativeBms([DESIGN])
    frame = bms.frames()
    frame["cell_voltage_100uV"][0, :14] = 37_000
    frame["cell_temperature_ddegC"][0, :4] = 250
    frame["pack_current_mA"] = 0
    frame["pack_voltage_mV"] = 51_800
    frame["request"] = request_bit("CLOSE")
    n_ticks, tick_ms = (plant_step_ms // 10, 10) if full_rate else (1, plant_step_ms)
    frame["sample_period_ticks"] = n_ticks
    steps = 0
    while steps < 12 and bms.state_names[bms.outputs["state"][0]] != "RUN":
        steps += 1
        command = int(bms.outputs["contactor_command"][0])
        frame["contactor_feedback"] = command
        frame["link_voltage_mV"] = 51_800 if command & (PLUS | PRECHARGE) else 0
        frame["sample_counter"] += np.uint16(1)
        bms.step(frame, n_ticks, tick_ms)
    assert bms.faults(0) == ()
    assert steps <= 6
