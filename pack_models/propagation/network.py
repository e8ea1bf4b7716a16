"""Finite-volume network: one node per volume of the grid, sparse direct solver with a reused factor.

Second order in space inside a material; joints and outer films in series with half a volume on each side, so a
network as coarse as one node per cell still has the right resistances between nodes (and still cannot see a front
inside a cell: `resolution_warning` says so).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_matrix, csc_matrix, diags
from scipy.sparse.linalg import splu

from .errors import SolverError
from .grid import Grid


def stiffness(grid: Grid) -> csc_matrix:
    """Conductance matrix K of a grid, W/K: (K T)_i is the heat that leaves volume i."""
    shape = grid.shape
    number = np.arange(int(np.prod(shape))).reshape(shape)
    rows, columns, values = [], [], []
    for axis in range(3):
        n = shape[axis]
        if n < 2:
            continue
        width = np.diff(grid.lines[axis])
        form = [1, 1, 1]
        form[axis] = n
        half = 0.5 * width.reshape(form) / grid.k_W_mK[grid.material, axis]
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(0, n - 1), slice(1, n)
        resistance = half[tuple(low)] + half[tuple(high)]
        differs = (grid.material[tuple(low)] != grid.material[tuple(high)]) | (
            grid.cell[tuple(low)] != grid.cell[tuple(high)]
        )
        for contact in grid.contacts:
            if contact.axis == axis:
                at = [slice(None)] * 3
                at[axis] = slice(contact.plane - 1, contact.plane)
                resistance[tuple(at)] += contact.resistance_m2K_W * differs[tuple(at)]
        inner = [slice(None)] * 3
        inner[axis] = slice(1, n)
        conductance = (grid.face_area_m2(axis)[tuple(inner)] / resistance).ravel()
        a, b = number[tuple(low)].ravel(), number[tuple(high)].ravel()
        rows += [a, b, a, b]
        columns += [a, b, b, a]
        values += [conductance, conductance, -conductance, -conductance]
    size = number.size
    if not rows:
        return csc_matrix((size, size))
    return coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(size, size)
    ).tocsc()


class NetworkConduction:
    """Conduction of a network for `march.March`; keeps the factors of the last few step sizes."""

    def __init__(self, grid: Grid) -> None:
        self.matrix = stiffness(grid)
        self._factors: dict[Any, Any] = {}
        self._csr = self.matrix.tocsr()

    def apply(self, temperature_K: np.ndarray) -> np.ndarray:
        """K T, W."""
        return np.asarray(self._csr @ temperature_K)

    def solve(self, diagonal_W_K: np.ndarray, key: Any, rhs_W: np.ndarray, guess_K: np.ndarray) -> np.ndarray:
        """Direct solve; one refinement is not needed, the matrix is an M-matrix of moderate condition."""
        factor = self._factors.get(key)
        if factor is None:
            if len(self._factors) >= 24:
                self._factors.pop(next(iter(self._factors)))
            try:
                factor = splu(
                    (self.matrix + diags(diagonal_W_K)).tocsc(),
                    permc_spec="MMD_AT_PLUS_A",
                    options={"SymmetricMode": True, "DiagPivotThresh": 0.0},
                )
            except RuntimeError as error:
                raise SolverError(f"the network matrix cannot be factorised: {error}") from error
            self._factors[key] = factor
        return np.asarray(factor.solve(rhs_W))

    def total(self, values: np.ndarray) -> np.ndarray:
        """One process holds everything."""
        return values

    def largest(self, values: np.ndarray) -> np.ndarray:
        """One process holds everything."""
        return values
