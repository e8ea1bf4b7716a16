"""The report of a run: whole, self-contained, the same each time, and safe against its own data."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plotly.offline import get_plotlyjs

from tests.unit.twin import fake_run
from tests.unit.twin.test_analytics_scoring import silent_run
from twin.analytics.detectors.voltage_spread import VoltageSpread
from twin.analytics.evaluate import evaluate
from twin.analytics.metrics import summary
from twin.analytics.run import to_rows
from twin.report.figures import all_figures
from twin.report.html import ReportError, build_report
from twin.report.spec import BarPanel, LanePanel, ScatterPanel, TimePanel
from twin.telemetry.reader import RunFolder, RunReadError
from twin.telemetry.sink import replace_alerts

EVIL = "</script><script>alert('x')</script>"


@dataclass(frozen=True)
class Claim:
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    equals: float | None = None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Half a day of two racks with a short, analysed."""
    out = tmp_path_factory.mktemp("runs") / "x"
    run = fake_run.record(out, hours=12.0, period_s=20.0, short=(1, 4, 4.0, 20.0))
    claims = [Claim("detection_delay", at_most=6 * 3600.0), Claim("cell_temperature_max", at_most=290.0)]
    result = evaluate(run, [VoltageSpread()], claims)
    assert len(result.alerts) > 0
    rows = to_rows(result.alerts)
    rows[0]["text"] += EVIL
    changes = {
        "summary": summary(result.metrics),
        "scores": [score.as_row() for score in result.scores],
        "expectations": result.expectations,
        "about": f"A day at the depot {EVIL}",
        "zoom_windows": [{"start_us": 14_400_000_000, "end_us": 14_700_000_000, "reasons": ["fault"]}],
    }
    run = replace_alerts(run, rows, changes)
    build_report(run.path)
    return run


def page_of(run: RunFolder) -> str:
    """The page without plotly.js."""
    text = (run.path / "report.html").read_text(encoding="utf-8")
    assert get_plotlyjs() in text
    return text.replace(get_plotlyjs(), "")


def test_the_page_stands_alone_and_is_small(run: RunFolder) -> None:
    assert (run.path / "report.html").stat().st_size < 8e6
    page = page_of(run)
    for word in ("http:", "https:", "src=", "<link", "@import", "url(", "fetch("):
        assert word not in page
    assert page.count("<section") >= 12
    assert "showSendToCloud: false" in page  # plotly offers to send charts away


def test_the_data_cannot_break_out_of_the_page(run: RunFolder) -> None:
    page = page_of(run)
    assert "alert(" in page  # it is there, as text
    assert EVIL not in page
    assert page.count("<script>") == 2
    assert page.count("</script>") == 2


def test_it_says_what_became_of_the_run(run: RunFolder) -> None:
    page = page_of(run)
    assert "1 of 2 expectations FAILED" in page
    for words in (
        "voltage_spread",
        "max_min_spread (baseline)",
        "internal short of 20 ohm",
        "Run facts",
        "seed 1",
    ):
        assert words in page


def test_every_figure_is_drawn_twice_and_has_units(run: RunFolder) -> None:
    figures = all_figures(run)
    assert [figure.key for figure in figures] == [
        "timeline", "power", "soc", "voltage", "temperature", "deviation", "energy", "converter",
    ]  # fmt: skip
    text = page_of(run)
    for figure in figures:
        with Image.open(run.path / "figures" / f"{figure.key}.png") as picture:
            assert picture.size[0] == 1200
            grey = np.asarray(picture.convert("L"))
        assert (grey < 250).mean() > 0.01  # not an empty sheet
        found = re.search(rf'"{figure.key}": (\{{"data".*)', text)
        assert found is not None
        drawn = json.loads(found.group(1).rstrip(","))
        assert drawn["data"]
        if figure.over_time:
            lines = [shape for shape in drawn["layout"]["shapes"] if shape["line"].get("dash")]
            assert len(lines) >= len(figure.marks) >= 2  # the fault and its alerts stand in each
            times = [float(shape["x0"]) for shape in lines if shape["xref"] == "x"]
            assert min(times) == pytest.approx(1465171200e3 + 4 * 3600e3)  # 2016-06-06 04:00 UTC
        for panel in figure.panels:
            assert panel.title
            if isinstance(panel, TimePanel):
                assert panel.y_label
                assert any(line.label for line in panel.lines)
            elif isinstance(panel, ScatterPanel):
                assert panel.x_label
                assert panel.y_label
            elif isinstance(panel, BarPanel):
                assert panel.x_label
            else:
                assert isinstance(panel, LanePanel)


def test_what_is_truth_says_so(run: RunFolder) -> None:
    figures = {figure.key: figure for figure in all_figures(run)}
    (soc,) = figures["soc"].panels
    assert isinstance(soc, TimePanel)
    dashed = {line.label for line in soc.lines if line.dash == "dash"}
    assert dashed == {"rack-1 truth", "rack-2 truth"}
    (voltage, suspect) = figures["voltage"].panels
    assert isinstance(voltage, TimePanel)
    assert isinstance(suspect, TimePanel)
    assert [line.label for line in suspect.lines] == ["median group", "group 5"]
    assert [line.label for line in voltage.lines] == ["median group"]


def test_the_energy_bars_are_of_equal_length(run: RunFolder) -> None:
    (panel,) = next(figure for figure in all_figures(run) if figure.key == "energy").panels
    assert isinstance(panel, BarPanel)
    total: dict[str, float] = {}
    for piece in panel.pieces:
        total[piece.bar] = total.get(piece.bar, 0.0) + piece.value
    assert total["came in"] == pytest.approx(total["went out"], rel=1e-9)


def test_the_same_bytes_each_time(run: RunFolder) -> None:
    files = [run.path / "report.html", *sorted((run.path / "figures").iterdir())]
    before = [file.read_bytes() for file in files]
    build_report(run.path)
    assert [file.read_bytes() for file in files] == before
    assert not list(run.path.rglob("*.new"))
    run.verify()  # and the tables are untouched


def test_a_run_of_which_little_is_known(tmp_path: Path) -> None:
    run = silent_run(tmp_path / "x", [])
    page = build_report(run.path).read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert "no expectations were stated" in page
    assert [figure.key for figure in all_figures(run)] == ["timeline", "soc", "voltage", "temperature"]


@pytest.mark.parametrize(("n_series", "silent"), [(1, None), (1, 0), (4, 2)])
def test_packs_of_one_group_and_silent_channels(tmp_path: Path, n_series: int, silent: int | None) -> None:
    run = fake_run.record(
        tmp_path / "x", racks=1, n_series=n_series, hours=2.0, short=(0, 0, 1.0, 40.0), silent=silent
    )
    figures = {figure.key: figure for figure in all_figures(run)}
    assert ("deviation" in figures) == (n_series > 1)
    (voltage,) = figures["voltage"].panels
    assert isinstance(voltage, TimePanel)
    assert np.isfinite(voltage.bands[0].low).all() == (n_series > 1 or silent is None)
    if n_series > 1:
        deviation = figures["deviation"].panels[0]
        assert isinstance(deviation, TimePanel)
        assert np.isfinite(deviation.bands[0].low).all()
    build_report(run.path)


def test_it_cannot_be_written_or_there_is_no_run(tmp_path: Path) -> None:
    run = silent_run(tmp_path / "x", [])
    (run.path / "report.html").mkdir()
    with pytest.raises(ReportError, match=r"cannot write the report into .*Is a directory"):
        build_report(run.path)
    assert not list(run.path.rglob("*.new"))
    with pytest.raises(RunReadError, match="not a run folder"):
        build_report(tmp_path)
