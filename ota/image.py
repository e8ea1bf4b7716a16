"""Bootable images in MCUboot format, byte-compatible with ``imgtool`` in both directions.

Layout (all little-endian)::

    offset          size  field
    0               4     magic 0x96F3B83D
    4               4     load address (0 unless ROM_FIXED or RAM_LOAD is set)
    8               2     header size H, incl. padding (32 … 4096)
    10              2     size of the protected TLV area incl. its 4-byte info (0: none)
    12              4     body size N
    16              4     flags: 0x10 NON_BOOTABLE (parameter sets), 0x100 ROM_FIXED (position dependent)
    20              8     version: major u8, minor u8, revision u16, build u32
    28              4     zero
    H               N     body
    H+N             P     protected TLV area: 0x6908 u16, P u16, then TLVs
    H+N+P           U     TLV area: 0x6907 u16, U u16, then TLVs

One TLV is type u16, length u16, value. SHA-256 covers bytes 0 … H+N+P. Ed25519 signs that digest; P-256
signs the same bytes with SHA-256 (equal for an engine that takes the digest).

    type    area       value
    0x50    protected  security counter u32
    0x40    protected  dependency: image id u8, 3 zero bytes, least version (8 bytes as in the header)
    0x74    protected  vendor id, UUID (16 bytes)      0x75  class id, UUID (16 bytes)
    0xA0    protected  parameter schema: least u16, greatest u16 (a parameter set has both equal)
    0xA1    protected  hardware revisions: u16 each, ascending
    0xA2    protected  Merkle root (32) over the 4 KiB blocks of bytes 0 … H+N  (``merkle``)
    0xA3    protected  build digest (32): SHA-256 of the build record (sources, toolchain, options)
    0x10    free       SHA-256                         0x01  SHA-256 of the signer's SubjectPublicKeyInfo
    0x24    free       Ed25519 signature (64)          0x22  ECDSA signature (DER)

Image ids: 0 firmware, 1 parameter set. Order of TLVs is the order of the table above with 0x50, 0x40, 0x74,
0x75, 0xA0…; it is what ``imgtool sign --security-counter --dependencies --vid --cid --custom-tlv`` writes.
The parser refuses what a boot loader may pass over silently: TLVs it does not know, repeated TLVs, bytes
after the end, a signature by an algorithm that is not the key's.
"""

from __future__ import annotations

import hashlib
import re
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import limits, merkle
from .errors import OtaError, Reason, require
from .signing import Algorithm, PublicKey, SigningKey

MAGIC = 0x96F3B83D
FLAG_NON_BOOTABLE = 0x10
FLAG_ROM_FIXED = 0x100
_FLAGS_KNOWN = FLAG_NON_BOOTABLE | FLAG_ROM_FIXED
HEADER = struct.Struct("<IIHHIIBBHII")
_INFO = struct.Struct("<HH")
TLV_INFO_FREE = 0x6907
TLV_INFO_PROTECTED = 0x6908

TLV_KEYHASH = 0x01
TLV_SHA256 = 0x10
TLV_ECDSA = 0x22
TLV_ED25519 = 0x24
TLV_DEPENDENCY = 0x40
TLV_SECURITY_COUNTER = 0x50
TLV_VENDOR = 0x74
TLV_CLASS = 0x75
TLV_PARAMETER_SCHEMA = 0xA0
TLV_HARDWARE_REVISIONS = 0xA1
TLV_BLOCK_ROOT = 0xA2
TLV_BUILD_DIGEST = 0xA3
_PROTECTED = {0x50, 0x40, 0x74, 0x75, 0xA0, 0xA1, 0xA2, 0xA3}
_FREE = {0x10, 0x01, 0x22, 0x24}

IMAGE_FIRMWARE = 0
IMAGE_PARAMETERS = 1


@dataclass(frozen=True, order=True)
class Version:
    """major.minor.revision+build, ordered in this sequence."""

    major: int
    minor: int
    revision: int
    build: int = 0

    @staticmethod
    def parse(text: str) -> Version:
        match = re.fullmatch(r"(\d{1,3})\.(\d{1,3})\.(\d{1,5})(?:\+(\d{1,10}))?", text)
        require(match is not None, Reason.FORMAT, f"version {text!r} is not like 1.2.3 or 1.2.3+4")
        assert match is not None
        major, minor, revision, build = (int(g or 0) for g in match.groups())
        good = major < 256 and minor < 256 and revision < 65536 and build < 2**32
        require(good, Reason.FORMAT, f"version {text!r} out of range")
        return Version(major, minor, revision, build)

    def __str__(self) -> str:
        tail = f"+{self.build}" if self.build else ""
        return f"{self.major}.{self.minor}.{self.revision}{tail}"

    def pack(self) -> bytes:
        return struct.pack("<BBHI", self.major, self.minor, self.revision, self.build)


@dataclass(frozen=True)
class Dependency:
    image_id: int
    at_least: Version


@dataclass(frozen=True)
class Image:
    """A parsed image; nothing in it is trusted before ``verify``."""

    data: bytes = field(repr=False)
    load_address: int
    header_size: int
    body_size: int
    flags: int
    version: Version
    security_counter: int | None
    vendor_id: bytes | None
    class_id: bytes | None
    dependencies: tuple[Dependency, ...]
    parameter_schema: tuple[int, int] | None
    hardware_revisions: tuple[int, ...] | None
    block_root: bytes | None
    build_digest: bytes | None
    sha256: bytes
    key_hash: bytes | None
    signature: bytes | None
    algorithm: Algorithm | None
    signed_size: int

    @property
    def body(self) -> bytes:
        return self.data[self.header_size : self.header_size + self.body_size]

    @property
    def bootable(self) -> bool:
        return not self.flags & FLAG_NON_BOOTABLE

    @property
    def file_digest(self) -> bytes:
        return hashlib.sha256(self.data).digest()


def vendor_uuid(vendor: str) -> bytes:
    """UUID version 5 of a DNS name, as ``imgtool --vid`` makes it."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, vendor).bytes


def class_uuid(vendor: str, hardware: str) -> bytes:
    """UUID version 5 of a hardware class within its vendor, as ``imgtool --cid`` makes it."""
    return uuid.uuid5(uuid.UUID(bytes=vendor_uuid(vendor)), hardware).bytes


def build(
    body: bytes,
    *,
    version: Version,
    key: SigningKey | None,
    security_counter: int | None = None,
    vendor_id: bytes | None = None,
    class_id: bytes | None = None,
    dependencies: Sequence[Dependency] = (),
    parameter_schema: tuple[int, int] | None = None,
    hardware_revisions: Sequence[int] = (),
    block_root: bool = True,
    build_digest: bytes | None = None,
    header_size: int = 0x200,
    load_address: int = 0,
    flags: int = 0,
) -> bytes:
    """Make an image around ``body``.

    ``key`` None leaves the signature out (for ceremonies: sign ``digest_to_sign`` elsewhere, then
    ``attach_signature``). The load address is recorded only with FLAG_ROM_FIXED, as imgtool does.
    """
    tlvs: list[tuple[int, bytes]] = []
    if security_counter is not None:
        require(
            0 <= security_counter <= limits.SECURITY_COUNTER_MAX,
            Reason.SECURITY_COUNTER_CAPACITY,
            str(security_counter),
        )
        tlvs.append((TLV_SECURITY_COUNTER, struct.pack("<I", security_counter)))
    tlvs += [(TLV_DEPENDENCY, struct.pack("<B3x", d.image_id) + d.at_least.pack()) for d in dependencies]
    if vendor_id is not None:
        tlvs.append((TLV_VENDOR, vendor_id))
    if class_id is not None:
        tlvs.append((TLV_CLASS, class_id))
    if parameter_schema is not None:
        tlvs.append((TLV_PARAMETER_SCHEMA, struct.pack("<HH", *parameter_schema)))
    if hardware_revisions:
        revisions = sorted(set(hardware_revisions))
        tlvs.append((TLV_HARDWARE_REVISIONS, struct.pack(f"<{len(revisions)}H", *revisions)))
    root_at = len(tlvs)
    if build_digest is not None:
        tlvs.append((TLV_BUILD_DIGEST, build_digest))
    n_tlvs = len(tlvs) + block_root
    protected_size = (4 + sum(4 + len(v) for _, v in tlvs) + 36 * block_root) if n_tlvs else 0

    header = HEADER.pack(
        MAGIC,
        load_address if flags & FLAG_ROM_FIXED else 0,
        header_size,
        protected_size,
        len(body),
        flags,
        version.major,
        version.minor,
        version.revision,
        version.build,
        0,
    )
    head = header + b"\xff" * (header_size - len(header)) + body
    if block_root:
        tlvs.insert(root_at, (TLV_BLOCK_ROOT, merkle.file_root(head)))
    signed = head
    if protected_size:
        signed += _INFO.pack(TLV_INFO_PROTECTED, protected_size)
        signed += b"".join(_INFO.pack(t, len(v)) + v for t, v in tlvs)
    digest = hashlib.sha256(signed).digest()
    unsigned = signed + _INFO.pack(TLV_INFO_FREE, 4 + 36) + _INFO.pack(TLV_SHA256, 32) + digest
    if key is None:
        return unsigned
    message = digest if key.public.algorithm is Algorithm.ED25519 else signed
    return attach_signature(unsigned, key.public, key.sign(message))


def digest_to_sign(unsigned: bytes) -> bytes:
    """The SHA-256 a signer of an unsigned image has to confirm and sign."""
    return parse(unsigned).sha256


def attach_signature(unsigned: bytes, public: PublicKey, signature: bytes) -> bytes:
    """Complete an image made with ``key=None``."""
    image = parse(unsigned)
    require(image.signature is None, Reason.DUPLICATE_FIELD, "image is already signed")
    kind = TLV_ED25519 if public.algorithm is Algorithm.ED25519 else TLV_ECDSA
    free = b"".join(
        _INFO.pack(t, len(v)) + v
        for t, v in ((TLV_SHA256, image.sha256), (TLV_KEYHASH, public.key_hash), (kind, signature))
    )
    return image.data[: image.signed_size] + _INFO.pack(TLV_INFO_FREE, 4 + len(free)) + free


def _tlvs(
    data: bytes, at: int, magic: int, allowed: set[int], repeatable: set[int]
) -> tuple[list[tuple[int, bytes]], int]:
    """TLVs of the area at ``at`` and the offset behind it."""
    require(at + 4 <= len(data), Reason.TRUNCATED, "TLV area missing")
    found_magic, size = _INFO.unpack_from(data, at)
    require(found_magic == magic, Reason.FORMAT, f"TLV area magic 0x{found_magic:04x}")
    require(4 <= size <= limits.TLV_AREA_MAX, Reason.OVERSIZE, f"TLV area of {size} B")
    end = at + size
    require(end <= len(data), Reason.TRUNCATED, "TLV area beyond the file")
    at += 4
    rows: list[tuple[int, bytes]] = []
    while at < end:
        require(at + 4 <= end, Reason.TRUNCATED, "TLV head")
        kind, length = _INFO.unpack_from(data, at)
        at += 4
        require(at + length <= end, Reason.TRUNCATED, f"TLV 0x{kind:02x} longer than its area")
        require(kind in allowed, Reason.UNKNOWN_FIELD, f"TLV 0x{kind:02x}")
        require(
            kind in repeatable or all(k != kind for k, _ in rows), Reason.DUPLICATE_FIELD, f"TLV 0x{kind:02x}"
        )
        require(len(rows) < limits.TLV_COUNT_MAX, Reason.OVERSIZE, "too many TLVs")
        rows.append((kind, data[at : at + length]))
        at += length
    return rows, end


def _sized(values: dict[int, bytes], kind: int, size: int) -> bytes | None:
    value = values.get(kind)
    require(value is None or len(value) == size, Reason.FORMAT, f"TLV 0x{kind:02x} must have {size} bytes")
    return value


def parse(data: bytes) -> Image:
    """Read the structure of an image without trusting it; every malformation has its reason."""
    require(len(data) <= limits.IMAGE_MAX, Reason.OVERSIZE, f"{len(data)} B, limit {limits.IMAGE_MAX} B")
    require(len(data) >= HEADER.size, Reason.TRUNCATED, "shorter than an image header")
    magic, load, header_size, protected_size, body_size, flags, *version, pad = HEADER.unpack_from(data)
    require(magic == MAGIC, Reason.FORMAT, f"magic 0x{magic:08x}")
    require(
        HEADER.size <= header_size <= limits.IMAGE_HEADER_MAX, Reason.FORMAT, f"header of {header_size} B"
    )
    require(not flags & ~_FLAGS_KNOWN, Reason.UNKNOWN_FIELD, f"flags 0x{flags:x}")
    require(pad == 0, Reason.FORMAT, "header padding not zero")
    require(bool(flags & FLAG_ROM_FIXED) or load == 0, Reason.FORMAT, "load address without ROM_FIXED")
    at = header_size + body_size
    require(at <= len(data), Reason.TRUNCATED, "body beyond the file")
    values: dict[int, bytes] = {}
    dependencies: list[Dependency] = []
    if protected_size:
        rows, end = _tlvs(data, at, TLV_INFO_PROTECTED, _PROTECTED, {TLV_DEPENDENCY})
        require(end - at == protected_size, Reason.FORMAT, "protected TLV size differs from the header's")
        at = end
        values = dict(rows)
        for kind, value in rows:
            if kind == TLV_DEPENDENCY:
                require(len(value) == 12, Reason.FORMAT, "dependency TLV must have 12 bytes")
                dependencies.append(Dependency(value[0], Version(*struct.unpack_from("<BBHI", value, 4))))
    signed_size = at
    free_rows, end = _tlvs(data, at, TLV_INFO_FREE, _FREE, set())
    require(end == len(data), Reason.TRAILING_DATA, f"{len(data) - end} B after the image")
    free = dict(free_rows)
    sha256 = _sized(free, TLV_SHA256, 32)
    if sha256 is None:
        raise OtaError(Reason.MISSING_FIELD, "SHA-256 TLV")
    require(not (TLV_ED25519 in free and TLV_ECDSA in free), Reason.DUPLICATE_FIELD, "two signatures")
    algorithm = signature = None
    if TLV_ED25519 in free:
        algorithm, signature = Algorithm.ED25519, _sized(free, TLV_ED25519, 64)
    elif TLV_ECDSA in free:
        algorithm, signature = Algorithm.P256, free[TLV_ECDSA]
    counter = _sized(values, TLV_SECURITY_COUNTER, 4)
    schema = _sized(values, TLV_PARAMETER_SCHEMA, 4)
    schema_range = struct.unpack("<HH", schema) if schema else None
    if schema_range is not None:
        require(schema_range[0] <= schema_range[1], Reason.FORMAT, "parameter schema range is empty")
    revisions = values.get(TLV_HARDWARE_REVISIONS)
    if revisions is not None:
        require(len(revisions) % 2 == 0 and 0 < len(revisions) <= 64, Reason.FORMAT, "hardware revisions")
    return Image(
        data=bytes(data),
        load_address=load,
        header_size=header_size,
        body_size=body_size,
        flags=flags,
        version=Version(*version),
        security_counter=struct.unpack("<I", counter)[0] if counter else None,
        vendor_id=_sized(values, TLV_VENDOR, 16),
        class_id=_sized(values, TLV_CLASS, 16),
        dependencies=tuple(dependencies),
        parameter_schema=schema_range,
        hardware_revisions=(
            None if revisions is None else struct.unpack(f"<{len(revisions) // 2}H", revisions)
        ),
        block_root=_sized(values, TLV_BLOCK_ROOT, 32),
        build_digest=_sized(values, TLV_BUILD_DIGEST, 32),
        sha256=sha256,
        key_hash=_sized(free, TLV_KEYHASH, 32),
        signature=signature,
        algorithm=algorithm,
        signed_size=signed_size,
    )


@dataclass(frozen=True)
class Policy:
    """What a device demands of an image. None or empty: not demanded.

    keys : trusted public keys by key hash; ``revoked`` are refused even if trusted before, unless the image's
        security counter is at or below ``revoked[key_hash]`` (signed before the revocation; −1: never)
    installed_* : what runs now, for the checks that need it
    """

    keys: tuple[PublicKey, ...]
    vendor_id: bytes | None = None
    class_id: bytes | None = None
    hardware_revision: int | None = None
    least_security_counter: int = 0
    counter_capacity: int = limits.SECURITY_COUNTER_MAX
    require_counter: bool = True
    slot_size: int = limits.IMAGE_MAX
    load_addresses: tuple[int, ...] = ()
    bootable: bool = True
    installed_version: Version | None = None
    installed_digest: bytes | None = None
    revoked: tuple[tuple[bytes, int], ...] = ()


def verify_integrity(image: Image) -> None:
    """Digest and Merkle root; needs no key."""
    digest = hashlib.sha256(image.data[: image.signed_size]).digest()
    require(digest == image.sha256, Reason.DIGEST, "image hash TLV")
    if image.block_root is not None:
        head = image.data[: image.header_size + image.body_size]
        require(merkle.file_root(head) == image.block_root, Reason.MERKLE, "block root TLV")


def verify_signature(image: Image, keys: Sequence[PublicKey]) -> PublicKey:
    """The trusted key that signed ``image``."""
    if image.signature is None or image.key_hash is None:
        raise OtaError(Reason.SIGNATURE_MISSING, "image")
    for key in keys:
        if key.key_hash == image.key_hash:
            require(
                key.algorithm is image.algorithm, Reason.ALGORITHM, "signature TLV is not of the key's kind"
            )
            # Always over the recomputed bytes, never over the digest the file claims.
            signed = image.data[: image.signed_size]
            if key.algorithm is Algorithm.ED25519:
                key.verify(hashlib.sha256(signed).digest(), image.signature)
            else:
                key.verify(signed, image.signature)
            return key
    raise OtaError(Reason.KEY_UNKNOWN, f"key hash {image.key_hash.hex()[:16]}…")


def verify(data: bytes, policy: Policy) -> Image:
    """Parse and check ``data`` in a fixed order: form, digest, signature, hardware, counters, size.

    Returns the image; raises OtaError with the first reason for refusal.
    """
    image = parse(data)
    require(len(data) <= policy.slot_size, Reason.SLOT_SIZE, f"{len(data)} B into {policy.slot_size} B")
    verify_integrity(image)
    key = verify_signature(image, policy.keys)
    for key_hash, until_counter in policy.revoked:
        if key_hash == key.key_hash:
            old = image.security_counter is not None and image.security_counter <= until_counter
            require(old, Reason.KEY_REVOKED, f"key {key.kid.hex()}")
    require(image.bootable == policy.bootable, Reason.NOT_BOOTABLE, "firmware and parameter set confused")
    require(policy.vendor_id in (None, image.vendor_id), Reason.VENDOR, "vendor id")
    require(policy.class_id in (None, image.class_id), Reason.HARDWARE, "class id")
    if policy.hardware_revision is not None and image.hardware_revisions is not None:
        known = policy.hardware_revision in image.hardware_revisions
        require(known, Reason.HARDWARE_REVISION, f"revision {policy.hardware_revision} not in image's list")
    if policy.load_addresses and image.flags & FLAG_ROM_FIXED:
        require(
            image.load_address in policy.load_addresses, Reason.LOAD_ADDRESS, f"0x{image.load_address:08x}"
        )
    counter = image.security_counter
    if counter is None:
        require(not policy.require_counter, Reason.SECURITY_COUNTER_MISSING)
    else:
        require(counter <= policy.counter_capacity, Reason.SECURITY_COUNTER_CAPACITY, str(counter))
        low = f"{counter} < {policy.least_security_counter}"
        require(counter >= policy.least_security_counter, Reason.SECURITY_COUNTER_LOW, low)
    if policy.installed_version is not None:
        low = f"{image.version} < {policy.installed_version}"
        require(image.version >= policy.installed_version, Reason.VERSION_LOW, low)
        if image.version == policy.installed_version and policy.installed_digest is not None:
            same = image.sha256 == policy.installed_digest
            require(same, Reason.SAME_VERSION_OTHER_IMAGE, str(image.version))
    return image


def check_set(firmware: Image | None, parameters: Image | None, parameter_counter: int = 0) -> None:
    """All-or-nothing check of a firmware and a parameter set that would run together.

    Raises PARAMETER_SCHEMA or DEPENDENCY. ``None`` means that part does not exist on the device.
    """
    for image in (firmware, parameters):
        for dependency in image.dependencies if image else ():
            other = parameters if dependency.image_id == IMAGE_PARAMETERS else firmware
            need = f"image {dependency.image_id} at least {dependency.at_least}"
            require(other is not None and other.version >= dependency.at_least, Reason.DEPENDENCY, need)
    if firmware is not None and parameters is not None:
        wants, has = firmware.parameter_schema, parameters.parameter_schema
        if wants is not None:
            good = has is not None and wants[0] <= has[0] and has[1] <= wants[1]
            require(good, Reason.PARAMETER_SCHEMA, f"firmware reads {wants}, set has {has}")
