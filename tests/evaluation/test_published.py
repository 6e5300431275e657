from __future__ import annotations

import pytest

from gestalt.evaluation.protocols import known_protocols, load_protocol
from gestalt.evaluation.published import PUBLISHED, published_for


def test_the_headline_is_the_mean_over_things_and_stuff() -> None:
    headline = next(result for result in published_for("cityscapes") if "RQ" in result.metrics)
    metrics = headline.metrics
    expected = (8 * metrics["PQ_thing"] + 11 * metrics["PQ_stuff"]) / 19
    assert metrics["PQ"] == pytest.approx(expected, abs=0.05)


def test_every_benchmark_has_ours_and_the_system_before() -> None:
    for dataset in ("cityscapes", "kitti_panoptic", "bdd", "muses", "waymo", "mots"):
        rows = {
            result.method: result.metrics["PQ"] for result in published_for(dataset) if "PQ" in result.metrics
        }
        assert rows["CUPS"] > rows["U2Seg"]


def test_protocols_are_named_and_rendered_ones_never() -> None:
    for result in PUBLISHED:
        assert result.protocol in known_protocols()
        assert load_protocol(result.protocol).dataset == result.dataset
        assert "rendered" not in result.protocol
    assert published_for("no such benchmark") == []
