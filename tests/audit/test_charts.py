import re
from xml.etree import ElementTree

import numpy as np
import pytest

from gestalt.audit.charts import bars, curves, histogram, scatter


def test_bar_heights_follow_the_counts() -> None:
    svg = histogram([0.0, 0.0, 0.0, 10.0], "values", bins=2)
    heights = [float(height) for height in re.findall(r'<rect[^>]* height="([\d.]+)"', svg)]
    assert heights[0] / heights[1] == pytest.approx(3, abs=0.01)
    assert "values (n = 4)" in svg


def test_unknown_values_are_counted_and_an_empty_chart_is_drawn() -> None:
    assert "n = 1, 2 unknown" in histogram([1.0, np.nan, np.inf], "values")
    assert "n = 0" in histogram([], "values")
    assert "<svg" in curves([], {"loss": []}, "loss")


def test_a_near_limit_is_marked_and_a_far_one_is_not() -> None:
    assert "stroke-dasharray" in histogram([0.0, 1.0], "values", limits=[1.2])
    assert "stroke-dasharray" not in histogram([0.0, 1.0], "values", limits=[50.0])


def test_charts_are_well_formed_whatever_the_words() -> None:
    for svg in (
        histogram([1.0, 2.0], 'a < b & "c"'),
        bars([0.5, 0.1], ["<x>", "&"], "shares"),
        curves([0, 1, 2], {"a&b": [1.0, np.nan, 2.0], "c": [0, 1, 2]}, "loss"),
    ):
        ElementTree.fromstring(svg)


def test_a_scatter_tells_gains_from_losses() -> None:
    chart = scatter([10, 20, 30], [20, 10, 30], ["a", "b<", "c"], "PQ")
    points = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)".*?fill="(.*?)".*?data-name="(.*?)"', chart)
    assert [(colour, name) for _, _, colour, name in points] == [
        ("var(--good)", "a"),
        ("var(--bad)", "b&lt;"),
        ("var(--soft)", "c"),
    ]
    (x0, y0), (x1, y1), (x2, y2) = ((float(x), float(y)) for x, y, *_ in points)
    assert x0 < x1 < x2
    assert y1 > y0 > y2
    assert "b&lt;: 20.0 to 10.0" in chart


def test_a_scatter_of_equal_or_no_values_is_drawn() -> None:
    assert scatter([5.0], [5.0], ["a"], "PQ").count("<circle") == 1
    assert scatter([], [], [], "PQ").count("<circle") == 0
