"""The update server: answers devices, keeps the record of deployments. No sockets in here.

``handle(topic, payload, now_s)`` takes one MQTT message and returns the messages to send. What must not be
forgotten (orders, accepted reports) is in an append-only journal, synced before the answer leaves; a server
that was killed at any moment continues from it (``journal`` given again). A second server on the same journal
is refused by a lock. Refused messages and state changes go to the audit log, if one is given.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import campaign, limits, manifest, merkle, messages, topics, trust
from .audit import AuditLog
from .campaign import Deployment, Outcome
from .errors import OtaError, Reason, require
from .image import Version
from .messages import Action, Desired
from .repository import Assignment, Director, Repository
from .signing import PublicKey, SigningKey


@dataclass(frozen=True)
class Message:
    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True)
class DeviceIdentity:
    """A registered device: its report key and its one ECU."""

    device: str
    key: PublicKey
    ecu_serial: str
    hardware_id: str
    vendor_id: bytes
    class_id: bytes


@dataclass
class _Device:
    identity: DeviceIdentity
    desired_counter: int = 0
    report_counter: int = 0
    nonce: bytes = messages.NONE
    last_report: bytes = b""
    running: dict[int, bytes] = field(default_factory=dict)
    deployment: bytes = b""
    assignments: tuple[Assignment, ...] = ()
    assigned_at_s: float = -1e18


class UpdateServer:
    """See module docstring. ``secret``: 16 random bytes, for nonces."""

    def __init__(
        self,
        repository: Repository,
        director: Director,
        secret: bytes,
        *,
        journal: Path | None = None,
        audit: AuditLog | None = None,
        metadata_lifetime_s: int = 2 * 86400,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.repository = repository
        self.director = director
        self.key: SigningKey = director.online
        self.secret = secret
        self.audit = audit
        self.log = log
        self.metadata_lifetime_s = metadata_lifetime_s
        self.devices: dict[str, _Device] = {}
        self.deployments: dict[bytes, Deployment] = {}
        self.sent_bytes = 0
        self._cache: OrderedDict[bytes, tuple[bytes, tuple[bytes, ...]]] = OrderedDict()
        self._journal: Any = None
        self._journal_path = journal

    # ---- registry and journal -----------------------------------------------------------------------------

    def register(self, identity: DeviceIdentity) -> None:
        topics.check_device(identity.device)
        self.devices[identity.device] = _Device(identity)

    def open_journal(self) -> None:
        """Take the lock and replay; call after all devices have been registered."""
        if self._journal_path is None:
            return
        self._journal = self._journal_path.open("a+b")
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._journal.close()
            self._journal = None
            raise OtaError(Reason.BUSY, "another server uses this journal") from None
        self._journal.seek(0)
        data = self._journal.read()
        good = data.rfind(b"\n") + 1  # a line cut off by a crash was never acknowledged
        if good < len(data):
            os.truncate(self._journal_path, good)
        for line in data[:good].splitlines():
            self._replay(json.loads(line))

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _write(self, row: Mapping[str, Any]) -> None:
        if self._journal is not None:
            self._journal.write(json.dumps(row, sort_keys=True).encode() + b"\n")
            self._journal.flush()
            os.fsync(self._journal.fileno())

    def _replay(self, row: dict[str, Any]) -> None:
        device = self.devices.get(row["device"])
        if device is None:
            return
        if row["kind"] == "order":
            assignments = tuple(self._assignment(device.identity, name) for name in row["names"])
            ident, data = bytes.fromhex(row["id"]), bytes.fromhex(row["manifest"])
            digests = {int(k): bytes.fromhex(v) for k, v in row["digests"].items()}
            self.director.versions[row["device"]] = row["director_version"]
            self._place(device, Deployment(ident, row["device"], row["counter"], digests, row["t"], data))
            device.assignments = assignments
        elif row["kind"] == "counter":
            device.desired_counter = row["counter"]
        elif row["kind"] == "report":
            self._accept(device, bytes.fromhex(row["data"]), row["t"])
        elif row["kind"] == "move":
            known = self.deployments[bytes.fromhex(row["id"])]
            known.move(row["t"], Outcome(row["outcome"]), Reason(row["reason"]))

    def _record(self, now_s: float, action: str, detail: Mapping[str, Any]) -> None:
        if self.audit is not None:
            self.audit.append(int(now_s), "server", action, detail)
        self.log(f"{action} {dict(detail)}")

    # ---- orders -------------------------------------------------------------------------------------------

    def _assignment(self, identity: DeviceIdentity, name: str) -> Assignment:
        from tuf.api.metadata import Targets

        for role in self.repository.delegators():
            if role in ("root", "snapshot", "timestamp") or not self.repository.latest(role):
                continue
            signed = self.repository.load(role).signed
            if isinstance(signed, Targets) and name in signed.targets:
                target = signed.targets[name]
                return Assignment(name, identity.ecu_serial, identity.hardware_id, target)
        raise OtaError(Reason.NOT_FOUND, f"no artifact {name!r} in the repository")

    def order(
        self,
        device: str,
        names: Sequence[str],
        now_s: float,
        *,
        not_before_s: int = 0,
        preconditions: int = 0x1F,
        lifetime_s: int = 30 * 86400,
    ) -> tuple[Deployment, list[Message]]:
        """Order ``names`` (artifacts of the image repository, one set) for ``device``."""
        require(device in self.devices, Reason.UNKNOWN_DEPLOYMENT, f"no device {device!r}")
        row = self.devices[device]
        assignments = tuple(self._assignment(row.identity, name) for name in names)
        counter = row.desired_counter + 1
        ident = hashlib.sha256(self.secret + f"{device}/{counter}".encode()).digest()[:16]
        parts = []
        for a in assignments:
            custom = a.target.custom
            schema = custom.get("paramSchema")
            parts.append(
                manifest.Component(
                    0 if custom["kind"] == "firmware" else 1,
                    bytes.fromhex(a.target.hashes["sha256"]),
                    a.target.length,
                    Version.parse(custom["version"]),
                    custom["securityCounter"],
                    bytes.fromhex(custom["merkleRoot"]),
                    (schema[0], schema[1]) if schema else None,
                )
            )
        parts.sort(key=lambda c: c.image_id)
        signed = manifest.Manifest(
            sequence=max(a.target.custom["releaseCounter"] for a in assignments),
            vendor_id=row.identity.vendor_id,
            class_id=row.identity.class_id,
            hardware_revisions=(),
            device=row.identity.ecu_serial,
            deployment=ident,
            expires_s=int(now_s) + lifetime_s,
            preconditions=preconditions,
            components=tuple(parts),
        ).sign(self.key)
        deployment = Deployment(ident, device, counter, {c.image_id: c.digest for c in parts}, now_s, signed)
        self._supersede(row, now_s)
        self.director.assign(device, assignments, now_s, self.metadata_lifetime_s)
        row.assignments, row.assigned_at_s = assignments, now_s
        self._write(
            {
                "kind": "order",
                "t": now_s,
                "device": device,
                "id": ident.hex(),
                "counter": counter,
                "names": list(names),
                "digests": {str(k): v.hex() for k, v in deployment.digests.items()},
                "manifest": signed.hex(),
                "director_version": self.director.versions[device],
                "not_before": not_before_s,
            }
        )
        self._place(row, deployment)
        self._record(now_s, "order", {"device": device, "names": list(names), "id": ident.hex()})
        desired = Desired(counter, device, ident, Action.INSTALL, not_before_s).sign(self.key)
        return deployment, [Message(topics.topic(device, topics.DESIRED), desired, True)]

    def _place(self, row: _Device, deployment: Deployment) -> None:
        self.deployments[deployment.id] = deployment
        row.deployment = deployment.id
        row.desired_counter = deployment.counter

    def _supersede(self, row: _Device, now_s: float) -> None:
        old = self.deployments.get(row.deployment)
        if old is not None and not old.outcome.terminal:
            self._move(old, now_s, Outcome.SUPERSEDED, Reason.SUPERSEDED)

    def _move(self, deployment: Deployment, now_s: float, outcome: Outcome, reason: Reason) -> None:
        deployment.move(now_s, outcome, reason)
        self._write(
            {
                "kind": "move",
                "t": now_s,
                "device": deployment.device,
                "id": deployment.id.hex(),
                "outcome": outcome.value,
                "reason": int(reason),
            }
        )

    def cancel(self, device: str, now_s: float) -> list[Message]:
        """Ask the device to drop its present deployment; the outcome is what the device reports."""
        row = self.devices[device]
        require(row.deployment != b"", Reason.UNKNOWN_DEPLOYMENT, device)
        row.desired_counter += 1
        self._write({"kind": "counter", "device": device, "counter": row.desired_counter})
        self._record(now_s, "cancel", {"device": device, "id": row.deployment.hex()})
        data = Desired(row.desired_counter, device, row.deployment, Action.CANCEL).sign(self.key)
        return [Message(topics.topic(device, topics.DESIRED), data, True)]

    def tick(self, now_s: float) -> None:
        """Deployments without any report for too long are shown as stalled, never as healthy."""
        for row in self.deployments.values():
            if row.outcome.terminal:
                continue
            if (
                now_s - (row.last_report_s if row.last_report_s is not None else row.created_s)
                > limits.STALL_S
            ):
                self._move(row, now_s, Outcome.STALLED, Reason.STALLED)
                self._record(now_s, "stalled", {"device": row.device, "id": row.id.hex()})

    # ---- messages from devices ----------------------------------------------------------------------------

    def handle(self, topic: str, payload: bytes, now_s: float) -> list[Message]:
        """Answers to one message. Bad ones are refused with a reason, logged, and change nothing."""
        device = ""
        try:
            device, leaf = topics.parse(topic)
            require(device in self.devices, Reason.IDENTITY, "unknown device")
            require(len(payload) <= limits.MESSAGE_MAX, Reason.OVERSIZE, f"{len(payload)} B")
            if leaf == topics.REQUEST:
                out = self._on_request(self.devices[device], payload, now_s)
            elif leaf == topics.REPORT:
                out = self._on_report(self.devices[device], payload, now_s)
            else:
                return []
        except OtaError as error:
            self._record(now_s, "refused", {"topic": topic[:80], "reason": error.reason.name})
            if device in self.devices and error.reason in (Reason.NOT_FOUND, Reason.EXPIRED):
                refusal = messages.pack_data(messages.RefusalData(bytes(8), error.reason))
                return [Message(topics.topic(device, topics.DATA), refusal)]
            return []
        self.sent_bytes += sum(len(m.payload) for m in out)
        return out

    def _on_request(self, row: _Device, payload: bytes, now_s: float) -> list[Message]:
        request = messages.unpack_request(payload)
        name = row.identity.device
        topic = topics.topic(name, topics.DATA)
        if isinstance(request, messages.MetadataRequest):
            require(row.deployment != b"", Reason.NOT_FOUND, "no order")
            if now_s - row.assigned_at_s > self.metadata_lifetime_s / 2:
                self.director.assign(name, row.assignments, now_s, self.metadata_lifetime_s)
                row.assigned_at_s = now_s
            data: messages.Data = messages.MetadataData(
                request.nonce,
                self.repository.bundle(request.image_root),
                self.director.bundle(name, request.director_root),
                trust.sign_time(int(now_s), request.nonce, self.key),
                self.deployments[row.deployment].manifest,
            )
            return [Message(topic, messages.pack_data(data))]
        file, leaves = self._artifact(request.digest)
        digest8 = request.digest[:8]
        if isinstance(request, messages.TableRequest):
            return [Message(topic, messages.pack_data(messages.TableData(digest8, leaves)))]
        out = []
        for first, count in request.ranges:
            for index in range(first, min(first + count, len(leaves))):
                block = file[index * limits.BLOCK_SIZE : (index + 1) * limits.BLOCK_SIZE]
                out.append(Message(topic, messages.pack_data(messages.BlockData(digest8, index, block))))
        return out

    def _artifact(self, digest: bytes) -> tuple[bytes, tuple[bytes, ...]]:
        """File and leaf hashes, from a small cache (a campaign asks for the same few files)."""
        known = self._cache.get(digest)
        if known is None:
            data = self.repository.artifact(digest)
            known = (data, tuple(merkle.file_leaves(data)))
            self._cache[digest] = known
            if len(self._cache) > 16:
                self._cache.popitem(last=False)
        return known

    def _on_report(self, row: _Device, payload: bytes, now_s: float) -> list[Message]:
        identity = row.identity
        report = messages.Report.verify(payload, [identity.key], identity.device)
        if payload == row.last_report:
            return [self._ack(row)]  # the ack was lost: say it again, change nothing
        fresh = report.counter == row.report_counter + 1 and report.nonce == row.nonce
        if not fresh:
            self._record(now_s, "refused", {"device": identity.device, "reason": Reason.REPLAY.name})
            return [self._ack(row)]  # tells an honest device that lost its state where to go on
        self._write({"kind": "report", "t": now_s, "device": identity.device, "data": payload.hex()})
        self._accept(row, payload, now_s)
        return [self._ack(row)]

    def _ack(self, row: _Device) -> Message:
        data = messages.Ack(row.identity.device, row.report_counter, row.nonce).sign(self.key)
        return Message(topics.topic(row.identity.device, topics.ACK), data)

    def _accept(self, row: _Device, payload: bytes, now_s: float) -> None:
        report = messages.Report.verify(payload, [row.identity.key], row.identity.device)
        row.report_counter = report.counter
        row.last_report = payload
        label = f"nonce/{row.identity.device}/{report.counter}".encode()
        row.nonce = hashlib.sha256(self.secret + label).digest()[:16]
        row.running = {0: report.firmware_digest, 1: report.parameter_digest}
        deployment = self.deployments.get(report.deployment)
        if deployment is None or deployment.device != row.identity.device:
            if report.deployment != messages.NONE:
                self._record(now_s, "refused", {"reason": Reason.UNKNOWN_DEPLOYMENT.name})
            return
        outcome, reason = campaign.judge(deployment, report.state, report.reason, row.running)
        deployment.last_report_s = now_s
        deployment.bytes_received = report.bytes_received
        if deployment.outcome.terminal and not outcome.terminal:
            return  # an old intermediate report never reopens a finished deployment
        deployment.move(now_s, outcome, reason, report.detail)
        if outcome.terminal:
            self._record(
                now_s,
                "outcome",
                {"device": report.device, "outcome": outcome.value, "reason": reason.name},
            )
