"""Parameter sets: their own signed artifact, their own schema version and counter.

A set is an MCUboot-format file with the NON_BOOTABLE flag (image id 1), so the verifier that checks firmware
checks parameters too: signature, vendor and class, security counter (= parameter counter), TLV 0xA0 with the
schema version. Its body, little-endian::

    0   4   "BPS1"
    4   2   schema version
    6   2   number of rows n
    8   4   parameter counter (equal to the security counter TLV)
    12  8·n rows, ascending by id: id u16, type u8 (1 u32, 2 i32, 3 float32), zero u8, value 4 bytes

A *schema* says which ids exist, their type, unit, range and which pairs must be ordered. It belongs to a
firmware release and is compiled into it; the server checks with the same table before signing, the firmware
checks again, because a signed set can still be wrong. Units and values are SI.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import image, limits
from .errors import OtaError, Reason, require
from .image import Version
from .signing import SigningKey

MAGIC = b"BPS1"
_HEAD = struct.Struct("<4sHHI")
_ROW = struct.Struct("<HBB4s")
TYPES = {"u32": 1, "i32": 2, "f32": 3}
_PACK = {1: "<I", 2: "<i", 3: "<f"}


@dataclass(frozen=True)
class Parameter:
    """One row of a schema; ``minimum`` and ``maximum`` inclusive, in ``unit``."""

    id: int
    name: str
    type: str
    unit: str
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Schema:
    """``ordered``: pairs of names (a, b) with a < b required."""

    version: int
    parameters: tuple[Parameter, ...]
    ordered: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def from_mapping(data: Mapping[str, Any]) -> Schema:
        """From parsed TOML or YAML: ``version``, ``parameters: [{id, name, type, unit, minimum, maximum}]``,
        ``ordered: [[a, b], …]``."""
        try:
            rows = tuple(
                Parameter(
                    int(r["id"]),
                    str(r["name"]),
                    str(r["type"]),
                    str(r["unit"]),
                    float(r["minimum"]),
                    float(r["maximum"]),
                )
                for r in data["parameters"]
            )
            pairs = tuple((str(a), str(b)) for a, b in data.get("ordered", ()))
            schema = Schema(int(data["version"]), rows, pairs)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OtaError(Reason.FORMAT, f"parameter schema: {error!r}") from None
        names = {p.name for p in rows}
        require(
            len(names) == len({p.id for p in rows}) == len(rows), Reason.DUPLICATE_FIELD, "parameter schema"
        )
        for p in rows:
            require(p.type in TYPES and 0 <= p.id <= 0xFFFF, Reason.FORMAT, f"parameter {p.name}")
            require(p.minimum <= p.maximum, Reason.FORMAT, f"range of parameter {p.name} is empty")
        require(all({a, b} <= names for a, b in pairs), Reason.FORMAT, "ordered pair names no parameter")
        return schema


def pack(schema: Schema, counter: int, values: Mapping[str, float]) -> bytes:
    """Body of a set; every parameter of the schema must be given, nothing else."""
    by_name = {p.name: p for p in schema.parameters}
    unknown, missing = set(values) - set(by_name), set(by_name) - set(values)
    require(not unknown, Reason.UNKNOWN_FIELD, f"no parameter named {', '.join(sorted(unknown)[:3])}")
    require(not missing, Reason.MISSING_FIELD, ", ".join(sorted(missing)[:5]))
    _check(schema, values)
    rows = b""
    for p in sorted(schema.parameters, key=lambda p: p.id):
        number = values[p.name]
        kind = TYPES[p.type]
        raw = struct.pack(_PACK[kind], float(number) if kind == 3 else int(number))
        rows += _ROW.pack(p.id, kind, 0, raw)
    return _HEAD.pack(MAGIC, schema.version, len(schema.parameters), counter) + rows


def _check(schema: Schema, values: Mapping[str, float]) -> None:
    for p in schema.parameters:
        number = values[p.name]
        real = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        require(real, Reason.PARAMETER_RANGE, f"{p.name} is not a number")
        whole = p.type == "f32" or float(number).is_integer()
        require(whole, Reason.PARAMETER_RANGE, f"{p.name} must be a whole number")
        span = f"{p.name} = {number} {p.unit}, permitted {p.minimum} … {p.maximum}"
        # float32 rounding of a bound must not refuse the bound itself
        slack = 1e-6 * max(abs(p.minimum), abs(p.maximum)) if p.type == "f32" else 0.0
        require(p.minimum - slack <= number <= p.maximum + slack, Reason.PARAMETER_RANGE, span)
    for a, b in schema.ordered:
        require(
            values[a] < values[b], Reason.PARAMETER_PAIR, f"{a} = {values[a]} not below {b} = {values[b]}"
        )


@dataclass(frozen=True)
class ParameterSet:
    schema_version: int
    counter: int
    rows: tuple[tuple[int, int, float], ...]  # id, type, value


def unpack(body: bytes) -> ParameterSet:
    """Structure of a set; ranges need the schema (``check``)."""
    require(len(body) >= _HEAD.size, Reason.TRUNCATED, "parameter set")
    magic, version, n, counter = _HEAD.unpack_from(body)
    require(magic == MAGIC, Reason.FORMAT, "not a parameter set")
    require(n <= limits.PARAMETERS_MAX, Reason.OVERSIZE, f"{n} parameters")
    require(len(body) == _HEAD.size + _ROW.size * n, Reason.LENGTH, "parameter rows")
    rows: list[tuple[int, int, float]] = []
    for i in range(n):
        ident, kind, zero, raw = _ROW.unpack_from(body, _HEAD.size + i * _ROW.size)
        require(kind in _PACK and zero == 0, Reason.FORMAT, f"parameter row {i}")
        require(not rows or ident > rows[-1][0], Reason.NOT_CANONICAL, "parameter ids not ascending")
        rows.append((ident, kind, struct.unpack(_PACK[kind], raw)[0]))
    return ParameterSet(version, counter, tuple(rows))


def check(schema: Schema, body: bytes, last_counter: int = -1) -> dict[str, float]:
    """Values by name, if the set fits ``schema`` completely and is newer than ``last_counter``."""
    found = unpack(body)
    same = found.schema_version == schema.version
    require(same, Reason.PARAMETER_SCHEMA, f"set has {found.schema_version}, firmware {schema.version}")
    old = f"{found.counter} after {last_counter}"
    require(found.counter > last_counter, Reason.PARAMETER_COUNTER, old)
    by_id = {p.id: p for p in schema.parameters}
    ids = {ident for ident, _, _ in found.rows}
    require(ids == set(by_id), Reason.PARAMETER_SCHEMA, "set and schema have different parameters")
    for ident, kind, _ in found.rows:
        require(TYPES[by_id[ident].type] == kind, Reason.PARAMETER_SCHEMA, f"type of {by_id[ident].name}")
    values = {by_id[ident].name: value for ident, _, value in found.rows}
    _check(schema, values)
    return values


def build(
    schema: Schema,
    values: Mapping[str, float],
    *,
    counter: int,
    version: Version,
    key: SigningKey | None,
    vendor_id: bytes,
    class_id: bytes,
    build_digest: bytes | None = None,
) -> bytes:
    """Signed parameter artifact."""
    return image.build(
        pack(schema, counter, values),
        version=version,
        key=key,
        security_counter=counter,
        vendor_id=vendor_id,
        class_id=class_id,
        parameter_schema=(schema.version, schema.version),
        build_digest=build_digest,
        header_size=32,
        flags=image.FLAG_NON_BOOTABLE,
    )
