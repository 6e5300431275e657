import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gestalt.config.presets import default_settings
from gestalt.config.scenes import BenchmarkSceneSettings
from gestalt.data.ground_truth import dataset_of, find_ground_truth, read_ground_truth
from gestalt.data.images import read_image, read_png
from gestalt.data.label_spaces import raw_id_table
from gestalt.errors import ConfigError, DataError
from gestalt.panoptic import VOID
from gestalt.scenes import benchmark_formats
from gestalt.scenes.benchmark_formats import FORMATS, AnnotatedImage, render_benchmark
from gestalt.scenes.raw_ids import BDD_IDS, WAYMO_IDS, RawId

# A hand-made street: sky over road, one car, two people, a bicycle.
RAW = np.full((12, 16), int(RawId.ROAD), np.uint8)
RAW[:4] = RawId.SKY
INSTANCES = RAW.astype(np.int32)
for rows, columns, value in (
    (slice(4, 8), slice(1, 5), 26001),
    (slice(3, 9), slice(6, 8), 24000),
    (slice(3, 9), slice(9, 11), 24007),
    (slice(6, 9), slice(12, 15), 33000),
):
    INSTANCES[rows, columns] = value
    RAW[rows, columns] = value // 1000
IMAGE = AnnotatedImage(3, 0, np.full((12, 16, 3), 90, np.uint8), RAW, INSTANCES)


def settings(**values: object) -> BenchmarkSceneSettings:
    """Two tiny scenes of every set."""
    whole = default_settings("benchmark_scenes")
    small = {
        name: dataclasses.replace(getattr(whole, name), n_scenes=2, height=48, width=96) for name in FORMATS
    }
    return dataclasses.replace(whole, **small, **values)


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    for name in FORMATS:
        render_benchmark(
            7,
            name,
            settings(),
            folder=folder / name,
            work_dir=folder / "cache",
            open_executor=lambda: ThreadPoolExecutor(1),
        )
    return folder


@pytest.mark.parametrize("name", list(FORMATS))
def test_the_reader_of_the_benchmark_finds_images_and_truth(benchmarks: Path, name: str) -> None:
    frames = find_ground_truth(benchmarks / name)
    assert len(frames) == (8 if name == "mots" else 2)
    space = "mots2" if name == "mots" else "cityscapes19"
    for frame in frames:
        assert read_image(frame.image).shape == (48, 96, 3)
        panoptic = read_ground_truth(frame, space, dataset_of(benchmarks / name))
        assert panoptic.size == (48, 96)
        known = np.unique(panoptic.semantic_map)
        assert len(known) > 1 or name == "mots"
        raw = frame.read().semantic_map
        table = raw_id_table(dataset_of(benchmarks / name), space)
        unknown = np.isin(raw, np.nonzero(table == VOID)[0]).mean()
        # Only Waymo has ids outside the 19: its ground.
        assert unknown == 0 or (name == "waymo" and unknown < 0.3)


@pytest.mark.parametrize("name", ["cityscapes", "kitti", "bdd", "waymo"])
def test_a_hand_made_image_means_the_same_in_every_format(tmp_path: Path, name: str) -> None:
    FORMATS[name].write(IMAGE, tmp_path)
    (tmp_path / "source.yaml").write_text(f"adapter: {FORMATS[name].adapter}\nroot: '.'\n", encoding="utf-8")
    (frame,) = find_ground_truth(tmp_path)
    panoptic = read_ground_truth(frame, "cityscapes19", dataset_of(tmp_path))
    wanted = raw_id_table("cityscapes", "cityscapes19")[RAW]
    np.testing.assert_array_equal(panoptic.semantic_map, wanted)
    values = np.unique(INSTANCES[INSTANCES >= 1000])
    assert len(np.unique(panoptic.instance_map)) == len(values) + 1
    for value in values:
        assert len(np.unique(panoptic.instance_map[value == INSTANCES])) == 1


def test_bdd_bitmasks_give_stuff_its_category_as_instance(tmp_path: Path) -> None:
    FORMATS["bdd"].write(IMAGE, tmp_path)
    mask = read_png(next((tmp_path / "labels/pan_seg/bitmasks/val").glob("*.png")))
    assert mask.shape == (12, 16, 4)
    category, instance = mask[..., 0], mask[..., 2].astype(int) * 256 + mask[..., 3]
    stuff = INSTANCES < 1000
    np.testing.assert_array_equal(instance[stuff], category[stuff])
    assert instance[~stuff].min() > max(BDD_IDS.values())
    assert (mask[..., 1] == 0).all()


def test_mots_shows_pedestrians_only_and_they_keep_their_track(benchmarks: Path, tmp_path: Path) -> None:
    FORMATS["mots"].write(IMAGE, tmp_path)
    (path,) = (tmp_path / "instances").rglob("*.png")
    assert path.relative_to(tmp_path) == Path("instances/0004/000001.png")
    assert np.unique(read_png(path)).tolist() == [0, 2000, 2007]
    frames = sorted((benchmarks / "mots/instances").glob("*/*.png"))
    tracks = [set(np.unique(read_png(frame)).tolist()) for frame in frames[:2]]
    assert tracks[0] & tracks[1]


def test_ids_of_other_data_sets_mean_the_same_class() -> None:
    ours = raw_id_table("cityscapes", "cityscapes19")
    for dataset, ids in (("bdd", BDD_IDS), ("waymo", WAYMO_IDS)):
        theirs = raw_id_table(dataset, "cityscapes19")
        for raw_id, other in ids.items():
            if dataset == "waymo" and raw_id in (RawId.WALL, RawId.FENCE, RawId.TERRAIN):
                continue
            assert theirs[other] == ours[raw_id], (dataset, raw_id.name)


def test_every_set_has_worlds_of_its_own(benchmarks: Path) -> None:
    first = [read_image(find_ground_truth(benchmarks / name)[0].image).astype(int) for name in FORMATS]
    for number, image in enumerate(first):
        for other in first[number + 1 :]:
            assert np.abs(image - other).mean() > 8


def test_an_unknown_benchmark_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'muses'; known benchmarks: cityscapes, kitti, bdd, waymo, mots"):
        render_benchmark(
            0,
            "muses",
            settings(),
            folder=tmp_path / "muses",
            work_dir=tmp_path / "cache",
            open_executor=lambda: ThreadPoolExecutor(1),
        )


def test_an_image_that_no_jpeg_can_hold_is_reported(tmp_path: Path) -> None:
    wide = np.zeros((1, 70000, 3), np.uint8)
    with pytest.raises(DataError, match=r"JPEG encoding of .*wide.jpg failed .* \(1, 70000, 3\)"):
        benchmark_formats.write_jpeg(tmp_path / "wide.jpg", wide)
