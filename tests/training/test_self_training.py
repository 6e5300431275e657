from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from gestalt.config.network import NetworkSettings
from gestalt.config.presets import default_settings
from gestalt.config.training import SelfTrainingSettings
from gestalt.network.architecture import build_network
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.network.records import Detections, Prediction
from gestalt.panoptic import VOID
from gestalt.training.self_labels import confident_semantics, self_label
from gestalt.training.self_training import confidence_of_step, train_self, update_teacher
from tests.training.conftest import VOCABULARY

CPU = torch.device("cpu")


@pytest.fixture
def network(network_settings: NetworkSettings) -> PanopticNetwork:
    torch.manual_seed(0)
    return build_network(network_settings, VOCABULARY)


def test_the_teacher_moves_a_thousandth_towards_the_student(network: PanopticNetwork) -> None:
    teacher = copy.deepcopy(network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight))
    before = copy.deepcopy(teacher)
    update_teacher(teacher, network, 0.999)
    for now, old, student in zip(
        teacher.parameters(), before.parameters(), network.parameters(), strict=True
    ):
        torch.testing.assert_close(now, 0.999 * old + 0.001 * student)


def test_backbone_and_normalisation_are_the_same_bits_before_and_after(
    tmp_path: Path,
    images: list[np.ndarray],
    network: PanopticNetwork,
    self_training_settings: SelfTrainingSettings,
) -> None:
    before = copy.deepcopy(network.state_dict())
    heads = {id(weight) for weight in network.head_parameters()}
    trained = {name for name, weight in network.named_parameters() if id(weight) in heads}
    result = train_self(images, network, self_training_settings, seed=0, device=CPU, cache_dir=tmp_path)
    for name, value in result.network.state_dict().items():
        if name not in trained:
            assert torch.equal(value, before[name]), name
    moved = [name for name in trained if not torch.equal(result.network.state_dict()[name], before[name])]
    assert len(moved) > len(trained) // 2


def test_the_reported_network_is_the_teacher(
    tmp_path: Path,
    images: list[np.ndarray],
    network: PanopticNetwork,
    self_training_settings: SelfTrainingSettings,
) -> None:
    settings = dataclasses.replace(self_training_settings, steps=2, ema_decay=1.0)
    before = network.semantic_head.classify.weight.clone()
    result = train_self(images, network, settings, seed=0, device=CPU, cache_dir=tmp_path)
    assert torch.equal(result.network.semantic_head.classify.weight, before)
    assert not torch.equal(network.semantic_head.classify.weight, before)
    assert not result.network.training


def test_no_step_hands_the_guided_network_on(
    tmp_path: Path,
    images: list[np.ndarray],
    network: PanopticNetwork,
    self_training_settings: SelfTrainingSettings,
) -> None:
    before = copy.deepcopy(network.state_dict())
    settings = dataclasses.replace(self_training_settings, steps=0)
    result = train_self(images, network, settings, seed=0, device=CPU, cache_dir=tmp_path)
    assert result.curve == []
    assert all(torch.equal(value, before[name]) for name, value in result.network.state_dict().items())


def test_confidence_rises_once_per_round() -> None:
    paper = default_settings("self_training", "paper")
    assert [round(confidence_of_step(step, paper), 3) for step in (0, 499, 500, 999, 1000, 1499)] == [
        0.7, 0.7, 0.75, 0.75, 0.8, 0.8,
    ]  # fmt: skip
    constant = dataclasses.replace(paper, confidence_step=0.0)
    assert {confidence_of_step(step, constant) for step in range(1500)} == {0.7}


def test_a_class_that_reaches_six_tenths_keeps_only_pixels_above_three_tenths() -> None:
    probs = torch.zeros(3, 1, 4)
    probs[1, 0] = torch.tensor([0.6, 0.31, 0.29, 0.1])
    for next_best in (True, False):
        assert confident_semantics(probs, 0.5, next_best=next_best).tolist() == [[1, 1, VOID, VOID]]


def test_where_the_best_class_is_not_confident_the_pixel_is_void_or_the_next_one_that_is_wins() -> None:
    probs = torch.tensor([[[0.9, 0.4]], [[0.1, 0.3]], [[0.0, 0.2]]])
    assert confident_semantics(probs, 0.5, next_best=True).tolist() == [[0, 1]]
    assert confident_semantics(probs, 0.5, next_best=False).tolist() == [[0, VOID]]


def prediction(scores: list[float], semantic: np.ndarray) -> Prediction:
    """Objects side by side, ten pixels wide, over a certain semantic map."""
    boxes = torch.tensor([[12.0 * n, 2, 12 * n + 10, 12] for n in range(len(scores))])
    found = Detections(
        boxes, torch.tensor(scores), torch.arange(len(scores)) % 2, torch.ones(len(scores), 28, 28)
    )
    probs = torch.nn.functional.one_hot(torch.from_numpy(semantic).long(), 4).permute(2, 0, 1).float()
    return Prediction(found, probs)


def label(scores: list[float], semantic: np.ndarray, *, ignore: bool) -> object:
    return self_label(
        np.zeros((*semantic.shape, 3), np.uint8),
        prediction(scores, semantic),
        instance_confidence=0.7,
        overlap_share=0.5,
        semantic_confidence=0.5,
        next_best=True,
        ignore_uncovered_things=ignore,
    )


def test_only_confident_objects_become_labels_and_the_semantics_agree_with_them() -> None:
    semantic = np.full((16, 40), 2)
    semantic[2:12, 0:22] = 0
    sample = label([0.9, 0.6], semantic, ignore=True)
    assert sample.classes == (0,)
    assert (sample.semantic[sample.instance > 0] == 0).all()
    assert (sample.semantic[4:10, 14:20] == VOID).all()
    assert (label([0.9, 0.6], semantic, ignore=False).semantic[4:10, 14:20] == 0).all()


def test_an_accepted_object_is_thing_even_where_the_semantic_head_says_stuff() -> None:
    sample = label([0.9], np.full((16, 40), 2), ignore=True)
    assert (sample.semantic[4:10, 2:8] == 0).all()


def test_an_image_without_a_confident_object_has_an_empty_list() -> None:
    sample = label([0.5], np.full((16, 40), 2), ignore=True)
    assert sample.classes == ()
    assert (sample.semantic == 2).all()
    assert sample.size == (16, 40)
