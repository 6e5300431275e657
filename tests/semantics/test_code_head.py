"""The head's formula, its dropout, and the loss that clusters codes."""

import pytest
import torch
from torch import nn

from gestalt.errors import ShapeError
from gestalt.semantics.code_head import CodeHead, clustering_loss, cosine_to_prototypes, draw_kept


def test_codes_are_a_linear_map_plus_a_small_network_of_each_cell() -> None:
    torch.manual_seed(0)
    head, cells = CodeHead(6, 4), torch.randn(2, 6, 3, 5)
    linear, first, last = (
        (layer.weight[:, :, 0, 0].double(), layer.bias.double())
        for layer in (head.linear, head.first, head.last)
    )
    vectors = cells.double().permute(0, 2, 3, 1)
    hidden = (vectors @ first[0].T + first[1]).clamp(min=0)
    expected = vectors @ linear[0].T + linear[1] + hidden @ last[0].T + last[1]
    torch.testing.assert_close(head(cells).double(), expected.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)
    assert head.first.weight.shape[:2] == (6, 6)


def test_dropout_hides_other_channels_from_each_branch_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    head, cells = CodeHead(6, 4), torch.randn(1, 6, 2, 2)
    kept = torch.ones(2, 1, 6)
    kept[0, 0, 1] = 0
    kept[1, 0, 3] = 0
    blind = cells.clone(), cells.clone()
    blind[0][:, 1] = 0
    blind[1][:, 3] = 0
    expected = head.linear(blind[0]) + head.last(nn.functional.relu(head.first(blind[1])))
    torch.testing.assert_close(head(cells, kept), expected)
    drawn = draw_kept(500, 40, 0.1, torch.Generator().manual_seed(0))
    assert drawn.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert float(drawn.mean()) == pytest.approx(1, abs=0.01)
    assert float((drawn[0] == drawn[1]).float().mean()) == pytest.approx(0.82, abs=0.02)


def test_without_dropout_nothing_is_hidden() -> None:
    assert (draw_kept(3, 5, 0.0, torch.Generator()) == 1).all()


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(B, 6, h, w\).*\(1, 7, 2, 2\)"):
        CodeHead(6, 4)(torch.zeros(1, 7, 2, 2))


def test_the_clustering_loss_moves_prototypes_only() -> None:
    codes = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]]).T.reshape(1, 2, 1, 3).requires_grad_()
    prototypes = torch.tensor([[2.0, 0.0], [0.0, 0.5]]).requires_grad_()
    loss = clustering_loss(codes, prototypes)
    assert float(loss.detach()) == pytest.approx(-(1 + 1 + 2**-0.5) / 3)
    loss.backward()
    assert codes.grad is None
    assert prototypes.grad is not None


def test_cosines_do_not_depend_on_lengths_and_a_zero_code_has_none() -> None:
    codes = torch.tensor([[0.0, 0.0], [5.0, 0.0]]).T.reshape(1, 2, 1, 2)
    cosines = cosine_to_prototypes(codes, torch.tensor([[9.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    assert cosines[0, :, 0].T.tolist() == [[0, 0, 0], [1, 0, -1]]
