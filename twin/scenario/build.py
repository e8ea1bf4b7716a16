"""Nodes of the YAML tree → drafts of the dataclasses in schema.py, collecting every mistake on the way.

Nothing here knows a particular field: kinds, dimensions, ranges and names come from the metadata of
fields.py. A `Draft` holds what could be read of one dataclass even if other parts of it are wrong, so that
checks between fields (checks.py) still see as much as possible; `finish` makes the frozen objects.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twin.scenario.errors import Problem, closest, one_of
from twin.scenario.fields import key_of, required, yaml_fields
from twin.scenario.schema import Known
from twin.scenario.source import Mapping as MappingNode
from twin.scenario.source import Node, Scalar, Span, kind, shorten
from twin.scenario.source import Sequence as SequenceNode
from twin.units import DIMENSIONS, UnitError, format_quantity, parse

Field = dataclasses.Field[Any]


class _Invalid:
    """Stands where a value could not be read; its problem has been noted."""

    def __repr__(self) -> str:
        return "INVALID"


INVALID = _Invalid()


@dataclasses.dataclass
class Draft:
    """What was read of one mapping. `values` by attribute; `places` by YAML key; `key_places` of the keys."""

    cls: type
    path: str
    span: Span
    word: str = ""  # of a plugin: the word that chose the dataclass
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    places: dict[str, Span] = dataclasses.field(default_factory=dict)

    def get(self, attribute: str) -> Any:
        """The value, or None when it is missing or wrong."""
        value = self.values.get(attribute)
        return None if value is INVALID else value

    def place(self, key: str) -> Span:
        return self.places.get(key, self.span)

    @property
    def complete(self) -> bool:
        return all(_complete(v) for v in self.values.values())

    def finish(self) -> Any:
        """The frozen object; call only when there are no problems."""
        return self.cls(**{name: _finish(value) for name, value in self.values.items()})


def _complete(value: Any) -> bool:
    if isinstance(value, Draft):
        return value.complete
    if isinstance(value, list):
        return all(_complete(v) for v in value)
    return value is not INVALID


def _finish(value: Any) -> Any:
    if isinstance(value, Draft):
        return value.finish()
    if isinstance(value, list):
        return tuple(_finish(v) for v in value)
    return value


def look(value: Any, attribute: str) -> Any:
    """An attribute of a draft or of a default object; None when missing or wrong."""
    if isinstance(value, Draft):
        return value.get(attribute)
    return getattr(value, attribute, None)


def members(value: Any, attribute: str) -> list[Any]:
    """The items of a list that could be read (drafts, or default objects)."""
    items = look(value, attribute)
    return [v for v in items if v is not None] if isinstance(items, list | tuple) else []


class Builder:
    """Reads nodes by field metadata.

    `folder` is where relative file names of the scenario start; `more` are readers of further kinds of
    fields (profiles have a module of their own), each (builder, field, node, path) → value.
    """

    def __init__(self, known: Known, folder: Path, more: Mapping[str, Reader]) -> None:
        self.known = known
        self.folder = folder
        self.problems: list[Problem] = []
        self.readers: dict[str, Callable[[Field, Node, str, Draft], Any]] = {
            "quantity": self._quantity,
            "integer": self._integer,
            "text": self._text,
            "flag": self._flag,
            "date": self._date,
            "word": self._word,
            "section": self._section,
            "sections": self._sections,
            "plugins": self._plugins,
            "target": self._target,
        }
        for name, reader in more.items():
            self.readers[name] = self._bind(reader)

    def _bind(self, reader: Reader) -> Callable[[Field, Node, str, Draft], Any]:
        return lambda field, node, path, draft: reader(self, field, node, path)

    def note(
        self, span: Span, path: str, message: str, expected: str = "", guess: str | None = None
    ) -> _Invalid:
        self.problems.append(span.problem(path, message, expected, guess))
        return INVALID

    # -- one dataclass ------------------------------------------------------------------------------

    def draft(
        self, cls: type, node: MappingNode, path: str, skip: tuple[str, ...] = (), word: str = ""
    ) -> Draft:
        """Read a mapping as `cls`. `skip` are keys that mean something else here: include, a plugin's tag."""
        draft = Draft(cls, path, node.span, word)
        for key in node.items:
            draft.places[key] = node.items[key].span
        fields = yaml_fields(cls)
        keys = [key_of(f) for f in fields]
        for key in node.items:
            if key not in keys and key not in skip:
                self._unknown_key(node.key_span(key), _join(path, key), key, [*skip, *keys])
        for field in fields:
            key = key_of(field)
            where = _join(path, key)
            value = node.items.get(key)
            if isinstance(value, Scalar) and value.empty:
                draft.values[field.name] = self._empty(field, value, where)
                continue
            if value is None:
                if required(field):
                    begin = _beginning(node)
                    draft.values[field.name] = self.note(begin, where, "missing", self.describe(field))
                    continue
                draft.values[field.name] = _default(field)
                continue
            draft.values[field.name] = self.readers[field.metadata["type"]](field, value, where, draft)
        return draft

    def _empty(self, field: Field, node: Scalar, path: str) -> Any:
        """`key:` with nothing behind it: the default where that is None, else a mistake."""
        if not required(field) and field.default is None:
            return None
        return self.note(node.span, path, "nothing given", self.describe(field))

    def _unknown_key(self, span: Span, path: str, key: str, keys: list[str]) -> None:
        self.note(span, path, f"no key '{shorten(key)}' here", one_of(keys, most=24), closest(key, keys))

    def describe(self, field: Field) -> str:
        """What belongs into a field, for the `expected` line."""
        meta = field.metadata
        about = meta["about"]
        if meta["type"] == "quantity":
            if meta["dimension"] == "metric":
                return f"a number with the unit of the metric ({about})"
            dim = DIMENSIONS[meta["dimension"]]
            return f"{_a(dim.name)} such as '{dim.example}' ({about})"
        if meta["type"] == "word":
            return f"{one_of(self.names(field))} ({about})"
        form = {
            "integer": "a whole number",
            "text": "text",
            "flag": "true or false",
            "date": "a date such as 2016-06-06 or 2016-06-06 12:00",
            "section": "a mapping",
            "sections": "a list of mappings",
            "plugins": "a list",
            "target": "a path such as site/rack-1/pack-1/cell-1",
            "profile": f"{_a(meta.get('dimension', ''))}, or {{package: …}}, {{file: …}}, {{synthetic: …}}",
        }[meta["type"]]
        return f"{form} ({about})"

    def names(self, field: Field) -> tuple[str, ...]:
        """The words a `word` field takes."""
        names = field.metadata["names"]
        if isinstance(names, str):
            table = getattr(self.known, names)
            return tuple(table)
        return tuple(names)

    # -- scalars ------------------------------------------------------------------------------------

    def _scalar(self, field: Field, node: Node, path: str) -> Scalar | None:
        if isinstance(node, Scalar):
            return node
        self.note(node.span, path, f"{kind(node)} where one value should be", self.describe(field))
        return None

    def _quantity(self, field: Field, node: Node, path: str, draft: Draft) -> Any:
        scalar = self._scalar(field, node, path)
        if scalar is None:
            return INVALID
        meta = field.metadata
        dimension = meta["dimension"]
        if dimension == "metric":
            metric = draft.get("metric")
            if metric is None:
                return INVALID  # the metric itself is wrong and has been noted
            dimension = self.known.metrics[metric]
        value = self.quantity(scalar, dimension, path)
        if value is INVALID:
            return INVALID
        return self._in_range(meta, value, scalar, path, lambda v: format_quantity(v, dimension))

    def quantity(self, scalar: Scalar, dimension: str, path: str) -> Any:
        try:
            return parse(scalar.text, dimension)
        except UnitError as error:
            return self.note(scalar.span, path, error.message, error.expected, error.guess)

    def _in_range(
        self, meta: Mapping[str, Any], value: Any, scalar: Scalar, path: str, show: Callable[[Any], str]
    ) -> Any:
        low, high, above = meta.get("minimum"), meta.get("maximum"), meta.get("above")
        fits = (
            (low is None or value >= low)
            and (high is None or value <= high)
            and (above is None or value > above)
        )
        if fits:
            return value
        bounds = []
        if above is not None and (low is None or above >= low):
            bounds.append(f"above {show(above)}")
        elif low is not None:
            bounds.append(f"at least {show(low)}")
        if high is not None:
            bounds.append(f"at most {show(high)}")
        message = f"'{shorten(scalar.text)}' is out of range"
        return self.note(scalar.span, path, message, f"{' and '.join(bounds)} ({meta['about']})")

    def _integer(self, field: Field, node: Node, path: str, draft: Draft) -> Any:
        scalar = self._scalar(field, node, path)
        if scalar is None:
            return INVALID
        if not re.fullmatch(r"[+-]?\d{1,19}", scalar.text):
            message = f"'{shorten(scalar.text)}' is not a whole number"
            if re.fullmatch(r"[+-]?\d{20,}", scalar.text):
                message = f"'{shorten(scalar.text)}' is too large"
            return self.note(scalar.span, path, message, self.describe(field))
        return self._in_range(field.metadata, int(scalar.text), scalar, path, str)

    def _text(self, field: Field, node: Node, path: str, draft: Draft) -> Any:
        scalar = self._scalar(field, node, path)
        if scalar is None:
            return INVALID
        pattern = field.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern, scalar.text):
            message = f"'{shorten(scalar.text)}' is no name"
            expected = "a lower-case word of letters, digits, '-' and '_', beginning with a letter"
            plain = re.sub(r"[^a-z0-9_-]+", "_", scalar.text.lower()).strip("_-")
            guess = plain if re.fullmatch(pattern, plain) else None
            return self.note(scalar.span, path, message, expected, guess)
        if not scalar.text.strip():
            return self.note(scalar.span, path, "nothing given", self.describe(field))
        return scalar.text

    def _flag(self, field: Field, node: Node, path: str, draft: Draft) -> Any:
        scalar = self._scalar(field, node, path)
        if scalar is None:
            return INVALID
        return self.flag(scalar, path, self.describe(field))

    def flag(self, scalar: Scalar, path: str, expected: str) -> Any:
        if scalar.text in ("true", "false"):
            return scalar.text == "true"
        guess = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(scalar.text.lower())
        guess = guess or closest(scalar.text, ("true", "false"))
        return self.note(
            scalar.span, path, f"'{shorten(scalar.text)}' is neither true nor false", expected, guess
        )

    def _date(self, field: Field, node: Node, path: str, draft: Draft) -> Any:
        scalar = self._scalar(field, node, path)
        if scalar is None:
            return INVALID
        text = scalar.text.strip().removesuffix(" UTC")
        try:
            # The short forms of ISO 8601 (20160606, 2016W23) would also take a slip such as a bare number.
            if not re.match(r"\d{4}-\d\d-\d\d(?!\d)", text):
                raise ValueError
            instant = datetime.fromisoformat(text)
        except ValueError:
            message = f"'{shorten(scalar.text)}' is not a date"
            return self.note(scalar.span, path, message, self.describe(field))
        if instant.tzinfo is not None:
            instant = instant.astimezone(UTC).replace(tzinfo=None)
        if not 1950 <= instant.year <= 2150:
            message = f"'{shorten(scalar.text)}' is out of range"
            return self.note(scalar.span, path, message, "a year from 1950 to 2150")
        return instant

    def _word(self, field: Field, node: Node, path: str, draft: Draft) -> Any:
        scalar = self._scalar(field, node, path)
        if scalar is None:
            return INVALID
        names = field.metadata["names"]
        what = _singular(names) if isinstance(names, str) else key_of(field).replace("_", " ")
        return self.word(scalar, self.names(field), path, what)

    def word(self, scalar: Scalar, names: tuple[str, ...], path: str, what: str) -> Any:
        if scalar.text in names:
            return scalar.text
        message = f"no {what} named '{shorten(scalar.text)}'"
        return self.note(scalar.span, path, message, one_of(names), closest(scalar.text, names))

    def _target(self, field: Field, node: Node, path: str, draft: Draft) -> Any:
        """Only the text; whether it exists is known when all sites have been read (checks.py)."""
        scalar = self._scalar(field, node, path)
        return INVALID if scalar is None else scalar.text.strip()

    # -- collections --------------------------------------------------------------------------------

    def _section(self, field: Field, node: Node, path: str, draft: Draft) -> Any:
        of = field.metadata["of"]
        if not isinstance(node, MappingNode):
            keys = [key_of(f) for f in yaml_fields(of)]
            expected = f"a mapping with {', '.join(keys[:8])} ({field.metadata['about']})"
            guess = f"{{{keys[0]}: {node.text}}}" if isinstance(node, Scalar) and len(keys) == 1 else None
            return self.note(node.span, path, f"{kind(node)} where a mapping should be", expected, guess)
        return self.draft(of, node, path)

    def _items(self, field: Field, node: Node, path: str) -> list[tuple[str, Node]] | None:
        """The members of a list with their paths; a single member needs no list."""
        if isinstance(node, SequenceNode):
            if not node.items and required(field):
                self.note(node.span, path, "an empty list", self.describe(field))
                return None
            return [(f"{path}[{k}]", item) for k, item in enumerate(node.items)]
        if isinstance(node, MappingNode) or field.metadata["type"] == "plugins":
            return [(f"{path}[0]", node)]
        self.note(node.span, path, f"{kind(node)} where a list should be", self.describe(field))
        return None

    def _sections(self, field: Field, node: Node, path: str, draft: Draft) -> Any:
        items = self._items(field, node, path)
        if items is None:
            return INVALID
        built: list[Any] = []
        for where, item in items:
            if isinstance(item, MappingNode):
                built.append(self.draft(field.metadata["of"], item, where))
            else:
                message = f"{kind(item)} where a mapping should be"
                built.append(self.note(item.span, where, message, self.describe(field)))
        unique = field.metadata.get("unique")
        if unique:
            self._check_unique([d for d in built if isinstance(d, Draft)], unique)
        return built

    def _check_unique(self, drafts: list[Draft], attribute: str) -> None:
        seen: dict[Any, Draft] = {}
        for draft in drafts:
            value = draft.get(attribute)
            if value is None:
                continue
            if value in seen:
                first = seen[value]
                message = f"'{value}' is already the {attribute} of {first.path}"
                where = draft.place(attribute)
                self.note(where, f"{draft.path}.{attribute}", message, "a name of its own")
            else:
                seen[value] = draft

    def _plugins(self, field: Field, node: Node, path: str, draft: Draft) -> Any:
        items = self._items(field, node, path)
        if items is None:
            return INVALID
        return [self.plugin(field, item, where) for where, item in items]

    def plugin(self, field: Field, item: Node, path: str) -> Any:
        tag, table = field.metadata["tag"], getattr(self.known, field.metadata["table"])
        names = tuple(table)
        what = _singular(field.metadata["table"])
        if isinstance(item, Scalar):
            if item.empty:
                return self.note(item.span, path, "nothing given", one_of(names))
            word = self.word(item, names, path, what)
            if word is INVALID:
                return INVALID
            return self.draft(table[word], MappingNode({}, item.span), path, word=word)
        if not isinstance(item, MappingNode):
            expected = f"{{{tag}: …}} or one word, {one_of(names)}"
            return self.note(item.span, path, f"{kind(item)} where a mapping should be", expected)
        said = item.items.get(tag)
        if said is None:
            keys = list(item.items)
            message = f"no '{tag}' among {', '.join(shorten(k) for k in keys[:8])}" if keys else "missing"
            return self.note(_beginning(item), f"{path}.{tag}", message, one_of(names))
        if not isinstance(said, Scalar) or said.empty:
            message = f"{kind(said)} where one word should be"
            return self.note(said.span, f"{path}.{tag}", message, one_of(names))
        word = self.word(said, names, f"{path}.{tag}", what)
        if word is INVALID:
            return INVALID
        return self.draft(table[word], item, path, skip=(tag,), word=word)

    def relative_file(self, said: str, span: Span) -> str:
        """A file name as the scenario's folder sees it; an included YAML may lie elsewhere."""
        if os.path.isabs(said) or span.source.folder == self.folder:
            return said
        return os.path.relpath(span.source.folder / said, self.folder)


Reader = Callable[[Builder, Field, Node, str], Any]


def _default(field: Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    assert field.default_factory is not dataclasses.MISSING
    return field.default_factory()


def _join(path: str, key: str) -> str:
    return f"{path}.{shorten(key)}" if path else shorten(key)


def _beginning(node: MappingNode) -> Span:
    """Where to point at a mapping that lacks something: its first key, or all of `{…}`."""
    if node.keys and (first := min(node.keys.values(), key=lambda s: (s.line, s.column))):
        same_source = first.source is node.span.source
        if same_source and (first.line, first.column) == (node.span.line, node.span.column):
            return first
    return node.span


def _singular(table: str) -> str:
    """What one member of a table of `Known` is called: cell_models → 'cell model'."""
    return "dispatch strategy" if table == "dispatch" else table.removesuffix("s").replace("_", " ")


def _a(dimension: str) -> str:
    words = dimension.replace("_", " ")
    return f"{'an' if words[:1] in 'aeiou' else 'a'} {words}"
