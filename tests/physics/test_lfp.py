"""The 280 Ah LFP cell: its circuit on data that was not fitted, its hysteresis, its data sheet."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from pack_models.catalogue import cell
from pack_models.cells.measured import LFP_CAPACITY_AH, lfp_flat_zone
from pack_models.cells.replay import replay, rmse_mV

DATA = Path(os.environ.get("TWIN_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "battery"
LARGE = cell("lfp280")


@pytest.fixture(scope="module")
def held_out():
    path = DATA / "lfp_flatzone_25c_1hz.parquet"
    if not path.exists():
        pytest.skip(f"measured data not here: {path}")
    run = lfp_flat_zone(DATA)
    return run, run.time_s.size // 2


@pytest.fixture(scope="module")
def small():
    """The measured cell: the large one scaled back."""
    scale = LARGE.capacity_Ah / LFP_CAPACITY_AH
    ohms = {f"resistance{k}_ohm": getattr(LARGE, f"resistance{k}_ohm") * scale for k in range(3)}
    return dataclasses.replace(LARGE, capacity_Ah=LFP_CAPACITY_AH, **ohms)


def replayed_mV(design, held_out):
    run, half = held_out
    soc = float(run.soc[half])
    model_V = replay(design, run.time_s[half:], run.current_A[half:], 298.15, soc)
    return rmse_mV(model_V, run.voltage_V[half:])


def test_circuit_on_the_half_that_was_not_fitted(small, held_out):
    assert replayed_mV(small, held_out) < 6.5


def test_hysteresis_is_needed(small, held_out):
    without = dataclasses.replace(small, hysteresis_V=np.zeros(small.ocv_soc.size))
    assert replayed_mV(without, held_out) > 2.0 * replayed_mV(small, held_out)


def test_scaled_cell_is_as_stiff_as_a_sheet_says():
    """Ten seconds at 25 degC and half charge: 280 Ah cells are sold with 0.15 to 0.5 mohm."""
    rise = 1.0 - np.exp(-10.0 / np.array([LARGE.time_constant1_s, LARGE.time_constant2_s]))
    ohms = [np.interp(0.5, LARGE.table_soc, getattr(LARGE, f"resistance{k}_ohm")[3]) for k in range(3)]
    assert 0.1e-3 < ohms[0] + ohms[1] * rise[0, 3] + ohms[2] * rise[1, 3] < 0.5e-3
