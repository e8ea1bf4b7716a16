"""Between SI arrays and the integer records of the firmware, for every rung that runs it.

NaN becomes "no measurement" on the way in. All packs of a shard in one compiled call each way.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from twin.adapters.catalogue import PackSheet
from twin.ports import BmsCommands, FloatArray, MeasuredFrame

TICK_US = 10_000
ZERO_CELSIUS_K = 273.15
OCV_POINTS = 41

_INPUTS = (
    *("cell_voltage_100uV", "cell_temperature_ddegC", "pack_current_mA", "pack_voltage_mV"),
    *("link_voltage_mV", "pressure_daPa", "gas_ppm", "insulation_kohm", "sample_counter"),
)
_OUTPUTS = (
    *("charge_limit_mA", "discharge_limit_mA", "mol_active", "rsl_active", "msl_active"),
    *("contactor_command", "balancing_mask", "cooling_percent", "soc_estimate_ppm", "state", "fault_latched"),
)
# What the slow part says, with its unit in that of BmsCommands; 0 stands for "says nothing" or "not yet".
_SLOW = {
    "soc_sigma": ("soc_sigma_ppm", 1e-6),
    "soc_min": ("soc_min_ppm", 1e-6),
    "soc_max": ("soc_max_ppm", 1e-6),
    "soh_capacity": ("soh_capacity_ppm", 1e-6),
    "soh_resistance": ("soh_resistance_ppm", 1e-6),
    "power_discharge_10s_W": ("sop_discharge_10s_W", 1.0),
    "power_discharge_60s_W": ("sop_discharge_60s_W", 1.0),
    "power_charge_10s_W": ("sop_charge_10s_W", 1.0),
    "power_charge_60s_W": ("sop_charge_60s_W", 1.0),
    "safety": ("safety_ppm", 1e-6),
}
_ZERO_COUNTS = {name for name in _SLOW if name.startswith(("power_", "soc_m"))}


class Codec:
    """Records of the packs of a shard; `frames` (n_packs,) goes in, `outputs` (n_packs,) comes out."""

    def __init__(self, sheet: PackSheet, frames: NDArray[np.void], outputs: NDArray[np.void]) -> None:
        from bms_emulator.firmware.interface import names
        from bms_emulator.native import contactor_bit, request_bit

        n_packs = frames.size
        self.frames, self.outputs = frames, outputs
        self.state_names, self.fault_names = names("STATE"), names("DIAG")
        self.close_bit = request_bit("CLOSE")
        self._n_groups, self._n_sensors = sheet.n_series, len(sheet.sensor_group)
        self._inputs = tuple(frames[name] for name in _INPUTS)
        self._outputs = tuple(outputs[name] for name in _OUTPUTS)
        self._bits = np.array([contactor_bit(name) for name in ("MAIN_PLUS", "MAIN_MINUS", "PRECHARGE")])
        self._error = self.state_names.index("ERROR")
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
            **{name: np.full(n_packs, np.nan) for name in _SLOW},
        )
        c = self.commands
        self._decoded = (
            *(c.main_closed, c.precharge_closed, c.charge_limit_A, c.discharge_limit_A, c.balancing),
            *(c.cooling, c.soc, c.state, c.level, c.fault_mask, c.tripped),
        )

    def encode(self, frame: MeasuredFrame, period_ticks: int) -> None:
        """A new sample that stays fresh for `period_ticks`. Feedback of the contactors is the command unless
        the auxiliary contacts of the mains say otherwise."""
        _encode(
            frame.group_voltage_V,
            frame.temperature_K,
            frame.current_A,
            frame.pack_voltage_V,
            frame.link_voltage_V,
            frame.pressure_Pa,
            frame.gas_fraction,
            frame.insulation_ohm,
            self._n_groups,
            self._n_sensors,
            *self._inputs,
        )
        feedback = self.frames["contactor_feedback"]
        feedback[:] = self.outputs["contactor_command"]
        if frame.main_contacts.any():
            mains = feedback.dtype.type(self._bits[0] | self._bits[1])
            feedback[frame.main_contacts > 0] |= mains
            feedback[frame.main_contacts < 0] &= ~mains
        self.frames["sample_period_ticks"] = period_ticks

    def decode(self) -> BmsCommands:
        """What the outputs command."""
        _decode(self._outputs, self._bits, self._error, self._n_groups, self._decoded)
        estimates = self.outputs["soc_sigma_ppm"] > 0
        for name, (field, unit) in _SLOW.items():
            said = getattr(self.commands, name)
            np.multiply(self.outputs[field], unit, out=said)
            # An empty pack or one that may give nothing is a zero to believe; that of a silent part is not.
            silent = ~estimates if name in _ZERO_COUNTS else self.outputs[field] == 0
            said[silent] = np.nan
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
    pressure_Pa: FloatArray,
    gas_fraction: FloatArray,
    insulation_ohm: FloatArray,
    n_groups: int,
    n_sensors: int,
    cell_voltage: NDArray[np.uint16],
    cell_temperature: NDArray[np.int16],
    pack_current: NDArray[np.int32],
    pack_voltage: NDArray[np.uint32],
    link_voltage: NDArray[np.uint32],
    pressure: NDArray[np.uint16],
    gas: NDArray[np.uint16],
    insulation: NDArray[np.uint16],
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
        pressure[p] = _whole(pressure_Pa[p] * 0.1, 65535, 0.0, 65534.0)
        gas[p] = _whole(gas_fraction[p] * 1e6, 65535, 0.0, 65534.0)
        insulation[p] = _whole(insulation_ohm[p] * 1e-3, 65535, 0.0, 65534.0)
        sample_counter[p] += np.uint16(1)


@njit(cache=True)
def _decode(
    outputs: tuple[NDArray, ...],
    bits: NDArray[np.int64],
    error: int,
    n_groups: int,
    commands: tuple[NDArray, ...],
) -> None:
    """The firmware's output records into the arrays of BmsCommands; both in the order of Codec."""
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
    """The firmware's parameter set for a pack, from its data sheet; all else is the firmware's default.

    The circuit of the estimators is that of a group: n_parallel cells of the catalogue, with busbar.
    """
    from twin.adapters.estimators import estimator_parameters, filter_tables

    tables = dict(filter_tables(sheet.cell))
    for name in ("resistance0_ohm", "resistance1_ohm", "resistance2_ohm"):
        tables[name] = tables[name] / sheet.n_parallel
    tables["resistance0_ohm"] = tables["resistance0_ohm"] + sheet.busbar_resistance_ohm
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
        **estimator_parameters(tables),
        "est_spread_resistance": sheet.resistance_spread,
        "est_spread_capacity": sheet.capacity_spread,
        "cell_mass_kg": sheet.cell_mass_kg,
        "cell_cp_J_per_kgK": sheet.cell_heat_capacity_J_per_K / sheet.cell_mass_kg,
        "cell_parallel": float(sheet.n_parallel),
    }
