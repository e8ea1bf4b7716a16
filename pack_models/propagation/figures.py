"""PNG figures of a run: temperature maps at four times, cell traces, ignition times, energy split. Celsius
on plots.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .events import cell_states
from .fields import Field
from .run import Result

ZERO_C = 273.15


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _four(fields: tuple[Field, ...]) -> list[Field]:
    if len(fields) <= 4:
        return list(fields)
    return [fields[i] for i in np.linspace(0, len(fields) - 1, 4).round().astype(int)]


def temperature_maps(result: Result) -> Any:
    """Plan view at mid-height of the cells (a profile along x for a stack) at four times."""
    plt = _pyplot()
    fields, layout = _four(result.fields), result.case.layout
    assert layout is not None
    cells = [s for s in layout.solids if s.cell >= 0]
    if result.case.kind == "stack":
        figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
        for f in fields:
            middle = [p.size // 2 for p in f.positions]
            axis.plot(
                1e3 * f.positions[0],
                f.temperature_K[:, middle[1], middle[2]] - ZERO_C,
                label=f"{f.time_s:g} s",
            )
        for s in cells:
            axis.axvspan(1e3 * s.box[0], 1e3 * s.box[1], color="0.5", alpha=0.12, lw=0)
        axis.set(xlabel="x / mm (shaded: cells)", ylabel="temperature / °C", title=result.case.name)
        axis.legend()
        return figure
    height = float(np.mean([0.5 * (s.box[4] + s.box[5]) for s in cells[:1]]))
    low = min(float(f.temperature_K.min()) for f in fields) - ZERO_C
    high = max(float(f.temperature_K.max()) for f in fields) - ZERO_C
    (x0, x1), (y0, y1) = layout.bounds(0), layout.bounds(1)
    rows, columns = (1, 4) if y1 - y0 > 1.5 * (x1 - x0) else (4, 1) if x1 - x0 > 4.0 * (y1 - y0) else (2, 2)
    width = 10.0
    height_inch = min(12.0, max(3.0, 0.85 * width / columns * (y1 - y0) / (x1 - x0) * rows + 0.6))
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width, height_inch),
        layout="constrained",
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    picture = None
    for axis, f in zip(axes.flat, fields, strict=False):
        k = int(np.argmin(np.abs(f.positions[2] - height)))
        x, y = 1e3 * f.positions[0], 1e3 * f.positions[1]
        picture = axis.pcolormesh(
            x,
            y,
            f.temperature_K[:, :, k].T - ZERO_C,
            shading="gouraud"
            if result.model == "fem"
            else "nearest",  # volumes are constant, elements are not
            cmap="inferno",
            vmin=low,
            vmax=high,
            rasterized=True,
        )
        for s in cells:
            if s.box[4] <= height <= s.box[5]:
                axis.add_patch(
                    plt.Rectangle(
                        (1e3 * s.box[0], 1e3 * s.box[2]),
                        1e3 * s.size(0),
                        1e3 * s.size(1),
                        fill=False,
                        ec="w",
                        lw=0.6,
                    )
                )
        axis.set_title(f"{f.time_s:g} s")
        axis.set_aspect("equal")
    for axis in axes[-1]:
        axis.set_xlabel("x / mm")
    for axis in axes[:, 0]:
        axis.set_ylabel("y / mm")
    if picture is not None:
        figure.colorbar(picture, ax=axes, label=f"temperature at z = {1e3 * height:.0f} mm / °C", shrink=0.8)
    figure.suptitle(f"{result.case.name}, {result.model}, {result.facts['nodes']} nodes")
    return figure


def cell_traces(result: Result) -> Any:
    """Mean temperature and State of Safety of every cell."""
    plt = _pyplot()
    t, states = result.traces, cell_states(result.case, result.traces)
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 7), sharex=True, layout="constrained")
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.95, max(result.case.n_cells, 1)))
    for i in range(result.case.n_cells):
        top.plot(t.time_s, t.mean_K[:, i] - ZERO_C, color=colours[i], label=f"cell {i}")
        bottom.plot(t.time_s, states.state_of_safety[:, i], color=colours[i])
    top.axhline(result.case.limits.runaway_K - ZERO_C, color="0.4", ls=":", lw=1)
    top.set(ylabel="mean temperature / °C", title=f"{result.case.name}, {result.model} (dotted: runaway)")
    bottom.set(xlabel="time / s", ylabel="State of Safety (1 healthy, 0 imminent)")
    if result.case.n_cells <= 16:
        top.legend(ncols=2, fontsize=7)
    return figure


def ignition_map(result: Result) -> Any:
    """Time of runaway of every cell in its place."""
    plt = _pyplot()
    layout = result.case.layout
    assert layout is not None
    nx, ny, _ = layout.grid_arrangement if result.case.kind == "pack" else (result.case.n_cells, 1, 1)
    times = np.array([np.nan if c["runaway_s"] is None else c["runaway_s"] for c in result.summary["cells"]])[
        : nx * ny
    ].reshape(ny, nx)
    figure, axis = plt.subplots(figsize=(1.2 + 1.3 * nx, 1.6 + 1.1 * ny), layout="constrained")
    shown = axis.imshow(times, origin="lower", cmap="magma", aspect="auto")
    for (j, i), value in np.ndenumerate(times):
        text = f"cell {j * nx + i}\n" + ("not within\nthis run" if np.isnan(value) else f"{value:.0f} s")
        luminous = np.isfinite(value) and value > 0.6 * np.nanmax(times)
        axis.text(
            i,
            j,
            text,
            ha="center",
            va="center",
            color="k" if luminous or np.isnan(value) else "w",
            fontsize=9,
        )
    axis.set(
        xticks=range(nx),
        yticks=range(ny),
        xlabel="position along x",
        ylabel="row along y",
        title="time of runaway / s",
    )
    if np.isfinite(times).any():
        figure.colorbar(shown, ax=axis, label="s")
    return figure


def energy_split(result: Result) -> Any:
    """Where the heat came from and where it went."""
    plt = _pyplot()
    e = result.summary["energy_J"]
    short = _short_energy(result)
    sources = {"reactions": e["reactions"] - short, "internal short": short, "abuse": e["abuse"]}
    sinks = {"stored in solids": e["stored"]}
    for key, value in e.items():
        if key.startswith("boundary_"):
            sinks[f"out at {key.removeprefix('boundary_')}"] = value
    for key in ("convection", "radiation"):
        if e.get(key):
            sinks[key] = e[key]
    figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
    for row, parts in enumerate((sinks, sources)):
        left = 0.0
        for label, value in parts.items():
            if abs(value) < 1e-6 * max(abs(v) for v in sources.values()):
                continue
            axis.barh(row, 1e-6 * value, left=1e-6 * left, label=f"{label}: {1e-6 * value:.2f} MJ")
            left += value
    axis.set(
        yticks=[0, 1],
        yticklabels=["to", "from"],
        xlabel="energy / MJ",
        title=f"{result.case.name}: imbalance {e['imbalance']:.1e}",
    )
    figure.legend(fontsize=8, ncols=4, loc="outside lower center")
    return figure


def _short_energy(result: Result) -> float:
    """Heat of the internal shorts so far, J."""
    from .kinetics import pathways

    case, total = result.case, 0.0
    if case.layout is None:
        return 0.0
    for solid in case.layout.solids:
        if solid.cell < 0 or result.traces.extent.shape[0] == 0:
            continue
        use = case.sets[case.cell_set[solid.cell]]
        names = pathways(use).pathway
        if "short" in names and use.short is not None:
            index = names.index("short")
            volume = solid.size(0) * solid.size(1) * solid.size(2)
            total += (
                float(result.traces.extent[-1, solid.cell, index]) * use.short.energy_J_m3 * use.soc * volume
            )
    return total


def save_figures(folder: Path, result: Result) -> list[Path]:
    """Write the figures that apply; returns their paths."""
    plt = _pyplot()
    made: dict[str, Any] = {"cell_traces": cell_traces(result)}
    if result.fields and result.case.layout is not None:
        made["temperature_maps"] = temperature_maps(result)
    if result.case.layout is not None and result.case.n_cells > 1:
        made["ignition_times"] = ignition_map(result)
    if result.case.layout is not None:
        made["energy_split"] = energy_split(result)
    paths = []
    for name, figure in made.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=110)
        plt.close(figure)
        paths.append(path)
    return paths
