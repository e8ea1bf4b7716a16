"""Boards from `memory_map.toml`: checked rows for Python, a header for C.

board = load_board("reference")
board.regions                      # the region table of bus.py
print(c_header(board))             # addresses and register offsets for firmware

python -m bms_emulator.regmap reference > regs.h
"""

from __future__ import annotations

import itertools
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .devices import COLD, HOT, MEMORY
from .state import DEVICES, F_EXECUTE, F_READ, F_WRITE, K_MEMORY, K_PYTHON, MAX_DEVICES, SLOTS

MAP = Path(__file__).parent / "memory_map.toml"
# Regions stand one behind the other in one array; the gap keeps the decoder's look-ahead inside the array.
_GAP = 64
_ACCESS = {"r": F_READ, "w": F_WRITE, "x": F_EXECUTE}


class BoardError(ValueError):
    """The memory map says something impossible; the message names the row."""


@dataclass(frozen=True)
class Memory:
    """A memory region; `offset` is its place in the flat memory array (bytes).

    `window`: the partition of the flash that it shows after reset; it has no bytes of its own. `registers` of
    the device that fills it.
    """

    name: str
    base: int
    size: int
    access: str
    offset: int
    window: str | None = None
    registers: tuple[tuple[str, int, str, str], ...] = ()


@dataclass(frozen=True)
class Partition:
    """A part of the flash; `at` and `size` in bytes from the start of the flash."""

    name: str
    at: int
    size: int


@dataclass(frozen=True)
class Device:
    """A device; `slot` is its first state word (hot devices), `irq` the bit of mip that it drives or None."""

    name: str
    driver: str
    base: int
    size: int
    irq: int | None
    slot: int
    registers: tuple[tuple[str, int, str, str], ...]


@dataclass(frozen=True)
class Board:
    """One board of the memory map. Sizes in bytes, `clock_Hz` in hertz."""

    name: str
    about: str
    clock_Hz: int
    reset_pc: int
    direct_mtvec: bool
    tohost: bool
    memories: tuple[Memory, ...]
    devices: tuple[Device, ...]
    regions: npt.NDArray[np.int64]
    flat_size: int
    sector: int = 0
    partitions: tuple[Partition, ...] = ()

    def memory(self, name: str) -> Memory:
        """The memory of that name."""
        for memory in self.memories:
            if memory.name == name:
                return memory
        raise BoardError(
            f"board {self.name} has no memory {name!r}; it has {[m.name for m in self.memories]}"
        )

    def partition(self, name: str) -> Partition:
        """The part of the flash of that name."""
        for partition in self.partitions:
            if partition.name == name:
                return partition
        raise BoardError(f"board {self.name} has no partition {name!r}")

    def device(self, name: str) -> Device:
        """The device of that name."""
        for device in self.devices:
            if device.name == name:
                return device
        raise BoardError(f"board {self.name} has no device {name!r}; it has {[d.name for d in self.devices]}")


def board_names() -> list[str]:
    """Names of the boards in the memory map."""
    return list(_read(MAP)["board"])


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file)


def _partitions(name: str, rows: dict[str, Any]) -> tuple[int, tuple[Partition, ...]]:
    """Sector size and parts of the flash of a board, one behind the other; (0, ()) without a flash."""
    flash = rows.get("flash")
    if flash is None:
        return 0, ()
    sector = flash["sector"]
    found: list[Partition] = []
    at = 0
    for row in flash["partitions"]:
        where = f"board {name}, partition {row.get('name', '?')}"
        if row["sectors"] <= 0:
            raise BoardError(f"{where}: sectors must be positive")
        if any(p.name == row["name"] for p in found):
            raise BoardError(f"{where}: the name occurs twice")
        found.append(Partition(row["name"], at, row["sectors"] * sector))
        at += row["sectors"] * sector
    return sector, tuple(found)


def load_board(name: str, path: Path = MAP) -> Board:
    """Read and check one board; raises BoardError with the row that is wrong."""
    boards = _read(path)["board"]
    if name not in boards:
        raise BoardError(f"no board {name!r} in {path.name}; expected one of {', '.join(boards)}")
    rows = boards[name]
    memories: list[Memory] = []
    table: list[tuple[int, int, int, int, int, int]] = []
    spans: list[tuple[int, int, str]] = []
    offset = 0
    sector, partitions = _partitions(name, rows)
    for row in rows.get("memory", []):
        where = f"board {name}, memory {row.get('name', '?')}"
        base, access = row["base"], row["access"]
        size = row["size"] if "size" in row else sum(p.size for p in partitions)
        if size <= 0 or base % 64 or size % 64:
            raise BoardError(f"{where}: base and size must be multiples of 64 bytes")
        if not access or set(access) - set(_ACCESS):
            raise BoardError(f"{where}: access must be made of r, w and x, not {access!r}")
        window, driver = row.get("window"), row.get("driver")
        if window is not None and not any(p.name == window and p.size == size for p in partitions):
            raise BoardError(f"{where}: the flash has no partition {window!r} of this size")
        if driver is not None and driver not in MEMORY:
            raise BoardError(f"{where}: no driver {driver!r}; expected one of {', '.join(MEMORY)}")
        registers = MEMORY[driver].REGISTERS if driver else ()
        memories.append(Memory(row["name"], base, size, access, 0 if window else offset, window, registers))
        table.append((base, size, offset, sum(_ACCESS[a] for a in access), K_MEMORY, 0))
        spans.append((base, size, row["name"]))
        offset += 0 if window else size + _GAP
    if not memories:
        raise BoardError(f"board {name}: no memory")
    for number, memory in enumerate(memories):
        if memory.window is not None:  # shows a part of the flash, wherever that lies in the flat array
            flash = next((m for m in memories if m.name == "flash"), None)
            if flash is None:
                raise BoardError(f"board {name}, memory {memory.name}: a window needs a memory named flash")
            at = next(p.at for p in partitions if p.name == memory.window)
            memories[number] = replace(memory, offset=flash.offset + at)
            table[number] = (*table[number][:2], flash.offset + at, *table[number][3:])
    devices: list[Device] = []
    for number, row in enumerate(rows.get("device", [])):
        where = f"board {name}, device {row.get('name', '?')}"
        driver = row["driver"]
        if driver in HOT:
            module = HOT[driver]
            kind, size, registers = module.KIND, module.SIZE, module.REGISTERS
        elif driver in COLD:
            kind, size, registers = K_PYTHON, COLD[driver].SIZE, COLD[driver].REGISTERS
        elif driver == "python":
            kind, size, registers = K_PYTHON, row.get("size", 0), ()
        else:
            raise BoardError(
                f"{where}: no driver {driver!r}; expected one of {', '.join([*HOT, *COLD])}, python"
            )
        if number >= MAX_DEVICES:
            raise BoardError(f"{where}: more than {MAX_DEVICES} devices")
        if size <= 0 or row["base"] % 4 or size % 4:
            raise BoardError(f"{where}: base and size must be positive multiples of 4 bytes")
        irq = row.get("irq")
        if irq is not None and irq not in (3, 7, 11, *range(16, 31)):
            raise BoardError(f"{where}: irq {irq} is not a bit of mip (3, 7, 11, 16-30)")
        slot = DEVICES + SLOTS * number
        flags = F_READ | F_WRITE | ((irq or 0) << 8)
        devices.append(Device(row["name"], driver, row["base"], size, irq, slot, registers))
        table.append((row["base"], size, 0, flags, kind, slot))
        spans.append((row["base"], size, row["name"]))
    spans.sort()
    for (base, size, one), (other, _, two) in itertools.pairwise(spans):
        if base + size > other:
            raise BoardError(f"board {name}: {one} and {two} overlap at 0x{other:08x}")
    if spans[-1][0] + spans[-1][1] > 1 << 32:
        raise BoardError(f"board {name}: {spans[-1][2]} ends beyond 32 bits")
    if rows["mtvec"] not in ("vectored", "direct"):
        raise BoardError(f"board {name}: mtvec must be vectored or direct, not {rows['mtvec']!r}")
    return Board(
        name=name,
        about=rows["about"],
        clock_Hz=rows["clock_Hz"],
        reset_pc=rows["reset_pc"],
        direct_mtvec=rows["mtvec"] == "direct",
        tohost=bool(rows.get("tohost", False)),
        memories=tuple(memories),
        devices=tuple(devices),
        regions=np.array(table, dtype=np.int64),
        flat_size=offset,
        sector=sector,
        partitions=partitions,
    )


def c_header(board: Board) -> str:
    """C header with the base, size and registers of everything on the board."""
    prefix = board.name.upper().replace("-", "_")
    lines = [
        f"/* Registers of board '{board.name}': made from memory_map.toml by regmap.py, not to be edited. */",
        f"#ifndef {prefix}_REGS_H",
        f"#define {prefix}_REGS_H",
        "",
        "#include <stdint.h>",
        "",
        f"#define CLOCK_HZ {board.clock_Hz}u",
        "",
    ]
    for memory in board.memories:
        name = memory.name.upper()
        lines += [f"#define {name}_BASE 0x{memory.base:08x}u", f"#define {name}_SIZE 0x{memory.size:08x}u"]
        lines += _registers(name, memory.base, memory.registers)
    for device in board.devices:
        name = device.name.upper()
        lines += ["", f"#define {name}_BASE 0x{device.base:08x}u"]
        if device.irq is not None:
            lines.append(f"#define {name}_IRQ {device.irq}")
        lines += _registers(name, device.base, device.registers)
    if board.partitions:
        lines += ["", "/* Partitions of the flash: offsets from its start. */"]
    for partition in board.partitions:
        name = f"FLASH_{partition.name.upper()}"
        lines += [f"#define {name}_AT 0x{partition.at:08x}u", f"#define {name}_SIZE 0x{partition.size:08x}u"]
    return "\n".join([*lines, "", "#endif", ""])


def _registers(name: str, base: int, registers: tuple[tuple[str, int, str, str], ...]) -> list[str]:
    lines = []
    for register, offset, access, meaning in registers:
        constness = "const " if access == "r" else ""
        lines.append(
            f"#define {name}_{register} (*(volatile {constness}uint32_t *)0x{base + offset:08x}u)"
            f" /* {access}: {meaning} */"
        )
    return lines


def main(arguments: list[str]) -> int:
    """Print the header of the named board."""
    if len(arguments) != 1:
        print(f"usage: python -m bms_emulator.regmap {{{'|'.join(board_names())}}}", file=sys.stderr)
        return 2
    try:
        print(c_header(load_board(arguments[0])), end="")
    except BoardError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
