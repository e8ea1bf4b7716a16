"""Errors of the propagation package: each says where, what was said, and what is possible."""

from __future__ import annotations


class PropagationError(Exception):
    """Base of everything this package raises on purpose."""


class CaseError(PropagationError):
    """One or more mistakes in a case file or a kinetic set; all of them are listed at once.

    Parameters
    ----------
    where : name of the file (or other source) that is wrong
    problems : one line per mistake, each starting with the path of the key
    """

    def __init__(self, where: str, problems: list[str]) -> None:
        self.where = where
        self.problems = problems
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__("\n".join([*(f"{where}: {line}" for line in problems), f"{count}; nothing was run"]))


class MissingDolfinxError(PropagationError):
    """No interpreter with dolfinx was found."""


class SolverError(PropagationError):
    """A solver failed during a run; the message says when and what to change. Results so far are partial."""
