from __future__ import annotations

import torch
from torchvision.models.detection._utils import BoxCoder

from gestalt.network.boxes import clip_boxes, decode_boxes, encode_boxes, flip_boxes

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(seed: int, n: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * 100
    return torch.cat([corner, corner + 1 + torch.rand(n, 2, generator=generator) * 50], 1)


def test_decoding_inverts_encoding() -> None:
    targets, references = random_boxes(0), random_boxes(1)
    decoded = decode_boxes(encode_boxes(targets, references, WEIGHTS), references, WEIGHTS)
    torch.testing.assert_close(decoded, targets, rtol=1e-4, atol=1e-3)


def test_encoding_agrees_with_torchvision() -> None:
    targets, references = random_boxes(0), random_boxes(1)
    expected = BoxCoder(WEIGHTS).encode_single(targets, references)
    torch.testing.assert_close(encode_boxes(targets, references, WEIGHTS), expected)


def test_mirroring_twice_changes_nothing_and_keeps_sides_in_order() -> None:
    boxes = random_boxes(0)
    mirrored = flip_boxes(boxes, 200)
    assert (mirrored[:, 2] > mirrored[:, 0]).all()
    torch.testing.assert_close(flip_boxes(mirrored, 200), boxes)


def test_clipped_boxes_lie_in_the_image() -> None:
    clipped = clip_boxes(random_boxes(0) - 30, (40, 60))
    assert (clipped >= 0).all()
    assert (clipped <= torch.tensor([60.0, 40, 60, 40])).all()
