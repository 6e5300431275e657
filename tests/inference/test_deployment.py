"""Exported graphs against the network they were made of: every part of the paper's architecture, narrow."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gestalt.config.network import NetworkSettings, PredictSettings
from gestalt.config.presets import default_settings
from gestalt.errors import ConfigError, DataError, MissingDependencyError, ShapeError
from gestalt.inference.deployed_predictor import DeployedPredictor
from gestalt.inference.deployment import (
    DeploymentCard,
    Engine,
    card_path,
    export_network,
    largest_differences,
    open_deployment,
)
from gestalt.inference.detector_graph import DetectorGraph, suppress
from gestalt.inference.predictor import Predictor
from gestalt.network.architecture import build_panoptic_network
from gestalt.network.checkpoint import WEIGHTS, NetworkCard, load_network, save_network
from gestalt.panoptic import UInt8Array, Vocabulary

CPU = torch.device("cpu")
# Not a multiple of 32, so that the graph pads.
SIZE = (56, 96)
THRESHOLD = 0.4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    paper: NetworkSettings = default_settings("network", "paper")
    settings = dataclasses.replace(
        paper,
        stem_channels=8,
        stage_channels=[8, 16, 16, 16],
        stage_blocks=[1, 1, 1, 1],
        pyramid_channels=8,
        semantic_channels=8,
        semantic_groups=2,
        proposals=dataclasses.replace(paper.proposals, before_nms_test=60, after_nms_test=50),
        instances=dataclasses.replace(
            paper.instances,
            cascade_ious=[0.5, 0.6],
            box_hidden=16,
            mask_channels=8,
            mask_convolutions=1,
            max_detections=12,
        ),
    )
    vocabulary = Vocabulary(things=(4, 1), stuff=(0, 2, 3))
    torch.manual_seed(3)
    network = build_panoptic_network(settings, n_things=2, n_stuff=3)
    with torch.no_grad():
        for level in network.modules():
            if isinstance(level, torch.nn.BatchNorm2d):
                level.running_mean.uniform_(-0.2, 0.2)
                level.running_var.uniform_(0.5, 2.0)
        # Opinions that differ from box to box, and masks of which something is left.
        for stage in network.instance_heads.stages:
            stage.classify.weight.mul_(150)
            stage.regress.weight.mul_(30)
        network.instance_heads.mask_head.classify.weight.mul_(300)
        network.instance_heads.mask_head.classify.bias.fill_(0.5)
    place = tmp_path_factory.mktemp("network")
    save_network(place, network.eval(), NetworkCard(settings, vocabulary, SIZE))
    return place


# Recording the graph and translating it to ONNX takes most of a minute on one busy core.
@pytest.fixture(scope="module")
def graphs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    place = tmp_path_factory.mktemp("graphs")
    found = {"onnx": place / "detector.onnx", "torch": place / "program.pt2"}
    for form, path in found.items():
        export_network(folder, path, form=form)
    return found


@pytest.fixture(scope="module")
def opened(graphs: dict[str, Path]) -> dict[str, tuple[Engine, DeploymentCard]]:
    return {form: open_deployment(path) for form, path in graphs.items()}


@pytest.fixture(scope="module")
def settings() -> PredictSettings:
    embedded: PredictSettings = default_settings("predict")
    merge = dataclasses.replace(embedded.merge, score_threshold=THRESHOLD, min_stuff_share=0.01)
    return dataclasses.replace(embedded, height_px=SIZE[0], view_scales=[1.0], view_flip=False, merge=merge)


def street(seed: int, size: tuple[int, int] = SIZE) -> UInt8Array:
    """Blocks of colour of all sizes, so that boxes on every level have an opinion."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (-(-size[0] // 8), -(-size[1] // 8), 3), np.uint8)
    return np.ascontiguousarray(blocks.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_a_graph_gives_what_the_network_gives(
    form: str, folder: Path, opened: dict[str, tuple[Engine, DeploymentCard]]
) -> None:
    network, _ = load_network(folder, CPU)
    engine, _ = opened[form]
    n_found = []
    for seed in range(2):
        image = torch.from_numpy(street(seed)).permute(2, 0, 1).unsqueeze(0) / 255
        with torch.no_grad():
            scores = network.detect(image, 0.05)[1][0].scores
        # Between the third and the fourth best, and below and above all.
        for threshold in (0.05, float(scores[2:4].mean()), 1.0):
            with torch.no_grad():
                pyramid, detections, semantic_logits = network.detect(image, threshold)
                expected = detections[0]
                masks = network.mask_probs(pyramid, [expected.boxes], [expected.classes])[0]
            boxes, scores, classes, mask_probs, logits = engine(image, torch.tensor(threshold))
            n_found.append(len(boxes))
            torch.testing.assert_close(logits, semantic_logits, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(boxes, expected.boxes, atol=1e-2, rtol=1e-4)
            torch.testing.assert_close(scores, expected.scores, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(mask_probs, masks, atol=1e-4, rtol=1e-4)
            assert torch.equal(classes, expected.classes)
    # With more than the limit, with few and without objects.
    assert n_found == [12, 3, 0] * 2


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_maps_are_those_of_the_predictor(
    form: str, folder: Path, opened: dict[str, tuple[Engine, DeploymentCard]], settings: PredictSettings
) -> None:
    predictor = Predictor.load(folder, CPU, settings)
    deployed = DeployedPredictor(*opened[form], settings)
    kinds = set()
    # The graph's own size, and other ones of the same proportions.
    for seed, size in enumerate([SIZE, (112, 192), (28, 48)]):
        expected, got = predictor(street(seed, size)), deployed(street(seed, size))
        # A pixel between two classes may fall to either side.
        same = expected.panoptic.semantic_map == got.panoptic.semantic_map
        same &= expected.panoptic.instance_map == got.panoptic.instance_map
        assert same.mean() > 0.999
        assert [(entry.unified_class, entry.instance) for entry in got.segments] == [
            (entry.unified_class, entry.instance) for entry in expected.segments
        ]
        assert [entry.score for entry in got.segments] == pytest.approx(
            [entry.score for entry in expected.segments], abs=1e-3
        )
        kinds |= {entry.instance > 0 for entry in got.segments}
    assert kinds == {True, False}


@pytest.mark.slow
def test_an_image_of_other_proportions_gets_a_map_of_its_size(
    graphs: dict[str, Path], settings: PredictSettings
) -> None:
    deployed = DeployedPredictor.load(graphs["onnx"], settings)
    for size in [(90, 40), (1, 300), (1, 1)]:
        assert deployed(street(0, size)).panoptic.size == size
    with pytest.raises(ShapeError, match=r"must be \(H, W, 3\) uint8 RGB. Got: \(4, 4\)"):
        deployed(np.zeros((4, 4), np.uint8))


@pytest.mark.slow
def test_the_card_says_what_the_graph_is(folder: Path, graphs: dict[str, Path]) -> None:
    for form, path in graphs.items():
        content = json.loads(card_path(path).read_text())
        assert content["format"] == form
        assert content["image_size"] == list(SIZE)
        assert content["weights_sha256"] == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        assert content["graph_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert [entry["is_thing"] for entry in content["classes"]] == [False] * 3 + [True] * 2
        assert content["classes"][3]["name"] == "pseudo-class 4"
        assert content["differences"]["n_boxes"] == 12
        assert content["differences"]["n_unmatched"] == 0
        assert content["differences"]["boxes"] < 1e-2
        assert content["differences"]["semantic_logits"] < 1e-4


def outputs(rows: list[list[float]]) -> tuple[torch.Tensor, ...]:
    """Boxes of 10 px from x, score, class per row; masks say the score."""
    x, scores, classes = (torch.tensor([row[column] for row in rows]) for column in range(3))
    boxes = torch.stack([x, torch.zeros_like(x), x + 10, torch.full_like(x, 10)], 1).reshape(-1, 4)
    masks = scores.view(-1, 1, 1).expand(-1, 28, 28)
    return boxes, scores, classes.long(), masks, torch.zeros(1, 4, 8, 8)


def test_differences_do_not_depend_on_the_order_of_boxes() -> None:
    ours = outputs([[0.0, 0.9, 0], [20.0, 0.8, 1], [40.0, 0.7, 1]])
    theirs = list(outputs([[20.25, 0.75, 1], [0.0, 0.9, 0], [40.0, 0.7, 0]]))
    theirs[-1] = theirs[-1] - 0.5
    found = largest_differences(ours, theirs)
    expected = {"boxes": 0.25, "scores": 0.05, "mask_probs": 0.05, "semantic_logits": 0.5}
    assert found == pytest.approx({**expected, "n_boxes": 3, "n_unmatched": 1})
    nothing = largest_differences(outputs([]), ours)
    assert (nothing["boxes"], nothing["n_boxes"], nothing["n_unmatched"]) == (0, 0, 0)
    assert largest_differences(ours, outputs([]))["n_unmatched"] == 3


def test_suppression_without_a_box_or_with_one_keeps_them() -> None:
    assert len(suppress(torch.zeros(0, 4), torch.zeros(0), 0.5)) == 0
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 10, 10], [20, 20, 30, 30]])
    assert suppress(boxes[:1], torch.tensor([-5.0]), 0.5).tolist() == [0]
    assert suppress(boxes, torch.tensor([0.1, 0.2, -3.0]), 0.5).tolist() == [1, 2]


@pytest.mark.slow
def test_a_graph_of_other_bytes_than_its_card_is_refused(graphs: dict[str, Path], tmp_path: Path) -> None:
    graph = tmp_path / "detector.onnx"
    with pytest.raises(DataError, match="does not exist; `gestalt network export`"):
        open_deployment(graph)
    graph.write_bytes(graphs["onnx"].read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"detector.json does not exist"):
        open_deployment(graph)
    shutil.copy(card_path(graphs["onnx"]), card_path(graph))
    with pytest.raises(DataError, match="is not the graph that"):
        open_deployment(graph)
    card_path(graph).write_text("[]")
    with pytest.raises(DataError, match="is not the card of an exported network"):
        open_deployment(graph)


def test_mistakes_are_named_before_any_work(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'tflite'; known formats: onnx, torch"):
        export_network(folder, tmp_path / "a.onnx", form="tflite")
    with pytest.raises(ConfigError, match=r"format torch ends in .pt2"):
        export_network(folder, tmp_path / "a.onnx", form="torch")
    with pytest.raises(ConfigError, match=r"at least 32x32. Got: 16x96"):
        export_network(folder, tmp_path / "a.onnx", form="onnx", size=(16, 96))
    with pytest.raises(DataError, match=r"card.json does not exist"):
        export_network(tmp_path, tmp_path / "a.onnx", form="onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_the_message_names_the_extra(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"onnxruntime is not installed; .*\[onnx\]"):
        export_network(folder, tmp_path / "a.onnx", form="onnx")


def test_a_graph_that_computes_something_else_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturbed(content: bytes) -> Engine:
        def run(image: torch.Tensor, score_threshold: torch.Tensor) -> tuple[torch.Tensor, ...]:
            outputs = list(DetectorGraph(network, SIZE)(image, score_threshold))
            outputs[-1] = outputs[-1] + 0.01
            return tuple(outputs)

        return run

    network, _ = load_network(folder, CPU)
    monkeypatch.setattr("gestalt.inference.deployment._program_bytes", lambda graph: b"")
    monkeypatch.setattr("gestalt.inference.deployment._torch_engine", disturbed)
    with pytest.raises(DataError, match="other semantic logits than the network"):
        export_network(folder, tmp_path / "a.pt2", form="torch")
    assert list(tmp_path.iterdir()) == []
