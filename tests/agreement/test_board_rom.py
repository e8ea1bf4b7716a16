"""The boot ROM on the emulated board: same decisions and same flash as on the host; images of imgtool; skips.

The ROM's rules themselves are held against ota/mcu_model.py by tests/ota/attacks (run on the C code too).
"""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from imgtool.image import Image as ForeignImage
from imgtool.image import VerifyResult
from imgtool.keys import load as load_foreign_key
from imgtool.version import decode_version

from bms_emulator import boot_skips
from bms_emulator.board import BmsBoard
from bms_emulator.devices.hsm import KeySlot
from bms_emulator.firmware.package import Identity, development_key, package, spki
from bms_emulator.firmware.target import Program, build_program
from bms_emulator.host_mcu import ROM_RUN, HostMcu
from ota import image
from ota.errors import Reason
from ota.signing import Algorithm, PublicKey, SoftwareKey

BODY = 5000
VENDOR, HARDWARE = "example.org", "bms-a"
IDENTITY = Identity(image.vendor_uuid(VENDOR), image.class_uuid(VENDOR, HARDWARE), 1)
WINDOW = 0x0800_0000


@pytest.fixture(scope="module")
def rom() -> Program:
    return build_program("rom")


@pytest.fixture(scope="module")
def body() -> bytes:
    return build_program("app").body


def test_package_writes_the_bytes_of_the_office():
    key = development_key()
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    @dataclass(frozen=True)
    class Signer:
        public: PublicKey

        def sign(self, message: bytes) -> bytes:
            return key.sign(message)

    theirs = image.build(
        b"\x13\0\0\0" * 700,
        version=image.Version(1, 2, 3, 4),
        key=Signer(PublicKey.from_pem(pem)),
        security_counter=5,
        vendor_id=IDENTITY.vendor,
        class_id=IDENTITY.hardware_class,
        parameter_schema=(3, 3),
        block_root=False,
        load_address=WINDOW,
        flags=image.FLAG_ROM_FIXED,
    )
    assert package(b"\x13\0\0\0" * 700, (1, 2, 3, 4), key, IDENTITY, 5, 3) == theirs


# ---- imgtool ----------------------------------------------------------------------------------------------


def foreign(folder: Path, body: bytes, key: SoftwareKey) -> tuple[bytes, Path]:
    """(image, key file) made by imgtool's own code."""
    pem, source = folder / "key.pem", folder / "body.bin"
    pem.write_bytes(
        key.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    source.write_bytes(body)
    made = ForeignImage(
        version=decode_version("1.2.3+4"),
        header_size=0x200,
        pad_header=True,
        security_counter=1,
        rom_fixed=WINDOW,
        vid=VENDOR,
        cid=HARDWARE,
    )
    made.load(str(source))
    made.create(load_foreign_key(str(pem)), "hash", None)
    return bytes(made.payload), pem


def boots(rom: Program, data: bytes, public: bytes) -> BmsBoard:
    board = BmsBoard(keys=[KeySlot(public, 0)])
    board.manufacture(rom, data, identity=IDENTITY)
    board.power_on()
    board.run(0.6)
    return board


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_images_signed_by_imgtool_boot(tmp_path: Path, rom: Program, body: bytes, algorithm: Algorithm):
    key = SoftwareKey.from_seed(b"image", algorithm)
    data, pem = foreign(tmp_path, body, key)
    board = boots(rom, data, key.public.spki)
    assert board.console.startswith(b"bms")
    (tmp_path / "i.bin").write_bytes(data)
    assert ForeignImage.verify(str(tmp_path / "i.bin"), load_foreign_key(str(pem)))[0] is VerifyResult.OK
    bad = bytearray(data)
    bad[0x200 + 100] ^= 1
    assert boots(rom, bytes(bad), key.public.spki).console == b"no image\n"


def test_images_we_make_are_verified_by_imgtool(tmp_path: Path, rom: Program, body: bytes):
    data = package(body, (1, 0, 0, 0), development_key(), IDENTITY)
    (tmp_path / "i.bin").write_bytes(data)
    (tmp_path / "key.pem").write_bytes(
        development_key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    key = load_foreign_key(str(tmp_path / "key.pem"))
    assert ForeignImage.verify(str(tmp_path / "i.bin"), key)[0] is VerifyResult.OK
    assert boots(rom, data, spki(development_key())).console.startswith(b"bms")


# ---- host = emulator --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    spki: bytes


class Config:
    """For a controller of which only the ROM runs."""

    serial = "dev"
    vendor_id, class_id, hardware_revision = IDENTITY.vendor, IDENTITY.hardware_class, 1
    image_keys = (Key(spki(development_key())),)
    manifest_keys = image_keys

    def fits(self, firmware: bytes | None, parameters: bytes | None, least: tuple[int, int]) -> bool:
        return True

    def parameter_verdict(self, image_digest: bytes, body: bytes | None) -> int:
        return Reason.OK


def record(magic: bytes, *fields: int | bytes) -> bytes:
    data = struct.pack("<4sIBBBBBBH8s" if magic == b"SLT1" else "<4sIIII", magic, *fields)
    return data + struct.pack("<I", zlib.crc32(data))


def random_flash(chance: random.Random, images: dict[str, bytes], size: int) -> bytes:
    """Slots, parameter copies and records in any state that updates, cuts and faults can leave."""
    board = BOARD
    flash = bytearray(b"\xff" * size)

    def put(name: str, data: bytes) -> None:
        at = board.partition(name).at
        flash[at : at + len(data)] = data

    for name, kind in (("slot_0", "f"), ("slot_1", "f"), ("parameters_0", "p"), ("parameters_1", "p")):
        pick = chance.choice([n for n in images if n.startswith(kind)] + ["", "torn"])
        data = images.get(pick, b"")
        if pick == "torn":
            whole = images[f"{kind}1"]
            data = whole[: chance.randrange(len(whole))]
        put(name, data)
    for copy in range(2):
        if chance.random() < 0.85:
            sequence = chance.choice([1, 2, 3, 0xFFFFFFFF, 0])
            row = [chance.randrange(2) for _ in range(4)]
            state = chance.choice([1, 2, 2])
            boots = chance.choice([0, 0, 1, 2, 3])
            reason = chance.choice([0, 0, Reason.SELF_TEST])
            put(f"journal_{copy}", record(b"SLT1", sequence, *row, state, boots, reason, bytes(8)))
        if chance.random() < 0.7:
            rows = [chance.choice([0, 1, 2]) for _ in range(3)]
            put(f"counters_{copy}", record(b"CTR1", copy + 1, *rows))
    for _ in range(chance.choice([0, 0, 1])):
        at = board.partition(chance.choice(["journal_0", "slot_0", "parameters_0"])).at
        flash[at + chance.randrange(28)] ^= 1 << chance.randrange(8)
    return bytes(flash)


BOARD = BmsBoard().machine.board


def test_host_and_emulator_decide_alike(rom: Program, body: bytes):
    key = development_key()
    small = body[:BODY]

    def firmware(minor: int, counter: int, schema: int | None = None) -> bytes:
        return package(small, (1, minor, 0, 0), key, IDENTITY, counter, schema)

    def parameters(minor: int, counter: int, schema: int) -> bytes:
        return package(b"set" * 40, (1, minor, 0, 0), key, IDENTITY, counter, schema, bootable=False)

    images = {"f0": firmware(0, 1), "f1": firmware(1, 2), "f2": firmware(2, 1, 3)}
    images |= {"p0": parameters(0, 1, 3), "p1": parameters(1, 2, 3), "p2": parameters(2, 1, 4)}
    host = HostMcu(Config())
    board = BmsBoard(keys=[KeySlot(spki(key), 0)])
    board.hsm.haste = board.nvm.haste = 1000
    board.manufacture(rom, b"", identity=IDENTITY)
    size = BOARD.memory("flash").size
    for slot in ("slot_1", "slot_0"):
        board.machine.show("xip", slot)
        board.machine.set_breakpoint(WINDOW + 0x200 + 0x80)
    chance = random.Random(7)
    seen: dict[tuple[bool, int], int] = {}
    for _ in range(120):
        flash = random_flash(chance, images, size)
        cause, keep = chance.choice([1, 2, 3]), chance.choice([0, 0, 1, 2])
        host.flash.data[:] = flash
        host.restore((flash, bytes(32)))
        # `keep` is told by crashes in a row: the ROM itself counts them
        assert host.lib.c.host_rom(host.pointer, 1 if keep == 0 else cause, 2) == 0
        decision = host.lib.c.host_decision(host.pointer).contents
        board.nvm.put_bytes(0, flash)
        board.nvm.erases = [0] * len(board.nvm.erases)
        board.hsm.counters = [0] * 8
        board.console.clear()
        board.power_on()
        if keep:
            board.resets.after(cause, 2)
        board.run(0.05)
        runs = board.machine.pc == WINDOW + 0x200 + 0x80
        assert runs == (decision.run == ROM_RUN)
        assert runs != (board.console == b"no image\n")
        if runs:
            wanted = decision.slot | decision.parameters << 8 | decision.safe_mode << 16
            assert board.machine.register("a0") == wanted
            assert board.nvm.window == 1 << 31 | decision.slot
        assert board.nvm.bytes_at(0, size) == bytes(host.flash.data)
        assert board.hsm.counters[:3] == list(struct.unpack("<3I", host.snapshot()[1][:12]))
        seen[runs, decision.reason] = seen.get((runs, decision.reason), 0) + 1
    host.close()
    assert {reason for runs, reason in seen if runs} >= {0, Reason.SIGNATURE, Reason.DIGEST}
    assert any(not runs for runs, _ in seen)


def test_b12_a_boot_that_cannot_be_counted_is_not_tried(body: bytes):
    """Both journal sectors are worn: the set under test would boot for ever; the one before it runs."""
    key, host = development_key(), HostMcu(Config())
    for name, minor in (("slot_0", 0), ("slot_1", 1)):
        data = package(body[:BODY], (1, minor, 0, 0), key, IDENTITY)
        at = BOARD.partition(name).at
        host.flash.data[at : at + len(data)] = data
    row = record(b"SLT1", 4, 1, 0, 0, 0, 2, 0, 0, bytes(8))
    at = BOARD.partition("journal_0").at
    host.flash.data[at : at + len(row)] = row
    slots = []
    for worn in (False, True):
        before = host.snapshot()
        if worn:
            for copy in range(2):
                host.flash.bad_sectors[BOARD.partition(f"journal_{copy}").at // 4096] = 501
        assert host.lib.c.host_rom(host.pointer, 1, 0) == 0
        decision = host.lib.c.host_decision(host.pointer).contents
        assert decision.run == ROM_RUN
        slots.append((decision.slot, decision.reason))
        host.restore(before)
    host.close()
    assert slots == [(1, 0), (0, Reason.FLASH_PROGRAM)]


# ---- B14 --------------------------------------------------------------------------------------------------


def test_b14_no_skipped_instruction_boots_a_bad_image():
    """A sample; all of them: python -m bms_emulator.boot_skips (results/boot/skips.csv)."""
    for row in boot_skips.campaign(boot_skips.CASES[:1] + boot_skips.CASES[6:], sample=25, seed=3):
        assert row.open == 0, f"{row.case}, skipped {row.kind}: {row.where}"


def test_b14_the_campaign_can_fail(monkeypatch: pytest.MonkeyPatch):
    """With the verdict of the engine turned round, the bad image runs and the checker sees it."""
    bench = boot_skips.Bench(build_program("rom"), build_program("app").body[:BODY], boot_skips.CASES[0])
    monkeypatch.setattr("bms_emulator.devices.hsm.INVALID", 0x3CA5965A)
    assert bench.settle()
