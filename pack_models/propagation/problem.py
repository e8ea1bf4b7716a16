"""Node arrays of a grid: capacities, reacting sites, outer faces, heaters; for volumes (network) or
vertices (fem).

Both models solve C dT/dt = -K T - sum_g s_g G_g (T - T_g) + P + reactions - radiation node by node; they
differ in where the nodes sit and in K. Everything but K is made here, so that they cannot drift apart.
Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .grid import SIDES, Grid
from .kernel import Reactor, Tables


@dataclass(frozen=True)
class Boundary:
    """Heat exchange of one outer side.

    Parameters
    ----------
    side : of grid.SIDES, or "lateral" for a loss spread over the volume of a 1-D domain, or "sink"
    h_W_m2K, emissivity : convection and radiation
    ambient_K : of both
    cooled : whether the pack's cooling command scales h
    follows_ambient : whether a changing ambient temperature of a session moves ambient_K
    perimeter_over_area_1_m : of a lateral loss
    sink_W_m3K : (n_materials,) of a sink: conductance to a coolant per volume of material
    """

    side: str
    h_W_m2K: float
    ambient_K: float
    emissivity: float = 0.0
    cooled: bool = False
    follows_ambient: bool = True
    perimeter_over_area_1_m: float = 0.0
    sink_W_m3K: tuple[float, ...] = ()


@dataclass(frozen=True)
class Trigger:
    """A source of abuse heat, spread evenly over volumes.

    Parameters
    ----------
    name, cell : the cell it sits in, -1 for a heater outside cells
    region : (6,) x0 x1 y0 y1 z0 z1 in m; the whole cell when None
    power_W : constant between from_s and until_s
    energy_J : no more than this in total (an electric short ends when the charge is gone); None for no limit
    electric : heat from the cell's own charge (ISC, nail) rather than from outside
    """

    name: str
    cell: int
    power_W: float
    from_s: float
    until_s: float
    region: tuple[float, ...] | None = None
    energy_J: float | None = None
    electric: bool = False


@dataclass
class Problem:
    """Node arrays; see the module text.

    Parameters
    ----------
    capacity_J_K, initial_K : (n_nodes,)
    reactor : kernel object with sites and radiating faces
    site_node : (n_sites,)
    conductance_W_K : (n_groups, n_nodes); ambient_K, cooled, follows, scale : (n_groups,)
    face_group : (n_faces,) group of each radiating face
    trigger_weight : (n_triggers, n_nodes) share of a trigger's power
    cell_volume_m3 : (n_cells,)
    """

    capacity_J_K: np.ndarray
    initial_K: np.ndarray
    reactor: Reactor
    site_node: np.ndarray
    conductance_W_K: np.ndarray
    ambient_K: np.ndarray
    cooled: np.ndarray
    follows: np.ndarray
    group_names: tuple[str, ...]
    face_group: np.ndarray
    trigger_weight: np.ndarray
    triggers: tuple[Trigger, ...]
    n_cells: int
    cell_volume_m3: np.ndarray
    scale: np.ndarray = field(default_factory=lambda: np.ones(0))


def vertex_index(shape: tuple[int, int, int], i: np.ndarray, j: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Number of the vertex (i, j, k), z fastest, as numpy ravels (nx + 1, ny + 1, nz + 1)."""
    return np.asarray((i * (shape[1] + 1) + j) * (shape[2] + 1) + k)


def _corner_weights(grid: Grid) -> np.ndarray:
    """(2, nx) integral of the two hat functions of x over each interval, with the weight x^curvature."""
    a, b = grid.x[:-1], grid.x[1:]
    if grid.curvature == 0:
        half = 0.5 * (b - a)
        return np.stack([half, half])
    points, weights = np.polynomial.legendre.leggauss(3)
    s = 0.5 * (points + 1.0)  # on 0...1, exact for the polynomials of degree 3 that occur
    r = a[:, None] + s * (b - a)[:, None]
    measure = 0.5 * weights * (b - a)[:, None] * r**grid.curvature
    return np.stack([(measure * (1 - s)).sum(axis=1), (measure * s).sum(axis=1)])


def build(
    grid: Grid,
    tables: Tables,
    cell_set: np.ndarray,
    boundaries: list[Boundary],
    triggers: list[Trigger],
    vertices: bool,
    pick: np.ndarray | None = None,
) -> Problem:
    """Node arrays of a grid.

    Parameters
    ----------
    vertices : nodes are the corners (fem) instead of the volumes (network)
    pick : (n_local,) global node numbers to keep, in the order wanted (the share of one MPI rank)
    """
    shape = grid.shape
    volume = grid.volume_m3()
    index = np.indices(shape).reshape(3, -1)
    if vertices:
        n_nodes = grid.n_vertices
        wx = _corner_weights(grid)
        half_y, half_z = 0.5 * np.diff(grid.y), 0.5 * np.diff(grid.z)
        corners = [
            (
                vertex_index(shape, index[0] + cx, index[1] + cy, index[2] + cz),
                wx[cx][index[0]] * half_y[index[1]] * half_z[index[2]],
            )
            for cx in (0, 1)
            for cy in (0, 1)
            for cz in (0, 1)
        ]
    else:
        n_nodes = volume.size
        corners = [(np.arange(n_nodes), volume.ravel())]
    material, cell = grid.material.ravel(), grid.cell.ravel()
    rho_cp = grid.rho_cp_J_m3K[material]
    capacity, heat = np.zeros(n_nodes), np.zeros(n_nodes)
    for node, share in corners:
        capacity += np.bincount(node, share * rho_cp, n_nodes)
        heat += np.bincount(node, share * rho_cp * grid.initial_K.ravel(), n_nodes)
    initial = heat / capacity  # corners between regions start at the temperature that keeps the stored heat

    local = np.full(n_nodes, -1, dtype=np.int64)
    keep = np.arange(n_nodes) if pick is None else pick
    local[keep] = np.arange(keep.size)

    # Sites: (node, cell) pairs with their share of the cell's volume.
    pairs: dict[str, np.ndarray] = {"node": np.zeros(0, np.int64), "cell": np.zeros(0, np.int64)}
    shares: np.ndarray = np.zeros(0)
    reacting = cell >= 0
    if reacting.any():
        nodes = np.concatenate([local[node[reacting]] for node, _ in corners])
        cells = np.concatenate([cell[reacting] for _ in corners])
        part = np.concatenate([share[reacting] for _, share in corners])
        ours = nodes >= 0
        key = nodes[ours] * (int(cell.max()) + 1) + cells[ours]
        unique, inverse = np.unique(key, return_inverse=True)
        shares = np.asarray(np.bincount(inverse, part[ours], unique.size), dtype=float)
        pairs = {"node": unique // (int(cell.max()) + 1), "cell": unique % (int(cell.max()) + 1)}
    n_cells = int(cell_set.size)
    cell_volume = np.bincount(cell[reacting], volume.ravel()[reacting], n_cells) if n_cells else np.zeros(0)
    site_start = np.searchsorted(pairs["node"], np.arange(keep.size + 1))

    conductance = np.zeros((len(boundaries), n_nodes))
    faces: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []
    for g, b in enumerate(boundaries):
        if b.side in ("lateral", "sink"):
            density = (
                np.full(material.size, b.h_W_m2K * b.perimeter_over_area_1_m)
                if b.side == "lateral"
                else np.asarray(b.sink_W_m3K)[np.minimum(material, len(b.sink_W_m3K) - 1)]
            )
            for node, share in corners:
                conductance[g] += np.bincount(node, share * density, n_nodes)
            continue
        for node, area, resistance in _outer_faces(grid, b.side, vertices):
            # Half a volume lies between a volume's node and its face; a vertex is on the face.
            real = area > 0  # the axis of a cylinder has no surface
            node, area, resistance = node[real], area[real], resistance[real]
            if b.h_W_m2K > 0:
                conductance[g] += np.bincount(node, 1.0 / (1.0 / (b.h_W_m2K * area) + resistance), n_nodes)
            if b.emissivity > 0:
                faces.append((node, b.emissivity * area, resistance, g))

    face_node = np.concatenate([local[f[0]] for f in faces]) if faces else np.zeros(0, dtype=np.int64)
    face_area = np.concatenate([f[1] for f in faces]) if faces else np.zeros(0)
    face_resistance = np.concatenate([f[2] for f in faces]) if faces else np.zeros(0)
    face_group = (
        np.concatenate([np.full(f[0].size, f[3]) for f in faces]) if faces else np.zeros(0, dtype=np.int64)
    )
    order = np.argsort(face_node, kind="stable")
    order = order[face_node[order] >= 0]
    ambient = np.array([b.ambient_K for b in boundaries])
    reactor = Reactor(
        tables,
        cell_set,
        capacity[keep],
        site_start,
        pairs["cell"],
        shares,
        np.searchsorted(face_node[order], np.arange(keep.size + 1)),
        face_area[order],
        ambient[face_group[order]] if order.size else np.zeros(0),
        face_resistance[order],
    )

    weights = np.zeros((len(triggers), n_nodes))
    centre = np.meshgrid(*grid.centres(), indexing="ij")
    for i, t in enumerate(triggers):
        inside = cell == t.cell if t.cell >= 0 else np.ones(cell.size, dtype=bool)
        if t.region is not None:
            box = t.region
            for axis in range(3):
                c = centre[axis].ravel()
                inside = inside & (c > box[2 * axis]) & (c < box[2 * axis + 1])
        if not inside.any():
            raise ValueError(f"trigger {t.name!r} covers no volume of the mesh")
        total = volume.ravel()[inside].sum()
        for node, share in corners:
            weights[i] += np.bincount(node[inside], share[inside] / total, n_nodes)
    return Problem(
        capacity[keep],
        initial[keep],
        reactor,
        pairs["node"],
        conductance[:, keep],
        ambient,
        np.array([b.cooled for b in boundaries], dtype=bool),
        np.array([b.follows_ambient for b in boundaries], dtype=bool),
        tuple(b.side for b in boundaries),
        face_group[order],
        weights[:, keep],
        tuple(triggers),
        n_cells,
        cell_volume,
        np.ones(len(boundaries)),
    )


def _outer_faces(grid: Grid, side: str, vertices: bool) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(node, area, resistance K/W to the face) of one outer side; four entries for vertices, one for
    volumes.
    """
    axis, last = SIDES.index(side) // 2, SIDES.index(side) % 2
    shape = grid.shape
    area = np.take(grid.face_area_m2(axis), -1 if last else 0, axis=axis).ravel()
    layer = np.indices(shape)
    index = [np.take(layer[a], -1 if last else 0, axis=axis).ravel() for a in range(3)]
    if not vertices:
        material = np.take(grid.material, -1 if last else 0, axis=axis).ravel()
        width = np.diff(grid.lines[axis])[-1 if last else 0]
        node = (index[0] * shape[1] + index[1]) * shape[2] + index[2]
        with np.errstate(divide="ignore"):
            return [(node, area, 0.5 * width / (grid.k_W_mK[material, axis] * area))]
    index[axis] = index[axis] + last
    others = [a for a in range(3) if a != axis]
    entries = []
    wx = _corner_weights(grid)
    for first in (0, 1):
        for second in (0, 1):
            moved = list(index)
            moved[others[0]] = moved[others[0]] + first
            moved[others[1]] = moved[others[1]] + second
            node = vertex_index(shape, *moved)
            if grid.curvature and axis != 0:  # hat functions of x carry unequal shares of a curved face
                total = wx[0] + wx[1]
                share = 0.5 * area * (wx[first] / total)[index[0]]
            else:
                share = 0.25 * area
            entries.append((node, share, np.zeros(node.size)))
    return entries


def to_message(boundaries: list[Boundary], triggers: list[Trigger]) -> dict[str, Any]:
    """Boundaries and triggers as plain values for the wire."""
    from dataclasses import asdict

    return {"boundaries": [asdict(b) for b in boundaries], "triggers": [asdict(t) for t in triggers]}


def from_message(message: dict[str, Any]) -> tuple[list[Boundary], list[Trigger]]:
    """Inverse of `to_message`."""
    boundaries = [Boundary(**{**b, "sink_W_m3K": tuple(b["sink_W_m3K"])}) for b in message["boundaries"]]
    triggers = [
        Trigger(**{**t, "region": tuple(t["region"]) if t["region"] else None}) for t in message["triggers"]
    ]
    return boundaries, triggers
