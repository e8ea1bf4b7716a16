"""Whatever comes in, the loader answers with a Scenario or a ScenarioError, never with anything else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from known import KNOWN
from test_scenario_load import FULL

from twin.scenario.errors import ScenarioError
from twin.scenario.load import load, loads
from twin.scenario.resolved import resolved
from twin.scenario.schema import Scenario

FEW = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
LINES = FULL.strip().splitlines()
KEYS = ["about", "duration", "sites", "name", "racks", "pack", "design", "ambient", "faults", "<<", "include"]
WORDS = [
    "depot",
    "1 d",
    "-1",
    "bus_14s",
    "25 degC",
    "internal_short",
    "depot/rack-1",
    "nan",
    "1e400",
    "~",
    "*a",
]


def check(error: ScenarioError) -> None:
    assert error.problems
    assert str(error).endswith("nothing was run.")


def survives(text: str, *overrides: str) -> Scenario | None:
    try:
        return loads(text, KNOWN, overrides)
    except ScenarioError as error:
        check(error)
        return None


@FEW
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    survives(text)


@FEW
@given(st.text(alphabet="abk:-{}[]&*!|>'\"%@`#,?~ \n\t0\\U\u2028", max_size=80))
def test_text_full_of_yaml_marks(text: str) -> None:
    survives(text)


@FEW
@given(st.binary(max_size=200))
def test_any_bytes_in_a_file(data: bytes) -> None:
    path = Path(FUZZ_FOLDER.name) / "fuzz.yaml"
    path.write_bytes(data)
    try:
        load(path, KNOWN)
    except ScenarioError as error:
        check(error)


@FEW
@given(st.data())
def test_a_good_scenario_with_one_line_spoilt(data: st.DataObject) -> None:
    lines = list(LINES)
    at = data.draw(st.integers(0, len(lines) - 1))
    how = data.draw(st.sampled_from(["drop", "double", "cut", "word", "indent"]))
    if how == "drop":
        del lines[at]
    elif how == "double":
        lines.insert(at, lines[at])
    elif how == "cut":
        lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
    elif how == "word":
        words = lines[at].split(" ")
        words[data.draw(st.integers(0, len(words) - 1))] = data.draw(
            st.sampled_from([*WORDS, "{}", "[]", "x:"])
        )
        lines[at] = " ".join(words)
    else:
        lines[at] = " " * data.draw(st.integers(0, 6)) + lines[at].lstrip()
    scenario = survives("\n".join(lines))
    if scenario is not None:
        view = yaml.safe_dump(resolved(scenario, KNOWN), sort_keys=False)
        assert loads(view, KNOWN) == scenario


VALUES = st.recursive(
    st.one_of(st.sampled_from(WORDS), st.integers(), st.booleans(), st.none(), st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


@FEW
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_any_structure_of_likely_words(tree: dict[str, Any]) -> None:
    survives(yaml.safe_dump(tree))


@FEW
@given(
    st.one_of(
        st.text(max_size=40), st.from_regex(r"[a-z\[\]0-9.]{0,20}=[a-z0-9 \[\]{}:*&]{0,12}", fullmatch=True)
    )
)
def test_any_override(word: str) -> None:
    survives(FULL, word)


def _folder() -> Any:
    import tempfile

    return tempfile.TemporaryDirectory()


FUZZ_FOLDER = _folder()
