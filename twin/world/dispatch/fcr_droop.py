"""Frequency containment reserve: power proportional to the frequency deviation.

Rules of the continental European product (Commission Regulation (EU) 2017/1485, Annex V and the
common FCR cooperation terms): full activation at 200 mHz, symmetric, frequency insensitivity of at
most 10 mHz, activation without artificial delay. Storage of limited energy may follow a set-point
that brings the state of charge back; it is limited to a small share of the prequalified power here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from twin.scenario.fields import quantity
from twin.world.dispatch.base import SiteFacts, SiteView


@dataclass(frozen=True, kw_only=True)
class FcrDroop:
    """Discharges when the frequency is low, charges when it is high."""

    needs: ClassVar[tuple[str, ...]] = ("frequency",)
    offered_W: float = quantity("power", "prequalified power, both directions", key="power", above=0.0)
    nominal_Hz: float = quantity("frequency", "nominal frequency", key="nominal", default=50.0, above=0.0)
    full_activation_Hz: float = quantity(
        "frequency", "deviation of full activation", key="full_activation", default=0.2, above=0.0
    )
    deadband_Hz: float = quantity("frequency", "insensitivity", key="deadband", default=0.01, minimum=0.0)
    recharge: float = quantity(
        "fraction",
        "share of the power used to bring the state of charge back",
        key="recharge",
        default=0.1,
        minimum=0.0,
        maximum=0.5,
    )
    soc_low: float = quantity(
        "fraction", "recharge below", key="soc_low", default=0.3, minimum=0.0, maximum=1.0
    )
    soc_high: float = quantity(
        "fraction", "discharge above", key="soc_high", default=0.8, minimum=0.0, maximum=1.0
    )

    def mistakes(self) -> list[tuple[str, str]]:
        found = []
        if self.deadband_Hz >= self.full_activation_Hz:
            found.append(("deadband", "is not below full_activation"))
        if self.soc_low >= self.soc_high:
            found.append(("soc_low", "is not below soc_high"))
        return found

    def start(self, site: SiteFacts) -> FcrDroop:
        return self

    def reserve_W(self) -> float:
        return self.offered_W

    def power_W(self, view: SiteView) -> float:
        deviation = view.frequency_Hz - self.nominal_Hz
        if abs(deviation) <= self.deadband_Hz:
            power = 0.0
        else:
            power = -self.offered_W * min(max(deviation / self.full_activation_Hz, -1.0), 1.0)
        if view.soc < self.soc_low:
            power -= self.recharge * self.offered_W
        elif view.soc > self.soc_high:
            power += self.recharge * self.offered_W
        return min(max(power, -self.offered_W), self.offered_W)
