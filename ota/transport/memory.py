"""A broker in memory: the same rules as the real ones, no sockets, no threads, fully repeatable.

Faults are decided by a hash of (seed, receiver, topic, payload, how often this was sent), not by a stream of
random numbers: the same message meets the same fate in every run, whatever else happens.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from dataclasses import dataclass, field

from .. import topics
from ..errors import OtaError, Reason
from .base import Down, Incoming, LinkEvent, Up, matches

QUEUE_MAX = 1000  # messages kept for a session that is away, as mosquitto's default


@dataclass(frozen=True)
class Faults:
    """Fractions 0…1. ``hold``: delivered after the next message to the same receiver (reordering)."""

    seed: int = 0
    drop: float = 0.0
    duplicate: float = 0.0
    hold: float = 0.0

    def draw(self, key: bytes, what: str) -> float:
        digest = hashlib.sha256(f"{self.seed}/{what}/".encode() + key).digest()
        return int.from_bytes(digest[:8], "big") / 2**64


@dataclass
class _Session:
    subscriptions: list[str] = field(default_factory=list)
    queue: deque[LinkEvent] = field(default_factory=deque)
    link: MemoryLink | None = None
    held: list[LinkEvent] = field(default_factory=list)


class MemoryBroker:
    """Retained messages, persistent sessions, the access rule of ``topics``; ``restart`` loses sessions."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults
        self.retained: dict[str, bytes] = {}
        self.sessions: dict[str, _Session] = {}
        self.accepting = True
        self.delivered_bytes: dict[str, int] = defaultdict(int)
        self._sent: dict[bytes, int] = defaultdict(int)

    def connect(self, user: str) -> MemoryLink:
        """A link for ``user``; an older link of the same user is taken over."""
        return MemoryLink(self, user)

    def attach(self, link: MemoryLink) -> bool:
        if not self.accepting:
            return False
        session = self.sessions.setdefault(link.user, _Session())
        if session.link is not None and session.link is not link:
            session.link.dropped("taken over")
        session.link = link
        return True

    def kill(self, lose_sessions: bool = True) -> None:
        """The broker dies: all links drop; with ``lose_sessions`` queues and retained messages are gone."""
        self.accepting = False
        for session in self.sessions.values():
            if session.link is not None:
                session.link.dropped("broker gone")
                session.link = None
            session.held.clear()
        if lose_sessions:
            self.sessions.clear()
            self.retained.clear()

    def restart(self) -> None:
        self.accepting = True

    def publish(self, user: str, topic: str, payload: bytes, retain: bool) -> None:
        if not topics.may_publish(user, topic):
            return  # as MQTT 3.1.1 brokers do: no error, no effect
        if retain:
            self.retained[topic] = payload
            if not payload:
                del self.retained[topic]
        for name, session in self.sessions.items():
            if topics.may_receive(name, topic) and any(matches(s, topic) for s in session.subscriptions):
                self._deliver(name, session, Incoming(topic, payload))

    def _deliver(self, name: str, session: _Session, message: Incoming) -> None:
        if session.link is None and len(session.queue) >= QUEUE_MAX:
            return
        copies = 1
        hold = False
        if self.faults is not None:
            key = f"{name}|{message.topic}|".encode() + message.payload
            self._sent[key] += 1
            key += self._sent[key].to_bytes(4, "big")
            if self.faults.draw(key, "drop") < self.faults.drop:
                return
            copies += self.faults.draw(key, "duplicate") < self.faults.duplicate
            hold = self.faults.draw(key, "hold") < self.faults.hold
        for _ in range(copies):
            self.delivered_bytes[name] += len(message.payload)
            if hold:
                session.held.append(message)
            else:
                session.queue.append(message)
                session.queue.extend(session.held)
                session.held.clear()

    def release_held(self, session: _Session) -> None:
        """A held message is late, not lost: it comes when nothing newer did."""
        session.queue.extend(session.held)
        session.held.clear()

    def subscribe(self, user: str, pattern: str) -> None:
        session = self.sessions.setdefault(user, _Session())
        if pattern not in session.subscriptions:
            session.subscriptions.append(pattern)
        for topic, payload in self.retained.items():
            if matches(pattern, topic) and topics.may_receive(user, topic):
                session.queue.append(Incoming(topic, payload, True))


class MemoryLink:
    """``Link`` on a ``MemoryBroker``."""

    def __init__(self, broker: MemoryBroker, user: str) -> None:
        self.user = user
        self._broker = broker
        self._patterns: list[str] = []
        self._events: deque[LinkEvent] = deque()
        self._up = False
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._up

    def dropped(self, reason: str) -> None:
        if self._up:
            self._up = False
            self._events.append(Down(reason))
            if reason == "taken over":
                self._closed = True

    def subscribe(self, pattern: str, qos: int = 1) -> None:
        self._patterns.append(pattern)
        if self._up:
            self._broker.subscribe(self.user, pattern)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        if len(payload) > 256 * 1024 * 1024 or "+" in topic or "#" in topic or "\0" in topic:
            raise OtaError(Reason.FORMAT, "topic or payload not possible in MQTT")
        if not self._up:
            return False
        self._broker.publish(self.user, topic, bytes(payload), retain)
        return True

    def poll(self, timeout_s: float = 0.0) -> list[LinkEvent]:
        if not self._up and not self._closed and self._broker.attach(self):
            self._up = True
            self._events.append(Up())
            for pattern in self._patterns:
                self._broker.subscribe(self.user, pattern)
        out = list(self._events)
        self._events.clear()
        session = self._broker.sessions.get(self.user)
        if self._up and session is not None:
            if not session.queue:
                self._broker.release_held(session)
            out.extend(session.queue)
            session.queue.clear()
        return out

    def close(self) -> None:
        session = self._broker.sessions.get(self.user)
        if session is not None and session.link is self:
            session.link = None
        self._up = False
        self._closed = True
