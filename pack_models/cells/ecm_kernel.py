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

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pack_models.cells.tables import (
    ENTROPIC,
    ENTROPIC_INTEGRAL,
    MARGIN,
    OPEN,
    OPEN_INTEGRAL,
    POINTS_PER_SOC,
    RESISTANCE_SOC_POINTS,
    TEMPERATURE_FIRST_K,
    TEMPERATURE_POINTS,
    TEMPERATURE_STEP_K,
    CellTables,
    StepTables,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

MARGIN_POINTS = MARGIN * POINTS_PER_SOC
LAST_PIECE = float(round(POINTS_PER_SOC + 2.0 * MARGIN_POINTS) - 1)
SOC_PIECES = RESISTANCE_SOC_POINTS - 1
VOLTAGE_TOLERANCE_V = 1e-10
NEWTON_LIMIT = 25

# Columns of the ledger, per pack: J, then C summed over the series groups.
E_TERMINAL, E_HEAT, E_ENTROPIC, E_SHORT, E_BALANCING, E_BUSBAR, E_THROUGHPUT = range(7)
C_TERMINAL, C_SHORT, C_BALANCING, C_THROUGHPUT = range(7, 11)
LEDGER_COLUMNS = 11

# Columns of the window counter, per pack, in cell-steps.
SOC_LOW, SOC_HIGH, COLD, HOT = range(4)

# Columns of the scratch of a cell.
R_ALL, R1, R2, DECAY1, DECAY2, MEAN1, MEAN2, START = range(8)
DRIFT, R_END, FREE, CURRENT, EMF, CONDUCTANCE, ABOVE, HALF_GAP, MEMORY = range(8, 17)
SCRATCH_COLUMNS = 17

# The last place inside the grids: keeps the index of the piece below the last knot.
SOC_INSIDE = SOC_PIECES - 1e-9
KELVIN_INSIDE = TEMPERATURE_POINTS - 1 - 1e-9


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


@njit(cache=True, error_model="numpy", forceinline=True)
def _piece(place: float) -> int:
    """Index of the linear piece of the dense curves at a place counted in table points."""
    return int(min(max(place, 0.0), LAST_PIECE))


@njit(cache=True, error_model="numpy", forceinline=True)
def _value(curve: FloatArray, column: int, place: float) -> float:
    """A dense curve at a place counted in table points."""
    k = _piece(place)
    low = curve[k, column]
    return low + (place - k) * (curve[k + 1, column] - low)  # type: ignore[no-any-return]


@njit(cache=True, error_model="numpy", forceinline=True)
def _area(curve: FloatArray, column: int, running: int, k_a: int, a: float, k_b: int, b: float) -> float:
    """Integral of a dense curve, in table points, from a beyond knot k_a to b beyond a later knot k_b."""
    f_a = curve[k_a, column] + a * (curve[k_a + 1, column] - curve[k_a, column])
    f_b = curve[k_b, column] + b * (curve[k_b + 1, column] - curve[k_b, column])
    return (  # type: ignore[no-any-return]
        0.5 * (f_a + curve[k_a + 1, column]) * (1.0 - a)
        + (curve[k_b, running] - curve[k_a + 1, running]) * POINTS_PER_SOC
        + 0.5 * (curve[k_b, column] + f_b) * b
    )


@njit(cache=True, error_model="numpy", forceinline=True)
def _means(curve: FloatArray, has_entropy: bool, soc_a: float, soc_b: float) -> tuple[float, float]:
    """Means of open circuit and entropic coefficient between two states of charge, exact for any way."""
    low = min(soc_a, soc_b) * POINTS_PER_SOC + MARGIN_POINTS
    high = max(soc_a, soc_b) * POINTS_PER_SOC + MARGIN_POINTS
    k_a, k_b = _piece(low), _piece(high)
    a, b = low - k_a, high - k_b
    entropic = 0.0
    if k_a == k_b:  # one straight line: its value in the middle
        x = 0.5 * (a + b)
        open_V = curve[k_a, OPEN] + x * (curve[k_a + 1, OPEN] - curve[k_a, OPEN])
        if has_entropy:
            entropic = curve[k_a, ENTROPIC] + x * (curve[k_a + 1, ENTROPIC] - curve[k_a, ENTROPIC])
        return open_V, entropic
    share = 1.0 / (high - low)
    open_V = _area(curve, OPEN, OPEN_INTEGRAL, k_a, a, k_b, b) * share
    if has_entropy:
        entropic = _area(curve, ENTROPIC, ENTROPIC_INTEGRAL, k_a, a, k_b, b) * share
    return open_V, entropic


@njit(cache=True, error_model="numpy", forceinline=True)
def _stored(curve: FloatArray, column: int, running: int, soc: float) -> float:
    """Running integral of a dense curve up to soc, from the table's first point."""
    place = soc * POINTS_PER_SOC + MARGIN_POINTS
    k = _piece(place)
    x = place - k
    f = curve[k, column] + x * (curve[k + 1, column] - curve[k, column])
    return curve[k, running] + 0.5 * (curve[k, column] + f) * x / POINTS_PER_SOC  # type: ignore[no-any-return]


@njit(cache=True, error_model="numpy", forceinline=True)
def _prepare(
    ohm: FloatArray,
    decay: FloatArray,
    dt_s: float,
    reference_K: float,
    soc: FloatArray,
    v1_V: FloatArray,
    v2_V: FloatArray,
    per_charge: FloatArray,
    resistance_factor: FloatArray,
    temperature_K: FloatArray,
    first: int,
    n: int,
    share_A: float,
    w: FloatArray,
) -> None:
    """Coefficients of the n cells of a group from `first` for one step, into the scratch (n, columns)."""
    for j in range(n):
        c = first + j
        drift = dt_s * per_charge[c]
        middle = soc[c] - 0.5 * drift * share_A
        x = min(max(middle * SOC_PIECES, 0.0), SOC_INSIDE)
        y = min(
            max((temperature_K[c] - TEMPERATURE_FIRST_K) * (1.0 / TEMPERATURE_STEP_K), 0.0), KELVIN_INSIDE
        )
        i, k = int(x), int(y)
        x -= i
        y -= k
        row = i * TEMPERATURE_POINTS + k
        above = row + TEMPERATURE_POINTS
        w11 = x * y
        w10, w01 = x - w11, y - w11
        w00 = 1.0 - x - w01
        # Written out: a loop over the columns, or a view of a row, costs several times as much.
        r_all = w00 * ohm[row, 0] + w01 * ohm[row + 1, 0] + w10 * ohm[above, 0] + w11 * ohm[above + 1, 0]
        r1 = w00 * ohm[row, 1] + w01 * ohm[row + 1, 1] + w10 * ohm[above, 1] + w11 * ohm[above + 1, 1]
        r2 = w00 * ohm[row, 2] + w01 * ohm[row + 1, 2] + w10 * ohm[above, 2] + w11 * ohm[above + 1, 2]
        a1 = decay[k, 0] + y * (decay[k + 1, 0] - decay[k, 0])
        a2 = decay[k, 1] + y * (decay[k + 1, 1] - decay[k, 1])
        factor = resistance_factor[c]
        r_all, r1, r2 = r_all * factor, r1 * factor, r2 * factor
        w[j, R_ALL], w[j, R1], w[j, R2], w[j, DECAY1], w[j, DECAY2] = r_all, r1, r2, a1, a2
        w[j, MEAN1] = decay[k, 2] + y * (decay[k + 1, 2] - decay[k, 2])
        w[j, MEAN2] = decay[k, 3] + y * (decay[k + 1, 3] - decay[k, 3])
        w[j, START], w[j, DRIFT] = soc[c], drift
        w[j, R_END] = r_all - r1 * a1 - r2 * a2
        w[j, FREE] = a1 * v1_V[c] + a2 * v2_V[c]
        w[j, ABOVE] = temperature_K[c] - reference_K


@njit(cache=True, error_model="numpy")
def _prepare_hysteresis(
    hysteresis_V: FloatArray, hysteresis: FloatArray, first: int, n: int, share_A: float, w: FloatArray
) -> None:
    """Half distance between the branches and state of the hysteresis, into the scratch."""
    for j in range(n):
        middle = w[j, START] - 0.5 * w[j, DRIFT] * share_A
        w[j, HALF_GAP] = hysteresis_V[_piece(middle * POINTS_PER_SOC + MARGIN_POINTS)]
        w[j, MEMORY] = hysteresis[first + j]


@njit(cache=True, error_model="numpy", forceinline=True)
def _end_voltage(
    curve: FloatArray, has_entropy: bool, hysteresis_rate: float, w: FloatArray, j: int, current_A: float
) -> tuple[float, float]:
    """Voltage of the j-th prepared cell at the end of the step under current_A, and its slope -dV/dI (ohm).

    hysteresis_rate is 0 for cells without.
    """
    drift = w[j, DRIFT]
    place = (w[j, START] - current_A * drift) * POINTS_PER_SOC + MARGIN_POINTS
    k = _piece(place)
    x = place - k
    rise = curve[k + 1, OPEN] - curve[k, OPEN]
    voltage = curve[k, OPEN] + x * rise
    if has_entropy:
        above_K = w[j, ABOVE]
        more = curve[k + 1, ENTROPIC] - curve[k, ENTROPIC]
        voltage += above_K * (curve[k, ENTROPIC] + x * more)
        rise += above_K * more
    r_end = w[j, R_END]
    slope = r_end + rise * POINTS_PER_SOC * drift
    voltage -= w[j, FREE] + r_end * current_A
    if hysteresis_rate != 0.0:
        sign = 1.0 if current_A >= 0.0 else -1.0
        per_A = hysteresis_rate * drift
        decay = np.exp(-per_A * abs(current_A))
        voltage += w[j, HALF_GAP] * (-sign + (w[j, MEMORY] + sign) * decay)
        slope += w[j, HALF_GAP] * (w[j, MEMORY] + sign) * sign * decay * per_A
    # A plateau with a strong entropic slope could make this vanish; a floor only slows Newton there.
    return voltage, max(slope, 0.1 * r_end)


@njit(cache=True, error_model="numpy")
def _current_at(
    curve: FloatArray, has_entropy: bool, hysteresis_rate: float, w: FloatArray, j: int, voltage_V: float
) -> float:
    """Current that brings a prepared cell to voltage_V; V falls with I, so bisection cannot fail."""
    low, high = -1.0, 1.0
    while _end_voltage(curve, has_entropy, hysteresis_rate, w, j, high)[0] > voltage_V and high < 1e12:
        high *= 4.0
    while _end_voltage(curve, has_entropy, hysteresis_rate, w, j, low)[0] < voltage_V and low > -1e12:
        low *= 4.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle <= low or middle >= high:
            break
        if _end_voltage(curve, has_entropy, hysteresis_rate, w, j, middle)[0] > voltage_V:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@njit(cache=True, error_model="numpy")
def bisect_group(
    curve: FloatArray,
    has_entropy: bool,
    hysteresis_rate: float,
    n: int,
    shunt_S: float,
    current_A: float,
    w: FloatArray,
) -> None:
    """Slow, safe way to the currents of a prepared group, for when Newton walks in circles."""
    low, high = -1e3, 1e3
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle <= low or middle >= high:
            break
        total = -current_A - shunt_S * middle
        for j in range(n):
            w[j, CURRENT] = _current_at(curve, has_entropy, hysteresis_rate, w, j, middle)
            total += w[j, CURRENT]
        if total > 0.0:
            low = middle
        else:
            high = middle


@njit(cache=True, error_model="numpy", forceinline=True)
def _newton_round(
    curve: FloatArray,
    has_entropy: bool,
    hysteresis_rate: float,
    n: int,
    shunt_S: float,
    current_A: float,
    before_V: float,
    w: FloatArray,
) -> tuple[float, float, bool]:
    """One linearised solution of a group.

    Returns its voltage, how far the cells were from `before_V`, and whether the solution is exact
    because no cell left the linear piece it was linearised on.
    """
    mismatch = 0.0
    sum_e, sum_g = -current_A, shunt_S
    for j in range(n):
        guess = w[j, CURRENT]
        voltage, slope = _end_voltage(curve, has_entropy, hysteresis_rate, w, j, guess)
        mismatch = max(mismatch, abs(voltage - before_V))
        conductance = 1.0 / slope
        emf = voltage + slope * guess
        w[j, EMF], w[j, CONDUCTANCE] = emf, conductance
        sum_e += emf * conductance
        sum_g += conductance
    group_V = sum_e / sum_g
    exact = hysteresis_rate == 0.0
    for j in range(n):
        before = w[j, CURRENT]
        now = (w[j, EMF] - group_V) * w[j, CONDUCTANCE]
        w[j, CURRENT] = now
        a = (w[j, START] - before * w[j, DRIFT]) * POINTS_PER_SOC + MARGIN_POINTS
        b = (w[j, START] - now * w[j, DRIFT]) * POINTS_PER_SOC + MARGIN_POINTS
        exact &= _piece(a) == _piece(b)
    return group_V, mismatch, exact


@njit(cache=True, error_model="numpy")
def _newton_more(
    curve: FloatArray,
    has_entropy: bool,
    hysteresis_rate: float,
    n: int,
    shunt_S: float,
    current_A: float,
    group_V: float,
    w: FloatArray,
) -> float:
    """Go on from a first round until the voltages agree."""
    for _ in range(NEWTON_LIMIT):
        # The currents found before are tested against the voltage found with them, then improved.
        group_V, mismatch, exact = _newton_round(
            curve, has_entropy, hysteresis_rate, n, shunt_S, current_A, group_V, w
        )
        if exact or mismatch <= VOLTAGE_TOLERANCE_V:
            return group_V
    bisect_group(curve, has_entropy, hysteresis_rate, n, shunt_S, current_A, w)
    # One linear round around the bracketed solution restores Kirchhoff's law to rounding.
    return _newton_round(curve, has_entropy, hysteresis_rate, n, shunt_S, current_A, 0.0, w)[0]


@njit(cache=True, error_model="numpy", forceinline=True)
def share_current(
    curve: FloatArray,
    has_entropy: bool,
    hysteresis_rate: float,
    n: int,
    shunt_S: float,
    current_A: float,
    w: FloatArray,
) -> float:
    """Currents of the prepared cells of a group (into the scratch) and its voltage at the end of the step.

    Newton on all cells at once: each cell is linearised at its current, V = e - r I, the group is then
    V = (sum e/r - I) / (sum 1/r + shunt). Kirchhoff's current law holds to rounding in every round; the
    loop ends when the voltages agree.
    """
    if n == 1 and shunt_S == 0.0:
        w[0, CURRENT] = current_A
        return _end_voltage(curve, has_entropy, hysteresis_rate, w, 0, current_A)[0]
    group_V, _, exact = _newton_round(curve, has_entropy, hysteresis_rate, n, shunt_S, current_A, 0.0, w)
    if exact:
        return group_V
    return _newton_more(curve, has_entropy, hysteresis_rate, n, shunt_S, current_A, group_V, w)


@njit(cache=True, error_model="numpy")
def thevenin_kernel(
    tables: CellTables,
    step: StepTables,
    wires: Wires,
    cells: Cells,
    around_A: FloatArray,
    temperature_K: FloatArray,
    w: FloatArray,
    emf_V: FloatArray,
    resistance_ohm: FloatArray,
) -> None:
    """Affine end-of-step model of each pack around a current, V = emf - r I."""
    # Arrays are taken out of the tuples once: inside the loops each access would count references.
    pack_group_start, group_cell_start, busbar_ohm = (
        wires.pack_group_start,
        wires.group_cell_start,
        wires.busbar_ohm,
    )
    soc, v1_V, v2_V, per_charge = cells.soc, cells.v1_V, cells.v2_V, cells.per_charge
    last_A, factor, short_S, hysteresis = (
        cells.current_A,
        cells.resistance_factor,
        cells.short_S,
        cells.hysteresis,
    )
    curve, half_gap, has_entropy = tables.curve, tables.hysteresis_V, tables.has_entropy
    rate, reference_K = tables.hysteresis_rate, tables.reference_K
    ohm, decay, dt_s = step.ohm, step.decay, step.dt_s
    for p in range(around_A.size):
        pack_e, pack_r = 0.0, 0.0
        for g in range(pack_group_start[p], pack_group_start[p + 1]):
            first = group_cell_start[g]
            n = group_cell_start[g + 1] - first
            share = around_A[p] / n
            _prepare(
                ohm,
                decay,
                dt_s,
                reference_K,
                soc,
                v1_V,
                v2_V,
                per_charge,
                factor,
                temperature_K,
                first,
                n,
                share,
                w,
            )
            if rate != 0.0:
                _prepare_hysteresis(half_gap, hysteresis, first, n, share, w)
            flowing = 0.0
            for j in range(n):
                flowing += last_A[first + j]
            extra = share - flowing / n
            sum_e, sum_g = 0.0, 0.0
            for j in range(n):
                guess = last_A[first + j] + extra
                voltage, slope = _end_voltage(curve, has_entropy, rate, w, j, guess)
                conductance = 1.0 / slope
                sum_e += voltage * conductance + guess
                sum_g += conductance + short_S[first + j]
            resistance = 1.0 / sum_g
            pack_e += sum_e * resistance
            pack_r += resistance + busbar_ohm[g]
        emf_V[p], resistance_ohm[p] = pack_e, pack_r


@njit(cache=True, error_model="numpy")
def step_kernel(
    tables: CellTables,
    step: StepTables,
    wires: Wires,
    cells: Cells,
    packs: Packs,
    pack_current_A: FloatArray,
    last_current_A: FloatArray,
    temperature_K: FloatArray,
    balancing: BoolArray,
    valid_low_K: float,
    valid_high_K: float,
    w: FloatArray,
) -> None:
    """Advance every cell by a step under pack_current_A; last_current_A only serves as a first guess."""
    pack_group_start, group_cell_start, busbar_ohm, balancing_S = (
        wires.pack_group_start,
        wires.group_cell_start,
        wires.busbar_ohm,
        wires.balancing_S,
    )
    soc, v1_V, v2_V, per_charge = cells.soc, cells.v1_V, cells.v2_V, cells.per_charge
    cell_A, factor, short_S, hysteresis, cell_heat_W = (
        cells.current_A,
        cells.resistance_factor,
        cells.short_S,
        cells.hysteresis,
        cells.heat_W,
    )
    curve, half_gap, has_entropy = tables.curve, tables.hysteresis_V, tables.has_entropy
    rate, reference_K = tables.hysteresis_rate, tables.reference_K
    ohm, decay, dt_s = step.ohm, step.decay, step.dt_s
    group_voltage_V, pack_voltage_V, pack_power_W, ledger, outside = (
        packs.group_voltage_V,
        packs.pack_voltage_V,
        packs.pack_power_W,
        packs.ledger,
        packs.outside,
    )
    for p in range(pack_current_A.size):
        current = pack_current_A[p]
        change = current - last_current_A[p]
        pack_end, pack_mean, busbar_W = 0.0, 0.0, 0.0
        heat_W, entropic_W, short_W, balancing_W, moved_W = 0.0, 0.0, 0.0, 0.0, 0.0
        short_A, balancing_A, moved_A = 0.0, 0.0, 0.0
        n_low, n_high, n_cold, n_hot = 0, 0, 0, 0
        for g in range(pack_group_start[p], pack_group_start[p + 1]):
            first = group_cell_start[g]
            n = group_cell_start[g + 1] - first
            per_cell = 1.0 / n
            share = current * per_cell
            bleed_S = balancing_S[g] if balancing[g] else 0.0
            _prepare(
                ohm,
                decay,
                dt_s,
                reference_K,
                soc,
                v1_V,
                v2_V,
                per_charge,
                factor,
                temperature_K,
                first,
                n,
                share,
                w,
            )
            if rate != 0.0:
                _prepare_hysteresis(half_gap, hysteresis, first, n, share, w)
            leak_S = 0.0
            for j in range(n):
                leak_S += short_S[first + j]
                w[j, CURRENT] = cell_A[first + j] + change * per_cell
            group_V = share_current(curve, has_entropy, rate, n, leak_S + bleed_S, current, w)

            # State at the end of the step; the mean voltage of each cell on the way.
            mean_V = 0.0
            for j in range(n):
                c = first + j
                amps = w[j, CURRENT]
                soc_end = w[j, START] - amps * w[j, DRIFT]
                open_V, entropic = _means(curve, has_entropy, w[j, START], soc_end)
                open_V += w[j, ABOVE] * entropic
                steady1, steady2 = w[j, R1] * amps, w[j, R2] * amps
                away1, away2 = v1_V[c] - steady1, v2_V[c] - steady2
                drop = w[j, R_ALL] * amps + away1 * w[j, MEAN1] + away2 * w[j, MEAN2]
                v1_V[c] = steady1 + away1 * w[j, DECAY1]
                v2_V[c] = steady2 + away2 * w[j, DECAY2]
                if rate != 0.0:
                    sign = 1.0 if amps >= 0.0 else -1.0
                    x = rate * w[j, DRIFT] * abs(amps)
                    away = w[j, MEMORY] + sign
                    gone = -np.expm1(-x)
                    drop -= w[j, HALF_GAP] * (-sign + away * (gone / x if x > 0.0 else 1.0))
                    hysteresis[c] = -sign + away * (1.0 - gone)
                mean_V += open_V - drop
                w[j, EMF], w[j, CONDUCTANCE] = open_V, entropic
                soc[c] = soc_end
                cell_A[c] = amps
                n_low += soc_end < 0.0
                n_high += soc_end > 1.0
                n_cold += temperature_K[c] < valid_low_K
                n_hot += temperature_K[c] > valid_high_K
            mean_V *= per_cell

            for j in range(n):
                c = first + j
                amps = w[j, CURRENT]
                reversible = -amps * temperature_K[c] * w[j, CONDUCTANCE]
                own = amps * (w[j, EMF] - mean_V) + reversible
                heat_W += own
                entropic_W += reversible
                moved_A += abs(amps)
                moved_W += abs(amps * mean_V)
                cell_heat_W[c] = own
            if leak_S > 0.0:
                for j in range(n):
                    cell_heat_W[first + j] += mean_V * (group_V * short_S[first + j])
                short_A += group_V * leak_S
                short_W += mean_V * (group_V * leak_S)
            balancing_A += group_V * bleed_S
            balancing_W += mean_V * (group_V * bleed_S)
            busbar_W += current * current * busbar_ohm[g]
            group_voltage_V[g] = group_V
            pack_end += group_V - current * busbar_ohm[g]
            pack_mean += mean_V - current * busbar_ohm[g]
        n_groups = pack_group_start[p + 1] - pack_group_start[p]
        pack_voltage_V[p] = pack_end
        pack_power_W[p] = current * pack_mean
        outside[p, SOC_LOW] += n_low
        outside[p, SOC_HIGH] += n_high
        outside[p, COLD] += n_cold
        outside[p, HOT] += n_hot
        ledger[p, E_TERMINAL] += current * pack_mean * dt_s
        ledger[p, E_HEAT] += heat_W * dt_s
        ledger[p, E_ENTROPIC] += entropic_W * dt_s
        ledger[p, E_SHORT] += short_W * dt_s
        ledger[p, E_BALANCING] += balancing_W * dt_s
        ledger[p, E_BUSBAR] += busbar_W * dt_s
        ledger[p, E_THROUGHPUT] += moved_W * dt_s
        ledger[p, C_TERMINAL] += n_groups * current * dt_s
        ledger[p, C_SHORT] += short_A * dt_s
        ledger[p, C_BALANCING] += balancing_A * dt_s
        ledger[p, C_THROUGHPUT] += moved_A * dt_s


@njit(cache=True, error_model="numpy")
def slope_kernel(
    tables: CellTables,
    step: StepTables,
    cells: Cells,
    temperature_K: FloatArray,
    w: FloatArray,
    slope_ohm: FloatArray,
    drift_ohm: FloatArray,
) -> None:
    """Per cell, how much the voltage at the end of a step falls per ampere, and the part of it that is
    the change of the open circuit; w is the scratch of one cell. Without hysteresis.
    """
    for c in range(slope_ohm.size):
        current = cells.current_A[c]
        _prepare(
            step.ohm,
            step.decay,
            step.dt_s,
            tables.reference_K,
            cells.soc,
            cells.v1_V,
            cells.v2_V,
            cells.per_charge,
            cells.resistance_factor,
            temperature_K,
            c,
            1,
            current,
            w,
        )
        slope_ohm[c] = _end_voltage(tables.curve, tables.has_entropy, 0.0, w, 0, current)[1]
        drift_ohm[c] = slope_ohm[c] - w[0, R_END]


@njit(cache=True, error_model="numpy")
def stored_kernel(
    tables: CellTables,
    cell_pack: IntArray,
    soc: FloatArray,
    per_charge: FloatArray,
    soc_from: FloatArray,
    energy_J: FloatArray,
    charge_C: FloatArray,
) -> None:
    """Add, per pack, the enthalpy and charge given since soc_from, from the states of the cells alone.

    The enthalpy of a cell at rest is the integral of U - T dU/dT, which does not depend on T when U is
    linear in T: terminals, heat and entropic exchange all come out of it.
    """
    for c in range(soc.size):
        full_C = 1.0 / per_charge[c]
        given = _stored(tables.curve, OPEN, OPEN_INTEGRAL, soc_from[c])
        given -= _stored(tables.curve, OPEN, OPEN_INTEGRAL, soc[c])
        if tables.has_entropy:
            entropic = _stored(tables.curve, ENTROPIC, ENTROPIC_INTEGRAL, soc_from[c])
            entropic -= _stored(tables.curve, ENTROPIC, ENTROPIC_INTEGRAL, soc[c])
            given -= tables.reference_K * entropic
        energy_J[cell_pack[c]] += full_C * given
        charge_C[cell_pack[c]] += full_C * (soc_from[c] - soc[c])


@njit(cache=True, error_model="numpy")
def open_kernel(tables: CellTables, soc: FloatArray, temperature_K: FloatArray, open_V: FloatArray) -> None:
    """Open circuit of each cell at its state of charge and temperature, without hysteresis."""
    for c in range(soc.size):
        place = soc[c] * POINTS_PER_SOC + MARGIN_POINTS
        open_V[c] = _value(tables.curve, OPEN, place)
        if tables.has_entropy:
            open_V[c] += (temperature_K[c] - tables.reference_K) * _value(tables.curve, ENTROPIC, place)


@njit(cache=True, error_model="numpy")
def mean_open_kernel(tables: CellTables, soc_a: FloatArray, soc_b: FloatArray, open_V: FloatArray) -> None:
    """Mean open circuit of each cell between two states of charge, at the reference temperature."""
    for c in range(soc_a.size):
        open_V[c] = _means(tables.curve, False, soc_a[c], soc_b[c])[0]


def scratch(n_parallel: int) -> Any:
    """Work space of the kernels for the largest group."""
    return np.zeros((n_parallel, SCRATCH_COLUMNS))
