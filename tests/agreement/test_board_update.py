"""Real updates on the emulated board: 1.0.0 to 1.1.0 by delta, and to a release that crashes at boot.

The office, the server and the gateway agent of ``ota`` on one side, mosquitto between them (the memory link
where it is missing), the firmware built from its sources on the other side of the mailbox; the battery is
connected and discharging, every RT deadline is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bms_emulator.board import BmsBoard
from bms_emulator.devices.afe import Truth
from bms_emulator.devices.hsm import KeySlot
from bms_emulator.firmware.package import WINDOW, Identity
from bms_emulator.firmware.releases import load_release
from bms_emulator.firmware.target import Program, build_program
from ota import image
from ota.gateway import ServerHost
from ota.image import FLAG_ROM_FIXED, Version
from ota.mcu_model import McuConfig, PowerCutError
from ota.testbed import Testbed
from ota.topics import SERVER_USER
from ota.transport import mosquitto
from ota.transport.settle import Settler

pytest.importorskip("ziglang", reason="ziglang compiles the firmware")
pytest.importorskip("paho.mqtt", reason="needs the extra [mqtt]")
from ota.transport.mqtt import Address, Hub

STEP_S = 0.02


class BoardController:
    """A board with its battery behind the methods that the test bed asks of a controller."""

    PowerCut: type[Exception] = PowerCutError
    rom: Program

    def __init__(self, config: McuConfig, seed: int = 0) -> None:
        keys = [KeySlot(k.spki, 0) for k in config.image_keys] + [
            KeySlot(k.spki, 1) for k in config.manifest_keys
        ]
        self.board = BmsBoard(keys=keys, seed=seed)
        self.identity = Identity(
            config.vendor_id,
            config.class_id,
            config.hardware_revision,
            config.serial,
            tuple(k.spki for k in config.manifest_keys),
        )
        self.request = 1  # the energy management system wants to be connected
        self.behaviour: dict[bytes, str] = {}
        self.overruns = 0
        self.closed_s = 0.0

    def manufacture(self, firmware: bytes, parameter_file: bytes = b"", kept: bytes = b"") -> None:
        self.board.manufacture(self.rom, firmware, parameter_file, self.identity, kept)

    def power_on(self, by_image: bool = False) -> bool:
        self.board.power_on()
        self.advance(0.5)
        return self.board.stats() is not None

    @property
    def running(self) -> bool:
        return self.board.stats() is not None

    def advance(self, seconds: float) -> None:
        """The battery lives on: a sample every 20 ms, 10 A while connected."""
        board = self.board
        for _ in range(round(seconds / STEP_S)):
            closed = board.contactors & 3 == 3
            link = 51.8 if board.contactors else 0.0
            truth = Truth(np.full(14, 3.7), np.full(4, 298.15), 10.0 if closed else 0.0, 51.8, link)
            board.measure(truth, period_ticks=2, request=self.request)
            board.run(STEP_S)
            self.closed_s += STEP_S * closed
            stats = board.stats()
            self.overruns = max(self.overruns, stats.overruns if stats else 0)

    def receive(self, frame: bytes) -> list[bytes]:
        """Into the mailbox, and the battery goes on until the answer is there."""
        self.board.mailbox.receive(frame)
        before = len(self.board.mailbox.sent)
        for _ in range(150):
            self.advance(STEP_S)
            if not self.board.mailbox.waiting and len(self.board.mailbox.sent) > before:
                break
        return self.board.mailbox.sent[before:]


@pytest.fixture(scope="module")
def rom() -> Program:
    return build_program("rom")


def body(name: str) -> bytes:
    """The firmware of a release."""
    return build_program("app", load_release(name).flags).body


class World:
    """A device with 1.0.0, and the release `new` as file and as delta.

    The broker comes to rest before the clock moves, so a run over mosquitto repeats."""

    def __init__(self, folder: Path, rom: Program, new: str, real: bool) -> None:
        BoardController.rom = rom
        self.bed = bed = Testbed(folder, slot_size=256 * 1024, controller=BoardController)
        for name, bases in (("1.0.0", ()), (new, ("1.0.0",))):
            file = image.build(
                body(name),
                version=Version.parse(load_release(name).version),
                key=bed.keys["image"],
                security_counter=1,
                vendor_id=bed.vendor_id,
                class_id=bed.class_id,
                flags=FLAG_ROM_FIXED,
                load_address=WINDOW,
            )
            bed.release(name, file, list(bases))
        self.hub: Hub | None = None
        link = None
        if real and mosquitto.find() is not None:
            self.broker = mosquitto.Mosquitto(folder / "b", passwords={SERVER_USER: "p", "dev-1": "p"})
            self.hub = Hub()
            address = Address(self.broker.port, password="p")
            bed.server_host.link.close()
            bed.server_host = ServerHost(bed.server, self.hub.link(address, SERVER_USER))
            link = self.hub.link(address, "dev-1")
        self.unit = bed.add_unit("dev-1", bed.releases["1.0.0"].file, link=link)
        self.mcu: Any = self.unit.mcu
        host, device = bed.server_host, self.unit.host
        self.settler = Settler(
            [
                (host.link, lambda events: host.on_link(events, bed.now_s)),
                (device.link, lambda events: device.on_link(events, bed.now_s)),
            ]
        )
        self.settle()

    def settle(self) -> None:
        if self.hub is None:
            self.bed.settle()
        else:
            self.settler.settle()

    def run(self, seconds: int, battery_s: float, until: Callable[[], bool]) -> None:
        """Second by second; the battery lives `battery_s` of each beside what the mailbox takes."""
        for _ in range(seconds):
            self.bed.now_s += 1.0
            self.unit.host.mailbox(self.bed.now_s)
            self.unit.host.tick(self.bed.now_s)
            self.settle()
            self.mcu.advance(battery_s)
            if until():
                return

    def close(self) -> None:
        if self.hub is not None:
            self.hub.close()
            self.broker.stop()


@pytest.fixture
def worlds(tmp_path: Path, rom: Program) -> Iterator[Callable[[str, bool], World]]:
    made: list[World] = []

    def make(new: str, real: bool) -> World:
        made.append(World(tmp_path, rom, new, real))
        return made[-1]

    yield make
    for world in made:
        world.close()


def test_update_by_delta_while_the_battery_runs(worlds: Callable[[str, bool], World]) -> None:
    world = worlds("1.1.0", True)
    bed, unit, mcu = world.bed, world.unit, world.mcu
    mcu.advance(6.0)
    assert mcu.board.contactors & 3 == 3
    new = bed.releases["1.1.0"]
    deployment = bed.order("dev-1", "1.1.0")
    row = bed.server.deployments[deployment]

    # Downloaded and staged with contactors closed; then it waits, and says why.
    world.run(60, 0.2, lambda: any(name == "DEFER_CONTACTORS" for name, _ in unit.notes))
    assert any(name == "DEFER_CONTACTORS" for name, _ in unit.notes), unit.notes
    assert mcu.board.contactors & 3 == 3
    assert [what for _, what in mcu.board.log] == ["power on"]
    assert row.bytes_received < len(new.file) // 2  # it was the delta

    # Disconnected: the update goes through, confirmed after the self test of the new firmware.
    mcu.request = 0
    world.run(80, 0.5, lambda: bed.server.deployments[deployment].outcome.terminal)
    assert bed.server.deployments[deployment].outcome.value == "success", unit.notes
    log = [what for _, what in mcu.board.log]
    assert log == ["power on", "software 1"]
    stats = mcu.board.stats()
    assert stats is not None
    assert (stats.slot, stats.safe_mode) == (1, False)
    part = mcu.board.machine.board.partition("slot_1")
    flash = mcu.board.machine.board.memory("flash").base
    assert mcu.board.machine.read_memory(flash + part.at, len(new.file)) == new.file
    assert hashlib.sha256(new.file).digest() == new.digest

    # Connected again, under the new firmware. No RT tick was late in all this time.
    mcu.request = 1
    mcu.advance(6.0)
    assert mcu.board.contactors & 3 == 3
    assert mcu.overruns == 0
    stats = mcu.board.stats()
    assert stats is not None
    print(
        f"image {len(new.file)} B, received {row.bytes_received} B, connected {mcu.closed_s:.1f} s,"
        f" RT at most {stats.task['rt'].max} cycles, update step at most {stats.task['update'].max}"
    )


def test_b9_crash_at_boot_goes_back_and_is_told(worlds: Callable[[str, bool], World]) -> None:
    """The new firmware dies before its agent starts: three boots, then the old one, and the server knows."""
    world = worlds("crash_at_boot", False)
    bed, unit, mcu = world.bed, world.unit, world.mcu
    mcu.request = 0
    mcu.advance(1.0)
    deployment = bed.order("dev-1", "crash_at_boot")
    world.run(120, 0.2, lambda: bed.server.deployments[deployment].outcome.terminal)
    row = bed.server.deployments[deployment]
    assert (row.outcome.value, row.reason.name) == ("failed", "ROLLED_BACK"), (row, unit.notes)
    assert ("ROLLED_BACK", "BOOT_ATTEMPTS") in unit.notes
    stats = mcu.board.stats()
    assert stats is not None
    assert stats.slot == 0
    assert len(mcu.board.log) == 1 + 1 + 3  # power on, activation, three crashes
    mcu.request = 1
    mcu.advance(6.0)
    assert mcu.board.contactors & 3 == 3
