"""The ladder of cell models: ecm, PyBaMM's spm and spme compiled, and PyBaMM itself, behind `CellBank`."""

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


def _compiled(model: str) -> Build:
    def build(
        design: str,
        n_packs: int,
        capacity: FloatArray,
        resistance: FloatArray,
        soc: FloatArray,
        kelvin: FloatArray,
    ) -> CellBank:
        from pack_models.catalogue import pack
        from pack_models.cells.compiled_cell import CompiledBank

        bank = CompiledBank.from_pack(pack(design), n_packs, soc, capacity, resistance, kelvin, model=model)
        return cast(CellBank, bank)

    return build


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
    "spm": CellRung("PyBaMM single-particle model, compiled; for racks and sites", _compiled("spm")),
    "spme": CellRung("PyBaMM single-particle model with electrolyte, compiled; for racks", _compiled("spme")),
    "spme_pybamm": CellRung("the same by PyBaMM's own solver; to compare a few cells", _pybamm("spme")),
    "dfn": CellRung("PyBaMM Doyle-Fuller-Newman model and solver; reference for a few cells", _pybamm("dfn")),
}
