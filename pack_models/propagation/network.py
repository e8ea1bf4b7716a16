"""Finite-volume network: one node per volume of the grid, conjugate gradients in C.

Second order in space inside a material; joints and outer films in series with half a volume on each side,
so a network as coarse as one node per cell still has the right resistances between nodes (and still cannot
see a front inside a cell: `run.resolution_warning` says so).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import SolverError
from .grid import Grid
from .kernel import Lattice


def conductances(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Conductance of every volume to its upper neighbour along x, y, z, W/K; (nx, ny, nz) each, 0 at the
    end.
    """
    found = []
    for axis in range(3):
        n = grid.shape[axis]
        out = np.zeros(grid.shape)
        if n > 1:
            form = [1, 1, 1]
            form[axis] = n
            half = 0.5 * np.diff(grid.lines[axis]).reshape(form) / grid.k_W_mK[grid.material, axis]
            low, high, inner = [slice(None)] * 3, [slice(None)] * 3, [slice(None)] * 3
            low[axis], high[axis], inner[axis] = slice(0, n - 1), slice(1, n), slice(1, n)
            below, above = tuple(low), tuple(high)
            resistance = half[below] + half[above]
            differs = (grid.material[below] != grid.material[above]) | (grid.cell[below] != grid.cell[above])
            for contact in grid.contacts:
                if contact.axis == axis:
                    at = [slice(None)] * 3
                    at[axis] = slice(contact.plane - 1, contact.plane)
                    resistance[tuple(at)] += contact.resistance_m2K_W * differs[tuple(at)]
            out[below] = grid.face_area_m2(axis)[tuple(inner)] / resistance
        found.append(out)
    return found[0], found[1], found[2]


class NetworkConduction:
    """Conduction of a network for `march.March`; keeps the factors of the last few step sizes.

    The tolerance may be loose: it is a share of the change, and a residual shift keeps the energy exact.
    """

    def __init__(self, grid: Grid, rtol: float | None = None) -> None:
        self.lattice, self.rtol = Lattice(conductances(grid)), rtol or 1e-5
        self.diagonal_W_K = self.lattice.row_sum
        self._factors: dict[Any, Any] = {}
        self.iterations = 0

    def apply(self, temperature_K: np.ndarray) -> np.ndarray:
        """K T, W."""
        return self.lattice.apply(temperature_K)

    def solve(self, diagonal_W_K: np.ndarray, key: Any, rhs_W: np.ndarray, guess_K: np.ndarray) -> np.ndarray:
        """Solve (diag + K) T = rhs from a guess."""
        factor = self._factors.get(key)
        if factor is None:
            if len(self._factors) >= 24:
                self._factors.pop(next(iter(self._factors)))
            factor = self._factors[key] = self.lattice.factor(diagonal_W_K)
        x, count = (guess_K, -1) if factor is None else self.lattice.solve(factor, rhs_W, guess_K, self.rtol)
        if count < 0:
            raise SolverError(
                "conjugate gradients did not converge: a conductance or capacity is zero or not finite, or "
                "the step is far too large; check k_W_mK, cp_J_kgK and run.step.largest_s"
            )
        self.iterations += count
        return x

    def total(self, values: np.ndarray) -> np.ndarray:
        """One process holds everything."""
        return values

    def largest(self, values: np.ndarray) -> np.ndarray:
        """One process holds everything."""
        return values
