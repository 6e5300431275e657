"""Small random videos, and independent, slow implementations of STQ and VPQ: dictionaries over pixels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import product

import numpy as np
from hypothesis import strategies as st

from gestalt.evaluation.intersections import IntersectionTable, intersect, merge_tables
from gestalt.panoptic import VOID, PanopticMap
from tests.evaluation.maps import panoptic

CLASSES, THINGS = 5, (3, 4)
ROAD, CAR = 0, 3

# (prediction, truth) of each frame; no prediction where None.
Frames = list[tuple[PanopticMap | None, PanopticMap]]
Pixel = tuple[int, int]


def random_video(generator: np.random.Generator, n_frames: int, size: tuple[int, int] = (9, 11)) -> Frames:
    """Boxes that move and vanish, some void, some without an instance; predictions that are often right."""
    frames = [(np.full(size, VOID, np.uint8), np.zeros(size, np.uint16)) for _ in range(n_frames)]
    for number in range(1, 9):
        kind = VOID if generator.random() < 0.1 else int(generator.integers(CLASSES))
        instance = number if kind in THINGS and generator.random() < 0.8 else 0
        top, left = generator.integers(0, size[0] - 2), generator.integers(0, size[1] - 2)
        height, width = generator.integers(2, size[0]), generator.integers(2, size[1])
        for semantic, instances in frames:
            if generator.random() < 0.85:
                left = max(0, left + int(generator.integers(-1, 2)))
                semantic[top : top + height, left : left + width] = kind
                instances[top : top + height, left : left + width] = instance
    return [(_predict(generator, *frame), PanopticMap(*frame)) for frame in frames]


def _predict(
    generator: np.random.Generator, semantic: np.ndarray, instance: np.ndarray
) -> PanopticMap | None:
    if generator.random() < 0.08:
        return None
    semantic, instance = np.roll(semantic, 1, axis=1), np.roll(instance, 1, axis=1)
    for number in np.unique(instance):
        inside, luck = instance == number, generator.random()
        if luck < 0.1:
            instance[inside] = number + 20
        elif luck < 0.2:
            semantic[inside] = generator.choice([0, 3, 4, VOID])
        elif luck < 0.25:
            instance[inside] = 1
    is_countable = np.isin(semantic, THINGS)
    loose = is_countable & (instance == 0)
    instance[loose & (generator.random() < 0.5)] = 30
    return PanopticMap(semantic, np.where(is_countable, instance, 0).astype(np.uint16))


def row(semantic: list[int], instance: list[int]) -> PanopticMap:
    return panoptic([semantic], [instance])


def car_frame(number: int) -> PanopticMap:
    """Two pixels of a car, two of road."""
    return row([CAR, CAR, ROAD, ROAD], [number, number, 0, 0])


@st.composite
def video_sets(draw: st.DrawFn) -> dict[str, Frames]:
    """One to three videos of one to five frames."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    return {f"s{index}": random_video(generator, length) for index, length in enumerate(lengths)}


def video_table(
    videos: Mapping[str, Frames],
) -> tuple[IntersectionTable, dict[str, tuple[str, int]]]:
    """One table of all frames, and the sequence and number of each; numbers have gaps."""
    tables, sequence_of = [], {}
    for name, frames in videos.items():
        for number, (prediction, truth) in enumerate(frames):
            # Names sort otherwise than numbers, so an order by name would show.
            frame_id = f"{97 - number:02d}-{name}"
            sequence_of[frame_id] = (name, 5 * number)
            tables.append(intersect(frame_id, prediction, truth))
    return merge_tables(tables), sequence_of


def slow_stq(videos: Mapping[str, Frames], ignored: Collection[int] = ()) -> dict[str, float]:
    """STQ, AQ and SQ as fractions, pixel by pixel from the definition."""
    things = set(THINGS) - set(ignored)
    worth, n_tubes = 0.0, 0
    pixels: Counter[tuple[int, int]] = Counter()
    for frames in videos.values():
        true_area: Counter[Pixel] = Counter()
        predicted_area: Counter[Pixel] = Counter()
        shared: Counter[tuple[Pixel, Pixel]] = Counter()
        for prediction, truth in frames:
            for y, x in product(*map(range, truth.size)):
                true = int(truth.semantic_map[y, x]), int(truth.instance_map[y, x])
                ours = (VOID, 0)
                if prediction is not None:
                    ours = int(prediction.semantic_map[y, x]), int(prediction.instance_map[y, x])
                if true[0] != VOID and true[0] not in ignored:
                    pixels[true[0], VOID if ours[0] in ignored else ours[0]] += 1
                if true[0] in things and true[1] == 0:
                    continue
                true_area[true] += true[0] in things
                predicted_area[ours] += ours[0] in things
                shared[true, ours] += true[0] in things and ours[0] in things
        n_tubes += sum(area > 0 for area in true_area.values())
        for (true, ours), inter in shared.items():
            if inter:
                union = true_area[true] + predicted_area[ours] - inter
                worth += inter * (inter / union) / true_area[true]
    ious = []
    for class_id in range(VOID + 1):
        right = pixels[class_id, class_id]
        union = sum(count for pair, count in pixels.items() if class_id in pair)
        ious += [right / union] if union else []
    aq = worth / n_tubes if n_tubes else math.nan
    sq = sum(ious) / len(ious) if ious else math.nan
    return {"AQ": aq, "SQ": sq, "STQ": math.sqrt(aq * sq)}


def slow_vpq(videos: Mapping[str, Frames], n_frames: int, classes: Sequence[int]) -> float:
    """VPQ of one window length as a fraction: standard convention, thing regions without instance are crowds."""
    tp, fp, fn, iou_sum = Counter[int](), Counter[int](), Counter[int](), Counter[int]()
    for frames in videos.values():
        for start in range(len(frames) - n_frames + 1):
            theirs: Counter[Pixel] = Counter()
            ours: Counter[Pixel] = Counter()
            shared: Counter[tuple[Pixel, Pixel]] = Counter()
            for prediction, truth in frames[start : start + n_frames]:
                for y, x in product(*map(range, truth.size)):
                    true = int(truth.semantic_map[y, x]), int(truth.instance_map[y, x])
                    mine = (VOID, 0)
                    if prediction is not None:
                        mine = int(prediction.semantic_map[y, x]), int(prediction.instance_map[y, x])
                    theirs[true] += 1
                    ours[mine] += 1
                    shared[true, mine] += 1
            matched = set()
            for (true, mine), inter in shared.items():
                if true[0] != mine[0] or true[0] == VOID or (true[0] in THINGS and true[1] == 0):
                    continue
                iou = inter / (theirs[true] + ours[mine] - inter - shared[(VOID, 0), mine])
                if iou > 0.5:
                    matched |= {("theirs", *true), ("ours", *mine)}
                    tp[true[0]] += 1
                    iou_sum[true[0]] += iou  # type: ignore[assignment]
            for true in theirs:
                is_crowd = true[0] in THINGS and true[1] == 0
                fn[true[0]] += true[0] != VOID and not is_crowd and ("theirs", *true) not in matched
            for mine, area in ours.items():
                forgiven = shared[(VOID, 0), mine]
                forgiven += shared[(mine[0], 0), mine] if mine[0] in THINGS else 0
                is_false = mine[0] != VOID and ("ours", *mine) not in matched and forgiven / area <= 0.5
                fp[mine[0]] += is_false
    qualities = [
        iou_sum[index] / (tp[index] + 0.5 * fp[index] + 0.5 * fn[index])
        for index in classes
        if tp[index] + fp[index] + fn[index]
    ]
    return sum(qualities) / len(qualities) if qualities else math.nan
