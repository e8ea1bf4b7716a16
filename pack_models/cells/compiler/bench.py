"""Speed of compiled cell models beside PyBaMM's `Simulation.step`, and how far it is from the limits.

    python -m pack_models.cells.compiler.bench

CPU time of this process, medians; compiled and PyBaMM steps alternate in one run. Every cell has its own
current, drawn anew each step, its own temperature and state of charge. The limits are estimates: memory
from the bytes a step must move and the measured speed of a copy of the same size, arithmetic from the vector
operations of the generated code (a division counts as 8, an exponential as 22) and the measured rate of
independent multiply-adds.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pack_models.catalogue import pack
from pack_models.cells.compiled_cell import CompiledBank
from pack_models.cells.compiler import build
from pack_models.cells.compiler.compiled import WIDTH, CompiledModel, compiled
from pack_models.cells.compiler.engine import CompiledCells
from pack_models.cells.compiler.source import MODELS, discretise, parameter_set
from pack_models.cells.compiler.structure import analyse
from pack_models.cells.pybamm_engine import load_pybamm

FloatArray = NDArray[np.float64]

PARAMETERS = "Chen2020"
SIZES = (1_000, 10_000, 100_000)
# Vector instructions of one operation; divisions and roots by their throughput.
COST = {"const": 0, "y": 0, "p": 0, "table": 40, "div": 8, "sqrt": 10, "exp": 22, "log": 32, "tanh": 40,
        "sinh": 40, "cosh": 36, "asinh": 46, "pow": 56, "expm1": 22, "log1p": 33}  # fmt: skip
PER_MODE = 26  # exponential, decay and driver of a mode
PER_NODE = 40  # factor, three solves and the error of a node of a banded block


def _timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def make_cells(model: CompiledModel, n: int) -> tuple[CompiledCells, FloatArray, FloatArray]:
    """N unlike cells, (16, n) currents and (n,) temperatures."""
    draw = np.random.default_rng(7)
    amps = model.window.nominal_Ah * draw.uniform(-1.0, 1.0, (16, n))
    kelvin = draw.uniform(293.0, 303.0, n)
    return CompiledCells(model, draw.uniform(0.4, 0.7, n), kelvin), amps, kelvin


def step_s(model: CompiledModel, n: int, dt_s: float, repeats: int = 15) -> float:
    """Median CPU seconds of one step of n cells, outputs at its start and end included."""
    cells, amps, kelvin = make_cells(model, n)
    number = iter(range(10**9))

    def work() -> None:
        for _ in range(max(1, 20_000 // n)):
            cells.step(amps[next(number) % 16], kelvin, dt_s)

    work()
    return float(np.median([_timed(work) for _ in range(repeats)])) / max(1, 20_000 // n)


def pybamm_stepper(model: str) -> Callable[[float], None]:
    """`Simulation.step` of one cell by dt, voltage through output_variables: PyBaMM at its cheapest."""
    pybamm = load_pybamm()
    values = pybamm.ParameterValues(PARAMETERS)
    values.set_initial_state(0.6)
    values["Current function [A]"] = "[input]"
    simulation = pybamm.Simulation(
        getattr(pybamm.lithium_ion, MODELS[model])(),
        parameter_values=values,
        solver=pybamm.IDAKLUSolver(output_variables=["Terminal voltage [V]"]),
    )
    draw = np.random.default_rng(8)

    def work(dt_s: float) -> None:
        amps = float(draw.uniform(-5.0, 5.0))
        simulation.step(dt_s, save=False, inputs={"Current function [A]": amps})

    return work


def vector_operations(model: str) -> float:
    """Vector instructions of one step of one vector of cells, one inner step where it has them."""
    structure = analyse(discretise(parameter_set(PARAMETERS, model)))
    graph = structure.model.graph

    def cost(roots: list[int]) -> float:
        return float(sum(COST.get(graph.nodes[node][0], 1) for node in graph.reach(roots)))

    nonlinear = [
        node for name, node in structure.model.outputs.items() if name not in structure.linear_outputs
    ]
    total = 2.0 * cost(nonlinear)
    for block in structure.modal:
        seen = set().union(*(graph.states_of(node) for node in nonlinear)) & set(
            range(block.states.start, block.states.stop)
        )
        total += block.rate.size * (PER_MODE + 2 * len(seen))
    for nodes in structure.banded:
        total += 2.0 * cost(nodes.rhs) + cost([*nodes.rhs, *nodes.low, *nodes.mid, *nodes.high])
        total += PER_NODE * len(nodes.rhs)
    return total


def multiply_adds_per_s(rounds: int = 2_000_000) -> float:
    """Vector multiply-adds (of eight numbers) a second, ten independent chains."""
    names = [f"a{k}" for k in range(10)]
    text = (
        '#include "vecmath.h"\nvoid chains(int64_t n, v *x) {\n  v m = x[10], c = x[11];\n'
        + "".join(f"  v {a} = x[{k}];\n" for k, a in enumerate(names))
        + "  for (int64_t i = 0; i < n; i++) {"
        + "".join(f" {a} = {a} * m + c;" for a in names)
        + " }\n"
        + "".join(f"  x[{k}] = {a};\n" for k, a in enumerate(names))
        + "}\n"
    )
    chains = ctypes.CDLL(str(build.shared_object(text))).chains
    chains.argtypes, chains.restype = [ctypes.c_int64, ctypes.c_void_p], None
    raw = np.full(12 * WIDTH + 8, 0.5)
    at = raw.ctypes.data + (-raw.ctypes.data) % 64
    return 10.0 * rounds / min(_timed(lambda: chains(rounds, at)) for _ in range(5))


def copy_bytes_per_s(size: int) -> float:
    """Bytes read and written a second by a copy between two arrays that together have this size."""
    one = np.ones(max(size // 16, 1024))
    other = np.empty_like(one)
    repeats = max(1, 50_000_000 // one.nbytes)

    def work() -> None:
        for _ in range(repeats):
            np.copyto(other, one)

    work()
    return 2.0 * one.nbytes * repeats / min(_timed(work) for _ in range(5))


def bank_s(model: str, design: str, n_packs: int, dt_s: float) -> tuple[int, float]:
    """Cells, and CPU seconds per cell-step of forecast and step as the world does them, sharing solved."""
    sheet = pack(design)
    n = n_packs * sheet.n_cells
    draw = np.random.default_rng(7)
    bank = CompiledBank.from_pack(
        sheet, n_packs, 0.6, draw.normal(1.0, 0.01, n), draw.normal(1.0, 0.04, n), model=model
    )
    kelvin = np.full(n, 298.15)
    amps = sheet.capacity_Ah * draw.uniform(-0.5, 0.5, (16, n_packs))
    number = iter(range(10**9))

    def work() -> None:
        bank.thevenin(kelvin, dt_s)
        bank.step(amps[next(number) % 16], kelvin, dt_s)

    work()
    return n, float(np.median([_timed(work) for _ in range(9)])) / n


def report() -> None:
    """Print everything."""
    adds = multiply_adds_per_s()
    print(f"compiled models of {PARAMETERS}, own current of every cell, per core ({build.host_cpu()})")
    for name in MODELS:
        model = compiled(parameter_set(PARAMETERS, name))
        pybamm_step = pybamm_stepper(name)
        pybamm_step(1.0)
        for dt_s in (1.0, 60.0):
            for n in SIZES if dt_s == 1.0 else SIZES[1:2]:
                own_s = step_s(model, n, dt_s)
                plain_s = float(np.median([_timed(lambda: pybamm_step(dt_s)) for _ in range(25)]))  # noqa: B023
                print(
                    f"  {name:4} {n:8,} cells {dt_s:3.0f} s: {1e9 * own_s / n:6.0f} ns, "
                    f"{n / own_s:9.2e} cell-steps/s; Simulation.step {1e3 * plain_s:5.2f} ms, "
                    f"{plain_s * n / own_s:8,.0f} times"
                )
        n = SIZES[1]
        own_s = step_s(model, n, 1.0) / n
        moved = 8.0 * (2 * model.n_rows + len(model.input_names) + 2 * len(model.output_names))
        resident = n * 8.0 * (2 * model.n_rows + len(model.input_names) + 2 * len(model.output_names))
        memory_s = moved / copy_bytes_per_s(int(resident))
        arithmetic_s = vector_operations(name) / WIDTH / adds
        print(
            f"       limits at {n:,} cells, estimated: memory {moved:.0f} B, {1e9 * memory_s:.0f} ns "
            f"({100 * memory_s / own_s:.0f} % of the time taken), arithmetic {1e9 * arithmetic_s:.0f} ns "
            f"({100 * arithmetic_s / own_s:.0f} %)"
        )
        for design, n_packs in (("bus_14s2p", 1), ("tower_112s4p", 4)):
            for dt_s in (1.0, 60.0):
                cells, per_cell = bank_s(name, design, n_packs, dt_s)
                print(
                    f"       bank {n_packs} x {design}, {cells:,} cells, {dt_s:.0f} s, forecast and sharing: "
                    f"{1e6 * per_cell:.2f} us per cell-step"
                )


if __name__ == "__main__":
    report()
