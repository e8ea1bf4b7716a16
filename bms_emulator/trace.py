"""Traces as CSV: what retired when, and what was read from and written to devices.

The instruction trace has the columns of the RTL reference traces (mtime_end, pc, insn): the cycle in which the
instruction left decode/execute (for those that flush the pipeline: the one before the flush), its address, and its
encoding with 4 or 8 hex digits. The access trace has cycle, pc, access, address, value.

Both are formatted by compiled code into a byte buffer: a line costs about as much as the instruction itself.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from .jit import inner, jit
from .state import L_INSTRUCTION, L_LOAD, LOG_COLUMNS

INSTRUCTION_HEADER = b"mtime_end,pc,insn\n"
ACCESS_HEADER = b"cycle,pc,access,address,value\n"
ROWS = 1 << 15
_LINE = 64  # longest line: 20 digits, three 8-digit words, separators
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)


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
def format_rows(log, n, instructions, text):
    """Write the rows of one kind (instructions or accesses) of the log as lines; returns the number of bytes."""
    at = 0
    for i in range(n):
        kind = log[i, 0]
        if (kind == L_INSTRUCTION) != instructions:
            continue
        at = _put_decimal(text, at, log[i, 1])
        text[at] = 44
        at = _put_hex(text, at + 1, log[i, 2], 8)
        text[at] = 44
        at += 1
        if instructions:
            at = _put_hex(text, at, log[i, 3], 8 if log[i, 3] & 3 == 3 else 4)
        else:
            text[at] = 114 if kind == L_LOAD else 119  # r, w
            text[at + 1] = 44
            at = _put_hex(text, at + 2, log[i, 3], 8)
            text[at] = 44
            at = _put_hex(text, at + 1, log[i, 4], 8)
        text[at] = 10
        at += 1
    return at


class TraceWriter:
    """Takes the log of the loop and writes it to one or two open binary files."""

    def __init__(self, instructions: BinaryIO | None = None, accesses: BinaryIO | None = None) -> None:
        self.instructions = instructions
        self.accesses = accesses
        self._text = np.zeros(ROWS * _LINE, dtype=np.uint8)
        if instructions is not None:
            instructions.write(INSTRUCTION_HEADER)
        if accesses is not None:
            accesses.write(ACCESS_HEADER)

    def write(self, log: npt.NDArray[np.int64], n: int) -> None:
        """Append the first `n` rows of `log`, shape (>= n, LOG_COLUMNS)."""
        assert log.shape[1] == LOG_COLUMNS and n <= ROWS
        for file, is_instruction in ((self.instructions, True), (self.accesses, False)):
            if file is not None:
                size = format_rows(log, n, is_instruction, self._text)
                file.write(self._text[:size].data)
