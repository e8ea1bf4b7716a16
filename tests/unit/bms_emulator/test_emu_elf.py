"""The loader refuses what cannot run, with a reason, and never fails in another way."""

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms_emulator.bench import IMAGES
from bms_emulator.elf import Image, ImageError, parse_image, read_image
from bms_emulator.machine import Machine

GOOD = (IMAGES / "k_crc32.elf").read_bytes()


def patched(offset: int, kind: str, value: int) -> bytes:
    data = bytearray(GOOD)
    struct.pack_into("<" + kind, data, offset, value)
    return bytes(data)


def test_a_good_file():
    image = parse_image(GOOD)
    assert image.entry == 0x0010_0080
    kernel = image.symbol("kernel")
    assert kernel is not None
    assert kernel.is_function
    assert sum(len(data) for _, data, _ in image.segments) > 1000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello", "not an ELF"),
        (GOOD[:30], "truncated"),
        (GOOD[:60], "truncated: program header"),
        (GOOD[:400], "truncated: segment"),
        (patched(4, "B", 2), "64-bit"),
        (patched(5, "B", 2), "big-endian"),
        (patched(18, "H", 62), "another processor"),
        (patched(16, "H", 3), "not a linked executable"),
        (patched(36, "I", 2), "floating-point"),
        (patched(36, "I", 8), "RV32E"),
        (patched(44, "H", 0), "nothing to load"),
        (patched(52 + 16, "I", 1 << 30), "in memory"),
        (patched(52 + 12, "I", 0xFFFFFFF0), "beyond 32 bits"),
    ],
)
def test_bad_files_are_told_apart(data: bytes, words: str):
    with pytest.raises(ImageError, match=words):
        parse_image(data)


def test_missing_file_and_raw_binary(tmp_path: Path):
    with pytest.raises(ImageError, match=r"none\.elf: cannot be read"):
        read_image(tmp_path / "none.elf")
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x13\0\0\0")
    assert read_image(path, 0x100).segments == ((0x100, b"\x13\0\0\0", 4),)


def test_images_that_do_not_fit():
    machine = Machine()
    with pytest.raises(ImageError, match="outside the memory of board reference"):
        machine.load(Image(((0x2000_0000, b"1234", 4),), None))
    with pytest.raises(ImageError, match="larger than memory"):
        machine.load(Image(((0x0010_0000, b"1234", 2 << 20),), None))
    tests = Machine("riscv-tests")
    with pytest.raises(ImageError, match="entry 0x00001000"):
        tests.load(Image(((0x8000_0000, b"1234", 4),), 0x1000))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_any_damage_is_an_image_or_an_image_error(offset: int, damage: bytes):
    data = GOOD[:offset] + damage + GOOD[offset + len(damage) :]
    try:
        image = parse_image(data)
    except ImageError:
        return
    assert all(len(content) <= size for _, content, size in image.segments)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(GOOD)))
def test_garbage_and_truncation(tail: bytes, keep: int):
    for data in (b"\x7fELF\x01\x01\x01" + tail, GOOD[:keep] + tail):
        with contextlib.suppress(ImageError):
            assert parse_image(data).segments
