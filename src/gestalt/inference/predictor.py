"""The façade for people: uint8 images of any size in, panoptic maps in unified pseudo-classes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gestalt.config.network import PredictSettings
from gestalt.config.presets import default_settings
from gestalt.errors import ShapeError
from gestalt.network.checkpoint import NetworkCard, load_network
from gestalt.network.merge import Segment, merge_panoptic
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.network.test_time import predict_views
from gestalt.panoptic import PanopticMap, UInt8Array
from gestalt.runtime import choose_device


@dataclass(frozen=True, eq=False)
class PanopticPrediction:
    """What a network says about one image.

    Attributes:
        panoptic: The map in unified pseudo-class space (stuff 0..S-1, things S..S+T-1, 255 void).
        segments: Its segments with scores, things first, best first.
    """

    panoptic: PanopticMap
    segments: list[Segment]


class Predictor:
    """A trained network that takes what people have.

    Attributes:
        card: What the network is; names the pseudo-class behind each unified id.
    """

    def __init__(
        self, network: PanopticNetwork, card: NetworkCard, settings: PredictSettings, device: torch.device
    ) -> None:
        self._network = network.to(device).to(memory_format=torch.channels_last).eval()
        self.card, self._settings, self._device = card, settings, device

    @classmethod
    def load(
        cls, folder: Path, device: torch.device | None = None, settings: PredictSettings | None = None
    ) -> Predictor:
        """Open a network folder, such as ``models/self_trained``.

        Args:
            folder: Holds weights and card.
            device: A GPU where there is one when None.
            settings: Section ``predict``; the embedded preset when None.

        Raises:
            DataError: The folder is no network folder.
        """
        device = device or choose_device()
        network, card = load_network(folder, device)
        return cls(network, card, settings or default_settings("predict"), device)

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        return self._settings.batch_size

    def __call__(self, image: UInt8Array) -> PanopticPrediction:
        """Predict one image: (H, W, 3) uint8 RGB of any size; the map has that size.

        Raises:
            ShapeError: Another shape or dtype.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[UInt8Array]) -> list[PanopticPrediction]:
        """Predict images of one size together.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            One prediction per image, of the image's size.

        Raises:
            ShapeError: An image has another shape or dtype, or they differ in size.
        """
        for image in images:
            if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or 0 in image.shape:
                raise ShapeError(f"an image must be (H, W, 3) uint8 RGB. Got: {image.shape} {image.dtype}")
        sizes = {image.shape[:2] for image in images}
        if len(sizes) != 1:
            raise ShapeError(f"the images of a batch must have one size. Got: {sorted(sizes)}")
        height, width = next(iter(sizes))
        stacked = torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2)
        merge = self._settings.merge
        scale = self._settings.height_px / height if self._settings.height_px else 1.0
        predictions = predict_views(
            self._network,
            stacked.to(self._device, torch.float32) / 255,
            scales=[scale * view for view in self._settings.view_scales],
            flip=self._settings.view_flip,
            score_threshold=merge.score_threshold,
            output_size=(height, width),
        )
        return [
            PanopticPrediction(
                *merge_panoptic(
                    prediction,
                    score_threshold=merge.score_threshold,
                    overlap_share=merge.overlap_share,
                    min_stuff_share=merge.min_stuff_share,
                )
            )
            for prediction in predictions
        ]
