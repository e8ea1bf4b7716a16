"""Table 3: the data bus. What answers at an address is a row of the region table, made from
`memory_map.toml`.

Every access is one or two word transactions, each in its own cycle (request in cycle t, response in t + 1),
with one lane bit for each byte. Memory that the fast path of the loop did not take, devices and faults come
through here. A region row is (base, size, flat offset, flags, kind, state word of the device), all integers.
"""

# numba infers the types of compiled functions; shapes and units stand in their docstrings.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from .devices import console, gpio, timer
from .jit import inner, jit
from .state import (
    F_READ,
    F_WRITE,
    G_BASE,
    G_FLAGS,
    G_KIND,
    G_OFFSET,
    G_SIZE,
    G_SLOT,
    K_MEMORY,
    K_PYTHON,
    NEVER,
    S,
)

_READY, _RESULT0, _FAULT = S["X_READY"], S["X_RESULT0"], S["X_FAULT"]
_ADDR, _WRITE, _SIZE, _VALUE = S["X_ADDR"], S["X_WRITE"], S["X_SIZE"], S["X_VALUE"]
_M = 0xFFFFFFFF
OK, FAULT, ASK = 0, 1, 2


@inner
def find(regions, address):
    """Row of the region that holds `address`, or -1."""
    for row in range(regions.shape[0]):
        if 0 <= address - regions[row, G_BASE] < regions[row, G_SIZE]:
            return row
    return -1


@inner
def read_word(st, mem, regions, address, lanes, part, t):
    """(value, status) of the word at the aligned `address` in cycle `t`; `part` 0 or 1 of a split access."""
    row = find(regions, address)
    if row < 0 or not regions[row, G_FLAGS] & F_READ:
        return 0, FAULT
    offset = address - regions[row, G_BASE]
    kind = regions[row, G_KIND]
    if kind == K_MEMORY:
        at = regions[row, G_OFFSET] + offset
        low = np.int64(mem[at]) | np.int64(mem[at + 1]) << 8
        return low | np.int64(mem[at + 2]) << 16 | np.int64(mem[at + 3]) << 24, OK
    if kind == K_PYTHON:
        if st[_READY] & (1 << part):
            return st[_RESULT0 + part], FAULT if st[_FAULT] & (1 << part) else OK
        st[_ADDR], st[_WRITE], st[_SIZE], st[_VALUE] = address, part << 1, lanes, 0
        return 0, ASK
    if kind == console.KIND:
        value, known = console.read(st, regions[row, G_SLOT], offset, t)
    elif kind == timer.KIND:
        value, known = timer.read(st, regions[row, G_SLOT], offset, t)
    elif kind == gpio.KIND:
        value, known = gpio.read(st, regions[row, G_SLOT], offset, t)
    else:
        value, known = 0, False
    return value, OK if known else FAULT


@inner
def write_word(st, mem, out, regions, address, lanes, value, part, t):
    """Status of storing the lanes of `value` to the word at the aligned `address` in cycle `t`."""
    row = find(regions, address)
    if row < 0 or not regions[row, G_FLAGS] & F_WRITE:
        return FAULT
    offset = address - regions[row, G_BASE]
    kind = regions[row, G_KIND]
    if kind == K_MEMORY:
        at = regions[row, G_OFFSET] + offset
        for lane in range(4):
            if lanes & (1 << lane):
                mem[at + lane] = np.uint8((value >> (8 * lane)) & 0xFF)
        return OK
    if kind == K_PYTHON:
        if st[_READY] & (1 << part):
            return FAULT if st[_FAULT] & (1 << part) else OK
        st[_ADDR], st[_WRITE], st[_SIZE], st[_VALUE] = address, 1 | part << 1, lanes, value & _M
        return ASK
    known = False
    if kind == console.KIND:
        known = console.write(st, out, regions[row, G_SLOT], offset, lanes, value & _M, t)
    elif kind == timer.KIND:
        known = timer.write(st, out, regions[row, G_SLOT], offset, lanes, value & _M, t)
    elif kind == gpio.KIND:
        known = gpio.write(st, out, regions[row, G_SLOT], offset, lanes, value & _M, t)
    return OK if known else FAULT


@inner
def is_python(regions, address):
    """Whether a device written in Python answers at `address`."""
    row = find(regions, address)
    return row >= 0 and regions[row, G_KIND] == K_PYTHON


@jit
def reset_devices(st, regions):
    """Put every hot device into its reset state; its flags hold the interrupt line in bits 8-15."""
    for row in range(regions.shape[0]):
        kind, slot, line = regions[row, G_KIND], regions[row, G_SLOT], (regions[row, G_FLAGS] >> 8) & 0xFF
        if kind == console.KIND:
            console.reset(st, slot, line)
        elif kind == timer.KIND:
            timer.reset(st, slot, line)
        elif kind == gpio.KIND:
            gpio.reset(st, slot, line)


@jit
def no_lines(st):
    """All interrupt lines low."""
    for line in range(32):
        st[S_LINES + line] = NEVER


S_LINES = S["LINES"]
