import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gestalt.config.presets import default_settings
from gestalt.errors import DataError
from gestalt.tracking.registry import (
    CANDIDATE,
    CHAMPION,
    champion_network,
    compare_metrics,
    find_version,
    promote,
    register_candidate,
)
from gestalt.tracking.runs import stage_run
from gestalt.tracking.store import open_store
from tests.tracking.experiment import params

OLD = {"PQ/cityscapes": 24.0, "PQ/kitti": 20.0, "mIoU/kitti": 30.0}


@pytest.mark.parametrize(
    ("candidate", "promoted", "reason"),
    [
        ({"PQ/cityscapes": 25.0, "PQ/kitti": 20.0}, True, "changes by +0.50"),
        ({"PQ/cityscapes": 25.0, "PQ/kitti": 19.6}, True, "changes by +0.30"),
        ({"PQ/cityscapes": 29.0, "PQ/kitti": 19.4}, False, "PQ/kitti: 20.00 -> 19.40, more than 0.5 lost"),
        ({"PQ/cityscapes": 23.7, "PQ/kitti": 20.0}, False, "mean PQ falls by 0.15"),
        ({"PQ/cityscapes": 30.0}, False, "PQ/kitti: the champion has 20.00, no result here"),
        ({"PQ/cityscapes": 24.0, "PQ/kitti": 20.0, "PQ/bdd": 0.1}, True, "+0.00"),
    ],
)
def test_promotion_rule(candidate: dict[str, float], promoted: bool, reason: str) -> None:
    verdict = compare_metrics(candidate, OLD, tolerance=0.5)
    assert verdict.promote is promoted
    assert reason in "; ".join(verdict.reasons)


def register(root: Path, md5: str, quality: float, evaluation: str = "same") -> str:
    client, _ = open_store(root)
    with stage_run("guided", params()) as run:
        pass
    folder = root / "models/self_trained"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").write_text(md5)
    metrics = {"PQ/cityscapes": quality, "PQ/kitti": quality}
    return register_candidate(
        client,
        run.run_id,
        md5=md5,
        evaluation_hash=evaluation,
        commit="abc",
        metrics=metrics,
        settings=default_settings("predict"),
    )


def versions(root: Path) -> tuple[str, str]:
    client, _ = open_store(root)
    found: list[Any] = [find_version(client, alias) for alias in (CANDIDATE, CHAMPION)]
    return str(found[0].version), str(found[1].version)


def test_the_first_network_is_the_champion_and_equal_bytes_are_one_version(root: Path) -> None:
    assert register(root, "aaa.dir", 20.0) == "1"
    assert register(root, "aaa.dir", 20.0) == "1"
    assert versions(root) == ("1", "1")
    assert register(root, "bbb.dir", 21.0) == "2"
    assert versions(root) == ("2", "1")


def test_a_better_candidate_is_promoted_and_its_network_is_kept_by_hash(root: Path) -> None:
    client, _ = open_store(root)
    register(root, "aaaaaaaaaaaaaaaaaaaa.dir", 20.0)
    register(root, "bbbbbbbbbbbbbbbbbbbb.dir", 21.0)
    done = promote(client, tolerance=0.5)
    assert done.promoted
    assert versions(root) == ("2", "2")
    assert done.folder == "models/champions/bbbbbbbbbbbb"
    assert Path(done.folder, "card.json").read_text() == "bbbbbbbbbbbbbbbbbbbb.dir"
    register(root, "cccccccccccccccccccc.dir", 10.0)
    worse = promote(client, tolerance=0.5)
    assert not worse.promoted
    assert versions(root) == ("3", "2")
    assert worse.folder == done.folder
    assert champion_network(client).folder == done.folder


def test_numbers_on_other_data_do_not_compare(root: Path) -> None:
    register(root, "aaa.dir", 20.0)
    register(root, "bbb.dir", 90.0, evaluation="other")
    done = promote(open_store(root)[0], tolerance=0.5)
    assert not done.promoted
    assert "other benchmark data" in done.reasons[0]


def test_without_a_candidate_the_message_names_the_command(root: Path) -> None:
    client, _ = open_store(root)
    with pytest.raises(DataError, match="no candidate; `dvc repro`"):
        promote(client, tolerance=0.5)
    assert champion_network(client).folder == ""


def test_the_command_answers_in_json(root: Path) -> None:
    register(root, "aaa.dir", 20.0)
    command = [sys.executable, "-m", "gestalt.tracking"]
    done = subprocess.run(
        [*command, "promote", "--tolerance", "0.5"], capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert answer["version"] == "1"
    assert answer["folder"] == "models/champions/aaa"
