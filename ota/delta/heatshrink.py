"""Reference decompressor for heatshrink (LZSS by Scott Vokes): the readable twin of the C decoder.

The stream is a sequence of bits, most significant first:

    1 + 8 bits                    literal byte
    0 + w bits + l bits           copy of (count+1) bytes from (index+1) bytes back

with w = window exponent, l = look-ahead exponent; a tail too short for a token is padding. References before
the beginning of the output read zeros (the window of the C decoder starts zeroed). The compressor is the C
library of the ``heatshrink2`` package.
"""

from __future__ import annotations

from ..errors import OtaError, Reason, require

WINDOW_MIN, WINDOW_MAX = 4, 11  # 2 KiB of window is what the MCU reserves
LOOKAHEAD_MIN = 3


def decompress(data: bytes, window: int, lookahead: int, max_output: int) -> bytes:
    """All bytes of the stream; refuses before more than ``max_output`` bytes have been produced."""
    require(WINDOW_MIN <= window <= WINDOW_MAX, Reason.DELTA_CODEC, f"heatshrink window {window}")
    require(LOOKAHEAD_MIN <= lookahead < window, Reason.DELTA_CODEC, f"heatshrink look-ahead {lookahead}")
    out = bytearray()
    bits = 0  # not yet used bits, right-aligned
    n_bits = 0
    at = 0
    size = len(data)
    copy_bits = 1 + window + lookahead
    longest = max(9, copy_bits)
    index_mask, count_mask = (1 << window) - 1, (1 << lookahead) - 1
    while True:
        while n_bits < longest and at < size:
            bits = bits << 8 | data[at]
            at += 1
            n_bits += 8
        if n_bits >= 9 and bits >> (n_bits - 1) & 1:
            n_bits -= 9
            out.append(bits >> n_bits & 0xFF)
        elif n_bits >= copy_bits and not bits >> (n_bits - 1) & 1:
            n_bits -= copy_bits
            count = (bits >> n_bits & count_mask) + 1
            back = (bits >> n_bits + lookahead & index_mask) + 1
            start = len(out) - back
            if start < 0:
                zeros = min(-start, count)
                out += bytes(zeros)
                count -= zeros
                start += zeros
            if count > 0:
                piece = bytes(out[start : start + min(count, len(out) - start)])
                if len(piece) < count:  # an overlapping copy repeats its own output
                    piece = (piece * (count // len(piece) + 1))[:count]
                out += piece
        else:
            break
        bits &= (1 << n_bits) - 1
        if len(out) > max_output:
            raise OtaError(Reason.DELTA_OUTPUT, f"heatshrink output beyond {max_output} B")
    require(n_bits < 8 and bits == 0, Reason.DELTA_CORRUPT, "heatshrink stream ends inside a token")
    return bytes(out)


def compress(data: bytes, window: int, lookahead: int) -> bytes:
    """Compressed with the C library."""
    from heatshrink2.core import Encoder, Writer  # type: ignore[import-untyped]

    encoder = Encoder(Writer(window_sz2=window, lookahead_sz2=lookahead))
    return bytes(encoder.fill(data)) + bytes(encoder.finish())
