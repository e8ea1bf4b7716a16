"""An electric vehicle's day: drives on a speed profile, then a charger.

Longitudinal dynamics: P = v (m a + m g c_rr + rho/2 c_d A v^2), driven and recuperated through one
efficiency, plus auxiliaries while driving (Guzzella and Sciarretta, Vehicle Propulsion Systems, 2013,
ch. 2; level road).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from twin.scenario.fields import integer, profile, quantity
from twin.scenario.profiles import Profile
from twin.scenario.schema import ProfileSpec
from twin.world.dispatch.base import SiteFacts, SiteView

GRAVITY_M_PER_S2 = 9.80665
AIR_KG_PER_M3 = 1.204  # dry air at 20 degC and 101.325 kPa (ISO 2533)


@dataclass(frozen=True, kw_only=True)
class Drive:
    """Drives the cycle `times` times, beginning at `at`."""

    needs: ClassVar[tuple[str, ...]] = ()
    at_s: float = quantity("time", "departure", key="at", minimum=0.0)
    cycle: ProfileSpec | Profile = profile("speed", dimension="speed", hold="linear", whole=True)
    times: int = integer("repetitions of the cycle", default=1, minimum=1, maximum=1000)
    mass_kg: float = quantity("mass", "vehicle and load", key="mass", default=2000.0, above=0.0)
    drag_area_m2: float = quantity(
        "area", "drag coefficient times frontal area", key="drag_area", default=0.6, above=0.0
    )
    rolling: float = quantity(
        "fraction", "rolling resistance coefficient", key="rolling", default=0.009, minimum=0.0, maximum=0.1
    )
    efficiency: float = quantity(
        "fraction", "battery to wheel, and back", key="efficiency", default=0.88, above=0.0, maximum=1.0
    )
    auxiliary_W: float = quantity(
        "power", "auxiliaries while driving", key="auxiliary", default=500.0, minimum=0.0
    )

    def start(self, site: SiteFacts) -> DriveController:
        assert isinstance(self.cycle, Profile)
        return DriveController(self, self.cycle)

    def reserve_W(self) -> float:
        return 0.0


class DriveController:
    def __init__(self, rules: Drive, cycle: Profile) -> None:
        self.rules = rules
        self.cycle = cycle
        self.length_s = float(cycle.time_s[-1])

    def power_W(self, view: SiteView) -> float:
        rules = self.rules
        since = view.t_s - rules.at_s
        if not 0.0 <= since < rules.times * self.length_s:
            return 0.0
        t = since % self.length_s
        v0 = self.cycle.at(t)
        v1 = self.cycle.at(min(t + view.dt_s, self.length_s))
        v, a = 0.5 * (v0 + v1), (v1 - v0) / view.dt_s
        rolling = rules.mass_kg * GRAVITY_M_PER_S2 * rules.rolling if v > 0.0 else 0.0
        wheel = v * (rules.mass_kg * a + rolling + 0.5 * AIR_KG_PER_M3 * rules.drag_area_m2 * v * v)
        return (wheel / rules.efficiency if wheel > 0.0 else wheel * rules.efficiency) + rules.auxiliary_W


@dataclass(frozen=True, kw_only=True)
class Charge:
    """Plugged in from `at` on, charges until a state of charge; the BMS limits taper the current."""

    needs: ClassVar[tuple[str, ...]] = ()
    at_s: float = quantity("time", "plug in", key="at", minimum=0.0)
    until_s: float | None = quantity(
        "time", "plug out; the end of the scenario when not given", key="until", default=None, minimum=0.0
    )
    charger_W: float = quantity("power", "charger", key="power", above=0.0)
    until_soc: float = quantity("fraction", "stop at", key="until_soc", default=0.8, minimum=0.0, maximum=1.0)

    def start(self, site: SiteFacts) -> ChargeController:
        return ChargeController(self)

    def reserve_W(self) -> float:
        return 0.0


class ChargeController:
    def __init__(self, rules: Charge) -> None:
        self.rules = rules
        self.done = False

    def power_W(self, view: SiteView) -> float:
        rules = self.rules
        if view.t_s < rules.at_s or (rules.until_s is not None and view.t_s >= rules.until_s) or self.done:
            return 0.0
        if view.soc >= rules.until_soc:
            self.done = True
            return 0.0
        return -rules.charger_W
