"""Cells of the catalogue as the filters of `twin.analytics.soc` want them, and the filter of the firmware."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


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
