"""Networks and backbones in the files of other code: every form in, two forms out, and what is refused."""

from __future__ import annotations

import collections
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import resnet18, resnet50

from gestalt.errors import ConfigError, DataError
from gestalt.features.backbones import read_backbone
from gestalt.features.dense import save_features
from gestalt.network.architecture import build_network
from gestalt.network.checkpoint import NetworkCard, load_network, read_card, save_network, start_from
from gestalt.network.checkpoint_files import (
    NetworkCheckpoint,
    convert_network,
    import_network,
    load_backbone,
    load_checkpoint,
    read_network_checkpoint,
    unified_vocabulary,
)
from gestalt.network.detectron2_names import to_detectron2
from gestalt.network.panoptic_model import PanopticModel
from gestalt.panoptic import Vocabulary
from tests.network.published import (
    N_STUFF,
    N_THINGS,
    build_narrow,
    detectron2_weights,
    narrow_settings,
    paper_settings,
)

CPU = torch.device("cpu")
SIZE = (64, 96)


class CfgNode(dict[str, Any]):
    """As the authors' training keeps its options in a checkpoint."""


class Malicious:
    """A pickle that would make a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        """What a careless reader would call."""
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def student() -> PanopticModel:
    return build_narrow(1)


@pytest.fixture(scope="module")
def teacher() -> PanopticModel:
    return build_narrow(2)


@pytest.fixture
def lightning(tmp_path: Path, student: PanopticModel, teacher: PanopticModel) -> Path:
    """A checkpoint of self-training with what a trainer keeps beside the weights, and a trap."""
    weights: dict[str, Tensor] = collections.OrderedDict()
    for name, tensor in detectron2_weights(student).items():
        weights[f"model.{name}"] = tensor
    for name, tensor in detectron2_weights(teacher).items():
        weights[f"teacher_model.model.{name}"] = tensor
    path = tmp_path / "ups_checkpoint_step=000500.ckpt"
    options = CfgNode(MODEL=CfgNode(USE_DINO=True), trap=Malicious(tmp_path / "mark"))
    torch.save(
        {
            "epoch": 0,
            "global_step": 500,
            "pytorch-lightning_version": "2.2.4",
            "state_dict": weights,
            "hyper_parameters": {"config": options},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        },
        path,
    )
    return path


def assert_weights(found: dict[str, Tensor], network: PanopticModel) -> None:
    own = network.weights()
    assert set(found) == set(own)
    for name, tensor in own.items():
        assert torch.equal(found[name], tensor), name


def read(path: Path, **options: Any) -> NetworkCheckpoint:
    return read_network_checkpoint(path, paper_settings(), **options)


def test_a_lightning_checkpoint_gives_student_or_teacher_and_runs_no_code(
    tmp_path: Path, lightning: Path, student: PanopticModel, teacher: PanopticModel
) -> None:
    for part, network in (("student", student), ("teacher", teacher)):
        found = read(lightning, part=part)
        assert_weights(found.tensors, network)
        assert found.report.is_whole
        assert found.report.fitting == len(network.weights())
        assert (found.n_things, found.n_stuff) == (N_THINGS, N_STUFF)
        assert found.settings == narrow_settings()
        assert any(name.endswith("test_checkpoint_files.CfgNode") for name in found.left_out)
    assert not (tmp_path / "mark").exists()
    with pytest.raises(ConfigError, match="student or teacher"):
        read(lightning, part="both")


def test_what_is_not_in_a_file_is_said(tmp_path: Path, student: PanopticModel) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none.ckpt")
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {f"model.{n}": t for n, t in detectron2_weights(student).items()}}, path)
    with pytest.raises(DataError, match="holds no teacher"):
        read(path, part="teacher")
    torch.save(resnet18(weights=None).state_dict(), path)
    with pytest.raises(
        DataError, match=r"must hold a panoptic network under detectron2's names(.|\n)*conv1\.weight"
    ):
        read(path)
    broken = detectron2_weights(student)
    name = "roi_heads.mask_head.deconv.bias"
    broken[name] = torch.full_like(broken[name], torch.nan)
    torch.save({"model": broken}, path)
    with pytest.raises(DataError, match=rf"{name} must be finite"):
        read(path)


@pytest.mark.parametrize("form", ["pth", "module", "bare", "pkl", "safetensors"])
def test_files_of_detectron2_in_every_form(tmp_path: Path, student: PanopticModel, form: str) -> None:
    weights, path = detectron2_weights(student), tmp_path / "weights"
    if form == "pth":
        torch.save({"model": weights, "optimizer": {"state": {}}, "iteration": 9}, path)
    elif form == "module":
        torch.save({"model": {f"module.{name}": tensor for name, tensor in weights.items()}}, path)
    elif form == "bare":
        torch.save(weights, path)
    elif form == "pkl":
        arrays = {name: tensor.numpy() for name, tensor in weights.items()}
        path.write_bytes(
            pickle.dumps({"model": arrays, "__author__": "somebody", "matching_heuristics": True})
        )
    else:
        save_file(weights, path)
    found = read(path)
    assert found.report.is_whole
    assert_weights(found.tensors, student)


def test_buffers_and_counters_of_other_versions(tmp_path: Path, student: PanopticModel) -> None:
    path = tmp_path / "a.pth"
    weights = {name: t for name, t in detectron2_weights(student).items() if "num_batches" not in name}
    # CutLER's colours run to 255; the network sees the same after normalisation.
    weights["pixel_mean"] = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    weights["pixel_std"] = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    torch.save({"model": weights}, path)
    assert read(path).report.is_whole
    # The older models of detectron2 see blue first.
    weights["pixel_mean"] = weights["pixel_mean"].flip(0)
    torch.save({"model": weights}, path)
    with pytest.raises(DataError, match=r"pixel_mean must be \[0\.485.*RGB.*Got: \[103\.5"):
        read(path)


def test_a_class_agnostic_detector_is_listed_and_starts_a_training(
    tmp_path: Path, student: PanopticModel
) -> None:
    # As CutLER publishes it: one class, no semantic head.
    weights = {n: t for n, t in detectron2_weights(student).items() if not n.startswith("sem_seg_head.")}
    for name in list(weights):
        if ".cls_score." in name:
            weights[name] = weights[name][:2]
        elif name.startswith("roi_heads.mask_head.predictor."):
            weights[name] = weights[name][:1]
    weights["roi_heads.extra.weight"] = torch.ones(2)
    path, out = tmp_path / "cutler.pth", tmp_path / "cutler"
    torch.save({"model": weights}, path)
    found = read(path)
    assert (found.n_things, found.n_stuff) == (1, 0)
    assert found.report.unexpected == ("roi_heads.extra.weight (2,)",)
    assert all(name.startswith("sem_seg_head.") for name in found.report.missing)
    assert not found.report.misshapen
    with pytest.raises(DataError, match=r"--vocabulary(.|\n)*missing(.|\n)*sem_seg_head"):
        import_network(path, out, paper_settings(), image_size=SIZE)
    assert not out.exists()
    vocabulary = Vocabulary((0, 1, 2), (3, 4, 5, 6))
    import_network(path, out, paper_settings(), vocabulary=vocabulary, image_size=SIZE)
    network, card = load_network(out, CPU)
    assert card.vocabulary == vocabulary
    own, original = network.weights(), student.weights()
    for name, tensor in own.items():
        is_random = name.startswith("semantic_head.") or ".classify." in name
        # Biases and normalisations begin with the same numbers everywhere.
        if not is_random:
            assert torch.equal(tensor, original[name]), name
    assert own["instance_heads.stages.0.classify.weight"].shape == (4, 24)
    # A training of these classes takes it as it is.
    torch.manual_seed(9)
    started = build_network(card.settings, vocabulary)
    assert start_from(started, vocabulary, out) == len(own)


def test_what_the_network_has_no_place_for_is_listed_and_left_out(
    tmp_path: Path, student: PanopticModel
) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {**detectron2_weights(student), "loss.weight": torch.ones(2)}}, path)
    found = import_network(path, tmp_path / "out", paper_settings(), image_size=SIZE)
    assert found.report.unexpected == ("loss.weight (2,)",)
    assert_weights(load_network(tmp_path / "out", CPU)[0].weights(), student)


def test_many_thing_classes_keep_their_outputs(tmp_path: Path, student: PanopticModel) -> None:
    # As U2Seg publishes it: 800 things and a semantic head.
    weights = detectron2_weights(student)
    for name in list(weights):
        if ".cls_score." in name:
            weights[name] = torch.randn(801, *weights[name].shape[1:])
        elif name.startswith("roi_heads.mask_head.predictor."):
            weights[name] = torch.randn(800, *weights[name].shape[1:])
    path = tmp_path / "u2seg.pth"
    torch.save({"model": weights}, path)
    found = read(path)
    assert (found.n_things, found.n_stuff) == (800, N_STUFF)
    assert found.report.is_whole
    network = load_checkpoint(found, unified_vocabulary(800, N_STUFF))
    assert torch.equal(
        network.weights()["instance_heads.mask_head.classify.bias"],
        weights["roi_heads.mask_head.predictor.bias"],
    )


def test_an_imported_network_sees_what_the_original_sees(
    tmp_path: Path, lightning: Path, teacher: PanopticModel
) -> None:
    out = tmp_path / "cups"
    import_network(lightning, out, paper_settings(), part="teacher", image_size=SIZE)
    network, card = load_network(out, CPU)
    assert card.vocabulary == Vocabulary(things=(4, 5, 6), stuff=(0, 1, 2, 3))
    assert card.vocabulary.unified_table()[:7].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert card.image_size == SIZE
    ((source, sha256),) = card.sources.items()
    assert source == f"{lightning.name} (teacher)"
    assert sha256 == read(lightning).sha256
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = network.detect(images, 0.1), teacher.detect(images, 0.1)
    assert torch.equal(found[2], expected[2])
    assert torch.equal(found[1][0].boxes, expected[1][0].boxes)


@pytest.fixture
def folder(tmp_path: Path, student: PanopticModel) -> Path:
    card = NetworkCard(narrow_settings(), unified_vocabulary(N_THINGS, N_STUFF), SIZE)
    save_network(tmp_path / "network", student, card)
    return tmp_path / "network"


@pytest.mark.parametrize("ending", ["pth", "pkl", "ckpt"])
def test_a_network_that_is_written_for_others_comes_back(
    tmp_path: Path, folder: Path, student: PanopticModel, ending: str
) -> None:
    path = tmp_path / f"out.{ending}"
    convert_network(folder, path)
    found = read(path)
    assert found.report.is_whole
    assert_weights(found.tensors, student)


def test_the_authors_loader_finds_its_names(tmp_path: Path, folder: Path, student: PanopticModel) -> None:
    convert_network(folder, tmp_path / "out.ckpt")
    content = torch.load(tmp_path / "out.ckpt", weights_only=True)["state_dict"]
    # As it takes them: the prefix away, counts from two biases.
    stripped = {key.replace("model.", ""): value for key, value in content.items()}
    assert set(stripped) == set(to_detectron2(student.weights()))
    assert len(stripped["sem_seg_head.predictor.bias"]) - 1 == N_STUFF
    assert len(stripped["roi_heads.mask_head.predictor.bias"]) == N_THINGS


@pytest.mark.parametrize("ending", ["pth", "pkl"])
def test_detectron2_opens_what_is_written_for_it(
    tmp_path: Path, folder: Path, student: PanopticModel, ending: str
) -> None:
    pytest.importorskip("detectron2")
    from detectron2.checkpoint import DetectionCheckpointer

    from tests.network.test_detectron2_names import detectron2_network

    convert_network(folder, tmp_path / f"out.{ending}")
    network = detectron2_network(narrow_settings())
    network.sem_seg_head.predictor = torch.nn.Conv2d(32, N_STUFF + 1, 1)
    DetectionCheckpointer(network).load(str(tmp_path / f"out.{ending}"))
    expected = to_detectron2(student.weights())
    found = network.state_dict()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_networks_and_endings_that_cannot_be_written_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"\.pth or \.pkl \(detectron2\) or \.ckpt \(CUPS\)\. Got: out\.onnx"
    ):
        convert_network(folder, tmp_path / "out.onnx")
    with pytest.raises(DataError, match=r"card\.json does not exist"):
        convert_network(tmp_path, tmp_path / "out.pth")
    card = read_card(folder)
    content = json.loads((folder / "card.json").read_text())
    content["network"]["instances"]["cascade_ious"] = [0.5]
    (folder / "card.json").write_text(json.dumps(content))
    with pytest.raises(
        ConfigError, match=r"detectron2 has no such network: network\.instances\.cascade_ious"
    ):
        convert_network(folder, tmp_path / "out.pth")
    content["network"]["instances"]["cascade_ious"] = card.settings.instances.cascade_ious
    content["vocabulary"]["things"].append(7)
    (folder / "card.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="do not fit its card"):
        convert_network(folder, tmp_path / "out.pth")
    assert not list(tmp_path.glob("out*"))


@pytest.fixture(scope="module")
def trunk() -> dict[str, Tensor]:
    """The trunk of the narrow network under torchvision's names."""
    return {
        name.removeprefix("backbone.trunk."): tensor
        for name, tensor in build_narrow(5).weights().items()
        if name.startswith("backbone.trunk.")
    }


def assert_filled(network: PanopticModel, before: dict[str, Tensor], trunk: dict[str, Tensor]) -> None:
    """The trunk is the file's, the rest as it was."""
    n_trunk = 0
    for name, tensor in network.weights().items():
        bare = name.removeprefix("backbone.trunk.")
        if bare == name:
            assert torch.equal(tensor, before[name]), name
        elif "num_batches_tracked" not in name:
            n_trunk += 1
            assert torch.equal(tensor, trunk[bare]), name
    # 53 convolutions, each with scale, shift, mean and variance.
    assert n_trunk == 53 + 53 * 4


def detectron2_backbone(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of ``dino_RN50_pretrain_d2_format.pkl``: those of the trunk, without wrapper and counters."""
    renamed = to_detectron2({f"backbone.trunk.{name}": tensor for name, tensor in weights.items()})
    return {
        name.removeprefix("backbone.bottom_up."): tensor
        for name, tensor in renamed.items()
        if "num_batches_tracked" not in name
    }


@pytest.mark.parametrize("form", ["torchvision", "dino checkpoint", "detectron2"])
def test_a_backbone_fills_the_trunk_and_nothing_else(
    tmp_path: Path, trunk: dict[str, Tensor], form: str
) -> None:
    path, n_unexpected = tmp_path / "backbone", 0
    if form == "torchvision":
        torch.save(trunk, path)
    elif form == "dino checkpoint":
        teacher = {f"backbone.{name}": tensor for name, tensor in trunk.items()}
        teacher["head.mlp.0.weight"] = torch.ones(2)
        torch.save({"student": {"module.x": torch.ones(1)}, "teacher": teacher, "epoch": 3}, path)
        n_unexpected = 1
    else:
        arrays = {name: tensor.numpy() for name, tensor in detectron2_backbone(trunk).items()}
        content = {"model": arrays, "__author__": "CutLER", "matching_heuristics": True}
        path.write_bytes(pickle.dumps(content, protocol=2))
    network = build_narrow()
    before = {name: tensor.clone() for name, tensor in network.weights().items()}
    report = load_backbone(network, path)
    assert not report.missing
    assert not report.misshapen
    assert len(report.unexpected) == n_unexpected
    assert_filled(network, before, trunk)


def test_a_backbone_that_was_fetched_fills_the_trunk(tmp_path: Path) -> None:
    weights = resnet50(weights=None).state_dict()
    torch.save(weights, tmp_path / "dino_resnet50_pretrain.pth")
    save_features(read_backbone(tmp_path / "dino_resnet50_pretrain.pth"), tmp_path / "fetched")
    settings = dataclasses.replace(
        narrow_settings(), stem_channels=64, stage_channels=paper_settings().stage_channels
    )
    network = build_network(settings, unified_vocabulary(N_THINGS, N_STUFF))
    before = {name: tensor.clone() for name, tensor in network.weights().items()}
    load_backbone(network, tmp_path / "fetched")
    assert_filled(network, before, weights)


def test_files_that_are_not_the_trunk_are_refused_and_the_network_stays(
    tmp_path: Path, trunk: dict[str, Tensor]
) -> None:
    network = build_narrow()
    before = {name: tensor.clone() for name, tensor in network.weights().items()}
    wide = {name: torch.cat([tensor, tensor]) if tensor.ndim else tensor for name, tensor in trunk.items()}
    torch.save(wide, tmp_path / "wide.pth")
    torch.save({"x.weight": torch.ones(2)}, tmp_path / "other.pth")
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "card.json").write_text('{"kind": "vit"}')
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("none.pth", "does not exist"),
        (
            "wide.pth",
            r"does not hold the trunk(.|\n)*conv1\.weight expected \(8, 3, 7, 7\), got \(16, 3, 7, 7\)",
        ),
        ("other.pth", r"does not hold the trunk(.|\n)*0 weights fit"),
        ("vit", "kind resnet. Got: vit"),
        ("empty", "gestalt weights fetch"),
    ):
        with pytest.raises(DataError, match=message):
            load_backbone(network, tmp_path / name)
    assert_weights(before, network)
