"""Kinetic sets of thermal runaway: read whole from the catalogue, checked, compiled for the kernel.

A set is kept whole because an activation energy alone never defines a rate: A, Ea, form, heat, amount and
initial value move together. Rates are per second, heat per m3 of cell; the extent of a reaction counts the
species it consumes. `catalogue/kinetics/*.yaml` holds the published sets with their sources; a case may
write its own inline.

    kim = load_set("kim2007_lco")
    tables = compile_sets([SetInUse(kim, density_kg_m3=2580.0, ceiling_1_s=0.1)])
    heat_W_m3, extent_rate, dy_dt = Rates(tables)(400.0, tables.initial[0])
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from . import kernel
from .errors import CaseError
from .kernel import MAX_FACTORS, MAX_REACTIONS, MAX_SPECIES, Tables
from .reading import Reader

CATALOGUE = Path(__file__).parents[1] / "catalogue" / "kinetics"
PATHWAYS = ("sei", "anode", "cathode", "electrolyte", "separator", "short", "other")
# Pathways that count in the State of Safety: chemical, heat-releasing ones.
SAFETY_PATHWAYS = ("sei", "anode", "cathode", "electrolyte", "other")
_FOREVER_K = 1e9


@dataclass(frozen=True)
class Factor:
    """A slow multiplier of a rate: kind as in kernel.FACTORS, its species and two numbers."""

    kind: str
    species: str
    first: float
    second: float = 0.0


@dataclass(frozen=True)
class Reaction:
    """One reaction of a set.

    Parameters
    ----------
    consumes : species whose loss is the extent
    form : power (order) | logistic, c(1 - c) | source, never used up
    A_1_s, A_hot_1_s, hot_K : pre-exponential factor, and another above hot_K
    E_R_K : activation energy over the gas constant
    starts_K : no reaction below
    heat_J_kg, amount : heat per kg and kg per m3 (basis "m3"), per kg of cell ("kg"); or J per m3
        directly ("heat")
    changes : other species, change per unit extent
    reverses : other reactions run backwards per unit extent: their species re-forms, their heat is taken back
    diffusion : (A 1/s, E/R K) of the Damköhler limit in series with the rate, or None
    ceiling_1_s : upper limit of the rate constant, or None
    """

    name: str
    pathway: str
    consumes: str
    form: str
    order: float
    A_1_s: float
    A_hot_1_s: float
    hot_K: float
    E_R_K: float
    starts_K: float
    heat_J_kg: float
    amount: float
    basis: str
    changes: Mapping[str, float] = field(default_factory=dict)
    reverses: Mapping[str, float] = field(default_factory=dict)
    factors: tuple[Factor, ...] = ()
    diffusion: tuple[float, float] | None = None
    ceiling_1_s: float | None = None

    def heat_J_m3(self, density_kg_m3: float) -> float:
        """Heat per m3 of cell and unit extent, before reversals."""
        return self.heat_J_kg * self.amount * (density_kg_m3 if self.basis == "kg" else 1.0)


@dataclass(frozen=True)
class Safety:
    """Temperatures of the State of Safety, K: pathways accelerate, runaway is inevitable, the separator
    fails.
    """

    onset_K: float = 363.15
    inevitable_K: float = 483.15
    separator_collapse_K: float = 403.15
    weight: float = 1.0


@dataclass(frozen=True)
class Gas:
    """Vent gas of a cell: declared literature parameters, see the set's `gas.source`."""

    mol_per_m3: float = 0.0
    headspace_fraction: float = 0.1
    vent_opens_Pa: float = 1e6
    shares: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class KineticSet:
    """A complete published set; `soc_*` are exponents of the state of charge on start values and heats."""

    name: str
    about: str
    source: str
    species: Mapping[str, float]
    reactions: tuple[Reaction, ...]
    soc_species: Mapping[str, float]
    soc_heat: Mapping[str, float]
    safety: Safety
    gas: Gas


@dataclass(frozen=True)
class Short:
    """Electric energy of the cell released inside once the separator has failed, first order in what is
    left.
    """

    energy_J_m3: float
    rate_1_s: float
    starts_K: float


@dataclass(frozen=True)
class SetInUse:
    """A set as one kind of cell uses it.

    Parameters
    ----------
    kinetics : the set
    density_kg_m3 : of the cell; turns amounts per kg of cell into amounts per m3
    ceiling_1_s : rate ceiling put on every reaction that has none of its own; None leaves bare Arrhenius
    short : release of electric energy, or None
    soc : state of charge 0...1
    heat_scale, E_scale, A_scale : factors on all heats, activation energies and pre-exponential factors
    pathway_E_scale : factor on the activation energy of one pathway, for uncertainty studies
    """

    kinetics: KineticSet
    density_kg_m3: float
    ceiling_1_s: float | None = None
    short: Short | None = None
    soc: float = 1.0
    heat_scale: float = 1.0
    E_scale: float = 1.0
    A_scale: float = 1.0
    pathway_E_scale: Mapping[str, float] = field(default_factory=dict)


def names() -> list[str]:
    """Names of the sets in the catalogue."""
    return sorted(p.stem for p in CATALOGUE.glob("*.yaml"))


def load_set(name: str) -> KineticSet:
    """A set of the catalogue; CaseError lists every mistake of the file."""
    path = CATALOGUE / f"{name}.yaml"
    if not path.exists():
        raise CaseError("kinetics", [f"no set named {name!r}; expected one of {', '.join(names())}"])
    problems: list[str] = []
    result = parse_set(yaml.safe_load(path.read_text(encoding="utf-8")), name, "", problems)
    if problems:
        raise CaseError(f"catalogue/kinetics/{path.name}", problems)
    return result


def parse_set(data: Any, name: str, path: str, problems: list[str]) -> KineticSet:
    """A set from a mapping (catalogue file or inline in a case); mistakes go to `problems`."""
    r = Reader(data, path, problems)
    for key in ("valid", "note"):
        r.get(key)
    gas_constant = r.number("gas_constant_J_molK", 8.314, low=8.3, high=8.32)
    cell_mass = r.number("cell_mass_kg", None, low=0, low_open=True)
    raw_species = r.get("species") or {}
    species: dict[str, float] = {}
    if not isinstance(raw_species, Mapping) or not raw_species:
        r.problem("species", "missing; expected a mapping of names to start values")
    else:
        for key, value in raw_species.items():
            number = r.check(f"species.{key}", value, 0.0, None, False)
            species[str(key)] = 0.0 if number is None else number
    raw_reactions = r.get("reactions") or {}
    reactions: list[Reaction] = []
    if not isinstance(raw_reactions, Mapping) or not raw_reactions:
        r.problem("reactions", "missing; expected a mapping of names to reactions")
    else:
        for key, value in raw_reactions.items():
            reader = Reader(value, r.at(f"reactions.{key}"), problems)
            reactions.append(_parse_reaction(str(key), reader, species, gas_constant, cell_mass))
    owners: dict[str, str] = {}
    known = {x.name for x in reactions}
    for x in reactions:
        if x.consumes in owners:
            r.problem(
                f"reactions.{x.name}.consumes",
                f"{x.consumes!r} is already consumed by {owners[x.consumes]!r}",
            )
        owners[x.consumes] = x.name
        for other in x.reverses:
            if other not in known:
                r.problem(
                    f"reactions.{x.name}.reverses",
                    f"no reaction named {other!r}; expected {', '.join(known)}",
                )
    if len(species) > MAX_SPECIES - 1 or len(reactions) > MAX_REACTIONS - 1:
        r.problem("reactions", f"at most {MAX_REACTIONS - 1} reactions and {MAX_SPECIES - 1} species")
    soc = r.mapping("soc")
    soc.get("note")
    exponents: list[dict[str, float]] = []
    for kind, allowed in (("species", species), ("heat", {x.name: 0.0 for x in reactions})):
        part = soc.mapping(kind)
        exponents.append(
            {key: part.number(key, 1.0, low=0.0, high=5.0) for key in list(part.data) if key in allowed}
        )
        part.finish()
    soc.finish()
    s = r.mapping("safety")
    s.get("note")
    safety = Safety(
        s.temperature("onset", 363.15),
        s.temperature("inevitable", 483.15),
        s.temperature("separator_collapse", 403.15),
        s.number("weight", 1.0, low=0.0),
    )
    if safety.inevitable_K <= safety.onset_K:
        s.problem("inevitable_C", "must lie above onset_C")
    s.finish()
    g = r.mapping("gas")
    share = g.mapping("shares")
    shares = {name: share.number(name, low=0.0, high=1.0) for name in PATHWAYS if share.has(name)}
    share.finish()
    gas = Gas(
        g.number("mol_per_m3", 0.0, low=0.0, high=1e6),
        g.number("headspace_fraction", 0.1, low=0.0, high=1.0, low_open=True),
        g.number("vent_opens_Pa", 1e6, low=1.013e5, low_open=True),
        shares,
        g.text("source", ""),
    )
    g.finish()
    result = KineticSet(
        r.text("name", name),
        r.text("about", ""),
        r.text("source", ""),
        species,
        tuple(reactions),
        exponents[0],
        exponents[1],
        safety,
        gas,
    )
    r.finish()
    return result


def _parse_reaction(
    name: str, r: Reader, species: Mapping[str, float], gas_constant: float, cell_mass_kg: float | None
) -> Reaction:
    def known_species(key: str, value: str) -> str:
        if value not in species:
            r.problem(key, f"no species named {value!r}; expected one of {', '.join(species)}")
        return value

    pathway = r.text("pathway", "other", PATHWAYS)
    consumes = known_species("consumes", r.text("consumes"))
    form = r.text("form", "power", tuple(kernel.FORMS))
    order = r.number("order", 1.0, low=0.0, high=4.0)
    if r.has("E_J_mol") and not r.has("A_1_s"):
        r.problem(
            "A_1_s", "missing: E_J_mol without A_1_s does not define a rate; give the pair of one source"
        )
    elif r.has("A_1_s") and not r.has("E_J_mol"):
        r.problem(
            "E_J_mol", "missing: A_1_s without E_J_mol does not define a rate; give the pair of one source"
        )
    a = r.number("A_1_s", math.nan, low=0.0, low_open=True)
    e = r.number("E_J_mol", math.nan, low=0.0, high=1e6)
    if not r.has("A_1_s") and not r.has("E_J_mol"):
        r.problem("A_1_s", "missing; expected A_1_s and E_J_mol")
    a_hot = r.number("A_hot_1_s", a, low=0.0, low_open=True)
    hot = r.temperature("hot_above") if r.has("A_hot_1_s") else _FOREVER_K
    starts = r.temperature("starts_above", 0.0)
    basis, amount, heat = "m3", math.nan, math.nan
    if r.has("heat_J_m3"):
        heat, amount = r.number("heat_J_m3", low=-1e11, high=1e11), 1.0
    else:
        heat = r.number("heat_J_kg", low=-1e8, high=1e8)
        if r.has("amount_kg"):
            basis = "kg"
            if cell_mass_kg is None:
                r.problem("amount_kg", "needs cell_mass_kg of the set")
            amount = r.number("amount_kg", low=0.0, low_open=True) / (cell_mass_kg or math.nan)
        elif r.has("amount_fraction"):
            basis, amount = "kg", r.number("amount_fraction", low=0.0, high=1.0, low_open=True)
        else:
            amount = r.number("amount_kg_m3", low=0.0, high=3e4, low_open=True)
    factors: list[Factor] = []
    for f in r.items("factors"):
        who = f.text("species")
        if who not in species:
            f.problem("species", f"no species named {who!r}; expected one of {', '.join(species)}")
        if f.has("exp_scale") and f.has("limit"):
            factors.append(
                Factor("critical", who, f.number("exp_scale", low=0, low_open=True), f.number("limit", low=0))
            )
        elif f.has("exp_scale"):
            factors.append(Factor("exp", who, f.number("exp_scale", low=0, low_open=True)))
        elif f.has("power"):
            factors.append(Factor("power", who, f.number("power", low=0)))
        elif f.has("half_saturation"):
            factors.append(Factor("saturation", who, f.number("half_saturation", low=0, low_open=True)))
        elif f.has("below"):
            factors.append(Factor("below", who, f.number("below", low=0)))
        else:
            f.problem("", "expected exp_scale (with or without limit), power, half_saturation or below")
        f.finish()
    if len(factors) > MAX_FACTORS:
        r.problem("factors", f"at most {MAX_FACTORS}")
    changes = r.mapping("changes")
    stoich = {key: changes.number(key) for key in list(changes.data)}
    for key in stoich:
        if key not in species:
            changes.problem(key, f"no species named {key!r}; expected one of {', '.join(species)}")
    reverses = r.mapping("reverses")
    back = {key: reverses.number(key, low=0.0) for key in list(reverses.data)}
    diffusion = None
    if r.has("diffusion_limit"):
        d = r.mapping("diffusion_limit")
        diffusion = (
            d.number("A_1_s", low=0, low_open=True),
            d.number("E_J_mol", low=0, high=1e6) / gas_constant,
        )
        d.finish()
    ceiling = r.number("ceiling_1_s", None, low=0.0, low_open=True)
    r.finish()
    return Reaction(
        name,
        pathway,
        consumes,
        form,
        order,
        a,
        a_hot,
        hot,
        e / gas_constant,
        starts,
        heat,
        amount,
        basis,
        stoich,
        back,
        tuple(factors),
        diffusion,
        ceiling,
    )


@dataclass(frozen=True)
class Pathways:
    """What every reaction of a compiled set means, for reports and the State of Safety.

    Parameters
    ----------
    reaction : (n_reactions,) names; pathway : their pathways
    extent_end : (n_reactions,) largest possible extent, everything produced on the way included
    heat_J_m3 : (n_reactions,) heat when complete
    weight : (n_reactions,) share of the State of Safety, 0 for separator and short, sum 1
    """

    reaction: tuple[str, ...]
    pathway: tuple[str, ...]
    extent_end: np.ndarray
    heat_J_m3: np.ndarray
    weight: np.ndarray

    def conversion(self, extent: np.ndarray) -> np.ndarray:
        """Conversion since the start, 0...1, from mean extents (..., n_reactions)."""
        safe = np.where(self.extent_end > 0, self.extent_end, 1.0)
        return np.clip(np.where(self.extent_end > 0, extent / safe, 0.0), 0.0, 1.0)

    def state_of_safety(
        self, conversion: np.ndarray, temperature_K: np.ndarray, safety: Safety
    ) -> np.ndarray:
        """SoS = 1 - sum(w alpha) - lambda max(0, T - T_onset)/(T_inevitable - T_onset), in 0...1
        (DESIGN.md, section 8).
        """
        over = np.maximum(0.0, temperature_K - safety.onset_K) / (safety.inevitable_K - safety.onset_K)
        return np.asarray(np.clip(1.0 - conversion @ self.weight - safety.weight * over, 0.0, 1.0))

    def by_pathway(self, conversion: np.ndarray) -> dict[str, np.ndarray]:
        """Conversion of each pathway, its reactions weighted by their heat."""
        result: dict[str, np.ndarray] = {}
        for name in dict.fromkeys(self.pathway):
            pick = np.array([p == name for p in self.pathway])
            share = np.abs(self.heat_J_m3[pick])
            result[name] = conversion[..., pick] @ (share / share.sum() if share.sum() > 0 else share)
        return result


def _rows(use: SetInUse) -> tuple[list[Reaction], dict[str, float], list[float]]:
    """Reactions (producers before what they feed), start values and heats of a set in use."""
    k = use.kinetics
    start = {s: c * use.soc ** k.soc_species.get(s, 0.0) for s, c in k.species.items()}
    # A logistic species starts part-way: c and 1 - c must both exist, so SoC acts on its heat instead.
    by_name = {x.name: x for x in k.reactions}
    base = {
        x.name: x.heat_J_m3(use.density_kg_m3) * use.heat_scale * use.soc ** k.soc_heat.get(x.name, 0.0)
        for x in k.reactions
    }
    heat = {x.name: base[x.name] - sum(f * base[o] for o, f in x.reverses.items()) for x in k.reactions}
    fed = {by_name[o].consumes for x in k.reactions for o in x.reverses}
    fed |= {s for x in k.reactions for s, v in x.changes.items() if v > 0}
    reactions = sorted(k.reactions, key=lambda x: x.consumes in fed)
    heats = [heat[x.name] for x in reactions]
    if use.short is not None and use.short.energy_J_m3 > 0:
        energy = use.short.energy_J_m3 * use.soc
        reactions.append(
            Reaction(
                "short",
                "short",
                "charge",
                "power",
                1.0,
                use.short.rate_1_s,
                use.short.rate_1_s,
                _FOREVER_K,
                0.0,
                use.short.starts_K,
                energy,
                1.0,
                "m3",
            )
        )
        start["charge"] = 1.0
        heats.append(energy)
    return reactions, start, heats


def pathways(use: SetInUse) -> Pathways:
    """Names, end extents, heats and weights of a set in use, in the order of the compiled rows."""
    reactions, start, heats = _rows(use)
    by_name = {x.name: x for x in reactions}
    end = np.zeros(len(reactions))
    for i, x in enumerate(reactions):  # producers come first, so their ends are known
        produced = sum(
            end[j]
            * (
                y.changes.get(x.consumes, 0.0)
                + sum(f for o, f in y.reverses.items() if by_name[o].consumes == x.consumes)
            )
            for j, y in enumerate(reactions[:i])
        )
        end[i] = 0.0 if x.form == "source" else start[x.consumes] + max(0.0, produced)
    total = np.array(heats) * end
    weight = np.where([x.pathway in SAFETY_PATHWAYS for x in reactions], np.maximum(total, 0.0), 0.0)
    weight = weight / weight.sum() if weight.sum() > 0 else weight
    return Pathways(tuple(x.name for x in reactions), tuple(x.pathway for x in reactions), end, total, weight)


def compile_sets(uses: Sequence[SetInUse], cp_J_kgK: float = 1000.0, quiet_K_per_s: float = 1e-6) -> Tables:
    """Tables for the kernel.

    Parameters
    ----------
    uses : the sets, in the order of the cells' set numbers
    cp_J_kgK, quiet_K_per_s : a node is skipped while fresh material would heat itself more slowly than this
    """
    n = max(len(uses), 1)
    rows = [_rows(u) for u in uses]
    n_reactions = max([1, *(len(r[0]) for r in rows)])
    n_species = max([1, *(len(r[1]) for r in rows)])
    rd = np.zeros((n, MAX_REACTIONS, kernel.RD_HEAT + 1))
    ri = np.zeros((n, MAX_REACTIONS, kernel.RI_FED + 1), dtype=np.int64)
    ri[:, :, kernel.RI_SPECIES] = -1
    stoich = np.zeros((n, MAX_REACTIONS, MAX_SPECIES))
    fd = np.zeros((n, MAX_REACTIONS, MAX_FACTORS, 2))
    fi = np.zeros((n, MAX_REACTIONS, MAX_FACTORS, 2), dtype=np.int64)
    initial = np.zeros((n, n_species))
    for s, (use, (reactions, start, heats)) in enumerate(zip(uses, rows, strict=True)):
        index = {name: i for i, name in enumerate(start)}
        by_name = {x.name: x for x in reactions}
        initial[s, : len(start)] = list(start.values())
        for i, x in enumerate(reactions):
            scale = use.E_scale * use.pathway_E_scale.get(x.pathway, 1.0)
            own_ceiling = x.ceiling_1_s if x.ceiling_1_s is not None else use.ceiling_1_s
            ceiling = (
                0.0 if x.pathway == "short" or x.form == "source" or own_ceiling is None else own_ceiling
            )
            diffusion = x.diffusion or (0.0, 0.0)
            rd[s, i] = [
                x.A_1_s * use.A_scale if x.pathway != "short" else x.A_1_s,
                x.A_hot_1_s * use.A_scale if x.pathway != "short" else x.A_hot_1_s,
                x.hot_K,
                x.E_R_K * scale,
                x.starts_K,
                ceiling,
                *diffusion,
                x.order,
                heats[i],
            ]
            own = index[x.consumes]
            if x.form != "source":
                stoich[s, i, own] = -1.0
            for other, value in x.changes.items():
                stoich[s, i, index[other]] += value
            for other, value in x.reverses.items():
                stoich[s, i, index[by_name[other].consumes]] += value
            for j, f in enumerate(x.factors):
                fi[s, i, j] = [kernel.FACTORS[f.kind], index[f.species]]
                fd[s, i, j] = [f.first, f.second]
            fed = bool((stoich[s, :i, own] > 0).any())
            ri[s, i] = [own, kernel.FORMS[x.form], len(x.factors), fed]
    tables = Tables(n_species, n_reactions, rd, ri, stoich, fd, fi, initial, np.full(n, 0.0))
    for s, use in enumerate(uses):
        tables.quiet_K[s] = _quiet_temperature(tables, s, quiet_K_per_s * use.density_kg_m3 * cp_J_kgK)
    return tables


def _quiet_temperature(tables: Tables, index: int, limit_W_m3: float) -> float:
    """Temperature below which no pathway of fresh material releases more than the limit, K (bisection to
    0.1 K).
    """
    rates = kernel.Rates(tables, index)
    heat = np.abs(tables.heat_J_m3[index, : tables.n_reactions])

    def busy(temperature_K: float) -> bool:
        _, extent_rate, _ = rates(temperature_K, tables.initial[index])
        return bool((heat * extent_rate).sum() > limit_W_m3)

    low, high = 200.0, 1500.0
    if busy(low):
        return 0.0
    if not busy(high):
        return math.inf
    while high - low > 0.1:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if busy(middle) else (middle, high)
    return low
