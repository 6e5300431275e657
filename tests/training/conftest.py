"""A tiny world for trainings: two kinds of coloured objects over three bands of stuff, and a network."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from gestalt.config.network import NetworkSettings
from gestalt.config.presets import default_settings
from gestalt.config.training import GuidedSettings, SelfTrainingSettings
from gestalt.panoptic import Vocabulary
from gestalt.training.sample import TrainingSample, sample_from_pseudo_label

SIZE = (64, 128)
VOCABULARY = Vocabulary(things=(3, 1), stuff=(0, 2, 4))


def make_scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, pseudo-classes and instances: sky, wall and road; discs (class 3) and boxes (class 1)."""
    generator = np.random.default_rng(seed)
    height, width = SIZE
    image = np.zeros((height, width, 3), np.float32)
    semantic = np.zeros(SIZE, np.uint8)
    instance = np.zeros(SIZE, np.uint16)
    for top, bottom, pseudo_class, colour in (
        (0, 20, 0, (90, 150, 220)),
        (20, 40, 2, (140, 110, 90)),
        (40, height, 4, (80, 80, 85)),
    ):
        image[top:bottom], semantic[top:bottom] = colour, pseudo_class
    for number in range(1, int(generator.integers(2, 4)) + 1):
        is_disc = bool(generator.integers(2))
        side = int(generator.integers(16, 28))
        x, y = int(generator.integers(16, width - 16)), int(generator.integers(20, height - 14))
        mask = np.zeros(SIZE, np.uint8)
        if is_disc:
            cv2.circle(mask, (x, y), side // 2, 1, -1)
        else:
            cv2.rectangle(mask, (x - side // 2, y - side // 3), (x + side // 2, y + side // 3), 1, -1)
        painted = mask > 0
        image[painted] = (220, 60, 50) if is_disc else (60, 190, 70)
        semantic[painted], instance[painted] = (3 if is_disc else 1), number
    image += generator.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), semantic, instance


@pytest.fixture(scope="session")
def samples() -> list[TrainingSample]:
    return [
        sample_from_pseudo_label(*make_scene(seed), VOCABULARY, ignore_uncovered_things=False, name=str(seed))
        for seed in range(8)
    ]


@pytest.fixture(scope="session")
def images(samples: list[TrainingSample]) -> list[np.ndarray]:
    return [sample.image for sample in samples]


@pytest.fixture(scope="session")
def network_settings() -> NetworkSettings:
    small: NetworkSettings = default_settings("network", "small")
    return dataclasses.replace(
        small,
        stem_channels=16,
        stage_channels=[16, 24, 32, 32],
        stage_blocks=[1, 1, 1, 1],
        pyramid_channels=24,
        semantic_channels=24,
        instances=dataclasses.replace(small.instances, box_hidden=64, mask_channels=24),
    )


@pytest.fixture(scope="session")
def guided_settings() -> GuidedSettings:
    """Eight quick steps with every mechanism at work."""
    embedded: GuidedSettings = default_settings("guided")
    return dataclasses.replace(
        embedded,
        steps=6,
        batch_size=2,
        checkpoint_every=3,
        augmentation=dataclasses.replace(embedded.augmentation, jitter_heights_px=[64]),
        copy_paste=dataclasses.replace(
            embedded.copy_paste, start_up_steps=2, predict_every=2, score_threshold=0.0, min_side_px=4
        ),
    )


@pytest.fixture(scope="session")
def self_training_settings() -> SelfTrainingSettings:
    embedded: SelfTrainingSettings = default_settings("self_training")
    return dataclasses.replace(
        embedded,
        steps=5,
        rounds=2,
        batch_size=2,
        checkpoint_every=2,
        view_scales=[0.5, 1.0],
        view_confidence=0.2,
        instance_confidence=0.2,
        augmentation=dataclasses.replace(embedded.augmentation, jitter_heights_px=[64]),
    )
