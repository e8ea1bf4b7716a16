"""The gateway agent of one device, as a state machine without I/O.

    state, commands = step(config, state, event, now_s)

``now_s`` is the host's clock in Unix seconds (it may be wrong, jump, or be None). Events come from MQTT
(``Desired…``, ``Data…``, ``Ack…``, ``Connected``, ``Disconnected``), from the MCU mailbox (``FromMcu``), from
time (``Tick``) and from the process (``Restarted``). Commands are carried out by a host (``gateway``):
publish, keep a verified block, send to the MCU. The same machine runs under MQTT, under SimPy and under
Hypothesis.

Phases and what moves them on::

    IDLE        signed desired state, newer counter          → METADATA
    METADATA    metadata verified (``trust``), plan made      → DOWNLOAD    refused → report, IDLE
    DOWNLOAD    all blocks there, each checked by its hash    → TRANSFER
    TRANSFER    MCU has verified the whole set                → STAGED      delta refused → full image,
    DOWNLOAD STAGED      battery safe, window open                     → ACTIVATING  otherwise deferred with
    its reason ACTIVATING  MCU has taken the order                       → PROBATION   MCU defers → STAGED
    PROBATION   MCU confirms the new set by digest            → IDLE, success
                MCU is back on the old one                    → IDLE, failed

Every phase has an answer to every event (tests run all pairs and random sequences). Time limits run on
``uptime_s``, which adds up bounded steps of the host clock, so that a jump of the clock neither ends nor
freezes an update. A request not answered is repeated after a jittered, doubling pause; the jitter comes from
the device's secret, so a fleet does not come back all at once and a run can be repeated exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from . import frames, limits, manifest, merkle, messages, trust
from .device_state import (
    DURABLE,
    AckReceived,
    Command,
    Config,
    Connected,
    DataReceived,
    DesiredReceived,
    Disconnected,
    Event,
    Forget,
    FromMcu,
    Item,
    Keep,
    Note,
    Phase,
    Publish,
    Restarted,
    SendMcu,
    SendPieces,
    State,
    Tick,
    dump,
    load,
    start,
)
from .errors import OtaError, Reason, require
from .messages import Action, Desired, Report, ReportState
from .topics import REPORT, REQUEST

__all__ = [
    "AckReceived",
    "Command",
    "Config",
    "Connected",
    "DataReceived",
    "DesiredReceived",
    "Disconnected",
    "Event",
    "Forget",
    "FromMcu",
    "Item",
    "Keep",
    "Note",
    "Phase",
    "Publish",
    "Restarted",
    "SendMcu",
    "SendPieces",
    "State",
    "Tick",
    "dump",
    "load",
    "next_wakeup_s",
    "start",
    "step",
]


@dataclass
class _Turn:
    """One step under way: the state being built and the commands collected.

    ``s`` is a private copy of the state, changed in place until the step returns it: rebuilding a frozen
    dataclass for each of the ten or so changes per block costs more than verifying the block.
    """

    config: Config
    s: State
    commands: list[Command] = field(default_factory=list)

    def do(self, command: Command) -> None:
        self.commands.append(command)

    def set(self, **changes: Any) -> None:
        self.s.__dict__.update(changes)

    def random(self, what: bytes) -> bytes:
        """Unpredictable to others, repeatable for a test: hash of the secret and a counter."""
        self.set(nonce_counter=self.s.nonce_counter + 1)
        return hashlib.sha256(self.config.secret + what + self.s.nonce_counter.to_bytes(8, "big")).digest()

    def pause_s(self, attempts: int, first_s: float, greatest_s: float) -> float:
        """Doubling pause with full jitter in its upper half."""
        whole = min(greatest_s, first_s * 2.0 ** min(attempts, 20))
        return whole * (0.5 + self.random(b"jitter")[0] / 512.0)


def step(config: Config, state: State, event: Event, now_s: float | None) -> tuple[State, list[Command]]:
    """The transition function; see module docstring. Never raises on what comes from outside."""
    own = object.__new__(State)
    own.__dict__.update(state.__dict__)
    turn = _Turn(config, own)
    _advance(turn, now_s)
    try:
        _HANDLERS[type(event)](turn, event)
    except OtaError as error:
        turn.do(Note(error.reason, error.detail))
    _proceed(turn)
    _send_reports(turn)
    return turn.s, turn.commands


def _advance(turn: _Turn, now_s: float | None) -> None:
    """Uptime from bounded steps of the host clock: jumps count as at most one hour, backwards as none."""
    s = turn.s
    if now_s is not None and s.host_s is not None:
        turn.set(uptime_s=s.uptime_s + min(max(now_s - s.host_s, 0.0), 3600.0))
        if abs(now_s - s.host_s) > 86400 and s.clock.offset_s is not None:
            # The host clock was set: what was learnt about its error is void, the floor is not.
            turn.set(clock=replace(s.clock, floor_s=s.clock.now(s.host_s), offset_s=None))
    if now_s is not None:
        turn.set(host_s=now_s)


# ---- events -----------------------------------------------------------------------------------------------


def _on_connected(turn: _Turn, event: Any) -> None:
    turn.set(connected=True, attempts=0, retry_at_s=0.0, outstanding=frozenset(), report_at_s=0.0)
    turn.set(rate_since_s=turn.s.uptime_s, rate_bytes=0)


def _on_disconnected(turn: _Turn, event: Any) -> None:
    turn.set(connected=False, outstanding=frozenset(), nonce=b"")


def _on_restarted(turn: _Turn, event: Any) -> None:
    """Volatile part to its defaults; what was verified and kept stays."""
    s = turn.s
    back = {
        Phase.ACTIVATING: Phase.STAGED,  # the order may have been lost: look at the MCU first
    }.get(s.phase, s.phase)
    durable = {name: getattr(s, name) for name in DURABLE}
    turn.s = replace(start(s.store), **{**durable, "phase": back})
    turn.set(mcu_offset=(0, 0))


def _on_desired(turn: _Turn, event: DesiredReceived) -> None:
    wanted = Desired.verify(event.data, turn.config.director_keys, turn.config.device)
    s = turn.s
    if wanted.counter == s.desired_counter:
        return  # the retained message again
    low = f"desired counter {wanted.counter} < {s.desired_counter}"
    require(wanted.counter > s.desired_counter, Reason.REPLAY, low)
    if s.phase in (Phase.ACTIVATING, Phase.PROBATION):
        # The set is being exchanged now: finish, then look at the new wish.
        turn.set(pending_desired=event.data)
        if wanted.action is Action.CANCEL:
            turn.do(Note(Reason.TOO_LATE_TO_CANCEL, wanted.deployment.hex()[:16]))
        return
    _take_desired(turn, wanted)


def _take_desired(turn: _Turn, wanted: Desired) -> None:
    s = turn.s
    turn.set(desired_counter=wanted.counter)
    busy = s.phase is not Phase.IDLE
    if wanted.action is Action.CANCEL:
        if busy and wanted.deployment == s.deployment:
            _cancel_mcu(turn)
            _finish(turn, ReportState.CANCELLED, Reason.CANCELLED, f"in phase {s.phase.name}")
        elif wanted.deployment == s.deployment:
            turn.do(Note(Reason.TOO_LATE_TO_CANCEL, "already finished"))
            _report(turn, s.outcome or ReportState.REFUSED, Reason.TOO_LATE_TO_CANCEL, "already finished")
        else:
            # never begun here: the server learns that it will not be
            turn.set(deployment=wanted.deployment)
            _finish(turn, ReportState.CANCELLED, Reason.CANCELLED, "before it began")
        return
    if wanted.action is Action.NONE:
        return
    if busy:
        _cancel_mcu(turn)
        _finish(turn, ReportState.CANCELLED, Reason.SUPERSEDED, "")
    turn.set(
        deployment=wanted.deployment,
        not_before_s=wanted.not_before_s,
        manifest=b"",
        items=(),
        delta_tries=0,
        bytes_received=0,
        outcome=None,
        nonce=b"",
    )
    _enter(turn, Phase.METADATA)


def _cancel_mcu(turn: _Turn) -> None:
    if turn.s.phase in (Phase.TRANSFER, Phase.STAGED):
        turn.do(SendMcu(frames.pack(frames.CANCEL, _manifest8(turn.s))))


def _on_data(turn: _Turn, event: DataReceived) -> None:
    data = messages.unpack_data(event.data)
    turn.set(bytes_received=turn.s.bytes_received + len(event.data))
    match data:
        case messages.MetadataData():
            _on_metadata(turn, data)
        case messages.TableData():
            _on_table(turn, data)
        case messages.BlockData():
            _on_block(turn, data)
        case messages.RefusalData():
            turn.do(Note(data.reason, "refused by the server"))


def _on_metadata(turn: _Turn, data: messages.MetadataData) -> None:
    s, config = turn.s, turn.config
    require(s.phase is Phase.METADATA and s.nonce != b"", Reason.REPLAY, "metadata not asked for")
    require(data.nonce == s.nonce, Reason.REPLAY, "metadata for another request")
    if s.status is None:
        return  # the base of a delta is not known yet; asked again when the MCU has answered
    turn.set(nonce=b"")
    clock = s.clock
    if data.time:
        try:
            clock = s.clock.learn(data.time, data.nonce, config.time_keys, s.host_s or 0.0)
        except OtaError as error:
            turn.do(Note(error.reason, f"signed time: {error.detail}"))
    # The release counter rule is applied below to the set as a whole, by the manifest's sequence number.
    ecu = trust.Ecu(config.ecu_serial, config.hardware_id)
    verdict = trust.verify_bundles(s.store, data.image, data.director, [ecu], clock.now(s.host_s))
    turn.set(clock=clock, store=replace(verdict.store, secure_time_s=clock.floor_s))
    try:
        if verdict.error is not None:
            raise verdict.error
        wanted = manifest.verify(data.manifest, config.director_keys)
        manifest.check_for(
            wanted,
            device=config.ecu_serial,
            vendor_id=config.vendor_id,
            class_id=config.class_id,
            hardware_revision=config.hardware_revision,
            last_sequence=s.status.sequence,
            now_s=clock.now(s.host_s),
        )
        require(wanted.deployment == s.deployment, Reason.UNKNOWN_DEPLOYMENT, "manifest")
        items = _match(wanted, verdict.plan, s.status)
    except OtaError as error:
        _finish(turn, ReportState.REFUSED, error.reason, error.detail)
        return
    turn.set(manifest=data.manifest, items=items)
    if s.status.installed8 == _manifest8(turn.s):
        _judge(turn, s.status)
        return
    _report(turn, ReportState.ACCEPTED, Reason.OK, "")
    _enter(turn, Phase.DOWNLOAD)


def _match(
    wanted: manifest.Manifest, plan: tuple[trust.Planned, ...], status: frames.Status
) -> tuple[Item, ...]:
    """The MCU's manifest must say exactly what the verified metadata says; choose delta or full per image."""
    by_image = {0 if p.kind == "firmware" else 1: p for p in plan}
    same_set = set(by_image) == {c.image_id for c in wanted.components} and len(by_image) == len(plan)
    require(same_set, Reason.DIRECTOR_DISAGREES, "manifest and metadata name different artifacts")
    newest = max((p.release_counter for p in plan), default=-1)
    require(
        wanted.sequence == newest, Reason.DIRECTOR_DISAGREES, "manifest sequence is not the release counter"
    )
    items: list[Item] = []
    for c in wanted.components:
        p = by_image[c.image_id]
        same = (c.digest, c.length, c.merkle_root) == (p.digest, p.length, p.merkle_root)
        same = same and (c.version, c.security_counter) == (p.version, p.security_counter)
        same = same and c.parameter_schema == p.parameter_schema
        require(same, Reason.DIRECTOR_DISAGREES, f"manifest and metadata differ on {p.name}")
        base = status.firmware_digest if c.image_id == 0 else status.parameter_digest
        full = Item(c.image_id, p.digest, p.length, p.merkle_root, delta=False)
        fitting = [d for d in p.deltas if d.base_digest == base and d.length < full.length]
        best = min(fitting, key=lambda d: d.length, default=None)
        items.append(
            full if best is None else Item(c.image_id, best.digest, best.length, best.merkle_root, delta=True)
        )
    return tuple(items)


def _current(s: State) -> int | None:
    """Index of the item being fetched."""
    return next((i for i, item in enumerate(s.items) if not item.complete), None)


def _put_item(turn: _Turn, index: int, item: Item) -> None:
    items = list(turn.s.items)
    items[index] = item
    turn.set(items=tuple(items))


def _on_table(turn: _Turn, data: messages.TableData) -> None:
    s = turn.s
    index = _current(s) if s.phase is Phase.DOWNLOAD else None
    if index is None or s.items[index].digest[:8] != data.digest8 or s.items[index].leaves is not None:
        return  # late or repeated
    item = s.items[index]
    good = len(data.leaves) == item.blocks and merkle.root_of_leaves(list(data.leaves)) == item.merkle_root
    require(good, Reason.MERKLE, "block table")
    _put_item(turn, index, replace(item, leaves=data.leaves))
    turn.set(attempts=0, retry_at_s=0.0)


def _on_block(turn: _Turn, data: messages.BlockData) -> None:
    s = turn.s
    index = _current(s) if s.phase is Phase.DOWNLOAD else None
    if index is None or s.items[index].digest[:8] != data.digest8:
        return
    item = s.items[index]
    if item.leaves is None or data.index >= item.blocks or item.have >> data.index & 1:
        return  # repeated
    require(merkle.leaf(data.block) == item.leaves[data.index], Reason.MERKLE, f"block {data.index}")
    turn.do(Keep(item.digest, data.index, data.block))
    _put_item(turn, index, replace(item, have=item.have | 1 << data.index))
    turn.set(
        outstanding=s.outstanding - {data.index},
        attempts=0,
        retry_at_s=s.uptime_s + limits.REQUEST_TIMEOUT_S,
        rate_bytes=s.rate_bytes + len(data.block),
    )


def _on_ack(turn: _Turn, event: AckReceived) -> None:
    ack = messages.Ack.verify(event.data, turn.config.director_keys, turn.config.device)
    s = turn.s
    if ack.counter >= s.report_counter and ack.nonce != s.report_nonce:
        acknowledged = ack.counter == s.report_counter and s.report_in_flight != b""
        turn.set(
            report_nonce=ack.nonce,
            report_counter=ack.counter + 1,
            outbox=s.outbox[1:] if acknowledged else s.outbox,
            report_in_flight=b"",
            report_attempts=0,
            report_at_s=0.0,
        )
    elif ack.counter == s.report_counter - 1 and ack.nonce != s.report_nonce:
        # The server knows another nonce than this agent (state lost on one side): take it and sign anew.
        turn.set(report_nonce=ack.nonce, report_in_flight=b"", report_at_s=0.0)


def _on_mcu(turn: _Turn, event: FromMcu) -> None:
    message = frames.from_mcu(event.frame)
    s = turn.s
    turn.set(mcu_attempts=0)
    if isinstance(message, frames.Status):
        turn.set(status=message, status_at_s=s.uptime_s)
        _on_status(turn, message)
    elif isinstance(message, frames.Progress):
        _on_progress(turn, message)
    else:
        _on_answer(turn, message)


def _on_status(turn: _Turn, status: frames.Status) -> None:
    s = turn.s
    ours = s.manifest != b"" and status.manifest8 == _manifest8(s)
    if s.phase is Phase.IDLE:
        _watch(turn, status)
    elif s.phase in (Phase.TRANSFER, Phase.STAGED):
        if status.installed8 == _manifest8(s) or status.phase is frames.McuPhase.TEST:
            _enter(turn, Phase.PROBATION)
            _judge(turn, status)
        elif ours:
            # The MCU's own account is the truth about what it has kept.
            turn.set(mcu_offset=status.next_offset, sent_until=status.next_offset, manifest_accepted=True)
            if status.phase is frames.McuPhase.STAGED and s.phase is Phase.TRANSFER:
                _report(turn, ReportState.STAGED, Reason.OK, "")
                _enter(turn, Phase.STAGED)
            elif status.phase is frames.McuPhase.RECEIVING and s.phase is Phase.STAGED:
                _enter(turn, Phase.TRANSFER)
            elif status.phase is frames.McuPhase.RECEIVING and all(
                status.next_offset[i.image_id] >= i.container_length for i in s.items
            ):
                # Only unchanged blocks are left, which need no bytes: an empty piece makes the MCU go on.
                _refused(turn, Reason.TIMEOUT)
                for item in turn.s.items:
                    turn.do(SendPieces(item.image_id, item.digest, item.container_length, 0, not item.delta))
        else:
            # reset or cancelled on its side: offer the manifest again
            turn.set(manifest_accepted=False, sent_until=(0, 0), mcu_offset=(0, 0))
            if s.phase is Phase.STAGED:
                _enter(turn, Phase.TRANSFER)
    elif s.phase in (Phase.ACTIVATING, Phase.PROBATION):
        _judge(turn, status)


def _judge(turn: _Turn, status: frames.Status) -> None:
    """Success is: confirmed, and running by digest what the manifest names. Never by version."""
    s = turn.s
    wanted = manifest.verify(s.manifest, turn.config.director_keys)
    running = {0: status.firmware_digest, 1: status.parameter_digest}
    fits = all(running[c.image_id] == c.digest for c in wanted.components)
    if status.phase is frames.McuPhase.TEST:
        _enter(turn, Phase.PROBATION)
    elif status.installed8 == _manifest8(s) and fits:
        _finish(turn, ReportState.SUCCESS, Reason.OK, "")
    elif status.phase is frames.McuPhase.STAGED and status.manifest8 == _manifest8(s):
        _enter(turn, Phase.STAGED)  # the order was lost
    elif status.phase is frames.McuPhase.IDLE:
        cause = status.reason if status.reason is not Reason.OK else Reason.ROLLED_BACK
        _finish(turn, ReportState.FAILED, Reason.ROLLED_BACK, cause.name)


def _watch(turn: _Turn, status: frames.Status) -> None:
    """After a success the device may still go back by itself; the server must hear of it (I5)."""
    s = turn.s
    if s.outcome is ReportState.SUCCESS and s.outcome_digests[0]:
        now = (status.firmware_digest, status.parameter_digest)
        if now != s.outcome_digests and status.phase is frames.McuPhase.IDLE:
            turn.set(outcome=ReportState.FAILED, outcome_digests=now)
            _report(turn, ReportState.FAILED, Reason.ROLLED_BACK, status.reason.name)


def _on_progress(turn: _Turn, row: frames.Progress) -> None:
    s = turn.s
    if s.phase is not Phase.TRANSFER:
        return
    offsets, sent = list(s.mcu_offset), list(s.sent_until)
    if row.reason is not Reason.OK:
        turn.do(Note(row.reason, f"MCU, image {row.image_id}"))
        item = next((i for i in s.items if i.image_id == row.image_id), None)
        if item is not None and item.delta and 400 <= row.reason < 500:
            _fall_back(turn, item, row.reason)
            return
        if _refused(turn, row.reason):
            return
        sent[row.image_id] = row.next_offset  # again from the last verified block, not from zero
    elif row.next_offset < offsets[row.image_id]:
        sent[row.image_id] = row.next_offset
    elif row.next_offset > offsets[row.image_id]:
        turn.set(mcu_refusals=0)
    offsets[row.image_id] = row.next_offset
    sent[row.image_id] = max(sent[row.image_id], row.next_offset)
    turn.set(
        mcu_offset=(offsets[0], offsets[1]),
        sent_until=(sent[0], sent[1]),
        mcu_retry_at_s=s.uptime_s + limits.MCU_TIMEOUT_S,
    )
    if all(turn.s.mcu_offset[i.image_id] >= i.container_length for i in s.items):
        turn.set(mcu_retry_at_s=0.0)


def _refused(turn: _Turn, reason: Reason) -> bool:
    """Count a round without progress; True if it was the last one permitted."""
    turn.set(mcu_refusals=turn.s.mcu_refusals + 1)
    if turn.s.mcu_refusals <= limits.MCU_RETRIES_MAX:
        return False
    _cancel_mcu(turn)
    _finish(turn, ReportState.FAILED, reason, "MCU makes no progress")
    return True


def _fall_back(turn: _Turn, item: Item, reason: Reason) -> None:
    """One delta try, then the full image."""
    s = turn.s
    wanted = manifest.verify(s.manifest, turn.config.director_keys)
    c = wanted.component(item.image_id)
    assert c is not None
    full = Item(item.image_id, c.digest, c.length, c.merkle_root, delta=False)
    turn.do(Forget(item.digest))
    turn.do(SendMcu(frames.pack(frames.CANCEL, _manifest8(s))))
    turn.set(
        items=tuple(full if i.image_id == item.image_id else i for i in s.items),
        delta_tries=s.delta_tries + 1,
    )
    turn.do(Note(reason, "delta given up, fetching the full image"))
    _enter(turn, Phase.DOWNLOAD)


def _on_answer(turn: _Turn, row: frames.Answer) -> None:
    s = turn.s
    if row.to == frames.MANIFEST and s.phase is Phase.TRANSFER:
        if row.reason is Reason.OK:
            turn.set(manifest_accepted=True)
        else:
            _finish(turn, ReportState.REFUSED, row.reason, "by the MCU, manifest")
    elif row.to == frames.ACTIVATE and s.phase is Phase.ACTIVATING:
        if row.reason is Reason.OK:
            _report(turn, ReportState.ACTIVATED, Reason.OK, "")
            _enter(turn, Phase.PROBATION)
        elif row.reason.is_deferral:
            _enter(turn, Phase.STAGED)
            turn.set(status_at_s=-1e9)
            _defer(turn, row.reason)
        else:
            _finish(turn, ReportState.REFUSED, row.reason, "by the MCU, set")
    elif row.to == frames.DATA and s.phase is Phase.TRANSFER and row.reason is not Reason.OK:
        turn.do(Note(row.reason, "MCU, data"))
        turn.set(manifest_accepted=False)


def _on_tick(turn: _Turn, event: Any) -> None:
    pass  # what is due is done by _proceed after every event


_HANDLERS: dict[type, Callable[[_Turn, Any], None]] = {
    Connected: _on_connected,
    Disconnected: _on_disconnected,
    Restarted: _on_restarted,
    DesiredReceived: _on_desired,
    DataReceived: _on_data,
    AckReceived: _on_ack,
    FromMcu: _on_mcu,
    Tick: _on_tick,
}


# ---- what is due ------------------------------------------------------------------------------------------


def _enter(turn: _Turn, phase: Phase) -> None:
    now = turn.s.uptime_s
    turn.set(
        phase=phase,
        phase_since_s=now,
        rate_since_s=now,
        rate_bytes=0,
        attempts=0,
        retry_at_s=0.0,
        mcu_attempts=0,
        mcu_retry_at_s=0.0,
        mcu_refusals=0,
        outstanding=frozenset(),
    )
    if phase is Phase.TRANSFER:
        turn.set(manifest_accepted=False, sent_until=(0, 0), mcu_offset=(0, 0))


def _manifest8(s: State) -> bytes:
    return hashlib.sha256(s.manifest).digest()[:8]


def _finish(turn: _Turn, state: ReportState, reason: Reason, detail: str) -> None:
    s = turn.s
    if reason is not Reason.OK:
        turn.do(Note(reason, detail))
    for item in s.items:
        turn.do(Forget(item.digest))
    digests = (s.status.firmware_digest, s.status.parameter_digest) if s.status else (b"", b"")
    turn.set(outcome=state, outcome_digests=digests, items=(), deferred=Reason.OK, nonce=b"")
    _report(turn, state, reason, detail)
    _enter(turn, Phase.IDLE)
    if s.pending_desired:
        data = s.pending_desired
        turn.set(pending_desired=b"")
        wanted = Desired.verify(data, turn.config.director_keys, turn.config.device)
        if wanted.counter > turn.s.desired_counter:
            _take_desired(turn, wanted)


def _defer(turn: _Turn, reason: Reason) -> None:
    if turn.s.deferred is not reason:
        turn.set(deferred=reason)
        turn.do(Note(reason, ""))
        _report(turn, ReportState.DEFERRED, reason, "")


def _proceed(turn: _Turn) -> None:
    """Do what the phase needs and its timers allow."""
    _DUE[turn.s.phase](turn)


def _hello(turn: _Turn, every_s: float = limits.MCU_TIMEOUT_S) -> None:
    """Ask the MCU for its state, paced."""
    if turn.s.uptime_s >= turn.s.mcu_retry_at_s:
        turn.do(SendMcu(frames.pack(frames.HELLO)))
        turn.set(mcu_retry_at_s=turn.s.uptime_s + every_s, mcu_attempts=turn.s.mcu_attempts + 1)


def _due_idle(turn: _Turn) -> None:
    if turn.s.status is None:
        _hello(turn, limits.BACKOFF_MAX_S if turn.s.mcu_attempts > 3 else limits.MCU_TIMEOUT_S)


def _ask(turn: _Turn, request: messages.Request) -> bool:
    """Publish a request if connected and its timer allows; gives up after the permitted attempts."""
    s = turn.s
    if not s.connected or s.uptime_s < s.retry_at_s:
        return False
    if s.attempts > limits.REQUEST_RETRIES_MAX:
        _finish(turn, ReportState.FAILED, Reason.RETRIES_EXHAUSTED, f"in phase {s.phase.name}")
        return False
    pause = limits.REQUEST_TIMEOUT_S
    if s.attempts:
        pause += turn.pause_s(s.attempts - 1, limits.BACKOFF_FIRST_S, limits.BACKOFF_MAX_S)
    turn.set(retry_at_s=s.uptime_s + pause, attempts=s.attempts + 1)
    turn.do(Publish(REQUEST, messages.pack_request(request)))
    return True


def _due_metadata(turn: _Turn) -> None:
    if turn.s.status is None:
        _hello(turn)
        if turn.s.mcu_attempts > limits.MCU_RETRIES_MAX:
            _finish(turn, ReportState.FAILED, Reason.TIMEOUT, "MCU does not answer")
        return
    s = turn.s
    if not s.connected or s.uptime_s < s.retry_at_s:
        return
    nonce = turn.random(b"nonce")[:16]
    turn.set(nonce=nonce)
    image_root, director_root = s.store.root_versions()
    _ask(turn, messages.MetadataRequest(image_root, director_root, nonce))


def _due_download(turn: _Turn) -> None:
    s = turn.s
    index = _current(s)
    if index is None:
        _report(turn, ReportState.DOWNLOADED, Reason.OK, "")
        _enter(turn, Phase.TRANSFER)
        _due_transfer(turn)
        return
    if s.uptime_s - s.phase_since_s > limits.DOWNLOAD_DEADLINE_S:
        _finish(turn, ReportState.FAILED, Reason.TIMEOUT, "download deadline")
        return
    if s.connected and s.uptime_s - s.rate_since_s > limits.RATE_WINDOW_S:
        if s.rate_bytes < limits.MINIMUM_RATE_B_PER_S * limits.RATE_WINDOW_S:
            _finish(turn, ReportState.FAILED, Reason.SLOW_RETRIEVAL, f"{s.rate_bytes} B in the last hour")
            return
        turn.set(rate_since_s=s.uptime_s, rate_bytes=0)
    item = s.items[index]
    if item.leaves is None:
        _ask(turn, messages.TableRequest(item.digest))
        return
    if s.outstanding and s.uptime_s >= s.retry_at_s:
        turn.set(outstanding=frozenset())  # lost: they are missing again
    if len(turn.s.outstanding) <= limits.WINDOW_BLOCKS // 4:
        room = limits.WINDOW_BLOCKS - len(turn.s.outstanding)
        wanted = _missing(item, turn.s.outstanding, room)
        if wanted:
            fresh = bool(turn.s.outstanding) or turn.s.attempts == 0
            if fresh:
                turn.set(retry_at_s=0.0)  # the pipeline runs: no pause
            if _ask(turn, messages.BlockRequest(item.digest, _ranges(wanted))):
                turn.set(outstanding=turn.s.outstanding | frozenset(wanted))


def _missing(item: Item, outstanding: frozenset[int], room: int) -> list[int]:
    rows: list[int] = []
    gaps = ~item.have & ((1 << item.blocks) - 1)
    while gaps and len(rows) < room:
        i = (gaps & -gaps).bit_length() - 1
        gaps &= gaps - 1
        if i not in outstanding:
            rows.append(i)
    return rows


def _ranges(indices: list[int]) -> tuple[tuple[int, int], ...]:
    rows: list[tuple[int, int]] = []
    for i in indices:
        if rows and rows[-1][0] + rows[-1][1] == i:
            rows[-1] = (rows[-1][0], rows[-1][1] + 1)
        else:
            rows.append((i, 1))
    return tuple(rows)


def _due_transfer(turn: _Turn) -> None:
    s = turn.s
    if s.mcu_attempts > limits.MCU_RETRIES_MAX:
        _cancel_mcu(turn)
        _finish(turn, ReportState.FAILED, Reason.TIMEOUT, "MCU does not answer")
        return
    if not s.manifest_accepted:
        if s.uptime_s >= s.mcu_retry_at_s:
            turn.set(mcu_retry_at_s=s.uptime_s + limits.MCU_TIMEOUT_S, mcu_attempts=s.mcu_attempts + 1)
            for frame in frames.pack_manifest(s.manifest):
                turn.do(SendMcu(frame))
        return
    if s.mcu_retry_at_s and s.uptime_s >= s.mcu_retry_at_s:
        # Silence: ask where it stands; its answer resets what counts as sent.
        _hello(turn)
        return
    for item in s.items:
        offset, sent = turn.s.mcu_offset[item.image_id], turn.s.sent_until[item.image_id]
        if offset >= item.container_length:
            continue
        room = min(offset + limits.TRANSFER_BYTES_IN_FLIGHT, item.container_length) - sent
        if room > 0 and (
            room >= limits.TRANSFER_BYTES_IN_FLIGHT // 2 or sent + room == item.container_length
        ):
            turn.do(SendPieces(item.image_id, item.digest, sent, room, not item.delta))
            until = list(turn.s.sent_until)
            until[item.image_id] = sent + room
            turn.set(sent_until=(until[0], until[1]), mcu_retry_at_s=turn.s.uptime_s + limits.MCU_TIMEOUT_S)
        return
    _hello(turn)  # all bytes are there: what does the MCU say?


def _due_staged(turn: _Turn) -> None:
    s = turn.s
    if s.status is None or s.uptime_s - s.status_at_s > limits.CONDITIONS_MAX_AGE_S:
        if s.uptime_s >= s.mcu_retry_at_s:
            if s.mcu_attempts > 2:
                _defer(turn, Reason.DEFER_CONDITIONS_UNKNOWN)
            _hello(turn)
        return
    if s.not_before_s and s.clock.now(s.host_s) < s.not_before_s:
        _defer(turn, Reason.DEFER_WINDOW)
        return
    demanded = manifest.verify(s.manifest, turn.config.director_keys).preconditions
    wait = frames.deferral(s.status.conditions, demanded)
    if wait is not Reason.OK:
        _defer(turn, wait)
        turn.set(mcu_retry_at_s=max(s.mcu_retry_at_s, s.status_at_s + limits.CONDITIONS_MAX_AGE_S))
        return
    turn.set(deferred=Reason.OK)
    _enter(turn, Phase.ACTIVATING)
    _due_activating(turn)


def _due_activating(turn: _Turn) -> None:
    s = turn.s
    if s.uptime_s >= s.mcu_retry_at_s:
        if s.mcu_attempts > limits.MCU_RETRIES_MAX:
            _enter(turn, Phase.PROBATION)  # it may have rebooted without a word; its status will tell
            return
        turn.set(mcu_retry_at_s=s.uptime_s + limits.MCU_TIMEOUT_S, mcu_attempts=s.mcu_attempts + 1)
        turn.do(SendMcu(frames.pack(frames.ACTIVATE, _manifest8(s))))


def _due_probation(turn: _Turn) -> None:
    s = turn.s
    if s.uptime_s - s.phase_since_s > limits.PROBATION_S:
        _finish(turn, ReportState.FAILED, Reason.TIMEOUT, "no confirmation after activation")
        return
    _hello(turn)


_DUE: dict[Phase, Callable[[_Turn], None]] = {
    Phase.IDLE: _due_idle,
    Phase.METADATA: _due_metadata,
    Phase.DOWNLOAD: _due_download,
    Phase.TRANSFER: _due_transfer,
    Phase.STAGED: _due_staged,
    Phase.ACTIVATING: _due_activating,
    Phase.PROBATION: _due_probation,
}


# ---- reports ----------------------------------------------------------------------------------------------


def _report(turn: _Turn, state: ReportState, reason: Reason, detail: str) -> None:
    """Queue a report. Of intermediate ones only the newest is kept, terminal ones are never dropped."""
    s = turn.s
    first = 1 if s.report_in_flight else 0
    kept = s.outbox[:first] + tuple(r for r in s.outbox[first:] if r[1].terminal)
    turn.set(outbox=(*kept, (s.deployment, state, reason, detail[:200])))


def _send_reports(turn: _Turn) -> None:
    s = turn.s
    if not s.outbox or not s.connected or s.uptime_s < s.report_at_s:
        return
    data = s.report_in_flight
    if not data:
        deployment, state, reason, detail = s.outbox[0]
        st = s.status
        data = Report(
            turn.config.device,
            s.report_counter,
            s.report_nonce,
            deployment,
            state,
            reason,
            st.firmware_digest if st else bytes(32),
            st.parameter_digest if st else bytes(32),
            st.security_counter if st else 0,
            st.parameter_counter if st else 0,
            s.bytes_received,
            detail,
        ).sign(turn.config.key)
        turn.set(report_in_flight=data)
    pause = turn.pause_s(s.report_attempts, limits.REPORT_RETRY_S, limits.REPORT_RETRY_MAX_S)
    turn.set(report_attempts=s.report_attempts + 1, report_at_s=s.uptime_s + pause)
    turn.do(Publish(REPORT, data))


def next_wakeup_s(state: State) -> float:
    """Seconds until a ``Tick`` can have an effect; for hosts that sleep or jump in time."""
    s = state
    due = [60.0]
    if s.outbox and s.connected:
        due.append(s.report_at_s - s.uptime_s)
    if s.connected and s.phase in (Phase.METADATA, Phase.DOWNLOAD):
        due.append(s.retry_at_s - s.uptime_s)
    if s.phase not in (Phase.IDLE, Phase.DOWNLOAD) or s.status is None:
        due.append(s.mcu_retry_at_s - s.uptime_s)
    return max(0.0, min(due))
