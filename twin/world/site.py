"""A site: meters, dispatch, and its racks behind one grid connection."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from twin.ports import FloatArray, IntArray
from twin.scenario.profiles import Profile
from twin.world.container import ContainerAir
from twin.world.dispatch.base import Controller, SiteView
from twin.world.pack import PackShard


@dataclass(frozen=True)
class RackSlice:
    """Racks of this site in one shard, and their packs; both contiguous there."""

    shard: PackShard
    racks: slice
    packs: slice


METERS = (
    "power_requested_W",
    "power_served_W",
    "power_dc_W",
    "converter_loss_W",
    "auxiliary_W",
    "load_W",
    "pv_W",
    "grid_import_W",
    "price_per_J",
)


class Meter:
    """Means of the columns METERS between two readings."""

    def __init__(self) -> None:
        self._sum = np.zeros(len(METERS))
        self._time_s = 0.0

    def add(self, values: tuple[float, ...], dt_s: float) -> None:
        self._sum += np.array(values) * dt_s
        self._time_s += dt_s

    def take(self) -> FloatArray:
        mean = self._sum / self._time_s
        self._sum[:] = 0.0
        self._time_s = 0.0
        return mean


@dataclass
class SiteLedger:
    """Cumulative energies in J; positive out of the battery, into the load, from PV, from the grid."""

    requested_J: float = 0.0
    served_J: float = 0.0
    charged_J: float = 0.0
    discharged_J: float = 0.0
    load_J: float = 0.0
    pv_J: float = 0.0
    grid_J: float = 0.0
    auxiliary_J: float = 0.0
    hvac_J: float = 0.0  # part of auxiliary_J
    cost: float = 0.0  # currency of the price; negative is earned


@dataclass
class SiteControl:
    """Asks the dispatch strategies, divides their wish among the racks, reads the meters afterwards."""

    name: str
    racks: tuple[RackSlice, ...]
    ambient: Profile
    load: Profile | None
    pv: Profile | None
    price: Profile | None
    frequency: Profile | None
    controllers: tuple[tuple[Controller, float], ...]  # with the power each reserves
    container: ContainerAir | None = None
    view: SiteView = field(default_factory=SiteView)
    ledger: SiteLedger = field(default_factory=SiteLedger)
    meter: Meter = field(default_factory=Meter)
    requested_W: float = 0.0
    served_W: float = 0.0
    grid_W: float = 0.0
    ambient_K: float = 298.15  # around the racks
    outside_K: float = 298.15

    def __post_init__(self) -> None:
        self.reserved_W = sum(reserve for _, reserve in self.controllers)
        self.energy_J = float(sum(s.shard.nominal_energy_J[s.packs].sum() for s in self.racks))

        self._lost_before_J = 0.0

    def _lost_J(self) -> float:
        """Heat the packs have given to the air around them."""
        return float(sum(s.shard.thermal.to_ambient_J[s.packs].sum() for s in self.racks))

    def prepare(self, t_s: float, dt_s: float) -> None:
        """Before a step from t_s to t_s + dt_s: meters (mean of the step), requests to all racks."""
        view = self.view
        view.t_s, view.dt_s = t_s, dt_s
        middle = t_s + 0.5 * dt_s
        self.outside_K = self.ambient.at(middle)
        self.ambient_K = self.outside_K if self.container is None else self.container.air_K
        view.load_W = self.load.at(middle) if self.load else 0.0
        view.pv_W = self.pv.at(middle) if self.pv else 0.0
        view.frequency_Hz = self.frequency.at(t_s) if self.frequency else np.nan
        view.price_per_J = self.price.at(middle) if self.price else np.nan
        discharge = charge = stored = 0.0
        for part in self.racks:
            discharge += float(part.shard.rack_can_discharge_W[part.racks].sum())
            charge += float(part.shard.rack_can_charge_W[part.racks].sum())
            stored += float(
                np.dot(part.shard.bms.commands.soc[part.packs], part.shard.nominal_energy_J[part.packs])
            )
        view.can_discharge_W, view.can_charge_W, view.soc = discharge, charge, stored / self.energy_J
        self.requested_W = self._dispatch(view)
        self._divide(self.requested_W, discharge, charge)

    def _dispatch(self, view: SiteView) -> float:
        """Sum of all strategies; those without a reserve share what the reserves leave."""
        shared = reserved = 0.0
        for controller, reserve in self.controllers:
            view.asked_W = shared
            power = controller.power_W(view)
            if reserve > 0.0:
                reserved += power
            else:
                shared += power
        if self.reserved_W > 0.0:
            shared = min(shared, max(view.can_discharge_W - self.reserved_W, 0.0))
            shared = max(shared, -max(view.can_charge_W - self.reserved_W, 0.0))
        return shared + reserved

    def _divide(self, power_W: float, discharge_W: float, charge_W: float) -> None:
        """Each rack takes the share of its capability in this direction."""
        total = discharge_W if power_W >= 0.0 else charge_W
        fraction = power_W / total if total > 0.0 else 0.0
        fraction = min(max(fraction, -1.0), 1.0)
        for part in self.racks:
            can = part.shard.rack_can_discharge_W if power_W >= 0.0 else part.shard.rack_can_charge_W
            np.multiply(can[part.racks], fraction, out=part.shard.rack_request_W[part.racks])

    def settle(self, dt_s: float) -> None:
        """After the step: what the grid meter saw."""
        served = dc = auxiliary = 0.0
        for part in self.racks:
            served += float(part.shard.rack_ac_W[part.racks].sum())
            dc += float(part.shard.rack_dc_W[part.racks].sum())
            auxiliary += float(part.shard.thermal.auxiliary_W[part.packs].sum())
        if self.container is not None:
            lost_J = self._lost_J()
            heat_W = (lost_J - self._lost_before_J) / dt_s
            self._lost_before_J = lost_J
            heat_W += self.container.design.converter_share * (dc - served)
            self.container.step(heat_W, self.outside_K, dt_s)
            auxiliary += self.container.electric_W
            self.ledger.hvac_J += self.container.electric_W * dt_s
        self.served_W = served
        view = self.view
        self.grid_W = view.load_W - view.pv_W - served + auxiliary
        self.meter.add(
            (
                self.requested_W,
                served,
                dc,
                dc - served,
                auxiliary,
                view.load_W if self.load else np.nan,
                view.pv_W if self.pv else np.nan,
                self.grid_W,
                view.price_per_J,
            ),
            dt_s,
        )
        ledger = self.ledger
        ledger.requested_J += self.requested_W * dt_s
        ledger.served_J += served * dt_s
        ledger.charged_J += max(-served, 0.0) * dt_s
        ledger.discharged_J += max(served, 0.0) * dt_s
        ledger.load_J += self.view.load_W * dt_s
        ledger.pv_J += self.view.pv_W * dt_s
        ledger.grid_J += self.grid_W * dt_s
        ledger.auxiliary_J += auxiliary * dt_s
        if self.price:
            ledger.cost += self.grid_W * dt_s * self.view.price_per_J


def ambient_of_packs(sites: tuple[SiteControl, ...], site_of_pack: IntArray) -> FloatArray:
    """Ambient temperature of each pack, K."""
    return np.array([site.ambient_K for site in sites])[site_of_pack]
