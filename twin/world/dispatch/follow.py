"""Follow a schedule: a power profile, or a state-of-charge profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from twin.scenario.fields import profile, quantity
from twin.scenario.profiles import Profile
from twin.scenario.schema import ProfileSpec
from twin.world.dispatch.base import SiteFacts, SiteView


@dataclass(frozen=True, kw_only=True)
class FollowPower:
    """Serves a power profile, discharge positive."""

    needs: ClassVar[tuple[str, ...]] = ()
    power: ProfileSpec | Profile = profile("AC power to serve, discharge positive", dimension="power")

    def start(self, site: SiteFacts) -> FollowPower:
        return self

    def reserve_W(self) -> float:
        return 0.0

    def power_W(self, view: SiteView) -> float:
        assert isinstance(self.power, Profile)  # resolved by assemble.py
        return self.power.at(view.t_s)


@dataclass(frozen=True, kw_only=True)
class FollowSoc:
    """Reaches a state-of-charge profile: the duty of a storage whose SOC was recorded."""

    needs: ClassVar[tuple[str, ...]] = ()
    soc: ProfileSpec | Profile = profile("state of charge to follow", dimension="fraction", hold="linear")
    horizon_s: float = quantity(
        "time", "time in which a deviation is made up", key="horizon", default=900.0, above=0.0
    )

    def start(self, site: SiteFacts) -> FollowSocController:
        assert isinstance(self.soc, Profile)
        return FollowSocController(self, self.soc, site.energy_J)

    def reserve_W(self) -> float:
        return 0.0


@dataclass(frozen=True)
class FollowSocController:
    rules: FollowSoc
    soc: Profile
    energy_J: float

    def power_W(self, view: SiteView) -> float:
        wanted = self.soc.at(view.t_s + self.rules.horizon_s)
        return (view.soc - wanted) * self.energy_J / self.rules.horizon_s
