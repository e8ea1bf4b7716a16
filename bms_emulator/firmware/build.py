"""Builds the firmware with ziglang: as a library of this host, or as objects of the target controller.

Builds are cached in the user's cache folder (`TWIN_CACHE`, else `XDG_CACHE_HOME`/battery-twin, else
~/.cache/battery-twin) under a name made from the sources, the flags and the compiler version, so a changed
line is a new file, and two processes that build at once both end with the same one (each writes a temporary
file and renames it). The bytes depend on sources and flags only: no debug paths, no build id, generic CPU of
the architecture.

    >>> from bms_emulator.firmware.build import build_native
    >>> build_native()                         # doctest: +SKIP
    PosixPath('~/.cache/battery-twin/firmware/bms-release-4f1c….so')

Command line: `python -m bms_emulator.firmware.build --native` prints path and size, `--target` compiles
`app/` for the controller and prints the size of each object's code; with `--release 1.1.0` both are those of
that release, and the target's is the linked program: what goes into an image behind its header.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import platform
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from bms_emulator.firmware.releases import ReleaseError, load_release

SOURCE_DIR = Path(__file__).resolve().parent

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wpadded", "-Wconversion")
# Same bits on every machine: IEEE arithmetic as written, no CPU-specific instructions.
COMMON = (
    *("-std=c11", "-O2", "-g0", "-ffreestanding", "-fno-fast-math", "-ffp-contract=off"),
    "-fno-strict-aliasing",  # parameter sets are read as words and as fields
    *("-fvisibility=hidden", "-Iinclude"),
    *WARNINGS,
)
NATIVE = (*COMMON, "-mcpu=baseline", "-fPIC", "-shared", "-s", "-Wl,--build-id=none")
TARGET = (*COMMON, "-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c")

VARIANTS: dict[str, tuple[str, ...]] = {
    "release": (),
    # Evaluates everything in every tick; the tests compare the release build with it.
    "naive": ("-DBMS_NAIVE",),
    # Undefined behaviour and out-of-bounds indices stop the process; for the fuzz corpus.
    "ubsan": ("-fsanitize=undefined,bounds", "-fsanitize-trap=undefined,bounds"),
}


class FirmwareBuildError(RuntimeError):
    """The C compiler is missing or refused the sources; the message carries what it said."""


def cache_dir() -> Path:
    """Folder for built files; created if missing."""
    configured = os.environ.get("TWIN_CACHE")
    if configured:
        base = Path(configured)
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "battery-twin"
    folder = base / "firmware"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FirmwareBuildError(
            f"cannot create the cache folder {folder} ({error.strerror}); set TWIN_CACHE to a writable folder"
        ) from error
    return folder


def sources(folder: Path = SOURCE_DIR, parts: tuple[str, ...] = ("app", "host")) -> list[Path]:
    """C files of these parts relative to folder, sorted: the order in which they are compiled and linked."""
    return sorted(path.relative_to(folder) for part in parts for path in (folder / part).glob("*.c"))


def content_key(flags: tuple[str, ...], folder: Path = SOURCE_DIR) -> str:
    """Hash over every source and header, the flags, the compiler version and the architecture."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".c", ".h", ".S", ".ld")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update("\0".join(flags).encode())
    digest.update(f"\0{_compiler_version()}\0{platform.system()}\0{platform.machine()}".encode())
    return digest.hexdigest()[:20]


def _compiler_version() -> str:
    try:
        return importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError as error:
        raise FirmwareBuildError(
            "building the BMS firmware needs the C compiler of the package ziglang; pip install ziglang"
        ) from error


def compile_c(arguments: list[str], folder: Path) -> None:
    """Run the C compiler in folder (so that no path of this machine enters the output)."""
    _compiler_version()
    environment = dict(os.environ)
    environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache_dir() / "zig"))
    environment.setdefault("ZIG_LOCAL_CACHE_DIR", str(cache_dir() / "zig"))
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip() or "(no output)"
        raise FirmwareBuildError(
            f"the firmware does not compile (exit {done.returncode}): zig cc {' '.join(arguments)}\n{said}"
        )


def build_native(
    variant: str = "release",
    folder: Path = SOURCE_DIR,
    out_dir: Path | None = None,
    release: str | None = None,
) -> Path:
    """Library of the firmware for this host; built only if no build of the same content is cached.

    Parameters
    ----------
    variant : key of VARIANTS
    release : name of a file of releases/; the newest good one by default
    folder : root of the sources, for tests that build a copy
    out_dir : where the library goes; the cache folder by default
    """
    if variant not in VARIANTS:
        raise ValueError(f"no firmware variant {variant!r}; expected one of {', '.join(VARIANTS)}")
    flags = (*NATIVE, *VARIANTS[variant], *(load_release(release).flags if release else ()))
    target_dir = out_dir or cache_dir()
    named = f"bms-{variant}{'-' + release if release else ''}-{content_key(flags, folder)}"
    library = target_dir / f"{named}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(prefix="build-", dir=target_dir) as temporary:
        made = Path(temporary) / "bms.so"
        compile_c([*flags, *map(str, sources(folder)), "-o", str(made)], folder)
        os.replace(made, library)
    return library


def build_target_objects(out_dir: Path, folder: Path = SOURCE_DIR) -> dict[str, int]:
    """Compile app/ for the controller (RV32IMC); bytes of code and constants per object."""
    sizes = {}
    for source in sources(folder, ("app",)):
        made = out_dir / f"{source.stem}.o"
        compile_c([*TARGET, "-c", str(source), "-o", str(made)], folder)
        sizes[source.name] = _allocated_bytes(made.read_bytes())
    return sizes


def _allocated_bytes(elf: bytes) -> int:
    """Bytes of the sections of a 32-bit little-endian ELF object that end up in flash."""
    section_offset = struct.unpack_from("<I", elf, 32)[0]
    entry_size, count = struct.unpack_from("<HH", elf, 46)
    total = 0
    for i in range(count):
        kind, flags, _, _, size = struct.unpack_from("<IIIII", elf, section_offset + i * entry_size + 4)
        allocated, has_bytes = flags & 2, kind == 1
        total += size if allocated and has_bytes else 0
    return total


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bms_emulator.firmware.build", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--native", action="store_true", help="build the library of this host")
    parser.add_argument("--target", action="store_true", help="compile app/ for the controller, print sizes")
    parser.add_argument("--release", help="one of firmware/releases; without it the newest good one")
    parser.add_argument("--out", type=Path, help="with --release: folder for program.bin and the library")
    parser.add_argument("--variant", default="release", choices=list(VARIANTS), help="of the native build")
    chosen = parser.parse_args(arguments)
    if chosen.release:
        return _release(chosen.release, chosen.variant, chosen.out)
    if not (chosen.native or chosen.target):
        parser.error("nothing to do: choose --native, --target or --release")
    try:
        if chosen.native:
            library = build_native(chosen.variant)
            print(f"{library}  {library.stat().st_size} bytes")
        if chosen.target:
            with tempfile.TemporaryDirectory() as folder:
                sizes = build_target_objects(Path(folder))
            for name, size in sizes.items():
                print(f"{name:16s} {size:6d} bytes")
            print(f"{'app/ for RV32IMC':16s} {sum(sizes.values()):6d} bytes")
    except FirmwareBuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _release(name: str, variant: str, out_dir: Path | None) -> int:
    """Build one release for host and target; exit code 2 when there is no such release."""
    from bms_emulator.firmware.target import build_program

    try:
        release = load_release(name)
        library = build_native(variant, release=name)
        program = build_program("app", release.flags)
    except (FirmwareBuildError, ReleaseError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ReleaseError) else 1
    print(f"{release.version}  {release.about}")
    if out_dir:
        out_dir.mkdir(parents=True, exist_ok=True)
        (out_dir / f"bms-{name}.bin").write_bytes(program.body)
        (out_dir / f"bms-{name}.so").write_bytes(library.read_bytes())
    print(f"{library}  {library.stat().st_size} bytes")
    print(
        f"target  flash {program.flash_bytes} B  RAM {program.ram_bytes} B  "
        f"worst stack {program.stack_bytes} B"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
