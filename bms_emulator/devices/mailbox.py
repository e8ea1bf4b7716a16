"""Modem mailbox: whole frames in and out through a buffer memory."""

from __future__ import annotations

from typing import Any

from .chip import Chip, Registers, plain

NAME = "mailbox"
REGISTERS = (
    ("RX_SIZE", 0x0, "r", "bytes of the frame at the start of the buffer, 0: none"),
    ("RX_DONE", 0x4, "w", "the frame has been taken; lowers the line, the next one follows"),
    ("TX_SIZE", 0x8, "w", "sends so many bytes from the second half of the buffer"),
    ("TX_ROOM", 0xC, "r", "frames that can be sent now"),
)
SIZE = 0x10

FRAME_MAX = 1032
TX_AT = 0x800  # second half of the buffer


class Mailbox(Registers):
    """`receive` puts a frame in for the firmware, `sent` is what it has answered."""

    def __init__(self, chip: Chip, buffer: int, line: int) -> None:
        super().__init__(plain(REGISTERS, ""))
        self._chip = chip
        self._buffer = buffer
        self._line = line
        self.waiting: list[bytes] = []
        self.sent: list[bytes] = []

    def receive(self, frame: bytes) -> None:
        """A frame from the gateway; longer ones than the buffer holds are cut, as a modem does."""
        self.waiting.append(frame[:FRAME_MAX])
        if len(self.waiting) == 1:
            self._offer()

    def _offer(self) -> None:
        self._chip.set_line(self._line, bool(self.waiting))
        if self.waiting:
            self._chip.write_memory(self._buffer, self.waiting[0])

    def reset(self) -> None:
        """Frames that were not taken stay in the modem."""
        self._offer()

    def get(self, offset: int, cycle: int) -> int | None:
        if offset == 0x0:
            return len(self.waiting[0]) if self.waiting else 0
        return 8 if offset == 0xC else None

    def put(self, offset: int, value: int, cycle: int) -> bool:
        if offset == 0x4:
            self.waiting = self.waiting[1:]
            self._offer()
            return True
        if offset == 0x8:
            self.sent.append(self._chip.read_memory(self._buffer + TX_AT, min(value, FRAME_MAX)))
            return True
        return False

    def state(self) -> tuple[Any, ...]:
        return (self.waiting, self.sent)

    def take(self, state: tuple[Any, ...]) -> None:
        waiting, sent = state
        self.waiting, self.sent = list(waiting), list(sent)
