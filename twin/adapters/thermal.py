"""The ladder of thermal models behind `PackThermal`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from twin.ports import FloatArray, PackThermal

# design, n_packs, (n_cells,) initial temperature, (n_packs,) ambient, both in K
Build = Callable[[str, int, FloatArray, FloatArray], PackThermal]


@dataclass(frozen=True)
class ThermalRung:
    about: str
    build: Build


def _lumped(design: str, n_packs: int, temperature_K: FloatArray, ambient_K: FloatArray) -> PackThermal:
    from pack_models.catalogue import pack
    from pack_models.thermal.lumped import LumpedThermal

    return cast(PackThermal, LumpedThermal.from_pack(pack(design), n_packs, temperature_K))


RUNGS: dict[str, ThermalRung] = {
    "lumped": ThermalRung("a node for each cell, neighbours, coolant and ambient", _lumped),
}
