"""The one interface of dense features, and how they are stored."""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gestalt.data.atomic_files import write_bytes
from gestalt.errors import ShapeError
from gestalt.features.image_batches import check_finite, check_images, check_sizes, continue_borders

WEIGHTS = "weights.safetensors"
CARD = "card.json"

# Statistics of ImageNet's training images, RGB in [0, 1]: published backbones were trained on images so normalised.
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Larger batches are encoded in parts: memory does not grow with the batch, and no device needs more at once.
PIXELS_AT_ONCE = 2**21


@dataclass(frozen=True, eq=False)
class FeatureGrid:
    """What features say of a batch of images, on a grid of cells.

    Attributes:
        tokens: (B, D, h, w) float, what the cells are described by; zero in cells that are not valid.
        valid: (B, h, w) bool, False where a cell holds no pixel of the image.
        keys: (B, D, h, w) float, keys of the last block's attention, heads concatenated; None where there are none.
        cls: (B, D) float, the token of the whole image; None where there is none.
        cls_attention: (B, heads, h, w) float, attention of that token to the cells in the last block, or None.
    """

    tokens: Tensor
    valid: Tensor
    keys: Tensor | None = None
    cls: Tensor | None = None
    cls_attention: Tensor | None = None


class DenseFeatures(nn.Module, ABC):
    """Image -> grid of feature vectors. No gradient flows.

    Attributes:
        kind: Name under which ``card.json`` records the class and ``load_features`` finds it.
        stride: Pixels between neighbouring cells, in both directions.
        dimension: Length D of a vector.
        uses_position: Vectors depend on where in the image they lie, so a window of an image must not be
            encoded as if it were an image.
    """

    kind: ClassVar[str]
    stride: int
    dimension: int
    uses_position: bool

    @abstractmethod
    def encode(self, images: Tensor) -> FeatureGrid:
        """Features of (B, 3, H, W) images, finite, whose size is a multiple of ``stride``."""

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """What, beside the tensors, is needed to build the object again: plain JSON values."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float RGB in [0, 1] -> (B, D, h, w) float: the tokens of ``extract``."""
        return self.extract(images).tokens

    def extract(self, images: Tensor, sizes: Tensor | None = None) -> FeatureGrid:
        """Features of images of any size.

        Args:
            images: (B, 3, H, W) float, RGB in [0, 1].
            sizes: (B, 2) int, rows and columns of each image in a batch that was padded at the bottom and on the
                right with anything; None where every image fills its place.

        Returns:
            h = ceil(H / stride), w = ceil(W / stride). Cell (i, j) describes the pixels around
            ((i + 1/2) stride, (j + 1/2) stride); images are continued by their border pixels up to a multiple of
            ``stride``. Valid cells are those that the image would have by itself.

        Raises:
            ShapeError: ``images`` is not (B, 3, H, W) floating point, or ``sizes`` does not fit it.
            DataError: A pixel of an image is NaN or infinite.
        """
        check_images(images, self.smallest_px)
        if sizes is None:
            check_finite(images)
            return self.encode(pad_to_cells(images, self.stride))
        sizes = sizes.to(images.device)
        check_sizes(sizes, images, self.smallest_px)
        images = continue_borders(images, sizes)
        check_finite(images)
        return self.encode_padded(pad_to_cells(images, self.stride), -(-sizes // self.stride))

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @property
    def smallest_px(self) -> int:
        """Smallest side of an image that these features describe."""
        return 1

    def encode_padded(self, images: Tensor, cells: Tensor) -> FeatureGrid:
        """Features of images of different size in one batch; here each image is encoded by itself.

        Args:
            images: (B, 3, H, W) float, finite; H and W multiples of ``stride``.
            cells: (B, 2) int, rows and columns of cells of each image, from the upper left.
        """
        height, width = images.shape[2] // self.stride, images.shape[3] // self.stride
        grids = [
            self.encode(image[None, :, : rows * self.stride, : columns * self.stride])
            for image, (rows, columns) in zip(images, cells.tolist())
        ]
        return join_grids([_enlarge(grid, height, width) for grid in grids])


def join_grids(grids: Sequence[FeatureGrid]) -> FeatureGrid:
    """One batch of grids of equal size and kind."""

    def together(parts: Sequence[Tensor | None]) -> Tensor | None:
        present = [part for part in parts if part is not None]
        return torch.cat(present) if present else None

    return FeatureGrid(
        tokens=torch.cat([grid.tokens for grid in grids]),
        valid=torch.cat([grid.valid for grid in grids]),
        keys=together([grid.keys for grid in grids]),
        cls=together([grid.cls for grid in grids]),
        cls_attention=together([grid.cls_attention for grid in grids]),
    )


def encode_in_parts(encode: Callable[..., FeatureGrid], images: Tensor, *others: Tensor) -> FeatureGrid:
    """``encode(images, *others)``, called with some images of the batch after another.

    Args:
        encode: Takes parts of ``images`` and of each of ``others``.
        images: (B, 3, H, W).
        others: (B, ...) each.
    """
    at_once = max(1, PIXELS_AT_ONCE // (images.shape[2] * images.shape[3]))
    if len(images) <= at_once:
        return encode(images, *others)
    parts = zip(*(torch.split(tensor, at_once) for tensor in (images, *others)))
    return join_grids([encode(*part) for part in parts])


def normalise(
    images: Tensor,
    mean: Sequence[float] = IMAGENET_MEAN,
    deviation: Sequence[float] = IMAGENET_DEVIATION,
) -> Tensor:
    """(B, 3, H, W) float RGB in [0, 1] -> the same with ``mean`` at 0 and ``deviation`` at 1."""
    return (images - images.new_tensor(mean)[:, None, None]) / images.new_tensor(deviation)[:, None, None]


def _enlarge(grid: FeatureGrid, height: int, width: int) -> FeatureGrid:
    bottom, right = height - grid.valid.shape[1], width - grid.valid.shape[2]

    def padded(values: Tensor) -> Tensor:
        return nn.functional.pad(values, (0, right, 0, bottom))

    return FeatureGrid(
        tokens=padded(grid.tokens),
        valid=padded(grid.valid),
        keys=None if grid.keys is None else padded(grid.keys),
        cls=grid.cls,
        cls_attention=None if grid.cls_attention is None else padded(grid.cls_attention),
    )


def pad_to_cells(maps: Tensor, stride: int) -> Tensor:
    """Continue (B, C, H, W) by its last row and column until both sizes are multiples of ``stride``."""
    bottom, right = -maps.shape[-2] % stride, -maps.shape[-1] % stride
    return nn.functional.pad(maps, (0, right, 0, bottom), mode="replicate") if bottom or right else maps


def image_to_tensor(image: Any, device: torch.device | str = "cpu") -> Tensor:
    """(H, W, 3) uint8 RGB array -> (1, 3, H, W) float tensor in [0, 1].

    Raises:
        ShapeError: The image has another shape or dtype.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype.name != "uint8":
        raise ShapeError(f"image must be (H, W, 3) uint8 RGB. Got: {image.shape} {image.dtype}")
    return torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255


def save_features(
    features: DenseFeatures,
    folder: Path,
    *,
    record: Mapping[str, Any] | None = None,
    storage: torch.dtype | None = None,
) -> None:
    """Write ``weights.safetensors`` and ``card.json``; equal features give equal bytes.

    Each file is written aside and renamed, the card last: a folder with a card is complete.

    Args:
        features: On any device.
        folder: Made where it does not exist.
        record: Further entries of the card, plain JSON values: recipe, seed, losses.
        storage: Floating-point type of the tensors in the file; None keeps theirs. They are read back into float32.
    """
    from safetensors.torch import save

    tensors = {
        name: (value.to(storage) if storage and value.is_floating_point() else value).cpu().contiguous()
        for name, value in features.state_dict().items()
    }
    card = {
        **(record or {}),
        "kind": features.kind,
        "stride": features.stride,
        "dimension": features.dimension,
        **features.card(),
    }
    write_bytes(folder / WEIGHTS, save(tensors))
    write_bytes(folder / CARD, (json.dumps(card, indent=2, sort_keys=True) + "\n").encode())
