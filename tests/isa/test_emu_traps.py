"""Traps, CSRs and counters: what Ibex 'small' has, and the rules of each that the reference notes give."""

import itertools

import pytest

from bms_emulator.asm import Assembler
from bms_emulator.csr import CSRS, exists
from bms_emulator.elf import Image
from bms_emulator.machine import Machine, Stop

BASE = 0x0010_0000
HANDLER = BASE
CODE = BASE + 0x80
NOP = (0x13).to_bytes(4, "little")


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine(lockup_stops=False)


def run(machine: Machine, body, instructions: int, registers: dict[int, int] | None = None) -> Machine:
    """Load `body` at the reset address and run a number of instructions."""
    a = Assembler(CODE)
    body(a)
    vectors = NOP * 32  # a handler that does nothing, and runs on into the code
    machine.load(Image(((BASE, vectors, len(vectors)), (CODE, a.bytes(), len(a.bytes()))), None))
    for register, content in (registers or {}).items():
        machine.set_register(register, content)
    machine.run(instructions=instructions)
    return machine


def trap_of(machine: Machine) -> tuple[int, int, int]:
    """(mcause, mepc relative to the code, mtval)."""
    return machine.csr("mcause"), machine.csr("mepc") - CODE, machine.csr("mtval")


@pytest.mark.parametrize(
    ("word", "size", "cause", "tval"),
    [
        (0x00000073, 4, 11, 0),
        (0x00100073, 4, 3, 0),
        (0x9002, 2, 3, 0),
        (0xFFFFFFFF, 4, 2, 0xFFFFFFFF),
        (0x0000, 2, 2, 0),
        (0x9C41, 2, 2, 0x9C41),
        (0x7B200073, 4, 2, 0x7B200073),  # dret outside debug mode
        (0x10200073, 4, 2, 0x10200073),  # sret
        (0x123023F3, 4, 2, 0x123023F3),  # a CSR that is not there
        (0xF1401073, 4, 2, 0xF1401073),  # write to mhartid
        (0x00001067, 4, 2, 0x00001067),  # jalr with funct3 1
        (0x02001013, 4, 2, 0x02001013),  # slli by 32
        (0x0000302F, 4, 2, 0x0000302F),  # an atomic
    ],
)
def test_exception_cause_value_and_cycles(machine: Machine, word: int, size: int, cause: int, tval: int):
    run(machine, lambda a: a.word(word) if size == 4 else a.half(word), 1)
    assert trap_of(machine) == (cause, 0, tval)
    assert machine.pc == HANDLER
    assert machine.cycle == 4 + 3  # decode, flush, fetch
    assert machine.retired == 0
    assert machine.csr("mstatus") == 0x1800  # MPIE = old MIE = 0, MPP = machine


@pytest.mark.parametrize(
    ("address", "name", "cause", "tval", "cycles"),
    [
        (0x4000_0000, "lw", 5, 0x4000_0000, 4),
        (0x4000_0001, "lb", 5, 0x4000_0001, 4),
        (0x4000_0003, "lh", 5, 0x4000_0003, 5),  # split; the first half fails: the address itself
        (0x0020_0000 - 2, "lw", 5, 0x0020_0000, 5),  # the second half fails: the word that is missing
        (0x0010_0000 - 1, "lw", 5, 0x0010_0000 - 1, 5),
        (0x4000_0000, "sw", 7, 0x4000_0000, 4),
        (0x0020_0000 - 1, "sh", 7, 0x0020_0000, 5),
        (0x0003_0010, "sw", 7, 0x0003_0010, 4),  # behind the timer's registers
    ],
)
def test_access_faults(machine: Machine, address: int, name: str, cause: int, tval: int, cycles: int):
    def body(a: Assembler) -> None:
        a.op(name, rs1=5, rs2=6) if name[0] == "s" else a.op(name, 6, 5)

    run(machine, body, 1, {5: address, 6: 0xA1B2C3D4})
    assert trap_of(machine) == (cause, 0, tval)
    assert machine.cycle == 4 + cycles
    assert machine.retired == 0
    assert machine.register(6) == 0xA1B2C3D4
    if name == "sh":  # the half that has a memory behind it is written
        assert machine.read_memory(0x001F_FFFF, 1) == b"\xd4"


@pytest.mark.parametrize(("target", "tval", "straddles"), [(0x5000_0000, 0, 0), (0x5000_0002, 0, 1)])
def test_jump_to_nowhere(machine: Machine, target: int, tval: int, straddles: int):
    run(machine, lambda a: a.op("jalr", 1, 5), 2, {5: target})
    assert (machine.csr("mcause"), machine.csr("mepc"), machine.csr("mtval")) == (1, target, target + tval)
    assert machine.cycle == 4 + 2 + straddles + 3
    assert machine.register(1) == CODE + 4


def test_instruction_half_outside_memory(machine: Machine):
    machine.load(Image(((CODE, b"\x67\x80\x02\x00", 4), (0x001F_FFFE, b"\x13\x00", 2)), None))
    machine.set_register(5, 0x001F_FFFE)
    machine.run(instructions=2)
    assert (machine.csr("mcause"), machine.csr("mepc"), machine.csr("mtval")) == (1, 0x001F_FFFE, 0x0020_0000)


def test_user_mode_and_back(machine: Machine):
    def body(a: Assembler) -> None:
        a.la(5, "user")
        a.csr("csrrw", 0, "mepc", 5)
        a.op("mret")
        a.label("user")
        a.csr("csrrs", 6, "mcycle")  # illegal in user mode

    run(machine, body, 4)
    assert machine.csr("mstatus") == 0x88 & ~8 | 0x88  # MIE = MPIE = 1, MPP = user
    machine.run(instructions=1)
    assert trap_of(machine) == (2, 16, 0xB0002373)
    assert machine.csr("mstatus") == 0x80  # MPP = user


def test_ecall_mret_and_wfi_in_user_mode(machine: Machine):
    for name, tw, cause in (("ecall", 0, 8), ("mret", 0, 2), ("wfi", 1, 2), ("wfi", 0, None)):

        def body(a: Assembler, name: str = name, tw: int = tw) -> None:
            a.li(7, tw << 21)
            a.csr("csrrw", 0, "mstatus", 7)
            a.la(5, "user")
            a.csr("csrrw", 0, "mepc", 5)
            a.op("mret")
            a.label("user")
            a.op(name)

        run(machine, body, 6)
        machine.run(max_cycles=20)
        if cause is None:
            assert machine.asleep
        else:
            assert machine.csr("mcause") == cause


def test_interrupt_priorities(machine: Machine):
    """External before software before timer; fast lines first, the lowest of them."""
    lines = (3, 7, 11, 18, 25)
    order = [18, 25, 11, 3, 7]
    for chosen in itertools.chain(itertools.combinations(lines, 2), [lines]):
        run(machine, lambda a: [a.op("addi", 5, 5, imm=1) for _ in range(8)], 1)
        machine.set_csr("mie", sum(1 << line for line in chosen))
        for line in lines:
            machine.set_line(line, line in chosen)
        machine.set_csr("mstatus", 8)
        machine.run(max_cycles=5)
        first = min(chosen, key=order.index)
        assert machine.csr("mcause") == 0x80000000 | first
        assert machine.csr("mip") == sum(1 << line for line in chosen)
        # the timer's line is high since reset; one raised by the host lets the entering instruction finish
        assert machine.csr("mepc") == CODE + (4 if 7 in chosen else 8)


def test_host_line_raises_and_lowers_between_instructions(machine: Machine):
    run(machine, lambda a: [a.op("addi", 5, 5, imm=1) for _ in range(20)], 1)
    machine.set_csr("mie", 1 << 11)
    machine.set_line(11, True)
    machine.set_line(11, False)
    machine.set_csr("mstatus", 8)
    machine.run(instructions=5)
    assert machine.register(5) == 6
    machine.set_line(11, True)
    start = machine.cycle
    machine.run(instructions=1)  # one more: the line was high too late to stop the instruction now entering
    assert machine.register(5) == 7
    machine.run(instructions=1)
    assert machine.csr("mcause") == 0x8000000B
    assert machine.csr("mepc") == CODE + 28
    assert machine.cycle == start + 1 + 3 + 1  # instruction, entry, first instruction of the handler


def test_which_csrs_exist():
    documented = {number for number, _, _ in CSRS}
    counters = {base + i for base in (0x320, 0xB00, 0xB80) for i in range(3, 32)}
    assert {n for n in range(4096) if exists(n)} == documented | counters


def test_warl_fields(machine: Machine):
    run(machine, lambda a: a.op("addi"), 1)
    for name, written, read in (
        ("mstatus", 0xFFFFFFFF, 0x00221888),
        ("mstatus", 0x00000800, 0x00000000),  # MPP = supervisor does not exist: user
        ("mie", 0xFFFFFFFF, 0x7FFF0888),
        ("mtvec", 0xFFFFFFFF, 0xFFFFFF01),
        ("mepc", 0xFFFFFFFF, 0xFFFFFFFE),
        ("mcause", 0x8000FFFF, 0x8000001F),
        ("mcause", 0xC0000003, 0xFFFFFFE3),
        ("mcountinhibit", 0xFFFFFFFF, 5),
        ("cpuctrlsts", 0xFFFFFFFF, 0xC0),
        ("misa", 0, 0x40101104),
        ("mhpmcounter3", 0xFFFFFFFF, 0),
        ("mcountinhibit", 0, 0),
    ):
        machine.set_csr(name, written)
        assert machine.csr(name) == read, name


def test_counter_writes_replace_the_increment(machine: Machine):
    """mcycle written in cycle t is the value of cycle t + 1; a write of minstret does not count itself."""

    def body(a: Assembler) -> None:
        a.csr("csrrw", 0, "mcycle", 5)  # 3 cycles
        a.csr("csrrs", 6, "mcycle")
        a.csr("csrrw", 0, "minstret", 5)
        a.csr("csrrs", 7, "minstret")
        a.csr("csrrs", 8, "minstret")
        a.csr("csrrw", 0, "mcycleh", 5)
        a.csr("csrrs", 9, "mcycle")

    run(machine, body, 7, {5: 1000})
    assert machine.register(6) == 1000 + 2
    assert (machine.register(7), machine.register(8)) == (1000, 1001)
    assert (
        machine.register(9) == 1002 + 1 + 3 + 1 + 1 + 0 + 2
    )  # the write of the upper half cost one increment
    assert machine.mcycle >> 32 == 1000


def test_inhibit_acts_one_cycle_later(machine: Machine):
    def body(a: Assembler) -> None:
        a.csr("csrrwi", 0, "mcountinhibit", 5)  # counts itself, stops after its first cycle
        a.csr("csrrs", 5, "mcycle")
        a.csr("csrrs", 6, "minstret")
        a.csr("csrrwi", 0, "mcountinhibit", 0)  # does not count
        a.csr("csrrs", 7, "mcycle")
        a.csr("csrrs", 8, "minstret")

    run(machine, body, 6)
    assert machine.register(5) == 4
    assert machine.register(6) == 1
    assert machine.register(7) == 4 + 2
    assert machine.register(8) == 2  # the read of mcycle


def test_double_fault_is_seen(machine: Machine):
    run(machine, lambda a: a.op("ecall"), 1)
    assert machine.csr("cpuctrlsts") == 0x40
    machine.write_memory(HANDLER, bytes(4))  # an illegal word
    machine.run(instructions=1)
    assert machine.csr("cpuctrlsts") == 0xC0
    assert machine.run(max_cycles=300).reason is Stop.CYCLES


def test_timer_registers(machine: Machine):
    """Bytes can be written alone; mtime can be set; a write of mtimecmp lowers the line for a cycle."""

    def body(a: Assembler) -> None:
        a.op("lw", 6, 5)
        a.op("sb", rs1=5, rs2=7, imm=9)
        a.op("sw", rs1=5, rs2=7, imm=4)
        a.op("lw", 8, 5, imm=4)
        a.op("lw", 9, 5, imm=8)

    run(machine, body, 5, {5: 0x0003_0000, 7: 0x1234})
    assert machine.register(6) == 4
    assert machine.register(8) == 0x1234
    assert machine.register(9) == 0x3400
    assert machine.csr("mip") == 0x80  # 0x1234_0000_000c is behind the compare value
