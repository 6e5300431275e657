import numpy as np
import pytest

from gestalt.audit.overlay import (
    blend,
    colour_disparity,
    colour_instances,
    colour_optical_flow,
    colour_semantic,
    contact_sheet,
    distinct_colours,
    draw_panoptic,
    fit_width,
    outline_instances,
)
from gestalt.errors import ShapeError
from gestalt.panoptic import PanopticMap


def test_colours_of_27_classes_are_all_different_and_none_is_black() -> None:
    colours = distinct_colours(27)[:27]
    assert len(np.unique(colours, axis=0)) == 27
    assert (colours.max(axis=1) > 60).all()


def test_colours_match_a_reference_conversion() -> None:
    import colorsys

    # The first nine share saturation and value as documented; hues are golden-angle steps.
    for number in range(9):
        saturation, value = (0.75, 0.5, 0.9)[number % 3], (0.95, 0.75, 0.55)[number // 3]
        expected = colorsys.hsv_to_rgb(number * 0.61803398875 % 1, saturation, value)
        np.testing.assert_allclose(distinct_colours(9)[number], 255 * np.array(expected), atol=1)


def test_void_is_black_whatever_the_palette_says() -> None:
    palette = np.full((256, 3), 200, np.uint8)
    coloured = colour_semantic(np.array([[0, 255]], np.uint8), palette)
    assert coloured.tolist() == [[[200, 200, 200], [0, 0, 0]]]


def test_blending_leaves_unpainted_pixels_alone() -> None:
    image = np.full((1, 2, 3), 100, np.uint8)
    colours = np.array([[[0, 0, 0], [200, 0, 0]]], np.uint8)
    assert blend(image, colours, 0.5).tolist() == [[[100, 100, 100], [150, 50, 50]]]


def test_outline_lies_inside_its_instance_and_leaves_its_middle() -> None:
    instances = np.zeros((20, 20), np.uint16)
    instances[5:15, 5:15] = 300
    image = np.zeros((20, 20, 3), np.uint8)
    drawn = outline_instances(image, instances).any(axis=-1)
    assert drawn[5, 5:15].all()
    assert not drawn[instances == 0].any()
    assert not drawn[8:12, 8:12].any()


def test_touching_instances_are_parted_by_their_outlines() -> None:
    instances = np.ones((6, 12), np.uint16)
    instances[:, 6:] = 2
    drawn = outline_instances(np.zeros((6, 12, 3), np.uint8), instances)
    colours = colour_instances(np.array([[1, 2]]))[0]
    assert drawn[3, 5].tolist() == colours[0].tolist()
    assert drawn[3, 6].tolist() == colours[1].tolist()


def test_near_is_warm_far_is_cold_unknown_is_black() -> None:
    coloured = colour_disparity(np.array([[0.0, 1.0, 30.0]]), largest=30.0).astype(int)
    assert coloured[0, 0].tolist() == [0, 0, 0]
    assert coloured[0, 1, 2] > coloured[0, 1, 0]
    assert coloured[0, 2, 0] > coloured[0, 2, 2]


def test_optical_flow_hue_is_its_direction_and_stillness_is_white() -> None:
    optical_flow = np.array([[[0.0, 4.0, -4.0, np.nan]], [[0.0, 0.0, 0.0, 0.0]]])
    coloured = colour_optical_flow(optical_flow, largest=4.0)
    assert coloured[0, 0].tolist() == [255, 255, 255]
    assert coloured[0, 1].tolist() == [255, 0, 0]  # to the right: hue 0
    assert coloured[0, 2].tolist() == [0, 255, 255]  # opposite directions have opposite hues
    assert coloured[0, 3].tolist() == [0, 0, 0]


def test_panoptic_picture_has_the_size_of_the_image() -> None:
    panoptic = PanopticMap(np.zeros((8, 9), np.uint8), np.zeros((8, 9), np.uint16))
    assert draw_panoptic(np.zeros((8, 9, 3), np.uint8), panoptic, distinct_colours(3)).shape == (8, 9, 3)


def test_labels_keep_their_colours_when_they_shrink() -> None:
    labels = np.zeros((40, 80, 3), np.uint8)
    labels[:, 41:] = (200, 10, 30)
    small = fit_width(labels, 33, is_labels=True)
    assert small.shape[1] == 33
    assert {tuple(colour) for colour in small.reshape(-1, 3).tolist()} == {(0, 0, 0), (200, 10, 30)}
    assert fit_width(labels, 100) is labels


def test_contact_sheet_holds_every_picture_and_refuses_a_missing_caption() -> None:
    pictures = [np.full((10, 20, 3), value, np.uint8) for value in (10, 60, 110)]
    sheet = contact_sheet(pictures, ["a", "b", "c"], 2)
    assert all((sheet == value).all(axis=-1).sum() >= 200 for value in (10, 60, 110))
    with pytest.raises(ShapeError, match="Got: 3 and 1"):
        contact_sheet(pictures, ["a"], 2)
