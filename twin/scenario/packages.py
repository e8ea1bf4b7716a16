"""Series from installed data packages: located through importlib.metadata, never imported.

Each table is read once per process. What the files are is said in datasets.py; a file that does not look as
described there (another version) is an error, not a guess.
"""

from __future__ import annotations

import functools
import importlib.metadata
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twin.scenario.bdew import read_bdew
from twin.scenario.datasets import DATASETS, Dataset
from twin.scenario.schema import ProfileSpec
from twin.scenario.series import US_PER_S, DataError, Floats, Instants, Message, Series, to_si


def read_package(spec: ProfileSpec) -> Series:
    """The series a spec names, scaled to SI."""
    row = DATASETS[str(spec.package)]
    if row.parser == "bdew":
        return read_bdew(row, locate(row), spec)
    time, columns, step_us = _table(row.name)
    wanted = _wanted(spec, row)
    raw = np.sum([columns[name] for name in wanted], axis=0)
    known = ~np.isnan(raw)
    if row.seconds:
        # Cycles of different length share the table; each ends with its last number.
        known[: int(np.flatnonzero(known)[-1]) + 1] = True
    value = to_si(raw[known], row.unit, row.dimension) * spec.scale + spec.offset
    return Series(time[known], value, not row.seconds, step_us, row.name)


def _wanted(spec: ProfileSpec, row: Dataset) -> list[str]:
    if spec.column is None:
        return [row.columns[0]]
    if spec.column == "all":
        return list(row.columns)
    return [part.strip() for part in spec.column.split("+")]


def locate(row: Dataset) -> Path:
    """Where the file of a dataset is installed; the package itself is never imported."""
    try:
        files = importlib.metadata.files(row.distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise DataError(Message(f"{row.name} is not installed", row.needs)) from None
    for file in files:
        if str(file) == row.file:
            path = Path(str(file.locate()))
            if path.is_file():
                return path
    version = importlib.metadata.version(row.distribution)
    text = f"{row.distribution} {version} has no file {row.file}"
    raise DataError(Message(text, row.needs))


@functools.cache
def _table(name: str) -> tuple[Instants, dict[str, Floats], int]:
    """Times and raw columns of a dataset; read once per process."""
    row = DATASETS[name]
    path = locate(row)
    try:
        frame = pd.read_csv(path, header=0 if row.header else None)
    except (OSError, ValueError) as error:
        raise DataError(Message(f"{row.file} cannot be read ({error})", row.needs)) from None
    in_file = row.value_columns or row.columns
    if row.header and not {*in_file, *([row.time_column] if row.time_column else [])} <= set(frame.columns):
        raise DataError(Message(f"{row.file} has other columns than {row.version}", row.needs))
    if not row.header:
        frame.columns = pd.Index(in_file)
    time, keep = _package_times(row, frame)
    columns = {
        name: frame[column].to_numpy(dtype=np.float64, na_value=np.nan)[keep]
        for name, column in zip(row.columns, in_file, strict=True)
    }
    order = np.argsort(time, kind="stable")
    first = np.concatenate(([True], np.diff(time[order]) > 0))
    order = order[first]
    time = time[order]
    columns = {name: column[order] for name, column in columns.items()}
    step_us = int(np.median(np.diff(time)))
    missing = int(np.sum(np.diff(time) > step_us))
    if missing != row.known_gaps:
        text = f"{row.file} has {missing} gaps, {row.known_gaps} are known"
        raise DataError(Message(text, row.needs))
    return time, columns, step_us


def _package_times(row: Dataset, frame: pd.DataFrame) -> tuple[Instants, NDArray[np.bool_]]:
    """Microseconds of each kept row, and which rows are kept (those with a time)."""
    if row.first:
        start = np.datetime64(row.first, "us").astype(np.int64)
        steps = np.arange(len(frame), dtype=np.int64) * round(row.period_s * US_PER_S)
        return start + steps, np.ones(len(frame), dtype=bool)
    if row.seconds:
        seconds = frame[row.time_column].to_numpy(dtype=np.float64)
        return np.round(seconds * US_PER_S).astype(np.int64), np.ones(len(frame), dtype=bool)
    text = frame[row.time_column]
    stamps = pd.Series(pd.NaT, index=frame.index, dtype="datetime64[us]")
    for form in row.time_formats:
        stamps = stamps.fillna(pd.to_datetime(text, format=form, errors="coerce").astype("datetime64[us]"))
    keep = stamps.notna().to_numpy()
    if np.any(~keep & text.notna().to_numpy()):
        bad = int(np.flatnonzero(~keep & text.notna().to_numpy())[0])
        raise DataError(Message(f"{row.file} row {bad + 2}: no time '{text.iloc[bad]}'", row.needs))
    return stamps[keep].to_numpy().astype("datetime64[us]").astype(np.int64), keep
