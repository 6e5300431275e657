from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from gestalt.config.network import NetworkSettings
from gestalt.data.atomic_files import write_bytes
from gestalt.errors import DataError
from gestalt.network.architecture import build_network
from gestalt.network.checkpoint import (
    CARD,
    WEIGHTS,
    NetworkCard,
    load_network,
    read_card,
    save_network,
    start_from,
)
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.panoptic import Vocabulary

CPU = torch.device("cpu")


@pytest.fixture
def card(settings: NetworkSettings, vocabulary: Vocabulary) -> NetworkCard:
    return NetworkCard(
        settings, vocabulary, (64, 96), {"labels": "abc"}, {"loss": 1.5}, class_names=("road",) * 5
    )


def test_a_saved_network_comes_back_with_its_counts_card_and_outputs(
    tmp_path: Path, network: PanopticNetwork, card: NetworkCard, images: torch.Tensor
) -> None:
    save_network(tmp_path, network, card)
    restored, restored_card = load_network(tmp_path, CPU)
    assert restored_card == card
    assert (restored.n_things, restored.n_stuff) == (2, 3)
    assert not restored.training
    torch.testing.assert_close(
        restored.detect(images, 0.2)[2], network.detect(images, 0.2)[2], rtol=0, atol=0
    )


def test_equal_networks_have_equal_bytes(tmp_path: Path, network: PanopticNetwork, card: NetworkCard) -> None:
    for name in ("a", "b"):
        save_network(tmp_path / name, network.to(memory_format=torch.channels_last), card)
    for file in (WEIGHTS, CARD):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_weights_never_lie_beside_the_card_of_others(
    tmp_path: Path, network: PanopticNetwork, card: NetworkCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_network(tmp_path, network, card)

    def stop(path: Path, content: bytes) -> None:
        if path.name == CARD:
            raise KeyboardInterrupt
        write_bytes(path, content)

    monkeypatch.setattr("gestalt.network.checkpoint.write_bytes", stop)
    with pytest.raises(KeyboardInterrupt):
        save_network(tmp_path, network, dataclasses.replace(card, vocabulary=Vocabulary((4, 3), (2, 1, 0))))
    with pytest.raises(DataError, match=r"card\.json does not exist"):
        load_network(tmp_path, CPU)


def test_a_missing_folder_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"card\.json does not exist; `dvc repro guided`"):
        load_network(tmp_path, CPU)


def test_a_cut_file_is_reported(tmp_path: Path, network: PanopticNetwork, card: NetworkCard) -> None:
    save_network(tmp_path, network, card)
    weights = tmp_path / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        load_network(tmp_path, CPU)


def test_weights_of_another_vocabulary_are_listed_by_name_and_shape(
    tmp_path: Path, network: PanopticNetwork, card: NetworkCard
) -> None:
    save_network(tmp_path, network, dataclasses.replace(card, vocabulary=Vocabulary((0,), (1, 2, 3, 4))))
    with pytest.raises(
        DataError, match=r"shape: semantic_head\.classify\.weight expected \(5, 16, 1, 1\), got \(4"
    ):
        load_network(tmp_path, CPU)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 9, "has format 9"),
        ("network", {}, "not a network card"),
        ("image_size", [], "not a network card"),
    ],
)
def test_a_card_that_is_none_is_reported(
    tmp_path: Path, network: PanopticNetwork, card: NetworkCard, key: str, value: object, message: str
) -> None:
    save_network(tmp_path, network, card)
    content = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps({**content, key: value}))
    with pytest.raises(DataError, match=message):
        read_card(tmp_path)


def test_starting_from_another_vocabulary_leaves_the_outputs_per_class_as_they_were(
    tmp_path: Path, settings: NetworkSettings, network: PanopticNetwork, card: NetworkCard
) -> None:
    save_network(tmp_path, network, card)
    swapped = Vocabulary((1, 4), (0, 2, 3))
    torch.manual_seed(7)
    other = build_network(settings, swapped)
    before = other.semantic_head.classify.weight.clone()
    start_from(other, swapped, tmp_path)
    torch.testing.assert_close(other.semantic_head.classify.weight, before, rtol=0, atol=0)
    torch.testing.assert_close(
        other.backbone.trunk.conv1.weight, network.backbone.trunk.conv1.weight, rtol=0, atol=0
    )
    start_from(other, card.vocabulary, tmp_path)
    torch.testing.assert_close(
        other.semantic_head.classify.weight, network.semantic_head.classify.weight, rtol=0, atol=0
    )
