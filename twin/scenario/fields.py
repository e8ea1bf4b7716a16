"""What a scenario field may hold, said once beside the field.

Each dataclass field of `schema.py` (and of a dispatch strategy, fault or detector) carries its YAML
key, dimension, range and meaning in `field.metadata`. The loader, the JSON Schema and the resolved
view of `twin check` read the same metadata, so a new field is one line.

    >>> @dataclass(frozen=True)
    ... class Kettle:
    ...     power_W: float = quantity("power", "electric power", key="power", minimum=0.0)

The attribute ends in its SI unit, the YAML key does not: `power: 2 kW` becomes `power_W = 2000.0`.

Rules between fields are methods of the dataclass, both optional: `mistakes()` returns (key, message) pairs,
`mistakes_at(pack)` the same with the PackFacts of the pack its target names. They run when all fields are
well-formed. A time under `at` must lie inside the run, and before the one under `until`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

MISSING = dataclasses.MISSING


def _field(default: Any, metadata: dict[str, Any]) -> Any:
    return dataclasses.field(default=default, metadata=metadata)


def quantity(
    dimension: str,
    about: str,
    *,
    key: str,
    default: Any = MISSING,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
) -> Any:
    """A number with a unit. `minimum`, `maximum` (inclusive) and `above` (exclusive) are SI."""
    return _field(
        default,
        {
            "type": "quantity",
            "dimension": dimension,
            "about": about,
            "key": key,
            "minimum": minimum,
            "maximum": maximum,
            "above": above,
        },
    )


def integer(
    about: str, *, default: Any = MISSING, minimum: int | None = None, maximum: int | None = None
) -> Any:
    return _field(default, {"type": "integer", "about": about, "minimum": minimum, "maximum": maximum})


def text(about: str, *, default: Any = MISSING, pattern: str | None = None) -> Any:
    return _field(default, {"type": "text", "about": about, "pattern": pattern})


def flag(about: str, *, default: Any = MISSING) -> Any:
    return _field(default, {"type": "flag", "about": about})


def date(about: str, *, default: Any = MISSING) -> Any:
    """A calendar instant, naive UTC."""
    return _field(default, {"type": "date", "about": about})


def word(about: str, *, names: str | tuple[str, ...], default: Any = MISSING) -> Any:
    """One of a set of words: given here, or (a string) the name of a table in `Known`."""
    return _field(default, {"type": "word", "about": about, "names": names})


def section(about: str, *, of: type, default: Any = MISSING) -> Any:
    """A nested mapping, itself a dataclass."""
    return _field(default, {"type": "section", "about": about, "of": of})


def sections(about: str, *, of: type, default: Any = (), unique: str | None = None) -> Any:
    """A list of mappings; `unique` names the field that must differ between them."""
    return _field(default, {"type": "sections", "about": about, "of": of, "unique": unique})


def plugins(about: str, *, table: str, tag: str, default: Any = ()) -> Any:
    """A list of mappings whose dataclass is chosen by the word under `tag` from `Known.<table>`."""
    return _field(default, {"type": "plugins", "about": about, "table": table, "tag": tag})


def profile(
    about: str, *, dimension: str, default: Any = MISSING, hold: str = "step", whole: bool = False
) -> Any:
    """A constant or a time series: see `schema.ProfileSpec`. `hold` is 'step' or 'linear'.

    `whole` takes the data as they are, first row at t = 0 (a driving cycle that is repeated by its user);
    otherwise they must cover the run.
    """
    return _field(
        default, {"type": "profile", "about": about, "dimension": dimension, "hold": hold, "whole": whole}
    )


def target(about: str, *, level: str) -> Any:
    """The path of a site, rack, pack or cell: `depot/rack-2/pack-1/cell-9` (counting from 1).

    `level` is how far down it goes: site, rack, pack, cell, group (parallel cells), temperature (a sensor);
    several are joined by '|'.
    """
    return _field(MISSING, {"type": "target", "about": about, "level": level})


def key_of(attribute: dataclasses.Field[Any]) -> str:
    """The YAML key of a field: what it says, or the attribute's own name."""
    return str(attribute.metadata.get("key") or attribute.name)


def yaml_fields(cls: type) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass that a scenario may set, in order."""
    return [f for f in dataclasses.fields(cls) if "type" in f.metadata]


def required(attribute: dataclasses.Field[Any]) -> bool:
    return attribute.default is MISSING and attribute.default_factory is MISSING
