"""Settings of the section ``tracks``: objects that keep their ids over the frames of a video."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import setting


@dataclass(frozen=True)
class TrackSettings:
    """Which objects of neighbouring frames are one."""

    min_iou: float = setting("objects with a smaller IoU of their masks are two objects", low=0, high=1)
    reach: float = setting(
        "where masks do not overlap, the same object is at most so many times its size (root of its pixels) from "
        "where it is expected; 0 links by overlap alone",
        low=0,
    )
    memory_frames: int = setting("an object may be hidden for this many frames and keeps its id", low=0)
