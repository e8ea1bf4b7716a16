"""Accuracy of the estimators on measured cells: `python -m twin.soc_study DATA --out results/estimators`.

Each run is estimated with the faults of the baselines: the current sensor reads 1 % of 1C too much, the start
is stated 10 points too low. Runs that were used to identify the cell are marked; errors count after ten
minutes, against the state of charge the source supplies (a count from a known charge, not a truth).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twin.estimate import KNOWN, Recording, run_estimator

FloatArray = NDArray[np.float64]

OFFSET_C, START_ERROR = 0.01, -0.10
HG2_CAPACITY_AH, HG2_FITTED = 2.778, ("Mixed1", "Mixed2", "Mixed3", "Mixed5")
LFP_FITTED_S = 6 * 3600.0


@dataclass(frozen=True, eq=False)
class Case:
    """One measured run: cell of the catalogue, its 1C current, what the source says of its charge."""

    cell: str
    run: str
    ambient_C: float
    fitted: bool
    one_c_A: float
    recording: Recording
    soc: FloatArray


def _recording(time_s: FloatArray, volts: FloatArray, charge_A: FloatArray, celsius: FloatArray) -> Recording:
    return Recording(time_s - time_s[0], volts, -charge_A, celsius + 273.15, "charge-positive")


def cases(folder: Path) -> Iterator[Case]:
    """The measured drive cycles of `data/battery`: LG HG2, INR18650-20R, LFP 1.2 Ah."""
    table = pd.read_parquet(folder / "lg_hg2_drive_1hz.parquet")
    for key, part in table.groupby(["T_amb", "profile"], observed=True):
        celsius, profile = cast(tuple[float, str], key)
        t, volts, amps, skin, charge = (part[k].to_numpy(float) for k in ("t_s", "V", "I", "T_C", "Ah"))
        if profile != "Cap_1C" and t[-1] > 3000.0:
            soc = 1.0 + (charge - charge[0]) / HG2_CAPACITY_AH
            recording = _recording(t, volts, amps, skin)
            yield Case("lghg2_measured", profile, celsius, profile in HG2_FITTED, 3.0, recording, soc)
    table = pd.read_parquet(folder / "calce_inr20r_drive_1hz.parquet")
    for key, part in table.groupby(["profile", "T_amb", "soc0"], observed=True):
        profile, celsius, soc0 = cast(tuple[str, float, int], key)
        t, volts, amps, soc = (part[k].to_numpy(float) for k in ("t_s", "V", "I", "soc_ref"))
        recording = _recording(t, volts, amps, np.full(t.size, float(celsius)))
        name = f"{profile} from {soc0} %"
        yield Case("inr20r_measured", name, celsius, profile == "DST", 2.0, recording, soc)
    table = pd.read_parquet(folder / "lfp_flatzone_25c_1hz.parquet")
    t, volts, amps, soc = (table[k].to_numpy(float) for k in ("t_s", "V", "I", "soc_ref"))
    late = t >= LFP_FITTED_S
    for name, rows, fitted in (("hours 0 to 25", t >= 0.0, True), ("hours 6 to 25", late, False)):
        recording = _recording(t[rows], volts[rows], amps[rows], np.full(int(rows.sum()), 25.0))
        yield Case("lfp_1p2_measured", name, 25.0, fitted, 1.2, recording, soc[rows])


def judge(
    case: Case, estimator: str, offset_C: float = OFFSET_C, error: float = START_ERROR
) -> dict[str, float]:
    """Error (percent) and coverage of one estimator on one run with these faults."""
    r = case.recording
    # The sensor's error is added as the file has it: charge positive.
    faulty = Recording(r.time_s, r.voltage_V, r.current_A - offset_C * case.one_c_A, r.temperature_K, r.sign)
    found = run_estimator(faulty, case.cell, estimator, float(np.clip(case.soc[0] + error, 0.0, 1.0)))
    late = r.time_s >= 600.0
    off = (found.soc - case.soc)[late]
    return {
        "rmse_%": 100.0 * float(np.sqrt(np.mean(off**2))),
        "largest_%": 100.0 * float(np.max(np.abs(off))),
        "sigma_%": 100.0 * float(np.mean(found.sigma[late])),
        "within_2_sigma_%": 100.0 * float(np.mean(np.abs(off) < 2.0 * found.sigma[late])),
    }


def study(folder: Path) -> pd.DataFrame:
    """One row per run and estimator."""
    rows = []
    for case in cases(folder):
        for estimator in KNOWN:
            head = {"cell": case.cell, "ambient_C": case.ambient_C, "run": case.run}
            head["fitted"] = "yes" if case.fitted else "no"
            rows.append(head | {"estimator": estimator} | judge(case, estimator))
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """Markdown: error by cell and temperature, the worst and the mean over the runs not fitted."""
    lines = [
        "| cell | degC | runs not fitted | counting | ekf | ukf | firmware, mean (worst) | inside 2 sigma |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kept = table[table["fitted"] == "no"]
    for key, part in kept.groupby(["cell", "ambient_C"], sort=True):
        cell, celsius = cast(tuple[str, float], key)
        by = {word: part[part["estimator"] == word] for word in KNOWN}
        firmware = by["firmware"]
        means = [f"{by[word]['rmse_%'].mean():.2f}" for word in ("counting", "ekf", "ukf")]
        own = f"{firmware['rmse_%'].mean():.2f} ({firmware['rmse_%'].max():.2f})"
        covered = f"{firmware['within_2_sigma_%'].mean():.0f} %"
        names = ", ".join(firmware["run"])
        lines.append(f"| {cell} | {celsius:.0f} | {names} | {' | '.join(means)} | {own} | {covered} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m twin.soc_study", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("data", type=Path, help="folder with the measured cells (data/battery)")
    parser.add_argument("--out", type=Path, default=Path("results/estimators"))
    chosen = parser.parse_args(arguments)
    if not (chosen.data / "lg_hg2_drive_1hz.parquet").is_file():
        print(f"{chosen.data}: no lg_hg2_drive_1hz.parquet there")
        return 2
    table = study(chosen.data)
    chosen.out.mkdir(parents=True, exist_ok=True)
    table.round(2).to_csv(chosen.out / "soc_accuracy.csv", index=False, lineterminator="\n")
    print(summary(table), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
