from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from gestalt.training.pixels import nearest_places, resize_image, resize_map


@pytest.mark.parametrize("size", [(24, 40), (7, 11), (12, 20)])
def test_maps_follow_torchs_exact_nearest_neighbour(size: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 60000, (12, 20)).astype(np.uint16)
    wanted = functional.interpolate(
        torch.from_numpy(labels.astype(np.float32))[None, None], size=size, mode="nearest-exact"
    )
    resized = resize_map(labels, size)
    assert resized.dtype == np.uint16
    assert (resized == wanted[0, 0].numpy()).all()


def test_places_are_the_middles() -> None:
    assert nearest_places(4, 2).tolist() == [1, 3]
    assert nearest_places(2, 4).tolist() == [0, 0, 1, 1]
    assert nearest_places(3, 1).tolist() == [1]


def test_a_constant_image_stays_constant_and_halving_averages_neighbours() -> None:
    assert (resize_image(np.full((9, 13, 3), 77, np.uint8), (20, 5)) == 77).all()
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[::2] = 200
    inner = resize_image(stripes, (4, 4))[1:3]
    assert (np.abs(inner.astype(int) - 100) <= 1).all()
