"""JSON Schema (draft 2020-12) of the scenario YAML, from the same field metadata as the loader.

For editors that complete and check while typing. It covers structure, words and the form of quantities;
ranges in SI, targets and rules between fields are checked by the loader alone.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from twin.scenario.build_profile import ALIGN, GAPS, dataset_fits, scale_key, synthetic_names
from twin.scenario.datasets import DATASETS
from twin.scenario.fields import key_of, required, yaml_fields
from twin.scenario.schema import Known, Scenario
from twin.units import DIMENSIONS, format_quantity, unit_pattern

DRAFT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def json_schema(known: Known) -> Schema:
    """The schema for the names that exist in `known`."""
    maker = _Maker(known)
    root = maker.mapping(Scenario)
    # An included file may bring any of the required keys.
    root["anyOf"] = [{"required": root.pop("required")}, {"required": ["include"]}]
    root["properties"]["include"] = {
        "description": "scenario files beneath this one, later ones win",
        "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
    }
    return {"$schema": DRAFT, "title": "Battery twin scenario", **root, "$defs": maker.definitions}


class _Maker:
    def __init__(self, known: Known) -> None:
        self.known = known
        self.definitions: dict[str, Schema] = {}

    def reference(self, name: str, make: Any) -> Schema:
        if name not in self.definitions:
            self.definitions[name] = {}  # keeps the order of first use
            self.definitions[name] = make()
        return {"$ref": f"#/$defs/{name}"}

    def mapping(self, cls: type, tag: tuple[str, str] | None = None) -> Schema:
        fields = yaml_fields(cls)
        properties: dict[str, Schema] = {}
        needed: list[str] = []
        if tag is not None:
            properties[tag[0]] = {"const": tag[1], "description": _first_line(cls)}
            needed.append(tag[0])
        for field in fields:
            properties[key_of(field)] = self.field(field)
            if required(field):
                needed.append(key_of(field))
        out: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if needed:
            out["required"] = needed
        return out

    def field(self, field: dataclasses.Field[Any]) -> Schema:
        meta = field.metadata
        made: Schema = getattr(self, "_" + meta["type"])(meta)
        if not required(field) and field.default is None:
            made = {"anyOf": [made, {"type": "null"}]}
        return {"description": self.about(field), **made}

    def about(self, field: dataclasses.Field[Any]) -> str:
        """The meaning, with the default where it is one value."""
        meta = field.metadata
        text = str(meta["about"])
        default: Any = field.default
        if required(field) or default is None or default == ():
            return text
        if meta["type"] == "quantity":
            return f"{text}; default {format_quantity(default, meta['dimension'])}"
        if meta["type"] in ("integer", "text", "flag", "word", "date"):
            return f"{text}; default {default}"
        return text

    def _quantity(self, meta: Any) -> Schema:
        if meta["dimension"] == "metric":
            return {"type": ["string", "number"]}
        return self.reference(f"quantity_{meta['dimension']}", lambda: quantity_schema(meta["dimension"]))

    def _integer(self, meta: Any) -> Schema:
        out: Schema = {"type": "integer"}
        if meta["minimum"] is not None:
            out["minimum"] = meta["minimum"]
        if meta["maximum"] is not None:
            out["maximum"] = meta["maximum"]
        return out

    def _text(self, meta: Any) -> Schema:
        return {
            "type": "string",
            **({"pattern": f"^{meta['pattern']}$"} if meta["pattern"] else {"minLength": 1}),
        }

    def _flag(self, meta: Any) -> Schema:
        return {"type": "boolean"}

    def _date(self, meta: Any) -> Schema:
        return {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d"}

    def _word(self, meta: Any) -> Schema:
        names = meta["names"]
        return {"enum": list(getattr(self.known, names) if isinstance(names, str) else names)}

    def _target(self, meta: Any) -> Schema:
        return {"type": "string", "pattern": "^[^/]+(/[^/]+){0,3}$"}

    def _section(self, meta: Any) -> Schema:
        return self.reference(meta["of"].__name__, lambda: self.mapping(meta["of"]))

    def _sections(self, meta: Any) -> Schema:
        item = self._section(meta)
        return {"anyOf": [{"type": "array", "items": item}, item]}

    def _plugins(self, meta: Any) -> Schema:
        table = getattr(self.known, meta["table"])
        bare = [w for w, cls in table.items() if not any(required(f) for f in yaml_fields(cls))]
        options: list[Schema] = [{"enum": bare}] if bare else []
        for word, cls in table.items():
            tag = (meta["tag"], word)
            options.append(
                self.reference(f"{meta['table']}_{word}", lambda cls=cls, tag=tag: self.mapping(cls, tag))
            )
        item: Schema = {"anyOf": options}
        return {"anyOf": [{"type": "array", "items": item}, item]}

    def _profile(self, meta: Any) -> Schema:
        return self.reference(f"profile_{meta['dimension']}", lambda: self.profile(meta["dimension"]))

    def profile(self, dimension: str) -> Schema:
        constant = quantity_schema(dimension)
        common: Schema = {
            "offset": {"type": ["string", "number"]},
            "align": {"enum": list(ALIGN)},
            "repeat": {"type": "boolean"},
        }
        options: list[Schema] = [constant, _closed({"constant": constant}, ["constant"])]
        for name, row in DATASETS.items():
            if not dataset_fits(row, dimension):
                continue
            key, scale_dimension = scale_key(row)
            properties = {
                "package": {"const": name, "description": row.about},
                "column": {"type": "string"},
                key: quantity_schema(scale_dimension),
                **common,
            }
            needed = [
                "package",
                *(["column"] if len(row.columns) > 1 else []),
                *([key] if key != "scale" else []),
            ]
            options.append(_closed(properties, needed))
        user = {
            "file": {"type": "string", "description": "CSV or Parquet, relative to this YAML"},
            "column": {"type": "string"},
            "time": {"type": "string"},
            "unit": {"type": "string"},
            "scale": quantity_schema("fraction"),
            "gaps": {"enum": list(GAPS)},
            **common,
        }
        if dimension == "power":
            user["peak"] = quantity_schema("power")
        options.append(_closed(user, ["file"]))
        if synthetic_names(dimension):
            from twin.scenario.synthetic import PROCESSES

            for name in synthetic_names(dimension):
                options.append(self.mapping(PROCESSES[name], ("synthetic", name)))
        return {"anyOf": options}


def quantity_schema(dimension: str) -> Schema:
    """Text that looks like a quantity of the dimension; bare numbers where it has no unit."""
    dim = DIMENSIONS[dimension]
    text = {"type": "string", "pattern": unit_pattern(dimension), "examples": [dim.example]}
    return {"anyOf": [{"type": "number"}, text]} if "" in dim.units else text


def _closed(properties: Schema, needed: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def _first_line(cls: type) -> str:
    return re.sub(r"\s+", " ", (cls.__doc__ or cls.__name__).strip().split("\n\n")[0])
