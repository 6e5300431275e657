from __future__ import annotations

import dataclasses
import itertools
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gestalt.data.ground_truth import find_ground_truth
from gestalt.data.images import read_png, write_png
from gestalt.data.records import StereoFrame
from gestalt.errors import ConfigError, DataError
from gestalt.panoptic import VOID
from gestalt.training.labelled_frames import (
    LabelledFrame,
    LabelledSamples,
    draw_frames,
    find_labelled_frames,
)
from tests.training.conftest import SIZE, make_scene
from tests.training.labelled_world import write_labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_labels(tmp_path / "labels", range(40))


@pytest.fixture
def frames(folder: Path) -> list[LabelledFrame]:
    return find_labelled_frames([folder])


def ids(frames: tuple[LabelledFrame, ...]) -> list[str]:
    return [frame.frame_id for frame in frames]


def frame_of_video(frame_id: str, left: Path) -> StereoFrame:
    return StereoFrame(
        "monday", "town", frame_id, left, None, left, None, *SIZE, np.eye(3), float("nan"), 0.1
    )


def annotation_of(folder: Path, seed: int) -> Path:
    return folder / f"gtFine/train/town/town_000000_{seed:06d}_gtFine_instanceIds.png"


def test_smaller_shares_are_parts_of_larger_ones(frames: list[LabelledFrame]) -> None:
    draws = [ids(draw_frames(frames, share, seed=0).frames) for share in (0.01, 0.05, 0.2, 1.0)]
    assert [len(draw) for draw in draws] == [1, 2, 8, 40]
    for small, large in itertools.pairwise(draws):
        assert large[: len(small)] == small


def test_a_draw_depends_on_names_and_seed_alone(frames: list[LabelledFrame]) -> None:
    drawn = ids(draw_frames(frames, 0.2, seed=0).frames)
    assert ids(draw_frames(frames[::-1], 0.2, seed=0).frames) == drawn
    # Frames that come or go change nothing for those that stay.
    fewer = [frame for frame in frames if frame.frame_id != drawn[3]]
    assert ids(draw_frames(fewer, 8 / 39, seed=0).frames)[:7] == drawn[:3] + drawn[4:]
    assert len({tuple(ids(draw_frames(frames, 0.05, seed=seed).frames)) for seed in range(10)}) > 5


def test_frames_of_a_benchmark_are_never_drawn(folder: Path, tmp_path: Path) -> None:
    # The benchmark has two frames under their own ids, and one more picture under another id.
    benchmark = write_labels(tmp_path / "benchmark", range(2))
    other = write_labels(tmp_path / "copy", range(100, 101))
    shutil.copy(
        folder / "leftImg8bit/train/town/town_000000_000007_leftImg8bit.png",
        other / "leftImg8bit/train/town/town_000000_000100_leftImg8bit.png",
    )
    held_out = find_ground_truth(benchmark) + find_ground_truth(other)
    drawn = draw_frames(find_labelled_frames([folder]), 1.0, seed=0, held_out=held_out)
    assert (drawn.n_available, drawn.n_held_out) == (37, 3)
    assert not {f"town_000000_{seed:06d}" for seed in (0, 1, 7)} & set(ids(drawn.frames))
    assert "37 of 37 labelled images, 3 more belong to a benchmark" in drawn.describe()
    with pytest.raises(DataError, match="all 40 labelled images belong to a benchmark"):
        draw_frames(find_labelled_frames([folder]), 1.0, seed=0, held_out=find_ground_truth(folder))


def test_images_inside_another_file_are_told_apart(folder: Path, tmp_path: Path) -> None:
    # All frames lie in one file, as those of a TFRecord do.
    (tmp_path / "many").write_bytes(b"all images and annotations")
    truth = [
        dataclasses.replace(
            frame,
            image=tmp_path / "many",
            annotation=tmp_path / "many",
            read_image=partial(read_png, frame.image),
        )
        for frame in find_ground_truth(folder)[:4]
    ]
    frames = [LabelledFrame(frame.frame_id, frame.image, frame, "cityscapes") for frame in truth]
    assert len({frame.image_hash for frame in frames}) == len({frame.content_hash for frame in frames}) == 4
    same_pixels = dataclasses.replace(truth[2], frame_id="other")
    drawn = draw_frames(frames, 1.0, seed=0, held_out=[same_pixels])
    assert set(ids(drawn.frames)) == {frame.frame_id for frame in frames} - {truth[2].frame_id}
    sample = LabelledSamples(frames, "cityscapes19", keep_in_memory=False)[0]
    expected = LabelledSamples(find_labelled_frames([folder]), "cityscapes19", keep_in_memory=False)[0]
    np.testing.assert_array_equal(sample.image, expected.image)


def test_labels_apart_from_the_video_find_their_images(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "truth", range(3), images=False)
    with pytest.raises(DataError, match="name its manifest with --video"):
        find_labelled_frames([labels])
    images = write_labels(tmp_path / "video", range(2)) / "leftImg8bit/train/town"
    video = [
        frame_of_video(f"town_000000_{seed:06d}", images / f"town_000000_{seed:06d}_leftImg8bit.png")
        for seed in range(2)
    ]
    found = find_labelled_frames([labels], video)
    assert [frame.image for frame in found] == [frame.left for frame in video]
    with pytest.raises(DataError, match="3 annotations have no image"):
        find_labelled_frames([labels], [frame_of_video("other", images)])


def test_two_annotations_of_one_id_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two annotations have the frame id town_000000_000000"):
        find_labelled_frames([folder, write_labels(tmp_path / "again", range(1))])


def test_samples_are_in_the_classes_of_the_label_space(frames: list[LabelledFrame]) -> None:
    samples = LabelledSamples(frames[:3], "cityscapes19", keep_in_memory=True)
    image, pseudo_classes, instance = make_scene(0)
    sample = samples[0]
    assert np.array_equal(sample.image, image)
    # Unified ids of cityscapes19: road 0, wall 3, sky 10; label = id + 1. Person and car are things 0 and 2.
    for pseudo_class, label in ((4, 1), (2, 4), (0, 11), (3, 0), (1, 0)):
        assert (sample.semantic[pseudo_classes == pseudo_class] == label).all()
    numbers = np.unique(instance[instance > 0])
    assert len(sample.classes) == len(numbers)
    kinds = sorted(2 if (pseudo_classes[instance == number] == 1).any() else 0 for number in numbers)
    assert sorted(sample.classes) == kinds
    assert samples.metrics["n_images"] == 3
    assert samples.metrics["n_objects"] == sum(len(samples[index].classes) for index in range(3))
    assert samples.metrics["void_share"] == 0


def test_reading_each_time_gives_the_same_as_keeping(frames: list[LabelledFrame]) -> None:
    kept = LabelledSamples(frames[:2], "cityscapes19", keep_in_memory=True)
    read = LabelledSamples(frames[:2], "cityscapes19", keep_in_memory=False)
    assert kept[1] is kept[1]
    assert read[1] is not read[1]
    assert np.array_equal(kept[1].instance, read[1].instance)


def test_groups_whose_members_nobody_separated_are_void(folder: Path) -> None:
    path = annotation_of(folder, 0)
    raw = read_png(path)
    is_object = raw >= 1000
    write_png(path, np.where(is_object, raw // 1000, raw).astype(np.uint16))
    sample = LabelledSamples(find_labelled_frames([folder])[:1], "cityscapes19", keep_in_memory=True)[0]
    assert (sample.semantic[is_object] == VOID).all()
    assert sample.classes == ()


def test_an_annotation_of_another_size_is_refused(folder: Path) -> None:
    path = annotation_of(folder, 0)
    write_png(path, read_png(path)[:, ::2])
    with pytest.raises(DataError, match=r"must have one size .* Got: \(64, 128\) of .* and \(64, 64\)"):
        LabelledSamples(find_labelled_frames([folder])[:1], "cityscapes19", keep_in_memory=True)


def test_an_annotation_without_a_class_of_the_space_is_refused(folder: Path) -> None:
    write_png(annotation_of(folder, 0), np.full(SIZE, 50, np.uint16))
    with pytest.raises(DataError, match=r"not one pixel of a class of cityscapes19.* Got: \[50\]"):
        LabelledSamples(find_labelled_frames([folder])[:1], "cityscapes19", keep_in_memory=True)


def test_a_label_space_that_the_data_set_lacks_is_refused(frames: list[LabelledFrame]) -> None:
    with pytest.raises(ConfigError, match="mots2"):
        LabelledSamples(frames[:1], "mots2", keep_in_memory=True)


def test_hashes_follow_image_and_annotation(folder: Path) -> None:
    before = find_labelled_frames([folder])[0]
    known = (before.image_hash, before.content_hash)
    write_png(annotation_of(folder, 0), np.full(SIZE, 7, np.uint16))
    after = dataclasses.replace(before)
    assert after.image_hash == known[0]
    assert after.content_hash != known[1]
