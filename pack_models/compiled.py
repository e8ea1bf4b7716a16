"""Compiles a C source of this package once and loads it.

    library = load(Path("cells/ecm_step.c"))

Vector instructions of this processor are used, but nothing that changes a result: no fast-math, no
contraction to fused multiply-adds. The library is kept in the cache folder (`TWIN_CACHE`, else the user's
cache) under a name made from the source, the flags, the compiler and the processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

FLAGS = ("-std=c11", "-O3", "-march=native", "-fPIC", "-shared", "-ffp-contract=off", "-fno-fast-math")
# Square roots need not set errno; a libm call would keep a loop from being vectorised.
QUIET = ("-fno-math-errno", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=all")


class CompileError(RuntimeError):
    """The C compiler is missing or refused a source; the message carries what it said."""

    exit_code = 1


def cache_folder() -> Path:
    """Folder of compiled kernels; created if missing."""
    configured = os.environ.get("TWIN_CACHE")
    if configured:
        base = Path(configured)
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "battery-twin"
    folder = base / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompileError(
            f"cannot create the cache folder {folder} ({error.strerror}); set TWIN_CACHE to a writable folder"
        ) from error
    return folder


def _processor() -> str:
    """What tells processors apart for whom the same flags make different code."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.system()} {platform.machine()} {features}"


def _content(source: Path) -> bytes:
    """The source with everything it includes from its own folder or below, for the name of the library."""
    text = source.read_bytes()
    included = re.findall(rb'^#include "([^"]+)"', text, flags=re.MULTILINE)
    return text + b"".join(_content(source.parent / name.decode()) for name in included)


def build(source: Path) -> Path:
    """Path of the compiled library, compiling it when this source was not compiled before."""
    try:
        version = importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError as error:
        raise CompileError(
            f"{source.name} needs the C compiler of the package ziglang once; pip install ziglang"
        ) from error
    flags = (*FLAGS, *QUIET)
    digest = hashlib.sha256(_content(source))
    digest.update("\0".join((*flags, version, _processor())).encode())
    folder = cache_folder()
    target = folder / f"{source.stem}-{digest.hexdigest()[:20]}.so"
    if target.exists():
        return target
    environment = dict(os.environ)
    environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(folder.parent / "zig"))
    environment.setdefault("ZIG_LOCAL_CACHE_DIR", str(folder.parent / "zig"))
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as temporary:
        made = Path(temporary) / target.name
        done = subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", *flags, source.name, "-o", str(made)],
            cwd=source.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CompileError(f"{source.name} does not compile (exit {done.returncode}):\n{done.stderr}")
        os.replace(made, target)  # atomic: two processes may build at the same moment
    return target


@lru_cache(maxsize=8)
def load(source: Path) -> ctypes.CDLL:
    """The compiled library of a C source."""
    return ctypes.CDLL(str(build(source)))


def structure(kind: type[ctypes.Structure], **values: Any) -> Any:
    """A structure from arrays (kept alive with it) and numbers."""
    made = kind()
    for name, _ in kind._fields_:  # type: ignore[misc]
        value = values.pop(name)
        if isinstance(value, np.ndarray):  # None stays a null pointer
            if not value.flags.c_contiguous:
                raise ValueError(f"{name} of {kind.__name__} is not contiguous")
            setattr(made, name, value.ctypes.data)
            made.__dict__.setdefault("kept", []).append(value)
        else:
            setattr(made, name, value)
    if values:
        raise TypeError(f"{kind.__name__} has no {', '.join(values)}")
    return made
