"""What a figure says, before anybody draws it.

`figures.py` fills these from tables; `interactive.py` (plotly) and `still.py` (matplotlib) draw them.
Times are seconds since the start of the run; the drawers make calendar time (UTC) of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Okabe and Ito's palette: told apart by readers with any colour vision.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, BLACK, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#222222", "#8A8F98"
SERIES_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, BLACK)
SEVERITY_COLOURS = {"info": GREY, "warning": ORANGE, "alarm": RED}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve over time."""

    label: str
    t_s: FloatArray
    y: FloatArray
    colour: str
    dash: str = "solid"  # 'solid', 'dash', 'dot'
    width: float = 1.6
    steps: bool = False  # holds its value until the next point
    fill: bool = False  # down to zero


@dataclass(frozen=True, kw_only=True)
class Band:
    """The range between two curves."""

    label: str
    t_s: FloatArray
    low: FloatArray
    high: FloatArray
    colour: str
    opacity: float = 0.22


@dataclass(frozen=True, kw_only=True)
class Level:
    """A horizontal limit."""

    label: str
    y: float
    colour: str = RED


@dataclass(frozen=True, kw_only=True)
class Mark:
    """An instant drawn through all panels of a figure."""

    label: str
    t_s: float
    colour: str
    dash: str = "dash"


@dataclass(frozen=True, kw_only=True)
class Points:
    """Things that happened, on one lane of a time line."""

    lane: str
    t_s: FloatArray
    severity: tuple[str, ...]
    text: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TimePanel:
    """Curves over calendar time."""

    title: str
    y_label: str
    lines: tuple[Line, ...] = ()
    bands: tuple[Band, ...] = ()
    levels: tuple[Level, ...] = ()
    height: int = 230  # of the drawing, in px
    y_range: tuple[float, float] | None = None  # shown at first; None is all


@dataclass(frozen=True, kw_only=True)
class LanePanel:
    """Events and alerts on lanes over calendar time."""

    title: str
    lanes: tuple[Points, ...]

    @property
    def height(self) -> int:
        """Of the drawing, in px."""
        return 50 + 38 * len(self.lanes)


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of time on one lane."""

    lane: str
    start_s: float
    end_s: float
    kind: str  # in the legend, once
    colour: str
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class SpanPanel:
    """What each of several things was doing, over calendar time; lanes in the order of `lanes`."""

    title: str
    lanes: tuple[str, ...]
    spans: tuple[Span, ...]

    @property
    def height(self) -> int:
        """Of the drawing, in px."""
        return max(40 + 26 * len(self.lanes), 12 + 20 * len(self.kinds))  # the legend needs room too

    @property
    def kinds(self) -> dict[str, str]:
        """Colour of each kind, in the order of first use."""
        return {span.kind: span.colour for span in self.spans}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One part of a stacked bar."""

    label: str
    bar: str
    value: float
    colour: str


@dataclass(frozen=True, kw_only=True)
class BarPanel:
    """Stacked horizontal bars."""

    title: str
    x_label: str
    pieces: tuple[Piece, ...]
    height: int = 170


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Points of an x–y panel."""

    label: str
    x: FloatArray
    y: FloatArray
    colour: str
    line: bool = False  # joined by a line instead of dots


@dataclass(frozen=True, kw_only=True)
class ScatterPanel:
    """One quantity against another."""

    title: str
    x_label: str
    y_label: str
    clouds: tuple[Cloud, ...]
    y_range: tuple[float, float]
    height: int = 280


Panel = TimePanel | LanePanel | SpanPanel | BarPanel | ScatterPanel


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Panels under one heading. Time panels share their axis, marks and zoom windows."""

    key: str  # file name of the PNG and anchor in the page
    title: str
    caption: str
    panels: tuple[Panel, ...]
    marks: tuple[Mark, ...] = ()
    windows: tuple[tuple[float, float], ...] = field(default=())  # zoom windows, shaded
    span_s: tuple[float, float] = (0.0, 0.0)  # of the time axis

    @property
    def over_time(self) -> bool:
        """Whether its panels have a time axis."""
        return isinstance(self.panels[0], TimePanel | LanePanel | SpanPanel)
