"""An internal short circuit: a resistor across one cell, inside it, its heat in the cell.

It may grow: shorts of dendrites and particles take weeks from kilo-ohms to ohms and minutes from there to a
hard short, roughly straight in the logarithm of the resistance.
"""

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
    final_ohm: float | None = quantity(
        "resistance",
        "it ends at, growing in the logarithm",
        key="grows_to",
        default=None,
        minimum=1e-4,
        maximum=1e6,
    )
    growth_s: float | None = quantity("time", "it takes to grow", key="within", default=None, above=0.0)

    def mistakes(self) -> list[tuple[str, str]]:
        """Called by the loader when every field is well-formed."""
        if (self.final_ohm is None) != (self.growth_s is None):
            given, missing = ("grows_to", "within") if self.growth_s is None else ("within", "grows_to")
            return [(given, f"{given} needs {missing} beside it")]
        if self.final_ohm is not None and self.final_ohm >= self.resistance_ohm:
            return [("grows_to", "a short grows to a smaller resistance than it begins with")]
        return []

    def apply(self, target: FaultTarget) -> FaultNote:
        note = self._set(target, self.resistance_ohm, "internal short of {:g} ohm")
        if self.final_ohm is None:
            return note
        text = f"{note.text}, growing to {self.final_ohm:g} ohm"
        return FaultNote(note.value, note.unit, text)

    def clear(self, target: FaultTarget) -> FaultNote:
        return self._set(target, math.inf, "internal short healed")

    def evolve(self, target: FaultTarget, since_s: float) -> bool:
        """The short as it is since_s after it began; False when it changes no more."""
        if self.final_ohm is None or self.growth_s is None:
            return False
        share = min(since_s / self.growth_s, 1.0)
        ohm = self.resistance_ohm * (self.final_ohm / self.resistance_ohm) ** share
        assert target.cell is not None
        if target.shard.abuse is not None and target.shard.abuse.collapsed[target.cell]:
            return False  # nothing of the cell is left to short
        self._set(target, ohm, "")
        return share < 1.0

    def _set(self, target: FaultTarget, resistance_ohm: float, text: str) -> FaultNote:
        assert target.cell is not None
        target.shard.cells.set_internal_short(target.cell, resistance_ohm)
        target.shard.short_ohm[target.cell] = resistance_ohm
        return FaultNote(resistance_ohm, "ohm", text.format(resistance_ohm))
