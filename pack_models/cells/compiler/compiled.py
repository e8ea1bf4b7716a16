"""A compiled model and what is known about it without PyBaMM: arrays, names, the loaded kernel.

Built once per content: of the parameters and options (named sets and BPX files, found again without PyBaMM
being imported) and of the generated code (everything else).

    model = compiled(parameter_set("Chen2020", "spme"))
    model.summary          # which parts are exact modes, which are stepped implicitly
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pack_models.cells.compiler import build
from pack_models.cells.compiler.emit import emit, state_layout
from pack_models.cells.compiler.source import ModelError, Source, Window, discretise
from pack_models.cells.compiler.structure import Structure, analyse
from pack_models.compiled import cache_folder

FloatArray = NDArray[np.float64]

WIDTH = 8  # cells of one vector, W of vecmath.h
CODE = ("graph.py", "source.py", "structure.py", "emit.py", "compiled.py", "vecmath.h")


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """Everything needed to advance cells.

    to_rows : (n_rows, n_states) states of the discretised model → rows in memory · to_states the way back ·
    start, start_per_input : states at rest = start + start_per_input @ inputs · exact : a step of any length
    is exact
    """

    label: str
    model: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    defaults: FloatArray
    maximum_mol_per_m3: tuple[float, float]
    window: Window
    exact: bool
    summary: dict[str, str]
    to_rows: FloatArray
    to_states: FloatArray
    start: FloatArray
    start_per_input: FloatArray
    code: str = field(repr=False)
    library: ctypes.CDLL = field(repr=False)

    @property
    def n_rows(self) -> int:
        """Numbers of one cell's state."""
        return int(self.to_rows.shape[0])


ARRAYS = ("defaults", "to_rows", "to_states", "start", "start_per_input")
TEXTS = ("label", "model", "input_names", "output_names", "maximum_mol_per_m3", "exact", "summary", "code")


def _figures(structure: Structure) -> dict[str, Any]:
    """The arrays of a CompiledModel from the analysis."""
    model, layout = structure.model, state_layout(structure)
    n = len(model.rhs)
    to_rows, to_states = np.zeros((layout.n_rows, n)), np.zeros((n, layout.n_rows))
    for block, (_, rows) in zip(structure.modal, layout.modal, strict=True):
        to_rows[rows, block.states], to_states[block.states, rows] = block.inverse, block.vectors
    for nodes, (_, rows) in zip(structure.banded, layout.banded, strict=True):
        to_rows[rows, nodes.states] = to_states[nodes.states, rows] = np.eye(len(nodes.rhs))
    for one, (_, row) in zip(structure.single, layout.single, strict=True):
        to_rows[row, one.state] = to_states[one.state, row] = 1.0
    # The states at rest are affine in the inputs (uniform concentrations); confirmed on random inputs.
    draw = np.random.default_rng(23)
    p = model.defaults[:, None] * np.concatenate(
        [np.ones((model.defaults.size, 1)), draw.uniform(0.9, 1.1, (model.defaults.size, 40))], axis=1
    )
    y = model.graph.evaluate(model.initial, np.zeros((n, p.shape[1])), p)
    scale = np.where(model.defaults == 0.0, 1.0, model.defaults)
    design = np.vstack([np.ones(p.shape[1]), p / scale[:, None]]).T
    fit = np.linalg.lstsq(design, y.T, rcond=None)[0]
    fit[np.abs(fit) < 1e-9 * np.maximum(np.abs(y).max(axis=1), 1e-300)] = 0.0
    left = np.abs(design @ fit - y.T).max()
    if left > 1e-8 * np.abs(y).max():
        raise ModelError(
            f"{model.label}: the initial state is not affine in the inputs; fix those parameters, or choose "
            "the PyBaMM rung of this model"
        )
    return {
        "to_rows": to_rows,
        "to_states": to_states,
        "start": fit[0],
        "start_per_input": (fit[1:] / scale[:, None]).T,
    }


def _index(key: str) -> Path:
    folder = Path(__file__).parent
    sources = [(folder / name).read_text(encoding="utf-8") for name in CODE]
    version = importlib.metadata.version("pybamm")
    return cache_folder() / f"cell-model-{build.content_key(key, version, *sources)}.npz"


def _load(path: Path) -> CompiledModel | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as stored:
        text = json.loads(str(stored["text"]))
        arrays = {name: stored[name] for name in ARRAYS}
    for name in ("input_names", "output_names", "maximum_mol_per_m3"):
        text[name] = tuple(text[name])
    window = Window(**text.pop("window"))
    return CompiledModel(**text, **arrays, window=window, library=build.library(text["code"]))


def _store(path: Path, model: CompiledModel) -> None:
    text = {name: getattr(model, name) for name in TEXTS} | {"window": asdict(model.window)}
    arrays: dict[str, Any] = {name: getattr(model, name) for name in ARRAYS}
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
        np.savez_compressed(file, text=np.array(json.dumps(text)), **arrays)
    os.replace(file.name, path)


def compiled(source: Source) -> CompiledModel:
    """The compiled model of a source, from the cache where it was built before."""
    index = _index(source.key) if source.key is not None else None
    known = _load(index) if index is not None else None
    if known is not None:
        return known
    structure = analyse(discretise(source))
    found, text = structure.model, emit(structure)
    library = build.library(text)
    model = CompiledModel(
        label=found.label,
        model=found.model,
        input_names=tuple(found.input_names),
        output_names=tuple(found.outputs),
        defaults=found.defaults,
        maximum_mol_per_m3=found.maximum_mol_per_m3,
        window=found.window,
        exact=structure.exact,
        summary=structure.summary(),
        code=text,
        library=library,
        **_figures(structure),
    )
    if [library.sizes(k) for k in range(4)] != [
        WIDTH,
        model.n_rows,
        len(model.input_names),
        len(model.output_names),
    ]:
        raise AssertionError("the generated code and its description disagree")
    if index is not None:
        _store(index, model)
    return model


@lru_cache(maxsize=16)
def compiled_set(name: str, model: str) -> CompiledModel:
    """The compiled isothermal model of a named parameter set; shared, since it holds no state."""
    from pack_models.cells.compiler.source import parameter_set

    return compiled(parameter_set(name, model))
