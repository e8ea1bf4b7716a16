"""What every rung of the ageing ladder promises, and the world relies on."""

import numpy as np
import pytest

from twin.adapters.ageing import RUNGS, AgeingPlan, parameter_sets

N = 4
# Rungs that age each cell on its own; `pybamm` is one cell whose fate all share, and slow to build.
INDIVIDUAL = [
    (name, parameters)
    for name, rung in RUNGS.items()
    if rung.needs_parameters
    for parameters in parameter_sets()
]


def build(model, parameters):
    plan = AgeingPlan(model, parameters, None, 0.0)
    return RUNGS[model].build(plan, np.ones(N), np.full(N, 0.5), np.full(N, 298.15))


@pytest.fixture(params=INDIVIDUAL, ids=lambda param: f"{param[0]}-{param[1]}")
def ageing(request):
    return build(*request.param)


def keeps_its_promises(ageing):
    """New cells are new; use and time take and never give back; reports and errors are per cell."""
    assert (ageing.capacity_factor == 1.0).all()
    assert (ageing.resistance_factor == 1.0).all()
    left, grown, refreshed = [ageing.capacity_factor.copy()], [ageing.resistance_factor.copy()], 0
    for hour in range(48):
        soc = 0.5 + np.array([0.4, 0.4, 0.4, 0.38]) * np.sin(2 * np.pi * (hour + 1) / 24)
        refreshed += ageing.accumulate(soc, np.full(N, 298.15), 3600.0)
        left.append(ageing.capacity_factor.copy())
        grown.append(ageing.resistance_factor.copy())
    assert refreshed >= 2
    ageing.refresh()
    assert (np.diff(left, axis=0) <= 0.0).all()
    assert (np.diff(grown, axis=0) >= 0.0).all()
    assert (ageing.capacity_factor < 1.0).all()
    assert (ageing.capacity_factor > 0.95).all()
    assert all(values.shape == (N,) for values in ageing.outside().values())
    with pytest.raises(ValueError, match="cell 2 at state of charge nan"):
        ageing.accumulate(np.array([0.5, 0.5, np.nan, 0.5]), np.full(N, 303.15), 3600.0)


def test_none_is_nothing():
    assert RUNGS["none"].build(AgeingPlan("none", None, None, 0.0), *[np.ones(N)] * 3) is None


def test_laws_keep_the_promises(ageing):
    keeps_its_promises(ageing)


def test_pybamm_keeps_the_promises_and_its_fade_is_of_the_laws_order():
    cell, laws = build("pybamm", None), [build(*pair) for pair in INDIVIDUAL]
    for each in (cell, *laws):
        keeps_its_promises(each)
    losses = [1.0 - law.capacity_factor[0] for law in laws]
    assert 0.1 * min(losses) < 1.0 - cell.capacity_factor[0] < 2.0 * max(losses)
    assert 1.0 < cell.resistance_factor[0] < 1.05
    assert cell.soc == pytest.approx(0.5, abs=0.01)  # the physical cell stands where the bank stands


def test_heat_ages(ageing):
    for _ in range(48):
        ageing.accumulate(np.full(N, 0.5), np.array([288.0, 298.0, 308.0, 318.0]), 3600.0)
    ageing.refresh()
    assert (np.diff(ageing.capacity_factor) < 0.0).all()


def test_outside_is_reported_per_cell(ageing):
    for _ in range(48):
        ageing.accumulate(np.full(N, 0.5), np.array([298.0, 298.0, 298.0, 350.0]), 3600.0)
    found = ageing.outside()
    assert found["hotter_h"][3] > 40.0
    assert (found["hotter_h"][:3] == 0.0).all()
