"""The operator's office: signing keys, the two repositories, releases, and the update server over them.

One object where a pilot fleet, a simulation or a test bed gets everything from a firmware body to a signed
and published release. Keys come from seeds, so the same office is made again in every run; a production
set-up keeps its offline keys elsewhere and goes through `ceremony`.

    office = Office(folder, seed=7, now_s=1.8e9)
    file = office.firmware("1.1.0", body, security_counter=1)
    office.release("1.1.0", file, bases=["1.0.0"])
    office.server.order("rack-1", [office.releases["1.1.0"].name], office.now_s)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import delta, device, image, parameters, trust
from .audit import AuditLog
from .image import Version
from .repository import Director, Repository, RoleKeys, custom_fields
from .server import DeviceIdentity, UpdateServer
from .signing import Algorithm, SoftwareKey

VENDOR = "example.org"
HARDWARE = "bms-a"


@dataclass
class Release:
    name: str
    file: bytes
    version: Version

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.file).digest()


class Office:
    """See module docstring. ``now_s`` is the office's clock; ``hardware`` the one hardware family."""

    __test__ = False  # not a pytest class

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        now_s: float,
        algorithm: Algorithm = Algorithm.ED25519,
        journal: bool = False,
        vendor: str = VENDOR,
        hardware: str = HARDWARE,
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.now_s = now_s
        self.hardware = hardware
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
            folder / "images", roles, self.now_s, {hardware: RoleKeys((public["family"],))}
        )
        self.repository.commit("root", unsigned["root"], [self.keys["root1"], self.keys["root2"]])
        self.repository.commit("targets", unsigned["targets"], [self.keys["targets1"], self.keys["targets2"]])
        self.family = f"family-{hardware}"
        self.repository.commit(self.family, unsigned[self.family], [self.keys["family"]])
        director_roles = dict.fromkeys(("targets", "snapshot", "timestamp"), online)
        director_roles["root"] = RoleKeys((public["director-root"],))
        self.director_root = Director.new_root(director_roles, [self.keys["director-root"]], self.now_s)
        self.director = Director(self.director_root, self.keys["online"])
        self.vendor_id = image.vendor_uuid(vendor)
        self.class_id = image.class_uuid(vendor, hardware)
        self.journal = folder / "server.journal" if journal else None
        self.audit = AuditLog(folder / "audit.log")
        self.server = self.new_server()
        self.releases: dict[str, Release] = {}
        self.release_counter = 0
        self.publish()

    def new_server(self) -> UpdateServer:
        """A server process over the same repositories and journal."""
        return UpdateServer(
            self.repository,
            self.director,
            hashlib.sha256(f"server {self.seed}".encode()).digest()[:16],
            journal=self.journal,
        )

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
        load_address: int | None = None,
        build_digest: bytes | None = None,
    ) -> bytes:
        """A signed firmware file. ``load_address``: where it has to appear to run, None if anywhere."""
        return image.build(
            body,
            version=Version.parse(version),
            key=self.keys["image"],
            security_counter=security_counter,
            vendor_id=self.vendor_id,
            class_id=self.class_id,
            parameter_schema=schema,
            dependencies=dependencies,
            build_digest=build_digest or hashlib.sha256(b"build" + body).digest(),
            load_address=load_address or 0,
            flags=0 if load_address is None else image.FLAG_ROM_FIXED,
        )

    def parameter_file(
        self, version: str, counter: int, schema: parameters.Schema, values: Mapping[str, float]
    ) -> bytes:
        """A signed parameter file; ``values`` gives every parameter of the schema."""
        return parameters.build(
            schema,
            values,
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
                target = f"{self.hardware}/{name}-from-{base}.btd"
                row = custom_fields(
                    kind="delta",
                    hardware_ids=[self.hardware],
                    release_counter=self.release_counter,
                    version=str(parsed.version),
                    security_counter=parsed.security_counter or 0,
                    data=data,
                )
                self.repository.add_target(metadata, target, data, row)
                deltas.append({"base": self.releases[base].digest.hex(), "name": target})
        custom = custom_fields(
            kind="firmware" if parsed.bootable else "parameters",
            hardware_ids=[self.hardware],
            release_counter=self.release_counter,
            version=str(parsed.version),
            security_counter=parsed.security_counter or 0,
            data=file,
            param_schema=parsed.parameter_schema,
            deltas=deltas,
        )
        self.repository.add_target(metadata, f"{self.hardware}/{name}", file, custom)
        self.repository.commit(self.family, metadata, [self.keys["family"]])
        if publish:
            self.publish()
        self.releases[name] = Release(f"{self.hardware}/{name}", file, parsed.version)
        return self.releases[name]

    # ---- devices ------------------------------------------------------------------------------------------

    def enrol(self, name: str, hardware_revision: int = 1) -> tuple[device.Config, device.State]:
        """Register a device; what its gateway agent is born with: identity, keys, the present roots."""
        key = SoftwareKey.from_seed(f"{self.seed}/device/{name}".encode())
        config = device.Config(
            device=name,
            ecu_serial=f"ecu-{name}",
            hardware_id=self.hardware,
            vendor_id=self.vendor_id,
            class_id=self.class_id,
            hardware_revision=hardware_revision,
            key=key,
            director_keys=(self.keys["online"].public,),
            time_keys=(self.keys["online"].public,),
            secret=hashlib.sha256(f"{self.seed}/secret/{name}".encode()).digest()[:16],
        )
        store = trust.TrustStore(
            {"root.json": (self.repository.metadata_dir / "1.root.json").read_bytes()},
            {"root.json": self.director.roots[0]},
        )
        self.server.register(
            DeviceIdentity(name, key.public, f"ecu-{name}", self.hardware, self.vendor_id, self.class_id)
        )
        return config, device.start(store)
