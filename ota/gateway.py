"""Hosts for the state machines: here are the sockets, files and clocks.

``AgentHost`` carries out the commands of one agent (``device``) over a link and a mailbox port; a gateway
process runs many of them. ``ServerHost`` does the same for ``server``. Blocks are stored before the state
that counts them, the state before the messages that tell of it, so a process killed anywhere continues from
what it has on disk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from . import device, frames, limits, topics
from .delta import container
from .errors import OtaError, Reason
from .server import Message, UpdateServer
from .transport.base import Down, Incoming, Link, LinkEvent, Up


class McuPort(Protocol):
    """The modem mailbox: whole frames in both directions."""

    def send(self, frame: bytes) -> None: ...

    def receive(self) -> list[bytes]: ...


class BlockStore(Protocol):
    """Verified blocks of artifacts under way."""

    def put(self, digest: bytes, index: int, block: bytes) -> None: ...

    def file(self, digest: bytes) -> bytes: ...

    def forget(self, digest: bytes) -> None: ...


class MemoryStore:
    """Blocks in memory; lost with the process."""

    def __init__(self) -> None:
        self._blocks: dict[bytes, dict[int, bytes]] = {}

    def put(self, digest: bytes, index: int, block: bytes) -> None:
        self._blocks.setdefault(digest, {})[index] = block

    def file(self, digest: bytes) -> bytes:
        rows = self._blocks.get(digest, {})
        return b"".join(rows[i] for i in sorted(rows))

    def forget(self, digest: bytes) -> None:
        self._blocks.pop(digest, None)


class FolderStore:
    """Blocks in one sparse file per artifact; survives the process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def _path(self, digest: bytes) -> Path:
        return self.folder / f"{digest.hex()}.part"

    def put(self, digest: bytes, index: int, block: bytes) -> None:
        handle = os.open(self._path(digest), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(handle, block, index * limits.BLOCK_SIZE)
            os.fdatasync(handle)
        finally:
            os.close(handle)

    def file(self, digest: bytes) -> bytes:
        path = self._path(digest)
        return path.read_bytes() if path.exists() else b""

    def forget(self, digest: bytes) -> None:
        self._path(digest).unlink(missing_ok=True)


@dataclass(eq=False)
class AgentHost:
    """One agent with its link, mailbox and store.

    ``keep_state`` is called with ``device.dump(state)`` after every step that changed the durable part.
    """

    config: device.Config
    state: device.State
    link: Link
    port: McuPort
    store: BlockStore
    keep_state: Callable[[bytes], None] | None = None
    log: Callable[[float | None, Reason, str], None] = lambda now, reason, detail: None
    events: int = 0
    _container: tuple[bytes, bytes] = (b"", b"")
    _kept: bytes = b""
    _queue: deque[device.Event] = field(default_factory=deque)

    def __post_init__(self) -> None:
        name = self.config.device
        for leaf in (topics.DESIRED, topics.DATA, topics.ACK):
            self.link.subscribe(topics.topic(name, leaf), topics.QOS[leaf])

    def feed(self, event: device.Event, now_s: float | None) -> None:
        """One event and everything it causes at the mailbox."""
        self._queue.append(event)
        while self._queue:
            self.events += 1
            self.state, commands = device.step(self.config, self.state, self._queue.popleft(), now_s)
            # Blocks first, then the state that counts them, then words to the outside.
            for command in commands:
                if isinstance(command, device.Keep):
                    self.store.put(command.digest, command.index, command.block)
            self._keep()
            for command in commands:
                self._carry_out(command, now_s)
            self._queue.extend(device.FromMcu(frame) for frame in self.port.receive())

    def _keep(self) -> None:
        if self.keep_state is not None:
            data = device.dump(self.state)
            if data != self._kept:
                self.keep_state(data)
                self._kept = data

    def _carry_out(self, command: device.Command, now_s: float | None) -> None:
        match command:
            case device.Publish(leaf, payload):
                self.link.publish(topics.topic(self.config.device, leaf), payload, qos=topics.QOS[leaf])
            case device.SendMcu(frame):
                self.port.send(frame)
            case device.SendPieces():
                self._send_pieces(command)
            case device.Forget(digest):
                self.store.forget(digest)
                self._container = (b"", b"")
            case device.Note(reason, detail):
                self.log(now_s, reason, detail)

    def _send_pieces(self, command: device.SendPieces) -> None:
        if self._container[0] != command.digest:
            file = self.store.file(command.digest)
            self._container = (command.digest, container.wrap_full(file) if command.wrap else file)
        data = self._container[1]
        end = command.offset + command.length
        at = command.offset
        while True:
            piece = data[at : min(at + frames.DATA_MAX, end)]
            self.port.send(frames.pack_data(command.image_id, at, piece))
            at += len(piece)
            if at >= end or not piece:
                return

    def on_link(self, events: list[LinkEvent], now_s: float | None) -> None:
        """Link events in order, as events of the agent."""
        name = self.config.device
        for event in events:
            if isinstance(event, Up):
                self.feed(device.Connected(), now_s)
            elif isinstance(event, Down):
                self.feed(device.Disconnected(), now_s)
            else:
                self._incoming(name, event, now_s)

    def _incoming(self, name: str, event: Incoming, now_s: float | None) -> None:
        try:
            owner, leaf = topics.parse(event.topic)
        except OtaError as error:
            self.log(now_s, error.reason, "topic")
            return
        if owner != name:
            self.log(now_s, Reason.IDENTITY, f"message for {owner}")
        elif leaf == topics.DATA:
            self.feed(device.DataReceived(event.payload), now_s)
        elif leaf == topics.DESIRED:
            self.feed(device.DesiredReceived(event.payload), now_s)
        elif leaf == topics.ACK:
            self.feed(device.AckReceived(event.payload), now_s)

    def mailbox(self, now_s: float | None) -> None:
        """Frames the MCU sent by itself."""
        for frame in self.port.receive():
            self.feed(device.FromMcu(frame), now_s)

    def tick(self, now_s: float | None) -> None:
        self.feed(device.Tick(), now_s)


@dataclass(eq=False)
class ServerHost:
    """The update server on a link."""

    server: UpdateServer
    link: Link
    wants: dict[str, Message] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for leaf in (topics.REQUEST, topics.REPORT):
            self.link.subscribe(f"{topics.PREFIX}/+/{leaf}", topics.QOS[leaf])

    def send(self, messages: list[Message]) -> None:
        """Publish; desired states are remembered and offered again at each connection, because a broker that
        lost its memory has lost the retained ones too."""
        for message in messages:
            _, leaf = topics.parse(message.topic)
            if message.retain:
                self.wants[message.topic] = message
            self.link.publish(message.topic, message.payload, qos=topics.QOS[leaf], retain=message.retain)

    def on_link(self, events: list[LinkEvent], now_s: float) -> int:
        """Handle link events; returns the number of messages handled."""
        handled = 0
        for event in events:
            if isinstance(event, Up):
                self.send(list(self.wants.values()))
            elif isinstance(event, Incoming):
                self.send(self.server.handle(event.topic, event.payload, now_s))
                handled += 1
        return handled
