"""Batches of images: borders by hand, and what is refused."""

import pytest
import torch

from gestalt.errors import DataError, ShapeError
from gestalt.features.image_batches import check_finite, check_images, check_sizes, continue_borders


def test_borders_are_continued_per_image() -> None:
    images = torch.arange(24.0).reshape(2, 1, 3, 4).expand(2, 3, 3, 4)
    continued = continue_borders(images, torch.tensor([[2, 3], [3, 1]]))
    assert continued[0, 0].tolist() == [[0, 1, 2, 2], [4, 5, 6, 6], [4, 5, 6, 6]]
    assert continued[1, 2].tolist() == [[12] * 4, [16] * 4, [20] * 4]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_sizes_of_any_integer_type_are_taken(dtype: torch.dtype) -> None:
    images, sizes = torch.rand(2, 3, 4, 5), torch.tensor([[4, 5], [1, 2]], dtype=dtype)
    check_sizes(sizes, images)
    continued = continue_borders(images, sizes)
    assert torch.equal(continued[0], images[0])
    assert torch.equal(continued[1, :, 3, 4], images[1, :, 0, 1])


def test_what_is_no_batch_is_refused() -> None:
    for wrong in (
        torch.rand(3, 4, 4),
        torch.rand(1, 4, 4, 4),
        torch.rand(0, 3, 4, 4),
        torch.ones(1, 3, 4, 4).int(),
    ):
        with pytest.raises(ShapeError, match=r"\(B, 3, H, W\) float"):
            check_images(wrong)
    check_images(torch.rand(1, 3, 4, 4), 4)
    with pytest.raises(ShapeError, match=r"at least 5 x 5 px.*Got: 5 x 4"):
        check_images(torch.rand(1, 3, 5, 4), 5)


def test_broken_images_are_named() -> None:
    images = torch.rand(3, 3, 4, 4)
    check_finite(images)
    images[0, 0, 0, 0], images[2, 2, 3, 3] = float("nan"), float("-inf")
    with pytest.raises(DataError, match=r"in the batch: \[0, 2\]"):
        check_finite(images)
