"""`python -m pack_models.propagation run CASE [--model network|fem|lumped] [--refine] [--out DIR]`, and
`cases`, `doctor`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .case import CASES, MODELS, load_case
from .errors import MissingDolfinxError, PropagationError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; exit code 2 for a wrong case, 3 for a missing dolfinx, 1 for a failed run."""
    parser = argparse.ArgumentParser(
        prog="propagation", description="Thermal runaway: does it spread, how fast, what stops it."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a case file (or a case of the package by name)")
    run.add_argument("case")
    run.add_argument("--model", choices=MODELS, help="model instead of the case's own")
    run.add_argument(
        "--refine", action="store_true", help="run again on a finer mesh with half the step; print the change"
    )
    run.add_argument("--out", type=Path, help="folder for summary.json, cells.csv, fields and figures")
    run.add_argument("--ranks", type=int, default=1, help="MPI processes of the finite elements")
    run.add_argument("--no-figures", action="store_true")
    commands.add_parser("cases", help="list the cases of the package")
    commands.add_parser("doctor", help="say which dolfinx would be used")
    options = parser.parse_args(arguments)
    try:
        if options.command == "cases":
            for path in sorted(CASES.glob("*.yaml")):
                print(f"{path.stem:24s} {load_case(path).about}")
            return 0
        if options.command == "doctor":
            from .fem import find_interpreter

            interpreter, version = find_interpreter()
            print(f"dolfinx {version} in {interpreter}")
            return 0
        return _run(options)
    except MissingDolfinxError as error:
        print(error, file=sys.stderr)
        return 3
    except PropagationError as error:
        print(error, file=sys.stderr)
        return 2 if type(error).__name__ == "CaseError" else 1


def _run(options: argparse.Namespace) -> int:
    from . import outputs
    from .fem import find_interpreter
    from .run import check_model, refinement_change, run_case

    case = load_case(options.case)
    model = options.model or case.model
    folder: Path | None = options.out
    check_model(case, model)
    if model == "fem":
        find_interpreter()  # nothing is written when there is none
    if folder is not None:
        outputs.start(folder, case.name, model)
    try:
        field_file = folder / "fields.xdmf" if folder is not None and model == "fem" else None
        result = run_case(case, model, ranks=options.ranks, field_file=field_file)
        change = refinement_change(case, model, result, options.ranks) if options.refine else None
    except BaseException as error:
        if folder is not None:
            outputs.fail(folder, case.name, model, f"{type(error).__name__}: {error}")
        raise
    s = result.summary
    if folder is not None:
        outputs.write_all(folder, result, change, figures=not options.no_figures)
    print(
        f"{case.name}: {model}, {s['nodes']} nodes, {s['timing']['wall_s']:.1f} s wall, "
        f"energy imbalance {s['energy_J']['imbalance']:.1e}"
    )
    if s["warning"]:
        print(f"warning: {s['warning']}")
    print("cell  runaway_s  GB_38031_s  vent_s  peak_mean_K  peak_K")

    def cell(value: float | None, form: str) -> str:
        return format("-", f">{form[1:].split('.')[0]}") if value is None else format(value, form[1:])

    for c in s["cells"]:
        print(
            f"{c['cell']:4d}  {cell(c['runaway_s'], ':9.1f')}  {cell(c['gb_38031_s'], ':10.1f')}  "
            f"{cell(c['vent_s'], ':6.1f')}  {c['peak_mean_K']:11.1f}  {c['peak_K']:6.1f}"
        )
    print(
        f"order {s['order']}; first interval {s['first_interval_s']}, whole pack {s['whole_pack_s']} s; "
        f"{s['verdicts']['contained_wording']}"
    )
    print("energy J: " + json.dumps({k: float(f"{v:.4g}") for k, v in s["energy_J"].items()}))
    if change:
        first = change["first_interval_change"]
        print(
            f"refined to {change['nodes']} nodes, half the step: first interval "
            f"{'unchanged (none)' if first is None else f'{100 * first:+.1f} %'}; since first cell "
            f"{[None if v is None else round(100 * v, 1) for v in change['change_since_first_cell']]} %"
        )
    elif model != "lumped":
        print("mesh change not measured; add --refine")
    return 0


if __name__ == "__main__":
    sys.exit(main())
