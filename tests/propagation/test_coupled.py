"""A module beside a plant: no heat is lost between the clocks, bad options are named; gas in a housing."""

from __future__ import annotations

import numpy as np
import pytest

from pack_models.propagation.case import load_case
from pack_models.propagation.coupled import CoupledModule, module_case, onset_K
from pack_models.propagation.errors import CaseError
from pack_models.propagation.housing import AIR_KG_MOL, ATMOSPHERE_PA, GAMMA, GAS_CONSTANT, Housing

ROOM_K = 298.15
PACK = load_case("pack3x4")


def test_heat_waits_for_its_window_but_is_never_lost() -> None:
    module = CoupledModule(module_case(PACK), "lumped", np.full(12, ROOM_K), np.ones(12))
    rng = np.random.default_rng(1)
    given = 0.0
    for _ in range(300):
        heat = rng.uniform(0.0, 40.0, 12)
        module.step(100_000, heat, ROOM_K, 1.0)
        given += float(heat.sum()) * 0.1
        assert module.energy_J["abuse"] + module.pending_J.sum() == pytest.approx(given, rel=1e-12)
    assert module.energy_J["imbalance"] < 1e-10
    assert module.energy_J["abuse"] > 0.9 * given
    module.close()


def test_between_exchanges_temperatures_run_straight() -> None:
    module = CoupledModule(module_case(PACK), "lumped", np.full(12, ROOM_K), np.ones(12))
    seen = []
    for _ in range(200):
        module.step(100_000, np.full(12, 60.0), ROOM_K, 1.0)
        seen.append(module.temperature_K[0])
    jumps = np.abs(np.diff(seen, 2))
    assert np.median(jumps) < 1e-12, "straight inside a window"
    assert np.abs(np.diff(seen)).max() < 0.02, "and no step at its ends"
    module.close()


def test_options_of_a_module() -> None:
    case = module_case(PACK, between=("aerogel", 3e-3), plate_W_m2K=200.0)
    assert not case.triggers
    assert case.data["geometry"]["between"]["x"] == {"material": "aerogel", "thickness_m": 3e-3}
    assert [b.h_W_m2K for b in case.boundaries if b.cooled] == [200.0]
    assert PACK.triggers, "the case itself is left alone"
    with pytest.raises(CaseError, match=r"unknown material 'aerogell'.*did you mean 'aerogel'"):
        module_case(PACK, between=("aerogell", 1e-3))
    with pytest.raises(CaseError, match="no module"):
        module_case(load_case("stack_kmax1"))


def test_onset_is_where_calorimetry_sees_self_heating() -> None:
    """Kim's SEI reaction alone makes 0.02 K/min at the temperature its Arrhenius law says."""
    heat_W_m3 = 0.02 / 60.0 * 2580.0 * 830.0
    sei = 2.57e5 * 610.4 * 1.667e15 * 0.15
    anode = 1.714e6 * 610.4 * 2.5e13 * 0.75 * np.exp(-1.0)
    expected = 1.3508e5 / 8.314 / np.log((sei + anode) / heat_W_m3)
    # The ceiling of 0.1 1/s, the cathode and the electrolyte hardly count there.
    assert onset_K(PACK) == pytest.approx(expected, abs=0.3)


def one_housing(**changes: float) -> Housing:
    values = {"volume": 0.05, "vent": 1e-3, "opens": 5e3, "breather": 1e-6, "gas_K": 600.0, "kg_mol": 0.027}
    return Housing(*(np.array([v]) for v in (values | changes).values()))


def test_a_vessel_empties_as_the_nozzle_equation_says() -> None:
    """Adiabatic choked discharge of an ideal gas has a closed form; here through the breather alone."""
    kelvin, volume, area = 300.0, 50.0, 1e-3
    air = one_housing(volume=volume, breather=area, opens=1e9, vent=1e-9)
    air.kelvin[:] = kelvin
    start = 6e5
    air.air_mol[:] = start * volume / (GAS_CONSTANT * kelvin)
    for _ in range(100):
        air.step(np.zeros(1), np.array([kelvin]), 0.1)
    choked = np.sqrt(GAMMA * (2.0 / (GAMMA + 1.0)) ** ((GAMMA + 1.0) / (GAMMA - 1.0)))
    speed = np.sqrt(GAS_CONSTANT * kelvin / AIR_KG_MOL)
    rate = 0.5 * (GAMMA - 1.0) * 0.62 * area * choked * speed / volume
    expected = start * (1.0 + rate * 10.0) ** (-2.0 * GAMMA / (GAMMA - 1.0))
    assert air.gauge_Pa[0] + ATMOSPHERE_PA == pytest.approx(expected, rel=2e-3)


def test_gas_is_counted_and_the_relief_valve_holds_its_pressure() -> None:
    air = one_housing(breather=2e-5)
    highest, came = 0.0, 0.0
    for k in range(1500):
        inflow = 0.05 if k < 100 else 0.0
        came += inflow
        air.step(np.array([inflow]), np.array([ROOM_K]), 0.1)
        highest = max(highest, float(air.gauge_Pa[0]))
        assert air.gas_mol[0] + air.escaped_mol[0] == pytest.approx(came, rel=1e-12)
        assert 0.0 <= air.gas_fraction[0] <= 1.0
    assert 5e3 < highest < 7e3
    assert 0.5 < air.gas_fraction[0] < 1.0
    assert abs(air.gauge_Pa[0]) < 5e3
    assert air.released_mol[0] == pytest.approx(came)


def test_a_cold_closed_housing_stays_at_ambient() -> None:
    air = one_housing()
    air.step(np.zeros(1), np.array([ROOM_K]), 10.0)
    assert air.gauge_Pa[0] == pytest.approx(0.0, abs=1e-6)


def test_a_housing_without_volume_is_refused() -> None:
    with pytest.raises(ValueError, match="positive numbers"):
        one_housing(volume=0.0)
