"""The gateway agent: every phase against every event, random sequences, restarts, cancels, replays."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ota import device, frames, limits, messages, topics
from ota.device import Phase, State
from ota.errors import OtaError, Reason
from ota.invariants import Watch
from ota.messages import Action, Desired, ReportState
from ota.testbed import EPOCH_S, Testbed, Unit
from ota.transport.memory import Faults

from .conftest import make_bed


def watch_of(bed: Testbed) -> Watch:
    none = bytes(32)
    allowed = [(bed.releases[n].digest, none) for n in bed.releases]
    return Watch(allowed, kept=bed.units["dev-1"].mcu.flash.read(bed.units["dev-1"].mcu.kept, 64))


def judge(watch: Watch, bed: Testbed, name: str = "dev-1") -> None:
    """All invariants at the present moment."""
    unit = bed.units[name]
    status = unit.mcu.status()
    watch.boots(unit.mcu.boots)
    counters = unit.mcu.counters()
    watch.device(
        (counters.security, counters.parameters, counters.manifest), unit.mcu.flash.read(unit.mcu.kept, 64), 1
    )
    watch.trust(unit.host.state.store.versions())
    own = [d for d in bed.server.deployments.values() if d.device == name]
    watch.server(own, (status.firmware_digest, status.parameter_digest))
    watch.alive(unit.mcu.running)
    watch.check()


# ---- the good way and its phases --------------------------------------------------------------------------


def snapshots(bed: Testbed, unit: Unit) -> dict[Phase, State]:
    """One state of the agent in every phase, taken from a real update."""
    found: dict[Phase, State] = {Phase.IDLE: unit.host.state}
    original = device.step

    def spy(config: device.Config, state: State, event: device.Event, now_s: float | None) -> object:
        result = original(config, state, event, now_s)
        found.setdefault(result[0].phase, result[0])
        return result

    unit.mcu.conditions = frames.CONDITION_CHARGING
    device.step = spy  # type: ignore[assignment]
    try:
        ident = bed.order("dev-1", "1.1.0")
        bed.run(20)
        unit.mcu.conditions = 0
        assert bed.finish(ident) == "success"
    finally:
        device.step = original
    return found


def test_update_by_delta(bed: Testbed, unit: Unit) -> None:
    watch = watch_of(bed)
    found = snapshots(bed, unit)
    assert set(found) == set(Phase)
    judge(watch, bed)
    row = next(iter(bed.server.deployments.values()))
    assert row.bytes_received < 0.6 * len(bed.releases["1.1.0"].file)
    assert [h[1].value for h in row.history][-1] == "success"
    assert "deferred" in [h[1].value for h in row.history]


EVENTS: list[device.Event] = [
    device.Connected(),
    device.Disconnected(),
    device.Tick(),
    device.Restarted(),
    device.DesiredReceived(b""),
    device.DataReceived(b"\x03" + bytes(20)),
    device.AckReceived(b"\xff"),
    device.FromMcu(b""),
    device.FromMcu(frames.pack_answer(frames.Answer(frames.MANIFEST, Reason.HARDWARE))),
    device.FromMcu(frames.pack_answer(frames.Answer(frames.ACTIVATE, Reason.DEFER_CHARGING))),
    device.FromMcu(frames.pack_answer(frames.Answer(frames.ACTIVATE, Reason.OK))),
    device.FromMcu(frames.pack_progress(frames.Progress(0, Reason.DELTA_BASE, 0))),
    device.FromMcu(frames.pack_progress(frames.Progress(0, Reason.OK, 2**32 - 1))),
    device.FromMcu(frames.pack_progress(frames.Progress(1, Reason.MERKLE, 7))),
]


def test_every_event_in_every_phase_has_an_answer(bed: Testbed, unit: Unit) -> None:
    """Complete table: no combination raises, none leaves the phases, all states survive dump and load."""
    found = snapshots(bed, unit)
    statuses = [
        device.FromMcu(
            frames.pack(
                frames.STATUS,
                frames.Status(p, 0, r, 0, 0, 1, 0, 1, (0, 0), m8, 0, b"f" * 32, bytes(32), i8).pack(),
            )
        )
        for p in frames.McuPhase
        for r in (Reason.OK, Reason.BOOT_ATTEMPTS)
        for m8 in (bytes(8), hashlib.sha256(found[Phase.STAGED].manifest).digest()[:8])
        for i8 in (bytes(8), hashlib.sha256(found[Phase.STAGED].manifest).digest()[:8])
    ]
    cancel = Desired(99, "dev-1", found[Phase.STAGED].deployment, Action.CANCEL).sign(bed.keys["online"])
    other = Desired(99, "dev-1", bytes(16), Action.INSTALL).sign(bed.keys["online"])
    wishes = [device.DesiredReceived(cancel), device.DesiredReceived(other)]
    count = 0
    for phase, state in found.items():
        for event in [*EVENTS, *statuses, *wishes]:
            for now in (EPOCH_S + 1e4, EPOCH_S - 1e9, None):
                after, commands = device.step(unit.host.config, state, event, now)
                assert after.phase in Phase
                assert len(commands) < 40, (phase, event)
                again = device.load(device.dump(after))
                assert (again.phase, again.items, again.outbox) == (after.phase, after.items, after.outbox)
                count += 1
    assert count == len(Phase) * (len(EVENTS) + len(statuses) + len(wishes)) * 3


@given(st.data())
@settings(max_examples=12, deadline=None)
def test_random_event_sequences_end_well(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever happens on the way, honest messages afterwards bring the update to its end."""
    bed = make_bed(tmp_path_factory.mktemp("r"))
    unit = bed.add_unit("dev-1", bed.releases["1.0.0"].file)
    watch = watch_of(bed)
    ident = bed.order("dev-1", "1.1.0")
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(["round", "tick", "event", "reset", "restart", "down"]))
        if kind == "round":
            bed.round()
        elif kind == "tick":
            bed.run(data.draw(st.integers(1, 40)))
        elif kind == "event":
            # strangers' messages; the link's own Up and Down must not lie
            unit.host.feed(data.draw(st.sampled_from(EVENTS[2:8])), bed.now_s)
        elif kind == "reset":
            unit.mcu.power_on()
        elif kind == "restart":
            restart(unit, bed)
        else:
            bed.broker.kill(data.draw(st.booleans()))
            bed.run(3)
            bed.broker.restart()
    outcome = bed.finish(ident, 900)
    judge(watch, bed)
    assert outcome == "success", (outcome, unit.notes[-4:])


def restart(unit: Unit, bed: Testbed) -> None:
    """The gateway process dies and comes back with its stored state."""
    unit.host.state = device.load(device.dump(unit.host.state))
    unit.host.feed(device.Restarted(), bed.now_s)
    unit.host.feed(device.Connected(), bed.now_s)


@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.IDLE])
def test_e9_restart_in_every_phase(bed: Testbed, unit: Unit, phase: Phase) -> None:
    _interrupt(bed, unit, phase, lambda: restart(unit, bed))


@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.IDLE])
def test_mcu_reset_in_every_phase(bed: Testbed, unit: Unit, phase: Phase) -> None:
    _interrupt(bed, unit, phase, lambda: unit.mcu.power_on())


@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.IDLE])
def test_e10_server_restart_in_every_phase(tmp_path: Path, phase: Phase) -> None:
    bed = make_bed(tmp_path, journal=True)
    unit = bed.add_unit("dev-1", bed.releases["1.0.0"].file)
    bed.server.open_journal()
    _interrupt(bed, unit, phase, bed.restart_server)


def _interrupt(bed: Testbed, unit: Unit, phase: Phase, act: object) -> None:
    watch = watch_of(bed)
    unit.mcu.conditions = frames.CONDITION_CHARGING
    done = False
    original = unit.host.feed
    queue: list[object] = []

    def feed(event: device.Event, now_s: float | None) -> None:
        nonlocal done
        original(event, now_s)
        if unit.host.state.phase is phase and not done:
            done = True
            queue.append(act)

    # step by step: each event separately, so that every phase is really stood in
    unit.host.feed = feed  # type: ignore[method-assign]
    ident = bed.order("dev-1", "1.1.0")
    seen: set[Phase] = set()
    hold = unit.port.receive

    def stop_at_phase() -> list[bytes]:
        return [] if unit.host.state.phase is phase and not done else hold()

    unit.port.receive = stop_at_phase  # type: ignore[method-assign]
    for i in range(400):
        seen.add(unit.host.state.phase)
        bed.run(2)
        while queue:
            queue.pop()()  # type: ignore[operator]
        if i == 20:
            unit.mcu.conditions = 0
        if bed.server.deployments[ident].outcome.terminal:
            break
    assert done, (phase, seen)
    assert bed.server.deployments[ident].outcome.value == "success", unit.notes[-5:]
    judge(watch, bed)


# ---- cancel, supersede, replay ----------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 1, 20])
def test_e9_cancel_before_activation(bed: Testbed, unit: Unit, seconds: int) -> None:
    unit.mcu.conditions = frames.CONDITION_CONTACTORS
    ident = bed.order("dev-1", "1.1.0")
    bed.run(seconds)
    bed.server_host.send(bed.server.cancel("dev-1", bed.now_s))
    unit.mcu.conditions = 0
    assert bed.finish(ident) == "cancelled"
    bed.run(100)
    assert unit.mcu.status().firmware_digest == bed.releases["1.0.0"].digest
    assert unit.mcu.status().phase is frames.McuPhase.IDLE
    assert bed.finish(bed.order("dev-1", "1.1.0")) == "success"


def test_e9_cancel_after_success_is_too_late(bed: Testbed, unit: Unit) -> None:
    ident = bed.order("dev-1", "1.1.0")
    assert bed.finish(ident) == "success"
    bed.server_host.send(bed.server.cancel("dev-1", bed.now_s))
    bed.run(60)
    assert bed.server.deployments[ident].outcome.value == "success"
    assert "TOO_LATE_TO_CANCEL" in [n for n, _ in unit.notes]


def test_newer_order_supersedes(bed: Testbed, unit: Unit) -> None:
    bed.release("1.2.0", bed.firmware("1.2.0", b"\x13\0\0\0" * 2000))
    unit.mcu.conditions = frames.CONDITION_CHARGING
    first = bed.order("dev-1", "1.1.0")
    bed.run(10)
    second = bed.order("dev-1", "1.2.0")
    unit.mcu.conditions = 0
    assert bed.finish(second) == "success"
    assert bed.server.deployments[first].outcome.value == "superseded"
    assert unit.mcu.status().firmware_digest == bed.releases["1.2.0"].digest


def test_e4_stale_retained_command_after_a_device_reset(bed: Testbed, unit: Unit) -> None:
    """An old desired state comes again: refused by its counter; a forged one by its signature."""
    assert bed.finish(bed.order("dev-1", "1.1.0")) == "success"
    key = bed.keys["online"]
    for data, reason in [
        (Desired(0, "dev-1", bytes(16), Action.INSTALL).sign(key), "REPLAY"),
        (Desired(50, "dev-2", bytes(16), Action.INSTALL).sign(key), "WRONG_DEVICE"),
        (Desired(50, "dev-1", bytes(16), Action.INSTALL).sign(bed.keys["image"]), "KEY_UNKNOWN"),
    ]:
        bed.broker.publish(topics.SERVER_USER, topics.topic("dev-1", topics.DESIRED), data, True)
        bed.run(2)
        assert unit.notes[-1][0] == reason
        assert unit.host.state.phase is Phase.IDLE


def test_a14_replayed_and_forged_reports(bed: Testbed, unit: Unit) -> None:
    sent: list[bytes] = []
    original = unit.host.link.publish

    def record(topic: str, payload: bytes, **options: object) -> bool:
        if topic.endswith(topics.REPORT):
            sent.append(payload)
        return original(topic, payload, **options)  # type: ignore[arg-type]

    unit.host.link.publish = record  # type: ignore[method-assign]
    ident = bed.order("dev-1", "1.1.0")
    assert bed.finish(ident) == "success"
    bed.add_unit("dev-2", bed.releases["1.0.0"].file)
    before = bed.server.deployments[ident].history.copy()
    counter = bed.server.devices["dev-1"].report_counter
    for data in sent:
        bed.server.handle(topics.topic("dev-1", topics.REPORT), data, bed.now_s)
    bed.server.handle(topics.topic("dev-2", topics.REPORT), sent[-1], bed.now_s)
    forged = messages.Report.verify(sent[-1], [unit.host.config.key.public], "dev-1")
    evil = forged.__class__(**{**forged.__dict__, "counter": counter + 1, "state": ReportState.FAILED})
    bed.server.handle(topics.topic("dev-1", topics.REPORT), evil.sign(bed.keys["image"]), bed.now_s)
    old_nonce = evil.sign(unit.host.config.key)
    bed.server.handle(topics.topic("dev-1", topics.REPORT), old_nonce, bed.now_s)
    assert bed.server.deployments[ident].history == before
    assert bed.server.devices["dev-1"].report_counter == counter


def test_e6_claimed_success_with_other_digests(bed: Testbed, unit: Unit) -> None:
    """Success is judged by digest: a device that says it and runs something else has failed."""
    ident = bed.order("dev-1", "1.1.0")
    row = bed.server.devices["dev-1"]
    report = messages.Report(
        "dev-1",
        row.report_counter + 1,
        row.nonce,
        ident,
        ReportState.SUCCESS,
        Reason.OK,
        b"x" * 32,
        bytes(32),
        1,
        0,
        0,
    )
    bed.server.handle(topics.topic("dev-1", topics.REPORT), report.sign(unit.host.config.key), bed.now_s)
    assert bed.server.deployments[ident].outcome.value == "failed"
    assert bed.server.deployments[ident].reason is Reason.DIGEST


def test_i5_late_roll_back_changes_the_state_back(bed: Testbed, unit: Unit) -> None:
    ident = bed.order("dev-1", "1.1.0")
    assert bed.finish(ident) == "success"
    old = bed.new_mcu("dev-1", bed.releases["1.0.0"].file)  # the board was exchanged, or went back by itself
    unit.port.mcu = unit.mcu = old
    unit.port.send(frames.pack(frames.HELLO))
    bed.run(60)
    assert bed.server.deployments[ident].outcome.value == "failed"
    assert bed.server.deployments[ident].reason is Reason.ROLLED_BACK


# ---- refusals and failures --------------------------------------------------------------------------------


@pytest.mark.parametrize("does", ["crash", "no_network", "self_test"])
def test_b9_failed_update_is_reported_once_with_its_cause(bed: Testbed, unit: Unit, does: str) -> None:
    unit.mcu.behaviour[bed.releases["1.1.0"].digest] = does
    watch = watch_of(bed)
    ident = bed.order("dev-1", "1.1.0")
    resets = iter(range(limits.BOOT_ATTEMPTS_MAX + 1))

    def firmware_timer() -> bool:
        if unit.mcu.status().phase is frames.McuPhase.TEST and next(resets, None) is not None:
            unit.mcu.probation_expired()
        return bed.server.deployments[ident].outcome.terminal

    bed.run(4000, 10.0, until=firmware_timer)
    row = bed.server.deployments[ident]
    assert row.outcome.value == "failed"
    assert [h[1].value for h in row.history].count("failed") == 1
    assert row.reason in (Reason.ROLLED_BACK, Reason.TIMEOUT)
    judge(watch, bed)
    assert unit.mcu.status().firmware_digest == bed.releases["1.0.0"].digest


def test_a4_metadata_expired_is_refused_with_reason(bed: Testbed, unit: Unit) -> None:
    ident = bed.order("dev-1", "1.1.0")
    bed.now_s += 4 * 86_400
    assert bed.finish(ident) == "refused"
    assert bed.server.deployments[ident].reason is Reason.EXPIRED
    bed.repository.refresh_timestamp([bed.keys["online"]], bed.now_s)
    bed.repository.publish([bed.keys["online"]], [bed.keys["online"]], bed.now_s)
    assert bed.finish(bed.order("dev-1", "1.1.0")) == "success"


def test_a15_host_clock_jumps_during_update(bed: Testbed, unit: Unit) -> None:
    """Ten years ahead, 1970 and back again: neither bricked nor frozen; signed time heals it."""
    unit.mcu.conditions = frames.CONDITION_CHARGING
    ident = bed.order("dev-1", "1.1.0")
    bed.settle()
    true = bed.now_s
    for host in (true + 3.15e8, 0.0, true + 1, true - 100.0):
        unit.host.tick(host)
        assert unit.host.state.phase is not Phase.IDLE
    unit.mcu.conditions = 0
    bed.now_s = true
    assert bed.finish(ident) == "success"


def test_a15_clock_ten_years_ahead_from_the_start(bed: Testbed, unit: Unit) -> None:
    ident = bed.order("dev-1", "1.1.0")
    ahead = 3.15e8
    for _ in range(60):
        bed.server_host.on_link(bed.server_host.link.poll(), bed.now_s)
        unit.host.on_link(unit.host.link.poll(), bed.now_s + ahead)
        unit.host.tick(bed.now_s + ahead)
        bed.now_s += 1
    assert bed.server.deployments[ident].outcome.value == "success"


def test_c1_delta_for_another_base_falls_back_to_full_once(bed: Testbed, unit: Unit) -> None:
    """The board was exchanged between plan and transfer: same version, other bytes."""
    unit.mcu.conditions = frames.CONDITION_CHARGING
    ident = bed.order("dev-1", "1.1.0")
    wanted: list[bytes] = []
    original = unit.port.send

    def swap(frame: bytes) -> None:
        if frame[0] == frames.DATA and not wanted:
            wanted.append(frame)
            rebuilt = bed.firmware("1.0.0", b"\x01" + bytes(9000))
            unit.port.mcu = unit.mcu = bed.new_mcu("dev-1", rebuilt)
        original(frame)

    unit.port.send = swap  # type: ignore[method-assign]
    assert bed.finish(ident) == "success"
    assert unit.host.state.delta_tries == 1
    assert ("DELTA_BASE", "delta given up, fetching the full image") in unit.notes
    assert unit.mcu.status().firmware_digest == bed.releases["1.1.0"].digest


def test_a2_starved_device_is_shown_as_stalled(bed: Testbed, unit: Unit) -> None:
    unit.host.link.close()
    ident = bed.order("dev-1", "1.1.0")
    bed.now_s += limits.STALL_S + 1
    bed.server.tick(bed.now_s)
    assert bed.server.deployments[ident].outcome.value == "stalled"
    assert unit.mcu.running


def test_a3_slow_retrieval_ends_with_its_reason(tmp_path: Path) -> None:
    bed = make_bed(tmp_path, faults=Faults(seed=1))
    bed.release("2.0.0", bed.firmware("2.0.0", bytes(range(256)) * 180))
    bed.add_unit("dev-1", bed.releases["1.0.0"].file)
    ident = bed.order("dev-1", "2.0.0")
    original = bed.server.handle
    passed = 0

    def trickle(topic: str, payload: bytes, now_s: float) -> object:
        """One block per half hour."""
        nonlocal passed
        out = original(topic, payload, now_s)
        if (
            topic.endswith(topics.REQUEST)
            and messages.unpack_request(payload).__class__ is messages.BlockRequest
        ):
            passed += 1
            return out[:1] if passed % 30 == 0 else []
        return out

    bed.server.handle = trickle  # type: ignore[method-assign, assignment]
    assert bed.finish(ident, 40_000) == "failed"
    assert bed.server.deployments[ident].reason in (Reason.SLOW_RETRIEVAL, Reason.RETRIES_EXHAUSTED)


def test_i6_requests_back_off_and_do_not_flood(bed: Testbed, unit: Unit) -> None:
    """A silent server is asked at growing intervals."""
    asked: list[float] = []
    original = unit.host.link.publish

    def record(topic: str, payload: bytes, **options: object) -> bool:
        if topic.endswith(topics.REQUEST):
            asked.append(bed.now_s)
        return original(topic, payload, **options)  # type: ignore[arg-type]

    unit.host.link.publish = record  # type: ignore[method-assign]
    bed.server.handle = lambda *a: []  # type: ignore[method-assign, assignment]
    bed.order("dev-1", "1.1.0")
    bed.run(3600, 5.0)
    gaps = [b - a for a, b in itertools.pairwise(asked)]
    assert len(asked) < 30
    assert max(gaps) > 100
    assert max(gaps) <= limits.BACKOFF_MAX_S + limits.REQUEST_TIMEOUT_S + 5


def test_not_before_is_a_deferral(bed: Testbed, unit: Unit) -> None:
    ident = bed.order("dev-1", "1.1.0", not_before_s=int(EPOCH_S) + 3000)
    bed.run(600, 10)
    assert bed.server.deployments[ident].outcome.value == "deferred"
    assert bed.server.deployments[ident].reason is Reason.DEFER_WINDOW
    assert bed.finish(ident) == "success"
    assert bed.now_s >= EPOCH_S + 3000


def test_unknown_conditions_never_activate(bed: Testbed, unit: Unit) -> None:
    """The MCU falls silent after staging: no activation on stale knowledge."""
    unit.mcu.conditions = frames.CONDITION_CHARGING
    ident = bed.order("dev-1", "1.1.0")
    bed.run(5)
    unit.port.corrupt = lambda frame: None
    bed.run(300, 5)
    assert unit.host.state.phase is Phase.STAGED
    assert bed.server.deployments[ident].reason in (Reason.DEFER_CHARGING, Reason.DEFER_CONDITIONS_UNKNOWN)


def test_mailbox_that_loses_and_damages_frames(bed: Testbed, unit: Unit) -> None:
    n = 0

    def noisy(frame: bytes) -> bytes | None:
        nonlocal n
        n += 1
        if n % 5 == 0:
            return None
        if n % 7 == 0:
            return frame[:-6] + b"\x55" + frame[-5:]
        return frame

    unit.port.corrupt = noisy
    assert bed.finish(bed.order("dev-1", "1.1.0")) == "success"


def test_damaged_state_file_is_named() -> None:
    for data in (b"", b"\x00", b"\xa0", b"\xa1\x01\x07"):
        with pytest.raises(OtaError):
            device.load(data)


@pytest.mark.parametrize("seed", range(3))
def test_e1_loss_duplicates_and_reordering(tmp_path: Path, seed: int) -> None:
    """Twenty percent each: byte-identical, and no more bytes than 1 + 2 loss."""
    bed = make_bed(tmp_path, faults=Faults(seed, drop=0.2, duplicate=0.1, hold=0.2))
    bed.release("2.0.0", bed.firmware("2.0.0", bytes(range(256)) * 150))
    unit = bed.add_unit("dev-1", bed.releases["1.0.0"].file)
    ident = bed.order("dev-1", "2.0.0")
    # the order itself may be lost: the broker keeps it retained, the server repeats it when it reconnects
    bed.run(30)
    bed.server_host.send(list(bed.server_host.wants.values()))
    assert bed.finish(ident, 20_000) == "success"
    assert unit.mcu.status().firmware_digest == bed.releases["2.0.0"].digest
    served = bed.server.sent_bytes
    assert served <= (1 + 2 * 0.3) * (len(bed.releases["2.0.0"].file) + 20_000)


def test_parameters_and_firmware_as_one_set(tmp_path: Path) -> None:
    from ota.testbed import SCHEMA

    bed = Testbed(tmp_path)
    bed.release("1.0.0", bed.firmware("1.0.0", b"\x13\0\0\0" * 2500, schema=(1, 1)))
    bed.release("p1", bed.parameter_set("1.0.0", 1))
    unit = bed.add_unit(
        "dev-1", bed.releases["1.0.0"].file, bed.releases["p1"].file, schema_of=lambda digest: SCHEMA
    )
    bed.release("1.1.0", bed.firmware("1.1.0", b"\x93\0\0\0" * 2500, schema=(1, 1)), ["1.0.0"])
    bed.release("p2", bed.parameter_set("1.1.0", 2, temperature_max=320.0))
    assert bed.finish(bed.order("dev-1", "1.1.0", "p2")) == "success"
    status = unit.mcu.status()
    assert (status.firmware_digest, status.parameter_digest) == (
        bed.releases["1.1.0"].digest,
        bed.releases["p2"].digest,
    )
    bed.release("p3", bed.parameter_set("1.2.0", 3, temperature_max=310.0))
    assert bed.finish(bed.order("dev-1", "p3")) == "success"
    assert unit.mcu.status().parameter_counter == 3


def test_two_servers_on_one_journal(tmp_path: Path) -> None:
    """E10: the second one is refused."""
    bed = make_bed(tmp_path, journal=True)
    bed.server.open_journal()
    second = bed.new_server()
    with pytest.raises(OtaError) as error:
        second.open_journal()
    assert error.value.reason is Reason.BUSY
    bed.server.close()


def test_journal_cut_at_every_byte(tmp_path: Path) -> None:
    """E10: a server killed while writing continues from the last whole line."""
    bed = make_bed(tmp_path, journal=True)
    bed.add_unit("dev-1", bed.releases["1.0.0"].file)
    bed.server.open_journal()
    ident = bed.order("dev-1", "1.1.0")
    assert bed.finish(ident) == "success"
    assert bed.journal is not None
    bed.server.close()
    whole = bed.journal.read_bytes()
    for size in range(0, len(whole), 211):
        bed.journal.write_bytes(whole[:size])
        bed.restart_server()
        rows = list(bed.server.deployments.values())
        assert len(rows) <= 1
        bed.server.close()
    bed.journal.write_bytes(whole)
    bed.restart_server()
    assert bed.server.deployments[ident].outcome.value == "success"
