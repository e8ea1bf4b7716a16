"""The ladder of cell models: ecm, PyBaMM's spm and spme compiled, and PyBaMM itself, behind `CellBank`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from twin.ports import CellBank, FloatArray

if TYPE_CHECKING:
    from pack_models.catalogue.design import PackDesign

# design, n_packs, then (n_cells,) capacity factor, resistance factor, soc, temperature in K
Build = Callable[[str, int, FloatArray, FloatArray, FloatArray, FloatArray], CellBank]


@dataclass(frozen=True)
class CellRung:
    about: str
    build: Build


class CellModelError(ValueError):
    """A rung that these cells do not have; nothing was run."""

    exit_code = 2


def _sheet(design: str, model: str) -> PackDesign:
    """The catalogue's pack, if its cells have a PyBaMM parameter set to make this rung of."""
    from pack_models.catalogue import pack, pack_names

    sheet = pack(design)
    if sheet.cell.pybamm is None:
        able = [name for name in pack_names() if pack(name).cell.pybamm is not None]
        raise CellModelError(
            f"pack {design}: its cells ({sheet.cell.name}) have no PyBaMM parameter set, so there is no "
            f"cells: {{model: {model}}} of them; choose {{model: ecm}}, or one of {', '.join(able)}"
        )
    return sheet


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
        from pack_models.cells.compiled_cell import CompiledBank

        sheet = _sheet(design, model)
        bank = CompiledBank.from_pack(sheet, n_packs, soc, capacity, resistance, kelvin, model=model)
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
        from pack_models.cells.pybamm_cell import PybammBank

        sheet = _sheet(design, model)
        bank = PybammBank.from_pack(sheet, n_packs, soc, capacity, resistance, kelvin, model=model)
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
