"""Rows of a planning run, one per pack and day, as Parquet: the same run writes the same bytes.

with DailyTable(Path("runs/fleet.parquet"), n_packs=24) as table:
    table.add(day, fleet.run(request_W, outside_K, 60.0))
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

UNITS = {"_J": "J", "_s": "s", "_K": "K", "_V": "V"}


def unit_of(name: str) -> str:
    """Unit that goes with the ending of a column, "1" otherwise."""
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "1")


class DailyTable:
    """A Parquet file that grows by a row group per day; on any exception nothing is left of it."""

    def __init__(self, path: Path, n_packs: int) -> None:
        self.path, self.n_packs = path, n_packs
        self._partial = path.with_name(path.name + ".partial")
        self._writer: pq.ParquetWriter | None = None

    def add(self, day: int, rows: dict[str, FloatArray]) -> None:
        """One day of all packs; float32 on disk, as sums over a day need no more."""
        columns: dict[str, pa.Array] = {
            "day": pa.array(np.full(self.n_packs, day, dtype=np.int32)),
            "rack": pa.array(np.arange(1, self.n_packs + 1, dtype=np.int32)),
        }
        for name, values in rows.items():
            if not np.isfinite(values).all():
                bad = int(np.flatnonzero(~np.isfinite(values))[0])
                raise ValueError(
                    f"{name} of rack {bad + 1} on day {day} is {values[bad]:g}; nothing is written"
                )
            columns[name] = pa.array(values.astype(np.float32))
        fields = [pa.field(n, c.type, False, {"unit": unit_of(n)}) for n, c in columns.items()]
        schema = pa.schema(fields)
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._partial, schema, compression="zstd")
        self._writer.write_table(pa.Table.from_arrays(list(columns.values()), schema=schema))

    def __enter__(self) -> DailyTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._writer.close()
        if kind is None:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink()
