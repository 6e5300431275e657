"""How weights from elsewhere compare with a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

# Lines of a kind in a report before the rest is counted only.
SHOWN = 8


@dataclass(frozen=True)
class WeightReport:
    """How weights from elsewhere compare with a network; each entry is a line for people.

    Attributes:
        fitting: Number of weights that have name and shape of one of the network's.
        missing: The network has it, the file has not.
        unexpected: The file has it, the network has not.
        misshapen: Both have it, in two shapes.
    """

    fitting: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the weights are the network's, all of them and nothing else."""
        return not (self.missing or self.unexpected or self.misshapen)

    def lines(self) -> list[str]:
        """What is printed: a line per kind and the first weights of each."""
        found = [f"{self.fitting} weights fit"]
        for kind in ("missing", "unexpected", "misshapen"):
            entries: tuple[str, ...] = getattr(self, kind)
            found.append(f"{len(entries)} {kind}" + (":" if entries else ""))
            found += [f"  {entry}" for entry in entries[:SHOWN]]
            if len(entries) > SHOWN:
                found.append(f"  and {len(entries) - SHOWN} more")
        return found


def compare_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> WeightReport:
    """Names and shapes of weights against those of a network."""
    return compare_tensors(network.state_dict(), weights)


def compare_tensors(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> WeightReport:
    """Names and shapes of weights against those that are ``own``."""
    common = [name for name in own if name in weights]
    misshapen = [name for name in common if own[name].shape != weights[name].shape]
    return WeightReport(
        fitting=len(common) - len(misshapen),
        missing=tuple(f"{name} {tuple(own[name].shape)}" for name in own if name not in weights),
        unexpected=tuple(f"{name} {tuple(weights[name].shape)}" for name in weights if name not in own),
        misshapen=tuple(
            f"{name} expected {tuple(own[name].shape)}, got {tuple(weights[name].shape)}"
            for name in misshapen
        ),
    )
