"""A complete small world: keys, repositories, releases, a server and devices with modelled controllers.

For demos, benchmarks and tests. Keys come from seeds, so a world is the same in every run; the firmware
bodies are synthetic but have the statistics that matter to deltas (code-like words, tables, strings, free
space).
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import delta, device, image, parameters, trust
from .audit import AuditLog
from .gateway import AgentHost, BlockStore, MemoryStore, ServerHost
from .image import Version
from .mcu_model import Mcu, McuConfig, PowerCutError
from .repository import Director, Repository, RoleKeys, custom_fields
from .server import DeviceIdentity, UpdateServer
from .signing import Algorithm, SoftwareKey
from .topics import SERVER_USER
from .transport.base import Link
from .transport.memory import Faults, MemoryBroker

VENDOR = "example.org"
HARDWARE = "bms-a"
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

    def __init__(self, mcu: Mcu) -> None:
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
        except PowerCutError:
            self.cuts += 1
            self._out.clear()
            if self.on_cut is not None:
                self.on_cut()

    def receive(self) -> list[bytes]:
        out, self._out = self._out, []
        return out


@dataclass
class Release:
    name: str
    file: bytes
    version: Version

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.file).digest()


@dataclass
class Unit:
    """A device: agent, controller, port."""

    host: AgentHost
    mcu: Mcu
    port: ModelPort
    notes: list[tuple[str, str]] = field(default_factory=list)


class Testbed:
    """See module docstring. ``now_s`` is the world's clock; ``run`` moves it."""

    __test__ = False  # not a pytest class

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        algorithm: Algorithm = Algorithm.ED25519,
        faults: Faults | None = None,
        slot_size: int = 64 * 1024,
        journal: bool = False,
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.now_s = EPOCH_S
        self.slot_size = slot_size
        names = (
            "root1",
            "root2",
            "root3",
            "targets1",
            "targets2",
            "family",
            "online",
            "director-root",
            "image",
        )
        self.keys = {n: SoftwareKey.from_seed(f"{seed}/{n}".encode(), algorithm) for n in names}
        public = {n: k.public for n, k in self.keys.items()}
        online = RoleKeys((public["online"],))
        roles = {
            "root": RoleKeys((public["root1"], public["root2"], public["root3"]), 2),
            "targets": RoleKeys((public["targets1"], public["targets2"]), 2),
            "snapshot": online,
            "timestamp": online,
        }
        self.repository, unsigned = Repository.create(
            folder / "images", roles, self.now_s, {HARDWARE: RoleKeys((public["family"],))}
        )
        self.repository.commit("root", unsigned["root"], [self.keys["root1"], self.keys["root2"]])
        self.repository.commit("targets", unsigned["targets"], [self.keys["targets1"], self.keys["targets2"]])
        self.family = f"family-{HARDWARE}"
        self.repository.commit(self.family, unsigned[self.family], [self.keys["family"]])
        director_roles = dict.fromkeys(("targets", "snapshot", "timestamp"), online)
        director_roles["root"] = RoleKeys((public["director-root"],))
        self.director_root = Director.new_root(director_roles, [self.keys["director-root"]], self.now_s)
        self.director = Director(self.director_root, self.keys["online"])
        self.vendor_id = image.vendor_uuid(VENDOR)
        self.class_id = image.class_uuid(VENDOR, HARDWARE)
        self.journal = folder / "server.journal" if journal else None
        self.audit = AuditLog(folder / "audit.log")
        self.server = self._new_server()
        self.broker = MemoryBroker(faults)
        self.server_host = ServerHost(self.server, self.broker.connect(SERVER_USER))
        self.units: dict[str, Unit] = {}
        self.releases: dict[str, Release] = {}
        self.release_counter = 0
        self.publish()

    def _new_server(self) -> UpdateServer:
        return UpdateServer(
            self.repository,
            self.director,
            hashlib.sha256(f"server {self.seed}".encode()).digest()[:16],
            journal=self.journal,
        )

    def restart_server(self, link: Link | None = None) -> None:
        """The server process dies and a new one continues from the journal."""
        self.server.close()
        old = self.server
        self.director = Director(self.director_root, self.keys["online"], dict(self.director.versions))
        self.server = self._new_server()
        for row in old.devices.values():
            self.server.register(row.identity)
        self.server.open_journal()
        for row in self.server.devices.values():
            if row.deployment:
                self.server.director.assign(row.identity.device, row.assignments, self.now_s)
        wants = self.server_host.wants
        self.server_host.link.close()
        self.server_host = ServerHost(self.server, link or self.broker.connect(SERVER_USER), wants)

    # ---- releases -----------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Sign snapshot and timestamp over what is in the repository."""
        self.repository.publish([self.keys["online"]], [self.keys["online"]], self.now_s)

    def firmware(
        self,
        version: str,
        body: bytes,
        security_counter: int = 1,
        schema: tuple[int, int] | None = None,
        dependencies: Sequence[image.Dependency] = (),
    ) -> bytes:
        """A signed firmware file."""
        return image.build(
            body,
            version=Version.parse(version),
            key=self.keys["image"],
            security_counter=security_counter,
            vendor_id=self.vendor_id,
            class_id=self.class_id,
            parameter_schema=schema,
            dependencies=dependencies,
            build_digest=hashlib.sha256(b"build" + body).digest(),
        )

    def parameter_set(
        self, version: str, counter: int, schema: parameters.Schema = SCHEMA, **values: float
    ) -> bytes:
        """A signed parameter file; ``values`` replace the standard ones."""
        return parameters.build(
            schema,
            {**VALUES, **values},
            counter=counter,
            version=Version.parse(version),
            key=self.keys["image"],
            vendor_id=self.vendor_id,
            class_id=self.class_id,
        )

    def release(self, name: str, file: bytes, bases: Sequence[str] = (), publish: bool = True) -> Release:
        """Put a file into the image repository, with deltas from earlier releases where they are smaller."""
        parsed = image.parse(file)
        self.release_counter += 1
        metadata = self.repository.edit(self.family, self.now_s)
        deltas: list[dict[str, str]] = []
        for base in bases:
            kind, data = delta.container.choose(self.releases[base].file, file)
            if kind == "delta":
                target = f"{HARDWARE}/{name}-from-{base}.btd"
                row = custom_fields(
                    kind="delta",
                    hardware_ids=[HARDWARE],
                    release_counter=self.release_counter,
                    version=str(parsed.version),
                    security_counter=parsed.security_counter or 0,
                    data=data,
                )
                self.repository.add_target(metadata, target, data, row)
                deltas.append({"base": self.releases[base].digest.hex(), "name": target})
        custom = custom_fields(
            kind="firmware" if parsed.bootable else "parameters",
            hardware_ids=[HARDWARE],
            release_counter=self.release_counter,
            version=str(parsed.version),
            security_counter=parsed.security_counter or 0,
            data=file,
            param_schema=parsed.parameter_schema,
            deltas=deltas,
        )
        self.repository.add_target(metadata, f"{HARDWARE}/{name}", file, custom)
        self.repository.commit(self.family, metadata, [self.keys["family"]])
        if publish:
            self.publish()
        self.releases[name] = Release(f"{HARDWARE}/{name}", file, parsed.version)
        return self.releases[name]

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
        key = SoftwareKey.from_seed(f"{self.seed}/device/{name}".encode())
        config = device.Config(
            device=name,
            ecu_serial=f"ecu-{name}",
            hardware_id=HARDWARE,
            vendor_id=self.vendor_id,
            class_id=self.class_id,
            hardware_revision=1,
            key=key,
            director_keys=(self.keys["online"].public,),
            time_keys=(self.keys["online"].public,),
            secret=hashlib.sha256(f"{self.seed}/secret/{name}".encode()).digest()[:16],
        )
        store_of_trust = trust.TrustStore(
            {"root.json": (self.repository.metadata_dir / "1.root.json").read_bytes()},
            {"root.json": self.director.roots[0]},
        )
        port = ModelPort(mcu)
        notes: list[tuple[str, str]] = []
        host = AgentHost(
            config,
            device.start(store_of_trust),
            link or self.broker.connect(name),
            port,
            store or MemoryStore(),
            keep_state,
            log=lambda now, reason, detail: notes.append((reason.name, detail)),
        )
        unit = Unit(host, mcu, port, notes)
        self.units[name] = unit
        self.server.register(
            DeviceIdentity(name, key.public, f"ecu-{name}", HARDWARE, self.vendor_id, self.class_id)
        )
        return unit

    def new_mcu(
        self,
        name: str,
        firmware: bytes,
        parameter_file: bytes = b"",
        schema_of: Callable[[bytes], parameters.Schema | None] | None = None,
    ) -> Mcu:
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
        mcu = Mcu(config, seed)
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
