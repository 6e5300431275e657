"""Many vectors as blocks of rows: from a tensor on any device, or from an array that is mapped from a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gestalt.errors import DataError, ShapeError

Vectors = Tensor | npt.NDArray[Any]

# Rows of a block: little memory whatever the number of vectors, few enough blocks for a GPU.
BLOCK = 65536


@dataclass(frozen=True, eq=False)
class VectorBlocks:
    """Rows of ``source``, handed out as finite float32 on one device.

    Args:
        source: (n, D) floating point. A tensor stays on its device; an array, such as a memory-mapped float16
            file, is read block by block.
        device: Where blocks of an array go; ignored for a tensor.

    Raises:
        ShapeError: ``source`` is not (n, D) floating point.
    """

    source: Vectors
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        source = self.source
        is_float = (
            source.is_floating_point()
            if isinstance(source, Tensor)
            else np.issubdtype(source.dtype, np.floating)
        )
        if source.ndim != 2 or not is_float:
            raise ShapeError(f"vectors must be (n, D) float. Got: {tuple(source.shape)} {source.dtype}")
        if isinstance(source, Tensor):
            object.__setattr__(self, "device", source.device)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.source.shape[1])

    def __iter__(self) -> Iterator[Tensor]:
        """All rows in order, at most ``BLOCK`` at a time: (b, D) float32.

        Raises:
            DataError: A value is not finite.
        """
        for first in range(0, len(self), BLOCK):
            last = min(first + BLOCK, len(self))
            yield self._load(self.source[first:last], f"{first} to {last - 1}")

    def rows(self, index: Tensor) -> Tensor:
        """Some rows, (len(index), D) float32.

        Args:
            index: (m,) int64 on the CPU.

        Raises:
            DataError: A value is not finite.
        """
        if isinstance(self.source, Tensor):
            return self._load(self.source[index.to(self.device)], "drawn at random")
        return self._load(self.source[index.numpy()], "drawn at random")

    def _load(self, block: Vectors, place: str) -> Tensor:
        if not isinstance(block, Tensor):
            # A copy: a mapped file may be read-only, which torch warns of.
            block = torch.from_numpy(np.array(block))
        block = block.to(self.device, torch.float32)
        # The sum of finite numbers may overflow, so it only says where to look.
        if not bool(torch.isfinite(block.sum())) and not bool(torch.isfinite(block).all()):
            raise DataError(
                f"vectors hold NaN or infinity (rows {place}): the features or the disparity behind them are broken"
            )
        return block
