from __future__ import annotations

import numpy as np

from gestalt.audit.worst_images import (
    CAPTION_PX,
    GAP_PX,
    NOT_JUDGED,
    RIGHT,
    WIDTH_PX,
    WRONG,
    WorstImage,
    draw_worst,
    worst_first,
)
from gestalt.data.label_spaces import load_label_space
from gestalt.panoptic import VOID, PanopticMap

SPACE = load_label_space("cityscapes19")


def uniform(class_id: int) -> PanopticMap:
    size = (240, WIDTH_PX)
    return PanopticMap(np.full(size, class_id, np.uint8), np.zeros(size, np.uint16))


def test_the_lowest_quality_comes_first_and_empty_images_have_none() -> None:
    quality, is_counted = np.array([50.0, 0.0, 20.0, 0.0]), np.array([True, False, True, True])
    assert worst_first(quality, is_counted, 2) == [3, 2]
    assert worst_first(quality, is_counted, 9) == [3, 2, 0]


def test_a_line_shows_truth_prediction_and_what_is_wrong() -> None:
    truth = uniform(0)
    truth.semantic_map[:, WIDTH_PX // 2 :] = VOID
    truth.semantic_map[200:] = 2
    sheet = draw_worst([WorstImage("a", None, truth, uniform(0)), WorstImage("b", None, truth, None)], SPACE)
    assert sheet.shape == (2 * (CAPTION_PX + 240), 3 * (WIDTH_PX + GAP_PX), 3)
    row, left, step = CAPTION_PX + 100, 10, WIDTH_PX + GAP_PX
    assert tuple(sheet[row, left]) == tuple(sheet[row, left + step]) == SPACE.classes[0].colour
    assert tuple(sheet[row, left + 2 * step]) == RIGHT
    assert tuple(sheet[row, left + 2 * step + WIDTH_PX // 2]) == NOT_JUDGED
    assert tuple(sheet[CAPTION_PX + 220, left + 2 * step]) == WRONG
    # Without a prediction everything is wrong.
    assert tuple(sheet[row + CAPTION_PX + 240, left + 2 * step]) == WRONG


def test_photos_have_a_column_where_there_is_one() -> None:
    photo = np.full((240, WIDTH_PX, 3), 9, np.uint8)
    sheet = draw_worst([WorstImage("a", photo, uniform(0), uniform(0))], SPACE)
    assert sheet.shape[1] == 4 * (WIDTH_PX + GAP_PX)
    assert tuple(sheet[CAPTION_PX + 10, 10]) == (9, 9, 9)
