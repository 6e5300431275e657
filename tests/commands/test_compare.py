"""`gestalt compare`: what it prints, what it keeps, and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gestalt import cli
from gestalt.tracking.closing import close_pipeline
from gestalt.tracking.store import open_store
from tests.rivals import BENCHMARK, BENCHMARK_STATE, evaluation_of, write_predictions, write_project
from tests.tracking.dvc_cache import store_folder
from tests.tracking.experiment import params

PREDICTIONS = f"data/predictions/{BENCHMARK}"
OPTIONS = ("--protocol", "cityscapes19_rendered_min64", "--frames", "2", "--width", "96")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(made, root)
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "PIPELINE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(root)
    return root


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", *arguments])
    return int(ended.value.code or 0)


def close_with(root: Path, seed: int, error_px: int) -> str:
    """A finished pipeline whose predictions are in the cache and no longer in the workspace."""
    made = root / "made"
    write_predictions(made / "self_trained", error_px)
    md5 = store_folder(root / ".dvc/cache", made)
    outs = [
        {"path": PREDICTIONS, "md5": md5},
        {"path": f"data/benchmarks/{BENCHMARK}", "md5": BENCHMARK_STATE},
    ]
    (root / "dvc.lock").write_text(json.dumps({"stages": {"all": {"outs": outs}}}))
    report = root / f"reports/evaluation/{BENCHMARK}.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(evaluation_of(made / "self_trained", root / "data/benchmarks" / BENCHMARK)))
    shutil.rmtree(made)
    return close_pipeline(params(seed=seed), device="cpu").run_id


def test_two_folders_give_a_table_a_page_and_numbers(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"{PREDICTIONS}/guided", f"{PREDICTIONS}/self_trained", *OPTIONS) == 0
    printed = capsys.readouterr().out
    assert f"A  guided  {PREDICTIONS}/guided" in printed
    assert "B - A" in printed
    assert printed.splitlines()[-1] == "reports/comparison/index.html"
    summary = json.loads((project / "reports/comparison/summary.json").read_text())
    page = (project / "reports/comparison/index.html").read_text()
    assert "folders of predictions record neither parameters nor code" in page
    difference = summary["benchmarks"][BENCHMARK]["contestants"]["self_trained"]["differences"]
    assert difference["void_neutral"]["PQ"]["value"] > 0
    assert f"{difference['void_neutral']['PQ']['value']:+.1f}" in printed
    # Nothing recorded was compared, so no store is made; nothing is left of what was put together meanwhile.
    assert not (project / "mlruns").exists()
    assert not list((project / ".cache").glob("compare-*"))


def test_recorded_runs_are_compared_from_the_cache_and_the_page_is_kept(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = close_with(project, 0, 2), close_with(project, 1, 20)
    assert run(f"good={first}", f"bad={second[:12]}", *OPTIONS, "--out", "out") == 0
    assert "no pictures" not in capsys.readouterr().err
    client, experiment = open_store(project)
    (kept,) = [
        entry for entry in client.search_runs([experiment]) if entry.info.run_name == "compare good, bad"
    ]
    assert kept.data.metrics[f"difference_PQ/{BENCHMARK}/B"] < 0
    for run_id, name in (
        (kept.info.run_id, "index"),
        (first, kept.info.run_id[:8]),
        (second, kept.info.run_id[:8]),
    ):
        path = Path(client.download_artifacts(run_id, f"comparison/{name}.html", str(project)))
        assert path.read_bytes() == (project / "out/index.html").read_bytes()
    n_runs = len(client.search_runs([experiment]))
    assert run(f"good={first}", f"bad={second}", *OPTIONS, "--out", "out") == 0
    assert len(client.search_runs([experiment])) == n_runs


def test_mistakes_end_with_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ((PREDICTIONS,), "at least two runs or folders"),
        ((f"{PREDICTIONS}/guided", PREDICTIONS, "--benchmark", "kitti"), "kitti was not predicted by two"),
        ((f"{PREDICTIONS}/guided", "nothing"), "no pipeline was recorded here"),
    ):
        assert run(*arguments) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("gestalt: ")
        assert message in line
    assert not (project / "mlruns").exists()
    (project / "taken").write_text("")
    assert run(f"{PREDICTIONS}/guided", PREDICTIONS, "--out", "taken") == 1
    assert "taken is a file" in capsys.readouterr().err
