"""The compiled step of the equivalent-circuit bank: all cells of all packs in one call of `ecm_step.c`.

A step holds the current of each cell. Then every branch has an exact solution,

    soc' = soc - I dt / Q        v_i' = a_i v_i + R_i (1 - a_i) I,   a_i = exp(-dt / tau_i)
    h'   = -s + (h + s) exp(-rate |I| dt / Q),   s = sign(I)
    V'   = U(soc', T) + M h' - v_1' - v_2' - R_0 I

with the parameters taken at the temperature given and at the middle of the step's state of charge (from
the mean current of the group: second order, and known beforehand). Cells in parallel share the current
so that their voltages at the END of the step agree: implicit in time, hence stable for any step, also
between two cells that differ only by their state of charge.

In a group every cell is linearised at its current, V = e - r I; a short of conductance S across it and a
link of L ohm to the group (an opened fuse: 1 Gohm) make e / (1 + r S) and r / (1 + r S) + L of it. The group
is then V = (sum e/r - I) / (sum 1/r + shunts): Kirchhoff's current law holds to rounding in every round of
this Newton iteration. Without hysteresis a round is exact as soon as no cell leaves the straight piece of
its open circuit; otherwise it ends when the voltages agree to 1e-10 V, or after 25 rounds in bisection.

Energies use the mean of U over the step from the exact integral of the table. With the mean voltage of
the group (behind links: of the cell, the group's plus the drop of the link), the heat of a cell is
I (U_mean - V_mean) - I T dU/dT (Bernardi, Pawlikowski, Newman, J. Electrochem. Soc. 132 (1985) 5, without
mixing and phase change), and what the cells give up equals terminals + heat + shorts + balancing +
busbars and links to rounding whatever V_mean is.

Structures here mirror those of the C source field by field.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pack_models.cells.tables import CellTables, StepTables
from pack_models.compiled import load, structure

FloatArray = NDArray[np.float64]

SOURCE = Path(__file__).with_name("ecm_step.c")
LARGEST_GROUP = 512  # cells in parallel that the scratch of a block holds
SCRATCH_COLUMNS, SCRATCH_STRIDE = 24, 520

_POINTER, _INTEGER, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class Tables(ctypes.Structure):
    """Tables of a cell and of a step length."""

    _fields_ = [
        *((name, _POINTER) for name in ("curve", "gap", "ohm", "decay")),
        *(
            (name, _REAL)
            for name in ("dt_s", "reference_K", "hysteresis_rate", "valid_low_K", "valid_high_K")
        ),
        *((name, _INTEGER) for name in ("has_entropy", "layers")),
    ]


class Wires(ctypes.Structure):
    """Offsets of `Layout` and the resistors around the cells: busbar_ohm in series with each group,
    balancing_S across it while it is balanced, both (n_groups,)."""

    _fields_ = [
        *((name, _POINTER) for name in ("pack_group_start", "group_cell_start", "busbar_ohm", "balancing_S")),
        ("n_packs", _INTEGER),
    ]


class Cells(ctypes.Structure):
    """State and individual factors of all cells, (n_cells,) each: soc 0…1 · v1_V, v2_V voltages of the RC
    branches · hysteresis -1…1 (1 after charge) · current_A through the cell · heat_W mean of the step ·
    per_charge 1/C, one over the charge a full cell holds · resistance_factor · wear 0…1, place between the
    layers of the tables · short_S conductance of an internal short · link_ohm to the group; and special
    (n_packs,), whether a cell of the pack has a short or a link."""

    _fields_ = [
        (name, _POINTER)
        for name in (
            *("soc", "v1_V", "v2_V", "hysteresis", "current_A", "heat_W"),
            *("per_charge", "resistance_factor", "wear", "short_S", "link_ohm", "special"),
        )
    ]


class Packs(ctypes.Structure):
    """Results per group and pack."""

    _fields_ = [
        (name, _POINTER)
        for name in ("group_voltage_V", "pack_voltage_V", "pack_power_W", "ledger", "outside")
    ]


def step_structure(tables: CellTables, step: StepTables, valid_low_K: float, valid_high_K: float) -> Any:
    """What a step of one length needs of a cell design."""
    return structure(
        Tables,
        curve=tables.curve,
        gap=tables.hysteresis_V,
        ohm=step.ohm,
        decay=step.decay,
        dt_s=step.dt_s,
        reference_K=tables.reference_K,
        hysteresis_rate=tables.hysteresis_rate,
        valid_low_K=valid_low_K,
        valid_high_K=valid_high_K,
        has_entropy=int(tables.has_entropy),
        layers=tables.layers,
    )


def library() -> Any:
    """The compiled functions, with their argument types."""
    compiled = load(SOURCE)
    if compiled.ecm_step.argtypes is None:
        four = [_POINTER] * 4
        for name, arguments in {
            "ecm_step": [*four, *[_POINTER] * 4],
            "ecm_thevenin": [*four[:3], *[_POINTER] * 5],
            "ecm_slope": [*four[:2], _INTEGER, *[_POINTER] * 4],
            "ecm_share": [*four[:2], _INTEGER, _REAL, _REAL, _POINTER, _INTEGER, _POINTER, _POINTER],
        }.items():
            function = getattr(compiled, name)
            function.argtypes, function.restype = arguments, None
    return compiled


def scratch() -> FloatArray:
    """Work space of a block, 64-byte aligned."""
    raw = np.zeros(SCRATCH_COLUMNS * SCRATCH_STRIDE + 8)
    shift = (-raw.ctypes.data // 8) % 8
    return raw[shift : shift + SCRATCH_COLUMNS * SCRATCH_STRIDE]


def slopes(
    tables: CellTables,
    step: StepTables,
    soc: FloatArray,
    current_A: FloatArray,
    per_charge: FloatArray,
    resistance_factor: FloatArray,
    temperature_K: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Per cell (n_cells,), how much the voltage at the end of a step falls per ampere, and the part of it
    that is the change of the open circuit; relaxed branches, without hysteresis."""
    none = np.zeros(soc.size)
    given = structure(
        Cells,
        soc=soc,
        v1_V=none,
        v2_V=none,
        hysteresis=none,
        current_A=current_A,
        heat_W=none,
        per_charge=per_charge,
        resistance_factor=resistance_factor,
        wear=none,
        short_S=none,
        link_ohm=none,
        special=np.zeros(1, dtype=np.uint8),
    )
    plain = step_structure(tables._replace(hysteresis_rate=0.0), step, 0.0, np.inf)
    slope_ohm, drift_ohm, work = np.empty(soc.size), np.empty(soc.size), scratch()
    library().ecm_slope(
        ctypes.addressof(plain),
        ctypes.addressof(given),
        soc.size,
        temperature_K.ctypes.data,
        work.ctypes.data,
        slope_ohm.ctypes.data,
        drift_ohm.ctypes.data,
    )
    return slope_ohm, drift_ohm
