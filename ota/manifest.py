"""The compact manifest the MCU verifies: one COSE_Sign1 of a few hundred bytes.

The gateway verifies the full TUF metadata; the MCU cannot parse JSON and verifies this instead (Uptane
partial verification), then the image's own signature and counter. Content type ``ota/manifest``.
Payload, a CBOR map with integer keys::

    1  format version, 1                        8   expiry, Unix seconds
    2  sequence number (release counter)        9   preconditions, bit mask (``frames.CONDITION_*``)
    3  vendor id, 16 bytes                      10  components, 1…4 maps; all or nothing:
    4  class id, 16 bytes                             1  image id (0 firmware, 1 parameters)
    5  hardware revisions, array of uint              2  SHA-256 of the file
    6  device serial                                  3  file length
    7  deployment id, 16 bytes                        4  version [major, minor, revision, build]
                                                      5  security counter
                                                      6  Merkle root of the file's 4 KiB blocks
                                                      7  parameter schema [least, greatest], optional
                                                      8  delta, optional: {1: codec (1 = BTD1), 2: SHA-256
                                                         of the base file, 3: of the delta, 4: delta length}

Completeness against the SUIT information model (RFC 9124 §3): version id 1, monotonic sequence number 2,
vendor id 3, class id 4, precursor digest 10.8.2, expiration 8, payload format 10.1 and 10.8.1, component
identifier 10.1, payload digest 10.2, size 10.3, required image version / dependencies in the image TLVs,
signature the COSE envelope. Left out on purpose: processing steps, additional instructions, aliases, URIs
(the order of steps is fixed code, the source is always the gateway), encryption wrapper, XIP address (image
header), text (server side only).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import cbor, cose, limits
from .errors import Reason, require
from .image import Version
from .signing import PublicKey, SigningKey

CONTENT_TYPE = "ota/manifest"
FORMAT_VERSION = 1
CODEC_BTD1 = 1


@dataclass(frozen=True)
class DeltaRef:
    base_digest: bytes
    digest: bytes
    length: int
    codec: int = CODEC_BTD1


@dataclass(frozen=True)
class Component:
    """One file of the set; digests are SHA-256 of whole files."""

    image_id: int
    digest: bytes
    length: int
    version: Version
    security_counter: int
    merkle_root: bytes
    parameter_schema: tuple[int, int] | None = None
    delta: DeltaRef | None = None


@dataclass(frozen=True)
class Manifest:
    sequence: int
    vendor_id: bytes
    class_id: bytes
    hardware_revisions: tuple[int, ...]
    device: str
    deployment: bytes
    expires_s: int
    preconditions: int
    components: tuple[Component, ...]

    def sign(self, key: SigningKey) -> bytes:
        data = cose.sign(CONTENT_TYPE, _payload(self), key)
        require(len(data) <= limits.MANIFEST_MAX, Reason.OVERSIZE, f"manifest of {len(data)} B")
        return data

    def component(self, image_id: int) -> Component | None:
        return next((c for c in self.components if c.image_id == image_id), None)


def _payload(m: Manifest) -> dict[int, Any]:
    components = []
    for c in m.components:
        row: dict[int, Any] = {
            1: c.image_id,
            2: c.digest,
            3: c.length,
            4: [c.version.major, c.version.minor, c.version.revision, c.version.build],
            5: c.security_counter,
            6: c.merkle_root,
        }
        if c.parameter_schema is not None:
            row[7] = list(c.parameter_schema)
        if c.delta is not None:
            row[8] = {1: c.delta.codec, 2: c.delta.base_digest, 3: c.delta.digest, 4: c.delta.length}
        components.append(row)
    return {
        1: FORMAT_VERSION,
        2: m.sequence,
        3: m.vendor_id,
        4: m.class_id,
        5: list(m.hardware_revisions),
        6: m.device,
        7: m.deployment,
        8: m.expires_s,
        9: m.preconditions,
        10: components,
    }


def _uint_list(row: Any, key: int, name: str, sizes: range, maximum: int) -> tuple[int, ...]:
    values = cbor.field(row, key, list, name)
    good = len(values) in sizes and all(type(v) is int and 0 <= v <= maximum for v in values)
    require(good, Reason.FORMAT, name)
    return tuple(values)


def _component(row: Any) -> Component:
    require(isinstance(row, dict), Reason.FORMAT, "component")
    cbor.only_fields(row, set(range(1, 9)), "component")
    version = _uint_list(row, 4, "version", range(4, 5), 2**32 - 1)
    require(max(version[:2]) < 256 and version[2] < 65536, Reason.FORMAT, "version")
    schema = None
    if 7 in row:
        least, greatest = _uint_list(row, 7, "parameter schema", range(2, 3), 0xFFFF)
        require(least <= greatest, Reason.FORMAT, "parameter schema range is empty")
        schema = (least, greatest)
    delta = None
    if 8 in row:
        ref = cbor.field(row, 8, dict, "delta")
        cbor.only_fields(ref, {1, 2, 3, 4}, "delta")
        codec = cbor.uint(ref, 1, "delta codec")
        require(codec == CODEC_BTD1, Reason.DELTA_CODEC, f"codec {codec}")
        delta = DeltaRef(
            cbor.fixed_bytes(ref, 2, 32, "delta base digest"),
            cbor.fixed_bytes(ref, 3, 32, "delta digest"),
            cbor.uint(ref, 4, "delta length", limits.IMAGE_MAX),
            codec,
        )
    length = cbor.uint(row, 3, "length")
    require(0 < length <= limits.IMAGE_MAX, Reason.OVERSIZE, f"component of {length} B")
    return Component(
        cbor.uint(row, 1, "image id", 1),
        cbor.fixed_bytes(row, 2, 32, "digest"),
        length,
        Version(*version),
        cbor.uint(row, 5, "security counter"),
        cbor.fixed_bytes(row, 6, 32, "Merkle root"),
        schema,
        delta,
    )


def verify(data: bytes, keys: Iterable[PublicKey]) -> Manifest:
    """The manifest in ``data`` if signed by one of ``keys``; fitness for a device is ``check_for``."""
    require(len(data) <= limits.MANIFEST_MAX, Reason.OVERSIZE, f"manifest of {len(data)} B")
    row, _ = cose.verify(data, CONTENT_TYPE, keys, limits.MANIFEST_MAX)
    require(isinstance(row, dict), Reason.FORMAT, "manifest is not a map")
    cbor.only_fields(row, set(range(1, 11)), "manifest")
    version = cbor.uint(row, 1, "format version")
    require(version == FORMAT_VERSION, Reason.UNSUPPORTED_VERSION, f"manifest format {version}")
    components = cbor.field(row, 10, list, "components")
    some = 1 <= len(components) <= limits.MANIFEST_COMPONENTS_MAX
    require(some, Reason.FORMAT, f"{len(components)} components")
    parsed = tuple(_component(c) for c in components)
    require(len({c.image_id for c in parsed}) == len(parsed), Reason.DUPLICATE_FIELD, "component twice")
    device = cbor.field(row, 6, str, "device")
    require(0 < len(device) <= 64, Reason.FORMAT, "device serial")
    return Manifest(
        sequence=cbor.uint(row, 2, "sequence"),
        vendor_id=cbor.fixed_bytes(row, 3, 16, "vendor id"),
        class_id=cbor.fixed_bytes(row, 4, 16, "class id"),
        hardware_revisions=_uint_list(row, 5, "hardware revisions", range(0, 33), 0xFFFF),
        device=device,
        deployment=cbor.fixed_bytes(row, 7, 16, "deployment"),
        expires_s=cbor.uint(row, 8, "expiry", 2**53),
        preconditions=cbor.uint(row, 9, "preconditions", 0xFFFF),
        components=parsed,
    )


def check_for(
    manifest: Manifest,
    *,
    device: str,
    vendor_id: bytes,
    class_id: bytes,
    hardware_revision: int,
    last_sequence: int,
    now_s: float | None,
) -> None:
    """Refuse a manifest that is not for this device, not newer, or (where time is known) expired.

    Equal sequence numbers are accepted: the same manifest is offered again after an interruption.
    """
    require(manifest.vendor_id == vendor_id, Reason.VENDOR, "manifest")
    require(manifest.class_id == class_id, Reason.HARDWARE, "manifest")
    good = not manifest.hardware_revisions or hardware_revision in manifest.hardware_revisions
    require(good, Reason.HARDWARE_REVISION, f"revision {hardware_revision}")
    require(manifest.device == device, Reason.WRONG_DEVICE, f"for {manifest.device}")
    low = f"sequence {manifest.sequence} < {last_sequence}"
    require(manifest.sequence >= last_sequence, Reason.ROLLBACK, low)
    require(now_s is None or now_s < manifest.expires_s, Reason.EXPIRED, "manifest")
