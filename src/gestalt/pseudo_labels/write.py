"""Pseudo-labels of a whole batch: frames in, shard folder with label table, statistics and data card out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from gestalt.config.frames import FrameSettings
from gestalt.config.pseudo_labels import PseudoLabelSettings
from gestalt.data.atomic_files import write_bytes
from gestalt.data.frames import frame_geometry, load_left, move_intrinsics
from gestalt.data.kitti_maps import unpack_disparity
from gestalt.data.records import StereoFrame
from gestalt.data.sharded_run import FrameResult, RunSummary, run_sharded
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from gestalt.panoptic import VOID, UInt8Array, UInt16Array
from gestalt.pseudo_labels.components import component_proposals
from gestalt.pseudo_labels.fuse import FusedFrame, Statistics, check_pseudo_classes, fuse
from gestalt.pseudo_labels.label_table import (
    ProposalRecord,
    disparity_to_depth,
    label_records,
    proposal_records,
    statistics_of_table,
)
from gestalt.pseudo_labels.thing_stuff import STATISTICS_FILE

FloatArray = npt.NDArray[np.floating[Any]]

CARD_FILE = "card.json"


class LabelSemantics(Protocol):
    """Gives every pixel of an image a pseudo-class."""

    def __call__(
        self, image: UInt8Array, disparity: FloatArray | None, focal_length: float, stereo_baseline: float
    ) -> tuple[UInt8Array, npt.NDArray[np.float32]]:
        """Label one image.

        Args:
            image: (H, W, 3) uint8 RGB.
            disparity: (H, W) float, pixels, 0 where there is no match; None without stereo.
            focal_length: Pixels.
            stereo_baseline: Metres.

        Returns:
            (H, W) uint8 pseudo-classes, and (H, W) float32, how sure each pixel is, in [0, 1].
        """
        ...


@dataclass(frozen=True)
class FrameLabeller:
    """The panoptic pseudo-label of one frame; picklable, so that worker processes can hold it.

    Attributes:
        label_semantics: Gives every pixel a pseudo-class.
        motion: Shard folder with the map ``disparity``.
        proposals: Shard folder with the map ``proposals``; not read when components propose.
        frames: Geometry of the images; the one that motion was computed at.
        settings: Section ``pseudo_labels``.
        n_pseudo_classes: P.
    """

    label_semantics: LabelSemantics
    motion: Path
    proposals: Path
    frames: FrameSettings
    settings: PseudoLabelSettings
    n_pseudo_classes: int

    def __call__(self, frame: StereoFrame) -> FrameResult:
        """Label one frame.

        Raises:
            DataError: The frame has no result of an earlier stage, or one of another size.
        """
        image = load_left(frame, self.frames)
        geometry = frame_geometry(frame.height, frame.width, self.frames)
        focal_length = float(move_intrinsics(frame.intrinsics, geometry)[0, 0])
        disparity = self._disparity(frame.frame_id, image.shape[:2])
        depth_m = disparity_to_depth(disparity, focal_length, frame.stereo_baseline)
        semantic_map, confidence = self.label_semantics(image, disparity, focal_length, frame.stereo_baseline)
        check_pseudo_classes(semantic_map[semantic_map != VOID], self.n_pseudo_classes)
        if self.settings.components.enabled:
            proposals = component_proposals(semantic_map, depth_m, focal_length, self.settings.components)
        else:
            proposals = self._map(self._proposal_shards, frame.frame_id, "proposals", image.shape[:2])
        fused = fuse(
            semantic_map,
            proposals,
            border_px=self.settings.border_px,
            min_area_px=self.settings.min_area_px,
        )
        records = label_records(
            frame.frame_id,
            fused.panoptic,
            depth_m=depth_m,
            confidence=confidence,
            source="components" if self.settings.components.enabled else self.settings.proposals,
            proposals=self._known(frame.frame_id, fused),
        )
        return _result(frame.frame_id, fused, proposals, disparity, records)

    @cached_property
    def _motion_shards(self) -> ShardFolder:
        return ShardFolder(self.motion)

    @cached_property
    def _proposal_shards(self) -> ShardFolder:
        return self._motion_shards if self.proposals == self.motion else ShardFolder(self.proposals)

    @cached_property
    def _proposal_tables(self) -> dict[str, pd.DataFrame]:
        records = self._proposal_shards.records()
        return {} if records.empty else {str(name): table for name, table in records.groupby("frame_id")}

    def _known(self, frame_id: str, fused: FusedFrame) -> dict[int, ProposalRecord]:
        if self.settings.components.enabled or frame_id not in self._proposal_tables:
            return {}
        return proposal_records(self._proposal_tables[frame_id], fused.proposals.tolist())

    def _disparity(self, frame_id: str, size: tuple[int, ...]) -> npt.NDArray[np.float32]:
        return unpack_disparity(self._map(self._motion_shards, frame_id, "disparity", size))

    def _map(self, shards: ShardFolder, frame_id: str, kind: str, size: tuple[int, ...]) -> UInt16Array:
        stored = shards.read_map(frame_id, kind)
        if stored.shape != size:
            raise DataError(
                f"{frame_id}: {kind} and image must have one size. Got: {stored.shape} and {size}; "
                "the section `frames` changed since, `dvc repro` makes the maps again"
            )
        return stored.astype(np.uint16)


def write_pseudo_labels(
    frames: Sequence[StereoFrame],
    labeller: FrameLabeller,
    *,
    out_dir: Path,
    cache_dir: Path,
    key: Mapping[str, Any],
    shard_size: int,
    open_executor: Callable[[], Executor] | None,
    max_failed_share: float,
    label: str,
) -> tuple[RunSummary, Statistics]:
    """Label a batch.

    Args:
        frames: What to label.
        labeller: How.
        out_dir: Shard folder to write: maps ``semantic`` and ``instance``, the label table,
            ``statistics.json`` and ``card.json``.
        cache_dir: Folder of unfinished work.
        key: What the labels depend on; names the unfinished work.
        shard_size: Frames in a shard.
        open_executor: Opens the pool of processes; None works in this one.
        max_failed_share: Largest share of frames that may fail.
        label: Title of the progress bar.

    Raises:
        DataError: More frames fail than allowed.
    """
    summary = run_sharded(
        frames,
        labeller,
        out_dir=out_dir,
        cache_dir=cache_dir,
        key=key,
        shard_size=shard_size,
        open_executor=open_executor,
        max_failed_share=max_failed_share,
        label=label,
    )
    shards = ShardFolder(out_dir)
    statistics = statistics_of_table(
        shards.records(), summary.n_frames - summary.n_failed, labeller.n_pseudo_classes
    )
    for name, content in (
        (STATISTICS_FILE, statistics.to_json()),
        (CARD_FILE, data_card(shards, statistics, labeller)),
    ):
        write_bytes(out_dir / name, (json.dumps(content, indent=2) + "\n").encode())
    return summary, statistics


def data_card(shards: ShardFolder, statistics: Statistics, labeller: FrameLabeller) -> dict[str, Any]:
    """What a stranger needs to know about a delivery of pseudo-labels: numbers, size, shares, parameters."""
    table = shards.frames()
    status = table["status"].value_counts()
    labelled = [
        name for name, state in zip(table["frame_id"], table["status"], strict=True) if state != "failed"
    ]
    size = list(shards.read_map(labelled[0], "semantic").shape) if labelled else []
    n_pixels = max(int(statistics.pixels.sum()), 1)
    return {
        "what": "panoptic pseudo-labels made without human labels",
        "maps": {
            "semantic": "8-bit pseudo-class after alignment, 255 = void",
            "instance": "16-bit instance id, 0 = none",
        },
        "frames": {name: int(status.get(name, 0)) for name in ("ok", "empty", "failed")},
        "size": size,
        "n_pseudo_classes": statistics.n_pseudo_classes,
        "instances": int(statistics.instances.sum()),
        "pixel_share": [round(float(share), 6) for share in statistics.pixels / n_pixels],
        "pixel_share_in_instances": round(float(statistics.pixels_in_instances.sum() / n_pixels), 6),
        "parameters": {
            "frames": dataclasses.asdict(labeller.frames),
            "pseudo_labels": dataclasses.asdict(labeller.settings),
        },
    }


def _result(
    frame_id: str,
    fused: FusedFrame,
    proposals: UInt16Array,
    disparity: npt.NDArray[np.float32],
    records: list[dict[str, Any]],
) -> FrameResult:
    n_proposals, n_instances = len(np.unique(proposals[proposals > 0])), len(fused.proposals)
    reason = ""
    if not n_instances:
        reason = "every proposal is cut by the border or unlabelled" if n_proposals else "no proposal"
    return FrameResult(
        frame_id=frame_id,
        status="ok" if n_instances else "empty",
        reason=reason,
        maps={"semantic": fused.panoptic.semantic_map, "instance": fused.panoptic.instance_map},
        records=records,
        counts={
            "proposals": n_proposals,
            "instances": n_instances,
            "pixels": disparity.size,
            "instance_pixels": int((fused.panoptic.instance_map > 0).sum()),
            "void_pixels": int((fused.panoptic.semantic_map == VOID).sum()),
            "disparity_pixels": int((disparity > 0).sum()),
        },
    )
