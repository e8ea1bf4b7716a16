"""Seeded random programs for the reference board.

Each program is a mix of everything the core can do: all instructions in long and short encodings on both
alignments, misaligned and faulting accesses, exceptions, CSRs and counters, loops, calls through registers,
code that rewrites itself (with fence.i), sleep, user mode, and timer interrupts with a changing period. A
trap handler repairs what can be repaired and folds cause, value, address and mcycle into a hash, so that one
wrong cycle anywhere changes the result. The program always ends: it prints its hash and halts.

Registers: x3 scratch memory, x4 trap stack, x24 timer, x25 hash, x26-x27 for the handler, x28-x31 for set-up
code; the body uses the rest.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .asm import Assembler, encode
from .isa import INSTRUCTIONS

BASE = 0x0010_0000
SCRATCH = 0x001F_0000
STACK = 0x001E_0000
CONSOLE, HALT, TIMER = 0x0002_0000, 0x0002_0008, 0x0003_0000
_BODY = (1, 2, *range(5, 24))
_SHORT = tuple(range(8, 16))
_ALU = [r.name for r in INSTRUCTIONS if r.cycles == "alu" and r.name not in ("fence", "auipc", "lui")]
_MULDIV = [r.name for r in INSTRUCTIONS if r.cycles in ("mul", "mulh", "div")]
_LOADS = ("lb", "lh", "lw", "lbu", "lhu")
_STORES = ("sb", "sh", "sw")
_BRANCHES = ("beq", "bne", "blt", "bge", "bltu", "bgeu")
_READABLE = (
    "mcycle",
    "mscratch",
    "minstret",
    "mstatus",
    "mie",
    "mip",
    "mtvec",
    "mcause",
    "mtval",
    "misa",
    "mcycleh",
    "marchid",
)
_WRITABLE = ("mtval", "mcause", "mcycle", "minstret", "mcountinhibit", "cpuctrlsts", "mhpmcounter3", "mepc")


@dataclass(frozen=True)
class RandomProgram:
    """Image bytes for `BASE`, and what made it."""

    seed: int
    code: bytes
    period: int


class _Generator:
    def __init__(self, seed: int, length: int, interrupts: bool) -> None:
        self.r = random.Random(seed)
        self.a = Assembler(BASE)
        self.length = length
        self.labels = 0
        self.period = self.r.choice((23, 37, 61, 97, 151, 300)) if interrupts else 0
        # what this program is made of: weights differ from seed to seed
        self.kinds = {
            self.alu: 10,
            self.muldiv: self.r.choice((1, 4)),
            self.memory: self.r.choice((3, 8)),
            self.skip_branch: 5,
            self.loop: 1,
            self.call: 2,
            self.csr_read: 2,
            self.csr_write: self.r.choice((0, 2)),
            self.exception: self.r.choice((0, 2)),
            self.fault: self.r.choice((0, 1)),
            self.rewrite: self.r.choice((0, 1)),
            self.fence: 1,
            self.sleep: self.r.choice((0, 2)),
            self.user: self.r.choice((0, 1)),
            self.mask: self.r.choice((0, 1)) if interrupts else 0,
            self.time: 1,
        }

    def name(self) -> str:
        self.labels += 1
        return f"l{self.labels}"

    def register(self) -> int:
        return self.r.choice(_SHORT if self.r.random() < 0.5 else _BODY)

    def short(self) -> bool:
        return self.r.random() < 0.6

    # --- pieces of the body

    def alu(self) -> None:
        name = self.r.choice(_ALU)
        rd, rs1, rs2 = self.register(), self.register(), self.register()
        if self.r.random() < 0.5:
            rs1 = rd
        if self.r.random() < 0.05:
            rd = 0
        if (name.endswith("i") and name not in ("slli", "srli", "srai")) or name == "sltiu":
            imm = self.r.choice((self.r.randrange(-32, 32), self.r.randrange(-2048, 2048)))
            self.a.op(name, rd, rs1, imm=imm, short=self.short())
        elif name in ("slli", "srli", "srai"):
            self.a.op(name, rd, rs1, imm=self.r.randrange(32), short=self.short())
        else:
            self.a.op(name, rd, rs1, rs2, short=self.short())
        if self.r.random() < 0.1:
            self.a.op("lui", self.register(), imm=self.r.randrange(1 << 20) << 12)
        if self.r.random() < 0.05:
            self.a.op("auipc", self.register(), imm=self.r.randrange(16) << 12)

    def muldiv(self) -> None:
        self.a.op(self.r.choice(_MULDIV), self.register(), self.register(), self.r.choice((0, *_BODY)))

    def memory(self) -> None:
        """Loads and stores around x3, aligned or not; some into the instruction stream's neighbourhood."""
        offset = self.r.randrange(-64, 64) * (4 if self.r.random() < 0.6 else 1)
        if self.r.random() < 0.5:
            self.a.op(self.r.choice(_LOADS), self.register(), 3, imm=offset)
        else:
            self.a.op(self.r.choice(_STORES), rs1=3, rs2=self.register(), imm=offset)
        if self.r.random() < 0.3:  # a short form needs a base in x8-x15
            base, value = self.r.sample(_SHORT, 2)
            self.a.op("addi", base, 3, imm=4 * self.r.randrange(0, 16))
            self.a.op("sw", rs1=base, rs2=value, imm=4 * self.r.randrange(0, 31), short=True)
            self.a.op("lw", value, base, imm=4 * self.r.randrange(0, 31), short=True)

    def skip_branch(self) -> None:
        label = self.name()
        if self.r.random() < 0.3:
            self.a.jump(self.r.choice((0, 1)), label)
        else:
            self.a.branch(
                self.r.choice(_BRANCHES), self.register(), self.r.choice((0, self.register())), label
            )
        for _ in range(self.r.randrange(4)):
            self.r.choice((self.alu, self.alu, self.memory, self.muldiv))()
        self.a.label(label)

    def loop(self) -> None:
        """A counted loop; the counter lives in scratch memory, as the body may change every register."""
        label = self.name()
        slot = 512 + 4 * (self.labels % 128)
        self.a.li(28, self.r.randrange(2, 40))
        self.a.op("sw", rs1=3, rs2=28, imm=slot)
        self.a.label(label)
        for _ in range(self.r.randrange(1, 8)):
            self.r.choice((self.alu, self.alu, self.memory, self.muldiv, self.skip_branch))()
        self.a.op("lw", 28, 3, imm=slot)
        self.a.op("addi", 28, 28, imm=-1, short=self.short())
        self.a.op("sw", rs1=3, rs2=28, imm=slot)
        self.a.branch("bne", 28, 0, label)

    def call(self) -> None:
        """A subroutine in the stream, called through a register or directly."""
        routine, after = self.name(), self.name()
        self.a.jump(0, after)
        if self.r.random() < 0.5:
            self.a.half(0x0001)
        self.a.label(routine)
        for _ in range(self.r.randrange(4)):
            self.alu()
        self.a.op("jalr", 0, 29, short=self.short())
        self.a.label(after)
        for _ in range(self.r.randrange(1, 4)):
            if self.r.random() < 0.5:
                self.a.la(28, routine)
                self.a.op("jalr", 29, 28, imm=self.r.choice((0, 0, 1)))
            else:
                self.a.jump(29, routine)

    def csr_read(self) -> None:
        self.a.csr("csrrs", self.register(), self.r.choice(_READABLE))

    def csr_write(self) -> None:
        name = self.r.choice(("csrrw", "csrrs", "csrrc", "csrrwi", "csrrsi", "csrrci"))
        self.a.csr(
            name, self.r.choice((0, self.register())), self.r.choice(_WRITABLE), self.r.choice((0, *_BODY))
        )

    def exception(self) -> None:
        kind = self.r.randrange(6)
        if kind == 0:
            self.a.op("ecall")
        elif kind == 1:
            self.a.op("ebreak", short=self.short())
        elif kind == 2:
            self.a.half(0x0000)
        elif kind == 3:
            self.a.word(self.r.choice((0xFFFFFFFF, 0x0000400B, 0x02002057)))
        elif kind == 4:
            self.a.csr("csrrw", 5, self.r.choice((0x123, 0x7A0, 0x3B0, 0xC00, 0xF14)), 6)
        else:
            self.a.half(self.r.choice((0x9C41, 0x8000, 0x6101, 0x4002, 0x2000)))

    def fault(self) -> None:
        """An access that nothing answers, or that is half inside memory; or a jump to nowhere and back."""
        kind = self.r.randrange(3)
        if kind == 0:
            self.a.li(28, self.r.choice((0x0000_0000, 0x4000_0000, 0xFFFF_FFF0, 0x0003_0010)))
            self.access(28, self.r.randrange(0, 8))
        elif kind == 1:
            # Behind the end of memory; before its start only loads, as a store would change the vectors.
            if self.r.random() < 0.5:
                self.a.li(28, 0x0020_0000)
                self.access(28, self.r.randrange(-3, 0))
            else:
                self.a.li(28, 0x0010_0000)
                self.a.op("lw", self.register(), 28, imm=self.r.randrange(-3, 0))
        else:
            self.a.li(28, self.r.choice((0x5000_0000, 0x5000_0002, 0x0020_0000)))
            self.a.op("jalr", 30, 28)  # the handler returns to x30 after an instruction access fault

    def access(self, base: int, offset: int) -> None:
        if self.r.random() < 0.5:
            self.a.op(self.r.choice(_LOADS), self.register(), base, imm=offset)
        else:
            self.a.op(self.r.choice(_STORES), rs1=base, rs2=self.register(), imm=offset)

    def rewrite(self) -> None:
        """Overwrite an instruction that has run, or will, with another one; fence.i; run it again."""
        again, place = self.name(), self.name()
        self.a.li(31, self.r.randrange(2, 4))
        self.a.op("sw", rs1=3, rs2=31, imm=1028)
        self.a.label(again)
        self.a.label(place)
        self.a.op("addi", self.register(), self.register(), imm=self.r.randrange(-64, 64))
        for _ in range(self.r.randrange(3)):
            self.alu()
        self.a.la(28, place)
        self.a.li(
            31, encode("xori", self.r.choice(_BODY), self.r.choice(_BODY), imm=self.r.randrange(-64, 64))
        )
        self.a.op("sh", rs1=28, rs2=31, imm=0)
        self.a.op("srli", 31, 31, imm=16)
        self.a.op("sh", rs1=28, rs2=31, imm=2)
        self.a.op("fence.i")
        self.a.op("lw", 31, 3, imm=1028)
        self.a.op("addi", 31, 31, imm=-1)
        self.a.op("sw", rs1=3, rs2=31, imm=1028)
        self.a.branch("bne", 31, 0, again)

    def fence(self) -> None:
        self.a.op(self.r.choice(("fence", "fence.i")))

    def sleep(self) -> None:
        """Set the timer a little ahead, then some instructions (or none), then wfi; mie must let it wake."""
        self.a.li(28, 128)
        self.a.csr("csrrs", 0, "mie", 28)
        self.a.op("lw", 28, 24)
        self.a.op("addi", 28, 28, imm=self.r.randrange(5, 90))
        self.a.op("sw", rs1=24, rs2=28, imm=8)
        if self.r.random() < 0.5:
            self.a.op("fence.i")
        for _ in range(self.r.randrange(5)):
            self.r.choice((self.alu, self.alu, self.alu, self.memory, self.muldiv, self.csr_read))()
        self.a.op("wfi")
        if self.r.random() < 0.3:
            self.a.op("wfi")
        self.a.csr("csrrs", 28, "mcycle")
        self.fold(28)
        if not self.period:
            self.a.csr("csrrw", 0, "mie", 0)

    def user(self) -> None:
        """Drop to user mode, run a little there, come back by ecall (the handler leaves MPP = machine)."""
        inside = self.name()
        self.a.la(28, inside)
        self.a.csr("csrrw", 0, "mepc", 28)
        self.a.li(28, 3 << 11)
        self.a.csr("csrrc", 0, "mstatus", 28)
        self.a.op("mret")
        self.a.label(inside)
        for _ in range(self.r.randrange(1, 6)):
            self.r.choice((self.alu, self.memory, self.skip_branch))()
        if self.r.random() < 0.3:
            self.a.csr("csrrs", self.register(), "mcycle")  # a machine CSR: illegal here
        else:
            self.a.op("ecall")

    def mask(self) -> None:
        """Interrupts off, some work, on again; by MIE or by mie."""
        if self.r.random() < 0.5:
            self.a.csr("csrrci", 0, "mstatus", 8)
            for _ in range(self.r.randrange(6)):
                self.alu()
            self.a.csr("csrrsi", 0, "mstatus", 8)
        else:
            self.a.li(28, 128)
            self.a.csr("csrrc", 0, "mie", 28)
            for _ in range(self.r.randrange(6)):
                self.alu()
            self.a.li(28, 128)
            self.a.csr("csrrs", 0, "mie", 28)

    def time(self) -> None:
        self.a.op("lw", 28, 24, imm=self.r.choice((0, 4, 8, 12)))
        self.fold(28)

    def fold(self, register: int) -> None:
        """hash = (hash ^ register) * 33."""
        self.a.op("xor", 25, 25, register)
        self.a.op("slli", 28, 25, imm=5)
        self.a.op("add", 25, 25, 28)

    # --- the frame around the body

    def handler(self) -> None:
        """Traps: hash, then return behind the instruction, or with the timer set again."""
        a = self.a
        a.align(4)
        a.label("trap")
        a.csr("csrrw", 4, "mscratch", 4)
        a.op("sw", rs1=4, rs2=28, imm=0)
        for name in ("mcause", "mepc", "mtval", "mcycle", "mstatus"):
            a.csr("csrrs", 26, name)
            self.fold(26)
        a.csr("csrrs", 26, "mcause")
        a.branch("blt", 26, 0, "interrupt")
        a.op("addi", 27, 26, imm=-1)
        a.branch("bne", 27, 0, "readable")
        a.csr("csrrw", 0, "mepc", 30)  # instruction access fault: go back to the caller
        a.jump(0, "leave")
        a.label("readable")
        a.csr("csrrs", 26, "mepc")
        a.op("lhu", 27, 26)
        a.op("andi", 27, 27, imm=3)
        a.op("addi", 27, 27, imm=-3)
        a.op("sltiu", 27, 27, imm=1)
        a.op("slli", 27, 27, imm=1)
        a.op("addi", 27, 27, imm=2)
        a.op("add", 26, 26, 27)
        a.csr("csrrw", 0, "mepc", 26)
        a.jump(0, "leave")
        a.label("interrupt")
        a.op("lw", 26, 24)
        a.op("andi", 27, 25, imm=31)
        a.op("add", 26, 26, 27)
        a.op("addi", 26, 26, imm=(self.period or 1500) + 80)
        a.op("sw", rs1=24, rs2=26, imm=8)
        a.label("leave")
        a.li(27, 3 << 11)
        a.csr("csrrs", 0, "mstatus", 27)  # always back to machine mode
        a.op("lw", 28, 4)
        a.csr("csrrw", 4, "mscratch", 4)
        a.op("mret")

    def build(self) -> bytes:
        a = self.a
        for _ in range(32):
            a.jump(0, "trap")
        a.csr("csrrs", 5, "mcycle")  # reset entry, 0x00100080
        a.jump(0, "start")
        self.handler()
        a.label("start")
        for register in (*_BODY, 25):
            a.li(register, self.r.randrange(1 << 32) if self.r.random() < 0.6 else self.r.randrange(64))
        a.li(3, SCRATCH)
        a.li(28, STACK)
        a.csr("csrrw", 0, "mscratch", 28)
        a.op("addi", 4, 0, imm=0)
        a.li(24, TIMER)
        a.op("addi", 26, 0, imm=-1)
        a.op("sw", rs1=24, rs2=26, imm=8)
        a.op("sw", rs1=24, rs2=0, imm=12)
        if self.period:
            a.li(28, 128)
            a.csr("csrrw", 0, "mie", 28)
            a.op("lw", 28, 24)
            a.op("addi", 28, 28, imm=self.period)
            a.op("sw", rs1=24, rs2=28, imm=8)
            a.csr("csrrsi", 0, "mstatus", 8)
        kinds, weights = list(self.kinds), list(self.kinds.values())
        for _ in range(self.length):
            self.r.choices(kinds, weights)[0]()
        a.csr("csrrci", 0, "mstatus", 8)
        for register in _BODY:
            self.fold(register)
        for name in ("mcycle", "minstret", "mstatus", "mcountinhibit"):
            a.csr("csrrs", 26, name)
            self.fold(26)
        a.li(29, CONSOLE)
        a.li(26, 28)
        a.label("digit")
        a.op("srl", 27, 25, 26)
        a.op("andi", 27, 27, imm=15)
        a.op("addi", 27, 27, imm=65)  # hex digits A-P: no decision needed
        a.op("sb", rs1=29, rs2=27)
        a.op("addi", 26, 26, imm=-4)
        a.branch("bge", 26, 0, "digit")
        a.op("addi", 27, 0, imm=1)
        a.op("sw", rs1=29, rs2=27, imm=HALT - CONSOLE)
        a.label("end")
        a.jump(0, "end")
        return a.bytes()


def random_program(seed: int, length: int = 120, interrupts: bool | None = None) -> RandomProgram:
    """A program of about `length` pieces; odd seeds run under timer interrupts unless told otherwise."""
    generator = _Generator(seed, length, seed % 2 == 1 if interrupts is None else interrupts)
    code = generator.build()
    return RandomProgram(seed, code, generator.period)
