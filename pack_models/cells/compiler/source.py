"""Where a model to compile comes from: a PyBaMM parameter set, a BPX file or a Simulation.

The model is built by PyBaMM with the current, the temperatures, the initial concentrations and any further
parameter named by the caller as inputs, discretised on its own mesh, and exported through CasADi into one
`Graph`. Only ordinary differential equations pass: what needs an algebraic state in every step (DFN,
composite electrodes, "total interfacial current density as a state") is refused with the option to change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pack_models.cells.compiler.graph import Graph, Node, Table
from pack_models.cells.pybamm_engine import load_pybamm

FloatArray = NDArray[np.float64]

MODELS = {"spm": "SPM", "spme": "SPMe"}
CURRENT = "Current function [A]"
AMBIENT = "Ambient temperature [K]"
INITIAL_TEMPERATURE = "Initial temperature [K]"
INITIAL_CONCENTRATION = tuple(
    f"Initial concentration in {side} electrode [mol.m-3]" for side in ("negative", "positive")
)
# What every compiled model gives; more on request.
VOLTAGE = "Terminal voltage [V]"
LITHIUM = "Total lithium in negative electrode [mol]"
TEMPERATURE = "Volume-averaged cell temperature [K]"
SURFACES = tuple(f"X-averaged {side} particle surface stoichiometry" for side in ("negative", "positive"))
OUTPUTS = (VOLTAGE, LITHIUM, *SURFACES, TEMPERATURE)

SIDES = ("negative", "positive")
FULL = 1.0 + 1e-9  # a separator may be all electrolyte
# Physical ranges, open intervals; a parameter that is a function is not checked here.
RANGES: dict[str, tuple[float, float]] = {
    **{
        f"{side} {what}": (0.0, high)
        for side in ("Negative", "Positive")
        for what, high in (
            ("electrode thickness [m]", 1e-2),
            ("particle radius [m]", 1e-3),
            ("electrode porosity", 1.0),
            ("electrode active material volume fraction", 1.0),
        )
    },
    **{f"Maximum concentration in {side} electrode [mol.m-3]": (0.0, 1e6) for side in SIDES},
    "Separator thickness [m]": (0.0, 1e-2),
    "Separator porosity": (0.0, FULL),
    "Electrode height [m]": (0.0, 1e3),
    "Electrode width [m]": (0.0, 1e3),
    "Cation transference number": (-1.0, 1.0),
    "Initial concentration in electrolyte [mol.m-3]": (0.0, 1e5),
    "Nominal cell capacity [A.h]": (0.0, 1e6),
    "Lower voltage cut-off [V]": (0.0, 10.0),
    "Upper voltage cut-off [V]": (0.0, 10.0),
    "Reference temperature [K]": (150.0, 500.0),
}


class ModelError(ValueError):
    """The model or its parameters cannot be compiled; the message says what to change."""


@dataclass(frozen=True)
class Window:
    """Stoichiometries at the cut-off voltages, and what the parameter set says about the cell."""

    negative_empty: float
    negative_full: float
    positive_empty: float
    positive_full: float
    lower_V: float
    upper_V: float
    nominal_Ah: float
    reference_K: float

    def stoichiometry(self, soc: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Of the negative and the positive electrode at a state of charge 0…1, at rest."""
        return (
            self.negative_empty + soc * (self.negative_full - self.negative_empty),
            self.positive_empty + soc * (self.positive_full - self.positive_empty),
        )


@dataclass(frozen=True, eq=False)
class Source:
    """What to build. Make one with `parameter_set`, `bpx_file` or `simulation`.

    parameters : PyBaMM ParameterValues · options : PyBaMM model options · inputs : parameters that each
    cell has of its own · outputs : scalar PyBaMM variables to compute beside the voltage · key : what
    identifies the model without building it, None where only the built equations can tell
    """

    label: str
    model: str
    make_model: Any
    make_parameters: Any
    options: Mapping[str, Any]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    mesh: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None


def _checked_model(model: str) -> str:
    if model not in MODELS:
        raise ModelError(f"no compiled cell model {model!r}; expected one of {', '.join(MODELS)}")
    return MODELS[model]


def parameter_set(
    name: str,
    model: str,
    options: Mapping[str, Any] | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    mesh: Mapping[str, int] | None = None,
) -> Source:
    """One of PyBaMM's named parameter sets, such as "Chen2020"."""
    kind = _checked_model(model)
    options = dict(options or {})

    def parameters() -> Any:
        pybamm = load_pybamm()
        if name not in list(pybamm.parameter_sets):
            known = ", ".join(sorted(pybamm.parameter_sets))
            raise ModelError(f"no PyBaMM parameter set {name!r}; expected one of {known}")
        return pybamm.ParameterValues(name)

    key = json.dumps(
        ["set", name, model, options, list(inputs), list(outputs), dict(mesh or {})], sort_keys=True
    )
    return Source(
        name,
        model,
        lambda: getattr(load_pybamm().lithium_ion, kind)(dict(options)),
        parameters,
        options,
        tuple(inputs),
        tuple(outputs),
        {"var_pts": dict(mesh)} if mesh else {},
        key,
    )


def bpx_file(
    path: Path | str,
    model: str,
    options: Mapping[str, Any] | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Source:
    """A cell described in a BPX file, version 0.x or 1.x."""
    kind = _checked_model(model)
    path, options = Path(path), dict(options or {})
    text = read_bpx(path)
    key = json.dumps(["bpx", text, model, options, list(inputs), list(outputs)], sort_keys=True)
    return Source(
        path.name,
        model,
        lambda: getattr(load_pybamm().lithium_ion, kind)(dict(options)),
        lambda: bpx_parameters(path),
        options,
        tuple(inputs),
        tuple(outputs),
        {},
        key,
    )


def read_bpx(path: Path) -> str:
    """The text of a BPX file that at least is JSON with the two sections every version has."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ModelError(f"{path}: cannot be read as a BPX file: {problem}") from None
    try:
        content = json.loads(text)
    except json.JSONDecodeError as problem:
        raise ModelError(f"{path}:{problem.lineno}:{problem.colno}: not JSON: {problem.msg}") from None
    missing = [
        name
        for name in ("Header", "Parameterisation")
        if not isinstance(content, dict) or name not in content
    ]
    if missing:
        raise ModelError(
            f"{path}: a BPX file has the sections Header and Parameterisation; missing: {missing[0]}"
        )
    return text


def bpx_parameters(path: Path) -> Any:
    """PyBaMM parameters from a BPX file; every mistake of the schema in one message."""
    import warnings

    pybamm = load_pybamm()
    try:
        import pydantic
    except ImportError as missing:
        raise ImportError("BPX files need the package bpx; pip install bpx") from missing
    read_bpx(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bpx announces that it converts version 0.x
            return pybamm.ParameterValues.create_from_bpx(str(path))
    except pydantic.ValidationError as problem:
        lines = [
            f"{path}: {' / '.join(str(part) for part in error['loc'])}: {error['msg']}, "
            f"not {str(error.get('input'))[:60]!r}"
            for error in problem.errors()
        ]
        raise ModelError("\n".join(lines)) from None
    except (ValueError, KeyError, TypeError, NotImplementedError) as problem:
        raise ModelError(f"{path}: not a usable BPX file: {problem}") from None


def simulation(built: Any, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Source:
    """A PyBaMM `Simulation` of a single-particle model; its parameters, options and mesh are taken over.

    Its protocol is not: current and temperature come from the caller, step by step.
    """
    model = built._unprocessed_model
    options = dict(model.options)
    mesh = {
        "geometry": built._geometry,
        "submesh_types": built._submesh_types,
        "var_pts": built._var_pts,
        "spatial_methods": built._spatial_methods,
    }
    return Source(
        model.name,
        "spm" if "electrolyte" not in model.name.lower() else "spme",
        lambda: model.new_copy(),
        lambda: built._unprocessed_parameter_values.copy(),
        options,
        tuple(inputs),
        tuple(outputs),
        mesh,
        None,
    )


def check_ranges(values: Any, label: str) -> None:
    """All parameters that are numbers and lie outside their physical range, in one error."""
    wrong = []
    for name, (low, high) in RANGES.items():
        value = values.get(name)
        if isinstance(value, (int, float, np.number)) and not low < float(value) < high:
            wrong.append(
                f"{label}: {name} is {float(value):g}; expected more than {low:g} and less than {high:g}"
            )
    low_V, high_V = values.get("Lower voltage cut-off [V]"), values.get("Upper voltage cut-off [V]")
    if isinstance(low_V, (int, float)) and isinstance(high_V, (int, float)) and low_V >= high_V:
        wrong.append(
            f"{label}: Lower voltage cut-off [V] is {low_V:g}; expected less than the upper, {high_V:g}"
        )
    if wrong:
        raise ModelError("\n".join(wrong))


@dataclass(frozen=True, eq=False)
class Discretised:
    """A built model as one graph.

    rhs : nodes of dy/dt · outputs : node of each output · initial : nodes of the states at rest, functions
    of the initial concentrations and temperature (inputs `input_names`) · blocks : slices of the states
    that belong to one variable, widest first · defaults : value of each input where a cell gives none
    """

    label: str
    model: str
    graph: Graph
    rhs: list[Node]
    outputs: dict[str, Node]
    initial: list[Node]
    blocks: list[tuple[str, slice]]
    input_names: list[str]
    defaults: FloatArray
    maximum_mol_per_m3: tuple[float, float]
    window: Window
    jacobian: Any  # (rows, columns) → dense list of lists of nodes


def _check_phases(source: Source) -> None:
    """Half cells and composite electrodes: the first have one particle, the others share the current."""
    phases = source.options.get("particle phases", "1")
    if any("2" in str(phase) for phase in ([phases] if isinstance(phases, str) else phases)):
        raise ModelError(
            f"{source.label}: with 'particle phases' {phases!r} the phases of an electrode share its "
            "current by an algebraic equation, so it cannot be compiled; choose single-phase electrodes, or "
            "PyBaMM itself"
        )
    if source.options.get("working electrode", "both") != "both":
        raise ModelError(
            f"{source.label}: a half cell has no negative particle; choose 'working electrode': 'both'"
        )


def _interpolants(pybamm: Any, trees: Sequence[Any]) -> list[Any]:
    """All interpolants of some expressions, the inner ones first."""
    found: dict[Any, None] = {}
    for tree in trees:
        for symbol in reversed(list(tree.pre_order())):
            if isinstance(symbol, pybamm.Interpolant):
                found[symbol] = None
    return list(found)


def _table(symbol: Any) -> Table:
    """An interpolant of PyBaMM as piecewise cubic, with PyBaMM's own choice of spline."""
    from scipy import interpolate

    if symbol.dimension != 1 or np.ndim(symbol.y) != 1:
        raise ModelError(
            f"the parameter table {symbol.name!r} has more than one variable; the compiler reads tables of "
            "one: choose spme_pybamm, which runs PyBaMM's own solver"
        )
    x, y = np.asarray(symbol.x[0], dtype=float), np.asarray(symbol.y, dtype=float)
    if symbol.interpolator == "linear":
        pieces = np.zeros((x.size - 1, 4))
        pieces[:, 0], pieces[:, 1] = y[:-1], np.diff(y) / np.diff(x)
        table = Table(x, pieces)
    else:
        if symbol.interpolator == "cubic":
            poly = interpolate.PPoly.from_spline(interpolate.make_interp_spline(x, y, k=3).tck)
        else:
            poly = interpolate.PchipInterpolator(x, y)
        real = np.diff(poly.x) > 0.0  # splines repeat their end knots
        knots = np.append(poly.x[:-1][real], poly.x[-1])
        table = Table(knots, np.ascontiguousarray(poly.c[::-1, real].T))
    for _ in range(int(getattr(symbol, "_num_derivatives", 0))):
        table = table.derivative()
    return table


def _window(pybamm: Any, values: Any, model: Any, label: str) -> Window:
    try:
        x0, x100, y100, y0 = pybamm.lithium_ion.get_min_max_stoichiometries(values)
    except Exception as problem:
        raise ModelError(
            f"{label}: no stoichiometries belong to its cut-off voltages ({problem}); check "
            "'Lower voltage cut-off [V]', 'Upper voltage cut-off [V]' and the open-circuit potentials"
        ) from None
    reference_K = float(values.get("Reference temperature [K]") or 298.15)
    return Window(
        float(x0),
        float(x100),
        float(y0),
        float(y100),
        float(values["Lower voltage cut-off [V]"]),
        float(values["Upper voltage cut-off [V]"]),
        float(values["Nominal cell capacity [A.h]"]),
        reference_K,
    )


def discretise(source: Source) -> Discretised:
    """Build a source with PyBaMM and read it into a graph."""
    pybamm = load_pybamm()
    import casadi

    try:
        model = source.make_model()
    except pybamm.OptionError as problem:
        raise ModelError(f"{source.label}: PyBaMM does not know this option: {problem}") from None
    _check_phases(source)
    values = source.make_parameters()
    check_ranges(values, source.label)
    window = _window(pybamm, values, model, source.label)
    maximum = tuple(
        float(values[f"Maximum concentration in {side} electrode [mol.m-3]"])
        for side in ("negative", "positive")
    )
    unknown = [name for name in source.inputs if name not in values]
    if unknown:
        near = ", ".join(
            str(name) for name in values.search(unknown[0].split(" [")[0], print_values=False) or ()
        )
        raise ModelError(
            f"{source.label}: no parameter {unknown[0]!r} to make an input of{': ' + near if near else ''}"
        )
    own = [CURRENT, AMBIENT, INITIAL_TEMPERATURE, *INITIAL_CONCENTRATION]
    names = own + [name for name in source.inputs if name not in own]
    x, y_ = window.stoichiometry(np.array(0.5))
    starts = [0.0, window.reference_K, window.reference_K, float(x) * maximum[0], float(y_) * maximum[1]]
    for name in names[len(own) :]:
        if not isinstance(values[name], (int, float, np.number)):
            raise ModelError(f"{source.label}: {name} is a function, not a number; it cannot be an input")
        starts.append(float(values[name]))
    values.update(dict.fromkeys(names, "[input]"))
    model.events = []
    build = pybamm.Simulation(model, parameter_values=values, **source.mesh)
    first = dict(zip(names, starts, strict=True))
    try:
        build.build(inputs=first)
    except KeyError as problem:
        raise ModelError(
            f"{source.label}: the parameter set lacks what these options need: {str(problem.args[0])[:200]}; "
            "choose other options or another set"
        ) from None
    built = build.built_model
    if built.len_alg:
        algebraic = ", ".join(sorted(variable.name for variable in built.algebraic)) or "electrode potentials"
        chosen = {k: v for k, v in source.options.items() if v not in ("none", "false", "default")}
        raise ModelError(
            f"{source.label}: with the options {dict(chosen)} the {source.model} has {built.len_alg} "
            f"algebraic states ({algebraic}): it is no ordinary differential equation and cannot be "
            'compiled; choose options without them ("total interfacial current density as a state": "false", '
            '"x-average side reactions": "true", no surface form "algebraic"), or the rung spme_pybamm or dfn'
        )
    graph = Graph()
    n = int(built.len_rhs)
    t, y = casadi.MX.sym("t"), casadi.MX.sym("y", n)
    inputs = {name: casadi.MX.sym(f"p{k}") for k, name in enumerate(names)}
    wanted = [*OUTPUTS, *source.outputs]
    trees = [built.concatenated_rhs, built.concatenated_initial_conditions]
    for name in wanted:
        try:
            trees.append(built.get_processed_variable(name))
        except KeyError:
            raise ModelError(f"{source.label}: the {source.model} has no variable {name!r}") from None
    cache: dict[Any, Any] = {}
    placeholders, looked_up, tables = [], [], []
    for k, symbol in enumerate(_interpolants(pybamm, trees)):
        child = symbol.children[0].to_casadi(t, y, inputs=inputs, casadi_symbols=cache)
        cache[symbol] = casadi.MX.sym(f"table{k}", child.shape[0])
        placeholders.append(cache[symbol])
        looked_up.append(child)
        tables.append(_table(symbol))
    exported = [tree.to_casadi(t, y, inputs=inputs, casadi_symbols=cache) for tree in trees]
    stacked_p, stacked_u = casadi.vertcat(*inputs.values()), casadi.vertcat(*placeholders)
    whole = casadi.Function(
        "model", [t, y, stacked_p, stacked_u], [*exported, casadi.vertcat(*looked_up)]
    ).expand()
    symbols = [casadi.SX.sym(n_, *whole.size_in(k)) for k, n_ in enumerate(("t", "y", "p", "u"))]
    results = [casadi.densify(part) for part in whole(*symbols)]
    y_nodes = [graph.state(k) for k in range(n)]
    # The start belongs to the initial state alone: potentials are measured from the open circuit there,
    # which cancels in everything that can be measured (checked below).
    p_nodes = [graph.input(k) for k in range(len(names))]
    fixed = [graph.const(starts[k]) if 2 <= k < len(own) else p_nodes[k] for k in range(len(names))]
    zero = graph.const(0.0)
    n_u = stacked_u.shape[0]
    number_of = np.repeat(np.arange(len(tables)), [p.shape[0] for p in placeholders]).astype(int)
    graph.tables.extend(tables)
    slope_of: dict[int, int] = {}

    def run(outputs: list[Any], p: list[Node]) -> list[list[Node]]:
        """Nodes of some expressions, look-ups resolved one by one (an argument may need earlier ones)."""
        u_nodes = [zero] * n_u
        if n_u:
            arguments = casadi.Function("arguments", symbols, [results[-1]])
            for k in range(n_u):
                argument = graph.add(arguments, [[zero], y_nodes, p, u_nodes])[0][k]
                u_nodes[k] = graph.look_up(int(number_of[k]), argument)
        function = casadi.Function("part", symbols, [casadi.densify(part) for part in outputs])
        return graph.add(function, [[zero], y_nodes, p, u_nodes])

    nodes = run(results[:-1], fixed)
    initial = run([results[1]], p_nodes)[0]
    sy, su = symbols[1], symbols[3]

    def jacobian(rows: slice, columns: slice) -> list[list[Node]]:
        """d rhs[rows] / d y[columns] as nodes; through tables by their slopes."""
        f, part = results[0][rows.start : rows.stop], sy[columns.start : columns.stop]
        direct = casadi.jacobian(f, sy)[:, columns.start : columns.stop]
        (flat,) = run([casadi.densify(direct)], fixed)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        # CasADi is column major.
        dense = [[flat[c * height + r] for c in range(width)] for r in range(height)]
        if n_u:
            f_u = casadi.jacobian(f, su)
            u_y = casadi.jacobian(results[-1], part)
            for k in range(n_u):
                if not (f_u[:, k].nnz() and u_y[k, :].nnz()):
                    continue
                number = int(number_of[k])
                if number not in slope_of:
                    graph.tables.append(graph.tables[number].derivative())
                    slope_of[number] = len(graph.tables) - 1
                (left, right, argument) = run(
                    [casadi.densify(f_u[:, k]), casadi.densify(u_y[k, :]), results[-1][k]], fixed
                )
                slope = graph.look_up(slope_of[number], argument[0])
                for r in range(height):
                    for c in range(width):
                        more = graph.apply("mul", left[r], graph.apply("mul", slope, right[c]))
                        dense[r][c] = graph.apply("add", dense[r][c], more)
        return dense

    rhs = nodes[0]
    outputs = {name: nodes[2 + k][0] for k, name in enumerate(wanted)}
    for name, node in outputs.items():
        if len(nodes[2 + wanted.index(name)]) != 1:
            raise ModelError(
                f"{source.label}: {name!r} is not one number per cell; choose an averaged variable"
            )
        if not (graph.states_of(node) or graph.inputs_of(node) or name in OUTPUTS):
            raise ModelError(f"{source.label}: {name!r} is a constant of this model")
    pieces = sorted(
        {(s.start, s.stop): v.name for v, slices in built.y_slices.items() for s in slices}.items(),
        key=lambda item: item[0][0] - item[0][1],
    )
    blocks: list[tuple[str, slice]] = []
    for (start, stop), name in pieces:
        if not any(b.start <= start and stop <= b.stop for _, b in blocks):
            blocks.append((name, slice(start, stop)))
    found = Discretised(
        source.label,
        source.model,
        graph,
        rhs,
        outputs,
        initial,
        blocks,
        names,
        np.array(starts),
        (maximum[0], maximum[1]),
        window,
        jacobian,
    )
    _check_start_cancels(found, run(results[2:-1], p_nodes))
    return found


def _check_start_cancels(model: Discretised, outputs: list[list[Node]]) -> None:
    """Outputs must not depend on what the initial state was, only on the state."""
    p = np.repeat(model.defaults[:, None], 2, axis=1)
    p[0] = 0.3 * model.window.nominal_Ah
    y = model.graph.evaluate(model.initial, np.zeros((len(model.rhs), 2)), p)
    moved = p.copy()
    moved[3:5] *= np.array([[0.9], [1.05]])
    roots = [node[0] for node in outputs]
    plain, other = (model.graph.evaluate(roots, y, inputs) for inputs in (p, moved))
    if not np.allclose(plain, other, rtol=1e-9, atol=1e-9):
        bad = list(model.outputs)[int(np.argmax(np.abs(plain - other).max(axis=1)))]
        raise ModelError(
            f"{model.label}: {bad} depends on the initial concentrations, not only on the state; choose "
            "'surface form': 'false', or the rung spme_pybamm"
        )
