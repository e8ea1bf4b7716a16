"""The machine door: state, snapshots, slices, devices in Python, reset, breakpoints, skipped instructions."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest

from bms_emulator.asm import Assembler
from bms_emulator.bench import IMAGES, endless_kernel
from bms_emulator.elf import Image, read_image
from bms_emulator.machine import Machine, Stop
from bms_emulator.regmap import load_board

BASE = 0x0010_0080
BOARD = """
[board.toy]
about = "Two memories and a device in Python"
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
[[board.toy.device]]
name = "counter"
driver = "python"
base = 0x4000_0000
size = 0x10
irq = 11
"""


class Counter:
    """Counts accesses; offset 12 is not there; an event raises its interrupt line."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.value = 0
        self.seen: list[tuple[str, int, int, int, int]] = []

    def read(self, offset: int, cycle: int) -> int | None:
        self.seen.append(("r", offset, 0, 0, cycle))
        self.value += 1
        return None if offset == 12 else 0x11223344 + self.value

    def write(self, offset: int, lanes: int, value: int, cycle: int) -> bool | None:
        self.seen.append(("w", offset, lanes, value, cycle))
        return offset != 12

    def event(self, name: str, cycle: int) -> None:
        self.seen.append((name, 0, 0, 0, cycle))
        self.machine.set_line(11, True)

    def snapshot(self) -> bytes:
        return self.value.to_bytes(4, "little")

    def restore(self, state: bytes) -> None:
        self.value = int.from_bytes(state, "little")


@pytest.fixture
def toy(tmp_path: Path) -> Machine:
    path = tmp_path / "map.toml"
    path.write_text(BOARD)
    return Machine(load_board("toy", path), lockup_stops=False)


def small(machine: Machine, base: int, body) -> None:
    a = Assembler(base)
    body(a)
    machine.load(Image(((base, a.bytes(), len(a.bytes())),), None))


def test_python_device_sees_lanes_values_and_cycles(toy: Machine):
    device = Counter(toy)
    toy.attach("counter", device)

    def body(a: Assembler) -> None:
        a.li(5, 0x4000_0000)
        a.li(6, 0xA1B2C3D4)
        a.op("sb", rs1=5, rs2=6, imm=1)
        a.op("lw", 7, 5, imm=4)
        a.op("lhu", 8, 5, imm=3)  # split into two reads
        a.op("lw", 9, 5, imm=12)  # fault

    small(toy, 0x80, body)
    toy.run(instructions=7)
    t = 4 + 1 + 2
    assert device.seen[0] == ("w", 0, 2, 0xB2C3D4A1, t)
    assert device.seen[1] == ("r", 4, 0, 0, t + 2)
    assert device.seen[2:4] == [("r", 0, 0, 0, t + 4), ("r", 4, 0, 0, t + 5)]
    assert toy.register(7) == 0x11223345
    assert toy.register(8) == 0x4711 & 0xFF00 | 0x11
    assert (toy.csr("mcause"), toy.csr("mtval")) == (5, 0x4000_000C)
    assert toy.csr("mcycle") == toy.cycle - 1
    toy.attach("counter", Counter(toy))
    with pytest.raises(ValueError, match="no device"):
        toy.attach("nothing", device)


def test_events_come_at_their_cycle_and_interrupt(toy: Machine):
    device = Counter(toy)
    toy.attach("counter", device)
    small(toy, 0, lambda a: [a.op("addi", 5, 5, imm=1) for _ in range(140)])
    toy.set_csr("mie", 1 << 11)
    toy.set_csr("mstatus", 8)
    toy.schedule("counter", "later", 40)
    toy.run(until=60)
    assert device.seen == [("later", 0, 0, 0, 40)]
    assert toy.csr("mcause") == 0x8000000B
    assert toy.csr("mepc") == 0x80 + 4 * (41 - 4)


def test_rom_cannot_be_written_but_read_and_run(toy: Machine):
    def body(a: Assembler) -> None:
        a.op("lw", 5, 0, imm=0x80)
        a.op("sw", rs1=0, rs2=5, imm=0x100)

    small(toy, 0x80, body)
    toy.run(instructions=2)
    assert toy.register(5) == int.from_bytes(toy.read_memory(0x80, 4), "little")
    assert (toy.csr("mcause"), toy.csr("mtval")) == (7, 0x100)


@pytest.mark.parametrize("engine", ["interp", "blocks"])
def test_snapshot_restores_any_other_moment(engine: str):
    machine = Machine(engine=engine)
    machine.load(read_image(IMAGES / "k_ekf_q16.elf"))
    machine.run(until=150_000)
    kept, middle = machine.snapshot(), machine.state_hash()
    assert machine.run(max_cycles=10_000_000).reason is Stop.HALT
    end = machine.state_hash()
    machine.restore(kept)
    assert machine.state_hash() == middle
    machine.run(max_cycles=10_000_000)
    assert machine.state_hash() == end
    fresh = Machine()
    fresh.restore(kept)
    fresh.run(max_cycles=10_000_000)
    assert fresh.state_hash() == end
    with pytest.raises(ValueError, match="another board"):
        Machine("riscv-tests").restore(kept)


def test_restore_takes_less_than_5_ms():
    machine = endless_kernel(read_image(IMAGES / "k_crc32.elf"), "interp", 1)
    kept = machine.snapshot()
    times = []
    for _ in range(15):
        machine.run(max_cycles=2000)
        start = time.process_time()
        machine.restore(kept)
        times.append(time.process_time() - start)
    assert sorted(times)[len(times) // 2] < 5e-3


def test_restore_forgets_code_that_was_different():
    machine = Machine()
    small(machine, BASE, lambda a: [a.op("addi", 5, 5, imm=1) for _ in range(8)])
    kept = machine.snapshot()
    machine.write_memory(BASE, (0x00728293).to_bytes(4, "little"))  # addi t0, t0, 7
    machine.run(instructions=1)
    assert machine.register(5) == 7
    machine.restore(kept)
    machine.run(instructions=8)
    assert machine.register(5) == 8


def test_registers_memory_and_csrs_are_checked():
    machine = Machine()
    machine.set_register("a0", -1)
    machine.set_register(0, 5)
    assert (machine.register(10), machine.register("zero")) == (0xFFFFFFFF, 0)
    for broken in (
        lambda: machine.register(32),
        lambda: machine.register("x9x"),
        lambda: machine.csr("nothing"),
        lambda: machine.csr(0x7A0),
        lambda: machine.read_memory(0, 4),
        lambda: machine.read_memory(0x001F_FFFF, 2),
        lambda: machine.set_breakpoint(0x3000_0000),
        lambda: machine.run(),
        lambda: Machine(engine="fast"),
    ):
        with pytest.raises(ValueError, match=r"."):
            broken()


@pytest.mark.parametrize("engine", ["interp", "blocks"])
def test_breakpoints_and_steps(engine: str):
    machine = Machine(engine=engine)
    image = read_image(IMAGES / "k_ekf_q16.elf")
    machine.load(image)
    straight = Machine()
    straight.load(image)
    straight.run(max_cycles=10_000_000)
    kernel = image.symbol("kernel")
    assert kernel is not None
    machine.run(until=200_000)
    place = machine.pc
    machine.set_breakpoint(place)  # in the middle of what is hot
    hits = 0
    machine.skip_breakpoint()
    while machine.run(max_cycles=10_000_000).reason is Stop.BREAKPOINT and hits < 5:
        assert machine.pc == place
        hits += 1
        assert machine.step().reason is Stop.INSTRUCTIONS
    assert hits == 5
    machine.clear_breakpoint(place)
    assert machine.run(max_cycles=10_000_000).reason is Stop.HALT
    assert machine.state_hash() == straight.state_hash()


def test_skipped_instruction_has_no_effect():
    machine = Machine()
    small(machine, BASE, lambda a: [a.op("addi", 5, 5, imm=1) for _ in range(8)])
    machine.skip_instruction(BASE + 8)
    machine.run(instructions=8)
    assert (machine.register(5), machine.cycle) == (7, 12)


def test_reset_in_the_middle_keeps_time_going():
    machine = Machine()
    image = read_image(IMAGES / "k_crc32.elf")
    machine.load(image)
    machine.run(max_cycles=10_000_000)
    first, length = machine.console, machine.cycle
    machine.load(image)
    machine.run(until=30_000)
    machine.load(image)
    machine.reset(at_cycle=30_000)
    assert machine.run(max_cycles=10_000_000).reason is Stop.HALT
    assert machine.console == first
    assert machine.cycle == 30_000 + length


def test_state_is_a_few_flat_arrays():
    """What a snapshot holds is bytes: nothing of the machine leaks into it."""
    kept = Machine().snapshot()
    assert all(isinstance(part, bytes | tuple) for part in dataclasses.astuple(kept))
    assert len(kept.memory) < (1 << 20) + 4096
    assert len(np.frombuffer(kept.state, dtype=np.int64)) < 500
