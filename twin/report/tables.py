"""The tables and sentences of a report: verdict, key figures, scores, events, facts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from twin.analytics.metrics import REGISTRY, CLOCK_Hz
from twin.report.abuse import VERDICT_HEAD, VERDICT_NOTE, verdict_rows
from twin.report.figures import LOSSES, total_ledger, where
from twin.report.updates import UpdateStory, update_stories
from twin.report.wording import ABSENT, clock, number, quantity
from twin.telemetry.manifest import Expectation, Manifest
from twin.telemetry.reader import RunFolder
from twin.units import factor

MAX_ROWS = 150
RELATIONS = {"at_least": "at least", "at_most": "at most", "equals": "equals"}

# Metrics worth a card at the top of the page, with the words for it.
CARDS = {
    "energy_discharged": "discharged",
    "power_served_fraction": "of requested energy served",
    "round_trip_efficiency": "round-trip efficiency",
    "cost": "cost of energy",
    "peak_import": "peak grid import",
    "self_consumption": "PV self-consumption",
    "cell_temperature_max": "hottest cell",
    "trips": "BMS trips",
    "detection_delay": "fault to first alert",
    "missed_faults": "faults missed",
    "false_alarms": "false alarms",
    "energy_balance_error": "energy ledger error",
}


@dataclass(frozen=True)
class Table:
    """Rows of text; a row may carry a CSS class."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    classes: tuple[str, ...] = ()
    note: str = ""
    style: str = "wide"  # CSS classes
    numeric: frozenset[int] = field(default=frozenset())  # columns set flush right


def verdict(manifest: Manifest) -> tuple[str, str]:
    """One sentence and its class ('good', 'bad', 'none')."""
    claims = manifest.expectations
    if not claims:
        return "no expectations were stated", "none"
    failed = sum(not claim.met for claim in claims)
    if failed:
        return f"{failed} of {len(claims)} expectations FAILED", "bad"
    return (f"all {len(claims)} expectations met" if len(claims) > 1 else "the expectation is met"), "good"


def cards(manifest: Manifest) -> list[tuple[str, str]]:
    """(number, what it is) of the key figures that exist."""
    found = []
    for name, words in CARDS.items():
        entry = manifest.summary.get(name)
        if entry is not None and entry["value"] is not None and math.isfinite(entry["value"]):
            found.append((quantity(entry["value"], entry["dimension"]), words))
    return found


def expectations(claims: list[Expectation]) -> Table | None:
    """Each claim with what was found."""
    if not claims:
        return None
    return Table(
        "Expectations",
        ("", "metric", "wanted", "found"),
        tuple(
            (
                "met" if claim.met else "FAILED",
                claim.metric,
                f"{RELATIONS[claim.relation]} {quantity(claim.wanted, claim.dimension)}",
                quantity(claim.value, claim.dimension),
            )
            for claim in claims
        ),
        tuple("good" if claim.met else "bad" for claim in claims),
    )


def metrics(manifest: Manifest) -> Table | None:
    """All metrics."""
    if not manifest.summary:
        return None
    rows = []
    for name in [*REGISTRY, *(name for name in manifest.summary if name not in REGISTRY)]:
        if name in manifest.summary:
            entry = manifest.summary[name]
            meaning = REGISTRY[name].meaning if name in REGISTRY else ""
            rows.append((name, quantity(entry["value"], entry["dimension"]), meaning))
    return Table("All figures", ("metric", "value", "meaning"), tuple(rows), style="", numeric=frozenset({1}))


def scores(rows: list[dict[str, Any]]) -> Table | None:
    """Detectors against events and truth."""
    if not rows:
        return None

    def value(row: dict[str, Any], name: str) -> float:
        found = row.get(name)
        return math.nan if found is None else float(found)

    body = []
    for row in rows:
        low, high = value(row, "false_alarms_low"), value(row, "false_alarms_high")
        share = f"{row['detected']} of {row['faults']}"
        if row["faults"]:
            share += (
                f" ({quantity(value(row, 'detection_rate_low'), 'fraction')} to "
                f"{quantity(value(row, 'detection_rate_high'), 'fraction')})"
            )
        body.append(
            (
                f"{row['detector']}{' (baseline)' if row['baseline'] else ''}",
                share,
                f"{row['missed']} + {row['undetectable']}",
                quantity(value(row, "delay_median_s"), "time"),
                quantity(value(row, "lead_min_s"), "time"),
                f"{row['false_alarms']} in {number(value(row, 'pack_years'), 2)}",
                f"{number(low, 2)} to {number(high, 2)}",
                f"{row['faulty_packs']} of {row['packs']}",
            )
        )
    return Table(
        "Detectors, scored against events and truth",
        (
            "detector",
            "faults found (95 %)",
            "missed + undetectable",
            "delay, median",
            "lead to venting, least",
            "false alarms in pack-years",
            "false alarms per pack-year (95 %)",
            "faulty packs",
        ),
        tuple(body),
        note="Undetectable: internal shorts whose drain moved their group by less than 1 mV until the end of "
        "the run. Failures without any precursor in voltage, current and temperature exist and are in none "
        "of these figures. One run is a small sample: mind the intervals.",
    )


def controllers(manifest: Manifest) -> Table | None:
    """Cycles and load of the emulated controllers, task by task."""
    rows = []
    for design, found in manifest.firmware.items():
        tasks = [name.removesuffix("_cycles_max") for name in found if name.endswith("_cycles_max")]
        for task in tasks:
            if f"{task}_load_max" not in found:
                continue
            cycles = [f"{found[f'{task}_cycles_{what}']:,.0f}" for what in ("min", "mean", "max")]
            longest = quantity(found[f"{task}_cycles_max"] / CLOCK_Hz, "time")
            rows.append((design, task, *cycles, longest, quantity(found[f"{task}_load_max"], "fraction")))
    if not rows:
        return None
    return Table(
        "Firmware on the emulated controllers",
        ("pack design", "task", "cycles, least", "mean", "most", "longest", "share of the processor"),
        tuple(rows),
        note="Counted cycle by cycle at 50 MHz. rt: protections every 10 ms, in the timer interrupt; the "
        "others run in the main loop, without the time that rt takes from them.",
        numeric=frozenset({2, 3, 4, 5, 6}),
    )


def updates(run: RunFolder) -> Table | None:
    """Each pack's update: when it came to what, and what it cost on the air."""
    stories = update_stories(run.events())
    if not stories:
        return None

    def after(story: UpdateStory, phase: str) -> str:
        found = story.first(phase)
        return ABSENT if found is None else clock(found - story.ordered_s)

    return Table(
        "Updates, pack by pack",
        (
            "pack",
            "ordered",
            "downloaded",
            "verified and staged",
            "reboot",
            "ended",
            "received",
            "of full",
            "end",
        ),
        tuple(
            (
                story.path,
                f"{story.what} at {clock(story.ordered_s)}",
                after(story, "transfer"),
                after(story, "staged"),
                after(story, "probation"),
                ABSENT if story.end_s is None else clock(story.end_s - story.ordered_s),
                f"{number(story.received_B / 1e3)} kB",
                quantity(story.received_B / story.full_B, "fraction") if story.full_B else ABSENT,
                story.outcome + (f": {story.why}" if story.outcome != "success" and story.why else ""),
            )
            for story in stories
        ),
        tuple("good" if story.outcome == "success" else "bad" for story in stories),
        note="Times count from the order. Received: everything that came to the gateway over the air, "
        "metadata and repetitions included; of full: against the plain images.",
        numeric=frozenset({6, 7}),
    )


def containment(run: RunFolder) -> Table | None:
    """Each pack in which a cell went beyond its onset: when what happened, and the verdicts."""
    rows, classes = verdict_rows(run)
    if not rows:
        return None
    return Table("Containment", VERDICT_HEAD, tuple(rows), tuple(classes), note=VERDICT_NOTE)


def events(run: RunFolder, start: datetime) -> Table | None:
    """Events and alerts of weight, in the order of time."""
    rows = [
        (row, str(row["source"]), str(row["kind"]))
        for row in run.events().to_dict("records")
        if row["severity"] != "info" or row["source"] in ("fault", "operator", "plant", "update")
    ]
    rows += [(row, "alert", str(row["detector"])) for row in run.alerts().to_dict("records")]
    rows.sort(key=lambda entry: int(entry[0]["t_us"]))
    if not rows:
        return None
    shown = rows[:MAX_ROWS]
    left = len(rows) - len(shown)
    return Table(
        "Events and alerts",
        ("time (UTC)", "since start", "where", "who", "what", "severity", "text"),
        tuple(
            (
                f"{start + timedelta(microseconds=int(row['t_us'])):%Y-%m-%d %H:%M:%S}",
                clock(row["t_us"] * 1e-6),
                where(row).rstrip(":") + _part(row),
                who,
                what,
                str(row["severity"]),
                str(row["text"]),
            )
            for row, who, what in shown
        ),
        tuple(str(row["severity"]) for row, _, _ in shown),
        note=f"{left} more are in the tables of the run." if left else "",
        style="wide time",
    )


def _part(row: dict[Any, Any]) -> str:
    for name in ("cell", "group"):
        part = row.get(name)
        if part is not None and part == part and str(part) != "<NA>":
            return f"/{name}-{int(part)}"
    return ""


def balances(manifest: Manifest) -> Table | None:
    """The energy and charge ledgers, every term."""
    ledger = total_ledger(manifest.balances)
    if not ledger:
        return None
    rows = []
    for name, value in ledger.items():
        words = name[:-2] if name.endswith(("_J", "_C")) else name
        book, _, term = words.partition("_")
        label = f"{book}: {LOSSES[name][0] if name in LOSSES else term.replace('_', ' ')}"
        if name.endswith("_J"):
            rows.append((label, quantity(value, "energy") if value else "0 Wh"))
        elif name.endswith("_C"):
            rows.append((label, f"{number(value / factor('Ah', 'charge'))} Ah"))
        else:
            rows.append((label, number(value)))
    return Table("Ledgers", ("term", "value"), tuple(rows), style="", numeric=frozenset({1}))


def facts(run: RunFolder) -> Table:
    """What was run, with what."""
    manifest = run.manifest
    rows = [
        (
            "scenario",
            f"{manifest.scenario}, hash {manifest.scenario_hash[:16] or ABSENT}, seed {manifest.seed}",
        ),
        ("time", f"{clock(manifest.duration_s)} from {manifest.start or ABSENT} UTC"),
        ("fleet", _fleet(run)),
        ("fidelity", "; ".join(f"{ladder}: {rung}" for ladder, rung in manifest.fidelity.items()) or ABSENT),
        ("steps", ", ".join(f"{name} {count:,}" for name, count in manifest.steps.items()) or ABSENT),
        ("finer steps", _windows(manifest)),
        ("rows", ", ".join(f"{name} {table.rows:,}" for name, table in manifest.tables.items())),
        (
            "program",
            f"{manifest.version or ABSENT}, commit {manifest.commit[:12] or ABSENT}{_dirty(manifest)}",
        ),
        ("packages", ", ".join(f"{name} {version}" for name, version in manifest.packages.items()) or ABSENT),
        ("tables", _digest(manifest)),
        ("result hash", manifest.deterministic_sha256()[:32]),
    ]
    timing = _timings(manifest.timings)
    if timing:
        rows.append(("wall time", timing))
    return Table("Run facts", ("", ""), tuple(rows), style="wide facts")


def _fleet(run: RunFolder) -> str:
    designs: dict[str, int] = {}
    for info in run.packs:
        designs[info.design] = designs.get(info.design, 0) + 1
    racks = len({(info.site, info.rack) for info in run.packs})
    sites = len({info.site for info in run.packs})
    cells = sum(info.n_series * info.n_parallel for info in run.packs)
    packs = " + ".join(f"{count} × {design}" for design, count in designs.items())
    return f"{sites} site(s), {racks} rack(s), {packs}: {cells:,} cells"


def _windows(manifest: Manifest) -> str:
    windows = manifest.zoom_windows
    if not windows:
        return "none"
    first = "; ".join(
        f"{clock(w['start_us'] * 1e-6)} for {quantity((w['end_us'] - w['start_us']) * 1e-6, 'time')}"
        + (f" ({', '.join(w['reasons'])})" if w.get("reasons") else "")
        for w in windows[:6]
    )
    return first + (f"; {len(windows) - 6} more" if len(windows) > 6 else "")


def _dirty(manifest: Manifest) -> str:
    return " with local changes" if manifest.commit.endswith("+changes") else ""


def _digest(manifest: Manifest) -> str:
    return ", ".join(f"{name} {table.sha256[:8]}" for name, table in manifest.tables.items())


def _timings(timings: dict[str, Any], prefix: str = "") -> str:
    words = []
    for name, value in timings.items():
        if isinstance(value, dict):
            words.append(_timings(value, f"{name} "))
        elif isinstance(value, int | float):
            words.append(
                f"{prefix}{name.removesuffix('_s').replace('_', ' ')} {quantity(float(value), 'time')}"
            )
        else:
            words.append(f"{prefix}{name} {value}")
    return ", ".join(words)
