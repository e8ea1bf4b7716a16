"""What all cell banks share: checks of what comes in, the window report, and building one from a pack design.

Current is positive on discharge, heat positive into the cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pack_models.catalogue.design import CellDesign
from pack_models.cells import ecm_kernel as kernel
from pack_models.layout import Layout

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class OutOfWindow:
    """One quantity of one cell outside the window its model was made for."""

    cell: int
    where: str
    quantity: str
    value: float
    low: float
    high: float
    design: str

    def __str__(self) -> str:
        return (
            f"cell {self.cell} ({self.where}): {self.quantity} {self.value:.4g} is outside the window of "
            f"{self.design} ({self.low:.4g} to {self.high:.4g})"
        )


def window_report(
    design: CellDesign,
    layout: Layout,
    soc: FloatArray,
    group_voltage_V: FloatArray,
    temperature_K: FloatArray | None = None,
) -> list[OutOfWindow]:
    """Every cell that stands outside 0…1, its voltage limits or the identified temperatures, in order."""
    checks = [
        ("state of charge", soc, 0.0, 1.0),
        ("voltage in V", group_voltage_V[layout.cell_group], design.voltage_min_V, design.voltage_max_V),
    ]
    if temperature_K is not None:
        low, high = design.table_temperature_K[0], design.table_temperature_K[-1]
        checks.append(("temperature in K", temperature_K, float(low), float(high)))
    found = [
        OutOfWindow(
            int(cell), layout.cell_name(int(cell)), quantity, float(value[cell]), low, high, design.name
        )
        for quantity, value, low, high in checks
        for cell in np.flatnonzero((value < low) | (value > high))
    ]
    return sorted(found, key=lambda entry: entry.cell)


def per_item(name: str, value: ArrayLike, n: int, what: str, low: float, high: float = np.inf) -> FloatArray:
    """A fresh (n,) float array from a number or an array; every entry finite and within low < x < high."""
    raw = np.asarray(value, dtype=float)
    if raw.ndim and raw.shape != (n,):
        raise ValueError(f"{name} has shape {raw.shape}; expected one number or one for each of {n} {what}s")
    full = np.array(np.broadcast_to(raw, (n,)))
    bad = np.flatnonzero(~(np.isfinite(full) & (full > low) & (full < high)))
    if bad.size:
        raise ValueError(
            f"{name} of {what} {bad[0]} is {full[bad[0]]:g}; expected more than {low:g}"
            + (f" and less than {high:g}" if np.isfinite(high) else "")
        )
    return full


def check_step_s(dt_s: float) -> None:
    """A step must be a positive, finite time."""
    if not (np.isfinite(dt_s) and dt_s > 0.0):
        raise ValueError(f"dt_s is {dt_s!r}; expected a positive number of seconds")


def check_temperature(temperature_K: FloatArray, layout: Layout) -> FloatArray:
    """(n_cells,) finite and above zero kelvin, or an error that names the first bad cell."""
    temperature_K = np.ascontiguousarray(temperature_K, dtype=float)
    if temperature_K.shape != (layout.n_cells,):
        raise ValueError(f"temperature_K has shape {temperature_K.shape}; expected ({layout.n_cells},)")
    if not (temperature_K.min() > 0.0 and temperature_K.max() < np.inf):  # NaN fails both
        bad = int(np.flatnonzero(~(np.isfinite(temperature_K) & (temperature_K > 0.0)))[0])
        raise ValueError(
            f"temperature of cell {bad} ({layout.cell_name(bad)}) is {temperature_K[bad]:g} K; "
            "expected a finite number above 0"
        )
    return temperature_K


def check_current(pack_current_A: FloatArray, layout: Layout) -> FloatArray:
    """(n_packs,) finite, or an error that names the first bad pack."""
    pack_current_A = np.ascontiguousarray(pack_current_A, dtype=float)
    if pack_current_A.shape != (layout.n_packs,):
        raise ValueError(f"pack_current_A has shape {pack_current_A.shape}; expected ({layout.n_packs},)")
    if not np.isfinite(pack_current_A).all():
        bad = int(np.flatnonzero(~np.isfinite(pack_current_A))[0])
        raise ValueError(f"current of pack {bad} is {pack_current_A[bad]:g} A; expected a finite number")
    return pack_current_A


def check_balancing(balancing: BoolArray | None, layout: Layout) -> BoolArray:
    """(n_groups,) bool; None stands for all off."""
    if balancing is None:
        return np.zeros(layout.n_groups, dtype=np.bool_)
    balancing = np.ascontiguousarray(balancing, dtype=np.bool_)
    if balancing.shape != (layout.n_groups,):
        raise ValueError(f"balancing has shape {balancing.shape}; expected ({layout.n_groups},)")
    return balancing


def check_cell(cell: int, layout: Layout) -> None:
    """A cell number of this bank."""
    if not 0 <= cell < layout.n_cells:
        raise ValueError(f"there is no cell {cell}; this bank has cells 0 to {layout.n_cells - 1}")


def check_factors(cell: int, layout: Layout, **factors: float) -> None:
    """Positive, finite factors for an existing cell."""
    check_cell(cell, layout)
    for name, factor in factors.items():
        if not (np.isfinite(factor) and factor > 0.0):
            raise ValueError(f"{name} for cell {cell} is {factor!r}; expected a positive number")


def check_short(cell: int, layout: Layout, resistance_ohm: float) -> None:
    """A positive resistance (infinity: none) for an existing cell."""
    check_cell(cell, layout)
    if not resistance_ohm > 0.0:
        raise ValueError(
            f"internal short of cell {cell} is {resistance_ohm!r} ohm; expected more than 0, or inf for none"
        )


def ledger_table(
    ledger: FloatArray, given_J: FloatArray, given_C: FloatArray, n_series: NDArray[np.int64]
) -> dict[str, FloatArray]:
    """The ledgers of a bank by name (see EcmBank.balances); `given` is what the cells gave, by state."""
    out = {
        "energy_terminal_J": ledger[:, kernel.E_TERMINAL].copy(),
        "energy_cell_heat_J": ledger[:, kernel.E_HEAT].copy(),
        "energy_entropic_J": ledger[:, kernel.E_ENTROPIC].copy(),
        "energy_short_J": ledger[:, kernel.E_SHORT].copy(),
        "energy_balancing_J": ledger[:, kernel.E_BALANCING].copy(),
        "energy_busbar_J": ledger[:, kernel.E_BUSBAR].copy(),
        "energy_chemical_J": given_J,
        "energy_throughput_J": ledger[:, kernel.E_THROUGHPUT].copy(),
        "charge_terminal_C": ledger[:, kernel.C_TERMINAL] / n_series,
        "charge_short_C": ledger[:, kernel.C_SHORT] / n_series,
        "charge_balancing_C": ledger[:, kernel.C_BALANCING] / n_series,
        "charge_stored_C": given_C / n_series,
        "charge_throughput_C": ledger[:, kernel.C_THROUGHPUT] / n_series,
    }
    spent = ("terminal", "cell_heat", "short", "balancing", "busbar")
    out["energy_residual_J"] = given_J - sum(out[f"energy_{name}_J"] for name in spent)
    flowed = sum(out[f"charge_{name}_C"] for name in ("terminal", "short", "balancing"))
    out["charge_residual_C"] = out["charge_stored_C"] - flowed
    return out


def restore(target: dict[str, NDArray], state: dict[str, NDArray], what: str) -> None:
    """Copy a saved state into arrays of the same names and shapes, bit for bit."""
    if set(state) != set(target):
        missing, unknown = sorted(set(target) - set(state)), sorted(set(state) - set(target))
        raise ValueError(f"this is not a state of {what}: missing {missing}, unknown {unknown}")
    for name, array in target.items():
        if np.shape(state[name]) != array.shape:
            raise ValueError(
                f"state of {what}: {name} has shape {np.shape(state[name])}; expected {array.shape}"
            )
    for name, array in target.items():
        array[...] = state[name]
