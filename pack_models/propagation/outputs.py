"""Files of a run: summary.json, cells.csv, fields.xdmf, PNG figures. A folder that is not complete says so.

`summary.json` carries `status`: "running" from the first moment, "failed" with the error, "complete" last
of all. Tables are written under a partial name and renamed; `read_summary` refuses what is not complete.
"""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from .errors import PropagationError
from .events import cell_states
from .run import Result


def _plain(value: Any) -> Any:
    """JSON values only; NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write atomically."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(_plain(values), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def start(folder: Path, name: str, model: str) -> None:
    """Mark a folder as being written."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in ("cells.csv", "fields.xdmf", "fields.h5", "probes.csv"):
        (folder / old).unlink(missing_ok=True)
    write_json(folder / "summary.json", {"status": "running", "case": name, "model": model})


def fail(folder: Path, name: str, model: str, error: str) -> None:
    """Mark a folder as partial, with the reason."""
    write_json(folder / "summary.json", {"status": "failed", "case": name, "model": model, "error": error})


def read_summary(folder: Path) -> dict[str, Any]:
    """Summary of a complete run; an unfinished or failed one is an error, never a result."""
    path = folder / "summary.json"
    if not path.exists():
        raise PropagationError(f"{folder}: no summary.json; not a propagation run")
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if summary.get("status") != "complete":
        reason = f": {summary['error']}" if "error" in summary else ""
        raise PropagationError(
            f"{folder}: the run is {summary.get('status', 'of unknown state')}, "
            f"its outputs are partial{reason}"
        )
    return summary


def write_cells(path: Path, result: Result, rows: int = 1000) -> None:
    """One row per time and cell: temperatures, conversions by pathway, State of Safety, gas, pressure,
    voltage fraction.
    """
    t = result.traces
    states = cell_states(result.case, t)
    pick = np.unique(np.linspace(0, t.time_s.size - 1, min(rows, t.time_s.size)).round().astype(int))
    names = sorted(states.conversion)
    temporary = path.with_suffix(".partial")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(
            [
                "time_s",
                "cell",
                "temperature_mean_K",
                "temperature_max_K",
                *(f"conversion_{n}" for n in names),
                "state_of_safety",
                "gas_mol_per_m3",
                "pressure_Pa",
                "voltage_fraction",
            ]
        )
        for i in pick:
            for c in range(result.case.n_cells):
                values = [
                    t.time_s[i],
                    t.mean_K[i, c],
                    t.max_K[i, c],
                    *(states.conversion[n][i, c] for n in names),
                    states.state_of_safety[i, c],
                    states.gas_mol_per_m3[i, c],
                    states.pressure_Pa[i, c],
                    states.voltage_fraction[i, c],
                ]
                out.writerow([f"{values[0]:.8g}", c, *(f"{v:.7g}" for v in values[1:])])
    os.replace(temporary, path)


def write_probes(path: Path, result: Result) -> None:
    """Temperature at the case's probes at the times of the maps."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["time_s", *(f"{name}_K" for name in result.case.probes)])
        for field in result.fields:
            out.writerow(
                [f"{field.time_s:.8g}", *(f"{field.at(p):.7g}" for p in result.case.probes.values())]
            )


def write_all(
    folder: Path, result: Result, refinement: dict[str, Any] | None = None, figures: bool = True
) -> dict[str, Any]:
    """Every file of a run; returns the summary."""
    write_cells(folder / "cells.csv", result)
    if result.case.probes and result.fields:
        write_probes(folder / "probes.csv", result)
    if figures:
        from .figures import save_figures

        save_figures(folder, result)
    summary = {
        "status": "complete",
        "case": result.case.name,
        **result.summary,
        "refinement": refinement,
        "energy_history": [{"time_s": t, **e} for t, e in result.energies],
    }
    write_json(folder / "summary.json", summary)
    return summary
