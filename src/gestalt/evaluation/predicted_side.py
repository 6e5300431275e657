"""The predictions of an evaluation: a COCO panoptic file of any tool, or a shard folder of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np

from gestalt.data.coco_files import CocoCategory, CocoPanoptic
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError, name_some
from gestalt.evaluation.categories import (
    classes_of_categories,
    known_classes_of,
    name_categories,
    plain_name,
)
from gestalt.evaluation.coco import Naming, listed_categories, places_of_categories
from gestalt.evaluation.evaluated_images import EvaluatedImage, bare_name, coco_images
from gestalt.evaluation.image_pairs import Named, Pixels
from gestalt.evaluation.intersections import IntArray
from gestalt.evaluation.scored_instances import stored_scores
from gestalt.evaluation.truth_side import TruthSide
from gestalt.panoptic import VOID, Vocabulary

Classes = Literal["known", "match", "named"]
# Of segments, by image id and instance.
Scores = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True, eq=False)
class PredictedSide:
    """The predictions of an evaluation.

    Attributes:
        images: By image id, as the predictions call it.
        things: Outputs that are things.
        stuff: Outputs that are stuff.
        classes: The class of each output; empty where they are matched.
        clusters: The cluster that each output is, for reports.
        names: Of the outputs.
        segment_scores: By image id, as the predictions call it: the score of each instance.
        notes: How the files were understood, for people.
    """

    images: Mapping[str, EvaluatedImage]
    things: tuple[int, ...]
    stuff: tuple[int, ...]
    classes: tuple[int, ...] = ()
    clusters: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    segment_scores: Scores | None = None
    notes: tuple[str, ...] = ()


def coco_predicted(content: CocoPanoptic, truth: TruthSide, classes: Classes) -> PredictedSide:
    """Predictions in COCO panoptic form.

    Args:
        content: The JSON file and its folder.
        truth: Whose classes the categories are, where they are ``known``.
        classes: ``known``: categories are classes, by id or by name; ``match``: they are pseudo-classes; ``named``:
            they are classes where they have the names of classes, and pseudo-classes otherwise.

    Raises:
        DataError: Nothing is predicted, or the categories are not what ``classes`` says.
    """
    if not content.images:
        raise DataError(f"{content.path} annotates no image; there is nothing to evaluate")
    scores = {
        image_id: {segment.id: segment.score for segment in image.segments if segment.score is not None}
        for image_id, image in content.images.items()
    }
    known = None if classes == "match" else _known_categories(content, truth)
    if known is not None and (classes == "known" or _has_names(content.categories)):
        return _of_classes(content, truth, *known, scores)
    if classes == "known":
        raise _unknown_categories(content, truth)
    return _of_pseudo_classes(content, scores)


def shard_predicted(folder: Path, vocabulary: Vocabulary) -> PredictedSide:
    """Predictions of one of our networks.

    Args:
        folder: A shard folder with the maps ``semantic`` and ``instance`` in unified pseudo-classes.
        vocabulary: The split that the network's outputs follow.

    Raises:
        DataError: It is no shard folder, or an empty one.
    """
    frame_ids = ShardFolder(folder).frame_ids
    if not frame_ids:
        raise DataError(f"{folder} holds no frame; there is nothing to evaluate")
    images = {
        frame_id: EvaluatedImage(
            partial(read_shard, folder, frame_id, vocabulary.n_pseudo_classes),
            (frame_id, frame_id, bare_name(frame_id)),
        )
        for frame_id in frame_ids
    }
    return PredictedSide(
        images,
        vocabulary.unified_things,
        vocabulary.unified_stuff,
        clusters=vocabulary.stuff + vocabulary.things,
        segment_scores=_scores_of_images(stored_scores(ShardFolder(folder)) or {}),
        notes=(f"predictions: {vocabulary.n_pseudo_classes} pseudo-classes, matched as the protocol says",),
    )


def _scores_of_images(scores: Mapping[tuple[str, int], float]) -> dict[str, dict[int, float]]:
    of_images: dict[str, dict[int, float]] = {}
    for (image_id, instance), score in scores.items():
        of_images.setdefault(image_id, {})[instance] = score
    return of_images


def read_shard(folder: Path, frame_id: str, n_outputs: int) -> Pixels:
    """A stored map of ours.

    Raises:
        DataError: The archive is damaged; ``name_rows`` raises where a value is no output.
    """
    maps = _open_shards(folder)
    planes = maps.read_map(frame_id, "semantic"), maps.read_map(frame_id, "instance")
    return Pixels(planes, partial(_name_outputs, n_outputs), f"{folder}, {frame_id}")


@cache
def _open_shards(folder: Path) -> ShardFolder:
    """Each process opens a folder once."""
    return ShardFolder(folder)


def _of_classes(
    content: CocoPanoptic, truth: TruthSide, by_category: Mapping[int, int], how: str, scores: Scores
) -> PredictedSide:
    space = truth.space
    separate = frozenset(
        key
        for key, class_id in by_category.items()
        if class_id in space.thing_ids or (truth.is_as_listed and class_id != VOID)
    )
    naming = Naming(by_category, separate, crowd_is_flag=False, by_place=False, origin=content.path)
    void = [str(key) for key, class_id in by_category.items() if class_id == VOID]
    return PredictedSide(
        coco_images(content, naming),
        space.thing_ids,
        space.stuff_ids,
        classes=tuple(range(len(space.classes))),
        names=tuple(entry.name for entry in space.classes),
        segment_scores=scores,
        notes=(f"predictions: categories known by {how}" + (f"; void: {', '.join(void)}" if void else ""),),
    )


def _of_pseudo_classes(content: CocoPanoptic, scores: Scores) -> PredictedSide:
    categories, outputs = listed_categories(content), places_of_categories(content)
    naming = Naming(
        outputs,
        frozenset(category.id for category in categories if category.is_thing),
        crowd_is_flag=False,
        by_place=False,
        origin=content.path,
    )
    return PredictedSide(
        coco_images(content, naming),
        things=tuple(place for place, category in enumerate(categories) if category.is_thing),
        stuff=tuple(place for place, category in enumerate(categories) if not category.is_thing),
        names=tuple(category.name for category in categories),
        segment_scores=scores,
        notes=(
            f"predictions: {len(categories)} categories are pseudo-classes, matched as the protocol says",
        ),
    )


def _known_categories(content: CocoPanoptic, truth: TruthSide) -> tuple[dict[int, int], str] | None:
    """The class of each predicted category; None where they are not those of the ground truth."""
    used = _used_categories(content)
    if truth.by_category is not None:
        how = "their ids, those of the ground truth"
        if not content.categories:
            return (dict(truth.by_category), how) if set(used) <= set(truth.by_category) else None
        names = {category.id: category.name for category in truth.categories}
        by_name = {plain_name(category.name): truth.by_category[category.id] for category in truth.categories}
        found = known_classes_of(content.categories, names, truth.by_category, by_name, how)
        if found is not None:
            by_category, how = found
            # Categories that the ground truth lists are known even where the predictions do not list them.
            return (dict(truth.by_category) | by_category, how) if how != "their names" else found
    if truth.is_as_listed:
        return None
    listed = content.categories or tuple(CocoCategory(number, str(number), False) for number in used)
    return classes_of_categories(listed, truth.protocol.dataset, truth.space)


def _unknown_categories(content: CocoPanoptic, truth: TruthSide) -> DataError:
    used = _used_categories(content)
    hint = "give --classes match where they are pseudo-classes"
    if truth.by_category is not None and not content.categories:
        unknown = [number for number in used if number not in truth.by_category]
        return DataError(
            f"{content.path} uses categories that the ground truth does not list: {name_some(unknown)}; {hint}"
        )
    expected = name_categories(truth.categories) or name_some([entry.name for entry in truth.space.classes])
    return DataError(
        f"{content.path}: the categories must be those of the ground truth, by id or by name: {expected}. "
        f"Got: {name_categories(content.categories) or name_some(used)}; {hint}"
    )


def _used_categories(content: CocoPanoptic) -> list[int]:
    return sorted({segment.category_id for image in content.annotations for segment in image.segments})


def _has_names(categories: Sequence[CocoCategory]) -> bool:
    """Whether a file names its categories: numbers alone may be pseudo-classes as well as ids."""
    return any(not entry.is_void and entry.name != str(entry.id) for entry in categories)


def _name_outputs(n_outputs: int, values: Sequence[IntArray], n_pixels: IntArray) -> Named:
    semantic, instance = values
    if strangers := sorted(set(semantic[(semantic >= n_outputs) & (semantic != VOID)].tolist())):
        raise DataError(
            f"pseudo-classes must be 0..{n_outputs - 1}, or {VOID} for void. Got: {name_some(strangers)}; these maps "
            "were made with another vocabulary, make them again"
        )
    return semantic, instance, np.zeros(len(semantic), np.bool_)
