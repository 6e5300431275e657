"""Measures of a batch's labels from the label table alone: per segment, per frame, for the whole batch.

No pixel is read, so memory and time grow with the number of segments only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gestalt.config.audit import AuditSettings
from gestalt.errors import DataError

FAILED = "failed"

FRAME_COLUMNS = ("frame_id", "status", "reason", "pixels", "void_pixels")
SEGMENT_COLUMNS = (
    "frame_id",
    "pseudo_class",
    "instance",
    "area_px",
    "consistency",
    "depth_median_m",
    "speed_m_s",
)

# What can make a frame suspicious, in words for the review page.
SUSPICIONS = {
    "failed": "failed",
    "uncovered": "less labelled than the other frames",
    "unsure": "less sure than the other frames",
    "inconsistent": "the motion ensemble agrees less than fully",
    "crowded": "more instances than plausible",
    "oversized": "an instance covers too much",
    "implausible": "depth or speed out of range",
    "surprising": "other classes than the rest of the batch",
}


@dataclass(frozen=True, eq=False)
class LabelMeasures:
    """Everything that expectations and review pages are made from.

    Attributes:
        frames: A row per frame, most suspicious first: frame_id, status, reason, coverage (share of labelled
            pixels), n_instances, n_segments, n_pseudo_classes, largest_instance_share, min_consistency,
            confidence (mean over labelled pixels), implausible (instances out of range), surprise (total
            variation to the class shares of the batch), suspicion in [0, 1], why (the strongest cause).
        segments: The label table, consistency as a share of the runs, with area_share, instance_depth_m and
            instance_speed_m_s.
        batch: One row: shares, means and counts of the batch.
        class_shares: (P,) share of the labelled pixels in each pseudo-class.
    """

    frames: pd.DataFrame
    segments: pd.DataFrame
    batch: pd.DataFrame
    class_shares: npt.NDArray[np.float64]


def measure_labels(
    frames: pd.DataFrame,
    records: pd.DataFrame,
    *,
    class_pixels: npt.NDArray[np.int64],
    ensemble_runs: int,
    settings: AuditSettings,
) -> LabelMeasures:
    """Measure the pseudo-labels of a batch.

    Args:
        frames: ``frames.parquet`` of the shard folder.
        records: The label table; its ``consistency`` counts runs of the motion ensemble.
        class_pixels: (P,) labelled pixels of each pseudo-class over *all* batches, for the drift.
        ensemble_runs: Runs of the motion ensemble; makes consistency a share.
        settings: What counts as plausible.

    Raises:
        DataError: A table lacks a column.
    """
    _require(frames, FRAME_COLUMNS, "the frame table")
    if records.empty:
        records = records.reindex(columns=list(dict.fromkeys([*records.columns, *_LABEL_COLUMNS])))
    _require(records, SEGMENT_COLUMNS, "the label table")
    n_classes = len(class_pixels)
    segments = _measure_segments(records, frames, ensemble_runs)
    areas = segments["area_px"].to_numpy(np.float64)
    classes = segments["pseudo_class"].to_numpy(np.int64)
    shares = _shares(np.bincount(classes, areas, n_classes)[:n_classes].astype(np.float64))
    frame_table = _measure_frames(frames, segments, shares, settings)
    batch = _measure_batch(frame_table, segments, shares, _shares(class_pixels.astype(np.float64)))
    return LabelMeasures(_rank(frame_table, settings), segments, batch, shares)


_LABEL_COLUMNS = (*SEGMENT_COLUMNS, "x0", "y0", "x1", "y1", "source", "valid_share", "confidence")


def _measure_segments(records: pd.DataFrame, frames: pd.DataFrame, ensemble_runs: int) -> pd.DataFrame:
    pixels = frames.set_index("frame_id")["pixels"].astype(float)
    is_instance = records["instance"] > 0
    return records.assign(
        consistency=records["consistency"].astype(float) / ensemble_runs,
        area_share=records["area_px"].astype(float) / records["frame_id"].map(pixels),
        # Sky has no depth and roads reach the horizon: only instances have a range to be checked.
        instance_depth_m=records["depth_median_m"].astype(float).where(is_instance),
        instance_speed_m_s=records["speed_m_s"].astype(float).where(is_instance),
    )


def _measure_frames(
    frames: pd.DataFrame, segments: pd.DataFrame, shares: npt.NDArray[np.float64], settings: AuditSettings
) -> pd.DataFrame:
    pixels = frames["pixels"].astype(float)
    table = pd.DataFrame(
        {
            "frame_id": frames["frame_id"].astype(str),
            "status": frames["status"].astype(str),
            "reason": frames["reason"].fillna("").astype(str),
            "coverage": (1 - frames["void_pixels"].astype(float) / pixels).where(frames["status"] != FAILED),
        }
    ).set_index("frame_id", drop=False)
    instances = segments[segments["instance"] > 0]
    out_of_range = (instances["instance_depth_m"] > settings.max_depth_m) | (
        instances["instance_speed_m_s"] > settings.max_speed_m_s
    )
    of_frame, of_instance = segments.groupby("frame_id"), instances.groupby("frame_id")
    confident = (
        (segments["confidence"].astype(float) * segments["area_px"]).groupby(segments["frame_id"]).sum()
    )
    labelled = of_frame["area_px"].sum()
    columns: dict[str, Any] = {
        "n_segments": of_frame.size(),
        "n_pseudo_classes": of_frame["pseudo_class"].nunique(),
        "n_instances": of_instance.size(),
        "largest_instance_share": of_instance["area_share"].max(),
        "min_consistency": of_instance["consistency"].min(),
        "confidence": confident / labelled,
        "implausible": out_of_range.groupby(instances["frame_id"]).sum(),
        "surprise": _surprise(segments, shares),
    }
    for name, values in columns.items():
        table[name] = values.reindex(table.index).astype(float)
    for count in ("n_segments", "n_pseudo_classes", "n_instances", "implausible"):
        table[count] = table[count].fillna(0).astype(int)
    table["largest_instance_share"] = table["largest_instance_share"].fillna(0.0)
    return table.reset_index(drop=True)


def _surprise(segments: pd.DataFrame, shares: npt.NDArray[np.float64]) -> pd.Series:
    """Total variation between the class shares of each frame and of the batch."""
    areas = segments.groupby(["frame_id", "pseudo_class"])["area_px"].sum().astype(float)
    own = areas / areas.groupby("frame_id").transform("sum")
    expected = shares[own.index.get_level_values("pseudo_class").to_numpy(np.int64)]
    # Half the L1 distance; classes that the frame lacks contribute what is left of the batch's shares.
    present = pd.Series(expected, own.index).groupby("frame_id").sum()
    return ((own - expected).abs().groupby("frame_id").sum() + (1 - present)) / 2


def _rank(frames: pd.DataFrame, settings: AuditSettings) -> pd.DataFrame:
    """Failed first, then most suspicious: 1 - product of (1 - cause), causes in [0, 1]; ties by frame id."""
    causes = pd.DataFrame(
        {
            "failed": (frames["status"] == FAILED).astype(float),
            "uncovered": _below_median(frames["coverage"]),
            "unsure": _below_median(frames["confidence"]),
            "inconsistent": 1 - frames["min_consistency"],
            "crowded": frames["n_instances"] / settings.max_instances_per_frame - 1,
            "oversized": frames["largest_instance_share"] / max(settings.max_instance_share, 1e-6) - 1,
            "implausible": frames["implausible"] / frames["n_instances"].clip(lower=1),
            "surprising": frames["surprise"],
        }
    )
    causes = causes.fillna(0.0).clip(0, 1)
    ranked = frames.assign(
        suspicion=1 - (1 - causes).prod(axis=1),
        why=causes.idxmax(axis=1).map(SUSPICIONS).where(causes.max(axis=1) > 0, ""),
    )
    order = np.lexsort((ranked["frame_id"], -ranked["suspicion"], ranked["status"] != FAILED))
    return ranked.iloc[order].reset_index(drop=True)


def _measure_batch(
    frames: pd.DataFrame,
    segments: pd.DataFrame,
    shares: npt.NDArray[np.float64],
    all_shares: npt.NDArray[np.float64],
) -> pd.DataFrame:
    n_frames = max(len(frames), 1)
    labelled = frames["coverage"] > 0
    failed = frames["status"] == FAILED
    return pd.DataFrame(
        [
            {
                "n_frames": len(frames),
                "failed_share": float(failed.sum() / n_frames),
                "empty_share": float((~failed & ~labelled).sum() / n_frames),
                "no_instance_share": float((~failed & (frames["n_instances"] == 0)).sum() / n_frames),
                "mean_coverage": float(frames["coverage"][labelled].mean()) if labelled.any() else 0.0,
                "n_instances": int((segments["instance"] > 0).sum()),
                "n_pseudo_classes": int((shares > 0).sum()),
                "largest_class_share": float(shares.max(initial=0.0)),
                "class_drift": float(np.abs(shares - all_shares).sum() / 2),
            }
        ]
    )


def _below_median(values: pd.Series) -> pd.Series:
    median = values.median()
    return (median - values) / median if median and median > 0 else values * 0.0


def _shares(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(pixels / max(pixels.sum(), 1.0))


def _require(table: pd.DataFrame, columns: tuple[str, ...], name: str) -> None:
    if missing := [column for column in columns if column not in table.columns]:
        raise DataError(
            f"{name} lacks the columns {', '.join(missing)}. Got: {', '.join(map(str, table.columns))}; "
            "`dvc repro pseudo_labels` makes it again"
        )
