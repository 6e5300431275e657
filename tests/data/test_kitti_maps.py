import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gestalt.data.images import write_png
from gestalt.data.kitti_maps import (
    pack_disparity,
    read_disparity,
    read_optical_flow,
    unpack_disparity,
    write_disparity,
    write_optical_flow,
)
from gestalt.errors import DataError, ShapeError
from tests.data.video import SAMPLES, needs_samples


@given(arrays(np.float32, (4, 5), elements=st.floats(-2, 255, width=32)))
def test_disparity_survives_packing_up_to_half_a_unit(disparity):
    back = unpack_disparity(pack_disparity(disparity))
    known = disparity > 0
    np.testing.assert_array_equal(back > 0, known)
    # Values below half a unit are raised to one unit: "near zero" must not become "unknown".
    np.testing.assert_allclose(back[known], disparity[known], atol=1 / 256)


def test_unknown_disparity_is_zero_and_large_disparity_is_clipped():
    packed = pack_disparity(np.array([[np.nan, np.inf, -1, 0, 300, 1e-6]], np.float32))
    np.testing.assert_array_equal(packed, [[0, 0, 0, 0, 65535, 1]])


def test_disparity_files_hold_pixels_times_256(tmp_path):
    write_disparity(tmp_path / "d.png", np.array([[0, 1.5], [100.25, 2]], np.float32))
    np.testing.assert_array_equal(read_disparity(tmp_path / "d.png"), [[0, 1.5], [100.25, 2]])


def test_optical_flow_survives_its_file_up_to_half_a_unit(tmp_path):
    generator = np.random.default_rng(0)
    optical_flow = generator.uniform(-500, 500, (2, 7, 9)).astype(np.float32)
    valid = generator.random((7, 9)) < 0.7
    write_optical_flow(tmp_path / "f.png", optical_flow, valid)
    back, back_valid = read_optical_flow(tmp_path / "f.png")
    np.testing.assert_array_equal(back_valid, valid)
    np.testing.assert_allclose(back[:, valid], optical_flow[:, valid], atol=1 / 128 + 1e-4)
    assert (back[:, ~valid] == 0).all()


def test_eight_bit_files_are_refused(tmp_path):
    write_png(tmp_path / "8.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match="16-bit PNG with three channels"):
        read_optical_flow(tmp_path / "8.png")
    with pytest.raises(DataError, match="16-bit PNG with one channel"):
        read_disparity(tmp_path / "8.png")
    with pytest.raises(ShapeError, match=r"\(2, H, W\)"):
        write_optical_flow(tmp_path / "x.png", np.zeros((2, 2, 2), np.float32), np.zeros((3, 3), bool))


@needs_samples
def test_real_optical_flow_has_the_published_range():
    valid = read_optical_flow(SAMPLES / "kitti_scene_flow" / "training" / "flow_noc" / "000000_10.png")[1]
    assert valid.sum() == 75453
    results = SAMPLES / "kitti_scene_flow_results" / "self-mono-sf"
    optical_flow, valid = read_optical_flow(results / "flow" / "000139_10.png")
    assert valid.all()
    np.testing.assert_allclose([optical_flow[0].min(), optical_flow[0].max()], [-195.6, 113.6], atol=0.05)
    np.testing.assert_allclose([optical_flow[1].min(), optical_flow[1].max()], [-7.3, 64.4], atol=0.05)


@needs_samples
def test_real_disparity_has_the_published_range():
    results = SAMPLES / "kitti_scene_flow_results" / "self-mono-sf"
    now, after = (
        read_disparity(results / "disp_0" / "000139_10.png"),
        read_disparity(results / "disp_1" / "000139_10.png"),
    )
    np.testing.assert_array_equal([now.min(), now.max()], np.array([194, 18594]) / 256)
    np.testing.assert_array_equal([after.min(), after.max()], np.array([1256, 24495]) / 256)
