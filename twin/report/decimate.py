"""Fewer points that look the same: what a plot of a given width can show.

A long record is cut into bins; of each bin its lowest and its highest point stay, in their order, so no
spike is lost (peak detection, as oscilloscopes call it).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def _starts(n: int, bins: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n, bins, endpoint=False).astype(np.int64))


def extremes(t_s: FloatArray, y: FloatArray, points: int) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest of each bin, about `points` in all; NaN separates pieces of a curve and stays."""
    if y.size <= points:
        return t_s, y
    starts = _starts(y.size, max(points // 2, 1))
    edges = np.append(starts, y.size)
    keep: set[int] = {0, y.size - 1}
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        piece = y[start:stop]
        known = np.flatnonzero(np.isfinite(piece))
        if known.size == 0:
            keep.add(start)
            continue
        if known.size < piece.size:
            keep.add(start + int(np.flatnonzero(~np.isfinite(piece))[0]))
        keep.add(start + int(known[np.argmin(piece[known])]))
        keep.add(start + int(known[np.argmax(piece[known])]))
    index = np.array(sorted(keep))
    return t_s[index], y[index]


def envelope(
    t_s: FloatArray, low: FloatArray, high: FloatArray, points: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Lowest of `low` and highest of `high` in each bin."""
    if t_s.size <= points:
        return t_s, low, high
    starts = _starts(t_s.size, points)
    return t_s[starts], np.fmin.reduceat(low, starts), np.fmax.reduceat(high, starts)


def means(t_s: FloatArray, y: FloatArray, points: int) -> tuple[FloatArray, FloatArray]:
    """Mean of each bin over the first axis, for a quantity whose noise is not the message."""
    if t_s.size <= points:
        return t_s, y
    starts = _starts(t_s.size, points)
    counts = np.add.reduceat(np.isfinite(y).astype(float), starts, axis=0)
    sums = np.add.reduceat(np.nan_to_num(y), starts, axis=0)
    with np.errstate(invalid="ignore"):
        return np.add.reduceat(t_s, starts) / np.diff(np.append(starts, t_s.size)), sums / counts
