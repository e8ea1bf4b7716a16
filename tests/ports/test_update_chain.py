"""The promises of `UpdateChain`, for every rung of the link ladder.

The controllers here are the Python model of `ota.mcu_model`: what is tested is the chain, not the firmware.
"""

from __future__ import annotations

import pytest

from ota.mcu_model import Mcu, McuConfig
from ota.testbed import firmware_body
from twin.adapters.links import RUNGS, Air
from twin.adapters.updates import Chain, Device, Shelf, device_names
from twin.adapters.workshop import Workshop

START_S = 1_800_000_000.0
N = 3
ends = []


@pytest.fixture(autouse=True)
def _clean():
    yield
    while ends:
        ends.pop()()


class ModelModem:
    """Mailboxes of modelled controllers. Open contactors are what an update waits for."""

    def __init__(self, office, n, firmware, connected=()):
        self.mcus, self.boxes = [], [[] for _ in range(n)]
        for k in range(n):
            config = McuConfig(
                serial=f"ecu-site-rack-{k + 1}-pack-1",
                vendor_id=office.vendor_id,
                class_id=office.class_id,
                hardware_revision=1,
                image_keys=(office.keys["image"].public,),
                manifest_keys=(office.keys["online"].public,),
            )
            mcu = Mcu(config, k)
            mcu.manufacture(firmware)
            mcu.power_on()
            mcu.conditions = 2 if k in connected else 0
            self.mcus.append(mcu)

    def send(self, pack, frame):
        self.boxes[pack] += self.mcus[pack].receive(frame)

    def receive(self, pack):
        out, self.boxes[pack] = self.boxes[pack], []
        return out


def make(rung, air=None, connected=()):
    workshop = Workshop(5, START_S)
    office = workshop.office
    files = {
        version: office.firmware(version, firmware_body(20_000, edits=edits), security_counter=1)
        for version, edits in (("1.0.0", 0), ("1.1.0", 6))
    }
    modem = ModelModem(office, N, files["1.0.0"], connected)
    devices = [Device(0, k, f"site-rack-{k + 1}-pack-1", modem, "pack") for k in range(N)]
    shelf = Shelf(files.__getitem__, lambda design, changes, counter: b"")
    chain = Chain(office, devices, shelf, rung, air or Air(1, 0.2, 32_000.0, 0.0))
    chain.stock("1.0.0")
    ends.append(workshop.close)
    return chain, modem, files


def run(chain, seconds, news, start=0):
    for t in range(start, start + seconds):
        news += [(t, row.pack, row.kind, row.value, row.text) for row in chain.exchange(START_S + t)]
        if not chain.busy:
            return t
    return None


@pytest.fixture(params=list(RUNGS))
def rung(request):
    from ota.transport import mosquitto

    if request.param == "mosquitto" and mosquitto.find() is None:
        pytest.skip("mosquitto is not installed")
    return request.param


def test_an_order_ends_in_success_by_digest_with_a_delta(rung):
    chain, modem, files = make(rung)
    try:
        ordered = chain.order([(0, 0), (0, 2)], "1.1.0", {}, START_S)
        assert [row.kind for row in ordered] == ["update_ordered"] * 2
        news = []
        assert run(chain, 600, news) is not None
        ends = {pack: kind for _, pack, kind, _, _ in news if kind in ("update_success", "update_failed")}
        assert ends == {0: "update_success", 2: "update_success"}
        for pack in (0, 2):
            assert modem.mcus[pack].firmware_file(modem.mcus[pack].journal().slot) == files["1.1.0"]
        assert modem.mcus[1].firmware_file(modem.mcus[1].journal().slot) == files["1.0.0"]
        assert any(kind == "update_download" and text == "delta" for _, _, kind, _, text in news)
        traffic = chain.traffic()
        assert 0 < traffic["down_B"] < traffic["full_images_B"]
    finally:
        chain.close()


def test_the_same_run_on_every_rung_and_with_loss_and_outages():
    """Phases at the same second whatever carries the messages: the air decides, not the sockets."""
    from ota.transport import mosquitto

    stories = []
    rungs = ["memory", "embedded"] + (["mosquitto"] if mosquitto.find() else [])
    for name in rungs:
        chain, modem, files = make(name, Air(7, 0.4, 4_000.0, 0.2))
        try:
            news = []
            chain.order([(0, k) for k in range(N)], "1.1.0", {}, START_S)
            run(chain, 8, news)
            chain.set_broker(False)
            run(chain, 20, news, 8)
            chain.set_broker(True)
            assert run(chain, 3000, news, 28) is not None
            for mcu in modem.mcus:
                assert mcu.firmware_file(mcu.journal().slot) == files["1.1.0"]
            assert chain.traffic()["messages_lost"] > 0
            stories.append(news)
        finally:
            chain.close()
    assert all(story == stories[0] for story in stories[1:])


def test_a_connected_pack_is_named_as_waiting_until_it_opens():
    chain, modem, _ = make("memory", connected=(1,))
    try:
        chain.order([(0, 1)], "1.1.0", {}, START_S)
        news = []
        assert run(chain, 300, news) is None
        assert chain.waits_for_contactors() == [(0, 1)]
        assert ("update_waits", "DEFER_CONTACTORS") in {(kind, text) for _, _, kind, _, text in news}
        modem.mcus[1].conditions = 0
        assert run(chain, 600, news, 300) is not None
        assert chain.waits_for_contactors() == []
        assert not chain.under_way(0, 1)
    finally:
        chain.close()


def test_device_ids_are_unique_and_fit_topics_and_certificates():
    from ota.topics import check_device

    paths = ["a/rack-1/pack-1", "a_b/rack-1/pack-1", "a-b/rack-1/pack-1", f"{'x' * 60}/rack-1/pack-1"]
    names = device_names(paths)
    assert len(set(names.values())) == len(paths)
    for name in names.values():
        check_device(name)
    assert names["a/rack-1/pack-1"] == "a-rack-1-pack-1"
