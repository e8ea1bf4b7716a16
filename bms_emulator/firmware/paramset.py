"""Parameter sets as bytes: the schema of this firmware, and the body "BPS1" that ota/parameters.py signs.

    >>> from bms_emulator.firmware.paramset import pack_set, read_set, schema
    >>> body = pack_set(make_params([design])[0], counter=7)      # doctest: +SKIP
    >>> read_set(body, counter_least=7)                           # doctest: +SKIP
    ('OK', array([...]))

The id of a parameter is its word in `bms_params_t`; spare slots of tables have no row. Values are in the unit
that stands in the name (and in the schema), as everywhere in the firmware.
"""

from __future__ import annotations

import ctypes
import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bms_emulator.firmware.interface import Firmware, Verdict, limit_rows, load, names

MAGIC = b"BPS1"
_ROWS = {"limit": "LIMIT", "diag": "DIAG", "ramp": "RAMP"}
_UNITS = {
    **{"100uV": "100 uV", "mV": "mV", "mA": "mA", "mAh": "mAh", "ms": "ms", "s": "s", "ddegC": "0.1 degC"},
    **{"ppm": "ppm", "permille": "1/1000", "percent": "%", "mohm": "mOhm", "uV": "uV", "daPa": "10 Pa"},
    **{
        "mA_per_s": "mA/s",
        "mK_per_s": "mK/s",
        "K": "K",
        "kg": "kg",
        "J_per_kg": "J/kg",
        "J_per_kgK": "J/kg/K",
    },
    **{"K_per_W": "K/W", "ohm": "Ohm", "V": "V", "V_per_K": "V/K", "E_over_R_K": "K"},
}
_SIGNAL_UNITS = {
    **{"CELL_V_MAX": "100 uV", "CELL_V_MIN": "100 uV", "CELL_V_SPREAD": "100 uV", "PACK_V": "mV"},
    **{"CELL_T_MAX": "0.1 degC", "CELL_T_MIN": "0.1 degC", "CELL_T_SPREAD": "0.1 K", "SOC": "ppm"},
    **{"CURRENT_DISCHARGE": "mA", "CURRENT_CHARGE": "mA", "INSULATION": "kOhm", "PRESSURE": "10 Pa"},
    "GAS": "ppm",
}


def schema(firmware: Firmware | None = None) -> dict[str, Any]:
    """The parameter schema as `ota.parameters.Schema.from_mapping` takes it.

    Returns
    -------
    version, parameters: [{id, name, type (i32, f32), unit, minimum, maximum}], ordered: [[lower, upper], ...]
    """
    firmware = firmware or load()
    dtype = firmware.param_dtype
    ranges = {name: (low, high) for name, low, high in firmware.param_fields()}
    rows = []
    by_word: dict[int, str] = {}
    for field in dtype.names or ():
        if field in ("schema", "filler") or dtype.fields is None:
            continue
        shape, start = dtype[field].shape, dtype.fields[field][1] // 4
        for index in range(int(np.prod(shape)) if shape else 1):
            word = start + index
            if firmware.c.bms_host_next_word(word) != word:
                continue
            name, low, high = _element(field, shape, index, ranges[field])
            kind = "f32" if firmware.c.bms_host_is_float(word) else "i32"
            by_word[word] = name
            rows.append(
                {"id": word, "name": name, "type": kind, "unit": _unit(field, name),
                 "minimum": low, "maximum": high}
            )  # fmt: skip
    version = ranges["schema"][0]
    return {"version": version, "parameters": rows, "ordered": _ordered(firmware, by_word)}


def _ordered(firmware: Firmware, by_word: dict[int, str]) -> list[list[str]]:
    upper, lower = ctypes.c_uint32(), ctypes.c_uint32()
    pairs = []
    index = 0
    while firmware.c.bms_host_pair(index, ctypes.byref(upper), ctypes.byref(lower)):
        pairs.append([by_word[lower.value], by_word[upper.value]])
        index += 1
    return pairs


def _element(
    field: str, shape: tuple[int, ...], index: int, allowed: tuple[float, float]
) -> tuple[str, float, float]:
    """Name of one element and its range; trips have the range of their limit."""
    if not shape:
        return field, *allowed
    prefix = field.split("_")[0]
    if prefix not in _ROWS:
        return f"{field}.{index}", *allowed
    row, level = divmod(index, shape[1]) if len(shape) == 2 else (index, None)
    name = f"{field}.{names(_ROWS[prefix])[row]}"
    if level is None:
        return name, *allowed
    if field == "limit_trip":
        allowed = limit_rows()[row][1:]
    return f"{name}.{names('LEVEL')[level]}", *allowed


def _unit(field: str, name: str) -> str:
    if field in ("limit_trip", "limit_clear"):
        return _SIGNAL_UNITS[limit_rows()[names("LIMIT").index(name.split(".")[1])][0]]
    if field in ("ramp_zero", "ramp_full"):
        return _SIGNAL_UNITS[limit_rows("RAMP")[names("RAMP").index(name.split(".")[1])][0]]
    found = [unit for suffix, unit in _UNITS.items() if field.endswith("_" + suffix)]
    matched = re.search(r"_(\w+_per_\w+)$", field)
    if matched:
        tail = next((u for s, u in _UNITS.items() if "per" in s and field.endswith("_" + s)), None)
        return tail or "1"
    return found[0] if found else "1"


def pack_set(params: np.void | NDArray[np.void], counter: int, firmware: Firmware | None = None) -> bytes:
    """Body of a set from one record of param_dtype; nothing is checked, the firmware will."""
    firmware = firmware or load()
    words = np.ascontiguousarray(params).reshape(1).view("<i4")
    rows = b""
    count, word = 0, firmware.c.bms_host_next_word(0)
    while word != 0xFFFFFFFF:
        kind = 3 if firmware.c.bms_host_is_float(word) else 2
        rows += struct.pack("<HBBi", word, kind, 0, int(words[word]))
        count, word = count + 1, firmware.c.bms_host_next_word(word + 1)
    version = int(np.ascontiguousarray(params).reshape(1)["schema"][0])
    return struct.pack("<4sHHI", MAGIC, version, count, counter) + rows


def read_set(
    body: bytes, counter_least: int = 0, firmware: Firmware | None = None
) -> tuple[str, NDArray[np.void]]:
    """The firmware's own reading of a body: reason (names("PARAM_REASON")) and (1,) of param_dtype, which is
    of use only with reason `OK`."""
    firmware = firmware or load()
    params = np.zeros(1, dtype=firmware.param_dtype)
    verdict = Verdict()
    reason = firmware.c.bms_host_read_set(
        body, len(body), counter_least, params.ctypes.data, ctypes.byref(verdict)
    )
    return names("PARAM_REASON")[reason], params
