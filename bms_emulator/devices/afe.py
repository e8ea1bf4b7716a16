"""Analogue front end: layout of its result memory.

Cell voltages have 16 bits of 0.1 mV. A channel without a measurement carries the codes 65535 (voltage),
-32768 (temperature), -2147483647 (current) or 4294967295 (voltage of the pack). The part from the first cell
to REQUEST has the layout of the firmware's input frame, so a frame measured elsewhere goes in byte by byte.
"""

from __future__ import annotations

NAME = "afe"
CELLS, TEMPERATURES = 256, 64
# (name, offset, access, meaning); the first element of an array stands for all of it
REGISTERS = (
    ("CELL", 0x000, "r", "256 cell voltages, 16 bits each, 100 uV"),
    ("TEMPERATURE", 0x200, "r", "64 temperatures, 16 bits each, signed, 0.1 degC"),
    ("CURRENT", 0x280, "r", "pack current, signed, mA, positive on discharge"),
    ("CURRENT_REDUNDANT", 0x284, "r", "second sensor"),
    ("PACK_VOLTAGE", 0x288, "r", "mV"),
    ("LINK_VOLTAGE", 0x28C, "r", "mV behind the contactors"),
    ("PERIOD", 0x290, "r", "10 ms ticks for which a sample is fresh"),
    ("SEQUENCE", 0x294, "r", "bits 0-15: counts the samples; 16-23 contactor feedback; 24-31 condition bits"),
    ("REQUEST", 0x298, "r", "bits 0-7: request bits of the energy management system"),
    ("INSULATION", 0x2A0, "r", "insulation resistance, kOhm"),
    ("PRESSURE", 0x2A4, "r", "pressure in the housing, Pa"),
    ("GAS", 0x2A8, "r", "combustible gas, ppm"),
)
