"""What outlives a reset survives a cut in every flash operation; parked mode; flawed releases."""

from __future__ import annotations

import numpy as np
import pytest

from bms_emulator.board import BmsBoard
from bms_emulator.devices.afe import Truth
from bms_emulator.devices.nvm import Cut
from bms_emulator.firmware.package import Identity, development_key, package
from bms_emulator.firmware.parameters import make_params
from bms_emulator.firmware.paramset import pack_set, schema
from bms_emulator.firmware.releases import load_release
from bms_emulator.firmware.target import build_program
from bms_emulator.native import NativeBms, read_outputs
from tests.isa.test_fw_on_the_board import DESIGN, black_box, board_with, measure, signed

pytest.importorskip("ziglang", reason="ziglang compiles the firmware")


def lines(board: BmsBoard) -> dict[int, bytes]:
    return {int(line["sequence"]): line.tobytes() for line in black_box(board)}


def lively(board: BmsBoard, seconds: int) -> None:
    """Closing and opening, and a charge that moves by more than a percent: lines and stores of the charge."""
    for k in range(seconds):
        link = 51.8 if board.contactors & 5 else 0.0
        truth = Truth(np.full(14, 3.7), np.full(4, 298.15), 900.0 * (k % 2), 51.8, link)
        board.measure(truth, 100, request=1)
        board.run(1.0)


def test_black_box_and_charge_survive_a_cut_in_every_operation():
    board = board_with(signed(make_params([DESIGN | {"capacity_mAh": 20_000}])))
    measure(board, 4)
    start = board.snapshot()
    before = lines(board)
    board.nvm.arm(None)
    lively(board, 5)
    operations = list(board.nvm.operations)
    assert len(operations) >= 4
    like = NativeBms([DESIGN])
    for number, (_, _, size) in enumerate(operations):
        for inside in (None, size // 2):
            board.restore(start)
            board.nvm.arm(Cut(number, inside))
            lively(board, 5)
            assert not board.powered, "the cut came"
            board.nvm.arm(None)
            kept = lines(board)
            assert before.items() <= kept.items(), (number, inside)
            board.power_on()
            board.run(0.5)
            measure(board, 2)
            assert kept.items() <= lines(board).items(), (number, inside)
            assert sorted(lines(board)) == list(range(len(lines(board)))), (number, inside)
            assert read_outputs(board.context, like)["soc_ppm"][0] <= 1_000_000
            assert board.stats().ticks > 200, "protection runs"


def test_parked_board_sleeps_and_gas_wakes_it():
    board = board_with(signed(make_params([DESIGN | {"park_after_s": 10, "park_awake_s": 1}])))
    like = NativeBms([DESIGN])

    def sample(gas_ppm: float = 0.0) -> None:
        board.measure(
            Truth(np.full(14, 3.7), np.full(4, 293.15), 0.0, 51.8, 0.0, gas_ppm=gas_ppm), 100, request=0
        )

    for _ in range(16):
        sample()
        board.run(1.0)
    asleep_from = board.stats().ticks
    for _ in range(20):
        sample()
        board.run(1.0)
    assert board.stats().ticks == asleep_from, "no tick while it sleeps"
    sample(gas_ppm=500.0)
    board.run(1.5)
    assert board.stats().ticks > asleep_from, "woken by the comparator, within half a second"
    slept_ms = int(read_outputs(board.context, like)["uptime_ms"][0]) - 10 * board.stats().ticks
    assert 15_000 <= slept_ms <= 25_000, "its clock went on"
    assert [what for _, what in board.log] == ["power on"], "the watchdog was fed"


def flawed(name: str) -> BmsBoard:
    app = build_program("app", load_release(name).flags)
    key, identity, version = development_key(), Identity(), schema()["version"]
    board = BmsBoard()
    board.manufacture(
        build_program("rom"),
        package(app.body, (*load_release(name).numbers, 0), key, identity, schema=version),
        package(
            pack_set(make_params([DESIGN])[0], 1), (1, 0, 0, 0), key, identity, schema=version, bootable=False
        ),
    )
    board.power_on()
    board.run(0.5)
    return board


def test_crash_at_boot_resets_again_and_again():
    board = flawed("crash_at_boot")
    board.run(3.0)
    assert len(board.log) >= 3
    assert board.contactors == 0


def test_confirm_then_crash_comes_after_half_a_minute():
    board = flawed("confirm_then_crash")
    measure(board, 25)
    assert [what for _, what in board.log] == ["power on"]
    assert board.contactors == 3
    measure(board, 10)
    assert len(board.log) >= 2


def test_rt_overrun_is_measured_and_diagnosed():
    board = flawed("rt_overrun")
    measure(board, 5)
    assert board.stats().overruns >= 5
    outputs = read_outputs(board.context, NativeBms([DESIGN]))
    names = NativeBms([DESIGN]).fault_names
    assert int(outputs["fault_active"][0]) >> names.index("RT_OVERRUN") & 1


def test_a_deaf_release_leaves_frames_unanswered():
    answered = {}
    for name in ("1.2.0", "no_further_update"):
        board = flawed(name)
        measure(board, 2)
        board.mailbox.sent.clear()
        board.mailbox.receive(b"\x01\x00\x00\x00garbage of a gateway")
        measure(board, 2)
        answered[name] = len(board.mailbox.waiting)
    assert answered == {"1.2.0": 0, "no_further_update": 1}
