"""CAN controller, as far as a battery sends: frames of up to 8 bytes to the energy management system."""

from __future__ import annotations

from typing import Any

from .chip import Chip, Registers, plain

NAME = "can"
REGISTERS = (
    ("ID", 0x00, "rw", "11-bit identifier"),
    ("LENGTH", 0x04, "rw", "bytes, 0-8"),
    ("DATA_LOW", 0x08, "rw", "bytes 0-3"),
    ("DATA_HIGH", 0x0C, "rw", "bytes 4-7"),
    ("SEND", 0x10, "w", "puts the frame into the transmit queue"),
    ("FREE", 0x14, "r", "free places of the queue"),
)
SIZE = 0x18

QUEUE = 16
# 47 bits of a base frame around its data at 500 kbit/s, without stuff bits (ISO 11898-1)
BIT_CYCLES, FRAME_BITS = 100, 47


class Can(Registers):
    """`log` holds (cycle of its end on the bus, identifier, data) of everything sent."""

    def __init__(self, chip: Chip) -> None:
        super().__init__(plain(REGISTERS, "ID LENGTH DATA_LOW DATA_HIGH"))
        self._chip = chip
        self.log: list[tuple[int, int, bytes]] = []
        self._ends: list[int] = []  # of the frames still in the queue

    def reset(self) -> None:
        """Queue and registers empty."""
        self.reset_registers()
        self._ends = []

    def get(self, offset: int, cycle: int) -> int | None:
        if offset != 0x14:
            return None
        self._ends = [end for end in self._ends if end > cycle]
        return QUEUE - len(self._ends)

    def put(self, offset: int, value: int, cycle: int) -> bool:
        if offset != 0x10:
            return False
        self._ends = [end for end in self._ends if end > cycle]
        if len(self._ends) < QUEUE:  # a full queue loses the frame, as hardware does
            size = min(self.value["LENGTH"], 8)
            words = self.value["DATA_LOW"].to_bytes(4, "little") + self.value["DATA_HIGH"].to_bytes(
                4, "little"
            )
            end = max([cycle, *self._ends]) + (FRAME_BITS + 8 * size) * BIT_CYCLES
            self._ends.append(end)
            self.log.append((end, self.value["ID"] & 0x7FF, words[:size]))
        return True

    def state(self) -> tuple[Any, ...]:
        return (self.log, self._ends)

    def take(self, state: tuple[Any, ...]) -> None:
        log, ends = state
        self.log, self._ends = list(log), list(ends)
