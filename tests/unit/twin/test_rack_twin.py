"""The twin of a pack finds what a simulated pack hides, within its stated sigma; and says when it cannot."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from twin.adapters.rack_twin import aged_curves, circuit_tables, loss_curve, supply_K
from twin.analytics.rack_twin import (
    AgedCurves,
    NotInformative,
    RackTwin,
    Telemetry,
    group_temperature,
    identify,
    pack_heat,
    remaining_life,
)
from twin.analytics.soc import FilterModel
from twin.assemble import assemble, known
from twin.fit import FitError, fit_rack, summary, write_fit
from twin.scenario.load import load
from twin.telemetry.frame import PackInfo
from twin.telemetry.reader import RunFolder

DESIGN, STEP_S, AMBIENT_K = "bus_14s2p", 20.0, 295.15
SCENARIO = f"""
about: A used pack for its twin to find.
seed: SEED
duration: 3 d
time: {{step: 20 s, bms_rate: plant}}
telemetry: {{period: 20 s, truth_period: 10 min}}
sites:
  - name: yard
    ambient: 22 degC
    racks:
      - pack:
          design: {DESIGN}
          initial_soc: 60 %
          spread: {{capacity: 2 %, resistance: 5 %, soc: 1 %}}
"""


@dataclass
class Hidden:
    capacity: np.ndarray  # per group, over nominal
    resistance: np.ndarray
    soc: np.ndarray


def simulate(
    seed: int, hours: float = 40.0, share: float = 0.5, blocks: tuple[int, int] = (15, 120)
) -> tuple[PackInfo, Telemetry, Hidden]:
    """A pack with cells aged at random under random blocks of power, as its sensors report it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.yaml"
        path.write_text(SCENARIO.replace("SEED", str(seed)))
        world = assemble(load(str(path), known()), Path(folder))
    shard, info = world.shards[0], world.packs[0]
    draw = np.random.default_rng(seed)
    n_cells = shard.cells.soc.size
    left, grown = 1.0 - 0.2 * draw.random(), 1.0 + 0.4 * draw.random()
    shard.cells.set_health(np.full(n_cells, left), np.full(n_cells, grown))
    power_W = float(shard.racks.converter_power_W[0]) * share
    n, want, until = int(hours * 3600.0 / STEP_S), 0.0, 0
    amps, volts, kelvin, bleed, cooling = [], [], [], [], []
    for k in range(n):
        if k >= until:
            soc = float(shard.cells.soc.mean())
            low, high = (-1.0, -0.3) if soc < 0.3 else (0.3, 1.0) if soc > 0.75 else (-1.0, 1.0)
            want = 0.0 if draw.random() < 0.2 else power_W * draw.uniform(low, high)
            until = k + int(draw.integers(*blocks))
        shard.rack_request_W[:] = want
        shard.step(int(STEP_S * 1e6), np.array([AMBIENT_K]))
        frame, commands = shard.sensors.frame, shard.bms.commands
        amps.append(float(frame.current_A[0]))
        volts.append(np.round(frame.group_voltage_V, 4))
        kelvin.append(frame.temperature_K.copy())
        bleed.append(commands.balancing.copy())
        cooling.append(float(commands.cooling[0]))
    rows = Telemetry(
        time_s=np.arange(1, n + 1) * STEP_S,
        current_A=np.array(amps),
        group_voltage_V=np.array(volts),
        temperature_K=np.array(kelvin),
        balancing=np.array(bleed),
        ambient_K=np.full(n, AMBIENT_K),
        cooling=np.array(cooling),
        supply_K=supply_K(DESIGN),
    )
    cells, start = shard.cells, shard.cells.layout.group_cell_start[:-1]
    capacity = np.add.reduceat(cells.capacity_Ah, start)
    return (
        info,
        rows,
        Hidden(
            capacity=capacity / info.capacity_Ah,
            resistance=info.n_parallel / np.add.reduceat(1.0 / cells.resistance_factor, start),
            soc=np.add.reduceat(cells.soc * cells.capacity_Ah, start) / capacity,
        ),
    )


AGED = AgedCurves(**(aged_curves(DESIGN) or {}))


@pytest.fixture(scope="module")
def model() -> FilterModel:
    return FilterModel(**circuit_tables(DESIGN))


@pytest.fixture(scope="module")
def found(model) -> list[tuple[RackTwin, Telemetry, Hidden]]:
    """Three packs, all but the first without their heat paths (the slow part)."""
    out = []
    for seed in (0, 2, 4):
        info, rows, hidden = simulate(seed)
        out.append((identify(info, model, rows, with_heat=seed == 0, aged=AGED), rows, hidden))
    return out


@pytest.mark.parametrize(("what", "sharp"), [("capacity", 0.004), ("resistance", 0.015), ("soc", 0.004)])
def test_hidden_truth_lies_within_the_stated_sigma(found, what, sharp):
    z, errors, sigmas = [], [], []
    for twin, _, hidden in found:
        value, truth = getattr(twin, what), getattr(hidden, what)
        z.append((value.value - truth) / value.sigma)
        errors.append(value.value - truth)
        sigmas.append(value.sigma)
    z = np.concatenate(z)
    assert np.abs(z).max() < 3.5
    assert np.mean(np.abs(z) < 2.0) > 0.9
    assert np.sqrt(np.mean(z**2)) > 0.05  # not so wide that nothing could fall outside
    assert np.median(np.concatenate(sigmas)) < sharp
    assert np.sqrt(np.mean(np.concatenate(errors) ** 2)) < sharp


def test_spread_of_the_cells_is_found(found):
    for what, truth in (("capacity", 0.02), ("resistance", 0.05)):
        spreads = np.array([twin.spread(getattr(twin, what)) for twin, _, _ in found])
        by_chance = truth / np.sqrt(2.0 * 13.0)  # what 14 groups drawn from that spread show
        assert np.abs(spreads[:, 0] - truth).max() < 3.0 * by_chance
        assert spreads[:, 0].mean() == pytest.approx(truth, rel=0.3)
        assert spreads[:, 1] == pytest.approx(by_chance, rel=0.6)


def test_heat_paths_are_found(found):
    """Truth: cells and coolant together; end plates and walls; film and flow in series with cooling."""
    from pack_models.catalogue import pack

    design = pack(DESIGN)
    twin = found[0][0]
    heat, paths, n = twin.heat, design.thermal, design.n_series * design.n_parallel
    assert heat is not None
    body = n * design.cell.heat_capacity_J_per_K + paths.coolant_heat_capacity_J_per_K
    assert abs(heat.capacity_J_per_K - body) < 2.5 * heat.capacity_sigma
    idle = n * paths.ambient_W_per_K + 2 * design.n_parallel * paths.module_end_W_per_K
    assert abs(heat.conductance_W_per_K - idle) < 2.5 * heat.conductance_sigma
    film, flow = n * paths.coolant_W_per_K, paths.coolant_flow_W_per_K * heat.cooled_at
    through = film * flow / (film + flow)
    assert abs(heat.cooled_W_per_K * heat.cooled_at - through) < 2.5 * heat.cooled_sigma * heat.cooled_at
    assert heat.capacity_sigma < 0.2 * body


def test_it_predicts_rows_it_has_not_seen(model):
    info, rows, _ = simulate(11)
    cut = int(0.7 * rows.time_s.size)
    twin = identify(info, model, rows.part(slice(0, cut)), aged=AGED)
    ahead = rows.part(slice(cut, None))
    kelvin = group_temperature(info, ahead.temperature_K)
    volts, soc = twin.voltage(twin.state, ahead.current_A, kelvin.mean(axis=1), STEP_S)
    busy = soc.min(axis=1) > 0.1
    miss = (volts - ahead.group_voltage_V)[busy]
    fresh = identify(info, model, rows.part(slice(0, cut)), with_heat=False, aged=AGED)
    fresh.state[:, 4] = fresh.state[:, 5] = 0.0  # the catalogue's own capacity and resistance
    untaught, _ = fresh.voltage(fresh.state, ahead.current_A, kelvin.mean(axis=1), STEP_S)
    assert np.sqrt(np.mean(miss**2)) < 0.012
    assert np.sqrt(np.mean(miss**2)) < 0.5 * np.sqrt(np.mean((untaught - ahead.group_voltage_V)[busy] ** 2))
    heat_W = pack_heat(twin.tables, ahead, kelvin, soc.mean(axis=1))
    seen_K = ahead.temperature_K.mean(axis=1)
    said_K = twin.temperature(seen_K[0], heat_W, ahead.ambient_K, ahead.coolant_K, ahead.cooling, STEP_S)
    assert np.sqrt(np.mean((said_K - seen_K) ** 2)) < 1.2


def test_data_that_cannot_tell_are_refused(model):
    info, rows, _ = simulate(3, hours=3.0, share=0.0)
    _, slow, _ = simulate(3, hours=12.0, share=0.25, blocks=(700, 701))
    with pytest.raises(
        NotInformative, match=r"yard/rack-1/pack-1: the capacity stays open .* charge moved over"
    ):
        identify(info, model, rows)
    with pytest.raises(NotInformative, match="150 rows of telemetry; at least 200"):
        identify(info, model, rows.part(slice(0, 150)))
    with pytest.raises(NotInformative, match=r"resistance stays open: .* only \d times; at least 40"):
        identify(info, model, slow, with_heat=False)
    deaf = rows.group_voltage_V.copy()
    deaf[:, 4] = np.nan
    silent = Telemetry(**{**vars(rows), "group_voltage_V": deaf})
    with pytest.raises(NotInformative, match="group 5 has fewer than"):
        identify(info, model, silent)


def test_life_goes_on_from_the_virtual_time_of_todays_loss():
    years = np.linspace(0.0, 60.0, 6001)
    loss = 0.05 * np.sqrt(years)
    life = remaining_life((0.9, 1e-9), years, loss, np.random.default_rng(1), end=0.8, pace_sigma=1e-9)
    assert life.median_a == pytest.approx((0.2 / 0.05) ** 2 - (0.1 / 0.05) ** 2, rel=1e-3)
    band = remaining_life((0.9, 0.002), years, loss, np.random.default_rng(1), end=0.8)
    assert band.low_a < 0.7 * band.median_a
    assert band.high_a > 1.3 * band.median_a
    assert remaining_life((0.79, 1e-6), years, loss, np.random.default_rng(1)).high_a == 0.0
    assert np.isinf(remaining_life((0.999, 1e-6), years[:100], loss[:100], np.random.default_rng(1)).median_a)


def test_loss_of_a_resting_duty_is_the_law():
    time_s = np.arange(0.0, 7 * 86400.0, 3600.0)
    years, loss = loss_curve("naumann_lfp", time_s, np.full(time_s.size, 0.5), np.full(time_s.size, 298.15))
    assert loss[12 * 10] == pytest.approx(1.2571e-5 * 0.60225 * np.sqrt(10 * 365.25 * 86400.0), rel=1e-6)
    assert years[-1] == 40.0


def test_a_run_folder_becomes_files(tmp_path):
    """Through the door: a run on disk, a YAML and a picture; truth is not read."""
    from twin.run import run_scenario

    text = SCENARIO.replace("SEED", "5").replace("duration: 3 d", "duration: 20 h")
    grid = "    frequency: {synthetic: grid_frequency, std: 60 mHz}\n"
    grid += "    dispatch: [{strategy: fcr_droop, power: 700 W}]\n"
    text = text.replace("    ambient: 22 degC\n", "    ambient: 22 degC\n" + grid)
    (tmp_path / "s.yaml").write_text(text)
    run_scenario(tmp_path / "s.yaml", tmp_path / "run", with_report=False)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(FitError, match=r"no rack 'yard/rack-7'; it has yard/rack-1"):
        fit_rack(run, "yard/rack-7")
    with pytest.raises(FitError, match="no ageing law named 'x'"):
        fit_rack(run, "yard/rack-1", law="x")
    (fit,) = fit_rack(run, "yard/rack-1")
    written = write_fit(tmp_path / "fit", [fit])
    assert [path.name for path in written] == ["yard_rack-1_pack-1.yaml", "yard_rack-1_pack-1.png"]
    assert all(path.stat().st_size > 1000 for path in written)
    assert not list((tmp_path / "fit").glob("*.part*"))
    numbers = summary(fit)
    truth = run.series("truth", ("soc",), "yard", "rack-1", "pack-1")["soc"][-1]
    said = numbers["soc_at_end"]
    assert abs(said["value"] - truth.mean()) < 4 * said["sigma"]
