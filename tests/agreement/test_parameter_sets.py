"""The parameter set of the firmware and ota/parameters.py: one schema, the same bytes, the same verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from bms_emulator.firmware.parameters import make_params
from bms_emulator.firmware.paramset import pack_set, read_set, schema
from ota import parameters
from ota.errors import OtaError

DESIGN = {"n_groups": 14, "n_temps": 4, "capacity_mAh": 10_000}


@pytest.fixture(scope="module")
def both():
    """The office's schema, and the values of a default set by name."""
    mine = schema()
    theirs = parameters.Schema.from_mapping(mine)
    words = make_params([DESIGN]).view("<i4")
    values = {}
    for row in mine["parameters"]:
        word = words[row["id"]]
        values[row["name"]] = float(word.view("<f4")) if row["type"] == "f32" else int(word)
    return theirs, values


def test_office_packs_what_the_firmware_reads(both):
    theirs, values = both
    body = parameters.pack(theirs, 9, values)
    assert body == pack_set(make_params([DESIGN])[0], counter=9)
    reason, params = read_set(body, counter_least=9)
    assert reason == "OK"
    assert params.tobytes() == make_params([DESIGN]).tobytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_groups", 300), ("abuse_scale", 20.0), ("cooling_off_ddegC", 310), ("est_soc_low", 0.7)],
)
def test_both_refuse(both, name, value):
    theirs, values = both
    with pytest.raises(OtaError):
        parameters.pack(theirs, 9, values | {name: value})
    row = next(r for r in schema()["parameters"] if r["name"] == name)
    words = make_params([DESIGN]).view("<i4").copy()
    words[row["id"]] = np.float32(value).view("<i4") if row["type"] == "f32" else value
    reason, _ = read_set(pack_set(words.view(make_params([DESIGN]).dtype)[0], counter=9))
    assert reason in {"OUT_OF_RANGE", "PAIR_ORDER"}
