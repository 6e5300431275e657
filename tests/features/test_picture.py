"""Dense features for the eye."""

import numpy as np
import pytest
import torch

from gestalt.errors import DataError, ShapeError
from gestalt.features.picture import (
    attention_shares,
    colour_cells,
    enlarge_cells,
    fit_colour_basis,
    likeness,
    spread_cells,
    valid_cells,
)
from gestalt.runtime import torch_generator

ALL = torch.ones(6, 9, dtype=torch.bool)


def grid_of_kinds(kinds: torch.Tensor, dimension: int = 12) -> torch.Tensor:
    """(D, h, w): cells of one kind share a direction, with little noise."""
    generator = torch_generator(0, "kinds")
    directions = torch.randn(int(kinds.max()) + 1, dimension, generator=generator)
    noise = 0.01 * torch.randn(dimension, *kinds.shape, generator=generator)
    return directions[kinds].permute(2, 0, 1) + noise


def test_directions_are_the_leading_principal_components() -> None:
    cells = torch.randn(500, 6, generator=torch_generator(1)) * torch.tensor([1.0, 9.0, 1.0, 3.0, 6.0, 0.5])
    basis = fit_colour_basis([cells[:200], cells[200:]])
    _, _, exact = torch.linalg.svd((cells - cells.mean(0)).double(), full_matrices=False)
    assert torch.allclose(
        (basis.directions.T @ exact[:3].T).abs(), torch.eye(3, dtype=torch.float64), atol=1e-5
    )
    assert basis.directions.abs().argmax(0).tolist() == [1, 4, 3]
    assert (basis.directions.gather(0, basis.directions.abs().argmax(0, keepdim=True)) > 0).all()


def test_colours_span_the_scale_and_outliers_do_not_wash_them_out() -> None:
    generator = torch_generator(2)
    grid = torch.randn(8, 40, 50, generator=generator)
    plain = colour_cells(grid, torch.ones(40, 50, dtype=torch.bool), fit_colour_basis([grid.flatten(1).T]))
    assert (plain.reshape(-1, 3).min(0) == 0).all()
    assert (plain.reshape(-1, 3).max(0) == 255).all()
    assert (plain.reshape(-1, 3).std(0) > 40).all()
    grid[:, 3, 4] = 1e4
    wild = colour_cells(grid, torch.ones(40, 50, dtype=torch.bool), fit_colour_basis([grid.flatten(1).T]))
    assert (wild.reshape(-1, 3)[:, 1:].std(0) > 40).all()


def test_one_basis_gives_one_kind_one_colour_in_every_image() -> None:
    kinds = torch.arange(54).reshape(6, 9) % 4
    first, second = grid_of_kinds(kinds), grid_of_kinds(kinds.flip(1))
    basis = fit_colour_basis([valid_cells(first, ALL), valid_cells(second, ALL)])
    a, b = colour_cells(first, ALL, basis).astype(int), colour_cells(second, ALL, basis).astype(int)
    assert np.abs(a - b[:, ::-1]).max() < 12


def test_a_constant_image_is_grey() -> None:
    grid = torch.full((5, 6, 9), 0.7)
    colours = colour_cells(grid, ALL, fit_colour_basis([valid_cells(grid, ALL)]))
    assert np.unique(colours).tolist() == [128]


def test_two_dimensions_leave_one_colour_without_meaning() -> None:
    grid = torch.randn(2, 6, 9, generator=torch_generator(3))
    colours = colour_cells(grid, ALL, fit_colour_basis([valid_cells(grid, ALL)]))
    assert np.unique(colours[..., 2]).tolist() == [128]
    assert len(np.unique(colours[..., 0])) > 10


def test_cells_without_image_are_black_and_do_not_count() -> None:
    valid = ALL.clone()
    valid[:, 7:] = False
    grid = torch.randn(4, 6, 9, generator=torch_generator(4))
    wild = torch.where(valid, grid, torch.tensor(1e5))
    basis = fit_colour_basis([valid_cells(wild, valid)])
    assert torch.allclose(basis.mean, valid_cells(grid, valid).double().mean(0))
    assert (colour_cells(wild, valid, basis)[:, 7:] == 0).all()


def test_likeness_is_the_cosine() -> None:
    grid = torch.randn(5, 6, 9, generator=torch_generator(5))
    values = likeness(grid, ALL, (2, 3))
    exact = torch.nn.functional.cosine_similarity(grid, grid[:, 2:3, 3:4].expand_as(grid), dim=0)
    np.testing.assert_allclose(values, exact.numpy(), atol=1e-6)
    assert values[2, 3] == pytest.approx(1)


def test_likeness_is_unknown_where_there_is_no_image() -> None:
    valid = ALL.clone()
    valid[5] = False
    values = likeness(torch.ones(3, 6, 9), valid, (0, 0))
    assert np.isnan(values[5]).all()
    assert np.isfinite(values[:5]).all()


@pytest.mark.parametrize("cell", [(6, 0), (0, 9), (-1, 0), (5, 8)])
def test_likeness_needs_a_cell_of_the_image(cell: tuple[int, int]) -> None:
    valid = ALL.clone()
    valid[5, 8] = False
    with pytest.raises(DataError, match="holds no pixel of the image: it has 6 x 9 cells"):
        likeness(torch.ones(3, 6, 9), valid, cell)


def test_spread_cells_stand_for_all_kinds() -> None:
    kinds = torch.zeros(30, 40, dtype=torch.int64)
    kinds[:8, :12], kinds[20:, 25:], kinds[4:14, 28:] = 1, 2, 3
    cells = spread_cells(grid_of_kinds(kinds), torch.ones(30, 40, dtype=torch.bool), 4)
    assert sorted(int(kinds[cell]) for cell in cells) == [0, 1, 2, 3]
    assert cells[0] in ((14, 19), (14, 20), (15, 19), (15, 20))


def test_spread_cells_are_distinct_even_where_nothing_differs() -> None:
    cells = spread_cells(torch.ones(3, 6, 9), ALL, 4)
    assert len(set(cells)) == 4
    assert spread_cells(torch.ones(3, 1, 2), torch.ones(1, 2, dtype=torch.bool), 4).__len__() == 2
    assert spread_cells(torch.ones(3, 6, 9), ~ALL, 4) == []


def test_attention_is_in_multiples_of_an_even_spread() -> None:
    attention = torch.zeros(2, 6, 9)
    attention[0, 1, 2], attention[1, 3, 3] = 0.5, 0.25
    valid = ALL.clone()
    valid[0] = False
    shares = attention_shares(attention, valid)
    assert np.nanmean(shares) == pytest.approx(1)
    assert shares[1, 2] == pytest.approx(2 * shares[3, 3])
    assert np.isnan(shares[0]).all()


def test_cells_become_squares_cut_at_the_border() -> None:
    cells = np.arange(6).reshape(2, 3)
    assert enlarge_cells(cells, 2, 3, 5).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]


def test_a_basis_for_other_features_is_refused() -> None:
    basis = fit_colour_basis([torch.randn(9, 4)])
    with pytest.raises(ShapeError, match=r"vectors of length 4. Got: 5"):
        colour_cells(torch.zeros(5, 6, 9), ALL, basis)
    with pytest.raises(DataError, match="at least one valid cell"):
        fit_colour_basis([torch.zeros(0, 4)])
