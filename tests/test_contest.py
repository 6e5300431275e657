from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from gestalt.audit.comparison_page import letter
from gestalt.contest import Contest, difference_metrics, hold_contest, summarise, write_contest
from gestalt.contestants import find_contestants
from gestalt.errors import DataError
from gestalt.tracking.recorded_runs import RecordedRun
from tests.rivals import BENCHMARK, N_FRAMES, PROTOCOL, record_run, write_project

PROTOCOLS = ["cityscapes19_rendered_min64"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(made, root)
    monkeypatch.chdir(root)
    return root


def hold(root: Path, *runs: RecordedRun, n_frames: int = 3, texts: tuple[str, ...] = ()) -> Contest:
    known = {run.name: run for run in runs}
    found = find_contestants(
        [*known, *texts], root=root, network="self_trained", find_run=lambda text: known[text]
    )
    shutil.rmtree(root / "scratch", ignore_errors=True)
    return hold_contest(
        found, [BENCHMARK], PROTOCOLS, root=root, scratch=root / "scratch", n_frames=n_frames, width_px=96
    )


def recorded_pq(run: RecordedRun) -> float:
    return float(run.evaluations[BENCHMARK]["networks"]["self_trained"]["void_neutral"]["PQ"])


def test_runs_are_measured_again_and_differ_by_what_was_recorded(project: Path) -> None:
    good, bad = record_run(project, "good", 2), record_run(project, "bad", 20)
    contest = hold(project, good, bad)
    summary = summarise(contest)["benchmarks"][BENCHMARK]
    assert summary["n_images"] == N_FRAMES
    numbers = summary["contestants"]["bad"]["numbers"]["void_neutral"]["PQ"]
    assert numbers["value"] == pytest.approx(recorded_pq(bad))
    assert numbers["interval"][0] <= numbers["value"] <= numbers["interval"][1]
    difference = summary["contestants"]["bad"]["differences"]["void_neutral"]["PQ"]
    assert difference["value"] == pytest.approx(recorded_pq(bad) - recorded_pq(good))
    assert difference["interval"][1] < 0
    metrics = difference_metrics(contest)
    assert metrics[f"difference_PQ/{BENCHMARK}/B"] == difference["value"]
    assert not any(name.endswith("/A") for name in metrics)
    json.dumps(summarise(contest), allow_nan=False)


def test_equal_inputs_give_an_equal_page_that_needs_nothing_else(project: Path) -> None:
    runs = record_run(project, "good", 2), record_run(project, "bad", 20)
    first = write_contest(hold(project, *runs), project / "one").read_bytes()
    assert write_contest(hold(project, *runs), project / "two").read_bytes() == first
    text = re.sub(r"data:image/[^'\"]*", "", first.decode())
    assert not re.search(r"https?:|src=\"(?!\")|<link|url\('(?!')", text)
    assert not list((project / "one").glob(".*"))
    assert str(project) not in text
    # Each image: a photo, truth in classes, two contestants in classes and errors, one in changes.
    assert first.decode().count("data:image/jpeg") == 3
    assert first.decode().count("data:image/png") == 3 * 6


def test_the_page_shows_losses_first_and_names_everybody(project: Path) -> None:
    contest = hold(project, record_run(project, "good", 2), record_run(project, "bad", 20), n_frames=N_FRAMES)
    text = write_contest(contest, project / "out").read_text()
    lowest = [float(value) for value in re.findall(r'data-lowest="([^"]*)"', text)]
    assert lowest == sorted(lowest)
    assert len(lowest) == N_FRAMES
    assert "run preset | monday | good" in text
    assert PROTOCOLS[0] in text
    assert "are <b>rendered</b>" in text


def test_numbers_without_pictures_stand_beside_the_others_and_the_line_says_why(project: Path) -> None:
    here, gone = record_run(project, "here", 2), record_run(project, "gone", 20, is_cached=False)
    contest = hold(project, here, gone)
    (note,) = contest.notes
    assert note.startswith(f"{BENCHMARK}: no pictures of gone: the predictions ")
    assert note.endswith(f"that the run recorded under {PROTOCOL.label}, without intervals")
    summary = summarise(contest)["benchmarks"][BENCHMARK]["contestants"]["gone"]
    assert summary["numbers"]["void_neutral"]["PQ"] == {"value": recorded_pq(gone), "interval": None}
    text = write_contest(contest, project / "out").read_text()
    assert "no pictures of gone" in text
    assert "no interval" in text


def test_where_the_first_has_no_predictions_the_next_one_is_the_reference(project: Path) -> None:
    gone = record_run(project, "gone", 20, is_cached=False)
    contest = hold(project, gone, record_run(project, "here", 2), record_run(project, "third", 8))
    comparison = contest.parts[0].comparison
    assert (comparison.reference, list(comparison.results)) == ("here", ["gone", "here", "third"])
    assert set(comparison.image_differences()) == {"third"}
    lost = comparison.results["gone"].differences["standard"]["PQ"].value
    assert lost == pytest.approx(
        comparison.results["gone"].numbers["standard"]["PQ"].value
        - comparison.results["here"].numbers["standard"]["PQ"].value
    )
    assert "to the first contestant that has" in write_contest(contest, project / "out").read_text()


def test_numbers_of_another_protocol_are_not_put_beside_the_others(project: Path) -> None:
    here, gone = record_run(project, "here", 2), record_run(project, "gone", 20, is_cached=False)
    content: Any = gone.evaluations[BENCHMARK]
    content["protocol"]["hash"] = "123456789abc"
    with pytest.raises(DataError, match=r"(?s)nothing is left .*@123456789abc instead of .* are left out"):
        hold(project, here, gone)
    third = record_run(project, "third", 4)
    contest = hold(project, here, gone, third)
    assert set(contest.parts[0].comparison.results) == {"here", "third"}


def test_recorded_numbers_compare_among_themselves_under_their_own_protocol(project: Path) -> None:
    runs = [record_run(project, name, px, is_cached=False) for name, px in (("one", 2), ("two", 20))]
    for run in runs:
        content: Any = run.evaluations[BENCHMARK]
        content["protocol"]["hash"] = "123456789abc"
    contest = hold(project, *runs)
    (part,) = contest.parts
    assert part.comparison.label == f"{PROTOCOL.name}@123456789abc"
    assert part.frames == []
    change = part.comparison.results["two"].differences["void_neutral"]["PQ"].value
    assert change == pytest.approx(recorded_pq(runs[1]) - recorded_pq(runs[0]))
    assert f"Protocol {PROTOCOL.name}@123456789abc" in write_contest(contest, project / "out").read_text()
    content["protocol"]["hash"] = "cba987654321"
    with pytest.raises(DataError, match="nothing is left"):
        hold(project, *runs)


def test_a_benchmark_whose_state_is_gone_is_named_and_leaves_nothing(project: Path) -> None:
    runs = [record_run(project, name, 2, benchmark_state="ffffffff99.dir") for name in ("one", "two")]
    with pytest.raises(DataError, match=r"(?s)nothing is left .*state ffffffff .*`git checkout` the commit"):
        hold(project, *runs)


def test_seeds_are_grouped_and_equal_predictions_are_named(project: Path) -> None:
    def run(name: str, seed: str, error_px: int) -> RecordedRun:
        return record_run(project, name, error_px, parameters={"seed": seed, "guided.steps": "100"})

    contest = hold(project, run("a", "0", 2), run("b", "1", 20), run("c", "2", 20))
    assert contest.notes == [f"{BENCHMARK}: b and c are the same predictions, byte for byte"]
    ((names, spreads),) = contest.parts[0].spreads.items()
    assert names == ("a", "b", "c")
    values = [
        result.numbers["standard"]["PQ"].value for result in contest.parts[0].comparison.results.values()
    ]
    assert spreads["standard"]["PQ"].mean == pytest.approx(sum(values) / 3)
    assert "over seeds" in write_contest(contest, project / "out").read_text()


def test_what_was_asked_for_differently_is_on_the_page(project: Path) -> None:
    one = record_run(project, "one", 2, parameters={"seed": "0", "guided.steps": "100", "old.key": "x"})
    two = record_run(
        project,
        "two",
        20,
        parameters={"seed": "0", "guided.steps": "<200>"},
        code={"src/gestalt/training": "bbbb"},
    )
    text = write_contest(hold(project, one, two, n_frames=0), project / "out").read_text()
    assert "<code>guided.steps</code></td><td>100</td><td>&lt;200&gt;</td>" in text
    assert "<code>src/gestalt/training</code></td><td>aaaaaaaa</td><td>bbbb</td>" in text
    assert "<code>old.key</code></td><td>x</td><td>\N{EN DASH}</td>" in text
    assert "<code>seed</code>" not in text
    assert 'class="shot"' not in text


def test_letters_go_on_after_z() -> None:
    assert [letter(place) for place in (0, 1, 25, 26, 52)] == ["A", "B", "Z", "A2", "A3"]
