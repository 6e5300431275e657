from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from gestalt.network.anchors import anchor_boxes, anchor_grid

RATIOS = (0.5, 1.0, 2.0)


def test_anchors_have_one_area_the_ratios_and_the_origin_as_centre() -> None:
    boxes = anchor_boxes(32, RATIOS)
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    torch.testing.assert_close(widths * heights, torch.full((3,), 1024.0))
    torch.testing.assert_close(heights / widths, torch.tensor(RATIOS))
    torch.testing.assert_close(boxes[:, :2], -boxes[:, 2:])


def test_anchors_are_not_rounded() -> None:
    # A box of 32 x 32 px with ratio 0.5 is 45.25 wide and 22.63 high.
    assert anchor_boxes(32, [0.5])[0].tolist() == pytest.approx(
        [-22.627417, -11.313708, 22.627417, 11.313708]
    )


def test_the_grid_is_that_of_torchvision_up_to_its_rounding() -> None:
    levels = [torch.zeros(1, 1, 4, 6), torch.zeros(1, 1, 2, 3)]
    generator = AnchorGenerator(((32,), (64,)), (RATIOS, RATIOS))
    expected = generator(ImageList(torch.zeros(1, 3, 32, 48), [(32, 48)]), levels)[0]
    ours = torch.cat(
        [anchor_grid(anchor_boxes(32, RATIOS), (4, 6), 8), anchor_grid(anchor_boxes(64, RATIOS), (2, 3), 16)]
    )
    assert (ours - expected).abs().max() <= 0.5
    square = slice(1, None, 3)
    torch.testing.assert_close(ours[square], expected[square])
