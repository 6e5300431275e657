"""The flow ``reproduce``: each DVC stage a task with live logs and retries, the metrics as an artefact.

``python -m flows.reproduce [STAGE ...]``
"""

# mypy: disable-error-code="untyped-decorator"
# The type checker does not follow Prefect (its imports cost a minute), so its decorators are untyped.

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

from flows.pipeline import order_stages, stage_needs
from flows.processes import DVC, TRACKING, CommandFailed, read_command, run_command

# What DVC says when another `dvc` process holds a path; waiting helps, and nothing else is worth a retry.
BUSY = "is busy"
RETRIES, RETRY_DELAY_SECONDS = 5, 60
SKIPPED = "didn't change, skipping"
REPORT = "reports/index.html"


def is_transient(task: Any, run: Any, state: Any) -> bool:
    """Whether a failure goes away by waiting: Prefect's ``retry_condition_fn``."""
    return BUSY in str(state.message)


@task(
    name="stage",
    task_run_name="{stage}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAY_SECONDS,
    retry_condition_fn=is_transient,
)
def reproduce_stage(stage: str) -> bool:
    """Bring one stage up to date; what it needs must be.

    Returns:
        Whether it ran; False when nothing that it depends on changed.

    Raises:
        CommandFailed: The stage failed; the message holds its own last lines.
    """
    log = get_run_logger()
    tail = run_command([*DVC, "repro", "--single-item", stage], what=stage, log=log.info)
    return not any(SKIPPED in line for line in tail)


def run_stages(stages: list[str], title: str) -> list[str]:
    """Run stages one after the other with a progress bar in the UI.

    Independent stages do not run side by side: each already uses all cores through its own workers.

    Returns:
        Those that really ran.
    """
    progress = create_progress_artifact(progress=0.0, description=title)
    ran = []
    for position, stage in enumerate(stages):
        update_progress_artifact(progress, progress=100.0 * position / len(stages), description=stage)
        if reproduce_stage(stage):
            ran.append(stage)
    update_progress_artifact(progress, progress=100.0, description=title)
    return ran


def publish_metrics(key: str, *, ran: list[str], notes: list[str] | None = None) -> str:
    """The metrics as DVC shows them, and where to look, as a Markdown artefact of the run.

    Args:
        key: Artefact key: lower-case letters, digits, dashes.
        ran: Stages that ran.
        notes: More lines.

    Returns:
        The text.
    """
    try:
        table = read_command([*DVC, "metrics", "show", "--md"], what="dvc metrics show")
    except CommandFailed as error:
        table = f"No metrics yet: {error}"
    ui = read_command([*TRACKING, "ui"], what="tracking").strip()
    lines = [
        f"**Stages that ran:** {', '.join(ran) or 'none, everything was up to date'}",
        *(notes or []),
        f"Report: `{REPORT}`. Runs: `{ui}`",
        table,
    ]
    text = "\n\n".join(lines)
    create_markdown_artifact(text, key=key, description="metrics of the pipeline")
    return text


@flow(name="reproduce")
def reproduce(targets: list[str] | None = None) -> list[str]:
    """Bring the pipeline, or the part that leads to ``targets``, up to date.

    Returns:
        The stages that ran.
    """
    stages = order_stages(stage_needs(), targets or ())
    get_run_logger().info("%d stages: %s", len(stages), ", ".join(stages))
    ran = run_stages(stages, f"{len(stages)} stages")
    publish_metrics("pipeline-metrics", ran=ran)
    return ran


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the stages' names, then run the flow."""
    parser = argparse.ArgumentParser(prog="python -m flows.reproduce", description=__doc__)
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help="up to these, such as gate or motion@monday; default: all"
    )
    targets = parser.parse_args(arguments).stages
    try:
        # Here, before a server starts: a misspelt name is no failed run.
        order_stages(stage_needs(), targets)
    except ValueError as error:
        parser.error(str(error))
    try:
        reproduce(targets or None)
    except CommandFailed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
