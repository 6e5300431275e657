"""The interface of dense features, fitting, saving, loading."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gestalt.config.presets import default_settings
from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.features.dense import image_to_tensor, save_features
from gestalt.features.embedded import EmbeddedFeatures
from gestalt.features.fit import choose_evenly, fit_block_scales, fit_features
from gestalt.features.loading import load_features
from gestalt.runtime import numpy_generator


def images(count: int = 3, height: int = 40, width: int = 56) -> list[np.ndarray]:
    """Random colour patches with random texture."""
    generator = numpy_generator(0, "images")
    coarse = generator.integers(0, 200, (count, height // 8, width // 8, 3))
    smooth = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return list((smooth + generator.integers(0, 55, smooth.shape)).astype(np.uint8))


def small_settings(**values: object) -> object:
    settings = default_settings("features").dictionary
    return dataclasses.replace(settings, **{"n_patches": 2000, "n_filters": 16, "components": 5, **values})


@pytest.fixture(scope="module")
def features() -> EmbeddedFeatures:
    return fit_features(images(), small_settings(), seed=0)


def test_grid_has_a_cell_for_each_stride_in_any_size(features: EmbeddedFeatures) -> None:
    for height, width in ((32, 48), (33, 47), (5, 3), (1, 1)):
        grid = features(torch.rand(1, 3, height, width))
        assert grid.shape == (1, features.dimension, -(-height // 4), -(-width // 4))
        assert torch.isfinite(grid).all()


def test_a_batch_equals_its_images(features: EmbeddedFeatures) -> None:
    batch = torch.cat([image_to_tensor(image) for image in images()])
    single = torch.cat([features(image[None]) for image in batch])
    torch.testing.assert_close(features(batch), single, atol=1e-4, rtol=1e-4)


def test_blocks_have_the_lengths_that_the_settings_say(features: EmbeddedFeatures) -> None:
    settings = small_settings()
    vectors = torch.cat([features(image_to_tensor(image)).flatten(2) for image in images()], 2)[0].T
    blocks = vectors.split(features.block_sizes, 1)
    weights = (
        settings.dictionary_weight,
        settings.colour_weight,
        settings.texture_weight,
        settings.position_weight,
    )
    for block, weight in zip(blocks, weights):
        assert float(block.square().sum(1).mean().sqrt()) == pytest.approx(weight, rel=0.05)


def test_a_constant_image_gives_finite_features() -> None:
    constant = [np.full((24, 32, 3), 90, np.uint8)] * 2
    fitted = fit_features(constant, small_settings(n_patches=200), seed=0)
    assert torch.isfinite(fitted(image_to_tensor(constant[0]))).all()


def test_without_position_a_shift_of_the_image_shifts_the_grid() -> None:
    fitted = fit_features(images(), small_settings(position_weight=0.0), seed=0)
    assert not fitted.uses_position
    # Wide enough that blurs do not reach the border from the middle.
    wide = torch.from_numpy(np.concatenate(images(6, 104, 104), 1)).permute(2, 0, 1)[None].float() / 255
    grid, shifted = fitted(wide), fitted(wide[..., 8:])
    torch.testing.assert_close(grid[0, :, :, 60:80], shifted[0, :, :, 58:78], atol=2e-3, rtol=1e-3)


def test_fitting_twice_gives_equal_bytes(tmp_path: Path, features: EmbeddedFeatures) -> None:
    save_features(features, tmp_path / "a")
    save_features(fit_features(images(), small_settings(), seed=0), tmp_path / "b")
    for name in ("weights.safetensors", "card.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    other = fit_features(images(), small_settings(), seed=1)
    assert not torch.equal(other.filters, features.filters)


def test_saved_equals_loaded(tmp_path: Path, features: EmbeddedFeatures) -> None:
    save_features(features, tmp_path)
    loaded = load_features(tmp_path)
    image = torch.rand(1, 3, 21, 30)
    assert torch.equal(features(image), loaded(image))
    assert (loaded.dimension, loaded.stride, loaded.uses_position) == (features.dimension, 4, True)


def test_bad_folders_are_refused_with_the_command_that_helps(
    tmp_path: Path, features: EmbeddedFeatures
) -> None:
    with pytest.raises(DataError, match="dvc repro features"):
        load_features(tmp_path / "nothing")
    save_features(features, tmp_path)
    weights = tmp_path / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="dvc repro -f features"):
        load_features(tmp_path)
    weights.write_bytes(content)
    card = json.loads((tmp_path / "card.json").read_text())
    card["layout"]["n_filters"] = 7
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match="do not make 'embedded' features"):
        load_features(tmp_path)
    (tmp_path / "card.json").write_text('{"kind": "dino"}')
    with pytest.raises(DataError, match="kind is 'dino'; known kinds: embedded"):
        load_features(tmp_path)


def test_wrong_images_are_refused(features: EmbeddedFeatures) -> None:
    with pytest.raises(ShapeError, match=r"\(B, 3, H, W\)"):
        features(torch.rand(3, 8, 8))
    with pytest.raises(ShapeError, match="uint8 RGB"):
        image_to_tensor(np.zeros((4, 4, 3), np.float32))


def test_a_step_that_does_not_divide_the_stride_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"features.dictionary.patch_step must divide 4"):
        fit_features(images(), small_settings(patch_step=3), seed=0)


def test_a_channel_that_never_varies_gets_no_weight() -> None:
    raw = torch.stack([torch.arange(5.0), torch.full((5,), 2.0)], 1)
    mean, factor = fit_block_scales(raw, [2], [1.0])
    assert factor.tolist()[1] == 0
    assert torch.isfinite((raw - mean) * factor).all()


def test_chosen_items_span_the_whole_list() -> None:
    assert choose_evenly(range(5), 9) == [0, 1, 2, 3, 4]
    chosen = choose_evenly(range(100), 7)
    assert (chosen[0], chosen[-1], len(set(chosen))) == (0, 99, 7)


def test_images_of_a_padded_batch_are_described_as_if_alone(features: EmbeddedFeatures) -> None:
    padded, sizes = torch.rand(2, 3, 20, 33), torch.tensor([[20, 17], [7, 33]])
    together = features.extract(padded, sizes)
    assert together.tokens.shape == (2, features.dimension, 5, 9)
    for number, (height, width) in enumerate(sizes.tolist()):
        alone = features.extract(padded[number : number + 1, :, :height, :width])
        rows, columns = alone.tokens.shape[2:]
        assert torch.equal(together.tokens[number, :, :rows, :columns], alone.tokens[0])
        assert int(together.valid[number].sum()) == rows * columns
        assert not together.tokens[number, :, rows:].any()
    assert (together.keys, together.cls, together.cls_attention) == (None, None, None)


def test_the_tokens_of_a_grid_are_what_the_call_returns(features: EmbeddedFeatures) -> None:
    image = torch.rand(1, 3, 12, 18)
    grid = features.extract(image)
    assert torch.equal(grid.tokens, features(image))
    assert bool(grid.valid.all())


def test_images_that_are_no_numbers_are_refused(features: EmbeddedFeatures) -> None:
    broken = torch.rand(2, 3, 8, 8)
    broken[0, 1, 3, 3] = float("inf")
    with pytest.raises(DataError, match=r"NaN or infinity \(in the batch: \[0\]\)"):
        features(broken)
