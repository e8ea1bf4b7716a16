"""What the OTA parts ask of a link, and nothing more.

A link belongs to one identity (user). ``poll`` is the only call that waits; it returns what has happened
since the last one, in order. Quality of service 1 means: at least once to the broker, and to the subscriber
while its session lives; above it the protocol repeats by itself. Payloads are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Up:
    """Connected; subscriptions are in force."""


@dataclass(frozen=True)
class Down:
    """Connection lost or refused; the link tries again by itself unless closed."""

    reason: str = ""


@dataclass(frozen=True)
class Incoming:
    topic: str
    payload: bytes
    retained: bool = False


LinkEvent = Up | Down | Incoming


class Link(Protocol):
    """One client of a broker."""

    user: str

    @property
    def connected(self) -> bool: ...

    def subscribe(self, pattern: str, qos: int = 1) -> None:
        """Remembered and repeated at every connection."""
        ...

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """False if not connected: nothing is queued behind the caller's back, the caller repeats."""
        ...

    def poll(self, timeout_s: float = 0.0) -> list[LinkEvent]: ...

    def close(self) -> None: ...


def matches(pattern: str, topic: str) -> bool:
    """MQTT topic filter rule (3.1.1 §4.7)."""
    want, have = pattern.split("/"), topic.split("/")
    for i, level in enumerate(want):
        if level == "#":
            return True
        if i >= len(have) or level not in ("+", have[i]):
            return False
    return len(want) == len(have)
