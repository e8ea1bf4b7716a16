"""Program images: 32-bit little-endian RISC-V ELF files and raw binaries, with every mistake told plainly.

    image = read_image(Path("a.elf"))
    image.segments    # [(address, bytes to load, size in memory)]
    image.symbols     # [Symbol(name, address, size, is_function)], sorted by address

Only what a bare-metal program needs is read: program headers and the symbol table. Format: System V ABI,
chapter 4, and the RISC-V ELF psABI.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
_PROGRAM = struct.Struct("<IIIIIIII")
_SECTION = struct.Struct("<IIIIIIIIII")
_SYMBOL = struct.Struct("<IIIBBH")
_EM_RISCV, _ET_EXEC, _PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 243, 2, 1, 2, 3
_SHT_SYMTAB, _STT_NOTYPE, _STT_OBJECT, _STT_FUNC = 2, 0, 1, 2
_FLAG_RVC, _FLAG_FLOAT, _FLAG_RVE = 1, 6, 8
_MAX_SEGMENTS, _MAX_SECTIONS, _MAX_SYMBOLS = 1024, 4096, 1 << 20


class ImageError(ValueError):
    """The file cannot be run; the message says why."""


@dataclass(frozen=True)
class Symbol:
    """A name in the program; `size` may be 0 when the assembler did not say."""

    name: str
    address: int
    size: int
    is_function: bool


@dataclass(frozen=True)
class Image:
    """What to load where. `entry` is None for raw binaries."""

    segments: tuple[tuple[int, bytes, int], ...]
    entry: int | None
    symbols: tuple[Symbol, ...] = ()

    def symbol(self, name: str) -> Symbol | None:
        """The first symbol of that name."""
        return next((s for s in self.symbols if s.name == name), None)


def read_image(path: Path, base: int | None = None) -> Image:
    """Read an ELF file, or a raw binary (`.bin`, or anything without the ELF mark) to be loaded at `base`."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise ImageError(f"{path}: cannot be read: {problem.strerror or problem}") from problem
    try:
        return parse_image(data, base)
    except ImageError as problem:
        raise ImageError(f"{path}: {problem}") from None


def parse_image(data: bytes, base: int | None = None) -> Image:
    """As `read_image`, from bytes."""
    if data[:4] == b"\x7fELF":
        return _parse_elf(data)
    if not data:
        raise ImageError("the file is empty")
    if base is None:
        raise ImageError("not an ELF file (no 7f 45 4c 46 at its start)")
    return Image(((base, data, len(data)),), None)


def _unpack(kind: struct.Struct, data: bytes, offset: int, what: str) -> tuple[int, ...]:
    if offset + kind.size > len(data):
        raise ImageError(
            f"truncated: {what} at byte {offset} lies behind the end of the file ({len(data)} bytes)"
        )
    return kind.unpack_from(data, offset)


def _parse_elf(data: bytes) -> Image:
    if len(data) < _HEADER.size:
        raise ImageError(f"truncated: an ELF header has {_HEADER.size} bytes, the file {len(data)}")
    fields = _HEADER.unpack_from(data, 0)
    ident, kind, machine = fields[0], fields[1], fields[2]
    if ident[4] != 1:
        raise ImageError(
            "a 64-bit ELF file; this is a 32-bit machine" if ident[4] == 2 else "ELF class not valid"
        )
    if ident[5] != 1:
        raise ImageError("a big-endian ELF file; this machine is little-endian")
    if machine != _EM_RISCV:
        raise ImageError(f"an ELF file for another processor (machine {machine}, RISC-V is {_EM_RISCV})")
    if kind != _ET_EXEC:
        raise ImageError(
            f"not a linked executable (ELF type {kind}, expected {_ET_EXEC}); link it with a linker script"
        )
    entry, program_at, section_at, flags = fields[4], fields[5], fields[6], fields[7]
    program_size, program_n, section_size, section_n = fields[9], fields[10], fields[11], fields[12]
    if flags & _FLAG_FLOAT:
        raise ImageError("compiled for a floating-point unit; this machine has none (use -mabi=ilp32)")
    if flags & _FLAG_RVE:
        raise ImageError("compiled for RV32E; this machine is RV32IMC")
    if program_n == 0:
        raise ImageError("no program headers: nothing to load")
    if program_n > _MAX_SEGMENTS or program_size < _PROGRAM.size:
        raise ImageError(f"{program_n} program headers of {program_size} bytes: not a sane file")
    segments = []
    for i in range(program_n):
        kind, offset, _, address, file_size, memory_size, _, _ = _unpack(
            _PROGRAM, data, program_at + i * program_size, f"program header {i}"
        )
        if kind in (_PT_DYNAMIC, _PT_INTERP):
            raise ImageError("dynamically linked; link it statically")
        if kind != _PT_LOAD or memory_size == 0:
            continue
        if file_size > memory_size:
            raise ImageError(f"segment {i}: {file_size} bytes in the file but {memory_size} in memory")
        if offset + file_size > len(data):
            raise ImageError(
                f"truncated: segment {i} needs bytes {offset} to {offset + file_size},"
                f" the file has {len(data)}"
            )
        if address + memory_size > 1 << 32:
            raise ImageError(f"segment {i} at 0x{address:08x} ends beyond 32 bits")
        segments.append((address, data[offset : offset + file_size], memory_size))
    if not segments:
        raise ImageError("no loadable segment")
    return Image(tuple(segments), entry, _symbols(data, section_at, section_size, section_n))


def _symbols(data: bytes, section_at: int, section_size: int, section_n: int) -> tuple[Symbol, ...]:
    """Symbols, if there are any; a stripped or damaged table only costs the names."""
    if section_at == 0 or section_size < _SECTION.size or section_n > _MAX_SECTIONS:
        return ()
    try:
        sections = [
            _unpack(_SECTION, data, section_at + i * section_size, f"section header {i}")
            for i in range(section_n)
        ]
    except ImageError:
        return ()
    found = []
    for section in sections:
        if section[1] != _SHT_SYMTAB or section[6] >= len(sections):
            continue
        names = data[sections[section[6]][4] :][: sections[section[6]][5]]
        table = data[section[4] :][: section[5]]
        for at in range(0, min(len(table), _MAX_SYMBOLS * _SYMBOL.size) - _SYMBOL.size + 1, _SYMBOL.size):
            name_at, address, size, info, _, index = _SYMBOL.unpack_from(table, at)
            if index == 0 or info & 15 > _STT_FUNC:
                continue
            name = names[name_at : max(names.find(b"\0", name_at), name_at)].decode("utf-8", "replace")
            if name and not name.startswith("$"):  # $x and $d are mapping symbols of the assembler
                found.append(Symbol(name, address, size, info & 15 != _STT_OBJECT))
    return tuple(sorted(found, key=lambda s: (s.address, s.name)))
