"""The board starts a signed image, closes contactors, and goes on from a snapshot as if nothing had been."""

from __future__ import annotations

import numpy as np
import pytest

from bms_emulator.board import BmsBoard
from bms_emulator.devices.afe import Truth
from bms_emulator.firmware.package import Identity, development_key, package
from bms_emulator.firmware.target import Program, build_program

pytest.importorskip("ziglang", reason="ziglang compiles the firmware")


@pytest.fixture(scope="session")
def programs() -> tuple[Program, Program]:
    return build_program("rom"), build_program("app")


def pack(link_V: float) -> Truth:
    return Truth(np.full(14, 3.7), np.full(4, 298.15), 0.0, 51.8, link_V)


@pytest.fixture
def board(programs: tuple[Program, Program]) -> BmsBoard:
    rom, app = programs
    board = BmsBoard()
    board.manufacture(rom, package(app.body, (1, 0, 0, 0), development_key(), Identity()))
    board.power_on()
    board.run(0.5)
    return board


def test_boots_and_closes(board: BmsBoard):
    assert board.console == b"bms\n"
    commands = []
    for _ in range(6):
        board.measure(pack(51.8 if board.contactors else 0.0), period_ticks=100, request=1)
        board.run(1.0)
        commands.append(board.contactors)
    assert commands[-1] == 3
    assert 7 in commands  # both mains, with precharge on the way
    stats = board.stats()
    assert stats is not None
    assert (stats.overruns, stats.frames, stats.slot, stats.safe_mode) == (0, 6, 0, False)
    assert [what for _, what in board.log] == ["power on"]


def test_snapshot_goes_on_the_same(board: BmsBoard):
    board.measure(pack(0.0), period_ticks=100, request=1)
    board.run(0.123)
    kept = board.snapshot()
    ends = []
    for _ in range(2):
        board.measure(pack(0.0), period_ticks=100, request=1)
        board.run(1.0)
        ends.append((board.machine.state_hash(), board.snapshot().own))
        board.restore(kept)
    assert ends[0] == ends[1]


def test_hang_ends_in_a_watchdog_reset(board: BmsBoard):
    board.measure(pack(0.0), period_ticks=100, request=1)
    board.run(0.2)
    board.machine.set_csr("mie", 0)  # no tick any more, nobody wakes the main loop
    board.run(1.2)
    assert [what for _, what in board.log] == ["power on", "watchdog"]
    assert board.resets.value["KEEP"] == 1  # the ROM has counted it
    board.run(0.5)
    assert board.console.count(b"bms\n") == 2


def test_lost_program_counter_ends_in_a_software_reset(board: BmsBoard):
    board.machine.pc = 0xF000_0000
    board.run(1.0)
    assert [what for _, what in board.log] == ["power on", "software 2"]
    assert board.stats() is not None


def test_third_crash_in_a_row_starts_safe_mode(board: BmsBoard):
    """There is no other slot to go to: only the update agent is to run; power off and on clears it."""
    for _ in range(3):
        board.machine.pc = 0xF000_0000
        board.run(1.0)
    stats = board.stats()
    assert stats is not None
    assert stats.safe_mode
    board.power_off()
    board.run(0.1)
    board.power_on()
    board.run(1.0)
    stats = board.stats()
    assert stats is not None
    assert not stats.safe_mode


def test_outputs_open_without_power_and_time_goes_on(board: BmsBoard):
    for _ in range(5):
        board.measure(pack(51.8 if board.contactors else 0.0), period_ticks=100, request=1)
        board.run(1.0)
    assert board.contactors == 3
    before = board.time_s
    board.power_off()
    assert board.contactors == 0
    assert board.stats() is None
    board.run(3.0)
    assert board.time_s == pytest.approx(before + 3.0)
    board.power_on()
    board.brown_out()
    board.run(1.0)
    assert [what for _, what in board.log][1:] == ["power off", "power on", "power off", "brown-out"]
    assert board.stats() is not None


def test_clock_drift_changes_the_number_of_ticks(board: BmsBoard):
    counts = []
    for ppm in (0.0, 20_000.0):
        board.clock_ppm = ppm
        before = board.stats()
        board.run(5.0)
        after = board.stats()
        assert before is not None
        assert after is not None
        counts.append(after.ticks - before.ticks)
    assert counts == [500, 510]


def test_lost_stack_pointer_ends_in_a_watchdog_reset(board: BmsBoard):
    """Every trap needs the stack: nothing of the firmware can run any more, the watchdog can."""
    board.machine.set_register("sp", 0)
    board.run(2.0)
    assert board.log[1][1] in ("watchdog", "trap without handler")
    assert len(board.log) == 2
    assert board.stats() is not None
