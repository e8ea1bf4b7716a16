"""No parser of what comes from outside raises anything but a reason (fuzzing; A7, E5)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ota import cose, device, frames, image, manifest, messages, topics, trust, verify
from ota.delta import container
from ota.errors import OtaError, Reason
from ota.signing import PublicKey, SoftwareKey
from ota.transport import proxy

FORMATS = {
    name: bytes.fromhex(data)
    for name, data in json.loads((Path(__file__).parent / "vectors/formats.json").read_text()).items()
}
KEY = PublicKey.from_spki(FORMATS["public key ed25519 spki"])
SIGNED = SoftwareKey.from_seed(b"golden")
PARSERS = {
    "image": image.parse,
    "frame": frames.from_mcu,
    "frame to MCU": frames.unpack,
    "data": messages.unpack_data,
    "request": messages.unpack_request,
    "desired": lambda d: messages.Desired.verify(d, [KEY], "dev-1"),
    "report": lambda d: messages.Report.verify(d, [KEY], "dev-1"),
    "ack": lambda d: messages.Ack.verify(d, [KEY], "dev-1"),
    "manifest": lambda d: manifest.verify(d, [KEY]),
    "delta": container.read,
    "agent state": device.load,
    "json shape": lambda d: trust.check_json_shape(d, "x"),
    "file": lambda d: verify.verify_bytes(d, [KEY]),
    "mqtt packet": lambda d: proxy.parse_publish(proxy.split_packet(bytearray(d)) or b"\x00\x00"),
}


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=200))
@settings(max_examples=120, deadline=None)
def test_random_bytes(name: str, data: bytes) -> None:
    with contextlib.suppress(OtaError):
        PARSERS[name](data)


@pytest.mark.parametrize("name", PARSERS)
@given(
    base=st.sampled_from(sorted(FORMATS)),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=4)), max_size=4),
    cut=st.integers(0, 10**6),
)
@settings(max_examples=120, deadline=None)
def test_damaged_real_files(name: str, base: str, edits: list[tuple[int, bytes]], cut: int) -> None:
    data = bytearray(FORMATS[base])
    for at, piece in edits:
        at %= len(data)
        data[at : at + len(piece)] = piece
    if cut % 3 == 0:
        del data[cut % len(data) :]
    with contextlib.suppress(OtaError):
        PARSERS[name](bytes(data))


@given(
    st.recursive(
        st.integers(-5, 2**33) | st.binary(max_size=33) | st.text(max_size=5) | st.booleans(),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.integers(0, 12), inner, max_size=12),
        max_leaves=20,
    ),
    st.sampled_from(["ota/manifest", "ota/desired", "ota/report", "ota/ack"]),
)
@settings(max_examples=300, deadline=None)
def test_correctly_signed_nonsense(payload: object, kind: str) -> None:
    """A signature does not make a payload well-formed: the field checks stand alone."""
    try:
        data = cose.sign(kind, payload, SIGNED)
    except ValueError:
        return
    for name in ("manifest", "desired", "report", "ack"):
        with contextlib.suppress(OtaError):
            PARSERS[name](data)


@pytest.mark.parametrize(
    "name",
    [
        "ota/1/+/up/request",
        "ota/1/#",
        "ota/1/dev/up/other",
        "ota/2/dev/up/request",
        "ota/1/DEV/up/request",
        "ota/1/ota-server/up/request",
        "ota/1//up/request",
        "ota/1/a\0b/up/request",
        "",
        "x" * 65_535,
        "ota/1/" + "d" * 49 + "/up/request",
    ],
)
def test_e5_topics_that_are_not_ours(name: str) -> None:
    with pytest.raises(OtaError) as error:
        topics.parse(name)
    assert error.value.reason in (Reason.FORMAT, Reason.IDENTITY)


def test_e6_access_rule() -> None:
    for user, name, publish, receive in [
        ("dev-1", "ota/1/dev-1/up/request", True, False),
        ("dev-1", "ota/1/dev-1/down/data", False, True),
        ("dev-1", "ota/1/dev-2/up/request", False, False),
        ("dev-1", "ota/1/dev-2/down/data", False, False),
        ("dev-1", "ota/1/dev-1/sync/barrier", True, True),
        ("dev-1", "ota/1/dev-10/up/request", False, False),
        ("dev-1", "ota/1/+/down/data", False, False),
        ("dev-1", "#", False, False),
        ("ota-server", "ota/1/dev-2/down/data", True, True),
        ("ota-server", "other/topic", False, False),
    ]:
        assert topics.may_publish(user, name) is publish, (user, name)
        assert topics.may_receive(user, name) is receive, (user, name)


def test_manifest_wrong_content_type_is_not_a_manifest() -> None:
    """A signed desired state is no manifest, though the key is right."""
    with pytest.raises(OtaError) as error:
        manifest.verify(FORMATS["message desired"], [KEY])
    assert error.value.reason is Reason.FORMAT
