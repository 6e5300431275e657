import numpy as np

from gestalt.scenes.painting import NEUTRAL
from gestalt.scenes.textures import TEXTURES, TILE_SIZES, atlas, hole_levels


def test_textures_repeat_without_a_seam() -> None:
    rng = np.random.default_rng(0)
    texture = rng.integers(0, len(TEXTURES), 500).astype(np.int32)
    size = np.array(TILE_SIZES, np.float32)[texture]
    u, v, level = (rng.uniform(0, high, 500).astype(np.float32) for high in (64, 64, 2.5))
    here = atlas().sample(texture, u, v, level)
    there = atlas().sample(texture, u + size, v - 2 * size, level)
    # A texel more or less in the thirty-second that OpenCV interpolates with.
    assert np.abs(here - there).max() < 8
    assert np.abs(here - there).mean() < 0.2


def test_texels_are_found_where_they_were_painted() -> None:
    index = TEXTURES.index("brick")
    column, row = atlas().corner[index, 0]
    painted = atlas().picture[row + 7, column + 30].astype(np.float32)
    middle = (np.array([x], np.float32) for x in (30.5, 7.5, 0.0))
    np.testing.assert_allclose(atlas().sample(np.array([index]), *middle)[0], painted, atol=1)


def test_coarse_levels_keep_the_mean() -> None:
    rng = np.random.default_rng(1)
    for name in ("asphalt", "leaf", "facade_old"):
        index = np.full(4000, TEXTURES.index(name))
        u, v = rng.uniform(0, 512, (2, 4000)).astype(np.float32)
        fine = atlas().sample(index, u, v, np.zeros(4000, np.float32)).mean(0)
        coarse = atlas().sample(index, u, v, np.full(4000, 5, np.float32)).mean(0)
        np.testing.assert_allclose(fine, coarse, atol=5)


def test_plain_materials_leave_the_colour_as_it_is() -> None:
    column, row = atlas().corner[TEXTURES.index("asphalt"), 0]
    tile = atlas().picture[row : row + 512, column : column + 512]
    assert abs(float(tile[..., :3].mean()) - NEUTRAL) < 10
    assert (tile[..., 3] == 255).all()


def test_the_share_of_holes_is_about_what_is_asked_for_nearby_and_less_far_away() -> None:
    near, far = hole_levels()[0], hole_levels()[4]
    assert 0.0 < float((near < 0.25).mean()) < 0.3
    assert (far < 0.25).mean() < (near < 0.25).mean()
