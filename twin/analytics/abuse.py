"""The story of every pack with a cell beyond its onset: trigger, warning, trip, vent, runaway, spread.

>>> stories = abuse_stories(run)                                             # doctest: +SKIP
>>> stories[0].next_cell_s, stories[0].contained

From the event table and, for the coolant and the peaks, `measured` and `truth`: a view for scoring, not a
detector. Words as in the standards: a cell that runs away is propagation when nothing but its neighbours
made it (UL 9540A); venting alone is not. Times are seconds since the start of the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from twin.telemetry.reader import RunFolder

TRIGGERS = ("internal_short",)
# Diagnoses of the firmware's first layer carry this word; alone it is the rule of GB 38031-2025 C.5.3.7.
WARNS = "RUNAWAY"
KINDS = ("abuse_onset", "voltage_collapse", "venting", "thermal_runaway", "propagation")


@dataclass
class AbuseStory:
    """One pack.

    Attributes
    ----------
    first_s : (kind of event -> when it happened first); kinds of the plant, `trigger`, `warning`,
        `confirmed` (runaway by the rule of GB 38031), `trip`, `cooling` (full cooling in the BMS's command)
    burnt : cells in the order in which they ran away, with their times
    settled_s : when no further cell was on its way any more; None when the run ended before
    peak_other_K : hottest series group without a burnt cell, at its hottest
    """

    site: str
    rack: str
    pack: str
    end_s: float
    first_s: dict[str, float] = field(default_factory=dict)
    burnt: list[tuple[int, float]] = field(default_factory=list)
    settled_s: float | None = None
    peak_other_K: float = math.nan
    cooling_failed: bool = False

    @property
    def path(self) -> str:
        """`site/rack/pack`."""
        return f"{self.site}/{self.rack}/{self.pack}"

    @property
    def next_cell_s(self) -> float | None:
        """From the first runaway to the next; None when there was none."""
        return self.burnt[1][1] - self.burnt[0][1] if len(self.burnt) > 1 else None

    @property
    def contained(self) -> bool:
        """A cell ran away and no other did until the end of the run."""
        return len(self.burnt) == 1

    def within(self, limit_s: float) -> bool:
        """Whether a further cell went less than limit_s after the first."""
        return self.next_cell_s is not None and self.next_cell_s < limit_s


def abuse_stories(run: RunFolder) -> list[AbuseStory]:
    """Stories of the packs with an onset, in the order of the run's packs."""
    events = run.events()
    rows = events.sort_values("t_us", kind="stable").to_dict("records")
    hot = {(str(r["site"]), str(r["rack"]), str(r["pack"])) for r in rows if r["kind"] == "abuse_onset"}
    places = [(info.site, info.rack, info.pack) for info in run.packs]
    stories = {place: AbuseStory(*place, run.manifest.duration_s) for place in places if place in hot}
    for row in rows:
        t_s, kind = int(row["t_us"]) * 1e-6, str(row["kind"])
        for story in stories.values():
            if str(row["site"]) != story.site or str(row["rack"]) not in ("", story.rack):
                continue
            if kind == "cooling_failure":
                story.cooling_failed = row["severity"] != "info"
            if str(row["pack"]) != story.pack:
                continue
            for name in _names(row, kind):
                story.first_s.setdefault(name, t_s)
            if kind == "thermal_runaway":
                story.burnt.append((int(row["cell"]), t_s))
            elif kind in ("contained", "spread_ended"):
                story.settled_s = t_s
    for story in stories.values():
        _measure(run, story)
    return list(stories.values())


def _names(row: dict[Any, Any], kind: str) -> tuple[str, ...]:
    """What an event means in a story."""
    if row["source"] == "fault":
        return ("trigger",) if kind in TRIGGERS and row["severity"] != "info" else ()
    if row["source"] == "bms":
        text = str(row["text"])
        if kind == "fault" and WARNS in text:
            return ("warning", "confirmed") if text == WARNS else ("warning",)
        return ("trip",) if kind == "trip" else ()
    return (kind,) if kind in KINDS else ()


def _measure(run: RunFolder, story: AbuseStory) -> None:
    """Full cooling and the hottest of the others, from the pack's rows."""
    if run.has("measured"):
        rows = run.series("measured", ["t_us", "cooling"], story.site, story.rack, story.pack)
        full = np.flatnonzero(np.asarray(rows["cooling"], dtype=float) >= 0.995)
        if full.size:
            story.first_s["cooling"] = float(rows["t_us"][full[0]]) * 1e-6
    if run.has("truth"):
        rows = run.series("truth", ["t_us", "temperature_group_K"], story.site, story.rack, story.pack)
        kelvin = np.asarray(rows["temperature_group_K"], dtype=float)
        info = next(p for p in run.packs if (p.site, p.rack, p.pack) == (story.site, story.rack, story.pack))
        burnt = {info.group_of_cell(cell) - 1 for cell, _ in story.burnt}
        others = [g for g in range(info.n_series) if g not in burnt]
        if others and kelvin.size:
            story.peak_other_K = float(kelvin[:, others].max())


def abuse_metrics(run: RunFolder) -> dict[str, float]:
    """Metrics of the run; nothing when no module went beyond its onset."""
    stories = [story for story in abuse_stories(run) if story.burnt]
    if not stories:
        return {}
    gaps = [story.next_cell_s for story in stories if story.next_cell_s is not None]

    def lead(before: str, after: str) -> float:
        """Shortest time from one thing to another; NaN when a pack lacks one of them."""
        times = [
            story.first_s.get(after, math.nan) - story.first_s.get(before, math.nan) for story in stories
        ]
        return min(times) if not any(map(math.isnan, times)) else math.nan

    return {
        "packs_run_away": float(len(stories)),
        "packs_contained": float(sum(story.contained for story in stories)),
        "cells_run_away": float(sum(len(story.burnt) for story in stories)),
        "next_cell_time_min": min(gaps, default=math.nan),
        "packs_spread_within_90_s": float(sum(story.within(90.0) for story in stories)),
        "packs_spread_within_300_s": float(sum(story.within(300.0) for story in stories)),
        "warning_before_runaway": lead("warning", "thermal_runaway"),
        "trip_before_runaway": lead("trip", "thermal_runaway"),
    }
