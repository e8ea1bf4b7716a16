"""Scatter of runaway heat between equal cells: fractional calorimetry of the NREL/NASA failure databank.

`read_databank` reads the table itself where it is present; what uncertainty studies need everywhere, its
quantiles, stands in `catalogue/materials/failure_calorimetry.yaml` (figures identified from the table, made
by `quantile_yaml`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .errors import PropagationError

_CATALOGUE = Path(__file__).parents[1] / "catalogue" / "materials" / "failure_calorimetry.yaml"
_FILE = "battery/nrel_nasa_failure_databank.parquet"
LEVELS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class Databank:
    """Tests that ended in runaway at 90 % SoC or more.

    Parameters
    ----------
    relative_heat : total heat over the median of the same cell type, types with at least five tests
    heat_per_energy : total heat over the electric energy stored
    body_fraction : of the heat that stays in the cell body; the rest leaves with ejecta and gas
    mass_ejected_fraction : of the cell's mass
    event_s : duration of the heat release
    """

    relative_heat: np.ndarray
    heat_per_energy: np.ndarray
    body_fraction: np.ndarray
    mass_ejected_fraction: np.ndarray
    event_s: np.ndarray


def databank_path() -> Path:
    """Where the table is: TWIN_DATA, else ../shared/data beside the repository; PropagationError when
    absent.
    """
    base = (
        Path(os.environ["TWIN_DATA"])
        if "TWIN_DATA" in os.environ
        else Path(__file__).parents[2] / ".." / "shared" / "data"
    )
    path = base / _FILE
    if not path.exists():
        raise PropagationError(f"the failure databank is not here: {_FILE} under TWIN_DATA or ../shared/data")
    return path


def read_databank(path: Path | None = None) -> Databank:
    """Read and filter the table."""
    import pandas as pd

    d = pd.read_parquet(path or databank_path())
    # Below half the stored energy the cell did not run away (quenched designs, failed triggers).
    d = d[(d["Pre-Test-State-of-Charge-%"] >= 90) & (d["Total-Energy-Ratio"] >= 0.5)]
    heat = d["Corrected-Total-Energy-Yield-kJ"]
    kind = d.groupby("Cell-Description")["Corrected-Total-Energy-Yield-kJ"]
    relative = (heat / kind.transform("median"))[kind.transform("count") >= 5]

    def column(name: str, scale: float) -> np.ndarray:
        values = d[name].to_numpy(dtype=float)
        return np.sort(values[np.isfinite(values)] * scale)

    return Databank(
        np.sort(relative.to_numpy(dtype=float)),
        column("Total-Energy-Ratio", 1.0),
        column("Energy-Percent-Cell-Body-%", 0.01),
        column("Percent-Original-Mass-Ejected", 0.01),
        column("Average-Event-Length-s", 1.0),
    )


def quantile_yaml(bank: Databank) -> str:
    """Text of the catalogue file."""
    lines = [
        "# Quantiles of fractional calorimetry: 18650, 21700 and D cells that ran away at 90 % SoC or more.",
        'source: "NREL/NASA Battery Failure Databank, revision 2 (public); identified by '
        'pack_models.propagation.databank"',
        f"tests: {bank.body_fraction.size}",
        f"levels: [{', '.join(f'{v:g}' for v in LEVELS)}]",
    ]
    for name in ("relative_heat", "heat_per_energy", "body_fraction", "mass_ejected_fraction", "event_s"):
        values = np.quantile(getattr(bank, name), LEVELS)
        lines.append(f"{name}: [{', '.join(f'{v:.4g}' for v in values)}]")
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=1)
def quantiles() -> dict[str, Any]:
    """The catalogue's quantiles."""
    return dict(yaml.safe_load(_CATALOGUE.read_text(encoding="utf-8")))


def inverse_cdf(name: str, probability: np.ndarray) -> np.ndarray:
    """Values of a databank quantity at given probabilities."""
    table = quantiles()
    return np.asarray(np.interp(probability, table["levels"], table[name]))


def plot(bank: Databank, path: Path) -> None:
    """Distributions as used, with the numbers in the title."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    parts = (
        ("relative_heat", "total heat / median of the cell type"),
        ("heat_per_energy", "total heat / stored electric energy"),
        ("body_fraction", "share of the heat that stays in the cell body"),
        ("mass_ejected_fraction", "share of the mass ejected"),
    )
    for axis, (name, label) in zip(axes.flat, parts, strict=True):
        values = getattr(bank, name)
        axis.hist(values, bins=30, color="0.75", density=True)
        axis.set(xlabel=label, ylabel="density", title=f"n = {values.size}, median {np.median(values):.2f}")
        twin = axis.twinx()
        twin.plot(values, (np.arange(values.size) + 0.5) / values.size, color="C3", lw=1, label="measured")
        p = np.linspace(0, 1, 200)
        twin.plot(inverse_cdf(name, p), p, color="k", ls=":", label="as sampled")
        twin.set(ylim=(0, 1), ylabel="cumulative")
        twin.legend(fontsize=7, loc="lower right")
    figure.suptitle("NREL/NASA failure databank: runaway tests at 90 % SoC or more")
    figure.savefig(path, dpi=110)
    plt.close(figure)
