"""Masks by iterated normalised cut, on features whose right answer is known."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gestalt.baselines.normalized_cut import (
    CutProposer,
    cut_masks,
    object_side,
    patch_features,
    propose,
    refine,
)
from gestalt.config.frames import FrameSettings
from gestalt.config.pseudo_labels import NormalizedCutSettings
from gestalt.data.images import write_png
from gestalt.data.records import StereoFrame

SETTINGS = NormalizedCutSettings(
    image_size=0,
    patch_px=8,
    centre=False,
    tau=0.15,
    weak_edge=1e-5,
    max_masks=3,
    min_area_share=0.01,
    tolerance=1e-4,
    refine="none",
    refine_radius_px=12,
    refine_epsilon=1e-4,
    min_refined_iou=0.5,
)


def two_object_features(noise: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """(20, 30, 8) features of a ground with two rectangles, and their ids."""
    ids = np.zeros((20, 30), int)
    ids[5:13, 4:11] = 1
    ids[9:17, 18:27] = 2
    features = np.eye(8)[ids] + noise * np.random.default_rng(0).standard_normal((20, 30, 8))
    return features, ids


def red_green_blue(images: torch.Tensor) -> torch.Tensor:
    """Stand-in for dense features: colour at stride 2, and a constant that all share."""
    small = torch.nn.functional.avg_pool2d(images, 2)
    return torch.cat([small, torch.ones_like(small[:, :1])], dim=1)


def colour_image() -> np.ndarray:
    image = np.zeros((96, 160, 3), np.uint8)
    image[..., 2] = 200
    image[28:68, 35:85] = (250, 0, 0)
    return image


def test_both_objects_are_found_and_the_ground_is_not() -> None:
    features, ids = two_object_features()
    masks = cut_masks(features, replace(SETTINGS, max_masks=2), np.random.default_rng(0))
    found = {max(range(3), key=lambda i: (mask.patches & (ids == i)).sum()) for mask in masks}
    assert found == {1, 2}
    for mask in masks:
        best = max(((mask.patches & (ids == i)).sum() / (mask.patches | (ids == i)).sum()) for i in (1, 2))
        assert best > 0.9


def test_masks_are_disjoint_and_no_more_than_asked_for() -> None:
    features, _ = two_object_features(noise=0.6)
    for most in (1, 2, 3):
        masks = cut_masks(features, replace(SETTINGS, max_masks=most), np.random.default_rng(0))
        assert len(masks) <= most
        assert sum(mask.patches.astype(int) for mask in masks).max() <= 1


def test_a_mask_below_the_smallest_area_ends_the_search() -> None:
    features, _ = two_object_features()
    settings = replace(SETTINGS, min_area_share=0.5)
    assert cut_masks(features, settings, np.random.default_rng(0)) == []


def test_the_side_with_three_corners_is_background() -> None:
    vector = np.full((6, 8), 0.2)
    vector[2:4, 3:5] = -0.9
    vector[0, 0] = 1.0
    side = object_side(vector, np.ones_like(vector, bool))
    assert np.array_equal(side, vector < 0)


def test_only_the_part_that_is_connected_with_the_strongest_patch_is_kept() -> None:
    vector = np.full((6, 9), -0.1)
    vector[1:3, 1:3] = 0.5
    vector[1:3, 6:8] = 0.6
    side = object_side(vector, np.ones_like(vector, bool))
    assert np.array_equal(side, vector == 0.6)


def test_removed_patches_belong_to_no_side() -> None:
    free = np.ones((6, 8), bool)
    free[:, 4:] = False
    vector = np.where(free, -0.1, -np.inf)
    vector[2:4, 1:3] = 0.8
    side = object_side(vector, free)
    assert np.array_equal(side, vector == 0.8)


@pytest.mark.parametrize("refine_by", ["none", "guided"])
def test_an_image_of_a_red_block_gives_the_block(refine_by: str) -> None:
    image = colour_image()
    settings = replace(SETTINGS, refine=refine_by, max_masks=1, centre=True)
    proposals, masks = propose(image, red_green_blue, settings, np.random.default_rng(0))
    truth = image[..., 0] > 100
    iou = ((proposals == 1) & truth).sum() / ((proposals == 1) | truth).sum()
    assert proposals.dtype == np.uint16
    assert list(masks) == [1]
    assert iou > (0.98 if refine_by == "guided" else 0.7)


def test_a_refinement_that_changes_too_much_drops_the_mask() -> None:
    patches = np.zeros((12, 20), bool)
    patches[0:2, 0:2] = True
    settings = replace(SETTINGS, refine="guided", min_refined_iou=1.0)
    noisy = np.random.default_rng(0).integers(0, 255, (96, 160, 3)).astype(np.uint8)
    assert not refine(patches, noisy, settings).any()


def test_holes_are_filled() -> None:
    patches = np.zeros((12, 20), bool)
    patches[2:9, 3:12] = True
    patches[5, 6] = False
    assert refine(patches, colour_image(), SETTINGS)[5 * 8 + 4, 6 * 8 + 4]


def test_squashing_sets_the_grid_and_centring_removes_what_all_share() -> None:
    squashed = patch_features(colour_image(), red_green_blue, replace(SETTINGS, image_size=64))
    assert squashed.shape == (8, 8, 4)
    centred = patch_features(colour_image(), red_green_blue, replace(SETTINGS, centre=True))
    assert centred.shape == (12, 20, 4)
    assert np.allclose(centred.mean((0, 1)), 0, atol=1e-4)
    assert not centred[..., 3].any()


@dataclass(frozen=True)
class ColourProposer(CutProposer):
    """Proposer whose features need no trained weights."""

    @property
    def _extract(self):  # type: ignore[no-untyped-def, override]
        return red_green_blue


def test_a_frame_gives_the_form_of_motion_proposals(tmp_path: Path) -> None:
    write_png(tmp_path / "0.png", colour_image())
    path = tmp_path / "0.png"
    frame = StereoFrame("monday", "s", "f0", path, path, path, path, 96, 160, np.eye(3), 0.5, 0.1)
    frames = FrameSettings(
        scale=1.0, height=0, width=0, valid_top_share=0.0, valid_bottom_share=0.0, valid_side_share=0.0
    )
    settings = replace(SETTINGS, centre=True, max_masks=1)
    result = ColourProposer(Path("unused"), frames, settings, seed=0)(frame)
    assert result.status == "ok"
    record = result.records[0]
    mask = result.maps["proposals"] == record["instance"]
    rows, columns = np.nonzero(mask)
    assert record["area_px"] == mask.sum()
    assert (record["x0"], record["y0"]) == (columns.min(), rows.min())
    assert (record["x1"], record["y1"]) == (columns.max() + 1, rows.max() + 1)
    assert np.isnan(record["consistency"])
    again = ColourProposer(Path("unused"), frames, settings, seed=0)(frame)
    assert np.array_equal(result.maps["proposals"], again.maps["proposals"])


def test_an_image_without_contrast_is_empty_not_an_error(tmp_path: Path) -> None:
    write_png(tmp_path / "0.png", np.full((96, 160, 3), 90, np.uint8))
    path = tmp_path / "0.png"
    frame = StereoFrame("monday", "s", "f0", path, path, path, path, 96, 160, np.eye(3), 0.5, 0.1)
    frames = FrameSettings(
        scale=1.0, height=0, width=0, valid_top_share=0.0, valid_bottom_share=0.0, valid_side_share=0.0
    )
    result = ColourProposer(Path("unused"), frames, replace(SETTINGS, centre=True), seed=0)(frame)
    assert result.maps["proposals"].shape == (96, 160)
    assert (result.status == "empty") == (not result.records)
