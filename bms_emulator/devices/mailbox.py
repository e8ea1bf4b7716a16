"""Modem mailbox: whole frames in and out through a buffer memory."""

from __future__ import annotations

NAME = "mailbox"
REGISTERS = (
    ("RX_SIZE", 0x0, "r", "bytes of the frame at the start of the buffer, 0: none"),
    ("RX_DONE", 0x4, "w", "the frame has been taken; lowers the line, the next one follows"),
    ("TX_SIZE", 0x8, "w", "sends so many bytes from the second half of the buffer"),
    ("TX_ROOM", 0xC, "r", "frames that can be sent now"),
)
SIZE = 0x10
