"""One image of one side of an evaluation: how its pixels are read, and what it is called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gestalt.data.coco_files import CocoPanoptic
from gestalt.evaluation.coco import Naming, read_pixels
from gestalt.evaluation.image_pairs import ReadPixels

# What data sets and tools append to the name of an image.
FILE_ENDINGS = re.compile(r"(_(gtFine|leftImg8bit|panoptic|instanceIds|labelIds|gt_panoptic))+$")
# Ways that an image is called, tried in this order.
CALLED_BY = ("image id", "file name", "file name without endings")


@dataclass(frozen=True, eq=False)
class EvaluatedImage:
    """One image of a side.

    Attributes:
        read: Reads its pixels; picklable.
        names: How it is called, one name per entry of ``CALLED_BY``.
        sequence: Piece of video; empty for single images.
        number: Place in the sequence.
        image: The photo, where it is known.
    """

    read: ReadPixels
    names: tuple[str, str, str]
    sequence: str = ""
    number: int = 0
    image: Path | None = None


def bare_name(name: str) -> str:
    """``aachen_000000_000019_leftImg8bit`` and ``aachen_000000_000019_gtFine_panoptic`` are one image."""
    return FILE_ENDINGS.sub("", name)


def coco_images(content: CocoPanoptic, naming: Naming) -> dict[str, EvaluatedImage]:
    """The images of a COCO panoptic file, by image id."""
    return {
        image_id: EvaluatedImage(
            partial(read_pixels, image, naming),
            (image_id, image.picture.stem, bare_name(image.picture.stem)),
            image.sequence,
            image.number,
        )
        for image_id, image in content.images.items()
    }
