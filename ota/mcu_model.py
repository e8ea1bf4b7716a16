"""A model of the BMS controller as the gateway sees it: boot ROM, slots, journal, OTA agent.

Declared simplification: this is Python, not the firmware. It speaks the same frames, reads the same image,
manifest and delta formats with the same verifiers, and keeps its state only in ``flash_model`` (so power cuts
are real to it), but it has no instructions, no timing and no second core of its own; batteries are two
numbers. It exists so that the gateway, the server and the rules can be tested end to end without the
emulator; claims about the C code come from the emulator only.

Flash map (4 KiB sectors; the sizes are this model's, the structure is meant for the C side too)::

    journal   2 sectors   slot-state records, written alternately
    counters  2 sectors   monotonic counters, written alternately
    kept      1 sector    what an update must never touch (serial, SoC, fault log)
    blacklist 1 sector    8-byte digests of sets that failed, appended
    stage     1 sector    manifest being received
    per image id 0, 1: progress 1 sector, table 4 sectors (header, words, hashes of the container)
    slot 0, slot 1        firmware files      parameters 0, parameters 1

Records (journal 28 bytes)::

    "SLT1", sequence u32, slot u8, parameters u8, previous slot u8, previous parameters u8,
    state u8 (1 confirmed, 2 test), boots u8, reason u16, manifest first 8 bytes, CRC-32

    counters 24 bytes: "CTR1", sequence u32, security u32, parameters u32, manifest sequence u32, CRC-32

The newest valid record counts; one record write switches firmware and parameters together, so the set is
all-or-nothing and a roll back takes both back. A new set boots at most ``BOOT_ATTEMPTS_MAX`` times without
confirmation. Counters rise after confirmation only; a cut in between is made good at the next boot.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from . import frames, image, limits, manifest, parameters
from .delta import container
from .errors import OtaError, Reason, require
from .flash_model import Flash, PowerCutError
from .signing import PublicKey

SECTOR = limits.BLOCK_SIZE
_JOURNAL = struct.Struct("<4sIBBBBBBH8s")
_COUNTERS = struct.Struct("<4sIIII")
_CONFIRMED, _TEST = 1, 2
_DONE = b"\x00"
_TABLE_SECTORS = 4


@dataclass(frozen=True)
class McuConfig:
    """What is fixed at manufacture. ``schema_of``: parameter schema compiled into a firmware, by its image
    digest (SHA-256 TLV), None if it reads no parameters."""

    serial: str
    vendor_id: bytes
    class_id: bytes
    hardware_revision: int
    image_keys: tuple[PublicKey, ...]
    manifest_keys: tuple[PublicKey, ...]
    slot_size: int = 64 * 1024
    parameter_size: int = 8 * 1024
    schema_of: Callable[[bytes], parameters.Schema | None] = lambda digest: None

    def check(
        self,
        firmware: bytes | None,
        parameter_file: bytes | None,
        least: tuple[int, int],
        load_addresses: tuple[int, ...] = (),
    ) -> None:
        """Everything that has to hold before this pair of files may run. ``least``: security and parameter
        counter of the device."""

        def policy(bootable: bool, size: int, counter: int) -> image.Policy:
            return image.Policy(
                keys=self.image_keys,
                vendor_id=self.vendor_id,
                class_id=self.class_id,
                hardware_revision=self.hardware_revision,
                least_security_counter=counter,
                slot_size=size,
                load_addresses=load_addresses if bootable else (),
                bootable=bootable,
            )

        if firmware is None:
            raise OtaError(Reason.NOT_BOOTABLE, "no image in the slot")
        new = image.verify(firmware, policy(True, self.slot_size, least[0]))
        par = None
        if parameter_file is not None:
            par = image.verify(parameter_file, policy(False, self.parameter_size, least[1]))
        image.check_set(new, par)
        reason = Reason(self.parameter_verdict(new.sha256, par.body if par else None))
        require(reason is Reason.OK, reason, "parameter set")

    def fits(self, firmware: bytes | None, parameter_file: bytes | None, least: tuple[int, int]) -> bool:
        try:
            self.check(firmware, parameter_file, least)
        except OtaError:
            return False
        return True

    def parameter_verdict(self, image_digest: bytes, body: bytes | None) -> int:
        """What the firmware with this image digest says of the body of a set (None: there is none)."""
        schema = self.schema_of(image_digest)
        if schema is None:
            return Reason.OK
        if body is None:
            return Reason.INCOMPLETE_SET
        try:
            parameters.check(schema, body)
        except OtaError as error:
            return error.reason
        return Reason.OK


@dataclass(frozen=True)
class Journal:
    sequence: int
    slot: int
    parameters: int
    previous_slot: int
    previous_parameters: int
    state: int
    boots: int
    reason: int
    manifest8: bytes

    def pack(self) -> bytes:
        body = _JOURNAL.pack(
            b"SLT1",
            self.sequence,
            self.slot,
            self.parameters,
            self.previous_slot,
            self.previous_parameters,
            self.state,
            self.boots,
            self.reason,
            self.manifest8,
        )
        return body + struct.pack("<I", zlib.crc32(body))


@dataclass(frozen=True)
class Counters:
    sequence: int = 0
    security: int = 0
    parameters: int = 0
    manifest: int = 0


@dataclass(frozen=True)
class Boot:
    """One power-on as an outside observer sees it, for the invariant checker."""

    running: bool
    slot: int
    firmware_digest: bytes
    parameter_digest: bytes
    verified: bool
    security_counter: int
    image_counter: int
    reason: Reason


class Mcu:
    """One controller. ``receive`` takes a mailbox frame and returns the answers; ``power_on`` boots.

    ``behaviour`` maps the SHA-256 of a firmware file to what it does when run: "good" (default), "crash",
    "hang", "self_test" (fails), "no_network" (never hears the gateway), "confirm_then_crash".
    """

    PowerCut: type[Exception] = PowerCutError

    def __init__(self, config: McuConfig, seed: int = 0) -> None:
        self.config = config
        self.behaviour: dict[bytes, str] = {}
        self.conditions = 0
        self.clock_s: float | None = None  # the gateway's time, if it was told; None: expiry not judged
        self.running = False
        self.safe_mode = False
        self.boots: list[Boot] = []
        slots = config.slot_size // SECTOR
        sets = config.parameter_size // SECTOR
        at = 0

        def region(sectors: int) -> int:
            nonlocal at
            start = at
            at += sectors * SECTOR
            return start

        self.journal_copies = (region(1), region(1))
        self.counter_copies = (region(1), region(1))
        self.kept = region(1)
        self._blacklist = region(1)
        self._stage = region(1)
        self._progress = (region(1), region(1))
        self._table = (region(_TABLE_SECTORS), region(_TABLE_SECTORS))
        self.slots = (region(slots), region(slots))
        self.parameter_slots = (region(sets), region(sets))
        self.flash = Flash(at, SECTOR, seed)
        self._forget()

    # ---- manufacture --------------------------------------------------------------------------------------

    def manufacture(
        self, firmware: bytes, parameter_file: bytes = b"", kept: bytes = b"serial+state"
    ) -> None:
        """First images, confirmed; counters as the images say."""
        self._write_region(self.slots[0], firmware)
        if parameter_file:
            self._write_region(self.parameter_slots[0], parameter_file)
        self.flash.program(self.kept, kept)
        first = image.parse(firmware)
        par = image.parse(parameter_file) if parameter_file else None
        self._put(self.journal_copies, Journal(1, 0, 0, 0, 0, _CONFIRMED, 0, 0, bytes(8)).pack(), 1)
        self._put_counters(
            Counters(1, first.security_counter or 0, (par.security_counter or 0) if par else 0, 0)
        )

    def _write_region(self, at: int, data: bytes) -> None:
        for offset in range(0, len(data), SECTOR):
            self.flash.erase(at + offset)
            self.flash.program(at + offset, data[offset : offset + SECTOR])

    # ---- records ------------------------------------------------------------------------------------------

    def _put(self, copies: tuple[int, int], record: bytes, sequence: int) -> None:
        """Write a record into the copy that does not hold the newest one."""
        at = copies[sequence & 1]
        self.flash.erase(at)
        self.flash.program(at, record)

    def _get(self, copies: tuple[int, int], magic: bytes, size: int) -> bytes | None:
        best: bytes | None = None
        for at in copies:
            raw = self.flash.read(at, size + 4)
            valid = raw[:4] == magic and struct.unpack("<I", raw[size:])[0] == zlib.crc32(raw[:size])
            if valid and (best is None or _newer(raw, best)):
                best = raw
        return best

    def journal(self) -> Journal | None:
        raw = self._get(self.journal_copies, b"SLT1", _JOURNAL.size)
        if raw is None:
            return None
        return Journal(*_JOURNAL.unpack(raw[:-4])[1:])

    def counters(self) -> Counters:
        raw = self._get(self.counter_copies, b"CTR1", _COUNTERS.size)
        return Counters(*_COUNTERS.unpack(raw[:-4])[1:]) if raw else Counters()

    def _put_journal(self, row: Journal) -> None:
        self._put(self.journal_copies, row.pack(), row.sequence)

    def _put_counters(self, row: Counters) -> None:
        body = _COUNTERS.pack(b"CTR1", row.sequence, row.security, row.parameters, row.manifest)
        self._put(self.counter_copies, body + struct.pack("<I", zlib.crc32(body)), row.sequence)

    # ---- images -------------------------------------------------------------------------------------------

    def file_in(self, at: int, size: int) -> bytes | None:
        """The MCUboot-format file at ``at``, found by its own lengths; None if there is none."""
        raw = self.flash.read(at, size)
        if len(raw) < image.HEADER.size:
            return None
        magic, _, header, protected, body, *_ = image.HEADER.unpack_from(raw)
        free = header + body + protected
        if magic != image.MAGIC or free + 4 > size:
            return None
        end = free + struct.unpack_from("<H", raw, free + 2)[0]
        return raw[:end] if end <= size else None

    def firmware_file(self, slot: int) -> bytes | None:
        return self.file_in(self.slots[slot], self.config.slot_size)

    def parameter_file(self, copy: int) -> bytes | None:
        return self.file_in(self.parameter_slots[copy], self.config.parameter_size)

    def _check_set(self, firmware: bytes | None, parameter_file: bytes | None, slot: int) -> None:
        counters = self.counters()
        least = counters.security, counters.parameters
        self.config.check(firmware, parameter_file, least, (self.slots[slot],))

    # ---- boot ROM -----------------------------------------------------------------------------------------

    def power_on(self, by_image: bool = False) -> bool:
        """Boot until a firmware runs or the permitted resets are used up; True if one runs.

        A new firmware that crashes resets the controller; the ROM counts those boots in the journal.
        ``by_image``: the reset-cause register says that the image, not the supply, is the reason. Lost power
        uses up boots too (they must be bounded), but does not blacklist a set that never failed by itself.
        """
        self.running = self.safe_mode = False
        self._forget()
        crashes = 0  # of confirmed firmware in a row: the reset controller keeps this count, not the flash
        for _ in range(2 * limits.BOOT_ATTEMPTS_MAX + 2):
            self.flash.write_protected = range(0)
            row = self.journal()
            if crashes >= limits.BOOT_ATTEMPTS_MAX and row is not None:
                self._give_up_confirmed(row)
                crashes = 0
            if not self._rom(by_image):
                self.boots.append(Boot(False, 0, b"", b"", False, 0, 0, Reason.NOT_BOOTABLE))
                return False
            if self._run():
                return True
            by_image = True
            row = self.journal()
            crashes += row is not None and row.state == _CONFIRMED
        return False

    def _give_up_confirmed(self, row: Journal) -> None:
        """A confirmed firmware keeps crashing. The other slot, if it may still run; else only the OTA agent
        of this one runs (safe mode), to take a newer image: a downgrade is never possible below the counter.
        """
        other = (1 - row.slot, row.parameters)
        if self._valid(*other):
            back = Journal(
                row.sequence + 1, *other, *other, _CONFIRMED, 0, Reason.BOOT_ATTEMPTS, row.manifest8
            )
            self._put_journal(back)
        else:
            self.safe_mode = True

    def _rom(self, by_image: bool) -> bool:
        """Choose and verify; leaves the journal so that what runs is what it names."""
        row = self.journal()
        if row is None:
            # Both records lost: the newest image that verifies, deterministic.
            choice = self._any_valid()
            if choice is None:
                return False
            row = Journal(1, *choice, *choice, _CONFIRMED, 0, Reason.FLASH_READ, bytes(8))
            self._put_journal(row)
        if row.state == _TEST:
            failed = bool(row.reason) or (by_image and row.boots > 0)
            if not self._valid(row.slot, row.parameters):
                row = self._revert(row, Reason.SIGNATURE, blacklist=True)
            elif row.boots >= limits.BOOT_ATTEMPTS_MAX:
                row = self._revert(row, Reason.BOOT_ATTEMPTS, blacklist=failed)
            else:
                reason = int(Reason.SELF_TEST) if failed else 0
                row = replace(row, sequence=row.sequence + 1, boots=row.boots + 1, reason=reason)
                self._put_journal(row)
        if not self._valid(row.slot, row.parameters):
            choice = self._any_valid()
            if choice is None:
                return False
            row = Journal(row.sequence + 1, *choice, *choice, _CONFIRMED, 0, Reason.DIGEST, row.manifest8)
            self._put_journal(row)
        if row.state == _CONFIRMED:
            self._raise_counters(row)
        # What was verified is what runs: the ROM locks the running slot until the next reset.
        start = self.slots[row.slot]
        self.flash.write_protected = range(start, start + self.config.slot_size)
        return True

    def _valid(self, slot: int, copy: int) -> bool:
        try:
            self._check_set(self.firmware_file(slot), self.parameter_file(copy), slot)
        except OtaError:
            return False
        return True

    def _any_valid(self) -> tuple[int, int] | None:
        found = [(s, p) for s in (0, 1) for p in (0, 1) if self._valid(s, p)]

        def rank(choice: tuple[int, int]) -> tuple[image.Version, image.Version]:
            par = self.parameter_file(choice[1])
            none = image.Version(0, 0, 0)
            version = image.parse(par).version if par else none
            return image.parse(self.firmware_file(choice[0]) or b"").version, version

        return max(found, key=rank, default=None)

    def _revert(self, row: Journal, reason: Reason, blacklist: bool) -> Journal:
        back = Journal(
            row.sequence + 1,
            row.previous_slot,
            row.previous_parameters,
            row.previous_slot,
            row.previous_parameters,
            _CONFIRMED,
            0,
            reason,
            row.manifest8,
        )
        if blacklist:
            self._blacklist_add(row.manifest8)
        self._put_journal(back)
        return back

    def _raise_counters(self, row: Journal) -> None:
        """Counters follow the confirmed set; also closes a cut between confirmation and counter."""
        have = self.counters()
        firmware, par = self.firmware_file(row.slot), self.parameter_file(row.parameters)
        security = (image.parse(firmware).security_counter or 0) if firmware else 0
        par_counter = (image.parse(par).security_counter or 0) if par else 0
        staged = self._staged_manifest()
        sequence = have.manifest
        if staged is not None and _id8(staged[0]) == row.manifest8 and row.reason == 0:
            sequence = max(sequence, staged[1].sequence)
        want = Counters(
            have.sequence + 1,
            max(have.security, security),
            max(have.parameters, par_counter),
            sequence,
        )
        if replace(want, sequence=have.sequence) != have:
            self._put_counters(want)

    def _run(self) -> bool:
        """The firmware's start: self test, confirmation. False: it reset itself."""
        row = self.journal()
        assert row is not None
        firmware, par = self.firmware_file(row.slot), self.parameter_file(row.parameters)
        assert firmware is not None
        digest = hashlib.sha256(firmware).digest()
        counters = self.counters()
        self.boots.append(
            Boot(
                True,
                row.slot,
                digest,
                hashlib.sha256(par).digest() if par else bytes(32),
                self._valid(row.slot, row.parameters),
                counters.security,
                image.parse(firmware).security_counter or 0,
                Reason(row.reason),
            )
        )
        does = self.behaviour.get(digest, "good")
        if does in ("crash", "hang", "self_test") and not self.safe_mode:  # hang: the watchdog resets it
            return False
        if does == "confirm_then_crash" and row.state == _CONFIRMED and not self.safe_mode:
            return False
        self.running = True
        return True

    def _behaviour(self) -> str:
        return self.behaviour.get(self._digests()[0], "good")

    def _confirm_if_new(self) -> None:
        """Confirmation: self test passed and the gateway can talk to the new firmware, so that a further
        update is possible. Counters rise after it."""
        row = self.journal()
        if row is not None and row.state == _TEST:
            confirmed = replace(row, sequence=row.sequence + 1, state=_CONFIRMED, boots=0, reason=0)
            self._put_journal(confirmed)
            self._raise_counters(confirmed)

    def probation_expired(self) -> bool:
        """The firmware's own timer: not confirmed in time, so reset; counts as a failure of the image."""
        return self.power_on(by_image=True)

    # ---- OTA agent ----------------------------------------------------------------------------------------

    def _forget(self) -> None:
        """RAM after a reset."""
        self._manifest_parts = bytearray()
        self._buffer = bytearray()
        self._plans: dict[int, container.Delta | None] = {}
        self._cursor: dict[int, int] = {}
        self._receiving: int | None = None  # image id that the buffer belongs to
        self._last = Reason.OK
        self._verified: tuple[bytes, manifest.Manifest] | None = None

    def receive(self, frame: bytes) -> list[bytes]:
        """Answers to one frame. A power cut inside raises PowerCutError; garbage is dropped."""
        if not self.running or self._behaviour() == "no_network":
            return []
        try:
            kind, payload = frames.unpack(frame)
        except OtaError:
            return []
        try:
            if kind == frames.HELLO:
                self._confirm_if_new()
                return [self.status_frame()]
            if kind == frames.MANIFEST:
                return self._on_manifest(payload)
            if kind == frames.DATA:
                return self._on_data(payload)
            if kind == frames.ACTIVATE:
                return self._on_activate(payload)
            if kind == frames.CANCEL:
                return self._on_cancel(payload)
        except OtaError as error:
            self._last = error.reason
            return [frames.pack_answer(frames.Answer(kind, error.reason)), self.status_frame()]
        return []

    def _staged_manifest(self) -> tuple[bytes, manifest.Manifest] | None:
        """Manifest in the stage sector, verified again: flash is not trusted either."""
        raw = self.flash.read(self._stage, SECTOR)
        size = struct.unpack_from("<H", raw)[0]
        if not 0 < size <= limits.MANIFEST_MAX:
            return None
        data = raw[6 : 6 + size]
        if self._verified is not None and self._verified[0] == data:
            return self._verified  # the same bytes have been verified since the last reset
        if zlib.crc32(data) != struct.unpack_from("<I", raw, 2)[0]:
            return None
        try:
            self._verified = (data, manifest.verify(data, self.config.manifest_keys))
        except OtaError:
            return None
        return self._verified

    def _digests(self) -> tuple[bytes, bytes]:
        row = self.journal()
        if row is None:
            return bytes(32), bytes(32)
        firmware, par = self.firmware_file(row.slot), self.parameter_file(row.parameters)
        none = bytes(32)
        return (
            hashlib.sha256(firmware).digest() if firmware else none,
            hashlib.sha256(par).digest() if par else none,
        )

    def _blacklisted(self, manifest8: bytes) -> bool:
        listed = self.flash.read(self._blacklist, 8 * limits.BLACKLIST_MAX)
        return any(listed[i : i + 8] == manifest8 for i in range(0, len(listed), 8))

    def _still_wanted(self, row: Journal | None, manifest8: bytes) -> bool:
        """A staged set that is neither installed nor known to fail."""
        installed = row is not None and row.manifest8 == manifest8 and not row.reason
        return not installed and not self._blacklisted(manifest8)

    def status(self) -> frames.Status:
        row = self.journal()
        counters = self.counters()
        staged = self._staged_manifest()
        phase = frames.McuPhase.IDLE
        offsets = [0, 0]
        manifest8 = bytes(8)
        if row is not None and row.state == _TEST:
            phase = frames.McuPhase.TEST
        elif staged is not None and self._still_wanted(row, _id8(staged[0])):
            manifest8 = _id8(staged[0])
            phase = frames.McuPhase.STAGED
            for c in staged[1].components:
                offsets[c.image_id] = self._next_offset(c.image_id)
                if not self._complete(c.image_id):
                    phase = frames.McuPhase.RECEIVING
        firmware, par = self._digests()
        return frames.Status(
            phase,
            row.slot if row else 0,
            self._last if self._last else Reason(row.reason if row else 0),
            self.conditions,
            row.boots if row else 0,
            counters.security,
            counters.parameters,
            counters.manifest,
            (offsets[0], offsets[1]),
            manifest8,
            0,
            firmware,
            par,
            row.manifest8 if row and row.state == _CONFIRMED and not row.reason else bytes(8),
        )

    def status_frame(self) -> bytes:
        return frames.pack(frames.STATUS, self.status().pack())

    def _on_manifest(self, payload: bytes) -> list[bytes]:
        require(len(payload) > frames.MANIFEST_HEAD.size, Reason.TRUNCATED, "manifest frame")
        total, offset = frames.MANIFEST_HEAD.unpack_from(payload)
        require(total <= limits.MANIFEST_MAX, Reason.OVERSIZE, "manifest")
        if offset == 0:
            self._manifest_parts = bytearray()
        if offset != len(self._manifest_parts):
            return []  # a piece was lost; the sender starts again
        self._manifest_parts += payload[frames.MANIFEST_HEAD.size :]
        require(len(self._manifest_parts) <= total, Reason.LENGTH, "manifest")
        if len(self._manifest_parts) < total:
            return []
        data = bytes(self._manifest_parts)
        self._manifest_parts = bytearray()
        new = manifest.verify(data, self.config.manifest_keys)
        counters = self.counters()
        manifest.check_for(
            new,
            device=self.config.serial,
            vendor_id=self.config.vendor_id,
            class_id=self.config.class_id,
            hardware_revision=self.config.hardware_revision,
            last_sequence=counters.manifest,
            now_s=self.clock_s,
        )
        row = self.journal()
        require(row is not None and row.state == _CONFIRMED, Reason.BUSY, "running unconfirmed")
        require(not self._blacklisted(_id8(data)), Reason.BLACKLISTED, "set has failed here before")
        for c in sorted(new.components, key=lambda c: c.image_id):
            size = self.config.slot_size if c.image_id == 0 else self.config.parameter_size
            require(c.length <= size, Reason.SLOT_SIZE, f"{c.length} B")
            least = counters.security if c.image_id == 0 else counters.parameters
            require(c.security_counter >= least, Reason.SECURITY_COUNTER_LOW, f"image {c.image_id}")
            fits = c.security_counter <= limits.SECURITY_COUNTER_MAX
            require(fits, Reason.SECURITY_COUNTER_CAPACITY, f"image {c.image_id}")
        staged = self._staged_manifest()
        if staged is None or staged[0] != data:
            self._drop_stage()
            body = struct.pack("<HI", len(data), zlib.crc32(data)) + data
            self.flash.program(self._stage, body)
        self._last = Reason.OK
        return [frames.pack_answer(frames.Answer(frames.MANIFEST, Reason.OK)), self.status_frame()]

    def _drop_stage(self) -> None:
        self._plans.clear()
        self._cursor.clear()
        self._buffer = bytearray()
        self.flash.erase(self._stage)  # first: without a manifest the rest means nothing
        for at in self._progress:
            self.flash.erase(at)

    def _target(self, image_id: int) -> int:
        row = self.journal()
        assert row is not None
        if image_id == image.IMAGE_FIRMWARE:
            return self.slots[1 - row.slot]
        return self.parameter_slots[1 - row.parameters]

    def _base(self, image_id: int) -> bytes:
        row = self.journal()
        assert row is not None
        own = self.firmware_file(row.slot) if image_id == 0 else self.parameter_file(row.parameters)
        return own or b""

    def _plan(self, image_id: int) -> container.Delta | None:
        """Table of the container being received, once it is complete in flash and marked so."""
        if image_id not in self._plans:
            self._plans[image_id] = None
            at = self._progress[image_id]
            if self.flash.read(at + SECTOR - 1, 1) == _DONE:
                raw = self.flash.read(self._table[image_id], _TABLE_SECTORS * SECTOR)
                staged = self._staged_manifest()
                component = staged[1].component(image_id) if staged else None
                try:
                    n, target_length, _ = container.read_header(raw)
                    if component is not None and target_length == component.length:
                        plan = container.read_table(raw, n)
                        self._trust(plan, component, self._base(image_id))
                        self._plans[image_id] = plan
                except OtaError:
                    pass  # damaged, or the base is another now: the table is fetched again
        return self._plans[image_id]

    def _trust(self, plan: container.Delta, component: manifest.Component, base: bytes) -> None:
        """The table leads from this base to the signed file."""
        if plan.base_length:
            plan.check_base(base)
        require(plan.target_digest == component.digest, Reason.DIGEST, "container for another file")
        plan.check_leaves(base, component.merkle_root)

    def _next_offset(self, image_id: int) -> int:
        """Container bytes before this offset are not needed again."""
        if image_id in self._cursor:
            return self._cursor[image_id]
        plan = self._plan(image_id)
        if plan is None:
            return 0
        done = self.flash.read(self._progress[image_id], len(plan.spans))
        for i, (at, _) in enumerate(plan.spans):
            if done[i : i + 1] != _DONE:
                return at
        last, size = plan.spans[-1]
        return last + size

    def _complete(self, image_id: int) -> bool:
        plan = self._plan(image_id)
        if plan is None:
            return False
        return self.flash.read(self._progress[image_id], len(plan.spans)) == _DONE * len(plan.spans)

    def _on_data(self, payload: bytes) -> list[bytes]:
        # An empty piece is allowed: it asks to go on when only unchanged blocks are left.
        require(len(payload) >= frames.DATA_HEAD.size, Reason.TRUNCATED, "data frame")
        image_id, _, offset = frames.DATA_HEAD.unpack_from(payload)
        require(image_id <= 1, Reason.FORMAT, "image id")
        staged = self._staged_manifest()
        if staged is None:
            raise OtaError(Reason.MISSING_FIELD, "no manifest")
        component = staged[1].component(image_id)
        if component is None:
            raise OtaError(Reason.UNKNOWN_FIELD, "image not in the manifest")
        reason = Reason.OK
        if self._complete(image_id):
            pass
        elif offset == self._next_offset(image_id):
            try:
                self._take(image_id, component, payload[frames.DATA_HEAD.size :], offset)
            except OtaError as error:
                reason = self._last = error.reason
                self._buffer = bytearray()
                self._cursor.pop(image_id, None)
        return [frames.pack_progress(frames.Progress(image_id, reason, self._next_offset(image_id)))]

    def _take(self, image_id: int, component: manifest.Component, data: bytes, offset: int) -> None:
        if self._receiving != image_id:
            # One buffer: what was begun of the other image is fetched again.
            self._cursor.clear()
            self._buffer = bytearray()
            self._receiving = image_id
        self._buffer += data
        self._cursor[image_id] = offset + len(data)
        plan = self._plan(image_id)
        if plan is None:
            plan = self._take_table(image_id, component)
            if plan is None:
                return
        base = self._base(image_id)
        progress = self._progress[image_id]
        end = self._cursor[image_id]
        for i, (at, size) in enumerate(plan.spans):
            if self.flash.read(progress + i, 1) == _DONE:
                continue
            have = at - (end - len(self._buffer))
            if have < 0 or have + size > len(self._buffer):
                break
            block = plan.decode(base, i, bytes(self._buffer[have : have + size]))
            target = self._target(image_id) + i * SECTOR
            self.flash.erase(target)
            self.flash.program(target, block)
            self.flash.program(progress + i, _DONE)
            del self._buffer[: have + size]
        if self._complete(image_id):
            self._buffer = bytearray()
            self._cursor.pop(image_id, None)
            self._verify_staged(image_id, component)

    def _take_table(self, image_id: int, component: manifest.Component) -> container.Delta | None:
        """Header, words and hashes: kept in flash once they lead to the signed Merkle root."""
        if len(self._buffer) < container.HEADER.size:
            return None
        n, target_length, _ = container.read_header(bytes(self._buffer))
        require(target_length == component.length, Reason.DELTA_OUTPUT, "container for another length")
        if len(self._buffer) < container.HEADER.size + 2 * n:
            return None
        size = container.table_size(bytes(self._buffer), n)
        require(size <= _TABLE_SECTORS * SECTOR, Reason.OVERSIZE, "block table")
        if len(self._buffer) < size:
            return None
        plan = container.read_table(bytes(self._buffer[:size]), n)
        self._trust(plan, component, self._base(image_id))  # before anything is erased
        table = self._table[image_id]
        for i in range(0, size, SECTOR):
            self.flash.erase(table + i)
        self.flash.program(table, bytes(self._buffer[:size]))
        self.flash.program(self._progress[image_id] + SECTOR - 1, _DONE)
        self._plans[image_id] = plan
        del self._buffer[:size]
        return plan

    def _verify_staged(self, image_id: int, component: manifest.Component) -> None:
        """Digest of the whole file as it stands in flash; the set is judged at activation."""
        raw = self.flash.read(self._target(image_id), component.length)
        if hashlib.sha256(raw).digest() != component.digest:
            self._restart(image_id)
            raise OtaError(Reason.DIGEST, "staged file")

    def _restart(self, image_id: int) -> None:
        self.flash.erase(self._progress[image_id])
        self._plans.pop(image_id, None)
        self._cursor.pop(image_id, None)

    def _on_activate(self, payload: bytes) -> list[bytes]:
        staged = self._staged_manifest()
        if staged is None or payload != _id8(staged[0]):
            raise OtaError(Reason.UNKNOWN_DEPLOYMENT, "activate for another manifest")
        data, new = staged
        row = self.journal()
        assert row is not None
        if row.manifest8 == _id8(data) and not row.reason:
            return [frames.pack_answer(frames.Answer(frames.ACTIVATE, Reason.OK)), self.status_frame()]
        for c in new.components:
            require(self._complete(c.image_id), Reason.INCOMPLETE_SET, f"image {c.image_id}")
        wait = frames.deferral(self.conditions, new.preconditions)
        require(wait is Reason.OK, wait)
        slot = 1 - row.slot if new.component(0) else row.slot
        copy = 1 - row.parameters if new.component(1) else row.parameters
        for c in sorted(new.components, key=lambda c: c.image_id):
            self._verify_staged(c.image_id, c)
        try:
            self._check_set(self.firmware_file(slot), self.parameter_file(copy), slot)
        except OtaError:
            # Signed, intact and still not fit: it will never be. Dropped, the old set stays.
            self._drop_stage()
            raise
        self._put_journal(
            Journal(row.sequence + 1, slot, copy, row.slot, row.parameters, _TEST, 0, 0, _id8(data))
        )
        answer = frames.pack_answer(frames.Answer(frames.ACTIVATE, Reason.OK))
        self.power_on()
        return [answer, self.status_frame()] if self.running else [answer]

    def _on_cancel(self, payload: bytes) -> list[bytes]:
        row = self.journal()
        assert row is not None
        require(row.state == _CONFIRMED, Reason.TOO_LATE_TO_CANCEL)
        staged = self._staged_manifest()
        if staged is not None and payload in (bytes(8), _id8(staged[0])):
            require(row.manifest8 != _id8(staged[0]) or bool(row.reason), Reason.TOO_LATE_TO_CANCEL)
            self._drop_stage()
        return [frames.pack_answer(frames.Answer(frames.CANCEL, Reason.OK)), self.status_frame()]

    def _blacklist_add(self, manifest8: bytes) -> None:
        listed = self.flash.read(self._blacklist, 8 * limits.BLACKLIST_MAX)
        rows = [listed[i : i + 8] for i in range(0, len(listed), 8)]
        if manifest8 in rows:
            return
        for i, known in enumerate(rows):
            if known == b"\xff" * 8:
                self.flash.program(self._blacklist + 8 * i, manifest8)
                return
        self.flash.erase(self._blacklist)
        self.flash.program(self._blacklist, manifest8)

    def snapshot(self) -> bytes:
        """Everything that survives a loss of power."""
        return bytes(self.flash.data)

    def restore(self, state: bytes) -> None:
        """Back to a snapshot; the controller is off."""
        self.flash.arm(None)
        self.flash.data[:] = state
        self.running = False

    def state_digest(self) -> str:
        """Fingerprint of what must be equal at the end of interrupted and uninterrupted runs."""
        row = self.journal()
        assert row is not None
        firmware, par = self._digests()
        counters = self.counters()
        parts: Mapping[str, object] = {
            "firmware": firmware.hex(),
            "parameters": par.hex(),
            "state": row.state,
            "counters": (counters.security, counters.parameters, counters.manifest),
            "kept": self.flash.read(self.kept, 64).hex(),
        }
        return repr(parts)


class Controller(Protocol):
    """What tests and campaigns need of a controller: this model, or the firmware's C code on the host."""

    PowerCut: type[Exception]
    behaviour: dict[bytes, str]
    conditions: int
    clock_s: float | None
    running: bool
    safe_mode: bool
    boots: list[Any]
    kept: int
    slots: tuple[int, int]
    parameter_slots: tuple[int, int]
    journal_copies: tuple[int, int]

    @property
    def flash(self) -> Any: ...  # ``flash_model.Flash``, or with the same attributes
    def manufacture(self, firmware: bytes, parameter_file: bytes = b"", kept: bytes = b"") -> None: ...
    def power_on(self, by_image: bool = False) -> bool: ...
    def probation_expired(self) -> bool: ...
    def receive(self, frame: bytes) -> list[bytes]: ...
    def status_frame(self) -> bytes: ...
    def journal(self) -> Any: ...
    def counters(self) -> Any: ...
    def snapshot(self) -> Any: ...
    def restore(self, state: Any) -> None: ...
    def firmware_file(self, slot: int) -> bytes | None: ...
    def parameter_file(self, copy: int) -> bytes | None: ...
    def state_digest(self) -> str: ...


def _newer(a: bytes, b: bytes) -> bool:
    """Serial-number comparison of record sequences: survives a wrap of the 32-bit counter."""
    x, y = struct.unpack_from("<I", a, 4)[0], struct.unpack_from("<I", b, 4)[0]
    return bool(0 < (x - y) % 2**32 < 2**31)


def _id8(manifest_bytes: bytes) -> bytes:
    return hashlib.sha256(manifest_bytes).digest()[:8]


__all__ = ["Boot", "Controller", "Counters", "Journal", "Mcu", "McuConfig", "PowerCutError"]
