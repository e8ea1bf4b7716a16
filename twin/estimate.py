"""State of charge from a measured file: `twin estimate soc`.

    recording = read_recording(Path("drive.parquet"))
    write_soc(Path("soc.csv"), recording, run_estimator(recording, "lghg2_measured", "ekf"))

The file is a CSV or Parquet table of one cell: t_s (s, growing), V, I (A), T_C (degC); other columns are
ignored. Samples need not be evenly spaced; a current counts for the interval before its sample.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.adapters.estimators import cell_names, filter_tables, firmware_soc
from twin.analytics.soc import (
    DEFAULT,
    ESTIMATORS,
    Estimate,
    Estimator,
    FilterModel,
    FilterSettings,
    Start,
    start_of,
)

FloatArray = NDArray[np.float64]

ZERO_CELSIUS_K = 273.15
COLUMNS = ("t_s", "V", "I", "T_C")
DISCHARGE_POSITIVE, CHARGE_POSITIVE, AUTO = "discharge-positive", "charge-positive", "auto"
SIGNS = (AUTO, DISCHARGE_POSITIVE, CHARGE_POSITIVE)
START_SIGMA = 0.1  # of a start that was stated without one
# What one cell and its surroundings can show; beyond it the column holds something else.
VOLTAGE_RANGE_V, TEMPERATURE_RANGE_C, CURRENT_MAX_A = (0.0, 6.0), (-60.0, 150.0), 10_000.0


class EstimateError(ValueError):
    """The input cannot be used; the message names file, column and row."""

    exit_code = 2


@dataclass(frozen=True, eq=False)
class Recording:
    """One cell as measured, (n,) each; current positive on discharge."""

    time_s: FloatArray
    voltage_V: FloatArray
    current_A: FloatArray
    temperature_K: FloatArray
    sign: str  # of the current in the file


def _one_of(what: str, word: str, words: tuple[str, ...]) -> None:
    if word not in words:
        near = difflib.get_close_matches(word, words, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise EstimateError(f"no {what} named {word!r}; expected one of {', '.join(words)}{hint}")


def read_recording(
    path: Path,
    sign: str = AUTO,
    current_offset_A: float = 0.0,
    temperature_C: float | None = None,
    columns: Mapping[str, str] | None = None,
) -> Recording:
    """The table in a file; EstimateError with column and row when it cannot be used.

    Parameters
    ----------
    sign : of the current in the file; `auto` looks whether the voltage falls or rises with it
    current_offset_A : error added to the current as it stands in the file, to try an estimator
    temperature_C : for files without T_C
    columns : name in the file of t_s, V, I or T_C where it is another
    """
    _one_of("sign", sign, SIGNS)
    if not math.isfinite(current_offset_A):
        raise EstimateError(f"offset of the current: {current_offset_A} is not a finite number")
    if temperature_C is not None and not TEMPERATURE_RANGE_C[0] <= temperature_C <= TEMPERATURE_RANGE_C[1]:
        raise EstimateError(f"temperature: {temperature_C} is outside -60…150 degC")
    named = {name: name for name in COLUMNS} | dict(columns or {})
    for name in named:
        _one_of("column", name, COLUMNS)
    values = _columns(path, named, temperature_C is not None)
    if temperature_C is not None and named["T_C"] not in values:
        values[named["T_C"]] = np.full(values[named["t_s"]].size, temperature_C)
    time_s, voltage_V, current_A, temperature_degC = (values[named[name]] for name in COLUMNS)
    _check_range(path, named["V"], voltage_V, *VOLTAGE_RANGE_V, "V of one cell")
    _check_range(path, named["T_C"], temperature_degC, *TEMPERATURE_RANGE_C, "degC")
    _check_range(path, named["I"], current_A, -CURRENT_MAX_A, CURRENT_MAX_A, "A")
    late = np.flatnonzero(np.diff(time_s) <= 0.0)
    if late.size:
        row = int(late[0]) + 1
        raise EstimateError(
            f"{path}: column {named['t_s']}, row {row + 1}: {time_s[row]:g} s does not come after "
            f"{time_s[row - 1]:g} s; time must grow from row to row"
        )
    if sign == AUTO:
        sign = _evident_sign(voltage_V, current_A)
    current_A = current_A + current_offset_A
    if sign == CHARGE_POSITIVE:
        current_A = -current_A
    return Recording(time_s, voltage_V, current_A, temperature_degC + ZERO_CELSIUS_K, sign)


def _evident_sign(voltage_V: FloatArray, current_A: FloatArray) -> str:
    """A resistance is positive: the voltage falls when a discharge sets in."""
    together = float(np.dot(np.diff(voltage_V), np.diff(current_A)))
    return CHARGE_POSITIVE if together > 0.0 else DISCHARGE_POSITIVE


def column_names(words: Sequence[str]) -> dict[str, str]:
    """`["T_C=temp"]` → `{"T_C": "temp"}`."""
    named = {}
    for word in words:
        name, equals, header = word.partition("=")
        if not equals or not header:
            raise EstimateError(f"--column {word}: expected NAME=HEADER, such as T_C=temperature")
        named[name.strip()] = header.strip()
    return named


def _columns(path: Path, named: Mapping[str, str], without_temperature: bool) -> dict[str, FloatArray]:
    """The named columns as numbers."""
    import pandas as pd

    if not path.is_file():
        raise EstimateError(f"{path}: no such file")
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            table = pd.read_parquet(path)
        elif kind == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
        else:
            raise EstimateError(
                f"{path}: cannot read {kind or 'a file without ending'}; expected .csv or .parquet"
            )
    except EstimateError:
        raise
    except Exception as broken:  # pandas and pyarrow raise their own kinds
        raise EstimateError(
            f"{path}: not a readable {kind[1:]} table ({str(broken).splitlines()[0]})"
        ) from None
    has = [str(name) for name in table.columns]
    found = {}
    for name, header in named.items():
        if header not in has:
            if name == "T_C" and without_temperature:
                continue
            near = difflib.get_close_matches(header, has, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            hint += "; or state one temperature with --temperature" if name == "T_C" else ""
            raise EstimateError(f"{path}: no column {header!r}; it has {', '.join(has) or 'none'}{hint}")
        if has.count(header) > 1:
            raise EstimateError(f"{path}: column {header!r} stands there {has.count(header)} times")
        found[header] = _numbers(path, header, table[header].to_numpy())
    if len(table) == 0:
        raise EstimateError(f"{path}: no rows")
    return found


def _numbers(path: Path, column: str, raw: NDArray) -> FloatArray:
    """A column as finite float64."""
    try:
        values = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError):
        for row, word in enumerate(raw):
            try:
                float(word)
            except (TypeError, ValueError):
                raise EstimateError(
                    f"{path}: column {column}, row {row + 1}: {word!r} is not a number"
                ) from None
        raise
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise EstimateError(
            f"{path}: column {column}, row {bad[0] + 1}: {values[bad[0]]} is not a finite number"
            f" ({bad.size} such row(s))"
        )
    return values


def _check_range(path: Path, column: str, values: FloatArray, low: float, high: float, unit: str) -> None:
    bad = np.flatnonzero((values < low) | (values > high))
    if bad.size:
        raise EstimateError(
            f"{path}: column {column}, row {bad[0] + 1}: {values[bad[0]]:g} is outside "
            f"{low:g}…{high:g} {unit}"
        )


def firmware(
    model: FilterModel,
    time_s: FloatArray,
    voltage_V: FloatArray,
    current_A: FloatArray,
    temperature_K: FloatArray,
    start: Start,
    settings: FilterSettings = DEFAULT,
) -> Estimate:
    """The extended Kalman filter as it runs in the firmware: C, float32."""
    inputs = (time_s, voltage_V, current_A, temperature_K)
    return Estimate(*firmware_soc(vars(model), settings._asdict(), *inputs, start))


KNOWN: dict[str, Estimator] = {**ESTIMATORS, "firmware": firmware}


def run_estimator(
    recording: Recording,
    cell: str,
    estimator: str,
    initial_soc: float | None = None,
    initial_sigma: float | None = None,
    capacity_Ah: float | None = None,
) -> Estimate:
    """One estimator over a recording; EstimateError for words and numbers out of range."""
    _one_of("cell", cell, cell_names())
    _one_of("estimator", estimator, tuple(KNOWN))
    for what, value, low, high in (
        ("initial state of charge", initial_soc, 0.0, 1.0),
        ("sigma of the initial state of charge", initial_sigma, 1e-4, 0.5),
        ("capacity (Ah)", capacity_Ah, 1e-3, 1e5),
    ):
        if value is not None and not low <= value <= high:
            raise EstimateError(f"{what}: {value!r} is outside {low:g}…{high:g}")
    model = FilterModel(**filter_tables(cell))
    if capacity_Ah is not None:
        model = dataclasses.replace(model, capacity_Ah=capacity_Ah)
    first = (float(recording.voltage_V[0]), float(recording.current_A[0]), float(recording.temperature_K[0]))
    start = start_of(model, *first)
    if initial_soc is not None:
        start = Start(initial_soc, START_SIGMA)
    if initial_sigma is not None:
        start = start._replace(sigma=initial_sigma)
    inputs = (recording.time_s, recording.voltage_V, recording.current_A, recording.temperature_K)
    return KNOWN[estimator](model, *inputs, start, DEFAULT)


def write_soc(path: Path, recording: Recording, estimate: Estimate) -> None:
    """CSV with columns t_s, soc, soc_sigma; appears complete or not at all."""
    import pandas as pd

    table = pd.DataFrame({"t_s": recording.time_s, "soc": estimate.soc, "soc_sigma": estimate.sigma})
    if not path.parent.is_dir():
        raise EstimateError(f"{path}: the folder {path.parent} does not exist")
    unfinished = path.with_name(path.name + ".part")
    try:
        table.to_csv(unfinished, index=False, float_format="%.9g", lineterminator="\n")
        os.replace(unfinished, path)
    except OSError as broken:
        raise EstimateError(f"{path}: cannot be written ({broken.strerror})") from None
