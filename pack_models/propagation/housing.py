"""Pressure and gas in the housing of a pack whose cells vent: a mixed volume, a relief valve, a breather.

    air = Housing(volume_m3, vent_m2, vent_opens_Pa, breather_m2, gas_K, gas_kg_mol)       # (n_packs,) each
    air.step(inflow_mol=np.array([0.2]), ambient_K=np.array([298.15]), dt_s=0.1)
    air.gauge_Pa, air.gas_fraction

Ideal gas of one heat capacity ratio (1.35: vent gas at some hundred degrees; air has 1.4). Flow through
valve and breather is the isentropic nozzle with a discharge coefficient, choked where the pressure ratio
asks for it (textbooks of gas dynamics, e.g. Shapiro 1953, chapter 4). The valve re-closes: it opens from its
pressure on and is fully open a fifth above it. Gas loses heat to the walls (10 W/m2K on 6 V^(2/3)). What
flows in has its own declared temperature; its heat is not taken from the cells, so the thermal ledgers stay
conservative.

Arrays are (n_packs,), pressures in Pa, amounts in mol, temperatures in K.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

GAS_CONSTANT = 8.314462618
ATMOSPHERE_PA = 101_325.0
GAMMA = 1.35
DISCHARGE = 0.62  # sharp-edged opening
AIR_KG_MOL = 0.02896
WALL_W_M2K = 10.0
SUBSTEP_S = 1e-3
_CRITICAL = (2.0 / (GAMMA + 1.0)) ** (GAMMA / (GAMMA - 1.0))


@njit(cache=True)
def nozzle_mol_s(
    area_m2: float, upstream_Pa: float, downstream_Pa: float, upstream_K: float, kg_mol: float
) -> float:
    """Molar flow through an opening from the higher to the lower pressure, mol/s."""
    ratio = max(downstream_Pa / upstream_Pa, _CRITICAL)
    if ratio >= 1.0:
        return 0.0
    shape = 2.0 * GAMMA / (GAMMA - 1.0) * (ratio ** (2.0 / GAMMA) - ratio ** ((GAMMA + 1.0) / GAMMA))
    flow = DISCHARGE * area_m2 * upstream_Pa * np.sqrt(shape / (kg_mol * GAS_CONSTANT * upstream_K))
    return float(flow)


@njit(cache=True)
def _advance(
    air_mol: FloatArray,
    gas_mol: FloatArray,
    kelvin: FloatArray,
    escaped_mol: FloatArray,
    inflow_mol: FloatArray,
    ambient_K: FloatArray,
    volume_m3: FloatArray,
    vent_m2: FloatArray,
    vent_opens_Pa: FloatArray,
    breather_m2: FloatArray,
    gas_K: FloatArray,
    gas_kg_mol: FloatArray,
    dt_s: float,
) -> None:
    """All housings over dt_s in sub-steps; the arrays of the state are written in place."""
    count = max(1, int(np.ceil(dt_s / SUBSTEP_S - 1e-9)))
    h = dt_s / count
    cv = GAS_CONSTANT / (GAMMA - 1.0)
    cp = cv + GAS_CONSTANT
    for p in range(air_mol.size):
        wall_W_K = WALL_W_M2K * 6.0 * volume_m3[p] ** (2.0 / 3.0)
        come = inflow_mol[p] / count
        for _ in range(count):
            n = air_mol[p] + gas_mol[p]
            energy = n * cv * kelvin[p] + come * cp * gas_K[p]
            gas_mol[p] += come
            n += come
            # Walls: exact for this sub-step, so that a small volume is stable.
            kelvin[p] = energy / (n * cv)
            kelvin[p] = ambient_K[p] + (kelvin[p] - ambient_K[p]) * np.exp(-wall_W_K * h / (n * cv))
            pressure = n * GAS_CONSTANT * kelvin[p] / volume_m3[p]
            share = gas_mol[p] / n
            kg_mol = share * gas_kg_mol[p] + (1.0 - share) * AIR_KG_MOL
            over = pressure - ATMOSPHERE_PA
            if over > 0.0:
                lift = min(max((over - vent_opens_Pa[p]) / (0.2 * vent_opens_Pa[p]), 0.0), 1.0)
                out = nozzle_mol_s(lift * vent_m2[p], pressure, ATMOSPHERE_PA, kelvin[p], kg_mol) * h
                out = min(out, n * max(over - vent_opens_Pa[p], 0.0) / pressure)  # the valve closes in time
                out += min(
                    nozzle_mol_s(breather_m2[p], pressure, ATMOSPHERE_PA, kelvin[p], kg_mol) * h,
                    n * over / pressure,
                )
                out = min(out, 0.5 * n)
                gas_mol[p] -= out * share
                air_mol[p] -= out * (1.0 - share)
                escaped_mol[p] += out * share
                # What leaves takes its enthalpy: the rest expands.
                kelvin[p] = (n * cv * kelvin[p] - out * cp * kelvin[p]) / ((n - out) * cv)
            elif over < 0.0:
                back = nozzle_mol_s(breather_m2[p], ATMOSPHERE_PA, pressure, ambient_K[p], AIR_KG_MOL) * h
                back = min(back, -over / ATMOSPHERE_PA * n)
                kelvin[p] = (n * cv * kelvin[p] + back * cp * ambient_K[p]) / ((n + back) * cv)
                air_mol[p] += back


class Housing:
    """Gas in the housings of n packs.

    Attributes
    ----------
    air_mol, gas_mol, kelvin : state; escaped_mol : vent gas that has left; released_mol : that has come in
    """

    def __init__(
        self,
        volume_m3: FloatArray,
        vent_m2: FloatArray,
        vent_opens_Pa: FloatArray,
        breather_m2: FloatArray,
        gas_K: FloatArray,
        gas_kg_mol: FloatArray,
        ambient_K: FloatArray | float = 298.15,
    ) -> None:
        self._fixed = tuple(
            np.array(v, dtype=float)
            for v in (volume_m3, vent_m2, vent_opens_Pa, breather_m2, gas_K, gas_kg_mol)
        )
        volume = self._fixed[0]
        if any(v.shape != volume.shape or not (np.isfinite(v) & (v > 0)).all() for v in self._fixed):
            raise ValueError("a housing needs positive numbers, one of each per pack")
        self.kelvin = np.broadcast_to(np.asarray(ambient_K, dtype=float), volume.shape).copy()
        self.air_mol = ATMOSPHERE_PA * volume / (GAS_CONSTANT * self.kelvin)
        self.gas_mol, self.escaped_mol, self.released_mol = (np.zeros_like(volume) for _ in range(3))

    @property
    def gauge_Pa(self) -> FloatArray:
        """Pressure above that of the surroundings."""
        n = self.air_mol + self.gas_mol
        return np.asarray(n * GAS_CONSTANT * self.kelvin / self._fixed[0] - ATMOSPHERE_PA)

    @property
    def gas_fraction(self) -> FloatArray:
        """Vent gas by volume, 0…1."""
        return np.asarray(self.gas_mol / (self.air_mol + self.gas_mol))

    def step(self, inflow_mol: FloatArray, ambient_K: FloatArray, dt_s: float) -> None:
        """Advance by dt_s while `inflow_mol` comes in evenly."""
        _advance(
            self.air_mol,
            self.gas_mol,
            self.kelvin,
            self.escaped_mol,
            np.asarray(inflow_mol, dtype=float),
            np.asarray(ambient_K, dtype=float),
            *self._fixed,
            float(dt_s),
        )
        self.released_mol += inflow_mol
