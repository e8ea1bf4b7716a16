"""The update chain behind `UpdateChain`: office, server and broker on one side, a gateway agent for each pack
on the other, all driven by simulated time.

The state machines are those of `ota`, unchanged; what they ask of a clock, a link and a mailbox comes from
the world. Keys are made from the scenario's seed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twin.adapters.links import RUNGS, Air, BrokerRung, GatewayLink
from twin.ports import Modem, UpdateNews

MAX_ROUNDS = 10_000  # exchanges at one instant; more means that two parties chase each other
SEVERITY = {"success": "info", "failed": "warning", "refused": "warning", "cancelled": "warning"}


@dataclass(frozen=True)
class Device:
    """A pack as the update chain sees it: where it is, its mailbox, what it left the factory with."""

    shard: int
    pack: int
    path: str
    modem: Modem


@dataclass(frozen=True)
class Catalogue:
    """What can be ordered: signed files by release name, and parameter sets made on demand.

    file : release -> signed firmware file
    parameter_file : (changes, counter) -> signed parameter file
    """

    file: Callable[[str], bytes]
    parameter_file: Callable[[Mapping[str, int], int], bytes]


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
    name: str
    host: Any
    link: GatewayLink
    phase: int = 0
    deferred: int = 0
    ordered: bytes = b""
    full_bytes: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, now_s: float | None, reason: Any, detail: str) -> None:
        """What the agent refused, deferred or gave up."""
        self.notes.append(f"{reason.name}: {detail}" if detail else str(reason.name))


def device_name(path: str, taken: set[str]) -> str:
    """`site/rack-1/pack-1` as an id that MQTT topics and certificates take; different for different packs."""
    from ota.topics import DEVICE_ID

    name = path.replace("/", "-").replace("_", "-")
    if name in taken or not DEVICE_ID.fullmatch(name):
        name = f"pack-{len(taken) + 1}"
    return name


class Chain:
    """See module docstring. `office` is an `ota.office.Office`, already holding the first releases."""

    def __init__(
        self,
        office: Any,
        folder: Path,
        devices: Sequence[Device],
        catalogue: Catalogue,
        broker: str,
        air: Air,
    ) -> None:
        from ota.gateway import AgentHost, MemoryStore, ServerHost
        from ota.topics import SERVER_USER

        self._office, self._folder, self._catalogue = office, folder, catalogue
        names: dict[str, Device] = {}
        for device in devices:
            names[device_name(device.path, set(names))] = device
        self._broker: BrokerRung = RUNGS[broker].make(list(names))
        self._units: dict[tuple[int, int], _Unit] = {}
        self._by_link: dict[Any, _Unit] = {}
        self._server_link = self._broker.link(SERVER_USER)
        self._server = ServerHost(office.server, self._server_link)
        for name, device in names.items():
            config, state = office.enrol(name)
            link = GatewayLink(self._broker.link(name), air, name)
            host = AgentHost(config, state, link, _Port(device.modem, device.pack), MemoryStore())
            unit = _Unit(device, name, host, link)
            host.log = unit.note
            self._units[device.shard, device.pack] = unit
            self._by_link[link.inner] = unit
        self._connected = False
        self._running = True
        self._server_events: list[Any] = []
        self._parameter_counter = 1

    # ---- orders -------------------------------------------------------------------------------------------

    def order(
        self, packs: list[tuple[int, int]], image: str | None, parameters: dict[str, int], now_s: float
    ) -> list[UpdateNews]:
        self._office.now_s = now_s
        names = []
        if image is not None:
            names.append(self._release(f"firmware-{image}", self._catalogue.file(image)))
        if parameters:
            self._parameter_counter += 1
            counter = self._parameter_counter
            file = self._catalogue.parameter_file(parameters, counter)
            names.append(self._release(f"parameters-{counter}", file))
        full = sum(len(self._office.releases[name].file) for name in names)
        targets = [self._office.releases[name].name for name in names]
        news = []
        for key in packs:
            unit = self._units[key]
            deployment, messages = self._office.server.order(unit.name, targets, now_s)
            self._server.send(messages)
            unit.ordered, unit.full_bytes = deployment.id, full
            news.append(self._news(unit, "update_ordered", "info", full, "B", ", ".join(names)))
        return news

    def _release(self, name: str, file: bytes) -> str:
        """Into the repository once, with deltas from every earlier release of its kind."""
        if name not in self._office.releases:
            kind = name.partition("-")[0]
            bases = [known for known in self._office.releases if known.startswith(f"{kind}-")]
            self._office.release(name, file, bases)
        return name

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
        self._running = running

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
        shutil.rmtree(self._folder, ignore_errors=True)


def sorted_by_device(events: list[Any]) -> list[Any]:
    """Server events with messages of different devices in a fixed order; those of one device keep theirs."""
    from ota.transport.base import Incoming

    link = [event for event in events if not isinstance(event, Incoming)]
    rest = [event for event in events if isinstance(event, Incoming)]
    return link + sorted(rest, key=lambda event: event.topic.split("/")[2])


def open_office(seed: int, now_s: float, hardware: str) -> tuple[Any, Path]:
    """A fresh office in a folder of its own, which `Chain.close` removes."""
    from ota.office import Office

    folder = Path(tempfile.mkdtemp(prefix="twin-updates-"))
    return Office(folder / "office", seed=seed, now_s=now_s, hardware=hardware), folder
