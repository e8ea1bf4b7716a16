"""The catalogue of cells and packs: one YAML file each, every number with its unit and source.

    from pack_models.catalogue import cell, pack, pack_names
    pack("tower_112s4p").cell.capacity_Ah

A number stands as `key: {value: 5.0, unit: A.h, source: chen2020, valid: "2.5 to 4.2 V"}`, a curve or
table with `values` instead of `value`; `source` names an entry of the file's `sources`, `valid` is
optional text. Loading checks keys, units, sources, ranges and shapes, and reports everything at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pack_models.catalogue.design import GASES, AbuseDesign, CellDesign, FloatArray, PackDesign, ThermalDesign

FOLDER = Path(__file__).parent

# Unit that goes with the ending of a key; keys without such an ending are plain numbers, unit "1".
UNITS = {
    "_J_per_mol": "J/mol",
    "_W_per_K": "W/K",
    "_J_per_K": "J/K",
    "_V_per_K": "V/K",
    "_Ah": "A.h",
    "_ohm": "ohm",
    "_m3": "m3",
    "_m2": "m2",
    "_Pa": "Pa",
    "_kg": "kg",
    "_A": "A",
    "_F": "F",
    "_K": "K",
    "_V": "V",
    "_W": "W",
    "_per_h": "1/h",
    "_s": "s",
}
POSITIVE, NOT_NEGATIVE, ANY = "more than 0", "at least 0", "a finite number"

CELL_NUMBERS = {
    "capacity_Ah": POSITIVE,
    "voltage_min_V": POSITIVE,
    "voltage_max_V": POSITIVE,
    "temperature_min_K": POSITIVE,
    "temperature_max_K": POSITIVE,
    "charge_current_max_A": POSITIVE,
    "discharge_current_max_A": POSITIVE,
    "mass_kg": POSITIVE,
    "heat_capacity_J_per_K": POSITIVE,
    "reference_temperature_K": POSITIVE,
    "hysteresis_rate": NOT_NEGATIVE,
}
CELL_CURVES = {
    "ocv_soc": NOT_NEGATIVE,
    "ocv_V": POSITIVE,
    "entropic_V_per_K": ANY,
    "hysteresis_V": NOT_NEGATIVE,
    "table_soc": NOT_NEGATIVE,
    "table_temperature_K": POSITIVE,
    "resistance0_ohm": POSITIVE,
    "resistance1_ohm": POSITIVE,
    "time_constant1_s": POSITIVE,
    "resistance2_ohm": POSITIVE,
    "time_constant2_s": POSITIVE,
}
PACK_NUMBERS = {
    "busbar_resistance_ohm": NOT_NEGATIVE,
    "balancing_resistance_ohm": POSITIVE,
    "capacity_spread": NOT_NEGATIVE,
    "resistance_spread": NOT_NEGATIVE,
    "soc_spread": NOT_NEGATIVE,
    "charge_current_max_A": POSITIVE,
    "discharge_current_max_A": POSITIVE,
    "voltage_min_V": POSITIVE,
    "voltage_max_V": POSITIVE,
    "temperature_min_K": POSITIVE,
    "temperature_max_K": POSITIVE,
    "precharge_resistance_ohm": POSITIVE,
    "link_capacitance_F": POSITIVE,
}
PACK_COUNTS = ("n_modules", "groups_per_module", "n_parallel", "sensor_every_groups")
THERMAL_NUMBERS = {
    "series_neighbour_W_per_K": NOT_NEGATIVE,
    "parallel_neighbour_W_per_K": NOT_NEGATIVE,
    "coolant_W_per_K": NOT_NEGATIVE,
    "coolant_idle_W_per_K": NOT_NEGATIVE,
    "ambient_W_per_K": NOT_NEGATIVE,
    "module_end_W_per_K": NOT_NEGATIVE,
    "coolant_heat_capacity_J_per_K": POSITIVE,
    "coolant_flow_W_per_K": NOT_NEGATIVE,
    "coolant_flow_idle_W_per_K": NOT_NEGATIVE,
    "fan_power_W": NOT_NEGATIVE,
    "cooling_cop": POSITIVE,
    "heating_cop": POSITIVE,
}
PLATE_NUMBERS = {
    "plate_W_per_K": POSITIVE,
    "plate_heat_capacity_J_per_K": NOT_NEGATIVE,
    "plate_neighbour_W_per_K": NOT_NEGATIVE,
}


ABUSE_NUMBERS = {
    "housing_volume_m3": POSITIVE,
    "housing_vent_m2": POSITIVE,
    "housing_vent_opens_Pa": POSITIVE,
    "housing_breather_m2": POSITIVE,
    "gas_temperature_K": POSITIVE,
    "ejected_fraction": NOT_NEGATIVE,
    "collapsed_cell_ohm": POSITIVE,
    "insulation_after_venting_ohm": POSITIVE,
}
# A cell may be another one with more electrode area: what grows with the area, and what falls with it.
GROWS_WITH_AREA = ("capacity_Ah", "charge_current_max_A", "discharge_current_max_A")
FALLS_WITH_AREA = ("resistance0_ohm", "resistance1_ohm", "resistance2_ohm")
OWN_OF_LIKE = ("mass_kg", "heat_capacity_J_per_K")


class CatalogueError(ValueError):
    """A catalogue file that cannot be used; lists every mistake in it."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n  ".join(problems)
        super().__init__(f"{path.name}: {len(problems)} problem(s)\n  {lines}")


def unit_of(key: str) -> str:
    """The unit a key promises by its ending."""
    return next((unit for ending, unit in UNITS.items() if key.endswith(ending)), "1")


class Sheet:
    """One YAML file while it is read; collects every problem."""

    def __init__(self, path: Path) -> None:
        self.path, self.problems = path, list[str]()
        try:
            data = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as broken:
            raise CatalogueError(path, [str(broken)]) from None
        if not isinstance(data, Mapping):
            raise CatalogueError(path, ["must be a mapping of keys"])
        self.data: dict[str, Any] = dict(data)
        sources = self.data.pop("sources", {})
        self.sources = {str(k): str(v) for k, v in sources.items()} if isinstance(sources, Mapping) else {}

    def text(self, key: str) -> str:
        """A required text."""
        value = self.data.pop(key, None)
        if not isinstance(value, str) or not value.strip():
            self.problems.append(f"{key}: {value!r} is not a text")
        return str(value)

    def count(self, key: str) -> int:
        """A whole number from 1."""
        value = self.data.pop(key, None)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.problems.append(f"{key}: {value!r} is not a whole number from 1")
            return 1
        return value

    def _entry(self, where: str, key: str, raw: Any, content: str) -> Any:
        """`value` or `values` of an entry whose unit and source are in order."""
        if not isinstance(raw, Mapping):
            self.problems.append(f"{where}{key}: missing; expected {{{content}: …, unit: …, source: …}}")
            return None
        unknown = sorted(set(raw) - {content, "unit", "source", "valid"})
        if unknown:
            self.problems.append(f"{where}{key}: unknown {', '.join(map(str, unknown))}")
        if raw.get("unit") != unit_of(key):
            self.problems.append(f"{where}{key}: unit {raw.get('unit')!r}; expected {unit_of(key)!r}")
        if raw.get("source") not in self.sources:
            self.problems.append(
                f"{where}{key}: source {raw.get('source')!r} is not among this file's sources"
            )
        return raw.get(content)

    def _in_range(self, where: str, key: str, values: FloatArray, rule: str) -> None:
        fine = np.isfinite(values)
        if rule == POSITIVE:
            fine &= values > 0.0
        elif rule == NOT_NEGATIVE:
            fine &= values >= 0.0
        if not fine.all():
            worst = values[~fine].flat[0]
            self.problems.append(f"{where}{key}: {worst:g} is out of range; expected {rule}")

    def number(self, where: str, entries: dict[str, Any], key: str, rule: str) -> float:
        """A number with unit and source."""
        value = self._entry(where, key, entries.pop(key, None), "value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            if value is not None:
                self.problems.append(f"{where}{key}: {value!r} is not a number")
            return 1.0
        self._in_range(where, key, np.array(float(value)), rule)
        return float(value)

    def array(self, where: str, entries: dict[str, Any], key: str, rule: str) -> FloatArray:
        """A list, or list of lists, of numbers with unit and source."""
        values = self._entry(where, key, entries.pop(key, None), "values")
        try:
            array = np.array(values, dtype=float)
        except (TypeError, ValueError):
            self.problems.append(f"{where}{key}: not a regular list of numbers")
            return np.ones(2)
        if values is None or array.ndim == 0:
            return np.ones(2)
        self._in_range(where, key, array, rule)
        array.setflags(write=False)
        return array

    def section(self, key: str) -> dict[str, Any]:
        """A mapping below the top level."""
        value = self.data.pop(key, None)
        if not isinstance(value, Mapping):
            self.problems.append(f"{key}: missing section")
            return {}
        return dict(value)

    def finish(self) -> None:
        """Whatever is left is unknown; raise if anything was wrong."""
        self.problems += [f"{key}: unknown key" for key in self.data]
        if self.problems:
            raise CatalogueError(self.path, self.problems)


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_cell(path: Path) -> CellDesign:
    """The cell design in a file; raises CatalogueError with every mistake in it."""
    sheet = Sheet(path)
    if "like" in sheet.data:
        return _cell_like(sheet)
    texts = {key: sheet.text(key) for key in ("name", "about", "chemistry", "form")}
    pybamm = sheet.data.pop("pybamm", None)
    numbers = sheet.section("numbers")
    values = {key: sheet.number("numbers.", numbers, key, rule) for key, rule in CELL_NUMBERS.items()}
    curves = sheet.section("curves")
    arrays = {key: sheet.array("curves.", curves, key, rule) for key, rule in CELL_CURVES.items()}
    aged = _aged(sheet, arrays)
    fit = {key: float(value) for key, value in sheet.section("fit").items()}
    sheet.problems += [f"{k}: unknown key" for k in [*numbers, *curves]]
    sheet.problems += _cell_shapes(arrays)
    if values["voltage_min_V"] >= values["voltage_max_V"]:
        sheet.problems.append("numbers.voltage_min_V: not below voltage_max_V")
    if texts["name"] != path.stem:
        sheet.problems.append(f"name: {texts['name']!r} is not the name of the file")
    sheet.finish()
    arguments: dict[str, Any] = {**texts, **values, **arrays, **aged}
    return CellDesign(
        **arguments, pybamm=None if pybamm is None else str(pybamm), fit=fit, sources=sheet.sources
    )


CELL_AGED = {"aged_soh": POSITIVE, "aged_ocv_V": POSITIVE, "aged_resistance_shape": POSITIVE}


def _aged(sheet: Sheet, arrays: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """The optional section `aged`: curves of aged cells; empty arrays where the file has none."""
    n_ocv, n_soc = arrays["ocv_soc"].size, arrays["table_soc"].size
    if "aged" not in sheet.data:
        return {
            "aged_soh": np.zeros(0),
            "aged_ocv_V": np.zeros((0, n_ocv)),
            "aged_resistance_shape": np.zeros((0, n_soc)),
        }
    entries = sheet.section("aged")
    found = {key: sheet.array("aged.", entries, key, rule) for key, rule in CELL_AGED.items()}
    sheet.problems += [f"{key}: unknown key" for key in entries]
    soh = np.concatenate([[1.0], found["aged_soh"].ravel()])
    if not np.allclose(np.diff(soh), soh[1] - 1.0) or soh[1] >= 1.0:
        sheet.problems.append("aged.aged_soh: must fall from 1 in even steps, e.g. [0.9, 0.8]")
    for key, width in (("aged_ocv_V", n_ocv), ("aged_resistance_shape", n_soc)):
        if found[key].shape != (soh.size - 1, width):
            sheet.problems.append(
                f"aged.{key}: shape {found[key].shape}; expected {(soh.size - 1, width)} (soh, soc)"
            )
    return found


def _cell_like(sheet: Sheet) -> CellDesign:
    """A cell with the electrodes of another one, `area_factor` times their area: same voltages and times."""
    texts = {key: sheet.text(key) for key in ("name", "about", "form", "like")}
    numbers = sheet.section("numbers")
    factor = sheet.number("numbers.", numbers, "area_factor", POSITIVE)
    own = {key: sheet.number("numbers.", numbers, key, POSITIVE) for key in OWN_OF_LIKE}
    sheet.problems += [f"{k}: unknown key" for k in numbers]
    if texts["name"] != sheet.path.stem:
        sheet.problems.append(f"name: {texts['name']!r} is not the name of the file")
    if texts["like"] not in cell_names() or texts["like"] == texts["name"]:
        sheet.problems.append(f"like: {unknown_name('cell', texts['like'], cell_names())}")
    sheet.finish()
    base = cell(texts["like"])
    changes: dict[str, Any] = {key: texts[key] for key in ("name", "about", "form")} | own
    changes |= {key: getattr(base, key) * factor for key in GROWS_WITH_AREA}
    for key in FALLS_WITH_AREA:
        changes[key] = getattr(base, key) / factor
        changes[key].setflags(write=False)
    # PyBaMM's parameter set is that of the small cell.
    return replace(base, pybamm=None, sources={**base.sources, **sheet.sources}, **changes)


def _cell_shapes(arrays: dict[str, FloatArray]) -> list[str]:
    problems = []
    for key in ("ocv_soc", "table_soc", "table_temperature_K"):
        grid = arrays[key]
        if grid.ndim != 1 or (np.diff(grid) <= 0.0).any():
            problems.append(f"curves.{key}: must be a growing list")
    for key in ("ocv_soc", "table_soc"):
        if arrays[key].ndim == 1 and (arrays[key][0] != 0.0 or arrays[key][-1] != 1.0):
            problems.append(f"curves.{key}: must run from 0 to 1")
    for key in ("ocv_V", "entropic_V_per_K", "hysteresis_V"):
        if arrays[key].shape != arrays["ocv_soc"].shape:
            problems.append(
                f"curves.{key}: {arrays[key].shape} values for {arrays['ocv_soc'].shape} of ocv_soc"
            )
    if arrays["ocv_V"].ndim == 1 and (np.diff(arrays["ocv_V"]) < 0.0).any():
        problems.append("curves.ocv_V: must not fall with the state of charge")
    expected = (arrays["table_temperature_K"].size, arrays["table_soc"].size)
    for key in ("resistance0_ohm", "resistance1_ohm", "resistance2_ohm"):
        if arrays[key].shape != expected:
            problems.append(
                f"curves.{key}: shape {arrays[key].shape}; expected {expected} (temperature, soc)"
            )
    for key in ("time_constant1_s", "time_constant2_s"):
        if arrays[key].shape != expected[:1]:
            problems.append(f"curves.{key}: shape {arrays[key].shape}; expected {expected[:1]} (temperature)")
    return problems


def load_pack(path: Path) -> PackDesign:
    """The pack design in a file, with its cell; raises CatalogueError with every mistake."""
    sheet = Sheet(path)
    name, about, cell_name = sheet.text("name"), sheet.text("about"), sheet.text("cell")
    counts = {key: sheet.count(key) for key in PACK_COUNTS}
    numbers = sheet.section("numbers")
    values = {key: sheet.number("numbers.", numbers, key, rule) for key, rule in PACK_NUMBERS.items()}
    paths = sheet.section("thermal")
    thermal: dict[str, Any] = {
        key: sheet.number("thermal.", paths, key, rule) for key, rule in THERMAL_NUMBERS.items()
    }
    # Coolant supplied at the ambient temperature (outside air) unless a set-point is given.
    thermal["supply_temperature_K"] = (
        sheet.number("thermal.", paths, "supply_temperature_K", POSITIVE)
        if "supply_temperature_K" in paths
        else None
    )
    # A cold plate whose coolant passes one group after the other, unless the coolant is mixed.
    if "plate_W_per_K" in paths:
        thermal |= {key: sheet.number("thermal.", paths, key, rule) for key, rule in PLATE_NUMBERS.items()}
    abuse = _abuse(sheet) if "abuse" in sheet.data else None
    sheet.problems += [f"{k}: unknown key" for k in [*numbers, *paths]]
    if cell_name not in cell_names():
        sheet.problems.append(f"cell: {unknown_name('cell', cell_name, cell_names())}")
    for low, high in (("voltage_min_V", "voltage_max_V"), ("temperature_min_K", "temperature_max_K")):
        if values[low] >= values[high]:
            sheet.problems.append(f"numbers.{low}: not below {high}")
    if name != path.stem:
        sheet.problems.append(f"name: {name!r} is not the name of the file")
    sheet.finish()
    arguments: dict[str, Any] = {**counts, **values}
    return PackDesign(
        name=name,
        about=about,
        cell=cell(cell_name),
        thermal=ThermalDesign(**thermal),
        abuse=abuse,
        sources=sheet.sources,
        **arguments,
    )


def _abuse(sheet: Sheet) -> AbuseDesign:
    """The section `abuse`; whether its case fits is checked where the case is read."""
    entries = sheet.section("abuse")
    case = entries.pop("case", None)
    if not isinstance(case, str):
        sheet.problems.append(f"abuse.case: {case!r} is not the name of a propagation case")
    composition = entries.pop("composition", {})
    gases = dict(composition) if isinstance(composition, Mapping) else {}
    values = {key: sheet.number("abuse.", entries, key, rule) for key, rule in ABUSE_NUMBERS.items()}
    sheet.problems += [f"abuse.{key}: unknown key" for key in entries]
    named = [key for key in GASES if key in gases]
    shares = {key: sheet.number("abuse.composition.", gases, key, NOT_NEGATIVE) for key in named}
    sheet.problems += [f"abuse.composition.{key}: unknown gas; expected {', '.join(GASES)}" for key in gases]
    if not abs(sum(shares.values()) - 1.0) < 1e-3:
        sheet.problems.append(f"abuse.composition: adds up to {sum(shares.values()):g}; expected 1")
    if values["ejected_fraction"] > 1.0:
        sheet.problems.append(
            f"abuse.ejected_fraction: {values['ejected_fraction']:g} is out of range; expected at most 1"
        )
    return AbuseDesign(case=str(case), composition=shares, **values)


def unknown_name(kind: str, name: str, names: tuple[str, ...]) -> str:
    """That there is none of that name, the names there are, and the nearest one."""
    near = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no {kind} named {name!r}; expected one of {', '.join(names)}{hint}"


@lru_cache(maxsize=1)
def cell_names() -> tuple[str, ...]:
    """Cells of the catalogue, sorted."""
    return tuple(sorted(path.stem for path in (FOLDER / "cells").glob("*.yaml")))


@lru_cache(maxsize=1)
def pack_names() -> tuple[str, ...]:
    """Packs of the catalogue, sorted."""
    return tuple(sorted(path.stem for path in (FOLDER / "packs").glob("*.yaml")))


@lru_cache(maxsize=64)
def cell(name: str) -> CellDesign:
    """The cell of that name; KeyError with the nearest name otherwise."""
    if name not in cell_names():
        raise KeyError(unknown_name("cell", name, cell_names()))
    return load_cell(FOLDER / "cells" / f"{name}.yaml")


@lru_cache(maxsize=64)
def pack(name: str) -> PackDesign:
    """The pack of that name; KeyError with the nearest name otherwise."""
    if name not in pack_names():
        raise KeyError(unknown_name("pack", name, pack_names()))
    return load_pack(FOLDER / "packs" / f"{name}.yaml")
