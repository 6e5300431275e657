from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gestalt.network.merge import merge_panoptic
from gestalt.network.records import Detections, Prediction
from gestalt.panoptic import VOID

LIMITS = {"score_threshold": 0.5, "overlap_share": 0.5, "min_stuff_share": 0.05}
N_STUFF = 2


def prediction(
    boxes: list[list[float]], scores: list[float], classes: list[int], semantic: np.ndarray
) -> Prediction:
    """Detections that fill their boxes over a certain semantic map (0 thing, 1..S stuff)."""
    probs = (
        torch.nn.functional.one_hot(torch.from_numpy(semantic).long(), N_STUFF + 1).permute(2, 0, 1).float()
    )
    found = Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores),
        torch.tensor(classes, dtype=torch.int64),
        torch.ones(len(boxes), 28, 28),
    )
    return Prediction(found, probs)


def test_the_better_instance_wins_the_overlap() -> None:
    ground = np.ones((20, 20), np.uint8)
    both = prediction([[0, 0, 10, 10], [6, 0, 16, 10]], [0.6, 0.9], [0, 1], ground)
    panoptic, segments = merge_panoptic(both, **LIMITS)
    assert (panoptic.semantic_map[1:9, 7:15] == N_STUFF + 1).all()
    assert (panoptic.semantic_map[1:9, 1:5] == N_STUFF).all()
    assert [entry.instance for entry in segments] == [1, 2, 0]
    assert segments[0].score > segments[1].score


def test_an_instance_covered_by_more_than_half_is_left_out() -> None:
    ground = np.ones((20, 20), np.uint8)
    covered = prediction([[0, 0, 12, 12], [0, 0, 12, 10]], [0.9, 0.8], [0, 0], ground)
    panoptic, _ = merge_panoptic(covered, **LIMITS)
    assert panoptic.instance_map.max() == 1
    beside = prediction([[0, 0, 12, 12], [8, 0, 20, 12]], [0.9, 0.8], [0, 0], ground)
    assert merge_panoptic(beside, **LIMITS)[0].instance_map.max() == 2


def test_detections_below_the_threshold_are_left_out() -> None:
    weak = prediction([[0, 0, 10, 10]], [0.49], [0], np.ones((20, 20), np.uint8))
    assert merge_panoptic(weak, **LIMITS)[0].instance_map.max() == 0


def test_thing_pixels_without_an_instance_are_void() -> None:
    semantic = np.ones((20, 20), np.uint8)
    semantic[:5] = 0
    panoptic, _ = merge_panoptic(prediction([], [], [], semantic), **LIMITS)
    assert (panoptic.semantic_map[:5] == VOID).all()
    assert (panoptic.semantic_map[5:] == 0).all()


def test_the_stuff_limit_is_a_share_of_the_image() -> None:
    for height in (20, 40):
        semantic = np.ones((height, height), np.uint8)
        semantic[: height // 20] = 2  # 5 % of the rows: just enough
        panoptic, _ = merge_panoptic(prediction([], [], [], semantic), **LIMITS)
        assert (panoptic.semantic_map == 1).sum() == height * height // 20
        semantic[0, 0] = 1  # one pixel less
        panoptic, _ = merge_panoptic(prediction([], [], [], semantic), **LIMITS)
        assert not (panoptic.semantic_map == 1).any()


@given(st.integers(0, 2**32 - 1))
def test_every_pixel_belongs_to_one_segment_or_is_void(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n = int(generator.integers(0, 8))
    corners = generator.uniform(-5, 30, (n, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(1, 20, (n, 2))], 1)
    semantic = generator.integers(0, N_STUFF + 1, (24, 32)).astype(np.uint8)
    panoptic, segments = merge_panoptic(
        prediction(
            boxes.tolist(),
            generator.uniform(0, 1, n).tolist(),
            generator.integers(0, 2, n).tolist(),
            semantic,
        ),
        **LIMITS,
    )
    owned = {(entry.unified_class, entry.instance): entry.area_px for entry in segments}
    keys = panoptic.semantic_map.astype(int) * 1000 + panoptic.instance_map
    values, counts = np.unique(keys[panoptic.semantic_map != VOID], return_counts=True)
    assert owned == {(int(v) // 1000, int(v) % 1000): int(c) for v, c in zip(values, counts)}
    assert (
        (panoptic.instance_map > 0) == ((panoptic.semantic_map >= N_STUFF) & (panoptic.semantic_map != VOID))
    ).all()
    assert all(entry.area_px >= 0.05 * 24 * 32 for entry in segments if entry.instance == 0)
