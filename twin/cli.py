"""The `twin` command: arguments only; every command is one call into run.py and prints what it returns.

Exit codes: 0 done and every `expect:` met; 1 done but an expectation failed, or the run broke;
2 the input is wrong and nothing was written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="twin",
    help="Battery digital twin: run a scenario of packs, BMS firmware and faults; read the report.",
    epilog="Example:  twin run scenarios/first_light.yaml --out runs/first --set duration='6 h'",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ScenarioFile = Annotated[Path, typer.Argument(help="Scenario YAML.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one value: [cyan]--set sites.0.racks.0.count=4[/]. May be repeated.",
        metavar="KEY=VALUE",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed instead of the scenario's own.", min=0)]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"twin {version('battery-twin')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Example:  twin run scenarios/first_light.yaml --set duration='6 h' --seed 3 --out runs/six-hours"
)
def run(
    scenario: ScenarioFile,
    out: Annotated[Path | None, typer.Option(help="Run folder to make; runs/<name> when not given.")] = None,
    overrides: Overrides = None,
    seed: Seed = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing run folder.")] = False,
    report: Annotated[bool, typer.Option(help="Write report.html and the pictures.")] = True,
) -> None:
    """Simulate a scenario, analyse it and write its report."""
    from twin.run import run_scenario
    from twin.show import progress_bar, show_run

    out = out or Path("runs") / scenario.stem
    with progress_bar(f"simulating {scenario.stem}") as progress:
        result = run_scenario(
            scenario,
            out,
            overrides=overrides or (),
            seed=seed,
            overwrite=overwrite,
            with_report=report,
            progress=progress,
        )
    show_run(result)
    raise typer.Exit(0 if result.expectations_met else 1)


@app.command(epilog="Example:  twin check scenarios/ev_drive.yaml")
def check(scenario: ScenarioFile, overrides: Overrides = None, seed: Seed = None) -> None:
    """Check a scenario and the profiles it names; show it with every default visible."""
    from twin.run import check_scenario
    from twin.show import show_resolved

    show_resolved(check_scenario(scenario, overrides or (), seed))


@app.command("list", epilog="Example:  twin list packs")
def list_(
    what: Annotated[str | None, typer.Argument(help="One kind only, such as packs or profiles.")] = None,
) -> None:
    """List what a scenario may name: packs, models, strategies, faults, detectors, profiles, metrics."""
    from twin.run import names
    from twin.show import show_names

    table = names()
    if what is not None and what not in table:
        raise typer.BadParameter(f"{what!r} is none of {', '.join(table)}", param_hint="WHAT")
    show_names(table if what is None else {what: table[what]})


@app.command(epilog="Example:  twin report runs/first_light")
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
) -> None:
    """Analyse a run folder again and write its report; needs no simulator."""
    from twin.run import report_again
    from twin.show import show_run

    result = report_again(run_folder)
    show_run(result)


@app.command(epilog="Example:  twin schema > scenario.schema.json")
def schema() -> None:
    """Print the JSON Schema of a scenario, for editors that complete and check YAML."""
    import json

    from twin.run import scenario_schema

    print(json.dumps(scenario_schema(), indent=2, ensure_ascii=False))


# The engines' own command lines, words passed on as they are (their --help too).
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=PASS_ON)
def propagate(context: typer.Context) -> None:
    """Thermal runaway of a module: does it spread, how fast, what stops it. `twin propagate --help`."""
    from twin.adapters.commands import propagate as run_propagation

    raise typer.Exit(run_propagation(context.args))


@app.command(context_settings=PASS_ON)
def ota(context: typer.Context) -> None:
    """Signed, differential updates: keys, images, deltas, repositories. `twin ota --help`."""
    from twin.adapters.commands import ota as run_ota

    raise typer.Exit(run_ota(context.args))


def main() -> None:
    """Entry point: wrong input and broken runs end in a message and an exit code, never a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        print("\ninterrupted; nothing of this run was kept", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        print(error, file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
