"""Average precision and recall of masks with scores, by the official COCO rules and code.

From an intersection table, without pixels::

    images = instance_images(table, scores, thing_classes=space.thing_ids)  # class-agnostic
    images = instance_images(table, scores, thing_classes=space.thing_ids, class_of=assignment.class_of)
    average_precision(images).headline()  # AP, AP50, AP75, AR100 in percent

``scores`` maps (image id, predicted instance) to any number, the higher the surer; ``equal_scores`` makes such
a mapping for masks without any. Masks that overlap come as run-length codes (``instance_image_of_masks``). An image is
a small matrix of overlaps, so workers hand images back in any order and the numbers are the same.

Source:
    Lin et al., Microsoft COCO, ECCV 2014: 10 thresholds .50:.05:.95, precision at 101 recalls, at most 100 masks an
    image; matching and accumulation are those of pycocotools. Regions of void, and things that nobody separated, are
    crowds: a mask of which a share of at least the threshold lies in one counts for nothing.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError, ShapeError
from gestalt.evaluation.instances import scores_of, true_objects
from gestalt.evaluation.intersections import (
    NO_PREDICTION,
    IntersectionTable,
    predicted_segments,
    sum_by,
    true_segments,
)
from gestalt.panoptic import VOID

# Masks of an image and class at most, the best first; AR100 is named after it.
MAX_DETECTIONS = 100

# The class of everything where classes do not count.
ANY_CLASS = 0

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class InstanceImage:
    """The scored masks and the true objects of one image, and how they overlap.

    Attributes:
        image_id: Name of the image.
        scores: (D,) float64, the higher the surer.
        classes: (D,) int64 classes of the masks; all 0 where classes do not count.
        object_classes: (G,) int64; -1 for a crowd of every class, such as void.
        is_crowd: (G,) bool.
        is_ignored: (G,) bool, need not be found, and masks on them count for nothing; crowds always are.
        overlap: (D, G) float64, IoU, or for crowds the share of the mask that lies in them.
    """

    image_id: str
    scores: FloatArray
    classes: IntArray
    object_classes: IntArray
    is_crowd: BoolArray
    is_ignored: BoolArray
    overlap: FloatArray

    def __post_init__(self) -> None:
        n_masks, n_objects = len(self.scores), len(self.object_classes)
        if self.overlap.shape != (n_masks, n_objects):
            raise ShapeError(
                f"{self.image_id}: overlap must be (masks, objects) = ({n_masks}, {n_objects}). "
                f"Got: {self.overlap.shape}"
            )


@dataclass(frozen=True)
class AveragePrecision:
    """Percent; NaN where there is no object to find.

    Attributes:
        AP: Mean over IoU .50:.05:.95 and classes.
        AP50: At IoU 0.5.
        AP75: At IoU 0.75.
        AR100: Recall with at most 100 masks an image, mean over IoU and classes.
        per_class: AP of each class that has objects; of class 0 alone where classes do not count.
        n_masks: Masks in all images.
        n_objects: Objects to find, crowds not among them.
        n_images: Images.
        has_ranking: False where all masks have one score, so that AP says nothing about confidences.
    """

    AP: float
    AP50: float
    AP75: float
    AR100: float
    per_class: Mapping[int, float]
    n_masks: int
    n_objects: int
    n_images: int
    has_ranking: bool

    def headline(self) -> dict[str, float]:
        """The four numbers."""
        return {"AP": self.AP, "AP50": self.AP50, "AP75": self.AP75, "AR100": self.AR100}

    def to_dict(self) -> dict[str, Any]:
        """For JSON; None where there is nothing to find."""
        numbers = {name: None if np.isnan(value) else value for name, value in self.headline().items()}
        return {
            **numbers,
            "per_class": {str(name): value for name, value in self.per_class.items()},
            "n_masks": self.n_masks,
            "n_objects": self.n_objects,
            "n_images": self.n_images,
            "has_ranking": self.has_ranking,
        }


def average_precision(images: Iterable[InstanceImage]) -> AveragePrecision:
    """AP, AP50, AP75 and AR100 over images in any order.

    Args:
        images: Every image of the evaluation set, those without masks too.

    Raises:
        DataError: An image occurs twice, or there is none.
    """
    from pycocotools.cocoeval import COCOeval

    ordered = sorted(images, key=lambda image: image.image_id)
    names = [image.image_id for image in ordered]
    if not names:
        raise DataError("there is no image to evaluate; the ground truth is empty")
    if len(set(names)) < len(names):
        twice = next(name for name, following in itertools.pairwise(names) if name == following)
        raise DataError(f"images occur twice and would count twice, such as {twice}")
    numbered = [image.object_classes[~image.is_ignored] for image in ordered]
    classes = sorted(
        {int(class_id) for own in [*numbered, *(image.classes for image in ordered)] for class_id in own}
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        judge = COCOeval(iouType="segm")
        judge.params.imgIds = list(range(len(ordered)))
        judge.params.catIds = classes or [ANY_CLASS]
        judge.params.maxDets = [MAX_DETECTIONS]
        # Sizes of objects are a matter of the table (`void_small_objects`), not of this measure.
        judge.params.areaRng, judge.params.areaRngLbl = [[0, float("inf")]], ["all"]
        judge.evalImgs = [
            _match(judge, index, image, class_id)
            for class_id in judge.params.catIds
            for index, image in enumerate(ordered)
        ]
        judge._paramsEval = judge.params
        judge.accumulate()
    # Axes: IoU, recall, class, size, number of masks; -1 marks classes without an object.
    precision = judge.eval["precision"][:, :, :, 0, 0]
    recall = judge.eval["recall"][:, :, 0, 0]
    of_threshold = dict(zip(np.round(100 * judge.params.iouThrs).astype(int).tolist(), precision))
    scores = np.concatenate([image.scores for image in ordered])
    return AveragePrecision(
        AP=_mean(precision),
        AP50=_mean(of_threshold[50]),
        AP75=_mean(of_threshold[75]),
        AR100=_mean(recall),
        per_class={
            class_id: _mean(precision[:, :, index])
            for index, class_id in enumerate(judge.params.catIds)
            if recall[0, index] >= 0
        },
        n_masks=len(scores),
        n_objects=sum(len(own) for own in numbered),
        n_images=len(ordered),
        has_ranking=len(np.unique(scores)) > 1,
    )


def instance_images(
    table: IntersectionTable,
    scores: Mapping[tuple[str, int], float],
    *,
    thing_classes: Collection[int],
    class_of: Sequence[int] | None = None,
    is_target: BoolArray | None = None,
    min_area_px: int = 0,
) -> Iterator[InstanceImage]:
    """The images of a table: predicted segments with an instance against true objects.

    Args:
        table: Predictions in pseudo-classes (before ``relabel_predictions``) or classes, instances as in the maps.
        scores: By image id and predicted instance, the higher the surer.
        thing_classes: Countable true classes; their regions without an instance are crowds, as is void.
        class_of: Class of each pseudo-class: a mask finds objects of its class only, and masks of no thing class are
            left out. Without it classes do not count.
        is_target: (R,) bool, the row's true segment is one of the objects to be found; by default every instance
            of a thing class. Others are background.
        min_area_px: Smaller objects need not be found, and masks on them count for nothing.

    Raises:
        DataError: A mask has no score, or one that is not finite.
    """
    predicted, true = predicted_segments(table), true_segments(table)
    is_thing = np.isin(true.class_id, list(thing_classes))
    is_crowd = (true.class_id == VOID) | (is_thing & (true.instance == 0)) | true.is_crowd
    targets = true_objects(table, thing_classes) if is_target is None else is_target
    is_object = (sum_by(true.of_row, targets, len(true.area)) > 0) & ~is_crowd
    is_ignored = is_crowd | (true.area < min_area_px)
    is_mask = (predicted.instance > 0) & (predicted.class_id < VOID)
    classes = np.full(len(predicted.area), ANY_CLASS, np.int64)
    object_classes = np.where(is_crowd, -1, ANY_CLASS)
    if class_of is not None:
        lookup = np.full(NO_PREDICTION + 1, VOID, np.int64)
        lookup[: len(class_of)] = class_of
        classes = lookup[predicted.class_id]
        is_mask &= np.isin(classes, list(thing_classes))
        object_classes = np.where(true.class_id == VOID, -1, true.class_id)
    masks, objects = np.flatnonzero(is_mask), np.flatnonzero(is_object | is_crowd)
    mask_scores = scores_of(table.image_ids, predicted.image[masks], predicted.instance[masks], scores)

    ours, theirs = predicted.of_row, true.of_row
    union = predicted.area[ours] + true.area[theirs] - table.n_pixels
    overlap = table.n_pixels / np.where(is_crowd[theirs], predicted.area[ours], union)
    # Position of each segment among the masks, or objects, of its image.
    position_of_mask, first_mask = _positions(masks, predicted.image, len(table.image_ids))
    position_of_object, first_object = _positions(objects, true.image, len(table.image_ids))
    row_ends = np.searchsorted(table.image, np.arange(len(table.image_ids) + 1))
    for index, image_id in enumerate(table.image_ids):
        rows = np.arange(row_ends[index], row_ends[index + 1])
        rows = rows[(position_of_mask[ours[rows]] >= 0) & (position_of_object[theirs[rows]] >= 0)]
        own_masks = slice(first_mask[index], first_mask[index + 1])
        own_objects = objects[first_object[index] : first_object[index + 1]]
        matrix = np.zeros((first_mask[index + 1] - first_mask[index], len(own_objects)))
        matrix[position_of_mask[ours[rows]], position_of_object[theirs[rows]]] = overlap[rows]
        yield InstanceImage(
            image_id=image_id,
            scores=mask_scores[own_masks],
            classes=classes[masks[own_masks]],
            object_classes=object_classes[own_objects],
            is_crowd=is_crowd[own_objects],
            is_ignored=is_ignored[own_objects],
            overlap=matrix,
        )


def instance_image_of_masks(
    image_id: str,
    masks: Sequence[Mapping[str, Any]],
    scores: npt.ArrayLike,
    objects: Sequence[Mapping[str, Any]],
    *,
    classes: npt.ArrayLike | None = None,
    object_classes: npt.ArrayLike | None = None,
    is_crowd: npt.ArrayLike | None = None,
) -> InstanceImage:
    """One image from run-length codes, for masks that may overlap each other.

    Args:
        image_id: Name of the image.
        masks: (D) codes as of ``pycocotools.mask.encode``: ``size`` (H, W) and ``counts``.
        scores: (D,), the higher the surer.
        objects: (G) codes of the true objects and crowds.
        classes: (D,) class of each mask; all the same by default.
        object_classes: (G,) class of each object; all the same by default, -1 for a crowd of every class.
        is_crowd: (G,) bool; none by default.

    Raises:
        ShapeError: The codes are of pictures of several sizes, or a list has another length than what it is of.
        DataError: A score is not finite.
    """
    from pycocotools import mask as codes

    sizes = {tuple(code["size"]) for code in [*masks, *objects]}
    if len(sizes) > 1:
        raise ShapeError(f"{image_id}: masks and objects must have one size (H, W). Got: {sorted(sizes)}")
    crowd = np.zeros(len(objects), np.bool_) if is_crowd is None else np.asarray(is_crowd, np.bool_)
    own = np.full(len(masks), ANY_CLASS) if classes is None else np.asarray(classes, np.int64)
    true = (
        np.full(len(objects), ANY_CLASS) if object_classes is None else np.asarray(object_classes, np.int64)
    )
    values = np.asarray(scores, np.float64)
    for name, array, n_entries in (
        ("scores", values, len(masks)),
        ("classes", own, len(masks)),
        ("object_classes", true, len(objects)),
        ("is_crowd", crowd, len(objects)),
    ):
        if array.shape != (n_entries,):
            raise ShapeError(f"{image_id}: {name} must have the shape ({n_entries},). Got: {array.shape}")
    if not np.isfinite(values).all():
        raise DataError(
            f"{image_id}: scores must be finite numbers. Got: {values[~np.isfinite(values)][0]:g}"
        )
    overlap = np.zeros((len(masks), len(objects)))
    if len(masks) and len(objects):
        overlap = np.asarray(codes.iou(list(masks), list(objects), crowd.astype(np.uint8).tolist()))
    return InstanceImage(image_id, values, own, true, crowd, crowd, overlap)


def equal_scores(table: IntersectionTable) -> dict[tuple[str, int], float]:
    """Score 1 for every predicted instance: AP is then the one of an arbitrary order, AR100 stays what it is."""
    predicted = predicted_segments(table)
    return {
        (table.image_ids[image], instance): 1.0
        for image, instance in zip(predicted.image.tolist(), predicted.instance.tolist())
        if instance > 0
    }


def _match(judge: Any, index: int, image: InstanceImage, class_id: int) -> dict[str, Any] | None:
    """The official matching of one image and class, without its detour over masks."""
    mine = np.flatnonzero(image.classes == class_id)
    mine = mine[np.argsort(-image.scores[mine], kind="stable")]
    theirs = np.flatnonzero(
        (image.object_classes == class_id) | (image.is_crowd & (image.object_classes == -1))
    )
    key = index, class_id
    # Ids count from 1, because 0 means unmatched; areas are all in range.
    judge._gts = {
        key: [
            {
                "id": number,
                "area": 1.0,
                "iscrowd": int(image.is_crowd[other]),
                "ignore": int(image.is_ignored[other]),
            }
            for number, other in enumerate(theirs, start=1)
        ]
    }
    judge._dts = {
        key: [
            {"id": number, "area": 1.0, "score": score}
            for number, score in enumerate(image.scores[mine].tolist(), start=1)
        ]
    }
    judge.ious = {key: image.overlap[np.ix_(mine, theirs)]}
    matched: dict[str, Any] | None = judge.evaluateImg(
        index, class_id, judge.params.areaRng[0], judge.params.maxDets[-1]
    )
    return matched


def _positions(chosen: IntArray, image: IntArray, n_images: int) -> tuple[IntArray, IntArray]:
    """(N,) place of each chosen segment in its image, -1 for others; (n_images + 1,) where images begin in them."""
    first = np.searchsorted(image[chosen], np.arange(n_images + 1))
    positions = np.full(len(image), -1, np.int64)
    positions[chosen] = np.arange(len(chosen)) - first[image[chosen]]
    return positions, first


def _mean(values: npt.NDArray[Any]) -> float:
    known = values[values > -1]
    return 100.0 * float(known.mean()) if len(known) else float("nan")
