"""One instruction as text, from the same table that decodes it (`isa.py`).

Written for error messages and traces: ABI register names, compressed instructions shown as what they stand
for.
"""

from __future__ import annotations

from . import isa
from .csr import NAMES
from .decode import fields16, fields32

REGISTERS = (
    *("zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1"),
    *(f"a{i}" for i in range(8)),
    *(f"s{i}" for i in range(2, 12)),
    *(f"t{i}" for i in range(3, 7)),
)


def disassemble(word: int, pc: int) -> str:
    """Text of the instruction `word` at address `pc`; branch targets as absolute addresses."""
    compressed = word & 3 != 3
    op, rd, rs1, rs2, imm = (fields16 if compressed else fields32)(
        word & (0xFFFF if compressed else 0xFFFFFFFF)
    )
    if op == 0:
        return f".half 0x{word & 0xFFFF:04x}  (illegal)" if compressed else f".word 0x{word:08x}  (illegal)"
    row = isa.INSTRUCTIONS[op - 1]
    x = REGISTERS
    match row.format:
        case isa.R:
            operands = f"{x[rd]}, {x[rs1]}, {x[rs2]}"
        case isa.I if row.cycles == "memory":
            operands = f"{x[rd]}, {imm}({x[rs1]})"
        case isa.I | isa.SHIFT:
            operands = f"{x[rd]}, {x[rs1]}, {imm}"
        case isa.S:
            operands = f"{x[rs2]}, {imm}({x[rs1]})"
        case isa.B:
            operands = f"{x[rs1]}, {x[rs2]}, 0x{(pc + imm) & 0xFFFFFFFF:08x}"
        case isa.U:
            operands = f"{x[rd]}, 0x{(imm >> 12) & 0xFFFFF:x}"
        case isa.J:
            operands = f"{x[rd]}, 0x{(pc + imm) & 0xFFFFFFFF:08x}"
        case isa.CSR:
            operands = f"{x[rd]}, {NAMES.get(imm, f'0x{imm:03x}')}, {x[rs1]}"
        case isa.CSRI:
            operands = f"{x[rd]}, {NAMES.get(imm, f'0x{imm:03x}')}, {rs1}"
        case _:
            operands = ""
    return f"{row.name} {operands}".rstrip()
