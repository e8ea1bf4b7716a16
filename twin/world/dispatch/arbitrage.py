"""Buy cheap, sell dear on a day-ahead price that is known a day in advance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twin.scenario.fields import quantity
from twin.scenario.profiles import Profile
from twin.world.dispatch.base import SiteFacts, SiteView

DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Arbitrage:
    """Charges in the cheapest, discharges in the dearest part of a day, if the spread pays the losses."""

    needs: ClassVar[tuple[str, ...]] = ("price",)
    power_limit_W: float = quantity("power", "power of each trade", key="power", above=0.0)
    share: float = quantity(
        "fraction",
        "part of the day to charge, and to discharge",
        key="share",
        default=0.15,
        above=0.0,
        maximum=0.5,
    )
    efficiency: float = quantity(
        "fraction",
        "round-trip efficiency assumed when judging a spread",
        key="efficiency",
        default=0.85,
        above=0.0,
        maximum=1.0,
    )
    soc_min: float = quantity(
        "fraction", "no discharge below", key="soc_min", default=0.1, minimum=0.0, maximum=1.0
    )
    soc_max: float = quantity(
        "fraction", "no charge above", key="soc_max", default=0.9, minimum=0.0, maximum=1.0
    )

    def start(self, site: SiteFacts) -> ArbitrageController:
        assert site.price is not None  # `needs` was checked by the loader
        return ArbitrageController(self, site.price, site.duration_s)

    def reserve_W(self) -> float:
        return 0.0


class ArbitrageController:
    """Thresholds of each day, computed once from that day's prices."""

    def __init__(self, rules: Arbitrage, price: Profile, duration_s: float) -> None:
        self.rules = rules
        self.buy_below: list[float] = []
        self.sell_above: list[float] = []
        quarters_s = np.arange(0.0, DAY_S, 900.0)
        n = max(1, round(rules.share * quarters_s.size))
        for day in range(int(duration_s // DAY_S) + 1):
            today = np.sort(price.at(day * DAY_S + quarters_s))
            pays = today[-n:].mean() * rules.efficiency > today[:n].mean()
            self.buy_below.append(float(today[n - 1]) if pays else -np.inf)
            self.sell_above.append(float(today[-n]) if pays else np.inf)

    def power_W(self, view: SiteView) -> float:
        day = int(view.t_s // DAY_S)
        if view.price_per_J <= self.buy_below[day] and view.soc < self.rules.soc_max:
            return -self.rules.power_limit_W
        if view.price_per_J >= self.sell_above[day] and view.soc > self.rules.soc_min:
            return self.rules.power_limit_W
        return 0.0
