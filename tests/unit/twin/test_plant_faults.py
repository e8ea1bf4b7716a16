"""Faults of the wiring: what the plant does, and what the BMS gets to see of it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.twin.test_plant import BASE, of_rack, simulate


def test_the_neighbour_of_an_open_fuse_carries_the_group(tmp_path):
    fault = "faults=[{kind: open_fuse, at: 60 s, target: lab/rack-1/pack-1/cell-5}]"
    world, tables = simulate(tmp_path, BASE, fault)
    cells = world.shards[0].cells
    amps = world.shards[0].pack_current_A[0]
    assert amps > 1.0
    assert abs(cells.cell_current_A[4]) < 1e-6
    assert cells.cell_current_A[5] == pytest.approx(amps, rel=1e-6)
    assert cells.cell_current_A[6] == pytest.approx(amps / 2, rel=0.2)
    text = tables["events"].query("source == 'fault'")["text"].iloc[0]
    assert text == "fuse of the cell opens"
    assert world.balances()["all"]["energy_residual"] < 1e-9


def test_stuck_contactors_carry_nothing_and_are_reported(tmp_path):
    fault = "faults=[{kind: contactor_stuck, at: 60 s, target: lab/rack-1/pack-1}]"
    _, tables = simulate(tmp_path, BASE, fault)
    truth = of_rack(tables["truth"], "rack-1").set_index("t_us")["current_A"]
    assert truth.loc[50_000_000] > 1.0
    assert (truth.loc[61_000_000:] == 0.0).all()
    said = of_rack(tables["events"], "rack-1").query("source == 'bms'")["text"].tolist()
    assert "MAIN_PLUS_STUCK_OPEN" in said
    assert not any("STUCK_OPEN" in text for text in of_rack(tables["events"], "rack-2")["text"])


def test_welded_contactors_stay_closed_after_a_trip(tmp_path):
    faults = (
        "faults=[{kind: contactor_welded, at: 60 s, target: lab/rack-1/pack-1}, "
        "{kind: contactor_stuck, at: 60 s, target: lab/rack-2/pack-1}, "
        "{kind: sensor_bias, at: 70 s, target: lab/rack-1/pack-1, sensor: voltage, channel: 3, "
        "bias_voltage: 2 V}]"
    )
    world, tables = simulate(tmp_path, BASE, faults)
    shard = world.shards[0]
    assert not shard.bms.commands.main_closed[0]  # the BMS opened ...
    assert shard.connected.tolist() == [True, False]  # ... the contactors did not
    assert shard.link.voltage_V[0] == pytest.approx(shard.cells.pack_voltage_V[0])
    said = of_rack(tables["events"], "rack-1").query("source == 'bms'")["text"].tolist()
    assert "MAIN_PLUS_WELDED" in said
    assert np.isfinite(tables["truth"]["current_A"].astype(float)).all()
