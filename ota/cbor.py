"""CBOR in its one deterministic encoding (RFC 8949 §4.2.1), and nothing else.

A parser that meets signed data from a hostile network should be small, so this one accepts only what this
product writes: integers of up to 64 bits, byte and text strings, arrays, maps with unique sorted keys,
booleans, null and tags. No floats, no indefinite lengths, no longer-than-needed lengths: two different byte
strings never mean the same. The C decoder of the MCU accepts the same language. Depth, item count and size
are bounded (``limits``). Cross-checked against the ``cbor2`` package in the tests.

    >>> encode({1: "bms", 2: [b"x", True]}).hex()
    'a20163626d7302824178f5'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import limits
from .errors import OtaError, Reason, require


@dataclass(frozen=True)
class Tag:
    """A tagged value (major type 6)."""

    number: int
    value: Any


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * size):
            return bytes([major << 5 | code]) + argument.to_bytes(size, "big")
    raise ValueError("integer beyond 64 bits")


def encode(value: Any) -> bytes:
    """Deterministic CBOR of ``value``; raises TypeError for what the language above does not have."""
    if value is None:
        return b"\xf6"
    if value is True:
        return b"\xf5"
    if value is False:
        return b"\xf4"
    if isinstance(value, int):
        return _head(0, int(value)) if value >= 0 else _head(1, -1 - int(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return _head(2, len(value)) + bytes(value)
    if isinstance(value, str):
        raw = value.encode("utf-8")
        return _head(3, len(raw)) + raw
    if isinstance(value, list | tuple):
        return _head(4, len(value)) + b"".join(encode(item) for item in value)
    if isinstance(value, dict):
        rows = sorted((encode(k), encode(v)) for k, v in value.items())
        return _head(5, len(rows)) + b"".join(k + v for k, v in rows)
    if isinstance(value, Tag):
        return _head(6, value.number) + encode(value.value)
    raise TypeError(f"no CBOR form for {type(value).__name__}")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.items = 0

    def take(self, n: int) -> bytes:
        require(n <= len(self.data) - self.at, Reason.TRUNCATED, f"CBOR item at byte {self.at}")
        self.at += n
        return self.data[self.at - n : self.at]

    def argument(self, info: int) -> int:
        if info < 24:
            return info
        require(info <= 27, Reason.NOT_CANONICAL, "indefinite or reserved CBOR length")
        size = 1 << (info - 24)
        value = int.from_bytes(self.take(size), "big")
        least = 24 if size == 1 else 1 << (4 * size)
        require(value >= least, Reason.NOT_CANONICAL, "CBOR length longer than needed")
        return value

    def item(self, depth: int) -> Any:
        require(depth <= limits.CBOR_DEPTH_MAX, Reason.NESTING, f"CBOR deeper than {limits.CBOR_DEPTH_MAX}")
        self.items += 1
        require(self.items <= limits.CBOR_ITEMS_MAX, Reason.OVERSIZE, "too many CBOR items")
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if major == 7:
            require(info in (20, 21, 22), Reason.FORMAT, f"CBOR simple value or float 0x{first:02x}")
            return {20: False, 21: True, 22: None}[info]
        n = self.argument(info)
        if major == 0:
            return n
        if major == 1:
            return -1 - n
        if major == 2:
            return self.take(n)
        if major == 3:
            try:
                return self.take(n).decode("utf-8")
            except UnicodeDecodeError:
                raise OtaError(Reason.FORMAT, "CBOR text is not UTF-8") from None
        # An announced count can never exceed the bytes that are left: refuse before looping.
        require(n <= len(self.data) - self.at, Reason.TRUNCATED, "CBOR count beyond the data")
        if major == 4:
            return [self.item(depth + 1) for _ in range(n)]
        if major == 5:
            result: dict[Any, Any] = {}
            previous = b""
            for i in range(n):
                start = self.at
                key = self.item(depth + 1)
                require(
                    isinstance(key, int | str) and not isinstance(key, bool),
                    Reason.FORMAT,
                    "CBOR map key type",
                )
                raw = self.data[start : self.at]
                require(i == 0 or raw != previous, Reason.DUPLICATE_FIELD, f"CBOR key {key!r}")
                require(i == 0 or raw > previous, Reason.NOT_CANONICAL, "CBOR keys not sorted")
                previous = raw
                result[key] = self.item(depth + 1)
            return result
        return Tag(n, self.item(depth + 1))


def decode(data: bytes, max_size: int = limits.CBOR_MAX) -> Any:
    """The one value in ``data``; refuses everything that ``encode`` would not have written."""
    require(len(data) <= max_size, Reason.OVERSIZE, f"{len(data)} B of CBOR, limit {max_size} B")
    reader = _Reader(bytes(data))
    value = reader.item(1)
    require(reader.at == len(data), Reason.TRAILING_DATA, f"{len(data) - reader.at} B after CBOR item")
    return value


# Field helpers: what a message decoder needs so that a wrong type is a reason and not a traceback.


def field(mapping: Any, key: int | str, kind: type | tuple[type, ...], name: str, default: Any = ...) -> Any:
    """``mapping[key]`` if it has type ``kind``; ``default`` (if given) when absent."""
    require(isinstance(mapping, dict), Reason.FORMAT, f"map expected around {name}")
    if key not in mapping:
        require(default is not ..., Reason.MISSING_FIELD, name)
        return default
    value = mapping[key]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    good = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    require(good, Reason.FORMAT, f"{name} has the wrong type")
    return value


def uint(mapping: Any, key: int | str, name: str, maximum: int = 2**32 - 1, default: Any = ...) -> Any:
    """A field that is an integer in 0 … ``maximum``."""
    value = field(mapping, key, int, name, default)
    require(value is default or 0 <= value <= maximum, Reason.FORMAT, f"{name} out of range")
    return value


def fixed_bytes(mapping: Any, key: int | str, size: int, name: str, default: Any = ...) -> Any:
    """A byte-string field of exactly ``size`` bytes."""
    value = field(mapping, key, bytes, name, default)
    require(value is default or len(value) == size, Reason.FORMAT, f"{name} must have {size} bytes")
    return value


def only_fields(mapping: dict[Any, Any], allowed: set[int] | set[str], name: str) -> None:
    """Refuse keys that this format version does not define: what is not understood is not obeyed."""
    extra = [k for k in mapping if k not in allowed]
    require(not extra, Reason.UNKNOWN_FIELD, f"{name}: {extra[:3]}")
