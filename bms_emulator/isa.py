"""Table 1: the instructions, one row each.

RV32IMC with Zicsr and Zifencei, as lowRISC Ibex accepts it in its 'small' configuration (compressed: Zca
only). A row holds the encoding (mask and match), the operand format, and the cycle class of `timing.py`.
Everything else is made from these rows: the decoder (`decode.py`), the disassembler (`disasm.py`), the
assembler (`asm.py`) and the tests that walk over every instruction.

Compressed rows name the base instruction they expand to; the operand formats are those of the RVC chapter of
the RISC-V unprivileged specification. Where Ibex is stricter than the specification's hints, the row has an
`illegal` condition instead of a wider match.
"""

from __future__ import annotations

from dataclasses import dataclass

from .timing import CLASSES

# Operand formats of 32-bit instructions, by the letters of the specification.
R, I, S, B, U, J, SHIFT, CSR, CSRI, NONE = range(10)  # noqa: E741


@dataclass(frozen=True)
class Instruction:
    """One 32-bit instruction.

    `match` and `mask` are 32-bit words: an instruction word w is this instruction when w & mask == match.
    `cycles` names a row of `timing.TIMING`.
    """

    name: str
    format: int
    match: int
    mask: int
    cycles: str


def _row(name: str, fmt: int, match: int, mask: int, cycles: str) -> Instruction:
    assert cycles in CLASSES, cycles
    assert match & ~mask == 0, name
    return Instruction(name, fmt, match, mask, cycles)


_OPCODE = 0x7F
_FUNCT3 = 0x707F
_FUNCT7 = 0xFE00707F
_ALL = 0xFFFFFFFF

# The order is the order of the operation numbers (first row: 1).
INSTRUCTIONS: tuple[Instruction, ...] = (
    _row("lui", U, 0x37, _OPCODE, "alu"),
    _row("auipc", U, 0x17, _OPCODE, "alu"),
    _row("jal", J, 0x6F, _OPCODE, "jump"),
    _row("jalr", I, 0x67, _FUNCT3, "jump"),
    _row("beq", B, 0x63, _FUNCT3, "branch"),
    _row("bne", B, 0x1063, _FUNCT3, "branch"),
    _row("blt", B, 0x4063, _FUNCT3, "branch"),
    _row("bge", B, 0x5063, _FUNCT3, "branch"),
    _row("bltu", B, 0x6063, _FUNCT3, "branch"),
    _row("bgeu", B, 0x7063, _FUNCT3, "branch"),
    _row("lb", I, 0x03, _FUNCT3, "memory"),
    _row("lh", I, 0x1003, _FUNCT3, "memory"),
    _row("lw", I, 0x2003, _FUNCT3, "memory"),
    _row("lbu", I, 0x4003, _FUNCT3, "memory"),
    _row("lhu", I, 0x5003, _FUNCT3, "memory"),
    _row("sb", S, 0x23, _FUNCT3, "memory"),
    _row("sh", S, 0x1023, _FUNCT3, "memory"),
    _row("sw", S, 0x2023, _FUNCT3, "memory"),
    _row("addi", I, 0x13, _FUNCT3, "alu"),
    _row("slti", I, 0x2013, _FUNCT3, "alu"),
    _row("sltiu", I, 0x3013, _FUNCT3, "alu"),
    _row("xori", I, 0x4013, _FUNCT3, "alu"),
    _row("ori", I, 0x6013, _FUNCT3, "alu"),
    _row("andi", I, 0x7013, _FUNCT3, "alu"),
    _row("slli", SHIFT, 0x1013, _FUNCT7, "alu"),
    _row("srli", SHIFT, 0x5013, _FUNCT7, "alu"),
    _row("srai", SHIFT, 0x40005013, _FUNCT7, "alu"),
    _row("add", R, 0x33, _FUNCT7, "alu"),
    _row("sub", R, 0x40000033, _FUNCT7, "alu"),
    _row("sll", R, 0x1033, _FUNCT7, "alu"),
    _row("slt", R, 0x2033, _FUNCT7, "alu"),
    _row("sltu", R, 0x3033, _FUNCT7, "alu"),
    _row("xor", R, 0x4033, _FUNCT7, "alu"),
    _row("srl", R, 0x5033, _FUNCT7, "alu"),
    _row("sra", R, 0x40005033, _FUNCT7, "alu"),
    _row("or", R, 0x6033, _FUNCT7, "alu"),
    _row("and", R, 0x7033, _FUNCT7, "alu"),
    _row("mul", R, 0x02000033, _FUNCT7, "mul"),
    _row("mulh", R, 0x02001033, _FUNCT7, "mulh"),
    _row("mulhsu", R, 0x02002033, _FUNCT7, "mulh"),
    _row("mulhu", R, 0x02003033, _FUNCT7, "mulh"),
    _row("div", R, 0x02004033, _FUNCT7, "div"),
    _row("divu", R, 0x02005033, _FUNCT7, "div"),
    _row("rem", R, 0x02006033, _FUNCT7, "div"),
    _row("remu", R, 0x02007033, _FUNCT7, "div"),
    # fence and fence.i: Ibex looks at funct3 only (ibex_decoder.sv, OPCODE_MISC_MEM).
    _row("fence", NONE, 0x0F, _FUNCT3, "alu"),
    _row("fence.i", NONE, 0x100F, _FUNCT3, "jump"),
    _row("ecall", NONE, 0x73, _ALL, "trap"),
    _row("ebreak", NONE, 0x00100073, _ALL, "trap"),
    _row("mret", NONE, 0x30200073, _ALL, "mret"),
    _row("wfi", NONE, 0x10500073, _ALL, "wfi"),
    _row("csrrw", CSR, 0x1073, _FUNCT3, "csr"),
    _row("csrrs", CSR, 0x2073, _FUNCT3, "csr"),
    _row("csrrc", CSR, 0x3073, _FUNCT3, "csr"),
    _row("csrrwi", CSRI, 0x5073, _FUNCT3, "csr"),
    _row("csrrsi", CSRI, 0x6073, _FUNCT3, "csr"),
    _row("csrrci", CSRI, 0x7073, _FUNCT3, "csr"),
)

BY_NAME = {row.name: row for row in INSTRUCTIONS}
OP = {row.name: number for number, row in enumerate(INSTRUCTIONS, start=1)}
N_OPS = len(INSTRUCTIONS)

# Operations that no encoding names: what the decoder puts into a predecoded word for special places.
OP_ILLEGAL = N_OPS + 1  # imm = the faulting word, for mtval
OP_FETCH_FAULT = N_OPS + 2  # imm = 0, or 2 when only the second half is outside memory
OP_FAR = N_OPS + 3  # jal or branch whose target lies outside the region it stands in
# From OP_SPECIAL on the loop looks twice.
OP_SPECIAL = 192
OP_UNDECODED = 192
OP_BLOCK = 193  # start of a translated block; imm = block number
OP_STOP = 194  # breakpoint
OP_SKIP = 195  # injected fault: the instruction is fetched and has no effect


# Where a compressed instruction finds a register number: nowhere (x0), sp, bits 11-7, x8 + bits 4-2,
# x8 + bits 9-7, bits 6-2, or the row's `link`.
NO_REGISTER, SP, FULL, LOW, HIGH, SECOND, LINK = range(7)


@dataclass(frozen=True)
class Layout:
    """Operands of a compressed format.

    `pieces` of the immediate are (lowest bit in the word, number of bits, lowest bit in the immediate);
    `signed` is its width when the top bit is a sign, else 0.
    """

    rd: int = NO_REGISTER
    rs1: int = NO_REGISTER
    rs2: int = NO_REGISTER
    pieces: tuple[tuple[int, int, int], ...] = ()
    signed: int = 0


_IMM6 = ((12, 1, 5), (2, 5, 0))
_JUMP = ((12, 1, 11), (11, 1, 4), (9, 2, 8), (8, 1, 10), (7, 1, 6), (6, 1, 7), (3, 3, 1), (2, 1, 5))
_WORD = ((10, 3, 3), (6, 1, 2), (5, 1, 6))
C_ADDI4SPN = Layout(LOW, SP, pieces=((11, 2, 4), (7, 4, 6), (6, 1, 2), (5, 1, 3)))
C_LW = Layout(LOW, HIGH, pieces=_WORD)
C_SW = Layout(rs1=HIGH, rs2=LOW, pieces=_WORD)
C_ADDI = Layout(FULL, FULL, pieces=_IMM6, signed=6)
C_J = Layout(LINK, pieces=_JUMP, signed=12)
C_LI = Layout(FULL, pieces=_IMM6, signed=6)
C_LUI = Layout(FULL, pieces=((12, 1, 17), (2, 5, 12)), signed=18)
C_ADDI16SP = Layout(SP, SP, pieces=((12, 1, 9), (6, 1, 4), (5, 1, 6), (3, 2, 7), (2, 1, 5)), signed=10)
C_SHIFT = Layout(HIGH, HIGH, pieces=((2, 5, 0),))
C_ANDI = Layout(HIGH, HIGH, pieces=_IMM6, signed=6)
C_ARITH = Layout(HIGH, HIGH, LOW)
C_BRANCH = Layout(rs1=HIGH, pieces=((12, 1, 8), (10, 2, 3), (5, 2, 6), (3, 2, 1), (2, 1, 5)), signed=9)
C_SLLI = Layout(FULL, FULL, pieces=((2, 5, 0),))
C_LWSP = Layout(FULL, SP, pieces=((12, 1, 5), (4, 3, 2), (2, 2, 6)))
C_JR = Layout(LINK, FULL)
C_MV = Layout(FULL, rs2=SECOND)
C_ADD = Layout(FULL, FULL, SECOND)
C_SWSP = Layout(rs1=SP, rs2=SECOND, pieces=((9, 4, 2), (7, 2, 6)))
C_NONE = Layout()

# Conditions under which a matching encoding is nevertheless illegal.
LEGAL, ILLEGAL_IF_IMM_0, ILLEGAL_IF_RD_0 = range(3)


@dataclass(frozen=True)
class Compressed:
    """One 16-bit instruction: its encoding, the base instruction it stands for, and how its operands are laid
    out.

    `link` is the destination register of jumps (c.jal, c.jalr: 1; c.j, c.jr: 0).
    """

    name: str
    layout: Layout
    match: int
    mask: int
    base: str
    link: int = 0
    illegal: int = LEGAL


# Searched from top to bottom: the narrower encoding stands first.
COMPRESSED: tuple[Compressed, ...] = (
    Compressed("c.addi4spn", C_ADDI4SPN, 0x0000, 0xE003, "addi", illegal=ILLEGAL_IF_IMM_0),
    Compressed("c.lw", C_LW, 0x4000, 0xE003, "lw"),
    Compressed("c.sw", C_SW, 0xC000, 0xE003, "sw"),
    Compressed("c.addi", C_ADDI, 0x0001, 0xE003, "addi"),
    Compressed("c.jal", C_J, 0x2001, 0xE003, "jal", link=1),
    Compressed("c.li", C_LI, 0x4001, 0xE003, "addi"),
    Compressed("c.addi16sp", C_ADDI16SP, 0x6101, 0xEF83, "addi", illegal=ILLEGAL_IF_IMM_0),
    Compressed("c.lui", C_LUI, 0x6001, 0xE003, "lui", illegal=ILLEGAL_IF_IMM_0),
    Compressed("c.srli", C_SHIFT, 0x8001, 0xFC03, "srli"),
    Compressed("c.srai", C_SHIFT, 0x8401, 0xFC03, "srai"),
    Compressed("c.andi", C_ANDI, 0x8801, 0xEC03, "andi"),
    Compressed("c.sub", C_ARITH, 0x8C01, 0xFC63, "sub"),
    Compressed("c.xor", C_ARITH, 0x8C21, 0xFC63, "xor"),
    Compressed("c.or", C_ARITH, 0x8C41, 0xFC63, "or"),
    Compressed("c.and", C_ARITH, 0x8C61, 0xFC63, "and"),
    Compressed("c.j", C_J, 0xA001, 0xE003, "jal", link=0),
    Compressed("c.beqz", C_BRANCH, 0xC001, 0xE003, "beq"),
    Compressed("c.bnez", C_BRANCH, 0xE001, 0xE003, "bne"),
    Compressed("c.slli", C_SLLI, 0x0002, 0xF003, "slli"),
    Compressed("c.lwsp", C_LWSP, 0x4002, 0xE003, "lw", illegal=ILLEGAL_IF_RD_0),
    Compressed("c.jr", C_JR, 0x8002, 0xF07F, "jalr", link=0, illegal=ILLEGAL_IF_RD_0),
    Compressed("c.mv", C_MV, 0x8002, 0xF003, "add"),
    Compressed("c.ebreak", C_NONE, 0x9002, 0xFFFF, "ebreak"),
    Compressed("c.jalr", C_JR, 0x9002, 0xF07F, "jalr", link=1),
    Compressed("c.add", C_ADD, 0x9002, 0xF003, "add"),
    Compressed("c.swsp", C_SWSP, 0xC002, 0xE003, "sw"),
)
