"""Window watchdog: a reset if it is fed too late, or too early.

Off after reset. Once enabled it cannot be switched off, nor the window changed, until the next reset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .chip import Chip, Registers, plain

NAME = "watchdog"
REGISTERS = (
    ("OPEN", 0x0, "rw", "cycles after a feed before which the next one is too early"),
    ("CLOSE", 0x4, "rw", "cycles after a feed by which the next one must have come"),
    ("CONTROL", 0x8, "rw", "1: enabled, until the next reset"),
    ("FEED", 0xC, "w", "0x5AFEFEED feeds; any other word resets at once"),
)
SIZE = 0x10

FEED_WORD = 0x5AFEFEED


class Watchdog(Registers):
    """State: cycle of the last feed, and whether it runs. `on_bite` is called with the cycle."""

    def __init__(self, chip: Chip, on_bite: Callable[[str], None]) -> None:
        super().__init__(plain(REGISTERS, ""))
        self._chip = chip
        self._on_bite = on_bite
        self.reset()

    def reset(self) -> None:
        """Off, as after a reset of the chip."""
        self.window = [0, 0]
        self.enabled = False
        self.fed_at = 0

    def get(self, offset: int, cycle: int) -> int | None:
        if offset in (0x0, 0x4):
            return self.window[offset >> 2]
        return int(self.enabled) if offset == 0x8 else None

    def put(self, offset: int, value: int, cycle: int) -> bool:
        if offset in (0x0, 0x4):
            if not self.enabled:
                self.window[offset >> 2] = value
            return True
        if offset == 0x8:
            if value & 1 and not self.enabled:
                self.enabled = True
                self.fed_at = cycle
                self._wait()
            return True
        if offset != 0xC:
            return False
        if self.enabled:
            if value != FEED_WORD:
                self._on_bite("wrong word")
            elif cycle - self.fed_at < self.window[0]:
                self._on_bite("too early")
            self.fed_at = cycle
        return True

    def _wait(self) -> None:
        # One event is always under way; a feed only moves what it finds when it comes.
        self._chip.schedule(NAME, "due", self.fed_at + self.window[1])

    def event(self, name: str, cycle: int) -> None:
        if cycle - self.fed_at >= self.window[1]:
            self._on_bite("too late")
        else:
            self._wait()

    def state(self) -> tuple[Any, ...]:
        return (self.window, self.enabled, self.fed_at)

    def take(self, state: tuple[Any, ...]) -> None:
        window, self.enabled, self.fed_at = state
        self.window = list(window)
