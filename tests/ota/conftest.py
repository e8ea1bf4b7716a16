"""Small worlds for the OTA tests. Building one takes some tens of milliseconds of signatures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ota.testbed import Testbed, Unit, firmware_body

OLD_BODY = firmware_body(12 * 1024)
NEW_BODY = firmware_body(12 * 1024, edits=6)


@pytest.fixture
def bed(tmp_path: Path) -> Testbed:
    """Two releases, 1.1.0 also as a delta."""
    return make_bed(tmp_path)


def make_bed(folder: Path, **options: object) -> Testbed:
    world = Testbed(folder, **options)  # type: ignore[arg-type]
    world.release("1.0.0", world.firmware("1.0.0", OLD_BODY))
    world.release("1.1.0", world.firmware("1.1.0", NEW_BODY), ["1.0.0"])
    return world


@pytest.fixture
def unit(bed: Testbed) -> Unit:
    return bed.add_unit("dev-1", bed.releases["1.0.0"].file)


@pytest.fixture
def reasons() -> Callable[[Unit], list[str]]:
    return lambda unit: [name for name, _ in unit.notes]
