"""RAFT as a matcher: signs, what is computed once, and results that do not depend on what was kept."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from gestalt.config.matching import RaftSettings
from gestalt.config.motion import MotionSettings
from gestalt.config.presets import compose_params, default_settings
from gestalt.data.frames import StereoImages
from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.matching.matcher import check_matcher, open_matcher
from gestalt.matching.measurement import Measurement
from gestalt.matching.raft import Features, Raft
from gestalt.matching.raft_matcher import RaftMatcher, to_network
from gestalt.matching.raft_weights import save_network
from gestalt.runtime import choose_device
from tests.test_architecture import PACKAGE, files_of, imported_modules

CPU = torch.device("cpu")
PASSES = RaftSettings(
    weights="", flow_iterations=3, stereo_iterations=2, precision="auto", max_vertical_px=0.0
)


class ShiftSearch(nn.Module):
    """In place of a network: the whole-pixel shift of the whole image that fits best, and what was asked for."""

    REACH = 14

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[Tensor] = []
        self.passes: list[tuple[int, int]] = []

    def encode(self, images: Tensor) -> Features:
        self.encoded.append(images)
        return Features(images, images, images)

    def displace(self, first: Features, second: Features, iterations: int) -> Tensor:
        self.passes.append((len(first.matching), iterations))
        return torch.stack([self._shift(*pair) for pair in zip(first.matching, second.matching)])

    def _shift(self, first: Tensor, second: Tensor) -> Tensor:
        _, height, width = first.shape
        reach = self.REACH
        inner = first[:, reach:-reach, reach:-reach]

        def misfit(shift: tuple[int, int]) -> float:
            left, top = reach + shift[0], reach + shift[1]
            moved = second[:, top : top + height - 2 * reach, left : left + width - 2 * reach]
            return float((moved - inner).abs().mean())

        best = min(product(range(-reach, reach + 1), range(-4, 5)), key=misfit)
        return torch.tensor(best, dtype=torch.float32)[:, None, None].expand(2, height, width)


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    smooth = ndimage.gaussian_filter(noise, (1.2, 1.2, 0))
    return np.uint8(np.clip(128 + 220 * smooth / np.abs(smooth).max(), 0, 255))


def stereo(*images: np.ndarray | None) -> StereoImages:
    """Images in the order left, right, left at t+1, right at t+1."""
    assert images[0] is not None
    return StereoImages(*images, np.eye(3), 0.5, np.ones(images[0].shape[:2], bool))


def plane(*, disparity: int = 9, moved: int = 5, rows: int = 0) -> StereoImages:
    """A textured plane whose right view is ``disparity`` further left, and all of it ``moved`` right at t+1."""
    canvas = texture(84, 200)
    left, right = (canvas[8:72, start : start + 96] for start in (40, 40 + disparity))
    left_next = canvas[8:72, 40 - moved : 136 - moved]
    right_next = canvas[8 + rows : 72 + rows, 40 - moved + disparity : 136 - moved + disparity]
    return stereo(left, right, left_next, right_next)


def drive(n_frames: int, height: int = 70, width: int = 93) -> list[StereoImages]:
    """Consecutive frames: what is t+1 of one is t of the next."""
    views = [texture(height, width, seed) for seed in range(2 * n_frames + 2)]
    return [stereo(*views[2 * t : 2 * t + 4]) for t in range(n_frames)]


def small_raft() -> Raft:
    torch.manual_seed(8)
    return Raft("small")


def assert_same(one: Measurement, other: Measurement) -> None:
    for field in fields(Measurement):
        expected = getattr(other, field.name)
        if expected is None:
            assert getattr(one, field.name) is None
        else:
            assert np.array_equal(getattr(one, field.name), expected), field.name


def test_signs_of_optical_flow_and_of_both_disparities() -> None:
    found = RaftMatcher(ShiftSearch(), PASSES, CPU).measure(plane(disparity=9, moved=5))
    assert found.optical_flow_forward[:, 30, 40].tolist() == [5, 0]
    assert found.optical_flow_backward[:, 30, 40].tolist() == [-5, 0]
    for disparity in (
        found.disparity, found.disparity_right, found.disparity_next, found.disparity_right_next,
    ):  # fmt: skip
        assert disparity.shape == (64, 96)
        assert disparity.dtype == np.float32
        assert set(disparity.flatten().tolist()) == {9.0}


def test_swapped_views_have_no_disparity() -> None:
    images = plane()
    swapped = stereo(images.right, images.left, images.right_next, images.left_next)
    found = RaftMatcher(ShiftSearch(), PASSES, CPU).measure(swapped)
    assert found.disparity.max() == 0
    assert found.disparity_right is not None
    assert found.disparity_right.max() == 0


@pytest.mark.parametrize(("limit", "expected"), [(0.0, 9.0), (3.0, 9.0), (1.5, 0.0)])
def test_a_match_on_another_row_is_unknown(limit: float, expected: float) -> None:
    settings = dataclasses.replace(PASSES, max_vertical_px=limit)
    found = RaftMatcher(ShiftSearch(), settings, CPU).measure(plane(rows=2))
    assert set(found.disparity.flatten().tolist()) == {9.0}
    assert set(found.disparity_next.flatten().tolist()) == {expected}
    assert set(found.disparity_right_next.flatten().tolist()) == {expected}


def test_an_image_is_encoded_once_and_a_disparity_serves_two_frames() -> None:
    network = ShiftSearch()
    matcher = RaftMatcher(network, PASSES, CPU)
    frames = drive(3, 64, 72)
    matcher.measure(frames[0])
    assert len(network.encoded) == 4
    assert network.passes == [(2, 2), (2, 3), (2, 2)]
    for frame in frames[1:]:
        network.encoded.clear()
        network.passes.clear()
        matcher.measure(frame)
        assert len(network.encoded) == 2
        assert network.passes == [(2, 3), (2, 2)]
    matcher.measure(frames[2])
    assert len(network.encoded) == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_results_are_the_same_bits_whatever_was_kept(precision: str) -> None:
    settings = dataclasses.replace(PASSES, precision=precision)
    frames = drive(3)
    through = RaftMatcher(small_raft(), settings, CPU)
    in_order = [through.measure(frame) for frame in frames]
    backwards = RaftMatcher(small_raft(), settings, CPU)
    in_reverse = [backwards.measure(frame) for frame in reversed(frames)][::-1]
    alone = [RaftMatcher(small_raft(), settings, CPU).measure(frame) for frame in frames]
    for one, other, third in zip(in_order, in_reverse, alone):
        assert_same(one, other)
        assert_same(one, third)
    assert not np.array_equal(in_order[0].disparity, in_order[1].disparity)
    optical_flow = RaftMatcher(small_raft(), settings, CPU).optical_flow(frames[1].left, frames[1].left_next)
    assert np.array_equal(optical_flow[0], in_order[1].optical_flow_forward)
    assert np.array_equal(optical_flow[1], in_order[1].optical_flow_backward)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_on_a_gpu_too_results_are_the_same_bits_and_near_those_of_a_cpu(precision: str) -> None:
    settings = dataclasses.replace(PASSES, precision=precision)
    frames, device = drive(3), choose_device("auto")
    through = RaftMatcher(small_raft(), settings, device)
    in_order = [through.measure(frame) for frame in frames]
    alone = [RaftMatcher(small_raft(), settings, device).measure(frame) for frame in frames]
    for one, other in zip(in_order, alone):
        assert_same(one, other)
    exact = RaftMatcher(small_raft(), PASSES, CPU).measure(frames[0]).optical_flow_forward
    difference = np.abs(in_order[0].optical_flow_forward - exact).mean()
    assert difference < 0.1 * np.abs(exact).mean()


@torch.no_grad()
def test_a_measurement_is_that_of_six_separate_calls() -> None:
    network = small_raft().eval()
    frame = drive(1, 64, 80)[0]
    found = RaftMatcher(network, PASSES, CPU).measure(frame)
    left, right, left_next, right_next = (
        to_network(image, CPU) for image in (frame.left, frame.right, frame.left_next, frame.right_next)
    )

    def call(first: Tensor, second: Tensor, iterations: int) -> np.ndarray:
        return network(first, second, iterations)[-1][0].numpy()

    expected = {
        "optical_flow_forward": call(left, left_next, 3),
        "optical_flow_backward": call(left_next, left, 3),
        "disparity": np.maximum(-call(left, right, 2)[0], 0),
        "disparity_right": np.maximum(call(right, left, 2)[0], 0),
        "disparity_next": np.maximum(-call(left_next, right_next, 2)[0], 0),
        "disparity_right_next": np.maximum(call(right_next, left_next, 2)[0], 0),
    }
    for name, values in expected.items():
        assert np.abs(values).max() > 0.01, name
        assert np.abs(getattr(found, name) - values).max() < 1e-4, name


@pytest.mark.parametrize(("height", "width"), [(64, 72), (65, 79), (30, 50), (7, 200)])
def test_images_of_any_size_are_padded_by_repetition_and_cropped(height: int, width: int) -> None:
    image = texture(height, width)
    padded = to_network(image, CPU)
    assert padded.shape[2] % 8 == padded.shape[3] % 8 == 0
    assert min(padded.shape[2:]) >= 64
    rows = np.minimum(np.arange(padded.shape[2]), height - 1)
    columns = np.minimum(np.arange(padded.shape[3]), width - 1)
    expected = image[rows][:, columns].transpose(2, 0, 1) / np.float32(255)
    assert np.array_equal(padded[0].numpy(), expected)
    forward, backward = RaftMatcher(small_raft(), PASSES, CPU).optical_flow(image, image[:, ::-1])
    assert forward.shape == backward.shape == (2, height, width)
    assert forward.flags.c_contiguous


def test_what_is_not_finite_is_an_error_and_not_a_measurement() -> None:
    network = small_raft()
    with torch.no_grad():
        network.update_block.flow_head.conv2.bias.fill_(torch.inf)
    with pytest.raises(DataError, match=r"finite displacements. Got: \d+ of 16384"):
        RaftMatcher(network, PASSES, CPU).measure(drive(1, 64, 64)[0])


def test_pairs_that_do_not_belong_together_are_refused() -> None:
    matcher = RaftMatcher(small_raft(), PASSES, CPU)
    with pytest.raises(ShapeError, match=r"one size. Got: \(64, 64, 3\) and \(64, 72, 3\)"):
        matcher.optical_flow(texture(64, 64), texture(64, 72))
    with pytest.raises(DataError, match="both right images"):
        matcher.measure(stereo(texture(64, 64), texture(64, 64), texture(64, 64), None))


def raft_settings(settings: MotionSettings, weights: Path | str, **values: Any) -> MotionSettings:
    return dataclasses.replace(
        settings,
        matcher="raft",
        raft=dataclasses.replace(
            PASSES, weights=str(weights), flow_iterations=1, stereo_iterations=1, **values
        ),
    )


def test_the_matcher_of_the_settings_is_opened_once(settings: MotionSettings, tmp_path: Path) -> None:
    save_network(small_raft(), tmp_path, {})
    chosen = raft_settings(settings, tmp_path)
    matcher = open_matcher(chosen, "cpu")
    assert isinstance(matcher, RaftMatcher)
    assert open_matcher(chosen, "cpu") is matcher
    frame = drive(1, 64, 64)[0]
    assert_same(matcher.measure(frame), RaftMatcher(small_raft(), chosen.raft, CPU).measure(frame))


@pytest.mark.parametrize("missing", ["nowhere", "network.safetensors", "card.json"])
def test_missing_weights_are_told_with_the_key_and_the_ways_to_get_some(
    settings: MotionSettings, tmp_path: Path, missing: str
) -> None:
    folder = tmp_path / "weights"
    if missing != "nowhere":
        save_network(small_raft(), folder, {})
        (folder / missing).unlink()
    chosen = raft_settings(settings, folder)
    for attempt in (check_matcher, lambda chosen: open_matcher(chosen, "cpu")):
        with pytest.raises(ConfigError) as raised:
            attempt(chosen)
        message = str(raised.value)
        assert "motion.raft.weights must name a folder" in message
        assert f"Got: {folder} " in message
        assert ("does not exist" if missing == "nowhere" else f"which has no {missing}") in message
        assert "gestalt weights smurf FILE" in message
        assert "stage optical_flow" in message


def test_weights_are_checked_and_named_before_the_first_frame(
    settings: MotionSettings, tmp_path: Path
) -> None:
    names = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_network(Raft("small"), tmp_path, {})
        names.append(check_matcher(raft_settings(settings, tmp_path)))
    assert len(set(names)) == 2
    assert all(len(name) == 64 for name in names)
    (tmp_path / "network.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match="is not the file that"):
        check_matcher(raft_settings(settings, tmp_path))


def test_who_needs_no_weights_is_not_asked_for_some(settings: MotionSettings) -> None:
    assert settings.matcher == "classic"
    assert check_matcher(settings) == ""


def test_the_variant_smurf_is_the_paper_with_another_matcher() -> None:
    paper, smurf = default_settings("motion", "paper"), default_settings("motion", "smurf")
    assert smurf.matcher == "raft"
    assert smurf.raft.weights == "models/optical_flow/smurf"
    assert (smurf.raft.flow_iterations, smurf.raft.stereo_iterations) == (16, 16)
    same = dataclasses.replace(smurf, matcher=paper.matcher, raft=paper.raft)
    assert same == paper
    assert compose_params(["preset=cityscapes", "motion=smurf"]).motion == smurf


def test_training_machines_need_neither_video_nor_configuration() -> None:
    """They have torch, torchvision, NumPy and safetensors."""
    waiting = [PACKAGE / "matching" / f"{name}.py" for name in ("raft", "raft_weights", "raft_matcher")]
    seen: set[Path] = set()
    outside: set[str] = set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for name in imported_modules(path, types_too=False):
            files = files_of(name)
            # What `runtime` imports, it imports in functions that such a machine does not call.
            waiting += files - seen - {PACKAGE / "runtime.py"}
            outside |= set() if files else {name.split(".")[0]}
    assert PACKAGE / "data" / "atomic_files.py" in seen
    assert outside - set(sys.stdlib_module_names) == {"torch", "torchvision", "numpy", "safetensors"}
