"""Figures as PNG, drawn with matplotlib: for papers, mails and places where no page opens."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display is needed, and none may change the picture

import matplotlib.dates as mdates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from twin.report.spec import (
    SEVERITY_COLOURS,
    BarPanel,
    Figure,
    FloatArray,
    LanePanel,
    Panel,
    ScatterPanel,
    SpanPanel,
    TimePanel,
)

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#B4BAC2",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E7E9EC",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "",
}
_DASH = {"solid": "-", "dash": "--", "dot": ":"}
_WIDTH_PX, _DPI = 1200, 100
_TOP, _BOTTOM, _LEFT, _RIGHT, _GAP = 62, 56, 76, 205, 38


def png(figure: Figure, start: datetime) -> bytes:
    """The figure as a PNG file, the same bytes each time."""
    # Places in pixels: a layout engine would measure every text twice and take a third of the time.
    left = max(_LEFT, *(_longest(panel) for panel in figure.panels))
    heights = [panel.height for panel in figure.panels]
    total_px = _TOP + sum(heights) + _GAP * (len(heights) - 1) + _BOTTOM
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(_WIDTH_PX / _DPI, total_px / _DPI), dpi=_DPI)
        canvas.text(12 / _WIDTH_PX, 1 - 22 / total_px, figure.title, fontsize=12, fontweight="bold")
        shared = figure.over_time
        axes: list[Axes] = []
        top = total_px - _TOP
        for height in heights:
            place = ((top - height) / total_px, (_WIDTH_PX - left - _RIGHT) / _WIDTH_PX, height / total_px)
            axes.append(
                canvas.add_axes((left / _WIDTH_PX, *place), sharex=axes[0] if shared and axes else None)
            )
            top -= height + _GAP
        for panel, ax in zip(figure.panels, axes, strict=True):
            ax.set_title(panel.title)
            if isinstance(panel, TimePanel):
                _time(ax, panel, start)
            elif isinstance(panel, LanePanel):
                _lanes(ax, panel, start)
            elif isinstance(panel, SpanPanel):
                _spans(ax, panel, start)
            elif isinstance(panel, BarPanel):
                _bars(ax, panel)
            else:
                _scatter(ax, panel)
            if shared:
                _marks(ax, figure, start)
        if shared:
            last = axes[-1]
            for ax in axes[:-1]:
                ax.tick_params(labelbottom=False)
            begin, end = _days(np.array(figure.span_s), start).tolist()
            last.set_xlim(begin, end)
            locator = mdates.AutoDateLocator()  # type: ignore[no-untyped-call]
            last.xaxis.set_major_locator(locator)
            last.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
            last.set_xlabel("UTC")
        buffer = io.BytesIO()
        canvas.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _longest(panel: Panel) -> int:
    """Room for the names at the left of a panel, in px."""
    if isinstance(panel, LanePanel):
        return 20 + 7 * max(len(lane.lane) for lane in panel.lanes)
    if isinstance(panel, SpanPanel):
        return 20 + 7 * max(len(lane) for lane in panel.lanes)
    return _LEFT


def _days(t_s: FloatArray, start: datetime) -> FloatArray:
    """Matplotlib's dates: days since 1970."""
    first: float = mdates.date2num(start)  # type: ignore[no-untyped-call]
    return first + np.asarray(t_s, dtype=float) / 86400.0


def _legend(ax: Axes) -> None:
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper left", bbox_to_anchor=(1.005, 1.02), borderaxespad=0.0)


def _time(ax: Axes, panel: TimePanel, start: datetime) -> None:
    for band in panel.bands:
        ax.fill_between(
            _days(band.t_s, start),
            band.low,
            band.high,
            color=band.colour,
            alpha=band.opacity,
            linewidth=0,
            label=band.label,
        )
    for line in panel.lines:
        ax.plot(
            _days(line.t_s, start),
            line.y,
            color=line.colour,
            linestyle=_DASH[line.dash],
            linewidth=0.75 * line.width,
            drawstyle="steps-post" if line.steps else "default",
            label=line.label,
        )
    for level in panel.levels:
        ax.axhline(level.y, color=level.colour, linewidth=0.8, linestyle=":")
        ax.annotate(
            level.label,
            (1.0, level.y),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=7.5,
            color=level.colour,
        )
    ax.set_ylabel(panel.y_label)
    if panel.y_range is not None:
        ax.set_ylim(*panel.y_range)
    _legend(ax)


def _lanes(ax: Axes, panel: LanePanel, start: datetime) -> None:
    names = [lane.lane for lane in panel.lanes]
    for k, lane in enumerate(panel.lanes):
        ax.scatter(
            _days(lane.t_s, start),
            np.full(lane.t_s.size, len(names) - 1 - k),
            c=[SEVERITY_COLOURS[severity] for severity in lane.severity],
            marker="D" if lane.lane.startswith("alerts") else "o",
            s=30,
            edgecolors="white",
            linewidths=0.5,
            zorder=3,
        )
    ax.set_yticks(range(len(names)), names[::-1])
    ax.set_ylim(-0.6, len(names) - 0.4)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=severity)
        for severity, colour in SEVERITY_COLOURS.items()
    ]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.005, 1.02), borderaxespad=0.0)


def _spans(ax: Axes, panel: SpanPanel, start: datetime) -> None:
    place = {lane: len(panel.lanes) - 1 - k for k, lane in enumerate(panel.lanes)}
    for kind, colour in panel.kinds.items():
        mine = [span for span in panel.spans if span.kind == kind]
        begin = _days(np.array([span.start_s for span in mine]), start)
        end = _days(np.array([span.end_s for span in mine]), start)
        rows = [place[span.lane] for span in mine]
        ax.barh(rows, end - begin, left=begin, height=0.7, color=colour, linewidth=0, label=kind)
    ax.set_yticks(range(len(panel.lanes)), panel.lanes[::-1])
    ax.set_ylim(-0.6, len(panel.lanes) - 0.4)
    _legend(ax)


def _bars(ax: Axes, panel: BarPanel) -> None:
    bars = list(dict.fromkeys(piece.bar for piece in panel.pieces))
    left = dict.fromkeys(bars, 0.0)
    for piece in panel.pieces:
        ax.barh(
            piece.bar,
            piece.value,
            left=left[piece.bar],
            color=piece.colour,
            edgecolor="white",
            linewidth=0.6,
            height=0.6,
            label=f"{piece.label}  {piece.value:.4g}",
        )
        left[piece.bar] += piece.value
    ax.invert_yaxis()
    ax.set_xlabel(panel.x_label)
    _legend(ax)


def _scatter(ax: Axes, panel: ScatterPanel) -> None:
    for cloud in panel.clouds:
        if cloud.line:
            ax.plot(cloud.x, cloud.y, color=cloud.colour, marker="o", markersize=3, label=cloud.label)
        else:
            ax.scatter(cloud.x, cloud.y, c=cloud.colour, s=4, alpha=0.5, linewidths=0, label=cloud.label)
    ax.set_xlabel(panel.x_label)
    ax.set_ylabel(panel.y_label)
    ax.set_ylim(*panel.y_range)
    _legend(ax)


def _marks(ax: Axes, figure: Figure, start: datetime) -> None:
    for start_s, end_s in figure.windows:
        begin, end = _days(np.array([start_s, end_s]), start)
        ax.axvspan(begin, end, color="#787E86", alpha=0.16, linewidth=0)
    for mark in figure.marks:
        (when,) = _days(np.array([mark.t_s]), start)
        ax.axvline(when, color=mark.colour, linewidth=0.9, linestyle=_DASH[mark.dash])
