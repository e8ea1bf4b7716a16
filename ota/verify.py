"""``ota verify FILE``: what a file is and, for every refusal, the stable reason code.

Recognised by content: MCUboot images (firmware or parameter set), BTD1 deltas, COSE manifests and messages,
TUF metadata. Without keys only the form and the inner consistency can be judged, and the verdict says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import cbor, cose, delta, image, manifest, parameters
from .errors import OtaError, Reason
from .signing import PublicKey
from .trust import check_json_shape


@dataclass
class Finding:
    """Verdict on one file. ``trusted``: signature checked with a given key."""

    kind: str
    reason: Reason = Reason.OK
    detail: str = ""
    trusted: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        return self.reason is Reason.OK


def verify_bytes(
    data: bytes,
    keys: Sequence[PublicKey] = (),
    *,
    base: bytes | None = None,
    schema: parameters.Schema | None = None,
    policy: image.Policy | None = None,
) -> Finding:
    """Judge ``data``. ``base``: old image for a delta; ``schema``: for parameter sets; ``policy``: a device's
    demands on an image (its keys count too)."""
    finding = Finding(kind_of(data))
    try:
        _JUDGES[finding.kind](finding, data, keys, base, schema, policy)
    except OtaError as error:
        finding.reason, finding.detail, finding.trusted = error.reason, error.detail, False
    return finding


def kind_of(data: bytes) -> str:
    if data[:4] == image.MAGIC.to_bytes(4, "little"):
        return "image"
    if data[:4] == delta.container.MAGIC:
        return "delta"
    if data[:1] == b"\xd2":
        return "cose"
    if data.lstrip()[:1] == b"{":
        return "metadata"
    return "unknown"


def _image(f: Finding, data: bytes, keys: Any, base: Any, schema: Any, policy: Any) -> None:
    parsed = image.parse(data)
    f.kind = "firmware" if parsed.bootable else "parameters"
    f.facts = {
        "version": str(parsed.version),
        "file sha256": parsed.file_digest.hex(),
        "image sha256": parsed.sha256.hex(),
        "security counter": parsed.security_counter,
        "parameter schema": parsed.parameter_schema,
        "hardware revisions": parsed.hardware_revisions,
        "build digest": parsed.build_digest.hex() if parsed.build_digest else None,
        "signed by": parsed.key_hash.hex()[:16] if parsed.key_hash else None,
    }
    image.verify_integrity(parsed)
    if policy is not None:
        image.verify(data, policy)
        f.trusted = True
    elif keys:
        image.verify_signature(parsed, keys)
        f.trusted = True
    if not parsed.bootable:
        found = parameters.unpack(parsed.body)
        f.facts["parameters"] = len(found.rows)
        if schema is not None:
            f.facts["values"] = parameters.check(schema, parsed.body)


def _delta(f: Finding, data: bytes, keys: Any, base: bytes | None, schema: Any, policy: Any) -> None:
    parsed = delta.read(data)
    f.facts = {
        "base sha256": parsed.base_digest.hex(),
        "target sha256": parsed.target_digest.hex(),
        "target length": parsed.target_length,
        "blocks": len(parsed.kinds),
        "unchanged": sum(kind == delta.container.KIND_UNCHANGED for kind in parsed.kinds),
        "merkle root": parsed.merkle_root.hex(),
        "share of full image": round(len(data) / parsed.target_length, 4),
    }
    if base is not None:
        out = delta.apply(base, data)
        f.facts["applies"] = hashlib.sha256(out).hexdigest() == parsed.target_digest.hex()


def _cose(f: Finding, data: bytes, keys: Sequence[PublicKey], base: Any, schema: Any, policy: Any) -> None:
    message = cbor.decode(data)
    protected = message.value[0] if isinstance(message, cbor.Tag) and isinstance(message.value, list) else b""
    header = cbor.decode(protected) if isinstance(protected, bytes) and protected else {}
    kind = header.get(3) if isinstance(header, dict) else None
    f.kind = str(kind or "cose")
    f.facts = {"content type": kind}
    if kind == manifest.CONTENT_TYPE and keys:
        parsed = manifest.verify(data, keys)
        f.facts |= {
            "device": parsed.device,
            "sequence": parsed.sequence,
            "components": [f"image {c.image_id} {c.version}" for c in parsed.components],
            "expires": parsed.expires_s,
        }
        f.trusted = True
    elif isinstance(kind, str):
        if keys:
            cose.verify(data, kind, keys)
            f.trusted = True
        else:
            cose.open_unverified(data, kind)
    else:
        raise OtaError(Reason.FORMAT, "COSE message without content type")


def _metadata(
    f: Finding, data: bytes, keys: Sequence[PublicKey], base: Any, schema: Any, policy: Any
) -> None:
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata

    from .repository import tuf_key

    check_json_shape(data, "metadata")
    try:
        parsed = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise OtaError(Reason.FORMAT, str(error)[:120]) from None
    f.kind = f"metadata {parsed.signed.type}"
    f.facts = {
        "version": parsed.signed.version,
        "expires": parsed.signed.expires.isoformat(),
        "signatures": len(parsed.signatures),
        "spec": parsed.signed.spec_version,
    }
    if keys:
        message = parsed.signed_bytes
        good = 0
        for key in keys:
            signature = parsed.signatures.get(tuf_key(key).keyid)
            if signature is not None:
                key.verify(message, bytes.fromhex(signature.signature))
                good += 1
        if not good:
            raise OtaError(Reason.KEY_UNKNOWN, "no signature by the given keys")
        f.trusted = True
        f.facts["valid signatures by given keys"] = good


def _unknown(f: Finding, data: bytes, keys: Any, base: Any, schema: Any, policy: Any) -> None:
    raise OtaError(Reason.FORMAT, "neither image, delta, COSE message nor TUF metadata")


_JUDGES = {"image": _image, "delta": _delta, "cose": _cose, "metadata": _metadata, "unknown": _unknown}


def as_json(finding: Finding) -> str:
    row = {
        "kind": finding.kind,
        "accepted": finding.accepted,
        "trusted": finding.trusted,
        "reason": finding.reason.name,
        "code": int(finding.reason),
        "meaning": finding.reason.meaning,
        "detail": finding.detail,
        "facts": finding.facts,
    }
    return json.dumps(row, indent=1, default=str)
