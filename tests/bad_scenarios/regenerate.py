"""What the loader says about each bad scenario; writes it to the .err beside it.

    .venv/bin/python tests/bad_scenarios/regenerate.py          # all: read the diff before committing it
    .venv/bin/python tests/bad_scenarios/regenerate.py gap      # those with 'gap' in their name

tests/unit/twin/test_scenario_bad.py compares the same text. Names come from tests/unit/twin/known.py.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "unit" / "twin"))

from known import KNOWN  # noqa: E402

from twin.scenario.errors import ScenarioError  # noqa: E402
from twin.scenario.load import load  # noqa: E402
from twin.scenario.profiles import check_profiles  # noqa: E402


def complaint(name: str) -> str:
    """The error text for `name`.yaml, with paths as seen from this folder."""
    before = Path.cwd()
    os.chdir(HERE)
    try:
        check_profiles(load(f"{name}.yaml", KNOWN), Path())
    except ScenarioError as error:
        return f"{error}\n"
    finally:
        os.chdir(before)
    return "no problem found\n"


def names() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.yaml"))


if __name__ == "__main__":
    for stem in names():
        if not sys.argv[1:] or any(word in stem for word in sys.argv[1:]):
            (HERE / f"{stem}.err").write_text(complaint(stem), encoding="utf-8")
