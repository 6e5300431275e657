"""The criterion without labels: the Rand index against scikit-learn, splits, and what it prefers."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, mutual_info_score
from torch import nn

from gestalt.errors import ShapeError
from gestalt.semantics.code_head import CodeHead
from gestalt.semantics.code_selection import (
    adjusted_rand_index,
    clustering_objective,
    fit_prototypes,
    held_out_images,
    label_twice,
    mutual_information,
    sample_codes,
    split_crops,
)
from gestalt.semantics.feature_store import FeatureStore


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def store(features: np.ndarray[Any, Any], image: list[int], mirrored: list[bool]) -> FeatureStore:
    n, _, h, w = features.shape
    rows = np.tile(np.float32([0.5, 1.0]), (n, 1))
    return FeatureStore(
        features.astype(np.float16),
        np.ones((n, h, w), np.float32),
        features.mean((2, 3)),
        np.array(image),
        np.array(mirrored),
        np.ones(n, np.float32),
        np.zeros((n, 2), np.float32),
        rows,
        0,
        "test",
    )


def pass_through(dimension: int) -> CodeHead:
    """A head whose codes are the features."""
    head = CodeHead(dimension, dimension)
    for layer in (head.linear, head.first, head.last):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    head.linear.weight.data[:, :, 0, 0] = torch.eye(dimension)
    return head


def test_both_measures_of_agreement_are_those_of_scikit_learn() -> None:
    for seed in range(5):
        first = torch.randint(6, (300,), generator=generator(seed))
        second = torch.where(torch.rand(300, generator=generator(seed + 9)) < 0.6, first, (first + 1) % 4)
        expected = adjusted_rand_score(first.numpy(), second.numpy())
        assert adjusted_rand_index(first, second) == pytest.approx(expected)
        expected = mutual_info_score(first.numpy(), second.numpy())
        assert mutual_information(first, second) == pytest.approx(expected)


def test_numbers_of_groups_do_not_matter() -> None:
    groups = torch.randint(5, (100,), generator=generator())
    renamed = torch.randperm(5, generator=generator(1))[groups] + 3
    assert adjusted_rand_index(groups, renamed) == pytest.approx(1)
    assert adjusted_rand_index(torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.int64)) == 1
    with pytest.raises(ShapeError, match=r"\(5,\) and \(4,\)"):
        adjusted_rand_index(groups[:5], groups[:4])


def test_held_out_images_are_spread_evenly() -> None:
    assert held_out_images(40, 0.1) == [5, 15, 25, 35]
    assert held_out_images(2, 0.01) == [1]
    assert held_out_images(3, 0.5) == [0, 2]


def test_no_image_is_on_two_sides() -> None:
    crops = store(
        np.ones((13, 2, 2, 2), np.float32), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 2, 2], [False] * 11 + [True] * 2
    )
    split = split_crops(crops)
    image = torch.from_numpy(crops.image)
    sides = [set(image[part].tolist()) for part in (*split.halves, split.held_out)]
    assert sides[2] == {2}
    assert set(image[split.mirrored].tolist()) == {2}
    assert sides[0] | sides[1] == {0, 1, 3, 4, 5}
    assert not sides[0] & sides[1]
    assert sorted(torch.cat(split.halves).tolist()) == split.training.tolist()


def test_a_single_training_image_is_split_by_crops() -> None:
    split = split_crops(store(np.ones((5, 2, 2, 2), np.float32), [0, 0, 0, 1, 1], [False] * 4 + [True]))
    assert [len(half) for half in split.halves] == [2, 1]


def test_samples_are_unit_codes_of_distinct_cells_with_their_rows() -> None:
    features = np.random.default_rng(0).normal(size=(4, 3, 2, 5)).astype(np.float32)
    crops = store(features, [0, 1, 2, 3], [False] * 4)
    sample = sample_codes(pass_through(3), crops, torch.arange(4), 40, generator())
    assert sample.vectors.shape == (40, 3)
    cells = torch.from_numpy(crops.features.astype(np.float32)).permute(0, 2, 3, 1).reshape(40, 3)
    expected = nn.functional.normalize(cells, dim=1)
    assert (torch.cdist(sample.vectors, expected).amin(1) < 1e-3).all()
    assert (torch.cdist(expected, sample.vectors).amin(1) < 1e-3).all()
    # Crops span the lower half of their image in two rows of cells.
    assert torch.bincount((sample.rows * 1000).round().long())[[625, 875]].tolist() == [20, 20]
    assert len(sample_codes(pass_through(3), crops, torch.arange(4), 10, generator()).vectors) == 12


def blobs(noise: float, seed: int = 0) -> FeatureStore:
    draws = np.random.default_rng(seed)
    directions = np.eye(6)
    kinds = draws.integers(0, 6, (24, 8, 8))
    cells = directions[kinds] + noise * draws.normal(size=(24, 8, 8, 6))
    features = np.moveaxis(cells, 3, 1).astype(np.float32)
    twins = features[20:] + noise * draws.normal(size=features[20:].shape).astype(np.float32)
    return store(np.concatenate([features, twins]), [*range(24), *range(20, 24)], [False] * 24 + [True] * 4)


def test_codes_of_kinds_are_stable_and_noise_is_not() -> None:
    scores, informations = [], []
    for noise in (0.05, 0.5, 50.0):
        crops = blobs(noise)
        labels = label_twice(pass_through(6), crops, split_crops(crops), 6, 1000, 4, 0)
        scores.append(adjusted_rand_index(*labels))
        informations.append(mutual_information(*labels))
    assert scores[0] > 0.99
    assert scores[0] > scores[1] > scores[2]
    assert abs(scores[2]) < 0.1
    assert informations[0] == pytest.approx(np.log(6), abs=0.05)
    assert informations[0] > informations[1] > informations[2]


def test_prototypes_of_planted_directions_are_found() -> None:
    sample = sample_codes(pass_through(6), blobs(0.02), torch.arange(20), 2000, generator())
    prototypes = fit_prototypes(sample.vectors, 6, 10, generator())
    assert (prototypes @ torch.eye(6)).amax(0).min() > 0.99
    assert clustering_objective(sample.vectors, prototypes) > 0.99
    assert clustering_objective(torch.eye(3), 5 * torch.eye(3)[:2]) == pytest.approx(2 / 3)
