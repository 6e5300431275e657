"""The benchmark of motion: its rules on masks made by hand, its streets, and what it prints."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import motion_quality
from benchmarks.motion_quality import (
    SETS,
    Judgement,
    Overlaps,
    Trial,
    describe_object,
    judge,
    main,
    measure,
    misses,
    motion_settings,
    over_seeds,
    quality,
    search,
)
from benchmarks.rendered_streets import Place, Street, cache_key, load_street, render_street
from gestalt.config.presets import default_settings
from gestalt.data.images import write_png
from gestalt.data.records import StereoFrame
from gestalt.errors import ConfigError, DataError
from gestalt.evaluation.instances import instance_quality
from gestalt.evaluation.intersections import intersect
from gestalt.motion.noise import Noise
from gestalt.motion.object_filters import STEREO, Proposal
from gestalt.motion.proposals import FrameProposer
from gestalt.motion.rigid_objects import RigidObjects
from gestalt.panoptic import PanopticMap

SIZE = (64, 128)
SMALL = default_settings("scenes", height=SIZE[0], width=SIZE[1], antialiasing="none")
PLACE = Place(5, "tiny", 0, SMALL)
ARGUMENTS = ["--height", "64", "--width", "128", "--workers", "1", "--set", "motion.runs=2"]


@pytest.fixture(scope="module")
def street() -> Street:
    """A made-up truth: 100 pixels (first), 20 (second) and 80 (third) of moving objects, 10 m away."""
    rendered = render_street(PLACE)
    values = np.full(SIZE, 7, np.int32)
    values[10:20, 10:20], values[30:34, 10:15], values[40:48, 50:60] = 26000, 24000, 26001
    focal = rendered.images.intrinsics[0, 0]
    exact = {
        **rendered.exact,
        "instance_values": values,
        "disparity": np.full(SIZE, focal * 0.5 / 10, np.float32),
    }
    return dataclasses.replace(
        rendered,
        exact=exact,
        moving=np.array([26000, 24000, 26001], np.int32),
        speed_m_s=np.array([3.0, 1.0, 2.0]),
        distance_m=np.full(3, 10.0),
    )


def found_with(instance_map: np.ndarray, ego_residual: np.ndarray | None) -> RigidObjects:
    proposals = [
        Proposal(number, STEREO, 1, 1.0, 8.0, 1.0, 12.5, 3.5, 0, 0, 1, 1)
        for number in range(1, int(instance_map.max()) + 1)
    ]
    known = np.isfinite(ego_residual) if ego_residual is not None else np.zeros(SIZE, np.bool_)
    return RigidObjects(instance_map, proposals, "", Noise(1.0, 1.0, 1.0), known, ego_residual=ego_residual)


@pytest.fixture(scope="module")
def judged(street: Street) -> Judgement:
    instance_map = np.zeros(SIZE, np.uint16)
    instance_map[10:20, 10:18] = 1  # 80 of the first's 100: hit
    instance_map[30:34, 10:16] = 2  # 20 of 24 are the second, which is too small: ignored
    instance_map[40:44, 50:60] = 3  # 40 of the third's 80: an IoU of exactly one half is no hit
    instance_map[55:60, 100:120] = 4  # nothing there
    residual = np.zeros(SIZE, np.float32)
    residual[10:20, 10:20] = np.arange(10)
    residual[40:48, 50:60] = np.nan
    residual[40:48, 50:54] = 6.0
    return judge("made_up", street, found_with(instance_map, residual))


def test_objects_are_described_by_hand(street: Street, judged: Judgement) -> None:
    first, second, third = judged.objects
    assert [item.area_px for item in judged.objects] == [100, 20, 80]
    # A pixel at 10 m covers (10 m / f)^2 of what faces the camera.
    assert first.surface_m2 == pytest.approx(100 * (10 / street.images.intrinsics[0, 0]) ** 2, rel=1e-5)
    assert (first.measured_share, first.ego_residual) == (1.0, 4.5)
    assert (third.measured_share, third.ego_residual) == (0.4, 6.0)
    assert first.box == (10, 10, 20, 20)
    assert [item.iou for item in judged.objects] == pytest.approx([0.8, 20 / 24, 0.5])
    assert [item.is_counted for item in judged.objects] == [True, False, True]
    assert second.is_hit
    assert not third.is_hit
    # The first shows 0.5 m^2, the third is measured to 40 % only.
    assert [item.is_measurable for item in judged.objects] == [False, False, False]


def test_half_of_the_pixels_and_a_surface_make_an_object_measurable(street: Street) -> None:
    mask = street.exact["instance_values"] == 26000
    wide = np.zeros(SIZE, np.bool_)
    wide[10:30, 10:30] = True
    residual = np.zeros(SIZE, np.float32)
    half = residual.copy()
    half[10:20] = np.nan
    less = half.copy()
    less[25, 25] = np.nan
    row = lambda mask, known: describe_object("made_up", street, known, 0, mask, 0.0)  # noqa: E731
    assert not row(mask, residual).is_measurable
    assert row(wide, half).is_measurable
    assert not row(wide, less).is_measurable
    assert row(wide, None).is_measurable, "without an ego-motion nothing excuses the method"


def test_masks_are_right_wrong_or_ignored(judged: Judgement) -> None:
    moving = quality([judged], "moving")
    assert (moving["n_objects"], moving["n_hits"], moving["n_masks"]) == (2, 1, 3)
    assert (moving["recall"], moving["mean_iou"]) == (0.5, 0.8)
    assert [mask.number for mask in judged.false_masks["moving"]] == [3, 4]
    assert [mask.covers for mask in judged.false_masks["moving"]] == [{26001: 40}, {7: 100}]
    # Where no object is to be found, masks on objects are ignored and only the one on nothing is wrong.
    assert [mask.number for mask in judged.false_masks["measurable"]] == [4]
    classes = moving["recall_by_size_px"]
    assert classes["64"] == {"recall": 0.5, "n_hits": 1, "n_objects": 2}
    assert classes["128"] == {"recall": None, "n_hits": 0, "n_objects": 0}


def test_missed_objects_and_false_masks_are_listed(judged: Judgement) -> None:
    listed = misses([judged])
    (missed,) = listed["missed"]
    assert (missed["value"], missed["iou"], missed["measured_share"]) == (26001, 0.5, 0.4)
    assert missed["box"] == (50, 40, 60, 48)
    assert missed["is_measurable"] is False
    assert [mask["is_wrong_among_measurable"] for mask in listed["false_masks"]] == [False, True]
    assert (listed["false_masks"][1]["area_px"], listed["false_masks"][1]["depth_m"]) == (100, 12.5)


@pytest.mark.parametrize("seed", range(4))
def test_where_every_object_counts_the_numbers_are_those_of_the_evaluation(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = np.zeros(SIZE, np.uint16)
    for number in range(1, 7):
        row, column = random.integers(0, (50, 110))
        truth[row : row + 14, column : column + 18] = number
    found = np.roll(truth, random.integers(-5, 6, 2), (0, 1))
    _, numbered = np.unique(np.where(random.random(SIZE) < 0.02, 0, found), return_inverse=True)
    found = numbered.reshape(SIZE).astype(np.uint16)
    masks = truth == np.unique(truth[truth > 0])[:, None, None]
    maps = [PanopticMap((ids > 0).astype(np.uint8), ids) for ids in (found, truth)]
    table = intersect("image", *maps)
    expected = instance_quality(table, table.true_class == 1)
    overlaps = Overlaps.of(found, masks)
    assert int((overlaps.iou > 0.5).sum()) == expected.n_hits
    assert int(found.max()) == expected.n_masks
    n_false = len(overlaps.false_masks(np.ones(len(masks), np.bool_)))
    assert n_false == expected.n_masks - expected.n_hits
    assert expected.n_objects == len(masks)


def test_no_mask_and_no_object_are_no_error(street: Street) -> None:
    empty = dataclasses.replace(
        street, moving=street.moving[:0], speed_m_s=street.speed_m_s[:0], distance_m=street.distance_m[:0]
    )
    nothing, one = np.zeros(SIZE, np.uint16), np.zeros(SIZE, np.uint16)
    one[:10, :10] = 1
    for here in (street, empty):
        for instance_map in (nothing, one):
            result = judge("made_up", here, found_with(instance_map, None))
            summary = quality([result], "moving")
            assert (summary["precision"], summary["recall"]) == (0.0, 0.0)
            assert summary["n_masks"] == int(instance_map.max())
            assert summary["n_objects"] == (2 if here is street else 0)


def test_spread_is_the_sample_deviation_over_seeds() -> None:
    def summary(value: float) -> dict[str, Any]:
        own = {"precision": value, "recall": value, "mean_iou": value}
        return {"moving": own, "measurable": own, "cpu_s_per_frame": value}

    assert over_seeds([summary(0.5), summary(0.7)])["moving"]["recall"] == {"mean": 0.6, "spread": 0.1414}
    assert over_seeds([summary(0.5)])["cpu_s_per_frame"] == {"mean": 0.5, "spread": None}


def test_a_street_from_the_cache_is_the_one_that_was_rendered(tmp_path: Path) -> None:
    rendered, again = load_street(PLACE, tmp_path), load_street(PLACE, tmp_path)
    (path,) = tmp_path.rglob("*.npz")
    assert path.parent.name == cache_key(SMALL)
    for name in ("left", "right", "left_next", "right_next", "intrinsics", "valid"):
        assert np.array_equal(getattr(rendered.images, name), getattr(again.images, name)), name
    assert rendered.images.stereo_baseline == again.images.stereo_baseline
    for name, array in rendered.exact.items():
        assert np.array_equal(array, again.exact[name], equal_nan=True), name
    for name in ("moving", "speed_m_s", "distance_m"):
        assert np.array_equal(getattr(rendered, name), getattr(again, name)), name
    assert cache_key(dataclasses.replace(SMALL, noise=0.1)) != cache_key(SMALL)
    path.write_bytes(b"half a file")
    with pytest.raises(DataError, match="no rendered street that can be read"):
        load_street(PLACE, tmp_path)


def test_exact_measurements_carry_the_left_image_to_the_next_disparity() -> None:
    street = render_street(PLACE)
    measured = street.measurement()
    sky = street.exact["disparity"] == 0
    assert not measured.disparity[sky].any()
    # What stands before a driving camera comes nearer: the point seen at t is nowhere farther at t+1.
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    x, y = (np.rint(grid + flow) for grid, flow in zip((columns, rows), measured.optical_flow_forward))
    inside = (x >= 0) & (x < SIZE[1]) & (y >= 0) & (y < SIZE[0]) & ~sky
    there = measured.disparity_next[y[inside].astype(int), x[inside].astype(int)]  # type: ignore[index]
    expected = street.exact["disparity_next_warped"][inside]
    assert np.median(np.abs(there - expected)) < 0.1


def test_settings_are_those_of_the_variant_with_what_was_set() -> None:
    motion = motion_settings("classic", "exact", ["motion.runs=3", "motion.clustering.grid_rows=40"], None)
    assert (motion.runs, motion.clustering.grid_rows, motion.matcher) == (3, 40, "classic")
    assert motion.static == default_settings("motion", "exact").static
    raft = motion_settings("raft", "embedded", [], Path("some/folder"))
    assert (raft.matcher, raft.raft.weights) == ("raft", "some/folder")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("exact", "exact", ["seed=1"], None), "--set takes keys of the section motion"),
        (("exact", "exact", ["motion.run=1"], None), "motion.run"),
        (("exact", "nowhere", [], None), "nowhere"),
        (("classic", "embedded", [], Path("folder")), "--weights needs --measurement raft"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        motion_settings(*arguments)


def test_a_street_is_measured_and_searched_as_the_stage_does(tmp_path: Path) -> None:
    place = Place(2, "town", 0, default_settings("scenes", antialiasing="none"))
    street, sides = render_street(place), ("left", "right", "left_next", "right_next")
    for side in sides:
        write_png(tmp_path / f"{side}.png", getattr(street.images, side))
    height, width = street.images.left.shape[:2]
    frame = StereoFrame(
        "town", "town", place.frame_id, **{side: tmp_path / f"{side}.png" for side in sides}, height=height,
        width=width, intrinsics=street.images.intrinsics, stereo_baseline=street.images.stereo_baseline,
        time_step_s=place.settings.time_step_s,
    )  # fmt: skip
    motion = default_settings("motion", runs=4)
    _, _, expected = FrameProposer(motion, default_settings("frames", height=0, width=0), 0).examine(frame)
    trial = Trial("classic", motion, "cpu", with_images=True, cache_dir=tmp_path)
    found = search(street, measure(street, trial), trial, place)
    assert found.proposals == expected.proposals != []
    assert np.array_equal(found.instance_map, expected.instance_map)


@pytest.mark.parametrize("measurement", ["exact", "classic"])
def test_one_json_object_is_printed(
    measurement: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motion_quality, "start", lambda: None)
    choice = ["--measurement", measurement, "--seeds", "5", "6", "--scenes", "1", "--misses"]
    main([*ARGUMENTS, *choice, "--cache", str(tmp_path)])
    report = json.loads(capsys.readouterr().out)
    assert (report["measurement"], report["n_frames"]) == (measurement, 2)
    assert report["motion"] == ("exact" if measurement == "exact" else "embedded")
    assert report["with_images"] is (measurement == "classic")
    assert list(report["seeds"]) == ["5", "6"]
    assert report["together"]["cpu_s_per_frame"] > 0
    for name in SETS:
        together = report["together"][name]
        assert together["n_objects"] == sum(own[name]["n_objects"] for own in report["seeds"].values())
        sizes = together["recall_by_size_px"]
        assert sum(own["n_objects"] for own in sizes.values()) == together["n_objects"]
        assert list(sizes) == ["64", "128", "256", "512", "1024", "4096"]
        assert all(int(low) < int(high) for low, high in pairwise(sizes))
    moving = report["together"]["moving"]
    assert len(report["missed"]) == moving["n_objects"] - moving["n_hits"]
    assert len(report["false_masks"]) == moving["n_masks"] - moving["n_hits"]
    assert len(list(tmp_path.rglob("*.npz"))) == 2


def test_missing_weights_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*ARGUMENTS, "--measurement", "raft", "--weights", str(tmp_path / "gone")])
    assert ended.value.code == 1
    assert "which does not exist" in capsys.readouterr().err
