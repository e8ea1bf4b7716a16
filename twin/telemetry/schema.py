"""Every column of every table once: name, type, unit, meaning, since which schema version.

Quantities are SI, fractions 0…1, current and power positive on discharge. Times are integer
microseconds since the start of the run (`t_us`); the manifest knows the calendar time of zero.
Packs are `site/rack/pack`; cells and series groups count from 1, as in the target paths of a scenario.
The unit of a column that is a name, a code or a mask is "-"; the unit of a fraction or a count is "1".

A missing number is NaN in a float column and null in the two nullable columns `cell` and `group`.

The writer, the reader, the tests and the Parquet files (as field metadata) read this registry:

    >>> column("measured", "power_W").unit
    'W'
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

SCHEMA_VERSION = "1.1.0"
DAY_US = 86_400_000_000

SEVERITIES = ("info", "warning", "alarm")
EVENT_SOURCES = ("fault", "bms", "dispatch", "zoom", "operator", "plant", "update")

# dtype word -> (numpy, arrow); "name" is text with few distinct values, stored as a dictionary
_DTYPES: dict[str, tuple[Any, pa.DataType]] = {
    "int64": (np.int64, pa.int64()),
    "int32": (np.int32, pa.int32()),
    "int16": (np.int16, pa.int16()),
    "int8": (np.int8, pa.int8()),
    "uint8": (np.uint8, pa.uint8()),
    "uint64": (np.uint64, pa.uint64()),
    "float32": (np.float32, pa.float32()),
    "float64": (np.float64, pa.float64()),
    "bool": (np.bool_, pa.bool_()),
    "name": (object, pa.dictionary(pa.int32(), pa.string())),
    "text": (object, pa.string()),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `per` makes it a list: an element per series 'group', temperature 'sensor' or 'point'."""

    table: str
    name: str
    dtype: str
    unit: str
    meaning: str
    per: str = ""
    optional: bool = False  # the writer fills `nothing` when it is not given
    nullable: bool = False
    since: str = "1.0.0"

    @property
    def nothing(self) -> Any:
        """What stands where nothing was given: NaN, False, or -1 for a code."""
        if self.dtype == "bool":
            return False
        return float("nan") if self.dtype.startswith("float") else -1

    @property
    def numpy(self) -> Any:
        """Element type as numpy dtype."""
        return _DTYPES[self.dtype][0]

    @property
    def arrow(self) -> pa.DataType:
        """Column type as Arrow type."""
        element = _DTYPES[self.dtype][1]
        return pa.list_(pa.field("element", element, nullable=False)) if self.per else element

    def arrow_field(self, names: str = "") -> pa.Field:
        """The Arrow field with unit, meaning and, for a code, the JSON of its names as metadata."""
        metadata = {"unit": self.unit, "meaning": self.meaning, "since": self.since}
        if names:
            metadata["names"] = names
        return pa.field(self.name, self.arrow, nullable=self.nullable, metadata=metadata)


def _rows(table: str, *rows: tuple[Any, ...]) -> tuple[Column, ...]:
    """(name, dtype, unit, meaning[, options]) each."""
    return tuple(Column(table, *row[:4], **(row[4] if len(row) > 4 else {})) for row in rows)


_GROUP: dict[str, Any] = {"per": "group"}
_SENSOR: dict[str, Any] = {"per": "sensor"}
_OPTIONAL: dict[str, Any] = {"optional": True}
_NEW_1_1: dict[str, Any] = {"optional": True, "since": "1.1.0"}

_WHO = (
    ("t_us", "int64", "us", "simulated time since the start of the run"),
    ("rack", "name", "-", "rack within the site"),
    ("pack", "name", "-", "pack within the rack"),
)

TABLES: dict[str, tuple[Column, ...]] = {
    # -------------------------------------------------------------------------------------------------
    # measured: what sensors and BMS reported at one instant; all that detectors may see
    "measured": _rows(
        "measured",
        *_WHO,
        ("current_A", "float32", "A", "pack current by its sensor, positive on discharge"),
        ("pack_voltage_V", "float32", "V", "voltage at the pack's terminals by its sensor"),
        (
            "link_voltage_V",
            "float32",
            "V",
            "voltage on the converter's side of the contactors by its sensor",
            _OPTIONAL,
        ),
        (
            "group_voltage_V",
            "float32",
            "V",
            "voltage of each series group by its channel, in the BMS's steps of 0.1 mV; NaN where silent",
            _GROUP,
        ),
        ("temperature_K", "float32", "K", "temperature by each sensor; NaN where silent", _SENSOR),
        ("soc_bms", "float32", "1", "state of charge as the BMS estimates it"),
        ("soc_sigma_bms", "float32", "1", "standard deviation of soc_bms as the BMS states it", _NEW_1_1),
        ("soc_min_bms", "float32", "1", "state of charge of the emptiest group, by the BMS", _NEW_1_1),
        ("soc_max_bms", "float32", "1", "state of charge of the fullest group, by the BMS", _NEW_1_1),
        ("soh_capacity_bms", "float32", "1", "capacity over that of a new pack, by the BMS", _NEW_1_1),
        ("soh_resistance_bms", "float32", "1", "resistance over that of a new pack, by the BMS", _NEW_1_1),
        ("power_discharge_10s_W", "float32", "W", "discharge power the BMS promises for 10 s", _NEW_1_1),
        ("power_discharge_60s_W", "float32", "W", "discharge power the BMS promises for 60 s", _NEW_1_1),
        ("power_charge_10s_W", "float32", "W", "charge power the BMS promises for 10 s, positive", _NEW_1_1),
        ("power_charge_60s_W", "float32", "W", "charge power the BMS promises for 60 s, positive", _NEW_1_1),
        ("safety_bms", "float32", "1", "state of safety by the BMS: 1 healthy, 0 near runaway", _NEW_1_1),
        ("current_limit_charge_A", "float32", "A", "charge current the BMS allows, positive"),
        ("current_limit_discharge_A", "float32", "A", "discharge current the BMS allows"),
        ("bms_state", "int8", "-", "state of the BMS; its names stand in the manifest"),
        (
            "level",
            "int8",
            "-",
            "highest limit exceeded: 0 none, 1 operating (MOL), 2 recommended (RSL), 3 safety (MSL)",
        ),
        (
            "fault_mask",
            "uint64",
            "-",
            "latched faults of the BMS, one bit each; their names stand in the manifest",
        ),
        ("contactors", "uint8", "-", "commanded contactors: bit 0 main, bit 1 precharge"),
        (
            "firmware",
            "int8",
            "-",
            "firmware that made this row; its release, image and build stand in the manifest; -1 unknown",
            {"optional": True, "since": "1.1.0"},
        ),
        (
            "balancing",
            "bool",
            "-",
            "bleed resistor of each series group commanded on",
            {"per": "group", "optional": True},
        ),
        (
            "cooling",
            "float32",
            "1",
            "cooling commanded by the BMS as a fraction of full cooling",
            _OPTIONAL,
        ),
        (
            "sample_age_s",
            "float32",
            "s",
            "age of the oldest sample in this row; 0 when all are new",
            _OPTIONAL,
        ),
        ("power_W", "float32", "W", "measured current times measured pack voltage, positive on discharge"),
        (
            "pressure_Pa",
            "float32",
            "Pa",
            "pressure in the housing above that of the surroundings by its sensor; NaN where there is none",
            _NEW_1_1,
        ),
        (
            "gas_fraction",
            "float32",
            "1",
            "combustible gas in the housing by volume, by its sensor; NaN where there is none",
            _NEW_1_1,
        ),
        ("insulation_ohm", "float32", "ohm", "by the insulation monitor; NaN where there is none", _NEW_1_1),
    ),
    # -------------------------------------------------------------------------------------------------
    # meter: the site's own meters; power columns are means over the period that ends at t_us
    "meter": _rows(
        "meter",
        ("t_us", "int64", "us", "simulated time since the start of the run, end of the period"),
        (
            "power_requested_W",
            "float64",
            "W",
            "AC power the dispatch asked of the batteries, discharge positive",
        ),
        ("power_served_W", "float64", "W", "AC power the batteries delivered, discharge positive"),
        (
            "power_dc_W",
            "float64",
            "W",
            "DC power of all packs of the site at their terminals, discharge positive",
            _OPTIONAL,
        ),
        (
            "converter_loss_W",
            "float64",
            "W",
            "loss of all converters of the site, DC power minus AC power",
            _OPTIONAL,
        ),
        (
            "auxiliary_W",
            "float64",
            "W",
            "power of cooling and controls drawn from the site's AC side",
            _OPTIONAL,
        ),
        ("load_W", "float64", "W", "consumption of the site without batteries, positive", _OPTIONAL),
        ("pv_W", "float64", "W", "photovoltaic production, positive", _OPTIONAL),
        ("grid_import_W", "float64", "W", "power drawn from the grid; negative is export", _OPTIONAL),
        ("price_per_J", "float64", "EUR/J", "energy price", _OPTIONAL),
        ("frequency_Hz", "float64", "Hz", "grid frequency at t_us", _OPTIONAL),
        ("ambient_K", "float64", "K", "air temperature around the racks at t_us"),
    ),
    # -------------------------------------------------------------------------------------------------
    # truth: the hidden state of the plant; only scoring and plots marked as truth may look
    "truth": _rows(
        "truth",
        *_WHO,
        ("soc_mean", "float32", "1", "mean state of charge of all cells"),
        ("soc_min", "float32", "1", "state of charge of the emptiest cell"),
        ("soc_max", "float32", "1", "state of charge of the fullest cell"),
        ("soc", "float32", "1", "mean state of charge of each series group's cells", _GROUP),
        ("temperature_mean_K", "float32", "K", "mean temperature of all cells"),
        ("temperature_min_K", "float32", "K", "temperature of the coldest cell"),
        ("temperature_max_K", "float32", "K", "temperature of the hottest cell"),
        (
            "temperature_group_K",
            "float32",
            "K",
            "mean temperature of each series group's cells",
            {"per": "group", "optional": True},
        ),
        ("voltage_min_V", "float32", "V", "lowest series-group voltage"),
        ("voltage_max_V", "float32", "V", "highest series-group voltage"),
        ("current_A", "float32", "A", "pack current, positive on discharge"),
        ("heat_W", "float32", "W", "heat released in all cells, shorts included"),
        ("short_current_A", "float32", "A", "sum of the currents through internal shorts"),
        ("weakest_cell", "int32", "1", "number of the emptiest cell within the pack, counting from 1"),
        ("hottest_cell", "int32", "1", "number of the hottest cell within the pack, counting from 1"),
        ("soh_capacity", "float64", "1", "capacity left by ageing, mean of all cells, 1 = new", _OPTIONAL),
        ("soh_capacity_min", "float64", "1", "capacity left by ageing, most aged cell", _OPTIONAL),
        ("soh_resistance", "float64", "1", "resistance grown by ageing, mean of cells, 1 = new", _OPTIONAL),
        (
            "state_of_safety_min",
            "float32",
            "1",
            "lowest State of Safety of any cell, 1 healthy, 0 imminent runaway; NaN without an abuse model",
            _NEW_1_1,
        ),
        ("cells_burnt", "float32", "1", "cells that have run away; NaN without an abuse model", _NEW_1_1),
        ("mass_lost_kg", "float32", "kg", "gas and ejected matter of all cells", _NEW_1_1),
        ("pressure_Pa", "float32", "Pa", "pressure in the housing above that of the surroundings", _NEW_1_1),
        ("gas_fraction", "float32", "1", "combustible gas in the housing, by volume", _NEW_1_1),
        (
            "insulation_ohm",
            "float32",
            "ohm",
            "insulation between the high-voltage side and the housing",
            _NEW_1_1,
        ),
    ),
    # -------------------------------------------------------------------------------------------------
    "events": _rows(
        "events",
        ("t_us", "int64", "us", "simulated time since the start of the run"),
        ("site", "name", "-", "site, empty when it concerns all"),
        ("rack", "name", "-", "rack within the site, or empty"),
        ("pack", "name", "-", "pack within the rack, or empty"),
        ("cell", "int32", "1", "cell within the pack, counting from 1", {"nullable": True}),
        ("source", "name", "-", "who says so: fault, bms, dispatch, zoom, operator, plant, update"),
        ("kind", "name", "-", "what happened, one word"),
        ("severity", "name", "-", "info, warning, alarm"),
        ("value", "float64", "see column unit", "the number that belongs to it, or NaN", _OPTIONAL),
        ("unit", "name", "-", "SI unit of value"),
        ("text", "text", "-", "one sentence for a person"),
    ),
    "alerts": _rows(
        "alerts",
        ("t_us", "int64", "us", "simulated time at which the detector spoke"),
        ("site", "name", "-", "site"),
        ("rack", "name", "-", "rack within the site"),
        ("pack", "name", "-", "pack within the rack"),
        ("group", "int32", "1", "series group within the pack, counting from 1", {"nullable": True}),
        ("detector", "name", "-", "word of the detector in the scenario"),
        ("severity", "name", "-", "warning, alarm"),
        ("score", "float64", "see column unit", "what the detector compared"),
        ("threshold", "float64", "see column unit", "what it compared it with"),
        ("unit", "name", "-", "unit of score and threshold"),
        ("text", "text", "-", "one sentence for a person"),
    ),
    # -------------------------------------------------------------------------------------------------
    # packs: what the data sheets say, one row per pack; the same fields as frame.PackInfo
    "packs": _rows(
        "packs",
        ("site", "name", "-", "site"),
        ("rack", "name", "-", "rack within the site"),
        ("pack", "name", "-", "pack within the rack"),
        ("design", "name", "-", "pack design of the catalogue"),
        ("n_series", "int32", "1", "series groups"),
        ("n_parallel", "int32", "1", "cells in parallel in each series group"),
        ("n_sensors", "int32", "1", "temperature sensors"),
        ("capacity_Ah", "float64", "Ah", "nominal capacity of a series group and so of the pack"),
        ("voltage_min_V", "float64", "V", "lower limit of a series group's voltage"),
        ("voltage_max_V", "float64", "V", "upper limit of a series group's voltage"),
        ("temperature_min_K", "float64", "K", "lower limit of the cell temperature"),
        ("temperature_max_K", "float64", "K", "upper limit of the cell temperature"),
        ("current_charge_max_A", "float64", "A", "continuous charge current limit, positive"),
        ("current_discharge_max_A", "float64", "A", "continuous discharge current limit"),
        (
            "balancing_resistance_ohm",
            "float64",
            "ohm",
            "bleed resistor of a series group; NaN when there is none",
        ),
        (
            "sensor_group",
            "int32",
            "1",
            "series group at which each temperature sensor sits, counting from 1",
            _SENSOR,
        ),
        ("ocv_soc", "float64", "1", "data-sheet open-circuit curve: states of charge", {"per": "point"}),
        ("ocv_V", "float64", "V", "data-sheet open-circuit curve: voltages of a cell", {"per": "point"}),
        (
            "risk_table",
            "name",
            "-",
            "learnt propagation risk of its modules, empty for none",
            {"since": "1.1.0"},
        ),
    ),
}

# Which tables are split into site=…/day=… folders; "site" is then in the path, not in the file.
PARTITIONED = ("measured", "meter", "truth")


def column(table: str, name: str) -> Column:
    """The column of this name; KeyError with the nearest name otherwise."""
    if table not in TABLES:
        raise KeyError(f"no table named {table!r}; tables are {', '.join(TABLES)}")
    for entry in TABLES[table]:
        if entry.name == name:
            return entry
    names = [entry.name for entry in TABLES[table]]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(names)}"
    raise KeyError(f"table {table} has no column named {name!r}{hint}")


def arrow_schema(table: str, code_names: dict[str, str] | None = None) -> pa.Schema:
    """Arrow schema of a table. `code_names` maps a column of codes to the JSON text of its names."""
    code_names = code_names or {}
    return pa.schema(
        [entry.arrow_field(code_names.get(entry.name, "")) for entry in TABLES[table]],
        metadata={"table": table, "schema_version": SCHEMA_VERSION},
    )
