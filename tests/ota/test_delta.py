"""Deltas: laws, damage (C1, C2, C4, C6), foreign encoders and decoders (C7), sizes and speed."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import time
import zlib

import bsdiff4
import detools
import heatshrink2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ota import delta, limits
from ota.delta import container, heatshrink, patch
from ota.errors import OtaError, Reason
from ota.testbed import firmware_body

OLD = firmware_body(40_000)
NEW = firmware_body(40_000, edits=10)
MADE = delta.create(OLD, NEW)
ROOT = delta.read(MADE).merkle_root

chunks = st.lists(st.binary(max_size=200) | st.integers(0, 3000).map(bytes), max_size=12).map(b"".join)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Old and new with common parts, shifts and strangers."""
    old = draw(chunks.filter(bool))
    new = bytearray(old)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(new)))
        new[at : at + draw(st.integers(0, 50))] = draw(st.binary(max_size=60))
    return old, bytes(new) or b"x"


@given(pairs())
@settings(max_examples=120, deadline=None)
def test_apply_undoes_create(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    made = delta.create(old, new)
    assert delta.apply(old, made) == new
    assert delta.apply(b"", container.wrap_full(new)) == new


@given(st.binary(max_size=3000), st.integers(4, 11), st.data())
@settings(max_examples=120, deadline=None)
def test_heatshrink_reference_against_the_c_library(data: bytes, window: int, more: st.DataObject) -> None:
    lookahead = more.draw(st.integers(3, window - 1))
    packed = heatshrink.compress(data, window, lookahead)
    assert heatshrink.decompress(packed, window, lookahead, len(data)) == data
    assert heatshrink2.decompress(packed, window_sz2=window, lookahead_sz2=lookahead) == data


def test_c7_every_block_is_a_detools_patch() -> None:
    """detools applies ours, block by block, and we apply detools'."""
    parsed = delta.read(MADE)
    for i, (at, length) in enumerate(parsed.spans):
        if parsed.kinds[i] == container.KIND_PATCH:
            out = io.BytesIO()
            detools.apply_patch(io.BytesIO(OLD), io.BytesIO(MADE[at : at + length]), out)
            assert out.getvalue() == NEW[i * 4096 : i * 4096 + parsed.block_size(i)]
    for compression in ("heatshrink", "none"):
        theirs = io.BytesIO()
        detools.create_patch(
            io.BytesIO(OLD),
            io.BytesIO(NEW[4096:8192]),
            theirs,
            compression=compression,
            heatshrink_window_sz2=10,
        )
        assert patch.decode_block(OLD, theirs.getvalue(), 4096) == NEW[4096:8192]


def test_c7_foreign_whole_image_patches() -> None:
    assert patch.apply_foreign(OLD, bsdiff4.diff(OLD, NEW)) == NEW
    classic = io.BytesIO()
    detools.create_patch(io.BytesIO(OLD), io.BytesIO(NEW), classic, patch_type="bsdiff", algorithm="bsdiff")
    assert patch.apply_foreign(OLD, classic.getvalue()) == NEW
    for name in ("lzma", "crle"):
        foreign = io.BytesIO()
        detools.create_patch(io.BytesIO(OLD), io.BytesIO(NEW), foreign, compression=name)
        with pytest.raises(OtaError) as error:
            patch.apply_foreign(OLD, foreign.getvalue())
        assert error.value.reason is Reason.DELTA_CODEC


def test_c1_wrong_base_is_found_before_anything_else() -> None:
    rebuilt = OLD[:100] + bytes([OLD[100] ^ 1]) + OLD[101:]
    for base in (rebuilt, OLD[:-1], OLD + b"\0", b""):
        with pytest.raises(OtaError) as error:
            delta.apply(base, MADE)
        assert error.value.reason is Reason.DELTA_BASE


def _never_wrong(data: bytes) -> None:
    """Refused, or harmless (a padding bit): other bytes never come out."""
    with contextlib.suppress(OtaError):
        assert delta.apply(OLD, data, ROOT) == NEW


def test_c2_every_truncation() -> None:
    for size in range(len(MADE)):
        with pytest.raises(OtaError):
            delta.apply(OLD, MADE[:size])
    with pytest.raises(OtaError) as error:
        delta.apply(OLD, MADE + b"\0")
    assert error.value.reason is Reason.TRAILING_DATA


def test_c2_flips_never_give_other_bytes() -> None:
    """With the header checksum repaired, so that the inner checks are what stands in the way."""
    rng = random.Random(1)
    for _ in range(400):
        at = rng.randrange(len(MADE))
        data = bytearray(MADE)
        data[at] ^= 1 << rng.randrange(8)
        data[116:120] = struct.pack("<I", zlib.crc32(bytes(data[:116])))
        _never_wrong(bytes(data))


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_c2_garbage_records(record: bytes) -> None:
    try:
        out = patch.decode_block(OLD, record, 4096)
    except OtaError:
        return
    assert len(out) == 4096


@given(st.binary(max_size=300), st.integers(0, 15), st.integers(0, 15))
@settings(max_examples=300, deadline=None)
def test_c2_heatshrink_output_is_bounded(data: bytes, window: int, lookahead: int) -> None:
    try:
        out = heatshrink.decompress(data, window + 4, lookahead + 3, 5000)
    except OtaError:
        return
    assert len(out) <= 5000


def test_c2_patch_bomb() -> None:
    """Two bytes that ask for 10^9: refused by the signed size, not by memory."""
    zeros = heatshrink.compress(bytes(1_000_000), 11, 9)
    record = bytes([4]) + patch.pack_size(4096) + bytes([(11 - 4) << 4 | (9 - 3)]) + zeros
    started = time.process_time()
    with pytest.raises(OtaError) as error:
        patch.decode_block(OLD, record, 4096)
    assert error.value.reason is Reason.DELTA_OUTPUT
    assert time.process_time() - started < 0.2
    claims = bytes([4]) + patch.pack_size(10**9) + record[3:]
    with pytest.raises(OtaError):
        patch.decode_block(OLD, claims, 4096)
    bomb = bytearray(bsdiff4.diff(OLD, NEW))
    bomb[24:32] = struct.pack("<Q", 10**9)
    with pytest.raises(OtaError):
        patch.apply_foreign(OLD, bytes(bomb))


@given(st.binary(min_size=0, max_size=300))
@settings(max_examples=200, deadline=None)
def test_c2_foreign_garbage(data: bytes) -> None:
    for head in (b"", b"BSDIFF40", b"\x04", b"\x00"):
        with contextlib.suppress(OtaError):
            patch.apply_foreign(OLD, head + data, 50_000)


def test_c4_one_wrong_block_is_named() -> None:
    parsed = delta.read(MADE)
    at, _ = parsed.spans[3]
    data = bytearray(MADE)
    data[at + 10] ^= 0x10
    refused = {}
    for i, (start, size) in enumerate(parsed.spans):
        try:
            parsed.decode(OLD, i, bytes(data[start : start + size]))
        except OtaError as error:
            refused[i] = error.reason
    assert list(refused) == [3]
    assert refused[3] in (Reason.MERKLE, Reason.DELTA_CORRUPT, Reason.DELTA_OUTPUT)


def test_merkle_root_of_the_manifest_decides() -> None:
    with pytest.raises(OtaError) as error:
        delta.apply(OLD, MADE, bytes(32))
    assert error.value.reason is Reason.MERKLE


def test_unchanged_blocks_cost_two_bytes() -> None:
    same = delta.create(OLD, OLD)
    assert len(same) == container.HEADER.size + 2 * -(-len(OLD) // limits.BLOCK_SIZE)
    assert delta.apply(OLD, same) == OLD


def test_c6_full_image_when_smaller() -> None:
    strange = random.Random(0).randbytes(20_000)
    assert container.choose(OLD, strange) == ("full", strange)
    assert container.choose(None, NEW) == ("full", NEW)
    kind, data = container.choose(OLD, NEW)
    assert kind == "delta"
    assert len(data) < 0.15 * len(NEW)


def test_encode_within_a_second_for_half_a_megabyte() -> None:
    """Issue limit: 1 s of CPU for 512 KB; measured here 0.4 s with four window choices per block."""
    old, new = firmware_body(512 * 1024), firmware_body(512 * 1024, edits=200)
    started = time.process_time()
    made = delta.create(old, new)
    encode_s = time.process_time() - started
    started = time.process_time()
    assert delta.apply(old, made) == new
    apply_s = time.process_time() - started
    print(f"encode {encode_s:.2f} s, apply {apply_s:.2f} s, {len(made) / len(new):.1%}")
    assert encode_s < 1.0
    assert apply_s < 1.0
