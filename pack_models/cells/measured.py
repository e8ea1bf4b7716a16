"""Reads the measured cells that circuits are identified from and tested on.

The files are not part of this repository (`data/battery` of the shared folder; sources and licences in
the README there). They store current positive on charge; everything returned here is positive on
discharge, like the rest of the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
LFP_CAPACITY_AH = 1.2006  # current over the source's state of charge
HG2_CAPACITY_AH = 2.778  # C/20 discharge at 25 degC, the reference of the source's state of charge


@dataclass(frozen=True, eq=False)
class Measured:
    """One run, all (n,): time from 0, current held over the interval before, state of charge where known."""

    name: str
    ambient_K: float
    time_s: FloatArray
    current_A: FloatArray
    voltage_V: FloatArray
    temperature_K: FloatArray
    soc: FloatArray


def hg2_drives(folder: Path) -> list[Measured]:
    """LG HG2 3 Ah under drive cycles from full charge, 1 s (Kollmeyer et al., McMaster, cp3473x7xv)."""
    import pandas as pd

    table = pd.read_parquet(folder / "lg_hg2_drive_1hz.parquet")
    runs = []
    for key, part in table.groupby(["T_amb", "profile"], sort=True):
        ambient_degC, profile = cast(tuple[float, str], key)
        charge_Ah = part["Ah"].to_numpy(float)
        time_s = part["t_s"].to_numpy(float)
        keep = np.concatenate([[True], np.diff(time_s) > 0.0])
        runs.append(
            Measured(
                name=str(profile),
                ambient_K=float(ambient_degC) + 273.15,
                time_s=time_s[keep] - time_s[0],
                current_A=-part["I"].to_numpy(float)[keep],
                voltage_V=part["V"].to_numpy(float)[keep],
                temperature_K=part["T_C"].to_numpy(float)[keep] + 273.15,
                soc=(1.0 + (charge_Ah - charge_Ah[0]) / HG2_CAPACITY_AH)[keep],
            )
        )
    return runs


def hg2_open_circuit(folder: Path, soc: FloatArray) -> tuple[FloatArray, FloatArray]:
    """C/20 discharge and charge voltage (V) of the HG2 at 25 degC over soc 0…1, each by its own charge."""
    import pandas as pd

    table = pd.read_parquet(folder / "lg_hg2_ocv_capacity.parquet")
    table = table[(table["test"] == "C20DisCh") & (table["T_amb"] == 25)]
    branches = []
    for part in (table[table["I"] < -0.05], table[table["I"] > 0.05]):
        charge_Ah, voltage_V = part["Ah"].to_numpy(float), part["V"].to_numpy(float)
        low, high = charge_Ah.min(), charge_Ah.max()
        order = np.argsort(charge_Ah, kind="stable")
        branches.append(np.interp(soc, (charge_Ah[order] - low) / (high - low), voltage_V[order]))
    return branches[0], branches[1]


def m50_rates(folder: Path, capacity_Ah: float) -> list[Measured]:
    """LG M50 5 Ah discharged at constant current with surface temperature (PyBOP examples, BSD-3-Clause).

    The discharge only; state of charge counted from full over capacity_Ah.
    """
    import pandas as pd

    table = pd.read_parquet(folder / "lg_m50_rate.parquet")
    runs = []
    for key, part in table.groupby(["T_amb", "rate"], sort=True):
        ambient_degC, rate = cast(tuple[float, str], key)
        current_A = -part["I"].to_numpy(float)
        flowing = np.flatnonzero(current_A > 0.05)
        # The first run of samples with current is the discharge; what follows is rest and recharge.
        last = flowing[np.flatnonzero(np.diff(flowing, append=flowing[-1] + 9) > 1)[0]]
        chosen = slice(int(flowing[0]) - 1, int(last) + 1)
        time_s = part["t_s"].to_numpy(float)[chosen]
        amps = current_A[chosen]
        keep = np.concatenate([[True], np.diff(time_s) > 0.0])
        time_s, amps = time_s[keep], amps[keep]
        drawn_C = np.concatenate([[0.0], np.cumsum(np.diff(time_s) * amps[1:])])
        runs.append(
            Measured(
                name=str(rate),
                ambient_K=float(ambient_degC) + 273.15,
                time_s=time_s - time_s[0],
                current_A=amps,
                voltage_V=part["V"].to_numpy(float)[chosen][keep],
                temperature_K=part["T_C"].to_numpy(float)[chosen][keep] + 273.15,
                soc=1.0 - drawn_C / (3600.0 * capacity_Ah),
            )
        )
    return runs


def m50_open_circuit(folder: Path, soc: FloatArray) -> FloatArray:
    """Mean open circuit (V) of the LG M50 at 25 degC over soc 0…1 (PyBOP examples, BSD-3-Clause)."""
    import pandas as pd

    table = pd.read_parquet(folder / "lg_m50_ocv_25c.parquet")
    return np.asarray(np.interp(soc, table["soc"].to_numpy(float) / 100.0, table["ocv"].to_numpy(float)))


def lfp_flat_zone(folder: Path) -> Measured:
    """1.2 Ah LFP cell, 25 h of dynamic load between 20 and 80 % charge at 25 degC, 1 s."""
    import pandas as pd

    table = pd.read_parquet(folder / "lfp_flatzone_25c_1hz.parquet")
    time_s = np.round(table["t_s"].to_numpy(float))
    return Measured(
        name="flat zone",
        ambient_K=298.15,
        time_s=time_s - time_s[0],
        current_A=-table["I"].to_numpy(float),
        voltage_V=table["V"].to_numpy(float),
        temperature_K=np.full(time_s.size, 298.15),
        soc=table["soc_ref"].to_numpy(float),
    )


def lfp_open_circuit(folder: Path, soc: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Discharge and charge branch (V) of the same cell over soc 0…1."""
    import pandas as pd

    table = pd.read_parquet(folder / "lfp_ocv_hysteresis.parquet")
    at = table["soc"].to_numpy(float)
    return (
        np.interp(soc, at, table["ocv_discharge"].to_numpy(float)),
        np.interp(soc, at, table["ocv_charge"].to_numpy(float)),
    )
