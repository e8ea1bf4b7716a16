"""The one place where functions are compiled with numba.

numba's on-disk cache notices a change of the file that holds a function, but not a change of a function or a
constant that it took from another file. Here the handlers, the cycle numbers and the bus live in different
files, so a stale cache would silently run old rules. Every cached function is therefore stamped with a digest
of all sources that take part in compiled code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.core import caching

_PACKAGE = Path(__file__).parent
_COMPILED = (
    "access",
    "bus",
    "core",
    "csr",
    "decode",
    "hot",
    "isa",
    "jit",
    "state",
    "timing",
    "trace",
    "traps",
)


@lru_cache(maxsize=1)
def source_digest() -> str:
    """SHA-256 over the sources that take part in compiled code."""
    digest = hashlib.sha256()
    for path in [
        *(_PACKAGE / f"{name}.py" for name in _COMPILED),
        *sorted((_PACKAGE / "devices").glob("*.py")),
    ]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def jit(function: Callable[..., Any]) -> Any:
    """Compile lazily in nopython mode, cached on disk under the digest of the whole package."""
    return _cached(numba.njit(function), function)


def inner(function: Callable[..., Any]) -> Any:
    """As `jit`, for functions that only compiled code calls: without the entry for Python, which takes long
    to make.

    Python can still call the uncompiled form, `function.py_func`.
    """
    return _cached(numba.njit(function, no_cpython_wrapper=True, no_cfunc_wrapper=True), function)


def _cached(dispatcher: Any, function: Callable[..., Any]) -> Any:
    try:
        cache = caching.FunctionCache(function)
        cache._cache_file = caching.IndexDataCacheFile(
            cache_path=cache._cache_path,
            filename_base=cache._impl.filename_base,
            source_stamp=source_digest(),
        )
    except RuntimeError:  # no writable cache folder: compile in every process, as numba itself would
        return dispatcher
    dispatcher._cache = cache
    return dispatcher
