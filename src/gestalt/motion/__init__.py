"""Motion: optical flow, disparity, rigid-motion clustering; stereo pairs in, moving-object proposals out."""

from gestalt.motion.picture import motion_sheet
from gestalt.motion.proposals import FrameProposer

__all__ = ["FrameProposer", "motion_sheet"]
