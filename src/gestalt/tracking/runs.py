"""Runs: one parent per pipeline execution, one child per stage, found by tags across processes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gestalt.config import Params
from gestalt.tracking.lineage import lineage_tags, pipeline_key
from gestalt.tracking.store import SideEffect, open_store

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

LOGGER = logging.getLogger(__name__)

KEY_TAG = "pipeline.key"
STAGE_TAG = "stage"
PARENT_TAG = "mlflow.parentRunId"

# A row of the database costs 15 to 20 ms alone and almost nothing in a batch; MLflow takes 1000 a call.
BATCH_POINTS = 500
FLUSH_SECONDS = 5.0
# More batches than this are counted instead of named in the name of a run.
NAMED_BATCHES = 3


class StageRun:
    """Live curves and pictures of one stage; every call is cheap and none can fail.

    Points are buffered and written every few seconds. When the store cannot be written the run turns itself
    off with one warning.
    """

    def __init__(self, client: MlflowClient | None, run_id: str, stage: str) -> None:
        self.run_id = run_id
        self._client = client
        self._stage = stage
        self._points: list[Metric] = []
        self._flushed = time.monotonic()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add points of curves.

        Args:
            step: Global step, going on where an interrupted training stopped.
            values: Curve name -> value; values that are not finite are left out.
        """
        if self._client is None:
            return
        from mlflow.entities import Metric

        now = _milliseconds()
        self._points += [
            Metric(name, float(value), now, step) for name, value in values.items() if math.isfinite(value)
        ]
        if len(self._points) >= BATCH_POINTS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def log_file(self, path: Path, folder: str) -> None:
        """Keep a copy of a file, such as a picture, in a folder of the run."""
        if self._client is None:
            return
        with self._guard("a file"):
            self._client.log_artifact(self.run_id, str(path), folder)

    def flush(self) -> None:
        """Write what is buffered."""
        points, self._points = self._points, []
        self._flushed = time.monotonic()
        if self._client is not None and points:
            with self._guard("curves"):
                log_points(self._client, self.run_id, points)

    def close(self, status: str) -> None:
        """Write what is buffered and end the run as ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self.flush()
        if self._client is not None:
            with self._guard("the end of a run"):
                self._client.set_terminated(self.run_id, status)

    @contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        with SideEffect(f"{doing} of the stage {self._stage}") as attempt:
            yield
        if not attempt.is_done:
            self._client = None


@contextmanager
def stage_run(
    stage: str, params: Params, *, device: str = "cpu", root: Path | None = None
) -> Iterator[StageRun]:
    """Record a stage while it works: a child run of this pipeline execution.

    A stage that was interrupted and runs again goes on in its unfinished run, so its curves have no gap. An
    exception ends the run as failed (Ctrl-C: as killed) and travels on.

    Args:
        stage: Name of the stage, with its item where it has one.
        params: The checked ``params.yaml``; names the parent run.
        device: Name of the device, for the record.
        root: Repository root; found by itself when left out.
    """
    client, run_id = None, ""
    with SideEffect(f"the stage {stage}"):
        opened, experiment = open_store(root)
        parent = parent_run(opened, experiment, params, device=device)
        run_id = _unfinished_run(opened, experiment, parent, stage) or create_child(
            opened, experiment, parent, stage
        )
        client = opened
    run = StageRun(client, run_id, stage)
    try:
        yield run
    except KeyboardInterrupt:
        run.close("KILLED")
        raise
    except BaseException:
        run.close("FAILED")
        raise
    run.close("FINISHED")


def parent_run(client: MlflowClient, experiment: str, params: Params, *, device: str) -> str:
    """Find the run of this pipeline execution by its key, or make it.

    The parent is closed at once: the processes that add to it come and go, and none of them is the last.
    """
    key = pipeline_key(params)
    found = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {
        KEY_TAG: key,
        "mlflow.source.name": "dvc repro",
        "mlflow.source.type": "LOCAL",
        **lineage_tags(params, device),
    }
    run = client.create_run(experiment, run_name=run_name(params), tags=tags)
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def create_child(
    client: MlflowClient, experiment: str, parent: str, stage: str, start_time: int | None = None
) -> str:
    """A new run of ``stage`` under ``parent``; ``start_time`` in milliseconds since the epoch."""
    tags = {PARENT_TAG: parent, STAGE_TAG: stage}
    return str(client.create_run(experiment, start_time=start_time, run_name=stage, tags=tags).info.run_id)


def child_runs(client: MlflowClient, experiment: str, parent: str) -> list[Any]:
    """All runs of stages under ``parent``, newest first."""
    found: list[Any] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment], f"tags.`{PARENT_TAG}` = '{parent}'", order_by=["start_time DESC"], page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def run_name(params: Params, now: datetime | None = None) -> str:
    """Preset, batches and local time: what a person recognises in a list of runs."""
    many = len(params.batches) > NAMED_BATCHES
    batches = f"{len(params.batches)} batches" if many else "+".join(params.batches)
    return f"{params.preset} | {batches} | {(now or datetime.now()):%Y-%m-%d %H:%M}"


def log_points(client: MlflowClient, run_id: str, points: list[Metric]) -> None:
    """Write points of curves in as few transactions as MLflow allows."""
    for first in range(0, len(points), BATCH_POINTS):
        client.log_batch(run_id, metrics=points[first : first + BATCH_POINTS])


def log_values(client: MlflowClient, run_id: str, values: Mapping[str, float], step: int = 0) -> None:
    """Write single numbers; those that are not finite are left out."""
    from mlflow.entities import Metric

    now = _milliseconds()
    points = [Metric(name, float(value), now, step) for name, value in values.items() if math.isfinite(value)]
    log_points(client, run_id, points)


def log_parameters(client: MlflowClient, run_id: str, values: Mapping[str, Any]) -> None:
    """Set parameters that the run does not have yet; MLflow lets none change."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    fresh = [Param(name, str(value)) for name, value in values.items() if name not in known]
    # MLflow takes 100 parameters a call.
    for first in range(0, len(fresh), 100):
        client.log_batch(run_id, params=fresh[first : first + 100])


def _unfinished_run(client: MlflowClient, experiment: str, parent: str, stage: str) -> str:
    for run in child_runs(client, experiment, parent):
        if run.data.tags.get(STAGE_TAG) == stage:
            if run.info.status == "FINISHED":
                return ""
            client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)
    return ""


def _milliseconds() -> int:
    return int(time.time() * 1000)
