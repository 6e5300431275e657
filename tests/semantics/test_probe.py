"""Fitting, saving and asking the pseudo-classes."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from gestalt.config.codes import CodeSettings
from gestalt.config.features import DictionarySettings
from gestalt.config.presets import default_settings
from gestalt.config.semantics import SemanticsSettings
from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.features.dense import DenseFeatures, FeatureGrid, save_features
from gestalt.features.embedded import EmbeddedFeatures
from gestalt.features.fit import fit_features
from gestalt.semantics import SemanticLabeller
from gestalt.semantics.fit import FitFrame, fit_semantics
from gestalt.semantics.probe import SemanticProbe

FOCAL_LENGTH, BASELINE, HEIGHT, WIDTH = 80.0, 0.5, 48, 96


def frame(seed: int) -> FitFrame:
    """Blue sky, green walls left and right, grey ground, a red box; disparity as of a street."""
    generator = np.random.default_rng(seed)
    image = np.zeros((HEIGHT, WIDTH, 3), np.float64)
    image[:] = (90, 140, 230)
    image[10:30, :30], image[8:30, 66:] = (40, 130, 50), (40, 130, 50)
    image[28:] = (110, 110, 110)
    disparity = np.zeros((HEIGHT, WIDTH), np.float32)
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    disparity[28:] = np.broadcast_to(0.35 * (rows - 20), disparity.shape)[28:]
    disparity[10:30, :30], disparity[8:30, 66:] = 4, 4
    left = int(generator.integers(20, 60))
    image[22:42, left : left + 16] = (200, 40, 40)
    disparity[22:42, left : left + 16] = 0.35 * (42 - 20)
    noisy = (image + generator.normal(0, 6, image.shape)).clip(0, 255)
    return FitFrame(f"f{seed}", noisy.astype(np.uint8), disparity, FOCAL_LENGTH, BASELINE)


def small_settings(**values: object) -> SemanticsSettings:
    crf = dataclasses.replace(default_settings("semantics").crf, iterations=0)
    settings = default_settings(
        "semantics",
        **{"method": "kmeans", "n_pseudo_classes": 6, "n_vectors": 2000, "restarts": 3, "crf": crf, **values},
    )
    assert isinstance(settings, SemanticsSettings)
    return settings


def small_dictionary(**values: float) -> DictionarySettings:
    settings: DictionarySettings = default_settings("features").dictionary
    return dataclasses.replace(settings, n_patches=3000, n_filters=16, components=5, **values)


FRAMES = [frame(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def features() -> EmbeddedFeatures:
    return fit_features([frame.image for frame in FRAMES], small_dictionary(), seed=0)


@pytest.fixture(scope="module")
def probe(features: EmbeddedFeatures) -> SemanticProbe:
    return fit_semantics(FRAMES, features, small_settings(), seed=0)


def test_pseudo_classes_do_not_mix_the_parts_of_a_scene(probe: SemanticProbe) -> None:
    new = frame(77)
    prediction = probe.predict(new.image, new.disparity, FOCAL_LENGTH, BASELINE, small_settings())
    regions = np.zeros((4, HEIGHT, WIDTH), bool)
    regions[0, :5], regions[1, 13:22, 4:18], regions[2, 44:] = True, True, True
    red = (new.image[..., 0] > 150) & (new.image[..., 1] < 90)
    regions[3] = red
    counts = np.stack([np.bincount(prediction.semantic_map[region], minlength=6) for region in regions])
    # Each part has a pseudo-class that is mostly its own; few pixels have one that belongs to another part.
    assert set(counts.argmax(0)[counts.sum(0) > 0]) == {0, 1, 2, 3}
    assert counts.max(0).sum() / counts.sum() > 0.9


def test_predictions_are_probabilities_of_every_pixel(probe: SemanticProbe) -> None:
    new = FRAMES[0]
    prediction = probe.predict(new.image, new.disparity, FOCAL_LENGTH, BASELINE, small_settings())
    assert prediction.log_prob.shape == (6, HEIGHT, WIDTH)
    torch.testing.assert_close(prediction.log_prob.exp().sum(0), torch.ones(HEIGHT, WIDTH))
    assert prediction.semantic_map.dtype == np.uint8
    assert prediction.semantic_map.max() < 6
    assert prediction.confidence.dtype == np.float32
    assert 1 / 6 <= prediction.confidence.min() <= prediction.confidence.max() <= 1


def test_pseudo_classes_are_ordered_from_top_to_bottom(probe: SemanticProbe) -> None:
    assert probe.card.mean_rows == sorted(probe.card.mean_rows)
    assert sum(probe.card.cluster_shares) == pytest.approx(1)
    prediction = probe.predict(FRAMES[0].image, FRAMES[0].disparity, FOCAL_LENGTH, BASELINE, small_settings())
    assert prediction.semantic_map[2, 48] < prediction.semantic_map[46, 2]


def test_fitting_twice_gives_equal_bytes(
    tmp_path: Path, features: EmbeddedFeatures, probe: SemanticProbe
) -> None:
    probe.save(tmp_path / "a")
    fit_semantics(FRAMES, features, small_settings(), seed=0).save(tmp_path / "b")
    for name in ("probe.safetensors", "card.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_saved_equals_loaded(tmp_path: Path, features: EmbeddedFeatures, probe: SemanticProbe) -> None:
    probe.save(tmp_path)
    loaded = SemanticProbe.load(tmp_path, features)
    parts = (FRAMES[1].image, FRAMES[1].disparity, FOCAL_LENGTH, BASELINE, small_settings())
    assert torch.equal(probe.predict(*parts).log_prob, loaded.predict(*parts).log_prob)
    assert loaded.card == probe.card


def test_without_geometry_and_fusion_disparity_changes_nothing(features: EmbeddedFeatures) -> None:
    settings = small_settings(geometry=False, fusion=False)
    plain = fit_semantics(FRAMES, features, settings, seed=0)
    assert plain.centres.shape == (6, features.dimension)
    image = FRAMES[0].image
    with_disparity = plain.predict(image, FRAMES[0].disparity, FOCAL_LENGTH, BASELINE, settings)
    without = plain.predict(image, None, FOCAL_LENGTH, BASELINE, settings)
    assert torch.equal(with_disparity.log_prob, without.log_prob)


def test_pixels_without_a_match_do_not_trust_the_halved_view(features: EmbeddedFeatures) -> None:
    fused, plain = small_settings(geometry=False), small_settings(geometry=False, fusion=False)
    probe = fit_semantics(FRAMES, features, fused, seed=0)
    empty = np.zeros((HEIGHT, WIDTH), np.float32)
    far = probe.predict(FRAMES[0].image, empty, FOCAL_LENGTH, BASELINE, fused)
    single = probe.predict(FRAMES[0].image, empty, FOCAL_LENGTH, BASELINE, plain)
    assert (far.semantic_map == single.semantic_map).mean() > 0.98


def test_an_image_without_stereo_still_gets_pseudo_classes(probe: SemanticProbe) -> None:
    prediction = probe.predict(FRAMES[0].image, None, FOCAL_LENGTH, BASELINE, small_settings())
    assert torch.isfinite(prediction.log_prob).all()
    empty = np.zeros((HEIGHT, WIDTH), np.float32)
    same = probe.predict(FRAMES[0].image, empty, FOCAL_LENGTH, BASELINE, small_settings())
    assert torch.equal(prediction.log_prob, same.log_prob)


def test_windows_need_features_that_do_not_see_the_row(features: EmbeddedFeatures) -> None:
    with pytest.raises(ConfigError, match=r"features\.dictionary\.position_weight to 0"):
        fit_semantics(FRAMES, features, small_settings(windows=True), seed=0)
    local = fit_features([frame.image for frame in FRAMES], small_dictionary(position_weight=0.0), seed=0)
    settings = small_settings(windows=True, window_batch=2)
    probe = fit_semantics(FRAMES, local, settings, seed=0)
    parts = (FRAMES[0].image, FRAMES[0].disparity, FOCAL_LENGTH, BASELINE)
    windowed = probe.predict(*parts, settings)
    whole = probe.predict(*parts, small_settings(windows=False))
    # Features look little farther than a window, so both views mostly agree.
    assert (windowed.semantic_map == whole.semantic_map).mean() > 0.8


def test_fewer_cells_than_pseudo_classes_are_refused(features: EmbeddedFeatures) -> None:
    tiny = FitFrame("tiny", FRAMES[0].image[:4, :8], FRAMES[0].disparity[:4, :8], FOCAL_LENGTH, BASELINE)
    with pytest.raises(DataError, match="6 clusters need at least as many vectors"):
        fit_semantics([tiny], features, small_settings(), seed=0)


def test_a_disparity_of_another_size_is_refused(probe: SemanticProbe) -> None:
    with pytest.raises(ShapeError, match="disparity must have the size of the image"):
        probe.predict(FRAMES[0].image, FRAMES[0].disparity[:-1], FOCAL_LENGTH, BASELINE, small_settings())


def test_the_labeller_survives_pickling_and_equals_the_probe(
    tmp_path: Path, features: EmbeddedFeatures, probe: SemanticProbe
) -> None:
    save_features(features, tmp_path / "features")
    probe.save(tmp_path / "semantics")
    labeller = SemanticLabeller(tmp_path / "features", tmp_path / "semantics", small_settings())
    unsent = len(pickle.dumps(labeller))
    parts = (FRAMES[2].image, FRAMES[2].disparity, FOCAL_LENGTH, BASELINE)
    semantic_map, confidence = labeller(*parts)
    assert len(pickle.dumps(labeller)) == unsent < 5000
    again, _ = pickle.loads(pickle.dumps(labeller))(*parts)
    expected = probe.predict(*parts, small_settings())
    np.testing.assert_array_equal(semantic_map, expected.semantic_map)
    np.testing.assert_array_equal(confidence, expected.confidence)
    np.testing.assert_array_equal(again, semantic_map)


def test_a_probe_of_other_settings_or_features_is_refused(
    tmp_path: Path, features: EmbeddedFeatures, probe: SemanticProbe
) -> None:
    save_features(features, tmp_path / "features")
    with pytest.raises(DataError, match="dvc repro semantics"):
        SemanticProbe.load(tmp_path / "semantics", features)
    probe.save(tmp_path / "semantics")
    other = SemanticLabeller(tmp_path / "features", tmp_path / "semantics", small_settings(geometry=False))
    with pytest.raises(ConfigError, match=r"semantics\.geometry is False, but"):
        _ = other.probe
    card = tmp_path / "semantics" / "card.json"
    content = json.loads(card.read_text())
    card.write_text(json.dumps({**content, "feature_dimension": 7}))
    with pytest.raises(DataError, match="features of dimension 7, these have"):
        SemanticProbe.load(tmp_path / "semantics", features)
    card.write_text("{}")
    with pytest.raises(DataError, match="holds no probe"):
        SemanticProbe.load(tmp_path / "semantics", features)


def few_codes() -> CodeSettings:
    """Codes that are learned in a second."""
    settings: CodeSettings = default_settings("codes", "depthg", dimension=8, steps=40, batch_size=4)
    return dataclasses.replace(
        settings,
        refit_vectors=2000,
        refit_restarts=2,
        correspondence=dataclasses.replace(settings.correspondence, positions=5),
        selection=dataclasses.replace(
            settings.selection, held_out=0.3, checkpoints=2, n_vectors=500, restarts=1
        ),
    )


@pytest.fixture(scope="module")
def code_probe(features: EmbeddedFeatures) -> SemanticProbe:
    return fit_semantics(FRAMES, features, small_settings(method="codes"), seed=0, codes=few_codes())


def test_codes_are_compared_by_direction_and_kept_with_their_head(
    tmp_path: Path, features: EmbeddedFeatures, code_probe: SemanticProbe
) -> None:
    assert code_probe.centres.shape == (6, 8)
    torch.testing.assert_close(code_probe.centres.norm(dim=1), torch.ones(6))
    assert code_probe.card.mean_rows == sorted(code_probe.card.mean_rows)
    assert code_probe.card.training["curve"][-1]["step"] == 40
    settings = small_settings(method="codes", fusion=False)
    parts = (FRAMES[1].image, FRAMES[1].disparity, FOCAL_LENGTH, BASELINE, settings)
    prediction = code_probe.predict(*parts)
    torch.testing.assert_close(prediction.log_prob.exp().sum(0), torch.ones(HEIGHT, WIDTH))
    # With cells of two pixels a pixel is 3/4 of its own cell and 1/4 of the next one, both ways.
    codes = code_probe.describe_image(FRAMES[1].image, FRAMES[1].disparity, BASELINE)
    code = codes[0, :, 5, 9]
    down = code_probe.classifier.log_prob(codes, 2, 24, 48)[0]
    mixed = (9 * code + 3 * codes[0, :, 5, 10] + 3 * codes[0, :, 6, 9] + codes[0, :, 6, 10]) / 16
    torch.testing.assert_close(
        down[:, 11, 19], torch.log_softmax(2 * code_probe.centres @ (mixed / mixed.norm()), 0)
    )
    code_probe.save(tmp_path)
    loaded = SemanticProbe.load(tmp_path, features)
    assert torch.equal(loaded.predict(*parts).log_prob, prediction.log_prob)
    assert loaded.card == code_probe.card


def test_views_say_what_a_prediction_is_made_of(code_probe: SemanticProbe) -> None:
    crf = dataclasses.replace(default_settings("semantics").crf, iterations=3)
    settings = small_settings(method="codes", crf=crf)
    parts = (FRAMES[1].image, FRAMES[1].disparity, FOCAL_LENGTH, BASELINE)
    views = code_probe.views(*parts, settings)
    assert views.low is not None
    assert views.near_weight is not None
    mixed = views.near_weight * views.low + (1 - views.near_weight) * views.high
    torch.testing.assert_close(views.fused, mixed.log_softmax(0))
    assert views.refined is not None
    torch.testing.assert_close(views.refined.exp().sum(0), torch.ones(HEIGHT, WIDTH), atol=1e-4, rtol=0)
    assert torch.equal(code_probe.predict(*parts, settings).log_prob, views.refined)
    plain = code_probe.views(*parts, small_settings(method="codes", fusion=False))
    assert plain.low is None
    assert plain.refined is None
    assert plain.final is plain.high


def test_another_method_than_that_of_the_fit_is_refused(
    tmp_path: Path, features: EmbeddedFeatures, code_probe: SemanticProbe
) -> None:
    save_features(features, tmp_path / "features")
    code_probe.save(tmp_path / "semantics")
    labeller = SemanticLabeller(tmp_path / "features", tmp_path / "semantics", small_settings())
    with pytest.raises(ConfigError, match=r"semantics\.method is kmeans, but .* was fitted with codes"):
        _ = labeller.probe


class Louder(DenseFeatures):
    """The same features, some cells a hundred times as long."""

    kind = "louder"

    def __init__(self, quiet: EmbeddedFeatures) -> None:
        super().__init__()
        self.quiet = quiet
        self.stride, self.dimension, self.uses_position = quiet.stride, quiet.dimension, quiet.uses_position

    def encode(self, images: torch.Tensor) -> FeatureGrid:
        grid = self.quiet.encode(images)
        factors = torch.where(grid.tokens[:, :1] > 0, 100.0, 1.0)
        return dataclasses.replace(grid, tokens=grid.tokens * factors)

    def card(self) -> dict[str, object]:
        return {}


def test_unit_features_are_clustered_by_direction_alone(features: EmbeddedFeatures) -> None:
    settings = small_settings(unit_features=True, geometry=False)
    parts = (FRAMES[1].image, FRAMES[1].disparity, FOCAL_LENGTH, BASELINE)
    plain, louder = (
        fit_semantics(FRAMES, kind, settings, seed=0).predict(*parts, settings)
        for kind in (features, Louder(features))
    )
    torch.testing.assert_close(plain.log_prob, louder.log_prob, atol=1e-3, rtol=1e-3)
    lengths = (
        fit_semantics(FRAMES, features, settings, seed=0).describe_image(*parts[:2], BASELINE).norm(dim=1)
    )
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
