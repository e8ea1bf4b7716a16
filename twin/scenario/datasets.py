"""The data packages a scenario may name under `package:`: one row each, with everything the reader must know.

The packages are installed without their dependencies and never imported; their files are located through
importlib.metadata. Units and clocks were checked against the numbers, not taken from labels:

- residential_loads has no header; as kW the 25 homes use 6 to 20 MWh a year (Pecan Street, Texas: air
  conditioning), as kWh per 15 min it would be four times that.
- driving_cycles is km/h: WLTC_3b_full integrates to 23.262 km (UN GTR 15: 23.266 km). From second 1154 to
  1305 (phase "high") it differs from the regulation's table as other collections have it (NREL FASTSim) by
  up to 16.6 km/h; the other 1650 seconds are equal to 0.05 km/h.
- day_ahead_nl changes its date format in mid file, repeats 2022-12-31 23:00 to 2023-09-30 23:00 UTC with
  equal prices, has one row without a date, and lacks 23:00 UTC of 2023-12-30 and 2024-12-30.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One time series (or several alike) inside an installed distribution.

    `parser` is csv or bdew. Calendar data give `time_column` and `time_formats`, or
    `first` (of a regular series, ISO) and `period_s`; `seconds` marks time since the beginning instead.
    `scale_key` is set where the numbers are relative: the YAML key that says how large the thing is.
    """

    name: str
    distribution: str
    version: str
    file: str
    about: str
    source: str
    licence: str
    dimension: str  # of the numbers in the file; 'fraction' where scale_key makes them a power
    unit: str
    columns: tuple[str, ...]
    parser: str = "csv"
    header: bool = True
    value_columns: tuple[str, ...] = ()  # names in the file where they differ from `columns`
    time_column: str = ""
    time_formats: tuple[str, ...] = ()
    first: str = ""
    period_s: float = 0.0
    seconds: bool = False
    clock: str = "UTC"
    known_gaps: int = 0  # single missing rows, filled by keeping the value before
    scale_key: str = ""
    scale_dimension: str = ""

    @property
    def needs(self) -> str:
        """What to tell a user without the package."""
        return f"the data package {self.distribution} {self.version} (pip install --no-deps)"


_EV2GYM: dict[str, Any] = {"distribution": "ev2gym", "version": "2.0.0", "licence": "MIT"}
_EMOBPY: dict[str, Any] = {"distribution": "emobpy", "version": "0.6.2", "licence": "MIT"}
_DEMANDLIB: dict[str, Any] = {"distribution": "demandlib", "version": "0.2.2", "licence": "MIT"}


def _bdew(letter: str, about: str) -> Dataset:
    return Dataset(
        name=f"demandlib/{letter}25",
        file=f"demandlib/bdew/bdew_data/{letter}25.csv",
        about=about,
        source="BDEW standard load profiles, revision 2025",
        parser="bdew",
        dimension="power",
        unit="W",
        columns=(f"{letter}25",),
        clock="Europe/Berlin",
        period_s=900.0,
        scale_key="annual",
        scale_dimension="energy",
        **_DEMANDLIB,
    )


_ROWS = (
    Dataset(
        name="ev2gym/day_ahead_nl",
        file="ev2gym/data/Netherlands_day-ahead-2015-2024.csv",
        about="day-ahead electricity price, Netherlands, 2015-01-01 to 2025-01-07, hourly",
        source="ENTSO-E transparency platform",
        dimension="energy_price",
        unit="EUR/MWh",
        columns=("price",),
        value_columns=("Price (EUR/MWhe)",),
        time_column="Datetime (UTC)",
        time_formats=("%Y-%m-%d %H:%M:%S", "%d/%m/%Y %H:%M"),
        known_gaps=2,
        **_EV2GYM,
    ),
    Dataset(
        name="ev2gym/pv_nl",
        file="ev2gym/data/pv_netherlands.csv",
        about="photovoltaic output as a fraction of peak power, Netherlands 2019, hourly",
        source="Renewables.ninja",
        dimension="fraction",
        unit="",
        columns=("electricity",),
        time_column="time",
        time_formats=("%Y-%m-%d %H:%M",),
        scale_key="peak",
        scale_dimension="power",
        **_EV2GYM,
    ),
    Dataset(
        name="ev2gym/residential_loads",
        file="ev2gym/data/residential_loads.csv",
        about="electric load of 25 homes with air conditioning, Texas, one year, 15 min",
        source="Pecan Street Dataport",
        dimension="power",
        unit="kW",
        columns=tuple(f"home_{k:02d}" for k in range(1, 26)),
        header=False,
        first="2022-01-01T00:00:00",
        period_s=900.0,
        clock="local, no daylight saving; the year is nominal",
        **_EV2GYM,
    ),
    Dataset(
        name="emobpy/temperature_de",
        file="emobpy/data/ERA5-hourly-t2m.csv",
        about="air temperature 2 m above ground, mean of Germany, 2015-12-30 to 2017-01-02, hourly",
        source="ERA5 reanalysis (Copernicus Climate Change Service)",
        dimension="temperature",
        unit="K",
        columns=("DE",),
        time_column="date",
        time_formats=("%Y-%m-%d %H:%M:%S GMT",),
        **_EMOBPY,
    ),
    Dataset(
        name="emobpy/driving_cycles",
        file="emobpy/data/driving_cycles.csv",
        about="speed of the WLTC (class 2, class 3b) and EPA driving cycles, 1 s",
        source="UN GTR 15 (WLTC), US EPA",
        dimension="speed",
        unit="km/h",
        columns=(
            "WLTC_3b_full",
            "WLTC_3b_low",
            "WLTC_3b_middle",
            "WLTC_3b_high",
            "WLTC_3b_extrahigh",
            "WLTC_2_full",
            "WLTC_2_low",
            "WLTC_2_middle",
            "WLTC_2_high",
            "EPA_full",
            "EPA_city",
            "EPA_highway",
        ),
        time_column="Seconds",
        seconds=True,
        clock="seconds of the cycle",
        **_EMOBPY,
    ),
    _bdew("g", "standard load profile of a business, Germany, 15 min"),
    _bdew("h", "standard load profile of households, Germany, 15 min"),
    _bdew("l", "standard load profile of farms, Germany, 15 min"),
    _bdew("p", "standard load profile of households with photovoltaics, Germany, 15 min"),
    _bdew("s", "standard load profile of households with photovoltaics and storage, Germany, 15 min"),
)

DATASETS: dict[str, Dataset] = {row.name: row for row in _ROWS}
