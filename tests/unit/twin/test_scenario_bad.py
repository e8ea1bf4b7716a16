"""Every bad scenario says exactly what its .err says (tests/bad_scenarios/regenerate.py writes them)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

BAD = Path(__file__).resolve().parents[2] / "bad_scenarios"
sys.path.insert(0, str(BAD))

from regenerate import complaint, names  # noqa: E402


@pytest.mark.parametrize("name", names())
def test_error_text(name: str) -> None:
    assert complaint(name) == (BAD / f"{name}.err").read_text(encoding="utf-8")


def test_each_has_its_text_and_each_is_bad() -> None:
    assert len(names()) >= 30
    texts = {path.stem for path in BAD.glob("*.err")}
    assert texts == set(names())
    for name in names():
        last = (BAD / f"{name}.err").read_text(encoding="utf-8").splitlines()[-1]
        assert re.fullmatch(rf"\d+ problems? in {name}\.yaml; nothing was run\.", last)


def test_no_text_depends_on_where_the_repository_lies() -> None:
    for name in names():
        assert str(BAD.parent) not in (BAD / f"{name}.err").read_text(encoding="utf-8")
