"""A TCP proxy that understands MQTT and does harm on purpose: drop, double, swap, throttle, cut, freeze.

Only PUBLISH packets are touched, connection control passes. The fate of a message is a hash of (seed,
direction, topic, payload, how often seen), so a run does not depend on timing for *which* messages suffer.
``lie``: a dropped QoS 1 message from a client is acknowledged all the same, as a broker with a full queue
does. ``throttle_B_per_s`` limits what reaches clients.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import threading
from collections import defaultdict
from dataclasses import dataclass

from ..errors import OtaError, Reason, require
from .mosquitto import free_port

PACKET_MAX = 1024 * 1024


@dataclass(frozen=True)
class Harm:
    """Fractions 0…1 of PUBLISH packets; ``blackhole``: topics containing this are dropped always."""

    seed: int = 0
    drop: float = 0.0
    duplicate: float = 0.0
    swap: float = 0.0
    lie: bool = False
    throttle_B_per_s: float | None = None
    blackhole: str | None = None

    def draw(self, key: bytes, what: str) -> float:
        digest = hashlib.sha256(f"{self.seed}/{what}/".encode() + key).digest()
        return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True)
class PublishPacket:
    topic: str
    payload: bytes
    qos: int
    packet_id: int


def split_packet(buffer: bytearray) -> bytes | None:
    """Take one whole MQTT packet off the front of ``buffer``; None if it is not all there yet."""
    length = shift = 0
    for i in range(1, 5):
        if i >= len(buffer):
            return None
        length |= (buffer[i] & 0x7F) << shift
        shift += 7
        if not buffer[i] & 0x80:
            total = 1 + i + length
            require(total <= PACKET_MAX, Reason.OVERSIZE, f"MQTT packet of {total} B")
            if len(buffer) < total:
                return None
            packet = bytes(buffer[:total])
            del buffer[:total]
            return packet
    raise OtaError(Reason.FORMAT, "MQTT remaining length")


def parse_publish(packet: bytes) -> PublishPacket | None:
    """The message in a PUBLISH packet; None for other packets."""
    if packet[0] >> 4 != 3:
        return None
    at = 1
    while packet[at] & 0x80:
        at += 1
    at += 1
    require(at + 2 <= len(packet), Reason.TRUNCATED, "PUBLISH")
    size = struct.unpack_from(">H", packet, at)[0]
    topic = packet[at + 2 : at + 2 + size].decode("utf-8", "replace")
    at += 2 + size
    qos = packet[0] >> 1 & 3
    packet_id = 0
    if qos:
        require(at + 2 <= len(packet), Reason.TRUNCATED, "PUBLISH")
        packet_id = struct.unpack_from(">H", packet, at)[0]
        at += 2
    return PublishPacket(topic, packet[at:], qos, packet_id)


class FaultProxy:
    """Listens on ``port`` and talks to the broker on ``upstream``; runs in a thread of its own."""

    def __init__(self, upstream: int, harm: Harm | None = None) -> None:
        self.port = free_port()
        self.upstream = upstream
        self.harm = harm or Harm()
        self.counts: dict[str, int] = defaultdict(int)
        self.bytes_down = 0
        self._seen: dict[bytes, int] = defaultdict(int)
        self._writers: set[asyncio.StreamWriter] = set()
        self._dead: set[asyncio.StreamReader] = set()  # half-open: open for both sides, nothing gets through
        self._readers: set[asyncio.StreamReader] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()
        self._ready.wait(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=PACKET_MAX)
        )
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, up_writer}
        self._readers |= {reader, up_reader}
        try:
            await asyncio.gather(
                self._pump(reader, up_writer, "up", writer), self._pump(up_reader, writer, "down", None)
            )
        except (OSError, asyncio.IncompleteReadError, OtaError):
            pass
        finally:
            self._readers -= {reader, up_reader}
            self._dead -= {reader, up_reader}
            for w in (writer, up_writer):
                self._writers.discard(w)
                w.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: str,
        back: asyncio.StreamWriter | None,
    ) -> None:
        buffer = bytearray()
        held: bytes | None = None
        while True:
            try:
                # A held packet waits for a successor, but not for ever.
                data = await asyncio.wait_for(reader.read(65536), 0.05 if held else None)
            except TimeoutError:
                if held:
                    writer.write(held)
                    held = None
                continue
            if not data:
                writer.close()
                return
            if reader in self._dead:
                continue
            buffer += data
            while (packet := split_packet(buffer)) is not None:
                message = parse_publish(packet)
                copies, hold = (1, False) if message is None else self._fate(message, direction, back)
                for _ in range(copies):
                    if hold and held is None:
                        held = packet
                        continue
                    await self._send(writer, packet, direction)
                    if held is not None and message is not None:
                        await self._send(writer, held, direction)
                        held = None
            await writer.drain()

    async def _send(self, writer: asyncio.StreamWriter, packet: bytes, direction: str) -> None:
        if direction == "down":
            self.bytes_down += len(packet)
            if self.harm.throttle_B_per_s:
                await asyncio.sleep(len(packet) / self.harm.throttle_B_per_s)
        writer.write(packet)

    def _fate(
        self, message: PublishPacket, direction: str, back: asyncio.StreamWriter | None
    ) -> tuple[int, bool]:
        harm = self.harm
        self.counts[f"{direction} seen"] += 1
        key = f"{direction}|{message.topic}|".encode() + message.payload
        self._seen[key] += 1
        key += self._seen[key].to_bytes(4, "big")
        lost = harm.blackhole is not None and harm.blackhole in message.topic
        if lost or harm.draw(key, "drop") < harm.drop:
            self.counts[f"{direction} dropped"] += 1
            if harm.lie and message.qos and back is not None:
                back.write(b"\x40\x02" + struct.pack(">H", message.packet_id))
            return 0, False
        if harm.draw(key, "duplicate") < harm.duplicate:
            self.counts[f"{direction} doubled"] += 1
            return 2, False
        if harm.draw(key, "swap") < harm.swap:
            self.counts[f"{direction} swapped"] += 1
            return 1, True
        return 1, False

    def cut(self) -> None:
        """Drop all connections at once."""

        def close_all() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(close_all)

    def freeze(self) -> None:
        """The present connections stay open, but nothing passes any more: half-open TCP. New ones work."""

        def swallow() -> None:
            self.counts["frozen"] += len(self._readers)
            self._dead |= self._readers

        self._loop.call_soon_threadsafe(swallow)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
