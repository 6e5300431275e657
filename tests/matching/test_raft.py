"""RAFT against torchvision's, and its parts against hand-made examples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import optical_flow
from torchvision.models.optical_flow import raft as blocks

from gestalt.errors import ConfigError, ShapeError
from gestalt.matching.raft import Raft, correlate, look_up, upsample_convexly

WINDOW_WEIGHT = "update_block.motion_encoder.convcorr1.0.weight"


def independent_raft(variant: str) -> nn.Module:
    """Torchvision's RAFT with the norms of SMURF."""
    if variant == "small":
        return optical_flow.raft_small(weights=None).eval()
    encoder = blocks.FeatureEncoder(norm_layer=nn.InstanceNorm2d)
    return optical_flow.raft_large(weights=None, context_encoder=encoder).eval()


def with_columns_first(weights: dict[str, Tensor], radius: int) -> dict[str, Tensor]:
    """The same weights for torchvision's lookup, whose windows run down the columns."""
    side = 2 * radius + 1
    weight = weights[WINDOW_WEIGHT]
    turned = weight.view(len(weight), 4, side, side).transpose(2, 3).reshape(weight.shape)
    return {**weights, WINDOW_WEIGHT: turned}


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 128, 136, generator=generator), torch.rand(2, 3, 128, 136, generator=generator)


@pytest.fixture(scope="module", params=["large", "small"])
def network(request: pytest.FixtureRequest) -> Raft:
    torch.manual_seed(1)
    return Raft(request.param).eval()


@torch.no_grad()
def test_every_update_is_that_of_torchvision_with_the_same_numbers(
    network: Raft, pair: tuple[Tensor, Tensor]
) -> None:
    reference = independent_raft(network.variant)
    radius = {"large": 4, "small": 3}[network.variant]
    reference.load_state_dict(with_columns_first(network.state_dict(), radius))
    expected = reference(2 * pair[0] - 1, 2 * pair[1] - 1, num_flow_updates=3)
    found = network(*pair, 3)
    assert len(found) == 3
    assert float(expected[-1].abs().max()) > 0.5
    for ours, theirs in zip(found, expected):
        assert torch.allclose(ours, theirs, atol=1e-4)
    # The order of the window matters: with the numbers as they are, torchvision's network is another one.
    reference.load_state_dict(network.state_dict())
    other = reference(2 * pair[0] - 1, 2 * pair[1] - 1, num_flow_updates=3)
    assert float((other[-1] - expected[-1]).abs().max()) > 0.01


@torch.no_grad()
def test_features_encoded_apart_give_the_last_update(network: Raft, pair: tuple[Tensor, Tensor]) -> None:
    first, second = network.encode(pair[0]), network.encode(pair[1])
    assert first.matching.shape[2:] == (16, 17)
    assert float(first.hidden.abs().max()) <= 1
    assert float(first.context.min()) == 0
    assert torch.allclose(network.displace(first, second, 2), network(*pair, 2)[-1], atol=1e-5)


@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other(network: Raft, pair: tuple[Tensor, Tensor]) -> None:
    alone = network(pair[0][1:], pair[1][1:], 2)[-1]
    assert torch.allclose(network(*pair, 2)[-1][1:], alone, atol=1e-4)


def test_training_reaches_every_weight(network: Raft) -> None:
    images = torch.rand(1, 3, 64, 72, generator=torch.Generator().manual_seed(2))
    network.zero_grad()
    sum(step.abs().mean() for step in network(images, images.flip(3), 2)).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert bool(weight.grad.isfinite().all()), name
    assert float(network.feature_encoder.conv.weight.grad.abs().max()) > 0
    network.zero_grad()


@torch.no_grad()
def test_half_precision_keeps_displacements_in_float32(network: Raft) -> None:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = network.encode(images)
        assert features.matching.dtype == torch.bfloat16
        assert correlate(features.matching, features.matching)[0].dtype == torch.float32
        found = network.displace(features, features, 2)
    assert found.dtype == torch.float32
    exact = network(images, images, 2)[-1]
    assert float((found - exact).abs().mean()) < 0.1 * float(exact.abs().mean()) + 0.05


def test_correlation_is_a_scaled_product_and_its_levels_are_block_means() -> None:
    generator = torch.Generator().manual_seed(4)
    first, second = torch.rand(2, 16, 9, 8, generator=generator), torch.rand(2, 16, 9, 8, generator=generator)
    pyramid = correlate(first, second)
    assert [tuple(level.shape) for level in pyramid] == [
        (144, 1, 9, 8), (144, 1, 4, 4), (144, 1, 2, 2), (144, 1, 1, 1),
    ]  # fmt: skip
    products = torch.einsum("bchw,bcyx->bhwyx", first, second) / 4
    assert torch.allclose(pyramid[0].view(2, 9, 8, 9, 8), products, atol=1e-5)
    for level in (1, 2, 3):
        side = 2**level
        means = products[1, 3, 5, :side, :side].mean()
        assert torch.allclose(pyramid[level].view(2, 9, 8, *pyramid[level].shape[2:])[1, 3, 5, 0, 0], means)


def test_a_window_runs_in_rows_and_is_empty_outside() -> None:
    # One cell of the first image, whose correlation with the cell in row y and column x is 10 y + x.
    values = (10 * torch.arange(6.0)[:, None] + torch.arange(7.0)).view(1, 1, 6, 7)
    centre = torch.tensor([2.0, 3.0]).view(1, 2, 1, 1)
    assert look_up([values], centre, 1).flatten().tolist() == pytest.approx(
        [21, 22, 23, 31, 32, 33, 41, 42, 43]
    )
    between = look_up([values], centre + torch.tensor([0.5, 0.25]).view(1, 2, 1, 1), 1)
    assert float(between[0, 4]) == pytest.approx(35)
    corner = look_up([values], torch.tensor([6.0, 0.0]).view(1, 2, 1, 1), 1).flatten()
    assert corner.tolist() == pytest.approx([0, 0, 0, 5, 6, 0, 15, 16, 0], abs=1e-4)


def test_coarser_levels_are_looked_up_where_the_finest_is() -> None:
    fine, coarse = torch.zeros(1, 1, 8, 8), torch.arange(16.0).view(1, 1, 4, 4)
    window = look_up([fine, coarse], torch.tensor([4.0, 2.0]).view(1, 2, 1, 1), 1)
    assert window.shape == (1, 18, 1, 1)
    # x = 4, y = 2 are column 2, row 1 of the coarser level.
    assert window[0, 9:].flatten().tolist() == pytest.approx([1, 2, 3, 5, 6, 7, 9, 10, 11])


def test_convex_upsampling_takes_the_cells_that_the_weights_name() -> None:
    cells = torch.rand(1, 2, 3, 4, generator=torch.Generator().manual_seed(5))
    own = torch.full((1, 9, 8, 8, 3, 4), -100.0)
    own[:, 4] = 100
    nearest = upsample_convexly(cells, own.view(1, 576, 3, 4))
    assert torch.allclose(nearest, 8 * cells.repeat_interleave(8, 2).repeat_interleave(8, 3))
    above = own.roll(-3, 1)  # entry 1 of a 3x3 block is the cell above
    moved = upsample_convexly(cells, above.reshape(1, 576, 3, 4))
    assert torch.allclose(moved[..., 8:, :], nearest[..., :-8, :])
    assert float(moved[..., :8, :].abs().max()) == 0


def test_the_smallest_image_and_what_is_refused(network: Raft) -> None:
    with torch.no_grad():
        smallest = network(torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64), 1)[0]
    assert smallest.shape == (1, 2, 64, 64)
    assert bool(smallest.isfinite().all())
    with pytest.raises(ShapeError, match=r"at least 64 rows and columns\. Got: 56x64"):
        network.encode(torch.zeros(1, 3, 56, 64))
    with pytest.raises(ShapeError, match=r"multiples of 8. Got: \(1, 3, 68, 64\)"):
        network.encode(torch.zeros(1, 3, 68, 64))
    with pytest.raises(ShapeError, match=r"\(1, 1, 64, 64\)"):
        network.encode(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ShapeError, match="one shape"):
        network(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 72), 1)
    with pytest.raises(ConfigError, match="at least one update"):
        network(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64), 0)


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"large, small\. Got: 'huge'"):
        Raft("huge")
