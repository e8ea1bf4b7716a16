"""Payloads on the MQTT topics; all parsing of what the network says is here.

Signed (COSE_Sign1, see ``cose``; maps with integer keys):

    desired   ota/desired   {1: counter, 2: device, 3: deployment (16 B), 4: action (0 none, 1 install,
                             2 cancel), 5: not before, Unix s}
    ack       ota/ack       {1: device, 2: report counter acknowledged, 3: next nonce (16 B)}
    report    ota/report    {1: device, 2: counter, 3: nonce (16 B, from the last ack), 4: deployment (16 B),
                             5: state (``ReportState``), 6: reason, 7: SHA-256 of the running firmware file,
                             8: SHA-256 of the parameter file, 9: security counter, 10: parameter counter,
                             11: bytes received, 12: detail text (≤ 200)}

Unsigned, because their content is verified by what it leads to:

    request   CBOR {1: 1, 2: image root version, 3: director root version, 4: nonce (16 B)}    metadata
              CBOR {1: 2, 2: SHA-256 of the artifact}                                          block table
              CBOR {1: 3, 2: SHA-256, 3: [first, count, first, count, …]}                      blocks
    data      0x01, CBOR {1: nonce, 2: {file: bytes} image, 3: {file: bytes} director, 4: time, 5: manifest}
              0x02, 8 bytes of the digest, leaf hashes (32 B each)
              0x03, 8 bytes of the digest, block index u32 LE, block
              0x04, 8 bytes of the digest or zeros, reason u16 LE
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from . import cbor, cose, limits
from .errors import OtaError, Reason, require
from .signing import PublicKey, SigningKey

DESIRED_TYPE, ACK_TYPE, REPORT_TYPE = "ota/desired", "ota/ack", "ota/report"
NONE = bytes(16)


class Action(IntEnum):
    NONE = 0
    INSTALL = 1
    CANCEL = 2


class ReportState(IntEnum):
    """What a device says about a deployment. The last four are terminal."""

    ACCEPTED = 1
    DOWNLOADED = 2
    STAGED = 3
    DEFERRED = 4
    ACTIVATED = 5
    SUCCESS = 10
    REFUSED = 11
    FAILED = 12
    CANCELLED = 13

    @property
    def terminal(self) -> bool:
        return self >= ReportState.SUCCESS


@dataclass(frozen=True)
class Desired:
    counter: int
    device: str
    deployment: bytes
    action: Action
    not_before_s: int = 0

    def sign(self, key: SigningKey) -> bytes:
        row = {1: self.counter, 2: self.device, 3: self.deployment, 4: int(self.action), 5: self.not_before_s}
        return cose.sign(DESIRED_TYPE, row, key)

    @staticmethod
    def verify(data: bytes, keys: Iterable[PublicKey], device: str) -> Desired:
        row, _ = cose.verify(data, DESIRED_TYPE, keys, 1024)
        require(isinstance(row, dict), Reason.FORMAT, "desired state")
        cbor.only_fields(row, set(range(1, 6)), "desired state")
        named = cbor.field(row, 2, str, "device")
        require(named == device, Reason.WRONG_DEVICE, f"desired state of {named[:48]}")
        return Desired(
            cbor.uint(row, 1, "counter", 2**53),
            device,
            cbor.fixed_bytes(row, 3, 16, "deployment"),
            Action(cbor.uint(row, 4, "action", 2)),
            cbor.uint(row, 5, "not before", 2**53),
        )


@dataclass(frozen=True)
class Ack:
    device: str
    counter: int
    nonce: bytes

    def sign(self, key: SigningKey) -> bytes:
        return cose.sign(ACK_TYPE, {1: self.device, 2: self.counter, 3: self.nonce}, key)

    @staticmethod
    def verify(data: bytes, keys: Iterable[PublicKey], device: str) -> Ack:
        row, _ = cose.verify(data, ACK_TYPE, keys, 1024)
        require(isinstance(row, dict), Reason.FORMAT, "ack")
        cbor.only_fields(row, {1, 2, 3}, "ack")
        require(cbor.field(row, 1, str, "device") == device, Reason.WRONG_DEVICE, "ack")
        return Ack(device, cbor.uint(row, 2, "counter", 2**53), cbor.fixed_bytes(row, 3, 16, "nonce"))


@dataclass(frozen=True)
class Report:
    device: str
    counter: int
    nonce: bytes
    deployment: bytes
    state: ReportState
    reason: Reason
    firmware_digest: bytes
    parameter_digest: bytes
    security_counter: int
    parameter_counter: int
    bytes_received: int
    detail: str = ""

    def sign(self, key: SigningKey) -> bytes:
        row = {
            1: self.device,
            2: self.counter,
            3: self.nonce,
            4: self.deployment,
            5: int(self.state),
            6: int(self.reason),
            7: self.firmware_digest,
            8: self.parameter_digest,
            9: self.security_counter,
            10: self.parameter_counter,
            11: self.bytes_received,
            12: self.detail[:200],
        }
        return cose.sign(REPORT_TYPE, row, key)

    @staticmethod
    def verify(data: bytes, keys: Iterable[PublicKey], device: str) -> Report:
        """``device`` is the one named by the topic (and so by the broker's access rule)."""
        row, _ = cose.verify(data, REPORT_TYPE, keys, 4096)
        require(isinstance(row, dict), Reason.FORMAT, "report")
        cbor.only_fields(row, set(range(1, 13)), "report")
        require(
            cbor.field(row, 1, str, "device") == device, Reason.IDENTITY, "report on another device's topic"
        )
        try:
            state = ReportState(cbor.uint(row, 5, "state", 99))
            reason = Reason(cbor.uint(row, 6, "reason", 9999))
        except ValueError:
            raise OtaError(Reason.FORMAT, "report state or reason") from None
        detail = cbor.field(row, 12, str, "detail")
        require(len(detail) <= 200, Reason.OVERSIZE, "report detail")
        return Report(
            device,
            cbor.uint(row, 2, "counter", 2**53),
            cbor.fixed_bytes(row, 3, 16, "nonce"),
            cbor.fixed_bytes(row, 4, 16, "deployment"),
            state,
            reason,
            cbor.fixed_bytes(row, 7, 32, "firmware digest"),
            cbor.fixed_bytes(row, 8, 32, "parameter digest"),
            cbor.uint(row, 9, "security counter"),
            cbor.uint(row, 10, "parameter counter"),
            cbor.uint(row, 11, "bytes received", 2**53),
            detail,
        )


# ---- requests ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MetadataRequest:
    image_root: int
    director_root: int
    nonce: bytes


@dataclass(frozen=True)
class TableRequest:
    digest: bytes


@dataclass(frozen=True)
class BlockRequest:
    """``ranges``: (first, count) pairs, at most the window of blocks in all."""

    digest: bytes
    ranges: tuple[tuple[int, int], ...]


Request = MetadataRequest | TableRequest | BlockRequest


def pack_request(request: Request) -> bytes:
    match request:
        case MetadataRequest(image_root, director_root, nonce):
            return cbor.encode({1: 1, 2: image_root, 3: director_root, 4: nonce})
        case TableRequest(digest):
            return cbor.encode({1: 2, 2: digest})
        case BlockRequest(digest, ranges):
            return cbor.encode({1: 3, 2: digest, 3: [n for pair in ranges for n in pair]})


def unpack_request(data: bytes) -> Request:
    row = cbor.decode(data, 1024)
    kind = cbor.uint(row, 1, "request kind", 3)
    if kind == 1:
        cbor.only_fields(row, {1, 2, 3, 4}, "request")
        return MetadataRequest(
            cbor.uint(row, 2, "image root version"),
            cbor.uint(row, 3, "director root version"),
            cbor.fixed_bytes(row, 4, 16, "nonce"),
        )
    if kind == 2:
        cbor.only_fields(row, {1, 2}, "request")
        return TableRequest(cbor.fixed_bytes(row, 2, 32, "digest"))
    require(kind == 3, Reason.FORMAT, "request kind")
    cbor.only_fields(row, {1, 2, 3}, "request")
    numbers = cbor.field(row, 3, list, "ranges")
    good = 2 <= len(numbers) <= 2 * limits.WINDOW_BLOCKS and len(numbers) % 2 == 0
    require(good and all(type(n) is int and 0 <= n < 2**16 for n in numbers), Reason.FORMAT, "ranges")
    ranges = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    require(sum(c for _, c in ranges) <= limits.WINDOW_BLOCKS, Reason.OVERSIZE, "more blocks than the window")
    return BlockRequest(cbor.fixed_bytes(row, 2, 32, "digest"), ranges)


# ---- data --------------------------------------------------------------------------------------------------

_BLOCK = struct.Struct("<B8sI")
_REFUSAL = struct.Struct("<B8sH")


@dataclass(frozen=True)
class MetadataData:
    nonce: bytes
    image: dict[str, bytes]
    director: dict[str, bytes]
    time: bytes
    manifest: bytes


@dataclass(frozen=True)
class TableData:
    digest8: bytes
    leaves: tuple[bytes, ...]


@dataclass(frozen=True)
class BlockData:
    digest8: bytes
    index: int
    block: bytes


@dataclass(frozen=True)
class RefusalData:
    digest8: bytes
    reason: Reason


Data = MetadataData | TableData | BlockData | RefusalData


def pack_data(data: Data) -> bytes:
    match data:
        case MetadataData(nonce, image, director, time, manifest):
            return b"\x01" + cbor.encode({1: nonce, 2: image, 3: director, 4: time, 5: manifest})
        case TableData(digest8, leaves):
            return b"\x02" + digest8 + b"".join(leaves)
        case BlockData(digest8, index, block):
            return _BLOCK.pack(3, digest8, index) + block
        case RefusalData(digest8, reason):
            return _REFUSAL.pack(4, digest8, reason)


def _files(row: Any, key: int, name: str) -> dict[str, bytes]:
    files = cbor.field(row, key, dict, name)
    good = len(files) <= limits.ROOT_ROTATIONS_MAX + limits.DELEGATIONS_MAX + 8
    good = good and all(isinstance(k, str) and isinstance(v, bytes) for k, v in files.items())
    require(good, Reason.FORMAT, name)
    return dict(files)


def unpack_data(data: bytes) -> Data:
    require(len(data) <= limits.MESSAGE_MAX, Reason.OVERSIZE, f"message of {len(data)} B")
    require(len(data) >= 9, Reason.TRUNCATED, "data message")
    kind = data[0]
    if kind == 1:
        row = cbor.decode(data[1:], limits.MESSAGE_MAX)
        nonce = cbor.fixed_bytes(row, 1, 16, "nonce")
        cbor.only_fields(row, set(range(1, 6)), "metadata message")
        return MetadataData(
            nonce,
            _files(row, 2, "image files"),
            _files(row, 3, "director files"),
            cbor.field(row, 4, bytes, "time"),
            cbor.field(row, 5, bytes, "manifest"),
        )
    if kind == 2:
        body = data[9:]
        require(len(body) % 32 == 0, Reason.LENGTH, "block table")
        return TableData(data[1:9], tuple(body[i : i + 32] for i in range(0, len(body), 32)))
    if kind == 3:
        require(_BLOCK.size < len(data) <= _BLOCK.size + limits.BLOCK_SIZE, Reason.LENGTH, "block message")
        _, digest8, index = _BLOCK.unpack_from(data)
        return BlockData(digest8, index, data[_BLOCK.size :])
    require(kind == 4 and len(data) == _REFUSAL.size, Reason.FORMAT, f"data message kind {kind}")
    _, digest8, number = _REFUSAL.unpack(data)
    try:
        return RefusalData(digest8, Reason(number))
    except ValueError:
        raise OtaError(Reason.FORMAT, f"reason {number}") from None
