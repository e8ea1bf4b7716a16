"""Reads keys of a YAML mapping with their range, collecting every mistake instead of stopping at the first.

r = Reader(data, "geometry", problems)
thickness = r.number("thickness_m", low=0, low_open=True)
r.finish()          # unknown keys become problems, with the nearest known key
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

REQUIRED: Any = object()
# What an optional number reads as when the caller gave None as its default.
_ABSENT: Any = None


def bounds_text(low: float | None, high: float | None, low_open: bool) -> str:
    """Allowed range in words, for an error message."""
    if low is not None and high is not None:
        return f"more than {low:g} and at most {high:g}" if low_open else f"between {low:g} and {high:g}"
    if low is not None:
        return f"{'more than' if low_open else 'at least'} {low:g}"
    return f"at most {high:g}" if high is not None else "any number"


class Reader:
    """One mapping of the file at `path`; `problems` is shared by all readers of the file."""

    def __init__(self, data: Any, path: str, problems: list[str]) -> None:
        self.path, self.problems = path, problems
        self.known: set[str] = set()
        if not isinstance(data, Mapping):
            if data is not None:
                self.problem("", f"must be a mapping of keys, not {data!r}")
            data = {}
        self.data: dict[str, Any] = {str(k): v for k, v in data.items()}

    def at(self, key: str) -> str:
        """Full path of a key of this mapping."""
        return f"{self.path}.{key}" if self.path and key else self.path or key

    def problem(self, key: str, text: str) -> None:
        """Record a mistake at `key`."""
        self.problems.append(f"{self.at(key)}: {text}")

    def has(self, key: str) -> bool:
        """Whether the key is present; it then counts as known."""
        self.known.add(key)
        return key in self.data

    def get(self, key: str, default: Any = None) -> Any:
        """Raw value."""
        self.known.add(key)
        return self.data.get(key, default)

    def check(
        self, key: str, value: Any, low: float | None, high: float | None, low_open: bool
    ) -> float | None:
        """A finite number within the range, or a problem and None."""
        if isinstance(value, str):  # YAML 1.1 reads 1e9 (no dot) as text
            with contextlib.suppress(ValueError):
                value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.problem(key, f"{value!r} is not a number; expected {bounds_text(low, high, low_open)}")
            return None
        if (low is not None and (value < low or (low_open and value == low))) or (
            high is not None and value > high
        ):
            self.problem(key, f"{value:g} is out of range; expected {bounds_text(low, high, low_open)}")
            return None
        return float(value)

    def number(
        self,
        key: str,
        default: Any = REQUIRED,
        low: float | None = None,
        high: float | None = None,
        low_open: bool = False,
    ) -> float:
        """A number in range; a missing required one is a problem (and reads as NaN)."""
        if not self.has(key) or self.data[key] is None:
            if default is REQUIRED:
                self.problem(key, f"missing; expected a number, {bounds_text(low, high, low_open)}")
                return math.nan
            return float(default) if default is not None else _ABSENT
        value = self.check(key, self.data[key], low, high, low_open)
        return math.nan if value is None else value

    def temperature(
        self, stem: str, default_K: Any = REQUIRED, low_K: float = 150.0, high_K: float = 3000.0
    ) -> float:
        """`stem_K` or `stem_C`, in K."""
        key_K, key_C = f"{stem}_K", f"{stem}_C"
        self.known |= {key_K, key_C}
        if key_K in self.data and key_C in self.data:
            self.problem(key_C, f"give either {key_C} or {key_K}, not both")
        if key_C in self.data:
            value = self.check(key_C, self.data[key_C], low_K - 273.15, high_K - 273.15, False)
            return math.nan if value is None else value + 273.15
        if key_K in self.data:
            value = self.check(key_K, self.data[key_K], low_K, high_K, False)
            return math.nan if value is None else value
        if default_K is REQUIRED:
            self.problem(key_C, f"missing; expected {key_C} or {key_K}")
            return math.nan
        return float(default_K) if default_K is not None else _ABSENT

    def integer(self, key: str, default: Any = REQUIRED, low: int = 0, high: int = 10**9) -> int:
        """A whole number in range."""
        if not self.has(key):
            if default is REQUIRED:
                self.problem(key, f"missing; expected a whole number from {low}")
                return low
            return int(default)
        value = self.data[key]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.problem(key, f"{value!r} is not a whole number between {low} and {high}")
            return low
        return value

    def numbers(
        self, key: str, count: int, default: Any = REQUIRED, low: float | None = None, low_open: bool = False
    ) -> list[float]:
        """`count` numbers, each in range."""
        if not self.has(key):
            if default is REQUIRED:
                self.problem(key, f"missing; expected {count} numbers")
                return [math.nan] * count
            return [float(v) for v in default]
        value = self.data[key]
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != count:
            self.problem(key, f"{value!r} is not a list of {count} numbers")
            return [math.nan] * count
        checked = [self.check(f"{key}[{i}]", v, low, None, low_open) for i, v in enumerate(value)]
        return [math.nan if v is None else v for v in checked]

    def wholes(self, key: str, count: int, default: Sequence[int], low: int) -> list[int]:
        """`count` whole numbers from `low`; the default where they are wrong, so that reading goes on."""
        found = self.numbers(key, count, default, low=low)
        for i, value in enumerate(found):
            if math.isfinite(value) and value != int(value):
                self.problem(f"{key}[{i}]", f"{value:g} is not a whole number; expected at least {low}")
        if any(not math.isfinite(v) or v != int(v) for v in found):
            return list(default)
        return [int(v) for v in found]

    def text(self, key: str, default: Any = REQUIRED, among: Sequence[str] | None = None) -> str:
        """A string, among the given ones when stated."""
        if not self.has(key):
            if default is REQUIRED:
                expected = f"one of {', '.join(among)}" if among else "a text"
                self.problem(key, f"missing; expected {expected}")
                return among[0] if among else ""
            return str(default) if default is not None else ""
        value = self.data[key]
        if not isinstance(value, str) or (among is not None and value not in among):
            expected = f"one of {', '.join(among)}" if among else "a text"
            near = difflib.get_close_matches(str(value), among or [], 1)
            self.problem(
                key, f"{value!r}; expected {expected}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
            return among[0] if among else ""
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            self.problem(key, f"{value!r} is not true or false")
            return default
        return value

    def mapping(self, key: str) -> Reader:
        """Reader of a nested mapping (empty when absent)."""
        return Reader(self.get(key), self.at(key), self.problems)

    def items(self, key: str) -> list[Reader]:
        """Readers of a list of mappings (empty when absent)."""
        value = self.get(key) or []
        if not isinstance(value, Sequence) or isinstance(value, str):
            self.problem(key, "must be a list")
            return []
        return [Reader(item, f"{self.at(key)}[{i}]", self.problems) for i, item in enumerate(value)]

    def finish(self) -> None:
        """Every key that nobody asked for is a problem."""
        for key in self.data:
            if key not in self.known:
                near = difflib.get_close_matches(key, sorted(self.known), 1)
                hint = (
                    f"; did you mean {near[0]!r}?"
                    if near
                    else f"; known here: {', '.join(sorted(self.known))}"
                )
                self.problem(key, "unknown key" + hint)
