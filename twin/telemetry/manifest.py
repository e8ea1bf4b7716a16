"""manifest.json: what was run, with what, and what came out; written last, so its presence means complete.

Everything but `timings` (wall-clock seconds, date, machine) is a function of scenario, seed and commit:
two runs of the same give the same manifest without that key (`deterministic_sha256`).
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from twin.telemetry.schema import SCHEMA_VERSION

FORMAT = "battery-twin-run"
COMPLETE = "complete"


@dataclass(kw_only=True)
class Expectation:
    """One claim of the scenario and what became of it."""

    metric: str
    relation: str  # 'at_least', 'at_most', 'equals'
    wanted: float  # SI
    value: float  # SI; NaN when the run gave none
    dimension: str
    met: bool


@dataclass(kw_only=True)
class TableFiles:
    """Files of one table."""

    rows: int
    sha256: str  # over the files' paths and hashes
    files: list[dict[str, Any]]  # {"path", "rows", "sha256"}, in the order of writing


@dataclass(kw_only=True)
class Manifest:
    """The run in one page.

    balances maps a scope ('all' or a site) to cumulative terms, each named with its unit
    (`energy_charged_J`, `charge_short_C` …; `report.energy` lists those it draws) and residuals.
    summary maps a metric to {"value", "dimension"}, SI.
    """

    scenario: str  # name
    about: str = ""
    scenario_hash: str = ""
    seed: int = 0
    start: str = ""  # calendar time of t = 0, ISO, UTC
    duration_s: float = 0.0
    resolved: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    commit: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    fidelity: dict[str, str] = field(default_factory=dict)  # ladder -> rung
    profiles: dict[str, str] = field(default_factory=dict)  # site/what -> SHA-256 of the series used
    steps: dict[str, int] = field(default_factory=dict)
    zoom_windows: list[dict[str, Any]] = field(default_factory=list)  # {"start_us", "end_us", "reasons"}
    code_names: dict[str, dict[str, str]] = field(default_factory=dict)  # column -> code or bit -> name
    balances: dict[str, dict[str, float]] = field(default_factory=dict)
    firmware: dict[str, dict[str, float]] = field(default_factory=dict)  # design, or 'updates' -> figures
    summary: dict[str, dict[str, Any]] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)  # one row per detector
    expectations: list[Expectation] = field(default_factory=list)
    tables: dict[str, TableFiles] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)
    schema_version: str = SCHEMA_VERSION
    format: str = FORMAT
    status: str = COMPLETE

    def to_json(self) -> str:
        """Canonical text: sorted keys, a number that does not exist is null."""
        return json.dumps(_plain(asdict(self)), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Inverse of `to_json`; keys of later versions are left out."""
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"not a {FORMAT} manifest")
        known = {entry.name for entry in fields(cls)}
        data = {key: value for key, value in data.items() if key in known}
        data["tables"] = {name: TableFiles(**table) for name, table in data.get("tables", {}).items()}
        data["expectations"] = [
            Expectation(**{**row, "value": math.nan if row["value"] is None else row["value"]})
            for row in data.get("expectations", [])
        ]
        return cls(**data)

    def deterministic_sha256(self) -> str:
        """Hash of everything that must not change between two runs of the same scenario and commit."""
        data = asdict(self)
        del data["timings"]
        text = json.dumps(_plain(data), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """JSON has no NaN; numpy scalars become numbers."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of the distributions that shape the numbers; those not installed are left out."""
    found = {}
    for name in sorted(names):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit(folder: Path) -> str:
    """Commit of the repository around `folder`, '+changes' when files differ; '' without one."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""
