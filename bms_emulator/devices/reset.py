"""Reset controller: why the last reset came, a word that survives it, software reset."""

from __future__ import annotations

NAME = "reset"
REGISTERS = (
    ("CAUSE", 0x0, "r", "1 power on, 2 watchdog, 3 software, 4 brown-out, 5 trap without handler"),
    ("WHY", 0x4, "r", "word given with the software reset"),
    ("KEEP", 0x8, "rw", "survives all resets but power on and brown-out; 0 then"),
    ("REQUEST", 0xC, "w", "resets, the word becomes WHY"),
)
SIZE = 0x10
