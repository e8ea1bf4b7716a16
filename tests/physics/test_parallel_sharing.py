"""Currents of parallel cells against a solution in continuous time by another method."""

import dataclasses

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from pack_models.catalogue import cell
from pack_models.cells.ecm import EcmBank
from pack_models.layout import Layout

SHORT_OHM, GROUP_A = 2.0, 12.0
SOC = np.array([0.45, 0.6, 0.7])
CAPACITY = np.array([0.9, 1.0, 1.1])
RESISTANCE = np.array([1.5, 1.0, 0.8])


@pytest.fixture(scope="module")
def design():
    """Constant resistances and a straight open circuit: the group is then a linear network."""
    flat = np.ones((1, 2))
    soc = np.array([0.0, 1.0])
    return dataclasses.replace(
        cell("lgm50_chen2020"),
        capacity_Ah=5.0,
        ocv_soc=soc,
        ocv_V=np.array([3.2, 4.1]),
        entropic_V_per_K=np.zeros(2),
        hysteresis_V=np.zeros(2),
        table_soc=soc,
        table_temperature_K=np.array([298.15]),
        resistance0_ohm=0.025 * flat,
        resistance1_ohm=0.012 * flat,
        resistance2_ohm=0.02 * flat,
        time_constant1_s=np.array([15.0]),
        time_constant2_s=np.array([250.0]),
        aged_soh=np.empty(0),
        aged_ocv_V=np.empty((0, 2)),
        aged_resistance_shape=np.empty((0, 2)),
    )


def continuous(end_s):
    """State (soc, v1, v2) of the three cells after end_s, currents from Kirchhoff at every instant."""

    def split(state):
        soc, v1, v2 = state.reshape(3, 3)
        emf = 3.2 + 0.9 * soc - v1 - v2
        ohm = 0.025 * RESISTANCE
        voltage = (np.sum(emf / ohm) - GROUP_A) / (np.sum(1.0 / ohm) + 1.0 / SHORT_OHM)
        return (emf - voltage) / ohm, voltage

    def rate(_, state):
        amps, _ = split(state)
        _, v1, v2 = state.reshape(3, 3)
        return np.concatenate(
            [
                -amps / (3600.0 * 5.0 * CAPACITY),
                (0.012 * RESISTANCE * amps - v1) / 15.0,
                (0.02 * RESISTANCE * amps - v2) / 250.0,
            ]
        )

    start = np.concatenate([SOC, np.zeros(6)])
    end = solve_ivp(rate, (0.0, end_s), start, method="DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
    amps, voltage = split(end)
    return end[:3], amps, voltage


def stepped(design, dt_s, end_s):
    bank = EcmBank(design, Layout.uniform(1, 1, 3, 1), SOC, CAPACITY, RESISTANCE)
    bank.set_internal_short(1, SHORT_OHM)
    for _ in range(round(end_s / dt_s)):
        bank.step(np.array([GROUP_A]), np.full(3, 298.15), dt_s)
    return bank


def test_sharing_converges_to_the_continuous_network(design):
    soc, amps, voltage = continuous(600.0)
    errors = []
    for dt_s in (4.0, 2.0, 1.0):
        bank = stepped(design, dt_s, 600.0)
        errors.append(np.abs(bank.soc - soc).max())
        assert bank.group_voltage_V[0] == pytest.approx(voltage, abs=5e-4 * dt_s)
        # Held currents lag by half a step.
        np.testing.assert_allclose(bank.cell_current_A, amps, atol=2e-2 * dt_s)
    assert errors[-1] < 5e-5
    assert 1.7 < errors[0] / errors[1] < 2.3  # first order in the sharing, as said
    assert 1.7 < errors[1] / errors[2] < 2.3


def test_long_steps_stay_on_the_way(design):
    """15 min in one step: stable and near, though the time constants are 15 and 250 s."""
    soc, _, voltage = continuous(900.0)
    bank = stepped(design, 900.0, 900.0)
    np.testing.assert_allclose(bank.soc, soc, atol=0.03)
    assert bank.group_voltage_V[0] == pytest.approx(voltage, abs=0.02)
