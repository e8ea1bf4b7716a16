"""Reads a profile: `25 degC`, `{package: …}`, `{file: …}` or `{synthetic: …}` → ProfileSpec.

Only what the YAML says is checked here; whether the data exist and fit is the business of profiles.py.
"""

from __future__ import annotations

import re
from typing import Any

from twin.scenario.build import INVALID, Builder, Draft, Field
from twin.scenario.datasets import DATASETS, Dataset
from twin.scenario.errors import closest, one_of
from twin.scenario.schema import ProfileSpec
from twin.scenario.source import Mapping, Node, Scalar, Span, kind, shorten
from twin.units import DIMENSIONS, dimensions_of

KINDS = ("constant", "package", "file", "synthetic")
ALIGN = ("date", "exact", "start")
GAPS = ("error", "interpolate", "hold")
COMMON = ("column", "scale", "offset", "align", "repeat")
KEYS = {
    "constant": (),
    "package": COMMON,
    "file": (*COMMON, "time", "unit", "gaps", "peak"),
    "synthetic": (),
}


def offset_dimension(dimension: str) -> str:
    """An offset of a temperature is a difference; everything else is its own kind."""
    return "temperature_difference" if dimension == "temperature" else dimension


def scale_key(dataset: Dataset | None) -> tuple[str, str]:
    """Key and dimension of the factor on a dataset's numbers."""
    if dataset is not None and dataset.scale_key:
        return dataset.scale_key, dataset.scale_dimension
    return "scale", "fraction"


def synthetic_names(dimension: str) -> tuple[str, ...]:
    return ("grid_frequency",) if dimension == "frequency" else ()


def dataset_fits(dataset: Dataset, dimension: str) -> bool:
    """Whether a field of this dimension can be fed from a dataset, directly or through its scale."""
    if dataset.scale_key == "peak":
        return dataset.scale_dimension == dimension
    return dataset.dimension == dimension


def read_profile(builder: Builder, field: Field, node: Node, path: str) -> Any:
    dimension, hold = field.metadata["dimension"], field.metadata["hold"]
    where = node.span.where()
    if isinstance(node, Scalar):
        value = builder.quantity(node, dimension, path)
        if value is INVALID:
            return INVALID
        return ProfileSpec(dimension=dimension, hold=hold, constant=value, where=where)
    if not isinstance(node, Mapping):
        return builder.note(
            node.span, path, f"{kind(node)} where a profile should be", builder.describe(field)
        )
    said = [k for k in KINDS if k in node.items]
    if len(said) != 1:
        return _kind_missing(builder, field, node, path, said)
    reader = _Reader(builder, node, path, dimension, hold, said[0])
    before = len(builder.problems)
    spec = reader.read()
    return INVALID if spec is None or len(builder.problems) > before else spec


def _kind_missing(builder: Builder, field: Field, node: Mapping, path: str, said: list[str]) -> Any:
    if said:
        message = f"{' and '.join(said)} together"
        return builder.note(node.key_span(said[1]), path, message, "only one of them")
    for key in node.items:
        near = closest(key, KINDS)
        if near is not None:
            return builder.note(
                node.key_span(key), f"{path}.{key}", f"no key '{shorten(key)}' here", one_of(KINDS), near
            )
    guess = "file" if "profile" in node.items else None
    return builder.note(
        node.span, path, "says neither package, file nor synthetic", builder.describe(field), guess
    )


class _Reader:
    """One mapping, its keys already known to hold exactly one of KINDS."""

    def __init__(
        self, builder: Builder, node: Mapping, path: str, dimension: str, hold: str, said: str
    ) -> None:
        self.builder = builder
        self.node = node
        self.path = path
        self.dimension = dimension
        self.kind = said
        self.values: dict[str, Any] = {
            "dimension": dimension,
            "hold": hold,
            "where": node.items[said].span.where(),
        }

    def read(self) -> ProfileSpec | None:
        if self.kind == "synthetic":
            self.synthetic()
        elif self.kind == "constant":
            self.keys_are(("constant",))
            self.store("constant", self.quantity("constant", self.dimension))
        else:
            dataset = self.package() if self.kind == "package" else None
            if self.kind == "file":
                self.store("file", self.text("file"))
                if isinstance(self.values.get("file"), str):
                    span = self.node.items["file"].span
                    self.values["file"] = self.builder.relative_file(self.values["file"], span)
            self.series(dataset)
        if any(v is INVALID for v in self.values.values()):
            return None
        return ProfileSpec(**self.values)

    # -- kinds ----------------------------------------------------------------------------------------

    def package(self) -> Dataset | None:
        names = tuple(n for n, d in DATASETS.items() if dataset_fits(d, self.dimension))
        name = self.text("package")
        self.store("package", name)
        if name is INVALID or not isinstance(name, str):
            return None
        if name in names:
            return DATASETS[name]
        span = self.node.items["package"].span
        path = f"{self.path}.package"
        if name in DATASETS:
            is_a = DATASETS[name].about.partition(",")[0]
            message = f"'{name}' is {is_a}, no {self.dimension.replace('_', ' ')}"
            self.builder.note(span, path, message, one_of(names))
        else:
            series = {n.partition("/")[2]: n for n in names}
            guess = closest(name, names) or series.get(closest(name.rpartition("/")[2], list(series)) or "")
            self.builder.note(span, path, f"no data series named '{shorten(name)}'", one_of(names), guess)
        self.values["package"] = INVALID
        return None

    def series(self, dataset: Dataset | None) -> None:
        """What package and file have in common."""
        key, scale_dimension = scale_key(dataset)
        allowed = [self.kind, *KEYS[self.kind]]
        if dataset is not None and key != "scale":
            allowed[allowed.index("scale")] = key
        self.keys_are(tuple(allowed))
        items = self.node.items
        if "column" in items:
            self.store("column", self.column(dataset))
        elif dataset is not None and len(dataset.columns) == 1:
            self.store("column", dataset.columns[0])
        elif dataset is not None:
            self.missing(
                "column", f"{one_of(dataset.columns)}; several joined by '+' are summed, 'all' is all"
            )
        if "unit" in items:
            self.store("unit", self.unit())
        if "time" in items:
            self.store("time_column", self.text("time"))
        if "peak" in items and self.kind == "file":
            self.peak()
        elif key in items:
            self.store("scale", self.quantity(key, scale_dimension))
        elif key != "scale":
            self.missing(key, f"the {key}, {scale_dimension} such as '{DIMENSIONS[scale_dimension].example}'")
        if "offset" in items:
            self.store("offset", self.quantity("offset", offset_dimension(self.dimension)))
        if "align" in items:
            self.store("align", self.word("align", ALIGN, "alignment"))
        if "gaps" in items:
            self.store("gaps", self.word("gaps", GAPS, "way to treat gaps"))
        if "repeat" in items:
            self.store("repeat", self.flag("repeat"))

    def peak(self) -> None:
        """The column holds fractions of this power."""
        span, path = self.node.key_span("peak"), f"{self.path}.peak"
        if self.dimension != "power":
            self.builder.note(span, path, "only a power profile has a peak", "scale")
        elif "scale" in self.node.items:
            self.builder.note(span, path, "peak and scale together", "one of them")
        elif self.values.get("unit") not in (None, "", "%", INVALID):
            message = f"numbers in {self.values['unit']} need no peak"
            self.builder.note(span, path, message, "scale, or no unit")
        else:
            self.store("scale", self.quantity("peak", "power"))
            self.values.setdefault("unit", "")

    def synthetic(self) -> None:
        names = synthetic_names(self.dimension)
        if not names:
            message = f"there is no process for {self.dimension.replace('_', ' ')}"
            span = self.node.items["synthetic"].span
            self.store(
                "synthetic", self.builder.note(span, f"{self.path}.synthetic", message, "a package or file")
            )
            return
        name = self.word("synthetic", names, f"process for {self.dimension.replace('_', ' ')}")
        self.store("synthetic", name)
        if name is INVALID:
            return
        # numpy comes with the processes; only a scenario that uses one pays for it.
        from twin.scenario.synthetic import PROCESSES

        draft: Draft = self.builder.draft(PROCESSES[name], self.node, self.path, skip=("synthetic",))
        if not draft.complete:
            return
        process = draft.finish()
        for key, message in process.mistakes():
            self.builder.note(draft.place(key), f"{self.path}.{key}", message)
        self.values["params"] = tuple(sorted((k, float(v)) for k, v in vars(process).items()))

    # -- keys -----------------------------------------------------------------------------------------

    def keys_are(self, keys: tuple[str, ...]) -> None:
        for key in self.node.items:
            if key not in keys:
                self.builder.note(
                    self.node.key_span(key),
                    f"{self.path}.{shorten(key)}",
                    f"no key '{shorten(key)}' here",
                    one_of(keys),
                    closest(key, keys),
                )

    def missing(self, key: str, expected: str) -> None:
        span: Span = self.node.items[self.kind].span
        self.builder.note(span, f"{self.path}.{key}", "missing", expected)

    def store(self, name: str, value: Any) -> None:
        self.values[name] = value

    def scalar(self, key: str, expected: str) -> Scalar | None:
        node = self.node.items[key]
        if isinstance(node, Scalar) and not node.empty:
            return node
        self.builder.note(
            node.span, f"{self.path}.{key}", f"{kind(node)} where one value should be", expected
        )
        return None

    def text(self, key: str) -> Any:
        scalar = self.scalar(key, "text")
        return INVALID if scalar is None else scalar.text

    def quantity(self, key: str, dimension: str) -> Any:
        dim = DIMENSIONS[dimension]
        scalar = self.scalar(key, f"{dim.name.replace('_', ' ')} such as '{dim.example}'")
        return INVALID if scalar is None else self.builder.quantity(scalar, dimension, f"{self.path}.{key}")

    def word(self, key: str, names: tuple[str, ...], about: str) -> Any:
        scalar = self.scalar(key, one_of(names))
        return INVALID if scalar is None else self.builder.word(scalar, names, f"{self.path}.{key}", about)

    def flag(self, key: str) -> Any:
        scalar = self.scalar(key, "true or false")
        if scalar is None:
            return INVALID
        return self.builder.flag(scalar, f"{self.path}.{key}", "true or false")

    def column(self, dataset: Dataset | None) -> Any:
        scalar = self.scalar("column", "the name of a column")
        if scalar is None:
            return INVALID
        if dataset is None:
            return scalar.text
        names = [n.strip() for n in re.split(r"\+", scalar.text)]
        if names == ["all"] and len(dataset.columns) > 1:
            return scalar.text
        for name in names:
            if name not in dataset.columns:
                message = f"{dataset.name} has no column '{shorten(name)}'"
                guess = closest(name, dataset.columns)
                return self.builder.note(
                    scalar.span, f"{self.path}.column", message, one_of(dataset.columns, most=26), guess
                )
        return " + ".join(names)

    def unit(self) -> Any:
        dim = DIMENSIONS[self.dimension]
        scalar = self.scalar("unit", f"a unit of {self.dimension.replace('_', ' ')}: {dim.unit_names()}")
        if scalar is None:
            return INVALID
        text = scalar.text.strip()
        if "peak" in self.node.items and text in ("1", "%"):
            return "" if text == "1" else "%"
        if self.dimension in dimensions_of(text):
            return text
        expected = f"a unit of {self.dimension.replace('_', ' ')}: {dim.unit_names()}"
        message = f"no unit '{shorten(text)}' of {self.dimension.replace('_', ' ')}"
        guess = closest(text, [u for u in dim.units if u])
        return self.builder.note(scalar.span, f"{self.path}.unit", message, expected, guess)
