"""Updates while the plant runs: orders at their time, gateways that talk, an operator who makes room.

A staged update waits until the battery is safe; what most often stands in the way is that the pack is in
service. The operator then takes it out (its BMS is asked to open), never more racks of a site at once than
the order permits, and puts it back when the update has come to an end, whatever the end.

Everything here holds the port `UpdateChain`; signing, brokers and agents are behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from twin.ports import UpdateChain, UpdateNews
from twin.world.clock import Clock, to_us
from twin.world.pack import PackShard
from twin.world.recorder import Event

Place = tuple[int, int]  # (shard, pack)


@dataclass(frozen=True)
class Order:
    """One order with its targets resolved."""

    at_us: int
    packs: tuple[Place, ...]
    image: str | None
    parameters: dict[str, int]
    max_offline: int


@dataclass
class UpdateDesk:
    """`outages`: (killed at, started at) in us. `epoch_s`: Unix time of the run's t = 0."""

    chain: UpdateChain
    orders: Sequence[Order]
    outages: Sequence[tuple[int, int]]
    period_us: int
    epoch_s: float
    drained: set[Place] = field(default_factory=set)
    _limit: dict[Place, int] = field(default_factory=dict)

    def start(self, clock: Clock) -> None:
        """Nothing that is to happen at an instant may fall inside a step."""
        for order in self.orders:
            clock.add_knot(order.at_us)
        for killed, started in self.outages:
            clock.add_knot(killed)
            clock.add_knot(started)

    def step(
        self, now_us: int, clock: Clock, shards: Sequence[PackShard], say: Callable[[Event], None]
    ) -> None:
        """After a plant step that ended at `now_us`."""
        now_s = self.epoch_s + now_us * 1e-6
        for killed, started in self.outages:
            if now_us in (killed, started):
                self.chain.set_broker(now_us == started)
                text = "broker started again" if now_us == started else "broker killed"
                say(Event(now_us, "", "", "", -1, "update", "broker", "info", 1.0, "1", text))
        news: list[UpdateNews] = []
        for order in self.orders:
            if order.at_us == now_us:
                news += self.chain.order(list(order.packs), order.image, order.parameters, now_s)
                self._limit |= dict.fromkeys(order.packs, order.max_offline)
        if (now_us % self.period_us == 0 or news) and (news or self.chain.busy):
            news += self.chain.exchange(now_s)
            self._make_room(shards)
        for row in news:
            path = shards[row.shard].paths[row.pack]
            say(
                Event(
                    now_us, path.site, path.rack, path.pack, -1, "update",
                    row.kind, row.severity, row.value, row.unit, row.text,
                )
            )  # fmt: skip
            if row.kind == "update_activating":
                clock.zoom("activation")

    def _make_room(self, shards: Sequence[PackShard]) -> None:
        """Take out what waits for it, as far as the limits go; put back what has finished."""
        finished = {place for place in self.drained if not self.chain.under_way(*place)}
        self.drained -= finished
        for place in self.chain.waits_for_contactors():
            if place in self.drained:
                continue
            racks = {self._rack(shards, other) for other in self.drained}
            rack = self._rack(shards, place)
            on_site = {other for other in racks if other[0] == rack[0]}
            if rack in on_site or len(on_site) < self._limit[place]:
                self.drained.add(place)
        for number, shard in enumerate(shards):
            closed = np.ones(len(shard.paths), dtype=bool)
            closed[[pack for other, pack in self.drained if other == number]] = False
            if not np.array_equal(closed, shard.wanted_closed):
                shard.want(closed)

    @staticmethod
    def _rack(shards: Sequence[PackShard], place: Place) -> tuple[str, str]:
        path = shards[place[0]].paths[place[1]]
        return path.site, path.rack


def resolve(
    orders: Sequence[tuple[float, str, str | None, dict[str, int], int]], shards: Sequence[PackShard]
) -> list[Order]:
    """Orders (at_s, target path, image, parameters, max_offline) with their packs found."""
    out = []
    for at_s, target, image, parameters, max_offline in orders:
        parts = target.split("/")
        packs = tuple(
            (number, p)
            for number, shard in enumerate(shards)
            for p, path in enumerate(shard.paths)
            if [path.site, path.rack, path.pack][: len(parts)] == parts
        )
        out.append(Order(to_us(at_s), packs, image, parameters, max_offline))
    return out
