"""Builds programs for the board `bms`: the boot ROM and the firmware, as ELF files with sizes and stack use.

    rom, app = build_program("rom"), build_program("app")
    app.elf            # bytes, with symbols
    app.body           # bytes from the vectors on: what goes into an image behind its header
    app.flash_bytes, app.ram_bytes, app.stack_bytes

The same bytes from any folder (no debug information, all paths relative). Objects and results are cached as
in `build.py`. The worst-case stack comes from a walk over the calls in the machine code: the greatest sum of
stack frames along any path, plus the RT interrupt on top of the main loop.

Command line: `python -m bms_emulator.firmware.target` prints both.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..decode import fields16, fields32
from ..elf import Image, Symbol, read_image
from ..isa import OP
from . import build

PROGRAMS: dict[str, tuple[tuple[str, ...], str]] = {
    # parts (folders whose C files are linked, or single files), linker script
    "rom": (
        (
            "boot",
            *(f"hal/target/{name}" for name in ("start.S", "rom_main.c", "nvm.c", "hsm.c", "system.c")),
        ),
        "hal/target/link_rom.ld",
    ),
    "app": (
        (
            *("app", "keep", "boot/records.c", "boot/image.c", "update"),
            *(
                f"hal/target/{name}"
                for name in (
                    "start.S",
                    "main.c",
                    "afe.c",
                    "nvm.c",
                    "hsm.c",
                    "system.c",
                    "mailbox.c",
                    "ems.c",
                    "update_task.c",
                )
            ),
        ),
        "hal/target/link_app.ld",
    ),
}
FLAGS = (
    *(f + "+zicsr" if f.startswith("-mcpu=") else f for f in build.TARGET),
    # Without a frame pointer there is one instruction less whose loss moves all variables of a function.
    "-fomit-frame-pointer",
    *("-fstack-usage", "-ffunction-sections", "-fdata-sections"),
)
LINK = ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c+zicsr", "-Wl,--gc-sections")


@dataclass(frozen=True)
class Program:
    """A linked program. Sizes in bytes; `stack_bytes` is the worst case, `open_calls` the functions that are
    called through pointers and therefore not followed."""

    name: str
    elf: bytes
    body: bytes
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int
    deepest: tuple[str, ...]
    open_calls: tuple[str, ...]

    def image(self) -> Image:
        """Segments and symbols, as `Machine.load` takes them."""
        with tempfile.NamedTemporaryFile(suffix=".elf") as file:
            file.write(self.elf)
            file.flush()
            image = read_image(Path(file.name))
        named = tuple(s for s in image.symbols if not s.name.startswith(".L"))
        return Image(image.segments, image.entry, named)


def sources(name: str, folder: Path = build.SOURCE_DIR) -> list[str]:
    """Files of a program relative to `folder`, in the order in which they are compiled and linked."""
    found: list[str] = []
    for part in PROGRAMS[name][0]:
        if (folder / part).is_file():
            found.append(part)
        else:
            found += [p.relative_to(folder).as_posix() for p in sorted((folder / part).glob("*.c"))]
    return found


def build_program(
    name: str, defines: tuple[str, ...] = (), folder: Path = build.SOURCE_DIR, out_dir: Path | None = None
) -> Program:
    """Compile and link; taken from the cache if the same content was built before.

    Parameters
    ----------
    name : rom or app
    defines : further arguments of the compiler, for example -DNAME=1 of a release
    folder : root of the sources, for tests that build a copy
    out_dir : where the result goes; the cache folder by default
    """
    if name not in PROGRAMS:
        raise ValueError(f"no program {name!r}; expected one of {', '.join(PROGRAMS)}")
    target_dir = out_dir or build.cache_dir()
    key = build.content_key((name, *FLAGS, *LINK, *defines, str(PROGRAMS[name])), folder)
    kept = target_dir / f"bms-{name}-{key}"
    if not kept.exists():
        with tempfile.TemporaryDirectory(prefix="build-", dir=target_dir) as temporary:
            _build(name, defines, folder, Path(temporary))
            try:
                os.replace(temporary, kept)
                Path(temporary).mkdir()  # for the clean-up
            except OSError:  # another process was faster
                if not kept.exists():
                    raise
    about = json.loads((kept / "about.json").read_text())
    return Program(
        name,
        (kept / "program.elf").read_bytes(),
        (kept / "program.bin").read_bytes(),
        about["flash"],
        about["ram"],
        about["stack"],
        tuple(about["deepest"]),
        tuple(about["open_calls"]),
    )


def _build(name: str, defines: tuple[str, ...], folder: Path, out: Path) -> None:
    objects: list[str] = []
    frames: dict[str, int] = {}
    for source in sources(name, folder):
        made = out / (source.replace("/", "_").rsplit(".", 1)[0] + ".o")
        # Only bms_ctx_t is compared and hashed as bytes; the agent's context may have holes.
        holes = ("-Wno-padded",) if source.startswith(("update/", "keep/", "hal/")) else ()
        build.compile_c([*FLAGS, *holes, *defines, "-c", source, "-o", str(made)], folder)
        objects.append(str(made))
        usage = made.with_suffix(".su")
        if usage.exists():
            for line in usage.read_text().splitlines():
                place, size, kind = line.split("\t")
                if kind != "static":
                    raise build.FirmwareBuildError(f"{place}: the stack frame has no fixed size")
                frames[place.rsplit(":", 1)[1]] = int(size)
    elf = out / "program.elf"
    build.compile_c([*LINK, "-T", PROGRAMS[name][1], *objects, "-o", str(elf)], folder)
    image = read_image(elf)
    base, body = _body(image)
    stack, deepest, open_calls = worst_stack(image, frames)
    ram = sum(size for address, _, size in image.segments if address >> 28 == 1)
    about = {
        "flash": len(body),
        "ram": ram,
        "stack": stack,
        "deepest": deepest,
        "open_calls": open_calls,
        "base": base,
    }
    (out / "program.bin").write_bytes(body)
    (out / "about.json").write_text(json.dumps(about))
    for path in out.iterdir():
        if path.name not in ("program.elf", "program.bin", "about.json"):
            path.unlink()


def _body(image: Image) -> tuple[int, bytes]:
    """(address, bytes) of what lies in flash: code, constants and initial values of .data."""
    loads = [(a, d) for a, d, _ in image.segments if a >> 28 != 1 and d]
    data = [d for a, d, _ in image.segments if a >> 28 == 1 and d]
    base = min(a for a, _ in loads)
    end = max(a + len(d) for a, d in loads)
    body = bytearray(end - base)
    for address, chunk in loads:
        body[address - base : address - base + len(chunk)] = chunk
    symbol = image.symbol("data_load")
    for chunk in data:  # the values of .data lie behind the code
        assert symbol is not None
        at = symbol.address - base
        body[at : at + len(chunk)] = chunk
    return base, bytes(body)


def worst_stack(image: Image, frames: dict[str, int]) -> tuple[int, list[str], list[str]]:
    """(bytes, path, functions called by pointer) of the deepest stack: main loop plus the RT interrupt.

    Functions of the compiler's run-time library have no entry in `frames`; their frames are read from the
    code (addi sp, sp, -n).
    """
    functions = [s for s in image.symbols if s.is_function and s.size]
    calls: dict[str, set[str]] = {}
    depth_of = dict(frames)
    taken = _addresses_taken(image, functions)
    pointer_calls: set[str] = set()
    for function in functions:
        code = _code_of(image, function)
        targets, frame, indirect = _scan(code, function)
        depth_of.setdefault(function.name, frame)
        names = {_name_at(functions, t) for t in targets}
        calls[function.name] = {n for n in names if n}
        if indirect:
            pointer_calls.add(function.name)
            calls[function.name] |= taken
    memo: dict[str, tuple[int, list[str]]] = {}

    def deepest(name: str, above: tuple[str, ...] = ()) -> tuple[int, list[str]]:
        if name in above:
            raise build.FirmwareBuildError(f"recursion: {' -> '.join([*above, name])}")
        if name not in memo:
            best: tuple[int, list[str]] = (0, [])
            for callee in sorted(calls.get(name, ())):
                best = max(best, deepest(callee, (*above, name)))
            memo[name] = (depth_of.get(name, 0) + best[0], [name, *best[1]])
        return memo[name]

    main = deepest("chip_main")
    interrupt = deepest("trap_timer")
    return main[0] + interrupt[0], [*main[1], *interrupt[1]], sorted(pointer_calls)


def _code_of(image: Image, function: Symbol) -> bytes:
    for address, data, _ in image.segments:
        if address <= function.address and function.address + function.size <= address + len(data):
            return data[function.address - address :][: function.size]
    return b""


def _name_at(functions: list[Symbol], address: int) -> str | None:
    return next((f.name for f in functions if f.address <= address < f.address + f.size), None)


def _scan(code: bytes, function: Symbol) -> tuple[set[int], int, bool]:
    """(addresses called, also those jumped to outside, stack frame, whether it calls through a register)."""
    at, frame, indirect = 0, 0, False
    targets: set[int] = set()
    upper: dict[int, int] = {}  # register -> address by auipc
    while at + 2 <= len(code):
        low = int.from_bytes(code[at : at + 2], "little")
        size = 4 if low & 3 == 3 else 2
        word = int.from_bytes(code[at : at + size], "little")
        op, rd, rs1, _, imm = fields32(word) if size == 4 else fields16(word)
        pc = function.address + at
        if op == OP["auipc"]:
            upper[rd] = pc + imm
        elif op == OP["jal"]:
            target = (pc + imm) & 0xFFFFFFFF
            if rd or not function.address <= target < function.address + function.size:
                targets.add(target)
        elif op == OP["jalr"] and rs1 in upper:
            targets.add((upper.pop(rs1) + imm) & 0xFFFFFFFE)
        elif op == OP["jalr"] and not (rd == 0 and rs1 == 1):
            # A jump through a table inside the function (switch) is no call; a call keeps a return address.
            indirect = indirect or rd == 1
        elif op == OP["addi"] and rd == 2 and rs1 == 2 and imm < 0:
            frame = max(frame, -imm)
        at += size
    return targets, frame, indirect


def _addresses_taken(image: Image, functions: list[Symbol]) -> set[str]:
    """Functions whose address stands in constants: what a call through a pointer may reach."""
    starts = {f.address: f.name for f in functions}
    found: set[str] = set()
    for _, data, _ in image.segments:
        for at in range(0, len(data) - 3, 4):
            name = starts.get(int.from_bytes(data[at : at + 4], "little"))
            if name is not None:
                found.add(name)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bms_emulator.firmware.target", description=(__doc__ or "").splitlines()[0]
    )
    parser.parse_args(arguments)
    try:
        for name in PROGRAMS:
            program = build_program(name)
            print(
                f"{name:4s} flash {program.flash_bytes:6d} B  RAM {program.ram_bytes:6d} B  worst stack"
                f" {program.stack_bytes:5d} B ({' > '.join(program.deepest)})"
            )
            if program.open_calls:
                print(f"     calls through pointers in {', '.join(program.open_calls)}")
    except build.FirmwareBuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
