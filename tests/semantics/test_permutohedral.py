"""The lattice against exact Gaussian sums, and what holds for any lattice."""

import itertools

import pytest
import torch
from torch import Tensor

from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.runtime import torch_generator
from gestalt.semantics.permutohedral import (
    Lattice,
    build_lattice,
    elevate,
    enclosing_simplices,
    number_corners,
)


def exact_filter(points: Tensor, values: Tensor) -> Tensor:
    """Sums with weights exp(-|p - q|^2 / 2), divided by the sums of the weights."""
    kernel = (-torch.cdist(points.T.double(), points.T.double()).square() / 2).exp()
    return kernel @ values.double() / kernel.sum(1, keepdim=True)


def lattice_filter(lattice: Lattice, values: Tensor) -> Tensor:
    return lattice.filter(values) / lattice.filter(torch.ones(values.shape[0], 1))


def scattered(dimension: int, n_points: int, spread: float) -> Tensor:
    return torch.rand(1, dimension, n_points, generator=torch_generator(dimension)) * spread


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
def test_barycentric_weights_are_a_partition_of_one_and_give_the_point_back(dimension: int) -> None:
    points = scattered(dimension, 500, 9.0) - 4
    lattice = build_lattice(points)
    assert torch.allclose(lattice.weights.sum(1), torch.ones(500), atol=1e-5)
    assert float(lattice.weights.min()) > -1e-5

    low, place = number_corners(points)
    names, weights = enclosing_simplices(points[0], low, place)
    back = torch.zeros(dimension, 500)
    for axis in range(dimension):
        higher = place[axis - 1] if axis else place[-1]
        coordinate = names % higher // place[axis] + low[axis]
        back[axis] = (coordinate * weights).sum(0)
    assert torch.allclose(back, elevate(points[0])[:dimension], atol=2e-3)


def test_corners_are_lattice_points_of_every_remainder_and_neighbours_are_mutual() -> None:
    points = scattered(3, 400, 6.0)
    lattice = build_lattice(points)
    corners = torch.arange(lattice.n_corners)
    n_found = 0
    for axis in lattice.axes:
        assert torch.equal(axis[:-1, 0].long(), corners)
        assert bool((axis[-1] == lattice.n_corners).all())
        above = axis[:-1, 2].long()
        there = above < lattice.n_corners
        assert torch.equal(axis[above[there], 1].long(), corners[there])
        n_found += int(there.sum())
    assert n_found > lattice.n_corners


def test_every_entry_of_a_point_is_listed_once_at_its_corner() -> None:
    lattice = build_lattice(scattered(5, 300, 4.0))
    entries = lattice.entries.long()
    assert torch.equal(entries.sort()[0], torch.arange(6 * 300))
    of_entries = lattice.corners.reshape(-1)[entries].long()
    counts = lattice.starts.diff().long()
    assert torch.equal(of_entries, torch.arange(lattice.n_corners).repeat_interleave(counts))
    assert int(counts.min()) >= 1
    for begin, end in itertools.pairwise(lattice.starts[:50].tolist()):
        assert bool((entries[begin:end].diff() > 0).all())


@pytest.mark.parametrize(("dimension", "n_points", "spread"), [(1, 400, 8.0), (2, 1500, 8.0), (3, 2500, 5.0)])
def test_filtering_is_close_to_the_exact_gaussian(dimension: int, n_points: int, spread: float) -> None:
    points = scattered(dimension, n_points, spread)
    values = torch.stack([torch.sin(points[0, 0]), points[0, -1] / spread, torch.ones(n_points)], 1)
    found = lattice_filter(build_lattice(points), values)
    wanted = exact_filter(points[0], values)
    # Measured: at most 0.035, 0.054 and 0.079, at the border of the points; on average 0.005, 0.005 and 0.007.
    difference = (found - wanted).abs()
    assert float(difference.max()) < 0.1
    assert float(difference.mean()) < 0.01
    assert torch.allclose(found[:, 2], torch.ones(n_points), atol=1e-5)


def test_the_filter_is_linear_and_nearly_symmetric() -> None:
    lattice = build_lattice(scattered(5, 600, 3.0))
    generator = torch_generator(1)
    one, other = torch.rand(600, 2, generator=generator), torch.rand(600, 2, generator=generator)
    assert torch.allclose(
        lattice.filter(one + 2 * other), lattice.filter(one) + 2 * lattice.filter(other), rtol=1e-4
    )
    # Axes are blurred one after the other and values fall off where no corner is, so not exactly.
    forth, back = (one * lattice.filter(other)).sum(), (other * lattice.filter(one)).sum()
    assert float(forth) == pytest.approx(float(back), rel=0.005)


def test_sets_of_points_do_not_touch_each_other() -> None:
    points = torch.cat([scattered(5, 200, 4.0), scattered(5, 200, 4.0) + 0.1])
    values = torch.rand(400, 3, generator=torch_generator(2))
    together = build_lattice(points).filter(values)
    apart = [build_lattice(points[i : i + 1]).filter(values[200 * i : 200 * (i + 1)]) for i in range(2)]
    assert torch.equal(together, torch.cat(apart))


def test_equal_points_share_one_simplex() -> None:
    lattice = build_lattice(torch.full((1, 5, 40), 1.3))
    assert lattice.n_corners == 6
    filtered = lattice_filter(lattice, torch.arange(40.0)[:, None])
    assert torch.allclose(filtered, torch.full((40, 1), 19.5), rtol=1e-5)


def test_points_that_cannot_be_a_lattice_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(B, d, N\)"):
        build_lattice(torch.zeros(5, 7))
    with pytest.raises(ShapeError, match="none of them 0"):
        build_lattice(torch.zeros(1, 5, 0))
    with pytest.raises(DataError, match="finite"):
        build_lattice(torch.tensor([[[0.0, torch.nan]]]))
    with pytest.raises(ConfigError, match="larger standard deviations"):
        build_lattice(torch.tensor([0.0, 1e6]).expand(1, 5, 2))
