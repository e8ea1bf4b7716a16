"""How good the detectors were: the only part of analytics that sees events and truth.

A fault is a row of `events` with source `fault` and a severity above info (info is its end). A fault's
effect outlasts its end, so it stays open. An alert of a detector is

- true, when it names a pack (and its series group) in which a fault that the detector claims to find
  has begun;
- beside, when another kind of fault is active at its place: neither credited nor blamed;
- false otherwise, also when it names the wrong group of a faulty pack.

Rates come with exact 95 % intervals (Garwood for counts, Clopper–Pearson for shares), with the
prevalence, and with the faults that nobody could have seen: a short whose drain, by the hidden state,
never moved its group by more than `UNDETECTABLE_V` until the end of the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from twin.analytics.detectors.base import DetectorParams
from twin.telemetry.frame import PackInfo
from twin.telemetry.reader import RunFolder

YEAR_S = 365.25 * 86400.0
THERMAL_EVENTS = ("venting", "thermal_runaway")
# Channel offsets and noise of a good BMS are 0.5 mV each; a drift below twice that is lost in them.
UNDETECTABLE_V = 1e-3


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One injected fault. `pack` and `rack` are empty when it concerns more than one."""

    t_s: float
    kind: str
    site: str
    rack: str
    pack: str
    group: int | None
    effect_V: float  # largest voltage difference it can have caused by the end; NaN when not assessed

    @property
    def undetectable(self) -> bool:
        """Whether no voltage detector could have seen it."""
        return self.effect_V < UNDETECTABLE_V

    @property
    def place(self) -> tuple[str, str, str]:
        """Site, rack, pack."""
        return self.site, self.rack, self.pack

    def concerns(self, site: str, rack: str, pack: str) -> bool:
        """Whether this pack is touched."""
        return self.site in ("", site) and self.rack in ("", rack) and self.pack in ("", pack)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One detector over one run. Times in s; a number that does not exist is NaN."""

    detector: str
    baseline: bool
    faults: int  # of the kinds it claims
    detected: int
    missed: int  # of those that could have been seen
    undetectable: int  # neither seen nor visible
    detection_rate: float  # detected of all faults it claims, the undetectable included
    detection_rate_low: float
    detection_rate_high: float
    delay_median_s: float
    delay_max_s: float
    lead_min_s: float  # first alert to venting or thermal runaway of the same pack
    alerts: int
    false_alarms: int
    beside: int
    pack_years: float  # observed without a claimed fault
    false_alarms_per_pack_year: float
    false_alarms_low: float
    false_alarms_high: float
    packs: int
    faulty_packs: int

    def as_row(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def faults_of(run: RunFolder) -> list[Fault]:
    """Injected faults, in the order they began."""
    events = run.events()
    packs = {(p.site, p.rack, p.pack): p for p in run.packs}
    found = []
    begun = events[(events["source"] == "fault") & (events["severity"] != "info")]
    for row in begun.to_dict("records"):
        site, rack, pack = str(row["site"]), str(row["rack"]), str(row["pack"])
        info = packs.get((site, rack, pack))
        cell = None if pd.isna(row["cell"]) else int(row["cell"])
        found.append(
            Fault(
                t_s=row["t_us"] * 1e-6,
                kind=str(row["kind"]),
                site=site,
                rack=rack,
                pack=pack,
                group=info.group_of_cell(cell) if info is not None and cell is not None else None,
                effect_V=_short_effect(run, info, row["t_us"])
                if row["kind"] == "internal_short"
                else math.nan,
            )
        )
    return found


def _short_effect(run: RunFolder, info: PackInfo | None, t_us: int) -> float:
    """Largest voltage by which the drained charge can have moved the group, by the open-circuit curve."""
    if info is None or len(info.ocv_soc) < 2 or not run.has("truth"):
        return math.nan
    truth = run.series("truth", ["t_us", "short_current_A", "soc_mean"], info.site, info.rack, info.pack)
    after = truth["t_us"] >= t_us
    t_s = truth["t_us"][after] * 1e-6
    if t_s.size < 2:
        return 0.0
    drained = np.cumsum(truth["short_current_A"][after][1:] * np.diff(t_s)) / (info.capacity_Ah * 3600.0)
    soc = truth["soc_mean"][after][1:].astype(float)
    volts = np.interp(soc, info.ocv_soc, info.ocv_V) - np.interp(soc - drained, info.ocv_soc, info.ocv_V)
    return float(np.abs(volts).max())


def score(
    run: RunFolder,
    alerts: pd.DataFrame,
    detectors: Sequence[DetectorParams],
    *,
    faults: Sequence[Fault],
    baseline: bool = False,
) -> list[Score]:
    """One row for each detector, also for one that said nothing."""
    scorer = _Scorer(run, alerts, faults)
    return [scorer.score(d.word, (d.word,), d.detects, baseline=baseline) for d in detectors]


def score_together(
    run: RunFolder, alerts: pd.DataFrame, detectors: Sequence[DetectorParams], *, faults: Sequence[Fault]
) -> Score:
    """All detectors as one: a fault counts as found when any of them found it, at the first alert."""
    words = tuple(detector.word for detector in detectors)
    claims = tuple(dict.fromkeys(kind for detector in detectors for kind in detector.detects))
    return _Scorer(run, alerts, faults).score("together", words, claims)


class _Scorer:
    """What all scores of a run have in common, read once."""

    def __init__(self, run: RunFolder, alerts: pd.DataFrame, faults: Sequence[Fault]) -> None:
        self.alerts, self.faults = alerts, faults
        self.packs = len(run.packs)
        self.thermal = _first_thermal(run)
        self.span = _observed(run)

    def score(
        self, name: str, words: Sequence[str], claims: Sequence[str], *, baseline: bool = False
    ) -> Score:
        """Score the alerts of these detectors against the faults of the kinds they claim."""
        own = [fault for fault in self.faults if fault.kind in claims and fault.pack]
        said = self.alerts[self.alerts["detector"].isin(words)].to_dict("records")
        first: dict[int, float] = {}
        n_false = n_beside = 0
        for alert in said:
            t_s = alert["t_us"] * 1e-6
            place = (str(alert["site"]), str(alert["rack"]), str(alert["pack"]))
            active = [fault for fault in self.faults if fault.t_s <= t_s and fault.concerns(*place)]
            hits = [
                k for k, fault in enumerate(own) if fault in active and _same_group(fault, alert["group"])
            ]
            for k in hits:
                first[k] = min(first.get(k, math.inf), t_s)
            if not hits and any(fault not in own for fault in active):
                n_beside += 1
            elif not hits:
                n_false += 1
        delays = [t_s - own[k].t_s for k, t_s in sorted(first.items())]
        leads = [
            self.thermal[own[k].place] - t_s
            for k, t_s in sorted(first.items())
            if own[k].place in self.thermal
        ]
        unseen = sum(fault.undetectable for k, fault in enumerate(own) if k not in first)
        faulty_s: dict[tuple[str, str, str], float] = {}
        for fault in own:
            since = faulty_s.get(fault.place, 0.0)
            faulty_s[fault.place] = max(since, self.span[fault.place][1] - fault.t_s)
        observed_s = sum(end - start for start, end in self.span.values())
        years = max(observed_s - sum(faulty_s.values()), 0.0) / YEAR_S
        low, high = poisson_interval(n_false)
        rate_low, rate_high = share_interval(len(first), len(own))
        return Score(
            detector=name,
            baseline=baseline,
            faults=len(own),
            detected=len(first),
            missed=len(own) - len(first) - unseen,
            undetectable=unseen,
            detection_rate=len(first) / len(own) if own else math.nan,
            detection_rate_low=rate_low,
            detection_rate_high=rate_high,
            delay_median_s=float(np.median(delays)) if delays else math.nan,
            delay_max_s=max(delays, default=math.nan),
            lead_min_s=min(leads, default=math.nan),
            alerts=len(said),
            false_alarms=n_false,
            beside=n_beside,
            pack_years=years,
            false_alarms_per_pack_year=n_false / years if years else math.nan,
            false_alarms_low=low / years if years else math.nan,
            false_alarms_high=high / years if years else math.nan,
            packs=self.packs,
            faulty_packs=len(faulty_s),
        )


def detection_metrics(together: Score | None, alerts: pd.DataFrame) -> dict[str, float]:
    """Metrics of the scenario's own detectors taken together (None: it has none), SI."""
    if together is None:
        return {"alerts": 0.0}
    return {
        "alerts": float(len(alerts)),
        "detected_faults": float(together.detected),
        "missed_faults": float(together.missed + together.undetectable),
        "detection_delay": together.delay_max_s,
        "warning_before_venting": together.lead_min_s,
        "false_alarms": float(together.false_alarms),
        "false_alarms_per_pack_year": together.false_alarms_per_pack_year,
    }


def _same_group(fault: Fault, group: Any) -> bool:
    return fault.group is None or pd.isna(group) or int(group) == fault.group


def _first_thermal(run: RunFolder) -> dict[tuple[str, str, str], float]:
    """When each pack first vented or ran away."""
    events = run.events()
    found: dict[tuple[str, str, str], float] = {}
    for row in events[events["kind"].isin(THERMAL_EVENTS)].to_dict("records"):
        found.setdefault((str(row["site"]), str(row["rack"]), str(row["pack"])), row["t_us"] * 1e-6)
    return found


def _observed(run: RunFolder) -> dict[tuple[str, str, str], tuple[float, float]]:
    """First and last measured instant of each pack."""
    rows = run.measured(["t_us", "site", "rack", "pack"])
    if rows.empty:
        return {}
    span = rows.groupby(["site", "rack", "pack"], observed=True)["t_us"].agg(["min", "max"])
    return {
        (str(key[0]), str(key[1]), str(key[2])): (low * 1e-6, high * 1e-6)
        for key, low, high in zip(span.index, span["min"], span["max"], strict=True)
    }


def poisson_interval(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact (Garwood 1936) interval of the mean of a Poisson count."""
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if count == 0 else float(stats.chi2.ppf(tail, 2 * count)) / 2.0
    return low, float(stats.chi2.ppf(1.0 - tail, 2 * count + 2)) / 2.0


def share_interval(hits: int, tries: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact (Clopper and Pearson 1934) interval of a share."""
    if tries == 0:
        return math.nan, math.nan
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if hits == 0 else float(stats.beta.ppf(tail, hits, tries - hits + 1))
    high = 1.0 if hits == tries else float(stats.beta.ppf(1.0 - tail, hits + 1, tries - hits))
    return low, high
