"""The compiled implicit step of the lumped thermal network.

In a module of G groups of J cells, cells conduct to the cell at the same place in the next group
(series neighbour) and to the next cell of their own group (parallel neighbour). The second chain is the
same in every group, so the cosine modes of a path of J nodes take it apart: one tridiagonal system of
length G per mode, exact, no splitting. The coolant couples to the mean mode only; it is eliminated with
a second right-hand side. All flows use temperatures at the end of the step: unconditionally stable, and
what leaves one node enters another to rounding.

Temperatures are taken relative to the ambient of the pack, so that a pack at ambient stays there exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Q_HEAT, Q_AMBIENT, Q_COOLANT, Q_AUXILIARY = range(4)
LEDGER_COLUMNS = 4


class Network(NamedTuple):
    """Offsets and conductances (W/K), heat capacities (J/K); one thermal design per bank.

    modes : (J, J) orthonormal, column m is mode m; decay : (J,) W/K added by parallel conduction to mode m
    """

    pack_module_start: IntArray
    module_group_start: IntArray
    group_cell_start: IntArray
    modes: FloatArray
    decay: FloatArray
    cell_J_per_K: float
    series: float
    coolant: float
    coolant_idle: float
    ambient: float
    module_end: float
    coolant_J_per_K: float
    flow: float
    flow_idle: float
    supply_K: float  # NaN: at ambient
    fan_W: float
    cooling_cop: float
    heating_cop: float


@njit(cache=True, error_model="numpy")
def step_kernel(
    net: Network,
    temperature_K: FloatArray,
    coolant_K: FloatArray,
    auxiliary_W: FloatArray,
    ledger: FloatArray,
    heat_W: FloatArray,
    ambient_K: FloatArray,
    cooling: FloatArray,
    dt_s: float,
    work: FloatArray,
    chain: FloatArray,
) -> None:
    """Advance all modules by dt_s; work (2, G, J) and chain (2, G) are scratch for the largest module."""
    # Arrays are taken out of the tuple once: inside the loops each access would count references.
    pack_module_start, module_group_start = net.pack_module_start, net.module_group_start
    group_cell_start, modes, decay = net.group_cell_start, net.modes, net.decay
    series, loss, end_loss = net.series, net.ambient, net.module_end
    n_parallel = modes.shape[0]
    root = np.sqrt(n_parallel)
    value, ratio = work[0], work[1]  # (G, J)
    unit, lift = chain[0], chain[1]  # (G,)
    c_dt = net.cell_J_per_K / dt_s
    for p in range(ambient_K.size):
        level = cooling[p]
        h = net.coolant_idle + level * (net.coolant - net.coolant_idle)
        flow = net.flow_idle + level * (net.flow - net.flow_idle)
        own_supply = not np.isnan(net.supply_K)
        supply = net.supply_K - ambient_K[p] if own_supply else 0.0
        lost_W, carried_W, put_in_W = 0.0, 0.0, 0.0
        for m in range(pack_module_start[p], pack_module_start[p + 1]):
            first_group = module_group_start[m]
            n_groups = module_group_start[m + 1] - first_group
            # Right-hand sides in modes, and forward elimination of every mode's chain at once.
            for g in range(n_groups):
                first = group_cell_start[first_group + g]
                for k in range(n_parallel):
                    value[g, k] = 0.0
                for j in range(n_parallel):
                    q = heat_W[first + j]
                    put_in_W += q
                    source = c_dt * (temperature_K[first + j] - ambient_K[p]) + q
                    for k in range(n_parallel):
                        value[g, k] += modes[j, k] * source
                neighbours = (g > 0) + (g < n_groups - 1)
                edge = end_loss * ((g == 0) + (g == n_groups - 1))
                base = c_dt + h + loss + edge + neighbours * series
                for k in range(n_parallel):
                    diagonal = base + decay[k]
                    if g > 0:
                        diagonal -= series * ratio[g - 1, k]
                        value[g, k] += series * value[g - 1, k]
                    ratio[g, k] = series / diagonal
                    value[g, k] /= diagonal
                    if k == 0:
                        # Response of the mean mode to the coolant, per kelvin.
                        unit[g] = root * h
                        if g > 0:
                            unit[g] += series * unit[g - 1]
                        unit[g] /= diagonal
            for g in range(n_groups - 2, -1, -1):
                for k in range(n_parallel):
                    value[g, k] += ratio[g, k] * value[g + 1, k]
            sum_value, sum_unit = 0.0, 0.0
            for g in range(n_groups - 1, -1, -1):
                lift[g] = unit[g] if g == n_groups - 1 else unit[g] + ratio[g, 0] * lift[g + 1]
                sum_value += value[g, 0]
                sum_unit += lift[g]
            w_dt = net.coolant_J_per_K / dt_s
            coolant = (w_dt * (coolant_K[m] - ambient_K[p]) + flow * supply + h * root * sum_value) / (
                w_dt + flow + h * n_groups * n_parallel - h * root * sum_unit
            )
            coolant_K[m] = ambient_K[p] + coolant
            carried_W += flow * (coolant - supply)
            for g in range(n_groups):
                first = group_cell_start[first_group + g]
                value[g, 0] += coolant * lift[g]
                edge = end_loss * ((g == 0) + (g == n_groups - 1))
                for j in range(n_parallel):
                    above = 0.0
                    for k in range(n_parallel):
                        above += modes[j, k] * value[g, k]
                    temperature_K[first + j] = ambient_K[p] + above
                    lost_W += (loss + edge) * above
        power_W = net.fan_W * level**3
        if own_supply:  # heat the chiller moves, or the heater brings
            power_W += carried_W / net.cooling_cop if carried_W > 0.0 else -carried_W / net.heating_cop
        auxiliary_W[p] = power_W
        ledger[p, Q_HEAT] += put_in_W * dt_s
        ledger[p, Q_AMBIENT] += lost_W * dt_s
        ledger[p, Q_COOLANT] += carried_W * dt_s
        ledger[p, Q_AUXILIARY] += power_W * dt_s
