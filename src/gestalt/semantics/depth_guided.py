"""Two views of an image, fused by depth: windows see detail, the halved image sees the whole.

Source: CUPS (Hahn et al., CVPR 2025), section on semantic pseudo-labels. A pixel's log-probability is
``alpha * low + (1 - alpha) * high`` with ``alpha = 1 / (Z / z0 + 1)``: near pixels trust the halved image.
The paper has z0 = 1 m; pixels without disparity count as far here and as near there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.errors import ShapeError
from gestalt.features.dense import pad_to_cells
from gestalt.semantics.classifiers import PixelClassifier

# (B, 3, H, W) images and (B, C, H, W) geometry or None -> (B, D, h, w) vectors.
Describe = Callable[[Tensor, Tensor | None], Tensor]


def window_positions(length: int, window: int, step: int) -> list[int]:
    """First pixels of windows that cover ``length`` pixels; the last window ends at the border.

    Raises:
        ShapeError: A window or step is not positive.
    """
    if window < 1 or step < 1:
        raise ShapeError(f"window and step must be positive. Got: {window} and {step}")
    if window >= length:
        return [0]
    positions = list(range(0, length - window, step))
    return [*positions, length - window]


def whole_log_prob(
    describe: Describe, classifier: PixelClassifier, image: Tensor, geometry: Tensor | None, stride: int
) -> Tensor:
    """Log-probabilities of the image as one window.

    Args:
        describe: Features and geometry of images as vectors.
        classifier: Vectors of cells as log-probabilities of pixels.
        image: (1, 3, H, W) float in [0, 1].
        geometry: (1, C, H, W) float or None.
        stride: Of ``describe``.

    Returns:
        (K, H, W) float, log-probabilities that sum to one in each pixel.
    """
    height, width = image.shape[-2:]
    return classifier.log_prob(describe(image, geometry), stride, height, width)[0]


def windowed_log_prob(
    describe: Describe,
    classifier: PixelClassifier,
    image: Tensor,
    geometry: Tensor | None,
    stride: int,
    batch: int,
) -> Tensor:
    """Mean log-probabilities over square windows of half the image height, every quarter of it.

    Args:
        describe: As in ``whole_log_prob``.
        classifier: As in ``whole_log_prob``.
        image: (1, 3, H, W) float in [0, 1].
        geometry: (1, C, H, W) float or None.
        stride: Of ``describe``.
        batch: Windows that are described at once; memory does not grow with the number of windows.

    Returns:
        (K, H, W) float. Every pixel lies in at least one window.
    """
    height, width = image.shape[-2:]
    side, step = max(height // 2, 1), max(height // 4, 1)
    columns = min(side, width)
    corners = [
        (top, left)
        for top in window_positions(height, side, step)
        for left in window_positions(width, columns, step)
    ]
    total: Tensor | None = None
    count = image.new_zeros(1, height, width)
    for first in range(0, len(corners), batch):
        chunk = corners[first : first + batch]

        def cut(source: Tensor, chunk: list[tuple[int, int]] = chunk) -> Tensor:
            return torch.cat([source[..., top : top + side, left : left + columns] for top, left in chunk])

        vectors = describe(cut(image), None if geometry is None else cut(geometry))
        log_prob = classifier.log_prob(vectors, stride, side, columns)
        if total is None:
            total = log_prob.new_zeros(log_prob.shape[1], height, width)
        for (top, left), window in zip(chunk, log_prob):
            total[:, top : top + side, left : left + columns] += window
            count[:, top : top + side, left : left + columns] += 1
    assert total is not None
    return total / count


def halved_log_prob(
    describe: Describe, classifier: PixelClassifier, image: Tensor, geometry: Tensor | None, stride: int
) -> Tensor:
    """Log-probabilities from the image at half size; its vectors are averaged with those of its mirror image.

    Args and result as in ``whole_log_prob``.
    """
    height, width = image.shape[-2:]
    # Cells of the mirror image are cells of the image only if both begin and end with a whole one.
    small = pad_to_cells(halve(image), stride)
    small_geometry = None if geometry is None else pad_to_cells(halve(geometry), stride)
    mirrored_geometry = None if small_geometry is None else small_geometry.flip(-1)
    straight = describe(small, small_geometry)
    mirrored = describe(small.flip(-1), mirrored_geometry).flip(-1)
    return classifier.log_prob((straight + mirrored) / 2, 2 * stride, height, width)[0]


def halve(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H // 2, W // 2), at least one pixel: means of areas."""
    size = (max(maps.shape[-2] // 2, 1), max(maps.shape[-1] // 2, 1))
    return functional.interpolate(maps, size=size, mode="area")


def near_weight(depth_m: Tensor, depth_scale_m: float) -> Tensor:
    """Weight alpha of the halved image: 1 at the camera, 1/2 at ``depth_scale_m``, 0 at infinity.

    Args:
        depth_m: Metres, far where unknown.
        depth_scale_m: z0; at this depth both predictions weigh the same.
    """
    return 1 / (depth_m / depth_scale_m + 1)


def fuse_log_prob(low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    """Mix two predictions pixel by pixel.

    Args:
        low: (K, H, W) float, log-probabilities from the halved image.
        high: (K, H, W) float, from windows or the whole image.
        weight: (H, W) float in [0, 1], of ``low``: see ``near_weight``.

    Returns:
        (K, H, W) float, normalised again, so that they are log-probabilities.

    Raises:
        ShapeError: Sizes differ.
    """
    if low.shape != high.shape or weight.shape != high.shape[1:]:
        raise ShapeError(
            "low and high must be (K, H, W) and weight (H, W) of one size. "
            f"Got: {tuple(low.shape)}, {tuple(high.shape)}, {tuple(weight.shape)}"
        )
    return functional.log_softmax(weight * low + (1 - weight) * high, dim=0)
