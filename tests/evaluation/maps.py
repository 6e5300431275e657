"""Small panoptic maps, and an independent, slow implementation of panoptic quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gestalt.data.images import write_png
from gestalt.data.sharded_run import FrameResult, run_sharded
from gestalt.data.shards import ShardFolder
from gestalt.panoptic import VOID, PanopticMap

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_samples = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real samples (../shared/data beside the checkout) are not here"
)


def panoptic(semantic: Any, instance: Any = None) -> PanopticMap:
    semantic = np.asarray(semantic, np.uint8)
    instance = np.zeros_like(semantic) if instance is None else instance
    return PanopticMap(semantic, np.asarray(instance, np.uint16))


def random_map(
    generator: np.random.Generator,
    *,
    size: tuple[int, int] = (24, 32),
    n_classes: int = 5,
    things: Sequence[int] = (3, 4),
    void_share: float = 0.15,
    n_segments: int = 14,
) -> PanopticMap:
    """Random rectangles painted over each other; instances are unique in the image."""
    semantic = np.full(size, VOID if void_share else 0, np.uint8)
    instance = np.zeros(size, np.uint16)
    for number in range(1, n_segments + 1):
        top, left = generator.integers(0, size[0] - 2), generator.integers(0, size[1] - 2)
        bottom, right = top + generator.integers(2, size[0]), left + generator.integers(2, size[1])
        kind = VOID if generator.random() < void_share else int(generator.integers(n_classes))
        semantic[top:bottom, left:right] = kind
        instance[top:bottom, left:right] = number if kind in things else 0
    return PanopticMap(semantic, instance)


def shifted(truth: PanopticMap, generator: np.random.Generator, *, n_classes: int = 5) -> PanopticMap:
    """A prediction that is sometimes right: the truth moved by a pixel, with some segments changed."""
    semantic = np.roll(truth.semantic_map, 1, axis=1)
    instance = np.roll(truth.instance_map, 1, axis=1)
    for number in np.unique(instance):
        if generator.random() < 0.3:
            inside = instance == number
            semantic[inside] = VOID if generator.random() < 0.5 else int(generator.integers(n_classes))
    instance[semantic == VOID] = 0
    return PanopticMap(semantic, instance)


def slow_quality(
    pairs: Sequence[tuple[PanopticMap, PanopticMap]],
    n_classes: int,
    things: Sequence[int],
    *,
    is_standard: bool,
    groups_are_crowds: bool = False,
) -> tuple[list[int], list[int], list[int], list[float]]:
    """TP, FP, FN and IoU sum per class, written as loops over masks from the definition.

    Args:
        pairs: (prediction, truth), both in classes.
        n_classes: Number of classes.
        things: Countable classes.
        is_standard: The official rule; otherwise predicted void is neutral.
        groups_are_crowds: Thing truth without instance is a crowd.
    """
    tp, fp, fn, iou_sum = [0] * n_classes, [0] * n_classes, [0] * n_classes, [0.0] * n_classes
    for prediction, truth in pairs:
        ours, theirs = _masks(prediction, things), _masks(truth, things)
        predicted_void = prediction.semantic_map == VOID
        true_void = truth.semantic_map == VOID
        hit_ours, hit_theirs = set(), set()
        for key, mask in ours.items():
            for other, other_mask in theirs.items():
                is_crowd = groups_are_crowds and other[0] in things and other[1] == 0
                if key[0] != other[0] or is_crowd:
                    continue
                a, b = mask & ~true_void, other_mask if is_standard else other_mask & ~predicted_void
                inter = int((mask & other_mask).sum())
                union = int(a.sum()) + int(b.sum()) - inter
                if union and inter / union > 0.5:
                    hit_ours.add(key)
                    hit_theirs.add(other)
                    tp[key[0]] += 1
                    iou_sum[key[0]] += inter / union
        for key, mask in ours.items():
            forgiven = true_void.copy()
            if groups_are_crowds and key[0] in things and (key[0], 0) in theirs:
                forgiven |= theirs[key[0], 0]
            if key not in hit_ours and (mask & forgiven).sum() <= 0.5 * mask.sum():
                fp[key[0]] += 1
        for key, mask in theirs.items():
            if groups_are_crowds and key[0] in things and key[1] == 0:
                continue
            forgiven_share = 0.0 if is_standard else (mask & predicted_void).sum() / mask.sum()
            if key not in hit_theirs and forgiven_share <= 0.5:
                fn[key[0]] += 1
    return tp, fp, fn, iou_sum


def _masks(panoptic_map: PanopticMap, things: Sequence[int]) -> dict[tuple[int, int], Any]:
    masks = {}
    for class_id in np.unique(panoptic_map.semantic_map):
        inside = panoptic_map.semantic_map == class_id
        if class_id == VOID:
            continue
        if class_id not in things:
            masks[int(class_id), 0] = inside
            continue
        for number in np.unique(panoptic_map.instance_map[inside]):
            masks[int(class_id), int(number)] = inside & (panoptic_map.instance_map == number)
    return masks


@dataclass(frozen=True)
class Item:
    """A frame to write."""

    frame_id: str


def write_maps(folder: Path, frames: Mapping[str, Mapping[str, Any] | None]) -> ShardFolder:
    """A shard folder with these maps; None writes a failed frame."""

    def process(item: Item) -> FrameResult:
        maps = frames[item.frame_id]
        if maps is None:
            return FrameResult(item.frame_id, "failed", "broken")
        return FrameResult(item.frame_id, maps={name: np.asarray(array) for name, array in maps.items()})

    run_sharded(
        [Item(frame_id) for frame_id in frames],
        process,
        out_dir=folder,
        cache_dir=folder.parent.parent / "cache",
        key={},
        shard_size=2,
        open_executor=None,
        max_failed_share=1.0,
        label="maps",
    )
    return ShardFolder(folder)


def maps_of(panoptic_map: PanopticMap) -> dict[str, Any]:
    return {"semantic": panoptic_map.semantic_map, "instance": panoptic_map.instance_map}


def write_cityscapes_truth(folder: Path, values: Mapping[str, Any]) -> None:
    """A benchmark in Cityscapes form: instance-id maps by frame id."""
    for frame_id, array in values.items():
        city = frame_id.split("_")[0]
        path = folder / "gtFine" / "val" / city / f"{frame_id}_gtFine_instanceIds.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, np.asarray(array, np.uint16))
    (folder / "source.yaml").write_text("adapter: cityscapes\nroot: .\n", encoding="utf-8")
