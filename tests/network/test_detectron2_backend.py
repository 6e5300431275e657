"""Equal weights in both backends give equal losses, boxes, masks, semantics and panoptic maps.

Everything but the first test skips itself where Detectron2 is absent.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gestalt.config.network import NetworkSettings
from gestalt.config.presets import default_settings
from gestalt.errors import ConfigError, MissingDependencyError
from gestalt.network.architecture import build_network
from gestalt.network.checkpoint import NetworkCard, load_network, save_network
from gestalt.network.detectron2_names import from_detectron2
from gestalt.network.drop_loss import DropRule
from gestalt.network.merge import merge_panoptic
from gestalt.network.panoptic_model import PanopticModel, is_normalisation
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.network.records import ImageTarget
from gestalt.network.test_time import predict_views
from gestalt.panoptic import VOID, PanopticMap, Vocabulary

BACKEND = "gestalt.network.detectron2_backend"
needs_detectron2 = pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is None, reason="Detectron2 is not installed"
)
# Anchors of a 64x96 image: three at every cell of the levels of stride 4, 8, 16, 32 and 64.
N_ANCHORS = 3 * (16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2)


def test_without_detectron2_an_error_names_the_page_that_helps(
    monkeypatch: pytest.MonkeyPatch, settings: NetworkSettings, vocabulary: Vocabulary
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "detectron2"] + ["detectron2"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, BACKEND, raising=False)
    with pytest.raises(MissingDependencyError, match=r"docs/detectron2\.md.*network\.backend torchvision"):
        build_network(dataclasses.replace(settings, backend="detectron2"), vocabulary)


@pytest.fixture(scope="module")
def settings() -> NetworkSettings:
    """The depth and the parts of ResNet-50 and the CUPS heads, a quarter or an eighth as wide."""
    paper: NetworkSettings = default_settings("network", "paper")
    return dataclasses.replace(
        paper,
        stem_channels=16,
        stage_channels=[64, 128, 256, 512],
        pyramid_channels=32,
        semantic_channels=32,
        # No anchor is ignored and none is left out of the sample, nor is a proposal: nothing is left to chance.
        proposals=dataclasses.replace(
            paper.proposals, positive_iou=0.4, negative_iou=0.4, samples=N_ANCHORS, positive_share=0.5
        ),
        instances=dataclasses.replace(
            paper.instances, samples=2 * N_ANCHORS, positive_share=0.5, box_hidden=64, mask_channels=32
        ),
    )


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(things=(4, 1, 5), stuff=(0, 2, 3))


@pytest.fixture(scope="module")
def trained(settings: NetworkSettings, vocabulary: Vocabulary) -> dict[str, torch.Tensor]:
    """Weights that answer boldly: with those of a fresh network every score and every mask would be the same."""
    torch.manual_seed(0)
    network = build_network(settings, vocabulary)
    assert isinstance(network, PanopticNetwork)
    for module in network.modules():
        if is_normalisation(module):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        # One batch gives every batch normalisation its statistics.
        network.train().backbone(network.normalise(torch.rand(4, 3, 128, 128)))
    head = network.proposal_network.head
    nn.init.normal_(head.cls_logits.weight, std=0.3)
    nn.init.normal_(head.bbox_pred.weight, std=0.05)
    for stage in network.instance_heads.stages:
        nn.init.normal_(stage.classify.weight, std=0.5)
        nn.init.normal_(stage.regress.weight, std=0.3)
    nn.init.normal_(network.instance_heads.mask_head.classify.weight, std=0.3)
    return {name: weight.clone() for name, weight in network.weights().items()}


@pytest.fixture
def ours(
    settings: NetworkSettings, vocabulary: Vocabulary, trained: dict[str, torch.Tensor]
) -> PanopticModel:
    network = build_network(settings, vocabulary)
    network.load_weights(trained)
    return network.eval()


@pytest.fixture
def theirs(
    settings: NetworkSettings, vocabulary: Vocabulary, trained: dict[str, torch.Tensor]
) -> PanopticModel:
    network = build_network(dataclasses.replace(settings, backend="detectron2"), vocabulary)
    network.load_weights(trained)
    return network.eval()


@needs_detectron2
@pytest.mark.parametrize("size", [(64, 96), (101, 150), (161, 97)])
@torch.no_grad()
def test_features_boxes_masks_and_semantics_agree(
    ours: PanopticModel, theirs: PanopticModel, size: tuple[int, int]
) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(size[0]))
    pyramid, detections, logits = ours.detect(images, 0.3)
    their_pyramid, their_detections, their_logits = theirs.detect(images, 0.3)
    assert [len(found.scores) > 10 for found in detections] == [True, True]
    torch.testing.assert_close(their_logits, logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(their_pyramid, pyramid, rtol=0, atol=1e-4)
    for found, reference in zip(their_detections, detections, strict=True):
        torch.testing.assert_close(found.boxes, reference.boxes, rtol=0, atol=1e-4)
        torch.testing.assert_close(found.scores, reference.scores, rtol=0, atol=1e-4)
        assert found.classes.tolist() == reference.classes.tolist()
        assert len(set(found.classes.tolist())) > 1
    boxes, classes = [found.boxes for found in detections], [found.classes for found in detections]
    masks = ours.mask_probs(pyramid, boxes, classes)
    assert masks[0].std() > 0.1
    torch.testing.assert_close(theirs.mask_probs(their_pyramid, boxes, classes), masks, rtol=0, atol=1e-4)


@needs_detectron2
@pytest.mark.parametrize(
    "drop", [None, DropRule(0.4, 0.0, covers_anchors=False), DropRule(0.2, 0.3, covers_anchors=False)]
)
def test_losses_and_gradients_agree(
    ours: PanopticModel,
    theirs: PanopticModel,
    images: torch.Tensor,
    targets: list[ImageTarget],
    drop: DropRule | None,
) -> None:
    losses, their_losses = (network.train()(images, targets, drop) for network in (ours, theirs))
    assert set(their_losses) == set(losses)
    assert all(loss > 0 for loss in losses.values())
    for name, loss in losses.items():
        torch.testing.assert_close(their_losses[name], loss, rtol=1e-4, atol=1e-6, msg=name)
    for found in (losses, their_losses):
        sum(found.values()).backward()
    gradients = from_detectron2({name: weight.grad for name, weight in theirs.named_parameters()})
    for name, weight in ours.named_parameters():
        assert weight.grad is not None
        tolerance = 1e-3 * float(weight.grad.abs().max()) + 1e-6
        torch.testing.assert_close(gradients[name], weight.grad, rtol=0, atol=tolerance, msg=name)


@needs_detectron2
def test_anchors_over_unlabelled_pixels_can_be_left_out(
    theirs: PanopticModel, images: torch.Tensor, targets: list[ImageTarget]
) -> None:
    # The upper half of both images has no label, so that negative anchors there do not count.
    hidden = [dataclasses.replace(target, semantic=target.semantic.clone()) for target in targets]
    for target in hidden:
        target.semantic[:32] = 255
    plain, covered = (
        theirs.train()(images, hidden, DropRule(0.4, 0.5, covers_anchors=covers)) for covers in (False, True)
    )
    assert 0 < covered["objectness"] < 0.9 * plain["objectness"]
    # Positives stay.
    torch.testing.assert_close(covered["proposal_box"], plain["proposal_box"])


@needs_detectron2
def test_guided_steps_lower_the_loss(
    theirs: PanopticModel, images: torch.Tensor, targets: list[ImageTarget]
) -> None:
    theirs.train()
    optimiser = torch.optim.AdamW(theirs.parameters(), lr=1e-3)
    totals = []
    for _ in range(4):
        total = sum(theirs(images, targets, DropRule(0.4, 0.0, covers_anchors=False)).values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.85 * totals[0]


@needs_detectron2
def test_a_batch_without_objects_trains_what_it_can(
    theirs: PanopticModel, images: torch.Tensor, targets: list[ImageTarget]
) -> None:
    empty = targets[1]
    losses = theirs.train()(images, [empty, empty], None)
    sum(losses.values()).backward()
    assert [losses[name].item() for name in ("box", "mask", "proposal_box")] == [0.0, 0.0, 0.0]
    assert losses["class"] > 0
    # Every process of a distributed training needs a gradient for every weight.
    assert [name for name, weight in theirs.named_parameters() if weight.grad is None] == []


@needs_detectron2
def test_weights_that_are_not_numbers_reach_the_loss(
    theirs: PanopticModel, images: torch.Tensor, targets: list[ImageTarget]
) -> None:
    with torch.no_grad():
        theirs.load_weights(
            {**theirs.weights(), "backbone.trunk.conv1.weight": torch.full((16, 3, 7, 7), torch.nan)}
        )
    losses = theirs.train()(images, targets, DropRule(0.4, 0.0, covers_anchors=False))
    assert torch.isnan(sum(losses.values()))


@needs_detectron2
def test_several_views_merge_into_the_same_panoptic_map(
    ours: PanopticModel, theirs: PanopticModel, images: torch.Tensor
) -> None:
    """Network and merge of ours, and network and merge of Detectron2."""
    found, their_found = (
        predict_views(network, images, scales=(0.75, 1.0), flip=True, score_threshold=0.4)[0]
        for network in (ours, theirs)
    )
    panoptic, segments = merge_panoptic(found, score_threshold=0.4, overlap_share=0.5, min_stuff_share=0.01)
    assert sum(segment.instance > 0 for segment in segments) > 5
    assert any(segment.instance == 0 for segment in segments)
    merge = importlib.import_module(BACKEND).merge_by_detectron2
    ids, records = merge(their_found, score_threshold=0.4, overlap_share=0.5, min_stuff_px=64 * 96 // 100 + 1)
    reference = as_panoptic_map(ids, records, ours.n_stuff)
    # A pixel whose probability is just at the limit may fall on either side.
    assert (panoptic.semantic_map != reference.semantic_map).mean() < 1e-3
    assert (panoptic.instance_map != reference.instance_map).mean() < 1e-3


@needs_detectron2
@torch.no_grad()
def test_detectron2_runs_the_network_as_its_own_model(ours: PanopticModel, theirs: PanopticModel) -> None:
    image = torch.rand(3, 90, 150, generator=torch.Generator().manual_seed(2))
    model = theirs.as_panoptic_fpn(score_threshold=0.4, overlap_share=0.5, min_stuff_px=135)
    ids, records = model([{"image": image}])[0]["panoptic_seg"]
    reference = as_panoptic_map(ids, records, theirs.n_stuff)
    prediction = predict_views(ours, image[None], score_threshold=0.4)[0]
    panoptic, segments = merge_panoptic(
        prediction, score_threshold=0.4, overlap_share=0.5, min_stuff_share=0.01
    )
    assert sum(segment.instance > 0 for segment in segments) > 5
    assert (panoptic.semantic_map != reference.semantic_map).mean() < 1e-3
    assert (panoptic.instance_map != reference.instance_map).mean() < 1e-3


def as_panoptic_map(ids: torch.Tensor, records: list[dict[str, Any]], n_stuff: int) -> PanopticMap:
    """Detectron2's segments in unified space: stuff first, then things, instances counted in order of score."""
    semantic = np.full(tuple(ids.shape), VOID, np.uint8)
    instance = np.zeros(tuple(ids.shape), np.uint16)
    for number, record in enumerate(records, start=1):
        inside = ids.numpy() == record["id"]
        semantic[inside] = record["category_id"] + (n_stuff if record["isthing"] else -1)
        instance[inside] = number if record["isthing"] else 0
    return PanopticMap(semantic, instance)


@needs_detectron2
def test_a_network_folder_opens_in_either_backend(
    ours: PanopticModel,
    theirs: PanopticModel,
    settings: NetworkSettings,
    vocabulary: Vocabulary,
    tmp_path: Path,
) -> None:
    detectron2 = dataclasses.replace(settings, backend="detectron2")
    cpu = torch.device("cpu")
    for writer, reader in ((ours, detectron2), (theirs, settings)):
        save_network(tmp_path, writer, NetworkCard(reader, vocabulary, (64, 96)))
        network, _ = load_network(tmp_path, cpu)
        assert type(network) is not type(writer)
        found, expected = network.weights(), writer.weights()
        assert set(found) == set(expected)
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@needs_detectron2
def test_both_train_and_freeze_the_same_weights(ours: PanopticModel, theirs: PanopticModel) -> None:
    heads = {id(weight) for weight in theirs.head_parameters()}
    chosen = {name: weight for name, weight in theirs.named_parameters() if id(weight) in heads}
    our_heads = {id(weight) for weight in ours.head_parameters()}
    assert set(from_detectron2(chosen)) == {
        name for name, weight in ours.named_parameters() if id(weight) in our_heads
    }
    theirs.train().freeze_normalisation()
    assert {module.training for module in theirs.modules() if is_normalisation(module)} == {False}
    assert theirs.roi_heads.training


@needs_detectron2
@torch.no_grad()
def test_a_copy_predicts_the_same_and_lives_alone(theirs: PanopticModel, images: torch.Tensor) -> None:
    teacher = copy.deepcopy(theirs)
    _, _, logits = theirs.detect(images, 0.4)
    for weight in theirs.parameters():
        weight.zero_()
    torch.testing.assert_close(teacher.detect(images, 0.5)[2], logits)


@needs_detectron2
@torch.no_grad()
def test_boxes_keep_their_place_with_features_of_half_precision(
    theirs: PanopticModel, images: torch.Tensor
) -> None:
    pyramid = [level.bfloat16() for level in theirs.detect(images, 0.5)[0]]
    # None of these sides is a bfloat16.
    boxes = [torch.tensor([[10.3, 5.2, 75.7, 50.9]]), torch.zeros(0, 4)]
    classes = [torch.tensor([1]), torch.zeros(0, dtype=torch.int64)]
    expected = theirs.mask_probs([level.float() for level in pyramid], boxes, classes)
    torch.testing.assert_close(theirs.mask_probs(pyramid, boxes, classes), expected, rtol=0, atol=0)


@needs_detectron2
@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"stem_kernel": 5}, r"network\.stem_kernel must be 7.*Got: 5"),
        ({"stem_pool": False}, r"network\.stem_pool must be true.*Got: false"),
        (
            {"block": "basic", "stage_channels": [16, 32, 32, 64]},
            r"network\.stage_channels must differ.*Got: \[16, 32, 32, 64\]",
        ),
    ],
)
def test_a_trunk_that_detectron2_does_not_have_is_refused(
    settings: NetworkSettings, vocabulary: Vocabulary, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError, match=key):
        build_network(dataclasses.replace(settings, backend="detectron2", **changes), vocabulary)


@needs_detectron2
@torch.no_grad()
def test_basic_blocks_and_a_plain_pyramid_agree(settings: NetworkSettings, vocabulary: Vocabulary) -> None:
    small = dataclasses.replace(
        settings,
        block="basic",
        stage_channels=[16, 24, 32, 40],
        stage_blocks=[1, 2, 1, 1],
        pyramid_norm=False,
        semantic_groups=8,
        proposals=dataclasses.replace(settings.proposals, anchor_sizes_px=[16, 32, 64, 128]),
        instances=dataclasses.replace(
            settings.instances,
            cascade_ious=[0.5],
            mask_convolutions=2,
            samples_per_cell=2,
            canonical_box_px=56,
        ),
    )
    ours = build_network(small, vocabulary).eval()
    theirs = build_network(dataclasses.replace(small, backend="detectron2"), vocabulary).eval()
    theirs.load_weights(ours.weights())
    images = torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(3))
    pyramid, detections, logits = ours.detect(images, 0.2)
    their_pyramid, their_detections, their_logits = theirs.detect(images, 0.2)
    torch.testing.assert_close(their_logits, logits, rtol=0, atol=1e-4)
    assert len(detections[0].scores) > 0
    torch.testing.assert_close(their_detections[0].boxes, detections[0].boxes, rtol=0, atol=1e-4)
    boxes, classes = [detections[0].boxes], [detections[0].classes]
    masks = ours.mask_probs(pyramid, boxes, classes)
    torch.testing.assert_close(theirs.mask_probs(their_pyramid, boxes, classes), masks, rtol=0, atol=1e-4)


@needs_detectron2
@torch.no_grad()
def test_detectron2s_own_model_of_its_configuration_agrees(
    theirs: PanopticModel, settings: NetworkSettings
) -> None:
    """The whole reference: Detectron2 builds and runs its PanopticFPN, and opens our weights without a miss."""
    from detectron2.modeling import build_model

    reference = build_model(_configuration(settings, theirs)).eval()
    reference.load_state_dict(theirs.state_dict())
    image = torch.rand(3, 101, 150, generator=torch.Generator().manual_seed(5))
    instances, semantic = reference.inference([{"image": image}], do_postprocess=False)
    pyramid, (found,), logits = theirs.detect(image[None], 0.4)
    (masks,) = theirs.mask_probs(pyramid, [found.boxes], [found.classes])
    assert len(found.scores) > 10
    torch.testing.assert_close(found.boxes, instances[0].pred_boxes.tensor, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.scores, instances[0].scores, rtol=0, atol=1e-4)
    assert found.classes.tolist() == instances[0].pred_classes.tolist()
    torch.testing.assert_close(masks, instances[0].pred_masks[:, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(logits[0], semantic[0, :, :101, :150], rtol=0, atol=1e-4)


def _configuration(settings: NetworkSettings, network: PanopticModel) -> Any:
    """The CUPS network as a configuration of Detectron2, with the widths of the test."""
    from detectron2.config import get_cfg

    configuration = get_cfg()
    model = configuration.MODEL
    model.DEVICE, model.META_ARCHITECTURE, model.WEIGHTS = "cpu", "PanopticFPN", ""
    model.PIXEL_MEAN, model.PIXEL_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    model.MASK_ON = True
    model.BACKBONE.NAME, model.BACKBONE.FREEZE_AT = "build_resnet_fpn_backbone", 0
    model.RESNETS.DEPTH, model.RESNETS.NORM, model.RESNETS.STRIDE_IN_1X1 = 50, "BN", False
    model.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    model.RESNETS.STEM_OUT_CHANNELS = settings.stem_channels
    model.RESNETS.RES2_OUT_CHANNELS = settings.stage_channels[0]
    model.RESNETS.WIDTH_PER_GROUP = settings.stage_channels[0] // 4
    model.FPN.IN_FEATURES, model.FPN.NORM = ["res2", "res3", "res4", "res5"], "BN"
    model.FPN.OUT_CHANNELS = settings.pyramid_channels
    model.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    model.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0, 2.0]]
    model.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    model.RPN.PRE_NMS_TOPK_TEST, model.RPN.POST_NMS_TOPK_TEST, model.RPN.NMS_THRESH = 1000, 1000, 0.65
    heads = model.ROI_HEADS
    heads.NAME, heads.IN_FEATURES = "CascadeROIHeads", ["p2", "p3", "p4", "p5"]
    heads.NUM_CLASSES, heads.SCORE_THRESH_TEST = network.n_things, 0.4
    model.ROI_BOX_HEAD.NAME, model.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 2
    model.ROI_BOX_HEAD.FC_DIM, model.ROI_BOX_HEAD.POOLER_RESOLUTION = settings.instances.box_hidden, 7
    model.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    model.ROI_MASK_HEAD.NAME, model.ROI_MASK_HEAD.NUM_CONV = "MaskRCNNConvUpsampleHead", 4
    model.ROI_MASK_HEAD.CONV_DIM = settings.instances.mask_channels
    model.ROI_MASK_HEAD.POOLER_RESOLUTION = 14
    semantic = model.SEM_SEG_HEAD
    semantic.IN_FEATURES, semantic.NUM_CLASSES = ["p2", "p3", "p4", "p5"], network.n_stuff + 1
    semantic.CONVS_DIM, semantic.NORM = settings.semantic_channels, "GN"
    return configuration
