"""Updates from the event table: one story for each order and pack, and the figure that shows them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pandas as pd

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
    Panel,
    Span,
    SpanPanel,
)
from twin.report.wording import clock

MAX_LANES = 40
OUTCOMES = ("success", "failed", "refused", "cancelled")
# Kind of event -> (words, colour) of the stretch that begins with it.
PHASES = {
    "metadata": ("metadata", GREY),
    "download": ("download", BLUE),
    "transfer": ("verify, write to flash", SKY),
    "staged": ("staged", YELLOW),
    "waits": ("waits for the battery", ORANGE),
    "activating": ("activation", PURPLE),
    "probation": ("reboot and probation", PURPLE),
}


@dataclass
class UpdateStory:
    """One order on one pack. Times in s since the start of the run."""

    path: str
    ordered_s: float
    what: str
    full_B: float
    steps: list[tuple[float, str, str]] = field(default_factory=list)  # (t_s, phase, text)
    end_s: float | None = None
    outcome: str = "under way"
    why: str = ""
    received_B: float = 0.0

    def first(self, phase: str) -> float | None:
        """When the phase was first entered."""
        return next((t_s for t_s, name, _ in self.steps if name == phase), None)


def update_stories(events: pd.DataFrame) -> list[UpdateStory]:
    """Stories in the order of the packs' names, then of time."""
    stories: list[UpdateStory] = []
    current: dict[str, UpdateStory] = {}
    for row in events[events["source"] == "update"].to_dict("records"):
        path = "/".join(str(row[name]) for name in ("site", "rack", "pack"))
        kind = str(row["kind"]).removeprefix("update_")
        t_s = int(row["t_us"]) * 1e-6
        if kind == "ordered":
            current[path] = UpdateStory(path, t_s, str(row["text"]), float(row["value"]))
            stories.append(current[path])
        elif path in current and kind in OUTCOMES:
            story = current[path]
            story.end_s, story.outcome, story.why = t_s, kind, str(row["text"])
            story.received_B = float(row["value"])
        elif path in current and kind in PHASES:
            current[path].steps.append((t_s, kind, str(row["text"])))
    return sorted(stories, key=lambda story: (story.path, story.ordered_s))


def update_figures(
    events: pd.DataFrame, end_s: float, figure: Callable[[str, str, str, Iterable[Panel]], Figure]
) -> list[Figure]:
    """The time line of all updates; no figure where there was none."""
    stories = update_stories(events)
    if not stories:
        return []
    lanes = tuple(dict.fromkeys(story.path for story in stories))
    shown = lanes[:MAX_LANES]
    spans: list[Span] = []
    for story in stories:
        if story.path not in shown:
            continue
        last = end_s if story.end_s is None else story.end_s
        ends = [*(t_s for t_s, _, _ in story.steps[1:]), last]
        for (t_s, phase, text), until in zip(story.steps, ends, strict=False):
            words, colour = PHASES[phase]
            note = f"from {clock(t_s)} to {clock(until)} {text}".strip()
            spans.append(
                Span(lane=story.path, start_s=t_s, end_s=until, kind=words, colour=colour, text=note)
            )
        if story.end_s is not None:
            good = story.outcome == "success"
            width = max(0.004 * end_s, 1.0)
            spans.append(
                Span(
                    lane=story.path,
                    start_s=story.end_s,
                    end_s=story.end_s + width,
                    kind="confirmed" if good else "not confirmed",
                    colour=GREEN if good else RED,
                    text=f"{clock(story.end_s)} {story.why}",
                )
            )
    more = f" {len(lanes) - len(shown)} more packs are in the table." if len(lanes) > len(shown) else ""
    return [
        figure(
            "updates",
            "Updates",
            "What the update of each pack was doing: fetching verified metadata, downloading blocks, handing "
            "them to the controller, waiting until the battery is safe, rebooting into the new image on "
            f"probation, and how it ended.{more}",
            [SpanPanel(title="updates", lanes=shown, spans=tuple(spans))],
        )
    ]
