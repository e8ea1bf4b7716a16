"""Where the solids of a case are, and the grid lines that follow from them.

A layout is a list of axis-aligned boxes (cells, plates, barriers, busbars) over a background material,
joints on planes, and a mesh count per cell; `make_grid` cuts it into volumes. Cylindrical cells enter as
square prisms of the same volume at the same pitch: the gap between them is a little narrower than in
reality along the diagonal and wider at the closest point, which errs to the safe side of heat transfer only
when the gap conducts worse than the cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from .errors import CaseError
from .grid import Contact, Grid

Box = tuple[float, float, float, float, float, float]
_SAME_M = 1e-9
MOST_VOLUMES = 5_000_000  # some gigabytes of memory


@dataclass(frozen=True)
class Material:
    """Constant properties; k along x, y, z."""

    k_W_mK: tuple[float, float, float]
    density_kg_m3: float
    cp_J_kgK: float

    @property
    def rho_cp(self) -> float:
        return self.density_kg_m3 * self.cp_J_kgK


@dataclass(frozen=True)
class Solid:
    """One box.

    Parameters
    ----------
    cell : index of the cell it is, -1 for an inert solid
    mesh : volumes along x, y, z inside this box; 0 leaves it to what lies beside
    initial_K : own start temperature, or None for the case's
    """

    name: str
    material: str
    box: Box
    cell: int = -1
    mesh: tuple[int, int, int] = (0, 0, 0)
    initial_K: float | None = None

    def size(self, axis: int) -> float:
        return self.box[2 * axis + 1] - self.box[2 * axis]


@dataclass(frozen=True)
class Joint:
    """Contact resistance on the plane at a position along an axis."""

    axis: int
    position_m: float
    resistance_m2K_W: float


@dataclass(frozen=True)
class Layout:
    """All solids of a case; later solids lie over earlier ones (plates and packing first, cells last).

    Parameters
    ----------
    background : material of what no box covers
    cell_mesh : volumes per cell along x, y, z when a cell has no mesh of its own
    graded : cosine spacing along y and z inside cells (finite elements): fine where heat enters and leaves
    mode : (mean, amplitude K, (mx, my, mz)) of a cosine start temperature, or None
    """

    solids: tuple[Solid, ...]
    materials: dict[str, Material]
    background: str
    initial_K: float
    joints: tuple[Joint, ...] = ()
    curvature: int = 0
    graded: bool = False
    mode: tuple[float, tuple[int, int, int]] | None = None
    grid_arrangement: tuple[int, int, int] = (1, 1, 1)
    cell_names: tuple[str, ...] = field(default_factory=tuple)

    def bounds(self, axis: int) -> tuple[float, float]:
        return min(s.box[2 * axis] for s in self.solids), max(s.box[2 * axis + 1] for s in self.solids)

    def overlaps(self) -> list[tuple[str, str]]:
        """Pairs of solids that claim the same space."""
        found = []
        for i, a in enumerate(self.solids):
            for b in self.solids[:i]:
                deep = [
                    min(a.box[2 * x + 1], b.box[2 * x + 1]) - max(a.box[2 * x], b.box[2 * x]) > _SAME_M
                    for x in range(3)
                ]
                if all(deep):
                    found.append((a.name, b.name))
        return found


def _line(layout: Layout, axis: int, cell_mesh: Sequence[int], refine: int) -> np.ndarray:
    edges = np.unique(np.round([v for s in layout.solids for v in s.box[2 * axis : 2 * axis + 2]], 12))
    edges = edges[np.concatenate([[True], np.diff(edges) > _SAME_M])]
    joints = {round(j.position_m, 9) for j in layout.joints if j.axis == axis}
    for position in sorted(joints):
        if not np.any(np.abs(edges - position) < 1e-7):
            edges = np.sort(np.append(edges, position))
    pieces = [edges[:1]]
    for a, b in pairwise(edges):
        count, whole_cell = 1, False
        for s in layout.solids:
            if s.box[2 * axis] <= a + _SAME_M and s.box[2 * axis + 1] >= b - _SAME_M:
                wanted = s.mesh[axis] or (cell_mesh[axis] if s.cell >= 0 else 0)
                if wanted:
                    share = math.ceil(wanted * (b - a) / s.size(axis) - 1e-6)
                    if share > count or (share == count and s.cell >= 0):
                        whole_cell = s.cell >= 0 and abs(b - a - s.size(axis)) < _SAME_M
                    count = max(count, share)
        count *= refine
        s_ = np.linspace(0.0, 1.0, count + 1)[1:]
        if layout.graded and axis > 0 and whole_cell and count > 2:
            s_ = 0.5 * (1.0 - np.cos(np.pi * s_))
        pieces.append(a + (b - a) * s_)
    return np.concatenate(pieces)


def make_grid(layout: Layout, cell_mesh: Sequence[int], refine: Sequence[int] = (1, 1, 1)) -> Grid:
    """Grid of a layout.

    Parameters
    ----------
    cell_mesh : volumes per cell along x, y, z
    refine : each interval's count multiplied by this along x, y, z
    """
    x, y, z = (_line(layout, axis, cell_mesh, refine[axis]) for axis in range(3))
    shape = (x.size - 1, y.size - 1, z.size - 1)
    if math.prod(shape) > MOST_VOLUMES:
        whole = " x ".join(map(str, shape))
        raise CaseError("mesh", [f"run.mesh: makes {whole} volumes; expected at most {MOST_VOLUMES:.0e}"])
    order = list(layout.materials)
    material = np.full(shape, order.index(layout.background), dtype=np.int64)
    cell = np.full(shape, -1, dtype=np.int64)
    initial = np.full(shape, layout.initial_K)
    for s in layout.solids:
        window = tuple(
            slice(
                int(np.searchsorted(line, s.box[2 * a] - _SAME_M)),
                int(np.searchsorted(line, s.box[2 * a + 1] - _SAME_M)),
            )
            for a, line in enumerate((x, y, z))
        )
        material[window] = order.index(s.material)
        cell[window] = s.cell
        initial[window] = layout.initial_K if s.initial_K is None else s.initial_K
    contacts = []
    for j in layout.joints:
        if j.resistance_m2K_W <= 0.0:
            continue
        line = (x, y, z)[j.axis]
        plane = int(np.argmin(np.abs(line - j.position_m)))
        if 0 < plane < line.size - 1:
            contacts.append(Contact(j.axis, plane, j.resistance_m2K_W))
    grid = Grid(
        x,
        y,
        z,
        material,
        cell,
        np.array([layout.materials[m].k_W_mK for m in order]),
        np.array([layout.materials[m].rho_cp for m in order]),
        initial,
        tuple(contacts),
        layout.curvature,
    )
    if layout.mode is not None:
        amplitude, numbers = layout.mode
        shape_function = np.ones(shape)
        for axis, (centre, n) in enumerate(zip(grid.centres(), numbers, strict=True)):
            low, high = layout.bounds(axis)
            form = [1, 1, 1]
            form[axis] = centre.size
            shape_function = shape_function * np.cos(n * np.pi * (centre - low) / (high - low)).reshape(form)
        initial = initial + amplitude * shape_function

        grid = replace(grid, initial_K=initial)
    return grid
