"""Paths of things: `depot/rack-2/pack-1/cell-9`, as faults, events and errors say them; counting from 1.

Below a site come its racks, `<group name>-<k>`; below a rack its packs, `pack-<k>`; below a pack its cells
(`cell-<k>`), parallel groups (`group-<k>`) and temperature sensors (`temperature-<k>`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from twin.scenario.schema import RackGroup, Scenario

BELOW_PACK = {"cell": "n_cells", "group": "n_groups", "temperature": "n_temperature_sensors"}


@dataclass(frozen=True)
class Place:
    """A target path resolved; indices count from 0, None above the level of the path."""

    path: str
    level: str  # site, rack, pack, cell, group or temperature
    site: int
    group: int | None = None  # index in site.racks
    rack_of_group: int | None = None
    rack: int | None = None  # index among all racks of the site
    pack: int | None = None  # index in its rack
    item: int | None = None  # cell, group or temperature sensor


def rack_name(group: RackGroup, index: int) -> str:
    """Name of the rack with an index (from 0) in its group."""
    return f"{group.name}-{index + 1}"


def split_number(part: str) -> tuple[str, int] | None:
    """'rack-12' → ('rack', 12); None when there is no number."""
    match = re.fullmatch(r"(.+)-([1-9]\d{0,8})", part)
    return (match.group(1), int(match.group(2))) if match else None


def locate(scenario: Scenario, path: str) -> Place:
    """The indices behind a target path of a loaded scenario (the loader has checked that they exist)."""
    parts = path.split("/")
    site = next(i for i, s in enumerate(scenario.sites) if s.name == parts[0])
    if len(parts) == 1:
        return Place(path, "site", site)
    named = split_number(parts[1])
    assert named is not None
    groups = scenario.sites[site].racks
    g = next(i for i, group in enumerate(groups) if group.name == named[0])
    before = sum(group.count for group in groups[:g])
    rack = {"group": g, "rack_of_group": named[1] - 1, "rack": before + named[1] - 1}
    if len(parts) == 2:
        return Place(path, "rack", site, **rack)
    pack = split_number(parts[2])
    assert pack is not None
    if len(parts) == 3:
        return Place(path, "pack", site, **rack, pack=pack[1] - 1)
    item = split_number(parts[3])
    assert item is not None
    return Place(path, item[0], site, **rack, pack=pack[1] - 1, item=item[1] - 1)
