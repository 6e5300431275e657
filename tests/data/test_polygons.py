import numpy as np
import pytest

from gestalt.data.polygons import paint_outlines
from gestalt.errors import DataError


def outline(*vertices, types=None):
    return np.array(vertices, np.float64), types or "L" * len(vertices)


def test_rectangles_on_pixel_corners_are_exact_and_later_ones_cover_earlier_ones():
    first = outline((1, 1), (5, 1), (5, 4), (1, 4))
    second = outline((3, 2), (3, 6), (8, 6), (8, 2))  # the other way round
    found = paint_outlines([[first], [second]], (7, 9))
    expected = np.zeros((7, 9), int)
    expected[1:4, 1:5] = 1
    expected[2:6, 3:8] = 2
    np.testing.assert_array_equal(found, expected)


def test_vertices_move_to_the_nearest_corner():
    found = paint_outlines([[outline((0.6, 0.6), (3.4, 0.6), (3.4, 2.4), (0.6, 2.4))]], (4, 5))
    expected = np.zeros((4, 5), int)
    expected[1:2, 1:3] = 1
    np.testing.assert_array_equal(found, expected)


def test_outlines_of_a_group_are_one_and_may_leave_the_picture():
    found = paint_outlines(
        [[outline((-5, -5), (2, -5), (2, 2), (-5, 2)), outline((4, 3), (9, 3), (9, 9), (4, 9))]], (5, 6)
    )
    expected = np.zeros((5, 6), int)
    expected[:2, :2] = expected[3:, 4:] = 1
    np.testing.assert_array_equal(found, expected)


def test_more_than_256_outlines_are_told_apart():
    groups = [[outline((x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1))] for y in range(20) for x in range(30)]
    np.testing.assert_array_equal(paint_outlines(groups, (20, 30)), np.arange(1, 601).reshape(20, 30))


# Control points of a quarter circle of radius 1.
K = 4 / 3 * (np.sqrt(2) - 1)


@pytest.mark.parametrize("is_closed_by_a_curve", [False, True])
def test_curves_are_cubic(is_closed_by_a_curve):
    centre, radius = 50, 40
    quarters = [
        np.array([(1, K), (K, 1), (0, 1)]),
        np.array([(-K, 1), (-1, K), (-1, 0)]),
        np.array([(-1, -K), (-K, -1), (0, -1)]),
        np.array([(K, -1), (1, -K), (1, 0)]),
    ]
    vertices, types = np.concatenate([[(1, 0)], *quarters]) * radius + centre, "L" + "CCL" * 4
    if is_closed_by_a_curve:
        vertices, types = vertices[:-1], types[:-1]
    found = paint_outlines([[(vertices, types)]], (100, 100))
    assert found.sum() == pytest.approx(np.pi * radius**2, rel=0.05)
    y, x = np.mgrid[:100, :100] + 0.5
    inside = np.hypot(x - centre, y - centre) < radius - 2
    outside = np.hypot(x - centre, y - centre) > radius + 2
    assert found[inside].all()
    assert not found[outside].any()


def test_nothing_paints_nothing():
    assert not paint_outlines([], (3, 4)).any()


@pytest.mark.parametrize(
    ("vertices", "types", "message"),
    [
        ([(0, 0), (1, 1)], "L", "with N letters L or C"),
        ([(0, 0), (1, 1)], "LX", "with N letters L or C"),
        ([(0, 0), (1, 1)], "CL", "starts at a corner"),
        ([(0, 0), (1, 1)], "LC", "a curve has two control points"),
        (np.zeros((0, 2)), "", "starts at a corner"),
        ([0, 1], "LL", "with N letters L or C"),
    ],
)
def test_broken_outlines_are_explained(vertices, types, message):
    with pytest.raises(DataError, match=message):
        paint_outlines([[(np.array(vertices, np.float64), types)]], (4, 4))
