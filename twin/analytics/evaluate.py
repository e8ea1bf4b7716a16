"""All that is said about a run after it: alerts, scores against a baseline, metrics, verdicts.

>>> result = evaluate(run, scenario.analytics, scenario.expect, balances)    # doctest: +SKIP
>>> result.metrics["detection_delay"], result.ok
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from twin.analytics.detectors.base import DetectorParams
from twin.analytics.detectors.max_min_spread import MaxMinSpread
from twin.analytics.forecast import forecast_metrics
from twin.analytics.metrics import Claim, firmware_metrics, judge, run_metrics
from twin.analytics.run import analyse
from twin.analytics.scoring import Score, detection_metrics, faults_of, score, score_together
from twin.telemetry.manifest import Expectation
from twin.telemetry.reader import RunFolder


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Outcome of `evaluate`. `alerts` are those of the scenario's detectors."""

    alerts: pd.DataFrame
    scores: list[Score]
    metrics: dict[str, float]
    expectations: list[Expectation]

    @property
    def ok(self) -> bool:
        """Whether every claim of the scenario is met."""
        return all(claim.met for claim in self.expectations)


def evaluate(
    run: RunFolder,
    detectors: Sequence[DetectorParams],
    claims: Iterable[Claim] = (),
    balances: dict[str, dict[str, float]] | None = None,
    firmware: dict[str, dict[str, float]] | None = None,
) -> Evaluation:
    """Run the detectors over the measured rows, then score them against events and truth.

    The trivial detector `max_min_spread` is scored beside them, so that every score has something to
    beat; its alerts count only when the scenario asks for it.
    """
    balances = run.manifest.balances if balances is None else balances
    firmware = run.manifest.firmware if firmware is None else firmware
    words = [detector.word for detector in detectors]
    baseline = [] if MaxMinSpread.word in words or not detectors else [MaxMinSpread()]
    said = analyse(run, [*detectors, *baseline])
    alerts = said[said["detector"].isin(words)].reset_index(drop=True)
    faults = faults_of(run)
    scores = score(run, alerts, detectors, faults=faults)
    scores += score(run, said, baseline, faults=faults, baseline=True)
    together = score_together(run, alerts, detectors, faults=faults) if detectors else None
    metrics = {
        **run_metrics(run, balances),
        **firmware_metrics(firmware),
        **detection_metrics(together, alerts),
        **forecast_metrics(run, detectors),
    }
    return Evaluation(alerts=alerts, scores=scores, metrics=metrics, expectations=judge(claims, metrics))
