"""The registry keeps its own rules: every column with unit and meaning, said once."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from twin.telemetry.frame import PackInfo
from twin.telemetry.schema import PARTITIONED, SCHEMA_VERSION, TABLES, Column, arrow_schema, column

ALL = [entry for table in TABLES.values() for entry in table]
UNIT_SUFFIX = {
    "_A": "A",
    "_V": "V",
    "_K": "K",
    "_W": "W",
    "_Hz": "Hz",
    "_ohm": "ohm",
    "_Ah": "Ah",
    "_us": "us",
}


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: f"{entry.table}.{entry.name}")
def test_every_column_says_what_it_is(entry: Column) -> None:
    assert entry.unit
    assert len(entry.meaning.split()) >= 1
    assert entry.meaning[0].islower() or entry.meaning[:2].isupper()
    assert not entry.meaning.endswith(".")
    for suffix, unit in UNIT_SUFFIX.items():
        if entry.name.endswith(suffix) and entry.name != "price_per_J":
            assert entry.unit == unit
    assert tuple(map(int, entry.since.split("."))) <= tuple(map(int, SCHEMA_VERSION.split(".")))
    if entry.optional:  # the filler must be able to say "nothing"
        assert entry.dtype.startswith(("float", "int")) or entry.dtype == "bool"
        assert np.asarray(entry.nothing).astype(entry.numpy) is not None


def test_names_are_unique_and_a_quantity_means_one_thing() -> None:
    for table in TABLES.values():
        assert len({entry.name for entry in table}) == len(table)
    for name in {entry.name for entry in ALL} - {"unit", "value", "soc"}:
        assert len({entry.unit for entry in ALL if entry.name == name}) == 1


def test_partitioned_tables_keep_the_site_in_the_path() -> None:
    for table in PARTITIONED:
        assert "site" not in {entry.name for entry in TABLES[table]}


def test_pack_info_is_the_table_of_packs() -> None:
    assert [entry.name for entry in fields(PackInfo)] == [entry.name for entry in TABLES["packs"]]


def test_arrow_fields_carry_unit_meaning_and_code_names() -> None:
    schema = arrow_schema("measured", {"bms_state": '{"0": "off"}'})
    assert schema.field("power_W").metadata[b"unit"] == b"W"
    assert schema.field("bms_state").metadata[b"names"] == b'{"0": "off"}'
    assert schema.metadata[b"schema_version"] == SCHEMA_VERSION.encode()


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'group_voltage_V'"):
        column("measured", "group_voltag_V")
    with pytest.raises(KeyError, match="no table named 'measurd'"):
        column("measurd", "t_us")
