"""Semantic quality of every way to pseudo-classes, on rendered streets: k-means, STEGO, DepthG; views; CRF.

Fits features and pseudo-classes on one batch (no label is read), predicts frames of another one and compares them with
their truth, for each seed. A row is a way to pseudo-classes; its columns say how the prediction was made: `single`
(one resolution), `guided` (depth-guided fusion of two), each with and without the dense CRF. Protocols: `19` and `27`
classes on whole frames, and `crop320`: the image scaled to 320 rows, its central 320 x 320 px, 27 classes.

Matching is one-to-one; with 27 classes pseudo-classes that got no class count as wrong, with 19 they get their most
frequent class, as in the panoptic protocols. The folder is a clone in which `dvc repro motion` has run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from gestalt.config import Params
from gestalt.config.presets import compose_params
from gestalt.data.atomic_files import write_bytes
from gestalt.data.ground_truth import dataset_of, find_ground_truth, read_ground_truth
from gestalt.data.label_spaces import load_label_space
from gestalt.data.manifest import read_manifest
from gestalt.data.records import GroundTruthFrame
from gestalt.errors import GestaltError
from gestalt.evaluation.intersections import IntersectionTable, intersect, merge_tables
from gestalt.evaluation.linear_probe import fit_linear_probe, linear_quality
from gestalt.evaluation.matching import LeftOver, confusion_matrix, match_pseudo_classes
from gestalt.evaluation.semantic import semantic_quality
from gestalt.features.dense import DenseFeatures
from gestalt.features.fit import choose_evenly, fit_features
from gestalt.features.loading import load_features
from gestalt.panoptic import PanopticMap
from gestalt.runtime import choose_device, progress, start, torch_generator
from gestalt.semantics.crf import refine
from gestalt.semantics.fit import FitFrame, fit_semantics, load_fit_frames
from gestalt.semantics.probe import SemanticProbe

UInt8Array = npt.NDArray[np.uint8]

# Ways to pseudo-classes: values of the configuration that make them, on top of those that are asked for. The first
# three are the published ones; geometry from stereo beside the features is ours.
PLAIN, GEOMETRY = "semantics.geometry=false", "semantics.geometry=true"
METHODS: dict[str, list[str]] = {
    "k-means": ["semantics.method=kmeans", PLAIN],
    "STEGO": ["semantics.method=codes", "codes=stego", PLAIN],
    "DepthG": ["semantics.method=codes", "codes=depthg", PLAIN],
    "k-means, geometry": ["semantics.method=kmeans", GEOMETRY],
    "DepthG, geometry": ["semantics.method=codes", "codes=depthg", GEOMETRY],
}
# Sections of the table begin so; `flows/results.py` keeps them.
HEADING = "## Pseudo-classes"
# How a prediction is made.
VIEWS = ("single", "guided", "single + CRF", "guided + CRF")
CROP_PX = 320
# Of the linear probe: classes, and cells of a frame.
LINEAR_SPACE, N_LINEAR_CLASSES, LINEAR_CELLS = "cityscapes19", 19, 400
# Of the CRF in the columns that have it (CUPS).
CRF_ITERATIONS = 10


@dataclass(frozen=True)
class Protocol:
    """What a number means.

    Attributes:
        name: In the table.
        label_space: Classes.
        left_over: What unmatched pseudo-classes get.
        is_crop: Judged on the central square of the image scaled to ``CROP_PX`` rows.
    """

    name: str
    label_space: str
    left_over: LeftOver
    is_crop: bool = False


PROTOCOLS = (
    Protocol("19", "cityscapes19", "largest"),
    Protocol("27", "cityscapes27", "void"),
    Protocol("crop320", "cityscapes27", "void", is_crop=True),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.semantics", description=__doc__)
    parser.add_argument("--fit-batch", default="monday", help="fitted on (default: %(default)s)")
    parser.add_argument("--test-batch", default="tuesday", help="judged on (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: %(default)s)")
    parser.add_argument("--frames", type=int, default=60, help="judged, evenly spread (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--features", type=Path, help="folder of features, instead of the dictionary's")
    parser.add_argument("--threads", type=int, default=1, help="numeric threads (default: %(default)s)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="such as semantics.geometry=false"
    )
    parser.add_argument("--no-crf", action="store_true", help="leave the columns with the CRF out")
    parser.add_argument(
        "--table", type=Path, help="Markdown file whose section of these features is replaced"
    )
    options = parser.parse_args(arguments)
    try:
        start(threads=options.threads)
        results = run(options)
        if options.table:
            write_section(options.table, markdown(results, options))
    except GestaltError as error:
        print(f"semantics: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(results))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Numbers of every method, protocol and view: each a list with a value for every seed."""
    results: dict[str, Any] = {"seconds": defaultdict(list), "quality": {}, "linear": defaultdict(list)}
    composed = {method: compose_params([*METHODS[method], *options.set]) for method in options.methods}
    any_params = next(iter(composed.values()))
    truth = TruthMaps(Path("data/truth") / options.test_batch)
    fit_truth = TruthMaps(Path("data/truth") / options.fit_batch)
    frames = load(options.test_batch, any_params, options.frames)
    for seed in options.seeds:
        fit_frames = load(options.fit_batch, any_params, any_params.semantics.n_images)
        features = features_of(options.features, fit_frames, any_params, seed)
        for method, params in composed.items():
            started = time.perf_counter()
            probe = fit_semantics(fit_frames, features, params.semantics, seed, codes=params.codes)
            results["seconds"][method].append(round(time.perf_counter() - started, 1))
            judged = judge(probe, frames, truth, params, with_crf=not options.no_crf)
            for protocol, by_view in judged.items():
                for view, quality in by_view.items():
                    known = results["quality"].setdefault(method, {}).setdefault(protocol, {})
                    known.setdefault(view, []).append(quality)
            linear = judge_linearly(probe, (fit_frames, fit_truth), (frames, truth), seed)
            results["linear"][method].append(linear)
            print(json.dumps({"seed": seed, method: judged, "linear": linear}), file=sys.stderr)
    return results


def load(batch: str, params: Params, n_frames: int) -> list[FitFrame]:
    """Frames of a batch with their disparity, evenly spread."""
    frames = read_manifest(Path("data/manifests") / f"{batch}.parquet")
    return load_fit_frames([(frames, Path("data/motion") / batch)], params.frames, n_frames)


def features_of(folder: Path | None, frames: Sequence[FitFrame], params: Params, seed: int) -> DenseFeatures:
    """Stored features, or those of the dictionary, fitted with the seed."""
    if folder is not None:
        return load_features(folder, choose_device(params.runtime.device))
    settings = params.features.dictionary
    return fit_features([frame.image for frame in choose_evenly(frames, settings.n_images)], settings, seed)


class TruthMaps:
    """True classes of frames, by id.

    Args:
        folder: Of the truth of a batch.
    """

    def __init__(self, folder: Path) -> None:
        self.dataset = dataset_of(folder)
        self.frames: dict[str, GroundTruthFrame] = {
            frame.frame_id: frame for frame in find_ground_truth(folder)
        }

    def read(self, frame_id: str, label_space: str) -> UInt8Array:
        """(H, W) uint8 classes of the label space, 255 where void."""
        return read_ground_truth(self.frames[frame_id], label_space, self.dataset).semantic_map


def judge(
    probe: SemanticProbe, frames: Sequence[FitFrame], truth: TruthMaps, params: Params, *, with_crf: bool
) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean IoU and pixel accuracy, percent, of every protocol and view."""
    tables: dict[Protocol, dict[str, list[IntersectionTable]]] = {
        protocol: defaultdict(list) for protocol in PROTOCOLS
    }
    for frame in progress(frames, label="judging"):
        for is_crop in (False, True):
            seen = crop_frame(frame) if is_crop else frame
            maps = list(predictions(probe, seen, params, with_crf))
            for protocol in (protocol for protocol in PROTOCOLS if protocol.is_crop == is_crop):
                classes = truth.read(frame.frame_id, protocol.label_space)
                classes = central_crop(classes, cv2.INTER_NEAREST) if is_crop else classes
                for view, semantic_map in maps:
                    table = intersect(frame.frame_id, as_panoptic(semantic_map), as_panoptic(classes))
                    tables[protocol][view].append(table)
    return {
        protocol.name: {
            view: measure(merge_tables(parts), protocol, params.semantics.n_pseudo_classes)
            for view, parts in by_view.items()
        }
        for protocol, by_view in tables.items()
    }


def judge_linearly(
    probe: SemanticProbe,
    fitted: tuple[Sequence[FitFrame], TruthMaps],
    judged: tuple[Sequence[FitFrame], TruthMaps],
    seed: int,
) -> tuple[float, float]:
    """Mean IoU and accuracy, percent, of a linear probe with labels: how much of 19 classes is in the vectors."""
    classifier = fit_linear_probe(*labelled_cells(probe, *fitted, seed), N_LINEAR_CLASSES)
    quality = linear_quality(classifier, *labelled_cells(probe, *judged, seed))
    return round(quality.mean_iou, 2), round(quality.accuracy, 2)


def labelled_cells(
    probe: SemanticProbe, frames: Sequence[FitFrame], truth: TruthMaps, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors (n, D) of cells, of unit length where they are codes, and classes (n,) at their centres."""
    vectors, labels = [], []
    stride = probe.features.stride
    for frame in frames:
        cells = (
            probe.describe_image(frame.image, frame.disparity, frame.stereo_baseline)[0].flatten(1).T.cpu()
        )
        cells = torch.nn.functional.normalize(cells, dim=1) if probe.card.has_codes else cells
        classes = truth.read(frame.frame_id, LINEAR_SPACE)[stride // 2 :: stride, stride // 2 :: stride]
        generator = torch_generator(seed, frame.frame_id, "linear probe")
        chosen = torch.randperm(classes.size, generator=generator)[:LINEAR_CELLS]
        vectors.append(cells[chosen])
        labels.append(torch.from_numpy(classes.astype(np.int64).ravel())[chosen])
    return torch.cat(vectors), torch.cat(labels)


def measure(table: IntersectionTable, protocol: Protocol, n_pseudo_classes: int) -> tuple[float, float]:
    """Mean IoU and pixel accuracy, percent, after matching."""
    n_classes = len(load_label_space(protocol.label_space).classes)
    everything = [(range(n_pseudo_classes), range(n_classes))]
    confusion = confusion_matrix(table, n_pseudo_classes, n_classes)
    assignment = match_pseudo_classes(confusion, everything, protocol.left_over)
    quality = semantic_quality(table, assignment, n_classes)
    return round(float(quality.mean_iou), 2), round(float(quality.pixel_accuracy), 2)


def predictions(
    probe: SemanticProbe, frame: FitFrame, params: Params, with_crf: bool
) -> Iterator[tuple[str, UInt8Array]]:
    """(H, W) uint8 pseudo-classes of every view."""
    crf = dataclasses.replace(params.semantics.crf, iterations=CRF_ITERATIONS)
    plain = dataclasses.replace(params.semantics, fusion=True, crf=dataclasses.replace(crf, iterations=0))
    views = probe.views(frame.image, frame.disparity, frame.focal_length, frame.stereo_baseline, plain)
    for name, log_prob in (("single", views.high), ("guided", views.fused)):
        yield name, to_map(log_prob)
        if with_crf:
            image = torch.from_numpy(frame.image)[None].to(log_prob.device)
            yield f"{name} + CRF", to_map(refine(image, log_prob[None], crf)[0])


def to_map(scores: torch.Tensor) -> UInt8Array:
    """(K, H, W) scores -> (H, W) uint8 numbers of the largest."""
    return scores.argmax(0).to(torch.uint8).cpu().numpy()


def crop_frame(frame: FitFrame) -> FitFrame:
    """The central square of a frame, scaled; disparity and focal length scale along."""
    scale = CROP_PX / len(frame.image)
    return dataclasses.replace(
        frame,
        image=central_crop(frame.image, cv2.INTER_LINEAR),
        disparity=central_crop(frame.disparity, cv2.INTER_NEAREST) * np.float32(scale),
        focal_length=frame.focal_length * scale,
    )


def central_crop(values: npt.NDArray[Any], interpolation: int) -> npt.NDArray[Any]:
    """The central square of an image or map, scaled to ``CROP_PX`` rows."""
    width = max(round(values.shape[1] * CROP_PX / len(values)), CROP_PX)
    left = (width - CROP_PX) // 2
    scaled = cv2.resize(values, (width, CROP_PX), interpolation=interpolation)
    return np.ascontiguousarray(scaled[:, left : left + CROP_PX])


def as_panoptic(semantic_map: UInt8Array) -> PanopticMap:
    """A map of classes without instances."""
    return PanopticMap(semantic_map, np.zeros(semantic_map.shape, np.uint16))


def markdown(results: dict[str, Any], options: argparse.Namespace) -> str:
    """The table of the results, a row per way and protocol."""
    features = f"features of `{options.features}`" if options.features else "dictionary features"
    views = [view for view in VIEWS if not (options.no_crf and view.endswith("CRF"))]
    lines = [
        f"{HEADING} from {features}",
        "",
        f"Fitted on `{options.fit_batch}`, judged on {options.frames} frames of `{options.test_batch}`, seeds "
        f"{', '.join(map(str, options.seeds))} of features, clusters and codes on the same streets; mIoU / accuracy, "
        f"percent, mean ± standard deviation over seeds. Command: `python -m benchmarks.semantics "
        f"{' '.join(sys.argv[1:])}`.",
        "",
        f"| protocol | pseudo-classes | fit, s | {' | '.join(views)} |",
        "|---" * (3 + len(views)) + "|",
    ]
    for protocol in PROTOCOLS:
        for method, by_protocol in results["quality"].items():
            seconds = statistics.fmean(results["seconds"][method])
            cells = [
                " / ".join(spread(values) for values in zip(*by_protocol[protocol.name][view]))
                for view in views
            ]
            lines.append(f"| {protocol.name} | {method} | {seconds:.0f} | {' | '.join(cells)} |")
    lines += [
        "",
        "A linear probe of the same vectors, with labels, says what is in them (19 classes, cells):",
        "",
    ]
    lines += ["| vectors | mIoU / accuracy |", "|---|---|"]
    for method, values in results["linear"].items():
        lines.append(f"| {method} | {' / '.join(spread(column) for column in zip(*values))} |")
    return "\n".join(lines) + "\n"


def write_section(path: Path, section: str) -> None:
    """Replace the section with the same heading, or add it at the end of the file."""
    heading = section.splitlines()[0]
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before, found, rest = text.partition(heading + "\n")
    following = re.search(r"^#{1,3} ", rest, flags=re.MULTILINE)
    after = rest[following.start() :] if found and following else ""
    gap = "\n" if after else ""
    write_bytes(path, f"{before.rstrip()}\n\n{section}{gap}{after}".lstrip().encode())


def spread(values: Sequence[float]) -> str:
    """``mean ± standard deviation`` over seeds."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{deviation}"


if __name__ == "__main__":
    main()
