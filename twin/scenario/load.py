"""The door: a scenario YAML → `Scenario`, frozen, typed, SI; or a `ScenarioError` with every mistake.

    from twin.scenario.load import load
    scenario = load("scenarios/first_light.yaml", known, overrides=["sites[home].racks[0].count=4"], seed=3)

Layers, later ones win: defaults of schema.py < `include:` files (in their order) < the file < `--set`.
Mappings are merged key by key, lists are replaced as a whole. `known` brings the names that exist, so no
engine is imported here; profile data are read later (profiles.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twin.scenario.build import Builder
from twin.scenario.build_profile import read_profile
from twin.scenario.checks import check
from twin.scenario.errors import Problem, ScenarioError
from twin.scenario.overrides import apply_overrides
from twin.scenario.schema import Known, Scenario
from twin.scenario.source import (
    Mapping,
    Node,
    Scalar,
    SourceError,
    Span,
    kind,
    merge,
    read_file,
    read_text,
    relative_label,
)
from twin.scenario.source import Sequence as SequenceNode

INCLUDE = "include"
MOST_INCLUDES = 20


def load(path: str | Path, known: Known, overrides: Sequence[str] = (), seed: int | None = None) -> Scenario:
    """Read a scenario file; `overrides` are 'path=value', `seed` replaces seed. Raises ScenarioError."""
    path = Path(path)
    label = str(path)
    try:
        _, tree = read_file(path, label)
        tree = _with_includes(tree, path, label, [str(path.resolve())], [0])
    except SourceError as error:
        raise ScenarioError(_in_order(error.problems, label), label) from None
    return _finish(tree, known, overrides, seed, label, path.stem, path.parent)


def loads(
    text: str,
    known: Known,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    *,
    label: str = "scenario",
    folder: Path = Path(),
) -> Scenario:
    """The same from a text; `folder` is where its relative file names start."""
    try:
        _, tree = read_text(text, label, folder)
        tree = _with_includes(tree, folder / label, label, [], [0])
    except SourceError as error:
        raise ScenarioError(_in_order(error.problems, label), label) from None
    return _finish(tree, known, overrides, seed, label, Path(label).stem, folder)


def _finish(
    tree: Mapping,
    known: Known,
    overrides: Sequence[str],
    seed: int | None,
    label: str,
    name: str,
    folder: Path,
) -> Scenario:
    builder = Builder(known, folder, {"profile": read_profile})
    tree = apply_overrides(tree, list(overrides), builder)
    if seed is not None:
        tree = apply_overrides(tree, [f"seed={seed}"], builder, option="--seed")
    draft = builder.draft(Scenario, tree, "", skip=(INCLUDE,))
    check(builder, draft)
    if builder.problems:
        raise ScenarioError(_in_order(builder.problems, label), label)
    draft.values["name"] = name
    scenario = draft.finish()
    assert isinstance(scenario, Scenario)
    return scenario


def _in_order(problems: Sequence[Problem], label: str) -> list[Problem]:
    """As the file reads: the scenario first, then what it includes, then the command line; no doubles."""
    files: dict[str, tuple[bool, bool, int]] = {}
    for k, problem in enumerate(problems):
        files.setdefault(problem.file, (problem.file != label, problem.file.startswith("--"), k))
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda p: (files[p.file], p.line, p.column, p.path))


def _with_includes(tree: Mapping, path: Path, label: str, chain: list[str], count: list[int]) -> Mapping:
    """The tree with its `include:` files beneath. `chain` are the files being read, outermost first."""
    said = tree.items.get(INCLUDE)
    if said is None:
        return tree
    below: Node | None = None
    for scalar in _include_names(said):
        count[0] += 1
        if count[0] > MOST_INCLUDES:
            raise SourceError(scalar.span.problem(INCLUDE, f"more than {MOST_INCLUDES} files are included"))
        part = _included(scalar, path, label, chain, count)
        below = part if below is None else merge(below, part)
    own = Mapping(
        {k: v for k, v in tree.items.items() if k != INCLUDE},
        tree.span,
        {k: v for k, v in tree.keys.items() if k != INCLUDE},
    )
    if below is None:
        return own
    merged = merge(below, own)
    assert isinstance(merged, Mapping)
    return merged


def _include_names(said: Node) -> list[Scalar]:
    nodes = said.items if isinstance(said, SequenceNode) else [said]
    names = []
    for node in nodes:
        if not isinstance(node, Scalar) or node.empty:
            message = f"{kind(node)} where a file should be"
            raise SourceError(node.span.problem(INCLUDE, message, "a YAML file, or a list of them"))
        names.append(node)
    return names


def _included(scalar: Scalar, path: Path, label: str, chain: list[str], count: list[int]) -> Mapping:
    span: Span = scalar.span
    target = path.parent / scalar.text
    shown = relative_label(label, scalar.text)
    try:
        resolved = str(target.resolve())
    except (OSError, ValueError, RuntimeError):
        raise SourceError(span.problem(INCLUDE, f"'{scalar.text}' is not a file name")) from None
    if resolved in chain:
        names = [Path(c).name for c in chain[chain.index(resolved) :]] + [target.name]
        raise SourceError(span.problem(INCLUDE, f"cyclic reference: {' includes '.join(names)}", "no cycle"))
    _, tree = read_file(target, shown, asked_by=span)
    return _with_includes(tree, target, shown, [*chain, resolved], count)
