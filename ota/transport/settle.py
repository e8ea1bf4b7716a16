"""Bring a real broker to rest, so that a simulated clock may move.

Each link sends a barrier to itself and waits for it; then a second one. When the first has come back, the
broker has dealt with all that was published before; when the second has come back, all of it has arrived,
because a broker keeps the order towards one client. Messages that were handled meanwhile may have caused new
ones, so this is repeated until a whole round passes without any.

    settler = Settler([(server_link, on_server), (device_link, on_device)])
    settler.settle()          # now the clock may move
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..errors import OtaError, Reason
from ..topics import PREFIX, SYNC
from .base import Down, Incoming, Link, LinkEvent, Up

ROUNDS_MAX = 10_000


class Settler:
    """``parties``: links with the function that takes their events. Make it before the links connect."""

    def __init__(self, parties: Sequence[tuple[Link, Callable[[list[LinkEvent]], None]]]) -> None:
        self.parties = list(parties)
        self._number = 0
        for link, _ in self.parties:
            link.subscribe(self._topic(link), 1)

    @staticmethod
    def _topic(link: Link) -> str:
        return f"{PREFIX}/{link.user}/{SYNC}"

    def settle(self, timeout_s: float = 30.0) -> int:
        """Until nothing is under way; the number of events handled. TIMEOUT if a link does not answer."""
        end = time.monotonic() + timeout_s
        total = 0
        for _ in range(ROUNDS_MAX):
            handled = self._barrier(end) + self._barrier(end)
            total += handled
            if not handled:
                return total
        raise OtaError(Reason.TIMEOUT, "messages do not come to rest")

    def _barrier(self, end: float) -> int:
        self._number += 1
        payload = b"%d" % self._number
        waiting: dict[int, bool] = {}
        for i, (link, _) in enumerate(self.parties):
            waiting[i] = link.publish(self._topic(link), payload, qos=1)
        handled = 0
        while waiting:
            for i, (link, take) in enumerate(self.parties):
                out: list[LinkEvent] = []
                for event in link.poll(0.001 if i in waiting else 0.0):
                    if isinstance(event, Incoming) and event.topic == self._topic(link):
                        if event.payload == payload:
                            waiting.pop(i, None)
                    else:
                        out.append(event)
                        if isinstance(event, Up | Down) and i in waiting:
                            waiting[i] = False  # the barrier may be lost with the connection
                if out:
                    handled += len(out)
                    take(out)
                if waiting.get(i) is False:
                    waiting[i] = link.publish(self._topic(link), payload, qos=1)
            if time.monotonic() > end:
                raise OtaError(Reason.TIMEOUT, f"{len(waiting)} of {len(self.parties)} links do not answer")
        return handled
