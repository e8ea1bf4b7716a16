"""Cycles per function: the loop's count for each instruction address, added up between symbols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .elf import Symbol


@dataclass(frozen=True)
class FunctionCycles:
    """Cycles spent in a function itself (not in what it calls; sleep in it included)."""

    name: str
    address: int
    cycles: int
    share: float


def per_function(
    cycles: npt.NDArray[np.int64], addresses: npt.NDArray[np.int64], symbols: Sequence[Symbol]
) -> list[FunctionCycles]:
    """Attribute `cycles` at instruction `addresses` to the last function symbol at or before each; most
    first.

    cycles, addresses : (n,) in the same order
    """
    functions = sorted({s.address: s.name for s in reversed(symbols) if s.is_function}.items())
    starts = np.array([address for address, _ in functions], dtype=np.int64)
    owner = np.searchsorted(starts, addresses, side="right") - 1
    total = max(int(cycles.sum()), 1)
    rows = []
    for index in np.unique(owner):
        spent = int(cycles[owner == index].sum())
        name, address = (
            ("(no symbol)", int(addresses[owner == index].min())) if index < 0 else functions[index][::-1]
        )
        rows.append(FunctionCycles(name, address, spent, spent / total))
    return sorted(rows, key=lambda r: (-r.cycles, r.address))


def table(rows: Sequence[FunctionCycles]) -> str:
    """The profile as text."""
    lines = [f"{'cycles':>14}  {'share':>6}  function"]
    lines += [f"{r.cycles:14d}  {100 * r.share:5.1f}%  {r.name} (0x{r.address:08x})" for r in rows]
    return "\n".join(lines)
