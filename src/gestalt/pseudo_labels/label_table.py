"""The label table: a record per segment, so that audit, review and reports need no pixel again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from gestalt.panoptic import VOID, PanopticMap
from gestalt.pseudo_labels.fuse import Statistics

FloatArray = npt.NDArray[np.floating[Any]]

# Source of the segments that no proposal made.
SEMANTIC = "semantic"


@dataclass(frozen=True)
class ProposalRecord:
    """What the maker of a proposal knows about it; NaN where it knows nothing."""

    consistency: float = float("nan")
    speed_m_s: float = float("nan")


def label_records(
    frame_id: str,
    panoptic: PanopticMap,
    *,
    depth_m: FloatArray,
    confidence: FloatArray,
    source: str,
    proposals: Mapping[int, ProposalRecord],
) -> list[dict[str, Any]]:
    """A record per segment of one frame.

    Args:
        frame_id: Name of the frame.
        panoptic: Fused pseudo-label; a segment is a pair (pseudo-class, instance). Void has no record.
        depth_m: (H, W) float, metres, NaN where no depth is known.
        confidence: (H, W) float in [0, 1], of the pseudo-class of each pixel.
        source: Who proposed the instances.
        proposals: Instance id -> what is known about it.

    Returns:
        Records in ascending order of (instance, pseudo_class): frame_id, pseudo_class, instance (0 for
        stuff), area_px, x0, y0, x1, y1 (pixels, x1 and y1 exclusive), source, consistency, depth_min_m,
        depth_median_m, depth_max_m (metres, over pixels with depth), speed_m_s, valid_share (share of pixels
        with depth), confidence (mean). Depths, consistency and speed are NaN where unknown.
    """
    segments, numbers = number_segments(panoptic)
    if not len(segments):
        return []
    boxes = [found for found in ndimage.find_objects(numbers) if found is not None]
    inside = numbers > 0
    index = numbers[inside] - 1
    areas = np.bincount(index, minlength=len(segments))
    confidences = np.bincount(index, confidence[inside], len(segments)) / areas
    depths = depth_ranges(depth_m[inside], index, len(segments))
    has_depth = np.bincount(index, np.isfinite(depth_m[inside]), len(segments)) / areas
    records = []
    for position, segment in enumerate(segments):
        instance, pseudo_class = divmod(int(segment), 256)
        known = proposals.get(instance, ProposalRecord()) if instance else ProposalRecord()
        rows, columns = boxes[position]
        records.append(
            {
                "frame_id": frame_id,
                "pseudo_class": pseudo_class,
                "instance": instance,
                "area_px": int(areas[position]),
                "x0": columns.start,
                "y0": rows.start,
                "x1": columns.stop,
                "y1": rows.stop,
                "source": source if instance else SEMANTIC,
                "consistency": known.consistency,
                "depth_min_m": float(depths[position, 0]),
                "depth_median_m": float(depths[position, 1]),
                "depth_max_m": float(depths[position, 2]),
                "speed_m_s": known.speed_m_s,
                "valid_share": float(has_depth[position]),
                "confidence": float(confidences[position]),
            }
        )
    return records


def number_segments(panoptic: PanopticMap) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Number the segments of a map 1..M.

    Returns:
        (M,) int64, ``256 * instance + pseudo_class`` of each, ascending; (H, W) int32, 0 where void.
    """
    known = panoptic.semantic_map != VOID
    codes = panoptic.instance_map.astype(np.int64) * 256 + panoptic.semantic_map
    # A look-up table instead of a sort: maps have some hundred thousand pixels and few segments.
    present = np.zeros(int(codes.max(initial=0)) + 1, bool)
    present[codes[known]] = True
    segments = np.flatnonzero(present)
    table = np.zeros(len(present), np.int32)
    table[segments] = np.arange(1, len(segments) + 1)
    return segments.astype(np.int64), np.where(known, table[codes], 0).astype(np.int32)


def depth_ranges(depth_m: FloatArray, index: npt.NDArray[Any], n_segments: int) -> npt.NDArray[np.float64]:
    """Minimum, median and maximum depth of each segment.

    Args:
        depth_m: (M,) float, metres, not negative, NaN where unknown; read as float32.
        index: (M,) integer in 0..N-1, the segment of each value.
        n_segments: N.

    Returns:
        (N, 3) float64, NaN for a segment without any depth.
    """
    known = np.isfinite(depth_m)
    owners = index[known].astype(np.int64)
    # One sort of whole numbers, several times faster than one of pairs: positive floats are ordered as the
    # integers of the same bits.
    keys = owners << 32 | depth_m[known].astype(np.float32).view(np.int32)
    keys.sort()
    values = keys.astype(np.int32).view(np.float32).astype(np.float64)
    counts = np.bincount(owners, minlength=n_segments)
    ends = np.cumsum(counts)
    starts = ends - counts
    ranges = np.full((n_segments, 3), np.nan)
    filled = counts > 0
    first, last = starts[filled], ends[filled] - 1
    middle = (values[(first + last) // 2] + values[(first + last + 1) // 2]) / 2
    ranges[filled] = np.stack([values[first], middle, values[last]], axis=1)
    return ranges


def disparity_to_depth(disparity: FloatArray, focal_length: float, stereo_baseline: float) -> FloatArray:
    """Depth of left pixels, NaN where there is no match.

    Args:
        disparity: (H, W) float, pixels; zero or less marks pixels without a match.
        focal_length: Horizontal, pixels at the resolution of ``disparity``.
        stereo_baseline: Metres.

    Returns:
        (H, W) float32, metres.
    """
    matched = disparity > 0
    depth_m = np.full(disparity.shape, np.nan, np.float32)
    depth_m[matched] = focal_length * stereo_baseline / disparity[matched]
    return depth_m


def statistics_of_table(table: pd.DataFrame, n_frames: int, n_pseudo_classes: int) -> Statistics:
    """Statistics of a whole batch, from its label table; equal to counting the pixels.

    Args:
        table: Records of ``label_records``.
        n_frames: Number of labelled frames, also those without a record.
        n_pseudo_classes: P.
    """
    if table.empty:
        nothing = np.zeros(n_pseudo_classes, np.int64)
        return Statistics(n_frames, nothing, nothing, nothing)
    pseudo_class, area = table["pseudo_class"].to_numpy(), table["area_px"].to_numpy()
    is_instance = table["instance"].to_numpy() > 0
    return Statistics(
        n_frames,
        _sums(pseudo_class, area, n_pseudo_classes),
        _sums(pseudo_class[is_instance], area[is_instance], n_pseudo_classes),
        _sums(pseudo_class[is_instance], np.ones(is_instance.sum(), np.int64), n_pseudo_classes),
    )


def _sums(
    pseudo_class: npt.NDArray[Any], values: npt.NDArray[Any], n_pseudo_classes: int
) -> npt.NDArray[np.int64]:
    sums = np.zeros(n_pseudo_classes, np.int64)
    np.add.at(sums, pseudo_class, values)
    return sums


def proposal_records(table: pd.DataFrame, proposals: Sequence[int]) -> dict[int, ProposalRecord]:
    """What a shard folder of proposals says about those that became instances 1..N.

    Args:
        table: Records of one frame with the column ``instance``, and ``consistency`` and ``speed_m_s``
            where the maker knows them.
        proposals: Former id of instance n at position n - 1.
    """
    of_proposal = {int(row["instance"]): row for row in table.to_dict("records")}
    records = {}
    for instance, proposal in enumerate(proposals, start=1):
        row = of_proposal.get(int(proposal), {})
        records[instance] = ProposalRecord(
            float(row.get("consistency", float("nan"))), float(row.get("speed_m_s", float("nan")))
        )
    return records
