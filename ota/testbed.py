"""A complete small world: keys, repositories, releases, a server and devices with modelled controllers.

For demos, benchmarks and tests. Keys come from seeds, so a world is the same in every run; the firmware
bodies are synthetic but have the statistics that matter to deltas (code-like words, tables, strings, free
space).
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import parameters
from .gateway import AgentHost, BlockStore, MemoryStore, ServerHost
from .mcu_model import Controller, Mcu, McuConfig
from .office import Office
from .repository import Director
from .signing import Algorithm
from .topics import SERVER_USER
from .transport.base import Link
from .transport.memory import Faults, MemoryBroker

EPOCH_S = 1_800_000_000.0

SCHEMA = parameters.Schema.from_mapping(
    {
        "version": 1,
        "parameters": [
            {"id": 1, "name": "cell_voltage_max", "type": "f32", "unit": "V", "minimum": 3.0, "maximum": 4.3},
            {"id": 2, "name": "cell_voltage_min", "type": "f32", "unit": "V", "minimum": 1.5, "maximum": 3.2},
            {"id": 3, "name": "temperature_max", "type": "f32", "unit": "K", "minimum": 300, "maximum": 343},
            {"id": 4, "name": "trip_hold", "type": "u32", "unit": "ms", "minimum": 10, "maximum": 5000},
        ],
        "ordered": [["cell_voltage_min", "cell_voltage_max"]],
    }
)
VALUES = {"cell_voltage_max": 4.2, "cell_voltage_min": 2.5, "temperature_max": 333.0, "trip_hold": 100}


def firmware_body(size: int = 24 * 1024, seed: int = 1, edits: int = 0) -> bytes:
    """Code-like bytes. ``edits``: that many inserted or changed places, shifting what follows."""
    rng = random.Random(seed)
    words = [rng.getrandbits(32) for _ in range(400)]
    out = bytearray()
    while len(out) < size * 3 // 4:
        out += struct.pack("<I", rng.choice(words) & 0xFFFFF07F | rng.randrange(32) << 7)
    out += b"".join(b"fault %03d: limit exceeded\0" % i for i in range(size // 400))
    out += bytes(max(0, size - len(out)))
    change = random.Random(seed + 1000 + edits)
    for _ in range(edits):
        at = change.randrange(0, len(out) // 2) & ~3
        if change.random() < 0.4:
            out[at:at] = struct.pack("<4I", *(change.choice(words) for _ in range(4)))
        else:
            out[at : at + 4] = struct.pack("<I", change.choice(words))
    return bytes(out[:size])


class ModelPort:
    """The mailbox of a modelled controller. A power cut loses the frame; ``on_cut`` decides what next."""

    def __init__(self, mcu: Controller) -> None:
        self.mcu = mcu
        self.cuts = 0
        self.on_cut: Callable[[], None] | None = None
        self.corrupt: Callable[[bytes], bytes | None] | None = None
        self._out: list[bytes] = []

    def send(self, frame: bytes) -> None:
        changed = self.corrupt(frame) if self.corrupt else frame
        if changed is None:
            return
        try:
            self._out += self.mcu.receive(changed)
        except self.mcu.PowerCut:
            self.cuts += 1
            self._out.clear()
            if self.on_cut is not None:
                self.on_cut()

    def receive(self) -> list[bytes]:
        out, self._out = self._out, []
        return out


@dataclass
class Unit:
    """A device: agent, controller, port."""

    host: AgentHost
    mcu: Controller
    port: ModelPort
    notes: list[tuple[str, str]] = field(default_factory=list)


class Testbed(Office):
    """An office, a broker in memory and devices. ``now_s`` is the world's clock; ``run`` moves it."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        algorithm: Algorithm = Algorithm.ED25519,
        faults: Faults | None = None,
        slot_size: int = 64 * 1024,
        journal: bool = False,
        controller: Callable[[McuConfig, int], Controller] = Mcu,
    ) -> None:
        super().__init__(folder, seed=seed, now_s=EPOCH_S, algorithm=algorithm, journal=journal)
        self.slot_size = slot_size
        self.controller = controller
        self.broker = MemoryBroker(faults)
        self.server_host = ServerHost(self.server, self.broker.connect(SERVER_USER))
        self.units: dict[str, Unit] = {}

    def restart_server(self, link: Link | None = None) -> None:
        """The server process dies and a new one continues from the journal."""
        self.server.close()
        old = self.server
        self.director = Director(self.director_root, self.keys["online"], dict(self.director.versions))
        self.server = self.new_server()
        for row in old.devices.values():
            self.server.register(row.identity)
        self.server.open_journal()
        for row in self.server.devices.values():
            if row.deployment:
                self.server.director.assign(row.identity.device, row.assignments, self.now_s)
        wants = self.server_host.wants
        self.server_host.link.close()
        self.server_host = ServerHost(self.server, link or self.broker.connect(SERVER_USER), wants)

    def parameter_set(
        self, version: str, counter: int, schema: parameters.Schema = SCHEMA, **values: float
    ) -> bytes:
        """A signed parameter file; ``values`` replace the standard ones."""
        return self.parameter_file(version, counter, schema, {**VALUES, **values})

    # ---- devices ------------------------------------------------------------------------------------------

    def add_unit(
        self,
        name: str,
        firmware: bytes,
        parameter_file: bytes = b"",
        *,
        schema_of: Callable[[bytes], parameters.Schema | None] | None = None,
        link: Link | None = None,
        store: BlockStore | None = None,
        keep_state: Callable[[bytes], None] | None = None,
    ) -> Unit:
        """A manufactured, running device that trusts the present roots."""
        mcu = self.new_mcu(name, firmware, parameter_file, schema_of)
        config, state = self.enrol(name)
        port = ModelPort(mcu)
        notes: list[tuple[str, str]] = []
        host = AgentHost(
            config,
            state,
            link or self.broker.connect(name),
            port,
            store or MemoryStore(),
            keep_state,
            log=lambda now, reason, detail: notes.append((reason.name, detail)),
        )
        unit = Unit(host, mcu, port, notes)
        self.units[name] = unit
        return unit

    def new_mcu(
        self,
        name: str,
        firmware: bytes,
        parameter_file: bytes = b"",
        schema_of: Callable[[bytes], parameters.Schema | None] | None = None,
    ) -> Controller:
        config = McuConfig(
            serial=f"ecu-{name}",
            vendor_id=self.vendor_id,
            class_id=self.class_id,
            hardware_revision=1,
            image_keys=(self.keys["image"].public,),
            manifest_keys=(self.keys["online"].public,),
            slot_size=self.slot_size,
            schema_of=schema_of or (lambda digest: None),
        )
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}/{name}".encode()).digest()[:4], "big")
        mcu = self.controller(config, seed)
        mcu.manufacture(firmware, parameter_file)
        mcu.power_on()
        return mcu

    # ---- running ------------------------------------------------------------------------------------------

    def order(self, unit: str, *names: str, **options: int) -> bytes:
        """Order releases by short name; returns the deployment id."""
        files = [self.releases[n].name for n in names]
        deployment, messages = self.server.order(unit, files, self.now_s, **options)
        self.server_host.send(messages)
        return deployment.id

    def round(self) -> bool:
        """Everybody looks at the link once; True if anything happened."""
        happened = False
        events = self.server_host.link.poll()
        happened |= bool(events)
        self.server_host.on_link(events, self.now_s)
        for unit in self.units.values():
            events = unit.host.link.poll()
            happened |= bool(events)
            unit.host.on_link(events, self.now_s)
        return happened

    def settle(self) -> None:
        """Until no message is under way; bounded."""
        for _ in range(10_000):
            if not self.round():
                return
        raise AssertionError("messages do not come to rest")

    def run(self, seconds: float, step_s: float = 1.0, until: Callable[[], bool] | None = None) -> bool:
        """Move the clock; True when ``until`` held."""
        end = self.now_s + seconds
        self.settle()
        while self.now_s < end:
            if until is not None and until():
                return True
            self.now_s += step_s
            for unit in self.units.values():
                unit.host.mailbox(self.now_s)
                unit.host.tick(self.now_s)
            self.settle()
        return until is not None and until()

    def finish(self, deployment: bytes, seconds: float = 4000.0) -> str:
        """Run until the deployment has a terminal state on the server; its name."""
        row = self.server.deployments[deployment]
        self.run(seconds, until=lambda: self.server.deployments[row.id].outcome.terminal)
        return self.server.deployments[row.id].outcome.value
