"""One block as a patch: the ``sequential`` layout of detools, compression heatshrink or none.

    byte    type << 4 | compression        type 0 sequential; compression 0 none, 4 heatshrink
    size    target length
    byte    (window-4) << 4 | (lookahead-3)     heatshrink only
    stream, compressed:
        size    0 (no data-format patch)
        repeated until the target is complete:
            size, bytes     difference: target byte = base byte + difference (mod 256), base position moves on
            size, bytes     extra: literal target bytes
            size            signed move of the base position

A ``size`` is a little-endian varint with the sign in bit 6 of its first byte. Any patch made here is applied
by ``detools.apply_patch`` and the other way round; both directions are tested. Decoding is strict: every
length is checked before it is used, the base is never read outside itself, and the stream may not be longer
than twice the target plus 64 bytes, which bounds the work (an entry may be empty: a first move needs one).
"""

from __future__ import annotations

import bz2
import struct

import numpy as np

from .. import limits
from ..errors import OtaError, Reason, require
from . import heatshrink

COMPRESSION_NONE, COMPRESSION_HEATSHRINK = 0, 4
# (window, look-ahead) tried per block, the smallest wins. Chosen one by one for the greatest gain over five
# real firmware pairs; all 39 together would save 0.6 % more, an optimal parse of the stream 3 %.
HEATSHRINK_CHOICES = ((10, 8), (9, 5), (11, 10), (10, 7), (8, 6))
_STREAM_SLACK = 64


class SuffixIndex:
    """Suffix array of the base image: built once, used for all blocks."""

    def __init__(self, base: bytes) -> None:
        from detools import suffix_array  # type: ignore[import-untyped]

        self.base = base
        self.array = bytearray(4 * (len(base) + 1))
        suffix_array.divsufsort(base, self.array)

    def difference(self, target: bytes) -> bytes:
        """Uncompressed stream as above."""
        from detools import bsdiff  # type: ignore[import-untyped]

        chunks = bsdiff.create_patch(self.array, self.base, target, bytearray(len(target) + 1))
        return b"\0" + b"".join(chunks)


def pack_size(value: int) -> bytes:
    sign, value = (0x40, -value) if value < 0 else (0, value)
    out = bytearray([sign | value & 0x3F])
    value >>= 6
    while value:
        out[-1] |= 0x80
        out.append(value & 0x7F)
        value >>= 7
    return bytes(out)


def _size(data: bytes, at: int) -> tuple[int, int]:
    """Value and next position; at most 5 bytes (34 bits), which covers any 32-bit target."""
    require(at < len(data), Reason.DELTA_CORRUPT, "patch ends in a size")
    byte = data[at]
    negative, value, shift = byte & 0x40, byte & 0x3F, 6
    at += 1
    while byte & 0x80:
        require(at < len(data) and shift <= 27, Reason.DELTA_CORRUPT, "size too long")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return (-value if negative else value), at


def encode_block(index: SuffixIndex, target: bytes) -> bytes:
    """Smallest patch that makes ``target`` from the base; verified by decoding it."""
    stream = index.difference(target)
    head = pack_size(len(target))
    best = bytes([COMPRESSION_NONE]) + head + stream
    for window, lookahead in HEATSHRINK_CHOICES:
        packed = heatshrink.compress(stream, window, lookahead)
        candidate = bytes([COMPRESSION_HEATSHRINK]) + head
        candidate += bytes([(window - 4) << 4 | (lookahead - 3)]) + packed
        if len(candidate) < len(best):
            best = candidate
    return best


def decode_block(base: bytes, record: bytes, target_size: int) -> bytes:
    """Apply one patch; ``target_size`` is the signed size, the patch may not claim another."""
    require(len(record) >= 3, Reason.DELTA_CORRUPT, "patch too short")
    require(record[0] in (COMPRESSION_NONE, COMPRESSION_HEATSHRINK), Reason.DELTA_CODEC, f"0x{record[0]:02x}")
    size, at = _size(record, 1)
    require(size == target_size, Reason.DELTA_OUTPUT, f"patch makes {size} B, expected {target_size} B")
    if record[0] == COMPRESSION_HEATSHRINK:
        require(at < len(record), Reason.DELTA_CORRUPT, "heatshrink parameters missing")
        window, lookahead = (record[at] >> 4) + 4, (record[at] & 15) + 3
        limit = 2 * target_size + _STREAM_SLACK
        stream = heatshrink.decompress(record[at + 1 :], window, lookahead, limit)
    else:
        stream = record[at:]
        require(len(stream) <= 2 * target_size + _STREAM_SLACK, Reason.DELTA_OUTPUT, "stream too long")
    return _rebuild(base, stream, target_size)


def _rebuild(base: bytes, stream: bytes, target_size: int) -> bytes:
    data_format, at = _size(stream, 0)
    require(data_format == 0, Reason.DELTA_CODEC, "data-format patches are not supported")
    out = bytearray()
    position = 0
    while len(out) < target_size:
        n, at = _size(stream, at)
        require(0 <= n <= target_size - len(out), Reason.DELTA_OUTPUT, "difference beyond the target")
        require(at + n <= len(stream), Reason.DELTA_CORRUPT, "difference beyond the stream")
        if n:
            inside = position >= 0 and position + n <= len(base)
            require(inside, Reason.DELTA_CORRUPT, "base position outside the base")
            difference = np.frombuffer(stream, np.uint8, n, at)
            out += (np.frombuffer(base, np.uint8, n, position) + difference).tobytes()
            at += n
            position += n
        n, at = _size(stream, at)
        require(0 <= n <= target_size - len(out), Reason.DELTA_OUTPUT, "extra beyond the target")
        require(at + n <= len(stream), Reason.DELTA_CORRUPT, "extra beyond the stream")
        out += stream[at : at + n]
        at += n
        move, at = _size(stream, at)
        position += move
    require(at == len(stream), Reason.DELTA_CORRUPT, "bytes after the last entry")
    return bytes(out)


def apply_foreign(base: bytes, patch: bytes, max_output: int = limits.IMAGE_MAX) -> bytes:
    """Apply a whole-image patch made elsewhere: classic BSDIFF40 (bsdiff, bsdiff4) or detools sequential.

    For the workshop, not for devices: such patches carry no base digest and no block hashes.
    """
    if patch[:8] == b"BSDIFF40":
        return _apply_bsdiff40(base, patch, max_output)
    require(
        len(patch) >= 3 and patch[0] in (0, 4), Reason.DELTA_CODEC, "neither BSDIFF40 nor detools sequential"
    )
    size, at = _size(patch, 1)
    require(0 <= size <= max_output, Reason.DELTA_OUTPUT, f"patch makes {size} B, limit {max_output} B")
    if size == 0:
        require(at == len(patch), Reason.DELTA_CORRUPT, "bytes after an empty target")
        return b""
    return decode_block(base, patch, size)


def _offt(data: bytes, at: int) -> int:
    value: int = struct.unpack_from("<Q", data, at)[0]
    return -(value & 0x7FFFFFFFFFFFFFFF) if value >> 63 else value


def _bunzip(data: bytes, max_output: int) -> bytes:
    engine = bz2.BZ2Decompressor()
    try:
        out = engine.decompress(data, max_output + 1)
    except (OSError, EOFError, ValueError):
        raise OtaError(Reason.DELTA_CORRUPT, "bzip2 stream") from None
    require(len(out) <= max_output, Reason.DELTA_OUTPUT, f"bzip2 output beyond {max_output} B")
    require(
        engine.eof and not engine.unused_data, Reason.DELTA_CORRUPT, "bzip2 stream incomplete or trailing"
    )
    return out


def _apply_bsdiff40(base: bytes, patch: bytes, max_output: int) -> bytes:
    require(len(patch) >= 32, Reason.DELTA_CORRUPT, "BSDIFF40 header")
    n_control, n_difference, size = (_offt(patch, at) for at in (8, 16, 24))
    sane = n_control >= 0 and n_difference >= 0 and 32 + n_control + n_difference <= len(patch)
    require(sane, Reason.DELTA_CORRUPT, "BSDIFF40 lengths")
    require(0 <= size <= max_output, Reason.DELTA_OUTPUT, f"patch makes {size} B, limit {max_output} B")
    control = _bunzip(patch[32 : 32 + n_control], 24 * (size + 2))
    difference = _bunzip(patch[32 + n_control : 32 + n_control + n_difference], size)
    extra = _bunzip(patch[32 + n_control + n_difference :], size)
    require(len(control) % 24 == 0, Reason.DELTA_CORRUPT, "BSDIFF40 control block")
    out = bytearray()
    position = used_difference = used_extra = 0
    for at in range(0, len(control), 24):
        add, copy, move = (_offt(control, at + k) for k in (0, 8, 16))
        require(add >= 0 and copy >= 0, Reason.DELTA_CORRUPT, "negative length")
        require(len(out) + add + copy <= size, Reason.DELTA_OUTPUT, "beyond the target")
        enough = used_difference + add <= len(difference) and used_extra + copy <= len(extra)
        require(enough, Reason.DELTA_CORRUPT, "BSDIFF40 streams too short")
        # The classic format lets the base position run outside the base; such bytes count as zero.
        window = np.zeros(add, np.uint8)
        low, high = max(position, 0), min(position + add, len(base))
        if low < high:
            window[low - position : high - position] = np.frombuffer(base, np.uint8, high - low, low)
        out += (window + np.frombuffer(difference, np.uint8, add, used_difference)).tobytes()
        out += extra[used_extra : used_extra + copy]
        used_difference += add
        used_extra += copy
        position += add + move
    require(len(out) == size, Reason.DELTA_CORRUPT, "BSDIFF40 target incomplete")
    return bytes(out)
