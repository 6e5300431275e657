"""Deployments on one machine: retrain on a schedule or when video arrives, one at a time.

``python -m flows.serve`` keeps running and needs ``prefect server start`` (docs/operations.md).
"""

# mypy: disable-error-code="untyped-decorator"
# The type checker does not follow Prefect (its imports cost a minute), so its decorators are untyped.

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.events import DeploymentEventTrigger, emit_event
from prefect.schedules import Cron

from flows.inbox import INBOX, SETTLE_SECONDS, find_deliveries
from flows.retrain import add_options, retrain

ARRIVED = "gestalt.video.arrived"
RESOURCE = "gestalt.video"
# Two at most: a retrain, and the watcher that looks into the inbox meanwhile.
PROCESSES = 2


@flow(name="watch")
def watch(inbox: str = str(INBOX), settle_seconds: float = SETTLE_SECONDS) -> list[str]:
    """Tell Prefect of each complete delivery; looking changes nothing, so it may run at any time."""
    arrived = [folder.name for folder in find_deliveries(Path(inbox), settle_seconds=settle_seconds)]
    for name in arrived:
        emit_event(ARRIVED, resource={"prefect.resource.id": f"{RESOURCE}.{name}"})
    get_run_logger().info("%s: %s", inbox, ", ".join(arrived) or "no complete delivery")
    return arrived


def deployments(
    *, cron: str, time_zone: str, poll_seconds: float, settle_seconds: float, adapter: str, commit: bool
) -> list[Any]:
    """What ``main`` serves.

    Args:
        cron: When to look for new video and retrain.
        time_zone: Of ``cron``.
        poll_seconds: How often to look between times.
        settle_seconds: How long a delivery's size must stand still.
        adapter: Layout of deliveries that bring no ``source.yaml``.
        commit: Whether a retrain commits its version of the data and the results.
    """
    # A second retrain would only wait for the first one's files; what it would take in is still there later.
    one_at_a_time = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    trigger = DeploymentEventTrigger(expect={ARRIVED}, match={"prefect.resource.id": f"{RESOURCE}.*"})
    return [
        retrain.to_deployment(
            name="new-video",
            schedule=Cron(cron, timezone=time_zone),
            parameters={"settle_seconds": settle_seconds, "adapter": adapter, "commit": commit},
            triggers=[trigger],
            concurrency_limit=one_at_a_time,
        ),
        watch.to_deployment(
            name="poll",
            interval=poll_seconds,
            parameters={"settle_seconds": settle_seconds},
            concurrency_limit=one_at_a_time,
        ),
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Serve until stopped.

    Args:
        words: Command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.serve",
        description=f"Retrain on a schedule and when video arrives in {INBOX}, one at a time. "
        "Keeps running and needs `prefect server start` (docs/operations.md).",
    )
    add = parser.add_argument
    add("--cron", default="0 3 * * *", help="when to retrain (default: %(default)s)")
    add("--time-zone", default="UTC", help="of the schedule (default: %(default)s)")
    add(
        "--poll-seconds",
        type=float,
        default=300.0,
        help="how often to look into the inbox (default: %(default)s)",
    )
    add_options(parser)
    arguments = parser.parse_args(words)
    serve(
        *deployments(
            cron=arguments.cron,
            time_zone=arguments.time_zone,
            poll_seconds=arguments.poll_seconds,
            settle_seconds=arguments.settle_seconds,
            adapter=arguments.adapter,
            commit=arguments.commit,
        ),
        limit=PROCESSES,
    )


if __name__ == "__main__":
    main()
