"""Attacks on the controller: B5, B7–B9, B11–B13, B15, C1, C4, D2–D5, each on the model and on the C code."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from bms_emulator.host_mcu import HostMcu
from ota import faults, frames, image, limits, manifest, merkle
from ota.delta import container
from ota.errors import Reason
from ota.manifest import Component, Manifest
from ota.mcu_model import Controller, Mcu
from ota.testbed import EPOCH_S, SCHEMA, Testbed, firmware_body

OLD, NEW = firmware_body(9000), firmware_body(9000, edits=4)


class Bench:
    """One controller and what it takes to send it sets."""

    def __init__(
        self, folder: Path, controller: Callable[..., Controller], with_parameters: bool = False
    ) -> None:
        self.bed = Testbed(folder, slot_size=256 * 1024, controller=controller)
        schema = (1, 1) if with_parameters else None
        self.schema = schema
        self.old = self.bed.firmware("1.0.0", OLD, schema=schema)
        self.new = self.bed.firmware("1.1.0", NEW, security_counter=2, schema=schema)
        self.old_set = self.bed.parameter_set("1.0.0", 5) if with_parameters else b""
        self.mcu = self.bed.new_mcu(
            "dev", self.old, self.old_set, (lambda d: SCHEMA) if with_parameters else None
        )
        self.sequence = 1

    def signed(self, *files: bytes, preconditions: int = 0, **changes: object) -> bytes:
        self.sequence += 1
        parts = []
        for data in files:
            parsed = image.parse(data)
            parts.append(
                Component(
                    0 if parsed.bootable else 1,
                    hashlib.sha256(data).digest(),
                    len(data),
                    parsed.version,
                    parsed.security_counter or 0,
                    merkle.file_root(data),
                    parsed.parameter_schema,
                )
            )
        row = {
            "sequence": self.sequence,
            "vendor_id": self.bed.vendor_id,
            "class_id": self.bed.class_id,
            "hardware_revisions": (),
            "device": "ecu-dev",
            "deployment": bytes(16),
            "expires_s": int(EPOCH_S) + 86_400,
            "preconditions": preconditions,
            "components": tuple(parts),
            **changes,
        }
        return Manifest(**row).sign(self.bed.keys["online"])  # type: ignore[arg-type]

    def offer(self, data: bytes) -> Reason:
        """Answer to a manifest."""
        rows = [m for f in frames.pack_manifest(data) for m in faults.talk(self.mcu, f)]
        return next(m.reason for m in rows if isinstance(m, frames.Answer))

    def install(self, signed: bytes, *files: bytes) -> bool:
        containers = {0 if image.parse(f).bootable else 1: container.wrap_full(f) for f in files}
        return faults.drive(self.mcu, signed, containers)

    def status(self) -> frames.Status:
        row = frames.from_mcu(self.mcu.status_frame())
        assert isinstance(row, frames.Status)
        return row


@pytest.fixture(params=[Mcu, HostMcu], ids=["model", "c"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(tmp_path / "w", request.param)


def stage(bench: Bench, signed: bytes, *files: bytes) -> None:
    assert bench.offer(signed) is Reason.OK
    for data in files:
        image_id = 0 if image.parse(data).bootable else 1
        faults._feed(bench.mcu, image_id, container.wrap_full(data), 0)


def activate(bench: Bench, signed: bytes) -> Reason:
    ident = hashlib.sha256(signed).digest()[:8]
    rows = faults.talk(bench.mcu, frames.pack(frames.ACTIVATE, ident))
    return next(m.reason for m in rows if isinstance(m, frames.Answer))


def slot_unchanged(mcu: Controller, before: bytes) -> None:
    assert bytes(mcu.flash.data) == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class_id": bytes(16)}, Reason.HARDWARE),
        ({"vendor_id": bytes(16)}, Reason.VENDOR),
        ({"hardware_revisions": (2, 3)}, Reason.HARDWARE_REVISION),
        ({"device": "ecu-other"}, Reason.WRONG_DEVICE),
    ],
)
def test_b7_refused_before_flash_is_touched(bench: Bench, changes: dict[str, object], reason: Reason) -> None:
    before = bytes(bench.mcu.flash.data)
    assert bench.offer(bench.signed(bench.new, **changes)) is reason
    slot_unchanged(bench.mcu, before)


def test_a12_manifest_by_another_key_or_changed(bench: Bench) -> None:
    before = bytes(bench.mcu.flash.data)
    good = bench.signed(bench.new)
    rng = random.Random(2)
    for _ in range(150):
        at = rng.randrange(len(good))
        bad = good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1 :]
        assert bench.offer(bad) is not Reason.OK
    slot_unchanged(bench.mcu, before)


def test_a16_expiry_is_judged_when_offered_not_at_boot(bench: Bench) -> None:
    signed = bench.signed(bench.new)
    stage(bench, signed, bench.new)
    bench.mcu.clock_s = EPOCH_S + 10 * 86_400
    assert activate(bench, signed) is Reason.OK
    faults.talk(bench.mcu, frames.pack(frames.HELLO))
    assert bench.mcu.power_on()
    assert bench.status().firmware_digest == hashlib.sha256(bench.new).digest()
    assert bench.offer(bench.signed(bench.old)) is Reason.EXPIRED


def test_b8_lower_counter_is_refused_before_flash_is_touched(bench: Bench) -> None:
    assert bench.install(bench.signed(bench.new), bench.new)
    before = bytes(bench.mcu.flash.data)
    assert bench.offer(bench.signed(bench.old)) is Reason.SECURITY_COUNTER_LOW
    assert bench.offer(bench.signed(bench.new, sequence=1)) is Reason.ROLLBACK
    slot_unchanged(bench.mcu, before)


def test_b7_linked_for_another_address(bench: Bench) -> None:
    """Position dependent, for an address that this slot does not appear at: refused before the switch."""
    fixed = image.build(
        NEW,
        version=image.Version(1, 1, 0),
        key=bench.bed.keys["image"],
        security_counter=2,
        vendor_id=bench.bed.vendor_id,
        class_id=bench.bed.class_id,
        flags=image.FLAG_ROM_FIXED,
        load_address=0x2000_0000,
    )
    signed = bench.signed(fixed)
    stage(bench, signed, fixed)
    assert activate(bench, signed) is Reason.LOAD_ADDRESS
    assert bench.status().phase is frames.McuPhase.IDLE
    assert bench.mcu.power_on()
    assert bench.status().firmware_digest == hashlib.sha256(bench.old).digest()


def test_b8_counter_missing_or_beyond_the_store(bench: Bench) -> None:
    """The manifest may say anything its signer likes: the image's own counter is judged as well."""
    before = bytes(bench.mcu.flash.data)
    parsed = image.parse(bench.new)
    part = Component(
        0,
        hashlib.sha256(bench.new).digest(),
        len(bench.new),
        parsed.version,
        2**16,
        merkle.file_root(bench.new),
    )
    assert bench.offer(bench.signed(bench.new, components=(part,))) is Reason.SECURITY_COUNTER_CAPACITY
    slot_unchanged(bench.mcu, before)
    bare = image.build(
        NEW,
        version=image.Version(1, 1, 0),
        key=bench.bed.keys["image"],
        vendor_id=bench.bed.vendor_id,
        class_id=bench.bed.class_id,
    )
    part = Component(0, hashlib.sha256(bare).digest(), len(bare), parsed.version, 2, merkle.file_root(bare))
    signed = bench.signed(bare, components=(part,))
    stage(bench, signed, bare)
    assert activate(bench, signed) is Reason.SECURITY_COUNTER_MISSING
    assert bench.mcu.power_on()
    assert bench.status().firmware_digest == hashlib.sha256(bench.old).digest()


def test_b5_flip_in_the_staged_slot(bench: Bench) -> None:
    """Anywhere in the staged file, after it was complete: activation refuses, the old one runs."""
    rng = random.Random(4)
    signed = bench.signed(bench.new)
    for _ in range(25):
        stage(bench, signed, bench.new)
        at = bench.mcu.slots[1] + rng.randrange(len(bench.new))
        bench.mcu.flash.data[at] ^= 1 << rng.randrange(8)
        assert activate(bench, signed) in (Reason.DIGEST, Reason.INCOMPLETE_SET)
        assert bench.mcu.power_on()
        assert bench.status().firmware_digest == hashlib.sha256(bench.old).digest()
        faults.talk(bench.mcu, frames.pack(frames.CANCEL, bytes(8)))


def test_b5_flip_in_the_running_slot_boots_the_other(bench: Bench) -> None:
    old = bench.bed.firmware("1.0.5", NEW[:5000])  # same counter: may run again
    assert bench.install(bench.signed(old), old)
    running = bench.status().slot
    bench.mcu.flash.data[bench.mcu.slots[running] + 700] ^= 0x20
    assert bench.mcu.power_on()
    assert bench.status().slot == 1 - running
    assert bench.status().reason is Reason.DIGEST


@pytest.mark.parametrize("does", ["crash", "hang", "self_test", "no_network"])
def test_b9_bad_images_roll_back_and_are_not_tried_again(bench: Bench, does: str) -> None:
    bench.mcu.behaviour[hashlib.sha256(bench.new).digest()] = does
    signed = bench.signed(bench.new)
    assert not bench.install(signed, bench.new)
    resets = 0
    while does == "no_network" and bench.status().phase is frames.McuPhase.TEST:
        bench.mcu.probation_expired()
        resets += 1
        assert resets <= limits.BOOT_ATTEMPTS_MAX
    assert bench.mcu.running
    status = bench.status()
    assert status.firmware_digest == hashlib.sha256(bench.old).digest()
    row = bench.mcu.journal()
    assert row is not None
    assert Reason(row.reason) is Reason.BOOT_ATTEMPTS
    assert not bench.mcu.safe_mode
    assert status.security_counter == 1
    ran = [b for b in bench.mcu.boots if b.firmware_digest == hashlib.sha256(bench.new).digest()]
    assert len(ran) <= limits.BOOT_ATTEMPTS_MAX
    assert bench.offer(signed) is Reason.BLACKLISTED


def test_b11_crash_after_confirmation(bench: Bench) -> None:
    """Counter raised, old image barred: the OTA agent stays reachable and takes a newer image."""
    bench.mcu.behaviour[hashlib.sha256(bench.new).digest()] = "confirm_then_crash"
    assert bench.install(bench.signed(bench.new), bench.new)
    assert bench.mcu.power_on()
    assert bench.mcu.safe_mode
    newer = bench.bed.firmware("1.2.0", firmware_body(8000, seed=3), security_counter=2)
    assert bench.install(bench.signed(newer), newer)
    assert not bench.mcu.safe_mode
    assert bench.status().firmware_digest == hashlib.sha256(newer).digest()


def test_b11_crash_after_confirmation_same_counter_goes_back(bench: Bench) -> None:
    same = bench.bed.firmware("1.1.0", NEW, security_counter=1)
    bench.mcu.behaviour[hashlib.sha256(same).digest()] = "confirm_then_crash"
    assert bench.install(bench.signed(same), same)
    assert bench.mcu.power_on()
    assert bench.status().firmware_digest == hashlib.sha256(bench.old).digest()


@pytest.mark.parametrize("does", ["hello", "cancel"])
def test_e9_cancel_and_hello_at_every_stage(bench: Bench, does: str) -> None:
    """In the middle of the manifest, of the table, of a block, and when all is staged: honoured, and the same
    update gets through afterwards."""
    signed = bench.signed(bench.new)
    ident = hashlib.sha256(signed).digest()[:8]
    made = container.create(bench.old, bench.new)
    queue = frames.pack_manifest(signed)
    queue += [frames.pack_data(0, at, made[at : at + 97]) for at in range(0, len(made), 97)]
    frame = frames.pack(frames.CANCEL, ident) if does == "cancel" else frames.pack(frames.HELLO)
    for stop in range(0, len(queue) + 1, 3):
        for sent in queue[:stop]:
            faults.talk(bench.mcu, sent)
        rows = faults.talk(bench.mcu, frame)
        status = rows[-1]
        assert isinstance(status, frames.Status)
        if does == "cancel":
            assert rows[0] == frames.Answer(frames.CANCEL, Reason.OK)
            assert (status.phase, status.next_offset) == (frames.McuPhase.IDLE, (0, 0))
    assert faults.drive(bench.mcu, signed, {0: made})
    assert bench.status().firmware_digest == hashlib.sha256(bench.new).digest()
    late = faults.talk(bench.mcu, frames.pack(frames.CANCEL, ident))
    assert late[0] == frames.Answer(frames.CANCEL, Reason.TOO_LATE_TO_CANCEL)


@pytest.mark.parametrize("fault", [Reason.FLASH_PROGRAM, Reason.FLASH_ERASE])
def test_b12_bad_sector_in_the_target_slot(bench: Bench, fault: Reason) -> None:
    sector = bench.mcu.slots[1] // bench.mcu.flash.sector + 1
    bench.mcu.flash.bad_sectors[sector] = fault
    signed = bench.signed(bench.new)
    assert not bench.install(signed, bench.new)
    assert bench.status().reason is fault
    assert bench.mcu.power_on()
    assert bench.status().firmware_digest == hashlib.sha256(bench.old).digest()


def test_b13_running_slot_is_write_protected(bench: Bench) -> None:
    with pytest.raises(Exception, match="write-protected"):
        bench.mcu.flash.program(bench.mcu.slots[0] + 600, b"\0")


@pytest.mark.parametrize(("bit", "reason"), frames.DEFERRALS)
def test_b15_unsafe_defers_with_its_reason(bench: Bench, bit: int, reason: Reason) -> None:
    signed = bench.signed(bench.new, preconditions=frames.CONDITION_ALL)
    stage(bench, signed, bench.new)
    bench.mcu.conditions = bit
    before = bytes(bench.mcu.flash.data)
    assert activate(bench, signed) is reason
    slot_unchanged(bench.mcu, before)
    bench.mcu.conditions = 0
    assert activate(bench, signed) is Reason.OK


def test_b15_fault_and_low_supply_count_even_if_not_demanded() -> None:
    assert frames.deferral(frames.CONDITION_CHARGING, 0) is Reason.OK
    assert frames.deferral(frames.CONDITION_FAULT, 0) is Reason.DEFER_FAULT_ACTIVE
    assert frames.deferral(frames.CONDITION_SUPPLY_LOW, 0) is Reason.DEFER_SUPPLY_LOW


def test_c1_delta_for_another_base(bench: Bench) -> None:
    other = bench.bed.firmware("1.0.0", OLD[:-4] + b"\x01\x02\x03\x04")
    signed = bench.signed(bench.new)
    assert bench.offer(signed) is Reason.OK
    before = bytes(bench.mcu.flash.data)
    made = container.create(other, bench.new)
    rows = []
    for at in range(0, len(made), frames.DATA_MAX):
        rows += faults.talk(bench.mcu, frames.pack_data(0, at, made[at : at + frames.DATA_MAX]))
    assert Reason.DELTA_BASE in [m.reason for m in rows if isinstance(m, frames.Progress)]
    slot_unchanged(bench.mcu, before)
    assert bench.install(signed, bench.new)  # then the full image


def test_c4_damaged_record_is_fetched_again_alone(bench: Bench) -> None:
    signed = bench.signed(bench.new)
    bench.offer(signed)
    made = container.create(bench.old, bench.new)
    parsed = container.read(made)
    at, size = parsed.spans[1]
    bad = bytearray(made)
    bad[at + size // 2] ^= 0x55
    rows = []
    for offset in range(0, len(bad), frames.DATA_MAX):
        rows += faults.talk(
            bench.mcu, frames.pack_data(0, offset, bytes(bad[offset : offset + frames.DATA_MAX]))
        )
    reasons = {m.reason for m in rows if isinstance(m, frames.Progress)}
    assert reasons & {Reason.MERKLE, Reason.DELTA_CORRUPT, Reason.DELTA_OUTPUT}
    assert bench.status().next_offset[0] == at  # block 0 is kept
    assert faults.drive(bench.mcu, signed, {0: made})


def test_a7_container_and_manifest_longer_than_allowed(bench: Bench) -> None:
    huge = bench.bed.firmware("2.0.0", bytes(257 * 1024), security_counter=2)
    assert bench.offer(bench.signed(huge)) is Reason.SLOT_SIZE
    frame = frames.pack(frames.MANIFEST, frames.MANIFEST_HEAD.pack(60_000, 0) + b"x")
    assert faults.talk(bench.mcu, frame)[0] == frames.Answer(frames.MANIFEST, Reason.OVERSIZE)


# ---- parameters -------------------------------------------------------------------------------------------


@pytest.fixture(params=[Mcu, HostMcu], ids=["model", "c"])
def tuned(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(tmp_path / "w", request.param, with_parameters=True)


def test_d2_bad_set_is_refused_by_the_device(tuned: Bench) -> None:
    """Signed, right counter, wrong content: a range the server did not know."""
    from ota.parameters import Schema

    wide = Schema.from_mapping(
        {
            "version": 1,
            "parameters": [{**p.__dict__, "minimum": 0, "maximum": 1e6} for p in SCHEMA.parameters],
        }
    )
    bad = tuned.bed.parameter_set("1.1.0", 6, wide, temperature_max=400.0)
    signed = tuned.signed(bad)
    stage(tuned, signed, bad)
    assert activate(tuned, signed) is Reason.PARAMETER_RANGE
    assert tuned.mcu.power_on()
    assert tuned.status().parameter_digest == hashlib.sha256(tuned.old_set).digest()


def test_d4_replayed_set(tuned: Bench) -> None:
    newer = tuned.bed.parameter_set("1.1.0", 6)
    assert tuned.install(tuned.signed(newer), newer)
    assert tuned.status().parameter_counter == 6
    assert tuned.offer(tuned.signed(tuned.old_set)) is Reason.SECURITY_COUNTER_LOW


def test_d3_a6_roll_back_takes_the_parameters_back_too(tuned: Bench) -> None:
    newer = tuned.bed.parameter_set("1.1.0", 6, temperature_max=320.0)
    tuned.mcu.behaviour[hashlib.sha256(tuned.new).digest()] = "self_test"
    assert not tuned.install(tuned.signed(tuned.new, newer), tuned.new, newer)
    status = tuned.status()
    assert status.firmware_digest == hashlib.sha256(tuned.old).digest()
    assert status.parameter_digest == hashlib.sha256(tuned.old_set).digest()
    assert status.parameter_counter == 5


def test_a2_half_a_set_is_never_activated(tuned: Bench) -> None:
    newer = tuned.bed.parameter_set("1.1.0", 6)
    signed = tuned.signed(tuned.new, newer)
    stage(tuned, signed, tuned.new)
    assert activate(tuned, signed) is Reason.INCOMPLETE_SET
    assert tuned.mcu.power_on()
    assert tuned.status().firmware_digest == hashlib.sha256(tuned.old).digest()


def test_a6_firmware_that_cannot_read_the_set(tuned: Bench) -> None:
    fussy = tuned.bed.firmware("1.2.0", NEW, security_counter=2, schema=(2, 3))
    signed = tuned.signed(fussy)
    stage(tuned, signed, fussy)
    assert activate(tuned, signed) is Reason.PARAMETER_SCHEMA


def test_d5_second_writer_is_told(tuned: Bench) -> None:
    """A service tool offers another set while the first is unconfirmed."""
    newer = tuned.bed.parameter_set("1.1.0", 6)
    signed = tuned.signed(newer)
    stage(tuned, signed, newer)
    ident = hashlib.sha256(signed).digest()[:8]
    tuned.mcu.receive(frames.pack(frames.ACTIVATE, ident))
    assert tuned.status().phase is frames.McuPhase.TEST
    other = tuned.bed.parameter_set("1.1.1", 7)
    assert tuned.offer(tuned.signed(other)) is Reason.BUSY
    faults.talk(tuned.mcu, frames.pack(frames.HELLO))
    assert tuned.status().parameter_digest == hashlib.sha256(newer).digest()


def test_garbage_frames_do_nothing(bench: Bench) -> None:
    rng = random.Random(8)
    before = bytes(bench.mcu.flash.data)
    for _ in range(2000):
        bench.mcu.receive(rng.randbytes(rng.randrange(40)))
        kind = rng.choice([1, 2, 3, 4, 5, 0x81])
        bench.mcu.receive(frames.pack(kind, rng.randbytes(rng.randrange(30))))
    slot_unchanged(bench.mcu, before)
    assert manifest.FORMAT_VERSION == 1
    assert bench.mcu.running
