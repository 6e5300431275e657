"""The training as a whole: the planted regions, exact resumption, selection, and what bad input says."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gestalt.config.codes import CodeSettings
from gestalt.config.presets import default_settings
from gestalt.data.training_state import STATE_FILE
from gestalt.errors import ConfigError, DataError
from gestalt.semantics import code_training
from gestalt.semantics.code_crops import CodeImage
from gestalt.semantics.code_training import (
    COLUMNS,
    TrainedCodes,
    comparison_steps,
    forget_codes,
    train_codes,
)

CPU = torch.device("cpu")
# Two features of orthogonal directions, and two that are noise.
DIRECTIONS = torch.eye(4)


class Planted(nn.Module):
    """Red cells have one direction as feature, blue ones an orthogonal one."""

    stride, dimension, uses_position = 2, 4, False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        colours = nn.functional.avg_pool2d(images, 2)
        red, blue = colours[:, 0], colours[:, 2]
        return torch.stack([red, blue, red * 0.02, blue * 0.02], 1)


def images(count: int = 6, height: int = 24, width: int = 32) -> list[CodeImage]:
    items = []
    for number in range(count):
        draws = np.random.default_rng(number)
        red = draws.random((height // 4, width // 4)).repeat(4, 0).repeat(4, 1) < 0.5
        image = np.zeros((height, width, 3), np.uint8)
        image[..., 0], image[..., 2] = 250 * red, 250 * ~red
        disparity = np.where(red, 8.0, 2.0).astype(np.float32)
        items.append(CodeImage(f"f{number}", image, disparity, 20.0, 0.5))
    return items


def settings(**values: Any) -> CodeSettings:
    """Small and short; fields of own sections as ``depth__weight``."""
    chosen = {
        "steps": 12,
        "batch_size": 4,
        "dimension": 6,
        "refit_vectors": 400,
        "refit_restarts": 2,
        "log_every": 2,
        "checkpoint_every": 4,
        "correspondence__positions": 4,
        "selection__checkpoints": 2,
        "selection__n_vectors": 100,
        "selection__restarts": 1,
        "selection__held_out": 0.2,
        "correspondence__auto_shifts": False,
        "correspondence__self_shift": 0.5,
        "correspondence__neighbour_shift": 0.5,
        "correspondence__random_shift": 0.5,
    } | values
    changed: CodeSettings = default_settings("codes", "stego")
    for name, value in chosen.items():
        *above, field = name.split("__")
        if above:
            value = dataclasses.replace(getattr(changed, above[0]), **{field: value})
        changed = dataclasses.replace(changed, **{above[0] if above else field: value})
    return changed


def train(folder: Path, seed: int = 0, items: list[CodeImage] | None = None, **values: Any) -> TrainedCodes:
    options = {
        name: values.pop(name) for name in ("max_seconds", "log", "key", "n_pseudo_classes") if name in values
    }
    features: Any = Planted()
    return train_codes(
        items or images(),
        features,
        settings(**values),
        seed=seed,
        device=CPU,
        cache_dir=folder,
        **({"n_pseudo_classes": 2} | options),
    )


def assert_equal(first: TrainedCodes, second: TrainedCodes) -> None:
    for name, value in first.head.state_dict().items():
        assert torch.equal(value, second.head.state_dict()[name]), name
    assert torch.equal(first.prototypes, second.prototypes)
    assert first.curve == second.curve
    assert first.record == second.record


@pytest.mark.parametrize("seed", [0, 1])
def test_codes_of_two_regions_of_orthogonal_features_are_told_apart(tmp_path: Path, seed: int) -> None:
    trained = train(
        tmp_path, seed, steps=200, learning_rate=0.005, dropout=0.0, batch_size=4, correspondence__positions=5
    )
    red, blue = (trained.head(direction.reshape(1, 4, 1, 1)).flatten() for direction in DIRECTIONS[:2])
    assert float(functional.cosine_similarity(red, blue, 0).detach()) < 0.1
    held_out = Planted()(torch.from_numpy(images()[3].image).permute(2, 0, 1)[None].float() / 255)
    codes = functional.normalize(trained.head(held_out), dim=1).detach()[0].flatten(1).T
    is_red = held_out[0, 0].flatten() > 0.5
    for region in (codes[is_red], codes[~is_red]):
        assert float((region @ region.T).min()) > 0.9
    labels = (codes @ trained.prototypes.T).argmax(1)
    assert len(labels[is_red].unique()) == len(labels[~is_red].unique()) == 1
    assert labels[is_red][0] != labels[~is_red][0]
    assert trained.record["checks"][-1]["stability"] == pytest.approx(1)


def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", depth__weight=0.1)
    taken = code_training.CodeTraining._take_step

    def stop_at_seven(self: Any, step: int, draw: Any) -> Any:
        if step == 7:
            raise KeyboardInterrupt
        return taken(self, step, draw)

    monkeypatch.setattr(code_training.CodeTraining, "_take_step", stop_at_seven)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", depth__weight=0.1)
    monkeypatch.undo()
    assert_equal(train(tmp_path / "parts", depth__weight=0.1), whole)


def test_without_time_it_stops_at_a_row_and_goes_on_from_there(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    part = train(tmp_path / "parts", max_seconds=1e-9)
    assert not part.is_finished
    assert part.record["n_steps"] == 2
    rest = train(tmp_path / "parts")
    assert rest.is_finished
    assert_equal(rest, whole)


def test_another_seed_or_setting_is_another_run(tmp_path: Path) -> None:
    first, second, third = train(tmp_path), train(tmp_path, 1), train(tmp_path, dropout=0.2)
    assert len({run.folder for run in (first, second, third)}) == 3
    assert not torch.equal(first.head.linear.weight, second.head.linear.weight)
    assert not torch.equal(first.head.linear.weight, third.head.linear.weight)


def test_other_code_is_another_run_and_nothing_stays_of_a_forgotten_one(tmp_path: Path) -> None:
    first, second = (train(tmp_path / "cache", key={"code": code}) for code in ("a", "b"))
    assert first.folder != second.folder
    forget_codes(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    forget_codes(tmp_path / "cache")


def test_what_ran_before_does_not_matter(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = train(tmp_path / "a")
    torch.manual_seed(2)
    assert_equal(train(tmp_path / "b"), first)


def test_the_curve_and_the_record_say_what_happened(tmp_path: Path) -> None:
    seen: list[int] = []
    trained = train(tmp_path, depth__weight=0.1, log=lambda step, losses: seen.append(step))
    assert [row["step"] for row in trained.curve] == [2, 4, 6, 8, 10, 12] == seen
    assert all(set(row) == set(COLUMNS) for row in trained.curve)
    record = trained.record
    assert [check["step"] for check in record["checks"]] == [6, 12]
    best = max(record["checks"], key=lambda check: check["stability"])
    assert record["selected_step"] == best["step"]
    assert record["prototypes"]["kept"] in ("trained", "refitted")
    kept = record["prototypes"][f"{record['prototypes']['kept']}_cosine"]
    assert kept == max(record["prototypes"]["trained_cosine"], record["prototypes"]["refitted_cosine"])
    assert sum(record["prototypes"]["shares"]) == pytest.approx(1, abs=1e-4)
    assert record["prototypes"]["mean_rows"] == sorted(record["prototypes"]["mean_rows"])
    torch.testing.assert_close(trained.prototypes.norm(dim=1), torch.ones(2))
    histograms = record["checks"][0]["histograms"]
    # 4 anchors, 16 x 16 pairs, 4 batches; 5 derangements of strangers.
    assert sum(histograms["self"]["codes"]) == 4 * 16 * 16 * 4
    assert sum(histograms["random"]["targets"]) == 5 * 4 * 16 * 16 * 4


def test_the_criterion_can_be_the_held_out_loss(tmp_path: Path) -> None:
    record = train(tmp_path, selection__criterion="loss", selection__checkpoints=4).record
    assert record["selected_step"] == min(record["checks"], key=lambda check: check["loss"])["step"]


def test_shifts_can_be_measured(tmp_path: Path) -> None:
    shares = {"correspondence__self_share": 0.1, "correspondence__random_share": 0.95}
    shifts = train(tmp_path, correspondence__auto_shifts=True, **shares).record["shifts"]
    # Half of all pairs are of one colour and half of two: feature correlations near 1 and near 0, between cells of
    # one colour mixed ones.
    assert shifts["random"] > 0.9
    assert shifts["self"] < 0.5


def test_farthest_points_and_geometry_channels_train_too(tmp_path: Path) -> None:
    items = [
        dataclasses.replace(item, channels=np.full((2, *item.disparity.shape), 0.5, np.float32))
        for item in images()
    ]
    trained = train(
        tmp_path, items=items, depth__sampling="farthest", depth__weight=0.1, correspondence__geometry=True
    )
    assert trained.head.inputs == 6
    assert trained.record["n_geometry"] == 2
    published = train(tmp_path, depth__sampling="farthest", depth__weight=0.1, depth__as_published=True)
    assert published.head.inputs == 4


def test_an_image_of_one_colour_is_harmless(tmp_path: Path) -> None:
    items = images()
    items[0] = dataclasses.replace(items[0], image=np.zeros_like(items[0].image))
    trained = train(tmp_path, items=items)
    assert all(np.isfinite(list(row.values())).all() for row in trained.curve)


def test_two_images_are_enough_and_one_is_not(tmp_path: Path) -> None:
    assert train(tmp_path, items=images(2), neighbours__same_image=True).is_finished
    with pytest.raises(DataError, match=r"at least two images.*Got: 1"):
        train(tmp_path, items=images(1))
    with pytest.raises(DataError, match=r"same_image=true"):
        train(tmp_path, items=images(2), neighbours__same_image=False)


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="vectors"):
        train(tmp_path, n_pseudo_classes=500)
    with pytest.raises(ConfigError, match=r"codes\.correspondence\.positions is 9.*6 x 8 cells"):
        train(tmp_path, correspondence__positions=9, depth__sampling="farthest")
    with pytest.raises(DataError, match=r"loss is not finite before step 2.*learning_rate"):
        train(tmp_path, learning_rate=1e30)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    folder = train(tmp_path).folder
    (folder / STATE_FILE).write_bytes(b"no state")
    with pytest.raises(DataError, match="damaged"):
        train(tmp_path)


def test_comparisons_are_spread_evenly_and_end_with_the_last_step() -> None:
    assert comparison_steps(100, 4) == [25, 50, 75, 100]
    assert comparison_steps(3, 7) == [1, 2, 3]


def test_training_needs_little_more_than_torch() -> None:
    script = (
        "import sys\n"
        "class Bare:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'cv2', 'omegaconf', 'pandas', 'pyarrow', 'safetensors', 'scipy', 'yaml'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Bare())\n"
        "import gestalt.semantics.code_training, gestalt.semantics.correlation_picture, gestalt.config.codes\n"
        "assert not {'torchvision', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
