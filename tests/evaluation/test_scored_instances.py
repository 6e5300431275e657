from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gestalt.data.sharded_run import FrameResult, run_sharded
from gestalt.data.shards import ShardFolder
from gestalt.evaluation.evaluate import Evaluation, evaluate_table
from gestalt.evaluation.intersections import IntersectionTable, intersect, merge_tables
from gestalt.evaluation.protocols import load_protocol
from gestalt.evaluation.scored_instances import instance_calibration, instance_precision, stored_scores
from tests.evaluation.maps import Item, panoptic


def two_images() -> tuple[list[IntersectionTable], Evaluation]:
    """A person found with score 0.9, one found with 0.6, and a false one with 0.8; pseudo-class 1 is the thing."""
    truth = panoptic([[1, 1, 0, 0]], [[3, 3, 0, 0]])
    found = panoptic([[1, 1, 0, 0]], [[7, 7, 0, 0]])
    also_false = panoptic([[1, 1, 0, 1]], [[1, 1, 0, 2]])
    tables = [intersect("a", found, truth), intersect("b", also_false, truth)]
    return tables, evaluate_table(merge_tables(tables), load_protocol("mots2"), things=[1], stuff=[0])


SCORES = {("a", 7): 0.9, ("b", 1): 0.6, ("b", 2): 0.8}


@pytest.mark.parametrize("with_classes", [False, True])
def test_average_precision_of_parts_is_that_of_the_whole(with_classes: bool) -> None:
    tables, evaluation = two_images()
    whole = instance_precision([merge_tables(tables)], evaluation, SCORES, with_classes=with_classes)
    parts = instance_precision(tables[::-1], evaluation, SCORES, with_classes=with_classes)
    assert parts == whole
    # Hits at ranks 1 and 3: precision 1 up to half of the recall (51 of 101 points), then 2/3.
    assert pytest.approx(100 * (51 + 50 * 2 / 3) / 101) == whole.AP
    assert (whole.AR100, whole.n_masks, whole.n_objects) == (100, 3, 2)


def test_calibration_of_parts_is_that_of_the_whole() -> None:
    tables, evaluation = two_images()
    found = instance_calibration(tables, evaluation, SCORES)
    assert found == instance_calibration([merge_tables(tables)], evaluation, SCORES)
    assert found.n_masks == 3
    assert found.hit_share == pytest.approx(2 / 3)
    assert found.brier == pytest.approx((0.1**2 + 0.4**2 + 0.8**2) / 3)
    assert found.auroc == 0.5


@pytest.mark.parametrize("has_scores", [False, True])
def test_scores_come_from_the_records_of_objects(tmp_path: Path, has_scores: bool) -> None:
    def process(item: Item) -> FrameResult:
        rows = [{"instance": 0}, {"instance": 4}]
        maps = {"semantic": np.zeros((2, 2), np.uint8)}
        records = [{**row, "score": 0.5} for row in rows] if has_scores else rows
        return FrameResult(item.frame_id, maps=maps, records=records)

    run_sharded(
        [Item("a")], process, out_dir=tmp_path / "out", cache_dir=tmp_path / "cache", key={}, shard_size=1,
        open_executor=None, max_failed_share=0.0, label="test",
    )  # fmt: skip
    assert stored_scores(ShardFolder(tmp_path / "out")) == ({("a", 4): 0.5} if has_scores else None)
