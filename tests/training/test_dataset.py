from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gestalt.config.presets import default_settings
from gestalt.data.images import write_png
from gestalt.data.records import StereoFrame
from gestalt.data.sharded_run import FrameResult, run_sharded
from gestalt.data.shards import ShardFolder
from gestalt.errors import ConfigError, DataError
from gestalt.panoptic import Vocabulary
from gestalt.training.dataset import ImageSet, LabelledBatch, PseudoLabelSet, enlarge, step_indices

VOCABULARY = Vocabulary(things=(1,), stuff=(0, 2))
FRAMES = default_settings("frames", height=24, width=32)


def make_frames(folder: Path, n_frames: int) -> list[StereoFrame]:
    for number in range(n_frames + 1):
        write_png(folder / f"{number}.png", np.full((24, 32, 3), 10 * number, np.uint8))
    return [
        StereoFrame(
            batch="day", sequence="s", frame_id=f"f{number}", left=folder / f"{number}.png", right=None,
            left_next=folder / f"{number + 1}.png", right_next=None, height=24, width=32,
            intrinsics=np.eye(3), stereo_baseline=0.5, time_step_s=0.1,
        )
        for number in range(n_frames)
    ]  # fmt: skip


def label_frame(frame: StereoFrame) -> FrameResult:
    """An object of class 1 in even frames, one of stuff in the others."""
    number = int(frame.frame_id[1:])
    semantic = np.full((24, 32), 1 if number % 2 == 0 else 2, np.uint8)
    instance = np.zeros((24, 32), np.uint16)
    instance[4:12, 4:12] = 1
    record = {"pseudo_class": int(semantic[0, 0]), "instance": 1, "area_px": 64}
    return FrameResult(frame.frame_id, maps={"semantic": semantic, "instance": instance}, records=[record])


@pytest.fixture
def batch(tmp_path: Path) -> LabelledBatch:
    frames = make_frames(tmp_path, 5)
    run_sharded(
        frames, label_frame, out_dir=tmp_path / "labels", cache_dir=tmp_path / "cache", key={}, shard_size=2,
        open_executor=None, max_failed_share=0.0, label="labels",
    )  # fmt: skip
    return LabelledBatch("day", frames, ShardFolder(tmp_path / "labels"))


def open_set(
    batch: LabelledBatch, vocabulary: Vocabulary = VOCABULARY, *, keep: bool = True
) -> PseudoLabelSet:
    return PseudoLabelSet([batch], vocabulary, FRAMES, ignore_uncovered_things=True, keep_in_memory=keep)


def test_only_frames_with_an_object_of_a_thing_class_are_samples(batch: LabelledBatch) -> None:
    samples = open_set(batch)
    assert [int(samples[index].image[0, 0, 0]) for index in range(len(samples))] == [0, 20, 40]
    assert all(samples[index].classes == (0,) for index in range(len(samples)))


def test_keeping_in_memory_changes_no_sample(batch: LabelledBatch) -> None:
    kept, streamed = open_set(batch), open_set(batch, keep=False)
    assert kept[1] is kept[1]
    assert (kept[1].image == streamed[1].image).all()
    assert (kept[1].semantic == streamed[1].semantic).all()


def test_a_vocabulary_without_things_says_what_to_do(batch: LabelledBatch) -> None:
    with pytest.raises(ConfigError, match=r"no thing classes.*lower thing_stuff\.psi"):
        open_set(batch, Vocabulary((), (0, 1, 2)))


def test_labels_without_any_object_say_where_to_look(batch: LabelledBatch) -> None:
    with pytest.raises(DataError, match=r"no pseudo-label of day holds an object.*reports/audit"):
        open_set(batch, Vocabulary((0,), (1, 2)))


def test_labels_of_frames_that_the_manifest_does_not_know_are_refused(batch: LabelledBatch) -> None:
    with pytest.raises(DataError, match="3 labelled frames of batch day are not in its manifest, such as f0"):
        open_set(LabelledBatch("day", batch.frames[:0], batch.labels))


def test_self_training_sees_every_left_image_once(tmp_path: Path) -> None:
    images = ImageSet(make_frames(tmp_path, 4), FRAMES, keep_in_memory=True)
    assert sorted(int(images[index][0, 0, 0]) for index in range(len(images))) == [0, 10, 20, 30, 40]
    with pytest.raises(DataError, match="no image to self-train on"):
        ImageSet([], FRAMES, keep_in_memory=True)


def test_video_of_two_sizes_says_which_keys_make_it_one(tmp_path: Path) -> None:
    frames = make_frames(tmp_path, 3)
    frames[1] = dataclasses.replace(frames[1], height=30)
    as_stored = dataclasses.replace(FRAMES, height=0, width=0)
    with pytest.raises(DataError, match=r"Got: 24 x 32 \(\d frames\), 30 x 32 .*set frames\.height and"):
        ImageSet(frames, as_stored, keep_in_memory=True)
    assert len(ImageSet(frames, FRAMES, keep_in_memory=True)) == 4


@pytest.mark.parametrize(("batch_size", "n_samples"), [(4, 10), (3, 2), (1, 7)])
def test_every_pass_sees_every_sample_once(batch_size: int, n_samples: int) -> None:
    drawn = [
        index
        for step in range(3 * n_samples)
        for index in step_indices(step, batch_size=batch_size, n_samples=n_samples, seed=0, purpose="x")
    ]
    for start in range(0, len(drawn) - n_samples + 1, n_samples):
        assert sorted(drawn[start : start + n_samples]) == list(range(n_samples))


def test_the_order_depends_on_seed_and_purpose() -> None:
    def order(seed: int, purpose: str) -> list[int]:
        return step_indices(0, batch_size=20, n_samples=20, seed=seed, purpose=purpose)

    assert order(0, "a") == order(0, "a")
    assert order(0, "a") != order(1, "a")
    assert order(0, "a") != order(0, "b")


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_enlarged_images_show_the_same_part_of_the_recording(tmp_path: Path, factor: float) -> None:
    frames = make_frames(tmp_path, 1)
    ramp = np.repeat(np.linspace(0, 250, 32).astype(np.uint8)[None, :, None], 24, 0).repeat(3, 2)
    write_png(frames[0].left, ramp)
    cropped = dataclasses.replace(FRAMES, scale=1.0, height=12, width=16)
    image = ImageSet(frames, enlarge(cropped, factor), keep_in_memory=False)[0]
    assert image.shape == (12 * factor, 16 * factor, 3)
    middle = ramp[6:18, 8:24]
    assert np.abs(image[0, [0, -1], 0].astype(int) - middle[0, [0, -1], 0]).max() <= 4
