"""How far the cells of a run are from PyBaMM's DFN: `twin audit RUN|SCENARIO`.

    audit = audit_run(RunFolder("runs/spme_rack"))
    audit.rows                      # one for each series group that was followed
    audit.line                      # what to remember

One percent of the racks (at least one), drawn by the run's seed, is run again by PyBaMM's own DFN model and
solver on its recorded currents and temperatures; compared is the voltage of the BMS's channels with that of
a mean cell. So the difference holds the error of the rung, the spread of the group's resistance and the
noise of the channel (typically 1 mV), and between two samples only the charge is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.adapters.audit import follow, parameter_set_of
from twin.telemetry.frame import PackInfo
from twin.telemetry.reader import RunFolder
from twin.units import parse

FloatArray = NDArray[np.float64]

SHARE = 0.01
GROUPS = 3  # of each pack: the emptiest, the fullest and the hottest at the end
MODEL = "dfn"


class AuditError(ValueError):
    """The run cannot be audited; the message says why and what would help."""

    exit_code = 2


@dataclass(frozen=True)
class AuditRow:
    """One series group against the DFN; voltages in V, times in s, groups from 1."""

    site: str
    rack: str
    pack: str
    group: int
    cells: str  # rung of the run
    samples: int
    rmse_V: float
    bias_V: float  # run minus DFN
    largest_V: float
    largest_at_s: float
    stopped: str


@dataclass(frozen=True)
class Audit:
    rows: tuple[AuditRow, ...]
    n_racks: int
    n_audited: int
    period_s: float

    @property
    def rmse_V(self) -> float:
        """Over all samples of all groups."""
        count = sum(row.samples for row in self.rows)
        total = sum(row.samples * row.rmse_V**2 for row in self.rows if row.samples)
        return math.sqrt(total / count) if count else math.nan

    @property
    def line(self) -> str:
        """The outcome in one sentence."""
        seen = [row for row in self.rows if row.samples]
        if not seen:
            return "audit: the DFN could follow none of the chosen groups"
        worst = max(seen, key=lambda row: abs(row.largest_V))
        rungs = ", ".join(sorted({row.cells for row in seen}))
        return (
            f"audit: {self.n_audited} of {self.n_racks} racks, {len(seen)} groups, {rungs} against {MODEL}: "
            f"{1e3 * self.rmse_V:.2f} mV RMSE, {1e3 * abs(worst.largest_V):.2f} mV at most "
            f"({worst.rack}/{worst.pack} group {worst.group} at {worst.largest_at_s:g} s)"
        )


def chosen_racks(racks: list[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    """One percent of (site, rack), at least one; the same for the same run."""
    count = max(1, math.ceil(SHARE * len(racks)))
    picked = np.random.default_rng([seed, 1]).choice(len(racks), size=count, replace=False)
    return [racks[k] for k in sorted(picked.tolist())]


def audit_run(
    run: RunFolder,
    racks: list[str] | None = None,
    groups: int = GROUPS,
    progress: Callable[[float, str], None] | None = None,
) -> Audit:
    """Follow some racks of a finished run with the DFN.

    racks : names to audit instead of drawing one percent · groups : series groups per pack
    """
    known = list(dict.fromkeys((info.site, info.rack) for info in run.packs))
    if racks:
        missing = [name for name in racks if name not in {rack for _, rack in known}]
        if missing:
            names = ", ".join(rack for _, rack in known)
            raise AuditError(f"{run.path} has no rack {missing[0]!r}; it has {names}")
        chosen = [(site, rack) for site, rack in known if rack in racks]
    else:
        chosen = chosen_racks(known, int(run.manifest.seed))
    packs = [info for info in run.packs if (info.site, info.rack) in chosen]
    rows: list[AuditRow] = []
    period_s = 0.0
    for number, info in enumerate(packs):
        if progress is not None:
            progress(number / len(packs), f"{info.rack}/{info.pack}")
        found, period_s = _pack(run, info, groups)
        rows += found
    return Audit(tuple(rows), len(known), len(chosen), period_s)


def _rung(run: RunFolder, info: PackInfo) -> str:
    """Cell rung of a rack by the resolved scenario; racks with a count are numbered `name-1`, `name-2` …"""
    for site in run.manifest.resolved["sites"]:
        for rack in site["racks"] if site["name"] == info.site else ():
            if info.rack == rack["name"] or info.rack.rpartition("-")[0] == rack["name"]:
                return str(rack["pack"]["cells"]["model"])
    return "cells"


def _step_s(run: RunFolder) -> float:
    time: dict[str, Any] = run.manifest.resolved["time"]
    return float(parse(time["step"], "time"))


def _pack(run: RunFolder, info: PackInfo, groups: int) -> tuple[list[AuditRow], float]:
    parameter_set = parameter_set_of(info.design)
    if parameter_set is None:
        raise AuditError(
            f"{run.path}: the cells of {info.design} ({info.rack}/{info.pack}) have no PyBaMM parameter set, "
            "so there is no DFN of them; audit another rack with --rack"
        )
    who = (info.site, info.rack, info.pack)
    truth = run.series("truth", ("t_us", "soc", "temperature_group_K", "current_A"), *who)
    told = run.series("measured", ("t_us", "group_voltage_V"), *who)
    common, at_truth, at_told = np.intersect1d(truth["t_us"], told["t_us"], return_indices=True)
    if common.size < 2:
        raise AuditError(
            f"{run.path}: {info.rack}/{info.pack} has {common.size} instants with truth and measurement; "
            "an audit needs two or more: set telemetry.truth_period to telemetry.period"
        )
    time_s = common * 1e-6
    soc = truth["soc"][at_truth].astype(float)
    temperature_K = truth["temperature_group_K"][at_truth].astype(float)
    picked = _groups_of_interest(soc[-1], temperature_K[-1], groups)
    measured_V = told["group_voltage_V"][at_told].astype(float)[:, picked]
    voltage_V, stopped = follow(
        parameter_set,
        time_s,
        soc[:, picked],
        truth["current_A"][at_truth].astype(float) / info.n_parallel,
        temperature_K[:, picked],
        _step_s(run),
        MODEL,
    )
    rung = _rung(run, info)
    rows = []
    for column, group in enumerate(picked):
        # The first sample is where both start; the DFN is at rest there, the run need not be.
        apart = measured_V[1:, column] - voltage_V[1:, column]
        valid = np.isfinite(apart)
        seen = apart[valid]
        worst = int(np.argmax(np.abs(seen))) if seen.size else -1
        rows.append(
            AuditRow(
                *who,
                group=int(group) + 1,
                cells=rung,
                samples=int(seen.size),
                rmse_V=float(np.sqrt(np.mean(seen**2))) if seen.size else math.nan,
                bias_V=float(seen.mean()) if seen.size else math.nan,
                largest_V=float(seen[worst]) if seen.size else math.nan,
                largest_at_s=float(time_s[1:][valid][worst]) if seen.size else math.nan,
                stopped=stopped[column],
            )
        )
    return rows, float(np.median(np.diff(time_s)))


def _groups_of_interest(soc: FloatArray, temperature_K: FloatArray, groups: int) -> NDArray[np.intp]:
    """Emptiest, fullest, hottest, then evenly spread ones; without repetition, in order."""
    if groups < 1:
        raise AuditError(f"groups is {groups}; expected at least 1")
    spread = np.linspace(0, soc.size - 1, min(groups, soc.size)).round().astype(int)
    order = [int(np.argmin(soc)), int(np.argmax(soc)), int(np.argmax(temperature_K)), *spread.tolist()]
    order += range(soc.size)
    return np.array(sorted(list(dict.fromkeys(order))[: min(groups, soc.size)]))


def write_audit(audit: Audit, path: Path) -> None:
    """The rows as CSV."""
    import pandas as pd

    pd.DataFrame([vars(row) for row in audit.rows]).to_csv(path, index=False)
