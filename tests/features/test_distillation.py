"""Heads, losses, centre and schedules against derivations in numpy, float64, and against hand-computed numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import erf, log_softmax, softmax
from torch import nn
from torch.nn import functional

from gestalt.errors import ConfigError
from gestalt.features.distillation import (
    DistilledNetwork,
    ProjectionHead,
    clip_each,
    cosine,
    cross_view_loss,
    move_centre,
    move_teacher,
    place_losses,
    read_places,
    straight,
    teacher_distribution,
    weight_groups,
)
from tests.features.small_distillation import quick_settings

FloatArray = npt.NDArray[np.float64]
SETTINGS = quick_settings()


def make_head(seed: int = 0) -> ProjectionHead:
    torch.manual_seed(seed)
    head = ProjectionHead(12, SETTINGS.projection).double()
    for value in head.parameters():  # biases too, so that they matter
        nn.init.normal_(value, std=0.5)
    return head


def head_in_numpy(head: ProjectionHead, tokens: FloatArray) -> FloatArray:
    weights = {name: value.detach().numpy() for name, value in head.named_parameters()}
    for layer in (0, 2, 4):
        tokens = tokens @ weights[f"layers.{layer}.weight"].T + weights[f"layers.{layer}.bias"]
        if layer < 4:
            tokens = tokens * 0.5 * (1 + erf(tokens / math.sqrt(2)))
    unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    directions = weights["directions"] / np.linalg.norm(weights["directions"], axis=1, keepdims=True)
    logits: FloatArray = unit @ directions.T
    return logits


def loss_in_numpy(student: FloatArray, teacher: FloatArray, centre: FloatArray) -> float:
    """The published double loop over crops."""
    total, terms = 0.0, 0
    for own in range(len(teacher)):
        wanted = softmax((teacher[own] - centre) / 0.04, axis=-1)
        for other in range(len(student)):
            if own != other:
                total += float(-(wanted * log_softmax(student[other] / 0.1, axis=-1)).sum(-1).mean())
                terms += 1
    return total / terms


def test_head_and_loss_are_those_of_the_derivation() -> None:
    rng = np.random.default_rng(0)
    student_head, teacher_head = make_head(0), make_head(1)
    tokens = rng.standard_normal((5, 3, 12))  # two global crops and three local ones of three images
    centre = rng.standard_normal(32) * 0.1
    student = student_head(torch.from_numpy(tokens))
    teacher = teacher_head(torch.from_numpy(tokens[:2]))
    np.testing.assert_allclose(student.detach().numpy(), head_in_numpy(student_head, tokens), atol=1e-12)
    assert float(student.detach().abs().max()) <= 1
    expected = loss_in_numpy(
        head_in_numpy(student_head, tokens), head_in_numpy(teacher_head, tokens[:2]), centre
    )
    wanted = teacher_distribution(teacher, torch.from_numpy(centre).float(), 0.04)
    found = cross_view_loss(student, wanted, 0.1)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_gradients_are_softmax_minus_teacher_and_reach_the_student_only() -> None:
    student = torch.randn(3, 2, 7, generator=torch.manual_seed(0), requires_grad=True)
    logits = torch.randn(2, 2, 7, generator=torch.manual_seed(1), requires_grad=True)
    wanted = teacher_distribution(logits, torch.zeros(7), 0.5)
    assert not wanted.requires_grad
    cross_view_loss(student, wanted, 0.1).backward()
    assert student.grad is not None
    # The local crop learns from both global ones, each global one from the other: 4 pairs of 2 images.
    expected = (2 * (student[2] / 0.1).softmax(-1) - wanted.sum(0)) / 0.1 / (4 * 2)
    torch.testing.assert_close(student.grad[2], expected.detach())
    expected = ((student[0] / 0.1).softmax(-1) - wanted[1]) / 0.1 / (4 * 2)
    torch.testing.assert_close(student.grad[0], expected.detach())


def test_a_student_that_knows_nothing_loses_the_logarithm_of_the_outputs() -> None:
    wanted = teacher_distribution(torch.randn(2, 4, 9), torch.zeros(9), 0.04)
    assert float(cross_view_loss(torch.zeros(6, 4, 9), wanted, 0.1)) == pytest.approx(math.log(9))
    places = wanted[:, :, None].expand(-1, -1, 5, -1)
    assert place_losses(torch.zeros(2, 4, 5, 9), places, 0.1).tolist() == pytest.approx([math.log(9)] * 4)


def test_places_learn_from_the_same_place_of_the_other_crop() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.standard_normal((2, 3, 4, 6)), rng.standard_normal((2, 3, 4, 6))
    wanted = teacher_distribution(torch.from_numpy(teacher), torch.zeros(6), 0.04)
    found = place_losses(torch.from_numpy(student), wanted, 0.1)
    expected = [
        np.mean([
            -(softmax(teacher[1 - view, image, place] / 0.04) * log_softmax(student[view, image, place] / 0.1)).sum()
            for view in range(2)
            for place in range(4)
        ])
        for image in range(3)
    ]  # fmt: skip
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_tokens_are_read_where_places_are() -> None:
    tokens = torch.rand(2, 5, 4, 6)
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    centres = torch.stack([(columns + 0.5) / 3 - 1, (rows + 0.5) / 2 - 1], -1).flatten(0, 1)
    found = read_places(tokens, centres.expand(2, -1, -1))
    torch.testing.assert_close(found, tokens.flatten(2).transpose(1, 2), atol=1e-5, rtol=0)
    between = read_places(tokens, torch.tensor([[[0.0, 0.0]]]).expand(2, -1, -1))
    torch.testing.assert_close(between[:, 0], tokens[:, :, 1:3, 2:4].mean((2, 3)))


def test_centre_and_teacher_follow_by_their_momentum() -> None:
    centre = torch.tensor([1.0, -1.0])
    move_centre(centre, torch.tensor([0.0, 1.0]), 0.9)
    torch.testing.assert_close(centre, torch.tensor([0.9, -0.8]))
    teacher, student = nn.Linear(2, 1), nn.Linear(2, 1)
    for value, number in (
        (teacher.weight, 4.0),
        (teacher.bias, 0.0),
        (student.weight, 8.0),
        (student.bias, 2.0),
    ):
        nn.init.constant_(value, number)
    move_teacher(teacher, student, 0.75)
    assert teacher.weight.tolist() == [[5.0, 5.0]]
    assert teacher.bias.tolist() == [0.5]
    assert student.weight.tolist() == [[8.0, 8.0]]
    move_teacher(teacher, student, 1.0)
    assert teacher.bias.tolist() == [0.5]


def test_the_centre_takes_away_what_the_teacher_always_says() -> None:
    always, own = torch.tensor([5.0, 0.0, 0.0]), torch.tensor([0.0, 0.1, 0.0])
    assert teacher_distribution(always + own, torch.zeros(3), 0.04).argmax() == 0
    found = teacher_distribution(always + own, always, 0.04)
    torch.testing.assert_close(found, (own / 0.04).softmax(0))


def test_each_gradient_is_clipped_by_itself() -> None:
    small, large = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    small.grad, large.grad = torch.tensor([0.3, 0.4]), torch.tensor([6.0, 8.0])
    norm = clip_each([small, large, nn.Parameter(torch.zeros(1))], 3.0)
    assert float(norm) == pytest.approx(math.hypot(0.5, 10))
    torch.testing.assert_close(small.grad, torch.tensor([0.3, 0.4]))
    torch.testing.assert_close(large.grad, torch.tensor([1.8, 2.4]))


def test_schedules_are_those_of_the_published_code() -> None:
    base, final, steps, warm = 0.5, 0.1, 20, 5
    rest = np.arange(steps - warm)
    published = np.concatenate(
        [np.linspace(0, base, warm), final + 0.5 * (base - final) * (1 + np.cos(np.pi * rest / len(rest)))]
    )
    assert [cosine(step, steps, base, final, warm) for step in range(steps)] == pytest.approx(
        published.tolist()
    )
    assert cosine(0, 10, 0.996, 1.0) == pytest.approx(0.996)
    assert cosine(5, 10, 0.996, 1.0) == pytest.approx(0.998)
    assert cosine(10, 10, 0.996, 1.0) == pytest.approx(1.0)
    temperatures = np.linspace(0.03, 0.04, 4).tolist()
    assert [straight(step, 4, 0.03, 0.04) for step in range(6)] == pytest.approx([*temperatures, 0.04, 0.04])
    assert straight(0, 0, 0.03, 0.04) == 0.04


def test_biases_and_norms_do_not_decay_and_everything_is_in_one_group() -> None:
    network = DistilledNetwork(SETTINGS)
    decaying, staying = weight_groups(network)
    names = {id(value): name for name, value in network.named_parameters()}
    decay_names = {names[id(value)] for value in params(decaying)}
    stay_names = {names[id(value)] for value in params(staying)}
    assert decay_names | stay_names == set(names.values())
    assert not decay_names & stay_names
    assert {"head.directions", "backbone.cls_token", "backbone.patch_embed.proj.weight"} <= decay_names
    assert all("bias" in name or "norm" in name for name in stay_names)


def test_answers_have_the_crops_in_order_and_the_network_has_the_wanted_size() -> None:
    torch.manual_seed(0)
    network = DistilledNetwork(SETTINGS).eval()
    views, small = torch.randn(2, 3, 3, 24, 24), torch.randn(2, 3, 3, 16, 16)
    places = torch.zeros(2, 3, 5, 2)
    answers = network(views, small, places, attention=True)
    assert answers.logits.shape == (4, 3, 32)
    assert answers.tokens.shape == (2, 3, 24, 3, 3)
    assert answers.place_logits.shape == (2, 3, 5, 32)
    assert answers.attention.shape == (2, 3, 2, 3, 3)
    alone = network(views[1:, 2:].expand(2, -1, -1, -1, -1), None, places[:, :1])
    torch.testing.assert_close(alone.logits[0, 0], answers.logits[1, 2])
    torch.testing.assert_close(alone.place_logits[0, 0], answers.place_logits[1, 2])
    local = network.head(network.backbone(small[1]).cls)
    torch.testing.assert_close(local, answers.logits[3])
    # The middle of a 3 x 3 grid is its middle cell.
    middle = network.place_head(answers.tokens[:, :, :, 1, 1])
    torch.testing.assert_close(answers.place_logits[:, :, 0], middle)
    assert DistilledNetwork(quick_settings("dense.weight=0")).place_head is None


def test_the_embedded_backbone_has_nearly_three_million_weights() -> None:
    from gestalt.features.distillation import vit_layout
    from gestalt.features.distillation_training import SETTINGS as FILE
    from gestalt.features.distillation_training import read_settings
    from gestalt.features.vit import VisionTransformer

    backbone = VisionTransformer(vit_layout(read_settings(FILE, [])))
    n_weights = sum(value.numel() for value in backbone.parameters())
    assert 2.7e6 < n_weights < 3e6
    with pytest.raises(ConfigError, match="heads divide width"):
        vit_layout(quick_settings("vit.heads=5"))


def test_logits_do_not_depend_on_the_lengths_of_directions_or_bottleneck() -> None:
    head, tokens = make_head().float(), torch.randn(4, 12)
    before = head(tokens)
    with torch.no_grad():
        head.directions.mul_(3)
        last: Any = head.layers[4]
        last.weight.mul_(2)
        last.bias.mul_(2)
    torch.testing.assert_close(head(tokens), before)
    assert functional.normalize(head.directions, dim=1).norm(dim=1).allclose(torch.ones(32))


def params(group: dict[str, object]) -> list[nn.Parameter]:
    found = group["params"]
    assert isinstance(found, list)
    return found
