"""The expectations: a Great Expectations suite per table, thresholds from ``params.yaml``, plain findings.

The library never raises on failed data and has no file of its own here: the context lives in memory, suites
are code, results become JSON without times.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gestalt.audit.measures import LabelMeasures
from gestalt.config.audit import AuditSettings

CRITICAL, WARNING = "critical", "warning"
PASSED = "passed"
# Mildest first.
SEVERITIES = (PASSED, WARNING, CRITICAL)

# Digits kept of observed values: enough to read, few enough to be the same on every machine.
DIGITS = 6


@dataclass(frozen=True)
class Expectation:
    """One limit.

    Attributes:
        table: ``frames``, ``segments`` or ``batch``.
        kind: Name of a Great Expectations class.
        column: The column that it looks at (both, joined, for a pair).
        limits: Its arguments besides the column.
        severity: ``critical`` or ``warning``.
        meaning: One line for people.
    """

    table: str
    kind: str
    column: str
    limits: Mapping[str, Any]
    severity: str
    meaning: str


@dataclass(frozen=True)
class Finding:
    """What an expectation found.

    Attributes:
        expectation: The limit.
        success: Whether it is kept.
        observed: The value that was compared, or None where each row has its own.
        n_rows: Rows looked at, missing values left out.
        n_unexpected: Rows that break the limit.
        examples: Frame ids (with the value) that break it.
        error: Why it could not be checked; empty when it could.
    """

    expectation: Expectation
    success: bool
    observed: int | float | str | None
    n_rows: int
    n_unexpected: int
    examples: tuple[str, ...]
    error: str

    @property
    def verdict(self) -> str:
        """``passed``, ``warning`` or ``critical``."""
        return PASSED if self.success else self.expectation.severity

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}


def label_expectations(settings: AuditSettings, n_pseudo_classes: int) -> list[Expectation]:
    """What is expected of the labels of any batch.

    Args:
        settings: The limits.
        n_pseudo_classes: P.
    """
    most = settings.plausible_share
    between, pair = "ExpectColumnValuesToBeBetween", "ExpectColumnPairValuesAToBeGreaterThanB"

    def batch(column: str, severity: str, meaning: str, **limits: float) -> Expectation:
        return Expectation("batch", between, column, limits, severity, meaning)

    def frames(column: str, meaning: str, **limits: float) -> Expectation:
        return Expectation("frames", between, column, {**limits, "mostly": most}, WARNING, meaning)

    def segments(column: str, severity: str, meaning: str, **limits: float) -> Expectation:
        return Expectation("segments", between, column, limits, severity, meaning)

    return [
        batch(
            "failed_share", CRITICAL, "few frames failed", min_value=0, max_value=settings.max_failed_share
        ),
        batch(
            "empty_share",
            CRITICAL,
            "few frames have no label",
            min_value=0,
            max_value=settings.max_empty_share,
        ),
        batch(
            "no_instance_share",
            WARNING,
            "most frames show an instance",
            min_value=0,
            max_value=settings.max_no_instance_share,
        ),
        batch("n_instances", CRITICAL, "there are instances to learn from", min_value=settings.min_instances),
        batch(
            "mean_coverage",
            CRITICAL,
            "most pixels are labelled",
            min_value=settings.min_mean_coverage,
            max_value=1,
        ),
        batch(
            "n_pseudo_classes",
            CRITICAL,
            "several pseudo-classes are in use",
            min_value=settings.min_pseudo_classes,
        ),
        batch(
            "largest_class_share",
            CRITICAL,
            "no pseudo-class swallows the others",
            min_value=0,
            max_value=settings.max_class_share,
        ),
        batch(
            "class_drift",
            WARNING,
            "the classes are those of the other batches",
            min_value=0,
            max_value=settings.max_class_drift,
        ),
        Expectation(
            "frames", "ExpectColumnValuesToBeUnique", "frame_id", {}, CRITICAL, "each frame is listed once"
        ),
        Expectation(
            "frames",
            "ExpectColumnValuesToBeInSet",
            "status",
            {"value_set": ["ok", "empty", "failed"]},
            CRITICAL,
            "each frame has a known status",
        ),
        frames(
            "coverage", "each frame is mostly labelled", min_value=settings.min_frame_coverage, max_value=1
        ),
        frames(
            "n_instances",
            "a plausible number of instances",
            min_value=0,
            max_value=settings.max_instances_per_frame,
        ),
        frames(
            "largest_instance_share",
            "no instance fills the frame",
            min_value=0,
            max_value=settings.max_instance_share,
        ),
        segments(
            "pseudo_class", CRITICAL, "pseudo-classes exist", min_value=0, max_value=n_pseudo_classes - 1
        ),
        segments("area_px", CRITICAL, "segments have pixels", min_value=1),
        Expectation(
            "segments", pair, "x1 > x0", {"column_A": "x1", "column_B": "x0"}, CRITICAL, "boxes have a width"
        ),
        Expectation(
            "segments", pair, "y1 > y0", {"column_A": "y1", "column_B": "y0"}, CRITICAL, "boxes have a height"
        ),
        segments("valid_share", CRITICAL, "shares are shares", min_value=0, max_value=1),
        segments("confidence", CRITICAL, "confidences are shares", min_value=0, max_value=1),
        segments(
            "consistency",
            WARNING,
            "the motion ensemble agrees on its instances",
            min_value=settings.min_consistency,
            max_value=1,
            mostly=most,
        ),
        segments(
            "instance_depth_m",
            WARNING,
            "instances are within sight",
            min_value=0,
            max_value=settings.max_depth_m,
            mostly=most,
        ),
        segments(
            "instance_speed_m_s",
            WARNING,
            "instances move at a plausible speed",
            min_value=0,
            max_value=settings.max_speed_m_s,
            mostly=most,
        ),
    ]


def check_labels(measures: LabelMeasures, settings: AuditSettings, n_pseudo_classes: int) -> list[Finding]:
    """Check the tables of a batch.

    Args:
        measures: The tables.
        settings: The limits.
        n_pseudo_classes: P.

    Returns:
        A finding per expectation, in the order of ``label_expectations``.
    """
    expectations = label_expectations(settings, n_pseudo_classes)
    tables = {"batch": measures.batch, "frames": measures.frames, "segments": measures.segments}
    findings: dict[int, Finding] = {}
    for name, table in tables.items():
        chosen = {number: entry for number, entry in enumerate(expectations) if entry.table == name}
        findings |= _check_table(name, table, chosen, settings.examples)
    return [findings[number] for number in range(len(expectations))]


def worst_verdict(findings: list[Finding]) -> str:
    """The severest verdict of all; ``passed`` when there is none."""
    return max((finding.verdict for finding in findings), key=SEVERITIES.index, default=PASSED)


def _check_table(
    name: str, table: pd.DataFrame, expectations: Mapping[int, Expectation], n_examples: int
) -> dict[int, Finding]:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    for noisy in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    import great_expectations
    from great_expectations import expectations as kinds

    context = great_expectations.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("labels").add_dataframe_asset(name)
    suite = great_expectations.ExpectationSuite(name=name)
    for number, entry in expectations.items():
        columns = {} if "column_A" in entry.limits else {"column": entry.column}
        kind = getattr(kinds, entry.kind)
        # Results come in another order (those that could not be checked first), so each carries its number.
        meta = {"number": number, "meaning": entry.meaning}
        suite.add_expectation(kind(**columns, **entry.limits, severity=entry.severity, meta=meta))
    definition = great_expectations.ValidationDefinition(
        name=name, data=asset.add_batch_definition_whole_dataframe("all"), suite=context.suites.add(suite)
    )
    keys = ["frame_id"] if "frame_id" in table.columns else []
    result_format: dict[str, Any] = {"result_format": "COMPLETE", "include_unexpected_rows": False}
    if keys:
        result_format["unexpected_index_column_names"] = keys
    result = context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": table}, result_format=result_format
    )
    found = {}
    for outcome in result.results:
        number = int(outcome.expectation_config.meta["number"])
        found[number] = _finding(expectations[number], outcome, table, n_examples)
    return found


def _finding(entry: Expectation, outcome: Any, table: pd.DataFrame, n_examples: int) -> Finding:
    values: dict[str, Any] = outcome.result or {}
    rows = values.get("unexpected_index_list") or []
    examples = []
    for row in rows[:n_examples]:
        if isinstance(row, Mapping) and "frame_id" in row:
            shown = ", ".join(
                f"{key}={_plain(value)}" for key, value in sorted(row.items()) if key != "frame_id"
            )
            examples.append(f"{row['frame_id']} ({shown})" if shown else str(row["frame_id"]))
    observed = None
    if entry.table == "batch" and entry.column in table.columns:
        observed = _plain(table[entry.column].iloc[0])
    return Finding(
        expectation=entry,
        success=bool(outcome.success),
        observed=observed,
        n_rows=int(values.get("element_count") or 0) - int(values.get("missing_count") or 0),
        n_unexpected=int(values.get("unexpected_count") or 0),
        examples=tuple(examples),
        error=_error(outcome.exception_info),
    )


def _error(info: Any) -> str:
    """The library reports either one record or a record per metric; a missing column is one of these."""
    records = (
        [info] if isinstance(info, Mapping) and "raised_exception" in info else list((info or {}).values())
    )
    messages = {str(record.get("exception_message")) for record in records if record.get("raised_exception")}
    return "; ".join(sorted(messages))


def describe_limits(limits: Mapping[str, Any]) -> str:
    """The arguments of an expectation as people say them: ``0.3 to 1, in 95 % of the rows``."""
    low, high = limits.get("min_value"), limits.get("max_value")
    if low is not None and high is not None:
        text = f"{low:g} to {high:g}"
    elif low is not None or high is not None:
        text = f"at least {low:g}" if high is None else f"at most {high:g}"
    else:
        text = ", ".join(map(str, limits.get("value_set", ())))
    return f"{text}, in {100 * limits['mostly']:g} % of the rows" if "mostly" in limits else text


def _plain(value: Any) -> int | float | str | None:
    if isinstance(value, str | int):
        return value
    if isinstance(value, np.integer):
        return int(value)
    number = float(value)
    return round(number, DIGITS) if math.isfinite(number) else None
