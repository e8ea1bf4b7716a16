"""What a fault is and what it may touch.

A fault is a frozen dataclass whose fields are its YAML keys; `at_s` and `target` are always there.
`apply` changes the plant or a sensor and returns what the event table should say; `clear`, when the
fault has an end, takes it away again. One that changes on its way also has `evolve(target, since_s)`,
called every second until it returns False.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from twin.world.pack import PackShard


@dataclass(frozen=True)
class FaultTarget:
    """A target path resolved: which shard, and which racks, packs and cell in its arrays."""

    path: str
    shard: PackShard
    racks: range
    packs: range
    cell: int | None = None


@dataclass(frozen=True)
class FaultNote:
    """One row for the event table."""

    value: float
    unit: str
    text: str


class Fault(Protocol):
    at_s: float
    target: str
    until_s: float | None

    def apply(self, target: FaultTarget) -> FaultNote: ...

    def clear(self, target: FaultTarget) -> FaultNote: ...
