"""A vision transformer as dense features: any size, padded batches, facets, saving."""

import json
from pathlib import Path

import pytest
import torch

from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.features import dense
from gestalt.features.dense import FeatureGrid, normalise, pad_to_cells, save_features
from gestalt.features.loading import load_features
from gestalt.features.vit import VitLayout
from gestalt.features.vit_features import VitFeatures, describe_vit

LAYOUT = VitLayout(patch_size=4, width=24, depth=2, heads=3, grid=5)


def features(facet: str = "tokens") -> VitFeatures:
    torch.manual_seed(0)
    made = VitFeatures(LAYOUT, facet).eval()
    for parameter in made.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    return made


def assert_same(one: FeatureGrid, other: FeatureGrid) -> None:
    for name in ("tokens", "keys", "cls", "cls_attention"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=2e-5, rtol=1e-5)
    assert torch.equal(one.valid, other.valid)


def test_the_network_sees_the_normalised_and_continued_image() -> None:
    made, images = features(), torch.rand(2, 3, 13, 18)
    grid = made.extract(images)
    expected = made.network(pad_to_cells(normalise(images), 4), attention=True)
    assert grid.tokens.shape == (2, 24, 4, 5)
    torch.testing.assert_close(grid.tokens, expected.tokens)
    torch.testing.assert_close(grid.keys, expected.keys)
    assert torch.equal(made(images), grid.tokens)
    assert bool(grid.valid.all())
    assert not grid.tokens.requires_grad


def test_white_black_and_mean_are_normalised_by_hand() -> None:
    image = torch.tensor([0.485, 1.0, 0.0])[None, :, None, None]
    found = normalise(image).flatten().tolist()
    assert found == pytest.approx([0.0, (1 - 0.456) / 0.224, -0.406 / 0.225])


def test_images_of_a_padded_batch_are_described_as_if_alone() -> None:
    made = features()
    sizes = torch.tensor([[13, 18], [4, 30], [20, 7]])
    images = torch.rand(3, 3, 20, 30)
    # What lies beyond an image is nobody's business, not even when it is no number.
    images[1, :, 4:] = float("nan")
    together = made.extract(images, sizes)
    for number, (height, width) in enumerate(sizes.tolist()):
        alone = made.extract(images[number : number + 1, :, :height, :width])
        rows, columns = alone.tokens.shape[2:]
        assert together.valid[number].sum() == rows * columns
        part = FeatureGrid(
            tokens=together.tokens[number : number + 1, :, :rows, :columns],
            valid=together.valid[number : number + 1, :rows, :columns],
            keys=together.keys[number : number + 1, :, :rows, :columns],
            cls=together.cls[number : number + 1],
            cls_attention=together.cls_attention[number : number + 1, :, :rows, :columns],
        )
        assert_same(part, alone)
    assert torch.isfinite(together.tokens).all()


def test_large_batches_are_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    made, images = features(), torch.rand(5, 3, 12, 16)
    sizes = torch.tensor([[12, 16], [8, 16], [12, 9], [5, 5], [12, 16]])
    whole, padded = made.extract(images), made.extract(images, sizes)
    counts = []
    made.network.register_forward_hook(lambda module, given, out: counts.append(len(given[0])))
    monkeypatch.setattr(dense, "PIXELS_AT_ONCE", 2 * 12 * 16)
    assert_same(made.extract(images), whole)
    assert_same(made.extract(images, sizes), padded)
    assert counts == [2, 2, 1, 2, 2, 1]


def test_the_facet_says_what_a_cell_is_described_by() -> None:
    images = torch.rand(1, 3, 12, 12)
    grid = features("keys").extract(images)
    assert torch.equal(grid.tokens, grid.keys)
    assert torch.equal(grid.keys, features("tokens").extract(images).keys)
    with pytest.raises(ConfigError, match=r"facet must be one of tokens, keys\. Got: 'queries'"):
        VitFeatures(LAYOUT, "queries")


def test_windows_may_be_encoded_as_images() -> None:
    assert not features().uses_position


def test_a_constant_image_is_described() -> None:
    grid = features().extract(torch.full((1, 3, 9, 9), 0.5))
    assert torch.isfinite(grid.tokens).all()
    assert grid.cls_attention is not None
    assert bool((grid.cls_attention.sum((2, 3)) < 1).all())


def test_wrong_images_are_refused() -> None:
    made = features()
    with pytest.raises(ShapeError, match=r"at least 4 x 4 px, a patch of these features\. Got: 3 x 40"):
        made(torch.rand(1, 3, 3, 40))
    broken = torch.rand(3, 3, 8, 8)
    broken[1, 0, 2, 2] = float("nan")
    with pytest.raises(DataError, match=r"NaN or infinity \(in the batch: \[1\]\)"):
        made(broken)
    for sizes in (torch.tensor([[8, 8]]), torch.rand(3, 2)):
        with pytest.raises(ShapeError, match=r"sizes must be \(3, 2\) int"):
            made.extract(torch.rand(3, 3, 8, 8), sizes)
    for size in ([9, 8], [2, 8]):
        with pytest.raises(ShapeError, match="between 4 px and the batch's"):
            made.extract(torch.rand(1, 3, 8, 8), torch.tensor([size]))


def test_saved_equals_loaded_and_half_the_bytes_stay_close(tmp_path: Path) -> None:
    made, images = features(), torch.rand(1, 3, 12, 16)
    save_features(made, tmp_path / "full", record={"recipe": "none", "seed": 3})
    save_features(made, tmp_path / "half", storage=torch.float16)
    loaded, half = load_features(tmp_path / "full"), load_features(tmp_path / "half")
    assert torch.equal(loaded(images), made(images))
    assert next(half.parameters()).dtype == torch.float32
    torch.testing.assert_close(half(images), made(images), atol=2e-2, rtol=2e-2)
    sizes = [(tmp_path / name / "weights.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.65 * sizes[0]
    card = json.loads((tmp_path / "full" / "card.json").read_text())
    assert (card["kind"], card["seed"], card["stride"], card["dimension"]) == ("vit", 3, 4, 24)
    assert card["layout"]["grid"] == 5


def test_a_loaded_folder_can_show_another_facet(tmp_path: Path) -> None:
    save_features(features(), tmp_path)
    images = torch.rand(1, 3, 12, 16)
    assert torch.equal(load_features(tmp_path, facet="keys")(images), features("keys")(images))
    with pytest.raises(ConfigError, match="facet must be one of"):
        load_features(tmp_path, facet="values")


def test_architectures_are_named_as_papers_do() -> None:
    assert describe_vit(VitLayout(8, 384, 12, 6)) == "ViT-S/8"
    assert describe_vit(VitLayout(16, 768, 12, 12)) == "ViT-B/16"
    assert describe_vit(VitLayout(8, 192, 6, 3)) == "ViT 192 wide, 6 deep, patch 8"
