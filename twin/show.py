"""What the `twin` command prints: progress, the summary of a run, resolved scenarios, lists of names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from twin.report.wording import quantity

if TYPE_CHECKING:
    from twin.audit import Audit
    from twin.run import RunResult

console = Console()


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float, str], None] | None]:
    """A bar fed with (fraction done, note); None, and silent, when the output is not a terminal."""
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=40),
        TextColumn("{task.percentage:>5.1f} %  {task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=1.0, note="")
        yield lambda done, note: bar.update(task, completed=done, note=note)


def show_run(result: RunResult) -> None:
    """Key figures, expectations, where the report is."""
    from twin.analytics.metrics import REGISTRY

    manifest = result.manifest
    table = Table(title=f"{manifest.scenario}: {manifest.about}", title_justify="left", title_style="bold")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name in (name for name in REGISTRY if name in manifest.summary):
        value, figure = manifest.summary[name]["value"], manifest.summary[name]
        table.add_row(name, quantity(value, figure["dimension"]))
    console.print(table)
    if manifest.expectations:
        table = Table(title="expectations", title_justify="left", title_style="bold")
        for column in ("", "metric", "wanted", "found"):
            table.add_column(column)
        for claim in manifest.expectations:
            table.add_row(
                "[green]met[/]" if claim.met else "[bold red]FAILED[/]",
                claim.metric,
                f"{claim.relation.replace('_', ' ')} {quantity(claim.wanted, claim.dimension)}",
                quantity(claim.value, claim.dimension),
            )
        console.print(table)
    for kind, path in (("run folder", result.folder), ("report", result.report)):
        if path is not None:
            console.print(f"{kind:<11} {path}", soft_wrap=True, highlight=False)


def show_audit(audit: Audit, path: Path) -> None:
    """Each group that was followed, then the outcome in one line."""
    table = Table(title="against PyBaMM's DFN, in mV", title_justify="left", title_style="bold", box=None)
    table.add_column("rack/pack/group", no_wrap=True)
    table.add_column("cells", no_wrap=True)
    for column in ("n", "RMSE", "bias", "most", "at s"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in audit.rows:
        millivolts = (f"{1e3 * value:.2f}" for value in (row.rmse_V, row.bias_V, row.largest_V))
        where = f"{row.rack}/{row.pack}/{row.group}"
        table.add_row(where, row.cells, str(row.samples), *millivolts, f"{row.largest_at_s:g}")
    console.print(table)
    for row in audit.rows:
        if row.stopped:
            console.print(f"{row.rack}/{row.pack} group {row.group} stopped {row.stopped}", soft_wrap=True)
    console.print(audit.line, soft_wrap=True, highlight=False)
    console.print(f"table       {path}", soft_wrap=True, highlight=False)


def show_resolved(resolved: Mapping[str, Any]) -> None:
    """A scenario with every default visible, as YAML."""
    import yaml

    print(yaml.safe_dump(dict(resolved), sort_keys=False, allow_unicode=True, width=100), end="")


def show_names(names: Mapping[str, Mapping[str, str]]) -> None:
    """Lists of words a scenario may use, each with what it means."""
    for kind, words in names.items():
        table = Table(title=kind, title_justify="left", title_style="bold", show_header=False, box=None)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for word, meaning in words.items():
            table.add_row(word, meaning)
        console.print(table)
        console.print()
