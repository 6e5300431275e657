"""The sheet of a frame: what is drawn, where, and what is said when something is missing."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from gestalt.config.motion import MotionSettings
from gestalt.config.presets import default_settings
from gestalt.data.images import write_png
from gestalt.data.records import StereoFrame
from gestalt.motion import panels
from gestalt.motion.examined import Examined, summarise
from gestalt.motion.noise import Noise
from gestalt.motion.page import MAX_DPI, PAGE_WIDTH, draw_page
from gestalt.motion.picture import compose_sheet, compose_strip, motion_sheet
from gestalt.motion.proposals import FrameProposer
from gestalt.motion.rigid_objects import NO_EGO_MOTION, NO_OBJECT, TOO_FEW_RELIABLE, RigidObjects
from tests.scene import render_scene

FRAMES = default_settings("frames", height=0, width=0)


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> StereoFrame:
    scene, folder = render_scene(), tmp_path_factory.mktemp("pair")
    paths = {name: folder / f"{name}.png" for name in ("left", "right", "left_next", "right_next")}
    for name, path in paths.items():
        write_png(path, getattr(scene, name))
    height, width = scene.left.shape[:2]
    return StereoFrame(
        "monday", "street", "street_07", **paths, height=height, width=width, intrinsics=scene.intrinsics,
        stereo_baseline=scene.stereo_baseline, time_step_s=0.1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def examined(frame: StereoFrame, settings: MotionSettings) -> Examined:
    return Examined(frame.frame_id, *FrameProposer(settings, FRAMES, 0).examine(frame), settings)


@pytest.fixture(scope="module")
def figure(examined: Examined) -> Figure:
    return compose_sheet(examined)


def texts(figure: Figure) -> list[str]:
    return [" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_text()]


def said(figure: Figure) -> str:
    return " | ".join(texts(figure))


def panel(figure: Figure, title: str) -> np.ndarray:
    """The pixels that the panel with this title shows."""
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(title)]
    return np.asarray(axes.images[0].get_array())


def ended_early(examined: Examined, reason: str, reliable: np.ndarray | None = None) -> Examined:
    shape = examined.found.instance_map.shape
    reliable = np.zeros(shape, np.bool_) if reliable is None else reliable
    nothing = RigidObjects(np.zeros(shape, np.uint16), [], reason, Noise(0.3, 0.3, 0.3), reliable)
    return dataclasses.replace(examined, found=nothing)


def test_the_scene_has_something_to_draw(examined: Examined) -> None:
    assert examined.found.proposals
    assert examined.found.candidates is not None


def test_the_sheet_shows_images_measurements_runs_and_results(examined: Examined, figure: Figure) -> None:
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    for start in (
        "left image, t", "left image, t+1", "right image, t", "right image, t+1", "optical flow", "disparity",
        "deviation", "reliable pixels", "agreed by the runs", "dropped by the ensemble", "objects that a run",
        "proposals", "the proposals", *(f"run {number}:" for number in range(1, examined.settings.runs + 1)),
    ):  # fmt: skip
        assert any(title.startswith(start) for title in titles), start
    np.testing.assert_array_equal(panel(figure, "left image, t+1"), examined.images.left_next)
    n_found = len(examined.found.proposals)
    assert f"street_07: {n_found} proposal{'s' if n_found > 1 else ''}" in texts(figure)


def test_scales_say_their_units(figure: Figure) -> None:
    assert any(re.fullmatch(r"rim: ≥ [\d.]+ px", text) for text in texts(figure))
    assert {"px", "std", "≥ 8"} <= set(texts(figure))


def test_proposals_stand_in_the_table_and_in_the_image(examined: Examined, figure: Figure) -> None:
    shown, plain = panel(figure, "proposals:"), examined.images.left
    for proposal in examined.found.proposals:
        assert f"{proposal.speed_m_s:.1f} m/s" in texts(figure)
        mask = examined.found.instance_map == proposal.instance
        assert (np.ptp(shown[mask].astype(int), axis=1) > 20).mean() > 0.9
    outside = shown[examined.found.instance_map == 0].astype(int)
    assert np.mean(np.ptp(outside, axis=1) == 0) > 0.9, "what is no proposal is grey"
    assert shown.shape == plain.shape


def test_what_is_not_reliable_is_red(examined: Examined, figure: Figure) -> None:
    shown = panel(figure, "reliable").astype(int)
    redder = shown[..., 0] - shown[..., 2]
    assert (redder[~examined.found.reliable] > 30).all()
    assert (redder[examined.found.reliable] == 0).all()


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (TOO_FEW_RELIABLE, "too few reliable pixels: 0, at least 512 needed"),
        (
            NO_EGO_MOTION,
            "ego-motion not found: one that explains 20% of the reliable cells was found in fewer",
        ),
    ],
)
def test_a_frame_that_ended_early_says_why_in_every_empty_panel(
    examined: Examined, reason: str, words: str
) -> None:
    figure = compose_sheet(ended_early(examined, reason))
    assert sum(words in text for text in texts(figure)) == 4, "deviation, runs, objects and proposals"
    assert f"street_07: {reason}" in said(figure)
    assert draw_page(figure).ndim == 3


def test_a_failed_run_says_so(examined: Examined) -> None:
    shares = np.full(examined.settings.runs, 0.9, np.float32)
    shares[2] = 0.11
    found = dataclasses.replace(examined.found, ego_shares=shares)
    text = said(compose_sheet(dataclasses.replace(examined, found=found)))
    assert "run 3: failed" in text
    assert "its ego-motion explains 11% of the cells, 20% needed" in text


def test_masks_that_all_failed_are_told_apart_from_no_mask(examined: Examined) -> None:
    found = dataclasses.replace(
        examined.found,
        proposals=[],
        reason=NO_OBJECT,
        instance_map=np.zeros_like(examined.found.instance_map),
    )
    assert "every mask failed a test" in said(compose_sheet(dataclasses.replace(examined, found=found)))


def test_stored_measurements_take_the_place_of_right_images(examined: Examined) -> None:
    images = dataclasses.replace(examined.images, right=None, right_next=None)
    text = said(compose_sheet(dataclasses.replace(examined, images=images)))
    assert text.count("not needed: optical flow and disparity came with the frame") == 2


def test_one_camera_has_no_disparity_and_no_metres(examined: Examined) -> None:
    measurement = dataclasses.replace(
        examined.measurement, disparity=np.zeros_like(examined.measurement.disparity)
    )
    proposals = [
        dataclasses.replace(entry, surface_m2=np.nan, depth_m=np.nan, speed_m_s=np.nan)
        for entry in examined.found.proposals
    ]
    found = dataclasses.replace(
        examined.found, proposals=proposals, ego_motion=None, noise=Noise(0.3, 0.4, np.nan)
    )
    images = dataclasses.replace(examined.images, right=None, right_next=None)
    changed = dataclasses.replace(examined, measurement=measurement, found=found, images=images)
    text = said(compose_sheet(changed))
    assert text.count("there is one camera, or only one is used") == 3, "two images and the disparity"
    assert "nan" not in text
    assert "noise of optical flow across 0.30 px, down 0.40 px" in text
    assert texts(compose_sheet(changed)).count("–") == 3 * len(proposals)


def test_unknown_disparity_and_optical_flow_are_black(examined: Examined) -> None:
    optical_flow = examined.measurement.optical_flow_forward.copy()
    optical_flow[:, :4] = np.nan
    disparity = examined.measurement.disparity.copy()
    disparity[:4] = 0
    measurement = dataclasses.replace(
        examined.measurement, optical_flow_forward=optical_flow, disparity=disparity
    )
    figure = compose_sheet(dataclasses.replace(examined, measurement=measurement))
    assert not panel(figure, "optical flow")[:4].any()
    assert not panel(figure, "disparity")[:4].any()


def test_text_grows_with_the_resolution(examined: Examined) -> None:
    small = draw_page(compose_strip(examined))
    doubled = dataclasses.replace(
        examined.images,
        left=examined.images.left.repeat(4, 0).repeat(4, 1),
        left_next=examined.images.left_next.repeat(4, 0).repeat(4, 1),
    )
    found = ended_early(examined, NO_OBJECT, np.ones(doubled.left.shape[:2], np.bool_)).found
    found = dataclasses.replace(found, instance_map=np.zeros(doubled.left.shape[:2], np.uint16))
    large = draw_page(compose_strip(dataclasses.replace(examined, images=doubled, found=found)))
    assert large.shape[1] == PAGE_WIDTH * MAX_DPI
    assert small.shape[1] < large.shape[1]


def test_the_summary_says_how_the_camera_moved(examined: Examined) -> None:
    ego_motion = np.eye(4, dtype=np.float32)
    ego_motion[2, 3] = -1.5
    found = dataclasses.replace(examined.found, ego_motion=ego_motion)
    summary = summarise(dataclasses.replace(examined, found=found))
    assert "the camera moves 1.50 m (1.50 m ahead) and turns 0.00°" in summary
    assert "matcher classic" in summary


def test_equal_frames_give_equal_pixels(frame: StereoFrame, examined: Examined, figure: Figure) -> None:
    sheet = motion_sheet(frame, FRAMES, examined.settings, 0)
    assert sheet.dtype == np.uint8
    np.testing.assert_array_equal(sheet, draw_page(figure))


def test_drawing_is_not_loaded_with_the_room() -> None:
    for path in Path(panels.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "matplotlib" not in ast.unparse(node), path.name
