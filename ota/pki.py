"""Certificates for the MQTT links: a CA, a server certificate, one per device, a revocation list.

P-256 throughout (what TLS stacks of modems have). The common name of a device certificate is its device id;
the broker takes it as the user name. Two server keys are made: the second waits, pinned but unused, for
rotation. For test benches and pilot fleets; a production CA lives elsewhere and only its certificates come
here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .topics import check_device
from .transport.mqtt import Tls, spki_hash

SERVER_NAME = "broker.ota.test"


@dataclass(frozen=True)
class Issued:
    certificate: Path
    key: Path


class Authority:
    """A certificate authority in ``folder``. ``now`` and lifetimes can be set to make expired ones."""

    def __init__(self, folder: Path, name: str = "ota test ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.now = datetime.now(UTC)
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (
            self._builder(subject, subject, self.key.public_key(), 3650)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self._serials: dict[str, int] = {}

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(self.now, self.now + timedelta(days=days)) - timedelta(days=1))
            .not_valid_after(self.now + timedelta(days=days))
        )

    def _issue(self, file: str, common_name: str, days: float, server: bool) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            self._builder(subject, self.certificate.subject, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        if server:
            names = [x509.DNSName(common_name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        self._serials[common_name] = certificate.serial_number
        issued = Issued(self.folder / f"{file}.pem", self.folder / f"{file}.key")
        issued.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        issued.key.touch(mode=0o600)
        issued.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),  # the broker and the TLS stack read it unattended
            )
        )
        return issued

    def server(self, file: str = "server", name: str = SERVER_NAME, days: float = 365) -> Issued:
        return self._issue(file, name, days, server=True)

    def client(self, user: str, days: float = 365, file: str | None = None) -> Issued:
        """Certificate for a device id or for the update server (``topics.SERVER_USER``)."""
        from .topics import SERVER_USER

        if user != SERVER_USER:
            check_device(user)
        return self._issue(file or user, user, days, server=False)

    def revoke(self, users: Sequence[str]) -> Path:
        """Revocation list naming ``users``; give it to the broker."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(self.now - timedelta(days=1))
            .next_update(self.now + timedelta(days=30))
        )
        for user in users:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(self._serials[user])
                .revocation_date(self.now - timedelta(hours=1))
                .build()
            )
        path = self.folder / "crl.pem"
        crl = builder.sign(self.key, hashes.SHA256())
        path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        return path


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def pin_of(issued: Issued) -> bytes:
    """Pin (SHA-256 of SubjectPublicKeyInfo) of a certificate file."""
    certificate = x509.load_pem_x509_certificate(issued.certificate.read_bytes())
    return spki_hash(certificate.public_bytes(serialization.Encoding.DER))


def client_tls(
    authority: Authority, issued: Issued, pins: Sequence[bytes], server_name: str = SERVER_NAME
) -> Tls:
    return Tls(authority.ca, issued.certificate, issued.key, server_name, tuple(pins))
