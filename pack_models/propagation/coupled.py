"""One module in abuse beside a plant with its own, finer steps: windows of exchange around a `Session`.

    module = CoupledModule(case, "network", start_K=temperatures, soc=soc)
    module.step(dt_us=100_000, heat_W=heat, ambient_K=298.15, cooling=1.0)
    module.temperature_K, module.vented, module.gas_mol

The session advances a window ahead (half a second while cells run away, two seconds when calm) with the heat
that the plant has released since the last exchange and the cooling of that instant; between exchanges its
temperatures and gas are interpolated. So a sensor sees a smooth curve without delay, the module sees what
the plant does one window late, and no heat is lost: what waits for the next window is `pending_J`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from .case import Case, parse_case
from .errors import CaseError
from .kernel import Rates
from .kinetics import PATHWAYS, pathways
from .session import SessionModel, Step, open_session

SHORTEST_US, LONGEST_US, GRID_US = 500_000, 2_000_000, 100_000
CHANGE_K = 2.0  # a window is chosen so that no cell's mean moves by more
SELF_HEATING_K_S = 0.02 / 60.0  # what an accelerating-rate calorimeter takes for self-heating


def with_options(
    case: Case, *, between: tuple[str, float] | None = None, plate_W_m2K: float | None = None
) -> Case:
    """A pack with other barriers and another plate film.

    Parameters
    ----------
    between : material and thickness (m) of what stands between neighbours along x and y
    plate_W_m2K : film of every boundary that the cooling command scales, at full cooling
    """
    data: dict[str, Any] = copy.deepcopy(dict(case.data))
    if case.kind != "pack":
        raise CaseError(case.name, [f"geometry.kind: {case.kind!r} is no module; expected a pack"])
    if between is not None:
        material, thickness_m = between
        gaps = data["geometry"].setdefault("between", {})
        for axis, count in zip("xyz", data["geometry"]["cells"]["count"], strict=False):
            if count > 1 and axis != "z":
                gaps[axis] = {"material": material, "thickness_m": thickness_m}
    if plate_W_m2K is not None:
        cooled = [side for side in data.get("boundaries", {}).values() if side.get("cooled")]
        if not cooled:
            raise CaseError(case.name, ["boundaries: none is marked `cooled`, so there is no film to choose"])
        for side in cooled:
            side["h_W_m2K"] = plate_W_m2K
    return parse_case(data, case.name, case.name)


def module_case(
    case: Case, *, between: tuple[str, float] | None = None, plate_W_m2K: float | None = None
) -> Case:
    """A case as the module of a plant: with these options, without triggers and schedules of its own."""
    data = dict(with_options(case, between=between, plate_W_m2K=plate_W_m2K).data)
    for key in ("triggers", "probes"):
        data.pop(key, None)
    data["run"] = {key: value for key, value in data.get("run", {}).items() if key != "cooling"}
    return parse_case(data, case.name, case.name)


def onset_K(case: Case) -> float:
    """Where the most reactive of the fresh cells heats itself by 0.02 K/min: the onset of calorimetry."""
    tables = case.tables()
    lowest = np.inf
    for index, use in enumerate(case.sets):
        rates = Rates(tables, index)
        volumetric = use.density_kg_m3 * case.cp_J_kgK
        fresh = tables.initial[index]

        def heats(
            kelvin: float, rates: Rates = rates, fresh: np.ndarray = fresh, c: float = volumetric
        ) -> bool:
            return bool(rates(kelvin, fresh)[0] / c >= SELF_HEATING_K_S)

        low, high = 300.0, 700.0
        if not heats(high):
            continue
        while high - low > 0.01:
            middle = 0.5 * (low + high)
            low, high = (low, middle) if heats(middle) else (middle, high)
        lowest = min(lowest, high)
    return float(lowest)


class CoupledModule:
    """A module past its onset.

    Attributes
    ----------
    temperature_K : (n_cells,) volume means at the plant's present
    state_of_safety : (n_cells,) · vented, collapsed, runaway : (n_cells,) latched
    gas_mol : (n_cells,) released so far
    pending_J : (n_cells,) heat of the plant that the next window takes
    """

    def __init__(self, case: Case, model: SessionModel, start_K: np.ndarray, soc: np.ndarray) -> None:
        self.session = open_session(case, model, start_K=start_K, soc=soc)
        n = case.n_cells
        self._now_us = self._from_us = self._until_us = 0
        self._last: Step | None = None
        self.temperature_K = np.array(start_K, dtype=float)
        self._temperatures = (self.temperature_K.copy(), self.temperature_K.copy())
        self._gases = (np.zeros(n), np.zeros(n))
        self.gas_mol, self.pending_J = np.zeros(n), np.zeros(n)
        self.state_of_safety = np.ones(n)
        self.vented, self.collapsed, self.runaway = (np.zeros(n, dtype=bool) for _ in range(3))
        self.energy_J: Mapping[str, float] = {"stored": 0.0, "reactions": 0.0, "radiation": 0.0, "abuse": 0.0}
        self.short_J = 0.0
        uses = [self.session.case.sets[s] for s in self.session.case.cell_set]
        self._short_J = (
            np.array(
                [
                    0.0
                    if use.short is None
                    else float(
                        sum(
                            q
                            for q, pathway in zip(pathways(use).heat_J_m3, pathways(use).pathway, strict=True)
                            if pathway == "short"
                        )
                    )
                    for use in uses
                ]
            )
            * self.session.cell_volume_m3
        )

    def step(self, dt_us: int, heat_W: np.ndarray, ambient_K: float, cooling: float) -> None:
        """Advance the plant's present by dt_us with the heat of its cells held."""
        self.pending_J += heat_W * (dt_us * 1e-6)
        self._now_us += dt_us
        while self._now_us > self._until_us:
            self._window(ambient_K, cooling)
        share = (self._now_us - self._from_us) / (self._until_us - self._from_us)
        for out, (before, after) in (
            (self.temperature_K, self._temperatures),
            (self.gas_mol, self._gases),
        ):
            out[:] = before + share * (after - before)

    def _window(self, ambient_K: float, cooling: float) -> None:
        """Run the session one window ahead; flags count from the end of the window they fell in."""
        done = self._last
        if done is not None:
            self.vented |= done.vented
            self.collapsed |= done.voltage_collapsed
            self.runaway |= done.runaway
            self.state_of_safety = done.state_of_safety
        length_us = self._length_us()
        step = self.session.step(
            length_us * 1e-6, self.pending_J / (length_us * 1e-6), ambient_K=ambient_K, cooling=cooling
        )
        self.pending_J[:] = 0.0
        self._from_us, self._until_us = self._until_us, self._until_us + length_us
        self._temperatures = (self._temperatures[1], step.temperature_mean_K)
        self._gases = (self._gases[1], np.maximum(self._gases[1], step.gas_mol))
        self._last = step
        self.energy_J = step.energy_J
        self.short_J = float(step.conversion[:, PATHWAYS.index("short")] @ self._short_J)

    def _length_us(self) -> int:
        """From the fastest cell of the window before."""
        if self._last is None:
            return SHORTEST_US
        before, after = self._temperatures
        fastest = float(np.abs(after - before).max()) / ((self._until_us - self._from_us) * 1e-6)
        wanted = CHANGE_K / fastest * 1e6 if fastest > 0 else LONGEST_US
        # At most doubled: a window that was calm by chance says little about the next.
        wanted = min(wanted, LONGEST_US, 2.0 * (self._until_us - self._from_us))
        return max(SHORTEST_US, int(wanted) // GRID_US * GRID_US)

    def close(self) -> None:
        """End the process of the finite elements, if there is one."""
        self.session.close()
