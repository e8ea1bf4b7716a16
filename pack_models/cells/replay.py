"""Plays a recorded current through one circuit cell: the way identifications are tested.

voltage_V = replay(cell("lgm50_chen2020"), time_s, current_A, temperature_K, soc=1.0)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pack_models.catalogue.design import CellDesign
from pack_models.cells.ecm import EcmBank
from pack_models.layout import Layout

FloatArray = NDArray[np.float64]


def replay(
    design: CellDesign, time_s: FloatArray, current_A: FloatArray, temperature_K: ArrayLike, soc: float
) -> FloatArray:
    """(n,) voltage of one cell, current_A[k] held from time_s[k - 1] to time_s[k]; sample 0 at rest.

    temperature_K : (n,) or one number; `soc` 0…1 at the start.
    """
    layout = Layout.uniform(1, 1, 1, 1)
    temperature_K = np.broadcast_to(np.asarray(temperature_K, dtype=float), time_s.shape)
    bank = EcmBank(design, layout, soc, temperature_K=float(temperature_K[0]))
    voltage_V = np.empty(time_s.size)
    voltage_V[0] = bank.pack_voltage_V[0]
    steps_s = np.round(np.diff(time_s), 6)  # equal steps share their tables
    for k in range(1, time_s.size):
        bank.step(current_A[k : k + 1], temperature_K[k : k + 1], float(steps_s[k - 1]))
        voltage_V[k] = bank.pack_voltage_V[0]
    return voltage_V


def rmse_mV(model_V: FloatArray, reference_V: FloatArray) -> float:
    """Root mean square difference in mV."""
    return float(1e3 * np.sqrt(np.mean((model_V - reference_V) ** 2)))
