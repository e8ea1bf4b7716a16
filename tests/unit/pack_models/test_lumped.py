"""The lumped network against closed forms and a dense solution; balances; errors."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pack_models.catalogue import pack
from pack_models.catalogue.design import ThermalDesign
from pack_models.layout import Layout
from pack_models.thermal.lumped import LumpedThermal

BARE = ThermalDesign(
    series_neighbour_W_per_K=0.0,
    parallel_neighbour_W_per_K=0.0,
    coolant_W_per_K=0.0,
    coolant_idle_W_per_K=0.0,
    ambient_W_per_K=0.0,
    module_end_W_per_K=0.0,
    coolant_heat_capacity_J_per_K=1.0,
    coolant_flow_W_per_K=0.0,
    coolant_flow_idle_W_per_K=0.0,
    supply_temperature_K=None,
    fan_power_W=0.0,
    cooling_cop=3.0,
    heating_cop=1.0,
)
FULL = dataclasses.replace(
    BARE,
    series_neighbour_W_per_K=0.11,
    parallel_neighbour_W_per_K=0.07,
    coolant_W_per_K=0.3,
    coolant_idle_W_per_K=0.05,
    ambient_W_per_K=0.02,
    module_end_W_per_K=0.04,
    coolant_heat_capacity_J_per_K=50.0,
    coolant_flow_W_per_K=4.0,
    coolant_flow_idle_W_per_K=0.1,
    supply_temperature_K=290.0,
    fan_power_W=8.0,
)
C = 60.0


def run(thermal, heat_W, ambient_K, cooling, dt_s, steps):
    for _ in range(steps):
        thermal.step(heat_W, np.array([ambient_K]), np.array([cooling]), dt_s)
    return thermal.temperature_K


def test_one_cell_cools_exponentially():
    design = dataclasses.replace(BARE, ambient_W_per_K=0.1)
    exact = 293.15 + 30.0 * np.exp(-0.1 * 900.0 / C)
    error = []
    for dt_s in (1.0, 0.5):
        thermal = LumpedThermal(design, C, Layout.uniform(1, 1, 1, 1), 323.15)
        error.append(run(thermal, np.zeros(1), 293.15, 0.0, dt_s, round(900 / dt_s))[0] - exact)
    assert abs(error[0]) < 0.01
    assert error[0] / error[1] == pytest.approx(2.0, rel=0.02)  # first order, as said


def test_two_cells_exchange_and_keep_their_mean():
    design = dataclasses.replace(BARE, parallel_neighbour_W_per_K=0.2)
    thermal = LumpedThermal(design, C, Layout.uniform(1, 1, 2, 1), [300.0, 310.0])
    T = run(thermal, np.zeros(2), 280.0, 0.0, 0.5, 400)
    assert T.sum() == pytest.approx(610.0, abs=1e-9)
    assert T[1] - T[0] == pytest.approx(10.0 * np.exp(-2 * 0.2 * 200.0 / C), rel=3e-3)


def test_steady_state_through_the_coolant():
    """Heat leaves through film and stream in series: T = supply + n q / flow + q / film."""
    design = dataclasses.replace(
        BARE, coolant_W_per_K=0.4, coolant_flow_W_per_K=6.0, supply_temperature_K=288.15, fan_power_W=10.0
    )
    thermal = LumpedThermal(design, C, Layout.uniform(1, 5, 2, 5), 300.0)
    T = run(thermal, np.full(10, 0.9), 300.0, 1.0, 1e5, 60)
    np.testing.assert_allclose(T, 288.15 + 10 * 0.9 / 6.0 + 0.9 / 0.4, atol=1e-9)
    assert thermal.auxiliary_W[0] == pytest.approx(10.0 + 9.0 / 3.0, rel=1e-9)


def dense_step(T, Tc, heat_W, ambient_K, cooling, dt_s, n_groups, n_parallel):
    """The same implicit step of one module as one dense linear system."""
    n = n_groups * n_parallel
    h = FULL.coolant_idle_W_per_K + cooling * (FULL.coolant_W_per_K - FULL.coolant_idle_W_per_K)
    flow = FULL.coolant_flow_idle_W_per_K + cooling * (
        FULL.coolant_flow_W_per_K - FULL.coolant_flow_idle_W_per_K
    )
    A, b = np.zeros((n + 1, n + 1)), np.zeros(n + 1)

    def link(i, j, conductance):
        A[i, i] += conductance
        A[j, j] += conductance
        A[i, j] -= conductance
        A[j, i] -= conductance

    for g in range(n_groups):
        for j in range(n_parallel):
            i = g * n_parallel + j
            loss = FULL.ambient_W_per_K + FULL.module_end_W_per_K * ((g == 0) + (g == n_groups - 1))
            A[i, i] += C / dt_s + loss
            b[i] = C / dt_s * T[i] + heat_W[i] + loss * ambient_K
            link(i, n, h)
            if g + 1 < n_groups:
                link(i, i + n_parallel, FULL.series_neighbour_W_per_K)
            if j + 1 < n_parallel:
                link(i, i + 1, FULL.parallel_neighbour_W_per_K)
    A[n, n] += FULL.coolant_heat_capacity_J_per_K / dt_s + flow
    b[n] = FULL.coolant_heat_capacity_J_per_K / dt_s * Tc + flow * FULL.supply_temperature_K
    return np.linalg.solve(A, b)


@pytest.mark.parametrize(("n_groups", "n_parallel"), [(1, 1), (4, 1), (1, 5), (6, 3), (2, 7)])
def test_modes_equal_a_dense_solve(n_groups, n_parallel):
    rng = np.random.default_rng(3)
    n = n_groups * n_parallel
    start_K = rng.uniform(285.0, 315.0, n)
    thermal = LumpedThermal(FULL, C, Layout.uniform(1, n_groups, n_parallel, n_groups), start_K)
    T, Tc = start_K, thermal.coolant_K[0]
    for cooling, dt_s in ((0.0, 1.0), (0.6, 60.0), (1.0, 900.0)):
        heat_W = rng.uniform(-1.0, 5.0, n)
        expected = dense_step(T, Tc, heat_W, 303.0, cooling, dt_s, n_groups, n_parallel)
        thermal.step(heat_W, np.array([303.0]), np.array([cooling]), dt_s)
        np.testing.assert_allclose(thermal.temperature_K, expected[:-1], atol=1e-9)
        np.testing.assert_allclose(thermal.coolant_K[0], expected[-1], atol=1e-9)
        T, Tc = expected[:-1], expected[-1]


@given(
    dt_s=st.floats(0.01, 1e5),
    cooling=st.floats(0.0, 1.0),
    heat_W=st.floats(-5.0, 500.0),
    ambient_K=st.floats(230.0, 330.0),
)
def test_energy_closes_for_any_step(dt_s, cooling, heat_W, ambient_K):
    thermal = LumpedThermal.from_pack(pack("bus_14s2p"), 2, 298.15)
    heat = np.linspace(0.5, 1.5, 56) * heat_W
    for level in (cooling, 0.0, 1.0):
        thermal.step(heat, np.full(2, ambient_K), np.full(2, level), dt_s)
    balances = thermal.balances()
    moved_J = sum(
        np.abs(balances[f"energy_{k}_J"]) for k in ("heat_in", "to_ambient", "to_coolant", "stored")
    )
    assert (np.abs(balances["energy_residual_J"]) <= 1e-9 * moved_J + 1e-7).all()


def test_packs_and_modules_do_not_touch():
    tower = pack("tower_112s4p")
    both, one = LumpedThermal.from_pack(tower, 2, 300.0), LumpedThermal.from_pack(tower, 1, 300.0)
    heat = np.zeros(2 * tower.n_cells)
    heat[3] = 20.0  # first module of the first pack
    for _ in range(10):
        both.step(heat, np.full(2, 300.0), np.full(2, 0.3), 60.0)
        one.step(heat[: tower.n_cells], np.full(1, 300.0), np.full(1, 0.3), 60.0)
    np.testing.assert_array_equal(both.temperature_K[: tower.n_cells], one.temperature_K)
    module = tower.groups_per_module * tower.n_parallel
    assert both.temperature_K[:module].max() > 301.0
    assert (both.temperature_K[module:] == 300.0).all()


def test_resume_is_bit_exact():
    one = LumpedThermal.from_pack(pack("bus_14s2p"), 1, 300.0)
    two = LumpedThermal.from_pack(pack("bus_14s2p"), 1, 290.0)
    heat = np.linspace(0.0, 3.0, 28)
    run(one, heat, 305.0, 0.4, 5.0, 7)
    two.set_state(one.get_state())
    np.testing.assert_array_equal(run(one, heat, 305.0, 0.4, 5.0, 7), run(two, heat, 305.0, 0.4, 5.0, 7))
    assert two.balances()["energy_residual_J"] == one.balances()["energy_residual_J"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((np.full(28, np.nan), [300.0], [0.0], 1.0), "heat of cell 0 .pack 0 group 0 cell 0. is"),
        ((np.zeros(27), [300.0], [0.0], 1.0), r"shape \(27,\)"),
        ((np.zeros(28), [np.nan], [0.0], 1.0), "ambient_K of pack 0 is"),
        ((np.zeros(28), [300.0], [1.5], 1.0), "cooling of pack 0 is 1.5; expected 0 to 1"),
        ((np.zeros(28), [300.0], [0.0], -1.0), "dt_s is -1.0"),
    ],
)
def test_bad_input_is_named(arguments, said):
    thermal = LumpedThermal.from_pack(pack("bus_14s2p"), 1, 300.0)
    with pytest.raises(ValueError, match=said):
        thermal.step(*arguments)
    assert (thermal.temperature_K == 300.0).all()


PLATE = dataclasses.replace(
    FULL, plate_W_per_K=0.5, plate_heat_capacity_J_per_K=90.0, plate_neighbour_W_per_K=0.3
)


def dense_stream(design, J, G, T, P, F, heat_W, ambient_K, level, dt_s, steps):
    """The same equations of one module as one matrix: cells group by group, then plates, then fluids."""
    n = J * G
    A, b = np.zeros((n + 2 * G, n + 2 * G)), np.zeros(n + 2 * G)
    film = J * (design.coolant_idle_W_per_K + level * (design.coolant_W_per_K - design.coolant_idle_W_per_K))
    flow = design.coolant_flow_idle_W_per_K
    flow += level * (design.coolant_flow_W_per_K - design.coolant_flow_idle_W_per_K)

    def join(i, k, conductance):
        for a, c in ((i, k), (k, i)):
            A[a, a] -= conductance
            A[a, c] += conductance

    for g in range(G):
        for j in range(J):
            cell = g * J + j
            if j + 1 < J:
                join(cell, cell + 1, design.parallel_neighbour_W_per_K)
            if g + 1 < G:
                join(cell, cell + J, design.series_neighbour_W_per_K)
            join(cell, n + g, design.plate_W_per_K)
            loss = design.ambient_W_per_K + design.module_end_W_per_K * ((g == 0) + (g == G - 1))
            A[cell, cell] -= loss
            b[cell] = heat_W[cell] + loss * ambient_K
        if g + 1 < G:
            join(n + g, n + g + 1, design.plate_neighbour_W_per_K)
        join(n + g, n + G + g, film)
        A[n + G + g, n + G + g] -= flow
        if g:
            A[n + G + g, n + G + g - 1] += flow
        else:
            b[n + G] += flow * design.supply_temperature_K
    capacity = np.concatenate(
        [
            np.full(n, C),
            np.full(G, design.plate_heat_capacity_J_per_K / G),
            np.full(G, design.coolant_heat_capacity_J_per_K / G),
        ]
    )
    x = np.concatenate([T, P, F])
    for _ in range(steps):
        x = np.linalg.solve(np.diag(capacity / dt_s) - A, capacity / dt_s * x + b)
    return x[:n], x[n : n + G], x[n + G :]


@pytest.mark.parametrize(("J", "G", "dt_s"), [(1, 1, 1.0), (1, 7, 60.0), (3, 4, 0.5), (5, 6, 900.0)])
def test_a_stream_along_a_plate_against_a_dense_solution(J, G, dt_s):
    draw = np.random.default_rng(J + G)
    T, heat_W = draw.uniform(285.0, 315.0, J * G), draw.uniform(-0.5, 3.0, J * G)
    thermal = LumpedThermal(PLATE, C, Layout.uniform(1, G, J, G), T)
    P, F = thermal.plate_K.copy(), thermal.coolant_K.copy()
    run(thermal, heat_W, 301.0, 0.6, dt_s, 25)
    cells, plates, fluids = dense_stream(PLATE, J, G, T, P, F, heat_W, 301.0, 0.6, dt_s, 25)
    np.testing.assert_allclose(thermal.temperature_K, cells, atol=1e-9)
    np.testing.assert_allclose(thermal.plate_K, plates, atol=1e-9)
    np.testing.assert_allclose(thermal.coolant_K, fluids, atol=1e-9)
    book = thermal.balances()
    assert abs(book["energy_residual_J"][0]) < 1e-11 * np.abs(heat_W).sum() * 25 * dt_s + 1e-7


def test_the_stream_warms_from_group_to_group():
    """Steady: the fluid has taken up all heat before it, so the last cell is warmer by G q / flow."""
    design = dataclasses.replace(
        PLATE,
        ambient_W_per_K=0.0,
        module_end_W_per_K=0.0,
        plate_neighbour_W_per_K=0.0,
        series_neighbour_W_per_K=0.0,
    )
    thermal = LumpedThermal(design, C, Layout.uniform(1, 6, 2, 6), 300.0)
    T = run(thermal, np.full(12, 0.7), 300.0, 1.0, 1e5, 200).reshape(6, 2)
    fluid = 290.0 + 1.4 * np.arange(1, 7) / 4.0
    np.testing.assert_allclose(thermal.coolant_K, fluid, atol=1e-8)
    np.testing.assert_allclose(T[:, 0], fluid + 0.7 / 0.3 + 0.7 / 0.5, atol=1e-8)


def test_modules_of_any_company_come_out_alike():
    """Packs of several modules, the last one shorter, together and alone: the same bits."""
    draw = np.random.default_rng(4)
    for design in (FULL, PLATE):
        layout = Layout.uniform(7, 10, 2, 4)  # modules of 4, 4 and 2 groups
        T, heat_W = draw.uniform(280.0, 320.0, layout.n_cells), draw.uniform(0.0, 2.0, layout.n_cells)
        ambient_K, cooling = draw.uniform(285.0, 305.0, 7), draw.uniform(0.0, 1.0, 7)
        together = LumpedThermal(design, C, layout, T)
        for _ in range(5):
            together.step(heat_W, ambient_K, cooling, 30.0)
        for p in range(7):
            mine = slice(20 * p, 20 * p + 20)
            alone = LumpedThermal(design, C, Layout.uniform(1, 10, 2, 4), T[mine])
            for _ in range(5):
                alone.step(heat_W[mine], ambient_K[p : p + 1], cooling[p : p + 1], 30.0)
            np.testing.assert_array_equal(alone.temperature_K, together.temperature_K[mine])
            assert alone.auxiliary_W[0] == together.auxiliary_W[p]


def test_a_module_left_to_another_model_stands_still_and_the_books_stay_closed():
    """Somebody else may write its temperatures: what it had stored until then is what counts here."""
    tower = pack("tower_112s4p")
    thermal, alone = (LumpedThermal.from_pack(tower, 2, 300.0) for _ in range(2))
    heat_W = np.linspace(0.1, 1.0, 2 * tower.n_cells)
    arguments = heat_W, np.full(2, 300.0), np.full(2, 0.3), 20.0
    for one in (thermal, alone):
        one.step(*arguments)
    cells = slice(3 * 56, 4 * 56)
    thermal.release(cells.start)
    left_K = thermal.temperature_K[cells].copy()
    for one in (thermal, alone):
        one.step(*arguments)
    np.testing.assert_array_equal(thermal.temperature_K[cells], left_K)
    others = np.ones(2 * tower.n_cells, dtype=bool)
    others[cells] = False
    np.testing.assert_array_equal(thermal.temperature_K[others], alone.temperature_K[others])
    thermal.temperature_K[cells] = 900.0
    again = LumpedThermal.from_pack(tower, 2, 300.0)
    again.set_state(thermal.get_state())
    for one in (thermal, again):
        book = one.balances()
        assert (np.abs(book["energy_residual_J"]) < 1e-6).all()
    with pytest.raises(ValueError, match="no module of this network begins with cell 5"):
        thermal.release(5)
    with pytest.raises(ValueError, match="begins with cell 168"):
        thermal.release(cells.start)
