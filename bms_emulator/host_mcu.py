"""Boot ROM decision and update agent of the firmware, compiled for this host: many in one process.

The same C as on the emulated board (`boot/`, `update/`), over `host_mcu/hal_host.c` in place of the chip:
flash is an array in which the supply can fail before or inside every operation, sectors wear out, bits flip;
the crypto engine is that of the board (`devices.hsm`). Missing against the board: instructions, timing, the
battery application; the firmware that "runs" is the agent; how an image behaves is told by its digest.

The controller is used like the model in the update package (same methods and records, its own addresses), so
campaigns and attack tests run on both; it is configured by any object with the attributes of `Config`.

    mcu = HostMcu(config, seed=1)
    mcu.manufacture(firmware_file, parameter_file)
    mcu.power_on()                       # True: something runs
    answers = mcu.receive(frame)         # frames of the mailbox; PowerCutError if a planned cut struck
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bms_emulator.devices.hsm import KeySlot, verify
from bms_emulator.firmware.build import NATIVE, SOURCE_DIR, VARIANTS, cache_dir, compile_c, content_key
from bms_emulator.regmap import load_board

SECTOR = 4096
DONE, CUT, RESET = 0, 1, 2
ROM_RUN = 0x3D5A17C6
POWER_ON, WATCHDOG, SOFTWARE = 1, 2, 3
WHY_ACTIVATE, WHY_SELF_TEST, WHY_PROBATION = 1, 3, 4
CONFIRMED, TEST = 1, 2
BOOT_ATTEMPTS_MAX = 3
SERIAL_MAX, KEYS_MAX = 64, 4
_NEVER = 0xFFFFFFFF
_FAULT_OF_REASON = {500: 1, 501: 2, 502: 3}  # program, erase, read
_PARTS = ("update/*.c", "boot/records.c", "boot/image.c", "boot/rom.c", "host_mcu/*.c")


class PowerCutError(Exception):
    """The supply failed; RAM is lost, flash is as it is."""


class Key(Protocol):
    """A public key by its DER SubjectPublicKeyInfo."""

    @property
    def spki(self) -> bytes: ...


class Config(Protocol):
    """What is fixed at manufacture. `check` is an independent judgement of a set (raises if it may not run);
    `check_parameters` is what the firmware with this image digest says of the body of a parameter set
    (None: there is no set): a reason code."""

    @property
    def serial(self) -> str: ...
    @property
    def vendor_id(self) -> bytes: ...
    @property
    def class_id(self) -> bytes: ...
    @property
    def hardware_revision(self) -> int: ...
    @property
    def image_keys(self) -> Sequence[Key]: ...
    @property
    def manifest_keys(self) -> Sequence[Key]: ...
    def fits(self, firmware: bytes | None, parameters: bytes | None, least: tuple[int, int]) -> bool: ...
    def parameter_verdict(self, image_digest: bytes, body: bytes | None) -> int: ...


# ---- the library ------------------------------------------------------------------------------------------


class _Hardware(ctypes.Structure):
    _fields_ = (
        ("vendor", ctypes.c_uint8 * 16),
        ("class_", ctypes.c_uint8 * 16),
        ("revision", ctypes.c_uint32),
    )


class _Key(ctypes.Structure):
    _fields_ = (("algorithm", ctypes.c_uint32), ("hash", ctypes.c_uint8 * 32))


class _Identity(ctypes.Structure):
    _fields_ = (
        ("hardware", _Hardware),
        ("serial_size", ctypes.c_uint32),
        ("serial", ctypes.c_uint8 * SERIAL_MAX),
        ("n_keys", ctypes.c_uint32),
        ("key", _Key * KEYS_MAX),
    )


class _Journal(ctypes.Structure):
    _fields_ = (
        ("sequence", ctypes.c_uint32),
        ("slot", ctypes.c_uint8),
        ("parameters", ctypes.c_uint8),
        ("previous_slot", ctypes.c_uint8),
        ("previous_parameters", ctypes.c_uint8),
        ("state", ctypes.c_uint8),
        ("boots", ctypes.c_uint8),
        ("reason", ctypes.c_uint16),
        ("manifest8", ctypes.c_uint8 * 8),
    )


class _Decision(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint32) for name in ("run", "slot", "parameters", "safe_mode", "entry", "reason")
    )


_DIGEST = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
_VERIFY = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_uint64,
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.c_uint32,
)
_PARAMETERS = ctypes.CFUNCTYPE(
    ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32
)


def build_mcu(variant: str = "release") -> Path:
    """Library of boot and update code for this host; built only if no build of the same content is cached.

    Variant `asan` is made by the system's gcc with address and undefined-behaviour sanitizers; the process
    that loads it must have been started with the sanitizer's library (see `firmware/update/README.md`).
    """
    sources = [str(path.relative_to(SOURCE_DIR)) for part in _PARTS for path in sorted(SOURCE_DIR.glob(part))]
    flags: tuple[str, ...]
    if variant == "asan":
        flags = ("-std=c11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
        flags += ("-Iinclude", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")
    else:
        flags = tuple(f for f in (*NATIVE, *VARIANTS[variant]) if f != "-Wpadded")
    library = cache_dir() / f"mcu-{variant}-{content_key((*flags, *sources))}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(prefix="build-", dir=cache_dir()) as temporary:
        made = Path(temporary) / "mcu.so"
        arguments = [*flags, *sources, "-o", str(made)]
        if variant == "asan":
            subprocess.run(["gcc", *arguments], cwd=SOURCE_DIR, check=True)
        else:
            compile_c(arguments, SOURCE_DIR)
        os.replace(made, library)
    return library


class _Library:
    """The loaded build; callbacks find their controller by its handle."""

    def __init__(self, variant: str) -> None:
        self.c = ctypes.CDLL(str(build_mcu(variant)))
        self.controllers: dict[int, HostMcu] = {}
        self.c.host_decision.restype = ctypes.POINTER(_Decision)
        self.c.host_init.argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p)
        self.c.host_conditions.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64)
        self.size = self.c.host_size()
        names = ("flash", "in", "out", "erases", "length", "counter", "sector_fault", "agent_size")
        self.offset = {name: self.c.host_offset(i) for i, name in enumerate(names)}
        self._kept = (_DIGEST(self._digest), _VERIFY(self._verify), _PARAMETERS(self._parameters))
        self.c.host_callbacks(*self._kept)

    @staticmethod
    def _digest(data: int | None, size: int, out: int) -> None:
        ctypes.memmove(out, hashlib.sha256(ctypes.string_at(data or 0, size) if size else b"").digest(), 32)

    def _verify(
        self,
        handle: int,
        purpose: int,
        key_hash: int,
        algorithm: int,
        message: int,
        n: int,
        signature: int,
        m: int,
    ) -> int:
        wanted = ctypes.string_at(key_hash, 32)
        for slot in self.controllers[handle].keys:
            if slot.purpose == purpose and slot.key_hash == wanted:
                good = verify(
                    slot.spki, algorithm, ctypes.string_at(message, n), ctypes.string_at(signature, m)
                )
                return 0 if good else 6
        return 6

    def _parameters(self, handle: int, at: int, size: int, slot: int) -> int:
        mcu = self.controllers[handle]
        firmware = mcu.firmware_file(slot) or b""
        return mcu.config.parameter_verdict(
            _image_digest(firmware), mcu.flash.read(at, size) if size else None
        )


@functools.cache
def library(variant: str = "release") -> _Library:
    """The loaded library of a variant."""
    return _Library(variant)


def _image_digest(file: bytes) -> bytes:
    """SHA-256 TLV of an image that has been verified: digest of everything before the free TLVs."""
    header, protected, body = struct.unpack_from("<HHI", file, 8)
    return hashlib.sha256(file[: header + protected + body]).digest()


@functools.cache
def partitions() -> dict[str, tuple[int, int]]:
    """Offset and size of each flash partition of the board, by name."""
    return {p.name: (p.at, p.size) for p in load_board("bms").partitions}


# ---- one controller ---------------------------------------------------------------------------------------


class _SectorFaults(dict[int, int]):
    """Sector number -> reason code of what fails there: 500 program, 501 erase, 502 read."""

    def __init__(self, cells: Any) -> None:
        super().__init__()
        self._cells = cells

    def __setitem__(self, sector: int, reason: int) -> None:
        super().__setitem__(sector, reason)
        self._cells[sector] = _FAULT_OF_REASON[int(reason)]

    def clear(self) -> None:
        for sector in self:
            self._cells[sector] = 0
        super().clear()


class HostFlash:
    """The flash of one controller: `data` is the array itself, changed in place."""

    sector = SECTOR

    def __init__(self, mcu: HostMcu) -> None:
        self._mcu = mcu
        lib = mcu.lib
        size = sum(size for _, size in partitions().values())
        n = size // SECTOR
        self.data = memoryview((ctypes.c_uint8 * size).from_address(mcu.at + lib.offset["flash"])).cast("B")
        self._erases = (ctypes.c_uint32 * n).from_address(mcu.at + lib.offset["erases"])
        self._lengths = (ctypes.c_uint32 * 4096).from_address(mcu.at + lib.offset["length"])
        faults = (ctypes.c_uint8 * n).from_address(mcu.at + lib.offset["sector_fault"])
        self.bad_sectors = _SectorFaults(faults)
        self.cut: Any = None

    @property
    def erases(self) -> list[int]:
        """Erases of each sector since the beginning."""
        return list(self._erases)

    @property
    def operations(self) -> int:
        """Erase, program and counter operations since arm()."""
        return int(self._mcu.lib.c.host_operations(self._mcu.pointer))

    @property
    def lengths(self) -> list[int]:
        """Bytes of each of them."""
        return list(self._lengths[: self.operations])

    def arm(self, cut: Any) -> None:
        """Plan a cut (attributes `at`: operation from now, `inside`: bytes done of it or None), or none."""
        self.cut = cut
        at = _NEVER if cut is None else cut.at
        inside = _NEVER if cut is None or cut.inside is None else cut.inside
        self._mcu.lib.c.host_arm(self._mcu.pointer, at, inside)

    def read(self, at: int, length: int) -> bytes:
        """What stands there, without the faults of a read."""
        return bytes(self.data[at : at + length])

    def erase(self, at: int) -> None:
        """One sector, through the HAL."""
        self._check(self._mcu.lib.c.host_erase(self._mcu.pointer, at), at)

    def program(self, at: int, data: bytes) -> None:
        """Through the HAL, filled to whole words."""
        padded = data + b"\xff" * (-len(data) % 4)
        self._check(self._mcu.lib.c.host_program(self._mcu.pointer, at, padded, len(padded)), at)

    @staticmethod
    def _check(status: int, at: int) -> None:
        if status:
            names = (
                "",
                "is write-protected",
                "has a read error",
                "out of range",
                "is worn",
                "busy",
                "not erased",
            )
            raise FlashError(f"0x{at:x} {names[status]}")


class FlashError(RuntimeError):
    """The HAL refused a direct write; says why."""


@dataclass(frozen=True)
class Boot:
    """One start as an outside observer sees it, for the invariant checker."""

    running: bool
    slot: int
    firmware_digest: bytes
    parameter_digest: bytes
    verified: bool
    security_counter: int
    image_counter: int
    reason: int


@dataclass(frozen=True)
class Row:
    """The slot-state record."""

    sequence: int
    slot: int
    parameters: int
    previous_slot: int
    previous_parameters: int
    state: int
    boots: int
    reason: int
    manifest8: bytes


@dataclass(frozen=True)
class CounterRow:
    """The greater of flash record and HSM."""

    sequence: int
    security: int
    parameters: int
    manifest: int


class HostMcu:
    """One controller; see the module docstring.

    `behaviour` maps the SHA-256 of a firmware file to what it does when run: "good" (default), "crash",
    "hang", "self_test" (fails), "no_network" (never hears the gateway), "confirm_then_crash".
    """

    PowerCut: type[Exception] = PowerCutError

    def __init__(self, config: Config, seed: int = 0, variant: str = "release") -> None:
        self.lib = library(variant)
        self.config = config
        self.keys = tuple(
            [KeySlot(k.spki, 0) for k in config.image_keys]
            + [KeySlot(k.spki, 1) for k in config.manifest_keys]
        )
        self.behaviour: dict[bytes, str] = {}
        self.conditions = 0
        self.clock_s: float | None = None
        self.running = self.safe_mode = False
        self.boots: list[Boot] = []
        self._memory = ctypes.create_string_buffer(self.lib.size + 8)
        self.at = -(-ctypes.addressof(self._memory) // 8) * 8
        self.pointer = ctypes.c_void_p(self.at)
        self.handle = id(self)
        self.lib.controllers[self.handle] = self
        hardware = _Hardware(
            (ctypes.c_uint8 * 16)(*config.vendor_id), (ctypes.c_uint8 * 16)(*config.class_id)
        )
        hardware.revision = config.hardware_revision
        self.identity = _Identity(hardware)
        serial = config.serial.encode()
        ctypes.memmove(self.identity.serial, serial, len(serial))
        self.identity.serial_size = len(serial)
        manifest_keys = [k for k in self.keys if k.purpose == 1]
        self.identity.n_keys = len(manifest_keys)
        for i, key in enumerate(manifest_keys):
            ctypes.memmove(self.identity.key[i].hash, key.key_hash, 32)
            self.identity.key[i].algorithm = 1 if len(key.spki) == 44 else 2
        self.lib.c.host_init(self.pointer, self.handle, seed, ctypes.byref(hardware))
        self.flash = HostFlash(self)
        self._counter = (ctypes.c_uint32 * 8).from_address(self.at + self.lib.offset["counter"])
        part = partitions()
        self.journal_copies = (part["journal_0"][0], part["journal_1"][0])
        self.counter_copies = (part["counters_0"][0], part["counters_1"][0])
        self.kept = part["kept"][0]
        self.slots = (part["slot_0"][0], part["slot_1"][0])
        self.parameter_slots = (part["parameters_0"][0], part["parameters_1"][0])

    def close(self) -> None:
        """Forget the controller; its memory goes with the object."""
        self.lib.controllers.pop(self.handle, None)

    # ---- manufacture and state --------------------------------------------------------------------------

    def manufacture(
        self, firmware: bytes, parameter_file: bytes = b"", kept: bytes = b"serial+state"
    ) -> None:
        """First images, confirmed; the counters follow at the first boot."""
        self._write(self.slots[0], firmware)
        if parameter_file:
            self._write(self.parameter_slots[0], parameter_file)
        self.flash.program(self.kept, kept)
        record = struct.pack("<4sIBBBBBBH8s", b"SLT1", 1, 0, 0, 0, 0, CONFIRMED, 0, 0, bytes(8))
        self.flash.program(self.journal_copies[1], record + struct.pack("<I", zlib.crc32(record)))

    def _write(self, at: int, data: bytes) -> None:
        for offset in range(0, len(data), SECTOR):
            self.flash.erase(at + offset)
            self.flash.program(at + offset, data[offset : offset + SECTOR])

    def snapshot(self) -> tuple[bytes, bytes]:
        """Everything that survives a loss of power."""
        return bytes(self.flash.data), bytes(self._counter)

    def restore(self, state: tuple[bytes, bytes]) -> None:
        """Back to a snapshot; the controller is off."""
        self.flash.arm(None)
        self.flash.data[:] = state[0]
        ctypes.memmove(self._counter, state[1], len(state[1]))
        self.running = False

    def journal(self) -> Row | None:
        """The newest valid record."""
        row = _Journal()
        if not self.lib.c.host_journal(self.pointer, ctypes.byref(row)):
            return None
        return Row(
            row.sequence,
            row.slot,
            row.parameters,
            row.previous_slot,
            row.previous_parameters,
            row.state,
            row.boots,
            row.reason,
            bytes(row.manifest8),
        )

    def counters(self) -> CounterRow:
        """Security, parameter and manifest counters."""
        values = (ctypes.c_uint32 * 4)()
        self.lib.c.host_counters(self.pointer, values)
        return CounterRow(values[3], values[0], values[1], values[2])

    def _file_in(self, at: int, size: int) -> bytes | None:
        raw = self.flash.read(at, 32)
        magic, _, header, protected, body = struct.unpack_from("<IIHHI", raw)
        free = header + body + protected
        if magic != 0x96F3B83D or free + 4 > size:
            return None
        end = free + struct.unpack("<H", self.flash.read(at + free + 2, 2))[0]
        return self.flash.read(at, end) if end <= size else None

    def firmware_file(self, slot: int) -> bytes | None:
        """The image file in a slot, by its own lengths."""
        return self._file_in(self.slots[slot], partitions()["slot_0"][1])

    def parameter_file(self, copy: int) -> bytes | None:
        """The parameter file in a copy."""
        return self._file_in(self.parameter_slots[copy], partitions()["parameters_0"][1])

    # ---- power ------------------------------------------------------------------------------------------

    def power_on(self, by_image: bool = False) -> bool:
        """Boot until a firmware runs or the permitted resets are used up; True if one runs."""
        return self._boot(WATCHDOG if by_image else POWER_ON, 0)

    def probation_expired(self) -> bool:
        """The firmware's own timer: not confirmed in time."""
        self.lib.c.host_conditions(self.pointer, 0, 0, 601_000_000)
        outcome = self.lib.c.host_step(self.pointer, 0)
        assert outcome == RESET, "the agent did not reset"
        return self._boot(SOFTWARE, self.lib.c.host_why(self.pointer))

    def _leave(self, outcome: int) -> None:
        if outcome == CUT:
            self.running = False
            raise PowerCutError

    def _boot(self, cause: int, why: int) -> bool:
        self.running = self.safe_mode = False
        for _ in range(2 * BOOT_ATTEMPTS_MAX + 2):
            self._leave(self.lib.c.host_rom(self.pointer, cause, why))
            decision = self.lib.c.host_decision(self.pointer).contents
            if decision.run != ROM_RUN:
                self.boots.append(Boot(False, 0, b"", b"", False, 0, 0, 317))
                return False
            self.safe_mode = bool(decision.safe_mode)
            if self._run(decision):
                return True
            cause, why = WATCHDOG, 0
        return False

    def _run(self, decision: _Decision) -> bool:
        row = self.journal()
        assert row is not None, "the ROM leaves a record"
        firmware = self.firmware_file(decision.slot) or b""
        par = self.parameter_file(decision.parameters) if decision.parameters < 2 else None
        counters = self.counters()
        verified = self.config.fits(firmware, par, (counters.security, counters.parameters))
        digest = hashlib.sha256(firmware).digest()
        self.boots.append(
            Boot(
                True,
                decision.slot,
                digest,
                hashlib.sha256(par).digest() if par else bytes(32),
                verified,
                counters.security,
                _security_counter(firmware),
                row.reason,
            )
        )
        does = self.behaviour.get(digest, "good")
        crashes = does in ("crash", "hang", "self_test") or (
            does == "confirm_then_crash" and row.state == CONFIRMED
        )
        if crashes and not self.safe_mode:
            return False
        self._leave(self.lib.c.host_start(self.pointer, ctypes.byref(self.identity), 1, self.conditions))
        self.running = True
        return True

    # ---- mailbox ----------------------------------------------------------------------------------------

    def receive(self, frame: bytes) -> list[bytes]:
        """Answers to one frame, with those of a restart that it caused."""
        firmware = hashlib.sha256(
            self.firmware_file(self.lib.c.host_decision(self.pointer).contents.slot) or b""
        )
        if not self.running or self.behaviour.get(firmware.digest()) == "no_network":
            return []
        if len(frame) > 1032:
            return []  # the mailbox does not take it
        ctypes.memmove(self.at + self.lib.offset["in"], frame, len(frame))
        clock = 0 if self.clock_s is None else max(1, int(self.clock_s))
        self.lib.c.host_conditions(self.pointer, self.conditions, clock, 0)
        outcome = self.lib.c.host_step(self.pointer, len(frame))
        self._leave(outcome)
        out = self._sent()
        if outcome == RESET and self._boot(SOFTWARE, self.lib.c.host_why(self.pointer)):
            out += self._sent()
        return out

    def _sent(self) -> list[bytes]:
        size = self.lib.c.host_out_size(self.pointer)
        raw = ctypes.string_at(self.at + self.lib.offset["out"], size)
        frames, at = [], 0
        while at < size:
            n = struct.unpack_from("<H", raw, at)[0]
            frames.append(raw[at + 2 : at + 2 + n])
            at += 2 + n
        return frames

    def status_frame(self) -> bytes:
        """The STATUS frame as it would be sent now."""
        self.lib.c.host_conditions(self.pointer, self.conditions, 0, 0)
        self.lib.c.host_status(self.pointer)
        return self._sent()[-1]

    def state_digest(self) -> str:
        """Fingerprint of what must be equal at the end of interrupted and uninterrupted runs."""
        row = self.journal()
        assert row is not None
        counters = self.counters()
        firmware, par = self.firmware_file(row.slot), self.parameter_file(row.parameters)
        return repr(
            {
                "firmware": (hashlib.sha256(firmware).digest() if firmware else bytes(32)).hex(),
                "parameters": (hashlib.sha256(par).digest() if par else bytes(32)).hex(),
                "state": row.state,
                "counters": (counters.security, counters.parameters, counters.manifest),
                "kept": self.flash.read(self.kept, 64).hex(),
            }
        )


def _security_counter(file: bytes) -> int:
    """Value of the security counter TLV of an image that has been verified."""
    header, protected, body = struct.unpack_from("<HHI", file, 8)
    at, end = header + body + 4, header + body + protected
    while at + 4 <= end:
        kind, length = struct.unpack_from("<HH", file, at)
        if kind == 0x50:
            return int.from_bytes(file[at + 4 : at + 4 + length], "little")
        at += 4 + length
    return 0


# ---- the parsers alone, for agreement tests and fuzzing ----------------------------------------------------


class Parsers:
    """The C parsers on bytes: each method gives the reason code (0: accepted)."""

    def __init__(self, config: Config, variant: str = "release") -> None:
        self.mcu = HostMcu(config, variant=variant)
        self._c = self.mcu.lib.c

    def cbor(self, data: bytes) -> int:
        """One strict CBOR value."""
        return int(self._c.host_cbor(data, len(data)))

    def frame(self, data: bytes) -> int:
        """A mailbox frame."""
        return int(self._c.host_frame(data, len(data), ctypes.byref(ctypes.c_uint32())))

    def manifest(self, data: bytes) -> tuple[int, int]:
        """A signed manifest: reason and sequence number."""
        room = ctypes.create_string_buffer(bytes(18) + data, 18 + len(data))
        sequence = ctypes.c_uint32()
        at = ctypes.c_void_p(ctypes.addressof(room) + 18)
        reason = self._c.host_manifest(
            self.mcu.pointer, at, len(data), ctypes.byref(self.mcu.identity), ctypes.byref(sequence)
        )
        assert room.raw[18:] == data, "the manifest is restored"
        return int(reason), sequence.value

    def container(self, data: bytes) -> int:
        """Header and block words."""
        return int(self._c.host_container(data, len(data)))

    def patch(self, base: bytes, record: bytes, target_size: int, piece: int = 1024) -> tuple[int, bytes]:
        """One block from its record, fed in pieces."""
        self.mcu.flash.data[self.mcu.slots[0] : self.mcu.slots[0] + len(base)] = base
        # exactly as large as the block, so that a sanitizer sees one byte too many
        block = ctypes.create_string_buffer(target_size)
        reason = self._c.host_patch(
            self.mcu.pointer, record, len(record), len(base), target_size, piece, ctypes.byref(block)
        )
        return int(reason), block.raw

    def image(self, file: bytes, bootable: bool = True, least_counter: int = 0) -> int:
        """A file in slot 0 or parameter copy 0."""
        at = self.mcu.slots[0] if bootable else self.mcu.parameter_slots[0]
        self.mcu.flash.data[at : at + len(file)] = file
        room = ctypes.create_string_buffer(256)
        return int(self._c.host_image(self.mcu.pointer, int(bootable), least_counter, ctypes.byref(room)))
