"""Finished pipeline runs, read back: what they were asked for, what they left, and where a comparison of them goes."""

from __future__ import annotations

import difflib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gestalt.errors import DataError
from gestalt.tracking.runs import KEY_TAG, PARENT_TAG, log_parameters, log_values
from gestalt.tracking.store import FOLDER, open_store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# Runs that a message lists.
N_LISTED = 8
DATABASE = "mlflow.db"
SHORT_ID, KEY_LENGTH = 8, 12
COMPARISON_TAG = "comparison.key"
COMPARISON_FOLDER = "comparison"
CODE_FOLDERS = ("src/", "stages/")


@dataclass(frozen=True)
class RecordedRun:
    """One pipeline execution.

    Attributes:
        run_id: MLflow's id.
        name: As in the list of runs.
        started: Local time, to the minute.
        parameters: ``section.key`` -> value as text.
        tags: Lineage: ``git.commit``, ``seed``, ``device``, ``evaluation.hash``, ...
        outputs: Path -> DVC's hash of every output; empty where the run was not closed.
        code: File or folder of code that led to its predictions -> DVC's hash.
        evaluations: Benchmark -> what the stage ``evaluate`` wrote.
    """

    run_id: str
    name: str
    started: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    outputs: Mapping[str, str]
    code: Mapping[str, str]
    evaluations: Mapping[str, Mapping[str, Any]]


def open_records(root: Path) -> tuple[MlflowClient, str]:
    """Open the store as ``open_store`` does, but make none: who looks for a run does not want an empty one.

    Raises:
        DataError: There is no store.
    """
    if not (root / FOLDER / DATABASE).is_file():
        raise DataError(
            f"no pipeline was recorded here: {root / FOLDER} holds no runs; `make run` records one"
        )
    return open_store(root)


def find_run(client: MlflowClient, experiment: str, text: str) -> RecordedRun:
    """The run with this id, unique beginning of an id, or name.

    Args:
        client: An open store.
        experiment: Its experiment.
        text: What a person typed.

    Raises:
        DataError: None fits, or several do.
    """
    known = pipeline_runs(client, experiment)
    fitting = [run for run in known if run.info.run_id == text]
    fitting = fitting or [run for run in known if run.info.run_name == text]
    fitting = fitting or [run for run in known if text and run.info.run_id.startswith(text)]
    if len(fitting) == 1:
        return _record(client, fitting[0])
    if fitting:
        raise DataError(f"{len(fitting)} runs are called {text!r}; say which by its id:\n{_list(fitting)}")
    if not known:
        raise DataError(f"there is no run {text!r}: no pipeline was recorded here; `make run` records one")
    raise DataError(f"there is no run {text!r}; the nearest:\n{_list(_nearest(known, text))}")


def pipeline_runs(client: MlflowClient, experiment: str) -> list[Any]:
    """The parent runs of all pipelines, newest first."""
    found: list[Any] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment], f"tags.`{KEY_TAG}` != ''", order_by=["start_time DESC"], page_token=token
        )
        found += [run for run in page if PARENT_TAG not in run.data.tags]
        token = page.token
        if not token:
            return found


def code_behind(lock: Mapping[str, Any], paths: Sequence[str]) -> dict[str, str]:
    """The code that some outputs were made with, found backwards through a lock file.

    Args:
        lock: Content of ``dvc.lock``.
        paths: The outputs.

    Returns:
        File or folder of code -> DVC's hash; where stages used different states of it, all of them.
    """
    makers = {
        str(output["path"]): stage
        for stage in (lock.get("stages") or {}).values()
        for output in stage.get("outs", [])
    }
    found: dict[str, set[str]] = {}
    waiting, seen = list(paths), set(paths)
    while waiting:
        for needed in makers.get(waiting.pop(), {}).get("deps", []):
            path = str(needed["path"])
            if path.startswith(CODE_FOLDERS):
                found.setdefault(path, set()).add(str(needed.get("md5", "")))
                continue
            # A stage may need a file inside another stage's folder, or a folder of several stages' outputs.
            for made in makers:
                if made not in seen and f"{path}/".startswith(f"{made}/") | f"{made}/".startswith(f"{path}/"):
                    seen.add(made)
                    waiting.append(made)
    return {path: " ".join(sorted(states)) for path, states in sorted(found.items())}


def log_comparison(
    client: MlflowClient,
    experiment: str,
    *,
    name: str,
    run_ids: Sequence[str],
    parameters: Mapping[str, str],
    page: Path,
    summary: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> str:
    """Record a comparison: a run of its own, and its page on each run that it compares.

    The run of its own is what the list of runs shows and searches; it holds the differences as metrics, which on a
    compared run would read as if they were its own. The page on each compared run is found by whoever looks at that
    run. The same comparison made again replaces the earlier one.

    Args:
        client: An open store.
        experiment: Its experiment.
        name: What the list of runs shows.
        run_ids: The compared runs.
        parameters: Who is compared.
        page: The HTML file.
        summary: All numbers, written as ``summary.json``.
        metrics: The differences.

    Returns:
        Id of the comparison's run.
    """
    key = hashlib.sha256(json.dumps([name, *run_ids, dict(parameters)]).encode()).hexdigest()[:KEY_LENGTH]
    found = client.search_runs([experiment], f"tags.`{COMPARISON_TAG}` = '{key}'", max_results=1)
    if found:
        run_id = str(found[0].info.run_id)
    else:
        tags = {COMPARISON_TAG: key, "mlflow.source.name": "gestalt compare", "mlflow.source.type": "LOCAL"}
        run_id = str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)
    client.set_tag(run_id, "compared", " ".join(run_ids))
    log_parameters(client, run_id, parameters)
    client.log_artifact(run_id, str(page), COMPARISON_FOLDER)
    client.log_dict(run_id, dict(summary), f"{COMPARISON_FOLDER}/summary.json")
    log_values(client, run_id, metrics)
    client.set_terminated(run_id)
    with tempfile.TemporaryDirectory(prefix="gestalt-compare-") as place:
        # Named by the comparison's run, so that several comparisons of a run lie beside each other.
        named = Path(place) / f"{run_id[:SHORT_ID]}.html"
        shutil.copyfile(page, named)
        for compared in run_ids:
            client.log_artifact(compared, str(named), COMPARISON_FOLDER)
    return run_id


def _record(client: MlflowClient, run: Any) -> RecordedRun:
    from ruamel.yaml import YAML

    run_id = str(run.info.run_id)
    names = {artifact.path for artifact in client.list_artifacts(run_id)}
    with tempfile.TemporaryDirectory(prefix="gestalt-run-") as place:

        def text(name: str) -> str:
            return Path(client.download_artifacts(run_id, name, place)).read_text(encoding="utf-8")

        outputs = json.loads(text("outputs.json")) if "outputs.json" in names else {}
        lock = YAML(typ="safe").load(text("dvc.lock")) if "dvc.lock" in names else {}
        evaluations = {}
        for artifact in client.list_artifacts(run_id, "evaluation") if "evaluation" in names else ():
            path = Path(artifact.path)
            if path.suffix == ".json":
                evaluations[path.stem] = json.loads(text(artifact.path))
    predictions = [path for path in outputs if path.startswith("data/predictions/")]
    return RecordedRun(
        run_id=run_id,
        name=str(run.info.run_name),
        started=f"{datetime.fromtimestamp(run.info.start_time / 1000):%Y-%m-%d %H:%M}",
        parameters=dict(sorted(run.data.params.items())),
        tags=dict(sorted(run.data.tags.items())),
        outputs={str(path): str(md5) for path, md5 in outputs.items()},
        code=code_behind(lock or {}, predictions),
        evaluations=dict(sorted(evaluations.items())),
    )


def _nearest(known: Sequence[Any], text: str) -> list[Any]:
    """Runs whose name or id looks like what was typed; the newest ones where none does."""
    words = {word: run for run in known for word in (run.info.run_name, run.info.run_id[: max(len(text), 1)])}
    found = difflib.get_close_matches(text, words, N_LISTED, cutoff=0.5)
    return list({words[word].info.run_id: words[word] for word in found}.values()) or list(known[:N_LISTED])


def _list(runs: Sequence[Any]) -> str:
    lines = [f"  {run.info.run_id[:SHORT_ID]}  {run.info.run_name}" for run in runs[:N_LISTED]]
    more = len(runs) - N_LISTED
    return "\n".join([*lines, *([f"  and {more} more"] if more > 0 else [])])
