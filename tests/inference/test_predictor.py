from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from gestalt.config.network import PredictSettings
from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.inference.predictor import LONGEST_SIDE_PX, Predictor
from gestalt.panoptic import VOID

CPU = torch.device("cpu")


@pytest.fixture
def predictor(network_folder: Path, settings: PredictSettings) -> Predictor:
    return Predictor.load(network_folder, CPU, settings)


def image(seed: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "size", [(48, 64), (33, 101), (16, 16), (1, 1), (1, 37), (37, 1), (2, 300), (65, 31)]
)
@pytest.mark.parametrize("height_px", [0, 48])
def test_the_map_has_the_size_of_the_image_and_unified_classes(
    network_folder: Path, settings: PredictSettings, size: tuple[int, int], height_px: int
) -> None:
    predictor = Predictor.load(network_folder, CPU, dataclasses.replace(settings, height_px=height_px))
    panoptic = predictor(image(0, size)).panoptic
    assert panoptic.size == size
    assert set(np.unique(panoptic.semantic_map)) <= {0, 1, 2, 3, 4, VOID}
    assert (np.isin(panoptic.semantic_map, [3, 4]) == (panoptic.instance_map > 0)).all()


def test_segments_describe_the_map(predictor: Predictor) -> None:
    prediction = predictor(image(0))
    assert any(entry.instance > 0 for entry in prediction.segments)
    for entry in prediction.segments:
        inside = (prediction.panoptic.semantic_map == entry.unified_class) & (
            prediction.panoptic.instance_map == entry.instance
        )
        assert inside.sum() == entry.area_px
        assert 0 < entry.score <= 1


def test_a_batch_gives_what_its_images_give_alone(predictor: Predictor) -> None:
    together = predictor.predict_batch([image(0), image(1)])
    for number, prediction in enumerate(together):
        alone = predictor(image(number))
        agrees = (alone.panoptic.semantic_map == prediction.panoptic.semantic_map).mean()
        assert agrees > 0.99  # a batch may round the last bit another way


def test_a_working_height_changes_the_network_input_and_not_the_output_size(
    network_folder: Path, settings: PredictSettings
) -> None:
    scaled = Predictor.load(network_folder, CPU, dataclasses.replace(settings, height_px=96))
    plain = Predictor.load(network_folder, CPU, settings)
    assert scaled(image(0)).panoptic.size == (48, 64)
    assert (scaled(image(0)).panoptic.semantic_map != plain(image(0)).panoptic.semantic_map).any()
    assert (
        scaled(image(0, (96, 64))).panoptic.semantic_map == plain(image(0, (96, 64))).panoptic.semantic_map
    ).all()


def test_mirrored_views_make_the_prediction_of_a_mirror_image_a_mirror_image(
    network_folder: Path, settings: PredictSettings
) -> None:
    predictor = Predictor.load(network_folder, CPU, dataclasses.replace(settings, view_flip=True))
    one, other = predictor(image(3)), predictor(image(3)[:, ::-1].copy())
    agrees = one.panoptic.semantic_map == other.panoptic.semantic_map[:, ::-1]
    assert agrees.mean() > 0.98


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((4, 4), np.uint8), r"\(4, 4\) uint8; a grey image becomes one with numpy\.repeat"),
        (np.zeros((4, 4, 3), np.float32), r"\(4, 4, 3\) float32$"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\) uint8; an image with alpha becomes one with"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\) uint8$"),
    ],
)
def test_other_arrays_are_refused(predictor: Predictor, wrong: np.ndarray, said: str) -> None:
    with pytest.raises(ShapeError, match=rf"must be \(H, W, 3\) uint8 RGB\. Got: {said}"):
        predictor(wrong)


@pytest.mark.parametrize(
    ("size", "scaled"),
    [((24, 32), (48, 64)), ((96, 64), (48, 32)), ((1, 1600), (2.5, 4000)), ((800, 1), (48, 0.06))],
)
def test_images_come_near_the_working_height_and_long_ones_stay_small(
    network_folder: Path, settings: PredictSettings, size: tuple[int, int], scaled: tuple[float, float]
) -> None:
    predictor = Predictor.load(network_folder, CPU, dataclasses.replace(settings, height_px=48))
    scale = predictor._working_scale(size)
    assert (size[0] * scale, size[1] * scale) == pytest.approx(scaled)


@pytest.mark.parametrize("height_px", [0, 192, 10_000])
@pytest.mark.parametrize("view_scales", [[1.0], [0.5, 0.75, 1.0], [8.0, 0.01]])
@pytest.mark.parametrize("size", [(192, 384), (2000, 20), (20, 2000), (12_000, 9000), (1, 1), (4000, 4000)])
def test_no_view_gets_longer_than_the_limit(
    network_folder: Path,
    settings: PredictSettings,
    size: tuple[int, int],
    view_scales: list[float],
    height_px: int,
) -> None:
    settings = dataclasses.replace(settings, height_px=height_px, view_scales=view_scales)
    scale = Predictor.load(network_folder, CPU, settings)._working_scale(size)
    wanted = height_px / size[0] if height_px else 1.0
    longest = max(round(side * scale * view) for side in size for view in view_scales)
    assert longest <= LONGEST_SIDE_PX
    # Only what would be longer is made smaller, and no more than needed.
    assert scale == pytest.approx(wanted) or (scale < wanted and longest == LONGEST_SIDE_PX)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("GPU out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_too_little_memory_says_what_to_lower(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("gestalt.inference.predictor.predict_views", fail)
    with pytest.raises(
        ConfigError, match=r"out of memory with 2 images of 48 x 64 .* lower the batch \(--batch"
    ):
        predictor.predict_batch([image(0), image(1)])


def test_other_errors_of_the_network_stay_what_they_are(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("gestalt.inference.predictor.predict_views", fail)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        predictor(image(0))


def test_images_of_two_sizes_are_refused(predictor: Predictor) -> None:
    with pytest.raises(ShapeError, match="must have one size"):
        predictor.predict_batch([image(0), image(0, (32, 64))])


def test_a_folder_without_a_network_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"card\.json does not exist"):
        Predictor.load(tmp_path, CPU)


def test_without_settings_the_embedded_preset_is_used(network_folder: Path) -> None:
    assert Predictor.load(network_folder, CPU).batch_size == 4
