"""Images that people labelled: where they lie, which may be used, which few are drawn, and what is learnt from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gestalt.data.ground_truth import dataset_of, find_ground_truth, read_ground_truth
from gestalt.data.images import read_image
from gestalt.data.label_spaces import load_label_space
from gestalt.data.records import GroundTruthFrame, StereoFrame
from gestalt.errors import DataError
from gestalt.panoptic import VOID, LabelSpace
from gestalt.runtime import derive_seed
from gestalt.training.named_classes import vocabulary_of
from gestalt.training.sample import TrainingSample, sample_from_pseudo_label


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """An image with the annotation of a person, or of a renderer.

    Attributes:
        frame_id: Of the ground truth; unique among the frames of a fine-tuning.
        image: Where the image is.
        truth: The annotation.
        dataset: Whose raw ids the annotation uses.
    """

    frame_id: str
    image: Path
    truth: GroundTruthFrame
    dataset: str

    @cached_property
    def image_hash(self) -> str:
        """SHA-256 of the image file, or of the pixels where the image is inside another file."""
        return image_hash(self.image, self.truth)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over image and annotation."""
        if self.truth.read_image is None:
            annotation = file_hash(self.truth.annotation)
        else:
            # The file holds many frames.
            panoptic = self.truth.read()
            content = panoptic.semantic_map.tobytes() + panoptic.instance_map.tobytes()
            annotation = hashlib.sha256(content).hexdigest()
        return hashlib.sha256(f"{self.image_hash} {annotation}".encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class DrawnFrames:
    """A few labelled images, chosen without a look at them.

    Attributes:
        frames: The chosen ones, in the order of the draw: a smaller draw is a beginning of a larger one.
        n_available: Frames that they were chosen from.
        n_held_out: Frames left out because a benchmark holds them.
    """

    frames: tuple[LabelledFrame, ...]
    n_available: int
    n_held_out: int

    def describe(self) -> str:
        """What was drawn, for people."""
        held_out = f", {self.n_held_out} more belong to a benchmark" if self.n_held_out else ""
        names = "\n".join(f"  {frame.frame_id}" for frame in self.frames)
        return f"{len(self.frames)} of {self.n_available} labelled images{held_out}:\n{names}"


def find_labelled_frames(folders: Sequence[Path], video: Iterable[StereoFrame] = ()) -> list[LabelledFrame]:
    """All labelled images of some folders of ground truth.

    Args:
        folders: Each holds ``source.yaml``, as a benchmark or the truth of rendered video does.
        video: Frames of manifests; gives the left image of annotations that lie apart from their images. What is
            annotated besides is left out then, such as the second image of the last pair of a snippet.

    Raises:
        DataError: A folder is no ground truth, an image is missing, or two annotations have one frame id.
    """
    left_of = {frame.frame_id: frame.left for frame in video}
    frames: dict[str, LabelledFrame] = {}
    missing: list[GroundTruthFrame] = []
    for folder in folders:
        dataset = dataset_of(folder)
        for truth in find_ground_truth(folder):
            image = truth.image if truth.image.is_file() else left_of.get(truth.frame_id, truth.image)
            if not image.is_file():
                missing.append(truth)
            elif truth.frame_id in frames:
                raise DataError(
                    f"two annotations have the frame id {truth.frame_id}: "
                    f"{frames[truth.frame_id].truth.annotation} and {truth.annotation}; give one of them"
                )
            else:
                frames[truth.frame_id] = LabelledFrame(truth.frame_id, image, truth, dataset)
    if missing and not (left_of and frames):
        raise DataError(
            f"{len(missing)} annotations have no image, such as {missing[0].annotation}: expected "
            f"{missing[0].image}, or a frame {missing[0].frame_id} in a manifest; where labels lie apart from "
            "the video, name its manifest with --video"
        )
    if not frames:
        raise DataError(f"no labelled image in {', '.join(map(str, folders)) or 'no folder at all'}")
    return list(frames.values())


def draw_frames(
    frames: Sequence[LabelledFrame],
    share: float,
    *,
    seed: int,
    held_out: Iterable[GroundTruthFrame] = (),
) -> DrawnFrames:
    """Choose a share of the frames by a hash of their ids: neither their order nor what they show has a say.

    Frames that come or go change nothing for the others, and a smaller share is a part of a larger one.

    Args:
        frames: Labelled images.
        share: Of the frames that may be used; at least one is drawn.
        seed: Another seed is another draw.
        held_out: Frames of benchmarks. A frame of the same id, or whose image file has the same bytes, is
            never drawn.

    Raises:
        DataError: Every frame is held out.
    """
    judged = list(held_out)
    ids = {frame.frame_id for frame in judged}
    # Files of other sizes cannot be equal, so few are read; images inside other files may be equal to each other.
    sizes = {frame.image.stat().st_size for frame in frames if frame.truth.read_image is None}
    any_inside = any(frame.truth.read_image is not None for frame in frames)
    hashes = {
        image_hash(frame.image, frame)
        for frame in judged
        if (
            any_inside
            if frame.read_image is not None
            else frame.image.is_file() and frame.image.stat().st_size in sizes
        )
    }
    usable = [frame for frame in frames if frame.frame_id not in ids]
    if hashes:
        usable = [frame for frame in usable if frame.image_hash not in hashes]
    if not usable:
        raise DataError(
            f"all {len(frames)} labelled images belong to a benchmark; a network that learnt from them could "
            "not be judged. Give labels of other images, such as the training split"
        )
    ranked = sorted(usable, key=lambda frame: (derive_seed(seed, "draw", frame.frame_id), frame.frame_id))
    n_drawn = max(1, round(share * len(usable)))
    return DrawnFrames(tuple(ranked[:n_drawn]), len(usable), len(frames) - len(usable))


class LabelledSamples:
    """Labelled images as training samples in the classes of a label space.

    Every one is read and checked at once. Thing pixels without an instance belong to a group whose members nobody
    separated: they are void.

    Raises:
        DataError: An annotation has another size than its image, or not one pixel of a class.
        ConfigError: A data set has no such label space.
    """

    def __init__(self, frames: Sequence[LabelledFrame], label_space: str, *, keep_in_memory: bool) -> None:
        self._frames, self._space = tuple(frames), load_label_space(label_space)
        self._kept: dict[int, TrainingSample] = {}
        n_objects, void = 0, 0.0
        for index in range(len(frames)):
            sample = self[index]
            n_objects += len(sample.classes)
            void += float(np.mean(sample.semantic == VOID))
            if keep_in_memory:
                self._kept[index] = sample
        self.metrics = {
            "n_images": float(len(frames)),
            "n_objects": float(n_objects),
            "void_share": round(void / max(1, len(frames)), 4),
        }

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> TrainingSample:
        return self._kept[index] if index in self._kept else _read_sample(self._frames[index], self._space)


def _read_sample(frame: LabelledFrame, space: LabelSpace) -> TrainingSample:
    image = read_image(frame.image) if frame.truth.read_image is None else frame.truth.read_image()
    truth = read_ground_truth(frame.truth, space.name, frame.dataset)
    if image.shape[:2] != truth.size:
        raise DataError(
            f"{frame.truth.annotation}: image and annotation must have one size (rows, columns). Got: "
            f"{image.shape[:2]} of {frame.image} and {truth.size}; scale the labels, nearest neighbour"
        )
    if not (truth.semantic_map != VOID).any():
        raw = np.unique(frame.truth.read().semantic_map).tolist()
        raise DataError(
            f"{frame.truth.annotation} has not one pixel of a class of {space.name}. Expected raw ids of "
            f"{frame.dataset}. Got: {raw}; check the adapter and raw_ids in source.yaml, or finetune.label_space"
        )
    return sample_from_pseudo_label(
        image,
        truth.semantic_map,
        truth.instance_map,
        vocabulary_of(space),
        ignore_uncovered_things=True,
        name=frame.frame_id,
    )


def image_hash(image: Path, truth: GroundTruthFrame) -> str:
    """SHA-256 of an image file, or of the pixels where ``truth`` says that the image is inside another file."""
    if truth.read_image is None:
        return file_hash(image)
    return hashlib.sha256(truth.read_image().tobytes()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
