"""Settings of the sections ``frames`` and ``manifest``: which part of which images is looked at."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import setting


@dataclass(frozen=True)
class FrameSettings:
    """Size of the images that labels are made at, and where motion may be trusted."""

    scale: float = setting("bilinear scale of stored images (Cityscapes 0.625, CUPS)", low=0.01, high=4)
    height: int = setting("rows after the centre crop or zero padding; 0 keeps what the scale gives", low=0)
    width: int = setting("columns after the centre crop or zero padding; 0 keeps what the scale gives", low=0)
    valid_top_share: float = setting("share of stored rows at the top without motion", low=0, high=0.5)
    valid_bottom_share: float = setting("share of rows at the bottom without motion: bonnet", low=0, high=0.5)
    valid_side_share: float = setting("share of columns at each side without motion", low=0, high=0.5)


@dataclass(frozen=True)
class ManifestSettings:
    """How closely video is checked before anything is computed from it."""

    verify_checksums: bool = setting("check every byte of every PNG, not only its size and its end")
    content_checks_per_sequence: int = setting(
        "pairs of each sequence whose left and right images are matched to find swaps and bad rectification",
        low=0,
    )
    check_width: int = setting("images wider than this are shrunk for the matching, pixels", low=64)
    min_matches: int = setting("fewer matches than this give no verdict", low=1)
    max_vertical_offset_px: float = setting(
        "a pair is not rectified when the median |dy| of its matches is larger, pixels at stored size", low=0
    )
    max_negative_share: float = setting(
        "left and right are swapped when a larger share of the matches has negative disparity", low=0, high=1
    )
    max_broken_share: float = setting("the stage fails when more of the pairs are broken", low=0, high=1)
