"""K-means for millions of vectors: each step looks at a random batch and moves the centres a little.

Source: Sculley, "Web-Scale K-Means Clustering" (WWW 2010): a centre is the running mean of all vectors it was given.
A running mean cannot leave the neighbourhood it starts in, so ours starts from centres that Lloyd's steps found on a
sample; draws batches in short runs of neighbouring rows, which a file gives up much faster than single ones; gives
clusters that stay empty a new place; and stops by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.features.assignment import assign, farthest_vectors
from gestalt.features.vector_blocks import VectorBlocks


@dataclass(frozen=True)
class MiniBatch:
    """How many vectors are too many, and what is done then.

    Attributes:
        above: More vectors than this are clustered by mini-batches.
        sample: Vectors that Lloyd's steps, and the choice among restarts, look at first.
        size: Vectors of a batch.
        run: Neighbouring rows that are drawn together.
        window: Steps after which the objective is compared with that of the window before, and clusters that
            got no vector in the window are placed anew.
        tolerance: Steps end when the objective falls by less than this share from one window to the next.
        max_steps: Batches at most.
    """

    above: int = 1_000_000
    sample: int = 131_072
    size: int = 16_384
    run: int = 32
    window: int = 20
    tolerance: float = 1e-3
    max_steps: int = 600


MINI_BATCH = MiniBatch()


def refine_by_batches(
    vectors: VectorBlocks,
    centres: Tensor,
    sizes: Tensor,
    settings: MiniBatch,
    generator: torch.Generator,
    spherical: bool,
) -> tuple[Tensor, int]:
    """Move centres from where a sample has them to where all vectors have them.

    Args:
        vectors: n of them, D each.
        centres: (K, D) float32 on their device.
        sizes: (K,) int64, vectors of the sample that each is the mean of.
        settings: Batches and when to stop.
        generator: CPU generator that draws the batches.
        spherical: Centres are kept at unit length.

    Returns:
        Centres (K, D) float32, and the number of batches.
    """
    mean, given, in_window = centres.double(), sizes.clone(), torch.zeros_like(sizes)
    inertia, before, step = 0.0, float("inf"), 0
    for step in range(1, settings.max_steps + 1):
        batch = VectorBlocks(draw_rows(vectors, settings.size, settings.run, generator))
        found = assign(batch, mean.float()[None])
        given += found.sizes[0]
        in_window += found.sizes[0]
        # The mean of all vectors so far: what is new moves it by its share.
        mean += (found.sums[0] - found.sizes[0][:, None] * mean) / given.clamp(min=1)[:, None]
        if spherical:
            mean = functional.normalize(mean, dim=1)
        inertia += float(found.inertia[0])
        if step % settings.window:
            continue
        is_reseeded = _fill_empty(batch, mean, given, in_window)
        if not is_reseeded and before - inertia <= settings.tolerance * inertia:
            break
        before, inertia = inertia, 0.0
        in_window.zero_()
    return mean.float(), step


def draw_rows(vectors: VectorBlocks, size: int, run: int, generator: torch.Generator) -> Tensor:
    """``size`` rows, or up to ``run`` more, in runs of neighbours that begin anywhere: (m, D) float32."""
    run = min(run, len(vectors))
    first = torch.randint(len(vectors) - run + 1, (-(-size // run),), generator=generator)
    return vectors.rows((first[:, None] + torch.arange(run)).flatten())


def _fill_empty(batch: VectorBlocks, centres: Tensor, given: Tensor, in_window: Tensor) -> bool:
    """Place centres that got no vector in a window on the farthest ones of the last batch, in place."""
    empty = (in_window == 0).nonzero().flatten()
    if not len(empty):
        return False
    fresh = farthest_vectors(batch, centres.float(), len(empty))
    centres[empty[: len(fresh)]] = fresh.double()
    # What the cluster was given elsewhere says nothing of its new place.
    given[empty[: len(fresh)]] = 0
    return len(fresh) > 0
