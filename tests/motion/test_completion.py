"""Masks at the sides of the image grow to the edges of the image, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from gestalt.motion.completion import complete_masks, recount, side_holes
from gestalt.motion.object_filters import Proposal

HEIGHT, WIDTH = 60, 100
# A dark object from the left side to column 40; only its columns from 20 on were measured.
ROWS, WHOLE, SEEN = slice(15, 45), slice(0, 40), slice(20, 40)


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, instance map and what was measured."""
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    image[ROWS, WHOLE] = 60
    instances = np.zeros((HEIGHT, WIDTH), np.uint16)
    instances[ROWS, SEEN] = 1
    measured = np.ones((HEIGHT, WIDTH), np.bool_)
    measured[:, :20] = False
    return image, instances, measured


def test_an_object_that_leaves_the_image_is_completed_to_its_edge(scene: tuple[np.ndarray, ...]) -> None:
    image, instances, measured = scene
    found = complete_masks(instances, measured, image, radius=2)
    expected = np.zeros_like(instances)
    expected[ROWS, WHOLE] = 1
    union = (found > 0) | (expected > 0)
    assert ((found > 0) & (expected > 0)).sum() / union.sum() > 0.95
    assert (found[instances > 0] == 1).all()


def test_columns_of_the_border_stay_empty(scene: tuple[np.ndarray, ...]) -> None:
    image, instances, measured = scene
    found = complete_masks(instances, measured, image, radius=2, border=5)
    assert not found[:, :5].any()
    assert found[30, 6] == 1


def test_a_hole_inside_the_image_is_what_the_object_hides(scene: tuple[np.ndarray, ...]) -> None:
    image, instances, _ = scene
    measured = np.ones((HEIGHT, WIDTH), np.bool_)
    measured[10:50, 40:55] = False
    image[10:50, 40:55] = 60
    assert np.array_equal(complete_masks(instances, measured, image, radius=2), instances)


def test_a_narrow_bridge_does_not_connect_a_hole_to_the_side() -> None:
    unmeasured = np.zeros((HEIGHT, WIDTH), np.bool_)
    unmeasured[20:40, 40:60] = True
    unmeasured[30, :40] = True
    assert not side_holes(unmeasured, 2).any()
    assert side_holes(unmeasured, 0).sum() == unmeasured.sum()
    unmeasured[20:40, :40] = True
    assert np.array_equal(side_holes(unmeasured, 2), unmeasured)


@pytest.mark.parametrize("radius", [0, 2])
def test_without_objects_or_radius_nothing_changes(scene: tuple[np.ndarray, ...], radius: int) -> None:
    image, instances, measured = scene
    empty = np.zeros_like(instances)
    assert np.array_equal(complete_masks(empty, measured, image, radius=radius), empty)
    if radius == 0:
        assert np.array_equal(complete_masks(instances, measured, image, radius=0), instances)


def test_areas_and_boxes_follow_the_masks(scene: tuple[np.ndarray, ...]) -> None:
    _, instances, _ = scene
    before = Proposal(1, "stereo", 600, 2.5, 8.0, 1.0, 9.0, 5.0, 20, 15, 40, 45)
    instances[ROWS, WHOLE] = 1
    (after,) = recount([before], instances)
    assert (after.area_px, after.x0, after.y0, after.x1, after.y1) == (1200, 0, 15, 40, 45)
    assert (after.surface_m2, after.speed_m_s) == (2.5, 5.0)
