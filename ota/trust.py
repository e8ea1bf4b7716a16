"""Full verification on the gateway: TUF client workflow twice, then the Uptane cross-check.

Order of checks, fixed:

1.  size and nesting of every file, before a JSON parser sees it
2.  director: root chain from the trusted root on, each root signed by the old and the new threshold;
    timestamp, snapshot, targets: signatures, versions never down, hashes of the snapshot, expiry
3.  image repository: the same, plus the delegated family roles
4.  cross-check of each director target: in the image repository under the same name, with equal hash, length,
    hardware ids and release counter; director has no delegations; meant for an ECU of this device with that
    hardware id; no ECU named twice for one kind; release counter not below the installed one
5.  the set as a whole: firmware and parameter set must share a parameter schema

Everything is a function of bytes and time: stored metadata and a bundle of files come in, new stored metadata
and a plan (or a reason) go out. Metadata that was verified is kept even if a later step fails, as TUF demands
for rollback protection. The verification of signatures and versions is python-tuf's ``TrustedMetadataSet``
(the object behind its ``Updater``; here without disk and with a given clock); the tests hold it against the
``Updater`` itself on the same repositories.

Time: ``now_s`` is the best estimate of ``SecureClock``. The clock of the host only counts until a signed time
has been seen and never moves the stored secure time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

from tuf.api import exceptions as tuf
from tuf.api.metadata import Root, TargetFile, Targets
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from . import cose, limits
from .cbor import field as cbor_field
from .cbor import fixed_bytes, only_fields, uint
from .errors import OtaError, Reason, require
from .image import Version
from .signing import PublicKey, SigningKey

Files = Mapping[str, bytes]

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


def check_json_shape(data: bytes, name: str) -> None:
    """Size and nesting limits without parsing."""
    require(len(data) <= limits.METADATA_FILE_MAX, Reason.OVERSIZE, f"{name}: {len(data)} B")
    depth = 0
    for match in _BRACKETS.finditer(_STRINGS.sub(b"", data)):
        depth += 1 if match.group() in b"[{" else -1
        require(depth <= limits.JSON_DEPTH_MAX, Reason.NESTING, name)


def _reason(error: Exception, role: str) -> OtaError:
    """python-tuf's exception as a reason code."""
    if isinstance(error, OtaError):
        return error
    if isinstance(error, tuf.ExpiredMetadataError):
        reason = Reason.EXPIRED
    elif isinstance(error, tuf.BadVersionNumberError):
        reason = Reason.ROOT_CHAIN if role == "root" else Reason.ROLLBACK
    elif isinstance(error, tuf.LengthOrHashMismatchError):
        reason = Reason.MIX_AND_MATCH
    elif isinstance(error, tuf.UnsignedMetadataError):
        reason = Reason.ROOT_CHAIN if role == "root" else Reason.THRESHOLD
    elif isinstance(error, tuf.RepositoryError) and "missing info" in str(error):
        reason = Reason.ROLLBACK
    elif isinstance(error, tuf.RepositoryError) and "does not contain" in str(error):
        reason = Reason.MIX_AND_MATCH
    else:
        reason = Reason.FORMAT
    return OtaError(reason, f"{role}: {str(error)[:160]}")


@dataclass
class Refreshed:
    """Result of ``refresh``: ``stored`` is to be kept in any case; ``error`` is None if all was verified."""

    stored: dict[str, bytes]
    trusted: TrustedMetadataSet | None
    error: OtaError | None
    bundle: Files = field(repr=False)


def refresh(stored: Files, bundle: Files, now_s: float) -> Refreshed:
    """TUF client workflow (specification 5.3–5.6) over the files in ``bundle``.

    ``stored`` maps ``root.json``, ``timestamp.json``, ``snapshot.json``, ``targets.json`` to trusted bytes;
    at least the root must be there.
    """
    keep = dict(stored)
    role = "root"
    try:
        require("root.json" in stored, Reason.ROOT_CHAIN, "no trusted root")
        total = sum(len(data) for data in bundle.values())
        require(total <= limits.METADATA_BUNDLE_MAX, Reason.OVERSIZE, f"metadata of {total} B")
        for name, data in bundle.items():
            check_json_shape(data, name)
        trusted = TrustedMetadataSet(stored["root.json"], EnvelopeType.METADATA)
        trusted.reference_time = datetime.fromtimestamp(int(now_s), UTC)
        for _ in range(limits.ROOT_ROTATIONS_MAX):
            data = bundle.get(f"{trusted.root.version + 1}.root.json", b"")
            if not data:
                break
            trusted.update_root(data)
            keep["root.json"] = data
        role = "timestamp"
        _load_timestamp(trusted, keep, bundle)
        role = "snapshot"
        _load_snapshot(trusted, keep, bundle)
        role = "targets"
        _load_targets(trusted, keep, bundle, "targets", "root")
    except (OtaError, tuf.RepositoryError) as error:
        return Refreshed(keep, None, _reason(error, role), bundle)
    return Refreshed(keep, trusted, None, bundle)


def _ignore_old(load: Any, data: bytes | None, **options: Any) -> bool:
    """Load stored metadata as an intermediate: what is expired still guards against rollback."""
    if data is None:
        return False
    try:
        load(data, **options)
    except tuf.RepositoryError:
        return False
    return True


def _load_timestamp(trusted: TrustedMetadataSet, keep: dict[str, bytes], bundle: Files) -> None:
    _ignore_old(trusted.update_timestamp, keep.get("timestamp.json"))
    require("timestamp.json" in bundle, Reason.MISSING_FIELD, "timestamp.json")
    try:
        trusted.update_timestamp(bundle["timestamp.json"])
        keep["timestamp.json"] = bundle["timestamp.json"]
    except tuf.EqualVersionNumberError:
        pass
    except tuf.ExpiredMetadataError:
        # Verified though expired: kept, so that an older one is refused later (root expiry adds nothing).
        if "timestamp" in trusted:
            keep["timestamp.json"] = bundle["timestamp.json"]
        raise


def _load_snapshot(trusted: TrustedMetadataSet, keep: dict[str, bytes], bundle: Files) -> None:
    if _ignore_old(trusted.update_snapshot, keep.get("snapshot.json"), trusted=True):
        return
    name = f"{trusted.timestamp.snapshot_meta.version}.snapshot.json"
    require(name in bundle, Reason.MISSING_FIELD, name)
    trusted.update_snapshot(bundle[name])
    keep["snapshot.json"] = bundle[name]


def _load_targets(
    trusted: TrustedMetadataSet, keep: dict[str, bytes], bundle: Files, role: str, parent: str
) -> Targets:
    if trusted.contains(role, parent):
        return cast(Targets, trusted[role])
    stored = keep.get(f"{role}.json")
    if stored is not None:
        try:
            return trusted.update_delegated_targets(stored, role, parent)
        except tuf.RepositoryError:
            pass  # outdated: the bundle has the new one
    meta = trusted.snapshot.meta.get(f"{role}.json")
    if meta is None:
        raise OtaError(Reason.MIX_AND_MATCH, f"snapshot does not list {role}")
    name = f"{meta.version}.{role}.json"
    require(name in bundle, Reason.MISSING_FIELD, name)
    loaded = trusted.update_delegated_targets(bundle[name], role, parent)
    keep[f"{role}.json"] = bundle[name]
    return loaded


def find_target(result: Refreshed, name: str) -> TargetFile | None:
    """Search the delegations in pre-order (specification 5.6.7); loads delegated roles from the bundle."""
    trusted = result.trusted
    if trusted is None:
        return None
    visited: set[str] = set()
    queue = [("targets", "root")]
    while queue and len(visited) <= limits.DELEGATIONS_MAX:
        role, parent = queue.pop()
        if role in visited:
            continue
        visited.add(role)
        targets = _load_targets(trusted, result.stored, result.bundle, role, parent)
        if name in targets.targets:
            return targets.targets[name]
        if targets.delegations is not None:
            children: list[tuple[str, str]] = []
            for child, terminating in targets.delegations.get_roles_for_target(name):
                children.append((child, role))
                if terminating:
                    queue = []
                    break
            queue.extend(reversed(children))
    return None


# ---- Uptane -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ecu:
    """One updatable unit of a device, and what it runs (for the release-counter rule)."""

    serial: str
    hardware_id: str
    release_counter: int = 0
    parameter_release_counter: int = 0


@dataclass(frozen=True)
class Planned:
    """One verified artifact for one ECU."""

    ecu: str
    name: str
    kind: str
    digest: bytes
    length: int
    version: Version
    security_counter: int
    release_counter: int
    merkle_root: bytes
    parameter_schema: tuple[int, int] | None
    deltas: tuple[DeltaChoice, ...]


@dataclass(frozen=True)
class DeltaChoice:
    """A delta artifact of the image repository that leads from ``base_digest`` to the planned artifact."""

    base_digest: bytes
    name: str
    digest: bytes
    length: int
    merkle_root: bytes


@dataclass(frozen=True)
class TrustStore:
    """What a gateway remembers between updates; only ever replaced as a whole."""

    image: Files
    director: Files
    secure_time_s: float = 0.0

    def versions(self) -> dict[str, int]:
        """Versions of all stored metadata, for the monotonicity check (I3)."""
        rows = {}
        for repo, files in (("image", self.image), ("director", self.director)):
            for name, data in files.items():
                rows[f"{repo}/{name}"] = int(json.loads(data)["signed"]["version"])
        return rows

    def root_versions(self) -> tuple[int, int]:
        rows = self.versions()
        return rows["image/root.json"], rows["director/root.json"]


@dataclass(frozen=True)
class Verdict:
    store: TrustStore
    plan: tuple[Planned, ...]
    error: OtaError | None


def verify_bundles(
    store: TrustStore, image_bundle: Files, director_bundle: Files, ecus: Iterable[Ecu], now_s: float
) -> Verdict:
    """Steps 1–5 of the module docstring."""
    director = refresh(store.director, director_bundle, now_s)
    store = replace(store, director=director.stored)
    if director.error is not None:
        return Verdict(store, (), OtaError(director.error.reason, f"director {director.error.detail}"))
    image = refresh(store.image, image_bundle, now_s)
    try:
        if image.error is not None:
            raise OtaError(image.error.reason, f"image repository {image.error.detail}")
        plan = _cross_check(director, image, {e.serial: e for e in ecus})
    except OtaError as error:
        return Verdict(replace(store, image=image.stored), (), error)
    except (tuf.RepositoryError, ValueError, TypeError, KeyError, AttributeError) as raw:
        # custom fields of an unexpected shape, in metadata that is correctly signed
        return Verdict(replace(store, image=image.stored), (), _reason(raw, "targets"))
    return Verdict(replace(store, image=image.stored), plan, None)


def _cross_check(director: Refreshed, image: Refreshed, ecus: Mapping[str, Ecu]) -> tuple[Planned, ...]:
    assert director.trusted is not None
    targets = director.trusted.targets
    require(targets.delegations is None, Reason.DIRECTOR_DELEGATES)
    plan: list[Planned] = []
    for name, ordered in sorted(targets.targets.items()):
        known = find_target(image, name)
        if known is None:
            raise OtaError(Reason.NOT_IN_IMAGE_REPOSITORY, name)
        custom, claimed = known.custom, ordered.custom
        same = known.hashes == ordered.hashes and known.length == ordered.length
        for key in ("kind", "hardwareIds", "releaseCounter", "securityCounter", "version", "merkleRoot"):
            require(key in custom, Reason.MISSING_FIELD, f"{name}: {key}")
            same = same and custom[key] == claimed.get(key)
        require(same, Reason.DIRECTOR_DISAGREES, name)
        require("sha256" in known.hashes, Reason.MISSING_FIELD, f"{name}: sha256")
        for serial, row in claimed.get("ecuIdentifiers", {}).items():
            require(serial in ecus, Reason.WRONG_DEVICE, f"{name}: no ECU {serial} here")
            ecu = ecus[serial]
            fits = row.get("hardwareId") == ecu.hardware_id and ecu.hardware_id in custom["hardwareIds"]
            require(fits, Reason.HARDWARE, f"{name} for {ecu.hardware_id}")
            planned = _planned(image, serial, name, known)
            twice = any(p.ecu == serial and p.kind == planned.kind for p in plan)
            require(not twice, Reason.DUPLICATE_FIELD, f"two {planned.kind} artifacts for {serial}")
            firmware = planned.kind == "firmware"
            installed = ecu.release_counter if firmware else ecu.parameter_release_counter
            low = f"{name}: release counter {planned.release_counter} < {installed}"
            require(planned.release_counter >= installed, Reason.VERSION_LOW, low)
            plan.append(planned)
    for firmware_row in (p for p in plan if p.kind == "firmware"):
        for row in plan:
            if row.ecu == firmware_row.ecu and row.kind == "parameters" and firmware_row.parameter_schema:
                wants, has = firmware_row.parameter_schema, row.parameter_schema
                good = has is not None and wants[0] <= has[0] and has[1] <= wants[1]
                require(good, Reason.PARAMETER_SCHEMA, f"{firmware_row.name} with {row.name}")
    return tuple(plan)


def _planned(image: Refreshed, serial: str, name: str, target: TargetFile) -> Planned:
    custom = target.custom
    kind = custom["kind"]
    require(kind in ("firmware", "parameters"), Reason.FORMAT, f"{name}: kind {kind!r}")
    counters = (custom["releaseCounter"], custom["securityCounter"])
    require(all(type(c) is int and 0 <= c < 2**32 for c in counters), Reason.FORMAT, f"{name}: counters")
    schema = custom.get("paramSchema")
    deltas: list[DeltaChoice] = []
    for row in custom.get("deltas", []):
        found = find_target(image, row["name"])
        if found is None:
            raise OtaError(Reason.NOT_IN_IMAGE_REPOSITORY, row["name"])
        deltas.append(
            DeltaChoice(
                bytes.fromhex(row["base"]),
                row["name"],
                bytes.fromhex(found.hashes["sha256"]),
                found.length,
                bytes.fromhex(found.custom["merkleRoot"]),
            )
        )
    return Planned(
        serial,
        name,
        kind,
        bytes.fromhex(target.hashes["sha256"]),
        target.length,
        Version.parse(custom["version"]),
        counters[1],
        counters[0],
        bytes.fromhex(custom["merkleRoot"]),
        (int(schema[0]), int(schema[1])) if schema else None,
        tuple(deltas),
    )


# ---- time -------------------------------------------------------------------------------------------------

TIME_CONTENT_TYPE = "ota/time"


def sign_time(time_s: int, nonce: bytes, key: SigningKey) -> bytes:
    """Signed time for the device that sent ``nonce`` (16 bytes)."""
    return cose.sign(TIME_CONTENT_TYPE, {1: int(time_s), 2: nonce}, key)


@dataclass(frozen=True)
class SecureClock:
    """Time that an attacker with a real-time clock cannot move far.

    ``floor_s`` : last signed time ever seen; never decreases
    ``offset_s`` : signed minus host time since the last signed time of this run; None before
    """

    floor_s: float = 0.0
    offset_s: float | None = None

    def now(self, host_s: float | None) -> float:
        """Best estimate. Without a signed time in this run the host's clock is taken, but never below the
        floor; without any clock, the floor."""
        if host_s is None:
            return self.floor_s
        if self.offset_s is not None:
            return max(self.floor_s, host_s + self.offset_s)
        return max(self.floor_s, host_s)

    def learn(
        self, attestation: bytes, nonce: bytes, keys: Iterable[PublicKey], host_s: float
    ) -> SecureClock:
        """Clock after a signed time; REPLAY for another nonce, ROLLBACK for a time before the floor."""
        row, _ = cose.verify(attestation, TIME_CONTENT_TYPE, keys, 512)
        cbor_field({0: row}, 0, dict, "time")
        only_fields(row, {1, 2}, "time")
        time_s = uint(row, 1, "time", 2**53)
        require(fixed_bytes(row, 2, 16, "nonce") == nonce, Reason.REPLAY, "time attestation")
        require(time_s >= self.floor_s, Reason.ROLLBACK, f"signed time {time_s} before {self.floor_s:.0f}")
        return SecureClock(float(time_s), time_s - host_s)


def trusted_root(data: bytes) -> Root:
    """Parsed root of a trust store, for displays."""
    from tuf.api.metadata import Metadata

    return Metadata[Root].from_bytes(data).signed
