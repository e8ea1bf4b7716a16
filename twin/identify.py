"""Cells from measurements: `twin identify`.

    twin identify inr20r --data ../shared/data/battery --out cells         a recipe
    twin identify drive1.csv drive2.parquet --test drive3.csv --name my_cell --capacity 2.9 --out cells

The second form reads files as `twin estimate soc` does (t_s, V, I, T_C of one cell). Runs at different
temperatures become rows of the table. What comes out is a catalogue file with the residual of the fit, the
error on the runs kept apart, and the range it is valid in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.adapters.identify import Run, identify_recipe, identify_runs, recipes
from twin.estimate import AUTO, EstimateError, read_recording

FloatArray = NDArray[np.float64]


class IdentifyInputError(ValueError):
    """Words or files of `twin identify` that cannot be used."""

    exit_code = 2


def identify(
    what: Sequence[str],
    out: Path,
    data: Path | None = None,
    tests: Sequence[Path] = (),
    name: str | None = None,
    capacity_Ah: float | None = None,
    initial_soc: float = 1.0,
    open_circuit: Path | None = None,
    sign: str = AUTO,
    temperature_C: float | None = None,
    columns: Mapping[str, str] | None = None,
    source: str = "user's measurements; licence not stated",
    chemistry: str = "not stated",
) -> tuple[Path, dict[str, float]]:
    """Write a catalogue file into the folder out; returns it and the residuals in mV by name."""
    if not out.is_dir():
        raise IdentifyInputError(f"{out}: no such folder")
    if len(what) == 1 and what[0] in recipes():
        if data is not None and not data.is_dir():
            raise IdentifyInputError(f"{data}: no such folder")
        try:
            name, text, residuals = identify_recipe(what[0], data)
        except FileNotFoundError as missing:
            raise IdentifyInputError(
                f"recipe {what[0]} needs {missing.filename}, which is not there"
            ) from None
        except SystemExit as needs:
            raise IdentifyInputError(str(needs)) from None
        return _write(out, name, text), residuals
    files = [Path(word) for word in what]
    unknown = [path for path in files if not path.is_file()]
    if unknown:
        raise IdentifyInputError(
            f"{unknown[0]}: neither a file nor a recipe; recipes are {', '.join(recipes())}"
        )
    if name is None or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise IdentifyInputError(f"--name {name}: expected small letters, digits and underscores")
    if capacity_Ah is None or not 1e-3 <= capacity_Ah <= 1e5:
        raise IdentifyInputError(f"--capacity {capacity_Ah}: expected the capacity of the cell in Ah")
    if not 0.0 <= initial_soc <= 1.0:
        raise IdentifyInputError(f"--initial-soc {initial_soc}: expected 0 to 1")

    def run(path: Path) -> Run:
        r = read_recording(path, sign, 0.0, temperature_C, columns)
        return path.stem, r.time_s, r.current_A, r.voltage_V, r.temperature_K, initial_soc

    command = (
        f"twin identify {' '.join(path.name for path in files)} --name {name} --capacity {capacity_Ah:g}"
    )
    text, residuals = identify_runs(
        name,
        [run(path) for path in files],
        [run(path) for path in tests],
        capacity_Ah,
        source,
        None if open_circuit is None else read_open_circuit(open_circuit),
        chemistry,
        command,
    )
    return _write(out, name, text), residuals


def read_open_circuit(path: Path) -> tuple[FloatArray, FloatArray, FloatArray | None]:
    """CSV with soc (0…1, from 0 to 1), ocv_V and, for hysteresis, half the gap hysteresis_V."""
    import pandas as pd

    try:
        table = pd.read_csv(path)
        soc, ocv_V = (table[key].to_numpy(float) for key in ("soc", "ocv_V"))
        gap_V = table["hysteresis_V"].to_numpy(float) if "hysteresis_V" in table else None
    except (OSError, KeyError, ValueError) as broken:
        raise EstimateError(
            f"{path}: expected a CSV with columns soc, ocv_V [, hysteresis_V] ({broken})"
        ) from None
    for column, values in (("soc", soc), ("ocv_V", ocv_V)):
        wrong = np.flatnonzero(~np.isfinite(values) | (np.diff(values, prepend=-1.0) < 0.0))
        if wrong.size:
            raise EstimateError(
                f"{path}: column {column}, row {wrong[0] + 1}: {values[wrong[0]]:g} does not grow"
            )
    if soc.size < 2 or soc[0] != 0.0 or soc[-1] != 1.0 or (np.diff(soc) <= 0.0).any():
        raise EstimateError(f"{path}: column soc must grow from 0 to 1")
    return soc, ocv_V, gap_V


def _write(out: Path, name: str, text: str) -> Path:
    path = out / f"{name}.yaml"
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
    return path
