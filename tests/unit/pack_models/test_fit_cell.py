"""Identification of a whole cell from runs that a known circuit has made."""

import numpy as np
import pytest

from pack_models.catalogue import load_cell
from pack_models.cells.fit_cell import Known, fit_cell, hysteresis_path
from pack_models.cells.identify import as_yaml
from pack_models.cells.measured import Measured, counted
from pack_models.cells.recipes import IdentifyError, from_runs, held_out_rmse_V

KNOTS = np.array([0.0, 0.3, 0.6, 1.0])
OCV_SOC = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
OCV_V = np.array([3.0, 3.45, 3.6, 3.85, 4.15])
R0, R1, R2 = np.array([0.03, 0.025, 0.02, 0.022]), np.full(4, 0.015), np.full(4, 0.02)
GAP_V = np.array([0.02, 0.03, 0.03, 0.03, 0.02])
CAPACITY_AH, RATE = 2.0, 20.0


def run(name, seed, gap=0.0, n=3000, noise_V=0.0005, kelvin=298.15):
    """A random drive from 95 %; gap: factor on GAP_V of its hysteresis."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(n, dtype=float) * 2.0
    current_A = np.repeat(rng.normal(0.9, 2.5, n // 25), 25)
    current_A[:25] = 0.0
    soc = counted(time_s, current_A, 0.95, CAPACITY_AH)
    soc_clipped = np.clip(soc, 0.0, 1.0)
    r0, r1, r2 = (np.interp(soc_clipped, KNOTS, table) for table in (R0, R1, R2))
    v1 = v2 = 0.0
    volts = np.empty(n)
    dt_s = np.concatenate([[0.0], np.diff(time_s)])
    h = hysteresis_path(current_A, dt_s, RATE, 3600.0 * CAPACITY_AH)
    for k in range(n):
        a1, a2 = np.exp(-dt_s[k] / 15.0), np.exp(-dt_s[k] / 400.0)
        v1, v2 = a1 * v1 + (1 - a1) * r1[k] * current_A[k], a2 * v2 + (1 - a2) * r2[k] * current_A[k]
        volts[k] = np.interp(soc[k], OCV_SOC, OCV_V) - v1 - v2 - r0[k] * current_A[k]
    volts += gap * np.interp(soc_clipped, OCV_SOC, GAP_V) * h + rng.normal(0.0, noise_V, n)
    return Measured(name, kelvin, time_s, current_A, volts, np.full(n, kelvin), soc)


@pytest.fixture(scope="module")
def fitted():
    runs = [run("a", 1), run("b", 2)]
    return fit_cell(
        runs, [np.ones(3000)] * 2, KNOTS, OCV_SOC, CAPACITY_AH, smoothing=1e-4, ocv_smoothing=1e-4
    )


def test_circuit_and_open_circuit_come_back(fitted):
    low = fitted.soc_range[0]
    assert fitted.rmse_V < 0.0008
    assert fitted.time_constant1_s == pytest.approx(15.0, rel=0.15)
    assert fitted.time_constant2_s == pytest.approx(400.0, rel=0.25)
    inside = low < KNOTS
    np.testing.assert_allclose(fitted.resistance0_ohm[inside], R0[inside], atol=0.0015)
    inside = low < OCV_SOC
    np.testing.assert_allclose(fitted.ocv_V[inside], OCV_V[inside], atol=0.004)


def test_the_error_on_another_run_is_its_noise(fitted):
    assert held_out_rmse_V(fitted, KNOTS, run("c", 9), CAPACITY_AH, np.zeros(1)) < 0.0015


def test_factor_and_rate_of_a_measured_hysteresis_come_back():
    known = Known(OCV_SOC, OCV_V, hysteresis_V=GAP_V)
    found = fit_cell([run("a", 4, gap=0.7)], [np.ones(3000)], KNOTS, OCV_SOC, CAPACITY_AH, known)
    assert found.hysteresis_factor == pytest.approx(0.7, abs=0.04)
    assert found.hysteresis_rate == pytest.approx(RATE, rel=0.2)
    assert found.rmse_V < 0.001


def test_a_users_runs_become_a_catalogue_file(tmp_path):
    given = Known(OCV_SOC, OCV_V)
    sheet = from_runs(
        "mine",
        [run("a", 5, n=1000), run("cold", 6, kelvin=273.15, n=1000)],
        [run("kept", 7, n=1000)],
        CAPACITY_AH,
        "a test",
        given,
    )
    path = tmp_path / "mine.yaml"
    path.write_text(as_yaml(sheet, "a test"), encoding="utf-8")
    design = load_cell(path)
    assert list(design.table_temperature_K) == [273.15, 298.15]
    assert design.fit["test_kept_mV"] < 3.0
    assert design.sources["user"] == "a test"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: (r.time_s[:50], r.current_A[:50], r.voltage_V[:50]), "50 samples; at least 200"),
        (lambda r: (r.time_s, np.full(3000, 0.3), r.voltage_V), "the current never changes"),
        (lambda r: (r.time_s, -4 * r.current_A, r.voltage_V), "expected 0 to 100 %: check sign, capacity"),
    ],
)
def test_runs_that_say_too_little_are_refused(change, said):
    whole = run("bad", 8)
    time_s, current_A, volts = change(whole)
    soc = counted(time_s, current_A, 0.95, CAPACITY_AH)
    bad = Measured("bad", 298.15, time_s, current_A, volts, np.full(time_s.size, 298.15), soc)
    with pytest.raises(IdentifyError, match=said):
        from_runs("mine", [bad], [], CAPACITY_AH, "a test", Known(OCV_SOC, OCV_V))
