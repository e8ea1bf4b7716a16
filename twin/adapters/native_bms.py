"""Rung `native`: the same C compiled for this host, one instance for each pack, whole shards in one call.

Where a scenario updates firmware, each pack also has the boot ROM and the update agent of the controller,
compiled for this host too, over its own flash (`bms_emulator.host_mcu`). When the ROM starts another release,
the pack moves to the library of that release: it begins anew, open, with the parameters in flash and the
state of charge that was stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.adapters.catalogue import PackSheet
from twin.adapters.firmware_records import TICK_US, Codec, firmware_parameters
from twin.adapters.workshop import Workshop
from twin.ports import BmsCommands, BoolArray, MeasuredFrame

CHARGING, CONNECTED, SOC_LOW, FAULT = 1 << 0, 1 << 1, 1 << 2, 1 << 4  # conditions, as in the firmware
SOC_LOW_ppm = 200_000
PROBATION_S = 600.0  # the firmware's own limit for a set that nobody confirms
HANG_S = 600.0  # uptime after which a release with that flaw stops, and the watchdog resets
_TEST = 2  # state of the slot journal


class Controllers:
    """Boot ROM, flash and update agent of every pack of a shard; also its `Modem`."""

    def __init__(self, sheet: PackSheet, release: str, serials: Sequence[str], workshop: Workshop) -> None:
        from bms_emulator.host_mcu import HostMcu

        self._workshop = workshop
        file, parameters = workshop.firmware(release), workshop.parameter_file(sheet, {}, 1)
        self._mcus: list[Any] = []
        self._out: list[list[bytes]] = [[] for _ in serials]
        for k, serial in enumerate(serials):
            mcu = HostMcu(workshop.controller(serial), seed=k)
            mcu.behaviour = workshop.behaviour
            mcu.manufacture(file, parameters)
            if not mcu.power_on():
                raise RuntimeError(f"{serial}: the boot ROM does not start {release}")
            self._mcus.append(mcu)
        self._boots = [len(mcu.boots) for mcu in self._mcus]
        self._unconfirmed_s = [0.0] * len(self._mcus)
        self._uptime_s = [0.0] * len(self._mcus)

    def send(self, pack: int, frame: bytes) -> None:
        """A frame of the gateway, answered at once: the agent is not the bottleneck here."""
        self._out[pack] += self._mcus[pack].receive(frame)

    def receive(self, pack: int) -> list[bytes]:
        found, self._out[pack] = self._out[pack], []
        return found

    def step(self, conditions: NDArray[np.int64], dt_s: float) -> list[int]:
        """Time passes: what the agents know of the battery. Returns the packs that have restarted."""
        restarted = []
        for k, mcu in enumerate(self._mcus):
            mcu.conditions = int(conditions[k])
            self._uptime_s[k] += dt_s
            row = mcu.journal()
            testing = mcu.running and row is not None and row.state == _TEST
            self._unconfirmed_s[k] = self._unconfirmed_s[k] + dt_s if testing else 0.0
            if self._unconfirmed_s[k] > PROBATION_S:
                mcu.probation_expired()
            elif mcu.running and self._uptime_s[k] > HANG_S and self._workshop.hangs(self.release(k)):
                mcu.power_on(by_image=True)
            if len(mcu.boots) != self._boots[k]:
                self._boots[k] = len(mcu.boots)
                self._unconfirmed_s[k] = self._uptime_s[k] = 0.0
                restarted.append(k)
        return restarted

    def release(self, pack: int) -> str:
        """What the ROM started last."""
        return self._workshop.release_of(self._mcus[pack].boots[-1].firmware_digest)

    def running(self, pack: int) -> bool:
        """Whether anything runs at all."""
        return bool(self._mcus[pack].running)

    def parameters(self, pack: int) -> NDArray[np.void]:
        """(1,) of the firmware's parameter record, read by the firmware from the set in use."""
        from bms_emulator.firmware.paramset import read_set

        mcu = self._mcus[pack]
        reason, params = read_set(self._workshop.body(mcu.parameter_file(mcu.journal().parameters)))
        if reason != "OK":
            raise RuntimeError(f"the firmware refuses the parameter set in its flash: {reason}")
        return params


class NativeBank:
    """All packs of a shard, of one design; at the start all of one release.

    Without `controllers` one instance of the library steps all packs in one call; with them each pack has an
    instance of its own, because each may come to run another release.
    """

    def __init__(
        self,
        sheet: PackSheet,
        n_packs: int,
        rate: str,
        release: str,
        controllers: Controllers | None = None,
    ) -> None:
        from bms_emulator.native import NativeBms

        self._plant_rate = rate == "plant"
        self._controllers = controllers
        self.releases = [release] * n_packs
        self._alive = np.ones(n_packs, dtype=bool)
        if controllers is None:
            self._banks = [NativeBms([firmware_parameters(sheet)] * n_packs, release=release)]
            outputs = self._banks[0].outputs  # the codec works on the records of the library itself
        else:
            self._banks = [NativeBms(controllers.parameters(k), release=release) for k in range(n_packs)]
            outputs = np.concatenate([bank.outputs for bank in self._banks])
        frames = np.concatenate([bank.frames() for bank in self._banks])
        self._codec = Codec(sheet, frames, outputs)
        self.state_names, self.fault_names = self._codec.state_names, self._codec.fault_names
        self.commands = self._codec.commands
        self.modem = controllers
        self.ticks = 0

    def figures(self) -> dict[str, float]:
        """No cycles are counted on the host."""
        return {}

    def request(self, closed: BoolArray) -> None:
        self._codec.frames["request"] = np.where(closed, self._codec.close_bit, 0)

    def step(self, frame: MeasuredFrame, dt_us: int) -> BmsCommands:
        n_ticks, tick_ms = (1, dt_us // 1000) if self._plant_rate else (dt_us // TICK_US, TICK_US // 1000)
        self._codec.encode(frame, n_ticks)
        frames = self._codec.frames
        self.ticks += len(frames) * n_ticks
        if self._controllers is None:
            self._banks[0].step(frames, n_ticks, tick_ms)
        else:
            self._step_each(self._controllers, n_ticks, tick_ms, dt_us * 1e-6)
        return self._codec.decode()

    def _step_each(self, controllers: Controllers, n_ticks: int, tick_ms: int, dt_s: float) -> None:
        frames, outputs = self._codec.frames, self._codec.outputs
        for k, bank in enumerate(self._banks):
            if self._alive[k]:
                outputs[k] = bank.step(frames[k : k + 1], n_ticks, tick_ms)[0]
        rest_mA = self._banks[0].params["rest_current_mA"][0]
        conditions = np.zeros(len(frames), dtype=np.int64)
        conditions[frames["pack_current_mA"] < -rest_mA] |= CHARGING
        conditions[outputs["contactor_command"] != 0] |= CONNECTED
        conditions[outputs["soc_ppm"] < SOC_LOW_ppm] |= SOC_LOW
        conditions[outputs["fault_latched"] != 0] |= FAULT
        for k in controllers.step(conditions, dt_s):
            self._restart(k, controllers)

    def _restart(self, pack: int, controllers: Controllers) -> None:
        """A reset: the release that the ROM started begins with the parameters in flash, open."""
        from bms_emulator.native import NativeBms

        soc_ppm = int(self._codec.outputs["soc_ppm"][pack])
        self._alive[pack] = controllers.running(pack)
        if not self._alive[pack]:
            self._codec.outputs[pack] = np.zeros((), dtype=self._codec.outputs.dtype)
            return
        self.releases[pack] = controllers.release(pack)
        bank = NativeBms(controllers.parameters(pack), release=self.releases[pack])
        bank.set_soc(0, soc_ppm)
        self._banks[pack] = bank
        self._codec.outputs[pack] = bank.outputs[0]
