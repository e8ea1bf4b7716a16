"""Signatures: Ed25519 (default) and ECDSA P-256 with SHA-256, with the edge cases decided once.

Every verifier of this product, also the one in the MCU, gives the same verdict on the same bytes
(test vectors in tests/ota/vectors). The rules that libraries leave open are:

* Ed25519: S < L; the public key is canonical (y < p) and not of small order. R is compared byte by byte
  (cofactorless equation of RFC 8032 §5.1.7).
* P-256: DER exactly as X.690 prescribes (no long lengths, no leading zeros, nothing trailing), 1 ≤ r, s < n,
  point on the curve. High s is accepted: a signature is never used as an identity here.
* A key has one algorithm. It cannot be used with another one because a file says so.

Signatures by P-256 software keys are deterministic (RFC 6979), so a rebuild gives the same bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from .errors import OtaError, Reason, require


class Algorithm(Enum):
    ED25519 = "ed25519"
    P256 = "p256"


_ED_P = 2**255 - 19
_ED_L = 2**252 + 27742317777372353535851937790883648493
# y-coordinates of the eight points of small order (order 1, 2, 4, 4, 8 ×4); see tests for the derivation.
_ED_Y8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_ED_SMALL_Y = frozenset({0, 1, _ED_P - 1, _ED_Y8, _ED_P - _ED_Y8})
_P256_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
P256_SPKI_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")


@dataclass(frozen=True)
class PublicKey:
    """A public key by its SubjectPublicKeyInfo (DER), the form in which MCUboot and TLS hash keys too.

    ``key_hash`` = SHA-256 of the DER (MCUboot KEYHASH); ``kid`` = its first 8 bytes (COSE key id).
    """

    spki: bytes
    algorithm: Algorithm

    @staticmethod
    def from_spki(spki: bytes) -> PublicKey:
        if spki.startswith(ED25519_SPKI_PREFIX) and len(spki) == 44:
            y = int.from_bytes(spki[12:], "little") & ((1 << 255) - 1)
            require(y < _ED_P and y not in _ED_SMALL_Y, Reason.KEY_WEAK, "Ed25519 key")
            return PublicKey(bytes(spki), Algorithm.ED25519)
        if spki.startswith(P256_SPKI_PREFIX) and len(spki) == 91:
            try:
                ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), spki[26:])
            except ValueError:
                raise OtaError(Reason.KEY_WEAK, "P-256 point not on the curve") from None
            return PublicKey(bytes(spki), Algorithm.P256)
        raise OtaError(Reason.ALGORITHM, "public key is neither Ed25519 nor uncompressed P-256")

    @staticmethod
    def from_raw(algorithm: Algorithm, raw: bytes) -> PublicKey:
        """From 32 bytes (Ed25519) or 65 bytes 0x04‖X‖Y (P-256)."""
        prefix = ED25519_SPKI_PREFIX if algorithm is Algorithm.ED25519 else P256_SPKI_PREFIX
        return PublicKey.from_spki(prefix + raw)

    @staticmethod
    def from_pem(pem: bytes) -> PublicKey:
        try:
            key = serialization.load_pem_public_key(pem)
        except ValueError:
            raise OtaError(Reason.FORMAT, "not a PEM public key") from None
        return PublicKey.from_spki(
            key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    @property
    def raw(self) -> bytes:
        return self.spki[12:] if self.algorithm is Algorithm.ED25519 else self.spki[26:]

    @property
    def key_hash(self) -> bytes:
        return hashlib.sha256(self.spki).digest()

    @property
    def kid(self) -> bytes:
        return self.key_hash[:8]

    @property
    def pem(self) -> bytes:
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @cached_property
    def _key(self) -> ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey:
        if self.algorithm is Algorithm.ED25519:
            return ed25519.Ed25519PublicKey.from_public_bytes(self.raw)
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self.raw)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raise OtaError(SIGNATURE) unless ``signature`` (Ed25519: 64 B; P-256: DER) is valid."""
        key = self._key
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                require(len(signature) == 64, Reason.SIGNATURE, "Ed25519 signature must have 64 bytes")
                require(
                    int.from_bytes(signature[32:], "little") < _ED_L,
                    Reason.SIGNATURE,
                    "Ed25519 S not below L",
                )
                key.verify(signature, message)
            else:
                r, s = der_to_rs(signature)
                key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise OtaError(Reason.SIGNATURE, f"key {self.kid.hex()}") from None

    def is_valid(self, message: bytes, signature: bytes) -> bool:
        try:
            self.verify(message, signature)
        except OtaError:
            return False
        return True


class SigningKey(Protocol):
    """What can sign: a software key or one inside an HSM (``keystore``)."""

    @property
    def public(self) -> PublicKey: ...

    def sign(self, message: bytes) -> bytes:
        """Ed25519: 64 bytes; P-256: DER over SHA-256(message)."""
        ...


@dataclass(frozen=True)
class SoftwareKey:
    """A private key in memory; loaded and stored by ``keystore``."""

    private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

    @staticmethod
    def generate(algorithm: Algorithm = Algorithm.ED25519) -> SoftwareKey:
        if algorithm is Algorithm.ED25519:
            return SoftwareKey(ed25519.Ed25519PrivateKey.generate())
        return SoftwareKey(ec.generate_private_key(ec.SECP256R1()))

    @staticmethod
    def from_seed(seed: bytes, algorithm: Algorithm = Algorithm.ED25519) -> SoftwareKey:
        """A key derived from ``seed``: for tests, demos and simulations, where runs must repeat exactly."""
        material = hashlib.sha256(b"ota test key\0" + seed).digest()
        if algorithm is Algorithm.ED25519:
            return SoftwareKey(ed25519.Ed25519PrivateKey.from_private_bytes(material))
        scalar = int.from_bytes(material, "big") % (_P256_N - 1) + 1
        return SoftwareKey(ec.derive_private_key(scalar, ec.SECP256R1()))

    def __repr__(self) -> str:  # never print what could reach a log
        return f"SoftwareKey({self.public.algorithm.value}, {self.public.kid.hex()})"

    @cached_property
    def public(self) -> PublicKey:
        spki = self.private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return PublicKey.from_spki(spki)

    def sign(self, message: bytes) -> bytes:
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(message)
        return self.private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def der_to_rs(der: bytes) -> tuple[int, int]:
    """Strict DER ``SEQUENCE { r INTEGER, s INTEGER }`` with 1 ≤ r, s < n, nothing before or after."""

    def integer(at: int) -> tuple[int, int]:
        require(at + 2 <= len(der) and der[at] == 2, Reason.SIGNATURE, "DER: INTEGER expected")
        size = der[at + 1]
        body = der[at + 2 : at + 2 + size]
        require(1 <= size <= 33 and len(body) == size, Reason.SIGNATURE, "DER: INTEGER length")
        require(body[0] < 0x80, Reason.SIGNATURE, "DER: negative INTEGER")
        require(size == 1 or body[0] != 0 or body[1] >= 0x80, Reason.SIGNATURE, "DER: leading zero")
        value = int.from_bytes(body, "big")
        require(1 <= value < _P256_N, Reason.SIGNATURE, "r or s out of range")
        return value, at + 2 + size

    require(len(der) >= 8 and der[0] == 0x30 and der[1] == len(der) - 2, Reason.SIGNATURE, "DER: SEQUENCE")
    r, at = integer(2)
    s, at = integer(at)
    require(at == len(der), Reason.SIGNATURE, "DER: trailing bytes")
    return r, s


def der_to_raw(der: bytes) -> bytes:
    """DER to r‖s (64 bytes), the form of COSE and of the MCU's crypto engine."""
    r, s = der_to_rs(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def raw_to_der(raw: bytes) -> bytes:
    require(len(raw) == 64, Reason.SIGNATURE, "P-256 signature must have 64 bytes")
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    require(1 <= r < _P256_N and 1 <= s < _P256_N, Reason.SIGNATURE, "r or s out of range")
    return encode_dss_signature(r, s)
