"""Objects of a video keep one id over its frames: masks that lie where one is expected belong together.

Post-processing of maps that were predicted frame by frame; nothing is learned and the network is not asked.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from gestalt.config.tracks import TrackSettings
from gestalt.errors import DataError
from gestalt.inference.predictor import PanopticPrediction
from gestalt.panoptic import PanopticMap, UInt16Array

# What an instance map can hold.
MAX_TRACKS = int(np.iinfo(np.uint16).max)

# Overlap with a mask seen one frame earlier counts this much less: where an object stands before another one, the
# visible one keeps its id.
FADING = 0.9

# Where masks do not touch, an object of less than this share of the other's pixels is another one.
MIN_AREA_RATIO = 0.5


@dataclass(frozen=True, eq=False)
class _Frame:
    """What was seen at one time.

    Attributes:
        number: Time, counted from 0.
        tracks: (N,) int64, tracks that were not seen later; ascending.
        track_map: (H, W) uint16, track of each pixel, 0 where none is.
    """

    number: int
    tracks: npt.NDArray[np.int64]
    track_map: UInt16Array


@dataclass(frozen=True, eq=False)
class _Seen:
    """The objects of the newest frame.

    Attributes:
        instances: (N,) int64, their ids in its map.
        classes: (N,) uint8.
        centres: (N, 2) float64, mean row and column of the mask, pixels.
        areas: (N,) int64, pixels.
    """

    instances: npt.NDArray[np.int64]
    classes: npt.NDArray[np.uint8]
    centres: npt.NDArray[np.float64]
    areas: npt.NDArray[np.int64]


@dataclass(eq=False)
class _Known:
    """What is known of each track so far; row 0 stands for no track.

    Attributes:
        classes: (N + 1,) uint8, class of the track.
        centres: (N + 1, 2) float64, mean row and column of its mask when it was seen last, pixels.
        velocities: (N + 1, 2) float64, pixels per frame between the last two times it was seen; 0 before.
        areas: (N + 1,) int64, pixels of its mask when it was seen last.
    """

    classes: npt.NDArray[np.uint8]
    centres: npt.NDArray[np.float64]
    velocities: npt.NDArray[np.float64]
    areas: npt.NDArray[np.int64]

    def grow(self, classes: npt.NDArray[np.uint8]) -> None:
        """Add tracks of these classes."""
        self.classes = np.concatenate([self.classes, classes])
        self.centres, self.velocities = (
            np.concatenate([values, np.zeros((len(classes), 2))])
            for values in (self.centres, self.velocities)
        )
        self.areas = np.concatenate([self.areas, np.zeros(len(classes), np.int64)])


class Tracker:
    """Links the instances of each frame with those of the frames before.

    A mask is expected where its track would be had it gone on as between the last two times it was seen. An instance
    continues a track of its class when its mask and the expected one overlap enough, each track at most once, so that
    the overlaps of all links together are largest. What overlaps with nothing, such as small objects and those whose
    speed is not known yet, continues a track of its class and about its size that is expected near it. Tracks that
    find no instance wait for some frames; all end where the size of the frames changes, or when told so. Numbers count
    from 1 and are never given twice. The memory is that of the last frames, however long the video.
    """

    def __init__(self, settings: TrackSettings) -> None:
        self._settings = settings
        self._frames: deque[_Frame] = deque(maxlen=settings.memory_frames + 1)
        self._known = _Known(np.zeros(1, np.uint8), np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1, np.int64))
        self._n_frames = 0

    @property
    def n_tracks(self) -> int:
        """Tracks so far; also the largest id."""
        return len(self._known.classes) - 1

    def end_tracks(self) -> None:
        """Let no track go on: the next frame is of another place or time."""
        self._frames.clear()

    def follow(self, prediction: PanopticPrediction) -> PanopticPrediction:
        """The same prediction with the ids of tracks as instance ids.

        Args:
            prediction: Of the next frame. Its instances may have any ids.

        Raises:
            DataError: There are more tracks than an instance map has ids.
        """
        table = self.link(prediction.panoptic)
        panoptic = replace(prediction.panoptic, instance_map=table[prediction.panoptic.instance_map])
        segments = [replace(entry, instance=int(table[entry.instance])) for entry in prediction.segments]
        return PanopticPrediction(panoptic, segments)

    def link(self, panoptic: PanopticMap) -> UInt16Array:
        """Take in the next frame.

        Args:
            panoptic: Map of the frame; stuff, and things without an instance, have no track.

        Returns:
            (M + 1,) uint16: track of each instance id of the map up to the largest, M; 0 for no instance.

        Raises:
            DataError: There are more tracks than an instance map has ids.
        """
        if self._frames and self._frames[0].track_map.shape != panoptic.size:
            self.end_tracks()
        rows, columns = np.nonzero(panoptic.instance_map)
        inside = panoptic.instance_map[rows, columns]
        areas = np.bincount(inside, minlength=1)
        instances = np.flatnonzero(areas)
        classes = np.zeros(len(areas), np.uint8)
        classes[inside] = panoptic.semantic_map[rows, columns]
        sums = np.stack([np.bincount(inside, places, len(areas)) for places in (rows, columns)], axis=1)

        centres = sums[instances] / areas[instances, None]
        seen = _Seen(instances, classes[instances], centres, areas[instances])
        chosen = self._choose_tracks(panoptic.instance_map, seen)
        table = np.zeros(len(areas), np.uint16)
        table[instances] = chosen
        self._learn(chosen, seen)
        self._remember(table[panoptic.instance_map], np.sort(chosen))
        return table

    def _choose_tracks(self, instance_map: UInt16Array, seen: _Seen) -> npt.NDArray[np.int64]:
        """(N,) int64, the track of each object; new ones are made."""
        waiting = [frame for frame in self._frames if len(frame.tracks)]
        chosen = np.zeros(len(seen.instances), np.int64)
        if waiting and len(chosen):
            tracks = np.concatenate([frame.tracks for frame in waiting])
            ages = np.concatenate(
                [np.full(len(frame.tracks), self._n_frames - frame.number) for frame in waiting]
            )
            is_same = seen.classes[:, None] == self._known.classes[tracks]
            ious = np.hstack(
                [
                    mask_ious(instance_map, seen.instances, self._expect(frame), frame.tracks)
                    for frame in waiting
                ]
            )
            overlaps = np.where(is_same & (ious >= self._settings.min_iou), ious * FADING ** (ages - 1), 0.0)
            _link(overlaps, tracks, chosen)
            if self._settings.reach:
                _link(np.where(is_same, self._nearness(seen, tracks, ages), 0.0), tracks, chosen)
        is_new, n_before = chosen == 0, self.n_tracks
        if n_before + is_new.sum() > MAX_TRACKS:
            raise DataError(
                f"a video can hold {MAX_TRACKS} tracks, and frame {self._n_frames} begins more; cut the video into "
                "parts, or raise predict.merge.score_threshold"
            )
        self._known.grow(seen.classes[is_new])
        chosen[is_new] = np.arange(n_before, self.n_tracks) + 1
        return chosen

    def _nearness(
        self, seen: _Seen, tracks: npt.NDArray[np.int64], ages: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """(N, M) float64: 1 where an object is where a track is expected, 0 where it is too far or of another size."""
        known = self._known
        expected = known.centres[tracks] + known.velocities[tracks] * ages[:, None]
        distances = np.linalg.norm(seen.centres[:, None] - expected, axis=-1)
        larger = np.maximum(seen.areas[:, None], known.areas[tracks])
        smaller = np.minimum(seen.areas[:, None], known.areas[tracks])
        nearness = np.maximum(1 - distances / (self._settings.reach * np.sqrt(larger)), 0.0)
        return np.where(smaller >= MIN_AREA_RATIO * larger, nearness, 0.0)

    def _expect(self, frame: _Frame) -> UInt16Array:
        """(H, W) uint16: where the waiting tracks of a frame would be by now."""
        is_waiting = np.zeros(self.n_tracks + 1, np.bool_)
        is_waiting[frame.tracks] = True
        rows, columns = np.nonzero(is_waiting[frame.track_map])
        tracks = frame.track_map[rows, columns]
        shifts = np.rint(self._known.velocities * (self._n_frames - frame.number)).astype(np.int64)
        rows, columns = rows + shifts[tracks, 0], columns + shifts[tracks, 1]
        height, width = frame.track_map.shape
        is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        expected = np.zeros_like(frame.track_map)
        expected[rows[is_inside], columns[is_inside]] = tracks[is_inside]
        return expected

    def _learn(self, tracks: npt.NDArray[np.int64], seen: _Seen) -> None:
        """Note where tracks are now, how large, and how they got there."""
        known = self._known
        for frame in self._frames:
            is_last, age = np.isin(tracks, frame.tracks), self._n_frames - frame.number
            again = tracks[is_last]
            known.velocities[again] = (seen.centres[is_last] - known.centres[again]) / age
        known.centres[tracks], known.areas[tracks] = seen.centres, seen.areas

    def _remember(self, track_map: UInt16Array, tracks: npt.NDArray[np.int64]) -> None:
        """Tracks that were seen again are known from now on by how they look now."""
        for position, frame in enumerate(self._frames):
            left = np.setdiff1d(frame.tracks, tracks, assume_unique=True)
            self._frames[position] = replace(frame, tracks=left)
        self._frames.append(_Frame(self._n_frames, tracks, track_map))
        self._n_frames += 1


def _link(
    likeness: npt.NDArray[np.float64], tracks: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]
) -> None:
    """Give objects without a track one of those that nobody has, so that all links together are likest.

    Args:
        likeness: (N, M), 0 where a link is not possible.
        tracks: (M,)
        chosen: (N,) track of each object, 0 for none; changed in place.
    """
    objects, places = np.flatnonzero(chosen == 0), np.flatnonzero(~np.isin(tracks, chosen))
    free = likeness[np.ix_(objects, places)]
    rows, columns = linear_sum_assignment(free, maximize=True)
    is_link = free[rows, columns] > 0
    chosen[objects[rows[is_link]]] = tracks[places[columns[is_link]]]


def mask_ious(
    first: UInt16Array,
    first_ids: npt.NDArray[np.int64],
    second: UInt16Array,
    second_ids: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Intersection over union of the masks of two maps, from one table of pairs of ids.

    Args:
        first: (H, W) uint16, 0 where no mask is.
        first_ids: (N,) int64, ids of the first map.
        second: (H, W) uint16, of the same size.
        second_ids: (M,) int64, ids of the second map.

    Returns:
        (N, M) float64 in [0, 1]; 0 for ids that their map does not hold.
    """
    n_first, n_second = len(first_ids), len(second_ids)
    is_both = (first > 0) & (second > 0)
    rows = _positions(first, first_ids)[first[is_both]]
    columns = _positions(second, second_ids)[second[is_both]]
    # Masks that nobody asked for are at position 0.
    pairs = np.bincount(rows * (n_second + 1) + columns, minlength=(n_first + 1) * (n_second + 1))
    intersections = pairs.reshape(n_first + 1, n_second + 1)[1:, 1:]
    unions = _areas(first, first_ids)[:, None] + _areas(second, second_ids) - intersections
    return np.asarray(intersections / np.maximum(unions, 1), np.float64)


def _areas(ids_map: UInt16Array, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(K,) int64: pixels of each id."""
    return np.bincount(ids_map.ravel(), minlength=int(ids.max(initial=0)) + 1)[ids]


def _positions(ids_map: UInt16Array, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(K,) int64: position in ``ids``, counted from 1, of each value that the map may hold."""
    table = np.zeros(max(int(ids_map.max(initial=0)), int(ids.max(initial=0))) + 1, np.int64)
    table[ids] = np.arange(1, len(ids) + 1)
    return table
