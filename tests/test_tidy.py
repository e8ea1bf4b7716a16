"""The house stays in order: layers, style, types, links, no machine paths, no registry addresses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def tracked_files(*patterns: str) -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    return [REPOSITORY / name for name in names if name and (REPOSITORY / name).is_file()]


def run_tool(*command: str) -> None:
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize(
    "command",
    [
        ("lint-imports", "--no-cache"),
        ("ruff", "check", "--no-cache", "."),
        ("ruff", "format", "--no-cache", "--check", "."),
        ("mypy", "--no-error-summary"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_tool_is_content(command):
    run_tool(*command)


def test_no_machine_paths_and_no_registry_addresses():
    """An absolute path of some machine, or a registry's host, must not be in any commit."""
    machine = re.compile(r"(?<![\w.])/(?:root|home|work|Users)/[\w.]+")
    address = re.compile(r"https?://|--index-url|--find-links|extra-index")
    found = []
    for path in tracked_files():
        if path.suffix in {".png", ".parquet", ".elf", ".bin"} or path == Path(__file__).resolve():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(REPOSITORY)}: {m.group()}" for m in machine.finditer(text)]
        if path.name in {"constraints.txt", "Makefile", "pyproject.toml"} or path.suffix == ".sh":
            found += [f"{path.relative_to(REPOSITORY)}: {m.group()}" for m in address.finditer(text)]
    assert not found


@pytest.mark.parametrize("page", tracked_files("*.md"), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_every_exact_version_is_pinned_once():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    names = [line.split("==")[0] for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s]+", line) for line in lines if not line.startswith("#"))
    assert len(names) == len(set(names))


def test_help_needs_no_heavy_import():
    """`twin --help` stays below a second because nothing heavy is imported for it."""
    code = (
        "import sys, twin.cli; heavy = 'numpy pandas pybamm numba simpy plotly matplotlib'.split(); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "[]"
