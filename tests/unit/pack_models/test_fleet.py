"""The planning engine: the same cells as the banks, limits kept, books closed, resumable, errors named."""

import dataclasses

import numpy as np
import pytest

from pack_models.catalogue import pack
from pack_models.fleet import Container, Converter, FleetEngine, Limits
from pack_models.fleet.plant import three_terms

RACK = dataclasses.replace(pack("lfp280_1p240s"), n_modules=3, groups_per_module=20)
TOWER = dataclasses.replace(pack("tower_112s4p"), n_modules=2, groups_per_module=7)


def engine(design=RACK, n_packs=4, **more):
    return FleetEngine(design, n_packs, **{"packs_per_container": 2, "seed": 3, **more})


def duty(fleet, n_steps, share=0.7, seed=0):
    draw = np.random.default_rng(seed)
    wave = np.where(np.arange(n_steps) // 40 % 2 == 0, share, -share)[:, None]
    wave = wave * draw.uniform(0.7, 1.0, (n_steps, fleet.n_converters))
    return wave * fleet.converter.rated_W, np.full((n_steps, fleet.n_containers), 290.0)


@pytest.mark.parametrize(
    ("design", "more"),
    [(RACK, {}), (RACK, {"packs_per_converter": 2}), (TOWER, {"packs_per_converter": 2})],
)
def test_the_cells_are_those_of_the_banks(design, more):
    """Fed with the currents and ambients the engine came to, bank and network go the same way."""
    fleet, plain = engine(design, ageing=None, **more), engine(design, ageing=None, **more)
    request_W, outside_K = duty(fleet, 100)
    for k in range(100):
        air_K = np.repeat(fleet.air_K, 2)
        warmest = plain.thermal.temperature_K.reshape(4, -1).max(axis=1)
        limits = fleet.limits
        cooling = np.clip(
            (warmest - limits.cooling_on_K) / (limits.cooling_full_K - limits.cooling_on_K), 0, 1
        )
        fleet.run(request_W[k : k + 1], outside_K[k : k + 1], 60.0)
        plain.cells.step(fleet.cells.pack_current_A, plain.thermal.temperature_K, 60.0)
        plain.thermal.step(plain.cells.heat_W, air_K, cooling, 60.0)
    np.testing.assert_allclose(fleet.cells.soc, plain.cells.soc, atol=2e-6)
    np.testing.assert_allclose(fleet.cells.group_voltage_V, plain.cells.group_voltage_V, atol=2e-4)
    np.testing.assert_allclose(fleet.thermal.temperature_K, plain.thermal.temperature_K, atol=2e-3)
    assert np.ptp(fleet.cells.soc) > 0.01


def test_what_is_asked_is_served():
    fleet = engine(ageing=None)
    request_W, outside_K = duty(fleet, 60)
    rows = fleet.run(request_W, outside_K, 60.0)
    asked = np.maximum(request_W, 0.0).sum(axis=0) * 60.0
    # The converter follows its forecast of the bus; the mean over a minute differs by the sag within it.
    np.testing.assert_allclose(rows["ac_discharged_J"], asked, rtol=3e-3)
    assert (rows["unserved_J"] == 0.0).all()
    flows = rows["discharged_J"] - rows["charged_J"]
    np.testing.assert_allclose(
        flows, rows["ac_discharged_J"] - rows["ac_charged_J"] + rows["converter_loss_J"], rtol=1e-9
    )
    np.testing.assert_allclose(flows, fleet.balances()["energy_terminal_J"], rtol=1e-9)


@pytest.mark.parametrize("design", [RACK, TOWER])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dt_s", [60.0, 900.0])
def test_limits_are_met_not_passed(design, sign, dt_s):
    """Full power for hours: every group stays within its limits (to the bend of the curve), cause counted."""
    fleet = engine(design, ageing=None, soc=0.5)
    n_steps = round(4 * 3600 / dt_s)
    request_W = np.full((n_steps, fleet.n_converters), sign * fleet.converter.rated_W)
    rows = fleet.run(request_W, np.full((n_steps, fleet.n_containers), 295.0), dt_s)
    limits = fleet.limits
    assert (rows["voltage_low_V"] > limits.voltage_min_V - 0.02).all()
    assert (rows["voltage_high_V"] < limits.voltage_max_V + 0.02).all()
    assert (rows["soc_low"] > -0.02).all()
    assert (rows["soc_high"] < 1.02).all()
    # To the permitted charge (parallel cells share not quite evenly), or the weakest meets its voltage.
    at_end = np.abs(rows["soc"] - (limits.soc_min if sign > 0 else limits.soc_max)) < 1e-4
    assert (at_end | (rows["limited_voltage_s"] > 0.0)).all()
    assert (rows["limited_charge_s"] + rows["limited_voltage_s"] > 3600.0).all()
    assert (rows["unserved_J"] > 0.0).all()
    for name, values in rows.items():
        assert np.isfinite(values).all(), name


def test_cold_cells_are_not_charged():
    fleet = engine(ageing=None, temperature_K=268.0, container=Container(heating_W=1e-6))
    request_W = np.full((5, fleet.n_converters), -0.5 * fleet.converter.rated_W)
    rows = fleet.run(request_W, np.full((5, fleet.n_containers), 268.0), 60.0)
    assert (rows["charged_J"] == 0.0).all()
    assert (rows["limited_temperature_s"] == 300.0).all()


def test_books_close():
    fleet = engine()
    air_K = fleet.air_K.copy()
    request_W, outside_K = duty(fleet, 300, share=0.9)
    rows = fleet.run(request_W, outside_K + 20.0, 60.0)
    books = fleet.balances()
    assert (np.abs(books["energy_residual_J"]) < 1e-11 * books["energy_throughput_J"]).all()
    assert (np.abs(books["charge_residual_C"]) < 1e-11 * books["charge_throughput_C"]).all()
    assert (np.abs(books["thermal_energy_residual_J"]) < 1e-11 * books["energy_throughput_J"]).all()
    box = {name: rows[name][::2] for name in rows}
    stored = fleet.container.air_J_per_K * (fleet.air_K - air_K)
    flowed = (
        box["container_heat_in_J"] + box["hvac_heated_J"] - box["hvac_cooled_J"] - box["container_wall_J"]
    )
    np.testing.assert_allclose(stored, flowed, atol=1e-6 * np.abs(box["container_heat_in_J"]).max())
    assert (box["hvac_electric_J"] > 0.0).all()


def test_resume_and_company_change_no_bit():
    request_W, outside_K = duty(engine(), 120)
    whole, parts = engine(), engine()
    whole.run(request_W[:60], outside_K[:60], 60.0)
    whole.run(request_W[60:], outside_K[60:], 60.0)
    parts.run(request_W[:60], outside_K[:60], 60.0)
    fresh = engine()
    fresh.set_state(parts.get_state())
    fresh.run(request_W[60:], outside_K[60:], 60.0)
    for name, value in whole.cells.get_state().items():
        np.testing.assert_array_equal(value, fresh.cells.get_state()[name], err_msg=name)
    np.testing.assert_array_equal(whole.thermal.temperature_K, fresh.thermal.temperature_K)
    assert (whole.ageing.capacity_factor < 1.0).all()


def test_ageing_reaches_the_cells():
    fleet = engine(soc=0.9)
    new_Ah = fleet.cells.capacity_Ah.copy()
    rows = {}
    for _ in range(5):
        rows = fleet.run(np.zeros((96, fleet.n_converters)), np.full((96, fleet.n_containers), 303.0), 900.0)
    left = fleet.cells.capacity_Ah / new_Ah
    assert (left < 1.0).all()
    np.testing.assert_allclose(left.reshape(4, -1).mean(axis=1), rows["soh_capacity"], rtol=2e-4)
    assert np.ptp(left[:20]) > 0.0  # each cell at its own pace
    books = fleet.balances()
    assert (np.abs(books["charge_residual_C"]) < 1e-9 * 3600 * 280).all()


def test_memory_of_a_cell():
    assert FleetEngine(pack("lfp280_1p240s"), 2).bytes_per_cell() <= 200.0


def test_efficiency_map_over_power_and_voltage():
    """A loss that grows with the voltage: twice the loss of the low row at the high one."""
    low = three_terms(0.01, 0.0, 0.0)
    volts = np.array([0.0, 2000.0])
    both = Converter(1e5, np.concatenate([low, 3.0 * low]), volts)
    fleet, plain = (
        engine(ageing=None, converter=converter) for converter in (both, Converter(1e5, low, np.zeros(1)))
    )
    request_W, outside_K = np.full((3, fleet.n_converters), 2e4), np.full((3, fleet.n_containers), 295.0)
    rows, reference = fleet.run(request_W, outside_K, 60.0), plain.run(request_W, outside_K, 60.0)
    share = fleet.cells.pack_voltage_V / 2000.0
    np.testing.assert_allclose(
        rows["converter_loss_J"], reference["converter_loss_J"] * (1.0 + 2.0 * share), rtol=2e-3
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f, p, t: f.run(np.where(np.arange(p.size).reshape(p.shape) == 6, np.nan, p), t, 60.0),
         "request_W of column 2 at step 1 .60 s. is nan"),
        (lambda f, p, t: f.run(p[:, :1], t, 60.0), "request_W has shape"),
        (lambda f, p, t: f.run(p, t - 270.0, 60.0), "outside_K of column 0 at step 0"),
        (lambda f, p, t: f.run(p, t, -1.0), "dt_s is -1.0"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_changes_nothing(spoil, said):
    fleet = engine(ageing=None)
    request_W, outside_K = duty(fleet, 3)
    before = fleet.cells.get_state()
    with pytest.raises(ValueError, match=said):
        spoil(fleet, request_W, outside_K)
    for name, value in fleet.cells.get_state().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: engine(packs_per_container=3), "packs_per_container is 3; expected a divisor of 4"),
        (lambda: engine(packs_per_converter=2, packs_per_container=1), "expected a multiple of 2"),
        (lambda: Converter(-1.0), "rated_W is -1.0"),
        (lambda: Converter(1.0, np.array([[0.1, np.nan]])), "finite fractions"),
        (lambda: Limits(1.0, 1.0, 3.0, 2.0), "voltage_min_V is 3.0; expected less than voltage_max_V"),
        (lambda: Container(band_K=0.0), "band_K of the container is 0.0"),
    ],
)
def test_nonsense_is_not_built(build, said):
    with pytest.raises(ValueError, match=said):
        build()
