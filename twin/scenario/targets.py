"""Paths of things: `depot/rack-2/pack-1/cell-9`, as faults, events and errors say them; counting from 1.

Below a site come its racks, `<group name>-<k>`; below a rack its packs, `pack-<k>`; below a pack its cells
(`cell-<k>`), parallel groups (`group-<k>`) and temperature sensors (`temperature-<k>`). The last dash
separates the number, so groups called `rack` and `rack-1` do not collide.
"""

from __future__ import annotations

import re
from typing import Any

from twin.scenario.build import Builder, Draft, look, members
from twin.scenario.errors import closest, one_of
from twin.scenario.fields import key_of, yaml_fields
from twin.scenario.schema import PackFacts

BELOW_PACK = {"cell": "n_cells", "group": "n_groups", "temperature": "n_temperature_sensors"}


def _split_number(part: str) -> tuple[str, int] | None:
    """'rack-12' → ('rack', 12); None when there is no number."""
    match = re.fullmatch(r"(.+)-([1-9]\d{0,8})", part)
    return (match.group(1), int(match.group(2))) if match else None


def check_targets(builder: Builder, draft: Draft, scenario: Draft) -> None:
    """Complain about every target of a fault (or other plugin) that leads nowhere."""
    for field in yaml_fields(draft.cls):
        if field.metadata["type"] != "target":
            continue
        path = draft.get(field.name)
        if path is None:
            continue
        key = key_of(field)
        pack = _check_target(builder, draft, key, str(path), field.metadata["level"], scenario)
        rules = getattr(draft.cls, "mistakes_at", None)
        if pack is not None and rules is not None and draft.complete:
            for wrong, message in draft.finish().mistakes_at(pack):
                builder.note(draft.place(wrong), f"{draft.path}.{wrong}", message)


def _check_target(
    builder: Builder, draft: Draft, key: str, said: str, level: str, scenario: Draft
) -> PackFacts | None:
    """Complain where a path leads nowhere; the facts of the pack it names, when it gets that far."""
    levels = level.split("|")
    parts = said.split("/")

    def complain(message: str, expected: str, guess: str | None = None) -> None:
        builder.note(draft.place(key), f"{draft.path}.{key}", message, expected, guess)

    sites = members(scenario, "sites")
    if any(look(s, "name") is None for s in sites) or not sites:
        return None  # a site whose name could not be read: do not guess
    names = [look(s, "name") for s in sites]
    if parts[0] not in names:
        near = closest(parts[0], names)
        guess = "/".join([near, *parts[1:]]) if near else None
        complain(f"no site '{parts[0]}'", one_of(names), guess)
        return None
    deep = {"site": 1, "rack": 2, "pack": 3}
    if len(parts) not in {deep.get(one, 4) for one in levels}:
        found = {1: "a site", 2: "a rack", 3: "a pack"}.get(len(parts), "more than a path goes down")
        if len(parts) == 4:
            found = "a part of a pack"
        complain(f"'{said}' is {found}", _pattern(levels))
        return None
    site = sites[names.index(parts[0])]
    if len(parts) == 1:
        return None
    groups = {look(g, "name"): g for g in members(site, "racks")}
    if None in groups or not groups:
        return None
    racks = ", ".join(_range(f"{parts[0]}/{name}", look(g, "count") or 1) for name, g in groups.items())
    rack = _split_number(parts[1])
    if rack is None or rack[0] not in groups:
        word = rack[0] if rack else parts[1]
        near = closest(word, [str(n) for n in groups])
        number = rack[1] if rack else 1
        guess = "/".join([parts[0], f"{near}-{number}", *parts[2:]]) if near else None
        complain(f"no rack '{parts[1]}' in {parts[0]}", racks, guess)
        return None
    group = groups[rack[0]]
    if look(group, "count") is not None and rack[1] > look(group, "count"):
        complain(f"no rack '{parts[1]}' in {parts[0]}", racks)
        return None
    if len(parts) == 2:
        return None
    return _check_pack(builder, group, parts, levels, complain)


def _check_pack(
    builder: Builder, group: Any, parts: list[str], levels: list[str], complain: Any
) -> PackFacts | None:
    above = "/".join(parts[:2])
    n_packs = look(group, "packs_per_rack")
    number = _split_number(parts[2])
    if number is None or number[0] != "pack" or (n_packs is not None and number[1] > n_packs):
        guess = None
        if number is not None and number[0] != "pack" and (n_packs is None or number[1] <= n_packs):
            guess = "/".join([above, f"pack-{number[1]}", *parts[3:]])
        complain(f"no pack '{parts[2]}' in {above}", _range(f"{above}/pack", n_packs or 1), guess)
        return None
    design = look(look(group, "pack"), "design")
    facts = builder.known.packs.get(design) if isinstance(design, str) else None
    if len(parts) == 3 or facts is None:
        return facts
    inside = [one for one in levels if one in BELOW_PACK]
    item = _split_number(parts[3])
    most = {one: int(getattr(facts, BELOW_PACK[one])) for one in inside}
    if item is None or item[0] not in inside or item[1] > most[item[0]]:
        where = "/".join(parts[:3])
        expected = " or ".join(_range(f"{where}/{one}", most[one]) for one in inside)
        guess = None
        if item is not None and item[0] not in inside and len(inside) == 1 and item[1] <= most[inside[0]]:
            guess = f"{where}/{inside[0]}-{item[1]}"
        complain(f"no '{parts[3]}' in {where} ({design})", expected, guess)
        return None
    return facts


def _range(stem: str, count: int) -> str:
    return f"{stem}-1" if count == 1 else f"{stem}-1 … {stem.rpartition('/')[2]}-{count}"


def _pattern(levels: list[str]) -> str:
    forms = {"site": "site", "rack": "site/rack-1", "pack": "site/rack-1/pack-1"}
    texts = [forms.get(one, f"site/rack-1/pack-1/{one}-1") for one in levels]
    return f"a {' or '.join(levels)}, such as {' or '.join(texts)}"
