"""Console and halt register: what a test program says and when it is done.

A store that drives byte lane 0 of DATA prints that byte; a store to HALT with bit 0 set ends the run. Loads
give 0.
"""

# numba infers the types of compiled functions; shapes and units stand in their docstrings.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from ..jit import inner
from ..state import S

NAME = "console"
KIND = 2
# (name, offset, access, meaning)
REGISTERS = (("DATA", 0x0, "w", "byte to print"), ("HALT", 0x8, "w", "bit 0: stop the machine"))
SIZE = 0x10

_OUT_N, _HALTED, _HALT_CODE = S["OUT_N"], S["HALTED"], S["HALT_CODE"]


@inner
def reset(st, slot, line):
    """Nothing is kept between accesses."""


@inner
def read(st, slot, offset, t):
    """(value, known register)."""
    return 0, offset < SIZE


@inner
def write(st, out, slot, offset, lanes, value, t):
    """Store one word; `lanes` has one bit for each byte written. Returns whether the register exists."""
    if offset == 0:
        if lanes & 1:
            out[st[_OUT_N]] = value & 0xFF
            st[_OUT_N] += 1
    elif offset == 8 and lanes & 1 and value & 1:
        st[_HALTED] = 1
        st[_HALT_CODE] = value & 0xFFFFFFFF
    return offset < SIZE
