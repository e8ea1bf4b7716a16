"""Contactor faults: main contactors that stay closed, or do not close, whatever the BMS commands.

The auxiliary contacts tell the BMS the truth: they are what it sees the fault by.
"""

from __future__ import annotations

from dataclasses import dataclass

from twin.scenario.fields import quantity
from twin.scenario.fields import target as target_field
from twin.world.faults.base import FaultNote, FaultTarget
from twin.world.pack import AS_COMMANDED, STUCK_OPEN, WELDED


@dataclass(frozen=True, kw_only=True)
class _ContactorFault:
    at_s: float = quantity("time", "when it happens", key="at", minimum=0.0)
    until_s: float | None = quantity("time", "when it is replaced", key="until", default=None)
    target: str = target_field("the pack", level="pack")

    def _set(self, target: FaultTarget, state: int, text: str) -> FaultNote:
        target.shard.contactors[target.packs.start : target.packs.stop] = state
        return FaultNote(float(state), "1", text)

    def clear(self, target: FaultTarget) -> FaultNote:
        return self._set(target, AS_COMMANDED, "main contactors replaced")


@dataclass(frozen=True, kw_only=True)
class ContactorWelded(_ContactorFault):
    """The main contactors of a pack weld: they are closed and do not open."""

    def apply(self, target: FaultTarget) -> FaultNote:
        return self._set(target, WELDED, "main contactors are welded")


@dataclass(frozen=True, kw_only=True)
class ContactorStuck(_ContactorFault):
    """The main contactors of a pack open and do not close again (coil or driver)."""

    def apply(self, target: FaultTarget) -> FaultNote:
        return self._set(target, STUCK_OPEN, "main contactors are stuck open")
