"""The order of things in the world: what acts when, and who sees what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from twin.assemble import assemble, known
from twin.scenario.load import loads
from twin.telemetry.sink import RunWriter

BASE = """
about: A small site.
seed: 4
duration: 3 min
time: {step: 1 s, zoom: {step: 100 ms, after: 5 s}}
telemetry: {period: 1 s, truth_period: 1 s}
sites:
  - name: lab
    ambient: 25 degC
    dispatch: [{strategy: follow_power, power: 200 W}]
    racks: [{count: 2, pack: {design: bus_14s2p, initial_soc: 60 %}}]
"""


def simulate(tmp_path: Path, text: str = BASE, *overrides: str):
    world = assemble(loads(text, known(), overrides=overrides, label="lab.yaml"), tmp_path)
    out = tmp_path / "run"
    with RunWriter(out, packs=world.packs, code_names=world.code_names) as writer:
        world.run(writer)
        run = writer.finish_tables()
        tables = {
            "measured": run.measured(),
            "truth": run.truth(),
            "events": run.events(),
            "meter": run.meter(),
        }
    return world, tables


def of_rack(table, rack):
    return table[table["rack"].astype(str) == rack].reset_index(drop=True)


def test_site_power_is_served_and_split_evenly(tmp_path):
    world, tables = simulate(tmp_path)
    meter = tables["meter"]
    settled = meter[meter["t_us"] > 60e6]
    assert settled["power_served_W"].to_numpy() == pytest.approx(200.0, rel=2e-3)
    one, two = (of_rack(tables["truth"], f"rack-{k}")["current_A"].to_numpy()[90:] for k in (1, 2))
    assert one == pytest.approx(two, rel=0.01)
    assert world.balances()["all"]["energy_residual"] < 1e-9
    assert world.balances()["all"]["charge_residual"] < 1e-9


def test_current_flows_only_after_the_contactors_have_closed(tmp_path):
    _, tables = simulate(tmp_path)
    truth, events = of_rack(tables["truth"], "rack-1"), tables["events"]
    running = events[(events["text"] == "RUN") & (events["rack"].astype(str) == "rack-1")]["t_us"].iloc[0]
    assert 0 < running < 5e6
    before = truth[truth["t_us"] <= running]
    assert np.all(before["current_A"] == 0.0)
    assert truth["current_A"].iloc[-1] > 1.0


def test_a_fault_begins_after_the_step_that_ends_at_its_time(tmp_path):
    faults = "faults=[{kind: internal_short, at: 60 s, target: lab/rack-2/pack-1/cell-5, resistance: 1 ohm}]"
    world, tables = simulate(tmp_path, BASE, faults)
    event = tables["events"].query("source == 'fault'").iloc[0]
    assert event["t_us"] == 60_000_000
    assert event["cell"] == 5
    truth = of_rack(tables["truth"], "rack-2").set_index("t_us")
    assert truth.loc[60_000_000, "short_current_A"] == 0.0
    assert truth.loc[61_000_000, "short_current_A"] == pytest.approx(3.7, abs=0.3)  # V / 1 ohm
    assert np.all(of_rack(tables["truth"], "rack-1")["short_current_A"] == 0.0)
    assert any(w.start_us == 60_000_000 and w.reasons == ["fault"] for w in world.clock.windows)


def test_a_fault_can_end(tmp_path):
    faults = (
        "faults=[{kind: internal_short, at: 60 s, until: 90 s, target: lab/rack-1/pack-1/cell-1, "
        "resistance: 1 ohm}]"
    )
    _, tables = simulate(tmp_path, BASE, faults)
    truth = of_rack(tables["truth"], "rack-1").set_index("t_us")
    assert truth.loc[90_000_000, "short_current_A"] > 3.0
    assert truth.loc[91_000_000, "short_current_A"] == 0.0


@pytest.mark.parametrize(
    ("fault", "column", "expected"),
    [
        ("kind: sensor_bias, sensor: current, bias_current: 3 A", "current_A", 3.0),
        ("kind: sensor_bias, sensor: pack_voltage, bias_voltage: 1 V", "pack_voltage_V", 1.0),
    ],
)
def test_a_biased_sensor_changes_what_is_measured_not_what_is(tmp_path, fault, column, expected):
    text = f"faults=[{{{fault}, at: 100 s, target: lab/rack-1/pack-1}}]"
    _, tables = simulate(tmp_path, BASE, text)
    measured = of_rack(tables["measured"], "rack-1").set_index("t_us")[column].astype(float)
    step = measured.loc[101_000_000:120_000_000].mean() - measured.loc[80_000_000:100_000_000].mean()
    assert step == pytest.approx(expected, abs=0.05)
    truth = of_rack(tables["truth"], "rack-1").set_index("t_us")["current_A"].astype(float)
    assert truth.loc[110_000_000] == pytest.approx(truth.loc[95_000_000], abs=0.1)


def test_stuck_and_silent_sensors(tmp_path):
    text = (
        "faults=[{kind: sensor_stuck, sensor: voltage, channel: 2, at: 100 s, target: lab/rack-1/pack-1},"
        "{kind: sensor_dropout, sensor: temperature, channel: 1, at: 100 s, target: lab/rack-1/pack-1}]"
    )
    _, tables = simulate(tmp_path, BASE, text)
    measured = of_rack(tables["measured"], "rack-1").set_index("t_us")
    second = measured["group_voltage_V"].map(lambda v: v[1])
    assert second.loc[101_000_000:].nunique() == 1
    assert second.loc[:100_000_000].nunique() > 10
    first = measured["temperature_K"].map(lambda v: v[0])
    assert first.loc[101_000_000:].isna().all()
    assert first.loc[:100_000_000].notna().all()


def test_a_weak_cell_and_failed_cooling(tmp_path):
    text = (
        "faults=[{kind: cell_outlier, target: lab/rack-1/pack-1/cell-1, resistance: 500 %},"
        "{kind: cooling_failure, at: 10 s, target: lab/rack-2}]"
    )
    world, tables = simulate(tmp_path, BASE, text, "sites.0.dispatch.0.power=900 W")
    lowest = of_rack(tables["truth"], "rack-1")["voltage_min_V"].iloc[-1]
    assert lowest < of_rack(tables["truth"], "rack-2")["voltage_min_V"].iloc[-1] - 0.01
    assert list(world.shards[0].cooling_works) == [1.0, 0.0]


def test_two_parallel_packs_share_one_bus(tmp_path):
    _, tables = simulate(tmp_path, BASE, "sites.0.racks.0.packs_per_rack=2", "sites.0.racks.0.count=1")
    last = tables["truth"][tables["truth"]["t_us"] == 180_000_000]
    assert len(last) == 2
    assert last["current_A"].sum() * 14 * 3.7 == pytest.approx(205, rel=0.05)


def test_the_meter_row_is_the_mean_of_its_period(tmp_path):
    fine = simulate(tmp_path, BASE)[1]["meter"]
    coarse = simulate(tmp_path / "b", BASE, "telemetry.period=10 s")[1]["meter"]
    mean = fine["power_served_W"].to_numpy().reshape(-1, 10).mean(axis=1)
    assert coarse["power_served_W"].to_numpy() == pytest.approx(mean, rel=1e-12)


def test_a_short_grows_straight_in_the_logarithm(tmp_path):
    faults = (
        "faults=[{kind: internal_short, at: 20 s, target: lab/rack-1/pack-1/cell-3, resistance: 100 ohm, "
        "grows_to: 1 ohm, within: 100 s}]"
    )
    _, tables = simulate(tmp_path, BASE, faults)
    amps = of_rack(tables["truth"], "rack-1").set_index("t_us")["short_current_A"].astype(float)
    volts = of_rack(tables["truth"], "rack-1").set_index("t_us")["voltage_min_V"].astype(float)
    for second, ohm in ((20, np.inf), (45, 10**1.5), (70, 10.0), (120, 1.0), (170, 1.0)):
        at = second * 1_000_000
        # The short of a second acts in the plant step after it.
        assert amps.loc[at] == pytest.approx(volts.loc[at] / ohm, rel=0.06)
    assert len(tables["events"].query("source == 'fault'")) == 1


def test_a_module_beyond_its_onset_belongs_to_the_abuse_model(tmp_path):
    """Two packs, one with a hard short: only its module is handed over, and all ledgers close."""
    text = BASE.replace("duration: 3 min", "duration: 90 s").replace(
        "initial_soc: 60 %",
        "initial_soc: 95 %, propagation: {model: network, onset: 60 degC}, sensors: {gas: true}",
    )
    faults = (
        "faults=[{kind: internal_short, at: 30 s, target: lab/rack-2/pack-1/cell-5, resistance: 60 mohm}]"
    )
    world, tables = simulate(tmp_path, text, faults)
    events = tables["events"]
    said = events[(events["source"] == "plant") & (events["kind"] != "out_of_range")]
    assert list(said["kind"].astype(str)) == ["abuse_onset", "voltage_collapse", "venting", "thermal_runaway"]
    assert set(said["rack"].astype(str)) == {"rack-2"}
    assert set(said["cell"]) == {5}
    reasons = {reason for window in world.clock.windows for reason in window.reasons}
    assert {"abuse_onset", "venting", "thermal_runaway"} <= reasons
    healthy, hot = (of_rack(tables["truth"], f"rack-{k}") for k in (1, 2))
    assert hot["temperature_max_K"].max() > 573.0
    assert healthy["temperature_max_K"].max() < 310.0
    assert (healthy["state_of_safety_min"] == 1.0).all()
    assert hot["state_of_safety_min"].iloc[-1] == 0.0
    assert (hot["cells_burnt"].iloc[-1], healthy["cells_burnt"].iloc[-1]) == (1.0, 0.0)
    collapse = int(said["t_us"].iloc[1])
    volts = hot.set_index("t_us")["voltage_min_V"].astype(float)
    # The twin in parallel feeds what is left of the dead cell, so the group does not fall to zero.
    assert volts[volts.index > collapse].max() < 2.5 < volts[volts.index < collapse].min()
    measured = [of_rack(tables["measured"], f"rack-{k}") for k in (1, 2)]
    assert measured[0]["gas_fraction"].max() < 0.001
    assert measured[1]["gas_fraction"].max() > 0.01
    assert measured[1]["pressure_Pa"].isna().all()
    balances = world.balances()["all"]
    assert balances["energy_residual"] < 1e-9
    assert balances["charge_residual"] < 1e-9
    assert balances["abuse_energy_heat_in_J"] > 1e3


def test_efficiency_map_of_the_converter(tmp_path):
    """Losses of the row that stands at the bus voltage, 52 V, not of those far from it."""
    rows = (
        "sites.0.converter={power: 1 kW, map: [{voltage: 50 V, no_load_loss: 10 %, proportional_loss: 0, "
        "quadratic_loss: 0}, {voltage: 60 V, no_load_loss: 20 %, proportional_loss: 0, quadratic_loss: 0}]}"
    )
    world, tables = simulate(tmp_path, BASE, rows)
    volts = world.shards[0].cells.pack_voltage_V
    expected = (100.0 + 10.0 * (volts - 50.0)).sum()
    assert tables["meter"]["converter_loss_W"].iloc[-1] == pytest.approx(expected, rel=1e-3)
    assert world.balances()["all"]["energy_residual"] < 1e-9
