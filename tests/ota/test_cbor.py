"""Deterministic CBOR against the cbor2 package and against everything that is not deterministic."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ota import cbor, limits
from ota.errors import OtaError, Reason

scalars = st.one_of(
    st.integers(-(2**64), 2**64 - 1), st.binary(max_size=40), st.text(max_size=20), st.booleans(), st.none()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(0, 300) | st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
).filter(lambda v: _depth(v) <= limits.CBOR_DEPTH_MAX)


def _depth(value: Any) -> int:
    if isinstance(value, list):
        return 1 + max((_depth(v) for v in value), default=0)
    if isinstance(value, dict):
        return 1 + max((_depth(v) for v in value.values()), default=1)
    return 1


@given(values)
@settings(max_examples=200, deadline=None)
def test_same_bytes_as_cbor2_canonical(value: Any) -> None:
    data = cbor.encode(value)
    # cbor2 sorts map keys by length first (RFC 7049): bytes are compared where there are no maps
    assert cbor2.loads(data) == value
    assert cbor.decode(data) == value
    if not isinstance(value, dict | list):
        assert data == cbor2.dumps(value, canonical=True)


@given(st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_what_is_accepted_is_the_only_encoding(data: bytes) -> None:
    try:
        value = cbor.decode(data)
    except OtaError:
        return
    assert cbor.encode(value) == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("1817", Reason.NOT_CANONICAL),
        ("190017", Reason.NOT_CANONICAL),
        ("1b00000000ffffffff", Reason.NOT_CANONICAL),
        ("9f01ff", Reason.NOT_CANONICAL),
        ("a201010100", Reason.DUPLICATE_FIELD),
        ("a2020101 00", Reason.NOT_CANONICAL),
        ("f93c00", Reason.FORMAT),
        ("0000", Reason.TRAILING_DATA),
        ("44aabb", Reason.TRUNCATED),
        ("62c328", Reason.FORMAT),
        ("9affffffff", Reason.TRUNCATED),
        ("a1f501", Reason.FORMAT),
        ("", Reason.TRUNCATED),
    ],
)
def test_refusals(data: str, reason: Reason) -> None:
    with pytest.raises(OtaError) as error:
        cbor.decode(bytes.fromhex(data))
    assert error.value.reason is reason


def test_a7_nested_arrays_and_huge_counts_stop_early() -> None:
    with pytest.raises(OtaError) as error:
        cbor.decode(b"\x81" * 60_000 + b"\x00")
    assert error.value.reason is Reason.NESTING
    with pytest.raises(OtaError) as error:
        cbor.decode(b"\x99\x20\x00" + b"\x00" * 0x2000)
    assert error.value.reason is Reason.OVERSIZE
