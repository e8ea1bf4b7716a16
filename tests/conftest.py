"""Set-up shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("PYBAMM_DISABLE_TELEMETRY", "true")

# No deadline: the first example compiles kernels. Derandomised: the same commit gives the same verdict.
settings.register_profile("repository", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("repository")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY
