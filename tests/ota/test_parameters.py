"""Parameter sets (D2, D4): what the range table, the counter and the form refuse."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ota import image, parameters
from ota.errors import OtaError, Reason
from ota.image import Version
from ota.parameters import Schema
from ota.signing import SoftwareKey
from ota.testbed import SCHEMA, VALUES

KEY = SoftwareKey.from_seed(b"parameters")
BODY = parameters.pack(SCHEMA, 3, VALUES)


def reason(call: object, *arguments: object) -> Reason:
    with pytest.raises(OtaError) as error:
        call(*arguments)  # type: ignore[operator]
    return error.value.reason


def test_round_trip_and_bounds_are_inclusive() -> None:
    values = {**VALUES, "cell_voltage_max": 4.3, "cell_voltage_min": 1.5}
    got = parameters.check(SCHEMA, parameters.pack(SCHEMA, 4, values), 3)
    assert got == pytest.approx(values)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cell_voltage_max": 4.4}, Reason.PARAMETER_RANGE),
        ({"cell_voltage_max": 4200}, Reason.PARAMETER_RANGE),  # mV instead of V
        ({"temperature_max": 60}, Reason.PARAMETER_RANGE),  # °C instead of K
        ({"cell_voltage_max": math.nan}, Reason.PARAMETER_RANGE),
        ({"cell_voltage_max": math.inf}, Reason.PARAMETER_RANGE),
        ({"trip_hold": 100.5}, Reason.PARAMETER_RANGE),
        ({"cell_voltage_min": 3.2, "cell_voltage_max": 3.1}, Reason.PARAMETER_PAIR),
        ({"unknown": 1}, Reason.UNKNOWN_FIELD),
    ],
)
def test_d2_server_refuses(change: dict[str, float], why: Reason) -> None:
    assert reason(parameters.pack, SCHEMA, 3, {**VALUES, **change}) is why


def test_d2_device_refuses_by_its_own_table() -> None:
    """Signed with a wider table on the server; the device's own table decides."""
    wide = Schema.from_mapping(
        {
            "version": 1,
            "parameters": [
                {**p.__dict__, "minimum": -1e9, "maximum": 1e9} for p in SCHEMA.parameters if p.type == "f32"
            ]
            + [{"id": 4, "name": "trip_hold", "type": "u32", "unit": "ms", "minimum": 0, "maximum": 1e9}],
        }
    )
    body = parameters.pack(wide, 3, {**VALUES, "temperature_max": 500.0})
    assert reason(parameters.check, SCHEMA, body) is Reason.PARAMETER_RANGE
    nan = bytearray(BODY)
    nan[12 + 4 : 12 + 8] = struct.pack("<f", math.nan)
    assert reason(parameters.check, SCHEMA, bytes(nan)) is Reason.PARAMETER_RANGE


def test_d2_schema_newer_or_older() -> None:
    for version in (0, 2):
        other = Schema(version, SCHEMA.parameters, SCHEMA.ordered)
        assert reason(parameters.check, other, BODY) is Reason.PARAMETER_SCHEMA
    fewer = Schema(1, SCHEMA.parameters[:-1])
    assert reason(parameters.check, fewer, BODY) is Reason.PARAMETER_SCHEMA


def test_d4_old_counter_is_refused() -> None:
    assert reason(parameters.check, SCHEMA, BODY, 3) is Reason.PARAMETER_COUNTER
    assert reason(parameters.check, SCHEMA, BODY, 4) is Reason.PARAMETER_COUNTER
    parameters.check(SCHEMA, BODY, 2)


@given(st.binary(max_size=100))
@settings(max_examples=300, deadline=None)
def test_garbage_bodies(data: bytes) -> None:
    for body in (data, b"BPS1" + data, BODY[: len(data)] + data):
        try:
            parameters.check(SCHEMA, body)
        except OtaError:
            continue
        assert body == BODY


def test_bad_schemas_are_named() -> None:
    row = {"id": 1, "name": "a", "type": "f32", "unit": "V", "minimum": 0, "maximum": 1}
    for bad, why in [
        ({}, Reason.FORMAT),
        ({"version": 1, "parameters": [row, row]}, Reason.DUPLICATE_FIELD),
        ({"version": 1, "parameters": [{**row, "type": "f64"}]}, Reason.FORMAT),
        ({"version": 1, "parameters": [{**row, "minimum": 2}]}, Reason.FORMAT),
        ({"version": 1, "parameters": [row], "ordered": [["a", "b"]]}, Reason.FORMAT),
        ({"version": 1, "parameters": "x"}, Reason.FORMAT),
    ]:
        assert reason(Schema.from_mapping, bad) is why


def test_artifact_is_an_image_the_same_verifier_reads() -> None:
    vid, cid = image.vendor_uuid("example.org"), image.class_uuid("example.org", "bms-a")
    data = parameters.build(
        SCHEMA, VALUES, counter=3, version=Version(1, 0, 0), key=KEY, vendor_id=vid, class_id=cid
    )
    policy = image.Policy(keys=(KEY.public,), vendor_id=vid, class_id=cid, bootable=False)
    parsed = image.verify(data, policy)
    assert parsed.parameter_schema == (1, 1)
    assert parsed.security_counter == 3
    with pytest.raises(OtaError) as error:
        image.verify(data, image.Policy(keys=(KEY.public,)))
    assert error.value.reason is Reason.NOT_BOOTABLE
