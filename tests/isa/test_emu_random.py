"""Random programs: the campaign on a sample, and sweeps through interrupt and sleep timing."""

import io

import pytest

from bms_emulator.asm import Assembler
from bms_emulator.campaign import run_campaign
from bms_emulator.elf import parse_image
from bms_emulator.machine import Machine, Stop
from bms_emulator.pipeline import Pipeline
from bms_emulator.randprog import BASE, HALT, SCRATCH, TIMER


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine()


def test_campaign_sample_has_no_difference():
    rows, failures = run_campaign(8, first=1000)
    assert failures == []
    assert {row.check: row.programs for row in rows} == {
        "program ends": 8,
        "sliced": 8,
        "snapshot": 8,
        "blocks": 8,
        "traced": 8,
        "clock model": 1,
    }
    assert all(row.cycles > 500 for row in rows)


def frame(body) -> bytes:
    """Vectors, a timer handler that stores mcycle and mepc and switches the timer off, and `body`."""
    a = Assembler(BASE)
    for _ in range(32):
        a.jump(0, "handler")
    a.jump(0, "start")
    a.align(4)
    a.label("handler")
    a.csr("csrrs", 26, "mcycle")
    a.csr("csrrs", 27, "mepc")
    a.op("sw", rs1=3, rs2=26, imm=0)
    a.op("sw", rs1=3, rs2=27, imm=4)
    a.op("addi", 3, 3, imm=8)
    a.op("addi", 26, 0, imm=-1)
    a.op("sw", rs1=24, rs2=26, imm=12)
    a.op("mret")
    a.label("start")
    a.li(3, SCRATCH)
    a.li(24, TIMER)
    a.op("addi", 26, 0, imm=-1)
    a.op("sw", rs1=24, rs2=26, imm=12)
    a.op("sw", rs1=24, rs2=26, imm=8)
    a.li(26, 128)
    a.csr("csrrw", 0, "mie", 26)
    body(a)
    a.li(28, HALT)
    a.op("addi", 29, 0, imm=1)
    a.op("sw", rs1=28, rs2=29)
    a.label("end")
    a.jump(0, "end")
    return a.bytes()


def arm(a: Assembler, ahead: int, enable: bool = True) -> None:
    """Timer interrupt `ahead` cycles after the read of mtime; interrupts on."""
    if enable:
        a.csr("csrrsi", 0, "mstatus", 8)
    a.op("lw", 26, 24)
    a.op("addi", 26, 26, imm=ahead)
    a.op("sw", rs1=24, rs2=26, imm=8)
    a.op("sw", rs1=24, rs2=0, imm=12)


def compare(machine: Machine, code: bytes) -> None:
    """The fast loop and the clock-by-clock model retire the same instructions in the same cycles."""
    model = Pipeline(code)
    model.run(20_000)
    machine.load(parse_image(code, BASE))
    text = io.BytesIO()
    machine.trace_to(text)
    outcome = machine.run(max_cycles=20_000)
    machine.trace_to()
    assert outcome.reason is Stop.HALT
    lines = [f"{t},{pc:08x},{raw:0{8 if raw & 3 == 3 else 4}x}" for t, pc, raw in model.trace]
    assert text.getvalue().decode().split("\n")[1:-1] == lines
    assert (model.mtime, model.mcycle, model.minstret) == (
        machine.cycle,
        machine.mcycle,
        machine.csr("minstret"),
    )
    assert model.ram[SCRATCH - BASE :][:64] == machine.read_memory(SCRATCH, 64)


def mixed(a: Assembler) -> None:
    """One of everything that takes more than a cycle: an interrupt can fall into each of its cycles."""
    a.op("mul", 5, 6, 7)
    a.op("div", 5, 6, 0)
    a.op("lw", 8, 3, imm=33)
    a.op("sw", rs1=3, rs2=8, imm=64)
    a.half(0x0001)
    a.jump(1, "straddled")
    a.word(0)
    a.half(0x0001)
    a.label("straddled")  # 32-bit instruction at an address with bit 1 set
    a.op("addi", 9, 9, imm=1)
    a.branch("beq", 0, 0, "there")
    a.align(4)
    a.label("there")
    a.csr("csrrw", 10, "mtval", 9)
    a.csr("csrrw", 10, "mscratch", 9)
    a.op("fence.i")
    a.csr("csrrci", 0, "mstatus", 8)
    a.op("addi", 9, 9, imm=1)
    a.csr("csrrsi", 0, "mstatus", 8)
    a.op("mulhu", 5, 6, 7)
    for _ in range(4):
        a.op("addi", 9, 9, imm=1, short=True)


def test_interrupt_in_every_cycle_of_a_mixed_stretch(machine: Machine):
    for ahead in range(2, 62):

        def body(a: Assembler, ahead: int = ahead) -> None:
            arm(a, ahead)
            mixed(a)

        compare(machine, frame(body))


@pytest.mark.parametrize("before", range(7))
def test_sleep_with_the_fetch_buffer_in_many_states(machine: Machine, before: int):
    """wfi after a redirection and a few instructions: mcycle loses the sleep, but keeps 5 or 6 cycles."""
    pieces = [
        [],
        ["addi"],
        ["addi", "addi", "addi"],
        ["c.addi", "c.addi"],
        ["c.addi", "addi", "c.addi"],
        ["lw", "addi"],
        ["mul"],
    ][before]
    for interrupts in (False, True):
        for shift in (0, 2):
            for ahead in (3, 10, 12, 13, 14, 60):

                def body(a: Assembler, interrupts=interrupts, shift=shift, ahead=ahead) -> None:
                    arm(a, ahead, enable=interrupts)
                    a.align(4)
                    if shift:
                        a.half(0x0001)
                    a.jump(0, "target")
                    a.label("target")
                    for piece in pieces:
                        if piece == "c.addi":
                            a.op("addi", 9, 9, imm=1, short=True)
                        elif piece == "lw":
                            a.op("lw", 8, 3)
                        else:
                            a.op(piece, 9, 9, imm=1) if piece == "addi" else a.op(piece, 9, 9, 9)
                    a.op("wfi")
                    a.csr("csrrs", 20, "mcycle")
                    a.op("wfi")  # at once if the line is still high
                    a.csr("csrrs", 21, "mcycle")

                code = frame(body)
                model = Pipeline(code)
                model.run(2000)
                if model.halted:
                    compare(machine, code)
                else:  # the handler has switched the timer off: the second wfi sleeps for ever in both
                    machine.load(parse_image(code, BASE))
                    machine.run(until=2000)
                    assert machine.asleep
                    assert machine.cycle == 2000
