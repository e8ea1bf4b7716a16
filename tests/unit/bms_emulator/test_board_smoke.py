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
