"""Kinetic sets and the kernel: laws that hold at any step, limits, weights, State of Safety."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pack_models.propagation import kernel, kinetics
from pack_models.propagation.errors import CaseError
from pack_models.propagation.kinetics import SetInUse, Short, compile_sets, load_set, pathways

KIM = SetInUse(load_set("kim2007_lco"), 2580.0)
FENG = SetInUse(load_set("feng2015_nmc"), 2000.0, short=Short(5e8, 0.2, 533.15))


def one_node(use: SetInUse, capacity: float = 2.1414e6) -> kernel.Reactor:
    """One adiabatic node of 1 m3."""
    none = np.zeros(0)
    tables = compile_sets([use])
    return kernel.Reactor(tables, [0], [capacity], [0, 1], [0], [1.0], [0, 0], none, none, none)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", kinetics.names())
def test_catalogue_set_is_whole_and_has_a_source(name: str) -> None:
    found = load_set(name)
    assert len(found.source) > 30
    assert all(np.isfinite([r.A_1_s, r.E_R_K, r.heat_J_kg, r.amount]).all() for r in found.reactions)


def test_kim_heats_by_pathway() -> None:
    # MJ/m3: SEI 23.5, anode 784.7, cathode 368.1, electrolyte 63.1; together 578.8 K at 2580 x 830 J/m3K.
    paths = pathways(KIM)
    heat = dict(zip(paths.pathway, paths.heat_J_m3 / 1e6, strict=True))
    expected = {"sei": 23.5, "anode": 784.7, "cathode": 368.1, "electrolyte": 63.1}
    assert heat == pytest.approx(expected, abs=0.1)
    assert paths.heat_J_m3.sum() / (2580 * 830) == pytest.approx(578.8, abs=0.1)
    assert paths.weight.sum() == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(
    start=st.floats(310.0, 1500.0),
    step=st.floats(1e-9, 1e7),
    limit=st.floats(0.05, 50.0),
    which=st.sampled_from([KIM, FENG]),
)
def test_any_step_keeps_species_in_range_and_energy_exact(
    start: float, step: float, limit: float, which: SetInUse
) -> None:
    node = one_node(which)
    before = node.species.copy()
    temperature = np.array([start])
    node.react(temperature, step, limit)
    heat = float((node.tables.heat_J_m3[0] * node.extent_m3[0]).sum())
    assert np.isfinite(temperature).all()
    assert (node.species >= 0).all()
    assert (node.species[0] <= np.maximum(before[0], 1.0) + 6.0).all()  # SEI may re-form up to 5 + 0.15
    assert heat == pytest.approx(2.1414e6 * (temperature[0] - start), rel=1e-9, abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(temperature=st.floats(350.0, 2500.0), ceiling=st.floats(0.01, 10.0))
def test_ceiling_bounds_every_rate(temperature: float, ceiling: float) -> None:
    tables = compile_sets([SetInUse(KIM.kinetics, 2580.0, ceiling_1_s=ceiling)])
    _, rate, _ = kernel.Rates(tables)(temperature, np.ones(tables.n_species) * 0.5)
    bare, limited = compile_sets([KIM]), rate
    _, free, _ = kernel.Rates(bare)(temperature, np.ones(tables.n_species) * 0.5)
    assert (limited <= ceiling).all()
    assert (limited <= free).all()
    # k kmax/(k + kmax), seen through the SEI whose rate is k c
    k = free[0] / 0.5
    assert limited[0] / 0.5 == pytest.approx(k * ceiling / (k + ceiling), rel=1e-9)


def test_diffusion_limit_is_the_slower_of_two_in_series() -> None:
    data = {
        "species": {"r": 1.0},
        "reactions": {
            "x": {
                "consumes": "r",
                "A_1_s": 1e13,
                "E_J_mol": 1.2e5,
                "heat_J_m3": 1e9,
                "diffusion_limit": {"A_1_s": 50.0, "E_J_mol": 3.0e4},
            }
        },
    }
    problems: list[str] = []
    use = SetInUse(kinetics.parse_set(data, "x", "", problems), 1000.0)
    assert not problems
    rates = kernel.Rates(compile_sets([use]))
    for temperature in (350.0, 500.0, 1200.0):
        k = 1e13 * np.exp(-1.2e5 / 8.314 / temperature)
        d = 50.0 * np.exp(-3.0e4 / 8.314 / temperature)
        assert rates(temperature, np.ones(1))[1][0] == pytest.approx(k * d / (k + d), rel=1e-12)


def test_hu_gates_hold_anode_and_electrolyte_back() -> None:
    tables = compile_sets([SetInUse(load_set("hu2020_lco"), 2580.0)])
    names = pathways(SetInUse(load_set("hu2020_lco"), 2580.0)).reaction
    rates, fresh = kernel.Rates(tables), tables.initial[0].copy()
    order = list(names)
    assert rates(450.0, fresh)[1][order.index("anode")] == 0.0
    fresh[0] = 0.05  # SEI mostly gone
    assert rates(450.0, fresh)[1][order.index("anode")] > 0.0
    assert rates(473.0, fresh)[1][order.index("electrolyte")] == 0.0
    assert rates(474.0, fresh)[1][order.index("electrolyte")] > 0.0


def test_feng_anode_rebuilds_the_sei_and_pays_for_it() -> None:
    tables = compile_sets([FENG])
    paths = pathways(FENG)
    anode, sei = paths.reaction.index("anode"), paths.reaction.index("sei")
    assert tables.stoich[0, anode, 0] == 5.0  # sei is the set's first species
    gross = 1.714e6 * 0.10058 / 0.72 * 2000.0
    assert tables.heat_J_m3[0, anode] == pytest.approx(gross - 5 * tables.heat_J_m3[0, sei])
    assert sei > anode  # producers are advanced before what they feed


def test_state_of_charge_scales_heat_and_short() -> None:
    full, half = (
        pathways(SetInUse(KIM.kinetics, 2580.0, short=Short(5e8, 0.1, 433.0), soc=s)) for s in (1.0, 0.5)
    )
    ratio = dict(zip(full.pathway, half.heat_J_m3 / full.heat_J_m3, strict=True))
    assert ratio == pytest.approx(
        {"sei": 1.0, "anode": 0.5, "cathode": 0.5, "electrolyte": 1.0, "short": 0.5}
    )


def test_state_of_safety_falls_and_only_falls_while_heating_up() -> None:
    node, paths = one_node(KIM), pathways(KIM)
    temperature, previous, seen = np.array([390.0]), 1.1, []
    assert (
        float(paths.state_of_safety(paths.conversion(np.zeros(4)), np.array(298.15), KIM.kinetics.safety))
        == 1.0
    )
    for _ in range(400):
        node.react(temperature, 20.0, 1.0)
        alpha = paths.conversion(node.extent_m3[0, :4])
        assert (alpha >= 0).all()
        assert (alpha <= 1).all()
        value = float(paths.state_of_safety(alpha, temperature[0], KIM.kinetics.safety))
        assert value <= previous + 1e-12
        previous = value
        seen.append(value)
    assert seen[0] > 0.75
    assert seen[-1] == 0.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"A_1_s": None}, "E_J_mol without A_1_s"),
        ({"E_J_mol": None}, "A_1_s without E_J_mol"),
        ({"A_1_s": -1.0}, "out of range; expected more than 0"),
        ({"consumes": "sie"}, "no species named 'sie'"),
        ({"heat_J_kg": "much"}, "is not a number"),
        ({"Ea": 1.0}, "unknown key"),
        ({"factors": [{"species": "sei"}]}, "expected exp_scale"),
    ],
)
def test_a_broken_set_is_refused(change: dict[str, object], said: str) -> None:
    reaction: dict[str, object] = {
        "pathway": "sei",
        "consumes": "sei",
        "A_1_s": 1e15,
        "E_J_mol": 1.35e5,
        "heat_J_kg": 2.5e5,
        "amount_kg_m3": 600.0,
    }
    reaction |= change
    data = {
        "species": {"sei": 0.15},
        "reactions": {"sei": {k: v for k, v in reaction.items() if v is not None}},
    }
    problems: list[str] = []
    kinetics.parse_set(data, "broken", "", problems)
    assert any(said in p and p.startswith("reactions.sei") for p in problems), problems


def test_unknown_set_names_the_known_ones() -> None:
    with pytest.raises(CaseError, match="kim2007_lco"):
        load_set("kim2008")
