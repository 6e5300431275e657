"""Do both images of a pair show one scene, left on the left, on the same rows? Corner matches tell."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.data.images import read_image
from gestalt.data.records import StereoPair

# Corners of the strongest contrast; more of them cost time and change no verdict.
N_CORNERS = 1000
# A match counts when the second-best is clearly worse (Lowe, IJCV 2004).
MAX_DISTANCE_RATIO = 0.75
# Nothing in a street is nearer than this share of the image's width in disparity.
MAX_DISPARITY_SHARE = 0.35
# Corners lie on whole pixels, so far points of a good pair may come out at -1.
NEGATIVE_DISPARITY_PX = -1.5
# Rows of a badly mounted camera pair differ by a few per cent of the height; more is a mismatch.
MAX_VERTICAL_SHARE = 0.15


@dataclass(frozen=True)
class StereoMatches:
    """Statistics of matched corners, in pixels of the images that were given.

    Attributes:
        n_matches: How many there are.
        vertical_offset_px: Median |y_left - y_right|.
        negative_share: Share with a clearly negative disparity x_left - x_right.
    """

    n_matches: int
    vertical_offset_px: float
    negative_share: float


def match_stereo(
    left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8], *, check_width: int
) -> StereoMatches:
    """Match corners of a stereo pair.

    Args:
        left: (H, W, 3) uint8 RGB.
        right: (H, W, 3) uint8 RGB.
        check_width: Wider images are shrunk to this width first.
    """
    shrink = min(1.0, check_width / left.shape[1])
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (left, right)]
    if shrink < 1:
        size = (check_width, max(1, round(left.shape[0] * shrink)))
        grey = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in grey]
    # One level: a rectified pair shows everything at one size.
    detector = cv2.ORB.create(nfeatures=N_CORNERS, nlevels=1, edgeThreshold=16, patchSize=31, fastThreshold=7)
    (points_left, codes_left), (points_right, codes_right) = (
        detector.detectAndCompute(image, None) for image in grey
    )
    if codes_left is None or codes_right is None or len(points_right) < 2:
        return StereoMatches(0, 0.0, 0.0)
    height, width = grey[0].shape
    offsets = []
    for candidates in cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(codes_left, codes_right, k=2):
        best, second = candidates
        if best.distance <= MAX_DISTANCE_RATIO * second.distance:
            from_left, from_right = points_left[best.queryIdx].pt, points_right[best.trainIdx].pt
            offsets.append((from_left[0] - from_right[0], from_left[1] - from_right[1]))
    found = np.array(offsets, np.float64).reshape(-1, 2)
    plausible = (np.abs(found[:, 0]) < MAX_DISPARITY_SHARE * width) & (
        np.abs(found[:, 1]) < MAX_VERTICAL_SHARE * height
    )
    found = found[plausible]
    if not len(found):
        return StereoMatches(0, 0.0, 0.0)
    return StereoMatches(
        n_matches=len(found),
        vertical_offset_px=float(np.median(np.abs(found[:, 1]))) / shrink,
        negative_share=float(np.mean(found[:, 0] < NEGATIVE_DISPARITY_PX)),
    )


def stereo_fault(
    pair: StereoPair,
    *,
    check_width: int,
    min_matches: int,
    max_vertical_offset_px: float,
    max_negative_share: float,
) -> str | None:
    """What is wrong with the images of a pair at t.

    Returns:
        An empty string when nothing is, a reason otherwise; None where the images give no verdict: no right
        image, or too few matches.

    Raises:
        DataError: An image cannot be decoded.
    """
    if pair.right is None:
        return None
    left, right = read_image(pair.left), read_image(pair.right)
    matches = match_stereo(left, right, check_width=check_width)
    if matches.n_matches < min_matches:
        return None
    if matches.negative_share > max_negative_share:
        return (
            f"left and right swapped: {matches.negative_share:.0%} of {matches.n_matches} matches between "
            f"{pair.left} and {pair.right} have negative disparity; exchange the two folders"
        )
    if matches.vertical_offset_px > max_vertical_offset_px:
        return (
            f"not rectified: matches between {pair.left} and {pair.right} differ by "
            f"{matches.vertical_offset_px:.1f} px in height (median), allowed are "
            f"{max_vertical_offset_px:g}; rectify the video first"
        )
    return ""
