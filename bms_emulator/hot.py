"""The instructions that run most: everything that stays inside main memory and raises nothing."""

# numba infers the types of compiled functions; shapes and units stand in their docstrings.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from . import isa
from .isa import OP
from .jit import inner
from .state import GRANULE_BITS, L_INSTRUCTION, S
from .timing import C_DIV, C_DIV0, C_JUMP, C_MEMORY, C_MUL, C_MULH, C_TAKEN

_M = 0xFFFFFFFF
LOG_ROOM = 4  # rows kept free in the log: one instruction adds at most three

# Operation numbers as module constants: numba folds them, and the chain of compares below becomes one jump
# table.
LUI, JAL, JALR = OP["lui"], OP["jal"], OP["jalr"]
BEQ, BNE, BLT, BGE, BLTU, BGEU = (OP[n] for n in ("beq", "bne", "blt", "bge", "bltu", "bgeu"))
LB, LH, LW, LBU, LHU = (OP[n] for n in ("lb", "lh", "lw", "lbu", "lhu"))
SB, SH, SW = OP["sb"], OP["sh"], OP["sw"]
ADDI, SLTI, SLTIU, XORI, ORI, ANDI = (OP[n] for n in ("addi", "slti", "sltiu", "xori", "ori", "andi"))
SLLI, SRLI, SRAI = OP["slli"], OP["srli"], OP["srai"]
ADD, SUB, SLL, SLT, SLTU, XOR = (OP[n] for n in ("add", "sub", "sll", "slt", "sltu", "xor"))
SRL, SRA, OR, AND = OP["srl"], OP["sra"], OP["or"], OP["and"]
MUL, MULH, MULHSU, MULHU = OP["mul"], OP["mulh"], OP["mulhsu"], OP["mulhu"]
DIV, DIVU, REM, REMU = OP["div"], OP["divu"], OP["rem"], OP["remu"]
FENCE, FENCE_I, ECALL, EBREAK = OP["fence"], OP["fence.i"], OP["ecall"], OP["ebreak"]
MRET, WFI = OP["mret"], OP["wfi"]
CSRRW, CSRRCI = OP["csrrw"], OP["csrrci"]
# funct3 of the six CSR operations, by their order in the table
CSR_FUNCT = np.array([1, 2, 3, 5, 6, 7], dtype=np.int64)
OP_ILLEGAL, OP_FETCH_FAULT, OP_FAR = isa.OP_ILLEGAL, isa.OP_FETCH_FAULT, isa.OP_FAR
OP_SPECIAL, OP_UNDECODED, OP_BLOCK = isa.OP_SPECIAL, isa.OP_UNDECODED, isa.OP_BLOCK
OP_STOP, OP_SKIP = isa.OP_STOP, isa.OP_SKIP

_T, _PC, _INSTRET, _KEY, _LOG_N = S["T"], S["PC"], S["INSTRET"], S["KEY"], S["LOG_N"]
_BUBBLE_T, _BUBBLE_END = S["BUBBLE_T"], S["BUBBLE_END"]


@inner
def divide(op, a, b):
    """Quotient or remainder of the four M instructions; `a` and `b` sign-extended, `b` not 0."""
    if op == DIVU:
        return (a & _M) // (b & _M)
    if op == REMU:
        return (a & _M) % (b & _M)
    quotient = abs(a) // abs(b)
    if (a < 0) != (b < 0):
        quotient = -quotient
    if op == DIV:
        return quotient  # -2**31 / -1 = 2**31 wraps to -2**31 when stored
    return a - quotient * b


@inner
def branches(op, a, b):
    """Whether a branch on the sign-extended operands is taken."""
    if op == BEQ:
        return a == b
    if op == BNE:
        return a != b
    if op == BLT:
        return a < b
    if op == BGE:
        return a >= b
    if op == BLTU:
        return (a & _M) < (b & _M)
    return (a & _M) >= (b & _M)


DONE, RARE, TARGET = range(3)
NEXT, JUMP, LEAVE = range(3)


@inner
def straight(
    st, mem, code, codemap, counts, log, tracing, word, limit,
    ram_base, ram_size, x_base, x_size, x_offset, delta,
):  # fmt: skip
    """Run instructions until `t > limit` or one that is not for here; `word` is the predecoded first one.

    Only what stays inside main memory and the present code region is done here, with few variables, so that
    they live in processor registers; everything else (devices, traps, CSRs, sleep) is `run`'s. The state goes
    in and out through `st`, with st[PC] as flat halfword index. Returns DONE, RARE (the instruction at the
    index was not run) or TARGET (redirected to a place that is not decoded yet: its straddle, and the key,
    are still to be added).
    """
    regs = st[:17].view(np.int32)
    words = mem.view(np.int32)
    halves = mem.view(np.int16)
    t = st[_T]
    retired = st[_INSTRET]
    ip = st[_PC]
    key = st[_KEY]
    bubble_t = st[_BUBBLE_T]
    bubble_end = st[_BUBBLE_END]
    counting = counts.shape[0] > 1
    logged = st[_LOG_N]
    full = log.shape[0] - LOG_ROOM
    here = ip
    raw = np.int64(0)
    w = word
    status = DONE
    while True:
        op = w & 255
        rd = (w >> 8) & 63
        a = np.int64(regs[(w >> 14) & 31])
        b = np.int64(regs[(w >> 19) & 31])
        imm = w >> 32
        if tracing:
            here = ip
            raw = (np.int64(halves[ip]) & 0xFFFF) | np.int64(halves[ip + 1]) << 16
        ip += (w >> 24) & 3
        t += 1
        retired += 1
        flow = NEXT
        bubble = 1
        # This chain becomes one jump table.
        if op == ADDI:
            regs[rd] = np.int32(a + imm)
        elif op == LUI:
            regs[rd] = np.int32(imm)
        elif op == LW:
            at = (a + imm - ram_base) & _M
            if at < ram_size and at & 3 == 0:
                regs[rd] = words[at >> 2]
                t += C_MEMORY - 1
            else:
                flow = LEAVE
        elif op == LH:
            at = (a + imm - ram_base) & _M
            if at < ram_size and at & 1 == 0:
                regs[rd] = np.int32(halves[at >> 1])
                t += C_MEMORY - 1
            else:
                flow = LEAVE
        elif op == LHU:
            at = (a + imm - ram_base) & _M
            if at < ram_size and at & 1 == 0:
                regs[rd] = np.int32(halves[at >> 1]) & 0xFFFF
                t += C_MEMORY - 1
            else:
                flow = LEAVE
        elif op == LB:
            at = (a + imm - ram_base) & _M
            if at < ram_size:
                regs[rd] = (np.int32(mem[at]) ^ 0x80) - 0x80
                t += C_MEMORY - 1
            else:
                flow = LEAVE
        elif op == LBU:
            at = (a + imm - ram_base) & _M
            if at < ram_size:
                regs[rd] = np.int32(mem[at])
                t += C_MEMORY - 1
            else:
                flow = LEAVE
        elif op == SW:
            at = (a + imm - ram_base) & _M
            if at < ram_size and at & 3 == 0 and codemap[at >> GRANULE_BITS] == 0:
                words[at >> 2] = np.int32(b)
                t += C_MEMORY - 1
            else:
                flow = LEAVE
        elif op == SH:
            at = (a + imm - ram_base) & _M
            if at < ram_size and at & 1 == 0 and codemap[at >> GRANULE_BITS] == 0:
                halves[at >> 1] = np.int16(b)
                t += C_MEMORY - 1
            else:
                flow = LEAVE
        elif op == SB:
            at = (a + imm - ram_base) & _M
            if at < ram_size and codemap[at >> GRANULE_BITS] == 0:
                mem[at] = np.uint8(b)
                t += C_MEMORY - 1
            else:
                flow = LEAVE
        elif op == SLTI:
            regs[rd] = np.int32(a < imm)
        elif op == SLTIU:
            regs[rd] = np.int32((a & _M) < (imm & _M))
        elif op == XORI:
            regs[rd] = np.int32(a ^ imm)
        elif op == ORI:
            regs[rd] = np.int32(a | imm)
        elif op == ANDI:
            regs[rd] = np.int32(a & imm)
        elif op == SLLI:
            regs[rd] = np.int32(a << imm)
        elif op == SRLI:
            regs[rd] = np.int32((a & _M) >> imm)
        elif op == SRAI:
            regs[rd] = np.int32(a >> imm)
        elif op == ADD:
            regs[rd] = np.int32(a + b)
        elif op == SUB:
            regs[rd] = np.int32(a - b)
        elif op == SLL:
            regs[rd] = np.int32(a << (b & 31))
        elif op == SLT:
            regs[rd] = np.int32(a < b)
        elif op == SLTU:
            regs[rd] = np.int32((a & _M) < (b & _M))
        elif op == XOR:
            regs[rd] = np.int32(a ^ b)
        elif op == SRL:
            regs[rd] = np.int32((a & _M) >> (b & 31))
        elif op == SRA:
            regs[rd] = np.int32(a >> (b & 31))
        elif op == OR:
            regs[rd] = np.int32(a | b)
        elif op == AND:
            regs[rd] = np.int32(a & b)
        elif op == MUL:
            regs[rd] = np.int32(a * b)
            t += C_MUL - 1
        elif op == MULH:
            regs[rd] = np.int32((a * b) >> 32)
            t += C_MULH - 1
        elif op == MULHSU:
            regs[rd] = np.int32((a * (b & _M)) >> 32)
            t += C_MULH - 1
        elif op == MULHU:
            product = np.uint64(a & _M) * np.uint64(b & _M)
            regs[rd] = np.int32(np.int64(product >> np.uint64(32)))
            t += C_MULH - 1
        elif DIV <= op <= REMU:
            if b == 0:
                regs[rd] = np.int32(-1) if op <= DIVU else np.int32(a)
                t += C_DIV0 - 1
            else:
                regs[rd] = np.int32(divide(op, a, b))
                t += C_DIV - 1
        elif op == BEQ:
            if a == b:
                ip = imm
                t += C_TAKEN - 1
                flow = JUMP
        elif op == BNE:
            if a != b:
                ip = imm
                t += C_TAKEN - 1
                flow = JUMP
        elif op == BLT:
            if a < b:
                ip = imm
                t += C_TAKEN - 1
                flow = JUMP
        elif op == BGE:
            if a >= b:
                ip = imm
                t += C_TAKEN - 1
                flow = JUMP
        elif op == BLTU:
            if (a & _M) < (b & _M):
                ip = imm
                t += C_TAKEN - 1
                flow = JUMP
        elif op == BGEU:
            if (a & _M) >= (b & _M):
                ip = imm
                t += C_TAKEN - 1
                flow = JUMP
        elif op == JAL:
            regs[rd] = np.int32((ip << 1) + delta)
            ip = imm
            t += C_JUMP - 1
            bubble = 0
            flow = JUMP
        elif op == JALR:
            at = ((a + imm) & 0xFFFFFFFE) - x_base
            if 0 <= at < x_size:
                regs[rd] = np.int32((ip << 1) + delta)
                ip = (at + x_offset) >> 1
                t += C_JUMP - 1
                bubble = 0
                flow = JUMP
            else:
                flow = LEAVE
        elif op == FENCE:
            flow = NEXT
        else:
            flow = LEAVE

        if tracing and flow != LEAVE:
            log[logged, 0] = L_INSTRUCTION
            log[logged, 1] = t - 1 if flow == NEXT else t - 1 - bubble
            log[logged, 2] = (here << 1) + delta
            log[logged, 3] = raw
            logged += 1
            if logged >= full:
                limit = -1
        if flow == NEXT:
            if t > limit:
                break
            w = code[np.uint64(ip)]
            continue
        if flow == LEAVE:
            ip -= (w >> 24) & 3
            t -= 1
            retired -= 1
            status = RARE
            break
        w = code[np.uint64(ip)]
        if w & 255 == OP_UNDECODED:
            bubble_end = t - bubble
            status = TARGET
            break
        bubble_end = t - bubble
        s = (w >> 27) & 1
        t += s
        bubble_t = t
        key = (ip >> 1) + s - t
        if counting:
            counts[np.uint64(ip)] += 1
        if t > limit:
            break
    st[_T] = t
    st[_INSTRET] = retired
    st[_PC] = ip
    st[_KEY] = key
    st[_BUBBLE_T] = bubble_t
    st[_BUBBLE_END] = bubble_end
    st[_LOG_N] = logged
    return status
