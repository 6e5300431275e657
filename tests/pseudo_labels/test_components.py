"""Motion-free proposals: connected, compact, of an object's physical size."""

import numpy as np
import pytest
from scipy import ndimage

from gestalt.config.pseudo_labels import ComponentSettings
from gestalt.panoptic import VOID
from gestalt.pseudo_labels.components import component_proposals, connected_components, surface_m2

FOCAL_LENGTH = 100.0
SETTINGS = ComponentSettings(
    min_area_px=20, max_area_share=0.2, min_surface_m2=0.5, max_surface_m2=20.0, min_box_fill=0.5
)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A 10 x 10 px block at 10 m (1 m²), alone on the ground."""
    semantic_map = np.zeros((40, 60), np.uint8)
    semantic_map[10:20, 10:20] = 3
    return semantic_map, np.full((40, 60), 10.0, np.float32)


def test_a_compact_block_is_an_object_and_the_ground_is_not() -> None:
    semantic_map, depth_m = scene()
    proposals = component_proposals(semantic_map, depth_m, FOCAL_LENGTH, SETTINGS)
    assert np.array_equal(proposals == 1, semantic_map == 3)
    assert proposals.max() == 1


@pytest.mark.parametrize("distance_m", [3.0, 60.0])
def test_the_same_block_at_another_distance_has_the_wrong_size(distance_m: float) -> None:
    semantic_map, depth_m = scene()
    depth_m[:] = distance_m
    assert not component_proposals(semantic_map, depth_m, FOCAL_LENGTH, SETTINGS).any()


def test_a_block_without_depth_is_not_proposed() -> None:
    semantic_map, depth_m = scene()
    depth_m[semantic_map == 3] = np.nan
    assert not component_proposals(semantic_map, depth_m, FOCAL_LENGTH, SETTINGS).any()


def test_a_thin_diagonal_is_not_compact() -> None:
    semantic_map = np.zeros((40, 60), np.uint8)
    semantic_map[np.arange(30), np.arange(30)] = 3
    semantic_map[np.arange(30), np.arange(1, 31)] = 3
    assert not component_proposals(semantic_map, np.full((40, 60), 10.0), FOCAL_LENGTH, SETTINGS).any()


def test_small_components_and_void_are_not_proposed() -> None:
    semantic_map, depth_m = scene()
    semantic_map[10:20, 10:20] = VOID
    semantic_map[30:33, 30:33] = 4
    assert not component_proposals(semantic_map, depth_m, FOCAL_LENGTH, SETTINGS).any()


@pytest.mark.parametrize("seed", range(4))
def test_components_are_those_of_scipy(seed: int) -> None:
    semantic_map = np.random.default_rng(seed).choice([0, 1, 2, VOID], (20, 30)).astype(np.uint8)
    ours = connected_components(semantic_map)
    n_components = 0
    for pseudo_class in range(3):
        theirs, count = ndimage.label(semantic_map == pseudo_class, np.ones((3, 3)))
        n_components += count
        for component in range(1, count + 1):
            assert len(np.unique(ours[theirs == component])) == 1
    assert np.array_equal(ours == 0, semantic_map == VOID)
    assert ours.max() == n_components


def test_renaming_pseudo_classes_leaves_components_as_they_are() -> None:
    generator = np.random.default_rng(5)
    semantic_map = generator.integers(0, 4, (20, 30)).astype(np.uint8)
    renamed = generator.permutation(4).astype(np.uint8)[semantic_map]
    assert np.array_equal(connected_components(semantic_map), connected_components(renamed))


def test_surface_is_that_of_a_fronto_parallel_square() -> None:
    components = np.zeros((30, 30), np.int64)
    components[5:15, 5:25] = 1
    depth_m = np.where(components == 1, 20.0, np.nan)
    depth_m[5:15, 15:25] = np.nan
    surface = surface_m2(components, depth_m, FOCAL_LENGTH, 2)
    assert surface[1] == pytest.approx(10 * 20 * (20.0 / FOCAL_LENGTH) ** 2)
    assert np.isnan(surface[0])
