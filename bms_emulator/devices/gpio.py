"""Outputs to contactors, cooling and balancing switches.

The contactors' feedback comes with the sample of the analogue front end.
"""

# numba infers the types of compiled functions; shapes and units stand in their docstrings.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from ..jit import inner
from .timer import merge

NAME = "gpio"
KIND = 4
REGISTERS = (
    ("CONTACTORS", 0x00, "rw", "bit 0 main minus, 1 precharge, 2 main plus"),
    ("COOLING", 0x04, "rw", "duty of the coolant pump, percent"),
    ("CHANGED", 0x08, "r", "low word of the cycle in which CONTACTORS last changed"),
    ("BALANCING", 0x20, "rw", "eight words, one bit for each cell"),
)
SIZE = 0x40

# State words: as the registers, one word for each
_CONTACTORS, _COOLING, CHANGED, _BALANCING = 0, 1, 2, 8
_M = 0xFFFFFFFF


@inner
def reset(st, slot, line):
    """All switches open; what the outputs did is remembered until the board is powered off."""
    for word in range(16):
        st[slot + word] = 0


@inner
def read(st, slot, offset, t):
    """(value, known register)."""
    if offset == 8:
        return st[slot + CHANGED] & _M, True
    return st[slot + (offset >> 2)], offset < SIZE


@inner
def write(st, out, slot, offset, lanes, value, t):
    """Store one word; returns whether the register exists."""
    if offset >= SIZE or offset == 8:
        return False
    at = slot + (offset >> 2)
    new = merge(st[at], value, lanes)
    if offset == 0 and new != st[at]:
        st[slot + CHANGED] = t
    st[at] = new
    return True
