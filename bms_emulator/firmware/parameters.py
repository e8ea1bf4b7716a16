"""Parameter sets: a few design numbers become a full set, every set is judged by the firmware's own check.

    >>> from bms_emulator.firmware.parameters import make_params
    >>> params = make_params([{"n_groups": 14, "n_temps": 4, "capacity_mAh": 10_000,
    ...                        "limit_trip.CELL_OVERVOLTAGE.MSL": 42_600}])

Keys are field names of `include/bms_types.h`. Elements of a table are addressed by the names of its rows:
`limit_trip.LIMIT.LEVEL` (also `limit_clear`, `limit_hold_ms`), `diag_set_ms.DIAG` (also `diag_delay_ms`),
`ramp_zero.RAMP`, `ramp_full.RAMP`; a whole table as a sequence of its full length.
`ocv_soc_permille` and `ocv_100uV` take the table as sequences of equal length and set `ocv_n`.
"""

from __future__ import annotations

import ctypes
import difflib
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bms_emulator.firmware.interface import Firmware, Verdict, load, names

# The defaults of everything else are made from these (bms_params_default); currents may be left out.
DESIGN = {
    "n_groups": None,
    "n_temps": None,
    "capacity_mAh": None,
    "cell_min_100uV": 25000,
    "cell_max_100uV": 42000,
    "current_max_charge_mA": 0,
    "current_max_discharge_mA": 0,
}
_OCV = ("ocv_soc_permille", "ocv_100uV")
_ROWS = {"limit": "LIMIT", "diag": "DIAG", "ramp": "RAMP"}


class ParameterError(ValueError):
    """A refused parameter.

    `reason` is one of names("PARAM_REASON"), or UNKNOWN_KEY, NOT_AN_INTEGER, MISSING, WRONG_LENGTH.
    """

    def __init__(self, message: str, reason: str, field: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field


def make_params(sets: Sequence[Mapping[str, Any]], firmware: Firmware | None = None) -> NDArray[np.void]:
    """Full, checked parameter sets from what is given of each.

    Returns
    -------
    params : (n,) of firmware.param_dtype

    Raises
    ------
    ParameterError naming set, field, value and allowed range
    """
    firmware = firmware or load()
    params = np.zeros(len(sets), dtype=firmware.param_dtype)
    for i, wanted in enumerate(sets):
        given = {**firmware.overrides, **wanted}
        where = f"parameters[{i}]"
        record = params[i : i + 1]
        for key, fallback in DESIGN.items():
            if key not in given and fallback is None:
                raise ParameterError(f"{where}: {key} is missing", "MISSING", key)
            record[key] = _integer(given.get(key, fallback), where, key)
        firmware.c.bms_host_default(record.ctypes.data)
        for key, value in given.items():
            _assign(record, key, value, where)
        tables = {key: len(given[key]) for key in _OCV if key in given}
        if len(tables) == 1 or len(set(tables.values())) > 1:
            raise ParameterError(
                f"{where}: ocv_soc_permille and ocv_100uV go together, with equal length",
                "WRONG_LENGTH",
                _OCV[0],
            )
    check_params(params, firmware)
    return params


def check_params(params: NDArray[np.void], firmware: Firmware | None = None) -> None:
    """Raise ParameterError for the first set the firmware refuses."""
    firmware = firmware or load()
    if params.dtype != firmware.param_dtype or params.ndim != 1:
        raise TypeError(
            f"parameters must be a 1-d array of param_dtype, not {params.dtype.name} of shape {params.shape}"
        )
    contiguous = np.ascontiguousarray(params)
    verdict = Verdict()
    for i in range(len(contiguous)):
        address = contiguous.ctypes.data + i * contiguous.itemsize
        if firmware.c.bms_host_check(address, ctypes.byref(verdict)):
            field, _, _ = firmware.param_fields()[verdict.field]
            reason = names("PARAM_REASON")[verdict.reason]
            element = _element_name(field, verdict.index, params.dtype)
            words = np.array([verdict.value, verdict.low, verdict.high], dtype="<i4")
            value, low, high = (
                [f"{x:g}" for x in words.view("<f4")] if params.dtype[field].base.kind == "f" else words
            )
            raise ParameterError(
                f"parameters[{i}]: {element} = {value} refused ({reason}); allowed {low}…{high}",
                reason,
                field,
            )


def _element_name(field: str, index: int, dtype: np.dtype[np.void]) -> str:
    shape = dtype[field].shape
    if not shape:
        return field
    rows = names(_ROWS[field.split("_")[0]]) if field.split("_")[0] in _ROWS else ()
    row, level = divmod(index, shape[1]) if len(shape) == 2 else (index, None)
    name = rows[row] if row < len(rows) else str(row)
    return f"{field}.{name}" if level is None else f"{field}.{name}.{names('LEVEL')[level]}"


def _assign(record: NDArray[np.void], key: str, value: Any, where: str) -> None:
    """Set the field, or the element of a field, that key addresses."""
    field, *path = key.split(".")
    fields = record.dtype.names or ()
    if field not in fields:
        _unknown(where, key, field, fields)
    shape = record.dtype[field].shape
    if record.dtype[field].base.kind == "f":
        _assign_float(record, field, path, value, where, key)
    elif not shape and not path:
        record[field] = _integer(value, where, key)
    elif path:
        rows = names(_ROWS[field.split("_")[0]]) if field.split("_")[0] in _ROWS else ()
        lists = [rows, names("LEVEL")][: len(shape)] if rows else []
        if len(path) != len(lists):
            raise ParameterError(
                f"{where}: {key}: {field} takes {len(lists)} names after it, {len(path)} given",
                "UNKNOWN_KEY",
                field,
            )
        index = []
        for word, expected in zip(path, lists, strict=True):
            if word not in expected:
                _unknown(where, key, word, expected)
            index.append(expected.index(word))
        record[field][(0, *index)] = _integer(value, where, key)
    else:
        flat = [_integer(element, where, key) for element in np.asarray(value, dtype=object).ravel()]
        size = int(np.prod(shape))
        if len(flat) > size or (field not in _OCV and len(flat) != size):
            raise ParameterError(
                f"{where}: {key} has {len(flat)} elements, {size} expected", "WRONG_LENGTH", field
            )
        target = record[field].reshape(-1)
        target[:] = 0
        target[: len(flat)] = flat
        if field in _OCV:
            record["ocv_n"] = len(flat)


def _assign_float(
    record: NDArray[np.void], field: str, path: list[str], value: Any, where: str, key: str
) -> None:
    """A float or a whole array of them; elements by number. NaN is left to the firmware, which refuses it."""
    target = record[field].reshape(-1)
    try:
        numbers = np.asarray(value, dtype=np.float32).reshape(-1)
        index = slice(None) if not path else int(path[0])
    except (TypeError, ValueError):
        raise ParameterError(f"{where}: {key} = {value!r} is not a number", "NOT_A_NUMBER", field) from None
    if path and not (len(path) == 1 and 0 <= int(path[0]) < target.size):
        raise ParameterError(
            f"{where}: {key}: {field} has elements 0…{target.size - 1}", "UNKNOWN_KEY", field
        )
    expected = 1 if path else target.size
    if numbers.size != expected:
        raise ParameterError(
            f"{where}: {key} has {numbers.size} elements, {expected} expected", "WRONG_LENGTH", field
        )
    target[index] = numbers if not path else numbers[0]


def _integer(value: Any, where: str, key: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        if not isinstance(value, float | np.floating) or not float(value).is_integer():
            message = f"{where}: {key} = {value!r} is not a whole number"
            raise ParameterError(message, "NOT_AN_INTEGER", key) from None
        number = int(value)
    if not -(2**31) <= number < 2**31:
        raise ParameterError(f"{where}: {key} = {number} does not fit 32 bits", "OUT_OF_RANGE", key)
    return number


def _unknown(where: str, key: str, word: str, expected: Sequence[str]) -> None:
    near = difflib.get_close_matches(word, expected, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(expected)}"
    raise ParameterError(f"{where}: {key}: no {word!r}{hint}", "UNKNOWN_KEY", key)
