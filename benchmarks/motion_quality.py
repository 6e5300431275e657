"""Precision and recall of moving-object masks on rendered streets, whose motion and depth are known exactly.

Renders streets (into a cache), measures them (`exact`: the truth itself; `classic`; `raft`), runs the motion method and
prints one JSON object: per seed and over the seeds precision, recall at IoU 0.5, mean IoU of the hits, recall per size
class and CPU seconds per frame. Two sets of objects are to be found: `moving`, all moving ones of at least 64 visible
pixels; `measurable`, those of them that show at least 0.65 m^2 and of whose pixels at least half have a consistent
measurement. A mask that lies mostly on another moving object is neither right nor wrong.
`--set motion.source=monocular` takes the optical flow of the left camera alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.rendered_streets import Place, Street, load_street
from gestalt.config.motion import MotionSettings
from gestalt.config.presets import compose_params, default_settings
from gestalt.errors import ConfigError, GestaltError
from gestalt.evaluation.instances import HIT_IOU, IGNORED_SHARE, InstanceQuality
from gestalt.matching.matcher import check_matcher, open_matcher
from gestalt.matching.measurement import Measurement, both_right_images
from gestalt.motion.monocular import find_monocular_objects
from gestalt.motion.object_filters import MONOCULAR
from gestalt.motion.proposals import camera_of, without_depth
from gestalt.motion.rigid_objects import RigidObjects, find_rigid_objects
from gestalt.runtime import choose_device, open_executor, progress, start

BoolArray = npt.NDArray[np.bool_]

EXACT, CLASSIC, RAFT = "exact", "classic", "raft"
# Least visible pixels of an object that is to be found, and where the size classes of the recall begin.
SIZE_CLASSES_PX = (64, 128, 256, 512, 1024, 4096)
# CUPS keeps no smaller surface (Hahn et al., CVPR 2025).
MIN_SURFACE_M2 = 0.65
MIN_MEASURED_SHARE = 0.5
DIGITS = 4


@dataclass(frozen=True)
class Trial:
    """What every street is measured and searched with.

    Attributes:
        measurement: ``exact``, ``classic`` or ``raft``.
        motion: Section ``motion``.
        device: Where tensors live.
        with_images: Whether the images sharpen and test the masks.
        cache_dir: Where rendered streets are kept.
    """

    measurement: str
    motion: MotionSettings
    device: str
    with_images: bool
    cache_dir: Path


@dataclass(frozen=True)
class TrueObject:
    """A visible moving object and how well it was found.

    Attributes:
        frame_id: Of its street.
        value: In the map of true instances: Cityscapes raw id * 1000 + number.
        area_px: Visible pixels.
        surface_m2: Of its pixels as if they faced the camera.
        measured_share: Share of its pixels with a consistent measurement; None where there was no ego-motion to
            compare with.
        ego_residual: Median deviation of those from the ego-motion, standard deviations; None without any.
        speed_m_s: Over ground.
        distance_m: From the camera.
        box: x0, y0, x1, y1; one past the last pixel.
        iou: Best IoU of a mask.
    """

    frame_id: str
    value: int
    area_px: int
    surface_m2: float
    measured_share: float | None
    ego_residual: float | None
    speed_m_s: float
    distance_m: float
    box: tuple[int, int, int, int]
    iou: float

    @property
    def is_hit(self) -> bool:
        """Whether a mask hits it."""
        return self.iou > HIT_IOU

    @property
    def is_measurable(self) -> bool:
        """Whether it belongs to the set of that name; without an ego-motion nothing excuses the method."""
        is_measured = self.measured_share is None or self.measured_share >= MIN_MEASURED_SHARE
        return self.is_counted and self.surface_m2 >= MIN_SURFACE_M2 and is_measured

    @property
    def is_counted(self) -> bool:
        """Whether it is large enough to be found."""
        return self.area_px >= SIZE_CLASSES_PX[0]


# The sets of objects that are to be found.
SETS: dict[str, Callable[[TrueObject], bool]] = {
    "moving": lambda item: item.is_counted,
    "measurable": lambda item: item.is_measurable,
}


@dataclass(frozen=True)
class FalseMask:
    """A mask that hits no object and is not ignored.

    Attributes:
        frame_id: Of its street.
        number: In the instance map.
        area_px: Pixels.
        box: x0, y0, x1, y1; one past the last pixel.
        depth_m: As proposed.
        speed_m_s: As proposed.
        covers: Pixels per true instance value (below 1000: raw id of stuff), most first.
    """

    frame_id: str
    number: int
    area_px: int
    box: tuple[int, int, int, int]
    depth_m: float
    speed_m_s: float
    covers: dict[int, int]


@dataclass(frozen=True)
class Judgement:
    """What was found in one street, against what is there.

    Attributes:
        objects: All visible moving objects.
        false_masks: Those that are wrong, by set of objects.
        reason: Why there is no mask at all, or empty.
        cpu_s: CPU seconds of the motion method.
        matching_cpu_s: CPU seconds of the matcher.
    """

    objects: list[TrueObject]
    false_masks: dict[str, list[FalseMask]]
    reason: str
    cpu_s: float
    matching_cpu_s: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.motion_quality", description=__doc__)
    parser.add_argument("--measurement", choices=(EXACT, CLASSIC, RAFT), default=EXACT)
    parser.add_argument("--weights", type=Path, help="folder of a network, for --measurement raft")
    parser.add_argument(
        "--motion",
        help="variant of the section `motion`; default: exact for exact measurements, else embedded",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="such as motion.runs=4, instead of the variant's",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13], help="(default: %(default)s)")
    parser.add_argument(
        "--scenes", type=at_least_one, default=14, help="streets per seed (default: %(default)s)"
    )
    parser.add_argument(
        "--batch", default="streets", help="with the seed it decides the streets (default: %(default)s)"
    )
    parser.add_argument("--height", type=int, help="rows, instead of scenes.height")
    parser.add_argument("--width", type=int, help="columns, instead of scenes.width")
    parser.add_argument(
        "--images",
        action=argparse.BooleanOptionalAction,
        help="whether the images sharpen and test the masks; default: with a matcher, not with exact measurements",
    )
    parser.add_argument("--misses", action="store_true", help="list every missed object and every false mask")
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache/rendered_streets"), help="(default: %(default)s)"
    )
    parser.add_argument("--workers", type=at_least_one, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    start()
    try:
        report = run(parser.parse_args(arguments))
    except GestaltError as error:
        print(f"benchmarks.motion_quality: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(report, indent=1))


def at_least_one(text: str) -> int:
    """A whole number above 0."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Got: {number}")
    return number


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Judge every street and sum up."""
    variant = arguments.motion or (EXACT if arguments.measurement == EXACT else "embedded")
    trial = Trial(
        arguments.measurement,
        motion_settings(arguments.measurement, variant, arguments.set, arguments.weights),
        arguments.device,
        arguments.measurement != EXACT if arguments.images is None else arguments.images,
        arguments.cache,
    )
    if trial.measurement != EXACT:
        check_matcher(trial.motion)
    choose_device(trial.device, key="--device")
    size = {"height": arguments.height, "width": arguments.width}
    scenes = default_settings("scenes", **{name: n for name, n in size.items() if n is not None})
    seeds = list(dict.fromkeys(arguments.seeds))
    places = [
        Place(seed, arguments.batch, index, scenes) for seed in seeds for index in range(arguments.scenes)
    ]
    with mapped(partial(judge_place, trial), places, arguments.workers) as results:
        judged = list(progress(results, label="motion quality", total=len(places)))
    by_seed = {
        seed: judged[number * arguments.scenes : (number + 1) * arguments.scenes]
        for number, seed in enumerate(seeds)
    }
    report = {
        "measurement": trial.measurement,
        "motion": variant,
        "set": arguments.set,
        "with_images": trial.with_images,
        "batch": arguments.batch,
        "n_frames": len(places),
        "over_seeds": over_seeds([summarise(own) for own in by_seed.values()]),
        "together": summarise(judged),
        "seeds": {str(seed): summarise(own) for seed, own in by_seed.items()},
    }
    return {**report, **(misses(judged) if arguments.misses else {})}


def motion_settings(
    measurement: str, variant: str, values: Sequence[str], weights: Path | None
) -> MotionSettings:
    """The section ``motion`` of a trial.

    Args:
        measurement: ``exact``, ``classic`` or ``raft``.
        variant: File under ``conf/motion``.
        values: Such as ``motion.runs=4``.
        weights: Folder of a network, instead of ``motion.raft.weights``.

    Raises:
        ConfigError: No such variant or key, a value that cannot work, or weights that nobody asked for.
    """
    if strangers := [value for value in values if not value.startswith("motion.")]:
        raise ConfigError(
            f"--set takes keys of the section motion, such as motion.runs=4. Got: {strangers[0]}"
        )
    if weights is not None and measurement != RAFT:
        raise ConfigError(f"--weights needs --measurement raft. Got: --measurement {measurement}")
    motion = compose_params([f"motion={variant}", *values]).motion
    if measurement != EXACT:
        motion = dataclasses.replace(motion, matcher=measurement)
    if weights is not None:
        motion = dataclasses.replace(motion, raft=dataclasses.replace(motion.raft, weights=str(weights)))
    return motion


@contextmanager
def mapped(judge: partial[Judgement], places: Sequence[Place], workers: int) -> Iterator[Iterable[Judgement]]:
    """The judgements of all places in order, made in this process or in several."""
    if workers == 1:
        yield map(judge, places)
        return
    with open_executor("local", workers) as executor:
        try:
            yield executor.map(judge, places)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def judge_place(trial: Trial, place: Place) -> Judgement:
    """Render or load one street, measure it, search it, compare."""
    street = load_street(place, trial.cache_dir)
    started = time.process_time()
    measurement = measure(street, trial)
    measured = time.process_time()
    found = search(street, measurement, trial, place)
    ended = time.process_time()
    return judge(place.frame_id, street, found, cpu_s=ended - measured, matching_cpu_s=measured - started)


def measure(street: Street, trial: Trial) -> Measurement:
    """Optical flow and disparities of a street: the truth, or what a matcher sees."""
    images = street.images
    if trial.motion.source == MONOCULAR:
        if trial.measurement == EXACT:
            exact = street.measurement()
            return without_depth(exact.optical_flow_forward, exact.optical_flow_backward)
        return without_depth(
            *open_matcher(trial.motion, trial.device).optical_flow(images.left, images.left_next)
        )
    if trial.measurement == EXACT:
        return street.measurement()
    return open_matcher(trial.motion, trial.device).measure(images)


def search(street: Street, measurement: Measurement, trial: Trial, place: Place) -> RigidObjects:
    """Run the motion method as the stage does, except that images can be hidden from it."""
    images = street.images
    camera = camera_of(images.intrinsics, images.stereo_baseline)
    if trial.motion.source == MONOCULAR:
        return find_monocular_objects(
            measurement.optical_flow_forward,
            measurement.optical_flow_backward,
            camera,
            trial.motion,
            seed=0,
            frame_id=place.frame_id,
            images=(images.left, images.left_next) if trial.with_images else None,
            device=choose_device(trial.device),
        )
    right, right_next = both_right_images(images)
    return find_rigid_objects(
        measurement,
        camera,
        trial.motion,
        seed=0,
        frame_id=place.frame_id,
        time_step_s=place.settings.time_step_s,
        images=(images.left, images.left_next, right_next, right) if trial.with_images else None,
        device=choose_device(trial.device),
    )


def judge(
    frame_id: str, street: Street, found: RigidObjects, *, cpu_s: float = 0.0, matching_cpu_s: float = 0.0
) -> Judgement:
    """Compare what was found in a street with what moves there."""
    masks = street.exact["instance_values"] == street.moving[:, None, None]
    overlaps = Overlaps.of(found.instance_map, masks)
    best = overlaps.iou.max(0, initial=0.0)
    objects = [
        describe_object(frame_id, street, found.ego_residual, number, mask, float(best[number]))
        for number, mask in enumerate(masks)
    ]
    return Judgement(
        objects,
        false_masks={
            name: [
                describe_false_mask(frame_id, street, found, number)
                for number in overlaps.false_masks(np.array([is_counted(item) for item in objects], np.bool_))
            ]
            for name, is_counted in SETS.items()
        },
        reason=found.reason,
        cpu_s=cpu_s,
        matching_cpu_s=matching_cpu_s,
    )


def describe_object(
    frame_id: str,
    street: Street,
    ego_residual: npt.NDArray[np.float32] | None,
    number: int,
    mask: BoolArray,
    iou: float,
) -> TrueObject:
    """The row of a moving object.

    Args:
        frame_id: Of its street.
        street: The street.
        ego_residual: (H, W) float32, NaN where unmeasured; None where there is no ego-motion.
        number: Its place among the moving objects.
        mask: (H, W) bool, its pixels.
        iou: Best IoU of a mask with it.
    """
    intrinsics, disparity = street.images.intrinsics, street.exact["disparity"][mask].astype(np.float64)
    depth = intrinsics[0, 0] * street.images.stereo_baseline / disparity[disparity > 0]
    residual = None if ego_residual is None else ego_residual[mask]
    known = None if residual is None else residual[np.isfinite(residual)]
    return TrueObject(
        frame_id,
        value=int(street.moving[number]),
        area_px=int(mask.sum()),
        surface_m2=float((depth**2).sum() / (intrinsics[0, 0] * intrinsics[1, 1])),
        measured_share=None if known is None else len(known) / int(mask.sum()),
        ego_residual=float(np.median(known)) if known is not None and len(known) else None,
        speed_m_s=float(street.speed_m_s[number]),
        distance_m=float(street.distance_m[number]),
        box=box_of(mask),
        iou=iou,
    )


def box_of(mask: BoolArray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of an (H, W) mask that is not empty; one past the last pixel."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Which mask lies on which object.

    Attributes:
        iou: (N, M) float64, of masks 1..N with the objects.
        share: (N, M) float64, of a mask's pixels that belong to an object.
    """

    iou: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]

    @classmethod
    def of(cls, instance_map: npt.NDArray[np.uint16], masks: BoolArray) -> Overlaps:
        """Overlaps of an (H, W) instance map with (M, H, W) disjoint objects."""
        area = np.bincount(instance_map.ravel(), minlength=1)[1:, None]
        shared = np.zeros((len(area), len(masks)))
        for number, mask in enumerate(masks):
            shared[:, number] = np.bincount(instance_map[mask], minlength=len(area) + 1)[1:]
        return cls(shared / np.maximum(area + masks.sum((1, 2)) - shared, 1), shared / np.maximum(area, 1))

    def false_masks(self, is_counted: BoolArray) -> list[int]:
        """Numbers, from 1, of the masks that are wrong when (M,) some objects are to be found.

        One that hits another object lies mostly on it, so it is ignored, too.
        """
        is_hit = (self.iou[:, is_counted] > HIT_IOU).any(1)
        is_ignored = (self.share[:, ~is_counted] > IGNORED_SHARE).any(1)
        numbers: list[int] = (np.flatnonzero(~is_hit & ~is_ignored) + 1).tolist()
        return numbers


def describe_false_mask(frame_id: str, street: Street, found: RigidObjects, number: int) -> FalseMask:
    """The row of a mask."""
    mask = found.instance_map == number
    covered = Counter(street.exact["instance_values"][mask].tolist())
    proposal = found.proposals[number - 1]
    return FalseMask(
        frame_id, number, int(mask.sum()), box_of(mask), proposal.depth_m, proposal.speed_m_s,
        {int(value): n_pixels for value, n_pixels in covered.most_common()},
    )  # fmt: skip


def summarise(judged: Sequence[Judgement]) -> dict[str, Any]:
    """The numbers of some streets together."""
    return {
        "n_frames": len(judged),
        **{name: quality(judged, name) for name in SETS},
        "cpu_s_per_frame": round(statistics.fmean(one.cpu_s for one in judged), DIGITS),
        "matching_cpu_s_per_frame": round(statistics.fmean(one.matching_cpu_s for one in judged), DIGITS),
        "frames_without_masks": dict(Counter(one.reason for one in judged if one.reason)),
    }


def quality(judged: Sequence[Judgement], name: str) -> dict[str, Any]:
    """Precision and recall of the masks for a set of objects, and its recall per size class.

    Args:
        judged: Streets.
        name: Of the set.
    """
    objects = [item for one in judged for item in one.objects if SETS[name](item)]
    n_false = sum(len(one.false_masks[name]) for one in judged)
    hits = [item.iou for item in objects if item.is_hit]
    n_masks = len(hits) + n_false
    found = InstanceQuality(
        precision=len(hits) / n_masks if n_masks else 0.0,
        recall=len(hits) / len(objects) if objects else 0.0,
        mean_iou=statistics.fmean(hits) if hits else 0.0,
        n_masks=n_masks,
        n_objects=len(objects),
        n_hits=len(hits),
    )
    classes = {}
    for low, high in pairwise((*SIZE_CLASSES_PX, math.inf)):
        inside = [item.is_hit for item in objects if low <= item.area_px < high]
        recall = round(statistics.fmean(inside), DIGITS) if inside else None
        classes[str(low)] = {"recall": recall, "n_hits": sum(inside), "n_objects": len(inside)}
    return {**_rounded(found.to_dict()), "recall_by_size_px": classes}


def over_seeds(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds (None for one seed alone)."""

    def spread(values: list[float]) -> dict[str, float | None]:
        deviation = round(statistics.stdev(values), DIGITS) if len(values) > 1 else None
        return {"mean": round(statistics.fmean(values), DIGITS), "spread": deviation}

    names = ("precision", "recall", "mean_iou")
    return {
        **{
            kind: {name: spread([summary[kind][name] for summary in summaries]) for name in names}
            for kind in SETS
        },
        "cpu_s_per_frame": spread([summary["cpu_s_per_frame"] for summary in summaries]),
    }


def misses(judged: Sequence[Judgement]) -> dict[str, Any]:
    """Every missed object and false mask of the set ``moving``, and which are so among the measurable ones."""
    missed = [
        {**_row(item), "is_measurable": item.is_measurable}
        for one in judged
        for item in one.objects
        if item.is_counted and not item.is_hit
    ]
    false_masks = [
        {**_row(mask), "is_wrong_among_measurable": mask in one.false_masks["measurable"]}
        for one in judged
        for mask in one.false_masks["moving"]
    ]
    return {"missed": missed, "false_masks": false_masks}


def _row(item: TrueObject | FalseMask) -> dict[str, Any]:
    return _rounded(dataclasses.asdict(item))


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, DIGITS) if isinstance(value, float) else value for name, value in values.items()
    }


if __name__ == "__main__":
    main()
