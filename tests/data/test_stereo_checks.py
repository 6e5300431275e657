import numpy as np
import pytest

from gestalt.data.images import read_image, write_png
from gestalt.data.records import StereoPair
from gestalt.data.stereo_checks import match_stereo, stereo_fault
from tests.data.video import SAMPLES, needs_samples, plane

LIMITS = {"check_width": 768, "min_matches": 24, "max_vertical_offset_px": 1.5, "max_negative_share": 0.5}
REAL = [
    ("kitti_scene_flow/testing/image_2/000059_10.png", "kitti_scene_flow/testing/image_3/000059_10.png"),
    ("kitti_scene_flow/testing/image_2/000179_10.png", "kitti_scene_flow/testing/image_3/000179_10.png"),
    (
        "kitti_odometry/dataset/sequences/seq1/image_0/000003.png",
        "kitti_odometry/dataset/sequences/seq1/image_1/000003.png",
    ),
    (
        "cityscapes/leftImg8bit/val/frankfurt/frankfurt_000000_009291_leftImg8bit.png",
        "cityscapes/rightImg8bit/val/frankfurt/frankfurt_000000_009291_rightImg8bit.png",
    ),
]


def pair(left, right):
    return StereoPair("s", "f", left, right, left, right, np.eye(3), 0.5, 0.1)


@pytest.fixture
def write(tmp_path):
    def write_pair(left, right):
        write_png(tmp_path / "l.png", left)
        write_png(tmp_path / "r.png", right)
        return pair(tmp_path / "l.png", tmp_path / "r.png")

    return write_pair


def test_a_good_pair_has_no_fault(write):
    assert stereo_fault(write(plane(0, "left"), plane(0, "right")), **LIMITS) == ""


def test_swapped_images_are_found(write):
    fault = stereo_fault(write(plane(0, "right"), plane(0, "left")), **LIMITS)
    assert fault.startswith("left and right swapped: 100% of")
    assert fault.endswith("have negative disparity; exchange the two folders")


@pytest.mark.parametrize("rows", [-4, 3])
def test_a_vertical_offset_is_found_and_measured(write, rows):
    fault = stereo_fault(write(plane(0, "left"), np.roll(plane(0, "right"), rows, 0)), **LIMITS)
    assert f"differ by {abs(rows)}.0 px in height (median), allowed are 1.5" in fault
    assert fault.startswith("not rectified: ")


def test_images_without_corners_or_without_a_right_one_give_no_verdict(write, tmp_path):
    grey = np.full_like(plane(0, "left"), 128)
    assert stereo_fault(write(grey, grey), **LIMITS) is None
    assert stereo_fault(pair(tmp_path / "l.png", None), **LIMITS) is None


@needs_samples
@pytest.mark.parametrize(("left", "right"), REAL)
def test_real_pairs_are_good_and_their_swaps_and_shifts_are_not(left, right):
    left, right = read_image(SAMPLES / left), read_image(SAMPLES / right)
    good = match_stereo(left, right, check_width=768)
    assert good.n_matches > 100
    assert good.vertical_offset_px < 1
    assert good.negative_share < 0.05
    assert match_stereo(right, left, check_width=768).negative_share > 0.7
    shifted = match_stereo(left, np.roll(right, 4, 0), check_width=768)
    assert shifted.vertical_offset_px == pytest.approx(4, abs=1.5)
