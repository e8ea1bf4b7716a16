"""Traces as CSV: what retired when, and what was read from and written to devices.

The instruction trace has the columns of the RTL reference traces (mtime_end, pc, insn): the cycle in which
the instruction left decode/execute (for those that flush the pipeline: the one before the flush), its
address, and its encoding with 4 or 8 hex digits. The access trace has cycle, pc, access, address, value.

Both are formatted by compiled code into a byte buffer: a line costs about as much as the instruction itself.
"""

# numba infers the types of compiled functions; shapes and units stand in their docstrings.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from .jit import inner, jit
from .state import L_INSTRUCTION, L_LOAD, LOG_COLUMNS

INSTRUCTION_HEADER = b"mtime_end,pc,insn\n"
ACCESS_HEADER = b"cycle,pc,access,address,value\n"
ROWS = 1 << 13
_LINE = 64  # longest line: 20 digits, three 8-digit words, separators
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
# Lines repeat: the last 18 bytes of the line of an instruction are kept by address. A row of the cache is the
# address and the encoding, its length, and the text, in bytes.
_KEPT = 1 << 12
_TAIL = 24


@inner
def _put_hex(text, at, value, digits):
    for i in range(digits):
        text[at + digits - 1 - i] = _HEX[value & 15]
        value >>= 4
    return at + digits


@inner
def _put_decimal(text, at, value):
    end = at + 1
    rest = value
    while rest >= 10:
        rest //= 10
        end += 1
    for i in range(end - at):
        text[end - 1 - i] = 48 + value % 10
        value //= 10
    return end


@jit
def format_rows(log, n, instructions, text, keys, tails):
    """Write the rows of one kind (instructions or accesses) of the log as lines; returns the number of bytes.

    log : (>= n, LOG_COLUMNS) int64; text : uint8, room for n lines
    keys : (_KEPT, 3) int64 and tails : (_KEPT, _TAIL) uint8, the cache of formatted instructions
    """
    at = 0
    head = -1  # time without its last four digits, and where its text stands
    head_at, head_size = 0, 0
    for i in range(n):
        kind = log[i, 0]
        if (kind == L_INSTRUCTION) != instructions:
            continue
        t = log[i, 1]
        above = t // 10000
        if above == head and above > 0:
            for j in range(head_size):
                text[at + j] = text[head_at + j]
            head_at = at
            at += head_size
        elif above > 0:
            head, head_at = above, at
            at = _put_decimal(text, at, above)
            head_size = at - head_at
        if above > 0:
            low = t - above * 10000
            high = low // 100
            low -= high * 100
            text[at] = 48 + high // 10
            text[at + 1] = 48 + high % 10
            text[at + 2] = 48 + low // 10
            text[at + 3] = 48 + low % 10
            at += 4
        else:
            at = _put_decimal(text, at, t)
        if not instructions:
            text[at] = 44
            at = _put_hex(text, at + 1, log[i, 2], 8)
            text[at] = 44
            text[at + 1] = 114 if kind == L_LOAD else 119  # r, w
            text[at + 2] = 44
            at = _put_hex(text, at + 3, log[i, 3], 8)
            text[at] = 44
            at = _put_hex(text, at + 1, log[i, 4], 8)
            text[at] = 10
            at += 1
            continue
        pc, raw = log[i, 2], log[i, 3]
        slot = (pc >> 1) & (_KEPT - 1)
        if keys[slot, 0] != pc or keys[slot, 1] != raw:
            keys[slot, 0] = pc
            keys[slot, 1] = raw
            tail = tails[slot]
            tail[0] = 44
            end = _put_hex(tail, 1, pc, 8)
            tail[end] = 44
            end = _put_hex(tail, end + 1, raw, 8 if raw & 3 == 3 else 4)
            tail[end] = 10
            keys[slot, 2] = end + 1
        for j in range(_TAIL):
            text[at + j] = tails[slot, j]
        at += keys[slot, 2]
    return at


class TraceWriter:
    """Takes the log of the loop and writes it to one or two open binary files."""

    def __init__(self, instructions: BinaryIO | None = None, accesses: BinaryIO | None = None) -> None:
        self.instructions = instructions
        self.accesses = accesses
        self._text = np.zeros((ROWS + 1) * _LINE, dtype=np.uint8)
        self._keys = np.full((_KEPT, 3), -1, dtype=np.int64)
        self._tails = np.zeros((_KEPT, _TAIL), dtype=np.uint8)
        if instructions is not None:
            instructions.write(INSTRUCTION_HEADER)
        if accesses is not None:
            accesses.write(ACCESS_HEADER)

    def write(self, log: npt.NDArray[np.int64], n: int) -> None:
        """Append the first `n` rows of `log`, shape (>= n, LOG_COLUMNS)."""
        assert log.shape[1] == LOG_COLUMNS
        assert n <= ROWS
        for file, is_instruction in ((self.instructions, True), (self.accesses, False)):
            if file is not None:
                size = format_rows(log, n, is_instruction, self._text, self._keys, self._tails)
                file.write(self._text[:size].data)
