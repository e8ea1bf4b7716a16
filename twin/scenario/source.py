"""YAML text → a tree that remembers where every word stood.

Scalars stay text: what `no`, `1e3`, `04:12:07` or `2016-06-06` mean is decided by the field that receives
them, so none of YAML 1.1's surprises (octal, sexagesimal, yes/no, Norway) can happen. Duplicate keys, tags,
several documents, cyclic anchors and absurd sizes are errors. Anchors, aliases and `<<` merges work.

The tree is built from PyYAML's event stream with our own stack: nesting is bounded before recursion can
run out, and an alias to an anchor that is still open (a cycle) is seen at once.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from twin.scenario.errors import Problem, closest

MAX_BYTES = 1_000_000  # larger than any scenario by a factor of 100
MAX_DEPTH = 40
MAX_NODES = 100_000  # after alias expansion, so that "billion laughs" stays small


@dataclass(frozen=True)
class Source:
    """A text with a name: a file, or the `--set` words of the command line."""

    label: str
    lines: tuple[str, ...]
    folder: Path  # relative paths in this text start here

    def line(self, number: int) -> str:
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""


@dataclass(frozen=True)
class Span:
    """A stretch of one line; line and column from 1."""

    source: Source
    line: int
    column: int
    length: int

    def problem(self, path: str, message: str, expected: str = "", guess: str | None = None) -> Problem:
        return Problem(
            file=self.source.label,
            line=self.line,
            column=self.column,
            path=path,
            message=message,
            expected=expected,
            guess=guess,
            source=self.source.line(self.line),
            length=self.length,
        )

    def where(self) -> str:
        return f"{self.source.label}:{self.line}:{self.column}"


@dataclass
class Scalar:
    text: str
    span: Span
    quoted: bool = False

    @property
    def empty(self) -> bool:
        """Nothing said: `key:`, `key: ~` or `key: null`."""
        return not self.quoted and self.text in ("", "~", "null", "Null", "NULL")


@dataclass
class Sequence:
    items: list[Node]
    span: Span
    size: int = 0  # nodes below and with this one, aliases expanded
    depth: int = 0


@dataclass
class Mapping:
    items: dict[str, Node]
    span: Span
    keys: dict[str, Span] = field(default_factory=dict)
    size: int = 0
    depth: int = 0

    def key_span(self, key: str) -> Span:
        return self.keys.get(key, self.span)


Node = Scalar | Sequence | Mapping


class SourceError(Exception):
    """Reading stopped here; carries the problems found so far."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems


# What PyYAML says, and what an operator needs to hear.
_HINTS = (
    ("'\\t' that cannot start any token", "a tab; YAML is indented with spaces", "spaces"),
    ("mapping values are not allowed here", "a second ':' in one line, or a wrong indent", "key: value"),
    ("could not find expected ':'", "a key without ':'", "key: value"),
    ("expected <block end>", "the indent does not fit the lines above", "one column per list or mapping"),
    ("expected ',' or ']'", "a list that is not closed", "',' or ']'"),
    ("expected ',' or '}'", "a mapping that is not closed", "',' or '}'"),
    ("but found '<stream end>'", "the text ends too early", "the rest of the value"),
    ("found unexpected end of stream", "a quoted text that is not closed", "a closing quote"),
    ("'%' that cannot start any token", "a value that begins with '%'", "a number before the '%'"),
    ("'@' that cannot start any token", "a value that begins with '@'", "quotes around it"),
    ("'`' that cannot start any token", "a value that begins with '`'", "quotes around it"),
)


def read_file(path: Path, label: str, asked_by: Span | None = None) -> tuple[Source, Mapping]:
    """The tree of a YAML file; `asked_by` is the `include` that named it, if any. Raises SourceError."""

    def fail(message: str, expected: str = "", guess: str | None = None) -> SourceError:
        if asked_by is not None:
            return SourceError(asked_by.problem("include", f"'{label}': {message}", expected, guess))
        return SourceError(Problem(file=label, message=message, expected=expected, guess=guess))

    try:
        if path.is_dir():
            raise fail("is a folder", "a YAML file")
        if not path.exists():
            near = _nearest(path)
            raise fail("no such file", "a YAML file", str(Path(label).with_name(near)) if near else None)
        if not path.is_file():
            raise fail("is not a regular file", "a YAML file")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise fail(f"cannot be read ({error.strerror or error})") from None
    except ValueError:  # a NUL in the name
        raise fail("is not a file name", "a YAML file") from None
    if len(data) > MAX_BYTES:
        raise fail(f"is larger than {MAX_BYTES // 1000} kB", "a scenario; data belongs into a profile file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise fail(
            f"is not UTF-8 text (byte {error.start + 1}, line {line})", "a text file in UTF-8"
        ) from None
    return read_text(text, label, path.parent)


def read_text(text: str, label: str, folder: Path) -> tuple[Source, Mapping]:
    """The tree of a YAML text whose top is a mapping. Raises SourceError."""
    source = Source(label, lines_of(text), folder)
    node = parse(text, source)
    if node is None:
        raise SourceError(Problem(file=label, message="the file is empty", expected="a scenario"))
    if not isinstance(node, Mapping):
        raise SourceError(
            node.span.problem(
                "", f"{kind(node)} where the scenario should be", "a mapping: about, duration, sites …"
            )
        )
    return source, node


def parse(text: str, source: Source, line: int = 1, column: int = 1) -> Node | None:
    """One YAML document; `line` and `column` are where `text` begins in `source`. None when empty."""
    builder = _Builder(source, line - 1, column - 1)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        raise SourceError(builder.syntax(error)) from None
    except yaml.reader.ReaderError as error:
        # The reader works on the whole text and knows only an offset.
        before = text[: error.position]
        at = builder.span(before.count("\n"), len(before) - before.rfind("\n") - 1, 1)
        code = ord(error.character) if isinstance(error.character, str) else error.character
        message = f"a character that is not text ({code:#06x})"
        raise SourceError(at.problem("", message, "printable UTF-8")) from None
    except (ValueError, OverflowError):
        # PyYAML lets chr() fail on escapes such as "\UFFFFFFFF".
        at = builder.span(builder.last_line, 0, 1)
        raise SourceError(at.problem("", "an escape that is no character, in or after this line")) from None
    if builder.problems:
        raise SourceError(*builder.problems)
    return builder.root


def lines_of(text: str) -> tuple[str, ...]:
    """The lines as YAML counts them (str.splitlines knows more line ends)."""
    return tuple(re.split("\r\n|[\n\r\x85\u2028\u2029]", text))


def kind(node: Node) -> str:
    """'a list', 'a mapping', 'a number or text' … for messages."""
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    return "nothing" if node.empty else f"'{shorten(node.text)}'"


def shorten(text: str, most: int = 40) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."


_SOURCES = {"constant", "package", "file", "synthetic"}


def merge(below: Node, above: Node) -> Node:
    """`above` wins; mappings are merged key by key, everything else is replaced as a whole.

    A mapping that names a source (`package:` …) replaces one that does, so that a profile can be exchanged.
    """
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    if _SOURCES & below.items.keys() and _SOURCES & above.items.keys():
        return above
    items = dict(below.items)
    keys = dict(below.keys)
    for key, value in above.items.items():
        items[key] = merge(items[key], value) if key in items else value
        keys[key] = above.key_span(key)
    return Mapping(items, above.span, keys)


def _nearest(path: Path) -> str | None:
    """The YAML file beside it whose name is nearest."""
    try:
        near = sorted(p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml"))
    except (OSError, ValueError):
        return None
    return closest(path.name, near)


class _Frame:
    """A collection that is still open."""

    def __init__(self, node: Sequence | Mapping, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: Scalar | None = None  # of a mapping: the key whose value comes next
        self.expects_key = True
        self.merges: list[Node] = []


class _Builder:
    """Turns parser events into nodes; syntax is PyYAML's, the meaning of keys and anchors is decided here."""

    def __init__(self, source: Source, line: int, column: int) -> None:
        self.source = source
        self.line = line
        self.column = column
        self.stack: list[_Frame] = []
        self.anchors: dict[str, Node] = {}
        self.root: Node | None = None
        self.documents = 0
        self.problems: list[Problem] = []
        self.last_line = 0

    def span(self, line: int, column: int, length: int) -> Span:
        """From PyYAML's zero-based marks, moved to where the text stands in its source."""
        shift = self.column if line == 0 else 0
        return Span(self.source, line + self.line + 1, column + shift + 1, max(1, length))

    def of(self, event: yaml.Event) -> Span:
        start, end = event.start_mark, event.end_mark
        assert start is not None  # the parser always sets marks
        assert end is not None
        self.last_line = start.line
        if end.line == start.line:
            return self.span(start.line, start.column, end.column - start.column)
        text = self.source.line(start.line + self.line + 1)
        return self.span(start.line, start.column, len(text.rstrip()) - start.column)

    def syntax(self, error: yaml.MarkedYAMLError) -> Problem:
        mark = error.problem_mark or error.context_mark
        said = " ".join(str(error.problem or error.context or "not YAML").split())
        message, expected = said, ""
        for pattern, meaning, hint in _HINTS:
            if pattern in said:
                message, expected = meaning, hint
                if "not closed" in meaning:  # where it was opened, not the end of the file
                    mark = error.context_mark or mark
                break
        at = self.span(mark.line, mark.column, 1) if mark else self.span(0, 0, 1)
        return at.problem("", f"not YAML: {message}", expected)

    def stop(self, at: Span, message: str, expected: str = "") -> SourceError:
        return SourceError(*self.problems, at.problem("", message, expected))

    def feed(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise self.stop(self.of(event), "a second document begins here", "one scenario per file")
        elif isinstance(event, yaml.NodeEvent):
            self.node(event)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            self.close(event)

    def node(self, event: yaml.NodeEvent) -> None:
        at = self.of(event)
        if isinstance(event, yaml.AliasEvent):
            self.add(self.alias(str(event.anchor), at), at)
            return
        if event.anchor is not None and any(f.anchor == event.anchor for f in self.stack):
            raise self.stop(at, f"anchor '&{event.anchor}' inside itself", "another name")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.problems.append(at.problem("", f"a YAML tag ('{shorten(str(tag))}')", "plain values"))
        if isinstance(event, yaml.ScalarEvent):
            scalar = Scalar(event.value, at, quoted=event.style is not None)
            self.add(scalar, at)
            if event.anchor:
                self.anchors[event.anchor] = scalar
            return
        if len(self.stack) >= MAX_DEPTH:
            raise self.stop(at, f"nested more than {MAX_DEPTH} deep", "a scenario; the deepest need about 8")
        collection: Sequence | Mapping
        collection = Sequence([], at) if isinstance(event, yaml.SequenceStartEvent) else Mapping({}, at)
        self.stack.append(_Frame(collection, event.anchor))

    def alias(self, name: str, at: Span) -> Node:
        if any(frame.anchor == name for frame in self.stack):
            raise self.stop(at, f"cyclic reference: '*{name}' stands inside '&{name}'")
        if name not in self.anchors:
            raise self.stop(at, f"no anchor '&{name}' above", self._known_anchors())
        return self.anchors[name]

    def _known_anchors(self) -> str:
        return "one of " + ", ".join(f"'*{a}'" for a in self.anchors) if self.anchors else "an '&name' above"

    def close(self, event: yaml.Event) -> None:
        frame = self.stack.pop()
        node = frame.node
        end = event.end_mark
        assert end is not None
        if node.span.line == end.line + self.line + 1:
            shift = self.column if end.line == 0 else 0
            length = end.column + shift + 1 - node.span.column
            node.span = Span(self.source, node.span.line, node.span.column, max(1, length))
        if isinstance(node, Mapping):
            for below in frame.merges:
                merged = merge(below, node)
                assert isinstance(merged, Mapping)
                node.items, node.keys = merged.items, merged.keys
        if frame.anchor:
            self.anchors[frame.anchor] = node
        self.add(node, node.span)

    def add(self, node: Node, at: Span) -> None:
        """Put a finished node into the open collection (or make it the root)."""
        if isinstance(node, Sequence | Mapping) and node.size == 0:
            children = node.items if isinstance(node, Sequence) else list(node.items.values())
            inner = [c for c in children if isinstance(c, Sequence | Mapping)]
            node.size = 1 + len(children) - len(inner) + sum(c.size for c in inner)
            node.depth = 1 + max((c.depth for c in inner), default=0)
            if node.size > MAX_NODES:
                raise self.stop(at, f"more than {MAX_NODES} values, aliases expanded", "a scenario")
            if node.depth > MAX_DEPTH:
                raise self.stop(at, f"nested more than {MAX_DEPTH} deep, aliases expanded", "a scenario")
        if not self.stack:
            self.root = node
            return
        frame = self.stack[-1]
        if isinstance(frame.node, Sequence):
            frame.node.items.append(node)
        elif frame.expects_key:
            self.take_key(frame, node, at)
        else:
            self.take_value(frame, node)

    def take_key(self, frame: _Frame, node: Node, at: Span) -> None:
        assert isinstance(frame.node, Mapping)
        frame.expects_key = False
        frame.key = None
        if not isinstance(node, Scalar):
            self.problems.append(at.problem("", f"{kind(node)} as a key", "a word before the ':'"))
            return
        frame.key = node
        if node.text in frame.node.items and not (node.text == "<<" and not node.quoted):
            first = frame.node.keys[node.text]
            message = f"key '{shorten(node.text)}' is given twice, first in line {first.line}"
            self.problems.append(at.problem("", message))

    def take_value(self, frame: _Frame, node: Node) -> None:
        assert isinstance(frame.node, Mapping)
        frame.expects_key = True
        key = frame.key
        if key is None:
            return
        if key.text == "<<" and not key.quoted:
            parts = node.items if isinstance(node, Sequence) else [node]
            for part in parts:
                if isinstance(part, Mapping):
                    frame.merges.append(part)
                else:
                    message = f"'<<' merges {kind(part)}"
                    self.problems.append(key.span.problem("", message, "a mapping, as in '<<: *name'"))
            return
        frame.node.keys.setdefault(key.text, key.span)
        frame.node.items.setdefault(key.text, node)


def relative_label(label: str, said: str) -> str:
    """How an included file is called in messages: beside the label of the file that names it."""
    if os.path.isabs(said):
        return said
    return os.path.normpath(os.path.join(os.path.dirname(label), said))
