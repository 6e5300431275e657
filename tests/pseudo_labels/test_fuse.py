"""Fusion: one pseudo-class per instance, additive statistics, nothing special about any id."""

import numpy as np
import pytest

from gestalt.errors import DataError, ShapeError
from gestalt.panoptic import VOID, PanopticMap
from gestalt.pseudo_labels.fuse import Statistics, clear_border, count_frame, fuse, number_instances, vote

P = 9


def random_frame(seed: int, size: tuple[int, int] = (24, 40)) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    semantic_map = generator.integers(0, P, size).astype(np.uint8)
    semantic_map[generator.random(size) < 0.1] = VOID
    blocks = generator.integers(0, 7, (size[0] // 4, size[1] // 4)) * 9001
    return semantic_map, np.kron(blocks, np.ones((4, 4))).astype(np.uint16)


def majority_by_loop(semantic_map: np.ndarray, instance_map: np.ndarray) -> np.ndarray:
    """Plain reference: per instance, the most frequent class; ties by first pixel in reading order."""
    result = semantic_map.copy()
    for instance in np.unique(instance_map[instance_map > 0]):
        inside = instance_map == instance
        votes = [int(value) for value in semantic_map[inside] if value != VOID]
        if votes:
            result[inside] = max(dict.fromkeys(votes), key=votes.count)
    return result


@pytest.mark.parametrize("seed", range(8))
def test_fusion_equals_a_loop_over_instances(seed: int) -> None:
    semantic_map, proposals = random_frame(seed)
    fused = fuse(semantic_map, proposals)
    assert np.array_equal(fused.panoptic.semantic_map, majority_by_loop(semantic_map, proposals))


def test_every_instance_has_exactly_one_pseudo_class() -> None:
    fused = fuse(*random_frame(3))
    for instance, pseudo_class in enumerate(fused.pseudo_classes, start=1):
        inside = fused.panoptic.instance_map == instance
        assert set(fused.panoptic.semantic_map[inside].tolist()) == {int(pseudo_class)}


def test_an_instance_of_one_class_and_the_ground_outside_stay_unchanged() -> None:
    semantic_map = np.full((6, 8), 4, np.uint8)
    semantic_map[2:4, 2:5] = 7
    proposals = np.where(semantic_map == 7, 3, 0).astype(np.uint16)
    assert np.array_equal(fuse(semantic_map, proposals).panoptic.semantic_map, semantic_map)


def test_pseudo_class_zero_wins_votes_like_any_other() -> None:
    semantic_map = np.array([[0, 0, 5, 1]], np.uint8)
    fused = fuse(semantic_map, np.array([[1, 1, 1, 0]], np.uint16))
    assert fused.panoptic.semantic_map.tolist() == [[0, 0, 0, 1]]
    statistics = count_frame(fused.panoptic, 6)
    assert statistics.pixels_in_instances.tolist() == [3, 0, 0, 0, 0, 0]
    assert statistics.instances.tolist() == [1, 0, 0, 0, 0, 0]


def test_ids_up_to_65535_survive() -> None:
    proposals = np.arange(65536, dtype=np.uint32).reshape(256, 256).astype(np.uint16)
    fused = fuse((proposals % P).astype(np.uint8), proposals)
    assert fused.panoptic.instance_map.max() == 65535
    assert fused.proposals.tolist() == list(range(1, 65536))
    assert np.array_equal(fused.pseudo_classes, fused.proposals % P)


@pytest.mark.parametrize("seed", range(5))
def test_renaming_pseudo_classes_renames_the_result(seed: int) -> None:
    semantic_map, proposals = random_frame(seed)
    renamed = np.append(np.random.default_rng(seed).permutation(P), np.full(256 - P, VOID)).astype(np.uint8)
    plain, permuted = fuse(semantic_map, proposals), fuse(renamed[semantic_map], proposals)
    assert np.array_equal(renamed[plain.panoptic.semantic_map], permuted.panoptic.semantic_map)
    assert np.array_equal(plain.panoptic.instance_map, permuted.panoptic.instance_map)
    counts, counts_permuted = count_frame(plain.panoptic, P), count_frame(permuted.panoptic, P)
    for name in ("pixels", "pixels_in_instances", "instances"):
        assert np.array_equal(getattr(counts, name), getattr(counts_permuted, name)[renamed[:P]])


def test_an_instance_without_any_known_pixel_is_dropped_and_the_others_are_numbered_again() -> None:
    semantic_map = np.array([[VOID, VOID, 2, 2, 1]], np.uint8)
    fused = fuse(semantic_map, np.array([[4, 4, 9, 9, 0]], np.uint16))
    assert fused.panoptic.instance_map.tolist() == [[0, 0, 1, 1, 0]]
    assert fused.panoptic.semantic_map.tolist() == [[VOID, VOID, 2, 2, 1]]
    assert fused.proposals.tolist() == [9]


def test_the_border_cuts_proposals_and_small_remains_go() -> None:
    proposals = np.zeros((4, 20), np.uint16)
    proposals[:, :5] = 1
    proposals[:, 8:12] = 2
    fused = fuse(np.ones((4, 20), np.uint8), proposals, border_px=4, min_area_px=5)
    assert fused.proposals.tolist() == [2]
    assert not fused.panoptic.instance_map[:, :4].any()
    assert not fused.panoptic.instance_map[:, 16:].any()
    assert fused.panoptic.semantic_map.min() == 1


def test_a_border_of_zero_or_of_more_than_the_image_is_taken_literally() -> None:
    instance_map = np.ones((3, 4), np.uint16)
    assert np.array_equal(clear_border(instance_map, 0), instance_map)
    assert not clear_border(instance_map, 9).any()
    assert instance_map.all()


def test_numbers_have_no_gaps_and_name_their_origin() -> None:
    numbered, kept = number_instances(np.array([[0, 7, 7, 65535, 300, 300]], np.uint16), 2)
    assert numbered.tolist() == [[0, 1, 1, 0, 2, 2]]
    assert kept.tolist() == [7, 300]


def test_no_instance_at_all_is_no_special_case() -> None:
    semantic_map = np.full((3, 3), 2, np.uint8)
    fused = fuse(semantic_map, np.zeros((3, 3), np.uint16))
    assert np.array_equal(fused.panoptic.semantic_map, semantic_map)
    assert len(fused.proposals) == len(fused.pseudo_classes) == 0
    assert vote(fused.panoptic, 0).tolist() == []


@pytest.mark.parametrize("seed", range(3))
def test_statistics_are_additive_over_parts_of_an_image(seed: int) -> None:
    frames = [fuse(*random_frame(seed + 10 * part)).panoptic for part in range(3)]
    summed = sum((count_frame(frame, P) for frame in frames[1:]), start=count_frame(frames[0], P))
    assert summed.n_frames == 3
    for pseudo_class in range(P):
        maps = [frame.semantic_map == pseudo_class for frame in frames]
        in_instances = [found & (frame.instance_map > 0) for found, frame in zip(maps, frames)]
        assert summed.pixels[pseudo_class] == sum(found.sum() for found in maps)
        assert summed.pixels_in_instances[pseudo_class] == sum(found.sum() for found in in_instances)
        instances = [set(frame.instance_map[found]) for found, frame in zip(in_instances, frames)]
        assert summed.instances[pseudo_class] == sum(len(ids) for ids in instances)


def test_statistics_survive_json_and_name_a_missing_count() -> None:
    statistics = count_frame(fuse(*random_frame(1)).panoptic, P)
    content = statistics.to_json()
    assert Statistics.from_json(content).to_json() == content
    del content["instances"]
    with pytest.raises(DataError, match=r"'instances'.*dvc repro pseudo_labels"):
        Statistics.from_json(content)


def test_statistics_of_different_probes_do_not_add() -> None:
    one, other = (
        count_frame(PanopticMap(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint16)), n) for n in (3, 4)
    )
    with pytest.raises(DataError, match="Got: 3 and 4"):
        _ = one + other


def test_a_pseudo_class_beyond_the_last_is_refused() -> None:
    with pytest.raises(DataError, match=r"must be 0..2 or 255.*Got: 3"):
        count_frame(PanopticMap(np.full((2, 2), 3, np.uint8), np.zeros((2, 2), np.uint16)), 3)


def test_maps_of_different_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match="one size"):
        fuse(np.zeros((3, 4), np.uint8), np.zeros((4, 3), np.uint16))
