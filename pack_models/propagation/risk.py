"""Which cells are next, when, and how likely: a table learnt from network runs of one pack design.

    table = learn(load_case("pack3x4"), samples=6, seed=1)
    for r in table.predict(cell=5, soc=0.8, cooling=1.0):
        r.cell, r.probability, r.after_s          # after_s: 5, 50, 95 % of the time since cell 5 ran away

Every cell is driven to runaway in turn at several states of charge and cooling levels, each with several
draws of the uncertain inputs of `uncertainty.py`. A prediction interpolates linearly between levels. Early
warning reads the saved table (JSON) and needs no solver. Times carry the network's bias unless `time_scale`
corrects it.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case, load_case, parse_case
from .coupled import with_options
from .errors import CaseError, PropagationError
from .march import StepRules
from .run import run_case
from .uncertainty import MESH, RULES, draw, perturbed, run_many

QUANTILES = (0.05, 0.5, 0.95)
TABLES = Path(__file__).with_name("risk_tables")
# Situations (cell, SoC, cooling) of the finite-element check: corner and middle, on and between the levels.
CHECKS = ((0, 1.0, 1.0), (5, 1.0, 0.5), (1, 0.75, 0.0), (0, 0.6, 1.0))


@dataclass(frozen=True)
class Risk:
    """One cell's prospect: probability of running away within the table's horizon; times since the first
    cell.
    """

    cell: int
    probability: float
    after_s: tuple[float, float, float]


@dataclass(frozen=True)
class RiskTable:
    """Learnt table.

    Parameters
    ----------
    soc, cooling : levels
    probability : (n_cells, len(soc), len(cooling), n_cells) that the last axis' cell follows the first
        axis' cell
    after_s : (..., 3) 5, 50, 95 % quantiles of its time since; NaN where it never happened
    ignites : (n_cells, len(soc), len(cooling)) share of runs in which the driven cell itself ran away
    """

    name: str
    horizon_s: float
    soc: np.ndarray
    cooling: np.ndarray
    probability: np.ndarray
    after_s: np.ndarray
    ignites: np.ndarray
    samples: int
    time_scale: float

    def predict(self, cell: int, soc: float, cooling: float, at_least: float = 0.0) -> list[Risk]:
        """Cells that follow `cell`, most likely first.

        Parameters
        ----------
        soc : state of charge of the pack, 0...1; cooling : 0...1; both clipped to the learnt range
        at_least : leave out cells with a smaller probability
        """
        if not 0 <= cell < self.probability.shape[0]:
            raise PropagationError(
                f"cell: {cell} is out of range; expected 0 to {self.probability.shape[0] - 1}"
            )
        p, times = np.zeros(self.probability.shape[-1]), np.zeros((self.probability.shape[-1], 3))
        weight_known = np.zeros(self.probability.shape[-1])
        for i, wi in _weights(self.soc, soc):
            for j, wj in _weights(self.cooling, cooling):
                q = self.probability[cell, i, j]
                p += wi * wj * q
                known = np.isfinite(self.after_s[cell, i, j, :, 0])
                share = wi * wj * q * known  # times count as far as they were seen
                times += share[:, None] * np.nan_to_num(self.after_s[cell, i, j])
                weight_known += share
        with np.errstate(invalid="ignore", divide="ignore"):
            times = times / weight_known[:, None]
        found = [
            Risk(k, float(p[k]), (float(times[k, 0]), float(times[k, 1]), float(times[k, 2])))
            for k in range(p.size)
            if k != cell and p[k] > 0 and p[k] >= at_least
        ]
        return sorted(found, key=lambda r: (-r.probability, r.after_s[1], r.cell))

    def save(self, path: Path) -> None:
        """Write as JSON (NaN as null)."""
        values = {
            "name": self.name,
            "horizon_s": self.horizon_s,
            "samples": self.samples,
            "time_scale": self.time_scale,
            "soc": self.soc.tolist(),
            "cooling": self.cooling.tolist(),
            "probability": np.round(self.probability, 4).tolist(),
            "after_s": _with_null(np.round(self.after_s, 1).tolist()),
            "ignites": np.round(self.ignites, 4).tolist(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values) + "\n", encoding="utf-8")


def load_table(path: Path | str) -> RiskTable:
    """Table from a file, or by name from the package's `risk_tables`."""
    file = Path(path) if Path(path).exists() else TABLES / f"{path}.json"
    if not file.exists():
        known = sorted(p.stem for p in TABLES.glob("*.json"))
        raise PropagationError(
            f"no risk table {str(path)!r}; tables: {', '.join(known) or 'none'}; "
            "learn one with python -m pack_models.propagation.risk"
        )
    v = json.loads(file.read_text(encoding="utf-8"))
    return RiskTable(
        v["name"],
        v["horizon_s"],
        np.array(v["soc"]),
        np.array(v["cooling"]),
        np.array(v["probability"]),
        np.array(v["after_s"], dtype=float),
        np.array(v["ignites"]),
        v["samples"],
        v["time_scale"],
    )


def _with_null(values: Any) -> Any:
    """Nested lists with NaN as None."""
    if isinstance(values, list):
        return [_with_null(v) for v in values]
    return values if np.isfinite(values) else None


def _weights(levels: np.ndarray, value: float) -> list[tuple[int, float]]:
    """Neighbouring levels and their linear weights."""
    if levels.size == 1 or value <= levels[0]:
        return [(0, 1.0)]
    if value >= levels[-1]:
        return [(levels.size - 1, 1.0)]
    i = int(np.searchsorted(levels, value) - 1)
    w = float((value - levels[i]) / (levels[i + 1] - levels[i]))
    return [(i, 1.0 - w), (i + 1, w)]


def situation(data: Mapping[str, Any], cell: int, soc: float, cooling: float) -> dict[str, Any]:
    """Case data with one cell driven to runaway, all cells at a state of charge, cooling at a level.

    The driven cell keeps full charge: the question is what follows once it has gone, not whether it goes.
    """
    out: dict[str, Any] = copy.deepcopy(dict(data))
    driven = [t for t in out.get("triggers") or [] if "cell" in t]
    if not driven:
        raise CaseError("risk", ["triggers: expected one trigger on a cell; it is moved from cell to cell"])
    out["triggers"] = [{**driven[0], "cell": cell}]
    out["cell"]["soc"] = soc
    out["cells"] = {cell: {"soc": 1.0}}
    out.setdefault("run", {})["cooling"] = []
    for side in out["boundaries"].values():
        if side.get("cooled"):
            side["h_W_m2K"] = float(side["h_W_m2K"]) * cooling
    return out


def mirrors(case: Case) -> list[np.ndarray]:
    """Permutations of the cells under the mirror planes of the arrangement, x and y."""
    assert case.layout is not None
    nx, ny, nz = case.layout.grid_arrangement
    number = np.arange(nx * ny * nz).reshape(nz, ny, nx)
    return [
        number.ravel(),
        number[:, :, ::-1].ravel(),
        number[:, ::-1, :].ravel(),
        number[:, ::-1, ::-1].ravel(),
    ]


def learn(
    case: Case,
    samples: int = 6,
    seed: int = 1,
    soc: Sequence[float] = (0.5, 0.75, 1.0),
    cooling: Sequence[float] = (0.0, 1.0),
    symmetric: bool = True,
    mesh: Sequence[int] = MESH,
    rules: StepRules = RULES,
    horizon_s: float | None = None,
    workers: int | None = None,
    time_scale: float = 1.0,
) -> RiskTable:
    """Run the network over cells, states of charge, cooling and draws of the uncertain inputs.

    Parameters
    ----------
    symmetric : mirror images of the arrangement share their runs; true when the boundaries are symmetric too
    """
    end = horizon_s or case.run.until_s
    n = case.n_cells
    images = mirrors(case) if symmetric else [np.arange(n)]
    own = [min(int(np.flatnonzero(m == c)[0]) for m in images) for c in range(n)]
    needed = sorted(set(own))
    values = draw(samples, seed)
    jobs, keys = [], []
    for cell in needed:
        for i, s in enumerate(soc):
            for j, c in enumerate(cooling):
                for k in range(samples):
                    data = perturbed(
                        situation(case.data, cell, s, c), {name: float(v[k]) for name, v in values.items()}
                    )
                    jobs.append((data, tuple(int(m) for m in mesh), rules, end))
                    keys.append((cell, i, j))
    found = run_many(jobs, workers)
    shape = (n, len(soc), len(cooling))
    probability, after, ignites = np.zeros((*shape, n)), np.full((*shape, n, 3), np.nan), np.zeros(shape)
    for cell in needed:
        for i in range(len(soc)):
            for j in range(len(cooling)):
                rows = np.array(
                    [
                        [np.nan if t is None else t for t in r]
                        for r, key in zip(found, keys, strict=True)
                        if key == (cell, i, j)
                    ]
                )
                gone = np.isfinite(rows[:, cell])
                ignites[cell, i, j] = gone.mean()
                since = (rows[gone] - rows[gone][:, [cell]]) * time_scale
                for other in range(n):
                    known = since[:, other][np.isfinite(since[:, other])] if gone.any() else np.zeros(0)
                    probability[cell, i, j, other] = known.size / max(int(gone.sum()), 1)
                    if known.size:
                        after[cell, i, j, other] = np.quantile(known, QUANTILES)
    for c in range(n):
        if own[c] != c:  # carry the mirror image's row over, cells renamed
            image = next(m for m in images if m[own[c]] == c or m[c] == own[c])
            probability[c], after[c], ignites[c] = (
                probability[own[c]][..., image],
                after[own[c]][..., image, :],
                ignites[own[c]],
            )
    return RiskTable(
        case.name, end, np.array(soc), np.array(cooling), probability, after, ignites, samples, time_scale
    )


def check_on(
    table: RiskTable, case: Case, cell: int, soc: float, cooling: float, model: str = "fem"
) -> dict[str, Any]:
    """Compare a prediction with one run of another model: who burnt, Brier score, error of the median
    times.
    """
    data = situation(case.data, cell, soc, cooling)
    data["run"]["until_s"] = table.horizon_s
    result = run_case(parse_case(data, case.name, case.name), model)
    times = [c["runaway_s"] for c in result.summary["cells"]]
    start = times[cell]
    predicted = {r.cell: r for r in table.predict(cell, soc, cooling)}
    others = [i for i in range(case.n_cells) if i != cell]
    burnt = {i: times[i] is not None and start is not None for i in others}
    p = {i: predicted[i].probability if i in predicted else 0.0 for i in others}
    errors = [
        (predicted[i].after_s[1] - (times[i] - start)) / (times[i] - start)
        for i in others
        if burnt[i] and i in predicted
    ]
    inside = [
        predicted[i].after_s[0] <= times[i] - start <= predicted[i].after_s[2]
        for i in others
        if burnt[i] and i in predicted
    ]
    return {
        "cell": cell,
        "soc": soc,
        "cooling": cooling,
        "model": model,
        "driven_cell_runaway_s": start,
        "burnt": [i for i in others if burnt[i]],
        "predicted_likely": [i for i in others if p[i] >= 0.5],
        "agree": sum((p[i] >= 0.5) == burnt[i] for i in others),
        "of": len(others),
        "brier": float(np.mean([(p[i] - burnt[i]) ** 2 for i in others])),
        "brier_of_base_rate": float(np.mean([(np.mean(list(p.values())) - burnt[i]) ** 2 for i in others])),
        "median_time_error": float(np.median(errors)) if errors else None,
        "inside_band": sum(inside),
        "timed": len(inside),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: learn and save a table."""
    parser = argparse.ArgumentParser(prog="propagation.risk")
    parser.add_argument("case")
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--horizon", type=float)
    parser.add_argument("--time-scale", type=float, default=1.0)
    parser.add_argument("--out", type=Path, help="file to write; the package's risk_tables by default")
    parser.add_argument("--barrier", nargs=2, metavar=("MATERIAL", "M"), help="between cells, thickness in m")
    parser.add_argument("--plate-film", type=float, help="of the cooled side, W/m2K")
    parser.add_argument(
        "--check",
        type=Path,
        help="do not learn: check the saved table on fem runs and write the outcome to this file",
    )
    options = parser.parse_args(arguments)
    try:
        case = with_options(
            load_case(options.case),
            between=(options.barrier[0], float(options.barrier[1])) if options.barrier else None,
            plate_W_m2K=options.plate_film,
        )
        if options.check:
            learnt = load_table(options.out or case.name)
            found = [check_on(learnt, case, *s) for s in CHECKS if s[0] < case.n_cells]
            options.check.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(json.dumps(found, indent=1))
            return 0
        table = learn(
            case, options.samples, options.seed, horizon_s=options.horizon, time_scale=options.time_scale
        )
    except PropagationError as error:
        print(error, file=sys.stderr)
        return 2
    path = options.out or TABLES / f"{case.name}.json"
    replace(table, name=path.stem).save(path)
    print(
        f"{path.name}: {table.probability.shape[0]} cells, {len(table.soc)} SoC x {len(table.cooling)} "
        f"cooling levels, {table.samples} draws each"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
