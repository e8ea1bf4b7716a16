"""The container of a site: against the continuous equation, set-points, books, its place in the site."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from tests.unit.twin.test_plant import BASE, simulate
from twin.scenario.schema import Container
from twin.world.container import ContainerAir

BOX = Container(count=2, fan_W=0.0)


def test_air_follows_the_continuous_equation():
    def rate(_, T):
        cooled = np.clip((T[0] - BOX.cool_above_K) / BOX.band_K, 0.0, 1.0) * BOX.cooling_W
        return [(2000.0 + BOX.walls_W / 10.0 * (303.15 - T[0]) - cooled) / BOX.warming_J]

    exact = solve_ivp(rate, (0.0, 900.0), [293.15], rtol=1e-10, max_step=1.0).y[0, -1]
    errors = []
    for dt_s in (10.0, 5.0):
        air = ContainerAir(BOX, 293.15)
        for _ in range(round(900 / dt_s)):
            air.step(2 * 2000.0, 303.15, dt_s)
        errors.append(abs(air.air_K - exact))
        assert abs(air.residual_J()) < 1e-6 * air.energy_J["heat_in"]
    assert errors[1] < 0.03
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.2)  # first order


@pytest.mark.parametrize(("outside_K", "heat_W", "low_K", "high_K"), [
    (313.15, 2 * 3000.0, 298.15, 301.15),  # hot day: held within the band above the upper set-point
    (258.15, 0.0, 282.15, 285.15),  # frost: within the band below the lower one
    (291.15, 0.0, 291.15, 291.15),  # between them nothing runs
])  # fmt: skip
def test_steady_air_is_where_the_set_points_say(outside_K, heat_W, low_K, high_K):
    air = ContainerAir(BOX, 291.15)
    for _ in range(200):
        air.step(heat_W, outside_K, 900.0)
    assert low_K - 1e-9 <= air.air_K <= high_K + 1e-9
    e = air.energy_J
    assert e["electric"] == pytest.approx(e["cooled"] / BOX.cop + e["heated"] / BOX.heating_cop, rel=1e-12)
    assert (e["electric"] > 0.0) == (low_K != high_K)


def test_more_than_it_can_is_not_taken_out():
    air = ContainerAir(dataclasses.replace(BOX, cooling_W=1000.0), 298.15)
    for _ in range(500):
        air.step(2 * 3000.0, 298.15, 900.0)
    assert air.air_K == pytest.approx(298.15 + 2000.0 / 45.0, abs=1e-6)


def test_the_site_pays_for_it(tmp_path):
    box = "sites.0.container={count: 1, cool_above: 18 degC, heat_below: 10 degC, cooling: 5 kW}"
    hot = "sites.0.ambient=35 degC"
    world, tables = simulate(tmp_path / "with", BASE, box, hot)
    plain, bare = simulate(tmp_path / "without", BASE, hot)
    site = world.sites[0]
    book = world.balances()["lab"]
    assert book["energy_hvac_J"] > 0.0
    assert book["energy_auxiliary_J"] >= book["energy_hvac_J"]
    assert book["energy_residual"] < 1e-9
    assert site.ambient_K < plain.sites[0].ambient_K == 308.15
    extra = tables["meter"]["grid_import_W"].to_numpy() - bare["meter"]["grid_import_W"].to_numpy()
    assert extra[-1] == pytest.approx(site.container.electric_W, rel=0.05)
