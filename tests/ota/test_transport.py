"""One conformance suite over memory, mosquitto and embedded broker; TLS (F1–F3); brokers under harm."""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ota import pki, topics
from ota.errors import OtaError, Reason
from ota.gateway import ServerHost
from ota.testbed import Testbed, Unit
from ota.topics import SERVER_USER
from ota.transport import mosquitto
from ota.transport.base import Down, Incoming, Link, LinkEvent, Up, matches
from ota.transport.memory import MemoryBroker
from ota.transport.settle import Settler

from .conftest import make_bed

pytest.importorskip("paho.mqtt", reason="needs the extra [mqtt]")
from ota.transport import mqtt
from ota.transport.mqtt import Address, Hub, MqttLink
from ota.transport.proxy import FaultProxy, Harm

NEEDS_MOSQUITTO = pytest.mark.skipif(mosquitto.find() is None, reason="needs the Debian package mosquitto")
PASSWORDS = {SERVER_USER: "s", "dev-1": "a", "dev-2": "b"}
KINDS = ["memory", pytest.param("mosquitto", marks=NEEDS_MOSQUITTO), "embedded"]


@dataclass
class Rig:
    """A broker of some kind, and links to it."""

    kind: str
    link: Callable[..., Link]
    kill: Callable[[], None]
    restart: Callable[[], None]
    port: int = 0


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    if request.param == "memory":
        broker = MemoryBroker()
        yield Rig("memory", lambda user: broker.connect(user), lambda: broker.kill(False), broker.restart)
        return
    hub = Hub()
    if request.param == "mosquitto":
        process: Any = mosquitto.Mosquitto(tmp_path / "broker", passwords=PASSWORDS)
        kill, restart = process.stop, process.start
    else:
        pytest.importorskip("amqtt", reason="needs the amqtt package")
        from ota.transport.embedded import EmbeddedBroker

        process = EmbeddedBroker(PASSWORDS)
        kill, restart = process.stop, process.start

    def link(user: str, **options: Any) -> MqttLink:
        password = options.pop("password", PASSWORDS.get(user, ""))
        return hub.link(Address(process.port, password=password), user, **options)

    try:
        yield Rig(request.param, link, kill, restart, process.port)
    finally:
        hub.close()
        process.stop()


def gather(
    links: list[Link], done: Callable[[list[list[LinkEvent]]], bool], limit_s: float = 5.0
) -> list[list[LinkEvent]]:
    """Poll all links until ``done`` or the time is over."""
    out: list[list[LinkEvent]] = [[] for _ in links]
    end = time.monotonic() + limit_s
    while time.monotonic() < end and not done(out):
        for rows, link in zip(out, links, strict=True):
            rows += link.poll(0.02)
    return out


def up(*links: Link) -> None:
    rows = gather(list(links), lambda out: all(any(isinstance(e, Up) for e in o) for o in out))
    assert all(any(isinstance(e, Up) for e in o) for o in rows), "no connection"


def messages(link: Link, n: int, limit_s: float = 5.0) -> list[Incoming]:
    rows = gather([link], lambda out: sum(isinstance(e, Incoming) for e in out[0]) >= n, limit_s)
    return [e for e in rows[0] if isinstance(e, Incoming)]


def pair(rig: Rig) -> tuple[Link, Link]:
    server, device = rig.link(SERVER_USER), rig.link("dev-1")
    server.subscribe(f"{topics.PREFIX}/+/up/#")
    device.subscribe(f"{topics.PREFIX}/dev-1/down/#")
    up(server, device)
    return server, device


DOWN, UP_ = "ota/1/dev-1/down/data", "ota/1/dev-1/up/request"


def test_payloads_arrive_whole_and_in_order(rig: Rig) -> None:
    server, device = pair(rig)
    payloads = [b"", b"\0\xff" * 20, bytes(4096), bytes(range(256)) * 256] + [b"%d" % i for i in range(50)]
    for data in payloads:
        assert server.publish(DOWN, data)
    assert [m.payload for m in messages(device, len(payloads))] == payloads
    assert device.publish(UP_, b"request")
    assert [(m.topic, m.payload) for m in messages(server, 1)] == [(UP_, b"request")]


def test_retained_state_for_late_subscribers(rig: Rig) -> None:
    server = rig.link(SERVER_USER)
    server.subscribe("ota/1/+/up/#")
    up(server)
    name = "ota/1/dev-1/down/desired"
    for data in (b"old", b"new"):
        server.publish(name, data, retain=True)
    server.poll(0.1)
    device = rig.link("dev-1")
    device.subscribe("ota/1/dev-1/down/#")
    rows = gather([device], lambda out: any(isinstance(e, Incoming) for e in out[0]))[0]
    assert isinstance(rows[0], Up)
    got = [e for e in rows if isinstance(e, Incoming)]
    assert [(m.payload, m.retained) for m in got] == [(b"new", True)]


def test_e6_forged_topics_have_no_effect(rig: Rig) -> None:
    """MQTT 3.1.1 tells nobody: judged by effect."""
    server, device = pair(rig)
    other = rig.link("dev-2")
    other.subscribe("ota/1/dev-1/down/#")
    other.subscribe("ota/1/dev-2/down/#")
    up(other) if rig.kind != "embedded" else gather([other], lambda out: bool(out[0]), 1.0)
    other.publish(UP_, b"forged")
    other.publish(DOWN, b"forged")
    server.publish(DOWN, b"for dev-1 only")
    assert [m.payload for m in messages(device, 1)] == [b"for dev-1 only"]
    assert messages(other, 1, 0.3) == []
    assert messages(server, 1, 0.1) == []


def test_session_survives_absence(rig: Rig) -> None:
    """QoS 1 while away: delivered afterwards (as far as the queue goes; nothing relies on it)."""
    server, device = pair(rig)
    device.close()
    server.poll(0.2)
    for i in range(20):
        server.publish(DOWN, b"%d" % i)
        server.poll(0.0)
    server.poll(0.2)
    back = rig.link("dev-1")
    back.subscribe("ota/1/dev-1/down/#")
    got = [m.payload for m in messages(back, 20)]
    assert got == [b"%d" % i for i in range(20)]


def test_e7_takeover_of_a_client_id(rig: Rig) -> None:
    _, device = pair(rig)
    twin = rig.link("dev-1")
    twin.subscribe("ota/1/dev-1/down/#")
    rows = gather([device, twin], lambda out: any(isinstance(e, Down) for e in out[0]))
    assert any(isinstance(e, Down) for e in rows[0])
    device.close()
    twin.close()


def test_broker_comes_back(rig: Rig) -> None:
    server, device = pair(rig)
    rig.kill()
    rows = gather([server, device], lambda out: all(any(isinstance(e, Down) for e in o) for o in out))
    assert all(any(isinstance(e, Down) for e in o) for o in rows)
    assert server.publish(DOWN, b"into the void") is False
    rig.restart()
    up(server, device)
    server.publish(DOWN, b"again")
    assert b"again" in [m.payload for m in messages(device, 1)]


def test_e5_impossible_topics(rig: Rig) -> None:
    server, _ = pair(rig)
    for name in ("ota/1/+/down/data", "ota/1/#"):
        with pytest.raises(OtaError) as error:
            server.publish(name, b"x")
        assert error.value.reason is Reason.FORMAT


def test_e5_raw_garbage_does_not_disturb_others(rig: Rig) -> None:
    if rig.kind == "memory":
        pytest.skip("no socket")
    server, device = pair(rig)
    connect = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04evil"
    for data in (
        b"\x00" * 50,
        b"\x30\xff\xff\xff\x7f",
        connect,
        connect + b"\x30\x03\x00\x01\xff",
        b"\x10\xff" * 20,
    ):
        with socket.create_connection(("127.0.0.1", rig.port), 2) as raw:
            raw.sendall(data)
    server.publish(DOWN, b"still here")
    assert [m.payload for m in messages(device, 1)] == [b"still here"]


def test_wrong_password_is_refused(rig: Rig) -> None:
    if rig.kind == "memory":
        pytest.skip("no passwords in memory")
    link = rig.link("dev-1", password="wrong")
    rows = gather([link], lambda out: any(isinstance(e, Down) for e in out[0]), 3)
    assert not link.connected
    assert any(isinstance(e, Down) for e in rows[0])


def test_topic_filters() -> None:
    assert matches("a/+/c", "a/b/c")
    assert matches("a/#", "a/b/c")
    assert matches("a/#", "a")
    assert not matches("a/+", "a/b/c")
    assert not matches("a/b", "a")


# ---- the whole chain over real brokers ---------------------------------------------------------------------


class RealWorld:
    """A testbed whose links are MQTT; the world's clock is sped up against the wall clock."""

    def __init__(self, bed: Testbed, hub: Hub, address: Callable[[str], Address]) -> None:
        self.bed, self.hub, self.address = bed, hub, address
        self.speed = 20.0
        bed.server_host.link.close()
        bed.server_host = ServerHost(bed.server, hub.link(address(SERVER_USER), SERVER_USER))

    def add(self, name: str) -> None:
        self.bed.add_unit(name, self.bed.releases["1.0.0"].file, link=self.hub.link(self.address(name), name))

    def run(
        self, limit_s: float, until: Callable[[], bool], every: Callable[[float], None] | None = None
    ) -> bool:
        started = last = time.monotonic()
        while time.monotonic() - started < limit_s:
            self.hub.wait(0.01)
            now = time.monotonic()
            self.bed.now_s += (now - last) * self.speed
            last = now
            self.bed.round()
            for unit in self.bed.units.values():
                unit.host.tick(self.bed.now_s)
            if every is not None:
                every(now - started)
            if until():
                return True
        return False


def settled(bed: Testbed) -> bool:
    return all(d.outcome.terminal for d in bed.server.deployments.values())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_three_devices_over_a_real_broker(kind: str, tmp_path: Path) -> None:
    names = ["dev-1", "dev-2", "dev-3"]
    passwords = dict.fromkeys([SERVER_USER, *names], "p")
    if kind == "mosquitto":
        broker: Any = mosquitto.Mosquitto(tmp_path / "b", passwords=passwords)
    else:
        pytest.importorskip("amqtt")
        from ota.transport.embedded import EmbeddedBroker

        broker = EmbeddedBroker(passwords)
    hub = Hub()
    try:
        world = RealWorld(make_bed(tmp_path), hub, lambda user: Address(broker.port, password="p"))
        for name in names:
            world.add(name)
        for name in names:
            world.bed.order(name, "1.1.0")
        assert world.run(20, lambda: settled(world.bed)), [u.notes for u in world.bed.units.values()]
        for unit in world.bed.units.values():
            assert unit.mcu.status().firmware_digest == world.bed.releases["1.1.0"].digest
    finally:
        hub.close()
        broker.stop()


@NEEDS_MOSQUITTO
def test_e1_e2_loss_and_broker_kills(tmp_path: Path) -> None:
    """Twenty percent loss, doubles and swaps through the proxy, and kills of the broker on the way.

    Five kills here; ``OTA_BROKER_KILLS=50`` is the long form (about a minute).
    """
    wanted = int(os.environ.get("OTA_BROKER_KILLS", "5"))
    passwords = {SERVER_USER: "p", "dev-1": "p"}
    broker = mosquitto.Mosquitto(tmp_path / "b", passwords=passwords, persistence=False)
    hub = Hub()
    with FaultProxy(broker.port, Harm(seed=5, drop=0.2, duplicate=0.1, swap=0.1, lie=True)) as proxy:
        try:
            bed = make_bed(tmp_path, slot_size=2 * 1024 * 1024)
            bed.release("2.0.0", bed.firmware("2.0.0", bytes(range(256)) * 60 * wanted))
            world = RealWorld(
                bed,
                hub,
                lambda user: Address(proxy.port if user != SERVER_USER else broker.port, password="p"),
            )
            world.add("dev-1")
            ident = bed.order("dev-1", "2.0.0")
            kills = 0

            def harm(elapsed: float) -> None:
                nonlocal kills
                if kills < wanted and elapsed > 0.4 * (kills + 1):
                    kills += 1
                    broker.kill()
                    broker.start()

            limit_s = 30 + 3.0 * wanted
            done = world.run(
                limit_s, lambda: kills == wanted and bed.server.deployments[ident].outcome.terminal, harm
            )
            assert done, (bed.server.deployments[ident], bed.units["dev-1"].notes)
            assert bed.server.deployments[ident].outcome.value == "success"
            unit = bed.units["dev-1"]
            assert unit.mcu.firmware_file(unit.mcu.status().slot) == bed.releases["2.0.0"].file
            assert proxy.counts["down dropped"] > 0
            file = bed.releases["2.0.0"].file
            print(f"{kills} kills, {proxy.bytes_down} B on the air for {len(file)} B, {dict(proxy.counts)}")
            assert proxy.bytes_down < 2.5 * len(file) + 50_000
        finally:
            hub.close()
            broker.stop()


@NEEDS_MOSQUITTO
def test_e8_half_open_connection_and_slow_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to the broker goes dead without a FIN, twice, in a download over a link on which one message
    takes longer than the keepalive: noticed by the keepalive, connected anew, finished, no endless loop."""
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", 1)
    broker = mosquitto.Mosquitto(tmp_path / "b", passwords={SERVER_USER: "p", "dev-1": "p"})
    hub = Hub()
    with FaultProxy(broker.port, Harm(throttle_B_per_s=60_000.0)) as proxy:
        try:
            bed = make_bed(tmp_path, slot_size=2 * 1024 * 1024)
            body = random.Random(8).randbytes(300_000)
            bed.release("2.0.0", bed.firmware("2.0.0", body))
            ports = {SERVER_USER: broker.port}
            world = RealWorld(bed, hub, lambda user: Address(ports.get(user, proxy.port), password="p"))
            world.add("dev-1")
            link = bed.units["dev-1"].host.link
            connects: list[float] = []
            original = link.connect  # type: ignore[attr-defined]
            monkeypatch.setattr(link, "connect", lambda now: (connects.append(now), original(now)))
            ident = bed.order("dev-1", "2.0.0")
            frozen = 0

            def harm(elapsed: float) -> None:
                nonlocal frozen
                if frozen < 2 and bed.server.deployments[ident].bytes_received > 60_000 * (frozen + 1):
                    frozen += 1
                    proxy.freeze()

            done = world.run(60, lambda: bed.server.deployments[ident].outcome.terminal, harm)
            assert done, bed.units["dev-1"].notes
            assert bed.server.deployments[ident].outcome.value == "success"
            assert proxy.counts["frozen"] >= 2
            assert 1 <= len(connects) <= 8
        finally:
            hub.close()
            broker.stop()


def test_e11_ten_thousand_devices_come_back_spread_out() -> None:
    """After an outage of ten minutes: when each of 10^4 links tries again, and in each second how many.

    The pause has grown to its limit while the outage lasted, and its jitter spreads the return: below a tenth
    of the devices in any second (mosquitto takes some thousands of connections per second)."""
    hub = Hub()
    tries = np.zeros(700)
    waiting = []
    for i in range(10_000):
        link = hub.link(Address(1), f"dev-{i}")
        now = 0.0
        while now < 600.0:
            link._lost(now, "no route")
            assert link._retry_at > now
            now = link._retry_at
            tries[min(int(now), 699)] += 1
        waiting.append(now - 600.0)
    hub.links.clear()
    back = np.histogram(waiting, bins=np.arange(0.0, max(waiting) + 1.0))[0]
    print(f"most in one second {back.max()}, last after {max(waiting):.0f} s")
    assert back.max() < 10_000 / 10
    # while it lasts, the attempts of all together stay bounded too
    assert tries[60:600].mean() < 10_000 / 15


@NEEDS_MOSQUITTO
def test_e3_acknowledged_and_never_delivered(tmp_path: Path) -> None:
    """A broker with a queue of two for a sleeping device: the update ends all the same."""
    broker = mosquitto.Mosquitto(tmp_path / "b", passwords={SERVER_USER: "p", "dev-1": "p"}, queue=2)
    hub = Hub()
    try:
        world = RealWorld(make_bed(tmp_path), hub, lambda user: Address(broker.port, password="p"))
        world.add("dev-1")
        ident = world.bed.order("dev-1", "1.1.0")
        topic = topics.topic("dev-1", topics.ACK)
        link = world.bed.server_host.link
        flooded = False

        def flood(elapsed: float) -> None:
            nonlocal flooded
            if not flooded and link.connected:
                flooded = True
                assert all(link.publish(topic, b"noise %d" % i) for i in range(300))

        assert world.run(20, lambda: world.bed.server.deployments[ident].outcome.terminal, flood)
        assert world.bed.server.deployments[ident].outcome.value == "success"
    finally:
        hub.close()
        broker.stop()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_simulated_clock_over_a_real_broker_is_repeatable(kind: str, tmp_path: Path) -> None:
    """The broker is brought to rest before the clock moves: two runs, one time line."""
    lines = []
    for attempt in range(2):
        names = ["dev-1", "dev-2"]
        passwords = dict.fromkeys([SERVER_USER, *names], "p")
        if kind == "mosquitto":
            broker: Any = mosquitto.Mosquitto(tmp_path / f"b{attempt}", passwords=passwords)
        else:
            pytest.importorskip("amqtt")
            from ota.transport.embedded import EmbeddedBroker

            broker = EmbeddedBroker(passwords)
        hub = Hub()
        try:
            address = Address(broker.port, password="p")
            world = RealWorld(make_bed(tmp_path / f"w{attempt}"), hub, lambda user, at=address: at)
            for name in names:
                world.add(name)
            bed = world.bed
            for unit in bed.units.values():
                unit.mcu.conditions = 1
            host = bed.server_host
            settler = Settler(
                [(host.link, partial(_serve, bed))]
                + [(u.host.link, partial(_take, bed, u)) for u in bed.units.values()]
            )
            settler.settle()
            for name in names:
                bed.order(name, "1.1.0")
            for second in range(40):
                settler.settle()
                bed.now_s += 1.0
                for i, unit in enumerate(bed.units.values()):
                    unit.mcu.conditions = int(second < 10 + 5 * i)
                    unit.host.tick(bed.now_s)
                if settled(bed):
                    break
            rows = [
                (d.device, [(h[0], h[1].value) for h in d.history]) for d in bed.server.deployments.values()
            ]
            assert all(d.outcome.value == "success" for d in bed.server.deployments.values()), rows
            lines.append(rows)
        finally:
            hub.close()
            broker.stop()
    assert lines[0] == lines[1]


def _serve(bed: Testbed, events: list[LinkEvent]) -> None:
    bed.server_host.on_link(events, bed.now_s)


def _take(bed: Testbed, unit: Unit, events: list[LinkEvent]) -> None:
    unit.host.on_link(events, bed.now_s)


def test_proxy_fate_is_a_function_of_the_message() -> None:
    harm = Harm(seed=9, drop=0.2)
    draws = [harm.draw(b"%d" % i, "drop") for i in range(2000)]
    assert draws == [harm.draw(b"%d" % i, "drop") for i in range(2000)]
    assert 0.17 < sum(d < 0.2 for d in draws) / 2000 < 0.23


# ---- TLS ---------------------------------------------------------------------------------------------------


@dataclass
class TlsWorld:
    ca: pki.Authority
    server: pki.Issued
    spare: pki.Issued
    broker: mosquitto.Mosquitto
    hub: Hub
    folder: Path

    def connects(self, tls: Any, user: str = "dev-1", limit_s: float = 1.2) -> MqttLink:
        link = self.hub.link(Address(self.broker.port, tls=tls), user)
        gather([link], lambda out: any(isinstance(e, Up | Down) for e in out[0]), limit_s)
        return link

    def pins(self) -> list[bytes]:
        return [pki.pin_of(self.server), pki.pin_of(self.spare)]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsWorld]:
    if mosquitto.find() is None:
        pytest.skip("needs the Debian package mosquitto")
    folder = tmp_path_factory.mktemp("tls")
    ca = pki.Authority(folder / "ca")
    server, spare = ca.server(), ca.server("spare")
    ca.client("revoked")
    crl = ca.revoke(["revoked"])
    broker = mosquitto.Mosquitto(folder / "b", tls=(ca.ca, server.certificate, server.key, crl))
    hub = Hub()
    yield TlsWorld(ca, server, spare, broker, hub, folder)
    hub.close()
    broker.stop()


def test_f_mutual_tls_with_pin_and_identity(tls: TlsWorld) -> None:
    device = pki.client_tls(tls.ca, tls.ca.client("dev-1"), tls.pins())
    server = pki.client_tls(tls.ca, tls.ca.client(SERVER_USER), tls.pins())
    link, other = tls.connects(device), tls.connects(server, SERVER_USER)
    assert link.connected
    assert other.connected
    assert link._socket.version() == "TLSv1.3"
    other.subscribe("ota/1/+/up/#")
    other.poll(0.2)
    link.publish(UP_, b"mine")
    link.publish("ota/1/dev-2/up/request", b"not mine")
    assert [(m.topic, m.payload) for m in messages(other, 1)] == [(UP_, b"mine")]
    assert messages(other, 1, 0.3) == []
    link.close()
    other.close()


def test_f2_who_is_refused(tls: TlsWorld) -> None:
    good = tls.ca.client("dev-1", file="again")
    stranger = pki.Authority(tls.folder / "other ca", "other")
    cases = {
        "wrong CA of the server": pki.client_tls(stranger, good, ()),
        "wrong CA of the device": pki.client_tls(tls.ca, stranger.client("dev-1"), tls.pins()),
        "expired device": pki.client_tls(
            tls.ca, tls.ca.client("dev-1", days=-0.5, file="expired"), tls.pins()
        ),
        "revoked device": pki.client_tls(
            tls.ca, pki.Issued(tls.ca.folder / "revoked.pem", tls.ca.folder / "revoked.key"), tls.pins()
        ),
        "wrong name": pki.client_tls(tls.ca, good, tls.pins(), "other.example"),
        "wrong pin": pki.client_tls(tls.ca, good, [bytes(32)]),
    }
    for name, context in cases.items():
        link = tls.connects(context)
        assert not link.connected, name
        assert link.last_error, name
        link.close()
    assert tls.connects(pki.client_tls(tls.ca, good, tls.pins())).connected


def test_f1_old_tls_is_refused_by_both_sides(tls: TlsWorld) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", tls.broker.port), 2) as raw, pytest.raises(ssl.SSLError):
        old.wrap_socket(raw)
    # a server that offers only TLS 1.2
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tls.server.certificate, tls.server.key)
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    mine = pki.client_tls(tls.ca, tls.ca.client("dev-1", file="f1"), ()).context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = mine.wrap_bio(incoming, outgoing, server_hostname=pki.SERVER_NAME)
    back, forth = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = server.wrap_bio(back, forth, server_side=True)
    with pytest.raises(ssl.SSLError):
        _shake_hands((client, outgoing, back), (peer, forth, incoming))


def _shake_hands(*sides: Any) -> None:
    for _ in range(4):
        for side, out, to in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            finally:
                to.write(out.read())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_f4_no_early_data_and_no_ticket_for_another(tls: TlsWorld, tmp_path: Path) -> None:
    """0-RTT: the broker's session tickets permit none, and data sent early is not taken. A session of one
    identity cannot be resumed under another."""
    device = tls.ca.client("dev-1", file="f4")
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_bytes(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
    common = ["openssl", "s_client", "-connect", f"127.0.0.1:{tls.broker.port}", "-tls1_3"]
    common += ["-CAfile", str(tls.ca.ca), "-cert", str(device.certificate), "-key", str(device.key)]

    def talk(*more: str) -> str:
        with subprocess.Popen(
            [*common, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as running:
            time.sleep(0.4)  # tickets come after the handshake
            out, _ = running.communicate(timeout=20)
        return out.decode("utf-8", "replace")

    first = talk("-sess_out", str(session))
    assert "TLSv1.3" in first
    assert session.exists(), first[-2000:]
    second = talk("-sess_in", str(session), "-early_data", str(early))
    assert "Early data was accepted" not in second
    assert "Max Early Data: 0" in second or "Early data was not sent" in second
    context = pki.client_tls(tls.ca, device, tls.pins()).context()
    other = pki.client_tls(tls.ca, tls.ca.client("dev-2", file="f4b"), tls.pins()).context()
    with socket.create_connection(("127.0.0.1", tls.broker.port), 2) as raw:
        wrapped = context.wrap_socket(raw, server_hostname=pki.SERVER_NAME)
        kept = wrapped.session
        assert kept is not None
        with (
            socket.create_connection(("127.0.0.1", tls.broker.port), 2) as second_raw,
            pytest.raises(ValueError, match="SSLContext"),
        ):
            other.wrap_socket(second_raw, server_hostname=pki.SERVER_NAME, session=kept)


def test_f3_pin_rotation_while_a_device_is_away(tls: TlsWorld, tmp_path: Path) -> None:
    """The broker changes to the spare key: the backup pin lets the device in; after a second rotation without
    a pin update it is refused, and its old pins named in a signed update would be the way (documented)."""
    device = pki.client_tls(tls.ca, tls.ca.client("dev-1", file="f3"), tls.pins())
    rotated = mosquitto.Mosquitto(
        tmp_path / "r1", tls=(tls.ca.ca, tls.spare.certificate, tls.spare.key, None)
    )
    try:
        link = tls.hub.link(Address(rotated.port, tls=device), "dev-1")
        up(link)
        link.close()
    finally:
        rotated.stop()
    third = tls.ca.server("third")
    rotated = mosquitto.Mosquitto(tmp_path / "r2", tls=(tls.ca.ca, third.certificate, third.key, None))
    try:
        link = tls.hub.link(Address(rotated.port, tls=device), "dev-1")
        gather([link], lambda out: any(isinstance(e, Down) for e in out[0]), 2)
        assert not link.connected
        assert "pinned" in link.last_error
        link.close()
    finally:
        rotated.stop()


@NEEDS_MOSQUITTO
def test_a1_nothing_readable_on_the_wire(tls: TlsWorld, tmp_path: Path) -> None:
    """Traffic recorded between device and broker: no firmware bytes, topics or digests in it."""
    recorded = bytearray()

    class Recorder(FaultProxy):
        async def _pump(self, reader: Any, writer: Any, direction: str, back: Any) -> None:
            while data := await reader.read(65536):
                recorded.extend(data)
                writer.write(data)
                await writer.drain()

    with Recorder(tls.broker.port) as proxy:
        bed = make_bed(tmp_path)

        def address(user: str) -> Address:
            issued = tls.ca.client(user, file=f"a1-{user}")
            return Address(proxy.port, tls=pki.client_tls(tls.ca, issued, tls.pins()))

        world = RealWorld(bed, tls.hub, address)
        world.add("dev-9")
        ident = bed.order("dev-9", "1.1.0")
        assert world.run(20, lambda: bed.server.deployments[ident].outcome.terminal)
        assert bed.server.deployments[ident].outcome.value == "success"
        world.bed.server_host.link.close()
        bed.units["dev-9"].host.link.close()
    file = bed.releases["1.1.0"].file
    assert len(recorded) > 5000
    for piece in (file[600:632], file[4000:4032], b"ota/1/dev-9", bed.releases["1.1.0"].digest):
        assert piece not in recorded
