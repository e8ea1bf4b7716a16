"""The CAN frames of the firmware to the energy management system, read back.

    0x180 flow    pack voltage 0.1 V u16, current 0.1 A i16, charge limit 0.1 A u16, discharge limit 0.1 A u16
    0x181 charge  state of charge, its sigma, state of health (0: not known), State of Safety: 0.01 % u16 each
    0x182 cells   lowest and highest cell 0.1 mV u16, coldest and hottest sensor 0.1 degC i16
    0x183 power   10 s power out and in 10 W u16, state u8, contactor command u8, counter u8, zero u8
    0x184 faults  latched diagnoses u64, one bit each

Little-endian, all five every 100 ms, current positive on discharge. All bits set (signed: -32768) is "not
known", read as NaN. The C side is firmware/hal/target/ems.c.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

FRAMES = {0x180: "flow", 0x181: "charge", 0x182: "cells", 0x183: "power", 0x184: "faults"}


@dataclass
class EmsView:
    """What the EMS knows of one BMS; NaN until it was told. SI, fractions 0…1."""

    pack_voltage_V: float = math.nan
    current_A: float = math.nan
    charge_limit_A: float = math.nan
    discharge_limit_A: float = math.nan
    soc: float = math.nan
    soc_sigma: float = math.nan
    soh: float = math.nan
    safety: float = math.nan
    cell_voltage_min_V: float = math.nan
    cell_voltage_max_V: float = math.nan
    temperature_min_K: float = math.nan
    temperature_max_K: float = math.nan
    power_discharge_W: float = math.nan
    power_charge_W: float = math.nan
    state: int = -1
    contactors: int = 0
    counter: int = -1
    faults: int = 0

    def take(self, identifier: int, data: bytes) -> bool:
        """One frame; False (and nothing changed) if it is none of these."""
        name = FRAMES.get(identifier)
        if name is None or len(data) != 8:
            return False
        if name == "flow":
            volts, amps, charge, discharge = struct.unpack("<HhHH", data)
            self.pack_voltage_V, self.current_A = _u16(volts, 0.1), _i16(amps, 0.1)
            self.charge_limit_A, self.discharge_limit_A = _u16(charge, 0.1), _u16(discharge, 0.1)
        elif name == "charge":
            soc, sigma, soh, safety = struct.unpack("<HHHH", data)
            self.soc, self.soc_sigma = _u16(soc, 1e-4), _u16(sigma, 1e-4)
            self.soh, self.safety = _u16(soh, 1e-4) if soh else math.nan, _u16(safety, 1e-4)
        elif name == "cells":
            low, high, cold, hot = struct.unpack("<HHhh", data)
            self.cell_voltage_min_V, self.cell_voltage_max_V = _u16(low, 1e-4), _u16(high, 1e-4)
            self.temperature_min_K = _i16(cold, 0.1) + 273.15
            self.temperature_max_K = _i16(hot, 0.1) + 273.15
        elif name == "power":
            out, into, self.state, self.contactors, self.counter, _ = struct.unpack("<HHBBBB", data)
            self.power_discharge_W, self.power_charge_W = _u16(out, 10.0), _u16(into, 10.0)
        else:
            (self.faults,) = struct.unpack("<Q", data)
        return True


def _u16(code: int, unit: float) -> float:
    return math.nan if code == 0xFFFF else code * unit


def _i16(code: int, unit: float) -> float:
    return math.nan if code == -0x8000 else code * unit
