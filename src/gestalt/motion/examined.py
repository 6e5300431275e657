"""A frame with everything that was made of it, and what there is to say about it in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gestalt.config.motion import MotionSettings
from gestalt.data.frames import StereoImages
from gestalt.matching.measurement import Measurement
from gestalt.motion.rigid_objects import NO_EGO_MOTION, NO_OBJECT, TOO_FEW_RELIABLE, RigidObjects


@dataclass(frozen=True, eq=False)
class Examined:
    """A frame with everything that was made of it.

    Attributes:
        frame_id: Which frame.
        images: Its pixels.
        measurement: Optical flow and disparities.
        found: Objects, and what led to them.
        settings: Section ``motion``.
    """

    frame_id: str
    images: StereoImages
    measurement: Measurement
    found: RigidObjects
    settings: MotionSettings


def why_no_run(examined: Examined) -> str:
    """Why a frame has no masks of runs and no deviations, for people."""
    return explain_reason(examined) or "this source of motion does without it"


def explain_reason(examined: Examined) -> str:
    """Why a frame has no proposals, with the numbers that decided it; empty where it has some."""
    found, settings = examined.found, examined.settings
    if found.reason == TOO_FEW_RELIABLE:
        return f"{found.reason}: {int(found.reliable.sum())}, at least {settings.reliability.min_reliable_px} needed"
    if found.reason == NO_EGO_MOTION:
        part = settings.monocular if settings.source == "monocular" else settings.clustering
        return (
            f"{found.reason}: one that explains {part.min_background_share:.0%} of the reliable "
            f"cells was found in fewer than {settings.ensemble.consistency_share:.0%} of the {settings.runs} runs"
        )
    if found.reason == NO_OBJECT and found.candidates is not None and len(found.candidates.run):
        return f"{found.reason}: every mask failed a test, see the verdicts above"
    return found.reason


def describe_outcome(examined: Examined) -> str:
    """How many proposals there are, or why none, in a few words."""
    found = examined.found
    n_found = len(found.proposals)
    return found.reason or f"{n_found} proposal{'s' if n_found != 1 else ''}"


def summarise(examined: Examined) -> str:
    """One line about the frame: size, who measured it, noise, and how the camera moved, as far as it is known."""
    found, (height, width) = examined.found, examined.images.left.shape[:2]
    parts = [f"{height} x {width} px", f"source {examined.settings.source}"]
    # What came with the data has no reverse direction.
    stored = examined.measurement.optical_flow_backward is None
    parts.append("no matcher: stored measurements" if stored else f"matcher {examined.settings.matcher}")
    noise = {
        "noise of optical flow across": found.noise.x,
        "down": found.noise.y,
        "of disparity": found.noise.disparity,
    }
    known = [f"{name} {value:.2f} px" for name, value in noise.items() if not math.isnan(value)]
    if known:
        parts.append(", ".join(known))
    if found.ego_motion is not None:
        rotation, shift = found.ego_motion[:3, :3], found.ego_motion[:3, 3]
        turn = math.degrees(math.acos(float(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))
        forward = float((-rotation.T @ shift)[2])
        parts.append(
            f"the camera moves {np.linalg.norm(shift):.2f} m ({forward:.2f} m ahead) and turns {turn:.2f}°"
        )
    return "; ".join(parts)
