import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gestalt.config.presets import default_settings
from gestalt.data.ground_truth import find_ground_truth, read_ground_truth
from gestalt.data.images import read_image, read_png
from gestalt.data.manifest import build_manifest
from gestalt.scenes import write
from gestalt.scenes.write import render_batch

SETTINGS = default_settings("scenes", n_snippets=2, frames_per_snippet=3, height=48, width=96, exact_frames=3)


class Backwards(Executor):
    """Runs the last item first, in this thread."""

    def map(self, fn: Any, *iterables: Any, timeout: Any = None, chunksize: int = 1) -> Iterator[Any]:
        items = list(zip(*iterables))
        done = {item: fn(*item) for item in reversed(items)}
        return iter([done[item] for item in items])


def two_threads() -> Executor:
    return ThreadPoolExecutor(2)


def render(folder: Path, open_executor: Callable[[], Executor] = two_threads) -> dict[str, Any]:
    return render_batch(
        5,
        "town",
        SETTINGS,
        video_dir=folder / "raw/town",
        truth_dir=folder / "truth/town",
        work_dir=folder / "cache",
        open_executor=open_executor,
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for part in ("raw", "truth") for path in (folder / part).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delivered")
    counts = render(folder)
    assert counts["n_frames"] == 6
    return folder


def test_bytes_do_not_depend_on_the_order_of_the_workers(delivered: Path, tmp_path: Path) -> None:
    render(tmp_path, Backwards)
    assert contents(tmp_path) == contents(delivered)


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    delivered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[int] = []
    whole = write.render_snippet

    def stop_at_one(batch: Any, index: int, folder: Path) -> Any:
        rendered.append(index)
        if index == 1 and len(rendered) < 3:
            raise KeyboardInterrupt
        return whole(batch, index, folder)

    monkeypatch.setattr(write, "render_snippet", stop_at_one)
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path, lambda: ThreadPoolExecutor(1))
    assert not (tmp_path / "raw/town").exists()
    assert not (tmp_path / "truth/town").exists()
    render(tmp_path, lambda: ThreadPoolExecutor(1))
    assert rendered == [0, 1, 1]
    assert contents(tmp_path) == contents(delivered)
    assert not (tmp_path / "cache").exists()


def test_a_run_killed_between_its_last_moves_goes_on_and_loses_nothing(
    delivered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, moved = Path.rename, list[str]()

    def killed_at_the_second(self: Path, target: Path) -> Path:
        if target.name == "town":
            moved.append(str(target))
            if len(moved) == 2:
                raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path)
    # DVC removes the outputs of a failed stage before it runs again.
    shutil.rmtree(tmp_path / "raw", ignore_errors=True)
    shutil.rmtree(tmp_path / "truth", ignore_errors=True)
    render(tmp_path)
    assert contents(tmp_path) == contents(delivered)


def test_the_video_folder_holds_no_truth_and_the_truth_folder_no_image(delivered: Path) -> None:
    video = {path.suffix for path in (delivered / "raw").rglob("*") if path.is_file()}
    assert video == {".png", ".json", ".yaml"}
    names = [path.name for path in (delivered / "raw").rglob("*.png")]
    assert all(name.endswith(("_leftImg8bit.png", "_rightImg8bit.png")) for name in names)
    truth = [path.name for path in (delivered / "truth").rglob("*") if path.is_file()]
    assert not any("Img8bit" in name for name in truth)
    assert "objects.parquet" in truth


def test_the_manifest_finds_every_pair_with_its_calibration(delivered: Path) -> None:
    table = build_manifest(delivered / "raw/town", "town", default_settings("manifest"))
    assert (table["status"] == "ok").all()
    assert table["frame_id"].tolist() == [f"town_{s:06d}_{f:06d}" for s in (0, 1) for f in (0, 1)]
    assert table["stereo_baseline"].tolist() == [0.5] * 4
    np.testing.assert_allclose(table["time_step_s"], 0.12, atol=1e-6)
    np.testing.assert_allclose(table["intrinsics"][0], [105.6, 0, 47.5, 0, 105.6, 19.66, 0, 0, 1])


def test_ground_truth_reads_back_in_every_label_space(delivered: Path) -> None:
    frames = find_ground_truth(delivered / "truth/town")
    assert [frame.frame_id for frame in frames] == [
        f"town_{s:06d}_{f:06d}" for s in (0, 1) for f in (0, 1, 2)
    ]
    for space in ("cityscapes27", "cityscapes19", "cityscapes7"):
        panoptic = read_ground_truth(frames[0], space, "cityscapes")
        assert panoptic.size == (48, 96)
        # Every class that is rendered exists in all three.
        assert panoptic.semantic_map.max() < 27
        assert panoptic.instance_map.max() > 2


def test_exact_geometry_is_stored_for_the_first_pairs_only(delivered: Path) -> None:
    stored = sorted((delivered / "truth/town/exact").glob("*.npz"))
    assert [path.stem for path in stored] == [
        "town_000000_000000",
        "town_000000_000001",
        "town_000001_000000",
    ]
    with np.load(stored[0]) as arrays:
        shapes = {name: (arrays[name].shape, arrays[name].dtype.name) for name in arrays}
        values = arrays["instance_values"]
    size = (48, 96)
    assert shapes.pop("depth") == (size, "float16")
    assert shapes.pop("instance_values") == (size, "int32")
    assert shapes.pop("optical_flow_forward") == ((2, *size), "float32")
    assert shapes.pop("optical_flow_backward") == ((2, *size), "float32")
    maps = ("disparity", "disparity_next", "disparity_next_warped", "disparity_right", "disparity_right_next")
    assert shapes == dict.fromkeys(maps, (size, "float32"))
    labels = delivered / "truth/town/gtFine/train/town"
    np.testing.assert_array_equal(values, read_png(labels / "town_000000_000000_gtFine_instanceIds.png"))


def test_the_object_table_agrees_with_the_annotations(delivered: Path) -> None:
    table = pd.read_parquet(delivered / "truth/town/objects.parquet")
    assert list(table.columns) == list(write.OBJECT_COLUMNS)
    labels = delivered / "truth/town/gtFine/train/town"
    for frame_id, rows in table.groupby("frame_id"):
        ids = read_png(labels / f"{frame_id}_gtFine_instanceIds.png")
        counted = dict(zip(*np.unique(ids[ids >= 1000], return_counts=True)))
        assert counted == dict(zip(rows["instance"], rows["n_pixels"]))


def test_images_are_neither_dark_nor_washed_out(delivered: Path) -> None:
    for path in sorted((delivered / "raw").rglob("*_leftImg8bit.png")):
        image = read_image(path)
        assert image.shape == (48, 96, 3)
        assert 50 < image.mean() < 200
        assert image.std() > 20
