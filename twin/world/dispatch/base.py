"""What a dispatch strategy sees and answers.

A strategy is a frozen dataclass whose fields are its YAML keys (twin/scenario/fields.py). `start`
makes the controller of one site; each step the controller answers the AC power it wants from the
site's racks, positive on discharge. Strategies of a site are added up in their order, each sees what those
before it ask for; one that must be able to act at any time (frequency containment) reserves power, which
the others leave free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from twin.scenario.profiles import Profile


@dataclass(frozen=True)
class SiteFacts:
    """What does not change during a run. Times in s from the start of the scenario."""

    power_W: float  # rated AC power of all racks
    energy_J: float  # nominal energy of all packs
    duration_s: float
    price: Profile | None = None  # day-ahead prices are known in advance


@dataclass
class SiteView:
    """The site at the start of a step; measured and reported values only. NaN where there is no meter."""

    t_s: float = 0.0
    dt_s: float = 1.0
    load_W: float = 0.0
    pv_W: float = 0.0
    frequency_Hz: float = 50.0
    price_per_J: float = 0.0
    soc: float = 0.5  # energy-weighted mean of the BMSs' estimates
    can_discharge_W: float = 0.0  # what BMSs and converters allow now
    can_charge_W: float = 0.0
    asked_W: float = 0.0  # by the strategies before this one, reserves apart

    @property
    def residual_W(self) -> float:
        """Consumption left after photovoltaics and the strategies before; negative is a surplus."""
        return self.load_W - self.pv_W - self.asked_W


class Controller(Protocol):
    def power_W(self, view: SiteView) -> float:
        """Wanted AC power of the site's racks, discharge positive."""


class Strategy(Protocol):
    needs: ClassVar[tuple[str, ...]]  # profiles the site must have: load, pv, price, frequency

    def start(self, site: SiteFacts) -> Controller: ...

    def reserve_W(self) -> float:
        """Power kept free in both directions for this strategy alone."""
