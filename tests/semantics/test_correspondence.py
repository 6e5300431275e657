"""Sampling, pairing and the loss, against loops in double precision and by hand."""

import math

import pytest
import torch

from gestalt.errors import ShapeError
from gestalt.semantics.correspondence import (
    Correlations,
    centre_correlations,
    correspondence_losses,
    cosine_correlations,
    draw_derangements,
    draw_positions,
    measure_shifts,
    pair_up,
    sample_positions,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_positions_are_x_then_y_on_a_grid_that_is_not_square() -> None:
    rows, columns = torch.arange(3.0)[:, None].expand(3, 7), torch.arange(7.0).expand(3, 7)
    maps = torch.stack([columns, rows])[None]
    positions = torch.tensor([[[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [0.0, 0.0], [1 / 3, -0.5]]])
    x, y = sample_positions(maps, positions)[0]
    torch.testing.assert_close(x, torch.tensor([0.0, 6, 0, 3, 4]))
    torch.testing.assert_close(y, torch.tensor([0.0, 0, 2, 1, 0.5]))


def test_drawn_positions_fill_the_square_independently() -> None:
    drawn = draw_positions(50, 400, generator())
    assert drawn.shape == (50, 400, 2)
    assert -1 <= float(drawn.min()) <= -0.99
    assert 0.99 <= float(drawn.max()) <= 1
    assert abs(float((drawn[..., 0] * drawn[..., 1]).mean())) < 0.01


def test_positions_of_another_batch_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2, P, 2\)"):
        sample_positions(torch.zeros(2, 1, 3, 3), torch.zeros(1, 4, 2))


@pytest.mark.parametrize("size", [2, 3, 8])
def test_derangements_are_permutations_without_fixed_points(size: int) -> None:
    drawn = draw_derangements(size, 200, generator())
    assert (drawn.sort(1).values == torch.arange(size)).all()
    assert not (drawn == torch.arange(size)).any()


def test_every_other_element_is_equally_likely() -> None:
    drawn = draw_derangements(4, 6000, generator())
    counts = torch.bincount(drawn[:, 0], minlength=4)
    assert counts[0] == 0
    assert (counts[1:] - 2000).abs().max() < 200


def test_one_element_has_no_derangement() -> None:
    with pytest.raises(ShapeError, match="at least 2"):
        draw_derangements(1, 1, generator())


def random_pairs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = torch.randn(3, 4, 5, 6, generator=generator(seed), dtype=torch.float64)
    return draws[0], draws[1], draws[2], draw_derangements(4, 2, generator(seed))


def loop_loss(
    anchors: torch.Tensor,
    others: torch.Tensor,
    codes: torch.Tensor,
    other_codes: torch.Tensor,
    shift: float,
    centring: bool,
    clamp_high: float,
) -> float:
    """The definition, pair by pair: (B, C, P) features and codes of one kind of pair."""
    B, _, P = anchors.shape
    features = torch.zeros(B, P, P, dtype=torch.float64)
    cosines = torch.zeros(B, P, P, dtype=torch.float64)
    for b in range(B):
        for i in range(P):
            for j in range(P):
                f, g = anchors[b, :, i], others[b, :, j]
                s, t = codes[b, :, i], other_codes[b, :, j]
                features[b, i, j] = f @ g / (f.norm() * g.norm())
                cosines[b, i, j] = s @ t / (s.norm() * t.norm())
    if centring:
        before = float(features.mean())
        for b in range(B):
            for i in range(P):
                features[b, i] -= features[b, i].mean()
        features = features - features.mean() + before
    total = 0.0
    for f, s in zip(features.flatten().tolist(), cosines.flatten().tolist(), strict=True):
        total -= (f - shift) * min(max(s, 0.0), clamp_high)
    return total / features.numel()


@pytest.mark.parametrize(("centring", "clamp_high"), [(True, 1.0), (False, 1.0), (True, 0.3)])
def test_the_loss_equals_its_definition_pair_by_pair(centring: bool, clamp_high: float) -> None:
    own, near, far, derangements = random_pairs()
    own_codes, near_codes, far_codes, _ = random_pairs(1)
    targets = cosine_correlations(own, pair_up(own, near, far, derangements))
    codes = cosine_correlations(own_codes, pair_up(own_codes, near_codes, far_codes, derangements))
    if centring:
        targets = centre_correlations(targets)
    shifts = torch.tensor([0.4, 0.2, 0.3, 0.3], dtype=torch.float64)
    losses = correspondence_losses(Correlations(targets, codes), shifts, clamp_high)
    others = [
        (own, own_codes),
        (near, near_codes),
        *((far[order], far_codes[order]) for order in derangements),
    ]
    expected = [
        loop_loss(own, features, own_codes, found, float(shift), centring, clamp_high)
        for (features, found), shift in zip(others, shifts, strict=True)
    ]
    assert losses.tolist() == pytest.approx(expected, abs=1e-12)


def test_the_loss_does_not_depend_on_the_order_of_the_positions() -> None:
    own, near, far, derangements = random_pairs()
    shuffled = [values[:, :, torch.randperm(6, generator=generator(5))] for values in (own, near, far)]
    losses = []
    for anchors, neighbours, strangers in ((own, near, far), tuple(shuffled)):
        found = cosine_correlations(anchors, pair_up(anchors, neighbours, strangers, derangements))
        losses.append(correspondence_losses(Correlations(centre_correlations(found), found), torch.zeros(4)))
    torch.testing.assert_close(losses[0], losses[1])


def test_centring_keeps_the_mean_of_each_kind_of_pair_and_evens_its_positions() -> None:
    correlations = torch.rand(3, 4, 5, 6, generator=generator(), dtype=torch.float64)
    centred = centre_correlations(correlations)
    torch.testing.assert_close(centred.mean((1, 2, 3)), correlations.mean((1, 2, 3)))
    torch.testing.assert_close(centred.mean(3), correlations.mean((1, 2, 3))[:, None, None].expand(3, 4, 5))


def test_gradient_flows_through_positive_unclamped_codes_only() -> None:
    codes = torch.tensor([-0.5, 0.5, 0.9]).reshape(1, 1, 1, 3).requires_grad_()
    features = torch.tensor([0.7, 0.7, 0.7]).reshape(1, 1, 1, 3)
    correspondence_losses(Correlations(features, codes), torch.tensor([0.2]), 0.8).sum().backward()
    assert codes.grad is not None
    assert codes.grad.flatten().tolist() == pytest.approx([0, -0.5 / 3, 0])


def test_vectors_without_length_correlate_with_nothing() -> None:
    found = cosine_correlations(torch.zeros(1, 4, 2), torch.ones(1, 1, 4, 3))
    assert (found == 0).all()


def test_measured_shifts_have_the_wanted_share_below() -> None:
    correlations = torch.rand(3, 10001, generator=generator()) * torch.tensor([[1.0], [2.0], [3.0]])
    shifts = measure_shifts(correlations, torch.tensor([0.1, 0.25, 0.95]))
    assert shifts.tolist() == pytest.approx([0.1, 0.5, 2.85], abs=0.05)
    below = (correlations < shifts[:, None]).float().mean(1)
    assert below.tolist() == pytest.approx([0.1, 0.25, 0.95], abs=1e-3)


def test_an_angle_between_features_is_its_cosine() -> None:
    left = torch.tensor([[1.0], [0.0]])[None]
    right = torch.tensor([[math.cos(1.0)], [math.sin(1.0)]])[None, None]
    assert float(cosine_correlations(left, 7 * right)) == pytest.approx(math.cos(1.0))
