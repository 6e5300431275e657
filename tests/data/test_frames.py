from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gestalt.config.frames import FrameSettings
from gestalt.config.presets import default_settings
from gestalt.data.frames import (
    frame_geometry,
    load_left,
    load_measurements,
    load_stereo,
    move_intrinsics,
    valid_region,
)
from gestalt.data.images import write_png
from gestalt.data.kitti_maps import write_disparity, write_optical_flow
from gestalt.data.records import StereoFrame
from gestalt.errors import DataError
from tests.data.video import DISPARITY, HEIGHT, WIDTH, plane

K = np.array([[200.0, 0, 95], [0, 201, 47], [0, 0, 1]])


def settings(scale=1.0, height=0, width=0, top=0.0, bottom=0.0, side=0.0) -> FrameSettings:
    return FrameSettings(scale, height, width, top, bottom, side)


@pytest.fixture
def frame(tmp_path) -> StereoFrame:
    paths = {}
    for name, time, side in (
        ("left", 0, "left"),
        ("right", 0, "right"),
        ("left_next", 1, "left"),
        ("right_next", 1, "right"),
    ):
        paths[name] = tmp_path / f"{name}.png"
        write_png(paths[name], plane(time, side))
    return StereoFrame(
        "b", "s", "f", **paths, height=HEIGHT, width=WIDTH, intrinsics=K, stereo_baseline=0.5, time_step_s=0.1
    )


def test_without_scale_and_crop_images_are_as_stored(frame):
    images = load_stereo(frame, settings())
    np.testing.assert_array_equal(images.left, plane(0, "left"))
    np.testing.assert_array_equal(images.right_next, plane(1, "right"))
    np.testing.assert_array_equal(images.intrinsics, K)
    np.testing.assert_array_equal(load_left(frame, settings()), images.left)
    assert images.valid.all()
    # The plane lies at one disparity: a point at column x on the left is at x - d on the right.
    np.testing.assert_array_equal(images.left[:, DISPARITY:], images.right[:, :-DISPARITY])


def test_a_crop_is_centred_and_padding_is_black_and_invalid(frame):
    images = load_stereo(frame, settings(height=40, width=WIDTH + 10))
    assert images.left.shape == (40, WIDTH + 10, 3)
    np.testing.assert_array_equal(images.left[:, 5:-5], plane(0, "left")[28:68])
    assert (images.left[:, :5] == 0).all()
    assert (images.left[:, -5:] == 0).all()
    np.testing.assert_array_equal(images.valid.any(0), [False] * 5 + [True] * WIDTH + [False] * 5)


@given(
    size=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    scale=st.sampled_from([0.5, 0.625, 1.0, 1.7]),
    crop=st.tuples(st.integers(0, 120), st.integers(0, 120)),
)
def test_a_point_projects_to_the_pixel_that_shows_it(size, scale, crop):
    # A pixel's centre, taken through the image's geometry, is where the moved intrinsics put its ray.
    geometry = frame_geometry(*size, settings(scale, *crop))
    ray = np.linalg.inv(K) @ [13.0, 7.0, 1.0]
    projected = move_intrinsics(K, geometry) @ ray
    scaled = [(13.5 * geometry.scaled[1] / size[1]) - 0.5, (7.5 * geometry.scaled[0] / size[0]) - 0.5]
    expected = [scaled[0] - geometry.offset[1], scaled[1] - geometry.offset[0], 1]
    np.testing.assert_allclose(projected, expected, atol=1e-9)


def test_a_bright_dot_is_found_where_the_intrinsics_say(tmp_path, frame):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[40:44, 120:124] = 255  # centre (121.5, 41.5)
    write_png(frame.left, image)
    wanted = settings(0.5, 40, 100)
    images = load_stereo(frame, wanted)
    rows, columns = np.nonzero(images.left[..., 0] > 100)
    ray = np.linalg.inv(K) @ [121.5, 41.5, 1]
    np.testing.assert_allclose((images.intrinsics @ ray)[:2], [columns.mean(), rows.mean()], atol=0.01)


def test_the_crop_of_kitti_moves_the_principal_point():
    geometry = frame_geometry(375, 1242, default_settings("frames", "kitti"))
    moved = move_intrinsics(np.array([[721.5, 0, 609.5], [0, 721.5, 172.8], [0, 0, 1]]), geometry)
    np.testing.assert_allclose(moved[:2, 2], [609.5 - (1242 - 1104) // 2, 172.8 - (375 - 368) // 2])


def test_the_paper_sizes_of_cityscapes():
    paper = default_settings("frames", "paper")
    geometry = frame_geometry(1024, 2048, paper)
    assert geometry.size == (640, 1280)
    assert geometry.offset == (0, 0)
    valid = valid_region(geometry, paper)
    assert valid.any(1).argmax() == 32
    assert valid[::-1].any(1).argmax() == 128
    assert valid.any(0).argmax() == valid[:, ::-1].any(0).argmax() == 60
    assert move_intrinsics(np.diag([2262.5, 2265.3, 1.0]), geometry)[0, 0] == pytest.approx(1414.06, abs=0.01)


def test_the_valid_region_rounds_to_stored_pixels():
    valid = valid_region(
        frame_geometry(1024, 2048, settings()), settings(top=0.05, bottom=0.2, side=0.046875)
    )
    np.testing.assert_array_equal(np.flatnonzero(valid.any(1))[[0, -1]], [51, 1023 - 205])
    np.testing.assert_array_equal(np.flatnonzero(valid.any(0))[[0, -1]], [96, 2047 - 96])


def test_stored_measurements_are_scaled_with_the_images(tmp_path, frame):
    optical_flow = np.zeros((2, HEIGHT, WIDTH), np.float32)
    optical_flow[0], optical_flow[1] = 8, -4
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[:, : WIDTH // 2] = False
    write_optical_flow(tmp_path / "f.png", optical_flow, valid)
    write_disparity(tmp_path / "d0.png", np.full((HEIGHT, WIDTH), 20, np.float32))
    write_disparity(tmp_path / "d1.png", np.full((HEIGHT, WIDTH), 22, np.float32))
    assert load_measurements(frame, settings()) is None
    frame = replace(
        frame,
        right=None,
        right_next=None,
        optical_flow=tmp_path / "f.png",
        disparity=tmp_path / "d0.png",
        disparity_next=tmp_path / "d1.png",
    )
    assert frame.has_measurements
    assert load_stereo(frame, settings()).right is None
    found = load_measurements(frame, settings(0.5, 40, 80))
    assert found is not None
    assert found.optical_flow.shape == (2, 40, 80)
    np.testing.assert_array_equal(found.optical_flow_valid[0], [False] * 40 + [True] * 40)
    np.testing.assert_array_equal(found.optical_flow[:, 0, -1], [4, -2])
    assert (found.disparity == 10).all()
    assert (found.disparity_next_warped == 11).all()


def test_another_size_than_the_manifest_says_is_an_error(frame):
    write_png(frame.right_next, np.zeros((HEIGHT, WIDTH - 1, 3), np.uint8))
    with pytest.raises(DataError, match=r"size mismatch: .*right_next.png is 96 x 191 .* expected 96 x 192"):
        load_stereo(frame, settings())
