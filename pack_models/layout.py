"""Wiring of all packs of a shard, as offsets into flat arrays.

Arrays over cells run pack by pack, within a pack series group by series group, within a group cell by
cell; a group is the cells in parallel at one place of the series string. Modules are runs of groups
that share a coolant channel; the last module of a pack may be shorter.

    layout = Layout.uniform(n_packs=3, n_series=14, n_parallel=2, groups_per_module=14)
    first_cell_of_pack_2 = layout.pack_cell_start[2]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def _starts(count: IntArray) -> IntArray:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(count)]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Layout:
    """Who belongs to whom.

    Parameters
    ----------
    n_series : (n_packs,) series groups of each pack
    n_parallel : (n_packs,) cells of each of its groups
    groups_per_module : (n_packs,) groups that share a coolant channel

    All three accept anything `numpy.asarray` takes and are kept as int64.
    """

    n_series: IntArray
    n_parallel: IntArray
    groups_per_module: IntArray

    def __post_init__(self) -> None:
        for name in ("n_series", "n_parallel", "groups_per_module"):
            raw = np.atleast_1d(np.asarray(getattr(self, name)))
            value = raw.astype(np.int64)
            if raw.ndim != 1 or raw.size == 0 or (value != raw).any() or (value < 1).any():
                raise ValueError(f"{name} is {raw.tolist()!r}; expected one whole number >= 1 for each pack")
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        if not self.n_series.size == self.n_parallel.size == self.groups_per_module.size:
            raise ValueError(
                "n_series, n_parallel and groups_per_module have "
                f"{self.n_series.size}, {self.n_parallel.size} and {self.groups_per_module.size} packs"
            )

    @classmethod
    def uniform(cls, n_packs: int, n_series: int, n_parallel: int, groups_per_module: int) -> Layout:
        """The layout of `n_packs` packs of one shape."""
        if n_packs < 1:
            raise ValueError(f"n_packs is {n_packs}; expected at least 1")
        shape: dict[str, Any] = {
            "n_series": np.full(n_packs, n_series),
            "n_parallel": np.full(n_packs, n_parallel),
            "groups_per_module": np.full(n_packs, groups_per_module),
        }
        return cls(**shape)

    @cached_property
    def n_packs(self) -> int:
        """Packs of the shard."""
        return int(self.n_series.size)

    @cached_property
    def n_groups(self) -> int:
        """Series groups of all packs."""
        return int(self.pack_group_start[-1])

    @cached_property
    def n_modules(self) -> int:
        """Modules of all packs."""
        return int(self.pack_module_start[-1])

    @cached_property
    def n_cells(self) -> int:
        """Cells of all packs."""
        return int(self.pack_cell_start[-1])

    @cached_property
    def pack_group_start(self) -> IntArray:
        """(n_packs + 1,) pack p owns groups [p] … [p + 1] - 1; the other starts read alike."""
        return _starts(self.n_series)

    @cached_property
    def pack_cell_start(self) -> IntArray:
        """(n_packs + 1,)"""
        return _starts(self.n_series * self.n_parallel)

    @cached_property
    def group_pack(self) -> IntArray:
        """(n_groups,) pack of each group."""
        return np.repeat(np.arange(self.n_packs), self.n_series)

    @cached_property
    def group_cell_start(self) -> IntArray:
        """(n_groups + 1,)"""
        return _starts(self.n_parallel[self.group_pack])

    @cached_property
    def cell_group(self) -> IntArray:
        """(n_cells,) group of each cell."""
        return np.repeat(np.arange(self.n_groups), np.diff(self.group_cell_start))

    @cached_property
    def cell_pack(self) -> IntArray:
        """(n_cells,) pack of each cell."""
        return self.group_pack[self.cell_group]

    @cached_property
    def pack_module_start(self) -> IntArray:
        """(n_packs + 1,)"""
        return _starts(-(-self.n_series // self.groups_per_module))

    @cached_property
    def module_pack(self) -> IntArray:
        """(n_modules,) pack of each module."""
        return np.repeat(np.arange(self.n_packs), np.diff(self.pack_module_start))

    @cached_property
    def module_group_start(self) -> IntArray:
        """(n_modules + 1,)"""
        number = np.arange(self.n_modules) - self.pack_module_start[self.module_pack]
        first = self.pack_group_start[self.module_pack] + number * self.groups_per_module[self.module_pack]
        return np.concatenate([first, [self.n_groups]]).astype(np.int64)

    @cached_property
    def group_module(self) -> IntArray:
        """(n_groups,) module of each group."""
        return np.repeat(np.arange(self.n_modules), np.diff(self.module_group_start))

    def cell_name(self, cell: int) -> str:
        """`pack 3 group 12 cell 1`, counted from 0, for messages."""
        group = int(self.cell_group[cell])
        pack = int(self.group_pack[group])
        return (
            f"pack {pack} group {group - int(self.pack_group_start[pack])} "
            f"cell {cell - int(self.group_cell_start[group])}"
        )
