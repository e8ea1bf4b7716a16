"""What every rung of the cell ladder promises: the same for circuits and for PyBaMM's models."""

import numpy as np
import pytest

from pack_models.catalogue import pack
from pack_models.cells.compiled_cell import CompiledBank
from pack_models.cells.ecm import EcmBank
from pack_models.cells.pybamm_cell import PybammBank
from pack_models.layout import Layout

PACK = pack("bus_14s2p")
ROOM_K = 298.15
RUNGS = ("ecm", "spm", "spme", "spme_pybamm", "dfn")
# What parallel voltages agree to (V), and what charge and energy close to, relative to the throughput.
VOLTAGE_V = {"ecm": 1e-9, "spm": 1.1e-7, "spme": 1.1e-5, "spme_pybamm": 1.1e-5, "dfn": 1.1e-5}
CLOSES = 1e-9


@pytest.fixture(params=RUNGS)
def rung(request):
    return request.param


def make(rung, n_series=2, n_parallel=2, soc=0.6, **more):
    layout = Layout.uniform(1, n_series, n_parallel, n_series)
    arguments = {"busbar_resistance_ohm": 2e-4, **more}
    if rung == "ecm":
        return EcmBank(PACK.cell, layout, soc, **arguments)
    if rung in ("spm", "spme"):
        return CompiledBank(PACK.cell, layout, soc, model=rung, **arguments)
    return PybammBank(PACK.cell, layout, soc, model=rung.removesuffix("_pybamm"), **arguments)


def temperature(bank):
    return np.full(bank.layout.n_cells, ROOM_K)


def play(bank, currents, dt_s, balancing=None):
    for amps in currents:
        bank.step(np.array([amps]), temperature(bank), dt_s, balancing)


def test_discharge_is_positive(rung):
    bank = make(rung)
    before_soc, before_V = bank.soc.copy(), bank.pack_voltage_V.copy()
    play(bank, [4.0], 30.0)
    assert (bank.soc < before_soc).all()
    assert (bank.pack_voltage_V < before_V).all()
    assert (bank.cell_current_A > 0.0).all()
    assert (bank.heat_W > 0.0).all()
    assert (bank.pack_power_W > 0.0).all()
    discharged = bank.soc.copy()
    play(bank, [-4.0], 30.0)
    assert (bank.soc > discharged).all()


def test_charge_is_conserved(rung):
    bank = make(rung, soc=[0.55, 0.6, 0.65, 0.6], capacity_factor=[0.9, 1.0, 1.1, 1.0])
    bank.set_internal_short(1, 5.0)
    before_C = (bank.soc * bank.capacity_Ah * 3600.0).reshape(2, 2).sum(axis=1)
    play(bank, [6.0, 0.0, -5.0], 20.0, np.array([False, True]))
    after_C = (bank.soc * bank.capacity_Ah * 3600.0).reshape(2, 2).sum(axis=1)
    balances = bank.balances()
    assert balances["charge_terminal_C"][0] == pytest.approx(20.0)
    given_C = before_C - after_C
    assert given_C.mean() == pytest.approx(balances["charge_stored_C"][0], rel=1e-9)
    expected = sum(balances[f"charge_{name}_C"] for name in ("terminal", "short", "balancing"))
    np.testing.assert_allclose(given_C.mean(), expected, rtol=1e-9)
    assert abs(balances["charge_residual_C"][0]) < CLOSES * balances["charge_throughput_C"][0]


def test_energy_is_conserved(rung):
    bank = make(rung, soc=[0.55, 0.6, 0.65, 0.6], resistance_factor=[1.0, 1.3, 0.9, 1.0])
    bank.set_internal_short(2, 3.0)
    play(bank, [8.0, -3.0, 0.0], 25.0, np.array([True, False]))
    balances = bank.balances()
    for name in ("cell_heat", "short", "balancing", "busbar"):
        assert balances[f"energy_{name}_J"][0] > 0.0
    spent = sum(
        balances[f"energy_{name}_J"] for name in ("terminal", "cell_heat", "short", "balancing", "busbar")
    )
    np.testing.assert_allclose(balances["energy_chemical_J"], spent, rtol=1e-8)
    assert abs(balances["energy_residual_J"][0]) < CLOSES * balances["energy_throughput_J"][0]


def test_parallel_voltages_are_equal(rung):
    """One group of three unlike cells carries the current of three single cells at the same voltage."""
    factors = {"capacity_factor": [0.8, 1.0, 1.1], "resistance_factor": [1.4, 1.0, 0.8]}
    bank = make(rung, 1, 3, [0.58, 0.6, 0.63], **factors)
    play(bank, [9.0], 30.0)
    assert bank.cell_current_A.sum() == pytest.approx(9.0, abs=1e-9)
    assert np.ptp(bank.cell_current_A) > 0.1
    for k in range(3):
        alone = make(
            rung, 1, 1, [0.58, 0.6, 0.63][k], **{name: values[k] for name, values in factors.items()}
        )
        # Parameters are taken at the charge the mean current leads to, so the split itself is replayed.
        play(alone, [bank.cell_current_A[k]], 30.0)
        tolerance = VOLTAGE_V[rung] + (1e-4 if rung == "ecm" else 1e-6)
        assert alone.group_voltage_V[0] == pytest.approx(bank.group_voltage_V[0], abs=tolerance)


def test_a_short_draws_its_ohms_law(rung):
    bank, healthy = make(rung), make(rung)
    bank.set_internal_short(0, 4.0)
    play(bank, [0.0], 10.0)
    play(healthy, [0.0], 10.0)
    drawn_A = bank.group_voltage_V[0] / 4.0
    assert bank.cell_current_A[:2].sum() == pytest.approx(drawn_A, rel=1e-4)
    assert bank.cell_current_A[2:] == pytest.approx(0.0, abs=1e-6)
    assert bank.heat_W[0] == pytest.approx(drawn_A**2 * 4.0, rel=0.05)
    assert bank.heat_W[1] < 0.2
    assert bank.group_voltage_V[0] < healthy.group_voltage_V[0] - 0.005
    bank.set_internal_short(0, np.inf)
    play(bank, [0.0], 10.0)
    assert abs(bank.cell_current_A[:2].sum()) < 1e-9


def test_capacity_and_resistance_factors(rung):
    plain, small, stiff = (make(rung, 1, 1) for _ in range(3))
    small.scale_cell(0, capacity_factor=0.5)
    stiff.scale_cell(0, resistance_factor=2.0)
    for bank in (plain, small, stiff):
        play(bank, [3.0], 60.0)
    assert 0.6 - small.soc[0] == pytest.approx(2.0 * (0.6 - plain.soc[0]), rel=1e-6)
    assert stiff.soc[0] == pytest.approx(plain.soc[0], abs=1e-9)
    # The circuit scales all three resistances, of which the slow one is not yet charged after a minute;
    # the others put the steady resistance of the circuit in series.
    middle = (PACK.cell.reference_temperature_K, 0.5)
    row = int(np.argmin(np.abs(PACK.cell.table_temperature_K - middle[0])))
    steady_ohm = sum(
        np.interp(middle[1], PACK.cell.table_soc, table[row])
        for table in (PACK.cell.resistance0_ohm, PACK.cell.resistance1_ohm, PACK.cell.resistance2_ohm)
    )
    extra_ohm = (plain.group_voltage_V[0] - stiff.group_voltage_V[0]) / 3.0
    assert 0.6 * steady_ohm < extra_ohm < 1.01 * steady_ohm
    for bank in (small, stiff):
        balances = bank.balances()
        assert abs(balances["energy_residual_J"][0]) < CLOSES * balances["energy_throughput_J"][0]


def test_rest_makes_no_heat(rung):
    bank = make(rung, 2, 1)
    play(bank, [5.0, 0.0], 20.0)
    assert (bank.heat_W == 0.0).all()
    paired = make(rung)
    play(paired, [0.0], 20.0)
    np.testing.assert_allclose(paired.heat_W, 0.0, atol=1e-9)


def test_resume_is_bit_exact(rung):
    one = make(rung, soc=[0.5, 0.52, 0.6, 0.6])
    one.set_internal_short(3, 20.0)
    play(one, [5.0, -2.0], 15.0)
    two = make(rung, soc=0.2)
    two.set_state(one.get_state())
    for bank in (one, two):
        play(bank, [3.0, 7.0], 15.0, np.array([True, False]))
    first, second = one.get_state(), two.get_state()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_halving_the_step_changes_little(rung):
    coarse, fine = make(rung, soc=[0.55, 0.6, 0.6, 0.6]), make(rung, soc=[0.55, 0.6, 0.6, 0.6])
    play(coarse, [5.0] * 4, 30.0)
    play(fine, [5.0] * 8, 15.0)
    np.testing.assert_allclose(coarse.soc, fine.soc, atol=3e-4)
    # Over a whole group the split does not matter: charge is exact.
    np.testing.assert_allclose(
        coarse.soc.reshape(2, 2).mean(axis=1), fine.soc.reshape(2, 2).mean(axis=1), atol=1e-8
    )
    np.testing.assert_allclose(coarse.pack_voltage_V, fine.pack_voltage_V, atol=2e-3)


def test_thevenin_forecasts_the_step(rung):
    bank = make(rung)
    play(bank, [4.0, 4.0], 10.0)
    emf_V, resistance_ohm = (np.array(x) for x in bank.thevenin(temperature(bank), 10.0))
    assert (resistance_ohm > 0.0).all()
    for amps in (4.0, 5.0):
        state = bank.get_state()
        play(bank, [amps], 10.0)
        forecast_V = emf_V - resistance_ohm * amps
        assert bank.pack_voltage_V[0] == pytest.approx(forecast_V[0], abs=5e-3 * bank.layout.n_groups)
        bank.set_state(state)


def test_a_bad_current_is_named(rung):
    bank = make(rung)
    before = bank.get_state()
    with pytest.raises(ValueError, match="current of pack 0 is"):
        bank.step(np.array([np.nan]), temperature(bank), 1.0)
    with pytest.raises(ValueError, match="temperature of cell 2"):
        bank.step(np.array([1.0]), np.array([ROOM_K, ROOM_K, -5.0, ROOM_K]), 1.0)
    for name, value in bank.get_state().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


@pytest.mark.parametrize("rung", ["spm", "spme", "spme_pybamm"])
def test_an_empty_particle_has_a_name(rung):
    bank = make(rung, 2, 1, soc=[0.6, 0.02])
    before = bank.get_state()
    what = (
        "PyBaMM" if rung == "spme_pybamm" else r"surface stoichiometry would be -.* at 1500 s, outside 0 to 1"
    )
    with pytest.raises(RuntimeError, match=r"cell 1 \(pack 0 group 1 cell 0\) at soc 0\.02.*" + what):
        play(bank, [6.0], 1500.0)
    for name, value in bank.get_state().items():  # still at the start of the step
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_an_open_fuse_leaves_the_current_to_the_others(rung):
    bank = make(rung)
    bank.set_open_fuse(1, True)
    play(bank, [3.0], 10.0)
    np.testing.assert_allclose(bank.cell_current_A[:2], [3.0, 0.0], atol=1e-6)
    assert bank.cell_current_A[2:].sum() == pytest.approx(3.0)
    assert bank.soc[1] == pytest.approx(0.6, abs=1e-9)
    assert abs(bank.balances()["charge_residual_C"][0]) < 1e-8
    bank.set_open_fuse(1, False)
    play(bank, [3.0], 10.0)
    assert bank.cell_current_A[1] > 1.5  # it is the fuller one now


def test_health_acts_on_top_of_the_spread(rung):
    bank = make(rung, 1, 1, capacity_factor=1.1, resistance_factor=1.2)
    fresh_Ah = bank.capacity_Ah.copy()
    for _ in range(2):  # not cumulative: health is counted from new
        bank.set_health(0.8, 1.5)
    np.testing.assert_allclose(bank.capacity_Ah, 0.8 * fresh_Ah)
    np.testing.assert_allclose(bank.resistance_factor, 1.8)
    play(bank, [2.0, 2.0], 20.0)
    balances = bank.balances()
    assert 0.6 - bank.soc[0] == pytest.approx(80.0 / (3600.0 * 0.8 * fresh_Ah[0]), rel=1e-6)
    assert abs(balances["energy_residual_J"][0]) < CLOSES * balances["energy_throughput_J"][0]
