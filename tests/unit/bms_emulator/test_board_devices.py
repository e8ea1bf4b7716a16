"""The devices of the board by themselves: what they promise, what their faults leave behind."""

from __future__ import annotations

import hashlib
import math
import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from bms_emulator.board import BmsBoard
from bms_emulator.devices import afe, hsm, nvm, reset, watchdog
from bms_emulator.devices.chip import POWER_CUT, RESET
from bms_emulator.firmware.package import development_key, spki
from bms_emulator.state import S

RAM = 0x1000_0000
P256 = ec.derive_private_key(7, ec.SECP256R1())


@pytest.fixture
def board() -> BmsBoard:
    public = P256.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    board = BmsBoard(keys=[hsm.KeySlot(spki(development_key()), 0), hsm.KeySlot(public, 1)])
    board.nvm.put_bytes(0, b"\xff" * board.machine.board.memory("flash").size)
    return board


def register(module: object, name: str) -> int:
    return next(offset for known, offset, _, _ in module.REGISTERS if known == name)  # type: ignore[attr-defined]


def flash(board: BmsBoard, command: int, at: int, data: bytes = b"", size: int = 0, done: bool = True) -> int:
    """One command of the flash controller through its registers; the status after its end."""
    board.machine.write_memory(RAM, data)
    for name, value in (("ADDRESS", at), ("BUFFER", RAM), ("LENGTH", size or len(data))):
        assert board.nvm.write(register(nvm, name), 15, value, 0)
    board.nvm.write(register(nvm, "COMMAND"), 15, command, 0)
    if done and board.nvm.read(register(nvm, "STATUS"), 0) == 1 << 31:
        (cycle, _, _, event), *board.machine._events = board.machine._events
        board.nvm.event(event, cycle)
    return board.nvm.read(register(nvm, "STATUS"), 0) or 0


ERASE, PROGRAM, READ, PROTECT = 1, 2, 3, 4


def test_flash_programs_ones_to_zeros_only(board: BmsBoard):
    assert flash(board, PROGRAM, 0x100, b"\x0f\x00\xff\x55") == nvm.OK
    assert flash(board, PROGRAM, 0x100, b"\xf0\xff\xff\xff") == nvm.BAD
    assert board.nvm.bytes_at(0x100, 4) == b"\x00\x00\xff\x55"
    assert flash(board, ERASE, 0x1FC) == nvm.OK
    assert board.nvm.bytes_at(0, 4096) == b"\xff" * 4096
    assert board.nvm.erases[:2] == [1, 0]


@pytest.mark.parametrize(
    ("command", "at", "size"), [(PROGRAM, 2, 4), (PROGRAM, 0, 6), (READ, 0xAA000, 4), (9, 0, 4)]
)
def test_flash_refuses_what_it_cannot_do(board: BmsBoard, command: int, at: int, size: int):
    assert flash(board, command, at, bytes(size)) == nvm.RANGE


def test_flash_takes_the_times_of_the_data_sheet(board: BmsBoard):
    for command, size, seconds in ((ERASE, 0, 44.04e-3), (PROGRAM, 4096, 512 * 81.69e-6)):
        flash(board, command, 0, bytes(size), done=False)
        due = board.machine._events.pop()[0]
        assert due / 50e6 == pytest.approx(seconds, rel=1e-3)
        board.nvm.event("done", due)


def test_flash_protection_lasts_until_reset(board: BmsBoard):
    assert flash(board, PROTECT, 0x2000, size=0x1000) == nvm.OK
    for at, status in ((0x2FFC, nvm.PROTECTED), (0x3000, nvm.OK), (0x1FFC, nvm.OK)):
        assert flash(board, PROGRAM, at, b"\0\0\0\0") == status
    assert flash(board, ERASE, 0x2000) == nvm.PROTECTED
    board.nvm.reset()
    assert flash(board, ERASE, 0x2000) == nvm.OK


def test_window_locks(board: BmsBoard):
    at = register(nvm, "WINDOW")
    slot = board.machine.board.partition("slot_1").at
    board.nvm.put_bytes(slot, b"here")
    board.nvm.write(at, 15, 1 | 1 << 31, 0)
    assert board.machine.read_memory(0x0800_0000, 4) == b"here"
    board.nvm.write(at, 15, 0, 0)
    assert board.machine.read_memory(0x0800_0000, 4) == b"here"
    board.nvm.reset()
    assert board.machine.read_memory(0x0800_0000, 4) == b"\xff" * 4


def test_spoiled_word_fails_until_erased(board: BmsBoard):
    board.nvm.spoil(0x106)
    assert flash(board, READ, 0x100, size=4) == nvm.OK
    assert flash(board, READ, 0x104, size=4) == nvm.ECC
    assert flash(board, READ, 0x107, size=1) == nvm.ECC
    assert flash(board, ERASE, 0x100) == nvm.OK
    assert flash(board, READ, 0x104, size=4) == nvm.OK


def test_worn_sector_no_longer_erases(board: BmsBoard):
    board.nvm.wear(0x1000, nvm.ENDURANCE - 1)
    flash(board, PROGRAM, 0x1000, bytes(8))
    assert flash(board, ERASE, 0x1000) == nvm.OK
    flash(board, PROGRAM, 0x1000, bytes(8))
    assert flash(board, ERASE, 0x1000) == nvm.WORN
    assert board.nvm.bytes_at(0x1000, 8) == bytes(8)


def test_cut_inside_a_program_leaves_the_first_words(board: BmsBoard):
    board.nvm.arm(nvm.Cut(1, inside=9))
    flash(board, ERASE, 0)
    flash(board, PROGRAM, 0x40, bytes(16))
    assert (int(board.machine.st[S["HALTED"]]), board.machine.st[S["HALT_CODE"]]) == (POWER_CUT, 1)
    left = board.nvm.bytes_at(0x40, 16)
    assert left[:8] == bytes(8)
    assert left[12:] == b"\xff" * 4
    assert board.nvm.operations == [(ERASE, 0, 4096), (PROGRAM, 0x40, 16)]


def test_unstable_word_reads_differently_until_programmed(board: BmsBoard):
    board.nvm.unstable = {0x40: 0xFF}
    board.nvm.put_bytes(0x40, bytes(4))
    seen = set()
    for _ in range(40):
        flash(board, READ, 0x40, size=4)
        seen.add(board.machine.read_memory(RAM, 4))
    assert len(seen) > 5
    assert all(word[1:] == bytes(3) for word in seen)
    flash(board, PROGRAM, 0x40, bytes(4))
    flash(board, READ, 0x40, size=4)
    assert board.machine.read_memory(RAM, 4) == bytes(4)
    assert board.nvm.unstable == {}


def test_power_fails_in_the_middle_of_an_erase(board: BmsBoard):
    board.nvm.put_bytes(0, bytes(4096))
    flash(board, ERASE, 0, done=False)
    board.nvm.power_cut(nvm.ERASE_CYCLES // 2)
    left = board.nvm.bytes_at(0, 4096)
    assert left[:2000] == b"\xff" * 2000
    assert 800 < left[2048:].count(0) < 1250
    board.machine._events.clear()


def test_flip(board: BmsBoard):
    board.nvm.put_bytes(5, b"\x10")
    board.nvm.flip(5, 4)
    assert board.nvm.bytes_at(5, 1) == b"\0"


# ---- crypto engine ----------------------------------------------------------------------------------------


def engine(board: BmsBoard, command: int, **registers: int) -> int:
    """One command of the crypto engine; cycles until it is done."""
    for name, value in registers.items():
        board.hsm.write(register(hsm, name), 15, value, 0)
    board.hsm.write(register(hsm, "COMMAND"), 15, command, 0)
    cycle, _, _, event = board.machine._events.pop()
    board.hsm.event(event, cycle)
    return cycle


def verify(
    board: BmsBoard, key: bytes, purpose: int, algorithm: int, message: bytes, signature: bytes
) -> int:
    place = [RAM, RAM + 0x100, RAM + 0x1000]
    for at, data in zip(place, (hashlib.sha256(key).digest(), signature, message), strict=True):
        board.machine.write_memory(at, data)
    names = ("KEY", "SIGNATURE", "SOURCE", "LENGTH", "SIGNATURE_LENGTH", "PURPOSE", "ALGORITHM")
    values = (*place, len(message), len(signature), purpose, algorithm)
    return engine(board, 4, **dict(zip(names, values, strict=True)))


def result(board: BmsBoard) -> int:
    return board.hsm.read(register(hsm, "RESULT"), 0) or 0


def test_hsm_hashes(board: BmsBoard):
    data = bytes(range(200))
    board.machine.write_memory(RAM, data)
    engine(board, 1)
    engine(board, 2, SOURCE=RAM, LENGTH=150)
    engine(board, 2, SOURCE=RAM + 150, LENGTH=50)
    engine(board, 3, OUTPUT=RAM + 0x200)
    assert board.machine.read_memory(RAM + 0x200, 32) == hashlib.sha256(data).digest()


def test_hsm_verifies_both_algorithms_and_refuses_the_rest(board: BmsBoard):
    key = development_key()
    message = b"m" * 32
    good = key.sign(message)
    assert verify(board, spki(key), 0, 1, message, good) == pytest.approx(hsm.ED25519_CYCLES, abs=100)
    assert result(board) == hsm.VALID
    p256 = board.hsm.keys[1].spki
    der = P256.sign(message, ec.ECDSA(hashes.SHA256()))
    r, s = utils.decode_dss_signature(der)
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert verify(board, p256, 1, 2, message, raw) == pytest.approx(hsm.P256_CYCLES, abs=100)
    assert result(board) == hsm.VALID
    verify(board, p256, 1, 3, hashlib.sha256(message).digest(), raw)
    assert result(board) == hsm.VALID
    for arguments in (
        (spki(key), 0, 1, b"n" * 32, good),  # another message
        (spki(key), 1, 1, message, good),  # key of another purpose
        (spki(key), 0, 2, message, good),  # key of another algorithm
        (spki(key), 0, 1, message, good[:63]),
        (spki(key), 0, 1, message, good[:32] + (2**256 - 1).to_bytes(32, "little")),
        (b"unknown", 0, 1, message, good),
        (p256, 1, 2, message, raw[:-1] + bytes([raw[-1] ^ 1])),
        (p256, 1, 2, message, bytes(64)),
    ):
        verify(board, *arguments)
        assert result(board) == hsm.INVALID
    engine(board, 1)
    assert result(board) == 0  # nothing verified since
    board.hsm.write(register(hsm, "SOURCE"), 15, 0xDEAD0000, 0)
    engine(board, 4)
    assert result(board) == hsm.INVALID  # an address that is not memory


def test_hsm_counters_only_rise_and_survive(board: BmsBoard):
    for new in (5, 3):
        engine(board, 5, COUNTER_ID=2, COUNTER_NEW=new)
    board.hsm.reset()
    board.hsm.write(register(hsm, "COUNTER_ID"), 15, 2, 0)
    assert board.hsm.read(register(hsm, "COUNTER"), 0) == 5


def test_hsm_random_comes_from_its_named_seed(board: BmsBoard):
    drawn = []
    for other in (board, BmsBoard(seed=0), BmsBoard(seed=1)):
        engine(other, 6, OUTPUT=RAM, LENGTH=16)
        drawn.append(other.machine.read_memory(RAM, 16))
    assert drawn[0] == drawn[1] != drawn[2]


# ---- watchdog, reset, mailbox, CAN ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cycle", "word", "bites"),
    [
        (499, watchdog.FEED_WORD, "too early"),
        (500, watchdog.FEED_WORD, ""),
        (700, 1, "wrong word"),
    ],
)
def test_watchdog_window(board: BmsBoard, cycle: int, word: int, bites: str):
    dog = board.watchdog
    for name, value in (("OPEN", 500), ("CLOSE", 1000), ("CONTROL", 1), ("OPEN", 0)):
        dog.write(register(watchdog, name), 15, value, 0)
    assert dog.read(register(watchdog, "OPEN"), 0) == 500  # not changed once enabled
    dog.write(register(watchdog, "FEED"), 15, word, cycle)
    assert board._bitten == bites
    board.machine.st[S["HALTED"]] = 0
    dog.event("due", 1000)
    assert bool(board._bitten) == bool(bites)
    dog.event("due", cycle + 1000)
    assert board._bitten
    assert int(board.machine.st[S["HALTED"]]) == RESET


def test_reset_controller_keeps_its_word_over_warm_resets(board: BmsBoard):
    controller = board.resets
    controller.write(register(reset, "KEEP"), 15, 7, 0)
    for cause, kept in ((reset.WATCHDOG, 7), (reset.SOFTWARE, 7), (reset.BROWN_OUT, 0)):
        controller.after(cause, 3)
        assert controller.read(register(reset, "KEEP"), 0) == kept
        assert controller.read(register(reset, "CAUSE"), 0) == cause


def test_mailbox_gives_frames_one_by_one(board: BmsBoard):
    box = board.mailbox
    buffer = board.machine.board.memory("mailbox_buffer").base
    box.receive(b"one")
    box.receive(b"x" * 2000)
    line = S["LINES"] + 19
    assert board.machine.st[line] < 1 << 60
    assert box.read(0, 0) == 3
    assert board.machine.read_memory(buffer, 3) == b"one"
    box.write(4, 15, 1, 0)
    assert box.read(0, 0) == 1032  # longer ones are cut
    box.write(4, 15, 1, 0)
    assert box.read(0, 0) == 0
    assert board.machine.st[line] > 1 << 60
    board.machine.write_memory(buffer + 0x800, b"answer")
    box.write(8, 15, 6, 0)
    assert box.sent == [b"answer"]


def test_can_takes_bus_time_and_loses_what_the_queue_cannot_hold(board: BmsBoard):
    for offset, value in ((0, 0x123), (4, 8), (8, 0x04030201), (12, 0x08070605)):
        board.can.write(offset, 15, value, 0)
    for _ in range(20):
        board.can.write(0x10, 15, 1, 1000)
    assert board.can.read(0x14, 1000) == 0
    assert len(board.can.log) == 16
    end, identifier, data = board.can.log[0]
    assert (end, identifier, data) == (1000 + (47 + 64) * 100, 0x123, bytes(range(1, 9)))
    assert board.can.read(0x14, end) == 1


def test_narrow_stores_to_registers_are_faults(board: BmsBoard):
    for device in (board.nvm, board.hsm, board.mailbox, board.can, board.watchdog, board.resets):
        assert device.write(0, 1, 1, 0) is False
        assert device.read(0x100, 0) is None


# ---- sensors ----------------------------------------------------------------------------------------------


def truth(n: int = 100) -> afe.Truth:
    return afe.Truth(np.full(n, 3.70004), np.full(20, 299.93), -12.3456, 370.0, 0.5)


def cells(block: bytes) -> np.ndarray:
    return np.frombuffer(block[:512], dtype="<u2")


def test_ideal_front_end_quantises(board: BmsBoard):
    block = board.afe.convert(truth(), 100, 0.0)
    assert set(cells(block)[:100].tolist()) == {37000}
    assert set(cells(block)[100:].tolist()) == {afe.NO_VOLTAGE}
    temperatures = np.frombuffer(block[0x200:0x280], dtype="<i2")
    assert set(temperatures[:20].tolist()) == {268}  # 26.78 degC
    assert struct.unpack_from("<iiIII", block, 0x280) == (-12346, -12346, 370000, 500, 100)
    assert struct.unpack_from("<III", block, 0x2A0) == (10000, 0, 0)
    lost = afe.Truth(np.array([math.nan, 9.0]), np.array([math.nan]), math.nan, math.nan, 1.0)
    block = board.afe.convert(lost, 1, 0.0)
    assert cells(block)[:2].tolist() == [afe.NO_VOLTAGE, afe.NO_VOLTAGE - 1]
    assert struct.unpack_from("<ii", block, 0x280) == (afe.NO_CURRENT, afe.NO_CURRENT)


def test_errors_of_the_channels_have_the_stated_spread():
    errors = afe.Errors(
        seed=4, cell_offset_V=2e-3, cell_noise_V=0.5e-3, current_offset_A=0.1, current_gain=0.01
    )
    front = BmsBoard(errors=errors).afe
    samples = []
    for _ in range(60):
        samples.append(cells(front.convert(truth(256), 1, 0.0)).astype(float) * 1e-4)
        front.samples += 1
    offset = np.mean(samples, axis=0) - 3.70004
    noise = np.std(samples, axis=0)
    assert np.std(offset) == pytest.approx(2e-3, rel=0.2)
    assert np.mean(noise) == pytest.approx(0.5e-3, rel=0.1)
    assert abs(np.mean(offset)) < 5e-4
    drifting = afe.Errors(seed=4, current_drift_A_per_h=0.2)
    block = BmsBoard(errors=drifting).afe
    one, two = (struct.unpack_from("<i", block.convert(truth(), 1, t), 0x280)[0] for t in (0.0, 7200.0))
    assert one == -12346
    assert two != one


def test_faults_of_the_front_end(board: BmsBoard):
    base = board.machine.board.memory("afe").base

    def sequence() -> int:
        return int.from_bytes(board.machine.read_memory(base + 0x294, 2), "little")

    board.afe.stuck = {2: b"\x01\x02"}
    board.measure(truth())
    assert cells(board.machine.read_memory(base, 512))[:3].tolist() == [37000, 0x0201, 37000]
    board.afe.garbage = 1
    board.measure(truth())
    assert len(set(board.machine.read_memory(base, 512))) > 100
    board.afe.lost = 1
    before = sequence()
    board.measure(truth())
    assert sequence() == before
    board.late_s = 0.001
    board.measure(truth())
    board.run(0.0005)
    assert sequence() == before
    board.run(0.0006)
    assert sequence() == before + 1
