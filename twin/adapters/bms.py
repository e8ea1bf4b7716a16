"""The ladder of battery management: the C firmware, compiled for this host or for the emulated controller.

The integers on the way in and out are the same on both (`firmware_records.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from twin.adapters.catalogue import PackSheet
from twin.adapters.firmware_records import TICK_US, Codec, firmware_parameters
from twin.ports import Bms, BmsCommands, BoolArray, MeasuredFrame

Build = Callable[[PackSheet, int, str], Bms]  # data sheet, n_packs, rate (full or plant)


@dataclass(frozen=True)
class BmsRung:
    about: str
    build: Build


class NativeBank:
    """One NativeBms instance for each pack of a shard, all of one design."""

    def __init__(self, sheet: PackSheet, n_packs: int, rate: str) -> None:
        from bms_emulator.native import NativeBms

        self._bms = NativeBms([firmware_parameters(sheet)] * n_packs)
        self._plant_rate = rate == "plant"
        self._codec = Codec(sheet, self._bms.frames(), self._bms.outputs)
        self.state_names, self.fault_names = self._codec.state_names, self._codec.fault_names
        self.commands = self._codec.commands
        self.ticks = 0
        self.modem = None

    def request(self, closed: BoolArray) -> None:
        self._codec.frames["request"] = np.where(closed, self._codec.close_bit, 0)

    def step(self, frame: MeasuredFrame, dt_us: int) -> BmsCommands:
        n_ticks, tick_ms = (1, dt_us // 1000) if self._plant_rate else (dt_us // TICK_US, TICK_US // 1000)
        self._codec.encode(frame, n_ticks)
        self._bms.step(self._codec.frames, n_ticks, tick_ms)
        self.ticks += self._bms.n * n_ticks
        return self._codec.decode()


def _native(sheet: PackSheet, n_packs: int, rate: str) -> Bms:
    return cast(Bms, NativeBank(sheet, n_packs, rate))


RUNGS: dict[str, BmsRung] = {
    "native": BmsRung("the C firmware compiled for this host; for whole fleets", _native),
}


def images() -> tuple[str, ...]:
    """Firmware releases that can be built."""
    from bms_emulator.firmware.build import SOURCE_DIR

    return tuple(sorted(path.stem for path in (SOURCE_DIR / "releases").glob("*.toml")))


def parameters() -> tuple[str, ...]:
    """Names of firmware parameters that an update may change."""
    return ()
