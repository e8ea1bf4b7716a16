"""Control and status registers of Ibex 'small': which exist, what can be written, and the exact counters.

The configuration has no PMP, no debug triggers, no hardware performance counters (mhpmcounter and mhpmevent
exist and read 0), no Zicntr. Everything not listed in `CSRS` is an illegal instruction, as is any access from
user mode to a machine CSR, or a write to a read-only number.

Counters. mcycle counts clocks of the gated core clock: it is kept as an offset to the cycle number, changed
by writes and by sleep. A write takes effect at the end of the instruction's first cycle and replaces that
cycle's increment. minstret counts what retires and is kept as an offset to the number of retired
instructions; an instruction that writes it is not counted. mcountinhibit acts one cycle later than it is
written, so the instruction that sets IR still counts and the one that clears it does not.
"""

# numba infers the types of compiled functions; shapes and units stand in their docstrings.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from .jit import inner, jit
from .state import MIE, MPIE, MPP, MPRV, TW, S

# Rows: (number, name, bits that a write can change, meaning). 'special' rows are handled by name below.
CSRS: tuple[tuple[int, str, str], ...] = (
    (0x300, "mstatus", "MIE, MPIE, MPP (M or U), MPRV, TW"),
    (0x301, "misa", "fixed: RV32IMCU"),
    (0x304, "mie", "software 3, timer 7, external 11, fast 16-30"),
    (0x305, "mtvec", "base aligned to 256 bytes, mode fixed to vectored"),
    (0x306, "mcounteren", "reads 0"),
    (0x30A, "menvcfg", "reads 0"),
    (0x310, "mstatush", "reads 0"),
    (0x31A, "menvcfgh", "reads 0"),
    (0x320, "mcountinhibit", "bits 0 (mcycle) and 2 (minstret)"),
    (0x340, "mscratch", "all"),
    (0x341, "mepc", "bit 0 reads 0"),
    (0x342, "mcause", "bit 31 and bits 4-0"),
    (0x343, "mtval", "all"),
    (0x344, "mip", "the lines themselves; not writable"),
    (0x7C0, "cpuctrlsts", "sync_exc_seen (6), double_fault_seen (7)"),
    (0x7C1, "secureseed", "reads 0"),
    (0xB00, "mcycle", "all"),
    (0xB02, "minstret", "all"),
    (0xB80, "mcycleh", "all"),
    (0xB82, "minstreth", "all"),
    (0xF11, "mvendorid", "read only, 0"),
    (0xF12, "marchid", "read only, 22"),
    (0xF13, "mimpid", "read only, 0"),
    (0xF14, "mhartid", "read only"),
    (0xF15, "mconfigptr", "read only, 0"),
)
NAMES = {number: name for number, name, _ in CSRS}
NAMES |= {0x320 + i: f"mhpmevent{i}" for i in range(3, 32)}
NAMES |= {0xB00 + i: f"mhpmcounter{i}" for i in range(3, 32)}
NAMES |= {0xB80 + i: f"mhpmcounter{i}h" for i in range(3, 32)}
NUMBERS = {name: number for number, name in NAMES.items()}

MISA = (1 << 30) | (1 << 20) | (1 << 12) | (1 << 8) | (1 << 2)
MARCHID = 22
IRQ_MASK = (1 << 3) | (1 << 7) | (1 << 11) | (0x7FFF << 16)
MSTATUS_RESET = MPIE  # MPP = user
_STATUS_MASK = MIE | MPIE | MPP | MPRV | TW
_M = 0xFFFFFFFF

_LINES, _PRIV, _STATUS, _MIE = S["LINES"], S["PRIV"], S["MSTATUS"], S["MIE"]
_MTVEC, _MSCRATCH, _MEPC = S["MTVEC"], S["MSCRATCH"], S["MEPC"]
_MCAUSE, _MTVAL, _INHIBIT, _CPUCTRL = S["MCAUSE"], S["MTVAL"], S["MCOUNTINHIBIT"], S["CPUCTRL"]
_CYC_OFF, _CYC_FROZEN = S["MCYCLE_OFF"], S["MCYCLE_FROZEN"]
_RET_OFF, _RET_FROZEN = S["MINSTRET_OFF"], S["MINSTRET_FROZEN"]
_DIRECT, _HARTID = S["MTVEC_DIRECT"], S["HARTID"]


@inner
def mip(st, t):
    """Interrupt lines that are high in cycle `t`, as the mip register shows them."""
    pending = 0
    for line in range(32):
        if st[_LINES + line] <= t:
            pending |= 1 << line
    return pending & IRQ_MASK


@jit
def mcycle(st, t):
    """64-bit mcycle as an instruction in its first cycle `t` reads it."""
    if st[_INHIBIT] & 1:
        return st[_CYC_FROZEN]
    return t + st[_CYC_OFF]


@inner
def minstret(st, retired):
    """64-bit minstret as the next instruction reads it, `retired` instructions after reset."""
    if st[_INHIBIT] & 4:
        return st[_RET_FROZEN]
    return retired + st[_RET_OFF]


@jit
def exists(number):
    """Whether the CSR is there."""
    if number == 0x300 or number == 0x301 or 0x304 <= number <= 0x306 or number == 0x30A or number == 0x310:
        return True
    if number == 0x31A or number == 0x320 or 0x323 <= number <= 0x344:
        return True
    if number == 0x7C0 or number == 0x7C1 or 0xF11 <= number <= 0xF15:
        return True
    if (number & 0xF60) == 0xB00:  # mcycle, minstret, mhpmcounter3-31 and their upper halves
        return (number & 0x1F) != 1
    return False


@jit
def csr_read(st, number, t, retired):
    """Value of an existing CSR for an instruction in its first cycle `t` with `retired` before it."""
    if number == 0x300:
        return st[_STATUS]
    if number == 0x301:
        return MISA
    if number == 0x304:
        return st[_MIE]
    if number == 0x305:
        return st[_MTVEC]
    if number == 0x320:
        return st[_INHIBIT]
    if number == 0x340:
        return st[_MSCRATCH]
    if number == 0x341:
        return st[_MEPC]
    if number == 0x342:
        return st[_MCAUSE]
    if number == 0x343:
        return st[_MTVAL]
    if number == 0x344:
        return mip(st, t)
    if number == 0x7C0:
        return st[_CPUCTRL]
    if number == 0xB00:
        return mcycle(st, t) & _M
    if number == 0xB80:
        return (mcycle(st, t) >> 32) & _M
    if number == 0xB02:
        return minstret(st, retired) & _M
    if number == 0xB82:
        return (minstret(st, retired) >> 32) & _M
    if number == 0xF12:
        return MARCHID
    if number == 0xF14:
        return st[_HARTID]
    return 0


@jit
def csr_write(st, number, value, t, retired):
    """Write an existing, writable CSR; what cannot be changed stays."""
    if number == 0x300:
        value &= _STATUS_MASK
        if value & MPP != MPP:  # only machine and user mode exist
            value &= ~MPP
        st[_STATUS] = value
    elif number == 0x304:
        st[_MIE] = value & IRQ_MASK
    elif number == 0x305:
        st[_MTVEC] = value & 0xFFFFFFFC if st[_DIRECT] else (value & 0xFFFFFF00) | 1
    elif number == 0x320:
        new, old = value & 5, st[_INHIBIT]
        if new & 1 and not old & 1:
            st[_CYC_FROZEN] = t + 1 + st[_CYC_OFF]
        elif old & 1 and not new & 1:
            st[_CYC_OFF] = st[_CYC_FROZEN] - (t + 1)
        if new & 4 and not old & 4:
            st[_RET_FROZEN] = retired + 1 + st[_RET_OFF]
        elif old & 4 and not new & 4:
            st[_RET_OFF] = st[_RET_FROZEN] - (retired + 1)
        st[_INHIBIT] = new
        if new & 1 == 0:
            st[_CYC_FROZEN] = 0
        if new & 4 == 0:
            st[_RET_FROZEN] = 0
    elif number == 0x340:
        st[_MSCRATCH] = value
    elif number == 0x341:
        st[_MEPC] = value & 0xFFFFFFFE
    elif number == 0x342:
        # An interrupt that is 'internal' to Ibex (bits 31 and 30 set) shows all of bits 30-5 as ones.
        top = value >> 30
        st[_MCAUSE] = (value & 31) | (0x80000000 if top == 2 else (0xFFFFFFE0 if top == 3 else 0))
    elif number == 0x343:
        st[_MTVAL] = value
    elif number == 0x7C0:
        st[_CPUCTRL] = value & 0xC0
    elif number == 0xB00 or number == 0xB80:
        old = mcycle(st, t)
        new = (old & ~np.int64(_M)) | value if number == 0xB00 else (old & _M) | (value << 32)
        if st[_INHIBIT] & 1:
            st[_CYC_FROZEN] = new
        else:
            st[_CYC_OFF] = new - (t + 1)
    elif number == 0xB02 or number == 0xB82:
        old = minstret(st, retired)
        new = (old & ~np.int64(_M)) | value if number == 0xB02 else (old & _M) | (value << 32)
        if st[_INHIBIT] & 4:
            st[_RET_FROZEN] = new
        else:
            st[_RET_OFF] = new - (retired + 1)


@inner
def csr_execute(st, regs, funct, rd, source, number, t, retired):
    """Run a CSR instruction: 0 illegal, 1 done, 2 done with a pipeline flush.

    `funct` 1 write, 2 set, 3 clear, plus 4 for the immediate forms, in which `source` is the value itself.
    """
    priv = st[_PRIV]
    writes = (funct & 3) == 1 or source != 0
    if not exists(number) or ((number >> 8) & 3) > priv:
        return 0
    if writes and (number >> 10) == 3:
        return 0
    operand = source if funct & 4 else np.int64(regs[source]) & _M
    old = csr_read(st, number, t, retired)
    if writes:
        if funct & 3 == 2:
            operand = old | operand
        elif funct & 3 == 3:
            operand = old & ~operand
        csr_write(st, number, operand & _M, t, retired)
    regs[rd] = np.int32(old)
    if writes and number != 0x340 and number != 0x341:
        return 2
    return 1
