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

# (B, 3, H, W) images and (B, C, H, W) geometry or None -> (B, D, h, w) vectors.
Describe = Callable[[Tensor, Tensor | None], Tensor]
# (B, D, h, w) vectors -> (B, K, h, w) logits, affine in the vectors.
Classify = Callable[[Tensor], Tensor]


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
    describe: Describe, classify: Classify, image: Tensor, geometry: Tensor | None, stride: int
) -> Tensor:
    """Log-probabilities of the image as one window.

    Args:
        describe: Features and geometry of images as vectors.
        classify: Vectors as logits.
        image: (1, 3, H, W) float in [0, 1].
        geometry: (1, C, H, W) float or None.
        stride: Of ``describe``.

    Returns:
        (K, H, W) float, log-probabilities that sum to one in each pixel.
    """
    height, width = image.shape[-2:]
    return to_pixels(classify(describe(image, geometry)), stride, height, width)[0]


def windowed_log_prob(
    describe: Describe,
    classify: Classify,
    image: Tensor,
    geometry: Tensor | None,
    stride: int,
    batch: int,
) -> Tensor:
    """Mean log-probabilities over square windows of half the image height, every quarter of it.

    Args:
        describe: As in ``whole_log_prob``.
        classify: As in ``whole_log_prob``.
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
        log_prob = to_pixels(classify(vectors), stride, side, columns)
        if total is None:
            total = log_prob.new_zeros(log_prob.shape[1], height, width)
        for (top, left), window in zip(chunk, log_prob):
            total[:, top : top + side, left : left + columns] += window
            count[:, top : top + side, left : left + columns] += 1
    assert total is not None
    return total / count


def halved_log_prob(
    describe: Describe, classify: Classify, image: Tensor, geometry: Tensor | None, stride: int
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
    return to_pixels(classify((straight + mirrored) / 2), stride, height, width, scale=2)[0]


def halve(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H // 2, W // 2), at least one pixel: means of areas."""
    size = (max(maps.shape[-2] // 2, 1), max(maps.shape[-1] // 2, 1))
    return functional.interpolate(maps, size=size, mode="area")


def to_pixels(logits: Tensor, stride: int, height: int, width: int, scale: int = 1) -> Tensor:
    """Logits of cells -> log-probabilities of pixels.

    Logits are affine in the vectors, so interpolating them equals classifying interpolated vectors, at a
    fraction of the cost.

    Args:
        logits: (B, K, h, w) float, of cells of ``stride * scale`` pixels; the last ones may reach over the
            border.
        stride: Of the features.
        height: Rows wanted.
        width: Columns wanted.
        scale: How much smaller the described image was.

    Returns:
        (B, K, height, width) float.
    """
    size = (logits.shape[-2] * stride * scale, logits.shape[-1] * stride * scale)
    pixels = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    if size[0] < height or size[1] < width:
        pixels = functional.pad(
            pixels, (0, max(width - size[1], 0), 0, max(height - size[0], 0)), mode="replicate"
        )
    return functional.log_softmax(pixels[..., :height, :width], dim=1)


def near_weight(depth_m: Tensor, depth_scale_m: float) -> Tensor:
    """Weight alpha of the halved image: 1 at the camera, 1/2 at ``depth_scale_m``, 0 at infinity."""
    return 1 / (depth_m / depth_scale_m + 1)


def fuse_log_prob(low: Tensor, high: Tensor, depth_m: Tensor, depth_scale_m: float) -> Tensor:
    """Mix two predictions pixel by pixel.

    Args:
        low: (K, H, W) float, log-probabilities from the halved image.
        high: (K, H, W) float, from windows or the whole image.
        depth_m: (H, W) float, metres, far where unknown.
        depth_scale_m: z0; at this depth both weigh the same.

    Returns:
        (K, H, W) float, normalised again, so that they are log-probabilities.

    Raises:
        ShapeError: Sizes differ.
    """
    if low.shape != high.shape or depth_m.shape != high.shape[1:]:
        raise ShapeError(
            "low and high must be (K, H, W) and depth_m (H, W) of one size. "
            f"Got: {tuple(low.shape)}, {tuple(high.shape)}, {tuple(depth_m.shape)}"
        )
    alpha = near_weight(depth_m, depth_scale_m)
    return functional.log_softmax(alpha * low + (1 - alpha) * high, dim=0)
