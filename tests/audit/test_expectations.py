import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gestalt.audit.expectations import Finding, check_labels, describe_limits, worst_verdict
from gestalt.audit.measures import LabelMeasures, measure_labels
from gestalt.config.presets import default_settings

SETTINGS = default_settings(
    "audit", min_instances=2, min_pseudo_classes=2, plausible_share=1.0, max_class_share=1.0
)


@pytest.fixture(scope="module")
def measures() -> LabelMeasures:
    frames = pd.DataFrame(
        {"frame_id": list("abcd"), "status": "ok", "reason": "", "pixels": 100, "void_pixels": [5, 5, 5, 5]}
    )
    rows = [
        {
            "frame_id": name,
            "pseudo_class": pseudo_class,
            "instance": pseudo_class,
            "area_px": area,
            "x0": 0,
            "y0": 0,
            "x1": 5,
            "y1": 5,
            "consistency": 0.9,
            "depth_median_m": 10.0,
            "speed_m_s": 3.0,
            "valid_share": 1.0,
            "confidence": 0.7,
        }
        for name in "abcd"
        for pseudo_class, area in ((0, 70), (1, 25))
    ]
    return measure_labels(
        frames,
        pd.DataFrame(rows),
        class_pixels=np.array([280, 100]),
        ensemble_runs=1,
        settings=SETTINGS,
    )


def finding(findings: list[Finding], table: str, column: str) -> Finding:
    return next(f for f in findings if (f.expectation.table, f.expectation.column) == (table, column))


def test_good_labels_pass(measures: LabelMeasures) -> None:
    findings = check_labels(measures, SETTINGS, 2)
    assert [f.expectation.column for f in findings if not f.success] == []
    assert worst_verdict(findings) == "passed"


def test_broken_limits_are_found_with_severity_count_and_examples(measures: LabelMeasures) -> None:
    segments = measures.segments.assign(
        instance_speed_m_s=[3.0, 99.0, *[3.0] * 6],
        pseudo_class=[0, 1, 0, 1, 0, 1, 0, 7],
        x1=[5, 5, 0, 5, 5, 5, 5, 5],
    )
    findings = check_labels(replace(measures, segments=segments), SETTINGS, 2)
    speed = finding(findings, "segments", "instance_speed_m_s")
    assert (speed.verdict, speed.n_unexpected) == ("warning", 1)
    assert speed.examples == ("a (instance_speed_m_s=99.0)",)
    assert finding(findings, "segments", "pseudo_class").verdict == "critical"
    assert finding(findings, "segments", "x1 > x0").examples == ("b (x0=0, x1=0)",)
    assert worst_verdict(findings) == "critical"


def test_a_limit_on_the_batch_tells_what_was_observed(measures: LabelMeasures) -> None:
    found = finding(check_labels(measures, replace(SETTINGS, min_instances=5), 2), "batch", "n_instances")
    assert (found.verdict, found.observed) == ("critical", 4)


def test_a_missing_column_is_a_finding_with_its_text_not_an_exception(measures: LabelMeasures) -> None:
    found = finding(
        check_labels(replace(measures, segments=measures.segments.drop(columns="valid_share")), SETTINGS, 2),
        "segments",
        "valid_share",
    )
    assert found.verdict == "critical"
    assert "valid_share" in found.error


def test_a_plausible_share_forgives_a_few_rows(measures: LabelMeasures) -> None:
    frames = measures.frames.assign(coverage=[0.0, 0.9, 0.9, 0.9])
    broken = replace(measures, frames=frames)
    assert not finding(check_labels(broken, SETTINGS, 2), "frames", "coverage").success
    assert finding(
        check_labels(broken, replace(SETTINGS, plausible_share=0.7), 2), "frames", "coverage"
    ).success


def test_findings_are_json_without_times_and_the_same_twice(measures: LabelMeasures) -> None:
    first, second = (
        json.dumps([f.to_dict() for f in check_labels(measures, SETTINGS, 2)], sort_keys=True)
        for _ in range(2)
    )
    assert first == second
    assert "202" not in first


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"min_value": 0.3, "max_value": 1, "mostly": 0.95}, "0.3 to 1, in 95 % of the rows"),
        ({"min_value": 5}, "at least 5"),
        ({"max_value": 5}, "at most 5"),
        ({"value_set": ["ok", "failed"]}, "ok, failed"),
        ({}, ""),
    ],
)
def test_limits_are_said_as_people_say_them(limits: dict[str, Any], text: str) -> None:
    assert describe_limits(limits) == text
