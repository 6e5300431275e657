"""Ground and geometry channels."""

import numpy as np
import pytest

from gestalt.semantics.disparity import fill_disparity
from gestalt.semantics.geometry import (
    N_CHANNELS,
    geometry_channels,
    height_above_ground,
    protrusion,
    vertical_extent,
)
from gestalt.semantics.ground import GroundLine, fit_ground_line

HEIGHT, WIDTH, HORIZON, SLOPE, BASELINE = 96, 192, 40.0, 0.35, 0.5


def street(noise: float = 0.2, seed: int = 0) -> np.ndarray:
    """Ground below row 40, a far wall above it, boxes on the ground, holes and noise."""
    generator = np.random.default_rng(seed)
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    disparity = np.broadcast_to(np.maximum(SLOPE * (rows - HORIZON), 2.0), (HEIGHT, WIDTH)).copy()
    disparity[30:70, 20:50] = SLOPE * (70 - HORIZON)
    disparity[35:60, 120:160] = SLOPE * (60 - HORIZON)
    disparity += generator.normal(0, noise, disparity.shape)
    disparity[generator.random(disparity.shape) < 0.15] = 0
    return disparity.astype(np.float32)


def test_ground_is_found_between_boxes_noise_and_holes() -> None:
    ground = fit_ground_line(street())
    assert ground is not None
    assert ground.slope == pytest.approx(SLOPE, rel=0.03)
    assert ground.horizon == pytest.approx(HORIZON, abs=2)


def test_boxes_on_most_of_the_ground_do_not_lift_it() -> None:
    disparity = street()
    disparity[30:80, : WIDTH * 6 // 10] = SLOPE * (80 - HORIZON)
    ground = fit_ground_line(disparity)
    assert ground is not None
    assert ground.slope == pytest.approx(SLOPE, rel=0.06)


def test_no_ground_is_found_where_there_is_none() -> None:
    assert fit_ground_line(np.zeros((HEIGHT, WIDTH), np.float32)) is None
    noise = np.zeros((HEIGHT, WIDTH), np.float32)
    noise[:, :3] = 5
    assert fit_ground_line(np.where(np.indices(noise.shape)[0] == 60, 5, 0).astype(np.float32)) is None


def test_heights_are_metres_above_the_ground() -> None:
    disparity = street(noise=0.0)
    camera_height = BASELINE / SLOPE
    disparity = fill_disparity(disparity)
    height = height_above_ground(disparity, GroundLine(SLOPE, HORIZON), BASELINE)
    assert np.median(np.abs(height[75:, 60:110])) < 0.02
    # The horizon is at the height of the camera, whatever the depth.
    assert np.median(height[40, 20:50]) == pytest.approx(camera_height, abs=0.05)


def test_protrusion_finds_narrow_near_things_and_ignores_wide_ones() -> None:
    disparity = np.full((10, 100), 8.0, np.float32)
    disparity[:, 20:24] = 16
    disparity[:, 50:90] = 16
    narrow = protrusion(disparity, 11)
    assert narrow[:, 20:24] == pytest.approx(8 / 19)
    assert narrow[:, 30:].max() == 0
    assert narrow[:, :20].max() == 0


def test_protrusion_is_zero_on_a_plane_and_at_the_border_of_the_image() -> None:
    rows = np.broadcast_to(np.linspace(1, 30, 20, dtype=np.float32)[:, None], (20, 60)).copy()
    assert protrusion(rows, 25).max() == 0


def test_extent_tells_tall_from_low_and_standing_from_floating() -> None:
    ground = GroundLine(SLOPE, HORIZON)
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    disparity = np.broadcast_to(np.maximum(SLOPE * (rows - HORIZON), 1.0), (HEIGHT, WIDTH)).copy()
    bottom, near = 70, SLOPE * (70 - HORIZON)

    def row_at(height_m: float) -> int:
        return round(HORIZON + (BASELINE / SLOPE - height_m) * near / BASELINE)

    disparity[row_at(3.0) : bottom, 20:40] = near  # tall
    disparity[row_at(1.5) : bottom, 60:80] = near  # low
    disparity[row_at(3.0) : row_at(1.8), 100:120] = near  # floating
    tall, low, floating = (row_at(1.0), 30), (row_at(1.0), 70), (row_at(2.2), 110)
    at_ground = vertical_extent(disparity, ground, BASELINE, 0.3)
    above = vertical_extent(disparity, ground, BASELINE, 2.2)
    assert at_ground[tall] > 0.9
    assert at_ground[low] > 0.9
    assert at_ground[floating] < 0.5
    assert above[tall] > 0.9
    assert above[low] < 0.1
    assert above[floating] > 0.9


def test_without_a_ground_heights_and_extents_are_zero() -> None:
    disparity = np.full((HEIGHT, WIDTH), 6.0, np.float32)
    channels = geometry_channels(disparity, BASELINE)
    assert channels is not None
    assert not channels[:3].any()
    assert not channels[7:].any()


def test_channels_are_finite_and_bounded() -> None:
    channels = geometry_channels(street(), BASELINE)
    assert channels is not None
    assert channels.shape == (N_CHANNELS, HEIGHT, WIDTH)
    assert channels.dtype == np.float32
    assert np.isfinite(channels).all()
    assert np.abs(channels[:3]).max() <= 1
    assert 0 <= channels[4:].min() <= channels[4:].max() <= 1


def test_channels_do_not_depend_on_the_size_of_the_image() -> None:
    disparity = street(noise=0.0)
    large = disparity.repeat(2, axis=0).repeat(2, axis=1) * 2
    small, doubled = geometry_channels(disparity, BASELINE), geometry_channels(large, BASELINE)
    assert small is not None
    assert doubled is not None
    difference = np.abs(doubled[:4, ::2, ::2] - small[:4])
    assert np.median(difference) < 0.02


def test_an_empty_map_has_no_geometry() -> None:
    assert geometry_channels(np.zeros((32, 48), np.float32), BASELINE) is None
