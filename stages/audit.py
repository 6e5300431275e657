"""DVC stage ``audit``: label table -> measures, expectations, review page of the worst frames."""

import json
from pathlib import Path

import numpy as np

from gestalt.audit.expectations import PASSED, check_labels
from gestalt.audit.measures import measure_labels
from gestalt.audit.review_page import write_review
from gestalt.data.frames import load_left
from gestalt.data.manifest import read_manifest
from gestalt.data.shards import ShardFolder
from gestalt.panoptic import Vocabulary
from stages.entry import Outcome, Stage, run_stage

VOCABULARY = Path("data/vocabulary.json")


def audit(stage: Stage) -> Outcome:
    """Measure the labels of a batch, check them, and show the worst frames."""
    settings, batch = stage.params.audit, stage.item
    labels = ShardFolder(Path("data/pseudo_labels", batch))
    frames = {frame.frame_id: frame for frame in read_manifest(Path("data/manifests", f"{batch}.parquet"))}
    vocabulary = Vocabulary.load(VOCABULARY)
    class_pixels = np.array(json.loads(VOCABULARY.read_text(encoding="utf-8"))["statistics"]["pixels"])
    measures = measure_labels(
        labels.frames(),
        labels.records(),
        class_pixels=class_pixels,
        ensemble_runs=stage.params.motion.runs,
        settings=settings,
    )
    findings = check_labels(measures, settings, vocabulary.n_pseudo_classes)
    result = write_review(
        Path("reports/audit", batch),
        batch,
        measures,
        findings,
        labels,
        lambda frame_id: load_left(frames[frame_id], stage.params.frames),
        vocabulary,
        settings,
    )
    broken = sorted(finding.expectation.column for finding in findings if finding.verdict != PASSED)
    metrics = {"verdict": result["verdict"], "broken": broken, **result["batch_measures"]}
    return Outcome(metrics, {"n_frames": result["n_frames"]})


if __name__ == "__main__":
    run_stage(audit, name="audit", item="batch")
