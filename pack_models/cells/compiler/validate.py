"""Compiled models against PyBaMM's own solver: IDAKLU, relative tolerance 1e-6, step by step.

    python -m pack_models.cells.compiler.validate --out results/compiled_cells

Both see the same current, held over each step. Profiles: the WLTC of emobpy and (with the shared data) US06
of PyBaMM as a cell current with 2C peaks at 1 s, and a noisy day at 60 s between -1C and 1C.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pack_models.cells.compiler.compiled import CompiledModel, compiled
from pack_models.cells.compiler.engine import CompiledCells
from pack_models.cells.compiler.source import (
    AMBIENT,
    CURRENT,
    INITIAL_CONCENTRATION,
    INITIAL_TEMPERATURE,
    TEMPERATURE,
    VOLTAGE,
    ModelError,
    Source,
    bpx_file,
    parameter_set,
)
from pack_models.cells.pybamm_engine import HIGHEST_CUT_OFF_V, LOWEST_CUT_OFF_V, load_pybamm

FloatArray = NDArray[np.float64]

SETS = (
    "Chen2020", "Marquis2019", "OKane2022", "Prada2013", "Mohtat2020", "Ai2020", "Ecker2015", "ORegan2022",
    "NCA_Kim2011", "Ramadass2004",
)  # fmt: skip
BPX = "nmc_pouch_cell_BPX.json"
START_SOC = 0.65
# The graphite of this set diffuses so slowly when full that its surface saturates at 1C, in PyBaMM too.
GENTLER = {"ORegan2022": 0.5}
DRIVE_PEAK_C = 2.0


@dataclass(frozen=True, eq=False)
class Profile:
    """C-rates, positive on discharge, each held for `dt_s`."""

    name: str
    dt_s: float
    c_rate: FloatArray


def data_folder() -> Path:
    """The shared measured data, which is not part of the repository."""
    return Path(os.environ.get("TWIN_DATA", Path(__file__).resolve().parents[3] / "../shared/data"))


def wltc() -> Profile:
    """Battery power of a compact car over the WLTC, as a C-rate with DRIVE_PEAK_C at most.

    1600 kg, 0.7 m2 of drag area, rolling resistance 0.01, 60 % of braking recovered.
    """
    files = importlib.metadata.files("emobpy") or []
    table = next(file for file in files if file.name == "driving_cycles.csv").locate()
    header = Path(str(table)).read_text(encoding="utf-8").splitlines()[0].split(",")
    km_per_h = np.genfromtxt(str(table), delimiter=",", skip_header=1)[:, header.index("WLTC_3b_full")]
    speed = km_per_h[np.isfinite(km_per_h)] / 3.6
    mean = 0.5 * (speed[1:] + speed[:-1])
    force = 1600.0 * np.diff(speed) + 0.5 * 1.2 * 0.7 * mean**2 + 0.01 * 1600.0 * 9.81 * (mean > 0.0)
    power = force * mean
    power = np.where(power > 0.0, power, 0.6 * power)
    return Profile("WLTC", 1.0, DRIVE_PEAK_C * power / np.abs(power).max())


def us06() -> Profile | None:
    """PyBaMM's US06 cell current with DRIVE_PEAK_C at most; None without the shared data."""
    path = data_folder() / "drive" / "drive_cycles_cell_current.csv"
    if not path.exists():
        return None
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    amps = np.array([float(row[2]) for row in rows if row[0] == "US06"])
    return Profile("US06", 1.0, DRIVE_PEAK_C * amps / np.abs(amps).max())


def noisy_day(steps: int = 1440, seed: int = 6) -> Profile:
    """Minutes of a storage system that follows noise: correlated over minutes, drawn back to balance."""
    draw = np.random.default_rng(seed)
    rate, charge, out = 0.0, 0.0, []
    for kick in draw.standard_normal(steps):
        rate = float(np.clip(0.7 * rate + 0.45 * kick - 0.5 * charge, -1.0, 1.0))
        charge += rate / 60.0
        out.append(rate)
    return Profile("noisy day", 60.0, np.array(out))


def reference(
    source: Source, model: CompiledModel, profile: Profile, temperature_K: float, soc: float = START_SOC
) -> tuple[FloatArray, FloatArray, float]:
    """Voltage and temperature at the end of every step by PyBaMM, and its CPU seconds per step."""
    pybamm = load_pybamm()
    values = source.make_parameters()
    fixed = {AMBIENT: temperature_K, INITIAL_TEMPERATURE: temperature_K, CURRENT: "[input]"}
    for name, x, top in zip(
        INITIAL_CONCENTRATION,
        model.window.stoichiometry(np.array(soc)),
        model.maximum_mol_per_m3,
        strict=True,
    ):
        fixed[name] = float(x) * top
    fixed["Lower voltage cut-off [V]"], fixed["Upper voltage cut-off [V]"] = (
        LOWEST_CUT_OFF_V,
        HIGHEST_CUT_OFF_V,
    )
    values.update(fixed)
    built = source.make_model()
    built.events = []
    solver = pybamm.IDAKLUSolver(rtol=1e-6, atol=1e-8, output_variables=[VOLTAGE, TEMPERATURE])
    simulation = pybamm.Simulation(built, parameter_values=values, solver=solver, **source.mesh)
    amps = profile.c_rate * model.window.nominal_Ah
    voltage_V, kelvin = np.empty(amps.size), np.empty(amps.size)
    started = 0.0
    for k, current_A in enumerate(amps):
        if k == 1:
            started = time.process_time()  # the first step builds the model
        solution = simulation.step(profile.dt_s, save=False, inputs={CURRENT: float(current_A)})
        voltage_V[k], kelvin[k] = solution[VOLTAGE].data[-1], solution[TEMPERATURE].data[-1]
    return voltage_V, kelvin, (time.process_time() - started) / max(amps.size - 1, 1)


def replay(
    model: CompiledModel, profile: Profile, temperature_K: float, soc: float = START_SOC
) -> tuple[FloatArray, FloatArray, float]:
    """The same by the compiled model, and its inner steps per step."""
    cells = CompiledCells(model, soc, temperature_K)
    amps = profile.c_rate * model.window.nominal_Ah
    voltage_V, kelvin = np.empty(amps.size), np.empty(amps.size)
    for k, current_A in enumerate(amps):
        cells.step(current_A, temperature_K, profile.dt_s)
        voltage_V[k], kelvin[k] = cells.voltage_V[0], cells.temperature_K[0]
    return voltage_V, kelvin, cells.rounds / amps.size


@dataclass(frozen=True)
class Agreement:
    """One row of the table."""

    parameters: str
    model: str
    thermal: str
    profile: str
    steps: int
    rmse_mV: float
    largest_mV: float
    largest_K: float
    inner_steps: float
    pybamm_ms_per_step: float


def compare(source: Source, profile: Profile, temperature_K: float = 298.15) -> Agreement:
    """Compiled against PyBaMM over one profile."""
    model = compiled(source)
    voltage_V, kelvin, seconds = reference(source, model, profile, temperature_K)
    own_V, own_K, inner = replay(model, profile, temperature_K)
    apart_mV = 1e3 * (own_V - voltage_V)
    return Agreement(
        source.label,
        source.model,
        str(source.options.get("thermal", "isothermal")),
        profile.name,
        voltage_V.size,
        float(np.sqrt(np.mean(apart_mV**2))),
        float(np.abs(apart_mV).max()),
        float(np.abs(own_K - kelvin).max()),
        inner,
        1e3 * seconds,
    )


def source_of(name: str, model: str, thermal: str) -> Source:
    """A named set, or a BPX file of the shared data."""
    if name.endswith(".json"):
        return bpx_file(data_folder() / "bpx" / name, model, {"thermal": thermal})
    return parameter_set(name, model, {"thermal": thermal})


def main(arguments: Sequence[str] | None = None) -> None:
    """Write and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m pack_models.cells.compiler.validate", description=__doc__
    )
    parser.add_argument("--out", type=Path, help="folder for agreement.csv")
    parser.add_argument("--sets", nargs="*", default=[*SETS, BPX], metavar="SET")
    parser.add_argument("--models", nargs="*", default=["spm", "spme"])
    parser.add_argument("--append", action="store_true", help="keep the rows that are there")
    options = parser.parse_args(arguments)
    profiles = [profile for profile in (wltc(), us06(), noisy_day()) if profile is not None]
    lines = []
    for name in options.sets:
        if name.endswith(".json") and not (data_folder() / "bpx" / name).exists():
            print(f"{name}: not there; set TWIN_DATA to the folder with the shared data")
            continue
        for model in options.models:
            source = source_of(name, model, "lumped")
            try:
                compiled(source)
            except ModelError:  # sets without thermal parameters
                source = source_of(name, model, "isothermal")
            for profile in profiles:
                share = GENTLER.get(name, 1.0) if profile.dt_s > 1.0 else 1.0
                if share != 1.0:
                    label = f"{profile.name} at {share:g} of the current"
                    profile = Profile(label, profile.dt_s, share * profile.c_rate)
                row: dict[str, Any] = vars(compare(source, profile))
                lines.append(",".join(f"{v:.5g}" if isinstance(v, float) else str(v) for v in row.values()))
                print(lines[-1], flush=True)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        table = options.out / "agreement.csv"
        kept = table.read_text(encoding="utf-8").splitlines()[1:] if options.append and table.exists() else []
        header = ",".join(Agreement.__dataclass_fields__)
        table.write_text("\n".join([header, *kept, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
