"""The compiled step of the equivalent-circuit bank: all cells of all packs in one call.

A step holds the current of each cell. Then every branch has an exact solution,

    soc' = soc - I dt / Q        v_i' = a_i v_i + R_i (1 - a_i) I,   a_i = exp(-dt / tau_i)
    h'   = -s + (h + s) exp(-rate |I| dt / Q),   s = sign(I)
    V'   = U(soc', T) + M h' - v_1' - v_2' - R_0 I

with the parameters taken at the temperature given and at the middle of the step's state of charge (from
the mean current of the group: second order, and known beforehand). Cells in parallel share the current
so that their voltages at the END of the step agree: implicit in time, hence stable for any step, also
between two cells that differ only by their state of charge.

Energies use the mean of U over the step from the exact integral of the table. With the mean voltage of
the group, the heat of a cell is I (U_mean - V_mean) - I T dU/dT (Bernardi, Pawlikowski, Newman, J.
Electrochem. Soc. 132 (1985) 5, without mixing and phase change), and what the cells give up equals
terminals + heat + shorts + balancing + busbars to rounding whatever V_mean is.

No fast-math, no parallel loops: the same input gives the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pack_models.cells.tables import (
    MARGIN,
    POINTS_PER_SOC,
    R0,
    R1,
    R2,
    RATE1,
    RATE2,
    RESISTANCE_SOC_POINTS,
    TEMPERATURE_FIRST_K,
    TEMPERATURE_POINTS,
    TEMPERATURE_STEP_K,
    CellTables,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

MARGIN_POINTS = MARGIN * POINTS_PER_SOC
SOC_PIECES = RESISTANCE_SOC_POINTS - 1
VOLTAGE_TOLERANCE_V = 1e-10
NEWTON_LIMIT = 25

# Columns of the ledger, per pack: J, then C summed over the series groups.
E_TERMINAL, E_HEAT, E_ENTROPIC, E_SHORT, E_BALANCING, E_BUSBAR, E_THROUGHPUT = range(7)
C_TERMINAL, C_SHORT, C_BALANCING, C_THROUGHPUT = range(7, 11)
LEDGER_COLUMNS = 11

# Columns of the window counter, per pack, in cell-steps.
SOC_LOW, SOC_HIGH, COLD, HOT = range(4)

# Rows of the scratch of one group.
W_START, W_DRIFT, W_R, W_FREE, W_CURRENT, W_E, W_RLIN, W_A1, W_A2, W_R0, W_R1, W_R2, W_M1, W_M2, W_H = range(
    15
)
SCRATCH_ROWS = 15


class Wires(NamedTuple):
    """Offsets of `Layout` and the resistors around the cells.

    busbar_ohm : (n_groups,) in series with each group
    balancing_S : (n_groups,) bleed conductance when balancing is on
    """

    pack_group_start: IntArray
    group_cell_start: IntArray
    busbar_ohm: FloatArray
    balancing_S: FloatArray


class Cells(NamedTuple):
    """State and individual factors of all cells, (n_cells,) each; written in place.

    soc 0…1 · v1_V, v2_V voltages of the RC branches · hysteresis -1…1 (1 after charge) · current_A through
    the cell in the last step · heat_W mean of the last step · per_charge 1/C, one over the charge a full
    cell holds · resistance_factor · short_S conductance of an internal short
    """

    soc: FloatArray
    v1_V: FloatArray
    v2_V: FloatArray
    hysteresis: FloatArray
    current_A: FloatArray
    heat_W: FloatArray
    per_charge: FloatArray
    resistance_factor: FloatArray
    short_S: FloatArray


class Packs(NamedTuple):
    """Results per group and pack; written in place."""

    group_voltage_V: FloatArray
    pack_voltage_V: FloatArray
    pack_power_W: FloatArray
    ledger: FloatArray
    outside: IntArray


@njit(cache=True, error_model="numpy")
def _piece(soc: float) -> int:
    """Index of the linear piece of the dense curves that holds soc."""
    n_pieces = int(POINTS_PER_SOC + 2.0 * MARGIN_POINTS)
    k = int(np.floor(soc * POINTS_PER_SOC + MARGIN_POINTS))
    return max(0, min(k, n_pieces - 1))


@njit(cache=True, error_model="numpy")
def _integral(curve: FloatArray, running: FloatArray, soc_a: float, soc_b: float) -> float:
    """Integral of a dense curve from soc_a to soc_b, without cancellation for short ways."""
    low, high = min(soc_a, soc_b), max(soc_a, soc_b)
    k_low, k_high = _piece(low), _piece(high)
    x_low = low * POINTS_PER_SOC + MARGIN_POINTS - k_low
    x_high = high * POINTS_PER_SOC + MARGIN_POINTS - k_high
    f_low = curve[k_low] + x_low * (curve[k_low + 1] - curve[k_low])
    f_high = curve[k_high] + x_high * (curve[k_high + 1] - curve[k_high])
    if k_low == k_high:
        area = 0.5 * (f_low + f_high) * (high - low)
    else:
        area = (
            0.5 * (f_low + curve[k_low + 1]) * (1.0 - x_low) / POINTS_PER_SOC
            + (running[k_high] - running[k_low + 1])
            + 0.5 * (curve[k_high] + f_high) * x_high / POINTS_PER_SOC
        )
    return area if soc_b >= soc_a else -area


@njit(cache=True, error_model="numpy")
def _mean(curve: FloatArray, running: FloatArray, soc_a: float, soc_b: float) -> float:
    """Mean of a dense curve between two states of charge."""
    way = soc_b - soc_a
    if way == 0.0:
        k = _piece(soc_a)
        return curve[k] + (soc_a * POINTS_PER_SOC + MARGIN_POINTS - k) * (curve[k + 1] - curve[k])
    return _integral(curve, running, soc_a, soc_b) / way


@njit(cache=True, error_model="numpy")
def stored(curve: FloatArray, running: FloatArray, soc: float) -> float:
    """Running integral of a dense curve up to soc (from the table's first point)."""
    k = _piece(soc)
    x = soc * POINTS_PER_SOC + MARGIN_POINTS - k
    f = curve[k] + x * (curve[k + 1] - curve[k])
    return running[k] + 0.5 * (curve[k] + f) * x / POINTS_PER_SOC


@njit(cache=True, error_model="numpy")
def _prepare(
    tables: CellTables, cells: Cells, first: int, last: int, share_A: float, temperature_K, dt_s: float, w
) -> None:
    """Coefficients of the cells first…last - 1 of a group for one step, into the scratch."""
    for c in range(first, last):
        j = c - first
        drift = dt_s * cells.per_charge[c]
        soc = cells.soc[c]
        x = max(0.0, min((soc - 0.5 * drift * share_A) * SOC_PIECES, float(SOC_PIECES)))
        i = min(int(x), SOC_PIECES - 1)
        x -= i
        y = (temperature_K[c] - TEMPERATURE_FIRST_K) / TEMPERATURE_STEP_K
        y = max(0.0, min(y, TEMPERATURE_POINTS - 1.0))
        k = min(int(y), TEMPERATURE_POINTS - 2)
        y -= k
        low, high = tables.parameter[i], tables.parameter[i + 1]
        w00, w01, w10, w11 = (1.0 - x) * (1.0 - y), (1.0 - x) * y, x * (1.0 - y), x * y
        factor = cells.resistance_factor[c]
        r0 = factor * (w00 * low[k, R0] + w01 * low[k + 1, R0] + w10 * high[k, R0] + w11 * high[k + 1, R0])
        r1 = factor * (w00 * low[k, R1] + w01 * low[k + 1, R1] + w10 * high[k, R1] + w11 * high[k + 1, R1])
        r2 = factor * (w00 * low[k, R2] + w01 * low[k + 1, R2] + w10 * high[k, R2] + w11 * high[k + 1, R2])
        x1 = dt_s * (
            w00 * low[k, RATE1] + w01 * low[k + 1, RATE1] + w10 * high[k, RATE1] + w11 * high[k + 1, RATE1]
        )
        x2 = dt_s * (
            w00 * low[k, RATE2] + w01 * low[k + 1, RATE2] + w10 * high[k, RATE2] + w11 * high[k + 1, RATE2]
        )
        a1, a2 = np.exp(-x1), np.exp(-x2)
        w[W_START, j] = soc
        w[W_DRIFT, j] = drift
        w[W_FREE, j] = a1 * cells.v1_V[c] + a2 * cells.v2_V[c]
        w[W_RLIN, j] = r0 + r1 * (1.0 - a1) + r2 * (1.0 - a2)
        w[W_A1, j], w[W_A2, j] = a1, a2
        w[W_R0, j], w[W_R1, j], w[W_R2, j] = r0, r1, r2
        w[W_M1, j], w[W_M2, j] = (1.0 - a1) / x1, (1.0 - a2) / x2
        w[W_H, j] = 0.0
        if tables.has_hysteresis:
            q = _piece(soc - 0.5 * drift * share_A)
            w[W_H, j] = tables.hysteresis_V[q]


@njit(cache=True, error_model="numpy")
def _end_voltage(tables: CellTables, w, j: int, above_K: float, hysteresis: float, current_A: float):
    """Voltage of one prepared cell at the end of the step under current_A, and its slope -dV/dI (ohm)."""
    soc = w[W_START, j] - current_A * w[W_DRIFT, j]
    k = _piece(soc)
    x = soc * POINTS_PER_SOC + MARGIN_POINTS - k
    rise = tables.ocv_V[k + 1] - tables.ocv_V[k]
    voltage = tables.ocv_V[k] + x * rise
    if tables.has_entropy:
        more = tables.entropic_V_per_K[k + 1] - tables.entropic_V_per_K[k]
        voltage += above_K * (tables.entropic_V_per_K[k] + x * more)
        rise += above_K * more
    slope = w[W_RLIN, j] + rise * POINTS_PER_SOC * w[W_DRIFT, j]
    voltage -= w[W_FREE, j] + w[W_RLIN, j] * current_A
    if tables.has_hysteresis:
        s = 1.0 if current_A >= 0.0 else -1.0
        per_A = tables.hysteresis_rate * w[W_DRIFT, j]
        decay = np.exp(-per_A * abs(current_A))
        voltage += w[W_H, j] * (-s + (hysteresis + s) * decay)
        slope += w[W_H, j] * (hysteresis + s) * s * decay * per_A
    # A plateau with a strong entropic slope could make this vanish; a floor only slows Newton there.
    return voltage, max(slope, 0.1 * w[W_RLIN, j])


@njit(cache=True, error_model="numpy")
def _current_at(tables: CellTables, w, j: int, above_K: float, hysteresis: float, voltage_V: float) -> float:
    """Current that brings one prepared cell to voltage_V; V falls with I, so bisection cannot fail."""
    reach = 1.0
    low, high = -reach, reach
    while _end_voltage(tables, w, j, above_K, hysteresis, high)[0] > voltage_V and reach < 1e12:
        reach *= 4.0
        high = reach
    reach = 1.0
    while _end_voltage(tables, w, j, above_K, hysteresis, low)[0] < voltage_V and reach < 1e12:
        reach *= 4.0
        low = -reach
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle <= low or middle >= high:
            break
        if _end_voltage(tables, w, j, above_K, hysteresis, middle)[0] > voltage_V:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@njit(cache=True, error_model="numpy")
def _bisect_group(
    tables: CellTables,
    cells: Cells,
    first: int,
    last: int,
    temperature_K,
    shunt_S: float,
    current_A: float,
    w,
) -> float:
    """Slow, safe way to the common voltage of a group: for the rare case in which Newton walks in circles."""
    low, high = -1e3, 1e3
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle <= low or middle >= high:
            break
        total = -current_A - shunt_S * middle
        for c in range(first, last):
            j = c - first
            above_K = temperature_K[c] - tables.reference_K
            w[W_CURRENT, j] = _current_at(tables, w, j, above_K, cells.hysteresis[c], middle)
            total += w[W_CURRENT, j]
        if total > 0.0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@njit(cache=True, error_model="numpy")
def _share(
    tables: CellTables,
    cells: Cells,
    first: int,
    last: int,
    temperature_K,
    shunt_S: float,
    current_A: float,
    w,
) -> float:
    """Currents of the cells of a group (into the scratch) and its voltage at the end of the step.

    Newton on all cells at once: each cell is linearised at its current, V = e - r I, the group is then
    V = (sum e/r - I) / (sum 1/r + shunt). Kirchhoff's current law holds to rounding in every round; the
    loop ends when the voltages agree.
    """
    if last - first == 1 and shunt_S == 0.0:
        w[W_CURRENT, 0] = current_A
        above_K = temperature_K[first] - tables.reference_K
        return _end_voltage(tables, w, 0, above_K, cells.hysteresis[first], current_A)[0]
    group_V = 0.0
    for rounds in range(NEWTON_LIMIT):
        mismatch = 0.0
        sum_e, sum_g = -current_A, shunt_S
        for c in range(first, last):
            j = c - first
            above_K = temperature_K[c] - tables.reference_K
            guess = w[W_CURRENT, j]
            voltage, slope = _end_voltage(tables, w, j, above_K, cells.hysteresis[c], guess)
            mismatch = max(mismatch, abs(voltage - group_V))
            conductance = 1.0 / slope
            w[W_E, j] = voltage + slope * guess
            w[W_R, j] = conductance
            sum_e += w[W_E, j] * conductance
            sum_g += conductance
        if rounds > 0 and mismatch <= VOLTAGE_TOLERANCE_V:
            return group_V
        group_V = sum_e / sum_g
        same_piece = not tables.has_hysteresis
        for j in range(last - first):
            before = w[W_CURRENT, j]
            now = (w[W_E, j] - group_V) * w[W_R, j]
            w[W_CURRENT, j] = now
            same_piece &= _piece(w[W_START, j] - before * w[W_DRIFT, j]) == _piece(
                w[W_START, j] - now * w[W_DRIFT, j]
            )
        if same_piece:  # linear all the way: exact
            return group_V
    group_V = _bisect_group(tables, cells, first, last, temperature_K, shunt_S, current_A, w)
    # One linear round around the bracketed solution restores Kirchhoff's law to rounding.
    sum_e, sum_g = -current_A, shunt_S
    for c in range(first, last):
        j = c - first
        above_K = temperature_K[c] - tables.reference_K
        voltage, slope = _end_voltage(tables, w, j, above_K, cells.hysteresis[c], w[W_CURRENT, j])
        w[W_E, j] = voltage + slope * w[W_CURRENT, j]
        w[W_R, j] = 1.0 / slope
        sum_e += w[W_E, j] / slope
        sum_g += 1.0 / slope
    group_V = sum_e / sum_g
    for j in range(last - first):
        w[W_CURRENT, j] = (w[W_E, j] - group_V) * w[W_R, j]
    return group_V


@njit(cache=True, error_model="numpy")
def thevenin_kernel(
    tables: CellTables, wires: Wires, cells: Cells, around_A, temperature_K, dt_s: float, w, emf_V, r_ohm
) -> None:
    """Affine end-of-step model of each pack around a current, V = emf - r I, into emf_V and r_ohm."""
    for p in range(around_A.size):
        pack_e, pack_r = 0.0, 0.0
        for g in range(wires.pack_group_start[p], wires.pack_group_start[p + 1]):
            first, last = wires.group_cell_start[g], wires.group_cell_start[g + 1]
            n = last - first
            _prepare(tables, cells, first, last, around_A[p] / n, temperature_K, dt_s, w)
            sum_e, sum_g = 0.0, 0.0
            extra = around_A[p] / n
            for c in range(first, last):
                extra -= cells.current_A[c] / n
            for c in range(first, last):
                j = c - first
                guess = cells.current_A[c] + extra
                above_K = temperature_K[c] - tables.reference_K
                voltage, slope = _end_voltage(tables, w, j, above_K, cells.hysteresis[c], guess)
                conductance = 1.0 / slope
                sum_e += voltage * conductance + guess
                sum_g += conductance + cells.short_S[c]
            pack_e += sum_e / sum_g
            pack_r += 1.0 / sum_g + wires.busbar_ohm[g]
        emf_V[p], r_ohm[p] = pack_e, pack_r


@njit(cache=True, error_model="numpy")
def step_kernel(
    tables: CellTables,
    wires: Wires,
    cells: Cells,
    packs: Packs,
    pack_current_A,
    last_current_A,
    temperature_K,
    balancing,
    dt_s: float,
    valid_low_K: float,
    valid_high_K: float,
    w,
) -> None:
    """Advance every cell by dt_s under pack_current_A; last_current_A only serves as a first guess."""
    for p in range(pack_current_A.size):
        current = pack_current_A[p]
        pack_end, pack_mean, busbar_W = 0.0, 0.0, 0.0
        heat_W, entropic_W, short_W, balancing_W, moved_W = 0.0, 0.0, 0.0, 0.0, 0.0
        short_A, balancing_A, moved_A = 0.0, 0.0, 0.0
        for g in range(wires.pack_group_start[p], wires.pack_group_start[p + 1]):
            first, last = wires.group_cell_start[g], wires.group_cell_start[g + 1]
            n = last - first
            bleed_S = wires.balancing_S[g] if balancing[g] else 0.0
            _prepare(tables, cells, first, last, current / n, temperature_K, dt_s, w)
            shunt_S = bleed_S
            change = (current - last_current_A[p]) / n
            for c in range(first, last):
                shunt_S += cells.short_S[c]
                w[W_CURRENT, c - first] = cells.current_A[c] + change
            group_V = _share(tables, cells, first, last, temperature_K, shunt_S, current, w)

            # State at the end of the step; the mean voltage of each cell on the way.
            mean_V = 0.0
            for c in range(first, last):
                j = c - first
                amps = w[W_CURRENT, j]
                soc = w[W_START, j]
                soc_end = soc - amps * w[W_DRIFT, j]
                open_V = _mean(tables.ocv_V, tables.ocv_integral_V, soc, soc_end)
                entropic = 0.0
                if tables.has_entropy:
                    entropic = _mean(tables.entropic_V_per_K, tables.entropic_integral_V_per_K, soc, soc_end)
                    open_V += (temperature_K[c] - tables.reference_K) * entropic
                steady1, steady2 = w[W_R1, j] * amps, w[W_R2, j] * amps
                away1, away2 = cells.v1_V[c] - steady1, cells.v2_V[c] - steady2
                drop = w[W_R0, j] * amps + steady1 + steady2 + away1 * w[W_M1, j] + away2 * w[W_M2, j]
                cells.v1_V[c] = steady1 + away1 * w[W_A1, j]
                cells.v2_V[c] = steady2 + away2 * w[W_A2, j]
                if tables.has_hysteresis and amps != 0.0:
                    s = 1.0 if amps > 0.0 else -1.0
                    x = tables.hysteresis_rate * w[W_DRIFT, j] * abs(amps)
                    away = cells.hysteresis[c] + s
                    gone = -np.expm1(-x)
                    drop -= w[W_H, j] * (-s + away * (gone / x if x > 0.0 else 1.0))
                    cells.hysteresis[c] = -s + away * (1.0 - gone)
                elif tables.has_hysteresis:
                    drop -= w[W_H, j] * cells.hysteresis[c]
                mean_V += open_V - drop
                w[W_E, j] = open_V
                w[W_R, j] = entropic
                cells.soc[c] = soc_end
                cells.current_A[c] = amps
                if soc_end < 0.0:
                    packs.outside[p, SOC_LOW] += 1
                elif soc_end > 1.0:
                    packs.outside[p, SOC_HIGH] += 1
                if temperature_K[c] < valid_low_K:
                    packs.outside[p, COLD] += 1
                elif temperature_K[c] > valid_high_K:
                    packs.outside[p, HOT] += 1
            mean_V /= n

            for c in range(first, last):
                j = c - first
                amps = w[W_CURRENT, j]
                reversible = -amps * temperature_K[c] * w[W_R, j]
                own = amps * (w[W_E, j] - mean_V) + reversible
                leak_A = group_V * cells.short_S[c]
                cells.heat_W[c] = own + mean_V * leak_A
                heat_W += own
                entropic_W += reversible
                short_W += mean_V * leak_A
                short_A += leak_A
                moved_A += abs(amps)
                moved_W += abs(amps * mean_V)
            balancing_A += group_V * bleed_S
            balancing_W += mean_V * group_V * bleed_S
            busbar_W += current * current * wires.busbar_ohm[g]
            packs.group_voltage_V[g] = group_V
            pack_end += group_V - current * wires.busbar_ohm[g]
            pack_mean += mean_V - current * wires.busbar_ohm[g]
        n_groups = wires.pack_group_start[p + 1] - wires.pack_group_start[p]
        packs.pack_voltage_V[p] = pack_end
        packs.pack_power_W[p] = current * pack_mean
        ledger = packs.ledger[p]
        ledger[E_TERMINAL] += current * pack_mean * dt_s
        ledger[E_HEAT] += heat_W * dt_s
        ledger[E_ENTROPIC] += entropic_W * dt_s
        ledger[E_SHORT] += short_W * dt_s
        ledger[E_BALANCING] += balancing_W * dt_s
        ledger[E_BUSBAR] += busbar_W * dt_s
        ledger[E_THROUGHPUT] += moved_W * dt_s
        ledger[C_TERMINAL] += n_groups * current * dt_s
        ledger[C_SHORT] += short_A * dt_s
        ledger[C_BALANCING] += balancing_A * dt_s
        ledger[C_THROUGHPUT] += moved_A * dt_s


@njit(cache=True, error_model="numpy")
def stored_kernel(tables: CellTables, cell_pack, cells: Cells, soc_from, energy_J, charge_C) -> None:
    """Enthalpy and charge given since soc_from, per pack, from the states of the cells alone.

    The enthalpy of a cell at rest is the integral of U - T dU/dT, which does not depend on T when U is
    linear in T: terminals, heat and entropic exchange all come out of it.
    """
    for c in range(cells.soc.size):
        full_C = 1.0 / cells.per_charge[c]
        given = stored(tables.ocv_V, tables.ocv_integral_V, soc_from[c]) - stored(
            tables.ocv_V, tables.ocv_integral_V, cells.soc[c]
        )
        if tables.has_entropy:
            d, running = tables.entropic_V_per_K, tables.entropic_integral_V_per_K
            given -= tables.reference_K * (stored(d, running, soc_from[c]) - stored(d, running, cells.soc[c]))
        energy_J[cell_pack[c]] += full_C * given
        charge_C[cell_pack[c]] += full_C * (soc_from[c] - cells.soc[c])
