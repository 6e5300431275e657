import json
from pathlib import Path

import numpy as np
import pytest

from gestalt.data.adapters import TRUTH_ADAPTERS
from gestalt.data.conversion import options_for
from gestalt.data.ground_truth import dataset_of, find_ground_truth
from gestalt.data.images import read_png
from gestalt.data.label_spaces import raw_classes
from gestalt.data.source import write_source_file
from gestalt.data.writers import TRUTH_WRITERS, truth_writer
from gestalt.errors import ConfigError, DataError
from gestalt.panoptic import VOID
from tests.data.truth import frame_of, panoptic, random_truth


def written(frames, form, out, dataset):
    truth_writer(form)(frames, out, dataset)
    write_source_file(out, form, ".", options_for(form, dataset))
    return {frame.frame_id: frame for frame in find_ground_truth(out)}


@pytest.mark.parametrize(
    ("form", "dataset"),
    [
        ("coco_panoptic", "cityscapes"),
        ("coco_panoptic", "bdd"),
        ("coco_panoptic", "waymo"),
        ("coco_panoptic", "mots"),
        ("cityscapes", "cityscapes"),
        ("cityscapes", "kitti_panoptic"),
        ("cityscapes", "waymo"),
        ("bdd", "bdd"),
        ("bdd_scalabel", "bdd"),
    ],
)
def test_what_is_written_is_read_again(tmp_path, form, dataset):
    generator = np.random.default_rng(5)
    maps = {
        f"city_{number:06d}_000019": random_truth(
            generator, dataset, numbers_like_cityscapes=form == "cityscapes"
        )
        for number in range(6)
    }
    found = written([frame_of(name, truth) for name, truth in maps.items()], form, tmp_path / "out", dataset)
    assert set(found) == set(maps)
    for name, expected in maps.items():
        panoptic = found[name].read()
        np.testing.assert_array_equal(panoptic.semantic_map, expected.semantic_map)
        np.testing.assert_array_equal(panoptic.instance_map, expected.instance_map)
    assert raw_classes(dataset_of(tmp_path / "out")) == raw_classes(dataset)


@pytest.mark.parametrize("form", ["coco_panoptic", "bdd_scalabel"])
def test_forms_with_a_place_for_sequences_keep_them(tmp_path, form):
    frames = [frame_of(f"f{number}", panoptic([[7]]), sequence="v", number=number) for number in (4, 7)]
    found = written(frames, form, tmp_path / "out", "bdd")
    assert [(found[name].sequence, found[name].number) for name in ("f4", "f7")] == [("v", 4), ("v", 7)]


def test_every_form_has_an_adapter_of_its_name():
    assert set(TRUTH_WRITERS) <= set(TRUTH_ADAPTERS)


def test_an_unknown_form_is_named():
    with pytest.raises(
        ConfigError, match=r"the form of ground truth is 'voc'; forms that can be written: bdd, "
    ):
        truth_writer("voc")


@pytest.mark.parametrize(
    ("form", "dataset", "truth", "message"),
    [
        ("coco_panoptic", "cityscapes", panoptic([[99]]), r"raw ids \[99\] are no classes of the data set"),
        ("coco_panoptic", "cityscapes", panoptic([[VOID]], [[3]]), "void has instances"),
        (
            "coco_panoptic",
            "cityscapes",
            panoptic([[26, 24]], [[3, 3]]),
            r"instance 3 .*Got: raw ids \[24, 26\]",
        ),
        (
            "cityscapes",
            "cityscapes",
            panoptic([[26]], [[25001]]),
            r"class 26 is called 26000 to 26999\. Got: 25001",
        ),
        (
            "cityscapes",
            "cityscapes",
            panoptic([[26]], [[5]]),
            "Got: 5; --renumber gives objects such numbers",
        ),
        ("bdd", "bdd", panoptic([[7]], [[5]]), "only categories from 31 on have instances"),
        ("bdd_scalabel", "bdd", panoptic([[7]], [[5]]), "only categories from 31 on have instances"),
    ],
)
def test_what_a_form_cannot_hold_names_the_frame_and_writes_nothing(tmp_path, form, dataset, truth, message):
    frames = [frame_of("good", panoptic([[7]])), frame_of("bad", truth)]
    with pytest.raises(DataError, match=message) as error:
        truth_writer(form)(frames, tmp_path / "out", dataset)
    assert "frame bad (truth/bad.png)" in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["bdd", "bdd_scalabel"])
def test_forms_whose_numbers_mean_one_data_set_hold_no_other(tmp_path, form):
    with pytest.raises(DataError, match=f"the form {form} holds the classes of bdd"):
        truth_writer(form)([frame_of("a", panoptic([[7]]))], tmp_path / "out", "cityscapes")


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "out").mkdir()
    frames = [frame_of("a", panoptic([[7]]))]
    truth_writer("bdd")(frames, tmp_path / "out", "bdd")
    with pytest.raises(DataError, match="out holds files already; nothing is written over it"):
        truth_writer("bdd")(frames, tmp_path / "out", "bdd")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is a file; nothing is written over it"):
        truth_writer("bdd")(frames, tmp_path / "file", "bdd")


def test_coco_files_say_what_other_tools_need(tmp_path):
    truth = panoptic(
        [[7, 7, 26, 26], [7, 3, 26, 24], [VOID, 3, 3, 24]], [[0, 0, 5, 5], [0, 0, 9, 0], [0, 0, 0, 0]]
    )
    truth_writer("coco_panoptic")([frame_of("a", truth)], tmp_path / "out", "cityscapes")
    content = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert content["images"] == [{"id": "a", "file_name": "a.png", "height": 3, "width": 4}]
    (annotation,) = content["annotations"]
    assert (annotation["image_id"], annotation["file_name"]) == ("a", "a.png")
    assert annotation["segments_info"] == [
        {"id": 65539, "category_id": 3, "area": 3, "bbox": [1, 1, 2, 2], "iscrowd": 0},
        {"id": 65543, "category_id": 7, "area": 3, "bbox": [0, 0, 2, 2], "iscrowd": 0},
        {"id": 65560, "category_id": 24, "area": 2, "bbox": [3, 1, 1, 2], "iscrowd": 1},
        {"id": 5, "category_id": 26, "area": 2, "bbox": [2, 0, 2, 1], "iscrowd": 0},
        {"id": 9, "category_id": 26, "area": 1, "bbox": [2, 1, 1, 1], "iscrowd": 0},
    ]
    categories = {entry["id"]: entry for entry in content["categories"]}
    assert categories[26] == {"id": 26, "name": "car", "supercategory": "thing", "isthing": 1}
    assert categories[7] == {"id": 7, "name": "road", "supercategory": "stuff", "isthing": 0}
    assert categories[3] == {"id": 3, "name": "out of roi", "supercategory": "void", "isthing": 0}
    red, green, blue = np.moveaxis(read_png(tmp_path / "out" / "panoptic" / "a.png").astype(int), -1, 0)
    expected = [[65543, 65543, 5, 5], [65543, 65539, 9, 65560], [0, 65539, 65539, 65560]]
    np.testing.assert_array_equal(red + 256 * green + 65536 * blue, expected)


def test_cityscapes_files_are_those_of_the_data_set(tmp_path):
    truth = panoptic([[7, 26, 26, VOID]], [[0, 26001, 0, 0]])
    truth_writer("cityscapes")([frame_of("ulm_000001_000019", truth)], tmp_path / "out", "cityscapes")
    stem = tmp_path / "out" / "gtFine" / "val" / "ulm" / "ulm_000001_000019_gtFine"
    ids, labels = read_png(Path(f"{stem}_instanceIds.png")), read_png(Path(f"{stem}_labelIds.png"))
    assert (ids.dtype, labels.dtype) == (np.uint16, np.uint8)
    np.testing.assert_array_equal(ids, [[7, 26001, 26, VOID]])
    np.testing.assert_array_equal(labels, [[7, 26, 26, VOID]])


def test_bitmasks_are_those_of_the_data_set(tmp_path):
    truth = panoptic([[7, 35, 35, 0]], [[0, 258, 0, 0]])
    truth_writer("bdd")([frame_of("a", truth)], tmp_path / "out", "bdd")
    mask = read_png(tmp_path / "out" / "labels/pan_seg/bitmasks/val/a.png")
    np.testing.assert_array_equal(mask, [[[7, 0, 0, 7], [35, 0, 1, 2], [35, 2, 0, 0], [0, 0, 0, 0]]])
