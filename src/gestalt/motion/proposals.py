"""One frame of a batch in, its proposals and disparity out: what the stage ``motion`` runs in every worker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gestalt.config.frames import FrameSettings
from gestalt.config.motion import MotionSettings
from gestalt.data.frames import StereoImages, load_measurements, load_stereo
from gestalt.data.kitti_maps import pack_disparity
from gestalt.data.records import StereoFrame
from gestalt.data.sharded_run import FrameResult
from gestalt.matching.matcher import open_matcher
from gestalt.matching.measurement import Measurement, take_stored
from gestalt.motion.geometry import Camera
from gestalt.motion.rigid_objects import RigidObjects, find_rigid_objects
from gestalt.runtime import choose_device

# Names of the maps; every ok and empty frame has both.
PROPOSALS_MAP, DISPARITY_MAP = "proposals", "disparity"


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
            ``disparity`` (uint16, px * 256, 0 = none).

        Raises:
            DataError: A file is missing or broken, or a measurement is not finite.
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
        images = load_stereo(frame, self.frames)
        measurement = self._measure(frame, images)
        found = find_rigid_objects(
            measurement,
            camera_of(images.intrinsics, images.stereo_baseline),
            self.motion,
            seed=self.seed,
            frame_id=frame.frame_id,
            time_step_s=frame.time_step_s,
            valid=images.valid,
            images=(images.left, images.left_next),
            device=choose_device(self.device),
        )
        return images, measurement, found

    def _measure(self, frame: StereoFrame, images: StereoImages) -> Measurement:
        stored = load_measurements(frame, self.frames)
        if stored is not None:
            return take_stored(stored)
        return open_matcher(self.motion, self.device).measure(images)


def camera_of(intrinsics: npt.NDArray[np.float64], stereo_baseline: float) -> Camera:
    """The camera of (3, 3) intrinsics, pixels, and a stereo baseline, metres."""
    return Camera(
        float(intrinsics[0, 0]),
        float(intrinsics[1, 1]),
        float(intrinsics[0, 2]),
        float(intrinsics[1, 2]),
        float(stereo_baseline),
    )
