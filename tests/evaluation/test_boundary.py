from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.evaluation.boundary import (
    COLUMNS,
    BoundaryStatistics,
    border_levels,
    boundary_counts,
    boundary_distance,
    boundary_statistics,
    class_boundary_counts,
    merge_boundaries,
    relabel_map,
)
from gestalt.evaluation.intersections import (
    IntersectionTable,
    intersect,
    relabel_predictions,
    void_small_objects,
    void_small_stuff,
)
from gestalt.evaluation.panoptic_quality import BDD100K, CONVENTIONS, STANDARD, VOID_NEUTRAL, panoptic_counts
from gestalt.panoptic import VOID, PanopticMap, rgb_to_ids
from tests.evaluation.maps import SHARED, needs_samples, panoptic, random_map, shifted

THINGS = (3, 4)
N_CLASSES = 5


def region(mask: np.ndarray, distance_px: int) -> np.ndarray:
    """The boundary region by its definition: some pixel within the distance is not in the mask."""
    height, width = mask.shape
    padded = np.pad(mask, distance_px)
    inside = np.ones_like(mask)
    for down in range(2 * distance_px + 1):
        for right in range(2 * distance_px + 1):
            inside &= padded[down : down + height, right : right + width]
    return mask & ~inside


def masks_of(image: PanopticMap) -> dict[tuple[int, int], np.ndarray]:
    pairs = {
        (int(c), int(i))
        for c, i in zip(image.semantic_map.ravel(), image.instance_map.ravel(), strict=True)
        if c != VOID
    }
    return {(c, i): (image.semantic_map == c) & (image.instance_map == i) for c, i in sorted(pairs)}


def slow_boundary_pq(
    pairs: Sequence[tuple[PanopticMap, PanopticMap]], distance_px: int, convention: str, *, crowds: bool
) -> list[list[float]]:
    """TP, FP, FN and sum of IoU per class, from masks; Boundary IoU by ``region``."""
    total: list[list[float]] = [[0, 0, 0, 0.0] for _ in range(N_CLASSES)]
    for prediction, truth in pairs:
        ours, theirs = masks_of(prediction), masks_of(truth)
        true_void = (truth.semantic_map == VOID) & (convention != BDD100K)
        predicted_void = (prediction.semantic_map == VOID) & (convention == VOID_NEUTRAL)
        hit: set[Any] = set()
        for (c, i), mask in ours.items():
            for (k, j), other in theirs.items():
                if c != k or (crowds and k in THINGS and j == 0):
                    continue
                ious = []
                for a, b in ((mask, other), (region(mask, distance_px), region(other, distance_px))):
                    shared = (a & b).sum()
                    union = (a & ~true_void).sum() + (b & ~predicted_void).sum() - shared
                    ious.append(shared / union if union else 0.0)
                if min(ious) > 0.5:
                    total[c][0] += 1
                    total[c][3] += min(ious)
                    hit |= {("ours", c, i), ("theirs", k, j)}
        for (c, i), mask in ours.items():
            forgiven = truth.semantic_map == VOID
            if crowds and c in THINGS and (c, 0) in theirs:
                forgiven = forgiven | theirs[c, 0]
            total[c][1] += ("ours", c, i) not in hit and (mask & forgiven).sum() <= 0.5 * mask.sum()
        for (k, j), other in theirs.items():
            if not (crowds and k in THINGS and j == 0):
                missed = (other & predicted_void).sum() <= 0.5 * other.sum()
                total[k][2] += ("theirs", k, j) not in hit and missed
    return total


def pairs_of(seed: int, n_images: int = 4) -> list[tuple[PanopticMap, PanopticMap]]:
    generator = np.random.default_rng(seed)
    truths = [random_map(generator, size=(40, 56)) for _ in range(n_images)]
    return [(shifted(truth, generator), truth) for truth in truths]


def of_pairs(pairs: Sequence[tuple[PanopticMap, PanopticMap]], share: float = 0.02) -> BoundaryStatistics:
    return merge_boundaries(
        boundary_statistics(prediction, truth, dilation_share=share, image_id=str(index))
        for index, (prediction, truth) in enumerate(pairs)
    )


def square(top: int, left: int, side: int, size: tuple[int, int] = (30, 40)) -> PanopticMap:
    """A thing of class 1 before stuff of class 0."""
    semantic, instance = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
    semantic[top : top + side, left : left + side] = 1
    instance[top : top + side, left : left + side] = 7
    return PanopticMap(semantic, instance)


def test_the_width_is_a_share_of_the_diagonal_and_at_least_a_pixel() -> None:
    assert boundary_distance((1024, 2048)) == 46  # 0.02 * 2289.7 = 45.8
    assert boundary_distance((10, 10)) == 1
    assert boundary_distance((30, 40), 0.1) == 5
    with pytest.raises(ConfigError, match=r"dilation_share must be above 0 .* Got: 0"):
        boundary_distance((30, 40), 0)


def test_a_square_that_moves_by_one_pixel() -> None:
    # One pixel wide, the ring of a 10x10 square has 36 pixels. Of the ring moved by a column, nine pixels of the upper
    # and nine of the lower side coincide with it, and none of the left and right ones.
    statistics = boundary_statistics(square(5, 6, 10), square(5, 5, 10))
    table = statistics.table
    row = int(np.flatnonzero((table.predicted_class == 1) & (table.true_class == 1))[0])
    assert table.n_pixels[row] == 90
    assert statistics.in_both[row] == 18
    assert statistics.boundary_iou()[row] == 18 / (36 + 36 - 18)
    counts = boundary_counts(statistics, 2)
    # IoU is 90 / 110, but its boundary is no match; the stuff around keeps most of its boundary.
    assert (counts.true_positives[0, 1], counts.false_positives[0, 1], counts.false_negatives[0, 1]) == (
        0,
        1,
        1,
    )
    assert counts.true_positives[0, 0] == 1


def test_two_rings_of_one_outline_but_other_holes() -> None:
    def ring(hole: int) -> PanopticMap:
        image = square(2, 2, 21)
        start = 2 + (21 - hole) // 2
        image.semantic_map[start : start + hole, start : start + hole] = 0
        image.instance_map[start : start + hole, start : start + hole] = 0
        return image

    statistics = boundary_statistics(ring(5), ring(7))
    table = statistics.table
    row = int(np.flatnonzero((table.predicted_class == 1) & (table.true_class == 1))[0])
    # Outer ring 80 px; around holes of 5 and 7 lie rings of 24 and 32 px, corners too, and they share nothing.
    assert table.n_pixels[row] == 441 - 49
    assert statistics.boundary_iou()[row] == 80 / (80 + 24 + 80 + 32 - 80)


def test_pixels_at_the_border_of_the_image_are_boundary() -> None:
    levels = border_levels(panoptic(np.zeros((6, 7))), 2)
    assert (levels == 0).sum() == 2 * 3
    assert (levels[2:4, 2:5] == 0).all()


def test_borders_between_instances_are_none_of_the_class() -> None:
    image = panoptic(np.ones((9, 12)), np.repeat([[1] * 6 + [2] * 6], 9, axis=0))
    levels = border_levels(image, 2)
    assert (levels[2:-2, 4:8] == 1).all()
    assert (levels[:2] == 2).all()
    assert (levels[2:-2, 2:4] == 0).all()


@pytest.mark.parametrize("distance_px", [1, 2, 5])
def test_regions_of_all_segments_are_those_of_the_definition(distance_px: int) -> None:
    generator = np.random.default_rng(3)
    for _ in range(10):
        image = random_map(generator, size=(31, 43))
        levels = border_levels(image, distance_px)
        for (class_id, _), mask in masks_of(image).items():
            assert np.array_equal(mask & (levels > 0), region(mask, distance_px))
            whole = image.semantic_map == class_id
            assert np.array_equal(whole & (levels == 2), region(whole, distance_px))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("crowds", [False, True])
def test_boundary_quality_agrees_with_masks_in_every_convention(convention: str, crowds: bool) -> None:
    pairs = pairs_of(11)
    statistics = of_pairs(pairs, 0.03)
    if crowds:
        statistics = statistics.with_groups_as_crowd(THINGS)
    total = boundary_counts(statistics, N_CLASSES, convention).total()
    expected = np.array(slow_boundary_pq(pairs, boundary_distance((40, 56), 0.03), convention, crowds=crowds))
    assert expected[:, 0].sum() >= 3
    assert np.array_equal(total.true_positives, expected[:, 0])
    assert np.array_equal(total.false_positives, expected[:, 1])
    assert np.array_equal(total.false_negatives, expected[:, 2])
    assert np.allclose(total.iou_sum, expected[:, 3], rtol=1e-12)


def test_class_maps_agree_with_masks() -> None:
    pairs = pairs_of(12)
    counts = class_boundary_counts(of_pairs(pairs, 0.03), N_CLASSES)
    for index, (prediction, truth) in enumerate(pairs):
        for class_id in range(N_CLASSES):
            ours, theirs = (region(side.semantic_map == class_id, 2) for side in (prediction, truth))
            ours = ours & (truth.semantic_map != VOID)
            assert counts.right[index, class_id] == (ours & theirs).sum()
            assert counts.predicted[index, class_id] == ours.sum()
            assert counts.true[index, class_id] == theirs.sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_perfect_prediction_has_a_hundred(seed: int) -> None:
    truth = random_map(np.random.default_rng(seed), void_share=0.0)
    statistics = boundary_statistics(truth, truth)
    assert boundary_counts(statistics, N_CLASSES).total().mean(range(N_CLASSES))["PQ"] == 100
    assert class_boundary_counts(statistics, N_CLASSES).total().mean_iou == pytest.approx(100)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(CONVENTIONS))
def test_boundaries_never_raise_the_quality_and_areas_are_those_of_the_plain_table(
    seed: int, convention: str
) -> None:
    ((prediction, truth),) = pairs_of(seed, 1)
    statistics = boundary_statistics(prediction, truth, image_id="a")
    plain = intersect("a", prediction, truth)
    for name in (
        "image",
        "true_class",
        "true_instance",
        "predicted_class",
        "predicted_instance",
        "n_pixels",
        "is_crowd",
    ):
        assert np.array_equal(getattr(statistics.table, name), getattr(plain, name)), name
    ours = boundary_counts(statistics, N_CLASSES, convention).total()
    whole = panoptic_counts(plain, N_CLASSES, convention).total()
    assert (ours.true_positives <= whole.true_positives).all()
    assert (ours.iou_sum <= whole.iou_sum).all()


def test_with_wide_regions_boundary_quality_is_panoptic_quality() -> None:
    for prediction, truth in pairs_of(5):
        ours = boundary_counts(boundary_statistics(prediction, truth, dilation_share=1.0), N_CLASSES)
        whole = panoptic_counts(intersect("image", prediction, truth), N_CLASSES, STANDARD)
        assert np.array_equal(ours.true_positives, whole.true_positives)
        assert np.allclose(ours.iou_sum, whole.iou_sum)


def test_statistics_merge_in_any_order_to_the_same_numbers() -> None:
    pairs = pairs_of(8, 5)
    parts = [boundary_statistics(*pair, image_id=f"image {index}") for index, pair in enumerate(pairs)]
    whole = merge_boundaries(parts)
    in_parts = merge_boundaries([merge_boundaries(parts[3:]), parts[0], merge_boundaries(parts[2:0:-1])])
    assert whole.table.image_ids == in_parts.table.image_ids
    for name in COLUMNS:
        assert np.array_equal(getattr(whole, name), getattr(in_parts, name))
    assert np.array_equal(whole.table.n_pixels, in_parts.table.n_pixels)
    with pytest.raises(DataError, match=r"1 images occur twice and would count twice: image 0"):
        merge_boundaries([parts[0], parts[0]])
    with pytest.raises(DataError, match="there is no image to measure boundaries in"):
        merge_boundaries([])


def test_the_names_of_instances_do_not_matter() -> None:
    ((prediction, truth),) = pairs_of(21, 1)
    names = np.random.default_rng(0).permutation(np.arange(1, 60000)).astype(np.uint16)
    other = PanopticMap(
        prediction.semantic_map,
        np.where(prediction.instance_map > 0, names[prediction.instance_map], 0).astype(np.uint16),
    )
    first, second = (
        boundary_counts(boundary_statistics(side, truth), N_CLASSES).total() for side in (prediction, other)
    )
    assert np.array_equal(first.true_positives, second.true_positives)
    assert np.allclose(first.iou_sum, second.iou_sum)


def test_images_without_a_prediction_are_missed() -> None:
    truth = square(5, 5, 10)
    counts = boundary_counts(boundary_statistics(None, truth), 2, VOID_NEUTRAL)
    assert counts.false_negatives.tolist() == [[1, 1]]
    assert class_boundary_counts(boundary_statistics(None, truth), 2).total().mean_iou == 0


def test_small_objects_become_void_as_in_plain_tables() -> None:
    pairs = pairs_of(14)
    statistics = of_pairs(pairs).with_small_objects_void(THINGS, 60)
    voided = []
    for index, (prediction, truth) in enumerate(pairs):
        plain = void_small_objects(intersect(str(index), prediction, truth), THINGS, 60)
        small = {
            int(instance)
            for instance in np.unique(truth.instance_map[np.isin(truth.semantic_map, THINGS)])
            if instance and not ((plain.true_instance == instance) & np.isin(plain.true_class, THINGS)).any()
        }
        semantic = truth.semantic_map.copy()
        semantic[np.isin(truth.instance_map, list(small)) & np.isin(truth.semantic_map, THINGS)] = VOID
        voided.append((prediction, PanopticMap(semantic, truth.instance_map)))
    expected = of_pairs(voided)
    for convention in CONVENTIONS:
        ours, theirs = (
            boundary_counts(part, N_CLASSES, convention).total() for part in (statistics, expected)
        )
        assert np.array_equal(ours.true_positives, theirs.true_positives)
        assert np.array_equal(ours.false_positives, theirs.false_positives)
        assert np.allclose(ours.iou_sum, theirs.iou_sum)


@pytest.mark.parametrize("min_stuff_px", [0, 60])
def test_maps_of_pseudo_classes_become_the_segments_that_tables_become(min_stuff_px: int) -> None:
    generator = np.random.default_rng(4)
    class_of = [2, 2, VOID, 3, 4, 3]
    truth = random_map(generator)
    prediction = random_map(generator, n_classes=6, things=(3, 4, 5))
    stuff = (0, 1, 2)
    mapped = relabel_map(prediction, class_of, THINGS, stuff=stuff, min_stuff_px=min_stuff_px)
    by_map = intersect("a", mapped, truth)
    plain = void_small_stuff(intersect("a", prediction, truth), stuff, min_stuff_px)
    by_table = relabel_predictions(plain, class_of, THINGS)

    def rows(table: IntersectionTable) -> list[tuple[int, ...]]:
        columns = (table.true_class, table.true_instance, table.predicted_class, table.n_pixels)
        return sorted(zip(*(column.tolist() for column in columns), strict=True))

    assert rows(by_map) == rows(by_table)
    assert panoptic_counts(by_map, 5).total().iou_sum == pytest.approx(
        panoptic_counts(by_table, 5).total().iou_sum
    )
    with pytest.raises(DataError, match=r"pseudo-classes must be 0..1, or 255 for void. Got: \[2, 3"):
        relabel_map(prediction, [0, 1], THINGS)


def test_as_many_objects_as_16_bits_can_number_are_kept_and_one_more_is_refused() -> None:
    instance = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    semantic = np.where(instance > 0, 3, 0).astype(np.uint8)
    mapped = relabel_map(PanopticMap(semantic, instance), [0, 1, 2, 3, 4], THINGS)
    assert (mapped.instance_map == instance).all()
    semantic[0, 0] = 3
    with pytest.raises(DataError, match=r"can have 65535 segments of things\. Got: 65536"):
        relabel_map(PanopticMap(semantic, instance), [0, 1, 2, 3, 4], THINGS)


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"picture: .* Got: prediction \(4, 5\), ground truth \(5, 5\)"):
        boundary_statistics(panoptic(np.zeros((4, 5))), panoptic(np.zeros((5, 5))), image_id="picture")


def read_coco(listing: Path, folder: Path, order: dict[int, int]) -> dict[str, PanopticMap]:
    """Every listed segment as a segment of its own; crowds have no instance."""
    maps = {}
    for entry in json.loads(listing.read_text(encoding="utf-8"))["annotations"]:
        blue_first = cv2.imread(str(folder / entry["file_name"]))
        ids = rgb_to_ids(blue_first[..., ::-1])
        semantic, instance = np.full(ids.shape, VOID, np.uint8), np.zeros(ids.shape, np.uint16)
        for number, segment in enumerate(entry["segments_info"], start=1):
            inside = ids == segment["id"]
            semantic[inside] = order[segment["category_id"]]
            instance[inside] = 0 if segment.get("iscrowd") else number
        maps[str(entry["image_id"])] = PanopticMap(semantic, instance)
    return maps


@needs_samples
@pytest.mark.parametrize(
    ("truth", "truth_folder", "prediction", "expected"),
    [
        (
            "cityscapes_results/panoptic/gt_train_two_frames.json",
            "cityscapes/gtFine/cityscapes_panoptic_train",
            "cityscapes_results/panoptic/pred_train_two_frames",
            (39.625239966302146, 49.92115690121091, 52.65512265512265),
        ),
        (
            "coco_panoptic_sample/panoptic_examples.json",
            "coco_panoptic_sample/panoptic_examples",
            "coco_panoptic_results/pred",
            (28.13540785806224, 33.962876146063735, 45.67375886524822),
        ),
    ],
)
def test_real_samples_have_the_numbers_of_the_authors_evaluation(
    truth: str, truth_folder: str, prediction: str, expected: tuple[float, float, float]
) -> None:
    categories = json.loads((SHARED / truth).read_text(encoding="utf-8"))["categories"]
    order = {category: index for index, category in enumerate(sorted(entry["id"] for entry in categories))}
    true_maps = read_coco(SHARED / truth, SHARED / truth_folder, order)
    maps = read_coco(SHARED / f"{prediction}.json", SHARED / prediction, order)
    statistics = merge_boundaries(
        boundary_statistics(maps[name], true_map, image_id=name) for name, true_map in true_maps.items()
    ).with_groups_as_crowd(range(len(order)))
    found = boundary_counts(statistics, len(order)).total().mean(range(len(order)))
    assert (found["PQ"], found["SQ"], found["RQ"]) == pytest.approx(expected, abs=1e-9)


def test_ignored_classes_count_neither_as_prediction_nor_as_ground() -> None:
    pairs = pairs_of(16)
    without = class_boundary_counts(of_pairs(pairs), N_CLASSES, ignored=[1])
    voided = [
        (
            prediction,
            PanopticMap(np.where(truth.semantic_map == 1, VOID, truth.semantic_map), truth.instance_map),
        )
        for prediction, truth in pairs
    ]
    # As if the class were void in the truth; predictions of it elsewhere are wrong there, and no class of their own.
    expected = class_boundary_counts(of_pairs(voided), N_CLASSES)
    kept = [0, 2, 3, 4]
    assert not without.true[:, 1].any()
    assert not without.predicted[:, 1].any()
    for field in ("right", "predicted", "true"):
        assert np.array_equal(getattr(without, field)[:, kept], getattr(expected, field)[:, kept])
    assert without.total().mean_iou != class_boundary_counts(of_pairs(pairs), N_CLASSES).total().mean_iou
