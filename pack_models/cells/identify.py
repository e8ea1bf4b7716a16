"""Makes catalogue entries of cells: circuits identified from PyBaMM or from measurements.

    python -m pack_models.cells.identify chen2020 --out pack_models/catalogue/cells
    python -m pack_models.cells.identify hg2_measured --data ../shared/data/battery --out FOLDER
    python -m pack_models.cells.identify lfp280 --data ../shared/data/battery --out FOLDER

Each recipe is a row of RECIPES. A recipe states what was fitted, to what, and with which residual; the
profiles used to test the result are not among those used to make it (pack_models/README.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pack_models.catalogue import unit_of
from pack_models.cells.fit import CircuitFit, Record, fit_circuit
from pack_models.cells.measured import hg2_drives, hg2_open_circuit
from pack_models.cells.pybamm_engine import cell_window, load_pybamm, open_circuit, run_profile
from pack_models.cells.recipe_lfp import lfp280
from pack_models.cells.recipes import MEASURED

FloatArray = NDArray[np.float64]
TABLE_SOC = np.array([0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
# Dense near empty and full, where the open circuit bends.
OCV_SOC = np.unique(
    np.round(
        np.concatenate(
            [np.arange(0, 0.1, 0.0025), np.arange(0.1, 0.96, 0.01), np.arange(0.96, 1.0001, 0.0025)]
        ),
        4,
    )
)
CELSIUS_K = 273.15
# Kept apart so that the branches do not trade places from one temperature to the next.
TIME_CONSTANT_BOUNDS_s = ((3.0, 60.0), (120.0, 1500.0))


# ---- profiles ------------------------------------------------------------------------------------


def pulse_profile(
    one_c_A: float, capacity_Ah: float, soc_step: float = 0.05
) -> tuple[FloatArray, FloatArray]:
    """Pulses of ±1C and 2C, a C/2 discharge of `soc_step`, 15 min of rest; repeated from full to empty.

    Returns time (s, 1 s apart) and current (A), the current held over the second before its sample.
    """
    c = one_c_A
    block = (
        [c] * 20 + [0.0] * 60 + [-c] * 20 + [0.0] * 60 + [2 * c] * 10 + [0.0] * 60 + [-c] * 20 + [0.0] * 30
    )
    block += [c / 2] * round(soc_step * capacity_Ah * 3600 / (c / 2)) + [0.0] * 900
    current_A = np.array([0.0] + block * (round(1 / soc_step) + 1))
    return np.arange(current_A.size, dtype=np.float64), current_A


# ---- recipes -------------------------------------------------------------------------------------


def entropic_curve(parameter_set: str, soc: FloatArray, voltage_max_V: float) -> FloatArray:
    """dU/dT (V/K) over soc 0…1 from the half cells of a PyBaMM parameter set, full at voltage_max_V."""
    pybamm = load_pybamm()
    values = pybamm.ParameterValues(parameter_set)
    values["Upper voltage cut-off [V]"] = voltage_max_V
    values["Open-circuit voltage at 100% SOC [V]"] = voltage_max_V
    x0, x1, y1, y0 = pybamm.lithium_ion.get_min_max_stoichiometries(values)
    half = pybamm.LithiumIonParameters()
    x, y = pybamm.Vector(x0 + soc * (x1 - x0)), pybamm.Vector(y0 + soc * (y1 - y0))
    difference = half.p.prim.dUdT(y) - half.n.prim.dUdT(x)
    return np.asarray(values.process_symbol(difference).evaluate()).ravel().astype(float)


def discharge_profile(current_A: float, capacity_Ah: float) -> tuple[FloatArray, FloatArray]:
    """A constant-current discharge from full to 2 % and half an hour of rest, 2 s apart."""
    n_on = int(0.98 * capacity_Ah * 3600 / current_A / 2.0)
    amps = np.array([0.0] + [current_A] * n_on + [0.0] * 900)
    return 2.0 * np.arange(amps.size, dtype=np.float64), amps


def _pybamm_record(
    parameter_set: str, temperature_K: float, profile: tuple[FloatArray, FloatArray], cut_V: float
) -> Record:
    """The DFN under a profile from full, as far as it goes and above cut_V."""
    run = run_profile(parameter_set, "dfn", temperature_K, 1.0, *profile)
    open_V = open_circuit(parameter_set, np.clip(run.soc, 0.0, 1.0), temperature_K)
    used = (run.soc > 0.01) & (run.soc < 0.999) & (run.voltage_V > cut_V)
    return Record(
        np.diff(run.time_s),
        run.current_A[1:],
        run.soc[1:],
        (open_V - run.voltage_V)[1:],
        used[1:].astype(float),
    )


def fit_pybamm(parameter_set: str, temperature_K: float, one_c_A: float, cut_V: float) -> CircuitFit:
    """Circuit of a PyBaMM cell at one temperature: the DFN under pulses and discharges at C/2 and 1.5C."""
    capacity_Ah = cell_window(parameter_set).capacity_Ah
    profiles = [
        pulse_profile(one_c_A, capacity_Ah),
        discharge_profile(0.5 * one_c_A, capacity_Ah),
        discharge_profile(1.5 * one_c_A, capacity_Ah),
    ]
    records = [_pybamm_record(parameter_set, temperature_K, profile, cut_V) for profile in profiles]
    return fit_circuit(records, TABLE_SOC, bounds_s=TIME_CONSTANT_BOUNDS_s, thinning=5)


def _tables(fits: list[CircuitFit]) -> dict[str, FloatArray]:
    return {
        "resistance0_ohm": np.stack([fit.resistance0_ohm for fit in fits]),
        "resistance1_ohm": np.stack([fit.resistance1_ohm for fit in fits]),
        "time_constant1_s": np.array([fit.time_constant1_s for fit in fits]),
        "resistance2_ohm": np.stack([fit.resistance2_ohm for fit in fits]),
        "time_constant2_s": np.array([fit.time_constant2_s for fit in fits]),
    }


M50_NUMBERS: dict[str, tuple[float, str, str]] = {
    "voltage_min_V": (2.5, "chen2020", ""),
    "voltage_max_V": (4.2, "chen2020", ""),
    "temperature_min_K": (CELSIUS_K - 20, "sheet", "discharge; charge from 0 degC"),
    "temperature_max_K": (CELSIUS_K + 60, "sheet", "discharge; charge to 45 degC"),
    "charge_current_max_A": (3.5, "sheet", "0.7 C, continuous, 0 to 45 degC"),
    "discharge_current_max_A": (7.5, "sheet", "1.5 C, continuous"),
    "mass_kg": (0.0685, "sheet", ""),
    "heat_capacity_J_per_K": (65.0, "heat", "0 to 60 degC"),
    "reference_temperature_K": (298.15, "chen2020", ""),
    "hysteresis_rate": (0.0, "chen2020", "no hysteresis in this cell"),
}
M50_SOURCES = {
    "chen2020": "Chen et al., J. Electrochem. Soc. 167 (2020) 080534; parameter set Chen2020 of "
    "PyBaMM 26.10.1.1 (BSD-3-Clause)",
    "oregan2022": "O'Regan et al., Electrochim. Acta 425 (2022) 140700; half-cell entropic coefficients of "
    "parameter set ORegan2022 of PyBaMM 26.10.1.1 (BSD-3-Clause), combined over the window 2.5 to 4.2 V",
    "sheet": "LG Chem INR21700-M50 product figures, recalled, not checked here (5 Ah, 2.5 to 4.2 V, "
    "1.5C discharge, 0.7C charge, 68.5 g)",
    "heat": "mass times 950 J/(kg K), a usual value for 21700 cells (assumption; range in print 880 to 1050)",
}


AGED_SOH = np.array([0.9, 0.8])
LITHIUM_LOSS = (
    "open circuit after loss of cyclable lithium alone, from the half-cell potentials of Chen2020 (electrode "
    "state-of-health problem of PyBaMM 26.10.1.1); the resistance is taken to grow alike at all charges"
)


def aged_curves(parameter_set: str) -> dict[str, Any]:
    """Section `aged` of a cell whose electrodes stay and whose lithium is lost."""
    ocv_V = [open_circuit(parameter_set, OCV_SOC, 298.15, float(soh)) for soh in AGED_SOH]
    return {
        "aged_soh": (AGED_SOH, "lithium", "calendar ageing and gentle cycling"),
        "aged_ocv_V": (np.stack(ocv_V), "lithium", ""),
        "aged_resistance_shape": (np.ones((AGED_SOH.size, TABLE_SOC.size)), "lithium", ""),
    }


def chen2020(data: Path | None) -> dict[str, Any]:
    """LG M50 as PyBaMM's Chen2020 sees it: circuit of the DFN at seven temperatures."""
    del data
    temperature_K = CELSIUS_K + np.array([-10.0, 0.0, 10.0, 25.0, 35.0, 45.0, 60.0])
    fits = [fit_pybamm("Chen2020", float(T), 5.0, cut_V=2.6) for T in temperature_K]
    window = cell_window("Chen2020")
    fitted = (
        "least squares on the DFN with this parameter set under pulses of 1C and 2C and "
        "discharges at C/2 and 1.5C (pack_models.cells.identify chen2020)"
    )
    return {
        "name": "lgm50_chen2020",
        "about": "LG M50 5 Ah, NMC811 | graphite-SiOx, "
        "as the Doyle-Fuller-Newman model with Chen2020 sees it",
        "chemistry": "NMC811 | graphite-SiOx",
        "form": "21700 cylindrical",
        "pybamm": "Chen2020",
        "numbers": {
            "capacity_Ah": (window.capacity_Ah, "chen2020", "2.5 to 4.2 V, open circuit"),
            **M50_NUMBERS,
        },
        "curves": {
            "ocv_soc": (OCV_SOC, "chen2020", ""),
            "ocv_V": (
                open_circuit("Chen2020", OCV_SOC, 298.15),
                "chen2020",
                "half-cell potentials, no hysteresis",
            ),
            "entropic_V_per_K": (entropic_curve("ORegan2022", OCV_SOC, 4.2), "oregan2022", "0 to 60 degC"),
            "hysteresis_V": (np.zeros(OCV_SOC.size), "chen2020", "none"),
            "table_soc": (TABLE_SOC, "fit", ""),
            "table_temperature_K": (temperature_K, "fit", ""),
            **{key: (value, "fit", "-10 to 60 degC, up to 2C") for key, value in _tables(fits).items()},
        },
        "aged": aged_curves("Chen2020"),
        "fit": _residuals(temperature_K, fits),
        "sources": {**M50_SOURCES, "fit": fitted, "lithium": LITHIUM_LOSS},
    }


def _residuals(temperature_K: FloatArray, fits: list[CircuitFit]) -> dict[str, float]:
    return {
        f"rmse_{T - CELSIUS_K:.0f}degC_mV": round(1e3 * fit.rmse_V, 2)
        for T, fit in zip(temperature_K, fits, strict=True)
    }


HG2_TRAINING = ("Mixed1", "Mixed2", "Mixed3", "Mixed5")  # Mixed4 and LA92 are kept for the test
HG2_SOURCES = {
    "kollmeyer": "measured by Kollmeyer et al., McMaster University, Mendeley Data cp3473x7xv version 3 "
    "(CC BY 4.0)",
    "sheet": "LG Chem INR18650-HG2 product figures, recalled, not checked here (3 Ah, 2.5 to 4.2 V, 20 A)",
    "heat": "mass times 950 J/(kg K), a usual value for 18650 cells (assumption; range in print 850 to 1050)",
    "guess": "usual for NMC | graphite-SiOx; the measured branches stand at C/20, "
    "so part of the gap is polarisation",
    "fit": "least squares on the measured drive cycles Mixed1, 2, 3 and 5 at each ambient temperature "
    "(pack_models.cells.identify hg2_measured)",
}
HG2_NUMBERS: dict[str, tuple[float, str, str]] = {
    "capacity_Ah": (2.778, "kollmeyer", "C/20 discharge at 25 degC, 4.2 to 2.8 V"),
    "voltage_min_V": (2.5, "sheet", ""),
    "voltage_max_V": (4.2, "sheet", ""),
    "temperature_min_K": (CELSIUS_K - 20, "sheet", "discharge; charge from 0 degC"),
    "temperature_max_K": (CELSIUS_K + 60, "sheet", "discharge; charge to 50 degC"),
    "charge_current_max_A": (4.0, "sheet", "continuous, 0 to 50 degC"),
    "discharge_current_max_A": (20.0, "sheet", "continuous"),
    "mass_kg": (0.047, "sheet", ""),
    "heat_capacity_J_per_K": (44.6, "heat", "0 to 60 degC"),
    "reference_temperature_K": (298.15, "kollmeyer", ""),
    "hysteresis_rate": (0.0, "guess", "hysteresis not modelled"),
}


def hg2_measured(data: Path | None) -> dict[str, Any]:
    """LG HG2 from measurements: C/20 open circuit, circuit from drive cycles at five ambient temperatures."""
    if data is None:
        raise SystemExit("recipe hg2_measured needs --data, the folder with lg_hg2_*.parquet")
    discharge_V, charge_V = hg2_open_circuit(data, OCV_SOC)
    # At the top the charge branch ends in constant voltage; the discharge branch starts from rest there.
    ocv_V = np.maximum.accumulate(0.5 * (discharge_V + charge_V))
    runs = [run for run in hg2_drives(data) if run.name in HG2_TRAINING]
    temperatures = sorted({run.ambient_K for run in runs})
    fits = []
    for ambient_K in temperatures:
        records = []
        for run in runs:
            if run.ambient_K == ambient_K:
                open_V = np.interp(run.soc, OCV_SOC, ocv_V)
                used = ((run.soc > 0.03) & (run.soc < 0.999)).astype(float)
                records.append(
                    Record(
                        np.diff(run.time_s),
                        run.current_A[1:],
                        run.soc[1:],
                        (open_V - run.voltage_V)[1:],
                        used[1:],
                    )
                )
        fits.append(fit_circuit(records, TABLE_SOC, bounds_s=TIME_CONSTANT_BOUNDS_s, thinning=3))
    temperature_K = np.array(temperatures)
    return {
        "name": "lghg2_measured",
        "about": "LG HG2 3 Ah 18650, NMC | graphite-SiOx, identified from measured drive cycles",
        "chemistry": "NMC | graphite-SiOx",
        "form": "18650 cylindrical",
        "pybamm": None,
        "numbers": HG2_NUMBERS,
        "curves": {
            "ocv_soc": (OCV_SOC, "kollmeyer", ""),
            "ocv_V": (ocv_V, "kollmeyer", "mean of C/20 discharge and charge at 25 degC"),
            "entropic_V_per_K": (np.zeros(OCV_SOC.size), "guess", "not identified: zero"),
            "hysteresis_V": (np.zeros(OCV_SOC.size), "guess", "not modelled: zero"),
            "table_soc": (TABLE_SOC, "fit", ""),
            "table_temperature_K": (temperature_K, "fit", ""),
            **{
                key: (value, "fit", "-10 to 40 degC, drive cycles up to 6C")
                for key, value in _tables(fits).items()
            },
        },
        "fit": _residuals(temperature_K, fits),
        "sources": HG2_SOURCES,
    }


RECIPES: dict[str, Callable[[Path | None], dict[str, Any]]] = {
    "chen2020": chen2020,
    "hg2_measured": hg2_measured,
    "lfp280": lfp280,
    **MEASURED,
}


# ---- writing -------------------------------------------------------------------------------------


def _short(value: float) -> str:
    return f"{value:.6g}"


def _flow(values: FloatArray, indent: str) -> str:
    """A list, or list of lists, in YAML flow style, lines below 110 characters."""
    if values.ndim == 2:
        rows = ",\n".join(f"{indent}  {_flow(row, indent + '   ')}" for row in values)
        return f"[\n{rows}]"
    lines, line = [], ""
    for value in values:
        word = _short(float(value)) + ", "
        if len(indent) + len(line) + len(word) > 104:
            lines.append(line.rstrip())
            line = ""
        line += word
    lines.append(line.rstrip(", "))
    return "[" + f"\n{indent}".join(lines) + "]"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def as_yaml(sheet: dict[str, Any], command: str) -> str:
    """A catalogue file; numbers to six digits."""
    out = [f"# Made by: {command}"]
    out += [f"{key}: {_quoted(sheet[key])}" for key in ("name", "about", "chemistry", "form")]
    if sheet["pybamm"] is not None:
        out.append(f"pybamm: {sheet['pybamm']}")
    out.append("sources:")
    out += [f"  {key}: {_quoted(text)}" for key, text in sheet["sources"].items()]
    out.append("fit:  # residual of the identification; test_... on runs it has not seen")
    out += [f"  {key}: {value:g}" for key, value in sheet["fit"].items()]
    for section, content in (("numbers", "value"), ("curves", "values"), ("aged", "values")):
        if section not in sheet:
            continue
        out.append(f"{section}:")
        for key, (value, source, valid) in sheet[section].items():
            text = _short(value) if content == "value" else _flow(np.asarray(value), "      ")
            note = f", valid: {_quoted(valid)}" if valid else ""
            head = f"  {key}: {{unit: {_quoted(unit_of(key))}, source: {source}{note}, "
            out.append(
                f"{head}{content}: {text}}}" if content == "value" else f"{head}\n    {content}: {text}}}"
            )
    return "\n".join(out) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Command line: one recipe, written as a catalogue file."""
    parser = argparse.ArgumentParser(prog="python -m pack_models.cells.identify", description=__doc__)
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, help="folder with the measured cells, for recipes that need it")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the YAML file")
    options = parser.parse_args(arguments)
    sheet = RECIPES[options.recipe](options.data)
    command = f"python -m pack_models.cells.identify {options.recipe}" + (
        " --data DIR" if options.data else ""
    )
    path = options.out / f"{sheet['name']}.yaml"
    path.write_text(as_yaml(sheet, command), encoding="utf-8")
    print(path, *(f"{key} {value:g}" for key, value in sheet["fit"].items()), sep="\n  ")


if __name__ == "__main__":
    main()
