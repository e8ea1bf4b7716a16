"""Forecasts of the propagation risk held against what then happened; like scoring.py, this module sees truth.

For each pack the first forecast about a group that has gone is scored: every other group of the pack either
ran away within the table's horizon or not. The Brier score is the mean square of (probability - outcome); the
trivial rule it must beat says that the direct neighbours in the series string follow, and nobody else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from twin.analytics.abuse import abuse_stories
from twin.analytics.detectors.base import DetectorParams
from twin.analytics.detectors.propagation_risk import Forecast, PropagationRisk, PropagationRiskState
from twin.telemetry.reader import RunFolder


def forecasts_of(run: RunFolder, params: PropagationRisk) -> dict[str, list[Forecast]]:
    """All forecasts of a run, by the path of the pack."""
    states: dict[tuple[str, str, str], PropagationRiskState] = {
        (info.site, info.rack, info.pack): params.start(info) for info in run.packs
    }
    for frame in run.frames():
        states[(frame.site, frame.rack, frame.pack)].update(frame)
    return {"/".join(place): state.forecasts for place, state in states.items()}


def forecast_metrics(run: RunFolder, detectors: Sequence[DetectorParams]) -> dict[str, float]:
    """Scores of the propagation risk; nothing without that detector or without a runaway."""
    chosen = [d for d in detectors if isinstance(d, PropagationRisk)]
    stories = {story.path: story for story in abuse_stories(run) if story.burnt} if chosen else {}
    if not stories:
        return {}
    packs = {info.path: info for info in run.packs}
    said = forecasts_of(run, chosen[0])
    square, trivial, errors, inside, leads = [], [], [], [], []
    for path, story in stories.items():
        info = packs[path]
        when = {info.group_of_cell(cell): t_s for cell, t_s in reversed(story.burnt)}
        first = next((f for f in said.get(path, []) if f.probability >= 1.0), None)
        if first is None:
            continue
        leads += [t_s - f.t_s for f in said[path][:1] for _, t_s in story.burnt[:1]]
        begun_s = when.get(first.group, first.t_s)
        prospects = {p.cell + 1: p for p in first.prospects}
        for group in range(1, info.n_series + 1):
            if group == first.group:
                continue
            since_s = when[group] - begun_s if group in when else math.inf
            happened = float(since_s <= first.horizon_s)
            found = prospects.get(group)
            square.append(((found.probability if found else 0.0) - happened) ** 2)
            trivial.append((float(abs(group - first.group) == 1) - happened) ** 2)
            if happened and found:
                errors.append(abs(found.after_s[1] - since_s) / max(since_s, 1.0))
                inside.append(float(found.after_s[0] <= since_s <= found.after_s[2]))
    if not square:
        return {}
    return {
        "risk_brier": float(np.mean(square)),
        "risk_brier_neighbours": float(np.mean(trivial)),
        "risk_time_error": float(np.median(errors)) if errors else math.nan,
        "risk_in_band": float(np.mean(inside)) if inside else math.nan,
        "risk_lead_min": min(leads),
    }
