"""Ageing acts on the cells of a running world, and the run says what it did."""

from pathlib import Path

import numpy as np
import pytest

from twin.assemble import assemble, known
from twin.scenario.load import load

SCENARIO = """
about: A pack that has lain in a hot store for three years.
duration: 6 h
time: {step: 60 s, bms_rate: plant}
telemetry: {period: 10 min, truth_period: 1 h}
sites:
  - name: yard
    ambient: 35 degC
    racks:
      - pack:
          design: bus_14s2p
          initial_soc: 60 %
          spread: {capacity: 0 %, resistance: 0 %}
          ageing: {model: MODEL}
"""


def shard_of(tmp_path: Path, ageing: str):
    path = tmp_path / "s.yaml"
    path.write_text(SCENARIO.replace("{model: MODEL}", ageing))
    return assemble(load(str(path), known()), tmp_path).shards[0]


def test_the_cells_are_the_aged_ones(tmp_path):
    new = shard_of(tmp_path, "{model: none}")
    old = shard_of(
        tmp_path, "{model: semi_empirical, parameters: schmalstieg_nmc, stored: 1095 d, spread: 10 %}"
    )
    assert new.ageing is None
    left, grown = old.ageing.capacity_factor, old.ageing.resistance_factor
    assert 0.75 < left.min() < left.max() < 0.95
    assert left.std() > 0.003
    assert old.cells.capacity_Ah == pytest.approx(new.cells.capacity_Ah * left)
    assert old.cells.resistance_factor == pytest.approx(grown)

    before = old.ageing.capacity_factor.copy()
    for _ in range(60):
        old.step(60_000_000, np.array([308.15]))
    assert (old.ageing.capacity_factor < before).all()
    assert old.cells.capacity_Ah == pytest.approx(new.cells.capacity_Ah * old.ageing.capacity_factor)
    balance = old.cells.balances()
    assert abs(balance["charge_residual_C"][0]) <= 1e-9 * max(balance["charge_throughput_C"][0], 1.0)


def test_a_declared_knee_bends_the_world_too(tmp_path):
    shard = shard_of(tmp_path, "{model: semi_empirical, parameters: naumann_lfp, knee_cycles: 400}")
    bank = shard.ageing
    for half in range(900):
        bank.accumulate(np.full(bank.n_cells, 0.95 if half % 2 else 0.05), np.full(28, 298.15), 3600.0)
    bank.refresh()
    assert bank.parts[0, 4] < 1 - bank.parts[0, 0] - bank.parts[0, 2]
    assert bank.capacity_factor[0] == pytest.approx(bank.parts[0, 4])
