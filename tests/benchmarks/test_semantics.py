"""The table of pseudo-classes: what is measured, and where it is written."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from benchmarks import semantics
from benchmarks.semantics import PROTOCOLS, VIEWS, central_crop, markdown, measure, write_section
from gestalt.evaluation.intersections import intersect


def test_a_perfect_prediction_in_other_numbers_is_perfect_and_surplus_counts_as_wrong_where_it_should() -> (
    None
):
    classes = np.zeros((4, 6), np.uint8)
    classes[:, 3:] = 5
    one_to_one = np.where(classes == 0, 2, 1).astype(np.uint8)
    split = one_to_one.copy()
    split[0, 3:] = 0
    for prediction, strict in ((one_to_one, (100.0, 100.0)), (split, (87.5, 87.5))):
        table = intersect("a", semantics.as_panoptic(prediction), semantics.as_panoptic(classes))
        by_name = {protocol.name: measure(table, protocol, 3) for protocol in PROTOCOLS}
        assert by_name["19"] == (100.0, 100.0)
        assert by_name["27"] == strict


def test_the_crop_is_the_scaled_central_square() -> None:
    columns = np.broadcast_to((np.arange(384) // 2).astype(np.uint8), (192, 384))
    crop = central_crop(np.ascontiguousarray(columns), cv2.INTER_NEAREST)
    assert crop.shape == (320, 320)
    assert (crop[0, 0], crop[0, -1]) == (96 // 2, 287 // 2)
    small = central_crop(np.zeros((64, 32), np.uint8), cv2.INTER_NEAREST)
    assert small.shape == (320, 320)


def test_a_section_replaces_its_older_self_and_leaves_the_others(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(
        "# Results\n\n## Labels\n\nkept\n\n## Pseudo-classes from a\n\nold\n\n## Pseudo-classes from b\n\nb\n"
    )
    write_section(page, "## Pseudo-classes from a\n\nnew\n")
    assert page.read_text() == (
        "# Results\n\n## Labels\n\nkept\n\n## Pseudo-classes from a\n\nnew\n\n## Pseudo-classes from b\n\nb\n"
    )
    write_section(page, "## Pseudo-classes from c\n\nc\n")
    assert page.read_text().endswith("b\n\n## Pseudo-classes from c\n\nc\n")


def test_the_table_has_a_row_per_way_and_protocol() -> None:
    options = argparse.Namespace(
        features=None, no_crf=False, fit_batch="a", test_batch="b", frames=2, seeds=[0, 1]
    )
    quality = {p.name: {view: [(30.0, 60.0), (32.0, 60.0)] for view in VIEWS} for p in PROTOCOLS}
    results = {
        "seconds": {"STEGO": [10.0, 12.0]},
        "quality": {"STEGO": quality},
        "linear": {"STEGO": [(40.0, 70.0)]},
    }
    text = markdown(results, options)
    assert text.startswith("## Pseudo-classes from dictionary features\n")
    assert text.count("| STEGO | 11 | 31.0 ± 1.4 / 60.0 ± 0.0 |") == len(PROTOCOLS)
    assert "| STEGO | 40.0 / 70.0 |" in text
