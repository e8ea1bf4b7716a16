"""Catalogue cells identified from measured files: what goes in, what is kept apart to test the result.

Each recipe names the runs it fits and those it does not; the error on the latter goes into the file beside
the residual of the former (`fit:`, keys `test_…`). Sources and licences of the files are in the README of
the shared data folder and in the `sources` of each entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pack_models.cells import measured
from pack_models.cells.fit_cell import CellFit, Known, fit_cell, hysteresis_path
from pack_models.cells.measured import Measured

FloatArray = NDArray[np.float64]
CELSIUS_K = 273.15
KNOTS = np.array([0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
OCV_KNOTS = np.concatenate(
    [[0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.175], np.round(np.arange(0.2, 1.001, 0.05), 3)]
)
Number = tuple[float, str, str]


def weights(runs: Sequence[Measured], low: float = 0.02, high: float = 1.01) -> list[FloatArray]:
    """1 for samples inside a range of charge, 0 for the others."""
    return [((run.soc > low) & (run.soc < high)).astype(float) for run in runs]


def held_out_rmse_V(
    fit: CellFit, knots: FloatArray, run: Measured, capacity_Ah: float, hysteresis_V: FloatArray
) -> float:
    """Error of a fit on a run it has not seen, at its own temperature, between 2 and 100 % of charge."""
    dt_s = np.concatenate([[0.0], np.diff(run.time_s)])
    v1 = v2 = 0.0
    r0, r1, r2 = (
        np.interp(run.soc, knots, table)
        for table in (fit.resistance0_ohm, fit.resistance1_ohm, fit.resistance2_ohm)
    )
    polarised = np.empty(run.time_s.size)
    for k in range(run.time_s.size):
        a1, a2 = np.exp(-dt_s[k] / fit.time_constant1_s), np.exp(-dt_s[k] / fit.time_constant2_s)
        v1 = a1 * v1 + (1.0 - a1) * r1[k] * run.current_A[k]
        v2 = a2 * v2 + (1.0 - a2) * r2[k] * run.current_A[k]
        polarised[k] = v1 + v2
    voltage_V = np.interp(run.soc, fit.ocv_soc, fit.ocv_V) - polarised - r0 * run.current_A
    if hysteresis_V.any():
        h = hysteresis_path(run.current_A, dt_s, fit.hysteresis_rate, 3600.0 * capacity_Ah)
        voltage_V += fit.hysteresis_factor * np.interp(run.soc, fit.ocv_soc, hysteresis_V) * h
    counts = (run.soc > 0.02) & (run.soc <= 1.0)
    return float(np.sqrt(np.mean((voltage_V - run.voltage_V)[counts] ** 2)))


def sheet(
    name: str,
    about: str,
    chemistry: str,
    form: str,
    numbers: dict[str, Number],
    ocv_source: tuple[str, str],
    fits: dict[float, CellFit],
    tests: dict[str, float],
    sources: dict[str, str],
    hysteresis_V: FloatArray | None = None,
    knots: FloatArray = KNOTS,
) -> dict[str, Any]:
    """A catalogue entry from fits by their temperature (K); tests: error in V by the name of the run."""
    first = next(iter(fits.values()))
    temperatures = sorted(fits)
    rate = max(fit.hysteresis_rate for fit in fits.values())
    factor = float(np.mean([fit.hysteresis_factor for fit in fits.values()]))
    low, high = (min(f.soc_range[0] for f in fits.values()), max(f.soc_range[1] for f in fits.values()))
    amps = max(max(abs(x) for x in fit.current_range_A) for fit in fits.values())
    cold, warm = temperatures[0] - CELSIUS_K, temperatures[-1] - CELSIUS_K
    valid = (
        f"{cold:.0f} to {warm:.0f} degC, charge {max(low, 0):.2f} to {min(high, 1):.2f}, up to {amps:.3g} A"
    )
    none = np.zeros(first.ocv_soc.size)
    gap_V = none if hysteresis_V is None else factor * hysteresis_V

    def stack(key: str) -> FloatArray:
        return np.stack([np.atleast_1d(getattr(fits[kelvin], key)) for kelvin in temperatures])

    return {
        "name": name,
        "about": about,
        "chemistry": chemistry,
        "form": form,
        "pybamm": None,
        "numbers": {
            **numbers,
            "hysteresis_rate": (rate, "fit", "per full charge" if rate else "hysteresis not modelled"),
        },
        "curves": {
            "ocv_soc": (first.ocv_soc, ocv_source[0], ""),
            "ocv_V": (first.ocv_V, *ocv_source),
            "entropic_V_per_K": (none, "guess", "not identified: zero"),
            "hysteresis_V": (
                gap_V,
                ocv_source[0] if hysteresis_V is not None else "guess",
                f"measured gap times {factor:.3f} (fit)"
                if hysteresis_V is not None
                else "not modelled: zero",
            ),
            "table_soc": (knots, "fit", ""),
            "table_temperature_K": (np.array(temperatures), "fit", ""),
            "resistance0_ohm": (stack("resistance0_ohm"), "fit", valid),
            "resistance1_ohm": (stack("resistance1_ohm"), "fit", valid),
            "time_constant1_s": (stack("time_constant1_s")[:, 0], "fit", valid),
            "resistance2_ohm": (stack("resistance2_ohm"), "fit", valid),
            "time_constant2_s": (stack("time_constant2_s")[:, 0], "fit", valid),
        },
        "fit": {f"rmse_{T - CELSIUS_K:.0f}degC_mV": round(1e3 * fits[T].rmse_V, 2) for T in temperatures}
        | {f"test_{key.replace(' ', '_')}_mV": round(1e3 * value, 2) for key, value in tests.items()},
        "sources": sources,
    }


HEAT_18650 = "mass times 950 J/(kg K), a usual value for 18650 cells (assumption; range in print 850 to 1050)"
GUESS = "not identified from these data"


def _needs(data: Path | None, recipe: str) -> Path:
    if data is None:
        raise SystemExit(f"recipe {recipe} needs --data, the folder with the measured cells")
    return data


def inr20r(data: Path | None) -> dict[str, Any]:
    """Samsung INR18650-20R from CALCE's DST at three temperatures; FUDS is the test."""
    folder = _needs(data, "inr20r")
    capacity_Ah = 2.0
    runs = measured.inr20r_drives(folder)
    points = Known(*measured.inr20r_open_circuit(folder), fixed=False)
    fits: dict[float, CellFit] = {}
    tests = {}
    known = points
    for ambient_K in (298.15, 273.15, 318.15):
        here = [run for run in runs if run.ambient_K == ambient_K]
        training = [run for run in here if run.name.startswith("DST")]
        fits[ambient_K] = fit_cell(
            training, weights(training), KNOTS, OCV_KNOTS, capacity_Ah, known, thinning=5
        )
        known = Known(fits[298.15].ocv_soc, fits[298.15].ocv_V)
        for run in here:
            if run.name.startswith("FUDS"):
                rmse_V = held_out_rmse_V(fits[ambient_K], KNOTS, run, capacity_Ah, np.zeros(1))
                tests[f"{run.name[:4]} {run.name[10:12]} {ambient_K - CELSIUS_K:.0f}degC"] = rmse_V
    sources = {
        "calce": "CALCE, University of Maryland: INR 18650-20R sample SP20-2, incremental OCV and DST "
        "(public, citation asked, no explicit licence); via github cliu0174/GST-IAEKF",
        "sheet": "Samsung INR18650-20R product figures, recalled, not checked here "
        "(2 Ah, 2.5 to 4.2 V, 22 A, 45 g)",
        "heat": HEAT_18650,
        "guess": GUESS,
        "fit": "least squares on DST from 80 and 50 % at each temperature; FUDS kept for the test "
        "(twin identify inr20r)",
    }
    return sheet(
        "inr20r_measured",
        "Samsung INR18650-20R 2 Ah, NMC | graphite, identified from CALCE's DST",
        "NMC | graphite",
        "18650 cylindrical",
        {
            "capacity_Ah": (capacity_Ah, "calce", "what the source's state of charge refers to"),
            "voltage_min_V": (2.5, "sheet", ""),
            "voltage_max_V": (4.2, "sheet", ""),
            "temperature_min_K": (CELSIUS_K - 20, "sheet", "discharge; charge from 0 degC"),
            "temperature_max_K": (CELSIUS_K + 60, "sheet", ""),
            "charge_current_max_A": (4.0, "sheet", "2C, continuous"),
            "discharge_current_max_A": (22.0, "sheet", "continuous"),
            "mass_kg": (0.045, "sheet", ""),
            "heat_capacity_J_per_K": (42.8, "heat", "0 to 60 degC"),
            "reference_temperature_K": (298.15, "calce", ""),
        },
        ("fit", "rested points at 25 degC (calce) and DST at 25 degC together"),
        fits,
        tests,
        sources,
    )


LFP_TRAINING_S = 6 * 3600.0


def lfp_1p2(data: Path | None) -> dict[str, Any]:
    """LFP 1.2 Ah with hysteresis from the first six hours in the flat zone; the other 19 h are the test."""
    folder = _needs(data, "lfp_1p2")
    from pack_models.cells.identify import OCV_SOC

    capacity_Ah = 1.2
    discharge_V, charge_V = measured.lfp_open_circuit(folder, OCV_SOC)
    ocv_V = np.maximum.accumulate(0.5 * (discharge_V + charge_V))
    gap_V = np.maximum(0.5 * (charge_V - discharge_V), 0.0)
    run = measured.lfp_flat_zone(folder)
    weight = ((run.time_s > 600.0) & (run.time_s < LFP_TRAINING_S)).astype(float)
    known = Known(OCV_SOC, ocv_V, hysteresis_V=gap_V)
    head = _slice(run, 0.0, LFP_TRAINING_S, "first 6 h")
    fit = fit_cell(
        [head],
        [weight[: head.time_s.size]],
        KNOTS,
        OCV_SOC,
        capacity_Ah,
        known,
        bounds_s=((3.0, 80.0), (120.0, 3000.0)),
        thinning=2,
    )
    tests = {"hours 6 to 25 25degC": _lfp_test(fit, run, capacity_Ah, gap_V)}
    sources = {
        "tao": "github terencetaothucb/LFP-SOC-Estimation-Fisher-Information-Fusion (MIT): charge and "
        "discharge open circuit, 25 h of dynamic current at 25 degC",
        "sheet": "usual for a 1.2 Ah LFP 18650 power cell, not checked here (2 to 3.6 V, "
        "1C charge, 5C discharge, 40 g)",
        "heat": HEAT_18650,
        "guess": GUESS,
        "fit": "least squares on the first 6 h of the dynamic run; hours 6 to 25 kept for the test "
        "(twin identify lfp_1p2)",
    }
    return sheet(
        "lfp_1p2_measured",
        "LFP 1.2 Ah with hysteresis, identified at 25 degC between 20 and 80 %",
        "LFP | graphite",
        "18650 cylindrical",
        {
            "capacity_Ah": (capacity_Ah, "tao", "what the source's state of charge refers to"),
            "voltage_min_V": (2.0, "sheet", ""),
            "voltage_max_V": (3.6, "sheet", ""),
            "temperature_min_K": (CELSIUS_K - 20, "sheet", "discharge; charge from 0 degC"),
            "temperature_max_K": (CELSIUS_K + 60, "sheet", ""),
            "charge_current_max_A": (1.2, "sheet", "continuous"),
            "discharge_current_max_A": (6.0, "sheet", "continuous"),
            "mass_kg": (0.04, "sheet", ""),
            "heat_capacity_J_per_K": (38.0, "heat", "0 to 60 degC"),
            "reference_temperature_K": (298.15, "tao", ""),
        },
        ("tao", "mean of charge and discharge at 25 degC"),
        {298.15: fit},
        tests,
        sources,
        hysteresis_V=gap_V,
    )


def a123(data: Path | None) -> dict[str, Any]:
    """A123 LFP 1.1 Ah: open circuit, hysteresis, entropy from C/22 at 10, 25, 40 degC; circuit borrowed."""
    folder = _needs(data, "a123")
    from pack_models.catalogue import cell
    from pack_models.cells.identify import OCV_SOC

    branches = measured.a123_branches(folder, OCV_SOC)
    means = {ambient_C: 0.5 * (low + high) for ambient_C, (low, high) in branches.items()}
    low_V, high_V = branches[25.0]
    inside = (OCV_SOC >= 0.05) & (OCV_SOC <= 0.95)
    entropic = np.where(inside, (means[40.0] - means[10.0]) / 30.0, 0.0)
    capacity_Ah, donor = 1.1, cell("lfp_1p2_measured")
    scale = donor.capacity_Ah / capacity_Ah
    # Both branches stand at C/22: the drop over all resistances is in the gap, twice.
    drop_V = (
        0.05
        * scale
        * sum(
            np.interp(OCV_SOC, donor.table_soc, table[0])
            for table in (donor.resistance0_ohm, donor.resistance1_ohm, donor.resistance2_ohm)
        )
    )
    gap_V = np.maximum(0.5 * (high_V - low_V) - drop_V, 0.0)
    borrowed = "circuit of lfp_1p2_measured over capacity: 25 degC, charge 0.20 to 0.80"
    return {
        "name": "a123_measured",
        "about": "A123 LFP 1.1 Ah: measured open circuit, hysteresis and entropy; circuit "
        "of another LFP cell",
        "chemistry": "LFP | graphite",
        "form": "18650 cylindrical",
        "pybamm": None,
        "numbers": {
            "capacity_Ah": (capacity_Ah, "sheet", "nominal; the file states no charge"),
            "voltage_min_V": (2.0, "calce", ""),
            "voltage_max_V": (3.6, "calce", ""),
            "temperature_min_K": (CELSIUS_K - 30, "sheet", ""),
            "temperature_max_K": (CELSIUS_K + 60, "sheet", ""),
            "charge_current_max_A": (4.0, "sheet", "fast charge"),
            "discharge_current_max_A": (30.0, "sheet", "continuous"),
            "mass_kg": (0.039, "sheet", ""),
            "heat_capacity_J_per_K": (37.0, "heat", "0 to 60 degC"),
            "reference_temperature_K": (298.15, "calce", ""),
            "hysteresis_rate": (donor.hysteresis_rate, "borrowed", "per full charge"),
        },
        "curves": {
            "ocv_soc": (OCV_SOC, "calce", ""),
            "ocv_V": (np.maximum.accumulate(means[25.0]), "calce", "mean of both branches at C/22, 25 degC"),
            "entropic_V_per_K": (entropic, "calce", "means at 40 and 10 degC, 0.05 to 0.95 of charge"),
            "hysteresis_V": (gap_V, "calce", "half the gap at C/22 less the drop of the circuit"),
            "table_soc": (donor.table_soc, "borrowed", ""),
            "table_temperature_K": (donor.table_temperature_K, "borrowed", ""),
            "resistance0_ohm": (donor.resistance0_ohm * scale, "borrowed", borrowed),
            "resistance1_ohm": (donor.resistance1_ohm * scale, "borrowed", borrowed),
            "time_constant1_s": (donor.time_constant1_s, "borrowed", borrowed),
            "resistance2_ohm": (donor.resistance2_ohm * scale, "borrowed", borrowed),
            "time_constant2_s": (donor.time_constant2_s, "borrowed", borrowed),
        },
        "fit": {"rmse_25degC_mV": 12.0},
        "sources": {
            "calce": "CALCE, University of Maryland: A123 low-rate charge and discharge at "
            "10, 25 and 40 degC (no "
            "explicit licence); via github Meikandadevan-Senthil",
            "sheet": "A123 APR18650M1 product figures, recalled, not checked here (1.1 Ah, 30 A, 39 g)",
            "heat": HEAT_18650,
            "borrowed": "no load was measured on this cell: resistances of "
            "lfp_1p2_measured times 1.2/1.1; the residual "
            "stated under fit is that of careful fits of other cells, not of this one (twin identify a123)",
        },
    }


def _slice(run: Measured, begin_s: float, end_s: float, name: str) -> Measured:
    inside = (run.time_s >= begin_s) & (run.time_s < end_s)
    return Measured(
        name,
        run.ambient_K,
        run.time_s[inside] - run.time_s[inside][0],
        run.current_A[inside],
        run.voltage_V[inside],
        run.temperature_K[inside],
        run.soc[inside],
    )


def _lfp_test(fit: CellFit, run: Measured, capacity_Ah: float, gap_V: FloatArray) -> float:
    """Error over the hours kept apart, the model run from the start so that its hysteresis has a past."""
    return held_out_rmse_V(fit, KNOTS, _masked(run, run.time_s >= LFP_TRAINING_S), capacity_Ah, gap_V)


def _masked(run: Measured, counts: NDArray[np.bool_]) -> Measured:
    """The same run with the voltage of samples that do not count set so that they drop out."""
    soc = np.where(counts, run.soc, -1.0)
    return Measured(run.name, run.ambient_K, run.time_s, run.current_A, run.voltage_V, run.temperature_K, soc)


def leaf(data: Path | None) -> dict[str, Any]:
    """Cell of a Nissan Leaf from HPPC at 10 and 25 degC; discharges at 1C, 2C, 3C are the test."""
    folder = _needs(data, "leaf")
    runs, capacity_Ah = measured.leaf_runs(folder)
    fits: dict[float, CellFit] = {}
    known = None
    for ambient_K in (298.15, 283.15):
        training = [run for run in runs if run.ambient_K == ambient_K and run.name.startswith("HPPC")]
        fits[ambient_K] = fit_cell(
            training, weights(training), KNOTS, OCV_KNOTS, capacity_Ah, known, thinning=2
        )
        known = Known(fits[298.15].ocv_soc, fits[298.15].ocv_V)
    tests = {
        run.name: held_out_rmse_V(fits[298.15], KNOTS, run, capacity_Ah, np.zeros(1))
        for run in runs
        if run.name.startswith("discharge")
    }
    sources = {
        "ornl": "ORNL/NREL measurements of a 2013 Nissan Leaf cell via github "
        "batterysim/equiv-circ-model (MIT)",
        "sheet": "usual for this pouch cell, not checked here (33 Ah nominal, 2.5 to 4.2 V, 0.79 kg)",
        "heat": "mass times 950 J/(kg K), a usual value (assumption; range in print 800 to 1100)",
        "guess": GUESS,
        "fit": "least squares on HPPC (30 A pulses, 10 A discharges, rests) at 10 and 25 "
        "degC; discharges at 1C "
        "to 3C kept for the test (twin identify leaf)",
    }
    return sheet(
        "leaf_measured",
        "Nissan Leaf (2013) pouch cell, LMO/LNO | graphite, identified from HPPC",
        "LMO/LNO | graphite",
        "pouch",
        {
            "capacity_Ah": (capacity_Ah, "ornl", "HPPC from 4.2 to 3 V at 25 degC"),
            "voltage_min_V": (2.5, "sheet", ""),
            "voltage_max_V": (4.2, "ornl", ""),
            "temperature_min_K": (CELSIUS_K - 20, "sheet", ""),
            "temperature_max_K": (CELSIUS_K + 60, "sheet", ""),
            "charge_current_max_A": (33.0, "sheet", "1C, continuous"),
            "discharge_current_max_A": (90.0, "ornl", "highest discharge measured"),
            "mass_kg": (0.79, "sheet", ""),
            "heat_capacity_J_per_K": (750.0, "heat", "0 to 60 degC"),
            "reference_temperature_K": (298.15, "ornl", ""),
        },
        ("fit", "from the rests and discharges of the HPPC at 25 degC"),
        fits,
        tests,
        sources,
    )


def samsung30q(data: Path | None) -> dict[str, Any]:
    """Samsung 30Q from HPPC at C/2 and 2C (20 degC) and 1C (40 degC); HPPC 1C at 20 degC is the test."""
    folder = _needs(data, "samsung30q")
    capacity_Ah = 2.837
    runs = {run.name: run for run in measured.samsung30q_hppc(folder)}
    warm = [runs["HPPC C2 20 degC"], runs["HPPC 2C 20 degC"]]
    fits = {293.15: fit_cell(warm, weights(warm), KNOTS, OCV_KNOTS, capacity_Ah, None, thinning=4)}
    known = Known(fits[293.15].ocv_soc, fits[293.15].ocv_V)
    hot = [runs["HPPC 1C 40 degC"]]
    fits[313.15] = fit_cell(hot, weights(hot), KNOTS, OCV_KNOTS, capacity_Ah, known, thinning=4)
    kept = runs["HPPC 1C 20 degC"]
    tests = {kept.name: held_out_rmse_V(fits[293.15], KNOTS, kept, capacity_Ah, np.zeros(1))}
    sources = {
        "arts": "ARTS-Lab HPPC of cell DNN01 (CC BY-SA 4.0); figures identified from it",
        "sheet": "Samsung INR18650-30Q product figures, recalled, not checked here (3 Ah, "
        "2.5 to 4.2 V, 15 A, 48 g)",
        "heat": HEAT_18650,
        "guess": GUESS,
        "fit": "least squares on HPPC C/2 and 2C at 20 degC and 1C at 40 degC; 1C at 20 "
        "degC kept for the test "
        "(twin identify samsung30q)",
    }
    return sheet(
        "samsung30q_measured",
        "Samsung INR18650-30Q 3 Ah, NCA | graphite-SiOx, identified from HPPC",
        "NCA | graphite-SiOx",
        "18650 cylindrical",
        {
            "capacity_Ah": (capacity_Ah, "arts", "what the source's state of charge refers to"),
            "voltage_min_V": (2.5, "sheet", ""),
            "voltage_max_V": (4.2, "sheet", ""),
            "temperature_min_K": (CELSIUS_K - 20, "sheet", ""),
            "temperature_max_K": (CELSIUS_K + 60, "sheet", ""),
            "charge_current_max_A": (4.0, "sheet", "continuous"),
            "discharge_current_max_A": (15.0, "sheet", "continuous"),
            "mass_kg": (0.048, "sheet", ""),
            "heat_capacity_J_per_K": (45.6, "heat", "0 to 60 degC"),
            "reference_temperature_K": (293.15, "arts", ""),
        },
        ("fit", "from the rests and pulses of the HPPC at 20 degC"),
        fits,
        tests,
        sources,
    )


def dmegc(data: Path | None) -> dict[str, Any]:
    """DMEGC 2.6 Ah from pulses and ten random walks of cell R1; random walks of cell R2 are the test."""
    folder = _needs(data, "dmegc")
    slow = measured.dmegc_runs(folder, "R1", ("ocv_data",), 1.0)[0]
    capacity_Ah = float(np.sum(np.diff(slow.time_s) * slow.current_A[1:]) / 3600.0)
    slow = measured.dmegc_runs(folder, "R1", ("ocv_data",), capacity_Ah)[0]
    pick = slice(0, None, 100)
    points = Known(slow.soc[pick][::-1], slow.voltage_V[pick][::-1], fixed=False)
    training = measured.dmegc_runs(folder, "R1", ("pulse_data", "rw_data"), capacity_Ah)[:11]
    bounds_s = ((10.0, 100.0), (150.0, 3000.0))
    fit = fit_cell(training, weights(training), KNOTS, OCV_KNOTS, capacity_Ah, points, bounds_s)
    errors = [
        held_out_rmse_V(fit, KNOTS, run, capacity_Ah, np.zeros(1))
        for run in measured.dmegc_runs(folder, "R2", ("rw_data",), capacity_Ah)
    ]
    sources = {
        "cta": "github Silencefrog9305/Digital-Twins-for-Battery-Using-CTA-MTL (MIT): three cells at 25 degC",
        "sheet": "usual for a 2.6 Ah 18650, not checked here (2.5 to 4.2 V, 1C charge, 3C discharge, 45 g)",
        "heat": HEAT_18650,
        "guess": GUESS,
        "fit": "least squares on pulses and ten random walks of cell R1; the 50 random "
        "walks of cell R2 kept for "
        "the test (twin identify dmegc)",
    }
    return sheet(
        "dmegc26_measured",
        "DMEGC INR18650 2.6 Ah, NMC | graphite, identified at 25 degC and 10 s sampling",
        "NMC | graphite",
        "18650 cylindrical",
        {
            "capacity_Ah": (capacity_Ah, "cta", "C/20 at 25 degC"),
            "voltage_min_V": (2.5, "cta", ""),
            "voltage_max_V": (4.2, "sheet", ""),
            "temperature_min_K": (CELSIUS_K - 20, "sheet", ""),
            "temperature_max_K": (CELSIUS_K + 60, "sheet", ""),
            "charge_current_max_A": (2.6, "sheet", "continuous"),
            "discharge_current_max_A": (7.8, "sheet", "continuous"),
            "mass_kg": (0.045, "sheet", ""),
            "heat_capacity_J_per_K": (42.8, "heat", "0 to 60 degC"),
            "reference_temperature_K": (298.15, "cta", ""),
        },
        ("fit", "C/20 discharge (cta) and runs together"),
        {298.15: fit},
        {"R2 rw_data 25degC": float(np.sqrt(np.mean(np.square(errors))))},
        sources,
    )


def lgm50_measured(data: Path | None) -> dict[str, Any]:
    """Measured LG M50 from discharges at C/10, C/2 and 1C; 1.5C and 2C are the test."""
    folder = _needs(data, "lgm50_measured")
    capacity_Ah = 4.95
    runs = measured.m50_rates(folder, capacity_Ah)
    ocv_soc = np.unique(np.concatenate([OCV_KNOTS, np.arange(0.2, 1.0, 0.025).round(3)]))
    known = Known(ocv_soc, np.maximum.accumulate(measured.m50_open_circuit(folder, ocv_soc)))
    pulses = measured.m50_pulses(folder, known.ocv_soc, known.ocv_V, capacity_Ah)
    fits, tests = {}, {}
    for ambient_K in (273.15, 298.15, 318.15):
        here = [run for run in runs if run.ambient_K == ambient_K]
        training = [run for run in here if run.name in ("0p1C", "0p5C", "1C")]
        training += [run for run in pulses if run.ambient_K == ambient_K and not run.name.endswith("Cell1")]
        fits[ambient_K] = fit_cell(training, weights(training, 0.03), KNOTS, ocv_soc, capacity_Ah, known)
        for run in here:
            if run.name in ("1p5C", "2C"):
                rmse_V = held_out_rmse_V(fits[ambient_K], KNOTS, run, capacity_Ah, np.zeros(1))
                tests[f"{run.name} {ambient_K - CELSIUS_K:.0f}degC"] = rmse_V
    sources = {
        "pybop": "measured LG M50 cells, PyBOP examples/data (BSD-3-Clause): mean OCV, "
        "discharges at C/10 to 2C",
        "sheet": "LG Chem INR21700-M50 product figures, recalled, not checked here (5 Ah, 2.5 to 4.2 V, "
        "1.5C discharge, 0.7C charge, 68.5 g)",
        "heat": "mass times 950 J/(kg K), a usual value for 21700 cells (assumption; range "
        "in print 880 to 1050)",
        "guess": GUESS,
        "fit": "least squares on discharges at C/10, C/2 and 1C and on pulses of 10 s at 0, 25 and 45 degC "
        "chamber; the cells warm by up "
        "to 10 K meanwhile; 1.5C and 2C kept for the test (twin identify lgm50_measured)",
    }
    return sheet(
        "lgm50_measured",
        "LG M50 5 Ah, NMC811 | graphite-SiOx, identified from measured discharges and pulses",
        "NMC811 | graphite-SiOx",
        "21700 cylindrical",
        {
            "capacity_Ah": (capacity_Ah, "pybop", "C/10 at 25 degC"),
            "voltage_min_V": (2.5, "sheet", ""),
            "voltage_max_V": (4.2, "sheet", ""),
            "temperature_min_K": (CELSIUS_K - 20, "sheet", "discharge; charge from 0 degC"),
            "temperature_max_K": (CELSIUS_K + 60, "sheet", ""),
            "charge_current_max_A": (3.5, "sheet", "continuous"),
            "discharge_current_max_A": (7.5, "sheet", "continuous"),
            "mass_kg": (0.0685, "sheet", ""),
            "heat_capacity_J_per_K": (65.0, "heat", "0 to 60 degC"),
            "reference_temperature_K": (298.15, "pybop", ""),
        },
        ("pybop", "mean of charge and discharge at 25 degC"),
        fits,
        tests,
        sources,
    )


MEASURED: dict[str, Callable[[Path | None], dict[str, Any]]] = {
    "inr20r": inr20r,
    "lfp_1p2": lfp_1p2,
    "a123": a123,
    "leaf": leaf,
    "samsung30q": samsung30q,
    "dmegc": dmegc,
    "lgm50_measured": lgm50_measured,
}


# ---- files of a user -----------------------------------------------------------------------------

SAME_K = 4.0  # runs whose mean temperatures are this close are fitted together
SMALLEST_SAMPLES = 200


class IdentifyError(ValueError):
    """Runs that no circuit can be identified from; names the run, the value and what is expected."""

    exit_code = 2


def _check_run(run: Measured) -> None:
    if run.time_s.size < SMALLEST_SAMPLES:
        raise IdentifyError(f"{run.name}: {run.time_s.size} samples; at least {SMALLEST_SAMPLES} are needed")
    if float(np.ptp(run.current_A)) < 1e-3 * max(float(np.abs(run.current_A).max()), 1e-9):
        raise IdentifyError(f"{run.name}: the current never changes; pulses or a drive cycle are needed")
    outside = np.flatnonzero((run.soc < -0.05) | (run.soc > 1.05))
    if outside.size:
        k = int(outside[0])
        raise IdentifyError(
            f"{run.name}, row {k + 1}: counted charge is at {100 * run.soc[k]:.0f} %; expected 0 to 100 %: "
            "check sign, capacity and initial state of charge"
        )


def from_runs(
    name: str,
    runs: Sequence[Measured],
    tests: Sequence[Measured],
    capacity_Ah: float,
    source: str,
    known: Known | None = None,
    chemistry: str = "not stated",
) -> dict[str, Any]:
    """A catalogue entry from runs of one cell; IdentifyError when they do not say enough.

    runs, tests : with their state of charge counted; the latter are not fitted, the error on them is stated
    source : where the measurements come from and their licence, for the file
    known : open circuit; without it, it is fitted along with the circuit
    """
    for run in [*runs, *tests]:
        _check_run(run)
    means_K = [float(np.mean(run.temperature_K)) for run in runs]
    groups: list[list[int]] = []
    for k in np.argsort(means_K):
        if groups and means_K[k] - means_K[groups[-1][0]] <= SAME_K:
            groups[-1].append(int(k))
        else:
            groups.append([int(k)])
    by_K = {
        round(float(np.mean([means_K[k] for k in group])), 2): [runs[k] for k in group] for group in groups
    }
    order = sorted(by_K, key=lambda kelvin: abs(kelvin - 298.15))
    gap_V = None if known is None else known.hysteresis_V
    fits: dict[float, CellFit] = {}
    for kelvin in order:
        thinning = max(1, sum(run.time_s.size for run in by_K[kelvin]) // 20_000)
        here = by_K[kelvin]
        fits[kelvin] = fit_cell(
            here, weights(here, -1.0), KNOTS, OCV_KNOTS, capacity_Ah, known, thinning=thinning
        )
        if known is None or not known.fixed:
            known = Known(fits[order[0]].ocv_soc, fits[order[0]].ocv_V)
    errors = {}
    for run in tests:
        nearest = min(fits, key=lambda kelvin: abs(kelvin - float(np.mean(run.temperature_K))))
        errors[run.name] = held_out_rmse_V(
            fits[nearest], KNOTS, run, capacity_Ah, np.zeros(1) if gap_V is None else gap_V
        )
    volts = np.concatenate([run.voltage_V for run in runs])
    amps = np.concatenate([run.current_A for run in runs])
    kelvins = np.concatenate([run.temperature_K for run in runs])
    range_of = "range of the measurements, not a limit of the maker"
    return sheet(
        name,
        f"identified from {len(runs)} measured run(s)",
        chemistry,
        "not stated",
        {
            "capacity_Ah": (capacity_Ah, "user", "as stated to twin identify"),
            "voltage_min_V": (float(volts.min()), "user", range_of),
            "voltage_max_V": (float(volts.max()), "user", range_of),
            "temperature_min_K": (float(kelvins.min()) - 0.1, "user", range_of),
            "temperature_max_K": (float(kelvins.max()) + 0.1, "user", range_of),
            "charge_current_max_A": (max(float(-amps.min()), 0.1 * capacity_Ah), "user", range_of),
            "discharge_current_max_A": (max(float(amps.max()), 0.1 * capacity_Ah), "user", range_of),
            "mass_kg": (0.016 * capacity_Ah, "guess", "16 g per Ah, a usual value"),
            "heat_capacity_J_per_K": (15.2 * capacity_Ah, "guess", "950 J/(kg K) times that mass"),
            "reference_temperature_K": (order[0], "user", ""),
        },
        ("user", "given")
        if known is not None and known.hysteresis_V is not None
        else ("fit", "with the circuit"),
        fits,
        errors,
        {
            "user": source,
            "guess": GUESS,
            "fit": "least squares on " + ", ".join(run.name for run in runs) + " (twin identify)",
        },
        hysteresis_V=gap_V,
    )
