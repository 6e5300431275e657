from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.ops import roi_align

from gestalt.config.network import MAX_CASCADE, NetworkSettings
from gestalt.network.architecture import build_network
from gestalt.network.drop_loss import DropRule
from gestalt.network.instance_heads import MASK_SIDE, STAGE_WEIGHTS, mask_targets, paste_mask
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.network.records import ImageTarget
from gestalt.panoptic import Vocabulary

FAR = DropRule(iou=0.4, unlabelled_share=0.0, covers_anchors=False)


def test_the_mask_head_has_a_channel_per_thing_class(network: PanopticNetwork) -> None:
    pooled = torch.zeros(3, 16, 14, 14)
    assert network.instance_heads.mask_head(pooled).shape == (3, 2, MASK_SIDE, MASK_SIDE)


def test_pasting_agrees_with_sampling_the_whole_image() -> None:
    generator = torch.Generator().manual_seed(0)
    mask, box, (height, width) = (
        torch.rand(28, 28, generator=generator),
        torch.tensor([5.3, 7.9, 33.1, 21.4]),
        (40, 50),
    )
    x0, y0, x1, y1 = box.tolist()
    x = (torch.arange(width) + 0.5 - x0) / (x1 - x0) * 2 - 1
    y = (torch.arange(height) + 0.5 - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    expected = functional.grid_sample(mask[None, None], grid, align_corners=False)[0, 0]
    pasted, (top, bottom, left, right) = paste_mask(mask, box, (height, width))
    torch.testing.assert_close(pasted, expected[top:bottom, left:right], rtol=1e-4, atol=1e-5)
    outside = expected.clone()
    outside[top:bottom, left:right] = 0
    assert (outside < 0.5).all()


@pytest.mark.parametrize("box", [[-30.0, -30, -5, -5], [60.0, 5, 80, 20], [5.0, 5, 5, 20]])
def test_a_box_without_pixels_pastes_nothing(box: list[float]) -> None:
    pasted, (top, bottom, left, right) = paste_mask(torch.ones(28, 28), torch.tensor(box), (40, 50))
    assert pasted.numel() == (bottom - top) * (right - left) == 0


def test_cutting_out_and_pasting_keeps_the_shape_of_an_object() -> None:
    rows, columns = np.mgrid[:64, :96]
    disc = torch.from_numpy((rows - 30) ** 2 + (columns - 50) ** 2 < 20**2)
    box = torch.tensor([[30.0, 10, 71, 51]])
    cut = mask_targets(disc[None], torch.tensor([0]), box)[0]
    pasted, (top, bottom, left, right) = paste_mask(cut, box[0], (64, 96))
    found = torch.zeros_like(disc)
    found[top:bottom, left:right] = pasted > 0.5
    assert (found & disc).sum() / (found | disc).sum() > 0.95


def test_a_mask_that_fills_its_box_is_a_target_of_ones_but_for_its_corners() -> None:
    mask = torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, 4:12, 6:16] = True
    wanted = mask_targets(mask, torch.tensor([0]), torch.tensor([[6.0, 4, 16, 12]]))[0]
    assert wanted[1:-1].min() == wanted[:, 1:-1].min() == 1


def test_each_box_is_cut_out_of_the_mask_that_it_names() -> None:
    masks = torch.rand(3, 30, 40, generator=torch.Generator().manual_seed(0)) > 0.5
    boxes = torch.tensor([[1.0, 2, 21, 27], [3.5, 0, 30, 12.25], [10, 10, 20, 20], [1, 2, 21, 27]])
    rows = torch.tensor([2, 0, 2, 1])
    # The independent way: one image per box.
    alone = [
        roi_align(masks[row][None, None].float(), [box[None]], 28, aligned=True)
        for row, box in zip(rows, boxes)
    ]
    assert torch.equal(mask_targets(masks, rows, boxes), (torch.cat(alone)[:, 0] >= 0.5).float())
    assert mask_targets(masks[:0], rows[:0], boxes[:0]).shape == (0, 28, 28)


def test_proposals_carry_the_class_of_the_object_they_overlap(
    network: PanopticNetwork, targets: list[ImageTarget]
) -> None:
    boxes = torch.tensor([[11.0, 11, 40, 40], [50, 20, 90, 59], [0, 50, 9, 63]])
    matched = network.instance_heads._match(boxes, targets[0], 0.5)
    assert matched.labels.tolist() == [0, 1, 2]
    assert network.instance_heads._match(boxes, targets[1], 0.5).labels.tolist() == [2, 2, 2]


def test_drop_loss_silences_an_image_without_objects_and_keeps_the_other(
    network: PanopticNetwork, images: torch.Tensor, targets: list[ImageTarget]
) -> None:
    pyramid = network.backbone(network.normalise(images))
    proposals = [torch.tensor([[12.0, 12, 42, 42], [0, 50, 20, 60]]), torch.tensor([[0.0, 0, 30, 30]])]

    def class_loss(chosen: list[ImageTarget], drop: DropRule | None) -> float:
        torch.manual_seed(0)
        losses = network.instance_heads.losses(pyramid, proposals, (64, 96), chosen, drop)
        return losses["class"].item()

    assert class_loss([targets[1], targets[1]], FAR) == 0
    assert class_loss([targets[1], targets[1]], None) > 0
    assert 0 < class_loss(targets, FAR) < class_loss(targets, None)


def test_a_batch_without_objects_has_no_mask_loss_but_a_gradient(
    network: PanopticNetwork, images: torch.Tensor, targets: list[ImageTarget]
) -> None:
    losses = network(images, [targets[1], targets[1]])
    assert losses["mask"].item() == 0
    sum(losses.values()).backward()
    assert all(weight.grad is not None for weight in network.instance_heads.mask_head.parameters())


def test_three_cascade_stages_train_and_detect(
    settings: NetworkSettings, vocabulary: Vocabulary, images: torch.Tensor, targets: list[ImageTarget]
) -> None:
    cascade = dataclasses.replace(settings.instances, cascade_ious=[0.5, 0.6, 0.7])
    network = build_network(dataclasses.replace(settings, instances=cascade), vocabulary)
    losses = network(images, targets, FAR)
    assert torch.isfinite(sum(losses.values()))
    sum(losses.values()).backward()
    for stage in network.instance_heads.stages:
        assert stage.first.weight.grad.abs().sum() > 0
    _, detections, _ = network.eval().detect(images, 0.0)
    assert 0 < len(detections[0].boxes) <= settings.instances.max_detections
    assert (detections[0].scores.diff() <= 0).all()


def test_boxes_that_cannot_score_any_more_skip_the_stages_to_come(
    settings: NetworkSettings, vocabulary: Vocabulary, images: torch.Tensor
) -> None:
    cascade = dataclasses.replace(
        settings, instances=dataclasses.replace(settings.instances, cascade_ious=[0.5, 0.6, 0.7])
    )
    torch.manual_seed(0)
    network = build_network(cascade, vocabulary).eval()
    assert isinstance(network, PanopticNetwork)
    heads = network.instance_heads
    torch.nn.init.normal_(heads.stages[0].classify.weight, std=10.0)
    # Stages that agree, so that some boxes score high on average.
    for stage in heads.stages[1:]:
        stage.load_state_dict(heads.stages[0].state_dict())
    n_boxes: list[int] = []
    heads.stages[-1].register_forward_hook(lambda *call: n_boxes.append(len(call[1][0])))
    with torch.no_grad():
        pyramid, everything, _ = network.detect(images, 0.0)
        proposals, _ = network.proposal_network(pyramid, (64, 96))
        found = heads.detect(pyramid, proposals, (64, 96), 0.8)
    # Every box that reaches 0.8 is a box of the full cascade, and those that could not were left out.
    assert 0 < n_boxes[1] < n_boxes[0]
    for own, all_of_image in zip(found, everything, strict=True):
        reaching = all_of_image.scores > 0.8
        assert reaching.any()
        torch.testing.assert_close(own.scores, all_of_image.scores[reaching])
        torch.testing.assert_close(own.boxes, all_of_image.boxes[reaching])


def test_boxes_keep_their_place_with_features_of_half_precision(
    network: PanopticNetwork, images: torch.Tensor
) -> None:
    heads = network.instance_heads
    with torch.no_grad():
        pyramid = [level.bfloat16().float() for level in network.detect(images, 0.5)[0]]
        # None of these sides is a bfloat16.
        boxes = [torch.tensor([[10.3, 5.2, 75.7, 50.9]]), torch.zeros(0, 4)]
        expected = heads._pool(pyramid, boxes, 7)
        found = heads._pool([level.bfloat16() for level in pyramid], boxes, 7)
    torch.testing.assert_close(found, expected.bfloat16(), rtol=0, atol=0)


def test_every_stage_that_the_settings_allow_has_its_box_weights() -> None:
    assert len(STAGE_WEIGHTS) == MAX_CASCADE
