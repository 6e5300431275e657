"""Categories of COCO files as classes: by id, by name, or as classes of their own."""

from __future__ import annotations

import colorsys
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence

from gestalt.data.coco_files import CocoCategory
from gestalt.data.label_spaces import raw_classes, raw_id_table
from gestalt.errors import name_some
from gestalt.evaluation.panoptic_quality import STANDARD, VOID_NEUTRAL
from gestalt.evaluation.protocols import HASH_LENGTH, Protocol
from gestalt.panoptic import VOID, LabelClass, LabelSpace

# Hue steps of categories without a colour of their own.
GOLDEN_ANGLE = 137.508


def classes_of_categories(
    categories: Sequence[CocoCategory], dataset: str, space: LabelSpace
) -> tuple[dict[int, int], str] | None:
    """The class of each category, and by what it is known; None where they are not classes of the data set.

    Args:
        categories: Of a COCO file.
        dataset: Whose raw ids they may be.
        space: The classes.
    """
    names = {entry.raw_id: entry.name for entry in raw_classes(dataset)}
    table = raw_id_table(dataset, space.name)
    by_name = {plain_name(name): int(table[raw_id]) for raw_id, name in names.items()}
    by_name |= {plain_name(entry.name): entry.id for entry in space.classes}
    by_id = {raw_id: int(table[raw_id]) for raw_id in names}
    return known_classes_of(categories, names, by_id, by_name, f"their ids, those of {dataset}")


def known_classes_of(
    categories: Sequence[CocoCategory],
    names: Mapping[int, str],
    by_id: Mapping[int, int],
    by_name: Mapping[str, int],
    how: str,
) -> tuple[dict[int, int], str] | None:
    """The class of each category: by id where no name contradicts, else by name; None where neither fits.

    Args:
        categories: Of a COCO file; those that are void become 255 whatever they are called.
        names: Id -> name of the known ones.
        by_id: Id -> class.
        by_name: ``plain_name`` -> class.
        how: What is said where ids fit.
    """
    void = {entry.id: VOID for entry in categories if entry.is_void}
    classes = [entry for entry in categories if not entry.is_void]
    if all(
        entry.id in names and plain_name(entry.name) in (plain_name(names[entry.id]), str(entry.id))
        for entry in classes
    ):
        return {entry.id: by_id[entry.id] for entry in classes} | void, how
    if all(plain_name(entry.name) in by_name for entry in classes):
        return {entry.id: by_name[plain_name(entry.name)] for entry in classes} | void, "their names"
    return None


def plain_name(name: str) -> str:
    """``Traffic-Light`` and ``traffic_light`` are one name."""
    return name.lower().replace("-", " ").replace("_", " ")


def name_categories(categories: Collection[CocoCategory]) -> str:
    """The first categories with id and name, for a message."""
    return name_some([f"{entry.id} {entry.name}" for entry in categories])


def category_space(categories: Sequence[CocoCategory]) -> LabelSpace:
    """Categories as a label space; their place in the list is their id."""
    colours = [
        colorsys.hsv_to_rgb(GOLDEN_ANGLE * place / 360 % 1, 0.65, 0.95 if place % 2 else 0.7)
        for place in range(len(categories))
    ]
    return LabelSpace(
        "categories",
        tuple(
            LabelClass(
                place,
                category.name,
                category.is_thing,
                (round(255 * colour[0]), round(255 * colour[1]), round(255 * colour[2])),
            )
            for place, (category, colour) in enumerate(zip(categories, colours, strict=True))
        ),
    )


def coco_protocol(categories: Sequence[CocoCategory]) -> Protocol:
    """The official rules of the panoptic API for the categories of a file; its hash depends on them."""
    listed = [[category.id, category.name, category.is_thing] for category in categories]
    digest = hashlib.sha256(json.dumps(listed).encode("utf-8")).hexdigest()[:HASH_LENGTH]
    return Protocol(
        name="panoptic_api",
        meaning="categories of the ground truth's file, rules of the official panoptic API",
        dataset="coco_panoptic",
        split="the images of the ground truth's file",
        n_images=None,
        rendered=False,
        image_size=None,
        short_side_px=None,
        crop=None,
        label_space=f"categories {digest}",
        ignored_classes=(),
        matching="apart",
        left_over="largest",
        conventions=(STANDARD, VOID_NEUTRAL),
        group_regions={STANDARD: "crowd", VOID_NEUTRAL: "segment"},
        min_object_px=0,
        min_stuff_px=0,
        unit="image",
    )
