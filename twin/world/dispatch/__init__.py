"""Dispatch strategies: one file each, and a row here. The word is what a scenario says under `strategy:`."""

from __future__ import annotations

from twin.world.dispatch.arbitrage import Arbitrage
from twin.world.dispatch.fcr_droop import FcrDroop
from twin.world.dispatch.follow import FollowPower, FollowSoc
from twin.world.dispatch.peak_shaving import PeakShaving
from twin.world.dispatch.self_consumption import SelfConsumption
from twin.world.dispatch.vehicle import Charge, Drive

STRATEGIES: dict[str, type] = {
    "self_consumption": SelfConsumption,
    "peak_shaving": PeakShaving,
    "fcr_droop": FcrDroop,
    "arbitrage": Arbitrage,
    "follow_power": FollowPower,
    "follow_soc": FollowSoc,
    "drive": Drive,
    "charge": Charge,
}
