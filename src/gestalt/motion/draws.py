"""Random choices of the runs: every run has its own generator, so no run depends on how many others there are."""

from __future__ import annotations

import torch
from torch import Tensor

from gestalt.runtime import torch_generator


class Draws:
    """Random numbers for n runs of a frame, drawn on the CPU so that every device sees the same.

    Args:
        seed: The experiment's seed.
        frame_id: The frame.
        runs: n.
        device: Where the numbers go.
    """

    def __init__(self, seed: int, frame_id: str, runs: int, device: torch.device) -> None:
        self._generators = [torch_generator(seed, frame_id, "motion", run) for run in range(runs)]
        self._device = device

    def uniform(self, *shape: int) -> Tensor:
        """(n, *shape) float32 in [0, 1)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self._generators]).to(self._device)

    def subset(self, allowed: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Up to ``count`` different members of each run's set.

        Args:
            allowed: (n, N) bool.
            count: Size of the subset; smaller sets are used whole.

        Returns:
            Indices (n, C) int64 and which of them are members, (n, C) bool, members first.
        """
        keys = torch.where(allowed, self.uniform(allowed.shape[1]), -1.0)
        found = keys.topk(min(count, allowed.shape[1]), dim=1)
        return found.indices, found.values >= 0

    def members(self, sizes: Tensor, *shape: int) -> Tensor:
        """Indices in [0, size) with replacement: (n, *shape) int64, 0 where a run's size is 0."""
        drawn = self.uniform(*shape)
        size = sizes.view(-1, *[1] * len(shape))
        return torch.minimum((drawn * size).long(), (size - 1).clamp(min=0))
