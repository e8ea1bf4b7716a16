"""A second, independent model of the core: every clock cycle, every flop that matters, no closed-form rule.

`core.py` computes times from formulas ("a taken branch costs 3 + s"). This model has no such formula: it has
the two pipeline stages, the three-word fetch buffer with its requests, the controller's states, the clock
gate and the timer's interrupt flop, advanced one clock at a time, as described by the documentation and the
structure of the lowRISC Ibex RTL (2 stages, RV32MFast, no branch target adder). Its instruction semantics are
written again, too. It is slow (some microseconds per cycle) and exists to disagree with the fast loop where
that one is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .decode import fields16, fields32
from .isa import INSTRUCTIONS

RAM, RAM_END = 0x0010_0000, 0x0020_0000
CONSOLE, HALT, TIMER = 0x0002_0000, 0x0002_0008, 0x0003_0000
M = 0xFFFFFFFF
NAMES = {n: row.name for n, row in enumerate(INSTRUCTIONS, start=1)}
CLASS = {row.name: row.cycles for row in INSTRUCTIONS}
BOOT_SET, FIRST_FETCH, DECODE, FLUSH, IRQ_TAKEN, WAIT_SLEEP, SLEEP = range(7)
CSR_WRITES = {"csrrw", "csrrs", "csrrc", "csrrwi", "csrrsi", "csrrci"}
EXISTING = (
    {0x300, 0x301, 0x304, 0x305, 0x306, 0x30A, 0x310, 0x31A, 0x320, 0x7C0, 0x7C1, 0xB00, 0xB02, 0xB80, 0xB82}
    | {0xF11, 0xF12, 0xF13, 0xF14, 0xF15}
    | {0x340, 0x341, 0x342, 0x343, 0x344}
    | {base + i for base in (0x320, 0xB00, 0xB80) for i in range(3, 32)}
)


def signed(value: int) -> int:
    value &= M
    return value - (1 << 32) if value >> 31 else value


@dataclass
class Fetched:
    """What sits in the decode stage."""

    pc: int
    raw: int
    size: int
    error: int | None  # mtval of an instruction access fault


@dataclass
class Pipeline:
    """The core with the reference system around it. `image` is loaded at the start of memory."""

    image: bytes
    mtime: int = 2
    fsm: int = BOOT_SET
    x: list[int] = field(default_factory=lambda: [0] * 32)
    csr: dict[int, int] = field(
        default_factory=lambda: {
            0x300: 0x80, 0x304: 0, 0x305: RAM | 1, 0x320: 0, 0x340: 0, 0x341: 0, 0x342: 0, 0x343: 0, 0x7C0: 0
        }
    )  # fmt: skip
    priv: int = 3
    mcycle: int = 1
    minstret: int = 0
    compare: int = 0
    timer_line: bool = True
    halted: bool = False
    console: bytearray = field(default_factory=bytearray)
    trace: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ram = bytearray(RAM_END - RAM)
        self.ram[: len(self.image)] = self.image
        self.id: Fetched | None = None
        self.step_in_id = 0
        self.fifo: list[tuple[int, bool]] = []  # (word, bus error)
        self.fifo_pc = 0
        self.next_compare: int | None = None
        self.mcycle_write: int | None = None
        self.minstret_write: int | None = None
        self.was_requesting = False
        self.arriving = (0, False)  # word and bus error of the outstanding request
        self.outstanding: int | None = None  # address whose word arrives in this cycle
        self.fetch_address = 0
        self.busy = True
        self.exception: tuple[int, int] | None = None  # cause, mtval of what FLUSH will handle
        self.taken = False

    # --- memory

    def fetch_word(self, address: int) -> tuple[int, bool]:
        if RAM <= address < RAM_END:
            at = address - RAM
            return int.from_bytes(self.ram[at : at + 4], "little"), False
        return 0, True

    def bus_read(self, address: int) -> int | None:
        if RAM <= address < RAM_END:
            return int.from_bytes(self.ram[address - RAM : address - RAM + 4], "little")
        if CONSOLE <= address < CONSOLE + 16:
            return 0
        if TIMER <= address < TIMER + 16:
            value = self.mtime if address < TIMER + 8 else self.compare
            return (value >> (32 if address & 4 else 0)) & M
        return None

    def bus_write(self, address: int, lanes: int, value: int) -> bool:
        mask = sum(0xFF << (8 * lane) for lane in range(4) if lanes >> lane & 1)
        if RAM <= address < RAM_END:
            at = address - RAM
            old = int.from_bytes(self.ram[at : at + 4], "little")
            self.ram[at : at + 4] = ((old & ~mask & M) | (value & mask)).to_bytes(4, "little")
            return True
        if CONSOLE <= address < CONSOLE + 16:
            if address == CONSOLE and lanes & 1:
                self.console.append(value & 0xFF)
            if address == HALT and lanes & 1 and value & 1:
                self.halted = True
            return True
        if TIMER + 8 <= address < TIMER + 16:
            shift = 32 if address & 4 else 0
            self.next_compare = (self.compare & ~(mask << shift)) | ((value & mask) << shift)
            return True
        return False

    # --- instruction meaning

    def decode(self, f: Fetched) -> tuple[str, int, int, int, int]:
        op, rd, rs1, rs2, imm = (fields16 if f.size == 2 else fields32)(f.raw)
        return NAMES.get(op, ""), rd, rs1, rs2, imm

    def compute(self, name: str, a: int, b: int, imm: int) -> int:
        """Result of an ALU, multiply or divide instruction on unsigned words."""
        if (name.endswith("i") and name != "lui") or name == "sltiu":
            b, name = imm & M, "sltu" if name == "sltiu" else name[:-1]
        sa, sb = signed(a), signed(b)
        if name == "add":
            return a + b
        if name == "sub":
            return a - b
        if name == "sll":
            return a << (b & 31)
        if name == "srl":
            return a >> (b & 31)
        if name == "sra":
            return sa >> (b & 31)
        if name == "slt":
            return int(sa < sb)
        if name == "sltu":
            return int(a < b)
        if name in ("xor", "or", "and"):
            return {"xor": a ^ b, "or": a | b, "and": a & b}[name]
        if name == "lui":
            return imm
        if name == "mul":
            return a * b
        if name == "mulh":
            return (sa * sb) >> 32
        if name == "mulhsu":
            return (sa * b) >> 32
        if name == "mulhu":
            return (a * b) >> 32
        if name in ("divu", "remu"):
            return (a // b if name == "divu" else a % b) if b else (M if name == "divu" else a)
        if not b:
            return M if name == "div" else a
        quotient = abs(sa) // abs(sb) * (1 if (sa < 0) == (sb < 0) else -1)
        return quotient if name == "div" else sa - quotient * sb

    def csr_value(self, number: int) -> int:
        if number in self.csr:
            return self.csr[number]
        return {
            0x301: 0x40101104,
            0x344: 128 if self.timer_line else 0,
            0xB00: self.mcycle & M,
            0xB80: self.mcycle >> 32,
            0xB02: self.minstret & M,
            0xB82: self.minstret >> 32,
            0xF12: 22,
        }.get(number, 0)

    def write_csr(self, number: int, value: int) -> None:
        if number == 0x300:
            value &= 0x0022_1888
            self.csr[number] = value if value & 0x1800 == 0x1800 else value & ~0x1800
        elif number == 0x304:
            self.csr[number] = value & 0x7FFF0888
        elif number == 0x305:
            self.csr[number] = value & 0xFFFFFF00 | 1
        elif number == 0x320:
            self.csr[number] = value & 5
        elif number == 0x341:
            self.csr[number] = value & ~1
        elif number == 0x342:
            high = {2: 1 << 31, 3: 0xFFFFFFE0}.get(value >> 30, 0)
            self.csr[number] = high | value & 31
        elif number == 0x7C0:
            self.csr[number] = value & 0xC0
        elif number in (0x340, 0x343):
            self.csr[number] = value
        elif number in (0xB00, 0xB80):
            self.mcycle_write = (
                (self.mcycle & ~M) | value if number == 0xB00 else (self.mcycle & M) | value << 32
            )
        elif number in (0xB02, 0xB82):
            self.minstret_write = (
                (self.minstret & ~M) | value if number == 0xB02 else (self.minstret & M) | value << 32
            )

    def save_trap(self, cause: int, tval: int, pc: int) -> int:
        status = self.csr[0x300]
        self.csr[0x300] = status & ~0x1888 | (0x80 if status & 8 else 0) | self.priv << 11
        self.priv = 3
        self.csr[0x341], self.csr[0x342], self.csr[0x343] = pc & ~1, cause, tval & M
        if not cause >> 31:
            self.csr[0x7C0] |= 0xC0 if self.csr[0x7C0] & 0x40 else 0x40
            return RAM if self.csr[0x305] == RAM | 1 else self.csr[0x305] & ~0xFF
        return (self.csr[0x305] & ~0xFF) + 4 * (cause & 31)

    # --- one clock

    def clock(self) -> None:
        pending = self.timer_line and bool(self.csr[0x304] & 128)
        handle = pending and (bool(self.csr[0x300] & 8) or self.priv == 0)
        gated = not (self.busy or pending)
        self.next_compare = self.mcycle_write = self.minstret_write = None
        if not gated:
            self.core(pending, handle)
        else:
            self.busy = False
        raised = not self.timer_line and self.mtime >= self.compare
        if self.next_compare is not None:
            self.compare = self.next_compare
            self.timer_line = False
        elif raised:
            self.timer_line = True
        self.mtime += 1

    def core(self, pending: bool, handle: bool) -> None:
        request, halt_if, retain, flush, busy = True, False, False, False, True
        stall = special = False
        target: int | None = None
        following = self.fsm
        inhibit = self.csr[0x320]
        retired = False
        if self.fsm == BOOT_SET:
            target, following = RAM + 0x80, FIRST_FETCH
        elif self.fsm == WAIT_SLEEP:
            busy = request = False
            halt_if = flush = True
            following = SLEEP
        elif self.fsm == SLEEP:
            request, halt_if, flush = False, True, True
            busy = pending
            if pending:
                following = FIRST_FETCH
        elif self.fsm == FIRST_FETCH:
            following = DECODE
            if handle:
                following, halt_if = IRQ_TAKEN, True
        elif self.fsm == IRQ_TAKEN:
            following = DECODE
            if handle:
                target = self.save_trap(0x80000007, 0, self.fifo_pc)
        elif self.fsm == FLUSH:
            halt_if = flush = True
            following = DECODE
            assert self.id is not None
            name = self.decode(self.id)[0]
            if self.exception is not None:
                target = self.save_trap(*self.exception, self.id.pc)
                self.exception = None
            elif name == "mret":
                status = self.csr[0x300]
                self.priv = status >> 11 & 3
                new = status & ~0x1808 | 0x80 | (8 if status & 0x80 else 0)
                self.csr[0x300] = new if self.priv == 3 else new & ~(1 << 17)
                self.csr[0x7C0] &= ~0x40
                target = self.csr[0x341]
            elif name == "wfi":
                following = WAIT_SLEEP
        else:
            if self.id is not None:
                stall, special, target, retired = self.execute(self.id)
            if special:
                retain, following = True, FLUSH
            if handle and (stall or self.id is not None):
                halt_if = True
            if not stall and not special and self.id is None and handle:
                following, halt_if = IRQ_TAKEN, True
        self.front(
            request, target, id_ready=not (stall or halt_if or retain), clear=flush or not (stall or retain)
        )
        self.busy = busy or self.was_requesting
        # counters: a write replaces the increment of this cycle; inhibit bits act as they were
        if self.mcycle_write is not None:
            self.mcycle = self.mcycle_write
        elif not inhibit & 1:
            self.mcycle += 1
        if self.minstret_write is not None:
            self.minstret = self.minstret_write
        elif retired and not inhibit & 4:
            self.minstret += 1
        self.fsm = following

    def execute(self, f: Fetched) -> tuple[bool, bool, int | None, bool]:
        """One cycle of the instruction in decode: (stalls, special request, new pc, retires)."""
        k = self.step_in_id
        self.step_in_id += 1
        if f.error is not None:
            self.exception = (1, f.error)
            return False, True, None, False
        name, rd, rs1, rs2, imm = self.decode(f)
        a, b = self.x[rs1], self.x[rs2]
        kind = CLASS.get(name, "")
        after = f.pc + f.size
        illegal = name == "" or (
            self.priv == 0 and (name == "mret" or (name == "wfi" and self.csr[0x300] >> 21 & 1))
        )
        if kind == "csr" and not illegal:
            writes = name in ("csrrw", "csrrwi") or rs1 != 0
            illegal = imm not in EXISTING or imm >> 8 & 3 > self.priv or (writes and imm >> 10 == 3)
            if not illegal:
                operand = rs1 if name.endswith("i") else a
                old = self.csr_value(imm)
                if writes:
                    new = {"w": operand, "s": old | operand, "c": old & ~operand}[name[4]]
                    self.write_csr(imm, new & M)
                self.put(rd, old)
                self.note(f)
                return False, writes and imm not in (0x340, 0x341), None, True
        if illegal:
            self.exception = (2, f.raw)
        elif name in ("ecall", "ebreak"):
            self.exception = (3, 0) if name == "ebreak" else (8 if self.priv == 0 else 11, 0)
        if illegal or name in ("ecall", "ebreak"):
            self.note(f)
            return False, True, None, False
        if name in ("mret", "wfi"):
            self.note(f)
            return False, True, None, True
        if kind == "jump":
            if k == 0:
                base = a if name == "jalr" else f.pc
                self.target = after if name == "fence.i" else (base + imm) & ~1 & M
                return True, False, self.target, False
            if name != "fence.i":
                self.put(rd, after)
            self.note(f)
            return False, False, None, True
        if kind == "branch":
            if k == 0:
                sa, sb = signed(a), signed(b)
                self.taken = {
                    "beq": a == b, "bne": a != b, "blt": sa < sb,
                    "bge": sa >= sb, "bltu": a < b, "bgeu": a >= b,
                }[name]  # fmt: skip
                if self.taken:
                    return True, False, None, False
                self.note(f)
                return False, False, None, True
            self.note(f)
            return False, False, (f.pc + imm) & M, True
        if kind == "memory":
            return self.memory(f, name, rd, (a + imm) & M, b, k)
        length = {"mul": 3, "mulh": 4, "div": 37 if b else 2}.get(kind, 1)
        if k < length - 1:
            return True, False, None, False
        if name != "fence":
            self.put(rd, f.pc + imm if name == "auipc" else self.compute(name, a, b, imm))
        self.note(f)
        return False, False, None, True

    def memory(
        self, f: Fetched, name: str, rd: int, address: int, value: int, k: int
    ) -> tuple[bool, bool, int | None, bool]:
        """Load or store: a request in each of the first cycles, the response one cycle later."""
        size = {"b": 1, "h": 2, "w": 4}[name[1]]
        offset = address & 3
        split = offset + size > 4
        lanes = ((1 << size) - 1) << offset
        if k == 0:
            self.answers: list[int | None] = []
        if k == 0 or (k == 1 and split):
            at = (address & ~3) + 4 * k & M
            if name[0] == "s":
                rotated = (value << 8 * offset | value >> 32 - 8 * offset) & M
                fine = self.bus_write(at, lanes >> 4 * k & 15, rotated)
                self.answers.append(0 if fine else None)
            else:
                self.answers.append(self.bus_read(at))
        if k < (2 if split else 1):
            return True, False, None, False
        self.note(f)
        if None in self.answers:
            tval = address if self.answers[0] is None else (address & ~3) + 4
            self.exception = (7 if name[0] == "s" else 5, tval & M)
            return False, True, None, False
        if name[0] == "l":
            word = (self.answers[0] or 0) | ((self.answers[1] or 0) << 32 if split else 0)
            result = word >> 8 * offset & ((1 << 8 * size) - 1)
            if not name.endswith("u") and result >> (8 * size - 1):
                result -= 1 << 8 * size
            self.put(rd, result)
        return False, False, None, True

    def put(self, rd: int, value: int) -> None:
        if rd:
            self.x[rd] = value & M

    def note(self, f: Fetched) -> None:
        self.trace.append((self.mtime, f.pc, f.raw))

    def front(self, request: bool, target: int | None, id_ready: bool, clear: bool) -> None:
        """Fetch stage: arriving word, instruction to decode, next request."""
        words = list(self.fifo)
        held, arriving = len(words), self.outstanding is not None
        if self.outstanding is not None:
            words.append(self.arriving)
        out = None
        if words:
            word, error = words[0]
            half = word >> 16 if self.fifo_pc & 2 else word
            short = half & 3 != 3 and not error
            if self.fifo_pc & 2 and not short:
                if len(words) > 1:
                    second, other = words[1]
                    bad = self.fifo_pc if error else self.fifo_pc + 2 if other else None
                    out = Fetched(self.fifo_pc, half & 0xFFFF | (second & 0xFFFF) << 16, 4, bad)
            elif short:
                out = Fetched(self.fifo_pc, half & 0xFFFF, 2, None)
            else:
                out = Fetched(self.fifo_pc, word, 4, self.fifo_pc if error else None)
        if clear:
            self.id = None
        if out is not None and id_ready:
            if target is None:
                self.id = out
                self.step_in_id = 0
            if self.fifo_pc & 2 or out.size == 4:
                words.pop(0)
            self.fifo_pc = self.fifo_pc + out.size & M
        full = held >= 2 and (held >= 3 or arriving)
        self.was_requesting = arriving
        self.outstanding = None
        if target is not None:
            words = []
            self.fifo_pc = target
            self.fetch_address = target & ~3
        if request and (target is not None or not full):
            self.outstanding = self.fetch_address
            self.arriving = self.fetch_word(self.fetch_address)
            self.fetch_address = self.fetch_address + 4 & M
            self.was_requesting = True
        self.fifo = words

    def run(self, limit: int) -> None:
        """Until the store that halts has left the decode stage, or until cycle `limit`."""
        while not self.halted and self.mtime < limit:
            self.clock()
        self.clock()
