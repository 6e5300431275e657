from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gestalt.errors import DataError
from gestalt.tracking.closing import close_pipeline
from gestalt.tracking.recorded_runs import (
    code_behind,
    find_run,
    log_comparison,
    open_records,
    pipeline_runs,
)
from gestalt.tracking.runs import stage_run
from gestalt.tracking.store import open_store
from tests.tracking.experiment import params, write_reports


@pytest.fixture(scope="module")
def runs(
    start_in: Callable[[Path, pytest.MonkeyPatch], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, str, str, str]]:
    """Store, experiment, and two closed pipelines: seed 0 and seed 1. Tests add to it, and rename nothing for good."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        root = start_in(tmp_path_factory.mktemp("runs"), monkeypatch)
        write_reports(root)
        first = close_pipeline(params(), device="cpu").run_id
        with stage_run("guided", params()):
            pass
        write_reports(root, 30.0)
        second = close_pipeline(params(seed=1), device="cpu").run_id
        client, experiment = open_store(root)
        client.update_run(first, name="before")
        client.update_run(second, name="after")
        yield client, experiment, first, second


def test_a_run_is_found_by_id_beginning_and_name(runs: tuple[Any, str, str, str]) -> None:
    client, experiment, first, second = runs
    length = next(n for n in range(1, 32) if first[:n] != second[:n])
    for text in (first, first[:length], "before"):
        found = find_run(client, experiment, text)
        assert (found.run_id, found.name) == (first, "before")
    assert found.tags["seed"] == "0"
    assert found.parameters["seed"] == "0"
    assert found.outputs["models/self_trained"] == "24aaaaaaaaaaaaaaaa.dir"
    assert set(found.evaluations) == {"cityscapes", "kitti"}
    assert found.evaluations["cityscapes"]["networks"]["self_trained"]["void_neutral"]["PQ"] == 24


def test_stages_and_comparisons_are_no_contestants(runs: tuple[Any, str, str, str], tmp_path: Path) -> None:
    client, experiment, first, second = runs
    page = tmp_path / "index.html"
    page.write_text("page")
    log_comparison(
        client, experiment, name="compare", run_ids=[first], parameters={}, page=page, summary={}, metrics={}
    )
    assert {run.info.run_id for run in pipeline_runs(client, experiment)} == {first, second}


def test_an_unknown_run_is_answered_with_the_nearest(runs: tuple[Any, str, str, str]) -> None:
    client, experiment, first, second = runs
    with pytest.raises(DataError) as error:
        find_run(client, experiment, "befour")
    assert "no run 'befour'" in str(error.value)
    assert first[:8] in str(error.value)
    assert second[:8] not in str(error.value)
    with pytest.raises(DataError) as error:
        find_run(client, experiment, "zzzzzz")
    assert {first[:8], second[:8]} <= set(str(error.value).split())


def test_an_ambiguous_name_is_answered_with_ids(runs: tuple[Any, str, str, str]) -> None:
    client, experiment, first, second = runs
    client.update_run(second, name="before")
    try:
        with pytest.raises(DataError, match="2 runs are called 'before'") as error:
            find_run(client, experiment, "before")
    finally:
        client.update_run(second, name="after")
    assert {first[:8], second[:8]} <= set(str(error.value).split())


def test_looking_for_a_run_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mlruns holds no runs; `make run` records one"):
        open_records(tmp_path)
    assert not (tmp_path / "mlruns").exists()


def test_an_empty_store_says_what_records_runs(root: Path) -> None:
    with pytest.raises(DataError, match="`make run` records one"):
        find_run(*open_store(root), "any")


def test_the_code_behind_an_output_is_found_through_its_makers() -> None:
    def stage(outs: list[str], *deps: tuple[str, str]) -> dict[str, Any]:
        return {
            "deps": [{"path": path, "md5": md5} for path, md5 in deps],
            "outs": [{"path": path, "md5": "x"} for path in outs],
        }

    lock = {
        "stages": {
            "motion@monday": stage(["data/motion/monday"], ("src/motion", "m1")),
            "labels@monday": stage(["data/labels/monday"], ("data/motion/monday", ""), ("src/data", "d1")),
            "guided": stage(
                ["models/guided"], ("data/labels", ""), ("src/data", "d2"), ("stages/guided.py", "g")
            ),
            "predict": stage(["data/predictions/kitti"], ("models/guided/card.json", ""), ("src/net", "n")),
            "report": stage(["reports/index.html"], ("data/predictions/kitti", ""), ("src/audit", "a")),
        }
    }
    assert code_behind(lock, ["data/predictions/kitti"]) == {
        "src/data": "d1 d2",
        "src/motion": "m1",
        "src/net": "n",
        "stages/guided.py": "g",
    }
    assert code_behind({}, ["data/predictions/kitti"]) == {}


def test_a_comparison_is_a_run_of_its_own_and_lies_on_each_compared_run(
    runs: tuple[Any, str, str, str], tmp_path: Path
) -> None:
    client, experiment, first, second = runs
    page = tmp_path / "index.html"

    def log(content: str, value: float) -> str:
        page.write_text(content)
        return log_comparison(
            client,
            experiment,
            name="compare before, after",
            run_ids=[first, second],
            parameters={"A": "before", "B": "after"},
            page=page,
            summary={"n": 1},
            metrics={"difference_PQ/kitti/B": value},
        )

    run_id = log("one", 1.0)
    assert log("two", 2.0) == run_id
    run = client.get_run(run_id)
    assert run.info.run_name == "compare before, after"
    assert run.data.metrics["difference_PQ/kitti/B"] == 2
    assert run.data.params == {"A": "before", "B": "after"}
    names = {artifact.path for artifact in client.list_artifacts(run_id, "comparison")}
    assert names == {"comparison/index.html", "comparison/summary.json"}
    for compared in (first, second):
        local = client.download_artifacts(compared, f"comparison/{run_id[:8]}.html", str(tmp_path))
        assert Path(local).read_text() == "two"
        assert "difference_PQ/kitti/B" not in client.get_run(compared).data.metrics
