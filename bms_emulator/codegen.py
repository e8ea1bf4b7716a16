"""LLVM text of translated code: one function made of blocks of predecoded instructions (see `blocks.py`).

The text follows the loop instruction by instruction: registers stay in the state array, time and the number
of retired instructions are added up per block, and every way out stores where the loop has to go on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .isa import OP, OP_BLOCK, OP_UNDECODED
from .state import F_READ, G_BASE, G_FLAGS, G_KIND, G_OFFSET, G_SIZE, GRANULE_BITS, K_MEMORY, X_SINK, S
from .timing import C_ALU, C_DIV, C_DIV0, C_JUMP, C_MEMORY, C_MUL, C_MULH, C_TAKEN

BRANCHES = {"beq": "eq", "bne": "ne", "blt": "slt", "bge": "sge", "bltu": "ult", "bgeu": "uge"}
_REGISTER = {"add": "add", "sub": "sub", "xor": "xor", "or": "or", "and": "and", "mul": "mul"}
_SHIFT = {"sll": "shl", "srl": "lshr", "sra": "ashr"}
_IMMEDIATE = {"addi": "add", "xori": "xor", "ori": "or", "andi": "and"}
_SHIFT_IMMEDIATE = {"slli": "shl", "srli": "lshr", "srai": "ashr"}
_COMPARE = {"slt": "slt", "sltu": "ult", "slti": "slt", "sltiu": "ult"}
_LOADS = {"lb": (1, "sext"), "lbu": (1, "zext"), "lh": (2, "sext"), "lhu": (2, "zext"), "lw": (4, "")}
_STORES = {"sb": 1, "sh": 2, "sw": 4}
ENDS = frozenset(BRANCHES) | {"jal", "jalr"}
BODY = (
    frozenset(_REGISTER)
    | set(_SHIFT)
    | set(_IMMEDIATE)
    | set(_SHIFT_IMMEDIATE)
    | set(_COMPARE)
    | set(_LOADS)
    | set(_STORES)
    | {"lui", "fence", "mulh", "mulhsu", "mulhu", "div", "divu", "rem", "remu"}
)
NAMES = {number: name for name, number in OP.items()}
_M = 0xFFFFFFFF


@dataclass(frozen=True)
class Instruction:
    """A predecoded word taken apart; `at` is its flat halfword index, `imm` as in `decode.py`."""

    at: int
    name: str
    rd: int
    rs1: int
    rs2: int
    size: int
    straddles: int
    imm: int
    word: int


def unpack(at: int, word: int) -> Instruction:
    return Instruction(
        at,
        NAMES.get(word & 255, ""),
        (word >> 8) & 63,
        (word >> 14) & 31,
        (word >> 19) & 31,
        (word >> 24) & 3,
        (word >> 27) & 1,
        word >> 32,
        word,
    )


@dataclass
class Block:
    """Consecutive instructions; `falls` is the index after the last one."""

    number: int
    body: list[Instruction]
    worst: int

    @property
    def at(self) -> int:
        return self.body[0].at

    @property
    def falls(self) -> int:
        return self.body[-1].at + self.body[-1].size


def cost(instruction: Instruction) -> int:
    """Cycles at most, the straddle of a target included."""
    name = instruction.name
    if name in _LOADS or name in _STORES:
        return C_MEMORY
    if name in ("div", "divu", "rem", "remu"):
        return C_DIV
    if name in ("mulh", "mulhsu", "mulhu"):
        return C_MULH
    if name == "mul":
        return C_MUL
    if name in ENDS:
        return C_TAKEN + 1
    return C_ALU


class Writer:
    """Writes the LLVM text of one module."""

    def __init__(self, regions: npt.NDArray[np.int64], blocks: list[Block], first: int) -> None:
        self.regions = regions
        self.blocks = blocks
        self.number = {block.at: block.number for block in blocks}
        self.straddles = {block.at: block.body[0].straddles for block in blocks}
        self.first = first
        self.lines: list[str] = []
        self.names = 0
        row = next(
            r
            for r in range(len(self.regions))
            if self.regions[r, G_KIND] == K_MEMORY
            and 0 <= blocks[0].at * 2 - self.regions[r, G_OFFSET] < self.regions[r, G_SIZE]
        )
        self.x_base, self.x_size, self.x_offset = (
            int(self.regions[row, c]) for c in (G_BASE, G_SIZE, G_OFFSET)
        )

    def emit(self, text: str) -> None:
        self.lines.append("  " + text)

    def label(self, name: str) -> None:
        self.lines.append(name + ":")

    def value(self, text: str) -> str:
        """An instruction whose result gets a fresh name."""
        self.names += 1
        name = f"%v{self.names}"
        self.emit(f"{name} = {text}")
        return name

    def fresh(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def read(self, register: int) -> str:
        if register == 0:
            return "0"
        return self.value(f"load i32, ptr %x{register}, align 4")

    def write(self, register: int, value: str) -> None:
        if register != X_SINK:
            self.emit(f"store i32 {value}, ptr %x{register}, align 4")

    def module(self) -> str:
        """The whole text. Arguments: state, memory, code map, predecoded words, limit, block number."""
        arguments = ", ".join(f"i64 %a{i}" for i in range(6))
        self.lines = [f"define i64 @translated({arguments}) {{", "entry:"]
        for i, name in enumerate(("st", "mem", "map", "code")):
            self.emit(f"%{name}i = inttoptr i64 %a{i} to ptr")
        self.emit("%r = tail call i64 @body(ptr %sti, ptr %memi, ptr %mapi, ptr %codei, i64 %a4, i64 %a5)")
        self.emit("ret i64 %r")
        self.lines.append("}")
        # noalias is true: the four arrays of the machine never overlap.
        self.lines.append(
            "define internal i64 @body(ptr noalias %st, ptr noalias %mem, ptr noalias %map,"
            " ptr noalias %code, i64 %limit, i64 %which) noinline {"
        )
        self.lines.append("entry:")
        for i in range(1, 32):
            self.emit(f"%x{i} = getelementptr i8, ptr %st, i64 {4 * i}")
        for name in ("T", "INSTRET", "KEY", "PC"):
            self.emit(f"%at{name} = getelementptr i8, ptr %st, i64 {8 * S[name]}")
            self.emit(f"%{name} = alloca i64, align 8")
            self.emit(f"%in{name} = load i64, ptr %at{name}, align 8")
            self.emit(f"store i64 %in{name}, ptr %{name}, align 8")
        self.emit("br label %dispatch")
        self.label("dispatch")
        self.emit("%next = phi i64 [ %which, %entry ]" + "".join(self._dispatch_phis()))
        cases = " ".join(f"i64 {b.number}, label %b{b.number}" for b in self.blocks)
        self.emit(f"switch i64 %next, label %never [ {cases} ]")
        self.label("never")
        self.emit("unreachable")
        for block in self.blocks:
            self.block(block)
        for code in (0, 1):
            self.label(f"out{code}")
            for name in ("T", "INSTRET", "KEY", "PC"):
                self.emit(f"%o{code}{name} = load i64, ptr %{name}, align 8")
                self.emit(f"store i64 %o{code}{name}, ptr %at{name}, align 8")
            self.emit(f"ret i64 {code}")
        self.lines.append("}")
        self.lines.append("declare i32 @llvm.fshl.i32(i32, i32, i32)")
        return "\n".join(self.lines) + "\n"

    def _dispatch_phis(self) -> list[str]:
        return [f", [ %j{b.number}g, %j{b.number}in ]" for b in self.blocks if b.body[-1].name == "jalr"]

    # --- one block

    def leave(self, at: int, code: int, time: str, cycles: int, retired: int) -> str:
        """Emit (later) a way out at instruction `at`, and give its label."""
        label = self.fresh("leave")
        keep, self.lines = self.lines, self.cold
        self.label(label)
        t = self.value(f"add i64 {time}, {cycles}")
        r = self.value(f"add i64 {self.retired}, {retired}")
        self.emit(f"store i64 {t}, ptr %T, align 8")
        self.emit(f"store i64 {r}, ptr %INSTRET, align 8")
        self.emit(f"store i64 {at}, ptr %PC, align 8")
        self.emit(f"br label %out{code}")
        self.lines = keep
        return label

    def block(self, block: Block) -> None:
        self.cold: list[str] = []
        number = block.number
        self.label(f"b{number}")
        time = self.value("load i64, ptr %T, align 8")
        self.retired = self.value("load i64, ptr %INSTRET, align 8")
        ends = self.value(f"add i64 {time}, {block.worst}")
        late = self.value(f"icmp sgt i64 {ends}, %limit")
        out = self.leave(block.at, 0, time, 0, 0)
        self.emit(f"br i1 {late}, label %{out}, label %k{number}, !prof !0")
        self.label(f"k{number}")
        cycles = 0
        for n, instruction in enumerate(block.body):
            if instruction.name in ENDS:
                self.end(block, instruction, time, cycles, n)
                break
            time, cycles = self.instruction(instruction, time, cycles, n)
        else:
            self.commit(time, cycles, len(block.body))
            self.go(block.falls)
        self.lines += self.cold

    def commit(self, time: str, cycles: int, retired: int) -> str:
        """Store time and number of instructions; gives the new time."""
        t = self.value(f"add i64 {time}, {cycles}")
        r = self.value(f"add i64 {self.retired}, {retired}")
        self.emit(f"store i64 {t}, ptr %T, align 8")
        self.emit(f"store i64 {r}, ptr %INSTRET, align 8")
        return t

    def go(self, at: int) -> None:
        """Continue at `at`, which follows in memory."""
        if at in self.number:
            self.emit(f"br label %b{self.number[at]}")
        else:
            self.emit(f"store i64 {at}, ptr %PC, align 8")
            self.emit("br label %out1")

    def jump(self, here: int, target: int, time: str, cycles: int, n: int, cost: int) -> None:
        """Redirect from `here`, instruction `n` of the block, to a fixed target; `cost` without straddle."""
        if target in self.number:
            straddle = self.straddles[target]
            t = self.commit(time, cycles + cost + straddle, n + 1)
            key = self.value(f"sub i64 {(target >> 1) + straddle}, {t}")
            self.emit(f"store i64 {key}, ptr %KEY, align 8")
            self.emit(f"br label %b{self.number[target]}")
            return
        # Outside this module the target may have changed since: look at it now.
        word = self.value(f"load i64, ptr {self.word_at(str(target))}, align 8")
        out = self.leave(here, 0, time, cycles, n)
        self.finish_outside(word, str(target), time, cycles, n, cost, out)

    def word_at(self, index: str) -> str:
        return self.value(f"getelementptr i64, ptr %code, i64 {index}")

    def finish_outside(
        self, word: str, target: str, time: str, cycles: int, n: int, cost: int, undecoded: str
    ) -> None:
        op = self.value(f"and i64 {word}, 255")
        unknown = self.value(f"icmp eq i64 {op}, {OP_UNDECODED}")
        known = self.fresh("u")
        self.emit(f"br i1 {unknown}, label %{undecoded}, label %{known}")
        self.label(known)
        self.redirect(word, target, time, cycles, n, cost)
        self.emit(f"store i64 {target}, ptr %PC, align 8")
        self.emit("br label %out1")

    def redirect(self, word: str, target: str, time: str, cycles: int, n: int, cost: int) -> None:
        """Time and key after a redirection to a place whose predecoded word is only known at run time."""
        shifted = self.value(f"lshr i64 {word}, 27")
        straddle = self.value(f"and i64 {shifted}, 1")
        before = self.value(f"add i64 {time}, {cycles + cost}")
        t = self.value(f"add i64 {before}, {straddle}")
        r = self.value(f"add i64 {self.retired}, {n + 1}")
        half = self.value(f"lshr i64 {target}, 1")
        start = self.value(f"add i64 {half}, {straddle}")
        key = self.value(f"sub i64 {start}, {t}")
        self.emit(f"store i64 {t}, ptr %T, align 8")
        self.emit(f"store i64 {r}, ptr %INSTRET, align 8")
        self.emit(f"store i64 {key}, ptr %KEY, align 8")

    def end(self, block: Block, i: Instruction, time: str, cycles: int, n: int) -> None:
        """The branch or jump that ends a block."""
        link = (i.at + i.size) * 2 - self.x_offset + self.x_base
        if i.name == "jal":
            if i.imm not in self.number:
                # the link must not be written before it is sure that the jump is made here
                word = self.value(f"load i64, ptr {self.word_at(str(i.imm))}, align 8")
                op = self.value(f"and i64 {word}, 255")
                unknown = self.value(f"icmp eq i64 {op}, {OP_UNDECODED}")
                known, out = self.fresh("u"), self.leave(i.at, 0, time, cycles, n)
                self.emit(f"br i1 {unknown}, label %{out}, label %{known}")
                self.label(known)
                self.write(i.rd, str(_signed(link)))
                self.redirect(word, str(i.imm), time, cycles, n, C_JUMP)
                self.emit(f"store i64 {i.imm}, ptr %PC, align 8")
                self.emit("br label %out1")
                return
            self.write(i.rd, str(_signed(link)))
            self.jump(i.at, i.imm, time, cycles, n, C_JUMP)
            return
        if i.name == "jalr":
            self.indirect(block, i, time, cycles, n, link)
            return
        a, b = self.read(i.rs1), self.read(i.rs2)
        condition = self.value(f"icmp {BRANCHES[i.name]} i32 {a}, {b}")
        taken, straight = self.fresh("t"), self.fresh("s")
        self.emit(f"br i1 {condition}, label %{taken}, label %{straight}")
        self.label(taken)
        self.jump(i.at, i.imm, time, cycles, n, C_TAKEN)
        self.label(straight)
        self.commit(time, cycles + C_ALU, n + 1)
        self.go(i.at + i.size)

    def indirect(self, block: Block, i: Instruction, time: str, cycles: int, n: int, link: int) -> None:
        number = block.number
        out = self.leave(i.at, 0, time, cycles, n)
        base = self.read(i.rs1)
        address = self.value(f"add i32 {base}, {i.imm}")
        even = self.value(f"and i32 {address}, -2")
        offset = self.value(f"sub i32 {even}, {_signed(self.x_base)}")
        inside = self.value(f"icmp ult i32 {offset}, {self.x_size}")
        self.emit(f"br i1 {inside}, label %j{number}a, label %{out}")
        self.label(f"j{number}a")
        wide = self.value(f"zext i32 {offset} to i64")
        flat = self.value(f"add i64 {wide}, {self.x_offset}")
        target = self.value(f"lshr i64 {flat}, 1")
        word = self.value(f"load i64, ptr {self.word_at(target)}, align 8")
        op = self.value(f"and i64 {word}, 255")
        unknown = self.value(f"icmp eq i64 {op}, {OP_UNDECODED}")
        self.emit(f"br i1 {unknown}, label %{out}, label %j{number}b")
        self.label(f"j{number}b")
        self.write(i.rd, str(_signed(link)))
        self.redirect(word, target, time, cycles, n, C_JUMP)
        self.emit(f"store i64 {target}, ptr %PC, align 8")
        is_block = self.value(f"icmp eq i64 {op}, {OP_BLOCK}")
        self.emit(f"br i1 {is_block}, label %j{number}c, label %out1")
        self.label(f"j{number}c")
        block_number = self.value(f"lshr i64 {word}, 32")
        self.emit(f"%j{number}g = sub i64 {block_number}, {self.first}")
        here = self.value(f"icmp ult i64 %j{number}g, {len(self.blocks)}")
        self.emit(f"br i1 {here}, label %j{number}in, label %out1")
        self.label(f"j{number}in")
        self.emit("br label %dispatch")

    # --- one instruction that does not end a block

    def instruction(self, i: Instruction, time: str, cycles: int, n: int) -> tuple[str, int]:
        """Emit it; gives the name of the time value and the cycles to add to it."""
        name = i.name
        if name in _LOADS:
            self.load(i, time, cycles, n)
            return time, cycles + C_MEMORY
        if name in _STORES:
            self.store(i, time, cycles, n)
            return time, cycles + C_MEMORY
        if name == "fence":
            return time, cycles + C_ALU
        if name == "lui":
            self.write(i.rd, str(i.imm))
            return time, cycles + C_ALU
        if i.rd == X_SINK and name not in ("div", "divu", "rem", "remu"):
            return time, cycles + cost(i)
        a = self.read(i.rs1)
        if name in _IMMEDIATE:
            self.write(i.rd, self.value(f"{_IMMEDIATE[name]} i32 {a}, {i.imm}"))
            return time, cycles + C_ALU
        if name in _SHIFT_IMMEDIATE:
            self.write(i.rd, self.value(f"{_SHIFT_IMMEDIATE[name]} i32 {a}, {i.imm}"))
            return time, cycles + C_ALU
        b = str(i.imm) if name in ("slti", "sltiu") else self.read(i.rs2)
        if name in _COMPARE:
            bit = self.value(f"icmp {_COMPARE[name]} i32 {a}, {b}")
            self.write(i.rd, self.value(f"zext i1 {bit} to i32"))
            return time, cycles + C_ALU
        if name in _SHIFT:
            amount = self.value(f"and i32 {b}, 31")
            self.write(i.rd, self.value(f"{_SHIFT[name]} i32 {a}, {amount}"))
            return time, cycles + C_ALU
        if name in _REGISTER:
            self.write(i.rd, self.value(f"{_REGISTER[name]} i32 {a}, {b}"))
            return time, cycles + cost(i)
        if name in ("mulh", "mulhsu", "mulhu"):
            wide_a = self.value(f"{'zext' if name == 'mulhu' else 'sext'} i32 {a} to i64")
            wide_b = self.value(f"{'sext' if name == 'mulh' else 'zext'} i32 {b} to i64")
            product = self.value(f"mul i64 {wide_a}, {wide_b}")
            high = self.value(f"lshr i64 {product}, 32")
            self.write(i.rd, self.value(f"trunc i64 {high} to i32"))
            return time, cycles + C_MULH
        return self.division(i, a, b, time, cycles)

    def division(self, i: Instruction, a: str, b: str, time: str, cycles: int) -> tuple[str, int]:
        """div and its kin: 64-bit operands make -2**31 / -1 harmless; a divisor of 0 takes fewer cycles."""
        unsigned = i.name in ("divu", "remu")
        quotient = i.name in ("div", "divu")
        extend, operation = ("zext", "u") if unsigned else ("sext", "s")
        zero = self.value(f"icmp eq i32 {b}, 0")
        safe = self.value(f"select i1 {zero}, i32 1, i32 {b}")
        wide_a = self.value(f"{extend} i32 {a} to i64")
        wide_b = self.value(f"{extend} i32 {safe} to i64")
        wide = self.value(f"{operation}{'div' if quotient else 'rem'} i64 {wide_a}, {wide_b}")
        result = self.value(f"trunc i64 {wide} to i32")
        self.write(i.rd, self.value(f"select i1 {zero}, i32 {'-1' if quotient else a}, i32 {result}"))
        spent = self.value(f"select i1 {zero}, i64 {cycles + C_DIV0}, i64 {cycles + C_DIV}")
        return self.value(f"add i64 {time}, {spent}"), 0

    def place(self, offset: str, size: int, width: int) -> str:
        """Whether the i32 `offset` is below `size` and aligned to `width`: one compare after a rotation."""
        if width == 1:
            return self.value(f"icmp ult i32 {offset}, {size}")
        shift = 32 - (width >> 1)
        turned = self.value(f"call i32 @llvm.fshl.i32(i32 {offset}, i32 {offset}, i32 {shift})")
        return self.value(f"icmp ult i32 {turned}, {size // width}")

    def address(self, i: Instruction) -> str:
        base = self.read(i.rs1)
        return self.value(f"add i32 {base}, {i.imm}")

    def load(self, i: Instruction, time: str, cycles: int, n: int) -> None:
        width, extend = _LOADS[i.name]
        address = self.address(i)
        out = self.leave(i.at, 0, time, cycles, n)
        done = self.fresh("d")
        arrivals = []
        rows = [
            r
            for r in range(len(self.regions))
            if self.regions[r, G_KIND] == K_MEMORY and self.regions[r, G_FLAGS] & F_READ
        ]
        for position, row in enumerate(rows):
            base, size, flat = (int(self.regions[row, c]) for c in (G_BASE, G_SIZE, G_OFFSET))
            offset = self.value(f"sub i32 {address}, {_signed(base)}")
            inside = self.place(offset, size, width)
            here = self.fresh("m")
            other = out if position == len(rows) - 1 else self.fresh("o")
            self.emit(f"br i1 {inside}, label %{here}, label %{other}")
            self.label(here)
            wide = self.value(f"zext i32 {offset} to i64")
            at = self.value(f"add i64 {wide}, {flat}") if flat else wide
            arrivals.append((at, here))
            self.emit(f"br label %{done}")
            if other != out:
                self.label(other)
        self.label(done)
        where = self.value("phi i64 " + ", ".join(f"[ {at}, %{label} ]" for at, label in arrivals))
        pointer = self.value(f"getelementptr i8, ptr %mem, i64 {where}")
        bits = 8 * width
        value = self.value(f"load i{bits}, ptr {pointer}, align {width}")
        if extend:
            value = self.value(f"{extend} i{bits} {value} to i32")
        self.write(i.rd, value)

    def store(self, i: Instruction, time: str, cycles: int, n: int) -> None:
        width = _STORES[i.name]
        address = self.address(i)
        out = self.leave(i.at, 0, time, cycles, n)
        offset = self.value(f"sub i32 {address}, {_signed(int(self.regions[0, G_BASE]))}")
        inside = self.place(offset, int(self.regions[0, G_SIZE]), width)
        check, free = self.fresh("c"), self.fresh("f")
        self.emit(f"br i1 {inside}, label %{check}, label %{out}")
        self.label(check)
        wide = self.value(f"zext i32 {offset} to i64")
        granule = self.value(f"lshr i64 {wide}, {GRANULE_BITS}")
        flag = self.value(f"load i8, ptr {self.value(f'getelementptr i8, ptr %map, i64 {granule}')}, align 1")
        plain = self.value(f"icmp eq i8 {flag}, 0")
        self.emit(f"br i1 {plain}, label %{free}, label %{out}")
        self.label(free)
        value = self.read(i.rs2)
        if width < 4:
            value = self.value(f"trunc i32 {value} to i{8 * width}")
        pointer = self.value(f"getelementptr i8, ptr %mem, i64 {wide}")
        self.emit(f"store i{8 * width} {value}, ptr {pointer}, align {width}")


def _signed(value: int) -> int:
    value &= _M
    return value - (1 << 32) if value >> 31 else value
