"""What the twin of a pack needs of the engines: the catalogue's circuit in full, an ageing law on a duty."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
YEAR_S = 365.25 * 86400.0


@lru_cache(maxsize=16)
def circuit_tables(pack_design: str) -> dict[str, Any]:
    """The cell of a pack as the fields of `twin.analytics.soc.FilterModel`, on the catalogue's own grids."""
    from pack_models.catalogue import pack
    from pack_models.cells.tables import arrhenius

    cell = pack(pack_design).cell
    soc = np.unique(np.concatenate([np.linspace(0.0, 1.0, 51), cell.table_soc]))
    # As the circuit itself: between the identified temperatures on Arrhenius lines, here every 2.5 K.
    kelvin = np.arange(243.15, 343.2, 2.5)

    def over(table: FloatArray) -> FloatArray:
        rows = np.stack([np.interp(soc, cell.table_soc, row) for row in table])
        return arrhenius(cell.table_temperature_K, rows, kelvin)

    return {
        "capacity_Ah": cell.capacity_Ah,
        "ocv_soc": cell.ocv_soc,
        "ocv_V": cell.ocv_V,
        "hysteresis_V": np.interp(soc, cell.ocv_soc, cell.hysteresis_V),
        "entropic_V_per_K": np.interp(soc, cell.ocv_soc, cell.entropic_V_per_K),
        "hysteresis_rate": cell.hysteresis_rate,
        "reference_K": cell.reference_temperature_K,
        "table_soc": soc,
        "table_temperature_K": kelvin,
        "resistance0_ohm": over(cell.resistance0_ohm),
        "resistance1_ohm": over(cell.resistance1_ohm),
        "resistance2_ohm": over(cell.resistance2_ohm),
        "time_constant1_s": arrhenius(cell.table_temperature_K, cell.time_constant1_s, kelvin),
        "time_constant2_s": arrhenius(cell.table_temperature_K, cell.time_constant2_s, kelvin),
        "model_sigma_V": np.zeros(kelvin.size),
    }


def aged_curves(pack_design: str) -> dict[str, FloatArray] | None:
    """Open circuits of the aged cell as the fields of `AgedCurves`; None where the catalogue has none."""
    from pack_models.catalogue import pack

    cell = pack(pack_design).cell
    return {"capacity": cell.aged_soh, "ocv_V": cell.aged_ocv_V} if cell.aged_soh.size else None


def supply_K(pack_design: str) -> float | None:
    """What the coolant of a pack enters at by its data sheet; None for outside air."""
    from pack_models.catalogue import pack

    return pack(pack_design).thermal.supply_temperature_K


def law_for(pack_design: str) -> str:
    """The ageing law of the chemistry nearest to a pack's cell."""
    from pack_models.catalogue import pack

    return "naumann_lfp" if "LFP" in pack(pack_design).cell.chemistry.upper() else "schmalstieg_nmc"


def loss_curve(
    law: str, time_s: FloatArray, soc: FloatArray, temperature_K: FloatArray, years: float = 40.0
) -> tuple[FloatArray, FloatArray]:
    """(years, loss) of an ageing law under a duty repeated for ever, from new; growing, one point per month.

    time_s, soc, temperature_K : (n,) the duty, evenly sampled
    """
    from pack_models.ageing import AgeingBank

    step_s = max(float(np.median(np.diff(time_s))), 600.0)
    grid = np.arange(time_s[0], time_s[-1] + 1e-9, step_s)
    duty_soc, duty_K = np.interp(grid, time_s, soc), np.interp(grid, time_s, temperature_K)
    bank = AgeingBank.from_model(law, 1, soc=float(duty_soc[0]), refresh_every_s=1e12)
    passes = max(1, int(np.ceil(2 * 30 * 86400.0 / (grid.size * step_s))))
    for _ in range(passes):  # two months of the duty give the rates; the laws are powers of their sums
        for charge, kelvin in zip(duty_soc, duty_K, strict=True):
            bank.accumulate(np.array([charge]), np.array([kelvin]), step_s)
    bank.refresh()
    seen_s = passes * grid.size * step_s
    at = np.arange(0, int(12 * years) + 1) / 12.0
    powers = bank.model.powers
    ratio = at * YEAR_S / seen_s
    loss = bank.parts[0, 0] * ratio ** powers[0] + bank.parts[0, 2] * ratio ** powers[2]
    return at, np.maximum.accumulate(loss)
