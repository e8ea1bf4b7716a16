"""A cooling failure: the BMS may ask, less or nothing comes."""

from __future__ import annotations

from dataclasses import dataclass

from twin.scenario.fields import quantity
from twin.scenario.fields import target as target_field
from twin.world.faults.base import FaultNote, FaultTarget


@dataclass(frozen=True, kw_only=True)
class CoolingFailure:
    """All packs of a rack lose their coolant flow or fan."""

    at_s: float = quantity("time", "when it begins", key="at", minimum=0.0)
    until_s: float | None = quantity("time", "when it is repaired", key="until", default=None)
    target: str = target_field("the rack", level="rack")
    remaining: float = quantity(
        "fraction", "cooling that is left", key="remaining", default=0.0, minimum=0.0, maximum=1.0
    )

    def apply(self, target: FaultTarget) -> FaultNote:
        return self._set(target, self.remaining, "cooling fails, {:.0%} left")

    def clear(self, target: FaultTarget) -> FaultNote:
        return self._set(target, 1.0, "cooling repaired")

    def _set(self, target: FaultTarget, works: float, text: str) -> FaultNote:
        target.shard.cooling_works[target.packs.start : target.packs.stop] = works
        return FaultNote(works, "1", text.format(works))
