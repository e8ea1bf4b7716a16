"""The update chain behind `UpdateChain`: office, server and broker on one side, a gateway agent for each pack
on the other, all driven by simulated time.

The state machines are those of `ota`, unchanged; what they ask of a clock, a link and a mailbox comes from
the world. Keys are made from the scenario's seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twin.adapters.links import RUNGS, Air, BrokerRung, GatewayLink
from twin.ports import Modem, UpdateNews

MAX_ROUNDS = 10_000  # exchanges at one instant; more means that two parties chase each other
SEVERITY = {"success": "info", "failed": "warning", "refused": "warning", "cancelled": "warning"}


@dataclass(frozen=True)
class Device:
    """A pack as the update chain sees it: its place, its id on the air, its mailbox, its pack design."""

    shard: int
    pack: int
    name: str
    modem: Modem
    design: str


@dataclass(frozen=True)
class Shelf:
    """What can be ordered.

    firmware : release -> signed file
    parameters : (pack design, changes, counter) -> signed file
    """

    firmware: Callable[[str], bytes]
    parameters: Callable[[str, Mapping[str, int], int], bytes]


class _Port:
    """The mailbox of one pack, as `ota.gateway` wants it."""

    def __init__(self, modem: Modem, pack: int) -> None:
        self._modem, self._pack = modem, pack

    def send(self, frame: bytes) -> None:
        self._modem.send(self._pack, frame)

    def receive(self) -> list[bytes]:
        return self._modem.receive(self._pack)


@dataclass(eq=False)
class _Unit:
    """A gateway agent with what has been told of it."""

    device: Device
    host: Any
    link: GatewayLink
    phase: int = 0
    deferred: int = 0
    ordered: bytes = b""
    full_bytes: int = 0  # of all orders so far, as plain images
    notes: list[str] = field(default_factory=list)

    def note(self, now_s: float | None, reason: Any, detail: str) -> None:
        """What the agent refused, deferred or gave up."""
        self.notes.append(f"{reason.name}: {detail}" if detail else str(reason.name))


def device_names(paths: Iterable[str]) -> dict[str, str]:
    """`site/rack-1/pack-1` as an id that MQTT topics and certificates take, a function of the path alone."""
    from ota.topics import DEVICE_ID

    names = {}
    for path in paths:
        name = path.replace("/", "-")
        if "_" in name or not DEVICE_ID.fullmatch(name):  # a short digest keeps what is alike apart
            digest = hashlib.sha256(path.encode()).hexdigest()[:8]
            name = f"{name.replace('_', '-')[:39]}-{digest}"
        names[path] = name
    return names


class Chain:
    """See module docstring. `office` is an `ota.office.Office`, already holding the first releases."""

    def __init__(
        self,
        office: Any,
        devices: Sequence[Device],
        shelf: Shelf,
        broker: str,
        air: Air,
    ) -> None:
        from ota.gateway import AgentHost, MemoryStore, ServerHost
        from ota.topics import SERVER_USER

        self._office, self._shelf = office, shelf
        self._broker: BrokerRung = RUNGS[broker].make([device.name for device in devices])
        self._units: dict[tuple[int, int], _Unit] = {}
        self._by_link: dict[Any, _Unit] = {}
        self._server_link = self._broker.link(SERVER_USER)
        self._server = ServerHost(office.server, self._server_link)
        for device in devices:
            config, state = office.enrol(device.name)
            link = GatewayLink(self._broker.link(device.name), air, device.name)
            host = AgentHost(config, state, link, _Port(device.modem, device.pack), MemoryStore())
            unit = _Unit(device, host, link)
            host.log = unit.note
            self._units[device.shard, device.pack] = unit
            self._by_link[link.inner] = unit
        self._connected = False
        self._server_events: list[Any] = []
        self._parameter_counter = 1

    # ---- orders -------------------------------------------------------------------------------------------

    def stock(self, release: str) -> None:
        """Put a release into the repository, so that later ones get deltas from it."""
        self._release(f"firmware-{release}", self._shelf.firmware(release))

    def order(
        self, packs: list[tuple[int, int]], image: str | None, parameters: dict[str, int], now_s: float
    ) -> list[UpdateNews]:
        self._office.now_s = now_s
        firmware = []
        if image is not None:
            self.stock(image)
            firmware.append(f"firmware-{image}")
        counter = self._parameter_counter = self._parameter_counter + bool(parameters)
        news = []
        for key in packs:
            unit = self._units[key]
            names = list(firmware)
            if parameters:
                design = unit.device.design
                names.append(f"parameters-{design}-{counter}")
                self._release(names[-1], self._shelf.parameters(design, parameters, counter))
            releases = [self._office.releases[name] for name in names]
            deployment, messages = self._office.server.order(
                unit.device.name, [release.name for release in releases], now_s
            )
            self._server.send(messages)
            unit.ordered, full = deployment.id, sum(len(release.file) for release in releases)
            unit.full_bytes += full
            news.append(self._news(unit, "update_ordered", "info", full, "B", ", ".join(names)))
        return news

    def _release(self, name: str, file: bytes) -> None:
        """Into the repository once, with deltas from the earlier releases of its kind."""
        if name not in self._office.releases:
            kind = name.rpartition("-")[0]
            bases = [known for known in self._office.releases if known.rpartition("-")[0] == kind]
            self._office.release(name, file, bases)

    # ---- talking ------------------------------------------------------------------------------------------

    def exchange(self, now_s: float) -> list[UpdateNews]:
        if not self._connected:
            self._broker.ready()
            self._connected = True
        self._office.now_s = now_s
        for unit in self._units.values():
            unit.link.now_s = now_s
            unit.host.mailbox(now_s)
            unit.host.tick(now_s)
        for _ in range(MAX_ROUNDS):
            if not self._round(now_s):
                break
        else:
            raise RuntimeError("gateways and server do not come to rest")
        news = []
        for unit in self._units.values():
            news += self._changes(unit)
        return news

    def _round(self, now_s: float) -> bool:
        """Deliver what is due; whether anything moved."""
        moved = False
        for unit in self._units.values():
            moved |= unit.link.forward() > 0
        self._broker.settle(self._take)
        if self._server_events:
            events, self._server_events = self._server_events, []
            self._server.on_link(sorted_by_device(events), now_s)
            moved = True
        for unit in self._units.values():
            events = unit.link.poll()
            if events:
                unit.host.on_link(events, now_s)
                moved = True
        return moved

    def _take(self, link: Any, events: list[Any]) -> None:
        if link is self._server_link:
            self._server_events += events
        else:
            self._by_link[link].link.arrived(events)

    def set_broker(self, running: bool) -> None:
        if running:
            self._broker.start()
        else:
            self._broker.kill()

    # ---- what the world asks ------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return any(self._open(unit) for unit in self._units.values())

    def under_way(self, shard: int, pack: int) -> bool:
        unit = self._units.get((shard, pack))
        return unit is not None and self._open(unit)

    def _open(self, unit: _Unit) -> bool:
        """Not finished on either side: agent idle, and its last report accepted by the server."""
        if not unit.ordered:
            return False
        return not self._office.server.deployments[unit.ordered].outcome.terminal or bool(unit.phase)

    def waits_for_contactors(self) -> list[tuple[int, int]]:
        from ota.errors import Reason

        waiting = (Reason.DEFER_CONTACTORS, Reason.DEFER_CHARGING)
        return [key for key, unit in self._units.items() if unit.host.state.deferred in waiting]

    def _changes(self, unit: _Unit) -> list[UpdateNews]:
        """Phases, deferrals and outcomes since the last look."""
        from ota.device import Phase

        state = unit.host.state
        news = []
        if int(state.phase) != unit.phase:
            unit.phase = int(state.phase)
            if state.phase is Phase.IDLE and state.outcome is not None:
                outcome = state.outcome.name.lower()
                why = unit.notes[-1] if unit.notes else ""
                text = "runs what was ordered, by digest" if outcome == "success" else why
                severity = SEVERITY.get(outcome, "warning")
                news.append(self._news(unit, f"update_{outcome}", severity, state.bytes_received, "B", text))
            elif state.phase is not Phase.IDLE:
                kind = f"update_{state.phase.name.lower()}"
                how = ", ".join("delta" if item.delta else "full image" for item in state.items)
                news.append(self._news(unit, kind, "info", state.bytes_received, "B", how))
        if int(state.deferred) != unit.deferred:
            unit.deferred = int(state.deferred)
            if unit.deferred:
                news.append(self._news(unit, "update_waits", "info", 1.0, "1", state.deferred.name))
        return news

    @staticmethod
    def _news(unit: _Unit, kind: str, severity: str, value: float, unit_name: str, text: str) -> UpdateNews:
        return UpdateNews(unit.device.shard, unit.device.pack, kind, severity, float(value), unit_name, text)

    def traffic(self) -> dict[str, float]:
        units = self._units.values()
        return {
            "up_B": float(sum(u.link.bytes_up for u in units)),
            "down_B": float(sum(u.link.bytes_down for u in units)),
            "messages_lost": float(sum(u.link.lost for u in units)),
            "full_images_B": float(sum(u.full_bytes for u in units)),
        }

    def close(self) -> None:
        self._broker.close()
        self._office.server.close()


def sorted_by_device(events: list[Any]) -> list[Any]:
    """Server events with messages of different devices in a fixed order; those of one device keep theirs."""
    from ota.transport.base import Incoming

    link = [event for event in events if not isinstance(event, Incoming)]
    rest = [event for event in events if isinstance(event, Incoming)]
    return link + sorted(rest, key=lambda event: event.topic.split("/")[2])
