"""The twin of the packs of a rack, from the telemetry of a run: `twin fit`.

    result = fit_rack(RunFolder("runs/first"), "quarter/rack-1")
    write_fit(Path("fit"), result)

Reads `measured`, the meter's ambient and the data sheets, nothing else. Part of the telemetry at the end is
held back once, to say how well the twin predicts what it has not seen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from twin.adapters.ageing import parameter_sets
from twin.adapters.rack_twin import aged_curves, circuit_tables, law_for, loss_curve, supply_K
from twin.analytics.rack_twin import (
    AgedCurves,
    Life,
    NotInformative,
    RackTwin,
    Telemetry,
    group_temperature,
    identify,
    remaining_life,
)
from twin.analytics.soc import FilterModel
from twin.telemetry.frame import PackInfo
from twin.telemetry.reader import RunFolder

FloatArray = NDArray[np.float64]

HELD_BACK = 0.25
COLUMNS = ("t_us", "current_A", "group_voltage_V", "temperature_K", "balancing", "cooling")


class FitError(ValueError):
    """The request cannot be met; the message says what there is."""

    exit_code = 2


@dataclass(frozen=True, eq=False)
class PackFit:
    """One pack: its twin, the check on rows it had not seen, its life."""

    twin: RackTwin
    rows: Telemetry
    held_time_s: FloatArray
    held_seen_V: FloatArray  # (n,) mean group voltage
    held_said_V: FloatArray
    held_rmse_V: float  # over groups and rows
    law: str
    years: FloatArray
    loss: FloatArray
    life: Life


def fit_rack(run: RunFolder, rack: str, law: str | None = None, end: float = 0.8) -> list[PackFit]:
    """Twins of all packs below `site/rack` (or of one, `site/rack/pack`)."""
    infos = [info for info in run.packs if f"{info.path}/".startswith(f"{rack.rstrip('/')}/")]
    if not infos:
        there = sorted({f"{info.site}/{info.rack}" for info in run.packs})
        shown = ", ".join(there[:8]) + (" …" if len(there) > 8 else "")
        raise FitError(f"{run.path} has no rack {rack!r}; it has {shown}")
    if law is not None and law not in parameter_sets():
        raise FitError(f"no ageing law named {law!r}; expected one of {', '.join(parameter_sets())}")
    if not 0.3 <= end < 1.0:
        raise FitError(f"--end {end:g}: expected a capacity between 0.3 and 1")
    return [_fit_pack(run, info, law or law_for(info.design), end) for info in infos]


def telemetry(run: RunFolder, info: PackInfo) -> Telemetry:
    """The measured rows of a pack while its contactors were closed or not, with the ambient of its site."""
    found = run.series("measured", COLUMNS, info.site, info.rack, info.pack)
    meter = run.series("meter", ("t_us", "ambient_K"), info.site)
    time_s = found["t_us"] * 1e-6
    return Telemetry(
        time_s=time_s,
        current_A=np.asarray(found["current_A"], dtype=float),
        group_voltage_V=np.asarray(found["group_voltage_V"], dtype=float),
        temperature_K=np.asarray(found["temperature_K"], dtype=float),
        balancing=np.asarray(found["balancing"], dtype=bool),
        ambient_K=np.interp(time_s, meter["t_us"] * 1e-6, meter["ambient_K"]),
        cooling=np.asarray(found["cooling"], dtype=float),
        supply_K=supply_K(info.design),
    )


def _fit_pack(run: RunFolder, info: PackInfo, law: str, end: float) -> PackFit:
    model = FilterModel(**circuit_tables(info.design))
    curves = aged_curves(info.design)
    aged = AgedCurves(**curves) if curves is not None else None
    rows = telemetry(run, info)
    twin = identify(info, model, rows, aged=aged)
    cut = int(rows.time_s.size * (1.0 - HELD_BACK))
    held = rows.part(slice(cut, None))
    try:
        before = identify(info, model, rows.part(slice(0, cut)), with_heat=False, aged=aged)
    except NotInformative:  # what is left without the held rows is too little: nothing to check it with
        said = np.full(held.group_voltage_V.shape, np.nan)
    else:
        kelvin = group_temperature(info, held.temperature_K).mean(axis=1)
        dt_s = float(np.median(np.diff(held.time_s)))
        said, _ = before.voltage(before.state, held.current_A, kelvin, dt_s)
    kelvin = group_temperature(info, rows.temperature_K).mean(axis=1)
    years, loss = loss_curve(law, rows.time_s, twin.soc_track, kelvin)
    return PackFit(
        twin=twin,
        rows=rows,
        held_time_s=held.time_s,
        held_seen_V=np.nanmean(held.group_voltage_V, axis=1),
        held_said_V=said.mean(axis=1),
        held_rmse_V=float(np.sqrt(np.nanmean((said - held.group_voltage_V) ** 2))),
        law=law,
        years=years,
        loss=loss,
        life=remaining_life(twin.capacity_left, years, loss, np.random.default_rng(0), end),
    )


def summary(fit: PackFit) -> dict[str, Any]:
    """Plain numbers of a fit, each beside its sigma."""
    twin, heat = fit.twin, fit.twin.heat

    def pair(value: float, sigma: float) -> dict[str, float]:
        return {"value": float(f"{value:.6g}"), "sigma": float(f"{sigma:.3g}")}

    def groups(of: Any) -> dict[str, list[float]]:
        return {
            "value": [float(f"{v:.6g}") for v in of.value],
            "sigma": [float(f"{v:.3g}") for v in of.sigma],
        }

    def years(value: float) -> float | str:
        return float(f"{value:.3g}") if np.isfinite(value) else f"beyond {fit.years[-1]:g}"

    return {
        "pack": twin.info.path,
        "rows": int(fit.rows.time_s.size),
        "hours": float(f"{(fit.rows.time_s[-1] - fit.rows.time_s[0]) / 3600.0:.4g}"),
        "capacity_over_nominal": pair(*twin.capacity_left),
        "weakest_group": int(np.argmin(twin.capacity.value)) + 1,
        "resistance_over_nominal": pair(
            float(twin.resistance.value.mean()), float(np.median(twin.resistance.sigma))
        ),
        "cell_spread_capacity": pair(*twin.spread(twin.capacity)),
        "cell_spread_resistance": pair(*twin.spread(twin.resistance)),
        "soc_at_end": pair(float(twin.soc.value.mean()), float(np.median(twin.soc.sigma))),
        "groups": {
            "capacity": groups(twin.capacity),
            "resistance": groups(twin.resistance),
            "soc": groups(twin.soc),
        },
        "heat": None
        if heat is None
        else {
            "capacity_J_per_K": pair(heat.capacity_J_per_K, heat.capacity_sigma),
            "conductance_W_per_K": pair(heat.conductance_W_per_K, heat.conductance_sigma),
            "cooled_W_per_K_at_command": None
            if not np.isfinite(heat.cooled_at)
            else {
                "command": float(f"{heat.cooled_at:.3g}"),
                **pair(heat.cooled_W_per_K * heat.cooled_at, heat.cooled_sigma * heat.cooled_at),
            },
            "residual_K": float(f"{heat.residual_K:.3g}"),
        },
        "model_error_mV": float(f"{1e3 * twin.level_V:.3g}"),
        "held_back_voltage_rmse_mV": None
        if not np.isfinite(fit.held_rmse_V)
        else float(f"{1e3 * fit.held_rmse_V:.3g}"),
        "life": {
            "law": fit.law,
            "end_of_life_capacity": fit.life.end,
            "years_left_5_50_95_percent": [
                years(v) for v in (fit.life.low_a, fit.life.median_a, fit.life.high_a)
            ],
            "assumes": "the duty of these rows repeated; pace of the law uncertain by 30 % (declared)",
        },
    }


def one_line(fit: PackFit) -> str:
    """The gist of a fit."""
    known = summary(fit)
    capacity, resistance = known["capacity_over_nominal"], known["resistance_over_nominal"]
    return (
        f"{known['pack']}: capacity {capacity['value']:.4f} +- {capacity['sigma']:.4f}, "
        f"resistance {resistance['value']:.3f} +- {resistance['sigma']:.3f}, "
        f"life (5, 50, 95 %) {known['life']['years_left_5_50_95_percent']} a"
    )


def write_fit(out: Path, fits: list[PackFit]) -> list[Path]:
    """`<pack>.yaml` and `<pack>.png` for each fit in a folder; each appears complete or not at all."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as broken:
        raise FitError(f"{out}: cannot be made ({broken.strerror})") from None
    written = []
    for fit in fits:
        name = fit.twin.info.path.replace("/", "_")
        text = yaml.safe_dump(summary(fit), sort_keys=False, default_flow_style=None, width=120)
        unfinished = out / f"{name}.yaml.part"
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, out / f"{name}.yaml")
        picture = out / f"{name}.part.png"
        _picture(picture, fit)
        os.replace(picture, out / f"{name}.png")
        written += [out / f"{name}.yaml", out / f"{name}.png"]
    return written


def _picture(path: Path, fit: PackFit) -> None:
    """Capacity and resistance by group with 2 sigma, the held-back voltage, the loss ahead."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    (left, right), (below, life) = figure.subplots(2, 2)
    group = np.arange(1, fit.twin.info.n_series + 1)
    for axes, of, what in ((left, fit.twin.capacity, "capacity"), (right, fit.twin.resistance, "resistance")):
        axes.errorbar(group, of.value, 2.0 * of.sigma, fmt=".", capsize=2, lw=1)
        axes.set(xlabel="series group", ylabel=f"{what} over nominal (2 sigma)")
        axes.axhline(1.0, color="0.7", lw=0.8)
    hours = fit.held_time_s / 3600.0
    below.plot(hours, fit.held_seen_V, lw=1, label="measured")
    below.plot(
        hours,
        fit.held_said_V,
        lw=1,
        ls="--",
        label=f"predicted, {1e3 * fit.held_rmse_V:.1f} mV rms per group",
    )
    below.set(xlabel="hours", ylabel="mean group voltage in V, rows held back")
    below.legend()
    value, sigma = fit.twin.capacity_left
    loss_now = max(1.0 - value, 0.0)
    begun = float(np.interp(loss_now, fit.loss, fit.years))
    for pace, style in ((np.exp(-0.49), ":"), (1.0, "-"), (np.exp(0.49), ":")):
        start = float(np.interp(loss_now / pace, fit.loss, fit.years))
        ahead = fit.years[fit.years >= start]
        life.plot(ahead - start, 1.0 - pace * np.interp(ahead, fit.years, fit.loss), style, color="C0", lw=1)
    life.errorbar([0.0], [value], [2.0 * sigma], fmt="o", color="C1", capsize=3)
    life.axhline(fit.life.end, color="0.5", lw=0.8)
    life.set(xlabel="years ahead (pace 5, 50, 95 %)", ylabel="capacity over nominal", xlim=(0, 20))
    life.set_ylim(fit.life.end - 0.1, None)
    figure.suptitle(
        f"{fit.twin.info.path}: twin from {fit.rows.time_s.size} rows; life law {fit.law}, {begun:.1f} a in"
    )
    figure.savefig(path, dpi=110)
