"""Cells of the catalogue as the filters of `twin.analytics.soc` want them, and the filter of the firmware."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
SMALLEST_RISE_V = 1e-6


def cell_names() -> tuple[str, ...]:
    """Cells of the catalogue."""
    from pack_models.catalogue import cell_names

    return cell_names()


@lru_cache(maxsize=16)
def filter_tables(cell: str) -> dict[str, Any]:
    """A catalogue cell as the fields of `twin.analytics.soc.FilterModel`, on the grids of the firmware."""
    from pack_models.catalogue import cell as catalogue_cell
    from pack_models.cells import compact

    design = catalogue_cell(cell)
    tables = compact.compact_tables(design)
    return {
        "capacity_Ah": design.capacity_Ah,
        "ocv_soc": compact.OCV_SOC,
        "ocv_V": tables.ocv_V,
        "hysteresis_V": tables.hysteresis_V,
        "entropic_V_per_K": tables.entropic_V_per_K,
        "hysteresis_rate": design.hysteresis_rate,
        "reference_K": design.reference_temperature_K,
        "table_soc": compact.TABLE_SOC,
        "table_temperature_K": compact.TABLE_TEMPERATURE_K,
        "resistance0_ohm": tables.resistance0_ohm,
        "resistance1_ohm": tables.resistance1_ohm,
        "resistance2_ohm": tables.resistance2_ohm,
        "time_constant1_s": tables.time_constant1_s,
        "time_constant2_s": tables.time_constant2_s,
        "model_sigma_V": tables.residual_V,
    }


def firmware_soc(
    tables: Mapping[str, Any],
    settings: Mapping[str, float],
    time_s: FloatArray,
    voltage_V: FloatArray,
    current_A: FloatArray,
    temperature_K: FloatArray,
    start: tuple[float, float],
) -> tuple[FloatArray, FloatArray]:
    """The filter of the firmware (C, float32) over a recording: state of charge and its sigma, (n,) each.

    tables, settings : fields of `twin.analytics.soc.FilterModel` and `FilterSettings`; start: soc, sigma
    """
    from bms_emulator.firmware.estimators import NativeEstimator, default_parameters

    capacity_Ah = float(tables["capacity_Ah"])
    params = default_parameters(capacity_Ah, estimator_parameters(tables) | estimator_settings(settings))
    dt_s = np.diff(time_s, prepend=time_s[0])
    frames = np.stack([dt_s, current_A, current_A, voltage_V, temperature_K], axis=1)
    out = NativeEstimator(params, *start, capacity_Ah).play(frames)
    return out["soc"].astype(np.float64), out["soc_sigma"].astype(np.float64)


def estimator_parameters(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `FilterModel` as rows of the firmware's parameter set; a flat plateau is made to rise."""
    ocv_V = np.maximum.accumulate(
        np.asarray(tables["ocv_V"]) + SMALLEST_RISE_V * np.arange(len(tables["ocv_V"]))
    )
    return {
        "est_ocv_V": ocv_V,
        "est_hysteresis_V": tables["hysteresis_V"],
        "est_entropic_V_per_K": tables["entropic_V_per_K"],
        "est_resistance0_ohm": tables["resistance0_ohm"],
        "est_resistance1_ohm": tables["resistance1_ohm"],
        "est_resistance2_ohm": tables["resistance2_ohm"],
        "est_time_constant1_s": tables["time_constant1_s"],
        "est_time_constant2_s": tables["time_constant2_s"],
        "est_model_sigma_V": tables["model_sigma_V"],
        "est_hysteresis_rate": tables["hysteresis_rate"],
        "est_reference_K": tables["reference_K"],
    }


def estimator_settings(settings: Mapping[str, float]) -> dict[str, float]:
    """Fields of `FilterSettings` as rows of the firmware's parameter set."""
    return {f"est_{name}": value for name, value in settings.items()}
