"""An open fuse: the connection of one cell to its group is gone, the cell itself is as it was."""

from __future__ import annotations

from dataclasses import dataclass

from twin.scenario.fields import quantity
from twin.scenario.fields import target as target_field
from twin.world.faults.base import FaultNote, FaultTarget


@dataclass(frozen=True, kw_only=True)
class OpenFuse:
    """The fuse (or bond wire) of one cell opens; its neighbours carry the group's current."""

    at_s: float = quantity("time", "when it opens", key="at", minimum=0.0)
    until_s: float | None = quantity("time", "when it is replaced", key="until", default=None)
    target: str = target_field("the cell", level="cell")

    def apply(self, target: FaultTarget) -> FaultNote:
        return self._set(target, True, "fuse of the cell opens")

    def clear(self, target: FaultTarget) -> FaultNote:
        return self._set(target, False, "fuse of the cell replaced")

    def _set(self, target: FaultTarget, is_open: bool, text: str) -> FaultNote:
        assert target.cell is not None
        target.shard.cells.set_open_fuse(target.cell, is_open)
        return FaultNote(float(is_open), "1", text)
