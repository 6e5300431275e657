from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes

from gestalt.panoptic import VOID
from gestalt.training.augmentation import resize
from gestalt.training.batch import Window, collate, images_to_tensor, mask_boxes, stack_samples
from gestalt.training.sample import TrainingSample

CPU = torch.device("cpu")


def test_boxes_are_torchvisions_and_exclusive() -> None:
    masks = torch.rand(20, 15, 23, generator=torch.Generator().manual_seed(0)) > 0.97
    masks = masks[masks.flatten(1).any(1)]
    expected = masks_to_boxes(masks) + torch.tensor([0.0, 0, 1, 1])
    assert torch.equal(mask_boxes(masks), expected)
    assert mask_boxes(masks[:0]).shape == (0, 4)


def test_images_enter_the_network_between_zero_and_one() -> None:
    tensor = images_to_tensor([np.full((4, 6, 3), 255, np.uint8), np.zeros((4, 6, 3), np.uint8)])
    assert tensor.shape == (2, 3, 4, 6)
    assert tensor[0].min() == 1.0
    assert tensor[1].max() == 0.0
    assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_a_zoom_is_a_crop_and_a_resize(samples: list[TrainingSample]) -> None:
    window = Window(10, 20, 40, 80)
    zoomed = stack_samples(samples[:2], CPU).zoomed([window, window], (32, 64))
    for number, sample in enumerate(samples[:2]):
        inside = np.s_[10:50, 20:100]
        cut = TrainingSample(
            sample.image[inside], sample.semantic[inside], sample.instance[inside], sample.classes
        )
        expected = resize(cut, (32, 64))
        assert (zoomed.semantics[number].numpy() == expected.semantic).all()
        assert (zoomed.instances[number].numpy() == expected.instance).all()
        pixels = zoomed.images[number].permute(1, 2, 0).numpy() * 255
        assert np.abs(pixels - expected.image).max() <= 1.5


def test_the_whole_window_at_the_same_size_changes_nothing(samples: list[TrainingSample]) -> None:
    batch = stack_samples(samples[:2], CPU)
    assert batch.resized(batch.size) is batch


def test_masks_are_disjoint_boxes_tight_and_semantics_thing_under_them(samples: list[TrainingSample]) -> None:
    batch = stack_samples(samples, CPU).resized((96, 160)).finished(1)
    assert sum(len(target.boxes) for target in batch.targets) >= len(samples)
    for target in batch.targets:
        assert target.masks.sum(0).max() <= 1
        assert (target.semantic[target.masks.any(0)] == 0).all()
        for mask, box in zip(target.masks, target.boxes.long().tolist(), strict=True):
            inside = mask[box[1] : box[3], box[0] : box[2]]
            assert inside.sum() == mask.sum()
            assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_a_sample_without_an_object_has_empty_targets() -> None:
    maps = np.full((8, 8), 2, np.uint8), np.zeros((8, 8), np.uint16)
    (target,) = collate([TrainingSample(np.zeros((8, 8, 3), np.uint8), *maps, ())], 1).targets
    assert target.boxes.shape == (0, 4)
    assert target.masks.shape == (0, 8, 8)
    assert (target.semantic == 2).all()


@pytest.mark.parametrize("min_object_px", [4, 5])
def test_an_object_of_four_pixels_is_left_out_at_five(min_object_px: int) -> None:
    instance = np.zeros((6, 6), np.uint16)
    instance[1:3, 1:3] = 1
    semantic = np.where(instance > 0, 0, 3).astype(np.uint8)
    sample = TrainingSample(np.zeros((6, 6, 3), np.uint8), semantic, instance, (0,))
    (target,) = collate([sample], min_object_px).targets
    assert len(target.boxes) == (min_object_px == 4)
    assert int(target.semantic[1, 1]) == (0 if min_object_px == 4 else VOID)
