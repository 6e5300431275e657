"""Fit pseudo-classes: clusters of the cells of many images, or of codes learned from them, geometry included."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gestalt.config.codes import CodeSettings
from gestalt.config.frames import FrameSettings
from gestalt.config.semantics import SemanticsSettings
from gestalt.data.frames import frame_geometry, load_left, move_intrinsics
from gestalt.data.kitti_maps import unpack_disparity
from gestalt.data.records import StereoFrame
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from gestalt.features.dense import DenseFeatures, image_to_tensor
from gestalt.features.fit import choose_evenly, fit_block_scales
from gestalt.features.kmeans import Clustering, fit_kmeans, nearest_centre
from gestalt.runtime import progress, torch_generator
from gestalt.semantics.cluster_order import rank_by_row
from gestalt.semantics.code_crops import CodeImage
from gestalt.semantics.code_head import cosine_to_prototypes
from gestalt.semantics.code_training import Log, TrainedCodes, train_codes
from gestalt.semantics.geometry import GROUPS, N_CHANNELS, geometry_channels
from gestalt.semantics.probe import CODES, KMEANS, ProbeCard, SemanticProbe, check_windows, describe

MAX_STEPS = 60
# Sampled cells whose codes are computed at once.
CELLS_AT_ONCE = 65536


@dataclass(frozen=True, eq=False)
class FitFrame:
    """What the fit reads of a frame.

    Attributes:
        frame_id: Seeds the choice of its cells.
        image: (H, W, 3) uint8 RGB.
        disparity: (H, W) float32, pixels, 0 where there is no match.
        focal_length: Horizontal, pixels of ``image``.
        stereo_baseline: Metres.
    """

    frame_id: str
    image: NDArray[np.uint8]
    disparity: NDArray[np.float32]
    focal_length: float
    stereo_baseline: float


def load_fit_frames(
    batches: Sequence[tuple[Sequence[StereoFrame], Path]], settings: FrameSettings, n_images: int
) -> list[FitFrame]:
    """Images and disparities, evenly spread over all frames that have a disparity.

    Args:
        batches: Frames of a batch and its folder of motion results, batch by batch.
        settings: Geometry of the images; the one that motion was computed at.
        n_images: How many to take.

    Raises:
        DataError: No frame has a disparity, or one is not of the size of its image.
    """
    found = [
        (frame, shards)
        for frames, folder in batches
        for shards in [ShardFolder(folder)]
        for known in [set(shards.frame_ids)]
        for frame in frames
        if frame.frame_id in known
    ]
    if not found:
        raise DataError("no frame of the fit_batches has a disparity map; run `dvc repro motion` first")
    return [_load(frame, shards, settings) for frame, shards in choose_evenly(found, n_images)]


def fit_semantics(
    frames: Sequence[FitFrame],
    features: DenseFeatures,
    settings: SemanticsSettings,
    seed: int,
    *,
    codes: CodeSettings | None = None,
    cache_dir: Path | None = None,
    key: Mapping[str, Any] | None = None,
    log: Log | None = None,
) -> SemanticProbe:
    """Find pseudo-classes in the cells of ``frames``: clusters of features, or of codes learned from them.

    Args:
        frames: Images with disparity.
        features: Dense features; their device does the work.
        settings: Section ``semantics``.
        seed: The seed of the experiment.
        codes: Section ``codes``; read with the method ``codes``.
        cache_dir: Where the training of codes keeps features and its resumable state, until ``forget_codes``;
            without it nothing is kept.
        key: What else that training depends on, such as the version of the code.
        log: Takes step and losses of that training.

    Returns:
        The probe. Pseudo-classes are in order of their mean row, from the top of the image to the bottom.

    Raises:
        ConfigError: Windows are asked of features that see the position in the image.
        DataError: Fewer cells than pseudo-classes, or features that are not finite.
    """
    check_windows(features, settings)
    cells = _sample_cells(frames, features, settings, seed)
    mean, scale = torch.zeros(N_CHANNELS), torch.zeros(N_CHANNELS)
    if settings.geometry:
        mean, scale = _standardize_geometry(cells, features.dimension, settings)
    if settings.method == CODES:
        assert codes is not None
        with tempfile.TemporaryDirectory() as nothing_kept:
            trained = train_codes(
                _code_images(frames, settings, mean, scale),
                features,
                codes,
                n_pseudo_classes=settings.n_pseudo_classes,
                seed=seed,
                device=features.device,
                cache_dir=cache_dir or Path(nothing_kept),
                key=key,
                log=log,
            )
        return _code_probe(features, settings, trained, cells, mean, scale)
    clustering = fit_kmeans(
        cells.vectors,
        settings.n_pseudo_classes,
        restarts=settings.restarts,
        max_steps=MAX_STEPS,
        generator=torch_generator(seed, "semantics", "clusters"),
    )
    return _kmeans_probe(features, settings, clustering, cells, mean, scale)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Sampled cells: vectors (n, D + C), rows in shares of the height (n,), whether geometry is known."""

    vectors: Tensor
    rows: Tensor
    has_geometry: Tensor


@torch.no_grad()
def _sample_cells(
    frames: Sequence[FitFrame], features: DenseFeatures, settings: SemanticsSettings, seed: int
) -> _Cells:
    vectors, rows, has_geometry = [], [], []
    per_frame = max(1, settings.n_vectors // max(len(frames), 1))
    # Geometry is standardised afterwards, when that of all frames is known.
    mean = torch.zeros(N_CHANNELS, device=features.device)
    scale = torch.ones_like(mean)
    for frame in progress(frames, label="semantics: features", unit="image"):
        channels = _geometry(frame, features.device) if settings.geometry else None
        generator = torch_generator(seed, frame.frame_id, "semantics", "cells")
        image = image_to_tensor(frame.image, features.device)
        grid = describe(
            features,
            image,
            channels,
            mean,
            scale,
            uses_geometry=settings.geometry,
            unit_features=settings.unit_features and settings.method == KMEANS,
        )
        h, w = grid.shape[-2:]
        chosen = torch.randperm(h * w, generator=generator)[:per_frame]
        vectors.append(grid[0].flatten(1).T[chosen.to(grid.device)].cpu())
        rows.append((chosen // w + 0.5) / h)
        has_geometry.append(torch.full_like(chosen, channels is not None, dtype=torch.bool))
    if not vectors:
        raise DataError("semantics needs at least one image with a disparity; are the fit_batches empty?")
    return _Cells(torch.cat(vectors), torch.cat(rows), torch.cat(has_geometry))


def _standardize_geometry(
    cells: _Cells, dimension: int, settings: SemanticsSettings
) -> tuple[Tensor, Tensor]:
    """Give groups of geometry channels the lengths of the settings, in place; return means and factors."""
    geometry = cells.vectors[:, dimension:]
    known = geometry[cells.has_geometry]
    if not len(known):
        return torch.zeros(N_CHANNELS), torch.zeros(N_CHANNELS)
    weights = (
        settings.height_weight,
        settings.nearness_weight,
        settings.protrusion_weight,
        settings.extent_weight,
    )
    mean, scale = fit_block_scales(known, GROUPS, weights)
    geometry[cells.has_geometry] = (known - mean) * scale
    return mean, scale


def _code_images(
    frames: Sequence[FitFrame], settings: SemanticsSettings, mean: Tensor, scale: Tensor
) -> list[CodeImage]:
    images = []
    for frame in frames:
        channels = None
        if settings.geometry:
            known = geometry_channels(frame.disparity, frame.stereo_baseline)
            channels = (
                np.zeros((N_CHANNELS, *frame.disparity.shape), np.float32)
                if known is None
                else (known - mean.numpy()[:, None, None]) * scale.numpy()[:, None, None]
            )
        images.append(
            CodeImage(
                frame.frame_id,
                frame.image,
                frame.disparity,
                frame.focal_length,
                frame.stereo_baseline,
                channels,
            )
        )
    return images


def _kmeans_probe(
    features: DenseFeatures,
    settings: SemanticsSettings,
    clustering: Clustering,
    cells: _Cells,
    mean: Tensor,
    scale: Tensor,
) -> SemanticProbe:
    index, _ = nearest_centre(cells.vectors, clustering.centres)
    ranking = rank_by_row(index, cells.rows, settings.n_pseudo_classes)
    card = ProbeCard(
        method=KMEANS,
        unit_features=settings.unit_features,
        n_pseudo_classes=settings.n_pseudo_classes,
        feature_dimension=features.dimension,
        geometry=settings.geometry,
        code_dimension=0,
        temperature=max(settings.temperature * clustering.inertia, 1e-6),
        sharpness=0.0,
        inertia=clustering.inertia,
        cluster_shares=ranking.shares,
        mean_rows=ranking.mean_rows,
        training={},
    )
    device = features.device
    return SemanticProbe(
        features, card, clustering.centres[ranking.order].to(device), mean.to(device), scale.to(device)
    )


@torch.no_grad()
def _code_probe(
    features: DenseFeatures,
    settings: SemanticsSettings,
    trained: TrainedCodes,
    cells: _Cells,
    mean: Tensor,
    scale: Tensor,
) -> SemanticProbe:
    prototypes, device = trained.prototypes, features.device
    cosine = torch.cat(
        [
            cosine_to_prototypes(trained.head(part[:, :, None, None].to(device)), prototypes)[..., 0, 0].cpu()
            for part in torch.split(cells.vectors, CELLS_AT_ONCE)
        ]
    )
    best, index = cosine.max(1)
    ranking = rank_by_row(index, cells.rows, settings.n_pseudo_classes)
    card = ProbeCard(
        method=CODES,
        unit_features=False,
        n_pseudo_classes=settings.n_pseudo_classes,
        feature_dimension=features.dimension,
        geometry=settings.geometry,
        code_dimension=trained.head.dimension,
        temperature=0.0,
        sharpness=settings.sharpness,
        # Between unit vectors: twice what the cosine lacks.
        inertia=float((2 - 2 * best.double()).mean()),
        cluster_shares=ranking.shares,
        mean_rows=ranking.mean_rows,
        training={**trained.record, "curve": trained.curve},
    )
    return SemanticProbe(
        features, card, prototypes[ranking.order.to(device)], mean.to(device), scale.to(device), trained.head
    )


def _load(frame: StereoFrame, shards: ShardFolder, settings: FrameSettings) -> FitFrame:
    image = load_left(frame, settings)
    disparity = unpack_disparity(shards.read_map(frame.frame_id, "disparity"))
    if disparity.shape != image.shape[:2]:
        raise DataError(
            f"{shards.folder}: the disparity of {frame.frame_id} is {disparity.shape}, its image "
            f"{image.shape[:2]}; section `frames` has changed, run `dvc repro motion`"
        )
    geometry = frame_geometry(frame.height, frame.width, settings)
    focal_length = float(move_intrinsics(frame.intrinsics, geometry)[0, 0])
    return FitFrame(frame.frame_id, image, disparity, focal_length, frame.stereo_baseline)


def _geometry(frame: FitFrame, device: torch.device) -> Tensor | None:
    channels = geometry_channels(frame.disparity, frame.stereo_baseline)
    return None if channels is None else torch.from_numpy(channels)[None].to(device)
