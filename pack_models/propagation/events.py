"""From traces of cells to events and verdicts: runaway, the GB 38031-2025 rule, venting, spread, 90 s and
300 s.

Nothing here solves anything; it reads time, mean and maximum temperature and extents of every cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .case import Case
from .kinetics import Pathways, pathways

GAS_CONSTANT = 8.314462618
ATMOSPHERE_PA = 1.013e5
# Share of a cell's electric energy set free inside from which on its voltage counts as collapsed.
SHORTED = 0.01


@dataclass(frozen=True)
class Traces:
    """What a run recorded.

    Parameters
    ----------
    time_s : (n,); mean_K, max_K : (n, n_cells); extent : (n, n_cells, reactions)
    """

    time_s: np.ndarray
    mean_K: np.ndarray
    max_K: np.ndarray
    extent: np.ndarray


@dataclass(frozen=True)
class CellStates:
    """Traces translated: conversion by pathway, State of Safety, gas and pressure, voltage fraction; all
    (n, n_cells).
    """

    conversion: dict[str, np.ndarray]
    state_of_safety: np.ndarray
    gas_mol_per_m3: np.ndarray
    pressure_Pa: np.ndarray
    voltage_fraction: np.ndarray


def first_crossing(time_s: np.ndarray, values: np.ndarray, level: float) -> float | None:
    """First time a trace reaches a level, interpolated; None when never."""
    above = values >= level
    if not above.any():
        return None
    i = int(np.argmax(above))
    if i == 0:
        return float(time_s[0])
    a, b = values[i - 1], values[i]
    return float(time_s[i - 1] + (level - a) / (b - a) * (time_s[i] - time_s[i - 1]))


def cell_states(case: Case, traces: Traces) -> CellStates:
    """Conversions, State of Safety, gas, pressure and voltage of every cell."""
    n, m = traces.mean_K.shape
    names = sorted({p for u in case.sets for p in pathways(u).pathway})
    conversion = {name: np.full((n, m), np.nan) for name in names}
    sos, gas, pressure, voltage = (np.ones((n, m)) for _ in range(4))
    table: list[Pathways] = [pathways(u) for u in case.sets]
    for i in range(m):
        use, paths = case.sets[case.cell_set[i]], table[case.cell_set[i]]
        k = use.kinetics
        alpha = paths.conversion(traces.extent[:, i, : len(paths.reaction)])
        for name, values in paths.by_pathway(alpha).items():
            conversion[name][:, i] = values
        sos[:, i] = (
            paths.state_of_safety(alpha, traces.mean_K[:, i], k.safety) if len(paths.reaction) else 1.0
        )
        share = sum(
            (k.gas.shares.get(name, 0.0) * values for name, values in paths.by_pathway(alpha).items()),
            np.zeros(n),
        )
        gas[:, i] = k.gas.mol_per_m3 * share
        # Dry head space at the cell's mean temperature; electrolyte vapour is part of the declared gas
        # amount.
        air = ATMOSPHERE_PA * traces.mean_K[:, i] / case.initial_K
        pressure[:, i] = air + gas[:, i] * GAS_CONSTANT * traces.mean_K[:, i] / k.gas.headspace_fraction
        short = conversion.get("short")
        if short is not None and np.isfinite(short[:, i]).any():
            collapsed = np.nan_to_num(short[:, i]) > SHORTED
        else:
            collapsed = traces.max_K[:, i] >= k.safety.separator_collapse_K
        # A hot spot that has lost its separator shorts all layers in parallel: the whole cell's voltage goes.
        voltage[:, i] = np.where(np.maximum.accumulate(collapsed), 0.0, 1.0) if len(paths.reaction) else 1.0
        for t in case.triggers:
            if t.electric and t.cell == i and t.energy_J is not None:
                terminal = max(0.0, 1.0 - t.power_W * case.limits.internal_ohm / case.limits.voltage_V**2)
                on = (traces.time_s >= t.from_s) & (traces.time_s <= t.from_s + t.energy_J / t.power_W)
                empty = traces.time_s > t.from_s + t.energy_J / t.power_W
                voltage[:, i] = np.where(
                    empty, 0.0, np.where(on, np.minimum(voltage[:, i], terminal), voltage[:, i])
                )
    return CellStates(conversion, sos, gas, pressure, voltage)


def gb_flag_s(case: Case, time_s: np.ndarray, mean_K: np.ndarray, voltage: np.ndarray) -> float | None:
    """GB 38031-2025 C.5.3.7: (voltage drop > 25 % or T >= maker's maximum) and dT/dt >= 1 K/s for more than
    3 s.
    """
    if time_s[-1] - time_s[0] < 4.0:
        return None
    even = np.arange(time_s[0], time_s[-1], 0.25)
    temperature = np.interp(even, time_s, mean_K)
    fast = np.gradient(temperature, 0.25) >= 1.0
    run = 0
    for i, is_fast in enumerate(fast):
        run = run + 1 if is_fast else 0
        if run * 0.25 > 3.0:
            drop = np.interp(even[i], time_s, voltage) < 0.75
            if drop or temperature[i] >= case.limits.operating_max_K:
                return float(even[i])
    return None


def summarise(case: Case, traces: Traces, energy: dict[str, float]) -> dict[str, Any]:
    """Events of every cell, order, intervals, verdicts and energy split; None stands for never."""
    states = cell_states(case, traces)
    cells: list[dict[str, Any]] = []
    for i in range(case.n_cells):
        mean, peak = traces.mean_K[:, i], traces.max_K[:, i]
        gas = case.sets[case.cell_set[i]].kinetics.gas
        vent = (
            first_crossing(traces.time_s, states.pressure_Pa[:, i], gas.vent_opens_Pa)
            if gas.mol_per_m3 > 0
            else None
        )
        cells.append(
            {
                "cell": i,
                "runaway_s": first_crossing(traces.time_s, mean, case.limits.runaway_K),
                "gb_38031_s": gb_flag_s(case, traces.time_s, mean, states.voltage_fraction[:, i]),
                "vent_s": vent,
                "vent_mean_K": None if vent is None else float(np.interp(vent, traces.time_s, mean)),
                "voltage_collapse_s": first_crossing(traces.time_s, -states.voltage_fraction[:, i], -0.75),
                "peak_mean_K": float(mean.max()),
                "peak_K": float(peak.max()),
                "state_of_safety_min": float(states.state_of_safety[:, i].min()),
                "conversion": {
                    k: float(v[-1, i]) for k, v in states.conversion.items() if np.isfinite(v[-1, i])
                },
            }
        )
    burnt = sorted(
        (c for c in cells if c["runaway_s"] is not None), key=lambda c: (c["runaway_s"], c["cell"])
    )
    times = [c["runaway_s"] for c in burnt]
    flags = [c["gb_38031_s"] for c in cells if c["gb_38031_s"] is not None]
    first_flag = min(flags) if flags else None
    triggered = {t.cell for t in case.triggers if t.cell >= 0}
    spread = [c for c in burnt if c["cell"] not in triggered] if triggered else burnt[1:]
    next_s = spread[0]["runaway_s"] if spread else None
    gap = None if next_s is None or not times else next_s - times[0]
    whole = times[-1] - times[0] if len(burnt) == case.n_cells and len(times) > 1 else None
    end = float(traces.time_s[-1])

    def within(limit: float) -> bool:
        return gap is not None and gap < limit

    return {
        "cells": cells,
        "order": [c["cell"] for c in burnt],
        "intervals_s": [b - a for a, b in pairwise(times)],
        "first_interval_s": gap,
        "whole_pack_s": whole,
        "trigger_to_flag_s": first_flag,
        "flag_to_next_cell_s": None if next_s is None or first_flag is None else next_s - first_flag,
        "verdicts": {
            "contained": not spread,
            "contained_wording": f"{'not ' if spread else ''}contained within {end:g} s in this model",
            "next_cell_within_90_s": within(90.0),
            "next_cell_within_300_s": within(300.0),
            "cells_burnt": len(burnt),
        },
        "energy_J": energy,
    }
