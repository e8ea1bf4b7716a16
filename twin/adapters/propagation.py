"""The ladder of abuse models: none, network, fem, behind `Propagation`.

A module whose hottest cell reaches the onset is handed over from the thermal model to a module of
`pack_models.propagation`, which then owns its temperatures; vented gas fills the housing of its pack.
The electric energy of a cell whose separator fails is released by the abuse model (its case's `short`, in
proportion to the charge left), so the cell bank's part of it is written off and never heats twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np

from twin.ports import AbuseEvent, FloatArray, Propagation
from twin.scenario.schema import PropagationChoice

CONTAINED_AFTER_S = 300.0  # no further cell for this long, and all others cooler than the onset and cooling
REPORT = {
    "collapsed": ("voltage_collapse", "alarm", "separator fails: the cell's voltage collapses"),
    "vented": ("venting", "alarm", "the cell vents"),
    "runaway": ("thermal_runaway", "alarm", "mean temperature beyond the runaway limit"),
}


class MissingEngineError(RuntimeError):
    """A rung that this machine cannot run; the message says what to install or to choose instead."""

    exit_code = 2


@dataclass(frozen=True)
class PropagationRung:
    about: str
    build: Callable[[str, int, FloatArray, FloatArray, PropagationChoice], Propagation | None]


@dataclass
class _Module:
    """A module that is past its onset."""

    pack: int
    first: int  # cell of the shard
    engine: Any
    seen: dict[str, np.ndarray]
    opened_s: float
    first_runaway_s: float | None = None
    last_runaway_s: float | None = None
    hottest_other_K: float = np.inf
    contained: bool = False


@lru_cache(maxsize=32)
def _case(design: str, barrier: str, thickness_m: float, plate_W_m2K: float | None) -> tuple[Any, float]:
    """The case of one module of a design with the scenario's options, and its onset in K."""
    from pack_models.catalogue import pack
    from pack_models.propagation.case import load_case
    from pack_models.propagation.coupled import module_case, onset_K

    found = pack(design)
    if found.abuse is None:
        raise ValueError(f"pack {design} has no section `abuse` in the catalogue; choose {{model: none}}")
    case = module_case(
        load_case(found.abuse.case),
        between=None if barrier == "case" else (barrier, thickness_m),
        plate_W_m2K=plate_W_m2K,
    )
    per_module = found.groups_per_module * found.n_parallel
    if case.n_cells != per_module:
        raise ValueError(
            f"case {found.abuse.case} has {case.n_cells} cells, a module of {design} has {per_module}"
        )
    return case, onset_K(case)


def barriers() -> dict[str, str]:
    """What may stand between cells, with its meaning: what the design's case says, or a material."""
    from pack_models.propagation.case import solids

    return {"case": "what the case of the design has there", **solids()}


class AbuseBank:
    """All modules of a shard; most of them never wake up."""

    def __init__(
        self,
        design: str,
        n_packs: int,
        temperature_K: FloatArray,
        capacity: FloatArray,
        choice: PropagationChoice,
    ) -> None:
        from pack_models.catalogue import pack
        from pack_models.propagation.housing import Housing

        self._case, onset = _case(design, choice.barrier, choice.thickness_m, choice.plate_W_m2K)
        self.onset_K = choice.onset_K if choice.onset_K is not None else onset
        self._model, self._idle = choice.model, choice.cooling_idle
        sheet = pack(design)
        assert sheet.abuse is not None
        self._abuse, self._per_module = sheet.abuse, self._case.n_cells
        self._n_packs, self._modules_per_pack = n_packs, sheet.n_modules
        n = temperature_K.size
        self.owned = np.zeros(n, dtype=bool)
        self.temperature_K = temperature_K.copy()
        self.state_of_safety = np.ones(n)
        self.mass_lost_kg = np.zeros(n)
        self.collapsed, self.runaway = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        self.collapsed_ohm = sheet.abuse.collapsed_cell_ohm
        self.pressure_Pa, self.gas_fraction = np.zeros(n_packs), np.zeros(n_packs)
        self.insulation_ohm = np.full(n_packs, np.inf)
        self.events: list[AbuseEvent] = []
        self.opened: list[range] = []
        self._modules: list[_Module] = []
        self._gas_mol = np.zeros(n)
        self._time_s = 0.0
        self._handed_J, self._written_off_J = np.zeros(n_packs), np.zeros(n_packs)
        self._cell_C = capacity * sheet.cell.capacity_Ah * 3600.0
        self._ocv = (sheet.cell.ocv_soc, sheet.cell.ocv_V)
        self._mass_kg = sheet.cell.mass_kg
        one = np.ones(n_packs)
        a = sheet.abuse
        self._housing = Housing(
            a.housing_volume_m3 * one,
            a.housing_vent_m2 * one,
            a.housing_vent_opens_Pa * one,
            a.housing_breather_m2 * one,
            a.gas_temperature_K * one,
            a.gas_kg_per_mol * one,
        )
        self._venting, self._inflow = np.zeros(n_packs, dtype=bool), np.zeros(n_packs)

    # ---- stepping ------------------------------------------------------------------------------

    def step(
        self,
        heat_W: FloatArray,
        soc: FloatArray,
        temperature_K: FloatArray,
        ambient_K: FloatArray,
        cooling: FloatArray,
        dt_s: float,
    ) -> None:
        from pack_models.propagation.errors import PropagationError

        try:
            self._step(heat_W, soc, temperature_K, ambient_K, cooling, dt_s)
        except PropagationError as error:  # the world names who and when
            raise RuntimeError(f"propagation: {error}") from error

    def _step(
        self,
        heat_W: FloatArray,
        soc: FloatArray,
        temperature_K: FloatArray,
        ambient_K: FloatArray,
        cooling: FloatArray,
        dt_s: float,
    ) -> None:
        self.events, self.opened = [], []
        dt_us = round(dt_s * 1e6)
        for module in self._modules:
            cells = slice(module.first, module.first + self._per_module)
            level = self._idle + (1.0 - self._idle) * float(cooling[module.pack])
            module.engine.step(dt_us, heat_W[cells], float(ambient_K[module.pack]), level)
            self._handed_J[module.pack] += float(heat_W[cells].sum()) * dt_s
        self._time_s += dt_s
        for module in self._modules:
            self._read(module, soc)
        self._air(ambient_K, dt_s)
        if float(temperature_K.max()) >= self.onset_K:
            self._wake(temperature_K, soc)

    def _wake(self, temperature_K: FloatArray, soc: FloatArray) -> None:
        """Hand over the modules with a cell beyond the onset."""
        from pack_models.propagation.coupled import CoupledModule

        hot = (temperature_K >= self.onset_K) & ~self.owned
        for number in np.unique(np.flatnonzero(hot) // self._per_module):
            first = int(number) * self._per_module
            cells = slice(first, first + self._per_module)
            engine = CoupledModule(
                self._case, cast(Any, self._model), temperature_K[cells], np.clip(soc[cells], 0.0, 1.0)
            )
            seen = {name: np.zeros(self._per_module, dtype=bool) for name in REPORT}
            pack = int(number) // self._modules_per_pack
            self._modules.append(_Module(pack, first, engine, seen, self._time_s))
            self.owned[cells] = True
            self.temperature_K[cells] = temperature_K[cells]
            self.opened.append(range(first, first + self._per_module))
            hottest = first + int(np.argmax(temperature_K[cells]))
            self._say(
                hottest,
                "abuse_onset",
                "warning",
                float(temperature_K[hottest]),
                "K",
                f"a cell is beyond the onset; its module goes over to the {self._model} model",
            )

    def _read(self, module: _Module, soc: FloatArray) -> None:
        """State and news of a module."""
        engine, first = module.engine, module.first
        cells = slice(first, first + self._per_module)
        self.temperature_K[cells] = engine.temperature_K
        self.state_of_safety[cells] = engine.state_of_safety
        for name, (kind, severity, text) in REPORT.items():
            new = getattr(engine, name) & ~module.seen[name]
            for k in np.flatnonzero(new):
                cell = first + int(k)
                self._say(cell, kind, severity, float(engine.temperature_K[k]), "K", text)
                if name == "collapsed":
                    self.collapsed[cell] = True
                    self._written_off_J[module.pack] += self._electric_J(cell, float(soc[cell]))
                elif name == "vented":
                    self._venting[module.pack] = True
                    self.insulation_ohm[module.pack] = self._abuse.insulation_after_venting_ohm
                else:
                    self._burn(module, cell)
            module.seen[name] |= new
        released = engine.gas_mol - self._gas_mol[cells]
        self._gas_mol[cells] = engine.gas_mol
        # The rest of what is ejected (electrolyte, particles) leaves as the gas does.
        total = self._abuse.ejected_fraction * self._mass_kg
        gas_kg = self._gas_mol[cells] * self._abuse.gas_kg_per_mol
        self.mass_lost_kg[cells] = np.where(engine.runaway, np.maximum(gas_kg, total), gas_kg)
        self._inflow[module.pack] += float(released.sum())
        self._contained(module)

    def _burn(self, module: _Module, cell: int) -> None:
        """A cell has run away: the first one, or one more."""
        self.runaway[cell] = True
        if module.first_runaway_s is None:
            module.first_runaway_s = self._time_s
        else:
            since = self._time_s - module.first_runaway_s
            self._say(
                cell,
                "propagation",
                "alarm",
                since,
                "s",
                f"the runaway has spread to this cell after {since:.0f} s",
            )
        module.last_runaway_s, module.contained = self._time_s, False

    def _contained(self, module: _Module) -> None:
        """Say so once no further cell is on its way."""
        if module.last_runaway_s is None or module.contained:
            return
        burnt = module.engine.runaway
        if burnt.all() or self._time_s - module.last_runaway_s < CONTAINED_AFTER_S:
            return
        hottest = float(module.engine.temperature_K[~burnt].max())
        cooling = hottest < module.hottest_other_K - 0.01
        module.hottest_other_K = hottest
        if cooling and hottest < self.onset_K:
            module.contained = True
            n = int(burnt.sum())
            # Contained is one cell only (UL 9540A: no other runs away without a further trigger).
            kind, what = ("contained", "cell has") if n == 1 else ("spread_ended", "cells have")
            text = f"{n} of {burnt.size} {what} run away; the others are cooler than the onset and cooling"
            first = module.first + int(np.flatnonzero(burnt)[0])
            self._say(first, kind, "info", float(n), "1", text)

    def _air(self, ambient_K: FloatArray, dt_s: float) -> None:
        """Pressure and gas in the housings that have ever seen gas."""
        if not self._venting.any():
            return
        self._housing.step(self._inflow, ambient_K, dt_s)
        self._inflow[:] = 0.0
        self.pressure_Pa[:] = np.where(self._venting, self._housing.gauge_Pa, 0.0)
        self.gas_fraction[:] = self._housing.gas_fraction * self._abuse.gas_combustible

    def _electric_J(self, cell: int, soc: float) -> float:
        """Energy between this state of charge and empty, open circuit."""
        grid = np.linspace(0.0, max(soc, 0.0), 200)
        return float(np.trapezoid(np.interp(grid, *self._ocv), grid) * self._cell_C[cell])

    def _say(self, cell: int, kind: str, severity: str, value: float, unit: str, text: str) -> None:
        self.events.append(AbuseEvent(cell, kind, severity, value, unit, text))

    # ---- books ---------------------------------------------------------------------------------

    def balances(self) -> dict[str, FloatArray]:
        """Ledgers per pack; see `ports.Propagation`."""
        names = ("heat_in", "reactions", "short", "lost", "stored", "pending", "residual", "throughput")
        book = {f"energy_{name}_J": np.zeros(self._n_packs) for name in names}
        book["energy_heat_in_J"] += self._handed_J
        for module in self._modules:
            p, e = module.pack, module.engine.energy_J
            lost = e.get("radiation", 0.0) + sum(v for k, v in e.items() if k.startswith("boundary_"))
            short = module.engine.short_J
            pending = float(module.engine.pending_J.sum())
            terms = {
                "reactions": e["reactions"] - short,
                "short": short,
                "lost": lost,
                "stored": e["stored"],
                "pending": pending,
            }
            for name, value in terms.items():
                book[f"energy_{name}_J"][p] += value
        released = book["energy_heat_in_J"] + book["energy_reactions_J"] + book["energy_short_J"]
        kept = book["energy_lost_J"] + book["energy_stored_J"] + book["energy_pending_J"]
        book["energy_residual_J"] = released - kept
        book["energy_throughput_J"] = np.abs(released) + np.abs(book["energy_lost_J"])
        book["energy_written_off_J"] = self._written_off_J.copy()
        h = self._housing
        book["gas_released_mol"], book["gas_escaped_mol"] = h.released_mol.copy(), h.escaped_mol.copy()
        book["gas_residual_mol"] = h.released_mol - h.escaped_mol - h.gas_mol
        return book

    def close(self) -> None:
        for module in self._modules:
            module.engine.close()


def _abuse(
    design: str, n_packs: int, temperature_K: FloatArray, capacity: FloatArray, choice: PropagationChoice
) -> Propagation:
    return cast(Propagation, AbuseBank(design, n_packs, temperature_K, capacity, choice))


def _fem(
    design: str, n_packs: int, temperature_K: FloatArray, capacity: FloatArray, choice: PropagationChoice
) -> Propagation:
    from pack_models.propagation.errors import MissingDolfinxError
    from pack_models.propagation.fem import find_interpreter

    try:
        find_interpreter()  # now, not when the first cell gets hot
    except MissingDolfinxError as error:
        raise MissingEngineError(str(error)) from None
    return _abuse(design, n_packs, temperature_K, capacity, choice)


def _none(*_: Any) -> None:
    return None


RUNGS: dict[str, PropagationRung] = {
    "none": PropagationRung("no abuse model: a cell that gets too hot only gets hotter", _none),
    "network": PropagationRung("finite-volume network of a module with full abuse kinetics", _abuse),
    "fem": PropagationRung("finite elements (dolfinx) of a module, in a process of their own", _fem),
}
