"""Table 2: the cycle rules of lowRISC Ibex 'small', one row per cycle class.

Ibex 'small': two stages (fetch, decode/execute), no branch target adder, no write-back stage, three-cycle
multiplier (RV32MFast), no cache, memory that answers in the next cycle. The rules are those of the reference
notes (`timing-rules.md` beside the RTL cycle counts) and were checked against RTL counts; the reason for each
undocumented one stands in its row.

Words used here and in the loop:

- cycle of entry t: first cycle of an instruction in decode/execute. `mtime` counts these cycles from reset.
- total: cycles from its entry to the entry of the next instruction, without `s`
- busy: cycles it stays in decode/execute; the rest of `total` are bubbles
- s: 1 if the instruction after a redirection is 32 bits long and starts at an address with bit 1 set: it
  straddles two words, and the second must still be fetched. Straight-line code never waits.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CycleRule:
    """Cycles of one class of instructions; `redirects` means that `s` of the next instruction is added."""

    name: str
    total: int
    busy: int
    redirects: bool
    why: str


TIMING: tuple[CycleRule, ...] = (
    CycleRule("alu", 1, 1, False, "one pass through the ALU; fence is a no-operation"),
    CycleRule("jump", 2, 2, True, "first cycle target, second cycle link (no branch target adder)"),
    CycleRule("branch", 1, 1, False, "not taken"),
    CycleRule(
        "branch taken", 3, 2, True, "compare, then target; the decision is held in a flop for one cycle"
    ),
    CycleRule("memory", 2, 2, False, "address, response"),
    CycleRule("memory split", 3, 3, False, "word at offset 1-3 or half at offset 3: two accesses, pipelined"),
    CycleRule("mul", 3, 3, False, "RV32MFast, low word"),
    CycleRule("mulh", 4, 4, False, "RV32MFast, high word"),
    CycleRule("div", 37, 37, False, "one bit a cycle plus set-up and sign; no early end"),
    CycleRule("div by zero", 2, 2, False, "result known at once"),
    CycleRule("csr", 1, 1, False, "read, or any access to mscratch and mepc"),
    CycleRule(
        "csr write", 3, 2, False, "the pipeline is flushed: decode, flush, refill from the fetch buffer"
    ),
    CycleRule("trap", 3, 2, True, "decode, flush (sets the handler address), fetch"),
    CycleRule(
        "access fault", 4, 3, True, "a load or store of two cycles, then as a trap; one more when split"
    ),
    CycleRule("mret", 3, 2, True, "as a trap"),
    CycleRule("wfi", 5, 4, False, "when something is pending: decode, flush, wait, sleep, first fetch"),
    CycleRule("interrupt", 3, 1, True, "from the cycle of the decision to the entry of the handler"),
)
CLASSES = {rule.name: rule for rule in TIMING}

C_ALU = CLASSES["alu"].total
C_JUMP = CLASSES["jump"].total
C_TAKEN = CLASSES["branch taken"].total
C_MEMORY = CLASSES["memory"].total
C_SPLIT = CLASSES["memory split"].total
C_MUL = CLASSES["mul"].total
C_MULH = CLASSES["mulh"].total
C_DIV = CLASSES["div"].total
C_DIV0 = CLASSES["div by zero"].total
C_CSR_WRITE = CLASSES["csr write"].total
C_TRAP = CLASSES["trap"].total
C_FAULT = CLASSES["access fault"].total
C_MRET = CLASSES["mret"].total
C_IRQ = CLASSES["interrupt"].total

# Sleep (ibex_controller.sv, states FLUSH, WAIT_SLEEP, SLEEP, FIRST_FETCH): the first cycle in which wfi can
# see a pending line, the distance from the cycle that sees it to the next instruction, and the cycles that
# mcycle advances when the clock was really stopped (one more when the fetcher still had a request under way).
WFI_SLEEP = 3
WFI_WAKE = 2
WFI_MCYCLE = 5

# Cycle of entry of the first instruction after reset, and mcycle minus mtime there.
RESET_CYCLE = 4
RESET_MCYCLE_OFFSET = -1
