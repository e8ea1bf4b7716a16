"""Ageing models of the catalogue: `catalogue/ageing/*.yaml`, every number with unit and source.

from pack_models.ageing import ageing_model, ageing_names
ageing_model("naumann_lfp").valid.temperature_K
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pack_models.ageing.forms import FORMS, FloatArray, Form
from pack_models.catalogue import ANY, FOLDER, NOT_NEGATIVE, POSITIVE, CatalogueError, Sheet, unknown_name

AGEING_FOLDER = FOLDER / "ageing"


@dataclass(frozen=True)
class Validity:
    """Conditions the parameters were measured in; beyond them a model extrapolates and counts it."""

    temperature_K: tuple[float, float]
    depth: tuple[float, float]  # of a cycle, 0…1
    rate_max_per_h: float


@dataclass(frozen=True, eq=False)
class AgeingModel:
    """One ageing model: a law (`form`) with its parameters.

    parameters : (n,) in the order of form.keys
    curve : (n_points, 3) charge, open circuit, integral of its square; two zero rows where unused
    powers : (4,) of calendar capacity, calendar resistance, cycle capacity, cycle resistance
    """

    name: str
    about: str
    chemistry: str
    form: Form
    parameters: FloatArray
    curve: FloatArray
    powers: FloatArray
    valid: Validity
    sources: Mapping[str, str]

    @property
    def has_knee(self) -> bool:
        """Whether the law has an onset of fast fade of its own."""
        return "material_half" in self.form.keys

    def number(self, key: str) -> float:
        """A parameter by its key in the catalogue."""
        return float(self.parameters[self.form.keys.index(key)])


def load_ageing(path: Path) -> AgeingModel:
    """The model in a file; raises CatalogueError with every mistake in it."""
    sheet = Sheet(path)
    texts = {key: sheet.text(key) for key in ("name", "about", "chemistry")}
    form_name = sheet.text("form")
    if form_name not in FORMS:
        raise CatalogueError(path, [f"form: {unknown_name('ageing law', form_name, tuple(FORMS))}"])
    form = FORMS[form_name]
    numbers = sheet.section("numbers")
    values = {key: sheet.number("numbers.", numbers, key, ANY) for key in form.keys}
    curve = np.zeros((2, 3))
    if form.has_ocv:
        curves = sheet.section("curves")
        soc = sheet.array("curves.", curves, "ocv_soc", NOT_NEGATIVE)
        volt = sheet.array("curves.", curves, "ocv_V", POSITIVE)
        sheet.problems += [f"curves.{key}: unknown key" for key in curves]
        if soc.shape != volt.shape or soc.ndim != 1 or (np.diff(soc) <= 0).any() or soc[0] or soc[-1] != 1.0:
            sheet.problems.append("curves.ocv_soc: must grow from 0 to 1, with one ocv_V for each")
        else:
            pieces = np.diff(soc) * (volt[:-1] ** 2 + volt[:-1] * volt[1:] + volt[1:] ** 2) / 3.0
            curve = np.column_stack([soc, volt, np.concatenate([[0.0], np.cumsum(pieces)])])
    ranges = sheet.section("valid")
    temperature = _range(sheet, ranges, "temperature_range_K")
    depth = _range(sheet, ranges, "depth_range")
    rate = sheet.number("valid.", ranges, "rate_max_per_h", POSITIVE)
    powers = np.array([values[p] if isinstance(p, str) else p for p in form.powers])
    if (powers <= 0.0).any():
        sheet.problems.append("numbers: every power must be more than 0")
    sheet.problems += [f"{key}: unknown key" for key in [*numbers, *ranges]]
    if texts["name"] != path.stem:
        sheet.problems.append(f"name: {texts['name']!r} is not the name of the file")
    sheet.finish()
    return AgeingModel(
        **texts,
        form=form,
        parameters=np.array([values[key] for key in form.keys]),
        curve=curve,
        powers=powers,
        valid=Validity(temperature, depth, rate),
        sources=sheet.sources,
    )


def _range(sheet: Sheet, entries: dict[str, Any], key: str) -> tuple[float, float]:
    values = sheet.array("valid.", entries, key, NOT_NEGATIVE)
    if values.shape != (2,) or values[0] >= values[1]:
        sheet.problems.append(f"valid.{key}: expected two growing numbers")
        return 0.0, 1.0
    return float(values[0]), float(values[1])


@lru_cache(maxsize=1)
def ageing_names() -> tuple[str, ...]:
    """Ageing models of the catalogue, sorted."""
    return tuple(sorted(path.stem for path in AGEING_FOLDER.glob("*.yaml")))


@lru_cache(maxsize=16)
def ageing_model(name: str) -> AgeingModel:
    """The ageing model of that name; KeyError with the nearest name otherwise."""
    if name not in ageing_names():
        raise KeyError(unknown_name("ageing model", name, ageing_names()))
    return load_ageing(AGEING_FOLDER / f"{name}.yaml")
