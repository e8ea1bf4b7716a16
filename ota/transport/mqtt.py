"""Links over MQTT 3.1.1 with paho, many in one thread.

A ``Hub`` waits on the sockets of all its links with one selector, so a gateway process serves hundreds of
devices without threads. Each link has its own connection, identity and session. Reconnecting is jittered and
backs off. Nothing is queued while disconnected: the state machines repeat what matters.

TLS: version 1.3 only, mutual certificates, the broker's name checked, and its public key pinned: the SHA-256
of its SubjectPublicKeyInfo must be one of ``pins``, where the second is the key the operator keeps in reserve
for rotation. A session is never resumed with early data (Python's ssl offers none).
"""

from __future__ import annotations

import contextlib
import hashlib
import selectors
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from ..errors import OtaError, Reason
from .base import Down, Incoming, LinkEvent, Up

KEEPALIVE_S = 30
RECONNECT_FIRST_S = 0.2
RECONNECT_MAX_S = 30.0
CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Tls:
    """Client side of a TLS connection. ``pins``: SHA-256 of acceptable server SubjectPublicKeyInfos."""

    ca: Path
    certificate: Path
    key: Path
    server_name: str
    pins: tuple[bytes, ...] = ()

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(self.ca)
        context.load_cert_chain(self.certificate, self.key)
        pins = self.pins

        class Pinned(ssl.SSLSocket):
            """Checks the pin as the last act of the handshake: no byte is sent to another key."""

            def do_handshake(self, block: bool = False) -> None:
                super().do_handshake(block)
                certificate = self.getpeercert(binary_form=True)
                if pins and (certificate is None or spki_hash(certificate) not in pins):
                    raise ssl.SSLCertVerificationError("server key is not pinned")

        context.sslsocket_class = Pinned
        return context


def spki_hash(certificate_der: bytes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo in a certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    key = x509.load_der_x509_certificate(certificate_der).public_key()
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


@dataclass(frozen=True)
class Address:
    """Where and how to connect. ``password`` for brokers without client certificates."""

    port: int
    host: str = "127.0.0.1"
    password: str | None = None
    tls: Tls | None = None


class _Client(paho.Client):
    """paho, but connecting to ``address`` while TLS checks the name given to ``connect``."""

    def __init__(self, address: Address, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._address = address

    def _create_socket_connection(self) -> socket.socket:
        return socket.create_connection((self._address.host, self._address.port), CONNECT_TIMEOUT_S)


@dataclass(eq=False)
class MqttLink:
    """``Link`` on a broker; made by ``Hub.link``."""

    user: str
    address: Address
    hub: Hub
    client_id: str
    clean: bool = False
    receive_maximum_bytes: int = 1024 * 1024
    _client: Any = None
    _up: bool = False
    _closed: bool = False
    _events: deque[LinkEvent] = field(default_factory=deque)
    _patterns: list[tuple[str, int]] = field(default_factory=list)
    _failures: int = 0
    _retry_at: float = 0.0
    _socket: Any = None
    _pending_subscriptions: set[int] = field(default_factory=set)
    last_error: str = ""

    @property
    def connected(self) -> bool:
        return self._up

    def subscribe(self, pattern: str, qos: int = 1) -> None:
        self._patterns.append((pattern, qos))
        if self._up:
            self._client.subscribe(pattern, qos)
            self.hub.touched(self)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        if not self._up:
            return False
        try:
            info = self._client.publish(topic, payload, qos, retain)
        except ValueError as error:
            raise OtaError(Reason.FORMAT, f"topic or payload not possible in MQTT: {error}") from None
        self.hub.touched(self)
        return bool(info.rc == 0)

    def poll(self, timeout_s: float = 0.0) -> list[LinkEvent]:
        if not self._events:
            self.hub.wait(timeout_s, self)
        return self.take()

    def take(self) -> list[LinkEvent]:
        """Events so far, without waiting: for callers that wait on the hub themselves."""
        out = list(self._events)
        self._events.clear()
        self.hub.ready.pop(self, None)
        return out

    def _emit(self, event: LinkEvent) -> None:
        self._events.append(event)
        self.hub.ready[self] = None

    def retry_now(self) -> None:
        """The broker is known to be back: do not wait out the pause."""
        self._failures, self._retry_at = 0, 0.0

    def close(self) -> None:
        self._closed = True
        if self._client is not None:
            with contextlib.suppress(OSError, ValueError):
                self._client.disconnect()
                self._client.loop_write()
        self.hub.forget(self)
        self._up = False

    # ---- used by the hub ----------------------------------------------------------------------------------

    def connect(self, now: float) -> None:
        """One attempt; the outcome arrives as an event."""
        client = _Client(
            self.address,
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            clean_session=self.clean,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(0)  # the window above decides, not the client
        client.max_queued_messages_set(0)
        if self.address.password is not None:
            client.username_pw_set(self.user, self.address.password)
        if self.address.tls is not None:
            client.tls_set_context(self.address.tls.context())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        self._client = client
        try:
            # The name in the certificate is what TLS checks; the address may be a number.
            name = self.address.tls.server_name if self.address.tls else self.address.host
            client.connect(name, self.address.port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            self._lost(now, f"{type(error).__name__}: {error}")
            return
        self._socket = client.socket()
        if self._socket is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.hub.watch(self)

    def _lost(self, now: float, why: str) -> None:
        was_up, self._up = self._up, False
        self.last_error = why
        self.hub.unwatch(self)
        self._failures += 1
        pause = min(RECONNECT_MAX_S, RECONNECT_FIRST_S * 2.0 ** min(self._failures - 1, 10))
        # Jitter from the identity: repeatable, and different for every device.
        draw = hashlib.sha256(f"{self.client_id}/{self._failures}".encode()).digest()[0] / 255
        self._retry_at = now + pause * (0.5 + 0.5 * draw)
        if was_up or self._failures == 1:
            self._emit(Down(why))

    def _on_connect(self, client: Any, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        if code.is_failure:
            self.last_error = str(code)
            return  # the broker closes; on_disconnect follows
        self._pending_subscriptions.clear()
        if not self._patterns:
            self._ready()
        for pattern, qos in self._patterns:
            _, mid = client.subscribe(pattern, qos)
            self._pending_subscriptions.add(mid)
        self.hub.touched(self)

    def _ready(self) -> None:
        self._up = True
        self._failures = 0
        self._emit(Up())

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, codes: Any, properties: Any) -> None:
        self._pending_subscriptions.discard(mid)
        if not self._pending_subscriptions and not self._up:
            # Retained messages may have come before the acknowledgement: keep their order behind Up.
            early = self.take()
            self._ready()
            for event in early:
                self._emit(event)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        if client is self._client and not self._closed:
            self._lost(time.monotonic(), self.last_error or str(code))

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        if len(message.payload) <= self.receive_maximum_bytes:
            self._emit(Incoming(message.topic, message.payload, bool(message.retain)))

    def _pending(self) -> bool:
        try:
            return bool(self._socket.pending())
        except (OSError, ValueError):
            return False

    def service(self, readable: bool, writable: bool) -> None:
        client = self._client
        if readable:
            client.loop_read()
            # TLS may hold whole records that the selector cannot see.
            while isinstance(self._socket, ssl.SSLSocket) and client.socket() is not None and self._pending():
                client.loop_read()
        if writable or client.want_write():
            client.loop_write()


class Hub:
    """All MQTT links of a process on one selector."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.links: list[MqttLink] = []
        self._watched: dict[MqttLink, Any] = {}
        self._touched: set[int] = set()
        self._misc_at = 0.0
        self._reconnect_at = 0.0
        self.ready: dict[MqttLink, None] = {}  # links with events, in the order these came

    def link(
        self, address: Address, user: str, *, client_id: str | None = None, clean: bool = False
    ) -> MqttLink:
        made = MqttLink(user, address, self, client_id or user, clean)
        self.links.append(made)
        self._reconnect_at = 0.0
        return made

    def touched(self, link: MqttLink) -> None:
        """Something was queued for sending: the selector has to look for room in the socket."""
        if link._client.want_write() and link in self._watched:
            self._selector.modify(self._watched[link], selectors.EVENT_READ | selectors.EVENT_WRITE, link)
            self._touched.add(id(link))

    def watch(self, link: MqttLink) -> None:
        self.unwatch(link)
        self._watched[link] = link._socket
        self._selector.register(link._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, link)
        self._touched.add(id(link))

    def unwatch(self, link: MqttLink) -> None:
        sock = self._watched.pop(link, None)
        if sock is not None:
            with contextlib.suppress(KeyError, ValueError, OSError):
                self._selector.unregister(sock)

    def forget(self, link: MqttLink) -> None:
        self.unwatch(link)
        self.ready.pop(link, None)
        if link in self.links:
            self.links.remove(link)

    def wait(self, timeout_s: float, until: MqttLink | None = None) -> list[MqttLink]:
        """Serve all sockets until something happened (for ``until``, if given) or the time is over.

        Returns the links that have events.
        """
        end = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            self._reconnect(now)
            for key, mask in self._selector.select(0 if self._any(until) else max(0.0, min(end - now, 0.05))):
                link: MqttLink = key.data
                link.service(bool(mask & selectors.EVENT_READ), bool(mask & selectors.EVENT_WRITE))
                if id(link) in self._touched and not link._client.want_write() and link in self._watched:
                    self._selector.modify(key.fileobj, selectors.EVENT_READ, link)
                    self._touched.discard(id(link))
            if now - self._misc_at > 1.0:
                self._misc_at = now
                for link in list(self._watched):
                    link._client.loop_misc()
            if self._any(until) or time.monotonic() >= end:
                return list(self.ready)

    def _any(self, until: MqttLink | None) -> bool:
        if until is not None:
            return bool(until._events)
        return bool(self.ready)

    def _reconnect(self, now: float) -> None:
        if now < self._reconnect_at:
            return
        self._reconnect_at = now + 0.02  # looking at hundreds of links each time would cost more than reading
        for link in list(self.links):
            if link not in self._watched and not link._closed and now >= link._retry_at:
                link.connect(now)

    def close(self) -> None:
        for link in list(self.links):
            link.close()
        self._selector.close()
