"""Layout of the machine state: one flat int64 array, so that a snapshot is one copy.

Words 0-16 are the registers seen as int32 (x0-x31, and a sink that takes every write to x0). Then follow the
words named here, then `SLOTS` words for each device. Everything before `CANON_END` and all device words are
*state*: equal runs have equal words there. The words from `CANON_END` to `DEVICES` only carry messages
between the loop and Python. Cycles are counted from reset; `NEVER` is later than any run.
"""

from __future__ import annotations

NEVER = 1 << 61

X_SINK = 32  # register number that x0 is written to
_STATE = (
    ("T", "cycle of entry of the next instruction; while asleep, the cycle slept up to"),
    ("PC", "its address"),
    ("INSTRET", "instructions retired since reset"),
    ("KEY", "fetch buffer key of the last redirection, see core.py"),
    ("BUBBLE_T", "T if the last instruction left bubbles behind it, else -1"),
    ("BUBBLE_END", "then: first cycle with an empty decode stage"),
    ("ASLEEP", "1 in wfi"),
    ("SLEEP_T", "first cycle of that wfi"),
    ("SLEEP_MCYCLE", "cycles that mcycle advances over it"),
    ("PRIV", "3 machine, 0 user"),
    ("MSTATUS", "and the following: the CSRs, as they read"),
    *(
        (name, "")
        for name in ("MIE", "MTVEC", "MSCRATCH", "MEPC", "MCAUSE", "MTVAL", "MCOUNTINHIBIT", "CPUCTRL")
    ),
    ("MCYCLE_OFF", "mcycle minus cycle"),
    ("MCYCLE_FROZEN", "mcycle while inhibited"),
    ("MINSTRET_OFF", "minstret minus INSTRET"),
    ("MINSTRET_FROZEN", "minstret while inhibited"),
    ("HALTED", "1 by the halt register, 2 by tohost"),
    ("HALT_CODE", "the word stored there"),
    ("MTVEC_DIRECT", "1: mtvec takes any 4-byte aligned base, all traps go there"),
    ("HARTID", "mhartid"),
    ("FAULT_PC", "PC outside executable memory, while the fetch fault is pending"),
)
_first = 17
S = {name: _first + i for i, (name, _) in enumerate(_STATE)}
S["LINES"] = _first + len(_STATE)  # 32 words: cycle since which line i (bit i of mip) is high, or NEVER
CANON_END = S["LINES"] + 32
_MESSAGES = (
    ("REASON", "why the loop came back"),
    ("X_PC", "breakpoint to run over once, or -1"),
    ("X_ADDR", "address of the access that Python must serve; flat halfword of a store into translated code"),
    ("X_WRITE", "bit 0 store, bit 1 second word of a split access"),
    ("X_SIZE", "lanes"),
    ("X_VALUE", "word to store"),
    ("X_READY", "bit p: the answer for part p is there"),
    ("X_RESULT0", "answer for part 0"),
    ("X_RESULT1", "answer for part 1"),
    ("X_FAULT", "bit p: part p is an access fault"),
    ("OUT_N", "console bytes not yet taken"),
    ("LOG_N", "log rows not yet taken"),
    ("WATCH", "address of tohost, or -1"),
    ("BUDGET", "instructions still to run"),
    ("PREV_T", "cycle of entry of the instruction being profiled"),
    ("PREV_IP", "its flat halfword, or -1"),
    ("CAUSE", "cause of the last exception that was not raised in the handler of another"),
    ("TRAP_PC", "its address"),
    ("BLOCK_CALLS", "entries into translated code"),
    ("TRAPS", "traps taken"),
)
S |= {name: CANON_END + i for i, (name, _) in enumerate(_MESSAGES)}
DEVICES = CANON_END + len(_MESSAGES)
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
L_INSTRUCTION, L_LOAD, L_STORE = range(3)
# One byte of the code map covers this many bytes of memory (a power of two).
GRANULE_BITS = 6
