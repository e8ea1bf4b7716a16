"""Case files: one YAML describes what reacts, where it is, what heats and cools it, and how it is run.

    case = load_case("cases/pack3x4.yaml")
    grid = case.grid("fem")

Every mistake of a file is reported at once with the path of its key and the allowed range. The README
describes every key; `catalogue/kinetics` and `catalogue/materials` hold the named sets.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from . import kinetics
from .errors import CaseError
from .grid import SIDES, Grid, uniform_across
from .kernel import Tables
from .kinetics import SetInUse, Short, compile_sets
from .layout import Joint, Layout, Material, Solid, make_grid
from .march import StepRules
from .problem import Boundary, Trigger
from .reading import Reader

MODELS = ("lumped", "network", "fem")
CASES = Path(__file__).with_name("cases")
_MATERIALS = Path(__file__).parents[1] / "catalogue" / "materials" / "solids.yaml"
# The network's mesh error is some percent, so it may step coarsely; the finite elements resolve more.
STEPS = {
    "fem": StepRules(largest_s=2.0, smallest_s=0.005, reaction_K=60.0, conduction_K=20.0, substep_K=3.0),
    "network": StepRules(largest_s=4.0, smallest_s=0.01, reaction_K=60.0, conduction_K=15.0, substep_K=10.0),
}
_FRONT_SLOPE = 0.19
_FIXED_WALL_W_M2K = 1e7  # a wall held at a temperature is a film this conductive
_ALIASES = {
    "bottom": ("z_min",),
    "top": ("z_max",),
    "ends": ("x_min", "x_max"),
    "sides": ("y_min", "y_max", "z_min", "z_max"),
    "all": SIDES,
    "others": SIDES,
}


@dataclass(frozen=True)
class LumpedGeometry:
    """A body without inner resistance: volume, surface, and the thermal inertia factor of its holder."""

    volume_m3: float
    area_m2: float
    inertia: float
    ramp_K_s: float | None


@dataclass(frozen=True)
class RunRules:
    """How a case is run: end, stepping, outputs.

    Parameters
    ----------
    steps, mesh : model -> stepping rules, volumes per cell along x, y, z
    refine : how `--refine` multiplies the mesh along x, y, z
    maps_s : times of the temperature maps; four evenly spread ones when empty
    stop_above_K : end early once a cell's mean is hotter
    cooling : (time s, 0...1) of boundaries marked `cooled`
    cg_rtol : solver tolerance as a share of the change per step; the model's own when None
    front_correction : whether the network corrects for fronts thinner than its volumes, see Case.corrected
    """

    until_s: float
    steps: dict[str, StepRules]
    mesh: dict[str, tuple[int, int, int]]
    refine: tuple[int, int, int] = (2, 1, 1)
    maps_s: tuple[float, ...] = ()
    stop_above_K: float | None = None
    cooling: tuple[tuple[float, float], ...] = ()
    cg_rtol: float | None = None
    front_correction: bool = True


@dataclass(frozen=True)
class Limits:
    """What counts as an event.

    Parameters
    ----------
    runaway_K : of the cell's volume mean
    operating_max_K : the maker's highest temperature in the GB 38031-2025 rule
    voltage_V, internal_ohm : of a cell, for the voltage under an internal short
    """

    runaway_K: float = 573.15
    operating_max_K: float = 333.15
    voltage_V: float = 4.2
    internal_ohm: float = 1e-3


@dataclass(frozen=True)
class Case:
    """A checked case. `sets[cell_set[i]]` is what cell i is made of; `data` is the YAML it came from."""

    name: str
    about: str
    model: str
    kind: str
    layout: Layout | None
    lumped: LumpedGeometry | None
    sets: tuple[SetInUse, ...]
    cell_set: np.ndarray
    soc: np.ndarray
    cp_J_kgK: float
    initial_K: float
    boundaries: tuple[Boundary, ...]
    triggers: tuple[Trigger, ...]
    probes: dict[str, tuple[float, float, float]]
    run: RunRules
    limits: Limits
    data: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def n_cells(self) -> int:
        return int(self.cell_set.size)

    def grid(self, model: str, refine: Sequence[int] = (1, 1, 1), mesh: Sequence[int] | None = None) -> Grid:
        """Grid for a model; the finite elements get their joints as thin layers."""
        if self.layout is None:
            raise CaseError(self.name, [f"model: a lumped body has no grid for {model!r}; choose lumped"])
        # Grading suits nodes on faces; the network's front correction was fitted to even volumes.
        layout = self.layout if model == "fem" else replace(self.layout, graded=False)
        grid = make_grid(layout, mesh or self.run.mesh[model], refine)
        if model != "fem":
            return self.corrected(grid) if self.run.front_correction else grid
        films = {b.side for b in self.boundaries}
        across = [a for a in (1, 2) if grid.shape[a] == 1 and not films & {SIDES[2 * a], SIDES[2 * a + 1]}]
        return uniform_across(grid.with_joint_layers(), across)

    def rate_ceiling_1_s(self) -> float | None:
        """Largest rate ceiling of what reacts; None when something reacts without one."""
        ceilings = [
            self.sets[s].ceiling_1_s for s in set(self.cell_set.tolist()) if self.sets[s].kinetics.reactions
        ]
        known = [c for c in ceilings if c is not None]
        return max(known) if known and len(known) == len(ceilings) else None

    def front_thickness_m(self, axis: int) -> float | None:
        """Thickness of a reaction front along an axis, sqrt(diffusivity / rate ceiling)."""
        ceiling = self.rate_ceiling_1_s()
        if ceiling is None or self.layout is None:
            return None
        cell = self.layout.materials["cell"]
        return math.sqrt(cell.k_W_mK[axis] / cell.rho_cp / ceiling)

    def corrected(self, grid: Grid) -> Grid:
        """The grid with the conductivity of the cells raised for the fronts its volumes are too wide to
        carry.

        A front runs as sqrt(k kmax); volumes wider than half its thickness slow it down. The factor
        1 + 0.19 (width/thickness - 1/2), at most 1.6, was fitted to finite-element runs of one pack at one
        ceiling and holds on others within the bias the README states. Cells of a single volume have no
        front to correct.
        """
        inside = grid.cell >= 0
        if not inside.any():
            return grid
        k = grid.k_W_mK.copy()
        cells = np.unique(grid.material[inside])
        for axis in range(3):
            front = self.front_thickness_m(axis)
            across = tuple(a for a in range(3) if a != axis)
            columns = inside.any(axis=across)
            one_cell = (grid.cell == grid.cell[inside][0]).any(axis=across)
            if front is None or one_cell.sum() < 2:
                continue
            width = float(np.diff(grid.lines[axis])[columns].max())
            k[cells, axis] *= min(1.6, 1.0 + _FRONT_SLOPE * max(0.0, width / front - 0.5))
        return replace(grid, k_W_mK=k)

    def tables(self) -> Tables:
        """Compiled kinetic sets."""
        return compile_sets(self.sets, self.cp_J_kgK)


@lru_cache(maxsize=1)
def _material_catalogue() -> dict[str, Any]:
    return dict(yaml.safe_load(_MATERIALS.read_text(encoding="utf-8")))


def solids() -> dict[str, str]:
    """Materials of the catalogue, sorted, each with its conductivity and source."""
    return {
        name: f"{data['k_W_mK']} W/(m K): {data['source']}"
        for name, data in sorted(_material_catalogue().items())
    }


def load_case(path: str | Path) -> Case:
    """A case from a file, or by name from the folder `cases`."""
    file = Path(path)
    if not file.exists() and (CASES / f"{path}.yaml").exists():
        file = CASES / f"{path}.yaml"
    if not file.exists():
        known = sorted(p.stem for p in CASES.glob("*.yaml"))
        raise CaseError(str(path), [f"no such file, and no case of this name; cases: {', '.join(known)}"])
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CaseError(file.name, [f"not YAML: {' '.join(str(error).split())}"]) from error
    return parse_case(data, file.stem, file.name)


def parse_case(data: Any, name: str = "case", where: str = "case") -> Case:
    """A case from a mapping; CaseError lists every mistake."""
    problems: list[str] = []
    if not isinstance(data, Mapping):
        raise CaseError(where, ["the file is not a mapping of keys"])
    try:
        case = _Parser(data, problems).case(name)
    except _UnreadableError:
        case = None
    if problems or case is None:
        raise CaseError(where, list(dict.fromkeys(problems)))  # both models read run.step
    return case


class _UnreadableError(Exception):
    """Nothing more can be read; the problems are already recorded."""


class _Parser:
    def __init__(self, data: Mapping[str, Any], problems: list[str]) -> None:
        self.r = Reader(data, "", problems)
        self.problems = problems
        self.raw = data
        self.materials: dict[str, Material] = {}

    # ---- parts ---------------------------------------------------------------------------------

    def material(self, r: Reader) -> Material:
        """A material from k_W_mK (one or three numbers), density_kg_m3, cp_J_kgK or rho_cp_J_m3K."""
        for key in ("source", "note", "emissivity"):
            r.get(key)
        raw = r.get("k_W_mK")
        if isinstance(raw, Sequence) and not isinstance(raw, str):
            k = r.numbers("k_W_mK", 3, low=0.0, low_open=True)
        else:
            k = [r.number("k_W_mK", low=0.0, high=5000.0, low_open=True)] * 3
        if r.has("rho_cp_J_m3K"):
            density, cp = 1000.0, r.number("rho_cp_J_m3K", low=0.0, high=1e8, low_open=True) / 1000.0
        else:
            density = r.number("density_kg_m3", low=0.0, high=3e4, low_open=True)
            cp = r.number("cp_J_kgK", low=0.0, high=2e4, low_open=True)
        r.finish()
        return Material((k[0], k[1], k[2]), density, cp)

    def use_material(self, name: Any, r: Reader, key: str) -> str:
        """Name of a material of the case or the catalogue, entered into `materials`."""
        name = str(name)
        if name in self.materials:
            return name
        catalogue = _material_catalogue()
        if name not in catalogue:
            known = sorted({*catalogue, *self.materials})
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            r.problem(key, f"unknown material {name!r}; expected one of {', '.join(known)}{hint}")
            name = "air"
        self.materials[name] = self.material(Reader(catalogue[name], f"catalogue.{name}", self.problems))
        return name

    def kinetics_of(self, r: Reader, density: float, base: SetInUse | None = None) -> SetInUse | None:
        """Set in use from a `cell` block, or from an override of it on top of `base`."""
        raw = r.get("kinetics")
        if raw is None:
            found = base.kinetics if base else None
        elif raw == "none":
            found = None
        elif isinstance(raw, str):
            if raw in kinetics.names():
                found = kinetics.load_set(raw)
            else:
                near = difflib.get_close_matches(raw, kinetics.names(), 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                r.problem(
                    "kinetics", f"no set named {raw!r}; expected one of {', '.join(kinetics.names())}{hint}"
                )
                found = None
        else:
            found = kinetics.parse_set(raw, "inline", r.at("kinetics"), self.problems)
        ceiling = r.number(
            "rate_ceiling_1_s", base.ceiling_1_s if base else None, low=0.0, high=1e6, low_open=True
        )
        soc = r.number("soc", base.soc if base else 1.0, low=0.0, high=1.0)
        short = base.short if base else None
        if r.has("short"):
            s = r.mapping("short")
            short = Short(
                s.number("energy_J_m3", low=0.0, high=1e10),
                s.number("rate_1_s", low=0.0, high=100.0, low_open=True),
                s.temperature("starts_above"),
            )
            s.finish()
        scale = r.mapping("scale")
        energies = scale.mapping("E_by_pathway")
        by_pathway = {k: energies.number(k, low=0.5, high=2.0) for k in list(energies.data)}
        for key in by_pathway:
            if key not in kinetics.PATHWAYS:
                energies.problem(key, f"expected one of {', '.join(kinetics.PATHWAYS)}")
        heat = scale.number("heat", base.heat_scale if base else 1.0, low=0.0, high=10.0)
        e = scale.number("E", base.E_scale if base else 1.0, low=0.5, high=2.0)
        a = scale.number("A", base.A_scale if base else 1.0, low=0.0, high=1e6, low_open=True)
        scale.finish()
        if found is None:
            if short is None:
                return None
            # A cell whose only reaction is the short: an empty set carries it.
            found = kinetics.KineticSet("none", "", "", {}, (), {}, {}, kinetics.Safety(), kinetics.Gas())
        return SetInUse(
            found,
            density,
            ceiling,
            short,
            soc,
            heat,
            e,
            a,
            by_pathway or (base.pathway_E_scale if base else {}),
        )

    def boundary(self, r: Reader, side: str, initial_K: float, lateral: bool = False) -> Boundary:
        """Convection, radiation or a held wall."""
        cooled = r.flag("cooled")
        follows = r.flag("follows_ambient", not cooled)
        perimeter = r.number("perimeter_over_area_1_m", 0.0, low=0.0, low_open=True) if lateral else 0.0
        if r.has("wall_C") or r.has("wall_K"):
            wall = r.temperature("wall")
            r.finish()
            return Boundary(side, _FIXED_WALL_W_M2K, wall, 0.0, cooled, follows)
        h = r.number("h_W_m2K", 0.0, low=0.0, high=1e6)
        emissivity = r.number("emissivity", 0.0, low=0.0, high=1.0)
        ambient = r.temperature("ambient", initial_K)
        r.finish()
        return Boundary(side, h, ambient, emissivity, cooled, follows, perimeter)

    def boundaries(self, initial_K: float) -> list[Boundary]:
        """All sides; later and more particular keys win over `all` and `others`."""
        r = self.r.mapping("boundaries")
        known = (*SIDES, *_ALIASES, "lateral", "surface")
        chosen: dict[str, Boundary] = {}
        for key in sorted(r.data, key=lambda k: (k in SIDES, k not in ("all", "others"))):
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                r.problem(
                    key,
                    f"unknown side; expected one of {', '.join(known)}"
                    + (f"; did you mean {near[0]!r}?" if near else ""),
                )
                continue
            for side in _ALIASES.get(key, (key,)):
                chosen[side] = self.boundary(r.mapping(key), side, initial_K, lateral=side == "lateral")
        return list(chosen.values())

    # ---- geometry ------------------------------------------------------------------------------

    def lumped(self, g: Reader) -> LumpedGeometry:
        volume = g.number("volume_m3", 1.0, low=0.0, low_open=True)
        if g.has("area_over_volume_1_m"):
            area = volume * g.number("area_over_volume_1_m", low=0.0)
        else:
            area = g.number("area_m2", 0.0, low=0.0)
        inertia = g.number("thermal_inertia", 1.0, low=1.0, high=100.0)
        ramp = g.number("ramp_K_per_min", None, low=0.0, low_open=True)
        return LumpedGeometry(volume, area, inertia, None if ramp is None else ramp / 60.0)

    def stack(
        self, g: Reader, cells: list[SetInUse | None], default: SetInUse | None, initial_K: float
    ) -> Layout:
        curvature = ("cartesian", "cylindrical", "spherical").index(
            g.text("coordinates", "cartesian", ("cartesian", "cylindrical", "spherical"))
        )
        section = g.numbers("section_m", 2, (1.0, 1.0), low=0.0, low_open=True)
        section_mesh = g.wholes("section_mesh", 2, (1, 1), low=1)
        position = g.number("inner_radius_m", 0.0, low=0.0) if curvature else g.number("from_m", 0.0)
        solids: list[Solid] = []
        joints: list[Joint] = []
        layers = g.items("layers")
        if not layers:
            g.problem("layers", "missing; expected a list of layers along x")
            raise _UnreadableError
        common = g.get("contact_m2K_W", 0.0)
        for i, layer in enumerate(layers):
            thickness = layer.number("thickness_m", low=0.0, high=10.0, low_open=True)
            thickness = thickness if math.isfinite(thickness) else 0.01
            mesh = layer.integer("mesh", 10, low=1, high=100_000)
            own = layer.temperature("initial", None)
            index = -1
            if layer.has("material"):
                material = self.use_material(layer.get("material"), layer, "material")
            else:
                index = len(cells)
                material = "cell"
                density = self.materials["cell"].density_kg_m3
                cells.append(self.kinetics_of(layer, density, default))
                if "cell" not in self.raw:
                    layer.problem("material", "missing; expected a material, or a `cell` block in the case")
            name = layer.text("name", f"cell {index}" if index >= 0 else f"layer {i}")
            joint = layer.number("contact_after_m2K_W", None, low=0.0)
            layer.finish()
            box = (position, position + thickness, 0.0, section[0], 0.0, section[1])
            solids.append(Solid(name, material, box, index, (mesh, section_mesh[0], section_mesh[1]), own))
            position += thickness
            if i < len(layers) - 1:
                if joint is None:
                    value = common[i] if isinstance(common, list) and i < len(common) else common
                    joint = (
                        0.0
                        if isinstance(value, list)
                        else (g.check("contact_m2K_W", value, 0.0, None, False) or 0.0)
                    )
                joints.append(Joint(0, position, joint))
        if isinstance(common, list) and len(common) != len(layers) - 1:
            g.problem(
                "contact_m2K_W",
                f"{len(common)} values for {len(layers) - 1} joints between {len(layers)} layers",
            )
        mode = None
        if g.has("cosine"):
            c = g.mapping("cosine")
            numbers = c.wholes("mode", 3, (1, 0, 0), low=0)
            mode = (c.number("amplitude_K", low=-500.0, high=500.0), (numbers[0], numbers[1], numbers[2]))
            c.finish()
        return Layout(
            tuple(solids),
            self.materials,
            solids[0].material,
            initial_K,
            tuple(joints),
            curvature,
            False,
            mode,
            (max(1, sum(s.cell >= 0 for s in solids)), 1, 1),
            tuple(s.name for s in solids if s.cell >= 0),
        )

    def pack(
        self, g: Reader, cells: list[SetInUse | None], default: SetInUse | None, initial_K: float
    ) -> Layout:
        c = g.mapping("cells")
        shape = c.text("shape", "prismatic", ("prismatic", "pouch", "cylindrical"))
        count = c.wholes("count", 3, (1, 1, 1), low=1)
        shrink = 0.0
        if shape == "cylindrical":
            diameter = c.number("diameter_m", low=0.0, high=1.0, low_open=True)
            side = diameter * math.sqrt(math.pi) / 2.0
            shrink = diameter - side
            size = [side, side, c.number("height_m", low=0.0, high=2.0, low_open=True)]
        else:
            size = c.numbers("size_m", 3, low=0.0, low_open=True)
        # A wrong size is already a problem; go on with any, so that the rest of the file is read too.
        size = [v if math.isfinite(v) else 0.01 for v in size]
        graded = c.flag("graded")
        joint_r = c.mapping("contact_m2K_W")
        contact = {axis: joint_r.number(axis, 0.0, low=0.0) for axis in ("x", "y", "bottom", "top")}
        joint_r.finish()
        c.finish()
        between = g.mapping("between")
        gaps: list[tuple[float, str]] = []
        background = self.use_material(g.text("fill", "air"), g, "fill")
        for axis, name in enumerate("xyz"):
            b = between.mapping(name)
            if between.has(name):
                thickness = b.number("thickness_m", low=0.0, high=1.0, low_open=True)
                thickness = thickness if math.isfinite(thickness) else 0.01
                gaps.append((thickness, self.use_material(b.get("material", "air"), b, "material")))
            elif count[axis] > 1:
                gaps.append((0.0, background))
            else:
                gaps.append((0.0, background))
            b.finish()
        between.finish()
        solids: list[Solid] = []
        starts = [
            [i * (size[axis] + gaps[axis][0] + (shrink if axis < 2 else 0.0)) for i in range(count[axis])]
            for axis in range(3)
        ]
        block = [(0.0, starts[axis][-1] + size[axis]) for axis in range(3)]
        # Packing between cells: x sheets within a row, y and z sheets across the whole block.
        for axis in (2, 1, 0):
            for i in range(count[axis] - 1):
                low, high = starts[axis][i] + size[axis], starts[axis][i + 1]
                if high - low <= 1e-9:
                    continue
                if axis == 2:
                    boxes = [(*block[0], *block[1], low, high)]
                elif axis == 1:
                    boxes = [(*block[0], low, high, z, z + size[2]) for z in starts[2]]
                else:
                    boxes = [
                        (low, high, y, y + size[1], z, z + size[2]) for y in starts[1] for z in starts[2]
                    ]
                for n, box in enumerate(boxes):
                    solids.append(Solid(f"between {'xyz'[axis]} {i}.{n}", gaps[axis][1], box))
        joints: list[Joint] = []
        for iz in range(count[2]):
            for iy in range(count[1]):
                for ix in range(count[0]):
                    index = (iz * count[1] + iy) * count[0] + ix
                    corner = starts[0][ix], starts[1][iy], starts[2][iz]
                    box6 = (
                        corner[0],
                        corner[0] + size[0],
                        corner[1],
                        corner[1] + size[1],
                        corner[2],
                        corner[2] + size[2],
                    )
                    solids.append(Solid(f"cell {index}", "cell", box6, index))
                    cells.append(default)
        for axis, key in ((0, "x"), (1, "y")):
            for low in starts[axis]:
                joints += [Joint(axis, p, contact[key]) for p in (low, low + size[axis])]
        joints += [
            Joint(2, starts[2][0], contact["bottom"]),
            Joint(2, starts[2][-1] + size[2], contact["top"]),
        ]
        layers = g.mapping("layers")
        extent = [list(b) for b in block]
        for around in (*SIDES, "bottom", "top"):
            if not layers.has(around):
                continue
            name = _ALIASES.get(around, (around,))[0]
            axis, last = SIDES.index(name) // 2, SIDES.index(name) % 2
            for n, layer in enumerate(layers.items(around)):
                thickness = layer.number("thickness_m", low=0.0, high=1.0, low_open=True)
                material = self.use_material(layer.get("material"), layer, "material")
                mesh = layer.integer("mesh", 1, low=1, high=1000)
                layer.finish()
                thickness = thickness if math.isfinite(thickness) else 0.01
                low, high = (
                    (extent[axis][1], extent[axis][1] + thickness)
                    if last
                    else (extent[axis][0] - thickness, extent[axis][0])
                )
                wide = [(e[0], e[1]) for e in extent]
                wide[axis] = (low, high)
                meshes = [0, 0, 0]
                meshes[axis] = mesh
                solids.append(
                    Solid(
                        f"{around} {n}",
                        material,
                        (*wide[0], *wide[1], *wide[2]),
                        -1,
                        (meshes[0], meshes[1], meshes[2]),
                    )
                )
                extent[axis][last] = high if last else low
        layers.finish()
        for i, b in enumerate(g.items("boxes")):
            low3, high3 = b.numbers("from_m", 3), b.numbers("to_m", 3)
            for axis in range(3):
                if not high3[axis] > low3[axis]:
                    b.problem(
                        "to_m",
                        f"zero or negative thickness along {'xyz'[axis]}: "
                        f"from {low3[axis]:g} to {high3[axis]:g} m",
                    )
            material = self.use_material(b.get("material"), b, "material")
            name = b.text("name", f"box {i}")
            b.finish()
            box = (low3[0], high3[0], low3[1], high3[1], low3[2], high3[2])
            if all(math.isfinite(v) for v in box):
                solids.append(Solid(name, material, box))
        return Layout(
            tuple(solids),
            self.materials,
            background,
            initial_K,
            tuple(j for j in joints if j.resistance_m2K_W > 0),
            0,
            graded,
            None,
            (count[0], count[1], count[2]),
            tuple(f"cell {i}" for i in range(len(cells))),
        )

    # ---- triggers, run -------------------------------------------------------------------------

    def triggers(self, layout: Layout | None, n_cells: int) -> list[Trigger]:
        found: list[Trigger] = []
        for i, t in enumerate(self.r.items("triggers")):
            kind = t.text("kind", "heater", ("heater", "short", "nail"))
            cell = t.integer("cell", -1, low=0, high=max(n_cells - 1, 0)) if t.has("cell") else -1
            region = None
            if t.has("region_m"):
                values = t.numbers("region_m", 6)
                if any(values[2 * a + 1] <= values[2 * a] for a in range(3)):
                    t.problem(
                        "region_m",
                        "zero or negative thickness; expected x0 x1 y0 y1 z0 z1 with x1 > x0 and so on",
                    )
                region = tuple(values)
            if cell < 0 and region is None and layout is not None:
                t.problem("cell", "missing; expected the number of a cell, or region_m")
            volume = 1.0
            if layout is not None and cell >= 0:
                box = next((s for s in layout.solids if s.cell == cell), None)
                volume = math.prod(box.size(a) for a in range(3)) if box else math.nan
            if region is not None:
                volume = math.prod(region[2 * a + 1] - region[2 * a] for a in range(3))
            start = t.number("from_s", 0.0, low=0.0)
            if kind == "heater":
                if t.has("W_per_m3"):
                    power = t.number("W_per_m3", low=0.0, high=1e12) * volume
                else:
                    power = t.number("power_W", low=0.0, high=1e9)
                until = t.number("until_s", math.inf, low=0.0, low_open=True)
                if until <= start:
                    t.problem("until_s", f"{until:g} is not after from_s {start:g}")
                energy = None
            else:
                resistance = t.number("resistance_ohm", low=0.0, high=1e6, low_open=True)
                inner = t.number("internal_ohm", 1e-3, low=0.0)
                voltage = t.number("voltage_V", 4.2, low=0.0, high=10.0, low_open=True)
                energy = t.number("energy_J", low=0.0, low_open=True)
                power, until = voltage**2 / (resistance + inner), math.inf
            name = t.text("name", f"{kind} {i}")
            t.finish()
            found.append(Trigger(name, cell, power, start, until, region, energy, kind != "heater"))
        return found

    def step(self, s: Reader, base: StepRules) -> StepRules:
        """Stepping rules of one model: what the case says over the model's own."""
        largest = s.number("largest_s", base.largest_s, low=0.0, high=1e5, low_open=True)
        smallest = min(base.smallest_s, 0.01 * largest) if largest > 0 else base.smallest_s
        return StepRules(
            s.text("scheme", base.scheme, ("trbdf2", "be")),
            largest,
            s.number("smallest_s", smallest, low=0.0, low_open=True),
            s.number("reaction_K", base.reaction_K, low=0.0, low_open=True),
            s.number("conduction_K", base.conduction_K, low=0.0, low_open=True),
            s.number("substep_K", base.substep_K, low=0.0, high=50.0, low_open=True),
            s.flag("adaptive", True),
        )

    def rules(self) -> RunRules:
        r = self.r.mapping("run")
        until = r.number("until_s", low=0.0, high=1e9, low_open=True)
        s = r.mapping("step")
        steps = {model: self.step(s, base) for model, base in STEPS.items()}
        s.finish()
        m = r.mapping("mesh")
        mesh: dict[str, tuple[int, int, int]] = {}
        for model, values in (("fem", (14, 13, 14)), ("network", (6, 7, 6))):
            a = m.numbers(model, 3, values, low=1)
            mesh[model] = (int(a[0]), int(a[1]), int(a[2])) if all(map(math.isfinite, a)) else values
        m.finish()
        refine = r.wholes("refine", 3, (2, 1, 1), low=1)
        maps = r.get("maps_s") or []
        cooling = r.get("cooling") or []
        pairs: list[tuple[float, float]] = []
        for i, item in enumerate(cooling):
            if not (isinstance(item, list) and len(item) == 2):
                r.problem(f"cooling[{i}]", "expected [time s, 0...1]")
                continue
            a0, b0 = (
                r.check(f"cooling[{i}][0]", item[0], 0.0, None, False),
                r.check(f"cooling[{i}][1]", item[1], 0.0, 1.0, False),
            )
            if a0 is not None and b0 is not None:
                pairs.append((a0, b0))
        result = RunRules(
            until,
            steps,
            mesh,
            (refine[0], refine[1], refine[2]),
            tuple(float(v) for v in maps),
            r.temperature("stop_above", None),
            tuple(sorted(pairs)),
            r.number("cg_rtol", None, low=1e-12, high=1e-2),
            r.flag("front_correction", True),
        )
        r.finish()
        return result

    def case(self, name: str) -> Case:
        r = self.r
        about = r.text("about", "")
        materials = r.mapping("materials")
        for key in list(materials.data):
            self.materials[key] = self.material(materials.mapping(key))
        c = r.mapping("cell")
        cell_material = Material((1.0, 1.0, 1.0), 1000.0, 1000.0)
        if r.has("cell"):
            cell_material = self.material(c.mapping("material"))
        self.materials["cell"] = cell_material
        default = self.kinetics_of(c, cell_material.density_kg_m3) if r.has("cell") else None
        limits = Limits(
            c.temperature("runaway", 573.15),
            c.temperature("operating_max", 333.15),
            c.number("voltage_V", 4.2, low=0.0, high=10.0, low_open=True),
            c.number("internal_ohm", 1e-3, low=0.0),
        )
        c.finish()
        initial = r.temperature("initial", 298.15)
        g = r.mapping("geometry")
        kind = g.text("kind", among=("lumped", "stack", "pack"))
        uses: list[SetInUse | None] = []
        layout, lumped = None, None
        if kind == "lumped":
            lumped = self.lumped(g)
            uses.append(default)
        elif kind == "stack":
            layout = self.stack(g, uses, default, initial)
        else:
            layout = self.pack(g, uses, default, initial)
        g.finish()
        if layout is not None:
            for a, b in layout.overlaps():
                self.problems.append(f"geometry: {a!r} overlaps {b!r}")
        overrides = r.mapping("cells")
        for key in list(overrides.data):
            o = overrides.mapping(key)
            if not key.isdigit() or int(key) >= len(uses):
                overrides.problem(key, f"no such cell; expected a number from 0 to {len(uses) - 1}")
                continue
            uses[int(key)] = self.kinetics_of(o, cell_material.density_kg_m3, uses[int(key)])
            o.finish()
        sets: list[SetInUse] = []
        cell_set: list[int] = []
        nothing = SetInUse(
            kinetics.KineticSet("none", "", "", {}, (), {}, {}, kinetics.Safety(), kinetics.Gas()),
            cell_material.density_kg_m3,
        )
        for use in uses:
            chosen = use or nothing
            at = next((i for i, s in enumerate(sets) if s is chosen or s == chosen), -1)
            if at < 0:
                at = len(sets)
                sets.append(chosen)
            cell_set.append(at)
        boundaries = self.boundaries(initial)
        triggers = self.triggers(layout, len(uses))
        probes: dict[str, tuple[float, float, float]] = {}
        p = r.mapping("probes")
        for key in list(p.data):
            v = p.numbers(key, 3)
            probes[key] = (v[0], v[1], v[2])
        model = r.text("model", "lumped" if kind == "lumped" else "network", MODELS)
        if kind == "lumped" and model != "lumped":
            r.problem("model", f"{model!r} needs a stack or a pack; a lumped body has no inside")
        rules = self.rules()
        r.finish()
        return Case(
            name,
            about,
            model,
            kind,
            layout,
            lumped,
            tuple(sets),
            np.array(cell_set, dtype=np.int64),
            np.array([u.soc if u else 1.0 for u in uses]),
            cell_material.cp_J_kgK,
            initial,
            tuple(boundaries),
            tuple(triggers),
            probes,
            rules,
            limits,
            self.raw,
        )
