"""Parameters and reports of a small pipeline, without any room's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gestalt.config import Params


def params(**values: Any) -> Params:
    """Parameters whose sections hold placeholders; tracking reads keys and values only."""
    known: dict[str, Any] = {
        "preset": "embedded",
        "seed": 0,
        "batches": ["monday", "tuesday"],
        "fit_batches": ["monday"],
        "rendered_batches": [],
        "truth_batches": [],
        "optical_flow_batches": [],
        "normalized_cut_batches": [],
        "benchmarks": ["cityscapes", "kitti"],
        "rendered_benchmarks": [],
    }
    return Params(**(known | values))


def evaluation(quality: float, **networks: float) -> dict[str, Any]:
    """What the stage `evaluate` writes, as far as tracking reads it."""

    def metrics(value: float) -> dict[str, Any]:
        panoptic = {"PQ": value, "SQ": 50.0, "RQ": 30.0, "thing": {"PQ": 10.0}, "stuff": {"PQ": 30.0}}
        return {
            "standard": {**panoptic, "PQ": 1.0},
            "void_neutral": panoptic,
            "mIoU": 31.0,
            "pixel_accuracy": 66.0,
        }

    protocol = {"name": "test", "conventions": ["void_neutral", "standard"]}
    found = {name: metrics(value) for name, value in {"self_trained": quality, **networks}.items()}
    return {"protocol": protocol, "networks": found, "labels": metrics(quality), "proposals": {}}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, sort_keys=True))


def write_reports(folder: Path, quality: float = 24.0) -> None:
    """Reports, network and lock file of a finished pipeline, below ``folder``."""
    write_json(folder / "reports/evaluation/cityscapes.json", evaluation(quality, guided=quality - 1))
    write_json(folder / "reports/evaluation/kitti.json", evaluation(quality + 1))
    labels = evaluation(22.0)
    labels["proposals"] = {
        "motion": {"n_frames": 4, "moving_objects": {"min_64_px": {"precision": 0.58, "recall": 0.4}}}
    }
    write_json(folder / "reports/label_quality/monday.json", labels)
    write_json(folder / "reports/metrics/motion-monday.json", {"n_ok": 120, "reasons": {"no motion (t)": 3}})
    write_json(folder / "reports/status/motion-monday.json", {"seconds": 60.0, "peak_memory_mib": 400.0})
    write_json(folder / "reports/metrics/guided.json", {"loss": 0.7})
    write_json(folder / "reports/status/guided.json", {"seconds": 0.0})
    write_json(folder / "models/self_trained/card.json", {"quality": quality})
    lock = f"""schema: '2.0'
stages:
  self_training:
    cmd: python -m stages.self_training
    outs:
    - path: models/self_trained
      hash: md5
      md5: {quality:.0f}aaaaaaaaaaaaaaaa.dir
  benchmark_scenes@cityscapes:
    outs:
    - path: data/benchmarks/cityscapes
      md5: bbbb.dir
"""
    (folder / "dvc.lock").write_text(lock)
