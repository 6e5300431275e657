"""Are confidences right? The score of every predicted instance beside whether it hits an object at IoU 0.5.

    judged = judge_masks(mark_groups_as_crowd(table, things), true_objects(table, things))
    histogram = CalibrationHistogram.of_masks(judged, scores)
    (histogram + other).calibration()  # expected calibration error, Brier score, AUROC, reliability table

With ``class_of`` (see ``judge_masks``) a hit must be of the right class too. A histogram is counts on a fixed grid of
scores, so those of shards add up, in any order, to the one of all masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError, ShapeError
from gestalt.evaluation.instances import JudgedMasks

# Scores are rounded to this grid. Predictions are written with four digits, so their Brier score and AUROC are exact.
STEPS = 10_000

# Sums of probabilities in single precision may leave 0..1 by as much.
ROUNDING = 1e-6

# Bins of the reliability table; each holds about as many masks as any other.
N_BINS = 15

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBin:
    """Masks of similar score.

    Attributes:
        low: Lowest score among them.
        high: Highest score.
        mean_score: Mean score, 0..1.
        hit_share: Share of hits, 0..1; equal to the mean score where scores are right.
        n_masks: How many.
    """

    low: float
    high: float
    mean_score: float
    hit_share: float
    n_masks: int


@dataclass(frozen=True)
class Calibration:
    """How right scores are; shares in 0..1, NaN where there are no masks (AUROC: no hits, or only hits).

    Attributes:
        expected_error: Mean distance between score and share of hits over bins of equal count (ECE).
        largest_error: The largest distance of a bin.
        brier: Mean squared distance between score and hit (1 or 0).
        auroc: Chance that a hit has a higher score than a miss; ties count half.
        mean_score: Mean score.
        hit_share: Share of hits.
        n_masks: Masks that count.
        bins: The reliability table, by score.
    """

    expected_error: float
    largest_error: float
    brier: float
    auroc: float
    mean_score: float
    hit_share: float
    n_masks: int
    bins: tuple[ReliabilityBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; None in place of NaN."""
        return {
            name: None if isinstance(value, float) and np.isnan(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """Inverse of ``to_dict``."""
        values: dict[str, Any] = {name: np.nan if value is None else value for name, value in content.items()}
        values["bins"] = tuple(ReliabilityBin(**entry) for entry in content["bins"])
        return cls(**values)


@dataclass(frozen=True, eq=False)
class CalibrationHistogram:
    """Counts of masks by score; the sum of two histograms is the one of both sets of masks.

    Attributes:
        n_misses: (STEPS + 1,) int64, masks of score k / STEPS that hit nothing.
        n_hits: (STEPS + 1,) int64, those that hit.
    """

    n_misses: IntArray
    n_hits: IntArray

    @classmethod
    def of(cls, scores: npt.ArrayLike, is_hit: npt.ArrayLike) -> CalibrationHistogram:
        """The histogram of masks; none at all is fine.

        Args:
            scores: (M,) in 0..1.
            is_hit: (M,) bool.

        Raises:
            ShapeError: The two differ in length.
            DataError: A score is no number in 0..1.
        """
        values, hits = np.asarray(scores, np.float64), np.asarray(is_hit, np.bool_)
        if values.ndim != 1 or values.shape != hits.shape:
            raise ShapeError(f"scores and is_hit must be (M,) each. Got: {values.shape} and {hits.shape}")
        # NaN fails every comparison.
        is_share = (values >= -ROUNDING) & (values <= 1 + ROUNDING)
        if not is_share.all():
            wrong = values[~is_share]
            raise DataError(
                f"scores must be numbers in 0..1; {len(wrong)} of {len(values)} are not, such as {wrong[0]:g}; "
                "give probabilities, not logits or percent"
            )
        step = np.rint(values.clip(0, 1) * STEPS).astype(np.int64)
        return cls(
            n_misses=np.bincount(step[~hits], minlength=STEPS + 1),
            n_hits=np.bincount(step[hits], minlength=STEPS + 1),
        )

    @classmethod
    def of_masks(cls, judged: JudgedMasks, scores: Mapping[tuple[str, int], float]) -> CalibrationHistogram:
        """The histogram of judged masks; those that do not count (mostly in void, say) are left out.

        Args:
            judged: See ``judge_masks``.
            scores: By image id and predicted instance, 0..1.

        Raises:
            DataError: A mask has no score, or one outside of 0..1.
        """
        return cls.of(judged.scores(scores)[judged.counts], judged.is_hit[judged.counts])

    def __add__(self, other: CalibrationHistogram) -> CalibrationHistogram:
        """Of both sets of masks."""
        return CalibrationHistogram(self.n_misses + other.n_misses, self.n_hits + other.n_hits)

    def calibration(self, n_bins: int = N_BINS) -> Calibration:
        """All measures.

        Args:
            n_bins: Bins of the reliability table at most; masks of equal score are never split.
        """
        n_masks = self.n_misses + self.n_hits
        total, total_hits = int(n_masks.sum()), int(self.n_hits.sum())
        if not total:
            nothing = float("nan")
            return Calibration(nothing, nothing, nothing, nothing, nothing, nothing, 0, ())
        score = np.arange(STEPS + 1) / STEPS
        bins = tuple(self._bins(n_bins))
        errors = np.array([abs(entry.mean_score - entry.hit_share) for entry in bins])
        return Calibration(
            expected_error=float(errors @ np.array([entry.n_masks for entry in bins])) / total,
            largest_error=float(errors.max()),
            brier=float(self.n_misses @ score**2 + self.n_hits @ (1 - score) ** 2) / total,
            auroc=self._auroc(),
            mean_score=float(n_masks @ score) / total,
            hit_share=total_hits / total,
            n_masks=total,
            bins=bins,
        )

    def _bins(self, n_bins: int) -> list[ReliabilityBin]:
        """Bins of about equal count: each score goes where the middle of its masks, in order of score, falls."""
        n_masks = self.n_misses + self.n_hits
        used = np.flatnonzero(n_masks)
        counts = n_masks[used]
        middle = np.cumsum(counts) - 0.5 * counts
        bin_of = np.minimum((middle * n_bins / counts.sum()).astype(np.int64), n_bins - 1)
        bins = []
        for number in np.unique(bin_of):
            steps = used[bin_of == number]
            n_own = int(n_masks[steps].sum())
            bins.append(
                ReliabilityBin(
                    low=float(steps[0]) / STEPS,
                    high=float(steps[-1]) / STEPS,
                    mean_score=float(n_masks[steps] @ steps) / (STEPS * n_own),
                    hit_share=int(self.n_hits[steps].sum()) / n_own,
                    n_masks=n_own,
                )
            )
        return bins

    def _auroc(self) -> float:
        n_pairs = int(self.n_misses.sum()) * int(self.n_hits.sum())
        if not n_pairs:
            return float("nan")
        below = np.cumsum(self.n_misses) - self.n_misses
        return float(self.n_hits @ (below + 0.5 * self.n_misses)) / n_pairs
