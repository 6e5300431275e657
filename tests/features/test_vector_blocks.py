"""Rows of tensors and mapped files, block by block."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gestalt.errors import DataError, ShapeError
from gestalt.features import vector_blocks
from gestalt.features.vector_blocks import VectorBlocks


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_blocks, "BLOCK", 7)


@pytest.mark.usefixtures("small_blocks")
def test_blocks_hold_every_row_once_in_order() -> None:
    vectors = torch.arange(40.0).reshape(20, 2)
    blocks = list(VectorBlocks(vectors))
    assert [len(block) for block in blocks] == [7, 7, 6]
    assert torch.equal(torch.cat(blocks), vectors)


@pytest.mark.usefixtures("small_blocks")
def test_a_mapped_file_in_half_precision_reads_as_the_tensor_does(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float16)
    np.save(tmp_path / "vectors.npy", array)
    mapped = VectorBlocks(np.load(tmp_path / "vectors.npy", mmap_mode="r"))
    tensor = VectorBlocks(torch.from_numpy(array))
    assert all(block.dtype == torch.float32 for block in mapped)
    assert torch.equal(torch.cat(list(mapped)), torch.cat(list(tensor)))
    index = torch.tensor([19, 0, 5, 5])
    assert torch.equal(mapped.rows(index), torch.from_numpy(array[index.numpy()]).float())
    assert torch.equal(mapped.rows(index), tensor.rows(index))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_block_that_is_not_finite_is_named(value: float) -> None:
    vectors = torch.zeros(20, 2)
    vectors[15, 1] = value
    with pytest.raises(DataError, match=r"NaN or infinity \(rows 14 to 19\)"):
        list(VectorBlocks(vectors))


def test_large_numbers_whose_sum_overflows_are_finite() -> None:
    (block,) = VectorBlocks(torch.full((4, 2), 3e38))
    assert torch.isfinite(block).all()


@pytest.mark.parametrize(
    "vectors", [torch.zeros(3), torch.zeros(3, 2, dtype=torch.int64), np.zeros((3, 2), int)]
)
def test_other_shapes_and_integers_are_refused(vectors: object) -> None:
    with pytest.raises(ShapeError, match=r"vectors must be \(n, D\) float. Got: \(3"):
        VectorBlocks(vectors)  # type: ignore[arg-type]
