"""Mutation fuzzing of the C parsers and the agent; every verdict is compared with the Python one.

    python tests/agreement/fuzz.py --number 20000                        parsers, C against Python
    python tests/agreement/fuzz.py --number 100000 --only mailbox        frames into a live agent
    LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \\
        python tests/agreement/fuzz.py --number 20000 --variant asan     under AddressSanitizer and UBSan

Variant `ubsan` needs no preload (traps, ziglang). Corpora are made from seeds: images, parameter sets,
manifests, containers, block records, frames; mutations are flips, special bytes, insertions, deletions, cuts,
and for signed things also changes *before* signing, so that what stands behind the signature is reached too.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bms_emulator.host_mcu import HostMcu, Parsers
from ota import cbor, cose, frames, image, manifest, merkle
from ota.delta import container, patch
from ota.errors import OtaError, Reason
from ota.mcu_model import McuConfig
from ota.testbed import EPOCH_S, SCHEMA, Testbed, firmware_body

SPECIAL = (0, 1, 0x17, 0x18, 0x19, 0x1B, 0x1C, 0x40, 0x60, 0x80, 0xA0, 0xC0, 0xF4, 0xF6, 0xFF)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        2,
        255,
        256,
        65535,
        65536,
        2**32 - 1,
        2**32,
        2**53,
        2**53 + 1,
        2**64 - 1,
        -1,
        -8,
    ),
    *(b"", bytes(16), bytes(32), bytes(31), "", "x", "ä" * 64, "ä" * 65, "x" * 257),
    *([], [0], [1, 2, 3, 4], [1, 1, 65536, 1], [0] * 33, [True], [-1], [[1]], {}, {1: 1}, cbor.Tag(1, 0)),
)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """One to three small changes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not out:
            break
        at = rng.randrange(len(out))
        kind = rng.randrange(6)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.choice((*SPECIAL, rng.randrange(256)))
        elif kind == 2:
            del out[at : at + rng.choice((1, 1, 2, 4))]
        elif kind == 3:
            out[at:at] = bytes([rng.randrange(256)] * rng.choice((1, 1, 2)))
        elif kind == 4:
            del out[at:]
        else:
            out.append(rng.randrange(256))
    return bytes(out)


def tweak(rng: random.Random, value: Any) -> Any:
    """A CBOR value with one field changed, removed, added or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        value = dict(value)
        key, chance = rng.choice(list(value)), rng.random()
        if chance < 0.15:
            del value[key]
        elif chance < 0.3:
            value[rng.choice((0, 1, 2, 8, 11, 12, "a", 31, 32, 40, 2**40, -1))] = rng.choice(VALUES)
        else:
            value[key] = tweak(rng, value[key])
        return value
    if isinstance(value, list) and value and rng.random() < 0.8:
        value = list(value)
        i, chance = rng.randrange(len(value)), rng.random()
        if chance < 0.15:
            del value[i]
        elif chance < 0.4:
            value.insert(i, rng.choice(value))
        else:
            value[i] = tweak(rng, value[i])
        return value
    return rng.choice(VALUES)


def reason(function: Callable[..., Any], *arguments: Any) -> int:
    """Reason code of a call, 0 if it is accepted."""
    try:
        function(*arguments)
    except OtaError as error:
        return int(error.reason)
    return 0


class Fuzzer:
    """The corpora and one method for each parser: (Python verdict, C verdict, the bytes)."""

    KINDS = ("cbor", "cose", "manifest", "frame", "patch", "container", "firmware", "parameters")

    def __init__(self, folder: Path, seed: int, variant: str = "release") -> None:
        self.rng = random.Random(seed)
        bed = Testbed(folder, slot_size=256 * 1024)
        self.bed = bed
        self.old = bed.firmware("1.0.0", firmware_body(9000), schema=(1, 1))
        self.new = bed.firmware("1.1.0", firmware_body(9000, edits=4), security_counter=2, schema=(1, 1))
        self.set = bed.parameter_set("1.0.0", 1)
        self.config = McuConfig(
            serial="ecu-dev",
            vendor_id=bed.vendor_id,
            class_id=bed.class_id,
            hardware_revision=1,
            image_keys=(bed.keys["image"].public,),
            manifest_keys=(bed.keys["online"].public,),
            slot_size=256 * 1024,
            parameter_size=16 * 1024,
            schema_of=lambda digest: SCHEMA,
        )
        self.variant = variant
        self.c = Parsers(self.config, variant)
        self.key = bed.keys["online"]
        parsed = image.parse(self.new)
        components = (
            manifest.Component(
                0,
                hashlib.sha256(self.new).digest(),
                len(self.new),
                parsed.version,
                2,
                merkle.file_root(self.new),
                (1, 2),
                manifest.DeltaRef(hashlib.sha256(self.old).digest(), bytes(32), 77),
            ),
            manifest.Component(1, bytes(32), 100, parsed.version, 2, bytes(32)),
        )
        self.manifest = manifest.Manifest(
            2,
            bed.vendor_id,
            bed.class_id,
            (1, 2),
            "ecu-dev",
            bytes(16),
            int(EPOCH_S) + 86400,
            3,
            components,
        )
        self.payload = cbor.decode(
            cose.open_unverified(self.manifest.sign(self.key), manifest.CONTENT_TYPE)[1]
        )
        self.protected = {1: -8, 3: manifest.CONTENT_TYPE, 4: self.key.public.kid}
        index = patch.SuffixIndex(self.old)
        blocks = merkle.blocks(self.new)
        plain = [bytes([0]) + patch.pack_size(len(b)) + index.difference(b) for b in blocks]
        self.records = [(patch.encode_block(index, b), len(b)) for b in blocks]
        self.records += [(r, len(b)) for r, b in zip(plain, blocks, strict=True)]
        self.container = container.create(self.old, self.new)

    def one(self, kind: str) -> tuple[int, int, bytes]:
        """A mutated input of this kind through both parsers."""
        result: tuple[int, int, bytes] = getattr(self, f"_{kind}")()
        return result

    def _cbor(self) -> tuple[int, int, bytes]:
        rng = self.rng
        if rng.random() < 0.7:
            data = mutate(rng, cbor.encode(self.payload))
        else:
            heads = (0xA1, 0x81, 0x82, 0x01, 0x20, 0x61, 0x41, 0xC2, 0xF5, 0x18, 0x19)
            data = bytes(rng.choice((*heads, rng.randrange(256))) for _ in range(rng.randrange(1, 30)))
        return reason(cbor.decode, data), self.c.cbor(data), data

    def _sealed(self, protected: bytes, body: bytes) -> bytes:
        signature = self.key.sign(cose._to_be_signed(protected, body))
        message: Any = [protected, {}, body, signature]
        if self.rng.random() < 0.1:
            message = tweak(self.rng, message)
        return cbor.encode(cbor.Tag(18 if self.rng.random() < 0.98 else 17, message))

    def _verdicts(self, data: bytes) -> tuple[int, int, bytes]:
        return reason(manifest.verify, data, [self.key.public]), self.c.manifest(data)[0], data

    def _cose(self) -> tuple[int, int, bytes]:
        if self.rng.random() < 0.4:
            return self._verdicts(mutate(self.rng, self.manifest.sign(self.key)))
        protected, body = cbor.encode(self.protected), mutate(self.rng, cbor.encode(self.payload))
        if self.rng.random() < 0.3:
            protected = mutate(self.rng, protected)
        return self._verdicts(self._sealed(protected, body))

    def _manifest(self) -> tuple[int, int, bytes]:
        value, protected = tweak(self.rng, self.payload), self.protected
        if self.rng.random() < 0.3:
            value = tweak(self.rng, value)
        if self.rng.random() < 0.2:
            protected = tweak(self.rng, protected)
        return self._verdicts(self._sealed(cbor.encode(protected), cbor.encode(value)))

    def _frame(self) -> tuple[int, int, bytes]:
        data = mutate(self.rng, frames.pack_data(0, 5, bytes(20)))
        if self.rng.random() < 0.3 and len(data) > 8:
            data = data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))
        return reason(frames.unpack, data), self.c.frame(data), data

    def _patch(self) -> tuple[int, int, bytes]:
        record, size = self.rng.choice(self.records)
        data = mutate(self.rng, record) if self.rng.random() < 0.95 else record
        data = data[:4096] or b"\0"
        if self.rng.random() < 0.1:
            size = self.rng.randrange(1, 4097)
        said, block = self.c.patch(self.old, data, size, self.rng.choice((1, 7, 100, 1024, 5000)))
        try:
            wanted = patch.decode_block(self.old, data, size)
        except OtaError as error:
            return int(error.reason), said, data
        return 0, said if block == wanted else -1, data

    def _container(self) -> tuple[int, int, bytes]:
        head = bytearray(self.container[:300])
        for _ in range(self.rng.choice((1, 2))):
            head[self.rng.randrange(len(head))] = self.rng.randrange(256)
        if self.rng.random() < 0.8:
            struct.pack_into("<I", head, 116, zlib.crc32(bytes(head[:116])))
        data = bytes(head)

        def read(data: bytes) -> None:
            n, _, _ = container.read_header(data)
            if n > 64:
                raise OtaError(Reason.SLOT_SIZE)
            container.read_table(data + bytes(32 * 64 + 200), n)

        return reason(read, data), self.c.container(data), data

    def _file(self, good: bytes, bootable: bool) -> tuple[int, int, bytes]:
        rng = self.rng
        parsed = image.parse(good)
        places = [*range(32), *range(parsed.header_size + parsed.body_size, len(good))]
        out = bytearray(good)
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.choice(places)
            out[at] = rng.choice((out[at] ^ 1 << rng.randrange(8), *SPECIAL))
        data = bytes(out)
        if rng.random() < 0.6:
            data = _signed_again(data, self.bed.keys["image"])

        def accept(data: bytes) -> None:
            # The slot has no end mark: the file ends where its own lengths say.
            parsed = image.HEADER.unpack_from(data)
            free = parsed[2] + parsed[4] + parsed[3]
            if parsed[0] == image.MAGIC and free + 4 <= len(data):
                data = data[: free + struct.unpack_from("<H", data, free + 2)[0]]
            policy = image.Policy(
                keys=self.config.image_keys,
                vendor_id=self.config.vendor_id,
                class_id=self.config.class_id,
                hardware_revision=1,
                bootable=bootable,
                load_addresses=(0x0800_0000,),
                slot_size=256 * 1024,
            )
            image.verify(data, policy)

        wanted, said = reason(accept, data + b"\xff" * 64), self.c.image(data + b"\xff" * 64, bootable)
        # The ROM does not say which of several things is wrong first, or whether a key is unknown.
        return wanted, wanted if wanted and said else said, data

    def _firmware(self) -> tuple[int, int, bytes]:
        return self._file(self.new, True)

    def _parameters(self) -> tuple[int, int, bytes]:
        return self._file(self.set, False)

    def mailbox(self, number: int) -> tuple[int, Counter[str]]:
        """Frames into a live agent: it must go on answering, and what ran must stay what runs.

        Returns the number of frames and how often each kind of answer came.
        """
        mcu = HostMcu(self.config, 1, self.variant)
        mcu.manufacture(self.old, self.set)
        assert mcu.power_on()
        running = mcu.firmware_file(0), mcu.parameter_file(0)
        signed = self.manifest.sign(self.key)
        good = frames.pack_manifest(signed) + [
            frames.pack_data(0, at, self.container[at : at + 700])
            for at in range(0, len(self.container), 700)
        ]
        seen: Counter[str] = Counter()
        for i in range(number):
            frame = good[i % len(good)] if self.rng.random() < 0.5 else self.rng.choice(good)
            if self.rng.random() < 0.7:
                frame = mutate(self.rng, frame)
                if self.rng.random() < 0.8 and len(frame) > 8:
                    body = frame[:2] + struct.pack("<H", len(frame) - 8) + frame[4:-4]
                    frame = body + struct.pack("<I", zlib.crc32(body))
            for answer in mcu.receive(frame):
                row = frames.from_mcu(answer)
                seen[f"{type(row).__name__} {row.reason.name}"] += 1
        answers = [frames.from_mcu(a) for a in mcu.receive(frames.pack(frames.HELLO))]
        assert isinstance(answers[0], frames.Status), "the agent no longer answers"
        assert (mcu.firmware_file(0), mcu.parameter_file(0)) == running, "what runs was changed"
        mcu.close()
        return number, seen


def _signed_again(data: bytes, key: Any) -> bytes:
    """Digest, key hash and signature made anew where the lengths still permit it."""
    _, _, header, protected, body, *_ = image.HEADER.unpack_from(data)
    end = header + body + protected
    if end > len(data) or header < 32:
        return data
    digest = hashlib.sha256(data[:end]).digest()
    rows = ((0x10, digest), (0x01, key.public.key_hash), (0x24, key.sign(digest)))
    free = b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in rows)
    return data[:end] + struct.pack("<HH", image.TLV_INFO_FREE, 4 + len(free)) + free


def main() -> int:
    """Fuzz, print the table of verdicts; exit code 1 if a verdict differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--number", type=int, default=2000, help="inputs for each parser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", default="release", choices=("release", "ubsan", "asan"))
    parser.add_argument("--only", choices=(*Fuzzer.KINDS, "mailbox"))
    chosen = parser.parse_args()
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), chosen.seed, chosen.variant)
        print("parser,variant,inputs,accepted,refused,reasons,different")
        for kind in Fuzzer.KINDS if chosen.only is None else ():
            different += _row(fuzzer, kind, chosen.number)
        if chosen.only in Fuzzer.KINDS:
            different += _row(fuzzer, chosen.only, chosen.number)
        elif chosen.only == "mailbox" or chosen.only is None:
            n, seen = fuzzer.mailbox(chosen.number)
            refused = sum(v for k, v in seen.items() if not k.endswith(" OK"))
            print(f"mailbox,{chosen.variant},{n},{sum(seen.values()) - refused},{refused},{len(seen)},0")
    return different > 0


def _row(fuzzer: Fuzzer, kind: str, number: int) -> int:
    seen: Counter[int] = Counter()
    different = 0
    for _ in range(number):
        python, c, data = fuzzer.one(kind)
        seen[python] += 1
        if python != c:
            different += 1
            print(f"{kind}: Python {python}, C {c}: {data.hex()[:400]}", file=sys.stderr)
    refused = number - seen[0]
    print(f"{kind},{fuzzer.variant},{number},{seen[0]},{refused},{len(seen)},{different}")
    return different


if __name__ == "__main__":
    sys.exit(main())
