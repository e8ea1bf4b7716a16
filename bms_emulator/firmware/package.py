"""Signed images for the board, as far as the emulator needs them by itself (bench, tests, a first run).

The office that makes releases is the package `ota`, which this package must not import; that both write the
same bytes is held by tests/agreement. The development key is public on purpose: boards that trust it are
toys.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HEADER_SIZE = 0x200
WINDOW = 0x0800_0000
ED25519_SIZE = 44  # of such a key's SubjectPublicKeyInfo; a P-256 key has 91 bytes
_ROM_FIXED, _NON_BOOTABLE = 0x100, 0x10
_TLV = struct.Struct("<HH")


@dataclass(frozen=True)
class Identity:
    """What is fixed at manufacture: UUIDs of vendor and hardware class, revision of the board, serial number,
    and the keys (DER SubjectPublicKeyInfo) whose update manifests are accepted; by default the development
    key."""

    vendor: bytes = bytes(range(16))
    hardware_class: bytes = bytes(range(16, 32))
    revision: int = 1
    serial: str = "ecu-board"
    manifest_keys: tuple[bytes, ...] | None = None

    def pack(self) -> bytes:
        """As the last bytes of the ROM hold it (ota_identity_t of update/manifest.h)."""
        keys = (spki(development_key()),) if self.manifest_keys is None else self.manifest_keys
        serial = self.serial.encode()
        if len(serial) > 64 or len(keys) > 4:
            raise ValueError("a serial number has at most 64 bytes, a controller at most 4 manifest keys")
        rows = b"".join(
            struct.pack("<I", 1 if len(key) == ED25519_SIZE else 2) + hashlib.sha256(key).digest()
            for key in keys
        )
        head = self.vendor + self.hardware_class + struct.pack("<II", self.revision, len(serial))
        return head + serial.ljust(64, b"\0") + struct.pack("<I", len(keys)) + rows


def development_key() -> Ed25519PrivateKey:
    """The key that every development board trusts."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"battery twin, development key").digest())


def spki(key: Ed25519PrivateKey) -> bytes:
    """DER SubjectPublicKeyInfo of its public half."""
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def package(
    body: bytes,
    version: tuple[int, int, int, int],
    key: Ed25519PrivateKey,
    identity: Identity,
    security_counter: int = 1,
    schema: int | None = None,
    bootable: bool = True,
) -> bytes:
    """MCUboot-format image: firmware for the window, or a parameter set (`bootable` false).

    `schema`: parameter schema that the firmware reads, or that the set has.
    """
    rows = [
        (0x50, struct.pack("<I", security_counter)),
        (0x74, identity.vendor),
        (0x75, identity.hardware_class),
    ]
    if schema is not None:
        rows.append((0xA0, struct.pack("<HH", schema, schema)))
    protected = b"".join(_TLV.pack(kind, len(value)) + value for kind, value in rows)
    header_size = HEADER_SIZE if bootable else 32
    header = struct.pack(
        "<IIHHIIBBHII",
        0x96F3B83D,
        WINDOW if bootable else 0,
        header_size,
        4 + len(protected),
        len(body),
        _ROM_FIXED if bootable else _NON_BOOTABLE,
        *version,
        0,
    )
    signed = header.ljust(header_size, b"\xff") + body
    signed += _TLV.pack(0x6908, 4 + len(protected)) + protected
    digest = hashlib.sha256(signed).digest()
    free = b"".join(
        _TLV.pack(kind, len(value)) + value
        for kind, value in (
            (0x10, digest),
            (0x01, hashlib.sha256(spki(key)).digest()),
            (0x24, key.sign(digest)),
        )
    )
    return signed + _TLV.pack(0x6907, 4 + len(free)) + free
