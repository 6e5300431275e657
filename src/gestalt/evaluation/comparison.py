"""Several predictions of one benchmark side by side: numbers with intervals, paired differences, images that differ.

All contestants are measured on the same images under the same protocol. A difference is drawn over the same resamples
for both sides, so what makes an image hard for everybody falls out of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError
from gestalt.evaluation.bootstrap import N_RESAMPLES, Interval, Spread, interval, spread
from gestalt.evaluation.evaluate import Evaluation, evaluate_table
from gestalt.evaluation.image_pairs import ImagePair, intersect_pairs
from gestalt.evaluation.intersections import count_tuples
from gestalt.evaluation.pairing import pair_sides
from gestalt.evaluation.panoptic_quality import MATCH_IOU
from gestalt.evaluation.predicted_side import PredictedSide
from gestalt.evaluation.protocols import Protocol
from gestalt.evaluation.truth_side import TruthSide
from gestalt.panoptic import VOID, LabelSpace, PanopticMap

METRICS = ("PQ", "SQ", "RQ", "PQ_thing", "PQ_stuff", "mIoU", "pixel_accuracy")

# By convention, by metric.
Numbers = Mapping[str, Mapping[str, Interval]]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Result:
    """One contestant on one benchmark.

    Attributes:
        numbers: Percent, with intervals; NaN for the bounds of numbers that were recorded and not measured here.
        differences: To the reference, percentage points, with paired intervals; empty for the reference.
        evaluation: What was measured here; None where only recorded numbers are left.
        class_quality: Class id -> PQ in the primary convention, percent; classes that occur on either side.
        class_differences: Class id -> difference of PQ to the reference.
        image_quality: (N,) PQ of each image by itself, percent, in the primary convention.
        pairs: By image id, what was measured.
    """

    numbers: Numbers
    differences: Numbers
    evaluation: Evaluation | None = None
    class_quality: Mapping[int, float] = field(default_factory=dict)
    class_differences: Mapping[int, Interval] = field(default_factory=dict)
    image_quality: FloatArray = field(default_factory=lambda: np.zeros(0))
    pairs: Mapping[str, ImagePair] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Comparison:
    """All contestants on one benchmark.

    Attributes:
        benchmark: Name of the evaluation set.
        protocol: What the numbers mean.
        space: Its classes.
        reference: Name of the contestant that differences are to.
        image_ids: Names of the N images; empty where nothing was measured here.
        results: By name, in the order of the contestants.
        label: ``name@hash`` of the protocol behind the numbers.
    """

    benchmark: str
    protocol: Protocol
    space: LabelSpace
    reference: str
    image_ids: tuple[str, ...]
    results: Mapping[str, Result]
    label: str

    def image_differences(self) -> dict[str, FloatArray]:
        """By name of each measured contestant but the reference: (N,) difference of the images' PQ to it."""
        base = self.results[self.reference].image_quality
        return {
            name: result.image_quality - base
            for name, result in self.results.items()
            if name != self.reference and len(result.image_quality)
        }


def compare_predictions(
    benchmark: str,
    contestants: Mapping[str, PredictedSide],
    recorded: Mapping[str, Mapping[str, Mapping[str, float]]],
    truth: TruthSide,
    *,
    order: Sequence[str],
    n_samples: int = N_RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Measure every contestant, then the differences to the first one that could be measured.

    Args:
        benchmark: Name of the evaluation set, for messages.
        contestants: By name, those whose predictions are here.
        recorded: By name, those of whom only numbers are left: convention -> metric -> percent, under this protocol.
        truth: Images with ground truth, and the protocol.
        order: All names.
        n_samples: Resamples of the images, B.
        seed: Of the resamples.

    Raises:
        DataError: No contestant is left, there is no ground truth, or predictions do not fit it.
        ShapeError: A prediction has another size than its ground truth.
    """
    order = [name for name in order if name in contestants or name in recorded]
    if not order:
        raise DataError(f"{benchmark}: there is nothing to compare")
    protocol, space = truth.protocol, truth.space
    pairs, evaluations = {}, {}
    for name in (name for name in order if name in contestants):
        evaluations[name], pairs[name] = _evaluate(contestants[name], truth, f"{benchmark} {name}")
    reference = next(iter(evaluations), order[0])
    measured = _measured(evaluations, reference, protocol, space, n_samples, seed)
    results = {}
    for name in order:
        if name in measured:
            results[name] = replace(measured[name], pairs=pairs[name])
            continue
        base = measured[reference].numbers if reference in measured else _recorded(recorded[reference])
        numbers = _recorded(recorded[name])
        results[name] = Result(numbers, {} if name == reference else _subtract(numbers, base))
    image_ids = evaluations[reference].panoptic_counts[protocol.primary].image_ids if evaluations else ()
    return Comparison(benchmark, protocol, space, reference, image_ids, results, protocol.label)


def seed_spreads(comparison: Comparison, names: Sequence[str]) -> dict[str, dict[str, Spread]]:
    """By convention and metric: mean and spread over contestants that differ in the seed only."""
    results = [comparison.results[name] for name in names if name in comparison.results]
    return {
        convention: {
            metric: spread([result.numbers[convention][metric].value for result in results])
            for metric in METRICS
        }
        for convention in comparison.protocol.conventions
        if all(convention in result.numbers for result in results)
    }


def worst_images(comparison: Comparison, n_images: int) -> list[str]:
    """Images where contestants and reference differ most, from the greatest loss to the greatest gain.

    Half of them are the greatest losses of any contestant, the others the greatest gains among the rest.

    Args:
        comparison: With at least one difference per image; otherwise nothing is worst.
        n_images: How many, at most.
    """
    differences = list(comparison.image_differences().values())
    if not differences:
        return []
    lowest, highest = np.min(differences, axis=0), np.max(differences, axis=0)
    # A stable sort: equal images stay in the order of their names.
    by_loss = np.argsort(lowest, kind="stable")[: -(-n_images // 2)]
    by_gain = [place for place in np.argsort(-highest, kind="stable") if place not in set(by_loss.tolist())]
    chosen = [*by_loss.tolist(), *by_gain[: n_images - len(by_loss)]]
    chosen.sort(key=lambda place: (lowest[place] + highest[place], comparison.image_ids[place]))
    return [comparison.image_ids[place] for place in chosen]


def matched_map(panoptic: PanopticMap, evaluation: Evaluation) -> PanopticMap:
    """A prediction in classes of the label space, as panoptic quality sees it; instances on things only.

    Args:
        panoptic: In outputs of the predictor.
        evaluation: Holds the class of each.
    """
    table = np.full(VOID + 1, VOID, np.uint8)
    table[: len(evaluation.assignment.class_of)] = evaluation.assignment.class_of
    semantic = table[panoptic.semantic_map]
    is_thing = np.isin(semantic, evaluation.space.thing_ids)
    return PanopticMap(semantic, np.where(is_thing, panoptic.instance_map, 0).astype(np.uint16))


def right_pixels(prediction: PanopticMap, truth: PanopticMap, thing_ids: Sequence[int]) -> BoolArray:
    """Where a prediction is right.

    Stuff is right where the class is; a thing where its class is and its segment covers the true one with an
    intersection over union above one half, as panoptic quality asks for. True void counts as right.

    Args:
        prediction: In classes.
        truth: In classes, of the same size.
        thing_ids: Countable classes.

    Returns:
        (H, W) bool.
    """
    same = prediction.semantic_map == truth.semantic_map
    things = same & np.isin(truth.semantic_map, list(thing_ids))
    (classes, predicted, true), shared = count_tuples(
        np.where(things, truth.semantic_map, VOID),
        np.where(things, prediction.instance_map, 0),
        np.where(things, truth.instance_map, 0),
    )
    ours, theirs = _areas(prediction), _areas(truth)
    right: BoolArray = same & ~things
    for class_id, mine, other, pixels in zip(
        classes.tolist(), predicted.tolist(), true.tolist(), shared.tolist()
    ):
        if class_id == VOID:
            continue
        if pixels > MATCH_IOU * (ours[class_id, mine] + theirs[class_id, other] - pixels):
            inside = things & (truth.semantic_map == class_id)
            right |= inside & (prediction.instance_map == mine) & (truth.instance_map == other)
    right |= truth.semantic_map == VOID
    return right


def _evaluate(
    predictions: PredictedSide, truth: TruthSide, label: str
) -> tuple[Evaluation, dict[str, ImagePair]]:
    try:
        paired = pair_sides(truth, predictions)
    except DataError as error:
        raise DataError(f"{label}: {error}") from error
    evaluation = evaluate_table(
        intersect_pairs(paired.pairs, protocol=truth.protocol, label=label),
        truth.protocol,
        things=predictions.things,
        stuff=predictions.stuff,
        coverage=paired.coverage,
        clusters=predictions.clusters,
        classes=predictions.classes,
        sequences={image_id: image.sequence for image_id, image in truth.images.items()},
        space=truth.space,
    )
    return evaluation, {pair.image_id: pair for pair in paired.pairs}


def _areas(panoptic: PanopticMap) -> dict[tuple[int, int], int]:
    (classes, instances), counts = count_tuples(panoptic.semantic_map, panoptic.instance_map)
    return {(int(a), int(b)): int(n) for a, b, n in zip(classes, instances, counts)}


def _measured(
    evaluations: Mapping[str, Evaluation],
    reference: str,
    protocol: Protocol,
    space: LabelSpace,
    n_samples: int,
    seed: int,
) -> dict[str, Result]:
    """Results of all evaluations; one set of resamples serves all of them."""
    if not evaluations:
        return {}
    weights = evaluations[reference].resamples(n_samples, seed)
    ignored = set(protocol.ignored_ids(space))
    classes = [entry.id for entry in space.classes if entry.id not in ignored]
    drawn = {name: _Drawn.of(evaluation, weights) for name, evaluation in evaluations.items()}
    base = drawn[reference]
    results = {}
    for name, evaluation in evaluations.items():
        mine = drawn[name]
        present = [place for place in classes if mine.occurs[place] or base.occurs[place]]
        is_other = name != reference
        results[name] = Result(
            numbers=_intervals(mine.values, mine.resampled),
            differences=_intervals(_minus(mine.values, base.values), _minus(mine.resampled, base.resampled))
            if is_other
            else {},
            evaluation=evaluation,
            class_quality={place: float(mine.of_class[place]) for place in present},
            class_differences={
                place: interval(
                    float(mine.of_class[place] - base.of_class[place]),
                    mine.resampled_of_class[:, place] - base.resampled_of_class[:, place],
                )
                for place in present
                if is_other
            },
            image_quality=evaluation.panoptic_counts[protocol.primary].of_images().means(classes)[0],
        )
    return results


# By convention and metric: () or (B,).
_Arrays = Mapping[str, Mapping[str, FloatArray]]


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Everything of a contestant that intervals and differences are made of."""

    values: _Arrays
    resampled: _Arrays
    of_class: FloatArray
    resampled_of_class: FloatArray
    occurs: BoolArray

    @classmethod
    def of(cls, evaluation: Evaluation, weights: npt.NDArray[Any]) -> _Drawn:
        conventions = evaluation.protocol.conventions
        counts = evaluation.panoptic_counts[evaluation.protocol.primary]
        return cls(
            values={convention: evaluation.numbers(convention) for convention in conventions},
            resampled={convention: evaluation.numbers(convention, weights) for convention in conventions},
            of_class=counts.total().per_class()[0],
            resampled_of_class=counts.total(weights).per_class()[0],
            occurs=counts.total().occurs,
        )


def _intervals(values: _Arrays, resampled: _Arrays) -> dict[str, dict[str, Interval]]:
    return {
        convention: {
            metric: interval(float(of_metric[metric]), resampled[convention][metric]) for metric in METRICS
        }
        for convention, of_metric in values.items()
    }


def _minus(mine: _Arrays, base: _Arrays) -> dict[str, dict[str, FloatArray]]:
    return {
        convention: {metric: of_metric[metric] - base[convention][metric] for metric in METRICS}
        for convention, of_metric in mine.items()
    }


def _recorded(numbers: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Interval]]:
    return {
        convention: {metric: Interval(float(value), math.nan, math.nan) for metric, value in values.items()}
        for convention, values in numbers.items()
    }


def _subtract(numbers: Numbers, base: Numbers) -> dict[str, dict[str, Interval]]:
    """Differences without intervals: nothing is known about the images."""
    return {
        convention: {
            metric: Interval(value.value - base[convention][metric].value, math.nan, math.nan)
            for metric, value in values.items()
            if metric in base[convention]
        }
        for convention, values in numbers.items()
        if convention in base
    }
