"""Interrupts and traps: when an interrupt is due, what a trap saves, what mret restores."""

# numba infers the types of compiled functions; shapes and units stand in their docstrings.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from .jit import inner
from .state import MIE, MPIE, MPP, MPRV, NEVER, S

_ASLEEP, _PRIV, _STATUS, _MIE, _MTVEC = S["ASLEEP"], S["PRIV"], S["MSTATUS"], S["MIE"], S["MTVEC"]
_MEPC, _MCAUSE, _MTVAL, _CPUCTRL = S["MEPC"], S["MCAUSE"], S["MTVAL"], S["CPUCTRL"]
_DIRECT, _LINES, _TRAPS = S["MTVEC_DIRECT"], S["LINES"], S["TRAPS"]
_CAUSE, _TRAP_PC = S["CAUSE"], S["TRAP_PC"]
_M = 0xFFFFFFFF

CAUSE_FETCH, CAUSE_ILLEGAL, CAUSE_BREAK, CAUSE_LOAD, CAUSE_STORE, CAUSE_ECALL_U, CAUSE_ECALL_M = (
    1,
    2,
    3,
    5,
    7,
    8,
    11,
)


@inner
def interrupt_at(st):
    """First cycle in which an enabled interrupt line is high and interrupts are on, or NEVER."""
    if not st[_STATUS] & MIE and st[_PRIV] == 3:
        return NEVER
    return pending_at(st)


@inner
def pending_at(st):
    """First cycle in which an interrupt line enabled in mie is high, whether interrupts are on or not."""
    first = NEVER
    enabled = st[_MIE]
    line = 0
    while enabled:
        if enabled & 1 and st[_LINES + line] < first:
            first = st[_LINES + line]
        enabled >>= 1
        line += 1
    return first


@inner
def limit_of(st, stop, slow):
    """Last cycle of entry for which the loop need not look up: see the module's first paragraph."""
    if slow or st[_ASLEEP]:
        return -1
    return min(interrupt_at(st), stop - 1)


@inner
def interrupt_cause(st, t):
    """Number of the interrupt taken in cycle `t`: fast lines (lowest first), external, software, timer."""
    enabled = st[_MIE]
    for line in range(16, 31):
        if enabled & (1 << line) and st[_LINES + line] <= t:
            return line
    if enabled & (1 << 11) and st[_LINES + 11] <= t:
        return 11
    if enabled & (1 << 3) and st[_LINES + 3] <= t:
        return 3
    return 7


@inner
def enter_trap(st, interrupt, cause, tval, pc):
    """Save the state of a trap taken at `pc` and give the address of the handler."""
    status = st[_STATUS]
    st[_STATUS] = (status & ~(MIE | MPIE | MPP)) | (MPIE if status & MIE else 0) | (st[_PRIV] << 11)
    st[_PRIV] = 3
    st[_MEPC] = pc & ~1
    st[_MTVAL] = tval & _M
    st[_TRAPS] += 1
    if interrupt:
        st[_MCAUSE] = 0x80000000 | cause
    else:
        st[_MCAUSE] = cause
        if not st[_CPUCTRL] & 0x40:  # the first of a chain of exceptions is the one to tell about
            st[_CAUSE] = cause
            st[_TRAP_PC] = pc
        # sync_exc_seen, and double_fault_seen when it was still set
        st[_CPUCTRL] |= 0xC0 if st[_CPUCTRL] & 0x40 else 0x40
    if st[_DIRECT]:
        return st[_MTVEC] & 0xFFFFFFFC
    return (st[_MTVEC] & 0xFFFFFF00) + (4 * cause if interrupt else 0)


@inner
def leave_trap(st):
    """mret: restore what `enter_trap` saved and give the address to return to."""
    status = st[_STATUS]
    previous = (status >> 11) & 3
    new = (status & ~(MIE | MPP)) | MPIE | (MIE if status & MPIE else 0)
    if previous != 3:
        new &= ~MPRV
    st[_STATUS] = new
    st[_PRIV] = previous
    st[_CPUCTRL] &= ~0x40
    return st[_MEPC]
