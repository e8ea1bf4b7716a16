"""report.html: one file that opens anywhere, and its pictures beside it.

    >>> build_report("runs/demo")                                                # doctest: +SKIP
    PosixPath('runs/demo/report.html')

plotly.js and all data are inside the page; it asks no network for anything. The same run folder gives
the same bytes, except for the wall times that its manifest holds.
"""

from __future__ import annotations

import os
from datetime import datetime
from importlib import resources
from pathlib import Path

from twin.report import tables
from twin.report.figures import all_figures
from twin.report.interactive import plotly_json
from twin.report.still import png
from twin.report.wording import clock
from twin.telemetry.reader import RunFolder

REPORT = "report.html"
FIGURES = "figures"


class ReportError(Exception):
    """The report could not be written; the message says where and why."""

    exit_code = 2


def build_report(run_path: str | os.PathLike[str]) -> Path:
    """Write report.html and figures/*.png into a run folder; returns the page.

    Raises RunReadError when the folder is no complete run, ReportError when it cannot be written.
    """
    run = RunFolder(run_path)
    start = datetime.fromisoformat(run.manifest.start or "1970-01-01T00:00:00")
    figures = all_figures(run)
    pictures = {f"{figure.key}.png": png(figure, start) for figure in figures}
    page = _page(run, start, [(figure, plotly_json(figure, start)) for figure in figures])
    try:
        folder = run.path / FIGURES
        folder.mkdir(exist_ok=True)
        for name, data in pictures.items():
            _replace(folder / name, data)
        _replace(run.path / REPORT, page.encode())
    except OSError as error:
        raise ReportError(f"cannot write the report into {run.path}: {error.strerror or error}") from error
    return run.path / REPORT


def _page(run: RunFolder, start: datetime, figures: list[tuple[object, str]]) -> str:
    import jinja2
    from plotly.offline import get_plotlyjs

    # Text of scenarios, events and alerts is escaped by the template; plotly's JSON stands in a script, where
    # only the end tag could break out.
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = resources.files("twin.report").joinpath("templates/report.html").read_text(encoding="utf-8")
    manifest = run.manifest
    sentence, kind = tables.verdict(manifest)
    return environment.from_string(source).render(
        manifest=manifest,
        verdict=sentence,
        verdict_class=kind,
        cards=tables.cards(manifest),
        begin=f"{start:%Y-%m-%d %H:%M} UTC",
        duration=clock(manifest.duration_s),
        first=[t for t in (tables.expectations(manifest.expectations),) if t],
        figures=[(figure, text.replace("</", "<\\/")) for figure, text in figures],
        last=[
            table
            for table in (
                tables.scores(manifest.scores),
                tables.containment(run),
                tables.updates(run),
                tables.controllers(manifest),
                tables.events(run, start),
                tables.metrics(manifest),
                tables.balances(manifest),
                tables.facts(run),
            )
            if table
        ],
        plotly=get_plotlyjs(),
    )


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    draft = path.with_name(f"{path.name}.new")
    try:
        draft.write_bytes(data)
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
