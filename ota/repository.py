"""TUF repositories on disk, written with python-tuf, in the Uptane profile.

Image repository: root (offline, m of n), targets (offline, m of n) delegating to one role per hardware
family (``family-<name>``, m of n, path ``<name>/*``), snapshot and timestamp (online). It says which
artifacts exist. Director: one targets file per device, no delegations, online keys. It says which device
gets which artifact. A device acts only where both agree (``trust``), so a stolen online key alone installs
nothing.

Every target carries ``custom`` (checked by ``custom_fields``)::

    kind "firmware" | "parameters"      hardwareIds [str]        releaseCounter int
    version "1.2.3"                     securityCounter int      merkleRoot hex, over the file's 4 KiB blocks
    paramSchema [least, greatest]       deltas [{base, name}]: delta artifacts in the repository, optional

The director's targets repeat hash and length and add ``ecuIdentifiers {serial: {hardwareId}}``.

Folder: ``metadata/`` with consistent-snapshot names, ``targets/<folder>/<sha256>.<name>`` (any web server
can serve it); private keys never. Times are Unix seconds given by the caller, so a repository can be rebuilt
byte for byte with Ed25519 keys.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from securesystemslib.signer import Key, Signature, Signer, SSlibKey
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from . import merkle
from .errors import OtaError, Reason, require
from .signing import PublicKey, SigningKey

# How long signed metadata stays valid, by role; offline roles long, online roles short.
LIFETIME_S = {"root": 365 * 86400, "targets": 180 * 86400, "snapshot": 7 * 86400, "timestamp": 2 * 86400}


def tuf_key(public: PublicKey) -> SSlibKey:
    """The key in TUF's form; its key id is a hash of that form."""
    return SSlibKey.from_crypto(public._key)


class TufSigner(Signer):
    """Lets any ``SigningKey`` (file, token) sign TUF metadata."""

    def __init__(self, key: SigningKey) -> None:
        self.key = key
        self._public = tuf_key(key.public)

    @property
    def public_key(self) -> Key:
        return self._public

    def sign(self, payload: bytes) -> Signature:
        return Signature(self._public.keyid, self.key.sign(payload).hex())

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: Any = None) -> Signer:
        raise NotImplementedError("keys are opened by ota.keystore")


@dataclass(frozen=True)
class RoleKeys:
    """Public keys of a role and how many of them must sign."""

    keys: tuple[PublicKey, ...]
    threshold: int = 1

    def __post_init__(self) -> None:
        enough = 1 <= self.threshold <= len({k.spki for k in self.keys})
        require(enough, Reason.THRESHOLD, f"{self.threshold} of {len(self.keys)} different keys")


def when(time_s: float) -> datetime:
    return datetime.fromtimestamp(int(time_s), UTC)


def _bytes(metadata: Metadata) -> bytes:
    return metadata.to_bytes(JSONSerializer(compact=False))


def custom_fields(
    *,
    kind: str,
    hardware_ids: Sequence[str],
    release_counter: int,
    version: str,
    security_counter: int,
    data: bytes,
    param_schema: tuple[int, int] | None = None,
    deltas: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """The ``custom`` of a target, see module docstring."""
    row: dict[str, Any] = {
        "kind": kind,
        "hardwareIds": sorted(hardware_ids),
        "releaseCounter": release_counter,
        "version": version,
        "securityCounter": security_counter,
        "merkleRoot": merkle.file_root(data).hex(),
    }
    if param_schema is not None:
        row["paramSchema"] = list(param_schema)
    if deltas:
        row["deltas"] = [dict(d) for d in deltas]
    return row


class Repository:
    """One TUF repository in ``folder``. Editing (``edit``) and signing (``commit``) are separate, so that
    offline roles can be signed in a ceremony elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata_dir = folder / "metadata"
        self.targets_dir = folder / "targets"

    # ---- making -------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        folder: Path,
        roles: Mapping[str, RoleKeys],
        now_s: float,
        families: Mapping[str, RoleKeys] | None = None,
        lifetime_s: Mapping[str, int] | None = None,
    ) -> tuple[Repository, dict[str, Metadata]]:
        """New repository folder and its unsigned first root and targets (+ family roles) for ``commit``."""
        repository = cls(folder)
        repository.metadata_dir.mkdir(parents=True, exist_ok=False)
        repository.targets_dir.mkdir()
        life = {**LIFETIME_S, **(lifetime_s or {})}
        (folder / "lifetimes.json").write_text(json.dumps(life, sort_keys=True) + "\n")
        root = Root(expires=when(now_s + life["root"]), consistent_snapshot=True)
        for name in ("root", "targets", "snapshot", "timestamp"):
            for public in roles[name].keys:
                root.add_key(tuf_key(public), name)
            root.roles[name].threshold = roles[name].threshold
        targets = Targets(expires=when(now_s + life["targets"]))
        unsigned: dict[str, Metadata] = {"root": Metadata(root), "targets": Metadata(targets)}
        if families:
            keys: dict[str, Key] = {}
            delegated: dict[str, DelegatedRole] = {}
            for family, row in families.items():
                ids = [tuf_key(public) for public in row.keys]
                keys.update({key.keyid: key for key in ids})
                name = f"family-{family}"
                delegated[name] = DelegatedRole(
                    name, [k.keyid for k in ids], row.threshold, terminating=True, paths=[f"{family}/*"]
                )
                unsigned[name] = Metadata(Targets(expires=when(now_s + life["targets"])))
            targets.delegations = Delegations(keys, delegated)
        return repository, unsigned

    def lifetime_s(self, role: str) -> int:
        life = json.loads((self.folder / "lifetimes.json").read_text())
        return int(life.get(role, life["targets"]))

    # ---- reading ------------------------------------------------------------------------------------------

    def latest(self, role: str) -> int:
        """Newest version on disk; 0 when there is none."""
        found = [int(p.name.split(".")[0]) for p in self.metadata_dir.glob(f"*.{role}.json")]
        return max(found, default=0)

    def load(self, role: str, version: int | None = None) -> Metadata:
        name = f"{version or self.latest(role)}.{role}.json"
        if role == "timestamp":
            name = "timestamp.json"
        try:
            return Metadata.from_bytes((self.metadata_dir / name).read_bytes())
        except OSError:
            raise OtaError(Reason.NOT_FOUND, name) from None

    def delegators(self) -> dict[str, str]:
        """Role → the role that vouches for it."""
        rows = dict.fromkeys(("root", "targets", "snapshot", "timestamp"), "root")
        if self.latest("targets"):
            targets = cast(Targets, self.load("targets").signed)
            if targets.delegations and targets.delegations.roles:
                rows.update(dict.fromkeys(targets.delegations.roles, "targets"))
        return rows

    # ---- changing -----------------------------------------------------------------------------------------

    def edit(self, role: str, now_s: float) -> Metadata:
        """Unsigned next version of a role."""
        metadata = self.load(role)
        metadata.signatures.clear()
        metadata.signed.version += 1
        metadata.signed.expires = when(now_s + self.lifetime_s(role))
        return metadata

    def commit(self, role: str, metadata: Metadata, signers: Iterable[SigningKey] = ()) -> None:
        """Sign with ``signers`` (on top of signatures already there), check the threshold, write."""
        for key in signers:
            metadata.sign(TufSigner(key), append=True)
        try:
            if role == "root":
                root = cast(Root, metadata.signed)
                if self.latest("root"):
                    old = cast(Root, self.load("root").signed)
                    require(root.version == old.version + 1, Reason.ROOT_CHAIN, f"version {root.version}")
                    old.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
                root.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
            else:
                delegator = self.delegators().get(role, "targets")
                parent = cast(Root | Targets, self.load(delegator).signed)
                parent.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except UnsignedMetadataError as error:
            raise OtaError(Reason.THRESHOLD, str(error)) from None
        except (RepositoryError, ValueError) as error:
            raise OtaError(Reason.SIGNER_UNKNOWN, f"role {role}: {error}") from None
        name = "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
        _write(self.metadata_dir / name, _bytes(metadata))

    def add_target(self, metadata: Metadata, name: str, data: bytes, custom: Mapping[str, Any]) -> TargetFile:
        """Put an artifact into an unsigned targets role and its bytes into ``targets/``."""
        target = target_file(name, data, custom)
        cast(Targets, metadata.signed).targets[name] = target
        folder, _, base = name.rpartition("/")
        path = self.targets_dir / folder / f"{target.hashes['sha256']}.{base}"
        inside = path.resolve().is_relative_to(self.targets_dir.resolve())
        require(inside and base != "", Reason.FORMAT, f"target name {name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write(path, data)
        return target

    def artifact(self, digest: bytes) -> bytes:
        """An artifact's bytes by SHA-256."""
        for path in self.targets_dir.rglob(f"{digest.hex()}.*"):
            return path.read_bytes()
        raise OtaError(Reason.NOT_FOUND, f"artifact {digest.hex()[:16]}…")

    def publish(self, snapshot: Iterable[SigningKey], timestamp: Iterable[SigningKey], now_s: float) -> None:
        """New snapshot over the newest targets roles, new timestamp over the snapshot."""
        have = self.latest("snapshot")
        meta: dict[str, MetaFile] = {}
        for role in self.delegators():
            if role in ("root", "snapshot", "timestamp") or not self.latest(role):
                continue
            version = self.latest(role)
            data = (self.metadata_dir / f"{version}.{role}.json").read_bytes()
            meta[f"{role}.json"] = _meta_file(version, data)
        snap = Snapshot(have + 1, expires=when(now_s + self.lifetime_s("snapshot")), meta=meta)
        self.commit("snapshot", Metadata(snap), snapshot)
        data = (self.metadata_dir / f"{have + 1}.snapshot.json").read_bytes()
        before = 0
        if (self.metadata_dir / "timestamp.json").exists():
            before = self.load("timestamp").signed.version
        stamp = Timestamp(
            before + 1,
            expires=when(now_s + self.lifetime_s("timestamp")),
            snapshot_meta=_meta_file(have + 1, data),
        )
        self.commit("timestamp", Metadata(stamp), timestamp)

    def refresh_timestamp(self, timestamp: Iterable[SigningKey], now_s: float) -> None:
        """Same content, new expiry: what the online key does every day."""
        self.commit("timestamp", self.edit("timestamp", now_s), timestamp)

    def rotate(self, roles: Mapping[str, RoleKeys], signers: Iterable[SigningKey], now_s: float) -> None:
        """New root version in which ``roles`` have other keys and thresholds.

        ``signers`` must reach the threshold of the old and of the new root keys.
        """
        metadata = self.edit("root", now_s)
        root = cast(Root, metadata.signed)
        for name, row in roles.items():
            for keyid in list(root.roles[name].keyids):
                root.revoke_key(keyid, name)
            for public in row.keys:
                root.add_key(tuf_key(public), name)
            root.roles[name].threshold = row.threshold
        self.commit("root", metadata, signers)

    # ---- serving ------------------------------------------------------------------------------------------

    def bundle(self, root_version: int) -> dict[str, bytes]:
        """All a client at ``root_version`` needs, under the names it would ask a web server for."""
        files: dict[str, bytes] = {}
        for version in range(root_version + 1, self.latest("root") + 1):
            name = f"{version}.root.json"
            files[name] = (self.metadata_dir / name).read_bytes()
        files["timestamp.json"] = (self.metadata_dir / "timestamp.json").read_bytes()
        version = cast(Timestamp, self.load("timestamp").signed).snapshot_meta.version
        files[f"{version}.snapshot.json"] = (self.metadata_dir / f"{version}.snapshot.json").read_bytes()
        for name, row in cast(Snapshot, self.load("snapshot", version).signed).meta.items():
            file = f"{row.version}.{name}"
            files[file] = (self.metadata_dir / file).read_bytes()
        return files


def _meta_file(version: int, data: bytes) -> MetaFile:
    return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: a reader never sees half a file."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def target_file(name: str, data: bytes, custom: Mapping[str, Any]) -> TargetFile:
    return TargetFile(len(data), {"sha256": hashlib.sha256(data).hexdigest()}, name, {"custom": dict(custom)})


@dataclass(frozen=True)
class Assignment:
    """One artifact for one ECU of a device."""

    name: str
    ecu_serial: str
    hardware_id: str
    target: TargetFile  # as the image repository has it


class Director:
    """Director repository of many devices, held in memory: it can always be made again from assignments.

    One root for all devices; timestamp, snapshot and targets are made per device and signed online. Versions
    per device only grow; a restarted director is given the last ones (``versions``).
    """

    def __init__(self, root: Metadata, online: SigningKey, versions: Mapping[str, int] | None = None) -> None:
        self.roots = [_bytes(root)]
        self.root_version = root.signed.version
        self.online = online
        self.versions = dict(versions or {})
        self._bundles: dict[str, dict[str, bytes]] = {}

    @staticmethod
    def new_root(roles: Mapping[str, RoleKeys], signers: Iterable[SigningKey], now_s: float) -> Metadata:
        """First director root; ``roles`` must name root, targets, snapshot and timestamp."""
        root = Root(expires=when(now_s + LIFETIME_S["root"]), consistent_snapshot=True)
        for name, row in roles.items():
            for public in row.keys:
                root.add_key(tuf_key(public), name)
            root.roles[name].threshold = row.threshold
        metadata = Metadata(root)
        for key in signers:
            metadata.sign(TufSigner(key), append=True)
        root.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
        return metadata

    def add_root(self, root: Metadata, online: SigningKey | None = None) -> None:
        """A rotated root; ``online`` if the online key changed with it."""
        require(root.signed.version == self.root_version + 1, Reason.ROOT_CHAIN, "version")
        self.roots.append(_bytes(root))
        self.root_version += 1
        self.online = online or self.online

    def assign(
        self,
        device: str,
        assignments: Sequence[Assignment],
        now_s: float,
        lifetime_s: int = LIFETIME_S["timestamp"],
    ) -> dict[str, bytes]:
        """New targets for ``device``; returns (and keeps) its metadata files."""
        version = self.versions.get(device, 0) + 1
        self.versions[device] = version
        signed = Targets(version, expires=when(now_s + lifetime_s))
        for row in assignments:
            entry = signed.targets.get(row.name)
            if entry is None:
                custom = dict(row.target.custom)
                custom["ecuIdentifiers"] = {}
                entry = TargetFile(row.target.length, dict(row.target.hashes), row.name, {"custom": custom})
                signed.targets[row.name] = entry
            entry.custom["ecuIdentifiers"][row.ecu_serial] = {"hardwareId": row.hardware_id}
        signer = TufSigner(self.online)

        def finish(metadata: Metadata) -> bytes:
            metadata.sign(signer)
            return _bytes(metadata)

        targets = finish(Metadata(signed))
        expires = when(now_s + lifetime_s)
        snapshot = finish(
            Metadata(Snapshot(version, expires=expires, meta={"targets.json": _meta_file(version, targets)}))
        )
        timestamp = finish(
            Metadata(Timestamp(version, expires=expires, snapshot_meta=_meta_file(version, snapshot)))
        )
        self._bundles[device] = {
            "timestamp.json": timestamp,
            f"{version}.snapshot.json": snapshot,
            f"{version}.targets.json": targets,
        }
        return self._bundles[device]

    def bundle(self, device: str, root_version: int) -> dict[str, bytes]:
        require(device in self._bundles, Reason.NOT_FOUND, f"nothing assigned to {device}")
        first = self.root_version - len(self.roots) + 1
        roots = {f"{first + i}.root.json": data for i, data in enumerate(self.roots)}
        newer = {name: data for name, data in roots.items() if int(name.split(".")[0]) > root_version}
        return {**newer, **self._bundles[device]}
