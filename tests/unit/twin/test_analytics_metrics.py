"""Metrics of a run whose numbers can be done in the head, and verdicts on claims."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from tests.unit.twin import fake_run
from twin.analytics.metrics import METRICS, REGISTRY, judge, run_metrics, summary
from twin.telemetry.manifest import Manifest
from twin.telemetry.reader import RunFolder
from twin.telemetry.sink import RunWriter


@dataclass(frozen=True)
class Claim:
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    equals: float | None = None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """One pack, four hours: two of charge at 1 kW AC, two of discharge where 1 kW is asked and 0.9 given."""
    info = fake_run.pack_info(n_series=4)
    with RunWriter(tmp_path_factory.mktemp("runs") / "x", packs=[info]) as writer:
        for hour in range(5):
            t_us = hour * 3_600_000_000
            charging = hour <= 2
            served = -1000.0 if charging else 900.0
            writer.meter.append_block(
                t_us,
                None,
                {
                    "power_requested_W": -1000.0 if charging else 1000.0,
                    "power_served_W": served,
                    "power_dc_W": served * (0.95 if charging else 1 / 0.9),
                    "converter_loss_W": 50.0 if charging else 100.0,
                    "load_W": 500.0,
                    "pv_W": 2000.0 if charging else 0.0,
                    "grid_import_W": 500.0 - (2000.0 if charging else 0.0) - served,
                    "price_per_J": 0.36 / 3.6e6,
                    "ambient_K": 298.0,
                },
            )
            writer.measured.append_block(
                t_us,
                None,
                {
                    "current_A": -5.0 if charging else 5.0,
                    "pack_voltage_V": 14.8,
                    "group_voltage_V": np.full(4, 3.7),
                    "temperature_K": np.full(1, 298.15),
                    "soc_bms": 0.5 + 0.1 * hour,
                    "current_limit_charge_A": 1.0,
                    "current_limit_discharge_A": 1.0,
                    "bms_state": 3,
                    "level": 0,
                    "fault_mask": 0,
                    "contactors": 1,
                    "power_W": 0.0,
                },
            )
            writer.truth.append_block(
                t_us,
                None,
                {
                    "soc_mean": 0.5 + 0.09 * hour,
                    "soc_min": 0.4,
                    "soc_max": 0.9 + 0.01 * hour,
                    "soc": np.full(4, 0.5),
                    "temperature_mean_K": 298.0,
                    "temperature_min_K": 297.0,
                    "temperature_max_K": 300.0 + hour,
                    "voltage_min_V": 3.6,
                    "voltage_max_V": 3.8,
                    "current_A": 0.0,
                    "heat_W": 0.0,
                    "short_current_A": 0.0,
                    "weakest_cell": 1,
                    "hottest_cell": 1,
                },
            )
        for kind in ("trip", "limit"):
            writer.event(t_us=5, source="bms", kind=kind, severity="alarm", text="", site="depot")
        return writer.complete(Manifest(scenario="x"))


def test_numbers_done_in_the_head(run: RunFolder) -> None:
    balances = {
        "all": {"energy_chemical_J": -0.1 * 3.6e6, "energy_residual": -2e-12, "charge_residual": 1e-13},
        "depot": {"energy_residual": 5e-12},
    }
    found = run_metrics(run, balances)
    kWh = 3.6e6
    wanted = {
        "energy_requested": 4.0 * kWh,
        "energy_served": 3.8 * kWh,
        "energy_not_served": 0.2 * kWh,
        "power_served_fraction": 0.95,
        "energy_charged": 2.0 * kWh,
        "energy_discharged": 1.8 * kWh,
        "round_trip_efficiency": 1.8 / 1.9,
        "converter_efficiency": 1.0 - 0.3 / 3.9,
        "energy_imported": 0.0,
        "energy_exported": (2 * 0.5 + 2 * 0.4) * kWh,
        "peak_import": 0.0,
        "peak_export": 500.0,
        "self_consumption": 1.0 - 1.8 / 4.0,
        "self_sufficiency": 1.0,
        "cost": -1.8 * 0.36,
        "soc_min": 0.4,
        "soc_max": 0.94,
        "cell_temperature_min": 297.0,
        "cell_temperature_max": 304.0,
        "cell_voltage_min": 3.6,
        "cell_voltage_max": 3.8,
        "soc_error_max": 0.04,
        "trips": 1.0,
        "full_cycles_equivalent": 0.5,
        "energy_balance_error": 5e-12,
        "charge_balance_error": 1e-13,
    }
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_every_metric_is_described(run: RunFolder) -> None:
    for name, metric in REGISTRY.items():
        assert METRICS[name] == metric.dimension
        assert len(metric.meaning.split()) >= 2
    written = summary(run_metrics(run, {}))
    assert all(entry["dimension"] == METRICS[name] for name, entry in written.items())
    assert math.isnan(written["energy_balance_error"]["value"])


def test_verdicts() -> None:
    metrics = {"soc_min": 0.2, "trips": 0.0, "detection_delay": math.nan}
    verdicts = judge(
        [
            Claim("soc_min", at_least=0.1, at_most=0.19),
            Claim("trips", equals=0.0),
            Claim("detection_delay", at_most=1e9),
            Claim("cost", at_least=0.0),
        ],
        metrics,
    )
    assert [(v.metric, v.relation, v.met) for v in verdicts] == [
        ("soc_min", "at_least", True),
        ("soc_min", "at_most", False),
        ("trips", "equals", True),
        ("detection_delay", "at_most", False),  # a number that does not exist meets nothing
        ("cost", "at_least", False),
    ]
    assert verdicts[2].dimension == "count"
