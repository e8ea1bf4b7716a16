"""What a wrong scenario looks like on the screen: place, path, what was said, what is possible, a guess.

    scenarios/depot.yaml:12:15: sites[0].pack.design: no pack named 'bus_l4s'
        12 |       design: bus_l4s
           |               ^^^^^^^
      expected one of bus_14s, container_20s, home_16s
      did you mean 'bus_14s'?

    1 problem in scenarios/depot.yaml; nothing was run.

A `ScenarioError` always carries every problem that could be found, in the order of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from twin.units import closest

_WIDTH = 110  # columns of source text shown around the caret


@dataclass(frozen=True)
class Problem:
    """One mistake. `line` and `column` count from 1; 0 means the file as a whole."""

    file: str
    message: str
    line: int = 0
    column: int = 0
    path: str = ""
    expected: str = ""
    guess: str | None = None
    source: str = ""  # the line of the file, for the excerpt; empty: no excerpt
    length: int = 1  # characters underlined

    def render(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        lines = [place + (f"{self.path}: " if self.path else "") + self.message]
        if self.line and self.source:
            lines += self._excerpt()
        if self.expected:
            lines.append(f"  expected {self.expected}")
        if self.guess:
            lines.append(f"  did you mean '{self.guess}'?")
        return "\n".join(lines)

    def _excerpt(self) -> list[str]:
        # Tabs and control characters would shift the caret.
        text = "".join(c if c.isprintable() else " " for c in self.source)
        start = min(self.column - 1, len(text))
        length = max(1, min(self.length, len(text) - start))
        if len(text) > _WIDTH:
            left = max(0, min(start - 20, len(text) - _WIDTH))
            text = (
                ("…" if left else "")
                + text[left : left + _WIDTH]
                + ("…" if left + _WIDTH < len(text) else "")
            )
            start = start - left + (1 if left else 0)
            length = max(1, min(length, len(text) - start))
        number = str(self.line).rjust(6)
        return [f"{number} | {text}".rstrip(), f"{' ' * 6} | {' ' * start}{'^' * length}"]


class ScenarioError(Exception):
    """Everything wrong with a scenario, found before anything runs; `str()` is the text for the screen."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem], scenario: str) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.scenario = scenario
        super().__init__(self.problems, scenario)

    def __str__(self) -> str:
        n = len(self.problems)
        blocks = [p.render() for p in self.problems]
        blocks.append(f"{n} problem{'' if n == 1 else 's'} in {self.scenario}; nothing was run.")
        return "\n\n".join(blocks)


def one_of(options: Sequence[str], most: int = 16) -> str:
    """'one of a, b, c' for the `expected` line; long lists are cut and say so."""
    if not options:
        return "nothing here: none exist"
    if len(options) == 1:
        return options[0]
    shown = ", ".join(options[:most])
    more = len(options) - most
    return f"one of {shown}" + (f" and {more} more (twin list)" if more > 0 else "")


__all__ = ["Problem", "ScenarioError", "closest", "one_of"]
