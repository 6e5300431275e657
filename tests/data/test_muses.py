"""MUSES: COCO panoptic files in folders by split, weather and time."""

import json

import numpy as np
import pytest

from gestalt.data.ground_truth import dataset_of, find_ground_truth, read_ground_truth
from gestalt.data.images import write_png
from gestalt.errors import DataError
from gestalt.panoptic import VOID, ids_to_rgb
from tests.data.video import write_source

SCENES = (
    "val/clear/day/REC0006_frame_043620",
    "val/clear/night/REC0100_frame_000001",
    "val/fog/day/REC0241_frame_499918",
)
SEGMENTS = [
    {"id": 1, "category_id": 7, "iscrowd": 0, "area": 2},
    {"id": 259, "category_id": 26, "iscrowd": 0, "area": 1},
    {"id": 65540, "category_id": 26, "iscrowd": 0, "area": 1},
    {"id": 5, "category_id": 24, "iscrowd": 1, "area": 1},
]
IDS = [[1, 1, 259], [65540, 5, 0]]


def write_muses(root, scenes=SCENES, segments=SEGMENTS, **options):
    for scene in scenes:
        write_png(root / "gt_panoptic" / f"{scene}_gt_panoptic.png", ids_to_rgb(np.array(IDS)))
    names = [scene.rpartition("/")[2] for scene in scenes]
    content = {
        "images": [
            {"id": name, "file_name": f"{scene}_frame_camera.png"} for name, scene in zip(names, scenes)
        ],
        "annotations": [
            {"image_id": name, "file_name": f"{scene}_gt_panoptic.png", "segments_info": segments}
            for name, scene in zip(names, scenes)
        ],
        "categories": [{"id": i, "name": str(i), "isthing": int(i >= 24)} for i in (7, 24, 26)],
    }
    (root / "gt_panoptic" / "val.json").write_text(json.dumps(content))
    return write_source(root, "muses", **options)


@pytest.mark.parametrize("crowd_is_void", [True, False])
def test_segments_become_classes_and_instances(tmp_path, crowd_is_void):
    folder = write_muses(tmp_path, SCENES[:1], crowd_is_void=crowd_is_void)
    (frame,) = find_ground_truth(folder)
    assert dataset_of(folder) == "muses"
    assert frame.frame_id == "REC0006_frame_043620"
    assert frame.image == tmp_path / f"frame_camera/{SCENES[0]}_frame_camera.png"
    assert frame.annotation.exists()
    found = read_ground_truth(frame, "cityscapes19", "muses")
    crowd = VOID if crowd_is_void else 11
    np.testing.assert_array_equal(found.semantic_map, [[0, 0, 13], [13, crowd, VOID]])
    np.testing.assert_array_equal(found.instance_map > 0, [[False, False, True], [True, False, False]])
    assert found.instance_map[0, 2] != found.instance_map[1, 0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, SCENES), ({"weather": "clear"}, SCENES[:2]), ({"weather": "clear", "time": "day"}, SCENES[:1]),
     ({"time": "day"}, (SCENES[0], SCENES[2]))],
)  # fmt: skip
def test_weather_and_time_choose_frames(tmp_path, options, expected):
    frames = find_ground_truth(write_muses(tmp_path, **options))
    assert {frame.frame_id for frame in frames} == {scene.rpartition("/")[2] for scene in expected}


def test_a_weather_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no ground truth in the layout of muses"):
        find_ground_truth(write_muses(tmp_path, weather="snow"))


def test_pictures_that_disagree_with_the_list_and_missing_lists_are_errors(tmp_path):
    (frame,) = find_ground_truth(write_muses(tmp_path, SCENES[:1], SEGMENTS[1:]))
    with pytest.raises(DataError, match=r"REC0006_frame_043620_gt_panoptic\.png holds segment 1"):
        frame.read()
    write_source(tmp_path, "muses", split="train")
    with pytest.raises(DataError, match=r"train\.json does not exist"):
        find_ground_truth(tmp_path)
