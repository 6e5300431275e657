"""Agreement of runs and Matrix NMS on hand-made masks."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gestalt.config.motion import MotionSettings
from gestalt.motion.ensemble import combine_runs, consistency_scores, matrix_nms
from gestalt.motion.labelling import RunMasks

RUNS = 8


def rectangle(top: int, left: int, height: int, width: int) -> torch.Tensor:
    mask = torch.zeros(30, 40, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def found_in(runs: list[int], mask: torch.Tensor) -> RunMasks:
    count = len(runs)
    return RunMasks(
        torch.tensor(runs), mask.expand(count, -1, -1), torch.ones(count), torch.eye(4).expand(count, 4, 4)
    )


def joined(*parts: RunMasks) -> RunMasks:
    return RunMasks(
        *(torch.cat([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(RunMasks))
    )


@pytest.mark.parametrize("consistency", ["coverage", "detections"])
@pytest.mark.parametrize(("n_runs", "kept"), [(8, 1), (7, 1), (6, 0)])
def test_seven_of_eight_runs_keep_a_mask_and_six_do_not(
    n_runs: int, kept: int, consistency: str, settings: MotionSettings
) -> None:
    options = dataclasses.replace(settings.ensemble, consistency=consistency)
    candidates = combine_runs(found_in(list(range(n_runs)), rectangle(5, 5, 8, 9)), RUNS, options)
    assert int(candidates.kept.sum()) == kept
    assert candidates.consistency.tolist() == pytest.approx([n_runs] * n_runs)


def test_a_large_mask_vouches_for_a_small_one_only_by_coverage(settings: MotionSettings) -> None:
    small = found_in([0], rectangle(5, 5, 3, 3))
    found = joined(small, found_in(list(range(1, 8)), rectangle(2, 2, 20, 30)))
    scores = {
        name: consistency_scores(
            found.run, found.masks, dataclasses.replace(settings.ensemble, consistency=name)
        )
        for name in ("coverage", "detections")
    }
    assert float(scores["coverage"][0]) == 8
    assert float(scores["detections"][0]) == 1


def test_votes_are_the_share_of_matching_masks(settings: MotionSettings) -> None:
    found = joined(found_in(list(range(6)), rectangle(5, 5, 8, 10)), found_in([6, 7], rectangle(5, 5, 8, 8)))
    votes = combine_runs(found, RUNS, settings.ensemble).votes[0]
    assert float(votes[6, 6]) == 1
    assert float(votes[6, 14]) == pytest.approx(0.75)
    assert float(votes[0, 0]) == 0


def test_matrix_nms_on_pairs() -> None:
    same = torch.stack([rectangle(0, 0, 10, 10)] * 2)
    apart = torch.stack([rectangle(0, 0, 10, 10), rectangle(15, 15, 10, 10)])
    # Rectangles of 10 x 16 shifted by 4: intersection 120, union 200.
    near = torch.stack([rectangle(0, 0, 10, 16), rectangle(0, 4, 10, 16)])
    ones = torch.ones(2)
    assert matrix_nms(same, ones, 2.0).tolist() == pytest.approx([1, 0.135], abs=1e-3)
    assert matrix_nms(apart, ones, 2.0).tolist() == [1, 1]
    first, second = matrix_nms(near, ones, 2.0).tolist()
    assert first == 1
    assert second == pytest.approx(2.718281828 ** (-2 * 0.36), abs=1e-3)
    assert second < 0.6


def test_a_suppressed_mask_suppresses_less() -> None:
    # B is nearly A, C overlaps B as much as A: without compensation C would be decayed by both.
    masks = torch.stack([rectangle(0, 0, 10, 20), rectangle(0, 1, 10, 20), rectangle(0, 12, 10, 20)])
    scores = matrix_nms(masks, torch.ones(3), 2.0)
    iou = 9 / 31
    assert float(scores[2]) == pytest.approx(2.718281828 ** (-2 * (8 / 32) ** 2), abs=2e-2)
    assert float(scores[2]) > 2.718281828 ** (-2 * iou**2) - 0.05


def test_no_masks_at_all(settings: MotionSettings) -> None:
    nothing = RunMasks(
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 30, 40, dtype=torch.bool),
        torch.zeros(0),
        torch.zeros(0, 4, 4),
    )
    assert len(combine_runs(nothing, RUNS, settings.ensemble).masks) == 0
