"""Identification of cells in pack_models: recipes for known measurements, or runs a user brings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
# name, time (s), current (A, positive on discharge), voltage (V), temperature (K), charge at the start
Run = tuple[str, FloatArray, FloatArray, FloatArray, FloatArray, float]


def recipes() -> tuple[str, ...]:
    """Words for cells whose measurements (or PyBaMM parameters) are known here."""
    from pack_models.cells.identify import RECIPES

    return tuple(RECIPES)


def identify_recipe(recipe: str, data: Path | None) -> tuple[str, str, dict[str, float]]:
    """Name, catalogue file and residuals of a recipe."""
    from pack_models.cells.identify import RECIPES, as_yaml

    sheet = RECIPES[recipe](data)
    command = f"twin identify {recipe}" + (" --data DIR" if data else "")
    return sheet["name"], as_yaml(sheet, command), sheet["fit"]


def identify_runs(
    name: str,
    runs: Sequence[Run],
    tests: Sequence[Run],
    capacity_Ah: float,
    source: str,
    open_circuit: tuple[FloatArray, FloatArray, FloatArray | None] | None,
    chemistry: str,
    command: str,
) -> tuple[str, dict[str, float]]:
    """Catalogue file and residuals from runs; open_circuit: charge, voltage, half gap of hysteresis."""
    from pack_models.cells.fit_cell import Known
    from pack_models.cells.identify import as_yaml
    from pack_models.cells.measured import Measured, counted
    from pack_models.cells.recipes import from_runs

    def measured(run: Run) -> Measured:
        label, time_s, current_A, voltage_V, temperature_K, soc = run
        charge = counted(time_s, current_A, soc, capacity_Ah)
        ambient_K = float(np.mean(temperature_K))
        return Measured(label, ambient_K, time_s - time_s[0], current_A, voltage_V, temperature_K, charge)

    known = None
    if open_circuit is not None:
        soc, ocv_V, gap_V = open_circuit
        known = Known(soc, ocv_V, hysteresis_V=gap_V)
    sheet = from_runs(
        name, [measured(r) for r in runs], [measured(r) for r in tests], capacity_Ah, source, known, chemistry
    )
    return as_yaml(sheet, command), sheet["fit"]
