"""What a network learns from beside what it says: one picture that shows whether a training goes well."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gestalt.data.overlay import draw_overlay, unified_palette
from gestalt.network.merge import merge_panoptic
from gestalt.network.panoptic_model import PanopticModel
from gestalt.network.records import ImageTarget
from gestalt.network.test_time import predict_views
from gestalt.panoptic import VOID, PanopticMap, UInt8Array
from gestalt.training.batch import TrainingBatch

SHOWN_IMAGES = 4
# A prediction is shown from this score on, as far as better ones leave it room, and stuff from this share on.
SCORE, OVERLAP_SHARE, MIN_STUFF_SHARE = 0.5, 0.5, 0.002
OBJECT_OF_NO_CLASS = (30, 30, 30)
GAP_PX = 4


def draw_progress(network: PanopticModel, batch: TrainingBatch) -> UInt8Array:
    """A row per image: its targets on the left, the network's panoptic map on the right.

    Stuff is muted, things are bright with white outlines, void shows the image; pixels called thing that no object
    covers are dark.

    Args:
        network: In training mode, which it is left in; its normalisation sees no statistics of these images.
        batch: On the network's device; the first few images are shown.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    images = batch.images[:SHOWN_IMAGES].float()
    modes = {module: module.training for module in network.modules()}
    network.eval()
    predictions = predict_views(network, images, score_threshold=SCORE)
    # Not train(): frozen normalisation must stay as it was.
    for module, mode in modes.items():
        module.training = mode
    palette = unified_palette(network.n_stuff, network.n_things)
    rows = []
    for image, target, prediction in zip(images, batch.targets, predictions, strict=False):
        pixels = np.rint(image.permute(1, 2, 0).cpu().numpy() * 255).astype(np.uint8)
        predicted, _ = merge_panoptic(
            prediction, score_threshold=SCORE, overlap_share=OVERLAP_SHARE, min_stuff_share=MIN_STUFF_SHARE
        )
        wanted = _target_map(target, network.n_stuff)
        is_uncovered = _to_numpy((target.semantic == 0) & ~target.masks.any(0))
        left = draw_overlay(pixels, wanted, palette)
        left[is_uncovered] = OBJECT_OF_NO_CLASS
        gap = np.full((pixels.shape[0], GAP_PX, 3), 255, np.uint8)
        rows.append(np.concatenate([left, gap, draw_overlay(pixels, predicted, palette)], axis=1))
    gap = np.full((GAP_PX, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (row, gap)][:-1])


def _target_map(target: ImageTarget, n_stuff: int) -> PanopticMap:
    """Targets in unified classes: stuff 0..S-1, things S..S+T-1, 255 void."""
    semantic = target.semantic.to(torch.int64) - 1
    semantic[(target.semantic == 0) | (target.semantic == VOID)] = VOID
    instance = torch.zeros_like(semantic)
    for number, (mask, thing) in enumerate(zip(target.masks, target.classes.tolist(), strict=True), start=1):
        semantic[mask], instance[mask] = n_stuff + thing, number
    return PanopticMap(_to_numpy(semantic).astype(np.uint8), _to_numpy(instance).astype(np.uint16))


def _to_numpy(values: Tensor) -> npt.NDArray[np.generic]:
    result: npt.NDArray[np.generic] = values.cpu().numpy()
    return result
