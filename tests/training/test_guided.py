from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.detection import PanopticQuality

from gestalt.config.network import NetworkSettings
from gestalt.config.training import GuidedSettings
from gestalt.errors import ConfigError
from gestalt.network.architecture import build_network
from gestalt.network.checkpoint import NetworkCard, save_network
from gestalt.network.drop_loss import drop_rule
from gestalt.network.merge import merge_panoptic
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.network.test_time import predict_views
from gestalt.panoptic import VOID, Vocabulary
from gestalt.training.batch import images_to_tensor
from gestalt.training.curve import mean_of_last, write_curve
from gestalt.training.guided import train_guided
from gestalt.training.guided_batches import GuidedBatches
from gestalt.training.parts import Parts
from gestalt.training.sample import TrainingSample
from tests.training.conftest import VOCABULARY

CPU = torch.device("cpu")


@pytest.fixture
def network(network_settings: NetworkSettings) -> PanopticNetwork:
    torch.manual_seed(0)
    return build_network(network_settings, VOCABULARY)


def quiet(settings: GuidedSettings, **values: object) -> GuidedSettings:
    """Settings without augmentation."""
    shape = dataclasses.replace(
        settings.augmentation,
        flip_prob=0.0,
        crop_area_low=1.0,
        photometric=dataclasses.replace(
            settings.augmentation.photometric, blur_prob=0.0, colour_prob=0.0, grey_prob=0.0
        ),
    )
    paste = dataclasses.replace(settings.copy_paste, enabled=False)
    return dataclasses.replace(settings, augmentation=shape, copy_paste=paste, **values)


def test_a_step_draws_the_same_batch_whenever_it_is_asked(
    samples: list[TrainingSample], network: PanopticNetwork, guided_settings: GuidedSettings
) -> None:
    first = GuidedBatches(samples, network, guided_settings, 0, CPU)
    second = GuidedBatches(samples, network, guided_settings, 0, CPU)
    second.draw(0)
    ours, theirs = first.draw(5), second.draw(5)
    assert torch.equal(ours.images, theirs.images)
    assert all(torch.equal(a.masks, b.masks) for a, b in zip(ours.targets, theirs.targets, strict=True))
    assert not torch.equal(ours.images, first.draw(6).images)


def test_without_copy_paste_a_batch_holds_its_own_objects_only(
    samples: list[TrainingSample], network: PanopticNetwork, guided_settings: GuidedSettings
) -> None:
    plain = GuidedBatches(samples, network, quiet(guided_settings), 0, CPU).draw(0)
    n_own = {len(set(np.unique(sample.instance)) - {0}) for sample in samples}
    assert {len(target.boxes) for target in plain.targets} <= n_own
    settings = dataclasses.replace(quiet(guided_settings), copy_paste=guided_settings.copy_paste)
    pasted = GuidedBatches(samples, network, settings, 0, CPU).draw(0)
    assert sum(len(t.boxes) for t in pasted.targets) > sum(len(t.boxes) for t in plain.targets)


def test_own_predictions_enter_the_queue_from_the_start_up_on_and_every_few_steps(
    samples: list[TrainingSample],
    network: PanopticNetwork,
    guided_settings: GuidedSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = []

    def count(*args: object, **values: object) -> object:
        passes.append(network.training)
        return predict_views(*args, **values)

    monkeypatch.setattr("gestalt.training.guided_batches.predict_views", count)
    batches = GuidedBatches(samples, network, guided_settings, 0, CPU)  # start-up 2, every 2 steps
    network.train()
    n_passes = []
    for step in range(6):
        batches.draw(step)
        batches.predict(step)
        n_passes.append(len(passes))
    assert n_passes == [0, 1, 1, 2, 2, 3]
    assert passes == [False] * 3
    assert network.training
    assert len(batches.queue) > 0


def test_after_the_start_up_the_queue_is_what_is_pasted(
    samples: list[TrainingSample], network: PanopticNetwork, guided_settings: GuidedSettings
) -> None:
    batches = GuidedBatches(samples, network, quiet(guided_settings), 0, CPU)
    settings = dataclasses.replace(
        quiet(guided_settings),
        copy_paste=dataclasses.replace(
            guided_settings.copy_paste, scale_low=1.0, scale_high=1.0, start_up_steps=1
        ),
    )
    batches = GuidedBatches(samples, network, settings, 0, CPU)
    from gestalt.training.copy_paste import PasteCandidate

    marker = PasteCandidate(np.full((9, 9, 3), 255, np.uint8), np.ones((9, 9), bool), 1)
    batches.queue.extend([marker])

    def n_white(step: int) -> int:
        return int((batches.draw(step).images == 1.0).all(1).sum())

    assert n_white(0) == 0
    assert n_white(1) >= 81


def test_a_vocabulary_without_things_is_refused_before_any_work(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
) -> None:
    with pytest.raises(ConfigError, match="no thing classes"):
        train_guided(
            samples, Vocabulary((), (0, 1)), network_settings, guided_settings,
            seed=0, device=CPU, cache_dir=tmp_path,
        )  # fmt: skip


@pytest.mark.parametrize(("enabled", "expected"), [(True, 0.4), (False, None)])
def test_the_drop_loss_switch_reaches_the_network(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
    monkeypatch: pytest.MonkeyPatch,
    enabled: bool,
    expected: float | None,
) -> None:
    seen = []
    original = PanopticNetwork.forward

    def spy(self: PanopticNetwork, images: torch.Tensor, targets: object, drop: object) -> object:
        seen.append(None if drop is None else drop.iou)
        return original(self, images, targets, drop)

    monkeypatch.setattr(PanopticNetwork, "forward", spy)
    drop = dataclasses.replace(guided_settings.drop_loss, enabled=enabled)
    settings = dataclasses.replace(guided_settings, steps=1, drop_loss=drop)
    train_guided(samples, VOCABULARY, network_settings, settings, seed=0, device=CPU, cache_dir=tmp_path)
    assert seen == [expected]


def panoptic_quality(network: PanopticNetwork, samples: list[TrainingSample]) -> float:
    """PQ by an independent implementation, in [0, 1]."""
    n_stuff = len(VOCABULARY.stuff)
    metric = PanopticQuality(
        things=set(VOCABULARY.unified_things), stuffs={*VOCABULARY.unified_stuff, VOID},
        allow_unknown_preds_category=True,
        return_per_class=True,
    )  # fmt: skip
    for sample in samples:
        (prediction,) = predict_views(network, images_to_tensor([sample.image]))
        ours, _ = merge_panoptic(prediction, score_threshold=0.5, overlap_share=0.5, min_stuff_share=0.002)
        class_of = np.array([0, *(n_stuff + thing for thing in sample.classes)])
        truth = np.where(sample.instance > 0, class_of[sample.instance], sample.semantic.astype(int) - 1)
        maps = [
            torch.from_numpy(np.stack([semantic.astype(int), instance.astype(int)], -1))[None]
            for semantic, instance in ((ours.semantic_map, ours.instance_map), (truth, sample.instance))
        ]
        metric.update(*maps)
    per_class = metric.compute().flatten()
    # torchmetrics orders things, then stuff, each ascending; the last one is void, no class of the truth.
    return float(per_class[:-1].mean())


@pytest.mark.slow
def test_eight_images_are_learnt_by_heart(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
) -> None:
    settings = quiet(guided_settings, steps=110, batch_size=4, checkpoint_every=1000)
    settings = dataclasses.replace(
        settings, optimiser=dataclasses.replace(settings.optimiser, learning_rate=5e-3, warmup_steps=10)
    )
    result = train_guided(
        samples, VOCABULARY, network_settings, settings, seed=0, device=CPU, cache_dir=tmp_path
    )
    assert panoptic_quality(result.network, samples) > 0.9


def test_the_loss_falls(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
) -> None:
    settings = quiet(guided_settings, steps=25)
    settings = dataclasses.replace(
        settings, optimiser=dataclasses.replace(settings.optimiser, warmup_steps=3)
    )
    curve = train_guided(
        samples, VOCABULARY, network_settings, settings, seed=0, device=CPU, cache_dir=tmp_path
    ).curve
    assert mean_of_last(curve)["total"] < 0.7 * curve[0]["total"]
    write_curve(tmp_path / "curve.csv", curve)
    lines = (tmp_path / "curve.csv").read_text().splitlines()
    assert lines[0] == "step,total,semantic,objectness,proposal_box,class,box,mask,gradient_norm"
    assert len(lines) == 26
    assert lines[1].startswith("0,")


def test_a_drop_rule_that_leaves_no_negative_anchor_is_refused(guided_settings: GuidedSettings) -> None:
    everywhere = dataclasses.replace(guided_settings.drop_loss, unlabelled_share=0.0, covers_anchors=True)
    with pytest.raises(
        ConfigError, match=r"covers_anchors needs guided\.drop_loss\.unlabelled_share above 0"
    ):
        drop_rule(everywhere, "guided")


def still(settings: GuidedSettings, **values: object) -> GuidedSettings:
    """One step that changes no weight."""
    optimiser = dataclasses.replace(settings.optimiser, learning_rate=0.0)
    return dataclasses.replace(settings, steps=1, optimiser=optimiser, **values)


def test_the_trunk_starts_from_a_backbone_file(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(7)
    trunk = build_network(network_settings, VOCABULARY).backbone.trunk
    torch.save(trunk.state_dict(), tmp_path / "backbone.pth")
    settings = still(guided_settings, initial_backbone=str(tmp_path / "backbone.pth"))
    with caplog.at_level("INFO"):
        network = train_guided(
            samples, VOCABULARY, network_settings, settings, seed=0, device=CPU, cache_dir=tmp_path
        ).network
    learnt = dict(network.backbone.trunk.named_parameters())
    assert all(torch.equal(learnt[name], weight) for name, weight in trunk.named_parameters())
    assert f"{len(trunk.state_dict())} weights fit" in caplog.text


def test_a_network_of_another_vocabulary_gives_all_but_its_outputs_per_class(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(7)
    other = Vocabulary(things=VOCABULARY.things[::-1], stuff=VOCABULARY.stuff)
    given = build_network(network_settings, other)
    save_network(tmp_path / "given", given, NetworkCard(network_settings, other, (64, 128)))
    settings = still(guided_settings, initial_network=str(tmp_path / "given"))
    with caplog.at_level("INFO"):
        network = train_guided(
            samples, VOCABULARY, network_settings, settings, seed=0, device=CPU, cache_dir=tmp_path
        ).network
    start = dict(given.named_parameters())
    taken = {name for name, weight in network.named_parameters() if torch.equal(weight, start[name])}
    assert "backbone.trunk.conv1.weight" in taken
    assert "proposal_network.head.cls_logits.weight" in taken
    assert "semantic_head.classify.weight" not in taken
    assert "instance_heads.mask_head.classify.weight" not in taken
    assert "weights are taken" in caplog.text
    assert "outputs per class of another vocabulary" in caplog.text


def test_chance_belongs_to_the_place_in_the_batch_and_not_to_the_process(
    samples: list[TrainingSample], network: PanopticNetwork, guided_settings: GuidedSettings
) -> None:
    settings = dataclasses.replace(
        quiet(guided_settings, batch_size=4), augmentation=guided_settings.augmentation
    )
    whole = GuidedBatches(samples, network, settings, 0, CPU).draw(3)
    halves = [GuidedBatches(samples, network, settings, 0, CPU, Parts(4, 2)).draw(3, part) for part in (0, 1)]
    assert torch.equal(torch.cat([half.images for half in halves]), whole.images)
    assert [len(t.boxes) for half in halves for t in half.targets] == [len(t.boxes) for t in whole.targets]
