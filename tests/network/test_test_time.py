from __future__ import annotations

import torch

from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.network.test_time import predict_views


def test_one_plain_view_is_ordinary_inference(network: PanopticNetwork, images: torch.Tensor) -> None:
    predictions = predict_views(network, images, score_threshold=0.2)
    with torch.no_grad():
        pyramid, detections, logits = network.detect(images, 0.2)
        masks = network.instance_heads.mask_probs(
            pyramid, [found.boxes for found in detections], [found.classes for found in detections]
        )
    assert sum(len(found.boxes) for found in detections) > 0
    for prediction, found, mask, own in zip(predictions, detections, masks, logits, strict=True):
        torch.testing.assert_close(prediction.detections.boxes, found.boxes)
        torch.testing.assert_close(prediction.detections.scores, found.scores)
        torch.testing.assert_close(prediction.detections.mask_probs, mask)
        torch.testing.assert_close(prediction.semantic_probs, own.softmax(0))


def test_a_mirrored_view_makes_a_symmetric_image_symmetric(network: PanopticNetwork) -> None:
    half = torch.rand(1, 3, 64, 48)
    symmetric = torch.cat([half, half.flip(-1)], -1)
    (prediction,) = predict_views(network, symmetric, scales=(1.0, 0.5), flip=True)
    probs = prediction.semantic_probs
    torch.testing.assert_close(probs, probs.flip(-1), rtol=1e-4, atol=1e-5)
    plain = predict_views(network, symmetric)[0].semantic_probs
    assert not torch.allclose(plain, plain.flip(-1), atol=1e-5)


def test_averaged_probabilities_sum_to_one_at_the_output_size(
    network: PanopticNetwork, images: torch.Tensor
) -> None:
    for prediction in predict_views(network, images, scales=(0.5, 1.0), flip=True, output_size=(100, 150)):
        assert prediction.semantic_probs.shape == (4, 100, 150)
        torch.testing.assert_close(prediction.semantic_probs.sum(0), torch.ones(100, 150))


def test_boxes_of_all_views_come_back_in_pixels_of_the_output(
    network: PanopticNetwork, images: torch.Tensor
) -> None:
    plain = predict_views(network, images, score_threshold=0.0)
    enlarged = predict_views(network, images, score_threshold=0.0, output_size=(128, 192))
    torch.testing.assert_close(
        enlarged[0].detections.boxes, 2 * plain[0].detections.boxes, rtol=1e-4, atol=1e-2
    )
    mirrored = predict_views(network, images.flip(-1), score_threshold=0.0, flip=True)
    both = predict_views(network, images, score_threshold=0.0, flip=True)
    flipped = mirrored[0].detections.boxes.clone()
    flipped[:, [0, 2]] = 96 - flipped[:, [2, 0]]
    torch.testing.assert_close(flipped, both[0].detections.boxes, rtol=1e-3, atol=1e-2)
