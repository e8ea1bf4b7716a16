"""The ladder of cell models: ecm, and PyBaMM's own spm, spme and dfn, behind `CellBank`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from twin.ports import CellBank, FloatArray

# design, n_packs, then (n_cells,) capacity factor, resistance factor, soc, temperature in K
Build = Callable[[str, int, FloatArray, FloatArray, FloatArray, FloatArray], CellBank]


@dataclass(frozen=True)
class CellRung:
    about: str
    build: Build


def _ecm(
    design: str,
    n_packs: int,
    capacity: FloatArray,
    resistance: FloatArray,
    soc: FloatArray,
    kelvin: FloatArray,
) -> CellBank:
    from pack_models.catalogue import pack
    from pack_models.cells.ecm import EcmBank

    return cast(CellBank, EcmBank.from_pack(pack(design), n_packs, soc, capacity, resistance, kelvin))


def _pybamm(model: str) -> Build:
    def build(
        design: str,
        n_packs: int,
        capacity: FloatArray,
        resistance: FloatArray,
        soc: FloatArray,
        kelvin: FloatArray,
    ) -> CellBank:
        from pack_models.catalogue import pack
        from pack_models.cells.pybamm_cell import PybammBank

        bank = PybammBank.from_pack(pack(design), n_packs, soc, capacity, resistance, kelvin, model=model)
        return cast(CellBank, bank)

    return build


RUNGS: dict[str, CellRung] = {
    "ecm": CellRung(
        "2-RC equivalent circuit with tables over charge and temperature; for whole fleets", _ecm
    ),
    "spm": CellRung("PyBaMM single-particle model; for a rack", _pybamm("spm")),
    "spme": CellRung("PyBaMM single-particle model with electrolyte; for a rack", _pybamm("spme")),
    "dfn": CellRung("PyBaMM Doyle-Fuller-Newman model; reference for a few cells", _pybamm("dfn")),
}
