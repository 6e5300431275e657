from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from gestalt.network.drop_loss import DropRule, classification_loss, drop_weights, unlabelled_shares
from gestalt.network.records import ImageTarget
from gestalt.panoptic import VOID

RULE = DropRule(iou=0.4, unlabelled_share=0.0, covers_anchors=False)
SIZE = (120, 160)


def target(*boxes: list[float], semantic: torch.Tensor | None = None) -> ImageTarget:
    """Objects that fill their boxes on ground of stuff 1."""
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    ground = torch.ones(SIZE, dtype=torch.uint8) if semantic is None else semantic
    for row, (x0, y0, x1, y1) in enumerate(boxes):
        masks[row, int(y0) : int(y1), int(x0) : int(x1)] = True
    coordinates = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return ImageTarget(coordinates, torch.zeros(len(boxes), dtype=torch.int64), masks, ground)


OBJECT = [0.0, 0, 100, 100]


def box_with_iou(iou: float) -> torch.Tensor:
    """A box inside the object whose area is the given share of it."""
    return torch.tensor([[0.0, 0, 100, 100 * iou]])


@pytest.mark.parametrize(("iou", "weight"), [(0.39, 0.0), (0.40, 0.0), (0.41, 1.0), (1.0, 1.0)])
def test_a_proposal_counts_only_above_the_limit(iou: float, weight: float) -> None:
    assert drop_weights([box_with_iou(iou)], [target(OBJECT)], RULE).tolist() == [weight]


def test_the_best_of_all_targets_decides() -> None:
    others = [[float(120 + n % 30), 100, float(125 + n % 30), 110] for n in range(150)]
    assert drop_weights([box_with_iou(0.9)], [target(*others, OBJECT)], RULE).tolist() == [1.0]


def test_an_image_without_objects_drops_its_own_proposals_and_no_others() -> None:
    decoded = [box_with_iou(0.9), box_with_iou(0.9), box_with_iou(0.1)]
    weights = drop_weights(decoded, [target(OBJECT), target(), target(OBJECT)], RULE)
    assert weights.tolist() == [1.0, 0.0, 0.0]


def test_an_image_without_proposals_adds_no_weights() -> None:
    decoded = [torch.zeros(0, 4), box_with_iou(0.9)]
    assert drop_weights(decoded, [target(OBJECT), target(OBJECT)], RULE).tolist() == [1.0]


def test_dropped_proposals_still_count_in_the_denominator() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    labels = torch.tensor([0, 1, 1])
    own = functional.cross_entropy(logits, labels, reduction="none")
    loss = classification_loss(logits, labels, torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(loss, own[0] / 3)


def test_without_weights_the_loss_is_the_mean_cross_entropy() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(classification_loss(logits, labels), functional.cross_entropy(logits, labels))


def test_no_proposal_gives_a_loss_of_zero() -> None:
    assert classification_loss(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).item() == 0.0


@pytest.mark.parametrize("label", [0, VOID])
def test_unlabelled_pixels_are_void_or_thing_without_an_object(label: int) -> None:
    semantic = torch.ones(SIZE, dtype=torch.uint8)
    semantic[:, :80] = label
    boxes = torch.tensor([[60.0, 10, 100, 50], [100, 10, 120, 30], [70, 110, 90, 140], [5, 5, 5, 9]])
    assert unlabelled_shares(boxes, target(semantic=semantic)).tolist() == [0.5, 0.0, 0.5, 0.0]


def test_pixels_of_a_labelled_object_are_labelled() -> None:
    semantic = torch.zeros(SIZE, dtype=torch.uint8)
    assert unlabelled_shares(torch.tensor([OBJECT]), target(OBJECT, semantic=semantic)).tolist() == [0.0]


def test_with_a_share_only_far_proposals_on_unlabelled_ground_are_dropped() -> None:
    semantic = torch.ones(SIZE, dtype=torch.uint8)
    semantic[:, 110:] = VOID
    decoded = torch.tensor([[112.0, 10, 150, 50], [30, 10, 60, 30], [0, 0, 100, 90]])
    rule = dataclasses.replace(RULE, unlabelled_share=0.3)
    assert drop_weights([decoded], [target(OBJECT, semantic=semantic)], rule).tolist() == [0.0, 1.0, 1.0]
