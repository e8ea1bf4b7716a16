"""Structured box of volumes: what the network and the finite-element model are both built from.

Lines along x, y and z cut the domain into volumes; each volume has a material and, where it reacts, a cell.
Contact resistances sit on grid planes. Numpy only: the dolfinx process builds its mesh from the same
object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SIDES = ("x_min", "x_max", "y_min", "y_max", "z_min", "z_max")


@dataclass(frozen=True)
class Contact:
    """Thermal resistance on a grid plane, where the volumes on both sides differ in material or cell.

    Parameters
    ----------
    axis : 0, 1, 2; plane : index of the line
    resistance_m2K_W : of the joint
    """

    axis: int
    plane: int
    resistance_m2K_W: float


@dataclass(frozen=True)
class Grid:
    """The discretised domain.

    Parameters
    ----------
    x, y, z : (nx + 1,), (ny + 1,), (nz + 1,) line positions, m
    material : (nx, ny, nz) index into k and rho_cp
    cell : (nx, ny, nz) cell index, -1 where nothing reacts
    k_W_mK : (n_materials, 3); rho_cp_J_m3K : (n_materials,)
    initial_K : (nx, ny, nz)
    contacts : joints on planes
    curvature : 0 cartesian; 1 or 2 when x is the radius of a cylinder or sphere (per radian or steradian)
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    material: np.ndarray
    cell: np.ndarray
    k_W_mK: np.ndarray
    rho_cp_J_m3K: np.ndarray
    initial_K: np.ndarray
    contacts: tuple[Contact, ...] = ()
    curvature: int = 0

    @property
    def lines(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.x, self.y, self.z

    @property
    def shape(self) -> tuple[int, int, int]:
        """Volumes along x, y, z."""
        nx, ny, nz = self.material.shape
        return nx, ny, nz

    @property
    def n_vertices(self) -> int:
        return int(np.prod([n + 1 for n in self.shape]))

    def volume_m3(self) -> np.ndarray:
        """(nx, ny, nz) volumes (per radian or steradian when curved)."""
        g = self.curvature + 1
        wx = (self.x[1:] ** g - self.x[:-1] ** g) / g
        return np.asarray(wx[:, None, None] * np.diff(self.y)[None, :, None] * np.diff(self.z)[None, None, :])

    def centres(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mid-points along each axis."""
        return (
            0.5 * (self.x[1:] + self.x[:-1]),
            0.5 * (self.y[1:] + self.y[:-1]),
            0.5 * (self.z[1:] + self.z[:-1]),
        )

    def face_area_m2(self, axis: int) -> np.ndarray:
        """Areas of the faces normal to an axis: (nx + 1, ny, nz) for axis 0, and so on."""
        dx, dy, dz = np.diff(self.x), np.diff(self.y), np.diff(self.z)
        if axis == 0:
            return np.asarray((self.x**self.curvature)[:, None, None] * dy[None, :, None] * dz[None, None, :])
        g = self.curvature + 1
        wx = (self.x[1:] ** g - self.x[:-1] ** g) / g if self.curvature else dx
        if axis == 1:
            return np.asarray(
                np.broadcast_to((wx[:, None, None] * dz[None, None, :]), (dx.size, dy.size + 1, dz.size))
            )
        return np.asarray(
            np.broadcast_to((wx[:, None, None] * dy[None, :, None]), (dx.size, dy.size, dz.size + 1))
        )

    def with_joint_layers(self) -> Grid:
        """The same domain with every contact resistance as one thin layer of volumes of conductivity
        thickness/R.

        A joint between nodes of a conforming mesh has no element of its own; a layer a thousandth of its
        neighbour thick, cut out of that neighbour, conducts the same heat and stores next to none.
        """
        grid = self
        for contact in sorted(self.contacts, key=lambda c: (c.axis, -c.plane)):
            grid = _insert_layer(grid, contact)
        return replace(grid, contacts=())


def uniform_across(grid: Grid, axes: list[int]) -> Grid:
    """The grid with so much conductivity along `axes` that nothing varies there.

    For the finite elements of a one-dimensional domain: one element across, trilinear, conducts a pattern
    that alternates from edge to edge with a third of k only, so near thermal explosion rounding errors
    would grow into such a pattern. The true solution has no gradient across and is unchanged.
    """
    k = grid.k_W_mK.copy()
    for axis in axes:
        width = float(grid.lines[axis][-1] - grid.lines[axis][0])
        k[:, axis] = np.maximum(k[:, axis], grid.rho_cp_J_m3K.max() * width**2)  # evens out within 0.1 s
    return replace(grid, k_W_mK=k)


def _insert_layer(grid: Grid, contact: Contact) -> Grid:
    axis, plane = contact.axis, contact.plane
    line = grid.lines[axis]
    thickness = 1e-3 * (line[plane + 1] - line[plane])
    new_line = np.insert(line, plane + 1, line[plane] + thickness)

    def take(a: np.ndarray, index: int) -> np.ndarray:
        return np.take(a, index, axis=axis)

    before, after = take(grid.material, plane - 1), take(grid.material, plane)
    cell_before, cell_after = take(grid.cell, plane - 1), take(grid.cell, plane)
    same = (before == after) & (cell_before == cell_after)
    joint_k = np.full((1, 3), thickness / contact.resistance_m2K_W)
    joint = grid.k_W_mK.shape[0]
    layer = np.where(same, after, joint)
    layer_cell = np.where(same, cell_after, -1)
    lines = list(grid.lines)
    lines[axis] = new_line
    return replace(
        grid,
        x=lines[0],
        y=lines[1],
        z=lines[2],
        material=np.insert(grid.material, plane, layer, axis=axis),
        cell=np.insert(grid.cell, plane, layer_cell, axis=axis),
        initial_K=np.insert(grid.initial_K, plane, take(grid.initial_K, plane), axis=axis),
        k_W_mK=np.concatenate([grid.k_W_mK, joint_k]),
        rho_cp_J_m3K=np.concatenate([grid.rho_cp_J_m3K, [1.0]]),
    )
