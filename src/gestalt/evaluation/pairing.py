"""Both sides of an evaluation brought together: which prediction belongs to which image with ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gestalt.errors import DataError, name_some
from gestalt.evaluation.evaluate import Coverage
from gestalt.evaluation.evaluated_images import CALLED_BY
from gestalt.evaluation.image_pairs import ImagePair
from gestalt.evaluation.predicted_side import PredictedSide
from gestalt.evaluation.truth_side import TruthSide


@dataclass(frozen=True, eq=False)
class PairedSides:
    """Who belongs to whom.

    Attributes:
        pairs: Every image of the ground truth, sorted.
        coverage: Which images have which side.
        called: The predictions' name of each image that has one.
        note: By what they were told apart.
    """

    pairs: tuple[ImagePair, ...]
    coverage: Coverage
    called: Mapping[str, str]
    note: str


def pair_sides(truth: TruthSide, predictions: PredictedSide) -> PairedSides:
    """Find the prediction of every image of the ground truth.

    Names are compared in each of the ways of ``CALLED_BY``; the way that finds most counts.

    Raises:
        DataError: There is no ground truth, or no image has a prediction.
    """
    if not truth.images:
        raise DataError("the ground truth holds no image; there is nothing to evaluate")
    best: dict[str, str] = {}
    how = ""
    for way, called_by in enumerate(CALLED_BY):
        ours = {image.names[way]: image_id for image_id, image in predictions.images.items()}
        theirs = {image.names[way]: image_id for image_id, image in truth.images.items()}
        if len(ours) < len(predictions.images) or len(theirs) < len(truth.images):
            continue  # two images are called alike
        found = {image_id: ours[name] for name, image_id in theirs.items() if name in ours}
        if len(found) > len(best):
            best, how = found, called_by
    if not best:
        raise DataError(
            f"none of the {len(truth.images)} images with ground truth has a prediction. Expected images such as "
            f"{name_some(sorted(truth.images))}. Got: {name_some(sorted(predictions.images))}"
        )
    used = set(best.values())
    coverage = Coverage(
        n_images=len(truth.images),
        missing=tuple(sorted(set(truth.images) - set(best))),
        extra=tuple(sorted(set(predictions.images) - used)),
        n_expected=truth.protocol.n_images,
    )
    pairs = tuple(
        ImagePair(image_id, image.read, predictions.images[best[image_id]].read if image_id in best else None)
        for image_id, image in sorted(truth.images.items())
    )
    return PairedSides(pairs, coverage, best, f"images of both sides are told apart by their {how}")


def mask_scores(paired: PairedSides, predictions: PredictedSide) -> dict[tuple[str, int], float]:
    """Score of every predicted instance, by image id and instance, as ``instance_images`` takes them.

    Raises:
        DataError: No segment has a score.
    """
    known = predictions.segment_scores or {}
    scores = {
        (image_id, instance): score
        for image_id, called in paired.called.items()
        for instance, score in known.get(called, {}).items()
    }
    if not scores:
        raise DataError(
            "no predicted segment has a score; write `score` (0..1) with every entry of segments_info, as "
            "`gestalt predict` does"
        )
    return scores
