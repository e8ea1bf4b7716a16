"""Random update sequences played to the modelled controller and to the C code: same answers, same flash.

    python tests/agreement/sequences.py --number 2000 --seed 1

One sequence: a device with firmware and parameter set, manifests and containers (good, for another base,
damaged, of another device, replayed), and events in random order: frames whole, cut up, repeated, lost,
damaged or foreign; power cycles; supply failures before a chosen flash operation; conditions; flips in what
is staged. After every event answers, records, stage, progress, tables and slots are compared.

Not compared: the numbering of counter records (the C ROM also keeps counters in the HSM) and torn words (each
side has its own chance); power cuts inside operations are the campaign's (``ota faults --controller``).
"""

from __future__ import annotations

import argparse
import hashlib
import random
import struct
import sys
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bms_emulator.host_mcu import HostMcu, partitions
from ota import frames, image, manifest, merkle
from ota.delta import container
from ota.faults import Cut
from ota.mcu_model import Mcu
from ota.testbed import EPOCH_S, SCHEMA, Testbed, firmware_body

SLOT = 256 * 1024
EVENTS = {
    "hello": 6,
    "manifest": 8,
    "feed": 40,
    "activate": 8,
    "cancel": 2,
    "power": 3,
    "conditions": 3,
    "garbage": 4,
    "cut": 5,
    "flip": 1,
    "install": 4,
}


@dataclass
class World:
    """Signed material, made once; a sequence picks from it."""

    bed: Testbed
    old: bytes
    old_set: bytes
    manifests: list[bytes]
    containers: list[tuple[int, bytes]]
    sets: list[tuple[bytes, list[tuple[int, bytes]]]]
    behaviour: dict[bytes, str] = field(default_factory=dict)


def make_world(folder: Path, size: int = 9000) -> World:
    """Releases of every kind, good and bad."""
    bed = Testbed(folder, slot_size=SLOT)
    old = bed.firmware("1.0.0", firmware_body(size), schema=(1, 1))
    new = bed.firmware("1.1.0", firmware_body(size, edits=4), security_counter=2, schema=(1, 1))
    # differs in its last block only: the others are unchanged
    late = bed.firmware("1.0.1", firmware_body(size)[:-40] + bytes(40), schema=(1, 1))
    bad = bed.firmware("1.2.0", firmware_body(size, edits=2), security_counter=2, schema=(1, 1))
    fussy = bed.firmware("1.3.0", firmware_body(5000), security_counter=2, schema=(2, 3))
    other_base = bed.firmware("1.0.0", firmware_body(size)[:-4] + b"\1\2\3\4", schema=(1, 1))
    old_set = bed.parameter_set("1.0.0", 1)
    new_set = bed.parameter_set("1.1.0", 2, temperature_max=330.0)

    def signed(sequence: int, *files: bytes, **changes: object) -> bytes:
        parts = tuple(
            manifest.Component(
                0 if image.parse(data).bootable else 1,
                hashlib.sha256(data).digest(),
                len(data),
                image.parse(data).version,
                image.parse(data).security_counter or 0,
                merkle.file_root(data),
                image.parse(data).parameter_schema,
            )
            for data in files
        )
        row: dict[str, Any] = {
            "sequence": sequence,
            "vendor_id": bed.vendor_id,
            "class_id": bed.class_id,
            "hardware_revisions": (),
            "device": "ecu-dev",
            "deployment": bytes(16),
            "expires_s": int(EPOCH_S) + 86400,
            "preconditions": frames.CONDITION_CHARGING,
            "components": parts,
            **changes,
        }
        return manifest.Manifest(**row).sign(bed.keys["online"])

    full = {
        name: container.wrap_full(data) for name, data in (("new", new), ("late", late), ("set", new_set))
    }
    delta = {name: container.create(old, data) for name, data in (("new", new), ("late", late), ("bad", bad))}
    sets = [
        (signed(2, new), [(0, delta["new"])]),
        (signed(3, late), [(0, delta["late"])]),
        (signed(2, new_set), [(1, full["set"])]),
        (signed(4, new, new_set), [(0, full["new"]), (1, full["set"])]),
        (signed(5, new_set, late), [(1, container.create(old_set, new_set)), (0, full["late"])]),
        (signed(4, bad), [(0, delta["bad"])]),
        (signed(5, fussy), [(0, container.wrap_full(fussy))]),
    ]
    manifests = [m for m, _ in sets] + [
        signed(1, old),
        signed(6, new, device="ecu-other"),
        signed(6, new, hardware_revisions=(7,)),
        signed(6, new, expires_s=int(EPOCH_S) - 1),
        signed(6, new)[:-1] + b"\0",
    ]
    damaged = bytearray(delta["new"])
    damaged[-50] ^= 4
    containers = [row for _, rows in sets for row in rows]
    containers += [
        (0, bytes(damaged)),
        (0, container.create(other_base, new)),
        (0, container.create(new, late)),
        (0, container.wrap_full(old)),
    ]
    world = World(bed, old, old_set, manifests, containers, sets)
    world.behaviour[hashlib.sha256(bad).digest()] = "crash"
    return world


class Pair:
    """The two controllers, driven alike."""

    def __init__(self, world: World) -> None:
        self.model: Mcu = self._make(world, Mcu)
        self.c: HostMcu = self._make(world, HostMcu)
        part, m = partitions(), self.model
        model_at = {
            "stage": m._stage,
            "blacklist": m._blacklist,
            **{f"progress_{i}": m._progress[i] for i in (0, 1)},
            **{f"table_{i}": m._table[i] for i in (0, 1)},
            **{f"slot_{i}": m.slots[i] for i in (0, 1)},
            **{f"parameters_{i}": m.parameter_slots[i] for i in (0, 1)},
        }
        small = {"parameters_0", "parameters_1"}
        self.places = [(at, part[n][0], 8192 if n in small else min(part[n][1], 24 * 1024), n)
                       for n, at in model_at.items()]  # fmt: skip

    @staticmethod
    def _make(world: World, kind: Any) -> Any:
        world.bed.controller = kind
        mcu = world.bed.new_mcu("dev", world.old, world.old_set, lambda digest: SCHEMA)
        mcu.behaviour.update(world.behaviour)
        return mcu

    @property
    def both(self) -> tuple[Any, Any]:
        return self.model, self.c

    def send(self, frame: bytes) -> tuple[list[bytes], list[bytes]]:
        """Answers of both; a cut is an answer of its own."""
        answers: list[list[bytes]] = []
        for mcu in self.both:
            try:
                answers.append(mcu.receive(frame))
            except mcu.PowerCut:
                mcu.running = False
                answers.append([b"cut"])
        return answers[0], answers[1]

    def difference(self) -> str:
        """What differs in the flash, or nothing."""
        for a, b, size, name in self.places:
            x, y = bytes(self.model.flash.data[a : a + size]), bytes(self.c.flash.data[b : b + size])
            if x != y:
                first = next(i for i in range(size) if x[i] != y[i])
                return f"{name} at byte {first}: model {x[first]:02x}, C {y[first]:02x}"
        left, right = self.model.journal(), self.c.journal()
        if left is None or right is None:
            return "" if left is right else "journal lost on one side"
        for name in left.__dataclass_fields__:
            if getattr(left, name) != getattr(right, name):
                return f"journal.{name}: model {getattr(left, name)}, C {getattr(right, name)}"
        have, c = self.model.counters(), self.c.counters()
        if (have.security, have.parameters, have.manifest) != (c.security, c.parameters, c.manifest):
            return f"counters: model {have}, C {c}"
        return ""


def _feed(rng: random.Random, pair: Pair, image_id: int, data: bytes) -> list[bytes]:
    """A few frames that go on with a container where the controller wants it, in pieces of random size."""
    status = frames.from_mcu(pair.model.status_frame())
    assert isinstance(status, frames.Status)
    offset = status.next_offset[image_id]
    out = []
    for _ in range(rng.choice((1, 3, 12, 40))):
        size = rng.choice((0, 1, 37, 500, frames.DATA_MAX, frames.DATA_MAX))
        out.append(frames.pack_data(image_id, offset, data[offset : offset + size]))
        offset += size
        if offset >= len(data):
            break
    if rng.random() < 0.1 and len(out) > 2:  # lost or repeated
        out[rng.randrange(len(out))] = out[rng.randrange(len(out))]
    return out


def _garbage(rng: random.Random, signed: bytes) -> bytes:
    source = rng.choice(
        [
            *frames.pack_manifest(signed),
            frames.pack_data(0, 0, b"BTD1" + bytes(200)),
            frames.pack(frames.HELLO),
            frames.pack(frames.ANSWER, bytes(4)),
            rng.randbytes(rng.randrange(1, 40)),
        ]
    )
    bad = bytearray(source)
    for _ in range(rng.choice((1, 2))):
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.5 and len(bad) > 8:  # with a good checksum: what stands behind it is meant
        bad[-4:] = struct.pack("<I", zlib.crc32(bytes(bad[:-4])))
    return bytes(bad)


def _frames(rng: random.Random, world: World, pair: Pair, kind: str, signed: bytes) -> list[bytes]:
    """What is sent in an event of this kind."""
    ident = hashlib.sha256(signed).digest()[:8]
    if kind == "hello":
        return [frames.pack(frames.HELLO)]
    if kind == "manifest" or (kind == "cut" and rng.random() < 0.3):
        queue = frames.pack_manifest(signed)
        if rng.random() < 0.1:
            rng.shuffle(queue)
        return queue
    if kind in ("feed", "cut"):
        return _feed(rng, pair, *rng.choice(world.containers))
    if kind == "activate":
        return [frames.pack(frames.ACTIVATE, ident if rng.random() < 0.9 else bytes(8))]
    if kind == "cancel":
        return [frames.pack(frames.CANCEL, rng.choice((bytes(8), ident, b"x" * 8, b"")))]
    if kind == "garbage":
        return [_garbage(rng, signed)]
    if kind == "install":  # a whole update in order, so that deep states are reached
        signed, rows = rng.choice(world.sets)
        queue = frames.pack_manifest(signed)
        for image_id, data in rows:
            queue += [
                frames.pack_data(image_id, at, data[at : at + frames.DATA_MAX])
                for at in range(0, len(data), frames.DATA_MAX)
            ]
        queue.append(frames.pack(frames.ACTIVATE, hashlib.sha256(signed).digest()[:8]))
        return [*queue, frames.pack(frames.HELLO)] if rng.random() < 0.7 else queue
    return []


def play(world: World, seed: int, events: int = 60) -> tuple[str, Counter[str]]:
    """One sequence; (what differed or nothing, how often each event and answer occurred)."""
    rng = random.Random(seed)
    pair = Pair(world)
    seen: Counter[str] = Counter()
    signed = rng.choice(world.manifests)
    trace = []
    for _ in range(events):
        kind = rng.choices(list(EVENTS), list(EVENTS.values()))[0]
        trace.append(kind)
        seen[kind] += 1
        if kind == "manifest" and rng.random() < 0.4:
            signed = rng.choice(world.manifests)
        if kind == "conditions":
            bits, clock = rng.choice((0, 0, 1, 2, 4, 8, 16, 31)), rng.choice((None, EPOCH_S, EPOCH_S + 10**6))
            for mcu in pair.both:
                mcu.conditions, mcu.clock_s = bits, clock
        if kind == "flip":
            a, b, size, _ = rng.choice([p for p in pair.places if p[3] != "blacklist"])
            at, bit = rng.randrange(min(size, 300)), 1 << rng.randrange(8)
            pair.model.flash.data[a + at] ^= bit
            pair.c.flash.data[b + at] ^= bit
        queue = _frames(rng, world, pair, kind, signed)
        if kind == "cut":  # in the staging of a set both sides do the same operations one by one
            for mcu in pair.both:
                mcu.flash.arm(Cut(rng.randrange(8) if mcu is pair.model else pair.model.flash.cut.at))
        for frame in queue:
            left, right = pair.send(frame)
            if left != right:
                return f"seed {seed}, {trace[-5:]}: answers {_tell(left)} / {_tell(right)}", seen
            for answer in left:
                seen[_tell([answer])] += 1
            if left == [b"cut"]:
                break
        for mcu in pair.both:
            mcu.flash.arm(None)
        if kind in ("power", "flip") or not pair.model.running:
            # After a flip: what stands in RAM is not read again before the next start.
            for mcu in pair.both:
                mcu.power_on()
            if pair.model.running != pair.c.running:
                return f"seed {seed}, {trace[-5:]}: boots on one side only", seen
            if not pair.model.running:
                break  # both slots were flipped
        found = pair.difference()
        if found:
            return f"seed {seed}, {trace[-5:]}: {found}", seen
    pair.c.close()
    return "", seen


def _tell(answers: list[bytes]) -> str:
    names = []
    for answer in answers:
        if answer == b"cut":
            names.append("cut")
            continue
        row = frames.from_mcu(answer)
        if isinstance(row, frames.Status):
            names.append(f"STATUS {row.phase.name} {row.reason.name}")
        elif isinstance(row, frames.Progress):
            names.append(f"PROGRESS {row.reason.name}")
        else:
            names.append(f"ANSWER {row.to:02x} {row.reason.name}")
    return ", ".join(names) or "nothing"


def main() -> int:
    """Play sequences, print what occurred and what differed; exit code 1 if anything did."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    total: Counter[str] = Counter()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        for seed in range(chosen.seed, chosen.seed + chosen.number):
            found, seen = play(world, seed)
            total += seen
            if found:
                failed += 1
                print(found)
    for name, n in sorted(total.items()):
        print(f"{n:8d}  {name}")
    print(f"{chosen.number} sequences, {failed} different")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
