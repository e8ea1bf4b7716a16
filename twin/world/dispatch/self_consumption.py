"""Use one's own photovoltaics: charge from surplus, discharge into the load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from twin.scenario.fields import quantity
from twin.world.dispatch.base import SiteFacts, SiteView


@dataclass(frozen=True, kw_only=True)
class SelfConsumption:
    """Keeps the grid connection at zero while the state of charge is between its bounds."""

    needs: ClassVar[tuple[str, ...]] = ("load", "pv")
    soc_min: float = quantity(
        "fraction", "no discharge below", key="soc_min", default=0.1, minimum=0.0, maximum=1.0
    )
    soc_max: float = quantity(
        "fraction", "no charge above", key="soc_max", default=0.95, minimum=0.0, maximum=1.0
    )
    taper: float = quantity(
        "fraction",
        "width of the ramp down to zero power at each bound",
        key="taper",
        default=0.02,
        above=0.0,
        maximum=0.5,
    )

    def mistakes(self) -> list[tuple[str, str]]:
        return [] if self.soc_min < self.soc_max else [("soc_min", "is not below soc_max")]

    def start(self, site: SiteFacts) -> SelfConsumption:
        return self

    def reserve_W(self) -> float:
        return 0.0

    def power_W(self, view: SiteView) -> float:
        wanted = view.residual_W
        room = (view.soc - self.soc_min) if wanted > 0.0 else (self.soc_max - view.soc)
        return wanted * min(max(room / self.taper, 0.0), 1.0)
