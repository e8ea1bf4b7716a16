"""Ageing of one cell by PyBaMM's own physics: SEI growth, lithium plating, stress-driven loss of material.

    cell = PybammAgeing(np.full(28, 0.5))            # all 28 share the fate of one representative cell
    cell.accumulate(soc, temperature_K, dt_s); cell.capacity_factor

The representative cell is a single-particle model of the parameter set OKane2022 (LG M50, O'Kane et al.,
Phys. Chem. Chem. Phys. 24 (2022) 7909). It follows the mean charge of the bank in pieces of PIECE_S with the
current that gets it there. Capacity is what lithium and both electrodes still allow between the voltage
limits (PyBaMM's electrode state-of-health solution); resistance grows by the film on the graphite, over
the resistance NOMINAL_OHM of the cell. For one cell and audits: some tens of milliseconds per piece.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pack_models.ageing.forms import FloatArray
from pack_models.cells.bank import check_step_s

PIECE_S = 1800.0
# Ten-second resistance of the LG M50 at 25 degC and half charge (catalogue cell lgm50_chen2020, R0 + R1).
NOMINAL_OHM = 0.025
OPTIONS = {
    "SEI": "solvent-diffusion limited",
    "SEI porosity change": "true",
    "lithium plating": "partially reversible",
    "lithium plating porosity change": "true",
    "particle mechanics": "swelling only",
    "loss of active material": "stress-driven",
    "calculate discharge energy": "true",
}
PARAMETERS = "OKane2022"
READ = (
    "Negative electrode capacity [A.h]",
    "Positive electrode capacity [A.h]",
    "Total lithium in particles [mol]",
    "Average negative particle stoichiometry",
    "X-averaged negative SEI thickness [m]",
)


class PybammAgeing:
    """The port of the ageing ladder (see `AgeingBank`) by one representative PyBaMM cell.

    Parameters
    ----------
    soc : (n_cells,) at the start
    refresh_every_s : factors are brought up to date after this much time
    """

    def __init__(self, soc: FloatArray, refresh_every_s: float = 86400.0) -> None:
        import pybamm

        check_step_s(refresh_every_s)
        self._pybamm = pybamm
        self._parameters: Any = pybamm.ParameterValues(PARAMETERS)
        self._nominal_Ah = float(self._parameters["Nominal cell capacity [A.h]"])
        self._model: Any = pybamm.lithium_ion.SPM(OPTIONS)
        self._health: Any = pybamm.lithium_ion.ElectrodeSOHSolver(
            self._parameters, param=pybamm.LithiumIonParameters(OPTIONS)
        )
        self._low_V = float(self._parameters["Lower voltage cut-off [V]"])
        self._high_V = float(self._parameters["Upper voltage cut-off [V]"])
        running = self._parameters.copy()
        running.update({"Current function [A]": "[input]", "Ambient temperature [K]": "[input]"})
        # The bank keeps its own limits; a piece that grazes one must not end the solution.
        running.update({"Lower voltage cut-off [V]": 2.0, "Upper voltage cut-off [V]": 4.6})
        self._simulation: Any = pybamm.Simulation(self._model, parameter_values=running)
        self._seen: dict[str, float] = {}
        start = float(np.mean(soc))
        self.soc = start  # of the representative cell
        self._build(start)
        self.capacity_factor = np.ones(soc.size)
        self.resistance_factor = np.ones(soc.size)
        self._elapsed_s = self._kelvin_s = self._since_s = 0.0
        self._refresh_every_s = refresh_every_s
        self._hours = {"colder_h": 0.0, "hotter_h": 0.0, "depth_cycles": 0.0, "rate_cycles": 0.0}

    def _build(self, soc: float) -> None:
        """The cell at its start: charge set, a moment of rest, capacity and film as references."""
        self._simulation.build(initial_soc=soc, inputs=self._inputs(0.0, 298.15))
        self._step(1.0, 0.0, 298.15)
        window = self._window()
        self._fresh_Ah = window["Q"]
        self._fresh_film_m = self._seen[READ[4]]
        self._resistance_per_m = self._film_ohm_per_m()

    def _inputs(self, current_A: float, kelvin: float) -> dict[str, float]:
        return {"Current function [A]": current_A, "Ambient temperature [K]": kelvin}

    def _step(self, dt_s: float, current_A: float, kelvin: float) -> None:
        solution = self._simulation.step(dt_s, inputs=self._inputs(current_A, kelvin), save=False)
        self._seen = {name: float(solution[name].entries[-1]) for name in READ}

    def _window(self) -> dict[str, float]:
        """Capacity between the voltage limits, and the stoichiometries at them."""
        faraday_Ah = 96485.33212 / 3600.0
        return dict(
            self._health.solve(
                {
                    "Q_n": self._seen[READ[0]],
                    "Q_p": self._seen[READ[1]],
                    "Q_Li": self._seen[READ[2]] * faraday_Ah,
                }
            )
        )

    def _film_ohm_per_m(self) -> float:
        """Ohm of the whole cell per metre of film: resistivity over the wetted area of the graphite."""
        p = self._parameters
        area_m2 = p["Electrode width [m]"] * p["Electrode height [m]"]
        per_volume = (
            3.0 * p["Negative electrode active material volume fraction"] / p["Negative particle radius [m]"]
        )
        return float(
            p["SEI resistivity [Ohm.m]"] / (per_volume * p["Negative electrode thickness [m]"] * area_m2)
        )

    def accumulate(self, soc: FloatArray, temperature_K: FloatArray, dt_s: float) -> bool:
        """Age by one step; True when the factors have been refreshed by it. Arguments as for `AgeingBank`."""
        check_step_s(dt_s)
        if not (np.isfinite(soc).all() and np.isfinite(temperature_K).all()):
            bad = int(np.flatnonzero(~(np.isfinite(soc) & np.isfinite(temperature_K)))[0])
            raise ValueError(f"cell {bad} at state of charge {soc[bad]:g} and {temperature_K[bad]:g} K")
        self._elapsed_s += dt_s
        self._kelvin_s += float(temperature_K.mean()) * dt_s
        self._since_s += dt_s
        if self._elapsed_s >= PIECE_S:
            self._follow(float(np.clip(soc.mean(), 0.0, 1.0)))
        due = self._since_s >= self._refresh_every_s
        if due:
            self.refresh()
        return due

    def _follow(self, target: float) -> None:
        """Take the representative cell to where the bank stands, over the time since the last piece."""
        kelvin, hours = self._kelvin_s / self._elapsed_s, self._elapsed_s / 3600.0
        capacity_Ah = self._fresh_Ah * float(self.capacity_factor[0])
        current_A = float(
            np.clip((self.soc - target) * capacity_Ah / hours, -2.0 * capacity_Ah, 2.0 * capacity_Ah)
        )
        self._step(self._elapsed_s, current_A, kelvin)
        window = self._window()
        self.soc = (self._seen[READ[3]] - window["x_0"]) / (window["x_100"] - window["x_0"])
        self._hours["colder_h"] += hours * (kelvin < 273.15)
        self._hours["hotter_h"] += hours * (kelvin > 318.15)
        self._elapsed_s = self._kelvin_s = 0.0

    def refresh(self) -> None:
        """Factors from the state of the representative cell."""
        left = min(self._window()["Q"] / self._fresh_Ah, 1.0)
        film_m = self._seen[READ[4]] - self._fresh_film_m
        grown = 1.0 + max(film_m, 0.0) * self._resistance_per_m / NOMINAL_OHM
        np.minimum(self.capacity_factor, left, out=self.capacity_factor)
        np.maximum(self.resistance_factor, grown, out=self.resistance_factor)
        self._since_s = 0.0

    def outside(self) -> dict[str, FloatArray]:
        """Hours below 0 and above 45 degC, the same for all cells; depth and rate are not limited."""
        return {name: np.full(self.capacity_factor.size, hours) for name, hours in self._hours.items()}
