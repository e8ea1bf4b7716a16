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


def _run(
    name: str,
    ambient_C: float,
    time_s: FloatArray,
    current_A: FloatArray,
    voltage_V: FloatArray,
    soc: FloatArray,
    temperature_C: FloatArray | None = None,
) -> Measured:
    """A run from columns as they stand, later samples at the same instant dropped."""
    keep = np.concatenate([[True], np.diff(time_s) > 0.0])
    surface_C = np.full(time_s.size, ambient_C) if temperature_C is None else temperature_C
    return Measured(
        name=name,
        ambient_K=ambient_C + 273.15,
        time_s=(time_s - time_s[0])[keep],
        current_A=current_A[keep],
        voltage_V=voltage_V[keep],
        temperature_K=surface_C[keep] + 273.15,
        soc=soc[keep],
    )


def counted(time_s: FloatArray, current_A: FloatArray, soc: float, capacity_Ah: float) -> FloatArray:
    """(n,) state of charge from a start, each current over the interval before its sample."""
    drawn_C = np.concatenate([[0.0], np.cumsum(np.diff(time_s) * current_A[1:])])
    return np.asarray(soc - drawn_C / (3600.0 * capacity_Ah))


def inr20r_drives(folder: Path) -> list[Measured]:
    """INR18650-20R 2 Ah, DST and FUDS at 0, 25 and 45 degC from 80 and 50 % (CALCE, Univ. of Maryland)."""
    import pandas as pd

    table = pd.read_parquet(folder / "calce_inr20r_drive_1hz.parquet")
    runs = []
    for key, part in table.groupby(["T_amb", "profile", "soc0"], sort=True, observed=True):
        ambient_C, profile, soc0 = cast(tuple[float, str, int], key)
        columns = (part[name].to_numpy(float) for name in ("t_s", "I", "V", "soc_ref"))
        time_s, charge_A, voltage_V, soc = columns
        runs.append(_run(f"{profile} from {soc0} %", float(ambient_C), time_s, -charge_A, voltage_V, soc))
    return runs


def inr20r_open_circuit(folder: Path) -> tuple[FloatArray, FloatArray]:
    """Rested points of the second sample at 25 degC, both directions: state of charge 0…1, voltage."""
    import pandas as pd

    table = pd.read_parquet(folder / "calce_inr20r_ocv.parquet").dropna()
    table = table[(table["sample"] == "Sample2") & (table["T_amb"] == 25)].sort_values("soc")
    return np.clip(table["soc"].to_numpy(float), 0.0, 1.0), table["ocv"].to_numpy(float)


def leaf_runs(folder: Path) -> tuple[list[Measured], float]:
    """Leaf cell (2013): HPPC from full at 10 and 25 degC, discharges at 25 degC; capacity at 25 degC, 10 A.

    ORNL/NREL through github batterysim/equiv-circ-model (MIT).
    """
    import pandas as pd

    table = pd.read_parquet(folder / "nissan_leaf_cell_hppc.parquet")
    found = {}
    for ambient_C, part in table.groupby("T_amb"):
        time_s, charge_A, voltage_V = (part[name].to_numpy(float) for name in ("t_s", "I", "V"))
        # The recharge to 4.2 V and the hour of rest after it are over where discharge sets in anew.
        begin = int(np.flatnonzero(part["step"].to_numpy() == 6)[0]) - 1
        keep = np.concatenate([[True], np.diff(time_s[begin:]) > 0.0])
        found[float(cast(int, ambient_C))] = tuple(x[begin:][keep] for x in (time_s, -charge_A, voltage_V))
    time_s, current_A, _ = found[25.0]
    capacity_Ah = float(np.sum(np.diff(time_s) * current_A[1:]) / 3600.0)
    runs = [
        _run(f"HPPC {ambient_C:.0f} degC", ambient_C, t, amps, volts, counted(t, amps, 1.0, capacity_Ah))
        for ambient_C, (t, amps, volts) in found.items()
    ]
    table = pd.read_parquet(folder / "nissan_leaf_cell_discharge.parquet")
    for rate, part in table.groupby("rate"):
        time_s, charge_A, voltage_V = (part[name].to_numpy(float) for name in ("t_s", "I", "V"))
        flowing = np.flatnonzero((charge_A < -20.0) & (voltage_V > 3.05))
        # The discharge that starts from full: the longest one.
        pieces = np.split(flowing, np.flatnonzero(np.diff(flowing) > 1) + 1)
        piece = max(pieces, key=len)
        chosen = slice(max(int(piece[0]) - 1, 0), int(piece[-1]) + 1)
        t, amps = time_s[chosen], -charge_A[chosen]
        soc = counted(t, amps, 1.0, capacity_Ah)
        runs.append(_run(f"discharge {rate}", 25.0, t, amps, voltage_V[chosen], soc))
    return runs, capacity_Ah


def samsung30q_hppc(folder: Path) -> list[Measured]:
    """Samsung 30Q 3 Ah, HPPC at C/2, 1C, 2C (20 degC) and 1C (40 degC) with surface temperature.

    ARTS-Lab (CC BY-SA 4.0). The source has no time axis; its rows are 1 s apart (its own charge agrees).
    """
    import pandas as pd

    table = pd.read_parquet(folder / "samsung30q_hppc_thermal.parquet")
    runs = []
    for key, part in table.groupby(["rate", "T_amb"], sort=True, observed=True):
        rate, ambient_C = cast(tuple[str, float], key)
        names = ("i", "I", "V", "soc", "T_C")
        time_s, charge_A, voltage_V, soc, surface_C = (part[name].to_numpy(float) for name in names)
        name = f"HPPC {rate} {ambient_C} degC"
        runs.append(_run(name, float(ambient_C), time_s, -charge_A, voltage_V, soc, surface_C))
    return runs


def dmegc_runs(folder: Path, cell: str, tests: tuple[str, ...], capacity_Ah: float) -> list[Measured]:
    """DMEGC INR18650 2.6 Ah at 25 degC from full, 10 s: pulse_data, ref_data, rw_data, ocv_data (C/20).

    github Silencefrog9305/Digital-Twins-for-Battery-Using-CTA-MTL (MIT).
    """
    import pandas as pd

    table = pd.read_parquet(folder / "dmegc18650_electrothermal.parquet")
    table = table[(table["cell"] == cell) & table["test"].isin(tests)]
    runs = []
    for key, part in table.groupby(["test", "run"], sort=True, observed=True):
        test, number = cast(tuple[str, int], key)
        time_s, charge_A, voltage_V, surface_C = (part[name].to_numpy(float) for name in ("t", "I", "V", "T"))
        soc = counted(time_s, -charge_A, 1.0, capacity_Ah)
        runs.append(_run(f"{cell} {test} {number}", 25.0, time_s, -charge_A, voltage_V, soc, surface_C))
    return runs


def m50_pulses(folder: Path, ocv_soc: FloatArray, ocv_V: FloatArray, capacity_Ah: float) -> list[Measured]:
    """LG M50 pulses of 10 s from rest at 0 to 45 degC, some 0.1 s apart (PyBOP examples, BSD-3-Clause).

    The charge is what the rested voltage before the pulse says on the given open circuit.
    """
    import pandas as pd

    table = pd.read_parquet(folder / "lg_m50_pulses.parquet")
    runs = []
    for key, part in table.groupby(["T_amb", "soc_step", "cell"], sort=True, observed=True):
        ambient_C, step, cell = cast(tuple[float, str, str], key)
        time_s, charge_A, voltage_V = (part[name].to_numpy(float) for name in ("t_s", "I", "V"))
        keep = np.concatenate([[True], np.diff(time_s) > 0.0])
        time_s, amps, voltage_V = time_s[keep], -charge_A[keep], voltage_V[keep]
        on = np.flatnonzero(amps > 0.1)
        # The current is logged one sample after the voltage has jumped.
        amps[1 : on[0]] = amps[on[0]]
        start = float(np.interp(voltage_V[0], ocv_V, ocv_soc))
        soc = counted(time_s, amps, start, capacity_Ah)
        runs.append(_run(f"{step} {cell}", float(ambient_C), time_s, amps, voltage_V, soc))
    return runs


def a123_branches(folder: Path, soc: FloatArray) -> dict[float, tuple[FloatArray, FloatArray]]:
    """A123 LFP at C/22: discharge and charge voltage over soc 0…1 by chamber temperature (degC).

    CALCE (no explicit licence). The file keeps no time, but the current is constant in each branch, so the
    share of its samples is the share of its charge.
    """
    import pandas as pd

    table = pd.read_parquet(folder / "calce_a123_lowrate_ocv.parquet")
    found = {}
    for ambient_C, part in table.groupby("T_amb"):
        charge_A, voltage_V = part["I"].to_numpy(float), part["V"].to_numpy(float)
        discharge_V, charge_V = voltage_V[charge_A < -0.04], voltage_V[np.abs(charge_A - 0.05) < 0.005]
        # The end of the charge before has this current too: the branch begins at the lowest voltage.
        charge_V = charge_V[int(np.argmin(charge_V)) :]
        at = np.linspace(0.0, 1.0, discharge_V.size)
        discharge = np.interp(soc, at, discharge_V[::-1])
        found[float(cast(int, ambient_C))] = (
            discharge,
            np.asarray(np.interp(soc, np.linspace(0.0, 1.0, charge_V.size), charge_V)),
        )
    return found
