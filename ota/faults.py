"""Power-cut campaigns against a controller: every flash operation, between and inside, singly and in pairs.

The controller is anything with the mailbox and the flash of ``mcu_model``; a short driver plays the gateway.
For each planned cut the controller is set back to the same start, runs until the supply fails, is powered on
again (perhaps cut again) and taken to the end; the one checker (``invariants``) judges every boot, and the
end must be the uncut end. Deterministic: seeds are part of the case.

    flow        what is interrupted
    update      1.0.0 → 1.1.0 by delta, confirmed
    full        the same by full image
    revert      1.1.0 crashes at boot: three tries, roll back
    parameters  a parameter set alone
    set         firmware and parameter set, all or nothing
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import frames, image, manifest, merkle
from .delta import container
from .errors import Reason
from .flash_model import Cut
from .invariants import Violation, Watch
from .mcu_model import Controller, Mcu, McuConfig
from .testbed import EPOCH_S, SCHEMA, Testbed, firmware_body

FLOWS = ("update", "full", "revert", "parameters", "set")


def talk(mcu: Controller, frame: bytes) -> list[frames.Status | frames.Progress | frames.Answer]:
    return [frames.from_mcu(f) for f in mcu.receive(frame)]


def drive(mcu: Controller, signed: bytes, containers: dict[int, bytes], rounds: int = 60) -> bool:
    """Play the gateway until the set is installed or refused; True if it is installed."""
    ident = hashlib.sha256(signed).digest()[:8]
    for _ in range(rounds):
        if not mcu.running:
            return False
        found = [m for m in talk(mcu, frames.pack(frames.HELLO)) if isinstance(m, frames.Status)]
        if not found:
            return False
        status = found[-1]
        if status.installed8 == ident:
            return True
        if status.phase is frames.McuPhase.TEST:
            continue
        if status.phase is frames.McuPhase.STAGED and status.manifest8 == ident:
            talk(mcu, frames.pack(frames.ACTIVATE, ident))
        elif status.manifest8 == ident:
            for image_id, data in containers.items():
                _feed(mcu, image_id, data, status.next_offset[image_id])
        else:
            answers = [m for f in frames.pack_manifest(signed) for m in talk(mcu, f)]
            if any(isinstance(a, frames.Answer) and a.reason is not Reason.OK for a in answers):
                return False
    return False


def _feed(mcu: Controller, image_id: int, data: bytes, offset: int) -> None:
    while True:
        piece = data[offset : offset + frames.DATA_MAX]
        rows = [
            m for m in talk(mcu, frames.pack_data(image_id, offset, piece)) if isinstance(m, frames.Progress)
        ]
        offset += len(piece)
        if not piece or offset >= len(data) or not rows or rows[-1].next_offset != offset:
            return


@dataclass
class Case:
    """A controller before an update, and the update."""

    flow: str
    mcu: Controller
    signed: bytes
    containers: dict[int, bytes]
    allowed: list[tuple[bytes, bytes]]
    start: object
    uncut: str = ""
    lengths: list[int] = field(default_factory=list)
    counter_after: int = 1
    new: bytes = b""

    def reset(self) -> None:
        """Back to the start, powered and running."""
        self.mcu.restore(self.start)
        self.mcu.boots.clear()
        self.mcu.power_on()
        self.mcu.boots.clear()


def make_case(
    folder: Path,
    flow: str,
    size: int = 9 * 1024,
    seed: int = 0,
    controller: Callable[[McuConfig, int], Controller] = Mcu,
    new_counter: int = 2,
) -> Case:
    """Build the world of a flow; the uncut run gives the operation count and the end to be reached."""
    bed = Testbed(folder, seed=seed, slot_size=16 * 1024, controller=controller)
    with_set = flow in ("parameters", "set")
    schema = (1, 1) if with_set else None
    old = bed.firmware("1.0.0", firmware_body(size, seed), schema=schema)
    new = bed.firmware("1.1.0", firmware_body(size, seed, edits=4), new_counter, schema=schema)
    old_set = bed.parameter_set("1.0.0", 1) if with_set else b""
    new_set = bed.parameter_set("1.1.0", 2, temperature_max=330.0) if with_set else b""
    mcu = bed.new_mcu("dev", old, old_set, (lambda digest: SCHEMA) if with_set else None)
    if flow == "revert":
        mcu.behaviour[hashlib.sha256(new).digest()] = "crash"
    files: dict[int, bytes] = {}
    containers: dict[int, bytes] = {}
    if flow != "parameters":
        files[0] = new
        containers[0] = container.wrap_full(new) if flow == "full" else container.create(old, new)
    if with_set:
        files[1] = new_set
        containers[1] = container.wrap_full(new_set)
    components = tuple(
        manifest.Component(
            image_id,
            hashlib.sha256(data).digest(),
            len(data),
            image.parse(data).version,
            image.parse(data).security_counter or 0,
            merkle.file_root(data),
            image.parse(data).parameter_schema,
        )
        for image_id, data in files.items()
    )
    expires = int(EPOCH_S) + 86400
    signed = manifest.Manifest(
        2, bed.vendor_id, bed.class_id, (), "ecu-dev", bytes(16), expires, 0, components
    ).sign(bed.keys["online"])

    def digest(data: bytes) -> bytes:
        return hashlib.sha256(data).digest() if data else bytes(32)

    before = (digest(old), digest(old_set))
    after = (digest(files.get(0, old)), digest(files.get(1, old_set)))
    case = Case(flow, mcu, signed, containers, [before, after], mcu.snapshot())
    case.new = new
    case.counter_after = new_counter if 0 in files and flow != "revert" else 1
    case.reset()
    drive(mcu, signed, containers)
    case.uncut = mcu.state_digest()
    case.lengths = list(mcu.flash.lengths)
    return case


def run_cuts(case: Case, cuts: list[Cut]) -> list[Violation]:
    """Interrupt once per entry of ``cuts`` (each counted from the power-on before it), then finish."""
    mcu = case.mcu
    case.reset()
    watch = Watch(case.allowed, kept=mcu.flash.read(mcu.kept, 64), max_boots=3)
    pending = list(cuts)
    mcu.flash.arm(pending.pop(0) if pending else None)
    boots = 0
    while True:
        boots += 1
        if boots > 4 * (len(cuts) + 2):
            watch.violations.append(Violation("I1", "no end after many power-ons"))
            break
        try:
            if not mcu.running and not mcu.power_on():
                watch.violations.append(Violation("I1", "does not boot"))
                break
            drive(mcu, case.signed, case.containers)
            if mcu.running and mcu.flash.cut is None:
                break
            if mcu.running:  # the cut lies beyond the end of this run: nothing more will happen
                mcu.flash.arm(None)
                drive(mcu, case.signed, case.containers)
                break
        except mcu.PowerCut:
            mcu.running = False
            mcu.flash.arm(pending.pop(0) if pending else None)
        counters = mcu.counters()
        watch.device(
            (counters.security, counters.parameters, counters.manifest),
            mcu.flash.read(mcu.kept, 64),
            case.counter_after,
        )
    watch.boots(mcu.boots)
    counters = mcu.counters()
    confirmed = case.counter_after
    watch.device(
        (counters.security, counters.parameters, counters.manifest), mcu.flash.read(mcu.kept, 64), confirmed
    )
    watch.alive(mcu.running)
    if not watch.violations and mcu.state_digest() != case.uncut:
        watch.violations.append(Violation("I4", "end differs from the uncut run"))
    return watch.violations


def single_cuts(case: Case, data_points: int = 6, record_stride: int = 1, seed: int = 0) -> Iterator[Cut]:
    """Before every operation, and inside: bytes of records, ``data_points`` seeded bytes of blocks."""
    rng = random.Random(seed)
    for at, length in enumerate(case.lengths):
        yield Cut(at)
        if length <= 64:
            inside = sorted({*range(0, length, record_stride), length - 1})
        else:
            inside = sorted({0, 1, length - 1, *(rng.randrange(length) for _ in range(data_points))})
        for k in inside:
            yield Cut(at, k)


def stage_all(case: Case) -> None:
    """Everything received, nothing activated."""
    case.reset()
    for frame in frames.pack_manifest(case.signed):
        talk(case.mcu, frame)
    for image_id, data in case.containers.items():
        _feed(case.mcu, image_id, data, 0)


def metadata_places(data: bytes) -> list[int]:
    """Bytes of an image file that are not its body: header, TLVs, signature."""
    parsed = image.parse(data)
    return [*range(32), *range(parsed.header_size + parsed.body_size, len(data))]


@dataclass
class Row:
    flow: str
    kind: str
    runs: int
    violations: int
    example: str = ""


def campaign(
    case: Case, plan: Iterator[list[Cut]], kind: str, progress: Callable[[int], None] = lambda n: None
) -> Row:
    """Run all planned interruptions of one case."""
    row = Row(case.flow, kind, 0, 0)
    for cuts in plan:
        found = run_cuts(case, cuts)
        row.runs += 1
        if found:
            row.violations += 1
            row.example = row.example or f"{cuts}: {found[0].invariant} {found[0].detail}"
        progress(row.runs)
    return row


def flips(case: Case, body_points: int, seed: int = 0) -> Row:
    """B5: each bit of header, TLVs and signature, seeded bits of the body, each bit of the journal.

    Flipped in the staged slot (then activated: the old image must go on), in the running slot of an installed
    update and in the journal (then started: something permitted must run). The update of the case must not
    raise the security counter, or the old image may rightly not run again.
    """
    rng = random.Random(seed)
    row = Row(case.flow, "bit flips", 0, 0)
    mcu, ident = case.mcu, hashlib.sha256(case.signed).digest()[:8]
    places = [(at, bit) for at in metadata_places(case.new) for bit in range(8)]
    body = range(544, len(case.new))
    places += [(rng.choice(body), rng.randrange(8)) for _ in range(body_points)]

    def start(state: object, at: int, bit: int) -> None:
        mcu.restore(state)
        mcu.boots.clear()
        mcu.flash.data[at] ^= 1 << bit
        mcu.power_on()

    def judge(allowed: list[tuple[bytes, bytes]], what: str) -> None:
        watch = Watch(allowed, max_boots=2)
        watch.boots(mcu.boots)
        watch.alive(mcu.running)
        row.runs += 1
        if watch.violations:
            row.violations += 1
            row.example = row.example or f"{what}: {watch.violations[0].detail}"

    stage_all(case)
    staged = mcu.snapshot()
    for at, bit in places:
        start(staged, mcu.slots[1] + at, bit)
        talk(mcu, frames.pack(frames.ACTIVATE, ident))
        judge(case.allowed[:1], f"staged, byte {at}")
    case.reset()
    drive(mcu, case.signed, case.containers)
    installed, running = mcu.snapshot(), mcu.slots[mcu.journal().slot]
    for at, bit in places:
        start(installed, running + at, bit)
        judge(case.allowed, f"running, byte {at}")
    for copy in mcu.journal_copies:
        for at in range(28 * 8):
            start(installed, copy + at // 8, at % 8)
            judge(case.allowed, f"journal, byte {at // 8}")
    return row


def singles(case: Case, data_points: int = 6, record_stride: int = 1) -> Iterator[list[Cut]]:
    """Every single cut; the strides thin out the torn ones for a quick run."""
    for cut in single_cuts(case, data_points, record_stride):
        yield [cut]


def pairs(case: Case, stride: int = 1) -> Iterator[list[Cut]]:
    """All pairs of cuts between operations (the second counted from the power-on after the first)."""
    n = len(case.lengths)
    for first in range(0, n, stride):
        for second in range(0, n - first + 2, stride):
            yield [Cut(first), Cut(second)]


def quintuples(case: Case, number: int, seed: int = 0) -> Iterator[list[Cut]]:
    """Seeded fives, half of them torn."""
    rng = random.Random(seed)
    n = len(case.lengths)
    for _ in range(number):
        yield [Cut(rng.randrange(n), None if rng.random() < 0.5 else rng.randrange(4097)) for _ in range(5)]
