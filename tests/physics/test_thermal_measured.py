"""Lumped cell and Bernardi heat against measured surface temperatures: DMEGC 18650 and Samsung 30Q.

Heat capacity, heat transfer and entropic coefficient below were fitted to some of the runs (named); the tests
hold the error on the others. Heat comes from the measured current and voltage and a measured open circuit, so
what is tested is the heat equation and the network, not the circuit.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from pack_models.layout import Layout
from pack_models.thermal.lumped import LumpedThermal
from tests.unit.pack_models.test_lumped import BARE

DATA = Path(os.environ.get("TWIN_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "battery"
SOC_KNOTS = np.array([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])

# Fitted to random walks 0 to 7 of cell R1.
DMEGC_J_PER_K, DMEGC_W_PER_K = 61.8, 0.1763
DMEGC_ENTROPIC_V_PER_K = 1e-3 * np.array([-0.1208, -0.2283, 0.0075, 0.0159, 0.0469, -0.0650])
# Fitted to the 1C run at 20 degC. The file has no time; with 2 s a row the capacity comes out five times that
# of such a cell, so rows may be shorter or the sensor slow: a description, not a property of the cell.
Q30_ROW_S, Q30_J_PER_K, Q30_W_PER_K = 2.0, 263.9, 0.1445
Q30_ENTROPIC_V_PER_K = 1e-3 * np.array([-1.2269, -0.8233, -0.4904, 0.0975, -0.2448, -0.0551])


def read(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"measured data not here: {path}")
    import pandas as pd

    return pd.read_parquet(path)


def predicted(step_s, current_A, voltage_V, open_V, soc, start_K, entropic, capacity, transfer):
    """Temperatures of one cell under the heat of a record, ambient as at its start."""
    heat_W = current_A * (open_V - voltage_V) - current_A * start_K * np.interp(soc, SOC_KNOTS, entropic)
    design = dataclasses.replace(BARE, ambient_W_per_K=transfer)
    thermal = LumpedThermal(design, capacity, Layout.uniform(1, 1, 1, 1), start_K)
    ambient_K, off, out = np.array([start_K]), np.zeros(1), np.empty(heat_W.size)
    out[0] = start_K
    for k in range(1, heat_W.size):
        thermal.step(0.5 * (heat_W[k - 1 : k] + heat_W[k : k + 1]), ambient_K, off, float(step_s[k - 1]))
        out[k] = thermal.temperature_K[0]
    return out


@pytest.fixture(scope="module")
def dmegc():
    table = read("dmegc18650_electrothermal.parquet")

    def error_K(cell, test, run):
        slow = table[(table["cell"] == cell) & (table["test"] == "ocv_data")]
        full_C = float(slow["Q"].max())
        at, open_V = 1.0 - slow["Q"].to_numpy(float) / full_C, slow["V"].to_numpy(float)
        rows = table[(table["cell"] == cell) & (table["test"] == test) & (table["run"] == run)]
        time_s = rows["t"].to_numpy(float)
        rows = rows[np.concatenate([[True], np.diff(time_s) > 0.0])]
        soc = 1.0 - rows["Q"].to_numpy(float) / full_C
        measured_K = rows["T"].to_numpy(float) + 273.15
        model_K = predicted(
            np.diff(rows["t"].to_numpy(float)),
            -rows["I"].to_numpy(float),
            rows["V"].to_numpy(float),
            np.interp(soc, at[::-1], open_V[::-1]),
            soc,
            measured_K[0],
            DMEGC_ENTROPIC_V_PER_K,
            DMEGC_J_PER_K,
            DMEGC_W_PER_K,
        )
        return model_K - measured_K

    return error_K


@pytest.mark.parametrize(("cell", "most_K"), [("R1", 0.25), ("R2", 0.32), ("R3", 0.48)])
def test_dmegc_random_walks_not_fitted(dmegc, cell, most_K):
    """Swings of 4 to 10 K; every fourth of the runs that were not fitted."""
    error_K = np.concatenate([dmegc(cell, "rw_data", run) for run in range(8, 50, 4)])
    assert np.sqrt(np.mean(error_K**2)) < most_K
    assert np.abs(error_K).max() < 1.5


RATES = [("Rt_c_2_data", 0.25), ("ref_data", 0.2), ("Rt_cx2_data", 0.65)]


@pytest.mark.parametrize(("test", "most_K"), RATES)
def test_dmegc_constant_currents_not_fitted(dmegc, test, most_K):
    """C/2, 1C and 2C of all three cells, to the end of discharge: rises of 3, 4 and 11 K."""
    for cell in ("R1", "R2", "R3"):
        error_K = dmegc(cell, test, 0)
        assert np.sqrt(np.mean(error_K**2)) < most_K, cell


@pytest.mark.parametrize(("rate", "ambient"), [("C2", 20), ("2C", 20), ("1C", 40)])
def test_30q_pulses_not_fitted(rate, ambient):
    """Swings of 1.6 K over a day of pulses and rests; open circuit from the rests before the pulses."""
    table = read("samsung30q_hppc_thermal.parquet")
    rows = table[(table["rate"] == rate) & (table["T_amb"] == ambient)]
    current_A, voltage_V = -rows["I"].to_numpy(float), rows["V"].to_numpy(float)
    soc, measured_K = rows["soc"].to_numpy(float), rows["T_C"].to_numpy(float) + 273.15
    resting = np.abs(current_A) < 0.02
    before = np.flatnonzero(resting[:-1] & ~resting[1:])
    open_V = np.interp(soc, soc[before][::-1], voltage_V[before][::-1])
    model_K = predicted(
        np.full(soc.size - 1, Q30_ROW_S),
        *(current_A, voltage_V, open_V, soc, measured_K[0]),
        *(Q30_ENTROPIC_V_PER_K, Q30_J_PER_K, Q30_W_PER_K),
    )
    assert np.sqrt(np.mean((model_K - measured_K) ** 2)) < 0.2
