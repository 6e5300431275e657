"""Pictures of every intermediate for a few frames: what went in, what each step made of it, and the truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.audit.overlay import (
    blend,
    colour_disparity,
    colour_instances,
    colour_optical_flow,
    colour_semantic,
    draw_panoptic,
    fit_width,
    outline_instances,
)
from gestalt.audit.review_page import class_palette
from gestalt.config.frames import FrameSettings
from gestalt.data.frames import load_left, load_measurements, load_stereo
from gestalt.data.ground_truth import dataset_of, find_ground_truth, load_image, read_ground_truth
from gestalt.data.kitti_maps import unpack_disparity
from gestalt.data.label_spaces import load_label_space
from gestalt.data.manifest import read_manifest
from gestalt.data.records import StereoFrame
from gestalt.data.shards import ShardFolder
from gestalt.panoptic import VOID, PanopticMap, Vocabulary

UInt8Array = npt.NDArray[np.uint8]
# Optical flow from the first to the second (H, W, 3) uint8 RGB image: (2, H, W) float32, pixels.
MeasureFlow = Callable[[UInt8Array, UInt8Array], npt.NDArray[np.float32]]

RIGHT_COLOUR, WRONG_COLOUR = (40, 160, 90), (200, 40, 40)


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of a strip.

    Attributes:
        caption: What it shows.
        pixels: (H, W, 3) uint8 RGB.
        is_labels: Flat colours that must not be mixed.
    """

    caption: str
    pixels: UInt8Array
    is_labels: bool = False


@dataclass(frozen=True, eq=False)
class Strip:
    """The pictures of one frame."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Workspace:
    """Where the artefacts of a pipeline lie, relative to the working directory."""

    data: Path = Path("data")
    reports: Path = Path("reports")


def batch_strips(
    batch: str,
    n_frames: int,
    frames: FrameSettings,
    workspace: Workspace,
    width_px: int,
    measure_flow: MeasureFlow,
) -> list[Strip]:
    """Strips of a batch: image, disparity, optical flow, proposals, semantics, pseudo-label, truth.

    Args:
        batch: Name of the batch.
        n_frames: How many frames to show, spread over the batch.
        frames: Geometry that the labels were made at.
        workspace: Where things lie.
        width_px: Widest picture.
        measure_flow: Measures the optical flow again, as the stage ``motion`` does; it keeps none.
    """
    data = workspace.data
    labels, motion = ShardFolder(data / "pseudo_labels" / batch), ShardFolder(data / "motion" / batch)
    known = {frame.frame_id: frame for frame in read_manifest(data / "manifests" / f"{batch}.parquet")}
    truth_folder = data / "truth" / batch
    truth = _truth_maps(truth_folder, workspace.reports / "label_quality" / f"{batch}.json")
    palette, legend = _label_palette(workspace, batch)
    candidates = [
        frame_id for frame_id in labels.frame_ids if frame_id in known and frame_id in motion.frame_ids
    ]
    strips = []
    for frame_id in _spread(candidates, n_frames):
        image = load_left(known[frame_id], frames)
        disparity = unpack_disparity(motion.read_map(frame_id, "disparity"))
        proposals = motion.read_map(frame_id, "proposals")
        label = _panoptic(labels, frame_id)
        pictures = [
            Picture("left image", image),
            Picture("disparity: near is warm", colour_disparity(disparity)),
            _optical_flow(known[frame_id], frames, measure_flow),
            Picture("proposals from motion", _draw_proposals(image, proposals)),
            Picture(f"pseudo-classes, {legend}", colour_semantic(label.semantic_map, palette), True),
            Picture(f"pseudo-label, {legend}", draw_panoptic(image, label, palette)),
        ]
        if frame_id in truth:
            true_map, true_palette = truth[frame_id].read(), truth[frame_id].palette
            pictures.append(
                Picture("truth (for evaluation only)", draw_panoptic(image, true_map, true_palette))
            )
        strips.append(Strip(f"{batch} / {frame_id}", _fit(pictures, width_px)))
    return strips


def benchmark_strips(benchmark: str, n_frames: int, workspace: Workspace, width_px: int) -> list[Strip]:
    """Strips of a benchmark: image, prediction of each network, truth, errors of the last network.

    Args:
        benchmark: Name of the evaluation set.
        n_frames: How many images to show, spread over the set.
        workspace: Where things lie.
        width_px: Widest picture.
    """
    result = json.loads((workspace.reports / "evaluation" / f"{benchmark}.json").read_text(encoding="utf-8"))
    folder = workspace.data / "benchmarks" / benchmark
    space = load_label_space(result["protocol"]["label_space"])
    dataset, truth = dataset_of(folder), {frame.frame_id: frame for frame in find_ground_truth(folder)}
    networks = {
        name: ShardFolder(workspace.data / "predictions" / benchmark / name) for name in result["networks"]
    }
    common = [
        frame_id for frame_id in truth if all(frame_id in shards.frame_ids for shards in networks.values())
    ]
    strips = []
    for frame_id in _spread(common, n_frames):
        image = load_image(truth[frame_id])
        true_map = read_ground_truth(truth[frame_id], space.name, dataset)
        pictures = [Picture("image", image)]
        for name, shards in networks.items():
            matched = _matched(
                _panoptic(shards, frame_id), result["networks"][name]["assignment"], "pseudo_class"
            )
            pictures.append(Picture(name, draw_panoptic(image, matched, space.palette())))
            errors = _draw_errors(image, matched.semantic_map, true_map.semantic_map)
        pictures += [
            Picture("truth", draw_panoptic(image, true_map, space.palette())),
            Picture(f"errors of {name}: red is wrong", errors),
        ]
        strips.append(Strip(f"{benchmark} / {frame_id}", _fit(pictures, width_px)))
    return strips


@dataclass(frozen=True, eq=False)
class _Truth:
    frame: Any
    space: str
    dataset: str

    def read(self) -> PanopticMap:
        return read_ground_truth(self.frame, self.space, self.dataset)

    @property
    def palette(self) -> UInt8Array:
        return load_label_space(self.space).palette()


def _truth_maps(folder: Path, quality: Path) -> dict[str, _Truth]:
    """Truth of a batch by frame id; empty where there is none."""
    if not (folder.exists() and quality.exists()):
        return {}
    space = json.loads(quality.read_text(encoding="utf-8"))["protocol"]["label_space"]
    dataset = dataset_of(folder)
    return {frame.frame_id: _Truth(frame, space, dataset) for frame in find_ground_truth(folder)}


def _label_palette(workspace: Workspace, batch: str) -> tuple[UInt8Array, str]:
    """Colours of pseudo-classes: of the class that each is matched with, where truth tells."""
    vocabulary = Vocabulary.load(workspace.data / "vocabulary.json")
    quality = workspace.reports / "label_quality" / f"{batch}.json"
    if not quality.exists():
        return class_palette(vocabulary), "a colour per cluster"
    content = json.loads(quality.read_text(encoding="utf-8"))
    colours = load_label_space(content["protocol"]["label_space"]).palette()
    palette = np.zeros((256, 3), np.uint8)
    for entry in content["labels"]["assignment"]:
        palette[entry["pseudo_class"]] = colours[entry["class_id"]]
    return palette, "colours of the matched class"


def _matched(panoptic: PanopticMap, assignment: Sequence[dict[str, Any]], key: str) -> PanopticMap:
    table = np.full(256, VOID, np.uint8)
    for entry in assignment:
        table[entry[key]] = entry["class_id"]
    return PanopticMap(table[panoptic.semantic_map], panoptic.instance_map)


def _panoptic(shards: ShardFolder, frame_id: str) -> PanopticMap:
    return PanopticMap(
        shards.read_map(frame_id, "semantic").astype(np.uint8),
        shards.read_map(frame_id, "instance").astype(np.uint16),
    )


def _optical_flow(frame: StereoFrame, settings: FrameSettings, measure_flow: MeasureFlow) -> Picture:
    if (stored := load_measurements(frame, settings)) is not None:
        shown = np.where(stored.optical_flow_valid, stored.optical_flow, np.nan)
        return Picture("optical flow, as stored", colour_optical_flow(shown))
    images = load_stereo(frame, settings)
    return Picture("optical flow", colour_optical_flow(measure_flow(images.left, images.left_next)))


def _draw_proposals(image: UInt8Array, proposals: npt.NDArray[Any]) -> UInt8Array:
    return outline_instances(blend(image, colour_instances(proposals), 0.45), proposals)


def _draw_errors(image: UInt8Array, predicted: UInt8Array, true: UInt8Array) -> UInt8Array:
    colours = np.where((predicted == true)[..., None], RIGHT_COLOUR, WRONG_COLOUR).astype(np.uint8)
    colours[true == VOID] = 0
    return blend(image, colours, 0.5)


def _spread(frame_ids: Sequence[str], n: int) -> list[str]:
    """``n`` frames spread evenly."""
    if not frame_ids or not n:
        return []
    places = np.unique(np.linspace(0, len(frame_ids) - 1, min(n, len(frame_ids))).round().astype(int))
    return [frame_ids[place] for place in places]


def _fit(pictures: Iterable[Picture], width_px: int) -> tuple[Picture, ...]:
    return tuple(
        Picture(entry.caption, fit_width(entry.pixels, width_px, is_labels=entry.is_labels), entry.is_labels)
        for entry in pictures
    )
