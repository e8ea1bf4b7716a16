"""Scenario → World: the one place where concrete classes are named.

Racks of one kind (same design, same rungs of fidelity) become one shard, whatever site they stand on;
a shard steps all its packs in a handful of compiled calls.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from twin.adapters import ageing, bms, catalogue, cells, links, propagation, thermal, updates
from twin.adapters.ageing import AgeingPlan
from twin.adapters.catalogue import PackSheet
from twin.adapters.workshop import Workshop
from twin.analytics.detectors import DETECTORS
from twin.analytics.metrics import METRICS, REGISTRY
from twin.analytics.risk_table import load_risk_table, risk_table_names
from twin.ports import FloatArray
from twin.scenario.profiles import Profile, load_profile, profile_names, synthesise
from twin.scenario.schema import (
    AgeingChoice,
    Converter,
    Known,
    PackFacts,
    ProfileSpec,
    PropagationChoice,
    RackGroup,
    Scenario,
    Site,
)
from twin.telemetry.frame import PackInfo
from twin.world.clock import Clock, to_us
from twin.world.container import ContainerAir
from twin.world.dispatch import STRATEGIES
from twin.world.dispatch.base import SiteFacts, Strategy
from twin.world.faults import FAULTS
from twin.world.faults.base import Fault, FaultTarget
from twin.world.pack import PackPath, PackShard, RackPlan
from twin.world.plant import World
from twin.world.rack import LinkVoltages
from twin.world.rng import Streams
from twin.world.sensors import SensorBank, SensorPlan
from twin.world.site import RackSlice, SiteControl
from twin.world.updates import UpdateDesk, resolve


@lru_cache(maxsize=1)
def known() -> Known:
    """All names a scenario may use."""
    return Known(
        packs={
            name: PackFacts(
                n_cells=sheet.n_series * sheet.n_parallel,
                n_groups=sheet.n_series,
                n_temperature_sensors=len(sheet.sensor_group),
                abuse=sheet.abuse,
            )
            for name, sheet in catalogue.pack_sheets().items()
        },
        cell_models=tuple(cells.RUNGS),
        thermal_models=tuple(thermal.RUNGS),
        ageing_models={name: rung.needs_parameters for name, rung in ageing.RUNGS.items()},
        ageing_parameters={name: name in ageing.with_own_knee() for name in ageing.parameter_sets()},
        bms_models=tuple(bms.RUNGS),
        propagation_models=tuple(propagation.RUNGS),
        barriers=tuple(propagation.barriers()),
        risk_tables=("none", *risk_table_names()),
        brokers=tuple(links.RUNGS),
        images=bms.images(),
        parameters=bms.parameters(),
        dispatch=STRATEGIES,
        faults=FAULTS,
        detectors=DETECTORS,
        metrics=METRICS,
    )


@dataclass(frozen=True)
class Kind:
    """What the racks of a shard have in common."""

    design: str
    cell_model: str
    thermal_model: str
    ageing: AgeingPlan
    bms_model: str
    bms_rate: str
    bms_image: str
    abuse: PropagationChoice


@dataclass(frozen=True)
class RackPlace:
    """One rack of the scenario on its way into a shard."""

    site: int
    name: str
    group: RackGroup


def assemble(scenario: Scenario, base_dir: Path) -> World:
    """Build everything that lives on the clock; reads profiles, compiles firmware, draws cells."""
    streams = Streams(scenario.seed)
    profiles = _Profiles(scenario, base_dir, streams)
    ambient = [profiles.of(site, "ambient", site.ambient) for site in scenario.sites]
    places: dict[Kind, list[RackPlace]] = {}
    for number, site in enumerate(scenario.sites):
        for group in site.racks:
            kind = Kind(
                design=group.pack.design,
                cell_model=group.pack.cells.model,
                thermal_model=group.pack.thermal.model,
                ageing=_ageing_plan(group.pack.ageing),
                bms_model=group.pack.bms.model,
                bms_rate=scenario.time.bms_rate,
                bms_image=group.pack.bms.image,
                abuse=group.pack.propagation,
            )
            racks = places.setdefault(kind, [])
            racks.extend(RackPlace(number, f"{group.name}-{k + 1}", group) for k in range(group.count))
    workshop = Workshop(scenario.seed, _epoch_s(scenario))
    shards = tuple(
        _shard(kind, racks, scenario, [profile.at(0.0) for profile in ambient], streams, workshop)
        for kind, racks in places.items()
    )
    sites = tuple(
        _site(number, site, ambient[number], profiles, shards) for number, site in enumerate(scenario.sites)
    )
    time = scenario.time
    firmware = _firmware(scenario, workshop)
    return World(
        clock=Clock(time.step_s, time.zoom.step_s, time.zoom.after_s, scenario.duration_s),
        sites=sites,
        shards=shards,
        site_of_pack=tuple(shard.racks.site[shard.rack_of_pack] for shard in shards),
        faults=tuple((fault, _target(fault, shards)) for fault in scenario.faults),
        packs=tuple(
            _pack_info(path, shard.design, kind.abuse.risk_table)
            for kind, shard in zip(places, shards, strict=True)
            for path in shard.paths
        ),
        code_names=_code_names(shards, firmware),
        firmware=firmware,
        fidelity={
            "cell": _ladder(kind.cell_model for kind in places),
            "thermal": _ladder(kind.thermal_model for kind in places),
            "ageing": _ladder(
                kind.ageing.model + (f" ({kind.ageing.parameters})" if kind.ageing.parameters else "")
                for kind in places
            ),
            "propagation": _ladder(kind.abuse.model for kind in places),
            "bms": _ladder(f"{kind.bms_model} ({kind.bms_rate} rate)" for kind in places),
            **({"link": scenario.updates.link.broker} if scenario.updates else {}),
        },
        profiles=profiles.digests,
        measured_period_us=to_us(scenario.telemetry.period_s),
        truth_period_us=to_us(scenario.telemetry.truth_period_s),
        updates=_updates(scenario, shards, workshop),
        clean_up=workshop.close,
    )


def _epoch_s(scenario: Scenario) -> float:
    """Unix time of t = 0."""
    return scenario.start.replace(tzinfo=UTC).timestamp()


def _updates(scenario: Scenario, shards: tuple[PackShard, ...], workshop: Workshop) -> UpdateDesk | None:
    """The update chain with a gateway for each pack; None where nothing is ordered."""
    plan = scenario.updates
    if plan is None:
        return None
    link = plan.link
    names = updates.device_names(str(path) for shard in shards for path in shard.paths)
    devices = []
    for number, shard in enumerate(shards):
        for p, path in enumerate(shard.paths):
            assert shard.bms.modem is not None  # every rung of the ladder has one where updates are planned
            devices.append(updates.Device(number, p, names[str(path)], shard.bms.modem, shard.design))
    sheets = catalogue.pack_sheets()
    chain = updates.Chain(
        workshop.office,
        devices,
        updates.Shelf(
            workshop.firmware,
            lambda design, changes, counter: workshop.parameter_file(sheets[design], changes, counter),
        ),
        link.broker,
        links.Air(scenario.seed, link.latency_s, link.bandwidth_B_per_s, link.loss),
    )
    for release in dict.fromkeys(group.pack.bms.image for site in scenario.sites for group in site.racks):
        chain.stock(release)
    orders = [
        (
            order.at_s,
            order.target,
            order.image,
            {c.name: c.value for c in order.parameters},
            order.max_offline,
        )
        for order in plan.orders
    ]
    return UpdateDesk(
        chain=chain,
        orders=resolve(orders, shards),
        outages=[(to_us(outage.at_s), to_us(outage.until_s)) for outage in link.broker_outages],
        period_us=to_us(link.period_s),
        epoch_s=_epoch_s(scenario),
    )


def _ladder(rungs: Any) -> str:
    return ", ".join(dict.fromkeys(rungs))


class _Profiles:
    """Profiles of a scenario: read from data, or synthesised from a stream named after the site."""

    def __init__(self, scenario: Scenario, base_dir: Path, streams: Streams) -> None:
        self.scenario = scenario
        self.base_dir = base_dir
        self.streams = streams
        self.digests: dict[str, str] = {}

    def of(self, site: Site, name: str, spec: ProfileSpec, whole: bool = False) -> Profile:
        scenario = self.scenario
        if spec.synthetic is not None:
            stream = self.streams.generator(f"site/{site.name}/{name}")
            profile = synthesise(spec, stream, scenario.duration_s, scenario.start)
        else:
            profile = load_profile(spec, scenario.start, scenario.duration_s, self.base_dir, whole=whole)
        self.digests[f"{site.name}/{name}"] = profile.digest()
        return profile

    def optional(self, site: Site, name: str, spec: ProfileSpec | None) -> Profile | None:
        return None if spec is None else self.of(site, name, spec)

    def resolve(self, site: Site, number: int, strategy: Any) -> Any:
        """Strategy `number` of a site with its own profile fields read."""
        assert is_dataclass(strategy)
        found = {}
        for entry in fields(strategy):
            spec = getattr(strategy, entry.name)
            if isinstance(spec, ProfileSpec):
                name = f"dispatch-{number + 1}/{entry.name}"
                found[entry.name] = self.of(site, name, spec, whole=entry.metadata.get("whole", False))
        return replace(strategy, **found)  # type: ignore[type-var]


# ---- shards -------------------------------------------------------------------------------------


def _shard(
    kind: Kind,
    racks: list[RackPlace],
    scenario: Scenario,
    ambient_K: list[float],
    streams: Streams,
    workshop: Workshop,
) -> PackShard:
    sheet = catalogue.pack_sheets()[kind.design]
    n_cells = sheet.n_series * sheet.n_parallel
    paths: list[PackPath] = []
    capacity, resistance, soc, pace, start_K = [], [], [], [], []
    sensors = []
    for rack in racks:
        pack = rack.group.pack
        for k in range(rack.group.packs_per_rack):
            path = PackPath(scenario.sites[rack.site].name, rack.name, f"pack-{k + 1}")
            paths.append(path)
            draw = streams.generator(f"site/{path}/cells")
            spread = pack.spread
            capacity.append(_draw(draw, n_cells, 1.0, spread.capacity, sheet.capacity_spread))
            resistance.append(_draw(draw, n_cells, 1.0, spread.resistance, sheet.resistance_spread))
            cell_soc = _draw(draw, n_cells, pack.initial_soc, spread.soc, sheet.soc_spread)
            soc.append(np.clip(cell_soc, 0.0, 1.0))
            pace.append(
                _draw(streams.generator(f"site/{path}/ageing"), n_cells, 1.0, pack.ageing.spread, 0.0)
            )
            start_K.append(
                pack.initial_temperature_K if pack.initial_temperature_K is not None else ambient_K[rack.site]
            )
            sensors.append((str(path), pack.sensors))
    n_packs = len(paths)
    temperature_K = np.repeat(np.array(start_K), n_cells)
    bank = cells.RUNGS[kind.cell_model].build(
        kind.design,
        n_packs,
        np.concatenate(capacity),
        np.concatenate(resistance),
        np.concatenate(soc),
        temperature_K,
    )
    per_rack = np.array([rack.group.packs_per_rack for rack in racks])
    pack_start = np.concatenate([[0], np.cumsum(per_rack)]).astype(np.int64)
    plan = SensorPlan(
        cell=np.concatenate(
            [p * n_cells + (np.array(sheet.sensor_group) - 1) * sheet.n_parallel for p in range(n_packs)]
        ),
        pack_start=np.arange(n_packs + 1, dtype=np.int64) * len(sheet.sensor_group),
    )
    converters = [scenario.sites[rack.site].converter for rack in racks]
    rated_W = [
        converter.power_W if converter.power_W is not None else sheet.power_W * rack.group.packs_per_rack
        for converter, rack in zip(converters, racks, strict=True)
    ]
    return PackShard(
        paths=tuple(paths),
        design=kind.design,
        cells=bank,
        thermal=thermal.RUNGS[kind.thermal_model].build(
            kind.design, n_packs, temperature_K, np.array(start_K)
        ),
        sensors=SensorBank(bank.layout, plan, sensors, streams),
        bms=bms.RUNGS[kind.bms_model].build(
            sheet,
            n_packs,
            bms.Fitting(
                kind.bms_rate,
                kind.bms_image,
                tuple(f"ecu-{name}" for name in updates.device_names(map(str, paths)).values()),
                workshop,
                scenario.updates is not None,
            ),
        ),
        racks=RackPlan(
            pack_start=pack_start,
            site=np.array([rack.site for rack in racks], dtype=np.int64),
            converter_power_W=np.array(rated_W, dtype=float),
            converter_map=_converter_maps(converters),
        ),
        link=LinkVoltages(len(racks), sheet.precharge_time_constant_s),
        nominal_energy_J=np.full(n_packs, sheet.energy_J),
        cooling_works=np.ones(n_packs),
        short_ohm=np.full(n_packs * n_cells, np.inf),
        ageing=ageing.RUNGS[kind.ageing.model].build(
            kind.ageing, np.concatenate(pace), np.concatenate(soc), temperature_K
        ),
        abuse=propagation.RUNGS[kind.abuse.model].build(
            kind.design, n_packs, temperature_K, np.concatenate(capacity), kind.abuse
        ),
    )


def _ageing_plan(choice: AgeingChoice) -> AgeingPlan:
    return AgeingPlan(choice.model, choice.parameters, choice.knee_cycles, choice.stored_s)


def _converter_maps(converters: list[Converter]) -> FloatArray:
    """(n_racks, n_rows, 4) DC voltage and loss terms; short maps repeat their last row."""
    maps = []
    for c in converters:
        rows = c.map or (c,)
        maps.append(
            [
                [getattr(row, "voltage_V", 0.0), row.no_load_loss, row.proportional_loss, row.quadratic_loss]
                for row in rows
            ]
        )
    longest = max(map(len, maps))
    return np.array([rows + rows[-1:] * (longest - len(rows)) for rows in maps], dtype=float)


def _draw(
    stream: np.random.Generator, n: int, mean: float, sigma: float | None, default: float
) -> FloatArray:
    """Normal around `mean`, cut at 3.5 sigma: cells beyond that do not leave a factory."""
    z = np.clip(stream.normal(0.0, 1.0, n), -3.5, 3.5)
    return mean + (default if sigma is None else sigma) * z


# ---- sites --------------------------------------------------------------------------------------


def _site(
    number: int, site: Site, ambient: Profile, profiles: _Profiles, shards: tuple[PackShard, ...]
) -> SiteControl:
    slices = []
    for shard in shards:
        mine = np.flatnonzero(shard.racks.site == number)
        if mine.size:  # contiguous: shards are filled site by site
            first, last = int(mine[0]), int(mine[-1]) + 1
            packs = slice(int(shard.racks.pack_start[first]), int(shard.racks.pack_start[last]))
            slices.append(RackSlice(shard, slice(first, last), packs))
    price = profiles.optional(site, "price", site.price)
    facts = SiteFacts(
        power_W=float(sum(s.shard.racks.converter_power_W[s.racks].sum() for s in slices)),
        energy_J=float(sum(s.shard.nominal_energy_J[s.packs].sum() for s in slices)),
        duration_s=profiles.scenario.duration_s,
        price=price,
    )
    strategies: list[Strategy] = [profiles.resolve(site, k, s) for k, s in enumerate(site.dispatch)]
    return SiteControl(
        name=site.name,
        racks=tuple(slices),
        ambient=ambient,
        container=ContainerAir(site.container, ambient.at(0.0)) if site.container.count else None,
        load=profiles.optional(site, "load", site.load),
        pv=profiles.optional(site, "pv", site.pv),
        price=price,
        frequency=profiles.optional(site, "frequency", site.frequency),
        controllers=tuple((strategy.start(facts), strategy.reserve_W()) for strategy in strategies),
    )


# ---- targets and data sheets --------------------------------------------------------------------


def _target(fault: Fault, shards: tuple[PackShard, ...]) -> FaultTarget:
    """The arrays behind a path that the loader has found to exist."""
    site, *rest = fault.target.split("/")
    for shard in shards:
        packs = [
            p
            for p, path in enumerate(shard.paths)
            if path.site == site
            and (not rest or path.rack == rest[0])
            and (len(rest) < 2 or path.pack == rest[1])
        ]
        if packs:
            racks = shard.rack_of_pack[packs]
            cell = None
            if len(rest) == 3:
                cell = (
                    int(shard.cells.layout.pack_cell_start[packs[0]]) + int(rest[2].removeprefix("cell-")) - 1
                )
            return FaultTarget(
                path=fault.target,
                shard=shard,
                racks=range(int(racks[0]), int(racks[-1]) + 1),
                packs=range(packs[0], packs[-1] + 1),
                cell=cell,
            )
    raise KeyError(fault.target)


def _pack_info(path: PackPath, design: str, risk_table: str) -> PackInfo:
    sheet: PackSheet = catalogue.pack_sheets()[design]
    return PackInfo(
        site=path.site,
        rack=path.rack,
        pack=path.pack,
        design=design,
        n_series=sheet.n_series,
        n_parallel=sheet.n_parallel,
        n_sensors=len(sheet.sensor_group),
        capacity_Ah=sheet.capacity_Ah,
        voltage_min_V=sheet.voltage_min_V,
        voltage_max_V=sheet.voltage_max_V,
        temperature_min_K=sheet.temperature_min_K,
        temperature_max_K=sheet.temperature_max_K,
        current_charge_max_A=sheet.charge_limit_A,
        current_discharge_max_A=sheet.discharge_limit_A,
        balancing_resistance_ohm=sheet.balancing_resistance_ohm,
        sensor_group=sheet.sensor_group,
        ocv_soc=sheet.ocv_soc,
        ocv_V=sheet.ocv_V,
        risk_table="" if risk_table == "none" else risk_table,
    )


def _firmware(scenario: Scenario, workshop: Workshop) -> dict[str, str]:
    """Every release that may run, with what identifies it: telemetry leads to image and build."""
    used = {group.pack.bms.image for site in scenario.sites for group in site.racks}
    used |= {order.image for order in (scenario.updates.orders if scenario.updates else ()) if order.image}
    signed = scenario.updates is not None or any(
        group.pack.bms.model == "emulated" for site in scenario.sites for group in site.racks
    )
    return {
        release: workshop.identify(release) if signed else bms.host_build(release)
        for release in bms.images()
        if release in used
    }


def _code_names(shards: tuple[PackShard, ...], firmware: dict[str, str]) -> dict[str, dict[int, str]]:
    first = shards[0].bms
    return {
        "firmware": {code: f"{name}, {what}" for code, (name, what) in enumerate(firmware.items())},
        "bms_state": dict(enumerate(first.state_names)),
        "fault_mask": dict(enumerate(first.fault_names)),
        "contactors": {0: "main", 1: "precharge"},
    }


def vocabulary() -> dict[str, dict[str, str]]:
    """Every word a scenario may use, by kind, with its meaning."""

    def first_line(thing: object) -> str:
        return (thing.__doc__ or "").strip().splitlines()[0]

    return {
        "packs": {name: sheet.about for name, sheet in catalogue.pack_sheets().items()},
        "cell models": {name: rung.about for name, rung in cells.RUNGS.items()},
        "thermal models": {name: rung.about for name, rung in thermal.RUNGS.items()},
        "ageing models": {name: rung.about for name, rung in ageing.RUNGS.items()},
        "ageing parameters": ageing.parameter_sets(),
        "bms models": {name: rung.about for name, rung in bms.RUNGS.items()},
        "propagation models": {name: rung.about for name, rung in propagation.RUNGS.items()},
        "barriers": propagation.barriers(),
        "risk tables": {name: load_risk_table(name).about for name in risk_table_names()},
        "brokers": {name: rung.about for name, rung in links.RUNGS.items()},
        "strategies": {name: first_line(cls) for name, cls in STRATEGIES.items()},
        "faults": {name: first_line(cls) for name, cls in FAULTS.items()},
        "detectors": {name: first_line(cls) for name, cls in DETECTORS.items()},
        "profiles": profile_names(),
        "metrics": {name: f"{metric.meaning} ({metric.dimension})" for name, metric in REGISTRY.items()},
    }
