"""Speed of the 3 x 4 pack: finite elements by part, against the bare solver and the network; prints one
JSON object.

`python -m pack_models.propagation.bench [--fine]`. CPU seconds, since the machine is shared; `--fine` adds
the 37 128-node mesh of the shared study, the network's yardstick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .case import load_case
from .errors import PropagationError
from .fem import FemRun
from .run import run_case

FINE = (16, 12, 12)


def bench_fem(mesh: Sequence[int] | None = None, until_s: float = 600.0) -> dict[str, Any]:
    """One run by parts: set-up, solves, kinetics, rest; share of the bare conjugate-gradient solves."""
    case = load_case("pack3x4")
    assert case.layout is not None
    even = case.layout if mesh is None else replace(case.layout, graded=False)
    case = replace(case, run=replace(case.run, until_s=until_s), layout=even)
    result = run_case(case, "fem", mesh=mesh)
    t = result.facts["timing"]
    with FemRun(case, mesh=mesh) as run:
        run.advance(200.0, record=False)
        bare = run.bare_solve_s()
    return {
        "nodes": result.facts["nodes"],
        "simulated_s": until_s,
        "wall_s": t["wall_s"],
        "cpu_s": t["cpu_s"],
        "memory_MB": t["memory_MB"],
        "steps": t["steps"],
        "solves": t["solves"],
        "share_of_wall": {
            "setup": t["setup_s"] / t["wall_s"],
            "solve": t["solve_s"] / t["wall_s"],
            "kinetics": t["kinetics_s"] / t["wall_s"],
        },
        "bare_solve_cpu_s": bare,
        "cpu_over_bare_solves": t["cpu_s"] / (bare * t["solves"]),
        "energy_imbalance": result.summary["energy_J"]["imbalance"],
    }


def bench_network(until_s: float = 600.0, repeats: int = 7) -> dict[str, Any]:
    """Fastest of some runs of the default network."""
    case = load_case("pack3x4")
    case = replace(case, run=replace(case.run, until_s=until_s))
    runs = [run_case(case, "network") for _ in range(repeats)]
    best = min(runs, key=lambda r: r.facts["timing"]["cpu_s"])
    t = best.facts["timing"]
    return {
        "nodes": best.facts["nodes"],
        "simulated_s": until_s,
        "cpu_s": t["cpu_s"],
        "steps": t["steps"],
        "cpu_s_all": [r.facts["timing"]["cpu_s"] for r in runs],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="propagation.bench")
    parser.add_argument("--fine", action="store_true", help="also the 37 128-node mesh")
    options = parser.parse_args(arguments)
    out: dict[str, Any] = {"network": bench_network()}
    try:
        out["fem"] = bench_fem()
        if options.fine:
            out["fem_fine"] = bench_fem(FINE)
    except PropagationError as error:
        out["fem"] = str(error)
    for name in ("fem", "fem_fine"):
        if isinstance(out.get(name), dict):
            out[f"network_faster_than_{name}"] = out[name]["cpu_s"] / out["network"]["cpu_s"]
    print(json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
