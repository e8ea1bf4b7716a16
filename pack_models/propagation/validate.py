"""Validation of every model against references not made by it; `python -m pack_models.propagation.validate`.

Prints and writes one table: what, model, quantity, reference, ours, error, tolerance. `--quick` leaves out
what takes more than a few seconds (3-D pack with refinement, critical temperatures by FEM). References:
closed forms (`analytic.py`), independent integrations and side-by-side runs of another solver
(`reference/*.csv`, from the shared reference folder, whose programs are ours; tolerances from its README).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import analytic
from .case import Case, load_case, parse_case
from .errors import MissingDolfinxError
from .events import first_crossing
from .fem import FemRun, find_interpreter
from .kinetics import SetInUse, Short, load_set
from .lumped import Body, LumpedRun, critical_ambient, integrate
from .run import run_case

REFERENCE = Path(__file__).with_name("reference")
KIM_RHO_CP = 2580.0 * 830.0


@dataclass(frozen=True)
class Row:
    """One comparison; `error` and `tolerance` in `unit` (a fraction when the unit is "%")."""

    check: str
    model: str
    quantity: str
    reference: float
    ours: float
    error: float
    tolerance: float
    unit: str

    @property
    def passed(self) -> bool:
        return math.isfinite(self.error) and abs(self.error) <= self.tolerance


def relative(check: str, model: str, quantity: str, reference: float, ours: float, tolerance: float) -> Row:
    """Row with a relative error."""
    return Row(check, model, quantity, reference, ours, (ours - reference) / reference, tolerance, "%")


def absolute(
    check: str, model: str, quantity: str, reference: float, ours: float, tolerance: float, unit: str
) -> Row:
    """Row with an absolute error."""
    return Row(check, model, quantity, reference, ours, ours - reference, tolerance, unit)


def read_rows(name: str) -> list[dict[str, str]]:
    """A reference table."""
    with open(REFERENCE / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---- conduction ----------------------------------------------------------------------------------


def contact_case(resistance: float = 0.0, ends: Sequence[float] = (1.0, 10.0, 60.0)) -> Case:
    """Two half-spaces as a stack of 2 x 0.2 m, finest at the joint."""
    hot = [(0.170, 40, 900.0), (0.020, 50, 900.0), (0.008, 80, 900.0), (0.002, 80, 900.0)]
    layers = [{"material": "left", "thickness_m": t, "mesh": n, "initial_K": start} for t, n, start in hot]
    layers += [
        {"material": "right", "thickness_m": t, "mesh": n, "initial_K": 300.0} for t, n, _ in reversed(hot)
    ]
    joints = [0.0] * 7
    joints[3] = resistance
    return parse_case(
        {
            "materials": {
                "left": {"k_W_mK": 0.8, "rho_cp_J_m3K": KIM_RHO_CP},
                "right": {"k_W_mK": 0.3, "rho_cp_J_m3K": 1e6},
            },
            "geometry": {"kind": "stack", "from_m": -0.2, "layers": layers, "contact_m2K_W": joints},
            "initial_K": 300.0,
            "model": "network",
            "run": {
                "until_s": max(ends),
                "maps_s": list(ends),
                "step": {"largest_s": 0.2, "smallest_s": 1e-5, "conduction_K": 0.05},
            },
        },
        "contact",
    )


def check_contact(model: str, resistance: float) -> Iterator[Row]:
    """Half-spaces in perfect and imperfect contact, 30 points."""
    x = np.array([-0.02, -0.01, -0.005, -0.002, -0.0005, 0.0005, 0.002, 0.005, 0.01, 0.02])
    result = run_case(contact_case(resistance), model)
    for field in result.fields:
        exact = analytic.two_half_spaces(
            x, field.time_s, (0.8, KIM_RHO_CP, 900.0), (0.3, 1e6, 300.0), resistance
        )
        ours = np.array([field.at((p, 0.5, 0.5)) for p in x])
        worst = int(np.argmax(np.abs(ours - exact)))
        name = f"a1 contact R={resistance:g}"
        yield absolute(
            name,
            model,
            f"T, worst of 10 points, {field.time_s:g} s",
            float(exact[worst]),
            float(ours[worst]),
            3.0,
            "K",
        )


def check_slab(model: str) -> Iterator[Row]:
    """Slab with films on both faces."""
    case = parse_case(
        {
            "materials": {"slab": {"k_W_mK": 0.8, "rho_cp_J_m3K": KIM_RHO_CP}},
            "geometry": {"kind": "stack", "layers": [{"material": "slab", "thickness_m": 0.027, "mesh": 64}]},
            "boundaries": {"ends": {"h_W_m2K": 50, "ambient_K": 298.15}},
            "initial_K": 498.15,
            "model": "network",
            "run": {
                "until_s": 600,
                "maps_s": [30, 120, 600],
                "step": {"largest_s": 0.5, "conduction_K": 0.05},
            },
        },
        "slab",
    )
    result = run_case(case, model)
    for field in result.fields:
        for part in (0.0, 0.25, 0.5):
            theta = analytic.slab_decay(
                np.array([2 * part - 1]), 0.8 / KIM_RHO_CP * field.time_s / 0.0135**2, 50 * 0.0135 / 0.8
            )
            exact = 298.15 + 200.0 * float(theta[0])
            ours = field.at((part * 0.027, 0.5, 0.5))
            yield absolute(
                "a2 slab, films", model, f"T at {part:g} L, {field.time_s:g} s", exact, ours, 0.2, "K"
            )


BOX = ((0.1, 0.2, 0.15), (0.8, 20.0, 5.0), 2.0e6)


def box_case(
    n: int, step_s: float, until_s: float, h: float = 0.0, mode: bool = True, adaptive: bool = False
) -> Case:
    """Anisotropic box, adiabatic with a cosine start, or hot with films on all faces."""
    size, k, rho_cp = BOX
    geometry: dict[str, Any] = {
        "kind": "stack",
        "section_m": list(size[1:]),
        "section_mesh": [n, n],
        "layers": [{"material": "box", "thickness_m": size[0], "mesh": n}],
    }
    if mode:
        geometry["cosine"] = {"mode": [1, 1, 1], "amplitude_K": 100.0}
    data: dict[str, Any] = {
        "materials": {"box": {"k_W_mK": list(k), "rho_cp_J_m3K": rho_cp}},
        "geometry": geometry,
        "initial_K": 473.15,
        "model": "network",
        "run": {
            "until_s": until_s,
            "maps_s": [until_s],
            "cg_rtol": 1e-9,
            "step": {"largest_s": step_s, "adaptive": adaptive, "conduction_K": 0.5},
        },
    }
    if h > 0:
        data["boundaries"] = {"all": {"h_W_m2K": h, "ambient_K": 298.15}}
    return parse_case(data, "box")


def mode_amplitude(model: str, n: int, step_s: float, until_s: float) -> float:
    """Amplitude of the first mode left at the end, over its start."""
    case = box_case(n, step_s, until_s)
    grid = case.grid("network")
    lines = grid.lines if model == "fem" else grid.centres()
    shape = np.ones([p.size for p in lines])
    for axis, (p, size) in enumerate(zip(lines, BOX[0], strict=True)):
        form = [1, 1, 1]
        form[axis] = p.size
        shape = shape * np.cos(np.pi * p / size).reshape(form)
    if model == "fem":
        with FemRun(case, lattice_K=473.15 + 100.0 * shape) as run:
            run.advance(until_s, record=False)
            end = run.field_K()
    else:
        end = run_case(case, "network").fields[-1].temperature_K[1:-1, 1:-1, 1:-1]
    return float(((end - 473.15) * shape).sum() / (shape**2).sum() / 100.0)


def observed_order(errors: Sequence[float]) -> float:
    """Order from the last halving."""
    return math.log2(abs(errors[-2]) / abs(errors[-1]))


def check_orders(model: str, sizes: Sequence[int] = (8, 16, 32)) -> Iterator[Row]:
    """Manufactured solution: order in the mesh width and in the step."""
    rate = analytic.eigenmode_rate(*BOX, (1, 1, 1))
    errors = [mode_amplitude(model, n, 0.5, 50.0) - math.exp(-rate * 50.0) for n in sizes]
    yield absolute(
        "a3 box eigenmode",
        model,
        f"order in h, n = {'/'.join(map(str, sizes))}",
        2.0,
        observed_order(errors),
        0.15,
        "",
    )
    # In time: against the same mesh with a far smaller step, so that only the step's error is left.
    exact = mode_amplitude(model, 8, 1.0, 200.0)
    errors = [mode_amplitude(model, 8, dt, 200.0) - exact for dt in (40.0, 20.0)]
    yield absolute("a3 box eigenmode", model, "order in dt, 40/20 s", 2.0, observed_order(errors), 0.15, "")
    amplitude = mode_amplitude(model, sizes[-1], 2.0, 200.0)
    name = f"amplitude at 200 s, n = {sizes[-1]}"
    yield relative(
        "a3 box eigenmode", model, name, math.exp(-rate * 200.0), amplitude, 5e-3 * (32 / sizes[-1]) ** 2
    )


def check_box_films(model: str, n: int = 24) -> Iterator[Row]:
    """Anisotropic box cooling through films on six faces, at its centre, a face centre and a corner."""
    n += int(model == "network")  # odd: a volume sits on the centre
    result = run_case(box_case(n, 2.0, 900.0, h=30.0, mode=False, adaptive=True), model)
    size, k, rho_cp = BOX
    for name, p in (
        ("centre", (0.05, 0.1, 0.075)),
        ("x face", (0.0, 0.1, 0.075)),
        ("corner", (0.0, 0.0, 0.0)),
    ):
        exact = 298.15 + 175.0 * analytic.box_decay(p, 900.0, size, k, rho_cp, 30.0)
        yield absolute(
            "a2 box, films",
            model,
            f"T at {name}, 900 s",
            exact,
            result.fields[-1].at(p),
            0.3 * (24 / n) ** 2,
            "K",
        )


# ---- radiation and criticality -------------------------------------------------------------------


def check_radiation(model: str) -> Iterator[Row]:
    """Body cooling by radiation alone: 1000 to 600 and to 350 K, 900 J/K, emissivity 0.8 on 0.06 m2."""
    boundaries = {"emissivity": 0.8, "ambient_K": 298.15}
    if model == "lumped":
        geometry: dict[str, Any] = {"kind": "lumped", "volume_m3": 0.001, "area_m2": 0.06}
        sides: dict[str, Any] = {"surface": boundaries}
    else:  # a cube of 0.1 m has 0.06 m2; conductive enough to stay at one temperature
        layer = {"thickness_m": 0.1, "mesh": 1, "material": "body"}
        geometry, sides = {"kind": "stack", "section_m": [0.1, 0.1], "layers": [layer]}, {"all": boundaries}
    end = analytic.radiation_time_s(1000.0, 350.0, 900.0, 0.048, 298.15)
    case = parse_case(
        {
            "cell": {"material": {"k_W_mK": 5000, "rho_cp_J_m3K": 9e5}, "kinetics": "none"},
            "materials": {"body": {"k_W_mK": 5000, "rho_cp_J_m3K": 9e5}},
            "geometry": geometry,
            "boundaries": sides,
            "model": model,
            "initial_K": 1000.0,
            "run": {
                "until_s": end * 1.01,
                "maps_s": [analytic.radiation_time_s(1000.0, 600.0, 900.0, 0.048, 298.15), end],
                "step": {"largest_s": 1.0},
            },
        },
        "radiation",
    )
    result = run_case(case, model)
    for index, target in enumerate((600.0, 350.0)):
        exact = analytic.radiation_time_s(1000.0, target, 900.0, 0.048, 298.15)
        if model == "lumped":
            t, temperature = result.traces.time_s, result.traces.mean_K[:, 0]
            ours = float(np.interp(-target, -temperature, t))
        else:  # time error from the temperature error at the exact time and the cooling rate there
            field = result.fields[index]
            rate = 0.048 * analytic.STEFAN_BOLTZMANN * (target**4 - 298.15**4) / 900.0
            ours = exact + (field.at((0.05, 0.05, 0.05)) - target) / rate
        yield relative("a5 radiation", model, f"time to {target:g} K, s", exact, ours, 1e-3)


def zero_order(activation: float, source: float) -> dict[str, Any]:
    """Inline set: a source that is never used up."""
    return {
        "species": {"fuel": 1.0},
        "reactions": {
            "source": {
                "consumes": "fuel",
                "form": "source",
                "A_1_s": 1.0,
                "E_J_mol": activation,
                "heat_J_m3": min(source, 1e11),
                **({"A_1_s": source / 1e11} if source > 1e11 else {}),
            }
        },
    }


def check_semenov() -> Iterator[Row]:
    """Critical ambient temperature of a lumped body with a zero-order source."""
    for row in read_rows("a4_criticality.csv"):
        if row["kind"] != "semenov":
            continue
        e, q, loss = float(row["E_J_mol"]), float(row["q0_W_m3"]), float(row["hS_over_V_W_m3K"])
        exact, _ = analytic.semenov_critical_K(e, q, loss)
        case = parse_case(
            {
                "cell": {"material": {"k_W_mK": 1, "rho_cp_J_m3K": 1e6}, "kinetics": zero_order(e, q)},
                "geometry": {"kind": "lumped", "volume_m3": 1.0, "area_m2": 1.0},
                "run": {"until_s": 1.0},
            },
            "semenov",
        )
        body = Body(case.sets[0], 1.0, 1e6, 1.0, loss)
        low, high = critical_ambient(body, None, exact - 3.0, exact + 3.0, 1e6)
        yield absolute(
            "a4 Semenov", "lumped", f"ambient, E {e:g}, hS/V {loss:g}, K", exact, 0.5 * (low + high), 0.1, "K"
        )
        yield absolute(
            "a4 Semenov",
            "analytic",
            f"ambient against csv, E {e:g}",
            float(row["T_ambient_or_wall_crit_K"]),
            exact,
            1e-3,
            "K",
        )


def explosion_case(
    wall_K: float,
    geometry: int,
    mesh: int = 40,
    e: float = 1.1e5,
    q: float = 9.072e17,
    k: float = 0.5,
    radius: float = 0.01,
) -> Case:
    """Half a slab, or a cylinder or sphere from its axis, with a held wall and a zero-order source."""
    return parse_case(
        {
            "cell": {"material": {"k_W_mK": k, "rho_cp_J_m3K": 1e6}, "kinetics": zero_order(e, q)},
            "geometry": {
                "kind": "stack",
                "coordinates": ("cartesian", "cylindrical", "spherical")[geometry],
                "layers": [{"thickness_m": radius, "mesh": mesh}],
            },
            "boundaries": {"x_max": {"wall_K": wall_K}},
            "initial_K": wall_K,
            "model": "network",
            "run": {
                "until_s": 2e4,
                "stop_above_K": wall_K + 80.0,
                "maps_s": [2e4],
                "step": {"largest_s": 20.0, "smallest_s": 0.01, "reaction_K": 1.0},
            },
        },
        "explosion",
    )


def runs_away(case: Case, model: str) -> bool:
    """Whether the stop temperature was passed."""
    return bool(run_case(case, model).facts["stopped_early"])


def check_explosion(model: str, geometries: Sequence[int] = (0, 1, 2)) -> Iterator[Row]:
    """Frank-Kamenetskii critical wall temperature by bisection (network) or by bracketing +-0.3 K (fem)."""
    for geometry in geometries:
        exact, _ = analytic.frank_kamenetskii_critical_K(1.1e5, 9.072e17, 0.5, 0.01, geometry)
        name = f"a4 Frank-Kamenetskii {('slab', 'cylinder', 'sphere')[geometry]}"
        if model == "fem":
            inside = not runs_away(explosion_case(exact - 0.3, geometry), model) and runs_away(
                explosion_case(exact + 0.3, geometry), model
            )
            yield absolute(
                name, model, "wall temperature within +-0.3 K (1 = yes)", 1.0, float(inside), 0.0, ""
            )
            continue
        low, high = exact - 2.0, exact + 2.0
        while high - low > 0.05:
            middle = 0.5 * (low + high)
            low, high = (
                (low, middle) if runs_away(explosion_case(middle, geometry), model) else (middle, high)
            )
        yield absolute(name, model, "wall temperature, K", exact, 0.5 * (low + high), 0.3, "K")


# ---- kinetics ------------------------------------------------------------------------------------


def adiabatic(start_C: float, inertia: float = 1.0, until_s: float = 3e5) -> LumpedRun:
    """Kim's set in an adiabatic calorimeter."""
    return integrate(
        Body(SetInUse(load_set("kim2007_lco"), 2580.0), 1.0, KIM_RHO_CP * inertia), start_C + 273.15, until_s
    )


def check_adiabatic() -> Iterator[Row]:
    """Kim (b1) and Feng (b2) sets against independent integrations."""
    for row in read_rows("b1_kim_adiabatic.csv"):
        run = adiabatic(float(row["T0_C"]), float(row["phi"]))
        at, temperature, rate = run.max_rate
        name = f"b1 Kim adiabatic {row['T0_C']} C"
        yield relative(name, "lumped", "time to max rate, s", float(row["t_max_rate_s"]), at, 1e-3)
        yield absolute(name, "lumped", "T at max rate", float(row["T_at_max_rate_K"]), temperature, 0.5, "K")
        yield absolute(
            name,
            "lumped",
            "T 300 s later",
            float(row["T_300s_after_K"]),
            float(run.at(at + 300.0)[0]),
            0.5,
            "K",
        )
        yield relative(name, "lumped", "max rate, K/s", float(row["max_rate_K_s"]), rate, 5e-3)
        one = network_adiabatic(float(row["T0_C"]), float(row["t_max_rate_s"]))
        yield relative(name, "network", "time to 500 K, one node, s", run.crossing_s(500.0), one, 1e-3)
    feng = load_set("feng2015_nmc")
    for row in read_rows("b2_feng_adiabatic.csv"):
        density, energy = 2000.0, float(row["E_isc_J"])
        volume = 0.720 / density
        short = Short(energy / volume, 1.0 / float(row["tau_isc_s"]), 533.15) if energy else None
        run = integrate(
            Body(SetInUse(feng, density, short=short), volume, density * 1100.0),
            float(row["T0_C"]) + 273.15,
            2e5,
        )
        name = f"b2 Feng adiabatic {row['T0_C']} C, ISC {energy:g} J"
        for level in (140, 200, 300):
            yield relative(
                name,
                "lumped",
                f"time to {level} C, s",
                float(row[f"t_{level}C_s"]),
                run.crossing_s(level + 273.15),
                2e-3,
            )
        yield absolute(name, "lumped", "peak T", float(row["T_max_K"]), run.peak_K, 0.5, "K")


def network_adiabatic(start_C: float, around_s: float) -> float:
    """Time at which one adiabatic node of the network reaches 500 K."""
    case = parse_case(
        {
            "cell": {
                "material": {"k_W_mK": 1, "density_kg_m3": 2580, "cp_J_kgK": 830},
                "kinetics": "kim2007_lco",
            },
            "geometry": {"kind": "stack", "layers": [{"thickness_m": 0.01, "mesh": 1}]},
            "initial_C": start_C,
            "model": "network",
            "run": {
                "until_s": around_s * 1.02,
                "step": {
                    "largest_s": around_s / 200.0,
                    "smallest_s": 1e-3,
                    "reaction_K": 1.0,
                    "substep_K": 0.5,
                },
            },
        },
        "calorimeter",
    )
    result = run_case(case, "network")
    return first_crossing(result.traces.time_s, result.traces.mean_K[:, 0], 500.0) or math.nan


def oven_case(oven_C: float, emissivity: float, model: str, h: float = 7.17, until_s: float = 7200.0) -> Case:
    """18650 of Kim in an oven: lumped, or as a conductive cube of the same surface to volume ratio."""
    ratio = 252.991453
    data: dict[str, Any] = {
        "cell": {
            "material": {"k_W_mK": 2000, "density_kg_m3": 2580, "cp_J_kgK": 830},
            "kinetics": "kim2007_lco",
        },
        "initial_C": 25.0,
        "model": model,
        "run": {
            "until_s": until_s,
            "step": {"largest_s": 10.0, "smallest_s": 1e-3, "reaction_K": 2.0, "substep_K": 0.5},
        },
    }
    film = {"h_W_m2K": h, "emissivity": emissivity, "ambient_C": oven_C}
    if model == "lumped":
        data |= {
            "geometry": {"kind": "lumped", "volume_m3": 1.654e-5, "area_over_volume_1_m": ratio},
            "boundaries": {"surface": film},
        }
    else:
        side = 6.0 / ratio
        data |= {
            "geometry": {
                "kind": "stack",
                "section_m": [side, side],
                "section_mesh": [2, 2],
                "layers": [{"thickness_m": side, "mesh": 2}],
            },
            "boundaries": {"all": film},
        }
    return parse_case(data, "oven")


def check_oven(model: str) -> Iterator[Row]:
    """Yes/no, time to 300 degC and peak of the oven tests."""
    for row in read_rows("b3_oven_lumped.csv"):
        result = run_case(
            oven_case(float(row["T_oven_C"]), float(row["emissivity"]), model, float(row["h"])), model
        )
        name = f"b3 oven {row['T_oven_C']} C, eps {row['emissivity']}"
        cell = result.summary["cells"][0]
        yield absolute(
            name,
            model,
            "runaway (1 = yes)",
            float(row["runaway_in_2h"]),
            float(cell["runaway_s"] is not None),
            0.0,
            "",
        )
        if row["t_300C_s"]:
            yield relative(
                name, model, "time to 300 C, s", float(row["t_300C_s"]), cell["runaway_s"] or math.nan, 5e-3
            )
        yield absolute(name, model, "peak T", float(row["T_peak_K"]), cell["peak_mean_K"], 1.0, "K")


def check_oven_critical() -> Iterator[Row]:
    """Critical oven temperature of the 18650 within 8 h."""
    for row in read_rows("b3_oven_critical.csv"):
        body = Body(
            SetInUse(load_set("kim2007_lco"), 2580.0),
            1.0,
            KIM_RHO_CP,
            float(row["A_over_V"]),
            float(row["h"]),
            float(row["emissivity"]),
        )
        low, high = critical_ambient(body, 298.15, 373.15, 448.15, 8 * 3600.0)
        middle = 0.5 * (float(row["T_oven_no_runaway_8h_C"]) + float(row["T_oven_runaway_8h_C"]))
        yield absolute(
            "b3 oven critical", "lumped", "oven temperature, C", middle, 0.5 * (low + high) - 273.15, 0.1, "K"
        )


def check_calorimetry() -> Iterator[Row]:
    """DSC of anode and SEI with the critical-thickness model, against LIM1TR."""
    table = read_rows("c2_lim1tr_dsc_2rxn.csv")
    use = SetInUse(load_set("lim1tr_dsc"), 2001.56)
    run = integrate(
        Body(use, 1.0, 2001.56 * 778.0, ramp_K_s=1.0 / 6.0), 350.0, 6.0 * (float(table[-1]["T_K"]) - 350.0)
    )
    sample = use.kinetics.species["sei"] + use.kinetics.species["anode"]
    flow = run.heat_W / (1e3 * sample)
    reference = np.array([float(r["heat_flow_W_per_g_anode"]) for r in table])
    at = np.array([float(r["T_K"]) for r in table])
    ours = np.interp(at, run.temperature_K, flow)
    for name, low, high in (("SEI", 350, 430), ("anode plateau", 440, 500), ("anode peak", 540, 600)):
        window = (at > low) & (at < high)
        yield relative(
            "c2 DSC, Zcrit anode",
            "lumped",
            f"{name} peak, W/g",
            float(reference[window].max()),
            float(ours[window].max()),
            0.02,
        )


# ---- stacks --------------------------------------------------------------------------------------


def check_lim1tr() -> Iterator[Row]:
    """The same grid as LIM1TR's propagation example, read at its 0.1 s outputs as its figures were."""
    case = load_case("lim1tr_propagation")
    even = np.arange(0, 1001) / 10.0
    case = replace(case, run=replace(case.run, maps_s=tuple(even[1:])))
    t = run_case(case, "network").traces
    for i, (crossing, peak, end) in enumerate(
        ((3.2570, 950.85, 885.952), (21.9364, 997.93, 907.475), (37.3127, 995.24, 944.731))
    ):
        mean = np.interp(even, t.time_s, t.mean_K[:, i])
        name = f"LIM1TR row, cell {i + 1}"
        yield absolute(
            name,
            "network",
            "mean at 300 C, s",
            crossing,
            first_crossing(even, mean, 573.15) or math.nan,
            0.02,
            "s",
        )
        yield absolute(name, "network", "peak mean T", peak, float(mean.max()), 0.1, "K")
        yield absolute(name, "network", "mean T at 100 s", end, float(mean[-1]), 0.1, "K")


def check_stack(model: str) -> Iterator[Row]:
    """Row with a rate ceiling against the finest grid of the reference; half the mesh shows the
    convergence.
    """
    reference = [r for r in read_rows("c1_stack_kmax1.csv") if r["volumes_per_cell"] == "140"]
    case = load_case("stack_kmax1")
    result = run_case(case, model)
    for row, cell in zip(reference, result.summary["cells"], strict=True):
        name = f"c1 row, kmax 1, cell {row['layer']}"
        yield relative(name, model, "mean at 300 C, s", float(row["t_mean_300C_s"]), cell["runaway_s"], 0.01)
        yield absolute(name, model, "peak mean T", float(row["T_mean_peak_K"]), cell["peak_mean_K"], 2.0, "K")
    yield Row(
        "c1 row, kmax 1",
        model,
        "energy imbalance",
        0.0,
        e := result.summary["energy_J"]["imbalance"],
        e,
        1e-6 if model == "fem" else 1e-10,
        "",
    )


# ---- pack ----------------------------------------------------------------------------------------

# hex_16x12x12_37128dof_dt1 of the shared mesh study (time of cell 0 first); null beyond.
PACK_37K = (87.4, 196.1, 289.6, 326.0, 444.0, 451.9, 462.4, 468.4, 653.6, 656.3, 658.3, 658.4)
REFINEMENTS = ((2, 1, 1), (1, 2, 1), (1, 1, 2))
PACK_MESHES = {
    (8, 6, 6): (88.4, 211.1, 320.8, 367.8, 529.8, 533.1, 540.4, 546.9),
    (8, 12, 12): (87.7, 205.3, 301.5, 335.4, 456.3, 463.3, 472.9, 478.3, 663.9, 666.7, 668.6, 668.3),
}


def check_pack_same_mesh(mesh: tuple[int, int, int]) -> Iterator[Row]:
    """The shared study on its own mesh: same elements, other time scheme."""
    case = load_case("pack3x4")
    assert case.layout is not None
    even = replace(case, layout=replace(case.layout, graded=False))  # as the study's meshes
    result = run_case(even, "fem", mesh=mesh)
    for i, reference in enumerate(PACK_MESHES[mesh]):
        ours = result.summary["cells"][i]["runaway_s"]
        yield relative(
            f"pack 3x4, mesh {mesh}", "fem", f"cell {i} at 300 C, s", reference, ours or math.nan, 0.02
        )
    yield Row(
        f"pack 3x4, mesh {mesh}",
        "fem",
        "energy imbalance",
        0.0,
        e := result.summary["energy_J"]["imbalance"],
        e,
        1e-6,
        "",
    )


def check_pack(model: str, refine: bool) -> Iterator[Row]:
    """Our own mesh against the finest rows of the shared study; refinement changes the intervals."""
    from .run import refinement_change

    case = load_case("pack3x4")
    tic = time.perf_counter()
    result = run_case(case, model)
    wall = time.perf_counter() - tic
    cells = [c["runaway_s"] or math.nan for c in result.summary["cells"]]
    order = result.summary["order"]
    name = f"pack 3x4, {result.facts['nodes']} nodes"
    yield absolute(name, model, "cell 0 at 300 C, s", PACK_37K[0], cells[0], 2.0, "s")
    if model == "fem":
        yield absolute(
            name, model, "order as reference (1 = yes)", 1.0, float(order[:8] == list(range(8))), 0.0, ""
        )
        for i in range(1, 12):
            yield relative(
                name, model, f"cell {i} since cell 0, s", PACK_37K[i] - PACK_37K[0], cells[i] - cells[0], 0.06
            )
        for i, peak in enumerate((794, 725, 765, 779)):
            yield absolute(
                name, model, f"cell {i} peak mean", peak, result.summary["cells"][i]["peak_mean_K"], 10.0, "K"
            )
        excess = max(0.0, wall - 70.0)
        yield Row(name, model, "wall time of 700 s (60 s for 600 s), s", 70.0, wall, excess, 0.0, "s")
        yield Row(
            name,
            model,
            "memory, MB",
            1000.0,
            m := result.facts["timing"]["memory_MB"],
            max(0.0, m - 1e3),
            0.0,
            "MB",
        )
    else:
        yield relative(name, model, "first interval, s", PACK_37K[1] - PACK_37K[0], cells[1] - cells[0], 0.10)
        yield relative(
            name, model, "row end since cell 0, s", PACK_37K[3] - PACK_37K[0], cells[3] - cells[0], 0.20
        )
    limit = 1e-6 if model == "fem" else 1e-10
    yield Row(
        name, model, "energy imbalance", 0.0, e := result.summary["energy_J"]["imbalance"], e, limit, ""
    )
    for factors in REFINEMENTS if refine else ():
        finer = replace(case, run=replace(case.run, refine=factors))
        change = refinement_change(finer, model, result)
        for i, value in enumerate(change["change_since_first_cell"]):
            if value is not None:
                limit = 0.05 if model == "fem" else 0.10  # the network's bias is stated, not hidden
                what = f"{name}, refined x{list(factors)} and half the step"
                yield Row(what, model, f"cell {i}: change since cell 0", 0.0, value, value, limit, "%")


def check_mpi() -> Iterator[Row]:
    """Two MPI processes give the answer of one."""
    case = load_case("pack3x4")
    case = replace(case, run=replace(case.run, until_s=220.0))
    one, two = (run_case(case, "fem", mesh=(4, 6, 6), ranks=n) for n in (1, 2))
    for i in (0,):
        a, b = one.summary["cells"][i]["runaway_s"], two.summary["cells"][i]["runaway_s"]
        yield relative("pack 3x4 under mpirun -n 2", "fem", f"cell {i} at 300 C, s", a, b, 1e-6)
    worst = float(np.abs(one.traces.mean_K[-1] - two.traces.mean_K[-1]).max())
    yield Row(
        "pack 3x4 under mpirun -n 2",
        "fem",
        "cell means at 220 s, largest difference",
        0.0,
        worst,
        worst,
        1e-3,
        "K",
    )


Check = Callable[[], Iterator[Row]]


def checks(quick: bool, with_fem: bool) -> list[tuple[str, Check]]:
    """All checks by name."""
    models = ["network", *(["fem"] if with_fem else [])]
    found: list[tuple[str, Check]] = []

    def add(name: str, check: Callable[..., Iterator[Row]], *arguments: Any) -> None:
        found.append((name, lambda: check(*arguments)))

    for model in models:
        for resistance in (0.0, 0.002):
            add(f"contact {resistance} {model}", check_contact, model, resistance)
        add(f"slab {model}", check_slab, model)
        add(f"orders {model}", check_orders, model, (4, 8, 16) if quick else (8, 16, 32))
        add(f"box {model}", check_box_films, model, 12 if quick else 24)
        add(f"radiation {model}", check_radiation, model)
        add(f"oven {model}", check_oven, model)
        add(f"stack {model}", check_stack, model)
    add("radiation lumped", check_radiation, "lumped")
    add("semenov", check_semenov)
    add("explosion network", check_explosion, "network")
    add("adiabatic", check_adiabatic)
    add("oven lumped", check_oven, "lumped")
    add("oven critical", check_oven_critical)
    add("calorimetry", check_calorimetry)
    add("lim1tr", check_lim1tr)
    add("pack network", check_pack, "network", not quick)
    if with_fem:
        add("mpi", check_mpi)
        add("pack same mesh coarse", check_pack_same_mesh, (8, 6, 6))
        if not quick:
            add("explosion fem", check_explosion, "fem")
            add("pack same mesh", check_pack_same_mesh, (8, 12, 12))
            add("pack fem", check_pack, "fem", True)
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown table."""
    lines = [
        "| check | model | quantity | reference | ours | error | tolerance | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if r.unit == "%":
            error, tolerance = f"{100 * r.error:+.3g} %", f"{100 * r.tolerance:g} %"
        else:
            error, tolerance = f"{r.error:+.3g} {r.unit}".strip(), f"{r.tolerance:g} {r.unit}".strip()
        lines.append(
            f"| {r.check} | {r.model} | {r.quantity} | {r.reference:.6g} | {r.ours:.6g} | {error} | "
            f"{tolerance} | {'ok' if r.passed else 'FAIL'} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; exit code 1 when one fails."""
    parser = argparse.ArgumentParser(prog="propagation.validate")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="checks whose name contains this")
    parser.add_argument("--out", type=Path, help="folder for validation.md and validation.json")
    options = parser.parse_args(arguments)
    try:
        _, version = find_interpreter()
    except MissingDolfinxError as error:
        print(f"{error}\ngoing on without the finite elements", file=sys.stderr)
        version = ""
    rows: list[Row] = []
    for name, check in checks(options.quick, bool(version)):
        if options.only not in name:
            continue
        tic = time.perf_counter()
        new = list(check())
        rows += new
        bad = [r for r in new if not r.passed]
        print(
            f"{name:28s} {len(new) - len(bad):3d} ok {len(bad):2d} failed {time.perf_counter() - tic:7.1f} s",
            flush=True,
        )
        if bad:
            print(table(bad), flush=True)
    text = table(rows)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        command = f"python -m pack_models.propagation.validate{' --quick' if options.quick else ''}"
        head = f"`{command} --out results/propagation`; dolfinx {version or 'absent'}\n\n"
        (options.out / "validation.md").write_text(head + text + "\n", encoding="utf-8")
        (options.out / "validation.json").write_text(
            json.dumps([asdict(r) for r in rows], indent=1) + "\n", encoding="utf-8"
        )
    else:
        print(text)
    return int(any(not r.passed for r in rows))


if __name__ == "__main__":
    sys.exit(main())
