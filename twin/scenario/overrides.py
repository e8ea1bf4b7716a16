"""`--set sites[quarter].racks[0].pack.initial_soc=60%`: one value of a scenario changed from outside.

The path is that of the YAML; list items are chosen by number (`sites.0`, `sites[0]`), by name
(`sites[quarter]`) or, for faults, detectors and strategies, by their word (`dispatch[fcr_droop]`). The value
is YAML, so lists and mappings work too. What is not in the file but could be (a default) is added. Sweeps
use the same paths for their axes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

from twin.scenario.build import Builder
from twin.scenario.build_profile import KEYS as PROFILE_KEYS
from twin.scenario.build_profile import KINDS
from twin.scenario.errors import closest, one_of
from twin.scenario.fields import key_of, yaml_fields
from twin.scenario.schema import Scenario
from twin.scenario.source import Mapping, Node, Scalar, Sequence, Source, SourceError, Span, parse

_PART = re.compile(r"([^.\[\]=\s]+)|\[([^\[\]]*)\]")
_PROFILE_KEYS = tuple(dict.fromkeys(k for kind, keys in PROFILE_KEYS.items() for k in (kind, *keys)))


class _RefusedError(Exception):
    """One override that cannot be applied; noted, the others go on."""


def apply_overrides(tree: Mapping, words: list[str], builder: Builder, option: str = "--set") -> Mapping:
    """A new tree with every 'path=value' applied; problems go to the builder."""
    source = Source(option, tuple(words), Path())
    for k, word in enumerate(words):
        try:
            tree = _Override(source, k + 1, word, builder).apply(tree)
        except _RefusedError:
            continue
        except SourceError as error:
            builder.problems.extend(error.problems)
    return tree


class _Override:
    def __init__(self, source: Source, line: int, word: str, builder: Builder) -> None:
        self.source = source
        self.line = line
        self.word = word
        self.builder = builder
        self.path = ""

    def refuse(
        self, start: int, length: int, message: str, expected: str = "", guess: str | None = None
    ) -> NoReturn:
        span = Span(self.source, self.line, start + 1, max(1, length))
        self.builder.note(span, self.path, message, expected, guess)
        raise _RefusedError

    def apply(self, tree: Mapping) -> Mapping:
        head, equals, tail = self.word.partition("=")
        if not equals:
            self.refuse(0, len(self.word), "no '='", "path=value, such as duration=6h")
        parts = self.parts(head)
        value = parse(tail, self.source, line=self.line, column=len(head) + 2)
        if value is None:
            at = Span(self.source, self.line, len(head) + 2, 1)
            value = Scalar("", at)
        result = self.put(tree, parts, value, Scenario)
        assert isinstance(result, Mapping)
        return result

    def parts(self, head: str) -> list[tuple[str, int]]:
        """The steps of a path with their columns."""
        parts: list[tuple[str, int]] = []
        at = 0
        while at < len(head):
            match = _PART.match(head, at)
            if match is None or not match.group().strip("[] "):
                self.path = head
                self.refuse(at, 1, "not a path", "keys joined by '.', list items as [0] or [name]")
            parts.append((match.group(1) or match.group(2), at))
            at = match.end()
            if at < len(head) and head[at] == ".":
                at += 1
        if not parts:
            self.refuse(0, 1, "no path before '='", "path=value, such as duration=6h")
        return parts

    # -- walking: each returns a new node, the old tree stays as it was --------------------------------

    def put(self, node: Node | None, parts: list[tuple[str, int]], value: Node, of: Any) -> Node:
        """`node` (None: not in the file) with `value` placed at `parts`; `of` is the dataclass here."""
        if not parts:
            return value
        key, column = parts[0]
        if of is None:
            return self.put_freely(node, parts, value)
        fields = {key_of(f): f for f in yaml_fields(of)}
        if key not in fields:
            self.unknown(key, column, tuple(fields))
        old = node if isinstance(node, Mapping) else Mapping({}, value.span)
        field = fields[key]
        self.path = f"{self.path}.{key}" if self.path else key
        kind = field.metadata["type"]
        below = old.items.get(key)
        rest = parts[1:]
        if not rest:
            new = value
        elif kind == "section":
            new = self.put(below, rest, value, field.metadata["of"])
        elif kind in ("sections", "plugins"):
            new = self.put_item(below, rest, value, field)
        elif kind == "profile":
            new = self.put_freely(below, rest, value)
        else:
            inner, at = rest[0]
            self.refuse(at, len(inner), f"'{inner}' below a single value", f"{self.path}=value")
        return self.replaced(old, key, column, new)

    def put_freely(self, node: Node | None, parts: list[tuple[str, int]], value: Node) -> Node:
        """Inside a profile: its keys, one level; naming another source begins a new mapping."""
        key, column = parts[0]
        old = node if isinstance(node, Mapping) else Mapping({}, value.span)
        if key not in _PROFILE_KEYS and "synthetic" not in old.items:
            self.unknown(key, column, _PROFILE_KEYS)
        self.path = f"{self.path}.{key}"
        if len(parts) > 1:
            self.refuse(parts[1][1], len(parts[1][0]), f"'{parts[1][0]}' below a single value")
        if key in KINDS and key not in old.items:
            old = Mapping({}, old.span)
        return self.replaced(old, key, column, value)

    def unknown(self, key: str, column: int, keys: tuple[str, ...]) -> NoReturn:
        self.refuse(column, len(key), f"no key '{key}' here", one_of(keys, 24), closest(key, keys))

    def replaced(self, old: Mapping, key: str, column: int, value: Node) -> Mapping:
        here = Span(self.source, self.line, column + 1, len(key))
        return Mapping({**old.items, key: value}, old.span, {**old.keys, key: here})

    def put_item(self, node: Node | None, parts: list[tuple[str, int]], value: Node, field: Any) -> Node:
        """Inside a list: choose the item, change it, keep the others."""
        items: list[Node] = []
        if isinstance(node, Sequence):
            items = list(node.items)
        elif node is not None:
            items = [node]
        key, column = parts[0]
        index = self.choose(items, key, column, field)
        self.path += f"[{index}]"
        item = items[index]
        of = field.metadata.get("of")
        if field.metadata["type"] == "plugins":
            tag = field.metadata["tag"]
            if isinstance(item, Scalar):
                # A bare word gains parameters: it becomes a mapping.
                item = Mapping({tag: item}, item.span, {tag: item.span})
            said = item.items.get(tag) if isinstance(item, Mapping) else None
            table = getattr(self.builder.known, field.metadata["table"])
            of = table.get(said.text) if isinstance(said, Scalar) else None
            if len(parts) > 1 and parts[1][0] == tag:
                of = None
            if of is None and len(parts) > 1 and parts[1][0] != tag:
                self.refuse(column, len(key), f"the {tag} of this item is not known", one_of(tuple(table)))
        if of is None and len(parts) > 1:
            below = item if isinstance(item, Mapping) else Mapping({}, item.span)
            items[index] = self.replaced(below, *parts[1], value)
        else:
            items[index] = self.put(item, parts[1:], value, of)
        span = node.span if node is not None else value.span
        return Sequence(items, span)

    def choose(self, items: list[Node], key: str, column: int, field: Any) -> int:
        meta = field.metadata
        names = [self.name_of(item, field) for item in items]
        if not items:
            self.refuse(column, len(key), f"'{key}' of an empty list", f"{self.path}=[…]")
        if re.fullmatch(r"\d{1,9}", key):
            if int(key) < len(items):
                return int(key)
            last = len(items) - 1
            expected = f"0 … {last}" if last else "0 (there is one)"
            self.refuse(column, len(key), f"no item {key} in {self.path}", expected)
        matches = [k for k, name in enumerate(names) if name == key]
        if len(matches) == 1:
            return matches[0]
        known = [n for n in names if n is not None]
        if matches:
            self.refuse(column, len(key), f"{len(matches)} items are called '{key}'", "a number instead")
        what = meta.get("tag") or meta.get("unique") or "item"
        numbered = "0" if len(items) == 1 else f"0 … {len(items) - 1}"
        expected = f"{one_of(known)}, or {numbered}" if known else numbered
        self.refuse(column, len(key), f"no {what} '{key}' in {self.path}", expected, closest(key, known))

    @staticmethod
    def name_of(item: Node, field: Any) -> str | None:
        """What an item of a list is called: its unique field (with its default), or its word."""
        meta = field.metadata
        if isinstance(item, Scalar):
            return item.text
        if not isinstance(item, Mapping):
            return None
        key = meta.get("tag") or meta.get("unique")
        said = item.items.get(key) if key else None
        if isinstance(said, Scalar):
            return said.text
        if meta["type"] == "sections" and key:
            default = next((f.default for f in yaml_fields(meta["of"]) if f.name == key), None)
            return default if isinstance(default, str) else None
        return None
