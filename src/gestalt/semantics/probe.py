"""The fitted pseudo-classes: centres in the space of features and geometry, and how a pixel is given one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from gestalt.config.semantics import SemanticsSettings
from gestalt.data.atomic_files import write_bytes
from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.features.dense import DenseFeatures, image_to_tensor, pad_to_cells
from gestalt.semantics.depth_guided import (
    fuse_log_prob,
    halved_log_prob,
    whole_log_prob,
    windowed_log_prob,
)
from gestalt.semantics.disparity import disparity_to_depth
from gestalt.semantics.geometry import N_CHANNELS, geometry_channels

WEIGHTS = "probe.safetensors"
CARD = "card.json"

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ProbeCard:
    """What ``card.json`` says of a probe.

    Attributes:
        n_pseudo_classes: K.
        feature_dimension: D of the features it was fitted on.
        geometry: Whether geometry channels follow the features.
        temperature: Squared distances are divided by it before the softmax.
        inertia: Mean squared distance of a fitted vector to its centre.
        cluster_shares: Share of the fitted vectors in each pseudo-class.
        mean_rows: Mean row of each pseudo-class, share of the image height; they ascend.
    """

    n_pseudo_classes: int
    feature_dimension: int
    geometry: bool
    temperature: float
    inertia: float
    cluster_shares: list[float]
    mean_rows: list[float]


@dataclass(frozen=True, eq=False)
class SemanticPrediction:
    """Pseudo-classes of one image.

    Attributes:
        log_prob: (K, H, W) float tensor, log-probabilities.
        semantic_map: (H, W) uint8, the most probable pseudo-class.
        confidence: (H, W) float32, its probability.
    """

    log_prob: Tensor
    semantic_map: UInt8Array
    confidence: FloatArray


class SemanticProbe:
    """Gives pixels pseudo-classes: the nearest centre in the space of features and geometry.

    Args:
        features: Dense features, of the dimension that the card says.
        card: Sizes and temperature.
        centres: (K, D + C) float, D of the features, then C geometry channels if the card says so.
        geometry_mean: (C,) float.
        geometry_scale: (C,) float; a channel enters as ``(value - mean) * scale``.
    """

    def __init__(
        self,
        features: DenseFeatures,
        card: ProbeCard,
        centres: Tensor,
        geometry_mean: Tensor,
        geometry_scale: Tensor,
    ) -> None:
        if features.dimension != card.feature_dimension:
            raise DataError(
                f"the probe was fitted on features of dimension {card.feature_dimension}, these have "
                f"{features.dimension}: fit it again with `dvc repro semantics`"
            )
        expected = card.feature_dimension + (N_CHANNELS if card.geometry else 0)
        if centres.shape != (card.n_pseudo_classes, expected):
            raise DataError(
                f"probe centres must be ({card.n_pseudo_classes}, {expected}). Got: {tuple(centres.shape)}; "
                "fit it again with `dvc repro -f semantics`"
            )
        self.features, self.card = features, card
        self.centres, self.geometry_mean, self.geometry_scale = centres, geometry_mean, geometry_scale
        self._offsets = -centres.square().sum(1) / card.temperature
        self._kernel = (2 * centres / card.temperature)[:, :, None, None]

    @classmethod
    def load(cls, folder: Path, features: DenseFeatures) -> SemanticProbe:
        """The probe that ``save`` wrote.

        Raises:
            DataError: A file is missing or broken, or the probe belongs to other features.
        """
        if not (folder / CARD).is_file():
            raise DataError(f"{folder / CARD} does not exist; make it with: dvc repro semantics")
        try:
            card = ProbeCard(**json.loads((folder / CARD).read_text(encoding="utf-8")))
            tensors = load_file(folder / WEIGHTS)
            parts = [tensors[name] for name in ("centres", "geometry_mean", "geometry_scale")]
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise DataError(
                f"{folder} holds no probe ({error}); make it with: dvc repro -f semantics"
            ) from error
        device = next(features.buffers(), torch.empty(0)).device
        return cls(features, card, *(part.to(device) for part in parts))

    def save(self, folder: Path) -> None:
        """Write ``probe.safetensors`` and ``card.json``; equal probes give equal bytes."""
        tensors = {
            "centres": self.centres,
            "geometry_mean": self.geometry_mean,
            "geometry_scale": self.geometry_scale,
        }
        write_bytes(
            folder / WEIGHTS, save({name: value.cpu().contiguous() for name, value in tensors.items()})
        )
        write_bytes(
            folder / CARD, (json.dumps(asdict(self.card), indent=2, sort_keys=True) + "\n").encode("utf-8")
        )

    def describe(self, images: Tensor, geometry: Tensor | None) -> Tensor:
        """Vectors that centres are compared with.

        Args:
            images: (B, 3, H, W) float in [0, 1].
            geometry: (B, C, H, W) float as from ``geometry_channels``, or None: each channel at its mean.

        Returns:
            (B, D + C, h, w) float, (B, D, h, w) for a probe without geometry.
        """
        return describe(
            self.features, images, geometry, self.geometry_mean, self.geometry_scale, self.card.geometry
        )

    def classify(self, vectors: Tensor) -> Tensor:
        """(B, D + C, h, w) vectors -> (B, K, h, w) logits: negative squared distances over the temperature.

        The squared length of a vector is left out: it is the same for all pseudo-classes, and without it
        logits are affine in the vectors.
        """
        return functional.conv2d(vectors, self._kernel, self._offsets)

    @torch.no_grad()
    def predict(
        self,
        image: UInt8Array,
        disparity: FloatArray | None,
        focal_length: float,
        stereo_baseline: float,
        settings: SemanticsSettings,
    ) -> SemanticPrediction:
        """Give every pixel a pseudo-class.

        Args:
            image: (H, W, 3) uint8 RGB.
            disparity: (H, W) float, pixels, 0 where there is no match; None where there is no stereo:
                geometry channels then take their means and every pixel counts as far.
            focal_length: Horizontal, pixels of ``image``.
            stereo_baseline: Metres.
            settings: Section ``semantics``.

        Raises:
            ShapeError: ``image`` is not (H, W, 3) uint8, or ``disparity`` has another size.
            ConfigError: Windows are asked of features that see the position in the image.
        """
        check_windows(self.features, settings)
        tensor = image_to_tensor(image, self.centres.device)
        if disparity is not None and disparity.shape != image.shape[:2]:
            raise ShapeError(
                f"disparity must have the size of the image {image.shape[:2]}. Got: {disparity.shape}"
            )
        geometry = self._geometry(disparity, stereo_baseline)
        parts = (self.describe, self.classify, tensor, geometry, self.features.stride)
        log_prob = (
            windowed_log_prob(*parts, settings.window_batch) if settings.windows else whole_log_prob(*parts)
        )
        if settings.fusion:
            log_prob = fuse_log_prob(
                halved_log_prob(*parts),
                log_prob,
                self._depth(disparity, image.shape[:2], focal_length, stereo_baseline, settings.max_depth_m),
                settings.depth_scale_m,
            )
        best = log_prob.max(0)
        return SemanticPrediction(
            log_prob, best.indices.to(torch.uint8).cpu().numpy(), best.values.exp().float().cpu().numpy()
        )

    def _geometry(self, disparity: FloatArray | None, stereo_baseline: float) -> Tensor | None:
        if disparity is None or not self.card.geometry:
            return None
        channels = geometry_channels(disparity, stereo_baseline)
        return None if channels is None else torch.from_numpy(channels)[None].to(self.centres.device)

    def _depth(
        self,
        disparity: FloatArray | None,
        size: tuple[int, ...],
        focal_length: float,
        stereo_baseline: float,
        max_depth_m: float,
    ) -> Tensor:
        if disparity is None:
            return torch.full(size, max_depth_m, device=self.centres.device)
        depth_m = disparity_to_depth(disparity, focal_length, stereo_baseline, max_depth_m)
        return torch.from_numpy(depth_m).to(self.centres.device)


def describe(
    features: DenseFeatures,
    images: Tensor,
    geometry: Tensor | None,
    geometry_mean: Tensor,
    geometry_scale: Tensor,
    uses_geometry: bool,
) -> Tensor:
    """Features, then standardised geometry, of the same cells; see ``SemanticProbe.describe``."""
    grid: Tensor = features(images)
    if not uses_geometry:
        return grid
    B, _, h, w = grid.shape
    if geometry is None:
        return torch.cat([grid, grid.new_zeros(B, len(geometry_mean), h, w)], 1)
    cells = (pool_cells(geometry, features.stride) - geometry_mean[:, None, None]) * geometry_scale[
        :, None, None
    ]
    return torch.cat([grid, cells], 1)


def pool_cells(maps: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride)): means of cells, border pixels continued."""
    return functional.avg_pool2d(pad_to_cells(maps, stride), stride)


def check_windows(features: DenseFeatures, settings: SemanticsSettings) -> None:
    """Raise if windows of an image would be taken for whole images.

    Raises:
        ConfigError: ``semantics.windows`` with features that see the position in the image.
    """
    if settings.windows and features.uses_position:
        raise ConfigError(
            "semantics.windows is true, but the features see the row of the image, which a window changes; "
            "set features.position_weight to 0 or semantics.windows to false"
        )


def card_metrics(card: ProbeCard) -> dict[str, Any]:
    """The numbers of a probe that are worth comparing between experiments."""
    return {
        "inertia": round(card.inertia, 6),
        "n_pseudo_classes": card.n_pseudo_classes,
        "largest_share": round(max(card.cluster_shares), 6),
        "smallest_share": round(min(card.cluster_shares), 6),
    }
