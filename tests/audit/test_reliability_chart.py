from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from gestalt.audit.reliability_chart import BASE, LEFT, SIDE, TOO_SHY, TOO_SURE, reliability_chart
from gestalt.evaluation.calibration import CalibrationHistogram

SVG = "{http://www.w3.org/2000/svg}"


def test_a_dot_stands_at_score_and_share_of_hits_and_the_colour_says_the_direction() -> None:
    calibration = CalibrationHistogram.of([0.2, 0.2, 0.8, 0.8], [True, False, True, False]).calibration(2)
    picture = ElementTree.fromstring(reliability_chart(calibration, "car < bus & co"))
    dots = picture.findall(f"{SVG}circle")
    for dot, score in zip(dots, (0.2, 0.8), strict=True):
        assert float(dot.attrib["cx"]) == pytest.approx(LEFT + score * SIDE, abs=0.06)
        assert float(dot.attrib["cy"]) == pytest.approx(BASE - 0.5 * SIDE, abs=0.06)
    colours = [line.attrib["stroke"] for line in picture.findall(f"{SVG}line")]
    assert colours.count(TOO_SHY) == colours.count(TOO_SURE) == 1
    words = " ".join(picture.itertext())
    assert "car < bus & co" in words
    assert "n = 4, calibration error 0.300 Brier 0.340, AUROC 0.500" in words
    assert "2 masks of score 0.800 to 0.800: mean 0.800, 0.500 hit" in words


def test_right_scores_lie_on_the_diagonal() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random(40_000)
    calibration = CalibrationHistogram.of(scores, generator.random(40_000) < scores).calibration()
    picture = ElementTree.fromstring(reliability_chart(calibration, "right"))
    for dot in picture.findall(f"{SVG}circle"):
        off = (float(dot.attrib["cx"]) - LEFT) - (BASE - float(dot.attrib["cy"]))
        assert abs(off) < 0.04 * SIDE


def test_nothing_to_show_is_said() -> None:
    picture = reliability_chart(CalibrationHistogram.of([], []).calibration(), "none")
    assert "no mask has a score" in " ".join(ElementTree.fromstring(picture).itertext())
    only_hits = CalibrationHistogram.of([0.5], [True]).calibration()
    assert "AUROC" not in reliability_chart(only_hits, "hits")
