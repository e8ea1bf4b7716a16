"""Mailbox frames between the gateway agent and the OTA agent in the MCU.

One frame, little-endian::

    0   1   type (below)
    1   1   sequence number of the sender, wraps
    2   2   payload length n ≤ 1024
    4   n   payload
    4+n 4   CRC-32 (zlib polynomial) of bytes 0 … 3+n

The mailbox delivers whole frames or none; a frame that fails its CRC is dropped and counted, the sender
repeats. Nothing is trusted because it came through the mailbox: the manifest is signed, blocks have hashes.

    type  direction   payload
    0x01  to MCU      HELLO      (empty): asks for STATUS
    0x02  to MCU      MANIFEST   total u16, offset u16, bytes: the COSE manifest in pieces
    0x03  to MCU      DATA       image id u8, zero u8, offset u32, bytes: of the BTD1 container
    0x04  to MCU      ACTIVATE   first 8 bytes of the manifest's SHA-256
    0x05  to MCU      CANCEL     first 8 bytes of the manifest's SHA-256, or zeros for any
    0x81  from MCU    STATUS     see ``Status``; also sent unasked after each boot
    0x82  from MCU    PROGRESS   image id u8, zero u8, reason u16, next offset u32: bytes before it are kept
    0x83  from MCU    ANSWER     type answered u8, zero u8, reason u16

STATUS payload (112 bytes)::

    0   1   phase (``McuPhase``)          1   1   slot that runs, 0 or 1
    2   2   reason of the last refusal or roll back
    4   2   conditions now (bit mask below)
    6   2   unconfirmed boots so far
    8   4   security counter              12  4   parameter counter
    16  4   last manifest sequence        20  4   next container offset, image 0
    24  4   next container offset, image 1
    28  8   manifest being staged (first 8 bytes of SHA-256; zeros: none)
    36  4   uptime, s
    40  32  SHA-256 of the running firmware file
    72  32  SHA-256 of the parameter file in use
    104 8   manifest last installed (first 8 bytes of its SHA-256; zeros: none)
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

from . import limits
from .errors import OtaError, Reason, require

HELLO, MANIFEST, DATA, ACTIVATE, CANCEL = 0x01, 0x02, 0x03, 0x04, 0x05
STATUS, PROGRESS, ANSWER = 0x81, 0x82, 0x83
_TYPES = {HELLO, MANIFEST, DATA, ACTIVATE, CANCEL, STATUS, PROGRESS, ANSWER}
_HEAD = struct.Struct("<BBH")
_STATUS = struct.Struct("<BBHHHIIIII8sI32s32s8s")
DATA_HEAD = struct.Struct("<BBI")
MANIFEST_HEAD = struct.Struct("<HH")
DATA_MAX = limits.FRAME_PAYLOAD_MAX - DATA_HEAD.size

# Conditions: a set bit is a reason to wait. Manifests use the same bits for what they demand (preconditions).
CONDITION_CHARGING = 1 << 0
CONDITION_CONTACTORS = 1 << 1
CONDITION_SOC_LOW = 1 << 2
CONDITION_SUPPLY_LOW = 1 << 3
CONDITION_FAULT = 1 << 4
CONDITION_ALL = 0x1F

# Order of explanation when several apply: what endangers the battery first.
DEFERRALS = (
    (CONDITION_FAULT, Reason.DEFER_FAULT_ACTIVE),
    (CONDITION_SUPPLY_LOW, Reason.DEFER_SUPPLY_LOW),
    (CONDITION_SOC_LOW, Reason.DEFER_SOC_LOW),
    (CONDITION_CHARGING, Reason.DEFER_CHARGING),
    (CONDITION_CONTACTORS, Reason.DEFER_CONTACTORS),
)


def deferral(conditions: int, demanded: int) -> Reason:
    """Why to wait, or OK. A fault and a low supply always count, whatever the manifest demands."""
    relevant = conditions & (demanded | CONDITION_FAULT | CONDITION_SUPPLY_LOW)
    for bit, reason in DEFERRALS:
        if relevant & bit:
            return reason
    return Reason.OK


class McuPhase(IntEnum):
    IDLE = 0
    RECEIVING = 1
    STAGED = 2
    TEST = 3  # runs a new set that has not been confirmed


@dataclass(frozen=True)
class Status:
    phase: McuPhase
    slot: int
    reason: Reason
    conditions: int
    unconfirmed_boots: int
    security_counter: int
    parameter_counter: int
    sequence: int
    next_offset: tuple[int, int]
    manifest8: bytes
    uptime_s: int
    firmware_digest: bytes
    parameter_digest: bytes
    installed8: bytes

    def pack(self) -> bytes:
        return _STATUS.pack(
            self.phase,
            self.slot,
            self.reason,
            self.conditions,
            self.unconfirmed_boots,
            self.security_counter,
            self.parameter_counter,
            self.sequence,
            *self.next_offset,
            self.manifest8,
            self.uptime_s,
            self.firmware_digest,
            self.parameter_digest,
            self.installed8,
        )

    @staticmethod
    def unpack(payload: bytes) -> Status:
        require(len(payload) == _STATUS.size, Reason.LENGTH, "status frame")
        p, slot, reason, cond, boots, sec, par, seq, n0, n1, m8, up, fw, pd, i8 = _STATUS.unpack(payload)
        try:
            return Status(
                McuPhase(p), slot, Reason(reason), cond, boots, sec, par, seq, (n0, n1), m8, up, fw, pd, i8
            )
        except ValueError:
            raise OtaError(Reason.FORMAT, "status phase or reason") from None


@dataclass(frozen=True)
class Progress:
    image_id: int
    reason: Reason
    next_offset: int


@dataclass(frozen=True)
class Answer:
    to: int
    reason: Reason


def pack(kind: int, payload: bytes = b"", sequence: int = 0) -> bytes:
    assert kind in _TYPES
    assert len(payload) <= limits.FRAME_PAYLOAD_MAX
    body = _HEAD.pack(kind, sequence & 0xFF, len(payload)) + payload
    return body + struct.pack("<I", zlib.crc32(body))


def unpack(frame: bytes) -> tuple[int, bytes]:
    """(type, payload) of a whole frame; CHECKSUM, LENGTH or FORMAT otherwise."""
    require(len(frame) >= _HEAD.size + 4, Reason.TRUNCATED, "frame")
    kind, _, size = _HEAD.unpack_from(frame)
    require(size <= limits.FRAME_PAYLOAD_MAX, Reason.OVERSIZE, f"frame payload of {size} B")
    require(len(frame) == _HEAD.size + size + 4, Reason.LENGTH, "frame")
    require(zlib.crc32(frame[:-4]) == struct.unpack("<I", frame[-4:])[0], Reason.CHECKSUM, "frame")
    require(kind in _TYPES, Reason.FORMAT, f"frame type 0x{kind:02x}")
    return kind, frame[_HEAD.size : -4]


def pack_manifest(data: bytes) -> list[bytes]:
    step = limits.FRAME_PAYLOAD_MAX - MANIFEST_HEAD.size
    return [
        pack(MANIFEST, MANIFEST_HEAD.pack(len(data), at) + data[at : at + step], at // step)
        for at in range(0, len(data), step)
    ]


def pack_data(image_id: int, offset: int, data: bytes) -> bytes:
    return pack(DATA, DATA_HEAD.pack(image_id, 0, offset) + data, offset // DATA_MAX)


def pack_progress(row: Progress) -> bytes:
    return pack(PROGRESS, struct.pack("<BBHI", row.image_id, 0, row.reason, row.next_offset))


def pack_answer(row: Answer) -> bytes:
    return pack(ANSWER, struct.pack("<BBH", row.to, 0, row.reason))


def from_mcu(frame: bytes) -> Status | Progress | Answer:
    """A frame sent by the MCU, as the gateway reads it."""
    kind, payload = unpack(frame)
    if kind == STATUS:
        return Status.unpack(payload)
    try:
        if kind == PROGRESS:
            require(len(payload) == 8, Reason.LENGTH, "progress frame")
            image_id, _, reason, offset = struct.unpack("<BBHI", payload)
            require(image_id <= 1, Reason.FORMAT, "progress image id")
            return Progress(image_id, Reason(reason), offset)
        require(kind == ANSWER and len(payload) == 4, Reason.FORMAT, "frame not for the gateway")
        to, _, reason = struct.unpack("<BBH", payload)
        return Answer(to, Reason(reason))
    except ValueError:
        raise OtaError(Reason.FORMAT, "reason in frame") from None
