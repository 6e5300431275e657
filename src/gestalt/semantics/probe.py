"""The fitted pseudo-classes: centres in the space of features and geometry, and how a pixel is given one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gestalt.config.semantics import SemanticsSettings
from gestalt.data.atomic_files import write_bytes
from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.features.dense import DenseFeatures, image_to_tensor, pad_to_cells
from gestalt.runtime import uses_bf16
from gestalt.semantics.classifiers import NearestCentre, NearestDirection, PixelClassifier
from gestalt.semantics.code_head import CodeHead
from gestalt.semantics.crf import refine
from gestalt.semantics.depth_guided import (
    fuse_log_prob,
    halved_log_prob,
    near_weight,
    whole_log_prob,
    windowed_log_prob,
)
from gestalt.semantics.disparity import disparity_to_depth
from gestalt.semantics.geometry import N_CHANNELS, geometry_channels

WEIGHTS = "probe.safetensors"
CARD = "card.json"
# Prefix of the head's tensors in the weights.
HEAD = "head."
# Smaller probabilities count as this one, whose logarithm is finite.
MIN_PROB = 1e-30
KMEANS, CODES = "kmeans", "codes"

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ProbeCard:
    """What ``card.json`` says of a probe.

    Attributes:
        n_pseudo_classes: K.
        feature_dimension: D of the features it was fitted on.
        geometry: Whether geometry channels follow the features.
        method: What was clustered: ``kmeans`` the features, ``codes`` those learned from them.
        unit_features: Whether features are scaled to length 1 before geometry follows; of k-means.
        code_dimension: Length of a code; 0 where features are clustered themselves.
        temperature: Squared distances are divided by it before the softmax; of k-means.
        sharpness: Cosines are multiplied by it before the softmax; of codes.
        inertia: Mean squared distance of a fitted vector to its centre.
        cluster_shares: Share of the fitted vectors in each pseudo-class.
        mean_rows: Mean row of each pseudo-class, share of the image height; they ascend.
        training: Record and curve of the training of the codes; empty for k-means.
    """

    n_pseudo_classes: int
    feature_dimension: int
    geometry: bool
    method: str
    unit_features: bool
    code_dimension: int
    temperature: float
    sharpness: float
    inertia: float
    cluster_shares: list[float]
    mean_rows: list[float]
    training: dict[str, Any]

    @property
    def has_codes(self) -> bool:
        """Codes are compared with the centres, not the features themselves."""
        return self.method == CODES

    @property
    def input_dimension(self) -> int:
        """Length of a vector of features, and geometry where it is used."""
        return self.feature_dimension + (N_CHANNELS if self.geometry else 0)


@dataclass(frozen=True, eq=False)
class SemanticViews:
    """Everything a prediction is made of, as (K, H, W) float log-probabilities.

    Attributes:
        high: From sliding windows, or from the whole image where ``semantics.windows`` is off.
        low: From the image at half size, averaged with its mirror image; None without fusion.
        near_weight: (H, W) float in (0, 1], the weight of ``low`` by depth; None without fusion.
        fused: ``high``, mixed with ``low`` where there is one.
        refined: After the dense CRF; None without it.
    """

    high: Tensor
    low: Tensor | None
    near_weight: Tensor | None
    fused: Tensor
    refined: Tensor | None

    @property
    def final(self) -> Tensor:
        """(K, H, W) float, the log-probabilities that decide."""
        return self.fused if self.refined is None else self.refined


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
    """Gives pixels pseudo-classes: the nearest centre in the space of features and geometry, or of codes.

    Args:
        features: Dense features, of the dimension that the card says.
        card: Sizes, temperature, method.
        centres: (K, D + C) float, D of the features, then C geometry channels if the card says so; for a
            probe of codes (K, card.code_dimension), of unit length.
        geometry_mean: (C,) float.
        geometry_scale: (C,) float; a channel enters as ``(value - mean) * scale``.
        head: Projects features (and geometry) to codes; None where they are clustered themselves.
    """

    def __init__(
        self,
        features: DenseFeatures,
        card: ProbeCard,
        centres: Tensor,
        geometry_mean: Tensor,
        geometry_scale: Tensor,
        head: CodeHead | None = None,
    ) -> None:
        if features.dimension != card.feature_dimension:
            raise DataError(
                f"the probe was fitted on features of dimension {card.feature_dimension}, these have "
                f"{features.dimension}: fit it again with `dvc repro semantics`"
            )
        expected = card.code_dimension if card.has_codes else card.input_dimension
        if centres.shape != (card.n_pseudo_classes, expected):
            raise DataError(
                f"probe centres must be ({card.n_pseudo_classes}, {expected}). Got: {tuple(centres.shape)}; "
                "fit it again with `dvc repro -f semantics`"
            )
        self.features, self.card, self.head = features, card, head
        self.centres, self.geometry_mean, self.geometry_scale = centres, geometry_mean, geometry_scale
        self.classifier: PixelClassifier = (
            NearestDirection(centres, card.sharpness)
            if card.has_codes
            else NearestCentre(centres, card.temperature)
        )

    @classmethod
    def load(cls, folder: Path, features: DenseFeatures) -> SemanticProbe:
        """The probe that ``save`` wrote.

        Raises:
            DataError: A file is missing or broken, or the probe belongs to other features.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not (folder / CARD).is_file():
            raise DataError(f"{folder / CARD} does not exist; make it with: dvc repro semantics")
        try:
            card = ProbeCard(**json.loads((folder / CARD).read_text(encoding="utf-8")))
            tensors = load_file(folder / WEIGHTS)
            parts = [tensors.pop(name) for name in ("centres", "geometry_mean", "geometry_scale")]
            head = None
            if card.has_codes:
                head = CodeHead(card.input_dimension, card.code_dimension).eval()
                head.load_state_dict({name.removeprefix(HEAD): value for name, value in tensors.items()})
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
            raise DataError(
                f"{folder} holds no probe ({error}); make it with: dvc repro -f semantics"
            ) from error
        device = features.device
        if head is not None:
            head.to(device)
        centres, mean, scale = (part.to(device) for part in parts)
        return cls(features, card, centres, mean, scale, head)

    def save(self, folder: Path) -> None:
        """Write ``probe.safetensors`` and ``card.json``; equal probes give equal bytes."""
        # Imported where it is used: a machine that only measures inference has no such library.
        from safetensors.torch import save

        tensors = {
            "centres": self.centres,
            "geometry_mean": self.geometry_mean,
            "geometry_scale": self.geometry_scale,
        }
        if self.head is not None:
            tensors |= {HEAD + name: value for name, value in self.head.state_dict().items()}
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
            (B, D + C, h, w) float, (B, D, h, w) for a probe without geometry, (B, code_dimension, h, w) for
            a probe of codes.
        """
        vectors = describe(
            self.features,
            images,
            geometry,
            self.geometry_mean,
            self.geometry_scale,
            uses_geometry=self.card.geometry,
            unit_features=self.card.unit_features,
        )
        return vectors if self.head is None else self.head(vectors)

    @torch.no_grad()
    def describe_image(
        self, image: UInt8Array, disparity: FloatArray | None, stereo_baseline: float
    ) -> Tensor:
        """The vectors of one image, (1, D, h, w) float; arguments as of ``predict``."""
        tensor = image_to_tensor(image, self.centres.device)
        return self.describe(tensor, self._geometry(disparity, stereo_baseline))

    @torch.no_grad()
    def views(
        self,
        image: UInt8Array,
        disparity: FloatArray | None,
        focal_length: float,
        stereo_baseline: float,
        settings: SemanticsSettings,
    ) -> SemanticViews:
        """Everything that the prediction of ``predict`` is made of; arguments and errors as there."""
        check_windows(self.features, settings)
        tensor = image_to_tensor(image, self.centres.device)
        if disparity is not None and disparity.shape != image.shape[:2]:
            raise ShapeError(
                f"disparity must have the size of the image {image.shape[:2]}. Got: {disparity.shape}"
            )
        geometry = self._geometry(disparity, stereo_baseline)
        is_half = uses_bf16(settings.precision, self.centres.device)

        def describe_cells(images: Tensor, channels: Tensor | None) -> Tensor:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=is_half):
                return self.describe(images, channels).float()

        parts = (describe_cells, self.classifier, tensor, geometry, self.features.stride)
        high = (
            windowed_log_prob(*parts, settings.window_batch) if settings.windows else whole_log_prob(*parts)
        )
        low = weight = None
        fused = high
        if settings.fusion:
            depth_m = self._depth(
                disparity, image.shape[:2], focal_length, stereo_baseline, settings.max_depth_m
            )
            low, weight = halved_log_prob(*parts), near_weight(depth_m, settings.depth_scale_m)
            fused = fuse_log_prob(low, high, weight)
        refined = None
        if settings.crf.iterations:
            pixels = torch.from_numpy(image)[None].to(self.centres.device)
            refined = refine(pixels, fused[None], settings.crf)[0].clamp(min=MIN_PROB).log()
        return SemanticViews(high, low, weight, fused, refined)

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
        log_prob = self.views(image, disparity, focal_length, stereo_baseline, settings).final
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
    *,
    uses_geometry: bool,
    unit_features: bool,
) -> Tensor:
    """Features, then standardised geometry, of the same cells; see ``SemanticProbe.describe``."""
    grid: Tensor = features(images)
    if unit_features:
        grid = functional.normalize(grid, dim=1)
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
            "set features.dictionary.position_weight to 0 or semantics.windows to false"
        )


def card_metrics(card: ProbeCard) -> dict[str, Any]:
    """The numbers of a probe that are worth comparing between experiments."""
    return {
        "inertia": round(card.inertia, 6),
        "n_pseudo_classes": card.n_pseudo_classes,
        "largest_share": round(max(card.cluster_shares), 6),
        "smallest_share": round(min(card.cluster_shares), 6),
    }
