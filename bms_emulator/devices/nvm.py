"""Flash controller: erase, program and read by sectors and words, protection, window of the running slot."""

from __future__ import annotations

NAME = "nvm"
REGISTERS = (
    ("ADDRESS", 0x00, "rw", "offset in the flash; of an erase: anywhere in the sector"),
    ("BUFFER", 0x04, "rw", "address in RAM that a program takes from and a read puts to"),
    ("LENGTH", 0x08, "rw", "bytes; multiple of 4 for a program"),
    ("COMMAND", 0x0C, "w", "1 erase, 2 program, 3 read, 4 protect ADDRESS, LENGTH until the next reset"),
    ("STATUS", 0x10, "r", "bit 31 busy; else result of the last command, as in hal.h"),
    (
        "WINDOW",
        0x14,
        "rw",
        "slot (0, 1) that appears in the window; write bit 31 too to lock until the next reset",
    ),
)
SIZE = 0x18
