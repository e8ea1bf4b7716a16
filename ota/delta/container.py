"""The delta file: what travels, what the MCU applies block by block.

Layout, little-endian; the file is read front to back, records may also be fetched singly::

    offset  size  field
    0       4     "BTD1"
    4       1     block size exponent, 12
    5       1     flags, 0
    6       2     number of blocks n = ⌈target length / 4096⌉
    8       4     base length
    12      4     target length
    16      4     record bytes R (all records together)
    20      32    SHA-256 of the base file
    52      32    SHA-256 of the target file
    84      32    Merkle root over the target's blocks (``merkle``)
    116     4     CRC-32 of bytes 0…115 (transmission only; trust comes from the signed manifest)
    120     2·n   block words: kind << 14 | record length
    ...     32·m  leaf hashes SHA-256(0x00 ‖ block) of the m blocks that have a record, in order
    ...     R     records, in order

    kind 0  patch: record = detools sequential patch against the whole base (``patch``)
    kind 1  unchanged: equal to the base at the same offset; no record, no hash
    kind 2  stored: record = the block itself
    kind 3  refused

A full image travels in the same container (``wrap_full``): base length 0, all blocks stored, so the MCU has
one way of receiving, checking and resuming.

What the MCU does: (1) compare base length and digest with its running slot *before* erasing anything;
(2) read words and hashes, form the leaves of unchanged blocks from its own base, fold all leaves to the
Merkle root with ⌈log2 n⌉ + 1 hashes of RAM and compare with the root in the signed manifest; (3) for each
block decode into one 4 KiB buffer, compare its leaf hash, program it. A wrong byte is found before it is
programmed, a cut resumes at the first block that is not there, one damaged record is fetched again alone.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass

from .. import limits, merkle
from ..errors import OtaError, Reason, require
from .patch import SuffixIndex, decode_block, encode_block

MAGIC = b"BTD1"
BLOCK = limits.BLOCK_SIZE
HEADER = struct.Struct("<4sBBHIII32s32s32sI")
KIND_PATCH, KIND_UNCHANGED, KIND_STORED = 0, 1, 2
_LENGTH_MASK = 0x3FFF


@dataclass(frozen=True)
class Delta:
    """A parsed delta file. ``kinds``, ``leaves`` (None: unchanged) and ``spans`` have one entry per block."""

    base_length: int
    target_length: int
    base_digest: bytes
    target_digest: bytes
    merkle_root: bytes
    kinds: tuple[int, ...]
    leaves: tuple[bytes | None, ...]
    spans: tuple[tuple[int, int], ...]  # offset and length of each record in the file

    def block_size(self, index: int) -> int:
        return min(BLOCK, self.target_length - index * BLOCK)

    def check_base(self, base: bytes) -> None:
        """Refuse a base that differs in one byte; before anything is erased."""
        require(
            len(base) == self.base_length, Reason.DELTA_BASE, f"{len(base)} B, made for {self.base_length} B"
        )
        require(
            hashlib.sha256(base).digest() == self.base_digest, Reason.DELTA_BASE, "digest of the base differs"
        )

    def check_leaves(self, base: bytes, signed_root: bytes) -> None:
        """All leaf hashes together must give the signed Merkle root."""
        running = merkle.Running()
        for i, known in enumerate(self.leaves):
            at = i * BLOCK
            running.add(known if known is not None else merkle.leaf(base[at : at + self.block_size(i)]))
        require(running.root() == signed_root == self.merkle_root, Reason.MERKLE, "leaf hashes of the delta")

    def decode(self, base: bytes, index: int, record: bytes) -> bytes:
        """Block ``index`` from its record, hash checked."""
        size = self.block_size(index)
        kind = self.kinds[index]
        if kind == KIND_UNCHANGED:
            return base[index * BLOCK : index * BLOCK + size]
        if kind == KIND_STORED:
            require(len(record) == size, Reason.DELTA_CORRUPT, f"stored block {index} has {len(record)} B")
            block = record
        else:
            block = decode_block(base, record, size)
        require(merkle.leaf(block) == self.leaves[index], Reason.MERKLE, f"block {index}")
        return block


def create(base: bytes, target: bytes) -> bytes:
    """Delta file from ``base`` to ``target`` (see ``choose`` for when the full image is the better one)."""
    require(0 < len(target) <= limits.IMAGE_MAX, Reason.OVERSIZE, f"target of {len(target)} B")
    require(0 < len(base) <= limits.IMAGE_MAX, Reason.OVERSIZE, f"base of {len(base)} B")
    index = SuffixIndex(base)
    words: list[int] = []
    records: list[bytes] = []
    hashes: list[bytes] = []
    leaves: list[bytes] = []
    for i, block in enumerate(merkle.blocks(target)):
        leaves.append(merkle.leaf(block))
        if base[i * BLOCK : i * BLOCK + len(block)] == block:
            words.append(KIND_UNCHANGED << 14)
            continue
        record, kind = encode_block(index, block), KIND_PATCH
        if len(record) < len(block):
            # The encoder is a foreign C library: what it made is decoded before it is signed.
            usable = _decodes_to(base, record, block)
        else:
            usable = False
        if not usable:
            record, kind = block, KIND_STORED
        words.append(kind << 14 | len(record))
        records.append(record)
        hashes.append(leaves[-1])
    return _assemble(base, target, words, hashes, leaves, records)


def wrap_full(target: bytes) -> bytes:
    """The full image in the container's form: every block stored, no base."""
    require(0 < len(target) <= limits.IMAGE_MAX, Reason.OVERSIZE, f"target of {len(target)} B")
    records = merkle.blocks(target)
    leaves = merkle.file_leaves(target)
    return _assemble(b"", target, [KIND_STORED << 14 | len(r) for r in records], leaves, leaves, records)


def _assemble(
    base: bytes,
    target: bytes,
    words: list[int],
    hashes: list[bytes],
    leaves: list[bytes],
    records: list[bytes],
) -> bytes:
    body = b"".join(records)
    head = HEADER.pack(
        MAGIC,
        12,
        0,
        len(words),
        len(base),
        len(target),
        len(body),
        hashlib.sha256(base).digest(),
        hashlib.sha256(target).digest(),
        merkle.root_of_leaves(leaves),
        0,
    )[:-4]
    head += struct.pack("<I", zlib.crc32(head))
    return head + struct.pack(f"<{len(words)}H", *words) + b"".join(hashes) + body


def _decodes_to(base: bytes, record: bytes, block: bytes) -> bool:
    try:
        return decode_block(base, record, len(block)) == block
    except OtaError:
        return False


def read_header(data: bytes) -> tuple[int, int, int]:
    """(blocks, target length, record bytes) after checking the fixed header."""
    require(len(data) >= HEADER.size, Reason.TRUNCATED, "shorter than a delta header")
    magic, exponent, flags, n, base_length, target_length, body, _, _, _, crc = HEADER.unpack_from(data)
    require(magic == MAGIC, Reason.DELTA_CODEC, "not a BTD1 delta")
    require(zlib.crc32(data[: HEADER.size - 4]) == crc, Reason.CHECKSUM, "delta header")
    require(exponent == 12 and flags == 0, Reason.DELTA_CODEC, "block size or flags")
    require(base_length <= limits.IMAGE_MAX, Reason.OVERSIZE, f"base of {base_length} B")
    require(0 < target_length <= limits.IMAGE_MAX, Reason.OVERSIZE, f"target of {target_length} B")
    require(n == -(-target_length // BLOCK), Reason.DELTA_CORRUPT, "number of blocks")
    require(body <= target_length, Reason.OVERSIZE, "records larger than the target")
    return n, target_length, body


def table_size(data: bytes, n: int) -> int:
    """Bytes of header, block words and hashes; needs the first ``120 + 2 n`` bytes."""
    words = struct.unpack_from(f"<{n}H", data, HEADER.size)
    with_record = sum(word >> 14 != KIND_UNCHANGED for word in words)
    return int(HEADER.size + 2 * n + 32 * with_record)


def read_table(data: bytes, n: int) -> Delta:
    """Structure from header, words and hashes; the records may be missing. ``n`` from ``read_header``."""
    _, _, _, _, base_length, target_length, body, base_digest, target_digest, root, _ = HEADER.unpack_from(
        data
    )
    at = HEADER.size
    require(len(data) >= at + 2 * n, Reason.TRUNCATED, "delta block words")
    words = struct.unpack_from(f"<{n}H", data, at)
    at += 2 * n
    kinds = tuple(word >> 14 for word in words)
    require(all(kind <= KIND_STORED for kind in kinds), Reason.DELTA_CODEC, "block kind")
    with_record = [i for i in range(n) if kinds[i] != KIND_UNCHANGED]
    require(len(data) >= at + 32 * len(with_record), Reason.TRUNCATED, "delta hashes")
    leaves: list[bytes | None] = [None] * n
    for i in with_record:
        leaves[i] = data[at : at + 32]
        at += 32
    spans: list[tuple[int, int]] = []
    first = at
    for i, word in enumerate(words):
        length = word & _LENGTH_MASK
        if kinds[i] == KIND_UNCHANGED:
            block_end = min((i + 1) * BLOCK, target_length)
            require(length == 0 and block_end <= base_length, Reason.DELTA_CORRUPT, f"unchanged block {i}")
        else:
            require(0 < length <= BLOCK, Reason.DELTA_CORRUPT, f"record {i} of {length} B")
        spans.append((at, length))
        at += length
    require(at - first == body, Reason.DELTA_CORRUPT, "record lengths do not add up")
    return Delta(
        base_length, target_length, base_digest, target_digest, root, kinds, tuple(leaves), tuple(spans)
    )


def read(data: bytes) -> Delta:
    """Parse and check the structure of a whole delta file; ``apply`` checks what it says."""
    n, _, _ = read_header(data)
    delta = read_table(data, n)
    end = delta.spans[-1][0] + delta.spans[-1][1]
    require(len(data) >= end, Reason.TRUNCATED, "delta records")
    require(len(data) == end, Reason.TRAILING_DATA, f"{len(data) - end} B after the delta")
    return delta


def apply(base: bytes, data: bytes, signed_root: bytes | None = None) -> bytes:
    """Target file from ``base`` and delta file ``data``.

    ``signed_root`` is the Merkle root of the signed manifest; without it the delta is only consistent with
    itself, which is enough for a workshop and not for a device.
    """
    delta = read(data)
    delta.check_base(base)
    delta.check_leaves(base, delta.merkle_root if signed_root is None else signed_root)
    out = b"".join(
        delta.decode(base, i, data[at : at + length]) for i, (at, length) in enumerate(delta.spans)
    )
    require(hashlib.sha256(out).digest() == delta.target_digest, Reason.DIGEST, "rebuilt image")
    return out


def choose(base: bytes | None, target: bytes) -> tuple[str, bytes]:
    """("delta", file) or ("full", image): whichever is smaller on the air."""
    if base is None:
        return "full", target
    made = create(base, target)
    return ("delta", made) if len(made) < len(target) else ("full", target)
