"""Private keys at rest: encrypted PKCS#8 files, or a PKCS#11 token.

A key file is PEM ``ENCRYPTED PRIVATE KEY`` with the best scheme the crypto library offers, mode 0600;
there is no unencrypted form. The public half lies beside it as ``NAME.pub.pem``. A token key never leaves
its token: only digests and signatures cross the boundary.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from .errors import OtaError, Reason, require
from .signing import Algorithm, PublicKey, SoftwareKey

PASSPHRASE_MIN = 8


def save(path: Path, key: SoftwareKey, passphrase: bytes) -> Path:
    """Write ``path`` (private, encrypted) and its ``.pub.pem``; returns the latter. Never overwrites."""
    require(len(passphrase) >= PASSPHRASE_MIN, Reason.PASSPHRASE, f"at least {PASSPHRASE_MIN} characters")
    pem = key.private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    public = path.with_suffix(".pub.pem")
    public.write_bytes(key.public.pem)
    return public


def load(path: Path, passphrase: bytes) -> SoftwareKey:
    """The private key in ``path``; PASSPHRASE when it does not open, ALGORITHM for keys not used here."""
    data = path.read_bytes()
    require(
        b"ENCRYPTED PRIVATE KEY" in data, Reason.PASSPHRASE, f"{path.name} is not an encrypted PKCS#8 file"
    )
    try:
        key = serialization.load_pem_private_key(data, passphrase)
    except (ValueError, TypeError):
        raise OtaError(Reason.PASSPHRASE, path.name) from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return SoftwareKey(key)
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return SoftwareKey(key)
    raise OtaError(Reason.ALGORITHM, f"{path.name} is neither Ed25519 nor P-256")


def load_public(path: Path) -> PublicKey:
    return PublicKey.from_pem(path.read_bytes())


@dataclass(frozen=True)
class Pkcs11Key:
    """A key in a PKCS#11 token (SoftHSM, smart card, HSM), found by its label.

    Needs the ``python-pkcs11`` package and the token's library.
    """

    session: Any
    label: str
    algorithm: Algorithm

    @staticmethod
    def open(module: str, token: str, label: str, pin: str, algorithm: Algorithm) -> Pkcs11Key:
        return Pkcs11Key(_session(module, token, pin), label, algorithm)

    @staticmethod
    def generate(module: str, token: str, label: str, pin: str, algorithm: Algorithm) -> Pkcs11Key:
        """Make a key pair inside the token."""
        import pkcs11
        from pkcs11.util.ec import encode_named_curve_parameters

        session = _session(module, token, pin)
        if algorithm is Algorithm.P256:
            kind, curve = pkcs11.KeyType.EC, encode_named_curve_parameters("secp256r1")
        else:
            # RFC 8410 curve by name: a PrintableString, which the helper above cannot make
            kind, curve = pkcs11.KeyType.EC_EDWARDS, b"\x13\x0cedwards25519"
        domain = session.create_domain_parameters(kind, {pkcs11.Attribute.EC_PARAMS: curve}, local=True)
        domain.generate_keypair(store=True, label=label)
        return Pkcs11Key(session, label, algorithm)

    def _object(self, object_class: Any) -> Any:
        import pkcs11

        try:
            return self.session.get_key(object_class=object_class, label=self.label)
        except pkcs11.PKCS11Error as error:
            raise OtaError(Reason.KEY_UNKNOWN, f"no key {self.label!r} in the token") from error

    @cached_property
    def public(self) -> PublicKey:
        import pkcs11

        point = bytes(self._object(pkcs11.ObjectClass.PUBLIC_KEY)[pkcs11.Attribute.EC_POINT])
        # EC_POINT is an OCTET STRING around the point; both lengths used here fit one length byte.
        raw = point[2:] if point[:1] == b"\x04" and point[1] == len(point) - 2 else point
        return PublicKey.from_raw(self.algorithm, raw)

    def sign(self, message: bytes) -> bytes:
        import pkcs11

        private = self._object(pkcs11.ObjectClass.PRIVATE_KEY)
        try:
            if self.algorithm is Algorithm.ED25519:
                return bytes(private.sign(message, mechanism=pkcs11.Mechanism.EDDSA))
            digest = hashes.Hash(hashes.SHA256())
            digest.update(message)
            raw = bytes(private.sign(digest.finalize(), mechanism=pkcs11.Mechanism.ECDSA))
        except pkcs11.PKCS11Error as error:
            raise OtaError(Reason.CRYPTO_ENGINE, type(error).__name__) from error
        return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))


# A login holds for the whole process (PKCS#11 §5.6), so there is one session per token.
_SESSIONS: dict[tuple[str, str], tuple[str, Any]] = {}


def _session(module: str, token: str, pin: str) -> Any:
    try:
        import pkcs11
    except ImportError:
        raise OtaError(Reason.CRYPTO_ENGINE, "token keys need the python-pkcs11 package") from None
    known = _SESSIONS.get((module, token))
    if known is not None:
        require(hmac.compare_digest(known[0], pin), Reason.CRYPTO_ENGINE, f"token {token!r}: other PIN")
        return known[1]
    try:
        session = pkcs11.lib(module).get_token(token_label=token).open(user_pin=pin, rw=True)
        _SESSIONS[module, token] = (pin, session)
        return session
    except pkcs11.PKCS11Error as error:
        raise OtaError(Reason.CRYPTO_ENGINE, f"token {token!r}: {type(error).__name__}") from error
