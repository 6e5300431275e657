import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gestalt.data.segments import INSTANCE_NUMBERS, find_runs, list_segments
from gestalt.panoptic import VOID, PanopticMap

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 9))
MAPS = SIZES.flatmap(
    lambda size: st.tuples(
        arrays.arrays(np.uint8, size, elements=st.sampled_from([0, 3, VOID])),
        arrays.arrays(np.uint16, size, elements=st.sampled_from([0, 1, 65535])),
    )
)


def slow_segments(panoptic):
    """The same table from a mask per segment."""
    rows = []
    for class_id in np.unique(panoptic.semantic_map):
        for instance in np.unique(panoptic.instance_map):
            inside = (panoptic.semantic_map == class_id) & (panoptic.instance_map == instance)
            if inside.any():
                y, x = np.nonzero(inside)
                box = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
                rows.append([class_id, instance, inside.sum(), *box])
    return np.array(rows, np.int64)


@given(MAPS)
def test_segments_are_those_of_a_mask_each(maps):
    panoptic = PanopticMap(*maps)
    table = list_segments(panoptic)
    found = np.column_stack([table.class_id, table.instance, table.area, table.box])
    np.testing.assert_array_equal(found, slow_segments(panoptic))


@given(MAPS)
def test_runs_of_columns_paint_the_map_again(maps):
    semantic, instance = maps
    runs = find_runs(semantic.T, instance.T)
    painted = np.repeat(runs.key, runs.length).reshape(semantic.T.shape).T
    np.testing.assert_array_equal(painted, semantic.astype(np.int64) * INSTANCE_NUMBERS + instance)
    np.testing.assert_array_equal(runs.start, np.append(0, np.cumsum(runs.length)[:-1]))


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_a_map_without_pixels_has_no_segments(size):
    table = list_segments(PanopticMap(np.zeros(size, np.uint8), np.zeros(size, np.uint16)))
    assert (len(table), table.box.shape) == (0, (0, 4))
