"""The recipe of the 280 Ah LFP cell: a small LFP cell measured in the flat zone, scaled by capacity.

No 280 Ah cell is measured at hand. The electrodes of an energy cell of the same chemistry are alike per
ampere-hour: open circuit, hysteresis and time constants are taken as measured on 1.2 Ah, resistances times
1.2/280, and temperature enters with published activation energies. What that gives for the large cell is
checked against its data sheet in `tests/physics/test_lfp.py`, and the circuit against the half of the
record that was not fitted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pack_models.cells.fit import CircuitFit, Record, fit_circuit
from pack_models.cells.measured import LFP_CAPACITY_AH, Measured, lfp_flat_zone, lfp_open_circuit

FloatArray = NDArray[np.float64]

CAPACITY_AH = 280.0
CELSIUS_K = 273.15
GAS_J_PER_MOL_K = 8.314462618
FITTED_SOC = np.round(np.linspace(0.2, 0.8, 7), 3)  # where the record goes
TABLE_SOC = np.array([0.0, *FITTED_SOC, 1.0])
TABLE_TEMPERATURE_K = CELSIUS_K + np.array([-10.0, 0.0, 10.0, 25.0, 40.0, 55.0])
OCV_SOC = np.unique(
    np.round(
        np.concatenate(
            [np.arange(0, 0.1, 0.0025), np.arange(0.1, 0.96, 0.01), np.arange(0.96, 1.0001, 0.0025)]
        ),
        4,
    )
)
HYSTERESIS_RATE = 10.0  # of 5, 10, 20, 40, 80 the one with the smallest residual
WIDEST_GAP_SOC = 0.05  # below, the measured gap is polarisation of an empty cell
# J/mol: ohmic (electrolyte), charge transfer, diffusion
ACTIVATION_J_PER_MOL = (17_100.0, 37_350.0, 30_300.0)

SOURCES = {
    "flat_zone": "1.2 Ah LFP cell, 25 degC: 25 h of dynamic load in the flat zone and both branches "
    "of the open circuit; github terencetaothucb/LFP-SOC-Estimation-Fisher-Information-Fusion (MIT)",
    "fit": "least squares on the first half of that load (pack_models.cells.identify lfp280), times 1.2/280",
    "activation": "Arrhenius factors from 25 degC: ohmic part as the electrolyte's conductivity, 17.1 kJ/mol "
    "(parameter set Ecker2015 of PyBaMM 26.10.1.1); fast branch as the charge transfer of LiFePO4, mean of "
    "33.8 and 40.9 kJ/mol for charge and discharge (Electrochim. Acta 60 (2012) 269); slow branch as "
    "diffusion in graphite, 30.3 kJ/mol (parameter set OKane2022 of PyBaMM 26.10.1.1)",
    "sheet": "figures usual for the 280 Ah prismatic cells of several makers (72 x 174 x 204 mm, 5.4 kg, "
    "2.5 to 3.65 V, 0.5C continuous, 1C permitted), recalled, not checked here",
    "heat": "mass times 1000 J/(kg K), a usual value for large LFP cells (assumption; in print 900 to 1300)",
    "guess": "not identified: zero (no measured entropic coefficient of this cell at hand)",
}
NUMBERS: dict[str, tuple[float, str, str]] = {
    "capacity_Ah": (CAPACITY_AH, "sheet", "nominal, 25 degC"),
    "voltage_min_V": (2.5, "sheet", ""),
    "voltage_max_V": (3.65, "sheet", ""),
    "temperature_min_K": (CELSIUS_K - 30, "sheet", "discharge; charge from 0 degC"),
    "temperature_max_K": (CELSIUS_K + 60, "sheet", ""),
    "charge_current_max_A": (140.0, "sheet", "0.5C continuous"),
    "discharge_current_max_A": (140.0, "sheet", "0.5C continuous; 1C for minutes"),
    "mass_kg": (5.42, "sheet", ""),
    "heat_capacity_J_per_K": (5420.0, "heat", "0 to 60 degC"),
    "reference_temperature_K": (298.15, "flat_zone", ""),
    "hysteresis_rate": (HYSTERESIS_RATE, "fit", "the residual changes little from 5 to 20"),
}


def hysteresis_state(run: Measured, rate: float) -> FloatArray:
    """(n,) one-state hysteresis along a run, from 0."""
    step_s = np.diff(run.time_s, prepend=run.time_s[0])
    state, out = 0.0, np.empty(run.time_s.size)
    for k, (amps, seconds) in enumerate(zip(run.current_A, step_s, strict=True)):
        if amps != 0.0:
            toward = -np.sign(amps)
            state = toward + (state - toward) * np.exp(-rate * abs(amps) * seconds / 3600.0 / LFP_CAPACITY_AH)
        out[k] = state
    return out


def curves(data: Path) -> tuple[FloatArray, FloatArray]:
    """Mean open circuit and half the distance of the branches (V) over OCV_SOC."""
    discharge_V, charge_V = lfp_open_circuit(data, OCV_SOC)
    half_V = 0.5 * (charge_V - discharge_V)
    widest_V = float(np.interp(WIDEST_GAP_SOC, OCV_SOC, half_V))
    mean_V = np.maximum.accumulate(0.5 * (discharge_V + charge_V))
    # The record goes down to 2.0 V; here empty is the lower voltage of the sheet, 0.1 % of charge above.
    return np.maximum(mean_V, NUMBERS["voltage_min_V"][0]), np.clip(half_V, 0.0, widest_V)


def fit_small_cell(data: Path) -> CircuitFit:
    """The circuit of the 1.2 Ah cell at 25 degC from the first half of the record."""
    run = lfp_flat_zone(data)
    ocv_V, half_V = curves(data)
    state = hysteresis_state(run, HYSTERESIS_RATE)
    open_V = np.interp(run.soc, OCV_SOC, ocv_V) + state * np.interp(run.soc, OCV_SOC, half_V)
    used = slice(1, run.time_s.size // 2)
    record = Record(
        np.diff(run.time_s)[: used.stop - 1],
        run.current_A[used],
        run.soc[used],
        (open_V - run.voltage_V)[used],
        np.ones(used.stop - 1),
    )
    return fit_circuit([record], FITTED_SOC, bounds_s=((3.0, 60.0), (120.0, 3000.0)), thinning=20)


def lfp280(data: Path | None) -> dict[str, Any]:
    """280 Ah prismatic LFP cell: measured small cell, scaled; published activation energies."""
    if data is None:
        raise SystemExit("recipe lfp280 needs --data, the folder with lfp_*.parquet")
    fit = fit_small_cell(data)
    ocv_V, half_V = curves(data)
    scale = LFP_CAPACITY_AH / CAPACITY_AH
    x = 1.0 / TABLE_TEMPERATURE_K - 1.0 / 298.15
    factor = [np.exp(energy / GAS_J_PER_MOL_K * x) for energy in ACTIVATION_J_PER_MOL]
    ohms = (fit.resistance0_ohm, fit.resistance1_ohm, fit.resistance2_ohm)
    valid = "25 degC, 20 to 80 % charge, up to 2C; the nearest knot beyond"
    return {
        "name": "lfp280",
        "about": "280 Ah prismatic LFP cell: hysteresis and circuit of a measured 1.2 Ah cell, scaled",
        "chemistry": "LFP | graphite",
        "form": "prismatic 72 x 174 x 204 mm",
        "pybamm": None,
        "numbers": NUMBERS,
        "curves": {
            "ocv_soc": (OCV_SOC, "flat_zone", ""),
            "ocv_V": (ocv_V, "flat_zone", "mean of both branches at 25 degC"),
            "entropic_V_per_K": (np.zeros(OCV_SOC.size), "guess", ""),
            "hysteresis_V": (half_V, "flat_zone", "half the distance of the branches, below 5 % as at 5 %"),
            "table_soc": (TABLE_SOC, "fit", ""),
            "table_temperature_K": (TABLE_TEMPERATURE_K, "activation", ""),
            **{
                f"resistance{k}_ohm": (
                    np.outer(factor[k], np.pad(ohms[k], 1, mode="edge")) * scale,
                    "activation",
                    valid,
                )
                for k in range(3)
            },
            "time_constant1_s": (
                np.full(x.size, fit.time_constant1_s),
                "fit",
                "assumed the same at all temperatures",
            ),
            "time_constant2_s": (
                np.full(x.size, fit.time_constant2_s),
                "fit",
                "assumed the same at all temperatures",
            ),
        },
        "fit": {"rmse_25degC_mV": round(1e3 * fit.rmse_V, 2)},
        "sources": SOURCES,
    }
