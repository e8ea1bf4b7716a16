"""Random campaign: many seeded programs, every invariant of the emulator, one small table.

    python -m bms_emulator.campaign --seeds 300

For each seed of `randprog.py` (half of them under timer interrupts) the end state of a straight interpreter
run is compared with: the same run in random slices; a snapshot taken at a random cycle and restored into
another machine; the block engine (with thresholds so low that short programs are translated, too); a traced
run. For every tenth seed, each retired instruction's cycle is also compared with the clock-by-clock model of
`pipeline.py`.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import blocks
from .elf import parse_image
from .machine import Machine, Stop
from .pipeline import Pipeline
from .randprog import BASE, RandomProgram, random_program

MAX_CYCLES = 2_000_000
_MODEL_EVERY = 10
_MODEL_LENGTH = 60


@dataclass
class Row:
    """One check over all programs."""

    check: str
    programs: int = 0
    instructions: int = 0
    cycles: int = 0
    differences: int = 0

    def add(self, machine: Machine, same: bool) -> None:
        """Count one program."""
        self.programs += 1
        self.instructions += machine.retired
        self.cycles += machine.cycle
        self.differences += not same


class Campaign:
    """The machines of a campaign, kept because making one costs more than running a program."""

    def __init__(self) -> None:
        self.straight = Machine()
        self.other = Machine()
        self.blocks = Machine(engine="blocks")
        self.rows = {
            name: Row(name)
            for name in ("program ends", "sliced", "snapshot", "blocks", "traced", "clock model")
        }

    def run(self, seed: int) -> list[str]:
        """All checks for one seed; the names of those that failed."""
        program = random_program(seed)
        image = parse_image(program.code, BASE)
        machine = self.straight
        machine.load(image)
        outcome = machine.run(until=MAX_CYCLES)
        want = machine.state_hash()
        end = machine.cycle
        failed = []

        def check(name: str, same: bool, of: Machine = machine) -> None:
            self.rows[name].add(of, same)
            if not same:
                failed.append(name)

        check("program ends", outcome.reason is Stop.HALT)
        chance = random.Random(seed)
        other = self.other
        other.load(image)
        self._sliced(other, lambda: chance.choice((1, 1, 2, 3, 7, 40, 300)))
        check("sliced", other.state_hash() == want, other)

        middle = chance.randrange(5, max(end, 6))
        machine.load(image)
        machine.run(until=middle)
        snapshot = machine.snapshot()
        machine.run(until=middle + chance.randrange(1, 500))  # leave the state that is to be restored
        other.restore(snapshot)
        other.run(until=MAX_CYCLES)
        machine.restore(snapshot)
        machine.run(until=MAX_CYCLES)
        check("snapshot", other.state_hash() == want and machine.state_hash() == want, other)

        self.blocks.load(image)
        self.blocks.run(until=MAX_CYCLES)
        check("blocks", self.blocks.state_hash() == want, self.blocks)

        other.load(image)
        other.trace_to(io.BytesIO(), io.BytesIO())
        other.run(until=MAX_CYCLES)
        other.trace_to()
        check("traced", other.state_hash() == want, other)
        if seed % _MODEL_EVERY == 0:
            check("clock model", self.model_agrees(random_program(seed + 1, _MODEL_LENGTH)), other)
        return failed

    @staticmethod
    def _sliced(machine: Machine, size: Callable[[], int]) -> None:
        while machine.cycle < MAX_CYCLES:
            if machine.run(until=min(machine.cycle + size(), MAX_CYCLES)).reason is not Stop.CYCLES:
                return

    def model_agrees(self, program: RandomProgram) -> bool:
        """Whether the clock-by-clock model retires the same instructions in the same cycles."""
        model = Pipeline(program.code)
        model.run(MAX_CYCLES)
        text = io.BytesIO()
        machine = self.other
        machine.load(parse_image(program.code, BASE))
        machine.trace_to(text)
        machine.run(until=MAX_CYCLES)
        machine.trace_to()
        lines = [f"{t},{pc:08x},{raw:0{8 if raw & 3 == 3 else 4}x}" for t, pc, raw in model.trace]
        return (
            text.getvalue().decode().split("\n")[1:-1] == lines
            and model.console == machine.console
            and (model.mtime, model.mcycle) == (machine.cycle, machine.mcycle)
        )


def run_campaign(seeds: int, first: int = 0) -> tuple[list[Row], list[tuple[int, str]]]:
    """(table rows, failures as (seed, check)) of seeds first..first+seeds."""
    campaign = Campaign()
    keep = blocks.FIRST_LOOK, blocks.HOT
    blocks.FIRST_LOOK, blocks.HOT = 500, 3
    try:
        failures = [(seed, name) for seed in range(first, first + seeds) for name in campaign.run(seed)]
    finally:
        blocks.FIRST_LOOK, blocks.HOT = keep
    return list(campaign.rows.values()), failures


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m bms_emulator.campaign`."""
    parser = argparse.ArgumentParser(
        prog="python -m bms_emulator.campaign", description="Random programs, invariants"
    )
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/emulator"))
    options = parser.parse_args(arguments)
    rows, failures = run_campaign(options.seeds, options.first)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "campaign.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["check", "first_seed", "programs", "instructions", "cycles", "differences"])
        for row in rows:
            writer.writerow(
                [row.check, options.first, row.programs, row.instructions, row.cycles, row.differences]
            )
            print(
                f"{row.check:14} {row.programs:6} programs {row.cycles:12} cycles"
                f" {row.differences:4} differences"
            )
    for seed, name in failures:
        print(f"seed {seed}: {name}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
