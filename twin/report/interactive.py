"""Figures as plotly JSON, for the page.

Time axes are milliseconds since 1970 on a date axis: a third of the size of written dates. All numbers
are rounded to float32 (seven digits), which no screen can show.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import plotly.graph_objects as go

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

_GAP = 40  # px between panels: the title of the next stands there
_TOP, _BOTTOM, _LEFT, _RIGHT = 34, 58, 64, 205
_GRID = "#E7E9EC"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_DASH = {"solid": "solid", "dash": "dash", "dot": "dot"}


def plotly_json(figure: Figure, start: datetime) -> str:
    """The figure as the JSON that `Plotly.newPlot` takes; the same figure gives the same text."""
    drawn = go.Figure()
    heights = [panel.height for panel in figure.panels]
    total = _TOP + sum(heights) + _GAP * (len(heights) - 1) + _BOTTOM
    plot = total - _TOP - _BOTTOM
    layout: dict[str, object] = {
        "height": total,
        "margin": {"t": _TOP, "b": _BOTTOM, "l": _LEFT, "r": _RIGHT},
        "font": {"family": _FONT, "size": 12, "color": "#22262B"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hovermode": "closest",
        "dragmode": "zoom",
        "shapes": [],
        "annotations": [],
        "barmode": "stack",
    }
    offset_ms = start.replace(tzinfo=UTC).timestamp() * 1e3
    top = 1.0
    for k, (panel, height) in enumerate(zip(figure.panels, heights, strict=True)):
        n = "" if k == 0 else str(k + 1)
        bottom = top - height / plot
        axes = {"xaxis": f"x{n}", "yaxis": f"y{n}"}
        layout[f"xaxis{n}"] = {
            "anchor": f"y{n}",
            "domain": [0.0, 1.0],
            "gridcolor": _GRID,
            "linecolor": "#B4BAC2",
            "ticks": "outside",
            "tickcolor": "#B4BAC2",
            "zeroline": False,
        }
        layout[f"yaxis{n}"] = {
            "anchor": f"x{n}",
            "domain": [max(bottom, 0.0), top],
            "gridcolor": _GRID,
            "linecolor": "#B4BAC2",
            "zeroline": False,
            "automargin": False,
        }
        if figure.over_time:
            time_axis = _time_axis(figure, offset_ms, first=k == 0, last=k == len(heights) - 1)
            layout[f"xaxis{n}"].update(time_axis)  # type: ignore[attr-defined]
        legend = f"legend{n}"
        layout[legend] = {
            "x": 1.01,
            "xanchor": "left",
            "y": top,
            "yanchor": "top",
            "font": {"size": 11},
            "tracegroupgap": 0,
            "traceorder": "normal",
        }
        _title(layout, panel.title, top)
        _panel(drawn, layout, panel, axes, legend, offset_ms)
        top = bottom - _GAP / plot
    if figure.over_time:
        _marks(layout, figure, offset_ms)
    drawn.update_layout(**layout)
    text: str = drawn.to_json(engine="json")
    return text


def _time_axis(figure: Figure, offset_ms: float, *, first: bool, last: bool) -> dict[str, object]:
    axis: dict[str, object] = {
        "type": "date",
        "range": [offset_ms + 1e3 * t_s for t_s in figure.span_s],
        "hoverformat": "%Y-%m-%d %H:%M:%S",
        "tickformatstops": [
            {"dtickrange": [None, 60_000], "value": "%H:%M:%S\n%d %b %Y"},
            {"dtickrange": [60_000, 43_200_000], "value": "%H:%M\n%d %b %Y"},
            {"dtickrange": [43_200_000, None], "value": "%d %b\n%Y"},
        ],
    }
    if not first:
        axis["matches"] = "x"
    if last:
        axis["title"] = {"text": "UTC", "font": {"size": 11}, "standoff": 4}
    else:
        axis["showticklabels"] = False
    return axis


def _title(layout: dict[str, object], title: str, top: float) -> None:
    layout["annotations"].append(  # type: ignore[attr-defined]
        {
            "text": f"<b>{title}</b>",
            "x": 0.0,
            "xref": "paper",
            "xanchor": "left",
            "y": top,
            "yref": "paper",
            "yanchor": "bottom",
            "yshift": 5,
            "showarrow": False,
            "font": {"size": 12.5},
        }
    )


def _ms(t_s: FloatArray, offset_ms: float) -> FloatArray:
    return np.asarray(t_s, dtype=float) * 1e3 + offset_ms


def _small(y: FloatArray) -> np.ndarray:
    return np.asarray(y, dtype=np.float32)


def _panel(
    drawn: go.Figure,
    layout: dict[str, object],
    panel: Panel,
    axes: dict[str, str],
    legend: str,
    offset_ms: float,
) -> None:
    x_axis = layout[axes["xaxis"].replace("x", "xaxis")]
    y_axis = layout[axes["yaxis"].replace("y", "yaxis")]
    assert isinstance(x_axis, dict)
    assert isinstance(y_axis, dict)
    own = {**axes, "legend": legend}
    if isinstance(panel, TimePanel):
        y_axis["title"] = {"text": panel.y_label, "standoff": 6}
        if panel.y_range is not None:
            y_axis["range"] = list(panel.y_range)
        for band in panel.bands:
            edge = {"width": 0, "color": band.colour}
            x = _ms(band.t_s, offset_ms)
            drawn.add_scatter(
                x=x, y=_small(band.low), mode="lines", line=edge, showlegend=False, hoverinfo="skip", **own
            )
            drawn.add_scatter(
                x=x,
                y=_small(band.high),
                mode="lines",
                line=edge,
                fill="tonexty",
                fillcolor=_alpha(band.colour, band.opacity),
                name=band.label,
                hoverinfo="skip",
                **own,
            )
        for line in panel.lines:
            drawn.add_scatter(
                x=_ms(line.t_s, offset_ms),
                y=_small(line.y),
                mode="lines",
                name=line.label,
                line={
                    "color": line.colour,
                    "width": line.width,
                    "dash": _DASH[line.dash],
                    "shape": "hv" if line.steps else "linear",
                },
                hovertemplate=f"%{{y:.4g}} {panel.y_label}<br>%{{x}}",
                **own,
            )
        for level in panel.levels:
            shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": axes["yaxis"]}
            line_style = {"color": level.colour, "width": 1, "dash": "dot"}
            layout["shapes"].append({**shape, "y0": level.y, "y1": level.y, "line": line_style})  # type: ignore[attr-defined]
            layout["annotations"].append(  # type: ignore[attr-defined]
                {
                    "text": level.label,
                    "xref": "paper",
                    "x": 1.0,
                    "xanchor": "right",
                    "yref": axes["yaxis"],
                    "y": level.y,
                    "yanchor": "bottom",
                    "showarrow": False,
                    "font": {"size": 10, "color": level.colour},
                }
            )
    elif isinstance(panel, LanePanel):
        names = [lane.lane for lane in panel.lanes]
        y_axis.update(
            type="category",
            categoryorder="array",
            categoryarray=names[::-1],
            range=[-0.6, len(names) - 0.4],
            automargin=True,
        )
        for lane in panel.lanes:
            drawn.add_scatter(
                x=_ms(lane.t_s, offset_ms),
                y=[lane.lane] * lane.t_s.size,
                mode="markers",
                showlegend=False,
                marker={
                    "size": 9,
                    "symbol": "diamond" if lane.lane.startswith("alerts") else "circle",
                    "color": [SEVERITY_COLOURS[severity] for severity in lane.severity],
                    "line": {"width": 0.5, "color": "white"},
                },
                text=list(lane.text),
                hovertemplate="%{text}<br>%{x}<extra></extra>",
                **axes,
            )
    elif isinstance(panel, SpanPanel):
        y_axis.update(
            type="category",
            categoryorder="array",
            categoryarray=list(panel.lanes[::-1]),
            range=[-0.6, len(panel.lanes) - 0.4],
            automargin=True,
        )
        for kind, colour in panel.kinds.items():
            mine = [span for span in panel.spans if span.kind == kind]
            drawn.add_bar(
                x=[1e3 * (span.end_s - span.start_s) for span in mine],
                base=[1e3 * span.start_s + offset_ms for span in mine],
                y=[span.lane for span in mine],
                orientation="h",
                name=kind,
                marker={"color": colour, "line": {"width": 0}},
                width=0.7,
                text=[span.text for span in mine],
                textposition="none",
                hovertemplate=f"{kind} %{{text}}<extra></extra>",
                **own,
            )
    elif isinstance(panel, BarPanel):
        x_axis["title"] = {"text": panel.x_label}
        bars = list(dict.fromkeys(piece.bar for piece in panel.pieces))
        y_axis.update(type="category", categoryorder="array", categoryarray=bars[::-1], automargin=True)
        for piece in panel.pieces:
            drawn.add_bar(
                x=[piece.value],
                y=[piece.bar],
                orientation="h",
                name=f"{piece.label}  {piece.value:.4g}",
                marker={"color": piece.colour, "line": {"width": 0.6, "color": "white"}},
                hovertemplate=f"{piece.label}: %{{x:.4g}} {panel.x_label}<extra></extra>",
                **own,
            )
    elif isinstance(panel, ScatterPanel):
        x_axis["title"] = {"text": panel.x_label}
        y_axis["title"] = {"text": panel.y_label, "standoff": 6}
        y_axis["range"] = list(panel.y_range)
        for cloud in panel.clouds:
            drawn.add_scatter(
                x=_small(cloud.x),
                y=_small(cloud.y),
                mode="lines+markers" if cloud.line else "markers",
                name=cloud.label,
                marker={
                    "color": cloud.colour,
                    "size": 5 if cloud.line else 3,
                    "opacity": 1 if cloud.line else 0.5,
                },
                line={"color": cloud.colour},
                hovertemplate=f"%{{x:.4g}}; %{{y:.4g}} ({panel.x_label}; {panel.y_label})",
                **own,
            )


def _marks(layout: dict[str, object], figure: Figure, offset_ms: float) -> None:
    for start_s, end_s in figure.windows:
        layout["shapes"].append(  # type: ignore[attr-defined]
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": offset_ms + 1e3 * start_s,
                "x1": offset_ms + 1e3 * end_s,
                "y0": 0,
                "y1": 1,
                "line": {"width": 0},
                "fillcolor": "rgba(120,126,134,0.16)",
                "layer": "below",
            }
        )
    for mark in figure.marks:
        layout["shapes"].append(  # type: ignore[attr-defined]
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": offset_ms + 1e3 * mark.t_s,
                "x1": offset_ms + 1e3 * mark.t_s,
                "y0": 0,
                "y1": 1,
                "line": {"color": mark.colour, "width": 1.2, "dash": mark.dash},
            }
        )


def _alpha(colour: str, opacity: float) -> str:
    r, g, b = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({r},{g},{b},{opacity})"
