"""The ladder of battery management: the C firmware compiled for this host, behind `Bms`.

SI arrays become the firmware's integers on the way in (NaN becomes "no measurement") and SI again on the
way out. Contactors are ideal: the feedback equals the command of the step before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from twin.adapters.catalogue import PackSheet
from twin.ports import Bms, BmsCommands, BoolArray, FloatArray, MeasuredFrame

Build = Callable[[PackSheet, int, str], Bms]  # data sheet, n_packs, rate (full or plant)

TICK_US = 10_000
ZERO_CELSIUS_K = 273.15
OCV_POINTS = 41


@dataclass(frozen=True)
class BmsRung:
    about: str
    build: Build


class NativeBank:
    """One NativeBms instance for each pack of a shard, all of one design."""

    def __init__(self, sheet: PackSheet, n_packs: int, rate: str) -> None:
        from bms_emulator.native import NativeBms, contactor_bit, request_bit

        self._bms = NativeBms([firmware_parameters(sheet)] * n_packs)
        self._plant_rate = rate == "plant"
        self._n_groups = sheet.n_series
        self._n_sensors = len(sheet.sensor_group)
        self._frames = self._bms.frames()
        self._close = request_bit("CLOSE")
        self._plus, self._minus = contactor_bit("MAIN_PLUS"), contactor_bit("MAIN_MINUS")
        self._precharge = contactor_bit("PRECHARGE")
        self._error = self._bms.state_names.index("ERROR")
        self.state_names, self.fault_names = self._bms.state_names, self._bms.fault_names
        self.ticks = 0
        self.commands = BmsCommands(
            main_closed=np.zeros(n_packs, dtype=bool),
            precharge_closed=np.zeros(n_packs, dtype=bool),
            charge_limit_A=np.zeros(n_packs),
            discharge_limit_A=np.zeros(n_packs),
            balancing=np.zeros(n_packs * sheet.n_series, dtype=bool),
            cooling=np.zeros(n_packs),
            soc=np.zeros(n_packs),
            state=np.zeros(n_packs, dtype=np.int8),
            level=np.zeros(n_packs, dtype=np.int8),
            fault_mask=np.zeros(n_packs, dtype=np.uint64),
            tripped=np.zeros(n_packs, dtype=bool),
        )

    def request(self, closed: BoolArray) -> None:
        self._frames["request"] = np.where(closed, self._close, 0)

    def step(self, frame: MeasuredFrame, dt_us: int) -> BmsCommands:
        n, inputs = self._bms.n, self._frames
        inputs["cell_voltage_100uV"][:, : self._n_groups] = _integers(
            frame.group_voltage_V.reshape(n, self._n_groups) * 1e4, 65535, 0, 65534
        )
        inputs["cell_temperature_ddegC"][:, : self._n_sensors] = _integers(
            (frame.temperature_K.reshape(n, self._n_sensors) - ZERO_CELSIUS_K) * 10.0, -32768, -32767, 32767
        )
        inputs["pack_current_mA"] = _integers(frame.current_A * 1e3, -2147483647, -(2**30), 2**30)
        inputs["pack_voltage_mV"] = _integers(frame.pack_voltage_V * 1e3, 4294967295, 0, 2**31)
        inputs["link_voltage_mV"] = _integers(frame.link_voltage_V * 1e3, 4294967295, 0, 2**31)
        inputs["sample_counter"] += np.uint16(1)
        inputs["contactor_feedback"] = self._bms.outputs["contactor_command"]
        if self._plant_rate:
            inputs["sample_period_ticks"] = 1
            out = self._bms.step(inputs, 1, dt_us // 1000)
            self.ticks += n
        else:
            n_ticks = dt_us // TICK_US
            inputs["sample_period_ticks"] = n_ticks
            out = self._bms.step(inputs, n_ticks)
            self.ticks += n * n_ticks
        return self._read(out)

    def _read(self, out: NDArray[np.void]) -> BmsCommands:
        commands, contactor = self.commands, out["contactor_command"]
        plus, minus = (contactor & self._plus) > 0, (contactor & self._minus) > 0
        np.logical_and(plus, minus, out=commands.main_closed)
        np.logical_and((contactor & self._precharge) > 0, minus & ~plus, out=commands.precharge_closed)
        commands.charge_limit_A[:] = out["charge_limit_mA"] * 1e-3
        commands.discharge_limit_A[:] = out["discharge_limit_mA"] * 1e-3
        commands.balancing[:] = self._bms.balancing()[:, : self._n_groups].reshape(-1)
        commands.cooling[:] = out["cooling_percent"] * 0.01
        commands.soc[:] = out["soc_ppm"] * 1e-6
        commands.state[:] = out["state"]
        commands.level[:] = np.where(
            out["msl_active"] > 0,
            3,
            np.where(out["rsl_active"] > 0, 2, np.where(out["mol_active"] > 0, 1, 0)),
        )
        commands.fault_mask[:] = out["fault_latched"]
        np.equal(out["state"], self._error, out=commands.tripped)
        return commands


def _integers(value: FloatArray, missing: int, low: int, high: int) -> NDArray[np.int64]:
    """Round to the firmware's resolution; NaN becomes the sentinel of a silent channel."""
    silent = np.isnan(value)
    whole = np.clip(np.rint(np.where(silent, 0.0, value)), low, high).astype(np.int64)
    whole[silent] = missing
    return whole


def firmware_parameters(sheet: PackSheet) -> dict[str, Any]:
    """The firmware's parameter set for a pack, from its data sheet; all else is the firmware's default."""
    soc = np.linspace(0.0, 1.0, OCV_POINTS)
    ocv_V = np.interp(soc, sheet.ocv_soc, sheet.ocv_V)
    low, high = round(sheet.voltage_min_V * 1e4), round(sheet.voltage_max_V * 1e4)
    return {
        "n_groups": sheet.n_series,
        "n_temps": len(sheet.sensor_group),
        "capacity_mAh": round(sheet.capacity_Ah * 1e3),
        # Limits hang on the window of the cell; the currents fade out at that of the pack, inside it.
        "cell_min_100uV": round(sheet.ocv_V[0] * 1e4),
        "cell_max_100uV": round(sheet.ocv_V[-1] * 1e4),
        "ramp_zero.CHARGE_BY_VOLTAGE": high,
        "ramp_full.CHARGE_BY_VOLTAGE": high - 800,
        "ramp_zero.DISCHARGE_BY_VOLTAGE": low,
        "ramp_full.DISCHARGE_BY_VOLTAGE": low + 3000,
        "current_max_charge_mA": round(sheet.charge_limit_A * 1e3),
        "current_max_discharge_mA": round(sheet.discharge_limit_A * 1e3),
        "balancing_resistance_mohm": round(sheet.balancing_resistance_ohm * 1e3),
        "ocv_soc_permille": [round(x * 1000) for x in soc],
        "ocv_100uV": [round(x * 1e4) for x in ocv_V],
    }


def _native(sheet: PackSheet, n_packs: int, rate: str) -> Bms:
    return cast(Bms, NativeBank(sheet, n_packs, rate))


RUNGS: dict[str, BmsRung] = {
    "native": BmsRung("the C firmware compiled for this host; for whole fleets", _native),
}
