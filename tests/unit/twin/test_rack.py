"""Power sharing among the packs of a rack, and the converter's loss model."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.world.rack import (
    LinkVoltages,
    ac_from_dc_W,
    converter_loss_W,
    loss_terms,
    settle_racks,
    split_power,
)

RATED = np.array([50e3])
LOSS = np.array([[0.004, 0.008, 0.012]])


def split(ac, emf, resistance, connected=None, discharge=200.0, charge=200.0, loss=LOSS):
    n = len(emf)
    current = np.full(n, np.nan)
    split_power(
        np.array([float(ac)]),
        RATED,
        loss,
        np.array([0, n]),
        np.array(emf, dtype=float),
        np.array(resistance, dtype=float),
        np.ones(n, dtype=bool) if connected is None else np.array(connected),
        np.broadcast_to(np.asarray(discharge, dtype=float), n).copy(),
        np.broadcast_to(np.asarray(charge, dtype=float), n).copy(),
        current,
    )
    return current


@given(st.floats(-1.0, 1.0), st.floats(0, 0.05), st.floats(0, 0.05), st.floats(0, 0.1))
def test_converter_inverse(p, a0, a1, a2):
    loss = np.array([a0, a1, a2])
    ac = p * 50e3
    dc = ac + converter_loss_W(ac, 50e3, loss)
    assert ac_from_dc_W(dc, 50e3, loss) == pytest.approx(ac, abs=1e-6)


@given(
    st.floats(-45e3, 45e3),
    st.lists(st.tuples(st.floats(380, 420), st.floats(0.05, 0.5)), min_size=1, max_size=5),
)
def test_unlimited_power_is_served_exactly_at_one_bus_voltage(ac, packs):
    emf, resistance = np.array(packs).T
    current = split(ac, emf, resistance, discharge=1e9, charge=1e9)
    voltage = emf - resistance * current
    assert np.ptp(voltage) == pytest.approx(0.0, abs=1e-9)
    wanted = ac + converter_loss_W(ac, RATED[0], LOSS[0])
    most = (emf / resistance).sum() ** 2 / (1 / resistance).sum() / 4  # maximum power transfer
    assert (voltage * current).sum() == pytest.approx(min(wanted, most), rel=1e-9, abs=1e-6)


@given(st.floats(-80e3, 80e3), st.floats(1, 100), st.floats(1, 100), st.floats(395, 405), st.floats(395, 405))
def test_no_pack_exceeds_its_limits(ac, limit_1, limit_2, emf_1, emf_2):
    limits = np.array([limit_1, limit_2])
    resistance = np.array([0.2, 0.3])
    current = split(ac, [emf_1, emf_2], resistance, discharge=limits, charge=limits)
    # Packs too far apart to satisfy both bounds drive a circulating current; the clamp meets halfway.
    circulating = abs(emf_1 - emf_2) > (resistance * limits).sum()
    if not circulating:
        assert np.all(np.abs(current) <= limits * (1 + 1e-9) + 1e-9)


def test_disconnected_packs_carry_nothing():
    current = split(10e3, [400, 400], [0.2, 0.2], connected=[False, True])
    assert current[0] == 0.0
    assert current[1] > 0.0
    assert np.all(split(10e3, [400], [0.2], connected=[False]) == 0.0)


def test_equal_packs_share_equally_and_idle_covers_the_no_load_loss():
    current = split(20e3, [400, 400], [0.2, 0.2])
    assert current[0] == pytest.approx(current[1])
    idle = split(0.0, [400], [0.2])
    assert (400 - 0.2 * idle[0]) * idle[0] == pytest.approx(0.004 * 50e3)


def test_settle_reports_the_step_done_and_the_room_ahead():
    out = [np.zeros(1) for _ in range(4)]
    was, stays = np.array([True]), np.array([False])
    volts, watts, most_out, most_in = (np.array([x]) for x in (400.0, 20e3, 100.0, 80.0))
    settle_racks(RATED, LOSS, np.array([0, 1]), was, stays, volts, watts, most_out, most_in, *out)
    dc, ac, can_discharge, can_charge = (float(a[0]) for a in out)
    assert dc == 20e3
    assert ac + converter_loss_W(ac, RATED[0], LOSS[0]) == pytest.approx(20e3)
    assert can_discharge == can_charge == 0.0  # tripped in this step: nothing in the next


def test_link_charges_through_the_precharge_resistor():
    link = LinkVoltages(1, precharge_time_constant_s=0.5)
    off, on = np.array([False]), np.array([True])
    voltage = np.array([400.0])
    rack = np.array([0])
    for _ in range(10):
        seen = link.step(rack, voltage, off, on, 0.1)
    assert seen[0] == pytest.approx(400 * (1 - math.exp(-1.0 / 0.5)), rel=0.02)
    assert link.step(rack, voltage, on, off, 0.1)[0] == 400.0
    assert 0 < link.step(rack, voltage, off, off, 60.0)[0] < 400.0 * 0.4


def test_map_over_the_dc_voltage():
    """Between the rows, at the nearest one beyond them, whatever the number of rows."""
    rows = np.array(
        [
            [[600.0, 0.004, 0.01, 0.02], [800.0, 0.008, 0.02, 0.04], [900.0, 0.008, 0.02, 0.06]],
            [[0.0, 0.001, 0.002, 0.003]] * 3,
        ]
    )
    for volts, expected in (
        (500.0, [0.004, 0.01, 0.02]),
        (700.0, [0.006, 0.015, 0.03]),
        (875.0, [0.008, 0.02, 0.055]),
        (1200.0, [0.008, 0.02, 0.06]),
    ):
        terms = loss_terms(rows, np.array([volts, volts]))
        np.testing.assert_allclose(terms, [expected, [0.001, 0.002, 0.003]], rtol=1e-12)
