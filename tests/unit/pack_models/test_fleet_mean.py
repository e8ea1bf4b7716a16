"""The mean rung against all cells: how far the reduced racks are from the whole ones, stated and held."""

import dataclasses

import numpy as np
import pytest

from pack_models.catalogue import pack
from pack_models.fleet import Converter, FleetEngine, MeanFleet
from pack_models.fleet.plant import three_terms

RACK = dataclasses.replace(pack("lfp280_1p240s"), n_modules=2, groups_per_module=52)
TOWER = pack("tower_112s4p")
DAYS, STEPS, DT_S = 3, 1440, 60.0


def duty(n, rated_W, seed=1):
    """Two cycles a day with control noise, and a day's temperature."""
    draw = np.random.default_rng(seed)
    hour = np.arange(DAYS * STEPS) * DT_S / 3600.0 % 24.0
    level = np.select(
        [hour < 2, hour < 7, hour < 9, hour < 13, hour < 15.2, hour < 18, hour < 20],
        [-0.6, 0, 0.6, 0, -0.6, 0, 0.6],
        0.0,
    )
    request_W = rated_W * (
        level[:, None] * draw.uniform(0.9, 1.0, (1, n)) + 0.03 * draw.standard_normal((hour.size, n))
    )
    outside_K = 293.0 + 8.0 * np.sin(2.0 * np.pi * (hour - 9.0) / 24.0)
    return request_W, np.repeat(outside_K[:, None], n, axis=1)


def played(fleet, request_W, outside_K):
    rows = [
        fleet.run(request_W[d * STEPS : (d + 1) * STEPS], outside_K[d * STEPS : (d + 1) * STEPS], DT_S)
        for d in range(DAYS)
    ]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module", params=[RACK, TOWER], ids=["lfp280", "tower"])
def both(request):
    mean, whole = MeanFleet(request.param, 3), FleetEngine(request.param, 3, seed=2)
    request_W, outside_K = duty(3, mean.converter.rated_W)
    return played(mean, request_W, outside_K), played(whole, request_W, outside_K)


def test_energy(both):
    mean, whole = both
    for name in ("charged_J", "discharged_J", "ac_charged_J", "ac_discharged_J"):
        np.testing.assert_allclose(mean[name], whole[name], rtol=0.01, err_msg=name)
    np.testing.assert_allclose(mean["converter_loss_J"], whole["converter_loss_J"], rtol=0.01)


def test_temperatures_and_their_cost(both):
    mean, whole = both
    np.testing.assert_allclose(mean["temperature_K"], whole["temperature_K"], atol=1.3)
    # From the second day: standing coolant at the start is taken for a stream that has warmed.
    np.testing.assert_allclose(mean["temperature_high_K"][1:], whole["temperature_high_K"][1:], atol=1.5)
    spent = {
        k: v["auxiliary_J"].sum() + v["hvac_electric_J"].sum() for k, v in (("mean", mean), ("whole", whole))
    }
    assert spent["mean"] == pytest.approx(spent["whole"], rel=0.15)


def test_ageing(both):
    mean, whole = both
    lost = 1.0 - whole["soh_capacity"][-1]
    np.testing.assert_allclose(1.0 - mean["soh_capacity"][-1], lost, rtol=0.03)
    # A look every quarter of an hour does not see the small cycles of the control noise.
    np.testing.assert_allclose(mean["cycles"][-1], whole["cycles"][-1], rtol=0.07)


def test_limits_hold_and_nothing_is_nan():
    fleet = MeanFleet(RACK, 5, ageing=None)
    limits = fleet.limits
    for sign in (1.0, -1.0):
        request_W = np.full((300, 5), sign * fleet.converter.rated_W)
        rows = fleet.run(request_W, np.full((300, 5), 295.0), DT_S)
        for name, values in rows.items():
            assert np.isfinite(values).all(), name
        assert (rows["voltage_low_V"] > limits.voltage_min_V - 0.02).all()
        assert (rows["voltage_high_V"] < limits.voltage_max_V + 0.02).all()
        assert (rows["soc_low"] > limits.soc_min - 1e-9).all()
        assert (rows["soc_high"] < limits.soc_max + 1e-9).all()
        assert (rows["limited_charge_s"] + rows["limited_voltage_s"] > 0.0).all()


def test_the_number_of_racks_changes_no_bit():
    request_W, outside_K = duty(70, 1e5)
    many, few = MeanFleet(RACK, 70), MeanFleet(RACK, 2)
    many.run(request_W[:STEPS], outside_K[:STEPS], DT_S)
    few.run(np.ascontiguousarray(request_W[:STEPS, 66:68]), outside_K[:STEPS, :2], DT_S)
    np.testing.assert_array_equal(many.cells.soc[66:68], few.cells.soc)
    np.testing.assert_array_equal(many.temperature_K[66:68], few.temperature_K)


def test_map_over_voltage():
    row = three_terms(0.01, 0.0, 0.0)
    volts = np.array([0.0, 500.0, 1000.0])
    flat = Converter(1e5, np.concatenate([row, row, row]), volts)
    rising = Converter(1e5, np.concatenate([row, 2.0 * row, 3.0 * row]), volts)
    losses = []
    for converter in (flat, rising):
        fleet = MeanFleet(RACK, 1, converter=converter, ageing=None)
        rows = fleet.run(np.full((3, 1), 2e4), np.full((3, 1), 295.0), DT_S)
        losses.append(rows["converter_loss_J"][0])
    dc_V = fleet.cells.group_voltage_V[0] * RACK.n_series
    assert losses[0] == pytest.approx(3 * 60.0 * 1e3, rel=1e-6)
    assert losses[1] == pytest.approx(losses[0] * (1.0 + dc_V / 500.0), rel=0.1)


def test_bad_input_is_named():
    fleet = MeanFleet(RACK, 2)
    with pytest.raises(ValueError, match=r"request_W of column 1 at step 0 \(0 s\) is nan"):
        fleet.run(np.array([[0.0, np.nan]] * 15), np.full((15, 2), 290.0), DT_S)
    with pytest.raises(ValueError, match="10 steps are no multiple of the 15 steps"):
        fleet.run(np.zeros((10, 2)), np.full((10, 2), 290.0), DT_S)
