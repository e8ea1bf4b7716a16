"""Reset controller: why the last reset came, a word that survives it, software reset."""

from __future__ import annotations

from typing import Any

from .chip import RESET, Chip, Registers, plain

NAME = "reset"
REGISTERS = (
    ("CAUSE", 0x0, "r", "1 power on, 2 watchdog, 3 software, 4 brown-out, 5 trap without handler"),
    ("WHY", 0x4, "r", "word given with the software reset"),
    ("KEEP", 0x8, "rw", "survives all resets but power on and brown-out; 0 then"),
    ("REQUEST", 0xC, "w", "resets, the word becomes WHY"),
)
SIZE = 0x10

POWER_ON, WATCHDOG, SOFTWARE, BROWN_OUT, LOCKUP = 1, 2, 3, 4, 5


class ResetController(Registers):
    """The board tells `cause` after each reset."""

    def __init__(self, chip: Chip) -> None:
        super().__init__(plain(REGISTERS, "KEEP"))
        self._chip = chip
        self.cause = POWER_ON
        self.why = 0

    def after(self, cause: int, why: int = 0) -> None:
        """A reset has happened."""
        self.cause, self.why = cause, why
        if cause in (POWER_ON, BROWN_OUT):
            self.value["KEEP"] = 0

    def get(self, offset: int, cycle: int) -> int | None:
        return {0x0: self.cause, 0x4: self.why}.get(offset)

    def put(self, offset: int, value: int, cycle: int) -> bool:
        if offset != 0xC:
            return False
        self._chip.stop(RESET, value)
        return True

    def state(self) -> tuple[Any, ...]:
        return (self.cause, self.why)

    def take(self, state: tuple[Any, ...]) -> None:
        self.cause, self.why = state
