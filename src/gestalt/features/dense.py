"""The one interface of dense features, and how they are stored."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from gestalt.data.atomic_files import write_bytes
from gestalt.errors import ShapeError

WEIGHTS = "weights.safetensors"
CARD = "card.json"


class DenseFeatures(nn.Module, ABC):
    """Image -> grid of feature vectors.

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
    def encode(self, images: Tensor) -> Tensor:
        """Feature grid of images whose size is a multiple of ``stride``."""

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """What, beside the tensors, is needed to build the object again: plain JSON values."""

    def forward(self, images: Tensor) -> Tensor:
        """Feature grid of images of any size.

        Args:
            images: (B, 3, H, W) float, RGB in [0, 1].

        Returns:
            (B, D, h, w) float with h = ceil(H / stride), w = ceil(W / stride). Cell (i, j) describes the
            pixels around ((i + 1/2) stride, (j + 1/2) stride); images are continued by their border
            pixels up to a multiple of ``stride``.

        Raises:
            ShapeError: ``images`` is not (B, 3, H, W) floating point.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point() or images.numel() == 0:
            raise ShapeError(
                f"images must be (B, 3, H, W) float in [0, 1]. Got: {tuple(images.shape)} {images.dtype}"
            )
        return self.encode(pad_to_cells(images, self.stride))


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


def save_features(features: DenseFeatures, folder: Path) -> None:
    """Write ``weights.safetensors`` and ``card.json``; equal features give equal bytes.

    Each file is written aside and renamed, the card last: a folder with a card is complete.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in features.state_dict().items()}
    card = {
        "kind": features.kind,
        "stride": features.stride,
        "dimension": features.dimension,
        **features.card(),
    }
    write_bytes(folder / WEIGHTS, save(tensors))
    write_bytes(folder / CARD, (json.dumps(card, indent=2, sort_keys=True) + "\n").encode())
