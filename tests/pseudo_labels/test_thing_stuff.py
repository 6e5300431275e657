"""The thing-stuff split: hand-made counts, renaming, refusals, and completeness of what is summed."""

import json
from pathlib import Path

import numpy as np
import pytest

from gestalt.data.sharded_run import FrameResult, run_sharded
from gestalt.errors import DataError
from gestalt.panoptic import Vocabulary
from gestalt.pseudo_labels.fuse import Statistics
from gestalt.pseudo_labels.thing_stuff import (
    STATISTICS_FILE,
    split_things_from_stuff,
    sum_statistics,
)


def statistics(pixels: list[int], inside: list[int]) -> Statistics:
    instances = np.array([int(value > 0) for value in inside])
    return Statistics(5, np.array(pixels), np.array(inside), instances)


def test_hand_made_counts_give_the_expected_split_and_order() -> None:
    # r = 0.1, 0.9, 0, 0.5, 0 -> normalised 0.067, 0.6, 0, 0.333, 0
    split = split_things_from_stuff(statistics([100, 100, 50, 10, 80], [10, 90, 0, 5, 0]), psi=0.08)
    assert split.vocabulary == Vocabulary(things=(1, 3), stuff=(0, 4, 2))
    assert split.ratios == pytest.approx([0.1 / 1.5, 0.9 / 1.5, 0, 0.5 / 1.5, 0], abs=1e-6)
    assert split.metrics()["smallest_thing_ratio"] == pytest.approx(1 / 3, abs=1e-6)
    assert split.metrics()["largest_stuff_ratio"] == pytest.approx(1 / 15, abs=1e-6)


def test_renaming_pseudo_classes_renames_the_split() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(100, 1000, 20)
    inside = (pixels * generator.random(20) ** 6).astype(int)
    renamed = generator.permutation(20)
    new_pixels, new_inside = np.zeros(20, int), np.zeros(20, int)
    new_pixels[renamed], new_inside[renamed] = pixels, inside
    plain = split_things_from_stuff(statistics(pixels, inside), psi=0.08).vocabulary
    permuted = split_things_from_stuff(statistics(new_pixels, new_inside), psi=0.08).vocabulary
    assert permuted.things == tuple(renamed[list(plain.things)].tolist())
    assert permuted.stuff == tuple(renamed[list(plain.stuff)].tolist())


def test_a_class_without_pixels_is_stuff() -> None:
    split = split_things_from_stuff(statistics([0, 10, 10], [0, 9, 0]), psi=0.08)
    assert split.vocabulary == Vocabulary(things=(1,), stuff=(2, 0))


def test_no_instance_anywhere_is_an_error_that_says_where_to_look() -> None:
    with pytest.raises(DataError, match=r"labels of 5 frames hold no instance.*motion"):
        split_things_from_stuff(statistics([10, 10], [0, 0]), psi=0.08)


def test_no_thing_is_an_error_that_names_the_bound() -> None:
    with pytest.raises(DataError, match=r"psi = 0.9.*none is a thing; set it below 0.6"):
        split_things_from_stuff(statistics([100, 100, 10], [60, 40, 0]), psi=0.9)


def test_only_things_is_an_error_that_names_the_bound() -> None:
    with pytest.raises(DataError, match=r"psi = 0.08.*every one is a thing; set it to at least 0.4"):
        split_things_from_stuff(statistics([100, 100], [60, 40]), psi=0.08)


def test_the_file_is_a_vocabulary_with_its_reasons(tmp_path: Path) -> None:
    counts = statistics([100, 100, 50], [10, 90, 0])
    split = split_things_from_stuff(counts, psi=0.2)
    split.save(tmp_path / "data" / "vocabulary.json")
    content = json.loads((tmp_path / "data" / "vocabulary.json").read_text())
    assert Vocabulary.load(tmp_path / "data" / "vocabulary.json") == split.vocabulary
    assert content["psi"] == 0.2
    assert content["statistics"] == counts.to_json()
    assert sum(content["ratios"]) == pytest.approx(1)


class LabelOnes:
    """A stand-in for labelling: class 1 everywhere, one instance, and one frame that fails."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing

    def __call__(self, item: "Name") -> FrameResult:
        if item.frame_id == self.failing:
            raise DataError("no motion")
        ones = np.ones((4, 4), np.uint8)
        maps = {"semantic": ones, "instance": ones.astype(np.uint16)}
        return FrameResult(item.frame_id, "ok", "", maps, [], {})


class Name:
    def __init__(self, frame_id: str) -> None:
        self.frame_id = frame_id


def labelled_batch(tmp_path: Path, batch: str, names: list[str], failing: str = "") -> Path:
    folder = tmp_path / batch
    run_sharded(
        [Name(name) for name in names],
        LabelOnes(failing),
        out_dir=folder,
        cache_dir=tmp_path / ".cache",
        key={},
        shard_size=2,
        open_executor=None,
        max_failed_share=0.5,
        label=batch,
    )
    n_labelled = len(names) - bool(failing)
    counts = Statistics(n_labelled, *(np.array([0, 16 * n_labelled]) for _ in range(3)))
    (folder / STATISTICS_FILE).write_text(json.dumps(counts.to_json()))
    return folder


def test_batches_add_up_and_failed_frames_do_not_count(tmp_path: Path) -> None:
    names = {"monday": ["a", "b", "c"], "tuesday": ["a", "b"]}
    folders = {
        "monday": labelled_batch(tmp_path, "monday", names["monday"], failing="b"),
        "tuesday": labelled_batch(tmp_path, "tuesday", names["tuesday"]),
    }
    total = sum_statistics(folders, names)
    assert total.n_frames == 4
    assert total.pixels.tolist() == [0, 64]


def test_a_batch_without_statistics_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dvc repro pseudo_labels@monday"):
        sum_statistics({"monday": tmp_path}, {"monday": []})


def test_no_batch_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match=r"`batches`.*is empty"):
        sum_statistics({}, {})


@pytest.mark.parametrize(
    ("expected", "message"), [(["a", "b", "c"], "1 are missing"), (["a"], "1 are foreign")]
)
def test_labels_of_other_frames_than_the_manifest_are_refused(
    tmp_path: Path, expected: list[str], message: str
) -> None:
    folder = labelled_batch(tmp_path, "monday", ["a", "b"])
    with pytest.raises(DataError, match=message):
        sum_statistics({"monday": folder}, {"monday": expected})


def test_stale_statistics_are_refused(tmp_path: Path) -> None:
    folder = labelled_batch(tmp_path, "monday", ["a", "b"])
    stale = Statistics(3, *(np.array([1, 1]) for _ in range(3)))
    (folder / STATISTICS_FILE).write_text(json.dumps(stale.to_json()))
    with pytest.raises(DataError, match="counts are of 3 frames, but the folder holds 2"):
        sum_statistics({"monday": folder}, {"monday": ["a", "b"]})
