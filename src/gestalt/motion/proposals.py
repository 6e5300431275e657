"""One frame of a batch in, its proposals and disparity out: what the stage ``motion`` runs in every worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gestalt.config.frames import FrameSettings
from gestalt.config.motion import MotionSettings
from gestalt.data.frames import StereoImages, load_measurements, load_stereo
from gestalt.data.kitti_maps import pack_disparity
from gestalt.data.records import StereoFrame
from gestalt.data.sharded_run import FrameResult
from gestalt.errors import ConfigError
from gestalt.matching.matcher import open_matcher
from gestalt.matching.measurement import Measurement, take_stored
from gestalt.motion.geometry import Camera
from gestalt.motion.monocular import find_monocular_objects
from gestalt.motion.noise import Noise
from gestalt.motion.object_filters import MONOCULAR, STEREO
from gestalt.motion.rigid_objects import RigidObjects, find_rigid_objects
from gestalt.runtime import choose_device

# Names of the maps; every ok and empty frame has both.
PROPOSALS_MAP, DISPARITY_MAP = "proposals", "disparity"
# The value of ``motion.source`` beside the sources of proposals, and why its frames have none.
NONE = "none"
NOT_ASKED = "motion.source is none"


@dataclass(frozen=True)
class FrameProposer:
    """Propose the moving objects of a frame; picklable, equal results in every process.

    Attributes:
        motion: Section ``motion``.
        frames: Section ``frames``: size and valid region.
        seed: The experiment's seed.
        device: ``runtime.device``.
    """

    motion: MotionSettings
    frames: FrameSettings
    seed: int
    device: str = "cpu"

    def __call__(self, frame: StereoFrame) -> FrameResult:
        """Measure, cluster, draw.

        Returns:
            ``ok`` with proposals or ``empty`` with the reason; maps ``proposals`` (uint16, 0 = none) and
            ``disparity`` (uint16, px * 256, 0 = none; nowhere known with ``motion.source: monocular``).

        Raises:
            DataError: A file is missing or broken, or a measurement is not finite.
            ConfigError: ``motion.source: stereo`` and a frame of one camera, see ``check_frames``.
        """
        _, measurement, found = self.examine(frame)
        records = [{"frame_id": frame.frame_id, **proposal.record()} for proposal in found.proposals]
        counts = {
            "n_proposals": float(len(records)),
            "proposal_px": float((found.instance_map > 0).sum()),
            "reliable_share": float(found.reliable.mean()),
            "disparity_share": float((measurement.disparity > 0).mean()),
            "std_x_px": found.noise.x,
            "std_y_px": found.noise.y,
            "std_disparity_px": found.noise.disparity,
        }
        return FrameResult(
            frame.frame_id,
            "ok" if records else "empty",
            found.reason,
            {PROPOSALS_MAP: found.instance_map, DISPARITY_MAP: pack_disparity(measurement.disparity)},
            records,
            counts,
        )

    def examine(self, frame: StereoFrame) -> tuple[StereoImages, Measurement, RigidObjects]:
        """The same with everything in between, for pictures."""
        check_frames([frame], self.motion)
        images = load_stereo(frame, self.frames)
        measurement = self._measure(frame, images)
        if self.motion.source == NONE:
            return images, measurement, _nothing(measurement)
        camera = camera_of(images.intrinsics, images.stereo_baseline)
        if self.motion.source == MONOCULAR:
            found = find_monocular_objects(
                measurement.optical_flow_forward,
                measurement.optical_flow_backward,
                camera,
                self.motion,
                seed=self.seed,
                frame_id=frame.frame_id,
                valid=images.valid,
                images=(images.left, images.left_next),
                device=choose_device(self.device),
            )
            return images, measurement, found
        found = find_rigid_objects(
            measurement,
            camera,
            self.motion,
            seed=self.seed,
            frame_id=frame.frame_id,
            time_step_s=frame.time_step_s,
            valid=images.valid,
            images=_shown(images),
            device=choose_device(self.device),
        )
        return images, measurement, found

    def _measure(self, frame: StereoFrame, images: StereoImages) -> Measurement:
        """What the source of motion may know; no proposals still means depth, where there is any."""
        stored = load_measurements(frame, self.frames)
        if self.motion.source != MONOCULAR and not frame.is_monocular:
            if stored is not None:
                return take_stored(stored)
            return open_matcher(self.motion, self.device).measure(images)
        if stored is not None:
            known = take_stored(stored)
            return without_depth(known.optical_flow_forward, None)
        if self.motion.source == NONE:
            return without_depth(np.zeros((2, *images.left.shape[:2]), np.float32), None)
        return without_depth(
            *open_matcher(self.motion, self.device).optical_flow(images.left, images.left_next)
        )


def check_frames(frames: Sequence[StereoFrame], motion: MotionSettings) -> None:
    """Raise, before the first frame, when the source of motion needs a second camera that is not there.

    Raises:
        ConfigError: ``motion.source: stereo`` and frames without right images and stored measurements.
    """
    lacking = [frame for frame in frames if frame.is_monocular]
    if motion.source == STEREO and lacking:
        raise ConfigError(
            f"motion.source is stereo, but {len(lacking)} of {len(frames)} frames of the batch {lacking[0].batch} "
            f"come from one camera, the first is {lacking[0].frame_id}; set motion.source to monocular or none"
        )


def _shown(images: StereoImages) -> tuple[npt.NDArray[np.uint8], ...]:
    if images.right_next is None:
        return images.left, images.left_next
    right = () if images.right is None else (images.right,)
    return images.left, images.left_next, images.right_next, *right


def without_depth(forward: npt.NDArray[np.float32], backward: npt.NDArray[np.float32] | None) -> Measurement:
    """Optical flow of one camera, (2, H, W) float32, as a measurement that knows no disparity."""
    unknown = np.zeros(forward.shape[1:], np.float32)
    return Measurement(forward, backward, unknown, unknown)


def _nothing(measurement: Measurement) -> RigidObjects:
    """No objects, because nobody asked for any."""
    size = measurement.disparity.shape
    unknown = Noise(float("nan"), float("nan"), float("nan"))
    return RigidObjects(np.zeros(size, np.uint16), [], NOT_ASKED, unknown, np.zeros(size, np.bool_))


def camera_of(intrinsics: npt.NDArray[np.float64], stereo_baseline: float) -> Camera:
    """The camera of (3, 3) intrinsics, pixels, and a stereo baseline, metres."""
    return Camera(
        float(intrinsics[0, 0]),
        float(intrinsics[1, 1]),
        float(intrinsics[0, 2]),
        float(intrinsics[1, 2]),
        float(stereo_baseline),
    )
