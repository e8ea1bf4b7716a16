"""Learnt propagation risk: given a cell that goes, its charge and the cooling, which cells follow and when.

>>> table = load_risk_table("prismatic_aerogel")                             # doctest: +SKIP
>>> table.after(4, soc=0.9, cooling=1.0)[0]                                  # doctest: +SKIP
Prospect(cell=5, probability=0.1, after_s=(120.0, 160.0, 230.0))

The tables are data of `pack_models.propagation` (`python -m pack_models.propagation.risk` learns and checks
them); only their JSON is read here, so early warning needs no solver. Between levels of charge and cooling,
probabilities are interpolated linearly, and times weighted with how often they were seen; outside, the
nearest level holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = "risk_tables"


@dataclass(frozen=True)
class Prospect:
    """A cell of the module that may follow: probability within the horizon; 5, 50, 95 % of the time since."""

    cell: int
    probability: float
    after_s: tuple[float, float, float]


@dataclass(frozen=True)
class RiskTable:
    """Arrays (n_cells, n_soc, n_cooling, n_cells[, 3]) as learnt; see the module that makes them."""

    name: str
    horizon_s: float
    soc: NDArray[np.float64]
    cooling: NDArray[np.float64]
    probability: NDArray[np.float64]
    after_s: NDArray[np.float64]
    samples: int

    @property
    def about(self) -> str:
        """One line for a list."""
        return f"modules of {self.n_cells} cells, {self.horizon_s:.0f} s ahead, {self.samples} draws each"

    @property
    def n_cells(self) -> int:
        """Of the module it was learnt on."""
        return int(self.probability.shape[0])

    def after(self, cell: int, soc: float, cooling: float) -> list[Prospect]:
        """Cells that may follow `cell` (from 0), the most likely and earliest first."""
        chance, times = np.zeros(self.n_cells), np.zeros((self.n_cells, 3))
        seen = np.zeros(self.n_cells)
        for i, wi in _neighbours(self.soc, soc):
            for j, wj in _neighbours(self.cooling, cooling):
                p, t = self.probability[cell, i, j], self.after_s[cell, i, j]
                chance += wi * wj * p
                share = wi * wj * p * np.isfinite(t[:, 0])
                times += share[:, None] * np.nan_to_num(t)
                seen += share
        found = []
        for k in np.flatnonzero(chance > 0.0):
            if k != cell and seen[k] > 0.0:
                low, middle, high = (float(v) for v in times[k] / seen[k])
                found.append(Prospect(int(k), float(chance[k]), (low, middle, high)))
        return sorted(found, key=lambda p: (-p.probability, p.after_s[1], p.cell))


def _neighbours(levels: NDArray[np.float64], value: float) -> list[tuple[int, float]]:
    """Levels around a value with their linear weights."""
    if value <= levels[0] or levels.size == 1:
        return [(0, 1.0)]
    if value >= levels[-1]:
        return [(levels.size - 1, 1.0)]
    i = int(np.searchsorted(levels, value)) - 1
    share = float((value - levels[i]) / (levels[i + 1] - levels[i]))
    return [(i, 1.0 - share), (i + 1, share)]


def _folder() -> Any:
    return files("pack_models.propagation").joinpath(FOLDER)


@lru_cache(maxsize=1)
def risk_table_names() -> tuple[str, ...]:
    """Names of the learnt tables."""
    return tuple(
        sorted(p.name.removesuffix(".json") for p in _folder().iterdir() if p.name.endswith(".json"))
    )


@lru_cache(maxsize=8)
def load_risk_table(name: str) -> RiskTable:
    """A learnt table; ValueError with the names there are otherwise."""
    if name not in risk_table_names():
        raise ValueError(f"no risk table named {name!r}; expected one of {', '.join(risk_table_names())}")
    data = json.loads(_folder().joinpath(f"{name}.json").read_text(encoding="utf-8"))
    soc, cooling, probability, after_s = (
        np.array(data[key], dtype=float) for key in ("soc", "cooling", "probability", "after_s")
    )
    return RiskTable(name, float(data["horizon_s"]), soc, cooling, probability, after_s, int(data["samples"]))
