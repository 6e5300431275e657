"""Pseudo-classes for the eye: maps in colours, and a gallery of what each pseudo-class holds."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from gestalt.errors import ShapeError
from gestalt.panoptic import VOID

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

# Successive hues a golden section apart never come close; hue alone tells about ten colours apart, so strength and
# brightness take turns.
HUE_STEP, SATURATIONS, VALUES = 0.61803398875, (0.75, 0.5, 0.9), (0.95, 0.75, 0.55)
# Of a map laid over its image.
COLOUR_SHARE = 0.7
# A smaller segment, as a share of the image, is noise at a border.
MIN_SEGMENT_SHARE = 0.001
# Thumbnails: rows and columns, how much of the surroundings they show, and at least which share of the image's rows.
THUMBNAIL_SIZE, SURROUNDINGS, MIN_WINDOW_SHARE = (128, 192), 1.35, 0.3
# What is not the segment keeps this share of its light, in grey.
OUTSIDE_LIGHT = 0.6
# How far the outline reaches, and the white around it: sides of squares around the segment's pixels.
LINES_PX = (5, 7)
TYPICAL, LARGEST, UNCERTAIN = "typical", "largest", "uncertain"
KINDS = (TYPICAL, LARGEST, UNCERTAIN)


def class_colours(n_pseudo_classes: int) -> UInt8Array:
    """(256, 3) uint8 RGB: the colour of a pseudo-class, which depends on its number alone; the rest is black."""
    palette = np.zeros((256, 3), np.uint8)
    for number in range(n_pseudo_classes):
        saturation = SATURATIONS[number % len(SATURATIONS)]
        value = VALUES[number // len(SATURATIONS) % len(VALUES)]
        palette[number] = np.rint(
            255 * np.array(colorsys.hsv_to_rgb(number * HUE_STEP % 1, saturation, value))
        )
    return palette


def colour_classes(image: UInt8Array, semantic_map: UInt8Array, palette: UInt8Array) -> UInt8Array:
    """Colours of pseudo-classes over the image in grey.

    Args:
        image: (H, W, 3) uint8 RGB.
        semantic_map: (H, W) uint8; void stays grey.
        palette: (256, 3) uint8 RGB.

    Raises:
        ShapeError: Sizes differ.
    """
    if semantic_map.shape != image.shape[:2]:
        raise ShapeError(f"map and image must have one size. Got: {semantic_map.shape} and {image.shape[:2]}")
    grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    mixed = (1 - COLOUR_SHARE) * grey + COLOUR_SHARE * palette[semantic_map]
    return np.where((semantic_map == VOID)[..., None], grey, np.rint(mixed)).astype(np.uint8)


def most_probable(log_prob: Tensor) -> tuple[UInt8Array, FloatArray]:
    """(K, H, W) log-probabilities -> (H, W) uint8, the most probable pseudo-class, and (H, W) float32, how probable."""
    best = log_prob.max(0)
    return best.indices.cpu().numpy().astype(np.uint8), best.values.exp().float().cpu().numpy()


def split_into_segments(semantic_map: UInt8Array, pseudo_class: int) -> tuple[npt.NDArray[np.int32], int]:
    """(H, W) int32 with the 8-connected regions of a pseudo-class as 1..N, 0 elsewhere, and N."""
    found, regions = cv2.connectedComponents((semantic_map == pseudo_class).astype(np.uint8), connectivity=8)
    return np.asarray(regions, np.int32), found - 1


@dataclass(frozen=True, eq=False)
class Example:
    """A segment worth showing.

    Attributes:
        frame_id: Where it was found.
        confidence: Mean probability of its pseudo-class over its pixels.
        area_px: Pixels.
        thumbnail: (rows, columns, 3) uint8 RGB: the segment in its surroundings.
    """

    frame_id: str
    confidence: float
    area_px: int
    thumbnail: UInt8Array

    def worth(self, kind: str) -> float:
        """What decides among segments that could be shown as ``kind``; more is better."""
        return {TYPICAL: self.confidence, LARGEST: self.area_px, UNCERTAIN: -self.confidence}[kind]


@dataclass(eq=False)
class ClassGallery:
    """What one pseudo-class holds, over all frames that were added.

    Attributes:
        n_px: Its pixels.
        row_sum: Sum of their rows, in shares of the height.
        confidence_sum: Sum of their probabilities.
        n_segments: Its segments that are no noise.
        examples: The best of each kind, the best first, one per frame.
    """

    n_px: int = 0
    row_sum: float = 0.0
    confidence_sum: float = 0.0
    n_segments: int = 0
    examples: dict[str, list[Example]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    @property
    def mean_row(self) -> float:
        """Mean row of its pixels, a share of the height; NaN without pixels."""
        return self.row_sum / self.n_px if self.n_px else float("nan")

    @property
    def confidence(self) -> float:
        """Mean probability of its pixels; NaN without pixels."""
        return self.confidence_sum / self.n_px if self.n_px else float("nan")


class ClusterGallery:
    """Collects the most typical, largest and most uncertain segments of each pseudo-class, frame by frame.

    Memory depends on the number of pseudo-classes and examples only.

    Args:
        n_pseudo_classes: K.
        n_examples: Kept of each kind.
    """

    def __init__(self, n_pseudo_classes: int, n_examples: int) -> None:
        self.classes = [ClassGallery() for _ in range(n_pseudo_classes)]
        self.n_examples = n_examples
        self.n_frames = 0
        self._palette = class_colours(n_pseudo_classes)

    @property
    def n_px(self) -> int:
        """Pixels of all pseudo-classes."""
        return sum(entry.n_px for entry in self.classes)

    def add(self, frame_id: str, image: UInt8Array, semantic_map: UInt8Array, confidence: FloatArray) -> None:
        """Take note of a frame.

        Args:
            frame_id: Which frame.
            image: (H, W, 3) uint8 RGB.
            semantic_map: (H, W) uint8; what is no pseudo-class, such as void, is left out.
            confidence: (H, W) float32, probability of the pseudo-class.

        Raises:
            ShapeError: Sizes differ.
        """
        if not image.shape[:2] == semantic_map.shape == confidence.shape:
            raise ShapeError(
                "image, semantic_map and confidence must have one size. "
                f"Got: {image.shape[:2]}, {semantic_map.shape}, {confidence.shape}"
            )
        self.n_frames += 1
        rows = (np.arange(len(image)) + 0.5) / len(image)
        for number, entry in enumerate(self.classes):
            mask = semantic_map == number
            if not mask.any():
                continue
            entry.n_px += int(mask.sum())
            entry.row_sum += float((mask.sum(1) * rows).sum())
            entry.confidence_sum += float(confidence[mask].sum(dtype=np.float64))
            self._add_segments(number, frame_id, image, semantic_map, confidence)

    def _add_segments(
        self, number: int, frame_id: str, image: UInt8Array, semantic_map: UInt8Array, confidence: FloatArray
    ) -> None:
        entry = self.classes[number]
        regions, found = split_into_segments(semantic_map, number)
        areas = np.bincount(regions.ravel(), minlength=found + 1)
        sums = np.bincount(regions.ravel(), confidence.ravel(), minlength=found + 1)
        large = np.flatnonzero(areas >= MIN_SEGMENT_SHARE * regions.size)
        large = large[large > 0]
        entry.n_segments += len(large)
        if not len(large):
            return
        means = sums[large] / areas[large]
        worths = {TYPICAL: means, LARGEST: areas[large], UNCERTAIN: -means}
        for kind, worth in worths.items():
            best = int(large[worth.argmax()])
            kept = entry.examples[kind]
            if len(kept) == self.n_examples and kept[-1].worth(kind) >= float(worth.max()):
                continue
            thumbnail = draw_segment(image, regions == best, self._palette[number])
            example = Example(frame_id, float(sums[best] / areas[best]), int(areas[best]), thumbnail)
            kept.append(example)
            kept.sort(key=lambda one: -one.worth(kind))
            del kept[self.n_examples :]


def draw_segment(image: UInt8Array, mask: BoolArray, colour: UInt8Array) -> UInt8Array:
    """A segment in its surroundings, outlined; what is around it is dark and grey.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, not empty.
        colour: (3,) uint8 RGB of the outline.

    Returns:
        (*THUMBNAIL_SIZE, 3) uint8 RGB.
    """
    rows, columns = _window(mask)
    part, inside = image[rows, columns], mask[rows, columns].astype(np.uint8)
    height, width = THUMBNAIL_SIZE
    shrinks = part.shape[0] > height
    shown = np.asarray(
        cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC),
        np.uint8,
    )
    inside = np.asarray(cv2.resize(inside, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
    grey = np.repeat(cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    shown = np.where(inside[..., None] > 0, shown, (OUTSIDE_LIGHT * grey).astype(np.uint8))
    # Lines lie around the segment, so that they hide nothing of a thin one; white keeps dark colours visible.
    coloured, white = (cv2.dilate(inside, np.ones((side, side), np.uint8)) > 0 for side in LINES_PX)
    shown[white & ~coloured] = 255
    shown[coloured & (inside == 0)] = colour
    return shown


def _window(mask: BoolArray) -> tuple[slice, slice]:
    """Where a thumbnail is cut: around the segment, with the aspect of thumbnails, inside the image if it fits."""
    height, width = mask.shape
    own_rows, own_columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    aspect = THUMBNAIL_SIZE[1] / THUMBNAIL_SIZE[0]
    wanted = max(
        SURROUNDINGS * (own_rows[-1] - own_rows[0] + 1),
        SURROUNDINGS * (own_columns[-1] - own_columns[0] + 1) / aspect,
        MIN_WINDOW_SHARE * height,
    )
    rows = min(round(wanted), height, int(width / aspect)) or 1
    columns = min(round(rows * aspect), width)
    top = int(np.clip((own_rows[0] + own_rows[-1] + 1 - rows) // 2, 0, height - rows))
    left = int(np.clip((own_columns[0] + own_columns[-1] + 1 - columns) // 2, 0, width - columns))
    return slice(top, top + rows), slice(left, left + columns)
