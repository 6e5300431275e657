"""Which crops look alike: exact nearest neighbours by the cosine of mean features, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.errors import DataError, ShapeError

# Rows and columns of a block of similarities: 64 MiB in single precision.
BLOCK = 4096


@dataclass(frozen=True, eq=False)
class NeighbourIndex:
    """The most similar crops of each crop.

    Attributes:
        indices: (n, k) int64, the most similar first; -1 where there are fewer candidates than k.
        similarities: (n, k) float, cosines; -inf there.
    """

    indices: Tensor
    similarities: Tensor

    def draw(self, queries: Tensor, ranks: int, generator: torch.Generator) -> Tensor:
        """One of the first neighbours of each query, at random.

        Args:
            queries: (B,) int64, rows of the index.
            ranks: Neighbours are drawn from this many first ones, or all where there are fewer.
            generator: CPU generator.

        Returns:
            (B,) int64.
        """
        candidates = self.indices[queries, :ranks]
        available = (candidates >= 0).sum(1)
        place = (torch.rand(len(queries), generator=generator) * available).long()
        return candidates.gather(1, place[:, None])[:, 0]


def find_neighbours(
    queries: Tensor,
    candidates: Tensor,
    count: int,
    *,
    query_groups: Tensor,
    candidate_groups: Tensor,
    block: int = BLOCK,
) -> NeighbourIndex:
    """The ``count`` candidates of largest cosine to each query, none of the query's own group.

    Memory grows with the block and the number of results, not with the product of the numbers of vectors.

    Args:
        queries: (n, D) float, any length.
        candidates: (m, D) float.
        count: k; fewer columns come back where there are fewer candidates.
        query_groups: (n,) int64. Numbers of crops leave out the crop itself, numbers of images all its crops.
        candidate_groups: (m,) int64.
        block: Rows and columns that are compared at once; changes no result.

    Returns:
        On the CPU.

    Raises:
        ShapeError: Vectors or groups do not fit each other.
        DataError: A vector is not finite, or a query has no candidate outside its group.
    """
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise ShapeError(
            f"queries and candidates must be (n, D) and (m, D). Got: {tuple(queries.shape)}, {tuple(candidates.shape)}"
        )
    if query_groups.shape != queries.shape[:1] or candidate_groups.shape != candidates.shape[:1]:
        raise ShapeError(
            f"every vector needs a group. Got: {len(query_groups)} of {len(queries)} queries, "
            f"{len(candidate_groups)} of {len(candidates)} candidates"
        )
    if not bool(torch.isfinite(queries).all() and torch.isfinite(candidates).all()):
        raise DataError("mean features hold NaN or infinity: the features are broken")
    device = queries.device
    count = min(count, len(candidates))
    keys = torch.nn.functional.normalize(candidates, dim=1)
    key_groups = candidate_groups.to(device)
    indices, similarities = [], []
    for start in range(0, len(queries), block):
        rows = torch.nn.functional.normalize(queries[start : start + block], dim=1)
        groups = query_groups[start : start + block].to(device)
        best = rows.new_full((len(rows), count), -torch.inf)
        found = torch.full((len(rows), count), -1, dtype=torch.int64, device=device)
        for first in range(0, len(keys), block):
            cosines = rows @ keys[first : first + block].T
            cosines.masked_fill_(groups[:, None] == key_groups[None, first : first + block], -torch.inf)
            numbers = torch.arange(first, first + cosines.shape[1], device=device).expand_as(cosines)
            best, order = torch.cat([best, cosines], 1).topk(count, dim=1)
            found = torch.cat([found, numbers], 1).gather(1, order)
        found[best == -torch.inf] = -1
        indices.append(found.cpu())
        similarities.append(best.cpu())
    index = NeighbourIndex(torch.cat(indices), torch.cat(similarities))
    if bool((index.indices[:, :1] < 0).any()) or count == 0:
        raise DataError(
            "a crop has no other crop to be paired with: train on at least two images, or set "
            "codes.neighbours.same_image=true"
        )
    return index
