"""What must be true between the fields of a scenario: targets exist, times lie inside, steps divide.

Works on drafts, so that one wrong field does not hide a mistake elsewhere. Every check is silent about
values that could not be read; their problems have been noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twin.scenario.build import Builder, Draft
from twin.scenario.errors import closest, one_of
from twin.scenario.fields import key_of, yaml_fields
from twin.scenario.schema import PackFacts
from twin.scenario.targets import BELOW_PACK, split_number
from twin.units import format_quantity

BOUNDS = ("at_least", "at_most", "equals")
BMS_TICK_US = 10_000  # firmware period (DESIGN.md 4)


def look(value: Any, attribute: str) -> Any:
    """An attribute of a draft or of a default object; None when missing or wrong."""
    if isinstance(value, Draft):
        return value.get(attribute)
    return getattr(value, attribute, None)


def members(value: Any, attribute: str) -> list[Any]:
    """The items of a list that could be read (drafts, or default objects)."""
    items = look(value, attribute)
    return [v for v in items if v is not None] if isinstance(items, list | tuple) else []


def check(builder: Builder, scenario: Draft) -> None:
    """All checks, in any order; problems go to the builder."""
    _steps(builder, scenario)
    _needs(builder, scenario)
    for draft in _plugins(scenario):
        _times(builder, draft, look(scenario, "duration_s"))
        _targets(builder, draft, scenario)
        if draft.complete:
            for key, message in _own_rules(draft):
                builder.note(draft.place(key), f"{draft.path}.{key}", message)
    for claim in members(scenario, "expect"):
        if isinstance(claim, Draft):
            _bounds(builder, claim)


def _own_rules(draft: Draft) -> list[tuple[str, str]]:
    rules = getattr(draft.cls, "mistakes", None)
    return list(draft.finish().mistakes()) if rules is not None else []


def _plugins(scenario: Draft) -> Iterator[Draft]:
    """Every fault, detector and strategy."""
    holders: list[Any] = [scenario, *members(scenario, "sites")]
    for holder in holders:
        if not isinstance(holder, Draft):
            continue
        for field in yaml_fields(holder.cls):
            if field.metadata["type"] == "plugins":
                yield from (d for d in members(holder, field.name) if isinstance(d, Draft))


# -- time ---------------------------------------------------------------------------------------------


def _micros(seconds: float) -> int | None:
    """Whole microseconds (the clock counts them), or None."""
    micros = round(seconds * 1e6)
    return micros if abs(micros - seconds * 1e6) <= 1e-3 and micros > 0 else None


def _show(seconds: float) -> str:
    return format_quantity(seconds, "time")


def _steps(builder: Builder, scenario: Draft) -> None:
    time, telemetry = scenario.get("time"), scenario.get("telemetry")
    zoom = look(time, "zoom")
    step = look(time, "step_s")
    duration = scenario.get("duration_s")
    if step is None:
        return
    place = _finder(scenario)

    def complain(path: str, message: str, expected: str) -> None:
        builder.note(place(path), path, message, expected)

    step_us = _micros(step)
    if step_us is None:
        complain("time.step", f"{_show(step)} is not a whole number of microseconds", "a rounder step")
        return
    if look(time, "bms_rate") == "full" and step_us % BMS_TICK_US:
        complain(
            "time.step", f"{_show(step)} is not a multiple of the firmware's 10 ms", "10 ms, 100 ms, 1 s …"
        )
    if duration is not None and duration < step:
        complain("duration", f"{_show(duration)} is shorter than one step of {_show(step)}", "a longer run")
    fine = look(zoom, "step_s")
    if fine is not None:
        fine_us = _micros(fine)
        if fine > step:
            complain(
                "time.zoom.step", f"{_show(fine)} is longer than the step of {_show(step)}", "a finer step"
            )
        elif fine_us is None or step_us % fine_us:
            message = f"{_show(fine)} does not divide the step of {_show(step)}"
            complain("time.zoom.step", message, "the step divided by a whole number")
        elif look(time, "bms_rate") == "full" and fine_us % BMS_TICK_US:
            message = f"{_show(fine)} is not a multiple of the firmware's 10 ms"
            complain("time.zoom.step", message, "10 ms, 20 ms, 50 ms, 100 ms …")
    for attribute, key in (("period_s", "period"), ("truth_period_s", "truth_period")):
        period = look(telemetry, attribute)
        if period is None:
            continue
        period_us = _micros(period)
        if period < step:
            message = f"{_show(period)} is shorter than the step of {_show(step)}"
            complain(f"telemetry.{key}", message, f"a multiple of time.step, {_show(step)}")
        elif period_us is None or period_us % step_us:
            message = f"{_show(period)} is not a multiple of the step of {_show(step)}"
            complain(f"telemetry.{key}", message, f"a multiple of time.step, {_show(step)}")


def _finder(scenario: Draft) -> Any:
    """Where a dotted path stands in the text: the value, or the nearest thing above that was said."""

    def place(path: str) -> Any:
        draft: Any = scenario
        span = scenario.span
        for key in path.split("."):
            if not isinstance(draft, Draft):
                break
            if key not in draft.places:
                # Said nowhere: the default collides with something else; `duration` is always there.
                return draft.place(key) if draft is not scenario else scenario.place("duration")
            span = draft.places[key]
            field = next((f for f in yaml_fields(draft.cls) if key_of(f) == key), None)
            draft = draft.values.get(field.name) if field is not None else None
        return span

    return place


def _times(builder: Builder, draft: Draft, duration: float | None) -> None:
    """`at` inside the run, `until` after `at`."""
    by_key = {key_of(f): f.name for f in yaml_fields(draft.cls) if f.metadata.get("dimension") == "time"}
    at = draft.get(by_key["at"]) if "at" in by_key else None
    if at is not None and at < 0.0:
        builder.note(
            draft.place("at"), f"{draft.path}.at", f"{_show(at)} is before the start", "0 s or later"
        )
        return
    if at is not None and duration is not None and at >= duration:
        message = f"{_show(at)} is not inside the run of {_show(duration)}"
        builder.note(draft.place("at"), f"{draft.path}.at", message, f"less than {_show(duration)}")
    until = draft.get(by_key["until"]) if "until" in by_key else None
    if at is not None and until is not None and until <= at:
        message = f"{_show(until)} is not after 'at', {_show(at)}"
        builder.note(draft.place("until"), f"{draft.path}.until", message, "a later time")


# -- targets ------------------------------------------------------------------------------------------


def _targets(builder: Builder, draft: Draft, scenario: Draft) -> None:
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
    rack = split_number(parts[1])
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
    number = split_number(parts[2])
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
    item = split_number(parts[3])
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


# -- sites and claims -----------------------------------------------------------------------------------


def _needs(builder: Builder, scenario: Draft) -> None:
    """A strategy that reads a profile its site does not have."""
    for site in members(scenario, "sites"):
        if not isinstance(site, Draft):
            continue
        for draft in members(site, "dispatch"):
            if not isinstance(draft, Draft):
                continue
            for profile in getattr(draft.cls, "needs", ()):
                if site.values.get(profile) is None:
                    message = f"{draft.word} needs the site's {profile}, which is not given"
                    builder.note(draft.span, draft.path, message, f"{site.path}.{profile}")


def _bounds(builder: Builder, claim: Draft) -> None:
    said = [key for key in BOUNDS if claim.values.get(key) is not None]
    if len(said) != 1:
        message = "no bound" if not said else f"{' and '.join(said)} together"
        span = claim.span if not said else claim.place(said[1])
        builder.note(span, claim.path, message, f"exactly one of {', '.join(BOUNDS)}")
