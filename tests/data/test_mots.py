"""MOTS as pictures and as text: what is read, what is refused, and that nothing is lost between the two."""

import json
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from gestalt.data.adapters import mots, mots_text
from gestalt.data.ground_truth import dataset_of, find_ground_truth, read_ground_truth
from gestalt.data.images import read_png, write_png
from gestalt.data.writers import truth_writer
from gestalt.data.writers.mots_text import encode_objects
from gestalt.errors import ConfigError, DataError
from gestalt.panoptic import VOID, PanopticMap
from tests.data.video import SAMPLES, needs_samples, write_source

# Two frames of one video: a car that stays, a person that goes, a region to ignore.
FIRST = [[0, 1001, 1001, 2005], [0, 1001, 10000, 2005], [0, 0, 10000, 10000]]
SECOND = [[1001, 1001, 0, 0], [1001, 1001, 0, 2007], [0, 0, 0, 0]]
EMPTY = [[0, 0, 0, 0]] * 3
IDS = (0, 1000, 1001, 2000, 2999, 10000, 65535)


def write_pictures(root, frames, sequence="0002", **options):
    for number, ids in frames.items():
        write_png(root / "instances" / sequence / f"{number:06d}.png", np.array(ids, np.uint16))
    return write_source(root, "mots", **options)


def line(frame, object_id, mask, class_id=None, size=None):
    mask = np.array(mask, np.uint8)
    height, width = size or mask.shape
    runs = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    return (
        f"{frame} {object_id} {object_id // 1000 if class_id is None else class_id} {height} {width} {runs}"
    )


def lines(frame, ids):
    return [line(frame, value, np.array(ids) == value) for value in np.unique(ids).tolist() if value]


def write_text(root, content, sequence="0002", **options):
    path = root / "instances_txt" / f"{sequence}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(content) + "\n")
    return write_source(root, "mots_text", **options)


def assert_same_truth(one, other):
    assert [frame.frame_id for frame in one] == [frame.frame_id for frame in other]
    for first, second in zip(one, other):
        assert (first.sequence, first.number) == (second.sequence, second.number)
        ours, theirs = first.read(), second.read()
        np.testing.assert_array_equal(ours.semantic_map, theirs.semantic_map)
        np.testing.assert_array_equal(ours.instance_map, theirs.instance_map)


@pytest.mark.parametrize(
    "image",
    [
        "images/0002/000001.jpg",
        "train/MOTS20-02/img1/000001.jpg",
        "training/image_02/0002/000001.png",
    ],
)
def test_a_picture_becomes_classes_and_tracks(tmp_path, image):
    folder = write_pictures(tmp_path, {1: FIRST})
    (tmp_path / image).parent.mkdir(parents=True)
    (tmp_path / image).touch()
    (frame,) = find_ground_truth(folder)
    assert (frame.frame_id, frame.sequence, frame.number) == ("0002_000001", "0002", 1)
    assert frame.image == tmp_path / image
    found = read_ground_truth(frame, "mots2", dataset_of(folder))
    np.testing.assert_array_equal(found.semantic_map, [[0, 0, 0, 1], [0, 0, VOID, 1], [0, 0, VOID, VOID]])
    np.testing.assert_array_equal(found.instance_map, [[0, 0, 0, 2005], [0, 0, 0, 2005], [0, 0, 0, 0]])


def test_kitti_mots_counts_cars_too(tmp_path):
    folder = write_pictures(tmp_path, {1: FIRST}, raw_ids="kitti_mots")
    (frame,) = find_ground_truth(folder)
    assert dataset_of(folder) == "kitti_mots"
    found = read_ground_truth(frame, "mots3", "kitti_mots")
    np.testing.assert_array_equal(found.semantic_map, [[0, 1, 1, 2], [0, 1, VOID, 2], [0, 0, VOID, VOID]])
    np.testing.assert_array_equal(found.instance_map[:2, 1:], [[1001, 1001, 2005], [1001, 0, 2005]])


def test_an_object_has_one_id_in_all_frames(tmp_path):
    first, second = find_ground_truth(write_pictures(tmp_path, {0: FIRST, 1: SECOND}))
    assert {1001} == set(np.unique(first.read().instance_map)) & set(
        np.unique(second.read().instance_map)
    ) - {0}


def test_frames_can_be_sent_to_workers(tmp_path):
    folder = write_text(tmp_path, lines(0, FIRST))
    for found in (folder, write_pictures(tmp_path / "pictures", {0: FIRST})):
        (frame,) = find_ground_truth(found)
        np.testing.assert_array_equal(
            pickle.loads(pickle.dumps(frame)).read().instance_map, frame.read().instance_map
        )


@pytest.mark.parametrize("ids", [[[209, 0, 0]], [[1, 2001]]])
def test_ids_that_lost_their_upper_bits_are_explained(tmp_path, ids):
    (frame,) = find_ground_truth(write_pictures(tmp_path, {0: ids}))
    expected = r"000000\.png: MOTS ids must be 0 or class \* 1000 \+ track\. Got: (209; 16-bit ids|1$)"
    with pytest.raises(DataError, match=expected):
        frame.read()


def test_colours_and_names_that_are_no_numbers_are_refused(tmp_path):
    write_png(tmp_path / "instances/0002/000000.png", np.zeros((2, 2, 3), np.uint8))
    (frame,) = find_ground_truth(write_source(tmp_path, "mots"))
    with pytest.raises(DataError, match=r"000000\.png: an instance-id map must be \(H, W\)"):
        frame.read()
    (tmp_path / "instances/0002/000000.png").rename(tmp_path / "instances/0002/first.png")
    with pytest.raises(DataError, match=r"first\.png must be named by the number of its frame"):
        find_ground_truth(tmp_path)


def test_text_and_pictures_say_the_same(tmp_path):
    text = find_ground_truth(write_text(tmp_path / "text", lines(3, FIRST) + lines(5, SECOND)))
    frames = {3: FIRST, 4: EMPTY, 5: SECOND}
    pictures = find_ground_truth(write_pictures(tmp_path / "pictures", frames))
    # Without a word about frames, those between the lines count, with or without objects.
    assert_same_truth(text, pictures)
    assert (pictures[1].read().semantic_map == 0).all()


def test_text_of_motschallenge_lies_beside_its_images(tmp_path):
    path = tmp_path / "train/MOTS20-02/gt/gt.txt"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines(1, FIRST)))
    for number in (1, 2):
        write_png(tmp_path / f"train/MOTS20-02/img1/{number:06d}.png", np.zeros((3, 4, 3), np.uint8))
    folder = write_source(tmp_path, "mots_text")
    assert dataset_of(folder) == "mots"
    first, second = find_ground_truth(folder)
    # There is an image of frame 2, so it was annotated and shows nobody.
    assert (first.frame_id, second.frame_id) == ("0002_000001", "0002_000002")
    assert second.image == tmp_path / "train/MOTS20-02/img1/000002.png"
    assert second.read().size == (3, 4)
    assert not second.read().instance_map.any()


def test_a_sequence_without_objects_takes_its_size_from_images_or_the_list(tmp_path):
    folder = write_text(tmp_path, [])
    with pytest.raises(DataError, match=r"0002\.txt has no line, so nothing says which frames there are"):
        find_ground_truth(folder)
    (tmp_path / "frames.txt").write_text("0002 4 5 6 7\n")
    assert [(frame.number, frame.read().size) for frame in find_ground_truth(folder)] == [
        (4, (6, 7)),
        (5, (6, 7)),
    ]
    (tmp_path / "frames.txt").unlink()
    write_png(tmp_path / "images/0002/000009.png", np.zeros((3, 4, 3), np.uint8))
    assert [(frame.number, frame.read().size) for frame in find_ground_truth(folder)] == [(9, (3, 4))]


def test_several_ignored_regions_of_a_frame_may_touch(tmp_path):
    left, right = np.zeros((2, 4)), np.zeros((2, 4))
    left[:, :3], right[:, 2:] = 1, 1
    (frame,) = find_ground_truth(write_text(tmp_path, [line(0, 10000, left), line(0, 10000, right)]))
    assert (frame.read().semantic_map == mots.IGNORED_CLASS).all()


ONE, OTHER = np.eye(3, 4), np.eye(3, 4)[::-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["0 1001 1 3 4"], "line 1: expected `frame id class height width runs`"),
        (["0 1001 1 3 4444444444 abc"], "line 1: expected .* whole numbers"),
        (["0 1001 1 3 4.5 abc"], "line 1: expected .*Got: '0 1001 1 3 4.5 abc'"),
        (["", line(0, 1001, ONE, class_id=2)], "line 2: the id must be class .* Got: id 1001 and class 2"),
        ([line(0, 7, ONE)], "line 1: the id must be .* Got: id 7 and class 0"),
        ([line(0, 70001, ONE)], "line 1: the id must be .* at most 65535. Got: id 70001 and class 70"),
        (
            [line(0, 1001, ONE), line(1, 1001, np.eye(4, 3))],
            r"line 2: .* one size .* Got: \(4, 3\) after \(3, 4\)",
        ),
        ([line(0, 1001, ONE), line(0, 1001, OTHER)], "line 2: object 1001 is in frame 0 already, see line 1"),
    ],
)
def test_lines_that_are_wrong_are_named(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"0002\.txt, {message}"):
        find_ground_truth(write_text(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([line(0, 1001, ONE), line(0, 2001, ONE)], r"line 2: objects 1001 and 2001 \(line 1\) share pixels"),
        ([line(0, 1001, ONE), line(0, 10000, ONE)], "line 1: object 1001 and an ignored region share pixels"),
        ([line(0, 1001, np.eye(9), size=(3, 4))], "line 1: object 1001: .* must have 12 pixels. Got: 81"),
        # So large that an array of this size could not be made.
        (["0 1001 1 375000000 124200000 711"], "line 1: object 1001: .* must have 46575000000000000 pixels"),
        (["0 1001 1 3 4 7X"], "line 1: object 1001: the run-length encoding is cut short"),
    ],
)
def test_masks_that_are_wrong_are_named(tmp_path, content, message):
    (frame,) = find_ground_truth(write_text(tmp_path, content))
    with pytest.raises(DataError, match=rf"0002\.txt, {message}"):
        frame.read()


def test_frames_that_do_not_exist_are_named(tmp_path):
    folder = write_text(tmp_path, lines(0, FIRST) + lines(5, SECOND))
    write_png(tmp_path / "images/0002/000000.png", np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r"line 4: frame 5 does not exist; the folder of images has 1 frames"):
        find_ground_truth(folder)
    (tmp_path / "frames.txt").write_text("0002 0 4 3 4\n")
    with pytest.raises(DataError, match=r"line 4: frame 5 does not exist; frames\.txt has 5 frames, 0 to 4"):
        find_ground_truth(folder)
    (tmp_path / "frames.txt").write_text("0002 0 5 3 5\n")
    with pytest.raises(DataError, match=r"has frames of \(3, 4\), frames\.txt of \(3, 5\)"):
        find_ground_truth(folder)
    (tmp_path / "frames.txt").write_text("0002 0 5 3 4\n0003 0 5 3 4\n")
    with pytest.raises(DataError, match=r"lists 0003, which have no annotation file"):
        find_ground_truth(folder)
    (tmp_path / "frames.txt").write_text("0002 5 0 3 4\n")
    with pytest.raises(DataError, match=r"frames\.txt, line 1: no frames"):
        find_ground_truth(folder)


@given(arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from(IDS)))
def test_any_map_survives_its_text(ids):
    objects = tuple(
        mots_text.ObjectLine(place, object_id, runs)
        for place, (object_id, runs) in enumerate(encode_objects(ids))
    )
    assert [entry.object_id for entry in objects] == [value for value in np.unique(ids).tolist() if value]
    found, expected = mots_text.read_objects(Path("a.txt"), ids.shape, objects), mots.from_object_ids(ids)
    np.testing.assert_array_equal(found.semantic_map, expected.semantic_map)
    np.testing.assert_array_equal(found.instance_map, expected.instance_map)


@pytest.mark.parametrize("form", ["mots", "mots_text"])
def test_what_is_written_is_read_again(tmp_path, form):
    # Empty frames at both ends, which text has no line for, and a mask that reaches the last pixel.
    frames = {7: EMPTY, 8: FIRST, 9: SECOND, 10: EMPTY, 11: np.full((3, 4), 2000), 12: EMPTY}
    write_pictures(tmp_path / "source", {0: np.zeros((2, 2))}, sequence="0011")
    source = find_ground_truth(write_pictures(tmp_path / "source", frames))
    truth_writer(form)(source, tmp_path / "out", "mots")
    assert_same_truth(source, find_ground_truth(write_source(tmp_path / "out", form)))


def test_names_with_other_numbers_of_digits_survive_in_pictures_only(tmp_path):
    write_png(tmp_path / "source/instances/0002/0004.png", np.array(FIRST, np.uint16))
    source = find_ground_truth(write_source(tmp_path / "source", "mots"))
    truth_writer("mots")(source, tmp_path / "out", "mots")
    assert_same_truth(source, find_ground_truth(write_source(tmp_path / "out", "mots")))
    with pytest.raises(DataError, match=r"0002_0004 .* it would be another frame, 0002_000004"):
        truth_writer("mots_text")(source, tmp_path / "text", "mots")


@pytest.mark.parametrize("form", ["mots", "mots_text"])
def test_what_a_form_cannot_hold_is_refused_before_anything_is_there(tmp_path, form):
    out = tmp_path / "out"
    write = truth_writer(form)
    with pytest.raises(DataError, match=f"the form {form} holds the classes of mots. Got .* of cityscapes"):
        write([], out, "cityscapes")
    write_png(tmp_path / "city/gtFine/val/x/x_0_gtFine_instanceIds.png", np.array(FIRST, np.uint16))
    with pytest.raises(DataError, match=f"x_0 .*: the form {form} holds video"):
        write(find_ground_truth(write_source(tmp_path / "city", "cityscapes", split="val")), out, "mots")
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("form", ["mots", "mots_text"])
@pytest.mark.parametrize(
    ("class_id", "instance", "message"),
    [
        (0, 1, "Got: class 0, instance 1 on 2 pixels"),
        (1, 0, "Got: class 1, instance 0 on 2 pixels"),
        (1, 2001, "Got: class 1, instance 2001 on 2 pixels"),
        (10, 10000, "Got: class 10, instance 10000 on 2 pixels"),
        (26, 26001, r"raw ids \[26\] are no classes"),
    ],
)
def test_maps_that_a_form_cannot_hold_are_named(tmp_path, form, class_id, instance, message):
    good, bad = find_ground_truth(write_pictures(tmp_path / "source", {0: FIRST, 1: FIRST}))
    maps = PanopticMap(np.full((1, 2), class_id, np.uint8), np.full((1, 2), instance, np.uint16))
    changed = replace(bad, read=lambda: maps)
    with pytest.raises(DataError, match=f"frame 0002_000001 .*{message}"):
        truth_writer(form)([good, changed], tmp_path / "out", "mots")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_text_has_no_gaps_and_one_size(tmp_path):
    gap = find_ground_truth(write_pictures(tmp_path / "gap", {1: FIRST, 3: SECOND}))
    with pytest.raises(
        DataError, match=r"Got: frame 0002_000003 after 0002_000001; the form mots holds gaps"
    ):
        truth_writer("mots_text")(gap, tmp_path / "out", "mots")
    sizes = find_ground_truth(write_pictures(tmp_path / "sizes", {1: FIRST, 2: [[0, 1001]]}))
    with pytest.raises(DataError, match=r"one size \(rows, columns\). Got: \(1, 2\) after \(3, 4\)"):
        truth_writer("mots_text")(sizes, tmp_path / "out", "mots")


def test_nothing_is_written_over(tmp_path):
    source = find_ground_truth(write_pictures(tmp_path / "source", {0: FIRST}))
    with pytest.raises(DataError, match="holds files already"):
        truth_writer("mots")(source, tmp_path / "source", "mots")


@pytest.mark.parametrize("form", ["mots", "mots_text"])
def test_sequences_can_be_chosen(tmp_path, form):
    for sequence in ("0002", "0006", "0012"):
        write_pictures(tmp_path, {0: FIRST}, sequence)
        write_text(tmp_path, lines(0, FIRST), sequence)
    write_source(tmp_path, form, sequences="0012 0002")
    assert [frame.sequence for frame in find_ground_truth(tmp_path)] == ["0002", "0012"]
    write_source(tmp_path, form, sequences="0002 0007")
    with pytest.raises(
        DataError, match=r"the option sequences asks for 0007, .* there are: 0002, 0006, 0012"
    ):
        find_ground_truth(tmp_path)


def test_options_are_checked(tmp_path):
    write_pictures(tmp_path, {0: FIRST}, split="val")
    with pytest.raises(
        ConfigError, match="the adapter mots has no option 'split'; it has: raw_ids, sequences"
    ):
        find_ground_truth(tmp_path)


@needs_samples
def test_the_real_pictures_have_the_expected_counts():
    expected = json.loads((SAMPLES / "kitti_mots" / "expected_counts.json").read_text())
    assert len(expected) == 6
    for name, counts in expected.items():
        raw = mots.read_object_ids(SAMPLES / name)
        areas = Counter(raw.instance_map[raw.instance_map > 0].tolist())
        assert {str(value): area for value, area in areas.items()} == {
            value: n for value, n in counts.items() if value not in ("0", "10000")
        }
        assert (raw.semantic_map == mots.IGNORED_CLASS).sum() == counts["10000"]
        assert (raw.semantic_map == 0).sum() == counts["0"]


@needs_samples
def test_the_real_text_agrees_with_the_real_pictures(tmp_path):
    folder = write_source(tmp_path, "mots_text", str(SAMPLES / "kitti_mots"))
    frames = {frame.frame_id: frame for frame in find_ground_truth(folder)}
    # Frame 0 to the last line of each; one of them shows no object.
    assert Counter(frame.sequence for frame in frames.values()) == {"0012": 78, "0014": 106}
    pictures = list(mots.find_truth(SAMPLES / "kitti_mots", {}))
    assert len(pictures) == 6
    assert_same_truth([frames[frame.frame_id] for frame in pictures], pictures)
    ids = read_png(SAMPLES / "kitti_mots/instances/0014/000001.png")
    found = read_ground_truth(frames["0014_000001"], "mots3", "kitti_mots")
    np.testing.assert_array_equal(found.semantic_map == 2, ids // 1000 == 2)
    np.testing.assert_array_equal(found.semantic_map == VOID, ids == 10000)


@needs_samples
def test_the_real_text_is_written_as_it_was(tmp_path):
    source = list(mots_text.find_truth(SAMPLES / "kitti_mots", {}))
    truth_writer("mots_text")(source, tmp_path / "out", "mots")
    for sequence, n_objects in (("0012", 282), ("0014", 686)):
        name = f"instances_txt/{sequence}.txt"
        written = (tmp_path / "out" / name).read_text().splitlines()
        original = (SAMPLES / "kitti_mots" / name).read_text().splitlines()
        # Objects of a frame come in another order.
        assert len(written) == n_objects
        assert sorted(written) == sorted(original)


@needs_samples
def test_the_real_frames_survive_every_video_form(tmp_path):
    source = list(mots_text.find_truth(SAMPLES / "kitti_mots", {"sequences": "0012"}))[:8]
    held = source
    for form in ("mots", "kitti_step", "coco_panoptic", "mots_text"):
        truth_writer(form)(held, tmp_path / form, "mots")
        held = find_ground_truth(write_source(tmp_path / form, form, raw_ids="mots"))
        assert_same_truth(source, held)


def test_a_number_that_no_frame_has_costs_no_memory(tmp_path):
    content = lines(0, FIRST)
    folder = write_text(tmp_path, [*content, content[0].replace("0 ", "999999999 ", 1)])
    with pytest.raises(DataError, match=r"frames are 0 to 999999\. Got: 999999999"):
        find_ground_truth(folder)
