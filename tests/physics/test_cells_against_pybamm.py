"""The circuit against the model it was identified from, on profiles it was not identified on.

Bounds are the errors measured when the catalogue entry was made, with a fifth to spare; the figures
stand in pack_models/README.md. PyBaMM's parameter set has no entropy, so the circuit runs without too.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from pack_models.catalogue import cell
from pack_models.cells.pybamm_engine import run_profile
from pack_models.cells.replay import replay, rmse_mV

KELVIN = 273.15
DRIVE = Path(
    os.environ.get("TWIN_DATA", Path(__file__).resolve().parents[2] / "../shared/data"),
    "drive/drive_cycles_cell_current.csv",
)


@pytest.fixture(scope="module")
def design():
    whole = cell("lgm50_chen2020")
    return dataclasses.replace(whole, entropic_V_per_K=np.zeros_like(whole.ocv_V))


def error_mV(design, temperature_C, soc, time_s, current_A):
    run = run_profile("Chen2020", "dfn", temperature_C + KELVIN, soc, time_s, current_A)
    assert run.time_s.size == time_s.size
    inside = (run.voltage_V > design.voltage_min_V) & (run.voltage_V < design.voltage_max_V + 0.05)
    voltage_V = replay(design, run.time_s, run.current_A, temperature_C + KELVIN, soc)
    return rmse_mV(voltage_V[inside], run.voltage_V[inside])


@pytest.mark.parametrize(("temperature_C", "bound_mV"), [(0.0, 17.0), (25.0, 10.0), (45.0, 9.0)])
def test_one_c_discharge(design, temperature_C, bound_mV):
    time_s = np.arange(0.0, 3200.0, 4.0)
    assert error_mV(design, temperature_C, 1.0, time_s, np.full(time_s.size, 5.0)) < bound_mV


def random_drive(seed, seconds, peak_A):
    """Current of a drive: phases of different load, accelerations and regeneration, in steps of 5 s."""
    draw = np.random.default_rng(seed)
    phase = np.repeat(draw.uniform(0.0, 0.5, seconds // 100 + 1), 20)[: seconds // 5]
    kick = draw.standard_t(4, seconds // 5)
    amps = np.clip((phase + 0.25 * kick) * peak_A, -0.5 * peak_A, peak_A)
    return np.arange(seconds + 1.0), np.concatenate([[0.0], np.repeat(amps, 5)])


@pytest.mark.parametrize(("temperature_C", "bound_mV"), [(0.0, 42.0), (25.0, 15.0), (45.0, 7.0)])
def test_random_drive(design, temperature_C, bound_mV):
    assert error_mV(design, temperature_C, 0.85, *random_drive(5, 1200, 10.0)) < bound_mV


@pytest.mark.skipif(
    not DRIVE.exists(), reason=f"no {DRIVE.name}: set TWIN_DATA to the folder with the shared data"
)
def test_wltc(design):
    import pandas as pd

    table = pd.read_csv(DRIVE)
    table = table[table["cycle"] == "WLTC"]
    time_s = np.arange(0.0, 1200.0)
    current_A = np.interp(time_s, table["t_s"], table["current_A"])
    current_A *= 10.0 / np.abs(table["current_A"]).max()  # 2C peaks, as in a car
    assert error_mV(design, 25.0, 0.8, time_s, current_A) < 12.0


def test_the_physical_rung_is_pybamm():
    """The bank of PyBaMM cells gives what PyBaMM's own Simulation gives, cell by cell."""
    import pybamm

    from pack_models.cells.pybamm_cell import PybammBank
    from pack_models.layout import Layout

    values = pybamm.ParameterValues("Chen2020")
    values.set_initial_state(0.7)
    values["Current function [A]"] = "[input]"
    values["Ambient temperature [K]"] = values["Initial temperature [K]"] = 308.15
    simulation = pybamm.Simulation(
        pybamm.lithium_ion.SPMe(), parameter_values=values, solver=pybamm.IDAKLUSolver(rtol=1e-6, atol=1e-8)
    )
    bank = PybammBank(cell("lgm50_chen2020"), Layout.uniform(1, 2, 1, 2), 0.7, model="spme")
    for amps in (5.0, 0.0, -3.0, 8.0, 8.0):
        solution = simulation.step(30.0, inputs={"Current function [A]": amps})
        bank.step(np.array([amps]), np.full(2, 308.15), 30.0)
        expected_V = solution["Terminal voltage [V]"].entries[-1]
        np.testing.assert_allclose(bank.group_voltage_V, expected_V, atol=2e-5)
