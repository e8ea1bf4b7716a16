"""Golden bytes of every format, and one verdict for every signature edge case."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import cbor2
import pytest

from ota import delta, frames, image, manifest, merkle, parameters, signing
from ota.errors import OtaError
from ota.signing import Algorithm, PublicKey
from ota.testbed import SCHEMA

HERE = Path(__file__).parent / "vectors"
SIGNATURES: list[dict[str, Any]] = json.loads((HERE / "signatures.json").read_text())
FORMATS = {
    name: bytes.fromhex(data) for name, data in json.loads((HERE / "formats.json").read_text()).items()
}


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ota_vectors_make", HERE / "make.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("row", SIGNATURES, ids=lambda r: f"{r['algorithm']}: {r['comment']}")
def test_a13_signature_edge_cases(row: dict[str, Any]) -> None:
    try:
        key = PublicKey.from_raw(Algorithm(row["algorithm"]), bytes.fromhex(row["key"]))
        key.verify(bytes.fromhex(row["message"]), bytes.fromhex(row["signature"]))
        verdict = True
    except OtaError:
        verdict = False
    assert verdict is row["valid"]


def test_small_order_list_is_the_whole_torsion_group() -> None:
    maker = _maker()
    points = maker.ed_small_order()
    assert len(set(points)) == 8
    assert all(maker.ed_mul(8, p) == (0, 1) for p in points)
    assert {p[1] for p in points} == signing._ED_SMALL_Y


def test_vectors_are_what_the_maker_makes() -> None:
    maker = _maker()
    assert maker.dump(maker.formats()) == (HERE / "formats.json").read_text()
    assert maker.dump(maker.ed_cases() + maker.p256_cases()) == (HERE / "signatures.json").read_text()


def test_golden_files_are_accepted() -> None:
    ed = PublicKey.from_spki(FORMATS["public key ed25519 spki"])
    p256 = PublicKey.from_spki(FORMATS["public key p256 spki"])
    old, new = FORMATS["image 1.0.0 ed25519"], FORMATS["image 1.1.0 ed25519"]
    for data, key in ((old, ed), (new, ed), (FORMATS["image p256"], p256)):
        image.verify(data, image.Policy(keys=(key,), hardware_revision=2))
    assert delta.apply(old, FORMATS["delta 1.0.0 to 1.1.0"], FORMATS["merkle root 1.1.0"]) == new
    assert delta.apply(b"", FORMATS["full container 1.1.0"], merkle.file_root(new)) == new
    for name, key in (("manifest ed25519", ed), ("manifest p256", p256)):
        assert manifest.verify(FORMATS[name], [key]).components[0].length == len(new)
    par = image.parse(FORMATS["parameter set"])
    assert parameters.check(SCHEMA, par.body)["trip_hold"] == 100
    assert isinstance(frames.from_mcu(FORMATS["frame status"]), frames.Status)
    assert isinstance(frames.from_mcu(FORMATS["frame progress"]), frames.Progress)
    assert frames.unpack(FORMATS["frame data"])[0] == frames.DATA


def test_foreign_cose_library_reads_the_manifest() -> None:
    from pycose.keys import OKPKey
    from pycose.keys.curves import Ed25519
    from pycose.messages import Sign1Message

    # Sign1Message.decode of pycose 1.1 expects the lists of an older cbor2; its parser proper is what counts.
    tag = cbor2.loads(FORMATS["manifest ed25519"])
    assert (tag.tag, len(tag.value), len(tag.value[1])) == (18, 4, 0)
    message = Sign1Message.from_cose_obj([tag.value[0], {}, *tag.value[2:]], True)
    raw = PublicKey.from_spki(FORMATS["public key ed25519 spki"]).raw
    message.key = OKPKey(crv=Ed25519, x=raw)
    assert message.verify_signature()
