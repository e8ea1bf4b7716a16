"""The circuit bank beyond the port's promises: tables, solver, hysteresis, windows, errors."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pack_models.catalogue import cell
from pack_models.cells.ecm import EcmBank
from pack_models.cells.tables import StepTableMaker
from pack_models.layout import Layout

M50 = cell("lgm50_chen2020")
ROOM_K = 298.15


def bank(n_series=1, n_parallel=1, design=M50, n_packs=1, **more):
    return EcmBank(
        design, Layout.uniform(n_packs, n_series, n_parallel, n_series), more.pop("soc", 0.6), **more
    )


def room(a_bank):
    return np.full(a_bank.layout.n_cells, ROOM_K)


def test_open_circuit_is_the_catalogue_curve_inside_and_a_steep_line_outside():
    cells = bank(n_series=5, soc=[0.0, 0.1, 0.555, 0.9, 1.0])
    expected = np.interp(cells.soc, M50.ocv_soc, M50.ocv_V)
    np.testing.assert_allclose(cells.open_circuit_V(room(cells)), expected, atol=2e-4)
    empty = bank(soc=0.001)
    empty.step(np.array([5.0]), room(empty), 60.0)
    assert empty.soc[0] < -0.01
    lost_V = M50.ocv_V[0] - empty.open_circuit_V(room(empty))[0]
    assert lost_V == pytest.approx(-25.0 * empty.soc[0], rel=1e-6)


def test_step_tables_at_the_knots_of_the_catalogue():
    made = StepTableMaker(M50)(10.0)
    # 298.15 K and half charge are knots of both grids.
    at_T, at_soc = 11, 25
    row = int(np.flatnonzero(M50.table_temperature_K == ROOM_K)[0])
    column = int(np.flatnonzero(M50.table_soc == 0.5)[0])
    r0, r1, r2 = (
        table[row, column] for table in (M50.resistance0_ohm, M50.resistance1_ohm, M50.resistance2_ohm)
    )
    ohm = made.ohm[0, at_soc, at_T]
    np.testing.assert_allclose(ohm[:3], [r0 + r1 + r2, r1, r2], rtol=1e-9)
    tau = M50.time_constant1_s[row]
    np.testing.assert_allclose(made.decay[at_T, 0], np.exp(-10.0 / tau), rtol=1e-9)
    np.testing.assert_allclose(made.decay[at_T, 2], (1 - np.exp(-10.0 / tau)) * tau / 10.0, rtol=1e-9)


def test_one_branch_relaxes_as_its_closed_form():
    """Rest after a long load: V = U - R1 I exp(-t/tau1) - R2 I exp(-t/tau2) at a knot of the tables."""
    flat = dataclasses.replace(M50, entropic_V_per_K=np.zeros_like(M50.ocv_V), capacity_Ah=1e9)
    cells = bank(design=flat, soc=0.5)
    cells.step(np.array([4.0]), room(cells), 1e5)
    row, column = (
        int(np.flatnonzero(M50.table_temperature_K == ROOM_K)[0]),
        int(np.flatnonzero(M50.table_soc == 0.5)[0]),
    )
    r1, r2 = M50.resistance1_ohm[row, column], M50.resistance2_ohm[row, column]
    tau1, tau2 = M50.time_constant1_s[row], M50.time_constant2_s[row]
    rest_V = cells.open_circuit_V(room(cells))[0]
    for k in range(1, 40):
        cells.step(np.zeros(1), room(cells), 7.0)
        expected = rest_V - 4.0 * (r1 * np.exp(-7.0 * k / tau1) + r2 * np.exp(-7.0 * k / tau2))
        assert cells.pack_voltage_V[0] == pytest.approx(expected, abs=2e-7)


def test_hysteresis_walks_to_its_branch():
    gap = np.full_like(M50.ocv_V, 0.02)
    design = dataclasses.replace(M50, hysteresis_V=gap, hysteresis_rate=40.0, entropic_V_per_K=0 * gap)
    cells, plain = bank(design=design), bank(design=dataclasses.replace(design, hysteresis_V=0 * gap))
    for _ in range(30):
        for each in (cells, plain):
            each.step(np.array([2.0]), room(each), 60.0)
    moved = 30 * 2.0 * 60.0 / 3600.0 / M50.capacity_Ah
    expected = -0.02 * (1.0 - np.exp(-40.0 * moved))
    assert cells.pack_voltage_V[0] - plain.pack_voltage_V[0] == pytest.approx(expected, abs=1e-9)
    balances = cells.balances()
    assert abs(balances["energy_residual_J"][0]) < 1e-9 * balances["energy_throughput_J"][0]
    cells.step(np.zeros(1), room(cells), 3600.0)
    assert cells.heat_W[0] == 0.0


def test_entropic_heat_is_reversible_and_cools_where_the_coefficient_is_positive():
    cells = bank(soc=0.8)
    assert np.interp(0.8, M50.ocv_soc, M50.entropic_V_per_K) > 0.0
    cells.step(np.array([0.05]), room(cells), 10.0)
    discharge_J = cells.balances()["energy_entropic_J"][0]
    assert discharge_J < 0.0
    assert cells.heat_W[0] < 0.0
    cells.step(np.array([-0.05]), room(cells), 10.0)
    assert cells.balances()["energy_entropic_J"][0] == pytest.approx(0.0, abs=1e-9 * abs(discharge_J) + 1e-12)


@given(
    soc=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6),
    c_rate=st.floats(-3.0, 3.0),
    dt_s=st.sampled_from([0.01, 1.0, 60.0, 900.0]),
    short_ohm=st.sampled_from([np.inf, 40.0, 0.5, 0.01]),
    kelvin=st.floats(250.0, 340.0),
)
def test_any_group_settles(soc, c_rate, dt_s, short_ohm, kelvin):
    """Whatever the imbalance, step and short: Kirchhoff and both ledgers hold, nothing is NaN."""
    n = len(soc)
    cells = bank(n_parallel=n, soc=soc)
    cells.set_internal_short(0, short_ohm)
    T = np.full(n, kelvin)
    current = np.array([c_rate * 5.0 * n])
    for _ in range(3):
        before = cells.soc.copy()
        cells.step(current, T, dt_s)
        leak_A = cells.group_voltage_V[0] / short_ohm
        assert cells.cell_current_A.sum() == pytest.approx(current[0] + leak_A, rel=1e-9, abs=1e-9)
        assert np.isfinite(cells.heat_W).all()
        drift = cells.cell_current_A * dt_s / (3600.0 * cells.capacity_Ah)
        np.testing.assert_allclose(cells.soc, before - drift, atol=1e-12)
    balances = cells.balances()
    assert abs(balances["energy_residual_J"][0]) <= 1e-9 * balances["energy_throughput_J"][0] + 1e-9
    assert abs(balances["charge_residual_C"][0]) <= 1e-9 * balances["charge_throughput_C"][0] + 1e-9


@pytest.mark.parametrize("dt_s", [0.1, 10.0, 900.0])
@pytest.mark.parametrize("kept", ["as it is", "hysteresis", "short and open fuse"])
def test_bisection_and_newton_find_the_same_currents(dt_s, kept):
    gap = np.full_like(M50.ocv_V, 0.02 if kept == "hysteresis" else 0.0)
    cells = bank(
        n_parallel=3,
        soc=[0.05, 0.5, 0.97],
        design=dataclasses.replace(M50, hysteresis_V=gap, hysteresis_rate=30.0),
    )
    if kept == "short and open fuse":
        cells.set_internal_short(0, 2.0)
        cells.set_open_fuse(2, True)
    T, found = room(cells), np.empty((2, 3))
    for safely in (0, 1):
        cells._library.ecm_share(
            cells._step_at(dt_s), cells._cells_at, 3, 0.02, 4.0, T.ctypes.data, safely,
            cells._work.ctypes.data, found[safely].ctypes.data,
        )  # fmt: skip
    np.testing.assert_allclose(found[0], found[1], rtol=1e-7, atol=1e-7)


def test_thevenin_is_the_tangent():
    cells = bank(n_series=6, n_parallel=2, n_packs=2, soc=0.63, busbar_resistance_ohm=2e-4)
    cells.set_internal_short(3, 10.0)
    T = room(cells)
    cells.step(np.array([5.0, -4.0]), T, 1.0)
    emf_V, resistance_ohm = (x.copy() for x in cells.thevenin(T, 1.0))
    ahead = np.array([5.2, -4.3])
    cells.step(ahead, T, 1.0)
    np.testing.assert_allclose(cells.pack_voltage_V, emf_V - resistance_ohm * ahead, atol=1e-4)


def test_thevenin_leaves_no_trace():
    one, two = bank(n_parallel=2, soc=[0.4, 0.5]), bank(n_parallel=2, soc=[0.4, 0.5])
    for k in range(5):
        one.thevenin(room(one), 30.0)
        one.thevenin(room(one), 30.0, np.array([3.0]))
        for each in (one, two):
            each.step(np.array([float(k)]), room(each), 30.0)
    np.testing.assert_array_equal(one.soc, two.soc)
    np.testing.assert_array_equal(one.heat_W, two.heat_W)


def test_balancing_bleeds_its_group_only():
    cells = bank(n_series=3, balancing_resistance_ohm=20.0)
    before = cells.soc.copy()
    cells.step(np.zeros(1), room(cells), 100.0, np.array([False, True, False]))
    drawn_A = cells.group_voltage_V[1] / 20.0
    assert (cells.soc[[0, 2]] == before[[0, 2]]).all()
    assert (before - cells.soc)[1] * cells.capacity_Ah[1] * 36.0 == pytest.approx(drawn_A, rel=1e-9)
    balances = cells.balances()
    assert balances["energy_balancing_J"][0] == pytest.approx(drawn_A**2 * 20.0 * 100.0, rel=1e-3)


def test_busbars_lower_the_pack_not_the_groups():
    cells = bank(n_series=4, busbar_resistance_ohm=1e-3)
    cells.step(np.array([5.0]), room(cells), 1.0)
    assert cells.pack_voltage_V[0] == pytest.approx(cells.group_voltage_V.sum() - 4 * 5e-3, abs=1e-12)
    assert cells.balances()["energy_busbar_J"][0] == pytest.approx(25.0 * 4e-3, rel=1e-12)


def test_cells_outside_their_window_are_counted_and_named():
    cells = bank(n_series=2, soc=[0.5, 0.004])
    T = np.array([ROOM_K, 400.0])
    cells.step(np.array([5.0]), T, 60.0)
    assert cells.outside_steps[0].tolist() == [1, 0, 0, 1]
    said = [str(entry) for entry in cells.window_report(T)]
    assert len(said) == 3
    assert said[0].startswith("cell 1 (pack 0 group 1 cell 0): state of charge -0.012")
    assert "lgm50_chen2020 (2.5 to 4.2)" in said[1]
    assert "temperature in K 400" in said[2]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda b, T: b.step(np.array([1.0, np.nan]), T, 1.0), "current of pack 1 is .*nan"),
        (lambda b, T: b.step(np.zeros(3), T, 1.0), r"shape \(3,\); expected \(2,\)"),
        (
            lambda b, T: b.step(np.zeros(2), np.where(np.arange(8) == 5, np.nan, T), 1.0),
            "temperature of cell 5 .pack 1",
        ),
        (lambda b, T: b.step(np.zeros(2), T, 0.0), "dt_s is 0.0"),
        (lambda b, T: b.step(np.zeros(2), T, 1.0, np.zeros(3, dtype=bool)), "balancing has shape"),
        (lambda b, T: b.thevenin(T, np.nan), "dt_s is nan"),
        (lambda b, T: b.set_internal_short(8, 1.0), "no cell 8; this bank has cells 0 to 7"),
        (lambda b, T: b.set_internal_short(0, 0.0), "expected more than 0"),
        (lambda b, T: b.scale_cell(0, capacity_factor=-1.0), "capacity_factor for cell 0 is -1.0"),
        (lambda b, T: b.set_state({"soc": b.soc}), "not a state of EcmBank: missing"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(spoil, said):
    cells = bank(n_series=2, n_parallel=2, n_packs=2)
    before = cells.get_state()
    with pytest.raises(ValueError, match=said):
        spoil(cells, room(cells))
    for name, value in cells.get_state().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"soc": 1.2}, "soc of cell 0 is 1.2"),
        ({"soc": [0.5, np.nan]}, "soc of cell 1 is nan"),
        ({"soc": 0.5, "capacity_factor": 0.0}, "capacity_factor of cell 0 is 0; expected more than 0"),
        ({"soc": [0.1, 0.2, 0.3]}, "one number or one for each of 2 cells"),
        ({"soc": 0.5, "balancing_resistance_ohm": -3.0}, "balancing_resistance_ohm of group 0"),
    ],
)
def test_a_bank_is_not_built_from_nonsense(given, said):
    with pytest.raises(ValueError, match=said):
        EcmBank(M50, Layout.uniform(1, 2, 1, 2), **given)
