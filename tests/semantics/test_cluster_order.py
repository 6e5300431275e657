"""The order of clusters, by hand."""

import torch

from gestalt.semantics.cluster_order import rank_by_row


def test_clusters_are_ranked_by_their_mean_row_and_empty_ones_come_first() -> None:
    labels = torch.tensor([0, 0, 2, 3])
    ranking = rank_by_row(labels, torch.tensor([0.9, 0.7, 0.25, 0.5]), 4)
    assert ranking.order.tolist() == [1, 2, 3, 0]
    assert ranking.shares == [0.0, 0.25, 0.25, 0.5]
    assert torch.allclose(torch.tensor(ranking.mean_rows), torch.tensor([0.0, 0.25, 0.5, 0.8]))


def test_equal_rows_keep_their_numbers() -> None:
    ranking = rank_by_row(torch.tensor([1, 0, 2]), torch.tensor([0.5, 0.5, 0.5]), 3)
    assert ranking.order.tolist() == [0, 1, 2]
