"""Labelling a batch: from shards of motion to shards of pseudo-labels, any pseudo-class maker, resumable."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from gestalt.config.frames import FrameSettings
from gestalt.config.pseudo_labels import ComponentSettings, PseudoLabelSettings
from gestalt.data.images import write_png
from gestalt.data.records import StereoFrame
from gestalt.data.sharded_run import FrameResult, run_sharded
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from gestalt.panoptic import PanopticMap
from gestalt.pseudo_labels.fuse import Statistics, count_frame
from gestalt.pseudo_labels.write import FrameLabeller, write_pseudo_labels

SIZE = (24, 40)
P = 4
FRAMES = FrameSettings(
    scale=1.0, height=0, width=0, valid_top_share=0.0, valid_bottom_share=0.0, valid_side_share=0.0
)
SETTINGS = PseudoLabelSettings(
    proposals="motion",
    border_px=2,
    min_area_px=6,
    components=ComponentSettings(
        enabled=False,
        min_area_px=6,
        max_area_share=0.2,
        min_surface_m2=0.0,
        max_surface_m2=1e6,
        min_box_fill=0.5,
    ),
)


@dataclass(frozen=True)
class ClassByBrightness:
    """Pseudo-class = red value; sure where there is disparity."""

    def __call__(self, image, disparity, focal_length, stereo_baseline):  # type: ignore[no-untyped-def]
        assert focal_length == 50.0
        assert stereo_baseline == 0.5
        return image[..., 0], (disparity > 0).astype(np.float32)


def image_of(number: int) -> np.ndarray:
    """Ground of class 0 with a block of class 3, whose lower half looks like class 1."""
    image = np.zeros((*SIZE, 3), np.uint8)
    image[5:13, 10 + number : 16 + number] = 3
    image[10:13, 10 + number : 16 + number] = 1
    return image


def proposals_of(number: int) -> np.ndarray:
    proposals = np.zeros(SIZE, np.uint16)
    if number != 2:
        proposals[5:13, 10 + number : 16 + number] = 700
        proposals[:, :2] = 5
    return proposals


@dataclass(frozen=True)
class StoredMotion:
    """Stand-in for the motion stage."""

    size: tuple[int, int] = SIZE

    def __call__(self, frame: StereoFrame) -> FrameResult:
        number = int(frame.frame_id[-1])
        disparity = np.full(self.size, 5 * 256, np.uint16)
        disparity[:, 20:] = 0
        maps = {"proposals": proposals_of(number)[: self.size[0]], "disparity": disparity}
        records = [
            {"frame_id": frame.frame_id, "instance": i, "consistency": i / 1000, "speed_m_s": float(i)}
            for i in np.unique(maps["proposals"]).tolist()
            if i
        ]
        return FrameResult(frame.frame_id, "ok" if records else "empty", "", maps, records, {})


def make_frames(folder: Path, n_frames: int = 5) -> list[StereoFrame]:
    frames = []
    intrinsics = np.array([[50.0, 0, 20], [0, 50, 12], [0, 0, 1]])
    for number in range(n_frames):
        path = folder / f"{number}.png"
        write_png(path, image_of(number))
        frames.append(
            StereoFrame("monday", "s", f"f{number}", path, path, path, path, *SIZE, intrinsics, 0.5, 0.1)
        )
    return frames


def write_motion(frames: list[StereoFrame], folder: Path, process: StoredMotion) -> Path:
    run_sharded(
        frames,
        process,
        out_dir=folder,
        cache_dir=folder.with_name(".cache"),
        key={},
        shard_size=2,
        open_executor=None,
        max_failed_share=0.0,
        label="motion",
    )
    return folder


def labeller(motion: Path, settings: PseudoLabelSettings = SETTINGS) -> FrameLabeller:
    return FrameLabeller(ClassByBrightness(), motion, motion, FRAMES, settings, P)


def label(frames: list[StereoFrame], process: FrameLabeller, out_dir: Path, **options: object) -> Statistics:
    settings = {"shard_size": 2, "open_executor": None, "max_failed_share": 0.0, "key": {}, **options}
    _, statistics = write_pseudo_labels(
        frames,
        process,
        out_dir=out_dir,
        cache_dir=out_dir.with_name(".labels"),
        label="labels",
        **settings,  # type: ignore[arg-type]
    )
    return statistics


@pytest.fixture
def frames(tmp_path: Path) -> list[StereoFrame]:
    return make_frames(tmp_path / "images")


@pytest.fixture
def motion(frames: list[StereoFrame], tmp_path: Path) -> Path:
    return write_motion(frames, tmp_path / "motion", StoredMotion())


def test_maps_hold_the_aligned_label(frames: list[StereoFrame], motion: Path, tmp_path: Path) -> None:
    label(frames, labeller(motion), tmp_path / "out")
    shards = ShardFolder(tmp_path / "out")
    expected = proposals_of(0) == 700
    assert np.array_equal(shards.read_map("f0", "instance"), expected.astype(np.uint16))
    assert np.array_equal(shards.read_map("f0", "semantic"), np.where(expected, 3, 0).astype(np.uint8))


def test_the_label_table_knows_proposals_and_depth(
    frames: list[StereoFrame], motion: Path, tmp_path: Path
) -> None:
    label(frames, labeller(motion), tmp_path / "out")
    table = ShardFolder(tmp_path / "out").records()
    row = table[(table["frame_id"] == "f0") & (table["instance"] == 1)].iloc[0]
    assert (row["pseudo_class"], row["area_px"], row["source"]) == (3, 48, "motion")
    assert (row["x0"], row["y0"], row["x1"], row["y1"]) == (10, 5, 16, 13)
    assert (row["consistency"], row["speed_m_s"]) == (0.7, 700.0)
    assert row["depth_median_m"] == pytest.approx(50.0 * 0.5 / 5)
    assert (row["valid_share"], row["confidence"]) == (1.0, 1.0)
    ground = table[(table["frame_id"] == "f0") & (table["instance"] == 0)].iloc[0]
    assert ground["source"] == "semantic"
    assert np.isnan(ground["consistency"])


def test_a_frame_without_an_instance_is_empty_with_its_reason_and_still_has_its_classes(
    frames: list[StereoFrame], motion: Path, tmp_path: Path
) -> None:
    label(frames, labeller(motion), tmp_path / "out")
    shards = ShardFolder(tmp_path / "out")
    rows = shards.frames().set_index("frame_id")
    assert (rows.loc["f2", "status"], rows.loc["f2", "reason"]) == ("empty", "no proposal")
    assert shards.read_map("f2", "semantic").max() == 3


def test_statistics_equal_a_recount_of_the_written_maps_and_add_over_parts(
    frames: list[StereoFrame], motion: Path, tmp_path: Path
) -> None:
    whole = label(frames, labeller(motion), tmp_path / "out")
    recount = Statistics(0, *(np.zeros(P, np.int64) for _ in range(3)))
    for _, maps in ShardFolder(tmp_path / "out").stream("semantic", "instance"):
        recount += count_frame(PanopticMap(maps["semantic"], maps["instance"]), P)
    parts = [
        label(part, labeller(motion), tmp_path / name)
        for part, name in ((frames[:3], "a"), (frames[3:], "b"))
    ]
    stored = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert whole.to_json() == recount.to_json() == (parts[0] + parts[1]).to_json() == stored
    assert whole.n_frames == 5
    assert whole.instances.tolist() == [0, 0, 0, 4]


def test_order_and_interruption_do_not_change_a_byte(
    frames: list[StereoFrame], motion: Path, tmp_path: Path
) -> None:
    label(frames, labeller(motion), tmp_path / "one")
    label(frames[::-1], labeller(motion), tmp_path / "other")
    for path in sorted((tmp_path / "one").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "other" / path.relative_to(tmp_path / "one")).read_bytes()


def test_components_need_no_proposals(frames: list[StereoFrame], motion: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, components=replace(SETTINGS.components, enabled=True))
    process = FrameLabeller(ClassByBrightness(), motion, Path("nowhere"), FRAMES, settings, P)
    statistics = label(frames, process, tmp_path / "out")
    table = ShardFolder(tmp_path / "out").records()
    instances = table[table["instance"] > 0]
    assert set(instances["source"]) == {"components"}
    assert set(instances["pseudo_class"]) == {1, 3}
    assert statistics.instances[0] == 0


def test_the_data_card_says_what_was_made(frames: list[StereoFrame], motion: Path, tmp_path: Path) -> None:
    label(frames, labeller(motion), tmp_path / "out")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["frames"] == {"ok": 4, "empty": 1, "failed": 0}
    assert card["size"] == list(SIZE)
    assert card["instances"] == 4
    assert sum(card["pixel_share"]) == pytest.approx(1, abs=1e-5)
    assert card["parameters"]["pseudo_labels"]["border_px"] == 2


def test_motion_of_another_size_is_a_failure_that_names_the_cause(
    frames: list[StereoFrame], tmp_path: Path
) -> None:
    motion = write_motion(frames, tmp_path / "motion", StoredMotion((12, 40)))
    with pytest.raises(DataError, match=r"one size. Got: \(12, 40\) and \(24, 40\)"):
        label(frames, labeller(motion), tmp_path / "out")


def test_a_frame_that_motion_does_not_know_fails_and_the_others_go_on(
    frames: list[StereoFrame], tmp_path: Path
) -> None:
    motion = write_motion(frames[:4], tmp_path / "motion", StoredMotion())
    statistics = label(frames, labeller(motion), tmp_path / "out", max_failed_share=0.5)
    rows = ShardFolder(tmp_path / "out").frames().set_index("frame_id")
    assert rows.loc["f4", "status"] == "failed"
    assert "f4" in rows.loc["f4", "reason"]
    assert statistics.n_frames == 4


def test_a_pseudo_class_of_another_probe_is_a_failure(
    frames: list[StereoFrame], motion: Path, tmp_path: Path
) -> None:
    process = replace(labeller(motion), n_pseudo_classes=3)
    with pytest.raises(DataError, match=r"must be 0..2 or 255"):
        label(frames, process, tmp_path / "out")
