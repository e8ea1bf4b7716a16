"""What must be true between the fields of a scenario: targets exist, times lie inside, steps divide.

Works on drafts, so that one wrong field does not hide a mistake elsewhere. Every check is silent about
values that could not be read; their problems have been noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twin.scenario.build import Builder, Draft, look, members
from twin.scenario.fields import key_of, yaml_fields
from twin.scenario.targets import check_targets
from twin.units import format_quantity

BOUNDS = ("at_least", "at_most", "equals")
BMS_TICK_US = 10_000  # firmware period (DESIGN.md 4)


def check(builder: Builder, scenario: Draft) -> None:
    """All checks, in any order; problems go to the builder."""
    _steps(builder, scenario)
    _needs(builder, scenario)
    _ageing(builder, scenario)
    _abuse(builder, scenario)
    for draft in _plugins(scenario):
        _times(builder, draft, look(scenario, "duration_s"))
        check_targets(builder, draft, scenario)
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
    """Every fault, detector and strategy, update order and outage: what has times, targets or own rules."""
    updates = look(scenario, "updates")
    for holder, attribute in ((updates, "orders"), (look(updates, "link"), "broker_outages")):
        if isinstance(holder, Draft):
            yield from (d for d in members(holder, attribute) if isinstance(d, Draft))
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


def _ageing(builder: Builder, scenario: Draft) -> None:
    """A rung of ageing with the options that belong to it, and no others."""
    for site in members(scenario, "sites"):
        for group in members(site, "racks") if isinstance(site, Draft) else ():
            draft = look(look(group, "pack"), "ageing")
            model = look(draft, "model")
            if not isinstance(draft, Draft) or model not in builder.known.ageing_models:
                continue
            chosen = look(draft, "parameters")
            names = builder.known.ageing_parameters

            def complain(key: str, message: str, expected: str, draft: Draft = draft) -> None:
                builder.note(draft.place(key), f"{draft.path}.{key}", message, expected)

            if builder.known.ageing_models[model] and draft.values.get("parameters") is None:
                complain(
                    "parameters", f"{model} needs the name of a tested cell", "one of " + ", ".join(names)
                )
            if chosen is not None and not builder.known.ageing_models[model]:
                complain("parameters", f"has no meaning for {model}", "model: semi_empirical")
            if look(draft, "knee_cycles") is not None and names.get(chosen or "", False):
                complain("knee_cycles", f"{chosen} has a knee of its own", "leave it out")


def _abuse(builder: Builder, scenario: Draft) -> None:
    """A propagation model for a pack whose design does not say how it runs away."""
    known = [name for name, facts in builder.known.packs.items() if facts.abuse]
    for site in members(scenario, "sites"):
        for group in members(site, "racks") if isinstance(site, Draft) else ():
            pack = look(group, "pack")
            choice, design = look(pack, "propagation"), look(pack, "design")
            facts = builder.known.packs.get(design) if isinstance(design, str) else None
            if facts is None or facts.abuse or look(choice, "model") in (None, "none"):
                continue
            if not isinstance(choice, Draft):
                continue
            message = f"pack {design} has no section `abuse`, so nothing is known of its runaway"
            expected = f"none, or one of the packs {', '.join(known)}"
            builder.note(choice.place("model"), f"{choice.path}.model", message, expected)


def _bounds(builder: Builder, claim: Draft) -> None:
    said = [key for key in BOUNDS if claim.values.get(key) is not None]
    if len(said) != 1:
        message = "no bound" if not said else f"{' and '.join(said)} together"
        span = claim.span if not said else claim.place(said[1])
        builder.note(span, claim.path, message, f"exactly one of {', '.join(BOUNDS)}")
