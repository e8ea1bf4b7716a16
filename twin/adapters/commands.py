"""Command lines of the engines, reached through `twin`; each takes words and returns an exit code."""

from __future__ import annotations

from collections.abc import Sequence


def propagate(words: Sequence[str]) -> int:
    """`python -m pack_models.propagation …`"""
    from pack_models.propagation.__main__ import main

    return main(list(words))


def ota(words: Sequence[str]) -> int:
    """`python -m ota …`"""
    from ota.cli import run

    return run(list(words))
