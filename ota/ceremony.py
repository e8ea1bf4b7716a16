"""Signing ceremonies: several people, one digest, a transcript that cannot be changed unnoticed.

    start   what is to be signed (unsigned TUF metadata, or an unsigned image), by whom, how many, until when
    sign    one person at a time: states the digest they have compared, signs with their own key
    finish  enough valid signatures: attached; the result is handed out

Rules: a signer is a name with one public key, both used once; the digest has to be typed in by the signer and
must be the one under signature; the ceremony is over after ``valid_for_s`` (default 8 h) and cannot be
resumed later; every act, also a refused one, is a record in the audit log. The ceremony file holds no
secrets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import image
from .audit import AuditLog
from .errors import OtaError, Reason, require
from .signing import Algorithm, PublicKey, SigningKey

VALID_FOR_S = 8 * 3600
KINDS = ("metadata", "image")


@dataclass
class Ceremony:
    """A ceremony in ``folder``: ``ceremony.json``, ``payload`` and the shared audit log."""

    folder: Path
    state: dict[str, Any]
    audit: AuditLog

    # ---- acts ---------------------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        folder: Path,
        payload: bytes,
        kind: str,
        signers: Mapping[str, PublicKey],
        threshold: int,
        now_s: int,
        *,
        audit: AuditLog | None = None,
        actor: str = "ceremony master",
        valid_for_s: int = VALID_FOR_S,
    ) -> Ceremony:
        require(kind in KINDS, Reason.FORMAT, f"kind must be one of {', '.join(KINDS)}")
        different = len({k.spki for k in signers.values()})
        require(different == len(signers), Reason.SIGNER_REPEATED, "two signers with one key")
        require(1 <= threshold <= len(signers), Reason.THRESHOLD, f"{threshold} of {len(signers)}")
        require(kind == "metadata" or threshold == 1, Reason.THRESHOLD, "an image carries one signature")
        folder.mkdir(parents=True, exist_ok=False)
        (folder / "payload").write_bytes(payload)
        digest = hashlib.sha256(_message(payload, kind)).hexdigest()
        state = {
            "kind": kind,
            "digest": digest,
            "threshold": threshold,
            "signers": {name: key.spki.hex() for name, key in sorted(signers.items())},
            "started_s": now_s,
            "until_s": now_s + valid_for_s,
            "signatures": {},
            "finished": False,
        }
        made = cls(folder, state, audit or AuditLog(folder / "audit.log"))
        made._save()
        made.audit.append(
            now_s, actor, "ceremony.start", {k: state[k] for k in ("kind", "digest", "threshold")}
        )
        return made

    @classmethod
    def open(cls, folder: Path, audit: AuditLog | None = None) -> Ceremony:
        try:
            state = json.loads((folder / "ceremony.json").read_text())
            payload = (folder / "payload").read_bytes()
            digest = hashlib.sha256(_message(payload, state["kind"])).hexdigest()
        except (OSError, ValueError, KeyError) as error:
            raise OtaError(Reason.CEREMONY_STATE, f"no ceremony in {folder.name}: {error}") from None
        require(digest == state["digest"], Reason.DIGEST, "payload was exchanged after the start")
        return cls(folder, state, audit or AuditLog(folder / "audit.log"))

    @property
    def digest(self) -> str:
        """What every signer has to compare and state."""
        return str(self.state["digest"])

    def sign(self, person: str, key: SigningKey, confirmed_digest: str, now_s: int) -> int:
        """One signature; returns how many there are now."""
        try:
            self._may_sign(person, key, confirmed_digest, now_s)
        except OtaError as error:
            self.audit.append(now_s, person, "ceremony.refused", {"reason": error.reason.name})
            raise
        message = _message((self.folder / "payload").read_bytes(), self.state["kind"])
        if self.state["kind"] == "image" and key.public.algorithm is Algorithm.ED25519:
            message = hashlib.sha256(message).digest()  # what an MCUboot Ed25519 signature covers
        signature = key.sign(message)
        key.public.verify(message, signature)
        self.state["signatures"][person] = signature.hex()
        self._save()
        detail = {"digest": self.digest, "key": key.public.key_hash.hex(), "n": len(self.state["signatures"])}
        self.audit.append(now_s, person, "ceremony.sign", detail)
        return len(self.state["signatures"])

    def _may_sign(self, person: str, key: SigningKey, confirmed_digest: str, now_s: int) -> None:
        state = self.state
        require(not state["finished"], Reason.CEREMONY_STATE, "already finished")
        require(state["started_s"] <= now_s < state["until_s"], Reason.CEREMONY_EXPIRED)
        require(person in state["signers"], Reason.SIGNER_UNKNOWN, person)
        require(
            state["signers"][person] == key.public.spki.hex(), Reason.SIGNER_UNKNOWN, "not this person's key"
        )
        require(person not in state["signatures"], Reason.SIGNER_REPEATED, person)
        wanted = confirmed_digest.strip().lower()
        require(wanted == self.digest, Reason.DIGEST_NOT_CONFIRMED, f"{wanted[:16]}…")

    def finish(self, now_s: int, actor: str = "ceremony master") -> bytes:
        """The signed payload, if the threshold is reached within the time."""
        state = self.state
        try:
            require(not state["finished"], Reason.CEREMONY_STATE, "already finished")
            require(now_s < state["until_s"], Reason.CEREMONY_EXPIRED)
            have, need = len(state["signatures"]), state["threshold"]
            require(have >= need, Reason.THRESHOLD, f"{have} of {need} signatures")
            result = self._attach()
        except OtaError as error:
            self.audit.append(now_s, actor, "ceremony.refused", {"reason": error.reason.name})
            raise
        state["finished"] = True
        self._save()
        out = hashlib.sha256(result).hexdigest()
        self.audit.append(now_s, actor, "ceremony.finish", {"digest": self.digest, "result": out})
        return result

    # ---- inside -------------------------------------------------------------------------------------------

    def _attach(self) -> bytes:
        payload = (self.folder / "payload").read_bytes()
        rows = [
            (PublicKey.from_spki(bytes.fromhex(self.state["signers"][name])), bytes.fromhex(signature))
            for name, signature in sorted(self.state["signatures"].items())
        ]
        if self.state["kind"] == "image":
            return image.attach_signature(payload, *rows[0])
        from securesystemslib.signer import Signature
        from tuf.api.metadata import Metadata
        from tuf.api.serialization.json import JSONSerializer

        from .repository import tuf_key

        metadata = Metadata.from_bytes(payload)
        for key, signature in rows:
            keyid = tuf_key(key).keyid
            metadata.signatures[keyid] = Signature(keyid, signature.hex())
        return metadata.to_bytes(JSONSerializer(compact=False))

    def _save(self) -> None:
        path = self.folder / "ceremony.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(self.state, indent=1, sort_keys=True) + "\n")
        temporary.replace(path)


def _message(payload: bytes, kind: str) -> bytes:
    """The bytes under signature: canonical signed part of metadata, or the signed region of an image."""
    if kind == "image":
        parsed = image.parse(payload)
        image.verify_integrity(parsed)
        return payload[: parsed.signed_size]
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata

    try:
        return Metadata.from_bytes(payload).signed_bytes
    except RepositoryError as error:
        raise OtaError(Reason.FORMAT, f"not TUF metadata: {error}") from None
