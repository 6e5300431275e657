"""An exported network for people: uint8 images of any size in, panoptic maps out, as ``Predictor`` does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gestalt.config.network import PredictSettings
from gestalt.config.presets import default_settings
from gestalt.errors import ShapeError
from gestalt.inference.deployment import DeploymentCard, Engine, open_deployment
from gestalt.inference.predictor import PanopticPrediction
from gestalt.network.merge import merge_panoptic
from gestalt.network.records import Detections, Prediction
from gestalt.panoptic import UInt8Array


class DeployedPredictor:
    """Runs an exported graph on the CPU and does what the graph leaves out.

    An image is scaled until it fits the graph's size; what it leaves free, right and below, gets the colour
    that is 0 after normalisation. An image of the graph's own proportions gets the map that ``Predictor`` gives
    it at that height; others see more padding than there, which can change pixels near the padding.

    Attributes:
        card: What the graph is.
    """

    def __init__(self, engine: Engine, card: DeploymentCard, settings: PredictSettings) -> None:
        self._engine, self.card, self._settings = engine, card, settings

    @classmethod
    def load(cls, path: Path, settings: PredictSettings | None = None) -> DeployedPredictor:
        """Open what ``gestalt network export`` wrote.

        Args:
            path: The graph, ``.onnx`` or ``.pt2``, its card beside it.
            settings: Section ``predict``, of which ``merge`` is read; the embedded preset when None.

        Raises:
            DataError: Graph or card is missing, broken, or they do not belong together.
            MissingDependencyError: onnxruntime is not installed.
        """
        engine, card = open_deployment(path)
        return cls(engine, card, settings or default_settings("predict"))

    @torch.no_grad()
    def __call__(self, image: UInt8Array) -> PanopticPrediction:
        """Predict one image: (H, W, 3) uint8 RGB of any size; the map has that size.

        Raises:
            ShapeError: Another shape or dtype.
        """
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ShapeError(f"an image must be (H, W, 3) uint8 RGB. Got: {image.shape} {image.dtype}")
        size = (int(image.shape[0]), int(image.shape[1]))
        view = _size_within(size, self.card.image_size)
        merge = self._settings.merge
        boxes, scores, classes, mask_probs, logits = self._engine(
            self._fit(image, view), torch.tensor(merge.score_threshold)
        )
        logits = logits[..., : view[0], : view[1]]
        if view != size:
            logits = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        vertical, horizontal = size[0] / view[0], size[1] / view[1]
        scale = torch.tensor([horizontal, vertical, horizontal, vertical])
        prediction = Prediction(Detections(boxes * scale, scores, classes, mask_probs), logits[0].softmax(0))
        return PanopticPrediction(
            *merge_panoptic(
                prediction,
                score_threshold=merge.score_threshold,
                overlap_share=merge.overlap_share,
                min_stuff_share=merge.min_stuff_share,
            )
        )

    def _fit(self, image: UInt8Array, view: tuple[int, int]) -> Tensor:
        """(1, 3, H, W) float32 of the graph's size: the image at size ``view``, the rest padding."""
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).unsqueeze(0).float() / 255
        if view != image.shape[:2]:
            pixels = functional.interpolate(
                pixels, size=view, mode="bilinear", align_corners=False, antialias=True
            )
        colour = torch.tensor(self.card.padding_colour).view(1, 3, 1, 1)
        fitted = colour.repeat(1, 1, *self.card.image_size)
        fitted[..., : view[0], : view[1]] = pixels
        return fitted


def _size_within(size: tuple[int, int], limits: tuple[int, int]) -> tuple[int, int]:
    """The largest (H, W) of the proportions of ``size`` that fits into ``limits``."""
    scale = min(limits[0] / size[0], limits[1] / size[1])
    height, width = (
        min(max(round(side * scale), 1), limit) for side, limit in zip(size, limits, strict=True)
    )
    return height, width
