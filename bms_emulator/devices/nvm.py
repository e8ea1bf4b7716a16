"""Flash controller: erase, program and read by sectors and words, protection, window of the running slot.

Times and endurance of a dual-bank flash of this class: STM32L476 data sheet DS10198, 64-bit programming
81.69 us, page (2 KiB) erase 22.02 ms, 10 000 cycles; a sector here is two such pages. The bytes change when
the operation ends; whoever cuts the power before that leaves the part that had been done: a program has
written the words so far and left the one under way unstable (it may read differently each time), an erase
leaves a random mix of old bytes and 0xFF.

Faults: `cut` stops before or inside an operation, `flip` changes a bit silently, `spoil` makes a word fail
its error correction, `wear` ages a sector. All chance comes from `random.Random(seed)`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from .chip import POWER_CUT, Chip, Registers, plain

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

OK, PROTECTED, ECC, RANGE, WORN, BUSY, BAD = range(7)
ERASE_CYCLES = 2 * 1_101_000  # two pages of 22.02 ms at 50 MHz
PROGRAM_CYCLES = 4084  # 81.69 us, for each started 8 bytes
READ_CYCLES = 2  # for each word
ENDURANCE = 10_000
_BUSY_BIT, _LOCK_BIT = 1 << 31, 1 << 31


@dataclass(frozen=True)
class Cut:
    """Stop at operation `at` (0-based count of erases and programs since `arm`): before it, or inside after
    `inside` bytes."""

    at: int
    inside: int | None = None


class Nvm(Registers):
    """The controller; the bytes lie in the machine's memory `flash`."""

    def __init__(self, chip: Chip, base: int, size: int, sector: int, line: int, seed: int = 0) -> None:
        super().__init__(plain(REGISTERS, "ADDRESS BUFFER LENGTH"))
        self._chip = chip
        self._base, self._size, self._sector, self._line = base, size, sector, line
        self.erases = [0] * (size // sector)
        self.unstable: dict[int, int] = {}  # word offset: bits that read as they like
        self.spoiled: list[int] = []  # word offsets that fail their error correction
        self.operations: list[tuple[int, int, int]] = []  # command, address, bytes since `arm`
        self.cut: Cut | None = None
        self._seed = seed
        self._draws = 0
        self.haste = 1  # campaigns of faults may let the flash be so many times faster
        self.reset()

    def reset(self) -> None:
        """As after a reset of the chip: nothing protected, window on slot 0."""
        self.reset_registers()
        self.status = OK
        self.protected: list[tuple[int, int]] = []
        self.window = 0
        self._pending: tuple[int, int, bytes, int, int] | None = None
        self._chip.set_line(self._line, False)
        self._chip.show("xip", "slot_0")

    def arm(self, cut: Cut | None) -> None:
        """Count operations from now on, and stop at one of them."""
        self.operations = []
        self.cut = cut

    def bytes_at(self, at: int, size: int) -> bytes:
        """What is in the flash."""
        return self._chip.read_memory(self._base + at, size)

    def put_bytes(self, at: int, data: bytes) -> None:
        """Change the flash from outside: manufacture, tests."""
        self._chip.write_memory(self._base + at, data)

    # --- faults

    def flip(self, at: int, bit: int) -> None:
        """Invert one bit of byte `at`; error correction does not notice."""
        self.put_bytes(at, bytes([self.bytes_at(at, 1)[0] ^ (1 << bit)]))

    def spoil(self, at: int) -> None:
        """Let the word at `at` fail its error correction until it is erased."""
        self.spoiled = sorted({*self.spoiled, at & ~3})

    def wear(self, at: int, cycles: int) -> None:
        """Age the sector at `at`."""
        self.erases[at // self._sector] += cycles

    def power_cut(self, cycle: int) -> None:
        """The supply is gone: leave what the present operation has done so far."""
        if self._pending is not None:
            command, at, data, start, end = self._pending
            done = len(data) * (cycle - start) // max(end - start, 1)
            self._tear(command, at, data, min(done, len(data) - 1))
        self._pending = None

    def _random(self) -> random.Random:
        self._draws += 1
        return random.Random(f"{self._seed}/{self._draws}")

    def _tear(self, command: int, at: int, data: bytes, done: int) -> None:
        """Leave the state of an operation that stopped after `done` bytes."""
        chance = self._random()
        if command == 1:
            old = self.bytes_at(at, len(data))
            mixed = bytes(0xFF if i < done or chance.random() < 0.5 else old[i] for i in range(len(data)))
            self.put_bytes(at, mixed)
            self._forget_faults(at, len(data))
            return
        whole = done & ~3
        self._firm(at, whole)
        new = bytearray(a & b for a, b in zip(self.bytes_at(at, whole), data[:whole], strict=True))
        if whole < len(data):
            word = int.from_bytes(self.bytes_at(at + whole, 4), "little")
            wanted = word & int.from_bytes(data[whole : whole + 4], "little")
            # The cells under way have lost some charge: some bits have changed, the others read at random.
            new += (word & (wanted | chance.getrandbits(32))).to_bytes(4, "little")
            hanging = (word ^ wanted) & chance.getrandbits(32)
            if hanging and chance.random() < 0.5:
                self.unstable[at + whole] = hanging
        self.put_bytes(at, bytes(new))

    def _forget_faults(self, at: int, size: int) -> None:
        self._firm(at, size)
        self.spoiled = [w for w in self.spoiled if not at <= w < at + size]

    def _firm(self, at: int, size: int) -> None:
        """Words programmed to their end read the same from now on."""
        self.unstable = {w: bits for w, bits in self.unstable.items() if not at <= w < at + size}

    # --- registers

    def get(self, offset: int, cycle: int) -> int | None:
        if offset == 0x10:
            return _BUSY_BIT if self._pending is not None else self.status
        return self.window if offset == 0x14 else None

    def put(self, offset: int, value: int, cycle: int) -> bool:
        if offset == 0x14:
            if not self.window & _LOCK_BIT:
                self.window = value & (_LOCK_BIT | 1)
                self._chip.show("xip", f"slot_{value & 1}")
            return True
        if offset != 0xC:
            return False
        if self._pending is not None:
            return True  # commands while busy are ignored
        self._chip.set_line(self._line, False)
        self._start(value, cycle)
        return True

    def _start(self, command: int, cycle: int) -> None:
        at, size, buffer = self.value["ADDRESS"], self.value["LENGTH"], self.value["BUFFER"]
        if command == 1:
            at, size = at // self._sector * self._sector, self._sector
        if at + size > self._size or (command == 2 and (at | size) & 3):
            self._finish(RANGE)
        elif command == 3:
            self._read(at, size, buffer)
        elif command == 4:
            self.protected.append((at, size))
            self._finish(OK)
        elif command not in (1, 2):
            self._finish(RANGE)
        elif any(at < start + n and start < at + size for start, n in self.protected):
            self._finish(PROTECTED)
        else:
            self._change(command, at, size, buffer, cycle)

    def _read(self, at: int, size: int, buffer: int) -> None:
        data = bytearray(self.bytes_at(at, size))
        for word, bits in self.unstable.items():
            for i in range(4):
                if at <= word + i < at + size:
                    data[word + i - at] ^= self._random().getrandbits(8) & (bits >> (8 * i)) & 0xFF
        try:
            self._chip.write_memory(buffer, bytes(data))
        except ValueError:
            self._finish(RANGE)
            return
        bad = any(at - 4 < word < at + size for word in self.spoiled)
        self._finish(ECC if bad else OK)

    def _change(self, command: int, at: int, size: int, buffer: int, cycle: int) -> None:
        if command == 1:
            data = b"\xff" * size
            duration = ERASE_CYCLES
        else:
            try:
                data = self._chip.read_memory(buffer, size)
            except ValueError:
                self._finish(RANGE)
                return
            duration = max((size + 7) // 8, 1) * PROGRAM_CYCLES
        number = len(self.operations)
        self.operations.append((command, at, size))
        if self.cut is not None and self.cut.at == number:
            if self.cut.inside is not None:
                self._tear(command, at, data, min(self.cut.inside, size))
            self._chip.stop(POWER_CUT, number)
            return
        end = cycle + duration // self.haste
        self._pending = (command, at, data, cycle, end)
        self._chip.schedule(NAME, "done", end)

    def event(self, name: str, cycle: int) -> None:
        """The operation is done."""
        if self._pending is None:
            return
        command, at, data, _, _ = self._pending
        self._pending = None
        sector = at // self._sector
        if command == 1:
            self.erases[sector] += 1
            if self.erases[sector] > ENDURANCE:
                self._finish(WORN)  # the charge no longer goes away
                return
            self.put_bytes(at, data)
            self._forget_faults(at, len(data))
            self._finish(OK)
            return
        new = bytes(a & b for a, b in zip(self.bytes_at(at, len(data)), data, strict=True))
        self.put_bytes(at, new)
        self._firm(at, len(data))
        self._finish(OK if new == data else BAD)

    def _finish(self, status: int) -> None:
        self.status = status
        self._chip.set_line(self._line, True)

    def state(self) -> tuple[Any, ...]:
        return (
            self.status,
            self.protected,
            self.window,
            self._pending,
            self.erases,
            sorted(self.unstable.items()),
            self.spoiled,
            self._draws,
        )

    def take(self, state: tuple[Any, ...]) -> None:
        self.status, protected, self.window, self._pending, erases, unstable, spoiled, self._draws = state
        self.protected, self.erases, self.spoiled = list(protected), list(erases), list(spoiled)
        self.unstable = dict(unstable)
        self._chip.show("xip", f"slot_{self.window & 1}")
