from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gestalt.contestants import (
    common_benchmarks,
    find_contestants,
    open_benchmark,
    seed_groups,
    short_names,
)
from gestalt.data.shards import ShardFolder
from gestalt.errors import ConfigError, DataError
from gestalt.evaluation.truth_side import frame_truth
from gestalt.tracking.lineage import evaluation_hash, output_hashes
from gestalt.tracking.recorded_runs import RecordedRun
from tests.rivals import BENCHMARK, PROTOCOL, frame_id, record_run, write_project
from tests.tracking.dvc_cache import store_folder

TRUTH = frame_truth([], PROTOCOL, "cityscapes")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(made, root)
    monkeypatch.chdir(root)
    return root


def find(root: Path, *texts: str, runs: dict[str, RecordedRun] | None = None, **options: Any) -> Any:
    def find_run(text: str) -> RecordedRun:
        if text not in (runs or {}):
            raise DataError(f"there is no run {text!r}")
        return (runs or {})[text]

    return find_contestants(
        texts, root=root, network=options.pop("network", "self_trained"), find_run=find_run, **options
    )


def test_folders_of_every_kind_are_the_same_contestant(project: Path) -> None:
    base = f"data/predictions/{BENCHMARK}"
    for text in (f"{base}/self_trained", base, "data/predictions"):
        guided, other = find(project, f"{base}/guided", f"it={text}")
        assert (guided.origin, other.name) == (f"{base}/guided", "it")
        assert list(other.entries) == [BENCHMARK]
        opened = other.entries[BENCHMARK].open_predictions(project / "scratch", TRUTH)
        expected = ShardFolder(project / base / "self_trained")
        assert list(opened.images) == list(expected.frame_ids)
        np.testing.assert_array_equal(
            opened.images[frame_id(0)].read().planes[0], expected.read_map(frame_id(0), "semantic")
        )
        assert (opened.things, opened.stuff, opened.clusters) == ((3,), (0, 1, 2), (0, 1, 3, 2))


def test_predictions_of_a_run_come_from_the_cache_and_not_from_the_workspace(project: Path) -> None:
    run = record_run(project, "old", 20)
    shutil.rmtree(project / "made")
    contestant, _ = find(project, "old", f"data/predictions/{BENCHMARK}", runs={"old": run})
    opened = contestant.entries[BENCHMARK].open_predictions(project / "scratch", TRUTH)
    semantic = opened.images[frame_id(1)].read().planes[0]
    # The bar of the second image is twice as wide as that of the first.
    assert (semantic[0] == 0).sum() == 40
    assert (opened.things, opened.clusters) == ((3,), (0, 1, 3, 2))


def test_what_is_gone_leaves_the_recorded_numbers(project: Path) -> None:
    run = record_run(project, "old", 20, is_cached=False)
    contestant, _ = find(project, "old", f"data/predictions/{BENCHMARK}", runs={"old": run})
    entry = contestant.entries[BENCHMARK]
    assert entry.open_predictions is None
    assert "not in DVC's cache any more, and no DVC remote is configured" in entry.why_none
    assert entry.numbers["void_neutral"]["PQ"] == pytest.approx(
        run.evaluations[BENCHMARK]["networks"]["self_trained"]["void_neutral"]["PQ"]
    )
    assert set(entry.numbers) == {"void_neutral", "standard"}
    assert entry.protocol.startswith("cityscapes19_rendered_min64@")


def test_names_are_the_words_that_differ() -> None:
    assert short_names([["e", "mon", "1"], ["e", "mon", "2"]], ["x", "y"], " | ") == ["1", "2"]
    assert short_names([["e", "1"], ["f", "2"]], ["x", "y"], " | ") == ["e | 1", "f | 2"]
    assert short_names([["e"], ["e"]], ["x", "y"], " | ") == ["x", "y"]
    assert short_names([["a", "b"]], [""], "/") == ["a/b"]
    assert short_names([["a"], ["a", "b"]], ["", ""], "/") == ["a", "b"]


def test_folders_are_named_by_network_where_they_hold_several(project: Path) -> None:
    base = f"data/predictions/{BENCHMARK}"
    assert [entry.name for entry in find(project, f"{base}/guided", base)] == ["guided", "self_trained"]


def test_a_run_and_a_folder_are_named_apart(project: Path) -> None:
    runs = {name: record_run(project, name, 20) for name in ("old", "new")}
    found = find(project, "old", "new", f"data/predictions/{BENCHMARK}/guided", runs=runs)
    assert [entry.name for entry in found] == ["old", "new", f"{BENCHMARK}/guided"]


def test_two_networks_of_one_run_are_contestants(project: Path) -> None:
    run = record_run(project, "old", 20)
    content: Any = run.evaluations[BENCHMARK]
    content["networks"]["guided"] = content["networks"]["self_trained"]
    made = project / "made/old"
    shutil.copytree(made / "self_trained", made / "guided")
    outputs = {**run.outputs, f"data/predictions/{BENCHMARK}": store_folder(project / ".dvc/cache", made)}
    runs = {"old": dataclasses.replace(run, outputs=outputs)}
    found = find(project, "old/guided", "old", runs=runs)
    assert [(entry.name, entry.network) for entry in found] == [
        ("guided", "guided"),
        ("self_trained", "self_trained"),
    ]
    assert all(entry.entries[BENCHMARK].open_predictions is not None for entry in found)
    with pytest.raises(DataError, match=r"data/old is no folder"):
        find(project, "data/old", "old", runs=runs)


def test_mistakes_are_named(project: Path) -> None:
    base = f"data/predictions/{BENCHMARK}"
    with pytest.raises(ConfigError, match=r"at least two runs or folders. Got: only"):
        find(project, "only")
    with pytest.raises(ConfigError, match="two contestants are called it; say NAME=RUN"):
        find(project, f"it={base}/guided", f"it={base}/self_trained")
    with pytest.raises(DataError, match=r"\./nope is no folder .*runs are named by id"):
        find(project, "./nope", base)
    with pytest.raises(DataError, match="there is no run 'nope'"):
        find(project, "nope", base)
    with pytest.raises(DataError, match=r"network 'third': expected a shard folder .* Got: .*guided"):
        find(project, base, base, network="third")
    with pytest.raises(DataError, match="holds no predictions of the network 'third'; it has: self_trained"):
        find(project, "old", base, runs={"old": record_run(project, "old", 20)}, network="third")
    (project / "models/guided/card.json").unlink()
    with pytest.raises(DataError, match=r"which pseudo-classes are things: models/guided/card.json is in no"):
        find(project, f"{base}/guided", base)
    shutil.copytree(project / base / "self_trained", project / "elsewhere/self_trained")
    with pytest.raises(DataError, match=r"does not say which benchmark .* --benchmark, one of: cityscapes"):
        find(project, "elsewhere/self_trained", base)
    found = find(project, "elsewhere/self_trained", base, benchmark=BENCHMARK)
    assert list(found[0].entries) == [BENCHMARK]


def test_benchmarks_need_two_contestants(project: Path) -> None:
    base = f"data/predictions/{BENCHMARK}"
    found = find(project, f"{base}/guided", f"{base}/self_trained")
    assert common_benchmarks(found) == [BENCHMARK]
    with pytest.raises(DataError, match=r"--benchmark kitti was not predicted by two .*guided: cityscapes"):
        common_benchmarks(found, ["kitti"])
    other = dataclasses.replace(found[1], entries={"kitti": found[1].entries[BENCHMARK]})
    with pytest.raises(DataError, match="guided: cityscapes; self_trained: kitti"):
        common_benchmarks([found[0], other])


def test_runs_on_another_state_of_the_benchmark_are_left_out_and_named(project: Path) -> None:
    runs = {
        "here": record_run(project, "here", 20),
        "old": record_run(project, "old", 20, benchmark_state="ffffffff99.dir"),
    }
    found = find(project, "here", "old", f"data/predictions/{BENCHMARK}/guided", runs=runs)
    opened = open_benchmark(BENCHMARK, found, project, project / "scratch")
    assert opened.folder == project / "data/benchmarks" / BENCHMARK
    assert opened.names == ("here", f"{BENCHMARK}/guided")
    assert opened.notes == (
        "cityscapes: old was measured on another state of the benchmark (ffffffff instead of 01234567) and is left out",
    )


def test_a_benchmark_that_dvc_did_not_make_is_known_by_the_hash_of_all_sets(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "dvc.lock").unlink()
    measured_on = evaluation_hash(output_hashes())
    monkeypatch.chdir(project.parent)

    def run(name: str, state: str) -> RecordedRun:
        made = record_run(project, name, 20)
        outputs = {path: md5 for path, md5 in made.outputs.items() if not path.startswith("data/benchmarks")}
        return dataclasses.replace(made, outputs=outputs, tags={"evaluation.hash": state})

    runs = {"one": run("one", measured_on), "two": run("two", measured_on), "old": run("old", "ffff")}
    opened = open_benchmark(BENCHMARK, find(project, *runs, runs=runs), project, project / "scratch")
    assert opened.folder == project / "data/benchmarks" / BENCHMARK
    assert opened.names == ("one", "two")
    (project / "data/benchmarks" / BENCHMARK / "source.yaml").write_text("adapter: other\nroot: .\n")
    with pytest.raises(DataError, match="measured on state"):
        open_benchmark(BENCHMARK, find(project, *runs, runs=runs), project, project / "scratch")


def test_an_earlier_state_of_the_benchmark_comes_from_the_cache(project: Path) -> None:
    state = store_folder(project / ".dvc/cache", project / "data/benchmarks" / BENCHMARK)
    runs = {name: record_run(project, name, 20, benchmark_state=state) for name in ("one", "two")}
    found = find(project, "one", "two", runs=runs)
    opened = open_benchmark(BENCHMARK, found, project, project / "scratch")
    assert opened.folder == project / "scratch"
    assert (opened.folder / "source.yaml").is_file()
    assert opened.names == ("one", "two")
    assert "the workspace holds 01234567" in opened.notes[0]
    gone = {name: record_run(project, name, 20, benchmark_state="ffffffff99.dir") for name in ("one", "two")}
    with pytest.raises(DataError, match=r"measured on state ffffffff .*the workspace holds 01234567"):
        open_benchmark(BENCHMARK, find(project, "one", "two", runs=gone), project, project / "scratch")


def test_runs_that_differ_in_the_seed_only_are_a_group(project: Path) -> None:
    def run(name: str, seed: str, *, code: str = "aa", **parameters: str) -> RecordedRun:
        values = {"seed": seed, "runtime.workers": name, "guided.steps": "100"} | parameters
        return record_run(project, name, 20, parameters=values, code={"src/gestalt/training": code})

    runs = {
        "a": run("a", "0"),
        "b": run("b", "1"),
        "c": run("c", "2", **{"guided.steps": "200"}),
        "d": run("d", "3", code="bb"),
        "e": run("e", "4"),
    }
    assert seed_groups(find(project, *runs, runs=runs)) == [("a", "b", "e")]
    assert seed_groups(find(project, "a", "c", "d", runs=runs)) == []
