"""Skipped instructions in the boot ROM: does one of them boot an image that must not run? (B14)

Every instruction that the ROM executes while it refuses a bad image is left out once, and every instruction
of the ROM is left out for good, one at a time, each in a run of its own from power-on to the end. A run is
*open* if then a single instruction of the bad image was executed.

    python -m bms_emulator.boot_skips --out results/boot/skips.csv
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .board import BmsBoard, BoardSnapshot
from .firmware.package import Identity, development_key, package
from .firmware.target import Program, build_program

SETTLED_S = 0.02  # the ROM has decided long before
HASTE = 1000  # of crypto engine and flash: a skipped wfi polls them
BODY = 6000
_WINDOW = 0x0800_0000


def _flip(image: bytes, at: int) -> bytes:
    return image[:at] + bytes([image[at] ^ 1]) + image[at + 1 :]


def _rehash(image: bytes) -> bytes:
    """The digest in the file made right again after the signed bytes have changed."""
    header_size, protected, body_size = struct.unpack_from("<HHI", image, 8)
    end = header_size + body_size + protected
    at = image.index(struct.pack("<HH", 0x10, 32), end) + 4
    return image[:at] + hashlib.sha256(image[:end]).digest() + image[at + 32 :]


@dataclass(frozen=True)
class Bad:
    """An image that must not run, and whether a good older one stands in the other slot."""

    name: str
    make: Callable[[bytes], bytes]
    fallback: bool = False


def _with_key(seed: bytes, counter: int = 1) -> Callable[[bytes], bytes]:
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed).digest())
    return lambda body: package(body, (1, 0, 0, 0), key, Identity(), counter)


def _trusted(body: bytes, identity: Identity | None = None, counter: int = 1) -> bytes:
    return package(body, (1, 0, 0, 0), development_key(), identity or Identity(), counter)


CASES = (
    Bad("signature", lambda body: _flip(_trusted(body), -1)),
    Bad("body and digest changed", lambda body: _rehash(_flip(_trusted(body), 0x400))),
    Bad("body changed", lambda body: _flip(_trusted(body), 0x400)),
    Bad("unknown key", _with_key(b"somebody else")),
    Bad("other vendor", lambda body: _trusted(body, Identity(vendor=bytes(16)))),
    Bad("security counter low", lambda body: _trusted(body, counter=0)),
    Bad("signature, good image in the other slot", lambda body: _flip(_trusted(body), -1), True),
)


class Bench:
    """A board with a bad image in slot 0, just powered on."""

    def __init__(self, rom: Program, body: bytes, case: Bad) -> None:
        self.rom, self.case = rom, case
        self.board = BmsBoard()
        self.board.hsm.haste = self.board.nvm.haste = HASTE
        good = _trusted(body)
        self.board.manufacture(rom, good)  # for its records: counters stand at 1
        slot = self.board.machine.board.partition("slot_0")
        other = self.board.machine.board.partition("slot_1")
        self.board.nvm.put_bytes(slot.at, case.make(body).ljust(len(good), b"\xff"))
        if case.fallback:
            self.board.nvm.put_bytes(other.at, package(body, (0, 9, 0, 0), development_key(), Identity()))
        self.board.power_on()
        self.start = self.board.snapshot()
        self._slot = (slot.at, slot.size)

    @property
    def ran(self) -> bool:
        """Whether the bad image was executed."""
        return self.board.machine.was_run("flash", *self._slot)

    def settle(self) -> bool:
        """Run on until the ROM has decided; whether the bad image was executed."""
        self.board.run(SETTLED_S)
        if self.ran:
            self.board.machine.forget_runs()
            return True
        return False

    def dynamic(self) -> int:
        """Instructions that the ROM executes until it has decided, at most until the other image starts."""
        board, machine = self.board, self.board.machine
        board.restore(self.start)
        before = machine.retired
        while not (machine.asleep and machine.csr("mie") == 0) and machine.pc < _WINDOW:
            board.run_cycles(500)
        return machine.retired - before

    def skip_each(self, chosen: set[int], total: int) -> Iterator[tuple[int, int, bool]]:
        """(number, pc, open) of leaving out the n-th executed instruction, for the chosen n."""
        board, machine = self.board, self.board.machine
        walker: BoardSnapshot = self.start
        board.restore(walker)
        done = 0
        for number in sorted(n for n in chosen if n < total):
            while done < number:
                machine.run(instructions=number - done)
                done = number
            walker = board.snapshot()
            pc = machine.pc
            machine.skip_one()
            yield number, pc, self.settle()
            board.restore(walker)

    def skip_always(self, addresses: list[int]) -> Iterator[tuple[int, bool]]:
        """(pc, open) of leaving out one instruction of the ROM whenever it comes."""
        board, machine = self.board, self.board.machine
        for pc in addresses:
            board.restore(self.start)
            machine.skip_instruction(pc)
            yield pc, self.settle()
            machine.clear_breakpoint(pc)


def instruction_addresses(rom: Program) -> list[int]:
    """Every instruction of the ROM's functions."""
    found = []
    image = rom.image()
    for symbol in image.symbols:
        if not symbol.is_function or not symbol.size:
            continue
        code = next(
            (
                d[symbol.address - a :][: symbol.size]
                for a, d, _ in image.segments
                if a <= symbol.address < a + len(d)
            ),
            b"",
        )
        at = 0
        while at < len(code):
            found.append(symbol.address + at)
            at += 4 if code[at] & 3 == 3 else 2
    return found


@dataclass(frozen=True)
class Row:
    case: str
    kind: str
    runs: int
    open: int
    where: str


def campaign(cases: tuple[Bad, ...] = CASES, sample: int | None = None, seed: int = 0) -> Iterator[Row]:
    """One row for each case and kind of skip; `sample`: so many runs of each kind instead of all."""
    rom, app = build_program("rom"), build_program("app")
    addresses = instruction_addresses(rom)
    for case in cases:
        bench = Bench(rom, app.body[:BODY], case)
        chance = random.Random(f"{seed}/{case.name}")
        if bench.settle():
            raise AssertionError(f"{case.name}: runs without any fault")
        total = bench.dynamic()
        chosen = set(range(total)) if sample is None else set(chance.sample(range(total), min(sample, total)))
        opened = [(pc, n) for n, pc, bad in bench.skip_each(chosen, total) if bad]
        where = " ".join(f"{bench.board.machine.where(pc)}#{n}" for pc, n in opened)
        yield Row(case.name, "once", len(chosen), len(opened), where)
        some = addresses if sample is None else chance.sample(addresses, min(sample, len(addresses)))
        always = [pc for pc, bad in bench.skip_always(some) if bad]
        where = " ".join(bench.board.machine.where(pc) for pc in always)
        yield Row(case.name, "always", len(some), len(always), where)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bms_emulator.boot_skips", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--sample", type=int, help="runs of each kind; all by default")
    parser.add_argument("--case", type=int, choices=range(len(CASES)), help="only this row of CASES")
    parser.add_argument("--out", type=Path, help="CSV of the result")
    chosen = parser.parse_args(arguments)
    rows = []
    cases = CASES if chosen.case is None else (CASES[chosen.case],)
    for row in campaign(cases, chosen.sample):
        print(f"{row.case:42s} {row.kind:7s} {row.runs:7d} runs {row.open:4d} open  {row.where}", flush=True)
        rows.append(row)
    if chosen.out is not None:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        with chosen.out.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["case", "skipped", "runs", "open", "where"])
            writer.writerows([r.case, r.kind, r.runs, r.open, r.where] for r in rows)
    return 1 if any(row.open for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
