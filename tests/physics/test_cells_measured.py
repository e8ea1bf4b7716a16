"""Catalogue cells against measurements they were not identified on.

The data are in `data/battery` of the shared folder (or below TWIN_DATA), not in this repository.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from pack_models.catalogue import cell
from pack_models.catalogue.design import ThermalDesign
from pack_models.cells.measured import hg2_drives, m50_open_circuit, m50_rates
from pack_models.cells.replay import replay, rmse_mV
from pack_models.layout import Layout
from pack_models.thermal.lumped import LumpedThermal

FOLDER = Path(os.environ.get("TWIN_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "battery"
pytestmark = pytest.mark.skipif(
    not (FOLDER / "lg_hg2_drive_1hz.parquet").exists(),
    reason="measured cells are absent: set TWIN_DATA to the folder with the shared data",
)
KELVIN = 273.15


@pytest.fixture(scope="module")
def drives():
    return {(round(run.ambient_K - KELVIN), run.name): run for run in hg2_drives(FOLDER)}


@pytest.mark.parametrize(
    ("ambient_C", "profile", "bound_mV"),
    [
        (25, "LA92", 9.0),
        (25, "Mixed4", 9.0),
        (40, "LA92", 12.5),
        (10, "Mixed4", 13.5),
        (0, "LA92", 20.0),
        (0, "Mixed4", 21.5),
        (-10, "LA92", 35.0),
        (-10, "Mixed4", 32.0),
    ],
)
def test_lg_hg2_on_drive_cycles_kept_for_the_test(drives, ambient_C, profile, bound_mV):
    run = drives[ambient_C, profile]
    voltage_V = replay(cell("lghg2_measured"), run.time_s, run.current_A, run.temperature_K, 1.0)
    assert rmse_mV(voltage_V, run.voltage_V) < bound_mV


# Heat capacity and heat transfer of the LG M50 in its holder, from the 1C discharge at 25 degC alone.
# The heat capacity is more than the cell's 65 J/K: clips, leads and holder warm up with it.
HOLDER_J_PER_K, TO_CHAMBER_W_PER_K = 106.6, 0.216


@pytest.mark.parametrize(
    ("ambient_C", "rate", "bound_K"),
    [
        (25, "1C", 0.2),
        (25, "0p1C", 0.35),
        (25, "0p5C", 0.3),
        (0, "0p5C", 0.6),
        (0, "1C", 0.4),
        (45, "0p5C", 0.8),
    ],
)
def test_lg_m50_surface_temperature(ambient_C, rate, bound_K):
    """Heat by Bernardi from measured voltage and open circuit, temperature by the lumped network.

    The first row is the one fitted; the others are predictions. Not met: the 2C runs and 1C at 45 degC,
    which end 11 to 15 K and 4 K warmer than this heat transfer gives.
    """
    (run,) = (
        run
        for run in m50_rates(FOLDER, 4.95)
        if run.name == rate and round(run.ambient_K - KELVIN) == ambient_C
    )
    m50 = cell("lgm50_chen2020")
    open_V = m50_open_circuit(FOLDER, run.soc)
    entropic = np.interp(run.soc, m50.ocv_soc, m50.entropic_V_per_K)
    heat_W = run.current_A * (open_V - run.voltage_V) - run.current_A * run.temperature_K * entropic
    paths = {field.name: 0.0 for field in dataclasses.fields(ThermalDesign)}
    paths |= {"ambient_W_per_K": TO_CHAMBER_W_PER_K, "coolant_heat_capacity_J_per_K": 1.0}
    paths |= {"plate_W_per_K": None, "supply_temperature_K": None, "cooling_cop": 1.0, "heating_cop": 1.0}
    thermal = LumpedThermal(
        ThermalDesign(**paths), HOLDER_J_PER_K, Layout.uniform(1, 1, 1, 1), run.temperature_K[0]
    )
    modelled_K = [run.temperature_K[0]]
    for k in range(1, heat_W.size):
        dt_s = float(run.time_s[k] - run.time_s[k - 1])
        thermal.step(heat_W[k : k + 1], run.temperature_K[:1], np.zeros(1), dt_s)
        modelled_K.append(thermal.temperature_K[0])
    assert np.sqrt(np.mean((np.array(modelled_K) - run.temperature_K) ** 2)) < bound_K


def test_how_far_the_published_parameter_set_is_from_measured_m50_cells():
    """Chen2020 is one cell of the type; these are others. Its capacity (5.15 Ah to 4.95 Ah) and open
    circuit differ, which costs 50 to 200 mV at a given charge drawn: identify before comparing.
    """
    m50 = cell("lgm50_chen2020")
    error = {}
    for run in m50_rates(FOLDER, 4.95):
        if round(run.ambient_K - KELVIN) == 25:
            voltage_V = replay(m50, run.time_s, run.current_A, run.temperature_K, 1.0)
            error[run.name] = rmse_mV(voltage_V, run.voltage_V)
    assert max(error.values()) < 200.0
    assert min(error.values()) > 40.0  # if this fails, the statement in the README must be mended
