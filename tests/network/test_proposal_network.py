from __future__ import annotations

import torch
from torchvision.models.detection.rpn import concat_box_prediction_layers

from gestalt.network.drop_loss import DropRule
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.network.proposal_network import _flatten_level
from gestalt.network.records import ImageTarget
from gestalt.panoptic import VOID


def test_flattening_puts_predictions_in_the_order_of_torchvisions_anchors() -> None:
    logits = [torch.randn(2, 3, 4, 6), torch.randn(2, 3, 2, 3)]
    offsets = [torch.randn(2, 12, 4, 6), torch.randn(2, 12, 2, 3)]
    expected_logits, expected_offsets = concat_box_prediction_layers(
        [level.clone() for level in logits], [level.clone() for level in offsets]
    )
    ours = torch.cat([_flatten_level(level, 1) for level in logits], 1).flatten(0, 1)
    torch.testing.assert_close(ours, expected_logits)
    ours = torch.cat([_flatten_level(level, 4) for level in offsets], 1).flatten(0, 1)
    torch.testing.assert_close(ours, expected_offsets)


def test_proposals_lie_in_the_unpadded_image(network: PanopticNetwork) -> None:
    images = torch.rand(2, 3, 50, 70)
    padded = network.normalise(images)
    proposals, losses = network.proposal_network(network.backbone(padded), (50, 70))
    assert losses == {}
    assert len(proposals) == 2
    for boxes in proposals:
        assert len(boxes) > 0
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([70.0, 50, 70, 50])).all()
        assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all()


def test_a_batch_without_any_object_has_an_objectness_loss_and_no_box_loss(
    network: PanopticNetwork, images: torch.Tensor, targets: list[ImageTarget]
) -> None:
    network.train()
    padded = network.normalise(images)
    empty = [targets[1], targets[1]]
    _, losses = network.proposal_network(network.backbone(padded), (64, 96), empty)
    assert losses["objectness"].item() > 0
    assert losses["proposal_box"].item() == 0


def test_anchors_of_low_overlap_still_serve_an_object_that_has_no_better_one(
    network: PanopticNetwork, targets: list[ImageTarget]
) -> None:
    odd = torch.tensor([[0.0, 0, 95, 5]])
    anchors = torch.tensor([[0.0, 0, 60, 16], [30, 30, 60, 60]])
    assert network.proposal_network._match(anchors, odd).tolist() == [0, -1]


def test_anchors_on_unlabelled_ground_can_be_left_out_of_the_negatives(
    network: PanopticNetwork, images: torch.Tensor, targets: list[ImageTarget]
) -> None:
    network.train()
    padded = network.normalise(images)
    pyramid = network.backbone(padded)
    unlabelled = ImageTarget(
        targets[1].boxes, targets[1].classes, targets[1].masks, torch.full((64, 96), VOID, dtype=torch.uint8)
    )

    def objectness(drop: DropRule | None) -> float:
        _, losses = network.proposal_network(pyramid, (64, 96), [unlabelled, unlabelled], drop)
        return losses["objectness"].item()

    # The anchors that still count reach beyond the image; inside there is nothing to learn from.
    assert objectness(DropRule(0.4, 1e-3, covers_anchors=True)) == 0
    assert objectness(DropRule(0.4, 1e-3, covers_anchors=False)) > 0
    assert objectness(None) > 0
