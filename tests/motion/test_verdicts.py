"""What became of masks, on hand-made candidates whose every verdict can be counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from gestalt.config.motion import MotionSettings
from gestalt.motion.ensemble import Candidates
from gestalt.motion.noise import Noise
from gestalt.motion.object_filters import ObjectMask
from gestalt.motion.rigid_objects import RigidObjects
from gestalt.motion.verdicts import FILTERED, INCONSISTENT, KEPT, SUPPRESSED, judge_candidates

CELLS = (4, 8)
SCALE = 4


def block(rows: slice, columns: slice) -> torch.Tensor:
    mask = torch.zeros(CELLS, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


LEFT, RIGHT = block(slice(0, 2), slice(0, 2)), block(slice(0, 2), slice(6, 8))
# Shares two of its four columns with LEFT: IoU 4 / 8.
WIDE = block(slice(0, 2), slice(0, 4))
# Shares one cell with LEFT: IoU 1 / 7.
CORNER = block(slice(1, 3), slice(1, 3))


def candidates(*entries: tuple[int, torch.Tensor, float, float, bool]) -> Candidates:
    """Of (run, mask, consistency, score, kept)."""
    run, masks, consistency, scores, kept = zip(*entries)
    stacked = torch.stack(masks)
    return Candidates(
        torch.tensor(run),
        stacked,
        stacked.float(),
        torch.tensor(consistency),
        torch.tensor(scores),
        torch.eye(4).expand(len(run), 4, 4),
        torch.tensor(kept),
    )


def drawn(rows: slice, columns: slice) -> ObjectMask:
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    return ObjectMask(rows, columns, np.full(shape, -1.0, np.float32), 8.0, 0.9, np.ones(shape, np.float32))


def result(
    found: Candidates | None, fates: Mapping[int, ObjectMask | str], *areas: tuple[slice, slice]
) -> RigidObjects:
    """With proposals 1, 2, ... at ``areas`` of the full-resolution map."""
    instance_map = np.zeros((CELLS[0] * SCALE, CELLS[1] * SCALE), np.uint16)
    for number, area in enumerate(areas, start=1):
        instance_map[area] = number
    noise, reliable = Noise(1.0, 1.0, 1.0), np.ones(instance_map.shape, np.bool_)
    return RigidObjects(instance_map, [], "", noise, reliable, candidates=found, fates=fates)


def test_masks_of_one_object_are_one_verdict_with_the_numbers_of_the_best(settings: MotionSettings) -> None:
    found = candidates((2, LEFT, 8.0, 0.9, True), (0, LEFT, 8.0, 0.1, False), (5, WIDE, 8.0, 0.1, False))
    area = (slice(0, 8), slice(0, 8))
    (verdict,) = judge_candidates(result(found, {0: drawn(*area)}, area), settings)
    assert verdict.members == (0, 1, 2)
    assert verdict.runs == (0, 2, 5)
    assert (verdict.consistency, verdict.score) == (8.0, pytest.approx(0.9))
    assert (verdict.outcome, verdict.reason, verdict.proposals) == (KEPT, "", (1,))


def test_every_end_has_its_reason(settings: MotionSettings) -> None:
    found = candidates(
        (0, LEFT, 8.0, 0.9, True),
        (1, RIGHT, 7.0, 0.8, True),
        (1, CORNER, 7.0, 0.3, False),
        (2, block(slice(3, 4), slice(0, 8)), 2.0, 0.0, False),
    )
    fates = {0: drawn(slice(0, 8), slice(0, 8)), 1: "evidence 1.2 < 3"}
    verdicts = judge_candidates(result(found, fates, (slice(0, 8), slice(0, 8))), settings)
    assert [entry.outcome for entry in verdicts] == [KEPT, FILTERED, SUPPRESSED, INCONSISTENT]
    assert [entry.number for entry in verdicts] == [1, 2, 3, 4]
    assert [entry.reason for entry in verdicts] == [
        "",
        "evidence 1.2 < 3",
        "score 0.30 < 0.6, overlaps 1 (IoU 0.14)",
        "consistency 2.0 < 6.4",
    ]


def test_a_drawn_mask_without_a_proposal_was_filtered_by_its_size(settings: MotionSettings) -> None:
    tiny = drawn(slice(0, 2), slice(0, 3))
    (verdict,) = judge_candidates(result(candidates((0, LEFT, 8.0, 0.9, True)), {0: tiny}), settings)
    assert (verdict.outcome, verdict.reason) == (FILTERED, f"6 px < {settings.filters.min_area_px}")
    large = drawn(slice(0, 8), slice(0, 9))
    (verdict,) = judge_candidates(result(candidates((0, LEFT, 8.0, 0.9, True)), {0: large}), settings)
    assert verdict.outcome == FILTERED
    assert verdict.reason.startswith(f"below {settings.filters.min_surface_m2:g} m²")
    found = result(candidates((0, LEFT, 8.0, 0.9, True)), {0: large})
    residual = np.full(found.instance_map.shape, np.nan, np.float32)
    residual[0, 0] = 1
    (verdict,) = judge_candidates(dataclasses.replace(found, ego_residual=residual), settings)
    assert verdict.reason == f"measured in 1% < {settings.filters.min_measured_share:.0%}"


def test_a_proposal_belongs_to_the_mask_that_shares_most_of_it(settings: MotionSettings) -> None:
    found = candidates((0, LEFT, 8.0, 0.9, True), (0, RIGHT, 8.0, 0.8, True))
    fates = {0: drawn(slice(0, 8), slice(0, 10)), 1: drawn(slice(0, 8), slice(8, 32))}
    areas = [(slice(0, 8), slice(0, 8)), (slice(0, 8), slice(8, 16)), (slice(0, 8), slice(24, 32))]
    verdicts = judge_candidates(result(found, fates, *areas), settings)
    assert [entry.proposals for entry in verdicts] == [(1,), (2, 3)]


def test_without_masks_at_full_resolution_the_cells_tell(settings: MotionSettings) -> None:
    found = candidates((0, LEFT, 8.0, 0.9, True), (0, RIGHT, 8.0, 0.8, True))
    verdicts = judge_candidates(result(found, {}, (slice(0, 8), slice(24, 32))), settings)
    assert [(entry.outcome, entry.proposals) for entry in verdicts] == [(KEPT, (1,)), (FILTERED, ())]


def test_no_run_and_no_mask_are_no_verdict(settings: MotionSettings) -> None:
    assert judge_candidates(result(None, {}), settings) == []
    empty = candidates((0, LEFT, 8.0, 0.9, True))
    nothing = Candidates(*[getattr(empty, name)[:0] for name in empty.__dataclass_fields__])
    assert judge_candidates(result(nothing, {}), settings) == []
