from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gestalt.config.network import NetworkSettings
from gestalt.network.architecture import build_network
from gestalt.network.panoptic_model import PanopticModel
from gestalt.network.records import Detections
from gestalt.panoptic import VOID, Vocabulary
from gestalt.training.class_outputs import (
    ClassOrigins,
    Overlaps,
    copy_weights,
    find_origins,
    measure_overlaps,
)
from gestalt.training.sample import TrainingSample

VOCABULARY = Vocabulary(things=(3, 1), stuff=(0, 2, 4))


class FixedNetwork(nn.Module):
    """Sees two objects of class 1 and one of class 0, and is sure of stuff 1 in the left half, 0 in the right."""

    n_things, n_stuff = 2, 2

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def detect(self, images: Tensor, score_threshold: float) -> tuple[list[Tensor], list[Detections], Tensor]:
        boxes = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4], [0, 0, 4, 3]])
        found = Detections(
            boxes, torch.tensor([0.9, 0.6, 0.25]), torch.tensor([1, 1, 0]), torch.zeros(0, 28, 28)
        )
        logits = torch.full((1, 3, 8, 8), -50.0)
        logits[:, 2, :, :4], logits[:, 1, :, 4:] = 50.0, 50.0
        return [], [found], logits


def test_overlaps_by_hand() -> None:
    semantic = np.full((8, 8), 1, np.uint8)
    instance = np.zeros((8, 8), np.uint16)
    # One object of class 2 where the first and the third detection lie, none where the second one lies.
    semantic[:4, :4], instance[:4, :4] = 0, 1
    semantic[4:, 2:] = 3
    semantic[7] = VOID
    sample = TrainingSample(np.zeros((8, 8, 3), np.uint8), semantic, instance, (2,))
    overlaps = measure_overlaps(FixedNetwork(), [sample, sample], n_things=3, n_stuff=3)  # type: ignore[arg-type]
    assert np.allclose(overlaps.things, [[0, 0, 0.5], [0, 0, 1.8]])
    # Per image: stuff 0 (label 1) has 4 x 4 px on the right and 3 x 2 on the left; stuff 2 (label 3) 3 x 2 and 3 x 4.
    assert overlaps.stuff.tolist() == [[32, 0, 24], [12, 0, 12]]


def test_an_image_without_objects_says_nothing_about_things() -> None:
    sample = TrainingSample(
        np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.uint8), np.zeros((8, 8), np.uint16), ()
    )
    overlaps = measure_overlaps(FixedNetwork(), [sample], n_things=3, n_stuff=3)  # type: ignore[arg-type]
    assert not overlaps.things.any()


def test_the_largest_may_be_shared_and_one_to_one_may_not() -> None:
    counts = torch.tensor([[9.0, 5, 0], [1, 4, 0]], dtype=torch.float64)
    overlaps = Overlaps(counts, counts)
    assert find_origins(overlaps, "largest").stuff == (0, 0, None)
    assert find_origins(overlaps, "one_to_one").things == (0, 1, None)
    assert find_origins(overlaps, "fresh") == ClassOrigins((None,) * 3, (None,) * 3)


@pytest.mark.parametrize("seed", range(5))
def test_one_to_one_is_the_best_of_all_assignments(seed: int) -> None:
    counts = torch.from_numpy(np.random.default_rng(seed).uniform(1, 9, (4, 4)))
    origins = find_origins(Overlaps(counts, counts), "one_to_one").things
    best = max(
        sum(float(counts[row, column]) for column, row in enumerate(rows))
        for rows in itertools.permutations(range(4))
    )
    assert sum(float(counts[row, column]) for column, row in enumerate(origins) if row is not None) == (
        pytest.approx(best)
    )


def network_of(settings: NetworkSettings, vocabulary: Vocabulary, seed: int) -> PanopticModel:
    torch.manual_seed(seed)
    network = build_network(settings, vocabulary)
    for name, weight in network.named_parameters():
        if ".classify." in name:
            nn.init.normal_(weight, std=0.3)
    return network.eval()


def test_a_network_with_its_classes_in_another_order_says_the_same(
    network_settings: NetworkSettings, samples: list[TrainingSample]
) -> None:
    other = network_of(network_settings, VOCABULARY, 0)
    network = network_of(network_settings, VOCABULARY, 1)
    origins = ClassOrigins(things=(1, 0), stuff=(2, 0, 1))
    network.load_weights(copy_weights(network.weights(), other.weights(), origins))
    image = torch.from_numpy(samples[0].image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        _, (found,), logits = other.detect(image, 0.0)
        pyramid, (moved,), moved_logits = network.detect(image, 0.0)
        masks = other.mask_probs(pyramid, [found.boxes], [found.classes])[0]
        moved_masks = network.mask_probs(pyramid, [moved.boxes], [moved.classes])[0]
    assert torch.equal(moved_logits, logits[:, [0, 3, 1, 2]])
    # Ties aside, the same detections with the other class.
    order, moved_order = found.scores.argsort(), moved.scores.argsort()
    assert torch.allclose(found.scores[order], moved.scores[moved_order], atol=1e-6)
    assert torch.equal(1 - found.classes[order], moved.classes[moved_order])
    assert torch.allclose(found.boxes[order], moved.boxes[moved_order], atol=1e-4)
    assert torch.allclose(masks[order], moved_masks[moved_order], atol=1e-5)


def test_classes_without_an_origin_keep_their_fresh_outputs(network_settings: NetworkSettings) -> None:
    wide = Vocabulary(things=(4, 5, 6), stuff=(0, 1, 2, 3))
    other = network_of(network_settings, VOCABULARY, 0).weights()
    own = network_of(network_settings, wide, 1).weights()
    origins = ClassOrigins(things=(None, 1, None), stuff=(2, None, None, 2))
    mixed = copy_weights(own, other, origins)
    name = "instance_heads.stages.0.classify.weight"
    # Background is the last row of both, though not the same one.
    assert torch.equal(mixed[name][[1, 3]], other[name][[1, 2]])
    assert torch.equal(mixed[name][[0, 2]], own[name][[0, 2]])
    name = "semantic_head.classify.bias"
    assert torch.equal(mixed[name][[0, 1, 4]], other[name][[0, 3, 3]])
    assert torch.equal(mixed[name][[2, 3]], own[name][[2, 3]])
    name = "instance_heads.mask_head.classify.weight"
    assert torch.equal(mixed[name][1], other[name][1])
    assert torch.equal(mixed[name][[0, 2]], own[name][[0, 2]])
    assert all(torch.equal(mixed[name], other[name]) for name in own if ".classify." not in name)
