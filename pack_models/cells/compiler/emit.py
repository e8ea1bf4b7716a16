"""The C of a compiled model: one step of W cells at a time, the same instructions for all of them.

`rates` and `observe` are straight-line vector code from the graph; what depends on inputs alone (Arrhenius
factors at the temperature given) is computed once a step in `hoist`. Around them stands one scheme for all
blocks, second order, with the first-order result as error estimate; each cell has its own step length, so
that no cell's numbers depend on its neighbours in the vector:

- modal blocks by exponentials (ETD2RK: Cox and Matthews, J. Comput. Phys. 176 (2002) 430): exact where
  drivers and scale hold over the step;
- banded blocks and fast single states by ROS2 (Verwer, Spee, Blom, Hundsdorfer, SIAM J. Sci. Comput. 20
  (1999) 1456), L-stable, of order two for any approximation of the Jacobian, hence coupling between blocks
  may be left out of it; the estimate is smoothed by the same matrix, or fast modes would keep the step short;
- slow single states by the explicit part of the same scheme.

Blocks that depend on no state and drive none (particles of an isothermal model) take the whole step at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pack_models.cells.compiler.graph import Graph, Node, Table
from pack_models.cells.compiler.structure import Modal, Structure

FloatArray = NDArray[np.float64]

GAMMA = 1.0 - 0.5**0.5
TOLERANCE = 2e-3  # of the smoothed first-order estimate, relative; see the README for what it leaves
SINGLE_SHARE = 1.0 / 200.0  # single states (kelvin!) are held that much tighter: 3 mK a step
SYMBOLS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


@dataclass(frozen=True)
class Layout:
    """Rows of a cell's state in memory: modes, nodes, single states, the step length it last found good."""

    modal: list[tuple[str, slice]]
    banded: list[tuple[str, slice]]
    single: list[tuple[str, int]]
    n_rows: int


def state_layout(structure: Structure) -> Layout:
    """Where each block stands in a cell's state."""
    at = 0
    modal, banded, single = [], [], []
    for block in structure.modal:
        modal.append((block.name, slice(at, at + block.rate.size)))
        at += block.rate.size
    for nonlinear in structure.banded:
        banded.append((nonlinear.name, slice(at, at + len(nonlinear.rhs))))
        at += len(nonlinear.rhs)
    for one in structure.single:
        single.append((one.name, at))
        at += 1
    return Layout(modal, banded, single, at + (0 if structure.exact else 1))


def _real(value: float) -> str:
    return f"all({float(value).hex()})"


def _numbers(name: str, values: FloatArray) -> str:
    shape = "".join(f"[{size}]" for size in values.shape)
    if values.ndim == 1:
        body = ", ".join(float(x).hex() for x in values)
    else:
        body = ",\n  ".join("{" + ", ".join(float(x).hex() for x in row) + "}" for row in values)
    return f"static const double {name}{shape} = {{{body}}};\n"


def _table(number: int, table: Table) -> str:
    n = table.pieces.shape[0]
    bins = 4 * n
    first, last = float(table.knots[0]), float(table.knots[-1])
    edges = first + (last - first) * np.arange(bins) / bins
    guess = np.clip(np.searchsorted(table.knots, edges, side="right") - 2, 0, n - 1)
    rows = np.column_stack([table.knots[:-1], table.pieces])
    return (
        _numbers(f"piece{number}", rows.ravel())
        + f"static const int32_t guess{number}[] = {{{', '.join(str(int(g)) for g in guess)}}};\n"
        + f"static const table_t table{number} = {{{n}, {bins}, {first.hex()}, "
        f"{(bins / (last - first)).hex()}, guess{number}, piece{number}}};\n"
    )


class _Writer:
    """Straight-line code for some roots of the graph, from given names of the leaves."""

    def __init__(self, graph: Graph, names: dict[Node, str]) -> None:
        self.graph, self.names = graph, names

    def function(self, title: str, roots: Sequence[Node], into: str) -> str:
        """`title` with body computing the roots into `into[k]`."""
        graph = self.graph
        known = dict(self.names)
        order = graph.reach(roots, known)
        uses: dict[Node, int] = {}
        for node in order:
            for a in graph.arguments(node):
                uses[a] = uses.get(a, 0) + 1
        for root in roots:
            uses[root] = uses.get(root, 0) + 1
        lines = []
        for node in order:
            text = self._expression(node, known)
            key = graph.nodes[node]
            if key[0] == "const" or (key[0] == "mul" and uses.get(node) == 1 and node not in roots):
                known[node] = text  # products join the sum they go into: one fused operation
                continue
            lines.append(f"  const v t{node} = {text};")
            known[node] = f"t{node}"
        lines += [f"  {into}[{k}] = {known[root]};" for k, root in enumerate(roots)]
        return title + " {\n" + "\n".join(lines) + "\n}\n"

    def _expression(self, node: Node, known: dict[Node, str]) -> str:
        key = self.graph.nodes[node]
        if key[0] == "const":
            return _real(key[1])
        if key[0] == "table":
            return f"look_up(&table{key[1]}, {known[key[2]]})"
        arguments = [known[a] for a in key[1:]]
        if key[0] in SYMBOLS:
            return f"({arguments[0]} {SYMBOLS[key[0]]} {arguments[1]})"
        return f"v_{key[0]}({', '.join(arguments)})"


def _hoisted(graph: Graph, roots: Sequence[Node]) -> list[Node]:
    """Nodes without states that others with states, or the roots, read: worth computing once a step."""
    found: dict[Node, None] = {}
    plain = {"const", "p", "y"}
    for node in graph.reach(roots):
        if graph.states_of(node):
            for a in graph.arguments(node):
                if not graph.states_of(a) and graph.nodes[a][0] not in plain:
                    found[a] = None
    for root in roots:
        if not graph.states_of(root) and graph.nodes[root][0] not in plain:
            found[root] = None
    return list(found)


def _modal_tables(number: int, block: Modal, rows: Sequence[int]) -> str:
    text = _numbers(f"rate{number}", block.rate)
    moving = block.rate < 0.0
    text += _numbers(f"inverse_rate{number}", np.where(moving, 1.0 / np.where(moving, block.rate, 1.0), 0.0))
    if block.shares.shape[1]:
        text += _numbers(f"share{number}", block.shares)
    if rows:
        text += _numbers(f"vector{number}", block.vectors[[r - block.states.start for r in rows]])
    return text


def emit(structure: Structure) -> str:
    """The whole translation unit, to be compiled next to vecmath.h."""
    model, graph = structure.model, structure.model.graph
    layout = state_layout(structure)
    modal, banded, single = structure.modal, structure.banded, structure.single
    nonlinear = [
        (k, node)
        for k, (name, node) in enumerate(model.outputs.items())
        if name not in structure.linear_outputs
    ]

    # Rates: for each modal block its scale and drivers, then nodes, then single states; bands behind.
    rates: list[Node] = []
    modal_at: list[int] = []
    for block in modal:
        modal_at.append(len(rates))
        rates += [block.scale, *block.drivers]
    banded_at: list[int] = []
    for nodes in banded:
        banded_at.append(len(rates))
        rates += nodes.rhs
    single_at = [len(rates) + k for k in range(len(single))]
    rates += [one.rhs for one in single]
    bands: list[Node] = []
    band_at: list[int] = []
    for nodes in banded:
        band_at.append(len(bands))
        bands += [*nodes.low, *nodes.mid, *nodes.high]
    slope_at: list[int | None] = []
    for one in single:
        slope_at.append(len(bands) if one.slope is not None else None)
        bands += [one.slope] if one.slope is not None else []

    observed = [node for _, node in nonlinear]
    for_rates = set().union(*(graph.states_of(node) for node in (*rates, *bands))) if rates else set()
    for_outputs = set().union(*(graph.states_of(node) for node in observed))
    needed = sorted(for_rates | for_outputs)
    slot = {state: k for k, state in enumerate(needed)}
    hoisted = _hoisted(graph, [*rates, *bands, *observed])
    inputs = {graph.input(k): f"p[{k}]" for k in range(len(model.input_names))}
    leaves = {graph.state(state): f"y[{k}]" for state, k in slot.items()} | inputs
    inner = leaves | {node: f"h[{k}]" for k, node in enumerate(hoisted)}

    def rows_of(block: Modal, wanted: set[int]) -> list[int]:
        return [s for s in range(block.states.start, block.states.stop) if s in wanted]

    free = [not any(graph.states_of(n) for n in (b.scale, *b.drivers)) for b in modal]
    alone = [
        f and not for_rates & set(range(b.states.start, b.states.stop))
        for f, b in zip(free, modal, strict=True)
    ]
    inside = [k for k in range(len(modal)) if not alone[k]]

    parts = ['#include "vecmath.h"\n']
    used = {
        graph.nodes[n][1] for n in graph.reach([*rates, *bands, *observed]) if graph.nodes[n][0] == "table"
    }
    parts += [_table(number, graph.tables[number]) for number in sorted(used)]
    writer = _Writer(graph, inputs)
    take = "__attribute__((noinline)) static void"
    parts.append(writer.function(f"{take} hoist(const v *p, v *h)", hoisted, "h"))
    writer = _Writer(graph, inner)
    parts.append(writer.function(f"{take} observe(const v *y, const v *p, const v *h, v *o)", observed, "o"))
    parts.append(writer.function(f"{take} rates(const v *y, const v *p, const v *h, v *f)", rates, "f"))
    if bands:
        parts.append(writer.function(f"{take} slopes(const v *y, const v *p, const v *h, v *j)", bands, "j"))
    for number, block in enumerate(modal):
        every = rows_of(block, for_rates | for_outputs)
        parts.append(_modal_tables(number, block, every))
    parts.append(_fill(structure, layout, slot, "fill_outputs", for_outputs, for_rates | for_outputs))
    if not structure.exact:
        parts.append(_fill(structure, layout, slot, "fill_rates", for_rates, for_rates | for_outputs))
    parts.append(_outputs(structure, layout, nonlinear))
    for number, block in enumerate(modal):
        parts.append(_modal_step(number, block, corrected=not free[number]))
    sizes = {
        "NS": layout.n_rows,
        "NY": max(len(needed), 1),
        "NP": len(model.input_names),
        "NH": max(len(hoisted), 1),
        "NF": max(len(rates), 1),
        "NJ": max(len(bands), 1),
        "NO": len(model.outputs),
        "NN": max(len(nonlinear), 1),
    }
    parts.insert(1, "".join(f"enum {{ {name} = {size} }};\n" for name, size in sizes.items()))
    whole = "".join(
        f"    modal{k}(all(dt), f + {modal_at[k]}, s + {layout.modal[k][1].start}, "
        f"s + {layout.modal[k][1].start});\n"
        for k in range(len(modal))
        if alone[k]
    )
    stepping = (
        ""
        if structure.exact
        else _stepping(structure, layout, inside, free, modal_at, banded_at, single_at, band_at, slope_at)
    )
    loop = "" if structure.exact else "    march(s, p, h, dt, tolerance, y, f, &rounds);\n"
    parts.append(stepping)
    first_rates = "    rates(y, p, h, f);\n" if rates else ""
    parts.append(f"""
/* One step of dt for all vectors of cells; s0 and s1 may be the same. `first` and `last` get the outputs
 * at the start (new inputs, old state) and at the end; `first` may be null. Returns the rounds needed. */
int64_t advance(int64_t n, double dt, double tolerance, const v *p, const v *s0, v *s1, v *first, v *last) {{
  int64_t rounds = 0;
  (void)tolerance;
  for (int64_t b = 0; b < n; b++, p += NP, s0 += NS, s1 += NS, last += NO) {{
    v s[NS], y[NY], h[NH], f[NF];
    for (int k = 0; k < NS; k++) s[k] = s0[k];
    hoist(p, h);
    fill_outputs(s, y);
    if (first) {{ outputs(s, y, p, h, first); first += NO; }}
{first_rates if any(alone) else ""}{whole}{loop}    fill_outputs(s, y);
    outputs(s, y, p, h, last);
    for (int k = 0; k < NS; k++) s1[k] = s[k];
  }}
  return rounds;
}}

/* Outputs of all cells in their states. */
void look(int64_t n, const v *p, const v *s, v *last) {{
  for (int64_t b = 0; b < n; b++, p += NP, s += NS, last += NO) {{
    v y[NY], h[NH];
    hoist(p, h);
    fill_outputs(s, y);
    outputs(s, y, p, h, last);
  }}
}}

int64_t sizes(int64_t which) {{ const int64_t all_[] = {{W, NS, NP, NO}}; return all_[which]; }}
""")
    return "\n".join(parts)


def _fill(
    structure: Structure, layout: Layout, slot: dict[int, int], name: str, wanted: set[int], tabled: set[int]
) -> str:
    """Physical states from a cell's rows: modes summed up where a node is needed."""
    lines = [f"IN void {name}(const v *s, v *y) {{", "  (void)s; (void)y;"]
    for number, (block, (_, rows)) in enumerate(zip(structure.modal, layout.modal, strict=True)):
        own = range(block.states.start, block.states.stop)
        places = [state for state in own if state in tabled]
        for state in (s for s in places if s in wanted):
            row = places.index(state)
            lines.append(
                f"  {{ v a = all(0.0), b = all(0.0);\n"
                f"    for (int k = 0; k < {block.rate.size - 1}; k += 2) {{\n"
                f"      a += all(vector{number}[{row}][k]) * s[{rows.start} + k];\n"
                f"      b += all(vector{number}[{row}][k + 1]) * s[{rows.start} + k + 1]; }}\n"
                + (
                    f"    a += all(vector{number}[{row}][{block.rate.size - 1}]) * s[{rows.stop - 1}];\n"
                    if block.rate.size % 2
                    else ""
                )
                + f"    y[{slot[state]}] = a + b; }}"
            )
    for nodes, (_, rows) in zip(structure.banded, layout.banded, strict=True):
        for k, state in enumerate(range(nodes.states.start, nodes.states.stop)):
            if state in wanted:
                lines.append(f"  y[{slot[state]}] = s[{rows.start + k}];")
    for one, (_, row) in zip(structure.single, layout.single, strict=True):
        if one.state in wanted:
            lines.append(f"  y[{slot[one.state]}] = s[{row}];")
    return "\n".join([*lines, "}\n"])


def _outputs(structure: Structure, layout: Layout, nonlinear: list[tuple[int, Node]]) -> str:
    lines = ["IN void outputs(const v *s, const v *y, const v *p, const v *h, v *o) {", "  v n[NN];"]
    lines += ["  observe(y, p, h, n);"] + [f"  o[{k}] = n[{j}];" for j, (k, _) in enumerate(nonlinear)]
    for k, name in enumerate(structure.model.outputs):
        if name not in structure.linear_outputs:
            continue
        linear = structure.linear_outputs[name]
        terms: list[tuple[int, float]] = []
        for block, (_, rows) in zip(structure.modal, layout.modal, strict=True):
            weights = linear.weights[block.states] @ block.vectors
            keep = np.abs(weights) > 1e-13 * max(np.abs(linear.weights[block.states]).sum(), 1e-300)
            terms += [(rows.start + int(i), float(weights[i])) for i in np.flatnonzero(keep)]
        for nodes, (_, rows) in zip(structure.banded, layout.banded, strict=True):
            own = linear.weights[nodes.states]
            terms += [(rows.start + int(i), float(own[i])) for i in np.flatnonzero(own)]
        terms += [
            (row, float(linear.weights[one.state]))
            for one, (_, row) in zip(structure.single, layout.single, strict=True)
            if linear.weights[one.state]
        ]
        lines.append(f"  o[{k}] = {_real(linear.constant)};")
        lines += [f"  o[{k}] += {_real(weight)} * s[{row}];" for row, weight in terms]
    return "\n".join([*lines, "}\n"])


def _modal_step(number: int, block: Modal, corrected: bool) -> str:
    """Exact step of a modal block, and what a change of drivers and scale over the step adds."""
    n, n_drivers = block.rate.size, block.shares.shape[1]
    still = int((block.rate == 0.0).sum())

    def driven(f: str) -> str:
        terms = [f"all(share{number}[k][{d}]) * {f}[{1 + d}]" for d in range(n_drivers)]
        return " + ".join(terms) if terms else "all(0.0)"

    text = f"""
/* {block.name}: modes at f[0] times rate, drivers behind; from z to w, which may be the same. */
IN void modal{number}(v dt, const v *f, const v *z, v *w) {{
  const v per_scale = all(1.0) / f[0], scaled = f[0] * dt;
  for (int k = 0; k < {still}; k++) w[k] = z[k] + dt * ({driven("f")});
  for (int k = {still}; k < {n}; k++) {{
    v p, e;
    exp_parts(all(rate{number}[k]) * scaled, &p, &e);
    const v decay = e * p + e, less = e * p + (e - all(1.0));
    w[k] = decay * z[k] + less * (all(inverse_rate{number}[k]) * per_scale) * ({driven("f")});
  }}
}}
"""
    if corrected:
        change = (
            " + ".join(f"all(share{number}[k][{d}]) * (g[{1 + d}] - f[{1 + d}])" for d in range(n_drivers))
            or "all(0.0)"
        )
        text += f"""
IN v correct{number}(v dt, const v *f, const v *g, const v *z, v *w) {{
  const v per_scale = all(1.0) / f[0], scaled = f[0] * dt, more = g[0] - f[0];
  v sum = all(0.0);
  for (int k = 0; k < {still}; k++) {{
    const v e = all(0.5) * dt * ({change});
    w[k] = z[k] + e;
    sum += e * e;
  }}
  for (int k = {still}; k < {n}; k++) {{
    const v x = all(rate{number}[k]) * scaled;
    const v phi1 = v_expm1(x) * (all(inverse_rate{number}[k]) * per_scale);
    const v far = (phi1 - dt) * (all(inverse_rate{number}[k]) * per_scale) ;
    const v near = dt * dt * (all(0.5) + x * (all(1.0 / 6.0) + x * (all(1.0 / 24.0) + x * all(1.0 / 120.0))));
    const v phi2 = pick(x > all(-1e-2), near, far) / v_fmax(dt, all(1e-300));
    const v e = phi2 * ({change} + more * all(rate{number}[k]) * z[k]);
    w[k] = z[k] + e;
    sum += e * e;
  }}
  return sum;
}}
"""
    return text


def _stepping(
    structure: Structure,
    layout: Layout,
    inside: list[int],
    free: list[bool],
    modal_at: list[int],
    banded_at: list[int],
    single_at: list[int],
    band_at: list[int],
    slope_at: list[int | None],
) -> str:
    """`march`: the coupled blocks over dt, every cell with its own step length."""
    stage1, stage2 = [], []
    for k in inside:
        rows, at = layout.modal[k][1], modal_at[k]
        block = structure.modal[k]
        stage1.append(f"    modal{k}(dt, f + {at}, s + {rows.start}, a + {rows.start});")
        if free[k]:
            stage2.append(f"    for (int k = {rows.start}; k < {rows.stop}; k++) w[k] = a[k];")
        else:
            typical = float(np.abs(block.inverse @ structure.sample_y[block.states]).max())
            stage2.append(
                f"    {{ v e = correct{k}(dt, f + {at}, g + {at}, a + {rows.start}, w + {rows.start});\n"
                f"      worst = v_fmax(worst, e * ({_real(1.0 / typical**2)} * per_tolerance)); }}"
            )
    for k, (nodes, (_, rows)) in enumerate(zip(structure.banded, layout.banded, strict=True)):
        n, r, at, band = len(nodes.rhs), rows.start, banded_at[k], band_at[k]
        stage1.append(
            f"    factor({n}, gh, j + {band}, l + {r}, d + {r});\n"
            f"    for (int k = 0; k < {n}; k++) k1[{r} + k] = f[{at} + k];\n"
            f"    solve({n}, gh, j + {band + 2 * n}, l + {r}, d + {r}, k1 + {r});\n"
            f"    for (int k = {r}; k < {r + n}; k++) a[k] = s[k] + dt * k1[k];"
        )
        stage2.append(
            f"    for (int k = 0; k < {n}; k++) k2[k] = g[{at} + k] - all(2.0) * k1[{r} + k];\n"
            f"    solve({n}, gh, j + {band + 2 * n}, l + {r}, d + {r}, k2);\n"
            f"    for (int k = 0; k < {n}; k++) {{\n"
            f"      w[{r} + k] = s[{r} + k] + dt * (all(1.5) * k1[{r} + k] + all(0.5) * k2[k]);\n"
            f"      k2[k] = all(0.5) * dt * (k1[{r} + k] + k2[k]); }}\n"
            f"    solve({n}, gh, j + {band + 2 * n}, l + {r}, d + {r}, k2);\n"
            f"    {{ v sum = all(0.0);\n"
            f"      for (int k = 0; k < {n}; k++) {{\n"
            f"        const v e = k2[k] / (v_fabs(s[{r} + k]) + {_real(0.1 * nodes.typical)});\n"
            f"        sum += e * e; }}\n"
            f"      worst = v_fmax(worst, sum * ({_real(nodes.weight**2 / n)} * per_tolerance)); }}"
        )
    for k, (one, (_, row)) in enumerate(zip(structure.single, layout.single, strict=True)):
        at, slope = single_at[k], slope_at[k]
        implicit = f" / (all(1.0) - gh * j[{slope}])" if slope is not None else ""
        stage1.append(f"    k1[{row}] = f[{at}]{implicit};\n    a[{row}] = s[{row}] + dt * k1[{row}];")
        second = (
            f"(g[{at}] - all(2.0) * k1[{row}]){implicit}"
            if slope is not None
            else f"g[{at}] - all(2.0) * k1[{row}]"
        )
        stage2.append(
            f"    {{ const v q = {second};\n"
            f"      w[{row}] = s[{row}] + dt * (all(1.5) * k1[{row}] + all(0.5) * q);\n"
            f"      const v e = all(0.5) * dt * (k1[{row}] + q) / "
            f"({_real(SINGLE_SHARE)} * (v_fabs(s[{row}]) + {_real(0.1 * one.typical)}));\n"
            f"      worst = v_fmax(worst, e * e * per_tolerance); }}"
        )
    n_rows = layout.n_rows - 1
    moving = sorted(
        {r for k in inside for r in range(layout.modal[k][1].start, layout.modal[k][1].stop)}
        | {r for _, rows in layout.banded for r in range(rows.start, rows.stop)}
        | {row for _, row in layout.single}
    )
    join = "\n"
    starts = [row for row in moving if row - 1 not in moving]
    ends = [row + 1 for row in moving if row + 1 not in moving]
    keeping = join.join(
        f"    for (int k = {first}; k < {last}; k++) "
        "s[k] = pick(lost, all(NAN), pick(going & fine, w[k], s[k]));"
        for first, last in zip(starts, ends, strict=True)
    )
    unfinished = join.join(
        f"  for (int k = {first}; k < {last}; k++) s[k] = pick(left > all(0.0), all(NAN), s[k]);"
        for first, last in zip(starts, ends, strict=True)
    )
    has_bands = bool(structure.banded) or any(at is not None for at in slope_at)
    return f"""
/* I - gh J as L (l below the diagonal) and the reciprocal d of the diagonal of U; bands low, mid, high. */
IN void factor(int n, v gh, const v *band, v *l, v *d) {{
  const v *low = band, *mid = band + n, *high = band + 2 * n;
  d[0] = all(1.0) / (all(1.0) - gh * mid[0]);
  for (int k = 1; k < n; k++) {{
    const v below = gh * low[k], above = gh * high[k - 1];
    l[k] = below * d[k - 1];
    d[k] = all(1.0) / ((all(1.0) - gh * mid[k]) - l[k] * above);
  }}
}}
IN void solve(int n, v gh, const v *high, const v *l, const v *d, v *x) {{
  for (int k = 1; k < n; k++) x[k] = x[k] + l[k] * x[k - 1];
  x[n - 1] = x[n - 1] * d[n - 1];
  for (int k = n - 2; k >= 0; k--) x[k] = (x[k] + gh * high[k] * x[k + 1]) * d[k];
}}

/* The coupled rows of the state over dt; s[{n_rows}] is the step length each cell last found good. */
__attribute__((noinline)) static void march(
    v *s, const v *p, const v *h, double whole, double tolerance, v *y, v *f, int64_t *rounds) {{
  v a[NS], w[NS], k1[NS], k2[NS], g[NF], l[NS], d[NS], j[NJ];
  (void)k1; (void)k2; (void)l; (void)d; (void)j;
  const v per_tolerance = all(1.0 / (tolerance * tolerance));
  v left = all(whole), good = s[{n_rows}];
  for (int round = 0; round < 20000; round++) {{
    const v dt = v_fmin(left, good);
    const v gh = all({GAMMA.hex()}) * dt;
    (void)gh;
    *rounds += 1;
    fill_rates(s, y);
    rates(y, p, h, f);
{"    slopes(y, p, h, j);" if has_bands else ""}
{join.join(stage1)}
    fill_rates(a, y);
    rates(y, p, h, g);
    v worst = all(1e-4);
{join.join(stage2)}
    /* Not a number counts as too large. A cell that fails even a billionth of the step is lost and says so:
     * its state becomes not a number, which the caller finds in the outputs. */
    const vi going = dt > all(0.0), fine = worst <= all(1.0);
    const vi lost = going & ~fine & (dt <= all(1e-9 * whole));
    const v factor_ = v_fmin(v_fmax(all(0.9) / v_sqrt(v_sqrt(worst)), all(0.2)), all(4.0));
    const v next = pick(worst == worst, factor_, all(0.2)) * dt;
{keeping}
    /* A step cut short by the end of the interval says nothing against the longer one. */
    good = pick(going, pick(fine & (dt < good), v_fmax(good, next), next), good);
    good = v_fmin(v_fmax(good, all(1e-9 * whole)), all(1e6));
    left = pick(fine, left - dt, left);
    left = pick(lost | (left <= all(1e-12 * whole)), all(0.0), left);
    int open = 0;
    for (int k = 0; k < W; k++) open |= left[k] > 0.0;
    if (!open) break;
  }}
{unfinished}
  s[{n_rows}] = good;
}}
"""
