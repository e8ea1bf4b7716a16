"""A weak cell: less capacity, more resistance than its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from twin.scenario.fields import quantity
from twin.scenario.fields import target as target_field
from twin.world.faults.base import FaultNote, FaultTarget


@dataclass(frozen=True, kw_only=True)
class CellOutlier:
    """A weak cell: factors on its capacity and resistance, on top of its drawn spread."""

    at_s: float = quantity("time", "when it appears", key="at", default=0.0, minimum=0.0)
    until_s: float | None = quantity("time", "when it disappears", key="until", default=None)
    target: str = target_field("the cell", level="cell")
    capacity: float = quantity(
        "fraction", "capacity, of what it was", key="capacity", default=1.0, minimum=0.05, maximum=2.0
    )
    resistance: float = quantity(
        "fraction", "resistance, of what it was", key="resistance", default=1.0, minimum=0.1, maximum=100.0
    )

    def apply(self, target: FaultTarget) -> FaultNote:
        return self._scale(target, self.capacity, self.resistance)

    def clear(self, target: FaultTarget) -> FaultNote:
        return self._scale(target, 1.0 / self.capacity, 1.0 / self.resistance)

    def _scale(self, target: FaultTarget, capacity: float, resistance: float) -> FaultNote:
        assert target.cell is not None
        target.shard.cells.scale_cell(target.cell, capacity_factor=capacity, resistance_factor=resistance)
        return FaultNote(capacity, "1", f"capacity x {capacity:.3g}, resistance x {resistance:.3g}")
