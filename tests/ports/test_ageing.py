"""What every rung of the ageing ladder promises, and what the world does with it."""

import numpy as np
import pytest

from twin.adapters.ageing import RUNGS, AgeingPlan, parameter_sets

N = 4
RUNG_AND_SET = [
    (name, parameters)
    for name, rung in RUNGS.items()
    if name != "none"
    for parameters in (parameter_sets() if rung.needs_parameters else [None])
]


@pytest.fixture(params=RUNG_AND_SET, ids=lambda param: f"{param[0]}-{param[1]}")
def ageing(request):
    model, parameters = request.param
    plan = AgeingPlan(model, parameters, None, 0.0)
    return RUNGS[model].build(plan, np.ones(N), np.full(N, 0.5), np.full(N, 298.15))


def test_none_is_nothing():
    assert RUNGS["none"].build(AgeingPlan("none", None, None, 0.0), *[np.ones(N)] * 3) is None


def test_new_cells_are_new(ageing):
    assert (ageing.capacity_factor == 1.0).all()
    assert (ageing.resistance_factor == 1.0).all()


def test_use_and_time_take_capacity_and_never_give_it_back(ageing):
    history = [ageing.capacity_factor.copy()]
    grown = [ageing.resistance_factor.copy()]
    refreshed = 0
    for hour in range(24 * 4):
        soc = 0.5 + np.array([0.0, 0.1, 0.2, 0.4]) * np.sin(2 * np.pi * (hour + 1) / 12)
        refreshed += ageing.accumulate(soc, np.full(N, 303.15), 3600.0)
        history.append(ageing.capacity_factor.copy())
        grown.append(ageing.resistance_factor.copy())
    assert refreshed >= 4
    assert (np.diff(history, axis=0) <= 0.0).all()
    assert (np.diff(grown, axis=0) >= 0.0).all()
    assert (history[-1] < 1.0).all()
    assert (history[-1] > 0.9).all()


def test_heat_ages(ageing):
    for _ in range(48):
        ageing.accumulate(np.full(N, 0.5), np.array([288.0, 298.0, 308.0, 318.0]), 3600.0)
    ageing.refresh()
    assert (np.diff(ageing.capacity_factor) < 0.0).all()


def test_outside_is_reported_per_cell(ageing):
    for _ in range(48):
        ageing.accumulate(np.full(N, 0.5), np.array([298.0, 298.0, 298.0, 350.0]), 3600.0)
    found = ageing.outside()
    assert all(values.shape == (N,) for values in found.values())
    assert found["hotter_h"][3] > 40.0
    assert (found["hotter_h"][:3] == 0.0).all()
