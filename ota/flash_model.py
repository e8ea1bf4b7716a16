"""NOR flash with power cuts, torn operations and faults: the ground under ``mcu_model``.

Erase sets a sector to 0xFF, program can only clear bits. Every erase and every program call is one numbered
operation. A planned cut stops before operation n, or inside it after k bytes: a torn program leaves the first
k bytes, a torn erase leaves a mix of old bytes and 0xFF (seeded), the byte at the edge may be unstable (a bit
less programmed than asked). Deterministic by its seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .errors import OtaError, Reason


class PowerCutError(Exception):
    """The supply failed; RAM is lost, flash is as it is."""


@dataclass(frozen=True)
class Cut:
    """Stop at operation ``at`` (0-based since ``arm``); ``inside`` None: before it, else after k bytes."""

    at: int
    inside: int | None = None


class Flash:
    """``size`` bytes in sectors of ``sector``; ``counts`` erases per sector."""

    def __init__(self, size: int, sector: int = 4096, seed: int = 0) -> None:
        self.data = bytearray(b"\xff" * size)
        self.sector = sector
        self.erases = [0] * (size // sector)
        self.operations = 0
        self.lengths: list[int] = []  # bytes of each operation since arm(), for exhaustive torn writes
        self.cut: Cut | None = None
        self.bad_sectors: dict[int, Reason] = {}
        self.write_protected: range = range(0)
        self._random = random.Random(seed)

    def arm(self, cut: Cut | None) -> None:
        """Restart the operation counter and plan a cut."""
        self.operations = 0
        self.lengths = []
        self.cut = cut

    def _next(self, length: int) -> int | None:
        """Bytes to do of this operation: None = all; raises before anything is done for a cut between."""
        number = self.operations
        self.operations += 1
        self.lengths.append(length)
        if self.cut is None or number != self.cut.at:
            return None
        if self.cut.inside is None:
            raise PowerCutError
        return min(self.cut.inside, length)

    def _check(self, at: int, length: int, reason: Reason) -> None:
        if at < 0 or at + length > len(self.data):
            raise OtaError(reason, f"address 0x{at:x}")
        if length and (at in self.write_protected or at + length - 1 in self.write_protected):
            raise OtaError(reason, f"0x{at:x} is write-protected")
        fault = self.bad_sectors.get(at // self.sector)
        if fault is reason:
            raise OtaError(reason, f"sector {at // self.sector}")

    def erase(self, at: int) -> None:
        """Erase the sector at ``at``."""
        start = at // self.sector * self.sector
        self._check(start, self.sector, Reason.FLASH_ERASE)
        part = self._next(self.sector)
        if part is not None:
            for i in range(start, start + self.sector):
                if i - start < part or self._random.random() < 0.5:
                    self.data[i] = 0xFF
            raise PowerCutError
        self.data[start : start + self.sector] = b"\xff" * self.sector
        self.erases[start // self.sector] += 1

    def program(self, at: int, data: bytes) -> None:
        """Clear bits so that the range reads ``data``; FLASH_PROGRAM if that needs a bit set."""
        self._check(at, len(data), Reason.FLASH_PROGRAM)
        part = self._next(len(data))
        count = len(data) if part is None else part
        for i in range(count):
            self.data[at + i] &= data[i]
        if part is not None:
            if count < len(data) and self._random.random() < 0.5:
                # the byte under way: some of its bits have been cleared
                self.data[at + count] &= data[count] | self._random.randrange(256)
            raise PowerCutError
        if bytes(self.data[at : at + len(data)]) != data:
            raise OtaError(Reason.FLASH_PROGRAM, f"0x{at:x} not erased")

    def read(self, at: int, length: int) -> bytes:
        if self.bad_sectors.get(at // self.sector) is Reason.FLASH_READ:
            raise OtaError(Reason.FLASH_READ, f"sector {at // self.sector}")
        return bytes(self.data[at : at + length])
