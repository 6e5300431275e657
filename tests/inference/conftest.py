"""An untrained tiny network in a folder: inference is about forms, not about quality."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from gestalt.config.network import PredictSettings
from gestalt.config.presets import default_settings
from gestalt.network.architecture import build_network
from gestalt.network.checkpoint import NetworkCard, save_network
from gestalt.panoptic import Vocabulary
from tests.narrow_network import narrow_settings


@pytest.fixture(scope="session")
def network_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = narrow_settings()
    vocabulary = Vocabulary(things=(4, 1), stuff=(0, 2, 3))
    torch.manual_seed(0)
    network = build_network(settings, vocabulary)
    # Confident enough that an untrained network finds something.
    with torch.no_grad():
        network.instance_heads.mask_head.classify.bias.fill_(2.0)
    folder = tmp_path_factory.mktemp("network")
    save_network(folder, network, NetworkCard(settings, vocabulary, (48, 64)))
    return folder


@pytest.fixture(scope="session")
def settings() -> PredictSettings:
    embedded: PredictSettings = default_settings("predict")
    return dataclasses.replace(embedded, merge=dataclasses.replace(embedded.merge, score_threshold=0.2))
