"""How the images of a step are dealt out: to processes, and within each to passes that the device takes at once."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.data.ranks import Ranks
from gestalt.errors import ConfigError


@dataclass(frozen=True)
class Parts:
    """Equal parts of the batch of a step. Each is one forward and backward pass; gradients are their mean.

    Chance belongs to a part's number or to an image's place in the batch, never to a process. So two processes with
    one part each learn what one process with two parts learns, where batch norms are frozen or see their own part only.

    Attributes:
        batch_size: Images of a step, over all parts.
        per_rank: Passes of a process.
        ranks: This process among the others.
    """

    batch_size: int
    per_rank: int = 1
    ranks: Ranks = Ranks()

    @property
    def count(self) -> int:
        """How many parts a step has, over all processes."""
        return self.per_rank * self.ranks.size

    @property
    def own(self) -> range:
        """The numbers of this process's parts."""
        first = self.ranks.rank * self.per_rank
        return range(first, first + self.per_rank)

    def places(self, part: int) -> range:
        """Places in the batch, 0 to ``batch_size`` - 1, of the images of a part."""
        size = self.batch_size // self.count
        return range(part * size, (part + 1) * size)


def deal_out(batch_size: int, accumulate: int, ranks: Ranks, *, section: str) -> Parts:
    """The parts of a step.

    Raises:
        ConfigError: They would not be equal.
    """
    parts = Parts(batch_size, accumulate, ranks)
    if batch_size % parts.count:
        raise ConfigError(
            f"{section}.batch_size must be a multiple of {parts.count}: {section}.optimiser.accumulate = "
            f"{accumulate} passes in each of {ranks.size} processes. Got: {batch_size}"
        )
    return parts
