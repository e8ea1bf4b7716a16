"""The numbers of a run that a scenario can `expect:`, each with its dimension and meaning.

Energy and power of a site are AC, from its meters; what the cells went through is from `truth`. A metric
whose input the run does not have is NaN, and an expectation of it is not met.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from twin.analytics.abuse import abuse_metrics
from twin.telemetry.manifest import Expectation
from twin.telemetry.reader import RunFolder


@dataclass(frozen=True)
class Metric:
    """A name that a scenario may use."""

    dimension: str
    meaning: str


REGISTRY: dict[str, Metric] = {
    "energy_requested": Metric("energy", "AC energy asked of the batteries, both directions"),
    "energy_served": Metric("energy", "part of it that was delivered"),
    "energy_not_served": Metric("energy", "part of it that was not"),
    "power_served_fraction": Metric("fraction", "energy served of energy requested"),
    "energy_charged": Metric("energy", "AC energy into the batteries"),
    "energy_discharged": Metric("energy", "AC energy out of the batteries"),
    "round_trip_efficiency": Metric(
        "fraction",
        "AC energy out per AC energy in, corrected for the change of the energy stored in the cells",
    ),
    "converter_efficiency": Metric("fraction", "1 - converter losses per DC throughput"),
    "soc_min": Metric("fraction", "lowest state of charge of any cell"),
    "soc_max": Metric("fraction", "highest state of charge of any cell"),
    "cell_temperature_min": Metric("temperature", "coldest cell"),
    "cell_temperature_max": Metric("temperature", "hottest cell"),
    "cell_voltage_min": Metric("voltage", "lowest series-group voltage"),
    "cell_voltage_max": Metric("voltage", "highest series-group voltage"),
    "soc_error_max": Metric(
        "fraction", "largest difference between the BMS's estimate and the mean of the cells"
    ),
    "trips": Metric("count", "contactors opened by a protection"),
    "full_cycles_equivalent": Metric(
        "cycles", "charge throughput of the busiest pack over twice its capacity"
    ),
    "energy_imported": Metric("energy", "from the grid"),
    "energy_exported": Metric("energy", "to the grid"),
    "peak_import": Metric("power", "highest mean power from the grid in one telemetry period"),
    "peak_export": Metric("power", "highest mean power to the grid in one telemetry period"),
    "self_consumption": Metric("fraction", "share of the PV energy that was not exported"),
    "self_sufficiency": Metric("fraction", "share of the consumption that was not imported"),
    "cost": Metric("money", "imported minus exported energy at the price of its time"),
    "energy_balance_error": Metric("fraction", "largest relative residual of the energy ledgers"),
    "charge_balance_error": Metric("fraction", "largest relative residual of the charge ledgers"),
    "packs_run_away": Metric("count", "packs in which a cell ran away"),
    "packs_contained": Metric("count", "of these, packs in which no other cell did until the end"),
    "cells_run_away": Metric("count", "cells that ran away"),
    "next_cell_time_min": Metric("time", "shortest time from a pack's first runaway to its second"),
    "packs_spread_within_90_s": Metric("count", "packs in which that took less than 90 s"),
    "packs_spread_within_300_s": Metric("count", "packs in which that took less than 300 s"),
    "warning_before_runaway": Metric(
        "time", "shortest time from the BMS's own runaway warning (L1) to the first runaway of its pack"
    ),
    "trip_before_runaway": Metric(
        "time", "shortest time from opening the contactors to the first runaway of the pack"
    ),
    "risk_brier": Metric(
        "fraction", "Brier score of the forecasts which groups follow the first; 0 is perfect"
    ),
    "risk_brier_neighbours": Metric("fraction", "the same of the rule that the direct neighbours follow"),
    "risk_time_error": Metric("fraction", "median relative error of the forecast times to the next groups"),
    "risk_in_band": Metric("fraction", "share of these times inside the forecast 5 to 95 % band"),
    "risk_lead_min": Metric(
        "time", "shortest time from the first forecast about a pack to its first runaway"
    ),
    "updates_ordered": Metric("count", "updates ordered, one for each pack and order"),
    "updates_succeeded": Metric("count", "updates whose pack runs, by digest, what was ordered"),
    "updates_failed": Metric("count", "updates that were refused, cancelled, rolled back or given up"),
    "update_time_max": Metric("time", "longest time from an order to its confirmed end"),
    "update_bytes_fraction": Metric(
        "fraction", "bytes received by the gateways per byte of the full images that were ordered"
    ),
    "firmware_rt_load_max": Metric(
        "fraction", "largest share of an emulated controller's time that its real-time task takes"
    ),
    "firmware_rt_time_max": Metric(
        "time", "longest run of the real-time task on an emulated controller: found, decided and written out"
    ),
    "l1_latency_max": Metric(
        "time",
        "from the start of the tick in which an emulated controller finds a runaway to its contactor outputs",
    ),
    "firmware_overruns": Metric("count", "late ticks of all emulated controllers"),
    "alerts": Metric("count", "alerts of the scenario's detectors"),
    "detected_faults": Metric("count", "faults that a detector found"),
    "missed_faults": Metric("count", "faults that no detector found, the undetectable included"),
    "detection_delay": Metric("time", "longest time from a fault to its first alert, over the faults found"),
    "warning_before_venting": Metric(
        "time", "shortest time from the first alert to venting or thermal runaway"
    ),
    "false_alarms": Metric("count", "alerts without a fault behind them"),
    "false_alarms_per_pack_year": Metric("count", "false alarms per year of one healthy pack"),
}

METRICS: dict[str, str] = {name: metric.dimension for name, metric in REGISTRY.items()}


CLOCK_Hz = 50e6  # of the emulated controllers


def firmware_metrics(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """From what emulated controllers measured about themselves (`Manifest.firmware`)."""
    rows = [row for row in figures.values() if "rt_cycles_max" in row]
    if not rows:
        return {}
    latency = [row["l1_cycles_max"] for row in rows if "l1_cycles_max" in row]
    return {
        "firmware_rt_load_max": max(row["rt_load_max"] for row in rows),
        "firmware_rt_time_max": max(row["rt_cycles_max"] for row in rows) / CLOCK_Hz,
        "l1_latency_max": max(latency) / CLOCK_Hz if latency else math.nan,
        "firmware_overruns": sum(row["overruns"] for row in rows),
    }


def run_metrics(run: RunFolder, balances: dict[str, dict[str, float]]) -> dict[str, float]:
    """Metrics of the plant, SI. `balances` as in `Manifest.balances`."""
    return {
        **_site_metrics(run, balances),
        **_cell_metrics(run),
        **_update_metrics(run),
        **abuse_metrics(run),
        "energy_balance_error": _residual(balances, "energy"),
        "charge_balance_error": _residual(balances, "charge"),
    }


def _site_metrics(run: RunFolder, balances: dict[str, dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    peaks: dict[str, float] = {}

    def add(name: str, joules: Any) -> None:
        total[name] = total.get(name, 0.0) + float(np.sum(joules))

    for site in dict.fromkeys(info.site for info in run.packs):
        meter = run.series(
            "meter",
            [
                "t_us",
                "power_requested_W",
                "power_served_W",
                "power_dc_W",
                "converter_loss_W",
                "load_W",
                "pv_W",
                "grid_import_W",
                "price_per_J",
            ],
            site,
        )
        dt_s = np.diff(meter["t_us"], prepend=0) * 1e-6  # rows are means over the period that ends there
        asked, served = meter["power_requested_W"], meter["power_served_W"]
        add("requested", np.abs(asked) * dt_s)
        add("served", np.clip(served * np.sign(asked), 0.0, np.abs(asked)) * dt_s)
        add("discharged", np.clip(served, 0.0, None) * dt_s)
        add("charged", np.clip(-served, 0.0, None) * dt_s)
        add("loss", meter["converter_loss_W"] * dt_s)
        add("throughput", np.abs(meter["power_dc_W"]) * dt_s)
        drawn = meter["grid_import_W"]
        add("imported", np.clip(drawn, 0.0, None) * dt_s)
        add("exported", np.clip(-drawn, 0.0, None) * dt_s)
        add("pv", meter["pv_W"] * dt_s)
        add("load", meter["load_W"] * dt_s)
        add("cost", drawn * meter["price_per_J"] * dt_s)
        seen = drawn[dt_s > 0]
        if seen.size and np.isfinite(seen).all():
            peaks["import"] = max(peaks.get("import", -math.inf), float(seen.max()))
            peaks["export"] = max(peaks.get("export", -math.inf), float(-seen.min()))

    taken = _over(balances).get("energy_chemical_J", math.nan)  # decrease of what the cells hold
    into = total.get("charged", 0.0) + taken
    return {
        "energy_requested": total.get("requested", math.nan),
        "energy_served": total.get("served", math.nan),
        "energy_not_served": total.get("requested", math.nan) - total.get("served", math.nan),
        "power_served_fraction": _ratio(total.get("served"), total.get("requested")),
        "energy_charged": total.get("charged", math.nan),
        "energy_discharged": total.get("discharged", math.nan),
        "round_trip_efficiency": _ratio(total.get("discharged"), into),
        "converter_efficiency": 1.0 - _ratio(total.get("loss"), total.get("throughput")),
        "energy_imported": total.get("imported", math.nan),
        "energy_exported": total.get("exported", math.nan),
        "peak_import": max(peaks["import"], 0.0) if peaks else math.nan,
        "peak_export": max(peaks["export"], 0.0) if peaks else math.nan,
        "self_consumption": 1.0 - _ratio(total.get("exported"), total.get("pv")),
        "self_sufficiency": 1.0 - _ratio(total.get("imported"), total.get("load")),
        "cost": total.get("cost", math.nan),
    }


def _update_metrics(run: RunFolder) -> dict[str, float]:
    """From the event table; nothing when no update was ordered."""
    events = run.events()
    rows = events[events["source"] == "update"].to_dict("records")
    ordered: dict[str, float] = {}
    asked = received = full = longest = 0.0
    ends = {"update_success": 0, "update_failed": 0, "update_refused": 0, "update_cancelled": 0}
    for row in rows:
        path, kind = f"{row['site']}/{row['rack']}/{row['pack']}", str(row["kind"])
        if kind == "update_ordered":
            asked += 1
            full += float(row["value"])
            ordered[path] = row["t_us"] * 1e-6
        elif kind in ends and path in ordered:
            ends[kind] += 1
            received += float(row["value"])
            longest = max(longest, row["t_us"] * 1e-6 - ordered[path])
    if not asked:
        return {}
    good = ends["update_success"]
    return {
        "updates_ordered": asked,
        "updates_succeeded": float(good),
        "updates_failed": float(sum(ends.values()) - good),
        "update_time_max": longest if good == asked else math.nan,
        "update_bytes_fraction": received / full if full else math.nan,
    }


def _cell_metrics(run: RunFolder) -> dict[str, float]:
    truth = run.truth(
        [
            "t_us",
            "site",
            "rack",
            "pack",
            "soc_min",
            "soc_max",
            "soc_mean",
            "temperature_min_K",
            "temperature_max_K",
            "voltage_min_V",
            "voltage_max_V",
        ]
    )
    measured = run.measured(["t_us", "site", "rack", "pack", "current_A", "soc_bms"])
    place = ["site", "rack", "pack"]
    capacity = {(p.site, p.rack, p.pack): p.capacity_Ah for p in run.packs}
    cycles = math.nan
    for key, rows in measured.groupby(place, observed=True):
        t_s = rows["t_us"].to_numpy() * 1e-6
        current = np.abs(rows["current_A"].to_numpy(dtype=float))
        known = np.isfinite(current)
        throughput_Ah = float(np.trapezoid(current[known], t_s[known])) / 3600.0
        site, rack, pack = map(str, key if isinstance(key, tuple) else (key, "", ""))
        cycles = np.nanmax([cycles, throughput_Ah / (2.0 * capacity[site, rack, pack])])
    for table in (truth, measured):
        for name in place:
            table[name] = table[name].astype(str)
    both = truth.merge(measured, on=["t_us", *place])
    events = run.events()
    return {
        "soc_min": _extreme(truth["soc_min"], "min"),
        "soc_max": _extreme(truth["soc_max"], "max"),
        "cell_temperature_min": _extreme(truth["temperature_min_K"], "min"),
        "cell_temperature_max": _extreme(truth["temperature_max_K"], "max"),
        "cell_voltage_min": _extreme(truth["voltage_min_V"], "min"),
        "cell_voltage_max": _extreme(truth["voltage_max_V"], "max"),
        "soc_error_max": _extreme((both["soc_bms"] - both["soc_mean"]).abs(), "max"),
        "trips": float(((events["source"] == "bms") & (events["kind"] == "trip")).sum()),
        "full_cycles_equivalent": float(cycles),
    }


def _extreme(values: pd.Series, which: str) -> float:
    return float(getattr(values.astype(float), which)()) if len(values) else math.nan


def _ratio(part: float | None, whole: float | None) -> float:
    if part is None or whole is None or not whole > 0.0:
        return math.nan
    return part / whole


def _over(balances: dict[str, dict[str, float]]) -> dict[str, float]:
    """The ledger of everything: the scope 'all', or the sum over the scopes."""
    if "all" in balances:
        return balances["all"]
    names = dict.fromkeys(name for scope in balances.values() for name in scope)
    return {name: sum(scope.get(name, 0.0) for scope in balances.values()) for name in names}


def _residual(balances: dict[str, dict[str, float]], what: str) -> float:
    """Largest relative residual over the scopes (`energy_residual`, `charge_residual`)."""
    found = [abs(scope[f"{what}_residual"]) for scope in balances.values() if f"{what}_residual" in scope]
    return max(found, default=math.nan)


class Claim(Protocol):
    """An expectation of a scenario (`twin.scenario.schema.Expectation`)."""

    @property
    def metric(self) -> str: ...
    @property
    def at_least(self) -> float | None: ...
    @property
    def at_most(self) -> float | None: ...
    @property
    def equals(self) -> float | None: ...


def judge(claims: Iterable[Claim], metrics: dict[str, float]) -> list[Expectation]:
    """What became of the scenario's claims; a metric the run does not have meets none."""
    verdicts = []
    for claim in claims:
        value = metrics.get(claim.metric, math.nan)
        for relation, wanted in (
            ("at_least", claim.at_least),
            ("at_most", claim.at_most),
            ("equals", claim.equals),
        ):
            if wanted is None:
                continue
            met = {
                "at_least": value >= wanted,
                "at_most": value <= wanted,
                "equals": math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-12),
            }[relation]
            verdicts.append(
                Expectation(
                    metric=claim.metric,
                    relation=relation,
                    wanted=wanted,
                    value=value,
                    dimension=METRICS[claim.metric],
                    met=bool(met),
                )
            )
    return verdicts


def summary(metrics: dict[str, float]) -> dict[str, dict[str, Any]]:
    """For the manifest: each metric with its dimension, in the order of the registry."""
    return {
        name: {"value": metrics[name], "dimension": metric.dimension}
        for name, metric in REGISTRY.items()
        if name in metrics
    }
