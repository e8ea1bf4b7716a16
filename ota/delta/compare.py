"""Other ways to send an update, side by side with ours, each verified by decoding.

    full, full_zstd, full_lzma      the image itself
    btd1                            ours: independent 4 KiB blocks, bsdiff + heatshrink, hash per block
    bsdiff4, detools_*              whole-image bsdiff with different compressors
    zstd_patch                      zstd with the old image as dictionary (``zstd --patch-from``)
    block_map                       4 KiB blocks that exist anywhere (aligned) in the old image are referred
    to rolling_hash                    rsync: 512-byte blocks found at any offset by a rolling checksum

RAM is what a decoder on the device needs beside old and new flash, from the measurements and estimates named
in the README. The gateway could use any of them; the MCU only ``btd1``.
"""

from __future__ import annotations

import io
import lzma
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import limits
from . import container

Encode = Callable[[bytes, bytes], bytes]
Decode = Callable[[bytes, bytes], bytes]


def _zstd(data: bytes, level: int = 19) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=level).compress(data)


def _unzstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor().decompress(data, max_output_size=limits.IMAGE_MAX)


def _zstd_patch(old: bytes, new: bytes) -> bytes:
    import zstandard

    dictionary = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    window = max(17, (len(old) + len(new)).bit_length())
    parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=window)
    return zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(new)


def _zstd_unpatch(old: bytes, data: bytes) -> bytes:
    import zstandard

    dictionary = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    engine = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=2**27)
    return engine.decompress(data, max_output_size=limits.IMAGE_MAX)


def _detools(compression: str) -> tuple[Encode, Decode]:
    def encode(old: bytes, new: bytes) -> bytes:
        import detools  # type: ignore[import-untyped]

        out = io.BytesIO()
        detools.create_patch(
            io.BytesIO(old),
            io.BytesIO(new),
            out,
            compression=compression,
            heatshrink_window_sz2=11,
            heatshrink_lookahead_sz2=8,
            use_mmap=False,
        )
        return out.getvalue()

    def decode(old: bytes, data: bytes) -> bytes:
        import detools

        out = io.BytesIO()
        detools.apply_patch(io.BytesIO(old), io.BytesIO(data), out)
        return out.getvalue()

    return encode, decode


def _bsdiff4_encode(old: bytes, new: bytes) -> bytes:
    import bsdiff4  # type: ignore[import-untyped]

    return bytes(bsdiff4.diff(old, new))


def _bsdiff4_decode(old: bytes, data: bytes) -> bytes:
    import bsdiff4

    return bytes(bsdiff4.patch(old, data))


def _pack(references: list[int], literals: bytes, length: int) -> bytes:
    """References (−1: literal) run-length free, zstd over everything."""
    table = struct.pack(f"<II{len(references)}i", length, len(references), *references)
    return _zstd(table + literals)


def _unpack(old: bytes, data: bytes, block: int) -> bytes:
    raw = _unzstd(data)
    length, n = struct.unpack_from("<II", raw)
    references = struct.unpack_from(f"<{n}i", raw, 8)
    at = 8 + 4 * n
    out = bytearray()
    for reference in references:
        if reference == -1:
            out += raw[at : at + block]
            at += block
        elif reference < -1:  # a literal shorter than a block
            out += raw[at : at - 1 - reference]
            at += -1 - reference
        else:
            out += old[reference : reference + block]
    return bytes(out[:length])


def _block_map(old: bytes, new: bytes) -> bytes:
    size = limits.BLOCK_SIZE
    known = {old[i : i + size]: i for i in range(0, len(old) - size + 1, size)}
    references: list[int] = []
    literals = bytearray()
    for i in range(0, len(new), size):
        block = new[i : i + size]
        at = known.get(block, -1)
        references.append(at)
        if at < 0:
            literals += block.ljust(size, b"\0")
    return _pack(references, bytes(literals), len(new))


ROLLING_BLOCK = 512


def _weak(data: bytes, size: int) -> np.ndarray:
    """rsync's two-sum checksum of every window of ``size`` bytes."""
    values = np.frombuffer(data, np.uint8).astype(np.int64)
    first = np.concatenate(([0], np.cumsum(values)))
    weighted = np.concatenate(([0], np.cumsum(values * np.arange(len(values)))))
    n = len(values) - size + 1
    a = first[size:] - first[:n]
    start = np.arange(n)
    b = (start + size) * a - (weighted[size:] - weighted[:n])
    return np.asarray((a & 0xFFFF) | (b & 0xFFFF) << 16)


def _rolling_hash(old: bytes, new: bytes) -> bytes:
    size = ROLLING_BLOCK
    if len(old) < size or len(new) < size:
        return _pack([-1 - len(new)] if new else [], new, len(new))
    old_weak = _weak(old, size)[::size]
    places: dict[int, list[int]] = {}
    for i, value in enumerate(old_weak):
        places.setdefault(int(value), []).append(i * size)
    new_weak = _weak(new, size)
    hits = np.flatnonzero(np.isin(new_weak, old_weak))
    references: list[int] = []
    literals = bytearray()
    at = 0
    for hit in hits:
        if hit < at:
            continue
        block = new[hit : hit + size]
        match = next((p for p in places[int(new_weak[hit])] if old[p : p + size] == block), None)
        if match is None:
            continue
        if hit > at:
            references.append(-1 - (int(hit) - at))
            literals += new[at:hit]
        references.append(match)
        at = int(hit) + size
    if at < len(new):
        references.append(-1 - (len(new) - at))
        literals += new[at:]
    # −1 means a whole block of literals in ``_unpack``; one-byte literals are written as −2
    return _pack(references, bytes(literals), len(new))


def _alone(encode: Callable[[bytes], bytes], decode: Callable[[bytes], bytes]) -> tuple[Encode, Decode]:
    return (lambda old, new: encode(new)), (lambda old, data: decode(data))


CODECS: dict[str, tuple[tuple[Encode, Decode], str]] = {
    "full": (_alone(bytes, bytes), "0"),
    "full_zstd": (_alone(_zstd, _unzstd), "96 KiB + window"),
    "full_lzma": (_alone(lzma.compress, lzma.decompress), "24 KiB + dictionary"),
    "btd1": ((container.create, container.apply), "2.4 KiB + 4 KiB block"),
    "bsdiff4": ((_bsdiff4_encode, _bsdiff4_decode), "old + new + 4 MiB"),
    "detools_heatshrink": (_detools("heatshrink"), "2.4 KiB"),
    "detools_lzma": (_detools("lzma"), "24 KiB + dictionary"),
    "detools_crle": (_detools("crle"), "0.6 KiB"),
    "zstd_patch": ((_zstd_patch, _zstd_unpatch), "96 KiB + window ≥ old"),
    "block_map": ((_block_map, lambda old, data: _unpack(old, data, limits.BLOCK_SIZE)), "96 KiB + window"),
    "rolling_hash": ((_rolling_hash, lambda old, data: _unpack(old, data, ROLLING_BLOCK)), "96 KiB + window"),
}


@dataclass(frozen=True)
class Row:
    pair: str
    codec: str
    old_bytes: int
    new_bytes: int
    patch_bytes: int
    encode_s: float
    decode_s: float
    ram: str

    @property
    def share(self) -> float:
        """Patch over full image, 0…1."""
        return self.patch_bytes / self.new_bytes


def compare(name: str, old: bytes, new: bytes, codecs: Sequence[str] = tuple(CODECS)) -> list[Row]:
    """Size and CPU time of each codec on one pair; AssertionError if one does not reproduce the image."""
    rows = []
    for codec in codecs:
        (encode, decode), ram = CODECS[codec]
        started = time.process_time()
        data = encode(old, new)
        encoded = time.process_time()
        out = decode(old, data)
        decoded = time.process_time()
        if out != new:
            raise AssertionError(f"{codec} does not reproduce {name}")
        rows.append(
            Row(name, codec, len(old), len(new), len(data), encoded - started, decoded - encoded, ram)
        )
    return rows


def as_csv(rows: Sequence[Row]) -> str:
    lines = ["pair,codec,old_bytes,new_bytes,patch_bytes,share,encode_s,decode_s,decoder_ram"]
    for r in rows:
        lines.append(
            f"{r.pair},{r.codec},{r.old_bytes},{r.new_bytes},{r.patch_bytes},{r.share:.4f},"
            f"{r.encode_s:.3f},{r.decode_s:.3f},{r.ram}"
        )
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Share of the full image by codec, one mark per pair, median as a bar."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    codecs = [c for c in CODECS if any(r.codec == c for r in rows)]
    figure, axes = pyplot.subplots(figsize=(8, 4))
    for x, codec in enumerate(codecs):
        shares = [100 * r.share for r in rows if r.codec == codec]
        axes.bar(x, float(np.median(shares)), color="tab:blue" if codec == "btd1" else "0.75", width=0.7)
        axes.plot([x] * len(shares), shares, "k.", markersize=5)
    axes.set_yscale("log")
    axes.set_xticks(range(len(codecs)), codecs, rotation=35, ha="right")
    axes.set_ylabel("size, % of the full image")
    axes.set_title(f"Update size by codec, {len({r.pair for r in rows})} pairs (bar: median)")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
