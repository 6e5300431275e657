"""The façade for people: uint8 images of any size in, panoptic maps in unified pseudo-classes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gestalt.config.network import PredictSettings
from gestalt.config.presets import default_settings
from gestalt.errors import ConfigError, ShapeError
from gestalt.network.checkpoint import NetworkCard, load_network
from gestalt.network.merge import Segment, merge_panoptic
from gestalt.network.panoptic_model import PanopticModel
from gestalt.network.test_time import predict_views
from gestalt.panoptic import PanopticMap, UInt8Array
from gestalt.runtime import choose_device

# Longest side of a view, px, as CUPS limits the views of its teacher: memory grows with the pixels that the network
# sees, and neither a line of pixels nor a height typed with a digit too many must ask for more than there is.
LONGEST_SIDE_PX = 4000

CPU_OUT_OF_MEMORY = "can't allocate memory"


@dataclass(frozen=True, eq=False)
class PanopticPrediction:
    """What a network says about one image.

    Attributes:
        panoptic: The map in unified pseudo-class space (stuff 0..S-1, things S..S+T-1, 255 void).
        segments: Its segments with scores, things first, best first.
    """

    panoptic: PanopticMap
    segments: list[Segment]


def at_trained_height(settings: PredictSettings, card: NetworkCard) -> PredictSettings:
    """Settings with the height that the network was trained at, where they name none.

    Objects much larger or smaller than those of the training images are not found.
    """
    return dataclasses.replace(settings, height_px=settings.height_px or card.image_size[0])


class Predictor:
    """A trained network that takes what people have.

    Example::

        predictor = Predictor.load(Path("models/self_trained"))
        prediction = predictor(read_image(Path("street.png")))
        for segment in prediction.segments:  # things first, best first
            mask = prediction.panoptic.instance_map == segment.instance

    Attributes:
        card: What the network is; names the pseudo-class behind each unified id.
    """

    def __init__(
        self, network: PanopticModel, card: NetworkCard, settings: PredictSettings, device: torch.device
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
        """Predict one image: (H, W, 3) uint8 RGB of any size, from one pixel up; the map has that size.

        The network sees it at the working height, smaller where a view's longest side would be above
        ``LONGEST_SIDE_PX``.

        Raises:
            ConfigError: The device has too little memory.
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
            ConfigError: The device has too little memory.
            ShapeError: An image has another shape or dtype, or they differ in size.
        """
        for image in images:
            _check_image(image)
        sizes = {image.shape[:2] for image in images}
        if len(sizes) != 1:
            raise ShapeError(f"the images of a batch must have one size. Got: {sorted(sizes)}")
        size = next(iter(sizes))
        stacked = torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2)
        scale, merge = self._working_scale(size), self._settings.merge
        with _explained_memory(len(images), (round(size[0] * scale), round(size[1] * scale))):
            predictions = predict_views(
                self._network,
                stacked.to(self._device, torch.float32) / 255,
                scales=[scale * view for view in self._settings.view_scales],
                flip=self._settings.view_flip,
                score_threshold=merge.score_threshold,
                output_size=size,
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

    def _working_scale(self, size: tuple[int, int]) -> float:
        """Factor that brings an image of (H, W) to the working height, or as near as no view gets too long."""
        wanted = self._settings.height_px / size[0] if self._settings.height_px else 1.0
        return min(wanted, LONGEST_SIDE_PX / (max(size) * max(self._settings.view_scales)))


def _check_image(image: UInt8Array) -> None:
    if image.ndim == 3 and image.shape[-1] == 3 and image.dtype == np.uint8 and 0 not in image.shape:
        return
    hint = ""
    if image.ndim == 2:
        hint = "; a grey image becomes one with numpy.repeat(image[..., None], 3, axis=2)"
    elif image.ndim == 3 and image.shape[-1] == 4:
        hint = "; an image with alpha becomes one with image[..., :3]"
    raise ShapeError(f"an image must be (H, W, 3) uint8 RGB. Got: {image.shape} {image.dtype}{hint}")


@contextmanager
def _explained_memory(n_images: int, size: tuple[int, int]) -> Iterator[None]:
    """Turn "out of memory" of any device into a message that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # Of torch's devices only GPUs have an error of their own for it.
        is_known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not is_known and CPU_OUT_OF_MEMORY not in str(error):
            raise
        raise ConfigError(
            f"out of memory with {n_images} images of {size[0]} x {size[1]} pixels at once; lower the batch "
            "(--batch, predict.batch_size) or the working height (--height, predict.height_px)"
        ) from error
