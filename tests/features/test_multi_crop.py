"""Crops lie where they should, have the sizes they should, and are what an image library would cut out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from gestalt.features.multi_crop import (
    Views,
    crop_frames,
    draw_views,
    draw_windows,
    overlap_places,
    resize_matrices,
)
from tests.features.small_distillation import quick_settings

SETTINGS = quick_settings().views


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ramps(height: int, width: int) -> torch.Tensor:
    """(1, 3, H, W): red is the row of a pixel's centre, green its column, both as shares; blue is 0."""
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    red, green = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([red, green, torch.zeros_like(red)])[None]


@pytest.mark.parametrize("size", [(40, 64), (64, 40)])
def test_windows_are_squares_inside_the_frame_of_the_wanted_sizes(size: tuple[int, int]) -> None:
    top, left, side = draw_windows(size, SETTINGS, 5000, rng()).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + side <= size[0] + 1e-9).all()
    assert (left + side <= size[1] + 1e-9).all()
    shares = side / min(size)
    assert shares.min() == pytest.approx(0.25, abs=0.01)
    assert shares.max() == pytest.approx(1.0, abs=0.01)
    assert shares.mean() == pytest.approx(0.625, abs=0.01)


def test_crops_lie_in_the_window_with_the_wanted_areas_and_ratios() -> None:
    whole = dataclasses.replace(SETTINGS, window_low=1.0, window_high=1.0)
    size = (50, 50)  # the window is the frame
    global_views, local_views = draw_views(size, whole, 4000, rng())
    assert global_views.boxes.shape == (4000, 2, 4)
    assert local_views.boxes.shape == (4000, 2, 4)
    for views, low, high in ((global_views, 0.4, 1.0), (local_views, 0.05, 0.4)):
        top, left, height, width = np.moveaxis(views.boxes, -1, 0)
        assert min(top.min(), left.min()) >= 0
        assert max((top + height).max(), (left + width).max()) <= 50 + 1e-9
        areas, ratios = height * width / 2500, width / height
        assert low - 1e-9 <= areas.min() < low + 0.01
        assert high - 0.01 < areas.max() <= high + 1e-9
        assert 0.75 - 1e-3 <= ratios.min() < ratios.max() <= 1.3334
        assert views.mirrored.mean() == pytest.approx(0.5, abs=0.02)
    # No crop of this area and shape fits into a square: the whole window, as torchvision does for a square.
    stuck = dataclasses.replace(whole, global_low=1.0, global_high=1.0)
    boxes = draw_views(size, stuck, 20, rng())[0].boxes
    np.testing.assert_array_equal(boxes, np.broadcast_to([0, 0, 50, 50], boxes.shape))


def test_draws_depend_on_the_generator_alone() -> None:
    first, second = (draw_views((40, 64), SETTINGS, 8, rng(3)) for _ in range(2))
    for views, same in zip(first, second, strict=True):
        np.testing.assert_array_equal(views.boxes, same.boxes)
        np.testing.assert_array_equal(views.mirrored, same.mirrored)
    assert not np.array_equal(first[0].boxes, draw_views((40, 64), SETTINGS, 8, rng(4))[0].boxes)


@pytest.mark.parametrize("box", [(0, 0, 30, 40), (3, 5, 24, 17), (10, 2, 9, 11), (1, 0, 29, 40)])
def test_crops_of_whole_pixels_are_those_of_torch(box: tuple[int, int, int, int]) -> None:
    frames = torch.randint(0, 256, (2, 3, 30, 40), dtype=torch.uint8, generator=torch.manual_seed(0))
    top, left, height, width = box
    cut = frames[:, :, top : top + height, left : left + width].float() / 255
    expected = functional.interpolate(cut, size=(16, 16), mode="bicubic", antialias=True).clamp(0, 1)
    boxes = torch.tensor(box, dtype=torch.float32).expand(2, 1, 4)
    for mirrored in (False, True):
        found = crop_frames(frames, boxes, torch.full((2, 1), mirrored), 16)
        assert found.shape == (1, 2, 3, 16, 16)
        torch.testing.assert_close(found[0], expected.flip(3) if mirrored else expected, atol=2e-6, rtol=0)


def test_every_crop_of_a_batch_is_read_from_its_own_frame_and_place() -> None:
    frames = torch.rand(3, 3, 20, 30, generator=torch.manual_seed(0))
    views = draw_views((20, 30), SETTINGS, 3, rng())[0]
    boxes, mirrored = torch.from_numpy(views.boxes).float(), torch.from_numpy(views.mirrored)
    together = crop_frames(frames, boxes, mirrored, 8)
    for image in range(3):
        for view in range(2):
            alone = crop_frames(
                frames[image : image + 1],
                boxes[image, view][None, None],
                mirrored[image, view][None, None],
                8,
            )
            torch.testing.assert_close(together[view, image], alone[0, 0])


def test_a_part_that_holds_no_pixel_centre_is_the_nearest_pixel() -> None:
    matrix = resize_matrices(torch.tensor([2.6]), torch.tensor([0.3]), torch.tensor([False]), 4, 6)[0]
    expected = torch.zeros(4, 6)
    expected[:, 2] = 1
    torch.testing.assert_close(matrix, expected)


def test_rows_of_resize_matrices_sum_to_one() -> None:
    starts, lengths = torch.rand(50) * 10, torch.rand(50) * 40 + 0.2
    matrices = resize_matrices(starts, lengths, torch.rand(50) < 0.5, 7, 60)
    torch.testing.assert_close(matrices.sum(-1), torch.ones(50, 7))


def test_places_are_the_same_places_of_the_frame_in_both_crops() -> None:
    frame = ramps(200, 300)
    settings = dataclasses.replace(SETTINGS, window_low=0.5)
    views = draw_views((200, 300), settings, 40, rng())[0]
    places, counts = overlap_places(views, 3, 0.1)
    assert places.shape == (2, 40, 9, 2)
    assert counts.sum() > 30
    boxes, mirrored = torch.from_numpy(views.boxes).float(), torch.from_numpy(views.mirrored)
    crops = crop_frames(frame.expand(40, -1, -1, -1), boxes, mirrored, 96)
    # What a crop shows at a place is the row and column of that place.
    seen = [
        functional.grid_sample(
            crops[view],
            torch.from_numpy(places[view]).float()[:, :, None],
            padding_mode="border",
            align_corners=False,
        )[..., 0]
        for view in range(2)
    ]
    kept = torch.from_numpy(counts)
    torch.testing.assert_close(seen[0][kept], seen[1][kept], atol=4e-3, rtol=0)
    assert float(seen[0][kept].std()) > 0.1


def test_places_of_a_hand_made_overlap() -> None:
    # Two crops of 10 x 10, the second 4 further right and mirrored: they share x 4..10 of y 0..10.
    boxes = np.array([[[0.0, 0, 10, 10], [0, 4, 10, 10]]])
    places, counts = overlap_places(Views(boxes, np.array([[False, True]])), 1, 0.1)
    assert counts.tolist() == [True]
    np.testing.assert_allclose(places[0, 0, 0], [0.4, 0.0], atol=1e-12)  # x 7 of 0..10
    np.testing.assert_allclose(places[1, 0, 0], [0.4, 0.0], atol=1e-12)  # x 3 of 0..10, mirrored 7
    apart_boxes = boxes + np.array([[0.0, 0, 0, 0], [0, 20, 0, 0]])
    apart = overlap_places(Views(apart_boxes, np.zeros((1, 2), bool)), 2, 0.1)
    assert apart[1].tolist() == [False]
    assert np.abs(apart[0]).max() <= 1
    thin = overlap_places(Views(boxes, np.zeros((1, 2), bool)), 2, 0.61)
    assert thin[1].tolist() == [False]
