"""Where training images come from: frames of all batches, with or without labels, and who is in a step."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gestalt.errors import ConfigError, DataError
from gestalt.panoptic import UInt8Array, Vocabulary
from gestalt.runtime import numpy_generator
from gestalt.training.sample import TrainingSample, sample_from_pseudo_label

if TYPE_CHECKING:
    from gestalt.config.frames import FrameSettings
    from gestalt.data.records import StereoFrame
    from gestalt.data.shards import ShardFolder


@dataclass(frozen=True, eq=False)
class LabelledBatch:
    """One delivery of video with its pseudo-labels.

    Attributes:
        name: Of the batch.
        frames: Usable frames of its manifest.
        labels: Its shard folder of pseudo-labels.
    """

    name: str
    frames: Sequence[StereoFrame]
    labels: ShardFolder


class PseudoLabelSet:
    """Frames whose pseudo-label holds at least one object, as training samples.

    Which frames these are comes from the label tables, without opening an image.

    Raises:
        ConfigError: The vocabulary has no things.
        DataError: No frame has an object, a labelled frame is not in its manifest, or frames differ in size.
    """

    def __init__(
        self,
        batches: Sequence[LabelledBatch],
        vocabulary: Vocabulary,
        frame_settings: FrameSettings,
        *,
        ignore_uncovered_things: bool,
        keep_in_memory: bool,
    ) -> None:
        check_things(vocabulary)
        self._vocabulary, self._frame_settings = vocabulary, frame_settings
        self._ignore_uncovered_things = ignore_uncovered_things
        self._entries = [entry for batch in batches for entry in _frames_with_objects(batch, vocabulary)]
        if not self._entries:
            names = ", ".join(batch.name for batch in batches) or "(no batch)"
            raise DataError(
                f"no pseudo-label of {names} holds an object of a thing class; look at reports/audit and "
                "at the share of empty frames in reports/metrics/motion-*.json"
            )
        check_one_size([frame for _, frame in self._entries], frame_settings)
        self._kept: dict[int, TrainingSample] | None = {} if keep_in_memory else None

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> TrainingSample:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        from gestalt.data.frames import load_left

        labels, frame = self._entries[index]
        sample = sample_from_pseudo_label(
            load_left(frame, self._frame_settings),
            labels.read_map(frame.frame_id, "semantic"),
            labels.read_map(frame.frame_id, "instance"),
            self._vocabulary,
            ignore_uncovered_things=self._ignore_uncovered_things,
            name=f"{frame.batch}/{frame.frame_id}",
        )
        if self._kept is not None:
            self._kept[index] = sample
        return sample


class ImageSet:
    """Every left image of the video, at t and at t+1, each once; no label.

    Raises:
        DataError: There is no frame, or frames differ in size.
    """

    def __init__(
        self, frames: Sequence[StereoFrame], frame_settings: FrameSettings, *, keep_in_memory: bool
    ) -> None:
        self._frame_settings = frame_settings
        images: dict[Path, StereoFrame] = {}
        for frame in frames:
            images.setdefault(frame.left, frame)
            images.setdefault(frame.left_next, dataclasses.replace(frame, left=frame.left_next))
        if not images:
            raise DataError("there is no image to self-train on; check the manifests of the batches")
        self._frames = [images[path] for path in sorted(images)]
        check_one_size(self._frames, frame_settings)
        self._kept: dict[int, UInt8Array] | None = {} if keep_in_memory else None

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> UInt8Array:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        from gestalt.data.frames import load_left

        image = load_left(self._frames[index], self._frame_settings)
        if self._kept is not None:
            self._kept[index] = image
        return image


def enlarge(settings: FrameSettings, factor: float) -> FrameSettings:
    """Settings that give images ``factor`` times as large; the same part of the recording is seen."""
    return dataclasses.replace(
        settings,
        scale=settings.scale * factor,
        height=round(settings.height * factor),
        width=round(settings.width * factor),
    )


def check_things(vocabulary: Vocabulary) -> None:
    """Raise unless there is something to detect.

    Raises:
        ConfigError: The vocabulary has no things.
    """
    if not vocabulary.things:
        raise ConfigError(
            "data/vocabulary.json has no thing classes, so there is no object to learn; lower "
            "thing_stuff.psi, or find out with the audit why no pseudo-class moves"
        )


def check_one_size(frames: Sequence[StereoFrame], settings: FrameSettings) -> None:
    """Raise unless all frames have one working size.

    Raises:
        DataError: They differ, so that they fit into no common batch.
    """
    from gestalt.data.frames import frame_geometry

    sizes = Counter(frame_geometry(frame.height, frame.width, settings).size for frame in frames)
    if len(sizes) > 1:
        found = ", ".join(f"{height} x {width} ({n} frames)" for (height, width), n in sizes.most_common())
        raise DataError(
            f"training images must have one size (rows x columns). Got: {found}; set frames.height and "
            "frames.width, then run `dvc repro`"
        )


def step_indices(step: int, *, batch_size: int, n_samples: int, seed: int, purpose: str) -> list[int]:
    """Samples of one step: passes over all samples, each in an order of its own.

    They depend on the arguments alone, so a resumed run needs no sampler state.

    Args:
        step: Counted from 0.
        batch_size: Indices per step.
        n_samples: Size of the set.
        seed: The experiment's.
        purpose: Name of the training.
    """
    positions = range(step * batch_size, (step + 1) * batch_size)
    orders = {
        epoch: numpy_generator(seed, purpose, "epoch", epoch).permutation(n_samples)
        for epoch in {position // n_samples for position in positions}
    }
    return [int(orders[position // n_samples][position % n_samples]) for position in positions]


def _frames_with_objects(
    batch: LabelledBatch, vocabulary: Vocabulary
) -> list[tuple[ShardFolder, StereoFrame]]:
    table = batch.labels.records()
    if table.empty:
        return []
    is_object = (table["instance"] > 0) & table["pseudo_class"].isin(vocabulary.things)
    frames = {frame.frame_id: frame for frame in batch.frames}
    found = sorted(set(table.loc[is_object, "frame_id"]))
    if missing := [frame_id for frame_id in found if frame_id not in frames]:
        raise DataError(
            f"{len(missing)} labelled frames of batch {batch.name} are not in its manifest, such as "
            f"{missing[0]}; run `dvc repro`, so that manifest and labels belong together"
        )
    return [(batch.labels, frames[frame_id]) for frame_id in found]
