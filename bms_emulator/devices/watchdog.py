"""Window watchdog: a reset if it is fed too late, or too early.

Off after reset. Once enabled it cannot be switched off, nor the window changed, until the next reset.
"""

from __future__ import annotations

NAME = "watchdog"
REGISTERS = (
    ("OPEN", 0x0, "rw", "cycles after a feed before which the next one is too early"),
    ("CLOSE", 0x4, "rw", "cycles after a feed by which the next one must have come"),
    ("CONTROL", 0x8, "rw", "1: enabled, until the next reset"),
    ("FEED", 0xC, "w", "0x5AFEFEED feeds; any other word resets at once"),
)
SIZE = 0x10
