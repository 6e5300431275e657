"""Windows, the halved view and their fusion."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gestalt.errors import ShapeError
from gestalt.runtime import torch_generator
from gestalt.semantics.classifiers import PixelClassifier, to_pixels
from gestalt.semantics.depth_guided import (
    fuse_log_prob,
    halved_log_prob,
    near_weight,
    whole_log_prob,
    window_positions,
    windowed_log_prob,
)

STRIDE = 4


def describe(images: Tensor, geometry: Tensor | None) -> Tensor:
    """Mean colour of each cell, then mean geometry."""
    maps = images if geometry is None else torch.cat([images, geometry], 1)
    bottom, right = -maps.shape[-2] % STRIDE, -maps.shape[-1] % STRIDE
    maps = torch.nn.functional.pad(maps, (0, right, 0, bottom), mode="replicate")
    return torch.nn.functional.avg_pool2d(maps, STRIDE)


class RandomClasses(PixelClassifier):
    """Five fixed linear functions of any vector."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(5, 0))

    def pixel_logits(self, vectors: Tensor, cell_px: int, height: int, width: int) -> Tensor:
        weights = torch.randn(5, vectors.shape[1], generator=torch_generator(0)) * 3
        return to_pixels(torch.einsum("kd,bdhw->bkhw", weights, vectors), cell_px, height, width)


classify = RandomClasses()


def image(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch_generator(height, str(width)))


@given(st.integers(1, 200), st.integers(1, 80), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_windows_cover_every_pixel_and_stay_inside(length: int, window: int, step: int) -> None:
    step = min(step, window)
    covered = np.zeros(length, int)
    for first in window_positions(length, window, step):
        assert first >= 0
        assert first + min(window, length) <= length
        covered[first : first + window] += 1
    assert covered.min() >= 1


def test_the_papers_sizes_give_the_papers_windows() -> None:
    assert len(window_positions(640, 320, 160)) * len(window_positions(1280, 320, 160)) == 21
    assert len(window_positions(368, 184, 92)) * len(window_positions(1104, 184, 92)) == 33


@pytest.mark.parametrize("size", [(32, 48), (37, 51), (16, 9), (3, 5), (1, 1)])
def test_every_branch_gives_probabilities_in_any_size(size: tuple[int, int]) -> None:
    geometry = torch.rand(1, 2, *size)
    for log_prob in (
        whole_log_prob(describe, classify, image(*size), geometry, STRIDE),
        halved_log_prob(describe, classify, image(*size), geometry, STRIDE),
        windowed_log_prob(describe, classify, image(*size), geometry, STRIDE, 4),
    ):
        assert log_prob.shape == (5, *size)
        assert torch.isfinite(log_prob).all()
    torch.testing.assert_close(
        whole_log_prob(describe, classify, image(*size), None, STRIDE).exp().sum(0), torch.ones(size)
    )


def test_a_constant_image_gives_constant_and_equal_probabilities_in_all_branches() -> None:
    constant = torch.full((1, 3, 40, 72), 0.3)
    branches = [
        whole_log_prob(describe, classify, constant, None, STRIDE),
        halved_log_prob(describe, classify, constant, None, STRIDE),
        windowed_log_prob(describe, classify, constant, None, STRIDE, 3),
    ]
    for log_prob in branches:
        torch.testing.assert_close(log_prob, branches[0][:, :1, :1].expand_as(log_prob))


def test_the_number_of_windows_at_once_changes_nothing() -> None:
    one = windowed_log_prob(describe, classify, image(37, 51), None, STRIDE, 1)
    all_at_once = windowed_log_prob(describe, classify, image(37, 51), None, STRIDE, 1000)
    torch.testing.assert_close(one, all_at_once)


def test_windows_of_local_features_agree_with_the_whole_image_away_from_window_borders() -> None:
    # 32 rows: windows begin at multiples of 8, so their cells are cells of the image.
    whole = whole_log_prob(describe, classify, image(32, 64), None, STRIDE)
    windowed = windowed_log_prob(describe, classify, image(32, 64), None, STRIDE, 8)
    difference = (whole - windowed).abs().amax(0)
    assert float(difference[4:6, 4:6].max()) < 1e-5
    assert float(difference.mean()) < 0.2 * float(whole.std())


def test_the_halved_view_of_a_symmetric_image_is_symmetric() -> None:
    half = image(40, 36)
    symmetric = torch.cat([half, half.flip(-1)], -1)
    log_prob = halved_log_prob(describe, classify, symmetric, None, STRIDE)
    torch.testing.assert_close(log_prob, log_prob.flip(-1), atol=1e-5, rtol=1e-5)


def test_the_halved_view_averages_an_image_and_its_mirror_image() -> None:
    def one_sided(images: Tensor, geometry: Tensor | None) -> Tensor:
        cells = describe(images, geometry)
        return torch.cat([cells[..., :1], cells.diff(dim=-1)], -1)

    mirrored = halved_log_prob(one_sided, classify, image(40, 72).flip(-1), None, STRIDE).flip(-1)
    torch.testing.assert_close(halved_log_prob(one_sided, classify, image(40, 72), None, STRIDE), mirrored)


def test_the_weight_of_the_halved_view_falls_with_depth() -> None:
    depth = torch.tensor([0.0, 1.0, 5.0, 20.0, 70.0])
    alpha = near_weight(depth, 1.0)
    torch.testing.assert_close(alpha, torch.tensor([1.0, 1 / 2, 1 / 6, 1 / 21, 1 / 71]))
    torch.testing.assert_close(near_weight(depth * 10, 10.0), alpha)


def test_fusion_takes_the_halved_view_when_near_and_the_other_when_far() -> None:
    low, high = (torch.randn(4, 3, 3, generator=torch_generator(seed)).log_softmax(0) for seed in (0, 1))
    near = fuse_log_prob(low, high, near_weight(torch.zeros(3, 3), 1.0))
    far = fuse_log_prob(low, high, near_weight(torch.full((3, 3), 1e9), 1.0))
    torch.testing.assert_close(near, low)
    torch.testing.assert_close(far, high)
    between = fuse_log_prob(low, high, near_weight(torch.ones(3, 3), 1.0))
    torch.testing.assert_close(between, ((low + high) / 2).log_softmax(0))


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ShapeError, match="of one size"):
        fuse_log_prob(torch.zeros(2, 3, 3), torch.zeros(2, 3, 4), torch.zeros(3, 3))
    with pytest.raises(ShapeError, match="window and step must be positive"):
        window_positions(10, 0, 1)
