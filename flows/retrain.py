"""The flow ``retrain``: new video is labelled, passes the gate, trains from the champion and is judged.

``python -m flows.retrain`` once by hand; ``python -m flows.serve`` on a schedule.
"""

# mypy: disable-error-code="untyped-decorator"
# The type checker does not follow Prefect (its imports cost a minute), so its decorators are untyped.

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.states import Completed, State

from flows.inbox import (
    DELIVERIES,
    INBOX,
    QUARANTINE,
    SETTLE_SECONDS,
    Layout,
    batch_trouble,
    find_deliveries,
    find_pointers,
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
# Small results that dvc.yaml marks `cache: false`: git is the only place that keeps them.
RESULTS = ("reports/metrics", "reports/evaluation", "reports/label_quality", "reports/curves")
# Layout of deliveries that bring no source.yaml, unless a caller says otherwise.
ADAPTER = "folder"


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


@task(name="start anew")
def start_anew() -> None:
    """Let the next training start from random weights, whatever an earlier retrain started from."""
    set_parameter(START_KEY, "")
    get_run_logger().info("training starts from random weights")


@task(name="promote")
def promote(tolerance_pq: float) -> dict[str, Any]:
    """Let the new network become the champion when no benchmark regresses beyond the tolerance."""
    command = [*TRACKING, "promote", "--tolerance", str(tolerance_pq)]
    answer: dict[str, Any] = json.loads(read_command(command, what="tracking promote"))
    verdict = "promoted" if answer["promoted"] else "not promoted"
    get_run_logger().info("%s: %s", verdict, "; ".join(answer["reasons"]))
    return answer


@task(name="commit")
def commit_version(batches: list[str], note: str) -> None:
    """Commit what a clone needs to know this version of the data and its results. Never pushes.

    These are the parameters, the lock file, the small results and the pointers of the batches that came through
    the inbox, those of earlier retrains that did not commit included: the parameters name them all. What
    else is staged stays staged.

    Args:
        batches: New batches, for the title.
        note: What became of the new network, for the title.
    """
    log = get_run_logger()
    # Git refuses to commit a folder without files.
    results = [folder for folder in RESULTS if any(Path(folder).glob("*"))]
    pointers = [str(path) for path in find_pointers()]
    run_command(["git", "add", "--", *COMMITTED, *results], what="git add", log=log.info)
    # By force: .gitignore leaves out all of data/, and no stage can make a pointer again.
    run_command(["git", "add", "--force", "--", *pointers], what="git add", log=log.info)
    title = f"Retrain with {', '.join(batches)}: {note}"
    commit = ["git", "commit", "-m", title, "--", *COMMITTED, *results, *pointers]
    run_command(commit, what="git commit", log=log.info)


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
    adapter: str = ADAPTER,
    options: list[str] | None = None,
    settle_seconds: float = SETTLE_SECONDS,
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
        from_champion: Start from the champion's network instead of random weights. Either way
            ``guided.initial_network`` is set.
        commit: Commit parameters, lock file, small results and pointers at the end (``commit_version``);
            nothing is ever pushed.
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
    else:
        start_anew()
    rest = [stage for stage in order_stages(needs) if stage not in labelling]
    ran += run_stages(rest, "training, evaluation, report")
    verdict = promote(tolerance_pq)
    write_pending([])
    note = "promoted" if verdict["promoted"] else "not promoted"
    publish_metrics("retrain", ran=ran, notes=[f"**{note}**: {'; '.join(verdict['reasons'])}"])
    if commit:
        commit_version(batches, note)
    return Completed(message=f"{', '.join(batches)}: {note}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command line the options of a retrain, named like the parameters of the flow."""
    parser.add_argument(
        "--settle-seconds",
        type=float,
        default=SETTLE_SECONDS,
        help="how long a delivery's size must stand still before it is taken in (default: %(default)s)",
    )
    parser.add_argument(
        "--adapter",
        default=ADAPTER,
        help="layout of deliveries that bring no source.yaml, see docs/data.md (default: %(default)s)",
    )
    parser.add_argument(
        "--commit",
        action="store_true",
        help="commit params.yaml, dvc.lock, the small results under reports/ and each new batch's source.yaml "
        "after a retrain; nothing is ever pushed (default: no commit)",
    )


def main(words: Sequence[str] | None = None) -> None:
    """Retrain once.

    Args:
        words: Command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain",
        description=f"Take in the video that lies in {INBOX} and retrain with it, once: label, ask the gate, "
        "train from the champion's network, evaluate, promote. An interrupted retrain goes on.",
    )
    add_options(parser)
    try:
        retrain(**vars(parser.parse_args(words)))
    except CommandFailed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
