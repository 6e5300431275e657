from __future__ import annotations

import dataclasses

import pytest
import torch

from gestalt.config.network import NetworkSettings
from gestalt.errors import ConfigError, ShapeError
from gestalt.network.architecture import build_network
from gestalt.network.drop_loss import DropRule
from gestalt.network.panoptic_model import is_normalisation
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.network.records import ImageTarget
from gestalt.network.semantic_head import semantic_loss, upsample_logits
from gestalt.panoptic import VOID, Vocabulary


def test_class_counts_come_from_the_vocabulary(network: PanopticNetwork) -> None:
    assert (network.n_things, network.n_stuff) == (2, 3)
    _, _, logits = network.detect(torch.rand(1, 3, 64, 96), 0.5)
    assert logits.shape == (1, 4, 64, 96)


@pytest.mark.parametrize("size", [(33, 65), (64, 96), (7, 130)])
def test_any_size_goes_in_and_comes_out(network: PanopticNetwork, size: tuple[int, int]) -> None:
    _, detections, logits = network.detect(torch.rand(1, 3, *size), 0.0)
    assert logits.shape[-2:] == size
    limits = torch.tensor([size[1], size[0], size[1], size[0]])
    assert (detections[0].boxes <= limits).all()


def test_every_weight_gets_a_gradient(
    network: PanopticNetwork, images: torch.Tensor, targets: list[ImageTarget]
) -> None:
    losses = network.train()(images, targets, DropRule(0.4, 0.3, covers_anchors=True))
    assert set(losses) == {"semantic", "objectness", "proposal_box", "class", "box", "mask"}
    sum(losses.values()).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_a_batch_predicts_what_its_images_predict_alone(
    network: PanopticNetwork, images: torch.Tensor
) -> None:
    _, together, logits = network.detect(images, 0.2)
    for number in range(len(images)):
        _, alone, own_logits = network.detect(images[number : number + 1], 0.2)
        torch.testing.assert_close(own_logits[0], logits[number], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone[0].boxes, together[number].boxes, rtol=1e-3, atol=1e-2)


def test_a_target_of_another_size_is_refused(network: PanopticNetwork, targets: list[ImageTarget]) -> None:
    with pytest.raises(
        ShapeError, match=r"need as many targets of that size. Got: 2 targets of \[\(64, 96\)\]"
    ):
        network(torch.rand(2, 3, 32, 96), targets)


def test_masks_that_do_not_belong_to_the_boxes_are_refused() -> None:
    with pytest.raises(ShapeError, match="as many classes and masks"):
        ImageTarget(torch.zeros(1, 4), torch.zeros(1), torch.zeros(2, 4, 4), torch.zeros(4, 4))


def test_a_vocabulary_without_things_is_refused_with_a_way_out(settings: NetworkSettings) -> None:
    with pytest.raises(ConfigError, match=r"Got: 0 things and 3 stuff.*thing_stuff\.psi"):
        build_network(settings, Vocabulary((), (0, 1, 2)))


def test_a_list_of_the_wrong_length_names_its_key(settings: NetworkSettings, vocabulary: Vocabulary) -> None:
    with pytest.raises(ConfigError, match=r"network\.stage_blocks must have 4 values"):
        build_network(dataclasses.replace(settings, stage_blocks=[1, 1]), vocabulary)


def test_head_parameters_leave_out_the_backbone_and_every_normalisation(network: PanopticNetwork) -> None:
    chosen = {id(weight) for weight in network.head_parameters()}
    for name, module in network.named_modules():
        for weight in module.parameters(recurse=False):
            is_head = not name.startswith("backbone") and not is_normalisation(module)
            assert (id(weight) in chosen) == is_head, name


def test_void_pixels_do_not_change_the_semantic_loss() -> None:
    logits = torch.randn(1, 3, 4, 4)
    target = torch.randint(0, 3, (16, 16), dtype=torch.uint8)
    target[:8] = VOID
    changed = logits.clone()
    changed[..., 0, :] += torch.randn(1, 3, 4)
    assert semantic_loss(logits, [target], 2).item() == pytest.approx(
        semantic_loss(changed, [target], 2).item()
    )
    assert semantic_loss(logits, [torch.full_like(target, VOID)], 2).item() == 0


def test_upsampled_logits_cover_the_image_at_any_stride() -> None:
    logits = torch.randn(1, 3, 16, 24)
    assert upsample_logits(logits, (50, 70)).shape[-2:] == (50, 70)
    assert upsample_logits(logits, (51, 70), stride=2).shape[-2:] == (26, 35)
