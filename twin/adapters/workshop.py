"""Where controllers get their software: builds firmware releases and parameter sets, signs them, provisions
keys.

One workshop per world. Firmware comes from the sources of `bms_emulator`, containers and signatures from
`ota`; keys are made from the scenario's seed, so the same scenario gives the same bytes.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from twin.adapters.catalogue import PackSheet
from twin.adapters.firmware_records import firmware_parameters

HARDWARE = "bms-a"
REVISION = 1
# What a deliberately flawed release does to a controller, where no instruction of it is executed.
_BEHAVIOUR = {
    "-DBMS_FLAW_CRASH_AT_BOOT": "crash",
    "-DBMS_FLAW_CONFIRM_THEN_CRASH": "confirm_then_crash",
    "-DBMS_FLAW_NO_FURTHER_UPDATE": "no_network",
}
_HANGS = "-DBMS_FLAW_HANG"


@dataclass(frozen=True)
class _Controller:
    """Manufacture data and judgement for a controller on the host (`host_mcu.Config`)."""

    workshop: Workshop
    serial: str
    hardware_revision: int = REVISION

    @property
    def vendor_id(self) -> bytes:
        return bytes(self.workshop.office.vendor_id)

    @property
    def class_id(self) -> bytes:
        return bytes(self.workshop.office.class_id)

    @property
    def image_keys(self) -> Sequence[Any]:
        return (self.workshop.office.keys["image"].public,)

    @property
    def manifest_keys(self) -> Sequence[Any]:
        return (self.workshop.office.keys["online"].public,)

    def fits(self, firmware: bytes | None, parameters: bytes | None, least: tuple[int, int]) -> bool:
        """Whether this pair may run, by the Python verifier: the second opinion on what the ROM started."""
        from bms_emulator.firmware.package import WINDOW
        from ota import image
        from ota.errors import OtaError

        try:
            pair = [
                image.verify(
                    file or b"",
                    image.Policy(
                        keys=tuple(self.image_keys),
                        vendor_id=self.vendor_id,
                        class_id=self.class_id,
                        hardware_revision=self.hardware_revision,
                        least_security_counter=counter,
                        load_addresses=(WINDOW,),
                        bootable=bootable,
                    ),
                )
                for file, counter, bootable in ((firmware, least[0], True), (parameters, least[1], False))
            ]
            image.check_set(pair[0], pair[1])
        except OtaError:
            return False
        return True

    def parameter_verdict(self, image_digest: bytes, body: bytes | None) -> int:
        """What the firmware says of a set: a reason code of `ota.errors`, 0 when it takes it."""
        from bms_emulator.firmware.paramset import read_set
        from ota.errors import Reason

        if body is None:
            return int(Reason.INCOMPLETE_SET)
        return int(Reason.OK if read_set(body)[0] == "OK" else Reason.PARAMETER_RANGE)


class Workshop:
    """`epoch_s`: Unix time of the start of the run, for the dates in signed metadata."""

    def __init__(self, seed: int, epoch_s: float) -> None:
        self._seed, self._epoch_s = seed, epoch_s
        self._files: dict[str, bytes] = {}
        self._names: dict[bytes, str] = {}
        self._builds: dict[str, str] = {}
        self.behaviour: dict[bytes, str] = {}  # SHA-256 of a file -> word of `host_mcu.HostMcu.behaviour`

    @cached_property
    def folder(self) -> Path:
        """Where repositories lie while the world lives."""
        return Path(tempfile.mkdtemp(prefix="twin-updates-"))

    @cached_property
    def office(self) -> Any:
        """Keys, repositories and update server (`ota.office.Office`)."""
        from ota.office import Office

        return Office(self.folder / "office", seed=self._seed, now_s=self._epoch_s, hardware=HARDWARE)

    def firmware(self, release: str) -> bytes:
        """The signed image of a release, as it is programmed into a slot."""
        if release not in self._files:
            from bms_emulator.firmware.package import WINDOW
            from bms_emulator.firmware.paramset import schema
            from bms_emulator.firmware.releases import load_release
            from bms_emulator.firmware.target import build_program

            chosen = load_release(release)
            program = build_program("app", chosen.flags)
            version = schema()["version"]
            file: bytes = self.office.firmware(
                chosen.version,
                program.body,
                security_counter=1,
                schema=(version, version),
                load_address=WINDOW,
                build_digest=hashlib.sha256(program.elf).digest(),
            )
            self._files[release] = file
            self._builds[release] = hashlib.sha256(program.elf).hexdigest()
            self._names[hashlib.sha256(file).digest()] = release
            does = next((word for flag, word in _BEHAVIOUR.items() if flag in chosen.flags), None)
            if does is not None:
                self.behaviour[hashlib.sha256(file).digest()] = does
        return self._files[release]

    def identify(self, release: str) -> str:
        """SHA-256 of the signed image and of the program that was built for it."""
        file = self.firmware(release)
        return f"image sha256 {hashlib.sha256(file).hexdigest()}, build sha256 {self._builds[release]}"

    def release_of(self, digest: bytes) -> str:
        """Name of the release whose signed file has this SHA-256."""
        return self._names[digest]

    def release_in(self, slot: bytes) -> str | None:
        """Name of the release whose file stands at the start of a flash slot; None if it is none of ours."""
        magic, header, protected, body = struct.unpack_from("<I4xHHI", slot)
        free = header + body + protected
        if magic != 0x96F3B83D or free + 4 > len(slot):
            return None
        end = free + int(struct.unpack_from("<H", slot, free + 2)[0])
        return self._names.get(hashlib.sha256(slot[:end]).digest())

    def hangs(self, release: str) -> bool:
        """Whether it stops after ten minutes, for a controller without instructions to stop."""
        from bms_emulator.firmware.releases import load_release

        return _HANGS in load_release(release).flags

    def parameter_file(self, sheet: PackSheet, changes: Mapping[str, int], counter: int) -> bytes:
        """The signed parameter set of a pack design with some values changed."""
        from bms_emulator.firmware.parameters import make_params
        from bms_emulator.firmware.paramset import schema
        from ota.parameters import Schema

        table = schema()
        words = make_params([{**firmware_parameters(sheet), **changes}]).view("<i4")
        floats = words.view("<f4")
        values = {
            row["name"]: float(floats[row["id"]]) if row["type"] == "f32" else int(words[row["id"]])
            for row in table["parameters"]
        }
        file: bytes = self.office.parameter_file(
            f"1.0.{counter}", counter, Schema.from_mapping(table), values
        )
        return file

    @staticmethod
    def body(file: bytes) -> bytes:
        """What stands in a signed file, without header and signatures."""
        from ota import image

        return image.parse(file).body

    def controller(self, serial: str) -> _Controller:
        """What a controller of this serial number is born with, for `bms_emulator.host_mcu`."""
        return _Controller(self, serial)

    def identity(self, serial: str) -> Any:
        """What the boot ROM knows of its hardware and of those who may order."""
        from bms_emulator.firmware.package import Identity

        office = self.office
        manifest_keys = (office.keys["online"].public.spki,)
        return Identity(office.vendor_id, office.class_id, REVISION, serial, manifest_keys)

    def keys(self) -> tuple[Any, ...]:
        """Public keys in the key slots of every controller: images, manifests."""
        from bms_emulator.devices.hsm import KeySlot

        return tuple(
            KeySlot(self.office.keys[name].public.spki, purpose)
            for purpose, name in enumerate(("image", "online"))
        )

    def close(self) -> None:
        """Remove what was written."""
        if "folder" in self.__dict__:
            shutil.rmtree(self.folder, ignore_errors=True)
