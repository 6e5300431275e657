from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from torchvision.transforms.functional import center_crop, resize

from gestalt.evaluation.protocols import load_protocol
from gestalt.evaluation.window import evaluated_window
from gestalt.panoptic import PanopticMap
from tests.evaluation.maps import random_map


def picture(height: int, width: int) -> PanopticMap:
    return random_map(np.random.default_rng(height), size=(height, width))


def test_without_a_window_the_map_stays_as_it_is() -> None:
    panoptic = picture(24, 32)
    assert evaluated_window(panoptic, load_protocol("cityscapes19")) is panoptic


@pytest.mark.parametrize("size", [(375, 1242), (370, 1224), (376, 1241), (368, 1240)])
def test_kitti_is_cut_to_its_centre(size: tuple[int, int]) -> None:
    panoptic = picture(*size)
    cut = evaluated_window(panoptic, load_protocol("kitti_panoptic19"))
    window = [min(368, size[0]), min(1240, size[1])]
    for ours, whole in (
        (cut.semantic_map, panoptic.semantic_map),
        (cut.instance_map, panoptic.instance_map),
    ):
        expected = center_crop(torch.from_numpy(whole.astype(np.int32))[None], window)[0]
        assert (ours == expected.numpy()).all()


@pytest.mark.parametrize("size", [(1024, 2048), (600, 333), (320, 500)])
def test_the_semantic_protocol_resizes_and_cuts_as_torchvision_does(size: tuple[int, int]) -> None:
    panoptic = picture(*size)
    protocol = load_protocol("cityscapes27_semantic320")
    image = torch.from_numpy(panoptic.semantic_map.astype(np.float32))[None, None]
    height, width = resize(image, 320).shape[-2:]
    expected = center_crop(interpolate(image, (height, width), mode="nearest"), [320, 320])[0, 0]
    assert (evaluated_window(panoptic, protocol).semantic_map == expected.numpy()).all()


def test_a_window_alone_may_be_larger_than_the_image() -> None:
    panoptic = picture(24, 32)
    protocol = dataclasses.replace(load_protocol("cityscapes19"), crop=(100, 16))
    assert evaluated_window(panoptic, protocol).size == (24, 16)
