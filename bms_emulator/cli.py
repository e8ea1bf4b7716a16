"""The command line: run a program, measure speed. Arguments and messages only.

Exit codes of `run`: 0 the program halted or passed, 1 a test failed, 2 the command or the image is wrong,
3 an unexpected trap or the cycle limit.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from .elf import ImageError, read_image
from .machine import ENGINES, Machine, Outcome, Stop
from .profile import table
from .regmap import board_names

EXIT_PASS, EXIT_FAIL, EXIT_USAGE, EXIT_TRAP = range(4)
DEFAULT_MAX_CYCLES = 1_000_000_000
# The run-time of the reference programs prints this word, then mcause and mepc, when it meets a trap it did
# not expect.
_BAD_TRAP = "bad00000"


def _number(text: str) -> int:
    value = int(text, 0) if not text.replace("_", "").isdigit() else int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def parser() -> argparse.ArgumentParser:
    """The argument parser of `python -m bms_emulator`."""
    top = argparse.ArgumentParser(
        prog="python -m bms_emulator", description="Cycle-exact RV32IMC (Ibex 'small')"
    )
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a program image and give its verdict as exit code")
    run.add_argument("image", type=Path)
    run.add_argument("--board", choices=board_names(), default="reference")
    run.add_argument(
        "--base", type=_number, help="load address of a raw binary (default: start of main memory)"
    )
    run.add_argument("--max-cycles", type=_number, default=DEFAULT_MAX_CYCLES, metavar="N")
    run.add_argument("--engine", choices=ENGINES, default="interp")
    run.add_argument("--trace", type=Path, metavar="FILE", help="CSV of retired instructions")
    run.add_argument("--mmio-trace", type=Path, metavar="FILE", help="CSV of device accesses")
    run.add_argument("--profile", action="store_true", help="cycles per function, to stderr")
    run.add_argument(
        "--gdb", type=_number, metavar="PORT", help="wait for gdb on this TCP port (0: any free one)"
    )
    bench = commands.add_parser("bench", help="measure speed")
    bench.add_argument("--repeats", type=_number, default=5, metavar="N")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m bms_emulator`."""
    options = parser().parse_args(arguments)
    if options.command == "bench":
        from .bench import bench

        print(bench(max(options.repeats, 1)))
        return EXIT_PASS
    return run(options)


def run(options: argparse.Namespace) -> int:
    """`run`: load, run, report."""
    machine = Machine(options.board, options.engine)
    base = options.base if options.base is not None else machine.board.memories[0].base
    raw = options.base is not None or options.image.suffix == ".bin"
    try:
        machine.load(read_image(options.image, base if raw else None))
    except ImageError as problem:
        print(f"bms_emulator: {problem}", file=sys.stderr)
        return EXIT_USAGE
    machine.on_output = _to_stdout
    if options.profile:
        machine.profile_on()
    with contextlib.ExitStack() as files:
        try:
            instructions = files.enter_context(options.trace.open("wb")) if options.trace else None
            accesses = files.enter_context(options.mmio_trace.open("wb")) if options.mmio_trace else None
        except OSError as problem:
            print(f"bms_emulator: cannot write the trace: {problem}", file=sys.stderr)
            return EXIT_USAGE
        machine.trace_to(instructions, accesses)
        if options.gdb is not None:
            from .gdb import serve

            try:
                outcome = serve(machine, options.gdb, options.max_cycles)
            except OSError as problem:
                print(f"bms_emulator: cannot listen on port {options.gdb}: {problem}", file=sys.stderr)
                return EXIT_USAGE
        else:
            outcome = machine.run(max_cycles=options.max_cycles)
        machine.trace_to()
    if options.profile:
        print(table(machine.profile()), file=sys.stderr)
    return verdict(machine, outcome)


def _to_stdout(text: bytes) -> None:
    sys.stdout.write(text.decode("latin-1"))
    sys.stdout.flush()


def verdict(machine: Machine, outcome: Outcome) -> int:
    """Exit code for the end of a run; says on stderr what is wrong, if anything is."""
    if outcome.reason is Stop.HALT:
        if machine.board.tohost:
            if outcome.code == 1:
                return EXIT_PASS
            what = f"test {outcome.code >> 1} failed" if outcome.code & 1 else f"tohost = 0x{outcome.code:x}"
            print(f"bms_emulator: {what} at cycle {outcome.cycle}", file=sys.stderr)
            return EXIT_FAIL
        last = machine.console.decode("latin-1").rstrip("\n").rpartition("\n")[2].split()
        if len(last) >= 3 and last[0] == _BAD_TRAP:
            pc = int(last[2], 16)
            print(_trap_message(machine, "unexpected trap", pc, int(last[1], 16)), file=sys.stderr)
            return EXIT_TRAP
        return EXIT_PASS
    if outcome.reason is Stop.LOCKUP:
        cause, pc = machine.first_exception()
        message = _trap_message(machine, "trap without a handler", pc, cause)
        again = machine.csr("mepc")
        if again != pc:
            message += f"; its handler trapped at {machine.where(again)}: {machine.instruction_at(again)}"
        print(message, file=sys.stderr)
        return EXIT_TRAP
    state = "asleep in wfi" if machine.asleep else "running"
    cause = machine.csr("mcause")
    last_trap = f"; last mcause 0x{cause:x} ({_cause_name(cause)})" if cause else ""
    print(
        f"bms_emulator: {outcome.reason.value} at cycle {outcome.cycle}, {state}"
        f" at {machine.where(machine.pc)}"
        f": {machine.instruction_at(machine.pc)}{last_trap}",
        file=sys.stderr,
    )
    return EXIT_TRAP


_CAUSES = {
    1: "instruction access fault",
    2: "illegal instruction",
    3: "breakpoint",
    5: "load access fault",
    7: "store access fault",
    8: "ecall from user mode",
    11: "ecall from machine mode",
    0x80000003: "software interrupt",
    0x80000007: "timer interrupt",
    0x8000000B: "external interrupt",
}


def _cause_name(cause: int) -> str:
    return _CAUSES.get(cause, f"fast interrupt {cause & 15}" if cause >> 31 else "unknown cause")


def _trap_message(machine: Machine, what: str, pc: int, cause: int) -> str:
    return (
        f"bms_emulator: {what} at cycle {machine.cycle}: cause 0x{cause:x} ({_cause_name(cause)})"
        f" at {machine.where(pc)}: {machine.instruction_at(pc)}"
    )
