"""Geometric augmentation: the displacement of changed images is the changed displacement, exactly for affine ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gestalt.config.optical_flow import CropSettings
from gestalt.config.presets import default_settings
from gestalt.matching.crop_placement import (
    Placement,
    draw_placement,
    frame_bounds,
    stored_positions,
    view_displacements,
    view_images,
)
from gestalt.matching.warping import pixel_grid

CPU = torch.device("cpu")
STORED = (48, 64)


@pytest.fixture(scope="module")
def crop() -> CropSettings:
    settings: CropSettings = default_settings("optical_flow", "paper").crop
    return dataclasses.replace(settings, height=24, width=32)


def plain(crop: CropSettings) -> CropSettings:
    return dataclasses.replace(crop, flip_prob=0.0, vertical_flip_prob=0.0, scale_prob=0.0, stretch_prob=0.0)


def placements(crop: CropSettings, n: int) -> list[Placement]:
    return [draw_placement(STORED, crop, np.random.default_rng(seed)) for seed in range(n)]


def test_crops_lie_inside_the_image_at_all_scales_and_both_ways_round(crop: CropSettings) -> None:
    drawn = placements(crop, 300)
    size = (crop.height, crop.width)
    positions = stored_positions(drawn, size, (0, 0), CPU)
    for axis, length in ((0, STORED[1]), (1, STORED[0])):
        # The edges of the outermost pixels, half a pixel beyond their centres.
        half = 0.5 * torch.tensor([abs(one.scale[axis]) for one in drawn])
        values = positions[:, axis].flatten(1)
        assert bool((values.min(1).values - half >= -0.5 - 1e-4).all())
        assert bool((values.max(1).values + half <= length - 0.5 + 1e-4).all())
    zooms = np.array([1 / abs(one.scale[1]) for one in drawn])
    assert zooms.min() < 0.95
    assert 2**0.6 < zooms.max() <= 2**0.8
    mirrored = np.array([[scale < 0 for scale in one.scale] for one in drawn]).mean(0)
    assert 0.4 < mirrored[0] < 0.6
    assert 0.05 < mirrored[1] < 0.16


def test_small_images_are_enlarged_to_the_crop(crop: CropSettings) -> None:
    one = draw_placement((12, 64), plain(crop), np.random.default_rng(0))
    assert one.scale == (1.0, 0.5)


def test_without_scaling_a_crop_is_an_array_slice(crop: CropSettings) -> None:
    image = torch.rand(1, 3, *STORED, generator=torch.Generator().manual_seed(0))
    for seed in range(5):
        one = draw_placement(STORED, plain(crop), np.random.default_rng(seed))
        left, top = (int(value) for value in one.offset)
        assert one.offset == (left, top)
        seen = view_images(image, stored_positions([one], (24, 32), (0, 0), CPU))
        assert torch.equal(seen, image[..., top : top + 24, left : left + 32])
    mirrored = draw_placement(
        STORED, dataclasses.replace(plain(crop), flip_prob=1.0), np.random.default_rng(3)
    )
    seen = view_images(image, stored_positions([mirrored], (24, 32), (0, 0), CPU))
    last, top = int(mirrored.offset[0]), int(mirrored.offset[1])
    assert torch.equal(seen.flip(3), image[..., top : top + 24, last - 31 : last + 1])


def test_displacements_of_changed_images_are_changed_displacements(crop: CropSettings) -> None:
    """What pixel p of the first crop shows, the second crop shows at p + d, for any affine motion."""
    x, y = pixel_grid(*STORED)
    motion = torch.stack([2 + 0.05 * x - 0.02 * y, -1 + 0.03 * x + 0.1 * y])[None]
    # An image whose colour says where it is, and the same scene after the motion: pixel q + motion(q) shows q.
    matrix = torch.tensor([[1.05, -0.02], [0.03, 1.1]])
    inverse, shift = torch.linalg.inv(matrix), torch.tensor([2.0, -1.0])
    for one in placements(crop, 12):
        positions = stored_positions([one], (24, 32), (0, 0), CPU)
        seen, known = view_displacements(motion, torch.ones(1, *STORED, dtype=torch.bool), positions, [one])
        assert bool(known.all())
        target = pixel_grid(24, 32) + seen[0]
        scale, offset = torch.tensor(one.scale).view(2, 1, 1), torch.tensor(one.offset).view(2, 1, 1)
        stored_target = scale * target + offset  # where the second crop shows it, in stored pixels
        source = torch.einsum("ab,bhw->ahw", inverse, stored_target - shift.view(2, 1, 1))
        # Bilinear reading clamps at the border; inside it is exact for affine motion.
        inside = ((positions[0] >= 0) & (positions[0] <= torch.tensor([63.0, 47.0]).view(2, 1, 1))).all(0)
        assert torch.allclose(source[:, inside], positions[0][:, inside], atol=2e-4)


def test_unknown_displacements_stay_unknown(crop: CropSettings) -> None:
    known = torch.ones(1, *STORED, dtype=torch.bool)
    known[0, 20:24, 30:34] = False
    one = Placement((0.8, 0.8), (16.0, 12.0))
    positions = stored_positions([one], (24, 32), (0, 0), CPU)
    seen, valid = view_displacements(torch.full((1, 2, *STORED), 7.0), known, positions, [one])
    x, y = positions[0].unbind(0)
    touched = (x > 29) & (x < 34) & (y > 19) & (y < 24)
    assert torch.equal(valid[0], ~touched)
    assert torch.allclose(seen[0][:, ~touched], torch.tensor(7 / 0.8))
    assert float(seen[0][:, touched].abs().max()) == 0


def test_context_is_the_same_view_wider_and_bounds_say_where_the_image_ends(crop: CropSettings) -> None:
    image = torch.rand(1, 3, *STORED, generator=torch.Generator().manual_seed(0))
    one = Placement((1.0, 1.0), (5.0, 20.0))
    wide = view_images(image, stored_positions([one], (24, 32), (8, 10), CPU))
    assert wide.shape == (1, 3, 40, 52)
    assert torch.equal(wide[..., 8:32, 10:42], image[..., 20:44, 5:37])
    # 5 columns are left of the crop, 27 right of it, of which the context has 10; 4 rows are below it.
    assert frame_bounds([one], STORED, (24, 32), (8, 10), CPU).tolist() == [[-5.0, -8.0, 41.0, 27.0]]
    mirrored = Placement((-1.0, 1.0), (36.0, 20.0))
    assert frame_bounds([mirrored], STORED, (24, 32), (8, 10), CPU).tolist() == [[-10.0, -8.0, 36.0, 27.0]]
