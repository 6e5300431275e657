"""A sheet that shows one frame's motion from images to proposals, for people."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.config.frames import FrameSettings
from gestalt.config.motion import MotionSettings
from gestalt.data.records import StereoFrame
from gestalt.motion.proposals import FrameProposer
from gestalt.motion.rigid_objects import RigidObjects

UInt8Array = npt.NDArray[np.uint8]

# Residuals at and above this many standard deviations are drawn in the last colour.
RESIDUAL_LIMIT = 8.0
LABEL_HEIGHT_PX = 18
GOLDEN_TURN = 0.381966


def motion_sheet(frame: StereoFrame, frames: FrameSettings, motion: MotionSettings, seed: int) -> UInt8Array:
    """Everything the stage sees and makes of a frame.

    Args:
        frame: A row of a manifest.
        frames: Section ``frames``.
        motion: Section ``motion``.
        seed: The experiment's seed.

    Returns:
        (rows, columns, 3) uint8 RGB: images, optical flow (colour wheel) and disparity, then reliability,
        deviation from the ego-motion, masks of all runs and the proposals.
    """
    images, measurement, found = FrameProposer(motion, frames, seed).examine(frame)
    optical_flow = np.nan_to_num(measurement.optical_flow_forward)
    panels = [
        ("left t", images.left),
        ("left t+1", images.left_next),
        ("optical flow", colour_wheel(optical_flow)),
        ("disparity", _heat(measurement.disparity, measurement.disparity > 0, None)),
        ("reliable (O)", np.repeat(found.reliable[..., None].astype(np.uint8) * 255, 3, axis=2)),
        ("deviation from ego-motion", _residual_panel(found)),
        (f"masks of {motion.runs} runs", _votes_panel(found, motion.runs)),
        (f"proposals: {found.reason or len(found.proposals)}", overlay(images.left, found.instance_map)),
    ]
    drawn = [_label(np.ascontiguousarray(panel), title) for title, panel in panels]
    return np.vstack([np.hstack(drawn[:4]), np.hstack(drawn[4:])])


def colour_wheel(optical_flow: npt.NDArray[np.float32]) -> UInt8Array:
    """Optical flow as colour: hue is the direction, saturation the length against the frame's longest (99 %).

    Args:
        optical_flow: (2, H, W) float32, pixels.

    Returns:
        (H, W, 3) uint8 RGB; white where nothing moves.
    """
    x, y = optical_flow
    length = np.hypot(x, y)
    longest = max(float(np.percentile(length, 99)), 1e-6)
    hue = (np.arctan2(y, x) / (2 * np.pi) % 1) * 180
    hsv = np.stack([hue, np.clip(length / longest, 0, 1) * 255, np.full_like(hue, 255)], -1)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)


def overlay(image: UInt8Array, instance_map: npt.NDArray[np.uint16]) -> UInt8Array:
    """The image, dimmed, with every instance in a colour of its own and a light outline."""
    out = image.astype(np.float32) * 0.5
    ids = [int(i) for i in np.unique(instance_map) if i > 0]
    for number in ids:
        hue = np.array([[[int(number * GOLDEN_TURN % 1 * 180), 200, 255]]], np.uint8)
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
        mask = instance_map == number
        out[mask] = 0.5 * image[mask] + 0.5 * colour
        rim = mask & ~(cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
        out[rim] = colour
    return np.asarray(out, np.uint8)


def _heat(values: npt.NDArray[np.float32], known: npt.NDArray[np.bool_], limit: float | None) -> UInt8Array:
    top = limit or max(float(np.percentile(values[known], 99)) if known.any() else 1.0, 1e-6)
    level = np.where(known, np.clip(np.nan_to_num(values) / top, 0, 1) * 255, 0).astype(np.uint8)
    coloured = cv2.applyColorMap(level, cv2.COLORMAP_TURBO)[..., ::-1]
    return np.asarray(np.where(known[..., None], coloured, 0), np.uint8)


def _residual_panel(found: RigidObjects) -> UInt8Array:
    if found.ego_residual is None:
        return np.zeros((*found.instance_map.shape, 3), np.uint8)
    return _heat(found.ego_residual, np.isfinite(found.ego_residual), RESIDUAL_LIMIT)


def _votes_panel(found: RigidObjects, runs: int) -> UInt8Array:
    height, width = found.instance_map.shape
    if found.candidates is None or len(found.candidates.masks) == 0:
        return np.zeros((height, width, 3), np.uint8)
    votes = found.candidates.masks.float().sum(0).cpu().numpy()
    votes = cv2.resize(votes, (width, height), interpolation=cv2.INTER_NEAREST)
    return _heat(votes, votes > 0, float(runs))


def _label(panel: UInt8Array, title: str) -> UInt8Array:
    bar = np.zeros((LABEL_HEIGHT_PX, panel.shape[1], 3), np.uint8)
    cv2.putText(bar, title, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([bar, panel])
