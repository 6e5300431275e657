"""The flow ``retrain``: new video is labelled, passes the gate, trains from the champion and is judged.

``python -m flows.retrain`` once by hand; ``python -m flows.serve`` on a schedule.
"""

# mypy: disable-error-code="untyped-decorator"
# The type checker does not follow Prefect (its imports cost a minute), so its decorators are untyped.

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.states import Completed, State

from flows.inbox import (
    DELIVERIES,
    INBOX,
    QUARANTINE,
    Layout,
    batch_trouble,
    find_deliveries,
    forget_batch,
    layout_of,
    move_delivery,
    quarantine,
    read_pending,
    write_pending,
)
from flows.parameters import remove_batch, set_parameter
from flows.pipeline import order_stages, outputs_of, remove_outputs, stage_needs
from flows.processes import CHECK_PARAMETERS, DVC, GESTALT, TRACKING, CommandFailed, read_command, run_command
from flows.reproduce import publish_metrics, run_stages

GATE = "gate"
VERDICT = Path("reports/gate.json")
AUDITS = Path("reports/audit")
START_KEY = "guided.initial_network"
COMMITTED = ("params.yaml", "dvc.lock")


@task(name="find new video")
def look_into(inbox: Path, settle_seconds: float) -> list[Path]:
    """Deliveries whose size stands still."""
    found = find_deliveries(inbox, settle_seconds=settle_seconds)
    names = ", ".join(folder.name for folder in found)
    get_run_logger().info("%s: %s", inbox, names or "no complete delivery")
    return found


@task(name="ingest", task_run_name="ingest {delivery.name}")
def ingest(delivery: Path, default: Layout) -> str:
    """Make a delivery a batch: moved to where it stays, entered in ``params.yaml``, its pairs checked.

    Returns:
        The name of the batch, or an empty string when the delivery went to quarantine with the reason.
    """
    log = get_run_logger()
    if reason := batch_trouble(delivery.name):
        log.error("%s is refused and lies in %s: %s", delivery.name, quarantine(delivery, reason), reason)
        return ""
    kept = move_delivery(delivery, DELIVERIES)
    batch = kept.name
    try:
        layout = layout_of(kept, default)
        options = [word for option in layout.options for word in ("--option", option)]
        add = [*GESTALT, "data", "add", batch, "--adapter", layout.adapter, "--root", str(kept), *options]
        run_command(add, what="data add", log=log.info)
        manifest = [*DVC, "repro", "--single-item", f"manifest@{batch}"]
        run_command(manifest, what=f"manifest@{batch}", log=log.info)
    except CommandFailed as error:
        withdraw(batch)
        log.error("%s is refused and lies in %s: %s", batch, quarantine(kept, str(error)), error)
        return ""
    return batch


@task(name="start from the champion")
def start_from_champion() -> str:
    """Let the next training start from the champion's network.

    Returns:
        Its folder; empty when there is no champion yet or its bytes are not here, and training starts anew.
    """
    answer = json.loads(read_command([*TRACKING, "champion"], what="tracking champion"))
    folder = str(answer["folder"])
    set_parameter(START_KEY, folder)
    get_run_logger().info("training starts from %s", folder or "random weights: no champion is here")
    return folder


@task(name="promote")
def promote(tolerance_pq: float) -> dict[str, Any]:
    """Let the new network become the champion when no benchmark regresses beyond the tolerance."""
    command = [*TRACKING, "promote", "--tolerance", str(tolerance_pq)]
    answer: dict[str, Any] = json.loads(read_command(command, what="tracking promote"))
    verdict = "promoted" if answer["promoted"] else "not promoted"
    get_run_logger().info("%s: %s", verdict, "; ".join(answer["reasons"]))
    return answer


@task(name="commit")
def commit_lock(batches: list[str], note: str) -> None:
    """Commit parameters and the lock file: one commit is one version of the data. Never pushes."""
    log = get_run_logger()
    run_command(["git", "add", "--", *COMMITTED], what="git add", log=log.info)
    title = f"Retrain with {', '.join(batches)}: {note}"
    run_command(["git", "commit", "-m", title, "--", *COMMITTED], what="git commit", log=log.info)


def withdraw(batch: str) -> None:
    """Take a batch out of the pipeline: parameters, pointer and outputs; DVC's cache keeps the bytes."""
    remove_outputs(outputs_of(batch))
    remove_batch(batch)
    forget_batch(batch)


def refuse(batches: list[str], reason: str, inbox: Path) -> None:
    """After a closed gate: the batches that closed it go to quarantine, the others back to the inbox.

    Args:
        batches: New batches; older ones are never touched.
        reason: What the gate said.
        inbox: Where innocent deliveries wait for the next run.
    """
    verdict = json.loads(VERDICT.read_text(encoding="utf-8")) if VERDICT.exists() else {}
    guilty = [batch for batch in batches if batch in verdict.get("stopped_by", [])] or batches
    for batch in batches:
        delivery = DELIVERIES / batch
        if delivery.exists():
            moved = quarantine(delivery, reason) if batch in guilty else move_delivery(delivery, inbox)
            if moved.parent == QUARANTINE and (AUDITS / batch).exists():
                move_delivery(AUDITS / batch, moved / "audit")
        withdraw(batch)


@flow(name="retrain")
def retrain(
    inbox: str = str(INBOX),
    adapter: str = "folder",
    options: list[str] | None = None,
    settle_seconds: float = 60.0,
    tolerance_pq: float = 0.5,
    from_champion: bool = True,
    commit: bool = False,
) -> State[Any]:
    """Take in new video and retrain with it.

    A batch that the gate refuses is taken back: the parameters are without it, the video and its audit page
    lie in quarantine with the reason, and the flow ends as failed. A retrain that was interrupted goes on
    with the batches it had taken in.

    Args:
        inbox: Folder in which deliveries arrive, a folder each.
        adapter: Layout of deliveries that bring no ``source.yaml`` of their own.
        options: ``KEY=VALUE`` strings for that adapter.
        settle_seconds: How long a delivery's size must stand still.
        tolerance_pq: Percentage points of PQ that one benchmark may lose and the network still be promoted.
        from_champion: Start from the champion's network instead of random weights.
        commit: Commit ``params.yaml`` and ``dvc.lock`` at the end; nothing is ever pushed.
    """
    default = Layout(adapter, tuple(options or ()))
    batches = read_pending()
    deliveries = look_into(Path(inbox), settle_seconds)
    if deliveries:
        # Before any delivery is judged: broken parameters are not the video's fault.
        run_command(CHECK_PARAMETERS, what="params.yaml")
    for delivery in deliveries:
        if batch := ingest(delivery, default):
            batches.append(batch)
            write_pending(batches)
    if not batches:
        return Completed(message="no new video")
    needs = stage_needs()
    labelling = order_stages(needs, [GATE])
    ran = run_stages([stage for stage in labelling if stage != GATE], f"labels of {', '.join(batches)}")
    try:
        ran += run_stages([GATE], GATE)
    except CommandFailed as error:
        refuse(batches, str(error), Path(inbox))
        write_pending([])
        publish_metrics("retrain", ran=ran, notes=[f"**Stopped before training:**\n\n```\n{error}\n```"])
        raise
    if from_champion:
        start_from_champion()
    rest = [stage for stage in order_stages(needs) if stage not in labelling]
    ran += run_stages(rest, "training, evaluation, report")
    verdict = promote(tolerance_pq)
    write_pending([])
    note = "promoted" if verdict["promoted"] else "not promoted"
    publish_metrics("retrain", ran=ran, notes=[f"**{note}**: {'; '.join(verdict['reasons'])}"])
    if commit:
        commit_lock(batches, note)
    return Completed(message=f"{', '.join(batches)}: {note}")


if __name__ == "__main__":
    try:
        retrain()
    except CommandFailed as error:
        sys.exit(str(error))
