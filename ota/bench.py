"""``python -m ota bench``: rates, beside those of other tools, measured in the same run.

CPU times are of this process (``time.process_time``); message rates are wall-clock, with broker, publisher or
server and gateway sharing the machine.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from . import delta, device, frames, image, trust
from .errors import Reason
from .gateway import ServerHost
from .office import HARDWARE
from .signing import Algorithm, SoftwareKey
from .testbed import EPOCH_S, Testbed, firmware_body
from .topics import SERVER_USER


def _rate(work: Callable[[], Any], seconds: float = 0.6) -> float:
    """Calls per CPU second, median of three."""
    rates = []
    for _ in range(3):
        count, started = 0, time.process_time()
        while time.process_time() - started < seconds / 3:
            work()
            count += 1
        rates.append(count / (time.process_time() - started))
    return statistics.median(rates)


def signatures() -> dict[str, float]:
    """Verifications per CPU second, of short messages and of whole 64 KiB images."""
    out = {}
    for algorithm in Algorithm:
        key = SoftwareKey.from_seed(b"bench", algorithm)
        message, public = b"m" * 200, key.public
        signature = key.sign(message)
        out[f"verify {algorithm.value} (1/s)"] = _rate(partial(public.verify, message, signature))
        data = image.build(bytes(64 * 1024), version=image.Version(1, 0, 0), key=key, security_counter=1)
        policy = image.Policy(keys=(key.public,))
        out[f"verify 64 KiB image {algorithm.value} (1/s)"] = _rate(partial(image.verify, data, policy))
    return out


def metadata(folder: Path) -> dict[str, float]:
    """Full Uptane verification of both repositories from a trusted root."""
    bed = Testbed(folder)
    bed.release("1.0.0", bed.firmware("1.0.0", b"x" * 1000))
    unit = bed.add_unit("dev", bed.releases["1.0.0"].file)
    bed.order("dev", "1.0.0")
    store = unit.host.state.store
    bundles = bed.repository.bundle(1), bed.director.bundle("dev", 1)
    ecu = trust.Ecu("ecu-dev", HARDWARE)
    size = sum(len(v) for b in bundles for v in b.values())
    rate = _rate(lambda: trust.verify_bundles(store, *bundles, [ecu], EPOCH_S + 1))
    return {"Uptane verification (1/s)": rate, "metadata per refresh (B)": float(size)}


def deltas(size: int = 512 * 1024) -> dict[str, float]:
    """Encode and apply beside detools and bsdiff4 on one pair of ``size`` bytes."""
    import bsdiff4  # type: ignore[import-untyped]

    from .delta.compare import CODECS

    old, new = firmware_body(size), firmware_body(size, edits=100)
    out: dict[str, float] = {}
    for codec in ("btd1", "detools_heatshrink", "bsdiff4"):
        (encode, decode), _ = CODECS[codec]
        started = time.process_time()
        data = encode(old, new)
        encoded = time.process_time()
        assert decode(old, data) == new
        out[f"{codec} encode 512 KiB (s)"] = encoded - started
        out[f"{codec} apply 512 KiB (s)"] = time.process_time() - encoded
        out[f"{codec} size (% of full)"] = 100 * len(data) / len(new)
    assert bsdiff4 is not None
    assert delta.read(delta.create(old[:4096], new[:4096])).target_length == 4096
    return out


class _SilentMcu:
    """Answers HELLO as an idle controller; the gateway is what is measured."""

    def __init__(self) -> None:
        status = frames.Status(
            frames.McuPhase.IDLE,
            slot=0,
            reason=Reason.OK,
            conditions=0,
            unconfirmed_boots=0,
            security_counter=1,
            parameter_counter=0,
            sequence=0,
            next_offset=(0, 0),
            manifest8=bytes(8),
            uptime_s=0,
            firmware_digest=bytes(32),
            parameter_digest=bytes(32),
            installed8=bytes(8),
        )
        self._answer = frames.pack(frames.STATUS, status.pack())
        self._out: list[bytes] = []

    def send(self, frame: bytes) -> None:
        if frame[0] == frames.HELLO:
            self._out.append(self._answer)

    def receive(self) -> list[bytes]:
        out, self._out = self._out, []
        return out


class _Discard:
    """A block store that keeps nothing: disks are not what is measured."""

    def put(self, digest: bytes, index: int, block: bytes) -> None:
        pass

    def file(self, digest: bytes) -> bytes:
        return b""

    def forget(self, digest: bytes) -> None:
        pass


def _raw_publisher(port: int, count: int, size: int, qos: int) -> None:
    """Child process: publishes as fast as the broker acknowledges, at most 100 in flight."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=SERVER_USER, protocol=paho.MQTTv311)
    client.username_pw_set(SERVER_USER, "p")
    client.max_inflight_messages_set(100)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", port)
    client.loop_start()
    pending: list[Any] = []
    payload = bytes(size)
    for _ in range(count):
        pending.append(client.publish("ota/1/dev-0/down/data", payload, qos))
        if len(pending) >= 100:
            pending[0].wait_for_publish(10)
            pending = [p for p in pending if not p.is_published()]
    for row in pending:
        row.wait_for_publish(10)
    time.sleep(0.5)
    client.disconnect()
    client.loop_stop()


def _raw_rate(port: int, count: int, size: int, qos: int) -> float:
    """Messages per second from one paho publisher process to one paho subscriber here."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    seen = 0
    first = last = 0.0

    def on_message(client: Any, userdata: Any, message: Any) -> None:
        nonlocal seen, first, last
        last = time.monotonic()
        first = first or last
        seen += 1

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="dev-0", protocol=paho.MQTTv311)
    client.username_pw_set("dev-0", "p")
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe("ota/1/dev-0/down/#", qos)
    for _ in range(20):
        client.loop(0.02)
    child = multiprocessing.get_context("spawn").Process(target=_raw_publisher, args=(port, count, size, qos))
    child.start()
    end = time.monotonic() + 60
    while seen < count and time.monotonic() < end and (child.is_alive() or time.monotonic() - last < 1):
        client.loop(0.1)
    client.disconnect()
    child.join(10)
    return (seen - 1) / (last - first) if seen > 1 else 0.0


def _server_process(port: int, folder: str, names: list[str], ready: Any, stop: Any) -> None:
    """Child process: the update server on its own connection."""
    from .transport.mqtt import Address, Hub

    bed, body = _bench_world(Path(folder), names)
    bed.release("2.0.0", body)
    hub = Hub()
    link = hub.link(Address(port, password="p"), SERVER_USER)
    host = ServerHost(bed.server, link)
    for name in names:
        _, messages = bed.server.order(name, [bed.releases["2.0.0"].name], EPOCH_S)
        host.wants.update({m.topic: m for m in messages})
    ready.set()
    while not stop.is_set():
        hub.wait(0.2)
        host.on_link(link.take(), EPOCH_S + 1)
    hub.close()


def _resident() -> int:
    """Resident memory of this process now, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _bench_world(folder: Path, names: list[str]) -> tuple[Testbed, bytes]:
    bed = Testbed(folder, slot_size=1024 * 1024)
    bed.release("1.0.0", bed.firmware("1.0.0", b"x" * 1000))
    for name in names:
        key = SoftwareKey.from_seed(f"{bed.seed}/device/{name}".encode())
        from .server import DeviceIdentity

        bed.server.register(
            DeviceIdentity(name, key.public, f"ecu-{name}", HARDWARE, bed.vendor_id, bed.class_id)
        )
    return bed, bed.firmware("2.0.0", firmware_body(512 * 1024, seed=2))


def gateway(folder: Path, agents: int = 200, raw_messages: int = 8000) -> dict[str, float]:
    """``agents`` device agents in this process download 512 KiB each over mosquitto; beside the raw rate."""
    from .gateway import AgentHost
    from .transport.mosquitto import Mosquitto
    from .transport.mqtt import Address, Hub

    names = [f"dev-{i}" for i in range(agents)]
    passwords = dict.fromkeys([SERVER_USER, *names], "p")
    out: dict[str, float] = {}
    context = multiprocessing.get_context("spawn")
    with Mosquitto(folder / "broker", passwords=passwords, persistence=False) as broker:
        for qos in (0, 1):
            cpu = time.process_time()
            out[f"raw paho QoS {qos}, 4 KiB (msg/s)"] = _raw_rate(broker.port, raw_messages, 4109, qos)
            out[f"raw paho QoS {qos} CPU per message (us)"] = 1e6 * (time.process_time() - cpu) / raw_messages
        ready, stop = context.Event(), context.Event()
        child = context.Process(
            target=_server_process, args=(broker.port, str(folder / "server"), names, ready, stop)
        )
        child.start()
        bed, _ = _bench_world(folder / "agents", [])
        ready.wait(120)
        hub = Hub()
        gc.collect()
        memory = most = _resident()
        hosts: dict[Any, AgentHost] = {}
        done: set[str] = set()
        first = {
            "image": {"root.json": (bed.repository.metadata_dir / "1.root.json").read_bytes()},
            "director": {"root.json": bed.director.roots[0]},
        }
        for name in names:
            key = SoftwareKey.from_seed(f"{bed.seed}/device/{name}".encode())
            config = device.Config(
                name,
                f"ecu-{name}",
                HARDWARE,
                bed.vendor_id,
                bed.class_id,
                1,
                key,
                (bed.keys["online"].public,),
                (bed.keys["online"].public,),
                hashlib.sha256(name.encode()).digest()[:16],
            )
            link = hub.link(Address(broker.port, password="p"), name)
            state = device.start(trust.TrustStore(first["image"], first["director"]))
            hosts[link] = AgentHost(config, state, link, _SilentMcu(), _Discard())
        started = time.monotonic()
        cpu = time.process_time()
        blocks_from = 0.0
        received = before = 0
        tick_at = 0.0
        while len(done) < agents and time.monotonic() - started < 300:
            for link in hub.wait(0.05):
                host = hosts[link]
                events = link.take()
                received += len(events)
                if not blocks_from and host.state.phase is device.Phase.DOWNLOAD:
                    blocks_from, before = time.monotonic(), received
                host.on_link(events, EPOCH_S + time.monotonic() - started)
                if host.state.phase is device.Phase.TRANSFER:
                    done.add(host.config.device)
            now = time.monotonic()
            if now - tick_at > 1:
                tick_at = now
                most = max(most, _resident())
                for host in hosts.values():
                    host.tick(EPOCH_S + now - started)
        now = time.monotonic()
        cpu = time.process_time() - cpu
        out["agents finished"] = float(len(done))
        out["first connection to last block (s)"] = now - started
        out["gateway messages received (msg/s)"] = (received - before) / (now - blocks_from)
        out["gateway CPU per message, all included (us)"] = 1e6 * cpu / max(received, 1)
        out["gateway payload (MB/s)"] = len(done) * 128 * 4096 / (now - blocks_from) / 1e6
        for qos in (0, 1):
            raw = out[f"raw paho QoS {qos}, 4 KiB (msg/s)"]
            out[f"share of raw QoS {qos}"] = out["gateway messages received (msg/s)"] / max(raw, 1)
        # Agents, links and their messages under way; what the process took before may be used again, so this
        # is the growth of the resident memory, at its greatest.
        out["memory per agent (KiB)"] = (max(most, _resident()) - memory) / agents / 1024
        stop.set()
        hub.close()
        child.join(10)
        if child.is_alive():
            child.terminate()
    return out


def run(agents: int = 200) -> dict[str, dict[str, float]]:
    """All benches; the broker part is left out (and says so) where mosquitto is missing."""
    from .transport.mosquitto import find

    with tempfile.TemporaryDirectory() as raw:
        folder = Path(raw)
        out = {
            "signatures": signatures(),
            "metadata": metadata(folder / "m"),
            "delta": deltas(),
        }
        if agents and find() is not None:
            with contextlib.suppress(KeyboardInterrupt):
                out["gateway"] = gateway(folder / "g", agents)
    return out
