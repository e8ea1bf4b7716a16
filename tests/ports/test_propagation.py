"""What every rung of the abuse ladder promises (twin/ports.py: Propagation)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pack_models.catalogue import pack
from pack_models.propagation.errors import MissingDolfinxError
from pack_models.propagation.fem import find_interpreter
from twin.adapters import propagation
from twin.scenario.schema import PropagationChoice

DESIGN = "prismatic_12s1p"
N_CELLS = pack(DESIGN).n_cells
ROOM_K = 298.15
CLOSES = {"network": 1e-10, "fem": 1e-6}  # relative, of the energy ledger
COARSE = {"network": (5, 3, 3), "fem": (5, 3, 3)}


@pytest.fixture(params=["network", "fem"])
def rung(request, monkeypatch):
    """A rung on a coarse mesh: promises, not figures."""
    if request.param == "fem":
        try:
            find_interpreter()
        except MissingDolfinxError as error:
            pytest.skip(str(error))
    fine = propagation._case

    def coarse(*arguments):
        case, onset = fine(*arguments)
        return replace(case, run=replace(case.run, mesh=COARSE)), onset

    monkeypatch.setattr(propagation, "_case", coarse)
    return request.param


class Plant:
    """Two packs of one module; a thermal model of its own that only adds up heat until the hand-over."""

    def __init__(self, rung: str, **options: object) -> None:
        self.kelvin = np.full(2 * N_CELLS, ROOM_K)
        capacity = np.ones(2 * N_CELLS)
        choice = PropagationChoice(model=rung, **options)
        self.bank = propagation.RUNGS[rung].build(DESIGN, 2, self.kelvin, capacity, choice)
        self.cell_J_K = pack(DESIGN).cell.heat_capacity_J_per_K
        self.events: list = []
        self.t_s = 0.0

    def play(self, seconds: float, heat: dict[int, float], cooling: float = 1.0, dt_s: float = 0.5) -> None:
        heat_W = np.zeros(2 * N_CELLS)
        for cell, watt in heat.items():
            heat_W[cell] = watt
        soc = np.ones(2 * N_CELLS)
        for _ in range(round(seconds / dt_s)):
            self.kelvin += np.where(self.bank.owned, 0.0, heat_W / self.cell_J_K * dt_s)
            self.bank.step(heat_W, soc, self.kelvin, np.full(2, ROOM_K), np.full(2, cooling), dt_s)
            self.kelvin[self.bank.owned] = self.bank.temperature_K[self.bank.owned]
            self.t_s += dt_s
            self.events += [(self.t_s, event) for event in self.bank.events]

    def first(self, kind: str, cell: int | None = None) -> float:
        """When something happened first; infinity for never."""
        times = [t for t, e in self.events if e.kind == kind and cell in (None, e.cell)]
        return min(times, default=np.inf)


@pytest.fixture
def plant(rung):
    made = []

    def make(**options):
        made.append(Plant(rung, **options))
        return made[-1]

    yield make
    for one in made:
        one.bank.close()


HEATED = N_CELLS + 5  # in the second pack, so that offsets count


def test_a_module_is_handed_over_at_its_onset_without_a_jump(plant):
    world = plant()
    world.play(10.0, {HEATED: 500.0})
    assert not world.bank.owned.any()
    assert world.events == []
    assert ROOM_K + 30.0 < world.bank.onset_K < ROOM_K + 80.0
    while not world.bank.owned.any():
        before = world.kelvin[HEATED]
        world.play(0.5, {HEATED: 4000.0})
    assert world.bank.owned.tolist() == [False] * N_CELLS + [True] * N_CELLS
    assert world.bank.opened == [range(N_CELLS, 2 * N_CELLS)]
    assert [e.kind for _, e in world.events] == ["abuse_onset"]
    assert world.events[0][1].cell == HEATED
    assert abs(world.kelvin[HEATED] - before) < 4.0
    world.play(2.0, {})
    assert world.bank.opened == []
    assert abs(world.kelvin[HEATED] - world.bank.onset_K) < 8.0


def test_one_cell_runs_away_and_everybody_learns_of_it(plant, rung):
    world = plant()
    world.play(150.0, {HEATED: 1500.0})
    times = [world.first(kind, HEATED) for kind in ("abuse_onset", "voltage_collapse", "thermal_runaway")]
    assert times == sorted(times)
    assert np.isfinite(times).all()
    assert np.isfinite(world.first("venting", HEATED))
    bank = world.bank
    assert bank.runaway[HEATED]
    assert bank.collapsed[HEATED]
    assert bank.runaway[:N_CELLS].sum() == 0
    assert world.kelvin[HEATED] > 573.15
    assert bank.state_of_safety[HEATED] == 0.0
    assert (bank.state_of_safety[:N_CELLS] == 1.0).all()
    assert (bank.pressure_Pa[0], bank.gas_fraction[0]) == (0.0, 0.0)
    assert bank.pressure_Pa[1] > 100.0
    assert 0.2 < bank.gas_fraction[1] <= 1.0
    assert bank.insulation_ohm[1] < 1e6 < bank.insulation_ohm[0]
    assert bank.mass_lost_kg[HEATED] == pytest.approx(0.51 * 0.9485, rel=0.2)
    book = bank.balances()
    assert abs(book["energy_residual_J"][1]) < CLOSES[rung] * book["energy_throughput_J"][1]
    assert book["energy_short_J"][1] > 1e5
    assert book["energy_written_off_J"][1] > book["energy_short_J"][1], "no more is set free than there was"
    assert abs(book["gas_residual_mol"][1]) < 1e-9 * book["gas_released_mol"][1]
    assert 1.0 < book["gas_released_mol"][1] < 10.0
    assert all(np.all(value[0] == 0.0) for value in book.values())


def test_cooling_and_barrier_act(plant):
    rise_K = {}
    for name, options, cooling in (
        ("cooled", {"plate_W_m2K": 500.0}, 1.0),
        ("not cooled", {"plate_W_m2K": 500.0}, 0.0),
        ("barrier", {"plate_W_m2K": 500.0, "barrier": "aerogel"}, 1.0),
    ):
        world = plant(**options)
        world.play(25.0, {HEATED: 2500.0}, cooling)
        world.play(75.0, {}, cooling, dt_s=5.0)
        rise_K[name] = float(world.kelvin[HEATED + 1]) - ROOM_K
    assert rise_K["cooled"] < 0.95 * rise_K["not cooled"]
    assert rise_K["barrier"] < 0.7 * rise_K["cooled"]


def test_the_same_again_gives_the_same_bits(plant):
    one, two = plant(), plant()
    for world in (one, two):
        world.play(60.0, {HEATED: 1500.0})
    np.testing.assert_array_equal(one.kelvin, two.kelvin)
    assert one.events == two.events


def test_both_rungs_tell_the_same_story(monkeypatch):
    """On the same coarse mesh the two discretisations differ by their mesh error only."""
    try:
        find_interpreter()
    except MissingDolfinxError as error:
        pytest.skip(str(error))
    case, onset = propagation._case(DESIGN, "case", 2e-3, None)
    coarse = replace(case, run=replace(case.run, mesh=COARSE))
    monkeypatch.setattr(propagation, "_case", lambda *_: (coarse, onset))
    found = {}
    for rung in ("network", "fem"):
        world = Plant(rung)
        world.play(120.0, {HEATED: 1500.0})
        found[rung] = [world.first(kind, HEATED) for kind in ("voltage_collapse", "thermal_runaway")]
        world.bank.close()
    np.testing.assert_allclose(found["network"], found["fem"], rtol=0.1)


def test_finite_elements_without_dolfinx_are_refused_before_the_run(monkeypatch):
    monkeypatch.setenv("TWIN_DOLFINX_PYTHON", "/nonexistent/python")
    find_interpreter.cache_clear()
    try:
        with pytest.raises(
            propagation.MissingEngineError, match=r"needs dolfinx.*\{model: network\}"
        ) as caught:
            Plant("fem")
        assert caught.value.exit_code == 2
    finally:
        find_interpreter.cache_clear()


def test_a_solver_that_fails_says_so_in_the_worlds_words(plant, monkeypatch):
    from pack_models.propagation.coupled import CoupledModule
    from pack_models.propagation.errors import SolverError

    def fail(*_):
        raise SolverError("temperature is not finite")

    world = plant()
    world.play(5.0, {HEATED: 20_000.0})
    monkeypatch.setattr(CoupledModule, "step", fail)
    with pytest.raises(RuntimeError, match="propagation: temperature is not finite"):
        world.play(5.0, {HEATED: 20_000.0})
