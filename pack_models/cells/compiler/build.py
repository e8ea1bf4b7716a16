"""From C text to a loaded library, compiled once per content and kept in the user's cache.

The key covers the text, the vector mathematics, the compiler and its flags; the file is made under
another name and moved into place, so that processes that build at the same moment do not meet.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from pack_models.compiled import CompileError, cache_folder

VECTOR_MATH = Path(__file__).with_name("vecmath.h")
# Sums and products fuse only where the text says so (one expression), never by reordering.
FLAGS = ("-O2", "-std=gnu11", "-fPIC", "-shared", "-ffp-contract=on", "-fno-math-errno", "-fno-slp-vectorize")


@lru_cache(maxsize=1)
def host_cpu() -> str:
    """The widest vector level of this machine the kernels are made for."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return "native"
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return "native"
    if {"avx512f", "avx512dq", "avx512vl", "avx512bw", "avx512cd"} <= words:
        return "x86_64_v4"
    return "x86_64_v3" if {"avx2", "fma", "bmi2"} <= words else "native"


@lru_cache(maxsize=1)
def compiler_version() -> str:
    """Version of the Zig C compiler."""
    try:
        return importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        raise CompileError(
            "compiled cell models need the C compiler of the package ziglang once; pip install ziglang, "
            "or choose ecm"
        ) from None


def content_key(*parts: str) -> str:
    """Short hash of some texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def shared_object(text: str) -> Path:
    """Path of the library of a translation unit, compiled when this content was not compiled before."""
    flags = [*FLAGS, f"-mcpu={host_cpu()}"]
    key = content_key(text, VECTOR_MATH.read_text(encoding="ascii"), compiler_version(), " ".join(flags))
    target = cache_folder() / f"cell-{key}.so"
    if not target.exists():
        environment = dict(os.environ)
        for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
            environment.setdefault(name, str(target.parent.parent / "zig"))
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            source, out = Path(folder) / "cell.c", Path(folder) / target.name
            source.write_text(text, encoding="ascii")
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "ziglang",
                    "cc",
                    *flags,
                    f"-I{VECTOR_MATH.parent}",
                    str(source),
                    "-o",
                    str(out),
                    "-lm",
                ],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise CompileError(f"the C compiler refused a cell model:\n{done.stderr[-3000:]}")
            os.replace(out, target)
    return target


def library(text: str) -> ctypes.CDLL:
    """The loaded library of a cell model."""
    loaded = ctypes.CDLL(str(shared_object(text)))
    pointer, whole, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    loaded.advance.restype = whole
    loaded.advance.argtypes = [whole, real, real, *[pointer] * 5]
    loaded.look.restype = None
    loaded.look.argtypes = [whole, *[pointer] * 3]
    loaded.sizes.restype = whole
    loaded.sizes.argtypes = [whole]
    return loaded
