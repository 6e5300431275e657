"""The label table: a record per segment, equal to what a loop over segments measures."""

import numpy as np
import pandas as pd
import pytest

from gestalt.panoptic import VOID, PanopticMap
from gestalt.pseudo_labels.fuse import count_frame, fuse
from gestalt.pseudo_labels.label_table import (
    ProposalRecord,
    depth_ranges,
    disparity_to_depth,
    label_records,
    number_segments,
    proposal_records,
    statistics_of_table,
)

P = 6


def random_label(seed: int) -> tuple[PanopticMap, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    semantic_map = np.kron(generator.integers(0, P, (5, 8)), np.ones((6, 6))).astype(np.uint8)
    semantic_map[generator.random(semantic_map.shape) < 0.05] = VOID
    proposals = np.kron(generator.integers(0, 5, (5, 8)) * 13000, np.ones((6, 6))).astype(np.uint16)
    depth_m = generator.uniform(2, 60, semantic_map.shape)
    depth_m[generator.random(semantic_map.shape) < 0.3] = np.nan
    return fuse(semantic_map, proposals).panoptic, depth_m, generator.random(semantic_map.shape)


@pytest.mark.parametrize("seed", range(4))
def test_records_equal_a_loop_over_segments(seed: int) -> None:
    panoptic, depth_m, confidence = random_label(seed)
    depth_m[panoptic.semantic_map == 0] = np.nan
    known = {1: ProposalRecord(0.9, 4.0)}
    records = label_records(
        "frame", panoptic, depth_m=depth_m, confidence=confidence, source="motion", proposals=known
    )
    assert sum(record["area_px"] for record in records) == (panoptic.semantic_map != VOID).sum()
    for record in records:
        inside = (panoptic.semantic_map == record["pseudo_class"]) & (
            panoptic.instance_map == record["instance"]
        )
        rows, columns = np.nonzero(inside)
        assert record["area_px"] == inside.sum()
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert (record["x0"], record["y0"], record["x1"], record["y1"]) == box
        depths = depth_m[inside][np.isfinite(depth_m[inside])]
        expected = [depths.min(), np.median(depths), depths.max()] if len(depths) else [np.nan] * 3
        found = [record[f"depth_{name}_m"] for name in ("min", "median", "max")]
        assert np.allclose(found, expected, equal_nan=True)
        assert record["valid_share"] == pytest.approx(len(depths) / inside.sum())
        assert record["confidence"] == pytest.approx(confidence[inside].mean())
        assert record["source"] == ("motion" if record["instance"] else "semantic")
        assert (record["consistency"] == 0.9) == (record["instance"] == 1)


def test_statistics_of_the_table_equal_those_of_the_pixels() -> None:
    frames = [random_label(seed)[0] for seed in range(5)]
    ones = np.ones(frames[0].size)
    rows = [
        record
        for number, frame in enumerate(frames)
        for record in label_records(
            str(number), frame, depth_m=ones, confidence=ones, source="motion", proposals={}
        )
    ]
    expected = count_frame(frames[0], P)
    for frame in frames[1:]:
        expected += count_frame(frame, P)
    assert statistics_of_table(pd.DataFrame(rows), len(frames), P).to_json() == expected.to_json()


def test_a_batch_without_any_record_counts_its_frames() -> None:
    statistics = statistics_of_table(pd.DataFrame(), 4, P)
    assert statistics.to_json() == {
        "n_frames": 4,
        "pixels": [0] * P,
        "pixels_in_instances": [0] * P,
        "instances": [0] * P,
    }


def test_a_map_of_void_has_no_record() -> None:
    panoptic = PanopticMap(np.full((2, 2), VOID, np.uint8), np.zeros((2, 2), np.uint16))
    ones = np.ones((2, 2))
    assert not label_records("f", panoptic, depth_m=ones, confidence=ones, source="motion", proposals={})
    assert not number_segments(panoptic)[1].any()


def test_the_largest_instance_id_is_numbered() -> None:
    panoptic = PanopticMap(np.full((1, 2), 254, np.uint8), np.array([[0, 65535]], np.uint16))
    segments, numbers = number_segments(panoptic)
    assert segments.tolist() == [254, 256 * 65535 + 254]
    assert numbers.tolist() == [[1, 2]]


def test_depth_of_a_segment_without_a_match_is_nan() -> None:
    ranges = depth_ranges(np.array([np.nan, 3.0, 5.0]), np.array([0, 2, 2]), 3)
    assert np.isnan(ranges[:2]).all()
    assert ranges[2].tolist() == [3.0, 4.0, 5.0]


def test_depth_follows_the_pinhole_and_is_nan_without_disparity() -> None:
    depth_m = disparity_to_depth(np.array([[0.0, 10.0]], np.float32), 100.0, 0.5)
    assert np.isnan(depth_m[0, 0])
    assert depth_m[0, 1] == pytest.approx(5.0)


def test_proposal_records_follow_the_former_ids() -> None:
    table = pd.DataFrame({"instance": [3, 9], "consistency": [0.8, 1.0], "speed_m_s": [2.0, 7.0]})
    records = proposal_records(table, [9, 4])
    assert records[1] == ProposalRecord(1.0, 7.0)
    assert np.isnan(records[2].consistency)
