"""Architecture and classes from the shapes of a network's weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gestalt.config.network import NetworkSettings
from gestalt.network.architecture import build_panoptic_network
from gestalt.network.inferred_settings import count_classes, infer_settings
from tests.network.published import narrow_settings, paper_settings


def weights(settings: NetworkSettings) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return build_panoptic_network(settings, n_things=3, n_stuff=7).weights()


def variants() -> dict[str, NetworkSettings]:
    narrow = narrow_settings()
    return {
        "paper": paper_settings(),
        "narrow": narrow,
        "deep": dataclasses.replace(narrow, stage_blocks=[3, 4, 23, 3]),
        "basic": dataclasses.replace(narrow, block="basic", stem_kernel=5, pyramid_norm=False),
        "two stages": dataclasses.replace(
            narrow,
            instances=dataclasses.replace(narrow.instances, cascade_ious=[0.5, 0.6], mask_convolutions=2),
        ),
    }


@pytest.mark.parametrize("variant", variants())
def test_the_settings_behind_weights_are_found(variant: str) -> None:
    settings = variants()[variant]
    # What weights do not tell comes from the settings that are given.
    given = dataclasses.replace(paper_settings(), semantic_loss_stride=9)
    expected = dataclasses.replace(settings, semantic_loss_stride=9)
    assert infer_settings(weights(settings), given) == expected
    assert count_classes(weights(settings)) == (3, 7)


@pytest.mark.parametrize(
    "part", ["backbone.trunk.", "backbone.pyramid.", "instance_heads.", "semantic_head."]
)
def test_what_is_missing_is_taken_from_the_given_settings(part: str) -> None:
    given, narrow = paper_settings(), narrow_settings()
    found = infer_settings(
        {name: weight for name, weight in weights(narrow).items() if not name.startswith(part)}, given
    )
    fields = {
        "backbone.trunk.": ("stem_channels", "stage_channels"),
        "backbone.pyramid.": ("pyramid_channels",),
        "instance_heads.": ("instances",),
        "semantic_head.": ("semantic_channels",),
    }
    for name in ("stem_channels", "stage_channels", "pyramid_channels", "instances", "semantic_channels"):
        expected = given if name in fields[part] else narrow
        assert getattr(found, name) == getattr(expected, name), name


def test_no_head_has_no_classes() -> None:
    assert count_classes({}) == (0, 0)
