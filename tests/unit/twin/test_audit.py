"""Audit of a run against PyBaMM's DFN: which racks, which groups, and what it finds in a short run."""

import numpy as np
import pytest

from twin.adapters.cells import CellModelError
from twin.audit import AuditError, _groups_of_interest, audit_run, chosen_racks, write_audit
from twin.run import run_scenario
from twin.telemetry.reader import RunFolder

SCENARIO = """
about: A module of SPMe cells beside one of circuits, under a load that changes.
seed: 4
duration: 3 min
time: {step: 5 s, zoom: {step: 5 s, after: 0 s}, bms_rate: plant}
telemetry: {period: 15 s, truth_period: 15 s}
sites:
  - name: bench
    ambient: 25 degC
    dispatch: [{strategy: follow_power, power: 600 W}]
    racks:
      - {name: physics, pack: {design: bus_14s2p, initial_soc: 60 %, cells: {model: spme}}}
      - {name: circuit, pack: {design: bus_14s2p, initial_soc: 60 %, cells: {model: ecm}}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    path = folder / "audited.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return RunFolder(run_scenario(path, folder / "run", with_report=False).folder)


def test_one_percent_but_at_least_one_rack():
    racks = [("site", f"rack-{k}") for k in range(250)]
    assert len(chosen_racks(racks[:3], seed=1)) == 1
    assert len(chosen_racks(racks, seed=1)) == 3
    assert chosen_racks(racks, seed=1) == chosen_racks(racks, seed=1)
    assert chosen_racks(racks, seed=1) != chosen_racks(racks, seed=2)


def test_the_extremes_are_followed_first():
    soc = np.array([0.5, 0.4, 0.6, 0.5, 0.5])
    temperature_K = np.array([300.0, 300.0, 300.0, 300.0, 305.0])
    assert _groups_of_interest(soc, temperature_K, 3).tolist() == [1, 2, 4]
    assert _groups_of_interest(soc, temperature_K, 99).tolist() == [0, 1, 2, 3, 4]


def test_physics_is_nearer_to_the_dfn_than_the_circuit(run, tmp_path):
    physics = audit_run(run, ["physics-1"], groups=2)
    circuit = audit_run(run, ["circuit-1"], groups=2)
    for audit in (physics, circuit):
        assert audit.n_audited == 1
        assert audit.n_racks == 2
        assert [row.samples for row in audit.rows] == [11, 11]
        assert not any(row.stopped for row in audit.rows)
    # Channels of the BMS are within 2 mV, and 14 cells differ by 4 % in their resistance.
    assert physics.rmse_V < 5e-3
    assert circuit.rmse_V < 15e-3
    assert {row.cells for row in physics.rows} == {"spme"}
    assert "1 of 2 racks, 2 groups, spme against dfn" in physics.line
    write_audit(physics, tmp_path / "audit.csv")
    assert (tmp_path / "audit.csv").read_text(encoding="utf-8").count("physics-1") == 2


def test_an_unknown_rack_is_named(run):
    with pytest.raises(AuditError, match=r"has no rack 'other'; it has physics-1, circuit-1"):
        audit_run(run, ["other"])


def test_cells_without_a_parameter_set_say_which_have_one(tmp_path):
    path = tmp_path / "lfp.yaml"
    path.write_text(SCENARIO.replace("bus_14s2p", "lfp280_1p240s"), encoding="utf-8")
    with pytest.raises(CellModelError, match=r"lfp280.* no cells: {model: spme} of them; choose .*bus_14s2p"):
        run_scenario(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()
