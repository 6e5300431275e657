"""The registered model ``gestalt-panoptic``: versions hold networks that can be served, aliases say which.

``candidate`` is the newest network, ``champion`` the best that passed the promotion rule. DVC owns the bytes; a version
names them by DVC's hash.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from gestalt.config.network import PredictSettings
from gestalt.errors import DataError
from gestalt.tracking.served_model import package_network

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

MODEL = "gestalt-panoptic"
CANDIDATE, CHAMPION = "candidate", "champion"
NETWORK_FOLDER = Path("models/self_trained")
# Copies of promoted networks, named by their hash: a path that is tracked as a parameter then says it all.
CHAMPIONS = Path("models/champions")

MD5_TAG, EVALUATION_TAG, METRICS_TAG, COMMIT_TAG = "dvc.md5", "evaluation.hash", "metrics", "git.commit"
DIRECTORY_ENDING = ".dir"
NAME_LENGTH = 12


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may replace the champion, and why."""

    promote: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Promotion:
    """What ``promote`` did.

    Attributes:
        promoted: Whether the champion changed.
        reasons: Why, or why not.
        version: Version of the champion afterwards; empty when there is none.
        folder: Its network, ready to start a training from; empty when the bytes are not here.
    """

    promoted: bool
    reasons: tuple[str, ...]
    version: str
    folder: str


def compare_metrics(
    candidate: Mapping[str, float], champion: Mapping[str, float], *, tolerance: float, metric: str = "PQ"
) -> Verdict:
    """The promotion rule: no benchmark loses more than the tolerance, and the mean does not fall.

    Args:
        candidate: ``metric/benchmark`` -> percent, such as ``{"PQ/cityscapes": 24.1}``.
        champion: The same of the present champion.
        tolerance: Percentage points that a single benchmark may lose.
        metric: The metric that decides.

    Returns:
        The verdict; a reason per benchmark that counts against the candidate, or what it gains.
    """
    names = sorted(name for name in champion if name.startswith(f"{metric}/"))
    missing = [name for name in names if name not in candidate]
    if missing:
        return Verdict(
            False, tuple(f"{name}: the champion has {champion[name]:.2f}, no result here" for name in missing)
        )
    if not names:
        return Verdict(True, (f"the champion has no {metric} to defend",))
    changes = {name: candidate[name] - champion[name] for name in names}
    lost = [
        f"{name}: {champion[name]:.2f} -> {candidate[name]:.2f}, more than {tolerance} lost"
        for name, change in changes.items()
        if change < -tolerance
    ]
    mean = sum(changes.values()) / len(changes)
    if mean < 0:
        lost.append(f"mean {metric} falls by {-mean:.2f}")
    if lost:
        return Verdict(False, tuple(lost))
    return Verdict(True, (f"mean {metric} changes by {mean:+.2f}, no benchmark loses more than {tolerance}",))


def register_candidate(
    client: MlflowClient,
    run_id: str,
    *,
    md5: str,
    evaluation_hash: str,
    commit: str,
    metrics: Mapping[str, float],
    settings: PredictSettings,
    folder: Path = NETWORK_FOLDER,
) -> str:
    """Make the network of this run the candidate; equal bytes keep their version.

    The version is an MLflow model among the artefacts of the run. Where the weights are not here, as after
    ``dvc pull`` of reports alone, it only points at the folder that they belong into.

    Args:
        client: An open store.
        run_id: The parent run.
        md5: DVC's hash of ``folder``; names the bytes.
        evaluation_hash: Hash of the evaluation sets that ``metrics`` were measured on.
        commit: The commit.
        metrics: ``metric/benchmark`` -> percent.
        settings: How the network predicts when it is served.
        folder: Where DVC puts the network.

    Returns:
        The version. The first ever also becomes the champion.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(MODEL)
    except MlflowException:
        client.create_registered_model(MODEL, description="Panoptic networks trained without human labels.")
    tags = {
        MD5_TAG: md5,
        EVALUATION_TAG: evaluation_hash,
        COMMIT_TAG: commit,
        METRICS_TAG: json.dumps(dict(sorted(metrics.items()))),
    }
    is_here = any(folder.glob("*.safetensors"))
    known = [
        version
        for version in _versions(client)
        if version.tags.get(MD5_TAG) == md5 and (can_be_served(version) or not is_here)
    ]
    if known:
        version = str(known[0].version)
        for key, value in tags.items():
            client.set_model_version_tag(MODEL, version, key, value)
    else:
        source = folder.as_posix()
        if is_here:
            artefacts = _local_path(client.get_run(run_id).info.artifact_uri)
            name = f"network-{md5.removesuffix(DIRECTORY_ENDING)[:NAME_LENGTH]}"
            source = package_network(folder, settings, artefacts / name).as_uri()
        version = str(client.create_model_version(MODEL, source=source, run_id=run_id, tags=tags).version)
    client.set_registered_model_alias(MODEL, CANDIDATE, version)
    if find_version(client, CHAMPION) is None:
        client.set_registered_model_alias(MODEL, CHAMPION, version)
    return version


def promote(
    client: MlflowClient, *, tolerance: float, folder: Path = NETWORK_FOLDER, champions: Path = CHAMPIONS
) -> Promotion:
    """Let the candidate become the champion if the rule allows, and keep the champion's network at hand.

    Raises:
        DataError: There is no candidate.
    """
    candidate, champion = find_version(client, CANDIDATE), find_version(client, CHAMPION)
    if candidate is None:
        raise DataError(f"the registered model {MODEL} has no candidate; `dvc repro` ends by registering one")
    if champion is None or champion.version == candidate.version:
        reason = "there was no champion" if champion is None else "it is the champion already"
        verdict, promoted = Verdict(True, (reason,)), champion is None
    elif champion.tags.get(EVALUATION_TAG) != candidate.tags.get(EVALUATION_TAG):
        verdict = Verdict(
            False,
            ("the champion was evaluated on other benchmark data; evaluate it on these first",),
        )
        promoted = False
    else:
        verdict = compare_metrics(version_metrics(candidate), version_metrics(champion), tolerance=tolerance)
        promoted = verdict.promote
    if promoted:
        client.set_registered_model_alias(MODEL, CHAMPION, candidate.version)
    best = candidate if verdict.promote else champion
    assert best is not None
    kept = keep_network(best.tags.get(MD5_TAG, ""), folder, champions, is_present=best is candidate)
    return Promotion(promoted, verdict.reasons, str(best.version), kept)


def champion_network(
    client: MlflowClient, folder: Path = NETWORK_FOLDER, champions: Path = CHAMPIONS
) -> Promotion:
    """Where the champion's network lies, kept under its hash so that a training can start from it."""
    champion, candidate = find_version(client, CHAMPION), find_version(client, CANDIDATE)
    if champion is None:
        return Promotion(False, ("there is no champion yet",), "", "")
    is_present = candidate is not None and candidate.version == champion.version
    kept = keep_network(champion.tags.get(MD5_TAG, ""), folder, champions, is_present=is_present)
    reasons = () if kept else (f"{folder} holds another network and no copy of the champion is here",)
    return Promotion(False, reasons, str(champion.version), kept)


def keep_network(md5: str, folder: Path, champions: Path, *, is_present: bool) -> str:
    """Copy a promoted network to a folder named by its hash, aside first.

    Args:
        md5: DVC's hash of the network.
        folder: The network in the workspace.
        champions: Folder of the copies.
        is_present: Whether ``folder`` holds just this network.

    Returns:
        The copy, or an empty string when it neither exists nor can be made.
    """
    kept = champions / (md5.removesuffix(DIRECTORY_ENDING)[:NAME_LENGTH] or "unversioned")
    if not kept.exists():
        if not (is_present and folder.exists()):
            return ""
        aside = kept.with_name(f".{kept.name}.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(folder, aside)
        aside.rename(kept)
    return kept.as_posix()


def find_version(client: MlflowClient, alias: str) -> ModelVersion | None:
    """The version that carries an alias, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(MODEL, alias)
    except MlflowException:
        return None


def can_be_served(version: ModelVersion) -> bool:
    """Whether a version holds an MLflow model that is still there, and not only the name of a folder."""
    source = str(version.source)
    return source.startswith("file:") and (_local_path(source) / "MLmodel").is_file()


def version_metrics(version: ModelVersion) -> dict[str, float]:
    """The metrics that a version was registered with."""
    content: dict[str, Any] = json.loads(version.tags.get(METRICS_TAG, "{}"))
    return {name: float(value) for name, value in content.items()}


def _local_path(uri: str) -> Path:
    return Path(url2pathname(urlparse(uri).path))


def _versions(client: MlflowClient) -> list[ModelVersion]:
    return list(client.search_model_versions(f"name = '{MODEL}'"))
