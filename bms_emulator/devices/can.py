"""CAN controller, as far as a battery sends: frames of up to 8 bytes to the energy management system."""

from __future__ import annotations

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
