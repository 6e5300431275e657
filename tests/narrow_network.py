"""A network of a few thousand weights: the small architecture at a tenth of its width."""

from __future__ import annotations

import dataclasses

from gestalt.config.network import NetworkSettings
from gestalt.config.presets import default_settings


def narrow_settings() -> NetworkSettings:
    small: NetworkSettings = default_settings("network", "small")
    return dataclasses.replace(
        small,
        stem_channels=8,
        stage_channels=[8, 16, 16, 16],
        stage_blocks=[1, 1, 1, 1],
        pyramid_channels=16,
        semantic_channels=16,
        instances=dataclasses.replace(small.instances, box_hidden=32, mask_channels=16),
    )
