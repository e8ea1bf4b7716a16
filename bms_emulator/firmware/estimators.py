"""The estimators of the firmware on their own, compiled for this host: state of charge, of health, of power.

    >>> from bms_emulator.firmware.estimators import NativeEstimator, default_parameters
    >>> params = default_parameters(capacity_Ah=5.0)
    >>> estimator = NativeEstimator(params, soc=0.5, soc_sigma=0.1, capacity_Ah=5.0)
    >>> out = estimator.play([[0, 0, 0, 3.7509, 298.15]] * 3)     # dt, mean current, current now, V, K
    >>> round(float(out["soc"][-1]), 3)
    0.5

The same functions run in the slow part of the firmware (app/est.h); everything is float32 as there. Voltages
are those of a series group, current is positive on discharge.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bms_emulator.firmware.build import SOURCE_DIR
from bms_emulator.firmware.interface import load

STATES = ("soc", "offset", "v1_V", "v2_V", "hysteresis", "error_V", "scale")
POWERS = ("discharge_10s", "discharge_60s", "charge_10s", "charge_60s")
OUT_DTYPE = np.dtype([("soc", "<f4"), ("soc_sigma", "<f4"), ("state", "<f4", (len(STATES),))])
LIMITS = (
    "voltage_min_V",
    "voltage_max_V",
    "discharge_A",
    "charge_A",
    "temperature_max_K",
    "heat_J_per_K",
    "temperature_K",
    "n_groups",
)


class EstimatorError(ValueError):
    """A parameter the estimators cannot work with; names it, its value and what is allowed."""


@functools.cache
def rows() -> dict[str, tuple[int, float, float]]:
    """Rows of include/est_params.h: elements, lowest and highest value allowed of each."""
    text = (SOURCE_DIR / "include" / "est_params.h").read_text(encoding="utf-8")
    sizes = {
        name: int(value) for name, value in re.findall(r"^#define (EST_\w+) (\d+)", text, flags=re.MULTILINE)
    }
    found = re.findall(r"FLOATS?\((est_\w+), (?:(EST_\w+), )?(-?[\d.e]+)f?, (-?[\d.e]+)f?\)", text)
    return {name: (sizes[count] if count else 1, float(low), float(high)) for name, count, low, high in found}


@functools.cache
def param_dtype() -> np.dtype[np.void]:
    """The C struct est_params_t."""
    fields = [
        (name, "<f4", (count,)) if count > 1 else (name, "<f4") for name, (count, _, _) in rows().items()
    ]
    dtype = np.dtype(fields)
    if dtype.itemsize != load().c.est_host_size(0):
        raise RuntimeError("include/est_params.h is not what the library was built from")
    return dtype


@functools.cache
def _library() -> ctypes.CDLL:
    c = load().c
    pointer, u32, f32 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_float
    c.est_host_size.restype = u32
    c.est_host_fault.restype = u32
    c.est_host_default.argtypes = (pointer, f32)
    c.est_host_fault.argtypes = (pointer,)
    c.est_host_init.argtypes = (pointer, pointer, pointer)
    c.est_host_play.argtypes = (pointer, pointer, pointer, u32, pointer)
    c.est_host_step.argtypes = (pointer, pointer, pointer, u32, pointer, pointer)
    c.est_host_power.argtypes = (pointer, pointer, pointer, pointer)
    return c


def default_parameters(
    capacity_Ah: float, changes: Mapping[str, ArrayLike] | None = None
) -> NDArray[np.void]:
    """A parameter record for an NMC group of this capacity, some rows replaced; checked.

    Tables of resistance are given (temperature, soc) or flat. Raises EstimatorError.
    """
    record = np.zeros((), dtype=param_dtype())
    _library().est_host_default(record.ctypes.data, capacity_Ah)
    for name, value in (changes or {}).items():
        if name not in rows():
            raise EstimatorError(f"{name}: no such parameter; expected one of {', '.join(rows())}")
        count = rows()[name][0]
        values = np.asarray(value, dtype=np.float32).ravel()
        if values.size != count:
            raise EstimatorError(f"{name}: {values.size} value(s); expected {count}")
        record[name] = values if count > 1 else values[0]
    check(record)
    return record


def check(record: NDArray[np.void]) -> None:
    """Raises EstimatorError for a value out of range or an open circuit that does not rise."""
    for name, (_, low, high) in rows().items():
        values = np.atleast_1d(record[name])
        bad = np.flatnonzero(~((values >= np.float32(low)) & (values <= np.float32(high))))
        if bad.size:
            raise EstimatorError(f"{name}[{bad[0]}] = {values[bad[0]]:g}; expected {low:g}…{high:g}")
    fault = _library().est_host_fault(np.ascontiguousarray(record).ctypes.data)
    if fault:
        raise EstimatorError(f"est_ocv_V[{fault - 1}] does not rise with the state of charge")


class NativeEstimator:
    """One estimator context.

    Parameters
    ----------
    params : record of param_dtype()
    soc, soc_sigma, capacity_Ah : of a group at the start

    Attributes
    ----------
    context : all state, the bytes of the C struct est_ctx_t
    """

    def __init__(self, params: NDArray[np.void], soc: float, soc_sigma: float, capacity_Ah: float) -> None:
        check(params)
        self._c = _library()
        self._params = np.array(params)
        self.context = np.zeros(self._c.est_host_size(1) // 8, dtype=np.uint64)
        start = np.array([soc, soc_sigma, capacity_Ah], dtype=np.float32)
        self._c.est_host_init(self.context.ctypes.data, self._params.ctypes.data, start.ctypes.data)

    def play(self, frames: ArrayLike) -> NDArray[np.void]:
        """Run through frames (n, 5): dt_s (0 in the first), mean current, current now, voltage, temperature.

        A voltage of 0 means that none was measured. Returns (n,) of OUT_DTYPE.
        """
        rows = np.ascontiguousarray(frames, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != 5:
            raise ValueError(f"frames of shape {rows.shape}; expected (n, 5)")
        out = np.zeros(len(rows), dtype=OUT_DTYPE)
        self._c.est_host_play(
            self.context.ctypes.data, self._params.ctypes.data, rows.ctypes.data, len(rows), out.ctypes.data
        )
        return out

    def step(
        self,
        frame: ArrayLike,
        cell_100uV: NDArray[np.uint16],
        bled_mAs: NDArray[np.uint32] | None = None,
    ) -> None:
        """One frame as in `play`, with the voltage of each group and what was bled from it so far."""
        row = np.ascontiguousarray(frame, dtype=np.float32)
        cells = np.ascontiguousarray(cell_100uV, dtype=np.uint16)
        bled = None if bled_mAs is None else np.ascontiguousarray(bled_mAs, dtype=np.uint32)
        self._c.est_host_step(
            self.context.ctypes.data,
            self._params.ctypes.data,
            row.ctypes.data,
            cells.size,
            cells.ctypes.data,
            None if bled is None else bled.ctypes.data,
        )

    def power(self, limits: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Power (W) and largest current (A) of each horizon of POWERS; limits has the keys LIMITS.

        All are fresh in the first call; after steps of up to 2 s a call renews one of them.
        """
        given = np.array([limits[name] for name in LIMITS], dtype=np.float32)
        out = np.zeros((len(POWERS), 2), dtype=np.float32)
        self._c.est_host_power(
            self.context.ctypes.data, self._params.ctypes.data, given.ctypes.data, out.ctypes.data
        )
        return {name: (float(row[0]), float(row[1])) for name, row in zip(POWERS, out, strict=True)}

    @property
    def state(self) -> dict[str, Any]:
        """Figures of the context by their names in app/est.h; `delta` is (n_cells,)."""
        record = self.context.view(np.uint8)[: _context_dtype().itemsize].view(_context_dtype())[0]
        found = {name: record[name] for name in _context_dtype().names or ()}
        found["delta"] = found["delta"][: int(found["n_cells"])].copy()
        return found


@functools.cache
def _context_dtype() -> np.dtype[np.void]:
    """The C struct est_ctx_t, read from its declaration: every member is four bytes wide."""
    text = (SOURCE_DIR / "app" / "est.h").read_text(encoding="utf-8")
    body = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    body = body[: body.index("} est_ctx_t;")]
    body = body[body.rindex("typedef struct {") :]
    sizes = {"EST_STATES": len(STATES), "EST_CELLS": 112, "EST_POWERS": len(POWERS)}
    fields: list[tuple[Any, ...]] = []
    for kind, name, dimensions in re.findall(r"(float|uint32_t|est_power_t) (\w+)((?:\[\w+\])*);", body):
        shape = tuple(sizes[word] for word in re.findall(r"\w+", dimensions))
        code = "<u4" if kind == "uint32_t" else "<f4"
        if kind == "est_power_t":
            shape = (*shape, 2)
        fields.append((name, code, shape) if shape else (name, code))
    dtype = np.dtype(fields)
    if dtype.itemsize != _library().est_host_size(1):
        raise RuntimeError("app/est.h is not what the library was built from")
    return dtype
