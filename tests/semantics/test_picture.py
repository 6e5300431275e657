"""Pseudo-classes for the eye."""

import numpy as np
import pytest
import torch

from gestalt.errors import ShapeError
from gestalt.panoptic import VOID
from gestalt.semantics.picture import (
    KINDS,
    LARGEST,
    THUMBNAIL_SIZE,
    TYPICAL,
    UNCERTAIN,
    ClusterGallery,
    class_colours,
    colour_classes,
    draw_segment,
    most_probable,
    split_into_segments,
)

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)


def test_colours_depend_on_the_number_alone_and_differ() -> None:
    few, many = class_colours(5), class_colours(40)
    assert (few[:5] == many[:5]).all()
    assert (few[5:] == 0).all()
    distances = np.abs(many[:27, None].astype(int) - many[None, :27]).sum(-1)
    assert distances[~np.eye(27, dtype=bool)].min() > 30


def test_a_map_lies_over_the_grey_image_and_void_shows_it() -> None:
    semantic_map = np.full((60, 90), 3, np.uint8)
    semantic_map[:10] = VOID
    shown = colour_classes(IMAGE, semantic_map, class_colours(5))
    assert (np.ptp(shown[:10], axis=2) == 0).all()
    expected = 0.7 * class_colours(5)[3]
    assert (shown[10:] >= expected - 1).all()
    assert (shown[10:] <= expected + 0.3 * 255 + 1).all()
    with pytest.raises(ShapeError, match=r"one size. Got: \(60, 90\) and \(30, 90\)"):
        colour_classes(IMAGE[:30], semantic_map, class_colours(5))


def test_the_most_probable_pseudo_class_and_its_probability() -> None:
    prob = torch.tensor([[[0.2, 0.7]], [[0.5, 0.2]], [[0.3, 0.1]]])
    semantic_map, confidence = most_probable(prob.log())
    assert semantic_map.tolist() == [[1, 0]]
    np.testing.assert_allclose(confidence, [[0.5, 0.7]], rtol=1e-6)


def test_segments_are_connected_also_diagonally() -> None:
    semantic_map = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]], np.uint8)
    regions, found = split_into_segments(semantic_map, 1)
    assert found == 2
    assert len(np.unique(regions[semantic_map == 1])) == 2
    assert (regions[semantic_map == 0] == 0).all()


def square(rows: slice, columns: slice, number: int = 2) -> np.ndarray:
    semantic_map = np.zeros((60, 90), np.uint8)
    semantic_map[rows, columns] = number
    return semantic_map


def test_the_gallery_counts_shares_rows_and_confidence() -> None:
    gallery = ClusterGallery(4, 2)
    confidence = np.full((60, 90), 0.25, np.float32)
    semantic_map = square(slice(0, 30), slice(None))
    confidence[:30] = 0.75
    gallery.add("a", IMAGE, semantic_map, confidence)
    entry = gallery.classes[2]
    assert entry.n_px / gallery.n_px == 0.5
    assert entry.mean_row == pytest.approx(0.25)
    assert entry.confidence == pytest.approx(0.75)
    assert gallery.classes[0].confidence == pytest.approx(0.25)
    assert np.isnan(gallery.classes[3].mean_row)
    assert [entry.n_segments for entry in gallery.classes] == [1, 0, 1, 0]


def test_the_gallery_keeps_the_best_of_each_kind_one_per_frame() -> None:
    gallery = ClusterGallery(3, 2)
    for frame_id, side, sure in (("a", 10, 0.5), ("b", 20, 0.9), ("c", 30, 0.2), ("d", 5, 0.7)):
        semantic_map = square(slice(0, side), slice(0, side))
        # A second segment of the frame is as large and as sure as the first.
        semantic_map[-side:, -side:] = 2
        gallery.add(frame_id, IMAGE, semantic_map, np.full((60, 90), sure, np.float32))
    examples = gallery.classes[2].examples
    assert [one.frame_id for one in examples[TYPICAL]] == ["b", "d"]
    assert [one.frame_id for one in examples[LARGEST]] == ["c", "b"]
    assert [one.frame_id for one in examples[UNCERTAIN]] == ["c", "a"]
    assert examples[LARGEST][0].area_px == 900
    assert examples[TYPICAL][0].confidence == pytest.approx(0.9)


def test_specks_are_no_examples() -> None:
    gallery = ClusterGallery(3, 2)
    gallery.add("a", IMAGE, square(slice(0, 2), slice(0, 2)), np.ones((60, 90), np.float32))
    assert all(not gallery.classes[2].examples[kind] for kind in KINDS)
    assert gallery.classes[2].n_px == 4


def test_void_belongs_to_no_pseudo_class() -> None:
    gallery = ClusterGallery(3, 1)
    gallery.add("a", IMAGE, np.full((60, 90), VOID, np.uint8), np.ones((60, 90), np.float32))
    assert gallery.n_px == 0


def test_maps_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match="must have one size"):
        ClusterGallery(3, 1).add("a", IMAGE[:30], square(slice(9), slice(9)), np.ones((60, 90), np.float32))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(0, 60), slice(0, 90)),
        (slice(0, 4), slice(0, 3)),
        (slice(50, 60), slice(0, 90)),
        (slice(0, 60), slice(80, 82)),
    ],
)
def test_a_thumbnail_shows_the_segment_bright_and_the_rest_dark(rows: slice, columns: slice) -> None:
    image, mask = np.full((60, 90, 3), (200, 150, 100), np.uint8), np.zeros((60, 90), bool)
    mask[rows, columns] = True
    thumbnail = draw_segment(image, mask, class_colours(9)[5])
    assert thumbnail.shape == (*THUMBNAIL_SIZE, 3)
    inside = (thumbnail == (200, 150, 100)).all(-1)
    dark = (np.ptp(thumbnail, axis=2) == 0) & (thumbnail[..., 0] < 110)
    assert inside.any()
    assert dark.any() or mask.all()
    # Only the outline is neither.
    assert (inside | dark).mean() > 0.7


def test_a_thumbnail_of_an_image_smaller_than_itself_is_complete() -> None:
    mask = np.zeros((3, 5), bool)
    mask[1, 2] = True
    assert draw_segment(np.zeros((3, 5, 3), np.uint8), mask, class_colours(1)[0]).shape == (
        *THUMBNAIL_SIZE,
        3,
    )
