"""What a device written in Python may do to the chip around it, and how it keeps its state.

`state()` and `take()` of a device are a tuple of plain values. Snapshots are bytes, equal for equal devices,
which the state hash relies on (marshal version 2 has no references, so nothing but the values counts).
"""

from __future__ import annotations

import marshal
from typing import Any, Protocol

POWER_CUT, RESET = 3, 4  # reasons given to `stop`


class Chip(Protocol):
    """The machine, as its devices see it."""

    @property
    def cycle(self) -> int:
        """Cycle of entry of the present instruction."""

    def read_memory(self, address: int, size: int) -> bytes:
        """Bytes from memory; ValueError if that is not memory."""

    def write_memory(self, address: int, data: bytes) -> None:
        """Bytes to memory, whatever its access rights."""

    def show(self, window: str, part: str) -> None:
        """Let a window show a partition of the flash."""

    def schedule(self, device: str, name: str, cycle: int) -> None:
        """Call `event(name, cycle)` of the device at that cycle."""

    def set_line(self, line: int, high: bool) -> None:
        """Drive an interrupt line."""

    def stop(self, why: int, code: int) -> None:
        """Leave the run before the next instruction: POWER_CUT or RESET, and a number for the board."""


class Registers:
    """Plain read/write registers by offset; a device adds what they do."""

    def __init__(self, plain: dict[int, str]) -> None:
        self._plain = plain
        self.value = dict.fromkeys(plain.values(), 0)

    def reset_registers(self) -> None:
        """All plain registers to 0, as after a reset of the chip."""
        self.value = dict.fromkeys(self._plain.values(), 0)

    def read(self, offset: int, cycle: int) -> int | None:
        """Plain register, or what `get` says; None is an access fault."""
        name = self._plain.get(offset)
        return self.value[name] if name is not None else self.get(offset, cycle)

    def write(self, offset: int, lanes: int, value: int, cycle: int) -> bool | None:
        """Only whole words: a narrower store is an access fault."""
        if lanes != 15:
            return False
        name = self._plain.get(offset)
        if name is None:
            return self.put(offset, value, cycle)
        self.value[name] = value
        return True

    def get(self, offset: int, cycle: int) -> int | None:
        """Register that is not plain."""
        return None

    def put(self, offset: int, value: int, cycle: int) -> bool:
        """Store to a register that is not plain."""
        return False

    def event(self, name: str, cycle: int) -> None:
        """What was scheduled is due."""

    def state(self) -> tuple[Any, ...]:
        """Everything beside the plain registers."""
        return ()

    def take(self, state: tuple[Any, ...]) -> None:
        """Take back what `state` gave."""

    def snapshot(self) -> bytes:
        """All of the device as bytes."""
        return marshal.dumps((self.value, self.state()), 2)

    def restore(self, state: bytes) -> None:
        """Take back a state given by `snapshot`."""
        self.value, own = marshal.loads(state)
        self.take(own)


def plain(registers: tuple[tuple[str, int, str, str], ...], names: str) -> dict[int, str]:
    """Offsets of those registers of a table that only keep what is written to them."""
    wanted = names.split()
    found = {offset: name for name, offset, _, _ in registers if name in wanted}
    assert len(found) == len(wanted), names
    return found
