"""The ground truth of an evaluation: a COCO panoptic file, or frames of an adapter.

Without a protocol the categories of the file are the classes, and the rules are those of the official panoptic API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gestalt.data.coco_files import CocoCategory, CocoPanoptic
from gestalt.data.label_spaces import load_label_space, raw_classes, raw_id_table
from gestalt.data.records import GroundTruthFrame
from gestalt.errors import DataError, name_some
from gestalt.evaluation.categories import (
    category_space,
    classes_of_categories,
    coco_protocol,
    name_categories,
)
from gestalt.evaluation.coco import Naming, listed_categories, places_of_categories
from gestalt.evaluation.evaluated_images import EvaluatedImage, bare_name, coco_images
from gestalt.evaluation.image_pairs import Named, Pixels
from gestalt.evaluation.intersections import IntArray
from gestalt.evaluation.protocols import Protocol
from gestalt.panoptic import VOID, LabelSpace


@dataclass(frozen=True, eq=False)
class TruthSide:
    """The ground truth of an evaluation.

    Attributes:
        images: By image id.
        protocol: What the numbers mean.
        space: The classes.
        categories: Those of a COCO file, empty for frames.
        by_category: The class of each category, 255 for void.
        is_as_listed: Segments count as the files list them, by the rules of the panoptic API.
        notes: How the files were understood, for people.
    """

    images: Mapping[str, EvaluatedImage]
    protocol: Protocol
    space: LabelSpace
    categories: tuple[CocoCategory, ...] = ()
    by_category: Mapping[int, int] | None = None
    is_as_listed: bool = False
    notes: tuple[str, ...] = ()


def coco_truth(content: CocoPanoptic, protocol: Protocol | None, *, is_video: bool = False) -> TruthSide:
    """Ground truth in COCO panoptic form.

    Args:
        content: The JSON file and its folder.
        protocol: Whose classes the categories are; without one they are classes themselves.
        is_video: Ids last over frames.

    Raises:
        DataError: There is no image or no category, or a category is no class of the protocol's data set.
    """
    classes, categories = listed_categories(content), content.categories
    if not content.images:
        raise DataError(f"{content.path} annotates no image; there is nothing to evaluate")
    if protocol is None:
        by_category = places_of_categories(content)
        naming = Naming(
            by_category,
            frozenset(category.id for category in classes),
            crowd_is_flag=True,
            by_place=not is_video,
            origin=content.path,
        )
        notes = (
            f"no protocol: the {len(classes)} categories of {content.path.name} are the classes, rules of the "
            "official panoptic API",
        )
        return TruthSide(
            coco_images(content, naming),
            coco_protocol(classes),
            category_space(classes),
            categories,
            by_category,
            is_as_listed=True,
            notes=notes,
        )
    space = load_label_space(protocol.label_space)
    found = classes_of_categories(categories, protocol.dataset, space)
    if found is None:
        raise DataError(
            f"{content.path}: the categories must be those of {protocol.dataset}, by id or by name, for protocol "
            f"{protocol.name}. Got: {name_categories(categories)}; leave --protocol out to evaluate the "
            "categories as they are"
        )
    by_category, how = found
    naming = Naming(
        by_category,
        frozenset(key for key, class_id in by_category.items() if class_id in space.thing_ids),
        crowd_is_flag=False,
        by_place=False,
        origin=content.path,
    )
    void = [category.name for category in categories if by_category[category.id] == VOID]
    notes = (f"ground truth: categories known by {how}" + (f"; void: {', '.join(void)}" if void else ""),)
    return TruthSide(coco_images(content, naming), protocol, space, categories, by_category, notes=notes)


def frame_truth(frames: Iterable[GroundTruthFrame], protocol: Protocol, dataset: str) -> TruthSide:
    """Ground truth that an adapter found.

    Args:
        frames: What it found.
        protocol: What the numbers mean.
        dataset: Whose raw ids the frames use.
    """
    images = {
        frame.frame_id: EvaluatedImage(
            partial(read_frame, frame, protocol.label_space, dataset),
            (frame.frame_id, frame.image.stem, bare_name(frame.frame_id)),
            frame.sequence,
            frame.number,
            frame.image,
        )
        for frame in frames
    }
    note = f"ground truth: {len(images)} frames with the ids of {dataset}"
    return TruthSide(images, protocol, load_label_space(protocol.label_space), notes=(note,))


def check_sequences(truth: TruthSide) -> None:
    """Raise where images belong to no piece of video.

    Raises:
        DataError: Some do not.
    """
    single = sorted(image_id for image_id, image in truth.images.items() if not image.sequence)
    if single:
        raise DataError(
            f"{len(single)} of {len(truth.images)} images belong to no sequence, so nothing can be said about them "
            f"over time. Got: {name_some(single)}; give the ground truth in a form that names sequences: in COCO "
            "panoptic JSON, `sequence` and `number` of every entry of `images`"
        )


def read_frame(frame: GroundTruthFrame, label_space: str, dataset: str) -> Pixels:
    """Raw ids of an annotation with what they are in a label space.

    Raises:
        DataError: The annotation is missing or broken; ``name_rows`` raises where an id is none of the data set's.
    """
    raw = frame.read()
    name_rows = partial(_name_raw, label_space, dataset)
    return Pixels((raw.semantic_map, raw.instance_map), name_rows, str(frame.annotation))


def _name_raw(label_space: str, dataset: str, values: Sequence[IntArray], n_pixels: IntArray) -> Named:
    raw, instance = values
    known = np.array([*(entry.raw_id for entry in raw_classes(dataset)), VOID])
    if strangers := sorted(set(raw[~np.isin(raw, known)].tolist())):
        raise DataError(
            f"the ids must be those of {dataset}. Got: {name_some(strangers)}; where another data set was annotated "
            "with ids of its own, say whose they are with the option raw_ids of the adapter"
        )
    class_id = raw_id_table(dataset, label_space)[raw].astype(np.int64)
    is_thing = np.isin(class_id, load_label_space(label_space).thing_ids)
    return class_id, np.where(is_thing, instance, 0), np.zeros(len(raw), np.bool_)
