"""The ladder of battery management: the C firmware, compiled for this host or for the emulated controller.

The integers on the way in and out are the same on both (`firmware_records.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from twin.adapters.catalogue import PackSheet
from twin.adapters.workshop import Workshop
from twin.ports import Bms

DEFAULT_IMAGE = "1.2.0"


@dataclass(frozen=True)
class Fitting:
    """How the controllers of a shard leave the factory.

    rate : `full` (a tick every 10 ms) or `plant` (one decision per plant step)
    image : firmware release
    serials : of each pack, for those that have a serial number
    workshop : where signed software comes from; None if nothing has to be signed
    updates : whether the scenario updates them
    """

    rate: str = "full"
    image: str = DEFAULT_IMAGE
    serials: tuple[str, ...] = ()
    workshop: Workshop | None = None
    updates: bool = False


Build = Callable[[PackSheet, int, Fitting], Bms]  # data sheet, n_packs, how they are fitted


@dataclass(frozen=True)
class BmsRung:
    about: str
    build: Build


def _native(sheet: PackSheet, n_packs: int, fitting: Fitting) -> Bms:
    from twin.adapters.native_bms import Controllers, NativeBank

    controllers = None
    if fitting.updates and fitting.workshop is not None:
        controllers = Controllers(sheet, fitting.image, fitting.serials, fitting.workshop)
    return cast(Bms, NativeBank(sheet, n_packs, fitting.rate, fitting.image, controllers))


def _emulated(sheet: PackSheet, n_packs: int, fitting: Fitting) -> Bms:
    from twin.adapters.emulated_bms import EmulatedBank

    workshop = fitting.workshop or Workshop(0, 0.0)
    serials = fitting.serials or tuple(f"pack-{k + 1}" for k in range(n_packs))
    return cast(Bms, EmulatedBank(sheet, fitting.rate, fitting.image, serials, workshop))


RUNGS: dict[str, BmsRung] = {
    "native": BmsRung("the C firmware compiled for this host; for whole fleets", _native),
    "emulated": BmsRung("the signed image on a cycle-accurate RISC-V controller for each pack", _emulated),
}


def images() -> tuple[str, ...]:
    """Firmware releases that can be built, good ones first."""
    from bms_emulator.firmware.releases import release_names

    return release_names()


def host_build(release: str) -> str:
    """What identifies the library of a release on this host."""
    from bms_emulator.firmware.interface import load

    return f"host build {load(release=release).build}"


@lru_cache(maxsize=1)
def parameters() -> tuple[str, ...]:
    """Names of firmware parameters that an update may change."""
    from bms_emulator.firmware.paramset import schema

    return tuple(row["name"] for row in schema()["parameters"])
