"""The stepping door: heat in, temperatures out, flags that latch, exact restore, the same as a whole run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pack_models.propagation.case import load_case, parse_case
from pack_models.propagation.errors import CaseError, PropagationError
from pack_models.propagation.kinetics import PATHWAYS
from pack_models.propagation.run import run_case
from pack_models.propagation.session import open_session

SMALL: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("two_cells.yaml").read_text(encoding="utf-8"))
QUIET = parse_case({k: v for k, v in SMALL.items() if k != "triggers"}, "quiet")


def test_heat_balance_of_a_cold_pack() -> None:
    with open_session(QUIET) as session:
        for _ in range(20):
            out = session.step(5.0, heat_W=np.array([20.0, 5.0]), ambient_K=298.15)
    assert out.energy_J["abuse"] == pytest.approx(2500.0)
    assert out.energy_J["imbalance"] < 1e-10
    assert out.temperature_mean_K[0] > out.temperature_mean_K[1] > 298.15
    assert not out.voltage_collapsed.any()
    assert (out.state_of_safety == 1.0).all()


def test_runaway_vent_and_voltage_collapse_latch() -> None:
    with open_session(QUIET) as session:
        heat = np.array([300.0, 0.0])
        seen = [session.step(1.0, heat if i < 60 else None) for i in range(100)]
    last = seen[-1]
    assert last.runaway[0]
    assert last.vented[0]
    assert last.voltage_collapsed[0]
    assert last.gas_mol[0] > 0
    assert last.conversion[0, PATHWAYS.index("sei")] > 0.9
    assert last.state_of_safety[0] == 0.0
    collapsed, vented, runaway = (
        next(i for i, s in enumerate(seen) if getattr(s, f)[0])
        for f in ("voltage_collapsed", "vented", "runaway")
    )
    assert max(collapsed, vented) < runaway, "runaway comes last"
    for flag in ("vented", "voltage_collapsed", "runaway"):
        values = [bool(getattr(s, flag)[0]) for s in seen]
        assert values == sorted(values)
    assert max(s.reaction_heat_W[0] for s in seen) > 500.0


def test_restore_gives_the_same_bits() -> None:
    with open_session(parse_case(SMALL), "network") as session:
        for _ in range(40):
            session.step(1.0)
        saved = pickle.loads(pickle.dumps(dict(session.state)))
        first = [session.step(1.0).temperature_mean_K for _ in range(30)]
        session.restore(saved)
        second = [session.step(1.0).temperature_mean_K for _ in range(30)]
    assert np.array_equal(np.array(first), np.array(second))


def test_stepping_agrees_with_the_whole_run() -> None:
    case = parse_case({**SMALL, "run": {**SMALL["run"], "until_s": 80.0, "step": {"largest_s": 1.0}}})
    whole = run_case(case, "network")
    with open_session(case, "network") as session:
        for _ in range(80):
            out = session.step(1.0)
    assert out.temperature_mean_K == pytest.approx(whole.traces.mean_K[-1], abs=0.05)


def test_cooling_and_ambient_act() -> None:
    def after(cooling: float, ambient_K: float) -> float:
        with open_session(QUIET, start_K=np.array([330.0, 330.0])) as session:
            for _ in range(20):
                out = session.step(10.0, ambient_K=ambient_K, cooling=cooling)
        return float(out.temperature_mean_K[0])

    assert after(1.0, 298.15) < after(0.0, 298.15) < after(0.0, 350.0)


def test_start_and_charge_are_taken_over() -> None:
    with open_session(QUIET, start_K=np.array([310.0, 320.0]), soc=np.array([0.2, 1.0])) as session:
        out = session.step(1e-3)
        assert out.temperature_mean_K == pytest.approx([310.0, 320.0], abs=0.05)
        assert session.case.soc.tolist() == [0.2, 1.0]


def test_one_node_per_cell_says_what_it_cannot_see() -> None:
    with open_session(load_case("pack3x4"), "lumped") as session:
        assert session.warning is not None
        assert "cannot see propagation along x" in session.warning


def test_fem_session_agrees_with_network(dolfinx: str) -> None:
    data = {k: v for k, v in SMALL.items() if k != "triggers"}
    fine = {"until_s": 60, "mesh": {"network": [16, 6, 6], "fem": [16, 6, 6]}, "front_correction": False}
    case = parse_case({**data, "run": fine}, "fine")
    outs = {}
    for model in ("network", "fem"):
        with open_session(case, model, start_K=np.array([320.0, 300.0])) as session:  # type: ignore[arg-type]
            for _ in range(10):
                outs[model] = session.step(2.0, heat_W=np.array([50.0, 0.0]), ambient_K=290.0, cooling=0.5)
            if model == "fem":
                with pytest.raises(PropagationError, match="use network"):
                    _ = session.state
    assert outs["fem"].temperature_mean_K == pytest.approx(outs["network"].temperature_mean_K, abs=0.5)
    assert outs["fem"].energy_J["imbalance"] < 1e-6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dt_s": 0.0}, "dt_s: 0.0 is out of range; expected more than 0"),
        ({"dt_s": 1.0, "heat_W": np.zeros(3)}, "heat_W: expected 2 finite numbers"),
        ({"dt_s": 1.0, "heat_W": np.array([np.nan, 0.0])}, "heat_W: expected 2 finite numbers"),
        ({"dt_s": 1.0, "cooling": 1.5}, "cooling: 1.5 is out of range; expected between 0 and 1"),
        ({"dt_s": 1.0, "ambient_K": 25.0}, "ambient_K: 25.0 is out of range"),
    ],
)
def test_wrong_steps_are_refused(arguments: dict[str, object], said: str) -> None:
    with open_session(QUIET) as session, pytest.raises(PropagationError, match=said):
        session.step(**arguments)  # type: ignore[arg-type]


def test_wrong_openings_are_refused() -> None:
    with pytest.raises(CaseError, match="expected one of network, fem, lumped"):
        open_session(QUIET, "spectral")  # type: ignore[arg-type]
    with pytest.raises(CaseError, match="start_K: expected 2 temperatures"):
        open_session(QUIET, start_K=np.array([300.0]))
    with pytest.raises(CaseError, match="soc: expected 2 numbers between 0 and 1"):
        open_session(QUIET, soc=np.array([0.5, 1.5]))
