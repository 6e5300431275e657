"""One module per data set: ``find_pairs`` for its stereo video, ``find_truth`` for its ground truth.

An adapter knows folders, names and calibration files, and looks at no pixel of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gestalt.data.adapters import (
    bdd,
    bdd_scalabel,
    cityscapes,
    cityscapes_panoptic,
    coco_panoptic,
    folder,
    kitti_odometry,
    kitti_panoptic,
    kitti_raw,
    kitti_scene_flow,
    kitti_step,
    mots,
    mots_text,
    muses,
    waymo,
)
from gestalt.data.records import BrokenFrame, GroundTruthFrame, StereoPair
from gestalt.errors import ConfigError

FindPairs = Callable[[Path, Mapping[str, Any]], Iterator[StereoPair | BrokenFrame]]
FindTruth = Callable[[Path, Mapping[str, Any]], Iterator[GroundTruthFrame]]

VIDEO_ADAPTERS: dict[str, FindPairs] = {
    "cityscapes": cityscapes.find_pairs,
    "folder": folder.find_pairs,
    "kitti_odometry": kitti_odometry.find_pairs,
    "kitti_raw": kitti_raw.find_pairs,
    "kitti_scene_flow": kitti_scene_flow.find_pairs,
}
TRUTH_ADAPTERS: dict[str, FindTruth] = {
    "bdd": bdd.find_truth,
    "bdd_scalabel": bdd_scalabel.find_truth,
    "cityscapes": cityscapes.find_truth,
    "cityscapes_panoptic": cityscapes_panoptic.find_truth,
    "coco_panoptic": coco_panoptic.find_truth,
    "kitti_panoptic": kitti_panoptic.find_truth,
    "kitti_step": kitti_step.find_truth,
    "mots": mots.find_truth,
    "mots_text": mots_text.find_truth,
    "muses": muses.find_truth,
    "waymo": waymo.find_truth,
}


def video_adapter(name: str) -> FindPairs:
    """The ``find_pairs`` of an adapter.

    Raises:
        ConfigError: There is no such adapter for video.
    """
    if name not in VIDEO_ADAPTERS:
        raise ConfigError(f"adapter is {name!r}; known adapters of stereo video: {', '.join(VIDEO_ADAPTERS)}")
    return VIDEO_ADAPTERS[name]


def truth_adapter(name: str) -> FindTruth:
    """The ``find_truth`` of an adapter.

    Raises:
        ConfigError: There is no such adapter for ground truth.
    """
    if name not in TRUTH_ADAPTERS:
        raise ConfigError(f"adapter is {name!r}; known adapters of ground truth: {', '.join(TRUTH_ADAPTERS)}")
    return TRUTH_ADAPTERS[name]
