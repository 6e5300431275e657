"""Stored crops: which part of an image they are, their camera, their depth, and that they are made once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gestalt.config.codes import CodeCropSettings
from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.semantics.code_crops import CodeImage, crop_rectangles
from gestalt.semantics.feature_store import FeatureStore, load_store, open_store

CPU = torch.device("cpu")


class Colours(nn.Module):
    """Features that are the mean colour of each cell, and count how often they are asked."""

    def __init__(self, stride: int = 2, uses_position: bool = False) -> None:
        super().__init__()
        self.stride, self.dimension, self.uses_position = stride, 3, uses_position
        self.register_buffer("weights", torch.ones(1))
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        bottom, right = -images.shape[2] % self.stride, -images.shape[3] % self.stride
        padded = nn.functional.pad(images, (0, right, 0, bottom), mode="replicate")
        return nn.functional.avg_pool2d(padded, self.stride)


def item(seed: int = 0, height: int = 8, width: int = 12, **values: Any) -> CodeImage:
    draws = np.random.default_rng(seed)
    image = draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
    disparity = np.full((height, width), 4.0, np.float32)
    return CodeImage(
        **(
            {
                "frame_id": f"f{seed}",
                "image": image,
                "disparity": disparity,
                "focal_length": 10.0,
                "stereo_baseline": 0.5,
            }
            | values
        )
    )


def store_of(
    items: Sequence[CodeImage],
    folder: Path,
    features: nn.Module | None = None,
    ratio: float = 0.5,
    size: tuple[int, int] = (0, 0),
    mirrored: Sequence[int] = (),
    **options: Any,
) -> FeatureStore:
    settings = CodeCropSettings(ratio, *size)
    chosen: Any = features or Colours()
    return open_store(items, chosen, settings, mirrored=mirrored, folder=folder, device=CPU, **options)


def test_five_crops_are_the_corners_and_the_centre(tmp_path: Path) -> None:
    parts = [(part.top, part.left, part.height, part.width) for part in crop_rectangles(8, 12, 0.5)]
    assert parts == [(0, 0, 4, 6), (0, 6, 4, 6), (4, 0, 4, 6), (4, 6, 4, 6), (2, 3, 4, 6)]
    assert len(crop_rectangles(8, 12, 1.0)) == 1
    one = item()
    store = store_of([one], tmp_path)
    cells = torch.from_numpy(one.image).permute(2, 0, 1)[None].float() / 255
    for number, (top, left, height, width) in enumerate(parts):
        expected = nn.functional.avg_pool2d(cells[..., top : top + height, left : left + width], 2)
        torch.testing.assert_close(store.read(torch.tensor([number])), expected, atol=1e-3, rtol=1e-3)
    assert store.grid == (2, 3)


def test_features_that_see_the_position_are_cut_of_the_grid_of_the_whole_image(tmp_path: Path) -> None:
    class Rows(Colours):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            grid = super().forward(images)
            return grid * 0 + torch.arange(grid.shape[2])[:, None]

    store = store_of([item()], tmp_path, Rows(uses_position=True))
    rows = store.read(torch.arange(5))[:, 0, :, 0]
    assert rows.tolist() == [[0, 1], [0, 1], [2, 3], [2, 3], [1, 2]]
    alone = store_of([item()], tmp_path, Rows(uses_position=False))
    assert alone.read(torch.arange(5))[:, 0, :, 0].tolist() == [[0, 1]] * 5


def test_a_mirrored_twin_is_stored_in_the_order_of_the_plain_crop(tmp_path: Path) -> None:
    for uses_position in (False, True):
        store = store_of(
            [item(0), item(1)], tmp_path, Colours(uses_position=uses_position), ratio=1.0, mirrored=[1]
        )
        assert store.image.tolist() == [0, 1, 1]
        assert store.is_mirrored.tolist() == [False, False, True]
        torch.testing.assert_close(store.read(torch.tensor([1])), store.read(torch.tensor([2])))


def test_inverse_depth_is_a_mean_over_measured_pixels_of_cells_that_have_enough(tmp_path: Path) -> None:
    disparity = np.zeros((4, 4), np.float32)
    disparity[:2, :2] = [[10, 20], [0, 0.1]]
    disparity[2, 2] = 30
    store = store_of([item(height=4, width=4, disparity=disparity)], tmp_path, ratio=1.0)
    # Two of four pixels are measured, f b = 5; one of four is too few.
    assert store.read_nearness(torch.tensor([0]))[0].tolist() == [[3.0, 0.0], [0.0, 0.0]]


def test_a_crop_keeps_its_camera_through_cutting_and_scaling(tmp_path: Path) -> None:
    store = store_of([item(principal_point=(5.0, 4.0))], tmp_path, size=(8, 8))
    # 4 x 6 crops are doubled and cut to 8 x 8, the middle 4 x 4 pixels; a cell is one pixel.
    assert store.grid == (4, 4)
    assert store.focal.tolist() == [10.0] * 5
    assert store.centres[:2].tolist() == [[4.0, 4.0], [-2.0, 4.0]]
    assert store.rows[0].tolist() == [0.0, 0.5]
    plain = store_of([item(principal_point=(5.0, 4.0))], tmp_path)
    assert plain.focal.tolist() == [5.0] * 5
    # The centre of pixel 5 lies in the middle of cells 2 and 3, whose centres are at pixels 4.5 and 6.5.
    assert plain.centres[0].tolist() == pytest.approx([2.25, 1.75])


def test_scaling_smooths_unless_the_published_way_is_asked_for(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, ::2] = 255
    stripes = item(height=8, width=8, image=image, disparity=np.ones((8, 8), np.float32))
    smooth = store_of([stripes], tmp_path, Colours(1), ratio=1.0, size=(4, 4))
    hard = store_of([stripes], tmp_path, Colours(1), ratio=1.0, size=(4, 4), nearest=True)
    assert float(smooth.read(torch.tensor([0])).std()) < 0.1
    assert (hard.read(torch.tensor([0])) == 1).all()


def test_channels_follow_the_features(tmp_path: Path) -> None:
    channels = np.stack([np.full((8, 12), 0.25), np.arange(96).reshape(8, 12)]).astype(np.float32)
    store = store_of([item(channels=channels)], tmp_path)
    assert (store.dimension, store.n_geometry) == (5, 2)
    cells = store.read(torch.tensor([0]))[0, 3:]
    assert (cells[0] == 0.25).all()
    assert cells[1].tolist() == [[6.5, 8.5, 10.5], [30.5, 32.5, 34.5]]
    assert store.means.shape == (5, 5)


def test_features_are_computed_once_for_the_same_content(tmp_path: Path) -> None:
    features = Colours()
    first = store_of([item(0), item(1)], tmp_path, features)
    calls = features.calls
    again = store_of([item(0), item(1)], tmp_path, features)
    assert features.calls == calls
    assert np.array_equal(first.features, again.features)
    assert first.name == again.name
    assert isinstance(again.features, np.memmap)
    others = [
        store_of([item(0), item(2)], tmp_path, features),
        store_of([item(0), item(1)], tmp_path, features, ratio=1.0),
        store_of([item(0), item(1, focal_length=9.0)], tmp_path, features),
        store_of([item(0), item(1)], tmp_path, features, key={"batch": "monday"}),
    ]
    features.weights *= 2
    others.append(store_of([item(0), item(1)], tmp_path, features))
    assert len({store.name for store in (first, *others)}) == 6


def test_many_images_go_through_in_groups_and_in_order(tmp_path: Path) -> None:
    features = Colours()
    items = [item(seed) for seed in range(20)]
    store = store_of(items, tmp_path, features)
    assert store.image.tolist() == [number for number in range(20) for _ in range(5)]
    assert 1 < features.calls < 20
    last = store_of(items[-1:], tmp_path, features)
    assert np.array_equal(store.features[-5:], last.features)


def test_an_interrupted_store_is_made_again(tmp_path: Path) -> None:
    class Broken(Colours):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if self.calls:
                raise KeyboardInterrupt
            return super().forward(images)

    items = [item(seed) for seed in range(20)]
    with pytest.raises(KeyboardInterrupt):
        store_of(items, tmp_path, Broken())
    assert not list(tmp_path.glob("[!.]*"))
    store = store_of(items, tmp_path, Colours())
    assert len(store.features) == 100


def test_bad_input_is_named(tmp_path: Path) -> None:
    class NotANumber(Colours):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) * torch.nan

    with pytest.raises(DataError, match="at least one image"):
        store_of([], tmp_path)
    with pytest.raises(DataError, match=r"f0.*NaN"):
        store_of([item()], tmp_path, NotANumber())
    with pytest.raises(ShapeError, match=r"f0.*size of the image"):
        store_of([item(disparity=np.zeros((8, 11), np.float32))], tmp_path)
    with pytest.raises(ShapeError, match="uint8"):
        store_of([item(image=np.zeros((8, 12, 3), np.float32))], tmp_path)
    with pytest.raises(ShapeError, match=r"codes\.crops\.height"):
        store_of([item(0), item(1, height=10)], tmp_path)
    with pytest.raises(ConfigError, match="position"):
        store_of([item()], tmp_path, Colours(uses_position=True), size=(8, 8))
    with pytest.raises(ConfigError, match="both"):
        store_of([item()], tmp_path, size=(8, 0))


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    store = store_of([item()], tmp_path)
    folder = tmp_path / store.name
    (folder / "crops.npz").write_bytes(b"no")
    with pytest.raises(DataError, match="damaged"):
        load_store(folder)


def test_what_an_interrupted_deletion_leaves_is_no_store(tmp_path: Path) -> None:
    features = Colours()
    first = store_of([item(0)], tmp_path, features)
    folder = next(tmp_path.rglob("card.json")).parent
    (folder / "card.json").unlink()
    again = store_of([item(0)], tmp_path, features)
    assert again.name == first.name
    assert np.array_equal(again.features, first.features)
    assert (folder / "card.json").is_file()
