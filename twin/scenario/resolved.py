"""Scenario → plain data in operator's units, every default visible; and its hash.

`load(resolved(s))` gives `s` back: texts are chosen so that they parse to the very same float. The hash is
over this view (without file name and places in the text), so comments, order of keys, units and `include:`
do not change it; a changed number, default or file name of a profile does.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from twin.scenario.build_profile import offset_dimension, scale_key
from twin.scenario.datasets import DATASETS
from twin.scenario.fields import key_of, yaml_fields
from twin.scenario.schema import Known, ProfileSpec, Scenario
from twin.scenario.synthetic import PROCESSES
from twin.units import format_quantity


def resolved(scenario: Scenario, known: Known) -> dict[str, Any]:
    """The scenario as nested dicts and lists of text and numbers, in the order of the schema."""
    return _mapping(scenario, known)


def canonical_json(scenario: Scenario, known: Known) -> str:
    """One line, keys sorted: equal scenarios give equal text."""
    return json.dumps(resolved(scenario, known), sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def scenario_hash(scenario: Scenario, known: Known) -> str:
    """SHA-256 (hex) of the canonical JSON."""
    return hashlib.sha256(canonical_json(scenario, known).encode()).hexdigest()


def _mapping(owner: Any, known: Known) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for field in yaml_fields(type(owner)):
        value = getattr(owner, field.name)
        meta = field.metadata
        if meta.get("dimension") == "metric":
            if value is not None:  # of the three bounds one is there
                out[key_of(field)] = _quantity(value, known.metrics[owner.metric])
        else:
            out[key_of(field)] = _value(value, meta, known)
    return out


def _quantity(value: float, dimension: str) -> str | float | int:
    """Text with a unit; numbers without one stay numbers."""
    text = format_quantity(value, dimension)
    if " " in text or ":" in text:
        return text
    return int(value) if value == int(value) and abs(value) < 1e15 else value


def _value(value: Any, meta: Any, known: Known) -> Any:
    kind = meta["type"]
    if value is None:
        return None
    if kind == "quantity":
        return _quantity(value, meta["dimension"])
    if kind == "date":
        return value.isoformat(sep=" ")
    if kind == "section":
        return _mapping(value, known)
    if kind == "sections":
        return [_mapping(item, known) for item in value]
    if kind == "plugins":
        table = getattr(known, meta["table"])
        return [{meta["tag"]: _word(table, item), **_mapping(item, known)} for item in value]
    if kind == "profile":
        return _profile(value)
    return value


def _word(table: dict[str, type], item: Any) -> str:
    """The word under which the dataclass of a plugin is known."""
    for word, cls in table.items():
        if cls is type(item):
            return word
    raise KeyError(f"{type(item).__name__} is in no table of names")


def _profile(spec: ProfileSpec) -> Any:
    if spec.constant is not None:
        return format_quantity(spec.constant, spec.dimension)
    if spec.synthetic is not None:
        process = PROCESSES[spec.synthetic](**dict(spec.params))
        texts = {
            key_of(f): format_quantity(getattr(process, f.name), f.metadata["dimension"])
            for f in yaml_fields(type(process))
        }
        return {"synthetic": spec.synthetic, **texts}
    out: dict[str, Any] = {}
    if spec.package is not None:
        out["package"] = spec.package
        key, dimension = scale_key(DATASETS[spec.package])
        out["column"] = spec.column
    else:
        out["file"] = spec.file
        relative = spec.dimension == "power" and spec.unit in ("", "%")
        key, dimension = ("peak", "power") if relative else ("scale", "fraction")
        for name, value in (("column", spec.column), ("time", spec.time_column)):
            if value is not None:
                out[name] = value
        if spec.unit:
            out["unit"] = spec.unit
        out["gaps"] = spec.gaps
    # A bare factor, not a percentage: `scale: 2`.
    out[key] = spec.scale if key == "scale" else format_quantity(spec.scale, dimension)
    out["offset"] = format_quantity(spec.offset, offset_dimension(spec.dimension))
    out["align"] = spec.align
    out["repeat"] = spec.repeat
    return out
