"""A rack: packs in parallel behind one power converter.

The packs of a rack share one DC bus. With each pack's end-of-step model V = emf - R I the bus voltage
that serves a power is the root of a quadratic, and every pack's current follows from it; the BMS
limits of the packs bound the bus voltage from both sides, so one clamp honours all of them at once.

The converter loses power = rated * (no_load + proportional * |p| + quadratic * p^2), p = AC power /
rated, the usual three-term efficiency model of inverters (e.g. Schmidt and Sauer 1996); it covers the
loss from the DC side, discharge positive on both sides. The three terms may depend on the DC voltage: the
rows of an efficiency map, interpolated.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from twin.ports import BoolArray, FloatArray, IntArray


@njit(cache=True)
def loss_terms(rows: FloatArray, voltage_V: FloatArray) -> FloatArray:
    """(n_racks, 3) loss terms at each rack's voltage, between the rows (n_racks, n_rows, 4) of its map."""
    n_racks, n_rows = rows.shape[0], rows.shape[1]
    out = np.empty((n_racks, 3))
    for rack in range(n_racks):
        k = 0
        while k < n_rows - 2 and voltage_V[rack] > rows[rack, k + 1, 0]:
            k += 1
        low, high = rows[rack, k], rows[rack, min(k + 1, n_rows - 1)]
        span = high[0] - low[0]
        share = min(max((voltage_V[rack] - low[0]) / span, 0.0), 1.0) if span > 0.0 else 0.0
        for term in range(3):
            out[rack, term] = low[term + 1] + share * (high[term + 1] - low[term + 1])
    return out


@njit(cache=True)
def converter_loss_W(ac_W: float, rated_W: float, loss: FloatArray) -> float:
    """Loss at an AC power; loss = (no_load, proportional, quadratic)."""
    p = abs(ac_W) / rated_W
    return rated_W * (loss[0] + p * (loss[1] + p * loss[2]))


@njit(cache=True)
def ac_from_dc_W(dc_W: float, rated_W: float, loss: FloatArray) -> float:
    """The AC power that goes with a DC power: inverse of dc = ac + converter_loss(ac)."""
    d = dc_W / rated_W - loss[0]
    slope = 1.0 + loss[1] if d >= 0.0 else 1.0 - loss[1]
    # a2 p^2 + slope p - d = 0, written so that a2 -> 0 is harmless.
    root = slope * slope + 4.0 * loss[2] * d
    return rated_W * 2.0 * d / (slope + math.sqrt(max(root, 0.0)))


@njit(cache=True)
def split_power(
    request_ac_W: FloatArray,
    rated_W: FloatArray,
    loss: FloatArray,
    rack_pack_start: IntArray,
    emf_V: FloatArray,
    resistance_ohm: FloatArray,
    connected: BoolArray,
    discharge_limit_A: FloatArray,
    charge_limit_A: FloatArray,
    pack_current_A: FloatArray,
) -> None:
    """Currents of all packs for the AC power asked of each rack; writes pack_current_A (n_packs,).

    request_ac_W, rated_W (n_racks,); loss (n_racks, 3); emf_V, resistance_ohm, connected and the limits
    (n_packs,). A disconnected pack carries nothing.
    """
    for rack in range(request_ac_W.size):
        first, last = rack_pack_start[rack], rack_pack_start[rack + 1]
        conductance, weighted = 0.0, 0.0
        lowest, highest = -math.inf, math.inf
        for i in range(first, last):
            pack_current_A[i] = 0.0
            if connected[i]:
                conductance += 1.0 / resistance_ohm[i]
                weighted += emf_V[i] / resistance_ohm[i]
                lowest = max(lowest, emf_V[i] - resistance_ohm[i] * discharge_limit_A[i])
                highest = min(highest, emf_V[i] + resistance_ohm[i] * charge_limit_A[i])
        if conductance == 0.0:
            continue
        emf, resistance = weighted / conductance, 1.0 / conductance
        ac = min(max(request_ac_W[rack], -rated_W[rack]), rated_W[rack])
        dc = ac + converter_loss_W(ac, rated_W[rack], loss[rack])
        root = emf * emf - 4.0 * resistance * dc
        voltage = 0.5 * (emf + math.sqrt(max(root, 0.0)))
        if lowest > highest:  # packs far apart drive more between themselves than one may take
            voltage = 0.5 * (lowest + highest)
        else:
            voltage = min(max(voltage, lowest), highest)
        for i in range(first, last):
            if connected[i]:
                pack_current_A[i] = (emf_V[i] - voltage) / resistance_ohm[i]


@njit(cache=True)
def settle_racks(
    rated_W: FloatArray,
    loss: FloatArray,
    rack_pack_start: IntArray,
    connected: BoolArray,
    stays_connected: BoolArray,
    pack_voltage_V: FloatArray,
    pack_power_W: FloatArray,
    discharge_limit_A: FloatArray,
    charge_limit_A: FloatArray,
    dc_W: FloatArray,
    ac_W: FloatArray,
    can_discharge_W: FloatArray,
    can_charge_W: FloatArray,
) -> None:
    """What came of it: DC and AC power of each rack and what its BMSs allow next, all (n_racks,).

    connected: during the step just done; stays_connected: as the BMS commands from now on.
    """
    for rack in range(rated_W.size):
        dc, discharge, charge, any_connected = 0.0, 0.0, 0.0, False
        for i in range(rack_pack_start[rack], rack_pack_start[rack + 1]):
            dc += pack_power_W[i]
            any_connected |= connected[i]
            if stays_connected[i]:
                discharge += pack_voltage_V[i] * discharge_limit_A[i]
                charge += pack_voltage_V[i] * charge_limit_A[i]
        dc_W[rack] = dc
        ac_W[rack] = ac_from_dc_W(dc, rated_W[rack], loss[rack]) if any_connected else 0.0
        can_discharge_W[rack] = min(discharge, rated_W[rack])
        can_charge_W[rack] = min(charge, rated_W[rack])


class LinkVoltages:
    """The DC link of each rack's converter, charged through the precharge resistor (n_racks,)."""

    def __init__(
        self, n_racks: int, precharge_time_constant_s: float, bleed_time_constant_s: float = 60.0
    ) -> None:
        self.voltage_V = np.zeros(n_racks)
        self.precharge_time_constant_s = precharge_time_constant_s
        self.bleed_time_constant_s = bleed_time_constant_s

    def step(
        self,
        rack_of_pack: IntArray,
        pack_voltage_V: FloatArray,
        main: BoolArray,
        precharge: BoolArray,
        dt_s: float,
    ) -> FloatArray:
        """Advance by dt_s; returns the link voltage seen by each pack (n_packs,)."""
        bleed = math.exp(-dt_s / self.bleed_time_constant_s)
        approach = 1.0 - math.exp(-dt_s / self.precharge_time_constant_s)
        _step_links(self.voltage_V, rack_of_pack, pack_voltage_V, main, precharge, bleed, approach)
        return self.voltage_V[rack_of_pack]


@njit(cache=True)
def _step_links(
    link_V: FloatArray,
    rack_of_pack: IntArray,
    pack_voltage_V: FloatArray,
    main: BoolArray,
    precharge: BoolArray,
    bleed: float,
    approach: float,
) -> None:
    """Connected packs hold their link at their (common) voltage; one on precharge pulls it up."""
    link_V *= bleed
    for p in range(main.size):
        if precharge[p] and not main[p]:
            rack = rack_of_pack[p]
            link_V[rack] += (pack_voltage_V[p] - link_V[rack]) * approach
    for p in range(main.size):
        if main[p]:
            link_V[rack_of_pack[p]] = pack_voltage_V[p]
