"""The ladder of battery management: the C firmware compiled for this host, behind `Bms`.

SI arrays become the firmware's integers on the way in (NaN becomes "no measurement") and SI again on the
way out. Contactors are ideal: the feedback equals the command of the step before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numba import njit
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
        self._frames = self._bms.frames()
        self._close = request_bit("CLOSE")
        # Fields of the records as views: the conversion below is one compiled call each way.
        names = ("cell_voltage_100uV", "cell_temperature_ddegC", "pack_current_mA", "pack_voltage_mV")
        self._inputs = tuple(self._frames[name] for name in (*names, "link_voltage_mV", "sample_counter"))
        out = self._bms.outputs
        limits = ("charge_limit_mA", "discharge_limit_mA", "mol_active", "rsl_active", "msl_active")
        others = (
            "contactor_command",
            "balancing_mask",
            "cooling_percent",
            "soc_ppm",
            "state",
            "fault_latched",
        )
        self._outputs = tuple(out[name] for name in (*limits, *others))
        self._bits = np.array([contactor_bit(name) for name in ("MAIN_PLUS", "MAIN_MINUS", "PRECHARGE")])
        self._error = self._bms.state_names.index("ERROR")
        self._n_groups, self._n_sensors = sheet.n_series, len(sheet.sensor_group)
        self.state_names, self.fault_names = self._bms.state_names, self._bms.fault_names
        self.ticks = 0
        self.modem = None
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
        c = self.commands
        self._decoded = (
            *(c.main_closed, c.precharge_closed, c.charge_limit_A, c.discharge_limit_A, c.balancing),
            *(c.cooling, c.soc, c.state, c.level, c.fault_mask, c.tripped),
        )

    def request(self, closed: BoolArray) -> None:
        self._frames["request"] = np.where(closed, self._close, 0)

    def step(self, frame: MeasuredFrame, dt_us: int) -> BmsCommands:
        _encode(
            frame.group_voltage_V,
            frame.temperature_K,
            frame.current_A,
            frame.pack_voltage_V,
            frame.link_voltage_V,
            self._n_groups,
            self._n_sensors,
            *self._inputs,
        )
        inputs, n = self._frames, self._bms.n
        inputs["contactor_feedback"] = self._bms.outputs["contactor_command"]
        n_ticks, tick_ms = (1, dt_us // 1000) if self._plant_rate else (dt_us // TICK_US, TICK_US // 1000)
        inputs["sample_period_ticks"] = n_ticks
        self._bms.step(inputs, n_ticks, tick_ms)
        self.ticks += n * n_ticks
        _decode(self._outputs, self._bits, self._error, self._n_groups, self._decoded)
        return self.commands


@njit(cache=True)
def _whole(value: float, missing: int, low: float, high: float) -> int:
    """Round to the firmware's resolution; NaN becomes the sentinel of a silent channel."""
    if math.isnan(value):
        return missing
    return int(np.rint(min(max(value, low), high)))


@njit(cache=True)
def _encode(
    group_voltage_V: FloatArray,
    temperature_K: FloatArray,
    current_A: FloatArray,
    pack_voltage_V: FloatArray,
    link_voltage_V: FloatArray,
    n_groups: int,
    n_sensors: int,
    cell_voltage: NDArray[np.uint16],
    cell_temperature: NDArray[np.int16],
    pack_current: NDArray[np.int32],
    pack_voltage: NDArray[np.uint32],
    link_voltage: NDArray[np.uint32],
    sample_counter: NDArray[np.uint16],
) -> None:
    """SI arrays of all packs into the fields of the firmware's input records, (n_packs,) or (n_packs, n)."""
    for p in range(current_A.size):
        for g in range(n_groups):
            cell_voltage[p, g] = _whole(group_voltage_V[p * n_groups + g] * 1e4, 65535, 0.0, 65534.0)
        for k in range(n_sensors):
            ddegC = (temperature_K[p * n_sensors + k] - ZERO_CELSIUS_K) * 10.0
            cell_temperature[p, k] = _whole(ddegC, -32768, -32767.0, 32767.0)
        pack_current[p] = _whole(current_A[p] * 1e3, -2147483647, -1e9, 1e9)
        pack_voltage[p] = _whole(pack_voltage_V[p] * 1e3, 4294967295, 0.0, 2e9)
        link_voltage[p] = _whole(link_voltage_V[p] * 1e3, 4294967295, 0.0, 2e9)
        sample_counter[p] += np.uint16(1)


@njit(cache=True)
def _decode(
    outputs: tuple[NDArray, ...],
    bits: NDArray[np.int64],
    error: int,
    n_groups: int,
    commands: tuple[NDArray, ...],
) -> None:
    """The firmware's output records into the arrays of BmsCommands; both in the order of NativeBank."""
    charge_mA, discharge_mA, mol, rsl, msl, contactor, mask, cooling, soc, state, latched = outputs
    main, precharge, charge_A, discharge_A, balancing, cool, fraction, code, level, faults, tripped = commands
    for p in range(contactor.size):
        plus, minus = contactor[p] & bits[0] > 0, contactor[p] & bits[1] > 0
        main[p] = plus and minus
        precharge[p] = contactor[p] & bits[2] > 0 and minus and not plus
        charge_A[p] = charge_mA[p] * 1e-3
        discharge_A[p] = discharge_mA[p] * 1e-3
        for g in range(n_groups):
            balancing[p * n_groups + g] = mask[p, g >> 3] >> (g & 7) & 1 > 0
        cool[p] = cooling[p] * 0.01
        fraction[p] = soc[p] * 1e-6
        code[p] = state[p]
        level[p] = 3 if msl[p] > 0 else 2 if rsl[p] > 0 else 1 if mol[p] > 0 else 0
        faults[p] = latched[p]
        tripped[p] = state[p] == error


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


def images() -> tuple[str, ...]:
    """Firmware releases that can be built."""
    from bms_emulator.firmware.build import SOURCE_DIR

    return tuple(sorted(path.stem for path in (SOURCE_DIR / "releases").glob("*.toml")))


def parameters() -> tuple[str, ...]:
    """Names of firmware parameters that an update may change."""
    return ()
