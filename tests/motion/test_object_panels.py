"""Numbers, names and colours of objects on the sheet."""

from __future__ import annotations

import numpy as np

from gestalt.motion.object_panels import (
    MAX_NAMED,
    coloured_masks,
    instance_masks,
    object_colour,
    verdict_rows,
)
from gestalt.motion.panels import colour_optical_flow
from gestalt.motion.verdicts import INCONSISTENT, KEPT, SUPPRESSED, Verdict


def verdict(
    number: int, *, runs: int = 1, outcome: str = INCONSISTENT, proposals: tuple[int, ...] = ()
) -> Verdict:
    return Verdict(number, (number - 1,), tuple(range(runs)), float(runs), 0.5, outcome, "why", proposals)


def masks_of_sizes(*sizes: int) -> np.ndarray:
    return np.arange(16).reshape(1, 4, 4) < np.array(sizes)[:, None, None]


def test_the_table_says_what_became_of_each_object() -> None:
    rows = verdict_rows(
        [verdict(1, runs=7, outcome=KEPT, proposals=(2, 3)), verdict(2, outcome=SUPPRESSED), verdict(3)], 8
    )
    assert rows == [
        ["1", "7 of 8", "7", "0.50", "kept: proposal 2, 3"],
        ["2", "1 of 8", "1", "0.50", "suppressed: why"],
        ["3", "1 of 8", "1", "", "inconsistent: why"],
    ]


def test_larger_masks_are_painted_first_and_only_those_asked_for() -> None:
    verdicts = [verdict(1, outcome=KEPT), verdict(2), verdict(3)]
    chosen = coloured_masks(verdicts, masks_of_sizes(9, 2, 5), (INCONSISTENT,))
    assert [(marked.name, int(marked.mask.sum())) for marked in chosen] == [("3", 5), ("2", 2)]


def test_of_many_masks_those_of_one_run_have_no_name() -> None:
    verdicts = [verdict(number, runs=1 + number % 2) for number in range(1, MAX_NAMED + 2)]
    chosen = coloured_masks(verdicts, masks_of_sizes(*range(1, MAX_NAMED + 2)), (INCONSISTENT,))
    assert {marked.name for marked in chosen} == {"", *(str(number) for number in range(1, MAX_NAMED + 2, 2))}


def test_instances_keep_their_ids_and_take_the_colours_they_are_given() -> None:
    instance_map = np.array([[0, 4], [7, 7]], np.uint16)
    marked = instance_masks(instance_map, {7: 2})
    assert [(entry.name, entry.colour, int(entry.mask.sum())) for entry in marked] == [
        ("4", 4, 1),
        ("7", 2, 2),
    ]


def test_the_first_colours_are_easy_to_tell_apart() -> None:
    colours = np.array([object_colour(number) for number in range(1, 9)], float)
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1e3 * np.eye(8)
    assert distance.min() > 60


def test_optical_flow_is_white_at_rest_and_saturated_at_full_length() -> None:
    optical_flow = np.array([[0.0, 5.0, -5.0, np.nan], [0.0, 0.0, 0.0, 0.0]], np.float32)[:, None]
    colours = colour_optical_flow(optical_flow, 5.0)[0]
    assert colours.tolist() == [[255, 255, 255], [255, 0, 0], [0, 255, 255], [0, 0, 0]]
