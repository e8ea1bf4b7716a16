"""Loads and stores that the fast path does not take: split, outside main memory, into code, to devices."""

# numba infers the types of compiled functions; shapes and units stand in their docstrings.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from .bus import ASK, FAULT, OK, find, is_python, read_word, write_word
from .decode import TRANSLATED, sign_extend
from .isa import OP, OP_UNDECODED
from .jit import inner
from .state import G_BASE, G_KIND, G_OFFSET, K_MEMORY, S
from .timing import C_MEMORY, C_SPLIT

_M = 0xFFFFFFFF
_LB, _LH, _LW, _LBU, _LHU = (OP[n] for n in ("lb", "lh", "lw", "lbu", "lhu"))
_SH, _SW = OP["sh"], OP["sw"]
_ADDR = S["X_ADDR"]
_WATCH, _HALTED, _HALT_CODE = S["WATCH"], S["HALTED"], S["HALT_CODE"]


@inner
def load(st, mem, regions, op, address, t):
    """(value, status, mtval, device, cycles) of a load whose first cycle is `t`.

    A word at offset 1-3 or a half at offset 3 takes two transactions. Both are always made; if the first
    fails, mtval is the address itself, if only the second fails, the address of the second word.
    """
    offset = address & 3
    first = address - offset
    size = 4 if op == _LW else (2 if op in (_LH, _LHU) else 1)
    lanes = ((1 << size) - 1) << offset
    value, status = read_word(st, mem, regions, first, lanes & 15, 0, t)
    tval = address
    cycles = C_MEMORY
    value >>= 8 * offset
    second = (first + 4) & _M
    row = find(regions, first)
    device = row >= 0 and regions[row, G_KIND] != K_MEMORY
    if offset + size > 4 and status != ASK:
        cycles = C_SPLIT
        high, other = read_word(st, mem, regions, second, lanes >> 4, 1, t + 1)
        row = find(regions, second)
        device = device or (row >= 0 and regions[row, G_KIND] != K_MEMORY)
        value |= high << (8 * (4 - offset))
        if other == ASK:
            status = ASK
        elif other == FAULT and status == OK:
            status = FAULT
            tval = second
    if op == _LB:
        value = sign_extend(value, 8)
    elif op == _LBU:
        value &= 0xFF
    elif op == _LH:
        value = sign_extend(value, 16)
    elif op == _LHU:
        value &= 0xFFFF
    else:
        value = sign_extend(value, 32)
    return value, status, tval, device, cycles


@inner
def forget_code(st, code, codemap, regions, address):
    """Drop what was predecoded from the word at `address`. Returns whether it was translated code."""
    row = find(regions, address)
    if row < 0 or regions[row, G_KIND] != K_MEMORY:
        return False
    index = (regions[row, G_OFFSET] + address - regions[row, G_BASE]) >> 1
    hit = False
    for at in range(max(index - 1, 0), index + 2):  # a 32-bit instruction may start one halfword before
        word = code[at]
        if word & 0xFF == OP_UNDECODED:
            continue
        if at < index and (word >> 24) & 3 == 1:
            continue
        if word & TRANSLATED:
            hit = True
            st[_ADDR] = index  # for `blocks.Translator.overwritten`
        else:
            code[at] = OP_UNDECODED
    return hit


@inner
def store(st, mem, out, code, codemap, regions, op, address, value, t):
    """(status, mtval, device, translated code hit, cycles) of a store whose first cycle is `t`; see `load`.

    When a split store fails in one half, the other half is written all the same, as on the bus of Ibex.
    """
    offset = address & 3
    first = address - offset
    second = (first + 4) & _M
    size = 4 if op == _SW else (2 if op == _SH else 1)
    lanes = ((1 << size) - 1) << offset
    split = offset + size > 4
    rotated = ((value << (8 * offset)) | (value >> (32 - 8 * offset))) & _M
    if (
        split
        and is_python(regions, second)
        and not is_python(regions, first)
        # ask Python first, so that nothing is written twice when the instruction runs again
        and write_word(st, mem, out, regions, second, lanes >> 4, rotated, 1, t + 1) == ASK
    ):
        return ASK, address, True, False, C_SPLIT
    status = write_word(st, mem, out, regions, first, lanes & 15, rotated, 0, t)
    tval = address
    cycles = C_MEMORY
    row = find(regions, first)
    device = row >= 0 and regions[row, G_KIND] != K_MEMORY
    hit = forget_code(st, code, codemap, regions, first)
    if split and status != ASK:
        cycles = C_SPLIT
        other = write_word(st, mem, out, regions, second, lanes >> 4, rotated, 1, t + 1)
        row = find(regions, second)
        device = device or (row >= 0 and regions[row, G_KIND] != K_MEMORY)
        hit = forget_code(st, code, codemap, regions, second) or hit
        if other == ASK:
            status = ASK
        elif other == FAULT and status == OK:
            status = FAULT
            tval = second
    if (
        status == OK
        and st[_WATCH] >= 0
        and (first == st[_WATCH] or (split and second == st[_WATCH]))
        and value
    ):
        st[_HALTED] = 2
        st[_HALT_CODE] = value
    return status, tval, device, hit, cycles
