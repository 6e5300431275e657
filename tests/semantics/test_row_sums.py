"""Weighted sums of rows: a sparse matrix times a dense one."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from gestalt.runtime import torch_generator
from gestalt.semantics import row_sums
from gestalt.semantics.row_sums import RowSums, empty, select


@pytest.mark.parametrize("n_labels", [1, 2, 27])
def test_sums_are_those_of_a_sparse_matrix_whatever_the_parts(
    n_labels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch_generator(n_labels)
    sizes = torch.randint(0, 9, (50,), generator=generator)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]).int()
    rows = torch.randint(0, 30, (int(starts[-1]),), generator=generator, dtype=torch.int32)
    weights = torch.rand(rows.shape, generator=generator)
    table = torch.rand(30, n_labels, generator=generator)
    matrix = csr_array((weights.double().numpy(), rows.numpy(), starts.numpy()), shape=(50, 30))

    whole = torch.full((50, n_labels), torch.nan)
    RowSums(rows, starts, weights).write(table, whole)
    assert np.allclose(whole, matrix @ table.double().numpy(), atol=1e-5)
    monkeypatch.setattr(row_sums, "ROWS_ON_CPU", 7)
    in_parts = torch.full((50, n_labels), torch.nan)
    RowSums(rows, starts, weights).write(table, in_parts)
    assert torch.equal(whole, in_parts)


def test_sums_of_equal_size_take_expanded_weights() -> None:
    table = torch.tensor([[1.0], [10.0], [100.0]])
    rows = torch.tensor([[0, 1], [2, 2], [1, 0]], dtype=torch.int32)
    out = torch.empty(3, 1)
    RowSums.of_equal_size(rows, torch.tensor([1.0, 0.5]).expand(3, -1)).write(table, out)
    assert out[:, 0].tolist() == [6.0, 150.0, 10.5]


def test_selected_rows_are_those_of_brackets() -> None:
    values = torch.arange(12).view(4, 3)
    rows = torch.tensor([3, 0, 3], dtype=torch.int32)
    assert torch.equal(select(values, rows), values[rows])
    assert empty((2, 3), torch.int64, values.device).shape == (2, 3)
