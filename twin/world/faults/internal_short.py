"""An internal short circuit: a resistor across one cell, inside it, its heat in the cell."""

from __future__ import annotations

import math
from dataclasses import dataclass

from twin.scenario.fields import quantity
from twin.scenario.fields import target as target_field
from twin.world.faults.base import FaultNote, FaultTarget


@dataclass(frozen=True, kw_only=True)
class InternalShort:
    """A resistor across one cell; 40 ohm draws about 90 mA, a hard short is below 1 ohm."""

    at_s: float = quantity("time", "when it begins", key="at", minimum=0.0)
    until_s: float | None = quantity("time", "when it heals (burnt-off dendrite)", key="until", default=None)
    target: str = target_field("the cell", level="cell")
    resistance_ohm: float = quantity(
        "resistance", "of the short", key="resistance", above=0.0, minimum=1e-4, maximum=1e6
    )

    def apply(self, target: FaultTarget) -> FaultNote:
        return self._set(target, self.resistance_ohm, "internal short of {:g} ohm")

    def clear(self, target: FaultTarget) -> FaultNote:
        return self._set(target, math.inf, "internal short healed")

    def _set(self, target: FaultTarget, resistance_ohm: float, text: str) -> FaultNote:
        assert target.cell is not None
        target.shard.cells.set_internal_short(target.cell, resistance_ohm)
        target.shard.short_ohm[target.cell] = resistance_ohm
        return FaultNote(resistance_ohm, "ohm", text.format(resistance_ohm))
