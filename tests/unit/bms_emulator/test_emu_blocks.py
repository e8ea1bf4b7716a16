"""The block engine beside the interpreter where it is hard: rewritten code, devices, many modules."""

import pytest

from bms_emulator import blocks
from bms_emulator.asm import Assembler, encode
from bms_emulator.bench import IMAGES, endless_kernel
from bms_emulator.elf import Image, read_image
from bms_emulator.machine import Machine, Stop
from bms_emulator.regmap import load_board

BASE = 0x0010_0080


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Translate almost at once."""
    monkeypatch.setattr(blocks, "FIRST_LOOK", 300)
    monkeypatch.setattr(blocks, "HOT", 3)


def both(body) -> tuple[Machine, Machine]:
    """Run `body` to its halt on both engines and demand the same end."""
    a = Assembler(BASE)
    body(a)
    a.li(28, 0x0002_0008)
    a.op("addi", 29, 0, imm=1)
    a.op("sw", rs1=28, rs2=29)
    image = Image(((BASE, a.bytes(), len(a.bytes())),), None)
    machines = Machine(), Machine(engine="blocks")
    for machine in machines:
        machine.load(image)
        assert machine.run(max_cycles=2_000_000).reason is Stop.HALT
    assert machines[0].state_hash() == machines[1].state_hash()
    return machines


def test_rewriting_translated_code(eager: None):
    """A hot loop whose body is overwritten every 64 turns; fence.i as the architecture asks."""

    def body(a: Assembler) -> None:
        a.li(10, 2000)
        a.la(11, "place")
        a.li(12, encode("addi", 5, 5, imm=3))
        a.label("loop")
        a.label("place")
        a.op("addi", 5, 5, imm=1)
        a.op("addi", 10, 10, imm=-1)
        a.op("andi", 13, 10, imm=63)
        a.branch("bne", 13, 0, "skip")
        a.op("sw", rs1=11, rs2=12)
        a.op("xori", 12, 12, imm=0)
        a.op("fence.i")
        a.label("skip")
        a.branch("bne", 10, 0, "loop")

    interp, translated = both(body)
    assert interp.register(5) > 2000
    assert translated._translator is not None
    assert translated._translator.translated > 0


def test_devices_faults_and_division_in_a_hot_loop(eager: None):
    def body(a: Assembler) -> None:
        a.li(10, 600)
        a.li(11, 0x0003_0000)
        a.li(12, 0x0018_0001)
        a.label("loop")
        a.op("lw", 5, 11)  # mtime
        a.op("xor", 6, 6, 5)
        a.op("sw", rs1=12, rs2=6, imm=0)  # misaligned: three cycles
        a.op("lhu", 7, 12, imm=2)
        a.op("andi", 13, 10, imm=3)
        a.op("div", 14, 6, 13)  # by zero every fourth time
        a.op("remu", 15, 6, 10)
        a.op("mulh", 16, 14, 15)
        a.csr("csrrs", 17, "mcycle")
        a.op("add", 6, 6, 17)
        a.op("addi", 10, 10, imm=-1)
        a.branch("bne", 10, 0, "loop")

    both(body)


def test_indirect_calls_between_hot_routines(eager: None):
    def body(a: Assembler) -> None:
        a.li(10, 900)
        a.la(11, "one")
        a.la(12, "two")
        a.jump(0, "loop")
        a.half(0x0001)
        a.label("one")
        a.op("addi", 5, 5, imm=1)
        a.op("jalr", 0, 1, short=True)
        a.label("two")
        a.op("xor", 5, 5, 10)
        a.op("jalr", 0, 1)
        a.label("loop")
        a.op("jalr", 1, 11)
        a.op("sub", 13, 12, 11)
        a.op("xor", 11, 11, 12)  # swap
        a.op("xor", 12, 11, 12)
        a.op("xor", 11, 11, 12)
        a.op("addi", 10, 10, imm=-1, short=True)
        a.branch("bne", 10, 0, "loop")

    both(body)


ROM_BOARD = """
[board.toy]
about = "Code in read-only memory"
clock_Hz = 1_000_000
reset_pc = 0x0000_0080
mtvec = "vectored"
[[board.toy.memory]]
name = "sram"
base = 0x2000_0000
size = 0x1000
access = "rwx"
[[board.toy.memory]]
name = "rom"
base = 0x0000_0000
size = 0x1000
access = "rx"
"""


def test_code_and_constants_in_another_memory(eager: None, tmp_path):
    """Hot code in ROM that reads constants there and works on SRAM; then a store to ROM, which faults."""
    path = tmp_path / "map.toml"
    path.write_text(ROM_BOARD)
    board = load_board("toy", path)
    a = Assembler(0x80)
    a.li(10, 3000)
    a.li(11, 0x2000_0100)
    a.label("loop")
    a.op("lw", 5, 0, imm=0x80)
    a.op("add", 6, 6, 5)
    a.op("sw", rs1=11, rs2=6)
    a.op("lhu", 7, 11, imm=2)
    a.jump(1, "mix")
    a.op("addi", 10, 10, imm=-1)
    a.branch("bne", 10, 0, "loop")
    a.op("sw", rs1=0, rs2=6, imm=0x80)
    a.label("mix")
    a.op("xor", 6, 6, 7)
    a.op("jalr", 0, 1, short=True)
    image = Image(((0x80, a.bytes(), len(a.bytes())),), None)
    machines = [Machine(board, engine, lockup_stops=False) for engine in ("interp", "blocks")]
    for machine in machines:
        machine.load(image)
        machine.run(until=100_000)
        assert (machine.csr("mcause"), machine.csr("mtval")) != (0, 0)
    assert machines[0].state_hash() == machines[1].state_hash()
    assert machines[1]._translator is not None
    assert machines[1]._translator.translated > 5


def test_long_run_with_interrupts_is_equal_at_every_slice():
    image = read_image(IMAGES / "k_ekf_q16.elf")
    interp, translated = (endless_kernel(image, engine, 12) for engine in ("interp", "blocks"))
    for slice_cycles in (1, 1000, 333_333, 7, 1_000_000, 123_457):
        interp.run(max_cycles=slice_cycles)
        translated.run(max_cycles=slice_cycles)
        assert interp.state_hash() == translated.state_hash()
    assert interp.run(max_cycles=50_000_000) == translated.run(max_cycles=50_000_000)
    assert interp.state_hash() == translated.state_hash()
    assert translated.csr("mcause") == 0x80000007  # interrupts did come


def test_compiled_objects_are_found_again(eager: None, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWIN_CACHE", str(tmp_path))
    image = read_image(IMAGES / "k_crc32.elf")
    compiled = []
    for _ in range(2):
        machine = Machine(engine="blocks")
        machine.load(image)
        machine.run(max_cycles=1_000_000)
        assert machine._translator is not None
        compiled.append(machine._translator.compiled)
    assert compiled[0] > 0
    assert compiled[1] == 0
    assert list((tmp_path / "blocks").glob("*.o"))
