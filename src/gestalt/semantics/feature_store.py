"""Features of all training crops, computed once: the backbone is frozen, so no step has to run it again.

A folder of arrays that are mapped into memory, not read: training needs the memory of a batch, however many images.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gestalt.config.codes import CodeCropSettings
from gestalt.data.atomic_files import explain_full_disk, write_bytes
from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.runtime import progress
from gestalt.semantics.code_crops import CodeImage, Crop, crop_rectangles, cut_grids, cut_images

FEATURES, NEARNESS, CROPS, CARD = "features.npy", "nearness.npy", "crops.npz", "card.json"
# Crops that the backbone encodes at once, about.
ENCODED_AT_ONCE = 32
# A cell knows its depth when this share of its pixels does.
MIN_KNOWN_SHARE = 0.5
KEY_LENGTH = 16


class Backbone(Protocol):
    """What is asked of features: see ``gestalt.features.dense.DenseFeatures``."""

    stride: int
    dimension: int
    uses_position: bool

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] -> (B, D, h, w)."""

    def state_dict(self) -> dict[str, Any]:
        """The tensors, by name."""


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """Stored crops; mirrored twins of the held-out ones come last.

    Attributes:
        features: (n, D, h, w) float16, mapped from disk; geometry channels after those of the backbone.
        nearness: (n, h, w) float32, mapped, inverse depth of each cell, 1/m, 0 where it is unknown.
        means: (n, D) float32, mean feature of each crop.
        image: (n,) int64, number of the image each crop is of.
        is_mirrored: (n,) bool; cells of a mirrored crop are stored in the order of the plain one.
        focal: (n,) float32, focal length, cells.
        centres: (n, 2) float32, principal point (x, y), cells.
        rows: (n, 2) float32, first and last border of each crop, share of the image height.
        n_geometry: How many of the D channels are geometry.
        name: Stands for the content: features, images and crops.
    """

    features: NDArray[np.float16]
    nearness: NDArray[np.float32]
    means: NDArray[np.float32]
    image: NDArray[np.int64]
    is_mirrored: NDArray[np.bool_]
    focal: NDArray[np.float32]
    centres: NDArray[np.float32]
    rows: NDArray[np.float32]
    n_geometry: int
    name: str

    @property
    def dimension(self) -> int:
        """Channels of a cell, geometry included."""
        return int(self.features.shape[1])

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a crop, cells."""
        return int(self.features.shape[2]), int(self.features.shape[3])

    def read(self, crops: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """(B, D, h, w) float32, features of the crops with these numbers."""
        stored = torch.from_numpy(self.features[crops.cpu().numpy()])
        return stored.to(device, non_blocking=True).float()

    def read_nearness(self, crops: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """(B, h, w) float32, inverse depth, 1/m, 0 where it is unknown."""
        return torch.from_numpy(self.nearness[crops.cpu().numpy()]).to(device, non_blocking=True)


def open_store(
    items: Sequence[CodeImage],
    features: Backbone,
    settings: CodeCropSettings,
    *,
    mirrored: Sequence[int],
    folder: Path,
    device: torch.device,
    nearest: bool = False,
    key: Mapping[str, Any] | None = None,
) -> FeatureStore:
    """Features of the crops of all images, encoded now or found from an earlier call.

    Features that see the position in the image are computed of whole images, and their grids are cut; others
    are computed of crops, scaled to the size of the settings.

    Args:
        items: Images; a sequence that loads when asked keeps memory constant.
        features: Frozen backbone, on ``device``.
        settings: Which crops.
        mirrored: Numbers of images whose crops are stored mirrored too.
        folder: Gets a folder named by the content.
        device: Where the features run.
        nearest: Scale crops without smoothing, as DepthG's published code does.
        key: What else the features depend on, such as the version of the code.

    Raises:
        DataError: There is no image, features are not finite, or the disk is full.
        ShapeError: A disparity or channels of another size than the image, or crops of different sizes.
        ConfigError: Scaled crops of features that see the position.
    """
    if not items:
        raise DataError("codes need at least one image; are the fit_batches empty?")
    if features.uses_position and (settings.height or settings.width):
        raise ConfigError(
            "codes.crops.height and width scale crops, but the features see the row of the image, which a crop "
            "changes; set both to 0, or features.dictionary.position_weight to 0"
        )
    if bool(settings.height) != bool(settings.width):
        raise ConfigError(
            f"codes.crops.height and width are both given or both 0. Got: {settings.height}, {settings.width}"
        )
    content = {
        "features": _fingerprint(features),
        "images": _hash_images(items),
        "key": dict(key or {}),
        "crops": [settings.ratio, settings.height, settings.width, nearest],
        "mirrored": sorted(mirrored),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    target = folder / digest[:KEY_LENGTH]
    if not (target / CARD).is_file():
        _encode_all(items, features, settings, set(mirrored), target, device, nearest)
    return load_store(target)


def load_store(folder: Path) -> FeatureStore:
    """The store that ``open_store`` left in ``folder``.

    Raises:
        DataError: It is damaged.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        with np.load(folder / CROPS) as crops:
            columns = {name: crops[name] for name in crops.files}
        maps = [np.load(folder / name, mmap_mode="r") for name in (FEATURES, NEARNESS)]
        return FeatureStore(maps[0], maps[1], n_geometry=int(card["n_geometry"]), name=folder.name, **columns)
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        raise DataError(f"{folder} is damaged ({error}); delete it, and it is made again") from error


def forget_store(folder: Path) -> None:
    """Delete the stores below ``folder``, which ``open_store`` got."""
    for card in folder.glob(f"*/{CARD}"):
        # Without its card a folder counts as absent, should this be interrupted.
        card.unlink()
        shutil.rmtree(card.parent)


def _encode_all(
    items: Sequence[CodeImage],
    features: Backbone,
    settings: CodeCropSettings,
    mirrored: set[int],
    target: Path,
    device: torch.device,
    nearest: bool,
) -> None:
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    cut = cut_grids if features.uses_position else cut_images
    order = [(number, False) for number in range(len(items))]
    order += [(number, True) for number in sorted(mirrored)]
    per_image = 1 if settings.ratio == 1 else len(crop_rectangles(2, 2, 0.5))
    writer: _Writer | None = None
    n_geometry = 0
    with explain_full_disk(target):
        for group in _in_groups(progress(order, label="codes: features", unit="image"), per_image):
            crops = [
                crop
                for number, is_mirrored in group
                for crop in cut(items[number], number, is_mirrored, features.stride, settings, nearest)
            ]
            grids, nearness = _encode(crops, features, device)
            if writer is None:
                n_geometry = grids.shape[1] - features.dimension
                writer = _Writer(aside, len(order) * per_image, grids.shape[1:])
            writer.add(grids, nearness, [crop.columns for crop in crops], items[group[0][0]].frame_id)
        assert writer is not None
        writer.close()
    write_bytes(aside / CARD, json.dumps({"n_geometry": n_geometry}).encode())
    # What lies there without a card is left from a deletion that was interrupted.
    shutil.rmtree(target, ignore_errors=True)
    aside.replace(target)


class _Writer:
    """Fills the arrays of a store in order."""

    def __init__(self, folder: Path, count: int, shape: torch.Size) -> None:
        self._folder, self._done = folder, 0
        create: Callable[..., Any] = np.lib.format.open_memmap
        self._features = create(folder / FEATURES, "w+", np.float16, (count, *shape))
        self._nearness = create(folder / NEARNESS, "w+", np.float32, (count, *shape[1:]))
        self._means: list[NDArray[np.float32]] = []
        self._columns: list[dict[str, Any]] = []

    def add(self, grids: Tensor, nearness: Tensor, columns: list[dict[str, Any]], frame_id: str) -> None:
        """Append (B, D, h, w) grids, (B, h, w) inverse depths and their columns."""
        stored = grids.half()
        if not bool(torch.isfinite(stored).all()):
            raise DataError(
                f"features of {frame_id} or an image after it are NaN, infinite or beyond 65504: "
                "the features are broken, or not scaled"
            )
        if stored.shape[1:] != self._features.shape[1:]:
            raise ShapeError(
                f"crops must have one size, {tuple(self._features.shape[1:])}. Got: {tuple(stored.shape[1:])} of "
                f"{frame_id} or an image after it; set codes.crops.height and width"
            )
        places = slice(self._done, self._done + len(stored))
        self._features[places], self._nearness[places] = stored.cpu().numpy(), nearness.cpu().numpy()
        self._means.append(grids.mean((2, 3)).cpu().numpy())
        self._columns += columns
        self._done = places.stop

    def close(self) -> None:
        """Write what is small, and everything to the disk."""
        self._features.flush()
        self._nearness.flush()
        kinds: dict[str, Any] = {"image": np.int64, "is_mirrored": np.bool_}
        columns: dict[str, Any] = {
            name: np.array([row[name] for row in self._columns], kinds.get(name, np.float32))
            for name in self._columns[0]
        }
        np.savez(self._folder / CROPS, means=np.concatenate(self._means), **columns)


def _in_groups(order: Any, per_image: int) -> Iterator[list[tuple[int, bool]]]:
    group: list[tuple[int, bool]] = []
    for entry in order:
        group.append(entry)
        if len(group) * per_image >= ENCODED_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


@torch.no_grad()
def _encode(crops: list[Crop], features: Backbone, device: torch.device) -> tuple[Tensor, Tensor]:
    """Grids (B, D + C, h, w) and inverse depths (B, h, w); images of one size go through together."""
    if len({crop.image.shape for crop in crops}) > 1:
        sizes = sorted({tuple(crop.image.shape[1:]) for crop in crops})
        raise ShapeError(f"crops must have one size; set codes.crops.height and width. Got: {sizes}")
    # Crops that are cut of one grid share its image.
    distinct = list({id(crop.image): crop.image for crop in crops}.values())
    place = {id(image): number for number, image in enumerate(distinct)}
    grids = features(torch.stack(distinct).to(device))
    maps = _pool_cells(torch.stack([crop.maps for crop in crops]).to(device), features.stride)
    share = maps[:, 1]
    nearness = torch.where(share >= MIN_KNOWN_SHARE, maps[:, 0] / share.clamp(min=MIN_KNOWN_SHARE), 0.0)
    joined = []
    for number, crop in enumerate(crops):
        parts = [grids[place[id(crop.image)]], maps[number, 2:], nearness[number : number + 1]]
        if crop.columns["is_mirrored"]:
            parts[0] = parts[0].flip(-1)
        whole = torch.cat(parts)
        joined.append(whole if crop.rectangle is None else crop.rectangle.cut(whole))
    stacked = torch.stack(joined).float()
    return stacked[:, :-1], stacked[:, -1]


def _pool_cells(maps: Tensor, stride: int) -> Tensor:
    bottom, right = -maps.shape[-2] % stride, -maps.shape[-1] % stride
    return functional.avg_pool2d(functional.pad(maps, (0, right, 0, bottom), mode="replicate"), stride)


def _fingerprint(features: Backbone) -> str:
    outline = (type(features).__name__, features.stride, features.dimension, features.uses_position)
    digest = hashlib.sha256(str(outline).encode())
    for name, value in sorted(features.state_dict().items()):
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _hash_images(items: Sequence[CodeImage]) -> str:
    digest = hashlib.sha256()
    for item in progress(items, label="codes: fingerprint", unit="image"):
        camera = (item.focal_length, item.stereo_baseline, item.principal_point)
        digest.update(f"{item.image.shape} {camera} {item.channels is None}".encode())
        for part in (item.image, item.disparity, item.channels):
            if part is not None:
                digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
