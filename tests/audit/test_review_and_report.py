import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gestalt.audit.expectations import check_labels
from gestalt.audit.gate import closed_message, judge_batches
from gestalt.audit.measures import measure_labels
from gestalt.audit.report import ReportSubject, write_report
from gestalt.audit.report_pictures import Workspace, batch_strips, benchmark_strips
from gestalt.audit.report_tables import detail_section, headline_rows, published_section
from gestalt.audit.review_page import write_review
from gestalt.config.presets import default_settings
from gestalt.data.frames import load_left
from gestalt.data.images import read_image
from gestalt.data.manifest import read_manifest
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from tests.audit.workspace import BATCH, BENCHMARK, FRAMES, VOCABULARY, write_workspace

AUDIT = default_settings("audit", min_instances=1, min_pseudo_classes=3, worst_frames=2)
REPORT = default_settings("report", frames_per_batch=2, frames_per_benchmark=1)
SUBJECT = ReportSubject(
    "embedded", [BATCH], [BENCHMARK], {"seed": 0, "motion.runs": 8}, "mlflow ui --port 5000"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_workspace(tmp_path_factory.mktemp("made"))


@pytest.fixture
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Workspace()


def still(first: Any, second: Any) -> Any:
    """Optical flow of images in which nothing moves."""
    return np.zeros((2, *first.shape[:2]), np.float32)


def audit(settings: Any = AUDIT) -> dict[str, Any]:
    labels = ShardFolder(Path("data/pseudo_labels", BATCH))
    frames = {frame.frame_id: frame for frame in read_manifest(Path("data/manifests", f"{BATCH}.parquet"))}
    pixels = json.loads(Path("data/vocabulary.json").read_text())["statistics"]["pixels"]
    measures = measure_labels(
        labels.frames(), labels.records(), class_pixels=np.array(pixels), ensemble_runs=1, settings=settings
    )
    return write_review(
        Path("reports/audit", BATCH),
        BATCH,
        measures,
        check_labels(measures, settings, 4),
        labels,
        lambda frame_id: load_left(frames[frame_id], FRAMES),
        VOCABULARY,
        settings,
    )


def links(path: Path) -> list[str]:
    return re.findall(r'(?:src|href)="([^"#][^"]*)"', path.read_text())


def test_review_page_shows_the_worst_frames_and_every_link_exists(workspace: Workspace) -> None:
    result = audit()
    folder = Path("reports/audit", BATCH)
    assert result["verdict"] == "passed"
    assert len(result["worst_frames"]) == 2
    for frame in result["worst_frames"]:
        for view in ("image", "overlay", "semantic", "instances"):
            assert (folder / "pictures" / f"{frame['frame_id']}.{view}.png").exists()
    pictures = [link for link in links(folder / "index.html") if not link.startswith("data:")]
    assert len(pictures) == 2
    assert all((folder / link).exists() for link in pictures)
    assert "http" not in (folder / "index.html").read_text()


def test_review_is_the_same_bytes_twice(workspace: Workspace) -> None:
    audit()
    first = {path: path.read_bytes() for path in Path("reports/audit").rglob("*") if path.is_file()}
    audit()
    assert first == {path: path.read_bytes() for path in Path("reports/audit").rglob("*") if path.is_file()}


def test_gate_stops_on_critical_and_says_why_and_where(workspace: Workspace) -> None:
    audit(default_settings("audit", min_instances=1, min_pseudo_classes=9, worst_frames=0))
    verdict = judge_batches(Path("reports/audit"), [BATCH], "critical")
    assert not verdict["open"]
    message = closed_message(verdict, Path("reports/audit"))
    assert "several pseudo-classes are in use (batch.n_pseudo_classes at least 9): got 4" in message
    assert f"reports/audit/{BATCH}/index.html" in message
    assert judge_batches(Path("reports/audit"), [BATCH], "never")["open"]


def test_gate_lets_warnings_pass_unless_told_otherwise(workspace: Workspace) -> None:
    audit(default_settings("audit", min_instances=1, min_pseudo_classes=3, max_speed_m_s=1.0, worst_frames=0))
    assert judge_batches(Path("reports/audit"), [BATCH], "critical")["open"]
    verdict = judge_batches(Path("reports/audit"), [BATCH], "warning")
    assert verdict["stopped_by"] == [BATCH]
    assert "instances move at a plausible speed" in verdict["batches"][BATCH]["reasons"][0]


def test_gate_names_the_stage_that_makes_a_missing_audit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`dvc repro audit@sunday` makes it"):
        judge_batches(tmp_path, ["sunday"], "critical")


def test_report_is_one_file_that_needs_nothing_else(workspace: Workspace) -> None:
    audit()
    path = write_report(SUBJECT, REPORT, FRAMES, workspace, still)
    text = path.read_text()
    others = [link for link in links(path) if not link.startswith("data:")]
    assert others == ["cost.js"]
    assert "https://" not in text
    assert "rendered" in text
    for words in ("void-neutral", "standard", "Hahn et al.", "motion.runs", "mlflow ui --port 5000", "<svg"):
        assert words in text
    assert '"stage": "guided"' in (path.parent / "cost.js").read_text()
    assert "12.5" not in re.sub(r'src="data:[^"]*"', "", text)  # no time is part of the page


def test_report_is_the_same_bytes_twice_though_costs_differ(workspace: Workspace) -> None:
    first = write_report(SUBJECT, REPORT, FRAMES, workspace, still).read_bytes()
    Path("reports/status/guided.json").write_text('{"seconds": 99}')
    assert write_report(SUBJECT, REPORT, FRAMES, workspace, still).read_bytes() == first


def test_report_leaves_out_what_is_not_there(workspace: Workspace) -> None:
    shutil.rmtree("data/truth")
    shutil.rmtree("reports/label_quality")
    shutil.rmtree("reports/curves")
    text = write_report(SUBJECT, REPORT, FRAMES, workspace, still).read_text()
    assert "Pseudo-labels against truth" not in text
    assert "a colour per cluster" in text
    assert '<h2 id="curves">' not in text


def test_headline_has_a_row_per_network_with_the_numbers_of_the_evaluation(workspace: Workspace) -> None:
    content = json.loads(Path(f"reports/evaluation/{BENCHMARK}.json").read_text())
    rows = headline_rows({BENCHMARK: content}, "standard")
    assert [row[:2] for row in rows] == [[BENCHMARK, "guided"], [BENCHMARK, "self_trained"]]
    assert rows[0][2] == content["networks"]["guided"]["standard"]["PQ"]
    assert rows[0][5] == content["networks"]["guided"]["standard"]["thing"]["PQ"]
    low, high = content["networks"]["guided"]["standard"]["intervals"]["PQ"]
    assert rows[0][9] == f"{low:.1f} to {high:.1f}"
    assert low - 0.001 <= rows[0][2] <= high + 0.001  # bounds are rounded


def test_the_reported_network_shows_outlines_and_what_its_scores_are_worth(workspace: Workspace) -> None:
    content = json.loads(Path(f"reports/evaluation/{BENCHMARK}.json").read_text())
    text = "".join(detail_section({BENCHMARK: content}))
    found = content["networks"]["self_trained"]
    assert found["average_precision"]["of_classes"]["AP"] == 100  # every car is found exactly
    assert f"{found['boundary']['void_neutral']['boundary_PQ']:.1f}</td>" in text
    assert "n = 4, calibration error 0.375" in text  # four hits with scores 0.25, 0.5, 0.75, 1
    del content["networks"]["self_trained"]["boundary"]
    assert detail_section({BENCHMARK: content}) == []


def test_other_conventions_and_undefined_means_leave_no_wrong_number(workspace: Workspace) -> None:
    content = json.loads(Path(f"reports/evaluation/{BENCHMARK}.json").read_text())
    assert headline_rows({BENCHMARK: content}, "bdd100k") == []
    metrics = content["networks"]["guided"]
    metrics["bdd100k"] = metrics.pop("standard")
    metrics["bdd100k"]["thing"] = {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "n_classes": 0}
    metrics["bdd100k"]["intervals"]["PQ"] = None
    (row,) = headline_rows({BENCHMARK: content}, "bdd100k")
    assert (row[5], row[9]) == (None, None)
    assert [row[1] for row in headline_rows({BENCHMARK: content}, "standard")] == ["self_trained"]


def test_real_numbers_stand_beside_published_ones_and_rendered_ones_never(workspace: Workspace) -> None:
    content = json.loads(Path(f"reports/evaluation/{BENCHMARK}.json").read_text())
    rendered = "".join(published_section({BENCHMARK: content}))
    assert "U2Seg" in rendered
    assert "Gestalt" not in rendered
    content["protocol"]["rendered"] = False
    real = "".join(published_section({BENCHMARK: content}))
    name = f"{content['protocol']['name']}@{content['protocol']['hash']}"
    assert re.search(rf"Gestalt.*{name}.*4 images", real)
    content["networks"]["self_trained"]["coverage"]["n_expected"] = 500
    assert "4 of 500 images" in "".join(published_section({BENCHMARK: content}))


def test_strips_show_every_intermediate_and_errors_are_red(workspace: Workspace) -> None:
    (strip,) = batch_strips(BATCH, 1, FRAMES, workspace, 480, still)
    captions = [picture.caption.split(",")[0] for picture in strip.pictures]
    assert captions == [
        "left image",
        "disparity: near is warm",
        "optical flow",
        "proposals from motion",
        "pseudo-classes",
        "pseudo-label",
        "truth (for evaluation only)",
    ]
    (benchmark,) = benchmark_strips(BENCHMARK, 1, workspace, 480)
    errors = benchmark.pictures[-1].pixels.astype(int)
    assert errors[5, 20, 0] > errors[5, 20, 1]  # a patch of sky predicted as road
    assert errors[90, 150, 1] > errors[90, 150, 0]


def test_the_optical_flow_is_measured_between_the_left_images(workspace: Workspace) -> None:
    seen: list[Any] = []

    def to_the_right(first: Any, second: Any) -> Any:
        seen.append((first, second))
        return np.stack([np.full(first.shape[:2], 3, np.float32), np.zeros(first.shape[:2], np.float32)])

    (strip,) = batch_strips(BATCH, 1, FRAMES, workspace, 480, to_the_right)
    frame_id = strip.title.split(" / ")[1]
    frames = {frame.frame_id: frame for frame in read_manifest(Path("data/manifests", f"{BATCH}.parquet"))}
    ((first, second),) = seen
    np.testing.assert_array_equal(first, read_image(frames[frame_id].left))
    np.testing.assert_array_equal(second, read_image(frames[frame_id].left_next))
    shown = next(picture.pixels for picture in strip.pictures if picture.caption == "optical flow")
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 1  # one motion, one colour
