"""The gate before training: reads the audit results of all batches and says what stops the pipeline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gestalt.audit.expectations import CRITICAL, PASSED, SEVERITIES, WARNING, describe_limits
from gestalt.audit.review_page import PAGE_FILE, RESULT_FILE
from gestalt.errors import DataError

NEVER = "never"
STOPPING = {"critical": (CRITICAL,), "warning": (CRITICAL, WARNING), NEVER: ()}


def judge_batches(audits: Path, batches: Sequence[str], stop_on: str) -> dict[str, Any]:
    """Judge every batch by its audit.

    Args:
        audits: Folder with ``<batch>/result.json``.
        batches: The batches that training would use.
        stop_on: The mildest verdict that stops: ``critical``, ``warning`` or ``never``.

    Returns:
        ``open`` (whether training may start), ``stop_on``, and per batch its ``verdict`` and ``reasons`` (one
        line per broken expectation, severest first).

    Raises:
        DataError: A batch has no audit.
    """
    verdicts: dict[str, Any] = {}
    for batch in batches:
        path = audits / batch / RESULT_FILE
        if not path.exists():
            raise DataError(f"{path} does not exist; `dvc repro audit@{batch}` makes it")
        result = json.loads(path.read_text(encoding="utf-8"))
        broken = [finding for finding in result["findings"] if finding["verdict"] != PASSED]
        broken.sort(key=lambda finding: -SEVERITIES.index(finding["verdict"]))
        verdicts[batch] = {"verdict": result["verdict"], "reasons": [_reason(finding) for finding in broken]}
    stopping = [batch for batch, found in verdicts.items() if found["verdict"] in STOPPING[stop_on]]
    return {"open": not stopping, "stop_on": stop_on, "stopped_by": stopping, "batches": verdicts}


def closed_message(verdict: dict[str, Any], audits: Path) -> str:
    """What a person needs to know when the gate is closed."""
    lines = [f"the gate is closed by {len(verdict['stopped_by'])} of {len(verdict['batches'])} batches"]
    for batch in verdict["stopped_by"]:
        lines.append(f"  {batch}: open {(audits / batch / PAGE_FILE).as_posix()} in a browser")
        lines += [f"    {reason}" for reason in verdict["batches"][batch]["reasons"]]
    lines.append(
        "mend the labels, take the batch out of `batches`, or change the limits in the section `audit`"
    )
    return "\n".join(lines)


def _reason(finding: dict[str, Any]) -> str:
    entry = finding["expectation"]
    limits = describe_limits(entry["limits"])
    wanted = f"{entry['table']}.{entry['column']}" + (f" {limits}" if limits else "")
    if finding["error"]:
        found = f"cannot be checked: {finding['error']}"
    elif finding["observed"] is not None:
        found = f"got {finding['observed']}"
    else:
        examples = f", such as {finding['examples'][0]}" if finding["examples"] else ""
        found = f"broken by {finding['n_unexpected']} of {finding['n_rows']} rows{examples}"
    return f"{finding['verdict']}: {entry['meaning']} ({wanted}): {found}"
