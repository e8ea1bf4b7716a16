"""Temperature fields of a grid: values at points, faces included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .grid import SIDES, Grid
from .problem import Boundary


@dataclass(frozen=True)
class Field:
    """Temperature at one time.

    Parameters
    ----------
    positions : three axes, m
    temperature_K : on their product
    """

    time_s: float
    positions: tuple[np.ndarray, np.ndarray, np.ndarray]
    temperature_K: np.ndarray

    def at(self, point_m: Sequence[float]) -> float:
        """Trilinear interpolation; points outside take the value of the nearest face."""
        values = self.temperature_K
        for axis, line in enumerate(self.positions):
            p = float(np.clip(point_m[axis], line[0], line[-1]))
            i = int(np.clip(np.searchsorted(line, p) - 1, 0, max(line.size - 2, 0)))
            if line.size == 1:
                values = values[0]
                continue
            w = (p - line[i]) / (line[i + 1] - line[i])
            values = (1 - w) * values[i] + w * values[i + 1]
        return float(values)


def vertex_field(time_s: float, grid: Grid, lattice_K: np.ndarray) -> Field:
    """Field of the finite elements."""
    return Field(time_s, grid.lines, lattice_K)


def volume_field(
    time_s: float, grid: Grid, temperature_K: np.ndarray, boundaries: Sequence[Boundary]
) -> Field:
    """Field of the network: volume centres, and on the outer faces what the film and half a volume imply."""
    values = temperature_K.reshape(grid.shape)
    positions = []
    by_side = {b.side: b for b in boundaries}
    for axis, (centre, line) in enumerate(zip(grid.centres(), grid.lines, strict=True)):
        ends = []
        for last in (0, 1):
            inner = np.take(values, [-1 if last else 0], axis=axis)
            b = by_side.get(SIDES[2 * axis + last])
            # On axes already extended the material array is shorter: repeat its border.
            material = np.take(grid.material, [-1 if last else 0], axis=axis)
            material = np.pad(material, [(0, 0) if a >= axis else (1, 1) for a in range(3)], mode="edge")
            film = 0.0 if b is None else b.h_W_m2K
            half = grid.k_W_mK[material, axis] / (
                0.5 * abs(line[-1] - line[-2] if last else line[1] - line[0])
            )
            ambient = 0.0 if b is None else b.ambient_K
            ends.append((half * inner + film * ambient) / (half + film))
        values = np.concatenate([ends[0], values, ends[1]], axis=axis)
        positions.append(np.concatenate([line[:1], centre, line[-1:]]))
    return Field(time_s, (positions[0], positions[1], positions[2]), values)
