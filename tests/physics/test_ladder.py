"""Rails and contacts: 16p2s against a dense modified nodal analysis, in each step and in continuous time."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from pack_models.catalogue import cell
from pack_models.cells.ecm import EcmBank
from pack_models.cells.ladder import TERMINALS, LadderBank
from pack_models.layout import Layout
from tests.physics.test_parallel_sharing import design as straight_design

NS, NP, RAIL_OHM, CONTACT_OHM, PACK_A = 2, 16, 1e-4, 1e-2, 80.0  # liionpack's example
M50 = cell("lgm50_chen2020")
straight = straight_design  # the fixture of a cell with constant resistances and a straight open circuit


def dense(e_V, r_ohm, current_A, terminals="left"):
    """Modified nodal analysis: potentials, then the current of every cell as an unknown of its own.

    Nodes are numbered rail by rail; the negative terminal is left out as ground. Returns cell currents and
    the voltage at the positive terminal.
    """
    n_nodes, n_cells = (NS + 1) * NP, NS * NP
    A, b = np.zeros((n_nodes + n_cells, n_nodes + n_cells)), np.zeros(n_nodes + n_cells)
    for rail in range(NS + 1):
        for k in range(NP - 1):
            i, j = rail * NP + k, rail * NP + k + 1
            for p, q in ((i, j), (j, i)):
                A[p, p] += 1.0 / RAIL_OHM
                A[p, q] -= 1.0 / RAIL_OHM
    for c in range(n_cells):
        low, high, row = c, c + NP, n_nodes + c
        A[high, row], A[low, row] = -1.0, 1.0  # the cell's current flows into its upper node
        A[row, high], A[row, low], A[row, row] = 1.0, -1.0, r_ohm[c] + CONTACT_OHM
        b[row] = e_V[c]
    enter, leave = (column % NP for column in TERMINALS[terminals])
    top = NS * NP + leave
    b[top] -= current_A
    b[enter] += current_A
    keep = np.arange(n_nodes + n_cells) != enter
    x = np.zeros(n_nodes + n_cells)
    x[keep] = np.linalg.solve(A[np.ix_(keep, keep)], b[keep])
    return x[n_nodes:], x[top]


@pytest.mark.parametrize("terminals", TERMINALS)
def test_each_step_is_the_dense_solution(terminals):
    draw = np.random.default_rng(5)
    spread = {"capacity_factor": draw.normal(1, 0.02, 32), "resistance_factor": draw.normal(1, 0.08, 32)}
    pack = LadderBank(M50, NS, NP, draw.normal(0.6, 0.02, 32), RAIL_OHM, CONTACT_OHM, terminals, **spread)
    T = np.full(32, 298.15)
    for current_A in (PACK_A, PACK_A, -40.0, 0.0):
        twin = EcmBank(M50, Layout.uniform(32, 1, 1, 1), 0.5)
        twin.set_state(pack.cells.get_state())
        pack.step(current_A, T, 10.0)
        e_V, r_ohm = twin.thevenin(T, 10.0, pack.cell_current_A.copy())
        amps, volts = dense(e_V, r_ohm, current_A, terminals)
        np.testing.assert_allclose(pack.cell_current_A, amps, atol=1e-6)
        assert pack.pack_voltage_V == pytest.approx(volts, abs=1e-7)
        np.testing.assert_allclose(pack.cell_current_A.reshape(NS, NP).sum(axis=1), current_A, atol=1e-9)
    book = pack.balances()
    assert abs(book["energy_residual_J"]) < 1e-9 * book["energy_throughput_J"]


def test_cells_near_the_terminals_carry_more():
    pack = LadderBank(M50, NS, NP, 0.8, 1e-3, CONTACT_OHM)
    pack.step(PACK_A, np.full(32, 298.15), 1.0)
    first = pack.cell_current_A.reshape(NS, NP)
    assert (np.diff(first[0, :-1]) < 0.0).all()
    assert first[0, 0] > 1.5 * first[0, -1]


def test_against_continuous_time(straight):
    """The pack as an ordinary differential equation with the dense network solved at every instant."""
    draw = np.random.default_rng(9)
    soc = draw.normal(0.6, 0.03, 32)
    capacity, resistance = draw.normal(1, 0.02, 32), draw.normal(1, 0.1, 32)

    def rate(_, state):
        s, v1, v2 = state.reshape(3, 32)
        amps, _ = dense(3.2 + 0.9 * s - v1 - v2, 0.025 * resistance, PACK_A)
        return np.concatenate(
            [
                -amps / (3600.0 * 5.0 * capacity),
                (0.012 * resistance * amps - v1) / 15.0,
                (0.02 * resistance * amps - v2) / 250.0,
            ]
        )

    start = np.concatenate([soc, np.zeros(64)])
    end = solve_ivp(rate, (0.0, 300.0), start, method="RK45", rtol=1e-8, atol=1e-10).y[:, -1].reshape(3, 32)
    errors = []
    for dt_s in (10.0, 5.0):
        pack = LadderBank(
            straight,
            NS,
            NP,
            soc,
            RAIL_OHM,
            CONTACT_OHM,
            capacity_factor=capacity,
            resistance_factor=resistance,
        )
        for _ in range(round(300 / dt_s)):
            pack.step(PACK_A, np.full(32, 298.15), dt_s)
        errors.append(np.abs(pack.soc - end[0]).max())
    assert errors[1] < 2e-4
    assert 1.6 < errors[0] / errors[1] < 2.4  # first order in the sharing


def test_short_and_open_fuse():
    pack = LadderBank(M50, NS, NP, 0.7, RAIL_OHM, CONTACT_OHM)
    pack.set_open_fuse(3, True)
    pack.set_internal_short(20, 0.5)
    T = np.full(32, 298.15)
    for _ in range(3):
        pack.step(PACK_A, T, 10.0)
    assert abs(pack.cell_current_A[3]) < 1e-6
    own_A = pack.cells.cell_current_A[20]  # through the cell, its short included
    assert own_A - pack.cell_current_A[20] == pytest.approx(pack.cells.group_voltage_V[20] / 0.5, rel=1e-3)
    book = pack.balances()
    assert abs(book["energy_residual_J"]) < 1e-9 * book["energy_throughput_J"]
    assert book["energy_short_J"] > 0.0


def test_without_rails_it_is_the_plain_group():
    draw = np.random.default_rng(2)
    soc, factor = draw.normal(0.6, 0.02, 8), draw.normal(1, 0.1, 8)
    pack = LadderBank(M50, 2, 4, soc, 1e-9, 0.0, resistance_factor=factor)
    plain = EcmBank(M50, Layout.uniform(1, 2, 4, 2), soc, resistance_factor=factor)
    for _ in range(5):
        pack.step(20.0, np.full(8, 298.15), 10.0)
        plain.step(np.array([20.0]), np.full(8, 298.15), 10.0)
    np.testing.assert_allclose(pack.soc, plain.soc, atol=1e-6)
    assert pack.pack_voltage_V == pytest.approx(plain.pack_voltage_V[0], abs=1e-3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rail_ohm": 0.0}, "rail_ohm is 0.0"),
        ({"terminals": "top"}, "terminals is 'top'; expected one of left"),
        ({"contact_ohm": -1.0}, "contact_ohm of cell 0 is -1"),
        ({"soc": 1.3}, "soc of cell 0 is 1.3"),
    ],
)
def test_nonsense_is_named(given, said):
    with pytest.raises(ValueError, match=said):
        LadderBank(M50, 2, 4, **{"soc": 0.5, "rail_ohm": 1e-4, **given})


def test_a_current_that_is_no_number_changes_nothing():
    pack = LadderBank(M50, 2, 4, 0.5, 1e-4)
    before = pack.soc.copy()
    with pytest.raises(ValueError, match="current of the pack is nan"):
        pack.step(np.nan, np.full(8, 298.0), 1.0)
    np.testing.assert_array_equal(pack.soc, before)
