"""Uncertainty studies and risk tables: small samples here; 200 samples and what they say in
results/propagation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pack_models.propagation import databank, risk, uncertainty
from pack_models.propagation.case import load_case, parse_case
from pack_models.propagation.errors import PropagationError

ROW: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("two_cells.yaml").read_text(encoding="utf-8"))
ROW["geometry"]["cells"]["count"] = [3, 1, 1]
ROW["triggers"][0]["W_per_m3"] = 8e6
ROW["run"]["until_s"] = 400
MESH = (6, 2, 2)


def test_drawn_values_follow_their_distributions() -> None:
    values = uncertainty.draw(400, 3)
    assert np.percentile(values["ceiling"], [5, 50, 95]) == pytest.approx([0.5, 1.0, 2.0], rel=0.02)
    assert values["E_anode"].std() == pytest.approx(0.01, rel=0.03)
    assert np.median(values["heat"]) == pytest.approx(1.0, rel=0.01)
    again = uncertainty.draw(400, 3)
    assert all(np.array_equal(values[k], again[k]) for k in values)


def test_a_sample_reaches_every_input() -> None:
    values = {k: float(v[0]) for k, v in uncertainty.draw(5, 1).items()}
    before, after = parse_case(ROW), parse_case(uncertainty.perturbed(ROW, values))
    a, b = before.sets[0], after.sets[0]
    assert b.heat_scale == pytest.approx(values["heat"])
    assert b.pathway_E_scale["anode"] == pytest.approx(values["E_anode"])
    assert a.short is not None
    assert b.short is not None
    assert b.short.energy_J_m3 == pytest.approx(a.short.energy_J_m3 * values["short"])
    assert b.ceiling_1_s == pytest.approx(0.1 * values["ceiling"])
    assert after.boundaries[0].h_W_m2K == pytest.approx(before.boundaries[0].h_W_m2K * values["film"])
    assert after.layout is not None
    assert [j.resistance_m2K_W for j in after.layout.joints] == pytest.approx([values["contact_m2K_W"]] * 6)


def test_small_study_is_deterministic_on_one_and_two_processes() -> None:
    case = parse_case(ROW, "row")
    one, two = (uncertainty.run_study(case, 6, seed=5, mesh=MESH, workers=w) for w in (1, 2))
    assert np.array_equal(one.runaway_s, two.runaway_s, equal_nan=True)
    summary = one.summary()
    assert summary["triggered_burnt"] == 6
    first = summary["first_interval_s"]
    assert first["happened"] > 0
    assert 5.0 < first["p5"] <= first["p50"] <= first["p95"] < 400.0
    p = summary["probability"]
    assert p["contained"]["p"] == pytest.approx(1.0 - first["happened"] / 6)
    assert p["next_cell_within_90_s"]["p"] <= p["next_cell_within_300_s"]["p"]


def test_wilson_interval() -> None:
    low, high = uncertainty.wilson(0, 200)
    assert (low, high) == pytest.approx((0.0, 0.0188), abs=2e-4)
    assert uncertainty.wilson(100, 200) == pytest.approx((0.4313, 0.5687), abs=2e-4)


def test_too_few_samples() -> None:
    with pytest.raises(PropagationError, match="samples: 1 is out of range"):
        uncertainty.run_study(parse_case(ROW), 1)


def test_learnt_table_predicts_its_own_network() -> None:
    case = parse_case(ROW, "row")
    table = risk.learn(
        case, samples=2, seed=2, soc=(1.0,), cooling=(1.0,), mesh=MESH, horizon_s=400.0, workers=1
    )
    # Mirror images share their runs: the right end seen from the right is the left end seen from the left.
    assert table.probability[2, 0, 0, 1] == table.probability[0, 0, 0, 1]
    found = table.predict(0, soc=1.0, cooling=1.0)
    assert [r.cell for r in found] == [1, 2]
    assert found[0].after_s[1] < found[1].after_s[1]
    checked = risk.check_on(table, case, 0, 1.0, 1.0, model="network")
    assert checked["agree"] == 2


def test_table_survives_the_disk_and_interpolates(tmp_path: Path) -> None:
    p = np.zeros((2, 2, 1, 2))
    p[0, :, 0, 1] = [0.0, 1.0]
    after = np.full((2, 2, 1, 2, 3), np.nan)
    after[0, 1, 0, 1] = [50.0, 60.0, 70.0]
    table = risk.RiskTable(
        "x", 100.0, np.array([0.5, 1.0]), np.array([1.0]), p, after, np.ones((2, 2, 1)), 1, 1.0
    )
    table.save(tmp_path / "x.json")
    again = risk.load_table(tmp_path / "x.json")
    (middle,) = again.predict(0, soc=0.75, cooling=0.3)
    assert middle.probability == pytest.approx(0.5)
    assert middle.after_s == (50.0, 60.0, 70.0)  # seen at one level only: that level's times
    assert again.predict(0, soc=0.5, cooling=1.0) == []
    with pytest.raises(PropagationError, match="cell: 5 is out of range"):
        again.predict(5, 1.0, 1.0)


def test_committed_table_speaks_for_early_warning() -> None:
    table = risk.load_table("pack3x4")
    full = table.predict(0, soc=1.0, cooling=1.0)
    assert full[0].cell == 1
    assert full[0].probability > 0.9
    assert 60.0 < full[0].after_s[1] < 180.0
    empty = {r.cell: r.probability for r in table.predict(0, soc=0.5, cooling=1.0)}
    assert sum(empty.values()) <= sum(r.probability for r in full)
    assert table.probability.shape == (12, 3, 2, 12)
    assert load_case("pack3x4").n_cells == 12


def test_catalogue_quantiles_are_those_of_the_databank() -> None:
    try:
        bank = databank.read_databank()
    except PropagationError as error:
        pytest.skip(str(error))
    table = databank.quantiles()
    for name in ("relative_heat", "heat_per_energy", "body_fraction", "mass_ejected_fraction", "event_s"):
        assert table[name] == pytest.approx(
            np.quantile(getattr(bank, name), table["levels"]).tolist(), rel=1e-3
        )
    assert table["tests"] == bank.body_fraction.size > 200
