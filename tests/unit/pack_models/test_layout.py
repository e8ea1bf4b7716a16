"""Offsets of packs, modules, groups and cells."""

import numpy as np
import pytest

from pack_models.layout import Layout


def test_offsets_of_unequal_packs():
    layout = Layout(n_series=[3, 2], n_parallel=[2, 1], groups_per_module=[2, 2])
    assert (layout.n_packs, layout.n_groups, layout.n_cells, layout.n_modules) == (2, 5, 8, 3)
    np.testing.assert_array_equal(layout.pack_cell_start, [0, 6, 8])
    np.testing.assert_array_equal(layout.group_cell_start, [0, 2, 4, 6, 7, 8])
    np.testing.assert_array_equal(layout.cell_group, [0, 0, 1, 1, 2, 2, 3, 4])
    np.testing.assert_array_equal(layout.cell_pack, [0, 0, 0, 0, 0, 0, 1, 1])
    # The last module of the first pack is a short one.
    np.testing.assert_array_equal(layout.module_group_start, [0, 2, 3, 5])
    np.testing.assert_array_equal(layout.group_module, [0, 0, 1, 2, 2])
    assert layout.cell_name(5) == "pack 0 group 2 cell 1"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"n_series": [0], "n_parallel": [1], "groups_per_module": [1]}, "n_series is"),
        ({"n_series": [2.5], "n_parallel": [1], "groups_per_module": [1]}, "whole number"),
        ({"n_series": [2, 2], "n_parallel": [1], "groups_per_module": [1, 1]}, "2, 1 and 2 packs"),
    ],
)
def test_wrong_shapes_are_named(shape, said):
    with pytest.raises(ValueError, match=said):
        Layout(**shape)
