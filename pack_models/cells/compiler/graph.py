"""Scalar operation graph of a discretised model: CasADi's instructions, numbered by value.

PyBaMM writes a discretised model as vector expressions; CasADi expands them into scalar instructions. Here
every instruction becomes a node that is shared by all that compute the same thing (constants folded, x * 1
and x + 0 dropped, commutative arguments sorted), so that an Arrhenius factor that PyBaMM broadcasts over
sixty nodes is computed once. The graph also says what every node depends on, which is what the analysis
of structure and the generator of C ask.

    graph = Graph()
    f = graph.add(casadi_function, [y_nodes, p_nodes])      # nodes of the outputs
    graph.states_of(f[0][3])                                # frozenset of the states it depends on
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

Node = int
COMMUTATIVE = {"add", "mul", "fmin", "fmax", "hypot", "eq", "ne", "and", "or"}


class UnsupportedOperationError(ValueError):
    """The model uses an operation the compiler has no vector code for."""


@dataclass(frozen=True, eq=False)
class Table:
    """A piecewise cubic of one variable, x in `knots`; the first and last piece go on outside.

    knots : (n + 1,) increasing · pieces : (n, 4) coefficients of (x - knot)^0 … ^3
    """

    knots: FloatArray
    pieces: FloatArray

    def derivative(self) -> Table:
        """The table of the slope."""
        slope = np.zeros_like(self.pieces)
        slope[:, :3] = self.pieces[:, 1:] * np.array([1.0, 2.0, 3.0])
        return Table(self.knots, slope)

    def __call__(self, x: FloatArray) -> FloatArray:
        at = np.clip(np.searchsorted(self.knots, x, side="right") - 1, 0, self.pieces.shape[0] - 1)
        dx = np.asarray(x) - self.knots[at]
        c = self.pieces[at]
        return np.asarray(c[..., 0] + dx * (c[..., 1] + dx * (c[..., 2] + dx * c[..., 3])))


def _unary() -> dict[str, Callable[[Any], Any]]:
    return {
        "neg": lambda a: -a,
        "exp": np.exp,
        "log": np.log,
        "log1p": np.log1p,
        "expm1": np.expm1,
        "sqrt": np.sqrt,
        "sin": np.sin,
        "cos": np.cos,
        "tan": np.tan,
        "atan": np.arctan,
        "asin": np.arcsin,
        "acos": np.arccos,
        "sinh": np.sinh,
        "cosh": np.cosh,
        "tanh": np.tanh,
        "asinh": np.arcsinh,
        "floor": np.floor,
        "ceil": np.ceil,
        "fabs": np.abs,
        "sign": np.sign,
        "not": lambda a: np.where(np.asarray(a) == 0.0, 1.0, 0.0),
        "erf": np.vectorize(math.erf),
    }


def _binary() -> dict[str, Callable[[Any, Any], Any]]:
    return {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": np.divide,
        "pow": np.power,
        "fmin": np.minimum,
        "fmax": np.maximum,
        "hypot": lambda a, b: np.sqrt(a * a + b * b),
        "lt": lambda a, b: np.where(a < b, 1.0, 0.0),
        "le": lambda a, b: np.where(a <= b, 1.0, 0.0),
        "eq": lambda a, b: np.where(a == b, 1.0, 0.0),
        "ne": lambda a, b: np.where(a != b, 1.0, 0.0),
        "and": lambda a, b: np.where((a != 0.0) & (b != 0.0), 1.0, 0.0),
        "or": lambda a, b: np.where((a != 0.0) | (b != 0.0), 1.0, 0.0),
        "if_else_zero": lambda a, b: np.where(a != 0.0, b, 0.0),
        "copysign": np.copysign,
        "fmod": np.fmod,
    }


UNARY, BINARY = _unary(), _binary()
# CasADi's names where they differ from ours.
ALIAS = {"constpow": "pow"}


class Graph:
    """Nodes `(operation, arguments…)`; a node's number is larger than those of its arguments.

    Leaves are `("const", value)`, `("y", i)` and `("p", i)`; `("table", t, x)` looks x up in `tables[t]`.
    """

    def __init__(self) -> None:
        self.nodes: list[tuple] = []
        self.tables: list[Table] = []
        self._number: dict[tuple, Node] = {}
        self._states: list[frozenset[int]] = []
        self._inputs: list[frozenset[int]] = []

    # ---- building --------------------------------------------------------------------------------

    def _node(self, key: tuple) -> Node:
        found = self._number.get(key)
        if found is not None:
            return found
        number = len(self.nodes)
        self._number[key] = number
        self.nodes.append(key)
        arguments = self.arguments(number)
        states = frozenset((key[1],)) if key[0] == "y" else frozenset()
        inputs = frozenset((key[1],)) if key[0] == "p" else frozenset()
        for a in arguments:
            states, inputs = states | self._states[a], inputs | self._inputs[a]
        self._states.append(states)
        self._inputs.append(inputs)
        return number

    def const(self, value: float) -> Node:
        """A constant; -0.0 counts as 0.0."""
        return self._node(("const", float(value) + 0.0))

    def state(self, index: int) -> Node:
        """State number `index` in the order of the discretised model."""
        return self._node(("y", index))

    def input(self, index: int) -> Node:
        """Input number `index`."""
        return self._node(("p", index))

    def look_up(self, table: int, x: Node) -> Node:
        """The value of a table at a node."""
        if self.is_const(x):
            return self.const(float(self.tables[table](np.array(self.value(x)))))
        return self._node(("table", table, x))

    def is_const(self, node: Node) -> bool:
        return self.nodes[node][0] == "const"

    def value(self, node: Node) -> float:
        """Value of a constant node."""
        return float(self.nodes[node][1])

    def arguments(self, node: Node) -> tuple[Node, ...]:
        """Nodes this one is computed from."""
        key = self.nodes[node]
        if key[0] in ("const", "y", "p"):
            return ()
        return (key[2],) if key[0] == "table" else key[1:]

    def apply(self, operation: str, *arguments: Node) -> Node:
        """The node of an operation on nodes, simplified."""
        if all(self.is_const(a) for a in arguments):
            with np.errstate(all="ignore"):
                values = [self.value(a) for a in arguments]
                table = UNARY if len(values) == 1 else BINARY
                return self.const(float(table[operation](*values)))  # type: ignore[operator]
        if operation in COMMUTATIVE:
            arguments = tuple(sorted(arguments))
        simple = self._simplified(operation, arguments)
        return simple if simple is not None else self._node((operation, *arguments))

    def _is(self, node: Node, value: float) -> bool:
        return self.is_const(node) and self.value(node) == value

    def _simplified(self, operation: str, arguments: tuple[Node, ...]) -> Node | None:
        """Identities that hold for all finite numbers."""
        if len(arguments) == 1:
            return None
        a, b = arguments
        if operation == "mul":
            for one, other in ((a, b), (b, a)):  # constants of a product gather in one
                if self.is_const(one) and self.nodes[other][0] == "mul":
                    for inner, rest in (self.nodes[other][1:], self.nodes[other][:0:-1]):
                        if self.is_const(inner):
                            return self.apply("mul", self.const(self.value(one) * self.value(inner)), rest)
            if self._is(a, 0.0) or self._is(b, 0.0):
                return self.const(0.0)
            if self._is(a, 1.0):
                return b
            if self._is(b, 1.0):
                return a
            for one, other in ((a, b), (b, a)):
                if self._is(one, -1.0):
                    return self.apply("neg", other)
        elif operation == "add":
            if self._is(a, 0.0):
                return b
            if self._is(b, 0.0):
                return a
            for one, other in ((a, b), (b, a)):
                if self.nodes[other][0] == "neg":
                    return self.apply("sub", one, self.nodes[other][1])
        elif operation == "sub":
            if a == b:
                return self.const(0.0)
            if self._is(b, 0.0):
                return a
            if self._is(a, 0.0):
                return self.apply("neg", b)
        elif operation == "div":
            if self._is(a, 0.0):
                return self.const(0.0)
            if self.is_const(b):  # a multiplication is several times cheaper
                return self.apply("mul", a, self.const(1.0 / self.value(b)))
            if not self._is(a, 1.0):  # many quotients have the same denominator: divide once
                return self.apply("mul", a, self.apply("div", self.const(1.0), b))
        elif operation == "pow" and self.is_const(b):
            return self._power(a, self.value(b))
        elif operation in ("fmin", "fmax", "and", "or") and a == b:
            return a
        elif operation == "hypot":
            return self.apply("sqrt", self.apply("add", self.apply("mul", a, a), self.apply("mul", b, b)))
        elif operation == "if_else_zero" and self.is_const(a):
            return b if self.value(a) != 0.0 else self.const(0.0)
        return None

    def _power(self, base: Node, exponent: float) -> Node | None:
        if exponent == 0.0:
            return self.const(1.0)
        if exponent < 0.0:
            return self.apply("div", self.const(1.0), self.apply("pow", base, self.const(-exponent)))
        if exponent == 1.0:
            return base
        if exponent == 0.5:
            return self.apply("sqrt", base)
        whole = math.floor(exponent)
        if exponent - whole in (0.0, 0.5) and whole <= 8:
            half = self.apply("pow", base, self.const(whole // 2))
            square = self.apply("mul", half, half)
            product = self.apply("mul", square, base) if whole % 2 else square
            return product if exponent == whole else self.apply("mul", product, self.apply("sqrt", base))
        return None

    def add(self, function: Any, arguments: Sequence[Sequence[Node]]) -> list[list[Node]]:
        """Run an expanded CasADi function on nodes; dense lists of nodes, one for each output."""
        import casadi

        names = _operation_names()
        zero = self.const(0.0)
        results = [[zero] * function.nnz_out(k) for k in range(function.n_out())]
        work: dict[int, Node] = {}
        for k in range(function.n_instructions()):
            code = function.instruction_id(k)
            into, args = function.instruction_output(k), function.instruction_input(k)
            if code == casadi.OP_CONST:
                work[into[0]] = self.const(function.instruction_constant(k))
            elif code == casadi.OP_INPUT:
                work[into[0]] = arguments[args[0]][args[1]]
            elif code == casadi.OP_OUTPUT:
                results[into[0]][into[1]] = work[args[0]]
            else:
                work[into[0]] = self._instruction(names.get(code, str(code)), [work[a] for a in args])
        return results

    def _instruction(self, name: str, arguments: list[Node]) -> Node:
        name = ALIAS.get(name, name)
        if name == "sq":
            return self.apply("mul", arguments[0], arguments[0])
        if name == "twice":
            return self.apply("mul", self.const(2.0), arguments[0])
        if name == "inv":
            return self.apply("div", self.const(1.0), arguments[0])
        if name in ("assign", "lift"):
            return arguments[0]
        known = UNARY if len(arguments) == 1 else BINARY
        if name not in known:
            raise UnsupportedOperationError(
                f"the model uses the operation {name!r}, for which the compiler has no vector code; "
                "choose spme_pybamm or dfn, which run PyBaMM's own solver"
            )
        return self.apply(name, *arguments)

    # ---- asking ----------------------------------------------------------------------------------

    def states_of(self, node: Node) -> frozenset[int]:
        """States a node depends on."""
        return self._states[node]

    def inputs_of(self, node: Node) -> frozenset[int]:
        """Inputs a node depends on."""
        return self._inputs[node]

    def reach(self, roots: Iterable[Node], known: Iterable[Node] = ()) -> list[Node]:
        """All nodes the roots are computed from, themselves included, in an order to compute them.

        Depth first, so that a value is computed shortly before it is used. Nodes already `known` are
        left out with all that only they need.
        """
        done: set[Node] = set(known)
        order: list[Node] = []
        for root in roots:
            stack = [(root, False)]
            while stack:
                node, expanded = stack.pop()
                if node in done:
                    continue
                if expanded:
                    done.add(node)
                    order.append(node)
                else:
                    stack.append((node, True))
                    stack.extend((a, False) for a in reversed(self.arguments(node)) if a not in done)
        return order

    def substitute(self, roots: Sequence[Node], replace: dict[Node, Node]) -> list[Node]:
        """The roots with some nodes replaced by others."""
        new = dict(replace)
        for node in self.reach(roots):
            if node in new:
                continue
            key = self.nodes[node]
            if key[0] in ("const", "y", "p"):
                new[node] = node
            elif key[0] == "table":
                new[node] = self.look_up(key[1], new[key[2]])
            else:
                new[node] = self.apply(key[0], *(new[a] for a in key[1:]))
        return [new[root] for root in roots]

    def evaluate(self, roots: Sequence[Node], y: FloatArray, p: FloatArray) -> FloatArray:
        """(n_roots, n) values for y (n_states, n) and p (n_inputs, n): the model in numpy, for analysis."""
        value: dict[Node, Any] = {}
        n = y.shape[1]
        with np.errstate(all="ignore"):
            for node in self.reach(roots):
                key = self.nodes[node]
                if key[0] == "const":
                    value[node] = key[1]
                elif key[0] == "y":
                    value[node] = y[key[1]]
                elif key[0] == "p":
                    value[node] = p[key[1]]
                elif key[0] == "table":
                    value[node] = self.tables[key[1]](value[key[2]])
                elif len(key) == 2:
                    value[node] = UNARY[key[0]](value[key[1]])
                else:
                    value[node] = BINARY[key[0]](value[key[1]], value[key[2]])
        return np.stack([np.broadcast_to(np.asarray(value[root], dtype=float), (n,)) for root in roots])


def _operation_names() -> dict[int, str]:
    import casadi

    return {getattr(casadi, name): name[3:].lower() for name in dir(casadi) if name.startswith("OP_")}
