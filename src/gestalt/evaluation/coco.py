"""COCO panoptic files (JSON and PNG) into intersection tables, for predictions of any tool.

Segments of a category are kept as they are listed; nothing is merged. Everything that the JSON says about a
picture is checked against the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gestalt.data.coco_files import CocoAnnotation, CocoCategory, CocoPanoptic, read_colours
from gestalt.errors import DataError, name_some
from gestalt.evaluation.image_pairs import ImagePair, Named, Pixels, intersect_pairs
from gestalt.evaluation.intersections import IntArray, IntersectionTable
from gestalt.panoptic import VOID


@dataclass(frozen=True, eq=False)
class Naming:
    """What the segments of a file become in a table.

    Attributes:
        class_of: Category -> class or output, 255 for void.
        separate: Categories whose segments stay apart; those of the others become one per image and category.
        crowd_is_flag: Crowds are marked as such and stay apart; otherwise their pixels are of no instance.
        by_place: Instances are positions in ``segments_info``, from 1: where an image has several crowds of a
            category, the last one forgives. Otherwise they are ids, which last over the frames of a video.
        origin: The JSON file.
    """

    class_of: Mapping[int, int]
    separate: frozenset[int]
    crowd_is_flag: bool
    by_place: bool
    origin: Path


def intersect_coco(truth: CocoPanoptic, predictions: CocoPanoptic, *, workers: int = 1) -> IntersectionTable:
    """One table of all images of the ground truth, by the rules of the official panoptic API.

    Classes are the places of ``listed_categories``; no segments are merged. An image without prediction counts as
    missed, a prediction without ground truth for nothing.

    Raises:
        DataError: No category or no image, a picture is missing or unreadable, JSON and picture disagree, or
            a prediction uses a category that the ground truth does not list; sizes differ.
    """
    class_of = places_of_categories(truth)
    if not truth.images:
        raise DataError(f"{truth.path} annotates no image")
    everything = frozenset(key for key, class_id in class_of.items() if class_id != VOID)
    true_naming = Naming(class_of, everything, True, True, truth.path)
    naming = Naming(class_of, everything, False, True, predictions.path)
    pairs = [
        ImagePair(
            image_id,
            partial(read_pixels, image, true_naming),
            partial(read_pixels, predictions.images[image_id], naming)
            if image_id in predictions.images
            else None,
        )
        for image_id, image in truth.images.items()
    ]
    return intersect_pairs(pairs, workers=workers, label=predictions.path.name)


def listed_categories(content: CocoPanoptic) -> tuple[CocoCategory, ...]:
    """The categories of a file that has to list them, without those that are void.

    Raises:
        DataError: It lists none, or more than there are class ids.
    """
    classes = tuple(category for category in content.categories if not category.is_void)
    if not 0 < len(classes) <= VOID:
        raise DataError(
            f"{content.path} lists {len(classes) or 'no'} categories; 1..{VOID} with id, name and isthing must stand "
            "in it"
        )
    return classes


def places_of_categories(content: CocoPanoptic) -> dict[int, int]:
    """The place of each category in ``listed_categories``, 255 for those that are void.

    Raises:
        DataError: As for ``listed_categories``.
    """
    places = {category.id: place for place, category in enumerate(listed_categories(content))}
    return {category.id: places.get(category.id, VOID) for category in content.categories}


def picture_folder(path: Path) -> Path:
    """Where the pictures of a JSON file are: the folder named as the file, or the one that the file lies in."""
    named = path.with_suffix("")
    return named if named.is_dir() else path.parent


def read_pixels(image: CocoAnnotation, naming: Naming) -> Pixels:
    """A picture with what the JSON file says about it.

    Raises:
        DataError: As for ``read_colours``; ``name_rows`` of what comes out raises where picture and file disagree.
    """
    return Pixels((read_colours(image.picture),), partial(name_rows, image, naming), str(image.picture))


def names_without(first: CocoPanoptic, second: CocoPanoptic) -> list[str]:
    """Image ids of ``first`` that ``second`` lacks, sorted."""
    return sorted(set(first.images) - set(second.images))


def name_rows(image: CocoAnnotation, naming: Naming, values: Sequence[IntArray], n_pixels: IntArray) -> Named:
    """Class, instance and crowd flag of each row, after checking the picture against the JSON file."""
    present, row_value = np.unique(values[0], return_inverse=True)
    areas = dict(zip(present.tolist(), np.bincount(row_value, weights=n_pixels).astype(int).tolist()))
    areas.pop(0, None)
    listed = {segment.id: (position, segment) for position, segment in enumerate(image.segments, start=1)}
    where = f"{naming.origin}, image {image.image_id}, picture {image.picture}"
    if len(listed) != len(image.segments):
        raise DataError(f"{where}: a segment id is listed twice in segments_info")
    if unlisted := sorted(set(areas) - set(listed)):
        raise DataError(f"{where}: ids {name_some(unlisted)} are in the picture but not in segments_info")
    if absent := sorted(set(listed) - set(areas)):
        raise DataError(
            f"{where}: ids {name_some(absent)} are in segments_info but have no pixel in the picture"
        )
    columns = np.zeros((len(present), 3), np.int64)
    columns[:, 0] = VOID
    for row, value in enumerate(present.tolist()):
        if value == 0:
            continue
        position, segment = listed[value]
        if segment.category_id not in naming.class_of:
            raise DataError(
                f"{where}: segment {value} has category {segment.category_id}, which is none of "
                f"{name_some(sorted(naming.class_of))}"
            )
        if segment.area is not None and segment.area != areas[value]:
            raise DataError(
                f"{where}: segment {value} should have {segment.area} pixels. Got: {areas[value]}; the "
                "picture and the JSON file do not belong together"
            )
        is_apart = segment.category_id in naming.separate and (naming.crowd_is_flag or not segment.is_crowd)
        instance = position if naming.by_place else segment.id
        class_id = naming.class_of[segment.category_id]
        is_crowd = segment.is_crowd and naming.crowd_is_flag and class_id != VOID
        columns[row] = class_id, instance if is_apart else 0, is_crowd
    of_row = columns[row_value]
    return of_row[:, 0], of_row[:, 1], of_row[:, 2].astype(np.bool_)
