from __future__ import annotations

import numpy as np
import torch

from gestalt.config.network import NetworkSettings
from gestalt.data.overlay import OUTLINE
from gestalt.network.architecture import build_network
from gestalt.training.batch import collate
from gestalt.training.pictures import GAP_PX, OBJECT_OF_NO_CLASS, draw_progress
from gestalt.training.sample import TrainingSample
from tests.training.conftest import SIZE, VOCABULARY


def test_targets_are_left_predictions_right_and_the_network_is_as_before(
    samples: list[TrainingSample], network_settings: NetworkSettings
) -> None:
    network = build_network(network_settings, VOCABULARY).train()
    network.freeze_normalisation()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    uncovered = TrainingSample(samples[0].image, np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint16), ())
    batch = collate([samples[0], uncovered], 1)
    picture = draw_progress(network, batch)
    height, width = SIZE
    assert picture.shape == (2 * height + GAP_PX, 2 * width + GAP_PX, 3)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    left = picture[:height, :width]
    outside = batch.targets[0].semantic.numpy() == 1  # sky
    stained = left[outside].astype(int) - 0.45 * samples[0].image[outside]
    assert np.ptp(np.rint(stained), axis=0).max() <= 1  # one colour over the image
    assert (left[samples[0].instance > 0] == OUTLINE).all(1).any()
    assert (picture[height + GAP_PX :, :width] == OBJECT_OF_NO_CLASS).all()


def test_at_most_four_images_are_shown(
    samples: list[TrainingSample], network_settings: NetworkSettings
) -> None:
    network = build_network(network_settings, VOCABULARY).train()
    picture = draw_progress(network, collate(samples, 1))
    assert picture.shape[0] == 4 * SIZE[0] + 3 * GAP_PX
