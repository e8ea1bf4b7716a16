"""Fixtures of the propagation tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pack_models.propagation.errors import MissingDolfinxError
from pack_models.propagation.fem import find_interpreter

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def thermal_reference() -> Path:
    """The shared thermal references; skips where they are not."""
    folder = Path(os.environ.get("TWIN_SHARED", ROOT / ".." / "shared")) / "reference" / "thermal"
    if not folder.is_dir():
        pytest.skip("no shared reference folder: set TWIN_SHARED or put it beside the repository")
    return folder


@pytest.fixture(scope="session")
def dolfinx() -> str:
    """Version of dolfinx; skips where no interpreter has it."""
    try:
        return find_interpreter()[1]
    except MissingDolfinxError as error:
        pytest.skip(str(error))
