"""The closing step: from the files a pipeline left, write everything on its parent run.

A stage that DVC skips logs nothing, and ordinary stages do not import MLflow (a second and a half each), so
the last stage reads metrics, status, curves and hashes from disk. Runs then compare even when most of their
results came from the cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gestalt.config import Params
from gestalt.tracking.lineage import (
    evaluation_hash,
    flatten,
    folder_hash,
    git_commit,
    lineage_tags,
    output_hashes,
)
from gestalt.tracking.registry import NETWORK_FOLDER, register_candidate
from gestalt.tracking.runs import (
    STAGE_TAG,
    child_runs,
    create_child,
    log_parameters,
    log_values,
    parent_run,
)
from gestalt.tracking.store import SideEffect, open_store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

REPORTS = Path("reports")
CLOSED_TAG = "closing.time"

# The network whose numbers are the pipeline's, fixed beforehand; others are logged under their own name.
FINAL_NETWORK = "self_trained"
HEADLINE = ("PQ", "SQ", "RQ", "PQ_thing", "PQ_stuff", "mIoU", "pixel_accuracy")
PROPOSALS = ("precision", "recall")
# MLflow cuts longer parameter values off.
PARAMETER_LENGTH = 6000


@dataclass(frozen=True)
class Closing:
    """What the closing step wrote.

    Attributes:
        run_id: The parent run; empty when tracking is off.
        metrics: The numbers on it.
        n_stages: Stages that got a run of their own now.
        version: Version of the registered model; empty without a network.
    """

    run_id: str
    metrics: dict[str, float]
    n_stages: int
    version: str


def close_pipeline(
    params: Params, *, device: str, root: Path | None = None, reports: Path = REPORTS
) -> Closing:
    """Record this pipeline execution; a store that cannot be written costs one warning.

    Args:
        params: The checked ``params.yaml``.
        device: Name of the device, for the record.
        root: Folder that ``mlruns`` lies in; found by itself when left out.
        reports: Folder of the stages' reports.
    """
    metrics = pipeline_metrics(reports)
    with SideEffect("the pipeline"):
        client, experiment = open_store(root)
        since = _last_closing(client, experiment)
        parent = parent_run(client, experiment, params, device=device)
        _log_parent(client, parent, params, metrics, device=device, reports=reports)
        n_stages = _log_stages(client, experiment, parent, reports, since)
        version = _register(client, parent, params, metrics)
        newest = max((path.stat().st_mtime for path in (reports / "status").glob("*.json")), default=0.0)
        client.set_tag(parent, CLOSED_TAG, repr(max(newest, since)))
        client.set_terminated(parent)
        return Closing(parent, metrics, n_stages, version)
    return Closing("", metrics, 0, "")


def pipeline_metrics(reports: Path = REPORTS) -> dict[str, float]:
    """All headline numbers, percent.

    Returns:
        ``PQ/<benchmark>`` and so on for the final network, ``PQ_<network>/<benchmark>`` for the others,
        ``labels_PQ/<batch>`` and ``proposals_<source>_<objects>_precision/<batch>`` for what it learned from.
    """
    found: dict[str, float] = {}
    for benchmark, content in _read_folder(reports / "evaluation").items():
        for network, metrics in content["networks"].items():
            suffix = "" if network == FINAL_NETWORK else f"_{network}"
            for name, value in headline(metrics, content["protocol"]).items():
                found[f"{name}{suffix}/{benchmark}"] = value
    for batch, content in _read_folder(reports / "label_quality").items():
        for name, value in headline(content["labels"], content["protocol"]).items():
            found[f"labels_{name}/{batch}"] = value
        for key, value in flatten(content["proposals"]).items():
            words = key.split(".")
            if words[-1] in PROPOSALS and isinstance(value, int | float):
                found[f"proposals_{'_'.join(words)}/{batch}"] = 100.0 * value
    return dict(sorted(found.items()))


def headline(metrics: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, float]:
    """PQ, SQ, RQ, their thing and stuff parts, mIoU and accuracy of one evaluation, percent.

    Args:
        metrics: What an evaluation wrote: a mapping per convention, ``mIoU`` and ``pixel_accuracy``.
        protocol: Its protocol; the first of its ``conventions`` is the primary one.
    """
    primary = metrics[protocol["conventions"][0]]
    values = {name: primary[name] for name in ("PQ", "SQ", "RQ")}
    values |= {f"PQ_{part}": primary[part]["PQ"] for part in ("thing", "stuff")}
    values |= {name: metrics[name] for name in ("mIoU", "pixel_accuracy")}
    return {name: float(value) for name, value in values.items()}


def _log_parent(
    client: MlflowClient,
    parent: str,
    params: Params,
    metrics: Mapping[str, float],
    *,
    device: str,
    reports: Path,
) -> None:
    for key, value in lineage_tags(params, device).items():
        client.set_tag(parent, key, value)
    outputs = output_hashes()
    client.set_tag(parent, "evaluation.hash", evaluation_hash(outputs))
    client.log_dict(parent, outputs, "outputs.json")
    log_parameters(
        client, parent, {key: str(value)[:PARAMETER_LENGTH] for key, value in flatten(params).items()}
    )
    log_values(client, parent, metrics)
    for path in (Path("params.yaml"), Path("dvc.lock"), reports / "index.html", reports / "gate.json"):
        if path.exists():
            client.log_artifact(parent, str(path))
    for name in ("evaluation", "label_quality", "pictures"):
        if (reports / name).exists():
            client.log_artifacts(parent, str(reports / name), name)
    for result in sorted((reports / "audit").glob("*/result.json")):
        client.log_artifact(parent, str(result), f"audit/{result.parent.name}")


def _log_stages(client: MlflowClient, experiment: str, parent: str, reports: Path, since: float) -> int:
    """A run for each stage that worked since the last closing; its live run where it has one."""
    live = {run.data.tags.get(STAGE_TAG): run for run in reversed(child_runs(client, experiment, parent))}
    fresh = [path for path in sorted((reports / "status").glob("*.json")) if path.stat().st_mtime > since]
    for path in fresh:
        status = flatten(json.loads(path.read_text(encoding="utf-8")))
        ended = int(path.stat().st_mtime * 1000)
        started = ended - int(1000 * float(status.get("seconds", 0)))
        run = live.get(path.stem)
        # A run that a resumed stage went on with began earlier, but it ended during this work.
        is_live = run is not None and int(run.info.end_time or ended) >= started
        run_id = (
            run.info.run_id
            if run is not None and is_live
            else create_child(client, experiment, parent, path.stem, started)
        )
        metrics = reports / "metrics" / path.name
        values = flatten(json.loads(metrics.read_text(encoding="utf-8"))) if metrics.exists() else {}
        values |= {f"status.{key}": value for key, value in status.items()}
        log_values(
            client, run_id, {_metric_name(key): value for key, value in values.items() if _is_number(value)}
        )
        client.set_terminated(run_id, "FINISHED", ended)
    return len(fresh)


def _register(client: MlflowClient, parent: str, params: Params, metrics: Mapping[str, float]) -> str:
    outputs = output_hashes()
    if not (NETWORK_FOLDER / "card.json").exists():
        return ""
    final = {name: value for name, value in metrics.items() if name.split("/")[0] in HEADLINE}
    return register_candidate(
        client,
        parent,
        md5=outputs.get(NETWORK_FOLDER.as_posix()) or folder_hash(NETWORK_FOLDER),
        evaluation_hash=evaluation_hash(outputs),
        commit=git_commit(),
        metrics=final,
        settings=params.predict,
    )


def _last_closing(client: MlflowClient, experiment: str) -> float:
    """When any pipeline was last closed: files that are older belong to work already recorded."""
    found = client.search_runs(
        [experiment], f"tags.`{CLOSED_TAG}` != ''", order_by=["end_time DESC"], max_results=50
    )
    return max((float(run.data.tags[CLOSED_TAG]) for run in found), default=0.0)


def _metric_name(key: str) -> str:
    """MLflow allows letters, digits and ``_-. :/`` in names."""
    return "".join(letter if letter.isalnum() or letter in "_-. :/" else "_" for letter in key)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_folder(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
