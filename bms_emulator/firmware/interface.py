"""The firmware's own words for Python: names from `include/bms_ids.h`, struct layouts from the built library.

Nothing is typed twice: enumerations are read from the X-macro lists of the header (position = value),
constants from its #defines, and the dtypes of parameters, inputs and outputs from the field tables the
library carries. The layout numpy would choose for those fields is compared with the compiler's offsets and
sizes. `python -m bms_emulator.firmware.interface schema` prints the schema of the parameter set.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bms_emulator.firmware.build import SOURCE_DIR, build_native
from bms_emulator.firmware.releases import load_release

HEADER = SOURCE_DIR / "include" / "bms_ids.h"


@functools.cache
def names(kind: str) -> tuple[str, ...]:
    """Names of one list of the header in the order of their values.

    Parameters
    ----------
    kind : STATE, STEP, LEVEL, SEVERITY, REQUEST, CONTACTOR, CONDITION, SIGNAL, LIMIT, DIAG, RAMP or
        PARAM_REASON; REQUEST, CONTACTOR and CONDITION are bit positions
    """
    lists = _lists()
    if kind not in lists:
        raise KeyError(f"no list {kind!r} in {HEADER.name}; expected one of {', '.join(lists)}")
    return tuple(row[0] for row in lists[kind])


@functools.cache
def diag_severity() -> dict[str, str]:
    """Severity of each diagnosis."""
    return {row[0]: row[1] for row in _lists()["DIAG"]}


@functools.cache
def limit_rows(kind: str = "LIMIT") -> tuple[tuple[str, int, int], ...]:
    """(signal, lowest and highest trip) of each limit; of each ramp with kind RAMP, whose range is open."""
    wide = ["-10000000", "10000000"]
    rows = []
    for row in _lists()[kind]:
        low, high = row[-2:] if kind == "LIMIT" else wide
        rows.append((row[1], int(low), int(high)))
    return tuple(rows)


@functools.cache
def constants() -> dict[str, int]:
    """The numeric #defines of the header without their BMS_ prefix, e.g. MAX_GROUPS, CURRENT_INVALID."""
    text = HEADER.read_text(encoding="utf-8")
    found = re.findall(r"^#define BMS_([A-Z0-9_]+) \(?(-?\d+)\)?$", text, flags=re.MULTILINE)
    return {name: int(value) for name, value in found}


@functools.cache
def _lists() -> dict[str, list[list[str]]]:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="utf-8"), flags=re.DOTALL).replace("\\\n", " ")
    lists = {}
    for kind, body in re.findall(r"^#define BMS_(\w+)_LIST\(X\)(.*)$", text, flags=re.MULTILINE):
        rows = re.findall(r"X\(([^()]*)\)", body)
        lists[kind] = [[word.strip() for word in row.split(",")] for row in rows]
    return lists


class _Field(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("kind", ctypes.c_int32),
        ("offset", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("is_float", ctypes.c_uint32),
        ("low", ctypes.c_double),
        ("high", ctypes.c_double),
    )


class Verdict(ctypes.Structure):
    """Why a parameter set was refused: the C struct bms_param_verdict_t."""

    _fields_ = (
        ("reason", ctypes.c_uint32),
        ("field", ctypes.c_uint32),
        ("index", ctypes.c_int32),
        ("value", ctypes.c_int32),
        ("low", ctypes.c_int32),
        ("high", ctypes.c_int32),
    )


class Firmware:
    """A loaded build of the firmware: its functions and the dtypes of its structs.

    Attributes
    ----------
    param_dtype, input_dtype, output_dtype : structured dtypes, one record per BMS
    context_size : bytes of one context
    build : file name of the library, made from its content
    overrides : parameters that the release sets, as parameters.make_params takes them
    """

    def __init__(self, library: Path, overrides: Mapping[str, Any] | None = None) -> None:
        self.build = library.stem
        self.overrides = dict(overrides or {})
        self.c = ctypes.CDLL(str(library))
        self.c.bms_host_size.restype = ctypes.c_uint32
        self.c.bms_host_check.restype = ctypes.c_uint32
        self.c.bms_host_init.restype = ctypes.c_uint32
        self.c.bms_host_sane.restype = ctypes.c_uint32
        self.c.bms_host_fields.restype = ctypes.c_uint32
        pointer, u32 = ctypes.c_void_p, ctypes.c_uint32
        self.c.bms_host_default.argtypes = (pointer,)
        self.c.bms_host_check.argtypes = (pointer, ctypes.POINTER(Verdict))
        self.c.bms_host_init.argtypes = (pointer, pointer)
        self.c.bms_host_step.argtypes = (pointer, pointer, pointer, u32, u32, u32, pointer)
        self.c.bms_host_play.argtypes = (pointer, pointer, pointer, u32, u32, u32, u32, pointer)
        self.c.bms_host_slept.argtypes = (pointer, u32)
        self.c.bms_host_late.argtypes = (pointer,)
        self.c.bms_host_starved.argtypes = (pointer, pointer, u32, u32)
        self.c.bms_host_replace.argtypes = (pointer, pointer)
        self.c.bms_host_replace.restype = u32
        self.c.bms_host_read_set.argtypes = (ctypes.c_char_p, u32, u32, pointer, ctypes.POINTER(Verdict))
        self.c.bms_host_read_set.restype = u32
        for function in ("next_word", "is_float"):
            getattr(self.c, f"bms_host_{function}").argtypes = (u32,)
            getattr(self.c, f"bms_host_{function}").restype = u32
        self.c.bms_host_pair.argtypes = (u32, ctypes.POINTER(u32), ctypes.POINTER(u32))
        self.c.bms_host_pair.restype = u32
        self.c.bms_host_records.argtypes = (pointer,)
        self.c.bms_host_records.restype = u32
        self.c.bms_host_record.argtypes = (pointer, u32, pointer)
        self.c.bms_host_record.restype = u32
        self.c.bms_host_fmath.argtypes = (u32, pointer, pointer, u32)
        self.c.bms_host_set_soc.argtypes = (pointer, u32)
        self.c.bms_host_sane.argtypes = (pointer,)
        for function in ("default", "step", "play", "set_soc", "slept", "fmath", "late", "starved"):
            getattr(self.c, f"bms_host_{function}").restype = None
        self.param_dtype = self._dtype(0)
        self.input_dtype = self._dtype(1)
        self.output_dtype = self._dtype(2)
        self.context_size = int(self.c.bms_host_size(3))

    def param_fields(self) -> list[tuple[str, int | float, int | float]]:
        """Name, lowest and highest allowed value of every parameter field; float where the field is one."""
        return [
            (field.name.decode(), *(x if field.is_float else int(x) for x in (field.low, field.high)))
            for field in self._fields(0)
        ]

    def _fields(self, which: int) -> list[_Field]:
        first = ctypes.POINTER(_Field)()
        count = self.c.bms_host_fields(which, ctypes.byref(first))
        return [first[i] for i in range(count)]

    def _dtype(self, which: int) -> np.dtype[np.void]:
        fields = self._fields(which)
        rows: list[tuple[Any, ...]] = []
        for field in fields:
            name = field.name.decode()
            kind = f"{'f' if field.is_float else 'i' if field.kind < 0 else 'u'}{abs(field.kind)}"
            levels = len(names("LEVEL"))
            shape: tuple[int, ...] = (field.count,) if field.count else ()
            if name.startswith("limit_") and field.count:
                shape = (field.count // levels, levels)
            rows.append((name, f"<{kind}", shape) if shape else (name, f"<{kind}"))
        dtype = np.dtype(rows, align=True)
        offsets = [dtype.fields[field.name.decode()][1] for field in fields] if dtype.fields else []
        if dtype.itemsize + 4 == self.c.bms_host_size(which):  # the filler of the parameter set
            dtype = np.dtype([*rows, ("filler", "<i4")], align=True)
        if offsets != [field.offset for field in fields] or dtype.itemsize != self.c.bms_host_size(which):
            raise RuntimeError(f"the library {self.build} lays out struct {which} differently from numpy")
        return dtype


@functools.cache
def load(variant: str = "release", release: str | None = None) -> Firmware:
    """The firmware of this host, built if needed; one per variant, release and process."""
    return Firmware(
        build_native(variant, release=release), load_release(release).parameters if release else {}
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bms_emulator.firmware.interface", description="Tables of the firmware as JSON."
    )
    parser.add_argument("what", choices=["schema"], help="schema: id, name, type, unit, range, ordered pairs")
    parser.parse_args(arguments)
    from bms_emulator.firmware.paramset import schema

    print(json.dumps(schema(), indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
