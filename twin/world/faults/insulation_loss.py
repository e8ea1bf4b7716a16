"""Loss of insulation: moisture, coolant or soot between the high-voltage side and the housing."""

from __future__ import annotations

from dataclasses import dataclass

from twin.scenario.fields import quantity
from twin.scenario.fields import target as target_field
from twin.world.faults.base import FaultNote, FaultTarget
from twin.world.pack import HEALTHY_INSULATION_OHM


@dataclass(frozen=True, kw_only=True)
class InsulationLoss:
    """The insulation of one pack falls to a resistance; without a monitor nobody sees it."""

    at_s: float = quantity("time", "when it begins", key="at", minimum=0.0)
    until_s: float | None = quantity("time", "when it is dry again", key="until", default=None)
    target: str = target_field("the pack", level="pack")
    resistance_ohm: float = quantity(
        "resistance", "that is left", key="resistance", above=0.0, maximum=HEALTHY_INSULATION_OHM
    )

    def apply(self, target: FaultTarget) -> FaultNote:
        return self._set(target, self.resistance_ohm, "insulation falls to {:g} ohm")

    def clear(self, target: FaultTarget) -> FaultNote:
        return self._set(target, HEALTHY_INSULATION_OHM, "insulation is {:g} ohm again")

    def _set(self, target: FaultTarget, resistance_ohm: float, text: str) -> FaultNote:
        target.shard.housing.insulation_ohm[target.packs.start : target.packs.stop] = resistance_ohm
        return FaultNote(resistance_ohm, "ohm", text.format(resistance_ohm))
