"""Fit pseudo-classes: k-means over the cells of many images, geometry included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gestalt.config.frames import FrameSettings
from gestalt.config.semantics import SemanticsSettings
from gestalt.data.frames import load_left
from gestalt.data.kitti_maps import unpack_disparity
from gestalt.data.records import StereoFrame
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from gestalt.features.dense import DenseFeatures, image_to_tensor
from gestalt.features.fit import choose_evenly, fit_block_scales
from gestalt.features.kmeans import Clustering, fit_kmeans, nearest_centre
from gestalt.runtime import progress, torch_generator
from gestalt.semantics.geometry import GROUPS, N_CHANNELS, geometry_channels
from gestalt.semantics.probe import ProbeCard, SemanticProbe, check_windows, describe

MAX_STEPS = 60


@dataclass(frozen=True, eq=False)
class FitFrame:
    """What the fit reads of a frame.

    Attributes:
        frame_id: Seeds the choice of its cells.
        image: (H, W, 3) uint8 RGB.
        disparity: (H, W) float32, pixels, 0 where there is no match.
        stereo_baseline: Metres.
    """

    frame_id: str
    image: NDArray[np.uint8]
    disparity: NDArray[np.float32]
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


@torch.no_grad()
def fit_semantics(
    frames: Sequence[FitFrame], features: DenseFeatures, settings: SemanticsSettings, seed: int
) -> SemanticProbe:
    """Cluster the cells of ``frames`` into pseudo-classes.

    Args:
        frames: Images with disparity.
        features: Dense features.
        settings: Section ``semantics``.
        seed: The seed of the experiment.

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
    clustering = fit_kmeans(
        cells.vectors,
        settings.n_pseudo_classes,
        restarts=settings.restarts,
        max_steps=MAX_STEPS,
        generator=torch_generator(seed, "semantics", "clusters"),
    )
    return _probe(features, settings, clustering, cells, mean, scale)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Sampled cells: vectors (n, D + C), rows in shares of the height (n,), whether geometry is known."""

    vectors: Tensor
    rows: Tensor
    has_geometry: Tensor


def _sample_cells(
    frames: Sequence[FitFrame], features: DenseFeatures, settings: SemanticsSettings, seed: int
) -> _Cells:
    vectors, rows, has_geometry = [], [], []
    per_frame = max(1, settings.n_vectors // max(len(frames), 1))
    # Geometry is standardised afterwards, when that of all frames is known.
    mean, scale = torch.zeros(N_CHANNELS), torch.ones(N_CHANNELS)
    for frame in progress(frames, label="semantics: features", unit="image"):
        channels = _geometry(frame) if settings.geometry else None
        generator = torch_generator(seed, frame.frame_id, "semantics", "cells")
        grid = describe(features, image_to_tensor(frame.image), channels, mean, scale, settings.geometry)
        h, w = grid.shape[-2:]
        chosen = torch.randperm(h * w, generator=generator)[:per_frame]
        vectors.append(grid[0].flatten(1).T[chosen])
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


def _probe(
    features: DenseFeatures,
    settings: SemanticsSettings,
    clustering: Clustering,
    cells: _Cells,
    mean: Tensor,
    scale: Tensor,
) -> SemanticProbe:
    index, _ = nearest_centre(cells.vectors, clustering.centres)
    sizes = torch.bincount(index, minlength=settings.n_pseudo_classes)
    sums = torch.zeros(settings.n_pseudo_classes, dtype=torch.float64).index_add_(
        0, index, cells.rows.double()
    )
    mean_rows = sums / sizes.clamp(min=1)
    order = mean_rows.argsort(stable=True)
    card = ProbeCard(
        n_pseudo_classes=settings.n_pseudo_classes,
        feature_dimension=features.dimension,
        geometry=settings.geometry,
        temperature=max(settings.temperature * clustering.inertia, 1e-6),
        inertia=clustering.inertia,
        cluster_shares=[float(share) for share in sizes[order].double() / len(index)],
        mean_rows=[float(row) for row in mean_rows[order]],
    )
    return SemanticProbe(features, card, clustering.centres[order], mean, scale)


def _load(frame: StereoFrame, shards: ShardFolder, settings: FrameSettings) -> FitFrame:
    image = load_left(frame, settings)
    disparity = unpack_disparity(shards.read_map(frame.frame_id, "disparity"))
    if disparity.shape != image.shape[:2]:
        raise DataError(
            f"{shards.folder}: the disparity of {frame.frame_id} is {disparity.shape}, its image "
            f"{image.shape[:2]}; section `frames` has changed, run `dvc repro motion`"
        )
    return FitFrame(frame.frame_id, image, disparity, frame.stereo_baseline)


def _geometry(frame: FitFrame) -> Tensor | None:
    channels = geometry_channels(frame.disparity, frame.stereo_baseline)
    return None if channels is None else torch.from_numpy(channels)[None]
