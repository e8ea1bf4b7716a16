"""Every reference case with every model that applies, at the tolerances of the references; see validate.py.

What takes long (3-D pack at full mesh, its refinement, critical temperatures by FEM) is in
`python -m pack_models.propagation.validate`, whose table is committed in results/propagation.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pack_models.propagation import analytic, validate
from pack_models.propagation.case import load_case
from pack_models.propagation.run import run_case


def agree(rows: object) -> None:
    """All rows within tolerance, or the table of those that are not."""
    found = list(rows)  # type: ignore[call-overload]
    assert found
    bad = [r for r in found if not r.passed]
    assert not bad, "\n" + validate.table(bad)


def test_reference_tables_are_the_shared_ones(thermal_reference: Path) -> None:
    for ours in validate.REFERENCE.glob("*.csv"):
        name = "b3_oven_critical_7.17_0.8_253.csv" if ours.stem == "b3_oven_critical" else ours.name
        assert ours.read_text() == (thermal_reference / name).read_text(), name


def test_closed_forms_agree_with_the_shared_tables(thermal_reference: Path) -> None:
    import csv

    import numpy as np

    with open(thermal_reference / "a1_contact_perfect.csv", newline="") as file:
        for row in csv.DictReader(file):
            x, t, expected = (float(row[k]) for k in ("x_m", "t_s", "T_K"))
            got = analytic.two_half_spaces(np.array([x]), t, (0.8, 2580 * 830.0, 900.0), (0.3, 1e6, 300.0))[0]
            assert got == pytest.approx(expected, abs=1e-4)
    with open(thermal_reference / "a2_slab_robin.csv", newline="") as file:
        for row in csv.DictReader(file):
            position = np.array([2 * float(row["x_m"]) / 0.027 - 1])
            theta = analytic.slab_decay(
                position, 0.8 / 2141400.0 * float(row["t_s"]) / 0.0135**2, 50 * 0.0135 / 0.8
            )
            assert 298.15 + 200 * theta[0] == pytest.approx(float(row["T_K"]), abs=1e-4)
    with open(thermal_reference / "a4_criticality.csv", newline="") as file:
        for row in csv.DictReader(file):
            e, q, expected = (float(row[k]) for k in ("E_J_mol", "q0_W_m3", "T_ambient_or_wall_crit_K"))
            if row["kind"] == "semenov":
                got = analytic.semenov_critical_K(e, q, float(row["hS_over_V_W_m3K"]))[0]
            else:
                geometry = ("fk_slab", "fk_cylinder", "fk_sphere").index(row["kind"])
                k, radius = float(row["k_W_mK"]), float(row["half_or_radius_m"])
                got = analytic.frank_kamenetskii_critical_K(e, q, k, radius, geometry)[0]
            assert got == pytest.approx(expected, abs=1e-3)
    with open(thermal_reference / "a5_radiation_cooling.csv", newline="") as file:
        for row in csv.DictReader(file):
            t0, t1, c, ea = (float(row[k]) for k in ("T0_K", "T_K", "mc_J_K", "epsilon_A_m2"))
            assert analytic.radiation_time_s(t0, t1, c, ea, 298.15) == pytest.approx(
                float(row["t_s"]), rel=1e-6
            )


@pytest.mark.parametrize("resistance", [0.0, 0.002])
def test_contact_network(resistance: float) -> None:
    agree(validate.check_contact("network", resistance))


def test_contact_with_resistance_fem(dolfinx: str) -> None:
    agree(validate.check_contact("fem", 0.002))


def test_slab_network() -> None:
    agree(validate.check_slab("network"))


def test_slab_fem(dolfinx: str) -> None:
    agree(validate.check_slab("fem"))


def test_orders_network() -> None:
    agree(validate.check_orders("network", (4, 8, 16)))


def test_orders_fem(dolfinx: str) -> None:
    agree(validate.check_orders("fem", (4, 8, 16)))


def test_box_with_films_network() -> None:
    agree(validate.check_box_films("network", 12))


def test_box_with_films_fem(dolfinx: str) -> None:
    agree(validate.check_box_films("fem", 12))


@pytest.mark.parametrize("model", ["lumped", "network"])
def test_radiation(model: str) -> None:
    agree(validate.check_radiation(model))


def test_radiation_fem(dolfinx: str) -> None:
    agree(validate.check_radiation("fem"))


def test_semenov() -> None:
    agree(validate.check_semenov())


def test_thermal_explosion_of_a_cylinder_network() -> None:
    exact, _ = analytic.frank_kamenetskii_critical_K(1.1e5, 9.072e17, 0.5, 0.01, 1)
    assert not validate.runs_away(validate.explosion_case(exact - 0.3, 1), "network")
    assert validate.runs_away(validate.explosion_case(exact + 0.3, 1), "network")


def test_adiabatic_calorimetry() -> None:
    agree(validate.check_adiabatic())


def test_adiabatic_trace(thermal_reference: Path) -> None:
    import csv

    run = validate.adiabatic(110.0, until_s=6000.0)
    # The clock of both is set at the maximum rate (6500 K/s): there 0.4 ms of 5233 s would be 3 K.
    shift = run.max_rate[0] - 5232.562143
    assert abs(shift) < 0.01
    names = ("T_K", "c_sei", "c_neg", "z_sei", "alpha", "c_e")
    with open(thermal_reference / "b1_kim_adiabatic_110C_trace.csv", newline="") as file:
        for row in csv.DictReader(file):
            state = run.at(max(0.0, float(row["t_s"]) + shift))
            ours = [state[0], state[1], state[2], state[3], 1.0 - state[4], state[5]]
            expected = [float(row[n]) for n in names]
            assert ours[0] == pytest.approx(expected[0], abs=0.5)
            assert ours[1:] == pytest.approx(expected[1:], abs=2e-3)


@pytest.mark.parametrize("model", ["lumped", "network"])
def test_oven(model: str) -> None:
    agree(validate.check_oven(model))


def test_oven_fem(dolfinx: str) -> None:
    agree(validate.check_oven("fem"))


def test_critical_oven_temperature() -> None:
    agree(validate.check_oven_critical())


def test_calorimetry_with_critical_thickness() -> None:
    agree(validate.check_calorimetry())


def test_row_as_lim1tr() -> None:
    agree(validate.check_lim1tr())


def test_row_with_ceiling_network() -> None:
    agree(validate.check_stack("network"))


def test_row_with_ceiling_fem(dolfinx: str) -> None:
    agree(validate.check_stack("fem"))


def test_pack_network() -> None:
    agree(validate.check_pack("network", False))


def test_barrier_and_cooling_are_one_system() -> None:
    # The aerogel contains with a well cooled plate and not with a poorly cooled one: the row burns through
    # the plate.
    case = load_case("pack3x4_aerogel")
    order = {}
    for h in (500.0, 50.0):
        films = tuple(replace(b, h_W_m2K=h) if b.cooled else b for b in case.boundaries)
        run = run_case(replace(case, boundaries=films, run=replace(case.run, until_s=600.0)), "network")
        order[h] = run.summary["order"]
    assert order[500.0] == [0]
    assert order[50.0][:4] == [0, 1, 2, 3]


def test_pack_fem_on_the_coarse_mesh_of_the_study(dolfinx: str) -> None:
    agree(validate.check_pack_same_mesh((8, 6, 6)))


def test_two_mpi_processes_give_the_same_answer(dolfinx: str) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun here")
    agree(validate.check_mpi())
