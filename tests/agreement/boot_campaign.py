"""Power cuts on the C boot ROM and the C update agent: all on the host, a stated part on the emulator.

The flows, the cuts and the one checker of the invariants are those of ``ota.faults``. On the host the code
runs over ``host_mcu`` (2 ms a run); on the emulated board the same C runs as instructions, with flash times,
HSM latencies and the whole firmware around it, its images being real firmware; both end in the same state.

    python -m tests.agreement.boot_campaign --out results/boot      (or: make boot-campaign)
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bms_emulator.board import BmsBoard, BoardSnapshot
from bms_emulator.devices import nvm
from bms_emulator.devices.afe import Truth
from bms_emulator.devices.hsm import KeySlot
from bms_emulator.firmware.package import WINDOW, Identity
from bms_emulator.firmware.releases import load_release
from bms_emulator.firmware.target import build_program
from bms_emulator.host_mcu import Boot, HostMcu, _security_counter
from ota import faults, frames, image, manifest, merkle
from ota.delta import container
from ota.errors import OtaError
from ota.flash_model import Cut
from ota.image import FLAG_ROM_FIXED, Version
from ota.mcu_model import McuConfig, PowerCutError
from ota.testbed import EPOCH_S, Testbed

ENTRY = WINDOW + 0x200 + 0x80
STEP_S = 0.02
FRAME_S, ANSWER_S, START_S = 0.1, 3.0, 5.0  # the gateway asks ten times a second


class _Flash:
    """The board's flash as the campaign wants to see it."""

    def __init__(self, board: BmsBoard) -> None:
        self._nvm = board.nvm
        self.cut: Cut | None = None

    def arm(self, cut: Cut | None) -> None:
        self.cut = cut
        self._nvm.arm(None if cut is None else nvm.Cut(cut.at, cut.inside))

    @property
    def lengths(self) -> list[int]:
        return [size for _, _, size in self._nvm.operations]

    def read(self, at: int, length: int) -> bytes:
        return self._nvm.bytes_at(at, length)


class BoardMcu:
    """An emulated board at rest behind the methods that ``ota.faults`` asks of a controller.

    What stands in its flash is read through the C code of the host (`records`): both are judged alike.
    """

    PowerCut: type[Exception] = PowerCutError

    def __init__(self, config: McuConfig, seed: int = 0) -> None:
        keys = [KeySlot(k.spki, 0) for k in config.image_keys]
        keys += [KeySlot(k.spki, 1) for k in config.manifest_keys]
        self.board = BmsBoard(keys=keys, seed=seed)
        self.config = config
        self.records = HostMcu(config)  # type: ignore[arg-type]
        self.kept = self.records.kept
        self.flash = _Flash(self.board)
        self.boots: list[Boot] = []
        self.behaviour: dict[bytes, str] = {}
        self.rom = build_program("rom")

    def manufacture(
        self, firmware: bytes, parameter_file: bytes = b"", kept: bytes = b"serial+state"
    ) -> None:
        c = self.config
        identity = Identity(
            c.vendor_id, c.class_id, c.hardware_revision, c.serial, tuple(k.spki for k in c.manifest_keys)
        )
        self.board.manufacture(self.rom, firmware, parameter_file, identity, kept)
        for slot in ("slot_1", "slot_0"):
            self.board.machine.show("xip", slot)
            self.board.machine.set_breakpoint(ENTRY)

    def snapshot(self) -> BoardSnapshot:
        return self.board.snapshot()

    def restore(self, state: BoardSnapshot) -> None:
        self.flash.arm(None)
        self.board.restore(state)

    def _host(self) -> HostMcu:
        size = self.board.machine.board.memory("flash").size
        counters = np.array(self.board.hsm.counters, dtype="<u4").tobytes()
        self.records.restore((self.board.nvm.bytes_at(0, size), counters))
        return self.records

    def counters(self) -> Any:
        return self._host().counters()

    def state_digest(self) -> str:
        return self._host().state_digest()

    @property
    def running(self) -> bool:
        return self.board.stats() is not None

    @running.setter
    def running(self, value: bool) -> None:
        assert not value, "the supply has failed already"

    def _see_boot(self) -> None:
        """The ROM has jumped: what runs now?"""
        host, slot = self._host(), self.board.nvm.window & 1
        row = host.journal()
        assert row is not None
        firmware = host.firmware_file(slot) or b""
        copy = self.board.machine.register("a0") >> 8 & 3
        par = host.parameter_file(copy) if copy < 2 else None
        counters = host.counters()
        fits = self.config.fits(firmware, par, (counters.security, counters.parameters))  # type: ignore[attr-defined]
        digests = (hashlib.sha256(firmware).digest(), hashlib.sha256(par).digest() if par else bytes(32))
        self.boots.append(
            Boot(True, slot, *digests, fits, counters.security, _security_counter(firmware), row.reason)
        )

    def advance(self, seconds: float) -> None:
        """The battery is at rest and measured every 20 ms."""
        board = self.board
        for _ in range(max(round(seconds / STEP_S), 1)):
            board.measure(Truth(np.full(14, 3.7), np.full(4, 298.15), 0.0, 51.8, 0.0), period_ticks=2)
            end = board.machine.cycle + round(STEP_S * board.machine.board.clock_Hz)
            while board.machine.cycle < end:
                board.run_cycles(end - board.machine.cycle)
                if not board.powered:
                    raise PowerCutError
                if board.machine.pc == ENTRY and board.machine.cycle < end:
                    self._see_boot()
                    board.machine.skip_breakpoint()

    def power_on(self, by_image: bool = False) -> bool:
        self.board.power_on()
        return self._start()

    def _start(self) -> bool:
        """Wait until a firmware runs."""
        for _ in range(round(START_S / STEP_S)):
            if self.running:
                return True
            self.advance(STEP_S)
        self.boots.append(Boot(False, 0, b"", b"", False, 0, 0, 317))
        return False

    def receive(self, frame: bytes) -> list[bytes]:
        box = self.board.mailbox
        before = len(box.sent)
        box.receive(frame)
        self.advance(FRAME_S)
        for _ in range(round(ANSWER_S / STEP_S)):
            if not box.waiting and len(box.sent) > before:
                break
            self.advance(STEP_S)
        self._start()  # an activation resets the controller
        return [frame for frame in box.sent[before:] if _is_answer(frame)]


def _is_answer(frame: bytes) -> bool:
    """Telemetry goes through the same mailbox."""
    try:
        frames.unpack(frame)
    except OtaError:
        return False
    return True


def board_case(folder: Path, flow: str, controller: type = BoardMcu) -> faults.Case:
    """As ``faults.make_case``, with images that are firmware: charge counting becomes the Kalman filter."""
    bed = Testbed(folder, slot_size=256 * 1024, controller=controller)

    def firmware(version: str, counter: int, defines: tuple[str, ...] = ()) -> bytes:
        return image.build(
            build_program("app", defines).body,
            version=Version.parse(version),
            key=bed.keys["image"],
            security_counter=counter,
            vendor_id=bed.vendor_id,
            class_id=bed.class_id,
            flags=FLAG_ROM_FIXED,
            load_address=WINDOW,
        )

    flaw = load_release("crash_at_boot").flags if flow == "revert" else ()
    old, new = firmware("1.0.0", 1, ("-DBMS_COUNTING",)), firmware("1.1.0", 2, flaw)
    with_set = flow in ("parameters", "set")
    old_set = bed.parameter_set("1.0.0", 1) if with_set else b""
    new_set = bed.parameter_set("1.1.0", 2, temperature_max=330.0) if with_set else b""
    mcu = bed.new_mcu("dev", old, old_set)
    if flow == "revert":  # the host is told; the board runs it
        mcu.behaviour[hashlib.sha256(new).digest()] = "crash"
    files = {} if flow == "parameters" else {0: new}
    containers = {} if flow == "parameters" else {0: container.create(old, new)}
    if with_set:
        files[1], containers[1] = new_set, container.wrap_full(new_set)
    components = tuple(
        manifest.Component(
            i,
            hashlib.sha256(data).digest(),
            len(data),
            image.parse(data).version,
            image.parse(data).security_counter or 0,
            merkle.file_root(data),
            image.parse(data).parameter_schema,
        )
        for i, data in files.items()
    )
    signed = manifest.Manifest(
        2, bed.vendor_id, bed.class_id, (), "ecu-dev", bytes(16), int(EPOCH_S) + 86400, 0, components
    ).sign(bed.keys["online"])

    def digest(data: bytes) -> bytes:
        return hashlib.sha256(data).digest() if data else bytes(32)

    allowed = [
        (digest(old), digest(old_set)),
        (digest(files.get(0, old)), digest(files.get(1, old_set))),
    ]
    case = faults.Case(flow, mcu, signed, containers, allowed, mcu.snapshot())
    case.counter_after = 2 if 0 in files and flow != "revert" else 1
    case.reset()
    mcu.flash.arm(None)
    if faults.drive(mcu, signed, containers) == (flow == "revert"):
        raise AssertionError(f"{flow}: the uncut update does not end")
    case.uncut = mcu.state_digest()
    case.lengths = list(mcu.flash.lengths)
    return case


def torn(case: faults.Case, stride: int) -> Iterator[list[Cut]]:
    """Inside every operation: records at every byte, blocks and erases at every `stride`-th."""
    for at, length in enumerate(case.lengths):
        for k in range(0, length, 1 if length <= 64 else stride):
            yield [Cut(at, k)]


def before(case: faults.Case) -> Iterator[list[Cut]]:
    """Between the operations."""
    for at in range(len(case.lengths)):
        yield [Cut(at)]


def torn_pairs(case: faults.Case, number: int, seed: int = 0) -> Iterator[list[Cut]]:
    """Seeded pairs, both inside an operation."""
    chance = random.Random(seed)
    n = len(case.lengths)
    for _ in range(number):
        yield [Cut(chance.randrange(n), chance.randrange(4096)) for _ in range(2)]


def host_rows(stride: int, fives: int, flows: tuple[str, ...] = faults.FLOWS) -> Iterator[faults.Row]:
    """The mass: on the host."""
    with tempfile.TemporaryDirectory() as folder:
        for flow in flows:
            case = faults.make_case(Path(folder) / flow, flow, controller=HostMcu)  # type: ignore[arg-type]
            yield faults.campaign(case, before(case), "before every operation")
            yield faults.campaign(case, torn(case, stride), f"inside, every {stride} B")
            yield faults.campaign(case, faults.pairs(case), "all pairs")
            yield faults.campaign(case, torn_pairs(case, fives), "torn pairs")
            yield faults.campaign(case, faults.quintuples(case, fives), "fives")


def board_rows(flow: str, between: int, inside: int) -> Iterator[faults.Row]:
    """The stated part on the emulator: every `between`-th cut before an operation, `inside` torn ones."""
    with tempfile.TemporaryDirectory() as folder:
        case = board_case(Path(folder) / "board", flow)
        host = board_case(Path(folder) / "host", flow, HostMcu)
        if case.uncut != host.uncut:
            raise AssertionError(f"{flow}: board and host end differently")
        yield faults.campaign(case, itertools.islice(before(case), 0, None, between), "board, before")
        chance = random.Random(flow)
        places = [chance.randrange(len(case.lengths)) for _ in range(inside)]
        plan = [[Cut(at, chance.randrange(case.lengths[at]))] for at in places]
        yield faults.campaign(case, iter(plan), "board, inside")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.agreement.boot_campaign")
    parser.add_argument("--part", choices=("host", "board"), help="only this part")
    parser.add_argument("--flow", choices=faults.FLOWS, help="only this flow")
    parser.add_argument("--stride", type=int, default=4, help="bytes between cuts inside a block")
    parser.add_argument("--fives", type=int, default=2000, help="seeded fives (and torn pairs) for each flow")
    parser.add_argument("--between", type=int, default=1, help="on the board: every n-th operation")
    parser.add_argument("--inside", type=int, default=200, help="on the board: torn operations")
    parser.add_argument("--out", type=Path, help="folder for power_cuts.csv, rows are added")
    chosen = parser.parse_args(arguments)
    flows = faults.FLOWS if chosen.flow is None else (chosen.flow,)
    rows: Iterator[faults.Row] = iter(())
    if chosen.part != "board":
        rows = itertools.chain(rows, host_rows(chosen.stride, chosen.fives, flows))
    if chosen.part != "host":
        for flow in (f for f in flows if f != "full"):
            rows = itertools.chain(rows, board_rows(flow, chosen.between, chosen.inside))
    bad = 0
    for row in rows:
        print(
            f"{row.flow:11s} {row.kind:24s} {row.runs:7d} runs {row.violations:4d} violations {row.example}"
        )
        sys.stdout.flush()
        bad += row.violations
        if chosen.out is not None:
            _add(chosen.out / "power_cuts.csv", row)
    return 1 if bad else 0


def _add(path: Path, row: faults.Row) -> None:
    """One row into the table; an older row of the same flow and kind is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = ["flow", "cuts", "runs", "violations", "example"]
    old: list[list[str]] = []
    if path.exists():
        with path.open(newline="") as file:
            old = [r for r in list(csv.reader(file))[1:] if r[:2] != [row.flow, row.kind]]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([*old, [row.flow, row.kind, row.runs, row.violations, row.example]])


if __name__ == "__main__":
    raise SystemExit(main())
