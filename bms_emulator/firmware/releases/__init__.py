"""Releases of the firmware: small build configurations of one source tree, one TOML each.

about      what it is, for people
version    major.minor.patch, unique; the firmware states it in its outputs and telemetry
defines    compiler definitions; BMS_FLAW_* are deliberate faults that scenarios roll out
parameters overrides of the default parameter set (keys as in parameters.py), optional

>>> from bms_emulator.firmware.releases import load_release
>>> load_release("1.1.0").flags
('-DBMS_EARLY_RATE_DEFAULT=0', '-DBMS_RELEASE=0x010100u')
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
_DEFINE = re.compile(r"BMS_[A-Z0-9_]+(=\w+)?")


class ReleaseError(ValueError):
    """A release that does not exist, or whose file is wrong."""


@dataclass(frozen=True)
class Release:
    """One build configuration; `flags` are arguments of the compiler."""

    name: str
    about: str
    version: str
    flags: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def numbers(self) -> tuple[int, int, int]:
        major, minor, patch = (int(part) for part in self.version.split("."))
        return major, minor, patch

    @property
    def flawed(self) -> bool:
        return any("FLAW" in flag for flag in self.flags)


@functools.cache
def release_names() -> tuple[str, ...]:
    """Good ones first, in the order of their versions."""
    found = [path.stem for path in FOLDER.glob("*.toml")]
    return tuple(sorted(found, key=lambda name: load_release(name).numbers))


@functools.cache
def load_release(name: str) -> Release:
    """The release of that name; ReleaseError says what is wrong and what there is."""
    path = FOLDER / f"{name}.toml"
    if not re.fullmatch(r"[\w.]+", name) or not path.exists():
        there = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise ReleaseError(f"no firmware release {name!r}; expected one of {there}")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{path.name}: {error}") from None
    unknown = set(data) - {"about", "version", "defines", "parameters"}
    if unknown or not {"about", "version", "defines"} <= set(data):
        raise ReleaseError(f"{path.name}: expected about, version, defines and perhaps parameters")
    version, defines = str(data["version"]), data["defines"]
    if not re.fullmatch(r"\d{1,3}\.\d{1,3}\.\d{1,3}", version):
        raise ReleaseError(f"{path.name}: version = {version!r}; expected major.minor.patch")
    for define in defines:
        if not isinstance(define, str) or not _DEFINE.fullmatch(define):
            raise ReleaseError(f"{path.name}: defines: {define!r} is not BMS_NAME or BMS_NAME=value")
    major, minor, patch = (int(part) for part in version.split("."))
    code = f"-DBMS_RELEASE=0x{major:02x}{minor:02x}{patch:02x}u"
    flags = (*(f"-D{define}" for define in defines), code)
    return Release(name, str(data["about"]), version, flags, data.get("parameters", {}))
