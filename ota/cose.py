"""COSE_Sign1 (RFC 9052 §4.2) in the deterministic CBOR of ``cbor``.

Protected header {1: alg, 3: content type, 4: key id}: alg −8 (EdDSA) or −7 (ES256, signature r‖s), key id =
first 8 bytes of the SHA-256 of the signer's SubjectPublicKeyInfo. The content type keeps a signature over one
kind of message from being used for another. The unprotected header must be empty: nothing unsigned is obeyed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import cbor, limits
from .errors import OtaError, Reason, require
from .signing import Algorithm, PublicKey, SigningKey, der_to_raw, raw_to_der

TAG_SIGN1 = 18
_ALG = {Algorithm.ED25519: -8, Algorithm.P256: -7}


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    return cbor.encode(["Signature1", protected, b"", payload])


def sign(content_type: str, payload: Any, key: SigningKey) -> bytes:
    """``payload`` (any CBOR value) signed as ``content_type``."""
    body = cbor.encode(payload)
    algorithm = key.public.algorithm
    protected = cbor.encode({1: _ALG[algorithm], 3: content_type, 4: key.public.kid})
    signature = key.sign(_to_be_signed(protected, body))
    if algorithm is Algorithm.P256:
        signature = der_to_raw(signature)
    return cbor.encode(cbor.Tag(TAG_SIGN1, [protected, {}, body, signature]))


def open_unverified(data: bytes, content_type: str, max_size: int = limits.CBOR_MAX) -> tuple[bytes, bytes]:
    """(key id, payload bytes) without checking the signature: to find the key, never to act on."""
    _, kid, body, _, _ = _parts(data, content_type, max_size)
    return kid, body


def _parts(data: bytes, content_type: str, max_size: int) -> tuple[int, bytes, bytes, bytes, bytes]:
    message = cbor.decode(data, max_size)
    good = isinstance(message, cbor.Tag) and message.number == TAG_SIGN1
    require(
        good and isinstance(message.value, list) and len(message.value) == 4, Reason.FORMAT, "no COSE_Sign1"
    )
    protected, unprotected, body, signature = message.value
    require(unprotected == {}, Reason.UNKNOWN_FIELD, "unprotected COSE header")
    kinds = isinstance(protected, bytes) and isinstance(body, bytes) and isinstance(signature, bytes)
    require(kinds, Reason.FORMAT, "COSE_Sign1 parts")
    header = cbor.decode(protected, 256)
    require(isinstance(header, dict), Reason.FORMAT, "COSE protected header")
    cbor.only_fields(header, {1, 3, 4}, "COSE protected header")
    algorithm = cbor.field(header, 1, int, "COSE algorithm")
    kind = cbor.field(header, 3, str, "COSE content type")
    require(kind == content_type, Reason.FORMAT, f"content type {kind!r}, expected {content_type!r}")
    kid = cbor.fixed_bytes(header, 4, 8, "COSE key id")
    return algorithm, kid, body, signature, _to_be_signed(protected, body)


def verify(
    data: bytes, content_type: str, keys: Iterable[PublicKey], max_size: int = limits.CBOR_MAX
) -> tuple[Any, PublicKey]:
    """(payload value, key) if one of ``keys`` signed ``data`` as ``content_type``."""
    algorithm, kid, body, signature, to_be_signed = _parts(data, content_type, max_size)
    for key in keys:
        if key.kid == kid:
            require(_ALG[key.algorithm] == algorithm, Reason.ALGORITHM, "COSE algorithm is not the key's")
            key.verify(to_be_signed, raw_to_der(signature) if key.algorithm is Algorithm.P256 else signature)
            return cbor.decode(body, max_size), key
    raise OtaError(Reason.KEY_UNKNOWN, f"key id {kid.hex()}")
