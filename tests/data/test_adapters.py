import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gestalt.data.adapters import TRUTH_ADAPTERS, VIDEO_ADAPTERS, truth_adapter, video_adapter
from gestalt.data.adapters.cityscapes import cut_snippets
from gestalt.data.adapters.kitti_raw import EXCLUDED_DRIVES, VALIDATION_FRAMES, read_lines
from gestalt.data.adapters.sequence_pairs import NumberedFrame
from gestalt.data.images import write_png
from gestalt.data.records import BrokenFrame, StereoPair
from gestalt.errors import ConfigError, DataError
from tests.data.video import (
    SAMPLES,
    needs_samples,
    plane,
    write_cityscapes_video,
    write_folder_video,
)

P_LEFT = "700 0 96 35 0 700 48 0 0 0 1 0"
P_RIGHT = "700 0 96 -315 0 700 48 0 0 0 1 0"


def find(name, root, **options):
    found = list(VIDEO_ADAPTERS[name](root, options))
    pairs = [entry for entry in found if isinstance(entry, StereoPair)]
    broken = [entry for entry in found if isinstance(entry, BrokenFrame)]
    return pairs, broken


def ids(pairs):
    return [pair.frame_id for pair in pairs]


def write_images(folder, numbers, digits):
    for number in numbers:
        write_png(folder / f"{number:0{digits}d}.png", plane(number, "left"))


def test_unknown_adapters_are_answered_with_the_known_ones():
    with pytest.raises(
        ConfigError, match="known adapters of stereo video: cityscapes, folder, kitti_odometry"
    ):
        video_adapter("bdd")
    with pytest.raises(ConfigError, match="known adapters of ground truth: bdd, bdd_scalabel, cityscapes, "):
        truth_adapter("folder")


# Their frames stand in a file, which must be there.
LISTED_IN_JSON = {"bdd_scalabel", "cityscapes_panoptic", "coco_panoptic", "muses"}


@pytest.mark.parametrize("adapters", [VIDEO_ADAPTERS, TRUTH_ADAPTERS])
def test_every_adapter_finds_nothing_in_an_empty_folder_and_refuses_unknown_options(adapters, tmp_path):
    for name, find_all in adapters.items():
        if name in LISTED_IN_JSON:
            with pytest.raises(DataError, match=r"\.json does not exist"):
                list(find_all(tmp_path, {}))
        else:
            assert list(find_all(tmp_path, {})) == []
        with pytest.raises(ConfigError, match=f"adapter {name} has no option 'colour'"):
            list(find_all(tmp_path, {"colour": "blue"}))


# Cityscapes


def test_cityscapes_pairs_never_cross_snippets(tmp_path):
    write_cityscapes_video(tmp_path, range(6), cameras=(0, 5))
    pairs, broken = find("cityscapes", tmp_path, snippet_length=3)
    assert ids(pairs) == [f"city_000000_{i:06d}" for i in (0, 1, 3, 4)]
    assert [pair.sequence for pair in pairs] == ["city_000000_000000"] * 2 + ["city_000000_000003"] * 2
    assert not broken
    assert pairs[0].left.name == "city_000000_000000_leftImg8bit.png"
    assert pairs[0].right_next.name == "city_000000_000001_rightImg8bit.png"
    assert pairs[0].time_step_s == pytest.approx(1 / 17)
    assert pairs[0].stereo_baseline == 0.5


def frames(numbers):
    return {number: NumberedFrame(number, None, None) for number in numbers}


@given(st.integers(1, 5), st.integers(0, 1000), st.sampled_from([0, 15, 200]), st.integers(2, 30))
def test_full_snippets_are_cut_whole(n_snippets, first, pause, length):
    pause = pause if pause + 1 >= max(2, length / 2) else 0
    starts = [first + i * (length + pause) for i in range(n_snippets)]
    found = cut_snippets(frames(start + i for start in starts for i in range(length)), length)
    assert [sorted(snippet) for snippet in found] == [list(range(start, start + length)) for start in starts]


def test_a_missing_frame_does_not_shift_the_next_snippets():
    found = cut_snippets(frames(set(range(90)) - {10, 45}), 30)
    assert [(min(snippet), max(snippet)) for snippet in found] == [(0, 29), (30, 59), (60, 89)]


def test_two_frames_of_each_snippet_are_enough(tmp_path):
    write_cityscapes_video(tmp_path, [19, 20, 49, 50, 79, 80], cameras=(19, 49, 79))
    pairs, broken = find("cityscapes", tmp_path)
    assert ids(pairs) == [f"city_000000_{i:06d}" for i in (19, 49, 79)]
    assert not broken


def test_a_gap_and_a_single_frame_are_reported(tmp_path):
    write_cityscapes_video(tmp_path, [0, 1, 3, 4])
    write_cityscapes_video(tmp_path, [7], sequence="city_000001", cameras=(7,))
    pairs, broken = find("cityscapes", tmp_path)
    assert ids(pairs) == ["city_000000_000000", "city_000000_000003"]
    assert [entry.reason.partition(":")[0] for entry in broken] == ["frame gap", "one-frame sequence"]
    assert "after frame 1 of city_000000_000000 comes frame 3" in broken[0].reason


def test_a_camera_file_too_far_away_is_no_calibration(tmp_path):
    write_cityscapes_video(tmp_path, range(3), cameras=(21,))
    pairs, broken = find("cityscapes", tmp_path)
    assert not pairs
    assert ids(broken) == ["city_000000_000000", "city_000000_000001"]
    assert all(
        entry.reason.startswith("missing calibration: no camera file of city_000000") for entry in broken
    )
    write_cityscapes_video(tmp_path, range(3), cameras=(19,))
    assert len(find("cityscapes", tmp_path)[0]) == 2


# Plain folders


def test_one_folder_is_one_sequence(tmp_path):
    write_folder_video(tmp_path, range(3))
    pairs, broken = find("folder", tmp_path)
    assert ids(pairs) == ["sequence_0000", "sequence_0001"]
    assert not broken
    assert pairs[0].time_step_s == 1 / 8


def test_sub_folders_are_sequences_with_a_calibration_of_their_own_or_a_shared_one(tmp_path):
    write_folder_video(tmp_path / "a b", range(2))
    write_folder_video(tmp_path / "c", range(2), stereo_baseline=0.7)
    shutil.move(tmp_path / "a b" / "calibration.yaml", tmp_path / "calibration.yaml")
    pairs, broken = find("folder", tmp_path)
    assert ids(pairs) == ["a-b_0000", "c_0000"]
    assert [pair.stereo_baseline for pair in pairs] == [0.5, 0.7]
    assert not broken


def test_images_with_other_names_on_the_right_belong_together_by_order(tmp_path):
    write_folder_video(tmp_path, range(3))
    for path in (tmp_path / "right").iterdir():
        path.rename(path.with_name(f"r{path.name}"))
    pairs, _ = find("folder", tmp_path)
    assert [pair.right.name for pair in pairs] == ["r0000.png", "r0001.png"]


def test_a_missing_right_image_is_not_replaced_by_another(tmp_path):
    write_folder_video(tmp_path, range(4))
    (tmp_path / "right" / "0001.png").unlink()
    pairs, _ = find("folder", tmp_path)
    assert [pair.right.name for pair in pairs] == ["0000.png", "0001.png", "0002.png"]


def test_a_sequence_without_left_images_is_reported_and_the_others_go_on(tmp_path):
    write_folder_video(tmp_path / "a", range(3))
    write_folder_video(tmp_path / "b", range(3))
    shutil.rmtree(tmp_path / "a" / "left")
    (tmp_path / "notes").mkdir()
    pairs, broken = find("folder", tmp_path)
    assert {pair.sequence for pair in pairs} == {"b"}
    assert [entry.sequence for entry in broken] == ["a"]
    assert "left does not exist" in broken[0].reason


@pytest.mark.parametrize(
    ("numbers", "n_pairs", "n_gaps"),
    [([0, 5, 10, 15], 3, 0), ([0, 1, 2, 4, 5], 3, 1), ([0, 2, 4, 8, 10], 3, 1)],
)
def test_frame_numbers_count_in_their_usual_step(tmp_path, numbers, n_pairs, n_gaps):
    write_folder_video(tmp_path, numbers)
    pairs, broken = find("folder", tmp_path)
    assert (len(pairs), len(broken)) == (n_pairs, n_gaps)
    assert all(entry.reason.startswith("frame gap") for entry in broken)


def test_a_zero_stereo_baseline_breaks_every_pair_of_its_sequence_only(tmp_path):
    write_folder_video(tmp_path / "a", range(3), stereo_baseline=0)
    write_folder_video(tmp_path / "b", range(3))
    pairs, broken = find("folder", tmp_path)
    assert ids(pairs) == ["b_0000", "b_0001"]
    assert [entry.sequence for entry in broken] == ["a", "a"]
    assert "stereo_baseline must be positive" in broken[0].reason


# KITTI


def write_drive(root, number="0001", n=12, date="2011_09_26"):
    drive = root / date / f"{date}_drive_{number}_sync"
    write_images(drive / "image_02" / "data", range(n), 10)
    write_images(drive / "image_03" / "data", range(n), 10)
    (root / date / "calib_cam_to_cam.txt").write_text(f"P_rect_02: {P_LEFT}\nP_rect_03: {P_RIGHT}\n")


def test_kitti_raw_reads_synchronised_drives(tmp_path):
    write_drive(tmp_path, n=3)
    (tmp_path / "2011_09_26" / "2011_09_26_drive_0001_extract").mkdir()
    pairs, broken = find("kitti_raw", tmp_path)
    assert ids(pairs) == [f"2011_09_26_drive_0001_sync_{i:010d}" for i in (0, 1)]
    assert not broken
    assert pairs[0].stereo_baseline == pytest.approx(0.5)
    assert pairs[0].time_step_s == pytest.approx(0.1)


def test_kitti_drives_and_sequences_without_images_are_reported(tmp_path):
    write_drive(tmp_path, n=3)
    empty = tmp_path / "2011_09_26" / "2011_09_26_drive_0002_sync" / "image_02" / "data"
    empty.mkdir(parents=True)
    pairs, broken = find("kitti_raw", tmp_path)
    assert len(pairs) == 2
    assert [entry.reason.partition(":")[0] for entry in broken] == ["empty sequence"]
    assert "holds no image" in broken[0].reason
    (tmp_path / "odometry" / "sequences" / "07").mkdir(parents=True)
    pairs, broken = find("kitti_odometry", tmp_path / "odometry")
    assert not pairs
    assert [entry.sequence for entry in broken] == ["07"]


def test_kitti_raw_keeps_validation_frames_and_their_neighbours_out(tmp_path):
    assert len(set(read_lines(VALIDATION_FRAMES))) == 142
    write_drive(tmp_path, "0005", n=24)  # frame 10 is one of them
    pairs, broken = find("kitti_raw", tmp_path)
    assert {int(pair.frame_id[-10:]) for pair in pairs} == {*range(4), *range(16, 23)}
    assert not broken
    assert len(find("kitti_raw", tmp_path, exclude_validation=False)[0]) == 23


def test_kitti_raw_keeps_frames_of_a_list_out(tmp_path):
    write_drive(tmp_path, n=24)
    (tmp_path / "mine.txt").write_text("# of my own set\n2011_09_26_drive_0001_sync 0000000010\n")
    pairs, broken = find("kitti_raw", tmp_path, excluded_frames="mine.txt", excluded_radius=2)
    used = {int(pair.frame_id[-10:]) for pair in pairs}
    assert used == {*range(7), *range(13, 23)}
    assert not broken
    with pytest.raises(DataError, match=r"the list .*no\.txt does not exist"):
        find("kitti_raw", tmp_path, excluded_frames="no.txt")
    (tmp_path / "bad.txt").write_text("2011_09_26_drive_0001_sync\n")
    with pytest.raises(DataError, match="a line must be `<drive> <frame>`"):
        find("kitti_raw", tmp_path, excluded_frames="bad.txt")


def test_kitti_raw_leaves_out_83_drives(tmp_path):
    drives = read_lines(EXCLUDED_DRIVES)
    assert len(drives) == len(set(drives)) == 83
    assert sum(drive.startswith("2011_09_28") for drive in drives) == 79
    assert not {"2011_09_28_drive_0053_sync", "2011_09_28_drive_0054_sync"} & set(drives)
    write_drive(tmp_path, "0119", n=3)
    assert find("kitti_raw", tmp_path) == ([], [])
    assert len(find("kitti_raw", tmp_path, exclude_drives=False)[0]) == 2


def test_kitti_raw_without_calibration_is_broken(tmp_path):
    write_drive(tmp_path, n=3)
    (tmp_path / "2011_09_26" / "calib_cam_to_cam.txt").unlink()
    pairs, broken = find("kitti_raw", tmp_path)
    assert not pairs
    assert [entry.reason.partition(":")[0] for entry in broken] == ["missing calibration"] * 2


def test_kitti_odometry_prefers_colour(tmp_path):
    folder = tmp_path / "sequences" / "00"
    for camera in (0, 1, 2, 3):
        write_images(folder / f"image_{camera}", range(3), 6)
    (folder / "calib.txt").write_text(f"P0: {P_LEFT}\nP1: {P_RIGHT}\nP2: {P_LEFT}\nP3: {P_RIGHT}\n")
    pairs, _ = find("kitti_odometry", tmp_path)
    assert {pair.left.parent.name for pair in pairs} == {"image_2"}
    shutil.rmtree(folder / "image_2")
    pairs, _ = find("kitti_odometry", tmp_path)
    assert {(pair.left.parent.name, pair.right.parent.name) for pair in pairs} == {("image_0", "image_1")}


@needs_samples
def test_the_real_odometry_sample_has_six_pairs():
    pairs, broken = find("kitti_odometry", SAMPLES / "kitti_odometry" / "dataset")
    assert ids(pairs) == [f"seq1_{i:06d}" for i in range(6)]
    assert not broken
    assert pairs[0].stereo_baseline == pytest.approx(0.53715, abs=1e-5)
    assert pairs[0].intrinsics[0, 0] == pytest.approx(707.0912)


@needs_samples
def test_stored_results_take_the_place_of_right_images():
    root = SAMPLES / "kitti_scene_flow"
    options = {"split": "testing", "measurements": "../kitti_scene_flow_results/self-mono-sf"}
    pairs, broken = find("kitti_scene_flow", root, **options)
    assert ids(pairs) == ["testing_000059", "testing_000139", "testing_000179"]
    assert not broken
    stored = pairs[1]
    assert stored.right is None
    assert stored.right_next is None
    assert stored.disparity_next.parts[-2:] == ("disp_1", "000139_10.png")
    assert pairs[0].optical_flow is None
    assert ids(find("kitti_scene_flow", root, complete_only=True, **options)[0]) == ["testing_000139"]


def test_video_of_one_camera_has_no_right_images_and_no_stereo_baseline(tmp_path):
    write_folder_video(tmp_path / "folder", range(3))
    shutil.rmtree(tmp_path / "folder" / "right")
    calibration = tmp_path / "folder" / "calibration.yaml"
    lines = [line for line in calibration.read_text().splitlines() if "stereo_baseline" not in line]
    calibration.write_text("\n".join(lines))
    write_cityscapes_video(tmp_path / "cityscapes", range(3))
    date = tmp_path / "kitti" / "2011_09_26"
    images = date / "2011_09_26_drive_0001_sync" / "image_02" / "data"
    odometry = tmp_path / "odometry" / "sequences" / "00"
    for number in range(3):
        write_png(images / f"{number:010d}.png", plane(number, "left"))
        write_png(odometry / "image_2" / f"{number:06d}.png", plane(number, "left"))
    (date / "calib_cam_to_cam.txt").write_text(f"P_rect_02: {P_LEFT}\n")
    (odometry / "calib.txt").write_text(f"P2: {P_LEFT}\n")
    scene_flow = tmp_path / "scene_flow" / "training"
    for name in ("000000_10.png", "000000_11.png"):
        write_png(scene_flow / "image_2" / name, plane(0, "left"))
    (scene_flow / "calib_cam_to_cam").mkdir()
    (scene_flow / "calib_cam_to_cam" / "000000.txt").write_text(f"P_rect_02: {P_LEFT}\n")
    for name, root, n_pairs in (
        ("folder", "folder", 2),
        ("cityscapes", "cityscapes", 2),
        ("kitti_raw", "kitti", 2),
        ("kitti_odometry", "odometry", 2),
        ("kitti_scene_flow", "scene_flow", 1),
    ):
        pairs, broken = find(name, tmp_path / root, monocular=True)
        assert (len(pairs), broken) == (n_pairs, []), name
        assert all(pair.right is None and pair.right_next is None for pair in pairs)
        assert all(np.isnan(pair.stereo_baseline) and pair.intrinsics[0, 0] > 0 for pair in pairs)


def test_a_stereo_delivery_still_needs_its_second_camera(tmp_path):
    write_folder_video(tmp_path, range(2), stereo_baseline=0.5)
    calibration = tmp_path / "calibration.yaml"
    calibration.write_text(calibration.read_text().replace("stereo_baseline: 0.5\n", ""))
    pairs, (broken,) = find("folder", tmp_path)
    assert not pairs
    assert "must hold exactly the numbers fx, fy, cx, cy, stereo_baseline, frame_rate_hz" in broken.reason
    calibration.write_text(calibration.read_text() + "\ncolour: 3")
    _, (broken,) = find("folder", tmp_path, monocular=True)
    assert "must hold exactly the numbers fx, fy, cx, cy, frame_rate_hz. Got: colour" in broken.reason


def test_names_of_cityscapes_frames_become_safe_and_splits_are_no_patterns(tmp_path):
    name = "frank furt_000000_000019_gtFine_instanceIds.png"
    write_png(tmp_path / "gtFine" / "val" / "x" / name, np.array([[7]], np.uint16))
    (frame,) = truth_adapter("cityscapes")(tmp_path, {})
    assert frame.frame_id == "frank-furt_000000_000019"
    assert frame.image.name == "frank furt_000000_000019_leftImg8bit.png"
    for split in ("*", "[v", "/nowhere", "train"):
        assert not list(truth_adapter("cityscapes")(tmp_path, {"split": split}))


@pytest.mark.parametrize("adapter", ["cityscapes", "kitti_panoptic"])
def test_ids_clipped_to_8_bits_are_no_void(tmp_path, adapter):
    folder = {"cityscapes": "gtFine/val/x", "kitti_panoptic": "instances"}[adapter]
    ids = np.array([[7, 26001]], np.uint16)
    write_png(tmp_path / folder / "a_gtFine_instanceIds.png", np.minimum(ids, 255).astype(np.uint8))
    (frame,) = truth_adapter(adapter)(tmp_path, {})
    with pytest.raises(DataError, match="probably clipped to 8 bits, so that every object became 255"):
        frame.read()
