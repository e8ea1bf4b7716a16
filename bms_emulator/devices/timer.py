"""Machine timer: 64-bit mtime that counts every clock, 64-bit mtimecmp, one interrupt line.

The interrupt is a flop. It becomes 1 in the cycle after the one in which mtime >= mtimecmp, stays 1 until
either half of mtimecmp is written, and is 0 for at least one cycle after that write. mtimecmp resets to 0, so
the line is high from the first cycle on. A load gives mtime of its first cycle; a store acts at the end of
its first cycle.
"""

# numba infers the types of compiled functions; shapes and units stand in their docstrings.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from ..jit import inner
from ..state import NEVER, S
from ..timing import RESET_CYCLE

NAME = "timer"
KIND = 3
REGISTERS = (
    ("MTIME", 0x0, "rw", "time in clocks, low word"),
    ("MTIMEH", 0x4, "rw", "time in clocks, high word"),
    ("MTIMECMP", 0x8, "rw", "compare, low word; any write lowers the line"),
    ("MTIMECMPH", 0xC, "rw", "compare, high word; any write lowers the line"),
)
SIZE = 0x10

# State words of this device
_OFFSET, _COMPARE, _LINE = 0, 1, 2
_T, _LINES = S["T"], S["LINES"]
_M = np.int64(0xFFFFFFFF)


@inner
def _due(mtime, compare, t):
    """Cycle in which the line rises when mtime is `mtime` in cycle `t` and the flop is 0 then."""
    if np.uint64(mtime) >= np.uint64(compare):
        return t + 1
    wait = np.uint64(compare) - np.uint64(mtime)
    if wait >= np.uint64(NEVER) - np.uint64(t) - np.uint64(2):
        return NEVER
    return t + np.int64(wait) + 1


@inner
def reset(st, slot, line):
    """State after reset; st[T] holds the cycle of the first instruction, `line` the bit of mip to drive."""
    start = st[_T] - RESET_CYCLE
    st[slot + _OFFSET] = -start
    st[slot + _COMPARE] = 0
    st[slot + _LINE] = line
    st[_LINES + line] = start + 1


@inner
def read(st, slot, offset, t):
    """(value of the word, known register)."""
    mtime = t + st[slot + _OFFSET]
    if offset == 0:
        return mtime & _M, True
    if offset == 4:
        return (mtime >> 32) & _M, True
    if offset == 8:
        return st[slot + _COMPARE] & _M, True
    if offset == 12:
        return (st[slot + _COMPARE] >> 32) & _M, True
    return 0, False


@inner
def merge(old, value, lanes):
    """`old` with the bytes of `value` whose lane is set."""
    mask = 0
    for lane in range(4):
        if lanes & (1 << lane):
            mask |= 0xFF << (8 * lane)
    return (old & ~mask) | (value & mask)


@inner
def write(st, out, slot, offset, lanes, value, t):
    """Store one word; `lanes` has one bit for each byte written. Returns whether the register exists."""
    at = _LINES + st[slot + _LINE]
    now = t + st[slot + _OFFSET]
    after = now + 1
    if offset == 0:
        new = (after & ~_M) | merge(now & _M, value, lanes)
    elif offset == 4:
        new = (after & _M) | (merge((now >> 32) & _M, value, lanes) << 32)
    elif offset == 8 or offset == 12:
        compare = st[slot + _COMPARE]
        if offset == 8:
            compare = (compare & ~_M) | merge(compare & _M, value, lanes)
        else:
            compare = (compare & _M) | (merge((compare >> 32) & _M, value, lanes) << 32)
        st[slot + _COMPARE] = compare
        st[at] = _due(after, compare, t + 1)  # the flop is 0 in cycle t + 1 and looks at mtime of that cycle
        return True
    else:
        return False
    st[slot + _OFFSET] = new - (t + 1)
    if st[at] > t + 1:  # not yet risen with the old time
        st[at] = _due(new, st[slot + _COMPARE], t + 1)
    return True
