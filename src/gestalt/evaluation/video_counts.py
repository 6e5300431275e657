"""What STQ and VPQ are made of: additive counts per sequence, and the qualities that follow from their sums."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.errors import ConfigError, DataError
from gestalt.evaluation.intersections import (
    IntersectionTable,
    clear_crowds,
    mark_groups_as_crowd,
    predicted_segments,
    sum_by,
    true_segments,
    weighted_sum,
)
from gestalt.evaluation.panoptic_quality import STANDARD, PanopticCounts, PanopticQuality, panoptic_quality
from gestalt.evaluation.tubes import SequencePairs, split_sequences, window_table

# Frames per window that VPQ is averaged over: Kim et al., Video Panoptic Segmentation, CVPR 2020, whose k = 0, 5, 10,
# 15 counts video frames while every fifth is annotated. Here annotated frames are counted.
WINDOWS = (1, 2, 3, 4)

# The rules of the public VPQ evaluation: void as the panoptic API has it, thing regions without instances are crowds.
OFFICIAL_GROUPS: Mapping[str, str] = {STANDARD: "crowd"}

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class VideoScores:
    """Sums over sequences and the qualities that follow, as fractions; leading axes are resamples or sequences.

    Attributes:
        confusion: (..., C, C + 1) pixels by true and by predicted class. The last column holds pixels that were not
            predicted as any evaluated class. Pixels whose truth is void or ignored are not there.
        association: (..., C) sums over the true tubes of a class: how well one predicted id follows each.
        n_tubes: (..., C) true tubes.
        n_windows: (..., K) windows of each of the K lengths.
        panoptic: Per convention, for each of the K lengths, the counts over all windows.
    """

    confusion: npt.NDArray[Any]
    association: npt.NDArray[Any]
    n_tubes: npt.NDArray[Any]
    n_windows: npt.NDArray[Any]
    panoptic: Mapping[str, tuple[PanopticQuality, ...]]

    def association_quality(self) -> FloatArray:
        """(...) AQ, the mean over all true tubes; NaN where there is none."""
        return divide(self.association.sum(axis=-1), self.n_tubes.sum(axis=-1))

    def class_iou(self) -> FloatArray:
        """(..., C) intersection over union; NaN where a class neither occurs nor is predicted."""
        right = np.diagonal(self.confusion, axis1=-2, axis2=-1)
        predicted = self.confusion[..., :-1].sum(axis=-2)
        return divide(right, self.confusion.sum(axis=-1) + predicted - right)

    def segmentation_quality(self, *, void_is_class: bool = True) -> FloatArray:
        """(...) SQ, the mean IoU over the classes that occur; NaN where none does.

        Args:
            void_is_class: As in the public evaluation, pixels that were not predicted as any class make one more
                class, whose IoU is 0. Otherwise they are missed, and that is all.
        """
        iou = self.class_iou()
        n_classes = np.isfinite(iou).sum(axis=-1)
        if void_is_class:
            n_classes = n_classes + (self.confusion[..., -1].sum(axis=-1) > 0)
        return divide(np.nansum(iou, axis=-1), n_classes)

    def tracking_quality(self, *, void_is_class: bool = True) -> FloatArray:
        """(...) STQ, the geometric mean of AQ and SQ."""
        quality: FloatArray = np.sqrt(
            self.association_quality() * self.segmentation_quality(void_is_class=void_is_class)
        )
        return quality

    def window_quality(self, convention: str, classes: Iterable[int]) -> FloatArray:
        """(..., K) VPQ of each window length over those of ``classes`` that occur; NaN where none does."""
        chosen = list(classes)
        means = [quality.means(chosen, np.nan)[0] / 100 for quality in self.panoptic[convention]]
        return np.where(self.n_windows > 0, np.stack(means, axis=-1), np.nan)

    def panoptic_quality(self, convention: str, classes: Iterable[int]) -> FloatArray:
        """(...) VPQ, the mean over the window lengths; NaN where one fits no sequence, or no class occurs."""
        mean: FloatArray = self.window_quality(convention, classes).mean(axis=-1)
        return mean

    def class_quality(self, convention: str) -> FloatArray:
        """(..., C) VPQ of each class; NaN where it occurs in no window, or some length has none."""
        qualities = self.panoptic[convention]
        mean = np.mean([quality.per_class()[0] / 100 for quality in qualities], axis=0)
        occurs = np.any([quality.occurs for quality in qualities], axis=0)
        all_fit = np.asarray(self.n_windows).min(axis=-1) > 0
        return np.where(occurs & np.expand_dims(all_fit, -1), mean, np.nan)


@dataclass(frozen=True, eq=False)
class VideoCounts:
    """The counts of S sequences; those of different sequences merge in any order.

    Attributes:
        sequences: Names, sorted.
        windows: K lengths in frames.
        n_frames: (S,) int64, frames with ground truth.
        n_windows: (S, K) int64.
        confusion: (S, C, C + 1) int64, see ``VideoScores``.
        association: (S, C) float64.
        n_tubes: (S, C) int64.
        panoptic: Per convention and window length, (S, C) counts; their "images" are the sequences.
    """

    sequences: tuple[str, ...]
    windows: tuple[int, ...]
    n_frames: IntArray
    n_windows: IntArray
    confusion: IntArray
    association: FloatArray
    n_tubes: IntArray
    panoptic: Mapping[str, tuple[PanopticCounts, ...]]

    def total(self, weights: npt.NDArray[Any] | None = None) -> VideoScores:
        """The sums over all sequences.

        Args:
            weights: (..., S), how often each sequence counts; once, without them.
        """
        confusion = weighted_sum(self.confusion.reshape(len(self.sequences), -1), weights)
        return VideoScores(
            confusion=confusion.reshape(*confusion.shape[:-1], *self.confusion.shape[1:]),
            association=weighted_sum(self.association, weights),
            n_tubes=weighted_sum(self.n_tubes, weights),
            n_windows=weighted_sum(self.n_windows, weights),
            panoptic={
                convention: tuple(counts.total(weights) for counts in per_window)
                for convention, per_window in self.panoptic.items()
            },
        )

    def of_sequences(self) -> VideoScores:
        """Each sequence as if it were the whole evaluation set: leading axis S."""
        return VideoScores(
            confusion=self.confusion,
            association=self.association,
            n_tubes=self.n_tubes,
            n_windows=self.n_windows,
            panoptic={
                convention: tuple(counts.of_images() for counts in per_window)
                for convention, per_window in self.panoptic.items()
            },
        )


def video_counts(
    table: IntersectionTable,
    sequence_of: Mapping[str, tuple[str, int]],
    n_classes: int,
    thing_classes: Collection[int],
    ignored: Collection[int] = (),
    *,
    windows: Sequence[int] = WINDOWS,
    group_regions: Mapping[str, str] = OFFICIAL_GROUPS,
) -> VideoCounts:
    """Count each sequence; see ``evaluate_video``. A sequence must be whole: tubes end where the table does.

    Source:
        STQ: Weber et al., STEP: Segmenting and Tracking Every Pixel, NeurIPS 2021 Datasets and Benchmarks, with the
        rules for void and crowds of its public evaluation (google-research/deeplab2). VPQ: Kim et al., Video Panoptic
        Segmentation, CVPR 2020: panoptic quality of tubes in all windows of successive annotated frames. There a
        tube's class is that of its first frame; here a tube is (class, instance), as in STQ, so an object whose
        predicted class changes has two.
    """
    if not windows or not group_regions:
        raise ConfigError(
            "video panoptic quality needs at least one window length and one convention. "
            f"Got: windows {tuple(windows)}, conventions {tuple(group_regions)}"
        )
    unknown = sorted(set(group_regions.values()) - {"crowd", "segment"})
    if unknown:
        raise ConfigError(f"group regions must be `crowd` or `segment`. Got: {', '.join(unknown)}")
    things = set(thing_classes)
    counts = [
        _count_sequence(pairs, n_classes, things, set(ignored), tuple(windows), group_regions)
        for pairs in split_sequences(table, sequence_of)
    ]
    return merge_video_counts(counts)


def merge_video_counts(counts: Iterable[VideoCounts]) -> VideoCounts:
    """One record of all sequences; the order does not matter.

    Raises:
        DataError: A sequence occurs twice, or there is none.
    """
    parts = list(counts)
    names = [name for part in parts for name in part.sequences]
    if not names:
        raise DataError("there is no sequence to evaluate; the ground truth is empty")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DataError(
            f"{len(twice)} sequences were counted in several parts, which would cut their tubes: "
            f"{', '.join(twice[:10])}; merge their tables before counting"
        )
    order = np.argsort(names, kind="stable")
    sequences = tuple(names[index] for index in order)

    def joined(arrays: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate(list(arrays))[order]

    def joined_panoptic(convention: str, window: int) -> PanopticCounts:
        fields = [field.name for field in dataclasses.fields(PanopticCounts)][2:]
        of_parts = [part.panoptic[convention][window] for part in parts]
        columns = {name: joined(getattr(part, name) for part in of_parts) for name in fields}
        return PanopticCounts(convention, sequences, **columns)

    windows = parts[0].windows
    return VideoCounts(
        sequences=sequences,
        windows=windows,
        n_frames=joined(part.n_frames for part in parts),
        n_windows=joined(part.n_windows for part in parts),
        confusion=joined(part.confusion for part in parts),
        association=joined(part.association for part in parts),
        n_tubes=joined(part.n_tubes for part in parts),
        panoptic={
            convention: tuple(joined_panoptic(convention, window) for window in range(len(windows)))
            for convention in parts[0].panoptic
        },
    )


def _count_sequence(
    pairs: SequencePairs,
    n_classes: int,
    things: set[int],
    ignored: set[int],
    windows: tuple[int, ...],
    group_regions: Mapping[str, str],
) -> VideoCounts:
    association, n_tubes = _associate(pairs.tubes, n_classes, things - ignored)
    sequences = pairs.tubes.image_ids
    panoptic: dict[str, list[PanopticCounts]] = {convention: [] for convention in group_regions}
    n_windows = []
    for n_frames in windows:
        tubes = window_table(pairs, n_frames)
        n_windows.append(len(tubes.image_ids))
        for convention, treatment in group_regions.items():
            treated = mark_groups_as_crowd(tubes, things) if treatment == "crowd" else clear_crowds(tubes)
            total = panoptic_quality(treated, n_classes, convention)
            panoptic[convention].append(
                PanopticCounts(
                    convention,
                    sequences,
                    total.true_positives[None],
                    total.false_positives[None],
                    total.false_negatives[None],
                    total.iou_sum[None],
                )
            )
    return VideoCounts(
        sequences=sequences,
        windows=windows,
        n_frames=np.array([pairs.n_frames], np.int64),
        n_windows=np.array([n_windows], np.int64),
        confusion=_confuse(pairs.tubes, n_classes, ignored)[None],
        association=association[None],
        n_tubes=n_tubes[None],
        panoptic={convention: tuple(per_window) for convention, per_window in panoptic.items()},
    )


def _associate(tubes: IntersectionTable, n_classes: int, things: set[int]) -> tuple[FloatArray, IntArray]:
    """The association sum and the number of the true tubes of each class.

    A true tube g adds, over all predicted tubes p that touch it, |p and g| / |g| * IoU(p, g). Classes play no part in
    which tubes are compared. Predicted pixels in crowds belong to no tube; those on void or stuff do, and lower it.

    Returns:
        (C,) float64 and (C,) int64.
    """
    true, predicted = true_segments(tubes), predicted_segments(tubes)
    countable = sorted(things)
    is_thing = np.isin(tubes.true_class, countable)
    is_crowd = is_thing & (tubes.is_crowd | (tubes.true_instance == 0))
    is_true_tube = is_thing & ~is_crowd
    is_predicted_tube = np.isin(tubes.predicted_class, countable) & ~is_crowd
    true_area = sum_by(true.of_row, np.where(is_true_tube, tubes.n_pixels, 0), len(true.area))
    predicted_area = sum_by(
        predicted.of_row, np.where(is_predicted_tube, tubes.n_pixels, 0), len(predicted.area)
    )
    both = is_true_tube & is_predicted_tube
    shared, area = tubes.n_pixels[both], true_area[true.of_row[both]]
    union = predicted_area[predicted.of_row[both]] + area - shared
    worth = (shared / area) * (shared / union)
    association = np.bincount(tubes.true_class[both], weights=worth, minlength=n_classes)
    n_tubes = np.bincount(true.class_id[true_area > 0], minlength=n_classes)
    return association.astype(np.float64), n_tubes.astype(np.int64)


def _confuse(tubes: IntersectionTable, n_classes: int, ignored: set[int]) -> IntArray:
    """(C, C + 1) int64 pixels by true and predicted class; the last column is everything else."""
    left_out = sorted(ignored)
    counts = (tubes.true_class < n_classes) & ~np.isin(tubes.true_class, left_out)
    is_class = (tubes.predicted_class < n_classes) & ~np.isin(tubes.predicted_class, left_out)
    predicted = np.where(is_class, tubes.predicted_class, n_classes)
    cells = tubes.true_class[counts] * (n_classes + 1) + predicted[counts]
    return sum_by(cells, tubes.n_pixels[counts], n_classes * (n_classes + 1)).reshape(
        n_classes, n_classes + 1
    )


def divide(numerator: Any, denominator: Any) -> FloatArray:
    """Quotients; NaN where the denominator is 0."""
    shape = np.shape(numerator)
    ratio: FloatArray = np.divide(
        numerator, denominator, out=np.full(shape, np.nan), where=np.asarray(denominator) > 0
    )
    return ratio
