"""MCUboot images against imgtool, in both directions and byte for byte; every refusal of the verifier."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from imgtool.image import Image as ForeignImage
from imgtool.image import VerifyResult
from imgtool.keys import load as load_foreign_key
from imgtool.version import decode_version

from ota import image, merkle
from ota.errors import OtaError, Reason
from ota.image import Dependency, Policy, Version
from ota.signing import Algorithm, SoftwareKey

VENDOR, HARDWARE = "example.org", "bms-a"
VID, CID = image.vendor_uuid(VENDOR), image.class_uuid(VENDOR, HARDWARE)
KEYS = {a: SoftwareKey.from_seed(b"image", a) for a in Algorithm}
OTHER = SoftwareKey.from_seed(b"other")


def pem(folder: Path, key: SoftwareKey) -> str:
    path = folder / f"{key.public.kid.hex()}.pem"
    path.write_bytes(
        key.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(path)


def ours(body: bytes, key: SoftwareKey = KEYS[Algorithm.ED25519], **options: object) -> bytes:
    common: dict[str, object] = {
        "version": Version(1, 2, 3, 4),
        "key": key,
        "security_counter": 7,
        "vendor_id": VID,
        "class_id": CID,
        "dependencies": [Dependency(1, Version(2, 0, 0))],
        "parameter_schema": (1, 3),
        "hardware_revisions": (1, 2),
    }
    return image.build(body, **{**common, **options})  # type: ignore[arg-type]


def foreign(folder: Path, body: bytes, key: SoftwareKey) -> bytes:
    """The same image, made by imgtool's own code."""
    source = folder / "body.bin"
    source.write_bytes(body)
    made = ForeignImage(
        version=decode_version("1.2.3+4"),
        header_size=0x200,
        pad_header=True,
        security_counter=7,
        vid=VENDOR,
        cid=HARDWARE,
    )
    made.load(str(source))
    tlvs = {0xA0: struct.pack("<HH", 1, 3), 0xA1: struct.pack("<2H", 1, 2)}
    # The Merkle root covers the header, which imgtool writes later: take it from ours, it must then agree.
    tlvs[0xA2] = image.parse(ours(body, key)).block_root or b""
    made.create(
        load_foreign_key(pem(folder, key)),
        "hash",
        None,
        dependencies={"images": ["1"], "versions": [decode_version("2.0.0+0")]},
        custom_tlvs=tlvs,
    )
    return bytes(made.payload)


@pytest.mark.parametrize("size", [0, 1, 4, 4095, 4096, 10_001])
def test_ed25519_images_are_equal_to_imgtools_byte_for_byte(tmp_path: Path, size: int) -> None:
    body = random.Random(size).randbytes(size)
    key = KEYS[Algorithm.ED25519]
    assert ours(body, key) == foreign(tmp_path, body, key)


def test_fifty_images_both_ways_with_mutants(tmp_path: Path) -> None:
    """Ours through imgtool's verifier, imgtool's through ours; one flipped byte each is refused by both."""
    rng = random.Random(5)
    for n in range(50):
        key = KEYS[Algorithm.P256 if n % 2 else Algorithm.ED25519]
        body = rng.randbytes(rng.randrange(1, 6000))
        theirs = foreign(tmp_path, body, key)
        mine = ours(body, key)
        path = tmp_path / "i.bin"
        foreign_key = load_foreign_key(pem(tmp_path, key))
        for data in (theirs, mine):
            image.verify(data, Policy(keys=(key.public,), vendor_id=VID, class_id=CID))
            path.write_bytes(data)
            assert ForeignImage.verify(str(path), foreign_key)[0] is VerifyResult.OK
        at = rng.randrange(0x200, 0x200 + len(body))
        mutant = mine[:at] + bytes([mine[at] ^ 1 << rng.randrange(8)]) + mine[at + 1 :]
        path.write_bytes(mutant)
        assert ForeignImage.verify(str(path), foreign_key)[0] is VerifyResult.INVALID_HASH
        with pytest.raises(OtaError) as error:
            image.verify(mutant, Policy(keys=(key.public,)))
        assert error.value.reason is Reason.DIGEST


def test_imgtool_command_line_accepts_ours(tmp_path: Path) -> None:
    key = KEYS[Algorithm.ED25519]
    (tmp_path / "ours.bin").write_bytes(ours(b"\x13\x00\x00\x00" * 500))
    tool = [sys.executable, "-m", "imgtool.main", "verify", "-k"]
    good = subprocess.run(
        [*tool, pem(tmp_path, key), str(tmp_path / "ours.bin")], capture_output=True, text=True
    )
    assert good.returncode == 0, good.stdout + good.stderr
    assert "1.2.3+4" in good.stdout
    bad = subprocess.run(
        [*tool, pem(tmp_path, OTHER), str(tmp_path / "ours.bin")], capture_output=True, text=True
    )
    assert bad.returncode != 0


def test_signing_elsewhere_gives_the_same_image() -> None:
    for key in KEYS.values():
        unsigned = ours(b"code" * 100, key=None)  # type: ignore[arg-type]
        parsed = image.parse(unsigned)
        message = (
            parsed.sha256 if key.public.algorithm is Algorithm.ED25519 else unsigned[: parsed.signed_size]
        )
        assert image.attach_signature(unsigned, key.public, key.sign(message)) == ours(b"code" * 100, key)
        with pytest.raises(OtaError):
            image.verify(unsigned, Policy(keys=(key.public,)))


def test_merkle_root_covers_header_and_body() -> None:
    parsed = image.parse(ours(bytes(9000)))
    assert parsed.block_root == merkle.file_root(parsed.data[: parsed.header_size + parsed.body_size])


GOOD = ours(b"\x01\x02\x03\x04" * 300)
STRICT = Policy(
    keys=(KEYS[Algorithm.ED25519].public,),
    vendor_id=VID,
    class_id=CID,
    hardware_revision=2,
    least_security_counter=7,
    slot_size=8192,
    installed_version=Version(1, 2, 0),
    load_addresses=(0x1000,),
)


def refusal(data: bytes, policy: Policy = STRICT) -> Reason:
    with pytest.raises(OtaError) as error:
        image.verify(data, policy)
    return error.value.reason


def test_accepts_what_it_should() -> None:
    assert image.verify(GOOD, STRICT).version == Version(1, 2, 3, 4)
    fixed = ours(b"x", load_address=0x1000, flags=image.FLAG_ROM_FIXED)
    assert image.verify(fixed, STRICT).load_address == 0x1000


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"vendor_id": image.vendor_uuid("other.org")}, Reason.VENDOR),
        ({"class_id": image.class_uuid(VENDOR, "bms-b")}, Reason.HARDWARE),
        ({"hardware_revisions": (1, 3)}, Reason.HARDWARE_REVISION),
        ({"load_address": 0x2000, "flags": image.FLAG_ROM_FIXED}, Reason.LOAD_ADDRESS),
        ({"security_counter": 6}, Reason.SECURITY_COUNTER_LOW),
        ({"security_counter": None}, Reason.SECURITY_COUNTER_MISSING),
        ({"version": Version(1, 1, 9)}, Reason.VERSION_LOW),
        ({"flags": image.FLAG_NON_BOOTABLE}, Reason.NOT_BOOTABLE),
        ({"key": OTHER}, Reason.KEY_UNKNOWN),
    ],
)
def test_b7_b8_not_for_this_device(case: dict[str, object], reason: Reason) -> None:
    assert refusal(ours(b"x" * 100, **case)) is reason


def test_b7_b8_size_capacity_and_same_version() -> None:
    assert refusal(ours(bytes(9000))) is Reason.SLOT_SIZE
    small = Policy(keys=STRICT.keys, counter_capacity=6)
    assert refusal(GOOD, small) is Reason.SECURITY_COUNTER_CAPACITY
    other = image.parse(ours(b"other bytes"))
    same = Policy(keys=STRICT.keys, installed_version=other.version, installed_digest=other.sha256)
    assert refusal(GOOD, same) is Reason.SAME_VERSION_OTHER_IMAGE
    with pytest.raises(OtaError) as error:
        ours(b"x", security_counter=70_000)
    assert error.value.reason is Reason.SECURITY_COUNTER_CAPACITY


def test_a11_revoked_key_both_policies() -> None:
    key_hash = KEYS[Algorithm.ED25519].public.key_hash
    never = Policy(keys=STRICT.keys, revoked=((key_hash, -1),))
    assert refusal(GOOD, never) is Reason.KEY_REVOKED
    older_allowed = Policy(keys=STRICT.keys, revoked=((key_hash, 7),))
    assert image.verify(GOOD, older_allowed).security_counter == 7
    assert refusal(ours(b"x", security_counter=8), older_allowed) is Reason.KEY_REVOKED


def test_a12_key_confusion_and_swapped_algorithm() -> None:
    """A P-256 key whose hash stands in an Ed25519 image, and an ECDSA TLV under an Ed25519 key hash."""
    p256, ed = KEYS[Algorithm.P256], KEYS[Algorithm.ED25519]
    forged = GOOD.replace(ed.public.key_hash, p256.public.key_hash)
    assert refusal(forged, Policy(keys=(p256.public, ed.public))) is Reason.ALGORITHM
    swapped = bytearray(GOOD)
    at = GOOD.rindex(struct.pack("<HH", image.TLV_ED25519, 64))
    swapped[at] = image.TLV_ECDSA
    assert refusal(bytes(swapped), Policy(keys=STRICT.keys)) is Reason.ALGORITHM


def test_a12_b5_every_byte_of_header_tlvs_and_signature() -> None:
    """Each byte outside the body changed in three ways: never accepted."""
    parsed = image.parse(GOOD)
    places = [*range(image.HEADER.size), *range(parsed.header_size + parsed.body_size, len(GOOD))]
    accepted = []
    for at in places:
        for flip in (0x01, 0x80, 0xFF):
            mutant = GOOD[:at] + bytes([GOOD[at] ^ flip]) + GOOD[at + 1 :]
            try:
                image.verify(mutant, STRICT)
            except OtaError:
                continue
            accepted.append((at, flip))
    assert accepted == []


def test_b5_body_flips_sampled() -> None:
    rng = random.Random(0)
    parsed = image.parse(GOOD)
    for _ in range(300):
        at = rng.randrange(parsed.header_size, parsed.header_size + parsed.body_size)
        mutant = GOOD[:at] + bytes([GOOD[at] ^ 1 << rng.randrange(8)]) + GOOD[at + 1 :]
        assert refusal(mutant) is Reason.DIGEST


def test_a7_lengths_beyond_the_file() -> None:
    for size in range(len(GOOD)):
        with pytest.raises(OtaError):
            image.parse(GOOD[:size])
    assert refusal(GOOD + b"\0") is Reason.TRAILING_DATA
    with pytest.raises(OtaError) as error:
        image.parse(bytes(3 * 1024 * 1024))
    assert error.value.reason is Reason.OVERSIZE


def test_a6_sets_that_do_not_fit() -> None:
    firmware = image.parse(ours(b"f"))
    fitting = image.parse(
        ours(b"p", version=Version(2, 0, 0), parameter_schema=(2, 2), dependencies=(), flags=0x10)
    )
    image.check_set(firmware, fitting)
    for bad, reason in [
        (
            image.parse(ours(b"p", version=Version(2, 0, 0), parameter_schema=(4, 4), dependencies=())),
            Reason.PARAMETER_SCHEMA,
        ),
        (
            image.parse(ours(b"p", version=Version(1, 9, 9), parameter_schema=(2, 2), dependencies=())),
            Reason.DEPENDENCY,
        ),
        (None, Reason.DEPENDENCY),
    ]:
        with pytest.raises(OtaError) as error:
            image.check_set(firmware, bad)
        assert error.value.reason is reason
