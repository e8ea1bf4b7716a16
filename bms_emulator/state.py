"""Layout of the machine state: one flat int64 array, so that a snapshot is one copy.

Words 0-16 are the registers seen as int32 (x0-x31, and a sink that takes every write to x0). Then follow the
words named here, then `SLOTS` words for each device. Everything before `CANON_END` and all device words are
*state*: equal runs have equal words there. The words from `CANON_END` to `DEVICES` only carry messages
between the loop and Python. Cycles are counted from reset; `NEVER` is later than any run."""

from __future__ import annotations

NEVER = 1 << 61

X_SINK = 32  # register number that x0 is written to
_names = [
    "T",
    "PC",
    "INSTRET",
    "KEY",
    "BUBBLE_T",
    "BUBBLE_END",
    "ASLEEP",
    "SLEEP_T",
    "SLEEP_MCYCLE",
    "PRIV",
    "MSTATUS",
    "MIE",
    "MTVEC",
    "MSCRATCH",
    "MEPC",
    "MCAUSE",
    "MTVAL",
    "MCOUNTINHIBIT",
    "CPUCTRL",
    "MCYCLE_OFF",
    "MCYCLE_FROZEN",
    "MINSTRET_OFF",
    "MINSTRET_FROZEN",
    "HALTED",
    "HALT_CODE",
    "MTVEC_DIRECT",
    "HARTID",
    "FAULT_PC",
]
_first = 17
S = {name: _first + i for i, name in enumerate(_names)}
S["LINES"] = _first + len(
    _names
)  # 32 words: cycle since which interrupt line i (bit i of mip) is high, or NEVER
CANON_END = S["LINES"] + 32
_messages = [
    "REASON",
    "X_PC",
    "X_ADDR",
    "X_WRITE",
    "X_SIZE",
    "X_VALUE",
    "X_READY",
    "X_RESULT0",
    "X_RESULT1",
    "X_FAULT",
    "OUT_N",
    "LOG_N",
    "WATCH",
    "BUDGET",
    "PREV_T",
    "PREV_IP",
    "CAUSE",
    "TVAL",
    "BLOCK_CALLS",
    "TRAPS",
]
S |= {name: CANON_END + i for i, name in enumerate(_messages)}
DEVICES = CANON_END + len(_messages) + 1
SLOTS = 16  # words for each hot device
MAX_DEVICES = 16
SIZE = DEVICES + SLOTS * MAX_DEVICES

# Why the loop came back.
(
    R_CYCLES,  # the cycle to stop at is reached
    R_HALT,  # the program stored to the halt register or to tohost
    R_STOP,  # breakpoint
    R_MMIO,  # an access for a device written in Python
    R_LOG,  # trace buffer full
    R_OUT,  # console buffer full
    R_BUDGET,  # number of instructions reached
    R_CODE,  # translated code was overwritten
    R_LOCKUP,  # a trap whose handler cannot be reached
) = range(9)

# Bits of the mode
M_TRACE, M_PROFILE, M_BUDGET, M_MMIO, M_BLOCKS, M_LOCKUP = 1, 2, 4, 8, 16, 32
# These make the loop look at every instruction.
M_SLOW = M_PROFILE | M_BUDGET

# mstatus bits that exist
MIE, MPIE, MPP, MPRV, TW = 1 << 3, 1 << 7, 3 << 11, 1 << 17, 1 << 21
# Columns of the region table
G_BASE, G_SIZE, G_OFFSET, G_FLAGS, G_KIND, G_SLOT = range(6)
F_READ, F_WRITE, F_EXECUTE = 1, 2, 4
# Kinds of region; devices/ adds one number each
K_MEMORY = 0
K_PYTHON = 1
# Columns of the log buffer: kind, cycle, pc, word or address, value
LOG_COLUMNS = 5
L_INSTRUCTION, L_LOAD, L_STORE, L_TRAP = range(4)
# One byte of the code map covers this many bytes of memory (a power of two).
GRANULE_BITS = 6
