"""Numbers for clusters that mean much the same in every fit: from the top of the image to the bottom."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Ranking:
    """Clusters in the order of their mean row.

    Attributes:
        order: (K,) int64, old numbers in the new order.
        shares: Of all vectors, by new number.
        mean_rows: Share of the image height, by new number; they ascend. 0 for a cluster without vectors.
    """

    order: Tensor
    shares: list[float]
    mean_rows: list[float]


def rank_by_row(labels: Tensor, rows: Tensor, n_clusters: int) -> Ranking:
    """Rank clusters by where their vectors lie; ties keep the old order.

    Args:
        labels: (n,) int64, the cluster of each vector.
        rows: (n,) float, the row of each, share of the image height.
        n_clusters: K.
    """
    sizes = torch.bincount(labels, minlength=n_clusters)
    sums = torch.zeros(n_clusters, dtype=torch.float64).index_add_(0, labels, rows.double())
    mean_rows = sums / sizes.clamp(min=1)
    order = mean_rows.argsort(stable=True)
    shares = sizes[order].double() / len(labels)
    return Ranking(order, shares.tolist(), mean_rows[order].tolist())
