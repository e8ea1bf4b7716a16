"""Keep the grid import below a limit; refill when there is room below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from twin.scenario.fields import quantity
from twin.world.dispatch.base import SiteFacts, SiteView


@dataclass(frozen=True, kw_only=True)
class PeakShaving:
    """Discharges what exceeds `limit`; below `reserve` it refills from the grid up to `refill_limit`."""

    needs: ClassVar[tuple[str, ...]] = ("load",)
    limit_W: float = quantity("power", "grid import not to exceed", key="limit", above=0.0)
    reserve_soc: float = quantity(
        "fraction",
        "state of charge kept for peaks; refilled from the grid",
        key="reserve",
        default=0.3,
        minimum=0.0,
        maximum=1.0,
    )
    refill_limit_W: float = quantity(
        "power",
        "grid import while refilling; at most the limit",
        key="refill_limit",
        default=0.0,
        minimum=0.0,
    )

    def mistakes(self) -> list[tuple[str, str]]:
        if self.refill_limit_W > self.limit_W:
            return [("refill_limit", "is above the limit it would break")]
        return []

    def start(self, site: SiteFacts) -> PeakShaving:
        return self

    def reserve_W(self) -> float:
        return 0.0

    def power_W(self, view: SiteView) -> float:
        excess = view.residual_W - self.limit_W
        if excess > 0.0:
            return excess
        if view.soc < self.reserve_soc:
            ramp = min((self.reserve_soc - view.soc) / 0.02, 1.0)
            return -ramp * max(self.refill_limit_W - max(view.residual_W, 0.0), 0.0)
        return 0.0
