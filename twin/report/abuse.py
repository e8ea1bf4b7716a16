"""Thermal runaway in the report: what happened in each pack when, how hot it got, what the standards ask."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from twin.analytics.abuse import AbuseStory, abuse_stories
from twin.report.decimate import extremes
from twin.report.spec import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    Figure,
    Level,
    Line,
    Panel,
    Span,
    SpanPanel,
    TimePanel,
)
from twin.report.wording import ABSENT, clock, quantity
from twin.telemetry.reader import RunFolder
from twin.units import offset

KELVIN = offset("degC", "temperature")
MAX_PACKS = 8
POINTS = 800
# What a pack is doing from an event on: (kind, words, colour); the latest that has happened counts.
STAGES = (
    ("trigger", "short grows", SKY),
    ("warning", "BMS has warned", YELLOW),
    ("trip", "BMS has opened the contactors", BLUE),
    ("abuse_onset", "beyond the onset", ORANGE),
    ("venting", "vents", PURPLE),
    ("thermal_runaway", "runaway", RED),
    ("propagation", "spreads", "#7A0000"),
    ("settled", "no further cell on its way", GREEN),
)
COOLS = ("full cooling", GREY)

Draw = Callable[[str, str, str, Iterable[Panel]], Figure]


def abuse_figures(run: RunFolder, figure: Draw) -> list[Figure]:
    """Time lines and temperatures of the packs with an onset; no figure where there was none."""
    stories = abuse_stories(run)
    if not stories:
        return []
    drawn = stories[:MAX_PACKS]
    more = f" {len(stories) - len(drawn)} more packs are in the table." if len(stories) > len(drawn) else ""
    panels: list[Panel] = [_time_lines(drawn)]
    panels += [_temperatures(run, story) for story in drawn]
    panels += _housing(run, drawn)
    return [
        figure(
            "abuse",
            "Thermal runaway",
            "Top: what each pack went through, from the trigger to the warning of the BMS (first layer, L1), "
            "its trip, the onset, the first vent, the first runaway and the spread to further cells; the "
            "grey bar beneath is full cooling as the BMS commands it (whether coolant flows is another "
            "question). Then the mean temperature of every series group (truth), runaway limit dotted, with "
            f"what the sensors say in black; last the housings.{more}",
            panels,
        )
    ]


def _time_lines(stories: list[AbuseStory]) -> SpanPanel:
    spans, lanes = [], []
    for story in stories:
        lane, cooled = story.path, f"{story.path}, coolant"
        lanes += [lane, cooled]
        first = story.first_s | ({} if story.settled_s is None else {"settled": story.settled_s})
        marks = [(first[kind], words, colour) for kind, words, colour in STAGES if kind in first]
        # A stage that began earlier than one before it in the list (a trip before the warning) still shows.
        marks.sort(key=lambda mark: mark[0])
        for (start, words, colour), end in zip(marks, [*(m[0] for m in marks[1:]), story.end_s], strict=True):
            text = f"{words} from {clock(start)} to {clock(end)}"
            spans.append(Span(lane=lane, start_s=start, end_s=end, kind=words, colour=colour, text=text))
        if "cooling" in first:
            words, colour = COOLS
            text = f"{words} from {clock(first['cooling'])}" + (
                "; but it has failed" if story.cooling_failed else ""
            )
            start = first["cooling"]
            spans.append(
                Span(lane=cooled, start_s=start, end_s=story.end_s, kind=words, colour=colour, text=text)
            )
    return SpanPanel(title="trigger to end", lanes=tuple(lanes), spans=tuple(spans))


def _line(label: str, t_s: Any, y: Any, colour: str, width: float) -> Line:
    thin_t, thin_y = extremes(np.asarray(t_s, dtype=float), np.asarray(y, dtype=float), POINTS)
    return Line(label=label, t_s=thin_t, y=thin_y, colour=colour, width=width)


def _temperatures(run: RunFolder, story: AbuseStory) -> TimePanel:
    truth = run.series("truth", ["t_us", "temperature_group_K"], story.site, story.rack, story.pack)
    t_s = np.asarray(truth["t_us"]) * 1e-6
    kelvin = np.asarray(truth["temperature_group_K"], dtype=float)
    info = next(p for p in run.packs if p.path == story.path)
    order = {info.group_of_cell(cell) - 1: n for n, (cell, _) in reversed(list(enumerate(story.burnt)))}
    lines = []
    for g in range(kelvin.shape[1]):
        n = order.get(g)
        colour = GREY if n is None else (RED, ORANGE, PURPLE, BLUE)[min(n, 3)]
        label = {None: "groups that did not", 0: "first to run away", 1: "second", 2: "third"}.get(n, "later")
        lines.append(_line(label, t_s, kelvin[:, g] - KELVIN, colour, 2.0 if n == 0 else 1.1))
    seen = run.series("measured", ["t_us", "temperature_K"], story.site, story.rack, story.pack)
    sensed = np.asarray(seen["temperature_K"], dtype=float)
    if np.isfinite(sensed).any():
        hottest = np.nanmax(np.where(np.isfinite(sensed), sensed, -np.inf), axis=1) - KELVIN
        lines.append(_line("hottest sensor", np.asarray(seen["t_us"]) * 1e-6, hottest, "#222222", 1.0))
    return TimePanel(
        title=f"temperatures of {story.path}",
        y_label="°C",
        lines=_one_label_each(lines),
        levels=(Level(label="runaway", y=300.0),),
        height=210,
    )


def _one_label_each(lines: list[Line]) -> tuple[Line, ...]:
    """Curves of one label joined with gaps, so that the legend names each kind once."""
    joined: dict[str, Line] = {}
    for line in lines:
        before = joined.get(line.label)
        if before is None:
            joined[line.label] = line
            continue
        joined[line.label] = Line(
            label=line.label,
            t_s=np.concatenate([before.t_s, before.t_s[-1:], line.t_s]),
            y=np.concatenate([before.y, [np.nan], line.y]),
            colour=line.colour,
            width=line.width,
        )
    return tuple(joined.values())


def _housing(run: RunFolder, stories: list[AbuseStory]) -> list[Panel]:
    """Pressure and gas of all drawn packs, measured where there is a sensor."""
    panels: list[Panel] = []
    colours = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, GREY)
    for name, title, unit, scale in (
        ("pressure_Pa", "pressure in the housing", "kPa", 1e-3),
        ("gas_fraction", "combustible gas in the housing", "%", 100.0),
    ):
        lines = []
        for story, colour in zip(stories, colours, strict=False):
            for table in ("measured", "truth"):
                rows = run.series(table, ["t_us", name], story.site, story.rack, story.pack)
                values = np.asarray(rows[name], dtype=float) * scale
                if np.isfinite(values).any():
                    label = f"{story.rack}/{story.pack}" + ("" if table == "measured" else " (truth)")
                    lines.append(_line(label, np.asarray(rows["t_us"]) * 1e-6, values, colour, 1.3))
                    break
        if lines:
            panels.append(TimePanel(title=title, y_label=unit, lines=tuple(lines), height=170))
    return panels


VERDICT_HEAD = (
    "pack",
    "barrier; film of the plate",
    "BMS warns",
    "contactors open",
    "onset",
    "first vent",
    "BMS confirms (GB 38031)",
    "first runaway",
    "next cell after",
    "cells gone",
    "hottest other",
    "contained",
    "next cell < 90 s",
    "< 300 s",
)
VERDICT_NOTE = (
    "Times count from the trigger. Contained: no other cell ran away until the end of this run, in this "
    "model. UL 9540A counts propagation when another cell runs away without any further trigger; venting "
    "alone does not count, and what a BMS does is not credited. GB 38031-2025 (5.2.7 b) asks for a warning "
    "no later than 5 min after the trigger, no fire and no explosion, observed until every monitor is at "
    "most 60 °C and at least 2 h; this run shows warning and spread only, and no flames are modelled. 90 s "
    "is this product's own figure for getting out, 300 s is the five minutes of GB 38031 and UN GTR 20."
)


def verdict_rows(run: RunFolder) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows of the verdict table and their classes; empty without an onset."""
    rows: list[tuple[str, ...]] = []
    classes: list[str] = []
    for story in abuse_stories(run):
        start = story.first_s.get("trigger", 0.0)

        def since(kind: str, story: AbuseStory = story, start: float = start) -> str:
            at = story.first_s.get(kind)
            return ABSENT if at is None else clock(at - start)

        gap = story.next_cell_s
        rows.append(
            (
                story.path,
                _options(run, story),
                since("warning"),
                since("trip"),
                since("abuse_onset"),
                since("venting"),
                since("confirmed"),
                since("thermal_runaway"),
                ABSENT if gap is None else f"{gap:.0f} s",
                str(len(story.burnt)),
                ABSENT if math.isnan(story.peak_other_K) else quantity(story.peak_other_K, "temperature"),
                "nothing ran away" if not story.burnt else "yes" if story.contained else "no",
                "yes" if story.within(90.0) else "no",
                "yes" if story.within(300.0) else "no",
            )
        )
        classes.append("good" if len(story.burnt) <= 1 else "bad")
    return rows, classes


def _options(run: RunFolder, story: AbuseStory) -> str:
    """Barrier and plate of a pack, from the resolved scenario."""
    for site in run.manifest.resolved.get("sites", []):
        for group in site.get("racks", []):
            if site.get("name") != story.site or story.rack.rpartition("-")[0] != group.get("name"):
                continue
            choice = group.get("pack", {}).get("propagation", {})
            barrier = str(choice.get("barrier", "case"))
            words = "of the design" if barrier == "case" else f"{barrier} {choice.get('thickness', '')}"
            film = choice.get("plate_film")
            return f"{words}; {film or 'of the design'}" + (", pump failed" if story.cooling_failed else "")
    return ABSENT
