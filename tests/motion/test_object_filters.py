"""Holes, surfaces, overlaps and the invariants of the final map."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from gestalt.config.motion import MotionSettings
from gestalt.motion.object_filters import (
    ObjectMask,
    compose_flat_objects,
    compose_objects,
    fill_holes,
    regions,
    surface_map,
)

FOCAL, BASELINE = 400.0, 0.5
SHAPE = (80, 160)


def drawn(mask: np.ndarray, cost: float = -5.0) -> ObjectMask:
    whole = slice(0, SHAPE[0]), slice(0, SHAPE[1])
    costs = np.where(mask, cost, 5.0).astype(np.float32)
    return ObjectMask(*whole, costs, 8.0, 0.9, np.full(SHAPE, 0.6, np.float32))


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def compose(objects: list[ObjectMask], settings: MotionSettings, disparity: float = 10.0, **limits: float):
    filters = dataclasses.replace(settings.filters, **limits)
    return compose_objects(
        objects,
        np.full(SHAPE, disparity, np.float32),
        np.ones(SHAPE, bool),
        (FOCAL, FOCAL, BASELINE),
        0.12,
        filters,
    )


def test_holes_are_filled_even_when_the_mask_is_larger_than_the_rest() -> None:
    mask = np.ones((20, 20), bool)
    mask[0], mask[8:11, 8:11] = False, False
    filled = fill_holes(mask)
    assert not filled[0].any()
    assert filled[1:].all()


def test_regions_are_those_of_the_whole_image_on_their_own_rectangles() -> None:
    rng = np.random.default_rng(0)
    owner = rng.integers(0, 4, (30, 50)).astype(np.int32) * (rng.random((30, 50)) < 0.6)
    owner[owner == 2] = 0
    expected = []
    for number in (1, 3):
        labels, count = ndimage.label(owner == number, np.ones((3, 3)))
        expected += [(number, labels == part) for part in range(1, count + 1)]
    found = list(regions(owner))
    assert len(found) == len(expected)
    for (number, region), (other, whole) in zip(found, expected):
        mask = np.zeros(owner.shape, bool)
        mask[region.area] = region.mask
        assert number == other
        assert np.array_equal(mask, whole)
        assert np.array_equal(whole[region.area], region.mask)
        x0, y0, x1, y1 = region.box
        assert (y1 - y0, x1 - x0) == region.mask.shape
        # The rectangle is as small as it can be.
        assert all(
            side.any() for side in (region.mask[0], region.mask[-1], region.mask[:, 0], region.mask[:, -1])
        )


def test_the_surface_of_planes_is_exact() -> None:
    facing = surface_map(np.full((40, 60), 10.0, np.float32), FOCAL, FOCAL, BASELINE)
    depth = FOCAL * BASELINE / 10
    assert facing.sum() == pytest.approx(40 * 60 * (depth / FOCAL) ** 2, rel=1e-4)
    # A wall that recedes by 45 degrees: Z = Z0 + X, so d = f b (1 - x / f) / Z0 is a plane too.
    x = np.arange(-30, 30) / FOCAL
    slanted = np.broadcast_to(FOCAL * BASELINE * (1 - x) / 20.0, (40, 60)).astype(np.float32)
    inner = surface_map(slanted, FOCAL, FOCAL, BASELINE)[8:-8, 8:-8]
    exact = (20.0 / (1 - x)) ** 2 / FOCAL**2 * np.sqrt(2) / (1 - x)
    assert inner.sum() == pytest.approx(exact[8:-8].sum() * 24, rel=0.03)


def test_ids_are_consecutive_regions_without_holes_and_borders_are_empty(settings: MotionSettings) -> None:
    ring = box(10, 10, 40, 40) & ~box(20, 20, 20, 20)
    split = box(60, 70, 12, 15) | box(60, 100, 12, 15)
    edge = box(5, 130, 30, 30)
    instance_map, proposals = compose(
        [drawn(ring), drawn(split), drawn(edge)], settings, border_share=0.05, min_surface_m2=0.3
    )
    assert sorted(np.unique(instance_map)) == list(range(len(proposals) + 1))
    assert len(proposals) == 4
    assert not instance_map[:, :8].any()
    assert not instance_map[:, -8:].any()
    for row in proposals:
        mask = instance_map == row.instance
        assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
        assert np.array_equal(fill_holes(mask), mask)
        y, x = mask.nonzero()
        assert (row.x0, row.y0, row.x1, row.y1) == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert row.area_px == mask.sum()


def test_the_surer_object_wins_an_overlap_and_the_loser_is_measured_again(settings: MotionSettings) -> None:
    sure, other = drawn(box(20, 20, 30, 30), -9.0), drawn(box(20, 35, 30, 30), -3.0)
    instance_map, proposals = compose([other, sure], settings)
    areas = sorted(row.area_px for row in proposals)
    assert areas == [450, 900]
    assert instance_map[30, 40] == instance_map[30, 25]


def test_small_areas_and_surfaces_are_dropped(settings: MotionSettings) -> None:
    # 100 px at 20 m with f = 400: 0.25 m^2.
    objects = [drawn(box(20, 20, 10, 10))]
    assert compose(objects, settings, min_surface_m2=0.2)[1][0].surface_m2 == pytest.approx(0.25, rel=0.01)
    assert not compose(objects, settings, min_surface_m2=0.3)[1]
    assert not compose(objects, settings, min_surface_m2=0.0, min_area_px=101)[1]


def test_records_carry_depth_and_speed(settings: MotionSettings) -> None:
    row = compose([drawn(box(20, 20, 30, 30))], settings)[1][0]
    assert row.depth_m == pytest.approx(20.0)
    assert row.speed_m_s == pytest.approx(0.6 / 0.12, rel=1e-3)
    assert row.record()["consistency"] == 8.0


def test_without_depth_the_same_masks_have_no_metres(settings: MotionSettings) -> None:
    objects = [drawn(box(10, 10, 40, 40), -9.0), drawn(box(30, 30, 30, 40)), drawn(box(60, 100, 5, 5))]
    measured = np.ones(SHAPE, bool)
    filters = dataclasses.replace(settings.filters, min_surface_m2=0.0)
    flat, rows = compose_flat_objects(objects, measured, filters)
    metric, metric_rows = compose(objects, settings, min_surface_m2=0.0)
    assert np.array_equal(flat, metric)
    assert [row.area_px for row in rows] == [row.area_px for row in metric_rows]
    assert {row.source for row in rows} == {"monocular"}
    assert {row.source for row in metric_rows} == {"stereo"}
    assert np.isnan([(row.surface_m2, row.depth_m, row.speed_m_s) for row in rows]).all()
    nothing, none = compose_flat_objects(objects, ~measured, filters)
    assert not nothing.any()
    assert none == []
