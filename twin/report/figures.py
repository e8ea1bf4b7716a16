"""From the tables of a run to the figures of its report.

What is drawn from `truth` says so in its label; everything else is what meters, sensors and BMS reported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twin.report.abuse import abuse_figures
from twin.report.decimate import envelope, extremes, means
from twin.report.spec import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SERIES_COLOURS,
    SKY,
    YELLOW,
    Band,
    BarPanel,
    Cloud,
    Figure,
    LanePanel,
    Level,
    Line,
    Mark,
    Panel,
    Piece,
    Points,
    ScatterPanel,
    TimePanel,
)
from twin.report.updates import update_figures
from twin.telemetry.frame import PackInfo
from twin.telemetry.reader import RunFolder
from twin.telemetry.schema import SEVERITIES
from twin.units import factor, offset

POINTS = 1500  # per curve; a page is hardly wider
MAX_RACKS = 6
MAX_MARKS = 24
MAX_POINTS_PER_LANE = 400
KELVIN = offset("degC", "temperature")
KWH = factor("kWh", "energy")
KW = factor("kW", "power")
EUR_PER_MWH = factor("EUR/MWh", "energy_price")

# Terms of `Manifest.balances` that are drawn, in this order; the rest of a ledger is in the table beneath.
LOSSES = {
    "energy_converter_J": ("converter losses", ORANGE),
    "energy_cell_heat_J": ("heat in cells", RED),
    "energy_busbar_J": ("busbars", YELLOW),
    "energy_balancing_J": ("balancing", GREY),
    "energy_short_J": ("internal shorts", PURPLE),
}

Place = tuple[str, str, str]


@dataclass(frozen=True)
class Story:
    """What the figures share: the run, its packs in the order of interest, marks and windows."""

    run: RunFolder
    events: pd.DataFrame
    alerts: pd.DataFrame
    marks: tuple[Mark, ...]
    windows: tuple[tuple[float, float], ...]
    span_s: tuple[float, float]
    racks: dict[tuple[str, str], list[PackInfo]]  # those drawn, the suspicious first
    n_racks: int

    def figure(self, key: str, title: str, caption: str, panels: Iterable[Panel]) -> Figure:
        """A figure over time with the run's marks and windows."""
        return Figure(
            key=key,
            title=title,
            caption=caption,
            panels=tuple(panels),
            marks=self.marks,
            windows=self.windows,
            span_s=self.span_s,
        )

    def rack_name(self, rack: tuple[str, str]) -> str:
        """Of a rack, with its site where there are several."""
        return rack[1] if len({info.site for info in self.run.packs}) == 1 else "/".join(rack)

    @property
    def some_racks(self) -> str:
        """A sentence when not all racks are drawn."""
        if len(self.racks) == self.n_racks:
            return ""
        return f" {len(self.racks)} of {self.n_racks} racks are drawn, those with faults or alerts first."


def all_figures(run: RunFolder) -> list[Figure]:
    """The figures of the report, in order. A figure whose table is empty is left out."""
    story = _story(run)
    figures: list[Figure] = [_time_line(story)]
    figures += update_figures(story.events, story.span_s[1], story.figure)
    figures += abuse_figures(run, story.figure)
    if run.has("meter"):
        figures.append(_site_power(story))
    if run.has("measured"):
        figures += [_state_of_charge(story), _voltages(story), _temperatures(story)]
        figures += _deviation(story)
    if run.has("meter"):
        figures.append(_energy(story))
        figures += _converter(story)
    return figures


def _story(run: RunFolder) -> Story:
    events, alerts = run.events(), run.alerts()
    marks = []
    for row in events[(events["source"] == "fault") & (events["severity"] != "info")].to_dict("records"):
        marks.append(Mark(label="fault", t_s=row["t_us"] * 1e-6, colour=PURPLE, dash="solid"))
    seen: set[tuple[Any, ...]] = set()
    for row in alerts.to_dict("records"):
        who = (row["site"], row["rack"], row["pack"], row["detector"], row["severity"])
        if who not in seen:
            seen.add(who)
            marks.append(Mark(label=str(row["severity"]), t_s=row["t_us"] * 1e-6, colour=RED))
    for row in events[(events["source"] == "bms") & (events["kind"] == "trip")].to_dict("records"):
        marks.append(Mark(label="trip", t_s=row["t_us"] * 1e-6, colour=BLACK, dash="dot"))
    marks.sort(key=lambda mark: mark.t_s)

    racks: dict[tuple[str, str], list[PackInfo]] = {}
    for info in run.packs:
        racks.setdefault((info.site, info.rack), []).append(info)
    named = [(str(r["site"]), str(r["rack"])) for r in alerts.to_dict("records")]
    faulty = events[(events["source"] == "fault") & (events["severity"] != "info")]
    named += [(str(r["site"]), str(r["rack"])) for r in faulty.to_dict("records")]
    first = [rack for rack in dict.fromkeys(named) if rack in racks]
    drawn = [*first, *(rack for rack in racks if rack not in first)][:MAX_RACKS]
    drawn.sort(key=list(racks).index)

    end_s = max(run.manifest.duration_s, 1e-6)
    windows = tuple((w["start_us"] * 1e-6, w["end_us"] * 1e-6) for w in run.manifest.zoom_windows)
    return Story(
        run=run,
        events=events,
        alerts=alerts,
        marks=tuple(marks[:MAX_MARKS]),
        windows=windows[:200],
        span_s=(0.0, end_s),
        racks={rack: racks[rack] for rack in drawn},
        n_racks=len(racks),
    )


def _line(label: str, t_s: Any, y: Any, colour: str, **options: Any) -> Line:
    thin_t, thin_y = extremes(np.asarray(t_s, dtype=float), np.asarray(y, dtype=float), POINTS)
    return Line(label=label, t_s=thin_t, y=thin_y, colour=colour, **options)


def _band(label: str, t_s: Any, low: Any, high: Any, colour: str, **options: Any) -> Band:
    t, a, b = envelope(
        np.asarray(t_s, dtype=float), np.asarray(low, dtype=float), np.asarray(high, dtype=float), POINTS // 2
    )
    return Band(label=label, t_s=t, low=a, high=b, colour=colour, **options)


def _known(values: NDArray[Any]) -> bool:
    return bool(np.isfinite(values).any())


# ---- what happened --------------------------------------------------------------------------------------


def _time_line(story: Story) -> Figure:
    lanes = []
    names = {
        "fault": "injected faults",
        "plant": "plant",
        "bms": "BMS",
        "dispatch": "dispatch",
        "operator": "operator",
        "zoom": "finer steps",
        "update": "updates",
    }
    for source, label in names.items():
        rows = story.events[story.events["source"] == source].to_dict("records")
        if rows:
            lanes.append(_lane(label, rows))
    for detector, said in story.alerts.groupby("detector", observed=True):
        lanes.append(_lane(f"alerts: {detector}", said.to_dict("records")))
    if not lanes:
        lanes = [Points(lane="nothing", t_s=np.array([]), severity=(), text=())]
    return story.figure(
        "timeline",
        "What happened",
        "Injected faults, BMS events and alerts of the detectors. Grey: information, orange: warning, red: "
        "alarm. Here and in all figures over time purple lines mark faults, red dashed lines alerts, black "
        "dotted lines BMS trips, and grey stripes windows of finer simulation steps.",
        [LanePanel(title="events and alerts", lanes=tuple(lanes))],
    )


def _lane(label: str, rows: list[dict[Any, Any]]) -> Points:
    if len(rows) > MAX_POINTS_PER_LANE:  # alarms stay, the rest is thinned evenly
        loud = [row for row in rows if row["severity"] == "alarm"][:MAX_POINTS_PER_LANE]
        quiet = [row for row in rows if row["severity"] != "alarm"]
        step = math.ceil(len(quiet) / MAX_POINTS_PER_LANE)
        label = f"{label} (1 of {step} shown)"
        rows = sorted([*loud, *quiet[::step]], key=lambda row: int(row["t_us"]))
    rows = sorted(rows, key=lambda row: SEVERITIES.index(str(row["severity"])))  # the loudest on top
    return Points(
        lane=label,
        t_s=np.array([row["t_us"] * 1e-6 for row in rows]),
        severity=tuple(str(row["severity"]) for row in rows),
        text=tuple(f"{where(row)} {row['text']}".strip() for row in rows),
    )


def where(row: dict[Any, Any]) -> str:
    """`site/rack/pack` of an event or alert, with a colon; empty when it concerns all."""
    path = "/".join(str(row[name]) for name in ("site", "rack", "pack") if str(row[name]))
    return f"{path}:" if path else ""


# ---- site -----------------------------------------------------------------------------------------------


def _site_power(story: Story) -> Figure:
    panels: list[Panel] = []
    for site in dict.fromkeys(info.site for info in story.run.packs):
        meter = story.run.series(
            "meter",
            [
                "t_us",
                "power_requested_W",
                "power_served_W",
                "load_W",
                "pv_W",
                "grid_import_W",
                "price_per_J",
                "frequency_Hz",
            ],
            site,
        )
        t_s = meter["t_us"] * 1e-6
        lines = [
            # Broad beneath narrow: what was asked and not given stays visible.
            _line("requested", t_s, meter["power_requested_W"] / KW, GREY, steps=True, width=3.2),
            _line("served", t_s, meter["power_served_W"] / KW, BLUE, steps=True, width=1.3),
        ]
        panels.append(
            TimePanel(
                title=f"{site}: battery power (AC, discharge positive)", y_label="kW", lines=tuple(lines)
            )
        )
        flows = [
            _line(label, t_s, meter[name] / KW, colour, steps=True, width=width)
            for label, name, colour, width in (
                ("load", "load_W", BLACK, 1.2),
                ("PV", "pv_W", ORANGE, 1.6),
                ("grid import", "grid_import_W", GREEN, 1.2),
            )
            if _known(meter[name])
        ]
        if flows:
            panels.append(TimePanel(title=f"{site}: load, PV and grid", y_label="kW", lines=tuple(flows)))
        if _known(meter["price_per_J"]):
            price = _line("price", t_s, meter["price_per_J"] / EUR_PER_MWH, PURPLE, steps=True)
            panels.append(
                TimePanel(title=f"{site}: energy price", y_label="€/MWh", lines=(price,), height=140)
            )
        if _known(meter["frequency_Hz"]):
            frequency = _line("frequency", t_s, meter["frequency_Hz"], SKY, width=0.9)
            panels.append(
                TimePanel(title=f"{site}: grid frequency", y_label="Hz", lines=(frequency,), height=140)
            )
    return story.figure(
        "power",
        "Site power",
        "Power asked of the batteries and delivered at the converters' AC side, and what the site's meters "
        "saw. Means over each telemetry period; grid import is negative when the site exports.",
        panels,
    )


# ---- racks ----------------------------------------------------------------------------------------------


def _state_of_charge(story: Story) -> Figure:
    lines: list[Line] = []
    bands: list[Band] = []
    for k, (rack, packs) in enumerate(story.racks.items()):
        colour = SERIES_COLOURS[k % len(SERIES_COLOURS)]
        t_s, soc = _packs(story, "measured", "soc_bms", packs)
        name = story.rack_name(rack)
        lines.append(_line(f"{name} BMS", t_s, 100 * soc.mean(axis=0), colour))
        if story.run.has("truth"):
            t_s, mean = _packs(story, "truth", "soc_mean", packs)
            lines.append(_line(f"{name} truth", t_s, 100 * mean.mean(axis=0), colour, dash="dash", width=1.2))
            _, low = _packs(story, "truth", "soc_min", packs)
            _, high = _packs(story, "truth", "soc_max", packs)
            bands.append(
                _band(
                    f"{name} cells, truth",
                    t_s,
                    100 * low.min(axis=0),
                    100 * high.max(axis=0),
                    colour,
                    opacity=0.13,
                )
            )
    return story.figure(
        "soc",
        "State of charge",
        "As the BMS estimates it (solid) and as it is (truth: dashed mean, shaded from the emptiest to the "
        f"fullest cell).{story.some_racks}",
        [TimePanel(title="state of charge", y_label="%", lines=tuple(lines), bands=tuple(bands), height=300)],
    )


def _voltages(story: Story) -> Figure:
    panels = []
    for rack, packs in story.racks.items():
        t_s, low, middle, high = _envelope(story, "group_voltage_V", packs)
        lines = [_line("median group", t_s, middle, BLUE, width=1.2)]
        for info, group in _suspects(story, packs):
            series = story.run.series(
                "measured", ["t_us", "group_voltage_V"], info.site, info.rack, info.pack
            )
            label = f"group {group}" + (f" of {info.pack}" if len(packs) > 1 else "")
            lines.append(
                _line(label, series["t_us"] * 1e-6, series["group_voltage_V"][:, group - 1], RED, width=1.1)
            )
        levels = _levels(
            low, high, {"lower limit": packs[0].voltage_min_V, "upper limit": packs[0].voltage_max_V}
        )
        panels.append(
            TimePanel(
                title=f"{story.rack_name(rack)}: series-group voltage"
                + _off_scale(levels, packs[0].voltage_min_V, packs[0].voltage_max_V, "V"),
                y_label="V",
                lines=tuple(lines),
                bands=(_band("lowest to highest", t_s, low, high, BLUE),),
                levels=levels,
                height=210,
            )
        )
    return story.figure(
        "voltage",
        "Cell voltages",
        "Measured voltage of the series groups of each rack; a group that a detector named, or that has a "
        f"fault, is drawn in red.{story.some_racks}",
        panels,
    )


def _temperatures(story: Story) -> Figure:
    panels = []
    for rack, packs in story.racks.items():
        t_s, low, middle, high = _envelope(story, "temperature_K", packs)
        low, middle, high = low - KELVIN, middle - KELVIN, high - KELVIN
        lines = [_line("median sensor", t_s, middle, ORANGE, width=1.2)]
        top = high
        if story.run.has("truth"):
            t_truth, hottest = _packs(story, "truth", "temperature_max_K", packs)
            top = hottest.max(axis=0) - KELVIN
            lines.append(_line("hottest cell, truth", t_truth, top, RED, dash="dash", width=1.2))
        if story.run.has("meter"):
            meter = story.run.series("meter", ["t_us", "ambient_K"], rack[0])
            lines.append(_line("ambient", meter["t_us"] * 1e-6, meter["ambient_K"] - KELVIN, SKY, width=1.2))
        limits = (packs[0].temperature_min_K - KELVIN, packs[0].temperature_max_K - KELVIN)
        levels = _levels(low, top, {"lower limit": limits[0], "upper limit": limits[1]})
        panels.append(
            TimePanel(
                title=f"{story.rack_name(rack)}: temperature" + _off_scale(levels, *limits, "°C"),
                y_label="°C",
                lines=tuple(lines),
                bands=(_band("coldest to hottest sensor", t_s, low, high, ORANGE),),
                levels=levels,
                height=190,
            )
        )
    return story.figure(
        "temperature",
        "Temperatures",
        "Temperature sensors of each rack, the air around it, and the hottest cell as it is (truth)."
        f"{story.some_racks}",
        panels,
    )


def _packs(story: Story, table: str, name: str, packs: list[PackInfo]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Time and a column of several packs, (n_packs, n_rows)."""
    found = [story.run.series(table, ["t_us", name], p.site, p.rack, p.pack) for p in packs]
    rows = min(series["t_us"].size for series in found)
    return found[0]["t_us"][:rows] * 1e-6, np.array([series[name][:rows] for series in found], dtype=float)


def _envelope(story: Story, name: str, packs: list[PackInfo]) -> tuple[NDArray[Any], ...]:
    """Time, lowest, median and highest of a list column over the packs of a rack."""
    found = [story.run.series("measured", ["t_us", name], p.site, p.rack, p.pack) for p in packs]
    rows = min(series["t_us"].size for series in found)
    values = np.concatenate([series[name][:rows] for series in found], axis=1).astype(float)
    silent = ~np.isfinite(values).any(axis=1)
    values[silent] = 0.0
    low, middle, high = np.nanmin(values, axis=1), np.nanmedian(values, axis=1), np.nanmax(values, axis=1)
    for curve in (low, middle, high):
        curve[silent] = np.nan
    return found[0]["t_us"][:rows] * 1e-6, low, middle, high


def _suspects(story: Story, packs: list[PackInfo]) -> list[tuple[PackInfo, int]]:
    """Groups named by alerts, then by faults; a handful at most."""
    found: list[tuple[PackInfo, int]] = []
    places = {(p.site, p.rack, p.pack): p for p in packs}

    for row in story.alerts.to_dict("records"):
        if _place(row) in places and not pd.isna(row["group"]):
            found.append((places[_place(row)], int(row["group"])))
    for row in story.events[story.events["source"] == "fault"].to_dict("records"):
        if _place(row) in places and not pd.isna(row["cell"]):
            info = places[_place(row)]
            found.append((info, info.group_of_cell(int(row["cell"]))))
    return list(dict.fromkeys(found))[:3]


def _place(row: dict[Any, Any]) -> Place:
    return str(row["site"]), str(row["rack"]), str(row["pack"])


def _levels(low: NDArray[Any], high: NDArray[Any], limits: dict[str, float]) -> tuple[Level, ...]:
    """Limits that lie near enough to the data to be drawn without flattening it."""
    bottom, top = float(np.fmin.reduce(low)), float(np.fmax.reduce(high))
    margin = max(top - bottom, 1e-9)
    return tuple(
        Level(label=label, y=value)
        for label, value in limits.items()
        if bottom - margin < value < top + margin
    )


def _off_scale(levels: tuple[Level, ...], low: float, high: float, unit: str) -> str:
    return "" if len(levels) == 2 else f" (limits {low:g} to {high:g} {unit})"


# ---- the suspect ----------------------------------------------------------------------------------------


def _deviation(story: Story) -> list[Figure]:
    """How the groups of the most suspicious packs lie to the median of their pack."""
    panels: list[Panel] = []
    chosen = [found for packs in story.racks.values() for found in _suspects(story, packs)]
    rows = story.events[story.events["source"] == "fault"].to_dict("records")
    faulty = {_place(row) for row in rows}
    chosen.sort(key=lambda found: (found[0].site, found[0].rack, found[0].pack) not in faulty)
    packs = list(dict.fromkeys(info for info, _ in chosen))[:3]
    minutes = 0.0
    for info in packs:
        groups = [group for other, group in chosen if other == info]
        series = story.run.series("measured", ["t_us", "group_voltage_V"], info.site, info.rack, info.pack)
        volts = series["group_voltage_V"].astype(float)
        t_s = series["t_us"] * 1e-6
        middle = np.nanmedian(np.where(np.isfinite(volts).any(axis=1, keepdims=True), volts, 0.0), axis=1)
        t_bin, offset_mV = means(t_s, 1e3 * (volts - middle[:, None]), 400)
        minutes = (t_bin[1] - t_bin[0]) / 60.0 if t_bin.size > 1 else 0.0
        others = np.delete(offset_mV, [group - 1 for group in groups], axis=1)
        if others.shape[1] == 0:
            continue
        low, high = np.fmin.reduce(others, axis=1), np.fmax.reduce(others, axis=1)  # a silent channel is NaN
        # Near empty all groups part by hundreds of mV; the view begins with what is usual before that.
        usual_mV = max(5.0 * float(np.nanmedian(high - low)) / 2.0, 10.0)
        cut = bool(np.fmax.reduce(np.abs(offset_mV), axis=None) > 2.0 * usual_mV)
        panels.append(
            TimePanel(
                title=f"{info.path}: group voltage minus the pack's median" + (" (axis cut)" if cut else ""),
                y_label="mV",
                bands=(
                    Band(
                        label="all other groups",
                        t_s=t_bin,
                        low=low,
                        high=high,
                        colour=BLUE,
                    ),
                ),
                lines=tuple(
                    Line(label=f"group {group}", t_s=t_bin, y=offset_mV[:, group - 1], colour=colour)
                    for group, colour in zip(groups, (RED, BLACK, GREEN), strict=False)
                ),
                height=230,
                y_range=(-usual_mV, usual_mV) if cut else None,
            )
        )
        if story.run.has("truth"):
            truth = story.run.series("truth", ["t_us", "soc", "soc_mean"], info.site, info.rack, info.pack)
            apart = 100.0 * (truth["soc"].astype(float) - truth["soc_mean"].astype(float)[:, None])
            t_truth = truth["t_us"] * 1e-6
            rest = np.delete(apart, [group - 1 for group in groups], axis=1)
            panels.append(
                TimePanel(
                    title=f"{info.path}: state of charge of the groups minus the pack's mean (truth)",
                    y_label="% SoC",
                    bands=(_band("all other groups", t_truth, rest.min(axis=1), rest.max(axis=1), GREY),),
                    lines=tuple(
                        _line(f"group {group}", t_truth, apart[:, group - 1], colour, dash="dash")
                        for group, colour in zip(groups, (RED, BLACK, GREEN), strict=False)
                    ),
                    height=170,
                )
            )
    if not panels:
        return []
    return [
        story.figure(
            "deviation",
            "The suspect",
            f"What a detector has to work with: means over {minutes:.0f} min of each group's measured "
            "voltage against the median of its pack, and beneath it the hidden state that explains it.",
            panels,
        )
    ]


# ---- energy ---------------------------------------------------------------------------------------------


def _energy(story: Story) -> Figure:
    charged = discharged = 0.0
    for site in dict.fromkeys(info.site for info in story.run.packs):
        meter = story.run.series("meter", ["t_us", "power_served_W"], site)
        dt_s = np.diff(meter["t_us"], prepend=0) * 1e-6
        charged += float((np.clip(-meter["power_served_W"], 0.0, None) * dt_s).sum())
        discharged += float((np.clip(meter["power_served_W"], 0.0, None) * dt_s).sum())
    ledger = total_ledger(story.run.manifest.balances)
    charged = ledger.get("energy_charged_J", charged)  # the ledger knows the last, unfinished period too
    discharged = ledger.get("energy_discharged_J", discharged)
    taken = ledger.get("energy_chemical_J", 0.0)  # decrease of what the cells hold
    came, went = "came in", "went out"
    pieces = [Piece(label="charged (AC)", bar=came, value=charged / KWH, colour=BLUE)]
    if taken > 0:
        pieces.append(Piece(label="from the cells' store", bar=came, value=taken / KWH, colour=GREEN))
    pieces.append(Piece(label="discharged (AC)", bar=went, value=discharged / KWH, colour=SKY))
    if taken < 0:
        pieces.append(Piece(label="into the cells' store", bar=went, value=-taken / KWH, colour=GREEN))
    for name, (label, colour) in LOSSES.items():
        value = ledger.get(name, 0.0)
        if value > 0:
            pieces.append(Piece(label=label, bar=went, value=value / KWH, colour=colour))
    residual = ledger.get("energy_residual", math.nan)
    closes = (
        f" The ledgers close to {abs(residual):.0e} of the throughput." if math.isfinite(residual) else ""
    )
    auxiliary = ledger.get("energy_auxiliary_J", 0.0)
    beside = f" Cooling and controls took {auxiliary / KWH:.3g} kWh beside it." if auxiliary > 0 else ""
    return Figure(
        key="energy",
        title="Energy balance of the batteries",
        caption=f"From the converters' AC side to the cells, over the whole run.{closes}{beside}",
        panels=(BarPanel(title="energy", x_label="kWh", pieces=tuple(pieces)),),
    )


def total_ledger(balances: dict[str, dict[str, float]]) -> dict[str, float]:
    """The scope 'all', or the sum over the scopes (the largest, for a residual)."""
    if "all" in balances:
        return balances["all"]
    names = dict.fromkeys(name for scope in balances.values() for name in scope)
    return {
        name: (max if name.endswith("_residual") else sum)(
            [scope.get(name, 0.0) for scope in balances.values()]
        )
        for name in names
    }


def _converter(story: Story) -> list[Figure]:
    clouds: list[Cloud] = []
    for site in dict.fromkeys(info.site for info in story.run.packs):
        meter = story.run.series("meter", ["power_served_W", "power_dc_W", "converter_loss_W"], site)
        ac, loss = meter["power_served_W"], meter["converter_loss_W"]
        for label, sign, colour in (("discharge", 1.0, BLUE), ("charge", -1.0, ORANGE)):
            power = sign * ac
            running = (
                np.isfinite(loss) & (power > 0.01 * np.abs(ac).max()) & (sign * meter["power_dc_W"] > 0.0)
            )
            if running.sum() < 10:
                continue
            power, lost = power[running], loss[running]
            # energy out and in, whichever way it goes
            out, into = (power, power + lost) if sign > 0 else (power - lost, power)
            bins = np.minimum((25 * power / power.max()).astype(int), 24)
            held = [b for b in range(25) if (bins == b).sum() >= 3]
            x = np.array([power[bins == b].mean() for b in held])
            y = np.array([out[bins == b].sum() / into[bins == b].sum() for b in held])
            dots = np.argsort(power, kind="stable")[:: max(power.size // 600, 1)]
            clouds.append(
                Cloud(
                    label=f"{site} {label}, rows",
                    x=power[dots] / KW,
                    y=100 * out[dots] / into[dots],
                    colour=GREY,
                )
            )
            clouds.append(Cloud(label=f"{site} {label}, mean", x=x / KW, y=100 * y, colour=colour, line=True))
    if not clouds:
        return []
    # Near zero power efficiency falls to nothing; the axis shows where the converter works.
    usual = min(float(np.percentile(cloud.y, 15)) for cloud in clouds if not cloud.line)
    floor = float(np.clip(10.0 * math.floor(usual / 10.0) - 10.0, 0.0, 80.0))
    return [
        Figure(
            key="converter",
            title="Converter efficiency",
            caption="Power out per power in, for each telemetry period; periods that mix both directions "
            "spread downwards.",
            panels=(
                ScatterPanel(
                    title="converter",
                    x_label="AC power, kW",
                    y_label="efficiency, %",
                    clouds=tuple(clouds),
                    y_range=(floor, 100.5),
                ),
            ),
        )
    ]
