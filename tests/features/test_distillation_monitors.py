"""Collapse in each of its forms is seen, and a healthy training is let go on."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import torch

from gestalt.errors import DataError
from gestalt.features.distillation import Answers, teacher_distribution
from gestalt.features.distillation_monitors import (
    attention_entropy,
    check_curve,
    effective_rank,
    entropy_share,
    measure,
    same_sequence_share,
    token_spread,
)
from tests.features.small_distillation import quick_settings

SETTINGS = dataclasses.replace(
    quick_settings().monitors, start_step=10, patience=3, max_loss=1.0, min_rank=2.0
)
OUTPUTS = 64


def answers(logits: torch.Tensor, **values: torch.Tensor) -> Answers:
    generator = torch.manual_seed(0)
    plain = {
        "cls": torch.randn(2, 8, 6, generator=generator),
        "tokens": torch.randn(2, 8, 6, 3, 3, generator=generator),
        "place_logits": torch.randn(2, 8, 4, OUTPUTS, generator=generator) * 0.2,
        "attention": torch.rand(2, 8, 2, 3, 3, generator=generator),
    }
    return Answers(logits=logits, **{**plain, **values})


def measures_of(found: Answers, centre: torch.Tensor | None = None) -> dict[str, float]:
    zero = torch.zeros(OUTPUTS)
    assert found.place_logits is not None
    distributions = teacher_distribution(found.logits, zero if centre is None else centre, 0.04)
    places = teacher_distribution(found.place_logits, zero, 0.04)
    return {name: float(value) for name, value in measure(found, distributions, places).items()}


def rows(values: dict[str, float], n: int = 5, **more: float) -> list[dict[str, float]]:
    return [{"step": 10.0 * (index + 1), "views": 3.0, **values, **more} for index in range(n)]


def healthy() -> dict[str, float]:
    return measures_of(answers(torch.randn(2, 8, OUTPUTS, generator=torch.manual_seed(1)) * 0.2))


def test_entropies_are_shares_of_the_uniform_one() -> None:
    assert float(entropy_share(torch.full((3, 8), 1 / 8))) == pytest.approx(1)
    assert float(entropy_share(torch.eye(8))) == 0
    half = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    assert float(entropy_share(half)) == pytest.approx(math.log(2) / math.log(4))


def test_effective_rank_counts_directions() -> None:
    generator = torch.manual_seed(0)
    assert float(effective_rank(torch.ones(20, 5))) == 0
    line = torch.randn(20, 1, generator=generator) * torch.ones(5)
    assert float(effective_rank(line)) == pytest.approx(1, abs=1e-4)
    plus = torch.cat([torch.eye(4), -torch.eye(4)]) + 7  # around any mean, four directions alike
    assert float(effective_rank(plus)) == pytest.approx(4, abs=1e-4)


def test_token_spread_and_attention_tell_alike_from_different() -> None:
    alike = torch.randn(2, 6, 1, 1).expand(-1, -1, 3, 3)
    assert float(token_spread(alike)) == pytest.approx(0, abs=1e-6)
    opposite = torch.cat([torch.ones(1, 6, 1, 2), -torch.ones(1, 6, 1, 2)], 3)
    assert float(token_spread(opposite)) == pytest.approx(1)
    assert float(attention_entropy(torch.full((2, 3, 4, 4), 0.01))) == pytest.approx(1)
    one = torch.zeros(2, 3, 4, 4)
    one[..., 1, 2] = 0.5
    assert float(attention_entropy(one)) == 0


def test_a_healthy_training_goes_on() -> None:
    check_curve(rows(healthy()), SETTINGS, OUTPUTS)


def collapse(kind: str) -> dict[str, float]:
    """Measures of a teacher that collapsed in one way."""
    generator = torch.manual_seed(2)
    varied = torch.randn(2, 8, OUTPUTS, generator=generator) * 0.2
    same = varied[:1, :1].expand(2, 8, -1)
    peak = torch.zeros(2, 8, OUTPUTS)
    peak[..., 3] = 1
    if kind == "one answer":
        return measures_of(answers(peak + 1e-2 * varied))
    if kind == "constant logits":
        return measures_of(answers(same), centre=same[0, 0])
    if kind == "uniform":
        return measures_of(answers(varied * 1e-3))
    if kind == "places":
        return measures_of(answers(varied, place_logits=peak[:, :, None].expand(-1, -1, 4, -1) + 1e-6))
    if kind == "rank":
        return measures_of(answers(varied, cls=torch.randn(2, 8, 1, generator=generator).expand(-1, -1, 6)))
    if kind == "tokens":
        return measures_of(answers(varied, tokens=torch.ones(2, 8, 6, 3, 3)))
    return measures_of(answers(varied, attention=torch.ones(2, 8, 2, 3, 3)))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("one answer", "nearly all crops the same answer.*temperature"),
        ("constant logits", "do not differ between crops"),
        ("uniform", "do not differ between crops|for crops are uniform"),
        ("places", "nearly all places the same answer"),
        ("rank", "too few directions"),
        ("tokens", "all cells of an image have the same features"),
        ("attention", "CLS looks at all cells alike"),
    ],
)
def test_every_collapse_stops_with_its_reason(kind: str, reason: str) -> None:
    found = collapse(kind)
    with pytest.raises(DataError, match=f"stopped after step 50.*({reason})"):
        check_curve(rows(found), SETTINGS, OUTPUTS)


def test_uniform_answers_and_a_loss_that_does_not_fall_have_reasons_of_their_own() -> None:
    fine = healthy()
    with pytest.raises(DataError, match="answers for crops are uniform"):
        check_curve(rows(fine | {"teacher_entropy": 0.9999}), SETTINGS, OUTPUTS)
    loss = math.log(OUTPUTS)
    with pytest.raises(DataError, match=re.escape(f"(limit {loss:.4g})")):
        check_curve(rows(fine, views=loss + 0.1), SETTINGS, OUTPUTS)
    check_curve(rows(fine, views=loss - 0.1), SETTINGS, OUTPUTS)


def test_limits_wait_for_the_start_and_for_patience() -> None:
    bad = collapse("rank")
    check_curve(rows(bad, n=3), SETTINGS, OUTPUTS)  # the first of the three rows is not behind the start
    mixed = rows(bad)
    mixed[3] |= healthy()
    check_curve(mixed, SETTINGS, OUTPUTS)
    with pytest.raises(DataError):
        check_curve(rows(bad, n=4), SETTINGS, OUTPUTS)


def test_a_head_that_is_not_there_is_not_judged() -> None:
    found = answers(torch.randn(2, 8, OUTPUTS, generator=torch.manual_seed(1)) * 0.2)
    distributions = teacher_distribution(found.logits, torch.zeros(OUTPUTS), 0.04)
    measures = {name: float(value) for name, value in measure(found, distributions, None).items()}
    assert not [name for name in measures if name.startswith("place")]
    check_curve(rows(measures), SETTINGS, OUTPUTS)


def test_frames_of_a_sequence_are_found_by_their_features() -> None:
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    assert same_sequence_share(features, ["a", "a", "b", "b"]) == pytest.approx((1.0, 1 / 3))
    assert same_sequence_share(features, ["a", "b", "a", "b"])[0] == 0
