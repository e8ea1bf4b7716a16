"""The resolved view: reads back as the same scenario; hash; JSON Schema from the same metadata."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from known import KNOWN
from test_scenario_load import FULL

from twin.scenario.json_schema import json_schema
from twin.scenario.load import loads
from twin.scenario.resolved import canonical_json, resolved, scenario_hash
from twin.scenario.schema import Scenario

BAD = Path(__file__).resolve().parents[2] / "bad_scenarios"
EXTRA = """
    load: {package: demandlib/g25, annual: 800 MWh}
    pv: {file: pv.csv, peak: 3 kW, unit: "%", gaps: hold, time: t}
"""


def again(scenario: Scenario) -> Scenario:
    text = yaml.safe_dump(resolved(scenario, KNOWN), sort_keys=False, allow_unicode=True)
    return loads(text, KNOWN, label=f"{scenario.name}.yaml")


def test_resolved_reads_back_as_the_same_scenario() -> None:
    scenario = loads(FULL, KNOWN, label="full.yaml")
    assert again(scenario) == scenario
    with_peak = FULL.replace("    ambient: 20 degC\n", "    ambient: 20 degC" + EXTRA)
    scenario = loads(with_peak, KNOWN, label="full.yaml")
    assert scenario.sites[1].pv is not None
    assert (scenario.sites[1].pv.scale, scenario.sites[1].pv.unit) == (3000.0, "%")
    assert again(scenario) == scenario


def test_resolved_shows_defaults_in_operators_units() -> None:
    view = resolved(loads(FULL, KNOWN), KNOWN)
    assert view["telemetry"] == {"period": "10 s", "truth_period": "2 min"}
    assert view["sites"][1]["racks"][0]["pack"]["sensors"]["voltage_noise"] == "0.5 mV"
    assert view["faults"][0] == {
        "kind": "internal_short",
        "at": "3 d 04:12:07",
        "until": None,
        "target": "depot/new-2/pack-3/cell-9",
        "resistance": "40 ohm",
    }


def test_hash_sees_meaning_not_spelling() -> None:
    base = scenario_hash(loads(FULL, KNOWN), KNOWN)
    spelled = FULL.replace("7 d", "168 h").replace("40 ohm", "0.04 kohm").replace("about:", "# why\nabout:")
    assert scenario_hash(loads(spelled, KNOWN, label="other.yaml"), KNOWN) == base
    explicit = FULL.replace("converter: {power: 60 kW}", "converter: {power: 60 kW, no_load_loss: 0.4 %}")
    assert scenario_hash(loads(explicit, KNOWN), KNOWN) == base
    for change in (
        ("40 ohm", "41 ohm"),
        ("seed: 7", "seed: 8"),
        ("home_02", "home_03"),
        ("25 mHz", "26 mHz"),
    ):
        assert scenario_hash(loads(FULL.replace(*change), KNOWN), KNOWN) != base
    assert json.loads(canonical_json(loads(FULL, KNOWN), KNOWN))["seed"] == 7


SCHEMA = json_schema(KNOWN)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def as_editors_see_it(text: str) -> Any:
    return json.loads(json.dumps(yaml.safe_load(text), default=str))


def test_json_schema_is_one_and_serialisable() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


def test_valid_scenarios_validate() -> None:
    for text in (FULL, "include: base.yaml\nseed: 3\n"):
        assert [e.message for e in VALIDATOR.iter_errors(as_editors_see_it(text))] == []
    view = json.loads(json.dumps(resolved(loads(FULL, KNOWN), KNOWN)))
    assert [e.message for e in VALIDATOR.iter_errors(view)] == []


@pytest.mark.parametrize(
    "name",
    [
        *("unknown_key", "unknown_key_nested", "missing_keys", "missing_nested", "wrong_types", "no_unit"),
        *(
            "wrong_unit",
            "unit_case",
            "unknown_pack",
            "unknown_strategy",
            "unknown_detector",
            "unknown_models",
        ),
        *(
            "bad_names",
            "plugin_without_word",
            "profile_unknown_package",
            "profile_no_source",
            "racks_is_a_number",
        ),
        *("plugin_missing_parameters", "not_finite", "decimal_comma", "profile_peak", "profile_two_sources"),
    ],
)
def test_structurally_bad_scenarios_do_not(name: str) -> None:
    text = (BAD / f"{name}.yaml").read_text(encoding="utf-8")
    assert not VALIDATOR.is_valid(as_editors_see_it(text))
