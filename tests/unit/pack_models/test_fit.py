"""Identification finds a circuit that is known, from its own response."""

import dataclasses

import numpy as np
import pytest

from pack_models.catalogue import cell
from pack_models.cells.fit import Record, fit_circuit
from pack_models.cells.identify import TABLE_SOC, as_yaml, pulse_profile
from pack_models.cells.replay import replay


@pytest.fixture(scope="module")
def known():
    """A circuit at one temperature with round numbers."""
    design = cell("lgm50_chen2020")
    shape = 1.0 + 0.8 * np.exp(-TABLE_SOC / 0.1)
    return dataclasses.replace(
        design,
        entropic_V_per_K=np.zeros_like(design.ocv_V),
        table_soc=TABLE_SOC,
        table_temperature_K=np.array([298.15]),
        resistance0_ohm=0.02 * shape[None],
        resistance1_ohm=0.012 * shape[None],
        resistance2_ohm=0.015 * shape[None],
        time_constant1_s=np.array([20.0]),
        time_constant2_s=np.array([400.0]),
    )


def test_a_known_circuit_is_found(known):
    time_s, current_A = pulse_profile(5.0, known.capacity_Ah, soc_step=0.1)
    keep = 5 * 3600
    time_s, current_A = time_s[:keep], current_A[:keep]
    voltage_V = replay(known, time_s, current_A, 298.15, 1.0)
    soc = 1.0 - np.concatenate([[0.0], np.cumsum(current_A[1:])]) / 3600.0 / known.capacity_Ah
    drop_V = np.interp(soc, known.ocv_soc, known.ocv_V) - voltage_V
    record = Record(np.diff(time_s), current_A[1:], soc[1:], drop_V[1:], np.ones(soc.size - 1))
    found = fit_circuit([record], TABLE_SOC, time_constants_s=(10.0, 300.0), smoothing=1e-4, thinning=25)
    # What is left is the difference between the two interpolations of the tables over charge.
    assert found.rmse_V < 5e-4
    assert found.time_constant1_s == pytest.approx(20.0, rel=0.05)
    assert found.time_constant2_s == pytest.approx(400.0, rel=0.05)
    inside = (TABLE_SOC >= 0.5) & (TABLE_SOC <= 0.9)
    for name in ("resistance0_ohm", "resistance1_ohm", "resistance2_ohm"):
        np.testing.assert_allclose(getattr(found, name)[inside], getattr(known, name)[0, inside], rtol=0.05)


def test_what_is_written_is_what_is_read(known, tmp_path):
    from pack_models.catalogue import load_cell

    design = cell("lgm50_chen2020")
    numbers = (
        "capacity_Ah voltage_min_V voltage_max_V temperature_min_K temperature_max_K charge_current_max_A "
        "discharge_current_max_A mass_kg heat_capacity_J_per_K reference_temperature_K hysteresis_rate"
    )
    curves = (
        "ocv_soc ocv_V entropic_V_per_K hysteresis_V table_soc table_temperature_K resistance0_ohm "
        "resistance1_ohm time_constant1_s resistance2_ohm time_constant2_s"
    )
    sheet = {
        **{key: getattr(design, key) for key in ("name", "about", "chemistry", "form", "pybamm", "fit")},
        "numbers": {key: (getattr(design, key), "x", 'a "quoted" remark') for key in numbers.split()},
        "curves": {key: (getattr(design, key), "x", "") for key in curves.split()},
        "sources": {"x": "this test"},
    }
    path = tmp_path / f"{design.name}.yaml"
    path.write_text(as_yaml(sheet, "a test"), encoding="utf-8")
    again = load_cell(path)
    np.testing.assert_allclose(again.resistance1_ohm, design.resistance1_ohm, rtol=1e-5)
    assert again.capacity_Ah == pytest.approx(design.capacity_Ah, rel=1e-5)
    assert max(map(len, path.read_text().splitlines())) < 300
