import dataclasses
import json

import numpy as np
import pytest

from gestalt.data.ground_truth import dataset_of, find_frames, find_ground_truth
from gestalt.data.images import encode_png, write_png
from gestalt.data.truth_check import check_truth, unlisted_pictures
from gestalt.errors import ConfigError, DataError
from gestalt.panoptic import VOID
from tests.data.test_coco_panoptic import car, write_coco
from tests.data.truth import frame_of, panoptic
from tests.data.video import SAMPLES, needs_samples, write_source


def faults_of(frames, dataset="cityscapes", unlisted=()):
    return {fault.kind: fault for fault in check_truth(frames, dataset, unlisted).faults}


def errors_of(frames, dataset="cityscapes"):
    return [fault.kind for fault in check_truth(frames, dataset).faults if fault.is_error]


def test_everything_is_counted():
    frames = [
        frame_of("a", panoptic([[7, 7, 26], [VOID, 26, 26]], [[0, 0, 5], [0, 0, 6]]), sequence="v", number=1),
        frame_of("b", panoptic([[7, 26, 3]], [[0, 5, 0]]), sequence="v", number=2),
        frame_of("c", panoptic([[26, 24, 23]], [[5, 0, 0]]), sequence="w"),
    ]
    report = check_truth(frames, "cityscapes")
    rows = {
        entry.name: (
            entry.raw_id,
            entry.n_frames,
            entry.n_pixels,
            entry.n_objects,
            entry.n_tracks,
            entry.n_groups,
        )
        for entry in report.classes
    }
    assert rows == {
        "road": (7, 2, 3, 0, 0, 0),
        "car": (26, 3, 5, 4, 3, 1),
        "out of roi": (3, 1, 1, 0, 0, 0),
        "person": (24, 1, 1, 0, 0, 1),
        "sky": (23, 1, 1, 0, 0, 0),
        "void": (VOID, 1, 1, 0, 0, 0),
    }
    assert [entry.raw_id for entry in report.classes] == [3, 7, 23, 24, 26, VOID]
    assert (report.n_frames, report.n_readable, report.n_images, report.n_pixels) == (3, 3, 0, 12)
    assert report.sequences == {"v": 2, "w": 1}
    assert report.sizes == {(1, 3): 2, (2, 3): 1}
    assert report.void_shares == {"cityscapes27": 2 / 12, "cityscapes19": 2 / 12, "cityscapes7": 2 / 12}
    assert report.is_sound


def test_missing_images_are_worth_knowing_and_no_error():
    report = check_truth([frame_of(f"f{number}", panoptic([[7]])) for number in range(13)], "cityscapes")
    (fault,) = report.faults
    assert (fault.kind, fault.is_error, fault.n) == ("image is not there", False, 13)
    assert len(fault.examples) == 10
    assert fault.examples[0] == "f0: truth/f0.png"


def test_images_of_another_size_and_broken_ones_are_errors(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((2, 3, 3), np.uint8))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:-4])
    frames = [
        dataclasses.replace(frame_of(name, panoptic([[7, 7]])), image=tmp_path / f"{name}.png")
        for name in "ab"
    ]
    faults = faults_of(frames)
    assert "annotation (1, 2), image (2, 3)" in faults["image and annotation differ in size"].examples[0]
    assert "cut short" in faults["image cannot be read"].examples[0]
    assert check_truth(frames, "cityscapes").n_images == 1
    right = dataclasses.replace(frame_of("a", panoptic([[7] * 3] * 2)), image=tmp_path / "a.png")
    (beside,) = check_truth([right], "cityscapes").faults
    assert (beside.kind, beside.is_error) == ("image without an annotation", False)
    assert beside.examples == (str(tmp_path / "b.png"),)


@pytest.mark.parametrize(
    ("truth", "kind", "example"),
    [
        (
            panoptic([[7, 99, 60, 99]]),
            "raw ids that the data set does not have, which would become void",
            "60, 99 on 3",
        ),
        (panoptic([[7, VOID]], [[0, 4]]), "void has instances", "bad"),
        (panoptic([[24, 26]], [[4, 4]]), "an instance has several classes", r"4 is [24, 26]"),
    ],
)
def test_maps_that_make_numbers_lie_are_errors(truth, kind, example):
    fault = faults_of([frame_of("good", panoptic([[7, 26]], [[0, 1]])), frame_of("bad", truth)])[kind]
    assert (fault.n, fault.is_error) == (1, True)
    assert fault.examples[0].startswith("bad (truth/bad.png)")
    assert example in fault.examples[0]


def test_annotations_that_cannot_be_read_are_named_and_the_rest_is_counted(tmp_path):
    segments = {"a": ([[1]], [car(1)]), "b": ([[1, 2]], [car(1)]), "c": ([[1]], [car(1, area=7)])}
    frames = find_ground_truth(write_coco(tmp_path, segments))
    (tmp_path / "panoptic" / "d.png").write_bytes((tmp_path / "panoptic" / "a.png").read_bytes())
    gone = dataclasses.replace(frames[0], frame_id="gone", read=missing)
    report = check_truth([*frames, gone], "cityscapes", unlisted_pictures(frames))
    faults = {fault.kind: fault for fault in report.faults}
    assert (report.n_frames, report.n_readable, report.is_sound) == (4, 1, False)
    disagreement = faults["JSON and PNG disagree"]
    assert (disagreement.n, disagreement.is_error) == (2, True)
    assert "b: JSON and PNG disagree" in disagreement.examples[0]
    assert "gone: missing image: nothing" in faults["missing image"].examples[0]
    assert faults["picture that the JSON does not list"].examples == (str(tmp_path / "panoptic" / "d.png"),)


def missing():
    raise DataError("missing image: nothing is there")


def test_instance_ids_of_8_bits_are_certain_where_the_file_is_called_so(tmp_path):
    path = tmp_path / "gtFine/val/x/x_000000_000019_gtFine_instanceIds.png"
    write_png(path, np.array([[7, 26]], np.uint8))
    folder = write_source(tmp_path, "cityscapes")
    assert errors_of(find_ground_truth(folder)) == [
        "instance ids saved with 8 bits, so that every object is lost"
    ]
    write_png(path, np.array([[7, 26]], np.uint16))
    assert errors_of(find_ground_truth(folder)) == []
    kind = "things without a single object; so look maps that lost their instances"
    assert faults_of(find_ground_truth(folder))[kind].examples == ("car in 1 frames",)
    write_png(path, np.array([[7, 26001]], np.uint16))
    assert kind not in faults_of(find_ground_truth(folder))


def test_sequences_with_gaps_are_notes_and_numbers_given_twice_are_errors():
    frames = [
        frame_of(f"f{place}", panoptic([[7]]), sequence="v", number=number)
        for place, number in enumerate((1, 2, 5, 5))
    ]
    faults = faults_of(frames)
    assert faults["gap in the numbers of a sequence"].examples == ("v: 2 is followed by 5",)
    assert not faults["gap in the numbers of a sequence"].is_error
    assert faults["two frames of a sequence have one number"].examples == ("v: 5",)
    assert faults["two frames of a sequence have one number"].is_error


def test_a_benchmark_where_nothing_is_annotated_is_an_error():
    frames = [frame_of("a", panoptic([[VOID, 0]])), frame_of("b", panoptic([[3, 3]]))]
    faults = faults_of(frames)
    assert faults["nothing is annotated"].is_error
    assert (faults["everything is void"].n, faults["everything is void"].is_error) == (2, False)


def test_instances_of_classes_that_are_no_things_are_not_used():
    kind = "a class that no label space counts has instances, which are not used"
    assert faults_of([frame_of("a", panoptic([[7, 7]], [[1, 2]]))])[kind].examples == ("road: 2 segments",)


def test_a_data_set_without_a_table_is_named():
    with pytest.raises(ConfigError, match="no table of raw ids for 'voc'"):
        check_truth([frame_of("a", panoptic([[7]]))], "voc")


@needs_samples
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_real_cityscapes_frames_have_all_expected_counts(tmp_path, split):
    expected = json.loads((SAMPLES / "cityscapes" / "expected_counts.json").read_text())
    folder = write_source(tmp_path, "cityscapes", str(SAMPLES / "cityscapes"), split=split)
    frames = find_ground_truth(folder)
    assert len(frames) == {"train": 4, "val": 8}[split]
    whole = {}
    for frame in frames:
        (name,) = (name for name in expected if frame.frame_id in name)
        report = check_truth([frame], dataset_of(folder))
        assert report.is_sound
        assert {entry.name for entry in report.classes} == set(expected[name])
        for entry in report.classes:
            numbers = expected[name][entry.name]
            assert (entry.raw_id, entry.n_pixels) == (numbers["label_id"], numbers["pixels"])
            assert entry.n_objects == numbers["instances"]
            assert entry.n_groups == (numbers["crowd_pixels"] > 0)
            whole[entry.name] = whole.get(entry.name, 0) + entry.n_pixels
    assert sum(whole.values()) == len(frames) * 1024 * 2048


@needs_samples
def test_the_real_bitmasks_are_sound_and_counted():
    frames = find_frames("bdd", SAMPLES / "bdd100k", {"split": "val"})
    report = check_truth(frames, "bdd")
    assert report.is_sound
    assert report.sizes == {(720, 1280): 2}
    counts = {entry.name: entry for entry in report.classes}
    assert (counts["bus"].n_objects, counts["bus"].n_pixels) == (1, 3865)
    assert (counts["car"].n_objects, counts["car"].n_pixels) == (4, 664 + 1344 + 979 + 1096)
    assert counts["sky"].n_pixels == 285512 + 73562
    assert (counts["unlabeled"].n_frames, counts["unlabeled"].n_pixels) == (1, 6)


def test_an_ending_in_capitals_hides_an_annotation(tmp_path):
    folder = tmp_path / "gtFine" / "val" / "x"
    for name in ("a_gtFine_instanceIds.png", "b_gtFine_instanceIds.PNG"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_png(np.array([[7]], np.uint16)))
    found = faults_of(find_ground_truth(write_source(tmp_path, "cityscapes")))
    hidden = found["annotation with an ending in capitals, which is not read"]
    assert (hidden.is_error, hidden.examples) == (
        True,
        (f"{folder / 'b_gtFine_instanceIds.PNG'}: rename it to .png",),
    )
