"""A small assembler over `isa.py`, for tests, random programs and benchmarks.

    a = Assembler(0x0010_0000)
    a.label("loop")
    a.op("addi", rd=5, rs1=5, imm=-1)
    a.branch("bne", 5, 0, "loop")
    code = a.bytes()

Compressed encodings come from the decoder read backwards: every 16-bit word is decoded once, so an encoding
exists here exactly if it exists there.
"""

from __future__ import annotations

from functools import lru_cache

from . import isa
from .csr import NUMBERS
from .decode import fields16
from .isa import BY_NAME, OP


class AssemblyError(ValueError):
    """An operand does not fit."""


def _check(value: int, low: int, high: int, step: int, what: str) -> int:
    if not low <= value <= high or value % step:
        raise AssemblyError(f"{what} {value} is not a multiple of {step} in {low}..{high}")
    return value


def encode(name: str, rd: int = 0, rs1: int = 0, rs2: int = 0, imm: int = 0) -> int:
    """32-bit encoding; `imm` is a byte offset (branches, jumps), the upper value (lui) or a CSR number."""
    row = BY_NAME[name]
    registers = rd << 7 | rs1 << 15 | rs2 << 20
    match row.format:
        case isa.R:
            return row.match | registers
        case isa.I:
            return row.match | rd << 7 | rs1 << 15 | (_check(imm, -2048, 2047, 1, "immediate") & 0xFFF) << 20
        case isa.SHIFT:
            return row.match | rd << 7 | rs1 << 15 | _check(imm, 0, 31, 1, "shift") << 20
        case isa.S:
            low = _check(imm, -2048, 2047, 1, "offset") & 0xFFF
            return row.match | rs1 << 15 | rs2 << 20 | (low & 31) << 7 | (low >> 5) << 25
        case isa.B:
            at = _check(imm, -4096, 4094, 2, "branch offset")
            bits = (at >> 12 & 1) << 31 | (at >> 5 & 63) << 25 | (at >> 1 & 15) << 8 | (at >> 11 & 1) << 7
            return row.match | rs1 << 15 | rs2 << 20 | bits
        case isa.U:
            return (
                row.match
                | rd << 7
                | (_check(imm, -(1 << 31), (1 << 32) - 1, 4096, "upper value") & 0xFFFFF000)
            )
        case isa.J:
            at = _check(imm, -(1 << 20), (1 << 20) - 2, 2, "jump offset")
            bits = (
                (at >> 20 & 1) << 31
                | (at >> 1 & 0x3FF) << 21
                | (at >> 11 & 1) << 20
                | (at >> 12 & 0xFF) << 12
            )
            return row.match | rd << 7 | bits
        case isa.CSR | isa.CSRI:
            return row.match | rd << 7 | rs1 << 15 | _check(imm, 0, 4095, 1, "CSR number") << 20
    return row.match


@lru_cache(maxsize=1)
def _compressed() -> dict[tuple[int, int, int, int, int], int]:
    table: dict[tuple[int, int, int, int, int], int] = {}
    for word in range(1 << 16):
        if word & 3 != 3:
            fields = fields16(word)
            if fields[0]:
                table.setdefault(fields, word)
    return table


def compress(name: str, rd: int = 0, rs1: int = 0, rs2: int = 0, imm: int = 0) -> int | None:
    """16-bit encoding that means the same, or None."""
    return _compressed().get((OP[name], rd, rs1, rs2, imm))


class Assembler:
    """Collects code from address `base` on; labels may be used before they are set."""

    def __init__(self, base: int) -> None:
        self.base = base
        self._code = bytearray()
        self.labels: dict[str, int] = {}
        self._open: list[tuple[int, str, dict[str, int], str]] = []

    @property
    def here(self) -> int:
        """Address of what comes next."""
        return self.base + len(self._code)

    def label(self, name: str) -> None:
        """Name the present address."""
        if name in self.labels:
            raise AssemblyError(f"label {name} is set twice")
        self.labels[name] = self.here

    def word(self, value: int) -> None:
        """32 bits."""
        self._code += (value & 0xFFFFFFFF).to_bytes(4, "little")

    def half(self, value: int) -> None:
        """16 bits."""
        self._code += (value & 0xFFFF).to_bytes(2, "little")

    def align(self, size: int) -> None:
        """Fill with compressed no-operations up to a multiple of `size` bytes."""
        while self.here % size:
            self.half(0x0001)

    def to(self, address: int) -> None:
        """Fill with zeros up to `address`."""
        if address < self.here:
            raise AssemblyError(f"already at 0x{self.here:08x}, behind 0x{address:08x}")
        self._code += bytes(address - self.here)

    def op(
        self, name: str, rd: int = 0, rs1: int = 0, rs2: int = 0, imm: int = 0, short: bool = False
    ) -> None:
        """One instruction; `short` takes the 16-bit encoding if there is one."""
        halfword = compress(name, rd, rs1, rs2, imm) if short else None
        if halfword is not None:
            self.half(halfword)
        else:
            self.word(encode(name, rd, rs1, rs2, imm))

    def csr(self, name: str, rd: int, csr: str | int, rs1: int = 0) -> None:
        """csrrw and its kin by CSR name; `rs1` is the immediate of the immediate forms."""
        self.op(name, rd=rd, rs1=rs1, imm=NUMBERS[csr] if isinstance(csr, str) else csr)

    def branch(self, name: str, rs1: int, rs2: int, label: str) -> None:
        """Conditional branch to a label."""
        self._open.append((self.here, name, {"rs1": rs1, "rs2": rs2}, label))
        self.word(0)

    def jump(self, rd: int, label: str) -> None:
        """jal to a label."""
        self._open.append((self.here, "jal", {"rd": rd}, label))
        self.word(0)

    def li(self, rd: int, value: int) -> None:
        """Load a 32-bit constant in one or two instructions."""
        value &= 0xFFFFFFFF
        low = ((value & 0xFFF) ^ 0x800) - 0x800
        high = (value - low) & 0xFFFFFFFF
        if high:
            self.op("lui", rd=rd, imm=high)
            if low:
                self.op("addi", rd=rd, rs1=rd, imm=low)
        else:
            self.op("addi", rd=rd, imm=low)

    def la(self, rd: int, label: str) -> None:
        """Load the address of a label, in two instructions."""
        self._open.append((self.here, "la", {"rd": rd}, label))
        self.word(0)
        self.word(0)

    def bytes(self) -> bytes:
        """The code, with every label put in."""
        code = bytearray(self._code)
        for at, name, operands, label in self._open:
            if label not in self.labels:
                raise AssemblyError(f"label {label} is not set")
            target = self.labels[label]
            if name == "la":
                low = ((target & 0xFFF) ^ 0x800) - 0x800
                words = [
                    encode("lui", imm=(target - low) & 0xFFFFFFFF, **operands),
                    encode("addi", rs1=operands["rd"], imm=low, **operands),
                ]
            else:
                words = [encode(name, imm=target - at, **operands)]
            for i, word in enumerate(words):
                start = at - self.base + 4 * i
                code[start : start + 4] = word.to_bytes(4, "little")
        return bytes(code)
