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


@app.command(epilog="Example:  twin fit runs/first_light --rack quarter/rack-1 --out runs/first_light/fit")
def fit(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
    rack: Annotated[str, typer.Option(help="site/rack, or site/rack/pack for one pack.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for one YAML and PNG per pack.", show_default=False)],
    law: Annotated[
        str | None, typer.Option(help="Ageing law for the life; by chemistry when not given.")
    ] = None,
    end: Annotated[float, typer.Option(help="Capacity over nominal at the end of life.")] = 0.8,
) -> None:
    """Identify the twins of a rack from its telemetry: capacity, resistance, charge, heat paths, life."""
    from twin.fit import fit_rack, one_line, write_fit
    from twin.telemetry.reader import RunFolder

    fits = fit_rack(RunFolder(run_folder), rack, law, end)
    for path in write_fit(out, fits):
        print(path)
    for found in fits:
        print(one_line(found))


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


estimate = typer.Typer(help="Estimate the state of a cell from a measured file.", no_args_is_help=True)
app.add_typer(estimate, name="estimate")


@estimate.command(
    "soc",
    epilog="Example:  twin estimate soc drive.parquet --cell lghg2_measured --estimator ekf --out soc.csv",
)
def estimate_soc(
    data: Annotated[
        Path, typer.Argument(help="CSV or Parquet of one cell: t_s, V, I, T_C.", show_default=False)
    ],
    cell: Annotated[str, typer.Option(help="Cell of the catalogue.", show_default=False)],
    out: Annotated[Path, typer.Option(help="CSV to write: t_s, soc, soc_sigma.", show_default=False)],
    estimator: Annotated[str, typer.Option(help="counting, ekf, ukf or firmware.")] = "ekf",
    initial_soc: Annotated[
        float | None, typer.Option(help="0 to 1 before the first row; without it, from the first voltage.")
    ] = None,
    initial_sigma: Annotated[
        float | None, typer.Option(help="How far the start may be off, 1 sigma.")
    ] = None,
    current_offset: Annotated[
        float, typer.Option(help="A, added to the current as it stands in the file.", metavar="A")
    ] = 0.0,
    capacity: Annotated[
        float | None, typer.Option(help="Ah, instead of the catalogue's.", metavar="AH")
    ] = None,
    sign: Annotated[
        str, typer.Option(help="discharge-positive, charge-positive, or auto: what the voltage says.")
    ] = "auto",
    temperature: Annotated[
        float | None, typer.Option(help="degC, for a file without T_C.", metavar="DEG_C")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column", help="Other name of a column: T_C=temp. May be repeated.", metavar="NAME=HEADER"
        ),
    ] = None,
) -> None:
    """State of charge with its sigma, by counting or a Kalman filter."""
    from twin.estimate import column_names, read_recording, run_estimator, write_soc

    recording = read_recording(data, sign, current_offset, temperature, column_names(columns or ()))
    result = run_estimator(recording, cell, estimator, initial_soc, initial_sigma, capacity)
    write_soc(out, recording, result)
    print(f"{out}: {result.soc.size} rows, current {recording.sign}; ", end="")
    print(f"ends at {100 * result.soc[-1]:.2f} % +- {100 * result.sigma[-1]:.2f} %")


@app.command(epilog="Example:  twin audit runs/spme_rack --groups 2")
def audit(
    subject: Annotated[
        Path, typer.Argument(metavar="RUN|SCENARIO", help="Run folder, or a scenario to run first.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Run folder for a scenario; runs/<name> when not given.")
    ] = None,
    rack: Annotated[list[str] | None, typer.Option(help="Rack to audit instead of drawing 1 %.")] = None,
    groups: Annotated[int, typer.Option(help="Series groups of each pack to follow.", min=1)] = 3,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing run folder.")] = False,
) -> None:
    """Run 1 % of the racks (at least one) again with PyBaMM's DFN and report how far the run is from it."""
    from twin.audit import audit_run, write_audit
    from twin.run import run_scenario
    from twin.show import progress_bar, show_audit
    from twin.telemetry.reader import RunFolder

    folder = subject
    if not subject.is_dir():
        folder = out or Path("runs") / subject.stem
        with progress_bar(f"simulating {subject.stem}") as progress:
            run_scenario(subject, folder, overwrite=overwrite, with_report=False, progress=progress)
    with progress_bar("auditing") as progress:
        found = audit_run(RunFolder(folder), rack, groups, progress)
    write_audit(found, folder / "audit.csv")
    show_audit(found, folder / "audit.csv")


@app.command(
    epilog="Example:  twin identify a.csv b.csv --test c.csv --name my_cell --capacity 2.9 --out cells"
)
def identify(
    what: Annotated[
        list[str], typer.Argument(help="A recipe, or CSV/Parquet files of one cell: t_s, V, I, T_C.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the catalogue file.", show_default=False)],
    data: Annotated[Path | None, typer.Option(help="Folder with the measured cells, for recipes.")] = None,
    test: Annotated[
        list[Path] | None, typer.Option(help="File that is not fitted; the error on it is stated.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the cell, for files.")] = None,
    capacity: Annotated[float | None, typer.Option(help="Ah, for files.", metavar="AH")] = None,
    initial_soc: Annotated[float, typer.Option(help="0 to 1 before the first row of each file.")] = 1.0,
    open_circuit: Annotated[
        Path | None, typer.Option(help="CSV: soc, ocv_V [, hysteresis_V]; fitted when not given.")
    ] = None,
    sign: Annotated[str, typer.Option(help="discharge-positive, charge-positive or auto.")] = "auto",
    temperature: Annotated[
        float | None, typer.Option(help="degC, for files without T_C.", metavar="DEG_C")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="Other name of a column: T_C=temp. Repeat it.", metavar="NAME=HEADER"),
    ] = None,
    source: Annotated[
        str, typer.Option(help="Where the measurements come from, and their licence.")
    ] = "user's measurements; licence not stated",
    chemistry: Annotated[str, typer.Option(help="Text for the file.")] = "not stated",
) -> None:
    """Identify a cell's circuit from measurements; writes a catalogue file."""
    from twin.estimate import column_names
    from twin.identify import identify as identify_cell

    path, residuals = identify_cell(
        what,
        out,
        data=data,
        tests=test or (),
        name=name,
        capacity_Ah=capacity,
        initial_soc=initial_soc,
        open_circuit=open_circuit,
        sign=sign,
        temperature_C=temperature,
        columns=column_names(columns or ()),
        source=source,
        chemistry=chemistry,
    )
    print(path, *(f"  {key} {value:g}" for key, value in residuals.items()), sep="\n")


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
