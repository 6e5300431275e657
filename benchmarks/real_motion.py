"""The motion stage on real stereo video: a strip per pair, and a table of numbers.

Reads every data set below a folder whose layout an adapter knows. Prints Markdown tables: what was found in
each pair, and, where truth exists, errors of the matcher (KITTI 2015 optical flow and disparity), of the
ego-motion (poses of KITTI odometry), and of proposals (moving cars of KITTI 2015, instances of MOTS).
Writes strips, a contact sheet, with --sheets whole sheets, and `numbers.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.motion_truth import (
    MatchingError,
    annotated_instances,
    disparity_error,
    ego_motion_error,
    find_annotations,
    moving_cars,
    optical_flow_error,
)
from benchmarks.real_video import Video, find_deliveries, open_video, unread_folders
from gestalt.config.frames import FrameSettings
from gestalt.config.motion import MotionSettings
from gestalt.config.presets import default_settings
from gestalt.data.atomic_files import write_bytes
from gestalt.data.frames import load_stereo
from gestalt.data.images import write_png
from gestalt.data.records import StereoFrame, safe_id
from gestalt.errors import DataError, GestaltError
from gestalt.evaluation.instances import instance_quality
from gestalt.evaluation.intersections import IntersectionTable, merge_tables
from gestalt.matching.matcher import open_matcher
from gestalt.motion.examined import Examined, describe_outcome
from gestalt.motion.page import draw_page
from gestalt.motion.picture import compose_sheet, compose_strip
from gestalt.motion.proposals import MONOCULAR, FrameProposer
from gestalt.runtime import limit_threads, progress

CONTACT_WIDTH_PX = 1600


@dataclass(frozen=True)
class Setup:
    """What every frame is measured with."""

    motion: MotionSettings
    frames: FrameSettings
    seed: int
    device: str


@dataclass(frozen=True, eq=False)
class PairResult:
    """What was made of one pair, and how wrong it is where truth exists."""

    name: str
    measured_by: str
    outcome: str
    reliable_share: float
    noise: tuple[float, ...]
    n_proposals: int
    seconds: float
    optical_flow: MatchingError | None = None
    disparity: MatchingError | None = None
    ego_motion: tuple[float, float] | None = None
    cars: IntersectionTable | None = field(default=None, repr=False)
    instances: IntersectionTable | None = field(default=None, repr=False)

    def numbers(self) -> dict[str, Any]:
        """For JSON, without the tables that are summed over frames."""
        skipped = {"cars", "instances"}
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return {
            name: dataclasses.asdict(value) if isinstance(value, MatchingError) else value
            for name, value in values.items()
            if name not in skipped
        }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_motion", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder that holds data sets, at any depth")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--frames", default="real_sample", help="variant of the section `frames`")
    parser.add_argument("--motion", default="embedded", help="variant of the section `motion`")
    parser.add_argument("--matcher", help="motion.matcher, instead of the variant's")
    parser.add_argument("--weights", help="motion.raft.weights, instead of the variant's")
    parser.add_argument("--source", help="motion.source, instead of the variant's")
    parser.add_argument("--sheets", action="store_true", help="also draw the whole sheet of every pair")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="numeric threads")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    try:
        report(arguments)
    except GestaltError as error:
        print(f"benchmarks.real_motion: {error}", file=sys.stderr)
        sys.exit(1)


def report(arguments: argparse.Namespace) -> None:
    """Measure everything, write the pictures, print the tables."""
    if not arguments.folder.is_dir():
        raise DataError(f"{arguments.folder} is no folder; name one that holds data sets")
    setup = Setup(
        _motion(arguments), default_settings("frames", arguments.frames), arguments.seed, arguments.device
    )
    deliveries = list(find_deliveries(arguments.folder))
    checks = default_settings("manifest")
    videos = [open_video(delivery, checks) for delivery in deliveries]
    annotations = find_annotations(arguments.folder)
    frames = [frame for video in videos for frame in video.frames]
    halves = [frame for video in videos for frame in video.half]
    if setup.motion.source == MONOCULAR:
        frames, halves = [*frames, *halves], []
    results, strips = [], []
    for frame in progress(frames, label="pairs"):
        examined, seconds = examine(frame, setup)
        results.append(judge(frame, examined, seconds, setup, annotations))
        strips.append(write_pictures(frame, examined, arguments.out, arguments.sheets))
    if strips:
        write_png(arguments.out / "contact.png", stack(strips, CONTACT_WIDTH_PX))
    errors = [(frame, error) for frame in halves if (error := half_error(frame, setup)) is not None]
    numbers = {
        "pairs": [result.numbers() for result in results],
        "left_only": {name_of(frame): dataclasses.asdict(error) for frame, error in errors},
        "cars": quality([result.cars for result in results]),
        "instances": quality([result.instances for result in results]),
    }
    write_bytes(arguments.out / "numbers.json", json.dumps(numbers, indent=1).encode())
    print(pair_table(results))
    print(truth_table(results, errors))
    print(object_lines(numbers, n_annotations=len(annotations)))
    print(skipped_lines(videos, unread_folders(arguments.folder, deliveries)))


def examine(frame: StereoFrame, setup: Setup) -> tuple[Examined, float]:
    """Run the method on a pair; seconds from reading the images to proposals."""
    started = time.perf_counter()
    proposer = FrameProposer(setup.motion, setup.frames, setup.seed, setup.device)
    examined = Examined(name_of(frame), *proposer.examine(frame), setup.motion)
    return examined, time.perf_counter() - started


def judge(
    frame: StereoFrame, examined: Examined, seconds: float, setup: Setup, annotations: dict[str, Path]
) -> PairResult:
    """Compare what was found with what is known about a pair."""
    found, measurement = examined.found, examined.measurement
    stored = frame.has_measurements
    return PairResult(
        name=name_of(frame),
        measured_by="stored" if stored else setup.motion.matcher,
        outcome=describe_outcome(examined),
        reliable_share=float(found.reliable.mean()),
        # One camera knows no disparity.
        noise=tuple(
            std for std in (found.noise.x, found.noise.y, found.noise.disparity) if not math.isnan(std)
        ),
        n_proposals=len(found.proposals),
        seconds=seconds,
        # What came with the data says nothing about our matcher.
        optical_flow=None
        if stored
        else optical_flow_error(measurement.optical_flow_forward, frame, setup.frames),
        disparity=None if stored else disparity_error(measurement.disparity, frame, setup.frames),
        ego_motion=ego_motion_error(found.ego_motion, frame),
        cars=moving_cars(found.instance_map, frame, setup.frames),
        instances=annotated_instances(found.instance_map, frame, setup.frames, annotations),
    )


def half_error(frame: StereoFrame, setup: Setup) -> MatchingError | None:
    """Error of the optical flow of a pair that lacks right images; None without truth."""
    images = load_stereo(frame, setup.frames)
    optical_flow, _ = open_matcher(setup.motion, setup.device).optical_flow(images.left, images.left_next)
    return optical_flow_error(optical_flow, frame, setup.frames)


def write_pictures(frame: StereoFrame, examined: Examined, out: Path, sheets: bool) -> np.ndarray:
    """Write a strip, and if wanted the whole sheet; the strip's pixels."""
    name = safe_id(name_of(frame))
    strip = draw_page(compose_strip(examined))
    write_png(out / f"{name}.strip.png", strip)
    if sheets:
        write_png(out / f"{name}.sheet.png", draw_page(compose_sheet(examined)))
    return strip


def stack(strips: Sequence[np.ndarray], width: int) -> np.ndarray:
    """(rows, width, 3) uint8: strips below each other."""
    fitted = [
        cv2.resize(
            strip, (width, round(strip.shape[0] * width / strip.shape[1])), interpolation=cv2.INTER_AREA
        )
        for strip in strips
    ]
    return np.vstack(fitted)


def quality(tables: Sequence[IntersectionTable | None]) -> dict[str, Any] | None:
    """Precision and recall over frames at IoU 0.5; None where no frame has truth."""
    known = [table for table in tables if table is not None]
    if not known:
        return None
    table = merge_tables(known)
    return instance_quality(table, table.true_instance > 0).to_dict()


def pair_table(results: Sequence[PairResult]) -> str:
    """What was found in every pair."""
    lines = [
        "| pair | measured by | reliable | noise x / y / disparity, px | result | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for entry in results:
        noise = " / ".join(f"{value:.2f}" for value in entry.noise)
        lines.append(
            f"| {entry.name} | {entry.measured_by} | {entry.reliable_share:.0%} | {noise} | {entry.outcome} "
            f"| {entry.seconds:.1f} |"
        )
    return "\n".join(lines)


def truth_table(results: Sequence[PairResult], halves: Sequence[tuple[StereoFrame, MatchingError]]) -> str:
    """Errors where truth exists."""
    lines = [
        "",
        "| pair | optical flow: end-point error, px; outliers | disparity: error, px; outliers (D1) "
        "| ego-motion: m; degrees |",
        "|---|---|---|---|",
    ]
    for entry in results:
        cells = [_matching_cell(entry.optical_flow), _matching_cell(entry.disparity)]
        cells.append(
            "" if entry.ego_motion is None else f"{entry.ego_motion[0]:.3f}; {entry.ego_motion[1]:.3f}"
        )
        if any(cells):
            lines.append(f"| {entry.name} | {' | '.join(cells)} |")
    for frame, error in halves:
        lines.append(f"| {name_of(frame)} (left images only) | {_matching_cell(error)} | | |")
    return "\n".join(lines)


def object_lines(numbers: dict[str, Any], *, n_annotations: int) -> str:
    """Precision and recall of proposals, or why there are none."""
    lines = []
    for key, what, missing in (
        ("cars", "moving cars of KITTI 2015 (obj_map)", "no pair has an obj_map"),
        (
            "instances",
            "cars and people of MOTS, moving or not (precision: share of proposals that are one of them; "
            "standing ones need not be found, so recall is a lower bound)",
            f"none of the {n_annotations} annotated frames has stereo video here",
        ),
    ):
        found = numbers[key]
        if found is None:
            lines.append(f"{what}: skipped, {missing}")
        else:
            lines.append(
                f"{what}: precision {found['precision']:.2f} of {found['n_masks']} proposals, "
                f"recall {found['recall']:.2f} of {found['n_objects']} objects, at IoU 0.5"
            )
    return "\n" + "\n".join(lines)


def skipped_lines(videos: Sequence[Video], unread: Sequence[str]) -> str:
    """What was not used, and why."""
    stored = {frame.frame_id for video in videos for frame in video.frames if frame.has_measurements}
    lines = [
        f"skipped: {video.delivery.name}: {frame_id}: {reason}"
        for video in videos
        for frame_id, reason in video.skipped
        if frame_id not in stored
    ]
    lines += [f"skipped: {name}: no stereo video in a layout that an adapter reads" for name in unread]
    return "\n" + "\n".join(lines)


def name_of(frame: StereoFrame) -> str:
    """Data set and frame."""
    return f"{frame.batch}: {frame.frame_id}"


def _motion(arguments: argparse.Namespace) -> MotionSettings:
    chosen = {key: getattr(arguments, key) for key in ("matcher", "source") if getattr(arguments, key)}
    settings: MotionSettings = default_settings("motion", arguments.motion, **chosen)
    if not arguments.weights:
        return settings
    return dataclasses.replace(settings, raft=dataclasses.replace(settings.raft, weights=arguments.weights))


def _matching_cell(error: MatchingError | None) -> str:
    return "" if error is None else f"{error.end_point_px:.2f}; {error.outlier_share:.1%}"


if __name__ == "__main__":
    main()
