"""From an instruction word to the predecoded word of the loop, driven by the rows of `isa.py`.

Each halfword of memory has one predecoded 64-bit word, filled when it is first executed and cleared when it
is overwritten:

    bits 0-7    operation number (isa.OP, or one of the special ones)
    bits 8-13   destination register; x0 is replaced by the sink register 32
    bits 14-18  first source register (the immediate of csrrwi and its kin)
    bits 19-23  second source register
    bits 24-25  length in halfwords, 1 or 2
    bit  27     straddles two words (32 bits long at an address with bit 1 set)
    bit  28     part of a translated block
    bits 32-63  immediate, signed; of jal and branches: flat halfword index of the target; of jalr, loads and
                stores: the offset; of csr instructions: the CSR number; of auipc: pc + immediate (it becomes
                lui)
"""

# numba infers the types of compiled functions; shapes and units stand in their docstrings.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from . import isa
from .isa import OP
from .jit import inner, jit
from .state import F_EXECUTE, G_BASE, G_FLAGS, G_KIND, G_OFFSET, G_SIZE, K_MEMORY, X_SINK

TRANSLATED = 1 << 28

_FORMAT = np.array([0] + [row.format for row in isa.INSTRUCTIONS], dtype=np.int64)
_MATCH = np.array([0] + [row.match for row in isa.INSTRUCTIONS], dtype=np.int64)
_MASK = np.array([0] + [row.mask for row in isa.INSTRUCTIONS], dtype=np.int64)
_N = isa.N_OPS

_C_MATCH = np.array([row.match for row in isa.COMPRESSED], dtype=np.int64)
_C_MASK = np.array([row.mask for row in isa.COMPRESSED], dtype=np.int64)
_C_BASE = np.array([OP[row.base] for row in isa.COMPRESSED], dtype=np.int64)
_C_LINK = np.array([row.link for row in isa.COMPRESSED], dtype=np.int64)
_C_ILLEGAL = np.array([row.illegal for row in isa.COMPRESSED], dtype=np.int64)
_C_N = len(isa.COMPRESSED)
# Layouts: selectors of rd, rs1, rs2, sign width, number of pieces; then the pieces.
_C_LAYOUT = np.array(
    [(f.rd, f.rs1, f.rs2, f.signed, len(f.pieces)) for f in (row.layout for row in isa.COMPRESSED)],
    dtype=np.int64,
)
_C_PIECES = np.zeros((_C_N, 8, 3), dtype=np.int64)
for _i, _row in enumerate(isa.COMPRESSED):
    for _j, _piece in enumerate(_row.layout.pieces):
        _C_PIECES[_i, _j] = _piece

_JAL, _LUI, _AUIPC = OP["jal"], OP["lui"], OP["auipc"]
_BEQ, _BGEU = OP["beq"], OP["bgeu"]


@inner
def sign_extend(value, bits):
    """Two's complement reading of the low `bits` of `value`."""
    low = value & ((1 << bits) - 1)
    return low - ((low >> (bits - 1)) << bits)


@jit
def fields32(word):
    """(operation, rd, rs1, rs2, immediate) of a 32-bit word; operation 0 if no row matches."""
    rd = (word >> 7) & 31
    rs1 = (word >> 15) & 31
    rs2 = (word >> 20) & 31
    for op in range(1, _N + 1):
        if word & _MASK[op] == _MATCH[op]:
            fmt = _FORMAT[op]
            if fmt == isa.R:
                return op, rd, rs1, rs2, 0
            if fmt == isa.I:
                return op, rd, rs1, 0, sign_extend(word >> 20, 12)
            if fmt == isa.SHIFT:
                return op, rd, rs1, 0, rs2
            if fmt == isa.S:
                return op, 0, rs1, rs2, sign_extend(((word >> 20) & 0xFE0) | rd, 12)
            if fmt == isa.B:
                offset = (
                    ((word >> 19) & 0x1000) | ((word << 4) & 0x800) | ((word >> 20) & 0x7E0) | (rd & 0x1E)
                )
                return op, 0, rs1, rs2, sign_extend(offset, 13)
            if fmt == isa.U:
                return op, rd, 0, 0, sign_extend(word & 0xFFFFF000, 32)
            if fmt == isa.J:
                offset = (
                    ((word >> 11) & 0x100000)
                    | (word & 0xFF000)
                    | ((word >> 9) & 0x800)
                    | ((word >> 20) & 0x7FE)
                )
                return op, rd, 0, 0, sign_extend(offset, 21)
            if fmt == isa.CSR or fmt == isa.CSRI:
                return op, rd, rs1, 0, (word >> 20) & 0xFFF
            return op, 0, 0, 0, 0
    return 0, 0, 0, 0, 0


@inner
def _selected(word, selector, link):
    """Register number that a compressed word gives by a selector of `isa.Layout`."""
    if selector == isa.FULL:
        return (word >> 7) & 31
    if selector == isa.LOW:
        return 8 + ((word >> 2) & 7)
    if selector == isa.HIGH:
        return 8 + ((word >> 7) & 7)
    if selector == isa.SECOND:
        return (word >> 2) & 31
    if selector == isa.SP:
        return 2
    if selector == isa.LINK:
        return link
    return 0


@jit
def fields16(word):
    """As `fields32`, for a 16-bit word, in terms of the base instruction it stands for."""
    for row in range(_C_N):
        if word & _C_MASK[row] != _C_MATCH[row]:
            continue
        imm = 0
        for piece in range(_C_LAYOUT[row, 4]):
            low, width, to = _C_PIECES[row, piece]
            imm |= ((word >> low) & ((1 << width) - 1)) << to
        if _C_LAYOUT[row, 3]:
            imm = sign_extend(imm, _C_LAYOUT[row, 3])
        condition = _C_ILLEGAL[row]
        if condition == isa.ILLEGAL_IF_IMM_0 and imm == 0:
            return 0, 0, 0, 0, 0
        if condition == isa.ILLEGAL_IF_RD_0 and (word >> 7) & 31 == 0:
            return 0, 0, 0, 0, 0
        return (
            _C_BASE[row],
            _selected(word, _C_LAYOUT[row, 0], _C_LINK[row]),
            _selected(word, _C_LAYOUT[row, 1], 0),
            _selected(word, _C_LAYOUT[row, 2], 0),
            imm,
        )
    return 0, 0, 0, 0, 0


@jit
def pack(op, rd, rs1, rs2, halfwords, straddles, imm):
    """Build a predecoded word."""
    if rd == 0:
        rd = X_SINK
    return op | (rd << 8) | (rs1 << 14) | (rs2 << 19) | (halfwords << 24) | (straddles << 27) | (imm << 32)


@jit
def locate(regions, address):
    """(flat offset, region row) of an executable byte address; (-1, -1) if it cannot be executed."""
    for row in range(regions.shape[0]):
        offset = address - regions[row, G_BASE]
        if 0 <= offset < regions[row, G_SIZE]:
            if regions[row, G_KIND] == K_MEMORY and regions[row, G_FLAGS] & F_EXECUTE:
                return regions[row, G_OFFSET] + offset, row
            return -1, -1
    return -1, -1


@inner
def decode_at(mem, regions, row, index):
    """Predecoded word of the instruction at flat halfword `index`, which lies in region `row`."""
    start = regions[row, G_OFFSET]
    end = start + regions[row, G_SIZE]
    delta = regions[row, G_BASE] - start
    at = index << 1
    if at < start or at + 2 > end:
        return pack(isa.OP_FETCH_FAULT, 0, 0, 0, 1, 0, 0)
    unaligned = (at >> 1) & 1
    low = np.int64(mem[at]) | (np.int64(mem[at + 1]) << 8)
    if low & 3 != 3:
        halfwords, straddles = 1, 0
        word = low
        op, rd, rs1, rs2, imm = fields16(low)
    else:
        halfwords, straddles = 2, unaligned
        if at + 4 > end:
            return pack(isa.OP_FETCH_FAULT, 0, 0, 0, 1, 1, 2)
        word = low | (np.int64(mem[at + 2]) << 16) | (np.int64(mem[at + 3]) << 24)
        op, rd, rs1, rs2, imm = fields32(word)
    if op == 0:
        return pack(isa.OP_ILLEGAL, 0, 0, 0, halfwords, straddles, word)
    if op == _AUIPC:
        op = _LUI
        imm = sign_extend(at + delta + imm, 32)
    elif op == _JAL or _BEQ <= op <= _BGEU:
        target = at + imm
        if start <= target < end:
            imm = target >> 1
        else:
            return pack(isa.OP_FAR, rd, rs1, rs2, halfwords, straddles, imm)
    return pack(op, rd, rs1, rs2, halfwords, straddles, imm)
