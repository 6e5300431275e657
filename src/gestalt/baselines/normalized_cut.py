"""Object proposals by iterated normalised cut of dense features, after MaskCut (Wang et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from gestalt.baselines.guided_filter import guided_filter
from gestalt.baselines.patch_graph import PatchGraph, normalized_cut
from gestalt.config.frames import FrameSettings
from gestalt.config.pseudo_labels import NormalizedCutSettings
from gestalt.data.frames import load_left
from gestalt.data.records import StereoFrame
from gestalt.data.sharded_run import FrameResult
from gestalt.panoptic import UInt8Array, UInt16Array
from gestalt.runtime import numpy_generator

if TYPE_CHECKING:
    import torch

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.floating[Any]]

# A side of the cut that holds this many of the four corners is background (Wang et al., CVPR 2023).
BACKGROUND_CORNERS = 3


@dataclass(frozen=True, eq=False)
class CutMask:
    """One mask on the grid of patches.

    Attributes:
        patches: (h, w) bool.
        affinity: How clear the cut was, near 1 where the graph falls apart.
    """

    patches: BoolArray
    affinity: float


@dataclass(frozen=True)
class CutProposer:
    """Proposals of one frame; picklable, so that worker processes can hold it.

    Attributes:
        features: Folder ``models/features``.
        frames: Geometry of the images.
        settings: Section ``normalized_cut``.
        seed: The one seed.
    """

    features: Path
    frames: FrameSettings
    settings: NormalizedCutSettings
    seed: int

    def __call__(self, frame: StereoFrame) -> FrameResult:
        """Propose masks for one frame; the map ``proposals`` and records have the form of motion's."""
        image = load_left(frame, self.frames)
        generator = numpy_generator(self.seed, frame.frame_id, "normalized_cut")
        proposals, masks = propose(image, self._extract, self.settings, generator)
        records = [_record(frame.frame_id, proposals, instance, mask) for instance, mask in masks.items()]
        return FrameResult(
            frame_id=frame.frame_id,
            status="ok" if records else "empty",
            reason="" if records else "no cut passes",
            maps={"proposals": proposals},
            records=records,
            counts={"proposals": len(records), "proposal_pixels": int((proposals > 0).sum())},
        )

    @cached_property
    def _extract(self) -> Callable[[torch.Tensor], torch.Tensor]:
        # torch and the features take a second to import; most users of this module never extract.
        from gestalt.features.loading import load_features

        return load_features(self.features)


def propose(
    image: UInt8Array,
    extract: Callable[[torch.Tensor], torch.Tensor],
    settings: NormalizedCutSettings,
    generator: np.random.Generator,
) -> tuple[UInt16Array, dict[int, CutMask]]:
    """Masks of one image.

    Args:
        image: (H, W, 3) uint8 RGB.
        extract: (1, 3, H, W) float in [0, 1] -> (1, D, h, w) float.
        settings: Section ``normalized_cut``.
        generator: Draws the start of the eigenvector iterations.

    Returns:
        (H, W) uint16, ids 1..N in the order of discovery, 0 elsewhere; and the mask behind each id.
    """
    grid = patch_features(image, extract, settings)
    proposals = np.zeros(image.shape[:2], np.uint16)
    masks: dict[int, CutMask] = {}
    for found in cut_masks(grid, settings, generator):
        pixels = refine(found.patches, image, settings) & (proposals == 0)
        if not pixels.any():
            continue
        masks[len(masks) + 1] = found
        proposals[pixels] = len(masks)
    return proposals, masks


def patch_features(
    image: UInt8Array, extract: Callable[[torch.Tensor], torch.Tensor], settings: NormalizedCutSettings
) -> npt.NDArray[np.float32]:
    """(h, w, D) float32, mean feature of each patch; standardised over the image when ``settings.centre``."""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    from gestalt.features.dense import image_to_tensor

    if settings.image_size:
        side = settings.image_size
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)
    H, W = image.shape[:2]
    with torch.inference_mode():
        dense = extract(image_to_tensor(np.ascontiguousarray(image))).float()
        pooled = adaptive_avg_pool2d(dense, (max(H // settings.patch_px, 1), max(W // settings.patch_px, 1)))
    grid: npt.NDArray[np.float32] = pooled[0].permute(1, 2, 0).cpu().numpy()
    if settings.centre:
        # Features not trained for the cosine share a large common part, which makes the graph one clique.
        grid = (grid - grid.mean((0, 1))) / (grid.std((0, 1)) + 1e-6)
    return grid


def cut_masks(
    features: npt.NDArray[np.floating[Any]], settings: NormalizedCutSettings, generator: np.random.Generator
) -> list[CutMask]:
    """Cut, keep the part that is an object, take it out of the graph, repeat.

    Args:
        features: (h, w, D) float.
        settings: Section ``normalized_cut``.
        generator: Draws the start of the eigenvector iterations.

    Returns:
        At most ``settings.max_masks`` disjoint masks, in the order of discovery.

    Source:
        MaskCut (Wang et al., CVPR 2023). The released code keeps found patches in the graph with zero
        features, at the cost of the whole problem each time, and goes on after a rejected mask, which
        repeats the same cut; ours removes them and stops.
    """
    h, w, D = features.shape
    graph = PatchGraph.from_features(features.reshape(h * w, D), settings.tau, settings.weak_edge)
    painted = np.zeros((h, w), bool)
    masks: list[CutMask] = []
    while len(masks) < settings.max_masks:
        free = graph if not painted.any() else graph.without(painted.ravel())
        cut = normalized_cut(free, generator, tolerance=settings.tolerance)
        if cut is None:
            break
        # A painted patch lies below every other, so it is on neither side and never the seed.
        vector = np.full((h, w), -np.inf)
        vector[~painted] = cut.vector
        mask = object_side(vector, ~painted)
        if mask.sum() <= settings.min_area_share * h * w:
            break
        masks.append(CutMask(mask, cut.affinity))
        painted |= mask
    return masks


def object_side(vector: FloatArray, free: BoolArray) -> BoolArray:
    """The side of a cut that is an object: its connected part around the strongest patch.

    Args:
        vector: (h, w) float, eigenvector with its largest magnitude positive; ignored outside ``free``.
        free: (h, w) bool, patches of the graph.

    Returns:
        (h, w) bool, 4-connected as in MaskCut.

    Source:
        MaskCut. There the sign of the eigenvector is whatever the solver returns, and the corner rule depends
        on it; here the strongest patch is on the positive side before the corners are looked at.
    """
    side: BoolArray = free & (vector > vector[free].mean())
    corners = side[[0, 0, -1, -1], [0, -1, 0, -1]].sum()
    if corners >= BACKGROUND_CORNERS:
        vector, side = -vector, free & ~side
    if not side.any():
        return side
    seed = np.unravel_index(np.where(side, vector, -np.inf).argmax(), side.shape)
    parts, _ = ndimage.label(side)
    connected: BoolArray = np.asarray(parts == parts[seed])
    return connected


def refine(patches: BoolArray, image: UInt8Array, settings: NormalizedCutSettings) -> BoolArray:
    """A mask of patches at the size of the image, without holes.

    Returns:
        (H, W) bool; empty when refinement changes the mask more than ``settings.min_refined_iou`` allows.

    Source:
        MaskCut refines with a fully connected CRF; a guided filter follows edges at a hundredth of its cost.
    """
    H, W = image.shape[:2]
    coarse = cv2.resize(patches.astype(np.uint8), (W, H), interpolation=cv2.INTER_NEAREST) > 0
    if settings.refine == "none":
        return np.asarray(ndimage.binary_fill_holes(coarse))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    soft = guided_filter(grey, coarse.astype(np.float32), settings.refine_radius_px, settings.refine_epsilon)
    refined = np.asarray(ndimage.binary_fill_holes(soft > 0.5))
    iou = (refined & coarse).sum() / max((refined | coarse).sum(), 1)
    kept: BoolArray = refined if iou >= settings.min_refined_iou else np.zeros_like(refined)
    return kept


def _record(frame_id: str, proposals: UInt16Array, instance: int, mask: CutMask) -> dict[str, Any]:
    rows, columns = np.nonzero(proposals == instance)
    unknown = float("nan")
    return {
        "frame_id": frame_id,
        "instance": instance,
        "area_px": len(rows),
        "surface_m2": unknown,
        "consistency": unknown,
        "score": mask.affinity,
        "depth_m": unknown,
        "speed_m_s": unknown,
        "x0": int(columns.min()),
        "y0": int(rows.min()),
        "x1": int(columns.max()) + 1,
        "y1": int(rows.max()) + 1,
    }
