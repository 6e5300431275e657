"""A network of a few thousand weights: same architecture, a tenth of the width."""

from __future__ import annotations

import pytest
import torch

from gestalt.config.network import NetworkSettings
from gestalt.network.architecture import build_network
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.network.records import ImageTarget
from gestalt.panoptic import Vocabulary
from tests.narrow_network import narrow_settings


@pytest.fixture(scope="session")
def settings() -> NetworkSettings:
    return narrow_settings()


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary(things=(4, 1), stuff=(0, 2, 3))


@pytest.fixture
def network(settings: NetworkSettings, vocabulary: Vocabulary) -> PanopticNetwork:
    torch.manual_seed(0)
    return build_network(settings, vocabulary).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def targets() -> list[ImageTarget]:
    """Two objects in the first image, none in the second."""
    boxes = torch.tensor([[10.0, 10, 40, 40], [50, 20, 90, 60]])
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    semantic = torch.full((64, 96), 1, dtype=torch.uint8)
    for row, (x0, y0, x1, y1) in enumerate(boxes.long().tolist()):
        masks[row, y0:y1, x0:x1] = True
        semantic[y0:y1, x0:x1] = 0
    empty = ImageTarget(
        torch.zeros(0, 4),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 64, 96, dtype=torch.bool),
        semantic,
    )
    return [ImageTarget(boxes, torch.tensor([0, 1]), masks, semantic), empty]
