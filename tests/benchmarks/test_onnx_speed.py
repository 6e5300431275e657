"""The contract of the benchmark of exported graphs: one JSON object, differences and ratios."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from benchmarks import onnx_speed
from gestalt.inference import deployment
from gestalt.inference.detector_graph import DetectorGraph
from gestalt.network.checkpoint import load_network

SIZE = (64, 96)


def stand_in(folder: Path, disturbance: float) -> deployment.Engine:
    """The network itself in place of its exported graph, which takes a minute to make."""
    network, _ = load_network(folder, torch.device("cpu"))
    graph = DetectorGraph(network, SIZE)  # type: ignore[arg-type]

    @torch.no_grad()
    def run(image: torch.Tensor, score_threshold: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *others, logits = graph(image, score_threshold)
        return (*others, logits + disturbance)

    return run


def test_the_report_has_times_ratios_and_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = onnx_speed.write_untrained(tmp_path / "network", "small", SIZE)
    engine = stand_in(folder, 0.25)

    def export_network(folder: Path, out: Path, **rest: object) -> None:
        out.write_bytes(b"0" * 2**20)

    monkeypatch.setattr(deployment, "export_network", export_network)
    monkeypatch.setattr(deployment, "open_deployment", lambda path: (engine, None))
    given = argparse.Namespace(score_threshold=0.12, turns=2, threads=1, formats=["onnx"])
    report = json.loads(json.dumps(onnx_speed.compare(folder, tmp_path, SIZE, given)))
    assert report["onnx"]["file_mib"] == 1.0
    assert report["onnx"]["ratio"] > 0
    assert report["pytorch"]["cpu_ms"] > 0
    found = report["onnx"]["largest_differences"]
    assert found["semantic_logits"] == pytest.approx(0.25, abs=1e-4)
    assert found["boxes"] < 1e-2
    assert found["n_boxes"] > found["n_unmatched"] == 0


def test_an_absent_network_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = str(torch.get_num_threads())
    given = ["--network", str(tmp_path / "absent"), "--size", "64x96", "--threads", threads]
    assert onnx_speed.main(given) == 1
    assert "card.json does not exist" in capsys.readouterr().err
