"""The loop: joins the three tables (`isa.py`, `timing.py`, `bus.py`) into one compiled function.

`run` advances the machine until a cycle, a halt, a breakpoint or an access that Python must serve. Time is
the cycle in which the next instruction enters decode/execute. Interrupts and the end of a slice are one
compare per instruction: `t > limit`, where `limit` is the earlier of the first cycle in which an enabled
interrupt line is high and the last cycle before the slice ends. Whatever can move that cycle (CSR writes,
mret, device accesses) computes it again; nothing is polled.

Interrupts. An instruction whose cycle of entry is t is stopped when the line was high at t - 1 or before. The
decision falls in the first cycle with an empty decode stage: the later of the line's cycle and the first
cycle after the previous instruction left that stage (`free`: in a jump bubble earlier than t). The handler
enters three cycles later.

wfi. mcycle loses the cycles of sleep; it keeps one more when the fetcher issues a request in wfi's second
cycle. The fetch buffer holds three words and asks for one a cycle unless full, so it asks in that cycle only
if *every* cycle since the last redirection took a word out. Hence the words and the cycles since then are
equal, which is one compare with a key kept at each redirection: (target / 4) + s - (cycle of entry of the
target).
"""

# numba infers the types of compiled functions; shapes and units stand in their docstrings.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from .access import load, store
from .bus import ASK, FAULT
from .csr import csr_execute
from .decode import decode_at, fields16, fields32, locate, pack
from .hot import (
    CSR_FUNCT,
    CSRRCI,
    CSRRW,
    DONE,
    EBREAK,
    ECALL,
    FENCE,
    FENCE_I,
    JAL,
    JALR,
    LB,
    LHU,
    LOG_ROOM,
    MRET,
    OP_BLOCK,
    OP_FAR,
    OP_FETCH_FAULT,
    OP_SKIP,
    OP_SPECIAL,
    OP_STOP,
    OP_UNDECODED,
    RARE,
    SB,
    SW,
    WFI,
    branches,
    straight,
)
from .jit import inner, jit
from .state import (
    G_BASE,
    G_OFFSET,
    G_SIZE,
    GRANULE_BITS,
    L_INSTRUCTION,
    L_LOAD,
    L_STORE,
    M_BLOCKS,
    M_BUDGET,
    M_LOCKUP,
    M_MMIO,
    M_PROFILE,
    M_SLOW,
    M_TRACE,
    NEVER,
    R_BUDGET,
    R_CODE,
    R_CYCLES,
    R_HALT,
    R_LOCKUP,
    R_LOG,
    R_MMIO,
    R_OUT,
    R_STOP,
    TW,
    S,
)
from .timing import (
    C_CSR_WRITE,
    C_FAULT,
    C_IRQ,
    C_JUMP,
    C_MEMORY,
    C_MRET,
    C_TAKEN,
    C_TRAP,
    WFI_MCYCLE,
    WFI_SLEEP,
    WFI_WAKE,
)
from .traps import (
    CAUSE_BREAK,
    CAUSE_ECALL_M,
    CAUSE_ECALL_U,
    CAUSE_FETCH,
    CAUSE_ILLEGAL,
    CAUSE_LOAD,
    CAUSE_STORE,
    enter_trap,
    interrupt_at,
    interrupt_cause,
    leave_trap,
    limit_of,
    pending_at,
)

_M = 0xFFFFFFFF

_T, _PC, _INSTRET, _KEY = S["T"], S["PC"], S["INSTRET"], S["KEY"]
_BUBBLE_T, _BUBBLE_END = S["BUBBLE_T"], S["BUBBLE_END"]
_ASLEEP, _SLEEP_T, _SLEEP_MCYCLE = S["ASLEEP"], S["SLEEP_T"], S["SLEEP_MCYCLE"]
_PRIV, _STATUS, _HALTED = S["PRIV"], S["MSTATUS"], S["HALTED"]
_INHIBIT, _CYC_OFF = S["MCOUNTINHIBIT"], S["MCYCLE_OFF"]
_REASON, _X_PC, _READY, _X_FAULT = S["REASON"], S["X_PC"], S["X_READY"], S["X_FAULT"]
_OUT_N, _LOG_N, _BUDGET = S["OUT_N"], S["LOG_N"], S["BUDGET"]
_PREV_T, _PREV_IP = S["PREV_T"], S["PREV_IP"]
_FAULT_PC = S["FAULT_PC"]
_BLOCK_CALLS = S["BLOCK_CALLS"]
_OUT_ROOM = 4


@intrinsic
def call_native(typingctx, function, state, memory, codemap, code, limit, entry):
    """Call translated code (`blocks.py`) at an address, with pointers and integers as 64-bit arguments."""
    signature = types.int64(*([types.int64] * 7))

    def codegen(context, builder, signature, args):
        from llvmlite import ir

        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word] * 6)
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return signature, codegen


@inner
def goto(st, code, regions, address):
    """(flat halfword index, region row) of an address to go to; the last slot of `code` if it is outside."""
    at, row = locate(regions, address)
    if row >= 0:
        return at >> 1, row
    bad = code.shape[0] - 1
    st[_FAULT_PC] = address
    code[bad] = pack(OP_FETCH_FAULT, 0, 0, 0, 1, (address >> 1) & 1, 0)
    return bad, -1


@inner
def fill(mem, code, codemap, regions, marks, row, index):
    """Decode the instruction at `index`, remember it, and apply the mark that may be set on it."""
    word = decode_at(mem, regions, row, index)
    for i in range(marks.shape[0]):
        if marks[i, 0] == index:
            word = (word & ~0xFF) | marks[i, 1]
    code[index] = word
    codemap[(index << 1) >> GRANULE_BITS] |= 1
    codemap[((index << 1) + 3) >> GRANULE_BITS] |= 1
    return word


@inner
def raw_word(mem, index):
    """The 16 or 32 bits that stand at flat halfword `index`."""
    at = index << 1
    if at + 2 > mem.shape[0]:
        return 0
    low = np.int64(mem[at]) | np.int64(mem[at + 1]) << 8
    if low & 3 != 3 or at + 4 > mem.shape[0]:
        return low
    return low | np.int64(mem[at + 2]) << 16 | np.int64(mem[at + 3]) << 24


@inner
def note(st, log, kind, cycle, pc, word, value):
    """Append a row to the log."""
    at = st[_LOG_N]
    log[at, 0] = kind
    log[at, 1] = cycle
    log[at, 2] = pc
    log[at, 3] = word
    log[at, 4] = value
    st[_LOG_N] = at + 1


@jit
def run(st, mem, out, code, codemap, counts, regions, marks, log, profile, blocks, stop, mode):
    """Advance the machine until `stop` or a reason to leave; the reason is in st[REASON].

    st : (state.SIZE,) int64, see `state.py`
    mem, codemap : (n,), (n / 64,) uint8; all memory regions one behind the other, and which parts hold code
    out : uint8, console bytes; log : (k, 5) int64, trace rows; profile : (halfwords,) int64, cycles
    code : (halfwords + 1,) int64, predecoded words; counts : (halfwords,) uint32, redirections to each place
    regions, marks, blocks : int64 tables of `bus.py`, breakpoints, `blocks.py`
    stop : the first instruction whose cycle of entry is not below this is not run
    mode : bits M_* of `state.py`
    """
    regs = st[:17].view(np.int32)
    slow = (mode & M_SLOW) != 0
    tracing = (mode & M_TRACE) != 0
    log_full = log.shape[0] - LOG_ROOM if mode & (M_TRACE | M_MMIO) else NEVER
    native = (mode & M_BLOCKS) != 0 and not slow and not tracing
    bad = code.shape[0] - 1

    t = st[_T]
    retired = st[_INSTRET]
    key = st[_KEY]
    bubble_t = st[_BUBBLE_T]  # cycle of entry for which `bubble_end` is meant
    bubble_end = st[_BUBBLE_END]  # first cycle with an empty decode stage before it
    prev_t = st[_PREV_T]
    prev_ip = st[_PREV_IP]
    ignore_stop = st[_X_PC]  # a breakpoint to step over
    st[_X_PC] = -1
    ip, row = goto(st, code, regions, st[_PC])
    delta = regions[row, G_BASE] - regions[row, G_OFFSET] if row >= 0 else 0
    ram_base = regions[0, G_BASE]  # row 0 is the main memory, at flat offset 0
    ram_size = regions[0, G_SIZE]
    x_base = regions[row, G_BASE]
    x_size = regions[row, G_SIZE]
    x_offset = regions[row, G_OFFSET]
    if row < 0:
        x_size = 0
    limit = limit_of(st, stop, slow)
    leave = -1
    state_at = st.ctypes.data
    mem_at = mem.ctypes.data
    map_at = codemap.ctypes.data
    code_at = code.ctypes.data

    while True:
        if t > limit:
            if st[_ASLEEP]:
                wake = max(st[_SLEEP_T] + WFI_SLEEP, pending_at(st))
                if wake >= stop:
                    t = max(t, stop)
                    leave = R_CYCLES
                    break
                t = wake + WFI_WAKE
                lost = t - st[_SLEEP_T] - st[_SLEEP_MCYCLE]
                if lost > 0 and not st[_INHIBIT] & 1:
                    st[_CYC_OFF] -= lost
                st[_ASLEEP] = 0
                st[_SLEEP_T] = 0
                st[_SLEEP_MCYCLE] = 0
                bubble_t = t
                bubble_end = wake + 1
            if prev_ip >= 0:
                if mode & M_PROFILE and prev_ip < bad:
                    profile[prev_ip] += t - prev_t
                prev_ip = -1
            if leave >= 0:
                break
            if t >= stop:
                leave = R_CYCLES
                break
            if st[_LOG_N] >= log_full:
                leave = R_LOG
                break
            line_at = interrupt_at(st)
            if line_at < t:
                decision = max(line_at, bubble_end if bubble_t == t else t)
                cause = interrupt_cause(st, decision + 1)
                pc = st[_FAULT_PC] if ip == bad else (ip << 1) + delta
                ip, row = goto(st, code, regions, enter_trap(st, True, cause, 0, pc))
                if row >= 0:
                    delta = regions[row, G_BASE] - regions[row, G_OFFSET]
                    x_base, x_size, x_offset = (
                        regions[row, G_BASE],
                        regions[row, G_SIZE],
                        regions[row, G_OFFSET],
                    )
                else:
                    x_size = 0
                w = code[ip]
                if w & 255 == OP_UNDECODED:
                    w = fill(mem, code, codemap, regions, marks, row, ip)
                s = (w >> 27) & 1
                if mode & M_PROFILE and ip < bad:
                    profile[ip] += decision + C_IRQ + s - t
                t = decision + C_IRQ + s
                bubble_t = t
                bubble_end = t - s - 1
                key = (ip >> 1) + s - t
                limit = limit_of(st, stop, slow)
                continue
            if mode & M_BUDGET:
                if st[_BUDGET] <= 0:
                    leave = R_BUDGET
                    break
                st[_BUDGET] -= 1
            if slow:
                prev_t = t
                prev_ip = ip
            else:
                limit = limit_of(st, stop, slow)

        w = code[ip]
        op = w & 255
        if op >= OP_SPECIAL:
            if op == OP_UNDECODED:
                w = fill(mem, code, codemap, regions, marks, row, ip)
                op = w & 255
            if op == OP_BLOCK:
                block = w >> 32
                if native and t + blocks[block, 3] <= limit:
                    st[_T] = t
                    st[_INSTRET] = retired
                    st[_KEY] = key
                    st[_BLOCK_CALLS] += 1
                    again = call_native(
                        blocks[block, 0], state_at, mem_at, map_at, code_at, limit, blocks[block, 1]
                    )
                    t = st[_T]
                    retired = st[_INSTRET]
                    key = st[_KEY]
                    ip = st[_PC]
                    if again:
                        continue
                    w = code[ip]
                    if w & 255 == OP_BLOCK:
                        w = blocks[w >> 32, 2]
                    elif w & 255 == OP_UNDECODED:
                        w = fill(mem, code, codemap, regions, marks, row, ip)
                else:
                    w = blocks[block, 2]
                op = w & 255
            if op == OP_STOP:
                pc = (ip << 1) + delta
                if pc != ignore_stop:
                    if mode & M_BUDGET:
                        st[_BUDGET] += 1
                    prev_ip = -1
                    leave = R_STOP
                    break
                w = decode_at(mem, regions, row, ip)
            elif op == OP_SKIP:
                w = (w & ~0xFF) | FENCE
            ignore_stop = -1
        st[_T] = t
        st[_INSTRET] = retired
        st[_PC] = ip
        st[_KEY] = key
        st[_BUBBLE_T] = bubble_t
        st[_BUBBLE_END] = bubble_end
        before = retired
        status = straight(
            st, mem, code, codemap, counts, log, tracing, w, t if slow else limit,
            ram_base, ram_size, x_base, x_size, x_offset, delta,
        )  # fmt: skip
        t = st[_T]
        retired = st[_INSTRET]
        ip = st[_PC]
        key = st[_KEY]
        bubble_t = st[_BUBBLE_T]
        bubble_end = st[_BUBBLE_END]
        if st[_LOG_N] >= log_full:
            limit = -1
        if status == DONE:
            continue
        bubble = t - bubble_end
        if status == RARE:
            if retired != before:
                w = code[ip]
                if w & 255 >= OP_SPECIAL:
                    continue
            op = w & 255
            rd = (w >> 8) & 63
            a = np.int64(regs[(w >> 14) & 31])
            b = np.int64(regs[(w >> 19) & 31])
            imm = w >> 32
            size = (w >> 24) & 3
            ip += size
            t += 1
            retired += 1
            bubble = 1
            here = ip - size
            pc = st[_FAULT_PC] if here == bad else (here << 1) + delta
            start = t - 1
            cause = -1  # exception raised by what follows
            tval = 0
            target = -1  # where to continue instead
            ended = start  # last cycle before a flush or a bubble, as the trace shows it
            redirects = False
            raw = raw_word(mem, here) if tracing else 0
            if LB <= op <= LHU:
                value, status, tval, device, cycles = load(st, mem, regions, op, (a + imm) & _M, start)
                if status == ASK:
                    leave = R_MMIO
                elif status == FAULT:
                    cause = CAUSE_LOAD
                    ended = start + cycles - 1
                    t = start + cycles + C_FAULT - C_MEMORY
                else:
                    regs[rd] = np.int32(value)
                    t = start + cycles
                    ended = t - 1
                if device and leave < 0:
                    st[_READY] = 0
                    st[_X_FAULT] = 0
                    if mode & M_MMIO:
                        note(st, log, L_LOAD, start, pc, (a + imm) & _M, value & _M)
            elif SB <= op <= SW:
                status, tval, device, hit, cycles = store(
                    st, mem, out, code, codemap, regions, op, (a + imm) & _M, b & _M, start
                )
                if status == ASK:
                    leave = R_MMIO
                elif status == FAULT:
                    cause = CAUSE_STORE
                    ended = start + cycles - 1
                    t = start + cycles + C_FAULT - C_MEMORY
                else:
                    t = start + cycles
                    ended = t - 1
                if device and leave < 0:
                    st[_READY] = 0
                    st[_X_FAULT] = 0
                    if mode & M_MMIO:
                        note(st, log, L_STORE, start, pc, (a + imm) & _M, b & _M)
                if leave < 0:
                    limit = limit_of(st, stop, slow)
                    if hit:
                        leave = R_CODE
                        limit = -1
                    if st[_OUT_N] + _OUT_ROOM > out.shape[0]:
                        leave = R_OUT
                        limit = -1
                    if st[_HALTED]:
                        leave = R_HALT
                        limit = -1
            elif CSRRW <= op <= CSRRCI:
                outcome = csr_execute(
                    st, regs, CSR_FUNCT[op - CSRRW], rd, (w >> 14) & 31, imm, start, retired - 1
                )
                if outcome == 0:
                    cause = CAUSE_ILLEGAL
                    tval = raw_word(mem, here)
                elif outcome == 2:
                    t = start + C_CSR_WRITE
                    bubble_t = t
                    bubble_end = t - 1
                    limit = limit_of(st, stop, slow)
            elif op == FENCE_I:
                t += C_JUMP - 1
                bubble = 0
                redirects = True
                ended = t - 1
            elif op == JALR:
                target = (a + imm) & 0xFFFFFFFE
                regs[rd] = np.int32((ip << 1) + delta)
                t += C_JUMP - 1
                bubble = 0
                ended = t - 1
            elif op == OP_FAR:
                raw = raw_word(mem, here)
                if raw & 3 == 3:
                    op, rd, rs1, rs2, imm = fields32(raw)
                else:
                    op, rd, rs1, rs2, imm = fields16(raw)
                if op == JAL:
                    if rd:
                        regs[rd] = np.int32((ip << 1) + delta)
                    t += C_JUMP - 1
                    bubble = 0
                    target = (pc + imm) & _M
                elif branches(op, np.int64(regs[rs1]), np.int64(regs[rs2])):
                    t += C_TAKEN - 1
                    target = (pc + imm) & _M
                ended = t - 1 - (bubble if target >= 0 else 0)
            elif op == MRET:
                if st[_PRIV] == 3:
                    target = leave_trap(st)
                    t = start + C_MRET
                    limit = limit_of(st, stop, slow)
                else:
                    cause = CAUSE_ILLEGAL
                    tval = raw_word(mem, here)
            elif op == WFI:
                if st[_PRIV] == 3 or not st[_STATUS] & TW:
                    st[_ASLEEP] = 1
                    st[_SLEEP_T] = start
                    st[_SLEEP_MCYCLE] = WFI_MCYCLE + (1 if ((here + 2) >> 1) - start - 1 == key else 0)
                    limit = -1
                else:
                    cause = CAUSE_ILLEGAL
                    tval = raw_word(mem, here)
            elif op == ECALL:
                cause = CAUSE_ECALL_M if st[_PRIV] == 3 else CAUSE_ECALL_U
            elif op == EBREAK:
                cause = CAUSE_BREAK
            elif op == OP_FETCH_FAULT:
                cause = CAUSE_FETCH
                tval = (pc + imm) & _M
            else:
                cause = CAUSE_ILLEGAL
                tval = imm & _M
            if leave == R_MMIO:  # nothing has happened yet: the instruction runs again with Python's answer
                ip = here
                t = start
                retired -= 1
                if mode & M_BUDGET:
                    st[_BUDGET] += 1
                prev_ip = -1
                break
            if tracing and cause != CAUSE_FETCH:  # there is no instruction after a failed fetch
                note(st, log, L_INSTRUCTION, ended, pc, raw, 0)
            if st[_LOG_N] >= log_full:
                limit = -1
            if cause >= 0:
                retired -= 1
                if cause != CAUSE_LOAD and cause != CAUSE_STORE:
                    t = start + C_TRAP
                target = enter_trap(st, False, cause, tval, pc)
                limit = limit_of(st, stop, slow) if leave < 0 and st[_LOG_N] < log_full else -1
                if mode & M_LOCKUP and (target == pc or locate(regions, target)[1] < 0):
                    leave = R_LOCKUP
                    limit = -1
            if target < 0 and not redirects:
                continue
            if target >= 0:
                ip, row = goto(st, code, regions, target)
                if row >= 0:
                    delta = regions[row, G_BASE] - regions[row, G_OFFSET]
                    x_base, x_size, x_offset = (
                        regions[row, G_BASE],
                        regions[row, G_SIZE],
                        regions[row, G_OFFSET],
                    )
                else:
                    x_size = 0

        # A redirection to `ip`; t is the cycle of entry of its instruction but for the straddle.
        w = code[ip]
        if w & 255 == OP_UNDECODED:
            w = fill(mem, code, codemap, regions, marks, row, ip)
        s = (w >> 27) & 1
        t += s
        bubble_t = t
        bubble_end = t - s - bubble
        key = (ip >> 1) + s - t
        if counts.shape[0] > 1:
            counts[ip] += 1

    st[_T] = t
    st[_PC] = st[_FAULT_PC] if ip == bad else ((ip << 1) + delta) & _M
    st[_INSTRET] = retired
    st[_KEY] = key
    st[_BUBBLE_T] = bubble_t if bubble_t == t else -1
    st[_BUBBLE_END] = bubble_end if bubble_t == t else -1
    st[_PREV_T] = prev_t
    st[_PREV_IP] = prev_ip
    st[_REASON] = leave
    regs[32] = 0
    regs[33] = 0
    return leave
