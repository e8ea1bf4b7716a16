"""The ladder of links between gateways and update server: a real broker, or the same frames in memory.

Every message really passes the broker that the scenario chose. What the mobile network does to it on its way
to or from a gateway (latency, bandwidth, loss) is decided here, on simulated time and from a hash of the
message, so a run repeats to the byte whatever the sockets do.

A real broker is at rest before the simulated clock moves (`settle`), and is really killed in an outage.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ota.transport.base import Link, LinkEvent

RESEND_S = 1.0  # pause of the transport before it sends an acknowledged message again
SERVER_START_S = 30.0  # wall time a broker and its clients get to find each other


class LinkError(RuntimeError):
    """The broker that the scenario asks for cannot run here; the message says what to install or choose."""

    exit_code = 2


class BrokerRung(Protocol):
    """A broker with a link for each user. `settle` returns when no message is under way any more."""

    def link(self, user: str) -> Link: ...

    def ready(self) -> None:
        """All links made so far are connected (or, after `kill`, know that they are not)."""

    def settle(self, take: Callable[[Link, list[LinkEvent]], None]) -> None: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...

    def close(self) -> None: ...


class MemoryRung:
    """The frames of MQTT without sockets."""

    def __init__(self, users: Sequence[str]) -> None:
        from ota.transport.memory import MemoryBroker

        self._broker = MemoryBroker()
        self._links: list[Link] = []

    def link(self, user: str) -> Link:
        self._links.append(self._broker.connect(user))
        return self._links[-1]

    def ready(self) -> None:
        """A link in memory connects when it is polled."""

    def settle(self, take: Callable[[Link, list[LinkEvent]], None]) -> None:
        while True:
            some = [(link, link.poll()) for link in self._links]
            if not any(events for _, events in some):
                return
            for link, events in some:
                if events:
                    take(link, events)

    def kill(self) -> None:
        self._broker.kill()

    def start(self) -> None:
        self._broker.restart()

    def close(self) -> None:
        for link in self._links:
            link.close()


class MqttRung:
    """paho clients of a broker process (mosquitto, TLS 1.3, certificates) or thread (embedded)."""

    def __init__(self, users: Sequence[str], make: Callable[[Path, Sequence[str]], tuple[Any, Any]]) -> None:
        from ota.transport.mqtt import Hub

        self._folder = tempfile.TemporaryDirectory(prefix="twin-broker-")
        self._broker, self._address = make(Path(self._folder.name), users)
        self._hub = Hub()
        self._links: list[Any] = []
        self._settler: Any = None
        self._alive = True

    def link(self, user: str) -> Link:
        self._links.append(self._hub.link(self._address(user), user))
        return self._links[-1]

    def ready(self) -> None:
        if self._settler is None:
            from ota.transport.settle import Settler

            self._taken: list[tuple[Link, list[LinkEvent]]] = []
            self._settler = Settler([(link, self._taker(link)) for link in self._links])
        end = time.monotonic() + SERVER_START_S
        while any(link.connected != self._alive for link in self._links):
            self._hub.wait(0.02)
            if time.monotonic() > end:
                wanted = "reach" if self._alive else "notice the end of"
                raise LinkError(f"gateways do not {wanted} the broker: {self._links[0].last_error}")

    def _taker(self, link: Link) -> Callable[[list[LinkEvent]], None]:
        return lambda events: self._taken.append((link, events))

    def settle(self, take: Callable[[Link, list[LinkEvent]], None]) -> None:
        if self._alive:
            self._settler.settle()
        else:
            for link in self._links:
                self._taken.append((link, link.take()))
        taken, self._taken[:] = list(self._taken), []
        # By link, so that the order between clients does not depend on the sockets.
        for link in self._links:
            events = [event for one, some in taken if one is link for event in some]
            if events:
                take(link, events)

    def kill(self) -> None:
        self._broker.kill()
        self._alive = False
        self.ready()

    def start(self) -> None:
        self._broker.start()
        for link in self._links:
            link.retry_now()
        self._alive = True
        self.ready()

    def close(self) -> None:
        self._hub.close()
        self._broker.stop()
        self._folder.cleanup()


def _mosquitto(folder: Path, users: Sequence[str]) -> tuple[Any, Any]:
    from ota.pki import Authority, client_tls, pin_of
    from ota.topics import SERVER_USER
    from ota.transport import mosquitto
    from ota.transport.mqtt import Address

    if mosquitto.find() is None:
        raise LinkError(
            "updates.link.broker: mosquitto is not installed; install it (Debian: apt-get install "
            "mosquitto), or choose 'embedded' or 'memory'"
        )
    authority = Authority(folder / "pki")
    server, spare = authority.server("server"), authority.server("spare")
    broker = mosquitto.Mosquitto(
        folder / "broker", tls=(authority.ca, server.certificate, server.key, None), persistence=True
    )
    issued = {user: authority.client(user) for user in (SERVER_USER, *users)}

    pins = [pin_of(server), pin_of(spare)]

    def address(user: str) -> Address:
        return Address(broker.port, tls=client_tls(authority, issued[user], pins))

    return broker, address


def _embedded(folder: Path, users: Sequence[str]) -> tuple[Any, Any]:
    from ota.topics import SERVER_USER
    from ota.transport.embedded import EmbeddedBroker
    from ota.transport.mqtt import Address

    passwords = {user: hashlib.sha256(user.encode()).hexdigest() for user in (SERVER_USER, *users)}
    broker = EmbeddedBroker(passwords)
    return broker, lambda user: Address(broker.port, password=passwords[user])


@dataclass(frozen=True)
class Rung:
    about: str
    make: Callable[[Sequence[str]], BrokerRung]


RUNGS: dict[str, Rung] = {
    "mosquitto": Rung(
        "a real MQTT broker process: TLS 1.3, client certificates, pinned", lambda u: MqttRung(u, _mosquitto)
    ),
    "embedded": Rung("a real MQTT broker in this process, no set-up", lambda u: MqttRung(u, _embedded)),
    "memory": Rung("the same frames without sockets; for large fleets", MemoryRung),
}


@dataclass(frozen=True)
class Air:
    """What lies between a gateway and the broker. `loss` 0…1 of messages, each way."""

    seed: int
    latency_s: float
    bandwidth_B_per_s: float
    loss: float


@dataclass(eq=False)
class GatewayLink:
    """A gateway's `Link` through the air; `now_s` is set before it is used."""

    inner: Link
    air: Air
    user: str
    now_s: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    lost: int = 0
    _up: deque[tuple[float, str, bytes, int, bool]] = field(default_factory=deque)
    _down: deque[tuple[float, LinkEvent]] = field(default_factory=deque)
    _free_s: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _sent: dict[bytes, int] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        return self.inner.connected

    def subscribe(self, pattern: str, qos: int = 1) -> None:
        self.inner.subscribe(pattern, qos)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        if not self.inner.connected:
            return False
        due_s = self._due(0, topic, payload, qos)
        self.bytes_up += len(payload)
        if due_s is not None:
            self._up.append((due_s, topic, bytes(payload), qos, retain))
        return True

    def _due(self, way: int, topic: str, payload: bytes, qos: int) -> float | None:
        """When the message is through; None when it is lost. What MQTT acknowledges (quality of service 1) is
        sent again until it is through, which takes longer; the rest is gone."""
        key = hashlib.sha256(f"{self.air.seed}/{way}/{self.user}/{topic}/".encode() + payload).digest()
        late_s = 0.0
        while True:
            count = self._sent[key] = self._sent.get(key, 0) + 1
            draw = hashlib.sha256(key + count.to_bytes(4, "big")).digest()
            start = max(self.now_s, self._free_s[way])
            self._free_s[way] = start + len(payload) / self.air.bandwidth_B_per_s
            if int.from_bytes(draw[:8], "big") >= self.air.loss * 2.0**64:
                return self._free_s[way] + self.air.latency_s + late_s
            self.lost += 1
            if qos == 0:
                return None
            late_s += RESEND_S + 2.0 * self.air.latency_s

    def forward(self) -> int:
        """Hand the broker what has come through by now; the number of messages."""
        count = 0
        while self._up and self._up[0][0] <= self.now_s:
            _, topic, payload, qos, retain = self._up.popleft()
            count += self.inner.publish(topic, payload, qos=qos, retain=retain)
        return count

    def arrived(self, events: list[LinkEvent]) -> None:
        """What the broker sent: on its way to the gateway from now on."""
        from ota.transport.base import Down, Incoming

        for event in events:
            if isinstance(event, Incoming):
                self.bytes_down += len(event.payload)
                due_s = self._due(1, event.topic, event.payload, _qos(event.topic))
                if due_s is not None:
                    self._down.append((due_s, event))
                continue
            if isinstance(event, Down):  # what was in the air is lost with the connection
                self._up.clear()
                self._down.clear()
            self._down.append((self.now_s, event))

    def poll(self, timeout_s: float = 0.0) -> list[LinkEvent]:
        out = []
        while self._down and self._down[0][0] <= self.now_s:  # in order, as one connection keeps it
            out.append(self._down.popleft()[1])
        return out

    def close(self) -> None:
        self.inner.close()


def _qos(topic: str) -> int:
    """Quality of service with which the parties of the update protocol send on a topic."""
    from ota import topics

    return topics.QOS.get("/".join(topic.split("/")[3:]), 0)
