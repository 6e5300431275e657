"""Quality of video: segmentation and tracking quality (STQ) and video panoptic quality (VPQ).

From the same intersection tables as all metrics: a sequence's tubes are sums over its frames. In come predictions in
classes whose instances keep one id over time; out come the numbers, per class, per sequence and with intervals.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gestalt.evaluation.bootstrap import N_RESAMPLES, Interval, interval, resamples
from gestalt.evaluation.intersections import IntersectionTable
from gestalt.evaluation.video_counts import (
    OFFICIAL_GROUPS,
    WINDOWS,
    FloatArray,
    VideoCounts,
    VideoScores,
    divide,
    video_counts,
)


@dataclass(frozen=True, eq=False)
class VideoQuality:
    """Counts of an evaluation set with what its classes are.

    Attributes:
        counts: Per sequence.
        thing_classes: Countable classes.
        ignored: Classes in no mean.
    """

    counts: VideoCounts
    thing_classes: tuple[int, ...]
    ignored: tuple[int, ...]

    @property
    def classes(self) -> dict[str, list[int]]:
        """Evaluated class ids: ``all``, ``thing`` and ``stuff``."""
        everything = [index for index in range(self.counts.confusion.shape[1]) if index not in self.ignored]
        return {
            "all": everything,
            "thing": [index for index in everything if index in self.thing_classes],
            "stuff": [index for index in everything if index not in self.thing_classes],
        }

    def headline(self, scores: VideoScores | None = None) -> dict[str, FloatArray]:
        """STQ, AQ, SQ and, of the first convention, VPQ with its thing and stuff parts, percent; NaN where undefined.

        Args:
            scores: Resampled sums, whose leading axes the numbers then have; those of all sequences, without them.
        """
        scores = scores or self.counts.total()
        convention = next(iter(scores.panoptic))
        vpq = {
            "VPQ" if kind == "all" else f"VPQ_{kind}": scores.panoptic_quality(convention, classes)
            for kind, classes in self.classes.items()
        }
        numbers = {
            "STQ": scores.tracking_quality(),
            "AQ": scores.association_quality(),
            "SQ": scores.segmentation_quality(),
            **vpq,
        }
        return {name: 100 * np.asarray(value) for name, value in numbers.items()}

    def intervals(self, n_samples: int = N_RESAMPLES, seed: int = 0) -> dict[str, Interval]:
        """The headline with the interval that resamples of whole sequences give.

        A number that some resample leaves undefined (no tube or no window in it) has none, nor has a single sequence.
        """
        drawn = self.headline(self.counts.total(resamples(len(self.counts.sequences), n_samples, seed)))
        found = {name: interval(float(value), drawn[name]) for name, value in self.headline().items()}
        return {name: bounds for name, bounds in found.items() if bounds.is_known}

    def to_dict(self, class_names: Sequence[str] = ()) -> dict[str, Any]:
        """Everything for a report, percent, with intervals over sequences; None where a number is not defined.

        Args:
            class_names: Name of each class; its number, without them.
        """
        scores, counts = self.counts.total(), self.counts
        vpq = {
            convention: {
                **{
                    kind: _percent(scores.panoptic_quality(convention, ids))
                    for kind, ids in self.classes.items()
                },
                "windows": {
                    str(n_frames): quality.to_dict(self.thing_classes, self.ignored) if n_windows else None
                    for n_frames, n_windows, quality in zip(
                        counts.windows, scores.n_windows, scores.panoptic[convention], strict=True
                    )
                },
            }
            for convention in scores.panoptic
        }
        return {
            **{name: _percent(value / 100) for name, value in self.headline().items() if "VPQ" not in name},
            "headline": {name: _percent(value / 100) for name, value in self.headline().items()},
            "intervals": {name: bounds.to_list() for name, bounds in self.intervals().items()},
            "void_is_no_class": {
                "STQ": _percent(scores.tracking_quality(void_is_class=False)),
                "SQ": _percent(scores.segmentation_quality(void_is_class=False)),
            },
            "VPQ": vpq,
            "n_sequences": len(counts.sequences),
            "n_frames": int(counts.n_frames.sum()),
            "per_class": self._class_records(scores, class_names),
            "per_sequence": self._sequence_records(),
        }

    def _class_records(self, scores: VideoScores, names: Sequence[str]) -> list[dict[str, Any]]:
        iou, association = scores.class_iou(), divide(scores.association, scores.n_tubes)
        vpq = {convention: scores.class_quality(convention) for convention in scores.panoptic}
        return [
            {
                "class": names[index] if names else str(index),
                "is_thing": index in self.thing_classes,
                "IoU": _percent(iou[index]),
                "AQ": _percent(association[index]),
                "n_tubes": int(scores.n_tubes[index]),
                "VPQ": {convention: _percent(values[index]) for convention, values in vpq.items()},
            }
            for index in self.classes["all"]
        ]

    def _sequence_records(self) -> list[dict[str, Any]]:
        counts = self.counts
        columns = self.headline(counts.of_sequences())
        return [
            {
                "sequence": name,
                "n_frames": int(counts.n_frames[index]),
                "n_tubes": int(counts.n_tubes[index].sum()),
                **{column: _percent(values[index] / 100) for column, values in columns.items()},
            }
            for index, name in enumerate(counts.sequences)
        ]


def evaluate_video(
    table: IntersectionTable,
    sequence_of: Mapping[str, tuple[str, int]],
    n_classes: int,
    thing_classes: Collection[int],
    ignored: Collection[int] = (),
    *,
    windows: Sequence[int] = WINDOWS,
    group_regions: Mapping[str, str] = OFFICIAL_GROUPS,
) -> VideoQuality:
    """STQ and VPQ of predictions whose instances keep one id over the frames of a sequence.

    Args:
        table: Frames in any order, predictions in class ids (see ``relabel_predictions``).
        sequence_of: Sequence and number of each image of the table.
        n_classes: C; ids are 0..C-1.
        thing_classes: Countable classes; their true pixels without an instance are crowds.
        ignored: Classes in no mean. For STQ their true pixels are void and predicting them is predicting nothing.
        windows: Lengths, in annotated frames, that VPQ is averaged over.
        group_regions: Per convention of panoptic quality, whether thing truth without an instance is a ``crowd`` or
            an ordinary ``segment`` there; the first convention makes the headline.

    Raises:
        ConfigError: A window is shorter than 1 frame, a convention is unknown, or there is none.
        DataError: An image belongs to no sequence, or two images of a sequence have one number.
    """
    counts = video_counts(
        table, sequence_of, n_classes, thing_classes, ignored, windows=windows, group_regions=group_regions
    )
    return VideoQuality(counts, tuple(sorted(thing_classes)), tuple(sorted(ignored)))


def _percent(fraction: Any) -> float | None:
    value = 100 * float(fraction)
    return None if math.isnan(value) else value
