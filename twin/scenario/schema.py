"""The scenario as data: frozen, typed, SI inside; the text an operator writes is one floor above (load.py).

Every attribute that is a quantity ends in its unit; fractions are 0…1; power and current are positive
on discharge (out of the battery), site load is positive when consumed, PV is positive when produced.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from twin.scenario.fields import (
    MISSING,
    date,
    flag,
    integer,
    plugins,
    profile,
    quantity,
    section,
    sections,
    target,
    text,
    word,
)

NAME = r"[a-z][a-z0-9_-]*"


@dataclass(frozen=True, kw_only=True)
class ProfileSpec:
    """Where a time series comes from. Exactly one of constant, package, file, synthetic is set."""

    dimension: str  # of the SI value: power, temperature, frequency, energy_price, speed, fraction ...
    hold: str  # 'step' keeps a value until the next; 'linear' interpolates
    constant: float | None = None  # SI
    package: str | None = None  # name in datasets.py, e.g. 'ev2gym/residential_loads'
    file: str | None = None  # path, relative to the scenario file
    synthetic: str | None = None  # name of a declared process, e.g. 'grid_frequency'
    column: str | None = None  # column of the value (package, file); several names joined by '+' are summed
    time_column: str | None = None
    unit: str | None = None  # of the stored numbers, when the file does not say
    # Factor on the numbers. Where they are relative (unit '' or '%', or a dataset with a scale_key), the SI
    # size of the thing instead: peak power in W, annual energy in J.
    scale: float = 1.0
    offset: float = 0.0  # SI, added after unit and scale
    # 'date': the very date where the data have it, else the same month, day and hour (not the same day of
    # the week) of the nearest year they cover;
    # 'exact': the very date; 'start': first row at t = 0. Data counted in seconds know only 'start'.
    align: str = "date"
    repeat: bool = False  # start again at the end of the data
    gaps: str = "error"  # a gap in a file is an error, or gets 'interpolate'd, or the value before 'hold's
    params: tuple[tuple[str, float], ...] = ()  # of a synthetic process: all of them, SI, sorted by name
    where: str = field(default="", compare=False)  # file:line:column in the YAML, for errors


@dataclass(frozen=True, kw_only=True)
class Zoom:
    """Finer steps for a while after an event (fault, trip, activation)."""

    step_s: float = quantity("time", "plant step inside a zoom window", key="step", default=0.1, above=0.0)
    after_s: float = quantity("time", "length of a window", key="after", default=60.0, minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class TimePlan:
    step_s: float = quantity(
        "time", "plant step outside zoom windows", key="step", default=1.0, minimum=0.01, maximum=900.0
    )
    zoom: Zoom = section("zoom windows around events", of=Zoom, default=Zoom())
    bms_rate: str = word(
        "firmware ticks: every 10 ms inside each step (full) or one per plant step (plant)",
        names=("full", "plant"),
        default="full",
    )


@dataclass(frozen=True, kw_only=True)
class TelemetryPlan:
    period_s: float = quantity("time", "period of the measured rows", key="period", default=10.0, above=0.0)
    truth_period_s: float = quantity(
        "time", "period of the truth rows", key="truth_period", default=60.0, above=0.0
    )


# One word chooses the rung of a ladder of fidelity; `twin list` shows the rungs.


@dataclass(frozen=True, kw_only=True)
class CellChoice:
    model: str = word("rung of the cell ladder", names="cell_models", default="ecm")


@dataclass(frozen=True, kw_only=True)
class BmsChoice:
    model: str = word("rung of the BMS ladder", names="bms_models", default="native")
    image: str = word("firmware release it leaves the factory with", names="images", default="1.2.0")


@dataclass(frozen=True, kw_only=True)
class ThermalChoice:
    model: str = word("rung of the thermal ladder", names="thermal_models", default="lumped")


@dataclass(frozen=True, kw_only=True)
class AgeingChoice:
    model: str = word("rung of the ageing ladder", names="ageing_models", default="none")
    parameters: str | None = word(
        "tested cell whose law is used, for semi_empirical", names="ageing_parameters", default=None
    )
    spread: float = quantity(
        "fraction",
        "cell-to-cell spread of the pace of ageing, 1 sigma",
        key="spread",
        default=0.0,
        minimum=0.0,
        maximum=0.3,
    )
    stored_s: float = quantity(
        "time",
        "rest at the initial charge and temperature before the start",
        key="stored",
        default=0.0,
        minimum=0.0,
        maximum=40 * 365.25 * 86400,
    )
    knee_cycles: int | None = integer(
        "full equivalent cycles at which half the active material is lost; none by default",
        default=None,
        minimum=1,
    )


@dataclass(frozen=True, kw_only=True)
class PropagationChoice:
    """What happens to a module beyond its onset; the pack design says which case and which housing."""

    model: str = word("rung of the abuse ladder", names="propagation_models", default="none")
    onset_K: float | None = quantity(
        "temperature",
        "cell temperature at which its module is handed over; self-heating of 0.02 K/min when not given",
        key="onset",
        default=None,
        minimum=313.15,
        maximum=473.15,
    )
    barrier: str = word(
        "what stands between cells: a material, or what the design's case has",
        names="barriers",
        default="case",
    )
    thickness_m: float = quantity(
        "length", "of the barrier", key="thickness", default=2e-3, minimum=1e-4, maximum=0.05
    )
    plate_W_m2K: float | None = quantity(
        "heat_transfer",
        "film of the cooled side at full cooling; the case's own when not given",
        key="plate_film",
        default=None,
        above=0.0,
        maximum=1e5,
    )
    cooling_idle: float = quantity(
        "fraction",
        "of that film which is left without flow",
        key="cooling_idle",
        default=0.01,
        minimum=0.0,
        maximum=1.0,
    )
    risk_table: str = word(
        "learnt table that the detector propagation_risk reads for these packs",
        names="risk_tables",
        default="none",
    )


@dataclass(frozen=True, kw_only=True)
class Sensors:
    """Errors of the pack's sensors; noise is white per sample, offsets are drawn once per channel."""

    voltage_noise_V: float = quantity(
        "voltage", "cell voltage noise, 1 sigma", key="voltage_noise", default=0.5e-3, minimum=0.0
    )
    voltage_offset_V: float = quantity(
        "voltage", "cell voltage offset spread, 1 sigma", key="voltage_offset", default=0.5e-3, minimum=0.0
    )
    temperature_noise_K: float = quantity(
        "temperature_difference",
        "temperature noise, 1 sigma",
        key="temperature_noise",
        default=0.1,
        minimum=0.0,
    )
    temperature_offset_K: float = quantity(
        "temperature_difference",
        "temperature offset spread, 1 sigma",
        key="temperature_offset",
        default=0.3,
        minimum=0.0,
    )
    current_noise_A: float = quantity(
        "current", "pack current noise, 1 sigma", key="current_noise", default=0.02, minimum=0.0
    )
    current_offset_A: float = quantity(
        "current", "pack current offset spread, 1 sigma", key="current_offset", default=0.01, minimum=0.0
    )
    current_gain: float = quantity(
        "fraction",
        "pack current gain error spread, 1 sigma",
        key="current_gain",
        default=0.001,
        minimum=0.0,
        maximum=0.2,
    )
    # Sensors of the housing, by which abuse shows itself; a pack without them reports nothing there.
    pressure: bool = flag("a pressure sensor in the housing", default=False)
    pressure_noise_Pa: float = quantity(
        "pressure", "housing pressure noise, 1 sigma", key="pressure_noise", default=20.0, minimum=0.0
    )
    pressure_offset_Pa: float = quantity(
        "pressure",
        "housing pressure offset spread, 1 sigma",
        key="pressure_offset",
        default=50.0,
        minimum=0.0,
    )
    pressure_range_Pa: float = quantity(
        "pressure", "highest pressure it can show", key="pressure_range", default=100e3, above=0.0
    )
    gas: bool = flag("a sensor of combustible gas in the housing", default=False)
    gas_noise: float = quantity("fraction", "gas noise, 1 sigma", key="gas_noise", default=20e-6, minimum=0.0)
    gas_offset: float = quantity(
        "fraction", "gas offset spread, 1 sigma", key="gas_offset", default=50e-6, minimum=0.0
    )
    gas_range: float = quantity(
        "fraction", "highest share of gas it can show", key="gas_range", default=0.05, above=0.0, maximum=1.0
    )
    gas_response_s: float = quantity(
        "time", "gas sensor, time to 63 % of a step", key="gas_response", default=5.0, minimum=0.0
    )
    insulation: bool = flag("an insulation monitor", default=False)
    insulation_noise: float = quantity(
        "fraction",
        "insulation reading noise, 1 sigma of the value",
        key="insulation_noise",
        default=0.02,
        minimum=0.0,
        maximum=0.2,
    )


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Cell-to-cell spread, 1 sigma; None takes the pack design's own figure."""

    capacity: float | None = quantity(
        "fraction", "capacity", key="capacity", default=None, minimum=0.0, maximum=0.3
    )
    resistance: float | None = quantity(
        "fraction", "resistance", key="resistance", default=None, minimum=0.0, maximum=0.5
    )
    soc: float | None = quantity(
        "fraction", "initial state of charge", key="soc", default=None, minimum=0.0, maximum=0.2
    )


@dataclass(frozen=True, kw_only=True)
class Pack:
    design: str = word("pack design of the catalogue", names="packs")
    initial_soc: float = quantity(
        "fraction",
        "mean state of charge at the start",
        key="initial_soc",
        default=0.5,
        minimum=0.0,
        maximum=1.0,
    )
    initial_temperature_K: float | None = quantity(
        "temperature",
        "cells at the start; the ambient when not given",
        key="initial_temperature",
        default=None,
        minimum=233.15,
        maximum=353.15,
    )
    spread: Spread = section("cell-to-cell spread", of=Spread, default=Spread())
    sensors: Sensors = section("sensor errors", of=Sensors, default=Sensors())
    cells: CellChoice = section("cell model", of=CellChoice, default=CellChoice())
    thermal: ThermalChoice = section("thermal model", of=ThermalChoice, default=ThermalChoice())
    ageing: AgeingChoice = section(
        "fade of capacity, growth of resistance", of=AgeingChoice, default=AgeingChoice()
    )
    bms: BmsChoice = section("battery management", of=BmsChoice, default=BmsChoice())
    propagation: PropagationChoice = section(
        "thermal runaway", of=PropagationChoice, default=PropagationChoice()
    )


@dataclass(frozen=True, kw_only=True)
class RackGroup:
    """`count` racks alike; they are called name-1 … name-count."""

    pack: Pack = section("what stands in each rack", of=Pack)
    name: str = text("racks are called name-1 … name-count", default="rack", pattern=NAME)
    count: int = integer("number of racks", default=1, minimum=1, maximum=100_000)
    packs_per_rack: int = integer(
        "packs in parallel on the rack's converter", default=1, minimum=1, maximum=64
    )


@dataclass(frozen=True, kw_only=True)
class LossesAt:
    """Losses of the converter at one DC voltage, of rated power: a row of its efficiency map."""

    voltage_V: float = quantity("voltage", "on the DC side", key="voltage", above=0.0)
    no_load_loss: float = quantity(
        "fraction", "constant while running", key="no_load_loss", minimum=0.0, maximum=0.2
    )
    proportional_loss: float = quantity(
        "fraction", "per unit of power", key="proportional_loss", minimum=0.0, maximum=0.3
    )
    quadratic_loss: float = quantity(
        "fraction", "at rated power, growing with its square", key="quadratic_loss", minimum=0.0, maximum=0.3
    )


@dataclass(frozen=True, kw_only=True)
class Converter:
    """The power converter (PCS) of each rack: no-load, proportional and quadratic losses of rated power.

    With `map`, the losses are interpolated between its rows over the DC voltage, and stay at the nearest
    row beyond them.
    """

    power_W: float | None = quantity(
        "power",
        "rated power; the packs' continuous limit when not given",
        key="power",
        default=None,
        above=0.0,
    )
    no_load_loss: float = quantity(
        "fraction",
        "constant loss while running, of rated power",
        key="no_load_loss",
        default=0.004,
        minimum=0.0,
        maximum=0.2,
    )
    proportional_loss: float = quantity(
        "fraction", "loss per unit of power", key="proportional_loss", default=0.008, minimum=0.0, maximum=0.3
    )
    quadratic_loss: float = quantity(
        "fraction",
        "loss at rated power, growing with its square",
        key="quadratic_loss",
        default=0.012,
        minimum=0.0,
        maximum=0.3,
    )
    map: tuple[LossesAt, ...] = sections("losses at growing DC voltages, instead of the three", of=LossesAt)

    def mistakes(self) -> list[tuple[str, str]]:
        """Called by the loader when every field is well-formed."""
        volts = [row.voltage_V for row in self.map]
        if any(b <= a for a, b in itertools.pairwise(volts)):
            return [("map", "voltages of the rows must grow")]
        return []


@dataclass(frozen=True, kw_only=True)
class Container:
    """Containers around the racks with cooling and heating; without any, the racks stand in the ambient air.

    Figures are those of one container; the racks of the site and their converters share them evenly.
    """

    count: int = integer("containers of the site", default=0, minimum=0, maximum=10_000)
    cool_above_K: float = quantity(
        "temperature",
        "cooling begins above",
        key="cool_above",
        default=298.15,
        minimum=223.15,
        maximum=373.15,
    )
    heat_below_K: float = quantity(
        "temperature",
        "heating begins below",
        key="heat_below",
        default=285.15,
        minimum=223.15,
        maximum=373.15,
    )
    band_K: float = quantity(
        "temperature_difference", "beyond a set-point to full power", key="band", default=3.0, above=0.0
    )
    cooling_W: float = quantity("power", "heat it can take out", key="cooling", default=8000.0, above=0.0)
    heating_W: float = quantity("power", "heat it can put in", key="heating", default=4000.0, above=0.0)
    cop: float = quantity(
        "fraction", "heat taken out over electric energy", key="cop", default=3.0, minimum=0.5, maximum=20.0
    )
    heating_cop: float = quantity(
        "fraction",
        "heat put in over electric energy",
        key="heating_cop",
        default=1.0,
        minimum=0.5,
        maximum=20.0,
    )
    fan_W: float = quantity("power", "of its fans while it runs", key="fan", default=300.0, minimum=0.0)
    walls_W: float = quantity(
        "power", "through the walls at a difference of 10 K", key="walls", default=450.0, minimum=0.0
    )
    warming_J: float = quantity(
        "energy", "that warms air and sheet metal by 1 K", key="warming", default=3.0e5, minimum=1e3
    )
    converter_share: float = quantity(
        "fraction", "of the converters' losses that stays inside", key="converter_share", default=0.0,
        minimum=0.0, maximum=1.0,
    )  # fmt: skip

    def mistakes(self) -> list[tuple[str, str]]:
        """Called by the loader when every field is well-formed."""
        if self.heat_below_K >= self.cool_above_K:
            return [("heat_below", "must be below cool_above, or heating and cooling fight")]
        return []


@dataclass(frozen=True, kw_only=True)
class Site:
    name: str = text("name, first part of every target path", pattern=NAME)
    racks: tuple[RackGroup, ...] = sections("groups of racks", of=RackGroup, unique="name", default=MISSING)
    ambient: ProfileSpec = profile("air around the racks", dimension="temperature", hold="linear")
    load: ProfileSpec | None = profile("consumption of the site", dimension="power", default=None)
    pv: ProfileSpec | None = profile("photovoltaic production", dimension="power", default=None)
    price: ProfileSpec | None = profile("energy price", dimension="energy_price", default=None)
    frequency: ProfileSpec | None = profile("grid frequency", dimension="frequency", default=None)
    dispatch: tuple[Any, ...] = plugins("strategies, served in this order", table="dispatch", tag="strategy")
    converter: Converter = section("power converter of each rack", of=Converter, default=Converter())
    container: Container = section("housing of the racks", of=Container, default=Container())


@dataclass(frozen=True, kw_only=True)
class Outage:
    """The broker process is killed and, later, started again."""

    at_s: float = quantity("time", "when the broker is killed", key="at", minimum=0.0)
    until_s: float = quantity("time", "when it is started again", key="until", above=0.0)


@dataclass(frozen=True, kw_only=True)
class UpdateLink:
    """How the gateways of the packs reach the update server."""

    broker: str = word("rung of the link ladder", names="brokers", default="mosquitto")
    period_s: float = quantity(
        "time", "how often the gateways look at the link", key="period", default=1.0, above=0.0
    )
    latency_s: float = quantity(
        "time", "one way between gateway and broker", key="latency", default=0.2, minimum=0.0, maximum=600.0
    )
    bandwidth_B_per_s: float = quantity(
        "data_rate", "of each gateway, each way", key="bandwidth", default=32_000.0, above=0.0
    )
    loss: float = quantity(
        "fraction",
        "messages lost between gateway and broker, each way",
        key="loss",
        default=0.0,
        minimum=0.0,
        maximum=0.9,
    )
    broker_outages: tuple[Outage, ...] = sections("the broker is killed and started again", of=Outage)


@dataclass(frozen=True, kw_only=True)
class ParameterChange:
    """A new value of one firmware parameter, in the firmware's own unit (it stands in the name)."""

    name: str = word("parameter of the firmware", names="parameters")
    value: int = integer("new value", minimum=-(2**31), maximum=2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class UpdateOrder:
    """One set (firmware, parameters, or both) for all packs below a target."""

    at_s: float = quantity("time", "when it is ordered", key="at", minimum=0.0)
    target: str = target("who gets it", level="site|rack|pack")
    image: str | None = word("firmware release", names="images", default=None)
    parameters: tuple[ParameterChange, ...] = sections(
        "changed firmware parameters", of=ParameterChange, unique="name"
    )
    max_offline: int = integer(
        "racks of a site that may stand open at once while theirs is activated", default=1, minimum=1
    )

    def mistakes(self) -> list[tuple[str, str]]:
        """An order has to ask for something."""
        empty = self.image is None and not self.parameters
        return [("target", "neither image nor parameters are ordered")] if empty else []


@dataclass(frozen=True, kw_only=True)
class Updates:
    """Signed firmware and parameter updates while the plant runs."""

    link: UpdateLink = section("way between gateways and server", of=UpdateLink, default=UpdateLink())
    orders: tuple[UpdateOrder, ...] = sections(
        "what is ordered, for whom, when", of=UpdateOrder, default=MISSING
    )


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """A claim about the run, checked after it: one of at_least, at_most, equals."""

    metric: str = word("metric of the summary", names="metrics")
    at_least: float | None = quantity("metric", "lower bound", key="at_least", default=None)
    at_most: float | None = quantity("metric", "upper bound", key="at_most", default=None)
    equals: float | None = quantity("metric", "exact value", key="equals", default=None)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    name: str  # stem of the file
    about: str = text("one sentence: what happens here and why it is asked")
    duration_s: float = quantity(
        "time", "simulated time", key="duration", above=0.0, maximum=40 * 365.25 * 86400
    )
    sites: tuple[Site, ...] = sections("sites", of=Site, unique="name", default=MISSING)
    seed: int = integer("seed of every random stream", default=1, minimum=0, maximum=2**63 - 1)
    start: datetime = date("calendar time of t = 0, UTC", default=datetime(2016, 6, 6))
    time: TimePlan = section("steps", of=TimePlan, default=TimePlan())
    telemetry: TelemetryPlan = section("recording", of=TelemetryPlan, default=TelemetryPlan())
    faults: tuple[Any, ...] = plugins("what goes wrong, when, where", table="faults", tag="kind")
    updates: Updates | None = section("updates of firmware and parameters", of=Updates, default=None)
    analytics: tuple[Any, ...] = plugins(
        "detectors that watch the measured data", table="detectors", tag="detector"
    )
    expect: tuple[Expectation, ...] = sections("claims checked after the run", of=Expectation)


@dataclass(frozen=True, kw_only=True)
class PackFacts:
    """What the loader must know of a pack design to check targets."""

    n_cells: int
    n_groups: int
    n_temperature_sensors: int
    abuse: bool = False  # whether the catalogue knows how its modules run away


@dataclass(frozen=True, kw_only=True)
class Known:
    """The names that exist; filled by assemble.py so that the loader needs no engine.

    dispatch, faults, detectors map a word to the dataclass of its parameters (fields as in schema.py).
    metrics maps a metric to its dimension ('time', 'fraction', 'count', 'power' ...).
    """

    packs: dict[str, PackFacts]
    cell_models: tuple[str, ...]
    thermal_models: tuple[str, ...]
    ageing_models: dict[str, bool]  # rung -> whether it needs `parameters`
    ageing_parameters: dict[str, bool]  # set -> whether it has a knee of its own
    bms_models: tuple[str, ...]
    propagation_models: tuple[str, ...]
    barriers: tuple[str, ...]
    risk_tables: tuple[str, ...]
    brokers: tuple[str, ...]
    images: tuple[str, ...]
    parameters: tuple[str, ...]
    dispatch: dict[str, type]
    faults: dict[str, type]
    detectors: dict[str, type]
    metrics: dict[str, str]
